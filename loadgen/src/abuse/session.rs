//! An attached UE that does what cases tell it.

use super::handshake::note_answer;
use super::seen::{Kind, Seen};
use super::stage::{ANSWER_MAX, QUIET};
use super::wire::{Arrival, Wire};
use crate::ue::{Attached, Event, Forgery, Initiator, Subscriber, UeConfig};
use codec::OsRandom;
use codec::esp::{InboundSa, OutboundSa};
use codec::ike::{ExchangeType, MessageBuilder};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Most messages of an attach: a responder that never comes to an end is odd.
const TURNS_MAX: u32 = 10_000;

/// An attached UE.
pub struct Ue {
    /// Its connection.
    pub wire: Wire,
    /// Its IKE SA.
    pub initiator: Initiator,
    /// What it sends under.
    pub outbound: OutboundSa,
    inbound: InboundSa,
    /// Its inner IPv4 address, if it was given one.
    pub inner: Option<Ipv4Addr>,
    gateway: SocketAddr,
    ended: Option<String>,
    /// Inner packets that arrived and were not looked for.
    packets: Vec<Vec<u8>>,
}

impl Ue {
    /// Attaches over a connection that has carried nothing.
    ///
    /// # Errors
    /// What went wrong.
    pub fn attach(
        mut wire: Wire,
        gateway: SocketAddr,
        config: &Arc<UeConfig>,
        who: Subscriber,
    ) -> Result<Self, String> {
        let (local, remote) = wire.addresses().map_err(|error| error.to_string())?;
        let mut initiator = Initiator::new(config.clone(), who);
        initiator.handle_connected(Instant::now(), local, remote, &mut OsRandom);
        let mut attached = Attached::default();
        for _ in 0..TURNS_MAX {
            while let Some(event) = initiator.poll_event() {
                match event {
                    Event::Established(given) => attached = *given,
                    Event::Install(child) => {
                        let outbound =
                            OutboundSa::new(child.spi_out, child.suite, child.keys_out, &mut OsRandom);
                        let inbound =
                            InboundSa::new(child.spi_in, child.suite, child.keys_in, config.replay_window);
                        let inner = attached.inner.iter().find_map(|address| match address {
                            IpAddr::V4(v4) => Some(*v4),
                            IpAddr::V6(_) => None,
                        });
                        let (ended, packets) = (None, Vec::new());
                        return Ok(Self {
                            wire,
                            initiator,
                            outbound,
                            inbound,
                            inner,
                            gateway,
                            ended,
                            packets,
                        });
                    }
                    Event::Ended(cause) => return Err(cause.to_string()),
                    Event::Retire(_) => {}
                }
            }
            while let Some(message) = initiator.poll_transmit() {
                wire.send_ike(&message);
            }
            match wire.next(ANSWER_MAX) {
                Arrival::Ike(mut message) => {
                    initiator.handle_message(Instant::now(), &mut message, &mut OsRandom);
                }
                Arrival::Silence => return Err("no answer in the attach".into()),
                Arrival::Closed(_) => return Err("connection closed in the attach".into()),
                other => return Err(format!("{other:?} in the attach")),
            }
        }
        Err("endless attach".into())
    }

    /// Leaves the connection with a reset and takes another; nothing is sent there yet but the prefix.
    pub fn reconnect(&mut self) -> bool {
        let Ok(wire) = Wire::prefixed(self.gateway) else { return false };
        let Ok((local, remote)) = wire.addresses() else { return false };
        std::mem::replace(&mut self.wire, wire).reset();
        // What waits for an answer is sent again there (RFC 9329 §6.2).
        self.initiator.handle_connected(Instant::now(), local, remote, &mut OsRandom);
        true
    }

