//! One UE with what it remembers, and how it answers the gateway.

use std::collections::BTreeMap;

use codec::esp::EspSpi;
use codec::ike::payload::SaView;
use codec::ike::{ExchangeType, HEADER_LEN, IkeHeader, NotifyType, PayloadType, ProtocolId};

use crate::ue::{Decoded, Ue};
use crate::world::Place;

/// One UE and where it is.
pub struct Subscriber {
    pub ue: Ue,
    pub place: Place,
    pub attached: bool,
    /// The gateway deleted the session and the UE agreed, or it is gone otherwise.
    pub dismissed: bool,
    /// Whether it has MOBIKE.
    pub mobike: bool,
    /// Whether it is behind a NAT.
    pub nat: bool,
    /// Responses owed to the gateway, by the request's octets: a repeated request gets the same.
    pub answered: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What the UE itself is asking for.
    pub asking: Asking,
    /// The lower nonce of what the gateway made while the UE asked for the same, and for a child its SPI.
    pub rival: Option<(Vec<u8>, EspSpi)>,
    /// Fragments that wait for others, by the header in front of them but for its length.
    parts: BTreeMap<[u8; HEADER_LEN - 4], BTreeMap<u16, Vec<u8>>>,
}

/// A request of the UE that a request of the gateway may cross.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Asking {
    Nothing,
    Child,
    RekeyChild(EspSpi),
    DeleteChild(EspSpi),
    RekeyIke,
    DeleteIke,
}

impl Subscriber {
    pub fn new(ue: Ue, place: Place, mobike: bool, nat: bool) -> Self {
        Self {
            ue,
            place,
            attached: false,
            dismissed: false,
            mobike,
            nat,
            answered: BTreeMap::new(),
            asking: Asking::Nothing,
            rival: None,
            parts: BTreeMap::new(),
        }
    }

    /// Whether it has the IKE SA of a message.
    pub fn has_sa(&self, header: &IkeHeader) -> bool {
        let all = [&self.ue.sa, &self.ue.old, &self.ue.spare];
        all.into_iter().flatten().any(|sa| (sa.spi_i, sa.spi_r) == (header.spi_i, header.spi_r))
    }

    /// A whole message, once `message` is one or the last of its fragments to arrive (RFC 7383 §2.6).
    pub fn join(&mut self, message: Vec<u8>) -> Option<Vec<u8>> {
        let header = IkeHeader::decode(&message).expect("the gateway's");
        if header.next_payload != PayloadType::ENCRYPTED_FRAGMENT {
            return Some(message);
        }
        let at = |offset: usize| u16::from_be_bytes([message[offset], message[offset + 1]]);
        let (number, total) = (at(HEADER_LEN + 4), at(HEADER_LEN + 6));
        let key = message[..HEADER_LEN - 4].try_into().expect("a header");
        let parts = self.parts.entry(key).or_default();
        parts.insert(number, message);
        if parts.len() < usize::from(total) {
            return None;
        }
        self.parts.remove(&key).map(|parts| parts.into_values().flatten().collect())
    }

    /// Does what a request of the gateway wants.
    pub fn carry_out(&mut self, request: &Decoded) -> Vec<u8> {
        if request.header.exchange == ExchangeType::CREATE_CHILD_SA {
            return self.create(request);
        }
        let deleted = request.deleted();
        let named: Vec<_> = self
            .ue
            .children
            .iter()
            .filter(|child| deleted.contains(&child.spi_out))
            .map(|child| child.spi_in)
            .collect();
        self.ue.children.retain(|child| !named.contains(&child.spi_in));
        let ike_deleted = request.body(PayloadType::DELETE) == Some(&[1, 0, 0, 0][..]);
        // RFC 4555 §3.7: the gateway tries whether we receive where we say we are.
        let cookie = request.notify(NotifyType::COOKIE2).map(|notify| notify.data.to_vec());
        let response = self.ue.respond(request, |builder| {
            if !named.is_empty() {
                builder.delete_esp(&named);
            }
            if let Some(cookie) = &cookie {
                builder.notify(NotifyType::COOKIE2, cookie);
            }
        });
        if ike_deleted {
            let spi_r = request.header.spi_r;
            if self.ue.sa.as_ref().is_some_and(|sa| sa.spi_r == spi_r) {
                self.dismissed = true;
            }
            self.ue.old.take_if(|old| old.spi_r == spi_r);
            self.ue.spare.take_if(|spare| spare.spi_r == spi_r);
        }
        response
    }

    /// A rekey of the gateway, with what RFC 7296 2.25 wants of one that crosses a request of the UE.
    fn create(&mut self, request: &Decoded) -> Vec<u8> {
        let refuse = |ue: &mut Ue, error| {
            ue.respond(request, |builder| {
                builder.notify(error, &[]);
            })
        };
        let current = self.ue.sa.as_ref().map(|sa| sa.spi_r);
        if current != Some(request.header.spi_r) {
            return refuse(&mut self.ue, NotifyType::TEMPORARY_FAILURE);
        }
        let Some(notify) = request.notify(NotifyType::REKEY_SA) else {
            if is_for_ike(request) {
                return self.rekey_ike(request);
            }
            return self.ue.accept_child(request).0;
        };
        let theirs = notify.esp_spi().expect("an SPI");
        let Some(child) = self.ue.children.iter().find(|child| child.spi_out == theirs) else {
            return refuse(&mut self.ue, NotifyType::CHILD_SA_NOT_FOUND);
        };
        let same = child.spi_in;
        if matches!(self.asking, Asking::RekeyIke | Asking::DeleteIke)
            || self.asking == Asking::DeleteChild(same)
        {
            return refuse(&mut self.ue, NotifyType::TEMPORARY_FAILURE);
        }
        let (response, lower) = self.ue.accept_child(request);
        if self.asking == Asking::RekeyChild(same) {
            let made = self.ue.children.last().expect("just made").spi_in;
            self.rival = Some((lower, made));
        }
        response
    }

    fn rekey_ike(&mut self, request: &Decoded) -> Vec<u8> {
        let busy = !matches!(self.asking, Asking::Nothing | Asking::RekeyIke) || self.ue.old.is_some();
        if busy {
            return self.ue.respond(request, |builder| {
                builder.notify(NotifyType::TEMPORARY_FAILURE, &[]);
            });
        }
        let (response, sa, lower) = self.ue.accept_ike(request);
        if self.asking == Asking::RekeyIke {
            self.rival = Some((lower, EspSpi(0)));
            self.ue.spare = Some(sa);
        } else {
            self.ue.adopt(sa);
        }
        response
    }
}

fn is_for_ike(request: &Decoded) -> bool {
    let body = request.body(PayloadType::SA).expect("SA");
    let view = SaView::decode(body).expect("an SA");
    view.proposals().next().is_some_and(|proposal| proposal.protocol == ProtocolId::IKE)
}
