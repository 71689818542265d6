//! IKE_FOLLOWUP_KE: the additional key exchanges of an IKE SA's rekey by the peer (RFC 9370 §2.2.4). The new IKE SA
//! comes about with the last of them.

use std::time::{Duration, Instant};

use codec::crypto::{IkeKeys, IkeSuite, KeyExchange, SaNonces, SharedSecret};
use codec::ike::payload::KeView;
use codec::ike::{IkeSpi, KeGroup, MessageBuilder, NotifyType};

use super::exchange::After;
use super::inner::Payloads;
use super::sa::Session;
use super::{Arrived, Core};

/// How long the peer may take from one exchange to the next.
const PATIENCE: Duration = Duration::from_secs(20);

/// Octets of the value by which the peer names the rekey it goes on with.
const LINK_LEN: usize = 8;

/// A rekey that is not complete.
pub(super) struct FollowUp {
    link: [u8; LINK_LEN],
    /// Key exchanges that are still to come; never empty.
    pending: Vec<KeGroup>,
    pub(super) suite: IkeSuite,
    pub(super) spi_i: IkeSpi,
    pub(super) spi_r: IkeSpi,
    pub(super) nonce_i: Vec<u8>,
    pub(super) nonce_r: [u8; 32],
    shared: SharedSecret,
    additional: Vec<SharedSecret>,
    expires: Instant,
}

/// What the first exchange of a rekey has settled.
pub(super) struct Begun {
    pub(super) suite: IkeSuite,
    pub(super) spi_i: IkeSpi,
    pub(super) spi_r: IkeSpi,
    pub(super) nonce_i: Vec<u8>,
    pub(super) nonce_r: [u8; 32],
    pub(super) shared: SharedSecret,
}

impl Core {
    /// Keeps a rekey until its additional key exchanges have been run, and tells the peer by what name.
    pub(super) fn begin_followup(
        &mut self,
        at: &Arrived,
        session: &mut Session,
        begun: Begun,
        pending: Vec<KeGroup>,
        builder: &mut MessageBuilder,
    ) {
        let Begun { suite, spi_i, spi_r, nonce_i, nonce_r, shared } = begun;
        let link = self.new_link();
        builder.notify(NotifyType::ADDITIONAL_KEY_EXCHANGE, &link);
        session.followup = Some(Box::new(FollowUp {
            link,
            pending,
            suite,
            spi_i,
            spi_r,
            nonce_i,
            nonce_r,
            shared,
            additional: Vec::new(),
            expires: at.now + PATIENCE,
        }));
    }

    /// Runs the next additional key exchange. With the last one the new IKE SA takes over.
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
            return self.refuse_syntax(builder);
        }
        let Ok((public, shared)) = KeyExchange::answer(method, ke.data, &mut *self.random) else {
            self.counters.drops.bad_ke_value += 1;
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
        let old = &session.ike;
        let nonces = SaNonces { initiator: &followup.nonce_i, responder: &followup.nonce_r };
        let keys = IkeKeys::rekey_with(
            &followup.suite,
            old.suite.prf,
            &old.sk_d,
            nonces,
            (&followup.shared, &followup.additional),
            followup.spi_i,
            followup.spi_r,
        );
        let (suite, spi_i, spi_r) = (followup.suite, followup.spi_i, followup.spi_r);
        self.log_ike_keys(spi_i, spi_r, &suite, &keys);
        After::Rekeyed(Box::new(self.responder_sa(at.now, session, suite, keys, spi_i, spi_r)))
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
