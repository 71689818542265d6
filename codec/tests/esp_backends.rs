//! Both cipher libraries against each other.

use codec::SeededRandom;
use codec::esp::{
    EspCipher, EspError, EspInteg, EspKeys, EspSpi, EspSuite, InboundSa, OpenBatch, Opened, OutboundSa,
    SealBatch,
};
use proptest::prelude::*;

mod common;
use common::forced::{BOTH, Forced};

/// An SA's suite and what is sent under it.
#[derive(Clone, Debug)]
struct Traffic {
    suite: EspSuite,
    /// Octets of each inner packet.
    lens: Vec<usize>,
    seed: u8,
}

/// An octet of one packet to corrupt: packet, position (wrapped), bits.
type Fault = (usize, usize, u8);

fn suite() -> impl Strategy<Value = EspSuite> {
    use EspCipher::*;
    use EspInteg::*;
    let aead = prop::sample::select(vec![Aes128Gcm16, Aes256Gcm16, ChaCha20Poly1305]);
    let cbc = prop::sample::select(vec![Aes128Cbc, Aes192Cbc, Aes256Cbc]);
    let hmac = prop::sample::select(vec![HmacSha1_96, HmacSha2_256_128, HmacSha2_384_192, HmacSha2_512_256]);
    let pair = prop_oneof![
        1 => aead.prop_map(|cipher| (cipher, None)),
        3 => (cbc, hmac).prop_map(|(cipher, integ)| (cipher, Some(integ))),
    ];
    (pair, any::<bool>()).prop_map(|((cipher, integ), esn)| EspSuite { cipher, integ, esn })
}

fn traffic() -> impl Strategy<Value = Vec<Traffic>> {
    let lens = prop::collection::vec(prop_oneof![0..200usize, 1300..1500usize, 0..9000usize], 1..8);
    let one = (suite(), lens, any::<u8>()).prop_map(|(suite, lens, seed)| Traffic { suite, lens, seed });
    prop::collection::vec(one, 1..8)
}

fn ends(traffic: &Traffic, at: usize) -> (OutboundSa, InboundSa) {
    let suite = traffic.suite;
    let keymat: Vec<u8> = (0..suite.keymat_len()).map(|at| (at * 29) as u8 ^ traffic.seed).collect();
    let keys = || EspKeys::new(&suite, &keymat).unwrap();
    let spi = EspSpi(0x1000 + at as u32);
    let outbound = OutboundSa::new(spi, suite, keys(), &mut SeededRandom::new(traffic.seed.into()));
    (outbound, InboundSa::new(spi, suite, keys(), 128))
}

/// Any octets that begin as IPv4 does; too short for a header below 20.
fn inner(len: usize) -> Vec<u8> {
    let mut packet: Vec<u8> = (0..len.max(1)).map(|at| (at * at) as u8).collect();
    packet[0] = 0x45;
    if let Some(field) = packet.get_mut(2..4) {
        field.copy_from_slice(&(len as u16).to_be_bytes());
    }
    packet
}

/// All frames of `traffic` as a batch makes them.
fn seal_batch(traffic: &[Traffic]) -> Vec<(usize, Vec<u8>)> {
    let (mut batch, mut frames) = (SealBatch::new(), Vec::new());
    for (at, one) in traffic.iter().enumerate() {
        let (mut outbound, _) = ends(one, at);
        for len in &one.lens {
            let mut frame = vec![0; outbound.frame_len(inner(*len).len())];
            outbound.begin_seal(&inner(*len), &mut frame, &mut batch).unwrap();
            frames.push((at, frame));
        }
    }
    batch.run(&mut frames.iter_mut().map(|(_, frame)| frame.as_mut_slice()).collect::<Vec<_>>());
    frames
}

