//! REDIRECT, the gateway's part (RFC 5685): UEs that announce it are sent to other gateways, in IKE_SA_INIT under load or
//! while draining, after IKE_AUTH by their profile, and in the middle of a session when the gateway is drained.
//!
//! Nobody is sent round in circles: a UE that another gateway sent here is not sent on because of load, and never back
//! to where it comes from. Its own count of redirections (RFC 5685 §7) bounds what is left.

use std::time::{Duration, Instant};

use codec::ike::payload::RedirectView;
use codec::ike::{IkeHeader, MessageBuilder, NotifyType};

use super::config::{Gateway, Profile};
use super::inner::Payloads;
use super::sa::{HalfOpen, Session};
use super::{Arrived, Core, Responder};

/// How long a UE that was sent elsewhere by its profile stays, where nothing else is configured.
pub const WAIT_DEFAULT: Duration = Duration::from_secs(10);

/// Whether a peer can be sent to another gateway.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Follows {
    /// It did not say so.
    Never,
    /// REDIRECT_SUPPORTED.
    Yes,
    /// REDIRECTED_FROM: it has been already, by this gateway.
    From(Box<Gateway>),
}

impl From<&Payloads<'_>> for Follows {
    fn from(payloads: &Payloads<'_>) -> Self {
        // RFC 5685 §7: a REDIRECTED_FROM that cannot be read says as much as REDIRECT_SUPPORTED.
        let origin =
            payloads.notify(NotifyType::REDIRECTED_FROM).map(|notify| RedirectView::decode(notify.data));
        match origin {
            Some(Ok(view)) => Self::From(Box::new(view.gateway.into())),
            Some(Err(_)) => Self::Yes,
            None if payloads.notify(NotifyType::REDIRECT_SUPPORTED).is_some() => Self::Yes,
            None => Self::Never,
        }
    }
}

impl Follows {
    /// Whether the peer may be sent to `gateway`.
    fn may_go_to(&self, gateway: &Gateway) -> bool {
        match self {
            Self::Never => false,
            Self::Yes => true,
            Self::From(origin) => !gateway.is(&origin.id()),
        }
    }
}

/// Writes a REDIRECT; `nonce` is Ni in an IKE_SA_INIT response, else empty.
pub(super) fn notify(builder: &mut MessageBuilder, gateway: &Gateway, nonce: &[u8]) {
    builder.notify(NotifyType::REDIRECT, &RedirectView { gateway: gateway.id(), nonce }.to_data());
}

impl Responder {
    /// Answers an IKE_SA_INIT with another gateway if its sender is to be served there. Returns whether it did; nothing
    /// of the request is kept then.
    pub(super) fn redirect_init(
        &mut self,
        at: &Arrived,
        header: &IkeHeader,
        payloads: &Payloads<'_>,
    ) -> bool {
        let Some(redirect) = &self.core.config.redirect else { return false };
        let loaded = redirect.from_sessions > 0 && self.sessions.len() >= redirect.from_sessions;
        if !self.draining && !loaded {
            return false;
        }
        let follows = Follows::from(payloads);
        let sent_here = matches!(follows, Follows::From(_));
        if sent_here && !self.draining {
            return false;
        }
        // Without a nonce it is malformed, which is answered as such.
        let Some(nonce) = payloads.nonce else { return false };
        let Some(gateway) = self.core.next_gateway(&follows) else { return false };
        // RFC 5685 §3: the nonce shows the UE that whoever answers has seen its request.
        let data = RedirectView { gateway: gateway.id(), nonce: nonce.data }.to_data();
        self.core.counters.exchanges.redirected_inits += 1;
        self.core.answer_init(at, header, NotifyType::REDIRECT, &data);
        true
    }

    /// Where a UE that has just authenticated is to be served instead.
    pub(super) fn elsewhere(&mut self, half: &HalfOpen, profile: &Profile) -> Option<Gateway> {
        if self.draining {
            return self.core.next_gateway(&half.follows);
        }
        profile.redirect.clone().filter(|gateway| half.follows.may_go_to(gateway))
    }
}

impl Core {
    /// Whether a UE could be sent elsewhere while draining.
    pub(super) fn can_redirect(&self, half: &HalfOpen) -> bool {
        let others = self.config.redirect.iter().flat_map(|redirect| &redirect.to);
        others.into_iter().any(|gateway| half.follows.may_go_to(gateway))
    }

    /// The next gateway in turn that a peer may be sent to.
    fn next_gateway(&mut self, follows: &Follows) -> Option<Gateway> {
        let to = &self.config.redirect.as_ref()?.to;
        let start = self.redirections % to.len().max(1);
        let mut turn = to.iter().cycle().skip(start).take(to.len());
        let found = turn.find(|gateway| follows.may_go_to(gateway)).cloned()?;
        self.redirections = self.redirections.wrapping_add(1);
        Some(found)
    }

    /// Sends a UE elsewhere in the response that authenticates us: it gets no Child SA, and deletes the IKE SA
    /// (RFC 5685 §6).
    pub(super) fn redirect_attached(
        &mut self,
        now: Instant,
        session: &mut Session,
        gateway: &Gateway,
        builder: &mut MessageBuilder,
    ) {
        self.counters.exchanges.redirected_auths += 1;
        notify(builder, gateway, &[]);
        session.leave_by = Some(Box::new(now + self.redirect_wait()));
    }

    /// Asks the UE of a session to go elsewhere, if it can be asked. It has `patience` at most to delete the session
    /// before we do (RFC 5685 §5). Returns whether it is asked.
    pub(super) fn start_redirect(&mut self, now: Instant, session: &mut Session, patience: Duration) -> bool {
        if !session.redirectable || session.closing() || session.leave_by.is_some() {
            return session.leave_by.is_some();
        }
        let Some(gateway) = self.next_gateway(&Follows::Yes) else { return false };
        self.counters.exchanges.redirected_sessions += 1;
        session.wanted.redirect = Some(Box::new(gateway));
        session.leave_by = Some(Box::new(now + self.redirect_wait().min(patience)));
        self.settle(now, session);
        true
    }

    fn redirect_wait(&self) -> Duration {
        self.config.redirect.as_ref().map_or(WAIT_DEFAULT, |redirect| redirect.wait)
    }
}
