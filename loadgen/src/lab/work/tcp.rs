//! TCP sockets of the kernel at an end: with a given congestion control, and never without a time limit.

use super::End;
use crate::host::clock::monotonic_ns;
use crate::host::tcp_info::congestion_controls;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// Longest time that a call waits before it looks whether the time is over.
pub(super) const LOOK: Duration = Duration::from_millis(100);
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

fn open(end: &End, congestion: &str) -> io::Result<Socket> {
    let address = end.address;
    end.open(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        setsockopt(&socket, sockopt::TcpCongestion, &congestion.into()).map_err(|error| {
            let offered = congestion_controls();
            io::Error::other(format!("congestion control {congestion}: {error}; the kernel offers {offered}"))
        })?;
        socket.bind(&SocketAddr::from((address, 0)).into())?;
        Ok(socket)
    })
}
