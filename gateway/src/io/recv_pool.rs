//! Buffers the kernel picks from: a provided-buffer ring over one arena.
//!
//! With `IOU_PBUF_RING_INC` (Linux 6.12) one large buffer takes the octets of many completions, one behind
//! the other, so an idle connection holds no buffer and a busy one gets long runs. Older kernels use up a
//! buffer per completion; the arena is then cut into smaller ones.

use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use io_uring::{Submitter, cqueue};

use super::check;

/// `IOU_PBUF_RING_INC`: completions consume a buffer piece by piece.
const INCREMENTAL: u16 = 2;

/// Most octets of one buffer when completions consume it piece by piece.
const BUFFER_LEN_INCREMENTAL: usize = 1 << 20;

/// Most octets of one buffer when each completion uses one up.
const BUFFER_LEN_WHOLE: usize = 64 << 10;

/// Least octets of one buffer.
const BUFFER_LEN_MIN: usize = 4 << 10;

/// Least number of buffers: while some hold unparsed octets, others are filled.
const BUFFERS_MIN: usize = 4;

/// Most buffers of one ring.
const BUFFERS_MAX: usize = 1 << 15;

/// Anonymous memory that is never unmapped: a cancelled operation may still complete after its ring is
/// closed, and a worker lives as long as the process.
struct Arena {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the arena is plain memory owned by one value; the pointer has no thread affinity.
unsafe impl Send for Arena {}

impl Arena {
    fn new(len: usize) -> io::Result<Self> {
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no existing memory;
        // madvise is a hint over exactly that mapping.
        let base = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let base = libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0);
            if base == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            // Without huge pages the arena works as well, a little slower.
            let _ = check(libc::madvise(base, len, libc::MADV_HUGEPAGE));
            base
        };
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap returned null"))?;
        Ok(Self { base, len })
    }
}

/// The right to a run of received octets. Give it back with [`RecvPool::release`].
#[must_use = "its buffer is not refilled until it is released"]
#[derive(Debug)]
pub struct Incoming {
    /// The lane whose pool it is of.
    lane: u8,
    buffer: u16,
    offset: u32,
    len: u32,
}

impl Incoming {
    pub(super) fn lane(&self) -> usize {
        usize::from(self.lane)
    }

    /// Octets received.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether nothing was received.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[derive(Clone, Copy, Default)]
struct Buffer {
    /// Octets the kernel has filled since it was last published.
    filled: u32,
    /// Runs not yet released.
    users: u32,
    /// The kernel is done with it.
    finished: bool,
}

/// A provided-buffer ring and its arena.
pub struct RecvPool {
    entries: Arena,
    data: Arena,
    buffers: Vec<Buffer>,
    buffer_len: usize,
    group: u16,
    lane: u8,
    tail: u16,
    published: usize,
}

impl RecvPool {
    /// Registers `group` with about `memory` octets of stream buffers for `lane`, consumed piece by piece
    /// where the kernel can.
    pub(super) fn for_stream(
        submitter: &Submitter<'_>,
        group: u16,
        memory: usize,
        lane: u8,
    ) -> io::Result<Self> {
        let len = |most: usize| (memory / BUFFERS_MIN).clamp(BUFFER_LEN_MIN, most).next_power_of_two();
        let shape = |most: usize| (len(most), (memory / len(most)).clamp(BUFFERS_MIN, BUFFERS_MAX));
        let incremental = Self::new(submitter, group, lane, shape(BUFFER_LEN_INCREMENTAL), INCREMENTAL);
        incremental.or_else(|_| Self::new(submitter, group, lane, shape(BUFFER_LEN_WHOLE), 0))
    }

    /// Registers `group` with about `memory` octets of buffers, each for one message of any length.
    pub(super) fn for_messages(
        submitter: &Submitter<'_>,
        group: u16,
        memory: usize,
        lane: u8,
        message_len: usize,
    ) -> io::Result<Self> {
        let count = (memory / message_len).clamp(BUFFERS_MIN, BUFFERS_MAX);
        Self::new(submitter, group, lane, (message_len, count), 0)
    }

