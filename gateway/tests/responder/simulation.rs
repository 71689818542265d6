//! Random UEs on a network that loses connections at every step, against what both ends should then hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use codec::esp::EspSpi;
use codec::ike::payload::SaView;
use codec::ike::{ExchangeType, IkeHeader, IkeSpi, MessageId, NotifyType, PayloadType, ProtocolId};
use codec::{Random, SeededRandom};
use gateway::control::responder::{Event, Limits, ResponderConfig, ResponderCounters, Verdict};
use gateway::types::{SessionId, WorkerId};

use crate::ue::{Decoded, Ue, UeConfig};
use crate::world::{World, config, conn, path, profile, psk};

const SEEDS: u64 = 300;
const STEPS: usize = 80;
const UES: usize = 3;
const HALF_OPEN_MAX: usize = 64;
const REKEY_CHILD: Duration = Duration::from_secs(150);
const REKEY_IKE: Duration = Duration::from_secs(80);

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
    /// What the UE itself is asking for.
    asking: Asking,
    /// The lower nonce of what the gateway made while the UE asked for the same, and for a child its SPI.
    rival: Option<(Vec<u8>, EspSpi)>,
}

/// A request of the UE that a request of the gateway may cross.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asking {
    Nothing,
    Child,
    RekeyChild(EspSpi),
    DeleteChild(EspSpi),
    RekeyIke,
    DeleteIke,
}

