//! From the stream to the backend.

use std::io;
use std::mem;
use std::ops::Range;

use codec::stream::{FrameError, FrameKind, NON_ESP_MARKER, Next, classify};

use super::counters::{RelayClose, RelayDrop};
use super::link::Ports;
use super::worker::Worker;
use crate::bridge::{Dropped, FrameStream, Leg, MessageInfo, ReadEnd, Verdict};
use crate::tls::{FrontError, Refusal};

/// Reads from one connection before the others get their turn.
const READS_MAX: usize = 2;

/// Octets of an unfinished frame that a connection may hold whatever the others do: an ordinary IKE message.
const UNFINISHED_FREE: usize = 4096;

impl Worker {
    /// The connection has octets, or an end.
    pub(super) fn on_stream(&mut self, slot: u32) {
        let mut buffer = mem::take(&mut self.buffer);
        for _ in 0..READS_MAX {
            let Some(link) = self.links.get_mut(slot) else { break };
            match link.stream.read(&mut buffer) {
                ReadEnd::Octets(len) => {
                    link.active = self.now;
                    self.parse(slot, &buffer[..len]);
                    if len < buffer.len() {
                        break;
                    }
                }
                ReadEnd::Refused(len, error) => {
                    self.parse(slot, &buffer[..len]);
                    self.counters.dropped(refusal_drop(&error), 1);
                    self.close(slot, RelayClose::Tls);
                    break;
                }
                ReadEnd::Nothing => break,
                ReadEnd::Closed => {
                    self.close(slot, RelayClose::Peer);
                    break;
                }
            }
        }
        self.buffer = buffer;
        if self.links.get_mut(slot).is_some_and(|link| link.stream.is_peer_done()) {
            return self.close(slot, RelayClose::Peer);
        }
        // TLS may have had something to say, and holds an unfinished record.
        self.watch_writable(slot);
        self.settle_unfinished(slot);
    }

    /// Cuts what was read into frames where they lie; ESP packets leave in runs.
    fn parse(&mut self, slot: u32, input: &[u8]) {
        let mut at = 0;
        while let Some(link) = self.links.get_mut(slot) {
            match link.stream.next(input, &mut at) {
                Ok(Next::Pending) => break,
                Ok(Next::InPlace(range)) => match classify(&input[range.clone()]) {
                    FrameKind::Esp(_) => self.push(slot, input, range),
                    kind => {
                        // Order between IKE and ESP of one connection is kept.
                        self.flush_run(slot, input);
                        self.on_body(slot, kind, &input[range]);
                    }
                },
                Ok(Next::Carried) => {
                    let body = link.stream.carried();
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
                    self.flush_run(slot, input);
                    self.counters.dropped(frame_drop(error), 1);
                    self.close(slot, RelayClose::Framing);
                }
            }
        }
        self.flush_run(slot, input);
    }

    fn settle_unfinished(&mut self, slot: u32) {
        let Some(link) = self.links.get_mut(slot) else { return };
        let counted = link.stream.carry_octets().saturating_sub(UNFINISHED_FREE);
        let grew = counted > link.unfinished;
        self.unfinished = self.unfinished - link.unfinished + counted;
        link.unfinished = counted;
        if grew && self.unfinished > self.limits.unfinished {
            self.counters.dropped(RelayDrop::Unfinished, 1);
            self.close(slot, RelayClose::Limit);
        }
    }

    /// Adds an ESP packet to the run.
    fn push(&mut self, slot: u32, input: &[u8], packet: Range<usize>) {
        if !self.run.takes(packet.len()) {
            self.flush_run(slot, input);
        }
        self.run.push(packet);
    }

    /// Sends the run.
    fn flush_run(&mut self, slot: u32, input: &[u8]) {
        if self.run.is_empty() {
            return;
        }
        if self.open_ports(slot)
            && let Some(link) = self.links.get_mut(slot)
            && let Some(ports) = &link.ports
        {
            let sent = self.run.send(input, &ports.main, None);
            link.bad_in_a_row = 0;
            link.uplink.packets += sent.packets as u64;
            link.uplink.bytes += sent.octets as u64;
            self.counters.uplink_packets.add(sent.packets as u64);
            self.counters.uplink_bytes.add(sent.octets as u64);
            self.counters.dropped(RelayDrop::BackendSend, sent.lost);
        }
        self.run.clear();
    }

    fn on_body(&mut self, slot: u32, kind: FrameKind, body: &[u8]) {
        match kind {
            // RFC 9329 §3 and §6.6: ignored without a trace.
            FrameKind::Empty | FrameKind::Keepalive | FrameKind::Esp(_) => {}
            FrameKind::Unparseable(_)
                if body.len() <= NON_ESP_MARKER.len() && self.has_short_keepalives(slot) => {}
            FrameKind::Unparseable(_) => self.bad_message(slot, RelayDrop::Unparseable),
            FrameKind::Ike => {
                if let Some(message) = body.get(NON_ESP_MARKER.len()..) {
                    self.on_ike(slot, message);
                }
            }
        }
    }

