//! Packets from the core to the UE, and which connection they take.

use std::net::Ipv4Addr;

use codec::ip::{Gso, VirtioHeader};
use gateway::types::WorkerId;
use gateway::worker::inbox::ToWorker;

use crate::queueing::super_packet;
use crate::rig::{CORE, Peer, Rig, Ue, attached, ike_frame, udp};

#[test]
fn packets_reach_their_ue_in_order_and_nobody_else() {
    let rig = Rig::new(1);
    let (mut ue, mut peer) = attached(&rig, 0, 0);
    let (_other, mut bystander) = attached(&rig, 0, 1);
    for number in 0..50u8 {
        rig.to_ue(0, &udp(CORE, ue.addr, &[number; 700]));
    }
    for number in 0..50u8 {
        assert_eq!(ue.open(peer.receive()), udp(CORE, ue.addr, &[number; 700]));
    }
    assert!(bystander.is_quiet());
    assert_eq!(rig.seats[0].counters.downlink_packets.get(), 50);
}

#[test]
fn cbc_packets_of_many_ues_are_sealed_together_and_reach_each_in_order() {
    let rig = Rig::new(1);
    let mut ues: Vec<(Ue, Peer)> = (0..6)
        .map(|number| {
            let (mut ue, mut peer) = (Ue::install_cbc(&rig, 0, number), Peer::connect(&rig, 0));
            peer.send(&ue.frame_to(CORE, b"attach"));
            rig.core_receives(0);
            (ue, peer)
        })
        .collect();
    // More than a batch, the UEs in turn, lengths that need every padding.
    let payload = |number: usize, packet: usize| vec![(number * 16 + packet) as u8; 100 + packet * 13];
    std::thread::scope(|scope| {
        let addrs: Vec<Ipv4Addr> = ues.iter().map(|(ue, _)| ue.addr).collect();
        let rig = &rig;
        scope.spawn(move || {
            for packet in 0..80 {
                for (number, addr) in addrs.iter().enumerate() {
                    rig.to_ue(0, &udp(CORE, *addr, &payload(number, packet)));
                }
            }
        });
        for packet in 0..80 {
            for (number, (ue, peer)) in ues.iter_mut().enumerate() {
                let wanted = udp(CORE, ue.addr, &payload(number, packet));
                assert_eq!(ue.open(peer.receive()), wanted, "UE {number}, packet {packet}");
            }
        }
    });
    assert_eq!(rig.seats[0].counters.downlink_packets.get(), 480);
}

#[test]
fn r9329_6_1_15_only_a_fresh_authentic_message_moves_the_downlink() {
    let rig = Rig::new(1);
    let (mut ue, mut old) = attached(&rig, 0, 0);
    let used = ue.frame_to(CORE, b"used");
    old.send(&used);
    rig.core_receives(0);
    // Neither accept, prefix, nor a replay moves it.
    let mut new = Peer::connect(&rig, 0);
    new.send(&used);
    rig.until("replay", 1, |rig| rig.drops(0, "replayed"));
    rig.to_ue(0, &udp(CORE, ue.addr, b"one"));
    assert!(ue.open(old.receive()).ends_with(b"one"));
    // A fresh packet does, and the old connection is still read (9329-6.1-16).
    new.send(&ue.frame_to(CORE, b"fresh"));
    rig.core_receives(0);
    rig.to_ue(0, &udp(CORE, ue.addr, b"two"));
    assert!(ue.open(new.receive()).ends_with(b"two"));
    old.send(&ue.frame_to(CORE, b"on the old one"));
    assert!(rig.core_receives(0).ends_with(b"on the old one"));
    rig.to_ue(0, &udp(CORE, ue.addr, b"three"));
    assert!(ue.open(old.receive()).ends_with(b"three"), "the last valid message counts");
}

#[test]
fn r9329_6_1_4_and_6_1_5_a_session_outlives_its_connection() {
    let rig = Rig::new(1);
    let (mut ue, peer) = attached(&rig, 0, 0);
    drop(peer);
    rig.until("closed", 1, |rig| rig.closes(0, "peer"));
    rig.to_ue(0, &udp(CORE, ue.addr, b"nobody there"));
    rig.until("d7", 1, |rig| rig.drops(0, "no_connection"));
    let mut again = Peer::connect(&rig, 0);
    again.send(&ue.frame_to(CORE, b"back"));
    rig.core_receives(0);
    rig.to_ue(0, &udp(CORE, ue.addr, b"welcome"));
    assert!(ue.open(again.receive()).ends_with(b"welcome"));
}

