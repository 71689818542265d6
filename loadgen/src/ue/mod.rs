//! One UE's IKEv2, without I/O: the initiator of RFC 7296 over the streams of RFC 9329.
//!
//! [`Initiator`] is driven like this. Inputs: [`Initiator::handle_connected`] for each new TCP connection,
//! [`Initiator::handle_message`] for each IKE message, [`Initiator::handle_timeout`] now and then. Commands:
//! [`Initiator::rekey_child`], [`Initiator::rekey_ike`], [`Initiator::probe`], [`Initiator::detach`]. After each of them
//! the caller takes all of [`Initiator::poll_event`], then all of [`Initiator::poll_transmit`]. Transmits belong to the
//! current connection; those not sent when it breaks are dropped, because the request that matters is sent again,
//! octet for octet, on the next one (RFC 9329 §6.2).
//!
//! Time and randomness are arguments. The gateway is held to the protocol: whatever it sends that was not offered,
//! cannot be verified or does not answer the question ends the attach under its own cause.

mod auth;
mod auth_eap;
mod child;
mod config;
mod eap;
mod error;
mod forge;
mod fragments;
mod handset;
mod informational;
mod init;
mod rekey;
mod respond;
mod sa;
mod trust;
mod verify;

pub use config::{CertificateCredentials, Credentials, EapCredentials, Identity, UeConfig};
pub use eap::{Sim, SimKeys, Subscriber};
pub use error::EndCause;
pub use forge::Forgery;
pub use handset::Handset;
pub use trust::{GatewayTrust, TrustError};

use bytes::Bytes;
use codec::Random;
use codec::esp::{EspKeys, EspSpi, EspSuite};
use codec::ike::payload::TrafficSelector;
use codec::ike::{IkeHeader, PayloadType};
use sa::IkeSa;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the initiator tells its owner.
pub enum Event {
    /// The IKE SA is up; the first [`Event::Install`] follows.
    Established(Box<Attached>),
    /// A Child SA is ready: receive under `spi_in`, send under `spi_out` from now on.
    Install(Box<ChildSa>),
    /// The inbound SA is gone.
    Retire(EspSpi),
    /// The IKE SA is over; nothing else follows.
    Ended(EndCause),
}

/// What the gateway assigned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attached {
    /// Inner addresses, at least one when the gateway answers the Configuration request.
    pub inner: Vec<IpAddr>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// P-CSCFs, in whatever form they were asked for.
    pub p_cscf: Vec<IpAddr>,
    /// Whether EAP was a fast re-authentication.
    pub fast: bool,
}

/// One negotiated pair of ESP SAs.
pub struct ChildSa {
    /// SPI that the gateway writes.
    pub spi_in: EspSpi,
    /// SPI that we write.
    pub spi_out: EspSpi,
    /// Algorithms of both directions.
    pub suite: EspSuite,
    /// Keys of packets from the gateway.
    pub keys_in: EspKeys,
    /// Keys of packets to the gateway.
    pub keys_out: EspKeys,
    /// Traffic selectors of our end, as narrowed.
    pub local_ts: Vec<TrafficSelector>,
    /// Traffic selectors of the far end, as narrowed.
    pub remote_ts: Vec<TrafficSelector>,
}

/// A pair of SPIs that is in use.
#[derive(Clone, Copy)]
struct ChildSpis {
    spi_in: EspSpi,
    spi_out: EspSpi,
}

/// Something to do once no request is pending.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    Probe,
    RekeyChild,
    RekeyIke,
    DeleteChild(ChildKey),
    Detach,
}

/// Names a child by its inbound SPI.
type ChildKey = EspSpi;

/// Most commands that wait; more are refused.
const WISHES_MAX: usize = 8;

enum State {
    /// No connection yet.
    Idle,
    /// IKE_SA_INIT sent.
    Init(Box<init::Initiating>),
    /// IKE_AUTH sent.
    Auth(Box<auth::Authenticating>),
    /// Established.
    Up(Box<Established>),
    /// Over.
    Ended,
}

/// An established IKE SA with its children.
struct Established {
    sa: IkeSa,
    /// The SA that a rekey has replaced, until its DELETE is answered; boxed because it is hardly ever there.
    old: Option<Box<IkeSa>>,
    children: Vec<ChildSpis>,
    /// What the pending request of `sa` is about.
    exchange: Option<Exchange>,
    wishes: VecDeque<Wish>,
    heard_at: Instant,
    /// When the IKE SA and its child were made or last replaced, by whichever end.
    ike_since: Instant,
    child_since: Instant,
}

/// State of the request in flight.
enum Exchange {
    Probe,
    RekeyChild(Box<child::ChildOffer>),
    RekeyIke(Box<rekey::IkeOffer>),
    DeleteChild(ChildKey),
    Detach,
}

/// Sans-IO state of one UE.
pub struct Initiator {
    config: Arc<UeConfig>,
    who: Subscriber,
    state: State,
    events: VecDeque<Event>,
    transmits: VecDeque<Bytes>,
    /// A message of a known IKE SA was not authentic.
    forged: bool,
    /// A message that has not come whole; boxed because it is hardly ever there.
    fragments: Option<Box<fragments::Fragments>>,
}

