//! `bench roofline`: the stages a packet cannot do without, each alone, and how much of their limit the path reaches.
//!
//! ```text
//! up    receive from TCP   open ESP        inner checksum   write to the device
//! down  read from device   inner checksum  seal ESP         send over TCP
//! ```
//!
//! Each stage runs on the gateway's core as the gateway would run it, with nothing else: kernel copies, the cipher, the
//! sum, over as many connections as the path has that is held against it, and to a far end that receives. What they cost
//! together is about the limit of a gateway over this kernel and cipher; framing, lookups, replay windows, timers and
//! wake-ups are what the path has on top.
//!
//! A machine with neighbours is another one from one second to the next, so stages and paths take turns for a few rounds,
//! and the medians are held against each other.

mod crypto;
mod tcp;
mod tun;

use crate::bed::{Bed, CBC, Cores, GCM, Ground};
use crate::cli::RooflineArgs;
use crate::machine::Snapshot;
use crate::path::{self, FleetLoad, Row, Scenario};
use crate::report::{environment, print_table, write_json};
use crate::stage::PACKET_LEN;
use loadgen::demo::topology::Topology;
use loadgen::engine::traffic::Direction;
use loadgen::error::Failure;
use serde::Serialize;
use std::borrow::Cow;
use std::time::Duration;

/// Packets of one super-packet: as many as fit into 64 KiB.
const SEGMENTS: usize = 46;

/// Connections side by side: one suffers from every pause of its other end, many share the kernel's batches and the caches.
const CONNECTIONS: [usize; 2] = [1, 64];

/// What one stage costs.
#[derive(Clone, Debug, Serialize)]
pub struct Stage {
    /// What it does.
    pub name: Cow<'static, str>,
    /// Thread CPU nanoseconds per packet of 1400 octets.
    pub ns_per_packet: f64,
}

/// A direction's limit and the paths measured against it.
#[derive(Clone, Debug, Serialize)]
pub struct Limit {
    /// `up` or `down`.
    pub direction: &'static str,
    /// Connections that the TCP stage and the paths have.
    pub connections: usize,
    /// The stages that every packet passes.
    pub stages: Vec<Stage>,
    /// Their sum.
    pub ns_per_packet: f64,
    /// Bits per second that one core carries when nothing else costs anything.
    pub bits_per_s: f64,
    /// The same run's paths.
    pub paths: Vec<PathShare>,
}

/// A path and its share of the limit.
#[derive(Clone, Debug, Serialize)]
pub struct PathShare {
    /// What was measured.
    pub row: Row,
    /// Part of the limit, 0 to 1.
    pub share: Option<f64>,
}

#[derive(Serialize)]
struct Report {
    command: &'static str,
    config: serde_json::Value,
    environment: serde_json::Value,
    limits: Vec<Limit>,
    beside: Vec<Stage>,
    stolen: f64,
}

/// A bare network to measure stages in, and for how long.
struct Field<'a> {
    topology: &'a Topology,
    cores: &'a Cores,
    span: Duration,
}

/// Runs the command.
///
/// # Errors
/// See [`Ground::prepare`], [`Bed::start`] and the stages.
pub fn run(args: &RooflineArgs) -> Result<bool, Failure> {
    path::require_iperf()?;
    let ground = Ground::prepare(args.common.swugate.as_deref())?;
    let snapshot = Snapshot::take();
    let cores = Cores::choose(1)?;
    let mut rounds = Vec::new();
    for number in 1..=args.rounds {
        ground.progress.step(&format!("round {number} of {}", args.rounds));
        rounds.push(Round::measure(&ground, &cores, args.seconds)?);
    }
    let Round { limits, beside } = Round::median(&rounds);
    let report = Report {
        command: "roofline",
        config: serde_json::json!({
            "seconds": args.seconds, "rounds": args.rounds, "packet_len": PACKET_LEN, "segments": SEGMENTS,
        }),
        environment: environment(),
        limits,
        beside,
        stolen: snapshot.usage().stolen,
    };
    print(&report);
    write_json(args.common.json.as_deref(), &report)?;
    Ok(true)
}

/// Stages and paths, measured once.
struct Round {
    limits: Vec<Limit>,
    beside: Vec<Stage>,
}

impl Round {
    fn measure(ground: &Ground, cores: &Cores, seconds: f64) -> Result<Self, Failure> {
        let (mut limits, beside) = stages(ground, cores, Duration::from_secs_f64(seconds))?;
        let bed = Bed::start(ground, cores.clone(), true)?;
        bed.set_super_packets(true)?;
        for limit in &mut limits {
            let direction = if limit.direction == "up" { Direction::Up } else { Direction::Down };
            for scenario in paths(direction, limit.connections) {
                ground.progress.step(&format!("the path: {}", scenario.name()));
                let mut row = path::measure_one(&bed, &scenario, seconds)?;
                row.super_packets = true;
                limit.paths.push(limit.share(row));
            }
        }
        Ok(Self { limits, beside })
    }

