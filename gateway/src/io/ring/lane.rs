//! One io_uring of a worker with its receive buffers.
//!
//! A ring's table of direct descriptors is bounded by RLIMIT_NOFILE. A worker with more connections than that
//! has several rings, its lanes, behind one loop. It sleeps on the first one; the others signal the inbox's
//! eventfd, which the first one watches, and are looked after in every turn.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use io_uring::squeue::Entry;
use io_uring::{IoUring, Submitter, types};

use super::token::Token;
use crate::io::recv_pool::RecvPool;

/// The buffer group of received streams.
const GROUP_STREAM: u16 = 0;

/// Octets of buffers that the receive of one starved connection is armed for.
const STARVED_SHARE: usize = 64 << 10;

/// How long completions may gather under load, and how many end the wait early.
const GATHER_US: u32 = 50;
const GATHER_COMPLETIONS: usize = 64;

/// Completions asked for by a turn that does not sleep but must see all there are: of those whose work the kernel has
/// put off it makes twenty otherwise, in the order they came.
const SWEEP_COMPLETIONS: usize = 8192;

/// How long the end of a lane waits for the kernel.
const END_MAX: Duration = Duration::from_millis(100);

/// How a lane waits for completions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sleep {
    /// Not at all: it takes what is there.
    No,
    /// Not at all either, but it takes everything, however much there is.
    Sweep,
    /// Until there is one, at most so long.
    AtMost(Duration),
    /// As [`Sleep::AtMost`], but for 50 us even when there is one already: under load, more of them
    /// in a turn cost less each (Linux 6.12; earlier kernels do not gather).
    Gathering(Duration),
}

/// Sizes of one lane.
#[derive(Clone, Copy)]
pub(super) struct LaneParams {
    /// Its number.
    pub index: u8,
    /// Submission queue entries; completions get eight times as many.
    pub submissions: u32,
    /// Size of its table of direct descriptors; 0 for none.
    pub descriptors: u32,
    /// Octets of receive buffers.
    pub receive_memory: usize,
}

/// A ring, its buffers and what waits for either.
pub(super) struct Lane {
    uring: IoUring,
    pub stream: RecvPool,
    /// The kernel can let completions gather.
    gathers: bool,
    /// Entries that did not fit while the kernel refused to take more.
    overflow: VecDeque<Entry>,
    /// Waits that found completions kept back by the kernel for want of room.
    overflows: u64,
    /// Slots whose receive found no buffer, in the order in which they did.
    starved: VecDeque<u32>,
}

impl Lane {
    /// Makes the lane for the calling thread, which alone may use it.
    ///
    /// # Errors
    /// When the kernel lacks the features, or memory or RLIMIT_MEMLOCK does not suffice.
    pub fn new(params: LaneParams) -> io::Result<Self> {
        let needs = |what: &str, error: io::Error| {
            io::Error::new(error.kind(), format!("this kernel lacks {what}: {error}"))
        };
        let uring = build(params.submissions)
            .map_err(|error| needs("an io_uring with DEFER_TASKRUN (Linux 6.1 or later)", error))?;
        if params.descriptors > 0 {
            uring.submitter().register_files_sparse(params.descriptors)?;
        }
        let submitter = uring.submitter();
        let stream = RecvPool::for_stream(&submitter, GROUP_STREAM, params.receive_memory, params.index)
            .map_err(|error| {
                needs("provided-buffer rings (Linux 5.19 or later) and memory for them", error)
            })?;
        let gathers = uring.params().is_feature_min_timeout();
        Ok(Self { uring, stream, gathers, overflow: VecDeque::new(), overflows: 0, starved: VecDeque::new() })
    }

