//! The sink's flows and runs: who sends, what arrived, what has to be answered.

use super::downlink::{Burst, DownFlow, Room};
use super::pacing::InFlight;
use super::protocol::{Report, Start, Started};
use super::socket::{Sent, SinkSocket};
use crate::error::Failure;
use crate::host::clock;
use crate::probe::{
    Arrival, Checker, FLAG_ACK_NOW, FLAG_DOWNLINK, HeaderError, PROBE_HEADER_LEN, Pattern, ProbeHeader,
    ProbeKind,
};
use crate::report::Latencies;
use ahash::AHashMap;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// Most flows at once; a flow costs about 1 KiB.
const FLOWS_MAX: usize = 1_000_000;
/// Most runs at once; a run's latency histogram costs about 250 KiB.
const RUNS_MAX: usize = 16;
/// Replies waiting for the socket; the asker repeats what is dropped here.
const REPLIES_MAX: usize = 65_536;
/// How long acknowledgements of the uplink gather. Each that leaves alone interrupts a core of the gateway, which would
/// be measured as the gateway's work; together they do so once.
const ACK_DELAY_NS: u64 = 200_000;

/// One UE in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FlowId {
    pub(super) run: u32,
    pub(super) ue: u32,
}

/// State of one UE at the sink.
struct Flow {
    peer: SocketAddr,
    up: Checker,
    /// The latest packet that asked for an acknowledgement, and the train it came in.
    asked: Option<(ProbeHeader, u16)>,
    down: Option<DownFlow>,
}

/// What all flows of one run share.
struct Run {
    latencies: Latencies,
    first_ns: u64,
    last_ns: u64,
    /// Downlink packets in flight of all closed-loop flows.
    in_flight: InFlight,
}

/// All flows, the replies that wait and the downlink flows that may send.
pub(super) struct Flows {
    flows: AHashMap<FlowId, Flow>,
    runs: AHashMap<u32, Run>,
    replies: VecDeque<(SocketAddr, ProbeHeader, Vec<u8>)>,
    /// Flows that have been asked for an acknowledgement, and when the first of them was.
    unacked: Vec<FlowId>,
    unacked_since_ns: u64,
    /// Downlink flows with something to send; each is in here at most once.
    ready: VecDeque<FlowId>,
    pattern: Pattern,
    clock_id: u64,
    corrupt_headers: u64,
    packets: u64,
    burst: Burst,
}

impl Flows {
    pub(super) fn new() -> Self {
        Self {
            flows: AHashMap::new(),
            runs: AHashMap::new(),
            replies: VecDeque::new(),
            unacked: Vec::new(),
            unacked_since_ns: 0,
            ready: VecDeque::new(),
            pattern: Pattern::new(),
            clock_id: clock::clock_id(),
            corrupt_headers: 0,
            packets: 0,
            burst: Burst::default(),
        }
    }

    /// Returns the data packets received so far.
    pub(super) fn packets(&self) -> u64 {
        self.packets
    }

    /// Returns whether something waits to be sent.
    pub(super) fn has_work(&self) -> bool {
        !self.replies.is_empty() || !self.ready.is_empty()
    }

    /// Takes one datagram, one of `train` that came together.
    pub(super) fn on_payload(&mut self, now_ns: u64, peer: SocketAddr, payload: &[u8], train: u16) {
        let (header, body) = match ProbeHeader::decode(payload) {
            Ok(decoded) => decoded,
            Err(HeaderError::Corrupt) => {
                self.corrupt_headers += 1;
                return;
            }
            Err(HeaderError::Foreign) => return,
        };
        match header.kind {
            ProbeKind::Data => self.on_data(now_ns, &header, body, peer, train),
            ProbeKind::Ack => self.on_ack(now_ns, &header),
            ProbeKind::Start => self.on_start(now_ns, peer, &header, body),
            ProbeKind::Stop => self.on_stop(&header),
            ProbeKind::Started | ProbeKind::Report => {}
        }
    }

