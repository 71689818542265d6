//! What waits on a connection, and how it gets into the socket: sealing, sends, and whose turn it is.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use bytes::Bytes;
use codec::esp::{EspSpi, OutboundSa, SealError};
use codec::stream;

use super::Worker;
use super::conn::{SendQueue, State};
use super::counters::{CloseCause, DropReason};
use super::flow_queue::Delay;
use super::inbox::ToControl;
use super::path_queue::PathQueue;
use super::sad::{Child, Sad};
use super::sealing::Sealing;
use super::udp::flows::is_flow;
use crate::io::block::{Block, BlockPool};
use crate::io::ring::SentBlock;
use crate::types::{ConnId, SessionId};

/// Packets of an SA after which the control thread is told that its sequence numbers run out (RFC 4303
/// §2.2.1: replaced before they do).
const SEQUENCE_HIGH_32: u64 = u32::MAX as u64 - (1 << 24);
const SEQUENCE_HIGH_ESN: u64 = u64::MAX - (1 << 32);

/// Octets and messages of IKE a peer may leave unread before its connection is closed.
const IKE_BACKLOG_OCTETS: usize = 64 * 1024;
const IKE_BACKLOG_MESSAGES: usize = 8;

/// Most octets that a frame has beyond its inner packet, with any suite.
const FRAME_OVERHEAD_MAX: usize = 96;

/// Octets of queued packets that are sealed before the loop turns to what has arrived meanwhile.
const ROUND_OCTETS: usize = 1 << 20;

/// How long a call goes on after a packet of it. Meanwhile the blocks of a slow connection stay apart: the bound of unsent
/// octets then holds, at the price of a short segment at the end of each block.
const IN_CALL: Duration = Duration::from_secs(1);

/// Why a UE's turn ended.
enum Served {
    /// Its connection takes no more for now, or nothing waits.
    Done(usize),
    /// All send blocks are lent.
    NoBlock,
}

impl SendQueue {
    /// Whether the next block is to be apart from those behind it.
    fn stays_apart(&self, now: Instant) -> bool {
        self.in_call(now) && self.pace.is_slow()
    }

    /// Whether there is a call.
    fn in_call(&self, now: Instant) -> bool {
        self.called.is_some_and(|at| now.saturating_duration_since(at) < IN_CALL)
    }

    /// Whether a frame of `frame_len` octets may be sealed now, where a connection may hold `ahead_max` octets.
    pub(super) fn has_room(&self, frame_len: usize, ahead_max: usize) -> bool {
        if self.pace.sealed_frames() == 1 {
            // Packets of a call that had to wait together leave in one segment: congestion control counts those.
            return self.in_flight == 0 && self.octets <= frame_len / 4;
        }
        let sealed = self.in_flight + self.octets + frame_len;
        sealed <= self.pace.sealed_max().min(ahead_max).max(self.pace.sealed_frames() * frame_len)
    }

    /// Makes room in a block for a frame of `frame_len` octets, one of about `expected` that follow at once.
    pub(super) fn reserve(&mut self, blocks: &mut BlockPool, frame_len: usize, expected: usize) -> bool {
        let expected = expected.max(self.usual).min(self.pace.sealed_max()).min(blocks.ahead_max());
        let frame_len = frame_len + self.records_room;
        if let Some(block) = self.blocks.back_mut()
            && (block.room().len() >= frame_len || blocks.grow(block, frame_len, expected))
        {
            return true;
        }
        let Some(block) = blocks.take(frame_len, expected) else { return false };
        self.blocks.push_back(block);
        true
    }

    /// Gives a block back that was reserved for nothing.
    pub(super) fn trim(&mut self, blocks: &mut BlockPool) {
        if self.blocks.back().is_some_and(|block| block.frames() == 0)
            && let Some(block) = self.blocks.pop_back()
        {
            blocks.give_back(block);
        }
    }

