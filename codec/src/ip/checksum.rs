//! The internet checksum (RFC 1071, RFC 1624).

use core::net::IpAddr;

use codec_native::checksum;

/// A running ones' complement sum over 16-bit words.
///
/// Every part but the last must have an even number of octets.
#[derive(Clone, Copy, Default, Debug)]
pub struct Checksum(u64);

impl Checksum {
    /// The sum of nothing.
    pub fn new() -> Self {
        Self(0)
    }

    /// Adds `octets`; an odd last octet counts as the high half of a word.
    #[must_use]
    pub fn with(self, octets: &[u8]) -> Self {
        Self(self.0 + u64::from(checksum::fold(checksum::sum(octets, 0))))
    }

    /// Adds a number, as the 16-bit word of that value.
    #[must_use]
    pub fn with_word(self, word: u16) -> Self {
        Self(self.0 + u64::from(word))
    }

    /// Adds the pseudo header of an upper-layer protocol (RFC 9293 §3.1, RFC 8200 §8.1).
    #[must_use]
    pub fn with_pseudo_header(self, src: IpAddr, dst: IpAddr, protocol: u8, len: u32) -> Self {
        let addresses = match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.with(&src.octets()).with(&dst.octets()),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.with(&src.octets()).with(&dst.octets()),
            _ => self,
        };
        Self(addresses.0 + u64::from(protocol)).with(&len.to_be_bytes())
    }

    /// The folded sum, not complemented: what a partial checksum field holds.
    pub fn partial(self) -> u16 {
        fold(self.0)
    }

    /// The checksum field's value.
    pub fn finish(self) -> u16 {
        !self.partial()
    }
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The checksum after a 16-bit word it covers changed from `old` to `new`.
///
/// Source: RFC 1624 §3, equation 3.
pub fn update_checksum(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(u64::from(!checksum) + u64::from(!old) + u64::from(new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Word by word, as RFC 1071 §1 words it.
    fn naive(octets: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in octets.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn r1071_3_worked_example() {
        let octets = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Checksum::new().with(&octets).partial(), 0xddf2);
    }

    #[test]
    fn r1624_4_worked_example() {
        assert_eq!(update_checksum(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn the_longest_packet_of_ones_does_not_overflow() {
        let octets = vec![0xff; 65535];
        assert_eq!(Checksum::new().with(&octets).finish(), naive(&octets));
    }

    proptest! {
        #[test]
        fn any_octets_in_even_parts_sum_as_the_definition_says(
            octets in prop::collection::vec(any::<u8>(), 0..200),
            split in 0..100usize,
        ) {
            let (first, second) = octets.split_at((split * 2).min(octets.len() & !1));
            prop_assert_eq!(Checksum::new().with(first).with(second).finish(), naive(&octets));
        }

        #[test]
        fn an_update_equals_a_new_sum(mut octets in prop::collection::vec(any::<u8>(), 4..60), new: u16) {
            octets.truncate(octets.len() & !1);
            // All-zero data is the one case with two spellings of zero; a real header is never all zero.
            octets[0] = 0x45;
            let before = Checksum::new().with(&octets).finish();
            let old = u16::from_be_bytes([octets[2], octets[3]]);
            octets[2..4].copy_from_slice(&new.to_be_bytes());
            prop_assert_eq!(update_checksum(before, old, new), Checksum::new().with(&octets).finish());
        }
    }
}
