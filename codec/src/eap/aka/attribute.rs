//! Attributes of RFC 4187 §10 and RFC 9048 §3, §4.

use super::{IdentityRequest, Notification};
use crate::ike::DecodeError;
use crate::ike::reader::Reader;

/// Numbers of the attributes.
pub(super) mod number {
    pub(in super::super) const RAND: u8 = 1;
    pub(in super::super) const AUTN: u8 = 2;
    pub(in super::super) const RES: u8 = 3;
    pub(in super::super) const AUTS: u8 = 4;
    pub(in super::super) const PADDING: u8 = 6;
    pub(in super::super) const PERMANENT_ID_REQ: u8 = 10;
    pub(in super::super) const MAC: u8 = 11;
    pub(in super::super) const NOTIFICATION: u8 = 12;
    pub(in super::super) const ANY_ID_REQ: u8 = 13;
    pub(in super::super) const IDENTITY: u8 = 14;
    pub(in super::super) const FULLAUTH_ID_REQ: u8 = 17;
    pub(in super::super) const COUNTER: u8 = 19;
    pub(in super::super) const COUNTER_TOO_SMALL: u8 = 20;
    pub(in super::super) const NONCE_S: u8 = 21;
    pub(in super::super) const CLIENT_ERROR_CODE: u8 = 22;
    pub(in super::super) const KDF_INPUT: u8 = 23;
    pub(in super::super) const KDF: u8 = 24;
    pub(in super::super) const IV: u8 = 129;
    pub(in super::super) const ENCR_DATA: u8 = 130;
    pub(in super::super) const NEXT_PSEUDONYM: u8 = 132;
    pub(in super::super) const NEXT_REAUTH_ID: u8 = 133;
    pub(in super::super) const CHECKCODE: u8 = 134;
    pub(in super::super) const RESULT_IND: u8 = 135;
    pub(in super::super) const BIDDING: u8 = 136;
}

/// Attributes from this number on may be ignored by who does not know them (RFC 4187 §8.1).
const SKIPPABLE_FROM: u8 = 128;

/// Most AT_KDF attributes of one message.
pub const KDFS_MAX: usize = 8;

/// Octets of a response, by RFC 4187 §10.8: 32 to 128 bits.
const RES_LEN: std::ops::RangeInclusive<usize> = 4..=16;

/// Octets of a MAC and of an initialisation vector.
pub(super) const MAC_LEN: usize = 16;

/// What stands in AT_CHECKCODE (RFC 4187 §10.13).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checkcode<'a> {
    /// There was no identity round.
    Empty,
    /// Hash over the packets of the identity round: 20 octets in EAP-AKA, 32 in EAP-AKA'.
    Hash(&'a [u8]),
}

/// What a message says: one field per attribute, absent when it was not there.
#[derive(Clone, Default)]
pub struct Attributes<'a> {
    /// AT_RAND.
    pub rand: Option<&'a [u8; 16]>,
    /// AT_AUTN.
    pub autn: Option<&'a [u8; 16]>,
    /// AT_RES, 4 to 16 octets.
    pub res: Option<&'a [u8]>,
    /// AT_AUTS.
    pub auts: Option<&'a [u8; 14]>,
    /// AT_ANY_ID_REQ, AT_FULLAUTH_ID_REQ or AT_PERMANENT_ID_REQ.
    pub identity_request: Option<IdentityRequest>,
    /// AT_IDENTITY.
    pub identity: Option<&'a [u8]>,
    /// AT_NOTIFICATION.
    pub notification: Option<Notification>,
    /// AT_CLIENT_ERROR_CODE.
    pub client_error: Option<u16>,
    /// AT_COUNTER.
    pub counter: Option<u16>,
    /// AT_COUNTER_TOO_SMALL.
    pub counter_too_small: bool,
    /// AT_NONCE_S.
    pub nonce_s: Option<&'a [u8; 16]>,
    /// AT_NEXT_PSEUDONYM: a user name.
    pub next_pseudonym: Option<&'a [u8]>,
    /// AT_NEXT_REAUTH_ID: a user name, maybe with a realm.
    pub next_reauth_id: Option<&'a [u8]>,
    /// AT_CHECKCODE.
    pub checkcode: Option<Checkcode<'a>>,
    /// AT_RESULT_IND.
    pub result_ind: bool,
    /// AT_KDF, in the order sent.
    pub kdfs: Vec<u16>,
    /// AT_KDF_INPUT: the network name.
    pub kdf_input: Option<&'a [u8]>,
    /// AT_BIDDING: whether the server would rather have done EAP-AKA' (RFC 9048 §4, the D bit).
    pub bidding: Option<bool>,
    /// AT_IV.
    pub(super) iv: Option<&'a [u8; 16]>,
    /// AT_ENCR_DATA.
    pub(super) encrypted: Option<&'a [u8]>,
    /// AT_MAC: octets of the attributes before the MAC itself.
    pub(super) mac_at: Option<usize>,
    /// Types seen, one bit each.
    seen: [u128; 2],
}

