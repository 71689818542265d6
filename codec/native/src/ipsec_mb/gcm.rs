//! AES-GCM by direct calls.

use zeroize::Zeroize;

use super::ffi::{RawGcmKey, mb_gcm, mb_gcm_expand};
use super::{Direction, IpsecMb};
use crate::aead::{NONCE_LEN, OpenFailed, TAG_LEN};
use crate::{cleanse, constant_time_eq};

/// A keyed AES-GCM: 1,088 octets, aligned to 64. Wiped on drop.
pub struct GcmKey {
    expanded: RawGcmKey,
    key_len: usize,
    library: IpsecMb,
}

impl GcmKey {
    /// Expands a key of 16 or 32 octets; `None` for any other length.
    pub fn new(library: IpsecMb, key: &[u8]) -> Option<Self> {
        if ![16, 32].contains(&key.len()) {
            return None;
        }
        let mut gcm = Self { expanded: RawGcmKey([0; 1024]), key_len: key.len(), library };
        // SAFETY: the key has one of the two lengths; the expansion writes at most 1,024 octets, which is
        // checked when the shim is compiled, to a place aligned to 64 by its type.
        unsafe { mb_gcm_expand(library.functions(), key.len(), key.as_ptr(), &mut gcm.expanded) };
        Some(gcm)
    }

    /// Encrypts `text` in place and returns the tag.
    pub fn seal_in_place(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        self.apply(Direction::Encrypt, nonce, aad, text)
    }

    /// Verifies `tag` over `aad` and `text` and decrypts `text` in place.
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
        let mut right = self.apply(Direction::Decrypt, nonce, aad, text);
        if constant_time_eq(&right, tag) {
            return Ok(());
        }
        // Nobody may use what an unknown sender made decrypt, nor learn the tag that would have been right.
        text.fill(0);
        right.zeroize();
        Err(OpenFailed)
    }

    /// Encrypts or decrypts `text` in place; the tag is the right one for it either way.
    #[inline]
    fn apply(
        &self,
        direction: Direction,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        text: &mut [u8],
    ) -> [u8; TAG_LEN] {
        let mut tag = [0; TAG_LEN];
        // SAFETY: every pointer comes from a live slice or array with the length passed beside it or, for
        // nonce and tag, the one length the shim uses; text is input and output, which the library allows.
        unsafe {
            mb_gcm(
                self.library.functions(),
                (direction == Direction::Encrypt).into(),
                self.key_len,
                &self.expanded,
                nonce.as_ptr(),
                aad.as_ptr(),
                aad.len(),
                text.as_mut_ptr(),
                text.len(),
                tag.as_mut_ptr(),
            );
        }
        tag
    }
}

impl Drop for GcmKey {
    fn drop(&mut self) {
        // SAFETY: plain octets.
        unsafe { cleanse(&mut self.expanded) };
    }
}

#[cfg(test)]
mod tests {
    use super::super::available;
    use super::*;
    use crate::aead::{AeadAlgorithm, AeadKey};

    #[test]
    fn both_libraries_agree_on_every_length() {
        let Some(library) = available() else { return };
        for (algorithm, key_len) in [(AeadAlgorithm::Aes128Gcm, 16), (AeadAlgorithm::Aes256Gcm, 32)] {
            let key: Vec<u8> = (0..key_len).collect();
            let (other, gcm) = (AeadKey::new(algorithm, &key).unwrap(), GcmKey::new(library, &key).unwrap());
            for len in (0..600).chain([1400, 4095, 16_384, 65_535]) {
                let text: Vec<u8> = (0..len).map(|at| at as u8).collect();
                let nonce = [len as u8; NONCE_LEN];
                let (mut ours, mut theirs) = (text.clone(), text.clone());
                let tag = gcm.seal_in_place(&nonce, &key[..12], &mut ours);
                assert_eq!(tag, other.seal_in_place(&nonce, &key[..12], &mut theirs), "{len} octets");
                assert_eq!(ours, theirs);
                assert_eq!(gcm.open_in_place(&nonce, &key[..12], &mut ours, &tag), Ok(()));
                assert_eq!(ours, text);
            }
        }
    }

    #[test]
    fn every_flipped_bit_fails_and_leaves_no_text() {
        let Some(library) = available() else { return };
        let (gcm, nonce) = (GcmKey::new(library, &[5; 16]).unwrap(), [9; NONCE_LEN]);
        let mut sealed = [3; 20];
        let tag = gcm.seal_in_place(&nonce, b"head", &mut sealed);
        for bit in 0..(sealed.len() + TAG_LEN) * 8 {
            let (mut text, mut tag) = (sealed, tag);
            let octet = text.iter_mut().chain(&mut tag).nth(bit / 8).unwrap();
            *octet ^= 1 << (bit % 8);
            assert_eq!(gcm.open_in_place(&nonce, b"head", &mut text, &tag), Err(OpenFailed));
            assert_eq!(text, [0; 20]);
        }
        assert_eq!(gcm.open_in_place(&nonce, b"hear", &mut sealed, &tag), Err(OpenFailed));
    }

    #[test]
    fn keys_of_other_lengths_are_refused() {
        let Some(library) = available() else { return };
        for len in (0..80).filter(|len| ![16, 32].contains(len)) {
            assert!(GcmKey::new(library, &vec![0; len]).is_none());
        }
    }
}
