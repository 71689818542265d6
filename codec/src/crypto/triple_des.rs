//! 3DES-CBC without padding (RFC 2451), for peers that have nothing better: never used unless an operator names it
//! (RFC 8221 §5, RFC 8247 §2.1).

use cbc::cipher::block_padding::NoPadding;
use cbc::cipher::{BlockDecryptMut, BlockEncryptMut, InnerIvInit, KeyInit};
use des::TdesEde3;

/// Octets of a block and of an initialisation vector.
pub(crate) const BLOCK_LEN: usize = 8;

/// Octets of the key, parity bits included.
pub(crate) const KEY_LEN: usize = 24;

/// The text is not a whole number of blocks; nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NotWholeBlocks;

/// A key schedule: 384 octets, no heap. Wiped on drop.
pub(crate) struct TripleDes(TdesEde3);

impl TripleDes {
    /// Expands a key; `None` unless it has [`KEY_LEN`] octets.
    pub(crate) fn new(key: &[u8]) -> Option<Self> {
        TdesEde3::new_from_slice(key).ok().map(Self)
    }

    /// Encrypts `text` in place.
    pub(crate) fn encrypt(&self, iv: &[u8; BLOCK_LEN], text: &mut [u8]) -> Result<(), NotWholeBlocks> {
        let len = text.len();
        let mode = cbc::Encryptor::inner_iv_init(&self.0, iv.into());
        mode.encrypt_padded_mut::<NoPadding>(text, len).map(drop).map_err(|_| NotWholeBlocks)
    }

    /// Decrypts `text` in place.
    pub(crate) fn decrypt(&self, iv: &[u8; BLOCK_LEN], text: &mut [u8]) -> Result<(), NotWholeBlocks> {
        let mode = cbc::Decryptor::inner_iv_init(&self.0, iv.into());
        mode.decrypt_padded_mut::<NoPadding>(text).map(drop).map_err(|_| NotWholeBlocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(pair).collect()
    }

    /// NIST SP 800-67 Appendix B.1, chained by hand: with CBC and an IV of zeros the first block is that of ECB.
    #[test]
    fn r2451_2_known_answer() {
        let key = hex("0123456789ABCDEF 23456789ABCDEF01 456789ABCDEF0123");
        let plain = b"The qufck brown fox jump";
        let cipher = TripleDes::new(&key).expect("24 octets");
        let blocks = [hex("A826FD8CE53B855F"), hex("CCE21C8112256FE6"), hex("68D5C05DD9B6B900")];
        for (block, expected) in plain.chunks(BLOCK_LEN).zip(&blocks) {
            let mut text = block.to_vec();
            cipher.encrypt(&[0; BLOCK_LEN], &mut text).expect("whole");
            assert_eq!(&text, expected);
        }
        let mut text = plain.to_vec();
        cipher.encrypt(&[0; BLOCK_LEN], &mut text).expect("whole");
        assert_eq!(text[..BLOCK_LEN], blocks[0]);
        // The second block is that of the plaintext combined with the first ciphertext.
        let mut second: Vec<u8> = plain[8..16].iter().zip(&blocks[0]).map(|(a, b)| a ^ b).collect();
        cipher.encrypt(&[0; BLOCK_LEN], &mut second).expect("whole");
        assert_eq!(text[8..16], second);
        cipher.decrypt(&[0; BLOCK_LEN], &mut text).expect("whole");
        assert_eq!(text, plain);
    }

    #[test]
    fn odd_keys_and_texts_are_refused() {
        for len in [0, 8, 16, 23, 25] {
            assert!(TripleDes::new(&vec![1; len]).is_none(), "{len} octets");
        }
        let cipher = TripleDes::new(&[1; KEY_LEN]).expect("24 octets");
        assert_eq!(cipher.encrypt(&[0; 8], &mut [0; 12]), Err(NotWholeBlocks));
        assert_eq!(cipher.decrypt(&[0; 8], &mut [0; 12]), Err(NotWholeBlocks));
    }
}
