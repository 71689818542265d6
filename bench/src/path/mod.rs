//! `bench path`: what a core of the gateway carries, scenario by scenario.

pub mod child;
mod iperf;
mod latency;
mod prober;
mod row;
mod scenario;
mod tunnel;

pub use iperf::require as require_iperf;
pub use row::Row;
pub use scenario::{CALL_PACKETS_PER_S, CALLS, FleetLoad, Load, Scenario};

use crate::bed::{Bed, Cores, Ground};
use crate::cli::PathArgs;
use crate::machine::Watch;
use crate::report::{environment, print_table, write_json};
use loadgen::engine::traffic::{self, Phase};
use loadgen::error::Failure;
use loadgen::report::Progress;
use serde::Serialize;

/// Seconds of each scenario unless others are asked for.
const SCENARIO_S: f64 = 3.0;

/// The report of the command.
#[derive(Serialize)]
struct Report {
    command: &'static str,
    config: serde_json::Value,
    environment: serde_json::Value,
    rows: Vec<Row>,
    latency: Vec<latency::Row>,
}

/// Runs the command; returns whether nothing was lost, repeated, out of order or damaged, and, of latencies, whether every
/// row has some and at most a twentieth of its packets is missing.
///
/// # Errors
/// See [`Ground::prepare`] and [`Bed::start`].
pub fn run(args: &PathArgs) -> Result<bool, Failure> {
    let scenarios = scenario::choose(&args.scenario)?;
    if args.list {
        scenarios.iter().for_each(|scenario| println!("{}", scenario.name()));
        return Ok(true);
    }
    if args.latency || scenarios.iter().any(|scenario| matches!(scenario.load, Load::Iperf)) {
        iperf::require()?;
    }
    let ground = Ground::prepare(args.common.swugate.as_deref())?;
    let seconds = args.seconds.unwrap_or(if args.latency { latency::PROBE_S } else { SCENARIO_S });
    let (mut rows, mut latency) = (Vec::new(), Vec::new());
    if args.latency {
        latency = latency::measure(&ground, seconds)?;
        latency::print(&latency);
    } else {
        for workers in &args.workers {
            for super_packets in args.offloads.settings() {
                for flow_queue in args.flow_queue.settings() {
                    let set = Set {
                        workers: usize::from(*workers),
                        super_packets: *super_packets,
                        flow_queue: *flow_queue,
                    };
                    rows.extend(measure(&ground, set, &scenarios, seconds)?);
                }
            }
        }
        print_table("path", &Row::COLUMNS, rows.iter().map(Row::cells));
    }
    let clean = rows.iter().all(Row::is_clean) && latency.iter().all(latency::Row::is_clean);
    let report = Report {
        command: "path",
        config: serde_json::json!({"seconds": seconds, "workers": args.workers}),
        environment: environment(),
        rows,
        latency,
    };
    write_json(args.common.json.as_deref(), &report)?;
    Ok(clean)
}

/// How a gateway is set up.
#[derive(Clone, Copy, Debug)]
pub struct Set {
    /// Its workers.
    pub workers: usize,
    /// Whether the inner devices carry super-packets.
    pub super_packets: bool,
    /// Whether downlink packets wait in flow queues.
    pub flow_queue: bool,
}

/// Runs `scenarios` against one gateway.
///
/// # Errors
/// See [`Bed::start`] and [`measure_one`].
pub fn measure(ground: &Ground, set: Set, scenarios: &[Scenario], seconds: f64) -> Result<Vec<Row>, Failure> {
    let Set { workers, super_packets, flow_queue } = set;
    let bed = Bed::start(ground, Cores::choose(workers)?, flow_queue)?;
    bed.set_super_packets(super_packets)?;
    let mut rows = Vec::new();
    for scenario in scenarios {
        let devices = if super_packets { "super-packets" } else { "single packets" };
        let queues = if flow_queue { "" } else { ", no flow queues" };
        ground.progress.step(&format!("{}, {workers} worker(s), {devices}{queues}", scenario.name()));
        let mut row = measure_one(&bed, scenario, seconds)?;
        row.super_packets = super_packets;
        row.flow_queue = flow_queue;
        rows.push(row);
    }
    Ok(rows)
}

/// Runs one scenario.
///
/// # Errors
/// [`Failure::Check`] when UEs do not attach or the tools at the ends fail.
pub fn measure_one(bed: &Bed, scenario: &Scenario, seconds: f64) -> Result<Row, Failure> {
    let drops_before = bed.drops();
    let mut row = match scenario.load {
        Load::Iperf => iperf::measure(bed, scenario, seconds)?,
        Load::Fleet(load) => fleet(bed, scenario, load, seconds)?,
    };
    row.gateway_drops = bed.drops().zip(drops_before).map(|(after, before)| after - before);
    row.workers = bed.cores.gateway.len();
    Ok(row)
}

fn fleet(bed: &Bed, scenario: &Scenario, fleet: FleetLoad, seconds: f64) -> Result<Row, Failure> {
    let plan = fleet.plan(scenario.direction, seconds, bed.inner_queue());
    let process = bed.process();
    let (outcome, watch) = bed.with_fleet(fleet.ues, fleet.esp, async |ues| {
        // Attaching, opening, reports and detaching are no part of what the rates speak of.
        let mut watch = Watch::default();
        let outcome =
            traffic::run_watched(ues, &plan, Some(process), &Progress::new(), &mut |phase| match phase {
                Phase::Begun => watch.begin(),
                Phase::Ended => watch.end(),
            })
            .await;
        (outcome, watch)
    })?;
    let mut row = Row::from_outcome(scenario, &outcome)
        .ok_or_else(|| Failure::Check(format!("{}: the far end did not answer", scenario.name())))?;
    row.set_machine(watch.usage().as_ref(), &bed.cores);
    Ok(row)
}
