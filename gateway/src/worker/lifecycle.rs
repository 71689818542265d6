//! Connections come, are bound to sessions, move between workers and go.

use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use super::Worker;
use super::conn::{Conn, Move, State};
use super::counters::{CloseCause, DropReason};
use super::flow_queue::UeId;
use super::front::Guard;
use super::inbox::{Adopted, ToControl, ToWorker};
use super::pace::{IN_SOCKET_FIRST, Pace};
use super::udp::HEARD_AFTER_MOVE_S;
use super::udp::flows::is_flow;
use crate::io::block::Block;
use crate::io::sockets;
use crate::limits::LATE_REPORTS_MAX;
use crate::tls::{SEALED_ROOM, StreamKind};
use crate::types::{ConnId, Path, SessionId, WorkerId};

/// Octets in a socket that may be unsent where nothing waits before encryption.
const IN_SOCKET_WITHOUT: i32 = 256 * 1024;

impl Worker {
    /// A new connection.
    pub(super) fn on_accepted(&mut self, listener: usize, socket: OwnedFd) {
        let Ok((local, remote)) = sockets::prepare_accepted(socket.as_fd(), self.unsent_max()) else {
            return self.counters.closed(CloseCause::Peer);
        };
        if self.late.len() >= LATE_REPORTS_MAX {
            return self.counters.closed(CloseCause::Limit);
        }
        let kind = self.kinds.get(listener).copied().unwrap_or(StreamKind::Tcp);
        let path = Path { transport: kind.transport(), local, remote };
        if let Some(slot) = self.open(path, socket) {
            self.counters.accepted.add(1);
            if let Some(conn) = self.conns.get_mut(slot) {
                conn.deframer = kind.deframer();
                conn.front = Guard::new(kind, self.tls.as_ref());
                conn.queue.records_room = if conn.front.is_some() { SEALED_ROOM } else { 0 };
            }
            self.set_deadline(slot, self.now + self.limits.prefix_timeout, CloseCause::PrefixTimeout);
        }
    }

    /// Octets that the socket of a new connection may hold unsent.
    fn unsent_max(&self) -> i32 {
        match self.queueing.unsent {
            Some(octets) => i32::try_from(octets.get()).unwrap_or(i32::MAX),
            None if self.queueing.flow_queue => IN_SOCKET_FIRST,
            None => IN_SOCKET_WITHOUT,
        }
    }

    /// Takes a connection into the table and starts receiving.
    fn open(&mut self, path: Path, socket: OwnedFd) -> Option<u32> {
        let Some((slot, generation)) = self.conns.reserve(path.remote.ip()) else {
            self.counters.closed(CloseCause::Limit);
            return None;
        };
        if let Err(error) = self.ring.open(slot, generation, socket) {
            // Said once: no connection gets this far again.
            tracing::warn!(worker = self.id.0, connections = slot, %error, "no room for more connections");
            self.conns.free(slot, path.remote.ip());
            self.conns.cap(slot);
            self.counters.closed(CloseCause::Limit);
            return None;
        }
        let mut conn = Conn::new(generation, path, self.now);
        conn.receive_armed = true;
        conn.queue.pace = Pace::fixed(self.queueing.unsent);
        self.conns.insert(slot, conn);
        self.ring.arm_receive(slot);
        self.counters.connections.set(self.conns.len() as u64);
        Some(slot)
    }

    pub(super) fn set_deadline(&mut self, slot: u32, at: Instant, cause: CloseCause) {
        if let Some(conn) = self.conns.get_mut(slot) {
            conn.deadline = Some((at, cause));
            self.check_deadline(slot, at);
        }
    }

    /// Looks at the deadline of a connection at `at` or before. A session that goes to and fro between
    /// connections moves their deadlines with each packet: that must not queue an entry each.
    fn check_deadline(&mut self, slot: u32, at: Instant) {
        if let Some(conn) = self.conns.get_mut(slot)
            && conn.deadline_check.is_none_or(|due| due > at)
        {
            conn.deadline_check = Some(at);
            self.deadlines.push(std::cmp::Reverse((at, slot)));
        }
    }

