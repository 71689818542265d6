use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use codec::ip::{Gso, VirtioHeader};
use proptest::prelude::*;

use super::*;

const MTU: u16 = 1400;
const MS: Duration = Duration::from_millis(1);

/// A UDP packet of `len` octets whose last four are `number`.
fn packet(flow: u8, dscp: u8, ect: bool, len: usize, number: u32) -> Vec<u8> {
    let mut packet = vec![0; len.max(32)];
    packet[..2].copy_from_slice(&[0x45, dscp << 2 | u8::from(ect)]);
    let total_len = (packet.len() as u16).to_be_bytes();
    packet[2..4].copy_from_slice(&total_len);
    packet[9] = 17;
    packet[12..20].copy_from_slice(&[10, 0, 0, flow, 10, 64, 0, 1]);
    let end = packet.len() - 4;
    packet[end..].copy_from_slice(&number.to_be_bytes());
    packet
}

/// A super-packet of `count` datagrams.
fn super_packet(flow: u8, count: usize) -> (Vec<u8>, VirtioHeader) {
    let packet = packet(flow, 0, false, 28 + count * 1000, 0);
    let virtio = VirtioHeader {
        flags: VirtioHeader::NEEDS_CSUM,
        gso: Gso::Udp,
        gso_size: 1000,
        csum_start: 20,
        csum_offset: 6,
        ..VirtioHeader::default()
    };
    (packet, virtio)
}

/// The queues with UEs whose connections take what they are told to.
struct Rig {
    queues: FlowQueues,
    ues: Vec<Option<UeId>>,
    counters: WorkerCounters,
    now: Instant,
    /// MTU of the network that packets come from.
    mtu: u16,
}

impl Rig {
    fn new(ues: usize, ue_max: usize, worker_max: usize) -> Self {
        Self {
            queues: FlowQueues::new(ue_max, worker_max, MTU, Some(200 * MS)),
            ues: vec![None; ues],
            counters: WorkerCounters::default(),
            now: Instant::now(),
            mtu: MTU,
        }
    }

    fn push(&mut self, ue: usize, packet: &[u8]) {
        self.push_offloaded(ue, packet, &VirtioHeader::default());
    }

    fn push_offloaded(&mut self, ue: usize, packet: &[u8], virtio: &VirtioHeader) {
        let inner = InnerHeader::parse(packet).expect("a packet");
        let segmenter = Segmenter::new(packet, &inner, virtio, self.mtu).expect("fits");
        let mut buffer = vec![0; SUPER_LEN].into_boxed_slice();
        buffer[10..10 + packet.len()].copy_from_slice(packet);
        let IpAddr::V4(src) = inner.src else { panic!("IPv4") };
        let arrival = Arrival {
            buffer: &mut buffer,
            range: 10..10 + packet.len(),
            segmenter,
            spi_in: EspSpi(0x1000 + ue as u32),
            flow: src.octets()[3].into(),
            voice: is_voice(&inner),
            mtu: self.mtu,
        };
        self.queues.push(&mut self.ues[ue], ue as u32, arrival, self.now, &self.counters);
    }

    fn pop(&mut self, ue: usize) -> Option<Vec<u8>> {
        let (spi_in, octets) = self.pop_of_any(ue)?;
        assert_eq!(spi_in, EspSpi(0x1000 + ue as u32));
        Some(octets)
    }

    /// The next packet of a UE's queue, in which there may be others' packets.
    fn pop_of_any(&mut self, ue: usize) -> Option<(EspSpi, Vec<u8>)> {
        let segment = self.queues.pop(&mut self.ues[ue], Delay::default(), self.now, &self.counters)?;
        let popped = (segment.spi_in, self.queues.bytes(&segment).to_vec());
        self.queues.release(segment);
        Some(popped)
    }

    /// Flow and number of everything a UE has.
    fn drain(&mut self, ue: usize) -> Vec<(u8, u32)> {
        std::iter::from_fn(|| self.pop(ue)).map(|packet| (flow_of(&packet), number_of(&packet))).collect()
    }

    fn drops(&self, reason: &str) -> u64 {
        self.counters.drops().find(|(name, _)| *name == reason).expect("a reason").1
    }
}

fn flow_of(packet: &[u8]) -> u8 {
    let src = Ipv4Addr::new(packet[12], packet[13], packet[14], packet[15]);
    src.octets()[3]
}

