//! `swugate originate` between a scripted client and a scripted gateway: needs root for a namespace.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use codec::ike::{ExchangeType, Flags, IkeHeader, IkeSpi};
use codec::stream::STREAM_PREFIX;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::SockRef;

#[path = "support/process.rs"]
#[allow(dead_code, reason = "other test programs use the rest")]
mod support;
#[path = "support/tls.rs"]
#[allow(dead_code, reason = "other test programs use the rest")]
mod tls;
#[path = "support/wire.rs"]
#[allow(dead_code, reason = "other test programs use the rest")]
mod wire;

use support::{Namespace, SWUGATE, eventually, is_root};
use wire::{QUIET, esp, ike, is_quiet, marked, receive_frame, send_frame};

const ADAPTER: &str = "127.0.0.2";
const CLIENT: &str = "127.0.0.3";
const GATEWAY: &str = "127.0.0.1";

const LONG: Duration = Duration::from_secs(8);

struct Lab {
    namespace: Namespace,
    adapter: Child,
    dir: tempfile::TempDir,
    gateway: TcpListener,
    /// The client's two ports.
    ike: UdpSocket,
    nat: UdpSocket,
}

impl Lab {
    fn new(name: &str, options: &[&str]) -> Self {
        Self::at(name, 4600, options)
    }

    /// With the gateway at a TCP port.
    fn at(name: &str, port: u16, options: &[&str]) -> Self {
        let namespace = Namespace::new(name);
        let dir = tempfile::tempdir().expect("a directory");
        let gateway = namespace.inside(|| TcpListener::bind((GATEWAY, port))).expect("bound");
        gateway.set_nonblocking(true).expect("non-blocking");
        let udp = |port: u16| {
            let socket = namespace.inside(|| UdpSocket::bind((CLIENT, port))).expect("bound");
            socket.set_read_timeout(Some(LONG)).expect("a timeout");
            socket
        };
        let (ike, nat) = (udp(500), udp(4500));
        let adapter = Command::new("ip")
            .args(["netns", "exec", &namespace.0, SWUGATE, "originate", "--listen", ADAPTER])
            .args(["--gateway", &format!("{GATEWAY}:{port}"), "--log", "debug"])
            .args(options)
            .stderr(Stdio::from(File::create(dir.path().join("log")).expect("a log")))
            .spawn()
            .expect("started");
        let lab = Self { namespace, adapter, dir, gateway, ike, nat };
        eventually("it listens", || {
            let bound = lab.namespace.inside(|| UdpSocket::bind((ADAPTER, 4500)));
            bound.is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
        });
        lab
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// The next connection, behind its prefix.
    fn accept(&self) -> TcpStream {
        let mut stream = self.accept_bare();
        let mut prefix = [0; 6];
        stream.read_exact(&mut prefix).expect("a prefix");
        // RFC 9329 §4: the first octets of every stream.
        assert_eq!(prefix, STREAM_PREFIX);
        stream
    }

    fn accept_bare(&self) -> TcpStream {
        let deadline = Instant::now() + LONG;
        let stream = loop {
            match self.gateway.accept() {
                Ok((stream, _)) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "{error}\n{}", self.log()),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        stream.set_nonblocking(false).expect("blocking");
        stream.set_read_timeout(Some(LONG)).expect("a timeout");
        stream
    }

    fn nobody_connects(&self) -> bool {
        std::thread::sleep(QUIET);
        self.gateway.accept().is_err()
    }

    fn send(&self, port: u16, octets: &[u8]) {
        let socket = if port == 500 { &self.ike } else { &self.nat };
        socket.send_to(octets, (ADAPTER, port)).expect("sent");
    }

    fn receive(&self, port: u16) -> Vec<u8> {
        let socket = if port == 500 { &self.ike } else { &self.nat };
        let mut buffer = vec![0; 65_536];
        let (len, from) =
            socket.recv_from(&mut buffer).unwrap_or_else(|error| panic!("{error}\n{}", self.log()));
        assert_eq!(from, SocketAddr::new(ADAPTER.parse().expect("address"), port));
        buffer.truncate(len);
        buffer
    }

    fn client_hears_nothing(&self) -> bool {
        let quiet = |socket: &UdpSocket| {
            socket.set_read_timeout(Some(QUIET)).expect("a timeout");
            let heard = socket.recv(&mut [0; 10]);
            socket.set_read_timeout(Some(LONG)).expect("a timeout");
            heard.is_err()
        };
        quiet(&self.ike) && quiet(&self.nat)
    }

    /// Opens an IKE SA as clients do: at port 500, then at 4500.
    fn attach(&self, spi: u8) -> TcpStream {
        let request = ike(spi, 0, ExchangeType::IKE_SA_INIT, false, b"SAi1");
        self.send(500, &request);
        let mut stream = self.accept();
        assert_eq!(receive_frame(&mut stream), marked(&request));
        let response = ike(spi, 0, ExchangeType::IKE_SA_INIT, true, b"SAr1");
        send_frame(&mut stream, &marked(&response));
        assert_eq!(self.receive(500), response, "no marker at port 500");
        let request = ike(spi, 1, ExchangeType::IKE_AUTH, false, b"AUTH");
        self.send(4500, &marked(&request));
        assert_eq!(receive_frame(&mut stream), marked(&request), "the same connection");
        let response = ike(spi, 1, ExchangeType::IKE_AUTH, true, b"AUTH");
        send_frame(&mut stream, &marked(&response));
        assert_eq!(self.receive(4500), marked(&response));
        stream
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.adapter.kill();
        let _ = self.adapter.wait();
    }
}

fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("set");
    drop(stream);
}

#[test]
fn r9329_4_o1_carries_ike_and_esp_of_a_udp_client_over_one_connection() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new("relf", &[]);
    let mut gateway = lab.attach(1);
    let packets: Vec<Vec<u8>> =
        (1..80).map(|n| esp(0x1000, n, if n % 30 == 0 { 90 } else { 1400 })).collect();
    packets.iter().for_each(|packet| lab.send(4500, packet));
    let arrived: Vec<Vec<u8>> = packets.iter().map(|_| receive_frame(&mut gateway)).collect();
    assert_eq!(arrived, packets);
    packets.iter().for_each(|packet| send_frame(&mut gateway, packet));
    let arrived: Vec<Vec<u8>> = packets.iter().map(|_| lab.receive(4500)).collect();
    assert_eq!(arrived, packets);

