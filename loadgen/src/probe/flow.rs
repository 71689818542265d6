//! The sending side of one flow: how many packets may leave now.

/// Admission of one flow's data packets: a window of unacknowledged packets, or packets granted by a pacer.
#[derive(Debug)]
pub struct SendFlow {
    /// Sequence number of the next packet, equal to the packets sent.
    next: u64,
    mode: Mode,
}

#[derive(Debug)]
enum Mode {
    /// At most `window` packets beyond `acked`.
    Closed { window: u64, acked: u64 },
    /// `granted` packets may still leave.
    Paced { granted: u64 },
}

impl SendFlow {
    /// Creates a closed-loop flow of at most `window` (at least 1) packets in flight.
    pub fn closed(window: u32) -> Self {
        Self { next: 0, mode: Mode::Closed { window: u64::from(window.max(1)), acked: 0 } }
    }

    /// Creates a flow that sends only what [`SendFlow::grant`] allows.
    pub fn paced() -> Self {
        Self { next: 0, mode: Mode::Paced { granted: 0 } }
    }

    /// Returns how many packets may leave now.
    pub fn allowance(&self) -> u64 {
        match &self.mode {
            Mode::Closed { window, acked } => (acked + window).saturating_sub(self.next),
            Mode::Paced { granted } => *granted,
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
        if let Mode::Paced { granted } = &mut self.mode {
            *granted = granted.saturating_sub(1);
        }
        seq
    }

    /// Takes back the last `packets` sequence numbers: they never left.
    pub fn untake(&mut self, packets: u64) {
        self.next -= packets;
        if let Mode::Paced { granted } = &mut self.mode {
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

    /// Lets a paced flow send `packets` more; at most 64 wait, so that a stalled path does not cause a burst later.
    pub fn grant(&mut self, packets: u64) {
        if let Mode::Paced { granted } = &mut self.mode {
            *granted = (*granted + packets).min(64);
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
        for mut flow in [SendFlow::closed(3), SendFlow::paced()] {
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
        let mut flow = SendFlow::paced();
        assert_eq!(flow.allowance(), 0);
        flow.grant(2);
        assert_eq!(flow.take(), 0);
        assert_eq!(flow.allowance(), 1);
        flow.grant(1_000_000);
        assert_eq!((flow.allowance(), flow.in_flight()), (64, 0));
    }
}
