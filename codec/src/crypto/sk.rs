//! The Encrypted payload SK (RFC 7296 §3.14, RFC 5282) and its fragments SKF (RFC 7383).
//!
//! ```text
//! | IKE header (28) | generic header (4) | [number (2) total (2)] | IV | payloads, padding, pad len (1) | ICV |
//! |------------------ AEAD: associated data -------------------|    |---------- encrypted ----------|
//! |------------------ CBC: all of it before the ICV is under the HMAC ---------------------------------|
//! ```
//!
//! An [`SkKey`] is a small record with raw keys; cipher contexts are made per message, on the stack.

use std::ops::Range;

use codec_native::aead::{AeadAlgorithm, AeadKey, NONCE_LEN, TAG_LEN};
use codec_native::cbc::{BLOCK_LEN, CbcDecryptKey, CbcEncryptKey};
use codec_native::constant_time_eq;
use codec_native::hmac::HmacKey;

use super::proposal::IkeSuite;
use super::secret::Secret;
use super::triple_des::{BLOCK_LEN as TRIPLE_DES_BLOCK_LEN, TripleDes};
use crate::Random;
use crate::esp::{AEAD_IV_LEN, EspCipher, EspInteg, SALT_LEN};
use crate::ike::payload::{FragmentView, GENERIC_HEADER_LEN, PayloadIter};
use crate::ike::{
    DecodeError, HEADER_LEN, LENGTH_AT, MESSAGE_LEN_MAX, Message, MessageTooLong, NEXT_PAYLOAD_AT,
    PayloadType,
};

const SUITE_FITS: &str = "an IkeSuite pairs its algorithms and its keys have their lengths";

/// Why an Encrypted payload was not opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SkError {
    /// The message around it does not decode.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// No Encrypted payload of the kind expected.
    #[error("no encrypted payload")]
    Missing,
    /// Shorter than IV, one octet of padding and ICV, or not whole blocks.
    #[error("encrypted payload too short for its suite")]
    TooShort,
    /// The integrity check failed: not from the peer, or damaged.
    #[error("integrity check failed")]
    BadIcv,
    /// Authentic, but its padding is longer than its content.
    #[error("bad padding")]
    BadPadding,
}

/// The keys of one direction of an IKE SA: encryption with integrity.
///
/// Sealing counts messages, which makes AEAD nonces unique per key (RFC 5282 §3.1); so there must be only
/// one `SkKey` per key that seals.
pub struct SkKey {
    cipher: Cipher,
    sealed_count: u64,
}

enum Cipher {
    Aead { algorithm: AeadAlgorithm, key: Secret },
    CbcHmac { key: Secret, integ: EspInteg, integ_key: Secret },
    TripleDesHmac { key: Secret, integ: EspInteg, integ_key: Secret },
}

/// The content of an Encrypted payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opened {
    /// Type of the first inner payload.
    pub first: PayloadType,
    /// Where the inner payload chain lies in the message.
    pub inner: Range<usize>,
}

impl Opened {
    /// The inner payloads of `message`, which must be the message that was opened.
    pub fn payloads<'a>(&self, message: &'a [u8]) -> PayloadIter<'a> {
        PayloadIter::new(self.first, message.get(self.inner.clone()).unwrap_or_default())
    }
}

/// The content of an Encrypted Fragment payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenedFragment {
    /// Which fragment it is, counted from 1.
    pub number: u16,
    /// How many there are; at least `number`.
    pub total: u16,
    /// Type of the first inner payload of the whole message; meaningful in fragment 1 only.
    pub first: PayloadType,
    /// Where this part of the inner payload chain lies in the message.
    pub inner: Range<usize>,
}

/// Verifies and decrypts the Encrypted payload of a whole message in place.
///
/// # Errors
/// See [`SkError`]. After [`SkError::BadIcv`] the encrypted octets of the message may be wiped.
pub fn open_sk(message: &mut [u8], key: &SkKey) -> Result<Opened, SkError> {
    let (first, body) = locate(message, PayloadType::ENCRYPTED)?;
    let inner = key.cipher.open(message, body)?;
    Ok(Opened { first, inner })
}

/// Verifies and decrypts the Encrypted Fragment payload of a whole message in place.
///
/// # Errors
/// See [`SkError`].
pub fn open_skf(message: &mut [u8], key: &SkKey) -> Result<OpenedFragment, SkError> {
    let (first, body) = locate(message, PayloadType::ENCRYPTED_FRAGMENT)?;
    let FragmentView { number, total, .. } = FragmentView::decode(&message[body.clone()])?;
    let inner = key.cipher.open(message, body.start + FragmentView::HEADER_LEN..body.end)?;
    Ok(OpenedFragment { number, total, first, inner })
}

