//! Latency that the gateway adds: of a voice packet alone, beside bulk of other UEs at parts of the full rate, and
//! beside bulk of the same UE.
//!
//! The first row is the same path without a tunnel, forwarded by the kernel; what the others have above it is tunnel,
//! both its ends. The UE runs ahead of the load it shares its core with, so it adds little of its own.

use super::prober::{Probed, probe};
use super::scenario::FleetLoad;
use super::tunnel::Tunnel;
use super::{Scenario, iperf, measure_one};
use crate::bed::{Bed, Cores, GCM, Ground};
use crate::report::{figure, print_table};
use loadgen::demo::topology;
use loadgen::engine::traffic::{self, Direction};
use loadgen::error::Failure;
use loadgen::report::{LatencySection, Progress};
use serde::Serialize;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

/// Port of the probes at both ends.
const PORT: u16 = 40_100;
/// UEs that make the bulk.
const BULK_UES: u32 = 64;
/// Parts of the full rate.
const PARTS: [f64; 3] = [0.1, 0.5, 0.9];
/// Seconds of each probe unless others are asked for: six packets lie above the 99.9th percentile.
pub(super) const PROBE_S: f64 = 6.0;
/// Most of the packets of a probe that may be lost: what is left would be the latency of those that got through.
const LOST_MAX: f64 = 0.05;
/// Seconds in which the full rate is found, and before probing begins.
const SEARCH_S: f64 = 1.5;
const RAMP: Duration = Duration::from_millis(500);

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What else the path carried.
    pub beside: String,
    /// `up` or `down`.
    pub direction: &'static str,
    /// Bits per second of the bulk beside it.
    pub bulk_bits_per_s: Option<f64>,
    /// One-way latency of the voice packets that arrived; null when none did. One in a thousand lies above `p999`.
    pub latency_us: Option<LatencySection>,
    /// Voice packets sent.
    pub sent: u64,
    /// Voice packets lost.
    pub lost: u64,
}

/// The two ends of the probes.
struct Ends {
    ue: SocketAddrV4,
    core: SocketAddrV4,
}

impl Ends {
    fn new(ue: Ipv4Addr) -> Self {
        Self { ue: SocketAddrV4::new(ue, PORT), core: SocketAddrV4::new(*topology::SINK.ip(), PORT) }
    }

    fn probe(&self, bed: &Bed, direction: Direction, seconds: f64) -> Result<Probed, Failure> {
        let (ue, core) = ((&bed.topology.ue, self.ue), (&bed.topology.core, self.core));
        let (from, to) = if direction == Direction::Up { (ue, core) } else { (core, ue) };
        probe(bed, from, to, seconds)
    }
}

impl Row {
    fn new(beside: &str, direction: Direction, bulk_bits_per_s: Option<f64>, probed: &Probed) -> Self {
        let direction = if direction == Direction::Up { "up" } else { "down" };
        let Probed { latency_us, sent, lost } = *probed;
        Self { beside: beside.to_owned(), direction, bulk_bits_per_s, latency_us, sent, lost }
    }

    /// Returns whether the latencies stand for the packets sent: there are some, and few packets are missing.
    pub fn is_clean(&self) -> bool {
        self.latency_us.is_some() && self.lost as f64 <= LOST_MAX * self.sent as f64
    }
}

/// Measures all of it.
///
/// # Errors
/// See [`Bed::start`] and [`Tunnel::start`].
pub fn measure(ground: &Ground, seconds: f64) -> Result<Vec<Row>, Failure> {
    let bed = Bed::start(ground, Cores::choose(1)?, true)?;
    let mut rows = Vec::new();
    for direction in [Direction::Up, Direction::Down] {
        ground.progress.step(&format!("latency, {direction:?}: without a tunnel"));
        let probed = without_tunnel(&bed, direction, seconds)?;
        rows.push(Row::new("no tunnel", direction, None, &probed));
        ground.progress.step(&format!("latency, {direction:?}: full rate of {BULK_UES} UEs"));
        let full = Scenario::new("full-rate", FleetLoad::bulk(BULK_UES, GCM), direction);
        let full_bits_per_s = measure_one(&bed, &full, SEARCH_S)?.bits_per_s.unwrap_or(0.0);
        let tunnel = Tunnel::start(&bed, true)?;
        let ends = Ends::new(tunnel.address);
        rows.push(Row::new("nothing", direction, None, &ends.probe(&bed, direction, seconds)?));
        for part in PARTS {
            ground.progress.step(&format!("latency, {direction:?}: bulk at {:.0} %", part * 100.0));
            rows.push(beside_others(&bed, &ends, direction, full_bits_per_s * part, part, seconds)?);
        }
        ground.progress.step(&format!("latency, {direction:?}: bulk of the same UE"));
        rows.push(beside_own(&bed, &ends, direction, seconds)?);
        tunnel.stop();
    }
    Ok(rows)
}

