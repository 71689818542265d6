//! AES-CBC without padding, in place and out of place.

use std::mem::MaybeUninit;

use aws_lc_sys::{
    AES_DECRYPT, AES_ENCRYPT, AES_KEY, AES_cbc_encrypt, AES_set_decrypt_key, AES_set_encrypt_key,
};

/// Octets of an AES block and of a CBC initialisation vector.
pub const BLOCK_LEN: usize = 16;

/// The text is not a whole number of blocks; nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotWholeBlocks;

/// An AES key schedule for encryption. Wiped on drop.
pub struct CbcEncryptKey(AES_KEY);

/// An AES key schedule for decryption. Wiped on drop.
pub struct CbcDecryptKey(AES_KEY);

/// Bits of an AES key of `len` octets, or `None` when AES has no such key.
fn key_bits(len: usize) -> Option<u32> {
    match len {
        16 => Some(128),
        24 => Some(192),
        32 => Some(256),
        _ => None,
    }
}

impl CbcEncryptKey {
    /// Expands a key of 16, 24 or 32 octets; `None` for any other length.
    pub fn new(key: &[u8]) -> Option<Self> {
        let bits = key_bits(key.len())?;
        let mut schedule = MaybeUninit::<AES_KEY>::zeroed();
        // SAFETY: `key` has `bits` bits; the schedule is plain integers, valid when zero, and written here.
        unsafe {
            let failed = AES_set_encrypt_key(key.as_ptr(), bits, schedule.as_mut_ptr());
            let schedule = Self(schedule.assume_init());
            (failed == 0).then_some(schedule)
        }
    }

    /// Encrypts `input` into `output`. `iv` is the vector before and the last block of the output after the
    /// call, so that consecutive calls continue one text.
    ///
    /// # Errors
    /// [`NotWholeBlocks`] unless both slices have the same multiple of [`BLOCK_LEN`] octets.
    pub fn encrypt(
        &self,
        iv: &mut [u8; BLOCK_LEN],
        input: &[u8],
        output: &mut [u8],
    ) -> Result<(), NotWholeBlocks> {
        if input.len() != output.len() || !input.len().is_multiple_of(BLOCK_LEN) {
            return Err(NotWholeBlocks);
        }
        // SAFETY: both slices have `input.len()` octets, a whole number of blocks; `iv` is one block.
        unsafe {
            let (from, to) = (input.as_ptr(), output.as_mut_ptr());
            AES_cbc_encrypt(from, to, input.len(), &self.0, iv.as_mut_ptr(), AES_ENCRYPT);
        }
        Ok(())
    }

    /// Encrypts `text` in place; `iv` as for [`Self::encrypt`].
    ///
    /// # Errors
    /// [`NotWholeBlocks`] unless `text` is a multiple of [`BLOCK_LEN`] octets.
    pub fn encrypt_in_place(&self, iv: &mut [u8; BLOCK_LEN], text: &mut [u8]) -> Result<(), NotWholeBlocks> {
        if !text.len().is_multiple_of(BLOCK_LEN) {
            return Err(NotWholeBlocks);
        }
        let octets = text.as_mut_ptr();
        // SAFETY: input and output are the same octets, which the call allows; whole blocks; `iv` is one.
        unsafe { AES_cbc_encrypt(octets, octets, text.len(), &self.0, iv.as_mut_ptr(), AES_ENCRYPT) };
        Ok(())
    }
}

impl CbcDecryptKey {
    /// Expands a key of 16, 24 or 32 octets; `None` for any other length.
    pub fn new(key: &[u8]) -> Option<Self> {
        let bits = key_bits(key.len())?;
        let mut schedule = MaybeUninit::<AES_KEY>::zeroed();
        // SAFETY: as in `CbcEncryptKey::new`.
        unsafe {
            let failed = AES_set_decrypt_key(key.as_ptr(), bits, schedule.as_mut_ptr());
            let schedule = Self(schedule.assume_init());
            (failed == 0).then_some(schedule)
        }
    }

