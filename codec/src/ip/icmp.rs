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
