//! Random UEs on a network that loses connections at every step, against what both ends should then hold.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use codec::esp::EspSpi;
use codec::ike::{IkeHeader, IkeSpi, MessageId, PayloadType};
use codec::{Random, SeededRandom};
use gateway::control::responder::{Event, Limits, ResponderConfig, ResponderCounters, Verdict};
use gateway::types::{SessionId, WorkerId};

use crate::ue::{Decoded, Ue, UeConfig};
use crate::world::{World, config, conn, path};

const SEEDS: u64 = 300;
const STEPS: usize = 80;
const UES: usize = 3;
const HALF_OPEN_MAX: usize = 64;

struct Dice(SeededRandom);

impl Dice {
    fn below(&mut self, end: u32) -> u32 {
        let mut octets = [0; 4];
        self.0.fill(&mut octets);
        u32::from_be_bytes(octets) % end
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }
}

/// One UE and its connection of the moment.
struct Subscriber {
    ue: Ue,
    conn: u32,
    attached: bool,
    /// The gateway deleted the session and the UE agreed.
    dismissed: bool,
    /// Responses owed to the gateway, by the request's octets: a repeated request gets the same.
    answered: BTreeMap<Vec<u8>, Vec<u8>>,
}

struct Simulation {
    world: World,
    dice: Dice,
    subscribers: Vec<Subscriber>,
    next_conn: u32,
    open: BTreeSet<u32>,
    /// What the packet path would hold: inbound SPI to outbound SPI and session.
    installed: BTreeMap<EspSpi, (EspSpi, SessionId)>,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let limits = Limits { children_max: 4, half_open_max: HALF_OPEN_MAX, ..Limits::default() };
        let world = World::seeded(ResponderConfig { limits, ..config() }, seed);
        let mut simulation = Self {
            world,
            dice: Dice(SeededRandom::new(seed)),
            subscribers: Vec::new(),
            next_conn: 1,
            open: BTreeSet::new(),
            installed: BTreeMap::new(),
        };
        for index in 0..UES {
            let subscriber = simulation.newcomer(seed * 100 + index as u64);
            simulation.subscribers.push(subscriber);
        }
        simulation
    }

    fn newcomer(&mut self, seed: u64) -> Subscriber {
        let conn = self.connect();
        Subscriber {
            ue: Ue::new(UeConfig::new(seed)),
            conn,
            attached: false,
            dismissed: false,
            answered: BTreeMap::new(),
        }
    }

    fn connect(&mut self) -> u32 {
        let conn = self.next_conn;
        self.next_conn += 1;
        self.open.insert(conn);
        conn
    }

    /// The connection of a UE breaks and it makes another. The gateway may learn of the break late.
    fn reconnect(&mut self, who: usize) {
        let old = self.subscribers[who].conn;
        self.subscribers[who].conn = self.connect();
        if self.dice.chance(70) {
            self.break_down(old);
        }
    }

    fn break_down(&mut self, number: u32) {
        self.open.remove(&number);
        self.world.responder.handle_conn_closed(conn(number));
        self.after();
    }

    /// Sends a request until its response arrives, over as many connections as it takes; `None` when the
    /// gateway deletes the session meanwhile.
    fn insist(&mut self, who: usize, request: &[u8]) -> Option<Vec<u8>> {
        let wanted = IkeHeader::decode(request).expect("ours");
        for _ in 0..50 {
            if self.dice.chance(15) {
                self.reconnect(who);
                continue;
            }
            let number = self.subscribers[who].conn;
            let sent = self.world.deliver(number, request);
            assert_eq!(self.world.verdict, Verdict::Good);
            self.after();
            let response = self.sort(who, sent, Some((wanted.spi_i, wanted.message_id)));
            if self.subscribers[who].dismissed {
                return None;
            }
            if self.dice.chance(15) {
                self.reconnect(who);
                continue;
            }
            if response.is_some() {
                return response;
            }
        }
        panic!("no response in 50 tries");
    }

    /// Takes the awaited response out of what was sent and answers the gateway's requests.
    fn sort(
        &mut self,
        who: usize,
        sent: Vec<Vec<u8>>,
        wanted: Option<(IkeSpi, MessageId)>,
    ) -> Option<Vec<u8>> {
        let mut response = None;
        for message in sent {
            let header = IkeHeader::decode(&message).expect("the gateway's");
            if header.flags.is_response() {
                if wanted == Some((header.spi_i, header.message_id)) {
                    response = Some(message);
                }
            } else if !self.dice.chance(20) {
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
        let number = subscriber.conn;
        if self.dice.chance(15) {
            return;
        }
        let sent = self.world.deliver(number, &response);
        self.after();
        self.sort(who, sent, None);
    }

    fn step(&mut self) {
        let who = self.dice.below(UES as u32) as usize;
        if !self.subscribers[who].attached {
            self.attach(who);
            return;
        }
        let number = self.subscribers[who].conn;
        let waiting = self.world.take_sent(number);
        self.sort(who, waiting, None);
        if self.subscribers[who].attached && !self.subscribers[who].dismissed {
            self.act(who);
        }
        if self.subscribers[who].dismissed {
            self.replace(who);
        }
    }

    fn act(&mut self, who: usize) {
        match self.dice.below(14) {
            0 | 1 => self.create(who, false),
            2 | 3 => self.create(who, true),
            4 => self.rekey_ike(who),
            5 => self.delete_child(who),
            6 => self.delete_session(who),
            7 => self.reconnect(who),
            8 => {
                let by = self.dice.below(70);
                self.world.advance(Duration::from_secs(by.into()));
                self.after();
                self.reap();
            }
            9 => self.esp_elsewhere(who),
            10 => self.stray(who),
            11 => self.exhaust(who),
            12 if self.dice.chance(30) => self.dismiss(who),
            _ => {
                let request = self.subscribers[who].ue.informational(|_| {});
                self.insist(who, &request);
            }
        }
    }

    fn attach(&mut self, who: usize) {
        let number = self.connect();
        self.subscribers[who].conn = number;
        let request = self.subscribers[who].ue.init();
        let Some(response) = self.insist(who, &request) else { return };
        let subscriber = &mut self.subscribers[who];
        subscriber.ue.on_init(&response).expect("accepted");
        let request = subscriber.ue.auth();
        let Some(response) = self.insist(who, &request) else { return };
        let subscriber = &mut self.subscribers[who];
        assert_eq!(subscriber.ue.on_auth(&response).error(), None);
        subscriber.attached = true;
    }

    fn create(&mut self, who: usize, rekey: bool) {
        let pfs = self.dice.chance(30);
        let ue = &mut self.subscribers[who].ue;
        let rekeyed = if rekey { ue.children.last().map(|child| child.spi_in) } else { None };
        let request = ue.create_child(rekeyed, pfs);
        let Some(response) = self.insist(who, &request) else { return };
        let made = self.subscribers[who].ue.on_create_child(&response).error().is_none();
        let still =
            |subscriber: &Subscriber, spi| subscriber.ue.children.iter().any(|child| child.spi_in == spi);
        if let Some(spi) = rekeyed.filter(|spi| made && still(&self.subscribers[who], *spi)) {
            self.delete(who, spi);
        }
    }

    fn delete_child(&mut self, who: usize) {
        if let Some(spi) = self.subscribers[who].ue.children.first().map(|child| child.spi_in) {
            self.delete(who, spi);
        }
    }

    fn delete(&mut self, who: usize, spi: EspSpi) {
        let request = self.subscribers[who].ue.informational(|builder| {
            builder.delete_esp(&[spi]);
        });
        self.insist(who, &request);
        self.subscribers[who].ue.children.retain(|child| child.spi_in != spi);
    }

    fn rekey_ike(&mut self, who: usize) {
        let request = self.subscribers[who].ue.rekey_ike();
        let Some(response) = self.insist(who, &request) else { return };
        let ue = &mut self.subscribers[who].ue;
        if ue.on_rekey_ike(&response).error().is_none() {
            let request = ue.informational_on_old(|builder| {
                builder.delete_ike();
            });
            self.insist(who, &request);
            self.subscribers[who].ue.old = None;
        }
    }

    fn delete_session(&mut self, who: usize) {
        if self.dice.chance(50) {
            return;
        }
        let request = self.subscribers[who].ue.informational(|builder| {
            builder.delete_ike();
        });
        self.insist(who, &request);
        self.replace(who);
    }

    /// The subscriber starts over, as another one.
    fn replace(&mut self, who: usize) {
        let seed = self.subscribers[who].ue.config.seed + 1_000_000;
        self.subscribers[who] = self.newcomer(seed);
    }

    /// The UE shows up with ESP on a new connection; the worker tells.
    fn esp_elsewhere(&mut self, who: usize) {
        self.reconnect(who);
        let number = self.subscribers[who].conn;
        let wanted = self.subscribers[who].ue.sa.as_ref().expect("attached").spi_r;
        let found = self.world.responder.sessions(self.world.now).find(|view| view.ike.spi_r == wanted);
        let Some(id) = found.map(|view| view.id) else { return };
        self.world.responder.handle_conn_bound(self.world.now, id, conn(number), &path(number));
        self.world.collect();
        self.after();
        let sent = self.world.take_sent(number);
        self.sort(who, sent, None);
    }

    /// The sequence numbers of a Child SA run out, and the gateway deletes it.
    fn exhaust(&mut self, who: usize) {
        let Some(spi) = self.subscribers[who].ue.children.first().map(|child| child.spi_out) else { return };
        let Some(id) = self.installed.get(&spi).map(|(_, session)| *session) else { return };
        self.world.responder.handle_sequence_high(self.world.now, id, spi);
        self.after();
        self.world.advance(Duration::from_millis(10));
        self.after();
    }

    /// An administrator ends the session.
    fn dismiss(&mut self, who: usize) {
        let wanted = self.subscribers[who].ue.sa.as_ref().expect("attached").spi_r;
        let found = self.world.responder.sessions(self.world.now).find(|view| view.ike.spi_r == wanted);
        let Some(id) = found.map(|view| view.id) else { return };
        assert!(self.world.responder.terminate(self.world.now, id));
        self.after();
    }

    /// Somebody else's octets on a connection of their own.
    fn stray(&mut self, who: usize) {
        let number = self.connect();
        let mut message = self.subscribers[who].ue.informational(|_| {});
        self.subscribers[who].ue.sa.as_mut().expect("attached").next_out -= 1;
        let at = self.dice.below(message.len() as u32) as usize;
        message[at] ^= 1 << self.dice.below(8);
        let sent = self.world.deliver(number, &message);
        assert_eq!(self.world.verdict, Verdict::Bad);
        assert!(sent.iter().all(|message| !Decoded::clear(message).payloads.is_empty()));
        self.after();
        self.break_down(number);
    }

    /// Carries out what the responder wants and checks what must always hold.
    fn after(&mut self) {
        self.world.collect();
        for event in std::mem::take(&mut self.world.events) {
            match event {
                Event::Install(install) => {
                    assert!(install.spi_in.0 >= 256);
                    assert_eq!(WorkerId::of_spi(install.spi_in), install.worker);
                    if let Some(replaced) = install.replaces {
                        assert!(self.installed.contains_key(&replaced), "replaces what is there");
                    }
                    let known = self.installed.insert(install.spi_in, (install.spi_out, install.session));
                    assert!(known.is_none(), "an SPI is used once at a time");
                }
                Event::RemoveChild { spi_in, .. } => {
                    assert!(self.installed.remove(&spi_in).is_some(), "removes what is there");
                }
                Event::CloseSession { session, .. } => {
                    self.installed.retain(|_, (_, owner)| *owner != session);
                }
                _ => {}
            }
        }
        let gauges = self.world.counters().gauges;
        assert_eq!(gauges.children, self.installed.len() as u64);
        assert!(gauges.half_open <= HALF_OPEN_MAX as u64);
        for transmit in &self.world.sent {
            assert!(self.open.contains(&transmit.conn.slot), "sent where nobody listens");
        }
        self.world.sent.retain(|transmit| self.open.contains(&transmit.conn.slot));
    }

    /// Subscribers whose session the gateway gave up start over.
    fn reap(&mut self) {
        let alive: BTreeSet<_> =
            self.world.responder.sessions(self.world.now).map(|view| view.ike.spi_r).collect();
        for who in 0..self.subscribers.len() {
            let subscriber = &self.subscribers[who];
            let sa = subscriber.ue.sa.as_ref().filter(|_| subscriber.attached);
            if sa.is_some_and(|sa| !alive.contains(&sa.spi_r)) {
                self.replace(who);
            }
        }
    }

    /// When nothing is under way, both ends hold the same Child SAs.
    fn compare(&self) {
        for view in self.world.responder.sessions(self.world.now) {
            let owner = self.subscribers.iter().find(|subscriber| {
                subscriber.attached && subscriber.ue.sa.as_ref().is_some_and(|sa| sa.spi_r == view.ike.spi_r)
            });
            let Some(owner) = owner else { continue };
            let gateway: BTreeSet<_> =
                view.children.iter().map(|child| (child.spi_in, child.spi_out)).collect();
            let ue: BTreeSet<_> =
                owner.ue.children.iter().map(|child| (child.spi_out, child.spi_in)).collect();
            // A Delete of ours that the UE carried out may still wait for its answer here.
            assert!(ue.is_subset(&gateway), "the UE holds {ue:?}, the gateway {gateway:?}");
        }
    }
}

impl Subscriber {
    fn carry_out(&mut self, request: &Decoded) -> Vec<u8> {
        let deleted = request.deleted();
        let named: Vec<_> = self
            .ue
            .children
            .iter()
            .filter(|child| deleted.contains(&child.spi_out))
            .map(|child| child.spi_in)
            .collect();
        self.ue.children.retain(|child| !named.contains(&child.spi_in));
        self.dismissed |= request.body(PayloadType::DELETE) == Some(&[1, 0, 0, 0][..]);
        self.ue.respond(request, |builder| {
            if !named.is_empty() {
                builder.delete_esp(&named);
            }
        })
    }
}

#[test]
fn both_ends_agree_whatever_the_network_does() {
    let mut totals = BTreeMap::<&str, u64>::new();
    for seed in 0..SEEDS {
        let outcome = std::panic::catch_unwind(|| run(seed));
        let counters = outcome.unwrap_or_else(|_| panic!("seed {seed} fails"));
        for (name, count) in counters.exchanges.iter().chain(counters.drops.iter()) {
            *totals.entry(name).or_default() += count;
        }
    }
    // The runs reached what they are for.
    for name in [
        "attached",
        "children_created",
        "children_rekeyed",
        "ike_rekeyed",
        "children_deleted",
        "requests_sent",
        "requests_resent",
        "retransmissions_answered",
        "connection_switches",
        "peer_dead",
        "bad_icv",
        "out_of_window",
        "temporary_failure",
        "child_limit",
    ] {
        assert!(totals[name] > 0, "no run has {name}: {totals:?}");
    }
}

fn run(seed: u64) -> ResponderCounters {
    let mut simulation = Simulation::new(seed);
    for _ in 0..STEPS {
        simulation.step();
        simulation.compare();
    }
    // Everybody falls silent: in the end nothing is left.
    simulation.world.advance(Duration::from_secs(200));
    simulation.after();
    let gauges = simulation.world.counters().gauges;
    assert_eq!((gauges.sessions, gauges.half_open, gauges.children, gauges.addresses), (0, 0, 0, 0));
    assert!(simulation.installed.is_empty());
    simulation.world.counters()
}
