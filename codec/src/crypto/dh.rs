//! Key exchange: MODP groups 14 to 16 (RFC 3526), NIST curves 19 to 21 (RFC 5903), X25519 (RFC 8031).

use aws_lc_rs::agreement::{self, Algorithm, UnparsedPublicKey};
use codec_native::modp::{ModpError, ModpGroup, ModpSecret};
use zeroize::Zeroizing;

use super::secret::Secret;
use crate::Random;
use crate::ike::KeGroup;

/// Groups that [`KeyExchange`] implements, strongest of their kind first.
pub const SUPPORTED_GROUPS: [KeGroup; 7] = [
    KeGroup::CURVE25519,
    KeGroup::ECP_521,
    KeGroup::ECP_384,
    KeGroup::ECP_256,
    KeGroup::MODP_4096,
    KeGroup::MODP_3072,
    KeGroup::MODP_2048,
];

/// Draws of a secret scalar before giving up. A draw fails with probability below 2^-32 on every curve.
const DRAWS_MAX: usize = 16;

/// First octet of an uncompressed point (SEC 1 §2.3.3); IKE leaves it out (RFC 5903 §7).
const UNCOMPRESSED: u8 = 4;

/// g^ir, the result of a key exchange.
pub type SharedSecret = Secret;

/// Why a key exchange failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeError {
    /// The group is not implemented here.
    #[error("group {0} is not supported")]
    UnsupportedGroup(KeGroup),
    /// The peer's value is not a valid public value of the group (RFC 6989 §2).
    #[error("public value is not valid in its group")]
    BadPublic,
    /// The library refused to make a key.
    #[error("no key could be made")]
    NoKey,
}

/// Our half of one key exchange. It agrees once and is gone.
pub struct KeyExchange {
    group: KeGroup,
    secret: SecretHalf,
    public: Vec<u8>,
}

enum SecretHalf {
    Curve(&'static Algorithm, agreement::PrivateKey),
    Modp(ModpSecret),
}

impl KeyExchange {
    /// Draws a key pair of `group`.
    ///
    /// # Errors
    /// [`KeError::UnsupportedGroup`], or [`KeError::NoKey`] when the library fails.
    pub fn generate(group: KeGroup, random: &mut dyn Random) -> Result<Self, KeError> {
        match modp_group(group) {
            Some(modp) => Self::generate_modp(group, modp, random),
            None => Self::generate_curve(group, random),
        }
    }

    /// The group.
    pub fn group(&self) -> KeGroup {
        self.group
    }

    /// Our public value as a KE payload carries it.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// Completes the exchange with the peer's public value.
    ///
    /// For the NIST curves the result is the x coordinate alone (RFC 5903 §7).
    ///
    /// # Errors
    /// [`KeError::BadPublic`] for a value of the wrong length, a MODP value outside 2 to p - 2, a point off
    /// the curve (RFC 6989 §2), or an X25519 value that leads to all zeros (RFC 7748 §6.1).
    pub fn agree(self, peer: &[u8]) -> Result<SharedSecret, KeError> {
        match self.secret {
            SecretHalf::Modp(secret) => match secret.agree(peer) {
                Ok(mut shared) => Ok(Secret::new(std::mem::take(&mut *shared))),
                Err(ModpError::BadPublic) => Err(KeError::BadPublic),
                Err(_) => Err(KeError::NoKey),
            },
            SecretHalf::Curve(algorithm, secret) => {
                let point = point(self.group, peer);
                if point.len() != public_len(self.group) {
                    return Err(KeError::BadPublic);
                }
                agreement::agree(
                    &secret,
                    UnparsedPublicKey::new(algorithm, &point),
                    KeError::BadPublic,
                    |shared| Ok(Secret::from(shared)),
                )
            }
        }
    }

    fn generate_modp(group: KeGroup, modp: ModpGroup, random: &mut dyn Random) -> Result<Self, KeError> {
        let mut exponent = Zeroizing::new(vec![0; modp.exponent_len()]);
        random.fill(&mut exponent);
        let secret = ModpSecret::new(modp, &exponent).map_err(|_| KeError::NoKey)?;
        let public = secret.public().map_err(|_| KeError::NoKey)?;
        Ok(Self { group, secret: SecretHalf::Modp(secret), public })
    }

    fn generate_curve(group: KeGroup, random: &mut dyn Random) -> Result<Self, KeError> {
        let (algorithm, scalar_len, top_mask) = curve(group).ok_or(KeError::UnsupportedGroup(group))?;
        let mut scalar = Zeroizing::new(vec![0; scalar_len]);
        for _ in 0..DRAWS_MAX {
            random.fill(&mut scalar);
            scalar[0] &= top_mask;
            // A scalar of 0 or beyond the order is refused, and drawn again (SP 800-56A §5.6.1.2.2).
            let Ok(secret) = agreement::PrivateKey::from_private_key(algorithm, &scalar) else { continue };
            let public = secret.compute_public_key().map_err(|_| KeError::NoKey)?;
            let public = match group {
                KeGroup::CURVE25519 => public.as_ref(),
                _ => public.as_ref().strip_prefix(&[UNCOMPRESSED]).ok_or(KeError::NoKey)?,
            };
            return Ok(Self { group, public: public.to_vec(), secret: SecretHalf::Curve(algorithm, secret) });
        }
        Err(KeError::NoKey)
    }
}

fn modp_group(group: KeGroup) -> Option<ModpGroup> {
    match group {
        KeGroup::MODP_2048 => Some(ModpGroup::Modp2048),
        KeGroup::MODP_3072 => Some(ModpGroup::Modp3072),
        KeGroup::MODP_4096 => Some(ModpGroup::Modp4096),
        _ => None,
    }
}

/// Library algorithm, octets of a scalar, and the bits its first octet may use.
fn curve(group: KeGroup) -> Option<(&'static Algorithm, usize, u8)> {
    match group {
        KeGroup::ECP_256 => Some((&agreement::ECDH_P256, 32, 0xff)),
        KeGroup::ECP_384 => Some((&agreement::ECDH_P384, 48, 0xff)),
        KeGroup::ECP_521 => Some((&agreement::ECDH_P521, 66, 0x01)),
        KeGroup::CURVE25519 => Some((&agreement::X25519, 32, 0xff)),
        _ => None,
    }
}

/// Octets of a curve's public value as the library takes it.
fn public_len(group: KeGroup) -> usize {
    match group {
        KeGroup::ECP_256 => 1 + 64,
        KeGroup::ECP_384 => 1 + 96,
        KeGroup::ECP_521 => 1 + 132,
        _ => 32,
    }
}

/// The peer's value as the library takes it.
fn point(group: KeGroup, peer: &[u8]) -> Vec<u8> {
    match group {
        KeGroup::CURVE25519 => peer.to_vec(),
        _ => [&[UNCOMPRESSED], peer].concat(),
    }
}
