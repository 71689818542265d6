//! Sessions as wholes: where they are, when they are due, how they end.

use std::time::{Duration, Instant};

use codec::ike::IkeSpi;

use super::aaa::EndCause;
use super::identity::Identity;
use super::own_request::Destination;
use super::sa::{ANSWER_KEPT, IkeSa, RETIRING_MAX, Retiring, Session, SpiOwner};
use super::view::{ChildView, IkeView, SessionView};
use super::window::{OwnRequest, Window};
use super::{ConnUse, Core, Event, Owner, Responder};
use crate::control::pool::Pool;
use crate::types::{ConnId, Follow, Path, SessionId, Transport};

/// Keeps a deadline that is due again at once from being handled in a loop.
const RESCHEDULE_MIN: Duration = Duration::from_millis(1);

impl Core {
    /// Notes that `session` proved to be on `conn`, and sends a request of ours that awaits its response
    /// again there. Returns whether it moved.
    pub(super) fn attach_conn(&mut self, session: &mut Session, conn: ConnId, path: &Path) -> bool {
        if session.conn == Some(conn) && (!conn.is_datagrams() || session.path == *path) {
            return false;
        }
        if session.conn.is_some() {
            self.counters.exchanges.connection_switches += 1;
        }
        session.conn = Some(conn);
        session.path = *path;
        self.occupy(conn, ConnUse::Session(session.id));
        self.repeat_requests(session, Destination { conn, path: *path }, None);
        true
    }

    /// Takes note of a fresh authentic IKE message: the session moves to where it came from, if it follows.
    pub(super) fn bind(&mut self, session: &mut Session, conn: ConnId, path: &Path) {
        if session.follows_to(path) {
            self.move_to(session, conn, path);
        }
    }

    /// Moves a session to a connection or, with [`ConnId::datagrams`], to a UDP path; the packet path hears of it.
    pub(super) fn move_to(&mut self, session: &mut Session, conn: ConnId, path: &Path) {
        if self.attach_conn(session, conn, path) {
            self.announce(session);
        }
    }

    /// Tells the packet path where a session is.
    pub(super) fn announce(&mut self, session: &Session) {
        let Some(conn) = session.conn else { return };
        let (path, follow) = (session.path, session.follow());
        let (session, worker) = (session.id, session.worker);
        self.events.push_back(Event::Bind { session, worker, conn, path, follow });
    }

    /// Starts the next waiting request of ours and sets the session's alarm. To be called after anything
    /// that may have changed what is due.
    pub(super) fn settle(&mut self, now: Instant, session: &mut Session) {
        self.trace_about(&session.idi);
        self.start_own_request(now, session);
        self.arm_resends(now, session);
        if let Some(due) = session.next_due() {
            self.timers.schedule(Owner::Session(session.id), due.max(now + RESCHEDULE_MIN));
        }
    }

    /// Starts deleting a session from our side.
    pub(super) fn start_closing(&mut self, now: Instant, session: &mut Session) {
        if !session.closing() {
            session.wanted.delete_ike = true;
            // A peer that does not answer what we asked before will not answer the Delete either.
            let deadline = now + self.config.limits.delete_timeout;
            session.ike.window.hurry(deadline);
        }
        self.settle(now, session);
    }
}

impl Responder {
    pub(super) fn on_session_due(&mut self, now: Instant, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        self.core.resend_due(now, session);
        if let Some(request) = session.ike.window.outstanding().filter(|request| request.deadline <= now) {
            // RFC 7296 §2.4, RFC 9329 §6.2: on timeout the SA is deleted.
            let asked_to_leave = request.kind == OwnRequest::DeleteIke || session.wanted.delete_ike;
            if !asked_to_leave {
                self.core.counters.exchanges.peer_dead += 1;
            }
            let cause = if asked_to_leave { EndCause::Error } else { EndCause::Lost };
            self.end_session(now, id, cause);
            return;
        }
        if session.ike.window.answered_at().is_some_and(|at| at + ANSWER_KEPT <= now) {
            session.ike.window.forget_answer();
        }
        if session.leave_by.take_if(|due| **due <= now).is_some() {
            self.core.start_closing(now, session);
        }
        if session.followup.as_ref().is_some_and(|followup| followup.expires <= now) {
            self.core.forget_followup(session);
        }
        self.core.expire_fragments(now, &mut session.fragments);
        while let Some(old) = session.others.iter().find(|other| other.expires <= now) {
            let spi = old.sa.local_spi();
            self.core.drop_other(now, session, spi);
        }
        if session.ike_expires() <= now && !session.closing() {
            self.core.counters.exchanges.expired += 1;
            session.wanted.delete_ike = true;
        }
        for child in session.children.iter_mut().filter(|child| child.expires <= now) {
            child.deleting = true;
        }
        if session.liveness_due().is_some_and(|due| due <= now) {
            session.wanted.liveness = true;
        }
        self.core.settle(now, session);
    }

    /// Ends a session at once. What the peer may still ask about it is answered from the cache for a while.
    pub(super) fn end_session(&mut self, now: Instant, id: SessionId, cause: EndCause) {
        let Some(mut session) = self.sessions.remove(&id) else { return };
        let core = &mut self.core;
        core.counters.exchanges.detached += 1;
        core.timers.cancel(Owner::Session(id));
        while let Some(spi) = session.others.last().map(|other| other.sa.local_spi()) {
            core.drop_other(now, &mut session, spi);
        }
        if let Some(request) = session.ike.window.take_outstanding() {
            core.withdraw_offer(&session, &request);
        }
        core.forget_followup(&mut session);
        if let Some(followup) = session.wanted.followup.take() {
            core.abandon_followup(&session, &followup);
        }
        for child in &session.children {
            core.esp_spis.remove(&child.spi_in);
        }
        if let Some(conn) = session.conn {
            core.conns.remove(&conn);
        }
        core.release_addresses(&session);
        self.by_identity.remove(&(core.digest_of(&session.idi), id));
        let spi = session.ike.local_spi();
        core.spis.remove(&spi);
        core.linger(now, spi, session.ike.window);
        let inner = if session.routed { session.inner } else { Box::default() };
        let (worker, network) = (session.worker, session.profile.network);
        core.events.push_back(Event::CloseSession { session: id, worker, network, inner, cause });
    }
}

