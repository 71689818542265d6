//! ESP through its public interface: round trips, vectors of the RFCs, crafted packets.

use aws_lc_rs::hmac;
use codec::SeededRandom;
use codec::esp::{
    EspCipher, EspError, EspInteg, EspKeys, EspSpi, EspSuite, InboundSa, Opened, OpenedKind, OutboundSa,
};
use codec_native::aead::{AeadAlgorithm, AeadKey};
use proptest::prelude::*;

mod common;
use common::hex;

const SPI: EspSpi = EspSpi(0x0102_0304);
const GCM: EspSuite = EspSuite { cipher: EspCipher::Aes128Gcm16, integ: None, esn: false };

fn suites() -> Vec<EspSuite> {
    use EspCipher::*;
    use EspInteg::*;
    let aead = [Aes128Gcm16, Aes256Gcm16, ChaCha20Poly1305].map(|cipher| (cipher, None)).into_iter();
    let cbc = [Aes128Cbc, Aes192Cbc, Aes256Cbc, TripleDesCbc].into_iter().flat_map(|cipher| {
        [HmacSha1_96, HmacSha2_256_128, HmacSha2_384_192, HmacSha2_512_256].map(|integ| (cipher, Some(integ)))
    });
    aead.chain(cbc)
        .flat_map(|(cipher, integ)| [false, true].map(|esn| EspSuite { cipher, integ, esn }))
        .collect()
}

fn keys(suite: &EspSuite) -> EspKeys {
    let keymat: Vec<u8> = (0..suite.keymat_len() as u8).map(|octet| octet ^ 0x5c).collect();
    EspKeys::new(suite, &keymat).unwrap()
}

fn inbound(suite: EspSuite) -> InboundSa {
    InboundSa::new(SPI, suite, keys(&suite), 128)
}

fn outbound(suite: EspSuite) -> OutboundSa {
    OutboundSa::new(SPI, suite, keys(&suite), &mut SeededRandom::new(3))
}

/// The ESP packet without its Length.
fn seal(sa: &mut OutboundSa, inner: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; sa.frame_len(inner.len())];
    sa.seal_frame(inner, &mut frame).unwrap();
    assert_eq!(usize::from(u16::from_be_bytes([frame[0], frame[1]])), frame.len());
    frame.split_off(2)
}

/// An IP packet of `len` octets, or of the smallest possible length.
fn inner(version: u8, len: usize) -> Vec<u8> {
    let header_len = if version == 4 { 20 } else { 40 };
    let len = len.max(header_len);
    let mut packet: Vec<u8> = (0..len).map(|at| (at * 7) as u8).collect();
    if version == 4 {
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    } else {
        packet[0] = 0x60;
        packet[4..6].copy_from_slice(&(len as u16 - 40).to_be_bytes());
    }
    packet
}

/// Makes an authentic AES-128-GCM packet around any decrypted text, which no honest sender would make.
fn craft(sequence: u32, text: &[u8]) -> Vec<u8> {
    let keys = keys(&GCM);
    let (key, salt) = keys.encr().split_at(16);
    let mut packet = [SPI.0.to_be_bytes(), sequence.to_be_bytes()].concat();
    packet.extend_from_slice(&u64::from(sequence).to_be_bytes());
    let nonce = [salt, &packet[8..16]].concat().try_into().unwrap();
    let mut sealed = vec![0; text.len() + 16];
    AeadKey::new(AeadAlgorithm::Aes128Gcm, key).unwrap().seal_scatter(
        &nonce,
        &packet[..8],
        text,
        &[],
        &mut sealed,
    );
    packet.extend_from_slice(&sealed);
    packet
}

fn open_crafted(text: &[u8]) -> Result<Opened, EspError> {
    inbound(GCM).open(&mut craft(1, text))
}

