//! Cost of finding the SA of a packet among those of a worker, in no order: uplink by SPI, downlink by inner
//! address and selectors.

use std::time::Duration;

use bench::stage::{Lookup, Stage};
use criterion::{BenchmarkId, Criterion, Throughput};

/// SAs of a worker.
const SAS: [u32; 3] = [1, 1_000, 100_000];

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let mut group = criterion.benchmark_group("sad");
    for sas in SAS {
        let mut lookup = Lookup::new(sas);
        group.throughput(Throughput::Elements(lookup.packets() as u64 / 2));
        group.bench_function(BenchmarkId::new("uplink", sas), |bencher| bencher.iter(|| lookup.uplink()));
        group.bench_function(BenchmarkId::new("downlink", sas), |bencher| bencher.iter(|| lookup.downlink()));
    }
    group.finish();
    criterion.final_summary();
}
