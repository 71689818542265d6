//! TLS around the stream (RFC 9329 Appendices A and B), FTT and shared ports, as a peer sees them.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway::tls::StreamKind;
use gateway::types::Transport;
use gateway::worker::WorkerLimits;
use gateway::worker::inbox::{ToControl, ToWorker};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned, SupportedProtocolVersion,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::rig::{CORE, PATIENCE, Peer, Rig, Ue, ike_frame, limits, server, udp};

const MESSAGE: [u8; 28] = [7; 28];

/// A client that believes the fixtures' root.
fn client(versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_file("tests/fixtures/pki/root.pem").expect("a fixture");
    roots.add(root).expect("an authority");
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .expect("versions of the provider")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::in_memory_sessions(8);
    Arc::new(config)
}

fn any_version() -> Arc<ClientConfig> {
    client(&[&rustls::version::TLS13, &rustls::version::TLS12])
}

/// A TLS connection to a worker.
struct TlsPeer {
    stream: StreamOwned<ClientConnection, TcpStream>,
}

impl TlsPeer {
    fn bare(rig: &Rig, worker: usize, kind: StreamKind, config: &Arc<ClientConfig>) -> Self {
        let tcp = TcpStream::connect(rig.seats[worker].at(kind)).expect("connect");
        Self::over(tcp, config)
    }

    fn over(tcp: TcpStream, config: &Arc<ClientConfig>) -> Self {
        tcp.set_nodelay(true).expect("nodelay");
        tcp.set_read_timeout(Some(PATIENCE)).expect("timeout");
        let name = "gw.test".try_into().expect("a name");
        let connection = ClientConnection::new(config.clone(), name).expect("a client");
        Self { stream: StreamOwned::new(connection, tcp) }
    }

    /// Connects and sends the prefix.
    fn connect(rig: &Rig, worker: usize) -> Self {
        let mut peer = Self::bare(rig, worker, StreamKind::Tls, &any_version());
        peer.send(b"IKETCP");
        peer
    }

    fn send(&mut self, octets: &[u8]) {
        self.stream.write_all(octets).expect("sent");
        self.stream.flush().expect("sent");
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut length = [0; 2];
        self.stream.read_exact(&mut length).expect("a frame arrives");
        let mut body = vec![0; usize::from(u16::from_be_bytes(length)) - 2];
        self.stream.read_exact(&mut body).expect("the frame is whole");
        body
    }

    /// Whether the gateway ends the stream as TLS does, with a close_notify.
    fn ends_cleanly(&mut self) -> bool {
        // rustls tells the end of the connection without a close_notify as an error.
        matches!(self.stream.read(&mut [0; 1]), Ok(0))
    }
}

/// What is left of a connection that is closed: all octets until its end.
fn rest(peer: &mut Peer) -> Vec<u8> {
    let mut octets = Vec::new();
    match peer.stream.read_to_end(&mut octets) {
        Ok(_) => octets,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "closed in time");
            octets
        }
    }
}

fn plain_peer(rig: &Rig, kind: StreamKind) -> Peer {
    let stream = TcpStream::connect(rig.seats[0].at(kind)).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    Peer { stream }
}

#[test]
fn r9329_a_3_both_versions_carry_prefix_and_frames_inside() {
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let rig = Rig::new(1);
        let mut peer = TlsPeer::bare(&rig, 0, StreamKind::Tls, &client(&[version]));
        peer.send(&[b"IKETCP", ike_frame(&MESSAGE).as_slice()].concat());
        let (conn, transport, message) = rig.report(|report| match report {
            ToControl::Ike { conn, path, message } => Some((*conn, path.transport, message.clone())),
            _ => None,
        });
        assert_eq!((transport, message), (Transport::Tls, MESSAGE.to_vec()));
        rig.order(0, ToWorker::Send { conn, message: b"an answer".to_vec().into() });
        assert_eq!(peer.receive(), b"\0\0\0\0an answer");
        assert_eq!(rig.all_drops(0), 0);
    }
}

#[test]
fn r9329_a_3_records_need_not_end_where_frames_do() {
    let rig = Rig::new(1);
    let mut peer = TlsPeer::bare(&rig, 0, StreamKind::Tls, &any_version());
    for octet in [b"IKETCP", ike_frame(&MESSAGE).as_slice()].concat() {
        peer.send(&[octet]);
    }
    assert_eq!(rig.ike().1, MESSAGE);
    let many = ike_frame(&[9; 60_000]).repeat(5);
    peer.send(&many);
    for _ in 0..5 {
        assert_eq!(rig.ike().1, [9; 60_000]);
    }
    assert_eq!(rig.all_drops(0), 0);
}

