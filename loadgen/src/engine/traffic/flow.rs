//! One UE's traffic: what it sends uplink, what it checks downlink.

use super::Pace;
use super::shared::{Class, Shared};
use crate::engine::{Cut, Inner, Sealer, Ue};
use crate::host::clock;
use crate::probe::{
    Arrival, Checker, FLAG_ACK_NOW, FLAG_DOWNLINK, FLAG_EF, HeaderError, PacketBuilder, ProbeHeader,
    ProbeKind, SendFlow, UdpView, parse_udp,
};
use crate::report::Account;
use crate::sink::protocol::{Report, Start, Started};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};

/// A full window without an acknowledgement for so long has lost one.
const STALL_NS: u64 = 500_000_000;
/// The sink hears from a UE at least so often while it sends to it.
const HEARTBEAT_NS: u64 = 1_000_000_000;
/// How often a UE that has cut its connection says so, until the sink has taken note.
const CUT_REPEAT_NS: u64 = 20_000_000;
/// Longest inner packet.
const PACKET_LEN_MAX: usize = 1_500;
/// Packets after which an uplink flow asks for an acknowledgement: about as many as a write carries. Each answer crosses the
/// gateway as a packet of its own, which a transfer over TCP with such windows would not ask of it more often.
const ASK_EVERY: u32 = 192;
/// Packets of a flow that has no far end: only the connection holds it back.
const UNBOUNDED_WINDOW: u32 = u32::MAX;

/// The flow of a UE in both directions.
pub(super) struct UeFlow {
    ue: u32,
    handle: Weak<Ue>,
    shared: Rc<Shared>,
    builder: PacketBuilder,
    control: VecDeque<(ProbeHeader, Vec<u8>)>,
    up: Option<Uplink>,
    down: Option<Downlink>,
}

struct Uplink {
    flow: SendFlow,
    bytes: u64,
    running: bool,
    open: bool,
    /// In the queue for room.
    waiting: bool,
    /// When the window last moved, and when the pacer last granted packets.
    moved_ns: u64,
    granted_ns: u64,
    report: Option<Report>,
}

struct Downlink {
    checker: Checker,
    /// Connections cut so far, modulo 2^16.
    cuts: u16,
    /// When the packet was sent that asked for the next acknowledgement, by the sink's clock; 0 when none did.
    asked_ns: u64,
    ack_due: bool,
    running: bool,
    open: bool,
    acked_ns: u64,
    report: Option<Report>,
}

impl Uplink {
    /// A UE in the queue for room has nothing to do until there is some.
    fn has_output(&self, shared: &Shared) -> bool {
        self.running && self.flow.allowance() > 0 && (!self.waiting || shared.room() > 0)
    }
}

impl Downlink {
    fn new() -> Self {
        Self {
            checker: Checker::new(),
            cuts: 0,
            asked_ns: 0,
            ack_due: false,
            running: false,
            open: false,
            acked_ns: 0,
            report: None,
        }
    }

    fn add_to(&self, account: &mut Account) {
        let tally = self.checker.tally();
        match self.report {
            Some(report) => account.add(report.sent, tally),
            // What has arrived has been sent, and what came before it.
            None => account.add_unreported(self.checker.next_seq(), tally),
        }
    }
}

impl UeFlow {
    /// Creates the flow of UE `ue` at inner address `address`; `None` when the far end is of another family.
    pub(super) fn new(ue: &Rc<Ue>, address: IpAddr, shared: Rc<Shared>) -> Option<Self> {
        let builder = PacketBuilder::new(SocketAddr::new(address, shared.class.port()), shared.far)?
            .with_traffic_class(shared.class.traffic_class());
        let up = shared.up.then(|| Uplink {
            flow: match shared.pace {
                Pace::PacketsPerSecond(rate) => SendFlow::paced((1e9 / rate) as u64, shared.burst),
                Pace::Window { .. } if !shared.has_sink => SendFlow::closed(UNBOUNDED_WINDOW),
                Pace::Window { up, .. } => SendFlow::closed(up).asking_every(ASK_EVERY),
            },
            bytes: 0,
            running: false,
            open: false,
            waiting: false,
            moved_ns: 0,
            granted_ns: 0,
            report: None,
        });
        if up.is_some() {
            shared.add_uplink();
        }
        let down = shared.down.then(Downlink::new);
        Some(Self {
            ue: ue.index,
            handle: Rc::downgrade(ue),
            shared,
            builder,
            control: VecDeque::new(),
            up,
            down,
        })
    }

    /// Returns what the flow stands for.
    pub(super) fn class(&self) -> Class {
        self.shared.class
    }

