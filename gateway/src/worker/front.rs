//! TLS connections: their octets become those of a stream, and what is queued becomes records.
//!
//! A plain connection has no front and pays one branch for that. Handshakes cost the worker a signature each, so a
//! turn of its loop does a few of them and leaves the others, octets and all, for the next: a flood of
//! ClientHellos delays the packets of established sessions by no more.

use std::collections::VecDeque;
use std::mem;

use super::Worker;
use super::conn::{Conn, ConnTable, State};
use super::counters::{CloseCause, DropReason};
use super::send::plain_block;
use crate::io::block::{Block, BlockPool};
use crate::io::recv_pool::Incoming;
use crate::tls::{
    CARRY_MAX, Front, FrontError, Refusal, Said, Session, StreamKind, TlsServer, sealed_len_max,
};
use crate::types::{ConnId, Transport};

/// Connections in a handshake that go on in one turn.
const HANDSHAKES_PER_TURN: u32 = 8;

/// Handshakes that are done and still listed among those that began, beyond as many as may be under way.
const BEGUN_SPARE: usize = 64;

/// Octets of handshake, tickets and alerts that a peer may leave unread: the longest chain of certificates and more.
const OUTPUT_MAX: usize = 96 * 1024;

/// How long a peer may take to read what precedes the end of a connection.
const GOODBYE: std::time::Duration = std::time::Duration::from_secs(2);

/// A front, and what of it waits for its turn.
pub(super) struct Guard {
    pub front: Front,
    /// Octets received while it was not its turn.
    later: Vec<u8>,
    /// Counted among the handshakes.
    counted: bool,
    /// Among those that may have to make room.
    listed: bool,
    /// It has said goodbye, or there is nobody to say it to.
    parted: bool,
}

/// The handshakes of one worker.
#[derive(Default)]
pub(super) struct Handshakes {
    /// Begun and not done.
    open: u32,
    /// Those that began, the oldest first; some are done by now.
    begun: VecDeque<ConnId>,
    /// That may still go on in this turn.
    left: u32,
    /// Connections whose octets wait.
    waiting: VecDeque<ConnId>,
}

