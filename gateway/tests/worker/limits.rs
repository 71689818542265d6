//! Bounds: connections, backlogs, peers that do not read.

use std::time::Duration;

use gateway::types::CloseReason;
use gateway::worker::inbox::{ToControl, ToWorker};

use crate::rig::{CORE, PATIENCE, Peer, REPORTS_MAX, Rig, Ue, attached, ike_frame, limits, udp};

#[test]
fn connections_beyond_the_bound_of_a_source_are_refused_and_others_live() {
    let mut limits = limits();
    limits.connections_per_source = 3;
    let rig = Rig::with(1, limits);
    let mut ue = Ue::install(&rig, 0, 0);
    let mut held: Vec<Peer> = (0..3).map(|_| Peer::connect(&rig, 0)).collect();
    rig.until("accepted", 3, |rig| rig.seats[0].counters.connections.get());
    assert!(Peer::connect_bare(&rig, 0).is_closed());
    assert_eq!(rig.closes(0, "limit"), 1);
    held[0].send(&ue.frame_to(CORE, b"works"));
    assert!(rig.core_receives(0).ends_with(b"works"));
    held.pop();
    rig.until("gone", 2, |rig| rig.seats[0].counters.connections.get());
    let mut next = Peer::connect(&rig, 0);
    assert!(next.is_quiet());
}

#[test]
fn too_many_unanswered_ike_messages_close_the_connection() {
    let rig = Rig::new(1);
    let mut peer = Peer::connect(&rig, 0);
    peer.send(&ike_frame(&[1; 28]).repeat(33));
    assert!(peer.is_closed());
    assert_eq!(rig.drops(0, "ike_flood"), 1);
    assert_eq!(rig.closes(0, "backlog"), 1);
}

/// Two UEs, the first of which is to be deaf, and their connections.
fn two_attached(rig: &Rig) -> [(Ue, Peer); 2] {
    [0, 1].map(|number| attached(rig, 0, number))
}

/// Sends packets to a UE until some are dropped for `reason`; returns how many.
fn flood(rig: &Rig, ue: &Ue, reason: &str) -> u64 {
    let mut sent = 0;
    while rig.drops(0, reason) == 0 {
        assert!(sent < 20_000, "the queue is bounded");
        rig.to_ue(0, &udp(CORE, ue.addr, &[7; 1300]));
        sent += 1;
    }
    sent
}

#[test]
fn d10_a_peer_that_does_not_read_loses_whole_packets_and_hurts_nobody() {
    for (flow_queue, reason) in [(true, "flow_queue_full"), (false, "send_queue_full")] {
        let rig = Rig::configured(1, limits(), flow_queue);
        let [(mut deaf, mut deaf_peer), (mut other, mut peer)] = two_attached(&rig);
        let sent = flood(&rig, &deaf, reason);
        rig.to_ue(0, &udp(CORE, other.addr, b"unhurt"));
        assert!(other.open(peer.receive()).ends_with(b"unhurt"));
        // What is accepted arrives whole and in sequence: no hole in the ESP sequence numbers.
        let mut received = 0;
        while received + rig.drops(0, reason) + rig.drops(0, "codel") < sent {
            received += 1;
            let body = deaf_peer.receive();
            assert_eq!(u64::from(u32::from_be_bytes([body[4], body[5], body[6], body[7]])), received);
            assert!(deaf.open(body).ends_with(&[7; 1300]));
        }
        assert!(deaf_peer.is_quiet());
        assert_eq!(rig.seats[0].counters.downlink_packets.get(), received + 1);
    }
}

#[test]
fn d10_many_deaf_peers_share_the_workers_bound() {
    let mut limits = limits();
    limits.flow_memory = 2 << 20;
    let rig = Rig::with(1, limits);
    let mut ues: Vec<(Ue, Peer)> = (0..8).map(|number| attached(&rig, 0, number)).collect();
    let (mut other, mut peer) = ues.pop().expect("the eighth");
    let mut sent = 0;
    while rig.drops(0, "flow_memory") < 100 {
        assert!(sent < 100_000, "the queues are bounded");
        for (ue, _) in &ues {
            rig.to_ue(0, &udp(CORE, ue.addr, &[7; 1300]));
            sent += 1;
        }
    }
    for number in 0..50u8 {
        rig.to_ue(0, &udp(CORE, other.addr, &[number; 200]));
        assert!(other.open(peer.receive()).ends_with(&[number; 200]));
    }
}

