//! Child SAs that the gateway asks for: successors before a lifetime or the sequence numbers end, and
//! replacements for those that the peer has lost (RFC 7296 §1.3.3, §2.8, §2.25.1).

use bytes::Bytes;
use codec::crypto::{
    Additional, EspProposal, GroupPolicy, KeyExchange, SaNonces, SharedSecret, child_keymat_with, select_esp,
    select_esp_several,
};
use codec::esp::{EspSpi, EspSuite};
use codec::ike::payload::{KeView, NotifyView, Proposal, Transform};
use codec::ike::{ExchangeType, KeGroup, MessageId, NotifyType, ProtocolId};

use super::child::{MadeChild, NewChild};
use super::inner::Payloads;
use super::own_followup::{NoLink, OwnSuccessor};
use super::sa::{Selectors, Session};
use super::window::{Offer, Outstanding, OwnRequest};
use super::{Arrived, Core, Event, ts};

/// Times that a peer may ask for another group before its answer counts as putting us off.
const GROUP_CHANGES_MAX: u8 = 2;

/// Deletes of unknown SPIs that are remembered while an offer is open.
const EARLY_DELETES_MAX: usize = 8;

/// Our half of a Child SA that the peer has yet to agree to.
pub(super) struct ChildOffer {
    /// Inbound SPI of the child it replaces; `None` for one made anew.
    replaces: Option<EspSpi>,
    spi_in: EspSpi,
    nonce: [u8; 32],
    /// Our half of the exchange that gives PFS.
    exchange: Option<KeyExchange>,
    selectors: Selectors,
    /// The peer's own rekey of the same child, if it crossed ours.
    rival: Option<Rival>,
    /// SPIs unknown here that the peer deleted meanwhile: its answer may have been lost with a connection.
    deleted: Vec<EspSpi>,
}

/// What the peer's answer to an offer has settled.
pub(super) struct SettledChild {
    pub(super) replaces: Option<EspSpi>,
    pub(super) spi_in: EspSpi,
    spi_out: EspSpi,
    suite: EspSuite,
    selectors: Selectors,
    nonce_i: [u8; 32],
    nonce_r: Vec<u8>,
    shared: Option<SharedSecret>,
    /// SPIs unknown here that the peer deleted meanwhile.
    deleted: Vec<EspSpi>,
}

/// A Child SA that the peer made while ours was on offer.
pub(super) struct Rival {
    spi_in: EspSpi,
    /// The lower of its two nonces.
    nonce: Box<[u8]>,
}

/// Why an answer is of no use.
struct BadAnswer;

impl ChildOffer {
    /// The SPI on offer.
    pub(super) fn spi_in(&self) -> EspSpi {
        self.spi_in
    }
}

impl Core {
    /// Builds the request for a Child SA; `None` when no key could be made, or there is nothing to replace.
    pub(super) fn offer_child(
        &mut self,
        session: &mut Session,
        message_id: MessageId,
        replaces: Option<EspSpi>,
    ) -> Option<(Bytes, Option<Offer>)> {
        let selectors = match replaces {
            Some(spi) => session
                .children
                .iter()
                .find(|child| child.spi_in == spi)
                .map(|child| session.selectors_of(child)),
            None => session.wanted.child.take().map(|selectors| *selectors),
        }?;
        let profile = session.profile.clone();
        let own = profile.esp.first().and_then(|esp| esp.groups().first().copied());
        let group = session.wanted.group.take().filter(|group| is_offered(&profile.esp, *group)).or(own);
        let exchange = match group {
            Some(group) => Some(KeyExchange::generate(group, &mut *self.random).ok()?),
            None => None,
        };
        let nonce = self.new_nonce();
        let spi_in = self.new_esp_spi(session.worker);
        let worker = session.worker;
        self.events.push_back(Event::Announce { session: session.id, worker, spi_in });
        let offer =
            ChildOffer { replaces, spi_in, nonce, exchange, selectors, rival: None, deleted: Vec::new() };
        // RFC 9370 §2.2.4: further key exchanges follow, with a peer that can run them.
        let several = session.intermediate;
        let fits = |esp: &&EspProposal| several || esp.allows_plain();
        let transforms = |esp: &EspProposal| match several {
            true => esp.all_transforms(),
            false => esp.transforms(esp.groups()),
        };
        let transforms: Vec<_> = profile.esp.iter().filter(fits).map(transforms).collect();
        let (room, exchange) = (session.room(self), ExchangeType::CREATE_CHILD_SA);
        let message = self.seal_request(&mut session.ike, exchange, message_id, room, |builder| {
            if let Some(replaced) = offer.replaces {
                builder.notify_view(&NotifyView {
                    protocol: ProtocolId::ESP,
                    spi: &replaced.0.to_be_bytes(),
                    kind: NotifyType::REKEY_SA,
                    data: &[],
                });
            }
            builder.sa(&proposals(&transforms, &offer.spi_in.0.to_be_bytes())).nonce(&offer.nonce);
            if let Some(exchange) = &offer.exchange {
                builder.ke(&KeView { group: exchange.group(), data: exchange.public() });
            }
            // RFC 7296 §2.9: TSi is the side of who asks, which is the core's here.
            let list = |ranges: &[_]| ranges.iter().map(ts::selector).collect::<Vec<_>>();
            builder.ts_i(&list(&offer.selectors.local)).ts_r(&list(&offer.selectors.remote));
        });
        Some((message, Some(Offer::Child(offer))))
    }

