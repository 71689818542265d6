//! The worker's io_uring: operations that own their memory until they complete.
//!
//! A connection is named by its slot. Slots are dealt out to lanes, an io_uring each, in runs as long as a table
//! of direct descriptors may be; the rest of a slot's number is its index in that table.
//! Older kernels use plain descriptors instead: before 6.8 a direct one could not be handed to another worker,
//! and before 6.13 a socket taken out of the table lived on until every operation begun before that had ended,
//! which a receive on an idle connection does not do for days.

mod connections;
mod datagrams;
mod device;
mod lane;
mod token;
mod zero_copy;

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use io_uring::squeue::Entry;
use io_uring::{Probe, cqueue, opcode, types};
use nix::sys::resource::{Resource, getrlimit};

use super::block::Block;
use super::recv_pool::{Incoming, RecvPool};
use super::udp::UdpSocket;
use super::wake::Wake;
use datagrams::Datagrams;
pub use lane::Sleep;
use lane::{Lane, LaneParams};
use token::{Kind, Token};
pub use zero_copy::Usage as ZeroCopyUsage;
use zero_copy::ZeroCopy;

/// Submission queue entries of the first lane, as workers want it, and of each further one. Queues count towards
/// RLIMIT_MEMLOCK.
pub const SUBMISSIONS: u32 = 4096;
const SUBMISSIONS_FURTHER: u32 = 1024;

/// Most connections of one lane: its table takes 8 octets for each when the lane is made.
const LANE_CONNECTIONS_MAX: u32 = 1 << 17;

/// Most lanes of a worker: the last number stands for the pool of datagrams.
const LANES_MAX: u32 = 255;

/// A further lane's part of the receive memory, and the least that is of use.
const RECEIVE_SHARE_FURTHER: usize = 16;
const RECEIVE_MEMORY_MIN: usize = 64 << 10;

/// How a receive ended or went on.
#[derive(Debug)]
pub enum Received {
    /// Octets; release them when parsed.
    Octets(Incoming),
    /// The peer closed its side.
    End,
    /// No buffer was free; arm again when one is.
    Starved,
    /// The connection broke, or the receive was cancelled.
    Failed,
}

/// What the kernel finished.
#[derive(Debug)]
pub enum Completion {
    /// A connection arrived at listener `listener`.
    Accepted {
        /// Index of the listener.
        listener: usize,
        /// The connection.
        socket: OwnedFd,
    },
    /// Accepting stopped at `listener` for lack of resources; arm it again later.
    AcceptStopped {
        /// Index of the listener.
        listener: usize,
    },
    /// Something arrived on a connection.
    Received {
        /// The connection's slot.
        slot: u32,
        /// What.
        outcome: Received,
        /// Whether the receive stays armed.
        armed: bool,
    },
    /// A block was sent whole, or failed.
    Sent {
        /// The connection's slot.
        slot: u32,
        /// What it held.
        sent: SentBlock,
        /// Whether it was sent.
        ok: bool,
        /// The block, to be used again; `None` when [`Completion::BlockFree`] brings it.
        block: Option<Block>,
    },
    /// A block that was sent without a copy may be used again.
    BlockFree {
        /// The block.
        block: Block,
    },
    /// Something arrived at a UDP socket.
    Datagrams {
        /// Index of the socket.
        socket: usize,
        /// What: one message, see [`crate::io::udp::Arrival`].
        outcome: Received,
        /// Whether the receive stays armed.
        armed: bool,
    },
    /// A UDP socket that was full has room again.
    Writable {
        /// Index of the socket.
        socket: usize,
    },
    /// An inner device has packets.
    DeviceReadable {
        /// Its place in [`RingParams::devices`].
        device: usize,
    },
    /// The inbox has messages.
    Woken,
    /// A second descriptor of a connection's socket, asked for with [`Ring::watch`].
    Watched {
        /// The connection's slot.
        slot: u32,
        /// The descriptor.
        socket: OwnedFd,
    },
    /// The plain descriptor of a connection asked for with [`Ring::take_socket`].
    SocketTaken {
        /// The connection's slot.
        slot: u32,
        /// Its descriptor.
        socket: io::Result<OwnedFd>,
    },
    /// A [`Ring::stop`] is over.
    Stopped {
        /// The connection's slot.
        slot: u32,
    },
    /// An operation whose outcome does not matter.
    Nothing,
}

/// What a block held that was sent.
#[derive(Clone, Copy, Debug)]
pub struct SentBlock {
    /// Octets.
    pub octets: usize,
    /// Frames.
    pub frames: u32,
}

