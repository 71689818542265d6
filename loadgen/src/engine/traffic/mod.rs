//! Test traffic through the UEs' tunnels: the phases of a run and what they measured.
//!
//! A run opens its flows at the sink (through the tunnel), lets them go for the time asked, stops them, and gives what is
//! still on the way one second to arrive. What counts is what the receiving end saw: the sink's reports for the uplink,
//! the UEs' own checkers for the downlink.

mod flow;
mod shared;

use super::{Fleet, Ue};
use crate::host::clock;
use crate::host::process::{CpuReading, GatewayProcess};
use crate::probe::{SizePlan, Tally};
use crate::report::{DirectionSection, LatencySection, LatencySummary, Progress};
use flow::UeFlow;
use shared::Shared;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Where uplink packets go when no far end listens: an address of the benchmarking range (RFC 2544), port 9 (discard).
const NOWHERE: &str = "198.18.0.1:9";
/// What is sent and not received so long after the end is lost.
const GRACE: Duration = Duration::from_secs(1);
/// Longest wait for the sink's answers, beyond what it takes to ask all UEs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// UEs asked at once, so that the answers do not overflow a queue on the way.
const ASK_BATCH: usize = 128;
/// Pause between two batches.
const ASK_PAUSE: Duration = Duration::from_millis(5);
/// Control messages are repeated so often until answered.
const REPEAT: Duration = Duration::from_millis(100);
/// How often pacing and stalls are looked after.
const TICK: Duration = Duration::from_millis(2);

/// Which way the traffic goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Direction {
    /// From the UEs to the core.
    Up,
    /// From the core to the UEs.
    Down,
    /// Both at once.
    Both,
}

/// How fast the flows go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Closed loop: at most so many packets in flight per UE and direction.
    Window(u32),
    /// So many packets per second per UE and direction.
    PacketsPerSecond(f64),
}

/// What traffic to pass.
#[derive(Clone, Debug)]
pub struct TrafficPlan {
    /// Which way.
    pub direction: Direction,
    /// Inner packet lengths.
    pub size: SizePlan,
    /// For how long.
    pub duration: Duration,
    /// The sink's address; without it only the uplink runs, unchecked.
    pub far: Option<SocketAddr>,
    /// Speed.
    pub pace: Pace,
    /// Number of the run.
    pub run: u32,
}

/// What a run measured.
#[derive(Clone, Debug, Default)]
pub struct TrafficOutcome {
    /// Uplink, `None` when not run.
    pub uplink: Option<DirectionSection>,
    /// Downlink, `None` when not run.
    pub downlink: Option<DirectionSection>,
    /// Gateway CPU seconds over the traffic phase: process, and process plus softirq.
    pub cpu_s: Option<f64>,
    /// See `cpu_s`.
    pub core_s: Option<f64>,
    /// UEs whose flow the sink did not open.
    pub unopened: u64,
    /// Headers the sink could not read.
    pub corrupt_headers: u64,
}

impl TrafficOutcome {
    /// Returns `cpu_s` per 10^9 inner octets of the directions that ran.
    pub fn cpu_s_per_gb(&self) -> Option<f64> {
        let bytes: u64 =
            [&self.uplink, &self.downlink].into_iter().flatten().filter_map(|way| way.bytes).sum();
        per_gb(self.cpu_s, bytes)
    }
}

type Flows = Vec<(Rc<Ue>, Rc<RefCell<UeFlow>>)>;

