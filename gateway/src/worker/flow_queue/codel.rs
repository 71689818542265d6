//! Controlled delay: drops, or marks, what has stood in a queue for too long for too long.
//!
//! Source: RFC 8289 §5, with its parameters for the open Internet (§3.2, §4.3) unless the round trip is known.

use std::time::{Duration, Instant};

/// How long the target may be exceeded where the path is not known: about a worst-case round trip.
const INTERVAL: Duration = Duration::from_millis(100);

/// The target's part of it: five to ten per cent, says RFC 8289.
const TARGET_SHARE: u32 = 20;

/// What a round trip has besides that of the outer connection: the way behind the gateway, and queues.
const BEYOND: Duration = Duration::from_millis(50);

/// Round trips that an interval is long, so that one that TCP below spends on a gap passes for no queue.
const ROUND_TRIPS: u32 = 2;

/// What is a standing queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delay {
    /// Standing delay that is acceptable.
    target: Duration,
    /// How long it may be exceeded.
    interval: Duration,
}

impl Default for Delay {
    fn default() -> Self {
        Self::within(INTERVAL)
    }
}

impl Delay {
    fn within(interval: Duration) -> Self {
        Self { target: interval / TARGET_SHARE, interval }
    }

    /// What is a standing queue above a connection of such a round trip.
    pub fn above(round_trip: Duration) -> Self {
        Self::within(INTERVAL.max((round_trip + BEYOND) * ROUND_TRIPS))
    }
}

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
    pub fn is_congested(&mut self, sojourn: Duration, delay: Delay, last: bool, now: Instant) -> bool {
        if !self.stands(sojourn, delay, last, now) {
            self.dropping = false;
            return false;
        }
        if !self.dropping {
            self.begin(delay, now);
            return true;
        }
        let Some(due) = self.drop_next.filter(|&due| due <= now) else { return false };
        self.count = self.count.saturating_add(1);
        self.drop_next = Some(control_law(due, delay, self.count));
        true
    }

    /// Whether the delay has exceeded the target for an interval.
    fn stands(&mut self, sojourn: Duration, delay: Delay, last: bool, now: Instant) -> bool {
        if sojourn < delay.target || last {
            self.first_above = None;
            return false;
        }
        now >= *self.first_above.get_or_insert(now + delay.interval)
    }

    fn begin(&mut self, delay: Delay, now: Instant) {
        self.dropping = true;
        let recently = self.drop_next.is_some_and(|last| now.saturating_duration_since(last) < MEMORY);
        let delta = self.count.saturating_sub(self.last_count);
        self.count = if delta > 1 && recently { delta } else { 1 };
        self.last_count = self.count;
        self.drop_next = Some(control_law(now, delay, self.count));
    }
}

/// Drops come closer with the square root of their number, which a TCP flow's rate answers linearly.
fn control_law(from: Instant, delay: Delay, count: u32) -> Instant {
    from + delay.interval.div_f64(f64::from(count.max(1)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Drops among one packet per millisecond of which each waited for `sojourn`.
    fn drops(codel: &mut Codel, sojourn: Duration, from: Instant, ms: u32) -> Vec<u32> {
        (0..ms).filter(|&at| codel.is_congested(sojourn, Delay::default(), false, from + MS * at)).collect()
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
        assert!(!codel.is_congested(MS, Delay::default(), false, start + 2000 * MS));
        let again = drops(&mut codel, 50 * MS, start + 2001 * MS, 200);
        assert!(again.len() > 5, "{again:?}");
        // Long after, it starts from one.
        assert!(!codel.is_congested(MS, Delay::default(), false, start + 2300 * MS));
        assert_eq!(drops(&mut codel, 50 * MS, start + 9000 * MS, 200), [100]);
    }

    #[test]
    fn r8289_4_2_the_last_packet_of_a_queue_is_kept() {
        let (mut codel, start) = (Codel::default(), Instant::now());
        for at in 0..500 {
            assert!(!codel.is_congested(50 * MS, Delay::default(), true, start + MS * at));
        }
    }

    #[test]
    fn the_interval_follows_the_round_trip() {
        assert_eq!(Delay::default(), Delay { target: 5 * MS, interval: 100 * MS });
        assert_eq!(Delay::above(Duration::ZERO), Delay::default());
        let delay = Delay::above(150 * MS);
        assert_eq!(delay, Delay { target: 20 * MS, interval: 400 * MS });
        let (mut codel, start) = (Codel::default(), Instant::now());
        let mut drops = (0..500).filter(|&at| codel.is_congested(50 * MS, delay, false, start + MS * at));
        assert_eq!(drops.next(), Some(400));
        let mut codel = Codel::default();
        assert!((0..500).all(|at| !codel.is_congested(19 * MS, delay, false, start + MS * at)));
    }
}
