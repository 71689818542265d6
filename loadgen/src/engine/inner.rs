//! What uses a UE's tunnel.

use super::tunnel::Tunnel;

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
}

impl Sealer<'_> {
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
        self.tunnel.seal(inner, self.out)
    }
}
