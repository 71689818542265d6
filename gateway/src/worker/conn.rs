//! Connections of one worker.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Instant;

use ahash::AHashMap;
use bytes::Bytes;
use codec::stream::Deframer;

use super::counters::CloseCause;
use super::flow_queue::UeId;
use super::front::Guard;
use super::pace::Pace;
use super::path_queue::PathQueue;
use super::udp::flows::Flows;
use crate::io::block::Block;
use crate::types::{ConnId, Path, SessionId, Transport, WorkerId};

/// Where a connection is in its life.
pub(super) enum State {
    /// Reading and writing.
    Open,
    /// Closes once what is queued has been sent.
    Draining(CloseCause),
    /// Shut down; waits for its operations to end.
    Closing,
    /// On its way to another worker; waits for its operations to end.
    Moving(Box<Move>),
}

/// A hand-over that has begun.
pub(super) struct Move {
    /// The new worker.
    pub to: WorkerId,
    /// The session to bind there.
    pub session: Option<SessionId>,
    /// A session of this worker that turned out to be on it: it stays.
    pub stays: Option<SessionId>,
    /// Octets received but not parsed here.
    pub unread: Vec<u8>,
    /// The descriptor has been asked for.
    pub taking: bool,
    /// The connection is to be closed instead, once the descriptor is at hand.
    pub abandoned: bool,
}

/// What waits to be sent on a connection: IKE first, then what is sealed, then what is not.
#[derive(Default)]
pub(super) struct SendQueue {
    /// IKE messages: they go first.
    pub ike: VecDeque<Bytes>,
    /// Octets of `ike`.
    pub ike_octets: usize,
    /// Blocks of sealed ESP frames; the last one is still being filled.
    pub blocks: VecDeque<Block>,
    /// Octets of `blocks`.
    pub octets: usize,
    /// Octets of the block that is being sent.
    pub in_flight: usize,
    /// Room a block keeps behind its frames, in which they become TLS records.
    pub records_room: usize,
    /// Octets of the last block that was sent: the next one may be like it.
    pub usual: usize,
    /// How much may be sealed at once.
    pub pace: Pace,
    /// What is done about the queue of its path; only while there is a call.
    pub path: Option<Box<PathQueue>>,
    /// When a packet of a call last came.
    pub called: Option<Instant>,
    /// Inner packets that are not sealed yet, while there are any.
    pub waiting: Option<UeId>,
}

impl SendQueue {
    /// Whether nothing is left to be sent, but for what is in flight.
    pub fn is_empty(&self) -> bool {
        self.ike.is_empty() && self.blocks.is_empty() && self.waiting.is_none()
    }
}

/// One TCP connection, or what a UDP flow has in common with it.
pub(super) struct Conn {
    pub generation: u32,
    pub path: Path,
    pub state: State,
    /// What stands between the socket and the frames; none on a plain connection.
    pub front: Option<Box<Guard>>,
    pub deframer: Deframer,
    /// The frame that straddles receive buffers; empty while none does.
    pub carry: Vec<u8>,
    /// Octets of `carry` that count towards the worker's limit of unfinished frames.
    pub unfinished: usize,
    pub receive_armed: bool,
    /// The peer has said its last and is still to be answered; on a connection for IKE alone only.
    pub half_closed: bool,
    /// The peer will send nothing more.
    pub ended: bool,
    /// Its receive found no buffer and waits for one.
    pub starved: bool,
    pub sending: bool,
    pub stopping: bool,
    /// Waits in the flush list.
    pub dirty: bool,
    /// The session whose messages this connection may carry (RFC 9329 §6.1: one IKE SA per connection).
    pub session: Option<SessionId>,
    /// When it is closed unless something happens; `None` with an active session (D12).
    pub deadline: Option<(Instant, CloseCause)>,
    /// The earliest look at `deadline` that is due; one at a time, however often the deadline changes.
    pub deadline_check: Option<Instant>,
    /// Bad messages since the last good one (D5).
    pub bad_in_a_row: u32,
    /// IKE messages the control thread has not handled yet.
    pub ike_waiting: u32,
    /// It has come from, or asked for, another worker before: it does not move twice by an SPI.
    pub moved: bool,
    pub last_received: Instant,
    pub queue: SendQueue,
}

impl Conn {
    pub fn new(generation: u32, path: Path, now: Instant) -> Self {
        Self {
            generation,
            path,
            state: State::Open,
            front: None,
            deframer: Deframer::responder(),
            carry: Vec::new(),
            unfinished: 0,
            receive_armed: false,
            half_closed: false,
            ended: false,
            starved: false,
            sending: false,
            stopping: false,
            dirty: false,
            session: None,
            deadline: None,
            deadline_check: None,
            bad_in_a_row: 0,
            ike_waiting: 0,
            moved: false,
            last_received: now,
            queue: SendQueue::default(),
        }
    }

    /// The sending side of a UDP flow.
    pub fn flow(path: Path, now: Instant) -> Self {
        let mut conn = Self::new(0, path, now);
        conn.queue.pace = Pace::unmeasured();
        conn
    }

    /// Whether frames of it are still processed.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// Whether a receive that ended for want of a buffer is to go on.
    pub fn can_receive(&self) -> bool {
        matches!(self.state, State::Open | State::Draining(_))
            && !self.receive_armed
            && !self.half_closed
            && !self.ended
    }

