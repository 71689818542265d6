//! The IKEv2 responder: a state machine without sockets, clock or threads.
//!
//! It owns every IKE SA, half-open or established, the sessions built on them, their Child SAs as far as
//! IKE knows them, and the inner address pools. It never sees a packet of a UE and never decides where a
//! connection lives; it says so by [`Event`] and leaves the doing to the control thread.
//!
//! Invariants:
//! - A session's state changes only by a message that passed its integrity check, by a deadline or by an
//!   administrator (RFC 7296 §2.4).
//! - A connection carries at most one half-open IKE SA or one session (RFC 9329 §6.1).
//! - A session has at most one request of ours and one of the peer's open per IKE SA.
//! - Every table is bounded by [`Limits`]; work per message does not grow with the number of sessions.

mod aaa;
mod auth;
mod authenticate;
mod begin;
mod child;
mod config;
mod config_payload;
mod cookie;
mod counters;
mod create_child;
mod eap;
mod eap_proof;
mod event;
mod exchange;
mod followup;
mod fragment;
mod half_open;
mod handset;
mod identity;
mod informational;
mod init;
mod inner;
mod intermediate;
mod lingering;
mod mobike;
mod nat;
mod own_child;
mod own_followup;
mod own_ike;
mod own_request;
mod pacing;
mod ppk;
mod protect;
mod record;
mod redirect;
mod rekey;
mod reselect;
mod resend;
mod resume;
mod sa;
mod session;
mod ticket;
mod timers;
mod trace;
mod ts;
mod unsolved;
mod view;
mod window;

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ahash::{AHashMap, AHashSet};
use bytes::Bytes;
use codec::Random;
use codec::crypto::IkeProposal;
use codec::esp::EspSpi;
use codec::ike::{Flags, IkeHeader, IkeSpi, MessageBuilder, NotifyType};

pub use aaa::{
    AaaAnswer, AaaOrder, Accepted, Attached, AttemptId, EapMethod, EapStep, EndCause, RejectCause, Subject,
};
pub use config::{
    AuthKind, DeviceIdentity, EapIdentity, EapPolicy, Gateway, IkeTcpOffer, Limits, PpkPolicy, Profile, Psk,
    PskStore, Redirect, ResponderConfig, Resumption,
};
pub use counters::{DropCounters, ExchangeCounters, GaugeCounters, RejectCounters, ResponderCounters};
pub use event::{EspKeyLog, Event, IkeKeyLog, KeyLog, Transmit, Verdict};
pub use handset::Handset;
pub use identity::{Glob, IDENTITY_LEN_MAX, Identity};
pub use record::FailedAttempt;
pub use redirect::WAIT_DEFAULT;
pub use reselect::Reselection;
pub use trace::is_meant;
pub use view::{ChildView, IkeView, SessionView};

use crate::control::pool::Pool;
use crate::types::{CloseReason, ConnId, NetworkId, Path, SessionId, WorkerId};
use cookie::Cookies;
use half_open::{RateLimit, Sources};
use lingering::Lingering;
use own_request::Destination;
use pacing::Pacing;
use record::FailedAttempts;
use sa::{HalfOpen, Session, SpiOwner, Which};
use ticket::Tickets;
use timers::Timers;
use trace::Trace;
use unsolved::Unsolved;

