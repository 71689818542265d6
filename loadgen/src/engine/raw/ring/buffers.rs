//! Receive buffers that the kernel picks from: a provided-buffer ring.

use io_uring::types::BufRingEntry;
use io_uring::{Submitter, cqueue};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

/// Buffers of one ring, a power of two: a turn hands each out once.
const COUNT: u16 = 512;
/// Octets of one buffer: an IKE message or a full packet.
const LEN: usize = 2048;
/// Octets of a page, the alignment that the kernel wants.
const PAGE_LEN: usize = 4096;

#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Page([u8; PAGE_LEN]);

/// The right to octets that have arrived.
#[must_use = "the kernel has one buffer less until it is released"]
#[derive(Debug)]
pub(in super::super) struct Incoming {
    buffer: u16,
    len: usize,
}

/// A provided-buffer ring and its buffers.
///
/// The memory is never freed: a ring lives as long as its command, and an operation that is cancelled when the ring goes
/// may end late.
pub(super) struct ReceiveBuffers {
    entries: NonNull<BufRingEntry>,
    data: NonNull<u8>,
    tail: u16,
}

impl ReceiveBuffers {
    /// Buffer group of every ring.
    pub(super) const GROUP: u16 = 0;
    /// Buffers of a ring.
    #[cfg(test)]
    pub(super) const COUNT: usize = COUNT as usize;
    /// Octets of all of them.
    #[cfg(test)]
    pub(super) const MEMORY: usize = COUNT as usize * LEN;

    /// Registers the buffers with a ring that has none.
    pub(super) fn new(submitter: &Submitter<'_>) -> io::Result<Self> {
        let entries: NonNull<BufRingEntry> = pages(usize::from(COUNT) * size_of::<BufRingEntry>()).cast();
        // SAFETY: `entries` is page-aligned, holds `COUNT` entries and is never freed.
        unsafe {
            submitter.register_buf_ring_with_flags(entries.as_ptr() as u64, COUNT, Self::GROUP, 0)?;
        }
        let mut buffers = Self { entries, data: pages(usize::from(COUNT) * LEN), tail: 0 };
        (0..COUNT).for_each(|buffer| buffers.publish(buffer));
        Ok(buffers)
    }

    /// Claims the buffer that a completion names, `len` octets of it.
    pub(super) fn claim(&mut self, flags: u32, len: u32) -> Option<Incoming> {
        let buffer = cqueue::buffer_select(flags).filter(|buffer| *buffer < COUNT)?;
        Some(Incoming { buffer, len: (len as usize).min(LEN) })
    }

    /// Returns the octets.
    pub(super) fn bytes_mut(&mut self, incoming: &Incoming) -> &mut [u8] {
        let at = usize::from(incoming.buffer) * LEN;
        // SAFETY: `claim` checked buffer and length against the arena, which was zeroed at first; the kernel does not
        // write into a buffer between its completion and `publish`, and there is one `Incoming` per completion.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr().add(at), incoming.len) }
    }

    /// Gives the buffer back to the kernel.
    pub(super) fn release(&mut self, incoming: Incoming) {
        self.publish(incoming.buffer);
    }

    fn publish(&mut self, buffer: u16) {
        let place = usize::from(self.tail % COUNT);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `place` is below `COUNT`, and so is `buffer`: the callers count to it or were given an `Incoming`. The
        // address lies in the arena. The tail is the 16 bits that the kernel reads at `BufRingEntry::tail`; only this
        // store writes it, behind the entry it publishes.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(place);
            entry.set_addr(self.data.as_ptr().add(usize::from(buffer) * LEN) as u64);
            entry.set_len(LEN as u32);
            entry.set_bid(buffer);
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut().cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }
}

/// Returns `len` octets of zeroed whole pages that nobody frees.
fn pages(len: usize) -> NonNull<u8> {
    let pages = vec![Page([0; PAGE_LEN]); len.div_ceil(PAGE_LEN)];
    NonNull::from(Box::leak(pages.into_boxed_slice())).cast()
}
