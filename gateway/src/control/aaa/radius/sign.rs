//! What makes RADIUS packets authentic: authenticators (RFC 2865 §3, RFC 2866 §3, RFC 5176 §2.3), the
//! Message-Authenticator (RFC 3579 §3.2), and keys hidden by the same secret (RFC 2548 §2.4.2).
//!
//! Everything rests on MD5, as the protocol has it. An answer to an Access-Request is taken with a
//! Message-Authenticator only, and one is always sent, as the first attribute: without it, a chosen prefix collision
//! turns a rejection into an acceptance (CVE-2024-3596).

use aws_lc_rs::constant_time::verify_slices_are_equal;
use hmac::{Hmac, Mac};
use md5::{Digest, Md5};
use zeroize::{Zeroize, Zeroizing};

use super::packet::{AUTHENTICATOR, Attributes, HEADER_LEN, Packet, VENDOR_MICROSOFT, kind};

/// Octets of an authenticator, of either kind.
pub const AUTHENTICATOR_LEN: usize = 16;

/// Microsoft's type of the key for what the NAS sends.
const MS_MPPE_SEND_KEY: u8 = 16;

/// Microsoft's type of the key for what the NAS receives.
const MS_MPPE_RECV_KEY: u8 = 17;

/// A shared secret. Neither shown nor compared.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// A secret of these octets.
    pub fn new(octets: &[u8]) -> Self {
        Self(Zeroizing::new(octets.to_vec()))
    }

    /// A digest of it and of `more`, by which a change of either shows.
    pub fn digest(&self, more: &[u8]) -> [u8; 32] {
        let mut out = [0; 32];
        let mac =
            aws_lc_rs::hmac::sign(&aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &self.0), more);
        out.copy_from_slice(mac.as_ref());
        out
    }

    /// The one that all of RadSec uses: TLS protects there (RFC 6614 §2.3).
    pub fn radsec() -> Self {
        Self::new(b"radsec")
    }
}

/// Why a packet is not taken as authentic.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SignError {
    /// Its authenticator is wrong.
    #[error("authenticator")]
    Authenticator,
    /// Its Message-Authenticator is wrong, or there is none or more than one.
    #[error("Message-Authenticator")]
    MessageAuthenticator,
}

/// An Access-Request or a Status-Server with the random `authenticator`, its Message-Authenticator first.
pub fn request(
    code: u8,
    id: u8,
    authenticator: &[u8; AUTHENTICATOR_LEN],
    attributes: &Attributes,
    secret: &Secret,
) -> Vec<u8> {
    let mut octets = frame(code, id, authenticator, attributes, true);
    let mac = mac(secret, &[&octets]);
    octets[MAC_FIRST].copy_from_slice(&mac);
    octets
}

/// A packet whose authenticator covers it all: Accounting-Request (RFC 2866 §3) and, in tests, those of RFC 5176.
/// Also returns the authenticator, by which the answer is known.
pub fn signed_request(
    code: u8,
    id: u8,
    attributes: &Attributes,
    secret: &Secret,
) -> (Vec<u8>, [u8; AUTHENTICATOR_LEN]) {
    let mut octets = frame(code, id, &[0; AUTHENTICATOR_LEN], attributes, false);
    let authenticator = md5(&[&octets, &secret.0]);
    octets[AUTHENTICATOR].copy_from_slice(&authenticator);
    (octets, authenticator)
}

/// An answer to the request that had `id` and `authenticator`, with a Message-Authenticator.
pub fn answer(
    code: u8,
    id: u8,
    authenticator: &[u8; AUTHENTICATOR_LEN],
    attributes: &Attributes,
    secret: &Secret,
) -> Vec<u8> {
    let mut octets = request(code, id, authenticator, attributes, secret);
    let response = md5(&[&octets, &secret.0]);
    octets[AUTHENTICATOR].copy_from_slice(&response);
    octets
}

