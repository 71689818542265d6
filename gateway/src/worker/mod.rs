//! The packet path: one thread per core that owns a ring, its accept queues, its connections, its SA table
//! and its queues of the inner devices.
//!
//! A worker shares nothing that is written per packet. It takes orders from its inbox ([`inbox::ToWorker`])
//! and reports to the control thread ([`inbox::ToControl`]); its counters are read without stopping it.

mod conn;
pub mod control_queue;
pub mod counters;
mod downlink;
mod early;
pub mod flow_queue;
#[cfg(test)]
mod footprint;
mod front;
mod gather;
pub mod inbox;
mod isolation;
mod lifecycle;
mod moves;
mod opening;
mod orders;
mod outlet;
mod pace;
mod passing;
mod path_queue;
mod relief;
pub mod sad;
mod sealing;
mod send;
pub mod udp;
mod uplink;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{io, mem};

use ahash::{AHashMap, AHashSet};
use codec::OsRandom;
use crossbeam::channel::{Receiver, Sender};

use crate::config::Queueing;
use crate::io::block::BlockPool;
use crate::io::ring::{Completion, Ring, RingParams, SUBMISSIONS, Sleep};
use crate::io::thread;
use crate::io::tun::InnerDevice;
use crate::io::udp::UdpSocket;
use crate::io::wake::Wake;
use crate::tls::{StreamKind, StreamListener, TlsServer};
use crate::types::{NetworkId, SessionId, WorkerId};
use conn::ConnTable;
use control_queue::ControlSender;
use counters::{DropReason, WorkerCounters};
use early::Early;
use flow_queue::{FlowQueues, SUPER_LEN};
use front::Handshakes;
use gather::Gather;
use inbox::{ToControl, ToWorker};
use opening::Opening;
use outlet::Outlet;
pub use passing::Passed;
use passing::Passing;
use path_queue::Watched;
use relief::RELIEF_EVERY;
use sad::Sad;
use sealing::Sealing;
use udp::Udp;

/// Longest sleep of an idle worker; deadlines are kept to about this.
const TICK: Duration = Duration::from_millis(1000);

/// How soon a full queue to the control thread is tried again.
const LATE_RETRY: Duration = Duration::from_millis(1);

/// Idle seconds after which an SA gives up its cipher contexts.
const COOL_EVERY_S: u64 = 10;

/// Packets read from the inner device before connections get their turn.
const DEVICE_READS: usize = 64;

/// As many octets read do the same.
const DEVICE_OCTETS: usize = 512 * 1024;

/// Octets of an unfinished frame that a connection may hold whatever the others do: an ordinary IKE message.
const UNFINISHED_FREE: usize = 4096;

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
    /// IKE messages over UDP waiting for the control thread.
    pub udp_ike_unanswered: u32,
    /// Octets of ESP frames queued per connection, beyond those in flight.
    pub send_queue_octets: usize,
    /// Octets of all send blocks of the worker.
    pub send_memory: usize,
    /// Octets of packets of one UE that wait to be sealed.
    pub flow_queue_octets: usize,
    /// Octets of packets of all UEs that wait to be sealed.
    pub flow_memory: usize,
    /// Octets of the receive arena of the worker.
    pub receive_memory: usize,
    /// Octets of its receive buffers for UDP, if it has UDP sockets.
    pub udp_receive_memory: usize,
    /// Octets of a send from which on the kernel does not copy them; `None`: it always does.
    pub zero_copy: Option<usize>,
    /// Octets of unfinished frames on connections without a session, beyond 4 KB of each.
    pub unfinished: usize,
    /// Octets of ESP that wait for a Child SA on offer.
    pub early: usize,
    /// TLS handshakes under way at once.
    pub tls_handshakes: u32,
}

/// The inner networks as the packet path sees them.
#[derive(Clone, Debug)]
pub struct InnerConfig {
    /// The networks, by [`crate::types::NetworkId`]; at least one.
    pub networks: Vec<NetworkConfig>,
    /// Whether and how downlink packets wait in flow queues for a connection that is busy, instead of being
    /// sealed at once and dropped behind `send_queue_octets`.
    pub queueing: Queueing,
}

/// One inner network.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// Prefixes of its pools: packets from one UE to another have a destination in one of them.
    pub pools: Vec<(IpAddr, u8)>,
    /// MTU of the inner device.
    pub mtu: u16,
    /// Whether UEs may reach each other and the gateway itself.
    pub hairpin: bool,
    /// The addresses whose packets the host there keeps for itself, at start.
    pub local_addrs: Arc<[IpAddr]>,
}