/// Lets the kernel forward between UEs and core network.
fn without_tunnel(bed: &Bed, direction: Direction, seconds: f64) -> Result<Probed, Failure> {
    let gateway = topology::GATEWAY.ip().to_string();
    let (far, ue) = (topology::SINK.ip().to_string(), topology::UE.to_string());
    bed.topology.ue.ip(&["route", "add", &far, "via", &gateway])?;
    bed.topology.core.ip(&["route", "add", &ue, "via", &topology::GATEWAY_CORE.to_string()])?;
    let probed = Ends::new(topology::UE).probe(bed, direction, seconds);
    bed.topology.core.ip(&["route", "del", &ue])?;
    bed.topology.ue.ip(&["route", "del", &far])?;
    probed
}

fn beside_others(
    bed: &Bed,
    ends: &Ends,
    direction: Direction,
    bits_per_s: f64,
    part: f64,
    seconds: f64,
) -> Result<Row, Failure> {
    let load = FleetLoad { rate: Some(bits_per_s), ..FleetLoad::bulk(BULK_UES, GCM) };
    let plan = load.plan(direction, seconds + 2.0 * RAMP.as_secs_f64(), bed.inner_queue());
    std::thread::scope(|scope| {
        let (attached, ready) = std::sync::mpsc::channel();
        let bulk = scope.spawn(move || {
            bed.with_fleet(load.ues, load.esp, async |ues| {
                let _ = attached.send(());
                traffic::run(ues, &plan, None, &Progress::new()).await
            })
        });
        // Without bulk there is nothing to measure beside; its own failure is returned below.
        let probed = ready.recv().ok().map(|()| {
            std::thread::sleep(RAMP);
            ends.probe(bed, direction, seconds)
        });
        let outcome = bulk.join().unwrap_or_else(|_| Err(Failure::Check("the UE engine panicked".into())))?;
        let probed = probed.unwrap_or_else(|| Err(Failure::Check("no bulk to measure beside".into())))?;
        let way = if direction == Direction::Up { outcome.uplink } else { outcome.downlink };
        let beside = format!("bulk of {BULK_UES} others, {:.0} % of full rate", part * 100.0);
        Ok(Row::new(&beside, direction, way.and_then(|way| way.bits_per_s), &probed))
    })
}

fn beside_own(bed: &Bed, ends: &Ends, direction: Direction, seconds: f64) -> Result<Row, Failure> {
    let span_s = seconds + 2.0 * RAMP.as_secs_f64();
    let bulk = iperf::Iperf::start(bed, direction, span_s)?;
    std::thread::sleep(RAMP);
    let probed = ends.probe(bed, direction, seconds)?;
    let bulk = bulk.finish(span_s)?;
    Ok(Row::new("iperf3 of the same UE", direction, Some(bulk.bits_per_s), &probed))
}

/// Prints the table.
pub fn print(rows: &[Row]) {
    let columns = ["direction", "bulk Gbit/s", "p50 us", "p99 us", "p99.9 us", "max us", "lost of sent"];
    let cells = |row: &Row| {
        let latency = |of: fn(&LatencySection) -> f64| figure(row.latency_us.as_ref().map(of), 0);
        vec![
            format!("voice beside {}", row.beside),
            row.direction.to_owned(),
            figure(row.bulk_bits_per_s.map(|bits| bits / 1e9), 2),
            latency(|us| us.p50),
            latency(|us| us.p99),
            latency(|us| us.p999),
            latency(|us| us.max),
            format!("{} of {}", row.lost, row.sent),
        ]
    };
    print_table("latency, one way", &columns, rows.iter().map(cells));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_without_latency_or_with_many_packets_lost_is_not_clean() {
        let one = LatencySection { p50: 1.0, p90: 1.0, p99: 1.0, p999: 1.0, max: 1.0 };
        let clean = |latency_us, lost| {
            Row::new("nothing", Direction::Up, None, &Probed { latency_us, sent: 1_000, lost }).is_clean()
        };
        assert!(clean(Some(one), 0) && clean(Some(one), 50));
        assert!(!clean(Some(one), 51));
        assert!(!clean(None, 1_000) && !clean(None, 0));
    }
}
