//! Which connections stay, which one carries the downlink, and what leaves no trace.

use std::time::Duration;

use gateway::worker::inbox::{ToControl, ToWorker};

use crate::rig::{CORE, Peer, Rig, Ue, attached, ike_frame, limits, udp};

/// Whether the UE's packets from the core come on `peer`.
fn downlink_is_on(rig: &Rig, ue: &mut Ue, peer: &mut Peer) {
    let packet = udp(CORE, ue.addr, b"down");
    rig.to_ue(0, &packet);
    assert_eq!(ue.open(peer.receive()), packet);
}

#[test]
fn r9329_6_1_17_a_replaced_connection_closes_when_it_is_idle_and_the_current_one_never() {
    let mut limits = limits();
    limits.replaced_idle = Duration::from_secs(1);
    let rig = Rig::with(1, limits);
    let (mut ue, mut old) = attached(&rig, 0, 0);
    let mut new = Peer::connect(&rig, 0);
    // Both are used for longer than that: neither is idle.
    for _ in 0..6 {
        for turn in 0..3 {
            let peer = if turn == 1 { &mut old } else { &mut new };
            peer.send(&ue.frame_to(CORE, b"in use"));
            rig.core_receives(0);
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(rig.closes(0, "replaced"), 0);
    assert!(old.is_closed());
    rig.until("counted", 1, |rig| rig.closes(0, "replaced"));
    std::thread::sleep(Duration::from_millis(2500));
    downlink_is_on(&rig, &mut ue, &mut new);
    new.send(&ue.frame_to(CORE, b"up"));
    assert!(rig.core_receives(0).ends_with(b"up"), "the SA is untouched");
}

#[test]
fn d12_an_idle_connection_with_a_session_is_never_closed() {
    let mut limits = limits();
    let second = Duration::from_secs(1);
    (limits.prefix_timeout, limits.first_message_timeout) = (second, second);
    (limits.linger, limits.replaced_idle, limits.half_open_timeout) = (second, second, second);
    let rig = Rig::with(1, limits);
    let (mut ue, mut peer) = attached(&rig, 0, 0);
    let mut without = Peer::connect(&rig, 0);
    assert!(without.is_closed(), "one without a session has a second");
    std::thread::sleep(Duration::from_secs(4));
    downlink_is_on(&rig, &mut ue, &mut peer);
    assert_eq!(rig.seats[0].counters.closes().map(|(_, count)| count).sum::<u64>(), 1);
}

#[test]
fn d9_the_replay_window_belongs_to_the_sa_and_not_to_a_connection() {
    let rig = Rig::new(1);
    let (mut ue, mut one) = attached(&rig, 0, 0);
    let mut other = Peer::connect(&rig, 0);
    let frames: Vec<_> = (0..60u8).map(|number| ue.frame_to(CORE, &[number; 20])).collect();
    // The later half arrives first; each connection is in order of its own.
    for (late, early) in frames[30..].iter().zip(&frames[..30]) {
        other.send(late);
        rig.core_receives(0);
        one.send(early);
        rig.core_receives(0);
    }
    // Each once, whichever connection it comes on.
    for (number, frame) in frames.iter().enumerate() {
        let elsewhere = if number < 30 { &mut other } else { &mut one };
        elsewhere.send(frame);
    }
    rig.until("replays", 60, |rig| rig.drops(0, "replayed"));
    assert!(rig.core_is_silent(0));
    assert_eq!(rig.all_drops(0), 60);
}

#[test]
fn r9329_10_6_only_what_is_decrypted_authentic_and_fresh_moves_the_downlink() {
    let rig = Rig::new(1);
    let (mut ue, mut current) = attached(&rig, 0, 0);
    let old = ue.frame_to(CORE, b"left of the window");
    let used = (0..200).map(|_| ue.frame_to(CORE, b"used")).collect::<Vec<_>>();
    for frame in &used {
        current.send(frame);
        rig.core_receives(0);
    }
    let mut forged = ue.frame_to(CORE, b"forged");
    *forged.last_mut().expect("not empty") ^= 1;
    let mut unknown = ue.frame_to(CORE, b"unknown");
    unknown[2..6].copy_from_slice(&[0x5a, 0x5a, 0x5a, 0]);
    let refused =
        [(&used[199], "replayed"), (&old, "left_of_window"), (&unknown, "unknown_spi"), (&forged, "bad_icv")];
    for (frame, reason) in refused {
        let mut new = Peer::connect(&rig, 0);
        new.send(frame);
        rig.until(reason, 1, |rig| rig.drops(0, reason));
        downlink_is_on(&rig, &mut ue, &mut current);
    }
    // An IKE message moves nothing before the control thread has found it authentic and fresh.
    let mut new = Peer::connect(&rig, 0);
    new.send(&ike_frame(&[7; 28]));
    let (conn, _) = rig.ike();
    rig.order(0, ToWorker::Handled { conn, good: true });
    rig.fence(0);
    downlink_is_on(&rig, &mut ue, &mut current);
    new.send(&ue.frame_to(CORE, b"fresh"));
    rig.core_receives(0);
    downlink_is_on(&rig, &mut ue, &mut new);
}

#[test]
fn r9329_10_3_frames_are_not_looked_for_in_a_stream_that_is_out_of_step() {
    let rig = Rig::new(1);
    let (mut ue, mut peer) = attached(&rig, 0, 0);
    // One octet too many makes a Length of 256 out of the next one: what lies inside is not searched.
    peer.send(&[1]);
    let frames: Vec<u8> = (0..2).flat_map(|_| ue.frame_to(CORE, &[0; 60])).collect();
    assert!((100..250).contains(&(frames.len() / 2)));
    peer.send(&frames);
    assert!(rig.core_is_silent(0));
    let mut again = Peer::connect(&rig, 0);
    again.send(&ue.frame_to(CORE, b"elsewhere"));
    assert!(rig.core_receives(0).ends_with(b"elsewhere"), "the first packet that counts");
}

#[test]
fn r4303_3_4_2_a_packet_of_an_unknown_sa_is_discarded_and_counted() {
    let rig = Rig::new(1);
    let (mut ue, mut peer) = attached(&rig, 0, 0);
    for (count, spi) in (1..).zip([[0, 0, 0, 1], [0, 0, 0, 255], [0x77, 0x77, 0x77, 0]]) {
        let mut frame = ue.frame_to(CORE, b"nobody's");
        frame[2..6].copy_from_slice(&spi);
        peer.send(&frame);
        rig.until("counted", count, |rig| rig.drops(0, "unknown_spi"));
    }
    assert!(rig.core_is_silent(0));
    peer.send(&ue.frame_to(CORE, b"known"));
    assert!(rig.core_receives(0).ends_with(b"known"));
    assert_eq!(rig.all_drops(0), 3);
}

#[test]
fn what_came_before_the_end_of_a_connection_is_delivered_whatever_the_cipher() {
    for cbc in [false, true] {
        let rig = Rig::new(1);
        let mut ue = if cbc { Ue::install_cbc(&rig, 0, 0) } else { Ue::install(&rig, 0, 0) };
        for round in 0..20_u8 {
            let mut peer = Peer::connect(&rig, 0);
            let frames: Vec<u8> = (0..10).flat_map(|n| ue.frame_to(CORE, &[n ^ round; 100])).collect();
            peer.send(&frames);
            drop(peer);
            for n in 0..10 {
                assert!(rig.core_receives(0).ends_with(&[n ^ round; 100]), "{n}");
            }
        }
        // Frames before one that is out of step are those of a stream that was not.
        let mut peer = Peer::connect(&rig, 0);
        peer.send(&[ue.frame_to(CORE, b"in step"), vec![0, 1]].concat());
        assert!(rig.core_receives(0).ends_with(b"in step"));
        rig.until("counted", 1, |rig| rig.drops(0, "bad_length"));
        assert_eq!(rig.all_drops(0), 1);
    }
}

#[test]
fn r9329_6_1_15_a_session_goes_back_to_the_connection_that_is_left() {
    let rig = Rig::new(1);
    let (mut ue, mut old) = attached(&rig, 0, 0);
    let mut new = Peer::connect(&rig, 0);
    new.send(&ue.frame_to(CORE, b"on the new one"));
    rig.core_receives(0);
    // What the network still held of the old connection comes later, and its end behind that.
    old.send(&ue.frame_to(CORE, b"late"));
    rig.core_receives(0);
    drop(old);
    rig.until("closed", 1, |rig| rig.closes(0, "peer"));
    downlink_is_on(&rig, &mut ue, &mut new);
    assert_eq!(rig.all_drops(0), 0);
    // The control thread knows as well: where it was, where it went, where it is.
    let told = |rig: &Rig| {
        rig.report(|report| match report {
            ToControl::Bound { conn, .. } => Some(*conn),
            _ => None,
        })
    };
    let conns = [told(&rig), told(&rig), told(&rig), told(&rig)];
    assert_eq!((conns[0], conns[1]), (conns[2], conns[3]));
    drop(new);
    rig.until("closed", 2, |rig| rig.closes(0, "peer"));
    rig.to_ue(0, &udp(CORE, ue.addr, b"nowhere"));
    rig.until("counted", 1, |rig| rig.drops(0, "no_connection"));
}
