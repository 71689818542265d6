//! Core to UE: packets of the inner device to sealed frames, frames to sends.

use ahash::AHashMap;
use bytes::Bytes;
use codec::esp::{EspSpi, SealError};
use codec::ip::{self, InnerHeader, VirtioHeader};
use codec::stream;
use std::mem;
use std::net::IpAddr;

use super::conn::{ConnTable, State};
use super::counters::{CloseCause, DropReason};
use super::inbox::{ToControl, ToWorker};
use super::sad::Sad;
use super::{DEVICE_READS, InnerConfig, Worker, WorkerLimits};
use crate::io::block::{Block, BlockPool};
use crate::types::{ConnId, SessionId, WorkerId};

/// Packets of an SA after which the control thread is told that its sequence numbers run out (RFC 4303
/// §2.2.1: replaced before they do).
const SEQUENCE_HIGH_32: u64 = u32::MAX as u64 - (1 << 24);
const SEQUENCE_HIGH_ESN: u64 = u64::MAX - (1 << 32);

/// Octets and messages of IKE a peer may leave unread before its connection is closed.
const IKE_BACKLOG_OCTETS: usize = 64 * 1024;
const IKE_BACKLOG_MESSAGES: usize = 8;

/// Room for an ICMP Packet Too Big: headers and the first octets of the packet it answers.
const PACKET_TOO_BIG_LEN: usize = 1280;

/// What a downlink packet needs besides itself.
struct Way<'a> {
    id: WorkerId,
    sad: &'a mut Sad,
    conns: &'a mut ConnTable,
    blocks: &'a mut BlockPool,
    routes: &'a AHashMap<IpAddr, WorkerId>,
    inner: &'a InnerConfig,
    limits: &'a WorkerLimits,
    now_s: u64,
}

/// A frame stands in a connection's queue.
struct Queued {
    slot: u32,
    /// Set when the SA's sequence numbers run out.
    sequence_high: Option<(SessionId, EspSpi)>,
}

enum Refused {
    Drop(DropReason),
    /// Another worker serves the address.
    Elsewhere(WorkerId),
    /// Larger than the inner MTU: its sender is to be told.
    TooBig,
}

impl Worker {
    /// Reads what the inner device has, as far as the turn goes.
    pub(super) fn read_device(&mut self) {
        if !self.device_ready {
            return;
        }
        let mut packet = mem::take(&mut self.packet);
        for _ in 0..DEVICE_READS {
            match self.outlet.device().read(&mut packet) {
                Ok(Some(len)) => self.on_device_packet(&mut packet[..len]),
                Ok(None) => {
                    self.device_ready = false;
                    break;
                }
                Err(_) => {
                    // It reports itself again once it is back; housekeeping looks as well.
                    self.counters.dropped(DropReason::DeviceRead);
                    self.device_ready = false;
                    break;
                }
            }
        }
        self.packet = packet;
    }

    /// A packet from the inner device.
    fn on_device_packet(&mut self, packet: &mut [u8]) {
        let Some((_, inner)) = VirtioHeader::split(packet) else { return };
        let len = inner.len();
        match self.way().take(inner) {
            Err(Refused::Elsewhere(worker)) => {
                let copy = inner.to_vec().into_boxed_slice();
                self.pass_to(worker, ToWorker::Downlink(copy));
            }
            Err(Refused::TooBig) => {
                self.counters.dropped(DropReason::TooBig);
                if let Some(answer) = packet_too_big(inner, self.inner.mtu) {
                    self.outlet.write_own(&self.counters, &answer);
                }
            }
            outcome => self.after_downlink(outcome, len),
        }
    }

    /// A packet another worker's queue of the device yielded.
    pub(super) fn on_passed_downlink(&mut self, mut packet: Box<[u8]>) {
        let len = packet.len();
        let outcome = self.way().take(&mut packet);
        self.after_downlink(outcome, len);
    }

