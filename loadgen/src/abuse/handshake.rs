//! A peer in the middle of its attach: it has keys and has not authenticated.

use super::seen::{Kind, Seen};
use super::stage::ANSWER_MAX;
use super::wire::{Arrival, Wire};
use crate::ue::{Event, Forgery, Initiator, Subscriber, UeConfig};
use codec::OsRandom;
use codec::eap::{Code, EapPacket};
use codec::ike::payload::{AuthView, NotifyView, Proposal};
use codec::ike::{AuthMethod, ExchangeType, IkeHeader, MessageBuilder, NotifyType, PayloadType, ProtocolId};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

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
    /// The last EAP packet of the responder.
    pub eap: Vec<u8>,
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
                let (config, eap) = (config.clone(), Vec::new());
                return Ok(Self { wire, initiator, config, who, auth, fragments, eap });
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
        let answer = note_answer(&mut self.wire, &self.initiator, &mut seen);
        let eap = answer.into_iter().find(|(kind, _)| *kind == PayloadType::EAP);
        self.eap = eap.map(|(_, packet)| packet).unwrap_or_default();
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

/// Reads until an answer with keys, whose payloads it returns, the end, or silence.
pub fn note_answer(wire: &mut Wire, initiator: &Initiator, seen: &mut Seen) -> Vec<(PayloadType, Vec<u8>)> {
    let deadline = Instant::now() + ANSWER_MAX;
    loop {
        match wire.next(deadline.saturating_duration_since(Instant::now())) {
            Arrival::Ike(message) => match initiator.read(&message) {
                Some(payloads) => {
                    seen.push(kind_of(&payloads));
                    return payloads;
                }
                None => seen.push(clear_kind(&message)),
            },
            Arrival::Esp(_) => continue,
            Arrival::Broken(text) => seen.push_noted(Kind::Odd, text),
            Arrival::Closed(after) => seen.push_closed(after),
            Arrival::Silence => seen.push(Kind::Silent),
        }
        // An answer in clear may be followed by one that counts.
        if !matches!(seen.last(), Some(Kind::Notify(_))) {
            return Vec::new();
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
