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

/// The blocks of one worker.
pub struct BlockPool {
    free: [Vec<Block>; BLOCK_SIZES.len()],
    /// Octets of the blocks that are lent.
    lent: usize,
    max: usize,
}

fn class_of(size: usize) -> usize {
    BLOCK_SIZES.iter().position(|&class| size <= class).unwrap_or(BLOCK_SIZES.len() - 1)
}

impl BlockPool {
    /// A pool that lends at most `memory` octets, and keeps as much of it as has been needed at once.
    pub fn new(memory: usize) -> Self {
        Self { free: Default::default(), lent: 0, max: memory.max(2 * BLOCK_SIZES[BLOCK_SIZES.len() - 1]) }
    }

    /// An empty block for `wanted` octets, as far as the sizes and the memory go, and at least for `needed`.
    pub fn take(&mut self, needed: usize, wanted: usize) -> Option<Block> {
        let classes = class_of(needed)..=class_of(wanted.max(needed));
        let class = classes.rev().find(|&class| self.lent + BLOCK_SIZES[class] <= self.max)?;
        if BLOCK_SIZES[class] < needed {
            return None;
        }
        self.lent += BLOCK_SIZES[class];
        Some(self.free[class].pop().unwrap_or_else(|| Block::new(BLOCK_SIZES[class])))
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
        let spare = if block.pooled { self.free[class].pop() } else { None };
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

    /// Keeps a buffer that is not lent.
    fn keep(&mut self, mut block: Block) {
        if block.pooled {
            (block.used, block.frames) = (0, 0);
            self.free[class_of(block.octets.len())].push(block);
        }
    }
}

#[cfg(test)]
mod tests {
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