    fn on_data(&mut self, now_ns: u64, header: &ProbeHeader, body: &[u8], peer: SocketAddr, train: u16) {
        let id = FlowId { run: header.run, ue: header.ue };
        let (Some(flow), Some(run)) = (self.flows.get_mut(&id), self.runs.get_mut(&id.run)) else { return };
        self.packets += 1;
        if !self.pattern.matches(header.seq, body) {
            flow.up.on_corrupt();
            return;
        }
        let ip_overhead = if peer.is_ipv4() { 28 } else { 48 };
        let len = ip_overhead + PROBE_HEADER_LEN + body.len();
        if flow.up.on_packet(header.seq, header.mark, len) != Arrival::Duplicate {
            run.latencies.record(now_ns.saturating_sub(header.sent_ns));
            if run.first_ns == 0 {
                run.first_ns = now_ns;
            }
            run.last_ns = now_ns;
        }
        if header.flags & FLAG_ACK_NOW != 0 && flow.asked.replace((*header, train)).is_none() {
            if self.unacked.is_empty() {
                self.unacked_since_ns = now_ns;
            }
            self.unacked.push(id);
        }
    }

    /// Queues the acknowledgements that have gathered long enough; returns when the others will have, if there are any.
    pub(super) fn acknowledge(&mut self, now_ns: u64) -> Option<u64> {
        if self.unacked.is_empty() {
            return None;
        }
        let due_ns = self.unacked_since_ns + ACK_DELAY_NS;
        if now_ns < due_ns {
            return Some(due_ns - now_ns);
        }
        let mut unacked = std::mem::take(&mut self.unacked);
        for id in unacked.drain(..) {
            let Some(flow) = self.flows.get_mut(&id) else { continue };
            let Some((header, train)) = flow.asked.take() else { continue };
            let seq = flow.up.next_seq();
            let (answer, to) =
                (ProbeHeader { kind: ProbeKind::Ack, flags: 0, mark: train, seq, ..header }, flow.peer);
            self.reply(to, answer, Vec::new());
        }
        self.unacked = unacked;
        None
    }

    fn on_ack(&mut self, now_ns: u64, header: &ProbeHeader) {
        let id = FlowId { run: header.run, ue: header.ue };
        let (Some(flow), Some(run)) = (self.flows.get_mut(&id), self.runs.get_mut(&id.run)) else { return };
        let Some(down) = &mut flow.down else { return };
        let moved = down.on_ack(now_ns, header.seq, header.mark);
        run.in_flight.on_ack(now_ns, moved.freed, header.sent_ns);
        if moved.enqueue {
            self.ready.push_back(id);
        }
    }

    fn on_start(&mut self, now_ns: u64, peer: SocketAddr, header: &ProbeHeader, body: &[u8]) {
        let id = FlowId { run: header.run, ue: header.ue };
        let Some(start) = Start::decode(body) else { return };
        if !self.flows.contains_key(&id) && !self.make_room(header.run) {
            return;
        }
        let run = self.runs.entry(id.run).or_insert_with(|| Run {
            latencies: Latencies::new(),
            first_ns: 0,
            last_ns: 0,
            in_flight: InFlight::new(u64::from(start.window_total)),
        });
        let flow = self.flows.entry(id).or_insert_with(|| Flow {
            peer,
            up: Checker::new(),
            asked: None,
            down: None,
        });
        flow.peer = peer;
        if header.flags & FLAG_DOWNLINK != 0 && flow.down.is_none() {
            flow.down = Some(DownFlow::new(id, start, header.flags, now_ns));
            run.in_flight.add_flow();
        }
        let answer = ProbeHeader { kind: ProbeKind::Started, ..*header };
        let body = Started { clock_id: self.clock_id }.encode();
        self.reply(peer, answer, body);
    }

    fn on_stop(&mut self, header: &ProbeHeader) {
        let id = FlowId { run: header.run, ue: header.ue };
        let (Some(flow), Some(run)) = (self.flows.get_mut(&id), self.runs.get_mut(&id.run)) else { return };
        if header.flags & FLAG_DOWNLINK != 0 {
            run.in_flight.release(flow.down.as_mut().map_or(0, DownFlow::stop));
        }
        let report = Report {
            sent: flow.down.as_ref().map_or(0, DownFlow::sent),
            tally: *flow.up.tally(),
            corrupt_headers: self.corrupt_headers,
            first_ns: run.first_ns,
            last_ns: run.last_ns,
            latency: run.latencies.summary(),
        };
        let peer = flow.peer;
        self.reply(peer, ProbeHeader { kind: ProbeKind::Report, ..*header }, report.encode());
    }

