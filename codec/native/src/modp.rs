//! Diffie-Hellman over the MODP groups of RFC 3526, and of RFC 2409 for peers that know no others.

use std::ptr::{self, NonNull};

use aws_lc_sys::{
    BIGNUM, BN_CTX, BN_CTX_free, BN_CTX_new, BN_MONT_CTX, BN_MONT_CTX_free, BN_MONT_CTX_new_for_modulus,
    BN_bin2bn, BN_bn2bin_padded, BN_clear_free, BN_cmp_word, BN_is_zero, BN_mod_exp_mont_consttime, BN_new,
    BN_set_word, BN_sub_word, BN_ucmp, ERR_clear_error,
};
use zeroize::Zeroizing;

/// 2^768 - 2^704 - 1 + 2^64 * ([2^638 pi] + 149686) (RFC 2409 §6.1).
const PRIME_768: [u8; 96] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xc9, 0x0f, 0xda, 0xa2, 0x21, 0x68, 0xc2, 0x34, 0xc4,
    0xc6, 0x62, 0x8b, 0x80, 0xdc, 0x1c, 0xd1, 0x29, 0x02, 0x4e, 0x08, 0x8a, 0x67, 0xcc, 0x74, 0x02, 0x0b,
    0xbe, 0xa6, 0x3b, 0x13, 0x9b, 0x22, 0x51, 0x4a, 0x08, 0x79, 0x8e, 0x34, 0x04, 0xdd, 0xef, 0x95, 0x19,
    0xb3, 0xcd, 0x3a, 0x43, 0x1b, 0x30, 0x2b, 0x0a, 0x6d, 0xf2, 0x5f, 0x14, 0x37, 0x4f, 0xe1, 0x35, 0x6d,
    0x6d, 0x51, 0xc2, 0x45, 0xe4, 0x85, 0xb5, 0x76, 0x62, 0x5e, 0x7e, 0xc6, 0xf4, 0x4c, 0x42, 0xe9, 0xa6,
    0x3a, 0x36, 0x20, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
];

/// 2^1024 - 2^960 - 1 + 2^64 * ([2^894 pi] + 129093) (RFC 2409 §6.2).
const PRIME_1024: [u8; 128] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xc9, 0x0f, 0xda, 0xa2, 0x21, 0x68, 0xc2, 0x34, 0xc4,
    0xc6, 0x62, 0x8b, 0x80, 0xdc, 0x1c, 0xd1, 0x29, 0x02, 0x4e, 0x08, 0x8a, 0x67, 0xcc, 0x74, 0x02, 0x0b,
    0xbe, 0xa6, 0x3b, 0x13, 0x9b, 0x22, 0x51, 0x4a, 0x08, 0x79, 0x8e, 0x34, 0x04, 0xdd, 0xef, 0x95, 0x19,
    0xb3, 0xcd, 0x3a, 0x43, 0x1b, 0x30, 0x2b, 0x0a, 0x6d, 0xf2, 0x5f, 0x14, 0x37, 0x4f, 0xe1, 0x35, 0x6d,
    0x6d, 0x51, 0xc2, 0x45, 0xe4, 0x85, 0xb5, 0x76, 0x62, 0x5e, 0x7e, 0xc6, 0xf4, 0x4c, 0x42, 0xe9, 0xa6,
    0x37, 0xed, 0x6b, 0x0b, 0xff, 0x5c, 0xb6, 0xf4, 0x06, 0xb7, 0xed, 0xee, 0x38, 0x6b, 0xfb, 0x5a, 0x89,
    0x9f, 0xa5, 0xae, 0x9f, 0x24, 0x11, 0x7c, 0x4b, 0x1f, 0xe6, 0x49, 0x28, 0x66, 0x51, 0xec, 0xe6, 0x53,
    0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
];

/// A MODP group. RFC 8247 §2.4: 14 is mandatory, 1 must not be used, 2 and 5 should not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ModpGroup {
    /// Group 1, 768 bits (RFC 2409 §6.1).
    Modp768,
    /// Group 2, 1024 bits (RFC 2409 §6.2).
    Modp1024,
    /// Group 5, 1536 bits (RFC 3526 §2).
    Modp1536,
    /// Group 14, 2048 bits (RFC 3526 §3).
    Modp2048,
    /// Group 15, 3072 bits (RFC 3526 §4).
    Modp3072,
    /// Group 16, 4096 bits (RFC 3526 §5).
    Modp4096,
}

