//! Random UEs on a network that loses, repeats and reorders datagrams and loses connections at every step, against
//! what both ends should then hold. UEs divide messages (RFC 7383), and move between connections, addresses and
//! transports, with and without MOBIKE.

mod actions;
mod checks;
mod home;
mod moves;
mod network;
mod subscriber;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use codec::esp::EspSpi;
use codec::ike::{ExchangeType, IkeHeader, PayloadType};
use gateway::control::responder::{
    AuthKind, EapIdentity, EapMethod, EapPolicy, Limits, ResponderConfig, ResponderCounters, Verdict,
};
use gateway::types::{ConnId, Follow, Path, SessionId, Transport};

use crate::ue::{Ue, UeAuth, UeConfig};
use crate::world::{Place, certificate_config, config, profile, psk};
use home::Home;
use network::Network;
use subscriber::Subscriber;

/// Runs of an ordinary test; `SIMULATION_SEEDS` asks for another number.
const SEEDS: u64 = 500;
const STEPS: usize = 28;
const UES: usize = 3;
const HALF_OPEN_MAX: usize = 64;
const REKEY_CHILD: Duration = Duration::from_secs(150);
const REKEY_IKE: Duration = Duration::from_secs(80);

/// Longest message of a UE that divides its own, in octets.
const UE_ROOM: usize = 200;

/// Longest IP packet with a message of the gateway over UDP.
const GATEWAY_PACKET: usize = 200;

/// How long a UE on UDP waits before it asks again.
const REPEAT: Duration = Duration::from_millis(500);

/// In how many rounds of the calm both ends agree.
const CALM_ROUNDS: usize = 100;

