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
//! wake-ups are what the path has on top. Part of that is no gateway's: stages that share a core disturb each other. So they
//! also run in one loop that does nothing else, and the path's share of that is printed beside.
//!
//! A machine with neighbours is another one from one second to the next, so stages and paths take turns for a few rounds,
//! and the medians are held against each other.

mod crypto;
mod limit;
mod tcp;
mod together;
mod tun;

use crate::bed::{Bed, CBC, Cores, GCM, Ground};
use crate::cli::RooflineArgs;
use crate::machine::Snapshot;
use crate::path::{self, CALL_PACKETS_PER_S, CALLS, FleetLoad, Scenario};
use crate::report::{environment, figure, print_table, write_json};
use crate::stage::PACKET_LEN;
use limit::{Calls, Limit, Stage, median_stages, rate};
use loadgen::demo::topology::Topology;
use loadgen::engine::traffic::Direction;
use loadgen::error::Failure;
use serde::Serialize;
use std::borrow::Cow;
use std::time::Duration;
use together::Shape;

/// Packets of one super-packet: as many as fit into 64 KiB.
const SEGMENTS: usize = 46;

/// Connections side by side: one suffers from every pause of its other end, many share the kernel's batches and the caches.
const CONNECTIONS: [usize; 2] = [1, 64];

#[derive(Serialize)]
struct Report {
    command: &'static str,
    config: serde_json::Value,
    environment: serde_json::Value,
    limits: Vec<Limit>,
    calls: Vec<Calls>,
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
    let Round { limits, calls, beside } = Round::median(&rounds);
    let report = Report {
        command: "roofline",
        config: serde_json::json!({
            "seconds": args.seconds, "rounds": args.rounds, "packet_len": PACKET_LEN, "segments": SEGMENTS,
        }),
        environment: environment(),
        limits,
        calls,
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
    calls: Vec<Calls>,
    beside: Vec<Stage>,
}

/// The stages of a round.
struct Stages {
    limits: Vec<Limit>,
    /// Direction, and what a packet of a call costs in a loop.
    calls: Vec<(Direction, f64)>,
    beside: Vec<Stage>,
}

impl Round {
    fn measure(ground: &Ground, cores: &Cores, seconds: f64) -> Result<Self, Failure> {
        let Stages { mut limits, calls, beside } = stages(ground, cores, Duration::from_secs_f64(seconds))?;
        let bed = Bed::start(ground, cores.clone(), true)?;
        bed.set_super_packets(true)?;
        let measure = |scenario: Scenario| {
            ground.progress.step(&format!("the path: {}", scenario.name()));
            let mut row = path::measure_one(&bed, &scenario, seconds)?;
            row.super_packets = true;
            Ok(row)
        };
        for limit in &mut limits {
            let direction = if limit.direction == "up" { Direction::Up } else { Direction::Down };
            for scenario in paths(direction, limit.connections) {
                limit.paths.push(limit.share(measure(scenario)?));
            }
        }
        let calls = calls.into_iter().map(|(direction, together)| {
            let name = if direction == Direction::Up { "up" } else { "down" };
            Ok(Calls::new(name, CALLS as usize, together, measure(Scenario::calls(direction))?))
        });
        Ok(Self { limits, calls: calls.collect::<Result<_, Failure>>()?, beside })
    }

    /// The medians; all rounds have the same limits, calls and stages.
    fn median(rounds: &[Self]) -> Self {
        let limits = (0..rounds[0].limits.len())
            .map(|at| Limit::median(&rounds.iter().map(|round| &round.limits[at]).collect::<Vec<_>>()));
        let calls = (0..rounds[0].calls.len())
            .map(|at| Calls::median(&rounds.iter().map(|round| &round.calls[at]).collect::<Vec<_>>()));
        let beside = median_stages(rounds.iter().map(|round| &*round.beside));
        Self { limits: limits.collect(), calls: calls.collect(), beside }
    }
}

fn paths(direction: Direction, connections: usize) -> Vec<Scenario> {
    let bulk = |title| Scenario::new(title, FleetLoad::bulk(connections as u32, GCM), direction);
    match connections {
        1 => vec![bulk("gcm-1400-1ue"), Scenario::iperf(direction)],
        _ => vec![bulk("gcm-1400-64ue")],
    }
}

/// Measures every stage: those of the limits, and for comparison those that a path may have instead.
fn stages(ground: &Ground, cores: &Cores, span: Duration) -> Result<Stages, Failure> {
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
    let queue = tun::make(&field)?;
    let device = tun::measure(&field, &queue)?;
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
        step(&format!("all in one loop, {connections} connection(s)"));
        let together = together::up(&field, &queue, Shape::bulk(connections))?;
        limits.push(Limit::new("up", connections, up(sink), together));
        let together = together::down(&field, &queue, Shape::bulk(connections))?;
        limits_down.push(Limit::new("down", connections, down(source), together));
    }
    limits.append(&mut limits_down);
    step(&format!("calls in one loop, {CALLS} connections"));
    let shape = Shape::voice(CALLS as usize, CALL_PACKETS_PER_S);
    let calls = vec![
        (Direction::Up, together::up(&field, &queue, shape)?),
        (Direction::Down, together::down(&field, &queue, shape)?),
    ];
    step("sends with and without a copy");
    let mut beside = sends(&field)?;
    beside.extend([
        stage("write single packets", device.write_single),
        stage("read single packets", device.read_single),
        stage("open, AES-CBC-256 + HMAC-SHA2-256, one at a time", open_cbc),
        stage("seal, AES-CBC-256 + HMAC-SHA2-256, one at a time", seal_cbc),
    ]);
    Ok(Stages { limits, calls, beside })
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
        let row = |name: &str, bits: Option<f64>, shares: [Option<f64>; 2]| {
            let [share, of_loop] = shares.map(|share| figure(share.map(|share| share * 100.0), 1));
            vec![name.to_owned(), figure(bits.map(|bits| bits / 1e9), 1), share, of_loop]
        };
        let in_a_loop = rate(limit.loop_ns_per_packet);
        let limits = [
            row("the stages' limit", Some(limit.bits_per_s), [Some(1.0), None]),
            row("the stages in one loop", Some(in_a_loop), [Some(in_a_loop / limit.bits_per_s), Some(1.0)]),
        ];
        let paths = limit
            .paths
            .iter()
            .map(|path| row(&path.row.scenario, path.row.bits_per_cpu_s, [path.share, path.share_of_loop]));
        print_table(
            "the path",
            &["Gbit/s per core", "% of the limit", "% of the loop"],
            limits.into_iter().chain(paths),
        );
    }
    let calls = report.calls.iter().map(|calls| {
        let cost = |packets_per_cpu_s: Option<f64>| packets_per_cpu_s.map(|packets| 1e9 / packets);
        let share = calls.share_of_loop.map(|share| share * 100.0);
        vec![
            format!("{}, {} calls", calls.direction, calls.connections),
            figure(Some(calls.loop_ns_per_packet), 0),
            figure(cost(calls.path.packets_per_cpu_s), 0),
            figure(share, 1),
        ]
    });
    let columns = ["the stages in one loop", "the path", "% of the loop"];
    print_table("160 octets, each another connection's, ns per packet", &columns, calls);
    print_table("beside", &["ns per packet"], report.beside.iter().map(ns));
    println!("ciphers: {}", codec::esp::backend::choose());
    println!("the hypervisor kept {:.2} cores", report.stolen);
}