/// Why a Diffie-Hellman step failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ModpError {
    /// The secret exponent has the wrong length or is zero.
    BadExponent,
    /// The public value is not of the modulus' length or not strictly between 1 and p - 1.
    BadPublic,
    /// The library is out of memory.
    Library,
}

impl ModpGroup {
    /// Octets of a public value and of the shared secret.
    pub fn public_len(self) -> usize {
        match self {
            Self::Modp768 => 96,
            Self::Modp1024 => 128,
            Self::Modp1536 => 192,
            Self::Modp2048 => 256,
            Self::Modp3072 => 384,
            Self::Modp4096 => 512,
        }
    }

    /// Octets of random secret exponent: at least twice the group's strength (RFC 3526 §8).
    pub fn exponent_len(self) -> usize {
        match self {
            Self::Modp768 | Self::Modp1024 | Self::Modp1536 => 32,
            Self::Modp2048 => 40,
            Self::Modp3072 => 56,
            Self::Modp4096 => 64,
        }
    }

    fn prime(self) -> Result<Bignum, ModpError> {
        let known = match self {
            Self::Modp768 => return Bignum::from_octets(&PRIME_768),
            Self::Modp1024 => return Bignum::from_octets(&PRIME_1024),
            Self::Modp1536 => aws_lc_sys::BN_get_rfc3526_prime_1536,
            Self::Modp2048 => aws_lc_sys::BN_get_rfc3526_prime_2048,
            Self::Modp3072 => aws_lc_sys::BN_get_rfc3526_prime_3072,
            Self::Modp4096 => aws_lc_sys::BN_get_rfc3526_prime_4096,
        };
        // SAFETY: with a null argument each of these returns a fresh number of the caller's, or null.
        Bignum::from_owned(unsafe { known(ptr::null_mut()) })
    }
}

/// A secret exponent. Wiped on drop.
pub struct ModpSecret {
    group: ModpGroup,
    exponent: Bignum,
}

// SAFETY: the number is owned by this value alone and not tied to a thread.
unsafe impl Send for ModpSecret {}

impl ModpSecret {
    /// Takes [`ModpGroup::exponent_len`] random octets as the secret.
    ///
    /// # Errors
    /// [`ModpError::BadExponent`] for another length or zero.
    pub fn new(group: ModpGroup, exponent: &[u8]) -> Result<Self, ModpError> {
        if exponent.len() != group.exponent_len() {
            return Err(ModpError::BadExponent);
        }
        let exponent = Bignum::from_octets(exponent)?;
        // SAFETY: the number is live and only read.
        if unsafe { BN_is_zero(exponent.as_ptr()) } == 1 {
            return Err(ModpError::BadExponent);
        }
        Ok(Self { group, exponent })
    }

    /// The public value 2^x mod p, big-endian, [`ModpGroup::public_len`] octets.
    ///
    /// # Errors
    /// [`ModpError::Library`] when memory runs out.
    pub fn public(&self) -> Result<Vec<u8>, ModpError> {
        let generator = Bignum::from_word(2)?;
        let public = self.raise(&generator, &self.group.prime()?)?;
        Ok(public.to_vec())
    }

    /// The shared secret with a peer's public value, big-endian, [`ModpGroup::public_len`] octets.
    ///
    /// # Errors
    /// [`ModpError::BadPublic`] for a value of another length or outside 2 to p - 2 (RFC 6989 §2.1);
    /// [`ModpError::Library`] when memory runs out.
    pub fn agree(&self, public: &[u8]) -> Result<Zeroizing<Vec<u8>>, ModpError> {
        if public.len() != self.group.public_len() {
            return Err(ModpError::BadPublic);
        }
        let prime = self.group.prime()?;
        let public = Bignum::from_octets(public)?;
        if !public.is_strictly_inside(&prime)? {
            return Err(ModpError::BadPublic);
        }
        self.raise(&public, &prime)
    }

