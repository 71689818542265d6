//! Security Association payload (RFC 7296 §3.3): proposals, transforms, attributes.
//!
//! What an offer means, and which to take, is for [`crate::crypto::select_ike`] and
//! [`crate::crypto::select_esp`].

use crate::ike::error::DecodeError;
use crate::ike::reader::Reader;
use crate::ike::registry::{AttributeType, ProtocolId, TransformType};

/// Octets of a proposal before its SPI.
const PROPOSAL_HEADER_LEN: usize = 8;

/// Octets of a transform before its attributes.
const TRANSFORM_HEADER_LEN: usize = 8;

/// Format bit of an attribute: set when the value stands in place of the length.
const ATTRIBUTE_SHORT: u16 = 0x8000;

/// Most attributes of one transform; one is defined.
const ATTRIBUTES_MAX: usize = 16;

/// Most proposals of an offer. Real ones have up to ten.
const PROPOSALS_MAX: usize = 64;

/// Most transforms of an offer, over all its proposals; bounds what choosing from it costs before anyone is
/// authenticated. Real offers have up to a hundred.
const TRANSFORMS_MAX: usize = 1024;

/// Proposals in the sender's order of preference.
///
/// ```text
/// Proposal:  | 0 or 2 | reserved | Length (2) | Number | Protocol | SPI Size | Transforms | SPI ... transforms ...
/// Transform: | 0 or 3 | reserved | Length (2) | Type   | reserved | ID (2)   | attributes ...
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SaView<'a> {
    proposals: &'a [u8],
}

impl<'a> SaView<'a> {
    /// Decodes the payload's body and walks every proposal, transform and attribute once.
    ///
    /// # Errors
    /// No proposal at all, a structure that does not fit the one around it, a transform count that is not
    /// theirs, or more of them than any real offer has.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        if reader.is_empty() {
            return Err(DecodeError::BadLength { field: "SA proposals", length: 0 });
        }
        let (mut proposal_count, mut transform_count) = (0, 0);
        while let Some(proposal) = proposal(&mut reader)? {
            proposal.check()?;
            proposal_count += 1;
            transform_count += usize::from(proposal.transform_count);
            if proposal_count > PROPOSALS_MAX {
                return Err(DecodeError::TooMany { field: "SA proposals", limit: PROPOSALS_MAX });
            }
            if transform_count > TRANSFORMS_MAX {
                return Err(DecodeError::TooMany { field: "SA transforms", limit: TRANSFORMS_MAX });
            }
        }
        Ok(Self { proposals: body })
    }

    /// The proposals in the order sent.
    pub fn proposals(&self) -> impl Iterator<Item = ProposalView<'a>> + use<'a> {
        let mut reader = Reader::new(self.proposals);
        std::iter::from_fn(move || proposal(&mut reader).ok().flatten())
    }

    /// Whether the proposals are numbered 1, 2, 3 and so on, as an offer must be (RFC 7296 §3.3.1).
    pub fn is_numbered_as_offer(&self) -> bool {
        self.proposals().zip(1u32..).all(|(proposal, number)| u32::from(proposal.number) == number)
    }

    /// Whether this is an answer: one proposal with at most one transform of each type (RFC 7296 §2.7).
    pub fn is_answer(&self) -> bool {
        let mut proposals = self.proposals();
        let (Some(proposal), None) = (proposals.next(), proposals.next()) else {
            return false;
        };
        let kinds = |kind| proposal.transforms().filter(|transform| transform.kind == kind).count();
        proposal.transforms().all(|transform| kinds(transform.kind) == 1)
    }

    /// Appends the body of a payload with `proposals`.
    pub fn encode(proposals: &[Proposal<'_>], out: &mut Vec<u8>) {
        for (at, proposal) in proposals.iter().enumerate() {
            proposal.encode(at + 1 == proposals.len(), out);
        }
    }
}

/// One proposal: a protocol with its SPI, and transforms to take one of each type from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProposalView<'a> {
    /// Its number, which the answer repeats.
    pub number: u8,
    /// Protocol it is for.
    pub protocol: ProtocolId,
    /// SPI the sender chose: none or eight octets for IKE, four for ESP and AH.
    pub spi: &'a [u8],
    transform_count: u8,
    transforms: &'a [u8],
}

impl<'a> ProposalView<'a> {
    /// The transforms in the order sent.
    pub fn transforms(&self) -> impl Iterator<Item = TransformView<'a>> + use<'a> {
        let mut reader = Reader::new(self.transforms);
        std::iter::from_fn(move || transform(&mut reader).ok().flatten())
    }

    fn check(&self) -> Result<(), DecodeError> {
        let mut reader = Reader::new(self.transforms);
        let mut count = 0;
        while let Some(transform) = transform(&mut reader)? {
            transform.check()?;
            count += 1;
        }
        if count != u32::from(self.transform_count) {
            return Err(DecodeError::BadValue {
                field: "SA transform count",
                value: self.transform_count.into(),
            });
        }
        Ok(())
    }
}

