//! What AUTH payloads prove (RFC 7296 §2.15): the octets to sign, and the MAC of a shared secret.

use super::algorithm::Prf;
use super::secret::Secret;
use crate::ike::payload::GENERIC_HEADER_LEN;
use crate::ike::{HEADER_LEN, IkeHeader, PayloadType};

/// The pad that keeps AUTH keys apart from other uses of the same secret.
const KEY_PAD: &[u8] = b"Key Pad for IKEv2";

/// Octets that one end's AUTH covers: its first message as sent, the other end's nonce, and
/// prf(SK_p, body of its ID payload), where SK_p is SK_pi for the initiator and SK_pr for the responder.
///
/// `id_body` is the ID payload's body as sent, reserved octets included.
pub fn signed_octets(prf: Prf, first_message: &[u8], nonce: &[u8], sk_p: &Secret, id_body: &[u8]) -> Vec<u8> {
    let maced_id = prf.compute(sk_p.as_bytes(), &[id_body]);
    [first_message, nonce, maced_id.as_bytes()].concat()
}

/// One end's share of IntAuth after an IKE_INTERMEDIATE message of that end: prf(SK_p, share so far | A | P), where
/// SK_p belongs to the keys that protected the message. A is the IKE header and the Encrypted payload's generic
/// header with the lengths of a message that has neither IV nor padding nor ICV, P the inner payloads; fragments
/// count as the message they are of.
///
/// Source: RFC 9242 §3.3.2.
pub fn int_auth(
    prf: Prf,
    sk_p: &Secret,
    before: Option<&Secret>,
    header: &IkeHeader,
    first: PayloadType,
    inner: &[u8],
) -> Secret {
    let payload_len = GENERIC_HEADER_LEN + inner.len();
    let length = u32::try_from(HEADER_LEN + payload_len).unwrap_or(u32::MAX);
    let mut head = Vec::with_capacity(HEADER_LEN + GENERIC_HEADER_LEN);
    IkeHeader { next_payload: PayloadType::ENCRYPTED, length, ..*header }.encode(&mut head);
    head.extend_from_slice(&[first.0, 0]);
    head.extend_from_slice(&u16::try_from(payload_len).unwrap_or(u16::MAX).to_be_bytes());
    prf.compute(sk_p.as_bytes(), &[before.map_or(&[], Secret::as_bytes), &head, inner])
}

/// AUTH of a shared secret (or of an EAP method's MSK): prf(prf(secret, pad), octets).
///
/// The secret is taken as it is: no terminator, no padding (RFC 7296 §2.15).
pub fn psk_auth(prf: Prf, secret: &[u8], octets: &[u8]) -> Secret {
    let key = prf.compute(secret, &[KEY_PAD]);
    prf.compute(key.as_bytes(), &[octets])
}

/// Whether `auth` is the AUTH of a shared secret over `octets`; in constant time.
pub fn verify_psk_auth(prf: Prf, secret: &[u8], octets: &[u8], auth: &[u8]) -> bool {
    codec_native::constant_time_eq(psk_auth(prf, secret, octets).as_bytes(), auth)
}
