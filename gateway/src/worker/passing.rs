//! Packets that pass from one worker to another, through an inbox that carries orders as well.
//!
//! They are many and long where no steering program sends them to the right worker at once, or there is none. So
//! their octets are bounded for each pair of workers, which is all that two threads have to agree on, and half of an
//! inbox is left to the control thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::Worker;
use super::counters::DropReason;
use super::flow_queue::SUPER_LEN;
use super::inbox::ToWorker;
use crate::limits::PASSED_OCTETS_MAX;
use crate::types::WorkerId;

/// What one worker has passed to the others.
pub(super) struct Passing {
    /// Octets that wait in the inbox of each worker.
    waiting: Vec<Arc<AtomicUsize>>,
    /// Octets that may.
    max: usize,
}

impl Passing {
    /// Nothing yet, of one worker of `workers`. Each of the others has the same part of an inbox, and room for the
    /// longest packet at least.
    pub fn new(workers: usize) -> Self {
        let max = PASSED_OCTETS_MAX / workers.saturating_sub(1).max(1);
        Self { waiting: (0..workers).map(|_| Arc::default()).collect(), max: max.max(SUPER_LEN) }
    }

    /// Room for `len` octets in the inbox of `worker`, or `None`.
    fn claim(&self, worker: WorkerId, len: usize) -> Option<Claim> {
        let waiting = self.waiting.get(worker.index())?;
        // Only this worker adds: what it sees can only be too much.
        if waiting.load(Relaxed) + len > self.max {
            return None;
        }
        waiting.fetch_add(len, Relaxed);
        Some(Claim { waiting: waiting.clone(), len })
    }
}

/// Room in an inbox; free again when it is dropped.
pub(super) struct Claim {
    waiting: Arc<AtomicUsize>,
    len: usize,
}

impl Claim {
    /// A copy of the packet that the room is for.
    pub fn hold(self, packet: &[u8]) -> Passed {
        Passed { octets: packet.to_vec(), _claim: Some(self) }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.len, Relaxed);
    }
}

/// A packet on its way to another worker, with the room it has in the inbox.
pub struct Passed {
    octets: Vec<u8>,
    _claim: Option<Claim>,
}

impl Passed {
    /// The packet, which leaves the inbox by that.
    pub fn into_octets(self) -> Vec<u8> {
        self.octets
    }
}

/// A packet that has no room of its own.
impl From<Vec<u8>> for Passed {
    fn from(octets: Vec<u8>) -> Self {
        Self { octets, _claim: None }
    }
}

impl Worker {
    /// Room for `len` octets of a packet in another worker's inbox, or `None`.
    pub(super) fn claim(&self, worker: WorkerId, len: usize) -> Option<Claim> {
        let queue = &self.peers.get(worker.index())?.queue;
        let has_room = queue.capacity().is_none_or(|capacity| queue.len() < capacity.div_ceil(2));
        has_room.then(|| self.passing.claim(worker, len)).flatten()
    }

    /// Passes a message with what stands for so many packets; false when there was no room for it, which is counted.
    pub(super) fn pass_packets(&mut self, worker: WorkerId, packets: u64, message: Option<ToWorker>) -> bool {
        let peer = self.peers.get(worker.index());
        let sent = peer.zip(message).is_some_and(|(peer, message)| {
            let sent = peer.queue.try_send(message).is_ok();
            if sent {
                peer.wake.wake();
            }
            sent
        });
        if !sent {
            self.counters.dropped_many(DropReason::HandoffFull, packets);
        }
        sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_are_bounded_for_each_worker_and_come_back() {
        const OTHER: WorkerId = WorkerId(1);
        let passing = Passing::new(3);
        let packet = [7; 60_000];
        let claim = |worker| passing.claim(worker, packet.len()).map(|claim| claim.hold(&packet));
        let mut held: Vec<Passed> = std::iter::from_fn(|| claim(OTHER)).collect();
        assert_eq!(held.len(), PASSED_OCTETS_MAX / 2 / packet.len());
        assert!(claim(WorkerId(2)).is_some(), "of another inbox");
        assert_eq!(held.pop().map(Passed::into_octets), Some(packet.to_vec()));
        held.extend(claim(OTHER));
        assert!(claim(OTHER).is_none(), "one left, one came");
        drop(held);
        assert_eq!(passing.waiting[OTHER.index()].load(Relaxed), 0);
    }

    #[test]
    fn each_of_many_workers_may_pass_the_longest_packet() {
        let passing = Passing::new(256);
        let claim = passing.claim(WorkerId(9), SUPER_LEN);
        assert!(claim.is_some() && passing.claim(WorkerId(9), SUPER_LEN).is_none());
    }
}
