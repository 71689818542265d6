//! The server of EAP-AKA (RFC 4187) and EAP-AKA' (RFC 9048), without I/O.
//!
//! An [`AkaServer`] is one authentication. It begins with the peer's EAP-Response/Identity and takes one response per
//! call of [`AkaServer::handle`]; each call answers with the next request or the end. Subscribers, sequence numbers and
//! the identities that were given out live behind [`AuthCentre`].

mod challenge;
mod identity;
mod reauth;
mod server;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use codec::crypto::Secret;
use codec::eap::aka::{ReauthKeys, Variant};
use codec::eap::usim::{AuthVector, Auts, Rand};
use zeroize::Zeroizing;

pub use server::AkaServer;

use crate::control::responder::RejectCause;

/// What a home network knows: subscribers, and the identities their UEs hide behind.
///
/// All calls return at once. IMSIs are digits only; names are user names without realm, with their leading digit.
pub trait AuthCentre {
    /// Makes a quintet that was never used before: the sequence number in it must not come again, not even after a
    /// restart. For EAP-AKA' the highest bit of AMF must be set (the separation bit, TS 33.402 §6.2); CK and IK are those
    /// of the USIM in either case.
    ///
    /// # Errors
    /// Why there is none: [`RejectCause::UserUnknown`], or that the subscriber is barred.
    fn vector(&mut self, imsi: &str, variant: Variant) -> Result<AuthVector, RejectCause>;

    /// Takes the sequence number that a USIM is at from its answer to `rand`, the challenge of the last vector; the next
    /// vector must be beyond it.
    ///
    /// # Errors
    /// [`RejectCause::AuthenticationFailed`] when AUTS is not from this USIM.
    fn resynchronise(&mut self, imsi: &str, rand: &Rand, auts: &Auts) -> Result<(), RejectCause>;

    /// Whether a subscriber that has proved its identity may in. A refusal is told to the UE under its keys
    /// (AT_NOTIFICATION 1026 or 1031).
    ///
    /// # Errors
    /// Why not.
    fn admit(&mut self, imsi: &str) -> Result<(), RejectCause> {
        let _ = imsi;
        Ok(())
    }

    /// The IMSI that a pseudonym stands for.
    fn of_pseudonym(&mut self, name: &str) -> Option<Arc<str>>;

    /// Remembers a pseudonym that a subscriber has been given; the one before stays valid until the new one is used.
    fn keep_pseudonym(&mut self, imsi: &str, name: &str);

    /// Takes out what a fast re-authentication identity stands for: it is good for one use.
    fn take_reauth(&mut self, name: &str) -> Option<Reauth>;

    /// Remembers a fast re-authentication identity that a subscriber has been given, in the place of any before.
    fn keep_reauth(&mut self, name: &str, reauth: Reauth);
}

/// What a fast re-authentication needs.
#[derive(Clone)]
pub struct Reauth {
    /// Whose it is.
    pub imsi: Arc<str>,
    /// Keys of the full authentication.
    pub keys: ReauthKeys,
    /// Counter of the next re-authentication; the first has 1.
    pub counter: u16,
}

/// How a server goes about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AkaPolicy {
    /// Which method.
    pub method: MethodChoice,
    /// Network name of EAP-AKA' (TS 24.302 §8.1.1.2): "WLAN".
    pub network_name: Arc<str>,
    /// Whether subscribers get pseudonyms.
    pub pseudonyms: bool,
    /// Fast re-authentications after one full authentication; 0 for none.
    pub reauth_max: u16,
    /// Whether success is told under keys where the peer can (AT_RESULT_IND): a round more.
    pub protected_success: bool,
    /// Whether every peer is asked for its identity by the method itself, as RFC 4187 §4.1.4 advises where others may
    /// change EAP-Response/Identity; in IKEv2, where nobody can, only those that are not known are asked.
    pub always_ask_identity: bool,
}

impl Default for AkaPolicy {
    fn default() -> Self {
        Self {
            method: MethodChoice::ByIdentity,
            network_name: "WLAN".into(),
            pseudonyms: true,
            reauth_max: 16,
            protected_success: false,
            always_ask_identity: false,
        }
    }
}

/// Which of the two methods is proposed, and whether the other will do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MethodChoice {
    /// This one and no other.
    Only(Variant),
    /// This one, the other for a peer that asks for it by a Nak. Who prefers EAP-AKA' says so in EAP-AKA (AT_BIDDING), and
    /// a peer that was kept from it ends the authentication.
    Prefer(Variant),
    /// The one that the first digit of the identity names, EAP-AKA without one; the other after a Nak.
    ByIdentity,
}

impl MethodChoice {
    fn allows(self, variant: Variant) -> bool {
        match self {
            Self::Only(only) => variant == only,
            Self::Prefer(_) | Self::ByIdentity => true,
        }
    }
}

/// What comes of a packet.
pub enum Verdict {
    /// An EAP-Request for the peer.
    Continue(Vec<u8>),
    /// The peer is a subscriber and may in.
    Success(Box<Authenticated>),
    /// It may not in.
    Failure(Refused),
}

/// A peer that has proved who it is.
pub struct Authenticated {
    /// EAP-Success.
    pub packet: Vec<u8>,
    /// Master Session Key, 64 octets.
    pub msk: Zeroizing<Vec<u8>>,
    /// The subscriber.
    pub imsi: Arc<str>,
    /// By which method.
    pub variant: Variant,
    /// Whether it was a fast re-authentication, which asked no USIM and made no quintet.
    pub fast: bool,
}

/// Why a peer is not let in.
pub struct Refused {
    /// EAP-Failure.
    pub packet: Vec<u8>,
    /// For counters and for the peer's error notification.
    pub cause: RejectCause,
    /// For the operator, in words.
    pub why: &'static str,
}

fn msk_of(secret: &Secret) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(secret.as_bytes().to_vec())
}
