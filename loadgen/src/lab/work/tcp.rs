//! TCP sockets of the kernel at an end: with a given congestion control, and never without a time limit.

use super::End;
use crate::host::clock::monotonic_ns;
use nix::sys::socket::sockopt::GetStruct;
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// Longest time that a call waits before it looks whether the time is over.
pub(super) const LOOK: Duration = Duration::from_millis(100);
/// What the kernel offers.
const OFFERED: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";
/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// Opens a listener on a free port; `accept` gives up after [`LOOK`], and what it accepts inherits `congestion`.
pub(super) fn listen(end: &End, congestion: &str) -> io::Result<TcpListener> {
    let socket = open(end, congestion)?;
    socket.listen(BACKLOG)?;
    socket.set_read_timeout(Some(LOOK))?;
    Ok(socket.into())
}

/// Connects until `deadline_ns`; reads and writes give up after [`LOOK`].
pub(super) fn connect(
    end: &End,
    to: SocketAddr,
    congestion: &str,
    deadline_ns: u64,
) -> io::Result<TcpStream> {
    let socket = open(end, congestion)?;
    let left_ns = deadline_ns.saturating_sub(monotonic_ns()).max(1_000_000);
    socket.connect_timeout(&to.into(), Duration::from_nanos(left_ns))?;
    limit(socket.into())
}

/// Lets reads and writes give up after [`LOOK`].
pub(super) fn limit(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_read_timeout(Some(LOOK))?;
    stream.set_write_timeout(Some(LOOK))?;
    Ok(stream)
}

/// Whether the call only ran out of its time limit.
pub(super) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

fn open(end: &End, congestion: &str) -> io::Result<Socket> {
    let address = end.address;
    end.open(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        setsockopt(&socket, sockopt::TcpCongestion, &congestion.into()).map_err(|error| {
            let offered = std::fs::read_to_string(OFFERED).unwrap_or_default();
            let offered = offered.trim();
            io::Error::other(format!(
                "congestion control {congestion}: {error}; the kernel offers: {offered}"
            ))
        })?;
        socket.bind(&SocketAddr::from((address, 0)).into())?;
        Ok(socket)
    })
}

/// The 32-bit words of `struct tcp_info` up to `tcpi_total_retrans`: this much every kernel has, in this order.
const INFO_WORDS: usize = 26;

#[derive(Clone, Copy)]
struct TcpInfo;

nix::getsockopt_impl!(
    TcpInfo,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    [u32; INFO_WORDS],
    GetStruct<[u32; INFO_WORDS]>
);

/// Returns how many segments the kernel has sent again on this connection; 0 when it does not say.
pub(super) fn retransmits(stream: &TcpStream) -> u64 {
    getsockopt(stream, TcpInfo).map_or(0, |words| u64::from(words[INFO_WORDS - 1]))
}