#[test]
fn r9329_a_3_traffic_both_ways_whatever_the_cipher_of_esp() {
    for cbc in [false, true] {
        let rig = Rig::new(1);
        let mut ue = if cbc { Ue::install_cbc(&rig, 0, 0) } else { Ue::install(&rig, 0, 0) };
        let mut peer = TlsPeer::connect(&rig, 0);
        // Many frames in each record, some of them across two.
        let frames: Vec<u8> = (0..60_u8).flat_map(|n| ue.frame_to(CORE, &[n; 1000])).collect();
        peer.send(&frames);
        for n in 0..60 {
            assert!(rig.core_receives(0).ends_with(&[n; 1000]), "{n}");
        }
        for n in 0..200_u8 {
            rig.to_ue(0, &udp(CORE, ue.addr, &[n; 1200]));
        }
        for n in 0..200 {
            let body = peer.receive();
            assert!(ue.open(body).ends_with(&[n; 1200]), "{n}");
        }
        assert_eq!(rig.all_drops(0), 0);
    }
}

#[test]
fn r9329_a_3_a_frame_across_two_records_is_opened_with_those_behind_it() {
    let rig = Rig::new(1);
    let mut ue = Ue::install_cbc(&rig, 0, 0);
    let mut peer = TlsPeer::connect(&rig, 0);
    for cut in [1, 2, 500] {
        let frames: Vec<u8> = (0..5_u8).flat_map(|n| ue.frame_to(CORE, &[n; 1000])).collect();
        let (first, rest) = frames.split_at(cut);
        peer.send(first);
        // The gateway has had the one record before the other comes.
        std::thread::sleep(Duration::from_millis(20));
        peer.send(rest);
        for n in 0..5 {
            assert!(rig.core_receives(0).ends_with(&[n; 1000]), "{n}");
        }
    }
    assert_eq!(rig.all_drops(0), 0);
}

#[test]
fn r9329_b_2_what_came_before_the_close_notify_is_delivered_whatever_the_cipher_of_esp() {
    for cbc in [false, true] {
        let rig = Rig::new(1);
        let mut ue = if cbc { Ue::install_cbc(&rig, 0, 0) } else { Ue::install(&rig, 0, 0) };
        let mut peer = TlsPeer::connect(&rig, 0);
        peer.send(&ue.frame_to(CORE, b"first"));
        rig.core_receives(0);
        let last: Vec<u8> = (0..10_u8).flat_map(|n| ue.frame_to(CORE, &[n; 100])).collect();
        // One write: records and close_notify arrive together.
        let connection = &mut peer.stream.conn;
        connection.writer().write_all(&last).expect("room");
        connection.send_close_notify();
        let mut octets = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut octets).expect("to memory");
        }
        peer.stream.sock.write_all(&octets).expect("sent");
        for n in 0..10 {
            assert!(rig.core_receives(0).ends_with(&[n; 100]), "{n}");
        }
        assert_eq!(rig.all_drops(0), 0);
    }
}

#[test]
fn r9329_a_3_a_resumed_connection_continues_the_sa() {
    let rig = Rig::new(2);
    let config = any_version();
    let mut ue = Ue::install(&rig, 0, 0);
    // The second comes to the other worker: tickets are good for both, and the connection moves to its SA.
    for (worker, kind) in [(0, HandshakeKind::Full), (1, HandshakeKind::Resumed)] {
        let mut peer = TlsPeer::bare(&rig, worker, StreamKind::Tls, &config);
        peer.send(&[b"IKETCP", ue.frame_to(CORE, b"up").as_slice()].concat());
        assert!(rig.core_receives(0).ends_with(b"up"));
        rig.to_ue(0, &udp(CORE, ue.addr, b"down"));
        let body = peer.receive();
        assert!(ue.open(body).ends_with(b"down"));
        assert_eq!(peer.stream.conn.handshake_kind(), Some(kind));
        // Without a close_notify, as a network that is gone.
        peer.stream.sock.shutdown(std::net::Shutdown::Both).expect("shut");
        rig.until("closed", worker as u64 + 1, |rig| rig.closes(0, "peer") + rig.closes(1, "peer"));
    }
    assert_eq!(rig.closes(1, "moved"), 1);
}

