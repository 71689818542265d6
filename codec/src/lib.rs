//! Formats and transforms of RFC 9329 streams, ESP and IKEv2, without I/O.
//!
//! Nothing here opens a socket, reads a clock or draws randomness on its own: octets, time and
//! [`Random`] come in as arguments.
#![forbid(unsafe_code)]

pub mod esp;
pub mod stream;

/// Randomness as an argument: the operating system in production, a seed in simulation.
pub trait Random {
    /// Fills `out` with random octets.
    fn fill(&mut self, out: &mut [u8]);
}
