//! UE to core: received messages to datagrams, datagrams to packets.

use std::ops::Range;

use codec::esp::{EspSpi, OpenBatch};
use codec::stream::{FrameKind, NON_ESP_MARKER, classify};

use super::{Origin, Stray};
use crate::io::recv_pool::Incoming;
use crate::io::ring::Received;

use crate::io::udp::Arrival;
use crate::types::{ConnId, Follow, SessionId, WorkerId};
use crate::worker::Worker;
use crate::worker::counters::DropReason;
use crate::worker::inbox::{ToControl, ToWorker};
use crate::worker::opening::{Via, Waiting};
use crate::worker::outlet::Place;
use crate::worker::uplink::{Accepted, Inner, refusal};

impl Worker {
    /// One completion of a UDP socket's receive.
    pub(in crate::worker) fn on_datagrams(&mut self, socket: usize, outcome: Received, armed: bool) {
        match outcome {
            Received::Octets(incoming) => {
                self.on_message(socket, incoming);
                if !armed {
                    self.udp.starved.push(socket);
                }
            }
            Received::Starved => {
                self.counters.receive_starved.add(1);
                self.udp.starved.push(socket);
            }
            // Never armed again at once: what failed may go on failing.
            Received::End | Received::Failed => self.udp.failed.push(socket),
        }
    }

    /// Receives again where buffers had run out; the turn has given them back.
    pub(in crate::worker) fn feed_udp(&mut self) {
        for socket in std::mem::take(&mut self.udp.starved) {
            self.ring.arm_datagrams(socket);
        }
    }

    /// Once a second: receives again where receiving failed.
    pub(in crate::worker) fn retry_udp(&mut self) {
        for socket in std::mem::take(&mut self.udp.failed) {
            self.ring.arm_datagrams(socket);
        }
    }

    /// One message: a datagram, or several that the kernel joined.
    fn on_message(&mut self, socket: usize, incoming: Incoming) {
        let place = self.outlet.hold(incoming);
        let parsed = Arrival::parse(self.outlet.octets(&mut self.ring, &place));
        let Some(received) = parsed else { return self.counters.dropped(DropReason::Unparseable) };
        let Some(own) = self.ring.udp_sockets().get(socket) else { return };
        let mut local = own.local();
        if let Some(ip) = received.local {
            local.set_ip(ip);
        }
        let carries_esp = own.carries_esp();
        let origin = Origin::new(socket, local, received.remote);
        for range in received.datagrams() {
            self.counters.udp_received.add(1);
            match carries_esp {
                true => self.on_datagram(&origin, place.part(range)),
                false => self.on_udp_ike(&origin, &place, range),
            }
        }
        if self.outlet.is_full() {
            self.flush_uplink();
        }
    }

    /// A datagram of a port that carries IKE and ESP: told apart by its first octets, as frames are (RFC 3948 §2).
    fn on_datagram(&mut self, origin: &Origin, body: Place) {
        match classify(self.outlet.octets(&mut self.ring, &body)) {
            // RFC 3948 §4: a keepalive is ignored, and says nothing of its sender.
            FrameKind::Empty | FrameKind::Keepalive => {}
            FrameKind::Unparseable(_) => self.counters.dropped(DropReason::Unparseable),
            FrameKind::Ike => {
                let len = self.outlet.octets(&mut self.ring, &body).len();
                self.on_udp_ike(origin, &body, NON_ESP_MARKER.len()..len);
            }
            FrameKind::Esp(spi) => self.on_udp_esp(origin, spi, body),
        }
    }

    /// Hands an IKE message on. Nothing of its sender is kept here.
    fn on_udp_ike(&mut self, origin: &Origin, body: &Place, message: Range<usize>) {
        self.counters.ike_received.add(1);
        if self.udp.ike_waiting >= self.limits.udp_ike_unanswered {
            return self.counters.dropped(DropReason::UdpIkeFlood);
        }
        let octets = self.outlet.octets(&mut self.ring, body);
        let message = octets.get(message).unwrap_or_default().to_vec();
        let conn = ConnId::datagrams(self.id);
        // What was heard before it is told before it.
        self.tell_moves();
        if self.report(ToControl::Ike { conn, path: origin.path, message }) {
            self.udp.ike_waiting += 1;
        }
    }

    /// The control thread is done with an IKE message that came over UDP.
    pub(in crate::worker) fn on_udp_handled(&mut self) {
        self.udp.ike_waiting = self.udp.ike_waiting.saturating_sub(1);
    }

    fn on_udp_esp(&mut self, origin: &Origin, spi: EspSpi, body: Place) {
        let owner = WorkerId::of_spi(spi);
        if owner != self.id && owner.index() < self.peers.len() {
            return self.pass_stray(owner, origin, &body);
        }
        self.take_udp_esp(origin, spi, body);
    }

