//! One UE connection and its way to the backend.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, UdpSocket};
use std::time::Instant;

use codec::ike::IkeSpi;
use codec::stream::NON_ESP_MARKER;

use super::RelayLimits;
use super::counters::RelayClose;
use crate::admin::api::Traffic;
use crate::bridge::{Exchanges, FrameStream, send_one};

/// How far the IKE SA has come, by what the backend sends; the relay cannot look into it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Stage {
    /// The backend has said nothing.
    Opening,
    /// It has answered an exchange that comes before any keys.
    HalfOpen,
    /// It has answered a protected message, or sent ESP.
    Established,
}

/// The UDP side of a connection.
pub(super) struct Ports {
    /// Connected to the backend's port for everything.
    pub main: UdpSocket,
    /// Connected to its port for the exchanges that open an IKE SA, while they last.
    pub initial: Option<UdpSocket>,
}

/// One connection.
pub(super) struct Link {
    pub generation: u32,
    pub remote: SocketAddr,
    pub stream: FrameStream,
    /// `None` until the first message: a connection that says nothing costs no port.
    pub ports: Option<Ports>,
    pub stage: Stage,
    pub exchanges: Exchanges,
    /// Octets of `exchanges`, as counted towards the worker's limit.
    pub ike_octets: usize,
    /// Octets of its unfinished frame, as counted towards the worker's limit.
    pub unfinished: usize,
    /// The SPIs last seen, for people who compare logs.
    pub spis: (IkeSpi, IkeSpi),
    pub bad_in_a_row: u32,
    /// Whether epoll tells when the socket takes more.
    pub wants_write: bool,
    pub accepted: Instant,
    pub stage_since: Instant,
    pub active: Instant,
    /// The earliest look at its deadlines that is due.
    pub check_at: Option<Instant>,
    pub uplink: Traffic,
    pub downlink: Traffic,
}

impl Link {
    pub fn new(generation: u32, stream: FrameStream, remote: SocketAddr, now: Instant) -> Self {
        Self {
            generation,
            remote,
            stream,
            ports: None,
            stage: Stage::Opening,
            exchanges: Exchanges::default(),
            ike_octets: 0,
            unfinished: 0,
            spis: (IkeSpi::ZERO, IkeSpi::ZERO),
            bad_in_a_row: 0,
            wants_write: false,
            accepted: now,
            stage_since: now,
            active: now,
            check_at: None,
            uplink: Traffic::default(),
            downlink: Traffic::default(),
        }
    }

    /// When it is closed unless something happens, and why.
    pub fn deadline(&self, limits: &RelayLimits) -> (Instant, RelayClose) {
        match self.stage {
            Stage::Opening if !self.stream.prefix_complete() => {
                (self.accepted + limits.prefix_timeout, RelayClose::PrefixTimeout)
            }
            Stage::Opening => (self.accepted + limits.first_message_timeout, RelayClose::FirstMessageTimeout),
            Stage::HalfOpen => (self.stage_since + limits.half_open_timeout, RelayClose::HalfOpenTimeout),
            // D12: an active session's connection is not closed for idleness; a relay cannot tell an idle
            // one from a dead one, so it waits for longer than any UE is silent.
            Stage::Established => (self.active + limits.idle, RelayClose::Idle),
        }
    }
}

impl Ports {
    /// Sends an IKE message to the backend; `initial` says that it comes before any keys.
    pub fn send_ike(&self, message: &[u8], initial: bool) -> io::Result<()> {
        match self.initial.as_ref().filter(|_| initial) {
            Some(socket) => send_one(socket, &[IoSlice::new(message)], None),
            None => send_one(&self.main, &[IoSlice::new(&NON_ESP_MARKER), IoSlice::new(message)], None),
        }
    }
}
