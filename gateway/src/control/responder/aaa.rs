//! What the responder asks of an AAA back end, and what it is told (RFC 7296 §2.16, 3GPP TS 33.402 §8.2).
//!
//! The responder speaks IKE only: EAP packets pass through it between the UE and the back end. An order leaves as
//! [`super::Event::Aaa`]; its answer comes back by [`super::Responder::handle_aaa`], at once or much later.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::types::{SessionId, Transport};

/// One authentication, from the first IKE_AUTH without AUTH to its outcome. Never reused within a process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct AttemptId(pub u64);

/// What the responder asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AaaOrder {
    /// The peer sent an EAP packet. Answered exactly once, unless the attempt is abandoned before that.
    Step(EapStep),
    /// The attempt is over without an outcome: the peer went away, or did what it must not.
    Abandon(AttemptId),
    /// The attempt was accepted, and this session came of it.
    Attached(Box<Attached>),
}

/// One EAP packet of a peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EapStep {
    /// The attempt it belongs to.
    pub attempt: AttemptId,
    /// Name of the back end that serves it.
    pub backend: Arc<str>,
    /// The packet; that of the first step is an EAP-Response/Identity. At most a message long, not yet looked at.
    pub packet: Vec<u8>,
    /// Who and where the peer is; the same in every step but for what the peer has added.
    pub subject: Subject,
}

/// Who asks to be let in, as far as it is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subject {
    /// What it calls itself in IDi: a NAI, for a phone.
    pub idi: Arc<str>,
    /// The APN it asks for (IDr), in lower case.
    pub apn: Option<Arc<str>>,
    /// Name of its profile.
    pub profile: Arc<str>,
    /// What the profile wants of EAP.
    pub method: EapMethod,
    /// Our outside address.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// What carries its IKE.
    pub transport: Transport,
    /// Whether it is an emergency attach.
    pub emergency: bool,
    /// IMEI or IMEISV, once the peer has told it (TS 24.302 §8.2.9.2).
    pub imei: Option<Arc<str>>,
}

/// Which EAP method a profile wants.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EapMethod {
    /// EAP-AKA (RFC 4187).
    Aka,
    /// EAP-AKA' (RFC 9048).
    AkaPrime,
    /// EAP-MSCHAPv2.
    MsChapV2,
    /// EAP-TLS (RFC 5216, 9190).
    Tls,
    /// Whatever the back end proposes.
    Any,
}

impl EapMethod {
    /// Whether the method authenticates both ends and gives a key that no dictionary finds: what RFC 5998 §4 asks of
    /// an EAP that stands alone.
    pub fn is_safe_alone(self) -> bool {
        matches!(self, Self::Aka | Self::AkaPrime | Self::Tls)
    }
}

/// The answer to a step.
pub enum AaaAnswer {
    /// An EAP request for the peer.
    Continue {
        /// The packet.
        packet: Vec<u8>,
    },
    /// The peer is who it says, and may in.
    Accept(Box<Accepted>),
    /// It may not in.
    Reject {
        /// An EAP-Failure; none when the back end did not get as far.
        packet: Option<Vec<u8>>,
        /// Why, for the operator and the peer.
        cause: RejectCause,
        /// More of it, for the operator, where the back end knows.
        why: Option<&'static str>,
    },
}

/// A peer that was let in.
pub struct Accepted {
    /// EAP-Success.
    pub packet: Vec<u8>,
    /// The Master Session Key (RFC 3748 §7.10), from which both ends make AUTH: 64 octets by most methods. Empty
    /// when the method gives none, which is not let in.
    pub msk: Zeroizing<Vec<u8>>,
    /// The peer's permanent identity, where it hid behind another.
    pub identity: Option<Arc<str>>,
    /// Inner addresses the back end assigns, at most one per family; none leaves it to the profile's pool.
    pub inner: Vec<IpAddr>,
    /// Another pool than the profile's.
    pub pool: Option<Arc<str>>,
    /// P-CSCF addresses instead of the profile's.
    pub p_cscf: Vec<IpAddr>,
    /// How long the session may last.
    pub session_timeout: Option<Duration>,
}

