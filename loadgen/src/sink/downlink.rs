//! What the sink sends to one UE.

use super::flows::FlowId;
use super::protocol::Start;
use crate::probe::{
    FLAG_ACK_NOW, FLAG_DOWNLINK, PROBE_HEADER_LEN, Pattern, ProbeHeader, ProbeKind, SendFlow, SizePlan,
};
use std::net::SocketAddr;

/// Packets of one burst; the kernel segments at most 64 packets and 65,507 octets.
const BURST_PACKETS_MAX: u64 = 44;
/// A window without an acknowledgement for so long has lost one.
const STALL_NS: u64 = 500_000_000;
/// A UE that says nothing for so long is gone; the sink stops sending to it.
const SILENCE_NS: u64 = 5_000_000_000;

/// The downlink half of a flow.
pub(super) struct DownFlow {
    flow: SendFlow,
    size: SizePlan,
    interval_ns: u64,
    /// When the paced flow was last granted packets.
    granted_ns: u64,
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

/// Packets of one UE, back to back.
#[derive(Default)]
pub(super) struct Burst {
    /// UDP payloads.
    pub(super) octets: Vec<u8>,
    /// Their lengths.
    pub(super) lens: Vec<usize>,
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
    pub(super) fn new(start: Start, now_ns: u64) -> Self {
        let flow = if start.window > 0 { SendFlow::closed(start.window) } else { SendFlow::paced() };
        Self {
            flow,
            size: start.size,
            interval_ns: start.interval_ns,
            granted_ns: now_ns,
            heard_ns: now_ns,
            moved_ns: now_ns,
            state: State::Armed,
            queued: false,
        }
    }

    /// Notes what the UE has received.
    pub(super) fn on_ack(&mut self, now_ns: u64, next_seq: u64) -> Moved {
        if self.state == State::Armed {
            self.state = State::Running;
            self.granted_ns = now_ns;
        }
        self.heard_ns = now_ns;
        let freed = self.flow.on_ack(next_seq);
        if freed > 0 {
            self.moved_ns = now_ns;
        }
        Moved { freed, enqueue: self.enqueue() }
    }

    /// Grants and stalls.
    pub(super) fn tick(&mut self, now_ns: u64) -> Moved {
        if self.state != State::Running || self.queued {
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

    /// Fills `burst` with at most `most` packets; the last one asks for an acknowledgement.
    pub(super) fn burst(
        &mut self,
        id: FlowId,
        now_ns: u64,
        peer: SocketAddr,
        pattern: &Pattern,
        most: u64,
        burst: &mut Burst,
    ) {
        burst.octets.clear();
        burst.lens.clear();
        if self.state != State::Running {
            return;
        }
        let ip_overhead = if peer.is_ipv4() { 28 } else { 48 };
        let packets = self.flow.allowance().min(most).min(BURST_PACKETS_MAX);
        for left in (0..packets).rev() {
            let seq = self.flow.take();
            let flags = FLAG_DOWNLINK | if left == 0 { FLAG_ACK_NOW } else { 0 };
            let header =
                ProbeHeader { kind: ProbeKind::Data, flags, ue: id.ue, run: id.run, seq, sent_ns: now_ns };
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
