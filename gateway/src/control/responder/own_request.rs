//! Requests that the gateway starts: liveness checks, Deletes and rekeys (RFC 7296 §1.3, §1.4).

use std::time::Instant;

use bytes::Bytes;
use codec::ike::{ExchangeType, IkeSpi, MessageId, NotifyType};

use super::exchange::Outcome;
use super::inner::Payloads;
use super::sa::{ChildSa, Session, Which};
use super::window::{Offer, Outstanding, OwnRequest};
use super::{Arrived, Core, Event, Responder, Transmit, Verdict, redirect};
use crate::types::{ConnId, Path, SessionId};

/// Where a message goes.
#[derive(Clone, Copy)]
pub(super) struct Destination {
    pub(super) conn: ConnId,
    pub(super) path: Path,
}

impl OwnRequest {
    /// The exchange it is made in.
    pub(super) fn exchange(self) -> ExchangeType {
        match self {
            Self::Liveness
            | Self::DeleteIke
            | Self::Redirect
            | Self::Reselect
            | Self::DeleteChild(_)
            | Self::Routability => ExchangeType::INFORMATIONAL,
            Self::RekeyChild(_) | Self::CreateChild | Self::RekeyIke => ExchangeType::CREATE_CHILD_SA,
            Self::FollowUp => ExchangeType::IKE_FOLLOWUP_KE,
        }
    }

    /// Whether it makes, replaces or deletes a Child SA.
    pub(super) fn is_about_a_child(self) -> bool {
        matches!(self, Self::RekeyChild(_) | Self::CreateChild | Self::DeleteChild(_))
    }
}

impl Core {
    /// Starts the most urgent waiting request, if none is open. Without a connection it is held until one
    /// is bound, while its deadline runs.
    pub(super) fn start_own_request(&mut self, now: Instant, session: &mut Session) {
        let Some(message_id) = session.ike.window.next_request() else { return };
        let Some(kind) = next_kind(now, session) else { return };
        let Some((message, offer)) = self.build(session, message_id, kind) else {
            // No key could be made: later, perhaps.
            return self.put_off(now, session, kind);
        };
        let limits = &self.config.limits;
        let patience = match kind {
            OwnRequest::DeleteIke => limits.delete_timeout,
            _ => limits.request_timeout,
        };
        // The owner must know of an SPI on offer before the peer can use it.
        let announced = matches!(offer, Some(Offer::Child(_)));
        let deadline = now + patience;
        let to = match &offer {
            Some(Offer::Address(candidate)) => Some(candidate.to),
            _ => None,
        };
        let request = Outstanding { message_id, message: message.clone(), kind, offer, to, deadline };
        session.ike.window.asked(request);
        self.counters.exchanges.requests_sent += 1;
        let here = session.conn.map(|conn| Destination { conn, path: session.path });
        if let Some(Destination { conn, path }) = to.or(here) {
            self.queue(Transmit { conn, path, message, after_install: announced, owner: session.worker });
        }
    }

    fn build(
        &mut self,
        session: &mut Session,
        message_id: MessageId,
        kind: OwnRequest,
    ) -> Option<(Bytes, Option<Offer>)> {
        let mut informational = |session: &mut Session, delete: &dyn Fn(&mut codec::ike::MessageBuilder)| {
            let exchange = ExchangeType::INFORMATIONAL;
            self.seal_request(&mut session.ike, exchange, message_id, None, |builder| delete(builder))
        };
        let message = match kind {
            OwnRequest::Liveness => informational(session, &|_| {}),
            OwnRequest::DeleteIke => {
                let reactivate = session.wanted.reactivate;
                informational(session, &|builder| {
                    builder.delete_ike();
                    if reactivate {
                        builder.notify(NotifyType::REACTIVATION_REQUESTED_CAUSE, &[]);
                    }
                })
            }
            OwnRequest::Redirect => {
                let gateway = session.wanted.redirect.take()?;
                informational(session, &|builder| redirect::notify(builder, &gateway, &[]))
            }
            OwnRequest::Reselect => self.tell_p_cscf(session, message_id),
            OwnRequest::DeleteChild(spi) => informational(session, &|builder| {
                builder.delete_esp(&[spi]);
            }),
            OwnRequest::Routability => {
                let candidate = session.wanted.candidate.take()?;
                let message = informational(session, &|builder| {
                    builder.notify(NotifyType::COOKIE2, &candidate.cookie);
                });
                return Some((message, Some(Offer::Address(candidate))));
            }
            OwnRequest::RekeyChild(spi) => return self.offer_child(session, message_id, Some(spi)),
            OwnRequest::CreateChild => return self.offer_child(session, message_id, None),
            OwnRequest::RekeyIke => return self.offer_ike(session, message_id),
            OwnRequest::FollowUp => return self.next_followup(session, message_id),
        };
        Some((message, None))
    }