/// A worker with 1 MiB for sends and so many UEs that do not read; and one more.
fn with_deaf_crowd(flow_queue: bool, count: u8) -> (Rig, Vec<(Ue, Peer)>, (Ue, Peer)) {
    let mut limits = limits();
    limits.send_memory = 1 << 20;
    limits.connections = 300;
    limits.connections_per_source = 300;
    let rig = Rig::configured(1, limits, flow_queue);
    let mut ues: Vec<(Ue, Peer)> = (0..=count).map(|number| attached(&rig, 0, number)).collect();
    let other = ues.pop().expect("the last");
    (rig, ues, other)
}

#[test]
fn d10_deaf_peers_do_not_keep_the_memory_that_others_send_with() {
    for flow_queue in [true, false] {
        let (rig, deaf, (mut other, mut peer)) = with_deaf_crowd(flow_queue, 40);
        // As much as fills every socket, and blocks behind them, and others hear at once all the while.
        for turn in 0..1500_u16 {
            for (ue, _) in &deaf {
                rig.to_ue(0, &udp(CORE, ue.addr, &[7; 1300]));
            }
            if turn % 50 == 0 {
                rig.to_ue(0, &udp(CORE, other.addr, &turn.to_be_bytes()));
                assert!(other.open(peer.receive()).ends_with(&turn.to_be_bytes()), "{flow_queue}");
            }
        }
        assert_eq!(rig.drops(0, "no_session"), 0);
    }
}

#[test]
fn d10_so_many_deaf_peers_that_memory_runs_out_are_closed_until_others_can_send() {
    // Each holds a frame or two at least: that many are more than there is memory for.
    let (rig, deaf, (mut other, mut peer)) = with_deaf_crowd(true, 250);
    while rig.closes(0, "backlog") == 0 {
        for (ue, _) in &deaf {
            rig.to_ue(0, &udp(CORE, ue.addr, &[7; 1300]));
        }
    }
    rig.to_ue(0, &udp(CORE, other.addr, b"unhurt"));
    assert!(other.open(peer.receive()).ends_with(b"unhurt"));
    // As many as was needed, and the kernel keeps nothing of them either.
    let closed = rig.closes(0, "backlog");
    assert!((1..250).contains(&closed), "{closed}");
    let is_reset = |peer: &Peer| {
        let error = peer.stream.take_error().expect("asked");
        error.is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
    };
    std::thread::sleep(Duration::from_millis(100));
    assert!(deaf.iter().filter(|(_, peer)| is_reset(peer)).count() as u64 >= closed);
}

#[test]
fn d10_a_connection_that_is_to_close_does_not_wait_for_ever_for_a_deaf_peer() {
    let mut limits = limits();
    limits.linger = Duration::from_secs(1);
    let rig = Rig::with(1, limits);
    let [(deaf, _deaf_peer), _other] = two_attached(&rig);
    let (_, conn) = rig.bound();
    flood(&rig, &deaf, "flow_queue_full");
    rig.order(0, ToWorker::Close { conn, reason: CloseReason::IkeAuthFailed });
    rig.until("closed", 1, |rig| rig.closes(0, "control"));
    rig.until("freed", 1, |rig| rig.seats[0].counters.connections.get());
}

#[test]
fn a_session_that_goes_to_and_fro_is_told_where_it_is_and_not_where_it_was() {
    let rig = Rig::new(1);
    let mut ue = Ue::install(&rig, 0, 0);
    let mut peers = [Peer::connect(&rig, 0), Peer::connect(&rig, 0)];
    let mut conns = Vec::new();
    for peer in &mut peers {
        peer.send(&ue.frame_to(CORE, b"here"));
        rig.core_receives(0);
        conns.push(rig.bound().1);
    }
    for turn in 0..401 {
        peers[turn % 2].send(&ue.frame_to(CORE, b"here"));
        rig.core_receives(0);
    }
    std::thread::sleep(Duration::from_millis(2200));
    let mut told = Vec::new();
    while let Some(report) = rig.reports.try_recv() {
        if let ToControl::Bound { conn, .. } = report {
            told.push(conn);
        }
    }
    assert!((1..=64).contains(&told.len()), "{}", told.len());
    assert_eq!(told.last(), Some(&conns[0]));
}

