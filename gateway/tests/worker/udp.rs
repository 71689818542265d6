//! The same sessions over UDP (RFC 3948; RFC 7296 §2.11, §2.23; RFC 9329 §5, §6.1).

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use bytes::Bytes;
use codec::ip::{Gso, VirtioHeader};
use codec::stream::{LENGTH_LEN, NON_ESP_MARKER};
use gateway::types::{ConnId, Follow, Path, Transport, WorkerId};
use gateway::worker::inbox::{ToControl, ToWorker};

use crate::rig::{CORE, PATIENCE, Peer, Rig, Ue, limits, udp};

/// A UE's socket.
struct Host {
    socket: UdpSocket,
}

impl Host {
    fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
        socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
        Self { socket }
    }

    fn addr(&self) -> SocketAddr {
        self.socket.local_addr().expect("bound")
    }

    fn path(&self, rig: &Rig) -> Path {
        Path { transport: Transport::Udp, local: rig.seats[0].udp, remote: self.addr() }
    }

    fn send(&self, rig: &Rig, datagram: &[u8]) {
        self.socket.send_to(datagram, rig.seats[0].udp).expect("sent");
    }

    /// The next ESP packet of `ue`, with a packet for the core in it.
    fn send_esp(&self, rig: &Rig, ue: &mut Ue, payload: &[u8]) {
        self.send(rig, &ue.frame_to(CORE, payload)[LENGTH_LEN..]);
    }

    fn receive(&self) -> Vec<u8> {
        let mut datagram = vec![0; 65_536];
        let (len, from) = self.socket.recv_from(&mut datagram).expect("a datagram");
        assert_eq!(from.ip(), SocketAddr::from(([127, 0, 0, 1], 0)).ip());
        datagram.truncate(len);
        datagram
    }

    fn is_quiet(&self) -> bool {
        self.socket.set_read_timeout(Some(Duration::from_millis(150))).expect("timeout");
        let quiet = self.socket.recv(&mut [0; 16]).is_err();
        self.socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
        quiet
    }
}

fn bind(rig: &Rig, worker: usize, ue: &Ue, host: &Host, follow: Follow) {
    let path = Box::new(host.path(rig));
    rig.order(worker, ToWorker::BindPath { session: ue.session, path, follow });
    rig.fence(worker);
}

fn bound(rig: &Rig) -> (ConnId, Path) {
    rig.report(|report| match report {
        ToControl::Bound { conn, path, .. } => Some((*conn, *path)),
        _ => None,
    })
}

#[test]
fn r3948_2_1_esp_in_udp_reaches_the_core_and_comes_back() {
    let rig = Rig::new(1);
    let host = Host::new();
    let mut ue = Ue::install(&rig, 0, 0);
    bind(&rig, 0, &ue, &host, Follow::Tcp);
    host.send_esp(&rig, &mut ue, b"hello");
    assert_eq!(rig.core_receives(0), udp(ue.addr, CORE, b"hello"));
    let down = udp(CORE, ue.addr, b"answer");
    rig.to_ue(0, &down);
    assert_eq!(ue.open(host.receive()), down);
}

#[test]
fn the_ports_are_free_once_the_worker_has_ended() {
    let rig = Rig::new(1);
    let (host, udp, tcp) = (Host::new(), rig.seats[0].udp, rig.seats[0].addr);
    host.send(&rig, &[0xff]);
    rig.until("received", 1, |rig| rig.seats[0].counters.udp_received.get());
    drop(rig);
    UdpSocket::bind(udp).expect("UDP is free for another daemon");
    TcpListener::bind(tcp).expect("TCP is free too");
}

#[test]
fn r3948_cbc_packets_wait_for_the_others_of_the_turn_over_udp_too() {
    let rig = Rig::new(1);
    let host = Host::new();
    let mut ues: Vec<Ue> = (0..6).map(|number| Ue::install_cbc(&rig, 0, number)).collect();
    for ue in &ues {
        bind(&rig, 0, ue, &host, Follow::Any);
    }
    for ue in &mut ues {
        host.send_esp(&rig, ue, b"batched");
    }
    for ue in &mut ues {
        assert_eq!(rig.core_receives(0), udp(ue.addr, CORE, b"batched"));
        let down = udp(CORE, ue.addr, b"down");
        rig.to_ue(0, &down);
        assert_eq!(ue.open(host.receive()), down);
    }
}

