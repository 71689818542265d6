//! ESP frames of one turn that are sealed together.
//!
//! The counterpart of `opening.rs` for AES-CBC with HMAC: frames are laid out in the send blocks in the clear
//! and encrypted there, over all connections of the turn at once, before any block leaves.

use std::collections::VecDeque;
use std::mem;
use std::ops::Range;

use codec::esp::{BATCH_MAX, OutboundSa, SealBatch, SealError};

use super::conn::ConnTable;
use crate::io::block::Block;

/// A frame in the clear.
struct Laid {
    slot: u32,
    /// Which of its connection's blocks it is in, and where.
    block: usize,
    range: Range<usize>,
}

/// The batch and the frames in it.
pub(super) struct Sealing {
    batch: SealBatch,
    /// In the order of the batch.
    frames: Vec<Laid>,
}

impl Sealing {
    pub fn new() -> Self {
        Self { batch: SealBatch::new(), frames: Vec::with_capacity(BATCH_MAX) }
    }

    /// Whether it must run before another frame is laid out.
    pub fn is_full(&self) -> bool {
        self.batch.is_full()
    }

    /// Lays `packet` out at the end of the last of `blocks`, those of connection `slot`; returns the octets of
    /// the frame.
    pub fn lay_out(
        &mut self,
        outbound: &mut OutboundSa,
        packet: &[u8],
        slot: u32,
        blocks: &mut VecDeque<Block>,
    ) -> Result<usize, SealError> {
        let index = blocks.len().saturating_sub(1);
        let block = blocks.back_mut().ok_or(SealError::OutputTooSmall)?;
        let start = block.bytes().len();
        let len = outbound.begin_seal(packet, block.room(), &mut self.batch)?;
        block.commit(len);
        self.frames.push(Laid { slot, block: index, range: start..start + len });
        Ok(len)
    }

    /// Encrypts all frames where they lie. No connection has gone, and no block left its queue, since they were
    /// laid out.
    pub fn run(&mut self, conns: &mut ConnTable) {
        if self.frames.is_empty() {
            return;
        }
        // Frames of one connection mostly follow each other; each connection is borrowed once.
        let mut lent: Vec<(u32, VecDeque<Block>)> = Vec::with_capacity(BATCH_MAX);
        for frame in &self.frames {
            if !lent.iter().rev().any(|(slot, _)| *slot == frame.slot)
                && let Some(conn) = conns.get_mut(frame.slot)
            {
                lent.push((frame.slot, mem::take(&mut conn.queue.blocks)));
            }
        }
        self.seal(&mut lent);
        for (slot, blocks) in lent {
            if let Some(conn) = conns.get_mut(slot) {
                conn.queue.blocks = blocks;
            }
        }
        self.frames.clear();
    }

    fn seal(&mut self, lent: &mut [(u32, VecDeque<Block>)]) {
        let mut cursors: Vec<Cursor<'_>> = lent.iter_mut().map(Cursor::new).collect();
        let mut slices: [&mut [u8]; BATCH_MAX] = std::array::from_fn(|_| Default::default());
        for (slice, frame) in slices.iter_mut().zip(&self.frames) {
            // The connection of the frame before it, mostly: it was put to the front.
            let found = cursors.iter().position(|cursor| cursor.slot == frame.slot);
            let Some(at) = found else { continue };
            cursors.swap(0, at);
            *slice = cursors[0].frame(frame);
        }
        self.batch.run(&mut slices[..self.frames.len()]);
    }
}

/// Hands out the frames of one connection, which come in the order of its blocks.
struct Cursor<'a> {
    slot: u32,
    blocks: std::collections::vec_deque::IterMut<'a, Block>,
    /// How many blocks have been begun.
    begun: usize,
    /// What of the current block has not been handed out, and where it starts.
    rest: &'a mut [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn new(lent: &'a mut (u32, VecDeque<Block>)) -> Self {
        Self { slot: lent.0, blocks: lent.1.iter_mut(), begun: 0, rest: Default::default(), at: 0 }
    }

    fn frame(&mut self, frame: &Laid) -> &'a mut [u8] {
        while self.begun <= frame.block {
            self.begun += 1;
            self.at = 0;
            self.rest = self.blocks.next().map(Block::bytes_mut).unwrap_or_default();
        }
        let rest = mem::take(&mut self.rest);
        let skipped = frame.range.start.saturating_sub(self.at).min(rest.len());
        let (_, rest) = rest.split_at_mut(skipped);
        let (octets, rest) = rest.split_at_mut(frame.range.len().min(rest.len()));
        self.rest = rest;
        self.at = frame.range.end;
        octets
    }
}
