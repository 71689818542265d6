//! The real inner device and its steering program, in a network namespace of the test's own.

use std::io::{IoSlice, Read};
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::time::{Duration, Instant};

use codec::ip::{Checksum, InnerHeader, Joined, Run, Segment, VirtioHeader};
use gateway::io::steering::SteeringMap;
use gateway::io::tun::{self, InnerDevice, TunQueue};

/// Runs the named test of this file again as the only process of a new network namespace. Returns whether
/// the caller is that process; without the privilege to make a namespace the test says so and passes.
fn in_own_namespace(test: &str) -> bool {
    if std::env::var_os("DEVICE_TEST_INNER").is_some() {
        return true;
    }
    let probe = Command::new("unshare").args(["--net", "true"]).status();
    if !probe.is_ok_and(|status| status.success()) {
        eprintln!("{test}: skipped, making a network namespace needs root");
        return false;
    }
    let exe = std::env::current_exe().expect("this test");
    let mut inner = Command::new("unshare");
    inner.arg("--net").arg(exe).args(["--exact", test, "--nocapture"]).env("DEVICE_TEST_INNER", "1");
    assert!(inner.status().expect("runs").success());
    false
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split_whitespace()).status().expect("iproute2");
    assert!(status.success(), "ip {arguments}");
}

/// The next packet of a queue whose destination is `dst`, or `None` after a moment.
fn read_for(queue: &TunQueue, dst: IpAddr) -> Option<Vec<u8>> {
    let until = Instant::now() + Duration::from_millis(300);
    let mut packet = vec![0; 2048];
    while Instant::now() < until {
        match queue.read(&mut packet).expect("the device is up") {
            Some(len) => {
                let inner = &packet[VirtioHeader::LEN..len];
                let header = codec::ip::InnerHeader::parse(inner).expect("a whole packet");
                if header.dst == dst {
                    return Some(inner.to_vec());
                }
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    }
    None
}

#[test]
fn steering_sends_each_address_to_the_queue_of_its_worker() {
    if !in_own_namespace("steering_sends_each_address_to_the_queue_of_its_worker") {
        return;
    }
    let queues = tun::open("swtest0", 2, None).expect("tun");
    ip("link set swtest0 up mtu 1400");
    ip("addr add 10.64.0.0/16 dev swtest0");
    ip("-6 addr add fd64::/112 dev swtest0 nodad");
    let steering = SteeringMap::attach(queues[0].as_fd(), 1024).expect("steering program");
    let addrs: Vec<IpAddr> = (1..=8)
        .flat_map(|host: u16| {
            [IpAddr::from([10, 64, 0, host as u8]), IpAddr::from([0xfd64, 0, 0, 0, 0, 0, 0, host])]
        })
        .collect();
    let queue_of = |index: usize| index / 2 % 2;
    for (index, addr) in addrs.iter().enumerate() {
        steering.set(*addr, queue_of(index) as u32).expect("room");
    }
    let v4 = UdpSocket::bind("0.0.0.0:0").expect("socket");
    let v6 = UdpSocket::bind("[::]:0").expect("socket");
    let send = |addr: IpAddr| {
        let socket = if addr.is_ipv4() { &v4 } else { &v6 };
        socket.send_to(b"steered", (addr, 5000)).expect("routed to the device");
    };
    for (index, addr) in addrs.iter().enumerate() {
        send(*addr);
        let packet = read_for(&queues[queue_of(index)], *addr).expect("on the queue of its worker");
        assert!(packet.ends_with(b"steered"));
    }
    // The owner moves, then is forgotten.
    steering.set(addrs[0], 1).expect("replaced");
    send(addrs[0]);
    assert!(read_for(&queues[1], addrs[0]).is_some());
    steering.remove(addrs[0]).expect("removed");
    steering.remove(addrs[0]).expect("removing twice is no error");
    send(addrs[0]);
    assert!(read_for(&queues[0], addrs[0]).is_some(), "unknown addresses go to queue 0");
}

/// Segment `index` of a flow of TCP over IPv4, `len` octets of data.
fn segment(index: u32, len: usize) -> Vec<u8> {
    let (src, dst) = ([10, 64, 0, 2], [10, 64, 0, 1]);
    let mut tcp = vec![0; 20 + len];
    tcp[..4].copy_from_slice(&[0x1f, 0x90, 0x00, 0x50]);
    tcp[4..8].copy_from_slice(&(index * len as u32).to_be_bytes());
    tcp[12..16].copy_from_slice(&[0x50, 0x10, 0xff, 0xff]);
    tcp[20..].fill(index as u8);
    let sum = Checksum::new().with_pseudo_header(src.into(), dst.into(), 6, tcp.len() as u32).with(&tcp);
    tcp[16..18].copy_from_slice(&sum.finish().to_be_bytes());
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0];
    packet.extend([src, dst].concat());
    packet[2..4].copy_from_slice(&((20 + tcp.len()) as u16).to_be_bytes());
    let sum = Checksum::new().with(&packet).finish();
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(tcp);
    packet
}

#[test]
fn the_kernel_takes_a_packet_that_is_longer_than_its_header_can_say() {
    if !in_own_namespace("the_kernel_takes_a_packet_that_is_longer_than_its_header_can_say") {
        return;
    }
    let queues = tun::open("swtest2", 1, Some(200_000)).expect("tun");
    let offloads = queues[0].offloads();
    if offloads.tcp4_octets == 0 {
        return eprintln!("skipped: a kernel before 6.6 is not given any");
    }
    ip("link set swtest2 up mtu 1400");
    ip("addr add 10.64.0.1/16 dev swtest2");
    let (v4, raw, tcp) = (socket2::Domain::IPV4, socket2::Type::RAW, socket2::Protocol::TCP);
    let mut receiver = socket2::Socket::new(v4, raw, Some(tcp)).expect("raw socket");
    receiver.set_read_timeout(Some(Duration::from_secs(2))).expect("timeout");
    let head = segment(0, 1000);
    let first = Segment::of(&head, &InnerHeader::parse(&head).expect("sound")).expect("a segment");
    let mut run = Run::new(&head, first).expect("sound");
    run.may_grow_to(offloads.tcp4_octets);
    let mut whole = head;
    for index in 1..100 {
        let next = segment(index, 1000);
        assert_eq!(run.join(&next), Joined::Yes);
        whole.extend_from_slice(&next[run.header_len()..]);
    }
    let header = run.finish(&mut whole).encode();
    queues[0].write(&[IoSlice::new(&header), IoSlice::new(&whole)]).expect("the device takes it");
    let mut received = vec![0; 200_000];
    let len = receiver.read(&mut received).expect("the kernel passes it on");
    assert_eq!(len, 40 + 100 * 1000);
    assert_eq!(received[40..len], whole[40..]);
}

#[test]
fn a_device_name_is_free_again_when_its_queues_are_closed() {
    if !in_own_namespace("a_device_name_is_free_again_when_its_queues_are_closed") {
        return;
    }
    for _ in 0..3 {
        drop(tun::open("swtest1", 2, None).expect("tun"));
    }
    assert!(tun::open("a-name-of-more-than-15", 1, None).is_err());
    assert!(tun::open("", 1, None).is_err());
}
