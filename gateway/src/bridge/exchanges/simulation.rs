//! Originate and relay back to back, in virtual time, with everything going wrong.
//!
//! ```text
//!   client ~~~ UDP, lossy ~~~ originate === TCP, reset now and then === relay ~~~ UDP, lossy ~~~ server
//! ```
//!
//! Client and server are minimal IKE ends over UDP: a window of one, retransmission, and a stored answer for
//! repeated requests; both ask. The server sends to the connection that last brought a fresh message.

use std::collections::{BTreeMap, HashSet};

use codec::ike::ExchangeType;

use super::*;
use crate::bridge::message::tests::message;

/// Requests of each end.
const REQUESTS: u32 = 20;

const SEEDS: u64 = 400;

const LATENCY: Duration = Duration::from_millis(20);

/// A small generator of its own, so that a seed replays for ever.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// An IKE end on UDP.
#[derive(Default)]
struct End {
    is_server: bool,
    /// Requests answered so far; the next one has this number.
    answered: u32,
    asked: Option<Vec<u8>>,
    /// The stored answer to the peer's last request.
    stored: Option<(u32, Vec<u8>)>,
    served: u32,
}

impl End {
    fn request(&mut self) -> Option<Vec<u8>> {
        // The client goes on asking, as with DPD: only what it says brings the server to a new connection.
        if self.is_server && (self.answered == REQUESTS || self.served == 0) {
            return None;
        }
        let body = [u8::from(self.is_server), self.answered as u8];
        let exchange = if self.answered == 0 && !self.is_server {
            ExchangeType::IKE_SA_INIT
        } else {
            ExchangeType::INFORMATIONAL
        };
        let make = || message(1, self.answered, exchange, false, &body);
        Some(self.asked.get_or_insert_with(make).clone())
    }

    /// Takes a message: the answer to it, if any, and whether it was fresh.
    fn handle(&mut self, octets: &[u8]) -> (Option<Vec<u8>>, bool) {
        let info = MessageInfo::parse(octets).expect("well-formed");
        let id = info.message_id.0;
        if info.is_response {
            let fresh = id == self.answered && self.asked.take().is_some();
            self.answered += u32::from(fresh);
            return (None, fresh);
        }
        match &self.stored {
            Some((last, answer)) if *last == id => (Some(answer.clone()), false),
            _ if id == self.served => {
                let answer = message(1, id, info.exchange, true, &[u8::from(self.is_server), id as u8, 1]);
                self.stored = Some((id, answer.clone()));
                self.served += 1;
                (Some(answer), true)
            }
            _ => (None, false),
        }
    }
}

#[derive(Clone, Debug)]
enum Event {
    /// A datagram at an end or at its bridge; the last field is the connection at the relay.
    AtClient(Vec<u8>),
    AtOriginate(Vec<u8>),
    AtRelay(usize, Vec<u8>),
    AtServer(usize, Vec<u8>),
    /// Octets of a connection at its far side.
    StreamUp(usize, Vec<u8>),
    StreamDown(usize, Vec<u8>),
    ClientTimer,
    ServerTimer,
    BridgeTimers,
    Reset,
}

struct World {
    now: Instant,
    start: Instant,
    dice: Dice,
    loss_pct: u64,
    events: BTreeMap<(Instant, u64), Event>,
    sequence: u64,
    client: End,
    server: End,
    originate: Exchanges,
    /// One for each connection there has been; the last one lives.
    relays: Vec<Exchanges>,
    /// Where the server sends what it asks.
    current: usize,
    /// Requests each connection has carried, by direction: never the same twice.
    carried: HashSet<(usize, bool, Vec<u8>)>,
}