struct Simulation {
    network: Network,
    subscribers: Vec<Subscriber>,
    home: Home,
    /// What the packet path would hold: inbound SPI to outbound SPI and session.
    installed: BTreeMap<EspSpi, (EspSpi, SessionId)>,
    /// SPIs on offer.
    announced: BTreeSet<EspSpi>,
    /// Where the packet path has each session, and what makes it follow.
    bound: BTreeMap<SessionId, (ConnId, Path, Follow)>,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let limits = Limits {
            children_max: 4,
            half_open_max: HALF_OPEN_MAX,
            fragment_packet_len: GATEWAY_PACKET,
            ..Limits::default()
        };
        let mut lab = profile("lab", psk());
        (lab.rekey_child, lab.rekey_ike) = (REKEY_CHILD, REKEY_IKE);
        lab.transports = vec![Transport::Tcp, Transport::Udp];
        lab.return_routability = seed.is_multiple_of(3);
        let eap = EapPolicy {
            method: EapMethod::Aka,
            backend: "home".into(),
            alone: false,
            identity: EapIdentity::Auto,
            tracked: false,
            imei: false,
        };
        let mut phones = profile("phones", AuthKind::Eap(eap));
        phones.transports = lab.transports.clone();
        (phones.rekey_child, phones.rekey_ike) = (REKEY_CHILD, REKEY_IKE);
        let profiles = vec![Arc::new(lab), Arc::new(phones)];
        let certificates = certificate_config(false, false).certificates;
        let mut simulation = Self {
            network: Network::new(ResponderConfig { limits, profiles, certificates, ..config() }, seed),
            subscribers: Vec::new(),
            home: Home::default(),
            installed: BTreeMap::new(),
            announced: BTreeSet::new(),
            bound: BTreeMap::new(),
        };
        for index in 0..UES {
            let subscriber = simulation.newcomer(seed * 100 + index as u64);
            simulation.subscribers.push(subscriber);
        }
        simulation
    }

    fn newcomer(&mut self, seed: u64) -> Subscriber {
        let place = self.network.connect();
        let dice = &mut self.network.dice;
        let (mobike, nat, fragmentation) = (dice.chance(40), dice.chance(50), dice.chance(40));
        let room = (fragmentation && dice.chance(50)).then_some(UE_ROOM);
        let mut config = UeConfig { fragmentation, room, ..UeConfig::new(seed) };
        if self.network.dice.chance(30) {
            config.auth = UeAuth::Eap { alone: false };
        }
        let ue = Ue::new(config);
        Subscriber::new(ue, place, mobike, nat)
    }

    /// The subscriber starts over, as another one.
    fn replace(&mut self, who: usize) {
        self.network.leave(self.subscribers[who].place);
        let seed = self.subscribers[who].ue.config.seed + 1_000_000_000;
        self.subscribers[who] = self.newcomer(seed);
    }

    /// Sends a request until its response arrives, over as many connections as it takes; `None` when the session,
    /// or the IKE SA it was asked on, ends meanwhile.
    fn insist(&mut self, who: usize, request: &[u8]) -> Option<Vec<u8>> {
        let wanted = IkeHeader::decode(request).expect("ours");
        for _ in 0..50 {
            // The gateway may have given it up while it waited for others.
            if self.subscribers[who].attached && self.session_of(who).is_none() {
                self.subscribers[who].dismissed = true;
                return None;
            }
            let tcp = matches!(self.subscribers[who].place, Place::Tcp(_));
            if tcp && self.network.mishap(15) {
                if self.network.dice.chance(20) {
                    self.network.delay(self.subscribers[who].place, request);
                }
                self.reconnect(who);
                continue;
            }
            let place = self.subscribers[who].place;
            self.trace(who, "asks", request);
            let verdict = self.network.send(place, request);
            assert!(!tcp || verdict == Some(Verdict::Good), "refused: {:?}", self.drops());
            self.after();
            let sent = self.network.receive(place);
            let response = self.sort(who, sent, Some(&wanted));
            if self.subscribers[who].dismissed {
                return None;
            }
            if tcp && self.network.mishap(15) {
                self.reconnect(who);
                continue;
            }
            if response.is_some() {
                return response;
            }
            self.network.pass(REPEAT);
            self.after();
            // What was asked on an IKE SA that the gateway has replaced is not asked any more.
            if self.subscribers[who].attached && !self.subscribers[who].has_sa(&wanted) {
                return None;
            }
        }
        panic!("no response in 50 tries");
    }

    /// Takes the awaited response out of what was sent and answers the gateway's requests.
    fn sort(&mut self, who: usize, sent: Vec<Vec<u8>>, wanted: Option<&IkeHeader>) -> Option<Vec<u8>> {
        let mut response = None;
        for message in sent {
            let Some(message) = self.subscribers[who].join(message) else { continue };
            self.trace(who, "gets", &message);
            let header = IkeHeader::decode(&message).expect("the gateway's");
            if header.flags.is_response() {
                if wanted.is_some_and(|wanted| answers(&header, wanted)) {
                    response = Some(message);
                }
            } else if !self.network.mishap(20) {
                self.answer(who, &message);
            }
        }
        response
    }

    fn answer(&mut self, who: usize, request: &[u8]) {
        let subscriber = &mut self.subscribers[who];
        let response = match subscriber.answered.get(request) {
            Some(response) => response.clone(),
            None => {
                let Some(decoded) = subscriber.ue.open(request) else { return };
                let response = subscriber.carry_out(&decoded);
                subscriber.answered.insert(request.to_vec(), response.clone());
                response
            }
        };
        let place = subscriber.place;
        self.trace(who, "answers", &response);
        if self.network.mishap(15) {
            return;
        }
        self.network.send(place, &response);
        self.after();
        let sent = self.network.receive(place);
        self.sort(who, sent, None);
    }

    /// What the gateway has dropped so far.
    fn drops(&self) -> Vec<(&'static str, u64)> {
        self.network.world.counters().drops.iter().filter(|(_, count)| *count > 0).collect()
    }

    /// Takes what has come for a UE meanwhile.
    fn listen(&mut self, who: usize) {
        let waiting = self.network.receive(self.subscribers[who].place);
        self.sort(who, waiting, None);
    }

    /// Lets time pass.
    fn pass(&mut self, by: Duration) {
        self.network.pass(by);
        self.after();
    }

    fn step(&mut self) {
        let who = self.network.dice.below(UES as u32) as usize;
        if self.subscribers[who].attached {
            self.listen(who);
            if !self.subscribers[who].dismissed {
                self.act(who);
            }
        } else {
            self.attach(who);
        }
        self.reap();
    }

    /// Says what happens, when one seed is looked at.
    fn trace(&self, who: usize, what: &str, message: &[u8]) {
        if only_seed().is_none() {
            return;
        }
        let place = self.subscribers[who].place;
        let header = IkeHeader::decode(message).expect("a message");
        let ue = &self.subscribers[who].ue;
        let opened = if what == "gets" { ue.open(message) } else { None };
        let payloads = opened.map(|it| it.payloads).unwrap_or_default();
        let payloads: Vec<_> = payloads
            .iter()
            .map(|(kind, body)| match *kind {
                PayloadType::NOTIFY | PayloadType::DELETE => format!("{kind} {body:02x?}"),
                _ => kind.to_string(),
            })
            .collect();
        let children: Vec<_> = ue.children.iter().map(|child| (child.spi_out, child.spi_in)).collect();
        println!(
            "UE {who} at {place:?} {what} {} {} of {}, {:?}: {}; holds {children:?}",
            header.exchange,
            header.message_id,
            header.spi_r,
            header.flags,
            payloads.join(", ")
        );
    }

    /// Nobody asks for anything, nothing gets lost, and everything that is owed is answered.
    fn calm_down(&mut self) {
        self.network.calm = true;
        self.network.flush();
        self.after();
        let mut agreed = 0;
        for _ in 0..CALM_ROUNDS {
            self.pass(REPEAT);
            self.reap();
            for who in 0..self.subscribers.len() {
                self.listen(who);
                if self.subscribers[who].attached && !self.subscribers[who].dismissed {
                    // A sign of life also brings back what was lost with a connection.
                    self.reconnect(who);
                    let request = self.sign_of_life(who);
                    self.insist(who, &request);
                }
            }
            self.reap();
            agreed = if self.agreement().is_ok() { agreed + 1 } else { 0 };
            if agreed == 2 {
                return;
            }
        }
        panic!("no agreement although nothing is under way: {:?}", self.agreement());
    }
}

