//! Where queued packets lie: pooled buffers of a few sizes, in entries that form lists.

use std::time::Instant;

use codec::esp::EspSpi;
use codec::ip::Segmenter;

use crate::io::block::Spares;

/// Octets of the buffers: voice, a packet, a short run of one flow, and the largest super-packet the inner
/// device yields with its virtio-net header.
const CLASSES: [usize; 4] = [256, 2048, 16_384, SUPER_LEN];

/// The largest of them; also what a packet of the inner device is read into.
pub const SUPER_LEN: usize = 65_600;

/// No entry.
pub(super) const NONE: u32 = u32::MAX;

/// A packet that waits.
#[derive(Debug)]
pub(super) struct Entry {
    pub buffer: Box<[u8]>,
    /// Where the packet starts in the buffer.
    pub offset: usize,
    pub segmenter: Segmenter,
    /// The Child SA that was to seal it when it came.
    pub spi_in: EspSpi,
    pub since: Instant,
    /// The entry behind it.
    pub next: u32,
}

impl Entry {
    /// The packet.
    pub fn packet_mut(&mut self) -> (&mut Segmenter, &mut [u8]) {
        (&mut self.segmenter, self.buffer.get_mut(self.offset..).unwrap_or_default())
    }
}

/// The entries and buffers of one worker. What was needed once is kept for the next time, unless buffers of another size
/// need its memory.
pub(super) struct Memory {
    entries: Vec<Option<Entry>>,
    vacant: Vec<u32>,
    buffers: Spares<Box<[u8]>, { CLASSES.len() }>,
    used: usize,
    max: usize,
}

fn class_of(len: usize) -> usize {
    CLASSES.iter().position(|&class| len <= class).unwrap_or(CLASSES.len() - 1)
}

/// Octets of the buffer that holds a packet of `len` octets.
pub(super) fn buffer_len(len: usize) -> usize {
    CLASSES[class_of(len)]
}

impl Memory {
    /// Buffers of at most `max` octets in all, used and kept together.
    pub fn new(max: usize) -> Self {
        Self { entries: Vec::new(), vacant: Vec::new(), buffers: Spares::new(CLASSES), used: 0, max }
    }

    /// Octets of the buffers in use.
    #[cfg(test)]
    pub fn used(&self) -> usize {
        self.used
    }

    /// Whether a buffer for `len` octets is within the bound.
    pub fn has_room(&self, len: usize) -> bool {
        self.used + buffer_len(len) <= self.max
    }

    /// A buffer of at least `len` octets, up to [`SUPER_LEN`]; its content is arbitrary.
    pub fn take(&mut self, len: usize) -> Box<[u8]> {
        let class = class_of(len);
        self.used += CLASSES[class];
        match self.buffers.take(class) {
            Some(buffer) => buffer,
            None => self.make(class),
        }
    }

    #[cold]
    fn make(&mut self, class: usize) -> Box<[u8]> {
        self.buffers.shrink_to(self.max.saturating_sub(self.used));
        vec![0; CLASSES[class]].into_boxed_slice()
    }

    #[inline]
    pub fn add(&mut self, entry: Entry) -> u32 {
        if let Some(index) = self.vacant.pop() {
            self.entries[index as usize] = Some(entry);
            return index;
        }
        self.entries.push(Some(entry));
        (self.entries.len() - 1) as u32
    }

    pub fn get_mut(&mut self, index: u32) -> Option<&mut Entry> {
        self.entries.get_mut(index as usize)?.as_mut()
    }

    /// Frees an entry and its buffer.
    pub fn remove(&mut self, index: u32) {
        let Some(entry) = self.entries.get_mut(index as usize).and_then(Option::take) else { return };
        self.vacant.push(index);
        let class = class_of(entry.buffer.len());
        debug_assert_eq!(entry.buffer.len(), CLASSES[class]);
        self.used -= CLASSES[class];
        self.buffers.keep(class, entry.buffer, self.max.saturating_sub(self.used));
    }
}

#[cfg(test)]
mod tests {
    use allocation_counter::measure;

    use super::*;

    /// An entry of a packet of `len` octets.
    fn entry(memory: &mut Memory, len: usize) -> u32 {
        let mut packet = [0; 20];
        (packet[0], packet[3]) = (0x45, 20);
        let inner = codec::ip::InnerHeader::parse(&packet).expect("a packet");
        let segmenter = Segmenter::new(&packet, &inner, &Default::default(), 1400).expect("fits");
        let buffer = memory.take(len);
        memory.add(Entry {
            buffer,
            offset: 0,
            segmenter,
            spi_in: EspSpi(1),
            since: Instant::now(),
            next: NONE,
        })
    }

    #[test]
    fn memory_is_bounded_whatever_sizes_were_needed_before() {
        const MAX: usize = 2 << 20;
        let mut memory = Memory::new(MAX);
        let mut entries = Vec::with_capacity(MAX / CLASSES[0]);
        let mut fill = |len| {
            while memory.has_room(len) {
                entries.push(entry(&mut memory, len));
            }
            entries.drain(..).for_each(|index| memory.remove(index));
        };
        // With the smallest the tables and lists are the longest they become.
        fill(CLASSES[0]);
        let taken = measure(|| CLASSES.into_iter().rev().for_each(&mut fill));
        assert!(taken.bytes_max < MAX as u64 / 8, "{} octets more", taken.bytes_max);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn buffers_are_of_the_least_size_that_fits_and_used_again() {
        let mut memory = Memory::new(1 << 20);
        for (len, size) in [(1, 256), (256, 256), (257, 2048), (9000, 16_384), (65_600, SUPER_LEN)] {
            assert_eq!(memory.take(len).len(), size);
        }
        let used = memory.used();
        assert_eq!(used, 256 + 256 + 2048 + 16_384 + SUPER_LEN);
        assert!(memory.has_room(65_000) && !Memory::new(65_000).has_room(65_000));
    }
}
