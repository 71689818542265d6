//! How much of a closed loop may be under way: what the path delivers in its own round-trip time and a little more.
//!
//! A gateway that manages its queues drops what stands in them for long (CoDel: 5 ms). A closed loop that filled every
//! queue it found would measure these drops. This one lets a queue of [`STANDING_NS`] stand, enough for the gateway to find
//! full batches, and no more, however fast or slow the path is.

/// Queueing delay aimed at.
const STANDING_NS: u64 = 2_500_000;
/// How often the rate is taken.
const INTERVAL_NS: u64 = 10_000_000;
/// Packets that may always be under way, and those of the beginning.
const LIMIT_MIN: u64 = 64;
const LIMIT_START: u64 = 256;

/// Packets in flight of all closed-loop flows of a run.
pub(super) struct InFlight {
    now: u64,
    /// Bound given by the asking side: what the queues on the way hold; 0 for none.
    most: u64,
    limit: u64,
    flows: u64,
    /// Delivered since `since_ns`.
    delivered: u64,
    since_ns: u64,
    rtt_min_ns: u64,
}

impl InFlight {
    pub(super) fn new(most: u64) -> Self {
        Self { now: 0, most, limit: LIMIT_START, flows: 0, delivered: 0, since_ns: 0, rtt_min_ns: u64::MAX }
    }

    /// Returns how many packets may leave now.
    pub(super) fn room(&self) -> u64 {
        match self.most {
            0 => u64::MAX,
            most => self.limit.min(most).saturating_sub(self.now),
        }
    }

    /// Notes that there is one flow more.
    pub(super) fn add_flow(&mut self) {
        self.flows += 1;
    }

    /// Returns how many packets a flow may have in flight without asking for an acknowledgement: all flows together half of
    /// what there may be, since that may become less.
    pub(super) fn share(&self) -> u64 {
        match self.most {
            0 => u64::MAX,
            most => (self.limit.min(most) / (2 * self.flows.max(1))).max(1),
        }
    }

    /// Notes that packets have left.
    pub(super) fn occupy(&mut self, packets: u64) {
        self.now += packets;
    }

    /// Notes that packets are off the path.
    pub(super) fn release(&mut self, packets: u64) {
        self.now -= packets;
    }

    /// Notes an acknowledgement for `packets`, asked for by one that was sent at `asked_ns` (0: not known).
    pub(super) fn on_ack(&mut self, now_ns: u64, packets: u64, asked_ns: u64) {
        self.release(packets);
        self.delivered += packets;
        if asked_ns > 0 && packets > 0 {
            self.rtt_min_ns = self.rtt_min_ns.min(now_ns.saturating_sub(asked_ns));
        }
        let span_ns = now_ns.saturating_sub(self.since_ns);
        if span_ns >= INTERVAL_NS {
            // A flow that has just begun has no rate yet.
            if self.since_ns > 0 && self.rtt_min_ns < u64::MAX {
                let aim = u128::from(self.delivered) * u128::from(self.rtt_min_ns + STANDING_NS)
                    / u128::from(span_ns);
                self.limit = ((self.limit + aim as u64) / 2).max(LIMIT_MIN);
            }
            (self.delivered, self.since_ns) = (0, now_ns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT_NS: u64 = 200_000;

    /// Lets a path that delivers `per_ms` packets per millisecond run for a second; returns the packets under way.
    fn settled(per_ms: u64, most: u64) -> u64 {
        let mut in_flight = InFlight::new(most);
        for ms in 1..1_000_u64 {
            let now_ns = ms * 1_000_000;
            in_flight.occupy(in_flight.room());
            let queued_ns = in_flight.now * 1_000_000 / per_ms;
            let asked_ns = now_ns - queued_ns.max(RTT_NS).min(now_ns - 1);
            in_flight.on_ack(now_ns, per_ms.min(in_flight.now), asked_ns);
        }
        in_flight.occupy(in_flight.room());
        in_flight.now
    }

    #[test]
    fn what_is_under_way_follows_the_rate() {
        let slow = settled(40, 100_000);
        let fast = settled(800, 100_000);
        assert!((LIMIT_MIN..=40 * 5).contains(&slow), "{slow}");
        assert!((800 * 2..=800 * 5).contains(&fast), "{fast}");
    }

    #[test]
    fn the_bound_of_the_asking_side_holds() {
        assert_eq!(settled(800, 440), 440);
        assert_eq!(InFlight::new(0).room(), u64::MAX);
    }
}
