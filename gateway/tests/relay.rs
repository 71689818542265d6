//! `swugate run` in relay mode, between a scripted UE and a scripted backend: needs root for a namespace.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use codec::ike::ExchangeType;
use codec::stream::STREAM_PREFIX;
use nix::sys::signal::Signal;

#[path = "support/process.rs"]
#[allow(dead_code, reason = "other test programs use the rest")]
mod support;
#[path = "support/tls.rs"]
#[allow(dead_code, reason = "other test programs use the rest")]
mod tls;
#[path = "support/wire.rs"]
#[allow(dead_code, reason = "other test programs use the rest")]
mod wire;

use support::{Gateway, Namespace, eventually, is_root, text};
use wire::{esp, ike, is_quiet, marked, receive_frame, send_frame};

const CONFIG: &str = r#"[gateway]
workers = 1
run_dir = "run"
[listen]
tcp = ["127.0.0.1:4500"]
[relay]
backend = "127.0.0.1:4600"
[limits]
connections_per_source = 6
first_message_s = 2
prefix_s = 1
"#;

const LONG: Duration = Duration::from_secs(5);

/// A relay, its backend, and the namespace both are in.
struct Lab {
    namespace: Namespace,
    relay: Gateway,
    backend: UdpSocket,
}

impl Lab {
    fn new(name: &str, config: &str) -> Self {
        let namespace = Namespace::new(name);
        let relay = Gateway::start(&namespace, config, None);
        assert_eq!(relay.notified(), "READY=1");
        let backend = Self::udp(&namespace, 4600);
        Self { namespace, relay, backend }
    }

    fn udp(namespace: &Namespace, port: u16) -> UdpSocket {
        let socket = namespace.inside(|| UdpSocket::bind(("127.0.0.1", port))).expect("bound");
        socket.set_read_timeout(Some(LONG)).expect("a timeout");
        socket
    }

    /// A UE whose stream has begun.
    fn ue(&self) -> TcpStream {
        let mut ue = self.namespace.connect(4500).expect("listens");
        ue.set_read_timeout(Some(LONG)).expect("a timeout");
        ue.write_all(&STREAM_PREFIX).expect("sent");
        ue
    }

    fn sessions(&self) -> serde_json::Value {
        let answer = self.relay.command(&["sessions", "--json"]);
        serde_json::from_slice(&answer.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&answer)))
    }

    fn stats(&self) -> serde_json::Value {
        serde_json::from_slice(&self.relay.command(&["stats", "--json"]).stdout).expect("JSON")
    }
}

fn is_closed(ue: &mut TcpStream) -> bool {
    matches!(ue.read(&mut [0; 64]), Ok(0))
        || matches!(ue.read(&mut [0; 64]), Err(error) if error.kind() == ErrorKind::ConnectionReset)
}

fn datagram(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65_536];
    let (len, from) = socket.recv_from(&mut buffer).expect("a datagram");
    buffer.truncate(len);
    (buffer, from)
}

/// Opens an IKE SA as far as a relay can tell; the port the backend knows the UE by.
fn attach(lab: &Lab, ue: &mut (impl Read + Write), spi: u8) -> SocketAddr {
    let mut port = None;
    for (id, exchange) in [(0, ExchangeType::IKE_SA_INIT), (1, ExchangeType::IKE_AUTH)] {
        let request = ike(spi, id, exchange, false, b"request");
        send_frame(ue, &marked(&request));
        let (octets, from) = datagram(&lab.backend);
        assert_eq!(octets, marked(&request));
        assert!(port.is_none_or(|port| port == from), "one port for one connection");
        port = Some(from);
        let response = ike(spi, id, exchange, true, b"response");
        lab.backend.send_to(&marked(&response), from).expect("sent");
        assert_eq!(receive_frame(ue), marked(&response));
    }
    port.expect("two exchanges")
}

