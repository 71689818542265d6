//! One io_uring with a table of direct descriptors: every unsafe block of loadgen.
//!
//! A connection is a slot of the table and costs no open file. At rest it has an armed multishot receive and nothing
//! else: what arrives goes into buffers that all connections of the ring share ([`ReceiveBuffers`]), what leaves is in
//! a block that belongs to the ring until the kernel has sent it.
#![allow(unsafe_code)]

mod buffers;
mod option;

pub(super) use buffers::Incoming;
pub(in crate::engine) use option::fix_flow_label;

use buffers::ReceiveBuffers;
use io_uring::squeue::Entry;
use io_uring::{IoUring, cqueue, opcode, types};
use nix::libc;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Submission queue entries; a turn that queues more submits in between.
const SUBMISSIONS: u32 = 1024;
/// Completion queue entries. What does not fit waits in the kernel.
const COMPLETIONS: u32 = 8192;
/// Most send blocks kept for the next sends.
const SPARE_BLOCKS_MAX: usize = 1024;
/// Largest send block kept: a burst of IKE messages or one jumbo packet.
const SPARE_BLOCK_LEN_MAX: usize = 4096;

/// What the kernel has done.
#[derive(Debug)]
pub(super) enum Completion {
    /// Octets came; give them back with [`Ring::release`].
    Received { slot: u32, incoming: Incoming },
    /// The block was sent whole.
    Sent { slot: u32 },
    /// The connection broke: an error number, 0 for the peer's FIN. To be shut.
    Broken { slot: u32, errno: i32 },
    /// [`Ring::shut`] is done: the slot is empty.
    Closed { slot: u32 },
}

/// Operations of a slot that the kernel has not finished, and what is to become of it.
#[derive(Clone, Copy, Default)]
struct Slot {
    open: bool,
    receiving: bool,
    /// The send in flight.
    sending: Option<Token>,
    /// Its operations are being cancelled; then it is closed.
    shutting: bool,
    /// Cancels that the kernel has not answered.
    cancelling: u8,
}

#[derive(Clone, Copy)]
#[repr(u8)]
enum Kind {
    Receive = 1,
    Send = 2,
    Cancel = 3,
}

/// What a completion carries back: the kind, the slot and the send block.
///
/// Shape: kind (8 bits), block (24 bits), slot (32 bits).
#[derive(Clone, Copy)]
struct Token(u64);

impl Token {
    fn new(kind: Kind, slot: u32, block: usize) -> Self {
        Self((kind as u64) << 56 | (block as u64) << 32 | u64::from(slot))
    }

    fn kind(self) -> Option<Kind> {
        match self.0 >> 56 {
            1 => Some(Kind::Receive),
            2 => Some(Kind::Send),
            3 => Some(Kind::Cancel),
            _ => None,
        }
    }

    fn block(self) -> usize {
        (self.0 >> 32) as usize & 0xff_ffff
    }

    fn slot(self) -> u32 {
        self.0 as u32
    }
}

/// A ring, its table of direct descriptors and the memory of its operations.
///
/// Only the thread that made it may use it. Field order is drop order: the ring goes first; blocks in flight and receive
/// buffers are leaked, since a cancelled operation may end late.
pub(super) struct Ring {
    uring: IoUring,
    buffers: ReceiveBuffers,
    slots: Vec<Slot>,
    /// Blocks that the kernel sends from; the token names the place.
    in_flight: Vec<Option<Vec<u8>>>,
    in_flight_free: Vec<usize>,
    spare: Vec<Vec<u8>>,
    /// Slots whose receive ended for lack of a buffer.
    starved: Vec<u32>,
    /// Entries that did not fit while the kernel took no more.
    overflow: VecDeque<Entry>,
}