fn number_of(packet: &[u8]) -> u32 {
    u32::from_be_bytes(packet[packet.len() - 4..].try_into().expect("four"))
}

#[test]
fn r8290_4_1_a_new_flow_passes_a_standing_one_and_then_shares() {
    let mut rig = Rig::new(1, 1 << 20, 1 << 22);
    for number in 0..10 {
        rig.push(0, &packet(1, 0, false, 1300, number));
    }
    assert_eq!(number_of(&rig.pop(0).expect("first")), 0);
    assert_eq!(number_of(&rig.pop(0).expect("second")), 1);
    for number in 0..3 {
        rig.push(0, &packet(2, 0, false, 1300, number));
    }
    let order: Vec<u8> = rig.drain(0).into_iter().map(|(flow, _)| flow).collect();
    assert_eq!(order[..2], [2, 2], "one quantum, and what is begun of the next, ahead of the old flow");
    assert_eq!(order.iter().filter(|&&flow| flow == 2).count(), 3);
    assert!(rig.ues[0].is_none(), "an empty queue is given back");
    assert_eq!(rig.queues.octets(), 0);
}

#[test]
fn voice_passes_between_the_segments_of_a_super_packet() {
    let mut rig = Rig::new(1, 1 << 20, 1 << 22);
    let (bulk, virtio) = super_packet(1, 40);
    rig.push_offloaded(0, &bulk, &virtio);
    assert_eq!(rig.pop(0).expect("a segment").len(), 1028);
    for dscp in [46, 44] {
        rig.push(0, &packet(9, dscp, false, 160, dscp.into()));
        let voice = rig.pop(0).expect("voice");
        assert_eq!((flow_of(&voice), number_of(&voice)), (9, dscp.into()));
        assert_eq!(flow_of(&rig.pop(0).expect("the next segment")), 1);
    }
    assert_eq!(rig.drain(0).len(), 37);
}

#[test]
fn bulk_marked_as_voice_gets_no_more_than_half() {
    let mut rig = Rig::new(1, 8 << 20, 16 << 20);
    for number in 0..500 {
        rig.push(0, &packet(1, 0, false, 1300, number));
        rig.push(0, &packet(2, 46, false, 1300, number));
    }
    // Real voice in the same tier still comes at once.
    rig.push(0, &packet(3, 46, false, 160, 0));
    let order: Vec<u8> = (0..400).map(|_| flow_of(&rig.pop(0).expect("plenty"))).collect();
    assert!(order[..3].contains(&3), "{:?}", &order[..10]);
    let bulk = order.iter().filter(|&&flow| flow == 1).count();
    assert!((180..=220).contains(&bulk), "{bulk} of 400");
}

#[test]
fn a_lone_voice_flow_keeps_its_credit() {
    let mut rig = Rig::new(1, 1 << 20, 1 << 22);
    for number in 0..300 {
        rig.push(0, &packet(3, 46, false, 160, number));
        rig.pop(0);
    }
    rig.push(0, &packet(1, 0, false, 1300, 0));
    rig.push(0, &packet(3, 46, false, 160, 300));
    assert_eq!(flow_of(&rig.pop(0).expect("voice")), 3);
}

/// Packets of a call, 20 ms apart.
fn call(rig: &mut Rig, flow: u8, numbers: std::ops::Range<u32>) {
    for number in numbers {
        rig.push(0, &packet(flow, 46, false, 160, number));
        rig.now += 20 * MS;
    }
}

#[test]
fn after_a_stall_a_call_goes_on_with_what_is_not_late() {
    let mut rig = Rig::new(1, 1 << 20, 1 << 22);
    call(&mut rig, 9, 0..50);
    rig.push(0, &packet(1, 0, false, 1300, 7));
    // The newest is 20 ms old, the tenth from the end 200.
    let left: Vec<_> = (40..50).map(|number| (9, number)).chain([(1, 7)]).collect();
    assert_eq!(rig.drain(0), left);
    assert_eq!((rig.drops("voice_late"), rig.drops("codel")), (40, 0));
    assert_eq!(rig.queues.octets(), 0);
}

