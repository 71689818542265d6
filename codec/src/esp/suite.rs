//! Algorithms of a Child SA and their keys.

use core::fmt;

use codec_native::aead::{AeadAlgorithm, TAG_LEN};
use codec_native::cbc::BLOCK_LEN;
use codec_native::hmac::HmacAlgorithm;
use zeroize::Zeroizing;

use super::{HEADER_LEN, TRAILER_LEN};
use crate::crypto::{TRIPLE_DES_BLOCK_LEN, TRIPLE_DES_KEY_LEN};

/// Octets of the salt at the end of an AEAD's keying material (RFC 4106 §8.1, RFC 7634 §2).
pub(crate) const SALT_LEN: usize = 4;

pub(super) const KEYS_FIT: &str = "EspKeys has the lengths of its suite";

/// Octets of the explicit IV of an AEAD.
pub(crate) const AEAD_IV_LEN: usize = 8;

/// ESP aligns its trailer to this even when the cipher does not ask for it (RFC 4303 §2.4).
const ALIGN: usize = 4;

/// An encryption algorithm of ESP.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EspCipher {
    /// AES-GCM, 128-bit key, 16-octet ICV (RFC 4106).
    Aes128Gcm16,
    /// AES-GCM, 256-bit key, 16-octet ICV (RFC 4106).
    Aes256Gcm16,
    /// ChaCha20-Poly1305 (RFC 7634).
    ChaCha20Poly1305,
    /// AES-CBC, 128-bit key (RFC 3602).
    Aes128Cbc,
    /// AES-CBC, 192-bit key (RFC 3602).
    Aes192Cbc,
    /// AES-CBC, 256-bit key (RFC 3602).
    Aes256Cbc,
    /// 3DES-CBC (RFC 2451), for peers that have nothing better.
    TripleDesCbc,
}

/// An integrity algorithm of ESP, beside a cipher that does not authenticate.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EspInteg {
    /// HMAC-SHA-1-96 (RFC 2404).
    HmacSha1_96,
    /// HMAC-SHA-256-128 (RFC 4868).
    HmacSha2_256_128,
    /// HMAC-SHA-384-192 (RFC 4868).
    HmacSha2_384_192,
    /// HMAC-SHA-512-256 (RFC 4868).
    HmacSha2_512_256,
}

/// The algorithms of one Child SA. Its `Display` is the proposal in strongSwan's keywords.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct EspSuite {
    /// Encryption.
    pub cipher: EspCipher,
    /// Integrity: present exactly when the cipher is CBC ([`EspKeys::new`] refuses anything else).
    pub integ: Option<EspInteg>,
    /// Sequence numbers have 64 bits, of which 32 are sent (RFC 4303 §2.2.1).
    pub esn: bool,
}

impl EspCipher {
    /// The AEAD behind the cipher, or `None` for CBC.
    pub(crate) fn aead(self) -> Option<AeadAlgorithm> {
        match self {
            Self::Aes128Gcm16 => Some(AeadAlgorithm::Aes128Gcm),
            Self::Aes256Gcm16 => Some(AeadAlgorithm::Aes256Gcm),
            Self::ChaCha20Poly1305 => Some(AeadAlgorithm::ChaCha20Poly1305),
            Self::Aes128Cbc | Self::Aes192Cbc | Self::Aes256Cbc | Self::TripleDesCbc => None,
        }
    }

    /// Tells whether the cipher authenticates by itself and takes no integrity algorithm.
    pub fn is_aead(self) -> bool {
        self.aead().is_some()
    }

    /// Octets of a block, or `None` for an AEAD.
    pub(crate) fn block_len(self) -> Option<usize> {
        match self {
            Self::TripleDesCbc => Some(TRIPLE_DES_BLOCK_LEN),
            _ if self.is_aead() => None,
            _ => Some(BLOCK_LEN),
        }
    }