impl Initiator {
    /// Creates a UE that is not yet connected.
    pub fn new(config: Arc<UeConfig>, who: impl Into<Subscriber>) -> Self {
        Self {
            config,
            who: who.into(),
            state: State::Idle,
            events: VecDeque::new(),
            transmits: VecDeque::new(),
            forged: false,
            fragments: None,
        }
    }

    /// Whether a message since the last call was of a known IKE SA and not authentic.
    pub fn take_forged(&mut self) -> bool {
        std::mem::take(&mut self.forged)
    }

    /// Returns whether the IKE SA is up.
    pub fn is_established(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    /// Returns whether the IKE SA is over.
    pub fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Returns whether a request waits for its response.
    pub fn is_waiting(&self) -> bool {
        match &self.state {
            State::Idle | State::Ended => false,
            State::Init(_) | State::Auth(_) => true,
            State::Up(up) => up.sa.pending.is_some() || !up.wishes.is_empty(),
        }
    }

    /// Starts on a new connection, or goes on on it: a pending request is sent again octet for octet, otherwise an
    /// established SA sends an empty INFORMATIONAL so that the gateway learns of the connection.
    ///
    /// RFC 9329 §6.1, §6.2.
    pub fn handle_connected(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        random: &mut dyn Random,
    ) {
        self.transmits = self.unanswered().into();
        match &self.state {
            State::Idle => self.start_init(now, local, remote, random),
            State::Init(_) => self.repeat_init(local),
            State::Up(_) if self.transmits.is_empty() => self.probe(now, random),
            _ => {}
        }
    }

    /// Returns the requests that wait for their responses, to be sent again octet for octet: on a new connection, or over
    /// UDP from time to time (RFC 7296 §2.1).
    pub fn unanswered(&self) -> Vec<Bytes> {
        match &self.state {
            State::Idle | State::Ended => Vec::new(),
            State::Init(init) => vec![init.request.clone()],
            State::Auth(auth) => auth.pending_request().into_iter().collect(),
            State::Up(up) => {
                let sas = [up.old.as_deref(), Some(&up.sa)].into_iter().flatten();
                sas.filter_map(|sa| sa.pending.as_ref()).map(|pending| pending.message.clone()).collect()
            }
        }
    }

    /// Takes one IKE message (without Non-ESP Marker); it is decrypted in place.
    ///
    /// Messages that do not decode, do not verify or belong to another SA are dropped without effect.
    pub fn handle_message(&mut self, now: Instant, message: &mut [u8], random: &mut dyn Random) {
        let Ok(header) = IkeHeader::decode(message) else { return };
        if header.version.major() != 2 || header.length as usize != message.len() {
            return;
        }
        if header.next_payload == PayloadType::ENCRYPTED_FRAGMENT {
            return self.handle_fragment(now, &header, message, random);
        }
        match self.state {
            State::Init(_) => self.handle_init_response(now, &header, message, random),
            State::Auth(_) => self.handle_auth_response(now, &header, message, random),
            State::Up(_) => self.handle_established(now, &header, message, random),
            State::Idle | State::Ended => {}
        }
    }

    /// Ends what has waited too long and asks a silent gateway whether it lives. Early calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant, random: &mut dyn Random) {
        let timeout = self.config.response_timeout;
        let overdue = |sent_at: Instant| now.saturating_duration_since(sent_at) > timeout;
        match &self.state {
            State::Init(init) if overdue(init.sent_at) => self.end(EndCause::Timeout("IKE_SA_INIT")),
            State::Auth(auth) if overdue(auth.sent_at()) => self.end(EndCause::Timeout("IKE_AUTH")),
            State::Up(up) => match &up.sa.pending {
                Some(pending) if overdue(pending.sent_at) => {
                    self.end(EndCause::Timeout(pending_name(pending)))
                }
                Some(_) => {}
                None if self.is_old(now) => self.renew(now, random),
                None => {
                    let silent = now.saturating_duration_since(up.heard_at);
                    if self.config.dpd.is_some_and(|dpd| silent >= dpd) {
                        self.probe(now, random);
                    }
                }
            },
            _ => {}
        }
    }

    /// Whether an SA is as old as this handset lets one become.
    fn is_old(&self, now: Instant) -> bool {
        let State::Up(up) = &self.state else { return false };
        let handset = &self.config.handset;
        let due = |since: Instant, after: Option<Duration>| {
            after.is_some_and(|after| now.saturating_duration_since(since) >= after)
        };
        due(up.ike_since, handset.rekey_ike) || due(up.child_since, handset.rekey_child)
    }

    /// Replaces the SA that is too old, the child first.
    fn renew(&mut self, now: Instant, random: &mut dyn Random) {
        let State::Up(up) = &mut self.state else { return };
        let child_is_old = self
            .config
            .handset
            .rekey_child
            .is_some_and(|after| now.saturating_duration_since(up.child_since) >= after);
        if child_is_old {
            up.child_since = now;
            self.rekey_child(now, random);
        } else {
            up.ike_since = now;
            self.rekey_ike(now, random);
        }
    }

