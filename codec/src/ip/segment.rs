//! Cuts what the inner device yields into packets of the inner MTU.
//!
//! With segmentation offload the kernel hands over up to 64 KiB of one flow under a single header. The
//! segments are made one at a time and in place: the header of the next one is written directly in front
//! of its payload, over the end of the payload before it, which has been sealed by then.
//!
//! ```text
//! | header | payload 1      | payload 2      | payload 3 |      as read
//! |------- segment 1 -------|
//!                  | header |- payload 2 ----|                segment 2, when 1 is gone
//!                                   | header | payload 3 |    segment 3, when 2 is gone
//! ```
//!
//! Source: virtio 1.2 §5.1.6.2; RFC 9293 §3.1, RFC 768, RFC 791 §3.1, RFC 8200 §3; RFC 3168 §6.1 for CWR.

use core::ops::Range;

use super::checksum::{Checksum, update_checksum};
use super::header::{Fragment, InnerHeader};
use super::protocol;
use super::virtio::{Gso, VirtioHeader};

const TCP_HEADER_LEN: usize = 20;
const UDP_HEADER_LEN: usize = 8;

/// TCP flags that belong to the last segment alone: FIN and PSH.
const TCP_LAST_ONLY: u8 = 0x09;

/// TCP flag that belongs to the first segment alone: CWR.
const TCP_FIRST_ONLY: u8 = 0x80;

/// The two bits of ECN in the second octet of either IP header (RFC 3168 §5, RFC 8200 §3).
const ECN_V4: u8 = 0x03;
const ECN_V6: u8 = 0x30;

/// Why a packet of the inner device cannot be cut into packets of the inner MTU.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum SegmentError {
    /// The virtio-net header asks for something that does not fit the packet.
    #[error("virtio-net header contradicts the packet")]
    Offload,
    /// A packet, or a datagram to be cut out of one, exceeds the MTU.
    #[error("larger than the inner MTU")]
    TooBig,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// One packet, ready.
    Whole,
    /// One packet whose checksum is still the sum of the pseudo header; where it is, and what it covers.
    Unsummed { start: usize, field: usize },
    /// Segments of a TCP flow.
    Tcp,
    /// Datagrams of a UDP flow.
    Udp,
}

/// A packet of the inner device on its way to being cut; it holds places and lengths, not octets.
#[derive(Clone, Debug)]
pub struct Segmenter {
    kind: Kind,
    version: u8,
    /// Where the transport header lies in a header, and where the payload.
    transport_at: usize,
    header_len: usize,
    /// Where the header was written last: the model of the next one.
    header_at: usize,
    /// Payload not cut yet.
    at: usize,
    end: usize,
    /// Payload octets of every segment but the last.
    size: usize,
    /// The pseudo header without its length.
    pseudo: Checksum,
    /// The second octet of the IP header, with the ECN of the packet.
    ecn_octet: u8,
    tcp_flags: u8,
    first: bool,
}

impl Segmenter {
    /// Checks `packet`, whose headers are `inner`, against `virtio` and `mtu`. Nothing of `virtio` is
    /// trusted.
    ///
    /// # Errors
    /// [`SegmentError`]; TCP segments above the MTU are cut smaller, nothing else can be.
    pub fn new(
        packet: &[u8],
        inner: &InnerHeader,
        virtio: &VirtioHeader,
        mtu: u16,
    ) -> Result<Self, SegmentError> {
        let packet = packet.get(..inner.total_len).ok_or(SegmentError::Offload)?;
        let kind = kind(inner, virtio)?;
        let whole = Self {
            kind,
            version: inner.version,
            transport_at: inner.transport_at,
            header_len: packet.len(),
            header_at: 0,
            at: packet.len(),
            end: packet.len(),
            size: 0,
            pseudo: Checksum::new(),
            ecn_octet: *packet.get(1).ok_or(SegmentError::Offload)?,
            tcp_flags: 0,
            first: true,
        };
        match kind {
            Kind::Tcp | Kind::Udp => whole.cut(packet, virtio, mtu.into()),
            _ if packet.len() > mtu.into() => Err(SegmentError::TooBig),
            _ => Ok(whole),
        }
    }

