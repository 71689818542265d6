//! Signature algorithms and the AlgorithmIdentifiers that name them (RFC 7427 §3 and Appendix A).

use super::SignatureError;
use super::der::{Der, INTEGER, NULL, OID, SEQUENCE, context, element};
use crate::ike::HashId;

/// 1.2.840.113549.1.1.10 and .8
const RSASSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];
const MGF1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08];
/// 1.3.101.112
pub(super) const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// A hash of the SHA-2 family. SHA-1 is not one (RFC 8247 §3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    pub(super) const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    pub(super) fn id(self) -> HashId {
        match self {
            Self::Sha256 => HashId::SHA2_256,
            Self::Sha384 => HashId::SHA2_384,
            Self::Sha512 => HashId::SHA2_512,
        }
    }

    pub(super) fn output_len(self) -> u8 {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// 2.16.840.1.101.3.4.2.1 to .3
    fn oid(self) -> &'static [u8] {
        match self {
            Self::Sha256 => &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01],
            Self::Sha384 => &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02],
            Self::Sha512 => &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03],
        }
    }

    /// shaNNNWithRSAEncryption: 1.2.840.113549.1.1.11 to .13
    fn rsa_oid(self) -> &'static [u8] {
        match self {
            Self::Sha256 => &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b],
            Self::Sha384 => &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c],
            Self::Sha512 => &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d],
        }
    }

    /// ecdsa-with-SHANNN: 1.2.840.10045.4.3.2 to .4
    fn ecdsa_oid(self) -> &'static [u8] {
        match self {
            Self::Sha256 => &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02],
            Self::Sha384 => &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03],
            Self::Sha512 => &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04],
        }
    }

    fn find(oid: &[u8], of: fn(Self) -> &'static [u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|hash| of(*hash) == oid)
    }
}

/// What method 14 signs with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Algorithm {
    RsaPkcs1(Hash),
    RsaPss { hash: Hash, salt_len: u16 },
    Ecdsa(Hash),
    Ed25519,
}

impl Algorithm {
    /// Reads an AlgorithmIdentifier, which must fill `der`.
    pub(super) fn decode(der: &[u8]) -> Result<Self, SignatureError> {
        Self::parse(Der(der)).ok_or(SignatureError::UnsupportedAlgorithm)
    }

    fn parse(mut der: Der<'_>) -> Option<Self> {
        let mut fields = der.nested(SEQUENCE).filter(|_| der.is_empty())?;
        let oid = fields.take(OID)?;
        if oid == RSASSA_PSS {
            return Self::parse_pss(fields);
        }
        if let Some(hash) = Hash::find(oid, Hash::rsa_oid) {
            // RFC 4055 §5: parameters are NULL.
            let null = fields.take(NULL).is_some_and(<[u8]>::is_empty);
            return (null && fields.is_empty()).then_some(Self::RsaPkcs1(hash));
        }
        // RFC 5758 §3.2, RFC 8410 §3: no parameters.
        let algorithm = match Hash::find(oid, Hash::ecdsa_oid) {
            Some(hash) => Self::Ecdsa(hash),
            None if oid == ED25519 => Self::Ed25519,
            None => return None,
        };
        fields.is_empty().then_some(algorithm)
    }

    /// RSASSA-PSS-params (RFC 4055 §3.1). What is left out defaults to SHA-1, which is refused
    /// (RFC 8247 §3.2).
    fn parse_pss(mut fields: Der<'_>) -> Option<Self> {
        let mut params = fields.nested(SEQUENCE).filter(|_| fields.is_empty())?;
        let mut hash = params.nested(context(0))?;
        let mut mgf = params.nested(context(1))?;
        let mut salt = params.nested(context(2))?;
        let trailer = params.nested(context(3));
        let hash = parse_hash(&mut hash).filter(|_| hash.is_empty())?;
        let mut mask = mgf.nested(SEQUENCE).filter(|_| mgf.is_empty())?;
        let is_mgf1 = mask.take(OID)? == MGF1;
        let mask_hash = parse_hash(&mut mask).filter(|_| mask.is_empty())?;
        let salt_len = match salt.unsigned().filter(|_| salt.is_empty())? {
            [] => 0,
            [low] => u16::from(*low),
            [high, low] => u16::from_be_bytes([*high, *low]),
            _ => return None,
        };
        let trailer_is_1 = trailer.is_none_or(|mut trailer| trailer.unsigned() == Some(&[1]));
        (is_mgf1 && mask_hash == hash && trailer_is_1 && params.is_empty())
            .then_some(Self::RsaPss { hash, salt_len })
    }