struct Simulation {
    world: World,
    dice: Dice,
    subscribers: Vec<Subscriber>,
    next_conn: u32,
    open: BTreeSet<u32>,
    /// What the packet path would hold: inbound SPI to outbound SPI and session.
    installed: BTreeMap<EspSpi, (EspSpi, SessionId)>,
    /// SPIs on offer.
    announced: BTreeSet<EspSpi>,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let limits = Limits { children_max: 4, half_open_max: HALF_OPEN_MAX, ..Limits::default() };
        let mut lab = profile("lab", psk());
        (lab.rekey_child, lab.rekey_ike) = (REKEY_CHILD, REKEY_IKE);
        let profiles = vec![Arc::new(lab)];
        let world = World::seeded(ResponderConfig { limits, profiles, ..config() }, seed);
        let mut simulation = Self {
            world,
            dice: Dice(SeededRandom::new(seed)),
            subscribers: Vec::new(),
            next_conn: 1,
            open: BTreeSet::new(),
            installed: BTreeMap::new(),
            announced: BTreeSet::new(),
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
            asking: Asking::Nothing,
            rival: None,
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
            self.trace(who, "asks", request);
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
            self.trace(who, "gets", &message);
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
        self.trace(who, "answers", &response);
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

    /// Says what happens, when one seed is looked at.
    fn trace(&self, who: usize, what: &str, message: &[u8]) {
        if only_seed().is_none() {
            return;
        }
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
            "UE {who} {what} {} {} of {}, {:?}: {}; holds {children:?}",
            header.exchange,
            header.message_id,
            header.spi_r,
            header.flags,
            payloads.join(", ")
        );
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
        let nonce = ue.pending_nonce().expect("just asked").to_vec();
        let asking = rekeyed.map_or(Asking::Child, Asking::RekeyChild);
        let Some(response) = self.ask(who, asking, &request) else { return };
        let subscriber = &mut self.subscribers[who];
        let rival = subscriber.rival.take();
        let answer = subscriber.ue.on_create_child(&response);
        if answer.error().is_some() {
            return;
        }
        let Some(old) = rekeyed else { return };
        let own = subscriber.ue.children.last().expect("just made").spi_in;
        let lower = nonce.min(answer.body(PayloadType::NONCE).expect("Nr").to_vec());
        let there = |spi: EspSpi| subscriber.ue.children.iter().any(|child| child.spi_in == spi);
        // RFC 7296 2.8.1: the successor with the lowest nonce goes by the hand of its maker.
        let lost = rival.is_some_and(|(theirs, spi)| lower < theirs && there(spi));
        let goes = if lost { own } else { old };
        if there(goes) {
            self.delete(who, goes);
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
        self.ask(who, Asking::DeleteChild(spi), &request);
        self.subscribers[who].ue.children.retain(|child| child.spi_in != spi);
    }

    fn rekey_ike(&mut self, who: usize) {
        if self.subscribers[who].ue.old.is_some() {
            // The gateway has yet to delete the one that it replaced.
            return;
        }
        let request = self.subscribers[who].ue.rekey_ike();
        let nonce = self.subscribers[who].ue.pending_nonce().expect("just asked").to_vec();
        let Some(response) = self.ask(who, Asking::RekeyIke, &request) else { return };
        let rival = self.subscribers[who].rival.take();
        let ue = &mut self.subscribers[who].ue;
        let answer = ue.on_rekey_ike(&response);
        if answer.error().is_some() {
            // What the gateway made stays, if it made one.
            if let Some(spare) = ue.spare.take() {
                ue.adopt(spare);
            } else if rival.is_some() {
                // The gateway has deleted that one too: it ends the session.
                self.replace(who);
            }
            return;
        }
        let lower = nonce.min(answer.body(PayloadType::NONCE).expect("Nr").to_vec());
        let lost = rival.is_some_and(|(theirs, _)| lower < theirs);
        if lost {
            // RFC 7296 2.8.2: the one with the lowest nonce goes by the hand of its maker.
            std::mem::swap(&mut ue.sa, &mut ue.spare);
            let request = ue.informational_on_spare(|builder| {
                builder.delete_ike();
            });
            self.insist(who, &request);
            self.subscribers[who].ue.spare = None;
        } else {
            let request = ue.informational_on_old(|builder| {
                builder.delete_ike();
            });
            self.insist(who, &request);
            self.subscribers[who].ue.old = None;
        }
    }

    /// [`Self::insist`] on something that requests of the gateway may cross.
    fn ask(&mut self, who: usize, asking: Asking, request: &[u8]) -> Option<Vec<u8>> {
        self.subscribers[who].asking = asking;
        self.subscribers[who].rival = None;
        let response = self.insist(who, request);
        self.subscribers[who].asking = Asking::Nothing;
        response
    }

    fn delete_session(&mut self, who: usize) {
        if self.dice.chance(50) {
            return;
        }
        let request = self.subscribers[who].ue.informational(|builder| {
            builder.delete_ike();
        });
        self.ask(who, Asking::DeleteIke, &request);
        self.replace(who);
    }

    /// The subscriber starts over, as another one.
    fn replace(&mut self, who: usize) {
        let seed = self.subscribers[who].ue.config.seed + 1_000_000;
        self.subscribers[who] = self.newcomer(seed);
    }

    /// The gateway's session of a subscriber. While a rekey is under way it may already, or still, use another
    /// IKE SA than the UE.
    fn session_of(&self, who: usize) -> Option<SessionId> {
        let mut views = self.world.responder.sessions(self.world.now);
        views.find(|view| self.subscribers[who].has_sa(view.ike.spi_r)).map(|view| view.id)
    }

    /// The UE shows up with ESP on a new connection; the worker tells.
    fn esp_elsewhere(&mut self, who: usize) {
        self.reconnect(who);
        let number = self.subscribers[who].conn;
        let Some(id) = self.session_of(who) else { return };
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
        let Some(id) = self.session_of(who) else { return };
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
        let resent = |world: &World| world.counters().exchanges.requests_resent;
        let before = resent(&self.world);
        let sent = self.world.deliver(number, &message);
        // An SA on offer is known by its SPI alone, and what is said on it only has the offer repeated.
        let ahead = resent(&self.world) > before;
        assert!(ahead || self.world.verdict == Verdict::Bad);
        assert!(ahead || sent.iter().all(|message| !Decoded::clear(message).payloads.is_empty()));
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
                    self.announced.remove(&install.spi_in);
                }
                Event::Announce { spi_in, .. } => {
                    assert!(self.announced.insert(spi_in) && !self.installed.contains_key(&spi_in));
                }
                Event::Withdraw { spi_in, .. } => {
                    assert!(self.announced.remove(&spi_in), "withdraws what was announced");
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
        assert_eq!(gauges.children, (self.installed.len() + self.announced.len()) as u64);
        assert!(gauges.half_open <= HALF_OPEN_MAX as u64);
        for transmit in &self.world.sent {
            assert!(self.open.contains(&transmit.conn.slot), "sent where nobody listens");
        }
        self.world.sent.retain(|transmit| self.open.contains(&transmit.conn.slot));
    }

    /// Subscribers whose session the gateway gave up start over.
    fn reap(&mut self) {
        for who in 0..self.subscribers.len() {
            if self.subscribers[who].attached && self.session_of(who).is_none() {
                self.replace(who);
            }
        }
    }

    /// Time passes without anybody asking for anything, and everything that is owed is answered.
    fn calm_down(&mut self) {
        for _ in 0..40 {
            self.world.advance(Duration::from_millis(10));
            self.after();
            for who in 0..self.subscribers.len() {
                let number = self.subscribers[who].conn;
                let sent = self.world.take_sent(number);
                self.sort(who, sent, None);
                if self.subscribers[who].attached && !self.subscribers[who].dismissed {
                    // A sign of life also brings back what was lost with a connection.
                    self.reconnect(who);
                    let request = self.subscribers[who].ue.informational(|_| {});
                    self.insist(who, &request);
                }
                if self.subscribers[who].dismissed {
                    self.replace(who);
                }
            }
        }
        self.compare(true);
    }

    /// When nothing is under way, both ends hold the same Child SAs.
    fn compare(&self, calm: bool) {
        for view in self.world.responder.sessions(self.world.now) {
            let owner = self
                .subscribers
                .iter()
                .find(|subscriber| subscriber.attached && subscriber.has_sa(view.ike.spi_r));
            let Some(owner) = owner else { continue };
            let gateway: BTreeSet<_> =
                view.children.iter().map(|child| (child.spi_in, child.spi_out)).collect();
            let ue: BTreeSet<_> =
                owner.ue.children.iter().map(|child| (child.spi_out, child.spi_in)).collect();
            // A Delete of ours that the UE carried out may still wait for its answer here, and the UE's answer to
            // an offer of ours may still be on its way.
            let known: BTreeSet<_> = ue.iter().filter(|(spi, _)| !self.announced.contains(spi)).collect();
            assert!(
                known.is_subset(&gateway.iter().collect()),
                "the UE holds {ue:?}, the gateway {gateway:?}"
            );
            if calm {
                assert_eq!(ue, gateway, "nothing is under way");
                let current = owner.ue.sa.as_ref().map(|sa| (sa.spi_i, sa.spi_r));
                assert_eq!(current, Some((view.ike.spi_i, view.ike.spi_r)), "one IKE SA for both");
            }
        }
    }
}

impl Subscriber {
    fn has_sa(&self, spi_r: IkeSpi) -> bool {
        let all = [&self.ue.sa, &self.ue.old, &self.ue.spare];
        all.into_iter().flatten().any(|sa| sa.spi_r == spi_r)
    }

