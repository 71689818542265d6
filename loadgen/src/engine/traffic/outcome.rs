//! What a run measured, put together from flows, sink and processes.

use super::shared::Shared;
use super::{Classes, Direction, Flows, TrafficPlan};
use crate::host::process::{CpuReading, GatewayProcess, own_cpu_s};
use crate::probe::Tally;
use crate::report::{Account, DirectionSection, LatencySummary};

/// What a run measured.
#[derive(Clone, Debug, Default)]
pub struct TrafficOutcome {
    /// Uplink of bulk flows, `None` when not run.
    pub uplink: Option<DirectionSection>,
    /// Downlink of bulk flows, `None` when not run.
    pub downlink: Option<DirectionSection>,
    /// Calls, `None` without.
    pub voice: Option<VoiceOutcome>,
    /// Connections cut on purpose, `None` without.
    pub churn: Option<ChurnOutcome>,
    /// Gateway CPU seconds over the traffic phase: the process, lower bound of the cost, and process plus softirq of its cores,
    /// upper bound; see [`CpuReading`].
    pub cpu_s: Option<f64>,
    /// See `cpu_s`.
    pub core_s: Option<f64>,
    /// CPU seconds of this process over the traffic phase.
    pub own_cpu_s: f64,
    /// UEs whose flow the sink did not open.
    pub unopened: u64,
    /// Headers the sink could not read.
    pub corrupt_headers: u64,
}

/// How the calls went.
#[derive(Clone, Copy, Debug, Default)]
pub struct VoiceOutcome {
    /// UEs with a call.
    pub ues: u64,
    /// Uplink, `None` when not run.
    pub uplink: Option<DirectionSection>,
    /// Downlink, `None` when not run.
    pub downlink: Option<DirectionSection>,
}

/// Connections that were cut on purpose.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChurnOutcome {
    /// How many.
    pub cuts: u64,
    /// Reconnects that nobody asked for.
    pub uncalled: u64,
    /// From a cut to the first octets on the new connection.
    pub recoveries: LatencySummary,
}

impl TrafficOutcome {
    /// Returns `cpu_s` per 10^9 inner octets of all that ran, calls included.
    pub fn cpu_s_per_gb(&self) -> Option<f64> {
        per_gb(self.cpu_s, self.bytes())
    }

    /// Returns `own_cpu_s` per 10^9 inner octets of all that ran, calls included.
    pub fn own_cpu_s_per_gb(&self) -> Option<f64> {
        per_gb(Some(self.own_cpu_s), self.bytes())
    }

    /// Inner octets of all that ran: both directions, bulk and calls.
    fn bytes(&self) -> u64 {
        let voice = self.voice.unwrap_or_default();
        let ways = [self.uplink, self.downlink, voice.uplink, voice.downlink];
        ways.into_iter().flatten().filter_map(|way| way.bytes).sum()
    }

    /// Charges the directions of bulk with the gateway's CPU time. What ran at the same time cannot be told apart in it, so
    /// all of that shares it by octets, which gives each the same figure.
    fn charge(&mut self) {
        let cpu_s_per_gb = self.cpu_s_per_gb();
        for way in [&mut self.uplink, &mut self.downlink].into_iter().flatten() {
            way.cpu_s_per_gb = cpu_s_per_gb;
        }
    }

    /// Puts a run of the other direction beside this one.
    #[must_use]
    pub fn merge(self, next: &Self) -> Self {
        let add = |one: Option<f64>, other: Option<f64>| match (one, other) {
            (Some(one), Some(other)) => Some(one + other),
            (one, other) => one.or(other),
        };
        let voice = |one: VoiceOutcome, other: VoiceOutcome| VoiceOutcome {
            ues: one.ues,
            uplink: one.uplink.or(other.uplink),
            downlink: one.downlink.or(other.downlink),
        };
        let churn = |one: ChurnOutcome, other: ChurnOutcome| ChurnOutcome {
            cuts: one.cuts + other.cuts,
            uncalled: one.uncalled + other.uncalled,
            // The fleet's histogram goes on from run to run.
            recoveries: other.recoveries,
        };
        Self {
            uplink: self.uplink.or(next.uplink),
            downlink: self.downlink.or(next.downlink),
            voice: self.voice.zip(next.voice).map(|(one, other)| voice(one, other)).or(next.voice),
            churn: self.churn.zip(next.churn).map(|(one, other)| churn(one, other)).or(next.churn),
            cpu_s: add(self.cpu_s, next.cpu_s),
            core_s: add(self.core_s, next.core_s),
            own_cpu_s: self.own_cpu_s + next.own_cpu_s,
            unopened: self.unopened + next.unopened,
            corrupt_headers: self.corrupt_headers.max(next.corrupt_headers),
        }
    }

    /// Takes over what the flows have counted.
    pub(super) fn collect(&mut self, flows: &Flows, classes: &Classes, plan: &TrafficPlan, span_s: f64) {
        (self.uplink, self.downlink) = self.collect_class(flows, &classes.bulk, plan, span_s);
        if plan.voice.is_some() {
            let (uplink, downlink) = self.collect_class(flows, &classes.voice, plan, span_s);
            let ues = flows.iter().filter(|(_, flow)| flow.borrow().class() == classes.voice.class).count();
            self.voice = Some(VoiceOutcome { ues: ues as u64, uplink, downlink });
        }
        self.charge();
    }

