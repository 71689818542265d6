//! RADIUS packets (RFC 2865 §3): framing and attributes, both ways.
//!
//! [`Packet::parse`] checks the whole packet once, so that what walks its attributes later cannot fail. Octets of an
//! answer are copied by nobody before [`super::sign`] has found it authentic.

/// Octets before the attributes.
pub const HEADER_LEN: usize = 20;

/// Octets of the longest packet (RFC 2865 §3).
pub const PACKET_LEN_MAX: usize = 4096;

/// Octets an attribute's value may have.
pub const VALUE_LEN_MAX: usize = 253;

/// Octets of the values of all EAP-Message attributes of a packet: what is left beside the others.
pub const EAP_LEN_MAX: usize = 3072;

/// Where the authenticator is in a packet.
pub const AUTHENTICATOR: std::ops::Range<usize> = 4..HEADER_LEN;

/// Codes of packets.
pub mod code {
    pub const ACCESS_REQUEST: u8 = 1;
    pub const ACCESS_ACCEPT: u8 = 2;
    pub const ACCESS_REJECT: u8 = 3;
    pub const ACCOUNTING_REQUEST: u8 = 4;
    pub const ACCOUNTING_RESPONSE: u8 = 5;
    pub const ACCESS_CHALLENGE: u8 = 11;
    pub const STATUS_SERVER: u8 = 12;
    pub const DISCONNECT_REQUEST: u8 = 40;
    pub const DISCONNECT_ACK: u8 = 41;
    pub const DISCONNECT_NAK: u8 = 42;
    pub const COA_REQUEST: u8 = 43;
    pub const COA_ACK: u8 = 44;
    pub const COA_NAK: u8 = 45;
}

/// Types of attributes.
pub mod kind {
    pub const USER_NAME: u8 = 1;
    pub const NAS_IP_ADDRESS: u8 = 4;
    pub const SERVICE_TYPE: u8 = 6;
    pub const FRAMED_IP_ADDRESS: u8 = 8;
    pub const FRAMED_MTU: u8 = 12;
    pub const REPLY_MESSAGE: u8 = 18;
    pub const STATE: u8 = 24;
    pub const CLASS: u8 = 25;
    pub const VENDOR_SPECIFIC: u8 = 26;
    pub const SESSION_TIMEOUT: u8 = 27;
    pub const CALLED_STATION_ID: u8 = 30;
    pub const CALLING_STATION_ID: u8 = 31;
    pub const NAS_IDENTIFIER: u8 = 32;
    pub const PROXY_STATE: u8 = 33;
    pub const ACCT_STATUS_TYPE: u8 = 40;
    pub const ACCT_INPUT_OCTETS: u8 = 42;
    pub const ACCT_OUTPUT_OCTETS: u8 = 43;
    pub const ACCT_SESSION_ID: u8 = 44;
    pub const ACCT_AUTHENTIC: u8 = 45;
    pub const ACCT_SESSION_TIME: u8 = 46;
    pub const ACCT_INPUT_PACKETS: u8 = 47;
    pub const ACCT_OUTPUT_PACKETS: u8 = 48;
    pub const ACCT_TERMINATE_CAUSE: u8 = 49;
    pub const ACCT_INPUT_GIGAWORDS: u8 = 52;
    pub const ACCT_OUTPUT_GIGAWORDS: u8 = 53;
    pub const EVENT_TIMESTAMP: u8 = 55;
    pub const NAS_PORT_TYPE: u8 = 61;
    pub const EAP_MESSAGE: u8 = 79;
    pub const MESSAGE_AUTHENTICATOR: u8 = 80;
    pub const ACCT_INTERIM_INTERVAL: u8 = 85;
    pub const FRAMED_POOL: u8 = 88;
    pub const NAS_IPV6_ADDRESS: u8 = 95;
    pub const FRAMED_INTERFACE_ID: u8 = 96;
    pub const FRAMED_IPV6_PREFIX: u8 = 97;
    pub const ERROR_CAUSE: u8 = 101;
    pub const FRAMED_IPV6_ADDRESS: u8 = 168;
}