/// Whether `packet` is an answer to the request that had `authenticator`. A Message-Authenticator must be right where
/// there is one, and be there when `needs_mac`: in every answer to EAP.
///
/// # Errors
/// When it is not, and by what that shows.
pub fn verify_answer(
    packet: Packet<'_>,
    authenticator: &[u8; AUTHENTICATOR_LEN],
    needs_mac: bool,
    secret: &Secret,
) -> Result<(), SignError> {
    let octets = packet.octets();
    let expected = md5(&[&octets[..AUTHENTICATOR.start], authenticator, &octets[HEADER_LEN..], &secret.0]);
    verify_slices_are_equal(&expected, &octets[AUTHENTICATOR]).map_err(|_| SignError::Authenticator)?;
    verify_mac(packet, authenticator, needs_mac, secret)
}

/// Whether `packet` is a request of RFC 5176 by somebody who knows the secret. A Message-Authenticator need not be
/// there, since the authenticator covers the packet (§2.3), but must be right (§3.4).
///
/// # Errors
/// When it is not, and by what that shows.
pub fn verify_signed_request(packet: Packet<'_>, secret: &Secret) -> Result<(), SignError> {
    let octets = packet.octets();
    let none = [0; AUTHENTICATOR_LEN];
    let expected = md5(&[&octets[..AUTHENTICATOR.start], &none, &octets[HEADER_LEN..], &secret.0]);
    verify_slices_are_equal(&expected, &octets[AUTHENTICATOR]).map_err(|_| SignError::Authenticator)?;
    verify_mac(packet, &none, false, secret)
}

fn verify_mac(
    packet: Packet<'_>,
    authenticator: &[u8; AUTHENTICATOR_LEN],
    required: bool,
    secret: &Secret,
) -> Result<(), SignError> {
    let wrong = SignError::MessageAuthenticator;
    let mut found = packet.attributes().filter(|attribute| attribute.kind == kind::MESSAGE_AUTHENTICATOR);
    let Some(given) = found.next() else {
        return if required { Err(wrong) } else { Ok(()) };
    };
    if found.next().is_some() || given.value.len() != AUTHENTICATOR_LEN {
        return Err(wrong);
    }
    let octets = packet.octets();
    let (before, after) = (&octets[HEADER_LEN..given.at], &octets[given.at + AUTHENTICATOR_LEN..]);
    let zeros = [0; AUTHENTICATOR_LEN];
    let expected = mac(secret, &[&octets[..AUTHENTICATOR.start], authenticator, before, &zeros, after]);
    verify_slices_are_equal(&expected, given.value).map_err(|_| wrong)
}

/// The Master Session Key that an Access-Accept brings in two halves: receive key, then send key (RFC 2548 §2.4.2
/// and §2.4.3; RFC 3748 §7.10 for what each is). `None` unless both are there, once each and readable.
pub fn msk(
    packet: Packet<'_>,
    authenticator: &[u8; AUTHENTICATOR_LEN],
    secret: &Secret,
) -> Option<Zeroizing<Vec<u8>>> {
    let mut msk = Zeroizing::new(Vec::with_capacity(64));
    for kind in [MS_MPPE_RECV_KEY, MS_MPPE_SEND_KEY] {
        let mut values = packet.vendor_values(VENDOR_MICROSOFT, kind);
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        msk.extend_from_slice(&unhide(value, authenticator, secret)?);
    }
    Some(msk)
}

/// Undoes RFC 2548 §2.4.2: a salt of two octets, then blocks of which each is hidden behind the digest of the secret
/// and the hidden block before it. The plain text is a length, that many octets of key, and padding.
fn unhide(
    value: &[u8],
    authenticator: &[u8; AUTHENTICATOR_LEN],
    secret: &Secret,
) -> Option<Zeroizing<Vec<u8>>> {
    let (salt, hidden) = value.split_first_chunk::<2>()?;
    // The leftmost bit tells the salt from the first version of the attribute.
    if salt[0] & 0x80 == 0 || hidden.is_empty() || hidden.len() % AUTHENTICATOR_LEN != 0 {
        return None;
    }
    let mut plain = Zeroizing::new(Vec::with_capacity(hidden.len()));
    let mut before = [&authenticator[..], salt].concat();
    for block in hidden.chunks(AUTHENTICATOR_LEN) {
        let mut mask = md5(&[&secret.0, &before]);
        plain.extend(block.iter().zip(mask).map(|(octet, mask)| octet ^ mask));
        mask.zeroize();
        before = block.to_vec();
    }
    let (len, key) = plain.split_first()?;
    key.get(..usize::from(*len)).filter(|key| !key.is_empty()).map(|key| Zeroizing::new(key.to_vec()))
}

