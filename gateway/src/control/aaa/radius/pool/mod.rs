//! Requests to a list of servers: identifiers, repetition, failover, health. Sans-IO: time and octets come in, and
//! [`Action`]s and outcomes go out.
//!
//! The first server that is up gets a request. One that has not answered anything for a while although asked is
//! taken to be down: what was asked of it and binds nobody to it goes to the next, and probes (Status-Server, RFC
//! 5997) or the next authentic answer of any kind bring it back. With all of them down, all are asked in turn
//! nevertheless: the requests are probes then.
//!
//! Over UDP a request is repeated as RFC 5080 §2.2.1 has it, octet by octet the same. Over TLS it is sent once
//! (RFC 6614 §2.4 by way of RFC 6613 §2.6.1), and again when its connection breaks.

mod link;
mod retry;
mod server;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use codec::Random;

use super::counters::ServerCounters;
use super::packet::{Attributes, Packet, code};
use super::sign::{self, AUTHENTICATOR_LEN, Secret};
use link::LinkState;
use server::Server;

/// Repetitions that must have gone unanswered before silence counts.
const SILENT_MIN: u32 = 2;

/// Time without an answer after which a connection is asked for a sign of life (RFC 3539 §3.4.1).
const WATCH_EVERY: Duration = Duration::from_secs(30);

/// How requests are sent.
#[derive(Clone)]
pub struct Settings {
    /// [`code::ACCESS_REQUEST`] or [`code::ACCOUNTING_REQUEST`].
    pub code: u8,
    /// Over TLS.
    pub stream: bool,
    /// The shared secret.
    pub secret: Secret,
    /// Time until the first repetition.
    pub timeout: Duration,
    /// Repetitions to one server.
    pub retries: u32,
    /// Silence after which a server is taken to be down.
    pub dead_after: Duration,
    /// Time until a server that is down is probed, or simply asked again.
    pub revive_after: Duration,
    /// Whether probes are Status-Server packets.
    pub status_server: bool,
    /// Sockets or connections to one server.
    pub links_max: usize,
    /// Attributes of a probe.
    pub probe: Attributes,
}

/// What the surroundings are to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Make the link, and for a connection say how that went.
    Open {
        /// Index of the server.
        server: usize,
        /// Index of the link.
        link: usize,
    },
    /// Close a connection; nothing need be said of it any more.
    Close {
        /// Index of the server.
        server: usize,
        /// Index of the link.
        link: usize,
    },
    /// Send a packet.
    Send {
        /// Index of the server.
        server: usize,
        /// Index of the link.
        link: usize,
        /// The packet.
        octets: Arc<[u8]>,
    },
}

/// An authentic answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Which server gave it.
    pub server: usize,
    /// The packet.
    pub octets: Box<[u8]>,
    /// Authenticator of the request.
    pub authenticator: [u8; AUTHENTICATOR_LEN],
}

/// What a timer is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
enum Timer {
    Exchange(u64),
    Probe(usize),
    Watch(usize),
    Reconnect(usize, usize),
}

/// Who waits for an answer.
enum Asker<T> {
    /// Whoever gave this.
    Token(T),
    /// Nobody any more; an answer still shows that the server lives.
    Nobody,
    /// The pool itself: a Status-Server.
    Probe,
}

/// A request under way.
struct Exchange<T> {
    asker: Asker<T>,
    attributes: Attributes,
    /// Only this server can answer: it knows the State.
    bound: bool,
    server: usize,
    /// Servers that have had their turn, a bit each.
    tried: u32,
    /// Link and identifier, once it has them.
    place: Option<(usize, u8)>,
    octets: Arc<[u8]>,
    authenticator: [u8; AUTHENTICATOR_LEN],
    begun: Instant,
    due: Instant,
    wait: Duration,
    repeated: u32,
}

/// A list of servers and the requests to them.
pub struct Pool<T> {
    settings: Settings,
    servers: Vec<Server>,
    exchanges: AHashMap<u64, Exchange<T>>,
    timers: BTreeSet<(Instant, Timer)>,
    last_key: u64,
    random: Box<dyn Random + Send>,
    actions: VecDeque<Action>,
    outcomes: VecDeque<(T, Option<Answer>)>,
}

impl<T> Pool<T> {
    /// A pool of the servers that `counters` count, at most 32, in order of preference.
    pub fn new(
        now: Instant,
        settings: Settings,
        counters: Vec<Arc<ServerCounters>>,
        random: Box<dyn Random + Send>,
    ) -> Self {
        let revive = settings.revive_after;
        let mut pool = Self {
            servers: counters.into_iter().map(|counters| Server::new(counters, revive)).collect(),
            settings,
            exchanges: AHashMap::new(),
            timers: BTreeSet::new(),
            last_key: 0,
            random,
            actions: VecDeque::new(),
            outcomes: VecDeque::new(),
        };
        if pool.settings.stream {
            for server in 0..pool.servers.len() {
                pool.open_link(server);
                pool.timers.insert((now + WATCH_EVERY, Timer::Watch(server)));
            }
        }
        pool
    }

