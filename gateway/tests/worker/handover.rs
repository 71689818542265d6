//! Connections that arrive at one worker and belong to another.

use std::time::Duration;

use codec::esp::BATCH_MAX;
use gateway::types::{CloseReason, ConnId, NetworkId, SessionId, WorkerId};
use gateway::worker::inbox::{ToControl, ToWorker};

use crate::rig::{CORE, Peer, Rig, Ue, ike_frame, limits, udp};

#[test]
fn an_esp_first_frame_takes_the_connection_to_the_owner_of_its_sa() {
    let rig = Rig::new(2);
    let mut ue = Ue::install(&rig, 1, 0);
    let mut peer = Peer::connect(&rig, 0);
    let frames: Vec<u8> = (0..30u8).flat_map(|number| ue.frame_to(CORE, &[number; 200])).collect();
    // The stream goes on in the middle of a frame while the connection travels.
    let (head, tail) = frames.split_at(frames.len() / 2 + 7);
    peer.send(head);
    peer.send(tail);
    for number in 0..30u8 {
        assert!(rig.core_receives(1).ends_with(&[number; 200]), "every frame once and in order");
    }
    rig.to_ue(1, &udp(CORE, ue.addr, b"down"));
    assert!(ue.open(peer.receive()).ends_with(b"down"));
    rig.until("handed over", 1, |rig| rig.seats[0].counters.handed_over.get());
    rig.until("left", 0, |rig| rig.seats[0].counters.connections.get());
    rig.until("arrived", 1, |rig| rig.seats[1].counters.connections.get());
}

#[test]
fn a_forged_spi_moves_a_connection_once_and_the_session_never() {
    let rig = Rig::new(2);
    let mut ue = Ue::install(&rig, 1, 0);
    let mut rightful = Peer::connect(&rig, 1);
    rightful.send(&ue.frame_to(CORE, b"mine"));
    rig.core_receives(1);
    let mut forged = ue.frame_to(CORE, b"forged");
    *forged.last_mut().expect("not empty") ^= 1;
    let mut thief = Peer::connect(&rig, 0);
    thief.send(&forged);
    assert!(thief.is_closed());
    rig.until("judged by the owner", 1, |rig| rig.closes(1, "auth_failed"));
    rig.to_ue(1, &udp(CORE, ue.addr, b"unmoved"));
    assert!(ue.open(rightful.receive()).ends_with(b"unmoved"));

    // An SPI of nobody: moved once, then an unknown SPI like any other, even if its bits name a third worker.
    let mut stray = Peer::connect(&rig, 0);
    let unknown = [&[0, 42][..], &0x1234_5641u32.to_be_bytes(), &[0; 36]].concat();
    let elsewhere = [&[0, 42][..], &0x1234_5640u32.to_be_bytes(), &[0; 36]].concat();
    stray.send(&unknown);
    stray.send(&elsewhere);
    rig.until("unknown", 2, |rig| rig.drops(1, "unknown_spi"));
    assert_eq!(rig.seats[0].counters.handed_over.get(), 2);
    assert_eq!(rig.seats[1].counters.handed_over.get(), 0);
}

#[test]
fn the_control_thread_moves_a_connection_by_an_ike_message() {
    let rig = Rig::new(2);
    let mut ue = Ue::install(&rig, 1, 0);
    let mut peer = Peer::connect(&rig, 0);
    peer.send(&ike_frame(&[3; 40]));
    let (conn, _) = rig.ike();
    rig.order(0, ToWorker::Handled { conn, good: true });
    rig.order(0, ToWorker::Send { conn, message: vec![4; 60].into() });
    rig.order(0, ToWorker::Move { conn, to: WorkerId(1), session: ue.session });
    let (old, new) = rig.report(|report| match report {
        ToControl::Moved { old, new } => Some((*old, *new)),
        _ => None,
    });
    assert_eq!(old, conn);
    assert_eq!(new.worker, WorkerId(1));
    assert_eq!(peer.receive()[4..], [4; 60], "the response is not lost on the way");
    // It is bound on arrival: the downlink flows without another packet from the UE.
    rig.to_ue(1, &udp(CORE, ue.addr, b"down"));
    assert!(ue.open(peer.receive()).ends_with(b"down"));
    peer.send(&ue.frame_to(CORE, b"up"));
    assert!(rig.core_receives(1).ends_with(b"up"));
}