/// Finds the payload of type `wanted`: its Next Payload and where its body lies, at the message's end.
fn locate(message: &[u8], wanted: PayloadType) -> Result<(PayloadType, Range<usize>), SkError> {
    let mut at = HEADER_LEN;
    let mut found = Err(SkError::Missing);
    for payload in Message::decode(message)?.payloads() {
        let payload = payload?;
        let body = at + GENERIC_HEADER_LEN..at + GENERIC_HEADER_LEN + payload.body.len();
        if payload.kind == wanted {
            found = Ok((PayloadType(message[at]), body.clone()));
        }
        at = body.end;
    }
    found
}

impl SkKey {
    /// Takes one direction's SK_e, with an AEAD's salt at its end, and SK_a, which an AEAD does without.
    ///
    /// # Panics
    /// If the keys are not those of `suite`; [`super::IkeKeys`] makes no others.
    pub fn new(suite: &IkeSuite, sk_e: &Secret, sk_a: &Secret) -> Self {
        let lens = suite.key_lens();
        assert!(sk_e.as_bytes().len() == lens.encr && sk_a.as_bytes().len() == lens.integ, "{SUITE_FITS}");
        let cipher = match (suite.cipher.aead(), suite.integ) {
            (Some(algorithm), _) => Cipher::Aead { algorithm, key: sk_e.clone() },
            (None, integ) if suite.cipher == EspCipher::TripleDesCbc => Cipher::TripleDesHmac {
                key: sk_e.clone(),
                integ: integ.expect(SUITE_FITS),
                integ_key: sk_a.clone(),
            },
            (None, integ) => Cipher::CbcHmac {
                key: sk_e.clone(),
                integ: integ.expect(SUITE_FITS),
                integ_key: sk_a.clone(),
            },
        };
        Self { cipher, sealed_count: 0 }
    }

    /// Puts `plain`, a part of a payload chain, into an Encrypted payload of its own message.
    fn seal(
        &mut self,
        header: &[u8],
        first: PayloadType,
        fragment: Option<(u16, u16)>,
        plain: &[u8],
        random: &mut dyn Random,
    ) -> Result<Vec<u8>, MessageTooLong> {
        let lens = self.cipher.lens();
        let pad_len = (plain.len() + 1).next_multiple_of(lens.block) - (plain.len() + 1);
        let fragment_len = if fragment.is_some() { FragmentView::HEADER_LEN } else { 0 };
        let length =
            HEADER_LEN + GENERIC_HEADER_LEN + fragment_len + lens.iv + (plain.len() + pad_len + 1) + lens.icv;
        if length > MESSAGE_LEN_MAX {
            return Err(MessageTooLong);
        }
        let kind = if fragment.is_some() { PayloadType::ENCRYPTED_FRAGMENT } else { PayloadType::ENCRYPTED };
        let mut out = Vec::with_capacity(length);
        out.extend_from_slice(header);
        out[NEXT_PAYLOAD_AT] = kind.0;
        out[LENGTH_AT..].copy_from_slice(&u32::try_from(length).map_err(|_| MessageTooLong)?.to_be_bytes());
        out.extend_from_slice(&[first.0, 0]);
        let payload_len = u16::try_from(length - HEADER_LEN).map_err(|_| MessageTooLong)?;
        out.extend_from_slice(&payload_len.to_be_bytes());
        if let Some((number, total)) = fragment {
            out.extend_from_slice(&number.to_be_bytes());
            out.extend_from_slice(&total.to_be_bytes());
        }
        let iv_at = out.len();
        out.resize(iv_at + lens.iv, 0);
        match self.cipher {
            // RFC 5282 §3.1: any value that never repeats under the key.
            Cipher::Aead { .. } => out[iv_at..].copy_from_slice(&self.sealed_count.to_be_bytes()),
            // RFC 7296 §3.14: an IV for CBC is unpredictable.
            Cipher::CbcHmac { .. } | Cipher::TripleDesHmac { .. } => random.fill(&mut out[iv_at..]),
        }
        out.extend_from_slice(plain);
        out.resize(out.len() + pad_len, 0);
        // RFC 7296 §3.14: padding is at most a block, which fits its one octet of length.
        out.push(u8::try_from(pad_len).map_err(|_| MessageTooLong)?);
        self.sealed_count += 1;
        self.cipher.seal(&mut out, iv_at);
        Ok(out)
    }
}