/// What a worker is started with.
pub struct WorkerParams {
    /// Its number.
    pub id: WorkerId,
    /// The core it is pinned to, if any.
    pub core: Option<usize>,
    /// Its accept queues, one per listening address.
    pub listeners: Vec<StreamListener>,
    /// What it offers where TLS is spoken.
    pub tls: Option<TlsServer>,
    /// Its UDP sockets, one per listening address, the same for all workers.
    pub datagrams: Vec<UdpSocket>,
    /// Its queues of the inner devices, by [`crate::types::NetworkId`]; as many as there are networks.
    pub devices: Vec<Box<dyn InnerDevice>>,
    /// Its inbox.
    pub inbox: Receiver<ToWorker>,
    /// The eventfd of its inbox.
    pub inbox_wake: Wake,
    /// The queue to the control thread.
    pub control: ControlSender,
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

impl NetworkConfig {
    /// Whether `addr` is a UE's, or would be if assigned.
    fn in_a_pool(&self, addr: IpAddr) -> bool {
        self.pools.iter().any(|&(prefix, len)| match (prefix, addr) {
            (IpAddr::V4(prefix), IpAddr::V4(addr)) => {
                let host_bits = 32 - u32::from(len.min(32));
                u64::from(prefix.to_bits() ^ addr.to_bits()) >> host_bits == 0
            }
            (IpAddr::V6(prefix), IpAddr::V6(addr)) => {
                let differ = prefix.to_bits() ^ addr.to_bits();
                differ.leading_zeros() >= u32::from(len.min(128))
            }
            _ => false,
        })
    }
}

/// An inner network while it is served.
struct Network {
    config: NetworkConfig,
    /// The addresses whose packets the host there keeps for itself.
    local_addrs: AHashSet<IpAddr>,
    /// Its device may have more packets than were read.
    is_ready: bool,
    /// The control thread knows that its device was deleted.
    is_gone: bool,
}

impl Network {
    fn new(config: NetworkConfig) -> Self {
        let local_addrs = config.local_addrs.iter().copied().collect();
        Self { config, local_addrs, is_ready: false, is_gone: false }
    }
}

/// Starts the worker's thread. It leaves its loop on [`ToWorker::Stop`].
///
/// # Errors
/// When the thread, its ring or its buffers cannot be made; the message names the missing kernel feature.
pub fn start(params: WorkerParams) -> io::Result<JoinHandle<()>> {
    let name = format!("worker-{}", params.id.0);
    thread::start(name, move || Worker::new(params), Worker::run)
}

/// Everything one worker owns.
struct Worker {
    id: WorkerId,
    ring: Ring,
    conns: ConnTable,
    sad: Sad,
    early: Early,
    blocks: BlockPool,
    outlet: Outlet,
    /// Frames to be opened together; absent only while they are.
    opening: Option<Box<Opening>>,
    /// Frames in the clear in send blocks: none but between reading the device and flushing.
    sealing: Sealing,
    udp: Udp,
    /// What is spoken at each accept queue.
    kinds: Vec<StreamKind>,
    tls: Option<TlsServer>,
    handshakes: Handshakes,
    flow_queues: FlowQueues,
    flow_hasher: ahash::RandomState,
    /// Packets wait for a send block.
    round_blocked: bool,
    networks: Vec<Network>,
    /// A packet of an inner device behind its virtio-net header.
    packet: Box<[u8]>,
    /// Connections with something to send.
    dirty: Vec<u32>,
    /// Octets counted towards [`WorkerLimits::unfinished`].
    unfinished: usize,
    deadlines: BinaryHeap<Reverse<(Instant, u32)>>,
    /// Which worker serves an inner address.
    routes: AHashMap<(NetworkId, IpAddr), WorkerId>,
    inbox: Receiver<ToWorker>,
    control: ControlSender,
    control_wake: Wake,
    control_dirty: bool,
    /// Reports its queue had no room for: what happened to connections and sessions is never forgotten.
    late: VecDeque<ToControl>,
    /// Sessions that the control thread believes elsewhere.
    moved: VecDeque<SessionId>,
    /// The same, of those that move so often that they have to wait.
    moved_often: Vec<SessionId>,
    /// When connections were last looked at for want of send blocks.
    relieved: Instant,
    peers: Vec<Arc<InboxHandle>>,
    /// Packets passed to them.
    passing: Passing,
    limits: WorkerLimits,
    counters: Arc<WorkerCounters>,
    queueing: Queueing,
    watched: Watched,
    random: OsRandom,
    started: Instant,
    /// Read once per turn.
    now: Instant,
    /// Whole seconds since the start, read once per turn.
    now_s: u64,
    gather: Gather,
    accept_stopped: Vec<usize>,
    stopping: Option<Instant>,
}

impl Worker {
    fn new(params: WorkerParams) -> io::Result<Self> {
        if let Some(core) = params.core {
            thread::pin_to_core(core)?;
        }
        let now = Instant::now();
        let WorkerParams { id, limits, inner, .. } = params;
        let udp = Udp::new(params.datagrams.len());
        let (listeners, kinds) = params.listeners.into_iter().map(|of| (of.socket, of.kind)).unzip();
        let devices = params.devices.iter().map(|device| device.as_fd().try_clone_to_owned());
        let ring = Ring::new(RingParams {
            submissions: SUBMISSIONS,
            connections: limits.connections,
            receive_memory: limits.receive_memory,
            listeners,
            datagrams: params.datagrams,
            datagram_memory: limits.udp_receive_memory,
            devices: devices.collect::<io::Result<_>>()?,
            wake: params.inbox_wake,
            zero_copy: limits.zero_copy,
        })?;
        let capacity = limits.connections.min(ring.connections_max());
        if capacity < limits.connections {
            tracing::warn!(
                worker = id.0,
                connections = capacity,
                "limits.connections is out of reach: this kernel and RLIMIT_NOFILE allow fewer"
            );
        }
        let mtu_max = inner.networks.iter().map(|network| network.mtu).max().unwrap_or_default();
        let conns = ConnTable::new(id, capacity, limits.connections_per_source);
        let queueing = inner.queueing;
        let (of_ue, of_all) = (limits.flow_queue_octets, limits.flow_memory);
        let flow_queues = FlowQueues::new(of_ue, of_all, mtu_max, queueing.voice_late);
        Ok(Self {
            id,
            ring,
            conns,
            sad: Sad::default(),
            early: Early::new(limits.early),
            blocks: BlockPool::new(limits.send_memory),
            outlet: Outlet::new(params.devices),
            opening: Some(Box::new(Opening::new())),
            sealing: Sealing::new(),
            udp,
            kinds,
            tls: params.tls,
            handshakes: Handshakes::default(),
            flow_queues,
            flow_hasher: ahash::RandomState::new(),
            round_blocked: false,
            networks: inner.networks.into_iter().map(Network::new).collect(),
            packet: vec![0; SUPER_LEN].into_boxed_slice(),
            dirty: Vec::new(),
            unfinished: 0,
            deadlines: BinaryHeap::new(),
            routes: AHashMap::new(),
            inbox: params.inbox,
            control: params.control,
            control_wake: params.control_wake,
            control_dirty: false,
            late: VecDeque::new(),
            moved: VecDeque::new(),
            moved_often: Vec::new(),
            relieved: now,
            passing: Passing::new(params.peers.len()),
            peers: params.peers,
            limits,
            counters: params.counters,
            queueing,
            watched: Watched::default(),
            random: OsRandom,
            started: now,
            now,
            now_s: 0,
            gather: Gather::new(now),
            accept_stopped: Vec::new(),
            stopping: None,
        })
    }

