//! Send blocks: pooled memory that collects frames until one send takes them all.

/// Octets of the blocks: a few packets of a quiet UE, a run of frames, and what bulk sends at once.
pub const BLOCK_SIZES: [usize; 3] = [4 * 1024, 32 * 1024, 256 * 1024];

/// Frames collected for one send.
#[derive(Debug)]
pub struct Block {
    octets: Box<[u8]>,
    used: usize,
    frames: u32,
    /// It belongs to a pool.
    pooled: bool,
}

impl Block {
    fn new(size: usize) -> Self {
        Self { octets: vec![0; size].into_boxed_slice(), used: 0, frames: 0, pooled: true }
    }

    /// A full block of no pool: for IKE messages, which are few, small and must not wait for memory, and
    /// which a peer that does not read may leave in flight on every connection.
    pub fn holding(octets: Vec<u8>, frames: u32) -> Self {
        Self { used: octets.len(), octets: octets.into_boxed_slice(), frames, pooled: false }
    }

    /// Room behind what is used.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.octets[self.used..]
    }

    /// Adds the first `len` octets of [`Block::room`] as one frame.
    pub fn commit(&mut self, len: usize) {
        self.used = (self.used + len).min(self.octets.len());
        self.frames += 1;
    }

    /// The frames.
    pub fn bytes(&self) -> &[u8] {
        &self.octets[..self.used]
    }

    /// The frames, to be encrypted where they lie.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.octets[..self.used]
    }

    /// How many frames it holds.
    pub fn frames(&self) -> u32 {
        self.frames
    }
}

/// Buffers of a few sizes that are not in use, kept for the next time.
pub struct Spares<T, const N: usize> {
    sizes: [usize; N],
    by_size: [Vec<T>; N],
    /// Octets of all of them.
    octets: usize,
}

impl<T, const N: usize> Spares<T, N> {
    /// None yet, of any of `sizes`, which are octets.
    pub fn new(sizes: [usize; N]) -> Self {
        Self { sizes, by_size: std::array::from_fn(|_| Vec::new()), octets: 0 }
    }

    /// One of the size at `class`, if there is any.
    #[inline]
    pub fn take(&mut self, class: usize) -> Option<T> {
        let buffer = self.by_size.get_mut(class)?.pop()?;
        self.octets -= self.sizes[class];
        Some(buffer)
    }

    /// Keeps one of the size at `class`, within `max` octets of all that are kept.
    #[inline]
    pub fn keep(&mut self, class: usize, buffer: T, max: usize) {
        if let Some(same) = self.by_size.get_mut(class) {
            same.push(buffer);
            self.octets += self.sizes[class];
            if self.octets > max {
                self.shrink_to(max);
            }
        }
    }

    /// Frees buffers until those that are kept have at most `max` octets, of the size that holds most of them first.
    #[cold]
    pub fn shrink_to(&mut self, max: usize) {
        while self.octets > max {
            let held = |class: usize| self.by_size[class].len() * self.sizes[class];
            let Some(most) = (0..N).max_by_key(|&class| held(class)) else { return };
            if self.take(most).is_none() {
                return;
            }
        }
    }
}

/// The blocks of one worker.
pub struct BlockPool {
    free: Spares<Block, { BLOCK_SIZES.len() }>,
    /// Octets of the blocks that are lent.
    lent: usize,
    max: usize,
}

fn class_of(size: usize) -> usize {
    BLOCK_SIZES.iter().position(|&class| size <= class).unwrap_or(BLOCK_SIZES.len() - 1)
}

impl BlockPool {
    /// A pool of at most `memory` octets, lent and kept together. What has been needed once is kept for the next time,
    /// unless blocks of another size need its memory.
    pub fn new(memory: usize) -> Self {
        let max = memory.max(2 * BLOCK_SIZES[BLOCK_SIZES.len() - 1]);
        Self { free: Spares::new(BLOCK_SIZES), lent: 0, max }
    }

    /// Octets that one connection may hold ahead: any number while there is memory, less as it runs out, and with hardly any
    /// left none but a few frames, so that a crowd whose peers read nothing does not get what is left.
    pub fn ahead_max(&self) -> usize {
        if self.lent < self.max / 2 {
            usize::MAX
        } else if self.lent < self.max / 4 * 3 {
            BLOCK_SIZES[1]
        } else {
            0
        }
    }

