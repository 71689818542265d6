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
use std::sync::Arc;

use codec_native::ipsec_mb;

use super::burst::{self, Place};
use super::context::{Lent, OpenContext, SealContext};
use super::{EspError, EspSpi, backend};
use crate::stream::LENGTH_LEN;

/// The most packets of one batch: four times the widest vector, beyond which nothing is gained.
pub const BATCH_MAX: usize = 64;

/// Inbound packets between [`super::InboundSa::begin_open`] and [`super::InboundSa::finish_open`].
///
/// Owned by one worker and reused; shares or holds expanded keys from `begin_open` until [`Self::clear`].
pub struct OpenBatch {
    entries: Vec<OpenEntry>,
    /// One per entry once the batch has run.
    outcomes: Vec<Result<Range<usize>, EspError>>,
    /// Contexts of SAs that keep none.
    made: Vec<OpenContext>,
}

/// One inbound packet of a batch.
struct OpenEntry {
    keys: Keys<OpenContext>,
    spi: EspSpi,
    sequence: u64,
    /// The unsent half of an extended sequence number.
    high: Option<u32>,
    packet_len: usize,
}

/// Outbound packets between [`super::OutboundSa::begin_seal`] and [`Self::run`].
///
/// Owned by one worker and reused.
pub struct SealBatch {
    entries: Vec<SealEntry>,
    /// Contexts of SAs that keep none.
    made: Vec<SealContext>,
}

/// One outbound packet of a batch.
struct SealEntry {
    keys: Keys<SealContext>,
    sequence: u64,
    high: Option<u32>,
    /// Octets of the frame, with its Length.
    frame_len: usize,
}

/// Expanded keys of one packet.
enum Keys<Context> {
    /// Those that its SA keeps.
    Shared(Arc<Context>),
    /// The batch's own, by index.
    Made(usize),
}

impl<Context> Keys<Context> {
    fn new(lent: Lent<'_, Context>, made: &mut Vec<Context>) -> Self {
        match lent {
            Lent::Kept(context) => Self::Shared(Arc::clone(context)),
            Lent::Made(context) => {
                made.push(context);
                Self::Made(made.len() - 1)
            }
        }
    }

    fn get<'a>(&'a self, made: &'a [Context]) -> &'a Context {
        match self {
            Self::Shared(context) => context,
            Self::Made(at) => &made[*at],
        }
    }
}

impl OpenBatch {
    /// An empty batch with room for [`BATCH_MAX`] packets.
    pub fn new() -> Self {
        let room = BATCH_MAX;
        Self {
            entries: Vec::with_capacity(room),
            outcomes: Vec::with_capacity(room),
            made: Vec::with_capacity(room),
        }
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
        self.outcomes.clear();
        let mut line_up = [const { None }; BATCH_MAX];
        for ((entry, packet), slot) in self.entries.iter().zip(&mut *packets).zip(&mut line_up) {
            assert_eq!(packet.len(), entry.packet_len, "a packet as begun");
            let keys = entry.keys.get(&self.made);
            *slot = match keys {
                OpenContext::CbcHmac(cbc) => Place::to_open(cbc, entry.high, entry.packet_len),
                OpenContext::Aead(_) | OpenContext::TripleDes(_) => None,
            };
            // What is in the line-up gets its outcome below.
            self.outcomes.push(match slot {
                Some(_) => Err(EspError::BadIcv),
                None => keys.open(packet, entry.high),
            });
        }
        if let (Some(library), true) = (ipsec_mb::available(), line_up.iter().any(Option::is_some)) {
            burst::open((library, backend::current()), &mut line_up, packets, &mut self.outcomes);
        }
    }

    /// Forgets all packets and their keys.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.outcomes.clear();
        self.made.clear();
    }

    /// Takes in a packet and returns its position.
    pub(super) fn push(
        &mut self,
        lent: Lent<'_, OpenContext>,
        spi: EspSpi,
        (sequence, high): (u64, Option<u32>),
        packet_len: usize,
    ) -> usize {
        assert!(!self.is_full() && self.outcomes.is_empty(), "cleared once it has run");
        let keys = Keys::new(lent, &mut self.made);
        self.entries.push(OpenEntry { keys, spi, sequence, high, packet_len });
        self.entries.len() - 1
    }

    /// Sequence number of the packet begun at `position` for the SA `spi`, and where its text lies.
    pub(super) fn outcome(&self, spi: EspSpi, position: usize) -> (u64, Result<Range<usize>, EspError>) {
        let entry = self.entries.get(position).expect("a position that begin_open returned");
        assert!(entry.spi == spi, "the SA that began the packet finishes it");
        (entry.sequence, self.outcomes.get(position).expect("the batch has run").clone())
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
        Self { entries: Vec::with_capacity(BATCH_MAX), made: Vec::with_capacity(BATCH_MAX) }
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
    /// order, each from its Length on and exactly as long as `begin_seal` said; the slices themselves are used up.
    ///
    /// # Panics
    /// Unless there are as many frames as were begun, of those lengths.
    ///
    /// Source: RFC 4303 §3.3.
    pub fn run(&mut self, frames: &mut [&mut [u8]]) {
        assert_eq!(frames.len(), self.entries.len(), "the frames of the batch");
        let mut line_up = [const { None }; BATCH_MAX];
        for ((entry, frame), slot) in self.entries.iter().zip(&mut *frames).zip(&mut line_up) {
            assert_eq!(frame.len(), entry.frame_len, "a frame as begun");
            // From here on a frame is its ESP packet.
            *frame = core::mem::take(frame).split_at_mut(LENGTH_LEN).1;
            let keys = entry.keys.get(&self.made);
            if let SealContext::CbcHmac(cbc) = keys {
                *slot = Place::to_seal(cbc, entry.high, frame.len());
                cbc.put_iv(frame, entry.sequence);
            }
            if slot.is_none() {
                keys.seal_in_place(frame, entry.sequence, entry.high);
            }
        }
        if let (Some(library), true) = (ipsec_mb::available(), line_up.iter().any(Option::is_some)) {
            burst::seal((library, backend::current()), &line_up, frames);
        }
        self.entries.clear();
        self.made.clear();
    }

    pub(super) fn push(
        &mut self,
        lent: Lent<'_, SealContext>,
        (sequence, high): (u64, Option<u32>),
        frame_len: usize,
    ) {
        assert!(!self.is_full(), "the batch has run when it was full");
        let keys = Keys::new(lent, &mut self.made);
        self.entries.push(SealEntry { keys, sequence, high, frame_len });
    }
}

impl Default for SealBatch {
    fn default() -> Self {
        Self::new()
    }
}
