//! The queue of one UE: flows in two tiers, served by deficit round robin.
//!
//! ```text
//! voice  ── new flows, old flows ──┐ first, while its credit lasts
//! others ── new flows, old flows ──┴── next segment
//! ```
//!
//! Within a tier this is RFC 8290 with CoDel per flow; the unit of service is the inner packet that leaves,
//! so that other flows pass between the segments of a super-packet. A packet's tier depends on its DSCP
//! alone: a flow never overtakes itself.

use std::time::Instant;

use super::Terms;
use super::codel::Codel;
use super::memory::{Memory, NONE};
use crate::worker::counters::{DropReason, WorkerCounters};

/// Flows of either tier; those beyond share one.
pub(super) const FLOWS: [usize; 2] = [8, 32];
const FLOWS_ALL: usize = FLOWS[VOICE] + FLOWS[OTHER];

const VOICE: usize = 0;
const OTHER: usize = 1;

/// Octets by which voice may run ahead of the rest. It earns what the rest sends: a flow marked as voice by
/// mistake gets half of the connection and no more, a real one never needs that.
const VOICE_CREDIT: i32 = 16 * 1024;

/// No flow.
const NO_FLOW: u8 = u8::MAX;

/// One flow, or a few that share its hash.
#[derive(Clone, Copy, Debug)]
struct Flow {
    head: u32,
    tail: u32,
    /// Octets of its buffers.
    octets: u32,
    deficit: i32,
    codel: Codel,
    /// The flow behind it in its list.
    next: u8,
    listed: bool,
}

/// Flows in the order of their service.
#[derive(Clone, Copy, Debug)]
struct List {
    head: u8,
    tail: u8,
}

const EMPTY: List = List { head: NO_FLOW, tail: NO_FLOW };

/// A tier's lists: flows that have just become active, then the others (RFC 8290 §4.2).
#[derive(Clone, Copy, Debug)]
struct Tier {
    new: List,
    old: List,
}

/// What one UE has waiting.
pub(super) struct UeQueue {
    flows: [Flow; FLOWS_ALL],
    tiers: [Tier; 2],
    voice_credit: i32,
    /// Octets of its buffers.
    octets: usize,
}

/// A packet that leaves.
pub(super) struct Departure {
    pub entry: u32,
    pub range: std::ops::Range<usize>,
    /// It was the last of its entry, which is in no list any more.
    pub last: bool,
}

/// Where a flow's hash puts it.
pub(super) fn bucket(hash: u64, voice: bool) -> usize {
    if voice {
        (hash % FLOWS[VOICE] as u64) as usize
    } else {
        FLOWS[VOICE] + (hash % FLOWS[OTHER] as u64) as usize
    }
}

fn tier_of(flow: u8) -> usize {
    if usize::from(flow) < FLOWS[VOICE] { VOICE } else { OTHER }
}

impl UeQueue {
    pub fn new() -> Self {
        let flow = Flow {
            head: NONE,
            tail: NONE,
            octets: 0,
            deficit: 0,
            codel: Codel::default(),
            next: NO_FLOW,
            listed: false,
        };
        Self {
            flows: [flow; FLOWS_ALL],
            tiers: [Tier { new: EMPTY, old: EMPTY }; 2],
            voice_credit: VOICE_CREDIT,
            octets: 0,
        }
    }

    /// Forgets everything about an empty queue.
    pub fn reset(&mut self) {
        debug_assert_eq!(self.octets, 0, "its entries would be lost");
        *self = Self::new();
    }

    /// Octets of the buffers it holds.
    pub fn octets(&self) -> usize {
        self.octets
    }

    /// Puts an entry at the end of its flow.
    pub fn push(&mut self, bucket: usize, index: u32, memory: &mut Memory, quantum: i32) {
        let Some(entry) = memory.get_mut(index) else { return };
        entry.next = NONE;
        let octets = entry.buffer.len() as u32;
        self.append_chain(bucket, (index, index), octets, memory, quantum);
    }

    /// Puts all of `other`, whose entries are the same memory's, at the ends of the flows that their hashes say.
    pub fn append(&mut self, other: &Self, memory: &mut Memory, quantum: i32) {
        for (bucket, flow) in other.flows.iter().enumerate().filter(|(_, flow)| flow.head != NONE) {
            self.append_chain(bucket, (flow.head, flow.tail), flow.octets, memory, quantum);
        }
    }

    /// Puts a chain of entries, by its first and last and the octets of its buffers, at the end of a flow.
    #[inline]
    fn append_chain(
        &mut self,
        bucket: usize,
        (first, last): (u32, u32),
        octets: u32,
        memory: &mut Memory,
        quantum: i32,
    ) {
        let Some(flow) = self.flows.get_mut(bucket) else { return };
        let tail = std::mem::replace(&mut flow.tail, last);
        flow.octets += octets;
        self.octets += octets as usize;
        if flow.head == NONE {
            flow.head = first;
        } else if let Some(before) = memory.get_mut(tail) {
            before.next = first;
        }
        if !flow.listed {
            flow.listed = true;
            flow.deficit = quantum;
            let tier = &mut self.tiers[tier_of(bucket as u8)];
            append(&mut self.flows, &mut tier.new, bucket as u8);
        }
    }

    /// The packet that leaves next, or `None` when the queue is empty.
    pub fn pop(
        &mut self,
        memory: &mut Memory,
        terms: Terms,
        now: Instant,
        counters: &WorkerCounters,
    ) -> Option<Departure> {
        let first = if self.voice_credit > 0 { VOICE } else { OTHER };
        for tier in [first, 1 - first] {
            let Some(departure) = self.pop_tier(tier, memory, terms, now, counters) else { continue };
            self.settle_credit(tier, departure.range.len() as i32);
            return Some(departure);
        }
        None
    }

