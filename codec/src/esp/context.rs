//! Expanded keys: what an SA needs hot to seal and open packets.
//!
//! A context is built from [`EspKeys`] and can be dropped and built again at any time; it holds no state of
//! the SA.

use core::ops::Range;
use std::sync::Arc;

use codec_native::aead::{AeadKey, NONCE_LEN, TAG_LEN};
use codec_native::cbc::{BLOCK_LEN, CbcDecryptKey, CbcEncryptKey};
use codec_native::constant_time_eq;
use codec_native::hmac::HmacKey;

use super::suite::{AEAD_IV_LEN, EspKeys, SALT_LEN};
use super::{EspError, HEADER_LEN};

const KEYS_FIT: &str = "EspKeys has the lengths of its suite";

/// Opens packets of one SA. A clone shares the keys.
#[derive(Clone)]
pub(super) enum OpenContext {
    Aead(Arc<Aead>),
    CbcHmac(Arc<CbcHmac<CbcDecryptKey>>),
}

/// Seals packets of one SA. A clone shares the keys.
#[derive(Clone)]
pub(super) enum SealContext {
    Aead(Arc<Aead>),
    CbcHmac(Arc<CbcSeal>),
}

/// What CBC needs to seal: beside the cipher the key of its initialisation vectors.
pub(super) struct CbcSeal {
    cipher: CbcHmac<CbcEncryptKey>,
    iv_key: CbcEncryptKey,
}

/// An AEAD with its salt.
pub(super) struct Aead {
    key: AeadKey,
    salt: [u8; SALT_LEN],
}

/// CBC under an HMAC.
pub(super) struct CbcHmac<Key> {
    key: Key,
    hmac: HmacKey,
    icv_len: usize,
}

impl OpenContext {
    pub(super) fn new(keys: &EspKeys) -> Self {
        match Aead::new(keys) {
            Some(aead) => Self::Aead(Arc::new(aead)),
            None => Self::CbcHmac(Arc::new(CbcHmac::new(keys, CbcDecryptKey::new))),
        }
    }

    /// Verifies and decrypts `packet` in place; `high` is the unsent half of an extended sequence number.
    /// Returns where the text (inner packet, padding, trailer) lies.
    pub(super) fn open(&self, packet: &mut [u8], high: Option<u32>) -> Result<Range<usize>, EspError> {
        match self {
            Self::Aead(aead) => aead.open(packet, high),
            Self::CbcHmac(cipher) => cipher.open(packet, high),
        }
    }
}

impl SealContext {
    /// `iv_key` is there exactly for CBC.
    pub(super) fn new(keys: &EspKeys, iv_key: Option<&[u8; BLOCK_LEN]>) -> Self {
        match (Aead::new(keys), iv_key) {
            (Some(aead), _) => Self::Aead(Arc::new(aead)),
            (None, iv_key) => Self::CbcHmac(Arc::new(CbcSeal {
                cipher: CbcHmac::new(keys, CbcEncryptKey::new),
                iv_key: iv_key.and_then(|key| CbcEncryptKey::new(key)).expect("CBC has an IV key"),
            })),
        }
    }

    /// Fills `packet`, whose SPI and low sequence half are in place, with IV, encrypted `inner` and `trailer`
    /// and ICV. Its length is that of the parts.
    pub(super) fn seal(&self, packet: &mut [u8], sequence: u64, esn: bool, inner: &[u8], trailer: &[u8]) {
        let high = esn.then_some((sequence >> 32) as u32);
        match self {
            Self::Aead(aead) => aead.seal(packet, sequence, high, inner, trailer),
            Self::CbcHmac(cbc) => {
                let iv = unpredictable_iv(&cbc.iv_key, sequence);
                cbc.cipher.seal(packet, iv, high, inner, trailer);
            }
        }
    }

    /// As [`Self::seal`] for a packet whose text (inner packet and trailer) is in its place already.
    pub(super) fn seal_in_place(&self, packet: &mut [u8], sequence: u64, high: Option<u32>) {
        match self {
            Self::Aead(aead) => aead.seal_in_place(packet, sequence, high),
            Self::CbcHmac(cbc) => {
                cbc.cipher.seal_in_place(packet, unpredictable_iv(&cbc.iv_key, sequence), high)
            }
        }
    }
}