    /// Notes that the peer has made a successor of the child that we are replacing ourselves; `nonce` is the
    /// lower one of its exchange.
    pub(super) fn note_child_rival(
        &mut self,
        session: &mut Session,
        replaced: EspSpi,
        made: &MadeChild,
        nonce: &[u8],
    ) {
        let Some(request) = session.ike.window.outstanding_mut() else { return };
        if let Some(Offer::Child(offer)) = &mut request.offer
            && offer.replaces == Some(replaced)
        {
            self.counters.exchanges.rekey_collisions += 1;
            offer.rival = Some(Rival { spi_in: made.spi_in(), nonce: nonce.into() });
        }
    }

    /// Takes the answer to an offer.
    pub(super) fn on_child_answer(
        &mut self,
        at: &Arrived,
        session: &mut Session,
        offer: ChildOffer,
        payloads: &Payloads<'_>,
    ) {
        if let Some(error) = payloads.notifies.iter().find(|notify| notify.kind.is_error()) {
            self.withdraw(session, offer.spi_in);
            return self.on_child_refused(at, session, offer, error);
        }
        let spi_in = offer.spi_in;
        if let Err(BadAnswer) = self.finish_child(at, session, offer, payloads) {
            // The peer holds a Child SA that we cannot have: the two ends no longer agree.
            self.counters.drops.bad_answer += 1;
            self.withdraw(session, spi_in);
            session.wanted.delete_ike = true;
        }
    }

    fn finish_child(
        &mut self,
        at: &Arrived,
        session: &mut Session,
        offer: ChildOffer,
        payloads: &Payloads<'_>,
    ) -> Result<(), BadAnswer> {
        let (Some(sa), Some(nonce), Some(ts_i), Some(ts_r)) =
            (payloads.sa, payloads.nonce, payloads.ts_i, payloads.ts_r)
        else {
            return Err(BadAnswer);
        };
        let ke = payloads.ke;
        let policy = GroupPolicy::Negotiate { any: &[], ke: ke.map(|ke| ke.group) };
        let select = if session.intermediate { select_esp_several } else { select_esp };
        let chosen = select(&session.profile.esp, &sa, policy).filter(|_| sa.is_answer());
        let chosen = chosen.ok_or(BadAnswer)?;
        let shared = match (chosen.group, offer.exchange, ke) {
            (None, _, _) => None,
            (Some(group), Some(own), Some(ke)) if own.group() == group && ke.group == group => {
                Some(own.agree(ke.data).map_err(|_| BadAnswer)?)
            }
            _ => return Err(BadAnswer),
        };
        let max = self.config.limits.selectors_max;
        let selectors = Selectors {
            local: ts::narrow(&ts::ranges(&ts_i), &offer.selectors.local, max),
            remote: ts::narrow(&ts::ranges(&ts_r), &offer.selectors.remote, max),
        };
        if selectors.local.is_empty() || selectors.remote.is_empty() {
            return Err(BadAnswer);
        }
        let settled = SettledChild {
            replaces: offer.replaces,
            spi_in: offer.spi_in,
            spi_out: chosen.peer_spi,
            suite: chosen.suite,
            selectors,
            nonce_i: offer.nonce,
            nonce_r: nonce.data.to_vec(),
            shared,
            deleted: offer.deleted,
        };
        if chosen.additional == Additional::NONE {
            self.complete_own_child(at, session, settled, &[], offer.rival);
            return Ok(());
        }
        if offer.rival.is_some() {
            // The peer's own rekey has gone through meanwhile: ours is given up while it binds nobody.
            self.withdraw(session, settled.spi_in);
            return Ok(());
        }
        let pending = chosen.additional.methods().collect();
        let successor = OwnSuccessor::Child(Box::new(settled));
        self.begin_own_followup(session, successor, pending, payloads).map_err(|NoLink| BadAnswer)
    }

