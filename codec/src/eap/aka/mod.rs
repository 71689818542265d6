//! EAP-AKA (RFC 4187) and EAP-AKA' (RFC 9048): messages and keys.
//!
//! ```text
//! type (u8, 23 or 50) | subtype (u8) | reserved (u16) | attributes: type (u8), length in words of 4 octets (u8), value
//! ```

mod attribute;
mod builder;
mod checkcode;
mod fips186;
mod keys;
mod message;
mod reauth;

pub use attribute::{Attributes, Checkcode, KDFS_MAX};
pub use builder::{AkaBuilder, Encrypted};
pub use checkcode::IdentityRound;
pub use keys::{FullKeys, KDF_CK_IK_PRIME, network_name_matches, prime_ck_ik};
pub use message::{AkaError, AkaMessage};
pub use reauth::{ReauthKeys, ReauthMsk};

use super::Method;

/// Which of the two methods.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Variant {
    /// EAP-AKA: SHA-1 and the generator of FIPS 186-2.
    Aka,
    /// EAP-AKA': SHA-256, keys bound to the name of the access network.
    AkaPrime,
}

impl Variant {
    /// Its EAP type.
    pub fn method(self) -> Method {
        match self {
            Self::Aka => Method::AKA,
            Self::AkaPrime => Method::AKA_PRIME,
        }
    }

    /// The variant of an EAP type, if it is one of the two.
    pub fn of_method(method: Method) -> Option<Self> {
        match method {
            Method::AKA => Some(Self::Aka),
            Method::AKA_PRIME => Some(Self::AkaPrime),
            _ => None,
        }
    }

    /// Octets of K_aut.
    fn k_aut_len(self) -> usize {
        match self {
            Self::Aka => 16,
            Self::AkaPrime => 32,
        }
    }
}

impl std::fmt::Display for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.method().fmt(f)
    }
}

/// What a message is about (RFC 4187 §11).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subtype {
    /// Challenge and its answer.
    Challenge,
    /// The peer does not accept AUTN: the network does not know K.
    AuthenticationReject,
    /// The USIM is at another sequence number.
    SynchronizationFailure,
    /// Who the peer is.
    Identity,
    /// What the server has to say: a failure, or protected success.
    Notification,
    /// Challenge without the USIM.
    Reauthentication,
    /// The peer cannot go on.
    ClientError,
}

impl Subtype {
    fn of(octet: u8) -> Option<Self> {
        Some(match octet {
            1 => Self::Challenge,
            2 => Self::AuthenticationReject,
            4 => Self::SynchronizationFailure,
            5 => Self::Identity,
            12 => Self::Notification,
            13 => Self::Reauthentication,
            14 => Self::ClientError,
            _ => return None,
        })
    }

    fn octet(self) -> u8 {
        match self {
            Self::Challenge => 1,
            Self::AuthenticationReject => 2,
            Self::SynchronizationFailure => 4,
            Self::Identity => 5,
            Self::Notification => 12,
            Self::Reauthentication => 13,
            Self::ClientError => 14,
        }
    }
}

/// Which identity a server wants (RFC 4187 §10.2 to §10.4), from the most general to the most revealing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum IdentityRequest {
    /// AT_ANY_ID_REQ: a fast re-authentication identity will do.
    Any,
    /// AT_FULLAUTH_ID_REQ: a pseudonym will do.
    FullAuth,
    /// AT_PERMANENT_ID_REQ: the IMSI.
    Permanent,
}

/// Code of AT_NOTIFICATION (RFC 4187 §10.19): the highest bit says success, the next that it comes before
/// authentication and so without a MAC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Notification(pub u16);

impl Notification {
    /// After authentication: general failure.
    pub const GENERAL_FAILURE_AFTER: Self = Self(0);
    /// After authentication: temporarily denied access to the service.
    pub const TEMPORARILY_DENIED: Self = Self(1026);
    /// After authentication: not subscribed to the service.
    pub const NOT_SUBSCRIBED: Self = Self(1031);
    /// Before authentication: general failure.
    pub const GENERAL_FAILURE: Self = Self(16384);
    /// After authentication: the protected success.
    pub const SUCCESS: Self = Self(32768);

    /// Whether the user has been authenticated, or failed to be, without a MAC (the P bit).
    pub fn before_authentication(self) -> bool {
        self.0 & 0x4000 != 0
    }

    /// Whether it tells of success (the S bit).
    pub fn is_success(self) -> bool {
        self.0 & 0x8000 != 0
    }
}

impl std::fmt::Display for Notification {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::GENERAL_FAILURE_AFTER | Self::GENERAL_FAILURE => f.write_str("general failure"),
            Self::TEMPORARILY_DENIED => f.write_str("temporarily denied access"),
            Self::NOT_SUBSCRIBED => f.write_str("not subscribed to the service"),
            Self::SUCCESS => f.write_str("success"),
            Self(other) => write!(f, "notification {other}"),
        }
    }
}

/// Code of AT_CLIENT_ERROR_CODE (RFC 4187 §10.20): only "unable to process packet" is defined for AKA.
pub const UNABLE_TO_PROCESS: u16 = 0;