#[test]
fn r9329_6_1_4_closing_a_connection_never_touches_the_one_that_follows_it() {
    const ROUNDS: u64 = 100;
    let rig = Rig::new(1);
    let (mut ue, mut peer) = attached(&rig, 0, 0);
    for _ in 0..ROUNDS {
        drop(peer);
        peer = Peer::connect(&rig, 0);
        peer.send(&ue.frame_to(CORE, b"back"));
        rig.core_receives(0);
    }
    rig.to_ue(0, &udp(CORE, ue.addr, b"still here"));
    assert!(ue.open(peer.receive()).ends_with(b"still here"));
    rig.until("every round's close", ROUNDS, |rig| rig.closes(0, "peer"));
}

#[test]
fn r7296_2_8_a_rekeyed_downlink_waits_for_the_ue_or_the_delete() {
    let rig = Rig::new(1);
    let (mut ue, mut peer) = attached(&rig, 0, 0);
    let spi = WorkerId(0).spi(0x77_0000).expect("not reserved");
    let mut next = Ue::install_child(&rig, 0, 0, spi, Some(ue.spi_in));
    rig.fence(0);
    rig.to_ue(0, &udp(CORE, ue.addr, b"old SA"));
    assert!(ue.open(peer.receive()).ends_with(b"old SA"));
    peer.send(&next.frame_to(CORE, b"first use"));
    rig.core_receives(0);
    rig.to_ue(0, &udp(CORE, ue.addr, b"new SA"));
    assert!(next.open(peer.receive()).ends_with(b"new SA"));

    let spi = WorkerId(0).spi(0x88_0000).expect("not reserved");
    let mut third = Ue::install_child(&rig, 0, 0, spi, Some(next.spi_in));
    rig.order(0, ToWorker::RemoveChild { session: ue.session, spi_in: next.spi_in });
    rig.fence(0);
    rig.to_ue(0, &udp(CORE, ue.addr, b"deleted"));
    assert!(third.open(peer.receive()).ends_with(b"deleted"));
}

#[test]
fn r7296_2_8_what_waits_when_a_child_sa_is_deleted_leaves_under_the_one_in_its_place() {
    let rig = Rig::new(1);
    let (mut ue, mut peer) = attached(&rig, 0, 0);
    let mut sent = 0;
    while rig.drops(0, "flow_queue_full") == 0 {
        rig.to_ue(0, &udp(CORE, ue.addr, &[7; 1300]));
        sent += 1;
    }
    let spi = WorkerId(0).spi(0x77_0000).expect("not reserved");
    let mut next = Ue::install_child(&rig, 0, 0, spi, Some(ue.spi_in));
    rig.order(0, ToWorker::RemoveChild { session: ue.session, spi_in: ue.spi_in });
    rig.fence(0);
    let (mut received, mut by_next) = (0, 0);
    let dropped = |rig: &Rig| rig.drops(0, "flow_queue_full") + rig.drops(0, "codel");
    let old_spi = peer.receive();
    received += 1;
    assert!(ue.open(old_spi.clone()).ends_with(&[7; 1300]));
    while received + dropped(&rig) < sent {
        let body = peer.receive();
        received += 1;
        if body[..4] == old_spi[..4] {
            assert!(ue.open(body).ends_with(&[7; 1300]));
            assert_eq!(by_next, 0, "in their order");
        } else {
            assert!(next.open(body).ends_with(&[7; 1300]));
            by_next += 1;
        }
    }
    assert!(by_next > 100, "{by_next} of {received}");
    assert_eq!(rig.drops(0, "no_session"), 0);
}

#[test]
fn ike_overtakes_queued_esp_but_never_cuts_a_frame() {
    let rig = Rig::new(1);
    let (mut ue, mut peer) = attached(&rig, 0, 0);
    let (_, conn) = rig.bound();
    for number in 0..20u8 {
        rig.to_ue(0, &udp(CORE, ue.addr, &[number; 1000]));
    }
    rig.order(0, ToWorker::Send { conn, message: vec![9; 300].into() });
    let (mut esp, mut ike) = (0, 0);
    for _ in 0..21 {
        let body = peer.receive();
        if body[..4] == [0; 4] {
            assert_eq!(body[4..], [9; 300]);
            ike += 1;
        } else {
            assert!(ue.open(body).ends_with(&[esp; 1000]));
            esp += 1;
        }
    }
    assert_eq!((esp, ike), (20, 1));
}