    pub fn submitter(&self) -> Submitter<'_> {
        self.uring.submitter()
    }

    /// Signals `eventfd` when there is something for [`Lane::turn`].
    pub fn signal(&self, eventfd: RawFd) -> io::Result<()> {
        self.uring.submitter().register_eventfd(eventfd)
    }

    /// Queues an operation.
    pub fn push(&mut self, entry: Entry, token: Token) {
        let entry = entry.user_data(token.0);
        if !self.overflow.is_empty() || !self.try_push(&entry) {
            self.overflow.push_back(entry);
        }
    }

    /// Submits what is queued and waits as `sleep` says.
    pub fn wait(&mut self, sleep: Sleep) -> io::Result<()> {
        while let Some(entry) = self.overflow.pop_front() {
            if !self.try_push(&entry) {
                self.overflow.push_front(entry);
                break;
            }
        }
        let (want, gather_us, limit) = match sleep {
            Sleep::No => (0, 0, Duration::ZERO),
            Sleep::Sweep => (SWEEP_COMPLETIONS, 0, Duration::ZERO),
            Sleep::AtMost(limit) => (1, 0, limit),
            Sleep::Gathering(limit) if self.gathers => (GATHER_COMPLETIONS, GATHER_US, limit),
            Sleep::Gathering(limit) => (1, 0, limit),
        };
        let limit = types::Timespec::from(limit);
        let args = types::SubmitArgs::new().timespec(&limit).min_wait_usec(gather_us);
        self.overflows += u64::from(self.uring.submission().cq_overflow());
        match self.uring.submitter().submit_with_args(want, &args) {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // Time is up, a signal came, or completions must be taken first.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Submits what is queued and lets the kernel complete what it can, if there is anything of either.
    /// An idle lane costs no system call.
    pub fn turn(&mut self) -> io::Result<()> {
        let queue = self.uring.submission();
        let idle = queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() && self.overflow.is_empty();
        drop(queue);
        if idle { Ok(()) } else { self.wait(Sleep::No) }
    }

    /// Waits that found the completion queue overflown.
    pub fn overflows(&self) -> u64 {
        self.overflows
    }

    /// Takes back what is armed. The kernel would do so by itself some time after the descriptor is closed, and
    /// until then what was received from still holds its port.
    pub fn end(&mut self) {
        let limit = types::Timespec::from(END_MAX);
        // What has not ended by then ends as said above.
        let _ = self.uring.submitter().register_sync_cancel(Some(limit), types::CancelBuilder::any());
        let _ = self.wait(Sleep::No);
    }

    /// Completions that have arrived.
    pub fn ready(&mut self) -> usize {
        self.uring.completion().len()
    }

    /// The next completion: token, result, flags.
    pub fn take_entry(&mut self) -> Option<(Token, i32, u32)> {
        let entry = self.uring.completion().next()?;
        Some((Token(entry.user_data()), entry.result(), entry.flags()))
    }

    /// Remembers a slot that found no receive buffer.
    pub fn starve(&mut self, slot: u32) {
        self.starved.push_back(slot);
    }

    /// Whether a starved slot may be armed now.
    pub fn can_feed(&self) -> bool {
        !self.starved.is_empty() && self.stream.published_len() > 0
    }

    /// Starved slots to arm now, who waited longest first: no more than have something to read into, since
    /// each of the others would only end with another completion that says so.
    pub fn feed(&mut self) -> impl Iterator<Item = u32> {
        let count = self.stream.published_len().div_ceil(STARVED_SHARE).min(self.starved.len());
        self.starved.drain(..count)
    }

    fn try_push(&mut self, entry: &Entry) -> bool {
        self.push_now(entry) || (self.uring.submit().is_ok() && self.push_now(entry))
    }

    fn push_now(&mut self, entry: &Entry) -> bool {
        // SAFETY: every entry is built in `ring` over memory that stays in place until its completion: arenas
        // that are never unmapped and blocks owned by the ring's slots; descriptors are owned by the ring or
        // kept in its table.
        unsafe { self.uring.submission().push(entry).is_ok() }
    }
}

fn build(submissions: u32) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder
        .setup_single_issuer()
        .setup_defer_taskrun()
        // Tells without a system call whether one would find completions.
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_clamp()
        .setup_cqsize(8 * submissions);
    // NO_SQARRAY saves one indirection where the kernel has it (6.6).
    let uring = builder.clone().setup_no_sqarray().build(submissions);
    let uring = uring.or_else(|_| builder.build(submissions))?;
    // A registered ring descriptor only saves a lookup per enter.
    let _ = uring.submitter().register_ring_fd();
    Ok(uring)
}
