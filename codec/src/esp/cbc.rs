//! AES-CBC under an HMAC on ESP packets, one by one.

use core::ops::Range;

use codec_native::cbc::{BLOCK_LEN, CbcDecryptKey, CbcEncryptKey};
use codec_native::constant_time_eq;
use codec_native::hmac::{HmacKey, TAG_LEN_MAX};
use codec_native::ipsec_mb::{self, CbcSchedule, Direction, HmacPads};

use super::suite::{EspKeys, KEYS_FIT};
use super::{EspError, HEADER_LEN, backend};

/// CBC under an HMAC.
pub(super) struct CbcHmac<Key> {
    key: Key,
    hmac: HmacKey,
    pub(super) icv_len: usize,
    /// The keys once more for bursts, where there are any.
    pub(super) burst: Option<BurstKeys>,
}

/// Keys as a burst wants them.
pub(super) struct BurstKeys {
    pub(super) pads: HmacPads,
    pub(super) schedule: CbcSchedule,
}

/// What CBC needs to seal: beside the cipher the key of its initialisation vectors.
pub(super) struct CbcSeal {
    pub(super) cipher: CbcHmac<CbcEncryptKey>,
    iv_key: CbcEncryptKey,
}

impl<Key> CbcHmac<Key> {
    fn new(keys: &EspKeys, direction: Direction, expand: impl FnOnce(&[u8]) -> Option<Key>) -> Self {
        let integ = keys.suite().integ.expect("EspKeys pairs CBC with an integrity algorithm");
        let hmac = HmacKey::new(integ.hmac(), keys.integ());
        let library = ipsec_mb::available().filter(|_| backend::current().has_bursts());
        let burst = library.map(|library| BurstKeys {
            pads: HmacPads::new(library, &hmac),
            schedule: CbcSchedule::new(library, direction, keys.encr()).expect(KEYS_FIT),
        });
        Self { key: expand(keys.encr()).expect(KEYS_FIT), hmac, icv_len: integ.icv_len(), burst }
    }

    pub(super) fn hmac(&self) -> &HmacKey {
        &self.hmac
    }
}

/// The ICV's tag over everything before it; the high half goes behind (RFC 4303 §2.2.1).
fn tag(hmac: &HmacKey, signed: &[u8], high: Option<u32>) -> [u8; TAG_LEN_MAX] {
    match high {
        None => hmac.tag(&[signed]),
        Some(high) => hmac.tag(&[signed, &high.to_be_bytes()]),
    }
}

/// Puts the ICV behind an encrypted packet.
pub(super) fn sign(packet: &mut [u8], high: Option<u32>, (hmac, icv_len): (&HmacKey, usize)) {
    let (signed, icv) = packet.split_at_mut(packet.len() - icv_len);
    icv.copy_from_slice(&tag(hmac, signed, high)[..icv_len]);
}

/// Opens a packet whose cipher has blocks of `BLOCK` octets; `decrypt` returns `None` for a text of other than whole ones.
pub(super) fn open<const BLOCK: usize>(
    packet: &mut [u8],
    high: Option<u32>,
    (hmac, icv_len): (&HmacKey, usize),
    decrypt: impl FnOnce(&[u8; BLOCK], &mut [u8]) -> Option<()>,
) -> Result<Range<usize>, EspError> {
    let icv_at = packet.len().checked_sub(icv_len).ok_or(EspError::TooShort)?;
    let text_at = HEADER_LEN + BLOCK;
    let (signed, icv) = packet.split_at_mut(icv_at);
    // RFC 4303 §3.4.4.1: the ICV comes first, nothing is decrypted that does not verify.
    if !constant_time_eq(&tag(hmac, signed, high)[..icv_len], icv) {
        return Err(EspError::BadIcv);
    }
    let (head, text) = signed.split_at_mut_checked(text_at).ok_or(EspError::TooShort)?;
    let iv = head.last_chunk().ok_or(EspError::TooShort)?;
    decrypt(iv, text).ok_or(EspError::TooShort)?;
    Ok(text_at..icv_at)
}

impl CbcHmac<CbcDecryptKey> {
    pub(super) fn to_open(keys: &EspKeys) -> Self {
        Self::new(keys, Direction::Decrypt, CbcDecryptKey::new)
    }

    pub(super) fn open(&self, packet: &mut [u8], high: Option<u32>) -> Result<Range<usize>, EspError> {
        let hmac = (&self.hmac, self.icv_len);
        open(packet, high, hmac, |iv, text| self.key.decrypt_in_place(iv, text).ok())
    }
}

impl CbcSeal {
    pub(super) fn new(keys: &EspKeys, iv_key: &[u8; BLOCK_LEN]) -> Self {
        Self {
            cipher: CbcHmac::new(keys, Direction::Encrypt, CbcEncryptKey::new),
            iv_key: CbcEncryptKey::new(iv_key).expect("a key of one block"),
        }
    }

    pub(super) fn seal(
        &self,
        packet: &mut [u8],
        sequence: u64,
        high: Option<u32>,
        inner: &[u8],
        trailer: &[u8],
    ) {
        let mut iv = self.put_iv(packet, sequence);
        let text_end = packet.len() - self.cipher.icv_len;
        let text = &mut packet[HEADER_LEN + BLOCK_LEN..text_end];
        // Whole blocks of the inner packet are encrypted from where they lie, the rest by way of its place.
        let (whole, rest) = inner.split_at(inner.len() - inner.len() % BLOCK_LEN);
        let (body, tail) = text.split_at_mut(whole.len());
        self.cipher.key.encrypt(&mut iv, whole, body).expect("whole blocks, same length");
        tail[..rest.len()].copy_from_slice(rest);
        tail[rest.len()..].copy_from_slice(trailer);
        self.cipher.key.encrypt_in_place(&mut iv, tail).expect("the trailer pads to whole blocks");
        self.sign(packet, high);
    }

    /// Puts the initialisation vector of packet `sequence` in its place: the number encrypted under a key that
    /// serves nothing else. It never repeats, and nobody without the key can tell the next one (RFC 3602 §3,
    /// NIST SP 800-38A Appendix C).
    pub(super) fn put_iv(&self, packet: &mut [u8], sequence: u64) -> [u8; BLOCK_LEN] {
        let mut iv = u128::from(sequence).to_be_bytes();
        self.iv_key.encrypt_in_place(&mut [0; BLOCK_LEN], &mut iv).expect("one block is whole");
        packet[HEADER_LEN..HEADER_LEN + BLOCK_LEN].copy_from_slice(&iv);
        iv
    }

    /// Encrypts the text behind the initialisation vector.
    pub(super) fn encrypt(&self, packet: &mut [u8]) {
        let text_end = packet.len() - self.cipher.icv_len;
        let (iv, text) = packet[HEADER_LEN..text_end].split_first_chunk_mut().expect("laid out");
        self.cipher.key.encrypt_in_place(&mut iv.clone(), text).expect("laid out in whole blocks");
    }

    /// Puts the ICV behind the encrypted packet.
    pub(super) fn sign(&self, packet: &mut [u8], high: Option<u32>) {
        sign(packet, high, (&self.cipher.hmac, self.cipher.icv_len));
    }
}