/// Private enterprise number of Microsoft (RFC 2548).
pub const VENDOR_MICROSOFT: u32 = 311;

/// Private enterprise number of 3GPP (TS 29.061 §16.4.7).
pub const VENDOR_3GPP: u32 = 10415;

/// Why octets are no packet, or why there is no room for an attribute.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PacketError {
    /// The header's length does not fit the octets.
    #[error("length")]
    Length,
    /// An attribute is not inside the packet, or shorter than its own header.
    #[error("attribute")]
    Attribute,
    /// An attribute's value is too long, or the packet would be.
    #[error("too long")]
    TooLong,
}

/// A packet whose framing is good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet<'a>(&'a [u8]);

/// One attribute of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attribute<'a> {
    /// Its type.
    pub kind: u8,
    /// Its value, at most [`VALUE_LEN_MAX`] octets.
    pub value: &'a [u8],
    /// Where the value begins in the packet.
    pub at: usize,
}

impl<'a> Packet<'a> {
    /// Checks `octets`, which hold one packet and perhaps padding behind it, which is ignored (RFC 2865 §3).
    ///
    /// # Errors
    /// When lengths do not fit each other.
    pub fn parse(octets: &'a [u8]) -> Result<Self, PacketError> {
        let len = Self::announced_len(octets).ok_or(PacketError::Length)?;
        let packet = Self(octets.get(..len).ok_or(PacketError::Length)?);
        let mut rest = packet.0.get(HEADER_LEN..).unwrap_or_default();
        while let [_, len, ..] = rest {
            if usize::from(*len) < 2 {
                return Err(PacketError::Attribute);
            }
            rest = rest.get(usize::from(*len)..).ok_or(PacketError::Attribute)?;
        }
        rest.is_empty().then_some(packet).ok_or(PacketError::Attribute)
    }

    /// The length that the header at the front of `octets` announces, once it is there and allowed.
    pub fn announced_len(octets: &[u8]) -> Option<usize> {
        let [_, _, high, low, ..] = octets else { return None };
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        (HEADER_LEN..=PACKET_LEN_MAX).contains(&len).then_some(len)
    }

    /// Its code.
    pub fn code(self) -> u8 {
        self.0[0]
    }

    /// Its identifier.
    pub fn id(self) -> u8 {
        self.0[1]
    }

    /// Its authenticator.
    pub fn authenticator(self) -> [u8; 16] {
        let mut authenticator = [0; 16];
        authenticator.copy_from_slice(&self.0[AUTHENTICATOR]);
        authenticator
    }

    /// The whole packet, without padding.
    pub fn octets(self) -> &'a [u8] {
        self.0
    }

    /// Its attributes in their order.
    pub fn attributes(self) -> impl Iterator<Item = Attribute<'a>> {
        let mut at = HEADER_LEN;
        std::iter::from_fn(move || {
            let &[kind, len, ..] = self.0.get(at..)? else { return None };
            let value = self.0.get(at + 2..at + usize::from(len))?;
            let attribute = Attribute { kind, value, at: at + 2 };
            at += usize::from(len);
            Some(attribute)
        })
    }

    /// The value of the first attribute of `kind`.
    pub fn value(self, kind: u8) -> Option<&'a [u8]> {
        self.attributes().find(|attribute| attribute.kind == kind).map(|attribute| attribute.value)
    }

    /// All values of `kind`.
    pub fn values(self, kind: u8) -> impl Iterator<Item = &'a [u8]> {
        self.attributes().filter(move |attribute| attribute.kind == kind).map(|attribute| attribute.value)
    }

    /// The first attribute of `kind` as a number of 32 bits; `None` when it is not one.
    pub fn number(self, kind: u8) -> Option<u32> {
        self.value(kind).and_then(|value| value.try_into().ok()).map(u32::from_be_bytes)
    }

    /// The EAP packet that its EAP-Message attributes hold together (RFC 3579 §3.1), none when there are none.
    pub fn eap(self) -> Option<Vec<u8>> {
        let eap = self.values(kind::EAP_MESSAGE).collect::<Vec<_>>().concat();
        (!eap.is_empty()).then_some(eap)
    }

    /// Values of `vendor`'s attribute `kind`, wherever they stand (RFC 2865 §5.26). Vendor-Specific attributes that
    /// do not have the form that RFC recommends are passed over.
    pub fn vendor_values(self, vendor: u32, kind: u8) -> impl Iterator<Item = &'a [u8]> {
        let ours = move |value: &'a [u8]| {
            let (id, inner) = value.split_first_chunk::<4>()?;
            (u32::from_be_bytes(*id) == vendor).then_some(inner)
        };
        self.values(kind::VENDOR_SPECIFIC).filter_map(ours).flat_map(move |mut inner| {
            std::iter::from_fn(move || {
                let &[kind, len, ..] = inner else { return None };
                let value = inner.get(2..usize::from(len))?;
                inner = inner.get(usize::from(len)..)?;
                Some((kind, value))
            })
            .filter_map(move |(of, value)| (of == kind).then_some(value))
        })
    }
}

