//! Data of REDIRECT and REDIRECTED_FROM (RFC 5685 §6, §7): identity type (u8), its length (u8), the identity, and in
//! a REDIRECT of IKE_SA_INIT the nonce of the request it answers.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::ike::error::DecodeError;
use crate::ike::reader::Reader;

/// Identity types (RFC 5685 §9).
const IPV4: u8 = 1;
const IPV6: u8 = 2;
const FQDN: u8 = 3;

/// A gateway as another one or a peer names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GatewayId<'a> {
    /// By its address, IPv4 or IPv6.
    Address(IpAddr),
    /// By its name: 1 to 255 octets of text; no terminator.
    Fqdn(&'a str),
}

impl GatewayId<'_> {
    /// Appends type, length and identity. Of a longer name than 255 octets, none of which is ever decoded, the rest
    /// is left out.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut put = |kind: u8, octets: &[u8]| {
            let len = u8::try_from(octets.len()).unwrap_or(u8::MAX);
            out.extend_from_slice(&[kind, len]);
            out.extend(octets.iter().take(usize::from(len)));
        };
        match self {
            Self::Address(IpAddr::V4(addr)) => put(IPV4, &addr.octets()),
            Self::Address(IpAddr::V6(addr)) => put(IPV6, &addr.octets()),
            Self::Fqdn(name) => put(FQDN, name.as_bytes()),
        }
    }
}

impl fmt::Display for GatewayId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(addr) => write!(f, "{addr}"),
            Self::Fqdn(name) => f.write_str(name),
        }
    }
}

/// Data of REDIRECT; that of REDIRECTED_FROM has no nonce.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RedirectView<'a> {
    /// Where to go, or where the peer comes from.
    pub gateway: GatewayId<'a>,
    /// Ni in an IKE_SA_INIT response, else empty.
    pub nonce: &'a [u8],
}

impl<'a> RedirectView<'a> {
    /// Decodes the notification's data.
    ///
    /// # Errors
    /// Data that ends early, an address of another length than its type has, a name that is empty or not UTF-8, or a
    /// type that is not known.
    pub fn decode(data: &'a [u8]) -> Result<Self, DecodeError> {
        const FIELD: &str = "gateway identity";
        let mut reader = Reader::new(data);
        let kind = reader.u8("gateway identity type")?;
        let len = reader.u8("gateway identity length")?;
        let octets = reader.take(usize::from(len), FIELD)?;
        let bad = DecodeError::BadValue { field: FIELD, value: kind.into() };
        let gateway = match kind {
            IPV4 => <[u8; 4]>::try_from(octets).map(|v4| GatewayId::Address(Ipv4Addr::from(v4).into())),
            IPV6 => <[u8; 16]>::try_from(octets).map(|v6| GatewayId::Address(Ipv6Addr::from(v6).into())),
            FQDN if !octets.is_empty() => {
                return match std::str::from_utf8(octets) {
                    Ok(name) => Ok(Self { gateway: GatewayId::Fqdn(name), nonce: reader.rest() }),
                    Err(_) => Err(bad),
                };
            }
            _ => return Err(bad),
        };
        gateway.map(|gateway| Self { gateway, nonce: reader.rest() }).map_err(|_| bad)
    }

    /// The notification's data.
    pub fn to_data(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + self.nonce.len());
        self.gateway.encode(&mut out);
        out.extend_from_slice(self.nonce);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r5685_6_identities_survive_encode_and_decode() {
        let v4: IpAddr = "192.0.2.1".parse().expect("an address");
        let v6: IpAddr = "2001:db8::1".parse().expect("an address");
        for (gateway, head) in [
            (GatewayId::Address(v4), [1, 4]),
            (GatewayId::Address(v6), [2, 16]),
            (GatewayId::Fqdn("gw2.example"), [3, 11]),
        ] {
            let view = RedirectView { gateway, nonce: b"0123456789abcdef" };
            let data = view.to_data();
            assert_eq!(data[..2], head);
            assert_eq!(RedirectView::decode(&data), Ok(view));
            for len in 0..2 + usize::from(head[1]) {
                assert!(RedirectView::decode(&data[..len]).is_err(), "{gateway} {len}");
            }
        }
    }

    #[test]
    fn r5685_6_odd_identities_are_refused() {
        for data in [&[1, 5, 1, 2, 3, 4, 5][..], &[2, 4, 1, 2, 3, 4], &[3, 0], &[3, 1, 0xff], &[4, 1, 1], &[]]
        {
            assert!(RedirectView::decode(data).is_err(), "{data:?}");
        }
    }
}