#[test]
fn r9329_a_3_ports_for_tls_and_tcp_never_guess() {
    let rig = Rig::new(1);
    let mut plain = plain_peer(&rig, StreamKind::Tls);
    plain.send(&[b"IKETCP", ike_frame(&MESSAGE).as_slice()].concat());
    let alert = rest(&mut plain);
    assert!(alert.is_empty() || alert[0] == 21, "an alert at most: {alert:?}");
    rig.until("counted", 1, |rig| rig.drops(0, "tls_handshake"));
    rig.until("closed", 1, |rig| rig.closes(0, "tls"));
    let mut tls = plain_peer(&rig, StreamKind::Tcp);
    tls.send(b"\x16\x03\x01\x02\x00\x01");
    assert_eq!(rest(&mut tls), b"");
    rig.until("counted", 1, |rig| rig.drops(0, "prefix_mismatch"));
}

#[test]
fn r9329_a_3_tls_without_the_prefix_inside_is_closed_with_a_close_notify() {
    let rig = Rig::new(1);
    let mut peer = TlsPeer::bare(&rig, 0, StreamKind::Tls, &any_version());
    peer.send(&ike_frame(&MESSAGE));
    assert!(peer.ends_cleanly());
    rig.until("counted", 1, |rig| rig.drops(0, "prefix_mismatch"));
    rig.until("closed", 1, |rig| rig.closes(0, "framing"));
}

#[test]
fn r9329_a_3_shared_ports_take_plain_streams_and_tls() {
    let rig = Rig::new(1);
    let mut plain = plain_peer(&rig, StreamKind::Shared);
    plain.send(b"I");
    std::thread::sleep(Duration::from_millis(20));
    plain.send(&[b"KETCP", ike_frame(b"plain message of 28 octets..").as_slice()].concat());
    let transport = |rig: &Rig| {
        rig.report(|report| match report {
            ToControl::Ike { path, .. } => Some(path.transport),
            _ => None,
        })
    };
    assert_eq!(transport(&rig), Transport::Tcp);
    let mut tls = TlsPeer::bare(&rig, 0, StreamKind::Shared, &any_version());
    tls.send(&[b"IKETCP", ike_frame(&MESSAGE).as_slice()].concat());
    assert_eq!(transport(&rig), Transport::Tls);
    let mut other = plain_peer(&rig, StreamKind::Shared);
    other.send(b"GET / HTTP/1.1\r\n\r\n");
    rest(&mut other);
    rig.until("counted", 1, |rig| rig.drops(0, "tls_handshake"));
}

#[test]
fn ftt_takes_connect_then_tls_then_envelopes_without_a_prefix() {
    let rig = Rig::new(1);
    for (count, (connect, prefix)) in (1..).zip([(false, false), (true, false), (true, true), (false, true)])
    {
        let mut tcp = TcpStream::connect(rig.seats[0].at(StreamKind::Ftt)).expect("connect");
        if connect {
            tcp.write_all(b"CONNECT epdg.example:443 HTTP/1.1\r\nHost: epdg.example\r\n\r\n").expect("sent");
            // The answer goes out with TLS's: the client need not wait for it.
        }
        let mut peer = FttPeer { connect, peer: TlsPeer::over(tcp, &any_version()) };
        // Keep-alives of every length an envelope for IKE or ESP cannot have (TS 24.302 F.3.2).
        let keepalives = [&[0, 2][..], &[0, 3, 0xff], &[0, 6, 0, 0, 0, 0]].concat();
        let stream = [if prefix { &b"IKETCP"[..] } else { b"" }, &keepalives, &ike_frame(&MESSAGE)].concat();
        peer.send(&stream);
        assert_eq!(rig.ike().1, MESSAGE);
        assert_eq!(rig.seats[0].counters.accepted.get(), count);
    }
    assert_eq!(rig.all_drops(0), 0);
    let mut other = plain_peer(&rig, StreamKind::Ftt);
    other.send(b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(rest(&mut other), b"");
    rig.until("counted", 1, |rig| rig.drops(0, "not_tls"));
}

/// A UE behind a proxy that forwards the CONNECT.
struct FttPeer {
    connect: bool,
    peer: TlsPeer,
}

impl FttPeer {
    fn send(&mut self, octets: &[u8]) {
        if self.connect {
            // The ClientHello first, so that the answer to the request comes.
            self.peer.stream.conn.write_tls(&mut self.peer.stream.sock).expect("sent");
            let answer = b"HTTP/1.1 200 Connection established\r\n\r\n";
            let mut read = vec![0; answer.len()];
            self.peer.stream.sock.read_exact(&mut read).expect("an answer");
            assert_eq!(read, answer);
        }
        self.peer.send(octets);
    }
}

#[test]
fn r9329_b_1_1_no_certificate_is_asked_of_the_client() {
    #[derive(Debug)]
    struct Asked(std::sync::atomic::AtomicBool);
    impl rustls::client::ResolvesClientCert for Asked {
        fn resolve(
            &self,
            _: &[&[u8]],
            _: &[rustls::SignatureScheme],
        ) -> Option<Arc<rustls::sign::CertifiedKey>> {
            self.0.store(true, std::sync::atomic::Ordering::Relaxed);
            None
        }
        fn has_certs(&self) -> bool {
            true
        }
    }
    let rig = Rig::new(1);
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let asked = Arc::new(Asked(false.into()));
        let mut config = ClientConfig::clone(&client(&[version]));
        config.client_auth_cert_resolver = asked.clone();
        let mut peer = TlsPeer::bare(&rig, 0, StreamKind::Tls, &Arc::new(config));
        peer.send(&[b"IKETCP", ike_frame(&MESSAGE).as_slice()].concat());
        assert_eq!(rig.ike().1, MESSAGE);
        assert!(!asked.0.load(std::sync::atomic::Ordering::Relaxed));
    }
}

