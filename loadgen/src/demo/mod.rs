//! `loadgen demo`: a gateway, its UEs and its core network on one machine, with real traffic.
//!
//! ```text
//!   swdemo-ue-PID             swdemo-gw-PID                swdemo-core-PID
//!   UEs (engine)  --- veth ---  swugate  --- veth ---      sink
//!   198.18.1.0/24 198.18.0.1    .0.2   198.19.0.1          198.19.0.2
//! ```
//!
//! The gateway has the first core to itself, UEs and sink share the last one. Everything is removed at the end, also
//! after Ctrl-C.

pub mod gateway;
mod plain_tcp;
pub mod topology;

use crate::cli::DemoArgs;
use crate::command::attach::GatewayBefore;
use crate::command::traffic::{default_window, is_clean};
use crate::command::{environment, read_psk_config};
use crate::engine::traffic::{self, Direction, Pace, TrafficOutcome, TrafficPlan};
use crate::engine::{self, Fleet, FleetPlan, SourceSpread};
use crate::error::Failure;
use crate::host::process::GatewayProcess;
use crate::host::{affinity, privilege, signal};
use crate::probe::SizePlan;
use crate::report::{Progress, Report, SinkSection, Table, attach_section, write_json};
use crate::sink::Sink;
use crate::ue::Identity;
use codec::OsRandom;
use gateway::{Gateway, Setup};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use topology::{Cleanup, Topology};

/// Suites of the demo.
const IKE: &str = "aes128gcm16-prfsha256-x25519";
const ESP: &str = "aes128gcm16";
/// Seconds of the plain TCP comparison.
const PLAIN_TCP: Duration = Duration::from_secs(2);

/// Cores of the two sides.
#[derive(Clone, Copy, Debug)]
struct Cores {
    gateway: usize,
    load: usize,
}

/// Runs the demo; returns whether everything attached and arrived.
///
/// # Errors
/// [`Failure::Environment`] without root, iproute2 or the gateway binary; [`Failure::Check`] when the gateway fails.
pub fn run(args: &DemoArgs) -> Result<bool, Failure> {
    privilege::require_root("demo makes network namespaces and")?;
    privilege::require_files(u64::from(args.ues))?;
    let binary = gateway::find_binary(args.swugate.as_deref())?;
    let cleanup = Arc::new(Cleanup::default());
    let on_signal = cleanup.clone();
    signal::on_termination(move || {
        on_signal.run();
        eprintln!("stopped; everything is removed");
        std::process::exit(1);
    })?;
    let progress = Progress::new();
    let cores = choose_cores(&progress);
    progress.step("making three network namespaces: UEs, gateway, core network");
    let topology = Topology::create(cleanup.clone(), &[cores.gateway], cores.load)?;
    progress.step(&format!("starting {}", binary.display()));
    let setup = Setup { cores: vec![cores.gateway], ike: IKE, esp: &[ESP] };
    let gateway = Gateway::start(&binary, &topology, &setup, &cleanup)?;
    progress.step("plain TCP on the same path, for comparison");
    let plain = plain_tcp::measure(&topology, cores.gateway, cores.load, PLAIN_TCP)?;
    let report = measure(args, &topology, &gateway, cores, plain, &progress);
    let drops = gateway.drops();
    gateway.stop();
    drop(topology);
    let (report, clean) = report?;
    print(&report);
    if let Some(path) = &args.json {
        write_json(path, &report)?;
    }
    if !clean {
        eprintln!("not everything attached or arrived: see the counts above");
        eprintln!("the gateway itself has dropped, by reason: {}", drops_text(drops.as_ref()));
    }
    Ok(clean)
}

fn choose_cores(progress: &Progress) -> Cores {
    let allowed = affinity::allowed_cores();
    let cores =
        Cores { gateway: allowed.first().copied().unwrap_or(0), load: allowed.last().copied().unwrap_or(0) };
    if cores.gateway == cores.load {
        progress.step(&format!(
            "only core {} is allowed: gateway, UEs and sink share it, so the rates are far below what a core of its own gives",
            cores.gateway
        ));
    }
    cores
}

/// Attaches, passes traffic both ways, detaches.
fn measure(
    args: &DemoArgs,
    topology: &Topology,
    gateway: &Gateway,
    cores: Cores,
    plain: SinkSection,
    progress: &Progress,
) -> Result<(Report, bool), Failure> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sink = scope.spawn(|| {
            topology.core.enter(cores.load)?;
            Sink::bind(topology::SINK.into())?.run(&stop)
        });
        let ues = scope.spawn(|| {
            topology.ue.enter(cores.load)?;
            let process = GatewayProcess::by_pid(gateway.pid());
            engine::run(drive(args, gateway.psk(), process, cores, plain, progress))?
        });
        let report = ues.join().unwrap_or_else(|_| Err(Failure::Check("the UE engine panicked".into())));
        stop.store(true, Ordering::Relaxed);
        let sink = sink.join().unwrap_or_else(|_| Err(Failure::Check("the sink panicked".into())));
        let report = report.map_err(|failure| gateway.explain(failure))?;
        sink?;
        Ok(report)
    })
}