    /// Passes a datagram to the worker its SPI names: the kernel joined it to others, or steered by its hash.
    fn pass_stray(&mut self, owner: WorkerId, origin: &Origin, body: &Place) {
        let len = self.outlet.octets(&mut self.ring, body).len();
        let stray = self.claim(owner, len).map(|claim| {
            let packet = claim.hold(self.outlet.octets(&mut self.ring, body));
            ToWorker::Stray(Box::new(Stray { socket: origin.socket, path: origin.path, packet }))
        });
        if self.pass_packets(owner, 1, stray) {
            self.counters.udp_strays.add(1);
        }
    }

    /// A datagram that arrived at another worker.
    pub(in crate::worker) fn on_stray(&mut self, stray: Stray) {
        let Stray { socket, path, packet } = stray;
        let body = self.outlet.hold_owned(packet.into_octets());
        if let FrameKind::Esp(spi) = classify(self.outlet.octets(&mut self.ring, &body)) {
            self.take_udp_esp(&Origin { socket, path }, spi, body);
        }
    }

    fn take_udp_esp(&mut self, origin: &Origin, spi: EspSpi, body: Place) {
        if self.opening.as_ref().is_some_and(|opening| opening.is_full()) {
            self.finish_opening();
        }
        match self.open_datagram(origin, spi, &body) {
            Ok(Some(inner)) => self.outlet.push(&mut self.ring, &self.counters, inner),
            Ok(None) => {}
            // There is no connection to end, whatever it was (RFC 9329 §6.1 is about TCP).
            Err(reason) => self.counters.dropped(reason),
        }
    }

    /// Everything between a datagram and a packet that may go to the core; `None` when it waits for the others of
    /// the turn. Nothing of the SA or the session changes before the ICV verifies.
    fn open_datagram(
        &mut self,
        origin: &Origin,
        spi: EspSpi,
        body: &Place,
    ) -> Result<Option<Inner>, DropReason> {
        let Some(child) = self.sad.child_mut(spi) else {
            let retired = self.sad.is_retired(spi);
            return Err(if retired { DropReason::RetiredSpi } else { DropReason::UnknownSpi });
        };
        let octets = self.outlet.octets(&mut self.ring, body);
        if !child.inbound.suite().cipher.is_aead()
            && let Some(opening) = &mut self.opening
        {
            let frame = Waiting { via: Via::Datagram(*origin), spi, body: body.clone() };
            opening.push(&mut child.inbound, octets, frame).map_err(refusal)?;
            return Ok(None);
        }
        let opened = child.inbound.open(octets).map_err(refusal)?;
        let packet = octets.get_mut(opened.payload.clone()).unwrap_or_default();
        let accepted = Accepted::new(&self.networks, child, opened.kind, packet);
        self.conclude_datagram(origin, accepted, body.part(opened.payload)).map(Some)
    }

    /// The second half of [`Self::open_datagram`] for one that waited.
    pub(in crate::worker) fn finish_datagram(
        &mut self,
        batch: &OpenBatch,
        position: usize,
        origin: &Origin,
        frame: &Waiting,
    ) -> Result<Inner, DropReason> {
        let child = self.sad.child_mut(frame.spi).ok_or(DropReason::RetiredSpi)?;
        let octets = self.outlet.octets(&mut self.ring, &frame.body);
        let opened = child.inbound.finish_open(batch, position, octets).map_err(refusal)?;
        let packet = octets.get_mut(opened.payload.clone()).unwrap_or_default();
        let accepted = Accepted::new(&self.networks, child, opened.kind, packet);
        self.conclude_datagram(origin, accepted, frame.body.part(opened.payload))
    }

    /// Takes an authentic packet: what it says about its sender first, whatever becomes of it then.
    fn conclude_datagram(
        &mut self,
        origin: &Origin,
        accepted: Accepted,
        place: Place,
    ) -> Result<Inner, DropReason> {
        self.on_authentic_datagram(origin, accepted.session)?;
        if accepted.promote {
            self.sad.promote(accepted.spi);
        }
        accepted.into_inner(place)
    }

    /// A fresh authentic packet arrived over UDP: the session follows it if a NAT in front of the UE may have
    /// changed its address (RFC 7296 §2.23). A session on TCP is not heard here (RFC 9329 §5).
    fn on_authentic_datagram(&mut self, origin: &Origin, id: SessionId) -> Result<(), DropReason> {
        let Some(session) = self.sad.session_mut(id) else { return Ok(()) };
        if session.follow.is_none() && self.now_s >= session.heard_over_udp_until_s {
            return Err(DropReason::TcpBound);
        }
        let report = session.note_activity(self.now_s);
        let (follow, at) = (session.follow, session.conn);
        if follow == Some(Follow::Any) && !at.is_some_and(|slot| self.conns.flows.is_at(slot, &origin.path)) {
            self.bind_path(id, &origin.path, Follow::Any);
            self.note_moved(id);
        }
        if report {
            self.report(ToControl::EspActivity { session: id });
        }
        Ok(())
    }
}
