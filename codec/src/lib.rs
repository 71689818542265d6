//! Formats and transforms of RFC 9329 streams, ESP, IKEv2 and EAP-AKA, without I/O.
//!
//! Nothing here opens a socket, reads a clock or draws randomness on its own: octets, time and
//! [`Random`] come in as arguments.
#![forbid(unsafe_code)]

pub mod crypto;
pub mod eap;
pub mod esp;
pub mod fuzzing;
pub mod ike;
pub mod ip;
mod random;
pub mod stream;

pub use random::{OsRandom, Random, SeededRandom};
