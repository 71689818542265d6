//! Send blocks: pooled memory that collects frames until one send takes them all.

/// Octets of a block: a good run of frames for a busy UE, little to hold for one with a few packets.
pub const BLOCK_LEN: usize = 32 * 1024;

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
    fn new() -> Self {
        Self { octets: vec![0; BLOCK_LEN].into_boxed_slice(), used: 0, frames: 0, pooled: true }
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

    /// How many frames it holds.
    pub fn frames(&self) -> u32 {
        self.frames
    }
}

/// The blocks of one worker.
pub struct BlockPool {
    free: Vec<Block>,
    lent: usize,
    max: usize,
}

impl BlockPool {
    /// A pool that lends at most `memory` octets, and keeps as much of it as has been needed at once.
    pub fn new(memory: usize) -> Self {
        Self { free: Vec::new(), lent: 0, max: (memory / BLOCK_LEN).max(2) }
    }

    /// An empty block, or `None` when all are lent.
    pub fn take(&mut self) -> Option<Block> {
        if self.lent >= self.max {
            return None;
        }
        self.lent += 1;
        Some(self.free.pop().unwrap_or_else(Block::new))
    }

    /// Takes a block back; one of no pool ends here.
    pub fn give_back(&mut self, mut block: Block) {
        if block.pooled {
            self.lent = self.lent.saturating_sub(1);
            block.used = 0;
            block.frames = 0;
            self.free.push(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lends_no_more_than_its_memory() {
        let mut pool = BlockPool::new(2 * BLOCK_LEN);
        let first = pool.take().expect("within the bound");
        let _second = pool.take().expect("within the bound");
        assert!(pool.take().is_none());
        let mut ike = Block::holding(vec![1; 40], 2);
        assert_eq!((ike.bytes().len(), ike.room().len(), ike.frames()), (40, 0, 2));
        pool.give_back(ike);
        assert!(pool.take().is_none(), "it was not one of the pool's");
        pool.give_back(first);
        assert!(pool.take().is_some());
    }

    #[test]
    fn a_block_given_back_is_empty() {
        let mut pool = BlockPool::new(BLOCK_LEN);
        let mut block = pool.take().expect("free");
        block.room()[..3].copy_from_slice(b"abc");
        block.commit(3);
        assert_eq!((block.bytes(), block.frames()), (&b"abc"[..], 1));
        pool.give_back(block);
        assert_eq!(pool.take().expect("free").bytes(), b"");
    }
}
