//! SAs that keep no expanded keys: the same packets, and nothing is allocated for them.
//!
//! Its own process, because what an SA may keep is the process's.

use allocation_counter::measure;
use codec::SeededRandom;
use codec::esp::{
    EspCipher, EspInteg, EspKeys, EspSpi, EspSuite, InboundSa, OpenBatch, OutboundSa, SealBatch,
    keep_contexts,
};

const SPI: EspSpi = EspSpi(500);
const BATCH: usize = 20;

fn inner() -> Vec<u8> {
    let mut packet = vec![0x33; 600];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&600u16.to_be_bytes());
    packet
}

fn suites() -> [EspSuite; 4] {
    use EspCipher::*;
    use EspInteg::*;
    [
        (Aes128Gcm16, None),
        (ChaCha20Poly1305, None),
        (Aes256Cbc, Some(HmacSha2_256_128)),
        (Aes128Cbc, Some(HmacSha2_512_256)),
    ]
    .map(|(cipher, integ)| EspSuite { cipher, integ, esn: true })
}

fn pair(suite: EspSuite) -> (OutboundSa, InboundSa) {
    let keymat = vec![7; suite.keymat_len()];
    let keys = || EspKeys::new(&suite, &keymat).unwrap();
    let outbound = OutboundSa::new(SPI, suite, keys(), &mut SeededRandom::new(1));
    (outbound, InboundSa::new(SPI, suite, keys(), 128))
}

/// One turn of a worker: a packet alone each way, then a batch each way.
fn turn(
    (outbound, inbound): &mut (OutboundSa, InboundSa),
    (sealing, opening): &mut (SealBatch, OpenBatch),
    inner: &[u8],
    stream: &mut [u8],
) {
    let frame_len = outbound.frame_len(inner.len());
    let single = &mut stream[..frame_len];
    outbound.seal_frame(inner, single).unwrap();
    inbound.open(&mut single[2..]).unwrap();

    let mut frames = stream.chunks_exact_mut(frame_len);
    let mut frames: [&mut [u8]; BATCH] = std::array::from_fn(|_| frames.next().unwrap());
    for frame in &mut frames {
        outbound.begin_seal(inner, frame, sealing).unwrap();
    }
    sealing.run(&mut frames);
    let mut frames = stream.chunks_exact_mut(frame_len);
    let mut packets: [&mut [u8]; BATCH] = std::array::from_fn(|_| &mut frames.next().unwrap()[2..]);
    for packet in &packets {
        inbound.begin_open(packet, opening).unwrap();
    }
    opening.run(&mut packets);
    for (position, packet) in packets.iter().enumerate() {
        let opened = inbound.finish_open(opening, position, packet).unwrap();
        assert_eq!(packet[opened.payload], *inner);
    }
    opening.clear();
}

#[test]
fn sas_without_kept_keys_seal_and_open_without_allocating() {
    keep_contexts(0);
    let inner = inner();
    for suite in suites() {
        let (mut sas, mut batches) = (pair(suite), (SealBatch::new(), OpenBatch::new()));
        let mut stream = vec![0; BATCH * sas.0.frame_len(inner.len())];
        turn(&mut sas, &mut batches, &inner, &mut stream);
        let counted = measure(|| turn(&mut sas, &mut batches, &inner, &mut stream));
        assert_eq!(counted.count_total, 0, "{suite}");
        assert_eq!(sas.1.packets(), 2 * (1 + BATCH as u64));
    }
}
