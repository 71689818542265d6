//! UE to core: octets to frames, frames to packets, packets to the inner devices.

use std::mem;

use codec::esp::{EspError, EspSpi, OpenBatch, Opened, OpenedKind};
use codec::ip::{self, InnerHeader};
use codec::stream::{FrameError, FrameKind, NON_ESP_MARKER, Next, classify};

use super::conn::{Conn, State};
use super::counters::{CloseCause, DropReason};
use super::inbox::ToControl;
use super::opening::{Via, Waiting};
use super::outlet::{Outlet, Place};
use super::sad::Child;
use super::{Network, UNFINISHED_FREE, Worker};
use crate::io::recv_pool::Incoming;
use crate::io::ring::Received;
use crate::types::{ConnId, Follow, NetworkId, SessionId, WorkerId};

/// An authenticated inner packet that may go to the core.
pub(super) struct Inner {
    /// Under which it came, and whose that is.
    pub spi: EspSpi,
    pub session: SessionId,
    pub network: NetworkId,
    pub place: Place,
    pub header: InnerHeader,
}

impl Worker {
    /// One completion of a connection's receive.
    pub(super) fn on_received(&mut self, slot: u32, outcome: Received, armed: bool) {
        let Some(conn) = self.conns.get_mut(slot) else {
            if let Received::Octets(incoming) = outcome {
                self.ring.release(incoming);
            }
            return;
        };
        conn.receive_armed = armed;
        match outcome {
            Received::Octets(incoming) => {
                conn.last_received = self.now;
                match conn.front {
                    None => self.parse(slot, incoming),
                    Some(_) => self.pass_front(slot, incoming),
                }
            }
            Received::Starved => {
                self.counters.receive_starved.add(1);
                conn.starved = true;
                self.ring.starve(slot);
            }
            Received::End if conn.is_open() && conn.is_ike_only() => {
                // What it asked before is answered, and then we close too.
                conn.half_closed = true;
                self.set_deadline(slot, self.now + self.limits.linger, CloseCause::Peer);
            }
            Received::End | Received::Failed => {
                conn.ended = true;
                if conn.is_open() {
                    self.close(slot, CloseCause::Peer);
                }
            }
        }
        self.after_receive(slot);
    }

