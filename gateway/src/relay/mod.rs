//! Relay mode: RFC 9329 for a responder that speaks UDP only.
//!
//! ```text
//!   UE ==== TCP, RFC 9329 ====> relay worker ---- UDP, one port per connection ----> backend :4500
//!                                                                      (and, if asked for, :500)
//! ```
//!
//! A relay holds no keys and decides nothing that takes one. What a connection brings goes to the backend
//! from the connection's own UDP port, what comes back to that port goes down that connection. When a UE
//! opens a new connection its packets come to the backend from another port, and the backend, which can
//! tell whether they are authentic, moves the peer there as if a NAT had forgotten it (RFC 7296 §2.23). The
//! relay itself never moves anything: SPIs travel in clear.
//!
//! Each worker is a thread with its own accept queues, connections and epoll; workers share nothing. The
//! main thread serves administrators ([`control`]).

pub mod control;
mod counters;
mod downlink;
mod lifecycle;
mod link;
mod orders;
mod table;
mod uplink;
mod worker;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

pub use counters::{RelayClose, RelayCounters, RelayDrop};

use crate::admin::api::RelayRow;
use crate::io::thread;
use crate::io::wake::Wake;
use crate::tls::{StreamListener, TlsServer};
use crate::types::WorkerId;

/// Where the responder is that does the work.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Backend {
    /// Takes IKE behind a Non-ESP Marker, and ESP: port 4500 as a rule (RFC 3948).
    pub addr: SocketAddr,
    /// Takes the exchanges that open an IKE SA, without a marker: port 500. `None` sends them to `addr` too,
    /// which RFC 7296 §2.23 lets any initiator do, and which leaves one port per UE.
    pub ike: Option<SocketAddr>,
    /// Addresses to send from, in turn; empty leaves it to the routes. Each has ports for as many
    /// connections as `net.ipv4.ip_local_port_range` is long.
    pub sources: Vec<IpAddr>,
}

/// Bounds of one worker; see [`crate::limits`].
#[derive(Clone, Copy, Debug)]
pub struct RelayLimits {
    /// Connections open at once.
    pub connections: u32,
    /// Connections from one source address open at once.
    pub connections_per_source: u32,
    /// Time from accept to the last octet of the prefix (D1).
    pub prefix_timeout: Duration,
    /// Time from accept to the first answer of the backend (D2).
    pub first_message_timeout: Duration,
    /// Time from then until the backend answers a protected message, or sends ESP.
    pub half_open_timeout: Duration,
    /// Time without any packet after which a connection is closed.
    pub idle: Duration,
    /// Unusable frames in a row that close a connection (D5).
    pub bad_messages_in_a_row: u32,
    /// Octets of ESP that wait on a connection that does not drain.
    pub send_queue_octets: usize,
    /// Octets of unfinished frames of all connections, beyond 4 KB of each.
    pub unfinished: usize,
    /// Octets of the IKE messages of all connections that may have to be repeated.
    pub ike_octets: usize,
}

/// What the main thread asks of a worker.
pub enum Order {
    /// All its connections that carry something.
    List(Sender<Vec<RelayRow>>),
    /// Closes the connection with this id, and says whether there was one.
    Close(u64, Sender<bool>),
    /// Offers this to TLS connections from now on.
    Tls(TlsServer),
    /// Takes no new connections.
    StopAccepting,
    /// Closes everything and ends.
    Stop,
}

/// What a worker is started with.
pub struct RelayParams {
    /// Its number.
    pub id: WorkerId,
    /// The core it is pinned to, if any.
    pub core: Option<usize>,
    /// Its accept queues, one per listening address.
    pub listeners: Vec<StreamListener>,
    /// What it offers where TLS is spoken.
    pub tls: Option<TlsServer>,
    /// Where to relay to.
    pub backend: Backend,
    /// Bounds.
    pub limits: RelayLimits,
    /// Its counters.
    pub counters: Arc<RelayCounters>,
    /// Orders, and what wakes the worker for them.
    pub orders: Receiver<Order>,
    /// The eventfd of `orders`.
    pub wake: Wake,
}

/// Starts the worker's thread. It leaves its loop on [`Order::Stop`].
///
/// # Errors
/// When the thread or its epoll cannot be made.
pub fn start(params: RelayParams) -> io::Result<JoinHandle<()>> {
    let name = format!("worker-{}", params.id.0);
    thread::start(name, move || worker::Worker::new(params), worker::Worker::run)
}
