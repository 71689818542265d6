//! HMAC from hashed pads: small keys, each tag starts without touching the key again.

use std::mem::MaybeUninit;
use std::ptr;

use aws_lc_sys::{
    EVP_MD, HMAC_CTX, HMAC_CTX_cleanup, HMAC_CTX_init, HMAC_Final, HMAC_Init_ex,
    HMAC_Init_from_precomputed_key, HMAC_Update, HMAC_get_precomputed_key, HMAC_set_precomputed_key_export,
};

/// Octets of the longest tag.
pub const TAG_LEN_MAX: usize = 64;

/// The hash under an HMAC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HmacAlgorithm {
    /// HMAC-SHA-1 (RFC 2404); kept for phones that offer nothing better.
    Sha1,
    /// HMAC-SHA-256 (RFC 4868).
    Sha256,
    /// HMAC-SHA-384 (RFC 4868).
    Sha384,
    /// HMAC-SHA-512 (RFC 4868).
    Sha512,
}

impl HmacAlgorithm {
    /// Octets of the untruncated tag; also the key length that IPsec uses.
    pub fn tag_len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// Octets of the ICV that ESP makes of the tag (RFC 2404 §2, RFC 4868 §2.1.1).
    pub fn truncated_len(self) -> usize {
        match self {
            Self::Sha1 => 12,
            Self::Sha256 | Self::Sha384 | Self::Sha512 => self.tag_len() / 2,
        }
    }

    /// Octets of a word of the chaining value.
    #[cfg(ipsec_mb)]
    pub(crate) fn word_len(self) -> usize {
        match self {
            Self::Sha1 | Self::Sha256 => 4,
            Self::Sha384 | Self::Sha512 => 8,
        }
    }

    /// Octets of the chaining values after both pads; SHA-384 chains as many as SHA-512.
    fn pads_len(self) -> usize {
        match self {
            Self::Sha1 => 2 * 20,
            Self::Sha256 => 2 * 32,
            Self::Sha384 | Self::Sha512 => 2 * 64,
        }
    }

    fn method(self) -> *const EVP_MD {
        // SAFETY: these return pointers to constant tables that live as long as the process.
        unsafe {
            match self {
                Self::Sha1 => aws_lc_sys::EVP_sha1(),
                Self::Sha256 => aws_lc_sys::EVP_sha256(),
                Self::Sha384 => aws_lc_sys::EVP_sha384(),
                Self::Sha512 => aws_lc_sys::EVP_sha512(),
            }
        }
    }
}

/// Octets of the longest pair of hashed pads.
const PADS_LEN_MAX: usize = 2 * 64;

/// An HMAC key as the chaining values of the hash behind its two pads. Wiped on drop.
///
/// That is all a key is worth to any implementation: 40 to 128 octets instead of a context of 700, and hashing
/// starts from it without touching the key again.
pub struct HmacKey {
    /// Chaining value after the inner pad, then after the outer, big-endian words.
    pads: [u8; PADS_LEN_MAX],
    algorithm: HmacAlgorithm,
}

impl HmacKey {
    /// Hashes the key into both pads; any key length is allowed.
    pub fn new(algorithm: HmacAlgorithm, key: &[u8]) -> Self {
        let mut keyed = Self { pads: [0; PADS_LEN_MAX], algorithm };
        let mut pads_len = PADS_LEN_MAX;
        let mut ctx = Context::empty();
        // SAFETY: `Init_ex` reads `key.len()` octets from a pointer that is never null and writes only the
        // context; the export writes at most `pads_len` octets of the array.
        let ok = unsafe {
            let key_octets = key.as_ptr().cast();
            HMAC_Init_ex(&mut ctx.0, key_octets, key.len(), algorithm.method(), ptr::null_mut())
                & HMAC_set_precomputed_key_export(&mut ctx.0)
                & HMAC_get_precomputed_key(&mut ctx.0, keyed.pads.as_mut_ptr(), &mut pads_len)
        };
        assert!(ok == 1 && pads_len == algorithm.pads_len(), "keying with a known hash cannot fail");
        keyed
    }

    /// The hash.
    pub fn algorithm(&self) -> HmacAlgorithm {
        self.algorithm
    }

