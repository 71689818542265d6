//! Attaching and detaching many UEs.

use super::congestion::Congestion;
use super::link::{Shared, Ue, UeState};
use super::source::SourceSpread;
use super::tls::TlsSettings;
use crate::report::{Latencies, LatencySummary, Progress, failure_counts};
use crate::ue::{EndCause, Initiator, Subscriber, UeConfig};
use codec::crypto::KeyExchange;
use codec::{OsRandom, Random};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the IKE timers of all UEs run.
const TICK: Duration = Duration::from_millis(100);
/// Longest wait for the answers to DELETE.
const DETACH_TIMEOUT: Duration = Duration::from_secs(10);

/// What to attach.
pub struct FleetPlan {
    /// The gateway's address.
    pub gateway: SocketAddr,
    /// Over UDP instead of TCP.
    pub udp: bool,
    /// TLS around the stream, if any.
    pub tls: Option<TlsSettings>,
    /// Number of UEs.
    pub ues: u32,
    /// Attaches begun per second; as fast as `in_flight` allows when absent.
    pub rate: Option<f64>,
    /// Most attaches under way at once.
    pub in_flight: u32,
    /// Source addresses.
    pub source: SourceSpread,
    /// Congestion control of the connections over TCP; `None` is the system's.
    pub congestion: Option<Congestion>,
    /// Settings of every UE.
    pub config: Arc<UeConfig>,
    /// Who UE `index` is; the same SIM each time it is asked.
    pub who: Rc<dyn Fn(u32) -> Subscriber>,
    /// Randomness of all UEs.
    pub random: Box<dyn Random>,
}

/// How the attach phase went.
pub struct AttachOutcome {
    /// UEs attached.
    pub ok: u64,
    /// The others by cause.
    pub failed: BTreeMap<String, u64>,
    /// Seconds from the first connection to the last result.
    pub span_s: f64,
    /// Attach latencies.
    pub latencies: Latencies,
    /// UEs among them whose EAP was a fast re-authentication.
    pub fast: u64,
}

/// What a hold saw.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HoldOutcome {
    /// Seconds held.
    pub seconds: f64,
    /// UEs whose IKE SA ended.
    pub lost: u64,
    /// Connections opened again.
    pub reconnects: u64,
    /// Packets of the trickle that left.
    pub trickle_sent: u64,
}

/// What a detach saw.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DetachOutcome {
    /// UEs whose DELETE was answered.
    pub ok: u64,
    /// UEs attached before whose DELETE was not.
    pub unanswered: u64,
    /// Seconds from the first DELETE to the last answer.
    pub span_s: f64,
}

/// UEs, attached or on the way.
pub struct Fleet {
    shared: Rc<Shared>,
    ues: Vec<Rc<Ue>>,
    timers: tokio::task::JoinHandle<()>,
}

impl Fleet {
    /// Attaches all UEs of the plan and waits for every result.
    ///
    /// Must run inside [`super::run`].
    pub async fn attach(plan: FleetPlan, progress: &Progress) -> (Self, AttachOutcome) {
        let (gateway, replay_window) = (plan.gateway, plan.config.replay_window);
        let shared = Shared::new(gateway, plan.tls, plan.source, plan.congestion, replay_window, plan.random);
        let shared = Rc::new(shared);
        let ues: Vec<Rc<Ue>> = (0..plan.ues)
            .map(|index| {
                let initiator = Initiator::new(plan.config.clone(), (plan.who)(index));
                Rc::new(Ue::new(index, shared.clone(), initiator))
            })
            .collect();
        let timers = tokio_uring::spawn(run_timers(ues.clone()));
        let fleet = Self { shared, ues, timers };
        warm_up(&plan.config);
        let bar = progress.bar("attaching", u64::from(plan.ues));
        let begun_at = Instant::now();
        let mut last_result_at = begun_at;
        let (mut begun, mut settled) = (0, 0);
        while settled < plan.ues {
            let due = plan.rate.map_or(plan.ues, |rate| (begun_at.elapsed().as_secs_f64() * rate) as u32 + 1);
            let until = due.min(plan.ues).min(settled + plan.in_flight);
            while begun < until {
                let ue = fleet.ues[begun as usize].clone();
                match plan.udp {
                    true => tokio_uring::spawn(ue.live_over_udp()),
                    false => tokio_uring::spawn(ue.live()),
                };
                begun += 1;
            }
            // Either a UE settles or the next attach of a paced run becomes due.
            let _ = tokio::time::timeout(Duration::from_millis(5), fleet.shared.changed.notified()).await;
            let now_settled = fleet.shared.settled.get();
            if now_settled != settled {
                settled = now_settled;
                last_result_at = Instant::now();
                bar.set_position(u64::from(settled));
            }
        }
        bar.finish_and_clear();
        let outcome = fleet.outcome((last_result_at - begun_at).as_secs_f64());
        (fleet, outcome)
    }

