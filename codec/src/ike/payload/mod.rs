//! Payloads (RFC 7296 §3.2 to §3.16, RFC 7383 §2.5): a checked view of each, which also encodes itself.

mod config;
mod delete;
mod encrypted;
mod identity;
mod key;
mod notify;
mod redirect;
mod sa;
mod selector;

pub use config::{ConfigAttr, ConfigView};
pub use delete::DeleteView;
pub use encrypted::{EncryptedView, FragmentView};
pub use identity::{AuthView, CertReqView, CertView, EapView, IdView, VendorIdView};
pub use key::{KeView, NONCE_LEN_MAX, NONCE_LEN_MIN, NonceView};
pub use notify::NotifyView;
pub use redirect::{GatewayId, RedirectView};
pub use sa::{Attribute, AttributeValue, Proposal, ProposalView, SaView, Transform, TransformView};
pub use selector::{TrafficSelector, TsView};

use super::error::DecodeError;
use super::reader::Reader;
use super::registry::PayloadType;

/// Octets of the generic payload header: Next Payload, flags, Length.
pub const GENERIC_HEADER_LEN: usize = 4;

/// Most payloads one message may have. A request with a long certificate chain has about twenty.
pub const PAYLOADS_MAX: usize = 128;

/// Critical bit of the generic payload header.
const CRITICAL: u8 = 0x80;

/// One payload as it lies in its message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RawPayload<'a> {
    /// What the payload before it (or the header) said it is.
    pub kind: PayloadType,
    /// The sender wants the message refused if the receiver does not know `kind`.
    pub critical: bool,
    /// What follows the generic payload header.
    pub body: &'a [u8],
}

impl<'a> RawPayload<'a> {
    /// Decodes the body by its type. Types that are not known here come back as [`Payload::Unknown`].
    ///
    /// # Errors
    /// A body that breaks the rules of its type.
    pub fn decode(&self) -> Result<Payload<'a>, DecodeError> {
        let body = self.body;
        Ok(match self.kind {
            PayloadType::SA => Payload::Sa(SaView::decode(body)?),
            PayloadType::KE => Payload::Ke(KeView::decode(body)?),
            PayloadType::ID_I => Payload::IdI(IdView::decode(body)?),
            PayloadType::ID_R => Payload::IdR(IdView::decode(body)?),
            PayloadType::CERT => Payload::Cert(CertView::decode(body)?),
            PayloadType::CERTREQ => Payload::CertReq(CertReqView::decode(body)?),
            PayloadType::AUTH => Payload::Auth(AuthView::decode(body)?),
            PayloadType::NONCE => Payload::Nonce(NonceView::decode(body)?),
            PayloadType::NOTIFY => Payload::Notify(NotifyView::decode(body)?),
            PayloadType::DELETE => Payload::Delete(DeleteView::decode(body)?),
            PayloadType::VENDOR_ID => Payload::VendorId(VendorIdView::decode(body)?),
            PayloadType::TS_I => Payload::TsI(TsView::decode(body)?),
            PayloadType::TS_R => Payload::TsR(TsView::decode(body)?),
            PayloadType::ENCRYPTED => Payload::Encrypted(EncryptedView::decode(body)?),
            PayloadType::ENCRYPTED_FRAGMENT => Payload::Fragment(FragmentView::decode(body)?),
            PayloadType::CONFIG => Payload::Config(ConfigView::decode(body)?),
            PayloadType::EAP => Payload::Eap(EapView::decode(body)?),
            PayloadType::PUZZLE_SOLUTION => Payload::PuzzleSolution(body),
            kind => Payload::Unknown { kind, critical: self.critical },
        })
    }
}

