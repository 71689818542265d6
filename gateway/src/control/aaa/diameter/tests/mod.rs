//! The node against scripted peers, in virtual time.

mod failover;
mod peers;
mod served;
mod sessions;
mod sockets;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::avp::AvpWriter;
use super::ids::Ids;
use super::message::{Header, Message, MessageWriter};
use super::names::{self, TGPP, application, command, result, value};
use super::node::{Node, Output};
use super::settings::{Server, Settings};
use crate::control::responder::{
    AaaAnswer, Attached, AttemptId, EapMethod, EapStep, EndCause, RejectCause, Subject,
};
use crate::types::{SessionId, Transport};

const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

/// Tw of the tests; with its spread a watchdog comes after 28 to 32 s.
const TW: Duration = Duration::from_secs(30);

/// How long a server has.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Writes the AVPs of a message.
type Write<'w> = &'w dyn Fn(&mut AvpWriter);

/// A message that the node sent.
struct Sent(Vec<u8>);

impl Sent {
    fn message(&self) -> Message<'_> {
        Message::parse(&self.0).expect("what we write is well-formed")
    }

    fn header(&self) -> Header {
        self.message().header
    }

    fn is(&self, command: u32, is_request: bool) -> bool {
        self.header().command == command && self.header().is_request() == is_request
    }
}

/// A node, and its peers as a script plays them.
struct Rig {
    node: Node,
    now: Instant,
    /// The connection of each peer, once it was asked for.
    connections: Vec<Option<u64>>,
    sent: Vec<VecDeque<Sent>>,
    answers: VecDeque<(AttemptId, AaaAnswer)>,
    lifetimes: Vec<(SessionId, Duration)>,
    disconnects: VecDeque<(SessionId, Option<u64>)>,
}

impl Rig {
    /// A node whose `peers` are configured and not yet connected.
    fn new(peers: usize) -> Self {
        Self::with(peers, |_| {})
    }

    fn with(peers: usize, change: impl FnOnce(&mut Settings)) -> Self {
        let server = |index: usize| Server {
            name: format!("server-{index}").into(),
            addr: ([192, 0, 2, 10 + index as u8], 3868).into(),
            host: None,
        };
        let mut settings = Settings {
            servers: (0..peers).map(server).collect(),
            origin_host: "epdg.visited.example".into(),
            origin_realm: "visited.example".into(),
            timeout: TIMEOUT,
            watchdog: TW,
            ..Settings::fuzzed()
        };
        change(&mut settings);
        let now = Instant::now();
        let mut rig = Self {
            node: Node::new(settings, Ids::new(0x6543_2100, 7), now),
            now,
            connections: vec![None; peers],
            sent: (0..peers).map(|_| VecDeque::new()).collect(),
            answers: VecDeque::new(),
            lifetimes: Vec::new(),
            disconnects: VecDeque::new(),
        };
        rig.node.handle_timeout(now);
        rig.drain();
        rig
    }

    /// A node whose peers are all up.
    fn up(peers: usize) -> Self {
        let mut rig = Self::new(peers);
        (0..peers).for_each(|peer| rig.connect(peer));
        rig
    }

