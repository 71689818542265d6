//! The last responses of ended IKE SAs, for peers that lost them (RFC 7296 §2.1).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use bytes::Bytes;
use codec::ike::IkeSpi;

/// Bounded in number and time; the oldest entry makes room.
pub(super) struct Lingering {
    entries: AHashMap<IkeSpi, (u64, Box<[u8]>)>,
    order: VecDeque<(Instant, IkeSpi)>,
    max: usize,
    timeout: Duration,
}

impl Lingering {
    pub(super) fn new(max: usize, timeout: Duration) -> Self {
        Self { entries: AHashMap::new(), order: VecDeque::new(), max, timeout }
    }

    /// Keeps the response to the request with this digest under the SA's local SPI.
    pub(super) fn keep(&mut self, now: Instant, spi: IkeSpi, digest: u64, response: Box<[u8]>) {
        if self.max == 0 {
            return;
        }
        while self.order.len() >= self.max {
            self.forget_oldest();
        }
        self.order.push_back((now + self.timeout, spi));
        self.entries.insert(spi, (digest, response));
    }

    /// The response to exactly this request.
    pub(super) fn find(&self, spi: IkeSpi, digest: u64) -> Option<Bytes> {
        let entry = self.entries.get(&spi).filter(|(kept, _)| *kept == digest);
        entry.map(|(_, response)| Bytes::copy_from_slice(response))
    }

    /// Whether an IKE SA with this SPI has ended of late.
    pub(super) fn knows(&self, spi: IkeSpi) -> bool {
        self.entries.contains_key(&spi)
    }

    /// Forgets what is too old.
    pub(super) fn expire(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(expires, _)| *expires <= now) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, spi)) = self.order.pop_front() {
            self.entries.remove(&spi);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r7296_2_1_forgotten_by_number_and_by_time() {
        let start = Instant::now();
        let mut lingering = Lingering::new(2, Duration::from_secs(10));
        for octet in 1..=3u8 {
            lingering.keep(start, IkeSpi([octet; 8]), 7, Box::new([octet]));
        }
        assert_eq!(lingering.find(IkeSpi([1; 8]), 7), None);
        assert_eq!(lingering.find(IkeSpi([3; 8]), 7), Some(Bytes::from(vec![3])));
        assert_eq!(lingering.find(IkeSpi([3; 8]), 8), None);
        lingering.expire(start + Duration::from_secs(10));
        assert!(lingering.entries.is_empty() && lingering.order.is_empty());
    }
}
