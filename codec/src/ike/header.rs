//! The fixed IKE header (RFC 7296 §3.1).

use std::fmt;

use super::error::DecodeError;
use super::reader::Reader;
use super::registry::{ExchangeType, PayloadType};

/// Octets of the fixed header.
pub const HEADER_LEN: usize = 28;

/// Offset of the header's Next Payload field.
pub(crate) const NEXT_PAYLOAD_AT: usize = 16;

/// Offset of the header's Length field.
pub(crate) const LENGTH_AT: usize = 24;

/// An IKE SPI: one end's name for an IKE SA. Zero stands for "not chosen yet".
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct IkeSpi(pub [u8; 8]);

impl IkeSpi {
    /// The responder's SPI before it chose one.
    pub const ZERO: Self = Self([0; 8]);

    /// Whether no SPI has been chosen.
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }
}

impl fmt::Display for IkeSpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for IkeSpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IkeSpi({self})")
    }
}

/// Number of a request and of its response within one direction of an IKE SA.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct MessageId(pub u32);

impl MessageId {
    /// The Message ID after this one, or `None` at the end of the SA's life: it must be rekeyed before.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Version of the header: major in the high four bits, minor in the low four.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Version(pub u8);

impl Version {
    /// IKEv2 as RFC 7296 defines it.
    pub const IKEV2: Self = Self(0x20);

    /// Major version; a receiver refuses those above 2 and ignores the minor one (RFC 7296 §2.5).
    pub fn major(self) -> u8 {
        self.0 >> 4
    }
}

/// Flags of the header. Reserved bits are kept as received and ignored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// Sent by the end that initiated the IKE SA.
    pub const INITIATOR: Self = Self(0x08);
    /// Sent by an end that can speak a higher major version.
    pub const VERSION: Self = Self(0x10);
    /// Answers the request with the same Message ID.
    pub const RESPONSE: Self = Self(0x20);

    /// Flags of a message by the sender's two roles.
    pub fn new(initiator: bool, response: bool) -> Self {
        let initiator = if initiator { Self::INITIATOR.0 } else { 0 };
        let response = if response { Self::RESPONSE.0 } else { 0 };
        Self(initiator | response)
    }

    /// Whether the sender is the original initiator of the IKE SA.
    pub fn is_initiator(self) -> bool {
        self.0 & Self::INITIATOR.0 != 0
    }

    /// Whether the message is a response.
    pub fn is_response(self) -> bool {
        self.0 & Self::RESPONSE.0 != 0
    }
}

/// The fixed header.
///
/// ```text
///  0                   1                   2                   3
/// |                   IKE SA Initiator's SPI (8)                  |
/// |                   IKE SA Responder's SPI (8)                  |
/// | Next Payload  | MjVer | MnVer | Exchange Type |     Flags     |
/// |                          Message ID                           |
/// |                            Length                             |
/// ```
///
/// Source: RFC 7296 §3.1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IkeHeader {
    /// SPI of the original initiator; never zero in a valid message.
    pub spi_i: IkeSpi,
    /// SPI of the original responder; zero in the first request.
    pub spi_r: IkeSpi,
    /// Type of the first payload.
    pub next_payload: PayloadType,
    /// Protocol version of the sender.
    pub version: Version,
    /// Exchange the message belongs to.
    pub exchange: ExchangeType,
    /// Roles of the sender.
    pub flags: Flags,
    /// Number of the request.
    pub message_id: MessageId,
    /// Octets of the whole message, this header included.
    pub length: u32,
}

impl IkeHeader {
    /// Decodes the first [`HEADER_LEN`] octets of `message`, whatever version they claim.
    ///
    /// # Errors
    /// A message shorter than its header.
    pub fn decode(message: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(message);
        Ok(Self {
            spi_i: IkeSpi(reader.array("IKE initiator SPI")?),
            spi_r: IkeSpi(reader.array("IKE responder SPI")?),
            next_payload: PayloadType(reader.u8("IKE next payload")?),
            version: Version(reader.u8("IKE version")?),
            exchange: ExchangeType(reader.u8("IKE exchange type")?),
            flags: Flags(reader.u8("IKE flags")?),
            message_id: MessageId(reader.u32("IKE message ID")?),
            length: reader.u32("IKE length")?,
        })
    }

    /// Appends the header.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.spi_i.0);
        out.extend_from_slice(&self.spi_r.0);
        out.extend_from_slice(&[self.next_payload.0, self.version.0, self.exchange.0, self.flags.0]);
        out.extend_from_slice(&self.message_id.0.to_be_bytes());
        out.extend_from_slice(&self.length.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r7296_3_1_header_survives_encode_and_decode() {
        let header = IkeHeader {
            spi_i: IkeSpi([1; 8]),
            spi_r: IkeSpi([2; 8]),
            next_payload: PayloadType::ENCRYPTED,
            version: Version::IKEV2,
            exchange: ExchangeType::INFORMATIONAL,
            flags: Flags::new(true, true),
            message_id: MessageId(0x01020304),
            length: 28,
        };
        let mut octets = Vec::new();
        header.encode(&mut octets);
        assert_eq!(octets.len(), HEADER_LEN);
        assert_eq!(octets[19], 0x28);
        assert_eq!(IkeHeader::decode(&octets), Ok(header));
        for len in 0..HEADER_LEN {
            assert!(matches!(IkeHeader::decode(&octets[..len]), Err(DecodeError::Truncated { .. })));
        }
    }

    #[test]
    fn r7296_2_2_message_id_never_wraps() {
        assert_eq!(MessageId(u32::MAX).next(), None);
        assert_eq!(MessageId(0).next(), Some(MessageId(1)));
    }
}