    fn way(&mut self) -> Way<'_> {
        Way {
            id: self.id,
            sad: &mut self.sad,
            conns: &mut self.conns,
            blocks: &mut self.blocks,
            routes: &self.routes,
            inner: &self.inner,
            limits: &self.limits,
            now_s: self.now_s,
        }
    }

    fn after_downlink(&mut self, outcome: Result<Queued, Refused>, len: usize) {
        match outcome {
            Ok(queued) => {
                self.counters.downlink_packets.add(1);
                self.counters.downlink_bytes.add(len as u64);
                self.mark_dirty(queued.slot);
                if let Some((session, spi_in)) = queued.sequence_high {
                    self.report(ToControl::SequenceHigh { session, spi_in });
                }
            }
            Err(Refused::Drop(reason)) => self.counters.dropped(reason),
            // A packet passed on once is not passed on again: the owner changed meanwhile.
            Err(Refused::Elsewhere(_)) => self.counters.dropped(DropReason::NoSession),
            Err(Refused::TooBig) => self.counters.dropped(DropReason::TooBig),
        }
    }

    /// Puts the connection on the list of those to flush at the end of the turn.
    pub(super) fn mark_dirty(&mut self, slot: u32) {
        if let Some(conn) = self.conns.get_mut(slot)
            && !conn.dirty
        {
            conn.dirty = true;
            self.dirty.push(slot);
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

    /// Starts a send on every connection that has something queued and none in flight.
    pub(super) fn flush(&mut self) {
        while let Some(slot) = self.dirty.pop() {
            let Some(conn) = self.conns.get_mut(slot) else { continue };
            conn.dirty = false;
            if conn.sending || matches!(conn.state, State::Closing | State::Moving(_)) {
                continue;
            }
            let queue = &mut conn.queue;
            let block = if queue.ike.is_empty() {
                let Some(block) = queue.blocks.pop_front() else { continue };
                queue.octets -= block.bytes().len();
                block
            } else {
                let (mut octets, mut frames) = (Vec::with_capacity(queue.ike_octets), 0);
                for message in queue.ike.drain(..) {
                    // A message too long for a frame was never accepted by the responder's own bound.
                    frames += u32::from(stream::frame_ike(&message, &mut octets).is_ok());
                }
                queue.ike_octets = 0;
                Block::holding(octets, frames)
            };
            conn.sending = true;
            self.ring.send(slot, block);
        }
    }

    /// A block was sent, or its connection broke.
    pub(super) fn on_sent(&mut self, slot: u32, block: Block, ok: bool) {
        if !ok {
            self.counters.dropped_many(DropReason::NoConnection, u64::from(block.frames()));
        }
        self.blocks.give_back(block);
        let Some(conn) = self.conns.get_mut(slot) else { return };
        conn.sending = false;
        if !ok && conn.is_open() {
            self.close(slot, CloseCause::Peer);
        }
        let Some(conn) = self.conns.get_mut(slot) else { return };
        match conn.state {
            State::Open if conn.queue.is_empty() => {}
            State::Open => self.mark_dirty(slot),
            State::Draining(cause) if conn.queue.is_empty() => self.close(slot, cause),
            State::Draining(_) => self.mark_dirty(slot),
            State::Moving(_) => self.continue_move(slot),
            State::Closing => self.finish_close(slot),
        }
    }
}

impl Way<'_> {
    /// Finds the UE, seals the packet into its connection's queue.
    fn take(&mut self, packet: &mut [u8]) -> Result<Queued, Refused> {
        let inner = InnerHeader::parse(packet).map_err(|_| Refused::Drop(DropReason::BadInnerPacket))?;
        let Some(id) = self.sad.session_of(inner.dst) else {
            return Err(match self.routes.get(&inner.dst) {
                Some(&worker) if worker != self.id => Refused::Elsewhere(worker),
                _ => Refused::Drop(DropReason::NoSession),
            });
        };
        if packet.len() > usize::from(self.inner.mtu) {
            return Err(Refused::TooBig);
        }
        let found = self.sad.downlink(id, &inner).ok_or(Refused::Drop(DropReason::DownlinkSelector))?;
        let (spi_in, session) = found;
        session.active_s = self.now_s;
        let no_connection = Refused::Drop(DropReason::NoConnection);
        let slot = session.conn.ok_or(no_connection)?;
        let conn = self.conns.get_mut(slot).filter(|conn| conn.can_send());
        let conn = conn.ok_or(Refused::Drop(DropReason::NoConnection))?;
        let child = self.sad.child_mut(spi_in).ok_or(Refused::Drop(DropReason::NoSession))?;
        let outbound = &mut child.outbound;
        let frame_len = outbound.frame_len(packet.len());
        if conn.queue.octets + frame_len > self.limits.send_queue_octets {
            return Err(Refused::Drop(DropReason::SendQueueFull));
        }
        let fits = conn.queue.blocks.back_mut().is_some_and(|block| block.room().len() >= frame_len);
        if !fits {
            let block = self.blocks.take().ok_or(Refused::Drop(DropReason::SendMemory))?;
            conn.queue.blocks.push_back(block);
        }
        ip::clamp_mss(packet, self.inner.mtu);
        let block = conn.queue.blocks.back_mut().ok_or(Refused::Drop(DropReason::SendMemory))?;
        let len = outbound.seal_frame(packet, block.room()).map_err(|error| match error {
            SealError::SequenceExhausted => Refused::Drop(DropReason::SequenceExhausted),
            SealError::NotIp => Refused::Drop(DropReason::BadInnerPacket),
            SealError::TooLong | SealError::OutputTooSmall => Refused::Drop(DropReason::TooBig),
        })?;
        block.commit(len);
        conn.queue.octets += len;
        let limit = if outbound.suite().esn { SEQUENCE_HIGH_ESN } else { SEQUENCE_HIGH_32 };
        let high = outbound.sequence() >= limit && !child.sequence_reported;
        child.sequence_reported |= high;
        Ok(Queued { slot, sequence_high: high.then_some((id, spi_in)) })
    }
}

/// The ICMP answer to a packet larger than the inner MTU, behind its virtio-net header. Its source is the
/// address the packet was for, which is inside the tunnel by definition.
fn packet_too_big(packet: &[u8], mtu: u16) -> Option<Vec<u8>> {
    let inner = InnerHeader::parse(packet).ok()?;
    let mut answer = vec![0; VirtioHeader::LEN + PACKET_TOO_BIG_LEN];
    let (header, room) = answer.split_at_mut(VirtioHeader::LEN);
    header.copy_from_slice(&VirtioHeader::PLAIN);
    let len = ip::packet_too_big(packet, mtu, inner.dst, room)?;
    answer.truncate(VirtioHeader::LEN + len);
    Some(answer)
}