/// Attributes of a packet that is being made.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// Room for attributes: a packet has a header, and mostly a Message-Authenticator.
    const LEN_MAX: usize = PACKET_LEN_MAX - HEADER_LEN - 18;

    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Their octets.
    pub fn octets(&self) -> &[u8] {
        &self.0
    }

    /// Adds one.
    ///
    /// # Errors
    /// When its value or the packet is too long.
    pub fn push(&mut self, kind: u8, value: &[u8]) -> Result<(), PacketError> {
        if value.len() > VALUE_LEN_MAX || self.0.len() + 2 + value.len() > Self::LEN_MAX {
            return Err(PacketError::TooLong);
        }
        self.0.extend([kind, value.len() as u8 + 2]);
        self.0.extend(value);
        Ok(())
    }

    /// Adds all of `others`.
    ///
    /// # Errors
    /// When the packet is too long.
    pub fn append(&mut self, others: &Self) -> Result<(), PacketError> {
        if self.0.len() + others.0.len() > Self::LEN_MAX {
            return Err(PacketError::TooLong);
        }
        self.0.extend(&others.0);
        Ok(())
    }

    /// Adds a number of 32 bits.
    ///
    /// # Errors
    /// When the packet is too long.
    pub fn push_number(&mut self, kind: u8, number: u32) -> Result<(), PacketError> {
        self.push(kind, &number.to_be_bytes())
    }

    /// Adds an attribute of a vendor.
    ///
    /// # Errors
    /// When its value or the packet is too long.
    pub fn push_vendor(&mut self, vendor: u32, kind: u8, value: &[u8]) -> Result<(), PacketError> {
        let len = u8::try_from(value.len() + 2).map_err(|_| PacketError::TooLong)?;
        let inner = [&vendor.to_be_bytes()[..], &[kind, len], value].concat();
        self.push(kind::VENDOR_SPECIFIC, &inner)
    }

    /// Adds an EAP packet in as many attributes as it takes, one behind the other (RFC 3579 §3.1).
    ///
    /// # Errors
    /// When it, or the packet, is too long.
    pub fn push_eap(&mut self, eap: &[u8]) -> Result<(), PacketError> {
        if eap.len() > EAP_LEN_MAX {
            return Err(PacketError::TooLong);
        }
        eap.chunks(VALUE_LEN_MAX).try_for_each(|piece| self.push(kind::EAP_MESSAGE, piece))
    }
}