impl Ring {
    /// Makes a ring for the calling thread with room for `slots` connections, fewer than 2^24.
    ///
    /// # Errors
    /// When the kernel lacks deferred task work (Linux 6.1), or RLIMIT_NOFILE is below `slots`.
    pub(super) fn new(slots: u32) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        // With DEFER_TASKRUN the kernel touches the memory of operations only inside this thread's io_uring_enter.
        builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
        builder.setup_submit_all().setup_clamp().setup_cqsize(COMPLETIONS);
        let uring = builder.build(SUBMISSIONS)?;
        uring.submitter().register_files_sparse(slots)?;
        let buffers = ReceiveBuffers::new(&uring.submitter())?;
        Ok(Self {
            uring,
            buffers,
            slots: vec![Slot::default(); slots as usize],
            in_flight: Vec::new(),
            in_flight_free: Vec::new(),
            spare: Vec::new(),
            starved: Vec::new(),
            overflow: VecDeque::new(),
        })
    }

    /// Puts a socket (in blocking mode: the ring waits for it) into the empty `slot` and receives on it. The caller's
    /// descriptor may be closed afterwards.
    ///
    /// # Errors
    /// When the table does not take it.
    pub(super) fn open(&mut self, slot: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        debug_assert!(!self.slots[slot as usize].open);
        self.uring.submitter().register_files_update(slot, &[socket.as_raw_fd()])?;
        self.slots[slot as usize] = Slot { open: true, ..Slot::default() };
        self.receive(slot);
        Ok(())
    }

    /// Cancels what is under way on `slot` and closes it; [`Completion::Closed`] says when.
    pub(super) fn shut(&mut self, slot: u32) {
        let state = &mut self.slots[slot as usize];
        if !state.open || state.shutting {
            return;
        }
        state.shutting = true;
        // By token: the kernel looks it up in a hash table, whereas a cancel by descriptor walks through the operations
        // of all slots. At least one cancel goes out, so that a completion comes.
        for operation in [Some(Token::new(Kind::Receive, slot, 0)), state.sending].into_iter().flatten() {
            self.slots[slot as usize].cancelling += 1;
            self.push(opcode::AsyncCancel::new(operation.0).build(), Token::new(Kind::Cancel, slot, 0));
        }
    }

    /// Returns an empty block to fill and [`Ring::send`].
    pub(super) fn block(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// Takes back a block that was not sent.
    pub(super) fn give_back(&mut self, mut block: Vec<u8>) {
        if self.spare.len() < SPARE_BLOCKS_MAX && block.capacity() <= SPARE_BLOCK_LEN_MAX {
            block.clear();
            self.spare.push(block);
        }
    }

    /// Sends a block whole; one at a time per slot. It waits until the connection is open.
    pub(super) fn send(&mut self, slot: u32, block: Vec<u8>) {
        let state = &mut self.slots[slot as usize];
        debug_assert!(state.open && state.sending.is_none() && !block.is_empty());
        let place = self.in_flight_free.pop().unwrap_or_else(|| {
            self.in_flight.push(None);
            self.in_flight.len() - 1
        });
        let block = self.in_flight[place].insert(block);
        let len = u32::try_from(block.len()).unwrap_or(u32::MAX);
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let entry = opcode::Send::new(types::Fixed(slot), block.as_ptr(), len).flags(flags).build();
        let token = Token::new(Kind::Send, slot, place);
        state.sending = Some(token);
        self.push(entry, token);
    }

    /// Returns the octets of a completion, to be read and decrypted in place.
    pub(super) fn bytes_mut(&mut self, incoming: &Incoming) -> &mut [u8] {
        self.buffers.bytes_mut(incoming)
    }

    /// Gives received octets back: their buffer takes the next ones.
    pub(super) fn release(&mut self, incoming: Incoming) {
        self.buffers.release(incoming);
    }

    /// Submits what is queued and lets the kernel finish what it can; never waits.
    ///
    /// # Errors
    /// When the kernel refuses the ring altogether.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        while let Some(slot) = self.starved.pop() {
            self.receive(slot);
        }
        while let Some(entry) = self.overflow.pop_front() {
            if !self.push_now(&entry) {
                self.overflow.push_front(entry);
                break;
            }
        }
        let queue = self.uring.submission();
        if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
            return Ok(());
        }
        drop(queue);
        match self.uring.submit() {
            Ok(_) => Ok(()),
            // A signal came, or completions must be taken first.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Returns whether [`Ring::submit`] left something that cannot wait.
    pub(super) fn is_busy(&mut self) -> bool {
        !self.overflow.is_empty() || !self.starved.is_empty() || !self.uring.completion().is_empty()
    }

    /// Returns the next completion that has arrived.
    pub(super) fn complete(&mut self) -> Option<Completion> {
        loop {
            let entry = self.uring.completion().next()?;
            let (token, result) = (Token(entry.user_data()), entry.result());
            let completion = match token.kind() {
                Some(Kind::Receive) => self.on_receive(token.slot(), result, entry.flags()),
                Some(Kind::Send) => self.on_send(token, result),
                Some(Kind::Cancel) => {
                    self.slots[token.slot() as usize].cancelling -= 1;
                    None
                }
                None => None,
            };
            if let Some(completion) = self.close_if_done(token.slot()).or(completion) {
                return Some(completion);
            }
        }
    }

    fn on_receive(&mut self, slot: u32, result: i32, flags: u32) -> Option<Completion> {
        let incoming = self.buffers.claim(flags, u32::try_from(result).unwrap_or(0));
        let state = &mut self.slots[slot as usize];
        state.receiving = cqueue::more(flags);
        if state.shutting {
            incoming.into_iter().for_each(|incoming| self.buffers.release(incoming));
            return None;
        }
        if result == -libc::ENOBUFS {
            // Armed again once this turn has released the buffers that are out.
            self.starved.push(slot);
            return None;
        }
        match incoming {
            Some(incoming) if result > 0 => {
                if !cqueue::more(flags) {
                    self.receive(slot);
                }
                Some(Completion::Received { slot, incoming })
            }
            unused => {
                // A buffer may have been picked before the end was seen.
                unused.into_iter().for_each(|incoming| self.buffers.release(incoming));
                Some(Completion::Broken { slot, errno: -result.min(0) })
            }
        }
    }

    fn on_send(&mut self, token: Token, result: i32) -> Option<Completion> {
        let slot = token.slot();
        let block = self.in_flight.get_mut(token.block())?.take()?;
        self.in_flight_free.push(token.block());
        let whole = usize::try_from(result) == Ok(block.len());
        self.give_back(block);
        let state = &mut self.slots[slot as usize];
        state.sending = None;
        if state.shutting {
            return None;
        }
        // With MSG_WAITALL the kernel goes on after a short send, so one that came back short failed.
        let errno = if result < 0 { -result } else { libc::EPIPE };
        Some(if whole { Completion::Sent { slot } } else { Completion::Broken { slot, errno } })
    }

    fn close_if_done(&mut self, slot: u32) -> Option<Completion> {
        let state = &mut self.slots[slot as usize];
        if !state.shutting || state.receiving || state.sending.is_some() || state.cancelling > 0 {
            return None;
        }
        *state = Slot::default();
        // Fails only for a slot outside the table, and `open` was given this one.
        let _ = self.uring.submitter().register_files_update(slot, &[-1]);
        Some(Completion::Closed { slot })
    }

    fn receive(&mut self, slot: u32) {
        let state = &mut self.slots[slot as usize];
        if !state.open || state.shutting || state.receiving {
            return;
        }
        state.receiving = true;
        let entry = opcode::RecvMulti::new(types::Fixed(slot), ReceiveBuffers::GROUP).build();
        self.push(entry, Token::new(Kind::Receive, slot, 0));
    }

    fn push(&mut self, entry: Entry, token: Token) {
        let entry = entry.user_data(token.0);
        if !self.overflow.is_empty() || !self.push_now(&entry) {
            self.overflow.push_back(entry);
        }
    }

    fn push_now(&mut self, entry: &Entry) -> bool {
        self.try_push(entry) || (self.uring.submit().is_ok() && self.try_push(entry))
    }

    fn try_push(&mut self, entry: &Entry) -> bool {
        // SAFETY: entries are built in this module only. A receive names a buffer group that stays registered as long as
        // the ring; a send points into a block that `in_flight` owns, unmoved and untouched, until its completion takes
        // it out; a cancel has no memory. Descriptors are slots of the ring's own table.
        unsafe { self.uring.submission().push(entry).is_ok() }
    }
}