    /// Prepares for cutting `packet`.
    fn cut(mut self, packet: &[u8], virtio: &VirtioHeader, mtu: usize) -> Result<Self, SegmentError> {
        let transport = packet.get(self.transport_at..).ok_or(SegmentError::Offload)?;
        let transport_header_len = match self.kind {
            Kind::Tcp => {
                let fixed: &[u8; TCP_HEADER_LEN] = transport.first_chunk().ok_or(SegmentError::Offload)?;
                self.tcp_flags = fixed[13];
                usize::from(fixed[12] >> 4) * 4
            }
            _ => UDP_HEADER_LEN,
        };
        let least = if self.kind == Kind::Tcp { TCP_HEADER_LEN } else { UDP_HEADER_LEN };
        if transport_header_len < least || transport_header_len > transport.len() {
            return Err(SegmentError::Offload);
        }
        self.header_len = self.transport_at + transport_header_len;
        self.at = self.header_len;
        let payload_max = mtu.checked_sub(self.header_len).filter(|&max| max > 0);
        let payload_max = payload_max.ok_or(SegmentError::TooBig)?;
        self.size = usize::from(virtio.gso_size);
        if self.kind == Kind::Tcp {
            self.size = self.size.min(payload_max);
        } else if self.size.min(self.end - self.at) > payload_max {
            return Err(SegmentError::TooBig);
        }
        // The field holds the sum of the pseudo header; its length is that of the whole, and becomes that
        // of each segment.
        let field = self.checksum_field();
        let sum = transport.get(field..field + 2).ok_or(SegmentError::Offload)?;
        self.pseudo = Checksum::new().with(sum).with(&(!(transport.len() as u16)).to_be_bytes());
        Ok(self)
    }

    /// Where the checksum lies in the transport header of a flow that is cut.
    fn checksum_field(&self) -> usize {
        if self.kind == Kind::Tcp { 16 } else { 6 }
    }

    /// Octets of the next packet, `None` after the last.
    pub fn peek_len(&self) -> Option<usize> {
        let payload = self.size.min(self.end - self.at);
        (self.first || payload > 0).then_some(self.header_len + payload)
    }

    /// How many packets are still to come.
    pub fn remaining(&self) -> usize {
        match self.size {
            0 => usize::from(self.first),
            size => (self.end - self.at).div_ceil(size).max(usize::from(self.first)),
        }
    }

    /// Octets of all packets still to come.
    pub fn remaining_octets(&self) -> usize {
        self.remaining() * self.header_len + (self.end - self.at)
    }

    /// Whether congestion may be signalled to the flow by a mark (RFC 3168 §5).
    pub fn is_ecn_capable(&self) -> bool {
        self.ecn_octet & self.ecn_mask() != 0
    }

    fn ecn_mask(&self) -> u8 {
        if self.version == 4 { ECN_V4 } else { ECN_V6 }
    }

    /// Makes the next packet in `packet`, the one given to [`Self::new`], and returns where it lies; `None`
    /// after the last. The packet before it is overwritten in part. `congested` marks an ECN-capable one
    /// with CE.
    pub fn next(&mut self, packet: &mut [u8], congested: bool) -> Option<Range<usize>> {
        let range = self.advance(packet)?;
        let segment = packet.get_mut(range.clone())?;
        let mark = if congested && self.is_ecn_capable() { self.ecn_mask() } else { 0 };
        match self.kind {
            Kind::Whole => {}
            Kind::Unsummed { start, field } => {
                let sum = Checksum::new().with(segment.get(start..)?).finish();
                segment.get_mut(field..field + 2)?.copy_from_slice(&never_zero(sum).to_be_bytes());
            }
            Kind::Tcp | Kind::Udp => {
                segment[1] = self.ecn_octet | mark;
                self.write_ip(segment);
                self.write_checksum(segment);
                return Some(range);
            }
        }
        if mark != 0 {
            mark_whole(segment, self.version, mark);
        }
        Some(range)
    }

    /// Leaves the next packet out; false after the last.
    pub fn skip(&mut self, packet: &mut [u8]) -> bool {
        self.advance(packet).is_some()
    }

