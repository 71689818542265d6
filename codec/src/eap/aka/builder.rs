//! Packets of our own: attributes in order, encryption, AT_MAC.

use codec_native::cbc::CbcEncryptKey;
use zeroize::Zeroizing;

use super::attribute::{Checkcode, MAC_LEN, number};
use super::message::{ATTRIBUTES_AT, mac};
use super::{IdentityRequest, Notification, Subtype, Variant};
use crate::Random;
use crate::eap::{Code, EapPacket};

/// Longest value of an attribute: its length is an octet of words of four octets.
const VALUE_LEN_MAX: usize = 255 * 4 - 4;

/// Octets of an AES block.
const BLOCK_LEN: usize = 16;

/// Builds one packet. Attributes appear in the order of the calls; AT_MAC comes last.
pub struct AkaBuilder {
    variant: Variant,
    code: Code,
    identifier: u8,
    /// Subtype, reserved, attributes.
    data: Vec<u8>,
}

/// Attributes that travel inside AT_ENCR_DATA.
#[derive(Default)]
pub struct Encrypted {
    text: Zeroizing<Vec<u8>>,
}

impl AkaBuilder {
    /// Starts a request or response.
    pub fn new(variant: Variant, code: Code, identifier: u8, subtype: Subtype) -> Self {
        Self { variant, code, identifier, data: vec![subtype.octet(), 0, 0] }
    }

    /// AT_RAND.
    pub fn rand(self, rand: &[u8; 16]) -> Self {
        self.reserved(number::RAND, rand)
    }

    /// AT_AUTN.
    pub fn autn(self, autn: &[u8; 16]) -> Self {
        self.reserved(number::AUTN, autn)
    }

    /// AT_RES: its length counts bits.
    pub fn res(mut self, res: &[u8]) -> Self {
        let bits = u16::try_from(res.len() * 8).unwrap_or(u16::MAX);
        push(&mut self.data, number::RES, bits, res);
        self
    }

    /// AT_AUTS.
    pub fn auts(mut self, auts: &[u8; 14]) -> Self {
        self.data.extend([number::AUTS, 4]);
        self.data.extend_from_slice(auts);
        self
    }

    /// AT_ANY_ID_REQ, AT_FULLAUTH_ID_REQ or AT_PERMANENT_ID_REQ.
    pub fn identity_request(self, request: IdentityRequest) -> Self {
        let kind = match request {
            IdentityRequest::Any => number::ANY_ID_REQ,
            IdentityRequest::FullAuth => number::FULLAUTH_ID_REQ,
            IdentityRequest::Permanent => number::PERMANENT_ID_REQ,
        };
        self.value(kind, 0)
    }

    /// AT_IDENTITY.
    pub fn identity(self, identity: &[u8]) -> Self {
        self.counted(number::IDENTITY, identity)
    }

    /// AT_NOTIFICATION.
    pub fn notification(self, notification: Notification) -> Self {
        self.value(number::NOTIFICATION, notification.0)
    }

    /// AT_CLIENT_ERROR_CODE.
    pub fn client_error(self, code: u16) -> Self {
        self.value(number::CLIENT_ERROR_CODE, code)
    }

    /// AT_CHECKCODE.
    pub fn checkcode(self, checkcode: Checkcode<'_>) -> Self {
        match checkcode {
            Checkcode::Empty => self.value(number::CHECKCODE, 0),
            Checkcode::Hash(hash) => self.reserved(number::CHECKCODE, hash),
        }
    }

    /// AT_RESULT_IND.
    pub fn result_ind(self) -> Self {
        self.value(number::RESULT_IND, 0)
    }

    /// AT_KDF.
    pub fn kdf(self, kdf: u16) -> Self {
        self.value(number::KDF, kdf)
    }

    /// AT_KDF_INPUT.
    pub fn kdf_input(self, network_name: &[u8]) -> Self {
        self.counted(number::KDF_INPUT, network_name)
    }

    /// AT_BIDDING; `prime_preferred` is the D bit.
    pub fn bidding(self, prime_preferred: bool) -> Self {
        self.value(number::BIDDING, u16::from(prime_preferred) << 15)
    }

    /// AT_IV and AT_ENCR_DATA with `attributes`; nothing when there are none.
    pub fn encrypted(self, attributes: Encrypted, k_encr: &[u8], random: &mut dyn Random) -> Self {
        let mut text = attributes.text;
        if text.is_empty() {
            return self;
        }
        // RFC 4187 §10.12: AT_PADDING of 4, 8 or 12 octets fills the last block.
        let whole = text.len().next_multiple_of(BLOCK_LEN);
        if whole > text.len() {
            let words = (whole - text.len()) / 4;
            text.extend([number::PADDING, words as u8]);
            text.resize(whole, 0);
        }
        let mut iv = [0; BLOCK_LEN];
        random.fill(&mut iv);
        let this = self.reserved(number::IV, &iv);
        let key = CbcEncryptKey::new(k_encr).expect("K_encr has the length of an AES key");
        key.encrypt_in_place(&mut iv, &mut text).expect("padded to whole blocks");
        this.reserved(number::ENCR_DATA, &text)
    }

    /// Ends a packet that has no MAC.
    pub fn finish(self) -> Vec<u8> {
        EapPacket::build(self.code, self.identifier, self.variant.method(), &self.data)
    }

    /// Ends the packet with AT_MAC over it and `extra` (see [`super::AkaMessage::verify_mac`]).
    pub fn finish_with_mac(mut self, k_aut: &[u8], extra: &[u8]) -> Vec<u8> {
        let variant = self.variant;
        push(&mut self.data, number::MAC, 0, &[0; MAC_LEN]);
        let mut packet = self.finish();
        let tag = mac(variant, k_aut, &[&packet, extra]);
        let at = packet.len() - MAC_LEN;
        debug_assert!(at > ATTRIBUTES_AT);
        packet[at..].copy_from_slice(&tag);
        packet
    }

