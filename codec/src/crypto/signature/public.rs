//! Public keys of peers, and verifying with them.

use aws_lc_rs::signature::{self, RsaParameters, RsaPssSaltLength, VerificationAlgorithm};

use super::algorithm::{Algorithm, ED25519, Hash};
use super::der::{BIT_STRING, Der, INTEGER, OID, SEQUENCE, context};
use super::{SignatureError, SignaturePolicy};
use crate::ike::AuthMethod;

/// The smallest RSA modulus that is accepted, in bits (RFC 8247 §3.1).
const RSA_BITS_MIN: usize = 2048;

/// 1.2.840.113549.1.1.1
const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// 1.2.840.10045.2.1
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// 1.2.840.10045.3.1.7, 1.3.132.0.34, 1.3.132.0.35
const SECP256R1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const SECP384R1: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const SECP521R1: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];

/// A NIST curve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    /// The method of RFC 4754 that names curve and hash at once.
    pub(super) fn method(self) -> AuthMethod {
        match self {
            Self::P256 => AuthMethod::ECDSA_P256_SHA256,
            Self::P384 => AuthMethod::ECDSA_P384_SHA384,
            Self::P521 => AuthMethod::ECDSA_P521_SHA512,
        }
    }
}

/// What a key can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Rsa,
    Ec(Curve),
    Ed25519,
}

/// A public key as a certificate carries it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PublicKey<'a> {
    spki: &'a [u8],
    kind: Kind,
}

impl<'a> PublicKey<'a> {
    /// Takes a DER SubjectPublicKeyInfo: RSA of at least 2048 bits, EC on a NIST curve, or Ed25519.
    ///
    /// # Errors
    /// [`SignatureError::UnsupportedKey`].
    pub fn from_spki(spki: &'a [u8]) -> Result<Self, SignatureError> {
        let kind = kind(Der(spki)).ok_or(SignatureError::UnsupportedKey)?;
        Ok(Self { spki, kind })
    }

    /// Takes the key of a DER certificate, whose signature and validity are not looked at.
    ///
    /// # Errors
    /// [`SignatureError::UnsupportedKey`].
    pub fn from_certificate(certificate: &'a [u8]) -> Result<Self, SignatureError> {
        Self::from_spki(spki(Der(certificate)).ok_or(SignatureError::UnsupportedKey)?)
    }

    /// The DER SubjectPublicKeyInfo.
    pub fn spki(&self) -> &'a [u8] {
        self.spki
    }

    /// Verifies the content of an AUTH payload over `octets` ([`super::super::signed_octets`]).
    ///
    /// # Errors
    /// See [`SignatureError`]; all of them are AUTHENTICATION_FAILED to the peer.
    pub fn verify(
        &self,
        method: AuthMethod,
        data: &[u8],
        octets: &[u8],
        policy: SignaturePolicy,
    ) -> Result<(), SignatureError> {
        match (method, self.kind) {
            (AuthMethod::DIGITAL_SIGNATURE, _) => self.verify_digital(data, octets),
            (AuthMethod::RSA_SIGNATURE, Kind::Rsa) => self.verify_rsa(data, octets, policy),
            (method, Kind::Ec(curve)) if method == curve.method() => match curve {
                Curve::P256 => self.check(&signature::ECDSA_P256_SHA256_FIXED, data, octets),
                Curve::P384 => self.check(&signature::ECDSA_P384_SHA384_FIXED, data, octets),
                Curve::P521 => self.check(&signature::ECDSA_P521_SHA512_FIXED, data, octets),
            },
            (method, _) => Err(SignatureError::WrongMethod(method)),
        }
    }

    /// Method 14: length octet, AlgorithmIdentifier, signature (RFC 7427 §3).
    fn verify_digital(&self, data: &[u8], octets: &[u8]) -> Result<(), SignatureError> {
        let (&len, rest) = data.split_first().ok_or(SignatureError::UnsupportedAlgorithm)?;
        let (identifier, value) =
            rest.split_at_checked(usize::from(len)).ok_or(SignatureError::UnsupportedAlgorithm)?;
        match (Algorithm::decode(identifier)?, self.kind) {
            (Algorithm::RsaPkcs1(hash), Kind::Rsa) => self.check(&rsa_pkcs1(hash), value, octets),
            (Algorithm::RsaPss { hash, salt_len }, Kind::Rsa) => {
                let salt_len = RsaPssSaltLength::Custom(salt_len);
                self.check(&rsa_pss(hash).with_pss_salt_length(salt_len), value, octets)
            }
            (Algorithm::Ecdsa(hash), Kind::Ec(curve)) => self.check(ecdsa(curve, hash), value, octets),
            (Algorithm::Ed25519, Kind::Ed25519) => self.check(&signature::ED25519, value, octets),
            _ => Err(SignatureError::KeyMismatch),
        }
    }

    /// Method 1: PKCS #1 v1.5 with any hash; which one only the signature itself tells (RFC 7296 §3.8).
    fn verify_rsa(&self, data: &[u8], octets: &[u8], policy: SignaturePolicy) -> Result<(), SignatureError> {
        if Hash::ALL.into_iter().any(|hash| self.check(&rsa_pkcs1(hash), data, octets).is_ok()) {
            return Ok(());
        }
        if policy.allow_rsa_sha1 {
            return self.check(&signature::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, data, octets);
        }
        Err(SignatureError::BadSignature)
    }

    fn check(
        &self,
        algorithm: &dyn VerificationAlgorithm,
        signature: &[u8],
        octets: &[u8],
    ) -> Result<(), SignatureError> {
        algorithm.verify_sig(self.spki, octets, signature).map_err(|_| SignatureError::BadSignature)
    }
}