    // RFC 9329 §6.6: keepalives stay on their own leg, and empty frames are ignored.
    lab.send(4500, &[0xff]);
    send_frame(&mut gateway, &[0xff]);
    send_frame(&mut gateway, &[]);
    assert!(is_quiet(&mut gateway) && lab.client_hears_nothing());

    // §6.2: the client's repetitions are not repeated; one that comes after its answer gets it again.
    let request = ike(1, 2, ExchangeType::INFORMATIONAL, false, b"alive?");
    (0..3).for_each(|_| lab.send(4500, &marked(&request)));
    assert_eq!(receive_frame(&mut gateway), marked(&request));
    assert!(is_quiet(&mut gateway));
    let response = marked(&ike(1, 2, ExchangeType::INFORMATIONAL, true, b"alive"));
    send_frame(&mut gateway, &response);
    assert_eq!(lab.receive(4500), response);
    lab.send(4500, &marked(&request));
    assert_eq!(lab.receive(4500), response);

    // The gateway's request is repeated to the client until it answers.
    let asked = marked(&ike(1, 0, ExchangeType::INFORMATIONAL, false, b"and you?"));
    send_frame(&mut gateway, &asked);
    (0..3).for_each(|_| assert_eq!(lab.receive(4500), asked));
    let answer = marked(&ike(1, 0, ExchangeType::INFORMATIONAL, true, b"yes"));
    lab.send(4500, &answer);
    lab.send(4500, &answer);
    assert_eq!(receive_frame(&mut gateway), answer);
    assert!(is_quiet(&mut gateway));