    /// Returns whether the sink has opened every direction.
    pub(super) fn is_open(&self) -> bool {
        self.up.as_ref().is_none_or(|up| up.open) && self.down.as_ref().is_none_or(|down| down.open)
    }

    /// Asks the sink to open what is not.
    pub(super) fn ask_open(&mut self) {
        let (window, interval_ns) = match self.shared.pace {
            Pace::Window { down, .. } => (down, 0),
            Pace::PacketsPerSecond(rate) => (0, (1e9 / rate) as u64),
        };
        let window_total = if window > 0 { self.shared.queue } else { 0 };
        let (size, run_len, burst) = (self.shared.size, self.shared.run_len, self.shared.burst);
        let body =
            Start { size, window, interval_ns: interval_ns.max(1), window_total, run_len, burst }.encode();
        let class = if self.shared.class == Class::Voice { FLAG_EF } else { 0 };
        self.control.clear();
        if self.up.as_ref().is_some_and(|up| !up.open) {
            self.control.push_back((self.header(ProbeKind::Start, class), body.clone()));
        }
        if self.down.as_ref().is_some_and(|down| !down.open) {
            self.control.push_back((self.header(ProbeKind::Start, FLAG_DOWNLINK | class), body));
        }
    }

    /// Lets the traffic go; a paced flow begins after `phase`, a part of the time between its bursts.
    pub(super) fn go(&mut self, now_ns: u64, phase: f64) {
        if let Some(up) = &mut self.up {
            up.running = true;
            up.granted_ns = now_ns;
            if let Pace::PacketsPerSecond(rate) = self.shared.pace {
                up.granted_ns += (phase * f64::from(self.shared.burst) * 1e9 / rate) as u64;
            }
        }
        if let Some(down) = &mut self.down {
            down.running = true;
            down.ack_due = true;
            down.acked_ns = now_ns;
        }
    }

    /// Grants a paced uplink what is due, and repairs lost acknowledgements; returns whether there is something to send.
    pub(super) fn tick(&mut self, now_ns: u64) -> bool {
        if let Some(up) = self.up.as_mut().filter(|up| up.running) {
            if let Pace::PacketsPerSecond(rate) = self.shared.pace {
                let interval_ns = (1e9 / rate).max(1.0);
                let due = (now_ns.saturating_sub(up.granted_ns) as f64 / interval_ns) as u64;
                up.granted_ns += (due as f64 * interval_ns) as u64;
                up.flow.grant(due);
            } else if up.flow.in_flight() > 0 && now_ns.saturating_sub(up.moved_ns) > STALL_NS {
                up.moved_ns = now_ns;
                self.shared.release(up.flow.forget());
            }
        }
        if let Some(down) = self.down.as_mut().filter(|down| down.running) {
            let silent_ns = now_ns.saturating_sub(down.acked_ns);
            // Until the first data arrives this repeats the first credit, which may have got lost.
            down.ack_due |= silent_ns > HEARTBEAT_NS || (down.checker.is_cut() && silent_ns > CUT_REPEAT_NS);
        }
        self.has_output()
    }

    /// Takes note that the UE's connection is cut on purpose: what is in flight in it is gone.
    ///
    /// Before a FIN the gateway has everything that was sent, so there is no excuse for the uplink.
    fn on_cut(&mut self, cut: Cut) {
        if let Some(up) = self.up.as_mut().filter(|_| cut == Cut::Reset) {
            let gone = up.flow.cut();
            if up.flow.is_closed_loop() {
                self.shared.release(gone);
            }
        }
        if let Some(down) = &mut self.down {
            down.checker.on_cut();
            down.cuts = down.cuts.wrapping_add(1);
            down.ack_due = true;
        }
    }

    /// Sends no more data, and gives the sink no more credit.
    pub(super) fn halt(&mut self) {
        if let Some(up) = &mut self.up {
            up.running = false;
        }
        if let Some(down) = &mut self.down {
            down.running = false;
        }
    }

    /// Returns whether everything sent has arrived.
    pub(super) fn is_settled(&self) -> bool {
        let up = self
            .up
            .as_ref()
            .is_none_or(|up| up.report.is_some_and(|report| report.tally.accounted() >= up.flow.sent()));
        let down = self.down.as_ref().is_none_or(|down| {
            down.report.is_some_and(|report| down.checker.tally().accounted() >= report.sent)
        });
        up && down
    }

    /// Returns whether the sink has reported at all.
    pub(super) fn is_reported(&self) -> bool {
        self.up.as_ref().is_none_or(|up| up.report.is_some())
            && self.down.as_ref().is_none_or(|down| down.report.is_some())
    }

