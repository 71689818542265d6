//! What a session gets when it begins: addresses, its first Child SA, what phones ask for beside them; and what is kept of
//! an attempt that came to nothing.

use std::time::Instant;

use codec::crypto::{IkeKeys, IkeSuite};
use codec::ike::{IkeSpi, MessageBuilder, NotifyType};

use super::aaa::{AaaOrder, Accepted, Attached};
use super::authenticate::{Cause, Granted};
use super::child::ChildRequest;
use super::config_payload::{self, AddressError};
use super::counters::DropCounters;
use super::handset;
use super::inner::Payloads;
use super::sa::{HalfOpen, Session};
use super::{Arrived, Core, Event, IkeKeyLog, KeyLog};
use crate::control::pool::Pool;

impl Core {
    /// Writes what a session gets beside its IKE SA. Returns whether that is a Child SA.
    pub(super) fn complete(
        &mut self,
        at: &Arrived,
        session: &mut Session,
        half: &HalfOpen,
        payloads: &Payloads<'_>,
        accepted: Option<&Accepted>,
        builder: &mut MessageBuilder,
    ) -> bool {
        // RFC 4555 §3.1: what the notification may carry is for later versions.
        if session.profile.mobike && payloads.notify(NotifyType::MOBIKE_SUPPORTED).is_some() {
            session.mobike = true;
            builder.notify(NotifyType::MOBIKE_SUPPORTED, &[]);
        }
        if payloads.notify(NotifyType::TICKET_REQUEST).is_some() {
            self.give_ticket(at, session, builder);
        }
        handset::tell_slice(builder, &session.profile, payloads);
        self.first_child(at, session, half, payloads, accepted, builder)
    }

    /// Tells the back end what came of its consent.
    pub(super) fn note_granted(&mut self, session: &Session, granted: Granted) {
        let Granted { attempt, accepted, subject } = granted;
        let (session, inner) = (session.id, session.inner.clone());
        let attached = Attached { attempt, session, inner, timeout: accepted.session_timeout, subject };
        let order = AaaOrder::Attached(Box::new(attached));
        self.events.push_back(Event::Aaa(Box::new(order)));
    }

    /// Counts why a peer did not authenticate, and notes it in the attempt's record.
    pub(super) fn fail_auth(&mut self, now: Instant, half: &mut HalfOpen, cause: Cause) {
        *cause(&mut self.counters.drops) += 1;
        let mut only = DropCounters::default();
        *cause(&mut only) += 1;
        half.record.fail(now, only.in_words().unwrap_or("authentication failed"));
    }

    /// Keeps the record of a half-open IKE SA that came to nothing.
    pub(super) fn record_failure(&mut self, half: HalfOpen) {
        let (then, wall) = self.clock;
        let began = match half.created.checked_duration_since(then) {
            Some(after) => wall + after,
            None => wall - then.saturating_duration_since(half.created),
        };
        if let Some(failed) = half.record.into_failed(half.created, began, &half.path) {
            self.failed.keep(failed.clone());
            self.events.push_back(Event::AttemptFailed(Box::new(failed)));
        }
    }

    /// Gives the session its inner addresses and its first Child SA. A failure of either leaves the IKE SA
    /// up (RFC 7296 §2.21.2). Returns whether a Child SA was installed.
    fn first_child(
        &mut self,
        at: &Arrived,
        session: &mut Session,
        half: &HalfOpen,
        payloads: &Payloads<'_>,
        accepted: Option<&Accepted>,
        builder: &mut MessageBuilder,
    ) -> bool {
        // RFC 6023: an IKE_AUTH without SA and selectors wants no Child SA.
        let (Some(sa), Some(ts_i), Some(ts_r)) = (payloads.sa, payloads.ts_i, payloads.ts_r) else {
            return false;
        };
        let (fixed, p_cscf) = match accepted {
            Some(accepted) => (&*accepted.inner, &*accepted.p_cscf),
            None => (&[][..], &[][..]),
        };
        let name = accepted.and_then(|accepted| accepted.pool.as_deref());
        let network = session.profile.network;
        let of_network = |pool: &Pool, name: &str| pool.network() == network && pool.name() == name;
        let pool = name.and_then(|name| self.pools.iter().position(|pool| of_network(pool, name)));
        let pool = pool.or_else(|| self.pools.iter().position(|pool| pool.name() == session.profile.pool));
        let pool = pool.and_then(|index| self.pools.get_mut(index));
        let assigned = &mut self.assigned;
        match config_payload::assign(payloads.config.as_ref(), pool, &session.idi.key(), fixed, assigned) {
            Ok(inner) => session.inner = inner.into(),
            Err(AddressError::NotAsked) => {
                self.counters.drops.child_no_cp += 1;
                builder.notify(NotifyType::FAILED_CP_REQUIRED, &[]);
                return false;
            }
            Err(AddressError::Exhausted) => {
                self.counters.drops.child_no_address += 1;
                builder.notify(NotifyType::INTERNAL_ADDRESS_FAILURE, &[]);
                return false;
            }
        }
        if let Some(request) = &payloads.config {
            let profile = &session.profile;
            let p_cscf = if p_cscf.is_empty() { &*profile.handset.p_cscf } else { p_cscf };
            let told = config_payload::Told {
                dns: self.config.dns.get(network.index()).map_or(&[], Vec::as_slice),
                local_ts: &profile.local_ts,
                p_cscf,
                liveness: profile.handset.liveness,
            };
            config_payload::reply(builder, request, &session.inner, &told);
        }
        let (nonce_i, nonce_r) = (&*half.nonce_i, &*half.nonce_r);
        let request = ChildRequest { sa, ts_i, ts_r, nonce_i, nonce_r, ke: None, replaces: None };
        match self.make_child(at, session, &request) {
            Ok(child) => {
                child.write(builder, None);
                true
            }
            Err(error) => {
                self.refuse_child(&error, builder);
                false
            }
        }
    }

    /// Hands the keys of an IKE SA to the key log.
    pub(super) fn log_ike_keys(&mut self, spi_i: IkeSpi, spi_r: IkeSpi, suite: &IkeSuite, keys: &IkeKeys) {
        if !self.config.keylog {
            return;
        }
        let copy = |secret: &codec::crypto::Secret| secret.as_bytes().to_vec().into();
        self.events.push_back(Event::KeyLog(KeyLog::Ike(Box::new(IkeKeyLog {
            spi_i,
            spi_r,
            suite: *suite,
            sk_ei: copy(&keys.sk_ei),
            sk_er: copy(&keys.sk_er),
            sk_ai: copy(&keys.sk_ai),
            sk_ar: copy(&keys.sk_ar),
        }))));
    }
}
