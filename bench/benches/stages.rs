//! Cost of the data path's stages per packet of 1,400 octets: the pieces of work that `stages` counts in
//! instructions, with the library of ciphers that is fastest here.

use std::time::{Duration, Instant};

use bench::stage::STAGES;
use criterion::{Criterion, Throughput};

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let mut group = criterion.benchmark_group("stages");
    for (name, make) in STAGES {
        let mut stage = make();
        group.throughput(Throughput::Elements(stage.packets() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                let round = |_| {
                    stage.prepare();
                    let begun_at = Instant::now();
                    stage.run();
                    begun_at.elapsed()
                };
                (0..rounds).map(round).sum()
            });
        });
    }
    group.finish();
    criterion.final_summary();
}