    /// Asks: the server `bound` alone when given, else whichever is best. Its end comes from
    /// [`Pool::poll_outcome`] with `token`; the key is for [`Pool::cancel`].
    pub fn ask(&mut self, now: Instant, attributes: Attributes, bound: Option<usize>, token: T) -> u64 {
        let server = bound.or_else(|| self.best(0)).unwrap_or_default();
        self.begin(now, Asker::Token(token), attributes, bound.is_some(), server)
    }

    /// Nobody waits for this answer any more.
    pub fn cancel(&mut self, key: u64) {
        if let Some(exchange) = self.exchanges.get_mut(&key) {
            exchange.asker = Asker::Nobody;
        }
    }

    /// What was asked for and is under way.
    pub fn into_tokens(self) -> impl Iterator<Item = T> {
        let tokens = self.exchanges.into_values().filter_map(|exchange| match exchange.asker {
            Asker::Token(token) => Some(token),
            _ => None,
        });
        self.outcomes.into_iter().map(|(token, _)| token).chain(tokens)
    }

    /// Requests under way.
    pub fn len(&self) -> usize {
        self.exchanges.len()
    }

    /// What to do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// A request that has ended, `None` for one nobody answered.
    pub fn poll_outcome(&mut self) -> Option<(T, Option<Answer>)> {
        self.outcomes.pop_front()
    }

    /// When [`Pool::handle_timeout`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Takes what came in on a link.
    pub fn handle_packet(&mut self, now: Instant, server: usize, link: usize, octets: &[u8]) {
        let Some(at) = self.servers.get(server) else { return };
        let found = Packet::parse(octets).ok().and_then(|packet| {
            let key = at.links.get(link)?.holder(packet.id())?;
            Some((packet, key, self.exchanges.get(&key)?))
        });
        // Late, repeated or invented.
        let Some((packet, key, exchange)) = found else { return at.counters.bad_answer() };
        if !self.is_answer(packet, exchange) {
            return at.counters.bad_answer();
        }
        at.counters.answer(now.saturating_duration_since(exchange.begun));
        self.heard(server);
        let Some(exchange) = self.remove(key) else { return };
        if let Asker::Token(token) = exchange.asker {
            let answer =
                Answer { server, octets: packet.octets().into(), authenticator: exchange.authenticator };
            self.outcomes.push_back((token, Some(answer)));
        }
        self.serve_waiting(now, server);
    }

    fn is_answer(&self, packet: Packet<'_>, exchange: &Exchange<T>) -> bool {
        let probe = matches!(exchange.asker, Asker::Probe);
        let expected: &[u8] = match self.settings.code {
            code::ACCOUNTING_REQUEST => &[code::ACCOUNTING_RESPONSE],
            // RFC 5997 §2.1: servers answer a probe as either kind of request.
            _ if probe => &[code::ACCESS_ACCEPT, code::ACCOUNTING_RESPONSE],
            _ => &[code::ACCESS_ACCEPT, code::ACCESS_REJECT, code::ACCESS_CHALLENGE],
        };
        let needs_mac = !probe && self.settings.code == code::ACCESS_REQUEST;
        let verified = sign::verify_answer(packet, &exchange.authenticator, needs_mac, &self.settings.secret);
        expected.contains(&packet.code()) && verified.is_ok()
    }

