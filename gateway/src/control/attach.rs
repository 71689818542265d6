//! How fast UEs attach: a latency histogram and a rate.

use std::time::{Duration, Instant};

/// Upper bounds of the histogram's buckets, seconds; the last bucket has none.
pub const BUCKETS_S: [f64; 13] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

/// Seconds over which [`AttachMeter::per_s`] averages.
const WINDOW_S: usize = 8;

/// Attach latencies since start, from IKE_SA_INIT to the established session.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct AttachHistogram {
    /// Attaches per bucket of [`BUCKETS_S`], not cumulated; the last counts those beyond.
    pub buckets: [u64; BUCKETS_S.len() + 1],
    /// Sum of all latencies, seconds.
    pub sum_s: f64,
}

impl AttachHistogram {
    /// Adds one latency.
    pub fn record(&mut self, latency: Duration) {
        let seconds = latency.as_secs_f64();
        let bucket = BUCKETS_S.iter().position(|&bound| seconds <= bound).unwrap_or(BUCKETS_S.len());
        self.buckets[bucket] += 1;
        self.sum_s += seconds;
    }

    /// Attaches recorded.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// Counts attaches by second over a short window.
pub struct AttachMeter {
    start: Instant,
    counts: [u32; WINDOW_S],
    second: u64,
}

impl AttachMeter {
    /// A meter that starts at `now`.
    pub fn new(now: Instant) -> Self {
        Self { start: now, counts: [0; WINDOW_S], second: 0 }
    }

    /// Counts one attach at `now`.
    pub fn record(&mut self, now: Instant) {
        self.advance(now);
        self.counts[self.second as usize % WINDOW_S] += 1;
    }

    /// Attaches per second over the last full seconds.
    pub fn per_s(&mut self, now: Instant) -> f64 {
        self.advance(now);
        let current = self.second as usize % WINDOW_S;
        let full: u32 =
            self.counts.iter().enumerate().filter(|&(index, _)| index != current).map(|(_, n)| n).sum();
        f64::from(full) / (WINDOW_S - 1) as f64
    }

    fn advance(&mut self, now: Instant) {
        let second = now.saturating_duration_since(self.start).as_secs();
        let passed = second.saturating_sub(self.second).min(WINDOW_S as u64);
        for step in 1..=passed {
            self.counts[(second - passed + step) as usize % WINDOW_S] = 0;
        }
        self.second = second.max(self.second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_fall_into_their_buckets() {
        let mut histogram = AttachHistogram::default();
        for ms in [1, 2, 3, 20_000] {
            histogram.record(Duration::from_millis(ms));
        }
        assert_eq!(histogram.buckets[..3], [1, 1, 1]);
        assert_eq!(histogram.buckets[BUCKETS_S.len()], 1);
        assert_eq!(histogram.count(), 4);
        assert!((histogram.sum_s - 20.006).abs() < 1e-9);
    }

    #[test]
    fn the_rate_covers_the_last_full_seconds_and_fades() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut meter = AttachMeter::new(start);
        (0..70).for_each(|_| meter.record(at(500)));
        assert_eq!(meter.per_s(at(900)), 0.0);
        assert_eq!(meter.per_s(at(1100)), 10.0);
        assert_eq!(meter.per_s(at(7900)), 10.0);
        assert_eq!(meter.per_s(at(8100)), 0.0);
        assert_eq!(meter.per_s(at(60_000)), 0.0);
    }
}