    /// Arms the receive again where it ended without the connection ending.
    pub(super) fn after_receive(&mut self, slot: u32) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        if conn.receive_armed || conn.half_closed {
            return;
        }
        match conn.state {
            State::Open | State::Draining(_) => {
                if !conn.starved && !conn.ended {
                    conn.receive_armed = true;
                    self.ring.arm_receive(slot);
                }
            }
            State::Moving(_) => self.continue_move(slot),
            State::Closing => self.finish_close(slot),
        }
    }

    /// Cuts received octets into frames where they lie and handles each.
    pub(super) fn parse(&mut self, slot: u32, incoming: Incoming) {
        let received = self.outlet.hold(incoming);
        self.cut(slot, received);
    }

    /// As [`Self::parse`], with octets that the turn holds.
    pub(super) fn cut(&mut self, slot: u32, received: Place) {
        let mut at = 0;
        while let Some(step) = self.step(slot, &received, &mut at) {
            match step {
                Step::Body { body, ike_only } => self.on_body(slot, body, ike_only),
                Step::Opened { body, spi, opened } => match self.accept(slot, spi, &body, opened) {
                    Ok(inner) => self.outlet.push(&mut self.ring, &self.counters, inner),
                    Err(refused) => self.refuse(slot, &body, refused),
                },
                Step::Refused { body, error } => self.refuse(slot, &body, refused(error)),
                Step::Broken(error) => {
                    self.on_frame_error(slot, error);
                    break;
                }
            }
        }
        self.settle_carry(slot);
        if self.outlet.is_full() {
            self.flush_uplink();
        }
    }

    /// Finds the next frame that has to be looked at in received octets, and moves `at` behind it; `None` when there is no
    /// other.
    fn step(&mut self, slot: u32, received: &Place, at: &mut usize) -> Option<Step> {
        let conn = self.conns.get_mut(slot)?;
        if conn.carry.capacity() == 0 {
            conn.carry = self.outlet.spare_buffer();
        }
        match &mut conn.state {
            State::Open => {}
            State::Moving(moving) => {
                let octets = self.outlet.octets(&mut self.ring, received);
                moving.unread.extend_from_slice(octets.get(*at..).unwrap_or_default());
                return None;
            }
            State::Draining(_) | State::Closing => return None,
        }
        if let Some(step) = self.follow(slot, received, at) {
            return Some(step);
        }
        let conn = self.conns.get_mut(slot)?;
        let octets = self.outlet.octets(&mut self.ring, received);
        let found = conn.deframer.next(octets, at, &mut conn.carry);
        framed(found, received, conn, &mut self.outlet)
    }

    /// Takes frames for as long as their packets continue the run at hand: these ask nothing of the tables that the packet
    /// before them has not asked. Returns the first that does not, as far as it got; `None` when there is no such
    /// run, or no other frame.
    fn follow(&mut self, slot: u32, received: &Place, at: &mut usize) -> Option<Step> {
        let (spi, session) = self.outlet.newest()?;
        let conn = self.conns.get_mut(slot)?;
        let child = match conn.session == Some(session) && !conn.is_ike_only() {
            true => self.sad.child_settled_on(spi, session, slot)?,
            false => return None,
        };
        if !child.inbound.suite().cipher.is_aead() {
            return None;
        }
        let octets = self.outlet.received(&mut self.ring, received)?;
        loop {
            let range = match conn.deframer.next(octets, at, &mut conn.carry) {
                Ok(Next::InPlace(range)) => range,
                found => return framed(found, received, conn, &mut self.outlet),
            };
            let body = received.part(range.clone());
            let octets = octets.get_mut(range).unwrap_or_default();
            if classify(octets) != FrameKind::Esp(spi) {
                return Some(Step::Body { body, ike_only: false });
            }
            let opened = match child.inbound.open(octets) {
                Ok(opened) => opened,
                Err(error) => return Some(Step::Refused { body, error }),
            };
            let packet = octets.get(opened.payload.clone()).unwrap_or_default();
            let place = body.part(opened.payload.clone());
            if opened.kind == OpenedKind::Dummy || !self.outlet.extend(packet, &place) {
                return Some(Step::Opened { body, spi, opened });
            }
            conn.bad_in_a_row = 0;
        }
    }

    /// Handles octets that came with a connection from another worker.
    pub(super) fn parse_unread(&mut self, slot: u32, unread: &[u8]) {
        let mut at = 0;
        while let Some(conn) = self.conns.get_mut(slot).filter(|conn| conn.is_open()) {
            let ike_only = conn.is_ike_only();
            let body = match conn.deframer.next(unread, &mut at, &mut conn.carry) {
                Ok(Next::Pending) => break,
                Ok(Next::InPlace(range)) => self.outlet.hold_owned(unread[range].to_vec()),
                Ok(Next::Carried) => self.outlet.hold_owned(mem::take(&mut conn.carry)),
                Err(error) => return self.on_frame_error(slot, error),
            };
            self.on_body(slot, body, ike_only);
        }
        if let Some(State::Moving(moving)) = self.conns.get_mut(slot).map(|conn| &mut conn.state) {
            moving.unread.extend_from_slice(unread.get(at..).unwrap_or_default());
        }
        self.settle_carry(slot);
    }

    /// A connection keeps a carry buffer only while a frame is unfinished, and without a session only as
    /// far as the limit of the worker goes.
    pub(super) fn settle_carry(&mut self, slot: u32) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        if conn.carry.is_empty() {
            self.outlet.keep_spare(mem::take(&mut conn.carry));
        }
        let counted = if conn.session.is_some() || !conn.is_open() {
            0
        } else {
            let front = conn.front.as_ref().map_or(0, |guard| guard.carry_octets());
            (conn.carry.capacity() + front).saturating_sub(UNFINISHED_FREE)
        };
        let before = mem::replace(&mut conn.unfinished, counted);
        self.unfinished = self.unfinished - before + counted;
        if counted > before && self.unfinished > self.limits.unfinished {
            self.counters.dropped(DropReason::Unfinished);
            self.close(slot, CloseCause::Limit);
        }
    }

    fn on_frame_error(&mut self, slot: u32, error: FrameError) {
        self.counters.dropped(match error {
            FrameError::PrefixMismatch => DropReason::PrefixMismatch,
            FrameError::BadLength(_) | FrameError::BadIkeLength(_) => DropReason::BadLength,
        });
        self.close(slot, CloseCause::Framing);
    }

    fn on_body(&mut self, slot: u32, body: Place, ike_only: bool) {
        if ike_only {
            return self.on_ike(slot, body, 0);
        }
        let octets = self.outlet.octets(&mut self.ring, &body);
        let short = octets.len() <= NON_ESP_MARKER.len();
        match classify(octets) {
            // RFC 9329 §3 and §6.6: ignored without a trace.
            FrameKind::Empty | FrameKind::Keepalive => {}
            FrameKind::Unparseable(_) if short && self.has_short_keepalives(slot) => {}
            FrameKind::Unparseable(_) => self.bad_message(slot, DropReason::Unparseable),
            FrameKind::Ike => self.on_ike(slot, body, NON_ESP_MARKER.len()),
            FrameKind::Esp(spi) => self.on_esp(slot, spi, body),
        }
    }

    /// Counts a message that could not be used; too many in a row close the connection (D5).
    pub(super) fn bad_message(&mut self, slot: u32, reason: DropReason) {
        self.counters.dropped(reason);
        self.bad_in_a_row(slot);
    }

    /// The count alone, for messages whose reason was counted elsewhere.
    pub(super) fn bad_in_a_row(&mut self, slot: u32) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        conn.bad_in_a_row += 1;
        if conn.bad_in_a_row > self.limits.bad_messages_in_a_row {
            self.close(slot, CloseCause::Corrupted);
        }
    }

    /// An IKE message, which begins at `from`.
    fn on_ike(&mut self, slot: u32, body: Place, from: usize) {
        let message = self.outlet.octets(&mut self.ring, &body).get(from..).unwrap_or_default().to_vec();
        self.counters.ike_received.add(1);
        let (Some(conn_id), Some(conn)) = (self.conns.id(slot), self.conns.get_mut(slot)) else { return };
        if conn.ike_waiting >= self.limits.ike_unanswered {
            self.counters.dropped(DropReason::IkeFlood);
            return self.close(slot, CloseCause::Backlog);
        }
        conn.ike_waiting += 1;
        let path = conn.path;
        if conn.is_ike_only() {
            // Such connections are short-lived: nothing tells when the last request has come.
            self.set_deadline(slot, self.now + self.limits.first_message_timeout, CloseCause::Idle);
        }
        // What was heard before it is told before it.
        self.tell_moves();
        if !self.report(ToControl::Ike { conn: conn_id, path, message }) {
            // The peer would not repeat it on this connection, but must on the next (RFC 9329 §6.2).
            self.close(slot, CloseCause::Backlog);
        }
    }

    pub(super) fn on_esp(&mut self, slot: u32, spi: EspSpi, body: Place) {
        if self.opening.as_ref().is_some_and(|opening| opening.is_full()) {
            self.finish_opening();
            // One of them may have ended the connection.
            if !self.conns.get_mut(slot).is_some_and(|conn| conn.is_open()) {
                return self.counters.dropped(DropReason::NoConnection);
            }
        }
        match self.open_esp(slot, spi, &body) {
            Ok(Some(inner)) => self.outlet.push(&mut self.ring, &self.counters, inner),
            Ok(None) => {}
            Err(refused) => self.refuse(slot, &body, refused),
        }
    }

    /// What becomes of a frame that yields no packet.
    fn refuse(&mut self, slot: u32, body: &Place, refused: Refused) {
        match refused {
            Refused::Drop(reason) => self.counters.dropped(reason),
            Refused::Bad(reason) => self.bad_message(slot, reason),
            Refused::Close(reason) => {
                // D6: this connection alone; the SA and its other connections are untouched.
                self.counters.dropped(reason);
                self.close(slot, CloseCause::AuthFailed);
            }
            Refused::Elsewhere(owner) => {
                // A frame before it may give the connection its session yet.
                self.finish_opening();
                if self.conns.get_mut(slot).is_some_and(|conn| conn.session.is_some()) {
                    return self.bad_message(slot, DropReason::UnknownSpi);
                }
                let octets = self.outlet.octets(&mut self.ring, body).to_vec();
                self.begin_move(slot, owner, None);
                self.requeue(slot, &octets);
            }
        }
    }

    /// Everything between an ESP frame and a packet that may go to the core; `None` when it waits for the
    /// others of the turn. Nothing of the SA or the session changes before the ICV verifies.
    fn open_esp(&mut self, slot: u32, spi: EspSpi, body: &Place) -> Result<Option<Inner>, Refused> {
        let id = self.conns.id(slot).ok_or(Refused::Drop(DropReason::NoConnection))?;
        let conn = self.conns.get_mut(slot).ok_or(Refused::Drop(DropReason::NoConnection))?;
        let Some(child) = self.sad.child_mut(spi) else {
            if self.sad.is_retired(spi) {
                return Err(Refused::Drop(DropReason::RetiredSpi));
            }
            if let Some(session) = self.early.session_of(spi) {
                let (known, path) = (conn.session, conn.path);
                if known.is_some_and(|bound| bound != session) {
                    return Err(Refused::Bad(DropReason::ForeignSpi));
                }
                if known.is_none() && self.early.is_news(id, spi) {
                    // The UE's answer was lost with its last connection: the offer has to be repeated here.
                    self.report(ToControl::EarlyEsp { session, conn: id, path });
                }
                let octets = self.outlet.octets(&mut self.ring, body);
                let kept = self.early.keep(id, spi, octets);
                return if kept { Ok(None) } else { Err(Refused::Drop(DropReason::EarlyEsp)) };
            }
            let owner = WorkerId::of_spi(spi);
            let elsewhere = owner != self.id && owner.index() < self.peers.len();
            if elsewhere && conn.session.is_none() && !conn.moved {
                return Err(Refused::Elsewhere(owner));
            }
            return Err(Refused::Bad(DropReason::UnknownSpi));
        };
        if conn.session.is_some_and(|bound| bound != child.session) {
            return Err(Refused::Bad(DropReason::ForeignSpi));
        }
        let octets = self.outlet.octets(&mut self.ring, body);
        if !child.inbound.suite().cipher.is_aead()
            && let Some(opening) = &mut self.opening
        {
            let frame = Waiting { via: Via::Conn(id), spi, body: body.clone() };
            opening.push(&mut child.inbound, octets, frame).map_err(refused)?;
            return Ok(None);
        }
        let opened = child.inbound.open(octets).map_err(refused)?;
        let packet = octets.get_mut(opened.payload.clone()).unwrap_or_default();
        let accepted = Accepted::new(&self.networks, child, opened.kind, packet);
        self.conclude(slot, accepted, body.part(opened.payload)).map(Some)
    }

    /// What is left to be asked about a frame that [`Self::follow`] has opened.
    fn accept(&mut self, slot: u32, spi: EspSpi, body: &Place, opened: Opened) -> Result<Inner, Refused> {
        let child = self.sad.child_mut(spi).ok_or(Refused::Drop(DropReason::RetiredSpi))?;
        let place = body.part(opened.payload);
        let packet = self.outlet.octets(&mut self.ring, &place);
        let accepted = Accepted::new(&self.networks, child, opened.kind, packet);
        self.conclude(slot, accepted, place)
    }

    /// Opens the frames that wait and hands them on in their order.
    pub(super) fn finish_opening(&mut self) {
        let Some(mut opening) = self.opening.take_if(|opening| !opening.batch.is_empty()) else { return };
        opening.run(&mut self.outlet, &mut self.ring);
        for (position, frame) in opening.frames.drain(..).enumerate() {
            let (batch, body) = (&opening.batch, &frame.body);
            let finished = match &frame.via {
                Via::Conn(conn) => self
                    .finish_esp(batch, position, *conn, &frame)
                    .map_err(|refused| self.refuse(conn.slot, body, refused)),
                Via::Datagram(origin) => self
                    .finish_datagram(batch, position, origin, &frame)
                    .map(Some)
                    .map_err(|reason| self.counters.dropped(reason)),
            };
            if let Ok(Some(inner)) = finished {
                self.outlet.push(&mut self.ring, &self.counters, inner);
            }
        }
        opening.batch.clear();
        self.opening = Some(opening);
    }

    /// `None` for a packet that has continued a run, see [`Self::follow`].
    fn finish_esp(
        &mut self,
        batch: &OpenBatch,
        position: usize,
        id: ConnId,
        frame: &Waiting,
    ) -> Result<Option<Inner>, Refused> {
        // An earlier frame of the batch may have closed the connection, or given it its session.
        let conn = self.conns.find(id).filter(|conn| conn.is_open());
        let conn = conn.ok_or(Refused::Drop(DropReason::NoConnection))?;
        let (spi, slot) = (frame.spi, id.slot);
        let newest = self.outlet.newest().filter(|newest| newest.0 == spi && conn.session == Some(newest.1));
        let settled = newest.and_then(|(spi, session)| self.sad.child_settled_on(spi, session, slot));
        let (child, follows) = match settled {
            Some(child) => (child, true),
            None => (self.sad.child_mut(spi).ok_or(Refused::Drop(DropReason::RetiredSpi))?, false),
        };
        if conn.session.is_some_and(|bound| bound != child.session) {
            return Err(Refused::Bad(DropReason::ForeignSpi));
        }
        let octets = self.outlet.octets(&mut self.ring, &frame.body);
        let opened = child.inbound.finish_open(batch, position, octets).map_err(refused)?;
        let place = frame.body.part(opened.payload);
        if follows && opened.kind != OpenedKind::Dummy {
            let packet = self.outlet.received(&mut self.ring, &place);
            if packet.is_some_and(|packet| self.outlet.extend(packet, &place)) {
                conn.bad_in_a_row = 0;
                return Ok(None);
            }
        }
        let packet = self.outlet.octets(&mut self.ring, &place);
        let accepted = Accepted::new(&self.networks, child, opened.kind, packet);
        self.conclude(slot, accepted, place).map(Some)
    }

    /// Takes an authentic packet: what it says about its sender first, whatever becomes of it then.
    fn conclude(&mut self, slot: u32, accepted: Accepted, place: Place) -> Result<Inner, Refused> {
        if let Some(conn) = self.conns.get_mut(slot) {
            conn.bad_in_a_row = 0;
        }
        if accepted.promote {
            self.sad.promote(accepted.spi);
        }
        self.on_authentic(slot, accepted.session);
        accepted.into_inner(place).map_err(Refused::Drop)
    }

    /// Ends the turn of the uplink: everything that was received leaves.
    pub(super) fn flush_uplink(&mut self) {
        self.finish_opening();
        self.outlet.flush(&mut self.ring, &self.counters);
    }

    /// A fresh authentic packet arrived: it moves the session to this connection (RFC 9329 §6.1).
    fn on_authentic(&mut self, slot: u32, id: SessionId) {
        let Some(session) = self.sad.session_mut(id) else { return };
        let report = session.note_activity(self.now_s);
        // A session that MOBIKE moved to UDP does not follow what is left of an old connection.
        if session.conn != Some(slot) && session.follow != Some(Follow::Never) {
            self.bind(id, slot);
            self.note_moved(id);
        }
        if report {
            self.report(ToControl::EspActivity { session: id });
        }
    }
}

