//! Core to UE: packets of the inner device to the connection of their UE.

use std::mem;
use std::ops::Range;

use codec::esp::EspSpi;
use codec::ip::{self, Gso, InnerHeader, SegmentError, Segmenter, VirtioHeader};

use super::counters::DropReason;
use super::flow_queue::{self, Arrival};
use super::inbox::{ToControl, ToWorker};
use super::send::sequence_runs_out;
use super::{DEVICE_OCTETS, DEVICE_READS, Passed, Worker};
use crate::io::tun;
use crate::types::{NetworkId, SessionId, WorkerId};

/// The protocol number of TCP.
const TCP: u8 = 6;

/// Octets of the header of UDP.
const UDP_HEADER_LEN: usize = 8;

/// Room for an ICMP Packet Too Big: headers and the first octets of the packet it answers.
const PACKET_TOO_BIG_LEN: usize = 1280;

/// Where a packet goes, and what it is cut into.
struct Aim {
    session: SessionId,
    spi_in: EspSpi,
    slot: u32,
    inner: InnerHeader,
    segmenter: Segmenter,
    /// Of its network.
    mtu: u16,
}

enum Refused {
    Drop(DropReason),
    /// Another worker serves the address.
    Elsewhere(WorkerId),
    /// Larger than the inner MTU: its sender is to be told.
    TooBig,
}

impl Worker {
    /// Reads what the inner devices have, as far as the turn goes.
    pub(super) fn read_devices(&mut self) {
        for index in 0..self.networks.len() {
            if self.networks[index].is_ready {
                self.networks[index].is_ready = self.read_device(NetworkId(index as u8));
            }
        }
    }

    /// Whether the device may have more.
    fn read_device(&mut self, network: NetworkId) -> bool {
        let mut packet = mem::take(&mut self.packet);
        let mut octets = 0;
        let mut more = true;
        for _ in 0..DEVICE_READS {
            match self.outlet.read(network, &mut packet) {
                Ok(Some(len)) => {
                    octets += len;
                    self.on_device_packet(network, &mut packet, len);
                }
                Ok(None) => {
                    more = false;
                    break;
                }
                Err(error) => {
                    self.counters.dropped(DropReason::DeviceRead);
                    more = false;
                    if tun::is_gone(&error)
                        && let Some(gone) = self.networks.get_mut(network.index())
                        && !mem::replace(&mut gone.is_gone, true)
                    {
                        self.report(ToControl::DeviceGone { network });
                    }
                    break;
                }
            }
            if octets >= DEVICE_OCTETS {
                break;
            }
        }
        self.packet = packet;
        more
    }

    /// A packet from an inner device: the first `len` octets of `buffer`, with its virtio-net header.
    fn on_device_packet(&mut self, network: NetworkId, buffer: &mut Box<[u8]>, len: usize) {
        let Some((virtio, packet)) = buffer.get_mut(..len).and_then(VirtioHeader::split) else {
            return self.counters.dropped(DropReason::BadOffload);
        };
        match self.aim(network, &virtio, packet) {
            Ok(aim) => self.take(aim, buffer, VirtioHeader::LEN..len),
            Err(Refused::Elsewhere(worker)) => {
                let packets = packets_in(&virtio, packet);
                let copy = self.claim(worker, len).map(|claim| claim.hold(&buffer[..len]));
                self.pass_packets(worker, packets, copy.map(|packet| ToWorker::Downlink { network, packet }));
            }
            Err(Refused::TooBig) => {
                self.counters.dropped_many(DropReason::TooBig, packets_in(&virtio, packet));
                let answer = self.mtu(network).and_then(|mtu| packet_too_big(packet, mtu));
                if let Some(answer) = answer {
                    self.outlet.write_own(&self.counters, network, &answer);
                }
            }
            Err(Refused::Drop(reason)) => self.counters.dropped_many(reason, packets_in(&virtio, packet)),
        }
    }

