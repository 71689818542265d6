//! UDP sockets of the kernel at two ends, with the kernel's receive stamps.

use super::tcp::LOOK;
use super::{End, Ends};
use crate::host::clock::{monotonic_ns, realtime_ns};
use crate::host::socket::is_timeout;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, send, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use std::io::{self, IoSliceMut};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

/// Expedited forwarding (DSCP 46) as a type of service.
pub(super) const EXPEDITED: u32 = 46 << 2;
/// Socket buffer of a receiver, in octets.
const BUFFER: usize = 4 << 20;

/// Opens a socket at either end, each connected to the other, on free ports; `tos` is their type of service.
pub(super) fn pair(ends: &Ends, tos: u32) -> io::Result<[UdpSocket; 2]> {
    let open = |end: &End| {
        let address = end.address;
        let socket = end.open(|| UdpSocket::bind((address, 0)))?;
        socket2::SockRef::from(&socket).set_tos_v4(tos)?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        // The larger buffer needs a privilege; without it there is the default.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER);
        socket.set_read_timeout(Some(LOOK))?;
        Ok::<_, io::Error>(socket)
    };
    let (from, to) = (open(&ends.from)?, open(&ends.to)?);
    from.connect(to.local_addr()?)?;
    to.connect(from.local_addr()?)?;
    Ok([from, to])
}

/// Sends if there is room, and else not: a packet that waits for room would carry a wrong stamp.
pub(super) fn send_now(socket: &UdpSocket, packet: &[u8]) {
    // What is refused is lost, as the receiver will see.
    let _ = send(socket.as_raw_fd(), packet, MsgFlags::MSG_DONTWAIT);
}

/// Receives datagrams with the time at which the kernel got them.
pub(super) struct Receiver<'a> {
    socket: &'a UdpSocket,
    control: Vec<u8>,
    buffer: [u8; 2048],
}

impl<'a> Receiver<'a> {
    pub(super) fn new(socket: &'a UdpSocket) -> Self {
        Self { socket, control: nix::cmsg_space!(TimeSpec), buffer: [0; 2048] }
    }

    /// Returns a datagram and when the kernel got it, by [`monotonic_ns`]; `None` when none came within [`LOOK`].
    ///
    /// # Errors
    /// Those of the socket that are not of the path.
    pub(super) fn receive(&mut self) -> io::Result<Option<(&[u8], u64)>> {
        let mut parts = [IoSliceMut::new(&mut self.buffer)];
        let fd = self.socket.as_raw_fd();
        let message = recvmsg::<SockaddrIn>(fd, &mut parts, Some(&mut self.control), MsgFlags::empty());
        let (len, stamp) = match message {
            Ok(message) => (message.bytes, message.cmsgs()?.find_map(stamp_ns)),
            Err(error) => {
                let error = io::Error::from(error);
                // An ICMP error is reported once, and tells of a packet that was lost.
                let of_path = error.kind() == io::ErrorKind::ConnectionRefused
                    || error.kind() == io::ErrorKind::HostUnreachable
                    || error.kind() == io::ErrorKind::NetworkUnreachable;
                return if is_timeout(&error) || of_path { Ok(None) } else { Err(error) };
            }
        };
        let at_ns = stamp.map_or_else(monotonic_ns, to_monotonic);
        Ok(Some((&self.buffer[..len], at_ns)))
    }
}

fn stamp_ns(message: ControlMessageOwned) -> Option<u64> {
    let ControlMessageOwned::ScmTimestampns(stamp) = message else { return None };
    Some(stamp.tv_sec() as u64 * 1_000_000_000 + stamp.tv_nsec() as u64)
}

/// Converts a stamp of the clock that may jump: only its age is used, which is short.
fn to_monotonic(stamp_ns: u64) -> u64 {
    let age_ns = realtime_ns().saturating_sub(stamp_ns);
    monotonic_ns().saturating_sub(age_ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    #[test]
    fn the_stamp_is_when_the_kernel_got_it_and_not_when_it_was_read() {
        let end = End { namespace: None, address: Ipv4Addr::LOCALHOST };
        let [from, to] = pair(&Ends { from: end.clone(), to: end }, EXPEDITED).unwrap();
        let mut receiver = Receiver::new(&to);
        assert!(receiver.receive().unwrap().is_none());
        let before_ns = monotonic_ns();
        send_now(&from, b"frame");
        let sent_ns = monotonic_ns();
        std::thread::sleep(Duration::from_millis(60));
        let (packet, at_ns) = receiver.receive().unwrap().unwrap();
        assert_eq!(packet, b"frame");
        // Another 5 ms for a machine that is busy: the send may be interrupted before it returns.
        assert!((before_ns.saturating_sub(100_000)..sent_ns + 5_000_000).contains(&at_ns));
    }
}
