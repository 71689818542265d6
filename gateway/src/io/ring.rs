//! The worker's io_uring: operations that own their memory until they complete.
//!
//! A connection is named by its slot, which is also its index in the ring's table of direct descriptors.
//! Kernels without `FIXED_FD_INSTALL` (before 6.8) use plain descriptors instead, since a direct one could
//! not be handed to another worker there.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, Probe, cqueue, opcode, types};

use super::block::Block;
use super::recv_pool::{Incoming, Loan, RecvPool};
use super::wake::Wake;

/// Submission queue entries; completions get eight times as many.
const SUBMISSIONS: u32 = 4096;
const COMPLETIONS: u32 = 8 * SUBMISSIONS;

/// Buffer groups.
const GROUP_STREAM: u16 = 0;
const GROUP_TUN: u16 = 1;

/// Packets the inner device may hand us between two turns of the loop.
const TUN_BUFFERS: u16 = 1024;

/// Reads kept waiting on the inner device where the kernel has no multishot read (before 6.7).
const TUN_READS_SINGLE: u32 = 32;

/// Largest buffer kept for straddling frames; what a jumbo frame needed goes back to the allocator.
const SPARE_LEN_MAX: usize = 4096;

/// What a completion belongs to: kind (8 bits), generation (24), index (32).
#[derive(Clone, Copy)]
struct Token(u64);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Kind {
    Accept,
    Receive,
    Send,
    TunRead,
    TunWrite,
    Wake,
    Install,
    Shutdown,
    Ignored,
}

impl Token {
    fn new(kind: Kind, generation: u32, index: u32) -> Self {
        Self((kind as u64) << 56 | u64::from(generation & 0xff_ffff) << 32 | u64::from(index))
    }

    fn kind(self) -> Kind {
        const KINDS: [Kind; 9] = [
            Kind::Accept,
            Kind::Receive,
            Kind::Send,
            Kind::TunRead,
            Kind::TunWrite,
            Kind::Wake,
            Kind::Install,
            Kind::Shutdown,
            Kind::Ignored,
        ];
        KINDS.get((self.0 >> 56) as usize).copied().unwrap_or(Kind::Ignored)
    }

    fn index(self) -> u32 {
        self.0 as u32
    }
}

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
    /// A packet with its virtio-net header from the inner device; release it when sealed.
    TunRead(Incoming),
    /// The inner device did not take a packet.
    TunWriteFailed,
    /// The inbox has messages.
    Woken,
    /// The plain descriptor of a connection asked for with [`Ring::take_socket`].
    SocketTaken {
        /// The connection's slot.
        slot: u32,
        /// Its descriptor.
        socket: io::Result<OwnedFd>,
    },
    /// A [`Ring::shutdown`] is over.
    ShutDown {
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
    generation: u32,
}

/// Memory of a write to the inner device in flight.
enum TunWrite {
    Lent(Loan),
    Owned(Vec<u8>),
}

/// A worker's ring, its buffers and every descriptor it uses.
///
/// Field order is drop order: the ring goes first. Arenas are never unmapped ([`RecvPool`]); blocks in
/// flight are leaked on drop, since a cancelled operation may complete late.
pub struct Ring {
    uring: IoUring,
    stream: RecvPool,
    tun_packets: RecvPool,
    slots: Vec<Slot>,
    writes: Vec<Option<TunWrite>>,
    writes_free: Vec<u32>,
    spare: Vec<Vec<u8>>,
    listeners: Vec<TcpListener>,
    tun: OwnedFd,
    wake: Wake,
    direct: bool,
    tun_multishot: bool,
    /// The read of the inner device waits for a free buffer.
    tun_starved: bool,
    /// Completions taken early to make room, not yet handled.
    early: VecDeque<(Token, i32, u32)>,
    /// Entries that did not fit while the kernel refused to take more.
    overflow: VecDeque<Entry>,
}

