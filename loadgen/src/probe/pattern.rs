//! The known octets that fill a probe, with their Internet checksums precomputed.

/// Octets between the starting points of two consecutive sequence numbers; even, so that checksum words stay aligned.
const STRIDE: usize = 62;
/// Number of distinct starting points; a power of two.
const PHASES: usize = 256;
/// Longest stretch of pattern that one probe carries, in octets.
pub const PATTERN_LEN_MAX: usize = 9216;

/// A fixed pseudo-random table; a probe with sequence number `n` carries the stretch that starts at phase `n % 256`.
///
/// Two neighbouring sequence numbers never carry the same octets, so a receiver that compares the stretch notices swapped
/// payloads as well as flipped bits. Prefix sums make the UDP checksum of a stretch a subtraction.
pub struct Pattern {
    octets: Vec<u8>,
    /// `sums[i]` is the plain sum of the first `i` big-endian 16-bit words.
    sums: Vec<u64>,
}

impl Pattern {
    /// Builds the table; every process builds the same one.
    pub fn new() -> Self {
        let len = STRIDE * PHASES + PATTERN_LEN_MAX;
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let octets: Vec<u8> = (0..len)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32) as u8
            })
            .collect();
        let mut sums = Vec::with_capacity(len / 2 + 1);
        let mut sum = 0_u64;
        sums.push(sum);
        for word in octets.chunks_exact(2) {
            sum += u64::from(u16::from_be_bytes([word[0], word[1]]));
            sums.push(sum);
        }
        Self { octets, sums }
    }

    /// Returns the `len` octets that the probe with sequence number `seq` carries.
    ///
    /// # Panics
    /// If `len` exceeds [`PATTERN_LEN_MAX`].
    pub fn stretch(&self, seq: u64, len: usize) -> &[u8] {
        let at = start(seq);
        &self.octets[at..at + len]
    }

    /// Returns whether `octets` are exactly what sequence number `seq` should carry.
    pub fn matches(&self, seq: u64, octets: &[u8]) -> bool {
        octets.len() <= PATTERN_LEN_MAX && self.stretch(seq, octets.len()) == octets
    }

    /// Returns the sum of the 16-bit words of a stretch, an odd last octet padded with zero, for an Internet checksum.
    pub fn word_sum(&self, seq: u64, len: usize) -> u64 {
        let at = start(seq);
        let words = self.sums[(at + len) / 2] - self.sums[at / 2];
        let tail = if len % 2 == 1 { u64::from(self.octets[at + len - 1]) << 8 } else { 0 };
        words + tail
    }
}

impl Default for Pattern {
    fn default() -> Self {
        Self::new()
    }
}

fn start(seq: u64) -> usize {
    (seq as usize % PHASES) * STRIDE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_differ_and_match_only_their_own_sequence_number() {
        let pattern = Pattern::new();
        for seq in 0..600 {
            let octets = pattern.stretch(seq, 32).to_vec();
            assert!(pattern.matches(seq, &octets));
            assert!(!pattern.matches(seq + 1, &octets));
        }
    }

    #[test]
    fn one_flipped_bit_anywhere_is_seen() {
        let pattern = Pattern::new();
        let mut octets = pattern.stretch(7, 1336).to_vec();
        for at in 0..octets.len() {
            octets[at] ^= 0x10;
            assert!(!pattern.matches(7, &octets), "octet {at}");
            octets[at] ^= 0x10;
        }
    }

    #[test]
    fn word_sum_equals_the_sum_done_by_hand() {
        let pattern = Pattern::new();
        for (seq, len) in [(0, 0), (1, 1), (255, 1336), (256, 33), (12_345, PATTERN_LEN_MAX)] {
            let by_hand: u64 = pattern
                .stretch(seq, len)
                .chunks(2)
                .map(|word| u64::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)])))
                .sum();
            assert_eq!(pattern.word_sum(seq, len), by_hand, "seq {seq} len {len}");
        }
    }
}
