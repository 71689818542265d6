//! Inner packets that wait for their connection, before they are encrypted: fair between UEs, between the
//! flows of a UE, with little standing delay, and without voice that comes too late.
//!
//! ```text
//! push ──> queue of the UE (voice | other flows, FQ-CoDel) ──┐
//! push ──> queue of another UE ──────────────────────────────┴── round of UEs ──> pop ──> sealed
//! ```
//!
//! A packet dropped here has no sequence number yet, so that drops never leave holes in an SA. A UE has a
//! queue only while something waits for it. Time is an argument; nothing here knows sockets.
//!
//! Source: RFC 8290 (flows), RFC 8289 (CoDel), RFC 3246 (the voice tier).

mod codel;
mod memory;
#[cfg(test)]
mod tests;
mod ue;

use std::collections::VecDeque;
use std::mem;
use std::ops::Range;
use std::time::{Duration, Instant};

use codec::esp::EspSpi;
use codec::ip::{InnerHeader, Segmenter};

use super::counters::{DropReason, WorkerCounters};
use memory::{Entry, Memory, NONE, buffer_len};
use ue::UeQueue;

pub use codel::Delay;
pub(super) use memory::SUPER_LEN;

/// Code points of voice: EF (RFC 3246) and VOICE-ADMIT (RFC 5865).
const VOICE_DSCP: [u8; 2] = [46, 44];

/// Inner packets of the greatest MTU that a UE may send before it is the next one's turn.
const ROUND_PACKETS: i32 = 16;

/// Lists of UEs by the octets they hold: one for each power of two.
const SIZE_CLASSES: usize = 32;

/// The queue of one UE.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct UeId(u32);

/// A packet that comes.
pub struct Arrival<'a> {
    /// The buffer it was read into. A super-packet keeps it, and a fresh one takes its place.
    pub buffer: &'a mut Box<[u8]>,
    /// Where it lies in the buffer.
    pub range: Range<usize>,
    /// What of it is still to be sent.
    pub segmenter: Segmenter,
    /// The Child SA that is to seal it.
    pub spi_in: EspSpi,
    /// The hash of its flow.
    pub flow: u64,
    /// It goes first.
    pub voice: bool,
    /// The most octets that a packet of its network has.
    pub mtu: u16,
}

/// An inner packet that leaves; give it back with [`FlowQueues::release`].
#[must_use = "its buffer is held until it is released"]
pub struct Segment {
    entry: u32,
    range: Range<usize>,
    last: bool,
    /// The Child SA that is to seal it.
    pub spi_in: EspSpi,
}

struct Ue {
    queue: UeQueue,
    /// The connection it waits for.
    slot: u32,
    deficit: i32,
    /// The most octets that a packet of it may have: the MTU of its network.
    mtu: i32,
    in_round: bool,
    in_use: bool,
    /// Its place in the list of its size.
    size: Option<(u8, u32)>,
}

/// What holds for the next packet of a UE.
#[derive(Clone, Copy)]
struct Terms {
    /// Octets a flow may send before it is the next one's turn.
    quantum: i32,
    /// What is a standing queue.
    delay: Delay,
    /// How long voice may wait.
    voice_late: Duration,
}

/// The queues of one worker.
pub struct FlowQueues {
    ues: Vec<Ue>,
    vacant: Vec<u32>,
    memory: Memory,
    /// UEs whose connection can take something.
    round: VecDeque<UeId>,
    by_size: [Vec<UeId>; SIZE_CLASSES],
    ue_max: usize,
    /// Octets a UE may send before it is the next one's turn. All have the same, or those of a network of long packets had
    /// more of the worker than others.
    turn: i32,
    /// How long voice may wait.
    voice_late: Duration,
}

/// Whether a packet is voice by its code point.
pub(super) fn is_voice(inner: &InnerHeader) -> bool {
    VOICE_DSCP.contains(&inner.dscp)
}

impl FlowQueues {
    /// Queues of at most `ue_max` octets of buffers each and `worker_max` in all, for packets up to `mtu_max`.
    /// Voice that has waited longer than `voice_late` is dropped; `None`: it never is for that.
    pub fn new(ue_max: usize, worker_max: usize, mtu_max: u16, voice_late: Option<Duration>) -> Self {
        Self {
            ues: Vec::new(),
            vacant: Vec::new(),
            memory: Memory::new(worker_max.max(2 * SUPER_LEN)),
            round: VecDeque::new(),
            by_size: Default::default(),
            ue_max: ue_max.max(SUPER_LEN),
            turn: ROUND_PACKETS * i32::from(mtu_max),
            voice_late: voice_late.unwrap_or(Duration::MAX),
        }
    }

