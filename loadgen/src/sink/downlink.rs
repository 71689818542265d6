//! What the sink sends to one UE.

use super::flows::FlowId;
use super::protocol::Start;
use crate::probe::{
    FLAG_ACK_NOW, FLAG_DOWNLINK, PROBE_HEADER_LEN, Pattern, ProbeHeader, ProbeKind, SendFlow, SizePlan,
};
use std::net::SocketAddr;

/// Segments of one burst; the kernel takes at most 64 and 65,507 octets.
const BURST_PACKETS_MAX: u64 = 44;
/// A window without an acknowledgement for so long has lost one.
const STALL_NS: u64 = 100_000_000;
/// A UE that says nothing for so long is gone; the sink stops sending to it.
const SILENCE_NS: u64 = 5_000_000_000;

/// The downlink half of a flow.
pub(super) struct DownFlow {
    flow: SendFlow,
    size: SizePlan,
    interval_ns: u64,
    /// When the paced flow was last granted packets.
    granted_ns: u64,
    heard_ns: u64,
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

/// What [`DownFlow::burst`] put into the scratch buffer.
pub(super) struct Burst {
    /// UDP payload octets of one packet; 0 when there is nothing to send.
    pub(super) segment_len: usize,
    pub(super) packets: u64,
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
            state: State::Armed,
            queued: false,
        }
    }

    /// Notes what the UE has received; returns whether the flow must be put into the ready queue.
    pub(super) fn on_ack(&mut self, now_ns: u64, next_seq: u64) -> bool {
        if self.state == State::Armed {
            self.state = State::Running;
            self.granted_ns = now_ns;
        }
        self.heard_ns = now_ns;
        self.flow.on_ack(next_seq);
        self.enqueue()
    }

    /// Grants and stalls; returns whether the flow must be put into the ready queue.
    pub(super) fn tick(&mut self, now_ns: u64) -> bool {
        if self.state != State::Running || self.queued {
            return false;
        }
        let silent_ns = now_ns.saturating_sub(self.heard_ns);
        if silent_ns > SILENCE_NS {
            self.state = State::Stopped;
            return false;
        }
        if !self.flow.is_closed_loop() {
            let due = now_ns.saturating_sub(self.granted_ns) / self.interval_ns.max(1);
            self.granted_ns += due * self.interval_ns;
            self.flow.grant(due);
        } else if silent_ns > STALL_NS && self.flow.allowance() == 0 {
            self.heard_ns += STALL_NS;
            self.flow.on_stall();
        }
        self.enqueue()
    }

    /// Fills `out` with the next packets of equal length.
    pub(super) fn burst(
        &mut self,
        id: FlowId,
        now_ns: u64,
        peer: SocketAddr,
        pattern: &Pattern,
        many: bool,
        out: &mut Vec<u8>,
    ) -> Burst {
        out.clear();
        let ip_overhead = if peer.is_ipv4() { 28 } else { 48 };
        let segment_len = self.size.len(self.flow.sent()) - ip_overhead;
        let most = if many && self.size.is_uniform() { BURST_PACKETS_MAX } else { 1 };
        let packets = if self.state == State::Running { self.flow.allowance().min(most) } else { 0 };
        for _ in 0..packets {
            let (seq, ack_now) = self.flow.take();
            let flags = FLAG_DOWNLINK | if ack_now { FLAG_ACK_NOW } else { 0 };
            let header =
                ProbeHeader { kind: ProbeKind::Data, flags, ue: id.ue, run: id.run, seq, sent_ns: now_ns };
            let at = out.len();
            out.resize(at + PROBE_HEADER_LEN, 0);
            header.encode(&mut out[at..]);
            out.extend_from_slice(pattern.stretch(seq, segment_len - PROBE_HEADER_LEN));
        }
        Burst { segment_len: if packets > 0 { segment_len } else { 0 }, packets }
    }

    /// Takes back the packets of a burst that the socket refused.
    pub(super) fn unsend(&mut self, packets: u64) {
        self.flow.untake(packets);
    }

    /// Called after leaving the ready queue; returns whether to go back in.
    pub(super) fn requeue(&mut self) -> bool {
        self.queued = false;
        self.enqueue()
    }

    pub(super) fn stop(&mut self) {
        self.state = State::Stopped;
    }

    pub(super) fn sent(&self) -> u64 {
        self.flow.sent()
    }

    fn enqueue(&mut self) -> bool {
        let enter = !self.queued && self.state == State::Running && self.flow.allowance() > 0;
        self.queued |= enter;
        enter
    }
}