impl<'a> Attributes<'a> {
    /// Decodes a list of attributes, whole.
    ///
    /// # Errors
    /// One that does not fit, has an impossible length or comes twice (AT_KDF may), and one that is unknown and may not be
    /// skipped.
    ///
    /// Source: RFC 4187 §8.1.
    pub fn decode(octets: &'a [u8]) -> Result<Self, DecodeError> {
        let mut attributes = Self::default();
        let mut reader = Reader::new(octets);
        while !reader.is_empty() {
            let at = octets.len() - reader.rest().len();
            let kind = reader.u8("EAP-AKA attribute type")?;
            let words = reader.u8("EAP-AKA attribute length")?;
            let body = reader.body(u16::from(words) * 4, 2, "EAP-AKA attribute length")?;
            attributes.note(kind)?;
            attributes.take(kind, body, at)?;
        }
        Ok(attributes)
    }

    /// Refuses what may come only once.
    fn note(&mut self, kind: u8) -> Result<(), DecodeError> {
        let (word, bit) = (usize::from(kind >> 7), 1u128 << (kind & 0x7f));
        let repeated = self.seen[word] & bit != 0;
        self.seen[word] |= bit;
        if repeated && kind != number::KDF && kind < SKIPPABLE_FROM {
            return Err(DecodeError::TooMany { field: "EAP-AKA attribute", limit: 1 });
        }
        Ok(())
    }