/// Inner packet, `pad_len` octets of correct padding, trailer.
fn text(payload: &[u8], pad_len: u8, next_header: u8) -> Vec<u8> {
    let mut text = payload.to_vec();
    text.extend(1..=pad_len);
    text.extend([pad_len, next_header]);
    text
}

#[test]
fn r7634_appendix_a_example_packet() {
    let suite = EspSuite { cipher: EspCipher::ChaCha20Poly1305, integ: None, esn: false };
    let keymat = hex(concat!("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f", "a0a1a2a3"));
    let mut packet = hex(concat!(
        "01020304000000051011121314151617",
        "24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c6",
        "14ee8099d52844eb61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3",
        "cbec163fac469b502773f6fb94e664da9165b82829f641e0",
        "76aaa8266b7fb0f7b11b369907e1ad43"
    ));
    let want = hex(concat!(
        "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec10",
        "0007362708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223",
        "2425262728292a2b2c2d2e2f3031323334353637"
    ));
    let keys = EspKeys::new(&suite, &keymat).unwrap();
    let opened = InboundSa::new(SPI, suite, keys, 32).open(&mut packet).unwrap();
    assert_eq!((opened.kind, opened.next_header), (OpenedKind::Inner4, 4));
    assert_eq!(packet[opened.payload], want);
}

#[test]
fn r4303_3_4_4_every_flipped_bit_is_a_bad_icv_and_moves_nothing() {
    for suite in suites() {
        let (mut sender, mut receiver) = (outbound(suite), inbound(suite));
        let packet = seal(&mut sender, &inner(4, 40));
        for bit in 0..packet.len() * 8 {
            let mut bad = packet.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let error = receiver.open(&mut bad).unwrap_err();
            // The sequence number is looked at first: some flips put it left of the window.
            let sequence = (32..64).contains(&bit);
            assert!(
                error == EspError::BadIcv || sequence && error == EspError::LeftOfWindow,
                "{suite}: bit {bit}: {error}"
            );
        }
        assert!(receiver.open(&mut packet.clone()).is_ok(), "{suite}: the window did not move");
        assert_eq!(receiver.packets(), 1);
    }
}

#[test]
fn r4303_3_4_3_a_replay_is_dropped_before_the_icv() {
    for suite in suites() {
        let (mut sender, mut receiver) = (outbound(suite), inbound(suite));
        let packet = seal(&mut sender, &inner(4, 60));
        receiver.open(&mut packet.clone()).unwrap();
        let mut forged = packet.clone();
        *forged.last_mut().unwrap() ^= 1;
        assert_eq!(receiver.open(&mut forged), Err(EspError::Replayed), "{suite}");
        assert_eq!(receiver.replay_drops(), 1);
    }
}

#[test]
fn r4303_3_4_3_a_window_of_packets_may_arrive_in_any_order() {
    for suite in suites() {
        let (mut sender, mut receiver) = (outbound(suite), inbound(suite));
        let packets: Vec<_> = (0..129).map(|_| seal(&mut sender, &inner(4, 40))).collect();
        for packet in packets[1..].iter().rev() {
            assert!(receiver.open(&mut packet.clone()).is_ok(), "{suite}");
        }
        assert_eq!(receiver.open(&mut packets[0].clone()), Err(EspError::LeftOfWindow), "{suite}");
    }
}

#[test]
fn r4303_2_2_1_the_high_half_is_under_the_icv() {
    for suite in suites() {
        let other = EspSuite { esn: !suite.esn, ..suite };
        let packet = seal(&mut outbound(suite), &inner(4, 40));
        assert_eq!(inbound(other).open(&mut packet.clone()), Err(EspError::BadIcv), "{suite}");
    }
}