/// A payload by its type.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// Security Association.
    Sa(SaView<'a>),
    /// Key Exchange.
    Ke(KeView<'a>),
    /// Identification of the initiator.
    IdI(IdView<'a>),
    /// Identification of the responder.
    IdR(IdView<'a>),
    /// Certificate.
    Cert(CertView<'a>),
    /// Certificate Request.
    CertReq(CertReqView<'a>),
    /// Authentication.
    Auth(AuthView<'a>),
    /// Nonce.
    Nonce(NonceView<'a>),
    /// Notify.
    Notify(NotifyView<'a>),
    /// Delete.
    Delete(DeleteView<'a>),
    /// Vendor ID.
    VendorId(VendorIdView<'a>),
    /// Traffic selectors of the initiator of the exchange.
    TsI(TsView<'a>),
    /// Traffic selectors of the responder of the exchange.
    TsR(TsView<'a>),
    /// Encrypted and authenticated payloads.
    Encrypted(EncryptedView<'a>),
    /// One fragment of an Encrypted payload.
    Fragment(FragmentView<'a>),
    /// Configuration.
    Config(ConfigView<'a>),
    /// Extensible Authentication.
    Eap(EapView<'a>),
    /// Puzzle Solution (RFC 8019 §8.2).
    PuzzleSolution(&'a [u8]),
    /// A type not known here: skipped, or, when critical, answered with UNSUPPORTED_CRITICAL_PAYLOAD and
    /// its number (RFC 7296 §2.5).
    Unknown {
        /// Its number.
        kind: PayloadType,
        /// Its critical bit.
        critical: bool,
    },
}

/// Walks a payload chain. After an error it ends.
///
/// An Encrypted payload is the last of its chain: its Next Payload field names its first inner payload
/// (RFC 7296 §3.14), so the walk stops there.
#[derive(Clone)]
pub struct PayloadIter<'a> {
    next: PayloadType,
    reader: Reader<'a>,
    count: usize,
}

impl<'a> PayloadIter<'a> {
    /// Starts at the payload of type `first` at the head of `chain`; the chain must end with `chain`.
    pub fn new(first: PayloadType, chain: &'a [u8]) -> Self {
        Self { next: first, reader: Reader::new(chain), count: 0 }
    }

    fn step(&mut self) -> Result<RawPayload<'a>, DecodeError> {
        if self.count == PAYLOADS_MAX {
            return Err(DecodeError::TooMany { field: "payloads", limit: PAYLOADS_MAX });
        }
        self.count += 1;
        let kind = self.next;
        let next = PayloadType(self.reader.u8("next payload")?);
        let flags = self.reader.u8("payload flags")?;
        let length = self.reader.u16("payload length")?;
        let body = self.reader.body(length, GENERIC_HEADER_LEN, "payload length")?;
        let last = matches!(kind, PayloadType::ENCRYPTED | PayloadType::ENCRYPTED_FRAGMENT);
        self.next = if last { PayloadType::NONE } else { next };
        Ok(RawPayload { kind, critical: flags & CRITICAL != 0, body })
    }
}

impl<'a> Iterator for PayloadIter<'a> {
    type Item = Result<RawPayload<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == PayloadType::NONE {
            let rest = std::mem::replace(&mut self.reader, Reader::new(&[]));
            return rest.finish("octets after the last payload").err().map(Err);
        }
        let step = self.step();
        if step.is_err() {
            self.next = PayloadType::NONE;
            self.reader = Reader::new(&[]);
        }
        Some(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(first: u8, chain: &[u8]) -> Vec<Result<RawPayload<'_>, DecodeError>> {
        PayloadIter::new(PayloadType(first), chain).collect()
    }

    #[test]
    fn r7296_3_2_chain_is_walked_by_next_payload_and_length() {
        let chain = [41, 0x80, 0, 5, 0xaa, 0, 0, 0, 6, 1, 2];
        let payloads: Vec<_> = walk(200, &chain).into_iter().map(|p| p.expect("well formed")).collect();
        assert_eq!(
            payloads,
            [
                RawPayload { kind: PayloadType(200), critical: true, body: &[0xaa] },
                RawPayload { kind: PayloadType::NOTIFY, critical: false, body: &[1, 2] },
            ]
        );
        assert!(matches!(
            payloads[0].decode(),
            Ok(Payload::Unknown { kind: PayloadType(200), critical: true })
        ));
    }

    #[test]
    fn r7296_3_2_lengths_never_read_outside() {
        for chain in [&[0, 0, 0, 3][..], &[0, 0, 0, 5], &[0, 0], &[0, 0, 0xff, 0xff, 0], &[0, 0, 0, 4, 9]] {
            let payloads = walk(41, chain);
            assert!(payloads.last().expect("at least the error").is_err(), "{chain:?}");
        }
        assert!(walk(0, &[]).is_empty());
    }

    #[test]
    fn r7296_3_2_chain_of_too_many_payloads_is_refused() {
        let chain = [43, 0, 0, 4].repeat(PAYLOADS_MAX + 1);
        let payloads = walk(43, &chain);
        assert_eq!(payloads.len(), PAYLOADS_MAX + 1);
        assert!(matches!(payloads.last(), Some(Err(DecodeError::TooMany { .. }))));
    }
}