/// Runs everything that reads a packet over arbitrary octets: the entry of the fuzz target and of the replay of its
/// corpus.
///
/// # Panics
/// When a packet does not survive being taken apart and put together.
pub fn fuzz(octets: &[u8]) {
    let Ok(packet) = Packet::parse(octets) else { return };
    let mut again = Attributes::new();
    for attribute in packet.attributes() {
        assert_eq!(octets.get(attribute.at..attribute.at + attribute.value.len()), Some(attribute.value));
        if again.push(attribute.kind, attribute.value).is_err() {
            break;
        }
    }
    assert!(packet.octets()[HEADER_LEN..].starts_with(again.octets()));
    super::answer::fuzz(packet);
    super::dynamic::fuzz(packet);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(attributes: &[u8]) -> Vec<u8> {
        let len = (HEADER_LEN + attributes.len()) as u16;
        [&[2, 7][..], &len.to_be_bytes(), &[0xaa; 16], attributes].concat()
    }

    #[test]
    fn r2865_3_padding_is_ignored_and_a_short_packet_refused() {
        let mut octets = packet(&[1, 4, b'a', b'b']);
        octets.extend([0; 9]);
        let parsed = Packet::parse(&octets).expect("a packet");
        assert_eq!((parsed.code(), parsed.id(), parsed.octets().len()), (2, 7, 24));
        assert_eq!(parsed.authenticator(), [0xaa; 16]);
        assert_eq!(parsed.value(kind::USER_NAME), Some(&b"ab"[..]));
        assert_eq!(Packet::parse(&octets[..23]), Err(PacketError::Length));
        assert_eq!(Packet::parse(&[]), Err(PacketError::Length));
        for len in [0_u16, 19, 4097] {
            octets[2..4].copy_from_slice(&len.to_be_bytes());
            assert_eq!(Packet::parse(&octets), Err(PacketError::Length), "{len}");
        }
    }

    #[test]
    fn r2865_5_attributes_stay_inside_the_packet() {
        for bad in [&[1][..], &[1, 0], &[1, 1], &[1, 3], &[1, 2, 9], &[1, 3, 0, 255, 4, 1]] {
            assert_eq!(Packet::parse(&packet(bad)), Err(PacketError::Attribute), "{bad:?}");
        }
        assert!(Packet::parse(&packet(&[1, 2])).is_ok());
    }

    #[test]
    fn r2865_5_26_attributes_of_a_vendor_are_found_and_odd_ones_passed_over() {
        let mut attributes = Attributes::new();
        attributes.push(kind::VENDOR_SPECIFIC, &[0, 0, 1]).expect("room");
        attributes.push(kind::VENDOR_SPECIFIC, &[0, 0, 1, 55, 16, 9, 1]).expect("room");
        attributes.push(kind::VENDOR_SPECIFIC, &[0, 0, 1, 55, 17, 3, 1, 16, 3, 2]).expect("room");
        attributes.push_vendor(VENDOR_3GPP, 16, b"other").expect("room");
        attributes.push_vendor(VENDOR_MICROSOFT, 16, b"ours").expect("room");
        let octets = packet(attributes.octets());
        let packet = Packet::parse(&octets).expect("a packet");
        let found: Vec<_> = packet.vendor_values(VENDOR_MICROSOFT, 16).collect();
        assert_eq!(found, [&[2][..], b"ours"]);
    }

    #[test]
    fn r3579_3_1_an_eap_packet_is_cut_and_joined() {
        for len in [1, 253, 254, 1500, EAP_LEN_MAX] {
            let eap: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let mut attributes = Attributes::new();
            attributes.push_eap(&eap).expect("room");
            let octets = packet(attributes.octets());
            let parsed = Packet::parse(&octets).expect("a packet");
            assert_eq!(parsed.values(kind::EAP_MESSAGE).count(), len.div_ceil(VALUE_LEN_MAX));
            assert_eq!(parsed.eap(), Some(eap));
        }
        assert_eq!(Attributes::new().push_eap(&[0; EAP_LEN_MAX + 1]), Err(PacketError::TooLong));
        assert_eq!(Packet::parse(&packet(&[])).expect("a packet").eap(), None);
    }

    proptest! {
        #[test]
        fn any_octets_are_read_without_harm(octets in prop::collection::vec(any::<u8>(), 0..600)) {
            fuzz(&octets);
        }

        #[test]
        fn any_attributes_are_read_as_written(
            written in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..=253)), 0..12)
        ) {
            let mut attributes = Attributes::new();
            for (kind, value) in &written {
                attributes.push(*kind, value).expect("room");
            }
            let octets = packet(attributes.octets());
            fuzz(&octets);
            let read: Vec<_> =
                Packet::parse(&octets).expect("a packet").attributes().map(|a| (a.kind, a.value.to_vec())).collect();
            prop_assert_eq!(read, written);
        }
    }
}
