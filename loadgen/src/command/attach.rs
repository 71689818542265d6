//! `loadgen attach`

use super::options::{Prepared, chosen_proposals, environment, gateway_process};
use crate::cli::{AttachArgs, Engine};
use crate::engine::raw::{RawFleet, StormOutcome};
use crate::engine::{self, AttachOutcome, DetachOutcome, Fleet, FleetPlan, HoldOutcome};
use crate::error::Failure;
use crate::host::affinity;
use crate::host::process::{GatewayProcess, MemoryReading};
use crate::report::{
    AttachSection, DetachSection, GatewaySection, HoldSection, LatencySection, Progress, Report,
    StormSection, Table, attach_section, write_json,
};
use std::time::{Duration, Instant};

/// What a run saw, whichever engine drove it.
struct Run {
    attach: AttachOutcome,
    gateway: GatewaySection,
    own_bytes_per_ue: Option<f64>,
    hold: HoldOutcome,
    storm: Option<StormOutcome>,
    /// `None` when the UEs left without DELETE.
    detach: Option<DetachOutcome>,
}

/// Runs the command; returns whether every UE attached, stayed and detached, each time.
///
/// # Errors
/// See [`Prepared::new`].
pub fn run(args: &AttachArgs) -> Result<bool, Failure> {
    let mut prepared = Prepared::new(&args.ue)?;
    let (core, who) = (prepared.core, prepared.who.clone());
    let process = gateway_process(args.measure.gateway_pid)?;
    let mut earlier: Vec<AttachSection> = Vec::new();
    loop {
        let run = run_once(args, prepared, process)?;
        complain(&run);
        let good = run.is_good();
        let mut report = report(args, core, &run);
        let mut table = Table::new("attach");
        if let Some(section) = &report.attach {
            table.attach(section);
        }
        table.gateway(&report.gateway).print();
        let done = earlier.len() as u32 + 1;
        if !good || done == args.attaches {
            if let Some(section) = &mut report.attach {
                section.earlier = earlier;
            }
            if let Some(path) = &args.measure.json {
                write_json(path, &report)?;
            }
            return Ok(good);
        }
        earlier.extend(report.attach);
        // The same SIMs again.
        prepared = Prepared { who: who.clone(), ..Prepared::new(&args.ue)? };
    }
}

impl Run {
    /// Whether every UE attached, stayed and detached.
    fn is_good(&self) -> bool {
        self.attach.failed.is_empty() && self.hold.lost == 0 && self.unanswered() == 0 && self.away() == 0
    }

    /// UEs that did not come back from a storm.
    fn away(&self) -> u64 {
        self.storm.as_ref().map_or(0, |storm| storm.ues - storm.back)
    }

    fn unanswered(&self) -> u64 {
        self.detach.map_or(0, |detach| detach.unanswered)
    }
}

fn complain(run: &Run) {
    if run.hold.lost > 0 {
        eprintln!("{} UEs lost their IKE SA while held", run.hold.lost);
    }
    if run.unanswered() > 0 {
        eprintln!("{} UEs had no answer to their DELETE", run.unanswered());
    }
    if run.away() > 0 {
        eprintln!("{} UEs did not come back from the storm", run.away());
    }
}

/// Attaches, holds and detaches.
fn run_once(args: &AttachArgs, prepared: Prepared, process: Option<GatewayProcess>) -> Result<Run, Failure> {
    let core = prepared.core;
    let progress = Progress::new();
    match args.engine() {
        Engine::Raw if prepared.tls.is_some() => {
            Err(Failure::Usage("--engine raw takes TCP only; --transport tls needs --engine tokio".into()))
        }
        Engine::Raw if prepared.udp => {
            Err(Failure::Usage("--engine raw takes TCP only; --transport udp needs --engine tokio".into()))
        }
        Engine::Raw => {
            let plan = prepared.fleet_without_files(&args.measure, args.rate)?;
            affinity::pin(core)?;
            run_raw(args, plan, process, &progress)
        }
        Engine::Tokio if args.trickle.is_some() || args.storm.is_some() => {
            Err(Failure::Usage("--trickle and --storm need --engine raw".into()))
        }
        Engine::Tokio => {
            let plan = prepared.fleet(&args.measure, args.rate)?;
            affinity::pin(core)?;
            engine::run(run_tokio(args, plan, process, &progress))
        }
    }
}

fn run_raw(
    args: &AttachArgs,
    plan: FleetPlan,
    process: Option<GatewayProcess>,
    progress: &Progress,
) -> Result<Run, Failure> {
    let before = Before::read(process);
    let (mut fleet, attach) = RawFleet::attach(plan, progress)?;
    let mut gateway = before.gateway.after_attach(process, &attach);
    let hold = fleet.hold(hold_time(args), args.trickle.unwrap_or(0.0))?;
    let own_bytes_per_ue = before.held(process, &attach, &mut gateway);
    let storm = args.storm.map(|far| fleet.storm(far)).transpose()?;
    let detach = if args.no_delete { None } else { Some(fleet.detach()?) };
    Ok(Run { attach, gateway, own_bytes_per_ue, hold, storm, detach })
}

