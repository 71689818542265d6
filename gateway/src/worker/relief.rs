//! What becomes of connections that are not read when send blocks run out.
//!
//! A block is lent until the socket has taken it, and a peer that reads nothing never lets it. A few thousand such peers,
//! gone out of range or hostile, would hold all the memory that the others' packets need. So the more of it is lent, the
//! less long a connection may hold its block; the UE of one that is closed keeps its SAs and connects again.

use std::time::{Duration, Instant};

use super::Worker;
use super::conn::State;
use super::counters::CloseCause;

/// How long a send may take, by the eighths of the memory that are lent, beyond what it takes at [`LEAST_RATE`]: longer than
/// TCP needs to repair a loss, and than a phone is out of reach between two cells.
const PATIENCE: [(usize, Duration); 3] =
    [(7, Duration::from_secs(1)), (6, Duration::from_secs(3)), (4, Duration::from_secs(10))];

/// Octets per second that a peer reads at least.
const LEAST_RATE: f64 = 125_000.0;

/// How often connections are looked at while memory is scarce.
pub(super) const RELIEF_EVERY: Duration = Duration::from_millis(100);

/// Of those that have run out of time one in so many is closed at a time, the longest waiting first, and at least so many:
/// fewer may be enough.
const CLOSED_OF: usize = 8;
const CLOSED_MIN: usize = 16;

/// How long a send may take when `lent` of `max` octets are lent; `None`: as long as it likes.
fn patience(lent: usize, max: usize) -> Option<Duration> {
    PATIENCE.iter().find(|(eighths, _)| lent >= max / 8 * eighths).map(|&(_, patience)| patience)
}

impl Worker {
    /// Whether so much memory is lent that connections have to be looked at.
    pub(super) fn is_scarce(&self) -> bool {
        patience(self.blocks.lent(), self.blocks.max()).is_some()
    }

    /// Closes connections whose peers have not read for too long, if memory is scarce.
    pub(super) fn relieve(&mut self) {
        let Some(patience) = patience(self.blocks.lent(), self.blocks.max()) else { return };
        // All connections are looked at: not more often than the answer changes.
        if self.now < self.relieved + RELIEF_EVERY.max(patience / 8) {
            return;
        }
        self.relieved = self.now;
        let slots: Vec<u32> = self.conns.slots().collect();
        let mut stuck: Vec<(Instant, u32)> = slots
            .into_iter()
            .filter_map(|slot| {
                let conn = self.conns.get_mut(slot)?;
                let waits = conn.sending && !matches!(conn.state, State::Closing);
                let since = conn.queue.pace.begun().filter(|_| waits)?;
                let allowed = patience + Duration::from_secs_f64(conn.queue.in_flight as f64 / LEAST_RATE);
                (self.now.saturating_duration_since(since) >= allowed).then_some((since, slot))
            })
            .collect();
        stuck.sort_unstable();
        stuck.truncate((stuck.len() / CLOSED_OF).max(CLOSED_MIN));
        for (_, slot) in stuck {
            self.ring.abort(slot);
            self.close(slot, CloseCause::Backlog);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_falls_as_memory_runs_out() {
        let of = |lent| patience(lent, 800);
        assert_eq!((of(0), of(399)), (None, None));
        let seconds = [400, 600, 700, 800].map(|lent| of(lent).expect("scarce").as_secs_f64());
        assert_eq!(seconds, [10.0, 3.0, 1.0, 1.0]);
    }
}
