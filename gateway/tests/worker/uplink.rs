//! ESP from the UE to the core.

use std::io::{self, IoSlice};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use codec::esp::EspSpi;
use codec::ip::Checksum;
use gateway::io::tun::{InnerDevice, Offloads};
use gateway::types::WorkerId;
use gateway::worker::inbox::{ToControl, ToWorker};

use crate::rig::{CORE, Offloading, Peer, Rig, Ue, ipv4, limits, summed_udp, udp};

#[test]
fn r9329_6_1_10_a_session_is_recognised_by_its_esp_spi_alone() {
    let rig = Rig::new(1);
    let mut ue = Ue::install(&rig, 0, 0);
    let mut peer = Peer::connect(&rig, 0);
    peer.send(&ue.frame_to(CORE, b"hello"));
    assert_eq!(rig.core_receives(0), udp(ue.addr, CORE, b"hello"));
    assert_eq!(rig.bound().0, ue.session);
}

#[test]
fn r4303_3_4_3_replays_and_old_packets_are_dropped_and_change_nothing() {
    let rig = Rig::new(1);
    let mut ue = Ue::install(&rig, 0, 0);
    let mut peer = Peer::connect(&rig, 0);
    let first = ue.frame_to(CORE, b"first");
    let second = ue.frame_to(CORE, b"second");
    peer.send(&[&second[..], &first, &first, &second].concat());
    assert!(rig.core_receives(0).ends_with(b"second"));
    assert!(rig.core_receives(0).ends_with(b"first"));
    rig.until("replays", 2, |rig| rig.drops(0, "replayed"));
    for _ in 0..200 {
        let _ = ue.frame_to(CORE, b"skipped");
    }
    peer.send(&ue.frame_to(CORE, b"ahead"));
    assert!(rig.core_receives(0).ends_with(b"ahead"));
    peer.send(&first);
    rig.until("old", 1, |rig| rig.drops(0, "left_of_window"));
}

#[test]
fn d6_a_bad_icv_closes_only_its_connection() {
    let rig = Rig::new(1);
    let (mut ue, mut other) = (Ue::install(&rig, 0, 0), Ue::install(&rig, 0, 1));
    let (mut peer, mut bystander) = (Peer::connect(&rig, 0), Peer::connect(&rig, 0));
    peer.send(&ue.frame_to(CORE, b"good"));
    rig.core_receives(0);
    bystander.send(&other.frame_to(CORE, b"other"));
    rig.core_receives(0);
    let mut forged = ue.frame_to(CORE, b"forged");
    *forged.last_mut().expect("not empty") ^= 1;
    Peer::connect(&rig, 0).send(&forged);
    rig.until("closed", 1, |rig| rig.closes(0, "auth_failed"));
    for (ue, peer) in [(&mut ue, &mut peer), (&mut other, &mut bystander)] {
        peer.send(&ue.frame_to(CORE, b"goes on"));
        assert!(rig.core_receives(0).ends_with(b"goes on"));
    }
}

#[test]
fn cbc_packets_of_many_ues_open_together_and_each_bad_one_fails_alone() {
    let rig = Rig::new(1);
    let mut ues: Vec<(Ue, Peer)> =
        (0..5).map(|number| (Ue::install_cbc(&rig, 0, number), Peer::connect(&rig, 0))).collect();
    // UE 4 forges its third packet of 60, UE 3 sends each twice; more than one batch in all.
    const PACKETS: u8 = 60;
    for (number, (ue, peer)) in ues.iter_mut().enumerate() {
        let mut stream = Vec::new();
        for packet in 0..PACKETS {
            let mut frame = ue.frame_to(CORE, &[number as u8, packet, 7, 7]);
            if (number, packet) == (4, 2) {
                *frame.last_mut().expect("not empty") ^= 1;
            }
            stream.extend_from_slice(&frame.repeat(if number == 3 { 2 } else { 1 }));
        }
        peer.send(&stream);
    }
    let mut next = [0; 5];
    for _ in 0..4 * usize::from(PACKETS) + 2 {
        let packet = rig.core_receives(0);
        let &[.., number, index, _, _] = &packet[..] else { panic!("short") };
        assert_eq!(index, next[usize::from(number)], "UE {number}");
        next[usize::from(number)] += 1;
    }
    assert_eq!(next, [PACKETS, PACKETS, PACKETS, PACKETS, 2]);
    rig.until("replays", PACKETS.into(), |rig| rig.drops(0, "replayed"));
    rig.until("forged", 1, |rig| rig.drops(0, "bad_icv"));
    rig.until("closed", 1, |rig| rig.closes(0, "auth_failed"));
    assert!(rig.core_is_silent(0), "nothing behind the forged packet");
}