    /// Octets of the key, without salt.
    fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm16 | Self::Aes128Cbc => 16,
            Self::Aes192Cbc => 24,
            Self::TripleDesCbc => TRIPLE_DES_KEY_LEN,
            Self::Aes256Gcm16 | Self::ChaCha20Poly1305 | Self::Aes256Cbc => 32,
        }
    }

    pub(crate) fn keyword(self) -> &'static str {
        match self {
            Self::Aes128Gcm16 => "aes128gcm16",
            Self::Aes256Gcm16 => "aes256gcm16",
            Self::ChaCha20Poly1305 => "chacha20poly1305",
            Self::Aes128Cbc => "aes128",
            Self::Aes192Cbc => "aes192",
            Self::Aes256Cbc => "aes256",
            Self::TripleDesCbc => "3des",
        }
    }
}

impl EspInteg {
    pub(crate) fn hmac(self) -> HmacAlgorithm {
        match self {
            Self::HmacSha1_96 => HmacAlgorithm::Sha1,
            Self::HmacSha2_256_128 => HmacAlgorithm::Sha256,
            Self::HmacSha2_384_192 => HmacAlgorithm::Sha384,
            Self::HmacSha2_512_256 => HmacAlgorithm::Sha512,
        }
    }

    /// Octets of the key: those of the hash (RFC 4868 §2.1.1, RFC 2404 §3).
    pub fn key_len(self) -> usize {
        self.hmac().tag_len()
    }

    /// Octets of the truncated tag.
    pub fn icv_len(self) -> usize {
        match self {
            Self::HmacSha1_96 => 12,
            Self::HmacSha2_256_128 => 16,
            Self::HmacSha2_384_192 => 24,
            Self::HmacSha2_512_256 => 32,
        }
    }

    pub(crate) fn keyword(self) -> &'static str {
        match self {
            Self::HmacSha1_96 => "sha1",
            Self::HmacSha2_256_128 => "sha256",
            Self::HmacSha2_384_192 => "sha384",
            Self::HmacSha2_512_256 => "sha512",
        }
    }
}

impl EspSuite {
    /// Octets of encryption key, with an AEAD's salt.
    pub fn encr_key_len(&self) -> usize {
        self.cipher.key_len() + if self.cipher.is_aead() { SALT_LEN } else { 0 }
    }

    /// Octets of integrity key; 0 for an AEAD.
    pub fn integ_key_len(&self) -> usize {
        self.integ.map_or(0, EspInteg::key_len)
    }

    /// Octets of keying material of one direction.
    pub fn keymat_len(&self) -> usize {
        self.encr_key_len() + self.integ_key_len()
    }

    /// The most octets ESP adds to an inner packet, without the frame's Length.
    pub fn overhead_max(&self) -> usize {
        HEADER_LEN + self.iv_len() + (self.align() - 1) + TRAILER_LEN + self.icv_len()
    }

    /// Octets of the IV that a packet carries.
    pub(super) fn iv_len(&self) -> usize {
        self.cipher.block_len().unwrap_or(AEAD_IV_LEN)
    }

    /// Octets of the ICV.
    pub(super) fn icv_len(&self) -> usize {
        self.integ.map_or(TAG_LEN, EspInteg::icv_len)
    }

    /// The encrypted part is a multiple of this.
    pub(super) fn align(&self) -> usize {
        self.cipher.block_len().unwrap_or(ALIGN)
    }

    /// Octets of inner packet, padding and trailer together.
    pub(super) fn text_len(&self, inner_len: usize) -> usize {
        (inner_len + TRAILER_LEN).next_multiple_of(self.align())
    }

    /// Octets of the smallest packet that a sender of this suite can make.
    pub(super) fn packet_len_min(&self) -> usize {
        HEADER_LEN + self.iv_len() + self.align() + self.icv_len()
    }
}

impl fmt::Display for EspSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.cipher.keyword())?;
        if let Some(integ) = self.integ {
            write!(f, "-{}", integ.keyword())?;
        }
        if self.esn { f.write_str("-esn") } else { Ok(()) }
    }
}

/// The keys of one direction of a Child SA. Wiped on drop, never printed.
pub struct EspKeys {
    suite: EspSuite,
    /// Encryption key, salt, integrity key.
    keymat: Zeroizing<Box<[u8]>>,
}