impl Handshakes {
    /// Whether some could go on at once.
    pub fn any_waits(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl Guard {
    /// The front of a new connection on an address of `kind`; none where the stream is plain.
    pub fn new(kind: StreamKind, server: Option<&TlsServer>) -> Option<Box<Self>> {
        let front = Front::new(kind, server)?;
        Some(Box::new(Self { front, later: Vec::new(), counted: false, listed: false, parted: false }))
    }

    /// Octets of memory that depend on what the peer left unfinished.
    pub fn carry_octets(&self) -> usize {
        self.front.carry_octets() + self.later.capacity()
    }

    /// It has arrived at another worker, which counts it anew.
    pub fn arrived(mut self: Box<Self>) -> Box<Self> {
        (self.counted, self.listed) = (false, false);
        self
    }
}

impl Conn {
    /// Whether nothing is left to be sent, but for what is in flight.
    pub fn all_sent(&self) -> bool {
        self.queue.is_empty() && self.front.as_ref().is_none_or(|guard| guard.front.output_octets() == 0)
    }

    /// What a TLS connection sends next: what TLS itself has to say, else what is queued, as records.
    ///
    /// # Errors
    /// When nothing can be sent any more.
    pub(super) fn next_records(&mut self, blocks: &mut BlockPool) -> Result<Option<Block>, ()> {
        let Some(session) = self.front.as_mut().and_then(|guard| guard.front.session()) else {
            return Ok(None);
        };
        let output = session.take_output();
        if !output.is_empty() {
            return Ok(Some(Block::holding(output, 0)));
        }
        let Some(mut block) = plain_block(&mut self.queue, false) else { return Ok(None) };
        let room = sealed_len_max(block.bytes().len());
        match blocks.recode(&mut block, room, |plain, room| session.seal(plain, room).ok()) {
            true => Ok(Some(block)),
            false => {
                blocks.give_back(block);
                Err(())
            }
        }
    }
}

impl Worker {
    /// Received octets of a connection with a front.
    pub(super) fn pass_front(&mut self, slot: u32, incoming: Incoming) {
        let Some(conn) = self.conns.get_mut(slot) else { return self.ring.release(incoming) };
        let Some(mut guard) = conn.front.take_if(|_| matches!(conn.state, State::Open | State::Moving(_)))
        else {
            return self.ring.release(incoming);
        };
        if guard.front.is_opening() && (self.handshakes.left == 0 || !guard.later.is_empty()) {
            let first = guard.later.is_empty();
            guard.later.extend_from_slice(self.ring.bytes(&incoming));
            conn.front = Some(guard);
            self.ring.release(incoming);
            return self.wait_for_turn(slot, first);
        }
        let octets = self.ring.bytes_mut(&incoming);
        let mut plain = Vec::with_capacity(if guard.front.is_opening() { 0 } else { octets.len() });
        let outcome = self.handshakes.step(&mut guard, octets, &mut plain);
        if matches!(outcome, Ok(Said::Plain)) {
            conn.path.transport = Transport::Tcp;
            return self.parse(slot, incoming);
        }
        conn.front = Some(guard);
        self.ring.release(incoming);
        self.after_front(slot, outcome, plain);
    }

    /// Whether frames too short for IKE and for ESP are keepalives, as on a port for FTT.
    pub(super) fn has_short_keepalives(&mut self, slot: u32) -> bool {
        let guard = self.conns.get_mut(slot).and_then(|conn| conn.front.as_ref());
        guard.is_some_and(|guard| guard.front.has_short_keepalives())
    }

    /// Keeps a connection whose octets wait in mind; `first` says that they have only begun to.
    fn wait_for_turn(&mut self, slot: u32, first: bool) {
        let octets =
            self.conns.get_mut(slot).and_then(|conn| conn.front.as_ref()).map_or(0, |g| g.later.len());
        if octets > CARRY_MAX {
            self.counters.dropped(DropReason::TlsHandshake);
            return self.close(slot, CloseCause::Tls);
        }
        if first && let Some(id) = self.conns.id(slot) {
            self.handshakes.waiting.push_back(id);
        }
        self.settle_carry(slot);
    }

    /// Begins a turn: handshakes that had to wait go first.
    pub(super) fn continue_handshakes(&mut self) {
        self.handshakes.left = HANDSHAKES_PER_TURN;
        while self.handshakes.left > 0
            && let Some(id) = self.handshakes.waiting.pop_front()
        {
            let Some(conn) = self.conns.find(id) else { continue };
            let goes_on = matches!(conn.state, State::Open | State::Moving(_));
            let Some(mut guard) = conn.front.take_if(|_| goes_on) else { continue };
            let (mut later, mut plain) = (mem::take(&mut guard.later), Vec::new());
            let outcome = self.handshakes.step(&mut guard, &mut later, &mut plain);
            if matches!(outcome, Ok(Said::Plain)) {
                conn.path.transport = Transport::Tcp;
                self.parse_unread(id.slot, &later);
                continue;
            }
            conn.front = Some(guard);
            self.after_front(id.slot, outcome, plain);
        }
    }

    /// What octets of the socket lead to.
    fn after_front(&mut self, slot: u32, outcome: Result<Said, FrontError>, plain: Vec<u8>) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        let Some(session) = conn.front.as_mut().and_then(|guard| guard.front.session()) else {
            return self.after_no_session(slot, outcome);
        };
        let (output, over) = (session.output_octets(), session.is_peer_closed());
        conn.path.transport = Transport::Tls;
        if output > 0 {
            self.mark_dirty(slot);
        }
        if outcome.is_ok() {
            self.bound_handshakes(slot);
        }
        if !plain.is_empty() {
            let place = self.outlet.hold_owned(plain);
            self.cut(slot, place);
        } else {
            self.settle_carry(slot);
        }
        if let Err(error) = outcome {
            return self.fail_front(slot, &error);
        }
        if output > OUTPUT_MAX {
            return self.close(slot, CloseCause::Backlog);
        }
        if over {
            // RFC 9329 Appendix B.2: the peer is done; its close_notify is answered, then the connection ends.
            self.finish_opening();
            self.part(slot, CloseCause::Peer);
        }
    }

    fn after_no_session(&mut self, slot: u32, outcome: Result<Said, FrontError>) {
        match outcome {
            Ok(_) => self.settle_carry(slot),
            Err(error) => self.fail_front(slot, &error),
        }
    }

    fn fail_front(&mut self, slot: u32, error: &FrontError) {
        tracing::trace!(worker = self.id.0, slot, %error, "connection refused");
        self.counters.dropped(match error.refusal() {
            Refusal::Foreign => DropReason::NotTls,
            Refusal::Handshake => DropReason::TlsHandshake,
            Refusal::Record => DropReason::TlsRecord,
        });
        self.close(slot, CloseCause::Tls);
    }

    /// Where more are in a handshake than may be, the one that began first makes room for the newest: peers that begin and
    /// fall silent keep nobody out who does not.
    fn bound_handshakes(&mut self, slot: u32) {
        let Some(id) = self.conns.id(slot) else { return };
        let guard = self.conns.get_mut(slot).and_then(|conn| conn.front.as_mut());
        if guard.is_some_and(|guard| guard.counted && !mem::replace(&mut guard.listed, true)) {
            self.handshakes.begun.push_back(id);
        }
        let counted = |conns: &mut ConnTable, id: ConnId| {
            conns.find(id).and_then(|conn| conn.front.as_ref()).is_some_and(|guard| guard.counted)
        };
        while self.handshakes.open > self.limits.tls_handshakes
            && let Some(first) = self.handshakes.begun.pop_front()
        {
            if counted(&mut self.conns, first) {
                self.counters.dropped(DropReason::TlsHandshakes);
                self.close(first.slot, CloseCause::Limit);
            }
        }
        if self.handshakes.begun.len() > 2 * self.limits.tls_handshakes as usize + BEGUN_SPARE {
            self.handshakes.begun.retain(|&id| counted(&mut self.conns, id));
        }
    }

    /// Ends a TLS connection as TLS ends it: what waits for the socket is sent, a close_notify last (RFC 9329
    /// Appendix B.2), or the alert that says why. False when there is nothing to say, or nobody who reads.
    pub(super) fn part(&mut self, slot: u32, cause: CloseCause) -> bool {
        let Some(conn) = self.conns.get_mut(slot).filter(|conn| conn.is_open()) else { return false };
        let Some(guard) = conn.front.as_mut().filter(|guard| !guard.parted) else { return false };
        guard.parted = true;
        // It takes no part in handshakes any more.
        self.handshakes.open -= u32::from(mem::take(&mut guard.counted));
        let Some(session) = guard.front.session() else { return false };
        session.close();
        if session.output_octets() == 0 {
            return false;
        }
        conn.state = State::Draining(cause);
        self.let_session_go(slot);
        let Some(conn) = self.conns.get_mut(slot) else { return false };
        let queue = mem::take(&mut conn.queue);
        conn.queue.in_flight = queue.in_flight;
        for block in queue.blocks {
            self.counters.dropped_many(DropReason::NoConnection, u64::from(block.frames()));
            self.blocks.give_back(block);
        }
        self.counters.dropped_many(DropReason::IkeNoConnection, queue.ike.len() as u64);
        self.discard_waiting(queue.waiting);
        self.set_deadline(slot, self.now + GOODBYE, cause);
        self.mark_dirty(slot);
        true
    }

    /// The connection takes no part in handshakes any more.
    pub(super) fn forget_handshake(&mut self, guard: Option<&mut Box<Guard>>) {
        if let Some(guard) = guard
            && mem::take(&mut guard.counted)
        {
            self.handshakes.open -= 1;
        }
    }
}

impl Handshakes {
    /// Lets a front take octets, and counts it while it is in its handshake.
    fn step(
        &mut self,
        guard: &mut Guard,
        octets: &mut [u8],
        plain: &mut Vec<u8>,
    ) -> Result<Said, FrontError> {
        if guard.front.is_opening() {
            self.left = self.left.saturating_sub(1);
        }
        let outcome = guard.front.receive(octets, plain);
        let counted = guard.front.session().is_some_and(|session: &mut Session| !session.is_established());
        match (mem::replace(&mut guard.counted, counted), counted) {
            (false, true) => self.open += 1,
            (true, false) => self.open -= 1,
            _ => {}
        }
        outcome
    }
}
