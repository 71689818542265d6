//! AAA back ends behind one trait: who is let in is decided there, on the control thread and without waiting.
//!
//! [`Aaa`] routes the responder's orders to the back end each one names and remembers which back end holds which
//! attempt and session. A back end answers through its [`Outbox`], at once or from a task of its own; the control
//! loop takes the answers from the other end.

pub mod aka;
pub mod diameter;
pub mod embedded;
pub mod radius;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use tokio::sync::{mpsc, oneshot};

use super::responder::{AaaAnswer, AaaOrder, Attached, AttemptId, EapStep, RejectCause};

pub use super::responder::EndCause;
use crate::config::{AaaKind, AaaSection, Config};
use crate::error::Failure;
use crate::types::SessionId;
use crate::worker::inbox::Traffic;
use diameter::Diameter;
use embedded::{Embedded, STORE_FILE, Sequence};
use radius::Radius;

/// Decides who is let in.
///
/// Every [`step`](Backend::step) is answered exactly once through the [`Outbox`], a silent server included: after its
/// last timeout the answer is [`RejectCause::Unreachable`]. Nothing here may wait; network and disk are for tasks.
pub trait Backend {
    /// Takes an EAP packet of a peer.
    fn step(&mut self, now: Instant, step: EapStep);

    /// Forgets an attempt, whose answer nobody waits for any more.
    fn abandon(&mut self, attempt: AttemptId);

    /// An attempt that was accepted has become a session.
    fn attached(&mut self, now: Instant, attached: &Attached) {
        let _ = (now, attached);
    }

    /// What a session of this back end has done so far, which it asked for ([`FromAaa::ReportTraffic`]).
    fn traffic(&mut self, now: Instant, session: SessionId, so_far: &Traffic) {
        let _ = (now, session, so_far);
    }

    /// A session of this back end has ended.
    fn ended(&mut self, now: Instant, session: SessionId, end: &SessionEnd) {
        let _ = (now, session, end);
    }

    /// Goes on under a changed configuration, if it can do that without losing what is under way. One that cannot, and
    /// whose configuration did change, is replaced by a new one.
    fn adopt(&mut self, kind: &AaaKind) -> bool {
        let _ = kind;
        false
    }

    /// The gateway ends, and all sessions have: what servers have yet to hear is sent now.
    fn leave(&mut self, now: Instant) {
        let _ = now;
    }

    /// Whether servers have heard all of it.
    fn has_left(&self) -> bool {
        true
    }

    /// Its servers, for metrics and health; empty when it has none.
    fn servers(&self) -> Vec<ServerView> {
        Vec::new()
    }
}

/// What a session has done when it ends. Directions are the gateway's: in is from the UE.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SessionEnd {
    /// What it has carried.
    pub traffic: Traffic,
    /// Why it ended.
    pub cause: EndCause,
}

/// One server of a back end.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ServerView {
    /// Name of the back end.
    pub backend: Arc<str>,
    /// The server as configured.
    pub server: Arc<str>,
    /// Whether it is asked before the others.
    pub up: bool,
    /// Requests sent, without retransmissions.
    pub requests: u64,
    /// Requests sent once more.
    pub retransmissions: u64,
    /// Requests it did not answer.
    pub timeouts: u64,
    /// Answers that were not authentic or not understood.
    pub bad_answers: u64,
    /// Peers accepted.
    pub accepts: u64,
    /// Peers rejected, by cause.
    pub rejects: Vec<(RejectCause, u64)>,
    /// Answers it gave, and how long they took in all.
    pub answers: u64,
    /// See [`Self::answers`].
    pub waited: Duration,
    /// Accounting records lost because too many waited.
    pub lost: u64,
}

/// What comes from the back ends.
pub enum FromAaa {
    /// The answer to a step.
    Answer {
        /// The attempt.
        attempt: AttemptId,
        /// The answer.
        answer: AaaAnswer,
    },
    /// A server wants a session ended (RFC 5176 Disconnect-Request, Diameter ASR).
    Disconnect {
        /// The session.
        session: SessionId,
        /// Told whether there was such a session.
        done: oneshot::Sender<bool>,
    },
    /// A back end wants to know what a session has done so far: [`Backend::traffic`].
    ReportTraffic {
        /// The session.
        session: SessionId,
    },
    /// A server changes how long a session may last from now on (CoA, RAR).
    Timeout {
        /// The session.
        session: SessionId,
        /// The time left; `None` lifts the bound.
        left: Option<Duration>,
    },
}

/// Where back ends put what they have to say. Unbounded in form only: there is one answer per step, and one step per
/// half-open IKE SA.
#[derive(Clone)]
pub struct Outbox(mpsc::UnboundedSender<FromAaa>);

impl Outbox {
    /// An outbox and its other end.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<FromAaa>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// Says something; nobody listens any more when the gateway ends.
    pub fn send(&self, message: FromAaa) {
        let _ = self.0.send(message);
    }