    /// The chaining values behind the inner and the outer pad.
    #[cfg(ipsec_mb)]
    pub(crate) fn pads(&self) -> (&[u8], &[u8]) {
        self.pads[..self.algorithm.pads_len()].split_at(self.algorithm.pads_len() / 2)
    }

    /// Returns the tag over the concatenation of `parts`: its first [`HmacAlgorithm::tag_len`] octets count,
    /// the rest is zero.
    pub fn tag(&self, parts: &[&[u8]]) -> [u8; TAG_LEN_MAX] {
        let mut tag = [0; TAG_LEN_MAX];
        let mut tag_len = 0;
        let mut ctx = Context::empty();
        // SAFETY: the pads are live and have the length passed beside them; each update reads one live slice;
        // the tag buffer holds the longest tag of any hash offered here.
        let ok = unsafe {
            let (pads, pads_len) = (self.pads.as_ptr(), self.algorithm.pads_len());
            let mut ok = HMAC_Init_from_precomputed_key(&mut ctx.0, pads, pads_len, self.algorithm.method());
            for part in parts {
                ok &= HMAC_Update(&mut ctx.0, part.as_ptr(), part.len());
            }
            ok & HMAC_Final(&mut ctx.0, tag.as_mut_ptr(), &mut tag_len)
        };
        assert!(ok == 1 && tag_len as usize == self.algorithm.tag_len(), "a keyed context cannot fail");
        tag
    }
}

impl Drop for HmacKey {
    fn drop(&mut self) {
        // SAFETY: plain octets.
        unsafe { crate::cleanse(&mut self.pads) };
    }
}

/// The library's working state of one computation. Wiped on drop.
struct Context(HMAC_CTX);

impl Context {
    fn empty() -> Self {
        let mut ctx = MaybeUninit::<HMAC_CTX>::uninit();
        // SAFETY: `init` zeroes the whole context. Moving it is sound: all state is inline and no pointer leads
        // into it (the library copies contexts octet by octet).
        Self(unsafe {
            HMAC_CTX_init(ctx.as_mut_ptr());
            ctx.assume_init()
        })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the context is initialised; the call zeroes it and owns nothing else.
        unsafe { HMAC_CTX_cleanup(&mut self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    }

    /// Test case 2 of RFC 2202 §3 and RFC 4231 §4.3: key "Jefe".
    const JEFE: [(HmacAlgorithm, &str); 4] = [
        (HmacAlgorithm::Sha1, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
        (HmacAlgorithm::Sha256, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        (
            HmacAlgorithm::Sha384,
            concat!(
                "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47",
                "e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649"
            ),
        ),
        (
            HmacAlgorithm::Sha512,
            concat!(
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554",
                "9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"
            ),
        ),
    ];

    #[test]
    fn r2202_and_r4231_test_case_2_over_every_split_and_restart() {
        let text = b"what do ya want for nothing?";
        for (algorithm, want) in JEFE {
            let want = hex(want);
            let key = HmacKey::new(algorithm, b"Jefe");
            for split in 0..=text.len() {
                let tag = key.tag(&[&text[..split], &[], &text[split..]]);
                assert_eq!(tag[..algorithm.tag_len()], want, "{algorithm:?} split at {split}");
                assert!(tag[algorithm.tag_len()..].iter().all(|octet| *octet == 0));
            }
        }
    }

    #[test]
    fn r4231_4_7_key_longer_than_a_block() {
        let key = HmacKey::new(HmacAlgorithm::Sha256, &[0xaa; 131]);
        let tag = key.tag(&[b"Test Using Larger Than Block-Size Key - Hash Key First"]);
        assert_eq!(tag[..32], hex("60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"));
    }

    #[test]
    fn an_empty_key_is_a_key() {
        let empty = HmacKey::new(HmacAlgorithm::Sha256, &[]);
        let zeros = HmacKey::new(HmacAlgorithm::Sha256, &[0; 64]);
        assert_eq!(empty.tag(&[b"x"]), zeros.tag(&[b"x"]));
        assert_eq!(
            empty.tag(&[])[..32],
            hex("b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad")
        );
    }
}
