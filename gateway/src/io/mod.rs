//! Everything that touches the kernel without a safe library between: the ring, receive buffers, sockets,
//! the inner device, thread placement. The only module of this crate with `unsafe` code.
//!
//! It offers operations that own their memory until the completion arrives, so that the workers, which
//! hold all protocol state, are plain safe Rust.

pub mod block;
pub mod datagram;
pub mod recv_pool;
pub mod ring;
pub mod sockets;
pub mod steering;
pub mod thread;
pub mod tun;
pub mod udp;
pub mod wake;

use std::io;

/// Turns the `-1` of a system call into the error it left in `errno`.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