#[test]
fn r9329_6_1_9_a_connection_with_a_session_does_not_carry_another() {
    let rig = Rig::new(1);
    let (mut ue, mut other) = (Ue::install(&rig, 0, 0), Ue::install(&rig, 0, 1));
    let mut peer = Peer::connect(&rig, 0);
    peer.send(&ue.frame_to(CORE, b"mine"));
    rig.core_receives(0);
    let foreign = other.frame_to(CORE, b"foreign");
    peer.send(&foreign);
    rig.until("refused", 1, |rig| rig.drops(0, "foreign_spi"));
    assert!(rig.core_is_silent(0));
    // The other session's sequence state did not move.
    Peer::connect(&rig, 0).send(&foreign);
    assert!(rig.core_receives(0).ends_with(b"foreign"));
}

#[test]
fn r9329_6_1_7_a_partial_frame_dies_with_its_connection() {
    let rig = Rig::new(1);
    let mut ue = Ue::install(&rig, 0, 0);
    let frame = ue.frame_to(CORE, b"cut in half");
    let (head, tail) = frame.split_at(frame.len() / 2);
    let mut first = Peer::connect(&rig, 0);
    first.send(head);
    drop(first);
    rig.until("closed", 1, |rig| rig.closes(0, "peer"));
    let mut second = Peer::connect(&rig, 0);
    second.send(tail);
    assert!(rig.core_is_silent(0));
}

#[test]
fn r9329_6_1_8_without_the_prefix_nothing_is_accepted() {
    let rig = Rig::new(1);
    let mut ue = Ue::install(&rig, 0, 0);
    let frame = ue.frame_to(CORE, b"packet");
    let mut peer = Peer::connect_bare(&rig, 0);
    peer.send(&frame);
    assert!(peer.is_closed());
    assert!(rig.core_is_silent(0));
    Peer::connect(&rig, 0).send(&frame);
    assert!(rig.core_receives(0).ends_with(b"packet"), "the sequence number is still fresh");
}

#[test]
fn selectors_isolation_and_the_gateways_own_addresses_hold() {
    let rig = Rig::new(1);
    let mut ue = Ue::install(&rig, 0, 0);
    let mut peer = Peer::connect(&rig, 0);
    let spoofed = udp(Ipv4Addr::new(10, 64, 0, 99), CORE, b"spoofed");
    peer.send(&ue.frame(&spoofed));
    rig.until("source", 1, |rig| rig.drops(0, "uplink_selector"));
    peer.send(&ue.frame_to(Ipv4Addr::new(10, 64, 7, 7), b"neighbour"));
    rig.until("neighbour", 1, |rig| rig.drops(0, "ue_to_ue"));
    peer.send(&ue.frame_to(Ipv4Addr::new(192, 0, 2, 9), b"gateway"));
    rig.until("gateway", 1, |rig| rig.drops(0, "to_gateway"));
    peer.send(&ue.frame_to(CORE, b"right"));
    assert!(rig.core_receives(0).ends_with(b"right"));
}

