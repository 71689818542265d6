//! Notify payload (RFC 7296 §3.10).

use crate::esp::EspSpi;
use crate::ike::error::DecodeError;
use crate::ike::reader::Reader;
use crate::ike::registry::{HashId, KeGroup, NotifyType, ProtocolId};

/// A status or an error: protocol (u8), SPI size (u8), type (u16), SPI, data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotifyView<'a> {
    /// Protocol of `spi`; [`ProtocolId::NONE`] when there is none.
    pub protocol: ProtocolId,
    /// The SA it concerns; empty when it concerns the IKE SA it arrives on, or none.
    pub spi: &'a [u8],
    /// What is said.
    pub kind: NotifyType,
    /// What `kind` defines.
    pub data: &'a [u8],
}

impl<'a> NotifyView<'a> {
    /// A notification without an SPI.
    pub fn new(kind: NotifyType, data: &'a [u8]) -> Self {
        Self { protocol: ProtocolId::NONE, spi: &[], kind, data }
    }

    /// Decodes the payload's body.
    ///
    /// # Errors
    /// A body shorter than its fixed part and SPI.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let protocol = ProtocolId(reader.u8("N protocol")?);
        let spi_len = reader.u8("N SPI size")?;
        let kind = NotifyType(reader.u16("N type")?);
        let spi = reader.take(usize::from(spi_len), "N SPI")?;
        Ok(Self { protocol, spi, kind, data: reader.rest() })
    }

    /// The ESP SA this concerns: REKEY_SA and CHILD_SA_NOT_FOUND name one.
    pub fn esp_spi(&self) -> Option<EspSpi> {
        let spi = <[u8; 4]>::try_from(self.spi).ok()?;
        (self.protocol == ProtocolId::ESP).then_some(EspSpi(u32::from_be_bytes(spi)))
    }

    /// The group an INVALID_KE_PAYLOAD asks for (RFC 7296 §1.3).
    pub fn ke_group(&self) -> Option<KeGroup> {
        <[u8; 2]>::try_from(self.data).ok().map(|group| KeGroup(u16::from_be_bytes(group)))
    }

    /// The hashes of a SIGNATURE_HASH_ALGORITHMS (RFC 7427 §4).
    pub fn hash_ids(&self) -> impl Iterator<Item = HashId> + use<'a> {
        self.data.as_chunks().0.iter().map(|hash| HashId(u16::from_be_bytes(*hash)))
    }

    /// Appends the payload's body. An SPI has at most 255 octets; ours have none, four or eight.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let spi_len = u8::try_from(self.spi.len()).unwrap_or(u8::MAX);
        out.extend_from_slice(&[self.protocol.0, spi_len]);
        out.extend_from_slice(&self.kind.0.to_be_bytes());
        out.extend(self.spi.iter().take(usize::from(spi_len)));
        out.extend_from_slice(self.data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r7296_3_10_notify_survives_encode_and_decode() {
        let view = NotifyView {
            protocol: ProtocolId::ESP,
            spi: &[0xde, 0xad, 0xbe, 0xef],
            kind: NotifyType::REKEY_SA,
            data: b"",
        };
        let mut out = Vec::new();
        view.encode(&mut out);
        assert_eq!(out, [3, 4, 0x40, 0x09, 0xde, 0xad, 0xbe, 0xef]);
        assert_eq!(NotifyView::decode(&out), Ok(view));
        assert_eq!(view.esp_spi(), Some(EspSpi(0xdeadbeef)));
        for len in 0..out.len() {
            assert!(NotifyView::decode(&out[..len]).is_err());
        }
    }

    #[test]
    fn r7296_1_3_invalid_ke_payload_names_a_group() {
        let view = NotifyView::new(NotifyType::INVALID_KE_PAYLOAD, &[0, 31]);
        assert_eq!(view.ke_group(), Some(KeGroup::CURVE25519));
        assert_eq!(NotifyView::new(NotifyType::INVALID_KE_PAYLOAD, &[31]).ke_group(), None);
    }

    #[test]
    fn r7427_4_hash_list_is_read_in_pairs() {
        let view = NotifyView::new(NotifyType::SIGNATURE_HASH_ALGORITHMS, &[0, 2, 0, 5, 0]);
        assert_eq!(view.hash_ids().collect::<Vec<_>>(), [HashId::SHA2_256, HashId::IDENTITY]);
    }
}
