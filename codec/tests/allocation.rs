//! The packet path allocates nothing per packet once an SA is hot.

use allocation_counter::measure;
use codec::SeededRandom;
use codec::esp::{EspCipher, EspInteg, EspKeys, EspSpi, EspSuite, InboundSa, OutboundSa};
use codec::ip::{InnerHeader, clamp_mss};
use codec::stream::{Deframer, FrameKind, Next, classify};

const PACKETS: usize = 200;

/// A UDP packet over IPv4 of 1,400 octets.
fn inner() -> Vec<u8> {
    let mut packet = vec![0x33; 1400];
    packet[..20].fill(0);
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&1400u16.to_be_bytes());
    packet[9] = 17;
    packet
}

fn suites() -> [EspSuite; 9] {
    use EspCipher::*;
    use EspInteg::*;
    [
        (Aes128Gcm16, None, false),
        (Aes256Gcm16, None, true),
        (ChaCha20Poly1305, None, true),
        (Aes128Cbc, Some(HmacSha1_96), false),
        (Aes192Cbc, Some(HmacSha2_384_192), false),
        (Aes256Cbc, Some(HmacSha2_256_128), true),
        (TripleDesCbc, Some(HmacSha1_96), true),
        (Aes256Cbc, Some(HmacSha2_512_256), false),
        (Aes128Cbc, Some(HmacSha2_256_128), false),
    ]
    .map(|(cipher, integ, esn)| EspSuite { cipher, integ, esn })
}

fn pair(suite: EspSuite) -> (OutboundSa, InboundSa) {
    let keymat = vec![7; suite.keymat_len()];
    let keys = || EspKeys::new(&suite, &keymat).expect("keys of the suite's length");
    let outbound = OutboundSa::new(EspSpi(500), suite, keys(), &mut SeededRandom::new(1));
    (outbound, InboundSa::new(EspSpi(500), suite, keys(), 4096))
}

#[test]
fn the_counter_counts() {
    assert_eq!(measure(|| drop(std::hint::black_box(Vec::<u8>::with_capacity(10)))).count_total, 1);
}

/// Seals a burst into one send buffer, cuts it into frames as they come from TCP, opens them in place, looks
/// at the inner headers: the whole path of a packet through this crate.
#[test]
fn no_allocation_per_packet_in_the_hot_state() {
    let inner = inner();
    for suite in suites() {
        let (mut outbound, mut inbound) = pair(suite);
        let frame_len = outbound.frame_len(inner.len());
        let mut stream = vec![0; PACKETS * frame_len];
        let (mut deframer, mut carry) = (Deframer::originator(), Vec::with_capacity(frame_len));
        let (mut opened_count, mut round) = (0, || {
            for out in stream.chunks_mut(frame_len) {
                outbound.seal_frame(&inner, out).expect("room for the frame");
            }
            // Cut off the grain of the frames, so that many straddle.
            for piece in stream.chunks_mut(4096) {
                let mut at = 0;
                loop {
                    let packet = match deframer.next(piece, &mut at, &mut carry).expect("a sound stream") {
                        Next::Pending => break,
                        Next::InPlace(range) => &mut piece[range],
                        Next::Carried => carry.as_mut_slice(),
                    };
                    assert_eq!(classify(packet), FrameKind::Esp(EspSpi(500)));
                    let opened = inbound.open(packet).expect("authentic");
                    let inner = &mut packet[opened.payload];
                    let header = InnerHeader::parse(inner).expect("sound");
                    assert!(!clamp_mss(inner, &header, 1280));
                }
            }
        });
        round();
        let counted = measure(|| {
            for _ in 0..3 {
                round();
                opened_count += PACKETS;
            }
        });
        assert_eq!(counted.count_total, 0, "{suite}: allocations for {opened_count} packets");
        assert_eq!(inbound.packets(), 4 * PACKETS as u64);
    }
}

#[test]
fn refused_packets_allocate_nothing_either() {
    for suite in suites() {
        let (mut outbound, mut inbound) = pair(suite);
        let mut frame = vec![0; outbound.frame_len(1400)];
        outbound.seal_frame(&inner(), &mut frame).expect("room for the frame");
        inbound.open(&mut frame[2..].to_vec()).expect("authentic");
        let replayed = &mut frame.clone()[2..];
        frame[9] = 9;
        let forged = &mut frame[2..];
        let counted = measure(|| {
            assert!(inbound.open(replayed).is_err());
            assert!(inbound.open(forged).is_err());
            assert!(inbound.open(&mut [0; 7]).is_err());
        });
        assert_eq!(counted.count_total, 0, "{suite}");
    }
}
