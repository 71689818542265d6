//! Connections on the ring: accept, receive, send, and the descriptors behind slots.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::NonNull;

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use super::lane::{Lane, LaneParams};
use super::token::{Kind, Token};
use super::{Completion, Received, Ring, Sending, SentBlock, Slot, Socket, own};
use crate::io::block::Block;
use crate::io::recv_pool::Incoming;
use crate::io::sockets;

impl Ring {
    pub(super) fn on_accept(&mut self, listener: usize, result: i32, more: bool) -> Completion {
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

    pub(super) fn on_receive(&mut self, lane: usize, result: i32, flags: u32) -> Received {
        let Some(Lane { stream, .. }) = self.lanes.get_mut(lane) else { return Received::Failed };
        match result {
            0 => {
                // A buffer may have been picked before the end was seen.
                if let Some(incoming) = stream.claim(flags, 0) {
                    stream.release(incoming);
                }
                Received::End
            }
            len if len > 0 => match stream.claim(flags, len as u32) {
                Some(incoming) => Received::Octets(incoming),
                None => Received::Failed,
            },
            error if error == -libc::ENOBUFS => Received::Starved,
            _ => Received::Failed,
        }
    }

    pub(super) fn on_send(&mut self, slot: u32, result: i32) -> Completion {
        let Some(entry) = self.slots.get_mut(slot as usize) else { return Completion::Nothing };
        let Some(Sending { block, sent, apart }) = entry.sending.take() else { return Completion::Nothing };
        let sent = sent + usize::try_from(result).unwrap_or(0);
        let whole = sent == block.bytes().len();
        if result > 0 && !whole && !entry.stopping {
            self.submit_send(slot, Sending { block, sent, apart });
            return Completion::Nothing;
        }
        let sent = SentBlock { octets: block.bytes().len(), frames: block.frames() };
        Completion::Sent { slot, sent, ok: result > 0 && whole, block: Some(block) }
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

    /// Puts a socket into an empty slot, whose lane is made if it is the first there.
    ///
    /// # Errors
    /// When the slot's lane cannot be made, or its table does not take the descriptor.
    pub fn open(&mut self, slot: u32, generation: u32, socket: OwnedFd) -> io::Result<()> {
        let (lane, index) = self.place(slot);
        while self.lanes.len() <= lane {
            self.add_lane()?;
        }
        let socket = if self.direct {
            let lane = self.lanes.get(lane).ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?;
            lane.submitter().register_files_update(index, &[socket.as_raw_fd()])?;
            Socket::Direct
        } else {
            Socket::Plain(socket)
        };
        if self.slots.len() <= slot as usize {
            self.slots.resize_with(slot as usize + 1, Slot::default);
        }
        self.slots[slot as usize] = Slot { socket: Some(socket), generation, ..Slot::default() };
        Ok(())
    }

    fn add_lane(&mut self) -> io::Result<()> {
        let index = u8::try_from(self.lanes.len()).map_err(|_| io::Error::from_raw_os_error(libc::ENFILE))?;
        let lane = Lane::new(LaneParams { index, ..self.further })?;
        lane.signal(self.wake.as_raw_fd())?;
        self.lanes.push(lane);
        Ok(())
    }

    /// The lane of a slot, and the slot's index in the lane's table.
    fn place(&self, slot: u32) -> (usize, u32) {
        ((slot / self.per_lane) as usize, slot % self.per_lane)
    }

    /// Empties a slot that has no operation in flight; the connection is closed.
    pub fn close(&mut self, slot: u32) {
        let (lane, index) = self.place(slot);
        let Some(entry) = self.slots.get_mut(slot as usize) else { return };
        debug_assert!(entry.sending.is_none() && entry.lent.is_none(), "one send may still use the slot");
        if let (Some(Socket::Direct), Some(lane)) = (entry.socket.take(), self.lanes.get(lane)) {
            // Fails only for an index outside the table, and `open` was given this one.
            let _ = lane.submitter().register_files_update(index, &[-1]);
        }
    }

    /// Receives on the slot until it ends or the buffers run out.
    pub fn arm_receive(&mut self, slot: u32) {
        let (lane, _) = self.place(slot);
        let Some(group) = self.lanes.get(lane).map(|lane| lane.stream.group()) else { return };
        self.push_on_slot(slot, Kind::Receive, |file| match file {
            Target::Direct(fd) => opcode::RecvMulti::new(fd, group).build(),
            Target::Plain(fd) => opcode::RecvMulti::new(fd, group).build(),
        });
    }

    /// Ends the receive of the slot; its last completion still comes.
    pub fn cancel_receive(&mut self, slot: u32) {
        let Some(entry) = self.slots.get(slot as usize) else { return };
        let token = Token::new(Kind::Receive, entry.generation, slot);
        let cancel = opcode::AsyncCancel::new(token.0).build();
        self.push_on(self.place(slot).0, cancel, Token::new(Kind::Ignored, 0, 0));
    }

    /// Ends the receive and the send of the slot; their last completions still come, and
    /// [`Completion::Stopped`] when both have been told.
    ///
    /// Each is found by its token: to look for all operations of a descriptor the kernel would walk those of
    /// every connection of the ring. A shutdown would end them too and wait for a kernel thread.
    pub fn stop(&mut self, slot: u32) {
        self.cancel_receive(slot);
        let lane = self.place(slot).0;
        let Some(entry) = self.slots.get_mut(slot as usize) else { return };
        entry.stopping = true;
        let generation = entry.generation;
        let send = entry.lent.map_or((Kind::Send, slot), |id| (Kind::SendLent, id));
        let cancel = opcode::AsyncCancel::new(Token::new(send.0, generation, send.1).0).build();
        self.push_on(lane, cancel, Token::new(Kind::Stop, generation, slot));
    }

    /// Remembers a slot whose receive ended with [`Received::Starved`].
    pub fn starve(&mut self, slot: u32) {
        let (lane, _) = self.place(slot);
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.starve(slot);
        }
    }

    /// Whether [`Ring::feed`] would yield a slot.
    pub fn can_feed(&self) -> bool {
        self.lanes.iter().any(Lane::can_feed)
    }

    /// Starved slots for which there are buffers again; those that are still of interest are to be armed.
    pub fn feed(&mut self) -> impl Iterator<Item = u32> {
        self.lanes.iter_mut().flat_map(Lane::feed)
    }

    /// The octets of a run.
    pub fn bytes(&self, incoming: &Incoming) -> &[u8] {
        self.pool(incoming).bytes(incoming)
    }

    /// The octets of a run, writable in place.
    pub fn bytes_mut(&mut self, incoming: &Incoming) -> &mut [u8] {
        self.pool_mut(incoming).bytes_mut(incoming)
    }

    /// Parts of runs, all writable at once: what lies at place `n` of `slices` for each `(n, run, range)`.
    ///
    /// # Panics
    /// When two of them overlap or one is outside its run: they are frames of the streams, which do neither.
    pub fn parts_mut<'a, const N: usize>(
        &'a mut self,
        parts: impl Iterator<Item = (usize, &'a Incoming, Range<usize>)>,
        slices: &mut [&'a mut [u8]; N],
    ) {
        let mut found: [Option<NonNull<[u8]>>; N] = [None; N];
        for (place, run, range) in parts {
            found[place] = Some(self.pool(run).part(run, range).expect("inside its run"));
        }
        let mut bounds = found.map(|part| {
            let start = part.map_or(0, |part| part.as_ptr().cast::<u8>().addr());
            start..start + part.map_or(0, |part| part.len())
        });
        bounds.sort_unstable_by_key(|bounds| bounds.start);
        assert!(bounds.is_sorted_by(|one, next| one.end <= next.start), "frames do not overlap");
        for (slice, part) in slices.iter_mut().zip(found) {
            if let Some(mut part) = part {
                // SAFETY: the part lies inside a run, which the kernel is done with, and overlaps none of the
                // others, as was just checked; `self` stays borrowed as long as the slices live.
                *slice = unsafe { part.as_mut() };
            }
        }
    }

    /// Gives a run of received octets back.
    pub fn release(&mut self, incoming: Incoming) {
        self.pool_mut(&incoming).release(incoming);
    }

    /// Sends `block` whole on the slot; one send at a time. `apart` keeps the kernel from adding the next block to the same
    /// buffer of its own: it looks at the bound of unsent octets only when it begins a buffer, which may grow to 64 KiB.
    pub fn send(&mut self, slot: u32, block: Block, apart: bool) {
        // Without a copy there is no buffer of the kernel's own.
        if !apart && self.zero_copy.takes(block.bytes().len()) {
            self.send_lent(slot, block);
        } else {
            self.submit_send(slot, Sending { block, sent: 0, apart });
        }
    }

    fn submit_send(&mut self, slot: u32, sending: Sending) {
        let Some(rest) = sending.block.bytes().get(sending.sent..) else { return };
        let (address, len) = (rest.as_ptr(), u32::try_from(rest.len()).unwrap_or(u32::MAX));
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL | if sending.apart { libc::MSG_EOR } else { 0 };
        // The block's heap memory does not move while `sending` owns it, and nobody touches it until the
        // completion takes it out.
        self.push_on_slot(slot, Kind::Send, |file| match file {
            Target::Direct(fd) => opcode::Send::new(fd, address, len).flags(flags).build(),
            Target::Plain(fd) => opcode::Send::new(fd, address, len).flags(flags).build(),
        });
        if let Some(entry) = self.slots.get_mut(slot as usize) {
            debug_assert!(entry.sending.is_none(), "one send in flight per connection");
            entry.sending = Some(sending);
        }
    }

    /// Sets how many octets in the slot's socket may be unsent before it takes no more.
    pub fn limit_unsent(&mut self, slot: u32, unsent_max: &'static i32) {
        let (lane, index) = self.place(slot);
        match self.slots.get(slot as usize).and_then(|entry| entry.socket.as_ref()) {
            Some(Socket::Direct) => {
                let (level, name) = (libc::IPPROTO_TCP as u32, libc::TCP_NOTSENT_LOWAT as u32);
                // The value is never freed, so that it outlives the operation.
                let value = std::ptr::from_ref(unsent_max).cast();
                let len = size_of::<i32>() as u32;
                let entry = opcode::SetSockOpt::new(types::Fixed(index), level, name, value, len).build();
                self.push_on(lane, entry, Token::new(Kind::Ignored, 0, 0));
            }
            // Fails only for a connection that is gone.
            Some(Socket::Plain(fd)) => _ = sockets::limit_unsent(fd.as_fd(), *unsent_max),
            None => {}
        }
    }

    /// Lets the end of the slot's connection be a reset: what its peer has not read, the kernel forgets at once instead of
    /// keeping it until the peer takes it or is given up.
    pub fn abort(&mut self, slot: u32) {
        const AT_ONCE: &libc::linger = &libc::linger { l_onoff: 1, l_linger: 0 };
        let (lane, index) = self.place(slot);
        match self.slots.get(slot as usize).and_then(|entry| entry.socket.as_ref()) {
            Some(Socket::Direct) => {
                let (level, name) = (libc::SOL_SOCKET as u32, libc::SO_LINGER as u32);
                // A constant: it outlives the operation.
                let value = std::ptr::from_ref(AT_ONCE).cast();
                let len = size_of::<libc::linger>() as u32;
                let entry = opcode::SetSockOpt::new(types::Fixed(index), level, name, value, len).build();
                self.push_on(lane, entry, Token::new(Kind::Ignored, 0, 0));
            }
            // Fails only for a connection that is gone.
            Some(Socket::Plain(fd)) => _ = sockets::abort_on_close(fd.as_fd()),
            None => {}
        }
    }

    /// Takes the socket out of a slot that has no operation in flight. A direct descriptor must be turned
    /// into a plain one first: then `None` is returned, [`Completion::SocketTaken`] brings it, and the slot
    /// is to be closed afterwards.
    pub fn take_socket(&mut self, slot: u32) -> Option<OwnedFd> {
        let (lane, index) = self.place(slot);
        let entry = self.slots.get_mut(slot as usize)?;
        match entry.socket.take() {
            Some(Socket::Plain(socket)) => Some(socket),
            direct => {
                entry.socket = direct;
                let token = Token::new(Kind::Install, entry.generation, slot);
                self.push_on(lane, opcode::FixedFdInstall::new(types::Fixed(index), 0).build(), token);
                None
            }
        }
    }

    /// A second descriptor of the slot's socket, to ask and tell it what the ring cannot. It comes at once, or with
    /// [`Completion::Watched`], or not at all: when the process has no more, or the connection is gone by then.
    pub fn watch(&mut self, slot: u32) -> Option<OwnedFd> {
        let (lane, index) = self.place(slot);
        let entry = self.slots.get(slot as usize)?;
        match &entry.socket {
            Some(Socket::Plain(socket)) => socket.try_clone().ok(),
            Some(Socket::Direct) => {
                let token = Token::new(Kind::Watch, entry.generation, slot);
                self.push_on(lane, opcode::FixedFdInstall::new(types::Fixed(index), 0).build(), token);
                None
            }
            None => None,
        }
    }

    pub(super) fn on_watch(&self, token: Token, result: i32) -> Completion {
        let slot = token.index();
        let Ok(socket) = own(result) else { return Completion::Nothing };
        let entry = self.slots.get(slot as usize).filter(|entry| entry.socket.is_some());
        match entry {
            Some(entry) if Token::new(Kind::Watch, entry.generation, slot) == token => {
                Completion::Watched { slot, socket }
            }
            // Another connection has the slot now; nobody kept this one from closing.
            _ => Completion::Nothing,
        }
    }

    fn push_on_slot(&mut self, slot: u32, kind: Kind, build: impl FnOnce(Target) -> Entry) {
        let Some(entry) = self.slots.get(slot as usize) else { return };
        self.push_on_slot_as(slot, Token::new(kind, entry.generation, slot), build);
    }

    pub(super) fn push_on_slot_as(&mut self, slot: u32, token: Token, build: impl FnOnce(Target) -> Entry) {
        let (lane, index) = self.place(slot);
        let Some(entry) = self.slots.get(slot as usize) else { return };
        let target = match &entry.socket {
            Some(Socket::Direct) => Target::Direct(types::Fixed(index)),
            Some(Socket::Plain(fd)) => Target::Plain(types::Fd(fd.as_raw_fd())),
            None => return,
        };
        self.push_on(lane, build(target), token);
    }
}

/// A descriptor in either form.
pub(super) enum Target {
    Direct(types::Fixed),
    Plain(types::Fd),
}
