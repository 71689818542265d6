//! Sends without a copy: the kernel reads a block where it lies until the peer has acknowledged it.
//!
//! Such a send completes twice. The first completion says what the socket took, and the connection may send its next
//! block; the second, the notice, says that nothing reads the block any more. Between them the block belongs to nobody
//! but the table here.

use io_uring::{cqueue, opcode};

use super::connections::Target;
use super::token::{Kind, Token};
use super::{Completion, Ring, SentBlock};
use crate::io::block::Block;

/// In the result of a notice: the kernel has copied after all (`IORING_NOTIF_USAGE_ZC_COPIED`).
const COPIED: i32 = i32::MIN;

/// Asks for that (`IORING_SEND_ZC_REPORT_USAGE`).
const REPORT_USAGE: u16 = 1 << 3;

/// Blocks the kernel may still read.
#[derive(Default)]
pub(super) struct ZeroCopy {
    /// Octets from which on a block is sent this way; `None`: never.
    threshold: Option<usize>,
    lent: Vec<Option<Lent>>,
    free: Vec<u32>,
    usage: Usage,
}

/// How sends without a copy went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Sends that are over.
    pub sends: u64,
    /// Those of them that the kernel copied after all.
    pub copied: u64,
}

/// A block that the kernel may still read.
struct Lent {
    slot: u32,
    block: Block,
    sent: usize,
    /// Notices that are to come.
    notices: u32,
    state: State,
}

/// How far a send without a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The socket has not taken all of it.
    Sending,
    /// It has, or the send failed, and the worker knows.
    Told,
    /// The socket knows no such sends; the block is sent by copy after the last notice.
    Refused,
}

impl ZeroCopy {
    pub fn new(threshold: Option<usize>) -> Self {
        Self { threshold, ..Self::default() }
    }

    /// Whether a block of so many octets is sent without a copy.
    pub fn takes(&self, octets: usize) -> bool {
        self.threshold.is_some_and(|threshold| octets >= threshold)
    }

    fn insert(&mut self, lent: Lent) -> u32 {
        let id = self.free.pop().unwrap_or_else(|| {
            self.lent.push(None);
            (self.lent.len() - 1) as u32
        });
        self.lent[id as usize] = Some(lent);
        id
    }

    fn get_mut(&mut self, id: u32) -> Option<&mut Lent> {
        self.lent.get_mut(id as usize)?.as_mut()
    }

    fn remove(&mut self, id: u32) -> Option<Block> {
        let lent = self.lent.get_mut(id as usize)?.take()?;
        self.free.push(id);
        Some(lent.block)
    }

    /// Keeps the blocks for good: the kernel may read them as long as the process lives.
    pub fn leak(&mut self) {
        self.lent.drain(..).for_each(std::mem::forget);
    }
}

impl Ring {
    /// How sends without a copy went so far.
    pub fn zero_copy_usage(&self) -> Usage {
        self.zero_copy.usage
    }

    pub(super) fn send_lent(&mut self, slot: u32, block: Block) {
        let id = self.zero_copy.insert(Lent { slot, block, sent: 0, notices: 0, state: State::Sending });
        if let Some(entry) = self.slots.get_mut(slot as usize) {
            debug_assert!(entry.lent.is_none(), "one send in flight per connection");
            entry.lent = Some(id);
        }
        self.submit_lent(id);
    }

    fn submit_lent(&mut self, id: u32) {
        let Some(lent) = self.zero_copy.get_mut(id) else { return };
        let slot = lent.slot;
        let rest = lent.block.bytes().get(lent.sent..).unwrap_or_default();
        let (address, len) = (rest.as_ptr(), u32::try_from(rest.len()).unwrap_or(u32::MAX));
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let Some(generation) = self.slots.get(slot as usize).map(|entry| entry.generation) else { return };
        // The block's heap memory does not move while the table owns it, which it does until the last notice.
        self.push_on_slot_as(slot, Token::new(Kind::SendLent, generation, id), |file| match file {
            Target::Direct(fd) => {
                opcode::SendZc::new(fd, address, len).flags(flags).zc_flags(REPORT_USAGE).build()
            }
            Target::Plain(fd) => {
                opcode::SendZc::new(fd, address, len).flags(flags).zc_flags(REPORT_USAGE).build()
            }
        });
    }

    pub(super) fn on_lent(&mut self, id: u32, result: i32, flags: u32) -> Completion {
        if cqueue::notif(flags) {
            return self.on_notice(id, result);
        }
        let Some(lent) = self.zero_copy.get_mut(id) else { return Completion::Nothing };
        lent.notices += u32::from(cqueue::more(flags));
        lent.sent += usize::try_from(result).unwrap_or(0);
        let stopping = self.slots.get(lent.slot as usize).is_none_or(|entry| entry.stopping);
        if matches!(-result, libc::EOPNOTSUPP | libc::EINVAL) && !stopping {
            // The kernel or the socket does not know it: from now on by copy.
            lent.state = State::Refused;
            self.zero_copy.threshold = None;
            return self.settle(id);
        }
        if result > 0 && lent.sent < lent.block.bytes().len() && !stopping {
            self.submit_lent(id);
            return Completion::Nothing;
        }
        self.tell(id, result > 0)
    }

    /// Nothing reads for one of the sends of a block any more.
    fn on_notice(&mut self, id: u32, result: i32) -> Completion {
        let Some(lent) = self.zero_copy.get_mut(id) else { return Completion::Nothing };
        lent.notices = lent.notices.saturating_sub(1);
        if lent.state != State::Refused {
            self.zero_copy.usage.sends += 1;
            self.zero_copy.usage.copied += u64::from(result & COPIED != 0);
        }
        self.settle(id)
    }

    /// Does what waited for the last notice.
    fn settle(&mut self, id: u32) -> Completion {
        let Some(lent) = self.zero_copy.get_mut(id).filter(|lent| lent.notices == 0) else {
            return Completion::Nothing;
        };
        let (slot, state) = (lent.slot, lent.state);
        let Some(entry) = self.slots.get_mut(slot as usize) else { return Completion::Nothing };
        match state {
            State::Sending => Completion::Nothing,
            State::Refused if entry.stopping => self.tell(id, false),
            State::Refused => {
                entry.lent = None;
                if let Some(block) = self.zero_copy.remove(id) {
                    self.send(slot, block, false);
                }
                Completion::Nothing
            }
            State::Told => {
                self.zero_copy.remove(id).map_or(Completion::Nothing, |block| Completion::BlockFree { block })
            }
        }
    }

    /// The send is over as far as the connection is concerned.
    fn tell(&mut self, id: u32, ok: bool) -> Completion {
        let Some(lent) = self.zero_copy.get_mut(id) else { return Completion::Nothing };
        lent.state = State::Told;
        let (slot, octets) = (lent.slot, lent.block.bytes().len());
        let (sent, ok) = (SentBlock { octets, frames: lent.block.frames() }, ok && lent.sent == octets);
        let block = if lent.notices == 0 { self.zero_copy.remove(id) } else { None };
        if let Some(entry) = self.slots.get_mut(slot as usize) {
            entry.lent = None;
        }
        Completion::Sent { slot, sent, ok, block }
    }
}