    fn drain(&mut self) {
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Connect { peer, connection } => self.connections[peer] = Some(connection),
                Output::Send { connection, octets } => {
                    let peer = self.peer_of(connection);
                    self.sent[peer].push_back(Sent(octets));
                }
                Output::Close { connection } => {
                    let peer = self.peer_of(connection);
                    self.connections[peer] = None;
                }
                Output::Answer { attempt, answer } => self.answers.push_back((attempt, answer)),
                Output::Lifetime { session, left } => self.lifetimes.push((session, left)),
                Output::Disconnect { session, ask } => self.disconnects.push_back((session, ask)),
            }
        }
    }

    fn peer_of(&self, connection: u64) -> usize {
        let found = self.connections.iter().position(|known| *known == Some(connection));
        found.expect("a connection that is there")
    }

    /// Lets the connection be made, up to our CER.
    fn connected(&mut self, peer: usize) -> Sent {
        let connection = self.connections[peer].expect("a connection was asked for");
        self.node.handle_connected(self.now, peer, connection, LOCAL);
        self.drain();
        self.take(peer)
    }

    /// Makes the connection and answers the CER.
    fn connect(&mut self, peer: usize) {
        let cer = self.connected(peer);
        assert!(cer.is(command::CAPABILITIES_EXCHANGE, true));
        self.reply(peer, &cer, |avps| {
            avps.number(names::RESULT_CODE, result::SUCCESS)
                .text(names::ORIGIN_HOST, &format!("aaa{peer}.home.example"))
                .text(names::ORIGIN_REALM, "home.example");
            swm_capability(avps);
        });
    }

    /// The connection breaks.
    fn broken(&mut self, peer: usize) {
        let connection = self.connections[peer].take().expect("a connection");
        self.node.handle_closed(self.now, peer, connection);
        self.drain();
    }

    /// The next message to `peer`.
    fn take(&mut self, peer: usize) -> Sent {
        self.sent[peer].pop_front().expect("a message to the peer")
    }

    fn is_silent(&self) -> bool {
        self.sent.iter().all(VecDeque::is_empty)
    }

    fn receive(&mut self, peer: usize, octets: &[u8]) {
        let connection = self.connections[peer].expect("a connection");
        self.node.handle_message(self.now, peer, connection, octets);
        self.drain();
    }

    /// Answers a request of the node.
    fn reply(&mut self, peer: usize, request: &Sent, write: impl FnOnce(&mut AvpWriter)) {
        let octets = answer_to(request, write);
        self.receive(peer, &octets);
    }

    /// Asks the node something.
    fn ask(&mut self, peer: usize, command: u32, write: impl FnOnce(&mut AvpWriter)) -> Sent {
        let octets = request(command, application::SWM, write);
        self.receive(peer, &octets);
        self.take(peer)
    }

    /// Lets time pass, doing what is due on the way.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.node.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.node.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    /// Answers watchdogs of `peer` for that long.
    fn pass_alive(&mut self, peer: usize, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.pass(Duration::from_secs(1));
            while let Some(request) = self.sent[peer].pop_front() {
                assert!(request.is(command::DEVICE_WATCHDOG, true), "only watchdogs are due");
                self.reply(peer, &request, success);
            }
        }
    }

    fn step(&mut self, attempt: u64, packet: &[u8]) {
        self.step_of(attempt, packet, subject());
    }

    fn step_of(&mut self, attempt: u64, packet: &[u8], subject: Subject) {
        let backend = Arc::from("main");
        let step = EapStep { attempt: AttemptId(attempt), backend, packet: packet.to_vec(), subject };
        self.node.step(self.now, &step);
        self.drain();
    }

    /// One round: identity, success. Leaves a session.
    fn attach(&mut self, attempt: u64, session: u64) -> Sent {
        self.step(attempt, &[2, 1, 0, 5, 1]);
        let der = self.take(0);
        self.reply(0, &der, |avps| {
            granted(avps);
        });
        assert!(matches!(self.answers.pop_front(), Some((_, AaaAnswer::Accept(_)))));
        self.attached(attempt, session);
        der
    }

    fn attached(&mut self, attempt: u64, session: u64) {
        self.node.attached(&Attached {
            attempt: AttemptId(attempt),
            session: SessionId(session),
            inner: Box::new([]),
            timeout: None,
            subject: subject(),
        });
        self.drain();
    }

    fn ended(&mut self, session: u64) {
        self.node.ended(self.now, SessionId(session), EndCause::Peer);
        self.drain();
    }

    fn rejected(&mut self) -> RejectCause {
        match self.answers.pop_front() {
            Some((_, AaaAnswer::Reject { cause, .. })) => cause,
            _ => panic!("not a refusal"),
        }
    }
}

fn subject() -> Subject {
    Subject {
        idi: "0001010000000001@nai.epc.mnc001.mcc001.3gppnetwork.org".into(),
        apn: Some("ims".into()),
        profile: "phones".into(),
        method: EapMethod::Aka,
        local: ([203, 0, 113, 1], 4500).into(),
        remote: ([198, 51, 100, 7], 40_000).into(),
        transport: Transport::Tcp,
        emergency: false,
        imei: None,
    }
}

fn request(command: u32, application: u32, write: impl FnOnce(&mut AvpWriter)) -> Vec<u8> {
    let mut header = Header::request(command, application, 0x4242_0001);
    header.hop_by_hop = 0x2121_0001;
    let mut writer = MessageWriter::new(header);
    write(writer.avps());
    writer.finish()
}

fn answer_to(request: &Sent, write: impl FnOnce(&mut AvpWriter)) -> Vec<u8> {
    let mut writer = MessageWriter::new(request.header().answer(false));
    request.message().find(names::SESSION_ID).into_iter().for_each(|avp| _ = writer.avps().copy(avp.octets));
    write(writer.avps());
    writer.finish()
}

fn swm_capability(avps: &mut AvpWriter) {
    avps.group(names::VENDOR_SPECIFIC_APPLICATION_ID, |group| {
        group.number(names::VENDOR_ID, TGPP).number(names::AUTH_APPLICATION_ID, application::SWM);
    });
}