#[test]
fn packets_too_short_for_their_suite_are_refused_at_every_length() {
    for suite in suites() {
        let block = if suite.cipher == EspCipher::TripleDesCbc { 8 } else { 16 };
        let smallest =
            8 + if suite.cipher.is_aead() { 8 + 4 + 16 } else { 2 * block + suite.integ.unwrap().icv_len() };
        let mut receiver = inbound(suite);
        for len in 0..smallest {
            assert_eq!(receiver.open(&mut vec![1; len]), Err(EspError::TooShort), "{suite}: {len}");
        }
        assert_ne!(receiver.open(&mut vec![1; smallest]), Err(EspError::TooShort), "{suite}");
        if !suite.cipher.is_aead() {
            for len in smallest + 1..smallest + block {
                assert_eq!(receiver.open(&mut vec![1; len]), Err(EspError::TooShort), "{suite}: {len}");
            }
        }
    }
}

#[test]
fn r4303_2_4_padding_up_to_255_is_accepted_and_checked() {
    let payload = inner(4, 20);
    for pad_len in 0..=255 {
        let opened = open_crafted(&text(&payload, pad_len, 4)).unwrap();
        assert_eq!(opened.payload, 16..36, "{pad_len} octets");
        for at in [0, usize::from(pad_len) / 2, usize::from(pad_len).saturating_sub(1)] {
            let mut bad = text(&payload, pad_len, 4);
            if pad_len > 0 {
                bad[20 + at] ^= 0x80;
                assert_eq!(open_crafted(&bad), Err(EspError::BadPadding), "octet {at} of {pad_len}");
            }
        }
    }
}

#[test]
fn r4303_2_4_padding_longer_than_the_packet_is_refused() {
    assert_eq!(open_crafted(&[9, 9, 3, 4]), Err(EspError::BadPadding));
    assert_eq!(open_crafted(&[1, 2, 255, 4]), Err(EspError::BadPadding));
}

#[test]
fn r4303_2_6_a_dummy_is_no_packet_and_counts_as_none() {
    let mut receiver = inbound(GCM);
    let opened = receiver.open(&mut craft(1, &text(&[0xab; 30], 2, 59))).unwrap();
    assert_eq!((opened.kind, opened.next_header), (OpenedKind::Dummy, 59));
    assert_eq!((receiver.packets(), receiver.bytes()), (0, 0));
    let opened = receiver.open(&mut craft(2, &text(&[], 2, 59))).unwrap();
    assert_eq!(opened.kind, OpenedKind::Dummy);
    assert_eq!(receiver.open(&mut craft(2, &text(&[], 2, 59))), Err(EspError::Replayed));
}

#[test]
fn r4303_2_6_other_next_headers_are_refused() {
    for next_header in (0..=255).filter(|it| ![4, 41, 59].contains(it)) {
        assert_eq!(open_crafted(&text(&inner(4, 20), 2, next_header)), Err(EspError::BadNextHeader));
    }
}

#[test]
fn r4303_2_7_traffic_flow_padding_is_trimmed_by_the_inner_length() {
    for (version, next_header, len) in [(4, 4, 20), (4, 4, 61), (6, 41, 40), (6, 41, 93)] {
        for padding in [0, 1, 500] {
            let payload = [inner(version, len), vec![0xee; padding]].concat();
            let opened = open_crafted(&text(&payload, 0, next_header)).unwrap();
            assert_eq!(opened.payload, 16..16 + len);
        }
    }
}

#[test]
fn inner_packets_that_lie_about_themselves_are_refused() {
    let mut short = inner(4, 40);
    short[3] = 41;
    let mut tiny = inner(4, 40);
    tiny[3] = 19;
    let mut options = inner(4, 40);
    options[0] = 0x4b;
    let mut long6 = inner(6, 40);
    long6[5] = 1;
    for (payload, next_header) in [
        (short, 4),
        (tiny, 4),
        (options, 4),
        (long6, 41),
        (inner(6, 40), 4),
        (inner(4, 40), 41),
        (inner(4, 20)[..19].to_vec(), 4),
        (inner(6, 40)[..39].to_vec(), 41),
        (vec![], 4),
    ] {
        assert_eq!(open_crafted(&text(&payload, 2, next_header)), Err(EspError::BadInnerLength));
    }
}

