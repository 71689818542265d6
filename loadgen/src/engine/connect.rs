//! Opening a UE's TCP connection.

use super::congestion::Congestion;
use super::raw::ring::fix_flow_label;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Starts to connect to `gateway` from `source`, with another congestion control than the system's if one is given; a connection that is to `reset` ends with RST, however it is closed. The
/// first write waits until it is open, or fails with the reason. Returns the local address too.
pub(super) fn connect(
    gateway: SocketAddr,
    source: Option<IpAddr>,
    congestion: Option<Congestion>,
    reset: bool,
) -> io::Result<(Socket, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(gateway), Type::STREAM, Some(Protocol::TCP))?;
    // Many frames share a write; each write should leave at once.
    socket.set_tcp_nodelay(true)?;
    if let Some(congestion) = congestion {
        congestion.apply(&socket)?;
    }
    if reset {
        socket.set_linger(Some(Duration::ZERO))?;
    }
    if let Some(source) = source {
        // The port is chosen with the destination known, so that one address serves more than 28,000 connections.
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    if gateway.is_ipv6() {
        fix_flow_label(&socket)?;
    }
    socket.set_nonblocking(true)?;
    match socket.connect(&gateway.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    // io_uring waits for readiness of blocking sockets only; non-blocking ones return EAGAIN to the caller.
    socket.set_nonblocking(false)?;
    let local = socket.local_addr()?.as_socket().unwrap_or(gateway);
    Ok((socket, local))
}

/// Names a connection failure in few words, equal for equal causes.
pub(super) fn cause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "refused".into(),
        io::ErrorKind::ConnectionReset => "reset".into(),
        io::ErrorKind::TimedOut => "timed out".into(),
        io::ErrorKind::AddrNotAvailable => "source address is not of this host, or out of ports".into(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof | io::ErrorKind::WriteZero => {
            "closed by gateway".into()
        }
        _ => error
            .raw_os_error()
            .map_or_else(|| error.to_string(), |code| nix::errno::Errno::from_raw(code).to_string()),
    }
}
