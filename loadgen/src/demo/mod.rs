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

pub(crate) mod certificate;
mod drops;
pub mod gateway;
mod plain_tcp;
pub mod sims;
pub mod topology;

use crate::cli::{DemoArgs, LoadOptions, Transport};
use crate::command::attach::GatewayBefore;
use crate::command::{environment, load, read_psk_config};
use crate::engine::traffic::{self, Direction, TrafficOutcome};
use crate::engine::{self, Fleet, FleetPlan, SourceSpread};
use crate::error::Failure;
use crate::host::process::GatewayProcess;
use crate::host::{affinity, privilege, signal};
use crate::report::{Progress, Report, SinkSection, Table, attach_section, write_json};
use crate::sink::Sink;
use crate::ue::{Identity, Subscriber};
use certificate::Certificate;
use codec::OsRandom;
use drops::KernelDrops;
use gateway::{Gateway, Setup};
use sims::{Sims, Who};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use topology::{Cleanup, Topology};

/// Suites of the demo.
const IKE: &str = "aes128gcm16-prfsha256-x25519";
/// Part of the inner device's queue that stays free: one in so many packets.
const QUEUE_SPARE: u32 = 8;
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
    let udp = args.transport == Transport::Udp;
    load::check_transport(&args.load, udp)?;
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
    if args.no_offload {
        topology.take_offloads_off()?;
    }
    let who = Who::new(args.auth)?;
    let over_tls = args.transport == Transport::Tls;
    let certificate = (over_tls || who.sims().is_some()).then(Certificate::new).transpose()?;
    let setup = Setup {
        cores: vec![cores.gateway],
        ike: IKE,
        esp: &[&args.esp],
        flow_queue: true,
        udp,
        certificate: certificate.as_ref().map(|certificate| (&*certificate.chain, &*certificate.key)),
        tls: over_tls,
        listen: "",
        inner: "",
        sims: who.sims().map(|sims| (sims, args.ues)),
    };
    let gateway = Gateway::start(&binary, &topology.gateway, &setup, &cleanup)?;
    progress.step("plain TCP on the same path, for comparison");
    let plain = plain_tcp::measure(&topology, cores.gateway, cores.load, PLAIN_TCP)?;
    let report = measure(args, &topology, &gateway, (&who, certificate.as_ref()), cores, plain, &progress);
    gateway.stop();
    drop(topology);
    let (report, clean) = report?;
    print(&report, args);
    if let Some(path) = &args.json {
        write_json(path, &report)?;
    }
    if !clean {
        eprintln!("not everything attached or arrived: see the counts above");
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

/// Attaches, passes traffic both ways, detaches, and asks gateway and kernel what they have dropped meanwhile.
fn measure(
    args: &DemoArgs,
    topology: &Topology,
    gateway: &Gateway,
    who: (&Who, Option<&Certificate>),
    cores: Cores,
    plain: SinkSection,
    progress: &Progress,
) -> Result<(Report, bool), Failure> {
    let stop = AtomicBool::new(false);
    let dropped_before = KernelDrops::read(topology);
    std::thread::scope(|scope| {
        let sink = scope.spawn(|| {
            topology.core.enter(cores.load)?;
            Sink::bind(topology::SINK.into(), !args.no_offload)?.run(&stop)
        });
        let ues = scope.spawn(|| {
            topology.ue.enter(cores.load)?;
            let process = GatewayProcess::by_pid(gateway.pid());
            let queue = topology.inner_queue().map(|packets| packets - packets / QUEUE_SPARE);
            let plan = plan(args, gateway.psk(), who)?;
            engine::run(drive(args, plan, process, cores, queue, plain, progress))?
        });
        let report = ues.join().unwrap_or_else(|_| Err(Failure::Check("the UE engine panicked".into())));
        stop.store(true, Ordering::Relaxed);
        let sink = sink.join().unwrap_or_else(|_| Err(Failure::Check("the sink panicked".into())));
        let (mut report, clean) = report.map_err(|failure| gateway.explain(failure))?;
        let far_end = sink?;
        // Now or never: the inner device goes with the gateway, the others with their namespaces.
        report.gateway.drops = gateway.drops();
        let dropped = KernelDrops::read(topology).zip(dropped_before);
        report.network = dropped.map(|(after, before)| after.since(&before, far_end.refused));
        Ok((report, clean))
    })
}

/// The UEs and how they go about it.
fn plan(
    args: &DemoArgs,
    psk: &str,
    (who, certificate): (&Who, Option<&Certificate>),
) -> Result<FleetPlan, Failure> {
    let mut config = read_psk_config(psk, IKE, &args.esp)?;
    let subscribers: Rc<dyn Fn(u32) -> Subscriber> = match (who, certificate) {
        (Who::Sims(sims, variant), Some(certificate)) => {
            config.credentials = Sims::credentials(*variant, certificate.trust()?);
            sims.subscribers(*variant)
        }
        _ => Rc::new(|index| Identity::parse(&format!("ue-{index}@demo.test")).into()),
    };
    let over_tls = args.transport == Transport::Tls;
    Ok(FleetPlan {
        gateway: topology::GATEWAY.into(),
        udp: args.transport == Transport::Udp,
        tls: certificate.filter(|_| over_tls).map(Certificate::settings).transpose()?,
        ues: args.ues,
        rate: None,
        in_flight: 256,
        source: SourceSpread::new(Some(topology::sources())),
        congestion: None,
        config: Arc::new(config),
        who: subscribers,
        random: Box::new(OsRandom),
    })
}

async fn drive(
    args: &DemoArgs,
    plan: FleetPlan,
    process: Option<GatewayProcess>,
    cores: Cores,
    queue: Option<u32>,
    plain: SinkSection,
    progress: &Progress,
) -> Result<(Report, bool), Failure> {
    let transport = format!("{:?}", args.transport).to_uppercase();
    progress.step(&format!("attaching {} UEs over {transport} 4500", args.ues));
    let before = GatewayBefore::read(process);
    let (fleet, attach) = Fleet::attach(plan, progress).await;
    let mut gateway = before.after_attach(process, &attach);
    let mut outcomes = Vec::new();
    let load = LoadOptions { queue: args.load.queue.or(queue), ..args.load.clone() };
    let phases = args.direction.map_or(vec![Direction::Up, Direction::Down], |direction| vec![direction]);
    for (direction, run) in phases.into_iter().zip(1..) {
        let way = format!("{direction:?}").to_lowercase();
        progress.step(&format!("traffic ({way}) for {} s", args.seconds));
        let plan = load::plan(&load, args.ues, direction, args.seconds, Some(topology::SINK.into()), run);
        outcomes.push(traffic::run(&fleet, &plan, process, progress).await);
    }
    gateway.rss_bytes = process.and_then(|process| process.memory().rss_bytes).or(gateway.rss_bytes);
    progress.step("detaching");
    let undeleted = fleet.detach().await;
    let total = outcomes.iter().fold(TrafficOutcome::default(), TrafficOutcome::merge);
    let clean = attach.failed.is_empty() && undeleted == 0 && outcomes.iter().all(load::is_clean);
    let section = attach_section(attach.ok, attach.failed, attach.span_s, &attach.latencies.summary());
    let plan = load::plan(&load, args.ues, Direction::Both, args.seconds, None, 0);
    let own = serde_json::json!({
        "ues": args.ues, "auth": format!("{:?}", args.auth).to_lowercase(), "seconds": args.seconds, "ike": IKE, "esp": args.esp, "gateway_core": cores.gateway,
        "offload": !args.no_offload, "direction": args.direction.map(|way| format!("{way:?}").to_lowercase()),
    });
    let mut report = Report {
        command: "demo",
        config: load::with_config(own, load::config(&load, &plan)),
        environment: environment(cores.load),
        attach: Some(section),
        latency_us: None,
        uplink: None,
        downlink: None,
        voice: None,
        churn: None,
        loadgen: None,
        gateway,
        network: None,
        plain_tcp: Some(plain),
    };
    load::fill_report(&mut report, &total, &args.load);
    Ok((report, clean))
}

fn print(report: &Report, args: &DemoArgs) {
    let mut table = Table::new("demo");
    if let Some(section) = &report.attach {
        table.attach(section);
    }
    load::table(&mut table, report, args.direction == Some(Direction::Both));
    table.evidence(report, args.load.rate.is_some());
    table.gateway(&report.gateway);
    if let Some(section) = &report.plain_tcp {
        table.plain_tcp(section);
    }
    table.print();
}
