//! Super-packets of the core, and what waits for a busy connection.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use codec::ip::{Checksum, Gso, InnerHeader, VirtioHeader};

use crate::rig::{CORE, Peer, Rig, Ue, attached, udp};

const MSS: usize = 1348;

/// How long nothing comes when nothing more will.
const QUIET: Duration = Duration::from_millis(400);

/// A TCP super-packet from the core as the kernel hands it over, starting at `sequence`.
pub fn super_packet(dst: Ipv4Addr, sequence: u32, payload: &[u8]) -> (VirtioHeader, Vec<u8>) {
    let mut tcp = vec![0, 80, 0x30, 0x39];
    tcp.extend(sequence.to_be_bytes());
    tcp.extend([0, 0, 0, 0, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
    tcp.extend(payload);
    let pseudo = Checksum::new().with_pseudo_header(IpAddr::V4(CORE), IpAddr::V4(dst), 6, tcp.len() as u32);
    tcp[16..18].copy_from_slice(&pseudo.partial().to_be_bytes());
    let mut packet = vec![0x45, 0];
    packet.extend((20 + tcp.len() as u16).to_be_bytes());
    packet.extend([0, 1, 0x40, 0, 64, 6, 0, 0]);
    packet.extend(CORE.octets());
    packet.extend(dst.octets());
    packet.extend(tcp);
    let virtio = VirtioHeader {
        flags: VirtioHeader::NEEDS_CSUM,
        gso: Gso::Tcp4,
        hdr_len: 40,
        gso_size: MSS as u16,
        csum_start: 20,
        csum_offset: 16,
        ..VirtioHeader::default()
    };
    (virtio, packet)
}

fn sequence_of(packet: &[u8]) -> u32 {
    u32::from_be_bytes(packet[24..28].try_into().expect("four octets"))
}

fn assert_checksums(packet: &[u8]) {
    let inner = InnerHeader::parse(packet).expect("a packet");
    assert_eq!(Checksum::new().with(&packet[..20]).finish(), 0);
    let segment = &packet[inner.transport_at..];
    let sum = Checksum::new().with_pseudo_header(inner.src, inner.dst, 6, segment.len() as u32);
    assert_eq!(sum.with(segment).finish(), 0);
}

#[test]
fn a_super_packet_arrives_as_packets_of_the_mtu() {
    let rig = Rig::new(1);
    let (mut ue, mut peer) = attached(&rig, 0, 0);
    let payload: Vec<u8> = (0..60_000u32).map(|octet| (octet / 7) as u8).collect();
    for round in 0..4 {
        let (virtio, packet) = super_packet(ue.addr, round * 60_000, &payload);
        rig.to_ue_offloaded(0, &virtio, &packet);
        let mut received: Vec<u8> = Vec::new();
        while received.len() < payload.len() {
            let segment = ue.open(peer.receive());
            assert!(segment.len() <= 1400);
            assert_eq!(sequence_of(&segment), round * 60_000 + received.len() as u32);
            assert_checksums(&segment);
            received.extend(&segment[40..]);
        }
        assert_eq!(received, payload);
    }
    assert_eq!(rig.seats[0].counters.downlink_packets.get(), 4 * 60_000u64.div_ceil(MSS as u64));
}

#[test]
fn an_offload_that_does_not_fit_is_dropped_under_its_reason() {
    let rig = Rig::new(1);
    let (mut ue, mut peer) = attached(&rig, 0, 0);
    let (virtio, packet) = super_packet(ue.addr, 0, &[1; 5000]);
    rig.to_ue_offloaded(0, &VirtioHeader { gso: Gso::Tcp6, ..virtio }, &packet);
    rig.to_ue_offloaded(0, &VirtioHeader { csum_start: 60_000, ..virtio }, &packet);
    // Each counts as the packets it stands for.
    rig.until("bad", 2 * 4, |rig| rig.drops(0, "bad_offload"));
    rig.to_ue(0, &packet);
    rig.until("too big", 1, |rig| rig.drops(0, "too_big"));
    rig.to_ue(0, &udp(CORE, ue.addr, b"still served"));
    assert!(ue.open(peer.receive()).ends_with(b"still served"));
}

/// Sends super-packets to a UE.
fn backlog(rig: &Rig, ue: &Ue, packets: u32) {
    for number in 0..packets {
        let (virtio, packet) = super_packet(ue.addr, number * 60_000, &[7; 60_000]);
        rig.to_ue_offloaded(0, &virtio, &packet);
    }
}

/// The next packet, of a stream that was not read for a while; `None` when nothing more comes.
fn next(ue: &mut Ue, peer: &mut Peer) -> Option<Vec<u8>> {
    let mut length = [0; 2];
    peer.stream.read_exact(&mut length).ok()?;
    let mut body = vec![0; usize::from(u16::from_be_bytes(length)) - 2];
    peer.stream.read_exact(&mut body).expect("the frame is whole");
    Some(ue.open(body))
}

/// Lets voice come to a backlog of super-packets; whether it went out between two segments of one of them.
fn voice_divides_a_super_packet() -> bool {
    let rig = Rig::new(1);
    let (mut ue, mut peer) = attached(&rig, 0, 0);
    // More than loopback buffers, and less than drops what is being cut.
    backlog(&rig, &ue, 14);
    let mut voice = udp(CORE, ue.addr, &[9; 132]);
    voice[1] = 46 << 2;
    rig.to_ue(0, &voice);
    peer.stream.set_read_timeout(Some(QUIET)).expect("timeout");
    let (mut order, mut voice_at) = (Vec::new(), None);
    while let Some(packet) = next(&mut ue, &mut peer) {
        match packet[9] {
            17 => voice_at = Some(order.len()),
            _ => order.push(sequence_of(&packet)),
        }
    }
    let at = voice_at.expect("voice is never dropped for bulk");
    assert!(at + 100 < order.len(), "{at} of {}", order.len());
    assert!(order.is_sorted(), "bulk stays in order");
    order[at - 1] / 60_000 == order[at] / 60_000
}

#[test]
fn voice_passes_between_the_segments_of_a_super_packet() {
    // One time in 45 it meets the end of one by chance.
    assert!((0..4).any(|_| voice_divides_a_super_packet()));
}

#[test]
fn a_flooded_ue_takes_nothing_from_others() {
    let rig = Rig::new(1);
    let (greedy, mut greedy_peer) = attached(&rig, 0, 0);
    let mut others: Vec<(Ue, Peer)> = (1..20).map(|number| attached(&rig, 0, number)).collect();
    let reader = std::thread::spawn(move || {
        let mut sink = vec![0; 1 << 16];
        while greedy_peer.stream.read(&mut sink).is_ok_and(|len| len > 0) {}
    });
    for round in 0..40u8 {
        backlog(&rig, &greedy, 4);
        for (ue, _) in &others {
            rig.to_ue(0, &udp(CORE, ue.addr, &[round; 160]));
        }
    }
    for (ue, peer) in &mut others {
        for round in 0..40u8 {
            assert!(ue.open(peer.receive()).ends_with(&[round; 160]));
        }
    }
    drop(rig);
    reader.join().expect("the reader ends with the connection");
}

#[test]
fn r8289_a_reader_too_slow_for_the_rate_costs_packets_of_its_own_flow() {
    let rig = Rig::new(1);
    let (mut ue, mut peer) = attached(&rig, 0, 0);
    backlog(&rig, &ue, 100);
    peer.stream.set_read_timeout(Some(QUIET)).expect("timeout");
    let mut received = 0u64;
    while next(&mut ue, &mut peer).is_some() {
        received += 1;
        if received.is_multiple_of(8) {
            std::thread::sleep(Duration::from_millis(1));
        }
        if received.is_multiple_of(45) && received < 4000 {
            backlog(&rig, &ue, 1);
        }
    }
    assert!(rig.drops(0, "codel") > 0);
    let lost = rig.drops(0, "codel") + rig.drops(0, "flow_queue_full");
    assert_eq!((received + lost) % 60_000u64.div_ceil(MSS as u64), 0, "whole super-packets went in");
}

#[test]
fn what_waits_follows_the_ue_to_its_new_connection() {
    let rig = Rig::new(1);
    let (mut ue, mut old) = attached(&rig, 0, 0);
    backlog(&rig, &ue, 100);
    rig.to_ue(0, &udp(CORE, ue.addr, b"the last one"));
    rig.until("dropped", 1, |rig| u64::from(rig.drops(0, "flow_queue_full") > 0));
    let mut new = Peer::connect(&rig, 0);
    new.send(&ue.frame_to(CORE, b"moved"));
    rig.core_receives(0);
    old.stream.set_read_timeout(Some(QUIET)).expect("timeout");
    new.stream.set_read_timeout(Some(QUIET)).expect("timeout");
    // What had been sealed has the lower sequence numbers: the replay window wants it first.
    let on_old = std::iter::from_fn(|| next(&mut ue, &mut old)).count();
    let on_new = std::iter::from_fn(|| next(&mut ue, &mut new)).count();
    assert!(on_new > 100 && on_old > 100, "{on_new} on the new connection, {on_old} on the old one");
}
