//! Cost of finding frames in a stream, per frame size, when buffers hold whole frames and when segments of
//! 1,448 octets cut them.

use std::hint::black_box;
use std::time::Duration;

use codec::stream::{Deframer, LENGTH_LEN, Next, classify};
use criterion::{BenchmarkId, Criterion, Throughput};

/// Octets of each frame's body.
const BODY_LENS: [usize; 4] = [64, 160, 1400, 16384];

/// Octets of stream per round: what one large receive buffer holds.
const STREAM_LEN: usize = 256 * 1024;

fn stream(body_len: usize) -> (Vec<u8>, u64) {
    let length = ((body_len + LENGTH_LEN) as u16).to_be_bytes();
    let frame = [&length[..], &vec![0x11; body_len]].concat();
    let count = STREAM_LEN / frame.len();
    (frame.repeat(count), count as u64)
}

/// Finds and classifies every frame of `stream` as it arrives in pieces of `piece_len` octets.
fn deframe(stream: &[u8], piece_len: usize, carry: &mut Vec<u8>) -> u64 {
    let mut deframer = Deframer::originator();
    let mut count = 0;
    for piece in stream.chunks(piece_len) {
        let mut at = 0;
        loop {
            let body = match deframer.next(piece, &mut at, carry).expect("a sound stream") {
                Next::Pending => break,
                Next::InPlace(range) => &piece[range],
                Next::Carried => carry,
            };
            black_box(classify(body));
            count += 1;
        }
    }
    count
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let mut group = criterion.benchmark_group("deframer");
    for body_len in BODY_LENS {
        let (stream, count) = stream(body_len);
        group.throughput(Throughput::Elements(count));
        let mut carry = Vec::new();
        for (name, piece_len) in [("whole", stream.len()), ("segments", 1448)] {
            group.bench_function(BenchmarkId::new(name, body_len), |bencher| {
                bencher.iter(|| assert_eq!(deframe(black_box(&stream), piece_len, &mut carry), count));
            });
        }
    }
    group.finish();
    criterion.final_summary();
}
