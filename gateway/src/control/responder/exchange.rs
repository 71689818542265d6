//! Messages of established IKE SAs: window, decryption, binding to the connection, dispatch.

use std::time::Instant;

use bytes::Bytes;
use codec::ike::{ExchangeType, IkeHeader, MessageBuilder, NotifyType};

use super::inner::Payloads;
use super::protect::Malformed;
use super::sa::{IkeSa, Session, SpiOwner};
use super::window::{self, Arrival};
use super::{Arrived, Core, Responder, Transmit, Verdict};
use crate::types::{CloseReason, SessionId, Transport};

/// What a message means for its session.
pub(super) enum Outcome {
    /// It was used.
    Good,
    /// It was not.
    Bad,
    /// It was used and ended the session.
    End,
}

/// What follows once the response to a request is recorded.
pub(super) enum After {
    /// Nothing.
    Stay,
    /// A Child SA was installed: the response must wait until it is in force.
    Installed,
    /// The session ends.
    End,
    /// The IKE SA that the current one replaced is gone.
    DropOld,
    /// This IKE SA takes over.
    Rekeyed(Box<IkeSa>),
}

impl Responder {
    pub(super) fn on_session_message(
        &mut self,
        at: &Arrived,
        id: SessionId,
        old: bool,
        header: &IkeHeader,
        message: &mut [u8],
    ) -> Verdict {
        // RFC 9329 §6.1: one IKE SA (and its successor) per connection.
        let foreign = self.session_on(at.conn).is_some_and(|other| other != id);
        if foreign || self.half_open_on(at.conn).is_some() {
            self.core.counters.drops.foreign_session += 1;
            return Verdict::Bad;
        }
        let session = self.sessions.get_mut(&id).expect("SPIs in the table belong to live sessions");
        // RFC 9329 §5: while it is TCP-encapsulated all of it is, until MOBIKE moves it.
        if at.path.transport == Transport::Udp && session.path.transport != Transport::Udp && !session.mobike
        {
            self.core.counters.drops.tcp_bound += 1;
            return Verdict::Bad;
        }
        let sa = session.sa(old);
        let ours = sa.spi_i == header.spi_i
            && sa.spi_r == header.spi_r
            && sa.initiator != header.flags.is_initiator();
        if !ours {
            return self.core.on_unknown_spi(at, header, message);
        }
        let outcome = if header.flags.is_response() {
            self.core.on_response(at, session, old, header, message)
        } else {
            self.core.on_request(at, session, old, header, message)
        };
        match outcome {
            Outcome::Bad => return Verdict::Bad,
            Outcome::Good => self.core.settle(at.now, session),
            Outcome::End => self.end_session(at.now, id),
        }
        Verdict::Good
    }
}

impl Core {
    fn on_request(
        &mut self,
        at: &Arrived,
        session: &mut Session,
        old: bool,
        header: &IkeHeader,
        message: &mut [u8],
    ) -> Outcome {
        let digest = window::digest(&self.hasher, message);
        match session.sa(old).window.arrival(header.message_id, digest) {
            Arrival::Fresh => {}
            // A repetition is answered where it came in and moves nothing (RFC 7296 §2.1, RFC 9329 §6.1).
            Arrival::Repeated(response) => {
                self.counters.exchanges.retransmissions_answered += 1;
                self.transmit(at.conn, &at.path, response);
                return Outcome::Good;
            }
            Arrival::Altered => {
                self.counters.drops.altered_retransmission += 1;
                return Outcome::Bad;
            }
            Arrival::Outside => {
                self.counters.drops.out_of_window += 1;
                return Outcome::Bad;
            }
        }
        let Some(payloads) = self.open(at, session.sa(old), message) else { return Outcome::Bad };
        session.last_inbound = at.now;
        self.bind(session, at.conn, &at.path);

        let sa = session.sa(old);
        let flags = sa.flags(true);
        let mut builder = MessageBuilder::new(sa.spi_i, sa.spi_r, header.exchange, flags, header.message_id);
        let after = match payloads {
            Ok(payloads) => self.dispatch(at, session, old, header.exchange, &payloads, &mut builder),
            Err(Malformed) => self.refuse_syntax(&mut builder),
        };
        let response = self.seal(builder, &mut session.sa_mut(old).key_out);
        session.sa_mut(old).window.answered(at.now, digest, &response);
        self.respond(at, session, response, matches!(after, After::Installed));
        self.finish_request(at.now, session, old, after)
    }

