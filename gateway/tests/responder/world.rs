//! One responder in virtual time, with connections that are only names.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use codec::SeededRandom;
use codec::ike::{KeGroup, NotifyType};
use gateway::control::pki::CertificateStore;
use gateway::control::pool::{PoolConfig, Prefix};
use gateway::control::responder::{
    AuthKind, Event, Glob, Handset, Limits, Profile, Psk, PskStore, Responder, ResponderConfig,
    ResponderCounters, Transmit, Verdict,
};
use gateway::types::{ChildInstall, CloseReason, ConnId, NetworkId, Path, SessionId, Transport, WorkerId};

use crate::ue::{Decoded, Ue, UeAuth, UeConfig, split};

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../fixtures/pki/", $name))
    };
}
pub(crate) use fixture;

/// Middle of 2026, inside the validity of the test certificates.
const WALL: u64 = 1_782_000_000;

pub fn prefix(text: &str) -> Prefix {
    text.parse().expect("a prefix")
}

/// A profile that takes everybody; tests change the fields they are about.
pub fn profile(name: &str, auth: AuthKind) -> Profile {
    let parse = |text: &&str| text.parse().expect("a proposal");
    Profile {
        name: name.into(),
        idi: Glob::new("*"),
        idr: Glob::new("*"),
        auth,
        pool: "default".into(),
        network: NetworkId(0),
        local_ts: vec![prefix("0.0.0.0/0").selector(), prefix("::/0").selector()],
        ike: ["aes128gcm16-prfsha256-x25519", "aes256-sha256-modp2048"].iter().map(parse).collect(),
        esp: vec!["aes128gcm16".parse().expect("a proposal"), "aes256-sha256".parse().expect("a proposal")],
        transports: vec![Transport::Tcp],
        rekey_ike: Duration::from_secs(86_400),
        rekey_child: Duration::from_secs(14_400),
        dpd: Duration::from_secs(60),
        mobike: true,
        return_routability: false,
        replay_window: 128,
        ppk: None,
        redirect: None,
        handset: Handset::default(),
    }
}

pub fn psk() -> AuthKind {
    AuthKind::Psk(PskStore::new(Psk::from_text("test-secret")))
}

/// The configuration most tests start from: one PSK profile, one pool of both families.
pub fn config() -> ResponderConfig {
    ResponderConfig {
        identity: "gw.test".parse().expect("an identity"),
        certificates: None,
        profiles: vec![Arc::new(profile("lab", psk()))],
        pools: vec![PoolConfig {
            name: "default".into(),
            network: NetworkId(0),
            prefixes: vec![prefix("10.64.0.0/16"), prefix("fd64::/112")],
            reserved: Vec::new(),
        }],
        dns: vec![vec!["10.64.0.1".parse().expect("an address"), "fd64::1".parse().expect("an address")]],
        redirect: None,
        resumption: None,
        emergency_listen: Vec::new(),
        ike_tcp: None,
        keylog: false,
        limits: Limits::default(),
    }
}

/// [`config`] with one certificate profile and the gateway certificate `rsa` or EC.
pub fn certificate_config(rsa: bool, crl: bool) -> ResponderConfig {
    let (chain, key): (&[u8], &[u8]) = if rsa {
        (fixture!("gw-rsa.pem"), fixture!("gw-rsa.key"))
    } else {
        (fixture!("gw-ec.pem"), fixture!("gw-ec.key"))
    };
    let crl = crl.then_some(&fixture!("crl.pem")[..]);
    let store = CertificateStore::from_pem(chain, key, fixture!("root.pem"), crl).expect("the fixtures");
    ResponderConfig {
        certificates: Some(Arc::new(store)),
        profiles: vec![Arc::new(profile("certificates", AuthKind::Certificate))],
        ..config()
    }
}

pub fn conn(number: u32) -> ConnId {
    ConnId { worker: WorkerId((number % 2) as u8), slot: number, generation: 1 }
}

pub fn path(number: u32) -> Path {
    let (host, port) = ((number % 250 + 1) as u8, (10_000 + number % 50_000) as u16);
    Path {
        transport: Transport::Tcp,
        local: SocketAddr::from(([198, 51, 100, 1], 4500)),
        remote: SocketAddr::from(([192, 0, 2, host], port)),
    }
}

