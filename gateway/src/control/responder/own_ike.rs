//! Rekeying of the IKE SA by the gateway (RFC 7296 §1.3.2, §2.8.2, §2.25.2). It becomes the initiator of the
//! new SA, and stays the TCP Responder (RFC 9329 §1.2).

use std::time::Instant;

use bytes::Bytes;
use codec::crypto::{
    Additional, IkeKeys, IkeProposal, IkeSuite, KeyExchange, SaNonces, SharedSecret, select_ike,
};
use codec::ike::payload::{KeView, NotifyView, Proposal};
use codec::ike::{ExchangeType, IkeSpi, KeGroup, MessageId, NotifyType, ProtocolId};

use super::inner::Payloads;
use super::own_followup::{NoLink, OwnSuccessor};
use super::sa::{IkeSa, Session, SpiOwner, Which};
use super::window::{Offer, Outstanding, OwnRequest, Window};
use super::{Arrived, Core};

/// Times that a peer may ask for another group before its answer counts as putting us off.
const GROUP_CHANGES_MAX: u8 = 2;

/// Our half of an IKE SA that the peer has yet to agree to.
pub(super) struct IkeOffer {
    spi_i: IkeSpi,
    nonce: [u8; 32],
    exchange: KeyExchange,
    /// The peer's own rekey, if it crossed ours.
    rival: Option<Rival>,
}

/// An IKE SA that the peer made while ours was on offer.
struct Rival {
    /// Our SPI of it.
    spi: IkeSpi,
    /// The lower of its two nonces.
    nonce: Box<[u8]>,
}

/// What the peer's answer to an offer has settled.
pub(super) struct Settled {
    pub(super) suite: IkeSuite,
    pub(super) additional: Additional,
    pub(super) spi_i: IkeSpi,
    pub(super) spi_r: IkeSpi,
    nonce_i: [u8; 32],
    nonce_r: Vec<u8>,
    shared: SharedSecret,
}

impl IkeOffer {
    /// The SPI on offer.
    pub(super) fn spi(&self) -> IkeSpi {
        self.spi_i
    }
}

impl Core {
    /// Builds the request for a successor of the IKE SA in use; `None` when no key could be made.
    pub(super) fn offer_ike(
        &mut self,
        session: &mut Session,
        message_id: MessageId,
    ) -> Option<(Bytes, Option<Offer>)> {
        let profile = session.profile.clone();
        let wanted = session.wanted.group.take();
        let allowed = |group: &KeGroup| profile.ike.iter().any(|ike| ike.groups().contains(group));
        // The group in use is one that the peer has.
        let usual = Some(session.ike.suite.group).filter(allowed);
        let first = profile.ike.first().and_then(|ike| ike.groups().first().copied());
        let group = wanted.filter(allowed).or(usual).or(first)?;
        let exchange = KeyExchange::generate(group, &mut *self.random).ok()?;
        let offer = IkeOffer { spi_i: self.new_ike_spi(), nonce: self.new_nonce(), exchange, rival: None };
        self.spis.insert(offer.spi_i, SpiOwner::Offered(session.id));
        // RFC 9370 §2.2.4: further key exchanges follow, with a peer that can run them.
        let several = session.intermediate;
        let fits = |proposal: &&IkeProposal| several || proposal.allows_additional(&Additional::NONE);
        let transforms = |proposal: &IkeProposal| match several {
            true => proposal.transforms(),
            false => proposal.plain_transforms(),
        };
        let transforms: Vec<_> = profile.ike.iter().filter(fits).map(transforms).collect();
        let spi = &offer.spi_i.0;
        let proposals: Vec<_> = transforms
            .iter()
            .zip(1..)
            .map(|(transforms, number)| Proposal { number, protocol: ProtocolId::IKE, spi, transforms })
            .collect();
        let (room, exchange) = (session.room(self), ExchangeType::CREATE_CHILD_SA);
        let message = self.seal_request(&mut session.ike, exchange, message_id, room, |builder| {
            builder.sa(&proposals).nonce(&offer.nonce);
            builder.ke(&KeView { group, data: offer.exchange.public() });
        });
        Some((message, Some(Offer::Ike(offer))))
    }