    /// Asks whether the IKE SA lives, on the connection it has.
    pub fn lives(&mut self) -> Seen {
        self.initiator.probe(Instant::now(), &mut OsRandom);
        let deadline = Instant::now() + ANSWER_MAX;
        while self.ended.is_none() && self.initiator.is_waiting() {
            self.flush();
            match self.turn(deadline.saturating_duration_since(Instant::now())) {
                None => {}
                // Never as expected: where a case lets a connection be closed, it is another one.
                Some(Arrival::Closed(after)) => {
                    return Seen::odd(format!(
                        "the session's connection closed after {:.1} s",
                        after.as_secs_f64()
                    ));
                }
                Some(Arrival::Broken(text)) => return Seen::odd(text),
                Some(_) => return Seen::one(Kind::Silent),
            }
        }
        self.flush();
        match &self.ended {
            Some(cause) => Seen::odd(format!("session over: {cause}")),
            None => Seen::one(Kind::Kept),
        }
    }

    /// Waits until the responder closes; on another connection the session must live.
    pub fn closes_and_lives(&mut self, patience: Duration) -> Seen {
        let deadline = Instant::now() + patience;
        let mut seen = Seen::default();
        loop {
            match self.turn(deadline.saturating_duration_since(Instant::now())) {
                None => {}
                Some(Arrival::Closed(after)) => break seen.push_closed(after),
                Some(Arrival::Broken(text)) => return seen.then_odd(text),
                Some(_) => {
                    seen.push(Kind::Silent);
                    break;
                }
            }
        }
        if !self.reconnect() {
            return seen.then(Kind::Refused);
        }
        seen.then_all(self.lives())
    }

    /// Forges a request with the next Message ID and notes what comes until its answer.
    pub fn asks(&mut self, exchange: ExchangeType, fill: impl FnOnce(&mut MessageBuilder)) -> Seen {
        let request = self.initiator.forge(Forgery::request(exchange), &mut OsRandom, fill);
        self.wire.send_ike(&request.unwrap_or_default());
        self.answer()
    }

    /// Notes what comes until the answer to a request that was sent.
    pub fn answer(&mut self) -> Seen {
        let mut seen = Seen::default();
        note_answer(&mut self.wire, &self.initiator, ANSWER_MAX, &mut seen);
        seen
    }

    /// A message with any header; its answer is not waited for.
    pub fn forge(&mut self, forgery: Forgery, fill: impl FnOnce(&mut MessageBuilder)) -> Vec<u8> {
        self.initiator.forge(forgery, &mut OsRandom, fill).unwrap_or_default()
    }

    /// Seals an inner packet as a frame; empty when it cannot be.
    pub fn seal(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; self.outbound.frame_len(packet.len())];
        match self.outbound.seal_frame(packet, &mut frame) {
            Ok(len) => frame.truncate(len),
            Err(_) => frame.clear(),
        }
        frame
    }

    /// Counts inner packets that satisfy `wanted` until nothing comes for a moment.
    pub fn count(&mut self, wanted: impl Fn(&[u8]) -> bool) -> usize {
        while self.turn(QUIET).is_none() {}
        self.flush();
        std::mem::take(&mut self.packets).iter().filter(|packet| wanted(packet)).count()
    }

    /// Leaves with a DELETE.
    pub fn detach(&mut self) {
        self.initiator.detach(Instant::now(), &mut OsRandom);
        self.flush();
        while self.ended.is_none() && self.turn(ANSWER_MAX).is_none() {}
    }

    /// Takes one arrival; returns what is no message.
    fn turn(&mut self, wait: Duration) -> Option<Arrival> {
        match self.wire.next(wait) {
            Arrival::Ike(mut message) => {
                self.initiator.handle_message(Instant::now(), &mut message, &mut OsRandom);
                self.flush();
            }
            Arrival::Esp(mut packet) => {
                if let Ok(opened) = self.inbound.open(&mut packet) {
                    self.packets.push(packet[opened.payload].to_vec());
                }
            }
            other => return Some(other),
        }
        None
    }

    fn flush(&mut self) {
        while let Some(event) = self.initiator.poll_event() {
            if let Event::Ended(cause) = event {
                self.ended = Some(cause.to_string());
            }
        }
        while let Some(message) = self.initiator.poll_transmit() {
            self.wire.send_ike(&message);
        }
    }
}