    /// The loop: wait, handle the batch of completions that is there, then flush what it caused.
    fn run(mut self) {
        let mut housekeeping_s = 0;
        loop {
            if let Err(error) = self.ring.wait(self.sleep()) {
                tracing::error!(worker = self.id.0, %error, "the ring failed; the worker ends");
                return;
            }
            self.now = Instant::now();
            self.now_s = self.now.duration_since(self.started).as_secs();
            self.gather.turn(self.now);
            self.continue_handshakes();
            for _ in 0..self.ring.ready() {
                let Some(completion) = self.ring.complete() else { break };
                self.on_completion(completion);
            }
            self.flush_uplink();
            self.read_devices();
            self.report_late();
            self.tell_moves();
            self.feed_starved();
            self.feed_udp();
            self.flush();
            self.relieve();
            if mem::take(&mut self.control_dirty) {
                self.control_wake.wake();
            }
            if housekeeping_s != self.now_s {
                housekeeping_s = self.now_s;
                self.housekeeping();
            }
            if self.stopping.is_some_and(|until| self.now >= until || self.all_sent()) {
                return;
            }
        }
    }

    /// How the loop may sleep.
    fn sleep(&self) -> Sleep {
        let limit = match (self.late.is_empty() && self.moved.is_empty(), self.is_scarce()) {
            (false, _) => LATE_RETRY,
            (true, true) => RELIEF_EVERY,
            (true, false) => TICK,
        };
        if self.handshakes.any_waits() {
            // A packet does not stand behind hundreds of ClientHellos in the kernel.
            Sleep::Sweep
        } else if self.networks.iter().any(|network| network.is_ready)
            || self.has_turns()
            || self.ring.can_feed()
        {
            Sleep::No
        } else if self.gather.is_busy() {
            Sleep::Gathering(limit)
        } else {
            Sleep::AtMost(limit)
        }
    }