/// Where the value of a Message-Authenticator is that comes first.
const MAC_FIRST: std::ops::Range<usize> = HEADER_LEN + 2..HEADER_LEN + 2 + AUTHENTICATOR_LEN;

fn frame(
    code: u8,
    id: u8,
    authenticator: &[u8; AUTHENTICATOR_LEN],
    attributes: &Attributes,
    with_mac: bool,
) -> Vec<u8> {
    let mac_len = if with_mac { 2 + AUTHENTICATOR_LEN } else { 0 };
    let len = HEADER_LEN + mac_len + attributes.octets().len();
    let mut octets = Vec::with_capacity(len);
    octets.extend([code, id]);
    octets.extend((len as u16).to_be_bytes());
    octets.extend(authenticator);
    if with_mac {
        octets.extend([kind::MESSAGE_AUTHENTICATOR, mac_len as u8]);
        octets.extend([0; AUTHENTICATOR_LEN]);
    }
    octets.extend(attributes.octets());
    octets
}

fn md5(parts: &[&[u8]]) -> [u8; AUTHENTICATOR_LEN] {
    let mut digest = Md5::new();
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize().into()
}

fn mac(secret: &Secret, parts: &[&[u8]]) -> [u8; AUTHENTICATOR_LEN] {
    // HMAC takes keys of any length: a longer one than a block is hashed first (RFC 2104 §2).
    let Ok(mut mac) = Hmac::<Md5>::new_from_slice(&secret.0) else { return [0; AUTHENTICATOR_LEN] };
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// Hides a key as a server does.
#[cfg(test)]
pub fn hide(key: &[u8], salt: [u8; 2], authenticator: &[u8; AUTHENTICATOR_LEN], secret: &Secret) -> Vec<u8> {
    let mut plain = vec![key.len() as u8];
    plain.extend(key);
    plain.resize(plain.len().next_multiple_of(AUTHENTICATOR_LEN), 0);
    let mut out = salt.to_vec();
    let mut before = [&authenticator[..], &salt].concat();
    for block in plain.chunks(AUTHENTICATOR_LEN) {
        let mask = md5(&[&secret.0, &before]);
        before = block.iter().zip(mask).map(|(octet, mask)| octet ^ mask).collect();
        out.extend(&before);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::packet::code;
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: String = text.split_whitespace().collect();
        (0..digits.len() / 2)
            .map(|n| u8::from_str_radix(&digits[2 * n..2 * n + 2], 16).expect("a digit"))
            .collect()
    }

    /// The examples of RFC 2865 §7.1 have no EAP and no Message-Authenticator: what they prove is the authenticator of
    /// an answer.
    #[test]
    fn r2865_7_1_the_response_authenticator_of_the_example() {
        let request: [u8; 16] =
            hex("0f 40 3f 94 73 97 80 57 bd 83 d5 cb 98 f4 22 7a").try_into().expect("16 octets");
        let accept = hex(
            "02 00 00 26 86 fe 22 0e 76 24 ba 2a 10 05 f6 bf 9b 55 e0 b2 06 06 00 00 00 01 0f 06 00 00 00 00 \
             0e 06 c0 a8 01 03",
        );
        let packet = Packet::parse(&accept).expect("a packet");
        let secret = Secret::new(b"xyzzy5461");
        assert_eq!(verify_answer(packet, &request, false, &secret), Ok(()));
        assert_eq!(verify_answer(packet, &request, true, &secret), Err(SignError::MessageAuthenticator));
        let other = Secret::new(b"xyzzy5462");
        assert_eq!(verify_answer(packet, &request, false, &other), Err(SignError::Authenticator));
    }

    /// The examples of RFC 5997 §6: a Status-Server to either port, and the answer to the first.
    #[test]
    fn r5997_6_the_examples_of_a_status_server() {
        let secret = Secret::new(b"xyzzy5461");
        let examples = [
            (
                0xda,
                "8a 54 f4 68 6f b3 94 c5 28 66 e3 02 18 5d 06 23",
                "5a 66 5e 2e 1e 84 11 f3 e2 43 82 20 97 c8 4f a3",
                "02 da 00 14 ef 0d 55 2a 4b f2 d6 93 ec 2b 6f e8 b5 41 1d 66",
            ),
            (
                0xb3,
                "92 5f 6b 66 dd 5f ed 57 1f cb 1d b7 ad 38 82 60",
                "e8 d6 ea bd a9 10 87 5c d9 1f da de 26 36 78 58",
                "",
            ),
        ];
        for (id, authenticator, mac, response) in examples {
            let asked: [u8; 16] = hex(authenticator).try_into().expect("16 octets");
            let octets = request(code::STATUS_SERVER, id, &asked, &Attributes::new(), &secret);
            assert_eq!(octets[MAC_FIRST], hex(mac)[..]);
            let response = hex(response);
            if let Ok(packet) = Packet::parse(&response) {
                assert_eq!(verify_answer(packet, &asked, false, &secret), Ok(()), "{id}");
            }
        }
    }

    #[test]
    fn r3579_3_2_an_answer_is_taken_with_one_right_message_authenticator_only() {
        let (secret, asked) = (Secret::new(b"testing123"), [7; 16]);
        let mut attributes = Attributes::new();
        attributes.push_eap(&[3, 1, 0, 4]).expect("room");
        let good = answer(code::ACCESS_ACCEPT, 9, &asked, &attributes, &secret);
        let verify =
            |octets: &[u8]| verify_answer(Packet::parse(octets).expect("a packet"), &asked, true, &secret);
        assert_eq!(verify(&good), Ok(()));
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            if let Ok(packet) = Packet::parse(&bad) {
                assert!(verify_answer(packet, &asked, true, &secret).is_err(), "octet {at}");
            }
        }
        // Two of them, or one of another length, do not pass though the authenticator is right.
        for extra in [&[0; 16][..], &[0; 15]] {
            let mut attributes = attributes.clone();
            attributes.push(kind::MESSAGE_AUTHENTICATOR, extra).expect("room");
            let twice = answer(code::ACCESS_ACCEPT, 9, &asked, &attributes, &secret);
            assert_eq!(verify(&twice), Err(SignError::MessageAuthenticator));
        }
    }

    #[test]
    fn r2548_2_4_2_the_session_key_is_unhidden_and_oddities_refused() {
        let (secret, asked) = (Secret::new(b"radsecret"), [0x5a; 16]);
        let halves = [[1; 32], [2; 32]];
        let accept = |recv: &[u8], send: &[u8]| {
            let mut attributes = Attributes::new();
            attributes.push_vendor(VENDOR_MICROSOFT, MS_MPPE_SEND_KEY, send).expect("room");
            attributes.push_vendor(VENDOR_MICROSOFT, MS_MPPE_RECV_KEY, recv).expect("room");
            answer(code::ACCESS_ACCEPT, 1, &asked, &attributes, &secret)
        };
        let hidden = halves.map(|half| hide(&half, [0x80 | half[0], half[0]], &asked, &secret));
        let read = |octets: &[u8]| msk(Packet::parse(octets).expect("a packet"), &asked, &secret);
        let msk = read(&accept(&hidden[0], &hidden[1])).expect("a key");
        assert_eq!((&msk[..32], &msk[32..]), (&halves[0][..], &halves[1][..]));
        // No leftmost bit in the salt, no whole block, a length beyond the text, nothing at all.
        let no_bit = hide(&halves[0], [0x7f, 1], &asked, &secret);
        for bad in [&no_bit[..], &hidden[0][..40], &hidden[0][..2], &hidden[0][..1], &[]] {
            assert!(read(&accept(bad, &hidden[1])).is_none(), "{} octets", bad.len());
        }
        let mut long = hide(&[0; 15], [0x80, 1], &asked, &secret);
        long[2] ^= 15 ^ 16;
        assert!(read(&accept(&long, &hidden[1])).is_none(), "one octet more than there are");
    }
}
