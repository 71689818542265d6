//! IKE_AUTH: who is it, may it, and its first Child SA (RFC 7296 §1.2, §2.15, §2.19, §2.21.2).

use std::time::Instant;

use codec::crypto::{IkeKeys, SaNonces};
use codec::ike::payload::{CertView, IdView};
use codec::ike::{
    CertEncoding, ExchangeType, Flags, IkeHeader, IkeSpi, MessageBuilder, MessageId, NotifyType,
};

use super::aaa::EndCause;
use super::authenticate::{Authenticated, identity};
use super::inner::Payloads;
use super::own_request::Destination;
use super::protect::Malformed;
use super::redirect::Follows;
use super::sa::{DerivedKeys, HalfOpen, IkeSa, Secrets, Session, SpiOwner, Wanted};
use super::window::Window;
use super::{Arrived, ConnUse, Event, Responder, Transmit, Verdict};
use crate::types::{SessionId, Transport};

impl Responder {
    pub(super) fn on_ike_auth(&mut self, at: &Arrived, header: &IkeHeader, message: &mut [u8]) -> Verdict {
        let spi = header.spi_r;
        let ours = self.half_open.get(&spi).is_some_and(|half| half.spi_i == header.spi_i);
        if !ours || !header.flags.is_initiator() {
            return self.core.on_unknown_spi(at, header, message);
        }
        // RFC 9329 §6.1: one IKE SA per connection.
        let busy = self.half_open_on(at.conn).is_some_and(|other| other != spi);
        let drops = &mut self.core.counters.drops;
        if header.flags.is_response() {
            drops.unexpected_response += 1;
        } else if !matches!(header.exchange, ExchangeType::IKE_AUTH | ExchangeType::IKE_INTERMEDIATE) {
            drops.bad_header += 1;
        } else if busy {
            drops.half_open_busy += 1;
        } else if self.session_on(at.conn).is_some() {
            self.core.counters.drops.foreign_session += 1;
        } else {
            return self.open_half(at, spi, header, message);
        }
        Verdict::Bad
    }

    /// Answers an authentic IKE_AUTH: the half-open IKE SA becomes a session or is gone.
    pub(super) fn answer_ike_auth(
        &mut self,
        at: &Arrived,
        header: &IkeHeader,
        mut half: Box<HalfOpen>,
        digest: u64,
        payloads: Result<Payloads<'_>, Malformed>,
    ) {
        let Some(Secrets::Keys(mut keys)) = half.secrets.take() else { return };
        self.core.log_ike_keys(half.spi_i, half.spi_r, &half.suite, &keys.ike);
        let flags = Flags::new(false, true);
        let mut builder =
            MessageBuilder::new(half.spi_i, half.spi_r, header.exchange, flags, header.message_id);
        let admitted = match &payloads {
            Ok(payloads) => {
                self.admit_ike_auth(at, &mut half, header.message_id, &keys.ike, payloads, &mut builder)
            }
            Err(Malformed) => {
                self.core.refuse_syntax(&mut builder);
                None
            }
        };
        let (Some(mut peer), Ok(payloads)) = (admitted, payloads) else {
            self.refuse_half_open(at, half, &mut keys, digest, builder);
            return;
        };
        if let Some(mixed) = peer.mixed.take() {
            keys.ike = mixed;
            self.core.counters.exchanges.ppk_used += 1;
        }
        self.establish(at, half, header, digest, *keys, peer, &payloads, builder);
    }

    /// Ends a half-open IKE SA with a response that says why.
    pub(super) fn end_half_open(&mut self, at: &Arrived, spi: IkeSpi, digest: u64, builder: MessageBuilder) {
        let Some(mut half) = self.remove_half_open(spi) else { return };
        let Some(Secrets::Keys(mut keys)) = half.secrets.take() else { return };
        self.refuse_half_open(at, half, &mut keys, digest, builder);
    }

    fn refuse_half_open(
        &mut self,
        at: &Arrived,
        half: Box<HalfOpen>,
        keys: &mut DerivedKeys,
        digest: u64,
        builder: MessageBuilder,
    ) {
        let room = self.core.message_room(half.fragmentation, &at.path);
        let response = self.core.seal(builder, &mut keys.key_out, room);
        self.core.lingering.keep(at.now, half.spi_r, digest, (*response).into());
        self.core.transmit(at.conn, &at.path, response);
        self.core.record_failure(*half);
    }