impl World {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        let mut dice = Dice(seed);
        let loss_pct = dice.roll(40);
        let mut world = Self {
            now,
            start: now,
            dice,
            loss_pct,
            events: BTreeMap::new(),
            sequence: 0,
            client: End::default(),
            server: End { is_server: true, ..End::default() },
            originate: Exchanges::default(),
            relays: vec![Exchanges::default()],
            current: 0,
            carried: HashSet::new(),
        };
        for event in [Event::ClientTimer, Event::ServerTimer, Event::BridgeTimers, Event::Reset] {
            world.after(Duration::ZERO, event);
        }
        world
    }

    fn after(&mut self, wait: Duration, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + wait, self.sequence), event);
    }

    /// A datagram on its way: lost, late, or twice.
    fn datagram(&mut self, event: Event) {
        let copies =
            if self.dice.roll(100) < self.loss_pct { 0 } else { 1 + u64::from(self.dice.roll(10) == 0) };
        for _ in 0..copies {
            let late = Duration::from_millis(self.dice.roll(60));
            self.after(LATENCY + late, event.clone());
        }
    }

    /// A frame on the living connection: in order, not lost while it lives.
    fn stream(&mut self, conn: usize, up: bool, octets: Vec<u8>) {
        let is_response = MessageInfo::parse(&octets).expect("well-formed").is_response;
        let first = self.carried.insert((conn, up, octets.clone()));
        // RFC 9329 §6.2: what is asked on a connection is asked there once.
        assert!(first || is_response, "a request was repeated on connection {conn}");
        let event = if up { Event::StreamUp(conn, octets) } else { Event::StreamDown(conn, octets) };
        self.after(LATENCY, event);
    }

    fn live(&self) -> usize {
        self.relays.len() - 1
    }

    fn step(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::ClientTimer => {
                if let Some(request) = self.client.request() {
                    self.datagram(Event::AtOriginate(request));
                }
                self.after(Duration::from_millis(1800), Event::ClientTimer);
            }
            Event::ServerTimer => {
                if let Some(request) = self.server.request() {
                    let conn = self.current;
                    self.datagram(Event::AtRelay(conn, request));
                }
                self.after(Duration::from_millis(2300), Event::ServerTimer);
            }
            Event::BridgeTimers => self.bridge_timers(),
            Event::Reset => {
                if self.live() > 0 || self.dice.roll(2) == 0 {
                    self.reset();
                }
                let wait = 1000 + self.dice.roll(5000);
                self.after(Duration::from_millis(wait), Event::Reset);
            }
            Event::AtClient(octets) => {
                if let (Some(answer), _) = self.client.handle(&octets) {
                    self.datagram(Event::AtOriginate(answer));
                }
                if let Some(request) = self.client.request() {
                    self.datagram(Event::AtOriginate(request));
                }
            }
            Event::AtServer(conn, octets) => {
                let (answer, fresh) = self.server.handle(&octets);
                if fresh {
                    self.current = conn;
                }
                if let Some(answer) = answer {
                    self.datagram(Event::AtRelay(conn, answer));
                }
            }
            Event::AtOriginate(octets) => match self.originate.handle(now, Leg::Datagram, &octets) {
                Verdict::Forward => self.stream(self.live(), true, octets),
                Verdict::Drop(_) => {}
                Verdict::Repeat(parts) => {
                    let parts: Vec<_> = parts.iter().map(|part| part.to_vec()).collect();
                    parts.into_iter().for_each(|part| self.datagram(Event::AtClient(part)));
                }
            },
            Event::StreamDown(conn, octets) if conn == self.live() => {
                match self.originate.handle(now, Leg::Stream, &octets) {
                    Verdict::Forward => self.datagram(Event::AtClient(octets)),
                    Verdict::Drop(_) => {}
                    Verdict::Repeat(parts) => {
                        let parts: Vec<_> = parts.iter().map(|part| part.to_vec()).collect();
                        parts.into_iter().for_each(|part| self.stream(conn, true, part));
                    }
                }
            }
            Event::StreamUp(conn, octets) if conn == self.live() => {
                match self.relays[conn].handle(now, Leg::Stream, &octets) {
                    Verdict::Forward => self.datagram(Event::AtServer(conn, octets)),
                    Verdict::Drop(_) => {}
                    Verdict::Repeat(parts) => {
                        let parts: Vec<_> = parts.iter().map(|part| part.to_vec()).collect();
                        parts.into_iter().for_each(|part| self.stream(conn, false, part));
                    }
                }
            }
            Event::AtRelay(conn, octets) if conn == self.live() => {
                match self.relays[conn].handle(now, Leg::Datagram, &octets) {
                    Verdict::Forward => self.stream(conn, false, octets),
                    Verdict::Drop(_) => {}
                    Verdict::Repeat(parts) => {
                        let parts: Vec<_> = parts.iter().map(|part| part.to_vec()).collect();
                        parts.into_iter().for_each(|part| self.datagram(Event::AtServer(conn, part)));
                    }
                }
            }
            // Octets of a connection that is gone.
            Event::StreamDown(..) | Event::StreamUp(..) | Event::AtRelay(..) => {}
        }
    }

    fn bridge_timers(&mut self) {
        let (now, conn) = (self.now, self.live());
        let mut again = Vec::new();
        self.originate.handle_timeout(now, |octets| again.push(Event::AtClient(octets.to_vec())));
        self.relays[conn].handle_timeout(now, |octets| again.push(Event::AtServer(conn, octets.to_vec())));
        again.into_iter().for_each(|event| self.datagram(event));
        self.after(Duration::from_millis(100), Event::BridgeTimers);
    }

    /// The connection breaks; the new one begins with what is unanswered.
    fn reset(&mut self) {
        self.relays.push(Exchanges::default());
        let replay: Vec<_> = self.originate.replay().map(<[u8]>::to_vec).collect();
        for octets in replay {
            self.stream(self.live(), true, octets);
        }
    }

    fn done(&self) -> bool {
        self.client.answered >= REQUESTS && self.server.answered == REQUESTS
    }
}

/// Every request of both ends is answered, and no connection carries one twice.
#[test]
fn r9329_6_2_o1_every_exchange_ends_whatever_the_legs_do() {
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        while !world.done() {
            let ((now, _), event) = world.events.pop_first().expect("timers never end");
            world.now = now;
            let elapsed = now - world.start;
            let (client, server) = (world.client.answered, world.server.answered);
            assert!(
                elapsed < Duration::from_secs(1200),
                "seed {seed}: client {client}, server {server} of {REQUESTS} after {elapsed:?}"
            );
            world.step(event);
        }
    }
}