impl AsFd for Ring {
    /// Becomes readable when completions are there, or work that leads to some.
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is the ring's and lives as long as the borrow of `self`.
        unsafe { BorrowedFd::borrow_raw(self.uring.as_raw_fd()) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.in_flight.drain(..).for_each(std::mem::forget);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (ours, listener.accept().unwrap().0)
    }

    fn next(ring: &mut Ring) -> Completion {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            ring.submit().unwrap();
            if let Some(completion) = ring.complete() {
                return completion;
            }
            assert!(Instant::now() < deadline, "the kernel does not answer");
        }
    }

    #[test]
    fn a_slot_sends_receives_and_closes_without_a_descriptor_of_its_own() {
        let mut ring = Ring::new(4).unwrap();
        let (ours, mut theirs) = pair();
        ring.open(3, ours.as_fd()).unwrap();
        drop(ours);
        ring.send(3, b"hello".to_vec());
        assert!(matches!(next(&mut ring), Completion::Sent { slot: 3 }));
        let mut heard = [0; 5];
        theirs.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"hello");
        for word in [b"one", b"two"] {
            theirs.write_all(word).unwrap();
            let Completion::Received { slot: 3, incoming } = next(&mut ring) else { panic!("octets") };
            assert_eq!(ring.bytes_mut(&incoming), word);
            ring.release(incoming);
        }
        ring.shut(3);
        assert!(matches!(next(&mut ring), Completion::Closed { slot: 3 }));
        assert_eq!(theirs.read(&mut heard).unwrap(), 0, "the peer sees the end");
    }

    #[test]
    fn the_end_of_a_connection_is_told_once_and_its_slot_serves_again() {
        let mut ring = Ring::new(1).unwrap();
        for _ in 0..3 {
            let (ours, theirs) = pair();
            ring.open(0, ours.as_fd()).unwrap();
            drop((ours, theirs));
            assert!(matches!(next(&mut ring), Completion::Broken { slot: 0, errno: 0 }));
            ring.shut(0);
            assert!(matches!(next(&mut ring), Completion::Closed { slot: 0 }));
        }
    }

    #[test]
    fn more_octets_than_buffers_arrive_whole() {
        let mut ring = Ring::new(2).unwrap();
        let (ours, mut theirs) = pair();
        ring.open(0, ours.as_fd()).unwrap();
        let total = 4 * ReceiveBuffers::MEMORY;
        let writer = std::thread::spawn(move || {
            let octets: Vec<u8> = (0..total).map(|at| (at % 251) as u8).collect();
            theirs.write_all(&octets).unwrap();
            theirs
        });
        let (mut at, mut held) = (0, Vec::new());
        while at < total {
            match next(&mut ring) {
                Completion::Received { incoming, .. } => {
                    for octet in ring.bytes_mut(&incoming).iter() {
                        assert_eq!(*octet, (at % 251) as u8, "octet {at}");
                        at += 1;
                    }
                    held.push(incoming);
                }
                other => panic!("{other:?}"),
            }
            // Lets the kernel run out of buffers again and again.
            if held.len() == ReceiveBuffers::COUNT || !ring.is_busy() {
                held.drain(..).for_each(|incoming| ring.release(incoming));
            }
        }
        drop(writer.join().unwrap());
    }
}