/// The responder. One value serves all connections.
///
/// - Inputs: [`handle_message`](Self::handle_message), [`handle_conn_bound`](Self::handle_conn_bound),
///   [`handle_conn_moved`](Self::handle_conn_moved), [`handle_conn_closed`](Self::handle_conn_closed),
///   [`handle_esp_activity`](Self::handle_esp_activity),
///   [`handle_sequence_high`](Self::handle_sequence_high), [`handle_early_esp`](Self::handle_early_esp),
///   [`handle_timeout`](Self::handle_timeout).
/// - Commands: [`set_config`](Self::set_config), [`set_wall_clock`](Self::set_wall_clock),
///   [`terminate`](Self::terminate), [`drain`](Self::drain).
/// - Outputs: [`poll_event`](Self::poll_event), [`poll_transmit`](Self::poll_transmit),
///   [`poll_timeout`](Self::poll_timeout).
/// - Getters: [`sessions`](Self::sessions), [`counters`](Self::counters).
///
/// After every input or command drain the events, then the transmits, then ask for the next timeout: an
/// Install must be in force before the response that lets the UE use it leaves.
pub struct Responder {
    core: Core,
    half_open: AHashMap<IkeSpi, Box<HalfOpen>>,
    sessions: AHashMap<SessionId, Box<Session>>,
    /// Half-open IKE SAs by the initiator's SPI and address, to know a retransmitted IKE_SA_INIT.
    initiators: AHashMap<(IkeSpi, IpAddr), IkeSpi>,
    /// Sessions by the digest of their identity.
    by_identity: BTreeSet<(u64, SessionId)>,
    sources: Sources,
    /// Half-open IKE SAs by their authentication.
    attempts: AHashMap<AttemptId, IkeSpi>,
    next_attempt: u64,
    next_session: u64,
    draining: bool,
}

/// What handlers of a session need beside the session itself.
struct Core {
    config: Arc<ResponderConfig>,
    /// The `ike` proposals of all profiles in file order: IKE_SA_INIT comes before any identity.
    offers: Vec<IkeProposal>,
    random: Box<dyn Random + Send>,
    clock: (Instant, SystemTime),
    events: VecDeque<Event>,
    transmits: VecDeque<Transmit>,
    counters: ResponderCounters,
    pools: Vec<Pool>,
    spis: AHashMap<IkeSpi, SpiOwner>,
    esp_spis: AHashSet<EspSpi>,
    conns: AHashMap<ConnId, ConnUse>,
    timers: Timers<Owner>,
    hasher: ahash::RandomState,
    replies: RateLimit,
    cookies: Cookies,
    unsolved: Unsolved,
    pacing: Pacing,
    tickets: Tickets,
    lingering: Lingering,
    failed: FailedAttempts,
    trace: Option<Trace>,
    /// Whether what is going on is about the UE that is followed.
    traced: bool,
    /// Inner addresses of back ends, in use and outside every pool.
    assigned: AHashSet<(NetworkId, IpAddr)>,
    /// Redirections so far: the other gateways take turns.
    redirections: usize,
    /// Octets of all fragments that wait for others.
    fragment_octets: Arc<AtomicUsize>,
}

/// Who has a deadline.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Owner {
    HalfOpen(IkeSpi),
    Session(SessionId),
    /// Those who wait without a puzzle's solution.
    Unsolved,
    /// Those who wait because so many have come.
    Paced,
}

/// What a connection carries.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ConnUse {
    /// A half-open IKE SA, by our SPI.
    HalfOpen(IkeSpi),
    /// A session.
    Session(SessionId),
}

/// When and where a message came in.
#[derive(Clone, Copy)]
struct Arrived {
    now: Instant,
    conn: ConnId,
    path: Path,
}

impl Arrived {
    /// Whether a half-open IKE SA or a session lives on the connection. None lives on a UDP socket, which serves
    /// many, nor on a connection for IKE alone, which carries whatever request comes.
    fn is_home(&self) -> bool {
        self.path.transport.encapsulates()
    }

    /// What a session that is made by the message is bound to.
    fn home(&self) -> Destination {
        let conn = if self.is_home() { self.conn } else { ConnId::datagrams(self.conn.worker) };
        Destination { conn, path: self.path.of_session() }
    }
}