#[test]
fn r9329_a_3_a_relay_takes_tls_shared_and_ftt_ports() {
    if !is_root() {
        return;
    }
    let (chain, key) = (tls::fixture("gw-ec.pem"), tls::fixture("gw-ec.key"));
    let listen =
        "tls = [\"127.0.0.1:443\"]\nshared = [\"127.0.0.1:444\"]\nftt = [\"127.0.0.1:445\"]\n[relay]";
    let config = CONFIG.replace("[relay]", listen)
        + &format!("[tls]\nchain = \"{}\"\nkey = \"{}\"\n", chain.display(), key.display());
    let lab = Lab::new("relt", &config);
    let client = tls::client();
    for (spi, port) in (1..).zip([443, 444, 445]) {
        let tcp = lab.namespace.connect(port).expect("listens");
        tcp.set_read_timeout(Some(LONG)).expect("a timeout");
        let mut ue = tls::connect(tcp, &client);
        if port != 445 {
            ue.write_all(&STREAM_PREFIX).expect("sent");
        }
        let source = attach(&lab, &mut ue, spi);
        let packets: Vec<Vec<u8>> = (1..80).map(|n| esp(0x1000, n, 1400)).collect();
        packets.iter().for_each(|packet| send_frame(&mut ue, packet));
        assert!(packets.iter().all(|packet| datagram(&lab.backend).0 == *packet));
        for packet in &packets {
            lab.backend.send_to(packet, source).expect("sent");
        }
        assert!(packets.iter().all(|packet| receive_frame(&mut ue) == *packet));
        assert_eq!(lab.sessions()[0]["transport"], "tls");
        let resumed = if port == 443 { rustls::HandshakeKind::Full } else { rustls::HandshakeKind::Resumed };
        assert_eq!(ue.conn.handshake_kind(), Some(resumed));
        ue.conn.send_close_notify();
        ue.flush().expect("sent");
        assert!(matches!(ue.read(&mut [0; 1]), Ok(0)), "close_notify, then FIN");
        eventually("it is closed", || lab.sessions().as_array().is_some_and(Vec::is_empty));
    }
    let mut plain = lab.namespace.connect(444).expect("listens");
    plain.write_all(&STREAM_PREFIX).expect("sent");
    plain.set_read_timeout(Some(LONG)).expect("a timeout");
    attach(&lab, &mut plain, 9);
    assert_eq!(lab.sessions()[0]["transport"], "tcp");
    let mut wrong = lab.namespace.connect(443).expect("listens");
    wrong.write_all(&STREAM_PREFIX).expect("sent");
    wrong.set_read_timeout(Some(LONG)).expect("a timeout");
    // An alert, if anything.
    let _ = wrong.read_to_end(&mut Vec::new());
    assert_eq!(lab.stats()["drops"]["tls_handshake"], 1);
}

#[test]
fn carries_ike_and_esp_both_ways_and_maps_ports_to_ues() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new("rela", CONFIG);
    let mut ue = lab.ue();
    let port = attach(&lab, &mut ue, 1);

    // A run of packets of several sizes arrives packet by packet, and so does its way back.
    let packets: Vec<Vec<u8>> =
        (1..80).map(|n| esp(0x1000, n, if n % 30 == 0 { 90 } else { 1400 })).collect();
    for packet in &packets {
        send_frame(&mut ue, packet);
    }
    let mut arrived: Vec<Vec<u8>> = packets.iter().map(|_| datagram(&lab.backend).0).collect();
    assert_eq!(arrived, packets, "UDP over loopback keeps the order");
    for packet in &packets {
        lab.backend.send_to(packet, port).expect("sent");
    }
    arrived = packets.iter().map(|_| receive_frame(&mut ue)).collect();
    assert_eq!(arrived, packets);

    // RFC 9329 §6.6: keepalives go nowhere, in neither direction.
    send_frame(&mut ue, &[0xff]);
    send_frame(&mut ue, &[]);
    lab.backend.send_to(&[0xff], port).expect("sent");
    assert!(is_quiet(&mut ue));
    let large = ike(1, 2, ExchangeType::INFORMATIONAL, false, &vec![7; 40_000]);
    send_frame(&mut ue, &marked(&large));
    assert_eq!(datagram(&lab.backend).0, marked(&large), "the next thing to arrive, in IP fragments");

    let sessions = lab.sessions();
    assert_eq!(sessions.as_array().map(Vec::len), Some(1), "{sessions}");
    let row = &sessions[0];
    assert_eq!(row["remote"], ue.local_addr().expect("connected").to_string());
    assert_eq!(row["backend_source"], port.to_string());
    assert_eq!(row["state"], "established");
    assert_eq!(row["ike"]["spi_i"], "0101010101010101");
    assert_eq!(row["uplink"]["packets"], 79);
    assert_eq!(row["downlink"]["bytes"], packets.iter().map(Vec::len).sum::<usize>());
    let table = text(&lab.relay.command(&["sessions"]));
    assert!(table.contains("BACKEND SEES") && table.contains(&port.to_string()), "{table}");
    let metrics = lab.namespace.get("/metrics");
    for line in ["swugate_sessions 1", "swugate_uplink_packets_total 79", "swugate_connections 1"] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }

    let id = row["id"].to_string();
    assert!(text(&lab.relay.command(&["terminate", &id])).contains("closed"));
    assert!(is_closed(&mut ue));
    assert_eq!(lab.relay.command(&["terminate", &id]).status.code(), Some(1));
    lab.relay.signal(Signal::SIGTERM);
    assert_eq!(lab.relay.wait(), Some(0), "{}", lab.relay.log());
}

