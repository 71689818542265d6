//! What only a look at the link shows.

use std::collections::HashSet;

use crate::client::{Client, Conn};
use crate::lab::{AWAY, GATEWAY, Lab, Setup};
use crate::pcap::Capture;
use crate::ue::UeConfig;

#[test]
fn r9329_4_1_and_9_3_1_and_9_5_1_outer_headers_say_nothing_about_inner_ones() {
    let Some(lab) = Lab::start(Setup::default()) else { return };
    let capture = Capture::start(&lab);
    let mut client = Client::attach(1);
    let core = socket2::SockRef::from(&lab.core);
    // EF, AF41, CS1 and best effort; with and without congestion experienced.
    for tos in [0xb8, 0x88, 0x20, 0, 0xbb, 3] {
        core.set_tos_v4(tos).expect("an option");
        lab.to_ue(client.addr.into(), b"down");
        let mut packet = client.conn.esp();
        let opened = client.inbound.open(&mut packet).expect("authentic");
        assert_eq!(u32::from(packet[opened.payload][1]), tos, "inner ECN and DSCP arrive as they were");
        client.send(b"up");
        lab.at_core();
    }
    let packets = capture.finish();
    let gateway = || packets.iter().filter(|outer| outer.src == GATEWAY && outer.proto == 6);
    let tos: HashSet<u8> = gateway().map(|outer| outer.tos).collect();
    assert_eq!(tos, HashSet::from([0]), "one DSCP, Not-ECT");
    let answers: Vec<_> = gateway().filter(|outer| outer.flags & 2 != 0).collect();
    assert!(!answers.is_empty() && answers.iter().all(|outer| outer.flags & 0xc0 == 0));
    // 9329-4-1: the first octets are the Length of the IKE_SA_INIT response.
    let first = gateway().find(|outer| !outer.payload.is_empty()).expect("an answer");
    assert_eq!(usize::from(u16::from_be_bytes([first.payload[0], first.payload[1]])), first.payload.len());
    assert_eq!(first.payload[2..6], [0; 4], "the non-ESP marker");
}

#[test]
fn r9329_6_1_6_the_flow_label_is_the_same_on_every_connection() {
    let Some(lab) = Lab::start(Setup::default()) else { return };
    let source = |port| format!("[fd21::{port:x}]:{port}").parse().expect("an address");
    let capture = Capture::start(&lab);
    let mut client = Client::attach_on(Conn::open_from(source(5001)), UeConfig::new(1));
    for port in [5002, 5003, 5004] {
        client.reconnect(source(port));
        client.send(b"up");
        lab.at_core();
        lab.to_ue(client.addr.into(), b"down");
        assert_eq!(client.receive(), b"down");
    }
    let packets = capture.finish();
    let gateway: std::net::IpAddr = "fd20::1".parse().expect("an address");
    let labels: HashSet<(u16, u32)> = packets
        .iter()
        .filter(|outer| outer.src == gateway && outer.proto == 6 && !outer.payload.is_empty())
        .map(|outer| (outer.dst_port, outer.flow_label))
        .collect();
    assert_eq!(labels.len(), 4, "one label each: {labels:x?}");
    let distinct: HashSet<u32> = labels.iter().map(|(_, label)| *label).collect();
    assert_eq!(distinct.len(), 1, "{labels:x?}");
}

#[test]
fn r9329_2_3_and_5_3_no_keepalive_and_no_datagram_on_an_idle_session() {
    let Some(lab) = Lab::start(Setup::default()) else { return };
    let capture = Capture::start(&lab);
    let mut client = Client::attach_on(Conn::open_from((AWAY, 0).into()), UeConfig::new(1));
    assert!(client.conn.is_quiet_for(std::time::Duration::from_secs(3)));
    let packets = capture.finish();
    let from_gateway = packets.iter().filter(|outer| outer.src == GATEWAY);
    assert!(from_gateway.clone().all(|outer| outer.proto == 6));
    let with_payload = from_gateway.filter(|outer| !outer.payload.is_empty()).count();
    assert_eq!(with_payload, 2, "the responses of IKE_SA_INIT and IKE_AUTH");
}
