//! Inner UDP/IP packets, built and read in user space.

use super::{PROBE_HEADER_LEN, Pattern, ProbeHeader};
use std::net::{IpAddr, SocketAddr};

const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const UDP_LEN: usize = 8;
const PROTO_UDP: u8 = 17;
const TTL: u8 = 64;
/// Traffic class of voice: DSCP EF (46, RFC 3246), no ECN.
pub const TRAFFIC_CLASS_EF: u8 = 46 << 2;

/// Writes the inner packets of one UE towards one far address.
pub struct PacketBuilder {
    src: SocketAddr,
    dst: SocketAddr,
    /// DSCP and ECN bits of the IP header.
    traffic_class: u8,
    /// Sum of the pseudo-header words that never change, without the length.
    pseudo_sum: u64,
}

impl PacketBuilder {
    /// Creates a builder, or `None` when the two addresses are of different families.
    pub fn new(src: SocketAddr, dst: SocketAddr) -> Option<Self> {
        if src.is_ipv4() != dst.is_ipv4() {
            return None;
        }
        let pseudo_sum = address_sum(src.ip())
            + address_sum(dst.ip())
            + u64::from(PROTO_UDP)
            + u64::from(src.port())
            + u64::from(dst.port());
        Some(Self { src, dst, traffic_class: 0, pseudo_sum })
    }

    /// Sets the traffic class of every packet.
    #[must_use]
    pub fn with_traffic_class(self, traffic_class: u8) -> Self {
        Self { traffic_class, ..self }
    }

    /// Returns the octets of IP and UDP header in front of the payload.
    pub fn overhead(&self) -> usize {
        if self.src.is_ipv4() { IPV4_LEN + UDP_LEN } else { IPV6_LEN + UDP_LEN }
    }

    /// Writes a data probe of exactly `total_len` octets, the part behind the header filled from the pattern.
    ///
    /// # Panics
    /// If `total_len` cannot hold the headers or `out` cannot hold the packet.
    pub fn data(&self, header: &ProbeHeader, pattern: &Pattern, total_len: usize, out: &mut [u8]) {
        let payload_at = self.overhead();
        let fill_len = total_len - payload_at - PROBE_HEADER_LEN;
        let out = &mut out[..total_len];
        header.encode(&mut out[payload_at..]);
        out[payload_at + PROBE_HEADER_LEN..].copy_from_slice(pattern.stretch(header.seq, fill_len));
        let head = &out[payload_at..payload_at + PROBE_HEADER_LEN];
        let payload_sum = word_sum(head) + pattern.word_sum(header.seq, fill_len);
        self.finish(out, payload_sum);
    }

    /// Writes a control probe with the given body; returns the packet length.
    ///
    /// # Panics
    /// If `out` cannot hold the packet.
    pub fn control(&self, header: &ProbeHeader, body: &[u8], out: &mut [u8]) -> usize {
        let payload_at = self.overhead();
        let total_len = payload_at + PROBE_HEADER_LEN + body.len();
        let out = &mut out[..total_len];
        header.encode(&mut out[payload_at..]);
        out[payload_at + PROBE_HEADER_LEN..].copy_from_slice(body);
        let payload_sum = word_sum(&out[payload_at..]);
        self.finish(out, payload_sum);
        total_len
    }

    /// Writes IP and UDP headers around a payload whose word sum is known.
    fn finish(&self, out: &mut [u8], payload_sum: u64) {
        let total_len = out.len();
        let ip_len = self.overhead() - UDP_LEN;
        let udp_len = total_len - ip_len;
        match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let head = &mut out[..IPV4_LEN];
                head.fill(0);
                head[0] = 0x45;
                head[1] = self.traffic_class;
                head[2..4].copy_from_slice(&(total_len as u16).to_be_bytes());
                head[6] = 0x40; // don't fragment
                head[8] = TTL;
                head[9] = PROTO_UDP;
                head[12..16].copy_from_slice(&src.octets());
                head[16..20].copy_from_slice(&dst.octets());
                let checksum = fold(word_sum(head));
                head[10..12].copy_from_slice(&checksum.to_be_bytes());
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let head = &mut out[..IPV6_LEN];
                let first = 0x6000_0000 | u32::from(self.traffic_class) << 20;
                head[..4].copy_from_slice(&first.to_be_bytes());
                head[4..6].copy_from_slice(&(udp_len as u16).to_be_bytes());
                head[6] = PROTO_UDP;
                head[7] = TTL;
                head[8..24].copy_from_slice(&src.octets());
                head[24..40].copy_from_slice(&dst.octets());
            }
            _ => unreachable!("PacketBuilder::new refuses mixed families"),
        }
        let udp = &mut out[ip_len..ip_len + UDP_LEN];
        udp[0..2].copy_from_slice(&self.src.port().to_be_bytes());
        udp[2..4].copy_from_slice(&self.dst.port().to_be_bytes());
        udp[4..6].copy_from_slice(&(udp_len as u16).to_be_bytes());
        // The length counts twice: in the pseudo-header and in the UDP header (RFC 768).
        let checksum = match fold(self.pseudo_sum + 2 * udp_len as u64 + payload_sum) {
            0 => 0xffff,
            sum => sum,
        };
        udp[6..8].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// One received inner UDP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpView<'a> {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Octets of the IP packet, padding behind it excluded.
    pub total_len: usize,
    /// UDP payload.
    pub payload: &'a [u8],
}

