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

/// Lowers the MSS option of a TCP SYN so that its segments fit `mtu`, and corrects the checksum. `header` is the packet's.
///
/// Returns whether it changed the packet. Anything but a SYN with a larger MSS stays as it is: other packets,
/// later fragments, malformed options.
///
/// Source: RFC 9293 §3.7.1, RFC 1624.
pub fn clamp_mss(packet: &mut [u8], header: &InnerHeader, mtu: u16) -> bool {
    let Some((tcp, at, old, new)) = find(packet, header, mtu) else {
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
pub fn clamp_mss_unsummed(packet: &mut [u8], header: &InnerHeader, mtu: u16) -> bool {
    let Some((tcp, at, _, new)) = find(packet, header, mtu) else {
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
fn find<'a>(packet: &'a mut [u8], header: &InnerHeader, mtu: u16) -> Option<(&'a mut [u8], usize, u16, u16)> {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::checksum::Checksum;
    use super::*;

    /// As for a packet that was parsed before; nothing changes where that fails.
    fn clamp_mss(packet: &mut [u8], mtu: u16) -> bool {
        InnerHeader::parse(packet).is_ok_and(|header| super::clamp_mss(packet, &header, mtu))
    }

    fn clamp_mss_unsummed(packet: &mut [u8], mtu: u16) -> bool {
        InnerHeader::parse(packet).is_ok_and(|header| super::clamp_mss_unsummed(packet, &header, mtu))
    }

    /// A TCP packet with correct checksum.
    fn tcp(version: u8, flags: u8, options: &[u8], data: &[u8]) -> Vec<u8> {
        assert_eq!(options.len() % 4, 0);
        let mut segment = vec![0; TCP_HEADER_LEN];
        segment[..4].copy_from_slice(&[0x30, 0x39, 0, 80]);
        segment[12] = ((TCP_HEADER_LEN + options.len()) / 4) as u8 * 16;
        segment[13] = flags;
        segment.extend_from_slice(options);
        segment.extend_from_slice(data);
        let mut packet = if version == 4 { vec![0; 20] } else { vec![0; 40] };
        if version == 4 {
            packet[0] = 0x45;
            packet[2..4].copy_from_slice(&(20 + segment.len() as u16).to_be_bytes());
            packet[9] = 6;
            packet[12..20].copy_from_slice(&[10, 0, 0, 1, 192, 0, 2, 1]);
        } else {
            packet[0] = 0x60;
            packet[4..6].copy_from_slice(&(segment.len() as u16).to_be_bytes());
            packet[6] = 6;
            packet[8..40].copy_from_slice(&[0xfd; 32]);
        }
        packet.extend_from_slice(&segment);
        let at = packet.len() - segment.len() + 16;
        let checksum = sum(&packet).finish();
        packet[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        packet
    }

    fn sum(packet: &[u8]) -> Checksum {
        let header = InnerHeader::parse(packet).unwrap();
        let segment = &packet[header.transport_at..];
        Checksum::new().with_pseudo_header(header.src, header.dst, 6, segment.len() as u32).with(segment)
    }

    #[test]
    fn a_syn_is_clamped_to_the_mtu_and_its_checksum_holds() {
        for (version, want) in [(4u8, 1240u16), (6, 1220)] {
            for flags in [0x02, 0x12] {
                let mut packet = tcp(version, flags, &[2, 4, 0x05, 0xb4], &[]);
                assert!(clamp_mss(&mut packet, 1280));
                assert_eq!(packet[packet.len() - 2..], want.to_be_bytes());
                assert_eq!(sum(&packet).finish(), 0);
                assert!(!clamp_mss(&mut packet, 1280), "a second pass finds nothing");
            }
        }
    }

    #[test]
    fn an_option_at_an_odd_offset_is_clamped_too() {
        let mut packet = tcp(4, 2, &[1, 2, 4, 0x23, 0x28, 1, 1, 0], &[9; 5]);
        assert!(clamp_mss(&mut packet, 1280));
        assert_eq!(packet[43..45], 1240u16.to_be_bytes());
        assert_eq!(sum(&packet).finish(), 0);
    }

    #[test]
    fn a_partial_checksum_is_left_alone() {
        let mut packet = tcp(4, 2, &[2, 4, 0x05, 0xb4], &[]);
        let before = packet[36..38].to_vec();
        assert!(clamp_mss_unsummed(&mut packet, 1280));
        assert_eq!(packet[36..38], before);
        assert_eq!(packet[42..44], 1240u16.to_be_bytes());
    }

    #[test]
    fn everything_else_passes_unchanged() {
        let syn = |options: &[u8]| tcp(4, 2, options, &[]);
        let mut later = syn(&[2, 4, 0x05, 0xb4]);
        later[7] = 1;
        let mut not_tcp = syn(&[2, 4, 0x05, 0xb4]);
        not_tcp[9] = 17;
        for packet in [
            tcp(4, 0x10, &[2, 4, 0x05, 0xb4], &[]),
            syn(&[2, 4, 0x04, 0xd8]),
            syn(&[2, 4, 0, 100]),
            syn(&[]),
            syn(&[0, 0, 2, 4, 0x05, 0xb4, 0, 0]),
            syn(&[2, 3, 0x05, 0xb4]),
            syn(&[3, 0, 2, 4]),
            syn(&[1, 1, 1, 2]),
            syn(&[1, 1, 2, 4]),
            later,
            not_tcp,
        ] {
            let mut same = packet.clone();
            assert!(!clamp_mss(&mut same, 1280));
            assert_eq!(same, packet);
        }
    }

    proptest! {
        #[test]
        fn any_options_never_panic_and_keep_the_checksum(
            mut options in prop::collection::vec(0u8..8, 0..40),
            flags: u8,
            mtu: u16,
        ) {
            options.truncate(options.len() / 4 * 4);
            let mut packet = tcp(4, flags, &options, &[1, 2, 3]);
            clamp_mss(&mut packet, mtu);
            prop_assert_eq!(sum(&packet).finish(), 0);
        }
    }
}