/// A frame in received octets.
enum Step {
    /// Found, nothing else.
    Body { body: Place, ike_only: bool },
    /// ESP that was opened.
    Opened { body: Place, spi: EspSpi, opened: Opened },
    /// ESP that did not open.
    Refused { body: Place, error: EspError },
    /// None: the stream is no longer one of frames.
    Broken(FrameError),
}

/// What the deframer found; `None` when there is no whole frame.
fn framed(
    found: Result<Next, FrameError>,
    received: &Place,
    conn: &mut Conn,
    outlet: &mut Outlet,
) -> Option<Step> {
    let body = match found {
        Ok(Next::Pending) => return None,
        Ok(Next::InPlace(range)) => received.part(range),
        Ok(Next::Carried) => outlet.hold_owned(mem::take(&mut conn.carry)),
        Err(error) => return Some(Step::Broken(error)),
    };
    Some(Step::Body { body, ike_only: conn.is_ike_only() })
}

/// What an authentic packet says, and whether it may go on.
pub(super) struct Accepted {
    pub spi: EspSpi,
    pub session: SessionId,
    pub network: NetworkId,
    /// It is the first packet of its SA: the downlink leaves the one it replaces.
    pub promote: bool,
    pub verdict: Result<InnerHeader, DropReason>,
}

