//! Messages of established IKE SAs: window, decryption, binding to the connection, dispatch.

use std::time::Instant;

use bytes::Bytes;
use codec::crypto::{SkError, open_skf};
use codec::ike::{ExchangeType, IkeHeader, MessageBuilder, NotifyType};

use super::aaa::EndCause;
use super::fragment::{self, Joined, Whole};
use super::inner::Payloads;
use super::mobike;
use super::protect::Malformed;
use super::sa::{IkeSa, Session, Which};
use super::window::{self, Arrival};
use super::{Arrived, Core, Responder, Transmit, Verdict};
use crate::types::{CloseReason, SessionId};

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
    /// The IKE SA in use lost a simultaneous rekey: the one that it replaced is in use again until the peer's
    /// answer to our own rekey arrives.
    FallBack,
    /// The IKE SA of the message, which is not the one in use, is gone.
    DropOther,
    /// This IKE SA takes over.
    Rekeyed(Box<IkeSa>),
}

impl Responder {
    pub(super) fn on_session_message(
        &mut self,
        at: &Arrived,
        id: SessionId,
        which: Which,
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
        if session.is_tcp_bound(&at.path) {
            self.core.counters.drops.tcp_bound += 1;
            return Verdict::Bad;
        }
        let sa = session.sa(which);
        let ours = sa.spi_i == header.spi_i
            && sa.spi_r == header.spi_r
            && sa.initiator != header.flags.is_initiator();
        if !ours {
            return self.core.on_unknown_spi(at, header, message);
        }
        self.core.trace_about(&session.idi);
        let outcome = if header.flags.is_response() {
            self.core.on_response(at, session, which, header, message)
        } else {
            self.core.on_request(at, session, which, header, message)
        };
        match outcome {
            Outcome::Bad => return Verdict::Bad,
            Outcome::Good => self.core.settle(at.now, session),
            Outcome::End => self.end_session(at.now, id, EndCause::Peer),
        }
        Verdict::Good
    }
}

impl Core {
    fn on_request(
        &mut self,
        at: &Arrived,
        session: &mut Session,
        which: Which,
        header: &IkeHeader,
        message: &mut [u8],
    ) -> Outcome {
        let mut digest = window::digest(&self.hasher, message);
        let fragment = fragment::is_fragment(header);
        match session.sa(which).window.arrival(header.message_id, digest) {
            Arrival::Fresh => {}
            // A repetition is answered where it came in and moves nothing (RFC 7296 §2.1, RFC 9329 §6.1).
            Arrival::Repeated(response) => {
                self.counters.exchanges.retransmissions_answered += 1;
                self.transmit(at.conn, &at.path, response);
                self.on_repeated_update(at, session);
                return Outcome::Good;
            }
            Arrival::Altered if fragment => return self.repeated_fragment(at, session, which, message),
            Arrival::Altered => {
                self.counters.drops.altered_retransmission += 1;
                return Outcome::Bad;
            }
            Arrival::Outside => {
                self.counters.drops.out_of_window += 1;
                return Outcome::Bad;
            }
        }
        let joined;
        let payloads = if fragment {
            joined = match self.join_message(at, session, which, header, message) {
                Ok(whole) => whole,
                Err(outcome) => return outcome,
            };
            digest = joined.digest;
            self.read(&joined)
        } else {
            let Some(payloads) = self.open(at, session.sa(which), message) else { return Outcome::Bad };
            payloads
        };
        session.last_inbound = at.now;
        self.bind(session, at.conn, &at.path);

        let sa = session.sa(which);
        let flags = sa.flags(true);
        let mut builder = MessageBuilder::new(sa.spi_i, sa.spi_r, header.exchange, flags, header.message_id);
        if let Ok(payloads) = &payloads {
            self.trace_in(header, payloads);
        }
        let after = match payloads {
            Ok(payloads) => self.dispatch(at, session, which, header.exchange, &payloads, &mut builder),
            Err(Malformed) => self.refuse_syntax(&mut builder),
        };
        let room = self.message_room(session.fragmentation, &at.path);
        let response = self.seal(builder, &mut session.sa_mut(which).key_out, room);
        session.sa_mut(which).window.answered(at.now, digest, &response);
        self.respond(at, session, response, matches!(after, After::Installed));
        self.finish_request(at.now, session, which, after)
    }

    /// Takes one fragment of a message; the whole message once it is there.
    fn join_message(
        &mut self,
        at: &Arrived,
        session: &mut Session,
        which: Which,
        header: &IkeHeader,
        message: &mut [u8],
    ) -> Result<Whole, Outcome> {
        if !session.fragmentation {
            self.counters.drops.unprotected += 1;
            return Err(Outcome::Bad);
        }
        let mut list = std::mem::take(&mut session.fragments);
        let sa = session.sa(which);
        let (response, message_id) = (header.flags.is_response(), header.message_id);
        let key = fragment::Key { spi: sa.local_spi(), response, message_id };
        let joined = self.join(at, key, &sa.key_in, &mut list, message);
        session.fragments = list;
        match joined {
            Joined::Whole(whole) => Ok(whole),
            Joined::Waiting => Err(Outcome::Good),
            Joined::Refused => Err(Outcome::Bad),
            Joined::BadIcv => {
                self.on_bad_icv(at);
                Err(Outcome::Bad)
            }
        }
    }

