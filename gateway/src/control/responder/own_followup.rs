//! IKE_FOLLOWUP_KE, begun by the gateway: the additional key exchanges of a rekey of its own, one after the other. The
//! new SA comes about with the last of them (RFC 9370 §2.2.4).

use bytes::Bytes;
use codec::crypto::{KeyExchange, SharedSecret};
use codec::ike::payload::KeView;
use codec::ike::{ExchangeType, KeGroup, MessageId, NotifyType};

use super::inner::Payloads;
use super::own_child::SettledChild;
use super::own_ike::Settled;
use super::sa::{Session, SpiOwner, Which};
use super::window::{Offer, OwnRequest};
use super::{Arrived, Core};

/// Octets that the name of a rekey may have; the peer chooses it, and ours are shorter.
const LINK_LEN_MAX: usize = 256;

/// A rekey of ours that is not complete.
pub(super) struct OwnFollowUp {
    successor: OwnSuccessor,
    /// What the peer calls it.
    link: Vec<u8>,
    /// Key exchanges that are still to come, the one under way not among them.
    pending: Vec<KeGroup>,
    /// Our half of the one under way.
    exchange: Option<KeyExchange>,
    additional: Vec<SharedSecret>,
}

/// What comes about.
pub(super) enum OwnSuccessor {
    /// An IKE SA in the place of the one in use.
    Ike(Settled),
    /// A Child SA.
    Child(Box<SettledChild>),
}

/// The peer has agreed to further key exchanges and does not say by what name.
pub(super) struct NoLink;

impl Session {
    /// Whether a rekey of ours waits for further key exchanges.
    pub(super) fn is_following_up(&self) -> bool {
        let asked = self.ike.window.outstanding().map(|request| request.kind);
        self.wanted.followup.is_some() || asked == Some(OwnRequest::FollowUp)
    }
}

impl Core {
    /// Goes on after the first exchange of a rekey.
    pub(super) fn begin_own_followup(
        &mut self,
        session: &mut Session,
        successor: OwnSuccessor,
        pending: Vec<KeGroup>,
        payloads: &Payloads<'_>,
    ) -> Result<(), NoLink> {
        let link = link(payloads).ok_or(NoLink)?;
        if let OwnSuccessor::Ike(settled) = &successor {
            // The peer's first message on the new IKE SA may overtake its last answer.
            self.spis.insert(settled.spi_i, SpiOwner::Offered(session.id));
        }
        let followup = OwnFollowUp { successor, link, pending, exchange: None, additional: Vec::new() };
        session.wanted.followup = Some(Box::new(followup));
        Ok(())
    }

    /// Takes back what a rekey offers that does not become complete.
    pub(super) fn abandon_followup(&mut self, session: &Session, followup: &OwnFollowUp) {
        match &followup.successor {
            OwnSuccessor::Ike(settled) => {
                self.spis.remove(&settled.spi_i);
            }
            OwnSuccessor::Child(settled) => self.withdraw(session, settled.spi_in),
        }
    }

    /// Builds the request for the next key exchange; `None` when no key could be made, which ends the rekey.
    pub(super) fn next_followup(
        &mut self,
        session: &mut Session,
        message_id: MessageId,
    ) -> Option<(Bytes, Option<Offer>)> {
        let mut followup = session.wanted.followup.take()?;
        let method = followup.pending.first().copied();
        let exchange = method.and_then(|method| KeyExchange::generate(method, &mut *self.random).ok());
        let Some(exchange) = exchange else {
            self.abandon_followup(session, &followup);
            return None;
        };
        followup.pending.remove(0);
        let room = session.room(self);
        let message =
            self.seal_request(&mut session.ike, ExchangeType::IKE_FOLLOWUP_KE, message_id, room, |builder| {
                builder.ke(&KeView { group: exchange.group(), data: exchange.public() });
                builder.notify(NotifyType::ADDITIONAL_KEY_EXCHANGE, &followup.link);
            });
        followup.exchange = Some(exchange);
        Some((message, Some(Offer::FollowUp(followup))))
    }

    /// Takes the answer to a key exchange: the next one follows, or the new IKE SA takes over.
    pub(super) fn on_followup_answer(
        &mut self,
        at: &Arrived,
        session: &mut Session,
        mut followup: Box<OwnFollowUp>,
        payloads: &Payloads<'_>,
    ) {
        if let Some(error) = payloads.notifies.iter().find(|notify| notify.kind.is_error()) {
            self.abandon_followup(session, &followup);
            return match followup.successor {
                OwnSuccessor::Ike(_) => self.on_ike_refused(at, session, Which::Current, error),
                OwnSuccessor::Child(settled) => {
                    self.on_child_followup_refused(at, session, settled.replaces, error);
                }
            };
        }
        let own = followup.exchange.take();
        let shared = own.zip(payloads.ke).filter(|(own, ke)| own.group() == ke.group);
        let shared = shared.and_then(|(own, ke)| own.agree(ke.data).ok());
        let next = link(payloads).or_else(|| followup.pending.is_empty().then(Vec::new));
        let (Some(shared), Some(next)) = (shared, next) else {
            self.abandon_followup(session, &followup);
            return self.refuse_rekey_answer(session);
        };
        followup.additional.push(shared);
        if !followup.pending.is_empty() {
            followup.link = next;
            session.wanted.followup = Some(followup);
            return;
        }
        let OwnFollowUp { successor, additional, .. } = *followup;
        match successor {
            OwnSuccessor::Ike(settled) => {
                let replaced = session.ike.local_spi();
                let made = self.make_ike(at, session, Which::Current, &settled, &additional);
                self.put_in_use(at.now, session, made, replaced);
            }
            OwnSuccessor::Child(settled) => {
                self.complete_own_child(at, session, *settled, &additional, None);
            }
        }
    }
}

/// What the peer calls the rekey that goes on.
fn link(payloads: &Payloads<'_>) -> Option<Vec<u8>> {
    let link = payloads.notify(NotifyType::ADDITIONAL_KEY_EXCHANGE)?.data;
    (1..=LINK_LEN_MAX).contains(&link.len()).then(|| link.to_vec())
}