#[test]
fn owns_the_reliability_of_the_udp_leg() {
    if !is_root() {
        return;
    }
    let lab = Lab::new("relb", CONFIG);
    let mut ue = lab.ue();
    let port = attach(&lab, &mut ue, 2);

    // An unanswered request is sent again, octet for octet, a little later each time.
    let request = marked(&ike(2, 2, ExchangeType::INFORMATIONAL, false, b"alive?"));
    send_frame(&mut ue, &request);
    assert_eq!(datagram(&lab.backend), (request.clone(), port));
    let mut gaps = Vec::new();
    for _ in 0..2 {
        let since = Instant::now();
        assert_eq!(datagram(&lab.backend), (request.clone(), port));
        gaps.push(since.elapsed());
    }
    assert!(gaps[0] > Duration::from_millis(400) && gaps[1] > Duration::from_millis(900), "{gaps:?}");
    // The peer's own repetition on the living connection is not passed on.
    send_frame(&mut ue, &request);

    // Two answers, of which one passes; asked again, the relay answers itself.
    let response = marked(&ike(2, 2, ExchangeType::INFORMATIONAL, true, b"alive"));
    lab.backend.send_to(&response, port).expect("sent");
    lab.backend.send_to(&response, port).expect("sent");
    assert_eq!(receive_frame(&mut ue), response);
    assert!(is_quiet(&mut ue), "the second answer does not pass");
    send_frame(&mut ue, &request);
    assert_eq!(receive_frame(&mut ue), response);

    // The backend's own request passes once, however often it is sent.
    let asked = marked(&ike(2, 0, ExchangeType::INFORMATIONAL, false, b"and you?"));
    for _ in 0..3 {
        lab.backend.send_to(&asked, port).expect("sent");
    }
    assert_eq!(receive_frame(&mut ue), asked);
    assert!(is_quiet(&mut ue));
    let answer = marked(&ike(2, 0, ExchangeType::INFORMATIONAL, true, b"yes"));
    send_frame(&mut ue, &answer);
    assert_eq!(datagram(&lab.backend).0, answer);
    lab.backend.send_to(&asked, port).expect("sent");
    assert_eq!(datagram(&lab.backend).0, answer, "its answer was lost: the relay has it");
    assert!(is_quiet(&mut ue));
    let stats = lab.stats();
    assert_eq!(stats["exchanges"]["resent"], 2, "{stats}");
    assert!(stats["drops"]["ike_duplicate"].as_u64() >= Some(5), "{stats}");
}

#[test]
fn r9329_6_2_a_peer_that_asks_again_and_does_not_read_gets_no_pile_of_answers() {
    if !is_root() {
        return;
    }
    const REPETITIONS: u64 = 2_000;
    let lab = Lab::new("relg", CONFIG);
    let mut ue = lab.ue();
    let request = marked(&ike(6, 0, ExchangeType::IKE_SA_INIT, false, b"request"));
    send_frame(&mut ue, &request);
    let (_, port) = datagram(&lab.backend);
    let response = marked(&ike(6, 0, ExchangeType::IKE_SA_INIT, true, &vec![7; 40_000]));
    lab.backend.send_to(&response, port).expect("sent");
    assert_eq!(receive_frame(&mut ue), response);
    // 80 MB of answers, of which the sockets hold a few.
    (0..REPETITIONS).for_each(|_| send_frame(&mut ue, &request));
    eventually("all have been looked at", || lab.stats()["drops"]["ike_duplicate"] == REPETITIONS);
    let asked = marked(&ike(6, 0, ExchangeType::INFORMATIONAL, false, b"and you?"));
    lab.backend.send_to(&asked, port).expect("sent");
    let answers = std::iter::repeat_with(|| receive_frame(&mut ue)).take_while(|body| *body != asked).count();
    assert!(answers as u64 <= REPETITIONS / 2, "{answers} answers waited");
    // The connection lives, and answers those who read.
    send_frame(&mut ue, &request);
    assert_eq!(receive_frame(&mut ue), response);
    assert_eq!(lab.stats()["connections"], 1);
}

