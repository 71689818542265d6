//! The anti-replay window of one inbound SA.

/// Smallest window (RFC 4303 §3.4.3 demands it).
pub const REPLAY_WINDOW_MIN: u32 = 32;

/// Window unless configured: more than RFC 4303 asks for, because two connections may carry one SA.
pub const REPLAY_WINDOW_DEFAULT: u32 = 128;

/// Largest window.
pub const REPLAY_WINDOW_MAX: u32 = 4096;

const WORD_BITS: u32 = u64::BITS;

/// Which sequence numbers were seen, up to and including the right edge.
///
/// ```text
///        left of the window  |<------ size ------>|  new
///  ...............................................|.............
///                                             right_edge
/// ```
///
/// The bitmap is a ring of words with one word more than the window needs, so that moving the edge clears
/// whole words. Sequence numbers are 64-bit throughout; [`Self::infer`] restores the half that is not sent.
///
/// Source: RFC 4303 §3.4.3, Appendix A2.
pub struct ReplayWindow {
    /// Highest authenticated sequence number; 0 before the first packet.
    right_edge: u64,
    /// Width in packets.
    size: u32,
    /// A power of two of words.
    seen: Box<[u64]>,
}

/// Why a sequence number is not acceptable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplayError {
    /// Seen before.
    Replayed,
    /// Left of the window, or zero, which no sender uses.
    LeftOfWindow,
}

impl ReplayWindow {
    /// An empty window of `size` packets, brought into [`REPLAY_WINDOW_MIN`]..=[`REPLAY_WINDOW_MAX`].
    pub fn new(size: u32) -> Self {
        let size = size.clamp(REPLAY_WINDOW_MIN, REPLAY_WINDOW_MAX);
        let words = (size.div_ceil(WORD_BITS) + 1).next_power_of_two();
        Self { right_edge: 0, size, seen: vec![0; words as usize].into() }
    }

    /// Octets of the bitmap.
    #[cfg(test)]
    pub(super) fn heap_len(&self) -> usize {
        size_of_val(&*self.seen)
    }

    /// The highest sequence number recorded.
    pub fn right_edge(&self) -> u64 {
        self.right_edge
    }

    /// The 64-bit sequence number that a packet with these low bits most likely has, under ESN.
    ///
    /// The low half lies in the window's own subspace when it is not left of the window there; otherwise it
    /// has wrapped into the next one. A window that reaches back over a subspace boundary takes low halves
    /// right of its left edge for the previous subspace.
    ///
    /// # Errors
    /// [`ReplayError::LeftOfWindow`] when the number would lie before the first or beyond the last subspace.
    ///
    /// Source: RFC 4303 Appendix A2.2.
    pub fn infer(&self, low: u32) -> Result<u64, ReplayError> {
        let (edge_high, edge_low) = ((self.right_edge >> 32) as u32, self.right_edge as u32);
        let left_low = edge_low.wrapping_sub(self.size - 1);
        let window_in_one_subspace = edge_low >= self.size - 1;
        let high = match (window_in_one_subspace, low >= left_low) {
            (true, true) | (false, false) => Some(edge_high),
            (true, false) => edge_high.checked_add(1),
            (false, true) => edge_high.checked_sub(1),
        };
        high.map(|high| u64::from(high) << 32 | u64::from(low)).ok_or(ReplayError::LeftOfWindow)
    }

    /// Tells whether `sequence`, as inferred, is half a subspace ahead of the edge or more: then it is an old
    /// packet far left of the window whose high half cannot be known, rather than a new one.
    pub fn is_improbable(&self, sequence: u64) -> bool {
        sequence.saturating_sub(self.right_edge) >= 1 << 31
    }

    /// Tells whether `sequence` may be accepted. Changes nothing.
    ///
    /// # Errors
    /// [`ReplayError`] when the packet must be dropped without looking at its ICV.
    pub fn check(&self, sequence: u64) -> Result<(), ReplayError> {
        if sequence == 0 {
            return Err(ReplayError::LeftOfWindow);
        }
        if sequence > self.right_edge {
            return Ok(());
        }
        if self.right_edge - sequence >= u64::from(self.size) {
            return Err(ReplayError::LeftOfWindow);
        }
        let (word, bit) = self.place(sequence);
        if self.seen[word] & bit == 0 { Ok(()) } else { Err(ReplayError::Replayed) }
    }

    /// Records `sequence` and moves the edge to it when it is higher. Only for packets whose ICV verified
    /// and that passed [`Self::check`].
    pub fn advance(&mut self, sequence: u64) {
        if sequence > self.right_edge {
            let words_ahead = sequence / u64::from(WORD_BITS) - self.right_edge / u64::from(WORD_BITS);
            let first = self.right_edge / u64::from(WORD_BITS) + 1;
            for word in first..first + words_ahead.min(self.seen.len() as u64) {
                let index = word as usize & (self.seen.len() - 1);
                self.seen[index] = 0;
            }
            self.right_edge = sequence;
        }
        let (word, bit) = self.place(sequence);
        self.seen[word] |= bit;
    }

