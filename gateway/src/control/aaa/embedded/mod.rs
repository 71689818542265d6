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

use super::aka::{AkaPolicy, AkaServer, MethodChoice, Refused, Verdict};
use super::{Backend, Outbox, ServerView};
use crate::config::AaaKind;
use crate::control::responder::{AaaAnswer, Accepted, AttemptId, EapMethod, EapStep, RejectCause};
use centre::Centre;
use mschap::{MsChap, Outcome};

pub use sequence::{Sequence, StoreError};
pub use subscribers::{Algorithm, IMSI_DIGITS, Subscriber, Subscribers};

/// The file of the store, in the directory of our state.
pub const STORE_FILE: &str = "subscribers.redb";

/// Who is known, and how SIMs are authenticated.
#[derive(Clone, Debug, Default)]
pub struct EmbeddedConfig {
    /// SIMs and users.
    pub subscribers: Arc<Subscribers>,
    /// How EAP-AKA and EAP-AKA' go; the method is the profile's.
    pub aka: AkaPolicy,
}

/// The back end. Attempts are as many as half-open IKE SAs.
pub struct Embedded {
    centre: Centre,
    aka: AkaPolicy,
    attempts: AHashMap<AttemptId, Running>,
    random: Box<dyn Random>,
    outbox: Outbox,
    view: ServerView,
}

/// One attempt.
enum Running {
    Aka(Box<AkaServer>),
    MsChap(Box<MsChap>),
}