#[test]
fn packets_that_continue_a_run_are_judged_like_any_other() {
    judge_those_that_continue(Ue::install);
}

#[test]
fn so_are_those_that_were_opened_together() {
    judge_those_that_continue(Ue::install_cbc);
}

fn judge_those_that_continue(install: fn(&Rig, usize, u8) -> Ue) {
    let rig = Rig::over(1, limits(), true, |tun| Box::new(Offloading(tun)));
    let (mut ue, mut other) = (install(&rig, 0, 0), install(&rig, 0, 1));
    let (mut peer, mut neighbour) = (Peer::connect(&rig, 0), Peer::connect(&rig, 0));
    neighbour.send(&other.frame(&summed_udp(other.addr, CORE, b"bound")));
    rig.core_receives_joined(0);
    let right = |index: u8, from: Ipv4Addr| summed_udp(from, CORE, &[index; 100]);
    let mut corrupt = right(99, ue.addr);
    *corrupt.last_mut().expect("not empty") ^= 1;
    let mut stream = Vec::new();
    for index in 0..4 {
        stream.extend(ue.frame(&right(index, ue.addr)));
    }
    // The same flow by all but one field each; another SA of another UE; one that came before.
    stream.extend(ue.frame(&right(98, other.addr)));
    stream.extend(ue.frame(&right(4, ue.addr)));
    stream.extend(ue.frame(&summed_udp(ue.addr, other.addr, &[97; 100])));
    stream.extend(ue.frame(&right(5, ue.addr)));
    stream.extend(other.frame(&right(96, ue.addr)));
    let again = ue.frame(&right(6, ue.addr));
    stream.extend([&again[..], &again].concat());
    stream.extend(ue.frame(&corrupt));
    stream.extend(ue.frame(&right(7, ue.addr)));
    peer.send(&stream);
    let mut arrived = Vec::new();
    while arrived.len() < 9 {
        arrived.extend(rig.core_receives_joined(0).iter().filter_map(|packet| packet.last().copied()));
    }
    // What is wrong with a checksum inside is between the UE and its far end, and stays in its place.
    assert_eq!(arrived, [0, 1, 2, 3, 4, 5, 6, 98, 7]);
    assert_eq!((rig.drops(0, "uplink_selector"), rig.drops(0, "ue_to_ue")), (1, 1));
    assert_eq!((rig.drops(0, "foreign_spi"), rig.drops(0, "replayed")), (1, 1));
    assert_eq!(rig.all_drops(0), 4);
}

/// A device whose writes wait while the gate is locked, so that what arrives meanwhile is one turn's. It takes long
/// super-packets, and remembers what it was given.
#[derive(Clone, Default)]
struct Gate {
    gate: Arc<Mutex<()>>,
    written: Arc<Mutex<Vec<Vec<u8>>>>,
}

struct Gated(Offloading, Gate);

impl AsFd for Gated {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl InnerDevice for Gated {
    fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        self.0.read(buffer)
    }

    fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let packet = parts.iter().flat_map(|part| part.to_vec()).collect();
        self.1.written.lock().expect("whole").push(packet);
        let _open = self.1.gate.lock();
        self.0.write(parts)
    }

    fn offloads(&self) -> Offloads {
        Offloads { tcp4_octets: 200_000, ..self.0.offloads() }
    }
}