    fn carry_out(&mut self, request: &Decoded) -> Vec<u8> {
        if request.header.exchange == ExchangeType::CREATE_CHILD_SA {
            return self.create(request);
        }
        let deleted = request.deleted();
        let named: Vec<_> = self
            .ue
            .children
            .iter()
            .filter(|child| deleted.contains(&child.spi_out))
            .map(|child| child.spi_in)
            .collect();
        self.ue.children.retain(|child| !named.contains(&child.spi_in));
        let ike_deleted = request.body(PayloadType::DELETE) == Some(&[1, 0, 0, 0][..]);
        let response = self.ue.respond(request, |builder| {
            if !named.is_empty() {
                builder.delete_esp(&named);
            }
        });
        if ike_deleted {
            let spi_r = request.header.spi_r;
            if self.ue.sa.as_ref().is_some_and(|sa| sa.spi_r == spi_r) {
                self.dismissed = true;
            }
            self.ue.old.take_if(|old| old.spi_r == spi_r);
            self.ue.spare.take_if(|spare| spare.spi_r == spi_r);
        }
        response
    }

    /// A rekey of the gateway, with what RFC 7296 2.25 wants of one that crosses a request of the UE.
    fn create(&mut self, request: &Decoded) -> Vec<u8> {
        let refuse = |ue: &mut Ue, error| {
            ue.respond(request, |builder| {
                builder.notify(error, &[]);
            })
        };
        let current = self.ue.sa.as_ref().map(|sa| sa.spi_r);
        if current != Some(request.header.spi_r) {
            return refuse(&mut self.ue, NotifyType::TEMPORARY_FAILURE);
        }
        let Some(notify) = request.notify(NotifyType::REKEY_SA) else {
            if is_for_ike(request) {
                return self.rekey_ike(request);
            }
            return self.ue.accept_child(request).0;
        };
        let theirs = notify.esp_spi().expect("an SPI");
        let Some(child) = self.ue.children.iter().find(|child| child.spi_out == theirs) else {
            return refuse(&mut self.ue, NotifyType::CHILD_SA_NOT_FOUND);
        };
        let same = child.spi_in;
        if matches!(self.asking, Asking::RekeyIke | Asking::DeleteIke)
            || self.asking == Asking::DeleteChild(same)
        {
            return refuse(&mut self.ue, NotifyType::TEMPORARY_FAILURE);
        }
        let (response, lower) = self.ue.accept_child(request);
        if self.asking == Asking::RekeyChild(same) {
            let made = self.ue.children.last().expect("just made").spi_in;
            self.rival = Some((lower, made));
        }
        response
    }