/// Whether a header is that of the response to `request`. One in clear answers IKE_SA_INIT alone
/// (RFC 7296 §2.21.4).
fn answers(header: &IkeHeader, request: &IkeHeader) -> bool {
    let protected = matches!(header.next_payload, PayloadType::ENCRYPTED | PayloadType::ENCRYPTED_FRAGMENT);
    let same = (header.spi_i, header.message_id) == (request.spi_i, request.message_id);
    same && protected != (request.exchange == ExchangeType::IKE_SA_INIT)
}

/// What at least one run must have come across.
const REACHED: [&str; 28] = [
    "attached",
    "eap_started",
    "children_created",
    "children_rekeyed",
    "ike_rekeyed",
    "children_rekeyed_here",
    "ike_rekeyed_here",
    "rekey_collisions",
    "rekeys_put_off",
    "children_deleted",
    "requests_sent",
    "requests_resent",
    "requests_retransmitted",
    "retransmissions_answered",
    "connection_switches",
    "addresses_updated",
    "behind_nat",
    "fragments_received",
    "messages_joined",
    "messages_divided",
    "peer_dead",
    "bad_icv",
    "out_of_window",
    "unexpected_response",
    "tcp_bound",
    "temporary_failure",
    "child_limit",
    "unknown_ike_spi",
];

#[test]
fn both_ends_agree_whatever_the_network_does() {
    if let Some(seed) = only_seed() {
        run(seed);
        return;
    }
    let (seeds, started) = (seeds(), Instant::now());
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let totals = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| run_all(&next, seeds))).collect();
        let mut totals = BTreeMap::<&str, u64>::new();
        for worker in workers {
            let counts = worker.join().expect("it says which seed fails");
            counts.into_iter().for_each(|(name, count)| *totals.entry(name).or_default() += count);
        }
        totals
    });
    println!("{seeds} runs in {:.1} s on {threads} threads", started.elapsed().as_secs_f64());
    // The runs reached what they are for.
    for name in REACHED {
        assert!(totals[name] > 0, "no run has {name}: {totals:?}");
    }
}

/// Takes seeds until there are none left, and adds up what happened.
fn run_all(next: &AtomicU64, seeds: u64) -> BTreeMap<&'static str, u64> {
    let mut totals = BTreeMap::<&str, u64>::new();
    loop {
        let seed = next.fetch_add(1, Relaxed);
        if seed >= seeds {
            return totals;
        }
        let counters = catch_unwind(|| run(seed)).unwrap_or_else(|_| {
            next.store(seeds, Relaxed);
            panic!(
                "seed {seed} fails; to see it step by step: \
                 SIMULATION_SEED={seed} cargo test -p gateway --test responder simulation -- --nocapture"
            )
        });
        for (name, count) in counters.exchanges.iter().chain(counters.drops.iter()) {
            *totals.entry(name).or_default() += count;
        }
    }
}

/// The one seed to run, with a trace.
fn only_seed() -> Option<u64> {
    static SEED: OnceLock<Option<u64>> = OnceLock::new();
    *SEED.get_or_init(|| {
        std::env::var("SIMULATION_SEED").ok().map(|seed| seed.parse().expect("SIMULATION_SEED is a number"))
    })
}

/// How many seeds to run.
fn seeds() -> u64 {
    let seeds = std::env::var("SIMULATION_SEEDS").ok();
    seeds.map_or(SEEDS, |seeds| seeds.parse().expect("SIMULATION_SEEDS is a number"))
}

fn run(seed: u64) -> ResponderCounters {
    let mut simulation = Simulation::new(seed);
    for _ in 0..STEPS {
        simulation.step();
        simulation.compare();
    }
    simulation.calm_down();
    // Everybody falls silent: in the end nothing is left.
    simulation.network.pass(Duration::from_secs(200));
    simulation.after();
    let counters = simulation.network.world.counters();
    let gauges = counters.gauges;
    assert_eq!((gauges.sessions, gauges.half_open, gauges.children, gauges.addresses), (0, 0, 0, 0));
    assert_eq!(simulation.home.attempts(), 0, "the home network was told of every end");
    assert!(
        simulation.installed.is_empty() && simulation.announced.is_empty() && simulation.bound.is_empty()
    );
    counters
}