    // A Length of 1 ends the stream; the client's next packet begins another.
    gateway.write_all(&[0, 1]).expect("sent");
    assert!(matches!(gateway.read(&mut [0; 1]), Ok(0) | Err(_)));
    let mut gateway = lab.accept();
    lab.send(4500, &esp(0x1000, 100, 100));
    assert_eq!(receive_frame(&mut gateway), esp(0x1000, 100, 100));

    kill(Pid::from_raw(lab.adapter.id() as i32), Signal::SIGTERM).expect("ours");
    assert_eq!(lab.adapter.wait().expect("ends").code(), Some(0), "{}", lab.log());
}

#[test]
fn r9329_6_2_o1_and_6_1_o1_a_new_connection_begins_with_the_prefix_and_the_request_that_waits() {
    if !is_root() {
        return;
    }
    let lab = Lab::new("relg", &[]);
    let mut gateway = lab.attach(2);
    for id in 2..7 {
        let request = marked(&ike(2, id, ExchangeType::INFORMATIONAL, false, b"rekey"));
        lab.send(4500, &request);
        assert_eq!(receive_frame(&mut gateway), request);
        if id % 2 == 0 {
            reset(gateway);
        } else {
            gateway.shutdown(Shutdown::Both).expect("open");
        }
        gateway = lab.accept();
        assert_eq!(receive_frame(&mut gateway), request, "octet for octet");
        lab.send(4500, &request);
        assert!(is_quiet(&mut gateway), "once per connection");
        let response = marked(&ike(2, id, ExchangeType::INFORMATIONAL, true, b"rekeyed"));
        send_frame(&mut gateway, &response);
        assert_eq!(lab.receive(4500), response);
    }
    // Half a frame that the old connection left is nobody's.
    gateway.write_all(&[0, 60, 1, 2, 3]).expect("sent");
    reset(gateway);
    lab.send(4500, &esp(0x1000, 1, 100));
    let mut gateway = lab.accept();
    // What came before the connection stood was lost or held; what comes now passes.
    lab.send(4500, &esp(0x1000, 2, 100));
    while receive_frame(&mut gateway) != esp(0x1000, 2, 100) {}
    send_frame(&mut gateway, &esp(0x2000, 1, 80));
    assert_eq!(lab.receive(4500), esp(0x2000, 1, 80));
}

#[test]
fn r9329_6_1_o5_every_ike_sa_has_a_connection_and_its_own_packets() {
    if !is_root() {
        return;
    }
    let lab = Lab::new("relh", &[]);
    let mut first = lab.attach(3);
    lab.send(4500, &esp(0x1000, 1, 100));
    assert_eq!(receive_frame(&mut first), esp(0x1000, 1, 100));
    let mut second = lab.attach(4);
    lab.send(4500, &esp(0x2000, 1, 100));
    lab.send(4500, &esp(0x1000, 2, 100));
    assert_eq!(receive_frame(&mut second), esp(0x2000, 1, 100));
    assert_eq!(receive_frame(&mut first), esp(0x1000, 2, 100));
    assert!(is_quiet(&mut first) && is_quiet(&mut second));
    // ESP of a session from before this process: a connection of its own, recognised by its SPI.
    let other = lab.namespace.inside(|| UdpSocket::bind(("127.0.0.4", 4500))).expect("bound");
    other.send_to(&esp(0x3000, 1, 100), (ADAPTER, 4500)).expect("sent");
    let mut third = lab.accept();
    assert_eq!(receive_frame(&mut third), esp(0x3000, 1, 100));
}

#[test]
fn a_gateway_that_is_away_is_tried_again_and_nothing_is_lost_that_matters() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new("reli", &[]);
    let closed = lab.namespace.inside(|| TcpListener::bind((GATEWAY, 4601))).expect("bound");
    drop(std::mem::replace(&mut lab.gateway, closed));
    let request = ike(5, 0, ExchangeType::IKE_SA_INIT, false, b"SAi1");
    lab.send(500, &request);
    eventually("it is refused more than once", || lab.log().matches("no connection").count() >= 2);
    lab.gateway = lab.namespace.inside(|| TcpListener::bind((GATEWAY, 4600))).expect("bound");
    lab.gateway.set_nonblocking(true).expect("non-blocking");
    assert_eq!(receive_frame(&mut lab.accept()), marked(&request));
}