#[test]
fn a_packet_on_the_wrong_queue_of_the_device_is_passed_to_its_worker() {
    let rig = Rig::new(2);
    let mut ue = Ue::install(&rig, 1, 0);
    let mut peer = Peer::connect(&rig, 1);
    peer.send(&ue.frame_to(CORE, b"attach"));
    rig.core_receives(1);
    rig.order(0, ToWorker::Route { network: NetworkId(0), addr: ue.addr.into(), worker: Some(WorkerId(1)) });
    rig.fence(0);
    rig.to_ue(0, &udp(CORE, ue.addr, b"by the wrong door"));
    assert!(ue.open(peer.receive()).ends_with(b"by the wrong door"));
}

#[test]
fn r9329_6_1_10_esp_behind_an_ike_message_on_the_wrong_worker_is_not_lost() {
    let rig = Rig::new(2);
    let mut ue = Ue::install(&rig, 1, 0);
    let mut peer = Peer::connect(&rig, 0);
    let mut stream = ike_frame(&[7; 28]);
    for number in 0..20u8 {
        stream.extend(ue.frame_to(CORE, &[number; 300]));
    }
    peer.send(&stream);
    // The connection waits for the control thread, which answers on it and then lets go.
    let (conn, _) = rig.ike();
    rig.order(0, ToWorker::Send { conn, message: vec![8; 28].into() });
    assert!(rig.core_is_silent(1));
    rig.order(0, ToWorker::Handled { conn, good: true });
    for number in 0..20u8 {
        assert!(rig.core_receives(1).ends_with(&[number; 300]));
    }
    assert_eq!(peer.receive()[4..], [8; 28]);
    assert_eq!((rig.drops(0, "unknown_spi"), rig.drops(0, "ike_no_connection")), (0, 0));
}

#[test]
fn d6_a_failed_ike_check_closes_a_connection_that_waits_to_move() {
    let rig = Rig::new(2);
    let mut ue = Ue::install(&rig, 1, 0);
    let mut peer = Peer::connect(&rig, 0);
    peer.send(&[ike_frame(&[7; 28]), ue.frame_to(CORE, b"behind")].concat());
    let (conn, _) = rig.ike();
    rig.order(0, ToWorker::Close { conn, reason: CloseReason::IkeAuthFailed });
    assert!(peer.is_closed());
    assert!(rig.core_is_silent(1));
    rig.until("closed", 1, |rig| rig.closes(0, "control"));
}

#[test]
fn r9329_6_1_9_a_connection_two_sessions_claim_serves_one() {
    let rig = Rig::new(2);
    let (mut one, two) = (Ue::install(&rig, 0, 0), Ue::install(&rig, 0, 1));
    let mut peer = Peer::connect(&rig, 0);
    // The control thread saw an IKE message of the second before it knew of the first's packet.
    peer.send(&one.frame_to(CORE, b"first"));
    let (_, conn) = rig.bound();
    rig.order(0, ToWorker::Bind { session: two.session, conn });
    rig.fence(0);
    rig.to_ue(0, &udp(CORE, one.addr, b"must not go there"));
    rig.until("unbound", 1, |rig| rig.drops(0, "no_connection"));
    assert!(peer.is_quiet());
    // The same where the second lives on another worker: the connection is not worth keeping.
    let mut peer = Peer::connect(&rig, 0);
    peer.send(&one.frame_to(CORE, b"again"));
    let conn = rig.report(|report| match report {
        ToControl::Bound { session, conn: other, .. } if *session == one.session && *other != conn => {
            Some(*other)
        }
        _ => None,
    });
    rig.order(0, ToWorker::Move { conn, to: WorkerId(1), session: SessionId(9) });
    assert!(peer.is_closed());
}

/// An ESP frame of an SPI that worker 1 would have.
fn stray_frame() -> Vec<u8> {
    [&[0, 42][..], &0x1234_5641u32.to_be_bytes(), &[0; 36]].concat()
}

#[test]
fn r9329_6_1_9_a_connection_about_to_leave_stays_where_its_session_turns_out_to_be() {
    let rig = Rig::new(2);
    let mut ue = Ue::install(&rig, 0, 0);
    let mut peer = Peer::connect(&rig, 0);
    // The control thread has not said yet whose the IKE message is when a frame names another worker.
    let frames = [ike_frame(&[7; 28]), stray_frame(), ue.frame_to(CORE, b"behind")].concat();
    peer.send(&frames);
    let (conn, _) = rig.ike();
    rig.order(0, ToWorker::Bind { session: ue.session, conn });
    rig.order(0, ToWorker::Send { conn, message: vec![8; 28].into() });
    rig.order(0, ToWorker::Handled { conn, good: true });
    assert!(rig.core_receives(0).ends_with(b"behind"));
    assert_eq!(peer.receive()[4..], [8; 28]);
    rig.to_ue(0, &udp(CORE, ue.addr, b"down"));
    assert!(ue.open(peer.receive()).ends_with(b"down"));
    peer.send(&ue.frame_to(CORE, b"up"));
    assert!(rig.core_receives(0).ends_with(b"up"));
    assert_eq!((rig.drops(0, "unknown_spi"), rig.seats[0].counters.handed_over.get()), (1, 0));
}

