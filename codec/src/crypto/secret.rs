//! Octets that must not outlive their use.

use zeroize::{Zeroize, ZeroizeOnDrop};

/// Secret octets: wiped on drop, without `Debug`, equal only in constant time.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// Takes over `octets`; they must not have been reallocated since the secret was put into them.
    pub fn new(mut octets: Vec<u8>) -> Self {
        let secret = Self(octets.as_slice().into());
        // Giving up spare capacity might move the octets and leave a copy behind.
        octets.zeroize();
        secret
    }

    /// The octets, for a primitive or for an explicit key log.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Secret {
    fn from(octets: &[u8]) -> Self {
        Self(octets.into())
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        codec_native::constant_time_eq(&self.0, &other.0)
    }
}

impl Eq for Secret {}
