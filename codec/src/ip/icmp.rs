//! ICMP messages that tell an inner sender the path's MTU.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum::Checksum;
use super::header::{Fragment, InnerHeader};
use super::protocol;

/// Longest ICMPv4 error (RFC 1812 §4.3.2.3).
const V4_LEN_MAX: usize = 576;

/// Longest ICMPv6 error: the minimum MTU (RFC 4443 §2.4 (c)).
const V6_LEN_MAX: usize = 1280;

const V4_HEADER_LEN: usize = 20;
const V6_HEADER_LEN: usize = 40;
const ICMP_HEADER_LEN: usize = 8;
const HOP_LIMIT: u8 = 64;

/// Most octets [`packet_too_big`] writes.
pub const PACKET_TOO_BIG_LEN_MAX: usize = V6_LEN_MAX;

/// Writes the answer to a `packet` too long for `mtu`, from `gateway` to its source, to the front of `out`:
/// ICMPv4 type 3 code 4 with the next hop's MTU (RFC 1191 §4), or ICMPv6 type 2 (RFC 4443 §3.2).
///
/// Returns its octets, at most [`PACKET_TOO_BIG_LEN_MAX`], or `None` when no answer may be sent: an IPv4 packet without DF, a
/// later fragment, an ICMP error or redirect, a source or IPv4 destination that is no single host
/// (RFC 1122 §3.2.2, RFC 4443 §2.4 (e)), a `gateway` of the other family, or an `out` too small.
pub fn packet_too_big(packet: &[u8], mtu: u16, gateway: IpAddr, out: &mut [u8]) -> Option<usize> {
    let header = InnerHeader::parse(packet).ok()?;
    let packet = packet.get(..header.total_len)?;
    if header.fragment == Fragment::Later || is_icmp_error(&header, packet) {
        return None;
    }
    match (header.src, header.dst, gateway) {
        (IpAddr::V4(src), IpAddr::V4(dst), IpAddr::V4(gateway)) => {
            let dont_fragment = packet[6] & 0x40 != 0;
            let answerable = dont_fragment && is_host_v4(src) && !dst.is_multicast() && !dst.is_broadcast();
            answerable.then(|| write_v4(packet, mtu, gateway, src, out)).flatten()
        }
        (IpAddr::V6(src), IpAddr::V6(_), IpAddr::V6(gateway)) => {
            let answerable = !src.is_unspecified() && !src.is_multicast();
            answerable.then(|| write_v6(packet, mtu, gateway, src, out)).flatten()
        }
        _ => None,
    }
}

fn is_host_v4(address: Ipv4Addr) -> bool {
    !address.is_unspecified() && !address.is_multicast() && !address.is_broadcast() && !address.is_loopback()
}

/// Tells whether the packet is itself an error or a redirect, or cannot be told from one.
fn is_icmp_error(header: &InnerHeader, packet: &[u8]) -> bool {
    let kind = packet.get(header.transport_at);
    match header.proto {
        // RFC 792: unreachable, source quench, redirect, time exceeded, parameter problem.
        protocol::ICMP => kind.is_none_or(|kind| matches!(kind, 3 | 4 | 5 | 11 | 12)),
        // RFC 4443 §2.1: errors are below 128; 137 is a redirect (RFC 4861 §4.5).
        protocol::ICMPV6 => kind.is_none_or(|kind| *kind < 128 || *kind == 137),
        _ => false,
    }
}

fn write_v4(packet: &[u8], mtu: u16, gateway: Ipv4Addr, to: Ipv4Addr, out: &mut [u8]) -> Option<usize> {
    let quoted = &packet[..packet.len().min(V4_LEN_MAX - V4_HEADER_LEN - ICMP_HEADER_LEN)];
    let len = V4_HEADER_LEN + ICMP_HEADER_LEN + quoted.len();
    let (ip, icmp) = out.get_mut(..len)?.split_at_mut(V4_HEADER_LEN);
    ip.fill(0);
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    ip[8] = HOP_LIMIT;
    ip[9] = protocol::ICMP;
    ip[12..16].copy_from_slice(&gateway.octets());
    ip[16..20].copy_from_slice(&to.octets());
    let checksum = Checksum::new().with(ip).finish();
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());

    icmp[..ICMP_HEADER_LEN].copy_from_slice(&[3, 4, 0, 0, 0, 0, 0, 0]);
    icmp[6..8].copy_from_slice(&mtu.to_be_bytes());
    icmp[ICMP_HEADER_LEN..].copy_from_slice(quoted);
    let checksum = Checksum::new().with(icmp).finish();
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    Some(len)
}

