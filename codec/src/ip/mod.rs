//! Inner IP packets: what routing, selectors and path MTU handling need, checked against the octets at hand.
//!
//! Nothing here trusts a length field further than the packet reaches, and no loop runs longer than a
//! constant.

mod checksum;
mod coalesce;
mod header;
mod icmp;
mod mss;
mod segment;
mod virtio;

pub use checksum::{Checksum, update_checksum};
pub use coalesce::{Joined, LONG_OCTETS_MAX, LONG_SEGMENTS_MAX, Run, SEGMENTS_MAX, Segment};
pub use header::{Fragment, InnerHeader, IpError};
pub(crate) use header::{total_len_v4, total_len_v6};
pub use icmp::{PACKET_TOO_BIG_LEN_MAX, packet_too_big};
pub use mss::{clamp_mss, clamp_mss_unsummed};
pub use segment::{SegmentError, Segmenter};
pub use virtio::{Gso, VirtioHeader};

/// IP protocol numbers that are looked into.
mod protocol {
    pub(super) const ICMP: u8 = 1;
    pub(super) const TCP: u8 = 6;
    pub(super) const UDP: u8 = 17;
    pub(super) const DCCP: u8 = 33;
    pub(super) const ICMPV6: u8 = 58;
    pub(super) const SCTP: u8 = 132;
    pub(super) const UDP_LITE: u8 = 136;
}
