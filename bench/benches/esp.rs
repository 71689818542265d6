//! Cost of sealing and opening ESP packets, per suite and inner packet size, contexts hot.

use std::hint::black_box;
use std::time::{Duration, Instant};

use codec::OsRandom;
use codec::esp::{EspCipher, EspInteg, EspKeys, EspSpi, EspSuite, InboundSa, OutboundSa};
use criterion::{BenchmarkId, Criterion, Throughput};

/// Octets of the inner packet.
const INNER_LENS: [usize; 4] = [64, 160, 1400, 16384];

/// Packets sealed before a stretch of opening is timed.
const BATCH: u64 = 64;

fn suites() -> [EspSuite; 7] {
    use EspCipher::*;
    use EspInteg::*;
    [
        (Aes128Gcm16, None),
        (Aes256Gcm16, None),
        (ChaCha20Poly1305, None),
        (Aes128Cbc, Some(HmacSha1_96)),
        (Aes128Cbc, Some(HmacSha2_256_128)),
        (Aes256Cbc, Some(HmacSha2_256_128)),
        (Aes256Cbc, Some(HmacSha2_512_256)),
    ]
    .map(|(cipher, integ)| EspSuite { cipher, integ, esn: true })
}

fn pair(suite: EspSuite) -> (OutboundSa, InboundSa) {
    let keymat = vec![7; suite.keymat_len()];
    let keys = || EspKeys::new(&suite, &keymat).expect("keys of the suite's length");
    let outbound = OutboundSa::new(EspSpi(0x1000), suite, keys(), &mut OsRandom);
    (outbound, InboundSa::new(EspSpi(0x1000), suite, keys(), 128))
}

fn inner(len: usize) -> Vec<u8> {
    let mut packet = vec![0x33; len];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    packet
}

/// Time to open `count` packets, made beforehand in batches.
fn time_opening(suite: EspSuite, inner: &[u8], count: u64) -> Duration {
    let (mut outbound, mut inbound) = pair(suite);
    let frame_len = outbound.frame_len(inner.len());
    let mut frames = vec![0; frame_len * BATCH as usize];
    let (mut elapsed, mut left) = (Duration::ZERO, count);
    while left > 0 {
        let batch = left.min(BATCH) as usize;
        for frame in frames.chunks_exact_mut(frame_len).take(batch) {
            outbound.seal_frame(inner, frame).expect("room for the frame");
        }
        let start = Instant::now();
        for frame in frames.chunks_exact_mut(frame_len).take(batch) {
            black_box(inbound.open(&mut frame[2..]).expect("authentic"));
        }
        elapsed += start.elapsed();
        left -= batch as u64;
    }
    elapsed
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .configure_from_args();
    for suite in suites() {
        let name = suite.to_string();
        let mut group = criterion.benchmark_group(name.trim_end_matches("-esn"));
        for inner_len in INNER_LENS {
            let inner = inner(inner_len);
            group.throughput(Throughput::Bytes(inner_len as u64));
            group.bench_function(BenchmarkId::new("seal", inner_len), |bencher| {
                let (mut outbound, _) = pair(suite);
                let mut frame = vec![0; outbound.frame_len(inner_len)];
                bencher.iter(|| outbound.seal_frame(black_box(&inner), &mut frame).expect("room"));
            });
            group.bench_function(BenchmarkId::new("open", inner_len), |bencher| {
                bencher.iter_custom(|count| time_opening(suite, &inner, count));
            });
        }
        group.finish();
    }
    bench_first_use(&mut criterion);
    criterion.final_summary();
}

/// What an idle SA costs when it is used again: expanding the keys and one small packet.
fn bench_first_use(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cold");
    for suite in suites() {
        let inner = inner(64);
        group.bench_function(BenchmarkId::new("seal", suite), |bencher| {
            let (mut outbound, _) = pair(suite);
            let mut frame = vec![0; outbound.frame_len(inner.len())];
            bencher.iter(|| {
                outbound.cool();
                outbound.seal_frame(black_box(&inner), &mut frame).expect("room")
            });
        });
    }
    group.finish();
}
