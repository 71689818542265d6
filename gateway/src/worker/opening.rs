//! ESP packets of one turn that are opened together.
//!
//! AES-CBC with HMAC is several times faster over packets of many SAs than one by one. They wait for the end
//! of the turn, or for a full batch, where they lie; then they go on in the order they came.

use codec::esp::{BATCH_MAX, EspError, EspSpi, InboundSa, OpenBatch};

use super::outlet::{Outlet, Place};
use super::udp::Origin;
use crate::io::ring::Ring;
use crate::types::ConnId;

/// How a frame came.
pub(super) enum Via {
    /// On a connection.
    Conn(ConnId),
    /// Over UDP.
    Datagram(Origin),
}

/// A frame that waits to be opened.
pub(super) struct Waiting {
    pub via: Via,
    pub spi: EspSpi,
    pub body: Place,
}

/// The batch and the frames in it.
pub(super) struct Opening {
    pub batch: OpenBatch,
    /// In the order of the batch.
    pub frames: Vec<Waiting>,
}

impl Opening {
    pub fn new() -> Self {
        Self { batch: OpenBatch::new(), frames: Vec::with_capacity(BATCH_MAX) }
    }

    /// Whether it must be opened before another frame can wait.
    pub fn is_full(&self) -> bool {
        self.batch.is_full()
    }

    /// Adds a frame of `sa`.
    pub fn push(&mut self, sa: &mut InboundSa, packet: &[u8], frame: Waiting) -> Result<(), EspError> {
        sa.begin_open(packet, &mut self.batch)?;
        self.frames.push(frame);
        Ok(())
    }

    /// Verifies and decrypts all frames where they lie.
    pub fn run(&mut self, outlet: &mut Outlet, ring: &mut Ring) {
        let places = self.frames.iter().map(|frame| &frame.body);
        let count = places.len();
        let mut packets: [&mut [u8]; BATCH_MAX] = outlet.frames(ring, places);
        self.batch.run(&mut packets[..count]);
    }
}