#[test]
fn d10_a_connection_closes_although_its_peer_takes_nothing() {
    let rig = Rig::new(1);
    let [(deaf, mut deaf_peer), _other] = two_attached(&rig);
    let sent = flood(&rig, &deaf, "flow_queue_full");
    deaf_peer.send(&[0, 0]);
    rig.until("closed", 1, |rig| rig.closes(0, "framing"));
    rig.until("freed", 1, |rig| rig.seats[0].counters.connections.get());
    // Everything is accounted for, but for what stands in the socket.
    let counted = rig.drops(0, "no_connection") + rig.drops(0, "flow_queue_full");
    assert!(counted > 500 && counted <= sent, "{counted} of {sent}");
}

#[test]
fn ike_a_peer_does_not_read_is_bounded_and_never_dropped_silently() {
    let rig = Rig::new(1);
    let mut ue = Ue::install(&rig, 0, 0);
    let mut peer = Peer::connect(&rig, 0);
    peer.send(&ue.frame_to(CORE, b"attach"));
    rig.core_receives(0);
    let (_, conn) = rig.bound();
    for _ in 0..2000 {
        rig.order(0, ToWorker::Send { conn, message: vec![8; 30_000].into() });
        if rig.closes(0, "backlog") == 1 {
            break;
        }
    }
    rig.until("closed", 1, |rig| rig.closes(0, "backlog"));
    assert!(rig.drops(0, "ike_backlog") >= 1);
    let mut again = Peer::connect(&rig, 0);
    again.send(&ue.frame_to(CORE, b"SA kept"));
    assert!(rig.core_receives(0).ends_with(b"SA kept"));
}

#[test]
fn a_burst_larger_than_the_receive_buffers_is_read_to_the_end() {
    let mut limits = limits();
    limits.receive_memory = 2 << 20;
    let rig = Rig::with(1, limits);
    let mut ues: Vec<(Ue, Peer)> =
        (0..8).map(|number| (Ue::install(&rig, 0, number), Peer::connect(&rig, 0))).collect();
    const FRAMES: usize = 600;
    std::thread::scope(|scope| {
        for (ue, peer) in &mut ues {
            scope.spawn(move || {
                for _ in 0..FRAMES {
                    let frame = ue.frame_to(CORE, &[3; 1200]);
                    peer.send(&frame);
                }
            });
        }
        let reader = || (0..8 * FRAMES).for_each(|_| drop(rig.core_receives(0)));
        reader();
    });
    rig.until("counted", 8 * FRAMES as u64, |rig| rig.seats[0].counters.uplink_packets.get());
}

#[test]
fn a_stopped_worker_accepts_no_more() {
    let rig = Rig::new(1);
    rig.order(0, ToWorker::StopAccepting);
    rig.fence(0);
    std::thread::sleep(Duration::from_millis(50));
    assert!(std::net::TcpStream::connect(rig.seats[0].addr).is_err());
}