fn proposal<'a>(reader: &mut Reader<'a>) -> Result<Option<ProposalView<'a>>, DecodeError> {
    if reader.is_empty() {
        return Ok(None);
    }
    let more = reader.u8("SA last proposal")?;
    reader.u8("SA proposal reserved")?;
    let length = reader.u16("SA proposal length")?;
    let number = reader.u8("SA proposal number")?;
    let protocol = ProtocolId(reader.u8("SA proposal protocol")?);
    let spi_len = reader.u8("SA proposal SPI size")?;
    let transform_count = reader.u8("SA transform count")?;
    let mut body = Reader::new(reader.body(length, PROPOSAL_HEADER_LEN, "SA proposal length")?);
    let spi = body.take(usize::from(spi_len), "SA proposal SPI")?;
    last_is_last(more, 2, reader, "SA last proposal")?;
    Ok(Some(ProposalView { number, protocol, spi, transform_count, transforms: body.rest() }))
}

/// One transform: an algorithm of one type, with attributes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TransformView<'a> {
    /// What the algorithm is for.
    pub kind: TransformType,
    /// The algorithm, a number of the registry that `kind` names.
    pub id: u16,
    attributes: &'a [u8],
}

impl<'a> TransformView<'a> {
    /// The attributes in the order sent.
    pub fn attributes(&self) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        let mut reader = Reader::new(self.attributes);
        std::iter::from_fn(move || attribute(&mut reader).ok().flatten())
    }

    /// The transform with its Key Length, or `None` when an attribute is not known, is repeated or has the
    /// wrong form: such a transform cannot be accepted (RFC 7296 §3.3.6).
    pub fn known(&self) -> Option<Transform> {
        let mut key_bits = None;
        for attribute in self.attributes() {
            match attribute {
                Attribute { kind: AttributeType::KEY_LENGTH, value: AttributeValue::Short(bits) }
                    if key_bits.is_none() =>
                {
                    key_bits = Some(bits);
                }
                _ => return None,
            }
        }
        Some(Transform { kind: self.kind, id: self.id, key_bits })
    }

    fn check(&self) -> Result<(), DecodeError> {
        let mut reader = Reader::new(self.attributes);
        let mut count = 0;
        while attribute(&mut reader)?.is_some() {
            count += 1;
            if count > ATTRIBUTES_MAX {
                return Err(DecodeError::TooMany { field: "SA transform attributes", limit: ATTRIBUTES_MAX });
            }
        }
        Ok(())
    }
}

fn transform<'a>(reader: &mut Reader<'a>) -> Result<Option<TransformView<'a>>, DecodeError> {
    if reader.is_empty() {
        return Ok(None);
    }
    let more = reader.u8("SA last transform")?;
    reader.u8("SA transform reserved")?;
    let length = reader.u16("SA transform length")?;
    let kind = TransformType(reader.u8("SA transform type")?);
    reader.u8("SA transform reserved")?;
    let id = reader.u16("SA transform ID")?;
    let attributes = reader.body(length, TRANSFORM_HEADER_LEN, "SA transform length")?;
    last_is_last(more, 3, reader, "SA last transform")?;
    Ok(Some(TransformView { kind, id, attributes }))
}

/// The first octet of a substructure says whether another follows: 0 or `follows`.
fn last_is_last(more: u8, follows: u8, rest: &Reader<'_>, field: &'static str) -> Result<(), DecodeError> {
    let expected = if rest.is_empty() { 0 } else { follows };
    if more == expected { Ok(()) } else { Err(DecodeError::BadValue { field, value: more.into() }) }
}

/// One attribute of a transform.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attribute<'a> {
    /// What it says.
    pub kind: AttributeType,
    /// Its value.
    pub value: AttributeValue<'a>,
}

/// The two forms of an attribute's value (RFC 7296 §3.3.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AttributeValue<'a> {
    /// Two octets in place of the length.
    Short(u16),
    /// Octets after a length.
    Long(&'a [u8]),
}

fn attribute<'a>(reader: &mut Reader<'a>) -> Result<Option<Attribute<'a>>, DecodeError> {
    if reader.is_empty() {
        return Ok(None);
    }
    let kind = reader.u16("SA attribute type")?;
    let value = reader.u16("SA attribute length")?;
    let value = if kind & ATTRIBUTE_SHORT != 0 {
        AttributeValue::Short(value)
    } else {
        AttributeValue::Long(reader.take(usize::from(value), "SA attribute value")?)
    };
    Ok(Some(Attribute { kind: AttributeType(kind & !ATTRIBUTE_SHORT), value }))
}

/// A transform as we offer, choose and compare it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Transform {
    /// What the algorithm is for.
    pub kind: TransformType,
    /// The algorithm.
    pub id: u16,
    /// Key Length attribute in bits.
    pub key_bits: Option<u16>,
}

impl Transform {
    /// A transform without attributes.
    pub fn new(kind: TransformType, id: u16) -> Self {
        Self { kind, id, key_bits: None }
    }

