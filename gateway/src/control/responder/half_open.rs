//! Who may start how much: half-open IKE SAs per source, unprotected replies per second.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ahash::AHashMap;

/// Half-open IKE SAs by source address. IPv6 sources count by their /64, which one subscriber holds.
#[derive(Default)]
pub(super) struct Sources(AHashMap<IpAddr, usize>);

impl Sources {
    /// Half-open IKE SAs of the source.
    pub(super) fn count(&self, source: IpAddr) -> usize {
        self.0.get(&key(source)).copied().unwrap_or(0)
    }

    pub(super) fn add(&mut self, source: IpAddr) {
        *self.0.entry(key(source)).or_default() += 1;
    }

    pub(super) fn remove(&mut self, source: IpAddr) {
        let key = key(source);
        if let Some(count) = self.0.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&key);
            }
        }
    }
}

fn key(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(addr) => IpAddr::V6((addr.to_bits() >> 64 << 64).into()),
        v4 => v4,
    }
}

/// A token bucket that holds one second's worth.
pub(super) struct RateLimit {
    per_second: u32,
    tokens: f64,
    filled: Instant,
}

impl RateLimit {
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        Self { per_second, tokens: f64::from(per_second), filled: now }
    }

    /// How long until there is a token, as of the last time one was asked for.
    pub(super) fn pause(&self) -> Duration {
        let missing = (1.0 - self.tokens).max(0.0);
        Duration::from_secs_f64(missing / f64::from(self.per_second.max(1)))
    }

    /// Whether nothing was taken of late.
    pub(super) fn is_full(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.filled) >= Duration::from_secs(1)
    }

    /// Takes one token if there is one.
    pub(super) fn allow(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.filled).min(Duration::from_secs(1));
        let full = f64::from(self.per_second);
        self.tokens = (self.tokens + elapsed.as_secs_f64() * full).min(full);
        self.filled = now;
        let allowed = self.tokens >= 1.0;
        if allowed {
            self.tokens -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r8019_sources_count_per_address_and_per_64() {
        let mut sources = Sources::default();
        for text in ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"] {
            sources.add(text.parse().expect("an address"));
        }
        let count = |sources: &Sources, text: &str| sources.count(text.parse().expect("an address"));
        assert_eq!(count(&sources, "192.0.2.1"), 2);
        assert_eq!(count(&sources, "2001:db8::ffff"), 2);
        assert_eq!(count(&sources, "2001:db8:0:1::"), 1);
        sources.remove("2001:db8:0:1::1".parse().expect("an address"));
        sources.remove("2001:db8:0:1::1".parse().expect("an address"));
        assert_eq!(sources.0.len(), 2);
    }

    #[test]
    fn d14_the_bucket_refills_to_one_second() {
        let start = Instant::now();
        let mut limit = RateLimit::new(10, start);
        assert_eq!((0..50).filter(|_| limit.allow(start)).count(), 10);
        let later = start + Duration::from_millis(500);
        assert_eq!((0..50).filter(|_| limit.allow(later)).count(), 5);
        let much_later = start + Duration::from_secs(3600);
        assert_eq!((0..50).filter(|_| limit.allow(much_later)).count(), 10);
    }
}