#[test]
fn unfinished_frames_are_bounded_except_those_of_sessions() {
    let rig = Rig::new(1);
    let mut ue = Ue::install(&rig, 0, 0);
    let mut bound = Peer::connect(&rig, 0);
    bound.send(&ue.frame_to(CORE, b"bound"));
    rig.core_receives(0);
    // The limit has room for a handful; the rest is closed.
    let unfinished = [&[0xff, 0xff][..], &[0x5a; 60_000]].concat();
    let mut peers: Vec<Peer> = (0..20).map(|_| Peer::connect(&rig, 0)).collect();
    for peer in &mut peers {
        let _ = std::io::Write::write_all(&mut peer.stream, &unfinished);
    }
    let refused = || rig.drops(0, "unfinished");
    let until = std::time::Instant::now() + PATIENCE;
    while refused() < 12 {
        assert!(std::time::Instant::now() < until, "{}", refused());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(refused() < 20);
    // A small piece is always taken, and a session's frame too.
    let mut small = Peer::connect(&rig, 0);
    let frame = ike_frame(&[7; 2000]);
    small.send(&frame[..1500]);
    let large = ue.frame_to(CORE, &[1; 1300]);
    bound.send(&large[..1200]);
    std::thread::sleep(Duration::from_millis(50));
    small.send(&frame[1500..]);
    bound.send(&large[1200..]);
    assert_eq!(rig.ike().1, [7; 2000]);
    assert!(rig.core_receives(0).ends_with(&[1; 1300]));
    // What closed gives its share back.
    drop(peers);
    rig.until("given back", 2, |rig| rig.seats[0].counters.connections.get());
    let mut again = Peer::connect(&rig, 0);
    again.send(&unfinished);
    assert!(again.is_quiet());
}

#[test]
fn a_full_queue_to_the_control_thread_loses_no_news_of_connections() {
    let rig = Rig::new(1);
    const COUNT: u64 = 4300;
    for number in 1..=COUNT {
        drop(Peer::connect_bare(&rig, 0));
        if number % 32 == 0 {
            rig.until("closed", number, |rig| rig.closes(0, "peer"));
        }
    }
    assert_eq!(rig.reports.len(), REPORTS_MAX);
    // An IKE message finds no room: its connection goes, to come back when there is.
    let mut peer = Peer::connect(&rig, 0);
    peer.send(&ike_frame(&[7; 28]));
    assert!(peer.is_closed());
    assert_eq!(rig.drops(0, "control_queue_full"), 1);
    for _ in 0..=COUNT {
        rig.report(|report| matches!(report, ToControl::Closed { .. }).then_some(()));
    }
}

#[test]
fn connections_without_a_receive_buffer_wait_their_turn_and_none_stalls() {
    const UES: u8 = 40;
    const FRAMES: usize = 40;
    let mut limits = limits();
    limits.receive_memory = 64 << 10;
    let rig = Rig::with(1, limits);
    let mut ues: Vec<Ue> = (0..UES).map(|number| Ue::install(&rig, 0, number)).collect();
    let mut peers: Vec<Peer> = ues.iter().map(|_| Peer::connect(&rig, 0)).collect();
    // The core takes nothing, so the worker stands still while 1.6 MB gather in the sockets.
    for (ue, peer) in ues.iter_mut().zip(&mut peers) {
        let burst: Vec<u8> = (0..FRAMES).flat_map(|_| ue.frame_to(CORE, &[7; 1000])).collect();
        peer.send(&burst);
    }
    for _ in 0..usize::from(UES) * FRAMES {
        rig.core_receives(0);
    }
    let starved = rig.seats[0].counters.receive_starved.get();
    assert!(starved > 0, "64 KB cannot take 1.6 MB at once");
    assert!(starved < 10 * u64::from(UES), "{starved}: armed again without a buffer");
    for (ue, peer) in ues.iter_mut().zip(&mut peers) {
        peer.send(&ue.frame_to(CORE, b"goes on"));
        assert!(rig.core_receives(0).ends_with(b"goes on"));
    }
}

#[test]
fn r9329_6_3_2_a_connection_that_does_not_come_back_after_a_challenge_is_closed() {
    let rig = Rig::new(1);
    let mut silent = Peer::connect(&rig, 0);
    silent.send(&ike_frame(&[1; 28]));
    let (conn, _) = rig.ike();
    rig.order(0, ToWorker::Challenged { conn, within: Duration::from_millis(50) });
    assert!(silent.is_closed());
    assert_eq!(rig.closes(0, "challenge_timeout"), 1);

    let mut solver = Peer::connect(&rig, 0);
    solver.send(&ike_frame(&[2; 28]));
    let (conn, _) = rig.ike();
    rig.order(0, ToWorker::Challenged { conn, within: Duration::from_millis(50) });
    rig.order(0, ToWorker::HalfOpen { conn });
    assert!(solver.is_quiet(), "it has the time of a half-open IKE SA");
    assert_eq!(rig.closes(0, "challenge_timeout"), 1);
}
