//! The peer of EAP-AKA (RFC 4187) and EAP-AKA' (RFC 9048), without I/O.
//!
//! [`EapPeer::handle`] takes each packet of the server and says what to answer. The [`Sim`] outlives it: sequence numbers,
//! pseudonym and fast re-authentication identity serve the next attach.

mod challenge;
mod reauth;
mod sim;

pub use sim::{Sim, SimKeys, Subscriber};

use super::EndCause;
use challenge::Answered;
use codec::Random;
use codec::crypto::Secret;
use codec::eap::aka::{
    AkaBuilder, AkaMessage, Checkcode, Encrypted, IdentityRequest, IdentityRound, Notification, ReauthKeys,
    Subtype, UNABLE_TO_PROCESS, Variant,
};
use codec::eap::{Code, EapPacket, Method};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// What a packet of the server leads to.
pub(super) enum PeerStep {
    /// Answer with this.
    Respond(Vec<u8>),
    /// The server is content and so are we; whether it was a fast re-authentication.
    Success(Secret, bool),
    /// The server gives up.
    Failure(EndCause),
}

/// One authentication from the UE's side.
pub(super) struct EapPeer {
    variant: Variant,
    network_name: Arc<str>,
    sim: Rc<RefCell<Sim>>,
    /// What we called ourselves last, octet for octet.
    identity: Vec<u8>,
    round: IdentityRound,
    asked: Option<IdentityRequest>,
    /// The list of KDFs before the one we asked for was put in front.
    kdf_wish: Option<Vec<u16>>,
    answered: Option<Answered>,
    /// What the server told before it gave up, or why we do not go on.
    told: Option<String>,
}

impl EapPeer {
    /// A peer that has called itself `identity` already, in IDi.
    pub(super) fn new(
        variant: Variant,
        network_name: Arc<str>,
        sim: Rc<RefCell<Sim>>,
        identity: Vec<u8>,
    ) -> Self {
        let round = IdentityRound::new(variant);
        Self {
            variant,
            network_name,
            sim,
            identity,
            round,
            asked: None,
            kdf_wish: None,
            answered: None,
            told: None,
        }
    }

    /// Takes a packet of the server.
    ///
    /// # Errors
    /// The server breaks the rules of EAP itself; those of the method are answered by a Client-Error.
    pub(super) fn handle(&mut self, packet: &[u8], random: &mut dyn Random) -> Result<PeerStep, EndCause> {
        let packet = EapPacket::decode(packet).map_err(|_| EndCause::BadAnswer("malformed EAP packet"))?;
        match (packet.code, packet.method) {
            (Code::Request, Some(method)) if Variant::of_method(method) == Some(self.variant) => {
                Ok(PeerStep::Respond(self.handle_method(packet, random)))
            }
            (Code::Request, Some(Method::IDENTITY)) => {
                Ok(PeerStep::Respond(respond(&packet, Method::IDENTITY, &self.identity)))
            }
            (Code::Request, Some(Method::NOTIFICATION)) => {
                Ok(PeerStep::Respond(respond(&packet, Method::NOTIFICATION, &[])))
            }
            // RFC 3748 §5.3.1: what we would rather do.
            (Code::Request, Some(other)) => {
                self.told = Some(format!("server proposes {other}"));
                Ok(PeerStep::Respond(respond(&packet, Method::NAK, &[self.variant.method().0])))
            }
            (Code::Success, _) => self.succeed(),
            (Code::Failure, _) => {
                let why = self.told.take().unwrap_or_else(|| "EAP-Failure".to_owned());
                Ok(PeerStep::Failure(EndCause::Eap(why)))
            }
            (Code::Request, None) | (Code::Response, _) => {
                Err(EndCause::BadAnswer("EAP packet out of place"))
            }
        }
    }

    /// RFC 4187 §6.2: success counts once the server has shown its keys, and under them if both ends wanted that.
    fn succeed(&mut self) -> Result<PeerStep, EndCause> {
        let answered = self.answered.take().ok_or(EndCause::BadAnswer("EAP-Success without proof"))?;
        self.told = None;
        if answered.result_ind && !answered.success_told {
            return Err(EndCause::BadAnswer("EAP-Success without its protected notification"));
        }
        self.sim.borrow_mut().take_over(answered.keys, answered.names, answered.counter);
        Ok(PeerStep::Success(answered.msk, answered.counter.is_some()))
    }