    /// Closes connections whose time is over.
    pub(super) fn expire(&mut self) {
        while let Some(&std::cmp::Reverse((at, slot))) = self.deadlines.peek() {
            if at > self.now {
                break;
            }
            self.deadlines.pop();
            let Some(conn) = self.conns.get_mut(slot) else { continue };
            conn.deadline_check.take_if(|due| *due <= at);
            let over = match (&conn.state, conn.deadline) {
                (State::Open, _) => None,
                (State::Closing, _) | (_, None) => continue,
                (State::Draining(cause), Some((due, _))) => Some((due, *cause)),
                (State::Moving(_), Some(deadline)) => Some(deadline),
            };
            if let Some((due, cause)) = over {
                match due <= self.now {
                    true => self.close(slot, cause),
                    false => self.check_deadline(slot, due),
                }
                continue;
            }
            match conn.deadline {
                Some((due, CloseCause::PrefixTimeout))
                    if due <= self.now && conn.deframer.prefix_complete() =>
                {
                    // D2 goes on where D1 ends: the prefix came, a usable message has not.
                    let more = self.limits.first_message_timeout.saturating_sub(self.limits.prefix_timeout);
                    self.set_deadline(slot, due + more, CloseCause::FirstMessageTimeout);
                    self.expire_now_if_due(slot);
                }
                Some((due, _)) if due <= self.now => self.expire_now_if_due(slot),
                Some((due, _)) => self.check_deadline(slot, due),
                None => {}
            }
        }
    }

    fn expire_now_if_due(&mut self, slot: u32) {
        if let Some((due, cause)) = self.conns.get_mut(slot).and_then(|conn| conn.deadline)
            && due <= self.now
        {
            self.close(slot, cause);
        }
    }

    /// The session sends and receives on this connection from now on.
    pub(super) fn bind(&mut self, id: SessionId, slot: u32) {
        let Some(session) = self.sad.session_mut(id) else { return };
        // A place that somebody else will have is nobody's.
        if !self.conns.get_mut(slot).is_some_and(|conn| conn.is_open()) {
            return;
        }
        let replaced = session.conn.replace(slot).filter(|&old| old != slot);
        if session.follow.take().is_some() {
            // What was on its way over UDP is still taken.
            session.heard_over_udp_until_s = self.now_s + HEARD_AFTER_MOVE_S;
        }
        if !session.bound.contains(&slot) {
            session.bound.reserve_exact(1);
            session.bound.push(slot);
        }
        if let Some(conn) = self.conns.get_mut(slot) {
            conn.deadline = None;
            // Control thread and worker may have seen messages of two sessions at the same time; the
            // connection carries one (RFC 9329 §6.1), and the other must not send here.
            let other = conn.session.replace(id).filter(|other| *other != id);
            self.unbind(other, slot);
        }
        if let Some(flow) = replaced.filter(|old| is_flow(*old)) {
            self.move_waiting_of(flow, slot);
            return self.leave_flow(flow);
        }
        self.move_waiting(replaced, slot);
        // The old connection is still read until the UE closes it (RFC 9329 §6.1); idle, it is closed.
        if let Some(old) = replaced {
            self.set_deadline(old, self.now + self.limits.replaced_idle, CloseCause::Replaced);
        }
    }

    /// As [`Self::move_waiting`], unless packets of other sessions may be among them.
    pub(super) fn move_waiting_of(&mut self, from: u32, to: u32) {
        if !self.conns.flows.is_shared(from) {
            self.move_waiting(Some(from), to);
        }
    }

    /// Packets that are not sealed yet follow their session to its new connection.
    fn move_waiting(&mut self, from: Option<u32>, to: u32) {
        let from = from.and_then(|slot| self.conns.get_mut(slot));
        let Some(waiting) = from.and_then(|conn| conn.queue.waiting.take()) else { return };
        // On a flow there may be packets of other sessions, which stay; on a connection only of one that left it.
        if is_flow(to)
            && let Some(there) = self.conns.get_mut(to).and_then(|conn| conn.queue.waiting)
        {
            self.flow_queues.merge(waiting, there, &self.counters);
            return self.flow_queues.activate(there);
        }
        self.flow_queues.rebind(waiting, to);
        let replaced = self.conns.get_mut(to).and_then(|conn| conn.queue.waiting.replace(waiting));
        self.discard_waiting(replaced);
        self.flow_queues.activate(waiting);
    }