async fn drive(
    args: &DemoArgs,
    psk: &str,
    process: Option<GatewayProcess>,
    cores: Cores,
    plain: SinkSection,
    progress: &Progress,
) -> Result<(Report, bool), Failure> {
    let plan = FleetPlan {
        gateway: topology::GATEWAY.into(),
        ues: args.ues,
        rate: None,
        in_flight: 256,
        source: SourceSpread::new(Some(topology::sources())),
        config: Arc::new(read_psk_config(psk, IKE, ESP)?),
        idi: Box::new(|index| Identity::parse(&format!("ue-{index}@demo.test"))),
        random: Box::new(OsRandom),
    };
    progress.step(&format!("attaching {} UEs over TCP 4500", args.ues));
    let before = GatewayBefore::read(process);
    let (fleet, attach) = Fleet::attach(plan, progress).await;
    let mut gateway = before.after_attach(process, &attach);
    let mut outcomes = Vec::new();
    for (run, direction, text) in [(1, Direction::Up, "uplink"), (2, Direction::Down, "downlink")] {
        progress.step(&format!("{text}: 1400-octet packets for {} s, closed loop", args.seconds));
        let plan = TrafficPlan {
            direction,
            size: SizePlan::Fixed(1400),
            duration: Duration::from_secs_f64(args.seconds),
            far: Some(topology::SINK.into()),
            pace: Pace::Window(default_window(args.ues)),
            run,
        };
        outcomes.push(traffic::run(&fleet, &plan, process, progress).await);
    }
    gateway.rss_bytes = process.and_then(|process| process.memory().rss_bytes).or(gateway.rss_bytes);
    progress.step("detaching");
    let undeleted = fleet.detach().await;
    let total = outcomes.iter().fold(TrafficOutcome::default(), merge);
    (gateway.cpu_s, gateway.core_s) = (total.cpu_s, total.core_s);
    gateway.cpu_s_per_gb = total.cpu_s_per_gb();
    let clean = attach.failed.is_empty() && undeleted == 0 && outcomes.iter().all(is_clean);
    let section = attach_section(attach.ok, attach.failed, attach.span_s, &attach.latencies.summary());
    let report = Report {
        command: "demo",
        config: serde_json::json!({
            "ues": args.ues, "seconds": args.seconds, "size": 1400, "window": default_window(args.ues),
            "ike": IKE, "esp": ESP, "gateway_core": cores.gateway,
        }),
        environment: environment(cores.load),
        attach: Some(section),
        latency_us: total.uplink.and_then(|way| way.latency_us),
        uplink: total.uplink,
        downlink: total.downlink,
        gateway,
        plain_tcp: Some(plain),
    };
    Ok((report, clean))
}

/// Puts the two runs together: each has measured one direction.
fn merge(sum: TrafficOutcome, next: &TrafficOutcome) -> TrafficOutcome {
    let add = |one: Option<f64>, other: Option<f64>| match (one, other) {
        (Some(one), Some(other)) => Some(one + other),
        (one, other) => one.or(other),
    };
    TrafficOutcome {
        uplink: sum.uplink.or(next.uplink),
        downlink: sum.downlink.or(next.downlink),
        cpu_s: add(sum.cpu_s, next.cpu_s),
        core_s: add(sum.core_s, next.core_s),
        unopened: sum.unopened + next.unopened,
        corrupt_headers: sum.corrupt_headers.max(next.corrupt_headers),
    }
}

fn drops_text(drops: Option<&BTreeMap<String, u64>>) -> String {
    match drops {
        None => "it did not say".into(),
        Some(drops) if drops.is_empty() => "nothing".into(),
        Some(drops) => {
            drops.iter().map(|(reason, count)| format!("{reason} {count}")).collect::<Vec<_>>().join(", ")
        }
    }
}

fn print(report: &Report) {
    let mut table = Table::new("demo");
    if let Some(section) = &report.attach {
        table.attach(section);
    }
    if let Some(section) = &report.uplink {
        table.direction("uplink", section);
    }
    if let Some(section) = &report.downlink {
        table.direction("downlink", section);
    }
    table.gateway(&report.gateway);
    if let Some(section) = &report.plain_tcp {
        table.plain_tcp(section);
    }
    table.print();
}
