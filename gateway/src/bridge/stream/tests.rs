use std::net::TcpListener;

use codec::stream::BODY_LEN_MAX;
use socket2::SockRef;

use super::*;
use crate::tls::{Refusal, StreamKind, TlsClient, TlsServer};

fn pair() -> (FrameStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let near = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
    let (far, _) = listener.accept().expect("accepted");
    near.set_nonblocking(true).expect("non-blocking");
    (FrameStream::new(near, Deframer::originator()), far)
}

/// Reads frames at the far end until there are `count`; their bodies.
fn frames(far: &mut TcpStream, near: &mut FrameStream, count: usize) -> Vec<Vec<u8>> {
    let (mut deframer, mut carry, mut found) = (Deframer::originator(), Vec::new(), Vec::new());
    let mut buffer = vec![0; 65_536];
    while found.len() < count {
        near.flush().expect("open");
        let len = far.read(&mut buffer).expect("open");
        let (input, mut at) = (&buffer[..len], 0);
        loop {
            match deframer.next(input, &mut at, &mut carry).expect("frames") {
                Next::Pending => break,
                Next::InPlace(range) => found.push(input[range].to_vec()),
                Next::Carried => found.push(carry.clone()),
            }
        }
    }
    found
}

#[test]
fn r9329_3_frames_of_every_size_leave_whole_and_in_order() {
    let (mut near, mut far) = pair();
    let bodies: Vec<Vec<u8>> = (1..=100).map(|n| vec![n as u8; n * 14]).collect();
    let queued = near.queue_esp(bodies.iter().map(Vec::as_slice), 1 << 20).expect("open");
    assert_eq!(queued, Queued { frames: 100, dropped: 0 });
    near.queue_ike(b"an IKE message").expect("open");
    near.queue_ike(&vec![1; BODY_LEN_MAX]).expect("too long is not sent");
    let longest = vec![9; BODY_LEN_MAX];
    near.queue_esp([&longest[..], &[7; BODY_LEN_MAX + 1]].into_iter(), 1 << 20).expect("open");
    let found = frames(&mut far, &mut near, 102);
    assert_eq!(found[..100], bodies);
    assert_eq!(found[100], b"\0\0\0\0an IKE message");
    assert_eq!(found[101], longest);
}

#[test]
fn d10_a_peer_that_does_not_read_costs_whole_frames_and_a_bounded_backlog() {
    let (mut near, mut far) = pair();
    let packet = vec![5; 1400];
    let (mut taken, mut dropped) = (0, 0);
    while dropped < 100 {
        let queued = near.queue_esp(std::iter::repeat_n(&packet[..], 64), 100_000).expect("open");
        taken += queued.frames;
        dropped += queued.dropped;
        assert!(near.backlog_octets() <= 100_000 + 64 * 1402, "one call may be cut short by the socket");
    }
    near.queue_ike(b"not dropped").expect("open");
    let found = frames(&mut far, &mut near, taken + 1);
    assert!(found[..taken].iter().all(|body| *body == packet), "no frame was cut");
    assert_eq!(found[taken], b"\0\0\0\0not dropped");
    assert_eq!(near.backlog.capacity(), 0, "the memory is given back");
}

#[test]
fn ike_that_waits_is_bounded_and_counts_until_it_has_left() {
    const BACKLOG: usize = 200_000;
    let (mut near, mut far) = pair();
    // The kernel's share does not grow: it never takes all that waits at once.
    SockRef::from(&near.tcp).set_send_buffer_size(32 * 1024).expect("set");
    SockRef::from(&far).set_recv_buffer_size(32 * 1024).expect("set");
    let (packet, message) = (vec![5; 1400], vec![6; 1000]);
    while near.queue_esp(std::iter::repeat_n(&packet[..], 64), BACKLOG).expect("open").dropped == 0 {}
    let mut waiting = 0;
    while near.takes_ike(message.len()) {
        near.queue_ike(&message).expect("open");
        waiting += message.len();
    }
    assert!(waiting <= BRIDGE_IKE_BACKLOG_OCTETS && waiting + message.len() > BRIDGE_IKE_BACKLOG_OCTETS);
    // The peer reads, slowly: ESP waits all the time, and IKE has its room again once it has left.
    let (mut buffer, mut read) = (vec![0; 65_536], 0);
    while !near.takes_ike(message.len()) {
        read += far.read(&mut buffer).expect("open");
        near.flush().expect("open");
        near.queue_esp(std::iter::repeat_n(&packet[..], 128), 2 * BACKLOG).expect("open");
        assert!(near.backlog_octets() > 0);
        assert!(read < 1 << 26, "IKE has left long ago");
    }
}