    /// Returns uplink and downlink of one class.
    fn collect_class(
        &mut self,
        flows: &Flows,
        shared: &Shared,
        plan: &TrafficPlan,
        span_s: f64,
    ) -> (Option<DirectionSection>, Option<DirectionSection>) {
        let own: Flows =
            flows.iter().filter(|(_, flow)| flow.borrow().class() == shared.class).cloned().collect();
        let uplink = (plan.direction != Direction::Down).then(|| match plan.far {
            Some(_) => collect_uplink(&own, shared, &mut self.corrupt_headers),
            None => {
                let sums = own.iter().map(|(_, flow)| flow.borrow().sent_up());
                let (sent, bytes) = sums.fold((0, 0), |sum, flow| (sum.0 + flow.0, sum.1 + flow.1));
                DirectionSection::unchecked(sent, bytes, span_s)
            }
        });
        let down = plan.direction != Direction::Up && plan.far.is_some();
        (uplink, down.then(|| collect_downlink(&own, shared)))
    }
}

fn collect_uplink(flows: &Flows, shared: &Shared, corrupt_headers: &mut u64) -> DirectionSection {
    let mut account = Account::default();
    let (mut first_ns, mut last_ns, mut latency) = (u64::MAX, 0, LatencySummary::default());
    for (_, flow) in flows {
        let flow = flow.borrow();
        let sent = flow.sent_up().0;
        let Some(report) = flow.uplink_report() else {
            account.add_unreported(sent, &Tally::default());
            continue;
        };
        account.add(sent, &report.tally);
        *corrupt_headers = (*corrupt_headers).max(report.corrupt_headers);
        first_ns = first_ns.min(report.first_ns.max(1));
        if report.last_ns >= last_ns {
            (last_ns, latency) = (report.last_ns, report.latency);
        }
    }
    account.tally.corrupted += *corrupt_headers;
    if account.unreported > 0 {
        tracing::warn!(
            unreported = account.unreported,
            "the sink gave no report for some UEs; all their packets uplink count as lost"
        );
    }
    let span_s = last_ns.saturating_sub(first_ns) as f64 / 1e9;
    DirectionSection::checked(&account, span_s).with_latency(shared.same_clock().then_some(&latency))
}

fn collect_downlink(flows: &Flows, shared: &Shared) -> DirectionSection {
    let mut account = Account::default();
    for (_, flow) in flows {
        flow.borrow().add_downlink(&mut account);
    }
    account.tally.corrupted += shared.corrupt_headers.get();
    if account.unreported > 0 {
        tracing::warn!(
            unreported = account.unreported,
            "the sink gave no report for some UEs; what it sent them behind the last packet that arrived is unknown"
        );
    }
    let span_s = shared.last_ns.get().saturating_sub(shared.first_ns.get()) as f64 / 1e9;
    let latency = shared.same_clock().then(|| shared.latencies.borrow().summary());
    DirectionSection::checked(&account, span_s).with_latency(latency.as_ref())
}

/// Reads CPU clocks at both ends of the traffic phase.
pub(super) struct CpuMeter {
    gateway: Option<GatewayProcess>,
    before: Option<CpuReading>,
    own_before_s: f64,
}

impl CpuMeter {
    pub(super) fn start(gateway: Option<GatewayProcess>) -> Self {
        Self { gateway, before: gateway.and_then(|process| process.cpu()), own_before_s: own_cpu_s() }
    }

    /// Returns an outcome of CPU times alone.
    pub(super) fn stop(&self) -> TrafficOutcome {
        let after = self.gateway.and_then(|process| process.cpu());
        let spent = self.before.zip(after).map(|(before, after)| {
            let process_s = after.process_s - before.process_s;
            (process_s, process_s + after.softirq_s - before.softirq_s)
        });
        TrafficOutcome {
            cpu_s: spent.map(|(process_s, _)| process_s),
            core_s: spent.map(|(_, core_s)| core_s),
            own_cpu_s: own_cpu_s() - self.own_before_s,
            ..TrafficOutcome::default()
        }
    }
}

fn per_gb(cpu_s: Option<f64>, bytes: u64) -> Option<f64> {
    cpu_s.filter(|_| bytes > 0).map(|cpu_s| cpu_s / (bytes as f64 / 1e9))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(bytes: u64) -> Option<DirectionSection> {
        Some(DirectionSection { bytes: Some(bytes), ..DirectionSection::default() })
    }

    #[test]
    fn directions_at_the_same_time_share_the_cpu_time_and_calls_count() {
        let run = |voice| {
            let (uplink, downlink) = (way(1_000_000_000), way(3_000_000_000));
            let mut outcome =
                TrafficOutcome { uplink, downlink, voice, cpu_s: Some(2.0), ..TrafficOutcome::default() };
            outcome.charge();
            outcome
        };
        let both = run(None);
        assert_eq!(both.uplink.unwrap().cpu_s_per_gb, Some(0.5), "not 2 s for its 1 GB");
        assert_eq!((both.downlink.unwrap().cpu_s_per_gb, both.cpu_s_per_gb()), (Some(0.5), Some(0.5)));
        let voice = VoiceOutcome { ues: 1, uplink: way(500_000_000), downlink: way(500_000_000) };
        let with_calls = run(Some(voice));
        assert_eq!(with_calls.uplink.unwrap().cpu_s_per_gb, Some(0.4));
        assert_eq!(with_calls.cpu_s_per_gb(), Some(0.4));
    }

    #[test]
    fn one_direction_after_the_other_keeps_its_own_cost() {
        let run = |uplink, downlink, cpu_s| {
            let mut outcome =
                TrafficOutcome { uplink, downlink, cpu_s: Some(cpu_s), ..TrafficOutcome::default() };
            outcome.charge();
            outcome
        };
        let merged = run(way(1_000_000_000), None, 1.0).merge(&run(None, way(1_000_000_000), 2.0));
        assert_eq!(merged.uplink.unwrap().cpu_s_per_gb, Some(1.0));
        assert_eq!(merged.downlink.unwrap().cpu_s_per_gb, Some(2.0));
        assert_eq!(merged.cpu_s_per_gb(), Some(1.5));
    }
}
