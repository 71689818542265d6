//! One direction of a link as a state machine.

use super::codel::Codel;
use super::loss::LossState;
use super::random::Random;
use super::spec::{Discipline, Jitter, Limit, Spec};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// Most packets under way behind the queue: 1 Gbit/s of full packets for 10 s. It bounds memory, not a real path.
const UNDER_WAY_MAX: usize = 1 << 20;

/// What happened to packets; octets are those of IP packets.
///
/// At any time `packets_in + duplicated = packets_out + lost + queue_drops + too_long + held`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Packets that came.
    pub packets_in: u64,
    /// Their octets.
    pub octets_in: u64,
    /// Packets that left.
    pub packets_out: u64,
    /// Their octets.
    pub octets_out: u64,
    /// Lost on the wire.
    pub lost: u64,
    /// Dropped because the queue was full, or by CoDel.
    pub queue_drops: u64,
    /// Longer than the MTU.
    pub too_long: u64,
    /// Sent ahead of packets that came before them.
    pub reordered: u64,
    /// Copies made.
    pub duplicated: u64,
    /// Packets with a bit flipped.
    pub corrupted: u64,
    /// Most packets that waited for the link.
    pub queue_max_packets: u64,
    /// Most octets that waited for the link.
    pub queue_max_octets: u64,
}

/// One direction of a link. Times are nanoseconds of any clock that does not go back.
///
/// After [`Pipe::push`], and when the time of [`Pipe::next_due_ns`] has come, call [`Pipe::pop`] until it gives nothing.
#[derive(Debug)]
pub struct Pipe {
    spec: Spec,
    /// Octets of the link header before the IP packet.
    header_len: usize,
    waiting: VecDeque<Waiting>,
    waiting_octets: usize,
    codel: Codel,
    /// When the link has sent what it was given.
    free_ns: u64,
    under_way: BinaryHeap<Reverse<UnderWay>>,
    /// Packets that went under way, to keep the order of those due at the same time.
    sent: u64,
    /// When the last packet that kept its order is due.
    last_due_ns: u64,
    counters: Counters,
    loss: LossState,
    reorder: Random,
    duplicate: Random,
    corrupt: Random,
    jitter: Random,
}

/// A packet before the link, its fate drawn when it came.
#[derive(Debug)]
struct Waiting {
    packet: Vec<u8>,
    came_ns: u64,
    lost: bool,
    overtakes: bool,
    twice: bool,
    delay_ns: u64,
}

/// A packet behind the link; ordered by when it is due.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct UnderWay {
    due_ns: u64,
    number: u64,
    packet: Vec<u8>,
}

impl Pipe {
    /// Creates a pipe for packets that begin with `header_len` octets of link header, which count nowhere.
    pub fn new(spec: Spec, header_len: usize) -> Self {
        let random = |stream| Random::new(spec.seed, stream);
        Self {
            loss: LossState::new(spec.loss, random(0)),
            reorder: random(1),
            duplicate: random(2),
            corrupt: random(3),
            jitter: random(4),
            spec,
            header_len,
            waiting: VecDeque::new(),
            waiting_octets: 0,
            codel: Codel::default(),
            free_ns: 0,
            under_way: BinaryHeap::new(),
            sent: 0,
            last_due_ns: 0,
            counters: Counters::default(),
        }
    }

    /// Takes a packet that came at `now_ns`.
    pub fn push(&mut self, now_ns: u64, mut packet: Vec<u8>) {
        self.advance(now_ns);
        let octets = self.octets(&packet);
        self.counters.packets_in += 1;
        self.counters.octets_in += octets as u64;
        // All are drawn for each packet, whatever becomes of it: the n-th packet has the same fate in every run.
        let lost = self.loss.next();
        let overtakes = self.reorder.happens(self.spec.reorder);
        let twice = self.duplicate.happens(self.spec.duplicate);
        let delay_ns = self.draw_delay();
        let corrupted = self.corrupt.happens(self.spec.corrupt);
        let place = self.corrupt.next();
        if octets > self.spec.mtu {
            self.counters.too_long += 1;
            return;
        }
        if !self.has_room(octets) {
            self.counters.queue_drops += 1;
            return;
        }
        if corrupted && octets > 0 {
            let bit = (place % (octets as u64 * 8)) as usize;
            packet[self.header_len + bit / 8] ^= 1 << (bit % 8);
            self.counters.corrupted += 1;
        }
        self.waiting_octets += octets;
        self.waiting.push_back(Waiting { packet, came_ns: now_ns, lost, overtakes, twice, delay_ns });
        self.advance(now_ns);
        self.counters.queue_max_packets = self.counters.queue_max_packets.max(self.waiting.len() as u64);
        self.counters.queue_max_octets = self.counters.queue_max_octets.max(self.waiting_octets as u64);
    }

