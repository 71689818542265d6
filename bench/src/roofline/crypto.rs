//! Cipher and checksum, hot, one frame after the other.

use crate::machine::thread_cpu_s;
use crate::stage::PACKET_LEN;
use codec::OsRandom;
use codec::crypto::EspProposal;
use codec::esp::{EspKeys, EspSpi, EspSuite, InboundSa, OutboundSa};
use codec::ip::Checksum;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Frames of one stretch between two looks at the clock: as many as a full receive buffer brings.
const BATCH: usize = 256;

fn suite(keywords: &str) -> EspSuite {
    let proposal: EspProposal = keywords.parse().expect("a proposal of this program");
    EspSuite { cipher: proposal.ciphers()[0], integ: proposal.integs().first().copied(), esn: true }
}

/// Returns both sides of an SA.
pub fn pair(keywords: &str) -> (OutboundSa, InboundSa) {
    let suite = suite(keywords);
    let keymat = vec![7; suite.keymat_len()];
    let keys = || EspKeys::new(&suite, &keymat).expect("keys of the suite's length");
    let outbound = OutboundSa::new(EspSpi(0x1000), suite, keys(), &mut OsRandom);
    (outbound, InboundSa::new(EspSpi(0x1000), suite, keys(), 128))
}

/// Returns the octets of a packet of `inner_len` on the stream: Length, ESP and all.
pub fn frame_len(keywords: &str, inner_len: usize) -> usize {
    pair(keywords).0.frame_len(inner_len)
}

/// Returns thread CPU nanoseconds per packet sealed and opened.
pub fn seal_and_open(keywords: &str, span: Duration) -> [f64; 2] {
    let (mut outbound, mut inbound) = pair(keywords);
    let mut inner = vec![0x33; PACKET_LEN];
    inner[0] = 0x45;
    inner[2..4].copy_from_slice(&(PACKET_LEN as u16).to_be_bytes());
    let frame_len = outbound.frame_len(PACKET_LEN);
    let mut frames = vec![0; frame_len * BATCH];
    let mut spent = [0.0; 2];
    let mut packets = 0;
    let begun_at = Instant::now();
    while begun_at.elapsed() < span {
        let before = thread_cpu_s();
        for frame in frames.chunks_exact_mut(frame_len) {
            outbound.seal_frame(black_box(&inner), frame).expect("room for the frame");
        }
        let between = thread_cpu_s();
        for frame in frames.chunks_exact_mut(frame_len) {
            black_box(inbound.open(&mut frame[2..]).expect("authentic"));
        }
        spent[0] += between - before;
        spent[1] += thread_cpu_s() - between;
        packets += BATCH;
    }
    spent.map(|seconds| seconds / packets as f64 * 1e9)
}

/// Returns thread CPU nanoseconds per packet summed.
pub fn checksum(span: Duration) -> f64 {
    let packets = vec![0x33; PACKET_LEN * BATCH];
    let (mut spent, mut count) = (0.0, 0);
    let begun_at = Instant::now();
    while begun_at.elapsed() < span {
        let before = thread_cpu_s();
        for packet in packets.chunks_exact(PACKET_LEN) {
            black_box(Checksum::new().with(black_box(packet)).partial());
        }
        spent += thread_cpu_s() - before;
        count += BATCH;
    }
    spent / count as f64 * 1e9
}