    /// Takes the attribute whose value with its two octets of length or reserved is `body`.
    fn take(&mut self, kind: u8, body: &'a [u8], at: usize) -> Result<(), DecodeError> {
        match kind {
            number::RAND => self.rand = Some(after_reserved(body, "AT_RAND")?),
            number::AUTN => self.autn = Some(after_reserved(body, "AT_AUTN")?),
            number::RES => self.res = Some(response(body)?),
            number::AUTS => self.auts = Some(exact(body, "AT_AUTS")?),
            number::PADDING => {
                let possible = matches!(body.len(), 2 | 6 | 10) && body.iter().all(|octet| *octet == 0);
                if !possible {
                    return Err(DecodeError::BadLength { field: "AT_PADDING", length: body.len() });
                }
            }
            number::PERMANENT_ID_REQ => self.want(IdentityRequest::Permanent, body)?,
            number::ANY_ID_REQ => self.want(IdentityRequest::Any, body)?,
            number::FULLAUTH_ID_REQ => self.want(IdentityRequest::FullAuth, body)?,
            number::MAC => {
                after_reserved::<MAC_LEN>(body, "AT_MAC")?;
                self.mac_at = Some(at + 4);
            }
            number::NOTIFICATION => self.notification = Some(Notification(value(body, "AT_NOTIFICATION")?)),
            number::IDENTITY => self.identity = Some(counted(body, "AT_IDENTITY")?),
            number::COUNTER => self.counter = Some(value(body, "AT_COUNTER")?),
            number::COUNTER_TOO_SMALL => {
                value(body, "AT_COUNTER_TOO_SMALL")?;
                self.counter_too_small = true;
            }
            number::NONCE_S => self.nonce_s = Some(after_reserved(body, "AT_NONCE_S")?),
            number::CLIENT_ERROR_CODE => self.client_error = Some(value(body, "AT_CLIENT_ERROR_CODE")?),
            number::KDF_INPUT => self.kdf_input = Some(counted(body, "AT_KDF_INPUT")?),
            number::KDF if self.kdfs.len() == KDFS_MAX => {
                return Err(DecodeError::TooMany { field: "AT_KDF", limit: KDFS_MAX });
            }
            number::KDF => self.kdfs.push(value(body, "AT_KDF")?),
            number::IV => self.iv = Some(after_reserved(body, "AT_IV")?),
            number::ENCR_DATA => self.encrypted = body.get(2..),
            number::NEXT_PSEUDONYM => self.next_pseudonym = Some(counted(body, "AT_NEXT_PSEUDONYM")?),
            number::NEXT_REAUTH_ID => self.next_reauth_id = Some(counted(body, "AT_NEXT_REAUTH_ID")?),
            number::CHECKCODE => self.checkcode = Some(checkcode(body)?),
            number::RESULT_IND => {
                value(body, "AT_RESULT_IND")?;
                self.result_ind = true;
            }
            number::BIDDING => self.bidding = Some(value(body, "AT_BIDDING")? & 0x8000 != 0),
            SKIPPABLE_FROM.. => {}
            other => {
                return Err(DecodeError::BadValue {
                    field: "EAP-AKA attribute type",
                    value: u32::from(other),
                });
            }
        }
        Ok(())
    }

    /// RFC 4187 §4.1: a server asks for one kind of identity at a time.
    fn want(&mut self, request: IdentityRequest, body: &[u8]) -> Result<(), DecodeError> {
        value(body, "identity request")?;
        match self.identity_request.replace(request) {
            None => Ok(()),
            Some(_) => Err(DecodeError::TooMany { field: "identity request", limit: 1 }),
        }
    }
}

/// Two reserved octets, then exactly `N`.
fn after_reserved<'a, const N: usize>(
    body: &'a [u8],
    field: &'static str,
) -> Result<&'a [u8; N], DecodeError> {
    exact(body.get(2..).unwrap_or_default(), field)
}

fn exact<'a, const N: usize>(body: &'a [u8], field: &'static str) -> Result<&'a [u8; N], DecodeError> {
    body.try_into().map_err(|_| DecodeError::BadLength { field, length: body.len() })
}

/// Two octets that are the whole value.
fn value(body: &[u8], field: &'static str) -> Result<u16, DecodeError> {
    exact::<2>(body, field).map(|octets| u16::from_be_bytes(*octets))
}

/// The actual length in octets (u16), then so many, then fill up to a multiple of four.
fn counted<'a>(body: &'a [u8], field: &'static str) -> Result<&'a [u8], DecodeError> {
    let mut reader = Reader::new(body);
    let length = usize::from(reader.u16(field)?);
    let value = reader.take(length, field)?;
    // More than three octets of fill: the length would be a lie.
    if reader.rest().len() > 3 {
        return Err(DecodeError::BadLength { field, length });
    }
    Ok(value)
}

/// The actual length in bits (u16), then the response.
fn response(body: &[u8]) -> Result<&[u8], DecodeError> {
    let mut reader = Reader::new(body);
    let bits = usize::from(reader.u16("AT_RES")?);
    let octets = reader.take(bits.div_ceil(8), "AT_RES")?;
    if !RES_LEN.contains(&octets.len()) || !bits.is_multiple_of(8) || reader.rest().len() > 3 {
        return Err(DecodeError::BadLength { field: "AT_RES", length: bits });
    }
    Ok(octets)
}