impl Responder {
    /// Makes a responder without sessions. `wall` is the time of day at `now`, for the validity of
    /// certificates.
    pub fn new(
        config: Arc<ResponderConfig>,
        mut random: Box<dyn Random + Send>,
        now: Instant,
        wall: SystemTime,
    ) -> Self {
        let mut seed = || {
            let mut octets = [0; 8];
            random.fill(&mut octets);
            u64::from_ne_bytes(octets)
        };
        let hasher = ahash::RandomState::with_seeds(seed(), seed(), seed(), seed());
        let limits = &config.limits;
        let core = Core {
            replies: RateLimit::new(limits.unprotected_replies_per_s, now),
            cookies: Cookies::new(&mut *random, now),
            unsolved: Unsolved::new(limits.unsolved_per_s, now),
            pacing: Pacing::new(limits.paced_per_s, limits.paced_per_prefix_per_s, now),
            tickets: Tickets::new(config.resumption.as_ref(), &mut *random),
            lingering: Lingering::new(limits.lingering_max, limits.lingering_timeout),
            failed: FailedAttempts::new(limits.failed_attempts_max),
            trace: None,
            traced: false,
            assigned: AHashSet::new(),
            pools: config.pools.iter().cloned().map(Pool::new).collect(),
            offers: offers(&config),
            config,
            random,
            clock: (now, wall),
            events: VecDeque::new(),
            transmits: VecDeque::new(),
            counters: ResponderCounters::default(),
            spis: AHashMap::new(),
            esp_spis: AHashSet::new(),
            conns: AHashMap::new(),
            timers: Timers::new(),
            hasher,
            redirections: 0,
            fragment_octets: Arc::default(),
        };
        Self {
            core,
            half_open: AHashMap::new(),
            initiators: AHashMap::new(),
            sessions: AHashMap::new(),
            by_identity: BTreeSet::new(),
            sources: Sources::default(),
            attempts: AHashMap::new(),
            next_attempt: 1,
            next_session: 1,
            draining: false,
        }
    }

    /// Replaces the configuration. New exchanges follow it; sessions stay with their profile, and keep
    /// their inner addresses as far as a pool of the same name still has them.
    pub fn set_config(&mut self, now: Instant, config: Arc<ResponderConfig>) {
        let mut pools: Vec<Pool> = config.pools.iter().cloned().map(Pool::new).collect();
        for session in self.sessions.values() {
            let network = session.profile.network;
            let from_pool = |addr: &&IpAddr| !self.core.assigned.contains(&(network, **addr));
            for addr in session.inner.iter().filter(from_pool) {
                let own = |pool: &&mut Pool| pool.name() == session.profile.pool && pool.contains(*addr);
                let of_network = |pool: &&mut Pool| pool.network() == network && pool.contains(*addr);
                let pool = match pools.iter_mut().find(own) {
                    Some(pool) => Some(pool),
                    None => pools.iter_mut().find(of_network),
                };
                pool.map(|pool| pool.reclaim(*addr));
            }
        }
        self.core.pools = pools;
        self.core.offers = offers(&config);
        self.core.replies = RateLimit::new(config.limits.unprotected_replies_per_s, now);
        self.core.unsolved.set_share(config.limits.unsolved_per_s, now);
        self.core.pacing.set_pace(config.limits.paced_per_s, config.limits.paced_per_prefix_per_s, now);
        self.core.tickets.set_key(config.resumption.as_ref());
        self.core.config = config;
    }

    /// Sets the time of day at `now`; to be repeated when the system clock may have been set.
    pub fn set_wall_clock(&mut self, now: Instant, wall: SystemTime) {
        self.core.clock = (now, wall);
    }

    /// Handles one IKE message, without marker and Length, that came in on `conn`. The message is
    /// decrypted in place.
    pub fn handle_message(&mut self, now: Instant, conn: ConnId, path: &Path, message: &mut [u8]) -> Verdict {
        self.core.counters.exchanges.messages += 1;
        let at = Arrived { now, conn, path: *path };
        let Some(header) = self.core.admit(&at, message) else { return Verdict::Bad };
        if header.spi_r.is_zero() {
            return self.on_sa_init(&at, &header, message);
        }
        let local = if header.flags.is_initiator() { header.spi_r } else { header.spi_i };
        match self.core.spis.get(&local).copied() {
            Some(SpiOwner::HalfOpen) => self.on_ike_auth(&at, &header, message),
            Some(SpiOwner::Current(id)) => self.on_session_message(&at, id, Which::Current, &header, message),
            Some(SpiOwner::Offered(id)) => self.on_early(&at, id),
            Some(SpiOwner::Other(id)) => {
                self.on_session_message(&at, id, Which::Other(local), &header, message)
            }
            None => self.core.on_unknown_spi(&at, &header, message),
        }
    }