    /// An empty block for `wanted` octets, as far as the sizes and the memory go, and at least for `needed`.
    pub fn take(&mut self, needed: usize, wanted: usize) -> Option<Block> {
        let classes = class_of(needed)..=class_of(wanted.max(needed));
        let class = classes.rev().find(|&class| self.lent + BLOCK_SIZES[class] <= self.max)?;
        if BLOCK_SIZES[class] < needed {
            return None;
        }
        self.lent += BLOCK_SIZES[class];
        if let Some(block) = self.free.take(class) {
            return Some(block);
        }
        self.free.shrink_to(self.max - self.lent);
        Some(Block::new(BLOCK_SIZES[class]))
    }

    /// Moves the frames of `block` into a larger one with room for `needed` more octets, and for `wanted` as
    /// far as the memory goes. False when there is none.
    pub fn grow(&mut self, block: &mut Block, needed: usize, wanted: usize) -> bool {
        let fits = block.used + needed <= BLOCK_SIZES[BLOCK_SIZES.len() - 1];
        if !fits || !block.pooled {
            return false;
        }
        let Some(mut larger) = self.take(block.used + needed, block.used + wanted) else { return false };
        larger.octets[..block.used].copy_from_slice(&block.octets[..block.used]);
        (larger.used, larger.frames) = (block.used, block.frames);
        self.give_back(std::mem::replace(block, larger));
        true
    }

    /// Replaces the frames of `block` by what `recode` makes of them in a buffer of the same size, or in one of
    /// `room` octets for a block of no pool. False, and nothing done, when it makes nothing.
    pub fn recode(
        &mut self,
        block: &mut Block,
        room: usize,
        recode: impl FnOnce(&[u8], &mut [u8]) -> Option<usize>,
    ) -> bool {
        let class = class_of(block.octets.len());
        let spare = if block.pooled { self.free.take(class) } else { None };
        let mut made = spare.unwrap_or_else(|| match block.pooled {
            true => Block::new(BLOCK_SIZES[class]),
            false => Block { pooled: false, ..Block::new(room) },
        });
        let Some(len) = recode(block.bytes(), &mut made.octets) else {
            self.keep(made);
            return false;
        };
        (made.used, made.frames) = (len.min(made.octets.len()), block.frames);
        self.keep(std::mem::replace(block, made));
        true
    }

    /// Takes a block back; one of no pool ends here.
    pub fn give_back(&mut self, block: Block) {
        if block.pooled {
            self.lent = self.lent.saturating_sub(block.octets.len());
            self.keep(block);
        }
    }

    /// Octets that are lent.
    pub fn lent(&self) -> usize {
        self.lent
    }

    /// Octets that may be.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Keeps a buffer that is not lent, as far as the memory goes.
    fn keep(&mut self, mut block: Block) {
        if block.pooled {
            (block.used, block.frames) = (0, 0);
            self.free.keep(class_of(block.octets.len()), block, self.max - self.lent);
        }
    }
}

#[cfg(test)]
mod tests {
    use allocation_counter::measure;

    use super::*;

    #[test]
    fn lends_no_more_than_its_memory() {
        let mut pool = BlockPool::new(512 * 1024);
        let first = pool.take(1, 256 * 1024).expect("within the bound");
        let second = pool.take(100, 100).expect("within the bound");
        let third = pool.take(100, 256 * 1024).expect("a smaller one than wanted");
        assert_eq!([&first, &second, &third].map(|block| block.octets.len()), [256 * 1024, 4096, 32 * 1024]);
        assert!(pool.take(40_000, 40_000).is_none());
        let mut ike = Block::holding(vec![1; 40], 2);
        assert_eq!((ike.bytes().len(), ike.room().len(), ike.frames()), (40, 0, 2));
        pool.give_back(ike);
        assert!(pool.take(40_000, 40_000).is_none(), "it was not one of the pool's");
        pool.give_back(first);
        assert!(pool.take(40_000, 40_000).is_some());
    }

    /// Takes blocks of `size` until there are no more, and gives them all back.
    fn fill(pool: &mut BlockPool, size: usize, blocks: &mut Vec<Block>) {
        blocks.extend(std::iter::from_fn(|| pool.take(size, size)));
        blocks.drain(..).for_each(|block| pool.give_back(block));
    }

