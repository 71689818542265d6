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