fn rsa_pkcs1(hash: Hash) -> RsaParameters {
    match hash {
        Hash::Sha256 => signature::RSA_PKCS1_2048_8192_SHA256,
        Hash::Sha384 => signature::RSA_PKCS1_2048_8192_SHA384,
        Hash::Sha512 => signature::RSA_PKCS1_2048_8192_SHA512,
    }
}

fn rsa_pss(hash: Hash) -> RsaParameters {
    match hash {
        Hash::Sha256 => signature::RSA_PSS_2048_8192_SHA256,
        Hash::Sha384 => signature::RSA_PSS_2048_8192_SHA384,
        Hash::Sha512 => signature::RSA_PSS_2048_8192_SHA512,
    }
}

fn ecdsa(curve: Curve, hash: Hash) -> &'static dyn VerificationAlgorithm {
    match (curve, hash) {
        (Curve::P256, Hash::Sha256) => &signature::ECDSA_P256_SHA256_ASN1,
        (Curve::P256, Hash::Sha384) => &signature::ECDSA_P256_SHA384_ASN1,
        (Curve::P256, Hash::Sha512) => &signature::ECDSA_P256_SHA512_ASN1,
        (Curve::P384, Hash::Sha256) => &signature::ECDSA_P384_SHA256_ASN1,
        (Curve::P384, Hash::Sha384) => &signature::ECDSA_P384_SHA384_ASN1,
        (Curve::P384, Hash::Sha512) => &signature::ECDSA_P384_SHA512_ASN1,
        (Curve::P521, Hash::Sha256) => &signature::ECDSA_P521_SHA256_ASN1,
        (Curve::P521, Hash::Sha384) => &signature::ECDSA_P521_SHA384_ASN1,
        (Curve::P521, Hash::Sha512) => &signature::ECDSA_P521_SHA512_ASN1,
    }
}

/// Reads a SubjectPublicKeyInfo, which must fill `der` (RFC 5280 §4.1.2.7).
fn kind(mut der: Der<'_>) -> Option<Kind> {
    let mut spki = der.nested(SEQUENCE).filter(|_| der.is_empty())?;
    let mut identifier = spki.nested(SEQUENCE)?;
    // No unused bits: all these keys are whole octets.
    let (0, key) = spki.take(BIT_STRING).filter(|_| spki.is_empty())?.split_first()? else {
        return None;
    };
    match identifier.take(OID)? {
        RSA_ENCRYPTION => {
            let modulus = Der(key).nested(SEQUENCE)?.unsigned()?;
            let bits = modulus.len() * 8 - modulus.first()?.leading_zeros() as usize;
            (bits >= RSA_BITS_MIN).then_some(Kind::Rsa)
        }
        EC_PUBLIC_KEY => match identifier.take(OID)? {
            SECP256R1 => Some(Kind::Ec(Curve::P256)),
            SECP384R1 => Some(Kind::Ec(Curve::P384)),
            SECP521R1 => Some(Kind::Ec(Curve::P521)),
            _ => None,
        },
        ED25519 => identifier.is_empty().then_some(Kind::Ed25519),
        _ => None,
    }
}

/// Finds the SubjectPublicKeyInfo of a certificate (RFC 5280 §4.1).
fn spki(mut der: Der<'_>) -> Option<&[u8]> {
    let mut tbs = der.nested(SEQUENCE)?.nested(SEQUENCE)?;
    // The version is explicit in every certificate with extensions, and absent in version 1.
    tbs.take(context(0));
    tbs.take(INTEGER)?;
    // Signature algorithm, issuer, validity, subject.
    for _ in 0..4 {
        tbs.take(SEQUENCE)?;
    }
    let (tag, _, spki) = tbs.any()?;
    (tag == SEQUENCE).then_some(spki)
}
