//! How far a connection has come, when it is looked at again, and how it ends.

use std::cmp::Reverse;
use std::mem;

use super::counters::{RelayClose, RelayDrop};
use super::link::Stage;
use super::worker::Worker;

impl Worker {
    /// The backend's answers have brought the IKE SA to `stage`.
    pub(super) fn reach(&mut self, slot: u32, stage: Stage) {
        let Some(link) = self.links.get_mut(slot).filter(|link| link.stage < stage) else { return };
        let before = mem::replace(&mut link.stage, stage);
        link.stage_since = self.now;
        self.count_stage(before, false);
        self.count_stage(stage, true);
        self.schedule(slot);
    }

    fn count_stage(&self, stage: Stage, enters: bool) {
        let gauge = match stage {
            Stage::Opening => return,
            Stage::HalfOpen => &self.counters.half_open,
            Stage::Established => &self.counters.established,
        };
        gauge.set(if enters { gauge.get() + 1 } else { gauge.get().saturating_sub(1) });
    }

    /// Closes a connection; the backend keeps its IKE SA (RFC 9329 §6.1).
    pub(super) fn close(&mut self, slot: u32, cause: RelayClose) {
        let Some(mut link) = self.links.remove(slot) else { return };
        link.stream.part();
        self.ike_octets -= link.ike_octets;
        self.unfinished -= link.unfinished;
        self.count_stage(link.stage, false);
        self.counters.closed(cause);
        self.counters.connections.set(self.links.len() as u64);
        // Closing a descriptor takes it out of epoll.
    }

    /// Sees to it that the connection is looked at when something of it is due.
    pub(super) fn schedule(&mut self, slot: u32) {
        let Some(link) = self.links.get_mut(slot) else { return };
        let (deadline, _) = link.deadline(&self.limits);
        let due = link.exchanges.poll_timeout().map_or(deadline, |at| at.min(deadline));
        if link.check_at.is_none_or(|at| at > due) {
            link.check_at = Some(due);
            self.timers.push(Reverse((due, slot, link.generation)));
        }
    }

    pub(super) fn expire(&mut self) {
        while let Some(&Reverse((at, slot, generation))) = self.timers.peek() {
            if at > self.now {
                break;
            }
            self.timers.pop();
            let Some(link) = self.links.find(slot, generation) else { continue };
            if link.check_at != Some(at) {
                // An earlier look has been arranged since.
                continue;
            }
            link.check_at = None;
            let (deadline, cause) = link.deadline(&self.limits);
            if deadline <= self.now {
                self.close(slot, cause);
                continue;
            }
            self.resend(slot);
            self.schedule(slot);
        }
    }

    /// Settles what the connection's IKE messages count towards the worker's limit. False when that is
    /// exceeded: the connection is closed then.
    pub(super) fn settle_ike(&mut self, slot: u32) -> bool {
        let Some(link) = self.links.get_mut(slot) else { return false };
        let octets = link.exchanges.octets();
        self.ike_octets = self.ike_octets - link.ike_octets + octets;
        let grew = octets > link.ike_octets;
        link.ike_octets = octets;
        if grew && self.ike_octets > self.limits.ike_octets {
            self.counters.dropped(RelayDrop::IkeMemory, 1);
            self.close(slot, RelayClose::Limit);
            return false;
        }
        true
    }
}
