//! What the fuzz targets run, one function per decoder.
//!
//! `codec/fuzz` calls these with generated octets, and `tests/corpus.rs` with the committed ones on the stable
//! toolchain. Each panics when a property of its decoder does not hold; nothing else calls them.

use crate::esp::{self, EspCipher, EspInteg, EspKeys, EspSpi, EspSuite, InboundSa, OpenedKind};
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
    let mut clamped = packet.to_vec();
    let changed = clamp_mss(&mut clamped, mtu);
    let Ok(header) = InnerHeader::parse(packet) else {
        assert!(!changed && clamped == packet);
        return;
    };
    assert!(header.transport_at <= header.total_len && header.total_len <= packet.len());
    if changed {
        // The checksum absorbs the change, so the sum over all octets stays (0xffff and 0 are one value).
        let sum = |octets: &[u8]| {
            let transport = &octets[header.transport_at..header.total_len];
            Checksum::new().with(transport).partial() % 0xffff
        };
        assert_eq!(sum(&clamped), sum(packet), "checksum broken");
        assert!(!clamp_mss(&mut clamped, mtu), "clamped twice");
    }
    let mut answer = [0; PACKET_TOO_BIG_LEN_MAX];
    if let Some(len) = packet_too_big(packet, mtu, header.dst, &mut answer) {
        let answer = InnerHeader::parse(&answer[..len]).expect("an answer is a sound packet");
        assert_eq!((answer.src, answer.dst, answer.total_len), (header.dst, header.src, len));
    }
}