    /// A packet another worker's queue of the device yielded.
    pub(super) fn on_passed_downlink(&mut self, network: NetworkId, packet: Passed) {
        let mut buffer = packet.into_octets().into_boxed_slice();
        let Some((virtio, packet)) = VirtioHeader::split(&mut buffer) else {
            return self.counters.dropped(DropReason::BadOffload);
        };
        let range = VirtioHeader::LEN..VirtioHeader::LEN + packet.len();
        match self.aim(network, &virtio, packet) {
            Ok(aim) => self.take(aim, &mut buffer, range),
            Err(refused) => {
                let reason = match refused {
                    Refused::Drop(reason) => reason,
                    // A packet passed on once is not passed on again: the owner changed meanwhile.
                    Refused::Elsewhere(_) => DropReason::NoSession,
                    Refused::TooBig => DropReason::TooBig,
                };
                self.counters.dropped_many(reason, packets_in(&virtio, packet));
            }
        }
        // The next order may close the connection or move it with its blocks.
        self.sealing.run(&mut self.conns);
    }

    fn mtu(&self, network: NetworkId) -> Option<u16> {
        self.networks.get(network.index()).map(|network| network.config.mtu)
    }

    /// Finds the UE of a packet and what is to be sealed of it.
    fn aim(&mut self, network: NetworkId, virtio: &VirtioHeader, packet: &mut [u8]) -> Result<Aim, Refused> {
        let inner = InnerHeader::parse(packet).map_err(|_| Refused::Drop(DropReason::BadInnerPacket))?;
        let Some(id) = self.sad.session_of(network, inner.dst) else {
            return Err(match self.routes.get(&(network, inner.dst)) {
                Some(&worker) if worker != self.id => Refused::Elsewhere(worker),
                _ => Refused::Drop(DropReason::NoSession),
            });
        };
        let mtu = self.mtu(network).ok_or(Refused::Drop(DropReason::NoSession))?;
        let segmenter = Segmenter::new(packet, &inner, virtio, mtu).map_err(|error| match error {
            SegmentError::TooBig => Refused::TooBig,
            SegmentError::Offload => Refused::Drop(DropReason::BadOffload),
        })?;
        let found = self.sad.downlink(id, &inner).ok_or(Refused::Drop(DropReason::DownlinkSelector))?;
        let (spi_in, session) = found;
        session.active_s = self.now_s;
        let slot = session.conn.ok_or(Refused::Drop(DropReason::NoConnection))?;
        // A SYN is never part of a super-packet.
        if inner.proto == TCP && virtio.gso == Gso::None {
            match virtio.needs_csum() {
                true => ip::clamp_mss_unsummed(packet, &inner, mtu),
                false => ip::clamp_mss(packet, &inner, mtu),
            };
        }
        Ok(Aim { session: id, spi_in, slot, inner, segmenter, mtu })
    }

    /// Seals a packet straight into its connection's send block while the connection takes it; what is left
    /// of it waits.
    fn take(&mut self, mut aim: Aim, buffer: &mut Box<[u8]>, range: Range<usize>) {
        let Some(packet) = buffer.get_mut(range.clone()) else { return };
        loop {
            if let Err(reason) = self.seal_now(&mut aim, packet) {
                let left = aim.segmenter.remaining() as u64;
                return self.counters.dropped_many(reason, left);
            }
            if !self.sealing.is_full() {
                break;
            }
            self.sealing.run(&mut self.conns);
        }
        if aim.segmenter.peek_len().is_none() {
            return;
        }
        let Some(conn) = self.conns.get_mut(aim.slot) else { return };
        let arrival = Arrival {
            buffer,
            range,
            segmenter: aim.segmenter,
            spi_in: aim.spi_in,
            flow: flow_hash(&self.flow_hasher, &aim.inner),
            voice: flow_queue::is_voice(&aim.inner),
            mtu: aim.mtu,
        };
        let waiting = &mut conn.queue.waiting;
        self.flow_queues.push(waiting, aim.slot, arrival, self.now, &self.counters);
        // Without a send that would end, and with no block to start one, it has to ask for its turn.
        if !conn.sending
            && let Some(ue) = *waiting
        {
            self.flow_queues.activate(ue);
        }
    }

