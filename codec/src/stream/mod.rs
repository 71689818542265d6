//! The stream of RFC 9329: a prefix, then frames of IKE and ESP.
//!
//! ```text
//! Originator, once:     49 4b 45 54 43 50                  "IKETCP"
//! both ways, repeated:  LL LL | body                       LL LL = octets of the body + 2, big-endian
//! IKE body:             00 00 00 00 | IKE message
//! ESP body:             SPI (4, not 0) | sequence (4) | ...
//! keepalive:            00 03 ff
//! empty:                00 02
//! ```
//!
//! This module finds and makes frames; it never looks behind the first eight octets of a body. Frames do not
//! align with TCP segments, TLS records or buffers: [`Deframer`] takes the octets as they come.
//!
//! [`Deframer::ike_only`] cuts the older stream of draft-ietf-ipsecme-ike-tcp, which has IKE messages and nothing else.
//!
//! Source: RFC 9329 §3, §4.

mod classify;
mod deframer;
mod framer;
mod ike_only;

pub use classify::{FrameKind, UnparseableFrame, classify};
pub use deframer::{Deframer, FrameError, Next};
pub use framer::{FrameTooLong, frame_ike};

/// First octets of every stream, from the TCP Originator only (RFC 9329 §4).
pub const STREAM_PREFIX: [u8; 6] = *b"IKETCP";

/// Tells an IKE message from an ESP packet, whose SPI is never zero (RFC 9329 §3.1).
pub const NON_ESP_MARKER: [u8; 4] = [0; 4];

/// The one octet of a NAT-keepalive's body (RFC 9329 §6.6, RFC 3948 §2.3).
pub const KEEPALIVE: u8 = 0xff;

/// Octets of the Length field, which counts itself.
pub const LENGTH_LEN: usize = 2;

/// Largest body that a Length can describe.
pub const BODY_LEN_MAX: usize = u16::MAX as usize - LENGTH_LEN;

/// Octets of an IKE header, which ends with the Length of its message.
const IKE_HEADER_LEN: usize = crate::ike::HEADER_LEN;

/// Largest IKE message that fits a frame behind its marker.
pub const IKE_MESSAGE_LEN_MAX: usize = BODY_LEN_MAX - NON_ESP_MARKER.len();