#[test]
fn r9329_6_1_9_a_session_is_never_left_on_the_place_of_a_connection_that_went() {
    let rig = Rig::new(2);
    let ue = Ue::install(&rig, 0, 0);
    let mut peer = Peer::connect(&rig, 0);
    peer.send(&ike_frame(&[7; 28]));
    let (conn, _) = rig.ike();
    // Two sessions on one connection: one that takes it away, one that is here.
    rig.order(0, ToWorker::Move { conn, to: WorkerId(1), session: SessionId(9) });
    rig.order(0, ToWorker::Bind { session: ue.session, conn });
    rig.order(0, ToWorker::Handled { conn, good: true });
    assert!(peer.is_closed());
    rig.until("gone", 0, |rig| rig.seats[0].counters.connections.get());
    let mut stranger = Peer::connect(&rig, 0);
    rig.until("come", 1, |rig| rig.seats[0].counters.connections.get());
    rig.to_ue(0, &udp(CORE, ue.addr, b"for nobody"));
    rig.until("counted", 1, |rig| rig.drops(0, "no_connection"));
    assert!(stranger.is_quiet());
}

#[test]
fn d12_a_connection_whose_session_ended_on_the_way_has_as_long_as_any_new_one() {
    let mut limits = limits();
    limits.first_message_timeout = Duration::from_secs(1);
    let rig = Rig::with(2, limits);
    let mut peer = Peer::connect(&rig, 0);
    peer.send(&ike_frame(&[7; 28]));
    let (conn, _) = rig.ike();
    rig.order(0, ToWorker::Handled { conn, good: true });
    rig.order(0, ToWorker::Move { conn, to: WorkerId(1), session: SessionId(9) });
    assert!(peer.is_closed());
    assert_eq!(rig.closes(1, "first_message_timeout"), 1);
}

#[test]
fn a_session_whose_connection_never_arrives_is_told_to_be_where_it_was() {
    let rig = Rig::new(1);
    let mut ue = Ue::install(&rig, 0, 0);
    let mut here = Peer::connect(&rig, 0);
    here.send(&ue.frame_to(CORE, b"here"));
    let (_, conn) = rig.bound();
    // The control thread heard of it on a connection that is gone by now, and asks.
    rig.order(0, ToWorker::Locate { session: ue.session });
    assert_eq!(rig.bound(), (ue.session, conn));
    // As it does when told to send where there is nothing any more.
    let gone = ConnId { generation: conn.generation + 7, ..conn };
    rig.order(0, ToWorker::Bind { session: ue.session, conn: gone });
    assert_eq!(rig.bound(), (ue.session, conn));
    rig.to_ue(0, &udp(CORE, ue.addr, b"down"));
    assert!(ue.open(here.receive()).ends_with(b"down"));
}

#[test]
fn d6_nothing_that_follows_a_failed_icv_gives_the_connection_a_session() {
    let rig = Rig::new(1);
    let mut cbc = Ue::install_cbc(&rig, 0, 0);
    let spi = WorkerId(0).spi(0x55_0000).expect("not reserved");
    let mut gcm = Ue::install_child(&rig, 0, 0, spi, None);
    rig.fence(0);
    // As many as are opened together, the last of them forged, and behind them one that is opened at once.
    let mut frames: Vec<u8> = (0..BATCH_MAX).flat_map(|_| cbc.frame_to(CORE, &[1; 20])).collect();
    *frames.last_mut().expect("not empty") ^= 1;
    frames.extend(gcm.frame_to(CORE, b"behind"));
    let mut peer = Peer::connect(&rig, 0);
    peer.send(&frames);
    assert!(peer.is_closed());
    rig.until("gone", 0, |rig| rig.seats[0].counters.connections.get());
    let mut stranger = Peer::connect(&rig, 0);
    rig.until("come", 1, |rig| rig.seats[0].counters.connections.get());
    rig.to_ue(0, &udp(CORE, gcm.addr, b"for nobody"));
    rig.until("counted", 2, |rig| rig.drops(0, "no_connection"));
    assert!(stranger.is_quiet());
}