    /// base^x mod prime in time independent of x.
    fn raise(&self, base: &Bignum, prime: &Bignum) -> Result<Zeroizing<Vec<u8>>, ModpError> {
        let scratch = Scratch::new()?;
        let montgomery = Montgomery::new(prime, &scratch)?;
        let result = Bignum::new()?;
        let mut octets = Zeroizing::new(vec![0; self.group.public_len()]);
        // SAFETY: all numbers and contexts are live and distinct; `base` was checked to be below the odd
        // prime; the padded conversion writes exactly `octets.len()` octets.
        let ok = unsafe {
            BN_mod_exp_mont_consttime(
                result.as_mut_ptr(),
                base.as_ptr(),
                self.exponent.as_ptr(),
                prime.as_ptr(),
                scratch.0.as_ptr(),
                montgomery.0.as_ptr(),
            ) == 1
                && BN_bn2bin_padded(octets.as_mut_ptr(), octets.len(), result.as_ptr()) == 1
        };
        if ok { Ok(octets) } else { Err(library_error()) }
    }
}

/// Forgets the library's own record of a failure, which nobody reads.
fn library_error() -> ModpError {
    // SAFETY: empties this thread's error queue.
    unsafe { ERR_clear_error() };
    ModpError::Library
}

/// An owned big number. Wiped on drop.
struct Bignum(NonNull<BIGNUM>);

impl Bignum {
    fn from_owned(number: *mut BIGNUM) -> Result<Self, ModpError> {
        NonNull::new(number).map(Self).ok_or_else(library_error)
    }

    fn new() -> Result<Self, ModpError> {
        // SAFETY: returns a fresh number of the caller's, or null.
        Self::from_owned(unsafe { BN_new() })
    }

    fn from_octets(octets: &[u8]) -> Result<Self, ModpError> {
        // SAFETY: reads `octets.len()` octets; with a null argument it returns a fresh number, or null.
        Self::from_owned(unsafe { BN_bin2bn(octets.as_ptr(), octets.len(), ptr::null_mut()) })
    }

    fn from_word(word: u64) -> Result<Self, ModpError> {
        let number = Self::new()?;
        // SAFETY: the number is live and ours.
        if unsafe { BN_set_word(number.as_mut_ptr(), word) } == 1 { Ok(number) } else { Err(library_error()) }
    }

    /// Tells whether 1 < self < prime - 1.
    fn is_strictly_inside(&self, prime: &Self) -> Result<bool, ModpError> {
        // SAFETY: both numbers are live; the copy made of the prime is ours to decrease.
        unsafe {
            let last = Self::from_owned(aws_lc_sys::BN_dup(prime.as_ptr()))?;
            if BN_sub_word(last.as_mut_ptr(), 1) != 1 {
                return Err(library_error());
            }
            Ok(BN_cmp_word(self.as_ptr(), 1) > 0 && BN_ucmp(self.as_ptr(), last.as_ptr()) < 0)
        }
    }

    fn as_ptr(&self) -> *const BIGNUM {
        self.0.as_ptr()
    }

    fn as_mut_ptr(&self) -> *mut BIGNUM {
        self.0.as_ptr()
    }
}

impl Drop for Bignum {
    fn drop(&mut self) {
        // SAFETY: owned by this value and freed once.
        unsafe { BN_clear_free(self.0.as_ptr()) };
    }
}

/// Temporary numbers of one computation.
struct Scratch(NonNull<BN_CTX>);

impl Scratch {
    fn new() -> Result<Self, ModpError> {
        // SAFETY: returns a fresh context of the caller's, or null.
        NonNull::new(unsafe { BN_CTX_new() }).map(Self).ok_or_else(library_error)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: owned by this value and freed once.
        unsafe { BN_CTX_free(self.0.as_ptr()) };
    }
}

/// A modulus prepared for Montgomery multiplication.
struct Montgomery(NonNull<BN_MONT_CTX>);

impl Montgomery {
    fn new(prime: &Bignum, scratch: &Scratch) -> Result<Self, ModpError> {
        // SAFETY: prime and scratch are live; the result is fresh and the caller's, or null.
        let context = unsafe { BN_MONT_CTX_new_for_modulus(prime.as_ptr(), scratch.0.as_ptr()) };
        NonNull::new(context).map(Self).ok_or_else(library_error)
    }
}

