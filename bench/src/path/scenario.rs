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
/// Calls of the scenarios in which every packet is another UE's.
pub const CALLS: u32 = 1024;
/// Their packets per second.
pub const CALL_PACKETS_PER_S: f64 = CALLS as f64 * VOICE_PACKETS_PER_S;

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

    /// Calls of many UEs, none of which has two packets under way.
    pub fn calls(direction: Direction) -> Self {
        let load = FleetLoad {
            ues: CALLS,
            size: SizePlan::Fixed(VOICE),
            esp: GCM,
            rate: Some(CALL_PACKETS_PER_S * f64::from(VOICE) * 8.0),
            interleave: true,
        };
        Self::new("gcm-160-each-ue", load, direction)
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
    let bulk = |title, ues| move |direction| Scenario::new(title, FleetLoad::bulk(ues, GCM), direction);
    let voice = FleetLoad { size: SizePlan::Fixed(VOICE), ..FleetLoad::bulk(1, GCM) };
    let scenarios: [&dyn Fn(Direction) -> Scenario; 6] = [
        &bulk("gcm-1400-1ue", 1),
        &bulk("gcm-1400-64ue", 64),
        &|direction| Scenario::new("gcm-160-one-flow", voice, direction),
        &Scenario::calls,
        &|direction| Scenario::new("cbc-1400-64ue", FleetLoad::bulk(64, CBC), direction),
        &Scenario::iperf,
    ];
    scenarios.into_iter().flat_map(|scenario| [Direction::Up, Direction::Down].map(scenario)).collect()
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
