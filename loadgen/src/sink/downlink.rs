//! What the sink sends to one UE.

use super::flows::FlowId;
use super::protocol::Start;
use super::socket::SEGMENTS_MAX;
use crate::probe::{
    FLAG_ACK_NOW, FLAG_DOWNLINK, FLAG_EF, PROBE_HEADER_LEN, Pattern, ProbeHeader, ProbeKind, SendFlow,
    SizePlan, TRAFFIC_CLASS_EF,
};
use std::net::SocketAddr;

/// Octets of one burst: the longest UDP datagram of both families.
const BURST_LEN_MAX: usize = 65_487;
/// Bursts of a flow in a row: as much as a UE's connection takes at a time, so that the gateway has whole blocks to send.
const BURSTS_PER_TURN: u32 = 3;
/// A window without an acknowledgement for so long has lost one.
const STALL_NS: u64 = 500_000_000;
/// A UE that says nothing for so long is gone; the sink stops sending to it.
const SILENCE_NS: u64 = 5_000_000_000;

/// The downlink half of a flow.
pub(super) struct DownFlow {
    flow: SendFlow,
    size: SizePlan,
    /// Most packets of a burst that the UE asked for.
    run_len: u64,
    /// Bursts in a row.
    bursts_per_turn: u32,
    /// Octets of the IP header that name class and congestion.
    traffic_class: u8,
    interval_ns: u64,
    /// How often the UE has cut its connection, as it says.
    cuts: u16,
    /// When the paced flow was last granted packets.
    granted_ns: u64,
    /// By how much its first burst is late, so that the flows do not keep step.
    phase_ns: u64,
    /// When the UE last said anything, and when it last moved the window.
    heard_ns: u64,
    moved_ns: u64,
    state: State,
    /// In the ready queue.
    queued: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Open, but the UE has not given the first credit.
    Armed,
    Running,
    Stopped,
}

/// Returns how many packets of `size` a burst has at most.
fn burst_len(size: SizePlan) -> u32 {
    (BURST_LEN_MAX / size.len_max()).min(SEGMENTS_MAX) as u32
}

/// Packets of one UE, back to back.
#[derive(Default)]
pub(super) struct Burst {
    /// UDP payloads.
    pub(super) octets: Vec<u8>,
    /// Their lengths.
    pub(super) lens: Vec<usize>,
    /// Their traffic class.
    pub(super) traffic_class: u8,
}

/// How many packets may leave.
#[derive(Clone, Copy)]
pub(super) struct Room {
    /// All flows of the run together.
    pub(super) packets: u64,
    /// In one send.
    pub(super) segments: u64,
    /// The flow's part of what may be in flight without an acknowledgement under way.
    pub(super) share: u64,
    /// Bursts of the flow that follow in the same turn.
    pub(super) bursts: u32,
}

/// What an input did to a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moved {
    /// Packets that left the path.
    pub(super) freed: u64,
    /// The flow must be put into the ready queue.
    pub(super) enqueue: bool,
}

impl DownFlow {
    /// Creates the flow that `start` and the flags of its header ask for.
    pub(super) fn new(id: FlowId, start: Start, flags: u8, now_ns: u64) -> Self {
        let paced = || SendFlow::paced(start.interval_ns, start.burst);
        let run_len = if start.run_len == 0 { u64::MAX } else { u64::from(start.run_len) };
        let long_runs = run_len >= u64::from(BURSTS_PER_TURN * burst_len(start.size));
        let bursts_per_turn = if start.window > 0 && long_runs { BURSTS_PER_TURN } else { 1 };
        let closed = || match bursts_per_turn {
            1 => SendFlow::closed(start.window),
            bursts => SendFlow::closed(start.window).asking_every(bursts * burst_len(start.size)),
        };
        Self {
            flow: if start.window > 0 { closed() } else { paced() },
            size: start.size,
            run_len,
            bursts_per_turn,
            traffic_class: if flags & FLAG_EF != 0 { TRAFFIC_CLASS_EF } else { 0 },
            cuts: 0,
            interval_ns: start.interval_ns,
            granted_ns: now_ns,
            phase_ns: phase_ns(id.ue, &start),
            heard_ns: now_ns,
            moved_ns: now_ns,
            state: State::Armed,
            queued: false,
        }
    }

    /// Notes what the UE has received, and how often it has cut its connection.
    pub(super) fn on_ack(&mut self, now_ns: u64, next_seq: u64, cuts: u16) -> Moved {
        if self.state == State::Armed {
            self.state = State::Running;
            self.granted_ns = now_ns + self.phase_ns;
        }
        self.heard_ns = now_ns;
        let mut freed = self.flow.on_ack(next_seq);
        // What the old connection still brings may come after the first octets of the new one.
        if cuts.wrapping_sub(self.cuts).cast_signed() > 0 {
            self.cuts = cuts;
            freed += self.flow.cut();
        }
        if freed > 0 {
            self.moved_ns = now_ns;
        }
        Moved { freed, enqueue: self.enqueue() }
    }

