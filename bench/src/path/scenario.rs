//! What is measured: who sends what which way.

use crate::bed::{CBC, GCM};
use loadgen::cli::{LoadOptions, Rate};
use loadgen::command::load;
use loadgen::demo::topology;
use loadgen::engine::traffic::{Direction, TrafficPlan, VOICE_PACKETS_PER_S};
use loadgen::error::Failure;
use loadgen::host::clock;
use loadgen::probe::SizePlan;

/// Octets of a bulk packet and of a voice packet.
const BULK: u16 = 1400;
const VOICE: u16 = 160;
/// Inner bits per second of a UE's call.
const VOICE_BITS_PER_S: f64 = VOICE_PACKETS_PER_S * VOICE as f64 * 8.0;
/// UEs of the scenarios in which every packet is another UE's.
const VOICE_UES: u32 = 1024;

/// One scenario.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    title: &'static str,
    /// What makes the traffic.
    pub load: Load,
    /// Which way; never both.
    pub direction: Direction,
}

/// What makes the traffic.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// loadgen's engine: many UEs with checked packets.
    Fleet(FleetLoad),
    /// `loadgen ue` and iperf3: one UE with the kernel's TCP.
    Iperf,
}

/// Traffic of loadgen's engine.
#[derive(Clone, Copy, Debug)]
pub struct FleetLoad {
    /// Number of UEs.
    pub ues: u32,
    /// Inner packet length.
    pub size: SizePlan,
    /// ESP suite.
    pub esp: &'static str,
    /// Inner bits per second of all UEs together; closed loop without.
    pub rate: Option<f64>,
    /// Every packet is another UE's than the one before.
    pub interleave: bool,
}

impl FleetLoad {
    /// Bulk of `ues` UEs in the closed loop.
    pub fn bulk(ues: u32, esp: &'static str) -> Self {
        Self { ues, size: SizePlan::Fixed(BULK), esp, rate: None, interleave: false }
    }

    /// Returns the plan of a run; the inner device holds `queue` packets.
    pub fn plan(&self, direction: Direction, seconds: f64, queue: Option<u32>) -> TrafficPlan {
        let options = LoadOptions {
            size: self.size,
            burst: 16,
            rate: self.rate.map(Rate::BitsPerSecond),
            window: None,
            queue,
            interleave: self.interleave,
            voice: None,
            voice_beside: false,
            churn: None,
        };
        let run = clock::monotonic_ns() as u32;
        load::plan(&options, self.ues, direction, seconds, Some(topology::SINK.into()), run)
    }
}

impl Scenario {
    /// A scenario of a fleet.
    pub fn new(title: &'static str, load: FleetLoad, direction: Direction) -> Self {
        Self { title, load: Load::Fleet(load), direction }
    }

    /// iperf3 through one real UE.
    pub fn iperf(direction: Direction) -> Self {
        Self { title: "iperf3-1ue", load: Load::Iperf, direction }
    }

    /// Returns the name: what and which way.
    pub fn name(&self) -> String {
        format!("{}-{}", self.title, if self.direction == Direction::Up { "up" } else { "down" })
    }
}

fn all() -> Vec<Scenario> {
    let voice_run = FleetLoad { size: SizePlan::Fixed(VOICE), ..FleetLoad::bulk(1, GCM) };
    let voice_each = FleetLoad {
        ues: VOICE_UES,
        rate: Some(f64::from(VOICE_UES) * VOICE_BITS_PER_S),
        interleave: true,
        ..voice_run
    };
    let loads = [
        ("gcm-1400-1ue", Load::Fleet(FleetLoad::bulk(1, GCM))),
        ("gcm-1400-64ue", Load::Fleet(FleetLoad::bulk(64, GCM))),
        ("gcm-160-one-flow", Load::Fleet(voice_run)),
        ("gcm-160-each-ue", Load::Fleet(voice_each)),
        ("cbc-1400-64ue", Load::Fleet(FleetLoad::bulk(64, CBC))),
        ("iperf3-1ue", Load::Iperf),
    ];
    let both =
        |(title, load)| [Direction::Up, Direction::Down].map(|direction| Scenario { title, load, direction });
    loads.into_iter().flat_map(both).collect()
}

/// Returns the scenarios whose name contains one of `filters`; all without a filter.
///
/// # Errors
/// [`Failure::Usage`] when none does.
pub fn choose(filters: &[String]) -> Result<Vec<Scenario>, Failure> {
    let mut scenarios = all();
    scenarios.retain(|scenario| {
        filters.is_empty() || filters.iter().any(|filter| scenario.name().contains(filter.as_str()))
    });
    if scenarios.is_empty() {
        return Err(Failure::Usage(format!("no scenario contains {filters:?}; --list names them")));
    }
    Ok(scenarios)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_filters_find_parts_of_them() {
        let mut names: Vec<String> = all().iter().map(Scenario::name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
        assert_eq!(choose(&["cbc".into()]).unwrap().len(), 2);
        assert!(choose(&["none such".into()]).is_err());
    }
}
