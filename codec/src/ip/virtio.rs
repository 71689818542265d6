//! The virtio-net header in front of each packet of a TUN device opened with `IFF_VNET_HDR`.
//!
//! It lets one packet stand for many: a TCP or UDP super-packet with the size its segments are to have, and
//! a checksum still to be computed. Source: VIRTIO 1.2 §5.1.6 and `linux/virtio_net.h`; a TUN device speaks
//! the host's byte order unless told otherwise.

/// A decoded virtio-net header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VirtioHeader {
    /// [`NEEDS_CSUM`](Self::NEEDS_CSUM) and flags that say nothing to us.
    pub flags: u8,
    /// What the packet is to be cut into.
    pub gso: Gso,
    /// TCP's explicit congestion notification is set on the super-packet.
    pub gso_ecn: bool,
    /// Octets of all headers of a super-packet; a hint.
    pub hdr_len: u16,
    /// Octets of payload in each segment but the last.
    pub gso_size: u16,
    /// Where the octets to sum start: the transport header.
    pub csum_start: u16,
    /// Where the checksum lies behind `csum_start`.
    pub csum_offset: u16,
}

/// The kind of a super-packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Gso {
    /// One packet.
    #[default]
    None,
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP of equal sizes over either (`VIRTIO_NET_HDR_GSO_UDP_L4`).
    Udp,
    /// Something this code does not know.
    Other(u8),
}

const GSO_ECN: u8 = 0x80;

impl VirtioHeader {
    /// Octets of the header.
    pub const LEN: usize = 10;

    /// The checksum at `csum_start + csum_offset` covers the pseudo header alone so far.
    pub const NEEDS_CSUM: u8 = 1;

    /// One packet, complete as it is: all zero.
    pub const PLAIN: [u8; Self::LEN] = [0; Self::LEN];

    /// Whether the checksum is still to be computed.
    pub fn needs_csum(&self) -> bool {
        self.flags & Self::NEEDS_CSUM != 0
    }

    /// Splits the header off `octets`; `None` when they are too short.
    pub fn split(octets: &mut [u8]) -> Option<(Self, &mut [u8])> {
        let (header, packet) = octets.split_first_chunk_mut::<{ Self::LEN }>()?;
        Some((Self::decode(header), packet))
    }

    /// Decodes the header as the device wrote it.
    pub fn decode(octets: &[u8; Self::LEN]) -> Self {
        let field = |at: usize| u16::from_ne_bytes([octets[at], octets[at + 1]]);
        Self {
            flags: octets[0],
            gso: Gso::from_wire(octets[1] & !GSO_ECN),
            gso_ecn: octets[1] & GSO_ECN != 0,
            hdr_len: field(2),
            gso_size: field(4),
            csum_start: field(6),
            csum_offset: field(8),
        }
    }

    /// The header as the device expects it.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut octets = [0; Self::LEN];
        octets[0] = self.flags;
        octets[1] = self.gso.to_wire() | if self.gso_ecn { GSO_ECN } else { 0 };
        let fields = [self.hdr_len, self.gso_size, self.csum_start, self.csum_offset];
        for (to, field) in octets[2..].chunks_exact_mut(2).zip(fields) {
            to.copy_from_slice(&field.to_ne_bytes());
        }
        octets
    }
}

impl Gso {
    fn from_wire(kind: u8) -> Self {
        match kind {
            0 => Self::None,
            1 => Self::Tcp4,
            4 => Self::Tcp6,
            5 => Self::Udp,
            other => Self::Other(other),
        }
    }

    fn to_wire(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Tcp4 => 1,
            Self::Tcp6 => 4,
            Self::Udp => 5,
            Self::Other(kind) => kind,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_plain_packet_has_a_header_of_zeros() {
        assert_eq!(VirtioHeader::default().encode(), VirtioHeader::PLAIN);
        assert_eq!(VirtioHeader::decode(&VirtioHeader::PLAIN), VirtioHeader::default());
    }

    #[test]
    fn too_short_for_a_header_is_none() {
        assert!(VirtioHeader::split(&mut [0; 9]).is_none());
        assert_eq!(VirtioHeader::split(&mut [0; 12]).expect("whole").1.len(), 2);
    }

    proptest! {
        #[test]
        fn every_header_survives_both_ways(octets: [u8; 10]) {
            prop_assert_eq!(VirtioHeader::decode(&octets).encode(), octets);
        }
    }
}