/// What a ring is built over.
pub struct RingParams {
    /// Connections it must hold; also the size of the table of direct descriptors.
    pub connections: u32,
    /// Octets of receive buffers.
    pub receive_memory: usize,
    /// Largest packet the inner device yields, with its header.
    pub tun_packet_len: usize,
    /// Writes to the inner device in flight.
    pub tun_writes: u32,
    /// Accept queues.
    pub listeners: Vec<TcpListener>,
    /// The queue of the inner device.
    pub tun: OwnedFd,
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
        let direct = probe.is_supported(opcode::FixedFdInstall::CODE)
            && uring.submitter().register_files_sparse(params.connections).is_ok();
        let tun_multishot = probe.is_supported(opcode::ReadMulti::CODE);
        let buffers = |error| needs("provided-buffer rings (Linux 5.19 or later) and memory for them", error);
        let stream =
            RecvPool::for_stream(&uring.submitter(), GROUP_STREAM, params.receive_memory).map_err(buffers)?;
        let tun_packets =
            RecvPool::for_packets(&uring.submitter(), GROUP_TUN, TUN_BUFFERS, params.tun_packet_len)
                .map_err(buffers)?;
        let mut slots = Vec::new();
        slots.resize_with(params.connections as usize, Slot::default);
        let mut ring = Self {
            uring,
            stream,
            tun_packets,
            slots,
            writes: (0..params.tun_writes).map(|_| None).collect(),
            writes_free: (0..params.tun_writes).rev().collect(),
            spare: Vec::new(),
            listeners: params.listeners,
            tun: params.tun,
            wake: params.wake,
            direct,
            tun_multishot,
            tun_starved: false,
            early: VecDeque::new(),
            overflow: VecDeque::new(),
        };
        for listener in 0..ring.listeners.len() {
            ring.arm_accept(listener);
        }
        ring.arm_wake();
        for _ in 0..if tun_multishot { 1 } else { TUN_READS_SINGLE } {
            ring.arm_tun_read();
        }
        Ok(ring)
    }

    /// Submits what is queued and waits for a completion, at most `timeout`.
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
        let timeout = types::Timespec::from(timeout);
        let args = types::SubmitArgs::new().timespec(&timeout);
        // Completions taken early are work already.
        let want = usize::from(self.early.is_empty());
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
        self.early.len() + self.uring.completion().len()
    }

    /// The next completion, if one has arrived.
    pub fn complete(&mut self) -> Option<Completion> {
        let (token, result, flags) = self.early.pop_front().or_else(|| self.take_entry())?;
        let more = cqueue::more(flags);
        let index = token.index();
        Some(match token.kind() {
            Kind::Accept => self.on_accept(index as usize, result, more),
            Kind::Receive => {
                Completion::Received { slot: index, outcome: self.on_receive(result, flags), armed: more }
            }
            Kind::Send => self.on_send(index, result),
            Kind::TunRead => self.on_tun_read(result, flags, more),
            Kind::TunWrite => self.on_tun_write(index, result),
            Kind::Wake => {
                self.wake.clear();
                if !more {
                    self.arm_wake();
                }
                Completion::Woken
            }
            Kind::Install => Completion::SocketTaken { slot: index, socket: own(result) },
            Kind::Shutdown => Completion::ShutDown { slot: index },
            Kind::Ignored => Completion::Nothing,
        })
    }

    fn take_entry(&mut self) -> Option<(Token, i32, u32)> {
        let entry = self.uring.completion().next()?;
        Some((Token(entry.user_data()), entry.result(), entry.flags()))
    }

    /// Finishes writes to the inner device without handling anything else: they complete as they are
    /// submitted, so a turn that has used all of them up goes on at once. What else completed waits.
    fn reap_writes(&mut self) {
        // A full completion queue is reported here and emptied below.
        let _ = self.uring.submit();
        while let Some((token, result, flags)) = self.take_entry() {
            if token.kind() != Kind::TunWrite {
                self.early.push_back((token, result, flags));
            } else if matches!(self.on_tun_write(token.index(), result), Completion::TunWriteFailed) {
                // Still to be counted; its memory is free already.
                self.early.push_back((Token::new(Kind::TunWrite, 0, u32::MAX), result, flags));
            }
        }
    }

    /// A free place for a write to the inner device.
    fn reserve_write(&mut self) -> Option<u32> {
        if self.writes_free.is_empty() {
            self.reap_writes();
        }
        self.writes_free.last().copied()
    }

    fn on_accept(&mut self, listener: usize, result: i32, more: bool) -> Completion {
        match own(result) {
            Ok(socket) => {
                if !more {
                    self.arm_accept(listener);
                }
                Completion::Accepted { listener, socket }
            }
            Err(_) if more => Completion::Nothing,
            Err(_) => Completion::AcceptStopped { listener },
        }
    }

    fn on_receive(&mut self, result: i32, flags: u32) -> Received {
        match result {
            0 => {
                // A buffer may have been picked before the end was seen.
                if let Some(incoming) = self.stream.claim(flags, 0) {
                    self.stream.release(incoming);
                }
                Received::End
            }
            len if len > 0 => match self.stream.claim(flags, len as u32) {
                Some(incoming) => Received::Octets(incoming),
                None => Received::Failed,
            },
            error if error == -libc::ENOBUFS => Received::Starved,
            _ => Received::Failed,
        }
    }

    fn on_send(&mut self, slot: u32, result: i32) -> Completion {
        let Some((block, sent)) = self.slots.get_mut(slot as usize).and_then(|slot| slot.sending.take())
        else {
            return Completion::Nothing;
        };
        let sent = sent + usize::try_from(result).unwrap_or(0);
        if result > 0 && sent < block.bytes().len() {
            self.submit_send(slot, block, sent);
            return Completion::Nothing;
        }
        Completion::Sent { slot, ok: result > 0, block }
    }

    fn on_tun_read(&mut self, result: i32, flags: u32, more: bool) -> Completion {
        let packet = u32::try_from(result).ok().and_then(|len| self.tun_packets.claim(flags, len));
        if !more {
            // The kernel ran out of buffers; those claimed and released since may be back already.
            self.tun_starved = !self.tun_packets.has_published();
            if !self.tun_starved {
                self.arm_tun_read();
            }
        }
        packet.map_or(Completion::Nothing, Completion::TunRead)
    }

    fn on_tun_write(&mut self, index: u32, result: i32) -> Completion {
        match self.writes.get_mut(index as usize).and_then(Option::take) {
            Some(TunWrite::Lent(loan)) => self.stream.take_back(loan),
            Some(TunWrite::Owned(packet)) => {
                self.keep_spare(packet);
            }
            None => return if result < 0 { Completion::TunWriteFailed } else { Completion::Nothing },
        }
        self.writes_free.push(index);
        if result < 0 { Completion::TunWriteFailed } else { Completion::Nothing }
    }

    /// Accepts at `listener` until told otherwise.
    pub fn arm_accept(&mut self, listener: usize) {
        let Some(socket) = self.listeners.get(listener) else { return };
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let entry = opcode::AcceptMulti::new(types::Fd(socket.as_raw_fd())).flags(flags).build();
        self.push(entry, Token::new(Kind::Accept, 0, listener as u32));
    }

    /// Closes the accept queues: the kernel spreads new connections over the other workers.
    pub fn stop_accepting(&mut self) {
        for index in 0..self.listeners.len() {
            let token = Token::new(Kind::Accept, 0, index as u32);
            let entry = opcode::AsyncCancel::new(token.0).build();
            self.push(entry, Token::new(Kind::Ignored, 0, 0));
        }
        self.listeners.clear();
    }

    fn arm_wake(&mut self) {
        let entry =
            opcode::PollAdd::new(types::Fd(self.wake.as_raw_fd()), libc::POLLIN as u32).multi(true).build();
        self.push(entry, Token::new(Kind::Wake, 0, 0));
    }

    fn arm_tun_read(&mut self) {
        let fd = types::Fd(self.tun.as_raw_fd());
        let group = self.tun_packets.group();
        let entry = if self.tun_multishot {
            opcode::ReadMulti::new(fd, 0, group).offset(u64::MAX).build()
        } else {
            opcode::Read::new(fd, std::ptr::null_mut(), 0)
                .offset(u64::MAX)
                .buf_group(group)
                .build()
                .flags(Flags::BUFFER_SELECT)
        };
        self.push(entry, Token::new(Kind::TunRead, 0, 0));
    }

    /// Puts a socket into an empty slot.
    ///
    /// # Errors
    /// When the table of direct descriptors does not take it.
    pub fn open(&mut self, slot: u32, generation: u32, socket: OwnedFd) -> io::Result<()> {
        let socket = if self.direct {
            self.uring.submitter().register_files_update(slot, &[socket.as_raw_fd()])?;
            Socket::Direct
        } else {
            Socket::Plain(socket)
        };
        let entry =
            self.slots.get_mut(slot as usize).ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?;
        *entry = Slot { socket: Some(socket), sending: None, generation };
        Ok(())
    }

    /// Empties a slot that has no operation in flight; the connection is closed.
    pub fn close(&mut self, slot: u32) {
        let Some(entry) = self.slots.get_mut(slot as usize) else { return };
        debug_assert!(entry.sending.is_none(), "one send may still use the slot");
        if let Some(Socket::Direct) = entry.socket.take() {
            // Fails only for a slot outside the table, and `open` was given this one.
            let _ = self.uring.submitter().register_files_update(slot, &[-1]);
        }
    }

    /// Receives on the slot until it ends or the buffers run out.
    pub fn arm_receive(&mut self, slot: u32) {
        let group = self.stream.group();
        self.push_on_slot(slot, Kind::Receive, |file| match file {
            Target::Direct(fd) => opcode::RecvMulti::new(fd, group).build(),
            Target::Plain(fd) => opcode::RecvMulti::new(fd, group).build(),
        });
    }

    /// Ends the receive of the slot; its last completion still comes.
    pub fn cancel_receive(&mut self, slot: u32) {
        let Some(entry) = self.slots.get(slot as usize) else { return };
        let token = Token::new(Kind::Receive, entry.generation, slot);
        self.push(opcode::AsyncCancel::new(token.0).build(), Token::new(Kind::Ignored, 0, 0));
    }

    /// Shuts the connection down in both directions: its receive and send end.
    ///
    /// The kernel looks the slot up in a thread of its own, some time later: the slot must stay as it
    /// is until [`Completion::ShutDown`], or the next connection in it is shut down instead.
    pub fn shutdown(&mut self, slot: u32) {
        self.push_on_slot(slot, Kind::Shutdown, |file| match file {
            Target::Direct(fd) => opcode::Shutdown::new(fd, libc::SHUT_RDWR).build(),
            Target::Plain(fd) => opcode::Shutdown::new(fd, libc::SHUT_RDWR).build(),
        });
    }

    /// Whether the kernel has a stream buffer to fill.
    pub fn can_receive(&self) -> bool {
        self.stream.has_published()
    }

    /// The octets of a run, writable in place.
    pub fn bytes_mut(&mut self, incoming: &Incoming) -> &mut [u8] {
        self.stream.bytes_mut(incoming)
    }

    /// Gives a run of received octets back.
    pub fn release(&mut self, incoming: Incoming) {
        self.stream.release(incoming);
    }

    /// The packet, with its virtio-net header.
    pub fn packet(&mut self, packet: &Incoming) -> &mut [u8] {
        self.tun_packets.bytes_mut(packet)
    }

    /// Gives a packet of the inner device back.
    pub fn release_packet(&mut self, packet: Incoming) {
        self.tun_packets.release(packet);
        if self.tun_starved && self.tun_packets.has_published() {
            self.tun_starved = false;
            self.arm_tun_read();
        }
    }

    /// Sends `block` whole on the slot; one send at a time.
    pub fn send(&mut self, slot: u32, block: Block) {
        self.submit_send(slot, block, 0);
    }

    fn submit_send(&mut self, slot: u32, block: Block, sent: usize) {
        let Some(rest) = block.bytes().get(sent..) else { return };
        let (address, len) = (rest.as_ptr(), u32::try_from(rest.len()).unwrap_or(u32::MAX));
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        // The block's heap memory does not move while `sending` owns it, and nobody touches it until the
        // completion takes it out.
        self.push_on_slot(slot, Kind::Send, |file| match file {
            Target::Direct(fd) => opcode::Send::new(fd, address, len).flags(flags).build(),
            Target::Plain(fd) => opcode::Send::new(fd, address, len).flags(flags).build(),
        });
        if let Some(entry) = self.slots.get_mut(slot as usize) {
            debug_assert!(entry.sending.is_none(), "one send in flight per connection");
            entry.sending = Some((block, sent));
        }
    }

    /// Writes part of a run of received octets (virtio-net header and packet) to the inner device. Returns
    /// false when too many writes are in flight.
    pub fn tun_write(&mut self, incoming: &Incoming, range: Range<usize>) -> bool {
        let Some(index) = self.reserve_write() else { return false };
        let Some((loan, address, len)) = self.stream.lend(incoming, range) else { return false };
        self.writes_free.pop();
        self.push_tun_write(index, address, len, TunWrite::Lent(loan));
        true
    }

    /// Writes an owned packet (virtio-net header and packet at `range`) to the inner device. Returns it
    /// when too many writes are in flight.
    ///
    /// # Errors
    /// The packet, unsent.
    pub fn tun_write_owned(&mut self, packet: Vec<u8>, range: Range<usize>) -> Result<(), Vec<u8>> {
        let (Some(bytes), Some(index)) = (packet.get(range), self.reserve_write()) else {
            return Err(packet);
        };
        let (address, len) = (bytes.as_ptr(), bytes.len() as u32);
        self.writes_free.pop();
        self.push_tun_write(index, address, len, TunWrite::Owned(packet));
        Ok(())
    }

    fn push_tun_write(&mut self, index: u32, address: *const u8, len: u32, memory: TunWrite) {
        let entry =
            opcode::Write::new(types::Fd(self.tun.as_raw_fd()), address, len).offset(u64::MAX).build();
        // The memory stays in `writes` until the completion takes it out.
        self.writes[index as usize] = Some(memory);
        self.push(entry, Token::new(Kind::TunWrite, 0, index));
    }

    /// A buffer that an earlier write left behind, empty.
    pub fn spare_buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// Keeps a buffer for later use, up to the number of writes in flight.
    pub fn keep_spare(&mut self, mut buffer: Vec<u8>) {
        if (1..=SPARE_LEN_MAX).contains(&buffer.capacity()) && self.spare.len() < self.writes.len() {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// Takes the socket out of a slot that has no operation in flight. A direct descriptor must be turned
    /// into a plain one first: then `None` is returned, [`Completion::SocketTaken`] brings it, and the slot
    /// is to be closed afterwards.
    pub fn take_socket(&mut self, slot: u32) -> Option<OwnedFd> {
        let entry = self.slots.get_mut(slot as usize)?;
        match entry.socket.take() {
            Some(Socket::Plain(socket)) => Some(socket),
            direct => {
                entry.socket = direct;
                let token = Token::new(Kind::Install, entry.generation, slot);
                self.push(opcode::FixedFdInstall::new(types::Fixed(slot), 0).build(), token);
                None
            }
        }
    }

    fn push_on_slot(&mut self, slot: u32, kind: Kind, build: impl FnOnce(Target) -> Entry) {
        let Some(entry) = self.slots.get(slot as usize) else { return };
        let target = match &entry.socket {
            Some(Socket::Direct) => Target::Direct(types::Fixed(slot)),
            Some(Socket::Plain(fd)) => Target::Plain(types::Fd(fd.as_raw_fd())),
            None => return,
        };
        let token = Token::new(kind, entry.generation, slot);
        self.push(build(target), token);
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
        // arenas that are never unmapped, blocks owned by `slots` and packets owned by `writes`; descriptors
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
        self.writes.drain(..).for_each(std::mem::forget);
    }
}

/// A descriptor in either form.
enum Target {
    Direct(types::Fixed),
    Plain(types::Fd),
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
