//! A phone with its SIM, and the scripted gateway for it, in virtual time.

use super::eap::{EapServer, IMSI, Move, usim};
use super::{Faults, Script};
use codec::SeededRandom;
use codec::crypto::PrivateKey;
use codec::eap::aka::Variant;
use codec::eap::identity::Plmn;
use loadgen::ue::{
    Attached, Credentials, EapCredentials, EndCause, Event, Handset, Identity, Initiator, Sim, SimKeys,
    Subscriber, UeConfig,
};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

const IKE: &str = "aes128gcm16-prfsha256-x25519";
const ESP: &str = "aes128gcm16";
const IMEI: &str = "123456789123456";

/// A gateway's certificate and its key.
pub fn certificate() -> (Vec<u8>, PrivateKey) {
    let made = rcgen::generate_simple_self_signed(["gw.test".to_owned()]).unwrap();
    (made.cert.der().to_vec(), PrivateKey::from_der(&made.signing_key.serialize_der()).unwrap())
}

fn sim() -> Rc<RefCell<Sim>> {
    let keys = SimKeys { usim: Rc::new(usim(1)), check_sqn: true };
    let plmn = Plmn::new("001", "01").unwrap();
    Rc::new(RefCell::new(Sim::new(keys, IMSI.into(), plmn, IMEI.into())))
}

/// One phone and its gateway, before they meet.
pub struct Phone {
    pub sim: Rc<RefCell<Sim>>,
    pub config: UeConfig,
    pub script: Script,
}

/// What came of an attach, and what may still come.
pub struct Outcome {
    pub ue: Initiator,
    pub script: Script,
    pub sim: Rc<RefCell<Sim>>,
    pub now: Instant,
    pub attached: Option<Attached>,
    pub end: Option<EndCause>,
    /// Its first message.
    pub init: Vec<u8>,
    random: SeededRandom,
}

impl Phone {
    pub fn new(variant: Variant, moves: &[Move]) -> Self {
        let eap = EapCredentials { variant, network_name: "WLAN".into(), trust: None, alone: false };
        let config = UeConfig {
            ike: vec![IKE.parse().unwrap()],
            esp: vec![ESP.parse().unwrap()],
            credentials: Credentials::Eap(Box::new(eap)),
            idr: Some(Identity::parse("ims")),
            gateway_id: None,
            response_timeout: Duration::from_secs(10),
            dpd: None,
            replay_window: 64,
            handset: Handset::default(),
        };
        let mut script = Script::new(IKE, ESP, b"");
        let mut server = EapServer::new(variant, moves);
        server.certificate = Some(certificate());
        script.eap = Some(server);
        Self { sim: sim(), config, script }
    }

    pub fn eap(mut self, change: impl FnOnce(&mut EapServer)) -> Self {
        change(self.script.eap.as_mut().unwrap());
        self
    }

    pub fn credentials(mut self, change: impl FnOnce(&mut EapCredentials)) -> Self {
        let Credentials::Eap(eap) = &mut self.config.credentials else { unreachable!("set above") };
        change(eap);
        self
    }

    pub fn with_sim(mut self, sim: Rc<RefCell<Sim>>) -> Self {
        self.sim = sim;
        self
    }

    pub fn faults(mut self, faults: Faults) -> Self {
        self.script.faults = faults;
        self
    }

    /// Exchanges messages until nobody has more to say.
    pub fn attach(self) -> Outcome {
        let Credentials::Eap(eap) = &self.config.credentials else { unreachable!("set above") };
        let who = Subscriber::of_sim(self.sim.clone(), eap.variant);
        let mut outcome = Outcome {
            ue: Initiator::new(Arc::new(self.config), who),
            script: self.script,
            sim: self.sim,
            now: Instant::now(),
            attached: None,
            end: None,
            init: Vec::new(),
            random: SeededRandom::new(1),
        };
        let (local, remote) = ("10.0.0.1:40000".parse().unwrap(), "10.0.0.2:4500".parse().unwrap());
        outcome.ue.handle_connected(outcome.now, local, remote, &mut outcome.random);
        outcome.run();
        outcome
    }
}

impl Outcome {
    /// Exchanges messages until nobody has more to say.
    pub fn run(&mut self) {
        for _ in 0..60 {
            while let Some(event) = self.ue.poll_event() {
                match event {
                    Event::Established(it) => self.attached = Some(*it),
                    Event::Ended(cause) => self.end = Some(cause),
                    Event::Install(_) | Event::Retire(_) => {}
                }
            }
            let Some(request) = self.ue.poll_transmit() else { return };
            if self.init.is_empty() {
                self.init = request.to_vec();
            }
            for mut answer in self.script.answers(&request) {
                self.ue.handle_message(self.now, &mut answer, &mut self.random);
            }
        }
        panic!("the exchange does not end");
    }

    /// Lets so much time pass.
    pub fn pass(&mut self, time: Duration) {
        self.now += time;
        self.ue.handle_timeout(self.now, &mut self.random);
        self.run();
    }

    pub fn up(self) -> Self {
        assert_eq!(self.end, None);
        assert!(self.attached.is_some());
        self
    }

    pub fn server(&self) -> &EapServer {
        self.script.eap.as_ref().unwrap()
    }

    pub fn cause(self) -> String {
        self.end.expect("an end").to_string()
    }

    pub fn seen(&self) -> Vec<&str> {
        self.server().seen.iter().map(String::as_str).collect()
    }
}
