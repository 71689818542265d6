//! UDP in runs: many datagrams of one size in one system call (UDP_SEGMENT), and back (UDP_GRO).

use std::io::{self, IoSlice};
use std::mem;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::check;
use super::sockets::{from_raw, set_option, to_raw};
use super::udp::{SendControl, UDP_GRO};

/// Datagrams the kernel takes in one call (UDP_MAX_SEGMENTS).
pub const SEGMENTS_MAX: usize = 64;

/// Octets of a run, and so of a receive buffer that holds any.
pub const RUN_LEN_MAX: usize = 65_507;

/// Octets of datagrams that may wait in a socket.
const RECEIVE_BUFFER: libc::c_int = 1 << 20;

/// Room for one control message with an int in it, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// Datagrams that arrived in one call.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Octets of all of them.
    pub len: usize,
    /// Octets of each but the last, which may be shorter; at least 1.
    pub segment: usize,
    /// Who sent them.
    pub from: Option<SocketAddr>,
}

/// Opens a non-blocking UDP socket at `local` whose datagrams may be fragmented on the way: an IKE message
/// does not fit every path, and there is no other way for it. It yields runs.
///
/// # Errors
/// Whatever the kernel answers to socket and bind.
pub fn open(local: SocketAddr) -> io::Result<UdpSocket> {
    let family = if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: socket takes no pointers; the descriptor it returns belongs to nobody else yet.
    let fd = unsafe {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        OwnedFd::from_raw_fd(check(libc::socket(family, kind, 0))?)
    };
    let raw = fd.as_raw_fd();
    if local.is_ipv4() {
        set_option(raw, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT)?;
    } else {
        set_option(raw, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
        set_option(raw, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT)?;
    }
    // An address of its own beside a daemon on the wildcard address: `originate` on the client's host.
    if local.port() != 0 {
        set_option(raw, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    }
    // Kernels before 5.0 deliver each datagram by itself.
    let _ = set_option(raw, libc::IPPROTO_UDP, UDP_GRO, 1);
    // As far as net.core.rmem_max goes; it takes memory only while datagrams wait.
    set_option(raw, libc::SOL_SOCKET, libc::SO_RCVBUF, RECEIVE_BUFFER)?;
    let (storage, len) = to_raw(local);
    // SAFETY: `storage` is a sockaddr of `len` octets that outlives the call.
    unsafe { check(libc::bind(raw, (&raw const storage).cast(), len))? };
    Ok(UdpSocket::from(fd))
}

/// Opens a socket of `source`, or of whatever address routes there, connected to `remote`: the kernel picks
/// a port nobody else has and drops what comes from elsewhere.
///
/// # Errors
/// Whatever the kernel answers; all ports of the address may be taken.
pub fn connect(source: Option<IpAddr>, remote: SocketAddr) -> io::Result<UdpSocket> {
    let any = match remote {
        SocketAddr::V4(_) => SocketAddr::from(([0, 0, 0, 0], 0)),
        SocketAddr::V6(_) => SocketAddr::from(([0_u16; 8], 0)),
    };
    let socket = open(source.map_or(any, |source| SocketAddr::new(source, 0)))?;
    socket.connect(remote)?;
    Ok(socket)
}

/// Sends one datagram made of `parts` to `to`, or where the socket is connected. With `segment` it sends what
/// the parts hold as datagrams of so many octets, the last of which may be shorter: at most
/// [`SEGMENTS_MAX`] of them, and [`RUN_LEN_MAX`] octets.
///
/// # Errors
/// Whatever the kernel answers; nothing was sent then.
pub fn send(
    socket: &UdpSocket,
    parts: &[IoSlice<'_>],
    segment: Option<u16>,
    to: Option<SocketAddr>,
) -> io::Result<()> {
    let mut address = to.map(to_raw);
    let mut control = SendControl::new(None, segment);
    // SAFETY: an all-zero msghdr is valid. Name, parts and control outlive the call; IoSlice has the layout
    // of iovec, and sendmsg only reads through all of them.
    unsafe {
        let mut message: libc::msghdr = mem::zeroed();
        if let Some((storage, len)) = &mut address {
            message.msg_name = (&raw mut *storage).cast();
            message.msg_namelen = *len;
        }
        message.msg_iov = parts.as_ptr().cast_mut().cast();
        message.msg_iovlen = parts.len();
        control.attach(&mut message);
        let sent = libc::sendmsg(socket.as_raw_fd(), &message, libc::MSG_NOSIGNAL);
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// Receives a datagram, or as many of one size and sender as lie there together.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] when there is none; for a connected socket also what became of datagrams
/// sent before, such as a refused connection.
pub fn receive_run(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Run> {
    let mut control = Control([0; 64]);
    // SAFETY: an all-zero sockaddr_storage and msghdr are valid; the kernel writes name, control and octets
    // within the lengths given here, all of which outlive the call. Control messages are walked by the
    // macros within the length the kernel returned, and UDP_GRO carries an int.
    unsafe {
        let mut storage: libc::sockaddr_storage = mem::zeroed();
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let mut message: libc::msghdr = mem::zeroed();
        message.msg_name = (&raw mut storage).cast();
        message.msg_namelen = size_of_val(&storage) as libc::socklen_t;
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = size_of_val(&control);
        let len = libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0);
        let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
        let mut segment = len;
        let mut header = libc::CMSG_FIRSTHDR(&message);
        while let Some(entry) = header.as_ref() {
            if (entry.cmsg_level, entry.cmsg_type) == (libc::IPPROTO_UDP, UDP_GRO) {
                let size = libc::CMSG_DATA(header).cast::<libc::c_int>().read_unaligned();
                segment = usize::try_from(size).unwrap_or(len);
            }
            header = libc::CMSG_NXTHDR(&message, header);
        }
        Ok(Run { len, segment: segment.clamp(1, len.max(1)), from: from_raw(&storage) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (UdpSocket, UdpSocket) {
        let far = open("127.0.0.1:0".parse().expect("address")).expect("open");
        let near = connect(None, far.local_addr().expect("bound")).expect("connected");
        (near, far)
    }

    #[test]
    fn a_run_arrives_as_the_same_datagrams_from_its_sender() {
        let (near, far) = pair();
        let octets: Vec<u8> = (0..64_u32).flat_map(|n| [n as u8; 1000]).collect();
        let mut parts: Vec<IoSlice<'_>> = octets[..63_000].chunks(1000).map(IoSlice::new).collect();
        parts.push(IoSlice::new(&octets[63_000..63_400]));
        send(&near, &parts, Some(1000), None).expect("sent");
        let (mut buffer, mut found) = (vec![0; 65_536], Vec::new());
        while let Ok(run) = receive_run(&far, &mut buffer) {
            assert_eq!(run.from, near.local_addr().ok());
            found.extend(buffer[..run.len].chunks(run.segment).map(<[u8]>::to_vec));
        }
        assert_eq!(found.len(), 64);
        assert_eq!(found.concat(), octets[..63_400]);
        assert_eq!(found[63].len(), 400);
    }

    #[test]
    fn a_large_message_leaves_in_fragments_and_an_empty_one_is_received() {
        let (near, far) = pair();
        let to = near.local_addr().expect("bound");
        send(&far, &[IoSlice::new(&[7; 4]), IoSlice::new(&vec![7; 59_996])], None, Some(to)).expect("sent");
        send(&far, &[IoSlice::new(&[])], None, Some(to)).expect("sent");
        let mut buffer = vec![0; 65_536];
        let run = receive_run(&near, &mut buffer).expect("arrived");
        assert_eq!((run.len, run.segment), (60_000, 60_000));
        assert_eq!(receive_run(&near, &mut buffer).expect("arrived").len, 0);
        let nothing = receive_run(&near, &mut buffer).expect_err("nothing left");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn every_connected_socket_has_a_port_of_its_own() {
        let far = open("127.0.0.1:0".parse().expect("address")).expect("open");
        let to = far.local_addr().expect("bound");
        let sockets: Vec<_> = (0..50).map(|_| connect(None, to).expect("connected")).collect();
        let ports: std::collections::HashSet<_> =
            sockets.iter().map(|socket| socket.local_addr().expect("bound").port()).collect();
        assert_eq!(ports.len(), 50);
    }
}
