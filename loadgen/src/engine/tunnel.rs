//! A UE's ESP SAs.

use super::inner::Laid;
use crate::ue::ChildSa;
use codec::Random;
use codec::esp::{EspError, EspSpi, InboundSa, OutboundSa};
use std::ops::Range;

/// Inbound SAs of one UE: the current one and, during a rekey, the one before.
const INBOUND_MAX: usize = 4;

/// The Child SAs of one UE.
#[derive(Default)]
pub(super) struct Tunnel {
    inbound: Vec<InboundSa>,
    outbound: Option<OutboundSa>,
}

/// What became of an ESP packet.
pub(super) enum Arrived {
    /// The inner packet lies here in the ESP packet.
    Inner(Range<usize>),
    /// Authentic, but nothing to deliver.
    Nothing,
    /// For no SA that is known.
    Unknown,
    /// For a known SA and not authentic.
    Forged,
    /// Replayed, or nothing that can be delivered.
    Dropped,
}

impl Tunnel {
    /// Receives under the new child as well, and sends under it only.
    pub(super) fn install(&mut self, child: ChildSa, replay_window: u32, random: &mut dyn Random) {
        if self.inbound.len() == INBOUND_MAX {
            self.inbound.remove(0);
        }
        // Most UEs have one at a time, and there may be a hundred thousand of them.
        self.inbound.reserve_exact(1);
        self.inbound.push(InboundSa::new(child.spi_in, child.suite, child.keys_in, replay_window));
        self.outbound = Some(OutboundSa::new(child.spi_out, child.suite, child.keys_out, random));
    }

    /// Forgets an inbound SA; without any the outbound one goes too.
    pub(super) fn retire(&mut self, spi: EspSpi) {
        self.inbound.retain(|sa| sa.spi() != spi);
        if self.inbound.is_empty() {
            self.outbound = None;
        }
    }

    /// Opens an ESP packet in place.
    pub(super) fn open(&mut self, spi: EspSpi, packet: &mut [u8]) -> Arrived {
        let Some(sa) = self.inbound.iter_mut().rev().find(|sa| sa.spi() == spi) else {
            return Arrived::Unknown;
        };
        match sa.open(packet) {
            Ok(opened) if opened.payload.is_empty() => Arrived::Nothing,
            Ok(opened) => Arrived::Inner(opened.payload),
            Err(EspError::BadIcv) => Arrived::Forged,
            Err(_) => Arrived::Dropped,
        }
    }

    /// Appends a frame with `inner` to `out`; returns whether there was an SA to send under.
    pub(super) fn seal(&mut self, inner: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(sa) = &mut self.outbound else { return false };
        let at = out.len();
        out.resize(at + sa.frame_len(inner.len()), 0);
        let sealed = sa.seal_frame(inner, &mut out[at..]);
        if sealed.is_err() {
            out.truncate(at);
        }
        sealed.is_ok()
    }

    /// As [`Tunnel::seal`], where ciphers are faster over many frames without sealing it yet.
    pub(super) fn lay_out(&mut self, inner: &[u8], out: &mut Vec<u8>, laid: &mut Laid) -> bool {
        match &mut self.outbound {
            Some(sa) if !sa.suite().cipher.is_aead() => laid.lay_out(sa, inner, out).is_ok(),
            _ => self.seal(inner, out),
        }
    }

    /// Frees what only speeds up the next packet.
    pub(super) fn cool(&mut self) {
        self.inbound.iter_mut().for_each(InboundSa::cool);
        self.outbound.iter_mut().for_each(OutboundSa::cool);
    }
}