    /// The AlgorithmIdentifier.
    pub(super) fn encode(self) -> Vec<u8> {
        let null = element(NULL, &[]);
        match self {
            Self::RsaPkcs1(hash) => element(SEQUENCE, &[&element(OID, &[hash.rsa_oid()]), &null]),
            Self::Ecdsa(hash) => element(SEQUENCE, &[&element(OID, &[hash.ecdsa_oid()])]),
            Self::Ed25519 => element(SEQUENCE, &[&element(OID, &[ED25519])]),
            Self::RsaPss { hash, salt_len } => {
                let hash = element(SEQUENCE, &[&element(OID, &[hash.oid()]), &null]);
                let mgf = element(SEQUENCE, &[&element(OID, &[MGF1]), &hash]);
                let params = [
                    element(context(0), &[&hash]),
                    element(context(1), &[&mgf]),
                    element(context(2), &[&encode_unsigned(salt_len)]),
                ];
                let params = element(SEQUENCE, &[&params.concat()]);
                element(SEQUENCE, &[&element(OID, &[RSASSA_PSS]), &params])
            }
        }
    }
}

/// A hash's AlgorithmIdentifier; its parameters are NULL or absent (RFC 4055 §2.1).
fn parse_hash(der: &mut Der<'_>) -> Option<Hash> {
    let mut fields = der.nested(SEQUENCE)?;
    let hash = Hash::find(fields.take(OID)?, Hash::oid)?;
    let null = fields.is_empty() || fields.take(NULL).is_some_and(<[u8]>::is_empty);
    (null && fields.is_empty()).then_some(hash)
}

fn encode_unsigned(value: u16) -> Vec<u8> {
    let octets = [0, value.to_be_bytes()[0], value.to_be_bytes()[1]];
    // The fewest octets whose first bit is clear.
    let skip = (0..2).take_while(|at| octets[*at] == 0 && octets[at + 1] & 0x80 == 0).count();
    element(INTEGER, &[&octets[skip..]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Algorithm> {
        let mut all = vec![Algorithm::Ed25519];
        for hash in Hash::ALL {
            all.extend([Algorithm::RsaPkcs1(hash), Algorithm::Ecdsa(hash)]);
            for salt_len in [0, 1, 32, 127, 128, 255, 256, 32767, 65535] {
                all.push(Algorithm::RsaPss { hash, salt_len });
            }
        }
        all
    }

    #[test]
    fn r7427_3_identifiers_survive_encode_and_decode() {
        for algorithm in all() {
            let der = algorithm.encode();
            assert_eq!(Algorithm::decode(&der), Ok(algorithm));
            for len in 0..der.len() {
                assert!(Algorithm::decode(&der[..len]).is_err(), "{algorithm:?} cut at {len}");
            }
            let longer = [&der[..], &[0]].concat();
            assert!(Algorithm::decode(&longer).is_err(), "{algorithm:?} with an octet more");
        }
    }

    /// RFC 7427 Appendix A.1 (sha256WithRSAEncryption), A.3 (ecdsa-with-sha256) and A.4.3 (RSASSA-PSS,
    /// SHA-256, salt 32).
    #[test]
    fn r7427_appendix_a_known_identifiers() {
        let rsa = [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b, 0x05, 0x00];
        assert_eq!(Algorithm::RsaPkcs1(Hash::Sha256).encode(), rsa);
        let ecdsa = [0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
        assert_eq!(Algorithm::Ecdsa(Hash::Sha256).encode(), ecdsa);
        let pss = [
            0x30, 0x41, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a, 0x30, 0x34, 0xa0,
            0x0f, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00,
            0xa1, 0x1c, 0x30, 0x1a, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08, 0x30,
            0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0xa2, 0x03,
            0x02, 0x01, 0x20,
        ];
        assert_eq!(Algorithm::RsaPss { hash: Hash::Sha256, salt_len: 32 }.encode(), pss);
    }

    #[test]
    fn r8247_3_2_pss_with_default_parameters_is_refused() {
        let oid = element(OID, &[RSASSA_PSS]);
        let none = element(SEQUENCE, &[&oid]);
        let empty = element(SEQUENCE, &[&oid, &element(SEQUENCE, &[])]);
        for der in [none, empty] {
            assert_eq!(Algorithm::decode(&der), Err(SignatureError::UnsupportedAlgorithm));
        }
    }

    #[test]
    fn r7427_3_weak_and_unknown_identifiers_are_refused() {
        // sha1WithRSAEncryption, ecdsa-with-SHA1, Ed448, and RSA without NULL.
        let sha1_rsa = element(OID, &[&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05]]);
        let refused = [
            element(SEQUENCE, &[&sha1_rsa, &[5, 0]]),
            element(SEQUENCE, &[&element(OID, &[&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01]])]),
            element(SEQUENCE, &[&element(OID, &[&[0x2b, 0x65, 0x71]])]),
            element(SEQUENCE, &[&element(OID, &[Hash::Sha256.rsa_oid()])]),
            element(SEQUENCE, &[&element(OID, &[ED25519]), &[5, 0]]),
        ];
        for der in refused {
            assert_eq!(Algorithm::decode(&der), Err(SignatureError::UnsupportedAlgorithm));
        }
    }
}
