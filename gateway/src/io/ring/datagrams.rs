//! UDP sockets on the ring: received messages, and the news that a full socket has room.

use std::io;
use std::os::fd::AsRawFd;

use io_uring::{Submitter, opcode, types};

use super::token::{Kind, Token};
use super::{LANES_MAX, Received, Ring};
use crate::io::recv_pool::RecvPool;
use crate::io::udp::{Layout, UdpSocket};

/// The buffer group of messages.
const GROUP_MESSAGES: u16 = 1;

/// The number that runs of this pool carry instead of a lane's.
const LANE: u8 = LANES_MAX as u8;

/// Octets of a buffer: the longest payload and what the kernel writes in front of it.
const BUFFER_LEN: usize = (65_535 + Layout::OVERHEAD).next_multiple_of(64);

/// The sockets and what they receive into.
pub(super) struct Datagrams {
    sockets: Vec<UdpSocket>,
    pool: RecvPool,
    /// Read by the kernel as long as a receive is armed: it stays where it is until the ring is gone.
    layout: Box<Layout>,
}

impl Datagrams {
    /// Registers buffers for `sockets`; nothing where there are none.
    pub fn new(
        sockets: Vec<UdpSocket>,
        memory: usize,
        submitter: &Submitter<'_>,
    ) -> io::Result<Option<Self>> {
        if sockets.is_empty() {
            return Ok(None);
        }
        let pool = RecvPool::for_messages(submitter, GROUP_MESSAGES, memory, LANE, BUFFER_LEN)?;
        Ok(Some(Self { sockets, pool, layout: Layout::new() }))
    }

    pub fn pool(&self) -> &RecvPool {
        &self.pool
    }

    pub fn pool_mut(&mut self) -> &mut RecvPool {
        &mut self.pool
    }
}

impl Ring {
    /// The UDP sockets, by their index.
    pub fn udp_sockets(&self) -> &[UdpSocket] {
        self.datagrams.as_ref().map_or(&[], |datagrams| &datagrams.sockets)
    }

    /// Receives at a UDP socket until the buffers run out.
    pub fn arm_datagrams(&mut self, socket: usize) {
        let Some(datagrams) = &self.datagrams else { return };
        let Some(fd) = datagrams.sockets.get(socket).map(|socket| types::Fd(socket.as_raw_fd())) else {
            return;
        };
        let entry = opcode::RecvMsgMulti::new(fd, datagrams.layout.as_ptr(), GROUP_MESSAGES).build();
        self.push(entry, Token::new(Kind::Datagrams, 0, socket as u32));
    }

    /// Reports [`super::Completion::Writable`] when the socket has room.
    pub fn await_writable(&mut self, socket: usize) {
        let Some(socket_fd) = self.udp_sockets().get(socket).map(|socket| types::Fd(socket.as_raw_fd()))
        else {
            return;
        };
        let entry = opcode::PollAdd::new(socket_fd, libc::POLLOUT as u32).build();
        self.push(entry, Token::new(Kind::Writable, 0, socket as u32));
    }

    pub(super) fn on_datagrams(&mut self, result: i32, flags: u32) -> Received {
        let Some(datagrams) = &mut self.datagrams else { return Received::Failed };
        match u32::try_from(result) {
            Ok(len) => match datagrams.pool.claim(flags, len) {
                Some(incoming) => Received::Octets(incoming),
                None => Received::Failed,
            },
            Err(_) if result == -libc::ENOBUFS => Received::Starved,
            Err(_) => Received::Failed,
        }
    }
}