    /// The median of every stage, and of every path the row with the median rate; all rounds have the same ones.
    fn median(rounds: &[Self]) -> Self {
        let limits = rounds[0].limits.iter().enumerate().map(|(at, first)| {
            let limits: Vec<&Limit> = rounds.iter().map(|round| &round.limits[at]).collect();
            let stages = median_stages(limits.iter().map(|limit| &*limit.stages));
            let mut whole = Limit::new(first.direction, first.connections, stages);
            for path in 0..first.paths.len() {
                let rows = limits.iter().map(|limit| &limit.paths[path].row);
                let row = middle(rows.collect(), |row| row.bits_per_cpu_s.unwrap_or(0.0)).clone();
                whole.paths.push(whole.share(row));
            }
            whole
        });
        let beside = median_stages(rounds.iter().map(|round| &*round.beside));
        Self { limits: limits.collect(), beside }
    }
}

fn median_stages<'a>(rounds: impl Iterator<Item = &'a [Stage]>) -> Vec<Stage> {
    let rounds: Vec<&[Stage]> = rounds.collect();
    let of = |at: usize| rounds.iter().map(|stages| &stages[at]).collect();
    (0..rounds[0].len()).map(|at| middle(of(at), |stage| stage.ns_per_packet).clone()).collect()
}

/// The one in the middle; of an even number the lower.
fn middle<T>(mut values: Vec<&T>, key: impl Fn(&T) -> f64) -> &T {
    values.sort_by(|one, other| key(one).total_cmp(&key(other)));
    values[(values.len() - 1) / 2]
}

fn paths(direction: Direction, connections: usize) -> Vec<Scenario> {
    let bulk = |title| Scenario::new(title, FleetLoad::bulk(connections as u32, GCM), direction);
    match connections {
        1 => vec![bulk("gcm-1400-1ue"), Scenario::iperf(direction)],
        _ => vec![bulk("gcm-1400-64ue")],
    }
}

/// Measures every stage: those of the limits, and for comparison those that a path may have instead.
fn stages(ground: &Ground, cores: &Cores, span: Duration) -> Result<(Vec<Limit>, Vec<Stage>), Failure> {
    let topology = ground.network(cores)?;
    let field = Field { topology: &topology, cores, span };
    let step = |text: &str| ground.progress.step(&format!("stage: {text}"));
    let per_packet = |name, seconds_per_octet: f64, octets: usize| Stage {
        name: Cow::Borrowed(name),
        ns_per_packet: seconds_per_octet * octets as f64 * 1e9,
    };
    let frame_len = crypto::frame_len(GCM, PACKET_LEN);
    let mut tcp = Vec::new();
    for connections in CONNECTIONS {
        step(&format!("plain TCP, received on {connections} connection(s)"));
        let sink = per_packet("receive from TCP", tcp::sink(&field, connections)?, frame_len);
        step(&format!("plain TCP, sent on {connections} connection(s)"));
        tcp.push((
            connections,
            sink,
            per_packet("send over TCP", tcp::source(&field, connections)?, frame_len),
        ));
    }
    step("AES-128-GCM, inner checksum");
    let [seal, open] = field.on_gateway(|| Ok(crypto::seal_and_open(GCM, span)))?;
    let [seal_cbc, open_cbc] = field.on_gateway(|| Ok(crypto::seal_and_open(CBC, span)))?;
    let checksum = field.on_gateway(|| Ok(crypto::checksum(span)))?;
    step("the inner device");
    let device = tun::measure(&field)?;
    let stage = |name, ns_per_packet| Stage { name: Cow::Borrowed(name), ns_per_packet };
    let up = |sink| {
        vec![
            sink,
            stage("open, AES-128-GCM", open),
            stage("inner checksum", checksum),
            stage("write super-packets", device.write_super),
        ]
    };
    let down = |source| {
        vec![
            stage("read super-packets", device.read_super),
            stage("inner checksum", checksum),
            stage("seal, AES-128-GCM", seal),
            source,
        ]
    };
    let (mut limits, mut limits_down) = (Vec::new(), Vec::new());
    for (connections, sink, source) in tcp {
        limits.push(Limit::new("up", connections, up(sink)));
        limits_down.push(Limit::new("down", connections, down(source)));
    }
    limits.append(&mut limits_down);
    step("sends with and without a copy");
    let mut beside = sends(&field)?;
    beside.extend([
        stage("write single packets", device.write_single),
        stage("read single packets", device.read_single),
        stage("open, AES-CBC-256 + HMAC-SHA2-256, one at a time", open_cbc),
        stage("seal, AES-CBC-256 + HMAC-SHA2-256, one at a time", seal_cbc),
    ]);
    Ok((limits, beside))
}