/// Seals the payloads of a finished message in clear.
pub(crate) fn seal_message(
    clear: &[u8],
    key: &mut SkKey,
    random: &mut dyn Random,
) -> Result<Vec<u8>, MessageTooLong> {
    let (header, chain) = clear.split_at(HEADER_LEN);
    key.seal(header, PayloadType(header[NEXT_PAYLOAD_AT]), None, chain, random)
}

/// Seals the payloads of a finished message in clear as the one fragment that `place` says.
pub(crate) fn seal_fragment(
    clear: &[u8],
    key: &mut SkKey,
    random: &mut dyn Random,
    place: (u16, u16),
) -> Result<Vec<u8>, MessageTooLong> {
    let (header, chain) = clear.split_at(HEADER_LEN);
    key.seal(header, PayloadType(header[NEXT_PAYLOAD_AT]), Some(place), chain, random)
}

/// Seals the payloads of a finished message in clear as fragments of at most `message_len_max` octets each.
pub(crate) fn seal_fragments(
    clear: &[u8],
    key: &mut SkKey,
    random: &mut dyn Random,
    message_len_max: usize,
) -> Result<Vec<Vec<u8>>, MessageTooLong> {
    let (header, chain) = clear.split_at(HEADER_LEN);
    let first = PayloadType(header[NEXT_PAYLOAD_AT]);
    let lens = key.cipher.lens();
    let whole_overhead = HEADER_LEN + GENERIC_HEADER_LEN + lens.iv + lens.icv;
    if (chain.len() + 1).next_multiple_of(lens.block) + whole_overhead <= message_len_max {
        return Ok(vec![key.seal(header, first, None, chain, random)?]);
    }
    let room = message_len_max
        .checked_sub(whole_overhead + FragmentView::HEADER_LEN)
        .map(|room| room - room % lens.block)
        .and_then(|room| room.checked_sub(1))
        .filter(|room| *room > 0)
        .ok_or(MessageTooLong)?;
    let total = u16::try_from(chain.len().div_ceil(room)).map_err(|_| MessageTooLong)?;
    chain
        .chunks(room)
        .zip(1..=total)
        .map(|(part, number)| {
            // RFC 7383 §2.5: only the first fragment names the first inner payload.
            let first = if number == 1 { first } else { PayloadType::NONE };
            key.seal(header, first, Some((number, total)), part, random)
        })
        .collect()
}

/// Octets of the parts around the encrypted text.
struct Lens {
    iv: usize,
    block: usize,
    icv: usize,
}

impl Cipher {
    fn lens(&self) -> Lens {
        match self {
            Self::Aead { .. } => Lens { iv: AEAD_IV_LEN, block: 1, icv: TAG_LEN },
            Self::CbcHmac { integ, .. } => Lens { iv: BLOCK_LEN, block: BLOCK_LEN, icv: integ.icv_len() },
            Self::TripleDesHmac { integ, .. } => {
                Lens { iv: TRIPLE_DES_BLOCK_LEN, block: TRIPLE_DES_BLOCK_LEN, icv: integ.icv_len() }
            }
        }
    }

    /// Encrypts what follows the IV at `iv_at` and appends the ICV.
    fn seal(&self, out: &mut Vec<u8>, iv_at: usize) {
        match self {
            Self::Aead { algorithm, key } => {
                let (head, text) = out.split_at_mut(iv_at + AEAD_IV_LEN);
                let (aad, iv) = head.split_at(iv_at);
                let (key, nonce) = aead(*algorithm, key, iv);
                let tag = key.seal_in_place(&nonce, aad, text);
                out.extend_from_slice(&tag);
            }
            Self::CbcHmac { key, integ, integ_key } => {
                let (head, text) = out.split_at_mut(iv_at + BLOCK_LEN);
                let mut iv = *head.last_chunk::<BLOCK_LEN>().expect("the IV was just written");
                let key = CbcEncryptKey::new(key.as_bytes()).expect(SUITE_FITS);
                key.encrypt_in_place(&mut iv, text).expect("padded to whole blocks");
                let tag = HmacKey::new(integ.hmac(), integ_key.as_bytes()).tag(&[out]);
                out.extend_from_slice(&tag[..integ.icv_len()]);
            }
            Self::TripleDesHmac { key, integ, integ_key } => {
                let (head, text) = out.split_at_mut(iv_at + TRIPLE_DES_BLOCK_LEN);
                let iv = head.last_chunk().expect("the IV was just written");
                let key = TripleDes::new(key.as_bytes()).expect(SUITE_FITS);
                key.encrypt(iv, text).expect("padded to whole blocks");
                let tag = HmacKey::new(integ.hmac(), integ_key.as_bytes()).tag(&[out]);
                out.extend_from_slice(&tag[..integ.icv_len()]);
            }
        }
    }

