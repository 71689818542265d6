//! The embedded back end: subscribers in a file, sequence numbers in a store of ours. It answers at once.

mod centre;
mod mschap;
mod sequence;
mod subscribers;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use ahash::AHashMap;
use codec::eap::aka::Variant;
use codec::{OsRandom, Random};
use zeroize::Zeroizing;

use super::aka::{AkaPolicy, AkaServer, MethodChoice, Verdict};
use super::{Backend, Outbox, ServerView};
use crate::config::AaaKind;
use crate::control::responder::{AaaAnswer, Accepted, AttemptId, EapMethod, EapStep, RejectCause};
use centre::Centre;
use mschap::{MsChap, Outcome};

pub use sequence::{Sequence, StoreError};
pub use subscribers::{Algorithm, IMSI_DIGITS, Subscriber, Subscribers};

/// The file of the store, in the directory of our state.
pub const STORE_FILE: &str = "subscribers.redb";

/// The back end. Attempts are as many as half-open IKE SAs.
pub struct Embedded {
    centre: Centre,
    attempts: AHashMap<AttemptId, Method>,
    random: Box<dyn Random>,
    outbox: Outbox,
    view: ServerView,
}

/// One attempt.
enum Method {
    Aka(Box<AkaServer>),
    MsChap(Box<MsChap>),
}

impl Embedded {
    /// A back end of these subscribers.
    pub fn new(
        name: Arc<str>,
        subscribers: Arc<Subscribers>,
        sequence: Rc<RefCell<Sequence>>,
        outbox: Outbox,
    ) -> Self {
        Self {
            centre: Centre::new(subscribers, sequence, Box::new(OsRandom)),
            attempts: AHashMap::new(),
            random: Box::new(OsRandom),
            outbox,
            view: ServerView { backend: name, server: "embedded".into(), up: true, ..ServerView::default() },
        }
    }

    fn step_aka(&mut self, step: &EapStep, mut server: Box<AkaServer>) -> AaaAnswer {
        self.centre.apn = step.subject.apn.clone();
        match server.handle(&step.packet, &mut self.centre, &mut *self.random) {
            Verdict::Continue(packet) => {
                self.attempts.insert(step.attempt, Method::Aka(server));
                AaaAnswer::Continue { packet }
            }
            Verdict::Success(authenticated) => {
                let digit = if authenticated.variant == Variant::Aka { '0' } else { '6' };
                let realm = step.subject.idi.split_once('@').map(|(_, realm)| realm);
                let identity = realm.map(|realm| format!("{digit}{}@{realm}", authenticated.imsi).into());
                accept(authenticated.packet, authenticated.msk, identity)
            }
            Verdict::Failure(refused) => {
                AaaAnswer::Reject { packet: Some(refused.packet), cause: refused.cause }
            }
        }
    }

    fn step_mschap(&mut self, step: &EapStep, mut server: Box<MsChap>) -> AaaAnswer {
        match server.handle(&step.packet, &self.centre.subscribers) {
            Outcome::Continue(packet) => {
                self.attempts.insert(step.attempt, Method::MsChap(server));
                AaaAnswer::Continue { packet }
            }
            Outcome::Success { packet, msk } => accept(packet, msk, Some(step.subject.idi.clone())),
            Outcome::Failure { packet, cause } => AaaAnswer::Reject { packet: Some(packet), cause },
        }
    }

    fn reject(&mut self, cause: RejectCause) {
        match self.view.rejects.iter_mut().find(|(of, _)| *of == cause) {
            Some((_, count)) => *count += 1,
            None => self.view.rejects.push((cause, 1)),
        }
    }
}

impl Backend for Embedded {
    fn step(&mut self, now: Instant, step: EapStep) {
        self.view.requests += 1;
        let known = self.attempts.remove(&step.attempt);
        let Some(method) = known.or_else(|| begin(step.subject.method, &mut *self.random)) else {
            self.reject(RejectCause::NetworkFailure);
            return self.outbox.refuse(step.attempt, RejectCause::NetworkFailure);
        };
        let answer = match method {
            Method::Aka(server) => self.step_aka(&step, server),
            Method::MsChap(server) => self.step_mschap(&step, server),
        };
        match &answer {
            AaaAnswer::Continue { .. } => {}
            AaaAnswer::Accept(_) => self.view.accepts += 1,
            AaaAnswer::Reject { cause, .. } => self.reject(*cause),
        }
        self.view.answers += 1;
        self.view.waited += now.elapsed();
        self.outbox.answer(step.attempt, answer);
    }

    fn abandon(&mut self, attempt: AttemptId) {
        self.attempts.remove(&attempt);
    }

    fn adopt(&mut self, kind: &AaaKind) -> bool {
        match kind {
            AaaKind::Embedded(subscribers) => {
                self.centre.subscribers = subscribers.clone();
                true
            }
            _ => false,
        }
    }

    fn servers(&self) -> Vec<ServerView> {
        vec![self.view.clone()]
    }
}

fn begin(method: EapMethod, random: &mut dyn Random) -> Option<Method> {
    let choice = match method {
        EapMethod::Aka => MethodChoice::Only(Variant::Aka),
        EapMethod::AkaPrime => MethodChoice::Only(Variant::AkaPrime),
        EapMethod::Any => MethodChoice::ByIdentity,
        EapMethod::MsChapV2 => return Some(Method::MsChap(Box::new(MsChap::new(random)))),
        EapMethod::Tls => return None,
    };
    let policy = AkaPolicy { method: choice, ..AkaPolicy::default() };
    Some(Method::Aka(Box::new(AkaServer::new(Arc::new(policy)))))
}

fn accept(packet: Vec<u8>, msk: Zeroizing<Vec<u8>>, identity: Option<Arc<str>>) -> AaaAnswer {
    AaaAnswer::Accept(Box::new(Accepted {
        packet,
        msk,
        identity,
        inner: Vec::new(),
        pool: None,
        p_cscf: Vec::new(),
        session_timeout: None,
    }))
}
