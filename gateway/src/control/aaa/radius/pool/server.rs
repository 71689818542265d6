//! One server of a pool: its links, and whether it lives.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::link::Link;
use super::{Action, Asker, LinkState, Pool, Timer, WATCH_EVERY, retry};
use crate::control::aaa::radius::counters::ServerCounters;

/// A server.
pub(super) struct Server {
    pub(super) counters: Arc<ServerCounters>,
    pub(super) links: Vec<Link>,
    /// Whether it is asked before those that are not.
    pub(super) up: bool,
    /// Times in a row that an answer did not come in its time.
    pub(super) silent: u32,
    /// When it was asked first after its last answer.
    pub(super) asked_since: Option<Instant>,
    /// Exchanges that have no link.
    pub(super) waiting: VecDeque<u64>,
    /// It has answered since the watchdog looked.
    pub(super) heard: bool,
    probe_wait: Duration,
}

impl Server {
    pub(super) fn new(counters: Arc<ServerCounters>, revive_after: Duration) -> Self {
        counters.set_up(true);
        Self {
            counters,
            links: Vec::new(),
            up: true,
            silent: 0,
            asked_since: None,
            waiting: VecDeque::new(),
            heard: false,
            probe_wait: revive_after,
        }
    }

    fn set_up(&mut self, up: bool) {
        self.up = up;
        self.counters.set_up(up);
    }
}

impl<T> Pool<T> {
    /// An authentic answer came from `server`.
    pub(super) fn heard(&mut self, server: usize) {
        let at = &mut self.servers[server];
        (at.silent, at.asked_since, at.heard) = (0, None, true);
        at.probe_wait = self.settings.revive_after;
        if !at.up {
            tracing::info!(server, "RADIUS server answers again");
            at.set_up(true);
        }
    }

    /// `server` is not to be asked before others from now on; what others can answer goes to them.
    pub(super) fn server_down(&mut self, now: Instant, server: usize) {
        let at = &mut self.servers[server];
        if !std::mem::replace(&mut at.up, false) {
            return;
        }
        tracing::warn!(server, "RADIUS server does not answer");
        at.set_up(false);
        let probe_at = now + at.probe_wait;
        self.timers.insert((probe_at, Timer::Probe(server)));
        if self.settings.stream {
            self.close_links(now, server);
        }
        let moving: Vec<u64> = self
            .exchanges
            .iter()
            .filter(|(_, exchange)| exchange.server == server && !exchange.bound)
            .filter(|(_, exchange)| matches!(exchange.asker, Asker::Token(_)))
            .filter(|(_, exchange)| self.best(exchange.tried).is_some_and(|next| self.servers[next].up))
            .map(|(key, _)| *key)
            .collect();
        for key in moving {
            self.servers[server].counters.timeout();
            self.try_next(now, key);
        }
    }

    /// A server that is down is probed, or given another chance.
    pub(super) fn probe(&mut self, now: Instant, server: usize) {
        if self.servers[server].up {
            return;
        }
        if !self.settings.status_server {
            let at = &mut self.servers[server];
            (at.silent, at.asked_since) = (0, None);
            at.set_up(true);
            at.probe_wait = retry::next_probe(&mut *self.random, at.probe_wait);
            return;
        }
        let attributes = self.settings.probe.clone();
        let key = self.begin(now, Asker::Probe, attributes, true, server);
        tracing::debug!(server, key, "probing a RADIUS server");
    }

    /// The probe was not answered: the next one later, or the connection is dead.
    pub(super) fn on_probe_unanswered(&mut self, now: Instant, server: usize) {
        if self.servers[server].up {
            return self.server_down(now, server);
        }
        let at = &mut self.servers[server];
        at.probe_wait = retry::next_probe(&mut *self.random, at.probe_wait);
        self.timers.insert((now + at.probe_wait, Timer::Probe(server)));
    }

    /// Asks a connection that has been quiet for a sign of life.
    pub(super) fn watch(&mut self, now: Instant, server: usize) {
        let at = &mut self.servers[server];
        let open = at.links.iter().any(|link| link.state == LinkState::Open);
        let quiet = !std::mem::replace(&mut at.heard, false);
        if quiet && open && at.up && self.settings.status_server {
            let attributes = self.settings.probe.clone();
            self.begin(now, Asker::Probe, attributes, true, server);
        }
        self.timers.insert((now + WATCH_EVERY, Timer::Watch(server)));
    }

