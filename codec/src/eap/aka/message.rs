//! A received EAP-AKA packet: decoding, its MAC, what it carries encrypted.

use codec_native::cbc::CbcDecryptKey;
use codec_native::hmac::{HmacAlgorithm, HmacKey};
use zeroize::Zeroizing;

use super::attribute::{Attributes, MAC_LEN};
use super::{Subtype, Variant};
use crate::eap::{EapPacket, HEADER_LEN};
use crate::ike::DecodeError;

/// Octets of a packet before its attributes: EAP header, type, subtype, reserved.
pub(super) const ATTRIBUTES_AT: usize = HEADER_LEN + 4;

/// Why a packet cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AkaError {
    /// It does not decode.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// It is of no method of ours.
    #[error("not a packet of EAP-AKA or EAP-AKA'")]
    OtherMethod,
    /// An attribute that the subtype needs is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// AT_MAC is wrong.
    #[error("AT_MAC is wrong")]
    WrongMac,
    /// AT_ENCR_DATA without AT_IV, not of whole blocks, or decrypting to no attributes.
    #[error("AT_ENCR_DATA cannot be decrypted")]
    BadEncryption,
}

/// A packet of EAP-AKA or EAP-AKA'.
#[derive(Clone)]
pub struct AkaMessage<'a> {
    /// The packet it is in.
    pub packet: EapPacket<'a>,
    /// Which method.
    pub variant: Variant,
    /// What it is about.
    pub subtype: Subtype,
    /// What it says.
    pub attributes: Attributes<'a>,
}

impl<'a> AkaMessage<'a> {
    /// Decodes the data of a request or response.
    ///
    /// # Errors
    /// [`AkaError::OtherMethod`], [`AkaError::Malformed`].
    pub fn decode(packet: EapPacket<'a>) -> Result<Self, AkaError> {
        let variant = packet.method.and_then(Variant::of_method).ok_or(AkaError::OtherMethod)?;
        let short =
            DecodeError::Truncated { field: "EAP-AKA header", needed: 3, available: packet.data.len() };
        let [subtype, _, _, attributes @ ..] = packet.data else { return Err(short.into()) };
        let subtype = Subtype::of(*subtype)
            .ok_or(DecodeError::BadValue { field: "EAP-AKA subtype", value: u32::from(*subtype) })?;
        Ok(Self { packet, variant, subtype, attributes: Attributes::decode(attributes)? })
    }

    /// Verifies AT_MAC over the packet, with the MAC itself as zeros, followed by `extra`: NONCE_S in the answer to a
    /// re-authentication, nothing otherwise.
    ///
    /// # Errors
    /// [`AkaError::Missing`], [`AkaError::WrongMac`].
    ///
    /// Source: RFC 4187 §10.15, RFC 9048 §3.4.
    pub fn verify_mac(&self, k_aut: &[u8], extra: &[u8]) -> Result<(), AkaError> {
        let at = ATTRIBUTES_AT + self.attributes.mac_at.ok_or(AkaError::Missing("AT_MAC"))?;
        let (before, rest) = self.packet.octets.split_at_checked(at).ok_or(AkaError::WrongMac)?;
        let (received, after) = rest.split_at_checked(MAC_LEN).ok_or(AkaError::WrongMac)?;
        let expected = mac(self.variant, k_aut, &[before, &[0; MAC_LEN], after, extra]);
        if codec_native::constant_time_eq(&expected, received) { Ok(()) } else { Err(AkaError::WrongMac) }
    }

    /// Whether it has a MAC at all.
    pub fn has_mac(&self) -> bool {
        self.attributes.mac_at.is_some()
    }

    /// Decrypts AT_ENCR_DATA; `None` when there is none. [`Attributes::decode`] reads the result. The MAC must have been
    /// verified.
    ///
    /// # Errors
    /// [`AkaError::BadEncryption`].
    ///
    /// Source: RFC 4187 §10.12.
    pub fn decrypt(&self, k_encr: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, AkaError> {
        let Some(encrypted) = self.attributes.encrypted else { return Ok(None) };
        let (Some(iv), Some(key)) = (self.attributes.iv, CbcDecryptKey::new(k_encr)) else {
            return Err(AkaError::BadEncryption);
        };
        let mut text = Zeroizing::new(encrypted.to_vec());
        key.decrypt_in_place(iv, &mut text).map_err(|_| AkaError::BadEncryption)?;
        Ok(Some(text))
    }
}

/// HMAC-SHA1-128, or HMAC-SHA-256-128 in EAP-AKA'.
pub(super) fn mac(variant: Variant, k_aut: &[u8], parts: &[&[u8]]) -> [u8; MAC_LEN] {
    let algorithm = match variant {
        Variant::Aka => HmacAlgorithm::Sha1,
        Variant::AkaPrime => HmacAlgorithm::Sha256,
    };
    let tag = HmacKey::new(algorithm, k_aut).tag(parts);
    *tag.first_chunk().expect("every tag is longer than a MAC")
}
