//! Peers with keys: one in the middle of its attach, and one that is attached.

use super::seen::{Kind, Seen};
use super::stage::{ANSWER_MAX, QUIET};
use super::wire::{Arrival, Wire};
use crate::ue::{Attached, Event, Forgery, Initiator, Subscriber, UeConfig};
use codec::OsRandom;
use codec::eap::{Code, EapPacket};
use codec::esp::{InboundSa, OutboundSa};
use codec::ike::payload::{AuthView, NotifyView, Proposal};
use codec::ike::{AuthMethod, ExchangeType, IkeHeader, MessageBuilder, NotifyType, PayloadType, ProtocolId};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Largest message a pump turns over before it gives up; a responder that never stops talking is odd.
const TURNS_MAX: u32 = 10_000;

/// A peer that has the keys of IKE_SA_INIT and has not authenticated.
pub struct Handshake {
    /// Its connection.
    pub wire: Wire,
    /// Its keys; its own IKE_AUTH is not sent.
    pub initiator: Initiator,
    /// Its settings.
    pub config: Arc<UeConfig>,
    /// Whom it claims to be.
    pub who: Subscriber,
    /// Its honest IKE_AUTH.
    pub auth: Vec<u8>,
    /// Whether the responder takes fragments (RFC 7383).
    pub fragments: bool,
}

impl Handshake {
    /// Goes through IKE_SA_INIT.
    ///
    /// # Errors
    /// What went wrong.
    pub fn begin(gateway: SocketAddr, config: &Arc<UeConfig>, who: Subscriber) -> Result<Self, String> {
        let mut wire = Wire::prefixed(gateway).map_err(|error| error.to_string())?;
        let (local, remote) = wire.addresses().map_err(|error| error.to_string())?;
        let mut initiator = Initiator::new(config.clone(), who.clone());
        initiator.handle_connected(Instant::now(), local, remote, &mut OsRandom);
        let mut fragments = false;
        loop {
            let Some(request) = initiator.poll_transmit() else {
                return Err(match initiator.poll_event() {
                    Some(Event::Ended(cause)) => cause.to_string(),
                    _ => "no answer to IKE_SA_INIT".into(),
                });
            };
            let header = IkeHeader::decode(&request).map_err(|error| error.to_string())?;
            if header.exchange == ExchangeType::IKE_AUTH {
                let auth = request.to_vec();
                return Ok(Self { wire, initiator, config: config.clone(), who, auth, fragments });
            }
            wire.send_ike(&request);
            match wire.next(ANSWER_MAX) {
                Arrival::Ike(mut message) => {
                    let announced = NotifyType::IKEV2_FRAGMENTATION_SUPPORTED.0.to_be_bytes();
                    // Protocol and SPI Size are 0 in front of the type.
                    fragments = message.windows(4).any(|part| part == [&[0, 0], &announced[..]].concat());
                    initiator.handle_message(Instant::now(), &mut message, &mut OsRandom);
                }
                other => return Err(format!("{other:?} in IKE_SA_INIT")),
            }
        }
    }

    /// An IKE_AUTH that proves nothing; what is in it comes from `fill`.
    pub fn forge_auth(&mut self, id: u32, fill: impl FnOnce(&mut MessageBuilder)) -> Vec<u8> {
        let forgery = Forgery::request(ExchangeType::IKE_AUTH).with_id(id);
        self.initiator.forge(forgery, &mut OsRandom, fill).unwrap_or_default()
    }

    /// The end of most cases: an IKE_AUTH with a wrong proof, whose refusal shows that the IKE SA is still there.
    pub fn refused(&mut self) -> Seen {
        let config = self.config.clone();
        let idi = self.who.idi.clone();
        let message = self.forge_auth(1, |builder| {
            builder.id_i(&idi.view());
            fill_auth(builder, &config, Some(&[0x5a; 32]));
        });
        self.asks(&message)
    }