/// The socket behind a slot.
#[derive(Debug)]
enum Socket {
    Direct,
    Plain(OwnedFd),
}

/// A block that the kernel is reading.
struct Sending {
    block: Block,
    /// Octets it has taken.
    sent: usize,
    /// Whether what follows is to be apart from it.
    apart: bool,
}

#[derive(Default)]
struct Slot {
    socket: Option<Socket>,
    /// The block in flight and how much of it has been sent.
    sending: Option<Sending>,
    /// The send without a copy that the socket has not taken yet.
    lent: Option<u32>,
    /// Nothing is begun on it any more.
    stopping: bool,
    generation: u32,
}

/// A worker's rings, their buffers and every descriptor they use.
///
/// Field order is drop order: the rings go first. Arenas are never unmapped; blocks in flight are leaked on
/// drop, since a cancelled operation may complete late.
pub struct Ring {
    /// The first one also accepts, watches the inner devices and is waited on; further ones are made when
    /// they are needed.
    lanes: Vec<Lane>,
    /// Grows to the highest slot ever used.
    slots: Vec<Slot>,
    /// Slots of one lane.
    per_lane: u32,
    /// Sizes of further lanes.
    further: LaneParams,
    listeners: Vec<TcpListener>,
    datagrams: Option<Datagrams>,
    devices: Vec<OwnedFd>,
    wake: Wake,
    direct: bool,
    zero_copy: ZeroCopy,
}

/// What a ring is built over.
pub struct RingParams {
    /// Submission queue entries of the first lane; its completion queue has eight times as many. What does not
    /// fit into either waits in memory.
    pub submissions: u32,
    /// Connections it must be able to hold; costs nothing before they come.
    pub connections: u32,
    /// Octets of receive buffers, further lanes included.
    pub receive_memory: usize,
    /// Accept queues.
    pub listeners: Vec<TcpListener>,
    /// UDP sockets.
    pub datagrams: Vec<UdpSocket>,
    /// Octets of receive buffers for them.
    pub datagram_memory: usize,
    /// The queues of the inner devices.
    pub devices: Vec<OwnedFd>,
    /// The inbox's eventfd.
    pub wake: Wake,
    /// Octets of a send from which on the kernel does not copy them; `None`: it always does.
    pub zero_copy: Option<usize>,
}

impl Ring {
    /// Makes the ring for the calling thread, which alone may use it, and arms accept, the inner devices
    /// and the inbox.
    ///
    /// # Errors
    /// When the kernel lacks io_uring with multishot receive and deferred task work (Linux 6.1).
    pub fn new(params: RingParams) -> io::Result<Self> {
        let mut first = LaneParams {
            index: 0,
            submissions: params.submissions,
            descriptors: 0,
            receive_memory: params.receive_memory,
        };
        let direct = has_direct_descriptors()?;
        let per_lane = if direct { lane_connections(params.connections) } else { u32::MAX };
        let further_count = params.connections.div_ceil(per_lane).min(LANES_MAX) as usize - 1;
        let mut further = LaneParams { submissions: SUBMISSIONS_FURTHER.min(params.submissions), ..first };
        if direct {
            further.receive_memory = (params.receive_memory / RECEIVE_SHARE_FURTHER)
                .min(params.receive_memory / 2 / further_count.max(1))
                .max(RECEIVE_MEMORY_MIN);
            first.receive_memory = params
                .receive_memory
                .saturating_sub(further_count * further.receive_memory)
                .max(params.receive_memory / 2);
            (first.descriptors, further.descriptors) = (per_lane, per_lane);
        }
        let lane = Lane::new(first)?;
        let datagrams = Datagrams::new(params.datagrams, params.datagram_memory, &lane.submitter())?;
        let mut ring = Self {
            lanes: vec![lane],
            slots: Vec::new(),
            per_lane,
            further,
            listeners: params.listeners,
            datagrams,
            devices: params.devices,
            wake: params.wake,
            direct,
            zero_copy: ZeroCopy::new(params.zero_copy),
        };
        for listener in 0..ring.listeners.len() {
            ring.arm_accept(listener);
        }
        for socket in 0..ring.udp_sockets().len() {
            ring.arm_datagrams(socket);
        }
        ring.arm_wake();
        for device in 0..ring.devices.len() {
            ring.arm_device(device);
        }
        Ok(ring)
    }

    /// Most connections it can hold: the lanes' tables, or without such tables the descriptors of the process.
    pub fn connections_max(&self) -> u32 {
        if self.direct { self.per_lane.saturating_mul(LANES_MAX) } else { descriptors_max() }
    }

