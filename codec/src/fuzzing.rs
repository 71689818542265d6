//! What the fuzz targets run, one function per decoder.
//!
//! `codec/fuzz` calls these with generated octets, and `tests/corpus.rs` with the committed ones on the stable
//! toolchain. Each panics when a property of its decoder does not hold; nothing else calls them.

mod eap;
mod ike;

pub use eap::{EAP_K_AUT, EAP_K_ENCR, eap_packet};

use crate::crypto::{IkeSuite, Prf, Secret, SkKey, open_sk, open_skf};
use crate::esp::{self, EspCipher, EspInteg, EspKeys, EspSpi, EspSuite, InboundSa, OpenedKind};
use crate::ike::payload::{GENERIC_HEADER_LEN, PayloadIter};
use crate::ike::{HEADER_LEN, KeGroup, Message, PayloadType};
use crate::ip::{Checksum, InnerHeader, PACKET_TOO_BIG_LEN_MAX, clamp_mss, packet_too_big};
use crate::stream::{BODY_LEN_MAX, Deframer, FrameError, Next, classify};

/// Cuts a stream into the frames of a connection, at once and in pieces, and expects the same of both.
///
/// First octet: the role in its highest bit, the size of the pieces in the others. The rest: the stream.
pub fn deframer(data: &[u8]) {
    let Some((&control, stream)) = data.split_first() else {
        return;
    };
    let deframer = if control & 0x80 == 0 { Deframer::responder() } else { Deframer::originator() };
    let piece_len = usize::from(control & 0x7f) + 1;
    let whole = bodies(deframer.clone(), stream, stream.len().max(1));
    let pieces = bodies(deframer, stream, piece_len);
    assert_eq!(whole, pieces, "frames depend on the cuts");
}

/// The bodies found in `stream`, arriving in pieces of `piece_len` octets, and how it ended.
fn bodies(mut deframer: Deframer, stream: &[u8], piece_len: usize) -> (Vec<Vec<u8>>, Result<(), FrameError>) {
    let (mut bodies, mut carry) = (Vec::new(), Vec::new());
    for piece in stream.chunks(piece_len) {
        let mut at = 0;
        loop {
            let before = at;
            match deframer.next(piece, &mut at, &mut carry) {
                Ok(Next::Pending) => break assert_eq!(at, piece.len(), "input left over"),
                Ok(Next::InPlace(range)) => bodies.push(piece[range].to_vec()),
                Ok(Next::Carried) => bodies.push(carry.clone()),
                Err(error) => return (bodies, Err(error)),
            }
            assert!(at > before, "a frame consumes input");
            assert!(carry.capacity() <= BODY_LEN_MAX, "the buffer exceeds a frame");
        }
    }
    for body in &bodies {
        classify(body);
    }
    (bodies, Ok(()))
}

/// Opens octets as an ESP packet, and looks at them as the decrypted text of an authentic one.
///
/// First octet: the suite. The rest: the packet under the keys of [`esp_keys`], or the text.
pub fn esp_open(data: &[u8]) {
    let Some((&control, packet)) = data.split_first() else {
        return;
    };
    let suite = esp_suite(control);
    let mut sa = InboundSa::new(ESP_SPI, suite, esp_keys(&suite), 64);
    let mut opened = packet.to_vec();
    if let Ok(inner) = sa.open(&mut opened) {
        assert!(inner.payload.start >= esp::HEADER_LEN && inner.payload.end <= packet.len());
        let again = sa.open(&mut packet.to_vec());
        assert_eq!(again, Err(esp::EspError::Replayed), "accepted twice");
    }
    if let Ok(inner) = esp::strip(packet, 0..packet.len()) {
        assert!(inner.payload.end + 2 <= packet.len(), "the trailer is no payload");
        let parsed = InnerHeader::parse(&packet[inner.payload.clone()]);
        if let (Ok(header), true) = (parsed, inner.kind != OpenedKind::Dummy) {
            assert_eq!(header.total_len, inner.payload.len(), "padding left on");
        }
    }
}

/// The SPI of the packets in the corpus.
pub const ESP_SPI: EspSpi = EspSpi(0x0102_0304);

/// The suite that a control octet names.
pub fn esp_suite(control: u8) -> EspSuite {
    use EspCipher::*;
    use EspInteg::*;
    let (cipher, integ) = match control & 7 {
        0 => (Aes128Gcm16, None),
        1 => (Aes256Gcm16, None),
        2 => (ChaCha20Poly1305, None),
        3 => (Aes128Cbc, Some(HmacSha1_96)),
        4 => (Aes192Cbc, Some(HmacSha2_384_192)),
        5 => (Aes256Cbc, Some(HmacSha2_512_256)),
        6 => (Aes256Cbc, Some(HmacSha2_256_128)),
        _ => (Aes128Cbc, Some(HmacSha2_256_128)),
    };
    EspSuite { cipher, integ, esn: control & 8 != 0 }
}

