//! Listening sockets and the options of accepted connections.

use std::fs;
use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::check;

/// Connections the kernel holds for us before accept.
const BACKLOG: libc::c_int = 4096;

/// `IPV6_AUTOFLOWLABEL` of linux/in6.h.
const IPV6_AUTOFLOWLABEL: libc::c_int = 70;

/// What every accepted connection has from the socket that listened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamOptions {
    /// Whether what is sent leaves at once, though less than a full segment is unacknowledged (TCP_NODELAY).
    pub nodelay: bool,
    /// The congestion control; `None` is the system's.
    pub congestion: Option<String>,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self { nodelay: true, congestion: None }
    }
}

/// Opens one accept queue of `addr`: every worker calls this with the same address (SO_REUSEPORT), and the
/// kernel spreads connections over the queues. An IPv6 socket serves IPv6 only.
///
/// # Errors
/// Whatever the kernel answers to socket, bind and listen.
pub fn listen_tcp(addr: SocketAddr, options: &StreamOptions) -> io::Result<TcpListener> {
    let fd = open(addr, libc::SOCK_STREAM | libc::SOCK_NONBLOCK)?;
    set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    // Accepted sockets inherit the following.
    set_option(fd.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, libc::c_int::from(options.nodelay))?;
    if let Some(name) = &options.congestion {
        set_congestion(fd.as_raw_fd(), name)?;
    }
    if addr.is_ipv6() {
        set_option(fd.as_raw_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
        fix_flow_label(fd.as_raw_fd())?;
    }
    let (raw, len) = to_raw(addr);
    // SAFETY: `raw` is a sockaddr of `len` octets that outlives the call.
    unsafe {
        check(libc::bind(fd.as_raw_fd(), (&raw const raw).cast(), len))?;
        check(libc::listen(fd.as_raw_fd(), BACKLOG))?;
    }
    Ok(TcpListener::from(fd))
}

/// A socket for the family of `addr`.
pub(super) fn open(addr: SocketAddr, kind: libc::c_int) -> io::Result<OwnedFd> {
    let family = if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: socket takes no pointers; the descriptor it returns belongs to nobody else yet.
    unsafe { Ok(OwnedFd::from_raw_fd(check(libc::socket(family, kind | libc::SOCK_CLOEXEC, 0))?)) }
}

/// Makes a socket send flow label 0 throughout. RFC 9329 §6.1: it stays constant when a connection is made again;
/// the kernel would derive it from the ports.
pub(super) fn fix_flow_label(fd: RawFd) -> io::Result<()> {
    set_option(fd, libc::IPPROTO_IPV6, IPV6_AUTOFLOWLABEL, 0)
}

/// Prepares an accepted connection and returns its (local, remote) addresses. The kernel
/// calls it writable while fewer than `unsent_max` octets in it have not been sent.
///
/// # Errors
/// When the peer is already gone.
pub fn prepare_accepted(fd: BorrowedFd<'_>, unsent_max: i32) -> io::Result<(SocketAddr, SocketAddr)> {
    let raw = fd.as_raw_fd();
    limit_unsent(fd, unsent_max)?;
    let local = address(raw, libc::getsockname)?;
    let remote = address(raw, libc::getpeername)?;
    Ok((local, remote))
}

/// What the kernel knows about the path of a connection.
#[derive(Clone, Copy, Debug)]
pub struct PathInfo {
    /// Smoothed round trip.
    pub round_trip: Duration,
    /// The least one of the last minutes (`net.ipv4.tcp_min_rtt_wlen`).
    pub least: Duration,
    /// Segments that arrived, those behind a gap included; wraps.
    pub arrived: u32,
    /// Segments with data that were sent; wraps.
    pub segments: u32,
    /// Octets in these.
    pub octets: u64,
}

/// Asks what the kernel knows about the path of a TCP connection.
///
/// # Errors
/// When the connection is gone.
pub fn path_info(fd: BorrowedFd<'_>) -> io::Result<PathInfo> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` octets to `info`, and all zeroes is a value of its type, so that what an older
    // kernel leaves out is one as well.
    let info = unsafe {
        let into = info.as_mut_ptr().cast();
        check(libc::getsockopt(fd.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, into, &raw mut len))?;
        info.assume_init()
    };
    Ok(PathInfo {
        round_trip: Duration::from_micros(info.tcpi_rtt.into()),
        least: Duration::from_micros(info.tcpi_min_rtt.into()),
        arrived: info.tcpi_delivered,
        segments: info.tcpi_data_segs_out,
        octets: info.tcpi_bytes_sent,
    })
}

/// Has the kernel send at most so many octets per second on a connection; `None`: what congestion control allows.
///
/// # Errors
/// When the connection is gone.
pub fn limit_pace(fd: BorrowedFd<'_>, octets_per_second: Option<u64>) -> io::Result<()> {
    let value = octets_per_second.unwrap_or(u64::MAX);
    let len = size_of::<u64>() as libc::socklen_t;
    let (level, name) = (libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE);
    // SAFETY: `value` has `len` octets and outlives the call.
    unsafe { check(libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), len))? };
    Ok(())
}