    /// Returns all UEs, whatever became of them.
    pub fn ues(&self) -> &[Rc<Ue>] {
        &self.ues
    }

    /// Returns the UEs that are attached now.
    pub fn attached(&self) -> impl Iterator<Item = &Rc<Ue>> {
        self.ues.iter().filter(|ue| ue.is_attached())
    }

    /// Returns how many connections had to be opened again.
    pub fn reconnects(&self) -> u64 {
        self.shared.reconnects.get()
    }

    /// Returns how many connections were cut on purpose.
    pub fn cuts(&self) -> u64 {
        self.shared.cuts.get()
    }

    /// Returns the times from a cut on purpose to the first octets on the new connection.
    pub fn recoveries(&self) -> LatencySummary {
        self.shared.recoveries.borrow().summary()
    }

    /// Returns how many ESP packets the UEs dropped: for no SA, replayed or not authentic.
    pub fn esp_dropped(&self) -> u64 {
        self.shared.esp_dropped.get()
    }

    /// Deletes every IKE SA and waits for the answers; returns how many did not end that way.
    pub async fn detach(self) -> u64 {
        let deadline = Instant::now() + DETACH_TIMEOUT;
        let attached: Vec<Rc<Ue>> = self.attached().cloned().collect();
        for ue in &attached {
            ue.detach();
        }
        while attached.iter().any(|ue| ue.is_attached()) && Instant::now() < deadline {
            let _ = tokio::time::timeout(Duration::from_millis(20), self.shared.changed.notified()).await;
        }
        self.timers.abort();
        attached.iter().filter(|ue| ue.state() != UeState::Ended(EndCause::Detached)).count() as u64
    }

    fn outcome(&self, span_s: f64) -> AttachOutcome {
        let mut latencies = Latencies::new();
        for latency in self.ues.iter().filter_map(|ue| ue.attach_latency()) {
            latencies.record(latency.as_nanos() as u64);
        }
        let causes: Vec<String> = self
            .ues
            .iter()
            .filter_map(|ue| match ue.state() {
                UeState::Ended(cause) => Some(cause.to_string()),
                _ => None,
            })
            .collect();
        let ok = self.ues.len() as u64 - causes.len() as u64;
        let failed = failure_counts(causes.iter().map(String::as_str));
        let fast = self.attached().filter(|ue| ue.attached().fast).count() as u64;
        AttachOutcome { ok, failed, span_s, latencies, fast }
    }
}

/// Makes a key of every group once: the library tests itself and gathers entropy at its first use, which takes tens of
/// milliseconds that are no UE's.
pub(super) fn warm_up(config: &UeConfig) {
    for group in config.ike.iter().flat_map(|proposal| proposal.groups()) {
        let _ = KeyExchange::generate(*group, &mut OsRandom);
    }
}

async fn run_timers(ues: Vec<Rc<Ue>>) {
    let mut interval = tokio::time::interval(TICK);
    loop {
        interval.tick().await;
        for ue in &ues {
            ue.tick();
        }
    }
}
