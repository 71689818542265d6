//! The packet path: one thread per core that owns a ring, its accept queues, its connections, its SA table
//! and its queue of the inner device.
//!
//! A worker shares nothing that is written per packet. It takes orders from its inbox ([`inbox::ToWorker`])
//! and reports to the control thread ([`inbox::ToControl`]); its counters are read without stopping it.

pub mod counters;
pub mod inbox;

use std::io;
use std::net::{IpAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender};

use crate::io::wake::Wake;
use crate::types::WorkerId;
use counters::WorkerCounters;
use inbox::{ToControl, ToWorker};

/// The way into a worker's inbox. Cheap to clone through `Arc`.
pub struct InboxHandle {
    /// The bounded queue.
    pub queue: Sender<ToWorker>,
    /// Wakes the worker after a push.
    pub wake: Wake,
}

/// Bounds of one worker; see [`crate::limits`] for defaults and worst-case memory.
#[derive(Clone, Copy, Debug)]
pub struct WorkerLimits {
    /// Connections open at once.
    pub connections: u32,
    /// Connections from one source address open at once.
    pub connections_per_source: u32,
    /// Time from accept to the last octet of the prefix (D1).
    pub prefix_timeout: Duration,
    /// Time from accept to the first message that finds or makes an IKE SA (D2).
    pub first_message_timeout: Duration,
    /// Life of a half-open IKE SA, and so of a connection that carries one.
    pub half_open_timeout: Duration,
    /// How long a connection stays open after its session ended, for reuse (RFC 9329 §6.1).
    pub linger: Duration,
    /// Idle time after which a connection that another one replaced is closed.
    pub replaced_idle: Duration,
    /// Bad messages in a row that close the connection (D5).
    pub bad_messages_in_a_row: u32,
    /// IKE messages of one connection waiting for the control thread.
    pub ike_unanswered: u32,
    /// Octets of ESP frames queued per connection, beyond those in flight.
    pub send_queue_octets: usize,
    /// Octets of all send blocks of the worker.
    pub send_memory: usize,
    /// Octets of the receive arena of the worker.
    pub receive_memory: usize,
}

/// The inner network as the packet path sees it.
#[derive(Clone, Debug)]
pub struct InnerConfig {
    /// Prefixes of all pools: packets from one UE to another have a destination in one of them.
    pub pools: Vec<(IpAddr, u8)>,
    /// MTU of the inner device.
    pub mtu: u16,
    /// Whether UEs may reach each other and the gateway itself.
    pub hairpin: bool,
    /// The host's own addresses at start.
    pub local_addrs: Arc<[IpAddr]>,
}

/// What a worker is started with.
pub struct WorkerParams {
    /// Its number.
    pub id: WorkerId,
    /// The core it is pinned to, if any.
    pub core: Option<usize>,
    /// Its accept queues, one per listening address.
    pub listeners: Vec<TcpListener>,
    /// Its queue of the inner device.
    pub tun: OwnedFd,
    /// Its inbox.
    pub inbox: Receiver<ToWorker>,
    /// The eventfd of its inbox.
    pub inbox_wake: Wake,
    /// The queue to the control thread.
    pub control: Sender<ToControl>,
    /// Wakes the control thread.
    pub control_wake: Wake,
    /// The inboxes of all workers, by [`WorkerId`].
    pub peers: Vec<Arc<InboxHandle>>,
    /// Bounds.
    pub limits: WorkerLimits,
    /// Its counters.
    pub counters: Arc<WorkerCounters>,
    /// The inner network.
    pub inner: InnerConfig,
}

/// Starts the worker's thread. It leaves its loop on [`ToWorker::Stop`].
///
/// # Errors
/// When the thread, its ring or its buffers cannot be made; the message names the missing kernel feature.
pub fn start(params: WorkerParams) -> io::Result<JoinHandle<()>> {
    let name = format!("worker-{}", params.id.0);
    std::thread::Builder::new().name(name).spawn(move || drop(params))
}
