//! Cost of the anti-replay window: check and record one sequence number.

use std::hint::black_box;
use std::time::Duration;

use codec::esp::{REPLAY_WINDOW_DEFAULT, REPLAY_WINDOW_MAX, ReplayWindow};
use criterion::{BenchmarkId, Criterion, Throughput};

/// Sequence numbers per round.
const COUNT: u64 = 4096;

/// The sequence number that arrives at each position.
type Order = fn(u64) -> u64;

fn orders() -> [(&'static str, Order); 3] {
    [
        ("in_order", |at| at),
        // Two connections sharing one SA: pairs swapped.
        ("swapped", |at| at ^ 1),
        // Heavy loss: every packet clears words of the bitmap.
        ("jumps", |at| at * 300),
    ]
}

fn accept(window: &mut ReplayWindow, low: u32) -> bool {
    let Ok(sequence) = window.infer(low) else {
        return false;
    };
    let fresh = window.check(sequence).is_ok();
    if fresh {
        window.advance(sequence);
    }
    fresh
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let mut group = criterion.benchmark_group("replay");
    group.throughput(Throughput::Elements(COUNT));
    for size in [REPLAY_WINDOW_DEFAULT, REPLAY_WINDOW_MAX] {
        for (name, order) in orders() {
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter(|| {
                    let mut window = ReplayWindow::new(size);
                    (2..COUNT + 2).filter(|at| accept(&mut window, black_box(order(*at)) as u32)).count()
                });
            });
        }
        group.bench_function(BenchmarkId::new("replayed", size), |bencher| {
            let mut window = ReplayWindow::new(size);
            window.advance(1000);
            bencher.iter(|| (0..COUNT).filter(|_| accept(&mut window, black_box(1000))).count());
        });
    }
    group.finish();
    criterion.final_summary();
}
