//! Configuration payload (RFC 7296 §3.15).

use crate::ike::error::DecodeError;
use crate::ike::reader::Reader;
use crate::ike::registry::{CfgAttrType, CfgType};

/// The attribute type has 15 bits; the first is reserved.
const ATTR_TYPE_MASK: u16 = 0x7fff;

/// Most attributes of one payload. A UE that asks for everything asks for about twenty.
const ATTRS_MAX: usize = 256;

/// One attribute: type (15 bits), length (u16), value. An empty value in a request asks for any.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConfigAttr<'a> {
    /// What `value` is.
    pub kind: CfgAttrType,
    /// The value; its length is not yet checked against `kind`.
    pub value: &'a [u8],
}

/// Configuration asked for or given: CFG type (u8), reserved (3 octets), attributes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConfigView<'a> {
    /// Request, reply, set or acknowledgement.
    pub kind: CfgType,
    attributes: &'a [u8],
}

impl<'a> ConfigView<'a> {
    /// Decodes the payload's body and walks its attributes once.
    ///
    /// # Errors
    /// An attribute that does not fit.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let kind = CfgType(reader.u8("CP type")?);
        reader.take(3, "CP reserved")?;
        let attributes = reader.rest();
        let mut count = 0;
        while attribute(&mut reader)?.is_some() {
            count += 1;
            if count > ATTRS_MAX {
                return Err(DecodeError::TooMany { field: "CP attributes", limit: ATTRS_MAX });
            }
        }
        Ok(Self { kind, attributes })
    }

    /// The attributes in the order sent.
    pub fn attributes(&self) -> impl Iterator<Item = ConfigAttr<'a>> + use<'a> {
        let mut reader = Reader::new(self.attributes);
        std::iter::from_fn(move || attribute(&mut reader).ok().flatten())
    }

    /// Appends the body of a payload with `attributes`.
    pub fn encode<'b>(
        kind: CfgType,
        attributes: impl IntoIterator<Item = ConfigAttr<'b>>,
        out: &mut Vec<u8>,
    ) {
        out.extend_from_slice(&[kind.0, 0, 0, 0]);
        for attribute in attributes {
            let length = u16::try_from(attribute.value.len()).unwrap_or(u16::MAX);
            out.extend_from_slice(&(attribute.kind.0 & ATTR_TYPE_MASK).to_be_bytes());
            out.extend_from_slice(&length.to_be_bytes());
            out.extend(attribute.value.iter().take(usize::from(length)));
        }
    }
}

fn attribute<'a>(reader: &mut Reader<'a>) -> Result<Option<ConfigAttr<'a>>, DecodeError> {
    if reader.is_empty() {
        return Ok(None);
    }
    let kind = CfgAttrType(reader.u16("CP attribute type")? & ATTR_TYPE_MASK);
    let length = reader.u16("CP attribute length")?;
    let value = reader.take(usize::from(length), "CP attribute value")?;
    Ok(Some(ConfigAttr { kind, value }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r7296_3_15_attributes_survive_encode_and_decode() {
        let sent = [
            ConfigAttr { kind: CfgAttrType::INTERNAL_IP4_ADDRESS, value: &[] },
            ConfigAttr { kind: CfgAttrType(16390), value: &[1, 2, 3] },
        ];
        let mut out = Vec::new();
        ConfigView::encode(CfgType::REQUEST, sent, &mut out);
        let view = ConfigView::decode(&out).expect("our own");
        assert_eq!(view.kind, CfgType::REQUEST);
        assert_eq!(view.attributes().collect::<Vec<_>>(), sent);
        assert!(ConfigView::decode(&out[..out.len() - 1]).is_err());
        out[4] |= 0x80;
        let view = ConfigView::decode(&out).expect("the reserved bit is ignored");
        assert_eq!(view.attributes().next(), Some(sent[0]));
    }
}
