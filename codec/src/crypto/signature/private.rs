//! Private keys of ours, and signing with them.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RsaEncoding, RsaKeyPair,
};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

use super::algorithm::{Algorithm, Hash};
use super::public::Curve;
use super::{AuthSignature, HashSet, PublicKey, RsaScheme, SignatureError};
use crate::ike::{AuthMethod, HashId};

/// Why a private key was not loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyLoadError {
    /// No PEM section with a private key.
    #[error(
        "no PEM section PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY that can be read; encrypted keys cannot"
    )]
    NoKey,
    /// A key, but of a kind that is not used here, or damaged.
    #[error(
        "private key is not RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, or Ed25519, or it is damaged"
    )]
    Unsupported,
}

/// A private key that signs AUTH payloads. Wiped on drop by the library, never printed.
pub struct PrivateKey {
    pair: Pair,
    spki: Vec<u8>,
}

enum Pair {
    Rsa(RsaKeyPair),
    /// The same key twice: signatures as DER for method 14, of fixed length for methods 9 to 11.
    Ec {
        curve: Curve,
        der: EcdsaKeyPair,
        fixed: EcdsaKeyPair,
    },
    Ed25519(Ed25519KeyPair),
}

impl PrivateKey {
    /// Takes the first private key of a PEM file: PKCS #8, PKCS #1 (RSA) or SEC 1 (EC), not encrypted.
    ///
    /// # Errors
    /// See [`KeyLoadError`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyLoadError> {
        let der = PrivateKeyDer::from_pem_slice(pem).map_err(|_| KeyLoadError::NoKey)?;
        Self::from_der(der.secret_der())
    }

    /// Takes a DER private key in any of these forms.
    ///
    /// # Errors
    /// [`KeyLoadError::Unsupported`].
    pub fn from_der(der: &[u8]) -> Result<Self, KeyLoadError> {
        let pair = Pair::from_der(der).ok_or(KeyLoadError::Unsupported)?;
        let spki = pair.spki().ok_or(KeyLoadError::Unsupported)?;
        Ok(Self { pair, spki })
    }

    /// Whether this is the private half of `public`: a certificate and its key must go together.
    pub fn is_of(&self, public: &PublicKey<'_>) -> bool {
        self.spki == public.spki()
    }

    /// The DER SubjectPublicKeyInfo of the public half.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Signs `octets` ([`super::super::signed_octets`]).
    ///
    /// `peer_hashes` is what the peer announced in SIGNATURE_HASH_ALGORITHMS; with it method 14 is used
    /// (RFC 7427 §4). Without it the signature is of method 1 (RSA, SHA2-256) or 9 to 11 (ECDSA).
    ///
    /// # Errors
    /// [`SignatureError::NoCommonHash`] when the peer's hashes do not go with the key, or when there is no
    /// older method for it; [`SignatureError::NotSigned`] when the library fails.
    pub fn sign(
        &self,
        peer_hashes: Option<HashSet>,
        rsa: RsaScheme,
        octets: &[u8],
    ) -> Result<AuthSignature, SignatureError> {
        match peer_hashes {
            Some(hashes) => self.sign_digital(hashes, rsa, octets),
            None => self.sign_older(octets),
        }
    }

    fn sign_digital(
        &self,
        hashes: HashSet,
        rsa: RsaScheme,
        octets: &[u8],
    ) -> Result<AuthSignature, SignatureError> {
        let common = || Hash::ALL.into_iter().find(|hash| hashes.contains(hash.id()));
        let (algorithm, value) = match &self.pair {
            Pair::Rsa(key) => {
                let hash = common().ok_or(SignatureError::NoCommonHash)?;
                match rsa {
                    RsaScheme::Pss => {
                        let salt_len = hash.output_len().into();
                        (Algorithm::RsaPss { hash, salt_len }, sign_rsa(key, rsa_pss(hash), octets)?)
                    }
                    RsaScheme::Pkcs1 => (Algorithm::RsaPkcs1(hash), sign_rsa(key, rsa_pkcs1(hash), octets)?),
                }
            }
            // RFC 7427 §3: ECDSA goes with the hash of the curve's strength.
            Pair::Ec { curve, der, .. } => {
                let hash = Some(curve_hash(*curve)).filter(|hash| hashes.contains(hash.id()));
                (Algorithm::Ecdsa(hash.ok_or(SignatureError::NoCommonHash)?), sign_ec(der, octets)?)
            }
            // RFC 8420 §2: Ed25519 hashes by itself, and only where the peer announced Identity.
            Pair::Ed25519(key) => {
                if !hashes.contains(HashId::IDENTITY) {
                    return Err(SignatureError::NoCommonHash);
                }
                let value = key.try_sign(octets).map_err(|_| SignatureError::NotSigned)?;
                (Algorithm::Ed25519, value.as_ref().to_vec())
            }
        };
        let identifier = algorithm.encode();
        let len = u8::try_from(identifier.len()).map_err(|_| SignatureError::NotSigned)?;
        let data = [&[len], &identifier[..], &value].concat();
        Ok(AuthSignature { method: AuthMethod::DIGITAL_SIGNATURE, data })
    }

    fn sign_older(&self, octets: &[u8]) -> Result<AuthSignature, SignatureError> {
        let (method, data) = match &self.pair {
            Pair::Rsa(key) => (AuthMethod::RSA_SIGNATURE, sign_rsa(key, rsa_pkcs1(Hash::Sha256), octets)?),
            Pair::Ec { curve, fixed, .. } => (curve.method(), sign_ec(fixed, octets)?),
            Pair::Ed25519(_) => return Err(SignatureError::NoCommonHash),
        };
        Ok(AuthSignature { method, data })
    }
}