/// Runs `plan` over the attached UEs of `fleet`.
pub async fn run(
    fleet: &Fleet,
    plan: &TrafficPlan,
    gateway: Option<GatewayProcess>,
    progress: &Progress,
) -> TrafficOutcome {
    let far = plan.far.unwrap_or_else(|| NOWHERE.parse().expect("a literal address"));
    let shared = Rc::new(Shared::new(plan, far));
    let mut outcome = TrafficOutcome::default();
    let mut flows = open_flows(fleet, &shared);
    outcome.unopened = fleet.attached().count() as u64 - flows.len() as u64;
    if plan.far.is_some() {
        ask_until(&flows, ANSWER_TIMEOUT, UeFlow::is_open, UeFlow::ask_open).await;
        let before = flows.len();
        flows.retain(|(_, flow)| flow.borrow().is_open());
        outcome.unopened += before as u64 - flows.len() as u64;
    }
    let cpu_before = gateway.and_then(|process| process.cpu());
    let begun_at = Instant::now();
    let begun_ns = clock::monotonic_ns();
    pass(&flows, plan, begun_at, progress).await;
    let span_s = (clock::monotonic_ns() - begun_ns) as f64 / 1e9;
    let cpu_after = gateway.and_then(|process| process.cpu());
    (outcome.cpu_s, outcome.core_s) = cpu_spent(cpu_before, cpu_after);
    if plan.far.is_some() {
        ask_until(&flows, GRACE, UeFlow::is_settled, UeFlow::ask_report).await;
        ask_until(&flows, ANSWER_TIMEOUT, UeFlow::is_reported, UeFlow::ask_report).await;
    }
    collect(&flows, &shared, plan, span_s, &mut outcome);
    for (ue, _) in &flows {
        ue.set_inner(None);
    }
    if fleet.esp_dropped() > 0 {
        eprintln!(
            "{} ESP packets did not open at the UEs: no SA, replayed or not authentic",
            fleet.esp_dropped()
        );
    }
    outcome
}

/// Gives every attached UE with an address of the far end's family a flow.
fn open_flows(fleet: &Fleet, shared: &Rc<Shared>) -> Flows {
    let mut flows = Vec::new();
    for ue in fleet.attached() {
        let address = ue.attached().inner.into_iter().find(|inner| inner.is_ipv4() == shared.far.is_ipv4());
        let Some(flow) = address.and_then(|address| UeFlow::new(ue, address, shared.clone())) else {
            continue;
        };
        let flow = Rc::new(RefCell::new(flow));
        ue.set_inner(Some(Box::new(flow::SharedFlow(flow.clone()))));
        flows.push((ue.clone(), flow));
    }
    flows
}

/// Lets the traffic go for the time asked.
async fn pass(flows: &Flows, plan: &TrafficPlan, begun_at: Instant, progress: &Progress) {
    let label = match plan.direction {
        Direction::Up => "uplink",
        Direction::Down => "downlink",
        Direction::Both => "both ways",
    };
    let bar = progress.bar(label, plan.duration.as_millis() as u64);
    for batch in flows.chunks(ASK_BATCH) {
        for (ue, flow) in batch {
            flow.borrow_mut().go(clock::monotonic_ns());
            ue.wake();
        }
        if flows.len() > ASK_BATCH {
            tokio::time::sleep(ASK_PAUSE).await;
        }
    }
    let mut interval = tokio::time::interval(TICK);
    while begun_at.elapsed() < plan.duration {
        interval.tick().await;
        let now_ns = clock::monotonic_ns();
        for (ue, flow) in flows {
            if flow.borrow_mut().tick(now_ns) {
                ue.wake();
            }
        }
        bar.set_position(begun_at.elapsed().as_millis() as u64);
    }
    for (ue, flow) in flows {
        flow.borrow_mut().halt();
        ue.wake();
    }
    bar.finish_and_clear();
}

/// Asks every flow that is not done, again every [`REPEAT`], until all are or the time is over.
async fn ask_until(flows: &Flows, limit: Duration, done: fn(&UeFlow) -> bool, ask: fn(&mut UeFlow)) {
    let deadline = Instant::now() + limit;
    let mut asked_at: Vec<Option<Instant>> = vec![None; flows.len()];
    loop {
        let mut open =
            flows.iter().zip(&mut asked_at).filter(|((_, flow), _)| !done(&flow.borrow())).peekable();
        if open.peek().is_none() || Instant::now() >= deadline {
            return;
        }
        let due = open.filter(|(_, asked_at)| asked_at.is_none_or(|at| at.elapsed() >= REPEAT));
        for ((ue, flow), asked_at) in due.take(ASK_BATCH) {
            *asked_at = Some(Instant::now());
            ask(&mut flow.borrow_mut());
            ue.wake();
        }
        tokio::time::sleep(ASK_PAUSE).await;
    }
}