    /// Asks the sink for a (newer) report.
    pub(super) fn ask_report(&mut self) {
        self.control.clear();
        if self.up.is_some() {
            self.control.push_back((self.header(ProbeKind::Stop, 0), Vec::new()));
        }
        if self.down.is_some() {
            self.control.push_back((self.header(ProbeKind::Stop, FLAG_DOWNLINK), Vec::new()));
        }
    }

    /// Returns packets and inner octets sent uplink.
    pub(super) fn sent_up(&self) -> (u64, u64) {
        self.up.as_ref().map_or((0, 0), |up| (up.flow.sent(), up.bytes))
    }

    /// Returns the sink's latest report on the uplink.
    pub(super) fn uplink_report(&self) -> Option<Report> {
        self.up.as_ref().and_then(|up| up.report)
    }

    /// Adds what became of the downlink to `account`, if the flow has one.
    pub(super) fn add_downlink(&self, account: &mut Account) {
        let Some(down) = &self.down else { return };
        down.add_to(account);
    }

    fn header(&self, kind: ProbeKind, flags: u8) -> ProbeHeader {
        let (ue, run) = (self.ue, self.shared.run);
        ProbeHeader { kind, flags, mark: 0, ue, run, seq: 0, sent_ns: clock::monotonic_ns() }
    }

    fn has_output(&self) -> bool {
        !self.control.is_empty()
            || self.down.as_ref().is_some_and(|down| down.ack_due)
            || self.up.as_ref().is_some_and(|up| up.has_output(&self.shared))
    }

    fn on_packet(&mut self, now_ns: u64, udp: &UdpView<'_>) {
        let (header, body) = match ProbeHeader::decode(udp.payload) {
            Ok(decoded) => decoded,
            Err(HeaderError::Corrupt) => {
                self.shared.corrupt_headers.set(self.shared.corrupt_headers.get() + 1);
                return;
            }
            Err(HeaderError::Foreign) => return,
        };
        // Packets of an earlier run or of another UE are not ours to count.
        if header.run != self.shared.run || header.ue != self.ue {
            return;
        }
        match header.kind {
            ProbeKind::Data => self.on_data(now_ns, &header, body, udp.total_len),
            ProbeKind::Ack => {
                if let Some(up) = &mut self.up {
                    self.shared.note_train(header.mark);
                    let freed = up.flow.on_ack(header.seq);
                    if freed > 0 {
                        up.moved_ns = now_ns;
                        self.shared.release(freed);
                    }
                }
            }
            ProbeKind::Started => self.on_started(&header, body),
            ProbeKind::Report => self.on_report(&header, body),
            ProbeKind::Start | ProbeKind::Stop => {}
        }
    }

    fn on_data(&mut self, now_ns: u64, header: &ProbeHeader, body: &[u8], total_len: usize) {
        let Some(down) = &mut self.down else { return };
        if !self.shared.pattern.matches(header.seq, body) {
            return down.checker.on_corrupt();
        }
        if down.checker.on_packet(header.seq, header.mark, total_len) != Arrival::Duplicate {
            self.shared.latencies.borrow_mut().record(now_ns.saturating_sub(header.sent_ns));
            if self.shared.first_ns.get() == 0 {
                self.shared.first_ns.set(now_ns);
            }
            self.shared.last_ns.set(now_ns);
        }
        if down.running && header.flags & FLAG_ACK_NOW != 0 {
            down.ack_due = true;
            down.asked_ns = header.sent_ns;
        }
    }

    fn on_started(&mut self, header: &ProbeHeader, body: &[u8]) {
        let Some(started) = Started::decode(body) else { return };
        self.shared.sink_clock.set(started.clock_id);
        if header.flags & FLAG_DOWNLINK != 0 {
            if let Some(down) = &mut self.down {
                down.open = true;
            }
        } else if let Some(up) = &mut self.up {
            up.open = true;
        }
    }

    fn on_report(&mut self, header: &ProbeHeader, body: &[u8]) {
        let Some(report) = Report::decode(body) else { return };
        if header.flags & FLAG_DOWNLINK != 0 {
            if let Some(down) = &mut self.down {
                down.report = Some(report);
            }
        } else if let Some(up) = &mut self.up {
            up.report = Some(report);
        }
    }

