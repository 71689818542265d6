//! The client of one `[[aaa]]`: attempts, sessions and what is said of them to servers. Sans-IO but for the outbox, whose
//! other end is the control loop.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ahash::AHashMap;

use super::accounting::{Accounting, Status};
use super::answer::{self, Granted, Meaning};
use super::counters::ServerCounters;
use super::dynamic::{Change, Dynamic};
use super::packet::Packet;
use super::pool::{Action, Answer, Pool};
use super::request;
use super::sessions::Sessions;
use super::sign::Secret;
use crate::control::aaa::{FromAaa, Outbox, SessionEnd};
use crate::control::responder::{AaaAnswer, Attached, AttemptId, EapStep, RejectCause};
use crate::types::SessionId;
use crate::worker::inbox::Traffic;

/// Shortest time between two reports of one session's traffic (RFC 2869 §2.1).
const INTERIM_MIN: Duration = Duration::from_secs(60);

/// What the control thread says.
pub enum Order {
    /// An EAP packet of a peer.
    Step(EapStep),
    /// Nobody waits for this attempt any more.
    Abandon(AttemptId),
    /// An attempt has become a session.
    Attached(Box<Attached>),
    /// What a session has done so far.
    Traffic(SessionId, Traffic),
    /// A session has ended.
    Ended(SessionId, SessionEnd),
    /// The gateway ends.
    Leave,
}

/// Which servers are spoken to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Side {
    /// Those that let peers in.
    Authentication,
    /// Those that are told of sessions.
    Accounting,
}

/// An authentication under way.
struct Attempt {
    user_name: Arc<[u8]>,
    /// What the server wants to see again, and which server (RFC 2865 §5.24).
    state: Option<Box<[u8]>>,
    server: Option<usize>,
    /// The request that is under way.
    asked: Option<u64>,
    /// It was accepted.
    granted: Option<Granted>,
}

/// A back end's whole state.
pub struct Client {
    secret: Secret,
    nas_identifier: Arc<str>,
    outstanding_max: usize,
    interim: Option<Duration>,
    outbox: Outbox,
    servers: Vec<Arc<ServerCounters>>,
    pool: Pool<AttemptId>,
    attempts: AHashMap<AttemptId, Attempt>,
    sessions: Sessions,
    accounting: Option<Accounting>,
    reports: BTreeSet<(Instant, SessionId)>,
    dynamic: Option<Dynamic>,
    actions: VecDeque<(Side, Action)>,
}

/// What a client is made of.
pub struct Parts {
    pub secret: Secret,
    pub nas_identifier: Arc<str>,
    pub outstanding_max: usize,
    pub interim: Option<Duration>,
    pub outbox: Outbox,
    /// Counters of the servers of `pool`, in their order.
    pub servers: Vec<Arc<ServerCounters>>,
    pub pool: Pool<AttemptId>,
    pub accounting: Option<Accounting>,
    pub dynamic: Option<Dynamic>,
}

impl Client {
    /// A client without attempts.
    pub fn new(now: Instant, parts: Parts) -> Self {
        let mut client = Self {
            secret: parts.secret,
            nas_identifier: parts.nas_identifier,
            outstanding_max: parts.outstanding_max,
            interim: parts.interim,
            outbox: parts.outbox,
            servers: parts.servers,
            pool: parts.pool,
            attempts: AHashMap::new(),
            sessions: Sessions::new(),
            accounting: parts.accounting,
            reports: BTreeSet::new(),
            dynamic: parts.dynamic,
            actions: VecDeque::new(),
        };
        client.report_gateway(now, Status::On);
        client.settle(now);
        client
    }

    /// Goes over to other servers. Attempts under way are refused; sessions and records of accounting stay.
    pub fn reconfigure(&mut self, now: Instant, parts: Parts) {
        let refused: Vec<AttemptId> =
            self.attempts.extract_if(|_, attempt| attempt.granted.is_none()).map(|(id, _)| id).collect();
        for attempt in refused {
            self.outbox.refuse(attempt, RejectCause::NetworkFailure);
        }
        let records = self.accounting.take().map(Accounting::into_records).unwrap_or_default();
        (self.secret, self.nas_identifier) = (parts.secret, parts.nas_identifier);
        (self.outstanding_max, self.interim) = (parts.outstanding_max, parts.interim);
        (self.servers, self.pool, self.dynamic) = (parts.servers, parts.pool, parts.dynamic);
        self.accounting = parts.accounting;
        self.actions.clear();
        if let Some(accounting) = &mut self.accounting {
            accounting.take_over(now, records);
        }
        self.settle(now);
    }

