//! The worker's io_uring: operations that own their memory until they complete.
//!
//! A connection is named by its slot, which is also its index in the ring's table of direct descriptors.
//! Older kernels use plain descriptors instead: before 6.8 a direct one could not be handed to another worker,
//! and before 6.13 a socket taken out of the table lived on until every operation begun before that had ended,
//! which a receive on an idle connection does not do for days.

mod connections;
mod device;
mod token;

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use io_uring::squeue::Entry;
use io_uring::{IoUring, Probe, cqueue, opcode, types};

use super::block::Block;
use super::recv_pool::{Incoming, RecvPool};
use super::wake::Wake;
use token::{Kind, Token};

/// Submission queue entries; completions get eight times as many.
const SUBMISSIONS: u32 = 4096;
const COMPLETIONS: u32 = 8 * SUBMISSIONS;

/// The buffer group of received streams.
const GROUP_STREAM: u16 = 0;

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
        /// The block, to be used again.
        block: Block,
        /// Whether it was sent.
        ok: bool,
    },
    /// The inner device has packets.
    DeviceReadable,
    /// The inbox has messages.
    Woken,
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

/// The socket behind a slot.
#[derive(Debug)]
enum Socket {
    Direct,
    Plain(OwnedFd),
}

#[derive(Default)]
struct Slot {
    socket: Option<Socket>,
    /// The block in flight and how much of it has been sent.
    sending: Option<(Block, usize)>,
    /// Nothing is begun on it any more.
    stopping: bool,
    generation: u32,
}

/// A worker's ring, its buffers and every descriptor it uses.
///
/// Field order is drop order: the ring goes first. Arenas are never unmapped ([`RecvPool`]); blocks in
/// flight are leaked on drop, since a cancelled operation may complete late.
pub struct Ring {
    uring: IoUring,
    stream: RecvPool,
    slots: Vec<Slot>,
    listeners: Vec<TcpListener>,
    device: OwnedFd,
    wake: Wake,
    direct: bool,
    /// Entries that did not fit while the kernel refused to take more.
    overflow: VecDeque<Entry>,
}

/// What a ring is built over.
pub struct RingParams {
    /// Connections it must hold; also the size of the table of direct descriptors.
    pub connections: u32,
    /// Octets of receive buffers.
    pub receive_memory: usize,
    /// Accept queues.
    pub listeners: Vec<TcpListener>,
    /// The queue of the inner device.
    pub device: OwnedFd,
    /// The inbox's eventfd.
    pub wake: Wake,
}

impl Ring {
    /// Makes the ring for the calling thread, which alone may use it, and arms accept, the inner device
    /// and the inbox.
    ///
    /// # Errors
    /// When the kernel lacks io_uring with multishot receive and deferred task work (Linux 6.1).
    pub fn new(params: RingParams) -> io::Result<Self> {
        let uring =
            build().map_err(|error| needs("an io_uring with DEFER_TASKRUN (Linux 6.1 or later)", error))?;
        let mut probe = Probe::new();
        uring.submitter().register_probe(&mut probe)?;
        // The first operation added after the table of 6.13.
        let direct = probe.is_supported(opcode::ReadvFixed::CODE)
            && uring.submitter().register_files_sparse(params.connections).is_ok();
        let buffers = |error| needs("provided-buffer rings (Linux 5.19 or later) and memory for them", error);
        let stream =
            RecvPool::for_stream(&uring.submitter(), GROUP_STREAM, params.receive_memory).map_err(buffers)?;
        let mut slots = Vec::new();
        slots.resize_with(params.connections as usize, Slot::default);
        let mut ring = Self {
            uring,
            stream,
            slots,
            listeners: params.listeners,
            device: params.device,
            wake: params.wake,
            direct,
            overflow: VecDeque::new(),
        };
        for listener in 0..ring.listeners.len() {
            ring.arm_accept(listener);
        }
        ring.arm_wake();
        ring.arm_device();
        Ok(ring)
    }

    /// Submits what is queued and waits for a completion, at most `timeout`; with a timeout of zero it only
    /// looks for completions.
    ///
    /// # Errors
    /// When the kernel refuses the ring altogether.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        while let Some(entry) = self.overflow.pop_front() {
            if !self.try_push(&entry) {
                self.overflow.push_front(entry);
                break;
            }
        }
        let limit = types::Timespec::from(timeout);
        let args = types::SubmitArgs::new().timespec(&limit);
        let want = usize::from(!timeout.is_zero());
        match self.uring.submitter().submit_with_args(want, &args) {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // Time is up, a signal came, or completions must be taken first.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Completions that have arrived.
    pub fn ready(&mut self) -> usize {
        self.uring.completion().len()
    }

    /// The next completion, if one has arrived.
    pub fn complete(&mut self) -> Option<Completion> {
        let (token, result, flags) = self.take_entry()?;
        let more = cqueue::more(flags);
        let index = token.index();
        Some(match token.kind() {
            Kind::Accept => self.on_accept(index as usize, result, more),
            Kind::Receive => {
                Completion::Received { slot: index, outcome: self.on_receive(result, flags), armed: more }
            }
            Kind::Send => self.on_send(index, result),
            Kind::Device => self.on_device(more),
            Kind::Wake => {
                self.wake.clear();
                if !more {
                    self.arm_wake();
                }
                Completion::Woken
            }
            Kind::Install => Completion::SocketTaken { slot: index, socket: own(result) },
            Kind::Stop => Completion::Stopped { slot: index },
            Kind::Ignored => Completion::Nothing,
        })
    }

    fn take_entry(&mut self) -> Option<(Token, i32, u32)> {
        let entry = self.uring.completion().next()?;
        Some((Token(entry.user_data()), entry.result(), entry.flags()))
    }

    fn arm_wake(&mut self) {
        let entry =
            opcode::PollAdd::new(types::Fd(self.wake.as_raw_fd()), libc::POLLIN as u32).multi(true).build();
        self.push(entry, Token::new(Kind::Wake, 0, 0));
    }

    fn push(&mut self, entry: Entry, token: Token) {
        let entry = entry.user_data(token.0);
        if !self.overflow.is_empty() || !self.try_push(&entry) {
            self.overflow.push_back(entry);
        }
    }

    fn try_push(&mut self, entry: &Entry) -> bool {
        self.push_now(entry) || (self.uring.submit().is_ok() && self.push_now(entry))
    }

    fn push_now(&mut self, entry: &Entry) -> bool {
        // SAFETY: every entry is built in this module over memory that stays in place until its completion:
        // arenas that are never unmapped and blocks owned by `slots`; descriptors
        // are owned by `self` or kept in the ring's table.
        unsafe { self.uring.submission().push(entry).is_ok() }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // The kernel may still read what was in flight.
        for slot in &mut self.slots {
            std::mem::forget(slot.sending.take());
        }
    }
}

fn build() -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .setup_clamp()
        .setup_cqsize(COMPLETIONS);
    // NO_SQARRAY saves one indirection where the kernel has it (6.6).
    let uring = builder.clone().setup_no_sqarray().build(SUBMISSIONS);
    let uring = uring.or_else(|_| builder.build(SUBMISSIONS))?;
    // A registered ring descriptor only saves a lookup per enter.
    let _ = uring.submitter().register_ring_fd();
    Ok(uring)
}

fn needs(what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("this kernel lacks {what}: {error}"))
}

/// The descriptor a completion created.
fn own(result: i32) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    // SAFETY: the kernel installed this descriptor for this completion only, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(result as RawFd) })
}
