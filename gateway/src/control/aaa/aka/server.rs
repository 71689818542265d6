//! One authentication: which message is awaited, and what its arrival leads to.

use std::sync::Arc;

use codec::Random;
use codec::eap::aka::{
    AkaBuilder, AkaMessage, Encrypted, IdentityRequest, IdentityRound, Notification, ReauthKeys, Subtype,
    Variant,
};
use codec::eap::{Code, EapPacket, Method};

use super::challenge::Challenge;
use super::reauth::Reauthentication;
use super::{AkaPolicy, AuthCentre, Authenticated, MethodChoice, Refused, Verdict};
use crate::control::responder::RejectCause;
use crate::limits::AKA_REQUESTS_MAX;

/// One authentication. See the [module](super) for how it is driven.
pub struct AkaServer {
    pub(super) policy: Arc<AkaPolicy>,
    state: State,
    pub(super) variant: Variant,
    /// Identity packets so far, for AT_CHECKCODE.
    pub(super) round: IdentityRound,
    /// What the peer called itself last, octet for octet: keys are made from it.
    pub(super) identity: Vec<u8>,
    /// Realm of that identity, which a fast re-authentication identity gets too.
    pub(super) realm: String,
    /// Identifier of the last request.
    identifier: u8,
    requests: u32,
    /// The peer has answered the method, so it cannot ask for another any more.
    settled: bool,
    pub(super) resynchronised: bool,
}

pub(super) enum State {
    /// The peer's EAP-Response/Identity.
    Start,
    /// An identity of the kind asked for.
    Identity(IdentityRequest),
    /// The answer to a challenge.
    Challenge(Box<Challenge>),
    /// The answer to a fast re-authentication.
    Reauth(Box<Reauthentication>),
    /// The answer to a notification, after which `end` follows.
    Notification { end: Ending, keys: Option<Proven> },
    /// Nothing more.
    Over,
}

/// What a notification leads to.
pub(super) enum Ending {
    Success(Box<Authenticated>),
    Failure(RejectCause, &'static str),
}

/// Keys that the peer has shown to have; notifications are sent under them from then on.
#[derive(Clone)]
pub(super) struct Proven {
    pub(super) keys: ReauthKeys,
    /// AT_COUNTER of a fast re-authentication (RFC 4187 §9.10).
    pub(super) counter: Option<u16>,
}

/// What a step needs from outside.
pub(super) struct Outside<'a> {
    pub(super) centre: &'a mut dyn AuthCentre,
    pub(super) random: &'a mut dyn Random,
}

impl AkaServer {
    /// An authentication that has not begun.
    pub fn new(policy: Arc<AkaPolicy>) -> Self {
        let variant = match policy.method {
            MethodChoice::Only(variant) | MethodChoice::Prefer(variant) => variant,
            MethodChoice::ByIdentity => Variant::Aka,
        };
        Self {
            policy,
            state: State::Start,
            variant,
            round: IdentityRound::new(variant),
            identity: Vec::new(),
            realm: String::new(),
            identifier: 0,
            requests: 0,
            settled: false,
            resynchronised: false,
        }
    }

    /// Takes a packet of the peer, the first of which is an EAP-Response/Identity.
    ///
    /// After [`Verdict::Success`] and [`Verdict::Failure`] every further packet is a failure.
    pub fn handle(&mut self, packet: &[u8], centre: &mut dyn AuthCentre, random: &mut dyn Random) -> Verdict {
        let mut outside = Outside { centre, random };
        let Ok(packet) = EapPacket::decode(packet) else {
            return self.fail(RejectCause::PeerProtocol, "EAP packet does not decode");
        };
        let first = matches!(self.state, State::Start);
        if packet.code != Code::Response || (!first && packet.identifier != self.identifier) {
            return self.fail(RejectCause::PeerProtocol, "not the response to the last request");
        }
        self.identifier = packet.identifier;
        match packet.method {
            Some(Method::IDENTITY) if first => self.begin(packet.data, &mut outside),
            Some(Method::NAK) if !first => self.handle_nak(&packet, &mut outside),
            _ => self.handle_method(packet, &mut outside),
        }
    }

    /// RFC 3748 §5.3.1: another method, if it is one of ours that may be.
    fn handle_nak(&mut self, nak: &EapPacket<'_>, outside: &mut Outside<'_>) -> Verdict {
        let other = match self.variant {
            Variant::Aka => Variant::AkaPrime,
            Variant::AkaPrime => Variant::Aka,
        };
        let wanted = nak.wanted().any(|method| method == other.method());
        if self.settled || !wanted || !self.policy.method.allows(other) {
            return self.fail(RejectCause::AuthenticationFailed, "peer refuses the EAP method");
        }
        // One change of mind is all there can be.
        self.settled = true;
        self.variant = other;
        self.round = IdentityRound::new(other);
        let identity = std::mem::take(&mut self.identity);
        self.identified(&identity, None, outside)
    }