#[test]
fn the_last_of_a_flow_goes_however_late_it_is() {
    let mut rig = Rig::new(1, 1 << 20, 1 << 22);
    call(&mut rig, 9, 0..5);
    call(&mut rig, 10, 0..1);
    rig.now += 1000 * MS;
    let mut left = rig.drain(0);
    left.sort_unstable();
    assert_eq!(left, [(9, 4), (10, 0)]);
    assert_eq!(rig.drops("voice_late"), 4);
}

#[test]
fn only_voice_is_late_and_only_beyond_a_bound() {
    let mut rig = Rig::new(1, 1 << 20, 1 << 22);
    (0..5).for_each(|number| rig.push(0, &packet(1, 0, false, 1300, number)));
    call(&mut rig, 9, 0..1);
    rig.now += 180 * MS;
    rig.push(0, &packet(9, 46, false, 160, 1));
    assert_eq!(rig.drain(0).len(), 7, "200 ms old is not late yet");
    rig.queues = FlowQueues::new(1 << 20, 1 << 22, MTU, None);
    call(&mut rig, 9, 0..50);
    rig.now += 1000 * MS;
    assert_eq!(rig.drain(0).len(), 50);
    assert_eq!(rig.drops("voice_late"), 0);
}

#[test]
fn a_ue_over_its_bound_loses_the_oldest_of_its_fattest_flow() {
    let mut rig = Rig::new(2, 256 * 1024, 1 << 24);
    rig.push(1, &packet(1, 0, false, 1300, 7));
    rig.push(0, &packet(2, 0, false, 1300, 8));
    for number in 0..1000 {
        rig.push(0, &packet(1, 0, false, 1300, number));
        assert!(rig.queues.octets() <= 256 * 1024 + 2048);
    }
    assert_eq!(rig.drops("flow_queue_full"), 1001 - 128);
    let left = rig.drain(0);
    assert!(left.contains(&(2, 8)), "the thin flow keeps its packet");
    assert_eq!(left.last(), Some(&(1, 999)));
    assert_eq!(left.len(), 128);
    assert_eq!(rig.drain(1), [(1, 7)], "another UE loses nothing");
}

#[test]
fn over_the_workers_bound_the_fattest_ue_pays() {
    let mut rig = Rig::new(101, 1 << 20, 1 << 20);
    for ue in 1..=100 {
        rig.push(ue, &packet(1, 0, false, 1300, ue as u32));
    }
    let (bulk, virtio) = super_packet(1, 50);
    for _ in 0..100 {
        rig.push_offloaded(0, &bulk, &virtio);
    }
    assert!(rig.queues.octets() <= 1 << 20);
    let kept = rig.drain(0).len() / 50;
    assert_eq!(rig.drops("flow_memory"), (100 - kept as u64) * 50);
    for ue in 1..=100 {
        assert_eq!(rig.drain(ue), [(1, ue as u32)]);
    }
    assert_eq!(rig.queues.octets(), 0);
}

#[test]
fn r8289_a_standing_queue_is_thinned_one_segment_at_a_time() {
    for (ect, dropped, marked) in [(false, 6, 0), (true, 0, 6)] {
        let mut rig = Rig::new(1, 8 << 20, 16 << 20);
        for number in 0..2000 {
            rig.push(0, &packet(1, 0, ect, 1300, number));
        }
        rig.now += 50 * MS;
        let mut ce = 0;
        for _ in 0..450 {
            let packet = rig.pop(0).expect("plenty");
            ce += u64::from(packet[1] & 3 == 3);
            rig.now += MS;
        }
        assert_eq!((rig.drops("codel"), rig.counters.ecn_marked.get(), ce), (dropped, marked, marked));
    }
}

#[test]
fn codel_thins_a_super_packet_by_segments() {
    let mut rig = Rig::new(1, 8 << 20, 16 << 20);
    for _ in 0..3 {
        let (bulk, virtio) = super_packet(1, 60);
        rig.push_offloaded(0, &bulk, &virtio);
    }
    rig.now += 50 * MS;
    let mut left = 0;
    while rig.pop(0).is_some() {
        left += 1;
        rig.now += 3 * MS;
    }
    assert!(rig.drops("codel") > 0);
    assert_eq!(left + rig.drops("codel"), 180);
}