    /// Makes a session for a peer that has authenticated. `payloads` are those of its first IKE_AUTH request,
    /// `header` and `digest` of its last; `builder` holds our half of the authentication.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn establish(
        &mut self,
        at: &Arrived,
        half: Box<HalfOpen>,
        header: &IkeHeader,
        digest: u64,
        keys: DerivedKeys,
        mut peer: Authenticated,
        payloads: &Payloads<'_>,
        mut builder: MessageBuilder,
    ) {
        let granted = peer.granted.take();
        let by_eap = granted.is_some();
        let mut session = self.new_session(at, &half, header.message_id, keys, peer);
        session.reselects = payloads.notify(NotifyType::P_CSCF_RESELECTION_SUPPORT).is_some();
        if by_eap {
            self.replace_same_apn(at, &session);
        } else if payloads.notify(NotifyType::INITIAL_CONTACT).is_some() {
            self.replace_earlier(at, &session);
        }
        if let Some(ticket) = &half.resumed {
            self.finish_resumption(at, ticket);
        }
        let elsewhere = self.elsewhere(&half, &session.profile);
        let installed = match elsewhere {
            Some(gateway) => {
                self.core.redirect_attached(at.now, &mut session, &gateway, &mut builder);
                false
            }
            None => {
                let accepted = granted.as_ref().map(|granted| &*granted.accepted);
                self.core.complete(at, &mut session, &half, payloads, accepted, &mut builder)
            }
        };
        let room = self.core.message_room(session.fragmentation, &at.path);
        let response = self.core.seal(builder, &mut session.ike.key_out, room);
        session.ike.window.answered(at.now, digest, &response);
        if at.is_home() {
            self.core.occupy(at.conn, ConnUse::Session(session.id));
        }
        let (id, worker) = (session.id, session.worker);
        self.core.announce(&session);
        let latency = at.now.saturating_duration_since(half.created);
        self.core.events.push_back(Event::Attached { session: id, latency });
        if let Some(granted) = granted {
            self.core.note_granted(&session, *granted);
        }
        self.core.queue(Transmit {
            conn: at.conn,
            path: at.path,
            message: response,
            after_install: installed,
            owner: worker,
        });
        self.core.counters.exchanges.attached += 1;
        self.by_identity.insert((self.core.digest_of(&session.idi), id));
        self.core.settle(at.now, &mut session);
        self.sessions.insert(id, session);
    }

    /// Authenticates the peer and ourselves and writes our half of that, or why not.
    fn admit_ike_auth(
        &mut self,
        at: &Arrived,
        half: &mut HalfOpen,
        auth_id: MessageId,
        keys: &IkeKeys,
        payloads: &Payloads<'_>,
        builder: &mut MessageBuilder,
    ) -> Option<Authenticated> {
        if !self.may_attach(at.now, half, payloads, builder) {
            return None;
        }
        let header = IkeHeader { message_id: auth_id, ..builder.header() };
        let header = IkeHeader { flags: Flags::new(true, false), ..header };
        self.core.trace_in(&header, payloads);
        match self.core.authenticate(at, half, auth_id, keys, payloads) {
            Ok(peer) => {
                let identity = &self.core.config.identity;
                builder.id_r(&IdView { kind: identity.kind(), data: identity.data() });
                for certificate in &peer.proof.certificates {
                    builder.cert(&CertView { encoding: CertEncoding::X509_SIGNATURE, data: certificate });
                }
                builder.auth(&peer.proof.auth());
                if peer.mixed.is_some() {
                    // RFC 8784 §3: the key was found.
                    builder.notify(NotifyType::PPK_IDENTITY, &[]);
                }
                Some(peer)
            }
            Err(cause) => {
                self.core.fail_auth(at.now, half, cause);
                builder.notify(NotifyType::AUTHENTICATION_FAILED, &[]);
                None
            }
        }
    }

    /// Whether an IKE_AUTH request is one that can be gone into, whoever it comes from; otherwise the response says
    /// why not.
    pub(super) fn may_attach(
        &mut self,
        now: Instant,
        half: &mut HalfOpen,
        payloads: &Payloads<'_>,
        builder: &mut MessageBuilder,
    ) -> bool {
        half.record.step(now, "ike_auth");
        if let Some(idi) = payloads.id_i.and_then(identity) {
            half.record.says(&idi, payloads.id_r.and_then(identity).as_ref());
            self.core.trace_about(&idi);
            half.traced = self.core.traced;
            self.core.trace_begun(half);
        }
        if let Some(kind) = payloads.unknown_critical {
            self.core.counters.drops.unknown_critical_payload += 1;
            half.record.fail(now, "an unknown payload was marked critical");
            builder.notify(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, &[kind.0]);
            return false;
        }
        // RFC 9370 §2.2.2: not before all key exchanges have been run.
        if payloads.id_i.is_none() || !half.pending.is_empty() {
            self.core.refuse_syntax(builder);
            return false;
        }
        let leaving = self.draining && !self.core.can_redirect(half);
        let max = self.core.config.limits.sessions_max;
        let kept = if self.core.asks_emergency(payloads) { 0 } else { self.core.reserved(max) };
        if leaving || self.sessions.len() >= max - kept {
            self.core.counters.drops.session_limit += 1;
            half.record.fail(now, "the gateway is draining or has as many sessions as it may");
            builder.notify(NotifyType::TEMPORARY_FAILURE, &[]);
            return false;
        }
        true
    }

    fn new_session(
        &mut self,
        at: &Arrived,
        half: &HalfOpen,
        auth_id: MessageId,
        keys: DerivedKeys,
        peer: Authenticated,
    ) -> Box<Session> {
        let id = SessionId(self.next_session);
        self.next_session += 1;
        self.core.spis.insert(half.spi_r, SpiOwner::Current(id));
        self.core.note_legacy(&half.suite);
        let rekey_at = self.core.rekey_time(at.now, peer.profile.rekey_ike);
        // A peer that came over UDP and went on over TCP 500 is still where it was.
        let over_udp = half.path.transport == Transport::Udp && at.path.transport == Transport::IkeTcp;
        let home = match over_udp {
            true => Destination { conn: half.conn, path: half.path },
            false => at.home(),
        };
        Box::new(Session {
            id,
            worker: at.conn.worker,
            conn: Some(home.conn),
            path: home.path,
            behind_nat: half.behind_nat,
            mobike: false,
            last_was_update: false,
            by_tcp: false,
            idi: peer.idi,
            idr: peer.idr,
            profile: peer.profile,
            inner: Box::default(),
            routed: false,
            ike: IkeSa {
                spi_i: half.spi_i,
                spi_r: half.spi_r,
                initiator: false,
                suite: half.suite,
                sk_d: keys.ike.sk_d,
                key_in: keys.key_in,
                key_out: keys.key_out,
                window: Window::new(auth_id),
                established: at.now,
                rekey_at,
                retries: 0,
            },
            others: Vec::new(),
            children: Vec::new(),
            established: at.now,
            last_inbound: at.now,
            rekeys: 0,
            intermediate: half.intermediate,
            followup: None,
            additional: half.additional,
            fragmentation: half.fragmentation,
            fragments: Vec::new(),
            authenticated: peer.since,
            redirectable: half.follows != Follows::Never,
            reselects: false,
            leave_by: None,
            wanted: Wanted::default(),
        })
    }

    /// INITIAL_CONTACT: the authenticated identity has no other session any more (RFC 7296 §2.4). Its earlier
    /// ones end without a Delete, which nobody would answer.
    fn replace_earlier(&mut self, at: &Arrived, session: &Session) {
        let digest = self.core.digest_of(&session.idi);
        let found = self.by_identity.range((digest, SessionId(0))..=(digest, SessionId(u64::MAX)));
        let same = |id: &SessionId| self.sessions.get(id).is_some_and(|other| other.idi == session.idi);
        let earlier: Vec<SessionId> = found.map(|(_, id)| *id).filter(same).collect();
        for id in earlier {
            self.core.counters.exchanges.initial_contact_replaced += 1;
            self.end_session(at.now, id, EndCause::Replaced);
        }
    }

    /// A subscriber has one session per APN: an earlier one is told so, once, and ends. Sessions with other APNs are
    /// other PDN connections, and stay whatever INITIAL_CONTACT says.
    fn replace_same_apn(&mut self, at: &Arrived, session: &Session) {
        let digest = self.core.digest_of(&session.idi);
        let found = self.by_identity.range((digest, SessionId(0))..=(digest, SessionId(u64::MAX)));
        let same = |id: &SessionId| {
            let other = self.sessions.get(id);
            other.is_some_and(|other| other.idi == session.idi && other.idr.names_same(&session.idr))
        };
        let earlier: Vec<SessionId> = found.map(|(_, id)| *id).filter(same).collect();
        for id in earlier {
            self.core.counters.exchanges.same_apn_replaced += 1;
            if let Some(other) = self.sessions.get_mut(&id) {
                self.core.start_closing(at.now, other);
            }
            self.end_session(at.now, id, EndCause::Replaced);
        }
    }
}

impl HalfOpen {
    /// The keys, computed on first use; `None` when the peer's public value is forbidden.
    pub(super) fn derive_keys(&mut self) -> Option<&DerivedKeys> {
        let shared = match self.secrets.take()? {
            Secrets::Exchange { own, peer } => Ok(own.agree(&peer).ok()?),
            Secrets::Shared(shared) => Ok(shared),
            keys @ Secrets::Keys(_) => Err(keys),
        };
        let secrets = match shared {
            Ok(shared) => {
                let nonces = SaNonces { initiator: &self.nonce_i, responder: &self.nonce_r };
                let keys = IkeKeys::derive(&self.suite, nonces, &shared, self.spi_i, self.spi_r);
                Secrets::Keys(Box::new(DerivedKeys::new(keys, &self.suite)))
            }
            Err(keys) => keys,
        };
        match self.secrets.insert(secrets) {
            Secrets::Keys(keys) => Some(keys),
            Secrets::Exchange { .. } | Secrets::Shared(_) => None,
        }
    }
}
