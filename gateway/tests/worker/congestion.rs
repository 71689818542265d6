//! UEs on UDP behind an interface that is slower than what they are sent: a network namespace of the test's own, whose
//! loopback passes so many bits per second.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use gateway::types::{Follow, Path, Transport};
use gateway::worker::WorkerLimits;
use gateway::worker::inbox::ToWorker;

use crate::queueing::super_packet;
use crate::rig::{Rig, Ue, limits};

/// Runs the named test again as the only process of a new network namespace. Returns whether the caller is that process;
/// without the privilege to make a namespace, or a kernel that shapes, the test says so and passes.
fn in_slow_namespace(test: &str) -> bool {
    if std::env::var_os("CONGESTION_TEST_INNER").is_some() {
        return true;
    }
    let shaped = |inner: &str| {
        let slow = "ip link set lo up && tc qdisc add dev lo root tbf rate 40mbit burst 100kb limit 4mb";
        Command::new("unshare")
            .args(["--net", "sh", "-c", &format!("{slow} && {inner}")])
            .env("CONGESTION_TEST_INNER", "1")
            .status()
    };
    if !shaped("true").is_ok_and(|status| status.success()) {
        eprintln!("{test}: skipped, making a slow network namespace needs root, iproute2 and sch_tbf");
        return false;
    }
    let exe = std::env::current_exe().expect("this test");
    let inner = format!("exec {} --exact congestion::{test} --nocapture", exe.display());
    assert!(shaped(&inner).expect("runs").success());
    false
}

/// A UE on a socket of its own.
fn attached(rig: &Rig, number: u8) -> (Ue, UdpSocket) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("timeout");
    let ue = Ue::install(rig, 0, number);
    bind(rig, &ue, socket.local_addr().expect("bound"));
    (ue, socket)
}

fn bind(rig: &Rig, ue: &Ue, remote: SocketAddr) {
    let path = Box::new(Path { transport: Transport::Udp, local: rig.seats[0].udp, remote });
    rig.order(0, ToWorker::BindPath { session: ue.session, path, follow: Follow::Tcp });
    rig.fence(0);
}

/// Sends super-packets to a UE.
fn backlog(rig: &Rig, addr: Ipv4Addr, packets: u32) {
    for number in 0..packets {
        let (virtio, packet) = super_packet(addr, number * 60_000, &[7; 60_000]);
        rig.to_ue_offloaded(0, &virtio, &packet);
    }
}

/// Packets sealed for a UE, by the last sequence number that arrives at a socket until it is silent and nothing more is
/// sent: some may be lost there while the machine is busy.
fn sealed(ue: &Ue, socket: &UdpSocket, over: &AtomicBool) -> u32 {
    let (mut buffer, mut last) = ([0; 2048], 0);
    loop {
        match socket.recv(&mut buffer) {
            Ok(8..) if buffer[..4] == ue.inbound.spi().0.to_be_bytes() => {
                last = last.max(u32::from_be_bytes([buffer[4], buffer[5], buffer[6], buffer[7]]));
            }
            Ok(_) => {}
            Err(_) if over.load(Relaxed) => return last,
            Err(_) => {}
        }
    }
}

#[test]
fn a_full_udp_socket_serves_all_ues_alike() {
    if !in_slow_namespace("a_full_udp_socket_serves_all_ues_alike") {
        return;
    }
    // Enough that none waits for memory.
    let rig = Rig::with(1, WorkerLimits { send_memory: 16 << 20, flow_memory: 32 << 20, ..limits() });
    let ues: Vec<(Ue, UdpSocket)> = (0..10).map(|number| attached(&rig, number)).collect();
    let over = AtomicBool::new(false);
    let sealed: Vec<u32> = std::thread::scope(|scope| {
        let readers: Vec<_> =
            ues.iter().map(|(ue, socket)| scope.spawn(|| sealed(ue, socket, &over))).collect();
        scope.spawn(|| {
            while !over.load(Relaxed) {
                ues.iter().for_each(|(ue, _)| backlog(&rig, ue.addr, 1));
            }
        });
        std::thread::sleep(Duration::from_secs(4));
        over.store(true, Relaxed);
        readers.into_iter().map(|reader| reader.join().expect("it counts")).collect()
    });
    let (least, most) = (sealed.iter().min(), sealed.iter().max());
    assert!(least > Some(&0) && least.map(|least| least * 2) > most.copied(), "{sealed:?}");
}

#[test]
fn a_session_that_joins_another_on_its_path_takes_nothing_from_it() {
    if !in_slow_namespace("a_session_that_joins_another_on_its_path_takes_nothing_from_it") {
        return;
    }
    let rig = Rig::new(1);
    let [(greedy, _deaf), (one, path), (other, _elsewhere)] = [0, 1, 2].map(|number| attached(&rig, number));
    // The socket is full, and then some.
    while rig.drops(0, "flow_queue_full") == 0 {
        backlog(&rig, greedy.addr, 1);
    }
    // More than is sealed ahead of it.
    for _ in 0..12 {
        backlog(&rig, one.addr, 1);
        backlog(&rig, other.addr, 1);
    }
    std::thread::sleep(Duration::from_millis(50));
    bind(&rig, &other, path.local_addr().expect("bound"));
    let sealed = u64::from(sealed(&one, &path, &AtomicBool::new(true)));
    // The last ones may be lost at the socket.
    let (all, by_codel) = (12 * 45, rig.drops(0, "codel"));
    assert!(sealed + by_codel > all * 3 / 4, "{sealed} of {all}, {by_codel} dropped by CoDel");
}