    /// Sends a message and notes what comes until an answer that is protected, or nothing more.
    pub fn asks(&mut self, message: &[u8]) -> Seen {
        self.wire.send_ike(message);
        let mut seen = Seen::default();
        note_answer(&mut self.wire, &self.initiator, &mut seen);
        seen
    }
}

/// Appends what follows the identity in an IKE_AUTH; `proof` is its AUTH data, if it has any.
pub fn fill_auth(builder: &mut MessageBuilder, config: &UeConfig, proof: Option<&[u8]>) {
    if let Some(data) = proof {
        builder.auth(&AuthView { method: AuthMethod::SHARED_KEY, data });
    }
    let transforms = config.esp[0].transforms(&[]);
    let spi = [0x7a, 1, 2, 3];
    builder.sa(&[Proposal { number: 1, protocol: ProtocolId::ESP, spi: &spi, transforms: &transforms }]);
    let any = [codec::ike::payload::TrafficSelector::ANY_IPV4];
    builder.ts_i(&any).ts_r(&any);
}

/// Reads until an answer with keys, the end, or silence.
fn note_answer(wire: &mut Wire, initiator: &Initiator, seen: &mut Seen) {
    let deadline = Instant::now() + ANSWER_MAX;
    loop {
        match wire.next(deadline.saturating_duration_since(Instant::now())) {
            Arrival::Ike(message) => {
                let protected = initiator.read(&message);
                seen.push(match &protected {
                    Some(payloads) => kind_of(payloads),
                    None => clear_kind(&message),
                });
                if protected.is_some() {
                    return;
                }
            }
            Arrival::Esp(_) => {}
            Arrival::Broken(text) => return seen.push_noted(Kind::Odd, text),
            Arrival::Closed(after) => return seen.push_closed(after),
            Arrival::Silence => return seen.push(Kind::Silent),
        }
    }
}

/// What a protected answer says.
fn kind_of(payloads: &[(PayloadType, Vec<u8>)]) -> Kind {
    let error = payloads.iter().filter(|(kind, _)| *kind == PayloadType::NOTIFY).find_map(|(_, body)| {
        NotifyView::decode(body).ok().map(|notify| notify.kind).filter(|kind| kind.is_error())
    });
    let eap = payloads.iter().find(|(kind, _)| *kind == PayloadType::EAP).map(|(_, body)| body);
    match (error, eap) {
        (_, Some(body)) => match EapPacket::decode(body).map(|packet| packet.code) {
            Ok(Code::Request) => Kind::EapAsked,
            Ok(Code::Failure) => Kind::EapFailure,
            _ => Kind::Odd,
        },
        (Some(kind), None) => Kind::Notify(kind),
        (None, None) => Kind::Answered,
    }
}

/// What an answer in clear says.
fn clear_kind(message: &[u8]) -> Kind {
    let Ok(clear) = codec::ike::Message::decode(message) else { return Kind::Odd };
    let payloads: Option<Vec<_>> =
        clear.payloads().map(|raw| raw.ok().map(|raw| (raw.kind, raw.body.to_vec()))).collect();
    match payloads.as_deref().map(kind_of) {
        Some(kind @ Kind::Notify(_)) => kind,
        _ => Kind::Odd,
    }
}

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
                Some(Arrival::Closed(after)) => {
                    let mut seen = Seen::default();
                    seen.push_closed(after);
                    return seen;
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

    /// The session lives where it is, or its connection was closed and it lives on another.
    pub fn lives_anywhere(&mut self) -> Seen {
        let seen = self.lives();
        if seen.last() == Some(Kind::Closed) && self.reconnect() {
            return seen.then_all(self.lives());
        }
        seen
    }

    /// Forges a request with the next Message ID and notes what comes until its answer.
    pub fn asks(&mut self, exchange: ExchangeType, fill: impl FnOnce(&mut MessageBuilder)) -> Seen {
        let request = self.initiator.forge(Forgery::request(exchange), &mut OsRandom, fill);
        self.wire.send_ike(&request.unwrap_or_default());
        let mut seen = Seen::default();
        note_answer(&mut self.wire, &self.initiator, &mut seen);
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
