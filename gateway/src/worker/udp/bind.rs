//! Where sessions are: on which flow, and when they leave it.

use super::flows::is_flow;
use crate::types::{Follow, Path, SessionId};
use crate::worker::Worker;
use crate::worker::counters::{CloseCause, DropReason};

impl Worker {
    /// The session lives on a UDP path from now on. One that carries no ESP leaves it without a place to send to,
    /// until its ESP arrives on another.
    pub(in crate::worker) fn bind_path(&mut self, id: SessionId, path: &Path, follow: Follow) {
        if self.sad.session_mut(id).is_none() {
            return;
        }
        let socket = self.ring.udp_sockets().iter().position(|socket| socket.serves(path.local));
        let flow = match socket {
            Some(socket) if path.carries_esp() => Some(self.conns.flows.enter(path, socket as u16, self.now)),
            _ => None,
        };
        let Some(session) = self.sad.session_mut(id) else { return };
        session.follow = Some(follow);
        let before = std::mem::replace(&mut session.conn, flow);
        if let Some(before) = before.filter(|before| !is_flow(*before)) {
            // The old connection is still read until the UE closes it (RFC 9329 §6.1); idle, it is closed.
            self.set_deadline(before, self.now + self.limits.replaced_idle, CloseCause::Replaced);
        }
        if let (Some(before), Some(flow)) = (before, flow)
            && before != flow
        {
            self.move_waiting_of(before, flow);
        }
        if let Some(before) = before.filter(|before| is_flow(*before)) {
            self.leave_flow(before);
        }
        self.counters.udp_paths.set(self.conns.flows.len() as u64);
    }

    /// A session is not on this flow any more. The last one takes what waits there with it.
    pub(in crate::worker) fn leave_flow(&mut self, slot: u32) {
        let Some(flow) = self.conns.flows.leave(slot) else { return };
        let queue = flow.conn.queue;
        for block in queue.blocks {
            self.counters.dropped_many(DropReason::NoConnection, u64::from(block.frames()));
            self.blocks.give_back(block);
        }
        self.discard_waiting(queue.waiting);
        self.counters.udp_paths.set(self.conns.flows.len() as u64);
    }
}