    /// Seals a packet behind what is queued, or lays it out to be sealed with others before the turn ends; its
    /// room has been reserved.
    pub(super) fn seal(
        &mut self,
        outbound: &mut OutboundSa,
        packet: &[u8],
        slot: u32,
        sealing: &mut Sealing,
    ) -> Result<(), DropReason> {
        let sealed = if outbound.suite().cipher.is_aead() {
            let block = self.blocks.back_mut().ok_or(DropReason::SendMemory)?;
            outbound.seal_frame(packet, block.room()).inspect(|&len| block.commit(len))
        } else {
            sealing.lay_out(outbound, packet, slot, &mut self.blocks)
        };
        self.octets += sealed.map_err(|error| match error {
            SealError::SequenceExhausted => DropReason::SequenceExhausted,
            SealError::NotIp => DropReason::BadInnerPacket,
            SealError::TooLong | SealError::OutputTooSmall => DropReason::TooBig,
        })?;
        Ok(())
    }
}

/// Whether the SA's sequence numbers run out and nobody has been told.
pub(super) fn sequence_runs_out(child: &mut Child) -> bool {
    let limit = if child.outbound.suite().esn { SEQUENCE_HIGH_ESN } else { SEQUENCE_HIGH_32 };
    let high = child.outbound.sequence() >= limit && !child.sequence_reported;
    child.sequence_reported |= high;
    high
}

impl Worker {
    /// Puts the connection, or the flow, on the list of those to flush at the end of the turn.
    pub(super) fn mark_dirty(&mut self, slot: u32) {
        if let Some(conn) = self.conns.get_mut(slot)
            && !conn.dirty
        {
            conn.dirty = true;
            match is_flow(slot) {
                true => self.mark_flow(slot),
                false => self.dirty.push(slot),
            }
        }
    }

    /// Queues an IKE message; a peer that leaves too many unread loses the connection, not the SA.
    pub(super) fn queue_ike(&mut self, id: ConnId, message: Bytes) {
        let Some(conn) = self.conns.find(id).filter(|conn| conn.can_send_ike()) else {
            return self.counters.dropped(DropReason::IkeNoConnection);
        };
        let octets = conn.queue.ike_octets + message.len();
        if conn.queue.ike.len() >= IKE_BACKLOG_MESSAGES || octets > IKE_BACKLOG_OCTETS.max(message.len()) {
            self.counters.dropped(DropReason::IkeBacklog);
            return self.close(id.slot, CloseCause::Backlog);
        }
        conn.queue.ike_octets = octets;
        conn.queue.ike.push_back(message);
        self.counters.ike_sent.add(1);
        self.mark_dirty(id.slot);
    }

    /// Seals what waits as far as connections take it, then starts a send on every connection that has
    /// something queued and none in flight.
    pub(super) fn flush(&mut self) {
        self.serve_round();
        // Nothing leaves in the clear.
        self.sealing.run(&mut self.conns);
        while let Some(slot) = self.dirty.pop() {
            let Some(conn) = self.conns.get_mut(slot) else { continue };
            conn.dirty = false;
            if conn.sending || matches!(conn.state, State::Closing | State::Moving(_)) {
                continue;
            }
            let next = match conn.front {
                None => {
                    let ike_only = conn.is_ike_only();
                    Ok(plain_block(&mut conn.queue, ike_only))
                }
                Some(_) => conn.next_records(&mut self.blocks),
            };
            let Ok(block) = next else {
                self.close(slot, CloseCause::Tls);
                continue;
            };
            let Some(block) = block else { continue };
            conn.queue.in_flight = block.bytes().len();
            conn.queue.pace.begin(self.now);
            conn.sending = true;
            let apart = conn.queue.stays_apart(self.now);
            self.ring.send(slot, block, apart);
        }
        self.flush_udp();
    }

    /// Gives UEs with waiting packets their turns, until all are served or the loop must go on.
    fn serve_round(&mut self) {
        self.round_blocked = false;
        let mut octets = 0;
        while octets < ROUND_OCTETS
            && let Some(slot) = self.flow_queues.next_turn()
        {
            if self.sealing.is_full() {
                self.sealing.run(&mut self.conns);
            }
            match self.serve(slot) {
                Served::Done(sealed) => octets += sealed,
                Served::NoBlock => {
                    // Blocks come back with sends that end, which wakes the loop.
                    self.round_blocked = true;
                    return;
                }
            }
        }
    }