    /// Deletes an IKE SA that is not the one in use. It goes with the answer, or with its time.
    pub(super) fn delete_other(&mut self, now: Instant, session: &mut Session, spi: IkeSpi) {
        let deadline = now + self.config.limits.replaced_timeout;
        let (conn, path) = (session.conn, session.path);
        let Some(other) = session.others.iter_mut().find(|other| other.sa.local_spi() == spi) else { return };
        let Some(message_id) = other.sa.window.next_request() else { return };
        let message =
            self.seal_request(&mut other.sa, ExchangeType::INFORMATIONAL, message_id, None, |builder| {
                builder.delete_ike();
            });
        other.sa.window.asked(Outstanding {
            message_id,
            message: message.clone(),
            kind: OwnRequest::DeleteIke,
            offer: None,
            to: None,
            deadline,
        });
        self.counters.exchanges.requests_sent += 1;
        if let Some(conn) = conn {
            self.transmit(conn, &path, message);
        }
    }

    /// Draws the consequences of an authentic response to `request`.
    pub(super) fn on_own_response(
        &mut self,
        at: &Arrived,
        session: &mut Session,
        which: Which,
        request: Outstanding,
        payloads: &Payloads<'_>,
    ) -> Outcome {
        // RFC 7296 §2.21.3: a peer that answers INVALID_SYNTAX has dropped the IKE SA.
        let dropped = payloads.notify(NotifyType::INVALID_SYNTAX).is_some();
        let gone = dropped || request.kind == OwnRequest::DeleteIke;
        if gone {
            return self.on_sa_gone(at.now, session, which, &request);
        }
        match request.offer {
            Some(Offer::Child(offer)) => self.on_child_answer(at, session, offer, payloads),
            Some(Offer::Ike(offer)) => self.on_ike_answer(at, session, which, offer, payloads),
            Some(Offer::FollowUp(followup)) => self.on_followup_answer(at, session, followup, payloads),
            Some(Offer::Address(candidate)) => self.on_routable(session, &candidate, payloads),
            None => match request.kind {
                OwnRequest::DeleteChild(spi) => {
                    if let Some(index) = session.children.iter().position(|child| child.spi_in == spi) {
                        self.remove_child(session, index);
                    }
                }
                OwnRequest::Reselect => self.counters.exchanges.p_cscf_told += 1,
                _ => {}
            },
        }
        Outcome::Good
    }

    /// The response to `request` says that the IKE SA is no more, or cannot be trusted to be.
    pub(super) fn on_sa_gone(
        &mut self,
        now: Instant,
        session: &mut Session,
        which: Which,
        request: &Outstanding,
    ) -> Outcome {
        self.withdraw_offer(session, request);
        match which {
            Which::Current => Outcome::End,
            Which::Other(spi) => {
                self.drop_other(now, session, spi);
                Outcome::Good
            }
        }
    }

    /// Removes a Child SA from the session and from the packet path.
    pub(super) fn remove_child(&mut self, session: &mut Session, index: usize) {
        let child = session.children.swap_remove(index);
        self.esp_spis.remove(&child.spi_in);
        let (session, worker) = (session.id, session.worker);
        self.events.push_back(Event::RemoveChild { session, worker, spi_in: child.spi_in });
    }

