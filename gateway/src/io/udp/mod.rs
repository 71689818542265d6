//! UDP sockets for IKE and UDP-encapsulated ESP (RFC 7296 §2, RFC 3948): opening, steering, what a received
//! message says, and batches to send.

mod batch;
mod received;
mod steer;

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::{mem, ptr};

use super::sockets::{address, open, set_option, to_raw};
use super::{check, sockets};
use crate::types::IKE_PORT;
pub(in crate::io) use batch::Control as SendControl;
pub use batch::{Batch, Lost, Route, Sent};
pub use received::Arrival;
pub(super) use received::Layout;

/// Options of linux/udp.h.
const UDP_SEGMENT: libc::c_int = 103;
pub(in crate::io) const UDP_GRO: libc::c_int = 104;

/// One worker's socket of a listening address. It serves any number of UEs.
#[derive(Debug)]
pub struct UdpSocket {
    fd: OwnedFd,
    local: SocketAddr,
}

impl UdpSocket {
    /// The address it is bound to.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Whether it carries ESP and so a non-ESP marker in front of IKE: on every port but 500.
    pub fn carries_esp(&self) -> bool {
        self.local.port() != IKE_PORT
    }

    /// Whether datagrams from `local` can leave here.
    pub fn serves(&self, local: SocketAddr) -> bool {
        let same_family = self.local.is_ipv4() == local.is_ipv4();
        let same_ip = self.local.ip() == local.ip() || self.is_wildcard() && same_family;
        self.local.port() == local.port() && same_ip
    }

    /// The address a datagram must be sent from so that it comes from `local`; `None` where the socket says it.
    pub fn source(&self, local: SocketAddr) -> Option<IpAddr> {
        self.is_wildcard().then(|| local.ip())
    }

    fn is_wildcard(&self) -> bool {
        self.local.ip().is_unspecified()
    }

    /// Sends one datagram of `parts` from `local` to `remote`, without waiting.
    ///
    /// # Errors
    /// Whatever the kernel answers; `WouldBlock` when the socket is full.
    pub fn send(&self, local: SocketAddr, remote: SocketAddr, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let (mut name, name_len) = to_raw(remote);
        let mut control = batch::Control::new(self.source(local), None);
        // SAFETY: all-zero is a valid msghdr; IoSlice has the layout of iovec; everything it points to lives until
        // the call has returned, and the kernel only reads it.
        unsafe {
            let mut message: libc::msghdr = mem::zeroed();
            message.msg_name = (&raw mut name).cast();
            message.msg_namelen = name_len;
            message.msg_iov = parts.as_ptr().cast_mut().cast();
            message.msg_iovlen = parts.len() as _;
            control.attach(&mut message);
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            check(libc::sendmsg(self.as_raw_fd(), &raw const message, flags) as libc::c_int).map(drop)
        }
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for UdpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Opens the sockets of `addr`, one for each of `count` workers in their order, each with about `octets` of kernel
/// memory per direction. ESP goes to the worker its SPI names; the kernel spreads everything else.
///
/// # Errors
/// `AddrInUse` also when another process shares its port with others; whatever else the kernel answers.
pub fn listen_udp(mut addr: SocketAddr, count: usize, octets: u32) -> io::Result<Vec<UdpSocket>> {
    if addr.port() != 0 {
        // Two gateways on one port would each get a part of the datagrams. Held only to see that nobody is there.
        bind(&socket(addr)?, addr)?;
    }
    let mut opened = Vec::with_capacity(count);
    for _ in 0..count {
        let fd = socket(addr)?;
        set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        configure(&fd, addr, octets)?;
        bind(&fd, addr)?;
        addr = address(fd.as_raw_fd(), libc::getsockname)?;
        opened.push(UdpSocket { fd, local: addr });
    }
    if let Some(first) = opened.first().filter(|first| count > 1 && first.carries_esp()) {
        steer::by_spi(first.as_fd())?;
    }
    Ok(opened)
}

fn socket(addr: SocketAddr) -> io::Result<OwnedFd> {
    let fd = open(addr, libc::SOCK_DGRAM)?;
    if addr.is_ipv6() {
        set_option(fd.as_raw_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
    }
    Ok(fd)
}

fn bind(fd: &OwnedFd, addr: SocketAddr) -> io::Result<()> {
    let (raw, len) = to_raw(addr);
    // SAFETY: `raw` is a sockaddr of `len` octets that outlives the call.
    unsafe { check(libc::bind(fd.as_raw_fd(), (&raw const raw).cast(), len)).map(drop) }
}

fn configure(fd: &OwnedFd, addr: SocketAddr, octets: u32) -> io::Result<()> {
    let raw = fd.as_raw_fd();
    // Large IKE messages and ESP on narrow paths are fragmented, not lost.
    if addr.is_ipv4() {
        set_option(raw, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT)?;
    } else {
        set_option(raw, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT)?;
        sockets::fix_flow_label(raw)?;
    }
    // RFC 7296 §2.11: answers leave from the address the request came to.
    match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => set_option(raw, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?,
        IpAddr::V6(ip) if ip.is_unspecified() => {
            set_option(raw, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
        }
        _ => {}
    }
    // Without it every datagram comes alone.
    let _ = set_option(raw, libc::SOL_UDP, UDP_GRO, 1);
    let octets = libc::c_int::try_from(octets).unwrap_or(libc::c_int::MAX);
    for (forced, bounded) in
        [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
    {
        // Without CAP_NET_ADMIN the host's bound holds.
        set_option(raw, libc::SOL_SOCKET, forced, octets)
            .or_else(|_| set_option(raw, libc::SOL_SOCKET, bounded, octets))?;
    }
    Ok(())
}

/// Octets of a control message with `len` octets of data.
const fn control_space(len: usize) -> usize {
    const ALIGN: usize = size_of::<usize>();
    (CONTROL_HEADER + len).next_multiple_of(ALIGN)
}

/// Octets of a `cmsghdr`.
const CONTROL_HEADER: usize = size_of::<libc::cmsghdr>();

/// A null pointer for a message without that part.
fn none<T>() -> *mut T {
    ptr::null_mut()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_on_the_port_is_noticed() {
        let first = listen_udp("127.0.0.1:0".parse().expect("address"), 2, 1 << 16).expect("free");
        let addr = first[0].local();
        assert_eq!(first[1].local(), addr);
        let error = listen_udp(addr, 1, 1 << 16).expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_wildcard_socket_serves_its_family_and_says_where_from() {
        let any = listen_udp("0.0.0.0:0".parse().expect("address"), 1, 1 << 16).expect("free").remove(0);
        let port = any.local().port();
        let here = SocketAddr::from(([127, 0, 0, 1], port));
        assert!(any.serves(here) && !any.serves(SocketAddr::from(([0_u16; 8], port))));
        assert_eq!(any.source(here), Some(here.ip()));
        let one = listen_udp("127.0.0.1:0".parse().expect("address"), 1, 1 << 16).expect("free").remove(0);
        assert_eq!(one.source(one.local()), None);
        assert!(!one.serves(SocketAddr::from(([127, 0, 0, 2], one.local().port()))));
    }
}