    fn has_short_keepalives(&mut self, slot: u32) -> bool {
        self.links.get_mut(slot).is_some_and(|link| link.stream.has_short_keepalives())
    }

    /// Counts a frame that could not be used; too many in a row close the connection (D5).
    fn bad_message(&mut self, slot: u32, reason: RelayDrop) {
        self.counters.dropped(reason, 1);
        let Some(link) = self.links.get_mut(slot) else { return };
        link.bad_in_a_row += 1;
        if link.bad_in_a_row > self.limits.bad_messages_in_a_row {
            self.close(slot, RelayClose::Corrupted);
        }
    }

    fn on_ike(&mut self, slot: u32, message: &[u8]) {
        let Some(info) = MessageInfo::parse(message) else {
            return self.bad_message(slot, RelayDrop::IkeMalformed);
        };
        if !self.open_ports(slot) {
            return;
        }
        let now = self.now;
        let Some(link) = self.links.get_mut(slot) else { return };
        link.bad_in_a_row = 0;
        link.spis = (info.spi_i, info.spi_r);
        let mut broken = false;
        match link.exchanges.handle_parsed(now, Leg::Stream, &info, message) {
            Verdict::Forward => {
                let Some(ports) = &mut link.ports else { return };
                if !info.is_initial() && info.message_id.0 > 0 {
                    // The exchanges that have a port of their own are over.
                    ports.initial = None;
                }
                forward(ports, message, info.is_initial(), &self.counters);
                self.counters.ike_messages.add(1);
            }
            Verdict::Drop(reason) => self.counters.dropped(ike_drop(reason), 1),
            Verdict::Repeat(parts) => {
                self.counters.dropped(RelayDrop::IkeDuplicate, 1);
                broken = repeat(&mut link.stream, parts).is_err();
            }
        }
        if broken {
            return self.close(slot, RelayClose::Peer);
        }
        self.watch_writable(slot);
        if self.settle_ike(slot) {
            self.schedule(slot);
        }
    }

    /// Sends to the backend again what it has not answered, and forgets what is old.
    pub(super) fn resend(&mut self, slot: u32) {
        let (now, counters) = (self.now, self.counters.clone());
        let Some(link) = self.links.get_mut(slot) else { return };
        let ports = link.ports.as_ref();
        let given_up = link.exchanges.handle_timeout(now, |message| {
            if let Some(ports) = ports {
                let initial = MessageInfo::parse(message).is_some_and(|info| info.is_initial());
                counters.ike_resent.add(1);
                forward(ports, message, initial, &counters);
            }
        });
        counters.dropped(RelayDrop::IkeGivenUp, given_up);
        self.settle_ike(slot);
    }
}

/// Answers again with `parts`, as long as the peer reads. The answer has gone down this very connection, which delivers
/// it while it lives (RFC 9329 §6.2): repetitions that wait would be of use to nobody, and without end.
///
/// # Errors
/// When the connection is broken.
fn repeat(stream: &mut FrameStream, parts: &[Box<[u8]>]) -> io::Result<()> {
    for part in parts {
        if stream.backlog_octets() > 0 {
            break;
        }
        stream.queue_ike(part)?;
    }
    Ok(())
}

fn forward(ports: &Ports, message: &[u8], initial: bool, counters: &super::RelayCounters) {
    if ports.send_ike(message, initial).is_err() {
        // It is sent again like any datagram that gets lost.
        counters.dropped(RelayDrop::BackendSend, 1);
    }
}

fn refusal_drop(error: &FrontError) -> RelayDrop {
    match error.refusal() {
        Refusal::Foreign => RelayDrop::NotTls,
        Refusal::Handshake => RelayDrop::TlsHandshake,
        Refusal::Record => RelayDrop::TlsRecord,
    }
}

fn frame_drop(error: FrameError) -> RelayDrop {
    match error {
        FrameError::PrefixMismatch => RelayDrop::PrefixMismatch,
        FrameError::BadLength(_) | FrameError::BadIkeLength(_) => RelayDrop::BadLength,
    }
}

/// The counter of what [`crate::bridge::Exchanges`] drops.
pub(super) fn ike_drop(reason: Dropped) -> RelayDrop {
    match reason {
        Dropped::Malformed => RelayDrop::IkeMalformed,
        Dropped::Duplicate => RelayDrop::IkeDuplicate,
        Dropped::WindowFull => RelayDrop::IkeWindowFull,
    }
}
