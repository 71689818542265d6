//! Which length the next inner packet has.

use std::str::FromStr;

/// Longest inner packet a plan asks for: the gateway's inner MTU.
const PACKET_LEN_MAX: usize = 1400;
/// IPv6 + UDP + probe header.
const PACKET_LEN_MIN: usize = 40 + 8 + super::PROBE_HEADER_LEN;
/// Simple IMIX: 7 small, 4 middle, 1 large of twelve, spread evenly.
const IMIX: [usize; 12] = [84, 576, 84, 84, 576, 84, 1400, 84, 576, 84, 576, 84];

/// The sequence of inner IP packet lengths of a run, in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizePlan {
    /// Every packet has this length (84 to 1400).
    Fixed(u16),
    /// Simple IMIX by packet count: 7 x 84, 4 x 576, 1 x 1400 octets.
    Imix,
    /// 160 octets: one voice frame and its headers.
    Voice,
}

impl SizePlan {
    /// Returns the inner packet length for sequence number `seq`.
    pub fn len(&self, seq: u64) -> usize {
        match self {
            Self::Fixed(len) => usize::from(*len),
            Self::Imix => IMIX[(seq % IMIX.len() as u64) as usize],
            Self::Voice => 160,
        }
    }

    /// Returns the mean inner packet length.
    pub fn mean_len(&self) -> f64 {
        match self {
            Self::Imix => IMIX.iter().sum::<usize>() as f64 / IMIX.len() as f64,
            fixed => fixed.len(0) as f64,
        }
    }

    /// Returns the longest inner packet length.
    pub fn len_max(&self) -> usize {
        match self {
            Self::Imix => PACKET_LEN_MAX,
            fixed => fixed.len(0),
        }
    }

    /// Returns whether all packets have one length, so that they can leave as segments of one datagram burst.
    pub fn is_uniform(&self) -> bool {
        !matches!(self, Self::Imix)
    }

    /// Returns the number that stands for the plan on the wire: 0 IMIX, 1 voice, else the length.
    pub fn code(&self) -> u16 {
        match self {
            Self::Imix => 0,
            Self::Voice => 1,
            Self::Fixed(len) => *len,
        }
    }

    /// Reads [`SizePlan::code`].
    pub fn from_code(code: u16) -> Option<Self> {
        match code {
            0 => Some(Self::Imix),
            1 => Some(Self::Voice),
            len if (PACKET_LEN_MIN..=PACKET_LEN_MAX).contains(&usize::from(len)) => Some(Self::Fixed(len)),
            _ => None,
        }
    }
}

impl FromStr for SizePlan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "imix" => Ok(Self::Imix),
            "voice" => Ok(Self::Voice),
            number => number
                .parse::<u16>()
                .ok()
                .filter(|len| *len > 1)
                .and_then(Self::from_code)
                .ok_or_else(|| format!("a length of {PACKET_LEN_MIN} to {PACKET_LEN_MAX}, imix or voice")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_lengths_and_codes() {
        for text in ["1400", "84", "imix", "voice"] {
            let plan: SizePlan = text.parse().unwrap();
            assert_eq!(SizePlan::from_code(plan.code()), Some(plan));
            assert!((0..24).all(|seq| (PACKET_LEN_MIN..=PACKET_LEN_MAX).contains(&plan.len(seq))));
        }
        for text in ["0", "1", "83", "1401", "big"] {
            assert!(text.parse::<SizePlan>().is_err(), "{text}");
        }
    }

    #[test]
    fn imix_is_seven_to_four_to_one() {
        let count = |len| IMIX.iter().filter(|entry| **entry == len).count();
        assert_eq!((count(84), count(576), count(1400)), (7, 4, 1));
    }
}
