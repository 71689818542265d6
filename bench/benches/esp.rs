//! Cost of sealing and opening ESP packets: cipher library, suite, inner packet size and packets at a time.
//!
//! A batch of one is the call for single packets. Times are of a whole batch; the throughput is of its inner
//! octets.

use std::hint::black_box;
use std::time::{Duration, Instant};

use codec::OsRandom;
use codec::esp::backend::{self, Backend};
use codec::esp::{
    BATCH_MAX, EspCipher, EspInteg, EspKeys, EspSpi, EspSuite, InboundSa, OpenBatch, OutboundSa, SealBatch,
    keep_contexts,
};
use criterion::{BenchmarkId, Criterion, Throughput};

/// Octets of the inner packet.
const INNER_LENS: [usize; 3] = [160, 1400, 16384];

/// Packets at a time.
const BATCHES: [usize; 5] = [1, 8, 16, 32, BATCH_MAX];

fn suites() -> [EspSuite; 8] {
    use EspCipher::*;
    use EspInteg::*;
    [
        (Aes128Gcm16, None),
        (Aes256Gcm16, None),
        (ChaCha20Poly1305, None),
        (Aes128Cbc, Some(HmacSha1_96)),
        (Aes128Cbc, Some(HmacSha2_256_128)),
        (Aes256Cbc, Some(HmacSha2_256_128)),
        (Aes256Cbc, Some(HmacSha2_384_192)),
        (Aes256Cbc, Some(HmacSha2_512_256)),
    ]
    .map(|(cipher, integ)| EspSuite { cipher, integ, esn: true })
}

/// The two ends of one direction and room for a batch.
struct Rig {
    outbound: OutboundSa,
    inbound: InboundSa,
    inner: Vec<u8>,
    frame_len: usize,
    stream: Vec<u8>,
    sealing: SealBatch,
    opening: OpenBatch,
}

impl Rig {
    fn new(suite: EspSuite, inner_len: usize) -> Self {
        let keymat = vec![7; suite.keymat_len()];
        let keys = || EspKeys::new(&suite, &keymat).expect("keys of the suite's length");
        let outbound = OutboundSa::new(EspSpi(0x1000), suite, keys(), &mut OsRandom);
        let inbound = InboundSa::new(EspSpi(0x1000), suite, keys(), 128);
        let mut inner = vec![0x33; inner_len];
        inner[0] = 0x45;
        inner[2..4].copy_from_slice(&(inner_len as u16).to_be_bytes());
        let frame_len = outbound.frame_len(inner_len);
        let stream = vec![0; frame_len * BATCH_MAX];
        let (sealing, opening) = (SealBatch::new(), OpenBatch::new());
        Self { outbound, inbound, inner, frame_len, stream, sealing, opening }
    }

    fn seal(&mut self, batch: usize) {
        let frames = self.stream.chunks_exact_mut(self.frame_len).take(batch);
        if batch == 1 {
            frames.for_each(|frame| {
                self.outbound.seal_frame(black_box(&self.inner), frame).expect("room for the frame");
            });
            return;
        }
        let mut slots: [&mut [u8]; BATCH_MAX] = std::array::from_fn(|_| [].as_mut_slice());
        for (slot, frame) in slots.iter_mut().zip(frames) {
            self.outbound.begin_seal(black_box(&self.inner), frame, &mut self.sealing).expect("room");
            *slot = frame;
        }
        self.sealing.run(&mut slots[..batch]);
    }

    fn open(&mut self, batch: usize) {
        let packets = self.stream.chunks_exact_mut(self.frame_len).map(|frame| &mut frame[2..]).take(batch);
        if batch == 1 {
            packets.for_each(|packet| {
                black_box(self.inbound.open(packet).expect("authentic"));
            });
            return;
        }
        let mut slots: [&mut [u8]; BATCH_MAX] = std::array::from_fn(|_| [].as_mut_slice());
        for (slot, packet) in slots.iter_mut().zip(packets) {
            self.inbound.begin_open(packet, &mut self.opening).expect("a new number");
            *slot = packet;
        }
        self.opening.run(&mut slots[..batch]);
        for (position, packet) in slots[..batch].iter().enumerate() {
            black_box(self.inbound.finish_open(&self.opening, position, packet).expect("authentic"));
        }
        self.opening.clear();
    }

    /// Time to open `count` batches, each made beforehand.
    fn time_opening(&mut self, batch: usize, count: u64) -> Duration {
        let mut elapsed = Duration::ZERO;
        for _ in 0..count {
            self.seal(batch);
            let start = Instant::now();
            self.open(batch);
            elapsed += start.elapsed();
        }
        elapsed
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400))
        .configure_from_args();
    println!("chosen here: {}", backend::choose());
    for backend in [Backend::AwsLc, Backend::IpsecMb] {
        if backend::force(Some(backend)).is_ok() {
            suites().iter().for_each(|suite| bench_suite(&mut criterion, backend, *suite));
        }
    }
    backend::force(None).expect("the choice is always there");
    bench_without_kept_keys(&mut criterion);
    criterion.final_summary();
}

fn bench_suite(criterion: &mut Criterion, backend: Backend, suite: EspSuite) {
    let mut group = criterion.benchmark_group(format!("{backend}/{}", name(suite)));
    for inner_len in INNER_LENS {
        for batch in BATCHES {
            let id = |way| BenchmarkId::new(way, format_args!("{inner_len}x{batch}"));
            group.throughput(Throughput::Bytes((inner_len * batch) as u64));
            group.bench_function(id("seal"), |bencher| {
                let mut rig = Rig::new(suite, inner_len);
                bencher.iter(|| rig.seal(batch));
            });
            group.bench_function(id("open"), |bencher| {
                let mut rig = Rig::new(suite, inner_len);
                bencher.iter_custom(|count| rig.time_opening(batch, count));
            });
        }
    }
    group.finish();
}

fn name(suite: EspSuite) -> String {
    suite.to_string().trim_end_matches("-esn").to_owned()
}

/// What an SA costs that keeps no expanded keys: expanding them and one small packet.
fn bench_without_kept_keys(criterion: &mut Criterion) {
    keep_contexts(0);
    let mut group = criterion.benchmark_group("not-kept");
    for suite in suites() {
        group.bench_function(BenchmarkId::new("seal", name(suite)), |bencher| {
            let mut rig = Rig::new(suite, 160);
            bencher.iter(|| rig.seal(1));
        });
        group.bench_function(BenchmarkId::new("open", name(suite)), |bencher| {
            let mut rig = Rig::new(suite, 160);
            bencher.iter_custom(|count| rig.time_opening(1, count));
        });
    }
    group.finish();
}