    /// Takes back what a request of ours offers.
    pub(super) fn withdraw_offer(&mut self, session: &Session, request: &Outstanding) {
        match &request.offer {
            Some(Offer::Child(offer)) => self.withdraw(session, offer.spi_in()),
            Some(Offer::Ike(offer)) => {
                self.spis.remove(&offer.spi());
            }
            Some(Offer::FollowUp(followup)) => self.abandon_followup(session, followup),
            Some(Offer::Address(_)) | None => {}
        }
    }

    /// Tries a rekey again later.
    pub(super) fn put_off(&mut self, now: Instant, session: &mut Session, kind: OwnRequest) {
        self.counters.exchanges.rekeys_put_off += 1;
        match kind {
            OwnRequest::RekeyChild(spi) => {
                if let Some(child) = session.child_mut(spi) {
                    child.rekey_at = self.retry_time(now, &mut child.retries);
                }
            }
            OwnRequest::RekeyIke => {
                session.ike.rekey_at = self.retry_time(now, &mut session.ike.retries);
            }
            // Whatever it was that is due.
            OwnRequest::FollowUp => {
                if session.ike.rekey_at <= now {
                    session.ike.rekey_at = self.retry_time(now, &mut session.ike.retries);
                }
                for child in session.children.iter_mut().filter(|child| child.rekey_at <= now) {
                    child.rekey_at = self.retry_time(now, &mut child.retries);
                }
            }
            _ => {}
        }
    }
}

impl Responder {
    /// A message or a packet came in for an SA that `id` has on offer: the peer has agreed, but its answer was lost
    /// with a connection or over UDP. The request goes out again where the peer is now, which proves nothing and moves
    /// nothing; only the peer has learned the SPI, from a protected message (RFC 9329 §6.2).
    pub(super) fn on_early(&mut self, at: &Arrived, id: SessionId) -> Verdict {
        let Some(session) = self.sessions.get(&id) else { return Verdict::Bad };
        let foreign = self.session_on(at.conn).is_some_and(|other| other != id);
        if foreign || self.half_open_on(at.conn).is_some() {
            self.core.counters.drops.foreign_session += 1;
            return Verdict::Bad;
        }
        if session.is_tcp_bound(&at.path) {
            self.core.counters.drops.tcp_bound += 1;
            return Verdict::Bad;
        }
        let others = session.others.iter().map(|other| &other.sa);
        let waiting = others.chain([&session.ike]).filter_map(|sa| sa.window.outstanding());
        if let Some(request) = waiting.into_iter().find(|request| request.offer.is_some())
            && (session.conn != Some(at.conn) || at.conn.is_datagrams())
        {
            self.core.counters.exchanges.requests_resent += 1;
            self.core.transmit(at.conn, &at.path, request.message.clone());
        }
        Verdict::Good
    }
}

/// The most urgent waiting request; takes it off the list.
fn next_kind(now: Instant, session: &mut Session) -> Option<OwnRequest> {
    if std::mem::take(&mut session.wanted.delete_ike) {
        return Some(OwnRequest::DeleteIke);
    }
    // Which IKE SA stays is about to be known: nothing is started on one that may go.
    if session.rekey_is_open() {
        return None;
    }
    // The peer waits for it, and for a short time only.
    if session.wanted.followup.is_some() {
        return Some(OwnRequest::FollowUp);
    }
    if session.wanted.redirect.is_some() {
        return Some(OwnRequest::Redirect);
    }
    if session.wanted.candidate.is_some() {
        return Some(OwnRequest::Routability);
    }
    if session.wanted.p_cscf {
        return Some(OwnRequest::Reselect);
    }
    if let Some(child) = session.children.iter().find(|child| child.deleting) {
        return Some(OwnRequest::DeleteChild(child.spi_in));
    }
    if session.conn.is_some() {
        if session.ike_rekey_due().is_some_and(|due| due <= now) {
            return Some(OwnRequest::RekeyIke);
        }
        let due = |child: &&ChildSa| child.is_in_use() && child.rekey_at <= now;
        if let Some(child) = session.children.iter().find(due).filter(|_| session.followup.is_none()) {
            return Some(OwnRequest::RekeyChild(child.spi_in));
        }
        if session.wanted.child.is_some() {
            return Some(OwnRequest::CreateChild);
        }
    }
    std::mem::take(&mut session.wanted.liveness).then_some(OwnRequest::Liveness)
}
