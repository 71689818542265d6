//! Payloads that say and prove who is who: Identification (RFC 7296 §3.5), Certificate (§3.6),
//! Certificate Request (§3.7), Authentication (§3.8), Vendor ID (§3.12) and EAP (§3.16).

use crate::ike::error::DecodeError;
use crate::ike::reader::Reader;
use crate::ike::registry::{AuthMethod, CertEncoding, IdType};

/// Octets of one authority in a Certificate Request: SHA-1 of its public key info.
const AUTHORITY_LEN: usize = 20;

/// An identity: type (u8), reserved (3 octets), then the identity itself.
///
/// AUTH covers the whole body as it was sent, reserved octets included (RFC 7296 §2.15): keep
/// [`RawPayload::body`](super::RawPayload::body) for that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IdView<'a> {
    /// What `data` is.
    pub kind: IdType,
    /// The identity, without any terminator.
    pub data: &'a [u8],
}

impl<'a> IdView<'a> {
    /// Decodes the payload's body.
    ///
    /// # Errors
    /// A body shorter than its fixed part, or an address of the wrong length.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let kind = IdType(reader.u8("ID type")?);
        reader.take(3, "ID reserved")?;
        let data = reader.rest();
        let possible = match kind {
            IdType::IPV4_ADDR => data.len() == 4,
            IdType::IPV6_ADDR => data.len() == 16,
            _ => true,
        };
        if !possible {
            return Err(DecodeError::BadLength { field: "ID address", length: data.len() });
        }
        Ok(Self { kind, data })
    }

    /// Appends the payload's body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.kind.0, 0, 0, 0]);
        out.extend_from_slice(self.data);
    }
}

/// A certificate or what stands for one: encoding (u8), then data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CertView<'a> {
    /// What `data` is.
    pub encoding: CertEncoding,
    /// For X.509: one DER certificate.
    pub data: &'a [u8],
}

impl<'a> CertView<'a> {
    /// Decodes the payload's body.
    ///
    /// # Errors
    /// An empty body.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let encoding = CertEncoding(reader.u8("CERT encoding")?);
        Ok(Self { encoding, data: reader.rest() })
    }

    /// Appends the payload's body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.encoding.0);
        out.extend_from_slice(self.data);
    }
}

/// A wish for certificates: encoding (u8), then hashes of acceptable authorities.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CertReqView<'a> {
    /// Encoding the sender wants.
    pub encoding: CertEncoding,
    /// For X.509: concatenated SHA-1 hashes of trust anchors' Subject Public Key Info; may be empty.
    pub authorities: &'a [u8],
}

impl<'a> CertReqView<'a> {
    /// Decodes the payload's body.
    ///
    /// # Errors
    /// An empty body, or X.509 authorities that are not whole hashes.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let encoding = CertEncoding(reader.u8("CERTREQ encoding")?);
        let authorities = reader.rest();
        if encoding == CertEncoding::X509_SIGNATURE && !authorities.len().is_multiple_of(AUTHORITY_LEN) {
            return Err(DecodeError::BadLength { field: "CERTREQ authorities", length: authorities.len() });
        }
        Ok(Self { encoding, authorities })
    }

    /// The hashes, one per acceptable authority.
    pub fn hashes(&self) -> impl Iterator<Item = &'a [u8; AUTHORITY_LEN]> + use<'a> {
        self.authorities.as_chunks().0.iter()
    }

    /// Appends the payload's body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.encoding.0);
        out.extend_from_slice(self.authorities);
    }
}

/// Proof of identity: method (u8), reserved (3 octets), then what the method defines.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AuthView<'a> {
    /// How `data` was made.
    pub method: AuthMethod,
    /// MAC or signature.
    pub data: &'a [u8],
}

impl std::fmt::Debug for AuthView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthView").field("method", &self.method).finish_non_exhaustive()
    }
}

impl<'a> AuthView<'a> {
    /// Decodes the payload's body.
    ///
    /// # Errors
    /// A body shorter than its fixed part.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let method = AuthMethod(reader.u8("AUTH method")?);
        reader.take(3, "AUTH reserved")?;
        Ok(Self { method, data: reader.rest() })
    }

    /// Appends the payload's body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.method.0, 0, 0, 0]);
        out.extend_from_slice(self.data);
    }
}

/// Whose implementation it is: any octets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VendorIdView<'a> {
    /// The vendor's choice.
    pub data: &'a [u8],
}

impl<'a> VendorIdView<'a> {
    /// Decodes the payload's body: every body is one.
    ///
    /// # Errors
    /// None; the signature is that of all views.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        Ok(Self { data: body })
    }

    /// Appends the payload's body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.data);
    }
}

/// One EAP packet: code (u8), identifier (u8), length (u16), and for requests and responses a type (u8)
/// with its data.
///
/// Source: RFC 7296 §3.16, RFC 3748 §4.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EapView<'a> {
    /// The whole packet, of the length it states.
    pub packet: &'a [u8],
}

impl<'a> EapView<'a> {
    /// Decodes the payload's body.
    ///
    /// # Errors
    /// A packet whose Length is not that of the body.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        reader.u8("EAP code")?;
        reader.u8("EAP identifier")?;
        let length = usize::from(reader.u16("EAP length")?);
        if length != body.len() {
            return Err(DecodeError::BadLength { field: "EAP length", length });
        }
        Ok(Self { packet: body })
    }

    /// Request 1, Response 2, Success 3, Failure 4.
    pub fn code(&self) -> u8 {
        self.packet.first().copied().unwrap_or_default()
    }

    /// Ties a response to its request.
    pub fn identifier(&self) -> u8 {
        self.packet.get(1).copied().unwrap_or_default()
    }

    /// Appends the payload's body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.packet);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r7296_3_5_identity_survives_encode_and_decode() {
        let view = IdView { kind: IdType::FQDN, data: b"gw.test" };
        let mut out = Vec::new();
        view.encode(&mut out);
        assert_eq!(out, b"\x02\0\0\0gw.test");
        assert_eq!(IdView::decode(&out), Ok(view));
        assert!(IdView::decode(&[2, 0, 0]).is_err());
        assert!(IdView::decode(&[1, 0, 0, 0, 10, 0, 0]).is_err(), "three octets are no IPv4 address");
    }

    #[test]
    fn r7296_3_7_authorities_are_whole_hashes() {
        let mut body = vec![4];
        body.extend_from_slice(&[1; 40]);
        assert_eq!(CertReqView::decode(&body).expect("two hashes").hashes().count(), 2);
        assert!(CertReqView::decode(&body[..40]).is_err());
        assert_eq!(CertReqView::decode(&[4]).expect("no hash").hashes().count(), 0);
    }

    #[test]
    fn r7296_3_16_eap_length_is_checked() {
        let success = [3, 9, 0, 4];
        let view = EapView::decode(&success).expect("a success packet");
        assert_eq!((view.code(), view.identifier()), (3, 9));
        assert!(EapView::decode(&[1, 9, 0, 6, 1]).is_err());
        assert!(EapView::decode(&[1, 9, 0, 4, 1]).is_err());
    }
}
