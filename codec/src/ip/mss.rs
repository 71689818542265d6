//! TCP maximum segment size clamping.

use super::checksum::update_checksum;
use super::header::{Fragment, InnerHeader};
use super::protocol;

const TCP_HEADER_LEN: usize = 20;
const FLAG_SYN: u8 = 0x02;
const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_MSS: u8 = 2;
const MSS_OPTION_LEN: u8 = 4;

/// Lowers the MSS option of a TCP SYN so that its segments fit `mtu`, and corrects the checksum.
///
/// Returns whether it changed the packet. Anything but a SYN with a larger MSS stays as it is: other packets,
/// later fragments, malformed options.
///
/// Source: RFC 9293 §3.7.1, RFC 1624.
pub fn clamp_mss(packet: &mut [u8], mtu: u16) -> bool {
    let Some((tcp, at, old, new)) = find(packet, mtu) else {
        return false;
    };
    write(tcp, at, new);
    // RFC 1071 §2: a word at an odd offset counts with its octets swapped.
    let (old, new) = if at % 2 == 0 { (old, new) } else { (old.swap_bytes(), new.swap_bytes()) };
    let checksum = update_checksum(u16::from_be_bytes([tcp[16], tcp[17]]), old, new);
    tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
    true
}

/// As [`clamp_mss`] for a packet whose checksum is still to be computed (`VIRTIO_NET_HDR_F_NEEDS_CSUM`): its
/// field holds the pseudo header alone and stays.
pub fn clamp_mss_unsummed(packet: &mut [u8], mtu: u16) -> bool {
    let Some((tcp, at, _, new)) = find(packet, mtu) else {
        return false;
    };
    write(tcp, at, new);
    true
}

fn write(tcp: &mut [u8], at: usize, mss: u16) {
    tcp[at..at + 2].copy_from_slice(&mss.to_be_bytes());
}

/// The TCP header with options of a SYN whose MSS exceeds what `mtu` allows, the place of the value in it, the
/// value and its replacement.
fn find(packet: &mut [u8], mtu: u16) -> Option<(&mut [u8], usize, u16, u16)> {
    let header = InnerHeader::parse(packet).ok()?;
    if header.proto != protocol::TCP || header.fragment == Fragment::Later {
        return None;
    }
    let tcp = packet.get_mut(header.transport_at..header.total_len)?;
    let fixed: &[u8; TCP_HEADER_LEN] = tcp.first_chunk()?;
    let header_len = usize::from(fixed[12] >> 4) * 4;
    if fixed[13] & FLAG_SYN == 0 || header_len < TCP_HEADER_LEN {
        return None;
    }
    let tcp = tcp.get_mut(..header_len)?;
    let at = mss_option(tcp)?;
    let old = u16::from_be_bytes([tcp[at], tcp[at + 1]]);
    let ip_header_len = if header.version == 4 { 20 } else { 40 };
    let new = mtu.saturating_sub(ip_header_len + TCP_HEADER_LEN as u16);
    (old > new).then_some((tcp, at, old, new))
}

/// Where the MSS value lies in a TCP header with its options.
fn mss_option(tcp: &[u8]) -> Option<usize> {
    let mut at = TCP_HEADER_LEN;
    while at < tcp.len() {
        at += match (tcp[at], tcp.get(at + 1)) {
            (OPTION_END, _) => return None,
            (OPTION_NOP, _) => 1,
            (OPTION_MSS, Some(&MSS_OPTION_LEN)) if at + 4 <= tcp.len() => return Some(at + 2),
            (_, Some(&len)) if len >= 2 => usize::from(len),
            _ => return None,
        };
    }
    None
}
