//! The inner header, parsed once per packet.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::protocol;

const V4_HEADER_LEN: usize = 20;
const V6_HEADER_LEN: usize = 40;

/// Most IPv6 extension headers that are walked to find the transport.
const EXTENSIONS_MAX: usize = 8;

/// What routing, traffic selectors and queueing need of an inner packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InnerHeader {
    /// 4 or 6.
    pub version: u8,
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// The transport protocol, behind any IPv6 extension headers.
    pub proto: u8,
    /// Octets of the packet by its own header; never more than were given.
    pub total_len: usize,
    /// Where the transport header starts; at most `total_len`.
    pub transport_at: usize,
    /// Source port of TCP, UDP, UDP-Lite, DCCP and SCTP; `None` for other protocols and later fragments.
    pub src_port: Option<u16>,
    /// Destination port, as `src_port`.
    pub dst_port: Option<u16>,
    /// Differentiated services code point, 0 to 63.
    pub dscp: u8,
    /// Its place in a fragmented packet.
    pub fragment: Fragment,
}

/// Whether a packet is a fragment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fragment {
    /// Whole.
    No,
    /// The first: it has the transport header.
    First,
    /// A later one: no ports.
    Later,
}

/// Why octets are not an IP packet that can be forwarded.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum IpError {
    /// The version is neither 4 nor 6.
    #[error("IP version {0}")]
    Version(u8),
    /// A header or the packet reaches beyond the octets given.
    #[error("truncated IP packet")]
    Truncated,
    /// A length field contradicts another.
    #[error("contradicting IP header length")]
    HeaderLength,
    /// More IPv6 extension headers than are walked.
    #[error("too many IPv6 extension headers")]
    Extensions,
}

/// The transport found behind an IPv6 header.
struct Transport {
    proto: u8,
    at: usize,
    fragment: Fragment,
}

impl InnerHeader {
    /// Parses the headers of `packet`; octets behind the packet's own length are ignored.
    ///
    /// # Errors
    /// [`IpError`] when a length field cannot be trusted.
    ///
    /// Source: RFC 791 §3.1, RFC 8200 §3 and §4.
    pub fn parse(packet: &[u8]) -> Result<Self, IpError> {
        match packet.first().ok_or(IpError::Truncated)? >> 4 {
            4 => Self::parse_v4(packet),
            6 => Self::parse_v6(packet),
            version => Err(IpError::Version(version)),
        }
    }

    fn parse_v4(packet: &[u8]) -> Result<Self, IpError> {
        let header: &[u8; V4_HEADER_LEN] = packet.first_chunk().ok_or(IpError::Truncated)?;
        let header_len = usize::from(header[0] & 0x0f) * 4;
        let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if header_len < V4_HEADER_LEN || total_len < header_len {
            return Err(IpError::HeaderLength);
        }
        let packet = packet.get(..total_len).ok_or(IpError::Truncated)?;
        let fragment = match u16::from_be_bytes([header[6], header[7]]) & 0x3fff {
            0 => Fragment::No,
            0x2000 => Fragment::First,
            _ => Fragment::Later,
        };
        let proto = header[9];
        let (src_port, dst_port) = ports(proto, fragment, &packet[header_len..]);
        Ok(Self {
            version: 4,
            src: IpAddr::V4(Ipv4Addr::new(header[12], header[13], header[14], header[15])),
            dst: IpAddr::V4(Ipv4Addr::new(header[16], header[17], header[18], header[19])),
            proto,
            total_len,
            transport_at: header_len,
            src_port,
            dst_port,
            dscp: header[1] >> 2,
            fragment,
        })
    }

