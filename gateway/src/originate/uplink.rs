//! From the client to the gateway.

use std::io::IoSlice;
use std::mem;
use std::net::SocketAddr;

use codec::stream::{FrameKind, LENGTH_LEN, NON_ESP_MARKER, classify};

use super::Port;
use super::adapter::Adapter;
use super::link::Way;
use crate::bridge::{Dropped, Leg, MessageInfo, STREAM_FRAMES_MAX, Verdict, send_one};
use crate::io::datagram;
use crate::limits::{ORIGINATE_HELD_OCTETS, ORIGINATE_QUEUE_OCTETS};

/// Runs received from one port before the others get their turn.
const RUNS_MAX: usize = 8;

impl Adapter {
    /// Clients have sent something to one of the two ports.
    pub(super) fn on_client(&mut self, port: Port) {
        let mut buffer = mem::take(&mut self.buffer);
        for _ in 0..RUNS_MAX {
            let socket = if port == Port::Ike { &self.ike } else { &self.nat };
            let Ok(run) = datagram::receive_run(socket, &mut buffer) else { break };
            let Some(from) = run.from else { continue };
            let octets = &buffer[..run.len];
            match port {
                Port::Ike => octets.chunks(run.segment).for_each(|message| self.on_ike(from, port, message)),
                Port::Nat => self.on_nat(from, octets, run.segment),
            }
        }
        self.buffer = buffer;
    }

    /// Datagrams of one size, but for the last, from one client.
    fn on_nat(&mut self, from: SocketAddr, octets: &[u8], segment: usize) {
        let mut rest = octets;
        while !rest.is_empty() {
            let packet = &rest[..segment.min(rest.len())];
            let taken = match classify(packet) {
                FrameKind::Esp(spi) => {
                    // What follows of the same SA goes along.
                    let same = |packet: &&[u8]| classify(packet) == FrameKind::Esp(spi);
                    let count = rest.chunks(segment).take(STREAM_FRAMES_MAX).take_while(same).count();
                    let run = &rest[..(count * segment).min(rest.len())];
                    let slot = self.book.esp(from, spi).or_else(|| {
                        // An SA from before this process: the gateway knows it by its SPI (RFC 9329 §6.1).
                        let slot = self.add_link(from, Port::Nat)?;
                        self.book.seen(slot, from, codec::ike::ExchangeType::INFORMATIONAL);
                        Some(slot)
                    });
                    if let Some(slot) = slot {
                        self.on_esp(slot, from, run, segment);
                    }
                    run.len()
                }
                FrameKind::Ike => {
                    self.on_ike(from, Port::Nat, &packet[NON_ESP_MARKER.len()..]);
                    packet.len()
                }
                FrameKind::Keepalive => {
                    self.on_keepalive(from);
                    packet.len()
                }
                FrameKind::Empty => return,
                FrameKind::Unparseable(_) => {
                    self.tally.malformed += 1;
                    packet.len()
                }
            };
            rest = &rest[taken..];
        }
    }

    /// RFC 9329 §6.6: not for a stream. On UDP it keeps the NATs behind us open too.
    fn on_keepalive(&mut self, from: SocketAddr) {
        let now = self.now;
        let Some(link) = self.book.last(from).and_then(|slot| self.link(slot)) else { return };
        link.client_at = now;
        if let Way::Udp(socket) = &link.way {
            let _ = socket.send(&[codec::stream::KEEPALIVE]);
        }
    }