    fn reserved(mut self, kind: u8, value: &[u8]) -> Self {
        push(&mut self.data, kind, 0, value);
        self
    }

    fn counted(mut self, kind: u8, value: &[u8]) -> Self {
        push_counted(&mut self.data, kind, value);
        self
    }

    fn value(mut self, kind: u8, value: u16) -> Self {
        push(&mut self.data, kind, value, &[]);
        self
    }
}

impl Encrypted {
    /// AT_COUNTER.
    pub fn counter(mut self, counter: u16) -> Self {
        push(&mut self.text, number::COUNTER, counter, &[]);
        self
    }

    /// AT_COUNTER_TOO_SMALL.
    pub fn counter_too_small(mut self) -> Self {
        push(&mut self.text, number::COUNTER_TOO_SMALL, 0, &[]);
        self
    }

    /// AT_NONCE_S.
    pub fn nonce_s(mut self, nonce_s: &[u8; 16]) -> Self {
        push(&mut self.text, number::NONCE_S, 0, nonce_s);
        self
    }

    /// AT_NEXT_PSEUDONYM.
    pub fn next_pseudonym(mut self, pseudonym: &str) -> Self {
        push_counted(&mut self.text, number::NEXT_PSEUDONYM, pseudonym.as_bytes());
        self
    }

    /// AT_NEXT_REAUTH_ID.
    pub fn next_reauth_id(mut self, identity: &str) -> Self {
        push_counted(&mut self.text, number::NEXT_REAUTH_ID, identity.as_bytes());
        self
    }
}

fn push_counted(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let value = &value[..value.len().min(VALUE_LEN_MAX)];
    push(out, kind, value.len() as u16, value);
}

/// Type, length in words, two octets, the value, zeros up to whole words.
///
/// # Panics
/// If the value outgrows an attribute: all but the counted ones, which are cut, have fixed lengths.
fn push(out: &mut Vec<u8>, kind: u8, head: u16, value: &[u8]) {
    assert!(value.len() <= VALUE_LEN_MAX, "an attribute of our own outgrew its length");
    let words = 1 + value.len().div_ceil(4);
    out.extend([kind, words as u8]);
    out.extend(head.to_be_bytes());
    out.extend_from_slice(value);
    let fill = value.len().next_multiple_of(4) - value.len();
    out.resize(out.len() + fill, 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SeededRandom;
    use crate::eap::aka::{AkaError, AkaMessage, Attributes};
    use proptest::prelude::*;

    fn decoded(octets: &[u8]) -> AkaMessage<'_> {
        AkaMessage::decode(EapPacket::decode(octets).expect("a packet")).expect("a message")
    }

    #[test]
    fn r4187_10_12_and_10_15_what_is_sealed_opens_and_nothing_else() {
        for (variant, k_aut) in [(Variant::Aka, &[3; 16][..]), (Variant::AkaPrime, &[3; 32])] {
            let inner = Encrypted::default().counter(7).nonce_s(&[9; 16]).next_pseudonym("2abc");
            let mut octets = AkaBuilder::new(variant, Code::Request, 5, Subtype::Reauthentication)
                .encrypted(inner, &[4; 16], &mut SeededRandom::new(1))
                .result_ind()
                .finish_with_mac(k_aut, b"");
            let message = decoded(&octets);
            assert_eq!((message.variant, message.subtype), (variant, Subtype::Reauthentication));
            assert_eq!(message.verify_mac(k_aut, b""), Ok(()));
            assert_eq!(message.verify_mac(k_aut, &[9; 16]), Err(AkaError::WrongMac));
            let text = message.decrypt(&[4; 16]).expect("whole blocks").expect("there is one");
            let inner = Attributes::decode(&text).expect("padding is an attribute");
            assert_eq!((inner.counter, inner.nonce_s), (Some(7), Some(&[9; 16])));
            assert_eq!(inner.next_pseudonym, Some(&b"2abc"[..]));
            let last = octets.len() - 1;
            octets[last] ^= 1;
            assert_eq!(decoded(&octets).verify_mac(k_aut, b""), Err(AkaError::WrongMac));
        }
    }

    proptest! {
        #[test]
        fn whatever_is_built_is_read(identity in proptest::collection::vec(any::<u8>(), 0..300),
                                     res in proptest::collection::vec(any::<u8>(), 4..=16),
                                     kdfs in proptest::collection::vec(any::<u16>(), 0..8)) {
            let mut builder = AkaBuilder::new(Variant::AkaPrime, Code::Response, 1, Subtype::Challenge)
                .identity(&identity)
                .res(&res)
                .kdf_input(&identity)
                .checkcode(Checkcode::Hash(&[1; 32]));
            for kdf in &kdfs {
                builder = builder.kdf(*kdf);
            }
            let octets = builder.finish_with_mac(&[1; 32], b"");
            let message = decoded(&octets);
            prop_assert_eq!(message.attributes.identity, Some(&identity[..]));
            prop_assert_eq!(message.attributes.kdf_input, Some(&identity[..]));
            prop_assert_eq!(message.attributes.res, Some(&res[..]));
            prop_assert_eq!(&message.attributes.kdfs, &kdfs);
            prop_assert_eq!(message.verify_mac(&[1; 32], b""), Ok(()));
        }

        #[test]
        fn no_octets_reach_a_panic(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            crate::fuzzing::eap_packet(&data);
        }
    }
}
