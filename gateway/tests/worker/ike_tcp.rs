//! Connections for IKE alone (draft-ietf-ipsecme-ike-tcp).

use std::io::Read;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use gateway::types::{Path, Transport};
use gateway::worker::inbox::{ToControl, ToWorker};

use crate::rig::{CORE, PATIENCE, Peer, Rig, Ue, limits};

fn message(len: u32, octet: u8) -> Vec<u8> {
    let mut message = vec![octet; len as usize];
    message[24..28].copy_from_slice(&len.to_be_bytes());
    message
}

fn connect(rig: &Rig) -> Peer {
    let stream = TcpStream::connect(rig.seats[0].ike_addr).expect("connect");
    stream.set_nodelay(true).expect("nodelay");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    Peer { stream }
}

fn path_of_next_ike(rig: &Rig) -> Path {
    rig.report(|report| match report {
        ToControl::Ike { path, .. } => Some(*path),
        _ => None,
    })
}

#[test]
fn nir_2_2_2_and_2_3_2_messages_come_and_go_as_they_are() {
    let rig = Rig::new(1);
    let mut peer = connect(&rig);
    let stream = [message(28, 1), message(600, 2)].concat();
    // Slowly: the header in two pieces, then the rest.
    for piece in [&stream[..20], &stream[20..40], &stream[40..]] {
        peer.send(piece);
        std::thread::sleep(Duration::from_millis(20));
    }
    let (conn, first) = rig.ike();
    assert_eq!((first, rig.ike().1), (message(28, 1), message(600, 2)));
    let answer = message(900, 3);
    rig.order(0, ToWorker::Send { conn, message: answer.clone().into() });
    let mut arrived = vec![0; 2000];
    let len = peer.stream.read(&mut arrived).expect("an answer");
    assert_eq!(arrived[..len], answer, "neither Length nor marker, and in one write");
    peer.send(&message(28, 4));
    assert_eq!(path_of_next_ike(&rig).transport, Transport::IkeTcp);
}

#[test]
fn nir_2_2_7_a_peer_that_said_its_last_is_answered_and_then_the_connection_ends() {
    let rig = Rig::new(1);
    let mut peer = connect(&rig);
    peer.send(&message(100, 1));
    peer.stream.shutdown(Shutdown::Write).expect("open");
    let (conn, _) = rig.ike();
    std::thread::sleep(Duration::from_millis(100));
    rig.order(0, ToWorker::Send { conn, message: message(200, 2).into() });
    rig.order(0, ToWorker::Handled { conn, good: true });
    let mut rest = Vec::new();
    peer.stream.read_to_end(&mut rest).expect("the answer, then the end");
    assert_eq!(rest, message(200, 2));
    rig.until("closed", 1, |rig| rig.closes(0, "peer"));
}

#[test]
fn nir_2_2_7_an_idle_connection_closes() {
    let mut limits = limits();
    limits.first_message_timeout = Duration::from_secs(1);
    limits.prefix_timeout = Duration::from_secs(1);
    let rig = Rig::with(1, limits);
    let (mut silent, mut once) = (connect(&rig), connect(&rig));
    once.send(&message(100, 1));
    let (conn, _) = rig.ike();
    rig.order(0, ToWorker::Handled { conn, good: true });
    assert!(silent.is_closed() && once.is_closed());
    rig.until("the one that was used", 1, |rig| rig.closes(0, "idle"));
    rig.until("the other", 1, |rig| rig.closes(0, "first_message_timeout"));
}

#[test]
fn nir_3_1_1_esp_is_neither_heard_nor_sent_there() {
    let rig = Rig::new(1);
    let mut ue = Ue::install(&rig, 0, 0);
    let mut peer = connect(&rig);
    peer.send(&message(100, 1));
    rig.ike();
    // What an ESP frame has where an IKE header has its Length is no length of a message.
    let frame = ue.frame_to(CORE, b"not here");
    peer.send(&frame[2..]);
    assert!(rig.core_is_silent(0));
    let mut prefixed = connect(&rig);
    prefixed.send(&[b"IKETCP", &frame[..]].concat());
    assert!(rig.core_is_silent(0));
    let mut ordinary = Peer::connect(&rig, 0);
    ordinary.send(&frame);
    assert!(rig.core_receives(0).ends_with(b"not here"), "it was still fresh");
}

#[test]
fn nir_2_4_1_a_length_that_cannot_be_closes_the_connection() {
    let rig = Rig::new(1);
    for (count, length) in (1..).zip([0u32, 27, 65_530, u32::MAX]) {
        let mut peer = connect(&rig);
        let mut bad = message(28, 1);
        bad[24..28].copy_from_slice(&length.to_be_bytes());
        peer.send(&bad);
        assert!(peer.is_closed());
        rig.until("counted", count, |rig| rig.drops(0, "bad_length"));
    }
    assert_eq!(rig.closes(0, "framing"), 4);
}