#[test]
fn a_packet_that_continues_a_run_moves_its_session_all_the_same() {
    let gate = Gate::default();
    let rig = Rig::over(1, limits(), true, |tun| Box::new(Gated(Offloading(tun), gate.clone())));
    let mut ue = Ue::install(&rig, 0, 0);
    let mut peers = [Peer::connect(&rig, 0), Peer::connect(&rig, 0)];
    let mut some = |index: u8| -> Vec<u8> {
        (0..3).flat_map(|_| ue.frame(&summed_udp(ue.addr, CORE, &[index; 100]))).collect()
    };
    // The session has been on both.
    let conns = [0, 1].map(|of| {
        peers[of].send(&some(0));
        let (_, conn) = rig.bound();
        assert_eq!(rig.core_receives_joined(0).len(), 3);
        conn
    });
    let closed = gate.gate.lock();
    peers[1].send(&some(1));
    std::thread::sleep(Duration::from_millis(100));
    // The worker stands at the gate; what these bring is of its next turn, and one run.
    for of in [1, 0] {
        peers[of].send(&some(2));
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(closed);
    let sizes = [0, 1].map(|_| rig.core_receives_joined(0).len());
    assert_eq!(sizes, [3, 6], "one run over both connections");
    assert_eq!(rig.bound().1, conns[0], "told once, where it is by now");
    rig.to_ue(0, &udp(CORE, ue.addr, b"where it was heard last"));
    assert!(ue.open(peers[0].receive()).ends_with(b"heard last"));
}

/// Segment `index` of a flow of TCP, 1,000 octets of data; every fortieth asks to be passed on.
fn tcp_segment(src: Ipv4Addr, index: u32) -> Vec<u8> {
    let push = if index % 40 == 39 { 0x08 } else { 0 };
    let mut tcp =
        [&[0x1f, 0x90, 0, 80][..], &(index * 1000).to_be_bytes(), &[0; 12], &[index as u8; 1000]].concat();
    tcp[12..16].copy_from_slice(&[0x50, 0x10 | push, 0xff, 0xff]);
    let sum = Checksum::new().with_pseudo_header(src.into(), CORE.into(), 6, tcp.len() as u32).with(&tcp);
    tcp[16..18].copy_from_slice(&sum.finish().to_be_bytes());
    let mut packet = ipv4(src, CORE, &[], 0x4000, &tcp);
    packet[9] = 6;
    packet[10..12].fill(0);
    let sum = Checksum::new().with(&packet[..20]).finish();
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

#[test]
fn a_device_that_takes_long_super_packets_gets_them_whole_and_in_order() {
    let gate = Gate::default();
    let rig = Rig::over(1, limits(), true, |tun| Box::new(Gated(Offloading(tun), gate.clone())));
    let mut ue = Ue::install(&rig, 0, 0);
    let mut peer = Peer::connect(&rig, 0);
    let closed = gate.gate.lock();
    peer.send(&ue.frame(&tcp_segment(ue.addr, 0)));
    std::thread::sleep(Duration::from_millis(50));
    // The worker stands at the gate; what comes now is there at its next turn.
    let rest: Vec<u8> = (1..150).flat_map(|index| ue.frame(&tcp_segment(ue.addr, index))).collect();
    peer.send(&rest);
    std::thread::sleep(Duration::from_millis(100));
    drop(closed);
    rig.until("uplink", 150, |rig| rig.seats[0].counters.uplink_packets.get());
    let written = gate.written.lock().expect("whole");
    let header_len = 10 + 40;
    let data: Vec<u8> = written.iter().flat_map(|packet| packet[header_len..].to_vec()).collect();
    let expected: Vec<u8> = (0..150).flat_map(|index| [index as u8; 1000]).collect();
    assert_eq!(data, expected);
    let longest = written.iter().max_by_key(|packet| packet.len()).expect("some");
    assert!(longest.len() > 65_535, "longer than a header can say: {}", longest.len());
    assert_eq!(longest[12..14], [0, 0], "its Total Length");
    assert_eq!(rig.all_drops(0), 0);
}

#[test]
fn d5_packets_of_a_removed_sa_are_no_corruption() {
    let rig = Rig::new(1);
    let mut ue = Ue::install(&rig, 0, 0);
    let next_spi = WorkerId(0).spi(0x99_0000).expect("not reserved");
    let mut next = Ue::install_child(&rig, 0, 0, next_spi, Some(ue.spi_in));
    let mut peer = Peer::connect(&rig, 0);
    peer.send(&ue.frame_to(CORE, b"old"));
    rig.core_receives(0);
    rig.order(0, ToWorker::RemoveChild { session: ue.session, spi_in: ue.spi_in });
    rig.fence(0);
    for _ in 0..40 {
        peer.send(&ue.frame_to(CORE, b"late"));
    }
    rig.until("late", 40, |rig| rig.drops(0, "retired_spi"));
    peer.send(&next.frame_to(CORE, b"new"));
    assert!(rig.core_receives(0).ends_with(b"new"));
}

/// SPI of a Child SA on offer.
fn offered_spi() -> EspSpi {
    WorkerId(0).spi(0x77_0000).expect("not reserved")
}

#[test]
fn r7296_2_8_packets_for_a_child_on_offer_wait_until_it_is_in_force() {
    let rig = Rig::new(1);
    let (mut ue, mut peer) = (Ue::install(&rig, 0, 0), Peer::connect(&rig, 0));
    peer.send(&ue.frame_to(CORE, b"attach"));
    rig.core_receives(0);
    let (mut next, install) = ue.offered(0, offered_spi());
    rig.order(0, ToWorker::Announce { session: ue.session, spi_in: offered_spi() });
    rig.fence(0);
    for payload in [b"first ", b"second"] {
        peer.send(&next.frame_to(CORE, payload));
    }
    peer.send(&ue.frame_to(CORE, b"meanwhile"));
    assert!(rig.core_receives(0).ends_with(b"meanwhile"));
    rig.order(0, ToWorker::Install(install));
    assert!(rig.core_receives(0).ends_with(b"first "));
    assert!(rig.core_receives(0).ends_with(b"second"));
    peer.send(&next.frame_to(CORE, b"later"));
    assert!(rig.core_receives(0).ends_with(b"later"));
    assert_eq!(rig.drops(0, "early_esp") + rig.drops(0, "unknown_spi"), 0);
}

#[test]
fn r7296_2_8_what_waits_for_a_child_that_does_not_come_is_dropped() {
    let rig = Rig::new(1);
    let (mut ue, mut peer) = (Ue::install(&rig, 0, 0), Peer::connect(&rig, 0));
    peer.send(&ue.frame_to(CORE, b"attach"));
    rig.core_receives(0);
    let (mut next, _) = ue.offered(0, offered_spi());
    rig.order(0, ToWorker::Announce { session: ue.session, spi_in: offered_spi() });
    rig.fence(0);
    peer.send(&next.frame_to(CORE, b"early"));
    // More than may wait.
    for _ in 0..100 {
        peer.send(&next.frame_to(CORE, &[7; 1300]));
    }
    rig.until("dropped", 1, |rig| rig.drops(0, "early_esp").min(1));
    rig.order(0, ToWorker::Withdraw { spi_in: offered_spi() });
    rig.until("dropped", 101, |rig| rig.drops(0, "early_esp"));
    peer.send(&ue.frame_to(CORE, b"goes on"));
    assert!(rig.core_receives(0).ends_with(b"goes on"));
}

#[test]
fn r9329_6_2_2_early_packets_on_a_new_connection_ask_for_the_offer_again() {
    let rig = Rig::new(1);
    let ue = Ue::install(&rig, 0, 0);
    let (mut next, install) = ue.offered(0, offered_spi());
    rig.order(0, ToWorker::Announce { session: ue.session, spi_in: offered_spi() });
    rig.fence(0);
    let mut peer = Peer::connect(&rig, 0);
    peer.send(&next.frame_to(CORE, b"early"));
    let session = rig.report(|report| match report {
        ToControl::EarlyEsp { session, .. } => Some(*session),
        _ => None,
    });
    assert_eq!(session, ue.session);
    rig.order(0, ToWorker::Install(install));
    assert!(rig.core_receives(0).ends_with(b"early"));
    assert_eq!(rig.bound().0, ue.session, "the packet proves where the UE is");
}
