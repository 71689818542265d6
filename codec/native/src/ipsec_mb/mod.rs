//! The intel-ipsec-mb library: AES-GCM by direct calls, AES-CBC and HMAC over many packets at once.
//!
//! Present when its header was found at build time; used when the processor has the vectors. Everything here
//! starts from an [`IpsecMb`], which [`available`] hands out on such machines only. Elsewhere the type has no
//! value and the calls cost nothing.
//!
//! ```text
//! vectors   256 bits (AVX2, SHA-NI)             512 bits (AVX-512, VAES)
//! best at   HMAC of up to about eight packets   everything else
//! ```
//!
//! The library never compares a tag and, in the calls used here, checks no argument: both are done on this
//! side.

#[cfg(not(ipsec_mb))]
mod absent;
#[cfg(ipsec_mb)]
mod burst;
#[cfg(ipsec_mb)]
mod ffi;
#[cfg(ipsec_mb)]
mod gcm;
#[cfg(ipsec_mb)]
mod manager;

#[cfg(not(ipsec_mb))]
pub use absent::{CbcSchedule, GcmKey, HmacPads, IpsecMb, available};
#[cfg(ipsec_mb)]
pub use burst::{CbcSchedule, HmacPads};
#[cfg(ipsec_mb)]
pub use gcm::GcmKey;
#[cfg(ipsec_mb)]
pub use manager::{IpsecMb, available};

/// The most jobs of one burst.
pub const BURST_MAX: usize = 128;

/// The most octets of one job: lanes count in 16 bits.
pub const JOB_LEN_MAX: usize = 65_534;

/// Octets of the longest truncated HMAC.
pub const ICV_LEN_MAX: usize = 32;

/// The vectors a burst runs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vectors {
    /// AVX2, and SHA-NI where there is one.
    Narrow,
    /// AVX-512; the same as `Narrow` on a processor without it.
    Wide,
}

/// Which way CBC runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Text to ciphertext.
    Encrypt,
    /// Ciphertext to text.
    Decrypt,
}

/// One text to compute a truncated HMAC of.
pub struct HashJob<'a> {
    /// The key.
    pub pads: &'a HmacPads,
    /// 1 to [`JOB_LEN_MAX`] octets.
    pub text: &'a [u8],
    /// Receives the ICV in its first octets.
    pub icv: &'a mut [u8; ICV_LEN_MAX],
}

/// One text to run AES-CBC over.
pub struct CipherJob<'a> {
    /// The key, expanded for the direction of the burst.
    pub schedule: &'a CbcSchedule,
    /// The initialisation vector, which stays, then whole blocks, at least one.
    pub text: &'a mut [u8],
}