    /// Forgets the runs before `run` when there are too many; returns whether a flow may be added.
    fn make_room(&mut self, run: u32) -> bool {
        if !self.runs.contains_key(&run) && self.runs.len() >= RUNS_MAX {
            let oldest = self.runs.iter().min_by_key(|(_, known)| known.last_ns).map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                self.runs.remove(&oldest);
                self.flows.retain(|id, _| id.run != oldest);
            }
        }
        self.flows.len() < FLOWS_MAX
    }

    fn reply(&mut self, peer: SocketAddr, header: ProbeHeader, body: Vec<u8>) {
        if self.replies.len() < REPLIES_MAX {
            self.replies.push_back((peer, header, body));
        }
    }

    /// Sends what has to be answered; returns whether the socket is full.
    pub(super) fn send_replies(&mut self, socket: &SinkSocket) -> Result<bool, Failure> {
        let mut octets = [0; PROBE_HEADER_LEN + super::protocol::BODY_LEN_MAX];
        while let Some((peer, header, body)) = self.replies.front() {
            header.encode(&mut octets);
            let len = PROBE_HEADER_LEN + body.len();
            octets[PROBE_HEADER_LEN..len].copy_from_slice(body);
            if socket.send(*peer, &octets[..len], len, 0)? == Sent::Blocked {
                return Ok(true);
            }
            self.replies.pop_front();
        }
        Ok(false)
    }

    /// Lets every ready downlink flow have its turn; returns whether the rest has to wait, for the socket or for
    /// acknowledgements.
    pub(super) fn pump(&mut self, now_ns: u64, socket: &SinkSocket) -> Result<bool, Failure> {
        for _ in 0..self.ready.len() {
            let Some(id) = self.ready.front().copied() else { break };
            if !self.turn(id, now_ns, socket)? {
                return Ok(true);
            }
            self.ready.pop_front();
            let down = self.flows.get_mut(&id).and_then(|flow| flow.down.as_mut());
            if down.is_some_and(DownFlow::requeue) {
                self.ready.push_back(id);
            }
        }
        Ok(false)
    }

    /// Lets a flow send its bursts; returns false when it has to wait, for the socket or for room.
    fn turn(&mut self, id: FlowId, now_ns: u64, socket: &SinkSocket) -> Result<bool, Failure> {
        let (Some(flow), Some(run)) = (self.flows.get_mut(&id), self.runs.get_mut(&id.run)) else {
            return Ok(true);
        };
        let Some(down) = &mut flow.down else { return Ok(true) };
        for bursts in (0..down.bursts_per_turn()).rev() {
            let packets = run.in_flight.room();
            if packets == 0 {
                return Ok(false);
            }
            let share = run.in_flight.share();
            let room = Room { packets, segments: socket.segments_max(), share, bursts };
            down.burst(id, now_ns, flow.peer, &self.pattern, room, &mut self.burst);
            let packets = self.burst.lens.len() as u64;
            let sent = send_burst(socket, flow.peer, &self.burst, down.is_uniform())?;
            down.unsend(packets - sent);
            if down.is_closed_loop() {
                run.in_flight.occupy(sent);
            }
            if sent < packets {
                return Ok(false);
            }
            if packets == 0 {
                break;
            }
        }
        Ok(true)
    }

    /// Grants paced flows what is due and wakes flows whose acknowledgement got lost; returns how many paced flows run.
    pub(super) fn tick(&mut self, now_ns: u64) -> u32 {
        let mut paced = 0;
        for (id, flow) in &mut self.flows {
            let (Some(down), Some(run)) = (&mut flow.down, self.runs.get_mut(&id.run)) else { continue };
            let moved = down.tick(now_ns);
            run.in_flight.release(moved.freed);
            if moved.enqueue {
                self.ready.push_back(*id);
            }
            paced += u32::from(down.is_paced());
        }
        paced
    }
}

