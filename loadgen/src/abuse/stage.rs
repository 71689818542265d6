//! Where cases on a bare stream play: the responder, and innocent requests to compare with.

use super::draft::{Draft, Part};
use super::seen::{Kind, Seen};
use super::wire::{Arrival, Wire, ike_frame};
use crate::ue::{Initiator, Subscriber, UeConfig};
use codec::ike::payload::Payload;
use codec::ike::{IkeHeader, IkeSpi, Message, NotifyType, PayloadType};
use codec::{OsRandom, Random};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest wait for an answer to an innocent request.
pub const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long nothing must come for silence.
pub const QUIET: Duration = Duration::from_millis(400);

/// Bounds of a run.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Longest wait for a responder to close.
    pub patience: Duration,
    /// Connections or messages of a flood.
    pub flood: u32,
}

/// What cases need that have no keys. It is shared by cases that wait at the same time.
pub struct Stage {
    /// The responder.
    pub gateway: SocketAddr,
    /// Bounds of the run.
    pub bounds: Bounds,
    /// An IKE_SA_INIT that the responder is expected to serve.
    template: Vec<u8>,
}

impl Stage {
    /// Prepares for a responder that takes one of the proposals of `config`; `None` when it holds none.
    pub fn new(gateway: SocketAddr, config: &Arc<UeConfig>, who: Subscriber, bounds: Bounds) -> Option<Self> {
        let mut initiator = Initiator::new(config.clone(), who);
        // Addresses as behind a NAT: over TCP they change nothing (RFC 9329 §6.5).
        let nowhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        initiator.handle_connected(Instant::now(), nowhere, nowhere, &mut OsRandom);
        let template = initiator.poll_transmit()?.to_vec();
        Some(Self { gateway, bounds, template })
    }

    /// An IKE_SA_INIT with SPI and nonce of its own.
    pub fn init(&self) -> Draft {
        let fill = |octets: &mut [u8]| OsRandom.fill(octets);
        Draft::of(&self.template)
            .header(|header| {
                fill(&mut header.spi_i.0);
                header.spi_i.0[0] |= 1;
            })
            .alter(PayloadType::NONCE, |part| fill(&mut part.body))
    }

    /// The frame of such a request.
    pub fn init_frame(&self) -> Vec<u8> {
        ike_frame(&self.init().octets())
    }

    /// Returns how long an answer to an innocent request is waited for.
    pub fn answer_max(&self) -> Duration {
        self.bounds.patience.min(ANSWER_MAX)
    }

    /// Sends `octets` as the whole stream and waits for the responder to close.
    pub fn bare(&self, octets: &[u8]) -> Seen {
        match Wire::connect(self.gateway) {
            Ok(mut wire) => {
                wire.send(octets);
                self.until_closed(&mut wire)
            }
            Err(_) => Seen::one(Kind::Refused),
        }
    }

    /// Sends `octets` behind the prefix and waits for the responder to close.
    pub fn closes(&self, octets: &[u8]) -> Seen {
        self.bare(&[b"IKETCP", octets].concat())
    }

    /// Sends `octets` behind the prefix, then an innocent request on the same connection.
    pub fn then_served(&self, octets: &[u8]) -> Seen {
        match Wire::prefixed(self.gateway) {
            Ok(mut wire) => {
                wire.send(octets);
                self.served_on(&mut wire)
            }
            Err(_) => Seen::one(Kind::Refused),
        }
    }

    /// Sends a message, then an innocent request on the same connection.
    pub fn message_then_served(&self, message: &[u8]) -> Seen {
        self.then_served(&ike_frame(message))
    }

    /// Sends a message and takes the first answer.
    pub fn asks(&self, message: &[u8]) -> Seen {
        let Ok(mut wire) = Wire::prefixed(self.gateway) else { return Seen::one(Kind::Refused) };
        wire.send_ike(message);
        let mut seen = Seen::default();
        self.take(&mut seen, wire.next(self.answer_max()), IkeSpi::ZERO);
        seen
    }

