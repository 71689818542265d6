//! What only a look at the link shows.

use std::collections::HashSet;
use std::io::Read;

use crate::client::{Client, Conn};
use crate::lab::{AWAY, GATEWAY, HOME, Lab, Setup, dial};
use crate::pcap::Capture;
use crate::ue::UeConfig;

#[test]
fn r9329_4_1_and_9_3_1_and_9_5_1_and_r6040_4_1_outer_headers_say_nothing_about_inner_ones() {
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

#[test]
fn r9329_3_1_and_6_8_1_messages_stay_as_short_as_over_udp_and_df_is_not_copied() {
    let Some(lab) = Lab::start(Setup::default()) else { return };
    let capture = Capture::start(&lab);
    let mut client = Client::attach(1);
    let dividing = lab.dividing_core();
    // Length, SPI, sequence number, IV, padding and trailer, ICV around an inner packet of at most the MTU.
    let longest = 1400 + 2 + 8 + 8 + 3 + 2 + 16;
    let mut lengths = Vec::new();
    for len in (1..8960).step_by(256).chain([1371, 1372, 1373, 8972]) {
        // Some divide what does not fit, and clear DF; what fits goes with DF.
        let (core, may_divide) = if len > 1372 { (&dividing, true) } else { (&lab.core, false) };
        core.send_to(&vec![7; len], (client.addr, 4000)).expect("the core has a route");
        let mut arrived = 0;
        while arrived < len + 8 {
            let mut packet = client.conn.esp();
            lengths.push(packet.len() + 2);
            let opened = client.inbound.open(&mut packet).expect("authentic");
            let inner = &packet[opened.payload];
            assert_eq!(inner[6] & 0x40 == 0, may_divide);
            arrived += inner.len() - 20;
        }
        assert_eq!(arrived, len + 8);
    }
    let max = lengths.into_iter().max().expect("some");
    assert!((1400..=longest).contains(&max), "{max}");
    let packets = capture.finish();
    let outer: HashSet<bool> = packets
        .iter()
        .filter(|outer| outer.src == GATEWAY && outer.proto == 6)
        .map(|outer| outer.df)
        .collect();
    assert_eq!(outer, HashSet::from([true]), "the outer header is TCP's business");
}

/// The option of `kind` among TCP options.
pub fn option(mut options: &[u8], kind: u8) -> Option<&[u8]> {
    loop {
        match options {
            [0, ..] | [] => return None,
            [1, rest @ ..] => options = rest,
            [found, len, ..] => {
                let (option, rest) = options.split_at(usize::from(*len));
                if *found == kind {
                    return Some(&option[2..]);
                }
                options = rest;
            }
            [_] => return None,
        }
    }
}

#[test]
fn r9329_9_4_1_and_8_1_the_connection_is_common_tcp_with_an_mss() {
    let Some(lab) = Lab::start(Setup::default()) else { return };
    crate::process::ip(&["-n", &lab.middle.0, "link", "set", "ue0", "mtu", "1280"]);
    crate::process::ip(&["-n", &lab.ues.0, "link", "set", "gw0", "mtu", "1280"]);
    let capture = Capture::start(&lab);
    let mut client = Client::attach(1);
    for number in 0..20 {
        lab.to_ue(client.addr.into(), &[number; 1300]);
        assert_eq!(client.receive(), [number; 1300]);
        client.send(&[number; 1300]);
        lab.at_core();
    }
    // A port where nobody listens answers with a reset, and a connection ends by FIN from both sides.
    let refused = dial((HOME, 0).into(), (GATEWAY, 4501).into()).map_err(|error| error.kind());
    assert_eq!(refused.err(), Some(std::io::ErrorKind::ConnectionRefused));
    client.conn.stream.shutdown(std::net::Shutdown::Write).expect("open");
    let end = client.conn.stream.read(&mut [0; 1]);
    assert_eq!(end.ok(), Some(0), "FIN and no reset");
    let packets = capture.finish();
    let gateway = || packets.iter().filter(|outer| outer.src == GATEWAY && outer.proto == 6);
    let answer = gateway().find(|outer| outer.flags & 0x12 == 0x12).expect("SYN and ACK");
    assert_eq!(option(&answer.options, 2), Some(&1240u16.to_be_bytes()[..]), "MSS for this link");
    assert!(option(&answer.options, 3).is_some(), "window scale");
    assert!(option(&answer.options, 4).is_some(), "selective acknowledgements");
    assert!(packets.iter().all(|outer| !outer.fragment), "nothing was divided on its way");
}
