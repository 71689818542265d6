//! Test traffic through the UEs' tunnels: the phases of a run and what they measured.
//!
//! A run opens its flows at the sink (through the tunnel), lets them go for the time asked, stops them, and gives what is
//! still on the way one second to arrive. What counts is what the receiving end saw: the sink's reports for the uplink,
//! the UEs' own checkers for the downlink.

mod churn;
mod flow;
mod outcome;
mod shared;
mod ticker;

pub use outcome::{ChurnOutcome, TrafficOutcome, VoiceOutcome};

use super::{Fleet, Ue};
use crate::host::clock;
use crate::host::process::GatewayProcess;
use crate::probe::SizePlan;
use crate::report::Progress;
use churn::Churn;
use flow::{UeFlow, UeFlows};
use outcome::CpuMeter;
use shared::{Class, Shared};
use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};
use ticker::Ticker;

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
/// How often pacing and stalls are looked after: the more flows, the less often.
const TICK_MAX: Duration = Duration::from_millis(2);
const TICK_MIN: Duration = Duration::from_micros(250);
const TICK_PER_FLOW: Duration = Duration::from_micros(1);
/// Packets per second of a call in one direction, and the octets of each.
pub const VOICE_PACKETS_PER_S: f64 = 50.0;
const VOICE_LEN: u16 = 160;
/// The run number of the voice flows differs from that of the bulk flows in this bit, so that the sink counts them apart.
const VOICE_RUN: u32 = 1 << 31;

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
    /// Closed loop: at most so many packets in flight per UE.
    Window {
        /// Uplink.
        up: u32,
        /// Downlink.
        down: u32,
    },
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
    /// Most packets of one UE in a row; as many as a write carries when absent.
    pub run_len: Option<u32>,
    /// Packets that a paced flow sends at a time.
    pub burst: u32,
    /// Downlink packets in flight of all UEs together: what the queues on the way hold.
    pub queue: u32,
    /// Calls beside the rest.
    pub voice: Option<VoicePlan>,
    /// Share of the UEs that cut their connection each second.
    pub churn: Option<f64>,
}

/// Which UEs make a call: 160-octet packets with DSCP EF every 20 ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoicePlan {
    /// So many, the first ones.
    pub ues: u32,
    /// They pass bulk traffic as well.
    pub beside: bool,
}

/// Ends of the traffic phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// All flows are open, and now they go.
    Begun,
    /// Nobody sends any more; what is still on the way is waited for next.
    Ended,
}

type Flows = Vec<(Rc<Ue>, Rc<RefCell<UeFlow>>)>;

/// Settings and measurements of the two kinds of flows.
struct Classes {
    bulk: Rc<Shared>,
    voice: Rc<Shared>,
}

/// Runs `plan` over the attached UEs of `fleet`.
pub async fn run(
    fleet: &Fleet,
    plan: &TrafficPlan,
    gateway: Option<GatewayProcess>,
    progress: &Progress,
) -> TrafficOutcome {
    run_watched(fleet, plan, gateway, progress, &mut |_| ()).await
}