    /// Answers a step.
    pub fn answer(&self, attempt: AttemptId, answer: AaaAnswer) {
        self.send(FromAaa::Answer { attempt, answer });
    }

    /// Has a session ended.
    pub fn disconnect(&self, session: SessionId) {
        let (done, _) = oneshot::channel();
        self.send(FromAaa::Disconnect { session, done });
    }

    /// Answers a step with a refusal that has no EAP packet.
    pub fn refuse(&self, attempt: AttemptId, cause: RejectCause) {
        self.answer(attempt, AaaAnswer::Reject { packet: None, cause, why: None });
    }
}

/// What back ends of one process share while they are opened.
struct Opening<'a> {
    config: &'a Config,
    outbox: &'a Outbox,
    /// The sequence numbers of all embedded back ends: a SIM has one, whoever authenticates it.
    sequence: Option<Rc<RefCell<Sequence>>>,
}

impl Opening<'_> {
    /// Opens one back end.
    fn open(&mut self, section: &AaaSection) -> Result<Option<Box<dyn Backend>>, Failure> {
        let (name, outbox) = (section.name.clone(), self.outbox.clone());
        Ok(match &section.kind {
            // Of one that no profile uses nothing was read.
            AaaKind::Embedded(config) if config.subscribers.is_empty() => None,
            AaaKind::Embedded(config) => {
                let sequence = self.sequence()?;
                Some(Box::new(Embedded::new(name, config, sequence, outbox)))
            }
            AaaKind::Diameter(settings) if section.used => {
                Some(Box::new(Diameter::start((**settings).clone(), outbox)))
            }
            AaaKind::Radius(Some(radius)) => {
                let identity = self.config.responder.identity.to_string();
                let backend = Radius::start(name, radius, &identity, outbox);
                let backend = backend.map_err(|error| {
                    let name = &section.name;
                    Failure::Environment(format!("[[aaa]] {name}: dynamic_authorization: {error}"))
                })?;
                Some(Box::new(backend))
            }
            AaaKind::Radius(None) | AaaKind::Diameter(_) => None,
        })
    }

    fn sequence(&mut self) -> Result<Rc<RefCell<Sequence>>, Failure> {
        if let Some(sequence) = &self.sequence {
            return Ok(sequence.clone());
        }
        let dir = &self.config.gateway.state_dir;
        let failed = |error: &dyn std::fmt::Display| {
            Failure::Environment(format!(
                "gateway.state_dir: {error}; sequence numbers of SIMs are kept there, so it must be writable, and this \
                 gateway's alone"
            ))
        };
        let sequence = Sequence::open(&dir.join(STORE_FILE)).map_err(|error| failed(&error))?;
        let sequence = Rc::new(RefCell::new(sequence));
        self.sequence = Some(sequence.clone());
        Ok(sequence)
    }
}

/// All back ends.
pub struct Aaa {
    backends: AHashMap<Arc<str>, Box<dyn Backend>>,
    outbox: Outbox,
    /// Held open over reloads.
    sequence: Option<Rc<RefCell<Sequence>>>,
    attempts: AHashMap<AttemptId, Arc<str>>,
    sessions: AHashMap<SessionId, Held>,
    deadlines: BTreeSet<(Instant, SessionId)>,
}

/// A session that a back end knows of.
struct Held {
    backend: Arc<str>,
    /// When its time is up.
    deadline: Option<Instant>,
    /// Why it ends, once somebody has said so.
    cause: Option<EndCause>,
}

impl Aaa {
    /// Back ends by name; they must speak through clones of `outbox`.
    pub fn new(backends: impl IntoIterator<Item = (Arc<str>, Box<dyn Backend>)>, outbox: Outbox) -> Self {
        Self {
            backends: backends.into_iter().collect(),
            outbox,
            sequence: None,
            attempts: AHashMap::new(),
            sessions: AHashMap::new(),
            deadlines: BTreeSet::new(),
        }
    }

    /// Opens the back ends of a configuration.
    ///
    /// # Errors
    /// [`Failure::Environment`] naming the back end and what it lacks.
    pub fn open(config: &Config, outbox: Outbox) -> Result<Self, Failure> {
        let mut aaa = Self::new([], outbox);
        aaa.reload(config)?;
        Ok(aaa)
    }

    /// Goes over to the back ends of another configuration. Attempts of one that is replaced or gone are refused; the UEs
    /// try again.
    ///
    /// # Errors
    /// As [`Self::open`]. The back end named runs on as it was, and so do those after it; those before it have changed.
    pub fn reload(&mut self, config: &Config) -> Result<(), Failure> {
        let outbox = self.outbox.clone();
        let mut opening = Opening { config, outbox: &outbox, sequence: self.sequence.take() };
        for section in &config.aaa {
            let adopted = self.backends.get_mut(&section.name).is_some_and(|old| old.adopt(&section.kind));
            if adopted {
                continue;
            }
            let opened = opening.open(section);
            self.sequence = opening.sequence.clone();
            let opened = opened?;
            self.forget(&section.name);
            if let Some(backend) = opened {
                self.backends.insert(section.name.clone(), backend);
            }
        }
        self.sequence = opening.sequence;
        let kept = |name: &Arc<str>| config.aaa.iter().any(|section| section.name == *name);
        let gone: Vec<Arc<str>> = self.backends.keys().filter(|name| !kept(name)).cloned().collect();
        gone.iter().for_each(|name| self.forget(name));
        Ok(())
    }

