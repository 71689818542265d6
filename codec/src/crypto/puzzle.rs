//! Client puzzles (RFC 8019 §7): four keys under which the PRF of a cookie ends in enough zero bits.

use super::algorithm::Prf;
use crate::ike::PrfId;

/// Keys of a solution.
const KEYS: usize = 4;

/// Tries for one key before [`Puzzle::solve`] gives up: far beyond what 24 bits need.
const TRIES_MAX: u32 = 1 << 30;

/// What a PUZZLE notification asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Puzzle {
    /// The function to be used.
    pub prf: Prf,
    /// Zero bits at the end of each of the four results; 0 leaves it to the solver.
    pub bits: u8,
}

impl Puzzle {
    /// Reads the notification's data: PRF (u16), difficulty (u8). `None` for another length or an unknown PRF.
    pub fn from_data(data: &[u8]) -> Option<Self> {
        let &[high, low, bits] = data else { return None };
        Some(Self { prf: Prf::from_id(PrfId(u16::from_be_bytes([high, low])))?, bits })
    }

    /// The notification's data.
    pub fn to_data(self) -> [u8; 3] {
        let [high, low] = self.prf.id().0.to_be_bytes();
        [high, low, self.bits]
    }

    /// Whether `solution`, the body of a Puzzle Solution payload, solves this puzzle for `cookie`: four different keys
    /// of one length, none longer than twice the PRF's preferred key. Costs at most four PRF computations.
    ///
    /// Source: RFC 8019 §7.1.2, §8.2.
    pub fn is_solved(self, cookie: &[u8], solution: &[u8]) -> bool {
        let key_len = solution.len() / KEYS;
        if !solution.len().is_multiple_of(KEYS) || key_len == 0 || key_len > 2 * self.prf.output_len() {
            return false;
        }
        let keys = || solution.chunks_exact(key_len);
        let distinct = keys().enumerate().all(|(at, key)| keys().skip(at + 1).all(|other| other != key));
        distinct && keys().all(|key| self.zero_bits(key, cookie) >= u32::from(self.bits))
    }

    /// Finds the four keys, each of four octets; `None` when the puzzle is too hard. Takes about 2^(bits + 2) PRF
    /// computations.
    pub fn solve(self, cookie: &[u8]) -> Option<Vec<u8>> {
        let good = |key: &[u8; 4]| self.zero_bits(key, cookie) >= u32::from(self.bits);
        let keys: Vec<[u8; 4]> = (0..TRIES_MAX).map(u32::to_be_bytes).filter(good).take(KEYS).collect();
        (keys.len() == KEYS).then(|| keys.concat())
    }

    /// Zero bits at the end of prf(key, cookie).
    fn zero_bits(self, key: &[u8], cookie: &[u8]) -> u32 {
        let result = self.prf.compute(key, &[cookie]);
        let mut bits = 0;
        for octet in result.as_bytes().iter().rev() {
            bits += octet.trailing_zeros().min(8);
            if *octet != 0 {
                break;
            }
        }
        bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r8019_7_1_2_a_solution_has_four_different_keys_of_one_length_that_all_count() {
        let puzzle = Puzzle { prf: Prf::HmacSha2_256, bits: 6 };
        let solution = puzzle.solve(b"cookie").expect("easy");
        assert!(puzzle.is_solved(b"cookie", &solution));
        assert!(!puzzle.is_solved(b"kookie", &solution));
        assert!(!Puzzle { bits: 40, ..puzzle }.is_solved(b"cookie", &solution));
        let same = solution[..4].repeat(4);
        assert!(!puzzle.is_solved(b"cookie", &same), "one key four times");
        let mut one_wrong = solution.clone();
        one_wrong[15] ^= 1;
        let wrong = puzzle.zero_bits(&one_wrong[12..], b"cookie") < 6;
        assert_eq!(puzzle.is_solved(b"cookie", &one_wrong), !wrong);
        for len in [0, 3, 4, 12, 15] {
            assert!(!puzzle.is_solved(b"cookie", &solution[..len]), "{len} octets");
        }
        assert!(!puzzle.is_solved(b"cookie", &vec![0; 4 * (2 * 32 + 1)]), "keys of bounded length");
    }

    #[test]
    fn r8019_8_1_the_notification_names_prf_and_difficulty() {
        let puzzle = Puzzle { prf: Prf::HmacSha2_512, bits: 17 };
        assert_eq!(puzzle.to_data(), [0, 7, 17]);
        assert_eq!(Puzzle::from_data(&[0, 7, 17]), Some(puzzle));
        for bad in [&[][..], &[0, 7], &[0, 7, 17, 0], &[0, 99, 17]] {
            assert_eq!(Puzzle::from_data(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn r8019_7_1_2_bits_are_counted_from_the_end() {
        let prf = Prf::HmacSha2_256;
        for key in 0..64_u8 {
            let result = prf.compute(&[key], &[b"cookie"]);
            let last = result.as_bytes()[31];
            let counted = Puzzle { prf, bits: 0 }.zero_bits(&[key], b"cookie");
            assert_eq!(counted.min(8), last.trailing_zeros().min(8));
        }
    }
}
