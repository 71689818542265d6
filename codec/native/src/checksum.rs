//! Ones' complement sums as wide as the processor adds (RFC 1071).
//!
//! There is one loop. It is compiled for the baseline of the architecture and again for wider vectors; which
//! runs is found out at run time. Copying and adding in one pass measured no faster than one after the other,
//! so there is no call for it.

/// Octets below which a call into the wide variants does not pay.
const SHORT: usize = 64;

/// Adds `octets` to `initial`, as words that lie in memory as the processor reads them; an odd last octet
/// counts as if a zero followed.
///
/// The result means something to [`fold`] and as the `initial` of another call; all parts but the last must
/// have an even number of octets. It cannot overflow below 2^33 octets in all.
///
/// Source: RFC 1071 §2 (any byte order and any wider word give the same sum).
pub fn sum(octets: &[u8], initial: u64) -> u64 {
    if octets.len() < SHORT {
        return add(octets, initial);
    }
    match Width::of_processor() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor was asked for exactly these features.
        Width::Avx512 => unsafe { add_avx512(octets, initial) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Width::Avx2 => unsafe { add_avx2(octets, initial) },
        Width::Baseline => add(octets, initial),
    }
}

/// The 16-bit sum, in host order of the words as they are on the wire: what a partial checksum field holds.
pub fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::from_be(sum as u16)
}

/// The vectors to add with.
enum Width {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Baseline,
}

impl Width {
    fn of_processor() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
                return Self::Avx512;
            }
            if is_x86_feature_detected!("avx2") {
                return Self::Avx2;
            }
        }
        Self::Baseline
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
fn add_avx512(octets: &[u8], initial: u64) -> u64 {
    add(octets, initial)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn add_avx2(octets: &[u8], initial: u64) -> u64 {
    add(octets, initial)
}

/// Halves of 64-bit words go to two sums that cannot carry, which is what lets the compiler use vectors.
#[inline(always)]
fn add(octets: &[u8], initial: u64) -> u64 {
    let (words, rest) = octets.as_chunks::<8>();
    let (mut low, mut high) = (0, 0);
    for word in words {
        let word = u64::from_ne_bytes(*word);
        low += word & 0xffff_ffff;
        high += word >> 32;
    }
    initial + low + high + add_rest(rest)
}

/// Less than a word, as one padded with zeros.
#[inline(always)]
fn add_rest(rest: &[u8]) -> u64 {
    // Shifts, since a copy of so little would be a call.
    let word = rest.iter().rev().fold(0, |word, octet| word << 8 | u64::from(*octet));
    let word = u64::from_le(word);
    (word & 0xffff_ffff) + (word >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Word by word, as RFC 1071 §1 words it.
    fn by_definition(octets: &[u8]) -> u16 {
        octets.chunks(2).fold(0u16, |sum, pair| {
            let word = u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]);
            let (sum, carried) = sum.overflowing_add(word);
            sum + u16::from(carried)
        })
    }

    /// Octets without a pattern (xorshift).
    fn noise(len: usize) -> Vec<u8> {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .take(len)
        .collect()
    }

    #[test]
    fn r1071_1_every_length_and_alignment_sums_as_defined() {
        let octets = noise(2100);
        for len in (0..600).chain(1380..1420).chain(2040..2064) {
            for start in 0..8 {
                let part = &octets[start..start + len];
                assert_eq!(fold(sum(part, 0)), by_definition(part), "{len} octets from {start}");
            }
        }
    }

    #[test]
    fn r1071_2_even_parts_add_up() {
        let octets = noise(1500);
        for split in (0..=1500).step_by(2) {
            let (first, second) = octets.split_at(split);
            assert_eq!(fold(sum(second, sum(first, 0))), by_definition(&octets));
        }
    }

    #[test]
    fn all_widths_agree_and_ones_do_not_overflow() {
        for octets in [noise(65_535), vec![0xff; 65_535], vec![0xff; 1 << 20]] {
            let want = by_definition(&octets);
            assert_eq!(fold(add(&octets, 0)), want);
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") {
                // SAFETY: the processor has the feature.
                assert_eq!(fold(unsafe { add_avx2(&octets, 0) }), want);
            }
            assert_eq!(fold(sum(&octets, 0)), want);
        }
    }
}