#[test]
fn r9329_b_2_1_close_notify_is_answered_and_everything_freed() {
    let rig = Rig::new(1);
    let mut ue = Ue::install(&rig, 0, 0);
    let mut peer = TlsPeer::connect(&rig, 0);
    peer.send(&ue.frame_to(CORE, b"up"));
    assert!(rig.core_receives(0).ends_with(b"up"));
    rig.order(0, ToWorker::CloseSession { session: ue.session, report: false });
    rig.fence(0);
    peer.stream.conn.send_close_notify();
    peer.stream.flush().expect("sent");
    assert!(peer.ends_cleanly(), "close_notify, then FIN");
    rig.until("closed", 1, |rig| rig.closes(0, "peer"));
    rig.until("freed", 0, |rig| rig.seats[0].counters.connections.get());
    // One that the UE leaves open is closed by the gateway, in the same order.
    let mut ue = Ue::install(&rig, 0, 1);
    let mut peer = TlsPeer::connect(&rig, 0);
    peer.send(&ue.frame_to(CORE, b"up"));
    assert!(rig.core_receives(0).ends_with(b"up"));
    rig.order(0, ToWorker::CloseSession { session: ue.session, report: false });
    assert!(peer.ends_cleanly());
    rig.until("closed", 1, |rig| rig.closes(0, "session_over"));
}

#[test]
fn r9329_a_2_old_versions_and_bad_hellos_get_an_alert_and_leave_nothing() {
    let rig = Rig::new(1);
    let record = |version: u8, body: &[u8]| {
        [&[0x16, 3, version][..], &(body.len() as u16).to_be_bytes(), body].concat()
    };
    // A ClientHello of TLS 1.0: version 3.1, random, no session, two suites of then, no compression.
    let mut hello = vec![1, 0, 0, 43, 3, 1];
    hello.extend([5; 32]);
    hello.extend([0, 0, 4, 0x00, 0x2f, 0x00, 0x35, 1, 0]);
    let cases: [Vec<u8>; 5] = [
        record(1, &hello),
        record(1, b"hello, what is this?"),
        record(1, &[0xff; 500]),
        vec![0x16, 3, 1, 0xff, 0xff],
        b"\x80\x2e\x01\x03\x01 an SSL 2 hello".to_vec(),
    ];
    for (count, case) in (1..).zip(cases) {
        let mut peer = plain_peer(&rig, StreamKind::Tls);
        peer.send(&case);
        let alert = rest(&mut peer);
        match count {
            // RFC 8446 §6.2: fatal, protocol_version, or handshake_failure where more is amiss.
            1 => assert!(matches!(alert[5..], [2, 70 | 40]), "{alert:?}"),
            _ => assert!(alert.is_empty() || alert.len() == 7 && alert[0] == 21, "case {count}: {alert:?}"),
        }
        rig.until("counted", count, |rig| rig.drops(0, "tls_handshake"));
    }
    rig.until("freed", 0, |rig| rig.seats[0].counters.connections.get());
}

