//! `swugate originate` in front of the gateway, seen from the link between them.

use std::collections::HashSet;
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::client::newest_child;
use crate::lab::{Lab, PATIENCE, Setup};
use crate::pcap::Capture;
use crate::process::SWUGATE;
use crate::ue::{Ue, UeConfig};
use crate::wire::option;

const ADAPTER: &str = "127.0.0.2";

struct Adapter(Child);

impl Adapter {
    /// Starts it among the UEs.
    fn start(gateway: &str) -> Self {
        let mut command = Command::new(SWUGATE);
        command.args(["originate", "--listen", ADAPTER, "--gateway", gateway]).stderr(Stdio::null());
        let adapter = Self(command.spawn().expect("started"));
        let deadline = Instant::now() + PATIENCE;
        while UdpSocket::bind((ADAPTER, 4500)).is_ok() {
            assert!(Instant::now() < deadline, "it listens");
            std::thread::sleep(Duration::from_millis(20));
        }
        adapter
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn r9329_6_1_o4_and_9_o1_one_flow_label_one_dscp_an_mss_and_no_ecn_on_every_connection() {
    const ROUNDS: usize = 3;
    let Some(lab) = Lab::start(Setup::default()) else { return };
    // As deploy/sysctl.d says, for hosts that originate too.
    std::fs::write("/proc/sys/net/ipv4/tcp_ecn", "0").expect("root may");
    let capture = Capture::start(&lab);
    let _adapter = Adapter::start("[fd20::1]:4500");
    let client = UdpSocket::bind(("127.0.0.3", 0)).expect("a free port");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut buffer = [0; 4096];
    let mut ue = Ue::new(UeConfig::new(1));
    client.send_to(&ue.init(), (ADAPTER, 500)).expect("sent");
    let len = client.recv(&mut buffer).expect("an answer");
    ue.on_init(&buffer[..len]).expect("no error");
    let marked = |message: &[u8]| [&[0; 4][..], message].concat();
    client.send_to(&marked(&ue.auth()), (ADAPTER, 4500)).expect("sent");
    let len = client.recv(&mut buffer).expect("an answer");
    assert_eq!(ue.on_auth(&buffer[4..len]).error(), None);
    let Some(std::net::IpAddr::V4(addr)) = ue.addresses.first().copied() else { panic!("no address") };
    let (mut outbound, _) = newest_child(&mut ue);
    let mut esp = |tos: u8, payload: &[u8]| {
        let packet = crate::client::udp(addr, crate::lab::CORE, (4000, crate::lab::CORE_PORT), payload, tos);
        let mut frame = vec![0; outbound.frame_len(packet.len())];
        let len = outbound.seal_frame(&packet, &mut frame).expect("sealed");
        frame[2..len].to_vec()
    };
    for round in 0..ROUNDS {
        for tos in [0xb8, 0x20, 0] {
            client.send_to(&esp(tos, b"up"), (ADAPTER, 4500)).expect("sent");
            lab.at_core();
        }
        // One packet that is not authentic: the gateway ends the connection, and the adapter makes another.
        let mut forged = esp(0, b"forged");
        *forged.last_mut().expect("not empty") ^= 1;
        client.send_to(&forged, (ADAPTER, 4500)).expect("sent");
        lab.until("closed", round as u64 + 1, |lab| lab.closes("auth_failed"));
        // ESP that comes while there is none may be lost.
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "it connects again");
            client.send_to(&esp(0, b"again"), (ADAPTER, 4500)).expect("sent");
            if !lab.core_is_silent() {
                break;
            }
        }
        while !lab.core_is_silent() {}
    }
    let packets = capture.finish();
    let gateway: std::net::IpAddr = "fd20::1".parse().expect("an address");
    let from_adapter = || packets.iter().filter(|outer| outer.src != gateway && outer.dst_port == 4500);
    let connections: Vec<_> = from_adapter().filter(|outer| outer.flags & 0x12 == 2).collect();
    assert!(connections.len() > ROUNDS, "{}", connections.len());
    for syn in connections {
        assert_eq!(option(&syn.options, 2), Some(&1440u16.to_be_bytes()[..]), "MSS for this link");
        assert_eq!(syn.flags & 0xc0, 0, "no ECN");
    }
    let labels: HashSet<u32> = from_adapter().map(|outer| outer.flow_label).collect();
    assert_eq!(labels.len(), 1, "{labels:x?}");
    let tos: HashSet<u8> = from_adapter().map(|outer| outer.tos).collect();
    assert_eq!(tos, HashSet::from([0]), "one DSCP, Not-ECT");
}