/// All frames of `traffic` one by one.
fn seal_single(traffic: &[Traffic]) -> Vec<(usize, Vec<u8>)> {
    let mut frames = Vec::new();
    for (at, one) in traffic.iter().enumerate() {
        let (mut outbound, _) = ends(one, at);
        for len in &one.lens {
            let mut frame = vec![0; outbound.frame_len(inner(*len).len())];
            outbound.seal_frame(&inner(*len), &mut frame).unwrap();
            frames.push((at, frame));
        }
    }
    frames
}

type Outcome = (Result<Opened, EspError>, Vec<u8>);

/// A duplicate that arrives in the batch of the first is decrypted before it is known for one.
fn outcome(result: Result<Opened, EspError>, packet: Vec<u8>) -> Outcome {
    let packet = if result == Err(EspError::Replayed) { Vec::new() } else { packet };
    (result, packet)
}

fn open_batch(traffic: &[Traffic], frames: &[(usize, Vec<u8>)]) -> Vec<Outcome> {
    let mut sas: Vec<_> = traffic.iter().enumerate().map(|(at, one)| ends(one, at).1).collect();
    let mut batch = OpenBatch::new();
    let mut packets: Vec<_> = frames.iter().map(|(_, frame)| frame[2..].to_vec()).collect();
    let begun: Vec<_> = frames
        .iter()
        .zip(&packets)
        .map(|((at, _), packet)| sas[*at].begin_open(packet, &mut batch))
        .collect();
    let mut in_batch: Vec<&mut [u8]> =
        packets.iter_mut().zip(&begun).filter(|(_, begun)| begun.is_ok()).map(|(it, _)| &mut **it).collect();
    batch.run(&mut in_batch);
    let finish = |((packet, begun), (at, _)): ((Vec<u8>, Result<usize, _>), &(usize, _))| {
        outcome(begun.and_then(|position| sas[*at].finish_open(&batch, position, &packet)), packet)
    };
    packets.into_iter().zip(begun).zip(frames).map(finish).collect()
}

fn open_single(traffic: &[Traffic], frames: &[(usize, Vec<u8>)]) -> Vec<Outcome> {
    let mut sas: Vec<_> = traffic.iter().enumerate().map(|(at, one)| ends(one, at).1).collect();
    let open = |(at, frame): &(usize, Vec<u8>)| {
        let mut packet = frame[2..].to_vec();
        outcome(sas[*at].open(&mut packet), packet)
    };
    frames.iter().map(open).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// The same traffic, sealed and, with octets corrupted and packets doubled, opened by both libraries, in
    /// a batch and one by one: all four agree in every octet and every error.
    #[test]
    fn both_libraries_agree_one_by_one_and_in_batches(
        traffic in traffic(),
        faults in prop::collection::vec((0..64usize, any::<usize>(), 1..=255u8), 0..6),
        doubled in prop::collection::vec(0..64usize, 0..4),
    ) {
        let frames = {
            let _forced = Forced::new(BOTH[0]).unwrap();
            seal_single(&traffic)
        };
        let received = receive(&frames, &faults, &doubled);
        let mut opened = None;
        for backend in BOTH {
            let Some(_forced) = Forced::new(backend) else { continue };
            prop_assert_eq!(&seal_single(&traffic), &frames);
            prop_assert_eq!(&seal_batch(&traffic), &frames);
            let outcomes = open_single(&traffic, &received);
            prop_assert_eq!(&open_batch(&traffic, &received), &outcomes);
            prop_assert_eq!(opened.get_or_insert_with(|| outcomes.clone()), &outcomes);
        }
    }
}

/// What arrives of `frames`.
fn receive(frames: &[(usize, Vec<u8>)], faults: &[Fault], doubled: &[usize]) -> Vec<(usize, Vec<u8>)> {
    let mut received = frames.to_vec();
    for (packet, at, bits) in faults {
        let packet = packet % received.len();
        let frame = &mut received[packet].1;
        // Not the SPI, by which the caller finds the SA.
        let at = 6 + at % (frame.len() - 6);
        frame[at] ^= bits;
    }
    for at in doubled {
        received.push(received[at % frames.len()].clone());
    }
    received
}