#[test]
fn r3948_2_2_ike_is_told_from_esp_by_its_marker_and_answered_with_one() {
    let rig = Rig::new(1);
    let host = Host::new();
    let message = [7; 60];
    host.send(&rig, &[&NON_ESP_MARKER[..], &message].concat());
    let (conn, path, received) = rig.report(|report| match report {
        ToControl::Ike { conn, path, message } => Some((*conn, *path, message.clone())),
        _ => None,
    });
    assert_eq!((conn, path, &received[..]), (ConnId::datagrams(WorkerId(0)), host.path(&rig), &message[..]));
    let (path, answer) = (Box::new(path), Bytes::from_static(b"answer"));
    rig.order(0, ToWorker::SendTo { from: WorkerId(0), path, message: answer });
    assert_eq!(host.receive(), [&NON_ESP_MARKER[..], b"answer"].concat());
}

#[test]
fn r3948_2_3_keepalives_leave_no_trace() {
    let rig = Rig::new(1);
    let host = Host::new();
    let mut ue = Ue::install(&rig, 0, 0);
    bind(&rig, 0, &ue, &host, Follow::Any);
    let other = Host::new();
    for _ in 0..100 {
        other.send(&rig, &[0xff]);
    }
    other.send(&rig, &[]);
    rig.until("received", 101, |rig| rig.seats[0].counters.udp_received.get());
    assert!(rig.seats[0].counters.drops().all(|(_, n)| n == 0));
    // Neither liveness nor a new address: the downlink stays.
    rig.to_ue(0, &udp(CORE, ue.addr, b"still here"));
    assert!(ue.open(host.receive()).ends_with(b"still here"));
    assert!(rig.reports.try_recv().is_none());
}

#[test]
fn r7296_2_23_behind_a_nat_the_downlink_follows_an_authentic_packet_only() {
    let rig = Rig::new(1);
    let (old, new) = (Host::new(), Host::new());
    let mut ue = Ue::install(&rig, 0, 0);
    bind(&rig, 0, &ue, &old, Follow::Any);
    let mut forged = ue.frame_to(CORE, b"forged");
    *forged.last_mut().expect("not empty") ^= 1;
    new.send(&rig, &forged[LENGTH_LEN..]);
    rig.until("forged", 1, |rig| rig.drops(0, "bad_icv"));
    rig.to_ue(0, &udp(CORE, ue.addr, b"old"));
    assert!(ue.open(old.receive()).ends_with(b"old"));
    let fresh = ue.frame_to(CORE, b"fresh");
    new.send(&rig, &fresh[LENGTH_LEN..]);
    assert!(rig.core_receives(0).ends_with(b"fresh"));
    assert_eq!(bound(&rig), (ConnId::datagrams(WorkerId(0)), new.path(&rig)));
    rig.to_ue(0, &udp(CORE, ue.addr, b"new"));
    assert!(ue.open(new.receive()).ends_with(b"new"));
    // A replay from the old address moves nothing back.
    old.send(&rig, &fresh[LENGTH_LEN..]);
    rig.until("replay", 1, |rig| rig.drops(0, "replayed"));
    rig.to_ue(0, &udp(CORE, ue.addr, b"new"));
    assert!(ue.open(new.receive()).ends_with(b"new"));
    assert!(old.is_quiet());
    assert_eq!(rig.seats[0].counters.udp_paths.get(), 1);
}

