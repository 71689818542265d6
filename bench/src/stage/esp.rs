//! Framing and ESP.

use super::{PACKET_LEN, Stage};
use codec::SeededRandom;
use codec::crypto::EspProposal;
use codec::esp::{BATCH_MAX, EspKeys, EspSpi, EspSuite, InboundSa, OpenBatch, OutboundSa, SealBatch};
use codec::stream::{Deframer, FrameKind, LENGTH_LEN, Next, classify};
use std::hint::black_box;

/// Anti-replay window in packets.
const REPLAY_WINDOW: u32 = 128;
/// SAs of a batch: as many UEs take part in it.
const BATCH_SAS: usize = 16;

fn suite(keywords: &str) -> EspSuite {
    let proposal: EspProposal = keywords.parse().expect("a proposal of this program");
    EspSuite { cipher: proposal.ciphers()[0], integ: proposal.integs().first().copied(), esn: true }
}

fn keys(suite: &EspSuite) -> EspKeys {
    EspKeys::new(suite, &vec![7; suite.keymat_len()]).expect("keys of the suite's length")
}

fn outbound(keywords: &str, count: usize) -> Vec<OutboundSa> {
    let (suite, mut random) = (suite(keywords), SeededRandom::new(1));
    (0..count).map(|at| OutboundSa::new(spi(at), suite, keys(&suite), &mut random)).collect()
}

fn inbound(keywords: &str, count: usize) -> Vec<InboundSa> {
    let suite = suite(keywords);
    (0..count).map(|at| InboundSa::new(spi(at), suite, keys(&suite), REPLAY_WINDOW)).collect()
}

fn spi(at: usize) -> EspSpi {
    EspSpi(0x1000 + at as u32)
}

fn inner() -> Vec<u8> {
    let mut packet = vec![0x33; PACKET_LEN];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(PACKET_LEN as u16).to_be_bytes());
    packet
}

/// Seals packets of the SAs in turn, back to back.
fn fill(sas: &mut [OutboundSa], inner: &[u8], frames: &mut [u8], frame_len: usize) {
    for (at, frame) in frames.chunks_exact_mut(frame_len).enumerate() {
        let turn = at % sas.len();
        sas[turn].seal_frame(inner, frame).expect("room for the frame");
    }
}

/// A stream of one UE's frames: found, told apart, opened.
pub struct DeframeOpen {
    outbound: Vec<OutboundSa>,
    inbound: InboundSa,
    inner: Vec<u8>,
    stream: Vec<u8>,
    frame_len: usize,
    deframer: Deframer,
    carry: Vec<u8>,
}

impl DeframeOpen {
    pub fn new() -> Self {
        let outbound = outbound("aes128gcm16", 1);
        let frame_len = outbound[0].frame_len(PACKET_LEN);
        Self {
            outbound,
            inbound: inbound("aes128gcm16", 1).remove(0),
            inner: inner(),
            stream: vec![0; frame_len * BATCH_MAX],
            frame_len,
            deframer: Deframer::originator(),
            carry: Vec::new(),
        }
    }
}

impl Stage for DeframeOpen {
    fn prepare(&mut self) {
        fill(&mut self.outbound, &self.inner, &mut self.stream, self.frame_len);
    }

    fn run(&mut self) {
        let mut at = 0;
        while let Next::InPlace(body) =
            self.deframer.next(&self.stream, &mut at, &mut self.carry).expect("a sound stream")
        {
            let packet = &mut self.stream[body];
            assert!(matches!(classify(packet), FrameKind::Esp(_)));
            black_box(self.inbound.open(packet).expect("authentic"));
        }
    }

    fn packets(&self) -> usize {
        BATCH_MAX
    }
}

/// Packets sealed one by one, for UEs in turn.
pub struct Seal {
    outbound: Vec<OutboundSa>,
    inner: Vec<u8>,
    frames: Vec<u8>,
    frame_len: usize,
}

impl Seal {
    pub fn new(keywords: &str, sas: usize) -> Self {
        let outbound = outbound(keywords, sas);
        let frame_len = outbound[0].frame_len(PACKET_LEN);
        Self { outbound, inner: inner(), frames: vec![0; frame_len * BATCH_MAX], frame_len }
    }
}

impl Stage for Seal {
    fn prepare(&mut self) {}

    fn run(&mut self) {
        fill(&mut self.outbound, &self.inner, &mut self.frames, self.frame_len);
    }

    fn packets(&self) -> usize {
        BATCH_MAX
    }
}

/// A batch of packets of several UEs, opened together.
pub struct OpenBurst {
    outbound: Vec<OutboundSa>,
    inbound: Vec<InboundSa>,
    batch: OpenBatch,
    inner: Vec<u8>,
    frames: Vec<u8>,
    frame_len: usize,
}

impl OpenBurst {
    pub fn new(keywords: &str) -> Self {
        let outbound = outbound(keywords, BATCH_SAS);
        let frame_len = outbound[0].frame_len(PACKET_LEN);
        Self {
            outbound,
            inbound: inbound(keywords, BATCH_SAS),
            batch: OpenBatch::new(),
            inner: inner(),
            frames: vec![0; frame_len * BATCH_MAX],
            frame_len,
        }
    }
}

impl Stage for OpenBurst {
    fn prepare(&mut self) {
        fill(&mut self.outbound, &self.inner, &mut self.frames, self.frame_len);
    }

    fn run(&mut self) {
        let frames = self.frames.chunks_exact_mut(self.frame_len);
        let mut packets: Vec<&mut [u8]> = frames.map(|frame| &mut frame[LENGTH_LEN..]).collect();
        for (at, packet) in packets.iter().enumerate() {
            self.inbound[at % BATCH_SAS].begin_open(packet, &mut self.batch).expect("a fresh packet");
        }
        self.batch.run(&mut packets);
        for (at, packet) in packets.iter().enumerate() {
            black_box(self.inbound[at % BATCH_SAS].finish_open(&self.batch, at, packet).expect("authentic"));
        }
        self.batch.clear();
    }

    fn packets(&self) -> usize {
        BATCH_MAX
    }
}

/// A batch of packets of several UEs, sealed together.
pub struct SealBurst {
    outbound: Vec<OutboundSa>,
    batch: SealBatch,
    inner: Vec<u8>,
    frames: Vec<u8>,
    frame_len: usize,
}

impl SealBurst {
    pub fn new(keywords: &str) -> Self {
        let outbound = outbound(keywords, BATCH_SAS);
        let frame_len = outbound[0].frame_len(PACKET_LEN);
        let frames = vec![0; frame_len * BATCH_MAX];
        Self { outbound, batch: SealBatch::new(), inner: inner(), frames, frame_len }
    }
}

impl Stage for SealBurst {
    fn prepare(&mut self) {}

    fn run(&mut self) {
        let mut frames: Vec<&mut [u8]> = self.frames.chunks_exact_mut(self.frame_len).collect();
        for (at, frame) in frames.iter_mut().enumerate() {
            let sa = &mut self.outbound[at % BATCH_SAS];
            sa.begin_seal(&self.inner, frame, &mut self.batch).expect("room for the frame");
        }
        self.batch.run(&mut frames);
    }

    fn packets(&self) -> usize {
        BATCH_MAX
    }
}