    /// Verifies `message` and decrypts `sealed` (IV, text, ICV), which ends it. Returns where the text lies
    /// without its padding.
    fn open(&self, message: &mut [u8], sealed: Range<usize>) -> Result<Range<usize>, SkError> {
        let lens = self.lens();
        let text = sealed.start + lens.iv..sealed.end.saturating_sub(lens.icv);
        if text.is_empty() || text.len() % lens.block != 0 {
            return Err(SkError::TooShort);
        }
        let (head, icv) = message.split_at_mut(text.end);
        match self {
            Self::Aead { algorithm, key } => {
                let tag = icv.first_chunk::<TAG_LEN>().ok_or(SkError::TooShort)?;
                let (head, text) = head.split_at_mut(text.start);
                let (aad, iv) = head.split_at(sealed.start);
                let (key, nonce) = aead(*algorithm, key, iv);
                key.open_in_place(&nonce, aad, text, tag).map_err(|_| SkError::BadIcv)?;
            }
            Self::CbcHmac { key, integ, integ_key } => {
                let tag = HmacKey::new(integ.hmac(), integ_key.as_bytes()).tag(&[head]);
                // RFC 7296 §3.14: the checksum comes first, nothing is decrypted that does not verify.
                if !constant_time_eq(&tag[..integ.icv_len()], icv) {
                    return Err(SkError::BadIcv);
                }
                let (head, text) = head.split_at_mut(text.start);
                let iv = head.last_chunk::<BLOCK_LEN>().ok_or(SkError::TooShort)?;
                let key = CbcDecryptKey::new(key.as_bytes()).expect(SUITE_FITS);
                key.decrypt_in_place(iv, text).map_err(|_| SkError::TooShort)?;
            }
            Self::TripleDesHmac { key, integ, integ_key } => {
                let tag = HmacKey::new(integ.hmac(), integ_key.as_bytes()).tag(&[head]);
                if !constant_time_eq(&tag[..integ.icv_len()], icv) {
                    return Err(SkError::BadIcv);
                }
                let (head, text) = head.split_at_mut(text.start);
                let iv = head.last_chunk().ok_or(SkError::TooShort)?;
                let key = TripleDes::new(key.as_bytes()).expect(SUITE_FITS);
                key.decrypt(iv, text).map_err(|_| SkError::TooShort)?;
            }
        }
        // RFC 7296 §3.14: padding of any length and content is accepted.
        let pad_len = usize::from(message[text.end - 1]);
        let end = (text.end - 1).checked_sub(pad_len).filter(|end| *end >= text.start);
        end.map(|end| text.start..end).ok_or(SkError::BadPadding)
    }
}