fn collect(flows: &Flows, shared: &Shared, plan: &TrafficPlan, span_s: f64, outcome: &mut TrafficOutcome) {
    if plan.direction != Direction::Down {
        outcome.uplink = Some(match plan.far {
            Some(_) => collect_uplink(flows, shared, outcome),
            None => {
                let sums = flows.iter().map(|(_, flow)| flow.borrow().sent_up());
                let (sent, bytes) = sums.fold((0, 0), |sum, flow| (sum.0 + flow.0, sum.1 + flow.1));
                DirectionSection::unchecked(sent, bytes, span_s)
            }
        });
    }
    if plan.direction != Direction::Up && plan.far.is_some() {
        outcome.downlink = Some(collect_downlink(flows, shared));
    }
    for way in [&mut outcome.uplink, &mut outcome.downlink].into_iter().flatten() {
        way.cpu_s_per_gb = per_gb(outcome.cpu_s, way.bytes.unwrap_or(0));
    }
}

fn collect_uplink(flows: &Flows, shared: &Shared, outcome: &mut TrafficOutcome) -> DirectionSection {
    let mut tally = Tally::default();
    let (mut sent, mut unreported) = (0, 0);
    let (mut first_ns, mut last_ns, mut latency) = (u64::MAX, 0, LatencySummary::default());
    for (_, flow) in flows {
        let flow = flow.borrow();
        sent += flow.sent_up().0;
        let Some(report) = flow.uplink_report() else {
            unreported += 1;
            continue;
        };
        tally.add(&report.tally);
        outcome.corrupt_headers = outcome.corrupt_headers.max(report.corrupt_headers);
        first_ns = first_ns.min(report.first_ns.max(1));
        if report.last_ns >= last_ns {
            (last_ns, latency) = (report.last_ns, report.latency);
        }
    }
    tally.corrupted += outcome.corrupt_headers;
    if unreported > 0 {
        tracing::warn!(unreported, "the sink gave no report for some UEs; all their packets count as lost");
    }
    let mut section = DirectionSection::checked(sent, &tally, last_ns.saturating_sub(first_ns) as f64 / 1e9);
    section.latency_us = shared.same_clock().then(|| LatencySection::from_summary(&latency)).flatten();
    section
}

fn collect_downlink(flows: &Flows, shared: &Shared) -> DirectionSection {
    let mut tally = Tally::default();
    let mut sent = 0;
    for (_, flow) in flows {
        let flow = flow.borrow();
        tally.add(flow.received_down());
        sent += flow.downlink_report().map_or(flow.received_down().received, |report| report.sent);
    }
    tally.corrupted += shared.corrupt_headers.get();
    let span_s = shared.last_ns.get().saturating_sub(shared.first_ns.get()) as f64 / 1e9;
    let mut section = DirectionSection::checked(sent, &tally, span_s);
    section.latency_us = shared
        .same_clock()
        .then(|| LatencySection::from_summary(&shared.latencies.borrow().summary()))
        .flatten();
    section
}

fn cpu_spent(before: Option<CpuReading>, after: Option<CpuReading>) -> (Option<f64>, Option<f64>) {
    let (Some(before), Some(after)) = (before, after) else { return (None, None) };
    let process_s = after.process_s - before.process_s;
    (Some(process_s), Some(process_s + after.softirq_s - before.softirq_s))
}

fn per_gb(cpu_s: Option<f64>, bytes: u64) -> Option<f64> {
    cpu_s.filter(|_| bytes > 0).map(|cpu_s| cpu_s / (bytes as f64 / 1e9))
}