    /// Takes a back end away; nobody answers its attempts any more but we.
    fn forget(&mut self, name: &Arc<str>) {
        self.backends.remove(name);
        let mut orphans = Vec::new();
        self.attempts.retain(|attempt, backend| {
            let stays = backend != name;
            if !stays {
                orphans.push(*attempt);
            }
            stays
        });
        orphans.into_iter().for_each(|attempt| self.outbox.refuse(attempt, RejectCause::NetworkFailure));
    }

    /// Carries out an order of the responder.
    pub fn order(&mut self, now: Instant, order: AaaOrder) {
        match order {
            AaaOrder::Step(step) => match self.backends.get_mut(&step.backend) {
                Some(backend) => {
                    self.attempts.insert(step.attempt, step.backend.clone());
                    backend.step(now, step);
                }
                // A reload took the back end away.
                None => self.outbox.refuse(step.attempt, RejectCause::NetworkFailure),
            },
            AaaOrder::Abandon(attempt) => {
                if let Some(backend) = self.attempts.remove(&attempt)
                    && let Some(backend) = self.backends.get_mut(&backend)
                {
                    backend.abandon(attempt);
                }
            }
            AaaOrder::Attached(attached) => {
                let Some(name) = self.attempts.remove(&attached.attempt) else { return };
                if let Some(backend) = self.backends.get_mut(&name) {
                    backend.attached(now, &attached);
                    self.sessions
                        .insert(attached.session, Held { backend: name, deadline: None, cause: None });
                    self.set_timeout(now, attached.session, attached.timeout);
                }
            }
        }
    }

    /// Sets or lifts the end of a session's time.
    pub fn set_timeout(&mut self, now: Instant, session: SessionId, left: Option<Duration>) {
        let Some(held) = self.sessions.get_mut(&session) else { return };
        let deadline = left.map(|left| now + left);
        if let Some(before) = std::mem::replace(&mut held.deadline, deadline) {
            self.deadlines.remove(&(before, session));
        }
        self.deadlines.extend(deadline.map(|at| (at, session)));
    }

    /// Whether the session is of a back end that wants to hear of its end.
    pub fn holds(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session)
    }

    /// Takes note of why a session ends; what was said first counts: that its UE then agrees to it is not why.
    pub fn note_cause(&mut self, session: SessionId, cause: EndCause) {
        if let Some(held) = self.sessions.get_mut(&session) {
            held.cause.get_or_insert(cause);
        }
    }

    /// As [`Self::note_cause`], of every session.
    pub fn note_cause_of_all(&mut self, cause: EndCause) {
        self.sessions.values_mut().for_each(|held| {
            held.cause.get_or_insert(cause);
        });
    }

    /// Passes on what a session has done; it has ended when it is `over`.
    pub fn traffic(&mut self, now: Instant, session: SessionId, traffic: &Traffic, over: bool) {
        let Some(held) = self.sessions.get(&session) else { return };
        let end = SessionEnd { traffic: *traffic, cause: held.cause.unwrap_or_default() };
        let (name, deadline) = (held.backend.clone(), held.deadline);
        if over {
            self.sessions.remove(&session);
            if let Some(at) = deadline {
                self.deadlines.remove(&(at, session));
            }
        }
        let Some(backend) = self.backends.get_mut(&name) else { return };
        match over {
            true => backend.ended(now, session, &end),
            false => backend.traffic(now, session, &end.traffic),
        }
    }

    /// When the next session's time is up.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// A session whose time is up at `now`; it has no such end any more.
    pub fn pop_due(&mut self, now: Instant) -> Option<SessionId> {
        let (at, session) = *self.deadlines.first().filter(|(at, _)| *at <= now)?;
        self.deadlines.remove(&(at, session));
        if let Some(held) = self.sessions.get_mut(&session) {
            held.deadline = None;
        }
        Some(session)
    }

    /// See [`Backend::leave`].
    pub fn leave(&mut self, now: Instant) {
        self.backends.values_mut().for_each(|backend| backend.leave(now));
    }

    /// See [`Backend::has_left`].
    pub fn has_left(&self) -> bool {
        self.backends.values().all(|backend| backend.has_left())
    }

    /// All servers of all back ends.
    pub fn servers(&self) -> Vec<ServerView> {
        let mut views: Vec<ServerView> =
            self.backends.values().flat_map(|backend| backend.servers()).collect();
        views.sort_by(|a, b| (&a.backend, &a.server).cmp(&(&b.backend, &b.server)));
        views
    }
}
