//! Key Exchange (RFC 7296 §3.4) and Nonce (§3.9) payloads.

use crate::ike::error::DecodeError;
use crate::ike::reader::Reader;
use crate::ike::registry::KeGroup;

/// Shortest nonce a peer may send.
pub const NONCE_LEN_MIN: usize = 16;

/// Longest nonce a peer may send.
pub const NONCE_LEN_MAX: usize = 256;

/// A public value of a key exchange: group (u16), reserved (u16), then the value. Whether the value fits
/// the group is for [`crate::crypto::KeyExchange`] to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeView<'a> {
    /// Key exchange method.
    pub group: KeGroup,
    /// The sender's public value.
    pub data: &'a [u8],
}

impl<'a> KeView<'a> {
    /// Decodes the payload's body.
    ///
    /// # Errors
    /// A body that ends before the value, or an empty value.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let group = KeGroup(reader.u16("KE group")?);
        reader.u16("KE reserved")?;
        let data = reader.rest();
        if data.is_empty() {
            return Err(DecodeError::BadLength { field: "KE data", length: 0 });
        }
        Ok(Self { group, data })
    }

    /// Appends the payload's body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.group.0.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(self.data);
    }
}

/// A nonce of [`NONCE_LEN_MIN`] to [`NONCE_LEN_MAX`] octets.
///
/// Source: RFC 7296 §3.9.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NonceView<'a> {
    /// The random octets.
    pub data: &'a [u8],
}

impl<'a> NonceView<'a> {
    /// Decodes the payload's body.
    ///
    /// # Errors
    /// A nonce outside the lengths allowed.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        if (NONCE_LEN_MIN..=NONCE_LEN_MAX).contains(&body.len()) {
            Ok(Self { data: body })
        } else {
            Err(DecodeError::BadLength { field: "nonce", length: body.len() })
        }
    }

    /// Appends the payload's body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r7296_3_9_nonces_are_16_to_256_octets() {
        for (len, allowed) in [(15, false), (16, true), (256, true), (257, false)] {
            assert_eq!(NonceView::decode(&vec![7; len]).is_ok(), allowed, "{len}");
        }
    }

    #[test]
    fn r7296_3_4_ke_survives_encode_and_decode() {
        let view = KeView { group: KeGroup::CURVE25519, data: &[9; 32] };
        let mut out = Vec::new();
        view.encode(&mut out);
        assert_eq!(KeView::decode(&out), Ok(view));
        assert!(KeView::decode(&out[..4]).is_err());
        assert!(KeView::decode(&out[..3]).is_err());
    }
}
