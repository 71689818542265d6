//! Controlled delay: drops, or marks, what has stood in a queue for too long for too long.
//!
//! Source: RFC 8289 §5, with its parameters for the open Internet (§3.2, §4.3).

use std::time::{Duration, Instant};

/// Standing delay that is acceptable.
const TARGET: Duration = Duration::from_millis(5);

/// How long it may be exceeded: about a worst-case round trip.
const INTERVAL: Duration = Duration::from_millis(100);

/// How long after the last drop its rate is taken up again.
const MEMORY: Duration = Duration::from_millis(1600);

/// The state of one queue.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Codel {
    /// When the delay will have exceeded the target for an interval.
    first_above: Option<Instant>,
    /// When the next packet is to go while dropping; afterwards, when it would have.
    drop_next: Option<Instant>,
    /// Packets dropped since dropping began, and what it began with.
    count: u32,
    last_count: u32,
    dropping: bool,
}

impl Codel {
    /// Whether the packet at the head, which has waited for `sojourn`, is to be dropped or marked. Asked
    /// once per packet that leaves; `last` says that nothing waits behind it.
    pub fn is_congested(&mut self, sojourn: Duration, last: bool, now: Instant) -> bool {
        if !self.stands(sojourn, last, now) {
            self.dropping = false;
            return false;
        }
        if !self.dropping {
            self.begin(now);
            return true;
        }
        let Some(due) = self.drop_next.filter(|&due| due <= now) else { return false };
        self.count = self.count.saturating_add(1);
        self.drop_next = Some(control_law(due, self.count));
        true
    }

    /// Whether the delay has exceeded the target for an interval.
    fn stands(&mut self, sojourn: Duration, last: bool, now: Instant) -> bool {
        if sojourn < TARGET || last {
            self.first_above = None;
            return false;
        }
        now >= *self.first_above.get_or_insert(now + INTERVAL)
    }

    fn begin(&mut self, now: Instant) {
        self.dropping = true;
        let recently = self.drop_next.is_some_and(|last| now.saturating_duration_since(last) < MEMORY);
        let delta = self.count.saturating_sub(self.last_count);
        self.count = if delta > 1 && recently { delta } else { 1 };
        self.last_count = self.count;
        self.drop_next = Some(control_law(now, self.count));
    }
}

/// Drops come closer with the square root of their number, which a TCP flow's rate answers linearly.
fn control_law(from: Instant, count: u32) -> Instant {
    from + INTERVAL.div_f64(f64::from(count.max(1)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Drops among one packet per millisecond of which each waited for `sojourn`.
    fn drops(codel: &mut Codel, sojourn: Duration, from: Instant, ms: u32) -> Vec<u32> {
        (0..ms).filter(|&at| codel.is_congested(sojourn, false, from + MS * at)).collect()
    }

    #[test]
    fn r8289_3_2_delay_within_the_target_or_for_less_than_an_interval_drops_nothing() {
        let (mut codel, start) = (Codel::default(), Instant::now());
        assert!(drops(&mut codel, 4 * MS, start, 1000).is_empty());
        assert!(drops(&mut codel, 50 * MS, start + 1000 * MS, 100).is_empty());
        assert!(drops(&mut codel, 4 * MS, start + 1100 * MS, 1).is_empty());
        assert!(drops(&mut codel, 50 * MS, start + 1101 * MS, 100).is_empty());
    }

    #[test]
    fn r8289_4_3_drops_follow_the_inverse_square_root() {
        let (mut codel, start) = (Codel::default(), Instant::now());
        // 100 after an interval, then after 100, 100/sqrt 2, 100/sqrt 3 and so on.
        assert_eq!(drops(&mut codel, 50 * MS, start, 450), [100, 200, 271, 329, 379, 424]);
    }

    #[test]
    fn r8289_5_2_dropping_resumes_near_its_last_rate() {
        let (mut codel, start) = (Codel::default(), Instant::now());
        drops(&mut codel, 50 * MS, start, 2000);
        assert!(!codel.is_congested(MS, false, start + 2000 * MS));
        let again = drops(&mut codel, 50 * MS, start + 2001 * MS, 200);
        assert!(again.len() > 5, "{again:?}");
        // Long after, it starts from one.
        assert!(!codel.is_congested(MS, false, start + 2300 * MS));
        assert_eq!(drops(&mut codel, 50 * MS, start + 9000 * MS, 200), [100]);
    }

    #[test]
    fn r8289_4_2_the_last_packet_of_a_queue_is_kept() {
        let (mut codel, start) = (Codel::default(), Instant::now());
        for at in 0..500 {
            assert!(!codel.is_congested(50 * MS, true, start + MS * at));
        }
    }
}
