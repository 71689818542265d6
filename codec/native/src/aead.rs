//! AES-GCM and ChaCha20-Poly1305 with the context held inline.

use std::mem::MaybeUninit;
use std::ptr;

use aws_lc_sys::{
    ERR_clear_error, EVP_AEAD, EVP_AEAD_CTX, EVP_AEAD_CTX_init, EVP_AEAD_CTX_open_gather,
    EVP_AEAD_CTX_seal_scatter, EVP_AEAD_CTX_zero,
};

/// Octets of a nonce: RFC 5116 §5.1, RFC 8439 §2.8.
pub const NONCE_LEN: usize = 12;

/// Octets of the full-length tag; shorter tags are not offered.
pub const TAG_LEN: usize = 16;

/// The authenticated ciphers of ESP and IKEv2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AeadAlgorithm {
    /// AES-GCM with a 16-octet key.
    Aes128Gcm,
    /// AES-GCM with a 32-octet key.
    Aes256Gcm,
    /// ChaCha20-Poly1305 with a 32-octet key.
    ChaCha20Poly1305,
}

impl AeadAlgorithm {
    /// Octets of the key, without a salt.
    pub fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::ChaCha20Poly1305 => 32,
        }
    }

    fn method(self) -> *const EVP_AEAD {
        // SAFETY: these return pointers to constant tables that live as long as the process.
        unsafe {
            match self {
                Self::Aes128Gcm => aws_lc_sys::EVP_aead_aes_128_gcm(),
                Self::Aes256Gcm => aws_lc_sys::EVP_aead_aes_256_gcm(),
                Self::ChaCha20Poly1305 => aws_lc_sys::EVP_aead_chacha20_poly1305(),
            }
        }
    }
}

/// The tag did not verify; what was to be decrypted is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenFailed;

/// A keyed AEAD: about 600 octets, no heap. Wiped on drop.
pub struct AeadKey {
    ctx: EVP_AEAD_CTX,
    algorithm: AeadAlgorithm,
}

// SAFETY: for the three algorithms the context is flat: `aead` points to a constant table and the rest is key
// schedule, so it is not tied to a thread.
unsafe impl Send for AeadKey {}
// SAFETY: opening and sealing take the context as const and keep no state between calls.
unsafe impl Sync for AeadKey {}

impl AeadKey {
    /// Expands `key`; `None` unless it has [`AeadAlgorithm::key_len`] octets.
    pub fn new(algorithm: AeadAlgorithm, key: &[u8]) -> Option<Self> {
        if key.len() != algorithm.key_len() {
            return None;
        }
        let mut ctx = MaybeUninit::<EVP_AEAD_CTX>::uninit();
        // SAFETY: `zero` initialises the whole context; `init` reads `key.len()` octets and writes only the
        // context. Moving it afterwards is sound: the three algorithms keep all state inside it without
        // pointers into it (the library's own EVP_AEAD_CTX_copy duplicates them octet by octet).
        unsafe {
            EVP_AEAD_CTX_zero(ctx.as_mut_ptr());
            let ok = EVP_AEAD_CTX_init(
                ctx.as_mut_ptr(),
                algorithm.method(),
                key.as_ptr(),
                key.len(),
                TAG_LEN,
                ptr::null_mut(),
            );
            let key = Self { ctx: ctx.assume_init(), algorithm };
            (ok == 1).then_some(key)
        }
    }

    /// Verifies `tag` over `aad` and `text`, then decrypts `text` in place.
    ///
    /// # Errors
    /// [`OpenFailed`] when the tag does not verify; `text` is then zeroed.
    pub fn open_in_place(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), OpenFailed> {
        let octets = text.as_mut_ptr();
        // SAFETY: the context is initialised; every pointer comes from a live slice or array with the length
        // passed beside it, and input and output of the text are the same octets, which the call allows.
        let ok = unsafe {
            EVP_AEAD_CTX_open_gather(
                &self.ctx,
                octets,
                nonce.as_ptr(),
                NONCE_LEN,
                octets,
                text.len(),
                tag.as_ptr(),
                TAG_LEN,
                aad.as_ptr(),
                aad.len(),
            )
        };
        if ok == 1 {
            return Ok(());
        }
        // SAFETY: empties this thread's error queue, which nobody reads.
        unsafe { ERR_clear_error() };
        Err(OpenFailed)
    }

