//! A whole message as received.

use super::error::DecodeError;
use super::header::{HEADER_LEN, IkeHeader};
use super::payload::PayloadIter;

/// A message whose header has been decoded and whose Length is that of its octets.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The fixed header.
    pub header: IkeHeader,
    octets: &'a [u8],
}

impl<'a> Message<'a> {
    /// Decodes the header of `octets`, one message without Non-ESP Marker.
    ///
    /// # Errors
    /// Fewer octets than a header, or a Length that is not theirs.
    pub fn decode(octets: &'a [u8]) -> Result<Self, DecodeError> {
        let header = IkeHeader::decode(octets)?;
        if usize::try_from(header.length) != Ok(octets.len()) {
            return Err(DecodeError::BadLength { field: "IKE length", length: header.length as usize });
        }
        Ok(Self { header, octets })
    }

    /// The payloads outside any Encrypted payload, in the order sent.
    pub fn payloads(&self) -> PayloadIter<'a> {
        PayloadIter::new(self.header.next_payload, self.octets.get(HEADER_LEN..).unwrap_or_default())
    }

    /// The message as it was sent, as AUTH covers it.
    pub fn octets(&self) -> &'a [u8] {
        self.octets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ike::{ExchangeType, Flags, IkeSpi, MessageBuilder, MessageId};

    #[test]
    fn r7296_3_1_length_is_that_of_the_message() {
        let builder = MessageBuilder::new(
            IkeSpi([1; 8]),
            IkeSpi::ZERO,
            ExchangeType::IKE_SA_INIT,
            Flags::INITIATOR,
            MessageId(0),
        );
        let mut octets = builder.finish().expect("a header");
        assert!(Message::decode(&octets).is_ok());
        octets.push(0);
        assert!(Message::decode(&octets).is_err());
        octets.truncate(HEADER_LEN - 1);
        assert!(Message::decode(&octets).is_err());
    }
}
