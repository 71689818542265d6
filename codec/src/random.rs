//! Where randomness comes from.

use aws_lc_rs::{hmac, rand};

/// Randomness as an argument: the operating system in production, a seed in simulation.
pub trait Random {
    /// Fills `out` with random octets.
    fn fill(&mut self, out: &mut [u8]);
}

/// The cryptographic generator of aws-lc, seeded by the operating system.
#[derive(Clone, Copy, Default, Debug)]
pub struct OsRandom;

impl Random for OsRandom {
    /// # Panics
    /// When the operating system has no randomness: no key may be made then.
    fn fill(&mut self, out: &mut [u8]) {
        rand::fill(out).expect("the operating system provides randomness");
    }
}

/// A reproducible stream of octets from a seed, for simulation, tests and `--seed`.
///
/// HMAC-SHA-256 keyed with the seed over a counter. Whoever knows the seed knows the stream: it must never
/// make a key that protects real traffic.
pub struct SeededRandom {
    key: hmac::Key,
    counter: u64,
    block: [u8; 32],
    used: usize,
}

impl SeededRandom {
    /// Starts the stream of `seed`.
    pub fn new(seed: u64) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &seed.to_be_bytes());
        Self { key, counter: 0, block: [0; 32], used: 32 }
    }

    fn refill(&mut self) {
        let tag = hmac::sign(&self.key, &self.counter.to_be_bytes());
        self.block.copy_from_slice(tag.as_ref());
        self.counter += 1;
        self.used = 0;
    }
}

impl Random for SeededRandom {
    fn fill(&mut self, out: &mut [u8]) {
        for octet in out {
            if self.used == self.block.len() {
                self.refill();
            }
            *octet = self.block[self.used];
            self.used += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_whatever_the_size_of_the_reads() {
        let mut whole = [0; 100];
        SeededRandom::new(7).fill(&mut whole);
        let mut random = SeededRandom::new(7);
        let mut parts = [0; 100];
        for part in parts.chunks_mut(7) {
            random.fill(part);
        }
        assert_eq!(whole, parts);
        let mut other = [0; 100];
        SeededRandom::new(8).fill(&mut other);
        assert_ne!(whole, other);
    }

    #[test]
    fn the_operating_system_does_not_repeat() {
        let (mut a, mut b) = ([0; 32], [0; 32]);
        OsRandom.fill(&mut a);
        OsRandom.fill(&mut b);
        assert_ne!(a, b);
    }
}
