//! What the kernel writes into a buffer for one message: a header, the sender's address, control messages, payload.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::ops::Range;

use super::{CONTROL_HEADER, UDP_GRO, control_space, none};

/// Octets of `io_uring_recvmsg_out`: lengths of name, control messages and payload, and flags.
const HEADER_LEN: usize = 16;

/// Octets kept for the sender's address: a `sockaddr_in6`, rounded up.
const NAME_LEN: usize = 32;

/// Octets kept for control messages: the destination address and the length of segments.
const CONTROL_LEN: usize =
    control_space(size_of::<libc::in6_pktinfo>()) + control_space(size_of::<libc::c_int>());

/// How messages are laid out in their buffers. The kernel reads it when a receive is armed or goes on.
pub(in crate::io) struct Layout(libc::msghdr);

impl Layout {
    /// Octets in front of the payload.
    pub const OVERHEAD: usize = HEADER_LEN + NAME_LEN + CONTROL_LEN;

    pub fn new() -> Box<Self> {
        Box::new(Self(libc::msghdr {
            msg_name: none(),
            msg_namelen: NAME_LEN as libc::socklen_t,
            msg_iov: none(),
            msg_iovlen: 0,
            msg_control: none(),
            msg_controllen: CONTROL_LEN as _,
            msg_flags: 0,
        }))
    }

    pub fn as_ptr(&self) -> *const libc::msghdr {
        &raw const self.0
    }
}

/// One received message: a datagram, or several of equal length that the kernel joined (UDP GRO).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Arrival {
    /// Who sent it.
    pub remote: SocketAddr,
    /// Our address it was sent to; `None` where the socket says it.
    pub local: Option<IpAddr>,
    /// Where the datagrams lie in the buffer.
    pub payload: Range<usize>,
    /// Length of each but the last, which may be shorter.
    pub segment: usize,
}

impl Arrival {
    /// Reads a filled buffer; `None` when it is not what the kernel writes, or the payload did not fit.
    pub fn parse(buffer: &[u8]) -> Option<Self> {
        let word = |at: usize| {
            let octets = buffer.get(at..at + 4)?.first_chunk()?;
            usize::try_from(u32::from_ne_bytes(*octets)).ok()
        };
        let (control_len, payload_len, flags) = (word(4)?, word(8)?, word(12)?);
        let (name, rest) = buffer.get(HEADER_LEN..)?.split_at_checked(NAME_LEN)?;
        let control = rest.get(..control_len.min(CONTROL_LEN))?;
        let payload = Layout::OVERHEAD..Layout::OVERHEAD.checked_add(payload_len)?;
        if flags & libc::MSG_TRUNC as usize != 0 || payload.end > buffer.len() {
            return None;
        }
        let mut received = Self { remote: sender(name)?, local: None, payload, segment: payload_len };
        received.read_control(control);
        Some(received)
    }

    /// The datagrams, as places in the buffer.
    pub fn datagrams(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (end, segment) = (self.payload.end, self.segment.max(1));
        let empty = self.payload.is_empty().then(|| self.payload.clone());
        empty
            .into_iter()
            .chain(self.payload.clone().step_by(segment).map(move |start| start..end.min(start + segment)))
    }

    fn read_control(&mut self, mut rest: &[u8]) {
        while let Some((header, _)) = rest.split_at_checked(CONTROL_HEADER) {
            let (len, kind) = header.split_at(size_of::<usize>());
            let len = len.first_chunk().map_or(0, |octets| usize::from_ne_bytes(*octets));
            let Some(data) = rest.get(CONTROL_HEADER..len) else { return };
            let int = |octets: &[u8]| octets.first_chunk().map(|octets| i32::from_ne_bytes(*octets));
            let (level, kind) = (int(kind), kind.get(4..).and_then(int));
            match (level, kind) {
                (Some(libc::SOL_UDP), Some(UDP_GRO)) => {
                    let segment = int(data).and_then(|segment| usize::try_from(segment).ok());
                    self.segment = segment.filter(|segment| *segment > 0).unwrap_or(self.segment);
                }
                // ipi_ifindex, ipi_spec_dst, ipi_addr
                (Some(libc::IPPROTO_IP), Some(libc::IP_PKTINFO)) => {
                    let octets = data.get(8..).and_then(|octets| octets.first_chunk::<4>());
                    self.local = octets.map(|octets| Ipv4Addr::from(*octets).into());
                }
                // ipi6_addr, ipi6_ifindex
                (Some(libc::IPPROTO_IPV6), Some(libc::IPV6_PKTINFO)) => {
                    self.local = data.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets).into());
                }
                _ => {}
            }
            rest = rest.get(len.next_multiple_of(size_of::<usize>())..).unwrap_or_default();
        }
    }
}

