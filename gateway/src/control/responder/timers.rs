//! Deadlines of many owners in one heap.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::Hash;
use std::time::Instant;

use ahash::AHashMap;

/// Wakes each owner at its earliest deadline or somewhat before, never after.
///
/// An owner has one entry that counts. A deadline that moves to a later time leaves the entry where it
/// is: the owner is woken early, finds nothing due and schedules itself again, so the per-packet case
/// (liveness seen, deadline moves out) costs nothing. A stale entry is skipped when it surfaces; the heap
/// is rebuilt before stale entries outnumber live ones.
pub(super) struct Timers<K> {
    heap: BinaryHeap<Reverse<(Instant, K)>>,
    armed: AHashMap<K, Instant>,
}

impl<K: Copy + Ord + Hash> Timers<K> {
    pub(super) fn new() -> Self {
        Self { heap: BinaryHeap::new(), armed: AHashMap::new() }
    }

    /// Makes sure `owner` is woken at `at` or before.
    pub(super) fn schedule(&mut self, owner: K, at: Instant) {
        match self.armed.get_mut(&owner) {
            Some(armed) if *armed <= at => return,
            Some(armed) => *armed = at,
            None => {
                self.armed.insert(owner, at);
            }
        }
        self.heap.push(Reverse((at, owner)));
        if self.heap.len() > 64 + 2 * self.armed.len() {
            let armed = &self.armed;
            self.heap.retain(|Reverse((at, owner))| armed.get(owner) == Some(at));
        }
    }

    /// Forgets an owner.
    pub(super) fn cancel(&mut self, owner: K) {
        self.armed.remove(&owner);
    }

    /// The next owner to wake at `now`, at most once per scheduling.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<K> {
        while let Some(Reverse((at, owner))) = self.heap.peek().copied() {
            let live = self.armed.get(&owner) == Some(&at);
            if live && at > now {
                return None;
            }
            self.heap.pop();
            if live {
                self.armed.remove(&owner);
                return Some(owner);
            }
        }
        None
    }

    /// When [`Self::pop_due`] has something next; a stale entry may make this too early.
    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn owners_wake_in_order_and_once() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut timers = Timers::new();
        timers.schedule(1, at(5));
        timers.schedule(2, at(3));
        timers.schedule(2, at(9));
        timers.schedule(3, at(4));
        timers.schedule(3, at(1));
        timers.cancel(1);
        assert_eq!(timers.next(), Some(at(1)));
        assert_eq!(timers.pop_due(at(0)), None);
        assert_eq!(timers.pop_due(at(3)), Some(3));
        assert_eq!(timers.pop_due(at(3)), Some(2));
        assert_eq!(timers.pop_due(at(100)), None);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn stale_entries_stay_bounded() {
        let start = Instant::now();
        let mut timers = Timers::new();
        for round in (0..10_000u64).rev() {
            timers.schedule(1, start + Duration::from_millis(round));
        }
        assert!(timers.heap.len() <= 68);
        assert_eq!(timers.pop_due(start), Some(1));
    }
}
