//! Latency histograms in nanoseconds.

use hdrhistogram::Histogram;

/// Longest latency told apart: one minute.
const MAX_NS: u64 = 60_000_000_000;
/// Decimal digits kept.
const DIGITS: u8 = 3;
/// What takes longer one way is late: a voice packet would miss its turn.
const LATE_NS: u64 = 20_000_000;

/// A histogram of latencies, 1 ns to 60 s, three digits.
#[derive(Clone)]
pub struct Latencies {
    histogram: Histogram<u64>,
    late: u64,
}

/// Percentiles of a histogram, in nanoseconds; all 0 while `count` is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LatencySummary {
    /// Values recorded.
    pub count: u64,
    /// Median.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p999: u64,
    /// Largest value.
    pub max: u64,
    /// Values above 20 ms: the spacing of voice packets.
    pub late: u64,
}

impl Latencies {
    /// Creates an empty histogram.
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, MAX_NS, DIGITS).expect("the bounds are valid");
        Self { histogram, late: 0 }
    }

    /// Records one latency; more than a minute counts as a minute.
    pub fn record(&mut self, ns: u64) {
        self.histogram.saturating_record(ns.max(1));
        self.late += u64::from(ns > LATE_NS);
    }

    /// Returns the percentiles.
    pub fn summary(&self) -> LatencySummary {
        if self.histogram.is_empty() {
            return LatencySummary::default();
        }
        let at = |quantile| self.histogram.value_at_quantile(quantile);
        LatencySummary {
            count: self.histogram.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: self.histogram.max(),
            late: self.late,
        }
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_known_distribution() {
        let mut latencies = Latencies::new();
        for ms in 1..=1000_u64 {
            latencies.record(ms * 1_000_000);
        }
        let summary = latencies.summary();
        let close = |value: u64, ms: u64| value.abs_diff(ms * 1_000_000) <= ms * 1_000;
        assert_eq!(summary.count, 1000);
        assert!(close(summary.p50, 500) && close(summary.p90, 900) && close(summary.p99, 990));
        assert!(close(summary.p999, 999) && close(summary.max, 1000));
        assert_eq!(summary.late, 980);
    }

    #[test]
    fn empty_and_overlong() {
        assert_eq!(Latencies::new().summary(), LatencySummary::default());
        let mut latencies = Latencies::new();
        latencies.record(u64::MAX);
        assert_eq!(latencies.summary().count, 1);
    }
}
