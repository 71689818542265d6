//! Identifiers of messages and sessions.

use std::time::Duration;

/// Where a back end takes its identifiers from.
pub struct Ids {
    hop_by_hop: u32,
    end_to_end: u32,
    origin_state: u32,
    session: u32,
    random: u64,
}

impl Ids {
    /// Of a process that starts at `unix_s`, seconds since 1970, with `seed` of good randomness.
    pub fn new(unix_s: u64, seed: u64) -> Self {
        let mut ids =
            Self { hop_by_hop: 0, end_to_end: 0, origin_state: unix_s as u32, session: 0, random: seed };
        ids.hop_by_hop = ids.random() as u32;
        // RFC 6733 §3: low bits of the time above, so that they do not repeat across a restart.
        ids.end_to_end = (unix_s as u32) << 20 | (ids.random() as u32 & 0x000f_ffff);
        ids
    }

    /// For one request on one connection.
    pub fn hop_by_hop(&mut self) -> u32 {
        self.hop_by_hop = self.hop_by_hop.wrapping_add(1);
        self.hop_by_hop
    }

    /// For one request, however often it is sent.
    pub fn end_to_end(&mut self) -> u32 {
        self.end_to_end = self.end_to_end.wrapping_add(1);
        self.end_to_end
    }

    /// Origin-State-Id (RFC 6733 §8.16): the start of the process, which loses its sessions when it ends.
    pub fn origin_state(&self) -> u32 {
        self.origin_state
    }

    /// The low part of a Session-Id; the high part is [`Self::origin_state`] (RFC 6733 §8.8).
    pub fn session(&mut self) -> u32 {
        self.session = self.session.wrapping_add(1);
        self.session
    }

    /// A time from 0 to twice `spread`, so that `spread` is its mean.
    pub fn jitter(&mut self, spread: Duration) -> Duration {
        let ms = spread.as_millis() as u64 * 2 + 1;
        Duration::from_millis(self.random() % ms)
    }

    /// splitmix64: spreads timers, hides nothing.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
