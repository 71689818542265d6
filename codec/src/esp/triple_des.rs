//! 3DES-CBC under an HMAC on ESP packets (RFC 2451). One by one, also in a batch: nobody chooses it for speed.

use core::ops::Range;

use codec_native::cbc::CbcEncryptKey;
use codec_native::hmac::HmacKey;

use super::suite::{EspKeys, KEYS_FIT};
use super::{EspError, HEADER_LEN, cbc};
use crate::crypto::{TRIPLE_DES_BLOCK_LEN as BLOCK_LEN, TripleDes};

/// Where the text begins.
const TEXT_AT: usize = HEADER_LEN + BLOCK_LEN;

/// Expanded keys of either direction.
pub(super) struct TripleDesHmac {
    cipher: TripleDes,
    hmac: HmacKey,
    icv_len: usize,
}

/// What it takes to seal: beside the cipher the key of its initialisation vectors.
pub(super) struct TripleDesSeal {
    keys: TripleDesHmac,
    iv_key: CbcEncryptKey,
}

impl TripleDesHmac {
    /// `None` when the keys are for another cipher.
    pub(super) fn new(keys: &EspKeys) -> Option<Self> {
        let suite = keys.suite();
        let integ = suite.integ.filter(|_| suite.cipher == super::EspCipher::TripleDesCbc)?;
        let cipher = TripleDes::new(keys.encr()).expect(KEYS_FIT);
        Some(Self { cipher, hmac: HmacKey::new(integ.hmac(), keys.integ()), icv_len: integ.icv_len() })
    }

    pub(super) fn open(&self, packet: &mut [u8], high: Option<u32>) -> Result<Range<usize>, EspError> {
        let hmac = (&self.hmac, self.icv_len);
        cbc::open(packet, high, hmac, |iv, text| self.cipher.decrypt(iv, text).ok())
    }
}

impl TripleDesSeal {
    /// `iv_key` is as long as the vectors of AES-CBC need it.
    pub(super) fn new(keys: TripleDesHmac, iv_key: &[u8; codec_native::cbc::BLOCK_LEN]) -> Self {
        Self { keys, iv_key: CbcEncryptKey::new(iv_key).expect("a key of one block") }
    }

    /// Fills the packet around `inner` and `trailer`.
    pub(super) fn seal(
        &self,
        packet: &mut [u8],
        sequence: u64,
        high: Option<u32>,
        inner: &[u8],
        trailer: &[u8],
    ) {
        let (text, rest) = packet[TEXT_AT..].split_at_mut(inner.len());
        text.copy_from_slice(inner);
        rest[..trailer.len()].copy_from_slice(trailer);
        self.seal_in_place(packet, sequence, high);
    }

    /// As [`Self::seal`] for a packet whose text is in its place already.
    pub(super) fn seal_in_place(&self, packet: &mut [u8], sequence: u64, high: Option<u32>) {
        // Half of the number encrypted under a key that serves nothing else: nobody without it can tell the next one
        // (RFC 2451 §3).
        let mut drawn = u128::from(sequence).to_be_bytes();
        self.iv_key
            .encrypt_in_place(&mut [0; codec_native::cbc::BLOCK_LEN], &mut drawn)
            .expect("one block is whole");
        let iv = *drawn.first_chunk::<BLOCK_LEN>().expect("two of these blocks");
        packet[HEADER_LEN..TEXT_AT].copy_from_slice(&iv);
        let text_end = packet.len() - self.keys.icv_len;
        self.keys
            .cipher
            .encrypt(&iv, &mut packet[TEXT_AT..text_end])
            .expect("the trailer pads to whole blocks");
        cbc::sign(packet, high, (&self.keys.hmac, self.keys.icv_len));
    }
}
