//! More connections on a worker than one ring's table of descriptors may hold.
//!
//! A program of its own with one test: it lowers the process's limit of descriptors for a moment.

#[path = "worker/rig.rs"]
#[allow(dead_code, reason = "another test program uses the rest")]
mod rig;

use gateway::worker::inbox::ToWorker;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rig::{CORE, Peer, Rig, Ue, limits, udp};

/// Connections of one ring in this test.
const LANE: u64 = 50;

/// Connections in all: three rings.
const UES: u8 = 130;

fn rig() -> Rig {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, LANE, hard).expect("a lower limit");
    let mut limits = limits();
    (limits.connections, limits.connections_per_source) = (UES.into(), UES.into());
    let rig = Rig::with(1, limits);
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("the limit as it was");
    rig
}

#[test]
fn a_worker_holds_more_connections_than_a_ring() {
    let rig = rig();
    let mut ues: Vec<Ue> = (0..UES).map(|number| Ue::install(&rig, 0, number)).collect();
    let mut peers: Vec<Peer> = ues.iter().map(|_| Peer::connect(&rig, 0)).collect();
    for (ue, peer) in ues.iter_mut().zip(&mut peers) {
        peer.send(&ue.frame_to(CORE, b"up"));
        assert!(rig.core_receives(0).ends_with(b"up"));
    }
    rig.until("all connected", UES.into(), |rig| rig.seats[0].counters.connections.get());
    assert!(Peer::connect_bare(&rig, 0).is_closed(), "the table is full");

    // Both ways on every ring, all at once.
    for (ue, peer) in ues.iter_mut().zip(&mut peers) {
        peer.send(&ue.frame_to(CORE, b"again"));
        rig.to_ue(0, &udp(CORE, ue.addr, b"down"));
    }
    for (ue, peer) in ues.iter_mut().zip(&mut peers) {
        assert!(rig.core_receives(0).ends_with(b"again"));
        assert!(ue.open(peer.receive()).ends_with(b"down"));
    }

    // Slots of further rings are given back and used again; those in between stay as they are.
    peers.drain(60..120);
    rig.until("some left", u64::from(UES) - 60, |rig| rig.seats[0].counters.connections.get());
    let mut more: Vec<Peer> = (60..120).map(|_| Peer::connect(&rig, 0)).collect();
    for (ue, peer) in ues[60..120].iter_mut().zip(&mut more) {
        peer.send(&ue.frame_to(CORE, b"back"));
        assert!(rig.core_receives(0).ends_with(b"back"));
        rig.to_ue(0, &udp(CORE, ue.addr, b"down again"));
        assert!(ue.open(peer.receive()).ends_with(b"down again"));
    }
    rig.order(0, ToWorker::CloseSession { session: ues[0].session, report: false });
    rig.fence(0);
}