    /// Decrypts `text` in place.
    ///
    /// # Errors
    /// [`NotWholeBlocks`] unless `text` is a multiple of [`BLOCK_LEN`] octets.
    pub fn decrypt_in_place(&self, iv: &[u8; BLOCK_LEN], text: &mut [u8]) -> Result<(), NotWholeBlocks> {
        if !text.len().is_multiple_of(BLOCK_LEN) {
            return Err(NotWholeBlocks);
        }
        let mut iv = *iv;
        let octets = text.as_mut_ptr();
        // SAFETY: input and output are the same octets, which the call allows; whole blocks; `iv` is one.
        unsafe { AES_cbc_encrypt(octets, octets, text.len(), &self.0, iv.as_mut_ptr(), AES_DECRYPT) };
        Ok(())
    }
}

impl Drop for CbcEncryptKey {
    fn drop(&mut self) {
        // SAFETY: a key schedule is plain integers.
        unsafe { crate::cleanse(&mut self.0) };
    }
}

impl Drop for CbcDecryptKey {
    fn drop(&mut self) {
        // SAFETY: a key schedule is plain integers.
        unsafe { crate::cleanse(&mut self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NIST SP 800-38A F.2: key, first two ciphertext blocks.
    const VECTORS: [(&str, &str); 3] = [
        (
            "2b7e151628aed2a6abf7158809cf4f3c",
            "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2",
        ),
        (
            "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
            "4f021db243bc633d7178183a9fa071e8b4d9ada9ad7dedf4e5e738763f69145a",
        ),
        (
            "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
            "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d",
        ),
    ];
    const TEXT: &str = "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51";

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    }

    #[test]
    fn sp800_38a_f_2_in_place_out_of_place_and_in_two_steps() {
        let iv: [u8; BLOCK_LEN] = std::array::from_fn(|i| i as u8);
        let text = hex(TEXT);
        for (key, want) in VECTORS {
            let (key, want) = (hex(key), hex(want));
            let encrypt = CbcEncryptKey::new(&key).unwrap();
            let mut out = vec![0; 32];
            encrypt.encrypt(&mut iv.clone(), &text, &mut out).unwrap();
            assert_eq!(out, want);

            let mut chained = iv;
            let (first, second) = out.split_at_mut(16);
            encrypt.encrypt(&mut chained, &text[..16], first).unwrap();
            encrypt.encrypt(&mut chained, &text[16..], second).unwrap();
            assert_eq!(out, want);
            assert_eq!(chained, want[16..]);

            let mut place = text.clone();
            encrypt.encrypt_in_place(&mut iv.clone(), &mut place).unwrap();
            assert_eq!(place, want);
            CbcDecryptKey::new(&key).unwrap().decrypt_in_place(&iv, &mut place).unwrap();
            assert_eq!(place, text);
        }
    }

    #[test]
    fn partial_blocks_and_odd_keys_are_refused() {
        let encrypt = CbcEncryptKey::new(&[1; 16]).unwrap();
        let decrypt = CbcDecryptKey::new(&[1; 16]).unwrap();
        let mut iv = [0; BLOCK_LEN];
        assert_eq!(encrypt.encrypt_in_place(&mut iv, &mut []), Ok(()));
        assert_eq!(encrypt.encrypt_in_place(&mut iv, &mut [0; 15]), Err(NotWholeBlocks));
        assert_eq!(encrypt.encrypt(&mut iv, &[0; 16], &mut [0; 32]), Err(NotWholeBlocks));
        assert_eq!(decrypt.decrypt_in_place(&iv, &mut [0; 17]), Err(NotWholeBlocks));
        for len in (0..64).filter(|len| ![16, 24, 32].contains(len)) {
            assert!(CbcEncryptKey::new(&vec![0; len]).is_none());
            assert!(CbcDecryptKey::new(&vec![0; len]).is_none());
        }
    }
}
