//! The messages between the control thread and the workers, and between workers.
//!
//! A worker's inbox is FIFO: an [`ToWorker::Install`] pushed before a [`ToWorker::Send`] is in force when
//! the response leaves. Queues are bounded ([`crate::limits`]); the control thread never blocks on them.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use bytes::Bytes;
use codec::esp::EspSpi;

use super::front::Guard;
use super::passing::Passed;
use super::udp::Stray;
use crate::tls::TlsServer;
use crate::types::{ChildInstall, CloseReason, ConnId, Follow, NetworkId, Path, SessionId, WorkerId};

/// To a worker.
pub enum ToWorker {
    /// Adds a Child SA (and the session with it, on its first).
    Install(Box<ChildInstall>),
    /// The UE may use this inbound SPI before its Install arrives: packets for it wait.
    Announce {
        /// The session that the Child SA will belong to.
        session: SessionId,
        /// Its inbound SPI.
        spi_in: EspSpi,
    },
    /// Nothing comes of an announced SPI; what waits for it is dropped.
    Withdraw {
        /// The inbound SPI.
        spi_in: EspSpi,
    },
    /// Removes a Child SA by its inbound SPI.
    RemoveChild {
        /// Its session.
        session: SessionId,
        /// Its inbound SPI.
        spi_in: EspSpi,
    },
    /// A fresh authentic IKE message arrived on `conn`: send there from now on.
    Bind {
        /// The session.
        session: SessionId,
        /// Its current connection, on this worker.
        conn: ConnId,
    },
    /// The control thread knows of no connection of the session any more: answer with [`ToControl::Bound`] if there is one.
    Locate {
        /// The session.
        session: SessionId,
    },
    /// The session lives on a UDP path: send there from now on.
    BindPath {
        /// The session.
        session: SessionId,
        /// Our address and the UE's.
        path: Box<Path>,
        /// Whether authentic packets from elsewhere move it.
        follow: Follow,
    },
    /// Removes the session with all its Child SAs; its connections linger a few seconds for reuse.
    CloseSession {
        /// The session.
        session: SessionId,
        /// Whether [`ToControl::Traffic`] is to say what it has done.
        report: bool,
    },
    /// Answer with [`ToControl::Traffic`].
    ReportTraffic {
        /// The session.
        session: SessionId,
    },
    /// The connection carries a half-open IKE SA: it gets the half-open time instead of the first-message time.
    HalfOpen {
        /// The connection.
        conn: ConnId,
    },
    /// The connection was given a puzzle: it gets this long instead of the first-message time (RFC 9329 §6.3).
    Challenged {
        /// The connection.
        conn: ConnId,
        /// How long it may take to come back with a solution.
        within: Duration,
    },
    /// Sends an IKE message on `conn`; dropped and counted when it is gone.
    Send {
        /// The connection.
        conn: ConnId,
        /// The IKE message, without marker and Length.
        message: Bytes,
    },
    /// Sends an IKE message over UDP; dropped and counted when no socket of ours has that address.
    SendTo {
        /// The worker whose socket it leaves through.
        from: WorkerId,
        /// Our address and the UE's.
        path: Box<Path>,
        /// The IKE message, without marker.
        message: Bytes,
    },
    /// The control thread is done with one [`ToControl::Ike`] of this connection; it sends exactly one of
    /// these for each, so that the worker can bound how many a connection has waiting.
    Handled {
        /// The connection.
        conn: ConnId,
        /// Whether the message could be used; bad ones in a row count towards the bound that closes the
        /// connection (RFC 9329 §6.1), a good one resets it.
        good: bool,
    },
    /// Closes the connection once what is queued has been sent; SAs stay.
    Close {
        /// The connection.
        conn: ConnId,
        /// Why.
        reason: CloseReason,
    },
    /// Hands the connection over to `to`, which owns the session it belongs to.
    Move {
        /// The connection, on this worker.
        conn: ConnId,
        /// The owner of the session.
        to: WorkerId,
        /// Bind it there on arrival.
        session: SessionId,
    },
    /// A connection arriving from another worker.
    Adopt(Box<Adopted>),
    /// `addr` is served by `worker` from now on; `None` forgets it. Sent to every worker.
    Route {
        /// The network of the address.
        network: NetworkId,
        /// The inner address.
        addr: IpAddr,
        /// Its worker.
        worker: Option<WorkerId>,
    },
    /// An ESP datagram that arrived at another worker; bounded, dropped when full.
    Stray(Box<Stray>),
    /// An inner packet that another worker's queue of the device yielded; bounded, dropped when full.
    Downlink {
        /// The network of the device.
        network: NetworkId,
        /// The packet with its virtio-net header.
        packet: Passed,
    },
    /// Answer with [`ToControl::FenceReached`] when all earlier messages are in force.
    Fence(u64),
    /// Replace the table of addresses whose packets the host keeps for itself in a network (UEs do not reach them).
    LocalAddrs {
        /// The network.
        network: NetworkId,
        /// All of them.
        addrs: std::sync::Arc<[IpAddr]>,
    },
    /// Report the traffic counters of every Child SA with [`ToControl::ChildCounters`].
    ReportChildren,
    /// Offers this to TLS connections from now on.
    Tls(TlsServer),
    /// Stop accepting connections.
    StopAccepting,
    /// Flush what is queued, then leave the loop.
    Stop,
}

