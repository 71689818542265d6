//! Deadlines of many owners in order.

use std::collections::BTreeSet;
use std::hash::Hash;
use std::time::Instant;

use ahash::AHashMap;

/// Wakes each owner at its earliest deadline or somewhat before, never after.
///
/// An owner has one entry. A deadline that moves to a later time leaves the entry where it is: the owner is
/// woken early, finds nothing due and schedules itself again, so the per-packet case (liveness seen, deadline
/// moves out) costs nothing. An entry that no longer counts is taken out at once: of a hundred thousand
/// handshakes that ended well nothing stays behind.
pub(super) struct Timers<K> {
    order: BTreeSet<(Instant, K)>,
    armed: AHashMap<K, Instant>,
}

impl<K: Copy + Ord + Hash> Timers<K> {
    pub(super) fn new() -> Self {
        Self { order: BTreeSet::new(), armed: AHashMap::new() }
    }

    /// Makes sure `owner` is woken at `at` or before.
    pub(super) fn schedule(&mut self, owner: K, at: Instant) {
        if self.armed.get(&owner).is_some_and(|armed| *armed <= at) {
            return;
        }
        if let Some(later) = self.armed.insert(owner, at) {
            self.order.remove(&(later, owner));
        }
        self.order.insert((at, owner));
    }

    /// Forgets an owner.
    pub(super) fn cancel(&mut self, owner: K) {
        if let Some(at) = self.armed.remove(&owner) {
            self.order.remove(&(at, owner));
        }
    }

    /// The next owner to wake at `now`, at most once per scheduling.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<K> {
        let (_, owner) = *self.order.first().filter(|(at, _)| *at <= now)?;
        self.cancel(owner);
        Some(owner)
    }

    /// When [`Self::pop_due`] has something next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
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
    fn an_owner_has_one_entry_however_often_its_deadline_moves() {
        let start = Instant::now();
        let mut timers = Timers::new();
        for round in (0..10_000u64).rev() {
            timers.schedule(1, start + Duration::from_millis(round));
        }
        assert_eq!(timers.order.len(), 1);
        assert_eq!(timers.pop_due(start), Some(1));
        timers.schedule(2, start);
        timers.cancel(2);
        assert!(timers.order.is_empty() && timers.armed.is_empty());
    }
}
