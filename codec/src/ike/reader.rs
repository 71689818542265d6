//! A cursor over received octets that cannot read past their end.

use super::error::DecodeError;

/// What is left to decode. Every read names the field it is for.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(octets: &'a [u8]) -> Self {
        Self { rest: octets }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else {
            return Err(DecodeError::Truncated { field, needed: len, available: self.rest.len() });
        };
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let Some((taken, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(DecodeError::Truncated { field, needed: N, available: self.rest.len() });
        };
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(field).map(|[octet]| octet)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_be_bytes)
    }

    /// Takes everything that is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Takes the body of a structure whose `length` counts the `header_len` octets read before.
    pub(crate) fn body(
        &mut self,
        length: u16,
        header_len: usize,
        field: &'static str,
    ) -> Result<&'a [u8], DecodeError> {
        match usize::from(length).checked_sub(header_len) {
            Some(len) => self.take(len, field),
            None => Err(DecodeError::BadLength { field, length: usize::from(length) }),
        }
    }

    /// Ends a structure that must have been used up.
    pub(crate) fn finish(self, field: &'static str) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            length => Err(DecodeError::BadLength { field, length }),
        }
    }
}