/// Expands an AEAD key that carries its salt at the end (RFC 5282 §7.1); nonce = salt, then the explicit IV.
fn aead(algorithm: AeadAlgorithm, key: &Secret, iv: &[u8]) -> (AeadKey, [u8; NONCE_LEN]) {
    let (key, salt) = key.as_bytes().split_last_chunk::<SALT_LEN>().expect(SUITE_FITS);
    let mut nonce = [0; NONCE_LEN];
    nonce[..SALT_LEN].copy_from_slice(salt);
    nonce[SALT_LEN..].copy_from_slice(iv);
    (AeadKey::new(algorithm, key).expect(SUITE_FITS), nonce)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SeededRandom;
    use crate::crypto::Prf;
    use crate::ike::{ExchangeType, Flags, IkeSpi, KeGroup, MessageBuilder, MessageId, NotifyType};

    fn suites() -> Vec<IkeSuite> {
        use EspCipher::*;
        use EspInteg::*;
        let suite =
            |cipher, integ| IkeSuite { cipher, integ, prf: Prf::HmacSha2_256, group: KeGroup::CURVE25519 };
        let mut suites: Vec<_> =
            [Aes128Gcm16, Aes256Gcm16, ChaCha20Poly1305].map(|cipher| suite(cipher, None)).into();
        for cipher in [Aes128Cbc, Aes192Cbc, Aes256Cbc, TripleDesCbc] {
            for integ in [HmacSha1_96, HmacSha2_256_128, HmacSha2_384_192, HmacSha2_512_256] {
                suites.push(suite(cipher, Some(integ)));
            }
        }
        suites
    }

    fn key(suite: &IkeSuite) -> SkKey {
        let lens = suite.key_lens();
        SkKey::new(suite, &Secret::new(vec![3; lens.encr]), &Secret::new(vec![5; lens.integ]))
    }

    fn builder(data: &[u8]) -> MessageBuilder {
        let mut message = MessageBuilder::new(
            IkeSpi([1; 8]),
            IkeSpi([2; 8]),
            ExchangeType::INFORMATIONAL,
            Flags::INITIATOR,
            MessageId(1),
        );
        message.notify(NotifyType::COOKIE, data);
        message
    }

    #[test]
    fn r7296_3_14_sealed_messages_open_in_every_suite() {
        for suite in suites() {
            let (mut sender, receiver) = (key(&suite), key(&suite));
            for len in 0..40 {
                let data = vec![9; len];
                let mut message = builder(&data).seal(&mut sender, &mut SeededRandom::new(1)).expect("short");
                let opened = open_sk(&mut message, &receiver).expect("the same key");
                let payloads: Vec<_> = opened.payloads(&message).collect();
                assert_eq!(payloads.len(), 1, "{suite}");
                let body = payloads[0].as_ref().expect("in bounds").body;
                assert_eq!(&body[4..], data, "{suite}");
            }
        }
    }

    #[test]
    fn r7296_3_14_empty_messages_open_to_no_payload() {
        for suite in suites() {
            let empty = MessageBuilder::new(
                IkeSpi([1; 8]),
                IkeSpi([2; 8]),
                ExchangeType::INFORMATIONAL,
                Flags::new(false, true),
                MessageId(1),
            );
            let mut key = key(&suite);
            let mut message = empty.seal(&mut key, &mut SeededRandom::new(1)).expect("short");
            let opened = open_sk(&mut message, &key).expect("the same key");
            assert_eq!((opened.first, opened.payloads(&message).count()), (PayloadType::NONE, 0));
        }
    }

    #[test]
    fn r5282_3_1_nonces_never_repeat_and_r7296_3_14_cbc_vectors_are_random() {
        for suite in suites() {
            let mut key = key(&suite);
            let mut random = SeededRandom::new(1);
            let iv_at = HEADER_LEN + GENERIC_HEADER_LEN;
            let iv_len = key.cipher.lens().iv;
            let ivs: std::collections::HashSet<_> = (0..100)
                .map(|_| builder(b"").seal(&mut key, &mut random).expect("short"))
                .map(|message| message[iv_at..iv_at + iv_len].to_vec())
                .collect();
            assert_eq!(ivs.len(), 100, "{suite}");
        }
    }

    /// A message with any inner text, sealed as [`SkKey::seal`] does but without adding padding.
    fn sealed_text(key: &SkKey, text: &[u8]) -> Vec<u8> {
        let lens = key.cipher.lens();
        let mut out = builder(b"").finish().expect("short")[..HEADER_LEN].to_vec();
        let payload_len = GENERIC_HEADER_LEN + lens.iv + text.len() + lens.icv;
        out[NEXT_PAYLOAD_AT] = PayloadType::ENCRYPTED.0;
        out[LENGTH_AT..].copy_from_slice(&((HEADER_LEN + payload_len) as u32).to_be_bytes());
        out.extend_from_slice(&[PayloadType::NOTIFY.0, 0]);
        out.extend_from_slice(&(payload_len as u16).to_be_bytes());
        let iv_at = out.len();
        out.resize(iv_at + lens.iv, 7);
        out.extend_from_slice(text);
        key.cipher.seal(&mut out, iv_at);
        out
    }

    #[test]
    fn r7296_3_14_padding_of_any_length_and_content_is_accepted() {
        for suite in suites() {
            let key = key(&suite);
            for (content_len, pad_len) in [(8, 7u8), (8, 23), (0, 255), (16, 255)] {
                let mut text = vec![0xaa; content_len + usize::from(pad_len)];
                text.push(pad_len);
                if text.len() % key.cipher.lens().block != 0 {
                    text.splice(..0, vec![0; key.cipher.lens().block - text.len() % key.cipher.lens().block]);
                }
                let content = text.len() - usize::from(pad_len) - 1;
                let mut message = sealed_text(&key, &text);
                let opened = open_sk(&mut message, &key).expect("valid padding");
                assert_eq!(opened.inner.len(), content, "{suite}");
            }
        }
    }

    #[test]
    fn r7296_3_14_padding_longer_than_the_content_is_refused() {
        for suite in suites() {
            let key = key(&suite);
            let mut text = vec![0; 15];
            text.push(16);
            let mut message = sealed_text(&key, &text);
            assert_eq!(open_sk(&mut message, &key), Err(SkError::BadPadding), "{suite}");
            let mut message = sealed_text(&key, &[]);
            assert_eq!(open_sk(&mut message, &key), Err(SkError::TooShort), "{suite}");
        }
    }

    #[test]
    fn r7296_3_14_messages_without_an_encrypted_payload_are_told_apart() {
        let key = key(&suites()[0]);
        let mut message = builder(b"").finish().expect("short");
        assert_eq!(open_sk(&mut message, &key), Err(SkError::Missing));
        let mut trailing = sealed_text(&key, &[0]);
        trailing.extend_from_slice(&[0; 4]);
        let length = (trailing.len() as u32).to_be_bytes();
        trailing[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&length);
        assert!(matches!(open_sk(&mut trailing, &key), Err(SkError::Malformed(_))), "SK is the last payload");
    }

    #[test]
    fn r7383_2_5_fragments_fit_open_and_add_up() {
        for suite in suites() {
            let mut key = key(&suite);
            let data: Vec<u8> = (0..=255).cycle().take(3000).collect();
            let sealed =
                builder(&data).seal_fragments(&mut key, &mut SeededRandom::new(1), 576).expect("enough room");
            assert!(sealed.len() > 5);
            let mut chain = Vec::new();
            for (mut message, number) in sealed.iter().cloned().zip(1..) {
                assert!(message.len() <= 576, "{suite}");
                let part = open_skf(&mut message, &key).expect("the same key");
                assert_eq!((part.number, usize::from(part.total)), (number, sealed.len()));
                let first = if number == 1 { PayloadType::NOTIFY } else { PayloadType::NONE };
                assert_eq!(part.first, first);
                chain.extend_from_slice(&message[part.inner]);
            }
            assert_eq!(&chain[8..], data, "{suite}");
            assert!(
                sealed.iter().all(|message| open_sk(&mut message.clone(), &key) == Err(SkError::Missing))
            );
        }
    }

    #[test]
    fn r7383_2_5_the_fragment_header_is_authenticated() {
        for suite in suites() {
            let mut key = key(&suite);
            let sealed = builder(&[0; 1000])
                .seal_fragments(&mut key, &mut SeededRandom::new(1), 576)
                .expect("enough room");
            let at = HEADER_LEN + GENERIC_HEADER_LEN;
            for octet in [at + 1, at + 3] {
                let mut message = sealed[0].clone();
                message[octet] = 2;
                let expected = if message == sealed[0] { continue } else { Err(SkError::BadIcv) };
                assert_eq!(open_skf(&mut message, &key), expected, "{suite}");
            }
        }
    }

    #[test]
    fn r7383_2_5_one_message_is_not_fragmented_and_no_room_is_an_error() {
        let mut key = key(&suites()[0]);
        let mut random = SeededRandom::new(1);
        let sealed = builder(b"small").seal_fragments(&mut key, &mut random, 576).expect("enough room");
        assert_eq!(sealed.len(), 1);
        assert!(open_sk(&mut sealed[0].clone(), &key).is_ok());
        let refused = builder(b"small").seal_fragments(&mut key, &mut random, 60);
        assert_eq!(refused, Err(MessageTooLong));
    }
    #[test]
    fn a_single_fragment_says_what_it_is_told_to_and_opens_only_where_that_makes_sense() {
        let mut key = key(&suites()[0]);
        let mut random = SeededRandom::new(1);
        for (place, opens) in
            [((1, 1), true), ((2, 9), true), ((0, 3), false), ((4, 3), false), ((0, 0), false)]
        {
            let mut sealed = builder(b"small").seal_fragment(&mut key, &mut random, place).expect("it fits");
            let opened = open_skf(&mut sealed, &key).map(|part| (part.number, part.total));
            assert_eq!(opened.is_ok(), opens, "{place:?}");
            assert!(!opens || opened == Ok(place));
        }
    }
}