    /// Whether packets wait that could be sealed at once.
    pub(super) fn has_turns(&self) -> bool {
        self.flow_queues.has_active() && !self.round_blocked
    }

    /// One UE's turn.
    fn serve(&mut self, slot: u32) -> Served {
        let mut sealed = 0;
        let mut high = None;
        let served = loop {
            let Some(conn) = self.conns.get_mut(slot) else { break Served::Done(sealed) };
            let Some(ue) = conn.queue.waiting else { break Served::Done(sealed) };
            let frame_max = self.flow_queues.mtu(ue) + FRAME_OVERHEAD_MAX;
            if !conn.queue.has_room(frame_max, self.blocks.ahead_max()) {
                // Its turn comes again when the send in flight has ended.
                break Served::Done(sealed);
            }
            let expected = conn.queue.pace.sealed_max();
            let over = self.flow_queues.turn_is_over(ue) || self.sealing.is_full();
            let reserved = over || conn.queue.reserve(&mut self.blocks, frame_max, expected);
            if over || !reserved {
                self.flow_queues.activate(ue);
                break if over { Served::Done(sealed) } else { Served::NoBlock };
            }
            let delay = conn.queue.path.as_ref().map_or_else(Delay::default, |path| path.delay());
            let Some(segment) =
                self.flow_queues.pop(&mut conn.queue.waiting, delay, self.now, &self.counters)
            else {
                break Served::Done(sealed);
            };
            let packet = self.flow_queues.bytes(&segment);
            let len = packet.len();
            let mut seal = |sad: &mut Sad, spi| {
                let child = sad.child_mut(spi)?;
                let sealed = conn.queue.seal(&mut child.outbound, packet, slot, &mut self.sealing);
                high = high.or(sequence_runs_out(child).then_some((child.session, spi)));
                Some(sealed)
            };
            let result = seal(&mut self.sad, segment.spi_in)
                .or_else(|| {
                    let spi = self.sad.successor(segment.spi_in, packet)?;
                    seal(&mut self.sad, spi)
                })
                .unwrap_or(Err(DropReason::NoSession));
            self.flow_queues.release(segment);
            match result {
                Ok(()) => {
                    sealed += len;
                    self.counters.downlink_packets.add(1);
                    self.counters.downlink_bytes.add(len as u64);
                }
                Err(reason) => self.counters.dropped(reason),
            }
        };
        if let Some(conn) = self.conns.get_mut(slot) {
            conn.queue.trim(&mut self.blocks);
        }
        self.mark_dirty(slot);
        self.report_sequence(high);
        served
    }

    pub(super) fn report_sequence(&mut self, high: Option<(SessionId, EspSpi)>) {
        if let Some((session, spi_in)) = high {
            self.report(ToControl::SequenceHigh { session, spi_in });
        }
    }