    /// Carries out one authentic, well-formed request and writes the response's payloads.
    fn dispatch(
        &mut self,
        at: &Arrived,
        session: &mut Session,
        old: bool,
        exchange: ExchangeType,
        payloads: &Payloads<'_>,
        builder: &mut MessageBuilder,
    ) -> After {
        // RFC 7296 §2.5: the whole message is rejected, the IKE SA stays.
        if let Some(kind) = payloads.unknown_critical {
            self.counters.drops.unknown_critical_payload += 1;
            builder.notify(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, &[kind.0]);
            return After::Stay;
        }
        match exchange {
            ExchangeType::INFORMATIONAL => {
                let informed = self.on_informational(session, payloads);
                if !informed.deleted.is_empty() {
                    builder.delete_esp(&informed.deleted);
                }
                match (informed.ike_deleted, old) {
                    (false, _) => After::Stay,
                    (true, false) => After::End,
                    (true, true) => After::DropOld,
                }
            }
            ExchangeType::CREATE_CHILD_SA => self.on_create_child(at, session, old, payloads, builder),
            _ => {
                self.counters.drops.unknown_exchange += 1;
                self.refuse_syntax(builder)
            }
        }
    }

    /// Answers INVALID_SYNTAX to an authentic request; the IKE SA goes, the connection stays
    /// (RFC 7296 §2.21.3, RFC 9329 §6.1).
    pub(super) fn refuse_syntax(&mut self, builder: &mut MessageBuilder) -> After {
        self.counters.drops.bad_syntax_protected += 1;
        builder.notify(NotifyType::INVALID_SYNTAX, &[]);
        After::End
    }

    fn respond(&mut self, at: &Arrived, session: &Session, message: Bytes, after_install: bool) {
        let (conn, path, owner) = (at.conn, at.path, session.worker);
        self.transmits.push_back(Transmit { conn, path, message, after_install, owner });
    }

    fn finish_request(&mut self, now: Instant, session: &mut Session, old: bool, after: After) -> Outcome {
        match after {
            After::Stay | After::Installed => {}
            After::End => return Outcome::End,
            After::DropOld => self.drop_old_ike(now, session),
            After::Rekeyed(successor) => {
                debug_assert!(!old, "an IKE SA that was replaced is not rekeyed");
                self.drop_old_ike(now, session);
                self.spis.insert(successor.local_spi(), SpiOwner::Current(session.id));
                let replaced = std::mem::replace(&mut session.ike, *successor);
                self.spis.insert(replaced.local_spi(), SpiOwner::Old(session.id));
                session.old = Some(Box::new((replaced, now + self.config.limits.replaced_timeout)));
                session.rekeys += 1;
                self.counters.exchanges.ike_rekeyed += 1;
            }
        }
        Outcome::Good
    }

    fn on_response(
        &mut self,
        at: &Arrived,
        session: &mut Session,
        old: bool,
        header: &IkeHeader,
        message: &mut [u8],
    ) -> Outcome {
        let awaited = session.sa(old).window.outstanding().map(|request| request.message_id);
        if awaited != Some(header.message_id) || header.exchange != ExchangeType::INFORMATIONAL {
            self.counters.drops.unexpected_response += 1;
            return Outcome::Bad;
        }
        let Some(payloads) = self.open(at, session.sa(old), message) else { return Outcome::Bad };
        session.last_inbound = at.now;
        let Some(request) = session.sa_mut(old).window.take_outstanding() else { return Outcome::Bad };
        self.bind(session, at.conn, &at.path);
        match payloads {
            Ok(payloads) => self.on_own_response(session, &request, &payloads),
            Err(Malformed) => {
                self.counters.drops.bad_syntax_protected += 1;
                Outcome::End
            }
        }
    }

    /// Counts an integrity failure on an established IKE SA and closes the connection it came in on, and
    /// only that: who knows SPIs may forge messages (RFC 9329 §6.1).
    pub(super) fn on_bad_icv(&mut self, at: &Arrived) {
        self.counters.drops.bad_icv += 1;
        self.close_conn(at.conn, CloseReason::IkeAuthFailed);
    }
}

impl Session {
    /// The IKE SA in use, or the one it replaced.
    fn sa(&self, old: bool) -> &IkeSa {
        match &self.old {
            Some(replaced) if old => &replaced.0,
            _ => &self.ike,
        }
    }

    fn sa_mut(&mut self, old: bool) -> &mut IkeSa {
        match &mut self.old {
            Some(replaced) if old => &mut replaced.0,
            _ => &mut self.ike,
        }
    }
}