    /// Takes note of how opening a connection went, or of its end.
    pub fn handle_link(&mut self, now: Instant, server: usize, link: usize, open: bool) {
        if open {
            self.link_opened(now, server, link);
        } else {
            self.link_closed(now, server, link);
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(at, timer)) = self.timers.first().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, timer));
            match timer {
                Timer::Exchange(key) => self.on_silence(now, key),
                Timer::Probe(server) => self.probe(now, server),
                Timer::Watch(server) => self.watch(now, server),
                Timer::Reconnect(server, link) => self.reconnect(now, server, link),
            }
        }
    }

    fn begin(
        &mut self,
        now: Instant,
        asker: Asker<T>,
        attributes: Attributes,
        bound: bool,
        server: usize,
    ) -> u64 {
        self.last_key += 1;
        let key = self.last_key;
        let exchange = Exchange {
            asker,
            attributes,
            bound,
            server,
            tried: 0,
            place: None,
            octets: Arc::new([]),
            authenticator: [0; AUTHENTICATOR_LEN],
            begun: now,
            due: now,
            wait: Duration::ZERO,
            repeated: 0,
        };
        self.exchanges.insert(key, exchange);
        self.turn_to(now, key, server);
        key
    }

    /// Gives `server` its turn with a request.
    fn turn_to(&mut self, now: Instant, key: u64, server: usize) {
        self.leave_place(key);
        let wait = match self.settings.stream {
            true => retry::patience(self.settings.timeout, self.settings.retries),
            false => retry::first(&mut *self.random, self.settings.timeout),
        };
        let Some(exchange) = self.exchanges.get_mut(&key) else { return };
        self.timers.remove(&(exchange.due, Timer::Exchange(key)));
        (exchange.server, exchange.wait, exchange.repeated) = (server, wait, 0);
        exchange.tried |= 1 << server;
        exchange.due = now + wait;
        self.timers.insert((exchange.due, Timer::Exchange(key)));
        self.dispatch(now, key);
    }

    /// Sends a request on a link of its server, or lets it wait for one.
    fn dispatch(&mut self, now: Instant, key: u64) {
        let Some(server) = self.exchanges.get(&key).map(|exchange| exchange.server) else { return };
        let Some((link, id)) = self.place(now, server, key) else {
            return self.servers[server].waiting.push_back(key);
        };
        let mut authenticator = [0; AUTHENTICATOR_LEN];
        self.random.fill(&mut authenticator);
        let Some(exchange) = self.exchanges.get_mut(&key) else { return };
        let code = match exchange.asker {
            Asker::Probe => code::STATUS_SERVER,
            _ => self.settings.code,
        };
        let secret = &self.settings.secret;
        let octets = match code {
            code::ACCOUNTING_REQUEST => {
                let (octets, signature) = sign::signed_request(code, id, &exchange.attributes, secret);
                authenticator = signature;
                octets
            }
            _ => sign::request(code, id, &authenticator, &exchange.attributes, secret),
        };
        (exchange.octets, exchange.authenticator) = (octets.into(), authenticator);
        (exchange.place, exchange.begun) = (Some((link, id)), now);
        let octets = exchange.octets.clone();
        let server_at = &mut self.servers[server];
        server_at.asked_since.get_or_insert(now);
        server_at.counters.request();
        self.actions.push_back(Action::Send { server, link, octets });
    }

    /// No answer within the time of a request.
    fn on_silence(&mut self, now: Instant, key: u64) {
        let Some(exchange) = self.exchanges.get(&key) else { return };
        let (server, sent) = (exchange.server, exchange.place.is_some());
        if sent {
            self.servers[server].silent += 1;
        }
        match exchange.asker {
            Asker::Probe => {
                self.remove(key);
                return self.on_probe_unanswered(now, server);
            }
            Asker::Nobody => {
                self.remove(key);
            }
            Asker::Token(_) if !self.settings.stream && exchange.repeated < self.settings.retries => {
                self.repeat(now, key);
            }
            Asker::Token(_) => {
                self.servers[server].counters.timeout();
                self.try_next(now, key);
            }
        }
        let at = &self.servers[server];
        let silent_since = at.asked_since.filter(|_| at.silent >= SILENT_MIN);
        if at.up && silent_since.is_some_and(|since| now - since >= self.settings.dead_after) {
            self.server_down(now, server);
        }
    }

    fn repeat(&mut self, now: Instant, key: u64) {
        let Some(exchange) = self.exchanges.get_mut(&key) else { return };
        exchange.repeated += 1;
        exchange.wait = retry::next(&mut *self.random, self.settings.timeout, exchange.wait);
        exchange.due = now + exchange.wait;
        self.timers.insert((exchange.due, Timer::Exchange(key)));
        let (server, octets) = (exchange.server, exchange.octets.clone());
        // One that still waits for an identifier has nothing to repeat.
        let Some((link, _)) = exchange.place else { return };
        self.servers[server].asked_since.get_or_insert(now);
        self.servers[server].counters.retransmission();
        self.actions.push_back(Action::Send { server, link, octets });
    }

    /// Moves a request on to a server that has not had it, or ends it.
    fn try_next(&mut self, now: Instant, key: u64) {
        let Some(exchange) = self.exchanges.get(&key) else { return };
        let next = if exchange.bound { None } else { self.best(exchange.tried) };
        match next {
            Some(server) => self.turn_to(now, key, server),
            None => {
                if let Some(Exchange { asker: Asker::Token(token), .. }) = self.remove(key) {
                    self.outcomes.push_back((token, None));
                }
            }
        }
    }

    /// The first server that is up and not among `tried`; with all of them down, the first not among `tried`.
    fn best(&self, tried: u32) -> Option<usize> {
        let none_up = !self.servers.iter().any(|server| server.up);
        (0..self.servers.len()).find(|&at| tried & (1 << at) == 0 && (none_up || self.servers[at].up))
    }

    fn remove(&mut self, key: u64) -> Option<Exchange<T>> {
        self.leave_place(key);
        let exchange = self.exchanges.remove(&key)?;
        self.timers.remove(&(exchange.due, Timer::Exchange(key)));
        Some(exchange)
    }

    fn leave_place(&mut self, key: u64) {
        let Some(exchange) = self.exchanges.get_mut(&key) else { return };
        let server = &mut self.servers[exchange.server];
        match exchange.place.take() {
            Some((link, id)) => server.links[link].free(id),
            None if exchange.tried == 0 => {}
            None => server.waiting.retain(|waiting| *waiting != key),
        }
    }
}