    fn new(
        submitter: &Submitter<'_>,
        group: u16,
        lane: u8,
        (buffer_len, count): (usize, usize),
        flags: u16,
    ) -> io::Result<Self> {
        // The kernel wants a power of two of entries; not all of them need a buffer.
        let entry_count = count.next_power_of_two();
        let entries = Arena::new(entry_count * size_of::<BufRingEntry>())?;
        let data = Arena::new(count * buffer_len)?;
        let (base, len) = (entries.base.as_ptr() as u64, entry_count as u16);
        // SAFETY: `entries` holds `len` entries, is page-aligned and never unmapped.
        unsafe { submitter.register_buf_ring_with_flags(base, len, group, flags)? };
        let buffers = vec![Buffer::default(); count];
        let mut pool = Self { entries, data, buffers, buffer_len, group, lane, tail: 0, published: 0 };
        for buffer in 0..count {
            pool.publish(buffer as u16);
        }
        Ok(pool)
    }

    pub(super) fn group(&self) -> u16 {
        self.group
    }

    /// Octets of the buffers that the kernel may fill; of one of them a part may be used up.
    pub(super) fn published_len(&self) -> usize {
        self.published * self.buffer_len
    }

    /// Claims what a completion with these flags and length filled.
    pub(super) fn claim(&mut self, flags: u32, len: u32) -> Option<Incoming> {
        let index = cqueue::buffer_select(flags)?;
        let buffer_len = self.buffer_len as u32;
        let buffer = self.buffers.get_mut(usize::from(index))?;
        let offset = buffer.filled;
        buffer.filled = buffer_len.min(offset.saturating_add(len));
        buffer.users += 1;
        if !cqueue::buffer_more(flags) {
            buffer.finished = true;
            self.published -= 1;
        }
        let lane = self.lane;
        Some(Incoming { lane, buffer: index, offset, len: self.buffers[usize::from(index)].filled - offset })
    }

    /// The octets.
    pub fn bytes(&self, incoming: &Incoming) -> &[u8] {
        let start = usize::from(incoming.buffer) * self.buffer_len + incoming.offset as usize;
        // SAFETY: `claim` made the run inside its buffer, and so inside the arena; the kernel writes only
        // behind what it has filled, and the borrow of `self` keeps writers away.
        unsafe { std::slice::from_raw_parts(self.data.base.as_ptr().add(start), incoming.len as usize) }
    }

    /// The octets, writable in place.
    pub fn bytes_mut(&mut self, incoming: &Incoming) -> &mut [u8] {
        let start = usize::from(incoming.buffer) * self.buffer_len + incoming.offset as usize;
        // SAFETY: `claim` made the run inside its buffer, and so inside the arena; runs never overlap, the
        // kernel writes only behind what it has filled, and the borrow of `self` keeps others away.
        unsafe { std::slice::from_raw_parts_mut(self.data.base.as_ptr().add(start), incoming.len as usize) }
    }

    /// Where part of a run lies, for [`super::ring::Ring::parts_mut`]; `None` outside the run.
    pub(super) fn part(&self, incoming: &Incoming, part: Range<usize>) -> Option<NonNull<[u8]>> {
        let run = usize::from(incoming.buffer) * self.buffer_len + incoming.offset as usize;
        if part.start > part.end || part.end > incoming.len() {
            return None;
        }
        // SAFETY: `claim` made the run inside the arena, and the part lies inside the run.
        let start = unsafe { self.data.base.add(run + part.start) };
        Some(NonNull::slice_from_raw_parts(start, part.len()))
    }

    /// Gives a run back; its buffer goes to the kernel again once nobody uses it.
    pub fn release(&mut self, incoming: Incoming) {
        self.drop_user(incoming.buffer);
    }

    fn drop_user(&mut self, index: u16) {
        let buffer = &mut self.buffers[usize::from(index)];
        buffer.users -= 1;
        if buffer.users == 0 && buffer.finished {
            self.publish(index);
        }
    }

    fn publish(&mut self, index: u16) {
        self.buffers[usize::from(index)] = Buffer::default();
        let (count, entry_count) = (self.buffers.len(), self.buffers.len().next_power_of_two());
        debug_assert!(usize::from(index) < count && count * self.buffer_len <= self.data.len);
        let ring = self.entries.base.as_ptr().cast::<BufRingEntry>();
        // SAFETY: the slot index is below `entry_count`; the address lies in the data arena; the tail field is the
        // 16 bits the kernel defines at `BufRingEntry::tail`, written only here and read by the kernel, and
        // the release store orders the entry before it.
        unsafe {
            let entry = &mut *ring.add(usize::from(self.tail) & (entry_count - 1));
            entry.set_addr(self.data.base.as_ptr().add(usize::from(index) * self.buffer_len) as u64);
            entry.set_len(self.buffer_len as u32);
            entry.set_bid(index);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(ring).cast_mut().cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
        self.published += 1;
    }
}
