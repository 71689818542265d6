//! What uses a UE's tunnel.

use super::tunnel::Tunnel;
use codec::esp::{BATCH_MAX, OutboundSa, SealBatch, SealError};
use std::ops::Range;

/// A write carries at most about so many octets.
pub(super) const WRITE_LEN_MAX: usize = 256 << 10;

/// What a UE does with its tunnel.
pub trait Inner {
    /// Takes an inner packet that has arrived.
    fn on_packet(&mut self, now_ns: u64, packet: &[u8]);
    /// The packets of one read have all been handed over.
    fn on_burst_end(&mut self) {}
    /// Seals what there is to send, until `sealer` is full.
    fn fill(&mut self, now_ns: u64, sealer: &mut Sealer<'_>);
    /// Returns whether [`Inner::fill`] would send something.
    fn has_output(&self) -> bool;
    /// The connection is cut on purpose now; what comes next goes over another one.
    fn on_cut(&mut self, _cut: Cut) {}
}

/// How a connection is cut on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// FIN behind all that was written; read on until the gateway closes as well.
    Close,
    /// RST: what neither end has read is gone.
    Reset,
}

impl Cut {
    /// Returns the other one.
    pub(super) fn other(self) -> Self {
        match self {
            Self::Close => Self::Reset,
            Self::Reset => Self::Close,
        }
    }
}

/// Takes inner packets for one write.
pub struct Sealer<'a> {
    pub(super) tunnel: &'a mut Tunnel,
    pub(super) out: &'a mut Vec<u8>,
    pub(super) laid: &'a mut Laid,
}

/// Frames of a write that lie in it in the clear: AES-CBC with HMAC is several times faster over many than one by one.
#[derive(Default)]
pub(super) struct Laid {
    batch: SealBatch,
    /// Where they lie, in the order of the batch.
    frames: Vec<Range<usize>>,
}

impl Laid {
    /// Appends a frame with `inner` to `out`.
    pub(super) fn lay_out(
        &mut self,
        sa: &mut OutboundSa,
        inner: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        if self.batch.is_full() {
            self.seal(out);
        }
        let at = out.len();
        out.resize(at + sa.frame_len(inner.len()), 0);
        let laid = sa.begin_seal(inner, &mut out[at..], &mut self.batch);
        out.truncate(at + *laid.as_ref().unwrap_or(&0));
        laid.map(|len| self.frames.push(at..at + len))
    }

    /// Seals them all.
    fn seal(&mut self, out: &mut [u8]) {
        let mut frames: [&mut [u8]; BATCH_MAX] = std::array::from_fn(|_| Default::default());
        let count = self.frames.len();
        let (mut rest, mut at) = (out, 0);
        for (place, range) in frames.iter_mut().zip(self.frames.drain(..)) {
            let (_, behind) = rest.split_at_mut(range.start - at);
            (*place, rest) = behind.split_at_mut(range.len());
            at = range.end;
        }
        self.batch.run(&mut frames[..count]);
    }
}

impl Sealer<'_> {
    /// Returns the octets of the write so far.
    pub fn octets(&self) -> usize {
        self.out.len()
    }

    /// Returns whether the write is as long as it should get.
    pub fn is_full(&self) -> bool {
        self.out.len() >= WRITE_LEN_MAX
    }

    /// Returns whether another packet of `len` octets fills the write.
    pub fn is_full_after(&self, len: usize) -> bool {
        self.out.len() + len >= WRITE_LEN_MAX
    }

    /// Adds an inner packet; returns whether there was an SA to send under.
    pub fn seal(&mut self, inner: &[u8]) -> bool {
        self.tunnel.lay_out(inner, self.out, self.laid)
    }

    /// Seals what only lies in the write so far, which may leave then.
    pub(super) fn finish(self) {
        self.laid.seal(self.out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use codec::SeededRandom;
    use codec::crypto::EspProposal;
    use codec::esp::{EspKeys, EspSpi, EspSuite, InboundSa};

    #[test]
    fn what_was_laid_out_opens_in_its_order() {
        let proposal: EspProposal = "aes256-sha256".parse().unwrap();
        let suite =
            EspSuite { cipher: proposal.ciphers()[0], integ: proposal.integs().first().copied(), esn: true };
        let keys = || EspKeys::new(&suite, &vec![7; suite.keymat_len()]).unwrap();
        let mut outbound = OutboundSa::new(EspSpi(500), suite, keys(), &mut SeededRandom::new(1));
        let mut inbound = InboundSa::new(EspSpi(500), suite, keys(), 128);
        // More than two batches, behind something else and of different lengths.
        let (mut laid, mut out) = (Laid::default(), vec![0xff; 9]);
        let packets: Vec<Vec<u8>> = (0..2 * BATCH_MAX + 5)
            .map(|index| {
                let len = 40 + index * 7 % 900;
                let mut packet = vec![index as u8; len];
                (packet[0], packet[2], packet[3]) = (0x45, (len >> 8) as u8, len as u8);
                packet
            })
            .collect();
        for packet in &packets {
            laid.lay_out(&mut outbound, packet, &mut out).unwrap();
        }
        assert!(laid.lay_out(&mut outbound, b"\xffno IP packet", &mut out).is_err());
        laid.seal(&mut out);
        let mut rest = &mut out[9..];
        for packet in &packets {
            let len = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
            let (frame, behind) = rest.split_at_mut(len);
            let opened = inbound.open(&mut frame[2..]).unwrap();
            assert_eq!(&frame[2..][opened.payload], packet);
            rest = behind;
        }
        assert!(rest.is_empty());
    }
}