    fn on_esp(&mut self, slot: u32, from: SocketAddr, run: &[u8], segment: usize) {
        let now = self.now;
        self.ensure_way(slot, false);
        let Some(link) = self.link(slot) else { return };
        link.client_at = now;
        link.nat_at = Some(from);
        let packets = run.chunks(segment).len();
        let (mut lost, mut full, mut broken) = (0, 0, false);
        match &mut link.way {
            Way::Connected(stream, _) => {
                match stream.queue_esp(run.chunks(segment), ORIGINATE_QUEUE_OCTETS) {
                    Ok(queued) => full = queued.dropped,
                    Err(_) => broken = true,
                }
            }
            // While a connection is on its way, and not its fifth attempt, packets are worth keeping.
            Way::Connecting(..) | Way::Retry(_) if link.failures == 0 => {
                for packet in run.chunks(segment) {
                    let length = u16::try_from(packet.len() + LENGTH_LEN).unwrap_or(0);
                    if length == 0 || link.held.len() + usize::from(length) > ORIGINATE_HELD_OCTETS {
                        lost += 1;
                        continue;
                    }
                    link.held.extend_from_slice(&length.to_be_bytes());
                    link.held.extend_from_slice(packet);
                }
            }
            Way::Udp(socket) => {
                let sent = |packet: &[u8]| send_one(socket, &[IoSlice::new(packet)], None).is_ok();
                lost = run.chunks(segment).filter(|packet| !sent(packet)).count();
            }
            _ => lost = packets,
        }
        self.tally.uplink_packets += packets as u64;
        self.tally.no_connection += lost as u64;
        self.tally.queue_full += full as u64;
        if broken {
            return self.on_broken(slot);
        }
        self.watch_writable(slot);
    }

    fn on_ike(&mut self, from: SocketAddr, port: Port, message: &[u8]) {
        let Some(info) = MessageInfo::parse(message) else {
            self.tally.malformed += 1;
            return;
        };
        let slot = match self.book.ike(from, &info) {
            Some(slot) => slot,
            None => {
                let Some(slot) = self.add_link(from, port) else { return };
                self.book.learn(slot, from.ip(), info.spi_i);
                slot
            }
        };
        if port == Port::Nat {
            self.book.seen(slot, from, info.exchange);
        }
        let now = self.now;
        let Some(link) = self.link(slot) else { return };
        link.client_at = now;
        link.ike_at = (from, port);
        if port == Port::Nat {
            link.nat_at = Some(from);
        }
        self.tally.ike_messages += 1;
        if matches!(self.link(slot).map(|link| &link.way), Some(Way::Udp(_))) {
            return self.send_udp_ike(slot, message);
        }
        self.pass_up(slot, &info, message);
    }

    /// Takes a message of the client to the stream, as far as it is for it.
    fn pass_up(&mut self, slot: u32, info: &MessageInfo, message: &[u8]) {
        let now = self.now;
        let Some(link) = self.link(slot) else { return };
        if link.stream().is_some_and(|stream| !stream.takes_ike(message.len())) {
            // As if it had been lost on the way: it is not remembered, and the client sends it again.
            self.tally.queue_full += 1;
            return;
        }
        let mut repeated = Vec::new();
        let mut broken = false;
        match link.exchanges.handle_parsed(now, Leg::Datagram, info, message) {
            Verdict::Forward => {
                // Without a connection a request is kept and goes first on the next; a response is asked for again there.
                if let Way::Connected(stream, _) = &mut link.way {
                    broken = stream.queue_ike(message).is_err();
                }
            }
            Verdict::Drop(reason) => match reason {
                Dropped::Malformed => self.tally.malformed += 1,
                Dropped::Duplicate => self.tally.ike_duplicates += 1,
                Dropped::WindowFull => self.tally.refused += 1,
            },
            Verdict::Repeat(parts) => repeated = parts.to_vec(),
        }
        if !repeated.is_empty() {
            self.tally.ike_duplicates += 1;
            repeated.iter().for_each(|part| self.send_client_ike(slot, part));
        }
        if broken {
            self.on_broken(slot);
        }
        self.ensure_way(slot, info.opens_session());
        self.watch_writable(slot);
    }

    /// Sends an IKE message over UDP, as port 4500 takes it.
    pub(super) fn send_udp_ike(&mut self, slot: u32, message: &[u8]) {
        let Some(link) = self.link(slot) else { return };
        let Way::Udp(socket) = &link.way else { return };
        if send_one(socket, &[IoSlice::new(&NON_ESP_MARKER), IoSlice::new(message)], None).is_err() {
            // Its sender sends it again.
            self.tally.refused += 1;
        }
    }
}