    /// Notes that the peer has replaced the IKE SA that we are replacing ourselves, by one with our SPI `spi`;
    /// `nonce` is the lower one of its exchange.
    pub(super) fn note_ike_rival(&mut self, session: &mut Session, spi: IkeSpi, nonce: &[u8]) {
        let Some(request) = session.ike.window.outstanding_mut() else { return };
        if let Some(Offer::Ike(offer)) = &mut request.offer {
            self.counters.exchanges.rekey_collisions += 1;
            offer.rival = Some(Rival { spi, nonce: nonce.into() });
        }
    }

    /// Takes the answer to an offer that was made on `which` of the session's IKE SAs.
    pub(super) fn on_ike_answer(
        &mut self,
        at: &Arrived,
        session: &mut Session,
        which: Which,
        offer: IkeOffer,
        payloads: &Payloads<'_>,
    ) {
        self.spis.remove(&offer.spi_i);
        if let Some(error) = payloads.notifies.iter().find(|notify| notify.kind.is_error()) {
            return self.on_ike_refused(at, session, which, error);
        }
        let lower: Option<Box<[u8]>> = payloads.nonce.map(|nonce| nonce.data.min(&offer.nonce[..]).into());
        let rival = offer.rival.as_ref().map(|rival| (rival.spi, rival.nonce.clone()));
        let settled = settle_ike(session, offer, payloads);
        let (Some(settled), Some(lower)) = (settled, lower) else {
            return self.refuse_rekey_answer(session);
        };
        if settled.additional != Additional::NONE {
            // The peer's own rekey has gone through meanwhile: ours is given up while it binds nobody.
            if rival.is_none() && which == Which::Current {
                let pending = settled.additional.methods().collect();
                let successor = OwnSuccessor::Ike(settled);
                if let Err(NoLink) = self.begin_own_followup(session, successor, pending, payloads) {
                    self.refuse_rekey_answer(session);
                }
            }
            return;
        }
        let replaced = session.sa(which).local_spi();
        let made = self.make_ike(at, session, which, &settled, &[]);
        let own = made.local_spi();
        // RFC 7296 §2.8.2: of two successors the one made with the lowest of the four nonces goes, by the hand
        // that made it; the other hand deletes what both replace.
        let lost = match rival {
            None => false,
            Some((spi, nonce)) => lower < nonce || session.ike.local_spi() != spi,
        };
        if lost {
            self.set_aside(at.now, session, made);
            return self.delete_other(at.now, session, own);
        }
        self.put_in_use(at.now, session, made, replaced);
    }

    /// An IKE SA that we began takes over from `replaced`, which is deleted.
    pub(super) fn put_in_use(&mut self, now: Instant, session: &mut Session, made: IkeSa, replaced: IkeSpi) {
        self.take_over(now, session, made);
        self.counters.exchanges.ike_rekeyed_here += 1;
        self.delete_other(now, session, replaced);
    }

    /// The peer has an SA that we cannot have: the two ends no longer agree.
    pub(super) fn refuse_rekey_answer(&mut self, session: &mut Session) {
        self.counters.drops.bad_answer += 1;
        session.wanted.delete_ike = true;
    }