    /// Notes everything until the connection closes or patience ends.
    pub fn until_closed(&self, wire: &mut Wire) -> Seen {
        let deadline = Instant::now() + self.bounds.patience;
        let mut seen = Seen::default();
        loop {
            let arrival = wire.next(deadline.saturating_duration_since(Instant::now()));
            let over = matches!(arrival, Arrival::Closed(_) | Arrival::Silence | Arrival::Broken(_));
            self.take(&mut seen, arrival, IkeSpi::ZERO);
            if over {
                return seen;
            }
        }
    }

    /// Asks for an innocent IKE SA on a connection and notes all that comes until its answer.
    pub fn served_on(&self, wire: &mut Wire) -> Seen {
        let init = self.init();
        wire.send_ike(&init.octets());
        let mut seen = Seen::default();
        let deadline = Instant::now() + self.answer_max();
        loop {
            let arrival = wire.next(deadline.saturating_duration_since(Instant::now()));
            self.take(&mut seen, arrival, init.header.spi_i);
            if !matches!(seen.last(), Some(Kind::Notify(_))) {
                return seen;
            }
        }
    }

    /// Notes an arrival; `innocent` is the SPI of the innocent request, if there was one.
    pub fn take(&self, seen: &mut Seen, arrival: Arrival, innocent: IkeSpi) {
        match arrival {
            Arrival::Ike(message) => match read(&message) {
                Some((spi, kind)) if spi == innocent => match kind {
                    Kind::Taken => seen.push(Kind::Served),
                    Kind::Notify(kind) => {
                        seen.push_noted(Kind::Odd, format!("{kind} to an innocent IKE_SA_INIT"));
                    }
                    other => seen.push(other),
                },
                Some((_, kind)) => seen.push(kind),
                None => seen.push_noted(Kind::Odd, "an answer that does not decode".into()),
            },
            Arrival::Esp(_) => seen.push_noted(Kind::Odd, "ESP for nobody".into()),
            Arrival::Broken(text) => seen.push_noted(Kind::Odd, text),
            Arrival::Closed(after) => seen.push_closed(after),
            Arrival::Silence => seen.push(Kind::Silent),
        }
    }

    /// Begins an innocent IKE SA on a connection of its own.
    ///
    /// # Errors
    /// What was seen instead of a response.
    pub fn innocent(&self) -> Result<(), String> {
        let mut wire = Wire::connect(self.gateway).map_err(|error| error.to_string())?;
        let init = self.init();
        wire.send(&[b"IKETCP", ike_frame(&init.octets()).as_slice()].concat());
        let answer = wire.next(self.answer_max());
        // A responder under attack may ask for a cookie, and serve a few that do without the puzzle (RFC 8019 §7).
        let answer = match cookie(&answer) {
            Some(cookie) => {
                let body = [&[0, 0, 0x40, 0x06], cookie.as_slice()].concat();
                wire.send_ike(&init.clone().with_first(Part::new(PayloadType::NOTIFY, body)).octets());
                wire.next(self.answer_max())
            }
            None => answer,
        };
        let mut seen = Seen::default();
        self.take(&mut seen, answer, init.header.spi_i);
        if seen.last() == Some(Kind::Served) { Ok(()) } else { Err(seen.to_string()) }
    }
}

/// Whose response a message in clear is, and of what kind.
fn read(message: &[u8]) -> Option<(IkeSpi, Kind)> {
    let header = IkeHeader::decode(message).ok()?;
    if header.length as usize != message.len() || !header.flags.is_response() {
        return None;
    }
    let mut kind = Kind::Odd;
    for raw in Message::decode(message).ok()?.payloads() {
        match raw.ok()?.decode().ok()? {
            Payload::Sa(_) => kind = Kind::Taken,
            Payload::Notify(notify) if notify.kind == NotifyType::COOKIE => kind = Kind::Challenge,
            Payload::Notify(notify) if notify.kind.is_error() => kind = Kind::Notify(notify.kind),
            _ => {}
        }
    }
    Some((header.spi_i, kind))
}

/// The cookie that an answer asks for.
fn cookie(answer: &Arrival) -> Option<Vec<u8>> {
    let Arrival::Ike(message) = answer else { return None };
    Message::decode(message).ok()?.payloads().find_map(|raw| match raw.ok()?.decode().ok()? {
        Payload::Notify(notify) if notify.kind == NotifyType::COOKIE => Some(notify.data.to_vec()),
        _ => None,
    })
}
