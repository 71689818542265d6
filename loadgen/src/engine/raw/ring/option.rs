//! The one socket option that no library knows.

use nix::libc;
use std::io;
use std::mem::size_of_val;
use std::os::fd::{AsFd, AsRawFd};

/// `IPV6_AUTOFLOWLABEL` of linux/in6.h.
const IPV6_AUTOFLOWLABEL: libc::c_int = 70;

/// Makes an IPv6 socket send flow label 0 throughout. RFC 9329 §6.1: it stays constant when a connection is made
/// again; the kernel would derive it from the ports.
pub(in crate::engine) fn fix_flow_label(socket: &impl AsFd) -> io::Result<()> {
    let (fd, off) = (socket.as_fd().as_raw_fd(), 0 as libc::c_int);
    let len = size_of_val(&off) as libc::socklen_t;
    // SAFETY: the kernel reads `len` octets of `off`, which outlives the call.
    let result =
        unsafe { libc::setsockopt(fd, libc::IPPROTO_IPV6, IPV6_AUTOFLOWLABEL, (&raw const off).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    fn flow_label_is_made(socket: &UdpSocket) -> bool {
        let mut value: libc::c_int = -1;
        let mut len = size_of_val(&value) as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` octets to `value`; both outlive the call.
        let result = unsafe {
            let value = (&raw mut value).cast();
            libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_IPV6, IPV6_AUTOFLOWLABEL, value, &mut len)
        };
        assert_eq!(result, 0);
        value != 0
    }

    #[test]
    fn r9329_6_1_o4_the_kernel_makes_no_flow_label() {
        let Ok(socket) = UdpSocket::bind("[::1]:0") else { return };
        assert!(flow_label_is_made(&socket), "it would otherwise");
        fix_flow_label(&socket).unwrap();
        assert!(!flow_label_is_made(&socket));
    }
}
