//! UDP: the same sessions, SAs and flow queues as over TCP, without connections.
//!
//! A message of a UE that nothing is known of leaves nothing behind here: the control thread is told where it came
//! from and answers there. A session that proved itself has a flow, the counterpart of a connection: a pair of
//! addresses and what waits to be sent there.

mod bind;
mod datagram;
pub(super) mod flows;
mod outgoing;
mod send;

use std::net::SocketAddr;

use crate::types::{Path, Transport};
use crate::worker::Passed;
use outgoing::Outgoing;

/// How long a session that moved from UDP to TCP is still heard over UDP: what was on its way.
pub(super) const HEARD_AFTER_MOVE_S: u64 = 10;

/// A datagram that arrived at another worker than the one its SPI names.
pub struct Stray {
    /// Index of the socket, the same for all workers.
    pub socket: u16,
    /// Our address and the sender's.
    pub path: Path,
    /// The ESP packet.
    pub packet: Passed,
}

/// Where a datagram came in, and from where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub socket: u16,
    pub path: Path,
}

impl Origin {
    fn new(socket: usize, local: SocketAddr, remote: SocketAddr) -> Self {
        Self { socket: socket as u16, path: Path { transport: Transport::Udp, local, remote } }
    }
}

/// A worker's UDP side.
pub(super) struct Udp {
    /// By socket.
    outgoing: Vec<Outgoing>,
    /// Sockets whose receive ran out of buffers.
    starved: Vec<usize>,
    /// Sockets whose receive failed.
    failed: Vec<usize>,
    /// IKE messages the control thread has not handled yet.
    ike_waiting: u32,
}

impl Udp {
    pub fn new(sockets: usize) -> Self {
        let outgoing = (0..sockets).map(|_| Outgoing::default()).collect();
        Self { outgoing, starved: Vec::new(), failed: Vec::new(), ike_waiting: 0 }
    }
}