#[test]
fn r9329_5_1_o1_and_2_o2_udp_is_tried_first_and_used_where_it_passes() {
    if !is_root() {
        return;
    }
    let lab = Lab::new("relj", &["--udp-first", "1"]);
    let udp = lab.namespace.inside(|| UdpSocket::bind((GATEWAY, 4500))).expect("bound");
    udp.set_read_timeout(Some(LONG)).expect("a timeout");
    let request = ike(6, 0, ExchangeType::IKE_SA_INIT, false, b"SAi1");
    lab.send(500, &request);
    let mut buffer = vec![0; 4096];
    let (len, prober) = udp.recv_from(&mut buffer).expect("a probe");
    let probe = IkeHeader::decode(&buffer[4..len]).expect("IKE behind a marker");
    assert_ne!(probe.spi_i, IkeSpi([6; 8]), "not the client's");
    assert!(lab.nobody_connects());
    let mut answer = buffer[..len].to_vec();
    answer[4 + 19] = Flags::new(false, true).0;
    udp.send_to(&answer, prober).expect("sent");
    let (octets, port) = loop {
        // The probe may have been repeated meanwhile.
        let (len, from) = udp.recv_from(&mut buffer).expect("the client's own");
        if from != prober {
            break (buffer[..len].to_vec(), from);
        }
    };
    assert_eq!(octets, marked(&request));
    let response = ike(6, 0, ExchangeType::IKE_SA_INIT, true, b"SAr1");
    udp.send_to(&marked(&response), port).expect("sent");
    assert_eq!(lab.receive(500), response);
    let auth = marked(&ike(6, 1, ExchangeType::IKE_AUTH, false, b"AUTH"));
    lab.send(4500, &auth);
    lab.send(4500, &auth);
    for _ in 0..2 {
        let (len, from) = udp.recv_from(&mut buffer).expect("as it came");
        assert_eq!((&buffer[..len], from), (&auth[..], port), "and as often: UDP is the client's to repair");
    }
    lab.send(4500, &esp(0x1000, 2, 100));
    assert_eq!(udp.recv_from(&mut buffer).expect("ESP").0, 100);
    assert!(lab.nobody_connects());
}

#[test]
fn r9329_5_1_o2_where_udp_does_not_pass_the_clients_own_spi_goes_over_tcp_only() {
    if !is_root() {
        return;
    }
    let lab = Lab::new("relk", &["--udp-first", "1"]);
    let udp = lab.namespace.inside(|| UdpSocket::bind((GATEWAY, 4500))).expect("bound");
    udp.set_read_timeout(Some(QUIET)).expect("a timeout");
    let request = ike(7, 0, ExchangeType::IKE_SA_INIT, false, b"SAi1");
    let since = Instant::now();
    lab.send(500, &request);
    let mut stream = lab.accept();
    assert!(since.elapsed() >= Duration::from_millis(900), "UDP had its time: {:?}", since.elapsed());
    assert_eq!(receive_frame(&mut stream), marked(&request));
    let mut probes = Vec::new();
    let mut buffer = vec![0; 4096];
    while let Ok(len) = udp.recv(&mut buffer) {
        probes.push(buffer[..len].to_vec());
    }
    assert!(probes.len() >= 2, "at least one retransmission");
    assert!(probes.iter().all(|probe| probe[4..12] != [7; 8]), "another SPI than over TCP");
    // It is known now: the next IKE SA does not wait.
    let since = Instant::now();
    lab.send(500, &ike(8, 0, ExchangeType::IKE_SA_INIT, false, b"SAi1"));
    drop(lab.accept());
    assert!(since.elapsed() < Duration::from_millis(500));
}

/// Options for TLS that believe the fixtures' root.
fn tls_options(name: &str) -> [String; 5] {
    let root = tls::fixture("root.pem").display().to_string();
    ["--tls", "--tls-ca", &root, "--tls-name", name].map(str::to_owned)
}