#[test]
fn an_authentic_but_useless_packet_still_moves_the_window() {
    let mut receiver = inbound(GCM);
    let packet = craft(7, &text(&inner(4, 20), 2, 99));
    assert_eq!(receiver.open(&mut packet.clone()), Err(EspError::BadNextHeader));
    assert_eq!(receiver.open(&mut packet.clone()), Err(EspError::Replayed));
}

proptest! {
    #[test]
    fn what_is_sealed_opens_to_the_same_packet(
        suite in prop::sample::select(suites()),
        six: bool,
        len in prop_oneof![20usize..200, 1200usize..1600, 60_000usize..65_000],
        tfc in 0usize..40,
    ) {
        let payload = inner(if six { 6 } else { 4 }, len);
        let packet = seal(&mut outbound(suite), &[payload.clone(), vec![0; tfc]].concat());
        prop_assert_eq!(packet.len() % 4, 0);
        let mut opened_packet = packet.clone();
        let opened = inbound(suite).open(&mut opened_packet).unwrap();
        prop_assert_eq!(opened.kind, if six { OpenedKind::Inner6 } else { OpenedKind::Inner4 });
        prop_assert!(packet.len() <= payload.len() + tfc + suite.overhead_max());
        prop_assert_eq!(&opened_packet[opened.payload], &payload[..]);
    }

    #[test]
    fn arbitrary_octets_never_panic_and_never_open(
        suite in prop::sample::select(suites()),
        mut packet in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        prop_assert!(inbound(suite).open(&mut packet).is_err());
    }

    #[test]
    fn any_authentic_text_never_panics(text in prop::collection::vec(any::<u8>(), 4..100), next in 0u8..64) {
        let mut text = text;
        *text.last_mut().unwrap() = next;
        if let Ok(opened) = open_crafted(&text) {
            prop_assert!(opened.payload.start == 16 && opened.payload.end <= 16 + text.len());
        }
    }
}

#[test]
fn r4868_2_3_the_icv_is_the_first_half_of_the_hmac_with_a_key_of_full_length() {
    use EspInteg::*;
    // RFC 4868 §2.7.2, the first case of each algorithm: octets of the key, and the truncated HMAC of "Hi There".
    let cases = [
        (HmacSha2_256_128, hmac::HMAC_SHA256, 32, "198a607eb44bfbc69903a0f1cf2bbdc5"),
        (HmacSha2_384_192, hmac::HMAC_SHA384, 48, "b6a8d5636f5c6a7224f9977dcf7ee6c7fb6d0c48cbdee973"),
        (
            HmacSha2_512_256,
            hmac::HMAC_SHA512,
            64,
            "637edc6e01dce7e6742a99451aae82df23da3e92439e590e43e761b33e910fb8",
        ),
    ];
    for (integ, algorithm, key_len, truncated) in cases {
        let key = hmac::Key::new(algorithm, &vec![0x0b; key_len]);
        let half = hex(truncated);
        assert_eq!(half.len(), key_len / 2);
        assert_eq!(hmac::sign(&key, b"Hi There").as_ref()[..key_len / 2], half);
        let suite = EspSuite { cipher: EspCipher::Aes128Cbc, integ: Some(integ), esn: false };
        assert_eq!(suite.keymat_len(), 16 + key_len, "encryption before integrity");
        let keymat = [vec![0x42; 16], vec![0x0b; key_len]].concat();
        let keys = EspKeys::new(&suite, &keymat).unwrap();
        let packet = seal(&mut OutboundSa::new(SPI, suite, keys, &mut SeededRandom::new(3)), &inner(4, 60));
        let (covered, icv) = packet.split_at(packet.len() - key_len / 2);
        assert_eq!(icv, &hmac::sign(&key, covered).as_ref()[..key_len / 2], "{suite}");
    }
}