    /// Grants and stalls.
    pub(super) fn tick(&mut self, now_ns: u64) -> Moved {
        // A queued flow is granted what is due later, but may wait for an acknowledgement that got lost.
        if self.state != State::Running || (self.queued && !self.flow.is_closed_loop()) {
            return Moved::default();
        }
        if now_ns.saturating_sub(self.heard_ns) > SILENCE_NS {
            return Moved { freed: self.stop(), enqueue: false };
        }
        let mut freed = 0;
        if !self.flow.is_closed_loop() {
            let due = now_ns.saturating_sub(self.granted_ns) / self.interval_ns.max(1);
            self.granted_ns += due * self.interval_ns;
            self.flow.grant(due);
        } else if self.flow.in_flight() > 0 && now_ns.saturating_sub(self.moved_ns) > STALL_NS {
            self.moved_ns = now_ns;
            freed = self.flow.forget();
        }
        Moved { freed, enqueue: self.enqueue() }
    }

    /// Fills `burst` with as many packets as may leave.
    pub(super) fn burst(
        &mut self,
        id: FlowId,
        now_ns: u64,
        peer: SocketAddr,
        pattern: &Pattern,
        room: Room,
        burst: &mut Burst,
    ) {
        burst.octets.clear();
        burst.lens.clear();
        burst.traffic_class = self.traffic_class;
        if self.state != State::Running {
            return;
        }
        let ip_overhead = if peer.is_ipv4() { 28 } else { 48 };
        let fit = u64::from(burst_len(self.size));
        let packets = self.flow.allowance().min(room.packets).min(room.segments).min(self.run_len).min(fit);
        // Where a turn is several bursts, its last packet asks for an acknowledgement, whatever the flow's share.
        let (in_turns, ends_turn) = (self.bursts_per_turn > 1, room.bursts == 0);
        let share = if in_turns { u64::MAX } else { room.share };
        for left in (0..packets).rev() {
            let seq = self.flow.take();
            let ask = left == 0 && self.flow.ask(packets == room.packets || (in_turns && ends_turn), share);
            let flags = FLAG_DOWNLINK | if ask { FLAG_ACK_NOW } else { 0 };
            let header = ProbeHeader {
                kind: ProbeKind::Data,
                flags,
                mark: self.flow.mark(seq),
                ue: id.ue,
                run: id.run,
                seq,
                sent_ns: now_ns,
            };
            let len = self.size.len(seq) - ip_overhead;
            let at = burst.octets.len();
            burst.octets.resize(at + PROBE_HEADER_LEN, 0);
            header.encode(&mut burst.octets[at..]);
            burst.octets.extend_from_slice(pattern.stretch(seq, len - PROBE_HEADER_LEN));
            burst.lens.push(len);
        }
        if self.flow.in_flight() == packets {
            self.moved_ns = now_ns;
        }
    }

    /// Takes back the last packets of a burst, which the socket refused.
    pub(super) fn unsend(&mut self, packets: u64) {
        self.flow.untake(packets);
    }

    /// Called after leaving the ready queue; returns whether to go back in.
    pub(super) fn requeue(&mut self) -> bool {
        self.queued = false;
        self.enqueue()
    }

    /// Sends nothing more; returns the packets that are no longer waited for.
    pub(super) fn stop(&mut self) -> u64 {
        self.state = State::Stopped;
        self.flow.forget()
    }

    pub(super) fn sent(&self) -> u64 {
        self.flow.sent()
    }

    /// Returns whether all packets have one length, so that a burst can leave as one segmented datagram.
    pub(super) fn is_uniform(&self) -> bool {
        self.size.is_uniform()
    }

    /// Returns whether the flow sends at a pace now.
    pub(super) fn is_paced(&self) -> bool {
        self.state == State::Running && !self.flow.is_closed_loop()
    }

    /// Returns how many bursts in a row the flow may send; what asks for short runs or a pace has one.
    pub(super) fn bursts_per_turn(&self) -> u32 {
        self.bursts_per_turn
    }

    /// Returns whether packets in flight are counted.
    pub(super) fn is_closed_loop(&self) -> bool {
        self.flow.is_closed_loop()
    }

    fn enqueue(&mut self) -> bool {
        let enter = !self.queued && self.state == State::Running && self.flow.allowance() > 0;
        self.queued |= enter;
        enter
    }
}

/// Returns a part of the time between two bursts, spread by a multiplicative hash (Knuth) of the UE's index.
fn phase_ns(ue: u32, start: &Start) -> u64 {
    let part = u64::from(ue.wrapping_mul(2_654_435_761) >> 22);
    start.interval_ns.saturating_mul(u64::from(start.burst)).saturating_mul(part) >> 10
}