    /// Submits what is queued and waits for completions as `sleep` says.
    ///
    /// # Errors
    /// When the kernel refuses a ring altogether.
    pub fn wait(&mut self, sleep: Sleep) -> io::Result<()> {
        let Some((first, further)) = self.lanes.split_first_mut() else { return Ok(()) };
        let mut found = 0;
        for lane in &mut *further {
            lane.turn()?;
            found += lane.ready();
        }
        first.wait(if found == 0 { sleep } else { Sleep::No })?;
        // What woke the first may have been one of these.
        further.iter_mut().try_for_each(Lane::turn)
    }

    /// Times the kernel had to keep completions because their queue was full. None is lost then: they come
    /// when there is room, and receives have to be armed again.
    pub fn overflows(&self) -> u64 {
        self.lanes.iter().map(Lane::overflows).sum()
    }

    /// Completions that have arrived.
    pub fn ready(&mut self) -> usize {
        self.lanes.iter_mut().map(Lane::ready).sum()
    }

    /// The next completion, if one has arrived.
    pub fn complete(&mut self) -> Option<Completion> {
        let (lane, (token, result, flags)) =
            self.lanes.iter_mut().enumerate().find_map(|(at, lane)| Some((at, lane.take_entry()?)))?;
        let more = cqueue::more(flags);
        let index = token.index();
        Some(match token.kind() {
            Kind::Accept => self.on_accept(index as usize, result, more),
            Kind::Receive => Completion::Received {
                slot: index,
                outcome: self.on_receive(lane, result, flags),
                armed: more,
            },
            Kind::Send => self.on_send(index, result),
            Kind::Datagrams => Completion::Datagrams {
                socket: index as usize,
                outcome: self.on_datagrams(result, flags),
                armed: more,
            },
            Kind::Writable => Completion::Writable { socket: index as usize },
            Kind::SendLent => self.on_lent(index, result, flags),
            Kind::Device => self.on_device(index as usize, result, more),
            Kind::Wake => {
                self.wake.clear();
                if !more {
                    self.arm_wake();
                }
                Completion::Woken
            }
            Kind::Install => Completion::SocketTaken { slot: index, socket: own(result) },
            Kind::Watch => self.on_watch(token, result),
            Kind::Stop => Completion::Stopped { slot: index },
            Kind::Ignored => Completion::Nothing,
        })
    }

    /// The pool a run of octets is of.
    fn pool(&self, incoming: &Incoming) -> &RecvPool {
        match (self.lanes.get(incoming.lane()), &self.datagrams) {
            (Some(lane), _) => &lane.stream,
            (None, Some(datagrams)) => datagrams.pool(),
            (None, None) => unreachable!("a run is made by one of the pools"),
        }
    }

    fn pool_mut(&mut self, incoming: &Incoming) -> &mut RecvPool {
        match (self.lanes.get_mut(incoming.lane()), &mut self.datagrams) {
            (Some(lane), _) => &mut lane.stream,
            (None, Some(datagrams)) => datagrams.pool_mut(),
            (None, None) => unreachable!("a run is made by one of the pools"),
        }
    }

    fn arm_wake(&mut self) {
        let entry =
            opcode::PollAdd::new(types::Fd(self.wake.as_raw_fd()), libc::POLLIN as u32).multi(true).build();
        self.push(entry, Token::new(Kind::Wake, 0, 0));
    }

    /// Queues an operation that belongs to no connection.
    fn push(&mut self, entry: Entry, token: Token) {
        self.push_on(0, entry, token);
    }

    fn push_on(&mut self, lane: usize, entry: Entry, token: Token) {
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.push(entry, token);
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.lanes.iter_mut().for_each(Lane::end);
        // The kernel may still read what was in flight.
        for slot in &mut self.slots {
            std::mem::forget(slot.sending.take());
        }
        self.zero_copy.leak();
    }
}

/// Whether the kernel keeps direct descriptors well: it has the first operation added after the table of 6.13.
fn has_direct_descriptors() -> io::Result<bool> {
    let mut probe = Probe::new();
    io_uring::IoUring::new(1)?.submitter().register_probe(&mut probe)?;
    Ok(probe.is_supported(opcode::ReadvFixed::CODE))
}

/// Connections of one lane: its table may not be longer than the process may have descriptors.
fn lane_connections(connections: u32) -> u32 {
    connections.min(descriptors_max()).clamp(1, LANE_CONNECTIONS_MAX)
}

fn descriptors_max() -> u32 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| u32::try_from(soft).unwrap_or(u32::MAX))
}

/// The descriptor a completion created.
fn own(result: i32) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    // SAFETY: the kernel installed this descriptor for this completion only, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(result as RawFd) })
}