/// Sends a burst, in one call where all its packets have one length; returns how many packets left.
fn send_burst(socket: &SinkSocket, peer: SocketAddr, burst: &Burst, uniform: bool) -> Result<u64, Failure> {
    let Some(first) = burst.lens.first() else { return Ok(0) };
    if uniform {
        let sent = socket.send(peer, &burst.octets, *first, burst.traffic_class)?;
        return Ok(if sent == Sent::Done { burst.lens.len() as u64 } else { 0 });
    }
    let mut rest = &burst.octets[..];
    for (sent, len) in (0..).zip(&burst.lens) {
        let (packet, behind) = rest.split_at(*len);
        if socket.send(peer, packet, *len, burst.traffic_class)? == Sent::Blocked {
            return Ok(sent);
        }
        rest = behind;
    }
    Ok(burst.lens.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{MARK_NONE, SizePlan};

    fn start(flows: &mut Flows, peer: SocketAddr, flags: u8) {
        let header =
            ProbeHeader { kind: ProbeKind::Start, flags, mark: 0, ue: 1, run: 2, seq: 0, sent_ns: 0 };
        let mut octets = vec![0; PROBE_HEADER_LEN];
        header.encode(&mut octets);
        octets.extend(
            Start {
                size: SizePlan::Fixed(1400),
                window: 8,
                interval_ns: 0,
                window_total: 0,
                run_len: 0,
                burst: 1,
            }
            .encode(),
        );
        flows.on_payload(1, peer, &octets, 1);
    }

    fn data(flows: &mut Flows, peer: SocketAddr, seq: u64, flags: u8, damage: bool) {
        let header =
            ProbeHeader { kind: ProbeKind::Data, flags, mark: MARK_NONE, ue: 1, run: 2, seq, sent_ns: 10 };
        let mut octets = vec![0; PROBE_HEADER_LEN + 100];
        header.encode(&mut octets);
        octets[PROBE_HEADER_LEN..].copy_from_slice(flows.pattern.stretch(seq, 100));
        if damage {
            octets[PROBE_HEADER_LEN + 50] ^= 1;
        }
        flows.on_payload(20, peer, &octets, 1);
    }

    fn stop_report(flows: &mut Flows, peer: SocketAddr, flags: u8) -> Report {
        flows.replies.clear();
        let header = ProbeHeader { kind: ProbeKind::Stop, flags, mark: 0, ue: 1, run: 2, seq: 0, sent_ns: 0 };
        let mut octets = vec![0; PROBE_HEADER_LEN];
        header.encode(&mut octets);
        flows.on_payload(30, peer, &octets, 1);
        Report::decode(&flows.replies.pop_front().unwrap().2).unwrap()
    }

    #[test]
    fn report_counts_reorder_duplicate_and_corruption_apart() {
        let peer = "10.64.0.1:9".parse().unwrap();
        let mut flows = Flows::new();
        start(&mut flows, peer, 0);
        for (seq, damage) in [(0, false), (2, false), (1, false), (1, false), (3, true), (9, false)] {
            data(&mut flows, peer, seq, 0, damage);
        }
        let report = stop_report(&mut flows, peer, 0);
        let tally = report.tally;
        assert_eq!((tally.received, tally.reordered, tally.duplicated, tally.corrupted), (4, 1, 1, 1));
        assert_eq!(tally.bytes, 4 * (28 + 36 + 100));
        assert_eq!(report.latency.count, 4);
    }

    #[test]
    fn uplink_is_acknowledged_when_it_asks() {
        let peer = "10.64.0.1:9".parse().unwrap();
        let mut flows = Flows::new();
        start(&mut flows, peer, 0);
        flows.replies.clear();
        for (seq, flags) in [(0, 0), (1, FLAG_ACK_NOW), (2, 0)] {
            data(&mut flows, peer, seq, flags, false);
        }
        assert_eq!(flows.acknowledge(20), Some(ACK_DELAY_NS));
        assert!(flows.replies.is_empty(), "acknowledgements gather");
        data(&mut flows, peer, 3, FLAG_ACK_NOW, false);
        assert_eq!(flows.acknowledge(20 + ACK_DELAY_NS), None);
        let acks: Vec<u64> = flows.replies.iter().map(|(_, header, _)| header.seq).collect();
        assert_eq!(acks, [4], "one for all that has arrived");
    }

    #[test]
    fn downlink_waits_for_the_first_credit() {
        let peer = "10.64.0.1:9".parse().unwrap();
        let mut flows = Flows::new();
        start(&mut flows, peer, FLAG_DOWNLINK);
        flows.tick(1);
        assert!(flows.ready.is_empty());
        let go = ProbeHeader {
            kind: ProbeKind::Ack,
            flags: FLAG_DOWNLINK,
            mark: 0,
            ue: 1,
            run: 2,
            seq: 0,
            sent_ns: 0,
        };
        let mut octets = vec![0; PROBE_HEADER_LEN];
        go.encode(&mut octets);
        flows.on_payload(2, peer, &octets, 1);
        flows.on_payload(3, peer, &octets, 1);
        assert_eq!(flows.ready.len(), 1, "queued once however often it is told to go");
    }

    /// Opens a closed loop of `ues` UEs as `start` says, lets them send what they may without an acknowledgement, and returns
    /// whose each packet is and whether it asks for one.
    fn pumped(ues: u32, start: Start) -> Vec<(u32, bool)> {
        let socket = SinkSocket::bind("127.0.0.1:0".parse().unwrap(), true).unwrap();
        let mut receiver = SinkSocket::bind("127.0.0.1:0".parse().unwrap(), true).unwrap();
        let (peer, mut flows) = (receiver.local_addr(), Flows::new());
        for ue in 0..ues {
            for (kind, body) in [(ProbeKind::Start, start.encode()), (ProbeKind::Ack, Vec::new())] {
                let flags = FLAG_DOWNLINK;
                let header = ProbeHeader { kind, flags, mark: 0, ue, run: 2, seq: 0, sent_ns: 0 };
                let mut octets = vec![0; PROBE_HEADER_LEN];
                header.encode(&mut octets);
                octets.extend(body);
                flows.on_payload(1, peer, &octets, 1);
            }
        }
        flows.replies.clear();
        while !flows.pump(2, &socket).unwrap() && flows.has_work() {}
        let mut pumped = Vec::new();
        for _ in 0..20 {
            let each = |_, payload: &[u8], _| {
                let (header, _) = ProbeHeader::decode(payload).unwrap();
                pumped.push((header.ue, header.flags & FLAG_ACK_NOW != 0));
            };
            receiver.receive(each).unwrap();
            receiver.wait(std::time::Duration::from_millis(2)).unwrap();
        }
        pumped
    }

    #[test]
    fn where_all_flows_together_have_few_packets_each_is_asked_for() {
        let (size, window, window_total) = (SizePlan::Voice, 32, 64);
        let start = Start { size, window, interval_ns: 0, window_total, run_len: 1, burst: 1 };
        let each: Vec<_> = (0..64).map(|ue| (ue, true)).collect();
        assert_eq!(pumped(64, start), each, "one packet each, and nobody waits for ever");
        let few = pumped(4, start);
        assert_eq!(few.iter().filter(|(_, asked)| *asked).count(), 8, "a quarter of a window");
    }

    #[test]
    fn a_turn_is_several_bursts_and_its_last_packet_asks() {
        let size = SizePlan::Fixed(1400);
        let start =
            |window| Start { size, window, interval_ns: 0, window_total: 0, run_len: u32::MAX, burst: 1 };
        let turn = |ue| (1..=138).map(move |at| (ue, at == 138));
        let turns: Vec<_> = [0, 1, 0, 1].into_iter().flat_map(turn).collect();
        assert!(pumped(2, start(276)) == turns, "138 packets of one UE, then of the other, twice");
        // Half a window is asked for all the same.
        let turn = |ue| (1..=138).map(move |at| (ue, at == 92 || at == 138));
        let turns: Vec<_> = [0, 1].into_iter().flat_map(turn).collect();
        assert!(pumped(2, start(138)) == turns);
    }

    #[test]
    fn packets_of_unknown_flows_are_ignored() {
        let mut flows = Flows::new();
        data(&mut flows, "10.64.0.1:9".parse().unwrap(), 0, 0, false);
        assert_eq!(flows.packets(), 0);
        assert!(!flows.has_work());
    }
}