    fn on_completion(&mut self, completion: Completion) {
        match completion {
            Completion::Received { slot, outcome, armed } => self.on_received(slot, outcome, armed),
            Completion::Datagrams { socket, outcome, armed } => self.on_datagrams(socket, outcome, armed),
            Completion::Writable { socket } => self.on_writable(socket),
            Completion::DeviceReadable { device } => {
                if let Some(network) = self.networks.get_mut(device) {
                    network.is_ready = true;
                }
            }
            Completion::Sent { slot, sent, ok, block } => self.on_sent(slot, sent, ok, block),
            Completion::BlockFree { block } => self.blocks.give_back(block),
            Completion::Woken => self.on_woken(),
            Completion::Accepted { listener, socket } => self.on_accepted(listener, socket),
            Completion::AcceptStopped { listener } => self.accept_stopped.push(listener),
            Completion::Watched { slot, socket } => self.on_watched(slot, socket),
            Completion::SocketTaken { slot, socket } => self.on_socket_taken(slot, socket),
            Completion::Stopped { slot } => self.on_stopped(slot),
            Completion::Nothing => {}
        }
    }

    /// Reads again on connections that found no buffer, as many as there are buffers for by now.
    fn feed_starved(&mut self) {
        if !self.ring.can_feed() {
            return;
        }
        let slots: Vec<u32> = self.ring.feed().collect();
        for slot in slots {
            if let Some(conn) = self.conns.get_mut(slot)
                && mem::take(&mut conn.starved)
                && conn.can_receive()
            {
                conn.receive_armed = true;
                self.ring.arm_receive(slot);
            }
        }
    }

    /// Once a second.
    fn housekeeping(&mut self) {
        self.expire();
        self.recall_moves();
        self.retry_udp();
        self.sad.forget_retired(self.now);
        if self.now_s.is_multiple_of(COOL_EVERY_S) {
            self.sad.cool_idle(self.now_s.saturating_sub(COOL_EVERY_S));
        }
        // A queue whose read failed is looked at again.
        self.networks.iter_mut().for_each(|network| network.is_ready = true);
        for listener in mem::take(&mut self.accept_stopped) {
            self.ring.arm_accept(listener);
        }
        self.counters.ring_overflows.set(self.ring.overflows());
        let zero_copy = self.ring.zero_copy_usage();
        self.counters.zero_copy_sends.set(zero_copy.sends);
        self.counters.zero_copy_copied.set(zero_copy.copied);
        self.counters.cpu_ns.set(thread::cpu_time().as_nanos() as u64);
    }

    /// Tells the control thread. False when its queue is full and the message may be lost, which is
    /// counted; everything else waits here, and IKE messages find the queue full as long as it does.
    fn report(&mut self, message: ToControl) -> bool {
        self.control_dirty = true;
        let refused = if self.late.is_empty() {
            let Err(refused) = self.control.try_send(message) else { return true };
            *refused
        } else {
            message
        };
        if matches!(refused, ToControl::Ike { .. } | ToControl::EspActivity { .. }) {
            self.counters.dropped(DropReason::ControlQueueFull);
            return false;
        }
        self.late.push_back(refused);
        true
    }

    /// Tells the control thread what its queue had no room for.
    fn report_late(&mut self) {
        while let Some(message) = self.late.pop_front() {
            if let Err(refused) = self.control.try_send(message) {
                return self.late.push_front(*refused);
            }
            self.control_dirty = true;
        }
    }

    /// Passes a message to another worker; false when its inbox is full, which is counted.
    fn pass_to(&mut self, worker: WorkerId, message: ToWorker) -> bool {
        let Some(peer) = self.peers.get(worker.index()) else { return false };
        let passed = peer.queue.try_send(message).is_ok();
        if passed {
            peer.wake.wake();
        } else {
            self.counters.dropped(DropReason::HandoffFull);
        }
        passed
    }

    fn all_sent(&mut self) -> bool {
        let slots: Vec<u32> = self.conns.slots().collect();
        slots
            .into_iter()
            .all(|slot| self.conns.get_mut(slot).is_none_or(|conn| conn.all_sent() && !conn.sending))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pool_membership_follows_the_prefix_length() {
        let config = NetworkConfig {
            pools: vec![
                ("10.64.0.0".parse().expect("address"), 16),
                ("fd64::".parse().expect("address"), 112),
            ],
            mtu: 1400,
            hairpin: false,
            local_addrs: Arc::new([]),
        };
        for (addr, inside) in [
            ("10.64.255.255", true),
            ("10.65.0.0", false),
            ("fd64::ffff", true),
            ("fd64::1:0", false),
            ("::10.64.0.1", false),
        ] {
            assert_eq!(config.in_a_pool(addr.parse().expect("address")), inside, "{addr}");
        }
    }
}