async fn run_tokio(
    args: &AttachArgs,
    plan: FleetPlan,
    process: Option<GatewayProcess>,
    progress: &Progress,
) -> Run {
    let before = Before::read(process);
    let (fleet, attach) = Fleet::attach(plan, progress).await;
    let mut gateway = before.gateway.after_attach(process, &attach);
    let hold = hold(hold_time(args), &fleet).await;
    let own_bytes_per_ue = before.held(process, &attach, &mut gateway);
    let detach = if args.no_delete { None } else { Some(detach(fleet).await) };
    Run { attach, gateway, own_bytes_per_ue, hold, storm: None, detach }
}

fn hold_time(args: &AttachArgs) -> Duration {
    Duration::try_from_secs_f64(args.hold).unwrap_or_default()
}

async fn hold(time: Duration, fleet: &Fleet) -> HoldOutcome {
    let (begun_at, attached, reconnects) = (Instant::now(), fleet.attached().count(), fleet.reconnects());
    tokio::time::sleep(time).await;
    HoldOutcome {
        seconds: begun_at.elapsed().as_secs_f64(),
        lost: attached.saturating_sub(fleet.attached().count()) as u64,
        reconnects: fleet.reconnects() - reconnects,
        trickle_sent: 0,
    }
}

async fn detach(fleet: Fleet) -> DetachOutcome {
    let (begun_at, attached) = (Instant::now(), fleet.attached().count() as u64);
    let unanswered = fleet.detach().await;
    let ok = attached.saturating_sub(unanswered);
    DetachOutcome { ok, unanswered, span_s: begun_at.elapsed().as_secs_f64() }
}

fn report(args: &AttachArgs, core: usize, run: &Run) -> Report {
    let (ike, esp) = chosen_proposals(&args.ue);
    Report {
        command: "attach",
        config: serde_json::json!({
            "gateway": args.ue.gateway, "ues": args.measure.ues, "rate": args.rate, "in_flight": args.measure.in_flight,
            "profile": args.ue.profile, "ike": ike, "esp": esp, "source": args.ue.source.map(|source| source.to_string()),
            "hold_s": args.hold, "trickle_per_s": args.trickle, "engine": format!("{:?}", args.engine()).to_lowercase(),
        }),
        environment: environment(core),
        attach: Some(section(run)),
        uplink: None,
        downlink: None,
        latency_us: None,
        voice: None,
        churn: None,
        loadgen: None,
        gateway: run.gateway.clone(),
        network: None,
        plain_tcp: None,
    }
}

fn section(run: &Run) -> AttachSection {
    let attach = &run.attach;
    let hold = run.hold;
    AttachSection {
        hold: (hold.seconds > 0.0).then_some(HoldSection {
            seconds: hold.seconds,
            lost: hold.lost,
            reconnects: hold.reconnects,
            trickle_sent: hold.trickle_sent,
        }),
        storm: run.storm.as_ref().map(|storm| StormSection {
            ues: storm.ues,
            back: storm.back,
            back_99_s: storm.most_s,
            latency_us: LatencySection::from_summary(&storm.latencies.summary()),
        }),
        detach: run.detach.map(|detach| DetachSection {
            ok: detach.ok,
            unanswered: detach.unanswered,
            per_s: if detach.span_s > 0.0 { detach.ok as f64 / detach.span_s } else { 0.0 },
        }),
        loadgen_bytes_per_ue: run.own_bytes_per_ue,
        fast: (attach.fast > 0).then_some(attach.fast),
        ..attach_section(attach.ok, attach.failed.clone(), attach.span_s, &attach.latencies.summary())
    }
}

/// Memory of both ends before the first attach.
struct Before {
    gateway: GatewayBefore,
    own: MemoryReading,
}

impl Before {
    fn read(process: Option<GatewayProcess>) -> Self {
        Self { gateway: GatewayBefore::read(process), own: own_memory() }
    }

    /// Reads both again at the end of the hold: what is needed at rest, without what the attach needed for a while.
    /// Returns this process's share per UE.
    fn held(
        &self,
        process: Option<GatewayProcess>,
        attach: &AttachOutcome,
        gateway: &mut GatewaySection,
    ) -> Option<f64> {
        let attach_cpu_s = gateway.attach_cpu_s;
        *gateway = GatewaySection { attach_cpu_s, ..self.gateway.after_attach(process, attach) };
        growth_each(self.own.private_bytes, own_memory().private_bytes, attach.ok)
    }
}

fn own_memory() -> MemoryReading {
    GatewayProcess::by_pid(std::process::id()).map(|own| own.memory()).unwrap_or_default()
}

fn growth_each(before: Option<u64>, after: Option<u64>, count: u64) -> Option<f64> {
    let growth = after? as f64 - before? as f64;
    (count > 0).then(|| growth / count as f64)
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
        let each = |before, after| growth_each(before, after, outcome.ok);
        let cpu_s = process.and_then(|process| process.cpu()).map(|cpu| cpu.process_s);
        GatewaySection {
            rss_bytes: after.rss_bytes,
            rss_before_bytes: self.memory.rss_bytes,
            user_bytes_per_session: each(self.memory.rss_bytes, after.rss_bytes),
            private_bytes_per_session: each(self.memory.private_bytes, after.private_bytes),
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