    fn handle_method(&mut self, packet: EapPacket<'_>, outside: &mut Outside<'_>) -> Verdict {
        let message = match AkaMessage::decode(packet) {
            Ok(message) if message.variant == self.variant => message,
            Ok(_) => return self.refuse(RejectCause::PeerProtocol, "peer answers by another method"),
            Err(_) => return self.refuse(RejectCause::PeerProtocol, "EAP-AKA message does not decode"),
        };
        self.settled = true;
        let state = std::mem::replace(&mut self.state, State::Over);
        match (state, message.subtype) {
            // RFC 4187 §6.3.3: these end the conversation without a notification.
            (State::Start | State::Over, _) => self.fail(RejectCause::PeerProtocol, "message out of place"),
            (_, Subtype::ClientError) => {
                self.fail(RejectCause::PeerProtocol, "peer cannot process our request")
            }
            (State::Identity(asked), Subtype::Identity) => self.handle_identity(asked, &message, outside),
            (State::Challenge(challenge), _) => self.handle_challenge(*challenge, &message, outside),
            (State::Reauth(reauth), Subtype::Reauthentication) => {
                self.handle_reauth(*reauth, &message, outside)
            }
            (State::Notification { end, keys }, Subtype::Notification) => {
                self.handle_notified(end, keys, &message)
            }
            _ => self.refuse(RejectCause::PeerProtocol, "message out of place"),
        }
    }

    /// RFC 4187 §6.1: the answer to a notification after authentication has a MAC; what it says does not change a failure.
    fn handle_notified(&mut self, end: Ending, proven: Option<Proven>, message: &AkaMessage<'_>) -> Verdict {
        match (end, proven) {
            (Ending::Failure(cause, why), _) => self.fail(cause, why),
            (Ending::Success(done), Some(proven)) => {
                match message.verify_mac(proven.keys.k_aut.as_bytes(), b"") {
                    Ok(()) => self.done(done),
                    Err(_) => self.fail(RejectCause::AuthenticationFailed, "AT_MAC is wrong"),
                }
            }
            (Ending::Success(_), None) => self.fail(RejectCause::NetworkFailure, "success without keys"),
        }
    }

    /// Sends a request and awaits what answers it.
    pub(super) fn ask(&mut self, packet: Vec<u8>, state: State) -> Verdict {
        self.state = state;
        Verdict::Continue(packet)
    }

    /// The next request, unless there were too many.
    pub(super) fn request(&mut self, subtype: Subtype) -> Option<AkaBuilder> {
        self.requests += 1;
        self.identifier = self.identifier.wrapping_add(1);
        let within = self.requests <= AKA_REQUESTS_MAX;
        within.then(|| AkaBuilder::new(self.variant, Code::Request, self.identifier, subtype))
    }

    /// Ends at once.
    pub(super) fn fail(&mut self, cause: RejectCause, why: &'static str) -> Verdict {
        self.state = State::Over;
        Verdict::Failure(Refused { packet: EapPacket::failure(self.identifier), cause, why })
    }

    /// Ends before the peer has proved anything: it is told so first (RFC 4187 §6.3.2).
    pub(super) fn refuse(&mut self, cause: RejectCause, why: &'static str) -> Verdict {
        let Some(builder) = self.request(Subtype::Notification) else { return self.fail(cause, why) };
        let packet = builder.notification(Notification::GENERAL_FAILURE).finish();
        self.ask(packet, State::Notification { end: Ending::Failure(cause, why), keys: None })
    }

    /// The peer has proved who it is: success, told under its keys if both ends want that, or the refusal of the service.
    pub(super) fn proved(
        &mut self,
        done: Box<Authenticated>,
        proven: Proven,
        result_ind: bool,
        outside: &mut Outside<'_>,
    ) -> Verdict {
        let (notification, end) = match outside.centre.admit(&done.imsi) {
            Ok(()) if result_ind => (Notification::SUCCESS, Ending::Success(done)),
            Ok(()) => return self.done(done),
            Err(cause) => (notification_of(cause), Ending::Failure(cause, "subscriber has not this service")),
        };
        let Some(builder) = self.request(Subtype::Notification) else {
            return self.fail(RejectCause::PeerProtocol, "too many rounds");
        };
        let keys = &proven.keys;
        let mut builder = builder.notification(notification);
        if let Some(counter) = proven.counter {
            let inner = Encrypted::default().counter(counter);
            builder = builder.encrypted(inner, keys.k_encr.as_bytes(), outside.random);
        }
        let packet = builder.finish_with_mac(keys.k_aut.as_bytes(), b"");
        self.ask(packet, State::Notification { end, keys: Some(proven) })
    }

    fn done(&mut self, mut done: Box<Authenticated>) -> Verdict {
        self.state = State::Over;
        done.packet = EapPacket::success(self.identifier);
        Verdict::Success(done)
    }
}

/// What a UE is told about a service it may not have (RFC 4187 §10.19).
fn notification_of(cause: RejectCause) -> Notification {
    match cause {
        RejectCause::UserUnknown | RejectCause::NoNon3gppSubscription | RejectCause::NoApnSubscription => {
            Notification::NOT_SUBSCRIBED
        }
        RejectCause::NetworkFailure | RejectCause::Unreachable | RejectCause::PeerProtocol => {
            Notification::GENERAL_FAILURE_AFTER
        }
        _ => Notification::TEMPORARILY_DENIED,
    }
}