    /// Returns a packet that is due at `now_ns`.
    pub fn pop(&mut self, now_ns: u64) -> Option<Vec<u8>> {
        self.advance(now_ns);
        if self.under_way.peek()?.0.due_ns > now_ns {
            return None;
        }
        let Reverse(UnderWay { packet, .. }) = self.under_way.pop()?;
        self.counters.packets_out += 1;
        self.counters.octets_out += self.octets(&packet) as u64;
        Some(packet)
    }

    /// Returns when to call [`Pipe::pop`] next; `None` when nothing is inside.
    pub fn next_due_ns(&self) -> Option<u64> {
        let link = self.waiting.front().map(|head| self.free_ns.max(head.came_ns));
        let due = self.under_way.peek().map(|Reverse(first)| first.due_ns);
        link.into_iter().chain(due).min()
    }

    /// Returns what happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Returns the packets inside, waiting or under way.
    pub fn held(&self) -> usize {
        self.waiting.len() + self.under_way.len()
    }

    /// Puts on the link what it has time for until `now_ns`, each packet at the moment when the link was free for it.
    fn advance(&mut self, now_ns: u64) {
        while let Some(head) = self.waiting.front() {
            let start_ns = self.free_ns.max(head.came_ns);
            if start_ns > now_ns {
                return;
            }
            let Some(head) = self.dequeue(start_ns) else { return };
            let octets = self.octets(&head.packet);
            let busy_ns = self.spec.rate_bps.map_or(0, |rate| (octets as f64 * 8e9 / rate).round() as u64);
            self.free_ns = start_ns + busy_ns;
            self.transmit(head, self.free_ns);
        }
    }

    /// Takes the packet whose turn it is at `start_ns`, without those that CoDel drops.
    fn dequeue(&mut self, start_ns: u64) -> Option<Waiting> {
        let mut first = true;
        loop {
            let head = self.waiting.pop_front()?;
            self.waiting_octets -= self.octets(&head.packet);
            let short = self.waiting_octets <= self.spec.mtu;
            let sojourn_ns = start_ns.saturating_sub(head.came_ns);
            let codel = self.spec.discipline == Discipline::Codel;
            if !codel || !self.codel.drops(start_ns, sojourn_ns, short, first) {
                return Some(head);
            }
            self.counters.queue_drops += 1;
            first = false;
        }
    }

    /// Sends a packet under way that has left the link at `left_ns`.
    fn transmit(&mut self, head: Waiting, left_ns: u64) {
        if head.lost {
            self.counters.lost += 1;
            return;
        }
        let overtakes = head.overtakes && self.last_due_ns > left_ns;
        let due_ns = if overtakes {
            self.counters.reordered += 1;
            left_ns
        } else {
            self.last_due_ns = self.last_due_ns.max(left_ns + head.delay_ns);
            self.last_due_ns
        };
        if head.twice && self.under_way.len() < UNDER_WAY_MAX {
            self.counters.duplicated += 1;
            self.send(due_ns, head.packet.clone());
        }
        if self.under_way.len() < UNDER_WAY_MAX {
            self.send(due_ns, head.packet);
        } else {
            self.counters.queue_drops += 1;
        }
    }

    fn send(&mut self, due_ns: u64, packet: Vec<u8>) {
        self.under_way.push(Reverse(UnderWay { due_ns, number: self.sent, packet }));
        self.sent += 1;
    }

    fn draw_delay(&mut self) -> u64 {
        let spread = match self.spec.jitter {
            Jitter::Uniform(most) => most.as_nanos() as f64 * (2.0 * self.jitter.unit() - 1.0),
            Jitter::Normal(deviation) => deviation.as_nanos() as f64 * self.jitter.normal(),
        };
        (self.spec.delay.as_nanos() as f64 + spread).max(0.0) as u64
    }

    fn has_room(&self, octets: usize) -> bool {
        self.waiting.is_empty()
            || match self.spec.limit {
                Limit::Packets(most) => self.waiting.len() < most,
                Limit::Octets(most) => self.waiting_octets + octets <= most,
            }
    }

    fn octets(&self, packet: &[u8]) -> usize {
        packet.len().saturating_sub(self.header_len)
    }
}

#[cfg(test)]
mod tests {
    use super::super::codel::TARGET_NS;
    use super::super::{Loss, Spec};
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn spec(text: &str) -> Spec {
        let mut spec = Spec::default();
        spec.apply(text).unwrap();
        spec
    }