    fn handle_method(&mut self, packet: EapPacket<'_>, random: &mut dyn Random) -> Vec<u8> {
        let identifier = packet.identifier;
        let handled = match AkaMessage::decode(packet) {
            Ok(message) => match message.subtype {
                Subtype::Identity => self.handle_identity(&message),
                Subtype::Challenge => self.handle_challenge(&message),
                Subtype::Reauthentication => self.handle_reauth(&message, random),
                Subtype::Notification => self.handle_notification(&message, random),
                _ => Err("request that is none of a server's"),
            },
            Err(_) => Err("EAP-AKA message does not decode"),
        };
        // RFC 4187 §6.3.1: a request that is wrong is answered by a Client-Error; the server ends it.
        handled.unwrap_or_else(|why| {
            self.told = Some(why.to_owned());
            AkaBuilder::new(self.variant, Code::Response, identifier, Subtype::ClientError)
                .client_error(UNABLE_TO_PROCESS)
                .finish()
        })
    }

    /// RFC 4187 §4.1.6: gives as little as is asked for, and nothing for a request that asks for no more than the last.
    fn handle_identity(&mut self, message: &AkaMessage<'_>) -> Result<Vec<u8>, &'static str> {
        let request = message.attributes.identity_request.ok_or("identity request is missing")?;
        if self.asked.is_some_and(|asked| request <= asked) || self.answered.is_some() {
            return Err("identity request out of order");
        }
        self.asked = Some(request);
        self.identity = self.sim.borrow().identity_for(request, self.variant).into_bytes();
        let packet = self.response(message, Subtype::Identity).identity(&self.identity).finish();
        self.round.add(message.packet.octets);
        self.round.add(&packet);
        Ok(packet)
    }

    /// RFC 4187 §6.1: answered under keys once there are some, and remembered for EAP-Failure.
    fn handle_notification(
        &mut self,
        message: &AkaMessage<'_>,
        random: &mut dyn Random,
    ) -> Result<Vec<u8>, &'static str> {
        let code = message.attributes.notification.ok_or("AT_NOTIFICATION is missing")?;
        let mut builder = self.response(message, Subtype::Notification);
        if code.before_authentication() {
            self.note(code);
            return Ok(builder.finish());
        }
        let answered = self.answered.as_mut().ok_or("notification after an authentication that was none")?;
        let keys = &answered.keys;
        message.verify_mac(keys.k_aut.as_bytes(), b"").map_err(|_| "AT_MAC is wrong")?;
        if let Some(counter) = answered.counter {
            let inner = Encrypted::default().counter(counter);
            builder = builder.encrypted(inner, keys.k_encr.as_bytes(), random);
        }
        answered.success_told |= code.is_success();
        let packet = builder.finish_with_mac(keys.k_aut.as_bytes(), b"");
        self.note(code);
        Ok(packet)
    }

    fn note(&mut self, code: Notification) {
        if !code.is_success() && self.told.is_none() {
            self.told = Some(code.to_string());
        }
    }

    fn response(&self, message: &AkaMessage<'_>, subtype: Subtype) -> AkaBuilder {
        AkaBuilder::new(self.variant, Code::Response, message.packet.identifier, subtype)
    }

    /// RFC 4187 §10.13: what the server says of the identity round must be what happened.
    fn check_round(&self, received: Option<Checkcode<'_>>) -> Result<(), &'static str> {
        match received {
            Some(received) if received != self.round.expected().checkcode() => Err("AT_CHECKCODE is wrong"),
            _ => Ok(()),
        }
    }
}

fn respond(request: &EapPacket<'_>, method: Method, data: &[u8]) -> Vec<u8> {
    EapPacket::build(Code::Response, request.identifier, method, data)
}

/// Names that the server gave, in force once it is content.
#[derive(Default)]
struct Names {
    pseudonym: Option<String>,
    reauth: Option<String>,
}

impl Names {
    /// Reads the decrypted attributes of a request.
    fn of(inner: &codec::eap::aka::Attributes<'_>) -> Self {
        let text = |octets: &[u8]| std::str::from_utf8(octets).ok().map(str::to_owned);
        Self { pseudonym: inner.next_pseudonym.and_then(text), reauth: inner.next_reauth_id.and_then(text) }
    }
}

/// What a fast re-authentication identity is good for.
struct Remembered {
    name: String,
    keys: ReauthKeys,
    /// The greatest counter so far.
    counter: u16,
}
