//! From the backend to the stream.

use std::io;
use std::mem;

use codec::stream::{FrameKind, NON_ESP_MARKER, classify};

use super::counters::{RelayClose, RelayDrop};
use super::link::Stage;
use super::uplink::ike_drop;
use super::worker::Worker;
use crate::bridge::{Leg, MessageInfo, STREAM_FRAMES_MAX, Verdict};
use crate::io::datagram;

/// Runs received for one connection before the others get their turn.
const RUNS_MAX: usize = 4;

impl Worker {
    /// The backend has sent something to the connection's port, or to the one of its first exchanges.
    pub(super) fn on_backend(&mut self, slot: u32, initial: bool) {
        let mut buffer = mem::take(&mut self.buffer);
        for _ in 0..RUNS_MAX {
            let Some(link) = self.links.get_mut(slot) else { break };
            let Some(ports) = &link.ports else { break };
            let Some(socket) = (if initial { ports.initial.as_ref() } else { Some(&ports.main) }) else {
                break;
            };
            let run = match datagram::receive_run(socket, &mut buffer) {
                Ok(run) => run,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // What became of a datagram we sent: the backend is away, and its IKE is sent again.
                Err(_) => continue,
            };
            link.active = self.now;
            let octets = &buffer[..run.len];
            if initial {
                octets.chunks(run.segment).for_each(|message| self.on_backend_ike(slot, message));
            } else {
                self.on_run(slot, octets, run.segment);
            }
        }
        self.buffer = buffer;
    }

    /// Datagrams of one size, but for the last: ESP, unless they begin with a marker.
    fn on_run(&mut self, slot: u32, octets: &[u8], segment: usize) {
        // The kernel joins what is alike in size only: each is looked at.
        let is_esp = |packet: &&[u8]| matches!(classify(packet), FrameKind::Esp(_));
        let mut rest = octets;
        while !rest.is_empty() {
            let count = rest.chunks(segment).take(STREAM_FRAMES_MAX).take_while(is_esp).count();
            if count > 0 {
                let (run, behind) = rest.split_at((count * segment).min(rest.len()));
                rest = behind;
                self.send_down(slot, run, segment);
                continue;
            }
            let (packet, behind) = rest.split_at(segment.min(rest.len()));
            rest = behind;
            match classify(packet) {
                FrameKind::Ike => self.on_backend_ike(slot, &packet[NON_ESP_MARKER.len()..]),
                // RFC 9329 §6.6: NAT-keepalives do not belong into a stream.
                FrameKind::Empty | FrameKind::Keepalive => {}
                FrameKind::Esp(_) | FrameKind::Unparseable(_) => {
                    self.counters.dropped(RelayDrop::BackendUnparseable, 1);
                }
            }
        }
    }

    fn send_down(&mut self, slot: u32, run: &[u8], segment: usize) {
        self.reach(slot, Stage::Established);
        let Some(link) = self.links.get_mut(slot) else { return };
        let octets_before = run.len();
        match link.stream.queue_esp(run.chunks(segment), self.limits.send_queue_octets) {
            Ok(queued) => {
                let octets = octets_before.saturating_sub(queued.dropped * segment);
                link.downlink.packets += queued.frames as u64;
                link.downlink.bytes += octets as u64;
                self.counters.downlink_packets.add(queued.frames as u64);
                self.counters.downlink_bytes.add(octets as u64);
                self.counters.dropped(RelayDrop::SendQueueFull, queued.dropped);
                self.watch_writable(slot);
            }
            Err(_) => self.close(slot, RelayClose::Peer),
        }
    }

    fn on_backend_ike(&mut self, slot: u32, message: &[u8]) {
        let Some(info) = MessageInfo::parse(message) else {
            return self.counters.dropped(RelayDrop::IkeMalformed, 1);
        };
        // Without keys, such as INVALID_IKE_SPI (RFC 7296 §1.5), anybody gets an answer.
        let established = info.is_protected && !info.is_initial();
        self.reach(slot, if established { Stage::Established } else { Stage::HalfOpen });
        let now = self.now;
        let Some(link) = self.links.get_mut(slot) else { return };
        link.spis = (info.spi_i, info.spi_r);
        match link.exchanges.handle_parsed(now, Leg::Datagram, &info, message) {
            Verdict::Forward => {
                if !link.stream.takes_ike(message.len()) {
                    // The peer does not read; the backend keeps the IKE SA.
                    return self.close(slot, RelayClose::Backlog);
                }
                if link.stream.queue_ike(message).is_err() {
                    return self.close(slot, RelayClose::Peer);
                }
                self.counters.ike_messages.add(1);
            }
            Verdict::Drop(reason) => self.counters.dropped(ike_drop(reason), 1),
            Verdict::Repeat(parts) => {
                self.counters.dropped(RelayDrop::IkeDuplicate, 1);
                if let Some(ports) = &link.ports {
                    // A lost one is asked for again.
                    parts.iter().for_each(|part| _ = ports.send_ike(part, false));
                }
            }
        }
        self.watch_writable(slot);
        if self.settle_ike(slot) {
            self.schedule(slot);
        }
    }
}