/// The sequence number encrypted under a key that serves nothing else: never repeats, and nobody without the
/// key can tell the next one (RFC 3602 §3, NIST SP 800-38A Appendix C).
fn unpredictable_iv(key: &CbcEncryptKey, sequence: u64) -> [u8; BLOCK_LEN] {
    let mut block = u128::from(sequence).to_be_bytes();
    key.encrypt_in_place(&mut [0; BLOCK_LEN], &mut block).expect("one block is whole");
    block
}

impl Aead {
    /// `None` when the suite is not an AEAD.
    fn new(keys: &EspKeys) -> Option<Self> {
        let algorithm = keys.suite().cipher.aead()?;
        let (key, salt) = keys.encr().split_last_chunk().expect(KEYS_FIT);
        Some(Self { key: AeadKey::new(algorithm, key).expect(KEYS_FIT), salt: *salt })
    }

    fn open(&self, packet: &mut [u8], high: Option<u32>) -> Result<Range<usize>, EspError> {
        let (header, rest) = packet.split_first_chunk::<HEADER_LEN>().ok_or(EspError::TooShort)?;
        let iv = rest.first_chunk().ok_or(EspError::TooShort)?;
        let (nonce, (aad, aad_len)) = (self.nonce(iv), associated_data(header, high));
        let body = packet.get_mut(HEADER_LEN + AEAD_IV_LEN..).ok_or(EspError::TooShort)?;
        let (text, tag) = body.split_last_chunk_mut::<TAG_LEN>().ok_or(EspError::TooShort)?;
        self.key.open_in_place(&nonce, &aad[..aad_len], text, tag).map_err(|_| EspError::BadIcv)?;
        Ok(HEADER_LEN + AEAD_IV_LEN..HEADER_LEN + AEAD_IV_LEN + text.len())
    }

    fn seal(&self, packet: &mut [u8], sequence: u64, high: Option<u32>, inner: &[u8], trailer: &[u8]) {
        let (header, rest) = packet.split_first_chunk_mut::<HEADER_LEN>().expect("sized by the caller");
        let (iv, sealed) = rest.split_first_chunk_mut::<AEAD_IV_LEN>().expect("sized by the caller");
        // RFC 4106 §3.1: any value that never repeats under the key; the sequence number does not.
        *iv = sequence.to_be_bytes();
        let (aad, aad_len) = associated_data(header, high);
        self.key.seal_scatter(&self.nonce(iv), &aad[..aad_len], inner, trailer, sealed);
    }

    fn seal_in_place(&self, packet: &mut [u8], sequence: u64, high: Option<u32>) {
        let (header, rest) = packet.split_first_chunk_mut::<HEADER_LEN>().expect("laid out");
        let (iv, sealed) = rest.split_first_chunk_mut::<AEAD_IV_LEN>().expect("laid out");
        *iv = sequence.to_be_bytes();
        let (text, tag) = sealed.split_last_chunk_mut::<TAG_LEN>().expect("laid out");
        let (aad, aad_len) = associated_data(header, high);
        *tag = self.key.seal_in_place(&self.nonce(iv), &aad[..aad_len], text);
    }

    fn nonce(&self, iv: &[u8; AEAD_IV_LEN]) -> [u8; NONCE_LEN] {
        let mut nonce = [0; NONCE_LEN];
        nonce[..SALT_LEN].copy_from_slice(&self.salt);
        nonce[SALT_LEN..].copy_from_slice(iv);
        nonce
    }
}

/// SPI, then the whole sequence number: 8 octets, or 12 under ESN (RFC 4106 §5, RFC 7634 §2.1).
fn associated_data(header: &[u8; HEADER_LEN], high: Option<u32>) -> ([u8; 12], usize) {
    let mut aad = [0; 12];
    match high {
        None => {
            aad[..8].copy_from_slice(header);
            (aad, 8)
        }
        Some(high) => {
            aad[..4].copy_from_slice(&header[..4]);
            aad[4..8].copy_from_slice(&high.to_be_bytes());
            aad[8..].copy_from_slice(&header[4..]);
            (aad, 12)
        }
    }
}