    /// Makes the successor of `which`, with the secrets of additional key exchanges if there were any.
    pub(super) fn make_ike(
        &mut self,
        at: &Arrived,
        session: &Session,
        which: Which,
        settled: &Settled,
        additional: &[SharedSecret],
    ) -> IkeSa {
        let (suite, spi_i, spi_r, old) = (settled.suite, settled.spi_i, settled.spi_r, session.sa(which));
        let nonces = SaNonces { initiator: &settled.nonce_i, responder: &settled.nonce_r };
        let secrets = (&settled.shared, additional);
        let keys = IkeKeys::rekey_with(&suite, old.suite.prf, &old.sk_d, nonces, secrets, spi_i, spi_r);
        self.log_ike_keys(spi_i, spi_r, &suite, &keys);
        self.note_legacy(&suite);
        self.spis.insert(spi_i, SpiOwner::Other(session.id));
        IkeSa {
            spi_i,
            spi_r,
            initiator: true,
            suite,
            key_in: keys.responder_key(&suite),
            key_out: keys.initiator_key(&suite),
            sk_d: keys.sk_d,
            // RFC 7296 §2.8: Message IDs of the new IKE SA start from 0.
            window: Window::new(MessageId(0)),
            established: at.now,
            rekey_at: self.rekey_time(at.now, session.profile.rekey_ike),
            retries: 0,
        }
    }

    /// The peer has deleted the successor that it made itself, so ours stays, whose answer is still awaited on the
    /// IKE SA that both replace.
    pub(super) fn fall_back(&mut self, now: Instant, session: &mut Session) {
        let open = session.others.iter().position(|other| {
            other.sa.window.outstanding().is_some_and(|request| request.kind == OwnRequest::RekeyIke)
        });
        let Some(open) = open else { return };
        let mut replaced = session.others.remove(open).sa;
        if let Some(Outstanding { offer: Some(Offer::Ike(offer)), .. }) = replaced.window.outstanding_mut() {
            offer.rival = None;
        }
        self.spis.insert(replaced.local_spi(), SpiOwner::Current(session.id));
        let lost = std::mem::replace(&mut session.ike, replaced);
        let spi = lost.local_spi();
        self.set_aside(now, session, lost);
        self.drop_other(now, session, spi);
        session.rekeys = session.rekeys.saturating_sub(1);
    }

    pub(super) fn on_ike_refused(
        &mut self,
        at: &Arrived,
        session: &mut Session,
        which: Which,
        error: &NotifyView<'_>,
    ) {
        // One that the peer has replaced meanwhile needs no successor of ours.
        if which != Which::Current {
            return;
        }
        let expires = session.ike_expires();
        let ike = &mut session.ike;
        match error.kind {
            // RFC 9370 §2.2.4: a peer that has forgotten what our request goes on with wants it from the start.
            NotifyType::TEMPORARY_FAILURE | NotifyType::STATE_NOT_FOUND => {
                self.put_off(at.now, session, OwnRequest::RekeyIke)
            }
            NotifyType::INVALID_KE_PAYLOAD if ike.retries < GROUP_CHANGES_MAX => {
                ike.retries += 1;
                ike.rekey_at = at.now;
                session.wanted.group = error.ke_group();
            }
            // It stays for the rest of its lifetime.
            _ => {
                self.counters.exchanges.rekeys_refused += 1;
                ike.rekey_at = expires;
            }
        }
    }
}

/// Reads the answer to an offer; `None` when it agrees to what was not offered.
fn settle_ike(session: &Session, offer: IkeOffer, payloads: &Payloads<'_>) -> Option<Settled> {
    let (sa, ke, nonce) = (payloads.sa?, payloads.ke?, payloads.nonce?);
    let group = offer.exchange.group();
    let chosen = select_ike(&session.profile.ike, &sa, group)
        .filter(|chosen| chosen.additional == Additional::NONE || session.intermediate)
        .filter(|chosen| sa.is_answer() && chosen.suite.group == group && ke.group == group)?;
    Some(Settled {
        suite: chosen.suite,
        additional: chosen.additional,
        spi_i: offer.spi_i,
        spi_r: chosen.peer_spi.filter(|spi| !spi.is_zero())?,
        nonce_i: offer.nonce,
        nonce_r: nonce.data.to_vec(),
        shared: offer.exchange.agree(ke.data).ok()?,
    })
}