    /// Seals control messages, an acknowledgement, then data.
    fn fill(&mut self, now_ns: u64, sealer: &mut Sealer<'_>) {
        let mut packet = [0; PACKET_LEN_MAX];
        while let Some((header, body)) = self.control.pop_front() {
            let len = self.builder.control(&header, &body, &mut packet);
            sealer.seal(&packet[..len]);
        }
        if let Some(down) = self.down.as_mut().filter(|down| down.ack_due) {
            down.ack_due = false;
            down.acked_ns = now_ns;
            let (ue, run, seq) = (self.ue, self.shared.run, down.checker.next_seq());
            let (kind, flags, mark) = (ProbeKind::Ack, FLAG_DOWNLINK, down.cuts);
            let sent_ns = std::mem::take(&mut down.asked_ns);
            let header = ProbeHeader { kind, flags, mark, ue, run, seq, sent_ns };
            let len = self.builder.control(&header, &[], &mut packet);
            sealer.seal(&packet[..len]);
        }
        self.fill_data(now_ns, sealer, &mut packet);
    }

    /// Seals data as far as window, room, run and write allow.
    fn fill_data(&mut self, now_ns: u64, sealer: &mut Sealer<'_>, packet: &mut [u8]) {
        let Some(up) = self.up.as_mut().filter(|up| up.running) else { return };
        let wanted = up.flow.allowance();
        let (room, share) = (self.shared.room(), self.shared.share());
        let granted = wanted.min(room).min(u64::from(self.shared.run_len));
        if granted == 0 {
            if wanted > 0 && !up.waiting {
                up.waiting = true;
                self.shared.wait(self.handle.clone());
            }
            return;
        }
        up.waiting = false;
        if up.flow.in_flight() == 0 {
            up.moved_ns = now_ns;
        }
        let (ue, run, kind) = (self.ue, self.shared.run, ProbeKind::Data);
        let mut sent = 0;
        while sent < granted && !sealer.is_full() {
            let seq = up.flow.take();
            let len = self.shared.size.len(seq);
            let last = sent + 1 == granted || sealer.is_full_after(len);
            let flags = if last && up.flow.ask(sent + 1 == room, share) { FLAG_ACK_NOW } else { 0 };
            let header = ProbeHeader { kind, flags, mark: up.flow.mark(seq), ue, run, seq, sent_ns: now_ns };
            self.builder.data(&header, &self.shared.pattern, len, &mut packet[..len]);
            if !sealer.seal(&packet[..len]) {
                up.flow.untake(1);
                break;
            }
            up.bytes += len as u64;
            sent += 1;
        }
        if up.flow.is_closed_loop() {
            self.shared.occupy(sent);
        }
    }
}

/// The flows of one UE, which its tunnel and the run both hold.
#[derive(Default)]
pub(super) struct UeFlows {
    /// Its bulk flow and its voice flow, where it has them.
    flows: [Option<Rc<RefCell<UeFlow>>>; Class::COUNT],
}

impl UeFlows {
    /// Adds a flow.
    pub(super) fn add(&mut self, class: Class, flow: Rc<RefCell<UeFlow>>) {
        self.flows[class as usize] = Some(flow);
    }

    fn each(&self) -> impl Iterator<Item = &Rc<RefCell<UeFlow>>> {
        self.flows.iter().flatten()
    }
}

impl Inner for UeFlows {
    fn on_packet(&mut self, now_ns: u64, packet: &[u8]) {
        let Some(udp) = parse_udp(packet) else { return };
        let flow = Class::of_port(udp.dst_port).and_then(|class| self.flows[class as usize].as_ref());
        if let Some(flow) = flow {
            flow.borrow_mut().on_packet(now_ns, &udp);
        }
    }

    fn fill(&mut self, now_ns: u64, sealer: &mut Sealer<'_>) {
        self.each().for_each(|flow| flow.borrow_mut().fill(now_ns, sealer));
    }

    fn has_output(&self) -> bool {
        self.each().any(|flow| flow.borrow().has_output())
    }

    fn on_cut(&mut self, cut: Cut) {
        self.each().for_each(|flow| flow.borrow_mut().on_cut(cut));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::MARK_NONE;

    #[test]
    fn a_downlink_without_report_is_not_lossless() {
        let mut down = Downlink::new();
        for seq in [0, 1, 4] {
            down.checker.on_packet(seq, MARK_NONE, 100);
        }
        let mut account = Account::default();
        down.add_to(&mut account);
        assert_eq!((account.sent, account.lost, account.unreported), (5, 2, 1));
        down.report = Some(Report { sent: 9, ..Report::default() });
        let mut account = Account::default();
        down.add_to(&mut account);
        assert_eq!((account.sent, account.lost, account.unreported), (9, 6, 0));
    }
}
