//! From the gateway to the client.

use std::io::IoSlice;
use std::mem;
use std::ops::Range;

use codec::stream::{FrameKind, NON_ESP_MARKER, Next, classify};

use super::Port;
use super::adapter::Adapter;
use super::link::Way;
use crate::bridge::{Leg, MessageInfo, ReadEnd, Verdict, send_one};
use crate::io::datagram;

/// Reads from one connection before the others get their turn.
const READS_MAX: usize = 4;

/// Unusable frames in a row after which a connection is replaced (RFC 9329 §6.1).
const BAD_MAX: u32 = 16;

impl Adapter {
    /// The connection has octets, or an end.
    pub(super) fn on_stream(&mut self, slot: u32) {
        let now = self.now;
        let mut buffer = mem::take(&mut self.buffer);
        for _ in 0..READS_MAX {
            let Some(link) = self.link(slot) else { break };
            let Some(stream) = link.stream() else { break };
            match stream.read(&mut buffer) {
                ReadEnd::Octets(len) => {
                    link.gateway_at = now;
                    self.parse(slot, &buffer[..len]);
                    if len < buffer.len() {
                        break;
                    }
                }
                ReadEnd::Nothing => break,
                ReadEnd::Refused(len, error) => {
                    tracing::debug!(%error, "the gateway's stream is broken");
                    self.parse(slot, &buffer[..len]);
                    // Unless a frame among them has broken it already.
                    if self.link(slot).is_some_and(|link| link.stream().is_some()) {
                        self.on_broken(slot);
                    }
                    break;
                }
                ReadEnd::Closed => {
                    self.on_broken(slot);
                    break;
                }
            }
        }
        self.buffer = buffer;
        if self.link(slot).and_then(|link| link.stream()).is_some_and(|stream| stream.is_peer_done()) {
            return self.on_broken(slot);
        }
        // TLS may have had something to say.
        self.watch_writable(slot);
    }

    pub(super) fn parse(&mut self, slot: u32, input: &[u8]) {
        let mut at = 0;
        while let Some(stream) = self.link(slot).and_then(|link| link.stream()) {
            match stream.next(input, &mut at) {
                Ok(Next::Pending) => break,
                Ok(Next::InPlace(range)) => match classify(&input[range.clone()]) {
                    FrameKind::Esp(_) => self.push(slot, input, range),
                    kind => {
                        self.flush_run(slot, input);
                        self.on_body(slot, kind, &input[range]);
                    }
                },
                Ok(Next::Carried) => {
                    let body = stream.carried();
                    self.flush_run(slot, input);
                    match classify(&body) {
                        FrameKind::Esp(_) => {
                            self.push(slot, &body, 0..body.len());
                            self.flush_run(slot, &body);
                        }
                        kind => self.on_body(slot, kind, &body),
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "the gateway's stream is broken");
                    self.flush_run(slot, input);
                    self.on_broken(slot);
                }
            }
        }
        self.flush_run(slot, input);
    }

    fn push(&mut self, slot: u32, input: &[u8], packet: Range<usize>) {
        if !self.run.takes(packet.len()) {
            self.flush_run(slot, input);
        }
        self.run.push(packet);
    }

    fn flush_run(&mut self, slot: u32, input: &[u8]) {
        if self.run.is_empty() {
            return;
        }
        let Some(link) = self.link(slot) else { return self.run.clear() };
        link.bad_in_a_row = 0;
        match link.nat_at {
            Some(to) => {
                let sent = self.run.send(input, &self.nat, Some(to));
                self.tally.downlink_packets += sent.packets as u64;
                self.tally.refused += sent.lost as u64;
            }
            None => self.run.clear(),
        }
    }

    fn on_body(&mut self, slot: u32, kind: FrameKind, body: &[u8]) {
        match kind {
            FrameKind::Empty | FrameKind::Keepalive | FrameKind::Esp(_) => {}
            FrameKind::Unparseable(_) => self.bad_message(slot),
            FrameKind::Ike => {
                if let Some(message) = body.get(NON_ESP_MARKER.len()..) {
                    self.on_gateway_ike(slot, message);
                }
            }
        }
    }