impl Core {
    /// Gives inner addresses back to where they came from.
    fn release_addresses(&mut self, session: &Session) {
        let key = session.idi.key();
        for addr in &session.inner {
            if self.assigned.remove(&(session.profile.network, *addr)) {
                continue;
            }
            let own = |pool: &&mut Pool| pool.name() == session.profile.pool && pool.contains(*addr);
            let network = session.profile.network;
            let of_network = |pool: &&mut Pool| pool.network() == network && pool.contains(*addr);
            // A back end may have named another pool than the profile.
            let pool = match self.pools.iter_mut().find(own) {
                Some(pool) => Some(pool),
                None => self.pools.iter_mut().find(of_network),
            };
            if let Some(pool) = pool {
                pool.release(&key, *addr);
            }
        }
    }

    /// Forgets an IKE SA that is no longer in use.
    pub(super) fn drop_other(&mut self, now: Instant, session: &mut Session, spi: IkeSpi) {
        let Some(at) = session.others.iter().position(|other| other.sa.local_spi() == spi) else { return };
        let mut other = session.others.remove(at);
        self.spis.remove(&spi);
        if let Some(request) = other.sa.window.take_outstanding() {
            self.withdraw_offer(session, &request);
        }
        self.linger(now, spi, other.sa.window);
    }

    /// Puts an IKE SA aside until it is deleted; the oldest makes room.
    pub(super) fn set_aside(&mut self, now: Instant, session: &mut Session, sa: IkeSa) {
        if session.others.len() == RETIRING_MAX {
            let oldest = session.others[0].sa.local_spi();
            self.drop_other(now, session, oldest);
        }
        self.spis.insert(sa.local_spi(), SpiOwner::Other(session.id));
        let expires = now + self.config.limits.replaced_timeout;
        session.others.push(Retiring { sa, expires });
    }

    /// Makes `successor` the session's IKE SA: it inherits the Child SAs (RFC 7296 §2.8).
    pub(super) fn take_over(&mut self, now: Instant, session: &mut Session, successor: IkeSa) {
        self.spis.insert(successor.local_spi(), SpiOwner::Current(session.id));
        let replaced = std::mem::replace(&mut session.ike, successor);
        self.set_aside(now, session, replaced);
        session.rekeys += 1;
    }

    /// Keeps the last answer of an IKE SA that is gone.
    fn linger(&mut self, now: Instant, spi: IkeSpi, window: Window) {
        if let Some(answer) = window.into_last() {
            self.lingering.keep(now, spi, answer.digest, answer.response);
        }
    }

    /// What an identity is found by; keyed, so that a peer cannot aim for a collision.
    pub(super) fn digest_of(&self, identity: &Identity) -> u64 {
        self.hasher.hash_one(identity)
    }
}

impl Session {
    /// What an authentic packet from elsewhere does to it while it is on UDP.
    pub(super) fn follow(&self) -> Follow {
        if !self.path.carries_esp() || (self.behind_nat && !self.mobike) {
            Follow::Any
        } else if self.mobike && !self.by_tcp {
            Follow::Never
        } else {
            Follow::Tcp
        }
    }

    /// Whether what comes on `path` is not for it: while it is TCP-encapsulated all of it is, until MOBIKE moves it
    /// (RFC 9329 §5).
    pub(super) fn is_tcp_bound(&self, path: &Path) -> bool {
        self.path.transport.encapsulates()
            && match path.transport {
                Transport::Tcp | Transport::Tls => false,
                Transport::Udp => !self.mobike,
                Transport::IkeTcp => true,
            }
    }

    /// Whether a fresh authentic message that came on `path` moves it there (RFC 9329 §5 and §6.1, RFC 7296 §2.23).
    fn follows_to(&self, path: &Path) -> bool {
        match (self.path.transport, path.transport) {
            (_, Transport::IkeTcp) => false,
            (Transport::Udp, Transport::Udp) => self.follow() == Follow::Any,
            (_, Transport::Udp) => false,
            (Transport::Udp, _) => self.follow() != Follow::Never,
            _ => true,
        }
    }

    pub(super) fn view(&self, now: Instant) -> SessionView<'_> {
        let state = match (self.closing(), self.conn) {
            (true, _) => "closing",
            (false, Some(_)) => "established",
            (false, None) => "detached",
        };
        let children = self.children.iter().map(|child| ChildView {
            spi_in: child.spi_in,
            spi_out: child.spi_out,
            suite: child.suite,
            rekeys: child.rekeys,
        });
        SessionView {
            id: self.id,
            idi: &self.idi,
            idr: &self.idr,
            profile: &self.profile.name,
            state,
            conn: self.conn,
            path: &self.path,
            worker: self.worker,
            inner: &self.inner,
            established: now.saturating_duration_since(self.established),
            ike: IkeView {
                spi_i: self.ike.spi_i,
                spi_r: self.ike.spi_r,
                suite: self.ike.suite,
                additional: self.additional,
                rekeys: self.rekeys,
                fragmentation: self.fragmentation,
                mobike: self.mobike,
            },
            children: children.collect(),
        }
    }
}