/// What the ring's sends cost by size, copied and not.
fn sends(field: &Field<'_>) -> Result<Vec<Stage>, Failure> {
    let frame_len = crypto::frame_len(GCM, PACKET_LEN) as f64;
    let mut stages = Vec::new();
    for octets in [4 << 10, 16 << 10, 64 << 10, 256 << 10] {
        for zero_copy in [false, true] {
            let (cost, copied) = tcp::ring_source(field, octets, zero_copy)?;
            let how = if zero_copy { "without a copy" } else { "by copy" };
            let after_all = copied
                .map_or_else(String::new, |share| format!(" ({:.0} % copied after all)", share * 100.0));
            let name = format!("send {} KiB {how}{after_all}", octets >> 10);
            stages.push(Stage { name: name.into(), ns_per_packet: cost * frame_len * 1e9 });
        }
    }
    Ok(stages)
}

impl Limit {
    fn new(direction: &'static str, connections: usize, stages: Vec<Stage>) -> Self {
        let ns_per_packet: f64 = stages.iter().map(|stage| stage.ns_per_packet).sum();
        let bits_per_s = PACKET_LEN as f64 * 8.0 / ns_per_packet * 1e9;
        Self { direction, connections, stages, ns_per_packet, bits_per_s, paths: Vec::new() }
    }

    fn share(&self, row: Row) -> PathShare {
        let share = row.bits_per_cpu_s.map(|bits| bits / self.bits_per_s);
        PathShare { row, share }
    }
}

impl Field<'_> {
    /// Runs `work` in a thread in the gateway's place.
    fn on_gateway<R: Send>(&self, work: impl FnOnce() -> Result<R, Failure> + Send) -> Result<R, Failure> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.topology.gateway.enter(self.cores.gateway[0])?;
                work()
            });
            thread.join().unwrap_or_else(|_| Err(Failure::Check("a stage panicked".into())))
        })
    }
}

fn print(report: &Report) {
    let ns = |stage: &Stage| vec![stage.name.to_string(), format!("{:.0}", stage.ns_per_packet)];
    for limit in &report.limits {
        let connections = if limit.connections == 1 { "connection" } else { "connections" };
        let title = format!("{}, one core, {} {connections}", limit.direction, limit.connections);
        let sum = Stage { name: "sum".into(), ns_per_packet: limit.ns_per_packet };
        print_table(&title, &["ns per packet"], limit.stages.iter().chain([&sum]).map(ns));
        let paths = limit.paths.iter().map(|path| {
            let bits = path.row.bits_per_cpu_s;
            let cells = [bits.map(|bits| bits / 1e9), path.share.map(|share| share * 100.0)];
            let [rate, share] = cells.map(|value| crate::report::figure(value, 1));
            vec![path.row.scenario.clone(), rate, share]
        });
        let limit_row =
            vec!["the stages' limit".into(), format!("{:.1}", limit.bits_per_s / 1e9), "100".into()];
        print_table(
            "the path",
            &["Gbit/s per core", "% of the limit"],
            std::iter::once(limit_row).chain(paths),
        );
    }
    print_table("beside", &["ns per packet"], report.beside.iter().map(ns));
    println!("ciphers: {}", codec::esp::backend::choose());
    println!("the hypervisor kept {:.2} cores", report.stolen);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_the_inverse_of_the_sum() {
        let limit = Limit::new(
            "up",
            1,
            vec![
                Stage { name: "a".into(), ns_per_packet: 300.0 },
                Stage { name: "b".into(), ns_per_packet: 400.0 },
            ],
        );
        assert_eq!((limit.ns_per_packet, limit.bits_per_s), (700.0, 16e9));
    }

    #[test]
    fn medians_are_taken_of_stages_and_paths_apart() {
        let round = |ns: f64, bits: f64| {
            let stage = || Stage { name: "a".into(), ns_per_packet: ns };
            let mut limit =
                Limit::new("up", 1, vec![stage(), Stage { name: "b".into(), ns_per_packet: 100.0 }]);
            let row = Row { bits_per_cpu_s: Some(bits), ..Row::default() };
            limit.paths.push(limit.share(row));
            Round { limits: vec![limit], beside: vec![stage()] }
        };
        let whole = Round::median(&[round(600.0, 9e9), round(900.0, 8e9), round(300.0, 12e9)]);
        let limit = &whole.limits[0];
        assert_eq!((limit.ns_per_packet, limit.bits_per_s), (700.0, 16e9));
        assert_eq!((limit.paths[0].row.bits_per_cpu_s, limit.paths[0].share), (Some(9e9), Some(9.0 / 16.0)));
        assert_eq!(whole.beside[0].ns_per_packet, 600.0);
        assert_eq!(Round::median(&[round(600.0, 9e9), round(500.0, 8e9)]).limits[0].ns_per_packet, 600.0);
    }
}