/// Reads an unfragmented UDP packet without extension headers; `None` for anything else.
pub fn parse_udp(packet: &[u8]) -> Option<UdpView<'_>> {
    let (ip_len, total_len) = match packet.first()? >> 4 {
        4 => {
            let head = packet.get(..IPV4_LEN)?;
            let fragment = u16::from_be_bytes([head[6], head[7]]) & 0x3fff;
            if head[9] != PROTO_UDP || fragment != 0 {
                return None;
            }
            (usize::from(head[0] & 0x0f) * 4, usize::from(u16::from_be_bytes([head[2], head[3]])))
        }
        6 => {
            let head = packet.get(..IPV6_LEN)?;
            if head[6] != PROTO_UDP {
                return None;
            }
            (IPV6_LEN, IPV6_LEN + usize::from(u16::from_be_bytes([head[4], head[5]])))
        }
        _ => return None,
    };
    let datagram = packet.get(..total_len)?.get(ip_len..)?;
    let (head, payload) = datagram.split_first_chunk::<UDP_LEN>()?;
    if usize::from(u16::from_be_bytes([head[4], head[5]])) != datagram.len() {
        return None;
    }
    Some(UdpView {
        src_port: u16::from_be_bytes([head[0], head[1]]),
        dst_port: u16::from_be_bytes([head[2], head[3]]),
        total_len,
        payload,
    })
}

fn address_sum(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(v4) => word_sum(&v4.octets()),
        IpAddr::V6(v6) => word_sum(&v6.octets()),
    }
}

/// Returns the sum of the big-endian 16-bit words, an odd last octet padded with zero.
fn word_sum(octets: &[u8]) -> u64 {
    let mut words = octets.chunks_exact(2);
    let sum: u64 = words.by_ref().map(|word| u64::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    sum + words.remainder().first().map_or(0, |last| u64::from(*last) << 8)
}

/// Folds a word sum into the Internet checksum (RFC 1071).
fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::super::ProbeKind;
    use super::*;

    fn header(seq: u64) -> ProbeHeader {
        ProbeHeader { kind: ProbeKind::Data, flags: 0, mark: 6, ue: 3, run: 4, seq, sent_ns: 5 }
    }

    /// Sums a whole packet the way a receiver does; 0xffff before inversion means the checksum is right.
    fn udp_checksum_holds(packet: &[u8]) -> bool {
        let (addresses, ip_len) =
            if packet[0] >> 4 == 4 { (&packet[12..20], IPV4_LEN) } else { (&packet[8..40], IPV6_LEN) };
        let datagram = &packet[ip_len..];
        fold(word_sum(addresses) + u64::from(PROTO_UDP) + datagram.len() as u64 + word_sum(datagram)) == 0
    }

    #[test]
    fn data_packets_have_right_lengths_and_checksums_in_both_families() {
        let pattern = Pattern::new();
        for (src, dst) in [("10.64.0.9:9", "198.18.0.1:5000"), ("[fd64::9]:9", "[2001:db8::1]:5000")] {
            let builder = PacketBuilder::new(src.parse().unwrap(), dst.parse().unwrap()).unwrap();
            for (seq, len) in [(0, 84), (1, 1400), (255, 577), (256, 1399)] {
                let mut packet = vec![0xaa; len];
                builder.data(&header(seq), &pattern, len, &mut packet);
                assert!(udp_checksum_holds(&packet), "{src} {len}");
                if packet[0] >> 4 == 4 {
                    assert_eq!(fold(word_sum(&packet[..IPV4_LEN])), 0);
                }
                let view = parse_udp(&packet).unwrap();
                assert_eq!((view.src_port, view.dst_port, view.total_len), (9, 5000, len));
                let (read, rest) = ProbeHeader::decode(view.payload).unwrap();
                assert_eq!(read, header(seq));
                assert!(pattern.matches(seq, rest));
            }
        }
    }

    #[test]
    fn control_packets_round_trip() {
        let builder =
            PacketBuilder::new("10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap()).unwrap();
        let mut out = [0; 256];
        let len = builder.control(&header(9), b"odd", &mut out);
        assert!(udp_checksum_holds(&out[..len]));
        let (_, body) = ProbeHeader::decode(parse_udp(&out[..len]).unwrap().payload).unwrap();
        assert_eq!(body, b"odd");
    }

    #[test]
    fn traffic_class_is_where_both_families_have_it() {
        let ef = |src: &str, dst: &str| {
            let builder = PacketBuilder::new(src.parse().unwrap(), dst.parse().unwrap()).unwrap();
            let mut packet = [0; 160];
            builder.with_traffic_class(TRAFFIC_CLASS_EF).data(&header(0), &Pattern::new(), 160, &mut packet);
            codec::ip::InnerHeader::parse(&packet).unwrap().dscp
        };
        assert_eq!([ef("10.0.0.1:1", "10.0.0.2:2"), ef("[fd00::1]:1", "[fd00::2]:2")], [46, 46]);
    }

    #[test]
    fn mixed_families_are_refused() {
        assert!(PacketBuilder::new("10.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()).is_none());
    }

    #[test]
    fn truncated_and_foreign_packets_are_none() {
        let builder =
            PacketBuilder::new("10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap()).unwrap();
        let mut packet = vec![0; 200];
        builder.data(&header(1), &Pattern::new(), 200, &mut packet);
        for len in 0..packet.len() {
            assert_eq!(parse_udp(&packet[..len]), None, "{len} octets");
        }
        packet[9] = 6;
        assert_eq!(parse_udp(&packet), None, "TCP");
    }
}
