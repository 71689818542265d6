//! The pseudorandom function and prf+ (RFC 7296 §2.13).

use codec_native::hmac::{HmacAlgorithm, HmacKey, TAG_LEN_MAX};
use zeroize::Zeroizing;

use super::algorithm::Prf;
use super::secret::Secret;

impl Prf {
    /// Octets of output; also the preferred key length, as all supported functions are HMACs.
    pub fn output_len(self) -> usize {
        self.hmac().tag_len()
    }

    /// prf(key, parts concatenated).
    pub fn compute(self, key: &[u8], parts: &[&[u8]]) -> Secret {
        let tag = Zeroizing::new(HmacKey::new(self.hmac(), key).tag(parts));
        Secret::from(&tag[..self.output_len()])
    }

    /// The first `len` octets of prf+(key, seed).
    ///
    /// # Panics
    /// If `len` needs more than the 255 rounds that RFC 7296 §2.13 defines: no set of keys comes near.
    pub fn plus(self, key: &[u8], seed: &[u8], len: usize) -> Secret {
        let hmac = HmacKey::new(self.hmac(), key);
        let mut out = Vec::with_capacity(len);
        let mut block = Zeroizing::new([0; TAG_LEN_MAX]);
        for round in 1..=u8::MAX {
            if out.len() == len {
                break;
            }
            let chained = if round == 1 { 0 } else { self.output_len() };
            *block = hmac.tag(&[&block[..chained], seed, &[round]]);
            let wanted = self.output_len().min(len - out.len());
            out.extend_from_slice(&block[..wanted]);
        }
        assert_eq!(out.len(), len, "prf+ is defined for 255 rounds");
        Secret::new(out)
    }

    fn hmac(self) -> HmacAlgorithm {
        match self {
            Self::HmacSha1 => HmacAlgorithm::Sha1,
            Self::HmacSha2_256 => HmacAlgorithm::Sha256,
            Self::HmacSha2_384 => HmacAlgorithm::Sha384,
            Self::HmacSha2_512 => HmacAlgorithm::Sha512,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Prf; 4] = [Prf::HmacSha1, Prf::HmacSha2_256, Prf::HmacSha2_384, Prf::HmacSha2_512];

    fn hex(octets: &[u8]) -> String {
        octets.iter().map(|octet| format!("{octet:02x}")).collect()
    }

    /// RFC 4231 §4.3, test case 2, and for SHA-1 RFC 2202 §3, test case 2.
    #[test]
    fn r7296_2_13_prf_known_answers() {
        let expected = [
            "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e\
             8e2240ca5e69e2c78b3239ecfab21649",
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554\
             9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
        ];
        for (prf, expected) in ALL.into_iter().zip(expected) {
            let tag = prf.compute(b"Jefe", &[b"what do ya want ", b"for nothing?"]);
            assert_eq!(hex(tag.as_bytes()), expected, "{prf:?}");
        }
    }

    #[test]
    fn r7296_2_13_prf_plus_chains_its_blocks() {
        for prf in ALL {
            let t1 = prf.compute(b"key", &[b"seed", &[1]]);
            let t2 = prf.compute(b"key", &[t1.as_bytes(), b"seed", &[2]]);
            let t3 = prf.compute(b"key", &[t2.as_bytes(), b"seed", &[3]]);
            let whole = [t1.as_bytes(), t2.as_bytes(), t3.as_bytes()].concat();
            for len in [0, 1, prf.output_len(), prf.output_len() + 1, whole.len()] {
                assert_eq!(prf.plus(b"key", b"seed", len).as_bytes(), &whole[..len], "{prf:?} {len}");
            }
        }
    }

    #[test]
    fn r7296_2_13_prf_plus_reaches_its_255th_round() {
        let prf = Prf::HmacSha2_256;
        assert_eq!(prf.plus(b"key", b"seed", 255 * 32).as_bytes().len(), 255 * 32);
    }
}