impl Drop for Montgomery {
    fn drop(&mut self) {
        // SAFETY: owned by this value and freed once.
        unsafe { BN_MONT_CTX_free(self.0.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [ModpGroup; 6] = [
        ModpGroup::Modp768,
        ModpGroup::Modp1024,
        ModpGroup::Modp1536,
        ModpGroup::Modp2048,
        ModpGroup::Modp3072,
        ModpGroup::Modp4096,
    ];

    fn prime_octets(group: ModpGroup) -> Vec<u8> {
        let mut octets = vec![0; group.public_len()];
        let prime = group.prime().unwrap();
        // SAFETY: writes exactly `octets.len()` octets from a live number.
        assert_eq!(unsafe { BN_bn2bin_padded(octets.as_mut_ptr(), octets.len(), prime.as_ptr()) }, 1);
        octets
    }

    #[test]
    fn both_sides_agree_on_a_fixed_length_secret() {
        for group in ALL {
            let a = ModpSecret::new(group, &vec![0x5a; group.exponent_len()]).unwrap();
            let b = ModpSecret::new(group, &vec![0xc3; group.exponent_len()]).unwrap();
            let (public_a, public_b) = (a.public().unwrap(), b.public().unwrap());
            assert_eq!(public_a.len(), group.public_len());
            let shared = a.agree(&public_b).unwrap();
            assert_eq!(shared, b.agree(&public_a).unwrap());
            assert_eq!(shared.len(), group.public_len());
            assert_ne!(*shared, public_a);
        }
    }

    #[test]
    fn small_exponents_give_known_powers_of_two() {
        for group in ALL {
            let mut exponent = vec![0; group.exponent_len()];
            exponent[group.exponent_len() - 1] = 10;
            let secret = ModpSecret::new(group, &exponent).unwrap();
            let mut want = vec![0; group.public_len()];
            want[group.public_len() - 2] = 4;
            assert_eq!(secret.public().unwrap(), want, "2^10 = 0x400, padded to the modulus");
        }
    }

    #[test]
    fn r6989_2_1_public_values_lie_strictly_inside() {
        for group in ALL {
            let secret = ModpSecret::new(group, &vec![1; group.exponent_len()]).unwrap();
            let prime = prime_octets(group);
            let mut edge = prime.clone();
            let with_last = |edge: &mut Vec<u8>, less: u8| {
                edge.clone_from(&prime);
                *edge.last_mut().unwrap() -= less;
            };
            let small = |value: u8| {
                let mut octets = vec![0; group.public_len()];
                *octets.last_mut().unwrap() = value;
                octets
            };
            for bad in [small(0), small(1), prime.clone(), vec![0xff; group.public_len()]] {
                assert_eq!(secret.agree(&bad).unwrap_err(), ModpError::BadPublic);
            }
            with_last(&mut edge, 1);
            assert_eq!(secret.agree(&edge).unwrap_err(), ModpError::BadPublic);
            with_last(&mut edge, 2);
            assert!(secret.agree(&edge).is_ok());
            assert!(secret.agree(&small(2)).is_ok());
            assert_eq!(secret.agree(&prime[1..]).unwrap_err(), ModpError::BadPublic);
            assert_eq!(secret.agree(&[]).unwrap_err(), ModpError::BadPublic);
        }
    }

    #[test]
    fn exponents_of_other_lengths_and_zero_are_refused() {
        for group in ALL {
            let zero = vec![0; group.exponent_len()];
            assert_eq!(ModpSecret::new(group, &zero).err(), Some(ModpError::BadExponent));
            assert_eq!(ModpSecret::new(group, &[1; 8]).err(), Some(ModpError::BadExponent));
        }
    }

    /// The prime is safe, and the generator 2 has order (p - 1) / 2, so 2^((p - 1) / 2) = 1 (RFC 2409 §6).
    #[test]
    fn r2409_6_the_generator_has_the_order_of_the_large_subgroup() {
        for group in [ModpGroup::Modp768, ModpGroup::Modp1024] {
            let prime = prime_octets(group);
            let mut half = vec![0; prime.len()];
            let mut carry = 0;
            for (out, octet) in half.iter_mut().zip(&prime) {
                *out = carry << 7 | octet >> 1;
                carry = octet & 1;
            }
            let secret = ModpSecret { group, exponent: Bignum::from_octets(&half).unwrap() };
            let power = secret.public().unwrap();
            let (last, rest) = power.split_last().unwrap();
            assert!(*last == 1 && rest.iter().all(|octet| *octet == 0), "{group:?}");
        }
    }
}
