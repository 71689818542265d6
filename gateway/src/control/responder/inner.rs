//! The payloads of one message, sorted.

use codec::ike::payload::{
    AuthView, CertReqView, CertView, ConfigView, DeleteView, EapView, KeView, NonceView, NotifyView, Payload,
    PayloadIter, RawPayload, SaView, TsView,
};
use codec::ike::{DecodeError, NotifyType, PayloadType};

/// Decoded payloads of a message by type; each borrows from it. Payloads may come in any order
/// (RFC 7296 §2.5).
#[derive(Default)]
pub(super) struct Payloads<'a> {
    pub(super) sa: Option<SaView<'a>>,
    pub(super) ke: Option<KeView<'a>>,
    pub(super) nonce: Option<NonceView<'a>>,
    /// The body of IDi, as AUTH covers it.
    pub(super) id_i: Option<&'a [u8]>,
    /// The body of IDr.
    pub(super) id_r: Option<&'a [u8]>,
    pub(super) certs: Vec<CertView<'a>>,
    pub(super) cert_reqs: Vec<CertReqView<'a>>,
    pub(super) auth: Option<AuthView<'a>>,
    pub(super) ts_i: Option<TsView<'a>>,
    pub(super) ts_r: Option<TsView<'a>>,
    pub(super) config: Option<ConfigView<'a>>,
    pub(super) notifies: Vec<NotifyView<'a>>,
    pub(super) deletes: Vec<DeleteView<'a>>,
    pub(super) eap: Option<EapView<'a>>,
    /// The keys that solve a puzzle (RFC 8019 §8.2).
    pub(super) puzzle_solution: Option<&'a [u8]>,
    /// All of them as they came, and the type of the first.
    pub(super) chain: Option<(PayloadType, &'a [u8])>,
    /// The first unknown payload with the critical bit.
    pub(super) unknown_critical: Option<PayloadType>,
}

impl<'a> Payloads<'a> {
    /// Walks a payload chain of at most `max` payloads.
    ///
    /// # Errors
    /// A malformed payload, too many, or two of a type that can be there once.
    pub(super) fn decode(first: PayloadType, chain: &'a [u8], max: usize) -> Result<Self, DecodeError> {
        let mut payloads = Self { chain: Some((first, chain)), ..Self::default() };
        for (count, raw) in PayloadIter::new(first, chain).enumerate() {
            if count == max {
                return Err(DecodeError::TooMany { field: "payloads", limit: max });
            }
            payloads.add(&raw?)?;
        }
        Ok(payloads)
    }

    fn add(&mut self, raw: &RawPayload<'a>) -> Result<(), DecodeError> {
        match raw.decode()? {
            Payload::Sa(view) => once(&mut self.sa, view, "SA"),
            Payload::Ke(view) => once(&mut self.ke, view, "KE"),
            Payload::Nonce(view) => once(&mut self.nonce, view, "nonce"),
            Payload::IdI(_) => once(&mut self.id_i, raw.body, "IDi"),
            Payload::IdR(_) => once(&mut self.id_r, raw.body, "IDr"),
            Payload::Auth(view) => once(&mut self.auth, view, "AUTH"),
            Payload::TsI(view) => once(&mut self.ts_i, view, "TSi"),
            Payload::TsR(view) => once(&mut self.ts_r, view, "TSr"),
            Payload::Config(view) => once(&mut self.config, view, "CP"),
            Payload::Cert(view) => push(&mut self.certs, view),
            Payload::CertReq(view) => push(&mut self.cert_reqs, view),
            Payload::Notify(view) => push(&mut self.notifies, view),
            Payload::Delete(view) => push(&mut self.deletes, view),
            Payload::Eap(view) => once(&mut self.eap, view, "EAP"),
            Payload::PuzzleSolution(keys) => once(&mut self.puzzle_solution, keys, "PS"),
            Payload::Unknown { kind, critical: true } => {
                self.unknown_critical.get_or_insert(kind);
                Ok(())
            }
            Payload::Unknown { critical: false, .. }
            | Payload::VendorId(_)
            | Payload::Encrypted(_)
            | Payload::Fragment(_) => Ok(()),
        }
    }

    /// The first notification of a type.
    pub(super) fn notify(&self, kind: NotifyType) -> Option<&NotifyView<'a>> {
        self.notifies.iter().find(|notify| notify.kind == kind)
    }
}

fn once<T>(slot: &mut Option<T>, value: T, field: &'static str) -> Result<(), DecodeError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(DecodeError::TooMany { field, limit: 1 }),
    }
}

fn push<T>(list: &mut Vec<T>, value: T) -> Result<(), DecodeError> {
    list.push(value);
    Ok(())
}