fn write_v6(packet: &[u8], mtu: u16, gateway: Ipv6Addr, to: Ipv6Addr, out: &mut [u8]) -> Option<usize> {
    let quoted = &packet[..packet.len().min(V6_LEN_MAX - V6_HEADER_LEN - ICMP_HEADER_LEN)];
    let icmp_len = ICMP_HEADER_LEN + quoted.len();
    let (ip, icmp) = out.get_mut(..V6_HEADER_LEN + icmp_len)?.split_at_mut(V6_HEADER_LEN);
    ip.fill(0);
    ip[0] = 0x60;
    ip[4..6].copy_from_slice(&(icmp_len as u16).to_be_bytes());
    ip[6] = protocol::ICMPV6;
    ip[7] = HOP_LIMIT;
    ip[8..24].copy_from_slice(&gateway.octets());
    ip[24..40].copy_from_slice(&to.octets());

    icmp[..ICMP_HEADER_LEN].copy_from_slice(&[2, 0, 0, 0, 0, 0, 0, 0]);
    icmp[4..8].copy_from_slice(&u32::from(mtu).to_be_bytes());
    icmp[ICMP_HEADER_LEN..].copy_from_slice(quoted);
    let sum = Checksum::new().with_pseudo_header(
        IpAddr::V6(gateway),
        IpAddr::V6(to),
        protocol::ICMPV6,
        icmp_len as u32,
    );
    let checksum = sum.with(icmp).finish();
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    Some(V6_HEADER_LEN + icmp_len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp_v4(len: usize) -> Vec<u8> {
        let mut packet = vec![0x77; len];
        packet[..20].fill(0);
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        packet[6] = 0x40;
        packet[9] = 17;
        packet[12..20].copy_from_slice(&[10, 0, 0, 1, 192, 0, 2, 1]);
        packet
    }

    fn udp_v6(len: usize) -> Vec<u8> {
        let mut packet = vec![0x77; len];
        packet[..40].fill(0);
        packet[0] = 0x60;
        packet[4..6].copy_from_slice(&(len as u16 - 40).to_be_bytes());
        packet[6] = 17;
        packet[8] = 0xfd;
        packet[24] = 0xfd;
        packet[39] = 9;
        packet
    }

    fn answer(packet: &[u8], gateway: &str) -> Option<Vec<u8>> {
        let mut out = vec![0; PACKET_TOO_BIG_LEN_MAX];
        let len = packet_too_big(packet, 1280, gateway.parse().unwrap(), &mut out)?;
        out.truncate(len);
        Some(out)
    }

    #[test]
    fn r1191_4_fragmentation_needed_carries_the_mtu() {
        for len in [100, 1400, 9000] {
            let packet = udp_v4(len);
            let message = answer(&packet, "10.64.0.1").unwrap();
            let header = InnerHeader::parse(&message).unwrap();
            assert_eq!(header.total_len, message.len());
            assert_eq!(message.len(), (len + 28).min(576));
            assert_eq!((header.src, header.dst), ("10.64.0.1".parse().unwrap(), "10.0.0.1".parse().unwrap()));
            assert_eq!(message[20..22], [3, 4]);
            assert_eq!(message[26..28], 1280u16.to_be_bytes());
            assert_eq!(message[28..], packet[..message.len() - 28]);
            assert_eq!(Checksum::new().with(&message[..20]).finish(), 0);
            assert_eq!(Checksum::new().with(&message[20..]).finish(), 0);
        }
    }

    #[test]
    fn r4443_3_2_packet_too_big_carries_the_mtu() {
        for len in [100, 1400, 9000] {
            let packet = udp_v6(len);
            let message = answer(&packet, "fd64::1").unwrap();
            let header = InnerHeader::parse(&message).unwrap();
            assert_eq!(message.len(), (len + 48).min(1280));
            assert_eq!(message[40..42], [2, 0]);
            assert_eq!(message[44..48], 1280u32.to_be_bytes());
            assert_eq!(message[48..], packet[..message.len() - 48]);
            let sum =
                Checksum::new().with_pseudo_header(header.src, header.dst, 58, (message.len() - 40) as u32);
            assert_eq!(sum.with(&message[40..]).finish(), 0);
        }
    }

    #[test]
    fn r1122_3_2_2_no_error_about_errors_fragments_or_groups() {
        let with = |at: usize, octets: &[u8]| {
            let mut packet = udp_v4(1400);
            packet[at..at + octets.len()].copy_from_slice(octets);
            answer(&packet, "10.64.0.1")
        };
        assert!(with(6, &[0]).is_none(), "no DF: the packet may be fragmented");
        assert!(with(6, &[0x40, 1]).is_none(), "later fragment");
        assert!(with(12, &[0; 4]).is_none(), "unspecified source");
        assert!(with(12, &[224]).is_none(), "group as source");
        assert!(with(16, &[239]).is_none(), "group as destination");
        assert!(with(16, &[255; 4]).is_none(), "broadcast");
        for (kind, answered) in
            [(3, false), (4, false), (5, false), (11, false), (12, false), (0, true), (8, true)]
        {
            let mut packet = udp_v4(1400);
            packet[9] = 1;
            packet[20] = kind;
            assert_eq!(answer(&packet, "10.64.0.1").is_some(), answered, "ICMP type {kind}");
        }
    }

    #[test]
    fn r4443_2_4_e_no_error_about_errors_or_without_a_source() {
        for (kind, answered) in [(1, false), (2, false), (127, false), (137, false), (128, true), (129, true)]
        {
            let mut packet = udp_v6(1400);
            packet[6] = 58;
            packet[40] = kind;
            assert_eq!(answer(&packet, "fd64::1").is_some(), answered, "ICMPv6 type {kind}");
        }
        let mut packet = udp_v6(1400);
        packet[8] = 0;
        assert!(answer(&packet, "fd64::1").is_none());
        packet[8] = 0xff;
        assert!(answer(&packet, "fd64::1").is_none());
        let mut to_group = udp_v6(1400);
        to_group[24] = 0xff;
        assert!(answer(&to_group, "fd64::1").is_some(), "Packet Too Big is the exception");
    }

    #[test]
    fn no_answer_across_families_or_into_too_little_room() {
        assert!(answer(&udp_v4(1400), "fd64::1").is_none());
        assert!(answer(&udp_v6(1400), "10.64.0.1").is_none());
        let gateway = "10.64.0.1".parse().unwrap();
        assert_eq!(packet_too_big(&udp_v4(1400), 1280, gateway, &mut [0; 575]), None);
        assert_eq!(packet_too_big(&[], 1280, gateway, &mut [0; 600]), None);
    }
}