    /// An identifier on a link of `server`; opens a further link when all are in use.
    pub(super) fn place(&mut self, now: Instant, server: usize, key: u64) -> Option<(usize, u8)> {
        let links = &mut self.servers[server].links;
        if let Some(found) = links.iter_mut().enumerate().find_map(|(at, link)| Some((at, link.take(key)?))) {
            return Some(found);
        }
        if let Some(link) =
            links.iter().position(|link| matches!(link.state, LinkState::Closed(at) if at <= now))
        {
            self.reconnect(now, server, link);
            return None;
        }
        let pending = links.iter().any(|link| link.state != LinkState::Open);
        if pending || links.len() >= self.settings.links_max {
            return None;
        }
        let link = self.open_link(server);
        Some((link, self.servers[server].links[link].take(key)?))
    }

    /// Makes a further link; over UDP it is open at once.
    pub(super) fn open_link(&mut self, server: usize) -> usize {
        let state = if self.settings.stream { LinkState::Opening } else { LinkState::Open };
        let links = &mut self.servers[server].links;
        links.push(Link::new(state));
        let link = links.len() - 1;
        self.actions.push_back(Action::Open { server, link });
        link
    }

    pub(super) fn reconnect(&mut self, now: Instant, server: usize, link: usize) {
        let state = &mut self.servers[server].links[link].state;
        if matches!(state, LinkState::Closed(at) if *at <= now) {
            *state = LinkState::Opening;
            self.actions.push_back(Action::Open { server, link });
        }
    }

    pub(super) fn link_opened(&mut self, now: Instant, server: usize, link: usize) {
        let at = &mut self.servers[server].links[link];
        if at.state != LinkState::Opening {
            return;
        }
        at.state = LinkState::Open;
        self.serve_waiting(now, server);
        if !self.servers[server].up && self.settings.status_server {
            // A server that lets nobody in closes the connection only after the handshake: it has to answer first.
            self.probe(now, server);
        } else {
            self.heard(server);
        }
    }

    /// A connection ended or never came about: what was on it is asked again elsewhere.
    pub(super) fn link_closed(&mut self, now: Instant, server: usize, link: usize) {
        let lost = self.close_link(now, server, link);
        let open = self.servers[server].links.iter().any(|link| link.state == LinkState::Open);
        if !open {
            self.server_down(now, server);
        }
        for key in lost {
            let Some(exchange) = self.exchanges.get_mut(&key) else { continue };
            // Those that another server could take have left by now.
            if exchange.server == server && exchange.place.take_if(|(of, _)| *of == link).is_some() {
                self.dispatch(now, key);
            }
        }
    }

    fn close_links(&mut self, now: Instant, server: usize) {
        for link in 0..self.servers[server].links.len() {
            if self.servers[server].links[link].state == LinkState::Open {
                self.actions.push_back(Action::Close { server, link });
                for key in self.close_link(now, server, link) {
                    if let Some(exchange) = self.exchanges.get_mut(&key) {
                        exchange.place = None;
                        self.servers[server].waiting.push_back(key);
                    }
                }
            }
        }
    }

    /// Marks a link closed until it is tried again; returns who used it.
    fn close_link(&mut self, now: Instant, server: usize, link: usize) -> Vec<u64> {
        let at = &mut self.servers[server].links[link];
        // One that worked is made anew soon; patience grows while it fails.
        let wait = match at.state {
            LinkState::Closed(_) => return Vec::new(),
            LinkState::Open => retry::RECONNECT_FIRST,
            LinkState::Opening => at.patience,
        };
        at.patience = retry::next_connect(&mut *self.random, wait);
        at.state = LinkState::Closed(now + wait);
        self.timers.insert((now + wait, Timer::Reconnect(server, link)));
        at.free_all()
    }

    /// Sends what waited for a link or an identifier.
    pub(super) fn serve_waiting(&mut self, now: Instant, server: usize) {
        for _ in 0..self.servers[server].waiting.len() {
            let Some(key) = self.servers[server].waiting.pop_front() else { return };
            self.dispatch(now, key);
            if self.servers[server].waiting.back() == Some(&key) {
                // Still no room: it keeps its turn.
                self.servers[server].waiting.rotate_right(1);
                return;
            }
        }
    }
}