impl Accepted {
    pub fn new(networks: &[Network], child: &Child, kind: OpenedKind, packet: &mut [u8]) -> Self {
        let verdict = match kind {
            OpenedKind::Dummy => Err(DropReason::Dummy),
            _ => match networks.get(child.network.index()) {
                Some(network) => admit(network, child, packet),
                None => Err(DropReason::NoSession),
            },
        };
        Self {
            spi: child.inbound.spi(),
            session: child.session,
            network: child.network,
            promote: child.is_standby(),
            verdict,
        }
    }

    /// The packet, which lies at `place`, if it may go on.
    pub fn into_inner(self, place: Place) -> Result<Inner, DropReason> {
        let Self { spi, session, network, verdict, .. } = self;
        verdict.map(|header| Inner { spi, session, network, place, header })
    }
}

/// What becomes of an ESP frame that yields no packet.
enum Refused {
    /// Dropped, nothing else.
    Drop(DropReason),
    /// Dropped, and counted against the connection.
    Bad(DropReason),
    /// Dropped, and the connection with it.
    Close(DropReason),
    /// The connection belongs to another worker.
    Elsewhere(WorkerId),
}

fn refused(error: EspError) -> Refused {
    let reason = refusal(error);
    match error {
        EspError::BadIcv => Refused::Close(reason),
        EspError::TooShort => Refused::Bad(reason),
        _ => Refused::Drop(reason),
    }
}