    pub(super) fn discard_waiting(&mut self, waiting: Option<UeId>) {
        if let Some(waiting) = waiting {
            let packets = self.flow_queues.discard(waiting);
            self.counters.dropped_many(DropReason::NoConnection, packets);
        }
    }

    /// The session sends and receives on this connection no more.
    fn unbind(&mut self, session: Option<SessionId>, slot: u32) {
        if let Some(session) = session.and_then(|id| self.sad.session_mut(id)) {
            session.conn.take_if(|current| *current == slot);
            session.bound.retain(|&other| other != slot);
        }
    }

    /// A connection carries no frame of its session any more. The session goes on over the one that it was last heard on
    /// beside it, if that is still open: what a network held of an old connection may come, and move the session back to it,
    /// behind the first packets of a new one. What waits goes along.
    pub(super) fn let_session_go(&mut self, slot: u32) {
        let Some(id) = self.conns.get_mut(slot).and_then(|conn| conn.session.take()) else { return };
        self.unbind(Some(id), slot);
        let Some(session) = self.sad.session_mut(id) else { return };
        if session.conn.is_some() || session.follow.is_some() {
            return;
        }
        let heard = session.bound.iter().filter_map(|&slot| {
            let conn = self.conns.get_mut(slot).filter(|conn| conn.can_send())?;
            Some((conn.last_received, slot))
        });
        if let Some((_, other)) = heard.max() {
            self.bind(id, other);
            self.move_waiting(Some(slot), other);
            self.note_moved(id);
        }
    }

    /// The session is over: its connections may carry another one, for a while.
    pub(super) fn close_session(&mut self, id: SessionId) {
        self.forget_early(id);
        for slot in self.sad.close_session(id, self.now) {
            if is_flow(slot) {
                self.leave_flow(slot);
            } else if let Some(conn) = self.conns.get_mut(slot).filter(|conn| conn.session == Some(id)) {
                conn.session = None;
                self.set_deadline(slot, self.now + self.limits.linger, CloseCause::SessionOver);
            }
        }
        self.counters.sas.set(self.sad.len() as u64);
    }

    /// Closes a connection; sessions on it stay.
    pub(super) fn close(&mut self, slot: u32, cause: CloseCause) {
        // What came before its end still counts.
        self.finish_opening();
        // A peer that is gone, or reads nothing, hears no goodbye.
        if !matches!(cause, CloseCause::Peer | CloseCause::Backlog) && self.part(slot, cause) {
            return;
        }
        let Some(id) = self.conns.id(slot) else { return };
        let Some(conn) = self.conns.get_mut(slot) else { return };
        match &conn.state {
            State::Closing => return,
            // Its descriptor is on the way: it ends there.
            State::Moving(moving) if moving.taking => return,
            State::Open | State::Draining(_) | State::Moving(_) => {}
        }
        conn.state = State::Closing;
        conn.stopping = true;
        self.let_session_go(slot);
        let Some(conn) = self.conns.get_mut(slot) else { return };
        let queue = mem::take(&mut conn.queue);
        let mut front = conn.front.take();
        conn.carry = Vec::new();
        self.unfinished -= mem::take(&mut conn.unfinished);
        self.forget_handshake(front.as_mut());
        for block in queue.blocks {
            self.counters.dropped_many(DropReason::NoConnection, u64::from(block.frames()));
            self.blocks.give_back(block);
        }
        self.counters.dropped_many(DropReason::IkeNoConnection, queue.ike.len() as u64);
        self.discard_waiting(queue.waiting);
        self.counters.closed(cause);
        self.ring.stop(slot);
        self.report(ToControl::Closed { conn: id });
        self.finish_close(slot);
    }