/// Does what [`run`] does and tells `watch` when the traffic begins and ends, for what else is measured over just that
/// time.
pub async fn run_watched(
    fleet: &Fleet,
    plan: &TrafficPlan,
    gateway: Option<GatewayProcess>,
    progress: &Progress,
    watch: &mut dyn FnMut(Phase),
) -> TrafficOutcome {
    let far = plan.far.unwrap_or_else(|| NOWHERE.parse().expect("a literal address"));
    let classes = Classes {
        bulk: Rc::new(Shared::new(plan, Class::Bulk, far)),
        voice: Rc::new(Shared::new(&voice_plan(plan), Class::Voice, far)),
    };
    let mut flows = open_flows(fleet, plan, &classes);
    let mut unopened = fleet.attached().count().saturating_sub(flows.len());
    if plan.far.is_some() {
        ask_until(&flows, ANSWER_TIMEOUT, UeFlow::is_open, UeFlow::ask_open).await;
        let before = flows.len();
        flows.retain(|(_, flow)| flow.borrow().is_open());
        unopened += before - flows.len();
    }
    let mut churn = plan.churn.map(|share| Churn::new(share, fleet, plan.duration));
    let meter = CpuMeter::start(gateway);
    watch(Phase::Begun);
    let begun_ns = clock::monotonic_ns();
    pass(&flows, plan, churn.as_mut(), progress).await;
    let span_s = (clock::monotonic_ns() - begun_ns) as f64 / 1e9;
    watch(Phase::Ended);
    if plan.far.is_some() {
        ask_until(&flows, GRACE, UeFlow::is_settled, UeFlow::ask_report).await;
    }
    // What was still on the way has cost something as well, and counts as received.
    let mut outcome = TrafficOutcome { unopened: unopened as u64, ..meter.stop() };
    if plan.far.is_some() {
        ask_until(&flows, ANSWER_TIMEOUT, UeFlow::is_reported, UeFlow::ask_report).await;
    }
    outcome.churn = churn.map(|churn| churn.outcome(fleet));
    outcome.collect(&flows, &classes, plan, span_s);
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

/// Returns what the voice flows of `plan` do.
fn voice_plan(plan: &TrafficPlan) -> TrafficPlan {
    TrafficPlan {
        size: SizePlan::Fixed(VOICE_LEN),
        pace: Pace::PacketsPerSecond(VOICE_PACKETS_PER_S),
        run: plan.run ^ VOICE_RUN,
        burst: 1,
        ..plan.clone()
    }
}

/// Gives every attached UE with an address of the far end's family its flows.
fn open_flows(fleet: &Fleet, plan: &TrafficPlan, classes: &Classes) -> Flows {
    let mut flows = Vec::new();
    for (index, ue) in (0..).zip(fleet.attached()) {
        let inner = ue.attached().inner;
        let Some(address) = inner.into_iter().find(|inner| inner.is_ipv4() == classes.bulk.far.is_ipv4())
        else {
            continue;
        };
        let calls = plan.voice.is_some_and(|voice| index < voice.ues);
        let bulk = !calls || plan.voice.is_some_and(|voice| voice.beside);
        let wanted = [(calls, &classes.voice), (bulk, &classes.bulk)];
        add_flows(ue, address, wanted, &mut flows);
    }
    flows
}

/// Adds those flows of one UE that are wanted.
fn add_flows(ue: &Rc<Ue>, address: IpAddr, wanted: [(bool, &Rc<Shared>); Class::COUNT], flows: &mut Flows) {
    let mut own = UeFlows::default();
    for (_, shared) in wanted.into_iter().filter(|(wanted, _)| *wanted) {
        if let Some(flow) = UeFlow::new(ue, address, shared.clone()) {
            let flow = Rc::new(RefCell::new(flow));
            own.add(shared.class, flow.clone());
            flows.push((ue.clone(), flow));
        }
    }
    ue.set_inner(Some(Box::new(own)));
}

/// Lets the traffic go for the time asked.
async fn pass(flows: &Flows, plan: &TrafficPlan, mut churn: Option<&mut Churn>, progress: &Progress) {
    let begun_at = Instant::now();
    let label = match plan.direction {
        Direction::Up => "uplink",
        Direction::Down => "downlink",
        Direction::Both => "both ways",
    };
    let bar = progress.bar(label, plan.duration.as_millis() as u64);
    start(flows).await;
    let mut ticker = Ticker::new(tick(flows, plan));
    while begun_at.elapsed() < plan.duration {
        ticker.tick().await;
        let now_ns = clock::monotonic_ns();
        for (ue, flow) in flows {
            if flow.borrow_mut().tick(now_ns) {
                ue.wake();
            }
        }
        if let Some(churn) = churn.as_deref_mut() {
            churn.tick(begun_at.elapsed());
        }
        bar.set_position(begun_at.elapsed().as_millis() as u64);
    }
    for (ue, flow) in flows {
        flow.borrow_mut().halt();
        ue.wake();
    }
    bar.finish_and_clear();
}

/// Starts the flows in batches; paced ones are spread over their interval, so that they do not keep step.
async fn start(flows: &Flows) {
    let count = flows.len() as f64;
    for (batch, first) in flows.chunks(ASK_BATCH).zip((0..).step_by(ASK_BATCH)) {
        for ((ue, flow), index) in batch.iter().zip(first..) {
            flow.borrow_mut().go(clock::monotonic_ns(), f64::from(index) / count);
            ue.wake();
        }
        if flows.len() > ASK_BATCH {
            tokio::time::sleep(ASK_PAUSE).await;
        }
    }
}

/// Returns how often to tick: pacing wants it often, the closed loop only for stalls.
fn tick(flows: &Flows, plan: &TrafficPlan) -> Duration {
    match plan.pace {
        Pace::Window { .. } => TICK_MAX,
        Pace::PacketsPerSecond(_) => (TICK_PER_FLOW * flows.len() as u32).clamp(TICK_MIN, TICK_MAX),
    }
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
