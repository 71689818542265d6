//! Encrypted (RFC 7296 §3.14) and Encrypted Fragment (RFC 7383 §2.5) payloads, still sealed.

use crate::ike::error::DecodeError;
use crate::ike::reader::Reader;

/// The sealed body of an SK payload: IV, ciphertext and ICV, whose lengths the SA's algorithms say.
///
/// [`crate::crypto::open_sk`] opens the whole message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EncryptedView<'a> {
    /// IV, ciphertext, ICV.
    pub sealed: &'a [u8],
}

impl<'a> EncryptedView<'a> {
    /// Decodes the payload's body: every body is one until it is opened.
    ///
    /// # Errors
    /// None; the signature is that of all views.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        Ok(Self { sealed: body })
    }
}

/// The body of an SKF payload: number (u16), total (u16), then IV, ciphertext and ICV.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FragmentView<'a> {
    /// Which fragment it is, counted from 1.
    pub number: u16,
    /// How many fragments the message has; at least `number`.
    pub total: u16,
    /// IV, ciphertext, ICV.
    pub sealed: &'a [u8],
}

impl<'a> FragmentView<'a> {
    /// Octets before `sealed`.
    pub const HEADER_LEN: usize = 4;

    /// Decodes the payload's body.
    ///
    /// # Errors
    /// A body shorter than its fixed part, or a number outside 1 to `total`.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let number = reader.u16("SKF fragment number")?;
        let total = reader.u16("SKF total fragments")?;
        if number == 0 || number > total {
            return Err(DecodeError::BadValue { field: "SKF fragment number", value: number.into() });
        }
        Ok(Self { number, total, sealed: reader.rest() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r7383_2_5_fragment_numbers_run_from_one_to_total() {
        for (body, valid) in [
            ([0, 1, 0, 1], true),
            ([0, 2, 0, 3], true),
            ([0, 0, 0, 1], false),
            ([0, 2, 0, 1], false),
            ([0, 0, 0, 0], false),
        ] {
            assert_eq!(FragmentView::decode(&body).is_ok(), valid, "{body:?}");
        }
        assert!(FragmentView::decode(&[0, 1, 0]).is_err());
    }
}