    /// A connection that has or had a call sent a block.
    fn watch_path(&mut self, slot: u32, more: bool) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        let queue = &mut conn.queue;
        if !queue.in_call(self.now) {
            (queue.called, queue.path) = (None, None);
            return;
        }
        if let Some(path) = &mut queue.path {
            return path.sent(more, self.now);
        }
        // A connection that is never busy leaves no queue behind.
        if more
            && let Some(allowed) = self.queueing.path_queue
            && let Some(watched) = self.watched.one_more()
        {
            let path = queue.path.insert(Box::new(PathQueue::new(allowed, watched, self.now)));
            if let Some(socket) = self.ring.watch(slot) {
                path.opened(socket);
            }
        }
    }

    /// The second descriptor of a connection's socket is there.
    pub(super) fn on_watched(&mut self, slot: u32, socket: OwnedFd) {
        if let Some(path) = self.conns.get_mut(slot).and_then(|conn| conn.queue.path.as_mut()) {
            path.opened(socket);
        }
    }

    /// A block was sent, or its connection broke.
    pub(super) fn on_sent(&mut self, slot: u32, sent: SentBlock, ok: bool, block: Option<Block>) {
        let SentBlock { octets, frames } = sent;
        if !ok {
            self.counters.dropped_many(DropReason::NoConnection, u64::from(frames));
        }
        if let Some(block) = block {
            self.blocks.give_back(block);
        }
        let Some(conn) = self.conns.get_mut(slot) else { return };
        conn.sending = false;
        conn.queue.in_flight = 0;
        conn.queue.usual = octets;
        let more = !conn.queue.is_empty();
        if let Some(ue) = conn.queue.waiting {
            self.flow_queues.activate(ue);
        }
        if conn.queue.called.is_some() {
            self.watch_path(slot, more);
        }
        let Some(conn) = self.conns.get_mut(slot) else { return };
        let call = conn.queue.in_call(self.now);
        if ok && conn.queue.pace.sent(octets, more, call, self.now) && self.queueing.flow_queue {
            self.ring.limit_unsent(slot, conn.queue.pace.in_socket());
        }
        if !ok && conn.is_open() {
            self.close(slot, CloseCause::Peer);
        }
        let Some(conn) = self.conns.get_mut(slot) else { return };
        match conn.state {
            State::Open if conn.all_sent() => {}
            State::Open => self.mark_dirty(slot),
            State::Draining(cause) if conn.all_sent() => self.close(slot, cause),
            State::Draining(_) => self.mark_dirty(slot),
            State::Moving(_) => self.continue_move(slot),
            State::Closing => self.finish_close(slot),
        }
    }
}

/// What a connection sends next: all its IKE messages, else its oldest block.
pub(super) fn plain_block(queue: &mut SendQueue, ike_only: bool) -> Option<Block> {
    if queue.ike.is_empty() {
        let block = queue.blocks.pop_front()?;
        queue.octets -= block.bytes().len();
        return Some(block);
    }
    let (mut octets, mut frames) = (Vec::with_capacity(queue.ike_octets), 0);
    for message in queue.ike.drain(..) {
        if ike_only {
            octets.extend_from_slice(&message);
            frames += 1;
            continue;
        }
        // A message too long for a frame was never accepted by the responder's own bound.
        frames += u32::from(stream::frame_ike(&message, &mut octets).is_ok());
    }
    queue.ike_octets = 0;
    Some(Block::holding(octets, frames))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::worker::pace::Pace;

    #[test]
    fn blocks_are_apart_on_a_slow_connection_while_there_is_a_call() {
        let now = Instant::now();
        let mut slow = SendQueue { pace: Pace::fixed(NonZeroU32::new(4096)), ..SendQueue::default() };
        assert!(!slow.stays_apart(now));
        slow.called = Some(now);
        assert!(slow.stays_apart(now + IN_CALL / 2));
        assert!(!slow.stays_apart(now + IN_CALL));
        // Where the bound is as large as what the kernel gathers, there is nothing to keep apart.
        slow.pace = Pace::default();
        assert!(!slow.stays_apart(now));
    }

    #[test]
    fn what_waited_together_of_a_call_leaves_in_one_segment() {
        let (mut queue, mut now) = (SendQueue::default(), Instant::now());
        for _ in 0..20 {
            queue.pace.begin(now);
            now += Duration::from_millis(20);
            queue.pace.sent(2_000, true, true, now);
        }
        let frame_max = 1_500;
        assert!(queue.has_room(frame_max, usize::MAX));
        queue.octets = 150;
        assert!(queue.has_room(frame_max, usize::MAX));
        // Behind a full frame nothing is sealed, nor while one is on its way into the socket.
        queue.octets = 1_440;
        assert!(!queue.has_room(frame_max, usize::MAX));
        (queue.octets, queue.in_flight) = (0, 150);
        assert!(!queue.has_room(frame_max, usize::MAX));
    }
}