impl EspKeys {
    /// Takes the keying material of one direction: encryption key, an AEAD's salt, integrity key.
    ///
    /// `None` unless it has [`EspSuite::keymat_len`] octets and the suite pairs a cipher with an integrity
    /// algorithm exactly when the cipher needs one.
    ///
    /// Source: RFC 7296 §2.17.
    pub fn new(suite: &EspSuite, keymat: &[u8]) -> Option<Self> {
        let paired = suite.cipher.is_aead() != suite.integ.is_some();
        let fits = keymat.len() == suite.keymat_len();
        (paired && fits).then(|| Self { suite: *suite, keymat: Zeroizing::new(keymat.into()) })
    }

    /// The suite the keys were made for.
    pub fn suite(&self) -> EspSuite {
        self.suite
    }

    /// The encryption key with an AEAD's salt, for the cipher and the key log.
    pub fn encr(&self) -> &[u8] {
        &self.keymat[..self.suite.encr_key_len()]
    }

    /// The integrity key, empty for an AEAD, for the HMAC and the key log.
    pub fn integ(&self) -> &[u8] {
        &self.keymat[self.suite.encr_key_len()..]
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Every suite that can be negotiated, both sequence number sizes.
    pub(in crate::esp) fn all_suites() -> Vec<EspSuite> {
        use EspCipher::*;
        use EspInteg::*;
        let mut suites = Vec::new();
        for esn in [false, true] {
            for cipher in [Aes128Gcm16, Aes256Gcm16, ChaCha20Poly1305] {
                suites.push(EspSuite { cipher, integ: None, esn });
            }
            for cipher in [Aes128Cbc, Aes192Cbc, Aes256Cbc, TripleDesCbc] {
                for integ in [HmacSha1_96, HmacSha2_256_128, HmacSha2_384_192, HmacSha2_512_256] {
                    suites.push(EspSuite { cipher, integ: Some(integ), esn });
                }
            }
        }
        suites
    }

    #[test]
    fn suites_read_as_proposals() {
        let words: Vec<String> = all_suites().iter().map(EspSuite::to_string).collect();
        for word in
            ["aes128gcm16", "chacha20poly1305-esn", "aes192-sha384", "aes256-sha256-esn", "aes128-sha1"]
        {
            assert!(words.iter().any(|it| it == word), "{word}");
        }
    }

    #[test]
    fn r4106_8_1_and_r7296_2_17_keymat_lengths() {
        let suite = |cipher, integ| EspSuite { cipher, integ, esn: false };
        assert_eq!(suite(EspCipher::Aes128Gcm16, None).keymat_len(), 20);
        assert_eq!(suite(EspCipher::Aes256Gcm16, None).keymat_len(), 36);
        assert_eq!(suite(EspCipher::ChaCha20Poly1305, None).keymat_len(), 36);
        let cbc = suite(EspCipher::Aes192Cbc, Some(EspInteg::HmacSha2_512_256));
        assert_eq!(cbc.keymat_len(), 24 + 64);
        let keys = EspKeys::new(&cbc, &[[1; 24].as_slice(), &[2; 64]].concat()).unwrap();
        assert_eq!((keys.encr(), keys.integ()), ([1; 24].as_slice(), [2; 64].as_slice()));
    }

    #[test]
    fn r8221_a_cipher_without_integrity_gets_no_keys() {
        let naked = EspSuite { cipher: EspCipher::Aes128Cbc, integ: None, esn: false };
        assert!(EspKeys::new(&naked, &[0; 16]).is_none());
        let doubled =
            EspSuite { cipher: EspCipher::Aes128Gcm16, integ: Some(EspInteg::HmacSha1_96), esn: false };
        assert!(EspKeys::new(&doubled, &[0; 40]).is_none());
        for suite in all_suites() {
            let len = suite.keymat_len();
            assert!(EspKeys::new(&suite, &vec![0; len]).is_some());
            assert!(EspKeys::new(&suite, &vec![0; len + 1]).is_none());
            assert!(EspKeys::new(&suite, &vec![0; len - 1]).is_none());
        }
    }
}