#[test]
fn r9329_10_1_silent_and_half_done_handshakes_end_in_time() {
    let rig = Rig::new(1);
    let began = Instant::now();
    let mut silent = plain_peer(&rig, StreamKind::Tls);
    let mut half = plain_peer(&rig, StreamKind::Tls);
    half.send(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]);
    // Answered, and no more comes.
    let mut unfinished = TlsPeer::bare(&rig, 0, StreamKind::Tls, &any_version());
    unfinished.stream.conn.write_tls(&mut unfinished.stream.sock).expect("sent");
    // Done, and no prefix comes.
    let mut no_prefix = TlsPeer::bare(&rig, 0, StreamKind::Tls, &any_version());
    no_prefix.stream.flush().expect("shaken hands");
    assert_eq!((rest(&mut silent), rest(&mut half)), (vec![], vec![]));
    assert!(no_prefix.ends_cleanly());
    rest(&mut Peer { stream: unfinished.stream.sock });
    assert!(began.elapsed() < limits().prefix_timeout + Duration::from_secs(2));
    rig.until("closed", 4, |rig| rig.closes(0, "prefix_timeout"));
}

#[test]
fn r9329_10_1_handshakes_are_bounded_and_take_turns() {
    let rig = Rig::with(1, WorkerLimits { tls_handshakes: 4, ..limits() });
    let hello = || {
        let mut peer = TlsPeer::bare(&rig, 0, StreamKind::Tls, &any_version());
        peer.stream.conn.write_tls(&mut peer.stream.sock).expect("sent");
        peer
    };
    let half_done: Vec<TlsPeer> = (0..20).map(|_| hello()).collect();
    rig.until("refused", 16, |rig| rig.drops(0, "tls_handshakes"));
    assert_eq!(rig.closes(0, "limit"), 16);
    // Those that fell silent make room for one that does not.
    let mut prompt = TlsPeer::connect(&rig, 0);
    prompt.send(&ike_frame(&MESSAGE));
    assert_eq!(rig.ike().1, MESSAGE);
    assert_eq!(rig.drops(0, "tls_handshakes"), 17);
    drop((half_done, prompt));
    rig.until("gone", 0, |rig| rig.seats[0].counters.connections.get());
    // They come to an end all the same, more than a turn's worth at once.
    let rig = Rig::with(1, WorkerLimits { tls_handshakes: 64, ..limits() });
    let mut peers: Vec<TlsPeer> =
        (0..40).map(|_| TlsPeer::bare(&rig, 0, StreamKind::Tls, &any_version())).collect();
    for peer in &mut peers {
        peer.stream.conn.write_tls(&mut peer.stream.sock).expect("sent");
    }
    for peer in &mut peers {
        peer.send(&[b"IKETCP", ike_frame(&MESSAGE).as_slice()].concat());
    }
    for _ in 0..40 {
        assert_eq!(rig.ike().1, MESSAGE);
    }
    assert_eq!(rig.all_drops(0), 0);
}

#[test]
fn a_record_that_does_not_verify_ends_its_connection_alone() {
    let rig = Rig::new(1);
    let mut ue = Ue::install(&rig, 0, 0);
    let mut good = TlsPeer::connect(&rig, 0);
    good.send(&ue.frame_to(CORE, b"before"));
    rig.core_receives(0);
    let mut bad = TlsPeer::connect(&rig, 0);
    bad.stream.sock.write_all(&[23, 3, 3, 0, 32]).expect("sent");
    bad.stream.sock.write_all(&[9; 32]).expect("sent");
    rig.until("counted", 1, |rig| rig.drops(0, "tls_record"));
    rig.until("closed", 1, |rig| rig.closes(0, "tls"));
    good.send(&ue.frame_to(CORE, b"after"));
    assert!(rig.core_receives(0).ends_with(b"after"));
}

#[test]
fn a_new_certificate_is_for_new_connections() {
    let rig = Rig::new(1);
    let mut ue = Ue::install(&rig, 0, 0);
    let config = any_version();
    let mut before = TlsPeer::bare(&rig, 0, StreamKind::Tls, &config);
    before.send(&[b"IKETCP", ue.frame_to(CORE, b"one").as_slice()].concat());
    rig.core_receives(0);
    let shown = |peer: &TlsPeer| peer.stream.conn.peer_certificates().expect("shown")[0].to_vec();
    let first = shown(&before);
    rig.order(0, ToWorker::Tls(server("gw-rsa").with_tickets_of(&server("gw-ec"))));
    rig.fence(0);
    before.send(&ue.frame_to(CORE, b"two"));
    assert!(rig.core_receives(0).ends_with(b"two"), "the live connection goes on");
    let mut after = TlsPeer::bare(&rig, 0, StreamKind::Tls, &any_version());
    after.send(&[b"IKETCP", ike_frame(&MESSAGE).as_slice()].concat());
    assert_eq!(rig.ike().1, MESSAGE);
    assert_ne!(shown(&after), first);
}