    /// Voice pays for what it sends ahead of others, and earns what they send.
    fn settle_credit(&mut self, tier: usize, len: i32) {
        let Tier { new, old } = self.tiers[OTHER];
        let others_wait = new.head != NO_FLOW || old.head != NO_FLOW;
        if tier == OTHER {
            self.voice_credit = (self.voice_credit + len).min(VOICE_CREDIT);
        } else if others_wait {
            self.voice_credit -= len;
        }
    }

    /// RFC 8290 §4.2.
    fn pop_tier(
        &mut self,
        tier: usize,
        memory: &mut Memory,
        terms: Terms,
        now: Instant,
        counters: &WorkerCounters,
    ) -> Option<Departure> {
        loop {
            let Tier { new, old } = self.tiers[tier];
            let (id, is_new) = if new.head == NO_FLOW { (old.head, false) } else { (new.head, true) };
            let flow = self.flows.get_mut(usize::from(id))?;
            if flow.deficit <= 0 {
                flow.deficit += terms.quantum;
                self.rotate(tier, is_new);
                continue;
            }
            if let Some(departure) = self.pop_flow(id, memory, terms, now, counters) {
                self.flows[usize::from(id)].deficit -= departure.range.len() as i32;
                return Some(departure);
            }
            // A new flow that has emptied waits a round as an old one, so that it cannot come back as new
            // ahead of the others each time.
            if is_new && old.head != NO_FLOW {
                self.rotate(tier, true);
            } else {
                let lists = &mut self.tiers[tier];
                take_first(&mut self.flows, if is_new { &mut lists.new } else { &mut lists.old });
                self.flows[usize::from(id)].listed = false;
            }
        }
    }

    /// Moves the first flow of a list to the end of the old ones.
    fn rotate(&mut self, tier: usize, is_new: bool) {
        let lists = &mut self.tiers[tier];
        let id = take_first(&mut self.flows, if is_new { &mut lists.new } else { &mut lists.old });
        append(&mut self.flows, &mut lists.old, id);
    }

    /// The next packet of a flow that CoDel lets pass and, of voice, that a call still has a use for. A phone
    /// would throw the late ones away, and until then they delay those behind them. The last of a flow
    /// goes however late it is: it delays none, and what is marked as voice and is no call gets through.
    fn pop_flow(
        &mut self,
        id: u8,
        memory: &mut Memory,
        terms: Terms,
        now: Instant,
        counters: &WorkerCounters,
    ) -> Option<Departure> {
        loop {
            let flow = self.flows.get_mut(usize::from(id))?;
            let index = flow.head;
            let entry = memory.get_mut(index)?;
            let (next, sojourn) = (entry.next, now.saturating_duration_since(entry.since));
            let (segmenter, packet) = entry.packet_mut();
            let last = next == NONE && segmenter.remaining() <= 1;
            let late = sojourn > terms.voice_late && tier_of(id) == VOICE && !last;
            let congested = !late && flow.codel.is_congested(sojourn, terms.delay, last, now);
            if late || congested && !segmenter.is_ecn_capable() {
                segmenter.skip(packet);
                counters.dropped(if late { DropReason::VoiceLate } else { DropReason::Codel });
                if segmenter.peek_len().is_none() {
                    self.unlink_head(id, memory);
                    memory.remove(index);
                }
                continue;
            }
            if congested {
                counters.ecn_marked.add(1);
            }
            let Some(range) = segmenter.next(packet, congested) else {
                self.unlink_head(id, memory);
                memory.remove(index);
                continue;
            };
            let last = segmenter.peek_len().is_none();
            if last {
                self.unlink_head(id, memory);
            }
            return Some(Departure { entry: index, range, last });
        }
    }

    /// Takes the first entry of a flow out of its list.
    fn unlink_head(&mut self, id: u8, memory: &mut Memory) {
        let Some(flow) = self.flows.get_mut(usize::from(id)) else { return };
        let Some(entry) = memory.get_mut(flow.head) else { return };
        let octets = entry.buffer.len();
        flow.head = entry.next;
        if flow.head == NONE {
            flow.tail = NONE;
        }
        flow.octets -= octets as u32;
        self.octets -= octets;
    }

    /// Drops the entry at the head of the flow that holds most; returns how many packets it was: those of a
    /// super-packet that have not left. It goes whole because its memory does: a segment less frees nothing of
    /// the buffer, and RFC 8290 §4.1 drops up to 64 packets at a time as well. What CoDel drops or marks are
    /// single segments.
    pub fn drop_fattest(&mut self, memory: &mut Memory) -> u64 {
        let fattest = self.flows.iter().enumerate().max_by_key(|(_, flow)| flow.octets);
        let Some((id, flow)) = fattest.filter(|(_, flow)| flow.head != NONE) else { return 0 };
        let index = flow.head;
        let packets = memory.get_mut(index).map_or(0, |entry| entry.segmenter.remaining() as u64);
        self.unlink_head(id as u8, memory);
        memory.remove(index);
        packets
    }
}

fn append(flows: &mut [Flow], list: &mut List, id: u8) {
    let tail = std::mem::replace(&mut list.tail, id);
    match flows.get_mut(usize::from(tail)) {
        Some(before) => before.next = id,
        None => list.head = id,
    }
    if let Some(flow) = flows.get_mut(usize::from(id)) {
        flow.next = NO_FLOW;
    }
}

fn take_first(flows: &mut [Flow], list: &mut List) -> u8 {
    let id = list.head;
    list.head = flows.get(usize::from(id)).map_or(NO_FLOW, |flow| flow.next);
    if list.head == NO_FLOW {
        list.tail = NO_FLOW;
    }
    id
}