    fn rekey_ike(&mut self, request: &Decoded) -> Vec<u8> {
        let busy = !matches!(self.asking, Asking::Nothing | Asking::RekeyIke) || self.ue.old.is_some();
        if busy {
            return self.ue.respond(request, |builder| {
                builder.notify(NotifyType::TEMPORARY_FAILURE, &[]);
            });
        }
        let (response, sa, lower) = self.ue.accept_ike(request);
        if self.asking == Asking::RekeyIke {
            self.rival = Some((lower, EspSpi(0)));
            self.ue.spare = Some(sa);
        } else {
            self.ue.adopt(sa);
        }
        response
    }
}

fn is_for_ike(request: &Decoded) -> bool {
    let body = request.body(PayloadType::SA).expect("SA");
    let view = SaView::decode(body).expect("an SA");
    view.proposals().next().is_some_and(|proposal| proposal.protocol == ProtocolId::IKE)
}

#[test]
fn both_ends_agree_whatever_the_network_does() {
    if let Some(seed) = only_seed() {
        run(seed);
        return;
    }
    let mut totals = BTreeMap::<&str, u64>::new();
    for seed in 0..seeds() {
        if std::env::var("SIMULATION_SEEDS").is_ok() {
            eprintln!("seed {seed}");
        }
        let outcome = std::panic::catch_unwind(|| run(seed));
        let counters = outcome.unwrap_or_else(|_| {
            panic!(
                "seed {seed} fails; to see it step by step: \
                 SIMULATION_SEED={seed} cargo test -p gateway --test responder simulation -- --nocapture"
            )
        });
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
        "children_rekeyed_here",
        "ike_rekeyed_here",
        "rekey_collisions",
        "rekeys_put_off",
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

/// The one seed to run, with a trace.
fn only_seed() -> Option<u64> {
    std::env::var("SIMULATION_SEED").ok().map(|seed| seed.parse().expect("SIMULATION_SEED is a number"))
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
        simulation.compare(false);
    }
    simulation.calm_down();
    // Everybody falls silent: in the end nothing is left.
    simulation.world.advance(Duration::from_secs(200));
    simulation.after();
    let gauges = simulation.world.counters().gauges;
    assert_eq!((gauges.sessions, gauges.half_open, gauges.children, gauges.addresses), (0, 0, 0, 0));
    assert!(simulation.installed.is_empty() && simulation.announced.is_empty());
    simulation.world.counters()
}