#[test]
fn r9329_a_o1_prefix_and_frames_are_inside_tls() {
    if !is_root() {
        return;
    }
    let options = tls_options("gw.test");
    let lab = Lab::new("relt", &options.each_ref().map(String::as_str));
    let request = ike(3, 0, ExchangeType::IKE_SA_INIT, false, b"SAi1");
    lab.send(500, &request);
    let mut gateway = tls::accept(lab.accept_bare(), &tls::server());
    let mut prefix = [0; 6];
    gateway.read_exact(&mut prefix).expect("a prefix");
    assert_eq!(prefix, STREAM_PREFIX);
    assert_eq!(receive_frame(&mut gateway), marked(&request));
    assert_eq!(gateway.conn.server_name(), Some("gw.test"));
    let response = ike(3, 0, ExchangeType::IKE_SA_INIT, true, b"SAr1");
    send_frame(&mut gateway, &marked(&response));
    assert_eq!(lab.receive(500), response);
    // Large ones, of many records, both ways.
    let request = marked(&ike(3, 1, ExchangeType::IKE_AUTH, false, &[5; 40_000]));
    lab.send(4500, &request);
    assert_eq!(receive_frame(&mut gateway), request);
    let response = marked(&ike(3, 1, ExchangeType::IKE_AUTH, true, &[6; 40_000]));
    send_frame(&mut gateway, &response);
    assert_eq!(lab.receive(4500), response);
    for n in 1..200 {
        lab.send(4500, &esp(0x1000, n, 1400));
    }
    for n in 1..200 {
        assert_eq!(receive_frame(&mut gateway), esp(0x1000, n, 1400));
    }
}

#[test]
fn r9329_b_3_o1_a_new_connection_resumes_tls_and_begins_with_the_request_that_waits() {
    if !is_root() {
        return;
    }
    let options = tls_options("gw.test");
    let lab = Lab::new("relu", &options.each_ref().map(String::as_str));
    let server = tls::server();
    let mut waiting = None;
    for id in 0..5_u32 {
        if waiting.is_none() {
            lab.send(500, &ike(4, 0, ExchangeType::IKE_SA_INIT, false, b"SAi1"));
        }
        let mut gateway = tls::accept(lab.accept_bare(), &server);
        let mut prefix = [0; 6];
        gateway.read_exact(&mut prefix).expect("a prefix");
        let kind = if id == 0 { rustls::HandshakeKind::Full } else { rustls::HandshakeKind::Resumed };
        assert_eq!(gateway.conn.handshake_kind(), Some(kind), "connection {id}");
        let (exchange, body) = match id {
            0 => (ExchangeType::IKE_SA_INIT, &b"SAi1"[..]),
            _ => (ExchangeType::INFORMATIONAL, &b"D"[..]),
        };
        let request = waiting.take().unwrap_or_else(|| marked(&ike(4, id, exchange, false, body)));
        assert_eq!(receive_frame(&mut gateway), request, "octet for octet");
        send_frame(&mut gateway, &marked(&ike(4, id, exchange, true, b"response")));
        lab.receive(if id == 0 { 500 } else { 4500 });
        let next = marked(&ike(4, id + 1, ExchangeType::INFORMATIONAL, false, b"D"));
        lab.send(4500, &next);
        assert_eq!(receive_frame(&mut gateway), next);
        waiting = Some(next);
        reset(gateway.sock);
    }
}

#[test]
fn a_gateway_with_another_name_gets_nothing() {
    if !is_root() {
        return;
    }
    let options = tls_options("other.test");
    let lab = Lab::new("relv", &options.each_ref().map(String::as_str));
    lab.send(500, &ike(5, 0, ExchangeType::IKE_SA_INIT, false, b"SAi1"));
    let mut gateway = tls::accept(lab.accept_bare(), &tls::server());
    assert!(gateway.read(&mut [0; 1]).is_err());
    eventually("it says why", || lab.log().contains("not valid for name"));
}

