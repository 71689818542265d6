//! Framing and ESP.

use super::Stage;
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

fn inner(len: usize) -> Vec<u8> {
    let mut packet = vec![0x33; len];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    packet
}

/// Seals packets of the SAs in turn, back to back.
fn fill(sas: &mut [OutboundSa], inner: &[u8], frames: &mut [u8], frame_len: usize) {
    for (at, frame) in frames.chunks_exact_mut(frame_len).enumerate() {
        let turn = at % sas.len();
        sas[turn].seal_frame(inner, frame).expect("room for the frame");
    }
}

/// Streams of as many UEs: frames found, told apart, opened.
pub struct DeframeOpen {
    outbound: Vec<OutboundSa>,
    inbound: Vec<InboundSa>,
    deframers: Vec<Deframer>,
    inner: Vec<u8>,
    /// One behind the other.
    streams: Vec<u8>,
    frame_len: usize,
    carry: Vec<u8>,
}

impl DeframeOpen {
    /// [`BATCH_MAX`] packets of `len` octets in all.
    pub fn new(ues: usize, len: usize) -> Self {
        let outbound = outbound("aes128gcm16", ues);
        let frame_len = outbound[0].frame_len(len);
        Self {
            outbound,
            inbound: inbound("aes128gcm16", ues),
            deframers: (0..ues).map(|_| Deframer::originator()).collect(),
            inner: inner(len),
            streams: vec![0; frame_len * BATCH_MAX],
            frame_len,
            carry: Vec::new(),
        }
    }

    /// Octets of one UE's stream.
    fn stream_len(&self) -> usize {
        self.streams.len() / self.outbound.len()
    }
}

impl Stage for DeframeOpen {
    fn prepare(&mut self) {
        let stream_len = self.stream_len();
        for (sa, stream) in self.outbound.chunks_mut(1).zip(self.streams.chunks_exact_mut(stream_len)) {
            fill(sa, &self.inner, stream, self.frame_len);
        }
    }

    fn run(&mut self) {
        let stream_len = self.stream_len();
        let streams = self.streams.chunks_exact_mut(stream_len);
        for ((deframer, sa), stream) in self.deframers.iter_mut().zip(&mut self.inbound).zip(streams) {
            let mut at = 0;
            while let Next::InPlace(body) =
                deframer.next(stream, &mut at, &mut self.carry).expect("a sound stream")
            {
                let packet = &mut stream[body];
                assert!(matches!(classify(packet), FrameKind::Esp(_)));
                black_box(sa.open(packet).expect("authentic"));
            }
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
    /// Packets of `len` octets.
    pub fn new(keywords: &str, sas: usize, len: usize) -> Self {
        let outbound = outbound(keywords, sas);
        let frame_len = outbound[0].frame_len(len);
        Self { outbound, inner: inner(len), frames: vec![0; frame_len * BATCH_MAX], frame_len }
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
    /// Packets of `len` octets.
    pub fn new(keywords: &str, len: usize) -> Self {
        let outbound = outbound(keywords, BATCH_SAS);
        let frame_len = outbound[0].frame_len(len);
        Self {
            outbound,
            inbound: inbound(keywords, BATCH_SAS),
            batch: OpenBatch::new(),
            inner: inner(len),
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
    /// Packets of `len` octets.
    pub fn new(keywords: &str, len: usize) -> Self {
        let outbound = outbound(keywords, BATCH_SAS);
        let frame_len = outbound[0].frame_len(len);
        let frames = vec![0; frame_len * BATCH_MAX];
        Self { outbound, batch: SealBatch::new(), inner: inner(len), frames, frame_len }
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
