//! Delete payload (RFC 7296 §3.11).

use crate::esp::EspSpi;
use crate::ike::error::DecodeError;
use crate::ike::reader::Reader;
use crate::ike::registry::ProtocolId;

/// SAs the sender has closed: protocol (u8), SPI size (u8), count (u16), SPIs.
///
/// For [`ProtocolId::IKE`] there is no SPI and the IKE SA of the message is meant; for ESP and AH each SPI
/// is four octets and names an SA inbound to the sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeleteView<'a> {
    /// Kind of all SAs named.
    pub protocol: ProtocolId,
    spis: &'a [[u8; 4]],
}

impl<'a> DeleteView<'a> {
    /// A Delete of the IKE SA it is sent on.
    pub const IKE_SA: DeleteView<'static> = DeleteView { protocol: ProtocolId::IKE, spis: &[] };

    /// Decodes the payload's body.
    ///
    /// # Errors
    /// An SPI size that is not the protocol's, or a count that is not that of the SPIs that follow.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let protocol = ProtocolId(reader.u8("D protocol")?);
        let spi_len = reader.u8("D SPI size")?;
        let count = usize::from(reader.u16("D SPI count")?);
        let wanted = match protocol {
            ProtocolId::IKE => 0,
            ProtocolId::AH | ProtocolId::ESP => 4,
            _ => return Err(DecodeError::BadValue { field: "D protocol", value: protocol.0.into() }),
        };
        if spi_len != wanted {
            return Err(DecodeError::BadLength { field: "D SPI size", length: spi_len.into() });
        }
        if protocol == ProtocolId::IKE && count != 0 {
            return Err(DecodeError::BadLength { field: "D SPI count", length: count });
        }
        let spis = reader.take(count * usize::from(spi_len), "D SPIs")?.as_chunks().0;
        reader.finish("D octets after the SPIs")?;
        Ok(Self { protocol, spis })
    }

    /// The ESP SAs named; none when `protocol` is another.
    pub fn esp_spis(&self) -> impl Iterator<Item = EspSpi> + use<'a> {
        let spis = if self.protocol == ProtocolId::ESP { self.spis } else { &[] };
        spis.iter().map(|spi| EspSpi(u32::from_be_bytes(*spi)))
    }

    /// Appends the body of a Delete of the IKE SA it is sent on.
    pub fn encode_ike(out: &mut Vec<u8>) {
        out.extend_from_slice(&[ProtocolId::IKE.0, 0, 0, 0]);
    }

    /// Appends the body of a Delete of ESP SAs, at most 65,535 of them.
    pub fn encode_esp(spis: &[EspSpi], out: &mut Vec<u8>) {
        let count = u16::try_from(spis.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&[ProtocolId::ESP.0, 4]);
        out.extend_from_slice(&count.to_be_bytes());
        for spi in spis.iter().take(usize::from(count)) {
            out.extend_from_slice(&spi.0.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r7296_3_11_delete_survives_encode_and_decode() {
        let mut out = Vec::new();
        DeleteView::encode_esp(&[EspSpi(0x100), EspSpi(0xfffffffe)], &mut out);
        let view = DeleteView::decode(&out).expect("our own");
        assert_eq!(view.protocol, ProtocolId::ESP);
        assert_eq!(view.esp_spis().collect::<Vec<_>>(), [EspSpi(0x100), EspSpi(0xfffffffe)]);
        out.clear();
        DeleteView::encode_ike(&mut out);
        assert_eq!(DeleteView::decode(&out), Ok(DeleteView::IKE_SA));
    }

    #[test]
    fn r7296_3_11_sizes_and_counts_are_checked() {
        for body in [
            &[3, 4, 0, 2, 0, 0, 1, 0][..],
            &[3, 4, 0, 0, 0, 0, 1, 0],
            &[3, 8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
            &[1, 0, 0, 1],
            &[1, 8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
            &[9, 4, 0, 0],
            &[3, 4, 0xff, 0xff],
        ] {
            assert!(DeleteView::decode(body).is_err(), "{body:?}");
        }
    }
}