    /// A fragment with the number of the request answered last, but not of its octets: divided anew, or not the
    /// first. Only an authentic first one is answered, with the same response (RFC 7383 §2.6.1).
    fn repeated_fragment(
        &mut self,
        at: &Arrived,
        session: &Session,
        which: Which,
        message: &mut [u8],
    ) -> Outcome {
        let sa = session.sa(which);
        match open_skf(message, &sa.key_in) {
            Ok(fragment) => {
                if let Some(answer) = sa.window.answer().filter(|_| fragment.number == 1) {
                    self.counters.exchanges.retransmissions_answered += 1;
                    self.transmit(at.conn, &at.path, answer);
                }
                Outcome::Good
            }
            Err(SkError::BadIcv) => {
                self.on_bad_icv(at);
                Outcome::Bad
            }
            Err(_) => {
                self.counters.drops.bad_fragment += 1;
                Outcome::Bad
            }
        }
    }

    /// Sorts the payloads of a message that came in fragments.
    pub(super) fn read<'m>(&self, whole: &'m Whole) -> Result<Payloads<'m>, Malformed> {
        let max = self.config.limits.payloads_max;
        Payloads::decode(whole.first, &whole.chain, max).map_err(Malformed::from)
    }

    /// Carries out one authentic, well-formed request and writes the response's payloads.
    fn dispatch(
        &mut self,
        at: &Arrived,
        session: &mut Session,
        which: Which,
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
        session.last_was_update = mobike::is_update(payloads);
        match exchange {
            ExchangeType::INFORMATIONAL => {
                let informed = self.on_informational(session, payloads);
                if !informed.deleted.is_empty() && !session.profile.handset.empty_delete_response {
                    builder.delete_esp(&informed.deleted);
                }
                self.on_addresses(at, session, which, payloads, builder);
                // RFC 5723 §4.1: at any time.
                if which == Which::Current && payloads.notify(NotifyType::TICKET_REQUEST).is_some() {
                    self.give_ticket(at, session, builder);
                }
                match (informed.ike_deleted, which) {
                    (false, _) => After::Stay,
                    (true, Which::Current) if session.rekey_is_open() => After::FallBack,
                    (true, Which::Current) => After::End,
                    (true, Which::Other(_)) => After::DropOther,
                }
            }
            ExchangeType::IKE_FOLLOWUP_KE if which == Which::Current => {
                self.on_followup(at, session, payloads, builder)
            }
            ExchangeType::CREATE_CHILD_SA => self.on_create_child(at, session, which, payloads, builder),
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
        self.queue(Transmit { conn, path, message, after_install, owner });
    }

    fn finish_request(&mut self, now: Instant, session: &mut Session, which: Which, after: After) -> Outcome {
        match (after, which) {
            (After::Stay | After::Installed, _) => {}
            (After::FallBack, _) => self.fall_back(now, session),
            // An IKE SA that is no longer in use goes alone.
            (After::End | After::DropOther, Which::Other(spi)) => self.drop_other(now, session, spi),
            (After::End | After::DropOther, Which::Current) => return Outcome::End,
            (After::Rekeyed(successor), _) => {
                self.take_over(now, session, *successor);
                self.counters.exchanges.ike_rekeyed += 1;
            }
        }
        Outcome::Good
    }

    fn on_response(
        &mut self,
        at: &Arrived,
        session: &mut Session,
        which: Which,
        header: &IkeHeader,
        message: &mut [u8],
    ) -> Outcome {
        let awaited = session.sa(which).window.outstanding();
        let awaited = awaited.map(|request| (request.message_id, request.kind.exchange()));
        if awaited != Some((header.message_id, header.exchange)) {
            self.counters.drops.unexpected_response += 1;
            return Outcome::Bad;
        }
        let joined;
        let payloads = if fragment::is_fragment(header) {
            joined = match self.join_message(at, session, which, header, message) {
                Ok(whole) => whole,
                Err(outcome) => return outcome,
            };
            self.read(&joined)
        } else {
            let Some(payloads) = self.open(at, session.sa(which), message) else { return Outcome::Bad };
            payloads
        };
        session.last_inbound = at.now;
        let Some(request) = session.sa_mut(which).window.take_outstanding() else { return Outcome::Bad };
        self.bind(session, at.conn, &at.path);
        if let Ok(payloads) = &payloads {
            self.trace_in(header, payloads);
        }
        match payloads {
            Ok(payloads) => self.on_own_response(at, session, which, request, &payloads),
            Err(Malformed) => {
                self.counters.drops.bad_syntax_protected += 1;
                self.on_sa_gone(at.now, session, which, &request)
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