    /// Carries out what the control thread says.
    pub fn handle_order(&mut self, now: Instant, order: Order) {
        match order {
            Order::Step(step) => self.on_step(now, step),
            Order::Abandon(attempt) => {
                if let Some(Attempt { asked: Some(key), .. }) = self.attempts.remove(&attempt) {
                    self.pool.cancel(key);
                }
            }
            Order::Attached(attached) => self.on_attached(now, &attached),
            Order::Traffic(session, so_far) => {
                if let (Some(session), Some(accounting)) = (self.sessions.get(session), &mut self.accounting)
                {
                    accounting.interim(now, session, &so_far);
                }
            }
            Order::Leave => self.report_gateway(now, Status::Off),
            Order::Ended(session, end) => {
                self.set_interim(now, session, None);
                if let Some(session) = self.sessions.remove(session)
                    && let Some(accounting) = &mut self.accounting
                {
                    accounting.stop(now, &session, &end);
                }
            }
        }
        self.settle(now);
    }

    /// Takes what came in on a link.
    pub fn handle_packet(&mut self, now: Instant, side: Side, server: usize, link: usize, octets: &[u8]) {
        match (side, &mut self.accounting) {
            (Side::Accounting, Some(accounting)) => accounting.pool.handle_packet(now, server, link, octets),
            _ => self.pool.handle_packet(now, server, link, octets),
        }
        self.settle(now);
    }

    /// Takes note of how opening a connection went, or of its end.
    pub fn handle_link(&mut self, now: Instant, side: Side, server: usize, link: usize, open: bool) {
        match (side, &mut self.accounting) {
            (Side::Accounting, Some(accounting)) => accounting.pool.handle_link(now, server, link, open),
            _ => self.pool.handle_link(now, server, link, open),
        }
        self.settle(now);
    }

    /// Takes a request of RFC 5176; returns the answer.
    pub fn handle_dynamic(&mut self, now: Instant, from: SocketAddr, octets: &[u8]) -> Option<Box<[u8]>> {
        let wall_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let (answer, change) = self.dynamic.as_mut()?.handle(from, octets, &self.sessions, wall_s);
        match change {
            None => {}
            Some(Change::Disconnect(sessions)) => {
                tracing::info!(sessions = sessions.len(), %from, "disconnected by a RADIUS server");
                for session in sessions {
                    self.outbox.disconnect(session);
                }
            }
            Some(Change::Limit { sessions, timeout, interim }) => {
                for session in sessions {
                    if let Some(left) = timeout {
                        self.outbox.send(FromAaa::Timeout { session, left: Some(left) });
                    }
                    if interim.is_some() {
                        self.set_interim(now, session, interim);
                    }
                }
            }
        }
        self.settle(now);
        answer
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.pool.handle_timeout(now);
        if let Some(accounting) = &mut self.accounting {
            accounting.pool.handle_timeout(now);
        }
        while let Some(&(at, id)) = self.reports.first().filter(|(at, _)| *at <= now) {
            self.reports.remove(&(at, id));
            let interim = self.sessions.get(id).and_then(|session| session.interim);
            self.outbox.send(FromAaa::ReportTraffic { session: id });
            self.set_interim(now, id, interim);
        }
        self.settle(now);
    }