    /// A packet of `octets` that carries its number.
    fn packet(number: u32, octets: usize) -> Vec<u8> {
        let mut packet = vec![0; octets];
        packet[..4].copy_from_slice(&number.to_be_bytes());
        packet
    }

    fn number(packet: &[u8]) -> u32 {
        u32::from_be_bytes(packet[..4].try_into().unwrap())
    }

    /// Pushes `packets` of `octets` every `gap_ns` and returns when each came out; then lets the pipe run dry.
    fn run(pipe: &mut Pipe, packets: u32, octets: usize, gap_ns: u64) -> Vec<(u64, u32)> {
        let mut out = Vec::new();
        let drain = |pipe: &mut Pipe, until_ns: u64, out: &mut Vec<(u64, u32)>| {
            while let Some(due_ns) = pipe.next_due_ns().filter(|due_ns| *due_ns <= until_ns) {
                while let Some(packet) = pipe.pop(due_ns) {
                    out.push((due_ns, number(&packet)));
                }
            }
        };
        for index in 0..packets {
            let now_ns = u64::from(index) * gap_ns;
            drain(pipe, now_ns, &mut out);
            pipe.push(now_ns, packet(index, octets));
        }
        drain(pipe, u64::MAX, &mut out);
        out
    }

    fn balanced(pipe: &Pipe) {
        let c = pipe.counters();
        assert_eq!(
            c.packets_in + c.duplicated,
            c.packets_out + c.lost + c.queue_drops + c.too_long + pipe.held() as u64,
            "{c:?}"
        );
    }

    #[test]
    fn delay_is_exact_and_time_on_the_link_comes_on_top() {
        let mut pipe = Pipe::new(spec("delay=20,rate=12"), 0);
        // 1500 octets at 12 Mbit/s take 1 ms.
        assert_eq!(run(&mut pipe, 2, 1500, 0), [(21_000_000, 0), (22_000_000, 1)]);
    }

    #[test]
    fn the_rate_holds_and_the_queue_is_bounded() {
        let mut pipe = Pipe::new(spec("rate=10,queue=50"), 0);
        let out = run(&mut pipe, 20_000, 1500, 600_000);
        let span_s = (out.last().unwrap().0 - out[0].0) as f64 / 1e9;
        let rate = (out.len() - 1) as f64 * 12_000.0 / span_s;
        assert!((rate / 10e6 - 1.0).abs() < 0.01, "{rate}");
        let counters = pipe.counters();
        assert_eq!(counters.queue_max_packets, 50);
        assert_eq!(counters.queue_drops + out.len() as u64, 20_000);
        balanced(&pipe);
    }

    #[test]
    fn a_queue_of_octets_counts_octets() {
        let mut pipe = Pipe::new(spec("rate=1,queue-octets=3000"), 14);
        for index in 0..10 {
            pipe.push(0, packet(index, 1014));
        }
        // One on the link, three waiting.
        assert_eq!((pipe.counters().queue_drops, pipe.counters().queue_max_octets), (6, 3000));
    }

    #[test]
    fn fates_repeat_with_the_seed_and_change_with_it() {
        let fates = |seed| {
            let mut spec = spec("delay=10,jitter=5,loss=5,reorder=5,duplicate=5,corrupt=5,rate=100");
            spec.seed = seed;
            run(&mut Pipe::new(spec, 0), 2_000, 1500, 200_000)
        };
        assert_eq!(fates(1), fates(1));
        assert_ne!(fates(1), fates(2));
    }

    #[test]
    fn a_loss_draws_the_same_packets_with_and_without_other_faults() {
        let survivors = |text| -> Vec<u32> {
            let out = run(&mut Pipe::new(spec(text), 0), 2_000, 100, 1_000);
            out.into_iter().map(|(_, number)| number).collect()
        };
        assert_eq!(survivors("loss=3"), survivors("loss=3,delay=5,jitter=1,rate=1000"));
    }

    #[test]
    fn shares_are_met() {
        let mut pipe = Pipe::new(spec("delay=10,loss=2,reorder=3,duplicate=4,corrupt=5"), 0);
        run(&mut pipe, 200_000, 60, 100_000);
        let counters = pipe.counters();
        let near = |count: u64, share: f64| (count as f64 / 200_000.0 / share - 1.0).abs() < 0.05;
        assert!(near(counters.lost, 0.02), "{counters:?}");
        assert!(near(counters.reordered, 0.03 * 0.98), "{counters:?}");
        assert!(near(counters.duplicated, 0.04 * 0.98), "{counters:?}");
        assert!(near(counters.corrupted, 0.05), "{counters:?}");
        balanced(&pipe);
    }

