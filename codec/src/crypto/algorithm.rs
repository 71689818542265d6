//! Algorithms and their transforms: the one place where a number of the registry meets an implementation.
//!
//! The SK payload of IKE takes the ciphers and integrity algorithms that ESP takes, so both share
//! [`EspCipher`] and [`EspInteg`].

use crate::esp::{EspCipher, EspInteg};
use crate::ike::payload::Transform;
use crate::ike::{EncrId, EsnId, IntegId, KeGroup, PrfId, TransformType};

/// A pseudorandom function of IKE.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Prf {
    /// PRF_HMAC_SHA1 (RFC 2104).
    HmacSha1,
    /// PRF_HMAC_SHA2_256 (RFC 4868).
    HmacSha2_256,
    /// PRF_HMAC_SHA2_384 (RFC 4868).
    HmacSha2_384,
    /// PRF_HMAC_SHA2_512 (RFC 4868).
    HmacSha2_512,
}

impl Prf {
    /// The number on the wire.
    pub fn id(self) -> PrfId {
        match self {
            Self::HmacSha1 => PrfId::HMAC_SHA1,
            Self::HmacSha2_256 => PrfId::HMAC_SHA2_256,
            Self::HmacSha2_384 => PrfId::HMAC_SHA2_384,
            Self::HmacSha2_512 => PrfId::HMAC_SHA2_512,
        }
    }

    /// The function with a number; `None` when it is not known here.
    pub fn from_id(id: PrfId) -> Option<Self> {
        let all = [Self::HmacSha1, Self::HmacSha2_256, Self::HmacSha2_384, Self::HmacSha2_512];
        all.into_iter().find(|prf| prf.id() == id)
    }

    /// strongSwan's keyword.
    pub(crate) fn keyword(self) -> &'static str {
        match self {
            Self::HmacSha1 => "prfsha1",
            Self::HmacSha2_256 => "prfsha256",
            Self::HmacSha2_384 => "prfsha384",
            Self::HmacSha2_512 => "prfsha512",
        }
    }

    /// The function built on the same hash as `integ`.
    pub(crate) fn of_integ(integ: EspInteg) -> Self {
        match integ {
            EspInteg::HmacSha1_96 => Self::HmacSha1,
            EspInteg::HmacSha2_256_128 => Self::HmacSha2_256,
            EspInteg::HmacSha2_384_192 => Self::HmacSha2_384,
            EspInteg::HmacSha2_512_256 => Self::HmacSha2_512,
        }
    }
}

/// What a negotiation compares: an algorithm as its transform.
pub(crate) trait Negotiable: Copy {
    fn transform(self) -> Transform;
}

impl Negotiable for EspCipher {
    fn transform(self) -> Transform {
        // RFC 7296 §3.3.5: Key Length goes with ciphers of several key lengths, and only with those.
        let (id, key_bits) = match self {
            Self::Aes128Gcm16 => (EncrId::AES_GCM_16, Some(128)),
            Self::Aes256Gcm16 => (EncrId::AES_GCM_16, Some(256)),
            Self::ChaCha20Poly1305 => (EncrId::CHACHA20_POLY1305, None),
            Self::Aes128Cbc => (EncrId::AES_CBC, Some(128)),
            Self::Aes192Cbc => (EncrId::AES_CBC, Some(192)),
            Self::Aes256Cbc => (EncrId::AES_CBC, Some(256)),
            Self::TripleDesCbc => (EncrId::TRIPLE_DES, None),
        };
        Transform { kind: TransformType::ENCR, id: id.0, key_bits }
    }
}

impl Negotiable for EspInteg {
    fn transform(self) -> Transform {
        let id = match self {
            Self::HmacSha1_96 => IntegId::HMAC_SHA1_96,
            Self::HmacSha2_256_128 => IntegId::HMAC_SHA2_256_128,
            Self::HmacSha2_384_192 => IntegId::HMAC_SHA2_384_192,
            Self::HmacSha2_512_256 => IntegId::HMAC_SHA2_512_256,
        };
        Transform::new(TransformType::INTEG, id.0)
    }
}

impl Negotiable for Prf {
    fn transform(self) -> Transform {
        Transform::new(TransformType::PRF, self.id().0)
    }
}

impl Negotiable for KeGroup {
    fn transform(self) -> Transform {
        Transform::new(TransformType::KE, self.0)
    }
}

impl Negotiable for EsnId {
    fn transform(self) -> Transform {
        Transform::new(TransformType::ESN, self.0)
    }
}
