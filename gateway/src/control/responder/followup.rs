//! IKE_FOLLOWUP_KE: the additional key exchanges of an SA that the peer makes with CREATE_CHILD_SA, an IKE SA or a Child
//! SA (RFC 9370 §2.2.4). The new SA comes about with the last of them.

use std::time::{Duration, Instant};

use codec::crypto::{IkeKeys, IkeSuite, KeyExchange, SaNonces, SharedSecret};
use codec::ike::payload::KeView;
use codec::ike::{IkeSpi, KeGroup, MessageBuilder, NotifyType};

use super::child::BegunChild;
use super::exchange::After;
use super::inner::Payloads;
use super::sa::Session;
use super::{Arrived, Core};

/// How long the peer may take from one exchange to the next.
const PATIENCE: Duration = Duration::from_secs(20);

/// Octets of the value by which the peer names the SA it goes on with.
const LINK_LEN: usize = 8;

/// An SA that is not complete.
pub(super) struct FollowUp {
    link: [u8; LINK_LEN],
    /// Key exchanges that are still to come; never empty.
    pending: Vec<KeGroup>,
    begun: Begun,
    additional: Vec<SharedSecret>,
    pub(super) expires: Instant,
}

/// What the first exchange has settled.
pub(super) struct Begun {
    pub(super) successor: Successor,
    pub(super) nonce_i: Vec<u8>,
    pub(super) nonce_r: [u8; 32],
    pub(super) shared: SharedSecret,
}

/// What comes about.
pub(super) enum Successor {
    /// An IKE SA in the place of the one in use.
    Ike { suite: IkeSuite, spi_i: IkeSpi, spi_r: IkeSpi },
    /// A Child SA.
    Child(Box<BegunChild>),
}

impl Core {
    /// Keeps an SA until its additional key exchanges have been run, and tells the peer by what name.
    pub(super) fn begin_followup(
        &mut self,
        at: &Arrived,
        session: &mut Session,
        begun: Begun,
        pending: Vec<KeGroup>,
        builder: &mut MessageBuilder,
    ) {
        let link = self.new_link();
        builder.notify(NotifyType::ADDITIONAL_KEY_EXCHANGE, &link);
        self.forget_followup(session);
        let expires = at.now + PATIENCE;
        let followup = FollowUp { link, pending, begun, additional: Vec::new(), expires };
        session.followup = Some(Box::new(followup));
    }

    /// Forgets an SA that did not become complete.
    pub(super) fn forget_followup(&mut self, session: &mut Session) {
        let Some(followup) = session.followup.take() else { return };
        if let Successor::Child(child) = &followup.begun.successor {
            self.esp_spis.remove(&child.spi_in);
        }
    }

    /// Runs the next additional key exchange. With the last one the new SA is there.
    pub(super) fn on_followup(
        &mut self,
        at: &Arrived,
        session: &mut Session,
        payloads: &Payloads<'_>,
        builder: &mut MessageBuilder,
    ) -> After {
        let named = payloads.notify(NotifyType::ADDITIONAL_KEY_EXCHANGE);
        let (Some(named), Some(ke)) = (named, payloads.ke) else { return self.refuse_syntax(builder) };
        let known = |followup: &FollowUp| followup.link == *named.data && followup.expires > at.now;
        let Some(mut followup) = session.followup.take_if(|followup| known(followup)) else {
            // RFC 9370 §2.2.4: not fatal; the peer starts over.
            self.counters.drops.followup_not_found += 1;
            builder.notify(NotifyType::STATE_NOT_FOUND, &[]);
            return After::Stay;
        };
        let method = followup.pending.remove(0);
        if ke.group != method {
            session.followup = Some(followup);
            self.forget_followup(session);
            return self.refuse_syntax(builder);
        }
        let Ok((public, shared)) = KeyExchange::answer(method, ke.data, &mut *self.random) else {
            self.counters.drops.bad_ke_value += 1;
            session.followup = Some(followup);
            self.forget_followup(session);
            return self.refuse_syntax(builder);
        };
        followup.additional.push(shared);
        builder.ke(&KeView { group: method, data: &public });
        if !followup.pending.is_empty() {
            followup.link = self.new_link();
            followup.expires = at.now + PATIENCE;
            builder.notify(NotifyType::ADDITIONAL_KEY_EXCHANGE, &followup.link);
            session.followup = Some(followup);
            return After::Stay;
        }
        let Begun { successor, nonce_i, nonce_r, shared } = &followup.begun;
        let nonces = SaNonces { initiator: nonce_i, responder: nonce_r };
        let secrets = (shared, &followup.additional[..]);
        match successor {
            &Successor::Ike { suite, spi_i, spi_r } => {
                let old = &session.ike;
                let keys =
                    IkeKeys::rekey_with(&suite, old.suite.prf, &old.sk_d, nonces, secrets, spi_i, spi_r);
                self.log_ike_keys(spi_i, spi_r, &suite, &keys);
                After::Rekeyed(Box::new(self.responder_sa(at.now, session, suite, keys, spi_i, spi_r)))
            }
            Successor::Child(child) => {
                let rekeyed = child.replaces.is_some();
                self.complete_child(at, session, child, nonces, (Some(shared), secrets.1));
                self.count_child(rekeyed);
                After::Installed
            }
        }
    }

    /// Whether a rekey waits for its next exchange.
    pub(super) fn is_following_up(&self, now: Instant, session: &Session) -> bool {
        session.followup.as_ref().is_some_and(|followup| followup.expires > now)
    }

    fn new_link(&mut self) -> [u8; LINK_LEN] {
        let mut link = [0; LINK_LEN];
        self.random.fill(&mut link);
        link
    }
}
