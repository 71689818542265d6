//! Inner packets, right and wrong.

use codec::ip::Checksum;
use std::net::Ipv4Addr;

/// Octets of an IPv4 header without options.
pub const IP_LEN: usize = 20;
/// Octets of an echo request without data.
const ECHO_LEN: usize = 8;
const ICMP: u8 = 1;
const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;

/// An ICMP echo request (RFC 792) in IPv4 with `data_len` octets of data.
pub fn echo_request(from: Ipv4Addr, to: Ipv4Addr, number: u32, data_len: usize) -> Vec<u8> {
    let mut packet = vec![0; IP_LEN + ECHO_LEN + data_len];
    let total = packet.len() as u16;
    let (ip, icmp) = packet.split_at_mut(IP_LEN);
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    ip[6] = 0x40;
    ip[8..10].copy_from_slice(&[64, ICMP]);
    ip[12..16].copy_from_slice(&from.octets());
    ip[16..20].copy_from_slice(&to.octets());
    icmp[0] = ECHO_REQUEST;
    icmp[4..8].copy_from_slice(&number.to_be_bytes());
    let sum = Checksum::new().with(icmp).finish().to_be_bytes();
    icmp[2..4].copy_from_slice(&sum);
    seal_header(&mut packet);
    packet
}

/// Makes the checksum of the IPv4 header right after a change.
pub fn seal_header(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let sum = Checksum::new().with(&packet[..IP_LEN]).finish().to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
}

/// Whether `packet` answers echo request `number`.
pub fn is_reply(packet: &[u8], number: u32) -> bool {
    packet.get(9) == Some(&ICMP)
        && packet.get(IP_LEN) == Some(&ECHO_REPLY)
        && packet.get(IP_LEN + 4..IP_LEN + ECHO_LEN) == Some(&number.to_be_bytes()[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_add_up_and_a_reply_is_told_by_its_number() {
        let mut packet = echo_request(Ipv4Addr::new(10, 64, 0, 2), Ipv4Addr::new(10, 77, 0, 1), 7, 11);
        assert_eq!(Checksum::new().with(&packet[..IP_LEN]).finish(), 0);
        assert_eq!(Checksum::new().with(&packet[IP_LEN..]).finish(), 0);
        assert!(!is_reply(&packet, 7));
        packet[IP_LEN] = ECHO_REPLY;
        assert!(is_reply(&packet, 7) && !is_reply(&packet, 8));
    }
}