impl Pair {
    fn from_der(der: &[u8]) -> Option<Self> {
        // The library refuses RSA keys below 2048 bits (RFC 8247 §3.1), and checks every key for consistency.
        if let Ok(key) = RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der)) {
            return Some(Self::Rsa(key));
        }
        if let Ok(key) = Ed25519KeyPair::from_pkcs8(der) {
            return Some(Self::Ed25519(key));
        }
        [Curve::P256, Curve::P384, Curve::P521].into_iter().find_map(|curve| {
            let (asn1, fixed) = ecdsa(curve);
            let der_pair = EcdsaKeyPair::from_private_key_der(asn1, der).ok()?;
            let fixed = EcdsaKeyPair::from_private_key_der(fixed, der).ok()?;
            Some(Self::Ec { curve, der: der_pair, fixed })
        })
    }

    fn spki(&self) -> Option<Vec<u8>> {
        let der = match self {
            Self::Rsa(key) => key.public_key().as_der(),
            Self::Ec { der, .. } => der.public_key().as_der(),
            Self::Ed25519(key) => key.public_key().as_der(),
        };
        der.ok().map(|der| der.as_ref().to_vec())
    }
}

fn sign_rsa(
    key: &RsaKeyPair,
    encoding: &'static dyn RsaEncoding,
    octets: &[u8],
) -> Result<Vec<u8>, SignatureError> {
    let mut value = vec![0; key.public_modulus_len()];
    key.sign(encoding, &SystemRandom::new(), octets, &mut value).map_err(|_| SignatureError::NotSigned)?;
    Ok(value)
}

fn sign_ec(key: &EcdsaKeyPair, octets: &[u8]) -> Result<Vec<u8>, SignatureError> {
    let value = key.sign(&SystemRandom::new(), octets).map_err(|_| SignatureError::NotSigned)?;
    Ok(value.as_ref().to_vec())
}

fn rsa_pkcs1(hash: Hash) -> &'static dyn RsaEncoding {
    match hash {
        Hash::Sha256 => &signature::RSA_PKCS1_SHA256,
        Hash::Sha384 => &signature::RSA_PKCS1_SHA384,
        Hash::Sha512 => &signature::RSA_PKCS1_SHA512,
    }
}

fn rsa_pss(hash: Hash) -> &'static dyn RsaEncoding {
    match hash {
        Hash::Sha256 => &signature::RSA_PSS_SHA256,
        Hash::Sha384 => &signature::RSA_PSS_SHA384,
        Hash::Sha512 => &signature::RSA_PSS_SHA512,
    }
}

fn curve_hash(curve: Curve) -> Hash {
    match curve {
        Curve::P256 => Hash::Sha256,
        Curve::P384 => Hash::Sha384,
        Curve::P521 => Hash::Sha512,
    }
}

/// The curve's signing algorithms: signatures as DER, and of fixed length.
fn ecdsa(curve: Curve) -> (&'static EcdsaSigningAlgorithm, &'static EcdsaSigningAlgorithm) {
    match curve {
        Curve::P256 => {
            (&signature::ECDSA_P256_SHA256_ASN1_SIGNING, &signature::ECDSA_P256_SHA256_FIXED_SIGNING)
        }
        Curve::P384 => {
            (&signature::ECDSA_P384_SHA384_ASN1_SIGNING, &signature::ECDSA_P384_SHA384_FIXED_SIGNING)
        }
        Curve::P521 => {
            (&signature::ECDSA_P521_SHA512_ASN1_SIGNING, &signature::ECDSA_P521_SHA512_FIXED_SIGNING)
        }
    }
}