    /// Takes note that a fresh authentic ESP packet moved the session to `conn` (RFC 9329 §6.1); a request
    /// of ours that waits for its response is sent again there (RFC 9329 §6.2).
    pub fn handle_conn_bound(&mut self, now: Instant, session: SessionId, conn: ConnId, path: &Path) {
        let Some(session) = self.sessions.get_mut(&session) else { return };
        session.last_inbound = now;
        self.core.attach_conn(session, conn, path);
        // What was held back for want of a connection.
        self.core.settle(now, session);
    }

    /// Takes note that a connection has another id now, because it changed worker.
    pub fn handle_conn_moved(&mut self, old: ConnId, new: ConnId) {
        self.core.unsolved.conn_moved(old, new);
        self.core.pacing.conn_moved(old, new);
        let Some(used) = self.core.conns.remove(&old) else { return };
        self.core.conns.insert(new, used);
        match used {
            ConnUse::HalfOpen(spi) => {
                if let Some(half) = self.half_open.get_mut(&spi).filter(|half| half.conn == old) {
                    half.conn = new;
                }
            }
            ConnUse::Session(id) => {
                if let Some(session) = self.sessions.get_mut(&id).filter(|session| session.conn == Some(old))
                {
                    session.conn = Some(new);
                }
            }
        }
    }

    /// Takes note that a connection is gone. What it carried stays (RFC 9329 §6.1). Returns the session that was there last,
    /// and its worker, which may have heard of it elsewhere since.
    pub fn handle_conn_closed(&mut self, conn: ConnId) -> Option<(SessionId, WorkerId)> {
        self.core.unsolved.conn_closed(conn);
        self.core.pacing.conn_closed(conn);
        let Some(ConnUse::Session(id)) = self.core.conns.remove(&conn) else { return None };
        let session = self.sessions.get_mut(&id).filter(|session| session.conn == Some(conn))?;
        session.conn = None;
        Some((id, session.worker))
    }

