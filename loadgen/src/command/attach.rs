//! `loadgen attach`

use super::options::{Prepared, environment, gateway_process};
use crate::cli::AttachArgs;
use crate::engine::{self, AttachOutcome, Fleet};
use crate::error::Failure;
use crate::host::affinity;
use crate::host::process::{GatewayProcess, MemoryReading};
use crate::report::{GatewaySection, Progress, Report, Table, attach_section, write_json};
use std::time::Duration;

/// Runs the command; returns whether every UE attached, stayed and detached.
///
/// # Errors
/// See [`Prepared::new`].
pub fn run(args: &AttachArgs) -> Result<bool, Failure> {
    let prepared = Prepared::new(&args.ue)?;
    let core = prepared.core;
    let process = gateway_process(args.measure.gateway_pid)?;
    let plan = prepared.fleet(&args.measure, args.rate)?;
    affinity::pin(core)?;
    let progress = Progress::new();
    let (report, clean) = engine::run(async {
        let before = GatewayBefore::read(process);
        let (fleet, outcome) = Fleet::attach(plan, &progress).await;
        let mut gateway = before.after_attach(process, &outcome);
        let held = hold(args.hold, &fleet).await;
        gateway.rss_bytes = process.and_then(|process| process.memory().rss_bytes).or(gateway.rss_bytes);
        let undeleted = if args.no_delete { 0 } else { fleet.detach().await };
        let clean = outcome.failed.is_empty() && held && undeleted == 0;
        if undeleted > 0 {
            eprintln!("{undeleted} UEs had no answer to their DELETE");
        }
        (report(args, core, &outcome, gateway), clean)
    })?;
    let mut table = Table::new("attach");
    if let Some(section) = &report.attach {
        table.attach(section);
    }
    table.gateway(&report.gateway).print();
    if let Some(path) = &args.measure.json {
        write_json(path, &report)?;
    }
    Ok(clean)
}

/// Waits; returns whether all UEs that were attached still are.
async fn hold(seconds: f64, fleet: &Fleet) -> bool {
    let before = fleet.attached().count();
    tokio::time::sleep(Duration::try_from_secs_f64(seconds).unwrap_or_default()).await;
    let after = fleet.attached().count();
    if after < before {
        eprintln!("{} UEs lost their IKE SA while held", before - after);
    }
    after == before
}

fn report(args: &AttachArgs, core: usize, outcome: &AttachOutcome, gateway: GatewaySection) -> Report {
    Report {
        command: "attach",
        config: serde_json::json!({
            "gateway": args.ue.gateway, "ues": args.measure.ues, "rate": args.rate, "in_flight": args.measure.in_flight,
            "ike": args.ue.ike, "esp": args.ue.esp, "source": args.ue.source.map(|source| source.to_string()),
            "hold_s": args.hold,
        }),
        environment: environment(core),
        attach: Some(attach_section(
            outcome.ok,
            outcome.failed.clone(),
            outcome.span_s,
            &outcome.latencies.summary(),
        )),
        uplink: None,
        downlink: None,
        latency_us: None,
        voice: None,
        churn: None,
        loadgen: None,
        gateway,
        plain_tcp: None,
    }
}

/// The gateway before the first attach.
pub struct GatewayBefore {
    memory: MemoryReading,
    cpu_s: Option<f64>,
}

impl GatewayBefore {
    /// Reads it.
    pub fn read(process: Option<GatewayProcess>) -> Self {
        Self {
            memory: process.map(|process| process.memory()).unwrap_or_default(),
            cpu_s: process.and_then(|process| process.cpu()).map(|cpu| cpu.process_s),
        }
    }

    /// Reads it again with all sessions up and says what one costs.
    pub fn after_attach(&self, process: Option<GatewayProcess>, outcome: &AttachOutcome) -> GatewaySection {
        let after = process.map(|process| process.memory()).unwrap_or_default();
        let each = |before: Option<u64>, after: Option<u64>| {
            let growth = after? as f64 - before? as f64;
            (outcome.ok > 0).then(|| growth / outcome.ok as f64)
        };
        let cpu_s = process.and_then(|process| process.cpu()).map(|cpu| cpu.process_s);
        GatewaySection {
            rss_bytes: after.rss_bytes,
            rss_before_bytes: self.memory.rss_bytes,
            user_bytes_per_session: each(self.memory.rss_bytes, after.rss_bytes),
            kernel_tcp_bytes_per_connection: each(self.memory.tcp_bytes, after.tcp_bytes),
            kernel_slab_bytes_per_connection: each(self.memory.slab_bytes, after.slab_bytes),
            attach_cpu_s: match (self.cpu_s, cpu_s) {
                (Some(before), Some(after)) if outcome.ok > 0 => Some((after - before) / outcome.ok as f64),
                _ => None,
            },
            ..GatewaySection::default()
        }
    }
}
