//! `loadgen traffic`

use super::attach::GatewayBefore;
use super::options::{Prepared, environment, gateway_process};
use crate::cli::{Rate, TrafficArgs};
use crate::engine::traffic::{self, Direction, Pace, TrafficOutcome, TrafficPlan};
use crate::engine::{self, Fleet};
use crate::error::Failure;
use crate::host::affinity;
use crate::host::clock;
use crate::report::{Progress, Report, Table, attach_section, write_json};
use std::time::Duration;

/// Packets in flight of all UEs together to which single windows are fitted.
const WINDOW_TOTAL: u32 = 4096;
/// Bounds of one UE's window: enough for full writes, little enough for a gateway that queues 256 KiB per connection.
const WINDOW_MIN: u32 = 32;
const WINDOW_MAX: u32 = 160;
/// Packets per second of a voice call in one direction.
const VOICE_PACKETS_PER_S: f64 = 50.0;

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
    let process = gateway_process(args.measure.gateway_pid)?;
    let fleet_plan = prepared.fleet(&args.measure, args.attach_rate)?;
    let plan = plan(args);
    affinity::pin(core)?;
    let progress = Progress::new();
    let (report, clean) = engine::run(async {
        let before = GatewayBefore::read(process);
        let (fleet, attach) = Fleet::attach(fleet_plan, &progress).await;
        let mut gateway = before.after_attach(process, &attach);
        let outcome = traffic::run(&fleet, &plan, process, &progress).await;
        gateway.rss_bytes = process.and_then(|process| process.memory().rss_bytes).or(gateway.rss_bytes);
        (gateway.cpu_s, gateway.core_s) = (outcome.cpu_s, outcome.core_s);
        gateway.cpu_s_per_gb = outcome.cpu_s_per_gb();
        fleet.detach().await;
        let clean = attach.failed.is_empty() && is_clean(&outcome);
        let section = attach_section(attach.ok, attach.failed, attach.span_s, &attach.latencies.summary());
        let report = Report {
            command: "traffic",
            config: config(args, &plan),
            environment: environment(core),
            attach: Some(section),
            latency_us: outcome.uplink.or(outcome.downlink).and_then(|way| way.latency_us),
            uplink: outcome.uplink,
            downlink: outcome.downlink,
            gateway,
            plain_tcp: None,
        };
        (report, clean)
    })?;
    print(&report);
    if let Some(path) = &args.measure.json {
        write_json(path, &report)?;
    }
    Ok(clean)
}

/// Returns whether everything sent arrived once and intact, as far as somebody looked.
pub fn is_clean(outcome: &TrafficOutcome) -> bool {
    if outcome.unopened > 0 {
        eprintln!(
            "{} UEs got no answer from the far end through the tunnel; check --far, its route back to the UEs' pool, and the gateway's forwarding",
            outcome.unopened
        );
    }
    outcome.unopened == 0 && ![outcome.uplink, outcome.downlink].iter().flatten().any(|way| way.is_damaged())
}

/// Returns the closed-loop window for so many UEs.
pub fn default_window(ues: u32) -> u32 {
    (WINDOW_TOTAL / ues.max(1)).clamp(WINDOW_MIN, WINDOW_MAX)
}

fn plan(args: &TrafficArgs) -> TrafficPlan {
    let ues = args.measure.ues;
    let pace = match args.rate {
        None => Pace::Window(args.window.unwrap_or_else(|| default_window(ues))),
        Some(Rate::Voice) => Pace::PacketsPerSecond(VOICE_PACKETS_PER_S),
        Some(Rate::BitsPerSecond(bits)) => {
            Pace::PacketsPerSecond(bits / 8.0 / args.size.mean_len() / f64::from(ues))
        }
    };
    TrafficPlan {
        direction: args.direction,
        size: args.size,
        duration: Duration::from_secs_f64(args.seconds),
        far: args.far,
        pace,
        run: clock::monotonic_ns() as u32,
    }
}

fn config(args: &TrafficArgs, plan: &TrafficPlan) -> serde_json::Value {
    let (window, packets_per_s) = match plan.pace {
        Pace::Window(window) => (Some(window), None),
        Pace::PacketsPerSecond(rate) => (None, Some(rate)),
    };
    serde_json::json!({
        "gateway": args.ue.gateway, "ues": args.measure.ues, "direction": format!("{:?}", args.direction).to_lowercase(),
        "size": format!("{:?}", args.size).to_lowercase(), "seconds": args.seconds, "far": args.far,
        "window": window, "packets_per_s_per_ue": packets_per_s, "ike": args.ue.ike, "esp": args.ue.esp,
    })
}

fn print(report: &Report) {
    let mut table = Table::new("traffic");
    if let Some(section) = &report.attach {
        table.attach(section);
    }
    if let Some(section) = &report.uplink {
        table.direction("uplink", section);
    }
    if let Some(section) = &report.downlink {
        table.direction("downlink", section);
    }
    table.gateway(&report.gateway).print();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_stay_within_bounds() {
        assert_eq!(default_window(1), 160);
        assert_eq!(default_window(100), 40);
        assert_eq!(default_window(10_000), 32);
    }
}
