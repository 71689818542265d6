//! HMAC with a keyed context that restarts without touching the key again.

use std::mem::MaybeUninit;
use std::ptr;

use aws_lc_sys::{EVP_MD, HMAC_CTX, HMAC_CTX_cleanup, HMAC_CTX_init, HMAC_Final, HMAC_Init_ex, HMAC_Update};

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

/// An HMAC context with both pads hashed: about 1.2 KB, no heap. Wiped on drop.
pub struct HmacKey {
    ctx: HMAC_CTX,
    tag_len: usize,
}

// SAFETY: the context is flat (its pointers name constant tables) and not tied to a thread.
unsafe impl Send for HmacKey {}

impl HmacKey {
    /// Hashes the key into both pads; any key length is allowed.
    pub fn new(algorithm: HmacAlgorithm, key: &[u8]) -> Self {
        let mut ctx = MaybeUninit::<HMAC_CTX>::uninit();
        // SAFETY: `init` zeroes the whole context; `Init_ex` reads `key.len()` octets from a pointer that is
        // never null and writes only the context. Moving it afterwards is sound: all state is inline and no
        // pointer leads into it (the library copies contexts octet by octet).
        let ctx = unsafe {
            HMAC_CTX_init(ctx.as_mut_ptr());
            let key_octets = key.as_ptr().cast();
            let ok =
                HMAC_Init_ex(ctx.as_mut_ptr(), key_octets, key.len(), algorithm.method(), ptr::null_mut());
            assert_eq!(ok, 1, "keying with a hash the library knows cannot fail");
            ctx.assume_init()
        };
        Self { ctx, tag_len: algorithm.tag_len() }
    }

    /// Returns the tag over the concatenation of `parts`: its first [`HmacAlgorithm::tag_len`] octets count,
    /// the rest is zero.
    pub fn tag(&mut self, parts: &[&[u8]]) -> [u8; TAG_LEN_MAX] {
        let mut tag = [0; TAG_LEN_MAX];
        let mut tag_len = 0;
        let mut ok = 1;
        // SAFETY: the context is keyed, so a restart without a key reuses the hashed pads; each update reads
        // one live slice; the tag buffer holds the longest tag of any hash offered here.
        unsafe {
            ok &= HMAC_Init_ex(&mut self.ctx, ptr::null(), 0, ptr::null(), ptr::null_mut());
            for part in parts {
                ok &= HMAC_Update(&mut self.ctx, part.as_ptr(), part.len());
            }
            ok &= HMAC_Final(&mut self.ctx, tag.as_mut_ptr(), &mut tag_len);
        }
        assert!(ok == 1 && tag_len as usize == self.tag_len, "a keyed context cannot fail");
        tag
    }
}

impl Drop for HmacKey {
    fn drop(&mut self) {
        // SAFETY: the context is initialised; the call zeroes it and owns nothing else.
        unsafe { HMAC_CTX_cleanup(&mut self.ctx) };
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
            let mut key = HmacKey::new(algorithm, b"Jefe");
            for split in 0..=text.len() {
                let tag = key.tag(&[&text[..split], &[], &text[split..]]);
                assert_eq!(tag[..algorithm.tag_len()], want, "{algorithm:?} split at {split}");
                assert!(tag[algorithm.tag_len()..].iter().all(|octet| *octet == 0));
            }
        }
    }

    #[test]
    fn r4231_4_7_key_longer_than_a_block() {
        let mut key = HmacKey::new(HmacAlgorithm::Sha256, &[0xaa; 131]);
        let tag = key.tag(&[b"Test Using Larger Than Block-Size Key - Hash Key First"]);
        assert_eq!(tag[..32], hex("60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"));
    }

    #[test]
    fn an_empty_key_is_a_key() {
        let mut empty = HmacKey::new(HmacAlgorithm::Sha256, &[]);
        let mut zeros = HmacKey::new(HmacAlgorithm::Sha256, &[0; 64]);
        assert_eq!(empty.tag(&[b"x"]), zeros.tag(&[b"x"]));
        assert_eq!(
            empty.tag(&[])[..32],
            hex("b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad")
        );
    }
}