    #[test]
    fn memory_is_bounded_whatever_sizes_were_needed_before() {
        const MEMORY: usize = 4 << 20;
        let mut blocks = Vec::with_capacity(MEMORY / BLOCK_SIZES[0]);
        let mut pool = BlockPool::new(MEMORY);
        // With the smallest the lists of blocks are the longest they become.
        fill(&mut pool, BLOCK_SIZES[0], &mut blocks);
        let taken = measure(|| {
            for size in BLOCK_SIZES.into_iter().rev() {
                fill(&mut pool, size, &mut blocks);
                assert_eq!((pool.lent, pool.free.octets), (0, MEMORY));
            }
        });
        assert!(taken.bytes_max < MEMORY as u64 / 8, "{} octets more", taken.bytes_max);
        // One that is recoded while all are lent: the spare one is not kept.
        blocks.extend(std::iter::from_fn(|| pool.take(1, 1)));
        assert!(pool.recode(&mut blocks[0], 0, |_, _| Some(5)));
        assert_eq!((pool.lent, pool.free.octets), (MEMORY, 0));
    }

    #[test]
    fn blocks_of_any_mix_of_sizes_are_used_again() {
        let mut pool = BlockPool::new(4 << 20);
        let mut blocks = Vec::with_capacity(100);
        let mut round = || {
            for number in 0..60 {
                let size = BLOCK_SIZES[number % BLOCK_SIZES.len()].min(100_000);
                blocks.extend(pool.take(size, size));
            }
            blocks.drain(..).for_each(|block| pool.give_back(block));
        };
        round();
        assert_eq!(measure(|| (0..10).for_each(|_| round())).count_total, 0);
    }

    #[test]
    fn the_less_there_is_the_less_a_connection_may_hold() {
        let mut pool = BlockPool::new(2 << 20);
        let mut ahead = Vec::new();
        while let Some(_block) = pool.take(256 * 1024, 256 * 1024) {
            ahead.push(pool.ahead_max());
        }
        let [some, none] = [usize::MAX, 0];
        assert_eq!(ahead, [some, some, some, 32 * 1024, 32 * 1024, none, none, none]);
    }

    #[test]
    fn a_block_given_back_is_empty() {
        let mut pool = BlockPool::new(0);
        let mut block = pool.take(10, 10).expect("free");
        block.room()[..3].copy_from_slice(b"abc");
        block.commit(3);
        assert_eq!((block.bytes(), block.frames()), (&b"abc"[..], 1));
        pool.give_back(block);
        assert_eq!(pool.take(10, 10).expect("free").bytes(), b"");
    }

    #[test]
    fn a_recoded_block_is_lent_once_and_keeps_its_frames() {
        let mut pool = BlockPool::new(1 << 20);
        for mut block in [pool.take(10, 10).expect("free"), Block::holding(b"abc".to_vec(), 1)] {
            if block.pooled {
                block.room()[..3].copy_from_slice(b"abc");
                block.commit(3);
            }
            let lent = pool.lent;
            assert!(!pool.recode(&mut block, 8, |_, _| None));
            assert_eq!(block.bytes(), b"abc");
            assert!(pool.recode(&mut block, 8, |plain, room| {
                room[..6].copy_from_slice(&[plain, plain].concat());
                Some(6)
            }));
            assert_eq!((block.bytes(), block.frames(), pool.lent), (&b"abcabc"[..], 1, lent));
            pool.give_back(block);
        }
        assert_eq!(pool.lent, 0);
    }

    #[test]
    fn a_block_that_grows_keeps_its_frames() {
        let mut pool = BlockPool::new(1 << 20);
        let mut block = pool.take(10, 10).expect("free");
        block.room()[..4].copy_from_slice(b"abcd");
        block.commit(4);
        assert!(pool.grow(&mut block, 5000, 5000));
        assert_eq!((block.bytes(), block.frames(), block.octets.len()), (&b"abcd"[..], 1, 32 * 1024));
        assert!(!pool.grow(&mut block, 256 * 1024, 256 * 1024), "no size holds that");
        assert!(!pool.grow(&mut Block::holding(vec![1; 40], 2), 10, 10), "it is not one of the pool's");
        pool.give_back(block);
        assert_eq!(pool.lent, 0);
    }
}
