//! Several inner networks whose addresses overlap: each UE has its own and meets no other.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;

use codec::ip::VirtioHeader;
use gateway::types::{NetworkId, WorkerId};
use gateway::worker::inbox::ToWorker;

use crate::rig::{CORE, Peer, Rig, Ue, limits, udp};

const ONE: NetworkId = NetworkId(0);
const TWO: NetworkId = NetworkId(1);

fn rig(workers: usize) -> Rig {
    Rig::of_networks(2, workers, limits(), true, |queue| Box::new(queue))
}

/// What the second network's core receives next.
fn two_receives(rig: &Rig, worker: usize) -> Vec<u8> {
    let mut packet = vec![0; 65_600];
    let len = rig.seats[worker].cores[0].recv(&mut packet).expect("a packet reaches the core");
    packet[VirtioHeader::LEN..len].to_vec()
}

fn to_ue_of_two(rig: &Rig, worker: usize, packet: &[u8]) {
    let with_header = [&VirtioHeader::default().encode()[..], packet].concat();
    rig.seats[worker].cores[0].send(&with_header).expect("the device takes it");
}

fn is_silent(core: &UnixDatagram) -> bool {
    core.set_nonblocking(true).expect("nonblocking");
    let silent = core.recv(&mut [0; 2048]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    core.set_nonblocking(false).expect("blocking");
    silent
}

#[test]
fn ues_with_one_address_each_reach_their_own_core_and_only_that() {
    let rig = rig(1);
    let (mut one, mut two) = (Ue::install_in(&rig, 0, 0, ONE), Ue::install_in(&rig, 0, 0, TWO));
    assert_eq!(one.addr, two.addr);
    let (mut at_one, mut at_two) = (Peer::connect(&rig, 0), Peer::connect(&rig, 0));
    for round in 0..20u8 {
        at_one.send(&one.frame_to(CORE, &[1, round, 0, 0]));
        at_two.send(&two.frame_to(CORE, &[2, round, 0, 0]));
        assert_eq!(rig.core_receives(0), udp(one.addr, CORE, &[1, round, 0, 0]));
        assert_eq!(two_receives(&rig, 0), udp(one.addr, CORE, &[2, round, 0, 0]));
        rig.to_ue(0, &udp(CORE, one.addr, &[3, round]));
        to_ue_of_two(&rig, 0, &udp(CORE, one.addr, &[4, round]));
        assert_eq!(one.open(at_one.receive()), udp(CORE, one.addr, &[3, round]));
        assert_eq!(two.open(at_two.receive()), udp(CORE, one.addr, &[4, round]));
    }
    assert!(is_silent(&rig.seats[0].core) && is_silent(&rig.seats[0].cores[0]));
    assert_eq!(rig.all_drops(0), 0);
}

#[test]
fn packets_of_one_turn_stay_apart() {
    let rig = rig(1);
    let (mut one, mut two) = (Ue::install_in(&rig, 0, 0, ONE), Ue::install_in(&rig, 0, 0, TWO));
    let (mut at_one, mut at_two) = (Peer::connect(&rig, 0), Peer::connect(&rig, 0));
    // The same flow by its addresses and ports, in both.
    let stream = |ue: &mut Ue, of: u8| -> Vec<u8> {
        (0..30).flat_map(|number| ue.frame_to(CORE, &[[of, number]; 50].concat())).collect()
    };
    let (first, second) = (stream(&mut one, 1), stream(&mut two, 2));
    at_one.send(&first);
    at_two.send(&second);
    for number in 0..30 {
        assert_eq!(rig.core_receives(0), udp(one.addr, CORE, &[[1, number]; 50].concat()));
        assert_eq!(two_receives(&rig, 0), udp(one.addr, CORE, &[[2, number]; 50].concat()));
    }
}

#[test]
fn a_session_that_ends_takes_its_own_address_along_and_no_other() {
    let rig = rig(1);
    let (one, mut two) = (Ue::install_in(&rig, 0, 0, ONE), Ue::install_in(&rig, 0, 0, TWO));
    let mut peer = Peer::connect(&rig, 0);
    peer.send(&two.frame_to(CORE, b"here"));
    two_receives(&rig, 0);
    rig.order(0, ToWorker::CloseSession { session: one.session, report: false });
    rig.fence(0);
    rig.to_ue(0, &udp(CORE, two.addr, b"nobody"));
    rig.until("nobody there", 1, |rig| rig.drops(0, "no_session"));
    to_ue_of_two(&rig, 0, &udp(CORE, two.addr, b"still"));
    assert_eq!(two.open(peer.receive()), udp(CORE, two.addr, b"still"));
}

#[test]
fn a_packet_that_another_worker_read_keeps_its_network() {
    let rig = rig(2);
    let mut one = Ue::install_in(&rig, 0, 0, ONE);
    let mut two = Ue::install_in(&rig, 1, 0, TWO);
    let (mut at_one, mut at_two) = (Peer::connect(&rig, 0), Peer::connect(&rig, 1));
    at_one.send(&one.frame_to(CORE, b"up"));
    rig.core_receives(0);
    at_two.send(&two.frame_to(CORE, b"up"));
    two_receives(&rig, 1);
    for worker in 0..2 {
        for (network, owner) in [(ONE, 0), (TWO, 1)] {
            let (addr, owner) = (one.addr.into(), Some(WorkerId(owner)));
            rig.order(worker, ToWorker::Route { network, addr, worker: owner });
        }
        rig.fence(worker);
    }
    to_ue_of_two(&rig, 0, &udp(CORE, two.addr, b"two"));
    rig.to_ue(1, &udp(CORE, one.addr, b"one"));
    assert_eq!(two.open(at_two.receive()), udp(CORE, two.addr, b"two"));
    assert_eq!(one.open(at_one.receive()), udp(CORE, one.addr, b"one"));
}

/// What is the host's own in one network is somebody else's in another.
#[test]
fn own_addresses_belong_to_a_network() {
    let rig = rig(1);
    let (mut one, mut two) = (Ue::install_in(&rig, 0, 0, ONE), Ue::install_in(&rig, 0, 1, TWO));
    let (mut at_one, mut at_two) = (Peer::connect(&rig, 0), Peer::connect(&rig, 0));
    rig.order(0, ToWorker::LocalAddrs { network: TWO, addrs: [CORE.into()].into() });
    rig.fence(0);
    at_two.send(&two.frame_to(CORE, b"to the gateway"));
    rig.until("to the gateway", 1, |rig| rig.drops(0, "to_gateway"));
    at_one.send(&one.frame_to(CORE, b"to the core"));
    assert!(rig.core_receives(0).ends_with(b"to the core"));
    // A UE of the other network is not this one's neighbour, but an address of its own network's pool is.
    at_one.send(&one.frame_to(two.addr, b"neighbour"));
    rig.until("neighbour", 1, |rig| rig.drops(0, "ue_to_ue"));
    assert!(is_silent(&rig.seats[0].cores[0]));
}
