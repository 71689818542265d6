//! RADIUS (RFC 2865) as a back end: EAP inside RADIUS (RFC 3579), accounting (RFC 2866), dynamic authorization (RFC 5176),
//! over UDP or TLS (RFC 6614).
//!
//! [`Radius`] is the handle on the control thread. A task owns everything else: `client::Client` knows attempts and
//! sessions, a `pool::Pool` each for authentication and accounting repeats requests and chooses servers, and
//! `shell` has the sockets. All but the shell is sans-IO.
//!
//! A crate would have spared the framing: those there are have no Message-Authenticator or no EAP, and verify answers
//! neither in constant time nor by the identifier of the socket they came in on.

mod accounting;
mod answer;
mod client;
mod counters;
mod dynamic;
mod packet;
mod pool;
mod request;
mod sessions;
mod shell;
mod sign;
mod stream;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use codec::OsRandom;
use tokio::sync::mpsc;

use super::{Backend, Outbox, ServerView, SessionEnd};
use crate::config::AaaKind;
use crate::control::responder::{Attached, AttemptId, EapStep};
use crate::limits::RADIUS_STREAMS_MAX;
use crate::tls::TlsClient;
use crate::types::SessionId;
use crate::worker::inbox::Traffic;
use accounting::Accounting;
use client::{Client, Order, Parts};
use counters::ServerCounters;
use dynamic::Dynamic;
use packet::{Attributes, code, kind};
use pool::{Pool, Settings};
use shell::{Addresses, Message};

pub use packet::{VALUE_LEN_MAX, fuzz};
pub use sign::Secret;

/// Identifiers of one socket.
const IDS_PER_LINK: usize = 256;

/// `[[aaa]]` of kind "radius". Holds a secret: its `Debug` shows servers only.
pub struct RadiusConfig {
    /// A digest of everything here, files included: two of the same configuration have the same.
    pub digest: [u8; 32],
    /// Servers that let peers in, in order of preference.
    pub servers: Vec<SocketAddr>,
    /// Servers that are told of sessions; none switches accounting off.
    pub accounting: Vec<SocketAddr>,
    /// Shared with all of them.
    pub secret: Secret,
    /// TLS for each of `servers` and then of `accounting`; `None` is UDP.
    pub tls: Option<Vec<TlsClient>>,
    /// What we call ourselves; the gateway's identity when absent.
    pub nas_identifier: Option<Arc<str>>,
    /// Time until a request is repeated; twice as long each time after, up to 4 s.
    pub timeout: Duration,
    /// Repetitions to one server.
    pub retries: u32,
    /// Silence after which a server is taken to be down.
    pub dead_after: Duration,
    /// Time until a server that is down is probed.
    pub revive_after: Duration,
    /// Whether servers answer Status-Server (RFC 5997).
    pub status_server: bool,
    /// Requests under way at once.
    pub outstanding: usize,
    /// Time between two reports of a session's traffic, where the server does not say.
    pub interim: Option<Duration>,
    /// Accounting records that wait.
    pub accounting_queue: usize,
    /// Requests of RFC 5176.
    pub dynamic: Option<DynamicConfig>,
}

/// Requests of RFC 5176.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DynamicConfig {
    /// Where they come in.
    pub listen: SocketAddr,
    /// From whom; empty is the servers.
    pub clients: Vec<IpAddr>,
    /// Whether they must have an Event-Timestamp.
    pub needs_timestamp: bool,
}

/// Time that the task surely takes to see what it was told last.
const LEAVE_TURN: Duration = Duration::from_millis(20);

/// A back end that asks RADIUS servers.
pub struct Radius {
    name: Arc<str>,
    orders: mpsc::UnboundedSender<Message>,
    servers: Vec<(String, Arc<ServerCounters>)>,
    digest: [u8; 32],
    identity: Box<str>,
    outbox: Outbox,
    /// Where requests of RFC 5176 come in.
    dynamic: Option<UdpSocket>,
    /// Accounting records that no server has taken yet.
    pending: Arc<AtomicUsize>,
    /// The records of the end were called for, and when.
    left: Option<Instant>,
}

impl Radius {
    /// Starts the task of a back end called `name`; `identity` is the gateway's. Needs tokio's runtime around it.
    ///
    /// # Errors
    /// When the socket for dynamic authorization cannot be had.
    pub fn start(name: Arc<str>, config: &RadiusConfig, identity: &str, outbox: Outbox) -> io::Result<Self> {
        let (orders, receiver) = mpsc::unbounded_channel();
        let dynamic = config.dynamic.as_ref().map(|dynamic| bind(dynamic.listen)).transpose()?;
        let addresses = config.addresses(dynamic.as_ref())?;
        let (parts, servers) = config.parts(identity, outbox.clone());
        let (client, pending) = (Client::new(Instant::now(), parts), Arc::default());
        tokio::spawn(shell::run(client, addresses, receiver, Arc::clone(&pending)));
        let (digest, identity) = (config.digest, identity.into());
        Ok(Self { name, orders, servers, digest, identity, outbox, dynamic, pending, left: None })
    }