    /// Closes once what is queued has been sent.
    pub(super) fn close_when_sent(&mut self, slot: u32, cause: CloseCause) {
        self.finish_opening();
        if !self.conns.get_mut(slot).is_some_and(|conn| conn.is_open()) {
            return;
        }
        self.let_session_go(slot);
        let waiting = self.conns.get_mut(slot).and_then(|conn| conn.queue.waiting.take());
        self.discard_waiting(waiting);
        let Some(conn) = self.conns.get_mut(slot) else { return };
        if conn.all_sent() && !conn.sending {
            return self.close(slot, cause);
        }
        conn.state = State::Draining(cause);
        // Nobody waits for ever for a peer that reads nothing.
        let due = self.now + self.limits.linger;
        if conn.deadline.is_none_or(|(at, _)| at > due) {
            self.set_deadline(slot, due, cause);
        }
    }

    /// Nothing runs on a closing connection any more, but for completions on their way.
    pub(super) fn on_stopped(&mut self, slot: u32) {
        if let Some(conn) = self.conns.get_mut(slot) {
            conn.stopping = false;
            self.finish_close(slot);
        }
    }

    /// Frees a closed connection when its last operation has ended.
    pub(super) fn finish_close(&mut self, slot: u32) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        if conn.receive_armed || conn.sending || conn.stopping {
            return;
        }
        let source = conn.path.remote.ip();
        self.ring.close(slot);
        self.conns.free(slot, source);
        self.counters.connections.set(self.conns.len() as u64);
    }

    /// Starts handing a connection over: it stops parsing, ends its operations and then travels.
    pub(super) fn begin_move(&mut self, slot: u32, to: WorkerId, session: Option<SessionId>) {
        let Some(conn) = self.conns.get_mut(slot).filter(|conn| conn.is_open()) else { return };
        conn.state = State::Moving(Box::new(Move {
            to,
            session,
            stays: None,
            unread: Vec::new(),
            taking: false,
            abandoned: false,
        }));
        debug_assert!(conn.session.is_none(), "a bound connection is with its owner");
        self.ring.cancel_receive(slot);
    }

    /// Lets the frame that caused a move travel with the connection, ahead of what follows it.
    pub(super) fn requeue(&mut self, slot: u32, body: &[u8]) {
        if let Some(conn) = self.conns.get_mut(slot)
            && let State::Moving(moving) = &mut conn.state
        {
            let length = u16::try_from(body.len() + codec::stream::LENGTH_LEN).unwrap_or(u16::MAX);
            moving.unread.extend_from_slice(&length.to_be_bytes());
            moving.unread.extend_from_slice(body);
        }
    }

    /// Asks for the descriptor once no operation uses it. A move by an SPI also waits for what the control
    /// thread makes of earlier messages: its answers travel along, and it may know better where to.
    pub(super) fn continue_move(&mut self, slot: u32) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        let State::Moving(moving) = &mut conn.state else { return };
        if let Some(session) = moving.stays.filter(|_| !moving.abandoned) {
            if !conn.receive_armed {
                self.stay(slot, session);
            }
            return;
        }
        let undecided = moving.session.is_none() && !moving.abandoned && conn.ike_waiting > 0;
        if conn.receive_armed || conn.sending || undecided || mem::replace(&mut moving.taking, true) {
            return;
        }
        if let Some(socket) = self.ring.take_socket(slot) {
            self.on_socket_taken(slot, Ok(socket));
        }
    }

    /// A connection that was about to leave is this worker's after all.
    fn stay(&mut self, slot: u32, session: SessionId) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        let State::Moving(moving) = mem::replace(&mut conn.state, State::Open) else { return };
        // Its receive was cancelled; if that was its end, the next one will say so.
        conn.ended = false;
        self.bind(session, slot);
        self.parse_unread(slot, &moving.unread);
        self.after_receive(slot);
        self.mark_dirty(slot);
    }

    /// Turns a move that has begun into a close; false when none has.
    pub(super) fn abandon_move(&mut self, slot: u32) -> bool {
        let Some(conn) = self.conns.get_mut(slot) else { return false };
        let State::Moving(moving) = &mut conn.state else { return false };
        moving.abandoned = true;
        self.continue_move(slot);
        true
    }

    /// The descriptor is at hand: the connection leaves.
    pub(super) fn on_socket_taken(&mut self, slot: u32, socket: std::io::Result<OwnedFd>) {
        let (Some(old), Some(conn)) = (self.conns.id(slot), self.conns.get_mut(slot)) else { return };
        let source = conn.path.remote.ip();
        self.ring.close(slot);
        let Some(conn) = self.conns.free(slot, source) else { return };
        self.unfinished -= conn.unfinished;
        self.counters.connections.set(self.conns.len() as u64);
        debug_assert!(conn.session.is_none(), "a session stays where its slot is");
        let Conn { path, state, mut front, deframer, carry, queue, .. } = *conn;
        self.forget_handshake(front.as_mut());
        let mut unsent = Vec::new();
        for message in &queue.ike {
            // Its length was checked when it was queued.
            let _ = codec::stream::frame_ike(message, &mut unsent);
        }
        for block in queue.blocks {
            unsent.extend_from_slice(block.bytes());
            self.blocks.give_back(block);
        }
        self.discard_waiting(queue.waiting);
        let (State::Moving(moving), Ok(socket)) = (state, socket) else {
            self.counters.closed(CloseCause::Peer);
            self.report(ToControl::Closed { conn: old });
            return;
        };
        let Move { to, session, unread, abandoned, .. } = *moving;
        if abandoned {
            self.counters.closed(CloseCause::Control);
            self.report(ToControl::Closed { conn: old });
            return;
        }
        let adopted = Adopted { socket, old, path, front, deframer, carry, unread, unsent, session };
        if self.pass_to(to, ToWorker::Adopt(Box::new(adopted))) {
            self.counters.handed_over.add(1);
            self.counters.closed(CloseCause::Moved);
        } else {
            self.counters.closed(CloseCause::Limit);
            self.report(ToControl::Closed { conn: old });
        }
    }

    /// A connection arrives from another worker.
    pub(super) fn on_adopt(&mut self, adopted: Adopted) {
        let Adopted { socket, old, path, front, deframer, carry, unread, unsent, session } = adopted;
        let Some(slot) = self.open(path, socket) else {
            self.report(ToControl::Closed { conn: old });
            return;
        };
        if let Some(conn) = self.conns.get_mut(slot) {
            conn.queue.records_room = if front.is_some() { SEALED_ROOM } else { 0 };
            conn.front = front.map(Guard::arrived);
            conn.deframer = deframer;
            conn.carry = carry;
            conn.moved = true;
            // What is fixed has travelled with the socket.
            if self.queueing.flow_queue && !conn.queue.pace.is_fixed() {
                self.ring.limit_unsent(slot, conn.queue.pace.in_socket());
            }
        }
        if let Some(new) = self.conns.id(slot) {
            self.report(ToControl::Moved { old, new });
        }
        // A session may end while its connection travels.
        match session.filter(|id| self.sad.session_mut(*id).is_some()) {
            Some(session) => self.bind(session, slot),
            None => {
                let due = self.now + self.limits.first_message_timeout;
                self.set_deadline(slot, due, CloseCause::FirstMessageTimeout);
            }
        }
        self.queue_raw(slot, unsent);
        self.parse_unread(slot, &unread);
    }

    /// Queues octets that are frames already.
    fn queue_raw(&mut self, slot: u32, octets: Vec<u8>) {
        let Some(conn) = self.conns.get_mut(slot).filter(|_| !octets.is_empty()) else { return };
        conn.queue.octets += octets.len();
        conn.queue.blocks.push_back(Block::holding(octets, 1));
        self.mark_dirty(slot);
    }

    /// The slot of a connection of ours.
    pub(super) fn slot_of(&mut self, id: ConnId) -> Option<u32> {
        self.conns.find(id).map(|_| id.slot)
    }
}