    /// Puts the next header in its place, but for the fields that [`Self::next`] writes last.
    fn advance(&mut self, packet: &mut [u8]) -> Option<Range<usize>> {
        let len = self.peek_len()?;
        let start = self.at - self.header_len;
        let end = start + len;
        if end > packet.len() {
            return None;
        }
        if self.header_at != start {
            packet.copy_within(self.header_at..self.header_at + self.header_len, start);
            self.header_at = start;
        }
        let payload_len = len - self.header_len;
        let last = start + len == self.end;
        let segment = &mut packet[start..end];
        match self.kind {
            Kind::Tcp => self.write_tcp(segment, last),
            Kind::Udp => {
                let udp_len = (len - self.transport_at) as u16;
                segment[self.transport_at + 4..][..2].copy_from_slice(&udp_len.to_be_bytes());
            }
            _ => {}
        }
        if !self.first && self.version == 4 {
            let id = u16::from_be_bytes([segment[4], segment[5]]).wrapping_add(1);
            segment[4..6].copy_from_slice(&id.to_be_bytes());
        }
        self.first = false;
        self.at += payload_len;
        Some(start..end)
    }

    /// Sequence number and flags. The header is a copy of the one before.
    fn write_tcp(&self, segment: &mut [u8], last: bool) {
        let tcp = &mut segment[self.transport_at..];
        let mut flags = self.tcp_flags;
        if !self.first {
            flags &= !TCP_FIRST_ONLY;
            // Every segment before this one was full.
            let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
            tcp[4..8].copy_from_slice(&sequence.wrapping_add(self.size as u32).to_be_bytes());
        }
        if !last {
            flags &= !TCP_LAST_ONLY;
        }
        tcp[13] = flags;
    }

    /// Length and, for IPv4, header checksum.
    fn write_ip(&self, segment: &mut [u8]) {
        if self.version == 4 {
            let total_len = (segment.len() as u16).to_be_bytes();
            segment[2..4].copy_from_slice(&total_len);
            segment[10..12].fill(0);
            let sum = Checksum::new().with(&segment[..self.transport_at]).finish();
            segment[10..12].copy_from_slice(&sum.to_be_bytes());
        } else {
            let payload_len = ((segment.len() - IPV6_HEADER_LEN) as u16).to_be_bytes();
            segment[4..6].copy_from_slice(&payload_len);
        }
    }

    fn write_checksum(&self, segment: &mut [u8]) {
        let transport = &mut segment[self.transport_at..];
        let field = self.checksum_field();
        transport[field..field + 2].fill(0);
        let sum = self.pseudo.with(&(transport.len() as u16).to_be_bytes()).with(transport).finish();
        let sum = if self.kind == Kind::Udp { never_zero(sum) } else { sum };
        transport[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

const IPV6_HEADER_LEN: usize = 40;

/// What the virtio-net header asks for, if it can be meant for this packet. Its `hdr_len` is a hint that
/// forwarded packets exceed, so that nothing depends on it; `gso_ecn` says nothing that the flags do not.
fn kind(inner: &InnerHeader, virtio: &VirtioHeader) -> Result<Kind, SegmentError> {
    let (start, offset) = (usize::from(virtio.csum_start), usize::from(virtio.csum_offset));
    let unsummed = virtio.needs_csum();
    let (kind, version, proto, field) = match virtio.gso {
        Gso::None if !unsummed => return Ok(Kind::Whole),
        Gso::None => {
            let field = start + offset;
            let fits = start >= inner.transport_at && field + 2 <= inner.total_len;
            return fits.then_some(Kind::Unsummed { start, field }).ok_or(SegmentError::Offload);
        }
        Gso::Tcp4 => (Kind::Tcp, 4, protocol::TCP, 16),
        Gso::Tcp6 => (Kind::Tcp, 6, protocol::TCP, 16),
        Gso::Udp => (Kind::Udp, inner.version, protocol::UDP, 6),
        Gso::Other(_) => return Err(SegmentError::Offload),
    };
    let sound = inner.version == version
        && inner.proto == proto
        && inner.fragment == Fragment::No
        && virtio.gso_size > 0
        && unsummed
        && start == inner.transport_at
        && offset == field;
    sound.then_some(kind).ok_or(SegmentError::Offload)
}

/// RFC 768: a computed checksum of zero is sent as all ones. In TCP both say the same.
fn never_zero(sum: u16) -> u16 {
    if sum == 0 { 0xffff } else { sum }
}

/// Sets the ECN bits of a packet that is otherwise as it came; its header checksum stays as right or wrong
/// as it was.
fn mark_whole(packet: &mut [u8], version: u8, mark: u8) {
    let word = |packet: &[u8]| u16::from_be_bytes([packet[0], packet[1]]);
    let old = word(packet);
    packet[1] |= mark;
    if version == 4 {
        let sum = update_checksum(u16::from_be_bytes([packet[10], packet[11]]), old, word(packet));
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests;