#[test]
fn unknown_and_unwanted_destinations_are_counted() {
    let rig = Rig::new(1);
    let (_ue, mut peer) = attached(&rig, 0, 0);
    rig.to_ue(0, &udp(CORE, Ipv4Addr::new(10, 64, 9, 9), b"nobody"));
    rig.until("nobody", 1, |rig| rig.drops(0, "no_session"));
    rig.to_ue(0, &[0x45, 0, 0]);
    rig.until("garbage", 1, |rig| rig.drops(0, "bad_inner_packet"));
    assert!(peer.is_quiet());
}

#[test]
fn a_super_packet_that_is_refused_counts_as_the_packets_it_stands_for() {
    let rig = Rig::new(1);
    let (mut ue, mut peer) = attached(&rig, 0, 0);
    let nobody = Ipv4Addr::new(10, 64, 9, 9);
    let (virtio, packet) = super_packet(nobody, 0, &[1; 60_000]);
    rig.to_ue_offloaded(0, &virtio, &packet);
    rig.until("nobody", 45, |rig| rig.drops(0, "no_session"));
    // The last segment may be short, and need not be there.
    for (payload, packets) in [(1348, 1), (1349, 2), (2 * 1348, 2)] {
        let (before, (virtio, packet)) =
            (rig.drops(0, "no_session"), super_packet(nobody, 0, &vec![1; payload]));
        rig.to_ue_offloaded(0, &virtio, &packet);
        rig.until("nobody", before + packets, |rig| rig.drops(0, "no_session"));
    }
    // Datagrams larger than the MTU.
    let packet = udp(CORE, ue.addr, &[1; 6000]);
    let virtio = VirtioHeader { gso: Gso::Udp, gso_size: 2000, csum_offset: 6, ..virtio };
    rig.to_ue_offloaded(0, &virtio, &packet);
    rig.until("too big", 3, |rig| rig.drops(0, "too_big"));
    // Headers that contradict themselves: nothing of them is divided by, or goes below nothing.
    for (bad, packets) in [
        (VirtioHeader { gso_size: 0, ..virtio }, 1),
        (VirtioHeader { csum_start: u16::MAX, gso_size: 1000, ..virtio }, 7),
        (VirtioHeader { gso: Gso::Tcp4, gso_size: u16::MAX, ..virtio }, 1),
        (VirtioHeader { gso: Gso::Other(9), ..virtio }, 1),
    ] {
        let before = rig.drops(0, "bad_offload");
        rig.to_ue_offloaded(0, &bad, &packet);
        rig.until("contradicting", before + packets, |rig| rig.drops(0, "bad_offload"));
    }
    rig.to_ue(0, &udp(CORE, ue.addr, b"behind"));
    assert!(ue.open(peer.receive()).ends_with(b"behind"));
}

#[test]
fn a_packet_beyond_the_inner_mtu_is_answered_with_packet_too_big() {
    let rig = Rig::new(1);
    let (ue, mut peer) = attached(&rig, 0, 0);
    rig.to_ue(0, &udp(CORE, ue.addr, &[0; 1480]));
    let answer = rig.core_receives(0);
    assert_eq!((answer[9], answer[20], answer[21]), (1, 3, 4), "ICMP, unreachable, fragmentation needed");
    assert_eq!(answer[16..20], CORE.octets());
    assert_eq!(u16::from_be_bytes([answer[26], answer[27]]), 1400);
    assert!(peer.is_quiet());
}

#[test]
fn r9329_6_1_3_after_the_session_the_connection_serves_another_or_closes() {
    let rig = Rig::new(1);
    let (ue, mut peer) = attached(&rig, 0, 0);
    rig.order(0, ToWorker::CloseSession { session: ue.session, report: false });
    rig.fence(0);
    peer.send(&ike_frame(&[5; 28]));
    let (conn, _) = rig.ike();
    rig.order(0, ToWorker::Handled { conn, good: true });
    assert!(peer.is_closed(), "nothing came of it");
    rig.until("closed", 1, |rig| rig.closes(0, "session_over"));
}
