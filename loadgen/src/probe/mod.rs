//! The test traffic itself: what one probe packet looks like, how it is built, and how the far end judges it.
//!
//! A probe is a UDP packet inside an inner IP packet. Its payload starts with a [`ProbeHeader`] (who, which way, which
//! sequence number, when sent) under a checksum; the rest is a stretch of a known [`Pattern`] chosen by the sequence
//! number. The receiving end therefore *knows* every octet it should see: loss, reordering, duplication and corruption
//! are counted, never assumed away. This module does no I/O and reads no clock.

mod checker;
mod flow;
mod header;
mod packet;
mod pattern;
mod size;

pub use checker::{Arrival, Checker, Tally};
pub use flow::SendFlow;
pub use header::{
    FLAG_ACK_NOW, FLAG_DOWNLINK, FLAG_EF, HeaderError, MARK_NONE, PROBE_HEADER_LEN, ProbeHeader, ProbeKind,
};
pub use packet::{PacketBuilder, TRAFFIC_CLASS_EF, UdpView, parse_udp};
pub use pattern::{PATTERN_LEN_MAX, Pattern};
pub use size::SizePlan;