/// A place that messages of a UE come from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    /// A TCP connection by its number.
    Tcp(u32),
    /// UDP from this port of the UE to our port 4500.
    Udp(u16),
    /// A TCP connection for IKE alone, by its number.
    IkeTcp(u32),
}

impl Place {
    pub fn conn(self) -> ConnId {
        match self {
            Self::Tcp(number) | Self::IkeTcp(number) => conn(number),
            Self::Udp(port) => ConnId::datagrams(WorkerId((port % 2) as u8)),
        }
    }

    pub fn path(self) -> Path {
        match self {
            Self::Tcp(number) => path(number),
            Self::IkeTcp(port) => Path {
                transport: Transport::IkeTcp,
                local: SocketAddr::from(([198, 51, 100, 1], 500)),
                remote: SocketAddr::from(([192, 0, 2, 7], 10_000 + port as u16)),
            },
            Self::Udp(port) => Path {
                transport: Transport::Udp,
                local: SocketAddr::from(([198, 51, 100, 1], 4500)),
                remote: SocketAddr::from(([192, 0, 2, 7], port)),
            },
        }
    }
}

pub struct World {
    pub responder: Responder,
    pub now: Instant,
    pub events: Vec<Event>,
    /// Messages not fetched yet.
    pub sent: Vec<Transmit>,
    pub verdict: Verdict,
}

impl World {
    pub fn new(config: ResponderConfig) -> Self {
        Self::seeded(config, 1)
    }

    pub fn seeded(config: ResponderConfig, seed: u64) -> Self {
        let now = Instant::now();
        let random = Box::new(SeededRandom::new(seed ^ 0xffff_0000));
        let wall: SystemTime = UNIX_EPOCH + Duration::from_secs(WALL);
        let responder = Responder::new(Arc::new(config), random, now, wall);
        Self { responder, now, events: Vec::new(), sent: Vec::new(), verdict: Verdict::Good }
    }

    /// Collects what the responder wants done, in the order of its contract.
    pub fn collect(&mut self) {
        while let Some(event) = self.responder.poll_event() {
            self.events.push(event);
        }
        while let Some(transmit) = self.responder.poll_transmit() {
            self.sent.push(transmit);
        }
    }

    /// Delivers a message on connection `number` and returns what is sent back on it.
    pub fn deliver(&mut self, number: u32, message: &[u8]) -> Vec<Vec<u8>> {
        self.tell(number, message);
        self.take_sent(number)
    }

    /// Delivers a message on connection `number`; what is sent back waits to be fetched.
    pub fn tell(&mut self, number: u32, message: &[u8]) {
        for mut message in split(message) {
            self.verdict = self.responder.handle_message(self.now, conn(number), &path(number), &mut message);
        }
        self.collect();
    }

    /// Delivers one message from `place`; what is sent back waits to be fetched.
    pub fn arrive(&mut self, place: Place, mut message: Vec<u8>) -> Verdict {
        self.verdict = self.responder.handle_message(self.now, place.conn(), &place.path(), &mut message);
        self.collect();
        self.verdict
    }

    /// [`Self::deliver`] for a message that has exactly one answer.
    pub fn exchange(&mut self, number: u32, message: &[u8]) -> Vec<u8> {
        let mut sent = self.deliver(number, message);
        assert_eq!(sent.len(), 1, "one answer");
        sent.remove(0)
    }

    /// What was sent on a connection since the last call.
    pub fn take_sent(&mut self, number: u32) -> Vec<Vec<u8>> {
        let (here, elsewhere) =
            std::mem::take(&mut self.sent).into_iter().partition(|t| t.conn == conn(number));
        self.sent = elsewhere;
        let here: Vec<Transmit> = here;
        here.into_iter().map(|transmit| transmit.message.to_vec()).collect()
    }