fn checkcode(body: &[u8]) -> Result<Checkcode<'_>, DecodeError> {
    match body.get(2..).unwrap_or_default() {
        [] => Ok(Checkcode::Empty),
        hash if matches!(hash.len(), 20 | 32) => Ok(Checkcode::Hash(hash)),
        other => Err(DecodeError::BadLength { field: "AT_CHECKCODE", length: other.len() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut octets = vec![kind, ((body.len() + 2) / 4) as u8];
        octets.extend_from_slice(body);
        octets
    }

    #[test]
    fn r4187_8_1_unknown_attributes_are_skipped_only_where_they_may_be() {
        assert!(Attributes::decode(&attribute(200, &[0; 6])).is_ok());
        for unknown in [5, 7, 16, 18, 25, 127] {
            assert!(Attributes::decode(&attribute(unknown, &[0; 6])).is_err(), "{unknown}");
        }
    }

    #[test]
    fn r4187_8_1_lengths_are_those_of_the_attribute() {
        for (kind, right) in
            [(number::RAND, 18), (number::AUTS, 14), (number::NOTIFICATION, 2), (number::MAC, 18)]
        {
            assert!(Attributes::decode(&attribute(kind, &vec![0; right])).is_ok(), "{kind}");
            assert!(Attributes::decode(&attribute(kind, &vec![0; right + 4])).is_err(), "{kind}");
        }
        assert!(Attributes::decode(&[1, 0]).is_err(), "a length of zero would never end");
        assert!(Attributes::decode(&[1]).is_err());
        assert!(Attributes::decode(&[1, 5, 0, 0]).is_err());
    }

    #[test]
    fn what_comes_twice_is_refused_but_for_kdfs() {
        let twice =
            [attribute(number::NOTIFICATION, &[0, 0]), attribute(number::NOTIFICATION, &[0, 1])].concat();
        assert!(Attributes::decode(&twice).is_err());
        let both =
            [attribute(number::ANY_ID_REQ, &[0, 0]), attribute(number::FULLAUTH_ID_REQ, &[0, 0])].concat();
        assert!(Attributes::decode(&both).is_err(), "one kind of identity at a time");
        let kdfs = attribute(number::KDF, &[0, 1]).repeat(KDFS_MAX);
        assert_eq!(Attributes::decode(&kdfs).expect("as many as may be").kdfs, [1; KDFS_MAX]);
        assert!(Attributes::decode(&attribute(number::KDF, &[0, 1]).repeat(KDFS_MAX + 1)).is_err());
    }

    #[test]
    fn r4187_10_8_a_response_has_32_to_128_bits() {
        let res = |bits: u16, octets: usize| {
            let mut body = bits.to_be_bytes().to_vec();
            body.resize(2 + octets, 9);
            Attributes::decode(&attribute(number::RES, &body)).map(|it| it.res.map(<[u8]>::len))
        };
        assert_eq!(res(64, 8), Ok(Some(8)));
        assert_eq!(res(40, 8), Ok(Some(5)));
        for (bits, octets) in [(24, 4), (136, 20), (64, 16), (72, 8), (0, 0), (33, 8)] {
            assert!(res(bits, octets).is_err(), "{bits} bits in {octets} octets");
        }
    }

    #[test]
    fn r4187_10_6_an_identity_has_the_length_it_says() {
        let body = [&[0, 5][..], b"05550", &[0; 3]].concat();
        let octets = attribute(number::IDENTITY, &body);
        assert_eq!(Attributes::decode(&octets).expect("sound").identity, Some(&b"05550"[..]));
        let body = [&[0, 9][..], b"05550", &[0; 3]].concat();
        assert!(Attributes::decode(&attribute(number::IDENTITY, &body)).is_err());
    }
}