#[test]
fn r4555_3_5_a_session_that_does_not_follow_is_heard_but_stays() {
    let rig = Rig::new(1);
    let (here, elsewhere) = (Host::new(), Host::new());
    let mut ue = Ue::install(&rig, 0, 0);
    bind(&rig, 0, &ue, &here, Follow::Never);
    elsewhere.send_esp(&rig, &mut ue, b"heard");
    assert!(rig.core_receives(0).ends_with(b"heard"));
    // Nor does it follow what is left of a TCP connection.
    let mut peer = Peer::connect(&rig, 0);
    peer.send(&ue.frame_to(CORE, b"late"));
    assert!(rig.core_receives(0).ends_with(b"late"));
    rig.to_ue(0, &udp(CORE, ue.addr, b"down"));
    assert!(ue.open(here.receive()).ends_with(b"down"));
    assert!(elsewhere.is_quiet() && peer.is_quiet());
}

#[test]
fn r9329_5_3_d11_a_session_on_tcp_is_not_heard_over_udp() {
    let rig = Rig::new(1);
    let host = Host::new();
    let mut ue = Ue::install(&rig, 0, 0);
    let mut peer = Peer::connect(&rig, 0);
    peer.send(&ue.frame_to(CORE, b"tcp"));
    assert!(rig.core_receives(0).ends_with(b"tcp"));
    host.send_esp(&rig, &mut ue, b"udp");
    rig.until("dropped", 1, |rig| rig.drops(0, "tcp_bound"));
    rig.to_ue(0, &udp(CORE, ue.addr, b"down"));
    assert!(ue.open(peer.receive()).ends_with(b"down"));
    assert!(host.is_quiet());
}

#[test]
fn r9329_6_1_15_a_session_goes_from_udp_to_tcp_with_what_is_on_its_way() {
    let rig = Rig::new(1);
    let host = Host::new();
    let mut ue = Ue::install(&rig, 0, 0);
    bind(&rig, 0, &ue, &host, Follow::Any);
    let on_its_way = ue.frame_to(CORE, b"on its way");
    let mut peer = Peer::connect(&rig, 0);
    peer.send(&ue.frame_to(CORE, b"tcp"));
    assert!(rig.core_receives(0).ends_with(b"tcp"));
    assert_eq!(rig.bound().0, ue.session);
    host.send(&rig, &on_its_way[LENGTH_LEN..]);
    assert!(rig.core_receives(0).ends_with(b"on its way"));
    rig.to_ue(0, &udp(CORE, ue.addr, b"down"));
    assert!(ue.open(peer.receive()).ends_with(b"down"));
    assert!(host.is_quiet());
    assert_eq!(rig.seats[0].counters.udp_paths.get(), 0);
}

#[test]
fn r9329_7_1_1_a_session_goes_from_tcp_to_udp_and_the_old_connection_is_still_heard() {
    let rig = Rig::new(1);
    let host = Host::new();
    let mut ue = Ue::install(&rig, 0, 0);
    let mut peer = Peer::connect(&rig, 0);
    peer.send(&ue.frame_to(CORE, b"tcp"));
    assert!(rig.core_receives(0).ends_with(b"tcp"));
    bind(&rig, 0, &ue, &host, Follow::Never);
    peer.send(&ue.frame_to(CORE, b"late"));
    assert!(rig.core_receives(0).ends_with(b"late"));
    rig.to_ue(0, &udp(CORE, ue.addr, b"down"));
    assert!(ue.open(host.receive()).ends_with(b"down"));
    assert!(peer.is_quiet());
}

#[test]
fn every_worker_serves_the_sessions_whose_spis_name_it() {
    let rig = Rig::new(3);
    let host = Host::new();
    let mut ues: Vec<Ue> = (0..3).map(|worker| Ue::install(&rig, worker, worker as u8)).collect();
    for (worker, ue) in ues.iter_mut().enumerate() {
        bind(&rig, worker, ue, &host, Follow::Tcp);
        host.send_esp(&rig, ue, b"up");
        assert_eq!(rig.core_receives(worker), udp(ue.addr, CORE, b"up"));
        rig.to_ue(worker, &udp(CORE, ue.addr, b"down"));
        assert!(ue.open(host.receive()).ends_with(b"down"));
        assert_eq!(rig.seats[worker].counters.udp_strays.get(), 0, "steered");
    }
}