    /// Lets time pass, alarm by alarm.
    pub fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        while let Some(at) = self.responder.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.responder.handle_timeout(self.now);
            self.collect();
        }
        self.now = end;
        self.responder.handle_timeout(end);
        self.collect();
    }

    /// IKE_SA_INIT on connection `number`.
    pub fn init(&mut self, number: u32, ue: &mut Ue) {
        let request = ue.init();
        let response = self.exchange(number, &request);
        ue.on_init(&response).expect("accepted");
    }

    /// IKE_SA_INIT and IKE_AUTH on connection `number`.
    pub fn attach(&mut self, number: u32, config: UeConfig) -> Ue {
        let mut ue = Ue::new(config);
        self.init(number, &mut ue);
        let request = ue.auth();
        let response = self.exchange(number, &request);
        let decoded = ue.on_auth(&response);
        assert_eq!(decoded.error(), None);
        assert_eq!(ue.children.len(), 1);
        ue
    }

    /// The error notification that answers IKE_AUTH of a UE made from `config`.
    pub fn attach_error(&mut self, number: u32, config: UeConfig) -> Option<NotifyType> {
        let mut ue = Ue::new(config);
        self.init(number, &mut ue);
        let request = ue.auth();
        let response = self.exchange(number, &request);
        ue.on_auth(&response).error()
    }

    pub fn counters(&self) -> ResponderCounters {
        self.responder.counters()
    }

    pub fn session_count(&self) -> u64 {
        self.counters().gauges.sessions
    }

    /// The only session.
    pub fn session(&self) -> SessionId {
        let ids: Vec<_> = self.responder.sessions(self.now).map(|view| view.id).collect();
        assert_eq!(ids.len(), 1, "one session");
        ids[0]
    }

    pub fn installs(&mut self) -> Vec<ChildInstall> {
        let mut installs = Vec::new();
        for event in std::mem::take(&mut self.events) {
            match event {
                Event::Install(install) => installs.push(*install),
                other => self.events.push(other),
            }
        }
        installs
    }

    /// Connections that were bound since the last call, in order.
    pub fn bound(&mut self) -> Vec<ConnId> {
        let bound = |event: &Event| match event {
            Event::Bind { conn, .. } => Some(*conn),
            _ => None,
        };
        let found = self.events.iter().filter_map(bound).collect();
        self.events.retain(|event| bound(event).is_none());
        found
    }

    /// Connections that were closed since the last call.
    pub fn closed(&mut self) -> Vec<(ConnId, CloseReason)> {
        let closed = |event: &Event| match event {
            Event::CloseConn { conn, reason } => Some((*conn, *reason)),
            _ => None,
        };
        let found = self.events.iter().filter_map(closed).collect();
        self.events.retain(|event| closed(event).is_none());
        found
    }
}

/// The UE of [`UeConfig::new`] with a certificate.
pub fn certificate_ue(seed: u64, rsa: bool) -> UeConfig {
    let (leaf, key): (&[u8], &[u8]) = if rsa {
        (fixture!("client-rsa.pem"), fixture!("client-rsa.key"))
    } else {
        (fixture!("client-ec.pem"), fixture!("client-ec.key"))
    };
    let key = codec::crypto::PrivateKey::from_pem(key).expect("a key");
    let chain = vec![der(leaf), der(fixture!("int.pem"))];
    UeConfig {
        id: (codec::ike::IdType::FQDN, b"client.test".to_vec()),
        auth: UeAuth::Certificate { chain, key },
        ..UeConfig::new(seed)
    }
}

pub fn der(pem: &[u8]) -> Vec<u8> {
    use rustls_pki_types::pem::PemObject;
    rustls_pki_types::CertificateDer::from_pem_slice(pem).expect("a certificate").to_vec()
}

/// Suites over which handshakes are tried: keywords of the UE, its group, its ESP.
pub const SUITES: [(&str, KeGroup, &str); 4] = [
    ("aes128gcm16-prfsha256-x25519", KeGroup::CURVE25519, "aes128gcm16"),
    ("aes256gcm16-prfsha384-ecp384", KeGroup::ECP_384, "aes256gcm16-noesn"),
    ("aes256-sha256-modp2048", KeGroup::MODP_2048, "aes256-sha256-esn"),
    ("chacha20poly1305-prfsha512-ecp256", KeGroup::ECP_256, "chacha20poly1305"),
];

/// The error of an unprotected answer.
pub fn clear_error(message: &[u8]) -> Option<NotifyType> {
    Decoded::clear(message).error()
}
