//! Signatures in AUTH payloads: method 14 (RFC 7427, RFC 8420), and methods 1 (RFC 7296 §3.8) and 9 to 11
//! (RFC 4754) for peers that do not speak it.
//!
//! Keys come from files or certificates as DER; this module reads the few structures it needs strictly and
//! leaves the arithmetic to aws-lc. Whether a certificate is to be trusted is not decided here.

mod algorithm;
mod der;
mod private;
mod public;

pub use private::{KeyLoadError, PrivateKey};
pub use public::PublicKey;

use crate::ike::{AuthMethod, HashId};

/// What an AUTH payload is to carry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuthSignature {
    /// Authentication Method.
    pub method: AuthMethod,
    /// Authentication Data.
    pub data: Vec<u8>,
}

/// How an RSA key signs under method 14. A verifier accepts both.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RsaScheme {
    /// RSASSA-PSS, salt as long as the hash: what RFC 8247 §3.2 requires peers to know.
    #[default]
    Pss,
    /// RSASSA-PKCS1-v1_5, for peers without PSS.
    Pkcs1,
}

/// What a verifier accepts beyond the current rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SignaturePolicy {
    /// Accept SHA-1 under method 1, which RFC 8247 §3 forbids and old peers still send.
    pub allow_rsa_sha1: bool,
}

/// Why a signature was not made or not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SignatureError {
    /// The authentication method is no signature, or does not go with the key.
    #[error("authentication method {0} does not go with the key")]
    WrongMethod(AuthMethod),
    /// The AlgorithmIdentifier is malformed, weak or not known (RFC 7427 §3).
    #[error("signature algorithm is malformed, weak or not known")]
    UnsupportedAlgorithm,
    /// The signature algorithm does not go with the key.
    #[error("signature algorithm does not go with the key")]
    KeyMismatch,
    /// The key is malformed, of a kind not known, or too short.
    #[error("public key is malformed, too short or of a kind not known")]
    UnsupportedKey,
    /// The peer accepts no hash that the key can sign with.
    #[error("peer accepts no hash that the key can sign with")]
    NoCommonHash,
    /// The signature does not verify.
    #[error("signature does not verify")]
    BadSignature,
    /// The library failed to sign.
    #[error("signing failed")]
    NotSigned,
}

/// Hash algorithms of a SIGNATURE_HASH_ALGORITHMS notification (RFC 7427 §4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HashSet(u8);

impl HashSet {
    /// What we verify, and so announce: SHA2-256, SHA2-384, SHA2-512 and Identity (Ed25519).
    pub const OURS: [HashId; 4] = [HashId::SHA2_256, HashId::SHA2_384, HashId::SHA2_512, HashId::IDENTITY];

    /// Whether the peer accepts `hash`.
    pub fn contains(self, hash: HashId) -> bool {
        Self::bit(hash) & self.0 != 0
    }

    /// The notification's data that announces [`Self::OURS`].
    pub fn notify_data() -> Vec<u8> {
        Self::OURS.iter().flat_map(|hash| hash.0.to_be_bytes()).collect()
    }

    fn bit(hash: HashId) -> u8 {
        u8::try_from(hash.0).ok().and_then(|shift| 1u8.checked_shl(shift.into())).unwrap_or(0)
    }
}

impl FromIterator<HashId> for HashSet {
    /// Hashes that are not known here are left out.
    fn from_iter<I: IntoIterator<Item = HashId>>(hashes: I) -> Self {
        Self(hashes.into_iter().fold(0, |set, hash| set | Self::bit(hash)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r7427_4_hash_list_keeps_what_is_known() {
        let set: HashSet = [HashId::SHA2_384, HashId(9), HashId(300)].into_iter().collect();
        assert!(set.contains(HashId::SHA2_384));
        assert!(!set.contains(HashId::SHA2_256));
        assert!(!set.contains(HashId(9)) && !set.contains(HashId(300)));
        assert_eq!(HashSet::notify_data(), [0, 2, 0, 3, 0, 4, 0, 5]);
    }
}