#[test]
fn r8290_4_1_what_overflows_counts_as_the_segments_that_have_not_left() {
    let mut rig = Rig::new(1, SUPER_LEN, 1 << 20);
    let (packet, virtio) = super_packet(1, 46);
    rig.push_offloaded(0, &packet, &virtio);
    (0..10).for_each(|_| assert!(rig.pop(0).is_some()));
    // The second one needs the room of the first, of which 36 segments are left.
    rig.push_offloaded(0, &packet, &virtio);
    assert_eq!(rig.drops("flow_queue_full"), 36);
    assert_eq!(rig.drain(0).len(), 46);
    // Between its last segment and the next packet nothing is left to count.
    rig.push_offloaded(0, &packet, &virtio);
    (0..46).for_each(|_| assert!(rig.pop(0).is_some()));
    rig.push_offloaded(0, &packet, &virtio);
    assert_eq!(rig.drops("flow_queue_full"), 36);
    assert_eq!(rig.queues.discard(rig.ues[0].take().expect("it waits")), 46);
}

#[test]
fn ues_take_turns_by_octets() {
    let mut rig = Rig::new(3, 8 << 20, 32 << 20);
    let (bulk, virtio) = super_packet(1, 60);
    for _ in 0..20 {
        rig.push_offloaded(0, &bulk, &virtio);
    }
    for number in 0..900 {
        rig.push(1, &packet(1, 0, false, 300, number));
        rig.push(2, &packet(1, 0, false, 1300, number));
    }
    for ue in rig.ues.clone().into_iter().flatten() {
        rig.queues.activate(ue);
        rig.queues.activate(ue);
    }
    let mut sent = [0usize; 3];
    for _ in 0..18 {
        let slot = rig.queues.next_turn().expect("three in the round") as usize;
        let ue = rig.ues[slot].expect("it has a queue");
        while !rig.queues.turn_is_over(ue) {
            sent[slot] += rig.pop(slot).expect("plenty").len();
        }
        rig.queues.activate(ue);
    }
    let turn = 6 * 16 * usize::from(MTU);
    for octets in sent {
        assert!(octets.abs_diff(turn) < 1400, "{sent:?}");
    }
}

/// Beside a network of jumbo packets a UE of another one is served as if there were none.
#[test]
fn the_mtu_of_another_network_changes_nothing_within_a_ue() {
    let mut rig = Rig::new(2, 1 << 20, 1 << 22);
    rig.queues = FlowQueues::new(1 << 20, 1 << 22, 9000, None);
    rig.mtu = 9000;
    rig.push(1, &packet(1, 0, false, 8900, 0));
    rig.mtu = MTU;
    for number in 0..20 {
        rig.push(0, &packet(1, 0, false, 1300, number));
        rig.push(0, &packet(2, 0, false, 1300, number));
    }
    assert_eq!([0, 1].map(|ue| rig.queues.mtu(rig.ues[ue].expect("it waits"))), [MTU.into(), 9000]);
    // Of the worker both have the same part.
    for ue in rig.ues.clone().into_iter().flatten() {
        rig.queues.activate(ue);
        assert!(rig.queues.next_turn().is_some());
        assert_eq!(rig.queues.ues[ue.0 as usize].deficit, 16 * 9000, "UE {}", ue.0);
    }
    let order: Vec<u8> = (0..12).map(|_| flow_of(&rig.pop(0).expect("plenty"))).collect();
    let runs: Vec<usize> = order.chunk_by(|one, other| one == other).map(<[u8]>::len).collect();
    assert!(runs.iter().all(|&run| run <= 2), "a packet, and what is begun of the next: {runs:?}");
}

#[test]
fn what_is_merged_waits_behind_what_was_there_and_nothing_is_lost() {
    let mut rig = Rig::new(2, 1 << 20, 1 << 22);
    for number in 0..10 {
        rig.push(0, &packet(1, 0, false, 1300, number));
        rig.push(1, &packet(2, 0, false, 1300, number));
    }
    // Of one flow, older packets of which have been left on the path.
    rig.push(0, &packet(3, 46, false, 160, 1));
    rig.push(1, &packet(3, 46, false, 160, 0));
    let octets = rig.queues.octets();
    let (from, into) = (rig.ues[0].take().expect("it waits"), rig.ues[1].expect("it waits"));
    rig.queues.activate(from);
    rig.queues.merge(from, into, &rig.counters);
    assert_eq!(rig.queues.octets(), octets);
    rig.queues.activate(into);
    assert_eq!(
        (rig.queues.next_turn(), rig.queues.next_turn()),
        (Some(1), None),
        "the other is out of the round"
    );
    let mut next = [0; 4];
    while let Some((_, packet)) = rig.pop_of_any(1) {
        let flow = usize::from(flow_of(&packet));
        assert_eq!(number_of(&packet), next[flow], "flow {flow} in order");
        next[flow] += 1;
    }
    assert_eq!(next, [0, 10, 10, 2]);
    assert_eq!((rig.queues.octets(), rig.counters.drops().map(|(_, n)| n).sum::<u64>()), (0, 0));
}

