//! UEs that cut their connection and come back with the same IKE SA, under traffic (RFC 9329 §6.1).

use super::ChurnOutcome;
use crate::engine::{Fleet, Ue};
use std::rc::Rc;
use std::time::Duration;

/// Nothing is cut so long before the end: what follows a cut has to show that it arrives.
const QUIET: Duration = Duration::from_secs(2);

/// Cuts connections at a steady rate, UE after UE.
pub(super) struct Churn {
    ues: Vec<Rc<Ue>>,
    per_s: f64,
    until: Duration,
    next: usize,
    /// Cuts asked for; a connection that breaks before its turn is not cut.
    asked: u64,
    cuts_before: u64,
    reconnects_before: u64,
}

impl Churn {
    /// Cuts `share` of the attached UEs per second during a run of `duration`.
    pub(super) fn new(share: f64, fleet: &Fleet, duration: Duration) -> Self {
        let ues: Vec<Rc<Ue>> = fleet.attached().cloned().collect();
        Self {
            per_s: share * ues.len() as f64,
            until: duration.saturating_sub(QUIET),
            ues,
            next: 0,
            asked: 0,
            cuts_before: fleet.cuts(),
            reconnects_before: fleet.reconnects(),
        }
    }

    /// Cuts what is due `elapsed` after the start; a UE without a connection is passed over.
    pub(super) fn tick(&mut self, elapsed: Duration) {
        let due = (elapsed.min(self.until).as_secs_f64() * self.per_s) as u64;
        for _ in 0..self.ues.len() {
            if self.asked >= due {
                return;
            }
            let ue = &self.ues[self.next];
            self.next = (self.next + 1) % self.ues.len();
            self.asked += u64::from(ue.cut());
        }
    }

    /// Returns what came of it.
    pub(super) fn outcome(&self, fleet: &Fleet) -> ChurnOutcome {
        let reconnects = fleet.reconnects() - self.reconnects_before;
        // The fleet's count is what the flows were told of: what they excuse and what is said here are the same cuts.
        let cuts = fleet.cuts() - self.cuts_before;
        ChurnOutcome { cuts, uncalled: reconnects.saturating_sub(cuts), recoveries: fleet.recoveries() }
    }
}
