//! What can be told of an IKE message without its keys.

use codec::ike::{ExchangeType, HEADER_LEN, IkeHeader, IkeSpi, MessageId, PayloadType};

use crate::limits::BRIDGE_FRAGMENTS_MAX;

/// Octets from the start of a message to the Fragment Number of an SKF payload that comes first.
const FRAGMENT_AT: usize = HEADER_LEN + 4;

/// Which part of a message a datagram is (RFC 7383 §2.5); `1 of 1` when it is not fragmented.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// Counted from 1.
    pub number: u16,
    /// How many there are.
    pub total: u16,
}

impl Fragment {
    /// An unfragmented message.
    pub const WHOLE: Self = Self { number: 1, total: 1 };
}

/// The header's view of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MessageInfo {
    /// SPI of the original initiator: with the Message ID and the leg a request came from it names an
    /// exchange. The responder's SPI does not: it is zero in the first request and in a COOKIE response.
    pub spi_i: IkeSpi,
    /// SPI of the original responder.
    pub spi_r: IkeSpi,
    /// Number of the exchange.
    pub message_id: MessageId,
    /// Its type.
    pub exchange: ExchangeType,
    /// Whether it answers a request.
    pub is_response: bool,
    /// Whether it comes under keys: an SK or SKF payload comes first (RFC 7296 §3.14, RFC 7383 §2.5).
    pub is_protected: bool,
    /// Which part it is.
    pub fragment: Fragment,
}

impl MessageInfo {
    /// Reads the header of `message`; `None` when there is none, when its Length is not that of the message,
    /// or when it claims a fragment that cannot be.
    pub fn parse(message: &[u8]) -> Option<Self> {
        let header = IkeHeader::decode(message).ok()?;
        if usize::try_from(header.length) != Ok(message.len()) {
            return None;
        }
        let fragment = match header.next_payload {
            PayloadType::ENCRYPTED_FRAGMENT => fragment(message)?,
            _ => Fragment::WHOLE,
        };
        Some(Self {
            spi_i: header.spi_i,
            spi_r: header.spi_r,
            message_id: header.message_id,
            exchange: header.exchange,
            is_response: header.flags.is_response(),
            is_protected: matches!(
                header.next_payload,
                PayloadType::ENCRYPTED | PayloadType::ENCRYPTED_FRAGMENT
            ),
            fragment,
        })
    }

    /// Whether it asks for a new IKE SA: IKE_SA_INIT (RFC 7296 §1.2) or IKE_SESSION_RESUME (RFC 5723 §4.3).
    pub fn opens_session(&self) -> bool {
        !self.is_response && self.is_initial()
    }

    /// Whether it belongs to an exchange that comes before any keys.
    pub fn is_initial(&self) -> bool {
        matches!(self.exchange, ExchangeType::IKE_SA_INIT | ExchangeType::IKE_SESSION_RESUME)
    }
}

/// RFC 7383 §2.5: numbers from 1 to the total. `None` beyond [`BRIDGE_FRAGMENTS_MAX`]: fragments are kept one by one,
/// looked for among their like, and sent again all at once.
fn fragment(message: &[u8]) -> Option<Fragment> {
    let [n1, n0, t1, t0] = *message.get(FRAGMENT_AT..)?.first_chunk::<4>()?;
    let (number, total) = (u16::from_be_bytes([n1, n0]), u16::from_be_bytes([t1, t0]));
    let numbered = (1..=total).contains(&number) && total <= BRIDGE_FRAGMENTS_MAX;
    numbered.then_some(Fragment { number, total })
}

#[cfg(test)]
pub(crate) mod tests {
    use codec::ike::{Flags, Version};

    use super::*;

    /// A message of `exchange` with `body` behind its header.
    pub fn message(spi_i: u8, id: u32, exchange: ExchangeType, response: bool, body: &[u8]) -> Vec<u8> {
        encode(spi_i, id, exchange, response, PayloadType::ENCRYPTED, body)
    }

    /// One fragment of a message.
    pub fn skf(spi_i: u8, id: u32, response: bool, number: u16, total: u16, body: &[u8]) -> Vec<u8> {
        let mut payload = vec![0, 0, 0, 8];
        payload.extend_from_slice(&number.to_be_bytes());
        payload.extend_from_slice(&total.to_be_bytes());
        payload.extend_from_slice(body);
        encode(spi_i, id, ExchangeType::IKE_AUTH, response, PayloadType::ENCRYPTED_FRAGMENT, &payload)
    }

    fn encode(
        spi_i: u8,
        id: u32,
        exchange: ExchangeType,
        response: bool,
        next_payload: PayloadType,
        body: &[u8],
    ) -> Vec<u8> {
        let header = IkeHeader {
            spi_i: IkeSpi([spi_i; 8]),
            spi_r: IkeSpi([if id == 0 && !response { 0 } else { 9 }; 8]),
            next_payload,
            version: Version::IKEV2,
            exchange,
            flags: Flags::new(!response, response),
            message_id: MessageId(id),
            length: (HEADER_LEN + body.len()) as u32,
        };
        let mut octets = Vec::new();
        header.encode(&mut octets);
        octets.extend_from_slice(body);
        octets
    }

    #[test]
    fn r7296_3_1_a_length_that_is_not_the_messages_own_is_refused() {
        let whole = message(1, 3, ExchangeType::INFORMATIONAL, false, b"body");
        let info = MessageInfo::parse(&whole).expect("whole");
        assert_eq!((info.message_id, info.fragment), (MessageId(3), Fragment::WHOLE));
        assert!(!info.opens_session());
        assert_eq!(MessageInfo::parse(&whole[..whole.len() - 1]), None);
        assert_eq!(MessageInfo::parse(&whole[..20]), None);
    }

    #[test]
    fn r7383_fragments_are_numbered_from_one_to_their_total() {
        let part = |number, total| MessageInfo::parse(&skf(1, 1, false, number, total, b"x"));
        assert_eq!(part(2, 3).map(|info| info.fragment), Some(Fragment { number: 2, total: 3 }));
        for (number, total) in [(0, 0), (0, 2), (3, 2)] {
            assert_eq!(part(number, total), None);
        }
        assert!(part(1, BRIDGE_FRAGMENTS_MAX).is_some());
        assert_eq!(part(1, BRIDGE_FRAGMENTS_MAX + 1), None, "more than any message needs");
        let cut = encode(1, 1, ExchangeType::IKE_AUTH, false, PayloadType::ENCRYPTED_FRAGMENT, &[0, 0, 0]);
        assert_eq!(MessageInfo::parse(&cut), None);
    }
}
