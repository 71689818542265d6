//! The adapter between a client and a gateway that do what they should not.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use codec::ike::ExchangeType;
use codec::stream::NON_ESP_MARKER;
use nix::sys::epoll::EpollFlags;

use super::adapter::Adapter;
use super::link::Way;
use super::{Options, Port};
use crate::bridge::tests::message;
use crate::io::datagram;
use crate::limits::{BRIDGE_IKE_BACKLOG_OCTETS, ORIGINATE_LINKS_MAX, ORIGINATE_LINKS_PER_CLIENT};

const INFO: ExchangeType = ExchangeType::INFORMATIONAL;

/// Octets of a large message, and as many messages as no socket holds.
const LARGE: usize = 60_000;
const MANY: u32 = 1_000;

/// An adapter with one client, whose connection stands and is not read.
struct Lab {
    adapter: Adapter,
    client: UdpSocket,
    gateway: TcpStream,
}

fn adapter() -> (Adapter, TcpListener) {
    let gateway = TcpListener::bind("127.0.0.1:0").expect("bound");
    let open = || datagram::open("127.0.0.1:0".parse().expect("address")).expect("bound");
    let options = Options {
        listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
        ports: (0, 0),
        gateways: vec![gateway.local_addr().expect("bound")],
        tls: None,
        udp_first: None,
    };
    (Adapter::new(options, open(), open()).expect("an adapter"), gateway)
}

impl Lab {
    fn new() -> Self {
        let (mut adapter, listener) = adapter();
        let client = UdpSocket::bind("127.0.0.1:0").expect("bound");
        client.connect(adapter.nat.local_addr().expect("bound")).expect("connected");
        say(&mut adapter, &client, &message(1, 5, INFO, false, b"alive?"));
        let (gateway, _) = listener.accept().expect("it connects");
        adapter.on_stream_ready(0, EpollFlags::EPOLLOUT);
        assert!(adapter.link(0).is_some_and(|link| link.stream().is_some()), "it is connected");
        Self { adapter, client, gateway }
    }

    fn say(&mut self, message: &[u8]) {
        say(&mut self.adapter, &self.client, message);
    }

    /// Octets of the client's that the gateway's socket has not taken; `None` without a connection.
    fn backlog(&mut self) -> Option<usize> {
        Some(self.adapter.link(0)?.stream()?.backlog_octets())
    }
}

/// The client sends an IKE message, and the adapter takes it.
fn say(adapter: &mut Adapter, client: &UdpSocket, message: &[u8]) {
    client.send(&[&NON_ESP_MARKER, message].concat()).expect("sent");
    let (before, deadline) = (adapter.tally.ike_messages, Instant::now() + Duration::from_secs(5));
    while adapter.tally.ike_messages == before {
        adapter.on_client(Port::Nat);
        assert!(Instant::now() < deadline, "it arrives");
    }
}

#[test]
fn a_client_cannot_fill_memory_while_the_gateway_does_not_read() {
    let mut lab = Lab::new();
    for id in 0..MANY {
        // Answers that nobody has asked for pass: the adapter cannot tell.
        lab.say(&message(1, id, INFO, true, &[7; LARGE]));
        assert!(
            lab.backlog().is_some_and(|octets| octets <= BRIDGE_IKE_BACKLOG_OCTETS),
            "{:?}",
            lab.backlog()
        );
    }
    assert!(lab.adapter.tally.queue_full > 0, "{:?}", lab.adapter.tally);
    // A request that found no room has not been taken down: it passes when the client sends it again.
    let request = message(1, 6, INFO, false, &[9; LARGE]);
    lab.say(&request);
    lab.gateway.set_nonblocking(true).expect("non-blocking");
    let mut buffer = vec![0; 1 << 20];
    while lab.backlog() != Some(0) {
        let _ = lab.gateway.read(&mut buffer);
        lab.adapter.on_stream_ready(0, EpollFlags::EPOLLOUT);
    }
    while lab.gateway.read(&mut buffer).is_ok_and(|len| len > 0) {}
    lab.say(&request);
    let mut arrived = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(5);
    while !arrived.ends_with(&request) {
        if let Ok(len) = lab.gateway.read(&mut buffer) {
            arrived.extend_from_slice(&buffer[..len]);
        }
        lab.adapter.on_stream_ready(0, EpollFlags::EPOLLOUT);
        assert!(Instant::now() < deadline, "it passes");
    }
}

#[test]
fn r9329_6_2_a_gateway_that_asks_again_and_does_not_read_loses_its_connection() {
    let mut lab = Lab::new();
    let asked = [&NON_ESP_MARKER, &message(1, 0, INFO, false, b"and you?")[..]].concat();
    let frame = [&(asked.len() as u16 + 2).to_be_bytes(), &asked[..]].concat();
    lab.adapter.parse(0, &frame);
    lab.say(&message(1, 0, INFO, true, &[7; LARGE]));
    let mut asked_again = 0;
    while let Some(octets) = lab.backlog() {
        assert!(octets <= BRIDGE_IKE_BACKLOG_OCTETS, "{octets} octets after {asked_again}");
        asked_again += 1;
        assert!(asked_again < MANY, "it goes on for ever");
        lab.adapter.parse(0, &frame);
    }
    assert!(asked_again > 1, "the first one gets its answer");
    assert!(matches!(lab.adapter.link(0).map(|link| &link.way), Some(Way::Retry(_))), "the client is there");
}

#[test]
fn a_refused_client_leaves_nothing_behind() {
    let (mut adapter, _gateway) = adapter();
    let client = |n: usize| SocketAddr::from(([192, 0, 2 + (n >> 8) as u8, n as u8], 4500));
    for n in 0..ORIGINATE_LINKS_MAX {
        let from = client(n / ORIGINATE_LINKS_PER_CLIENT);
        assert!(adapter.add_link(from, Port::Nat).is_some(), "{n}");
    }
    let clients = adapter.per_client.len();
    for n in 1000..11_000 {
        assert_eq!(adapter.add_link(client(n), Port::Nat), None);
    }
    assert_eq!((adapter.per_client.len(), adapter.tally.refused), (clients, 10_000));
}