/// Seconds without traffic before the kernel asks whether the peer is there, between its questions, and how
/// many go unanswered. They find dead peers, not dead IKE SAs (RFC 9329 §6.7).
const KEEPALIVE_IDLE_S: libc::c_int = 60;
const KEEPALIVE_EVERY_S: libc::c_int = 15;
const KEEPALIVE_MISSED: libc::c_int = 4;

/// Has the kernel break the connection when the peer is gone: keepalives answer nothing, or `unacked_ms`
/// passes without an acknowledgement of what was sent.
///
/// # Errors
/// When the connection is gone.
pub fn detect_dead_peer(fd: BorrowedFd<'_>, unacked_ms: i32) -> io::Result<()> {
    let raw = fd.as_raw_fd();
    set_option(raw, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    set_option(raw, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, KEEPALIVE_IDLE_S)?;
    set_option(raw, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, KEEPALIVE_EVERY_S)?;
    set_option(raw, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, KEEPALIVE_MISSED)?;
    set_option(raw, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, unacked_ms)
}

/// Begins a connection to `to` without waiting for it: once the socket is writable, it stands or
/// [`TcpStream::take_error`] says why not.
///
/// # Errors
/// Whatever the kernel answers at once.
pub fn connect_tcp(to: SocketAddr, unsent_max: i32) -> io::Result<TcpStream> {
    let fd = open(to, libc::SOCK_STREAM | libc::SOCK_NONBLOCK)?;
    let raw = fd.as_raw_fd();
    set_option(raw, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    limit_unsent(fd.as_fd(), unsent_max)?;
    if to.is_ipv6() {
        fix_flow_label(raw)?;
    }
    let (storage, len) = to_raw(to);
    // SAFETY: `storage` is a sockaddr of `len` octets that outlives the call.
    match unsafe { check(libc::connect(raw, (&raw const storage).cast(), len)) } {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(TcpStream::from(fd)),
    }
}

/// Sets how many octets in the socket may be unsent before the kernel stops calling it writable.
///
/// # Errors
/// When the connection is gone.
pub fn limit_unsent(fd: BorrowedFd<'_>, unsent_max: i32) -> io::Result<()> {
    set_option(fd.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, unsent_max)
}

/// Lets the end of a connection be a reset that forgets what was not sent or read.
///
/// # Errors
/// When the connection is gone.
pub fn abort_on_close(fd: BorrowedFd<'_>) -> io::Result<()> {
    set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, libc::linger { l_onoff: 1, l_linger: 0 })
}

/// Whether connections may have the congestion control `name`. Its module is loaded if it is there and we may.
pub fn offers_congestion(name: &str) -> bool {
    let any = SocketAddr::from(([0, 0, 0, 0], 0));
    open(any, libc::SOCK_STREAM).is_ok_and(|fd| set_congestion(fd.as_raw_fd(), name).is_ok())
}

/// The congestion controls that the kernel has now, as it lists them.
pub fn congestion_controls() -> String {
    let list = fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control");
    list.unwrap_or_default().trim().to_owned()
}

fn set_congestion(fd: RawFd, name: &str) -> io::Result<()> {
    let len = name.len() as libc::socklen_t;
    // SAFETY: the kernel reads `len` octets of `name`, which outlives the call; it needs no terminating zero.
    unsafe {
        check(libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_CONGESTION, name.as_ptr().cast(), len))?
    };
    Ok(())
}

pub(super) fn set_option<T: Copy>(
    fd: RawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: T,
) -> io::Result<()> {
    let len = mem::size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel reads `len` octets of `value`, which outlives the call.
    unsafe { check(libc::setsockopt(fd, level, name, (&raw const value).cast(), len))? };
    Ok(())
}