impl<Key> CbcHmac<Key> {
    fn new(keys: &EspKeys, expand: impl FnOnce(&[u8]) -> Option<Key>) -> Self {
        let integ = keys.suite().integ.expect("EspKeys pairs CBC with an integrity algorithm");
        Self {
            key: expand(keys.encr()).expect(KEYS_FIT),
            hmac: HmacKey::new(integ.hmac(), keys.integ()),
            icv_len: integ.icv_len(),
        }
    }

    /// The ICV's tag over everything before it; the high half goes behind (RFC 4303 §2.2.1).
    fn tag(&self, signed: &[u8], high: Option<u32>) -> [u8; codec_native::hmac::TAG_LEN_MAX] {
        match high {
            None => self.hmac.tag(&[signed]),
            Some(high) => self.hmac.tag(&[signed, &high.to_be_bytes()]),
        }
    }
}

impl CbcHmac<CbcDecryptKey> {
    fn open(&self, packet: &mut [u8], high: Option<u32>) -> Result<Range<usize>, EspError> {
        let icv_at = packet.len().checked_sub(self.icv_len).ok_or(EspError::TooShort)?;
        let text_at = HEADER_LEN + BLOCK_LEN;
        let (signed, icv) = packet.split_at_mut(icv_at);
        let tag = self.tag(signed, high);
        // RFC 4303 §3.4.4.1: the ICV comes first, nothing is decrypted that does not verify.
        if !constant_time_eq(&tag[..self.icv_len], icv) {
            return Err(EspError::BadIcv);
        }
        let (head, text) = signed.split_at_mut_checked(text_at).ok_or(EspError::TooShort)?;
        let iv = head.last_chunk().ok_or(EspError::TooShort)?;
        self.key.decrypt_in_place(iv, text).map_err(|_| EspError::TooShort)?;
        Ok(text_at..icv_at)
    }
}

impl CbcHmac<CbcEncryptKey> {
    fn seal(&self, packet: &mut [u8], iv: [u8; BLOCK_LEN], high: Option<u32>, inner: &[u8], trailer: &[u8]) {
        let icv_at = packet.len() - self.icv_len;
        let (signed, icv) = packet.split_at_mut(icv_at);
        let (head, text) = signed.split_at_mut(HEADER_LEN + BLOCK_LEN);
        head[HEADER_LEN..].copy_from_slice(&iv);
        self.encrypt(iv, inner, trailer, text);
        let tag = self.tag(signed, high);
        icv.copy_from_slice(&tag[..self.icv_len]);
    }

    fn seal_in_place(&self, packet: &mut [u8], mut iv: [u8; BLOCK_LEN], high: Option<u32>) {
        let icv_at = packet.len() - self.icv_len;
        let (signed, icv) = packet.split_at_mut(icv_at);
        let (head, text) = signed.split_at_mut(HEADER_LEN + BLOCK_LEN);
        head[HEADER_LEN..].copy_from_slice(&iv);
        self.key.encrypt_in_place(&mut iv, text).expect("laid out in whole blocks");
        let tag = self.tag(signed, high);
        icv.copy_from_slice(&tag[..self.icv_len]);
    }

    /// Encrypts the whole blocks of `inner` where they lie and the rest, with the trailer, by way of the stack.
    fn encrypt(&self, mut iv: [u8; BLOCK_LEN], inner: &[u8], trailer: &[u8], text: &mut [u8]) {
        let (whole, rest) = inner.split_at(inner.len() - inner.len() % BLOCK_LEN);
        let (body, tail) = text.split_at_mut(whole.len());
        self.key.encrypt(&mut iv, whole, body).expect("whole blocks, same length");
        tail[..rest.len()].copy_from_slice(rest);
        tail[rest.len()..].copy_from_slice(trailer);
        self.key.encrypt_in_place(&mut iv, tail).expect("the trailer pads to whole blocks");
    }
}
