//! A peer in the middle of its attach: it has keys and has not authenticated.

use super::seen::{Kind, Seen};
use super::stage::{ANSWER_MAX, notification, read};
use super::wire::{Arrival, Wire};
use crate::ue::{Event, Forgery, Initiator, Subscriber, UeConfig};
use codec::OsRandom;
use codec::eap::{Code, EapPacket};
use codec::ike::payload::{AuthView, NotifyView, Proposal};
use codec::ike::{AuthMethod, ExchangeType, IkeHeader, MessageBuilder, NotifyType, PayloadType, ProtocolId};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// AUTH data that proves nothing.
pub const WRONG_PROOF: [u8; 32] = [0x5a; 32];

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
                    fragments = notification(&message, NotifyType::IKEV2_FRAGMENTATION_SUPPORTED).is_some();
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

    /// An IKE_AUTH with its identity and the proof given, if any.
    pub fn proof(&mut self, proof: Option<&[u8]>) -> Vec<u8> {
        let (config, idi) = (self.config.clone(), self.who.idi.clone());
        self.forge_auth(1, |builder| {
            builder.id_i(&idi.view());
            fill_auth(builder, &config, proof);
        })
    }

    /// The end of most cases: an IKE_AUTH with a wrong proof, whose refusal shows that the IKE SA is still there.
    pub fn refused(&mut self) -> Seen {
        let message = self.proof(Some(&WRONG_PROOF));
        self.asks(&message)
    }

    /// Sends a message and notes what comes until an answer that is protected, or nothing more.
    pub fn asks(&mut self, message: &[u8]) -> Seen {
        self.wire.send_ike(message);
        self.hears(ANSWER_MAX)
    }

    /// Notes what comes until an answer that is protected, or nothing more.
    pub fn hears(&mut self, wait: Duration) -> Seen {
        let mut seen = Seen::default();
        let answer = note_answer(&mut self.wire, &self.initiator, wait, &mut seen);
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
pub fn note_answer(
    wire: &mut Wire,
    initiator: &Initiator,
    wait: Duration,
    seen: &mut Seen,
) -> Vec<(PayloadType, Vec<u8>)> {
    let deadline = Instant::now() + wait;
    loop {
        match next_answer(wire, deadline.saturating_duration_since(Instant::now())) {
            Arrival::Ike(message) => match initiator.read(&message) {
                Some(payloads) => {
                    seen.push(kind_of(&payloads));
                    return payloads;
                }
                None => match read(&message) {
                    Some((_, kind @ Kind::Notify(_))) => seen.push(kind),
                    _ => seen.push_noted(Kind::Odd, "an answer that is not authentic".into()),
                },
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

/// What arrives next but requests of the responder's own, such as whether the peer lives (RFC 7296 §2.4).
pub fn next_answer(wire: &mut Wire, wait: Duration) -> Arrival {
    let deadline = Instant::now() + wait;
    loop {
        match wire.next(deadline.saturating_duration_since(Instant::now())) {
            Arrival::Ike(message) if is_request(&message) => {}
            other => return other,
        }
    }
}

/// Whether a message says that it is a request.
fn is_request(message: &[u8]) -> bool {
    IkeHeader::decode(message).is_ok_and(|header| !header.flags.is_response())
}

#[cfg(test)]
mod tests {
    use super::super::wire::ike_frame;
    use super::*;
    use codec::ike::{Flags, IkeSpi, MessageId};
    use std::io::Write;
    use std::net::TcpListener;

    #[test]
    fn r7296_2_4_requests_of_the_responder_are_no_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut wire = Wire::connect(listener.local_addr().unwrap()).unwrap();
        let message = |response| {
            let (spis, flags) = (IkeSpi([7; 8]), Flags::new(false, response));
            let message = MessageBuilder::new(spis, spis, ExchangeType::INFORMATIONAL, flags, MessageId(0));
            message.finish().unwrap()
        };
        let mut stream = listener.accept().unwrap().0;
        let frames = [message(false), message(false), message(true)].map(|message| ike_frame(&message));
        stream.write_all(&frames.concat()).unwrap();
        let answer = next_answer(&mut wire, ANSWER_MAX);
        assert!(matches!(&answer, Arrival::Ike(octets) if *octets == message(true)), "{answer:?}");
        assert!(matches!(next_answer(&mut wire, Duration::from_millis(20)), Arrival::Silence));
    }
}