    fn bad_message(&mut self, slot: u32) {
        self.tally.malformed += 1;
        let Some(link) = self.link(slot) else { return };
        link.bad_in_a_row += 1;
        if link.bad_in_a_row > BAD_MAX {
            self.on_broken(slot);
        }
    }

    fn on_gateway_ike(&mut self, slot: u32, message: &[u8]) {
        let Some(info) = MessageInfo::parse(message) else { return self.bad_message(slot) };
        let now = self.now;
        let Some(link) = self.link(slot) else { return };
        link.bad_in_a_row = 0;
        let (client, mut broken) = (link.client, false);
        let verdict = link.exchanges.handle_parsed(now, Leg::Stream, &info, message);
        let forward = match verdict {
            Verdict::Forward => true,
            Verdict::Drop(_) => {
                self.tally.ike_duplicates += 1;
                false
            }
            Verdict::Repeat(parts) => {
                // RFC 9329 §6.2: the gateway asks again on a new connection; the client has answered. A gateway that
                // asks and does not read gets another connection before the answers fill our memory.
                if let Way::Connected(stream, _) = &mut link.way {
                    broken = parts
                        .iter()
                        .any(|part| !stream.takes_ike(part.len()) || stream.queue_ike(part).is_err());
                }
                self.tally.ike_duplicates += 1;
                false
            }
        };
        // An IKE SA the gateway rekeyed has SPIs that only its own messages show.
        self.book.learn(slot, client, info.spi_i);
        if forward {
            self.tally.ike_messages += 1;
            self.send_client_ike(slot, message);
        }
        if broken {
            return self.on_broken(slot);
        }
        self.watch_writable(slot);
    }

    /// Sends an IKE message to where the client's last one came from (RFC 7296 §2.11).
    pub(super) fn send_client_ike(&mut self, slot: u32, message: &[u8]) {
        let Some(link) = self.link(slot) else { return };
        let (to, port) = link.ike_at;
        let sent = match port {
            Port::Ike => send_one(&self.ike, &[IoSlice::new(message)], Some(to)),
            Port::Nat => {
                send_one(&self.nat, &[IoSlice::new(&NON_ESP_MARKER), IoSlice::new(message)], Some(to))
            }
        };
        if sent.is_err() {
            // It is asked for, or sent, again.
            self.tally.refused += 1;
        }
    }

    /// Sends the client again what it has not answered.
    pub(super) fn resend(&mut self, slot: u32) {
        let now = self.now;
        let Some(link) = self.link(slot) else { return };
        if link.exchanges.poll_timeout().is_none_or(|due| due > now) {
            return;
        }
        let mut again: Vec<Vec<u8>> = Vec::new();
        link.exchanges.handle_timeout(now, |message| again.push(message.to_vec()));
        again.iter().for_each(|message| self.send_client_ike(slot, message));
    }

    /// The gateway has sent something over UDP.
    pub(super) fn on_udp(&mut self, slot: u32) {
        let now = self.now;
        let mut buffer = mem::take(&mut self.buffer);
        for _ in 0..READS_MAX {
            let Some(link) = self.link(slot) else { break };
            let Way::Udp(socket) = &link.way else { break };
            let run = match datagram::receive_run(socket, &mut buffer) {
                Ok(run) => run,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(_) => continue,
            };
            link.gateway_at = now;
            let octets = &buffer[..run.len];
            for (nth, packet) in octets.chunks(run.segment).enumerate() {
                let at = nth * run.segment;
                match classify(packet) {
                    FrameKind::Esp(_) => self.push(slot, octets, at..at + packet.len()),
                    FrameKind::Ike => {
                        let message = &packet[NON_ESP_MARKER.len()..];
                        self.flush_run(slot, octets);
                        if let (Some(info), Some(link)) = (MessageInfo::parse(message), self.link(slot)) {
                            let client = link.client;
                            self.book.learn(slot, client, info.spi_i);
                        }
                        self.send_client_ike(slot, message);
                    }
                    FrameKind::Empty | FrameKind::Keepalive | FrameKind::Unparseable(_) => {}
                }
            }
            self.flush_run(slot, octets);
        }
        self.buffer = buffer;
    }
}