#[test]
fn r9329_2_o1_port_4500_and_any_other() {
    if !is_root() {
        return;
    }
    for (name, port) in [("rell", 4500), ("relm", 443), ("reln", 60_000)] {
        let lab = Lab::at(name, port, &[]);
        let mut gateway = lab.attach(9);
        lab.send(4500, &esp(0x1000, 1, 100));
        assert_eq!(receive_frame(&mut gateway), esp(0x1000, 1, 100));
    }
}

#[test]
fn r9329_5_o1_and_1_2_o1_what_began_on_tcp_stays_there_and_only_the_originator_connects() {
    if !is_root() {
        return;
    }
    let lab = Lab::new("relo", &["--udp-first", "1"]);
    let udp = [500, 4500].map(|port| {
        let socket = lab.namespace.inside(|| UdpSocket::bind((GATEWAY, port))).expect("bound");
        socket.set_read_timeout(Some(QUIET)).expect("a timeout");
        socket
    });
    let mut gateway = lab.attach(10);
    let mut buffer = [0; 4096];
    // The probes, which nobody answered.
    udp.iter().for_each(|socket| while socket.recv(&mut buffer).is_ok() {});
    // The gateway replaces the IKE SA, and is the initiator of the new one from now on.
    let rekey = marked(&ike(10, 0, ExchangeType::CREATE_CHILD_SA, false, b"SA, Ni, KEi"));
    send_frame(&mut gateway, &rekey);
    assert_eq!(lab.receive(4500), rekey);
    let answer = marked(&ike(10, 0, ExchangeType::CREATE_CHILD_SA, true, b"SA, Nr, KEr"));
    lab.send(4500, &answer);
    assert_eq!(receive_frame(&mut gateway), answer);
    let header = |id: u32, response| IkeHeader {
        spi_i: IkeSpi([0x77; 8]),
        spi_r: IkeSpi([0x88; 8]),
        next_payload: codec::ike::PayloadType::ENCRYPTED,
        version: codec::ike::Version::IKEV2,
        exchange: ExchangeType::INFORMATIONAL,
        flags: Flags::new(response, response),
        message_id: codec::ike::MessageId(id),
        length: 28,
    };
    let message = |id, response| {
        let mut message = Vec::new();
        header(id, response).encode(&mut message);
        marked(&message)
    };
    lab.send(4500, &message(0, false));
    assert_eq!(receive_frame(&mut gateway), message(0, false));
    send_frame(&mut gateway, &message(0, true));
    assert_eq!(lab.receive(4500), message(0, true));
    // Without a connection everything waits or is lost; nothing goes over UDP, and it is the adapter that connects.
    for id in 1..4 {
        reset(gateway);
        lab.send(4500, &esp(0x1000, id, 100));
        lab.send(4500, &message(id, false));
        gateway = lab.accept();
        while receive_frame(&mut gateway) != message(id, false) {}
        send_frame(&mut gateway, &message(id, true));
        while lab.receive(4500) != message(id, true) {}
    }
    for socket in &udp {
        assert!(socket.recv(&mut buffer).is_err(), "over UDP: {:x?}", &buffer[..40]);
    }
}

#[test]
fn usage_has_its_exit_codes() {
    for (args, code, said) in [
        (
            &["--listen", "127.0.0.1", "--gateway", "127.0.0.1:4500", "--tls", "--tls-ca", "/none"][..],
            2,
            "--tls-ca /none: ",
        ),
        (&["--listen", "127.0.0.1", "--gateway", "127.0.0.1:4500", "--tls-name", "gw.test"], 2, "--tls"),
        (&["--listen", "127.0.0.1", "--gateway", "127.0.0.1"], 2, "host:port"),
        (&["--listen", "127.0.0.1", "--gateway", "127.0.0.1:4500", "--ports", "500"], 2, "two ports"),
        (&["--listen", "192.0.2.77", "--gateway", "127.0.0.1:4500"], 3, "--listen: UDP 192.0.2.77:500"),
    ] {
        let output = Command::new(SWUGATE).arg("originate").args(args).output().expect("runs");
        assert_eq!(output.status.code(), Some(code), "{}", support::text(&output));
        assert!(support::text(&output).contains(said), "{}", support::text(&output));
    }
}