/// Why a peer is not let in. The names are those of counters and records.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum RejectCause {
    /// The peer failed to prove its identity.
    AuthenticationFailed,
    /// No such subscriber.
    UserUnknown,
    /// The subscriber has no access by Wi-Fi.
    NoNon3gppSubscription,
    /// The subscriber has not this APN.
    NoApnSubscription,
    /// Authorization refused for another reason.
    AuthorizationRejected,
    /// This kind of access is barred.
    RatNotAllowed,
    /// The subscriber may not roam here.
    RoamingNotAllowed,
    /// The device is barred.
    IllegalEquipment,
    /// The subscriber has as many sessions as it may.
    MaxConnections,
    /// Unauthenticated emergency calls are not supported.
    EmergencyNotSupported,
    /// The back end is overloaded or asks to come back later.
    Congestion,
    /// No server of the back end answered in time.
    Unreachable,
    /// The back end answered what cannot be used, or could not do its work.
    NetworkFailure,
    /// The peer broke the rules of EAP.
    PeerProtocol,
}

impl RejectCause {
    /// Every cause.
    pub const ALL: [Self; 14] = [
        Self::AuthenticationFailed,
        Self::UserUnknown,
        Self::NoNon3gppSubscription,
        Self::NoApnSubscription,
        Self::AuthorizationRejected,
        Self::RatNotAllowed,
        Self::RoamingNotAllowed,
        Self::IllegalEquipment,
        Self::MaxConnections,
        Self::EmergencyNotSupported,
        Self::Congestion,
        Self::Unreachable,
        Self::NetworkFailure,
        Self::PeerProtocol,
    ];

    /// It in words, for records of attempts.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::AuthenticationFailed => "the UE failed to prove its identity to the AAA server",
            Self::UserUnknown => "the AAA server does not know the subscriber",
            Self::NoNon3gppSubscription => "the subscriber has no access by Wi-Fi",
            Self::NoApnSubscription => "the subscriber has not this APN",
            Self::AuthorizationRejected => "the AAA server refused authorization",
            Self::RatNotAllowed => "this kind of access is barred for the subscriber",
            Self::RoamingNotAllowed => "the subscriber may not roam here",
            Self::IllegalEquipment => "the device is barred",
            Self::MaxConnections => "the subscriber has as many sessions as it may",
            Self::EmergencyNotSupported => "emergency attach without authentication is not supported",
            Self::Congestion => "the AAA back end is overloaded",
            Self::Unreachable => "no AAA server answered in time",
            Self::NetworkFailure => "the AAA back end failed or answered what cannot be used",
            Self::PeerProtocol => "the UE broke the rules of EAP",
        }
    }

    /// Its name in counters.
    pub fn name(self) -> &'static str {
        match self {
            Self::AuthenticationFailed => "authentication_failed",
            Self::UserUnknown => "user_unknown",
            Self::NoNon3gppSubscription => "no_non3gpp_subscription",
            Self::NoApnSubscription => "no_apn_subscription",
            Self::AuthorizationRejected => "authorization_rejected",
            Self::RatNotAllowed => "rat_not_allowed",
            Self::RoamingNotAllowed => "roaming_not_allowed",
            Self::IllegalEquipment => "illegal_equipment",
            Self::MaxConnections => "max_connections",
            Self::EmergencyNotSupported => "emergency_not_supported",
            Self::Congestion => "congestion",
            Self::Unreachable => "aaa_unreachable",
            Self::NetworkFailure => "aaa_failure",
            Self::PeerProtocol => "eap_protocol",
        }
    }
}

/// A session that came of an attempt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attached {
    /// The attempt.
    pub attempt: AttemptId,
    /// The session; its end comes as [`super::Event::CloseSession`].
    pub session: SessionId,
    /// Its inner addresses.
    pub inner: Box<[IpAddr]>,
    /// How long it may last.
    pub timeout: Option<Duration>,
    /// Who and where.
    pub subject: Subject,
}

/// Why a session ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum EndCause {
    /// The UE said so.
    #[default]
    Peer,
    /// The UE does not answer any more.
    Lost,
    /// Its time was up.
    Timeout,
    /// An administrator said so.
    Administrator,
    /// The AAA server said so.
    Server,
    /// The gateway ends.
    Shutdown,
    /// The UE attached anew in its place.
    Replaced,
    /// The UE broke the rules, or the gateway could not go on.
    Error,
}
