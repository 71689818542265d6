//! The authenticated ciphers on ESP packets.

use core::ops::Range;

use codec_native::aead::{AeadAlgorithm, AeadKey, NONCE_LEN, OpenFailed, TAG_LEN};
use codec_native::ipsec_mb::{self, GcmKey};

use super::backend::{self, Backend};
use super::suite::{AEAD_IV_LEN, EspKeys, KEYS_FIT, SALT_LEN};
use super::{EspError, HEADER_LEN};

/// An AEAD with its salt.
pub(super) struct Aead {
    key: Key,
    salt: [u8; SALT_LEN],
}

/// The key as its back end expands it.
#[expect(clippy::large_enum_variant, reason = "contexts are few, and nearly all of the one kind")]
enum Key {
    AwsLc(AeadKey),
    IpsecMb(GcmKey),
}

impl Aead {
    /// `None` when the suite is not an AEAD.
    pub(super) fn new(keys: &EspKeys) -> Option<Self> {
        let algorithm = keys.suite().cipher.aead()?;
        let (key, salt) = keys.encr().split_last_chunk().expect(KEYS_FIT);
        Some(Self { key: Key::new(algorithm, key), salt: *salt })
    }

    pub(super) fn open(&self, packet: &mut [u8], high: Option<u32>) -> Result<Range<usize>, EspError> {
        let (header, rest) = packet.split_first_chunk::<HEADER_LEN>().ok_or(EspError::TooShort)?;
        let iv = rest.first_chunk().ok_or(EspError::TooShort)?;
        let (nonce, (aad, aad_len)) = (self.nonce(iv), associated_data(header, high));
        let body = packet.get_mut(HEADER_LEN + AEAD_IV_LEN..).ok_or(EspError::TooShort)?;
        let (text, tag) = body.split_last_chunk_mut::<TAG_LEN>().ok_or(EspError::TooShort)?;
        self.key.open_in_place(&nonce, &aad[..aad_len], text, tag).map_err(|_| EspError::BadIcv)?;
        Ok(HEADER_LEN + AEAD_IV_LEN..HEADER_LEN + AEAD_IV_LEN + text.len())
    }

    pub(super) fn seal(
        &self,
        packet: &mut [u8],
        sequence: u64,
        high: Option<u32>,
        inner: &[u8],
        trailer: &[u8],
    ) {
        let (header, iv, sealed) = split(packet, sequence);
        let (aad, aad_len) = associated_data(header, high);
        self.key.seal(&self.nonce(iv), &aad[..aad_len], inner, trailer, sealed);
    }

    pub(super) fn seal_in_place(&self, packet: &mut [u8], sequence: u64, high: Option<u32>) {
        let (header, iv, sealed) = split(packet, sequence);
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

/// Header, IV, filled in, and the place of text and tag.
fn split(packet: &mut [u8], sequence: u64) -> (&[u8; HEADER_LEN], &[u8; AEAD_IV_LEN], &mut [u8]) {
    let (header, rest) = packet.split_first_chunk_mut().expect("laid out");
    let (iv, sealed) = rest.split_first_chunk_mut().expect("laid out");
    // RFC 4106 §3.1: any value that never repeats under the key; the sequence number does not.
    *iv = sequence.to_be_bytes();
    (header, iv, sealed)
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

impl Key {
    fn new(algorithm: AeadAlgorithm, key: &[u8]) -> Self {
        match (backend::current().aead(algorithm), ipsec_mb::available()) {
            (Backend::IpsecMb, Some(library)) => Self::IpsecMb(GcmKey::new(library, key).expect(KEYS_FIT)),
            _ => Self::AwsLc(AeadKey::new(algorithm, key).expect(KEYS_FIT)),
        }
    }

    fn open_in_place(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), OpenFailed> {
        match self {
            Self::AwsLc(key) => key.open_in_place(nonce, aad, text, tag),
            Self::IpsecMb(key) => key.open_in_place(nonce, aad, text, tag),
        }
    }

    fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], inner: &[u8], trailer: &[u8], out: &mut [u8]) {
        match self {
            Self::AwsLc(key) => key.seal_scatter(nonce, aad, inner, trailer, out),
            // One call over a copied text beats a call per part: 56 to 77 ns at 160 octets.
            Self::IpsecMb(key) => {
                let (text, tag) = out.split_last_chunk_mut::<TAG_LEN>().expect("laid out");
                text[..inner.len()].copy_from_slice(inner);
                text[inner.len()..].copy_from_slice(trailer);
                *tag = key.seal_in_place(nonce, aad, text);
            }
        }
    }

    fn seal_in_place(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        match self {
            Self::AwsLc(key) => key.seal_in_place(nonce, aad, text),
            Self::IpsecMb(key) => key.seal_in_place(nonce, aad, text),
        }
    }
}