    /// Encrypts `text`, then `trailer`, into `out` and appends the tag.
    ///
    /// # Panics
    /// Unless `out` has exactly `text.len() + trailer.len() + TAG_LEN` octets.
    pub fn seal_scatter(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        text: &[u8],
        trailer: &[u8],
        out: &mut [u8],
    ) {
        assert_eq!(out.len(), text.len() + trailer.len() + TAG_LEN, "output holds text, trailer and tag");
        if self.algorithm == AeadAlgorithm::ChaCha20Poly1305 {
            return self.seal_copied(nonce, aad, text, trailer, out);
        }
        let (body, tail) = out.split_at_mut(text.len());
        let mut tail_len = 0;
        // SAFETY: the context is initialised; every pointer comes from a live slice or array with the length
        // passed beside it; `body` has the length of `text`, `tail` that of trailer and tag, and both are
        // disjoint from the inputs by the borrow rules.
        let ok = unsafe {
            EVP_AEAD_CTX_seal_scatter(
                &self.ctx,
                body.as_mut_ptr(),
                tail.as_mut_ptr(),
                &mut tail_len,
                tail.len(),
                nonce.as_ptr(),
                NONCE_LEN,
                text.as_ptr(),
                text.len(),
                trailer.as_ptr(),
                trailer.len(),
                aad.as_ptr(),
                aad.len(),
            )
        };
        assert!(ok == 1 && tail_len == tail.len(), "sealing fails only beyond 2^36 octets of text");
    }

    /// As [`Self::seal_scatter`], by way of one contiguous text: the library's ChaCha20 spends 150 to 250 ns
    /// on a separate trailer, copying 1,400 octets takes 30.
    fn seal_copied(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &[u8], trailer: &[u8], out: &mut [u8]) {
        let (body, tag) = out.split_at_mut(text.len() + trailer.len());
        body[..text.len()].copy_from_slice(text);
        body[text.len()..].copy_from_slice(trailer);
        tag.copy_from_slice(&self.seal_in_place(nonce, aad, body));
    }

    /// Encrypts `text` in place and returns the tag.
    pub fn seal_in_place(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        let mut tag = [0; TAG_LEN];
        let mut tag_len = 0;
        let octets = text.as_mut_ptr();
        // SAFETY: as for `seal_scatter`, except that input and output of the text are the same octets, which
        // the call allows; the extra input is empty.
        let ok = unsafe {
            EVP_AEAD_CTX_seal_scatter(
                &self.ctx,
                octets,
                tag.as_mut_ptr(),
                &mut tag_len,
                TAG_LEN,
                nonce.as_ptr(),
                NONCE_LEN,
                octets,
                text.len(),
                ptr::null(),
                0,
                aad.as_ptr(),
                aad.len(),
            )
        };
        assert!(ok == 1 && tag_len == TAG_LEN, "sealing fails only beyond 2^36 octets of text");
        tag
    }
}

impl Drop for AeadKey {
    fn drop(&mut self) {
        // SAFETY: the context is flat and owns nothing outside itself (the library's cleanup is empty for
        // these algorithms and would leave the key schedule behind); zero is its unused state.
        unsafe { crate::cleanse(&mut self.ctx) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [AeadAlgorithm; 3] =
        [AeadAlgorithm::Aes128Gcm, AeadAlgorithm::Aes256Gcm, AeadAlgorithm::ChaCha20Poly1305];

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    }

    #[test]
    fn gcm_specification_test_case_4() {
        let key = AeadKey::new(AeadAlgorithm::Aes128Gcm, &hex("feffe9928665731c6d6a8f9467308308")).unwrap();
        let nonce = hex("cafebabefacedbaddecaf888").try_into().unwrap();
        let aad = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        let text = hex(concat!(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72",
            "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
        ));
        let want = hex(concat!(
            "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e",
            "21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091",
            "5bc94fbc3221a5db94fae95ae7121a47"
        ));
        for split in 0..=text.len() {
            let mut out = vec![0; want.len()];
            key.seal_scatter(&nonce, &aad, &text[..split], &text[split..], &mut out);
            assert_eq!(out, want, "trailer of {} octets", text.len() - split);
        }
        let mut place = text.clone();
        let tag = key.seal_in_place(&nonce, &aad, &mut place);
        assert_eq!([place.as_slice(), &tag].concat(), want);
        assert_eq!(key.open_in_place(&nonce, &aad, &mut place, &tag), Ok(()));
        assert_eq!(place, text);
    }

    #[test]
    fn every_flipped_bit_fails_and_leaves_no_text() {
        for algorithm in ALL {
            let key = AeadKey::new(algorithm, &vec![5; algorithm.key_len()]).unwrap();
            let nonce = [9; NONCE_LEN];
            let mut sealed = vec![0; 20 + TAG_LEN];
            key.seal_scatter(&nonce, b"head", &[3; 18], &[4; 2], &mut sealed);
            for bit in 0..sealed.len() * 8 {
                let mut bad = sealed.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                let (text, tag) = bad.split_at_mut(20);
                let tag = (&*tag).try_into().unwrap();
                assert_eq!(key.open_in_place(&nonce, b"head", text, &tag), Err(OpenFailed));
                assert_eq!(text, [0; 20]);
            }
        }
    }

    #[test]
    fn keys_of_other_lengths_are_refused() {
        for algorithm in ALL {
            for len in (0..80).filter(|len| *len != algorithm.key_len()) {
                assert!(AeadKey::new(algorithm, &vec![0; len]).is_none());
            }
        }
    }
}
