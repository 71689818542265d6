//! The sending side of one flow: how many packets may leave now.

use super::MARK_NONE;

/// What a paced flow may catch up on after a stall: so much time, or so many packets when they are few. More would be a
/// burst that no pacing intends.
const PACED_BACKLOG_NS: u64 = 10_000_000;
const PACED_BACKLOG_MIN: u64 = 4;

/// Packets after which an acknowledgement is due, however large the window, unless [`SendFlow::asking_every`] says otherwise.
const ASK_EVERY_MAX: u64 = 64;

/// Admission of one flow's data packets: a window of unacknowledged packets, or packets granted by a pacer.
#[derive(Debug)]
pub struct SendFlow {
    /// Sequence number of the next packet, equal to the packets sent.
    next: u64,
    mode: Mode,
    /// First sequence number after the last cut.
    cut_at: Option<u64>,
    /// Packets since the last one that asked for an acknowledgement.
    unasked: u64,
    /// As many as there may be.
    ask_every: u64,
}

#[derive(Debug)]
enum Mode {
    /// At most `window` packets beyond `acked`.
    Closed { window: u64, acked: u64 },
    /// `granted` packets may still leave, at most `granted_max`, and `burst` at a time.
    Paced { granted: u64, granted_max: u64, burst: u64 },
}

impl SendFlow {
    /// Creates a closed-loop flow of at most `window` (at least 1) packets in flight.
    pub fn closed(window: u32) -> Self {
        let window = u64::from(window.max(1));
        Self { ask_every: (window / 4).min(ASK_EVERY_MAX), ..Self::new(Mode::Closed { window, acked: 0 }) }
    }

    /// Lets a closed loop ask for an acknowledgement after so many packets, at least each half of a window.
    #[must_use]
    pub fn asking_every(mut self, packets: u32) -> Self {
        if let Mode::Closed { window, .. } = self.mode {
            self.ask_every = u64::from(packets).min(window / 2);
        }
        self
    }

    /// Creates a flow that sends only what [`SendFlow::grant`] allows: one packet each `interval_ns` nanoseconds on average,
    /// in bursts of `burst` (at least 1).
    pub fn paced(interval_ns: u64, burst: u32) -> Self {
        let burst = u64::from(burst.max(1));
        let granted_max = (PACED_BACKLOG_NS / interval_ns.max(1)).max(PACED_BACKLOG_MIN).max(2 * burst);
        Self::new(Mode::Paced { granted: 0, granted_max, burst })
    }

    fn new(mode: Mode) -> Self {
        Self { next: 0, mode, cut_at: None, unasked: 0, ask_every: 0 }
    }

    /// Returns how many packets may leave now.
    pub fn allowance(&self) -> u64 {
        match &self.mode {
            Mode::Closed { window, acked } => (acked + window).saturating_sub(self.next),
            Mode::Paced { granted, burst, .. } => granted - granted % burst,
        }
    }

    /// Returns the packets that wait for an acknowledgement; a paced flow waits for none.
    pub fn in_flight(&self) -> u64 {
        match &self.mode {
            Mode::Closed { acked, .. } => self.next - acked,
            Mode::Paced { .. } => 0,
        }
    }

    /// Takes the next sequence number.
    pub fn take(&mut self) -> u64 {
        let seq = self.next;
        self.next += 1;
        if let Mode::Paced { granted, .. } = &mut self.mode {
            *granted = granted.saturating_sub(1);
        }
        self.unasked += 1;
        seq
    }

    /// Returns whether the packet just taken, the last of a write, should ask for an acknowledgement: the flow stands
    /// still without one, or a quarter of its window, or [`SendFlow::asking_every`], or `share`, if that is less, has left
    /// since the last.
    ///
    /// `share` is what a flow may hold unasked of the packets that all flows together may have in flight: were it all of
    /// them, nobody would be asked and everybody would wait.
    pub fn ask(&mut self, standing: bool, share: u64) -> bool {
        let most = self.ask_every.min(share);
        let ask = match &self.mode {
            Mode::Closed { .. } => standing || self.allowance() == 0 || self.unasked >= most,
            Mode::Paced { .. } => false,
        };
        if ask {
            self.unasked = 0;
        }
        ask
    }

    /// Returns the mark of sequence number `seq`: packets since the cut, [`MARK_NONE`] without one.
    pub fn mark(&self, seq: u64) -> u16 {
        let since = self.cut_at.and_then(|at| u16::try_from(seq.saturating_sub(at)).ok());
        since.unwrap_or(MARK_NONE)
    }

    /// Notes that the connection is cut: what is in flight is gone, and what follows is marked. Returns the packets in
    /// flight.
    pub fn cut(&mut self) -> u64 {
        self.cut_at = Some(self.next);
        self.forget()
    }

