//! CoDel (RFC 8289): drops at the head of the queue when packets have waited longer than the target for an interval.

/// Acceptable standing wait, in nanoseconds (RFC 8289 §4.3).
pub(super) const TARGET_NS: u64 = 5_000_000;
/// How long it may be exceeded: a worst-case round trip (RFC 8289 §4.3).
const INTERVAL_NS: u64 = 100_000_000;

/// The control law of one queue; times are nanoseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Codel {
    /// When the wait will have been too long for an interval.
    first_above_ns: Option<u64>,
    dropping: bool,
    drop_next_ns: u64,
    /// Drops since dropping began.
    count: u32,
    /// What `count` was when dropping began last.
    last_count: u32,
}

impl Codel {
    /// Says whether to drop the packet at the head, which leaves the queue at `now_ns` after `sojourn_ns`; `short` tells
    /// that no more than one packet of the MTU waits. To be asked for each head until one is kept; `first` marks the
    /// first head of a transmission.
    pub(super) fn drops(&mut self, now_ns: u64, sojourn_ns: u64, short: bool, first: bool) -> bool {
        let too_long = self.too_long(now_ns, sojourn_ns, short);
        if self.dropping {
            if !too_long {
                self.dropping = false;
                return false;
            }
            if now_ns < self.drop_next_ns {
                return false;
            }
            self.count = self.count.saturating_add(1);
            self.drop_next_ns = self.control_law(self.drop_next_ns);
            return true;
        }
        if !first || !too_long {
            return false;
        }
        self.dropping = true;
        // Where dropping ended a moment ago, it goes on near the rate that held the queue then.
        let before = self.count.wrapping_sub(self.last_count);
        let lately = now_ns.saturating_sub(self.drop_next_ns) < 16 * INTERVAL_NS;
        self.count = if before > 1 && lately && self.count >= self.last_count { before } else { 1 };
        self.last_count = self.count;
        self.drop_next_ns = self.control_law(now_ns);
        true
    }

    fn too_long(&mut self, now_ns: u64, sojourn_ns: u64, short: bool) -> bool {
        if sojourn_ns < TARGET_NS || short {
            self.first_above_ns = None;
            return false;
        }
        now_ns >= *self.first_above_ns.get_or_insert(now_ns + INTERVAL_NS)
    }

    fn control_law(&self, from_ns: u64) -> u64 {
        from_ns + (INTERVAL_NS as f64 / f64::from(self.count).sqrt()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_waits_and_short_queues_are_left_alone() {
        let mut codel = Codel::default();
        for ms in 0..1_000 {
            assert!(!codel.drops(ms * 1_000_000, TARGET_NS - 1, false, true));
            assert!(!codel.drops(ms * 1_000_000, 10 * TARGET_NS, true, true));
        }
    }

    #[test]
    fn drops_begin_after_an_interval_and_come_closer() {
        let mut codel = Codel::default();
        let drops: Vec<u64> =
            (0..1_000).filter(|ms| codel.drops(ms * 1_000_000, 2 * TARGET_NS, false, true)).collect();
        assert_eq!(drops[0], 100);
        let gaps: Vec<u64> = drops.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.is_sorted_by(|early, late| early + 1 >= *late), "{gaps:?}");
        assert!((gaps[0].abs_diff(100)) <= 1 && (gaps[1].abs_diff(71)) <= 1, "{gaps:?}");
    }
}
