//! Where cases on a bare stream play: the responder, and innocent requests to compare with.

use super::draft::Draft;
use super::seen::{Kind, Seen};
use super::wire::{Arrival, Wire, ike_frame};
use crate::ue::{Initiator, Subscriber, UeConfig};
use codec::crypto::IkeProposal;
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
    /// What it offers.
    pub ike: Vec<IkeProposal>,
}

impl Stage {
    /// Prepares for a responder that takes one of the proposals of `config`; `None` when it holds none.
    pub fn new(gateway: SocketAddr, config: &Arc<UeConfig>, who: Subscriber, bounds: Bounds) -> Option<Self> {
        let mut initiator = Initiator::new(config.clone(), who);
        // Addresses as behind a NAT: over TCP they change nothing (RFC 9329 §6.5).
        let nowhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        initiator.handle_connected(Instant::now(), nowhere, nowhere, &mut OsRandom);
        let template = initiator.poll_transmit()?.to_vec();
        Some(Self { gateway, bounds, template, ike: config.ike.clone() })
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

    /// Sends IKE_SA_INIT requests at once, then an innocent one on the same connection.
    pub fn drafts_then_served(&self, drafts: &[Draft]) -> Seen {
        let Ok(mut wire) = Wire::prefixed(self.gateway) else { return Seen::one(Kind::Refused) };
        wire.send(&drafts.iter().flat_map(|draft| ike_frame(&draft.octets())).collect::<Vec<_>>());
        self.served_behind(&mut wire, drafts)
    }

    /// Sends an IKE_SA_INIT request, then an innocent one on the same connection.
    pub fn draft_then_served(&self, draft: Draft) -> Seen {
        self.drafts_then_served(&[draft])
    }

    /// Sends an IKE_SA_INIT request on a connection of its own and takes the answer.
    pub fn asks(&self, draft: &Draft) -> Seen {
        let Ok(mut wire) = Wire::prefixed(self.gateway) else { return Seen::one(Kind::Refused) };
        Seen::of(self.ask_on(&mut wire, draft, self.answer_max()).1, None)
    }

    /// Sends an IKE_SA_INIT request; returns it as it was answered in the end, and the answer.
    pub fn ask_on(&self, wire: &mut Wire, draft: &Draft, wait: Duration) -> (Draft, Arrival) {
        wire.send_ike(&draft.octets());
        self.answer_to(wire, draft, wait)
    }

    /// Takes the answer to an IKE_SA_INIT request that was sent. A cookie that is asked for is returned, once.
    pub fn answer_to(&self, wire: &mut Wire, draft: &Draft, wait: Duration) -> (Draft, Arrival) {
        let arrival = wire.next(wait);
        match cookie(&arrival, draft.header.spi_i) {
            Some(cookie) => {
                let draft = draft.clone().with_cookie(&cookie);
                wire.send_ike(&draft.octets());
                (draft, wire.next(wait))
            }
            None => (draft.clone(), arrival),
        }
    }

    /// Notes everything until the connection closes or patience ends.
    pub fn until_closed(&self, wire: &mut Wire) -> Seen {
        let deadline = Instant::now() + self.bounds.patience;
        let mut seen = Seen::default();
        loop {
            let arrival = wire.next(deadline.saturating_duration_since(Instant::now()));
            let over = matches!(arrival, Arrival::Closed(_) | Arrival::Silence | Arrival::Broken(_));
            seen = seen.then_all(Seen::of(arrival, None));
            if over {
                return seen;
            }
        }
    }

    /// Asks for an innocent IKE SA on a connection and notes all that comes until its answer.
    ///
    /// A responder under attack may ask for a cookie, once, and serve a few that do without the puzzle (RFC 8019
    /// §7.1.5).
    pub fn served_on(&self, wire: &mut Wire) -> Seen {
        self.served_behind(wire, &[])
    }

    /// The same behind IKE_SA_INIT requests that were sent, each of which may have to return a cookie first.
    fn served_behind(&self, wire: &mut Wire, sent: &[Draft]) -> Seen {
        let init = self.init();
        let spi = init.header.spi_i;
        wire.send_ike(&init.octets());
        let mut waiting: Vec<&Draft> = sent.iter().chain([&init]).collect();
        let mut seen = Seen::default();
        let mut deadline = Instant::now() + self.answer_max();
        loop {
            let arrival = wire.next(deadline.saturating_duration_since(Instant::now()));
            let asked = waiting
                .iter()
                .enumerate()
                .find_map(|(at, draft)| cookie(&arrival, draft.header.spi_i).map(|cookie| (at, cookie)));
            if let Some((at, cookie)) = asked {
                wire.send_ike(&waiting.remove(at).clone().with_cookie(&cookie).octets());
                deadline = Instant::now() + self.answer_max();
                continue;
            }
            seen = seen.then_all(Seen::of(arrival, Some(spi)));
            if !matches!(seen.last(), Some(Kind::Notify(_))) {
                return seen;
            }
        }
    }

    /// Begins an innocent IKE SA on a connection of its own.
    ///
    /// # Errors
    /// What was seen instead of a response.
    pub fn innocent(&self) -> Result<(), String> {
        let mut wire = Wire::prefixed(self.gateway).map_err(|error| error.to_string())?;
        let seen = self.served_on(&mut wire);
        if seen == Seen::one(Kind::Served) { Ok(()) } else { Err(seen.to_string()) }
    }
}

/// Whose response a message in clear is, and of what kind.
pub(super) fn read(message: &[u8]) -> Option<(IkeSpi, Kind)> {
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

/// The cookie that an answer to the request with this SPI asks for.
fn cookie(answer: &Arrival, spi: IkeSpi) -> Option<Vec<u8>> {
    let Arrival::Ike(message) = answer else { return None };
    if read(message)? != (spi, Kind::Challenge) {
        return None;
    }
    notification(message, NotifyType::COOKIE)
}

/// The data of a notification of this kind in a message in clear.
pub(super) fn notification(message: &[u8], kind: NotifyType) -> Option<Vec<u8>> {
    Message::decode(message).ok()?.payloads().find_map(|raw| match raw.ok()?.decode().ok()? {
        Payload::Notify(notify) if notify.kind == kind => Some(notify.data.to_vec()),
        _ => None,
    })
}