    /// Goes over to another configuration; sessions and accounting records stay.
    fn reconfigure(&mut self, config: &RadiusConfig) -> io::Result<()> {
        let bound = self.dynamic.as_ref().and_then(|socket| socket.local_addr().ok());
        let dynamic = match &config.dynamic {
            Some(wanted) if Some(wanted.listen) == bound => self.dynamic.take(),
            Some(wanted) => Some(bind(wanted.listen)?),
            None => None,
        };
        self.dynamic = dynamic;
        let addresses = config.addresses(self.dynamic.as_ref())?;
        let (parts, servers) = config.parts(&self.identity, self.outbox.clone());
        (self.servers, self.digest) = (servers, config.digest);
        let _ = self.orders.send(Message::Reconfigure(Box::new((parts, addresses))));
        Ok(())
    }

    fn order(&self, order: Order) {
        // The task lives as long as this handle.
        let _ = self.orders.send(Message::Order(order));
    }
}

impl Backend for Radius {
    fn step(&mut self, _now: Instant, step: EapStep) {
        self.order(Order::Step(step));
    }

    fn abandon(&mut self, attempt: AttemptId) {
        self.order(Order::Abandon(attempt));
    }

    fn attached(&mut self, _now: Instant, attached: &Attached) {
        self.order(Order::Attached(Box::new(attached.clone())));
    }

    fn traffic(&mut self, _now: Instant, session: SessionId, so_far: &Traffic) {
        self.order(Order::Traffic(session, *so_far));
    }

    fn ended(&mut self, _now: Instant, session: SessionId, end: &SessionEnd) {
        self.order(Order::Ended(session, *end));
    }

    fn adopt(&mut self, kind: &AaaKind) -> bool {
        match kind {
            AaaKind::Radius(Some(config)) => config.digest == self.digest || self.reconfigure(config).is_ok(),
            _ => false,
        }
    }

    fn leave(&mut self, now: Instant) {
        self.order(Order::Leave);
        self.left = Some(now);
    }

    fn has_left(&self) -> bool {
        // The task has had a turn since, which takes all orders there are.
        let turn = self.left.is_none_or(|at| at.elapsed() >= LEAVE_TURN);
        turn && self.pending.load(Ordering::Relaxed) == 0
    }

    fn servers(&self) -> Vec<ServerView> {
        self.servers.iter().map(|(server, counters)| counters.view(&self.name, server)).collect()
    }
}

impl RadiusConfig {
    fn addresses(&self, dynamic: Option<&UdpSocket>) -> io::Result<Addresses> {
        Ok(Addresses {
            authentication: self.servers.clone(),
            accounting: self.accounting.clone(),
            tls: self.tls.clone(),
            dynamic: dynamic.map(UdpSocket::try_clone).transpose()?,
        })
    }

    /// What the client of this configuration is made of, and the counters of its servers by name.
    fn parts(&self, identity: &str, outbox: Outbox) -> (Parts, Vec<(String, Arc<ServerCounters>)>) {
        let now = Instant::now();
        let nas_identifier: Arc<str> = match &self.nas_identifier {
            Some(identifier) => identifier.clone(),
            None => identity.chars().take(VALUE_LEN_MAX / 4).collect::<String>().into(),
        };
        let counted = |servers: &[SocketAddr]| -> Vec<(String, Arc<ServerCounters>)> {
            servers.iter().map(|server| (server.to_string(), Arc::default())).collect()
        };
        let counters = |servers: &[(String, Arc<ServerCounters>)]| -> Vec<Arc<ServerCounters>> {
            servers.iter().map(|(_, counters)| counters.clone()).collect()
        };
        let (servers, accounting_servers) = (counted(&self.servers), counted(&self.accounting));
        let settings = |code| self.settings(code, &nas_identifier);
        let pool = Pool::new(now, settings(code::ACCESS_REQUEST), counters(&servers), Box::new(OsRandom));
        let accounting = accounting_servers.first().map(|(_, first)| {
            let settings = settings(code::ACCOUNTING_REQUEST);
            let pool = Pool::new(now, settings, counters(&accounting_servers), Box::new(OsRandom));
            Accounting::new(pool, self.accounting_queue, first.clone())
        });
        let dynamic = self.dynamic.as_ref().map(|dynamic| {
            let mut clients = dynamic.clients.clone();
            if clients.is_empty() {
                clients = self.servers.iter().map(|server| server.ip()).collect();
            }
            Dynamic::new(self.secret.clone(), clients, dynamic.needs_timestamp, &nas_identifier)
        });
        let parts = Parts {
            secret: self.secret.clone(),
            nas_identifier,
            outstanding_max: self.outstanding,
            interim: self.interim,
            outbox,
            servers: counters(&servers),
            pool,
            accounting,
            dynamic,
        };
        (parts, [servers, accounting_servers].concat())
    }

    fn settings(&self, code: u8, nas_identifier: &str) -> Settings {
        let mut probe = Attributes::new();
        // Fits: the configuration has seen to it.
        let _ = probe.push(kind::NAS_IDENTIFIER, nas_identifier.as_bytes());
        let stream = self.tls.is_some();
        Settings {
            code,
            stream,
            secret: self.secret.clone(),
            timeout: self.timeout,
            retries: self.retries,
            dead_after: self.dead_after,
            revive_after: self.revive_after,
            status_server: self.status_server,
            links_max: if stream {
                RADIUS_STREAMS_MAX
            } else {
                self.outstanding.div_ceil(IDS_PER_LINK).max(1)
            },
            probe,
        }
    }
}

fn bind(listen: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(listen)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

impl std::fmt::Debug for RadiusConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RadiusConfig").field("servers", &self.servers).finish_non_exhaustive()
    }
}