impl Embedded {
    /// A back end of these subscribers.
    pub fn new(
        name: Arc<str>,
        config: &EmbeddedConfig,
        sequence: Rc<RefCell<Sequence>>,
        outbox: Outbox,
    ) -> Self {
        Self {
            centre: Centre::new(config.subscribers.clone(), sequence, Box::new(OsRandom)),
            aka: config.aka.clone(),
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
                self.attempts.insert(step.attempt, Running::Aka(server));
                AaaAnswer::Continue { packet }
            }
            Verdict::Success(authenticated) => {
                let digit = if authenticated.variant == Variant::Aka { '0' } else { '6' };
                let realm = step.subject.idi.split_once('@').map(|(_, realm)| realm);
                let identity = realm.map(|realm| format!("{digit}{}@{realm}", authenticated.imsi).into());
                accept(authenticated.packet, authenticated.msk, identity)
            }
            Verdict::Failure(refused) => {
                let Refused { packet, cause, why } = refused;
                AaaAnswer::Reject { packet: Some(packet), cause, why: Some(why) }
            }
        }
    }

    fn step_mschap(&mut self, step: &EapStep, mut server: Box<MsChap>) -> AaaAnswer {
        match server.handle(&step.packet, &self.centre.subscribers) {
            Outcome::Continue(packet) => {
                self.attempts.insert(step.attempt, Running::MsChap(server));
                AaaAnswer::Continue { packet }
            }
            Outcome::Success { packet, msk } => accept(packet, msk, Some(step.subject.idi.clone())),
            Outcome::Failure { packet, cause } => {
                AaaAnswer::Reject { packet: Some(packet), cause, why: None }
            }
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
    fn step(&mut self, _now: Instant, step: EapStep) {
        self.view.requests += 1;
        let began = Instant::now();
        let known = self.attempts.remove(&step.attempt);
        let Some(method) = known.or_else(|| begin(step.subject.method, &self.aka, &mut *self.random)) else {
            self.reject(RejectCause::NetworkFailure);
            return self.outbox.refuse(step.attempt, RejectCause::NetworkFailure);
        };
        let answer = match method {
            Running::Aka(server) => self.step_aka(&step, server),
            Running::MsChap(server) => self.step_mschap(&step, server),
        };
        match &answer {
            AaaAnswer::Continue { .. } => {}
            AaaAnswer::Accept(_) => self.view.accepts += 1,
            AaaAnswer::Reject { cause, .. } => self.reject(*cause),
        }
        self.view.answers += 1;
        self.view.waited += began.elapsed();
        self.outbox.answer(step.attempt, answer);
    }

    fn abandon(&mut self, attempt: AttemptId) {
        self.attempts.remove(&attempt);
    }

    fn adopt(&mut self, kind: &AaaKind) -> bool {
        match kind {
            AaaKind::Embedded(config) => {
                self.centre.subscribers = config.subscribers.clone();
                self.aka = config.aka.clone();
                true
            }
            _ => false,
        }
    }

    fn servers(&self) -> Vec<ServerView> {
        vec![self.view.clone()]
    }
}

fn begin(method: EapMethod, aka: &AkaPolicy, random: &mut dyn Random) -> Option<Running> {
    let choice = match method {
        EapMethod::Aka => MethodChoice::Only(Variant::Aka),
        EapMethod::AkaPrime => MethodChoice::Only(Variant::AkaPrime),
        EapMethod::Any => MethodChoice::ByIdentity,
        EapMethod::MsChapV2 => return Some(Running::MsChap(Box::new(MsChap::new(random)))),
        EapMethod::Tls => return None,
    };
    let policy = AkaPolicy { method: choice, ..aka.clone() };
    Some(Running::Aka(Box::new(AkaServer::new(Arc::new(policy)))))
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use codec::eap::{EapPacket, Method};
    use zeroize::Zeroizing;

    use super::*;
    use crate::control::aaa::FromAaa;
    use crate::control::responder::Subject;
    use crate::types::Transport;

    fn subscriber() -> Subscriber {
        Subscriber {
            k: Zeroizing::new(vec![1; 16]),
            opc: Zeroizing::new(vec![2; 16]),
            algorithm: Algorithm::Milenage,
            amf: [0x80, 0],
            sqn: None,
            apns: None,
        }
    }

    /// The answer to an EAP-Response/Identity.
    fn answer(method: EapMethod, name: &str) -> AaaAnswer {
        let dir = tempfile::tempdir().expect("a directory");
        let sequence = Sequence::open(&dir.path().join(STORE_FILE)).expect("opens");
        let mut subscribers = Subscribers::default();
        subscribers.add("001010000000001", subscriber());
        let config = EmbeddedConfig { subscribers: Arc::new(subscribers), ..EmbeddedConfig::default() };
        let (outbox, mut answers) = Outbox::new();
        let sequence = Rc::new(RefCell::new(sequence));
        let mut embedded = Embedded::new("test".into(), &config, sequence, outbox);
        let addr: SocketAddr = "192.0.2.1:4500".parse().expect("an address");
        let subject = Subject {
            idi: name.into(),
            apn: None,
            profile: "phones".into(),
            method,
            local: addr,
            remote: addr,
            transport: Transport::Tcp,
            emergency: false,
            imei: None,
        };
        let packet = EapPacket::build(codec::eap::Code::Response, 0, Method::IDENTITY, name.as_bytes());
        embedded
            .step(Instant::now(), EapStep { attempt: AttemptId(1), backend: "test".into(), packet, subject });
        match answers.try_recv() {
            Ok(FromAaa::Answer { attempt: AttemptId(1), answer }) => answer,
            _ => panic!("one answer"),
        }
    }

    #[test]
    fn a_sim_is_challenged_with_the_method_of_its_profile() {
        let name = "001010000000001@nai.epc.mnc001.mcc001.3gppnetwork.org";
        for (method, digit, kind) in
            [(EapMethod::Aka, '0', 23), (EapMethod::AkaPrime, '6', 50), (EapMethod::Any, '6', 50)]
        {
            let AaaAnswer::Continue { packet } = answer(method, &format!("{digit}{name}")) else {
                panic!("no challenge")
            };
            assert_eq!((packet[0], packet[4], packet[5]), (1, kind, 1), "{method:?}");
        }
    }

    #[test]
    fn methods_of_servers_are_not_served_here() {
        assert!(matches!(
            answer(EapMethod::Tls, "alice"),
            AaaAnswer::Reject { cause: RejectCause::NetworkFailure, .. }
        ));
    }
}