    /// Seals as much of a packet as its connection and the sealing batch take now: nothing while others wait
    /// for the connection.
    ///
    /// # Errors
    /// Why what is left of the packet is lost.
    fn seal_now(&mut self, aim: &mut Aim, packet: &mut [u8]) -> Result<(), DropReason> {
        let conn = self.conns.get_mut(aim.slot).filter(|conn| conn.can_send());
        let queue = &mut conn.ok_or(DropReason::NoConnection)?.queue;
        if flow_queue::is_voice(&aim.inner) {
            queue.called = Some(self.now);
        }
        if queue.waiting.is_some() {
            return Ok(());
        }
        let child = self.sad.child_mut(aim.spi_in).ok_or(DropReason::NoSession)?;
        let mut expected = child.outbound.frame_len(0) * aim.segmenter.remaining();
        expected += aim.segmenter.remaining_octets();
        let (mut packets, mut octets) = (0, 0);
        let result = loop {
            let Some(len) = aim.segmenter.peek_len() else { break Ok(()) };
            if self.sealing.is_full() {
                break Ok(());
            }
            let frame_len = child.outbound.frame_len(len);
            if !self.queueing.flow_queue {
                if queue.octets + frame_len > self.limits.send_queue_octets {
                    break Err(DropReason::SendQueueFull);
                }
                // What comes at once stays together: it is what waited before that may be too much.
                if packets == 0 && queue.octets > self.blocks.ahead_max().max(frame_len) {
                    break Err(DropReason::SendMemory);
                }
                if !queue.reserve(&mut self.blocks, frame_len, expected) {
                    break Err(DropReason::SendMemory);
                }
            } else if !queue.has_room(frame_len, self.blocks.ahead_max())
                || !queue.reserve(&mut self.blocks, frame_len, expected)
            {
                break Ok(());
            }
            let Some(range) = aim.segmenter.next(packet, false) else { break Ok(()) };
            if let Err(reason) = queue.seal(&mut child.outbound, &packet[range], aim.slot, &mut self.sealing)
            {
                self.counters.dropped(reason);
                break Err(reason);
            }
            expected = expected.saturating_sub(frame_len);
            (packets, octets) = (packets + 1, octets + len);
        };
        queue.trim(&mut self.blocks);
        let high = sequence_runs_out(child).then_some((aim.session, aim.spi_in));
        self.counters.downlink_packets.add(packets);
        self.counters.downlink_bytes.add(octets as u64);
        if packets > 0 {
            self.mark_dirty(aim.slot);
        }
        self.report_sequence(high);
        result
    }
}

/// How many packets a refused packet of an inner device stands for, by its virtio-net header, of which nothing is trusted.
fn packets_in(virtio: &VirtioHeader, packet: &[u8]) -> u64 {
    let transport_at = usize::from(virtio.csum_start);
    let transport_len = match virtio.gso {
        // Data Offset, in words.
        Gso::Tcp4 | Gso::Tcp6 => packet.get(transport_at + 12).map_or(0, |octet| usize::from(octet >> 4) * 4),
        Gso::Udp => UDP_HEADER_LEN,
        Gso::None | Gso::Other(_) => return 1,
    };
    // Where the header says nothing that can be, all is payload.
    let payload = packet.len().checked_sub(transport_at + transport_len).unwrap_or(packet.len());
    match usize::from(virtio.gso_size) {
        0 => 1,
        size => payload.div_ceil(size).max(1) as u64,
    }
}

/// Tells flows of a UE apart. Fragments go by their addresses alone, so that none overtakes another.
fn flow_hash(hasher: &ahash::RandomState, inner: &InnerHeader) -> u64 {
    let ports = match inner.fragment {
        ip::Fragment::No => (inner.src_port, inner.dst_port),
        _ => (None, None),
    };
    hasher.hash_one((inner.src, inner.dst, inner.proto, ports))
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
