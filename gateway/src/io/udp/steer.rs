//! Which worker's socket a datagram goes to.
//!
//! The sockets of one address form a group in the order in which they were bound, which is that of the workers. A
//! program on the group reads the first four octets of the payload: not zero, they are an SPI of ours, whose low
//! bits name the worker. For everything else it names no socket, and the kernel goes by a hash of the addresses.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::io::check;
use crate::types::WORKERS_MAX;

const LOAD_LEN: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_LEN;
const LOAD_WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
const IF_AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
const RETURN_A: u32 = libc::BPF_RET | 0x10;

/// No socket of a group: the kernel falls back to its hash.
const NONE: u32 = u32::MAX;

/// A BPF instruction: operation, how many to skip if it holds and if not, operand.
const fn insn(code: u32, holds: u8, fails: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: holds, jf: fails, k }
}

/// The program; its packet starts behind the UDP header.
const PROGRAM: [libc::sock_filter; 7] = [
    insn(LOAD_LEN, 0, 0, 0),
    insn(IF_AT_LEAST, 0, 4, 4),
    insn(LOAD_WORD, 0, 0, 0),
    insn(IF_EQUAL, 2, 0, 0),
    insn(AND, 0, 0, WORKERS_MAX as u32 - 1),
    insn(RETURN_A, 0, 0, 0),
    insn(RETURN, 0, 0, NONE),
];

/// Attaches the program to the group of `socket`.
///
/// # Errors
/// Whatever the kernel answers.
pub(super) fn by_spi(socket: BorrowedFd<'_>) -> io::Result<()> {
    let mut filter = PROGRAM;
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    let len = size_of_val(&program) as libc::socklen_t;
    let (level, name) = (libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF);
    // SAFETY: the kernel copies `len` octets of `program` and the instructions it points to; both outlive the call.
    unsafe { check(libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const program).cast(), len))? };
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket as StdSocket;
    use std::time::Duration;

    use super::super::listen_udp;
    use crate::types::WorkerId;

    #[test]
    fn esp_reaches_the_worker_its_spi_names() {
        const WORKERS: usize = 3;
        let sockets = listen_udp("127.0.0.1:0".parse().expect("address"), WORKERS, 1 << 16).expect("free");
        let client = StdSocket::bind("127.0.0.1:0").expect("bound");
        let addr = sockets[0].local();
        let sockets: Vec<StdSocket> = sockets.into_iter().map(|socket| StdSocket::from(socket.fd)).collect();
        for (worker, socket) in sockets.iter().enumerate() {
            for random in [0x1000_0000_u32, 0xffff_ffff, 0x100] {
                let spi = WorkerId(worker as u8).spi(random).expect("not reserved");
                client.send_to(&[&spi.0.to_be_bytes()[..], &[7; 30]].concat(), addr).expect("sent");
                let mut buffer = [0; 64];
                socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
                assert_eq!(socket.recv(&mut buffer).expect("steered"), 34);
            }
        }
        // IKE, keepalives and SPIs that name no worker arrive somewhere.
        for socket in &sockets {
            socket.set_nonblocking(true).expect("set");
        }
        for datagram in [&[0; 40][..], &[0xff], &0x13f_u32.to_be_bytes(), &[]] {
            client.send_to(datagram, addr).expect("sent");
            let arrived = sockets.iter().any(|socket| socket.recv(&mut [0; 64]).is_ok());
            assert!(arrived, "{datagram:?}");
        }
    }
}
