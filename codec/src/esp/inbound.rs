//! The receiving side of a Child SA.

use core::ops::Range;

use super::batch::OpenBatch;
use super::context::{Kept, Lent, OpenContext};
use super::replay::{ReplayError, ReplayWindow};
use super::suite::{EspKeys, EspSuite};
use super::{EspError, EspSpi, HEADER_LEN, TRAILER_LEN, next_header};
use crate::ip;

/// An inbound SA: keys, replay window and counters of what one peer sends under one SPI.
///
/// 140 to 190 octets with keys and a window of 128 packets, and 1.2 KB of expanded keys while it is in use and
/// [there is room](super::keep_contexts).
pub struct InboundSa {
    spi: EspSpi,
    replay: ReplayWindow,
    keys: EspKeys,
    hot: Option<Kept<OpenContext>>,
    packets: u64,
    bytes: u64,
    /// Narrow to keep the record small; stays at its maximum.
    replay_drops: u32,
}

/// An authentic packet, decrypted where it lay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opened {
    /// The inner packet's place in the ESP packet, without traffic flow confidentiality padding.
    pub payload: Range<usize>,
    /// The Next Header field.
    pub next_header: u8,
    /// What that stands for.
    pub kind: OpenedKind,
}

/// What an authentic packet carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenedKind {
    /// An IPv4 packet whose length and version were checked.
    Inner4,
    /// An IPv6 packet whose length and version were checked.
    Inner6,
    /// A dummy: to be discarded silently (RFC 4303 §2.6).
    Dummy,
}

impl InboundSa {
    /// An SA that has received nothing. `replay_window` is brought into 32..=4096 packets.
    ///
    /// # Panics
    /// When `keys` were made for another suite.
    pub fn new(spi: EspSpi, suite: EspSuite, keys: EspKeys, replay_window: u32) -> Self {
        assert!(keys.suite() == suite, "keys belong to the suite");
        let replay = ReplayWindow::new(replay_window);
        Self { spi, replay, keys, hot: None, packets: 0, bytes: 0, replay_drops: 0 }
    }

    /// The SPI that selects this SA.
    pub fn spi(&self) -> EspSpi {
        self.spi
    }

    /// The algorithms.
    pub fn suite(&self) -> EspSuite {
        self.keys.suite()
    }

    /// Packets accepted with an inner packet.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Octets of inner packets accepted.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Packets dropped as replays or left of the window.
    pub fn replay_drops(&self) -> u64 {
        self.replay_drops.into()
    }

    /// Drops the expanded keys of an idle SA; the next packet builds them again.
    pub fn cool(&mut self) {
        self.hot = None;
    }

    /// Checks the sequence number, verifies and decrypts `packet` in place, moves the replay window, then
    /// checks padding, Next Header and inner length.
    ///
    /// `packet` starts at the SPI, which the caller used to find this SA.
    ///
    /// # Errors
    /// [`EspError`]; the SA is unchanged for `TooShort`, `Replayed`, `LeftOfWindow` and `BadIcv` (but for the
    /// count of replays), and `packet` is then of no further use. The other errors are those of an authentic
    /// peer. Under ESN a failed check of a packet that is more likely very old than very new is
    /// `LeftOfWindow`, as it would be with 32-bit numbers.
    ///
    /// Source: RFC 4303 §3.4.
    pub fn open(&mut self, packet: &mut [u8]) -> Result<Opened, EspError> {
        let sequence = self.check_sequence(packet)?;
        let high = self.high(sequence);
        let text = self.context().get().open(packet, high);
        self.accept(sequence, text, packet)
    }

    /// Checks the sequence number of `packet` and enters it into `batch`; returns its position there. The packet
    /// starts at the SPI and is handed to [`OpenBatch::run`] in that position.
    ///
    /// # Errors
    /// [`EspError`] as [`Self::open`] before the ICV is looked at; the packet is then not in the batch.
    ///
    /// # Panics
    /// When the batch is full.
    pub fn begin_open(&mut self, packet: &[u8], batch: &mut OpenBatch) -> Result<usize, EspError> {
        let sequence = self.check_sequence(packet)?;
        let (spi, high) = (self.spi, self.high(sequence));
        Ok(batch.push(self.context(), spi, (sequence, high), packet.len()))
    }