    /// Whether it carries IKE messages and nothing else (draft-ietf-ipsecme-ike-tcp).
    pub fn is_ike_only(&self) -> bool {
        self.path.transport == Transport::IkeTcp
    }

    /// Whether frames may still be queued on it.
    pub fn can_send(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// Whether IKE messages may still be queued on it: on a connection about to move they travel with it.
    pub fn can_send_ike(&self) -> bool {
        matches!(self.state, State::Open | State::Moving(_))
    }
}

/// A place in the table and how often it has been used.
#[derive(Default)]
struct Slot {
    conn: Option<Box<Conn>>,
    generation: u32,
}

/// The connections by slot. Grows to the most connections that were open at once.
pub(super) struct ConnTable {
    worker: WorkerId,
    slots: Vec<Slot>,
    free: Vec<u32>,
    capacity: u32,
    per_source: AHashMap<IpAddr, u32>,
    per_source_max: u32,
    open: usize,
    /// UDP flows, whose slots are told from those of connections by a bit.
    pub flows: Flows,
}

impl ConnTable {
    pub fn new(worker: WorkerId, capacity: u32, per_source_max: u32) -> Self {
        Self {
            worker,
            slots: Vec::new(),
            free: Vec::new(),
            capacity,
            per_source: AHashMap::new(),
            per_source_max,
            open: 0,
            flows: Flows::default(),
        }
    }

    /// Lets no slot from `capacity` on be used any more.
    pub fn cap(&mut self, capacity: u32) {
        self.capacity = self.capacity.min(capacity);
        self.free.retain(|slot| *slot < capacity);
    }

    /// Reserves a slot for a connection from `source`: its slot and generation, or `None` at a limit.
    pub fn reserve(&mut self, source: IpAddr) -> Option<(u32, u32)> {
        let next = u32::try_from(self.slots.len()).ok().filter(|next| *next < self.capacity);
        let room = next.is_some() || !self.free.is_empty();
        let from_source = self.per_source.entry(source).or_insert(0);
        if *from_source >= self.per_source_max || !room {
            if *from_source == 0 {
                self.per_source.remove(&source);
            }
            return None;
        }
        *from_source += 1;
        let slot = self.free.pop().or(next)?;
        if slot as usize == self.slots.len() {
            self.slots.push(Slot::default());
        }
        let generation = &mut self.slots.get_mut(slot as usize)?.generation;
        *generation = generation.wrapping_add(1) & 0xff_ffff;
        self.open += 1;
        Some((slot, *generation))
    }

    /// Gives a slot back, with the connection in it if there was one.
    pub fn free(&mut self, slot: u32, source: IpAddr) -> Option<Box<Conn>> {
        if let Some(from_source) = self.per_source.get_mut(&source) {
            *from_source -= 1;
            if *from_source == 0 {
                self.per_source.remove(&source);
            }
        }
        if slot < self.capacity {
            self.free.push(slot);
        }
        self.open -= 1;
        self.slots.get_mut(slot as usize)?.conn.take()
    }

    pub fn insert(&mut self, slot: u32, conn: Conn) {
        if let Some(entry) = self.slots.get_mut(slot as usize) {
            entry.conn = Some(Box::new(conn));
        }
    }

    /// The connection, or the sending side of the flow.
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Conn> {
        match self.slots.get_mut(slot as usize) {
            Some(slot) => slot.conn.as_deref_mut(),
            None => self.flows.get_mut(slot).map(|flow| &mut flow.conn),
        }
    }

    /// The connection, unless its slot has a new user.
    pub fn find(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.get_mut(id.slot).filter(|conn| conn.generation == id.generation)
    }

    pub fn id(&self, slot: u32) -> Option<ConnId> {
        let conn = self.slots.get(slot as usize)?.conn.as_ref()?;
        Some(ConnId { worker: self.worker, slot, generation: conn.generation })
    }

    pub fn len(&self) -> usize {
        self.open
    }

    /// Slots in use, for the occasional sweep.
    pub fn slots(&self) -> impl Iterator<Item = u32> {
        self.slots.iter().enumerate().filter(|(_, slot)| slot.conn.is_some()).map(|(slot, _)| slot as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn slots_and_sources_are_bounded_and_come_back() {
        let mut table = ConnTable::new(WorkerId(0), 3, 2);
        let (first, generation) = table.reserve(SOURCE).expect("free");
        table.reserve(SOURCE).expect("second of two");
        assert!(table.reserve(SOURCE).is_none(), "per source");
        table.reserve(OTHER).expect("another source");
        assert!(table.reserve(OTHER).is_none(), "table full");
        table.free(first, SOURCE);
        let (again, next) = table.reserve(SOURCE).expect("free again");
        assert_eq!(again, first);
        assert_ne!(next, generation, "an old id must not name the new connection");
        assert_eq!(table.len(), 3);
    }

    #[test]
    fn a_capped_table_lets_its_upper_slots_go() {
        let mut table = ConnTable::new(WorkerId(0), u32::MAX, 16);
        let slots: Vec<u32> = (0..4).map(|_| table.reserve(SOURCE).expect("free").0).collect();
        assert_eq!(slots, [0, 1, 2, 3]);
        table.free(3, SOURCE);
        table.cap(3);
        assert!(table.reserve(SOURCE).is_none());
        table.free(1, SOURCE);
        assert_eq!(table.reserve(SOURCE).map(|(slot, _)| slot), Some(1));
    }
}