#[test]
fn what_is_merged_keeps_to_the_bound_of_a_ue() {
    let mut rig = Rig::new(2, 256 * 1024, 1 << 24);
    for number in 0..100 {
        rig.push(0, &packet(1, 0, false, 1300, number));
        rig.push(1, &packet(2, 0, false, 1300, number));
    }
    let (from, into) = (rig.ues[0].take().expect("it waits"), rig.ues[1].expect("it waits"));
    rig.queues.merge(from, into, &rig.counters);
    assert_eq!((rig.queues.octets(), rig.drops("flow_queue_full")), (256 * 1024, 72));
    assert_eq!(rig.queues.discard(into), 128);
}

#[test]
fn what_is_discarded_is_counted_and_leaves_the_round() {
    let mut rig = Rig::new(2, 1 << 20, 1 << 22);
    let (bulk, virtio) = super_packet(1, 30);
    rig.push_offloaded(0, &bulk, &virtio);
    rig.push(0, &packet(2, 46, false, 160, 0));
    rig.push(1, &packet(1, 0, false, 160, 3));
    let (first, second) = (rig.ues[0].take().expect("queued"), rig.ues[1].expect("queued"));
    rig.queues.activate(first);
    rig.queues.activate(second);
    rig.pop(1);
    rig.push(1, &packet(1, 0, false, 160, 4));
    assert_eq!(rig.queues.discard(first), 31);
    assert_eq!(rig.queues.next_turn(), Some(1));
    assert_eq!(rig.queues.next_turn(), None);
    assert_eq!(rig.drain(1), [(1, 4)]);
    assert_eq!(rig.queues.octets(), 0);
}

proptest! {
    /// Whatever comes and goes: bounds hold, nothing is lost uncounted, no flow overtakes itself.
    #[test]
    fn any_traffic_is_sent_in_order_or_counted(
        steps in prop::collection::vec((0..4usize, 0..12u8, 0..8u8, 30..1400usize), 1..400),
    ) {
        let mut rig = Rig::new(4, 80_000, 200_000);
        let (mut pushed, mut popped) = (0u64, Vec::new());
        for (number, (ue, flow, what, len)) in steps.into_iter().enumerate() {
            match what {
                0 => {
                    let (bulk, virtio) = super_packet(200 + flow, len / 30);
                    pushed += (len / 30) as u64;
                    rig.push_offloaded(ue, &bulk, &virtio);
                }
                1 | 2 => {
                    let dscp = if what == 1 { 46 } else { 0 };
                    pushed += 1;
                    rig.push(ue, &packet(flow + 20 * what, dscp, len % 2 == 0, len, number as u32));
                }
                3 => rig.now += MS * u32::from(flow),
                _ => popped.extend(rig.pop(ue).map(|packet| (ue, packet))),
            }
            prop_assert!(rig.queues.octets() <= 200_000);
        }
        for ue in 0..4 {
            while let Some(packet) = rig.pop(ue) {
                popped.push((ue, packet));
            }
        }
        let dropped: u64 = rig.counters.drops().map(|(_, count)| count).sum();
        prop_assert_eq!(pushed, popped.len() as u64 + dropped);
        prop_assert_eq!(rig.queues.octets(), 0);
        prop_assert!(rig.ues.iter().all(Option::is_none));
        let mut last = std::collections::HashMap::new();
        for (ue, packet) in popped.iter().filter(|(_, packet)| flow_of(packet) < 200) {
            let before = last.insert((*ue, flow_of(packet)), number_of(packet));
            prop_assert!(before.is_none_or(|before| before < number_of(packet)));
        }
    }
}