#[test]
fn a_stray_datagram_is_passed_to_the_worker_its_spi_names() {
    let rig = Rig::new(2);
    let host = Host::new();
    let mut ue = Ue::install(&rig, 1, 0);
    bind(&rig, 1, &ue, &host, Follow::Tcp);
    let packet = ue.frame_to(CORE, b"stray")[LENGTH_LEN..].to_vec();
    let stray = gateway::worker::udp::Stray { socket: 0, path: host.path(&rig), packet: packet.into() };
    rig.order(1, ToWorker::Stray(Box::new(stray)));
    assert!(rig.core_receives(1).ends_with(b"stray"));
}

#[test]
fn a_super_packet_leaves_as_datagrams_of_equal_length() {
    const PAYLOADS: usize = 40;
    let rig = Rig::new(1);
    let host = Host::new();
    let mut ue = Ue::install(&rig, 0, 0);
    bind(&rig, 0, &ue, &host, Follow::Tcp);
    let payload: Vec<u8> = (0..PAYLOADS * 1000 - 500).map(|at| (at / 1000) as u8).collect();
    let packet = udp(CORE, ue.addr, &payload);
    let virtio = VirtioHeader { gso: Gso::Udp, gso_size: 1000, hdr_len: 28, ..offload() };
    rig.to_ue_offloaded(0, &virtio, &packet);
    for number in 0..PAYLOADS {
        let inner = ue.open(host.receive());
        let len = if number + 1 == PAYLOADS { 500 } else { 1000 };
        assert_eq!((inner.len(), inner[28]), (28 + len, number as u8));
    }
    assert_eq!(rig.seats[0].counters.udp_sent.get(), PAYLOADS as u64);
}

/// A UDP packet whose checksum is left to whoever cuts it.
fn offload() -> VirtioHeader {
    let flags = VirtioHeader::NEEDS_CSUM;
    VirtioHeader { flags, csum_start: 20, csum_offset: 6, ..VirtioHeader::default() }
}

#[test]
fn a_burst_that_the_kernel_joined_is_opened_packet_by_packet() {
    let rig = Rig::new(1);
    let host = Host::new();
    let mut ue = Ue::install(&rig, 0, 0);
    bind(&rig, 0, &ue, &host, Follow::Tcp);
    for number in 0..200u8 {
        host.send_esp(&rig, &mut ue, &[number; 100]);
    }
    for number in 0..200u8 {
        assert_eq!(rig.core_receives(0)[28], number);
    }
}

#[test]
fn r8019_ike_over_udp_that_nobody_answers_is_bounded() {
    let rig = Rig::with(1, gateway::worker::WorkerLimits { udp_ike_unanswered: 10, ..limits() });
    let host = Host::new();
    for _ in 0..30 {
        host.send(&rig, &[&NON_ESP_MARKER[..], &[7; 60]].concat());
    }
    rig.until("refused", 20, |rig| rig.drops(0, "udp_ike_flood"));
    for _ in 0..10 {
        rig.ike();
        rig.order(0, ToWorker::Handled { conn: ConnId::datagrams(WorkerId(0)), good: false });
    }
    rig.fence(0);
    host.send(&rig, &[&NON_ESP_MARKER[..], &[8; 60]].concat());
    assert_eq!(rig.ike().1, [8; 60]);
}

#[test]
fn a_session_that_ends_takes_its_path_with_it() {
    let rig = Rig::new(1);
    let host = Host::new();
    let (mut one, two) = (Ue::install(&rig, 0, 0), Ue::install(&rig, 0, 1));
    bind(&rig, 0, &one, &host, Follow::Any);
    bind(&rig, 0, &two, &host, Follow::Any);
    assert_eq!(rig.seats[0].counters.udp_paths.get(), 1, "both share it");
    rig.order(0, ToWorker::CloseSession { session: two.session, report: false });
    rig.fence(0);
    rig.to_ue(0, &udp(CORE, one.addr, b"goes on"));
    assert!(one.open(host.receive()).ends_with(b"goes on"));
    rig.order(0, ToWorker::CloseSession { session: one.session, report: false });
    rig.fence(0);
    assert_eq!(rig.seats[0].counters.udp_paths.get(), 0);
}