    /// Derives the keys of a Child SA that we asked for and queues its installation.
    pub(super) fn complete_own_child(
        &mut self,
        at: &Arrived,
        session: &mut Session,
        settled: SettledChild,
        additional: &[SharedSecret],
        rival: Option<Rival>,
    ) {
        let SettledChild { replaces, spi_in, spi_out, suite, selectors, nonce_i, nonce_r, shared, deleted } =
            settled;
        let nonces = SaNonces { initiator: &nonce_i, responder: &nonce_r };
        let ike = &session.ike;
        let secrets = (shared.as_ref(), additional);
        let keymat = child_keymat_with(ike.suite.prf, &ike.sk_d, secrets, nonces, &suite);
        self.log_child_keys(at, (spi_in, &keymat.responder), (spi_out, &keymat.initiator));

        // RFC 7296 §2.8.1: of two successors the one made with the lowest of the four nonces goes, by the hand
        // that made it; the other hand deletes what both replace.
        let lower = (&nonce_r[..]).min(&nonce_i[..]);
        let rival = rival.filter(|rival| session.child_mut(rival.spi_in).is_some());
        let lost = rival.as_ref().filter(|rival| lower < &*rival.nonce).map(|rival| rival.spi_in);
        let replaced_by = at.now + self.config.limits.replaced_timeout;
        let old = replaces.and_then(|spi| session.child_mut(spi));
        let rekeys = old.as_ref().map_or(0, |old| old.rekeys + 1);
        if let Some(old) = old {
            old.replace(replaced_by);
            old.deleting |= lost.is_none();
        }
        if deleted.contains(&spi_out) {
            return self.withdraw(session, spi_in);
        }
        let new = NewChild {
            spi_in,
            spi_out,
            suite,
            rekeys,
            keys_in: keymat.responder,
            keys_out: keymat.initiator,
            selectors,
            // The peer has it in force already, so the downlink moves at once, unless it lost.
            standby_for: lost,
        };
        self.install(at.now, session, new);
        self.counters.exchanges.children_rekeyed_here += u64::from(lost.is_none());
        if lost.is_some()
            && let Some(own) = session.child_mut(spi_in)
        {
            own.replace(replaced_by);
            own.deleting = true;
        }
    }

    /// A key exchange for the successor of a child was refused; it is tried again later, or stays as it is.
    pub(super) fn on_child_followup_refused(
        &mut self,
        at: &Arrived,
        session: &mut Session,
        replaces: Option<EspSpi>,
        error: &NotifyView<'_>,
    ) {
        let Some(child) = replaces.and_then(|spi| session.child_mut(spi)) else { return };
        match error.kind {
            // RFC 9370 §2.2.4: a peer that has forgotten what our request goes on with wants it from the start.
            NotifyType::TEMPORARY_FAILURE | NotifyType::STATE_NOT_FOUND => {
                let kind = OwnRequest::RekeyChild(child.spi_in);
                self.put_off(at.now, session, kind);
            }
            _ => {
                self.counters.exchanges.rekeys_refused += 1;
                child.rekey_at = child.expires;
            }
        }
    }

    fn on_child_refused(
        &mut self,
        at: &Arrived,
        session: &mut Session,
        offer: ChildOffer,
        error: &NotifyView<'_>,
    ) {
        // Meanwhile the peer may have deleted or replaced the child itself.
        let replaced =
            offer.replaces.and_then(|spi| session.children.iter().position(|child| child.spi_in == spi));
        let Some(index) = replaced else {
            self.counters.exchanges.rekeys_refused += 1;
            return;
        };
        let child = &mut session.children[index];
        match error.kind {
            NotifyType::TEMPORARY_FAILURE => {
                let kind = OwnRequest::RekeyChild(child.spi_in);
                self.put_off(at.now, session, kind);
            }
            NotifyType::INVALID_KE_PAYLOAD if child.retries < GROUP_CHANGES_MAX => {
                child.retries += 1;
                child.rekey_at = at.now;
                session.wanted.group = error.ke_group();
            }
            // RFC 7296 §2.25.1: the peer has lost it; it is made anew.
            NotifyType::CHILD_SA_NOT_FOUND => {
                self.counters.exchanges.rekeys_refused += 1;
                self.remove_child(session, index);
                if !session.children.iter().any(|child| child.is_in_use()) {
                    session.wanted.child = Some(Box::new(offer.selectors));
                }
            }
            // It stays for the rest of its lifetime.
            _ => {
                self.counters.exchanges.rekeys_refused += 1;
                child.rekey_at = child.expires;
            }
        }
    }

    /// Takes back an SPI that was announced.
    pub(super) fn withdraw(&mut self, session: &Session, spi_in: EspSpi) {
        self.esp_spis.remove(&spi_in);
        self.events.push_back(Event::Withdraw { worker: session.worker, spi_in });
    }
}

impl Session {
    /// Remembers the Delete of an SPI that may be the one the peer chose in its answer to our offer.
    pub(super) fn note_early_delete(&mut self, spi: EspSpi) {
        if let Some(Outstanding { offer: Some(Offer::Child(offer)), .. }) = self.ike.window.outstanding_mut()
            && offer.deleted.len() < EARLY_DELETES_MAX
        {
            offer.deleted.push(spi);
        }
    }
}

/// One proposal for each list of transforms, all with our SPI.
fn proposals<'a>(transforms: &'a [Vec<Transform>], spi: &'a [u8]) -> Vec<Proposal<'a>> {
    let numbered = transforms.iter().zip(1..);
    let proposal = |(transforms, number): (&'a Vec<_>, _)| Proposal {
        number,
        protocol: ProtocolId::ESP,
        spi,
        transforms,
    };
    numbered.map(proposal).collect()
}

fn is_offered(proposals: &[EspProposal], group: KeGroup) -> bool {
    proposals.iter().any(|esp| esp.groups().contains(&group))
}