    fn parse_v6(packet: &[u8]) -> Result<Self, IpError> {
        let header: &[u8; V6_HEADER_LEN] = packet.first_chunk().ok_or(IpError::Truncated)?;
        let total_len = V6_HEADER_LEN + usize::from(u16::from_be_bytes([header[4], header[5]]));
        let packet = packet.get(..total_len).ok_or(IpError::Truncated)?;
        let transport = walk_extensions(header[6], packet)?;
        let (src_port, dst_port) = ports(transport.proto, transport.fragment, &packet[transport.at..]);
        Ok(Self {
            version: 6,
            src: IpAddr::V6(v6_address(&header[8..24])),
            dst: IpAddr::V6(v6_address(&header[24..40])),
            proto: transport.proto,
            total_len,
            transport_at: transport.at,
            src_port,
            dst_port,
            dscp: (u16::from_be_bytes([header[0], header[1]]) >> 6 & 0x3f) as u8,
            fragment: transport.fragment,
        })
    }
}

fn v6_address(octets: &[u8]) -> Ipv6Addr {
    Ipv6Addr::from(<[u8; 16]>::try_from(octets).expect("sixteen octets of the fixed header"))
}

/// Follows IPv6 extension headers to the transport, or to a later fragment's data.
fn walk_extensions(first: u8, packet: &[u8]) -> Result<Transport, IpError> {
    let mut transport = Transport { proto: first, at: V6_HEADER_LEN, fragment: Fragment::No };
    for _ in 0..=EXTENSIONS_MAX {
        let rest = &packet[transport.at..];
        let extension_len = match transport.proto {
            // Hop-by-hop options, routing, destination options: units of 8 octets beyond the first.
            0 | 43 | 60 => 8 + 8 * usize::from(*rest.get(1).ok_or(IpError::Truncated)?),
            // Authentication header: units of 4 octets beyond the second (RFC 4302 §2.2).
            51 => 8 + 4 * usize::from(*rest.get(1).ok_or(IpError::Truncated)?),
            44 => 8,
            _ => return Ok(transport),
        };
        let extension = rest.get(..extension_len).ok_or(IpError::Truncated)?;
        if transport.proto == 44 {
            let offset_and_more = u16::from_be_bytes([extension[2], extension[3]]) & 0xfff9;
            transport.fragment = match offset_and_more {
                0 => transport.fragment,
                1 => Fragment::First,
                _ => Fragment::Later,
            };
        }
        transport.proto = extension[0];
        transport.at += extension_len;
        if transport.fragment == Fragment::Later {
            return Ok(transport);
        }
    }
    Err(IpError::Extensions)
}

/// Source and destination port, when the protocol has them and they are in this fragment.
fn ports(proto: u8, fragment: Fragment, transport: &[u8]) -> (Option<u16>, Option<u16>) {
    use protocol::{DCCP, SCTP, TCP, UDP, UDP_LITE};
    match transport.first_chunk::<4>() {
        Some([a, b, c, d])
            if fragment != Fragment::Later && matches!(proto, TCP | UDP | DCCP | SCTP | UDP_LITE) =>
        {
            (Some(u16::from_be_bytes([*a, *b])), Some(u16::from_be_bytes([*c, *d])))
        }
        _ => (None, None),
    }
}

/// The packet's own length when `packet` is IPv4 and holds it whole.
pub(crate) fn total_len_v4(packet: &[u8]) -> Option<usize> {
    let header: &[u8; V4_HEADER_LEN] = packet.first_chunk()?;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let sound = header[0] >> 4 == 4 && header_len >= V4_HEADER_LEN && total_len >= header_len;
    (sound && total_len <= packet.len()).then_some(total_len)
}

/// The packet's own length when `packet` is IPv6 and holds it whole.
pub(crate) fn total_len_v6(packet: &[u8]) -> Option<usize> {
    let header: &[u8; V6_HEADER_LEN] = packet.first_chunk()?;
    let total_len = V6_HEADER_LEN + usize::from(u16::from_be_bytes([header[4], header[5]]));
    (header[0] >> 4 == 6 && total_len <= packet.len()).then_some(total_len)
}