    /// Takes note of authentic inbound ESP: the peer is alive.
    pub fn handle_esp_activity(&mut self, now: Instant, session: SessionId) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.last_inbound = now;
        }
    }

    /// Takes note that the outbound sequence numbers of a Child SA run out: it is replaced now, and deleted
    /// if the peer does not agree to that.
    pub fn handle_sequence_high(&mut self, now: Instant, session: SessionId, spi_in: EspSpi) {
        let Some(found) = self.sessions.get_mut(&session) else { return };
        let limit = now + self.core.config.limits.replaced_timeout;
        if let Some(child) = found.child_mut(spi_in) {
            child.rekey_at = now;
            child.expires = child.expires.min(limit);
            self.core.settle(now, found);
        }
    }

    /// Takes note of ESP on `conn` for a Child SA that is on offer: the answer to the offer may be lost.
    pub fn handle_early_esp(&mut self, now: Instant, session: SessionId, conn: ConnId, path: &Path) {
        let _ = self.on_early(&Arrived { now, conn, path: *path }, session);
    }

    /// Does what is due at `now`. An early call is harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(owner) = self.core.timers.pop_due(now) {
            match owner {
                Owner::HalfOpen(spi) => self.on_half_open_due(spi),
                Owner::Session(id) => self.on_session_due(now, id),
                Owner::Unsolved => self.on_unsolved_due(now),
                Owner::Paced => self.on_paced_due(now),
            }
        }
        self.core.lingering.expire(now);
    }

    /// The next change to make, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.core.events.pop_front()
    }

    /// The next message to send; ask only when there are no more events.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.core.transmits.pop_front()
    }

    /// When [`Self::handle_timeout`] should be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.core.timers.next()
    }

    /// Deletes a session: asks the peer, then closes when it answers or does not in time. `false` when
    /// there is no such session.
    pub fn terminate(&mut self, now: Instant, session: SessionId) -> bool {
        let Some(session) = self.sessions.get_mut(&session) else { return false };
        self.core.start_closing(now, session);
        true
    }

    /// [`Self::terminate`], with the wish that the UE attach again: the P-CSCFs it was told are no longer good
    /// (TS 23.380 §5, the basic mechanism).
    pub fn reactivate(&mut self, now: Instant, session: SessionId) -> bool {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.wanted.reactivate = true;
        }
        self.terminate(now, session)
    }

    /// The worker that a session lives on.
    pub fn worker_of(&self, session: SessionId) -> Option<WorkerId> {
        self.sessions.get(&session).map(|session| session.worker)
    }

    /// Deletes every session and accepts no new one. UEs that can be sent to another gateway are, and have half of
    /// the time until `until` to leave on their own; nobody has longer than that.
    pub fn drain(&mut self, now: Instant, until: Instant) {
        self.draining = true;
        let patience = until.saturating_duration_since(now) / 2;
        for session in self.sessions.values_mut() {
            if !self.core.start_redirect(now, session, patience) {
                self.core.start_closing(now, session);
            }
        }
    }

    /// Every session, in no order.
    pub fn sessions(&self, now: Instant) -> impl Iterator<Item = SessionView<'_>> {
        self.sessions.values().map(move |session| session.view(now))
    }

    /// One session.
    pub fn session(&self, now: Instant, id: SessionId) -> Option<SessionView<'_>> {
        self.sessions.get(&id).map(|session| session.view(now))
    }

    /// The latest attempts to attach that failed, oldest first.
    pub fn failed_attempts(&self) -> impl Iterator<Item = &FailedAttempt> {
        self.core.failed.iter()
    }

    /// The owner of a session.
    pub fn owner(&self, id: SessionId) -> Option<WorkerId> {
        self.sessions.get(&id).map(|session| session.worker)
    }

    /// All counters.
    pub fn counters(&self) -> ResponderCounters {
        let mut counters = self.core.counters;
        counters.gauges = GaugeCounters {
            sessions: self.sessions.len() as u64,
            half_open: self.half_open.len() as u64,
            children: self.core.esp_spis.len() as u64,
            addresses: self.core.pools.iter().map(|pool| pool.in_use() as u64).sum(),
        };
        counters
    }

    /// The session that lives on a connection.
    fn session_on(&self, conn: ConnId) -> Option<SessionId> {
        let Some(&ConnUse::Session(id)) = self.core.conns.get(&conn) else { return None };
        self.sessions.contains_key(&id).then_some(id)
    }

    /// The half-open IKE SA that lives on a connection.
    fn half_open_on(&self, conn: ConnId) -> Option<IkeSpi> {
        let Some(&ConnUse::HalfOpen(spi)) = self.core.conns.get(&conn) else { return None };
        self.half_open.contains_key(&spi).then_some(spi)
    }
}

fn offers(config: &ResponderConfig) -> Vec<IkeProposal> {
    config.profiles.iter().flat_map(|profile| profile.ike.iter().cloned()).collect()
}

impl Core {
    /// Checks what the fixed header must be in any message we handle.
    fn admit(&mut self, at: &Arrived, message: &[u8]) -> Option<IkeHeader> {
        let drops = &mut self.counters.drops;
        let Ok(header) = IkeHeader::decode(message) else {
            drops.too_short += 1;
            return None;
        };
        if message.len() > self.config.limits.message_len_max {
            drops.too_long += 1;
            return None;
        }
        // RFC 7296 §2.5: the major version decides the format of all that follows; the minor is ignored.
        if header.version.major() != 2 {
            drops.bad_version += 1;
            if header.version.major() > 2 {
                self.reply_unprotected(at, &header, NotifyType::INVALID_MAJOR_VERSION);
            }
            return None;
        }
        if usize::try_from(header.length) != Ok(message.len()) {
            drops.length_mismatch += 1;
            self.reply_unprotected(at, &header, NotifyType::INVALID_SYNTAX);
            return None;
        }
        // RFC 7296 §3.1: the initiator's SPI is never zero.
        if header.spi_i.is_zero() {
            drops.bad_header += 1;
            self.reply_unprotected(at, &header, NotifyType::INVALID_SYNTAX);
            return None;
        }
        Some(header)
    }