/// State that travels with a connection from worker to worker.
pub struct Adopted {
    /// The connection.
    pub socket: OwnedFd,
    /// Its id on the old worker.
    pub old: ConnId,
    /// Addresses.
    pub path: Path,
    /// What stands before the frames.
    pub(super) front: Option<Box<Guard>>,
    /// The deframer in the middle of the stream.
    pub deframer: codec::stream::Deframer,
    /// Octets of an unfinished frame.
    pub carry: Vec<u8>,
    /// Octets received but not yet parsed.
    pub unread: Vec<u8>,
    /// Octets queued but not yet sent.
    pub unsent: Vec<u8>,
    /// The session to bind it to on arrival; `None` when only an SPI named the owner, and a fresh packet
    /// must prove it.
    pub session: Option<SessionId>,
}

/// Traffic counters of one Child SA.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChildCounters {
    /// Packets received and accepted.
    pub packets_in: u64,
    /// Octets of inner packets received and accepted.
    pub bytes_in: u64,
    /// Packets sent.
    pub packets_out: u64,
    /// Octets of inner packets sent.
    pub bytes_out: u64,
    /// Packets dropped as replays or left of the window.
    pub replay_drops: u64,
}

/// What a session has sent and received over all its Child SAs, those replaced included. Octets are those of inner
/// packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Packets from the UE.
    pub packets_in: u64,
    /// Octets from the UE.
    pub bytes_in: u64,
    /// Packets to the UE.
    pub packets_out: u64,
    /// Octets to the UE.
    pub bytes_out: u64,
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, more: Self) {
        self.packets_in += more.packets_in;
        self.bytes_in += more.bytes_in;
        self.packets_out += more.packets_out;
        self.bytes_out += more.bytes_out;
    }
}

/// From a worker to the control thread.
pub enum ToControl {
    /// An IKE message without its marker.
    Ike {
        /// Where it came in.
        conn: ConnId,
        /// Addresses of that connection.
        path: Path,
        /// The message, copied out of the receive buffer.
        message: Vec<u8>,
    },
    /// A fresh authentic ESP packet moved the session to `conn` (RFC 9329 §6.1).
    Bound {
        /// The session.
        session: SessionId,
        /// Its connection now.
        conn: ConnId,
        /// Addresses of that connection.
        path: Path,
    },
    /// The connection is gone; its sessions stay.
    Closed {
        /// The connection.
        conn: ConnId,
    },
    /// The connection changed worker.
    Moved {
        /// Its id until now.
        old: ConnId,
        /// Its id from now on.
        new: ConnId,
    },
    /// ESP for a Child SA on offer arrived on a connection without a session.
    EarlyEsp {
        /// The session that the offer is of.
        session: SessionId,
        /// The connection.
        conn: ConnId,
        /// Its addresses.
        path: Path,
    },
    /// Authentic ESP arrived for the session since the last report; at most one per second and session.
    EspActivity {
        /// The session.
        session: SessionId,
    },
    /// The outbound sequence numbers of a Child SA run out: it must be replaced.
    SequenceHigh {
        /// The session.
        session: SessionId,
        /// Inbound SPI of the pair.
        spi_in: EspSpi,
    },
    /// All messages before the fence are in force.
    FenceReached {
        /// The worker.
        worker: WorkerId,
        /// The fence's number.
        fence: u64,
    },
    /// An inner device was deleted; said once.
    DeviceGone {
        /// Its network.
        network: NetworkId,
    },
    /// Counters of the Child SAs of one worker.
    ChildCounters {
        /// The worker.
        worker: WorkerId,
        /// Inbound SPI and counters.
        children: Vec<(EspSpi, ChildCounters)>,
    },
    /// What a session has done.
    Traffic {
        /// The session.
        session: SessionId,
        /// Since it began.
        traffic: Traffic,
        /// Whether it has ended.
        over: bool,
    },
}
