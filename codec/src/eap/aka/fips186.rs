//! The generator of FIPS 186-2, Appendix 3.1 with change notice 1, as RFC 4187 Appendix A uses it.

use sha1::compress;
use sha1::digest::generic_array::GenericArray;
use zeroize::{Zeroize, Zeroizing};

/// Octets of a seed and of one output.
pub(super) const SEED_LEN: usize = 20;

/// SHA-1's initial value, which is "t" here.
const T: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];

/// Fills `out` with outputs of the generator seeded with `xkey`.
///
/// Each output is G(t, XKEY): the compression function of SHA-1 over XKEY padded with zeros, without SHA-1's own padding.
/// Then XKEY becomes 1 + XKEY + output, modulo 2^160.
pub(super) fn generate(seed: &[u8; SEED_LEN], out: &mut [u8]) {
    let mut xkey = Zeroizing::new(*seed);
    for chunk in out.chunks_mut(SEED_LEN) {
        let mut block = GenericArray::default();
        block[..SEED_LEN].copy_from_slice(&xkey[..]);
        let mut state = T;
        compress(&mut state, &[block]);
        block.as_mut_slice().zeroize();
        let mut output = Zeroizing::new([0; SEED_LEN]);
        for (octets, word) in output.as_chunks_mut().0.iter_mut().zip(state) {
            *octets = word.to_be_bytes();
        }
        state.zeroize();
        chunk.copy_from_slice(&output[..chunk.len()]);
        add_with_one(&mut xkey, &output);
    }
}

/// a = a + b + 1 modulo 2^160, big-endian.
fn add_with_one(a: &mut [u8; SEED_LEN], b: &[u8; SEED_LEN]) {
    let mut carry = 1;
    for (a, b) in a.iter_mut().zip(b).rev() {
        let sum = u16::from(*a) + u16::from(*b) + carry;
        *a = sum as u8;
        carry = sum >> 8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(octets: &[u8]) -> String {
        octets.iter().map(|octet| format!("{octet:02x}")).collect()
    }

    fn seed(text: &str) -> [u8; SEED_LEN] {
        std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hex"))
    }

    /// NIST, "Examples of DSA, 1024 bit": two outputs are one x of change notice 1.
    #[test]
    fn fips186_2_published_example() {
        let mut out = [0; 40];
        generate(&seed("bd029bbe7f51960bcf9edb2b61f06f0feb5a38b6"), &mut out);
        assert_eq!(
            hex(&out),
            "2070b3223dba372fde1c0ffc7b2e3b498b2606143c6c18bacb0f6c55babb13788e20d737a3275116"
        );
    }

    /// RFC 4186 Appendix A.5: EAP-SIM makes its keys from MK as EAP-AKA does.
    #[test]
    fn r4186_a_5_keys_of_a_master_key() {
        let mut out = [0; 160];
        generate(&seed("e576d5ca332e9930018bf1baee2763c795b3c712"), &mut out);
        assert_eq!(
            hex(&out),
            "536e5ebc4465582aa6a8ec9986ebb62025af1942efcbf4bc72b3943421f2a974\
             39d45aeaf4e30601983e972b6cfd46d1c363773365690d09cd44976b525f47d3\
             a60a985e955c53b090b2e4b73719196a402542968fd14a888f46b9a7886e4488\
             5949eab0fff69d52315c6c634fd14a7f0d52023d56f79698fa6596abeed4f93f\
             bb48eb534d985414ceed0d9a8ed33c387c9dfdab92ffbdf240fcecf65a2c93b9"
        );
    }

    #[test]
    fn the_sum_wraps_at_2_to_the_160() {
        let mut all = [0xff; SEED_LEN];
        add_with_one(&mut all, &[0; SEED_LEN]);
        assert_eq!(all, [0; SEED_LEN]);
    }
}
