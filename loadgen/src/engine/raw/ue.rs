//! One UE of the raw engine: its IKE state, its SAs, where its stream stands. No I/O.

use super::super::corruption::Corruption;
use super::super::tunnel::{Arrived, Tunnel};
use crate::report::Latencies;
use crate::ue::{EndCause, Event, Initiator};
use codec::Random;
use codec::stream::{Deframer, FrameKind, NON_ESP_MARKER, Next, STREAM_PREFIX, classify, frame_ike};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// Where a UE stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not yet attached.
    Attaching,
    /// IKE SA and Child SA are up.
    Attached,
    /// Over.
    Ended,
}

/// Where its connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// There is none.
    Down,
    /// Open, or on the way; `greeted` once the stream prefix has been written.
    Up { greeted: bool, sending: bool },
    /// Being closed.
    Closing,
}

/// What all UEs share: randomness going in, counts coming out.
pub(super) struct Common {
    pub(super) random: Box<dyn Random>,
    pub(super) replay_window: u32,
    pub(super) tally: Tally,
}

/// Counts over all UEs.
pub(super) struct Tally {
    pub(super) attached: u64,
    /// UEs that did not get as far, by cause.
    pub(super) failed: BTreeMap<String, u64>,
    pub(super) latencies: Latencies,
    /// UEs whose EAP was a fast re-authentication.
    pub(super) fast: u64,
    /// UEs whose DELETE was answered.
    pub(super) detached: u64,
    /// UEs whose IKE SA ended otherwise after they had attached.
    pub(super) lost: u64,
    /// ESP packets that were for no SA, replayed or not authentic.
    pub(super) esp_dropped: u64,
    /// Authentic ESP packets.
    pub(super) esp_received: u64,
    /// UEs that have come back in a storm, and how long that took.
    pub(super) came_back: u64,
    pub(super) back: Latencies,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            attached: 0,
            failed: BTreeMap::new(),
            latencies: Latencies::new(),
            fast: 0,
            detached: 0,
            lost: 0,
            esp_dropped: 0,
            esp_received: 0,
            came_back: 0,
            back: Latencies::new(),
        }
    }

    /// UEs that are no longer attaching.
    pub(super) fn settled(&self) -> u64 {
        self.attached + self.failed.values().sum::<u64>()
    }
}

/// One UE. Once attached and idle it is this, its SAs and nothing more.
pub(super) struct RawUe {
    initiator: Initiator,
    tunnel: Tunnel,
    deframer: Deframer,
    /// Octets of a frame that has not arrived whole.
    carry: Vec<u8>,
    corruption: Corruption,
    /// The first inner IPv4 address.
    inner: Option<IpAddr>,
    started_at: Instant,
    heard_esp: bool,
    /// When it lost its connection, while nothing has come through its tunnel since.
    pub(super) away_since: Option<Instant>,
    pub(super) phase: Phase,
    pub(super) link: Link,
}

impl RawUe {
    pub(super) fn new(initiator: Initiator) -> Self {
        Self {
            initiator,
            tunnel: Tunnel::default(),
            deframer: Deframer::originator(),
            carry: Vec::new(),
            corruption: Corruption::default(),
            inner: None,
            started_at: Instant::now(),
            heard_esp: false,
            away_since: None,
            phase: Phase::Attaching,
            link: Link::Down,
        }
    }

    /// Returns the inner IPv4 address.
    pub(super) fn inner(&self) -> Option<IpAddr> {
        self.inner
    }

    /// Starts, or goes on, on a new connection.
    pub(super) fn connected(&mut self, local: SocketAddr, remote: SocketAddr, common: &mut Common) {
        self.link = Link::Up { greeted: false, sending: false };
        self.deframer = Deframer::originator();
        self.carry = Vec::new();
        self.corruption = Corruption::default();
        self.initiator.handle_connected(Instant::now(), local, remote, &mut *common.random);
        self.take_events(common);
    }

    /// Ends an attach whose connection failed.
    pub(super) fn disconnected(&mut self, cause: &str, common: &mut Common) {
        self.initiator.handle_disconnected(cause);
        self.take_events(common);
    }

    /// Lets the IKE timers run.
    pub(super) fn tick(&mut self, common: &mut Common) {
        let now = Instant::now();
        if std::mem::take(&mut self.heard_esp) {
            self.initiator.handle_esp(now);
        }
        self.initiator.handle_timeout(now, &mut *common.random);
        self.take_events(common);
    }