    /// Queues a packet for the UE behind connection `slot`, whose queue is `ue` and made if there is none.
    /// Where a bound is reached, the fattest flow pays with its oldest packets.
    pub fn push(
        &mut self,
        ue: &mut Option<UeId>,
        slot: u32,
        arrival: Arrival<'_>,
        now: Instant,
        counters: &WorkerCounters,
    ) {
        let id = *ue.get_or_insert_with(|| self.open(slot));
        self.make_room(id, arrival.range.len(), counters);
        let bucket = ue::bucket(arrival.flow, arrival.voice);
        let mtu = arrival.mtu;
        let entry = self.entry_for(arrival, now);
        let index = self.memory.add(entry);
        let ue = &mut self.ues[id.0 as usize];
        // A UDP path that sessions of several networks share has packets of all of them.
        ue.mtu = ue.mtu.max(mtu.into());
        ue.queue.push(bucket, index, &mut self.memory, ue.mtu);
        self.resize(id);
    }

    fn entry_for(&mut self, arrival: Arrival<'_>, now: Instant) -> Entry {
        let Arrival { buffer, range, segmenter, spi_in, .. } = arrival;
        let len = range.len();
        let mut own = self.memory.take(len);
        let mut offset = 0;
        if own.len() == SUPER_LEN && buffer.len() == SUPER_LEN {
            mem::swap(&mut own, buffer);
            offset = range.start;
        } else if let (Some(to), Some(from)) = (own.get_mut(..len), buffer.get(range)) {
            to.copy_from_slice(from);
        }
        Entry { buffer: own, offset, segmenter, spi_in, since: now, next: NONE }
    }

    /// The next packet of a UE, whose flows have a standing queue by `delay`, or `None` when nothing waits; then its queue is gone.
    pub fn pop(
        &mut self,
        ue: &mut Option<UeId>,
        delay: Delay,
        now: Instant,
        counters: &WorkerCounters,
    ) -> Option<Segment> {
        let id = (*ue)?;
        let entry = self.ues.get_mut(id.0 as usize)?;
        let terms = Terms { quantum: entry.mtu, delay, voice_late: self.voice_late };
        let departure = entry.queue.pop(&mut self.memory, terms, now, counters);
        if departure.as_ref().is_none_or(|departure| departure.last) {
            self.resize(id);
        }
        let Some(departure) = departure else {
            self.close(id);
            *ue = None;
            return None;
        };
        self.ues[id.0 as usize].deficit -= departure.range.len() as i32;
        let spi_in = self.memory.get_mut(departure.entry).map_or(EspSpi(0), |entry| entry.spi_in);
        let ue::Departure { entry, range, last } = departure;
        Some(Segment { entry, range, last, spi_in })
    }

    /// The octets of a packet that leaves.
    pub fn bytes(&mut self, segment: &Segment) -> &[u8] {
        let Some(entry) = self.memory.get_mut(segment.entry) else { return &[] };
        entry.packet_mut().1.get(segment.range.clone()).unwrap_or_default()
    }

    /// Ends the use of a packet that left.
    pub fn release(&mut self, segment: Segment) {
        if segment.last {
            self.memory.remove(segment.entry);
        }
    }

    /// Puts a UE into the round: its connection can take something.
    pub fn activate(&mut self, ue: UeId) {
        if let Some(entry) = self.ues.get_mut(ue.0 as usize)
            && !mem::replace(&mut entry.in_round, true)
        {
            self.round.push_back(ue);
        }
    }

    /// Whether some UE's connection can take something.
    pub fn has_active(&self) -> bool {
        !self.round.is_empty()
    }

    /// Whose turn it is: takes a UE out of the round and returns its connection, or `None` after the last.
    /// It may send until [`Self::turn_is_over`], and has then to be put back with [`Self::activate`].
    pub fn next_turn(&mut self) -> Option<u32> {
        let ue = self.round.pop_front()?;
        let entry = self.ues.get_mut(ue.0 as usize)?;
        entry.in_round = false;
        entry.deficit = (entry.deficit + self.turn).min(self.turn);
        Some(entry.slot)
    }

    /// Whether a UE has sent what its turn allows.
    pub fn turn_is_over(&self, ue: UeId) -> bool {
        self.ues.get(ue.0 as usize).is_none_or(|entry| entry.deficit <= 0)
    }

    /// Octets of the longest packet that a UE may have waiting.
    pub fn mtu(&self, ue: UeId) -> usize {
        self.ues.get(ue.0 as usize).map_or(0, |entry| entry.mtu as usize)
    }

