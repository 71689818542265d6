//! The only crypto FFI of the product: aws-lc calls that aws-lc-rs does not expose, and the multi-buffer library
//! of [`ipsec_mb`], behind safe types.
//!
//! From aws-lc three things: AEAD contexts that live inline and seal out of place, unpadded AES-CBC with a keyed HMAC
//! that restarts for free, and Diffie-Hellman over the MODP groups of RFC 3526. No function allocates per
//! packet, keys are wiped on drop, and no type here prints its contents. Beside them, because it too wants
//! more of the processor than the baseline, the ones' complement sum of [`checksum`].
#![allow(unsafe_code)]

pub mod aead;
pub mod cbc;
pub mod checksum;
pub mod hmac;
pub mod ipsec_mb;
pub mod modp;

use std::ffi::c_void;

/// Compares two secrets in time that depends on their lengths alone; unequal lengths are unequal.
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    // SAFETY: both pointers come from slices of exactly `a.len()` octets and are only read.
    unsafe { aws_lc_sys::CRYPTO_memcmp(a.as_ptr().cast(), b.as_ptr().cast(), a.len()) == 0 }
}

/// Overwrites `value` with zeros in a way the compiler may not drop.
///
/// # Safety
/// `T` must be plain memory: all-zero octets are a valid value of it, and nothing is lost with its fields.
unsafe fn cleanse<T>(value: &mut T) {
    let octets: *mut c_void = std::ptr::from_mut(value).cast();
    // SAFETY: the exclusive reference covers `size_of::<T>()` octets; the caller vouches for zeroing them.
    unsafe { aws_lc_sys::OPENSSL_cleanse(octets, size_of::<T>()) };
}

#[cfg(test)]
mod tests {
    use super::constant_time_eq;

    #[test]
    fn comparison_covers_every_octet_and_the_length() {
        let a = [7u8; 16];
        assert!(constant_time_eq(&a, &a.clone()));
        assert!(constant_time_eq(&[], &[]));
        assert!(!constant_time_eq(&a, &a[..15]));
        for at in 0..a.len() {
            let mut b = a;
            b[at] ^= 1;
            assert!(!constant_time_eq(&a, &b), "difference at {at} missed");
        }
    }
}