    /// Notes that authentic ESP has arrived: the gateway lives.
    pub fn handle_esp(&mut self, now: Instant) {
        if let State::Up(up) = &mut self.state {
            up.heard_at = now;
        }
    }

    /// Ends an attach whose connection failed. An established SA stays (RFC 9329 §6.1) and waits for
    /// [`Initiator::handle_connected`]; so does an attach that has just corrected its IKE_SA_INIT.
    pub fn handle_disconnected(&mut self, cause: &str) {
        if let State::Init(init) = &mut self.state
            && init.outlives_connection()
        {
            return self.transmits.clear();
        }
        self.handle_unreachable(cause);
    }

    /// Ends an attach that cannot go on on another connection.
    pub fn handle_unreachable(&mut self, cause: &str) {
        self.transmits.clear();
        if matches!(self.state, State::Idle | State::Init(_) | State::Auth(_)) {
            self.end(EndCause::Connection(cause.to_owned()));
        }
    }

    /// Replaces the first Child SA.
    pub fn rekey_child(&mut self, now: Instant, random: &mut dyn Random) {
        self.wish(now, Wish::RekeyChild, random);
    }

    /// Replaces the IKE SA.
    pub fn rekey_ike(&mut self, now: Instant, random: &mut dyn Random) {
        self.wish(now, Wish::RekeyIke, random);
    }

    /// Sends an empty INFORMATIONAL.
    pub fn probe(&mut self, now: Instant, random: &mut dyn Random) {
        self.wish(now, Wish::Probe, random);
    }

    /// Sends a DELETE for the IKE SA.
    pub fn detach(&mut self, now: Instant, random: &mut dyn Random) {
        match self.state {
            State::Up(_) => self.wish(now, Wish::Detach, random),
            State::Ended => {}
            _ => self.end(EndCause::Detached),
        }
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        pop(&mut self.events)
    }

    /// Returns whether [`Initiator::poll_transmit`] has something.
    pub fn has_transmit(&self) -> bool {
        !self.transmits.is_empty()
    }

    /// Returns the next IKE message (without Non-ESP Marker) for the current connection.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        pop(&mut self.transmits)
    }

    fn wish(&mut self, now: Instant, wish: Wish, random: &mut dyn Random) {
        let State::Up(up) = &mut self.state else { return };
        if up.wishes.len() < WISHES_MAX && !up.wishes.contains(&wish) {
            up.wishes.push_back(wish);
        }
        self.next_wish(now, random);
    }

    /// Sends the next waiting request, if none is pending.
    fn next_wish(&mut self, now: Instant, random: &mut dyn Random) {
        let State::Up(up) = &mut self.state else { return };
        if up.sa.pending.is_some() {
            return;
        }
        let Some(wish) = pop(&mut up.wishes) else { return };
        let begun = match wish {
            Wish::Probe => up.request_probe(now, random),
            Wish::RekeyChild => up.request_child_rekey(now, &self.config, random),
            Wish::RekeyIke => up.request_ike_rekey(now, &self.config, random),
            Wish::DeleteChild(child) => up.request_child_delete(now, child, random),
            Wish::Detach => up.request_detach(now, random),
        };
        match begun {
            Ok((exchange, message)) => {
                up.exchange = Some(exchange);
                self.transmits.push_back(message);
            }
            Err(cause) => self.end(cause),
        }
    }

    fn end(&mut self, cause: EndCause) {
        if let State::Up(up) = &self.state {
            let spis: Vec<EspSpi> = up.children.iter().map(|child| child.spi_in).collect();
            self.events.extend(spis.into_iter().map(Event::Retire));
        }
        self.state = State::Ended;
        self.events.push_back(Event::Ended(cause));
    }
}

/// Takes the first element. An empty queue keeps no memory: a UE at rest is one of a hundred thousand.
fn pop<T>(queue: &mut VecDeque<T>) -> Option<T> {
    let first = queue.pop_front();
    if queue.is_empty() {
        *queue = VecDeque::new();
    }
    first
}

fn pending_name(pending: &sa::Pending) -> &'static str {
    match pending.exchange {
        codec::ike::ExchangeType::CREATE_CHILD_SA => "CREATE_CHILD_SA",
        _ => "INFORMATIONAL",
    }
}

/// Draws an ESP SPI outside the reserved range (RFC 4303 §2.1).
fn draw_esp_spi(random: &mut dyn Random) -> EspSpi {
    let mut octets = [0; 4];
    random.fill(&mut octets);
    EspSpi(u32::from_be_bytes(octets).max(256))
}

/// Draws an IKE SPI, which is never zero (RFC 7296 §2.6).
fn draw_ike_spi(random: &mut dyn Random) -> codec::ike::IkeSpi {
    let mut octets = [0; 8];
    random.fill(&mut octets);
    octets[0] |= 1;
    codec::ike::IkeSpi(octets)
}

/// Octets of our nonces: at least half the key size of every prf here (RFC 7296 §2.10).
const NONCE_LEN: usize = 32;

fn draw_nonce(random: &mut dyn Random) -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    random.fill(&mut nonce);
    nonce
}
