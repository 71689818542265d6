//! What stands for the library where it cannot be built against: types without a value.

use std::convert::Infallible;

use super::{CipherJob, Direction, HashJob, Vectors};
use crate::aead::{NONCE_LEN, OpenFailed, TAG_LEN};
use crate::hmac::{HmacAlgorithm, HmacKey};

/// The library; it is not there.
#[derive(Clone, Copy)]
pub struct IpsecMb(Infallible);

/// A key nobody can make.
pub struct GcmKey(Infallible);

/// Pads nobody can make.
pub struct HmacPads(Infallible);

/// A schedule nobody can make.
pub struct CbcSchedule(Infallible);

/// `None`: the header was not found when this was built, or the machine is of another kind.
pub fn available() -> Option<IpsecMb> {
    None
}

#[expect(missing_docs, reason = "documented where the library is")]
impl IpsecMb {
    pub fn is_wide(self) -> bool {
        match self.0 {}
    }

    pub fn hash<'a>(self, _: Vectors, _: HmacAlgorithm, _: impl IntoIterator<Item = HashJob<'a>>) {
        match self.0 {}
    }

    pub fn cbc<'a>(self, _: Vectors, _: Direction, _: usize, _: impl IntoIterator<Item = CipherJob<'a>>) {
        match self.0 {}
    }
}

#[expect(missing_docs, reason = "documented where the library is")]
impl GcmKey {
    pub fn new(library: IpsecMb, _: &[u8]) -> Option<Self> {
        match library.0 {}
    }

    pub fn seal_in_place(&self, _: &[u8; NONCE_LEN], _: &[u8], _: &mut [u8]) -> [u8; TAG_LEN] {
        match self.0 {}
    }

    pub fn open_in_place(
        &self,
        _: &[u8; NONCE_LEN],
        _: &[u8],
        _: &mut [u8],
        _: &[u8; TAG_LEN],
    ) -> Result<(), OpenFailed> {
        match self.0 {}
    }
}

#[expect(missing_docs, reason = "documented where the library is")]
impl HmacPads {
    pub fn new(library: IpsecMb, _: &HmacKey) -> Self {
        match library.0 {}
    }
}

#[expect(missing_docs, reason = "documented where the library is")]
impl CbcSchedule {
    pub fn new(library: IpsecMb, _: Direction, _: &[u8]) -> Option<Self> {
        match library.0 {}
    }

    pub fn key_len(&self) -> usize {
        match self.0 {}
    }
}
