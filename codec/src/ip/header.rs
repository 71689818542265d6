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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v4(proto: u8, flags_and_offset: u16, options: usize, data: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; V4_HEADER_LEN + options];
        packet[0] = 0x40 | ((V4_HEADER_LEN + options) / 4) as u8;
        packet[1] = 46 << 2;
        packet[6..8].copy_from_slice(&flags_and_offset.to_be_bytes());
        packet[9] = proto;
        packet[12..16].copy_from_slice(&[10, 0, 0, 1]);
        packet[16..20].copy_from_slice(&[192, 0, 2, 9]);
        packet.extend_from_slice(data);
        let total_len = packet.len() as u16;
        packet[2..4].copy_from_slice(&total_len.to_be_bytes());
        packet
    }

    fn v6(first: u8, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; V6_HEADER_LEN];
        packet[0] = 0x6b;
        packet[1] = 0x80;
        packet[4..6].copy_from_slice(&(rest.len() as u16).to_be_bytes());
        packet[6] = first;
        packet[8] = 0xfd;
        packet[23] = 1;
        packet[24] = 0xfd;
        packet[39] = 2;
        packet.extend_from_slice(rest);
        packet
    }

    const PORTS: [u8; 8] = [0x30, 0x39, 0x00, 0x35, 0, 8, 0, 0];

    #[test]
    fn r791_3_1_addresses_ports_and_dscp_behind_options() {
        for options in [0, 4, 40] {
            let mut packet = v4(17, 0, options, &PORTS);
            packet.extend_from_slice(&[0xaa; 9]);
            let header = InnerHeader::parse(&packet).unwrap();
            assert_eq!(header.src, IpAddr::from([10, 0, 0, 1]));
            assert_eq!(header.dst, IpAddr::from([192, 0, 2, 9]));
            assert_eq!((header.version, header.proto, header.dscp), (4, 17, 46));
            assert_eq!((header.src_port, header.dst_port), (Some(12345), Some(53)));
            assert_eq!(header.total_len, 28 + options);
            assert_eq!(header.transport_at, 20 + options);
        }
    }

    #[test]
    fn r791_3_1_only_the_first_fragment_has_ports() {
        for (flags, fragment, port) in [
            (0x4000, Fragment::No, Some(53)),
            (0x2000, Fragment::First, Some(53)),
            (0x2001, Fragment::Later, None),
            (0x0001, Fragment::Later, None),
            (0x1fff, Fragment::Later, None),
        ] {
            let header = InnerHeader::parse(&v4(17, flags, 0, &PORTS)).unwrap();
            assert_eq!((header.fragment, header.dst_port), (fragment, port), "{flags:#06x}");
        }
    }

    #[test]
    fn protocols_without_ports_and_short_transports_have_none() {
        assert_eq!(InnerHeader::parse(&v4(1, 0, 0, &PORTS)).unwrap().src_port, None);
        assert_eq!(InnerHeader::parse(&v4(6, 0, 0, &PORTS[..3])).unwrap().src_port, None);
        for proto in [6, 17, 33, 132, 136] {
            assert_eq!(InnerHeader::parse(&v4(proto, 0, 0, &PORTS)).unwrap().src_port, Some(12345));
        }
    }

    #[test]
    fn lengths_that_contradict_are_refused() {
        let good = v4(17, 0, 0, &PORTS);
        let with = |at: usize, value: u8| {
            let mut bad = good.clone();
            bad[at] = value;
            InnerHeader::parse(&bad)
        };
        assert_eq!(with(0, 0x44), Err(IpError::HeaderLength));
        assert_eq!(with(0, 0x4f), Err(IpError::HeaderLength));
        assert_eq!(with(3, 19), Err(IpError::HeaderLength));
        assert_eq!(with(3, 29), Err(IpError::Truncated));
        assert_eq!(with(0, 0x50), Err(IpError::Version(5)));
        for cut in 0..good.len() {
            assert_eq!(InnerHeader::parse(&good[..cut]), Err(IpError::Truncated), "cut at {cut}");
        }
    }

    #[test]
    fn r8200_4_extension_headers_are_walked_to_the_transport() {
        let hop = [43, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let routing = [60, 0, 0, 0, 0, 0, 0, 0];
        let options = [17, 0, 0, 0, 0, 0, 0, 0];
        let packet = v6(0, &[&hop[..], &routing, &options, &PORTS].concat());
        let header = InnerHeader::parse(&packet).unwrap();
        assert_eq!((header.version, header.proto, header.transport_at), (6, 17, 72));
        assert_eq!((header.src_port, header.dst_port), (Some(12345), Some(53)));
        assert_eq!(header.dscp, 46);
        assert_eq!(header.src, "fd00::1".parse::<IpAddr>().unwrap());
        assert_eq!(header.dst, "fd00::2".parse::<IpAddr>().unwrap());
        for cut in 0..packet.len() {
            assert_eq!(InnerHeader::parse(&packet[..cut]), Err(IpError::Truncated), "cut at {cut}");
        }
    }

    #[test]
    fn r8200_4_5_fragments_and_atomic_fragments() {
        let parse = |offset: u16| {
            let [a, b] = offset.to_be_bytes();
            InnerHeader::parse(&v6(44, &[&[17, 0, a, b, 0, 0, 0, 1], &PORTS[..]].concat())).unwrap()
        };
        assert_eq!((parse(0).fragment, parse(0).dst_port), (Fragment::No, Some(53)));
        assert_eq!((parse(1).fragment, parse(1).dst_port), (Fragment::First, Some(53)));
        assert_eq!((parse(0x6).fragment, parse(0x6).dst_port), (Fragment::No, Some(53)), "reserved bits");
        for later in [8, 9, 0xfff8] {
            assert_eq!((parse(later).fragment, parse(later).dst_port), (Fragment::Later, None));
        }
    }

    #[test]
    fn the_walk_is_bounded_and_stays_inside_the_packet() {
        let chain = [60, 0, 0, 0, 0, 0, 0, 0].repeat(200);
        assert_eq!(InnerHeader::parse(&v6(60, &chain)), Err(IpError::Extensions));
        let mut eight = [60, 0, 0, 0, 0, 0, 0, 0].repeat(EXTENSIONS_MAX);
        eight[(EXTENSIONS_MAX - 1) * 8] = 17;
        eight.extend_from_slice(&PORTS);
        assert_eq!(InnerHeader::parse(&v6(60, &eight)).unwrap().src_port, Some(12345));
        assert_eq!(InnerHeader::parse(&v6(60, &[17, 255, 0, 0, 0, 0, 0, 0])), Err(IpError::Truncated));
        // RFC 8200 §3: no next header.
        assert_eq!(InnerHeader::parse(&v6(59, &[])).unwrap().src_port, None);
    }

    proptest! {
        #[test]
        fn arbitrary_octets_never_panic_and_lengths_stay_inside(
            version in prop_oneof![Just(4u8), Just(6), any::<u8>()],
            mut packet in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            if let Some(first) = packet.first_mut() {
                *first = version << 4 | *first & 0xf;
            }
            if let Ok(header) = InnerHeader::parse(&packet) {
                prop_assert!(header.transport_at <= header.total_len && header.total_len <= packet.len());
                let own = if header.version == 4 { total_len_v4(&packet) } else { total_len_v6(&packet) };
                prop_assert_eq!(own, Some(header.total_len));
            }
        }
    }
}
