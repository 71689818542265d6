//! ESP packets: sealing, opening, anti-replay.
//!
//! ```text
//! | SPI (4) | sequence (4) | IV (8 or 16) | inner packet | padding | pad len (1) | next header (1) | ICV |
//! |-------------- in the clear -----------|-------------------- encrypted ------------------------|
//! |--- AEAD: associated data, with the high half of an extended sequence number ---|
//! |--- CBC: everything before the ICV is under the HMAC, the high half behind it --------------|
//! ```
//!
//! An SA is a small record with the raw keys; the expanded cipher context is made at first use and may be
//! dropped again while the SA is idle. Nothing of an SA changes before the ICV of a packet has verified.
//! Neither direction allocates per packet.
//!
//! Source: RFC 4303; RFC 4106 (AES-GCM), RFC 7634 (ChaCha20-Poly1305), RFC 3602 (AES-CBC), RFC 4868 and
//! RFC 2404 (HMAC).

mod aead;
pub mod backend;
mod batch;
mod burst;
mod cbc;
mod context;
mod inbound;
mod measure;
mod outbound;
mod replay;
mod suite;
mod triple_des;

use core::fmt;

pub use batch::{BATCH_MAX, OpenBatch, SealBatch};
pub use context::{KEPT_CONTEXTS_DEFAULT, keep_contexts};
pub(crate) use inbound::strip;
pub use inbound::{InboundSa, Opened, OpenedKind};
pub use outbound::OutboundSa;
pub use replay::{REPLAY_WINDOW_DEFAULT, REPLAY_WINDOW_MAX, REPLAY_WINDOW_MIN, ReplayError, ReplayWindow};
pub(crate) use suite::{AEAD_IV_LEN, SALT_LEN};
pub use suite::{EspCipher, EspInteg, EspKeys, EspSuite};

/// Octets of SPI and sequence number.
pub const HEADER_LEN: usize = 8;

/// Octets of Pad Length and Next Header.
const TRAILER_LEN: usize = 2;

/// Next Header values of tunnel mode (RFC 4303 §2.6).
mod next_header {
    /// An IPv4 packet.
    pub(super) const IPV4: u8 = 4;
    /// An IPv6 packet.
    pub(super) const IPV6: u8 = 41;
    /// No next header: a dummy packet.
    pub(super) const NONE: u8 = 59;
}

/// The SPI of an ESP SA, chosen by its receiver; 0 is never used, 1 to 255 are reserved (RFC 4303 §2.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EspSpi(pub u32);

impl fmt::Display for EspSpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

impl fmt::Debug for EspSpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why an ESP packet was not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum EspError {
    /// Shorter than the smallest packet of the suite, or not a whole number of its blocks.
    #[error("too short for its suite")]
    TooShort,
    /// The sequence number was seen before.
    #[error("replayed")]
    Replayed,
    /// The sequence number lies left of the window, or is zero.
    #[error("left of the replay window")]
    LeftOfWindow,
    /// The ICV does not verify: the one error that speaks against the connection (RFC 9329 §6.1).
    #[error("integrity check failed")]
    BadIcv,
    /// Authentic, but the padding is not 1, 2, 3 and so on or exceeds the packet.
    #[error("bad padding")]
    BadPadding,
    /// Authentic, but neither an IP packet nor a dummy.
    #[error("bad next header")]
    BadNextHeader,
    /// Authentic, but the inner packet's version or length does not fit.
    #[error("bad inner length")]
    BadInnerLength,
}

/// Why a packet was not sealed; no sequence number was used.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum SealError {
    /// The last sequence number was sent: the SA must be replaced (RFC 4303 §3.3.3).
    #[error("sequence numbers exhausted")]
    SequenceExhausted,
    /// The sealed packet would not fit a frame.
    #[error("too long for a frame")]
    TooLong,
    /// The output is shorter than [`OutboundSa::frame_len`].
    #[error("output too small")]
    OutputTooSmall,
    /// What is to be sealed is neither IPv4 nor IPv6.
    #[error("not an IP packet")]
    NotIp,
}