/// The address in a `sockaddr_in` or `sockaddr_in6`.
fn sender(name: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(*name.first_chunk()?);
    let port = u16::from_be_bytes(*name.get(2..)?.first_chunk()?);
    match libc::c_int::from(family) {
        libc::AF_INET => {
            let ip = Ipv4Addr::from(*name.get(4..)?.first_chunk::<4>()?);
            Some((ip, port).into())
        }
        libc::AF_INET6 => {
            let ip = Ipv6Addr::from(*name.get(8..)?.first_chunk::<16>()?);
            let scope = u32::from_ne_bytes(*name.get(24..)?.first_chunk()?);
            Some(SocketAddrV6::new(ip, port, 0, scope).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(control: &[u8], payload: &[u8], flags: i32) -> Vec<u8> {
        let mut buffer = Vec::new();
        for word in [16, control.len() as u32, payload.len() as u32, flags as u32] {
            buffer.extend(word.to_ne_bytes());
        }
        buffer.extend((libc::AF_INET as u16).to_ne_bytes());
        buffer.extend(4500u16.to_be_bytes());
        buffer.extend([192, 0, 2, 7]);
        buffer.resize(HEADER_LEN + NAME_LEN, 0);
        buffer.extend(control);
        buffer.resize(Layout::OVERHEAD, 0);
        buffer.extend(payload);
        buffer
    }

    fn control(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
        let mut octets = (CONTROL_HEADER + data.len()).to_ne_bytes().to_vec();
        octets.extend(level.to_ne_bytes());
        octets.extend(kind.to_ne_bytes());
        octets.extend(data);
        octets.resize(control_space(data.len()), 0);
        octets
    }

    #[test]
    fn joined_datagrams_are_cut_where_the_kernel_says() {
        let gro = control(libc::SOL_UDP, UDP_GRO, &5i32.to_ne_bytes());
        let to = control(libc::IPPROTO_IP, libc::IP_PKTINFO, &[1, 0, 0, 0, 0, 0, 0, 0, 198, 51, 100, 1]);
        let buffer = buffer(&[to, gro].concat(), b"abcdeabcdeab", 0);
        let received = Arrival::parse(&buffer).expect("well formed");
        assert_eq!(received.remote, "192.0.2.7:4500".parse().expect("address"));
        assert_eq!(received.local, Some([198, 51, 100, 1].into()));
        let parts: Vec<&[u8]> = received.datagrams().map(|range| &buffer[range]).collect();
        assert_eq!(parts, [&b"abcde"[..], b"abcde", b"ab"]);
    }

    #[test]
    fn an_empty_datagram_is_one_and_a_truncated_one_none() {
        let empty = buffer(&[], b"", 0);
        assert_eq!(Arrival::parse(&empty).expect("well formed").datagrams().count(), 1);
        assert_eq!(Arrival::parse(&buffer(&[], b"abc", libc::MSG_TRUNC)), None);
        let whole = buffer(&[], b"abc", 0);
        for len in 0..whole.len() {
            assert_eq!(Arrival::parse(&whole[..len]), None, "{len} octets");
        }
    }

    #[test]
    fn broken_control_messages_are_ignored() {
        for len in [0usize, 1, CONTROL_HEADER, 1 << 40, usize::MAX] {
            let mut control = control(libc::SOL_UDP, UDP_GRO, &[0; 4]);
            control[..size_of::<usize>()].copy_from_slice(&len.to_ne_bytes());
            let received = Arrival::parse(&buffer(&control, b"abc", 0)).expect("well formed");
            assert_eq!(received.segment, 3);
        }
    }
}
