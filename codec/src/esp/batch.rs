//! Packets of many SAs opened or sealed at once.
//!
//! AES-CBC with HMAC runs several times faster over a batch than packet by packet, whichever SAs the packets
//! belong to. Each direction has three steps, so that no two SAs are borrowed at a time:
//!
//! ```text
//! InboundSa::begin_open    sequence number, replay check     OutboundSa::begin_seal    number, layout
//! OpenBatch::run           verify all ICVs, then decrypt     SealBatch::run            encrypt, ICVs
//! InboundSa::finish_open   replay check and advance, strip
//! ```
//!
//! Packets keep their position in the batch: the caller hands `run` the packets in the order they were begun.
//! A packet whose ICV fails affects no other and is not decrypted. AEAD packets are welcome in a batch but gain
//! nothing by it.

use core::ops::Range;

use super::context::{OpenContext, SealContext};
use super::{EspError, EspSpi};
use crate::stream::LENGTH_LEN;

/// The most packets of one batch: four times the widest vector, beyond which nothing is gained.
pub const BATCH_MAX: usize = 64;

/// Inbound packets between [`super::InboundSa::begin_open`] and [`super::InboundSa::finish_open`].
///
/// Owned by one worker and reused; holds expanded keys from `begin_open` until [`Self::clear`].
pub struct OpenBatch {
    entries: Vec<OpenEntry>,
}

/// One inbound packet of a batch.
pub(super) struct OpenEntry {
    pub(super) keys: OpenContext,
    pub(super) spi: EspSpi,
    pub(super) sequence: u64,
    /// The unsent half of an extended sequence number.
    pub(super) high: Option<u32>,
    /// Where the decrypted text lies; `None` before the batch has run.
    pub(super) text: Option<Result<Range<usize>, EspError>>,
}

/// Outbound packets between [`super::OutboundSa::begin_seal`] and [`Self::run`].
///
/// Owned by one worker and reused.
pub struct SealBatch {
    entries: Vec<SealEntry>,
}

/// One outbound packet of a batch.
pub(super) struct SealEntry {
    pub(super) keys: SealContext,
    pub(super) sequence: u64,
    pub(super) high: Option<u32>,
    /// Octets of the frame, with its Length.
    pub(super) frame_len: usize,
}

impl OpenBatch {
    /// An empty batch with room for [`BATCH_MAX`] packets.
    pub fn new() -> Self {
        Self { entries: Vec::with_capacity(BATCH_MAX) }
    }

    /// Packets begun since the last [`Self::clear`].
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Tells whether nothing was begun.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Tells whether the batch must run before another packet is begun.
    pub fn is_full(&self) -> bool {
        self.entries.len() == BATCH_MAX
    }

    /// Verifies and decrypts in place. `packets` are those begun, in the same order, each from its SPI on.
    ///
    /// Each packet's outcome waits for its SA's `finish_open`. A packet under CBC whose ICV fails keeps its
    /// octets; one under an AEAD is then of no further use.
    ///
    /// # Panics
    /// Unless there are as many packets as were begun.
    ///
    /// Source: RFC 4303 §3.4.4.
    pub fn run(&mut self, packets: &mut [&mut [u8]]) {
        assert_eq!(packets.len(), self.entries.len(), "the packets of the batch");
        for (entry, packet) in self.entries.iter_mut().zip(packets) {
            entry.text = Some(entry.keys.open(packet, entry.high));
        }
    }

    /// Forgets all packets and their keys.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// Takes in a packet and returns its position.
    pub(super) fn push(&mut self, entry: OpenEntry) -> usize {
        assert!(!self.is_full(), "the batch has run when it was full");
        self.entries.push(entry);
        self.entries.len() - 1
    }

    /// The packet begun at `position` for the SA `spi`.
    pub(super) fn entry(&self, spi: EspSpi, position: usize) -> &OpenEntry {
        let entry = self.entries.get(position).expect("a position that begin_open returned");
        assert!(entry.spi == spi, "the SA that began the packet finishes it");
        entry
    }
}

impl Default for OpenBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl SealBatch {
    /// An empty batch with room for [`BATCH_MAX`] packets.
    pub fn new() -> Self {
        Self { entries: Vec::with_capacity(BATCH_MAX) }
    }

    /// Frames begun since the last [`Self::run`].
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Tells whether nothing was begun.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Tells whether the batch must run before another frame is begun.
    pub fn is_full(&self) -> bool {
        self.entries.len() == BATCH_MAX
    }

    /// Encrypts in place and adds the ICVs; the batch is empty afterwards. `frames` are those begun, in the same
    /// order, each from its Length on and exactly as long as `begin_seal` said.
    ///
    /// # Panics
    /// Unless there are as many frames as were begun, of those lengths.
    ///
    /// Source: RFC 4303 §3.3.
    pub fn run(&mut self, frames: &mut [&mut [u8]]) {
        assert_eq!(frames.len(), self.entries.len(), "the frames of the batch");
        for (entry, frame) in self.entries.drain(..).zip(frames) {
            assert_eq!(frame.len(), entry.frame_len, "a frame as begun");
            entry.keys.seal_in_place(&mut frame[LENGTH_LEN..], entry.sequence, entry.high);
        }
    }

    pub(super) fn push(&mut self, entry: SealEntry) {
        assert!(!self.is_full(), "the batch has run when it was full");
        self.entries.push(entry);
    }
}

impl Default for SealBatch {
    fn default() -> Self {
        Self::new()
    }
}
