//! `loadgen ue`

use super::options::{Prepared, environment};
use crate::cli::UeArgs;
use crate::engine::{self, Fleet, FleetPlan, UeState};
use crate::error::Failure;
use crate::host::{privilege, signal};
use crate::report::{GatewaySection, Progress, Report, attach_section, write_json};
use crate::tun::{Routes, Tun, prefixes};
use crate::ue::EndCause;
use ipnet::IpNet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often the end of the UE, or of the program, is looked for.
const TICK: Duration = Duration::from_millis(100);

/// Attaches one UE and carries kernel traffic until a signal comes or the gateway ends the session.
///
/// # Errors
/// See [`Prepared::new`], [`Tun::create`] and [`Routes::add`].
pub fn run(args: &UeArgs) -> Result<bool, Failure> {
    let prepared = Prepared::new(&args.ue)?;
    privilege::require_root("a TUN device")?;
    let stop = Arc::new(AtomicBool::new(false));
    let set = stop.clone();
    signal::on_termination(move || set.store(true, Ordering::Relaxed))?;
    let (gateway, core) = (prepared.gateway, prepared.core);
    let plan = FleetPlan {
        gateway,
        udp: prepared.udp,
        tls: prepared.tls,
        ues: 1,
        rate: None,
        in_flight: 1,
        source: prepared.source,
        congestion: prepared.congestion,
        config: prepared.config,
        who: prepared.who,
        random: prepared.random,
    };
    let progress = Progress::new();
    let (report, ended) = engine::run(async {
        let (fleet, outcome) = Fleet::attach(plan, &progress).await;
        let section =
            attach_section(outcome.ok, outcome.failed.clone(), outcome.span_s, &outcome.latencies.summary());
        let report = Report {
            command: "ue",
            config: serde_json::json!({"gateway": args.ue.gateway, "tun": args.tun}),
            environment: environment(core),
            attach: Some(section),
            uplink: None,
            downlink: None,
            latency_us: None,
            voice: None,
            churn: None,
            loadgen: None,
            gateway: GatewaySection::default(),
            network: None,
            plain_tcp: None,
        };
        let ended = match outcome.failed.keys().next() {
            Some(cause) => Err(Failure::Check(format!("attach to {gateway} failed: {cause}"))),
            None => serve(args, fleet, gateway, &stop).await,
        };
        (report, ended)
    })?;
    if let Some(path) = &args.json {
        write_json(path, &report)?;
    }
    ended.map(|()| true)
}

/// Carries traffic until it is time to detach.
async fn serve(
    args: &UeArgs,
    fleet: Fleet,
    gateway: std::net::SocketAddr,
    stop: &AtomicBool,
) -> Result<(), Failure> {
    let ue = fleet.ues()[0].clone();
    let attached = ue.attached();
    let tun = Tun::create(&args.tun, &attached.inner, args.mtu, !args.no_offload)?;
    let has_family =
        |prefix: &IpNet| attached.inner.iter().any(|inner| inner.is_ipv4() == prefix.addr().is_ipv4());
    let routed = if args.route.is_empty() { prefixes(&ue.remote_ts()) } else { args.route.clone() };
    let routed: Vec<IpNet> = routed.into_iter().filter(has_family).collect();
    let routes = Routes::add(&args.tun, &routed, gateway.ip())?;
    eprintln!(
        "attached: {} has {:?}, name servers {:?}; end with Ctrl-C",
        args.tun, attached.inner, attached.dns
    );
    let ended = tokio::select! {
        broken = tun.serve(&ue) => broken.map_err(|error| Failure::Environment(format!("{}: {error}", args.tun))),
        cause = watch(&fleet, stop) => match cause {
            None | Some(EndCause::Detached) => Ok(()),
            Some(cause) => Err(Failure::Check(format!("the session is over: {cause}"))),
        },
    };
    ue.set_inner(None);
    drop(routes);
    fleet.detach().await;
    ended
}

/// Waits for a signal (`None`) or the end of the session.
async fn watch(fleet: &Fleet, stop: &AtomicBool) -> Option<EndCause> {
    let mut reconnects = 0;
    while !stop.load(Ordering::Relaxed) {
        if let UeState::Ended(cause) = fleet.ues()[0].state() {
            return Some(cause);
        }
        if fleet.reconnects() != reconnects {
            reconnects = fleet.reconnects();
            eprintln!("connection lost, opened again ({reconnects} so far)");
        }
        tokio::time::sleep(TICK).await;
    }
    None
}