#[test]
fn a_new_connection_is_a_new_port_and_nothing_moves_by_an_spi() {
    if !is_root() {
        return;
    }
    let lab = Lab::new("relc", CONFIG);
    let mut first = lab.ue();
    let port = attach(&lab, &mut first, 3);
    // Somebody who has seen the SPIs: their packets reach the backend from their own port only.
    let mut other = lab.ue();
    send_frame(&mut other, &esp(0x2000, 1, 100));
    let (packet, elsewhere) = datagram(&lab.backend);
    assert_eq!(packet, esp(0x2000, 1, 100));
    assert_ne!(elsewhere, port);
    lab.backend.send_to(&esp(0x3000, 1, 100), port).expect("sent");
    assert_eq!(receive_frame(&mut first), esp(0x3000, 1, 100));
    assert!(is_quiet(&mut other));
    // Once the backend has moved the peer, its packets go where it sends them.
    lab.backend.send_to(&esp(0x3000, 2, 100), elsewhere).expect("sent");
    assert_eq!(receive_frame(&mut other), esp(0x3000, 2, 100));
    // A frame that the old connection left half is nobody's.
    first.write_all(&[0, 100, 1, 2, 3]).expect("sent");
    drop(first);
    send_frame(&mut other, &esp(0x2000, 2, 100));
    assert_eq!(datagram(&lab.backend).0, esp(0x2000, 2, 100));
    eventually("the first connection is gone", || lab.sessions().as_array().map(Vec::len) == Some(1));
}

#[test]
fn hostile_streams_end_and_reach_nobody() {
    if !is_root() {
        return;
    }
    let lab = Lab::new("reld", CONFIG);
    for opening in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"IKETCPxx\0\x01", b"IKETCP\0\0", b"IKETCP\0\x01"] {
        let mut stream = lab.namespace.connect(4500).expect("listens");
        stream.write_all(opening).expect("sent");
        if opening.starts_with(b"IKETCPxx") {
            // A Length of 0x7878: an unfinished frame, which ends with the time for a first message.
            assert!(is_quiet(&mut stream));
        } else {
            assert!(is_closed(&mut stream), "{opening:?}");
        }
    }
    // Junk in good frames is dropped, and too much of it closes the connection.
    let mut ue = lab.ue();
    for _ in 0..17 {
        send_frame(&mut ue, &[1, 2, 3]);
    }
    assert!(is_closed(&mut ue));
    // A message whose header lies does not reach the backend.
    let mut ue = lab.ue();
    let mut message = ike(4, 0, ExchangeType::IKE_SA_INIT, false, b"request");
    message[27] ^= 1;
    send_frame(&mut ue, &marked(&message));
    let silent = lab.ue();
    let mut half = lab.namespace.connect(4500).expect("listens");
    half.write_all(b"IKE").expect("sent");
    // Six from one source at a time, and no more.
    let more: Vec<TcpStream> = (0..6).map(|_| lab.namespace.connect(4500).expect("listens")).collect();
    eventually("the limit is counted", || lab.stats()["closes"]["limit"].as_u64() > Some(0));
    eventually("those that say nothing are closed", || lab.stats()["connections"] == 0);
    drop((silent, half, more));
    lab.backend.set_nonblocking(true).expect("non-blocking");
    assert!(lab.backend.recv(&mut [0; 10]).is_err(), "nothing reached the backend");
    let closes = &lab.stats()["closes"];
    assert!(closes["prefix_timeout"].as_u64() > Some(0), "{closes}");
    assert!(closes["first_message_timeout"].as_u64() > Some(0), "{closes}");
}

#[test]
fn with_backend_ike_the_first_exchange_goes_there_without_a_marker() {
    if !is_root() {
        return;
    }
    let config = CONFIG.replacen(
        "backend = \"127.0.0.1:4600\"",
        "backend = \"127.0.0.1:4600\"\nbackend_ike = \"127.0.0.1:500\"",
        1,
    );
    let lab = Lab::new("rele", &config);
    let first = Lab::udp(&lab.namespace, 500);
    let mut ue = lab.ue();
    let request = ike(5, 0, ExchangeType::IKE_SA_INIT, false, b"request");
    send_frame(&mut ue, &marked(&request));
    let (octets, port) = datagram(&first);
    assert_eq!(octets, request);
    let response = ike(5, 0, ExchangeType::IKE_SA_INIT, true, b"response");
    first.send_to(&response, port).expect("sent");
    assert_eq!(receive_frame(&mut ue), marked(&response));
    assert!(lab.sessions()[0]["backend_source_ike"].is_string());
    let request = ike(5, 1, ExchangeType::IKE_AUTH, false, b"request");
    send_frame(&mut ue, &marked(&request));
    let (octets, main) = datagram(&lab.backend);
    assert_eq!(octets, marked(&request));
    assert_ne!(main, port);
    assert!(lab.sessions()[0]["backend_source_ike"].is_null(), "it has served");
}