    /// The UE waits for another connection now.
    pub fn rebind(&mut self, ue: UeId, slot: u32) {
        if let Some(entry) = self.ues.get_mut(ue.0 as usize) {
            entry.slot = slot;
        }
    }

    /// Puts all that waits of `from`, which is gone then, behind what waits of `into`. Where the bound of a UE is exceeded,
    /// the fattest flow pays with its oldest packets.
    pub fn merge(&mut self, from: UeId, into: UeId, counters: &WorkerCounters) {
        let Some(entry) = self.ues.get_mut(from.0 as usize).filter(|_| from != into) else { return };
        let (queue, mtu) = (mem::replace(&mut entry.queue, UeQueue::new()), entry.mtu);
        self.resize(from);
        self.close(from);
        let Some(entry) = self.ues.get_mut(into.0 as usize) else { return };
        entry.mtu = entry.mtu.max(mtu);
        entry.queue.append(&queue, &mut self.memory, entry.mtu);
        while entry.queue.octets() > self.ue_max {
            counters.dropped_many(DropReason::FlowQueueFull, entry.queue.drop_fattest(&mut self.memory));
        }
        self.resize(into);
    }

    /// Drops everything of a UE; returns how many packets it was.
    pub fn discard(&mut self, ue: UeId) -> u64 {
        let mut packets = 0;
        while let Some(entry) = self.ues.get_mut(ue.0 as usize).filter(|entry| entry.queue.octets() > 0) {
            packets += entry.queue.drop_fattest(&mut self.memory);
        }
        self.resize(ue);
        self.close(ue);
        packets
    }

    /// Octets of the buffers in use.
    #[cfg(test)]
    pub fn octets(&self) -> usize {
        self.memory.used()
    }

    fn open(&mut self, slot: u32) -> UeId {
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.ues.push(Ue::new());
            (self.ues.len() - 1) as u32
        });
        let entry = &mut self.ues[index as usize];
        (entry.slot, entry.in_use, entry.deficit, entry.mtu) = (slot, true, 0, 0);
        UeId(index)
    }

    /// Gives the queue of a UE back. If it is still in the round, its turn finds nothing.
    fn close(&mut self, ue: UeId) {
        let Some(entry) = self.ues.get_mut(ue.0 as usize) else { return };
        if mem::replace(&mut entry.in_use, false) {
            entry.queue.reset();
            if mem::take(&mut entry.in_round) {
                self.round.retain(|other| *other != ue);
            }
            self.vacant.push(ue.0);
        }
    }

    /// Makes room for a packet of `len` octets within both bounds.
    fn make_room(&mut self, id: UeId, len: usize, counters: &WorkerCounters) {
        while let Some(entry) = self.ues.get_mut(id.0 as usize)
            && entry.queue.octets() > 0
            && entry.queue.octets() + buffer_len(len) > self.ue_max
        {
            counters.dropped_many(DropReason::FlowQueueFull, entry.queue.drop_fattest(&mut self.memory));
            self.resize(id);
        }
        while !self.memory.has_room(len) {
            let Some(fattest) = self.fattest() else { return };
            let queue = &mut self.ues[fattest.0 as usize].queue;
            counters.dropped_many(DropReason::FlowMemory, queue.drop_fattest(&mut self.memory));
            self.resize(fattest);
        }
    }

    /// A UE that holds most of the memory, give or take a factor of two.
    fn fattest(&self) -> Option<UeId> {
        self.by_size.iter().rev().find_map(|list| list.last()).copied()
    }

    /// Keeps the lists by size true after a UE's queue has changed.
    fn resize(&mut self, ue: UeId) {
        let Some(entry) = self.ues.get_mut(ue.0 as usize) else { return };
        let class =
            entry.queue.octets().checked_ilog2().map(|class| class.min(SIZE_CLASSES as u32 - 1) as u8);
        let before = entry.size;
        if before.map(|(class, _)| class) == class {
            return;
        }
        entry.size = None;
        if let Some((class, at)) = before {
            let list = &mut self.by_size[usize::from(class)];
            list.swap_remove(at as usize);
            if let Some(moved) = list.get(at as usize).copied() {
                self.ues[moved.0 as usize].size = Some((class, at));
            }
        }
        if let Some(class) = class {
            let list = &mut self.by_size[usize::from(class)];
            self.ues[ue.0 as usize].size = Some((class, list.len() as u32));
            list.push(ue);
        }
    }
}

impl Ue {
    fn new() -> Self {
        Self {
            queue: UeQueue::new(),
            slot: 0,
            deficit: 0,
            mtu: 0,
            in_round: false,
            in_use: false,
            size: None,
        }
    }
}