    /// Where the ring keeps `sequence`: index of the word, mask of the bit.
    fn place(&self, sequence: u64) -> (usize, u64) {
        let word = (sequence / u64::from(WORD_BITS)) as usize & (self.seen.len() - 1);
        (word, 1 << (sequence % u64::from(WORD_BITS)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// The window by its definition: remember everything.
    struct Model {
        right_edge: u64,
        size: u32,
        seen: HashSet<u64>,
    }

    impl Model {
        fn check(&self, sequence: u64) -> Result<(), ReplayError> {
            if sequence == 0 || self.right_edge.saturating_sub(sequence) >= u64::from(self.size) {
                return Err(ReplayError::LeftOfWindow);
            }
            if self.seen.contains(&sequence) { Err(ReplayError::Replayed) } else { Ok(()) }
        }

        fn advance(&mut self, sequence: u64) {
            self.seen.insert(sequence);
            self.right_edge = self.right_edge.max(sequence);
        }
    }

    fn at(size: u32, right_edge: u64) -> ReplayWindow {
        let mut window = ReplayWindow::new(size);
        window.advance(right_edge);
        window
    }

    #[test]
    fn r4303_3_4_3_duplicates_and_the_left_are_refused() {
        let mut window = ReplayWindow::new(64);
        assert_eq!(window.check(0), Err(ReplayError::LeftOfWindow), "no sender uses zero");
        for sequence in [1, 100, 40, 99, 37] {
            assert_eq!(window.check(sequence), Ok(()), "{sequence}");
            window.advance(sequence);
            assert_eq!(window.check(sequence), Err(ReplayError::Replayed), "{sequence}");
        }
        assert_eq!(window.right_edge(), 100);
        assert_eq!(window.check(37 - 1), Err(ReplayError::LeftOfWindow));
        assert_eq!(window.check(38), Ok(()));
    }

    #[test]
    fn r4303_3_4_3_checking_changes_nothing() {
        let window = at(32, 50);
        for _ in 0..2 {
            assert_eq!(window.check(60), Ok(()));
            assert_eq!(window.check(49), Ok(()));
            assert_eq!(window.right_edge(), 50);
        }
    }

    #[test]
    fn r4303_3_4_3_sizes_are_exact_from_32_to_4096() {
        for (asked, size) in
            [(0, 32), (32, 32), (33, 33), (64, 64), (128, 128), (1000, 1000), (u32::MAX, 4096)]
        {
            let window = at(asked, 10_000);
            assert_eq!(window.check(10_001 - size), Ok(()), "last inside of {asked}");
            assert_eq!(
                window.check(10_000 - size),
                Err(ReplayError::LeftOfWindow),
                "first outside of {asked}"
            );
        }
    }

    #[test]
    fn a_far_jump_forgets_the_whole_bitmap() {
        let mut window = ReplayWindow::new(128);
        (1..=500).for_each(|sequence| window.advance(sequence));
        for edge in [1_000_000, u64::from(u32::MAX), 1 << 40, u64::MAX] {
            window.advance(edge);
            assert!((1..128).all(|back| window.check(edge - back).is_ok()), "edge {edge}");
            assert_eq!(window.check(edge), Err(ReplayError::Replayed));
        }
    }

    #[test]
    fn r4303_a2_2_high_half_around_the_boundary() {
        const BOUNDARY: u64 = 1 << 32;
        // The whole window in one subspace: low halves left of it belong to the next one.
        assert_eq!(at(64, 1000).infer(937), Ok(937));
        assert_eq!(at(64, 1000).infer(936), Ok(BOUNDARY + 936));
        assert_eq!(at(64, BOUNDARY - 1).infer(0), Ok(BOUNDARY));
        // The window reaches back over the boundary: high low-halves belong to the previous subspace.
        assert_eq!(at(64, BOUNDARY + 5).infer(u32::MAX), Ok(BOUNDARY - 1));
        assert_eq!(at(64, BOUNDARY + 5).infer(6), Ok(BOUNDARY + 6));
        assert_eq!(at(64, BOUNDARY + 5).infer(u32::MAX - 57), Ok(BOUNDARY - 58), "left edge");
        assert_eq!(at(64, BOUNDARY + 5).infer(u32::MAX - 58), Ok(2 * BOUNDARY - 59), "beyond it: new");
        // No subspace before the first or behind the last.
        assert_eq!(ReplayWindow::new(64).infer(u32::MAX), Err(ReplayError::LeftOfWindow));
        assert_eq!(at(64, u64::MAX).infer(5), Err(ReplayError::LeftOfWindow));
        assert_eq!(ReplayWindow::new(64).infer(1), Ok(1));
    }

    proptest! {
        #[test]
        fn r4303_3_4_3_equals_the_naive_model(
            size in 32u32..=4096,
            start in prop_oneof![Just(0u64), Just((1u64 << 32) - 200), Just(u64::MAX - 20_000)],
            steps in prop::collection::vec((any::<bool>(), 0u64..6000), 1..400),
        ) {
            let mut window = ReplayWindow::new(size);
            let mut model = Model { right_edge: 0, size, seen: HashSet::new() };
            for (back, distance) in steps {
                let edge = model.right_edge.max(start);
                let distance = if back { distance } else { distance % 90 };
                let sequence =
                    if back { edge.saturating_sub(distance) } else { edge.saturating_add(distance) };
                prop_assert_eq!(window.check(sequence), model.check(sequence), "sequence {}", sequence);
                if model.check(sequence).is_ok() {
                    window.advance(sequence);
                    model.advance(sequence);
                }
                prop_assert_eq!(window.right_edge(), model.right_edge);
            }
        }

        /// Whatever the window could accept and whatever is less than a subspace ahead is inferred right.
        #[test]
        fn r4303_a2_2_inference_restores_the_sent_number(
            size in 32u32..=4096,
            edge in prop_oneof![1u64..1 << 34, (1u64 << 32) - 5000..(1 << 32) + 5000],
            back in 0u64..4096,
            ahead in prop_oneof![0u64..10_000, 0..(1u64 << 32) - 4096],
        ) {
            let window = at(size, edge);
            let behind = edge.saturating_sub(back % u64::from(size)).max(1);
            prop_assert_eq!(window.infer(behind as u32), Ok(behind));
            let next = edge + ahead;
            prop_assert_eq!(window.infer(next as u32), Ok(next));
        }
    }
}