    fn encode(&self, last: bool, out: &mut Vec<u8>) {
        let length: u16 = if self.key_bits.is_some() { 12 } else { 8 };
        out.extend_from_slice(&[if last { 0 } else { 3 }, 0]);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&[self.kind.0, 0]);
        out.extend_from_slice(&self.id.to_be_bytes());
        if let Some(bits) = self.key_bits {
            out.extend_from_slice(&(ATTRIBUTE_SHORT | AttributeType::KEY_LENGTH.0).to_be_bytes());
            out.extend_from_slice(&bits.to_be_bytes());
        }
    }
}

/// A proposal to encode. At most 255 transforms are written: the count is one octet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Proposal<'a> {
    /// Its number: counted from 1 in an offer, that of the proposal taken in an answer.
    pub number: u8,
    /// Protocol it is for.
    pub protocol: ProtocolId,
    /// Our SPI; empty in IKE_SA_INIT.
    pub spi: &'a [u8],
    /// Transforms in order of preference.
    pub transforms: &'a [Transform],
}

impl Proposal<'_> {
    fn encode(&self, last: bool, out: &mut Vec<u8>) {
        let start = out.len();
        let count = u8::try_from(self.transforms.len()).unwrap_or(u8::MAX);
        let spi_len = u8::try_from(self.spi.len()).unwrap_or(u8::MAX);
        out.extend_from_slice(&[if last { 0 } else { 2 }, 0, 0, 0]);
        out.extend_from_slice(&[self.number, self.protocol.0, spi_len, count]);
        out.extend(self.spi.iter().take(usize::from(spi_len)));
        for (at, transform) in (1..=count).zip(self.transforms) {
            transform.encode(at == count, out);
        }
        let length = u16::try_from(out.len() - start)
            .expect("255 transforms of 12 octets and 255 of SPI stay below 64 KiB");
        out[start + 2..start + 4].copy_from_slice(&length.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ike::registry::EncrId;

    const TRANSFORMS: [Transform; 2] = [
        Transform { kind: TransformType::ENCR, id: EncrId::AES_GCM_16.0, key_bits: Some(128) },
        Transform { kind: TransformType::ESN, id: 1, key_bits: None },
    ];

    fn encoded() -> Vec<u8> {
        let proposal =
            Proposal { number: 1, protocol: ProtocolId::ESP, spi: &[1, 2, 3, 4], transforms: &TRANSFORMS };
        let mut out = Vec::new();
        SaView::encode(&[proposal, Proposal { number: 2, ..proposal }], &mut out);
        out
    }

    #[test]
    fn r7296_3_3_proposals_survive_encode_and_decode() {
        let out = encoded();
        let view = SaView::decode(&out).expect("our own");
        assert!(view.is_numbered_as_offer());
        for (proposal, number) in view.proposals().zip(1..) {
            assert_eq!((proposal.number, proposal.protocol), (number, ProtocolId::ESP));
            assert_eq!(proposal.spi, [1, 2, 3, 4]);
            let known: Vec<_> = proposal.transforms().filter_map(|transform| transform.known()).collect();
            assert_eq!(known, TRANSFORMS);
        }
        assert_eq!(view.proposals().count(), 2);
    }

    #[test]
    fn r7296_3_3_internal_lengths_are_checked() {
        let out = encoded();
        for len in 0..out.len() {
            assert!(SaView::decode(&out[..len]).is_err(), "cut at {len}");
        }
        // More or last, lengths, SPI size and transform count of the first proposal and transform.
        for at in [0, 2, 3, 6, 7, 12, 14, 15] {
            let mut bad = out.clone();
            bad[at] ^= 1;
            assert!(SaView::decode(&bad).is_err(), "octet {at}");
        }
    }

    #[test]
    fn r7296_3_3_offers_of_no_real_peer_are_refused() {
        let decode = |proposal_count: usize, transform_count: usize| {
            let transforms = vec![TRANSFORMS[1]; transform_count];
            let proposal =
                Proposal { number: 1, protocol: ProtocolId::IKE, spi: &[], transforms: &transforms };
            let mut out = Vec::new();
            SaView::encode(&vec![proposal; proposal_count], &mut out);
            SaView::decode(&out).map(|view| view.proposals().count())
        };
        assert_eq!(decode(PROPOSALS_MAX, 16), Ok(PROPOSALS_MAX));
        assert!(matches!(decode(PROPOSALS_MAX + 1, 0), Err(DecodeError::TooMany { .. })));
        assert!(matches!(decode(5, 255), Err(DecodeError::TooMany { .. })));
    }

    #[test]
    fn r7296_3_3_6_unknown_attributes_make_a_transform_unknown() {
        let out = encoded();
        // The Key Length attribute of the first transform starts at 8 + 4 + 8.
        for (at, value) in [(20, 0x81), (21, 15)] {
            let mut other = out.clone();
            other[at] = value;
            let view = SaView::decode(&other).expect("well formed");
            let proposal = view.proposals().next().expect("the first");
            assert_eq!(proposal.transforms().next().and_then(|transform| transform.known()), None);
        }
    }
}