    /// Accepts the packet that [`Self::begin_open`] entered at `position` and the batch has opened: moves the
    /// replay window, then checks padding, Next Header and inner length. To be called once per packet, in the
    /// order of arrival.
    ///
    /// # Errors
    /// [`EspError`] as [`Self::open`]; a duplicate inside the batch is `Replayed` here.
    ///
    /// # Panics
    /// Unless the packet was begun by this SA and the batch has run.
    pub fn finish_open(
        &mut self,
        batch: &OpenBatch,
        position: usize,
        packet: &[u8],
    ) -> Result<Opened, EspError> {
        let (sequence, text) = batch.outcome(self.spi, position);
        if text.is_ok() {
            // Another packet of the batch may have had the number or moved the window past it.
            self.replay.check(sequence).map_err(|error| self.count_replay(error))?;
        }
        self.accept(sequence, text, packet)
    }

    /// Moves the window for an authentic packet whose number it admits and strips what is not inner packet.
    fn accept(
        &mut self,
        sequence: u64,
        text: Result<Range<usize>, EspError>,
        packet: &[u8],
    ) -> Result<Opened, EspError> {
        let text = match text {
            Err(EspError::BadIcv) if self.replay.is_improbable(sequence) && self.suite().esn => {
                return Err(self.count_replay(ReplayError::LeftOfWindow));
            }
            text => text?,
        };
        // RFC 4303 §3.4.3: the window moves only now that the ICV has verified.
        self.replay.advance(sequence);
        let opened = strip(packet, text)?;
        if opened.kind != OpenedKind::Dummy {
            self.packets += 1;
            self.bytes += opened.payload.len() as u64;
        }
        Ok(opened)
    }

    fn context(&mut self) -> Lent<'_, OpenContext> {
        Lent::of(&mut self.hot, || OpenContext::new(&self.keys))
    }

    /// The unsent half of an extended sequence number.
    fn high(&self, sequence: u64) -> Option<u32> {
        self.suite().esn.then_some((sequence >> 32) as u32)
    }

    fn count_replay(&mut self, error: ReplayError) -> EspError {
        self.replay_drops = self.replay_drops.saturating_add(1);
        match error {
            ReplayError::Replayed => EspError::Replayed,
            ReplayError::LeftOfWindow => EspError::LeftOfWindow,
        }
    }

    /// The full sequence number of `packet`, when the window would accept it.
    fn check_sequence(&mut self, packet: &[u8]) -> Result<u64, EspError> {
        let suite = self.suite();
        let text_len = packet.len().checked_sub(HEADER_LEN + suite.iv_len() + suite.icv_len());
        if packet.len() < suite.packet_len_min()
            || !text_len.is_some_and(|len| suite.cipher.is_aead() || len % suite.align() == 0)
        {
            return Err(EspError::TooShort);
        }
        let low = packet.get(4..).and_then(<[u8]>::first_chunk).ok_or(EspError::TooShort)?;
        let low = u32::from_be_bytes(*low);
        let sequence = if self.suite().esn { self.replay.infer(low) } else { Ok(u64::from(low)) };
        sequence
            .and_then(|sequence| self.replay.check(sequence).map(|()| sequence))
            .map_err(|error| self.count_replay(error))
    }
}

/// Checks and removes the trailer of the decrypted `text`, then what exceeds the inner packet's own length.
pub(crate) fn strip(packet: &[u8], text: Range<usize>) -> Result<Opened, EspError> {
    let decrypted = packet.get(text.clone()).ok_or(EspError::TooShort)?;
    let (padded, &[pad_len, next_header]) =
        decrypted.split_last_chunk::<TRAILER_LEN>().ok_or(EspError::TooShort)?;
    let payload_len = padded.len().checked_sub(usize::from(pad_len)).ok_or(EspError::BadPadding)?;
    let (payload, padding) = padded.split_at(payload_len);
    // RFC 4303 §2.4: the padding of these ciphers is 1, 2, 3 and so on; the receiver should check it.
    if !padding.iter().zip(1..=u8::MAX).all(|(octet, expected)| *octet == expected) {
        return Err(EspError::BadPadding);
    }
    let (kind, payload_len) = match next_header {
        next_header::IPV4 => (OpenedKind::Inner4, ip::total_len_v4(payload)),
        next_header::IPV6 => (OpenedKind::Inner6, ip::total_len_v6(payload)),
        // RFC 4303 §2.6: a dummy's content means nothing.
        next_header::NONE => (OpenedKind::Dummy, Some(payload_len)),
        _ => return Err(EspError::BadNextHeader),
    };
    // RFC 4303 §2.7: the inner packet's own length tells it from the padding behind it.
    let payload_len = payload_len.ok_or(EspError::BadInnerLength)?;
    Ok(Opened { payload: text.start..text.start + payload_len, next_header, kind })
}