/// Why a packet that was not opened is dropped.
pub(super) fn refusal(error: EspError) -> DropReason {
    match error {
        EspError::BadIcv => DropReason::BadIcv,
        EspError::TooShort => DropReason::EspTooShort,
        EspError::Replayed => DropReason::Replayed,
        EspError::LeftOfWindow => DropReason::LeftOfWindow,
        EspError::BadPadding => DropReason::BadPadding,
        EspError::BadNextHeader => DropReason::BadNextHeader,
        EspError::BadInnerLength => DropReason::BadInnerPacket,
    }
}

/// Selectors, isolation and MSS clamp of an uplink packet; its header.
fn admit(network: &Network, child: &Child, packet: &mut [u8]) -> Result<InnerHeader, DropReason> {
    let inner = InnerHeader::parse(packet).map_err(|_| DropReason::BadInnerPacket)?;
    if !child.admits_uplink(&inner) {
        return Err(DropReason::UplinkSelector);
    }
    if !network.config.hairpin {
        if network.keeps(inner.dst) {
            return Err(DropReason::ToGateway);
        }
        if network.config.in_a_pool(inner.dst) {
            return Err(DropReason::UeToUe);
        }
    }
    ip::clamp_mss(packet, &inner, network.config.mtu);
    Ok(inner)
}
