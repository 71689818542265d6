//! IKE_AUTH: who is it, may it, and its first Child SA (RFC 7296 §1.2, §2.15, §2.19, §2.21.2).

use std::time::Instant;

use codec::crypto::{IkeKeys, IkeSuite, SaNonces};
use codec::ike::payload::{CertView, IdView};
use codec::ike::{
    CertEncoding, ExchangeType, Flags, IkeHeader, IkeSpi, MessageBuilder, MessageId, NotifyType,
};

use super::aaa::{AaaOrder, Accepted, Attached, EndCause};
use super::authenticate::{Authenticated, Cause, Granted, identity};
use super::child::ChildRequest;
use super::config_payload::{self, AddressError};
use super::counters::DropCounters;
use super::handset;
use super::inner::Payloads;
use super::own_request::Destination;
use super::protect::Malformed;
use super::redirect::Follows;
use super::sa::{DerivedKeys, HalfOpen, IkeSa, Secrets, Session, SpiOwner, Wanted};
use super::window::Window;
use super::{Arrived, ConnUse, Core, Event, IkeKeyLog, KeyLog, Responder, Transmit, Verdict};
use crate::control::pool::Pool;
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
        self.core.record_failure(at.now, *half);
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

impl Core {
    /// Writes what a session gets beside its IKE SA. Returns whether that is a Child SA.
    fn complete(
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
    fn note_granted(&mut self, session: &Session, granted: Granted) {
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
    pub(super) fn record_failure(&mut self, now: Instant, half: HalfOpen) {
        let (then, wall) = self.clock;
        let began = match half.created.checked_duration_since(then) {
            Some(after) => wall + after,
            None => wall - then.saturating_duration_since(half.created),
        };
        let _ = now;
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
