//! The EAP packet (RFC 3748 §4).

use crate::ike::DecodeError;
use crate::ike::reader::Reader;

/// Octets before the data of a request or response: code, identifier, length.
pub const HEADER_LEN: usize = 4;

/// Longest packet that is decoded. EAP-AKA needs a few hundred octets; EAP-TLS fragments to about 1,400.
pub const PACKET_LEN_MAX: usize = 8192;

/// What a packet is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Code {
    /// From the authenticator; wants a response.
    Request,
    /// From the peer.
    Response,
    /// The authenticator is content. Nothing protects it.
    Success,
    /// The authenticator gives up. Nothing protects it.
    Failure,
}

impl Code {
    fn of(octet: u8) -> Option<Self> {
        Some(match octet {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Success,
            4 => Self::Failure,
            _ => return None,
        })
    }

    fn octet(self) -> u8 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Success => 3,
            Self::Failure => 4,
        }
    }
}

/// Type of a request or response: what its data means.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Method(pub u8);

impl Method {
    /// Who the peer says it is (RFC 3748 §5.1).
    pub const IDENTITY: Self = Self(1);
    /// A displayable message (§5.2).
    pub const NOTIFICATION: Self = Self(2);
    /// The peer refuses the type and names others (§5.3.1).
    pub const NAK: Self = Self(3);
    /// EAP-TLS (RFC 5216).
    pub const TLS: Self = Self(13);
    /// EAP-AKA (RFC 4187).
    pub const AKA: Self = Self(23);
    /// EAP-MSCHAPv2.
    pub const MSCHAPV2: Self = Self(26);
    /// EAP-AKA' (RFC 9048).
    pub const AKA_PRIME: Self = Self(50);
    /// Types of vendors (RFC 3748 §5.7).
    pub const EXPANDED: Self = Self(254);
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::IDENTITY => f.write_str("Identity"),
            Self::NOTIFICATION => f.write_str("Notification"),
            Self::NAK => f.write_str("Nak"),
            Self::TLS => f.write_str("EAP-TLS"),
            Self::AKA => f.write_str("EAP-AKA"),
            Self::MSCHAPV2 => f.write_str("EAP-MSCHAPv2"),
            Self::AKA_PRIME => f.write_str("EAP-AKA'"),
            Self::EXPANDED => f.write_str("Expanded"),
            Self(other) => write!(f, "EAP type {other}"),
        }
    }
}

/// One packet: code (u8), identifier (u8), length (u16, counts everything), and in requests and responses a type (u8)
/// with its data.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct EapPacket<'a> {
    /// What it is for.
    pub code: Code,
    /// Ties a response to its request.
    pub identifier: u8,
    /// What `data` means; `None` in Success and Failure, which carry nothing.
    pub method: Option<Method>,
    /// Data of the type.
    pub data: &'a [u8],
    /// All octets, for MACs and checkcodes over them.
    pub octets: &'a [u8],
}

// The data may be an identity: it is not for logs.
impl std::fmt::Debug for EapPacket<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EapPacket")
            .field("code", &self.code)
            .field("identifier", &self.identifier)
            .field("method", &self.method)
            .field("len", &self.octets.len())
            .finish_non_exhaustive()
    }
}

impl<'a> EapPacket<'a> {
    /// Decodes a whole packet.
    ///
    /// # Errors
    /// A code that does not exist, a Length that is not that of `octets`, a request or response without a type, a
    /// Success or Failure with data.
    pub fn decode(octets: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(octets);
        let value = reader.u8("EAP code")?;
        let code =
            Code::of(value).ok_or(DecodeError::BadValue { field: "EAP code", value: u32::from(value) })?;
        let identifier = reader.u8("EAP identifier")?;
        let length = usize::from(reader.u16("EAP length")?);
        if length != octets.len() || length > PACKET_LEN_MAX {
            return Err(DecodeError::BadLength { field: "EAP length", length });
        }
        let method = match code {
            Code::Request | Code::Response => Some(Method(reader.u8("EAP type")?)),
            Code::Success | Code::Failure if reader.is_empty() => None,
            Code::Success | Code::Failure => {
                return Err(DecodeError::BadLength { field: "EAP length", length });
            }
        };
        Ok(Self { code, identifier, method, data: reader.rest(), octets })
    }

    /// Builds a request or response.
    ///
    /// # Panics
    /// If `data` does not fit [`PACKET_LEN_MAX`]: only the caller decides what it says.
    pub fn build(code: Code, identifier: u8, method: Method, data: &[u8]) -> Vec<u8> {
        let length = HEADER_LEN + 1 + data.len();
        assert!(length <= PACKET_LEN_MAX, "an EAP packet of our own outgrew its bound");
        let mut octets = Vec::with_capacity(length);
        octets.extend([code.octet(), identifier]);
        octets.extend((length as u16).to_be_bytes());
        octets.push(method.0);
        octets.extend_from_slice(data);
        octets
    }

    /// Builds a Success with the identifier of the response it follows (RFC 3748 §4.2).
    pub fn success(identifier: u8) -> Vec<u8> {
        vec![Code::Success.octet(), identifier, 0, HEADER_LEN as u8]
    }

    /// Builds a Failure with the identifier of the response it follows.
    pub fn failure(identifier: u8) -> Vec<u8> {
        vec![Code::Failure.octet(), identifier, 0, HEADER_LEN as u8]
    }

    /// Types that a Nak asks for instead; empty when the peer wants none, or this is no Nak.
    pub fn wanted(&self) -> impl Iterator<Item = Method> + use<'a> {
        let data = if self.method == Some(Method::NAK) { self.data } else { &[] };
        data.iter().filter(|octet| **octet != 0).map(|octet| Method(*octet))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r3748_4_packets_survive_build_and_decode() {
        let built = EapPacket::build(Code::Response, 7, Method::IDENTITY, b"0555@realm");
        let packet = EapPacket::decode(&built).expect("our own");
        assert_eq!((packet.code, packet.identifier), (Code::Response, 7));
        assert_eq!((packet.method, packet.data), (Some(Method::IDENTITY), &b"0555@realm"[..]));
        assert_eq!(EapPacket::decode(&EapPacket::success(9)).expect("our own").code, Code::Success);
        assert_eq!(EapPacket::failure(9), [4, 9, 0, 4]);
    }

    #[test]
    fn r3748_4_lengths_and_codes_are_checked() {
        for wrong in [
            &[][..],
            &[1, 1, 0, 4],
            &[1, 1, 0, 6, 1],
            &[1, 1, 0, 5, 1, 0],
            &[3, 1, 0, 5, 1],
            &[5, 1, 0, 5, 1],
            &[0, 1, 0, 5, 1],
        ] {
            assert!(EapPacket::decode(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn r3748_5_3_1_a_nak_names_types_or_none() {
        let nak = EapPacket::build(Code::Response, 1, Method::NAK, &[23, 50]);
        let wanted: Vec<_> = EapPacket::decode(&nak).expect("our own").wanted().collect();
        assert_eq!(wanted, [Method::AKA, Method::AKA_PRIME]);
        let none = EapPacket::build(Code::Response, 1, Method::NAK, &[0]);
        assert_eq!(EapPacket::decode(&none).expect("our own").wanted().count(), 0);
    }

    #[test]
    fn what_is_printed_holds_no_identity() {
        let built = EapPacket::build(Code::Response, 7, Method::IDENTITY, b"0555");
        let text = format!("{:?}", EapPacket::decode(&built).expect("our own"));
        assert!(text.contains("Method(1)") && !text.contains("53, 53"), "{text}");
    }
}