    /// When [`Client::handle_timeout`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let accounting = self.accounting.as_ref().and_then(|accounting| accounting.pool.deadline());
        let report = self.reports.first().map(|(at, _)| *at);
        [self.pool.deadline(), accounting, report].into_iter().flatten().min()
    }

    /// What to do next.
    pub fn poll_action(&mut self) -> Option<(Side, Action)> {
        self.actions.pop_front()
    }

    /// Accounting records that no server has taken yet.
    pub fn pending(&self) -> usize {
        self.accounting.as_ref().map_or(0, Accounting::pending)
    }

    fn report_gateway(&mut self, now: Instant, status: Status) {
        let id = self.sessions.accounting_id(SessionId(0));
        if let Some(accounting) = &mut self.accounting {
            accounting.gateway(now, status, &self.nas_identifier, &id);
        }
    }

    fn on_step(&mut self, now: Instant, step: EapStep) {
        if self.pool.len() >= self.outstanding_max {
            self.attempts.remove(&step.attempt);
            return self.outbox.refuse(step.attempt, RejectCause::Congestion);
        }
        let mut attempt = match self.attempts.remove(&step.attempt) {
            Some(attempt) => attempt,
            None => match request::user_name(&step) {
                Some(user_name) => {
                    Attempt { user_name, state: None, server: None, asked: None, granted: None }
                }
                None => return self.outbox.refuse(step.attempt, RejectCause::PeerProtocol),
            },
        };
        let state = attempt.state.take();
        let attributes = request::access(&attempt.user_name, state.as_deref(), &step, &self.nas_identifier);
        let Ok(attributes) = attributes else {
            return self.outbox.refuse(step.attempt, RejectCause::PeerProtocol);
        };
        attempt.asked = Some(self.pool.ask(now, attributes, attempt.server, step.attempt));
        self.attempts.insert(step.attempt, attempt);
    }

    fn on_answer(&mut self, id: AttemptId, answer: Option<Answer>) {
        let Some(mut attempt) = self.attempts.remove(&id) else { return };
        let Some(Answer { server, octets, authenticator }) = answer else {
            return self.outbox.refuse(id, RejectCause::Unreachable);
        };
        let counters = &self.servers[server];
        attempt.asked = None;
        attempt.server = Some(server);
        let Ok(packet) = Packet::parse(&octets) else { return };
        let answer = match answer::read(packet, &authenticator, &self.secret) {
            Meaning::Challenge { eap, state } => {
                attempt.state = state;
                self.attempts.insert(id, attempt);
                AaaAnswer::Continue { packet: eap }
            }
            Meaning::Accept { accepted, granted } => {
                counters.accept();
                attempt.granted = Some(granted);
                self.attempts.insert(id, attempt);
                AaaAnswer::Accept(accepted)
            }
            Meaning::Reject { eap, cause } => {
                counters.reject(cause);
                AaaAnswer::Reject { packet: eap, cause, why: None }
            }
        };
        self.outbox.answer(id, answer);
    }

    fn on_attached(&mut self, now: Instant, attached: &Attached) {
        let Some(attempt) = self.attempts.remove(&attached.attempt) else { return };
        let Some(granted) = attempt.granted else { return };
        self.sessions.insert(now, attached, attempt.user_name, &granted, &self.nas_identifier);
        let (Some(accounting), Some(session)) = (&mut self.accounting, self.sessions.get(attached.session))
        else {
            return;
        };
        accounting.start(now, session);
        let interim = session.interim.or(self.interim);
        self.set_interim(now, attached.session, interim);
    }

    /// Has the traffic of a session reported this often from now on.
    fn set_interim(&mut self, now: Instant, id: SessionId, interim: Option<Duration>) {
        let Some(session) = self.sessions.get_mut(id).filter(|_| self.accounting.is_some()) else { return };
        if let Some(due) = session.report_due.take() {
            self.reports.remove(&(due, id));
        }
        session.interim = interim.map(|interim| interim.max(INTERIM_MIN));
        session.report_due = session.interim.map(|interim| now + interim);
        self.reports.extend(session.report_due.map(|due| (due, id)));
    }

    /// Passes on what the pools have come to.
    fn settle(&mut self, now: Instant) {
        while let Some((attempt, answer)) = self.pool.poll_outcome() {
            self.on_answer(attempt, answer);
        }
        self.actions.extend(drain(&mut self.pool, Side::Authentication));
        let Some(accounting) = &mut self.accounting else { return };
        while let Some((record, answer)) = accounting.pool.poll_outcome() {
            accounting.on_outcome(now, record, answer.as_ref());
        }
        self.actions.extend(drain(&mut accounting.pool, Side::Accounting));
    }
}

fn drain<T>(pool: &mut Pool<T>, side: Side) -> impl Iterator<Item = (Side, Action)> {
    std::iter::from_fn(move || pool.poll_action().map(|action| (side, action)))
}
