//! Traffic Selector payloads (RFC 7296 §3.13).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::ike::error::DecodeError;
use crate::ike::reader::Reader;
use crate::ike::registry::TsType;

/// Octets of a selector before its addresses.
const SELECTOR_HEADER_LEN: usize = 8;

/// Traffic of one protocol, range of ports and range of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TrafficSelector {
    /// IP protocol number; 0 is any.
    pub protocol: u8,
    /// First and last port, inclusive. (0, 65535) is any, (65535, 0) is OPAQUE; for ICMP they are type
    /// and code in the high and low octet.
    pub ports: (u16, u16),
    /// First address, inclusive; of the same family as `last`.
    pub first: IpAddr,
    /// Last address, inclusive.
    pub last: IpAddr,
}

impl TrafficSelector {
    /// All IPv4 traffic.
    pub const ANY_IPV4: Self = Self {
        protocol: 0,
        ports: (0, u16::MAX),
        first: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        last: IpAddr::V4(Ipv4Addr::BROADCAST),
    };

    /// All IPv6 traffic.
    pub const ANY_IPV6: Self = Self {
        protocol: 0,
        ports: (0, u16::MAX),
        first: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        last: IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)),
    };

    fn encode(&self, out: &mut Vec<u8>) {
        let (kind, length) = match self.first {
            IpAddr::V4(_) => (TsType::IPV4_ADDR_RANGE, 16u16),
            IpAddr::V6(_) => (TsType::IPV6_ADDR_RANGE, 40),
        };
        out.extend_from_slice(&[kind.0, self.protocol]);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&self.ports.0.to_be_bytes());
        out.extend_from_slice(&self.ports.1.to_be_bytes());
        for address in [self.first, self.last] {
            match address {
                IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
                IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
            }
        }
    }
}

/// Selectors of one end: count (u8), reserved (3 octets), then selectors of 16 or 40 octets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TsView<'a> {
    selectors: &'a [u8],
}

impl<'a> TsView<'a> {
    /// Decodes the payload's body and walks its selectors once.
    ///
    /// # Errors
    /// No selector at all, a selector that does not fit, a known one of the wrong length, or a count that
    /// is not theirs.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let count = reader.u8("TS count")?;
        reader.take(3, "TS reserved")?;
        let selectors = reader.rest();
        // A payload without selectors would ask for an SA that carries nothing.
        if count == 0 {
            return Err(DecodeError::BadValue { field: "TS count", value: 0 });
        }
        for _ in 0..count {
            selector(&mut reader)?;
        }
        reader.finish("TS octets after the last selector")?;
        Ok(Self { selectors })
    }

    /// The selectors in the order sent; those of a type not known here are left out (RFC 7296 §3.13).
    pub fn selectors(&self) -> impl Iterator<Item = TrafficSelector> + use<'a> {
        let mut reader = Reader::new(self.selectors);
        std::iter::from_fn(move || if reader.is_empty() { None } else { selector(&mut reader).ok() })
            .flatten()
    }

    /// Appends the body of a payload with `selectors`, at most 255 of them.
    pub fn encode(selectors: &[TrafficSelector], out: &mut Vec<u8>) {
        let count = u8::try_from(selectors.len()).unwrap_or(u8::MAX);
        out.extend_from_slice(&[count, 0, 0, 0]);
        for selector in selectors.iter().take(usize::from(count)) {
            selector.encode(out);
        }
    }
}

/// Reads one selector; `None` when its type is not known here.
fn selector(reader: &mut Reader<'_>) -> Result<Option<TrafficSelector>, DecodeError> {
    let kind = TsType(reader.u8("TS type")?);
    let protocol = reader.u8("TS protocol")?;
    let length = reader.u16("TS selector length")?;
    let ports = (reader.u16("TS start port")?, reader.u16("TS end port")?);
    let mut addresses = Reader::new(reader.body(length, SELECTOR_HEADER_LEN, "TS selector length")?);
    let (first, last) = match kind {
        TsType::IPV4_ADDR_RANGE => (
            IpAddr::from(addresses.array::<4>("TS start address")?),
            IpAddr::from(addresses.array::<4>("TS end address")?),
        ),
        TsType::IPV6_ADDR_RANGE => (
            IpAddr::from(addresses.array::<16>("TS start address")?),
            IpAddr::from(addresses.array::<16>("TS end address")?),
        ),
        _ => return Ok(None),
    };
    addresses.finish("TS selector length")?;
    Ok(Some(TrafficSelector { protocol, ports, first, last }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r7296_3_13_selectors_survive_encode_and_decode() {
        let sent = [
            TrafficSelector::ANY_IPV4,
            TrafficSelector::ANY_IPV6,
            TrafficSelector { protocol: 17, ports: (65535, 0), ..TrafficSelector::ANY_IPV4 },
        ];
        let mut out = Vec::new();
        TsView::encode(&sent, &mut out);
        assert_eq!(TsView::decode(&out).expect("our own").selectors().collect::<Vec<_>>(), sent);
        for len in 0..out.len() {
            assert!(TsView::decode(&out[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn r7296_3_13_unknown_selector_types_are_left_out() {
        let mut out = Vec::new();
        TsView::encode(&[TrafficSelector::ANY_IPV4; 2], &mut out);
        out[4] = 9;
        assert_eq!(TsView::decode(&out).expect("skipped").selectors().count(), 1);
    }

    #[test]
    fn r7296_3_13_counts_and_lengths_are_checked() {
        let mut out = Vec::new();
        TsView::encode(&[TrafficSelector::ANY_IPV4], &mut out);
        for (at, value) in [(0, 0), (0, 2), (7, 15), (7, 17), (7, 7), (4, 8)] {
            let mut bad = out.clone();
            bad[at] = value;
            assert!(TsView::decode(&bad).is_err(), "octet {at} = {value}");
        }
    }
}