pub(super) type AddressCall =
    unsafe extern "C" fn(RawFd, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int;

pub(super) fn address(fd: RawFd, call: AddressCall) -> io::Result<SocketAddr> {
    // SAFETY: sockaddr_storage holds any address and may be all zero; `len` tells the kernel its size; both
    // outlive the call.
    let storage = unsafe {
        let mut storage: libc::sockaddr_storage = mem::zeroed();
        let mut len = mem::size_of_val(&storage) as libc::socklen_t;
        check(call(fd, (&raw mut storage).cast(), &mut len))?;
        storage
    };
    from_raw(&storage).ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
}

/// The address the kernel wrote into `storage`; `None` for none and for other families.
pub(super) fn from_raw(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the kernel wrote a sockaddr_in, which fits into and is aligned for the storage.
            let v4 = unsafe { *std::ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            let ip = u32::from_be(v4.sin_addr.s_addr).into();
            Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the kernel wrote a sockaddr_in6, which fits into and is aligned for the storage.
            let v6 = unsafe { *std::ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            let port = u16::from_be(v6.sin6_port);
            Some(SocketAddrV6::new(v6.sin6_addr.s6_addr.into(), port, 0, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}

pub(super) fn to_raw(addr: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: all-zero is a valid sockaddr_storage; both casts write a smaller struct into it, for which it
    // is aligned.
    unsafe {
        let mut storage: libc::sockaddr_storage = mem::zeroed();
        let len = match addr {
            SocketAddr::V4(v4) => {
                let raw = (&raw mut storage).cast::<libc::sockaddr_in>();
                (*raw).sin_family = libc::AF_INET as libc::sa_family_t;
                (*raw).sin_port = v4.port().to_be();
                (*raw).sin_addr.s_addr = u32::from(*v4.ip()).to_be();
                mem::size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(v6) => {
                let raw = (&raw mut storage).cast::<libc::sockaddr_in6>();
                (*raw).sin6_family = libc::AF_INET6 as libc::sa_family_t;
                (*raw).sin6_port = v6.port().to_be();
                (*raw).sin6_addr.s6_addr = v6.ip().octets();
                (*raw).sin6_scope_id = v6.scope_id();
                mem::size_of::<libc::sockaddr_in6>()
            }
        };
        (storage, len as libc::socklen_t)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_queues_share_one_port_and_addresses_are_read_back() {
        let options = StreamOptions::default();
        let first = listen_tcp("127.0.0.1:0".parse().expect("address"), &options).expect("listen");
        let addr = first.local_addr().expect("bound");
        let second = listen_tcp(addr, &options).expect("SO_REUSEPORT allows a second queue");
        drop(second);
        let client = TcpStream::connect(addr).expect("connect");
        first.set_nonblocking(false).expect("blocking");
        let (accepted, _) = first.accept().expect("accept");
        let (local, remote) = prepare_accepted(accepted.as_fd(), 65_536).expect("prepared");
        assert_eq!(local, addr);
        assert_eq!(remote, client.local_addr().expect("bound"));
    }

    fn unsent_max(fd: RawFd) -> libc::c_int {
        let mut value: libc::c_int = 0;
        let mut len = mem::size_of_val(&value) as libc::socklen_t;
        let at = (&raw mut value).cast();
        // SAFETY: the kernel writes at most `len` octets to `value`; both outlive the call.
        let done =
            unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, at, &raw mut len) };
        assert_eq!(done, 0);
        value
    }

    #[test]
    fn accepted_connections_have_the_options_of_their_listener() {
        // Every kernel has reno, and nearly none has it as the default.
        let congestion = Some("reno".to_owned());
        for options in [StreamOptions::default(), StreamOptions { nodelay: false, congestion }] {
            let listener = listen_tcp("127.0.0.1:0".parse().expect("address"), &options).expect("listen");
            let _client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connect");
            listener.set_nonblocking(false).expect("blocking");
            let (accepted, _) = listener.accept().expect("accept");
            prepare_accepted(accepted.as_fd(), 65_536).expect("prepared");
            let socket = socket2::SockRef::from(&accepted);
            assert_eq!(socket.tcp_nodelay().expect("an option"), options.nodelay);
            assert_eq!(unsent_max(accepted.as_raw_fd()), 65_536);
            if let Some(name) = &options.congestion {
                let has = socket.tcp_congestion().expect("an option");
                assert_eq!(has.strip_suffix(b"\0").unwrap_or(&has)[..name.len()], *name.as_bytes());
            }
        }
    }

    #[test]
    fn a_congestion_control_that_the_kernel_lacks_is_found_out() {
        assert!(offers_congestion("reno") && !offers_congestion("no-such"));
        assert!(congestion_controls().split(' ').any(|name| name == "reno"));
        let options = StreamOptions { congestion: Some("no-such".into()), ..StreamOptions::default() };
        assert!(listen_tcp("127.0.0.1:0".parse().expect("address"), &options).is_err());
    }

    #[test]
    fn r9329_6_7_1_the_kernel_asks_whether_the_peer_is_there() {
        let listener = listen_tcp("127.0.0.1:0".parse().expect("address"), &StreamOptions::default());
        let listener = listener.expect("listen");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connect");
        let socket = socket2::SockRef::from(&client);
        assert!(!socket.keepalive().expect("an option"));
        detect_dead_peer(client.as_fd(), 20_000).expect("connected");
        assert!(socket.keepalive().expect("an option"));
        let idle = socket.tcp_keepalive_time().expect("an option");
        assert_eq!(idle.as_secs(), KEEPALIVE_IDLE_S as u64);
        assert_eq!(socket.tcp_keepalive_retries().expect("an option"), KEEPALIVE_MISSED as u32);
    }

    #[test]
    fn an_ipv6_listener_leaves_ipv4_alone() {
        let options = StreamOptions::default();
        let Ok(v6) = listen_tcp("[::]:0".parse().expect("address"), &options) else { return };
        let port = v6.local_addr().expect("bound").port();
        assert!(listen_tcp(SocketAddr::from(([0, 0, 0, 0], port)), &options).is_ok());
    }
}
