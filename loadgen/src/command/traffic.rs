//! `loadgen traffic`

use super::attach::GatewayBefore;
use super::load;
use super::options::{Prepared, chosen_proposals, environment, gateway_process};
use crate::cli::TrafficArgs;
use crate::engine::traffic::{self, Direction, TrafficPlan};
use crate::engine::{self, Fleet};
use crate::error::Failure;
use crate::host::affinity;
use crate::host::clock;
use crate::report::{Progress, Report, Table, attach_section, write_json};

/// Runs the command; returns whether every UE attached and nothing was lost, repeated or damaged.
///
/// # Errors
/// See [`Prepared::new`].
pub fn run(args: &TrafficArgs) -> Result<bool, Failure> {
    let prepared = Prepared::new(&args.ue)?;
    let core = prepared.core;
    if args.direction != Direction::Up && args.far.is_none() {
        return Err(Failure::Usage(
            "--direction down and both need --far IP:PORT, the address of `loadgen sink` on the core side"
                .into(),
        ));
    }
    load::check_transport(&args.load, prepared.udp)?;
    let process = gateway_process(args.measure.gateway_pid)?;
    let fleet_plan = prepared.fleet(&args.measure, args.attach_rate)?;
    let (ues, run) = (args.measure.ues, clock::monotonic_ns() as u32);
    let plan = load::plan(&args.load, ues, args.direction, args.seconds, args.far, run);
    affinity::pin(core)?;
    let progress = Progress::new();
    let (report, clean) = engine::run(async {
        let before = GatewayBefore::read(process);
        let (fleet, attach) = Fleet::attach(fleet_plan, &progress).await;
        let mut gateway = before.after_attach(process, &attach);
        let outcome = traffic::run(&fleet, &plan, process, &progress).await;
        gateway.rss_bytes = process.and_then(|process| process.memory().rss_bytes).or(gateway.rss_bytes);
        fleet.detach().await;
        let clean = attach.failed.is_empty() && load::is_clean(&outcome);
        let section = attach_section(attach.ok, attach.failed, attach.span_s, &attach.latencies.summary());
        let mut report = Report {
            command: "traffic",
            config: config(args, &plan),
            environment: environment(core),
            attach: Some(section),
            latency_us: None,
            uplink: None,
            downlink: None,
            voice: None,
            churn: None,
            loadgen: None,
            gateway,
            network: None,
            plain_tcp: None,
        };
        load::fill_report(&mut report, &outcome, &args.load);
        (report, clean)
    })?;
    print(&report, args.direction == Direction::Both);
    if let Some(path) = &args.measure.json {
        write_json(path, &report)?;
    }
    Ok(clean)
}

fn config(args: &TrafficArgs, plan: &TrafficPlan) -> serde_json::Value {
    let (ike, esp) = chosen_proposals(&args.ue);
    let own = serde_json::json!({
        "gateway": args.ue.gateway, "ues": args.measure.ues, "direction": format!("{:?}", args.direction).to_lowercase(),
        "seconds": args.seconds, "far": args.far, "profile": args.ue.profile, "ike": ike, "esp": esp,
    });
    load::with_config(own, load::config(&args.load, plan))
}

fn print(report: &Report, at_once: bool) {
    let mut table = Table::new("traffic");
    if let Some(section) = &report.attach {
        table.attach(section);
    }
    load::table(&mut table, report, at_once);
    table.gateway(&report.gateway).print();
}