    #[test]
    fn jitter_has_its_spread() {
        for text in ["delay=50,jitter=10", "delay=50,normal-jitter=5"] {
            // So far apart that no packet waits for the one before.
            let out = run(&mut Pipe::new(spec(text), 0), 20_000, 60, 1_000_000_000);
            let delays: Vec<f64> = out
                .iter()
                .map(|(due_ns, index)| (due_ns - u64::from(*index) * 1_000_000_000) as f64 / 1e6)
                .collect();
            let mean = delays.iter().sum::<f64>() / 20_000.0;
            let deviation =
                (delays.iter().map(|delay| (delay - mean).powi(2)).sum::<f64>() / 20_000.0).sqrt();
            let wanted = if text.contains("normal") { 5.0 } else { 10.0 / 3_f64.sqrt() };
            assert!(
                (mean - 50.0).abs() < 0.2 && (deviation / wanted - 1.0).abs() < 0.03,
                "{mean} {deviation}"
            );
        }
    }

    #[test]
    fn codel_keeps_a_standing_queue_near_its_target() {
        // Senders that slow down: every drop halves the rate, every packet raises it a little.
        let wait = |text: &str| {
            let mut pipe = Pipe::new(spec(text), 0);
            let (mut now_ns, mut gap_ns, mut drops, mut late) = (0_u64, 1_200_000_f64, 0, Vec::new());
            for index in 0..60_000 {
                pipe.push(now_ns, packet(index, 1500));
                while pipe.pop(now_ns).is_some() {}
                let dropped = pipe.counters().queue_drops;
                gap_ns = if dropped > drops { (gap_ns * 1.5).min(1e7) } else { (gap_ns * 0.998).max(2e5) };
                drops = dropped;
                if index > 10_000 {
                    late.push(pipe.waiting.len() as u64 * 1_200_000);
                }
                now_ns += gap_ns as u64;
            }
            late.sort_unstable();
            late[late.len() / 2]
        };
        let (codel, droptail) = (wait("rate=10,queue=1000,discipline=codel"), wait("rate=10,queue=1000"));
        assert!(codel < 4 * TARGET_NS, "{codel}");
        assert!(droptail > 20 * TARGET_NS, "{droptail}");
    }

    #[test]
    fn longer_than_the_mtu_is_dropped_and_the_header_does_not_count() {
        let mut pipe = Pipe::new(spec("mtu=100"), 14);
        pipe.push(0, vec![0; 114]);
        pipe.push(0, vec![0; 115]);
        assert_eq!((pipe.counters().too_long, pipe.held()), (1, 1));
        assert_eq!(pipe.counters().octets_in, 201);
    }

    #[test]
    fn corruption_flips_one_bit_behind_the_header() {
        let mut pipe = Pipe::new(spec("corrupt=100"), 14);
        for _ in 0..1_000 {
            pipe.push(0, vec![0; 34]);
            let out = pipe.pop(0).unwrap();
            assert_eq!(out.iter().map(|octet| octet.count_ones()).sum::<u32>(), 1);
            assert!(out[..14].iter().all(|octet| *octet == 0));
        }
    }

    proptest! {
        #[test]
        fn no_packet_is_unaccounted_for_and_order_is_kept_without_reorder(
            delay_ms in 0_u64..50, jitter_ms in 0_u64..50, loss in 0.0..0.3, duplicate in 0.0..0.3,
            rate in proptest::option::of(1e5..1e9), queue in 1_usize..40, codel: bool, seed: u64,
            packets in proptest::collection::vec((4_usize..2_000, 0_u64..3_000_000), 1..300),
        ) {
            let spec = Spec {
                delay: Duration::from_millis(delay_ms),
                jitter: Jitter::Uniform(Duration::from_millis(jitter_ms)),
                loss: Loss::Random(loss),
                duplicate,
                rate_bps: rate,
                limit: Limit::Packets(queue),
                discipline: if codel { Discipline::Codel } else { Discipline::Droptail },
                seed,
                ..Spec::default()
            };
            let mut pipe = Pipe::new(spec, 0);
            let (mut now_ns, mut out) = (0, Vec::new());
            for (index, (octets, gap_ns)) in packets.iter().enumerate() {
                now_ns += gap_ns;
                pipe.push(now_ns, packet(index as u32, *octets));
                balanced(&pipe);
                while let Some(packet) = pipe.pop(now_ns) {
                    out.push(number(&packet));
                }
                balanced(&pipe);
                prop_assert!(pipe.waiting.len() <= queue);
            }
            while let Some(due_ns) = pipe.next_due_ns() {
                while let Some(packet) = pipe.pop(due_ns) {
                    out.push(number(&packet));
                }
            }
            prop_assert_eq!(pipe.held(), 0);
            balanced(&pipe);
            prop_assert!(out.is_sorted());
        }
    }
}