    /// Starts to detach.
    pub(super) fn detach(&mut self, common: &mut Common) {
        self.initiator.detach(Instant::now(), &mut *common.random);
        self.take_events(common);
    }

    /// Takes what the stream brought.
    ///
    /// # Errors
    /// Why the stream is broken: the connection must be closed.
    pub(super) fn on_octets(&mut self, octets: &mut [u8], common: &mut Common) -> Result<(), String> {
        let mut at = 0;
        loop {
            match self.deframer.next(octets, &mut at, &mut self.carry) {
                Ok(Next::Pending) => {
                    return self.corruption.verdict().map_or(Ok(()), |cause| Err(cause.into()));
                }
                Ok(Next::InPlace(range)) => self.on_body(&mut octets[range], common),
                Ok(Next::Carried) => {
                    // The next frame usually arrives whole: an idle UE keeps no buffer.
                    let mut body = std::mem::take(&mut self.carry);
                    self.on_body(&mut body, common);
                }
                Err(error) => return Err(format!("stream: {error}")),
            }
        }
    }

    fn on_body(&mut self, body: &mut [u8], common: &mut Common) {
        match classify(body) {
            FrameKind::Ike => {
                let message = &mut body[NON_ESP_MARKER.len()..];
                self.initiator.handle_message(Instant::now(), message, &mut *common.random);
                match self.initiator.take_forged() {
                    true => self.corruption.forged(),
                    false => self.corruption.good(),
                }
                // A Child SA may be used by the very next frame.
                self.take_events(common);
            }
            FrameKind::Esp(spi) => match self.corruption.judge(self.tunnel.open(spi, body)) {
                Arrived::Inner(_) | Arrived::Nothing => {
                    self.heard_esp = true;
                    common.tally.esp_received += 1;
                    if let Some(since) = self.away_since.take() {
                        common.tally.came_back += 1;
                        common.tally.back.record(since.elapsed().as_nanos() as u64);
                    }
                }
                Arrived::Unknown | Arrived::Forged | Arrived::Dropped => common.tally.esp_dropped += 1,
            },
            // RFC 9329 §3, §6.6: empty frames and keepalives mean nothing.
            FrameKind::Empty | FrameKind::Keepalive => {}
            FrameKind::Unparseable(_) => self.corruption.bad(),
        }
    }

    /// Appends what there is to send to `block`, the stream prefix first.
    pub(super) fn fill(&mut self, block: &mut Vec<u8>) {
        if let Link::Up { greeted, .. } = &mut self.link
            && !std::mem::replace(greeted, true)
        {
            // RFC 9329 §4: the first octets of every stream, once.
            block.extend_from_slice(&STREAM_PREFIX);
        }
        while let Some(message) = self.initiator.poll_transmit() {
            frame_ike(&message, block).expect("IKE messages are built to fit a frame");
        }
    }

    /// Appends an ESP frame with `packet`; returns whether there was an SA to send under.
    pub(super) fn seal(&mut self, packet: &[u8], block: &mut Vec<u8>) -> bool {
        let sealed = self.tunnel.seal(packet, block);
        // The next packet of this UE is far away: its keys take a sixth of a ready cipher's memory.
        self.tunnel.cool();
        sealed
    }

    fn take_events(&mut self, common: &mut Common) {
        while let Some(event) = self.initiator.poll_event() {
            match event {
                Event::Established(attached) => {
                    self.inner = attached.inner.iter().find(|address| address.is_ipv4()).copied();
                    common.tally.fast += u64::from(attached.fast);
                }
                Event::Install(child) => {
                    self.tunnel.install(*child, common.replay_window, &mut *common.random);
                    if self.phase == Phase::Attaching {
                        self.phase = Phase::Attached;
                        common.tally.attached += 1;
                        common.tally.latencies.record(self.started_at.elapsed().as_nanos() as u64);
                    }
                }
                Event::Retire(spi) => self.tunnel.retire(spi),
                Event::Ended(cause) => self.end(&cause, &mut common.tally),
            }
        }
    }

    fn end(&mut self, cause: &EndCause, tally: &mut Tally) {
        match (self.phase, cause) {
            (Phase::Attaching, _) => *tally.failed.entry(cause.to_string()).or_insert(0) += 1,
            (_, EndCause::Detached) => tally.detached += 1,
            _ => tally.lost += 1,
        }
        self.phase = Phase::Ended;
    }
}