    /// Takes back the last `packets` sequence numbers: they never left.
    pub fn untake(&mut self, packets: u64) {
        self.next -= packets;
        if let Mode::Paced { granted, .. } = &mut self.mode {
            *granted += packets;
        }
    }

    /// Notes that everything below `next_seq` has left the path; lost packets do not shrink the window.
    ///
    /// Returns by how many packets the window moved.
    pub fn on_ack(&mut self, next_seq: u64) -> u64 {
        match &mut self.mode {
            Mode::Closed { acked, .. } if next_seq > *acked && next_seq <= self.next => {
                let moved = next_seq - *acked;
                *acked = next_seq;
                moved
            }
            _ => 0,
        }
    }

    /// Stops waiting for what is in flight, because its acknowledgement got lost; returns how many packets that were.
    pub fn forget(&mut self) -> u64 {
        self.on_ack(self.next)
    }

    /// Lets a paced flow send `packets` more; what has waited for longer than a stall of 10 ms is not made up for.
    pub fn grant(&mut self, packets: u64) {
        if let Mode::Paced { granted, granted_max, .. } = &mut self.mode {
            *granted = (*granted + packets).min(*granted_max);
        }
    }

    /// Returns the packets sent so far.
    pub fn sent(&self) -> u64 {
        self.next
    }

    /// Returns whether the flow runs on acknowledgements.
    pub fn is_closed_loop(&self) -> bool {
        matches!(self.mode, Mode::Closed { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_loop_stops_at_the_window_and_goes_on_with_the_ack() {
        let mut flow = SendFlow::closed(4);
        for seq in 0..4 {
            assert_eq!(flow.take(), seq);
        }
        assert_eq!((flow.allowance(), flow.in_flight()), (0, 4));
        assert_eq!(flow.on_ack(2), 2);
        assert_eq!(flow.allowance(), 2);
        assert_eq!(flow.on_ack(1), 0, "an old acknowledgement changes nothing");
        assert_eq!(flow.on_ack(99), 0, "nor does one for packets never sent");
        assert_eq!(flow.allowance(), 2);
    }

    #[test]
    fn a_stalled_window_opens_again() {
        let mut flow = SendFlow::closed(2);
        flow.take();
        flow.take();
        assert_eq!(flow.forget(), 2);
        assert_eq!((flow.allowance(), flow.sent()), (2, 2));
        assert_eq!(flow.on_ack(1), 0, "the late acknowledgement frees nothing twice");
    }

    #[test]
    fn what_never_left_is_taken_back() {
        for mut flow in [SendFlow::closed(3), SendFlow::paced(1, 1)] {
            flow.grant(3);
            for _ in 0..3 {
                flow.take();
            }
            flow.untake(2);
            assert_eq!((flow.sent(), flow.allowance()), (1, 2));
            assert_eq!(flow.take(), 1);
        }
    }

    #[test]
    fn paced_flow_sends_what_was_granted_and_hoards_little() {
        let mut flow = SendFlow::paced(100_000, 1);
        assert_eq!(flow.allowance(), 0);
        flow.grant(2);
        assert_eq!(flow.take(), 0);
        assert_eq!(flow.allowance(), 1);
        flow.grant(1_000_000);
        assert_eq!((flow.allowance(), flow.in_flight()), (100, 0), "10 ms of 10,000 packets/s");
    }

    #[test]
    fn bursts_leave_whole() {
        let mut flow = SendFlow::paced(100_000, 4);
        let allowed: Vec<u64> = (0..8)
            .map(|_| {
                flow.grant(1);
                flow.allowance()
            })
            .collect();
        assert_eq!(allowed, [0, 0, 0, 4, 4, 4, 4, 8]);
    }

    #[test]
    fn after_a_cut_nothing_is_in_flight_and_packets_are_marked() {
        let mut flow = SendFlow::closed(8);
        for _ in 0..5 {
            assert_eq!(flow.mark(flow.sent()), MARK_NONE);
            flow.take();
        }
        assert_eq!(flow.cut(), 5);
        assert_eq!(flow.allowance(), 8);
        assert_eq!((flow.mark(5), flow.mark(7), flow.mark(5 + 65_535)), (0, 2, MARK_NONE));
    }

    #[test]
    fn acknowledgements_are_asked_for_by_quarters_and_before_standing_still() {
        let mut flow = SendFlow::closed(8);
        let asked: Vec<bool> = (0..8)
            .map(|_| {
                flow.take();
                flow.ask(false, u64::MAX)
            })
            .collect();
        assert_eq!(asked, [false, true, false, true, false, true, false, true]);
        flow.on_ack(8);
        flow.take();
        assert!(flow.ask(true, u64::MAX), "nothing else may leave");
    }
}