/// The keys of the packets in the corpus.
pub fn esp_keys(suite: &EspSuite) -> EspKeys {
    EspKeys::new(suite, &vec![0x42; suite.keymat_len()]).expect("keys of the suite's length")
}

/// Parses octets as an inner packet, clamps its MSS and answers it with Packet Too Big.
///
/// First two octets: the MTU, big-endian. The rest: the packet.
pub fn inner_header(data: &[u8]) {
    let Some((mtu, packet)) = data.split_first_chunk() else {
        return;
    };
    let mtu = u16::from_be_bytes(*mtu);
    let Ok(header) = InnerHeader::parse(packet) else {
        return;
    };
    let mut clamped = packet.to_vec();
    let changed = clamp_mss(&mut clamped, &header, mtu);
    assert!(header.transport_at <= header.total_len && header.total_len <= packet.len());
    if changed {
        // The checksum absorbs the change, so the sum over all octets stays (0xffff and 0 are one value).
        let sum = |octets: &[u8]| {
            let transport = &octets[header.transport_at..header.total_len];
            Checksum::new().with(transport).partial() % 0xffff
        };
        assert_eq!(sum(&clamped), sum(packet), "checksum broken");
        assert!(!clamp_mss(&mut clamped, &header, mtu), "clamped twice");
    }
    let mut answer = [0; PACKET_TOO_BIG_LEN_MAX];
    if let Some(len) = packet_too_big(packet, mtu, header.dst, &mut answer) {
        let answer = InnerHeader::parse(&answer[..len]).expect("an answer is a sound packet");
        assert_eq!((answer.src, answer.dst, answer.total_len), (header.dst, header.src, len));
    }
}

/// Decodes octets as an IKE message, with the Length it says and with the right one, opens it with an AEAD and
/// with a CBC suite, and walks it as the inner chain of an opened message.
pub fn ike_message(data: &[u8]) {
    walk_message(data);
    let mut sized = data.to_vec();
    if let Some(length) = sized.get_mut(HEADER_LEN - 4..HEADER_LEN) {
        length.copy_from_slice(&(data.len() as u32).to_be_bytes());
        walk_message(&sized);
    }
    for control in 0..2 {
        let key = sk_key(control);
        let mut message = sized.clone();
        if let Ok(opened) = open_sk(&mut message, &key) {
            assert!(opened.inner.start > HEADER_LEN && opened.inner.end < message.len());
            walk_payloads(opened.payloads(&message), message.len());
        }
        let mut message = sized.clone();
        if let Ok(fragment) = open_skf(&mut message, &key) {
            assert!(fragment.number > 0 && fragment.number <= fragment.total);
            assert!(fragment.inner.start > HEADER_LEN && fragment.inner.end < message.len());
        }
    }
    if let Some((first, chain)) = data.split_first() {
        walk_payloads(PayloadIter::new(PayloadType(*first), chain), chain.len());
    }
}

/// The key of the sealed messages in the corpus: AES-GCM for 0, AES-CBC with HMAC otherwise.
pub fn sk_key(control: u8) -> SkKey {
    let (cipher, integ) = match control {
        0 => (EspCipher::Aes128Gcm16, None),
        _ => (EspCipher::Aes256Cbc, Some(EspInteg::HmacSha2_256_128)),
    };
    let suite = IkeSuite { cipher, integ, prf: Prf::HmacSha2_256, group: KeGroup::CURVE25519 };
    let lens = EspSuite { cipher, integ, esn: false };
    let secret = |len| Secret::new(vec![0x42; len]);
    SkKey::new(&suite, &secret(lens.encr_key_len()), &secret(lens.integ_key_len()))
}

fn walk_message(octets: &[u8]) {
    let Ok(message) = Message::decode(octets) else {
        return;
    };
    let mut header = Vec::new();
    message.header.encode(&mut header);
    assert_eq!(header, octets[..HEADER_LEN], "the header does not encode to what it was decoded from");
    walk_payloads(message.payloads(), octets.len() - HEADER_LEN);
}

/// Decodes every payload and everything inside, down to the last attribute.
fn walk_payloads(payloads: PayloadIter<'_>, chain_len: usize) {
    let mut walked_len = 0;
    for raw in payloads {
        let Ok(raw) = raw else {
            break;
        };
        walked_len += GENERIC_HEADER_LEN + raw.body.len();
        assert!(walked_len <= chain_len, "payloads overlap");
        if let Ok(payload) = raw.decode() {
            ike::look_at(&raw, &payload);
        }
    }
}