#[test]
fn r9329_6_1_7_what_a_broken_connection_left_unfinished_is_gone() {
    let (mut near, mut far) = pair();
    far.write_all(&[0, 10, 1, 2, 3]).expect("open");
    let mut buffer = [0; 64];
    let read = loop {
        match near.read(&mut buffer) {
            ReadEnd::Nothing => std::thread::yield_now(),
            end => break end,
        }
    };
    assert!(matches!(read, ReadEnd::Octets(5)));
    assert_eq!(near.next(&buffer[..5], &mut 0), Ok(Next::Pending));
    assert!(near.carry_octets() > 0);
    drop(far);
    while matches!(near.read(&mut buffer), ReadEnd::Nothing) {}
    assert!(matches!(near.read(&mut buffer), ReadEnd::Closed));
}

/// The two ends of a TLS connection that stands, as [`FrameStream`]s.
fn tls_pair() -> (FrameStream, FrameStream) {
    const CHAIN: &[u8] = include_bytes!("../../../tests/fixtures/pki/gw-ec.pem");
    const KEY: &[u8] = include_bytes!("../../../tests/fixtures/pki/gw-ec.key");
    const ROOT: &[u8] = include_bytes!("../../../tests/fixtures/pki/root.pem");
    let (near, far) = pair();
    far.set_nonblocking(true).expect("non-blocking");
    let client = TlsClient::new(ROOT, "gw.test").expect("the fixture").session().expect("a session");
    let server = TlsServer::from_pem(CHAIN, KEY).expect("the fixture");
    let front = Front::new(StreamKind::Tls, Some(&server));
    let mut near = FrameStream::behind(near.tcp, Some(Front::client(client)), Deframer::originator());
    let mut far = FrameStream::behind(far, front, Deframer::originator());
    let mut buffer = vec![0; 2 * CARRY_MAX];
    near.begin();
    while !(near.is_open() && far.is_open()) {
        for end in [&mut near, &mut far] {
            assert!(matches!(end.read(&mut buffer), ReadEnd::Nothing), "nothing but the handshake");
        }
    }
    (near, far)
}

#[test]
fn r9329_a_3_frames_before_a_record_that_does_not_verify_are_delivered() {
    let (mut near, mut far) = tls_pair();
    near.queue_ike(b"a good one").expect("open");
    // A record of application data that nobody sealed.
    let forged = [&[23, 3, 3, 0, 40][..], &[7; 40]].concat();
    (&near.tcp).write_all(&forged).expect("open");
    // Both have arrived when the forged one has, and one read takes them.
    let mut buffer = vec![0; 2 * CARRY_MAX];
    loop {
        let arrived = far.tcp.peek(&mut buffer).unwrap_or(0);
        if buffer[..arrived].ends_with(&forged) {
            break;
        }
        std::thread::yield_now();
    }
    let ReadEnd::Refused(len, error) = far.read(&mut buffer) else { panic!("the forged record passes") };
    assert_eq!(error.refusal(), Refusal::Record);
    assert_eq!(&buffer[..len], b"\0\x10\0\0\0\0a good one");
    (&near.tcp).write_all(&forged).expect("open");
    let end = loop {
        match far.read(&mut buffer) {
            ReadEnd::Nothing => std::thread::yield_now(),
            end => break end,
        }
    };
    assert!(matches!(end, ReadEnd::Refused(0, _)), "nothing comes behind it");
}
