//! The embedded back end: subscribers in a file, sequence numbers in a store of ours. It answers at once.

mod centre;
mod sequence;
mod subscribers;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use ahash::AHashMap;
use codec::eap::aka::Variant;
use codec::{OsRandom, Random};

use super::aka::{AkaPolicy, AkaServer, MethodChoice, Verdict};
use super::{Backend, Outbox, ServerView};
use crate::control::responder::{AaaAnswer, Accepted, AttemptId, EapMethod, EapStep, RejectCause};
use centre::Centre;

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
        let method = match self.attempts.remove(&step.attempt).or_else(|| begin(step.subject.method)) {
            Some(method) => method,
            None => {
                self.reject(RejectCause::NetworkFailure);
                return self.outbox.refuse(step.attempt, RejectCause::NetworkFailure);
            }
        };
        self.centre.apn = step.subject.apn.clone();
        let Method::Aka(mut server) = method;
        let answer = match server.handle(&step.packet, &mut self.centre, &mut *self.random) {
            Verdict::Continue(packet) => {
                self.attempts.insert(step.attempt, Method::Aka(server));
                AaaAnswer::Continue { packet }
            }
            Verdict::Success(authenticated) => {
                self.view.accepts += 1;
                let digit = if authenticated.variant == Variant::Aka { '0' } else { '6' };
                let realm = step.subject.idi.split_once('@').map(|(_, realm)| realm);
                let identity = realm.map(|realm| format!("{digit}{}@{realm}", authenticated.imsi).into());
                AaaAnswer::Accept(Box::new(Accepted {
                    packet: authenticated.packet,
                    msk: authenticated.msk,
                    identity,
                    inner: Vec::new(),
                    pool: None,
                    p_cscf: Vec::new(),
                    session_timeout: None,
                }))
            }
            Verdict::Failure(refused) => {
                self.reject(refused.cause);
                AaaAnswer::Reject { packet: Some(refused.packet), cause: refused.cause }
            }
        };
        self.view.answers += 1;
        self.view.waited += now.elapsed();
        self.outbox.answer(step.attempt, answer);
    }

    fn abandon(&mut self, attempt: AttemptId) {
        self.attempts.remove(&attempt);
    }

    fn servers(&self) -> Vec<ServerView> {
        vec![self.view.clone()]
    }
}

fn begin(method: EapMethod) -> Option<Method> {
    let choice = match method {
        EapMethod::Aka => MethodChoice::Only(Variant::Aka),
        EapMethod::AkaPrime => MethodChoice::Only(Variant::AkaPrime),
        EapMethod::Any => MethodChoice::ByIdentity,
        EapMethod::MsChapV2 | EapMethod::Tls => return None,
    };
    let policy = AkaPolicy { method: choice, ..AkaPolicy::default() };
    Some(Method::Aka(Box::new(AkaServer::new(Arc::new(policy)))))
}