fn origin(avps: &mut AvpWriter) -> &mut AvpWriter {
    avps.text(names::ORIGIN_HOST, "aaa.home.example").text(names::ORIGIN_REALM, "home.example")
}

fn with_result(avps: &mut AvpWriter, code: u32) -> &mut AvpWriter {
    origin(avps.number(names::RESULT_CODE, code))
}

fn success(avps: &mut AvpWriter) {
    with_result(avps, result::SUCCESS);
}

/// DEA of a server that asks for more.
fn more<'w>(avps: &'w mut AvpWriter, packet: &[u8]) -> &'w mut AvpWriter {
    with_result(avps, result::MULTI_ROUND_AUTH).octets(names::EAP_PAYLOAD, packet)
}

/// DEA of a server that lets the user in.
fn granted(avps: &mut AvpWriter) -> &mut AvpWriter {
    with_result(avps, result::SUCCESS)
        .octets(names::EAP_PAYLOAD, &[3, 1, 0, 4])
        .octets(names::EAP_MASTER_SESSION_KEY, &[7; 64])
}

#[test]
fn the_corpus_reaches_what_it_should() {
    let folder: std::path::PathBuf = [env!("CARGO_MANIFEST_DIR"), "fuzz/corpus/diameter"].iter().collect();
    for (name, octets) in corpus() {
        let path = folder.join(name);
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&path, &octets).expect("a writable folder");
        }
        assert_eq!(std::fs::read(&path).ok().as_deref(), Some(&octets[..]), "{name}: run with BLESS=1");
        super::fuzz(&octets);
    }
}

/// What the fuzzer begins with: one message of each kind, and the ways in which they can be wrong.
fn corpus() -> Vec<(&'static str, Vec<u8>)> {
    let answer = |command, write: Write<'_>| {
        let mut writer = MessageWriter::new(Header::request(command, application::SWM, 1).answer(false));
        write(writer.avps());
        writer.finish()
    };
    let session = "epdg.example;1;1";
    let dea = answer(command::DIAMETER_EAP, &|avps| {
        granted(avps.text(names::SESSION_ID, session))
            .number(names::SESSION_TIMEOUT, 3600)
            .text(names::MOBILE_NODE_IDENTIFIER, "0001010000000001@nai.example")
            .group(names::APN_CONFIGURATION, |group| {
                group
                    .text(names::SERVICE_SELECTION, "ims")
                    .address(names::SERVED_PARTY_IP_ADDRESS, LOCAL)
                    .address(names::SERVED_PARTY_IP_ADDRESS, "2001:db8::1".parse().expect("an address"));
            });
    });
    let asr = request(command::ABORT_SESSION, application::SWM, |avps| {
        origin(avps.text(names::SESSION_ID, session)).text(names::DESTINATION_HOST, "epdg.example");
    });
    let mut short = dea.clone();
    // The length of an AVP in the middle.
    short[27] = 3;
    let cut = dea[..dea.len() - 8].to_vec();
    vec![
        ("dea-granted", dea.clone()),
        ("dea-more", answer(command::DIAMETER_EAP, &|avps| _ = more(avps, &[1, 1, 0, 5, 23]))),
        (
            "dea-refused",
            answer(command::DIAMETER_EAP, &|avps| {
                avps.group(names::EXPERIMENTAL_RESULT, |group| {
                    group.number(names::VENDOR_ID, TGPP).number(names::EXPERIMENTAL_RESULT_CODE, 5450);
                });
            }),
        ),
        ("asr", asr.clone()),
        (
            "rar",
            request(command::RE_AUTH, application::SWM, |avps| {
                avps.text(names::SESSION_ID, session).number(names::RE_AUTH_REQUEST_TYPE, 0);
            }),
        ),
        ("dwr", request(command::DEVICE_WATCHDOG, application::COMMON, |avps| _ = origin(avps))),
        (
            "dpr",
            request(command::DISCONNECT_PEER, application::COMMON, |avps| {
                origin(avps).number(names::DISCONNECT_CAUSE, value::REBOOTING);
            }),
        ),
        ("cer", request(command::CAPABILITIES_EXCHANGE, application::COMMON, swm_capability)),
        (
            "unknown-mandatory",
            request(command::ABORT_SESSION, application::SWM, |avps| {
                avps.number(names::Name { code: 4_000, vendor: 0, must: true }, 1);
            }),
        ),
        ("two-messages", [asr, dea].concat()),
        ("avp-length", short),
        ("cut", cut),
        ("header-only", request(command::DIAMETER_EAP, application::SWM, |_| {})),
        ("empty", Vec::new()),
    ]
}