    /// Answers a request in clear with one error notification, as often as the rate limit allows. A
    /// response is never answered (RFC 7296 §2.21).
    fn reply_unprotected(&mut self, at: &Arrived, header: &IkeHeader, kind: NotifyType) {
        if header.flags.is_response() {
            return;
        }
        if !self.replies.allow(at.now) {
            self.counters.drops.reply_rate_limited += 1;
            return;
        }
        self.counters.exchanges.unprotected_replies += 1;
        // RFC 7296 §2.21.4: SPIs, Message ID and exchange type are those of the request.
        let flags = Flags::new(!header.flags.is_initiator(), true);
        let mut builder =
            MessageBuilder::new(header.spi_i, header.spi_r, header.exchange, flags, header.message_id);
        builder.notify(kind, &[]);
        if let Ok(message) = builder.finish() {
            self.transmit(at.conn, &at.path, message.into());
        }
    }

    /// Queues a message, or its fragments in a row, that installs nothing.
    fn transmit(&mut self, conn: ConnId, path: &Path, message: Bytes) {
        let (path, owner) = (*path, conn.worker);
        self.queue(Transmit { conn, path, message, after_install: false, owner });
    }

    /// Queues a message, or its fragments in a row.
    fn queue(&mut self, transmit: Transmit) {
        for message in fragment::messages(transmit.message.clone()) {
            self.transmits.push_back(Transmit { message, ..transmit });
        }
    }

    /// Notes what a connection carries. UDP sockets are none: they carry any number of sessions.
    fn occupy(&mut self, conn: ConnId, used: ConnUse) {
        if !conn.is_datagrams() {
            self.conns.insert(conn, used);
        }
    }

    /// Ends the connection a message came in on, and only that; over UDP there is none to end.
    fn close_conn(&mut self, conn: ConnId, reason: CloseReason) {
        if !conn.is_datagrams() {
            self.events.push_back(Event::CloseConn { conn, reason });
        }
    }

    /// A request or response whose SPI is not ours.
    fn on_unknown_spi(&mut self, at: &Arrived, header: &IkeHeader, message: &[u8]) -> Verdict {
        if header.flags.is_response() {
            self.counters.drops.unknown_ike_spi_response += 1;
            return Verdict::Bad;
        }
        let local = if header.flags.is_initiator() { header.spi_r } else { header.spi_i };
        let digest = window::digest(&self.hasher, message);
        if let Some(response) = self.lingering.find(local, digest) {
            self.counters.exchanges.retransmissions_answered += 1;
            self.transmit(at.conn, &at.path, response);
            return Verdict::Good;
        }
        // The first fragment of a repeated request is answered; the others come with it (RFC 7383 §2.6.1).
        if fragment::is_fragment(header) && self.lingering.knows(local) {
            return Verdict::Good;
        }
        self.counters.drops.unknown_ike_spi += 1;
        self.reply_unprotected(at, header, NotifyType::INVALID_IKE_SPI);
        Verdict::Bad
    }

    /// The time of day at `now`, in seconds since 1970.
    fn unix_time(&self, now: Instant) -> u64 {
        let (then, wall) = self.clock;
        let since = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        (since + now.saturating_duration_since(then)).as_secs()
    }

    /// Draws an IKE SPI that no SA has.
    fn new_ike_spi(&mut self) -> IkeSpi {
        loop {
            let mut spi = IkeSpi::ZERO;
            self.random.fill(&mut spi.0);
            if !spi.is_zero() && !self.spis.contains_key(&spi) {
                return spi;
            }
        }
    }

    /// Draws an inbound ESP SPI of `worker` that no SA has.
    fn new_esp_spi(&mut self, worker: WorkerId) -> EspSpi {
        loop {
            let mut octets = [0; 4];
            self.random.fill(&mut octets);
            let drawn = worker.spi(u32::from_be_bytes(octets));
            if let Some(spi) = drawn.filter(|spi| self.esp_spis.insert(*spi)) {
                return spi;
            }
        }
    }
}
