//! AT_CHECKCODE: one hash over the packets of the identity round, so that none was changed (RFC 4187 §10.13).

use aws_lc_rs::digest::{Context, Digest, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

use super::Variant;
use super::attribute::Checkcode;

/// The identity requests and responses of one authentication, in their order.
pub struct IdentityRound {
    context: Context,
    packets: u32,
}

/// What AT_CHECKCODE must be.
pub struct Expected(Option<Digest>);

impl IdentityRound {
    /// A round without packets yet: SHA-1 for EAP-AKA, SHA-256 for EAP-AKA' (RFC 9048 §3.4).
    pub fn new(variant: Variant) -> Self {
        let algorithm = match variant {
            Variant::Aka => &SHA1_FOR_LEGACY_USE_ONLY,
            Variant::AkaPrime => &SHA256,
        };
        Self { context: Context::new(algorithm), packets: 0 }
    }

    /// Adds a whole EAP packet.
    pub fn add(&mut self, packet: &[u8]) {
        self.context.update(packet);
        self.packets += 1;
    }

    /// The value over the packets so far.
    pub fn expected(&self) -> Expected {
        Expected((self.packets > 0).then(|| self.context.clone().finish()))
    }
}

impl Expected {
    /// As an attribute.
    pub fn checkcode(&self) -> Checkcode<'_> {
        self.0.as_ref().map_or(Checkcode::Empty, |digest| Checkcode::Hash(digest.as_ref()))
    }
}
