//! Sessions over UDP: paths instead of connections, retransmission, cookies, NAT (RFC 7296 §2.1, §2.4, §2.6,
//! §2.11, §2.23; RFC 9329 §5, §6.1, §6.2).

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use codec::ike::{IkeHeader, IkeSpi, NotifyType};
use gateway::control::responder::{Event, Limits, ResponderConfig, Transmit, Verdict};
use gateway::types::{ConnId, Follow, Path, Transport, WorkerId};

use crate::ue::{Decoded, Ue, UeConfig};
use crate::world::{World, config, conn, profile, psk};

const WORKER: WorkerId = WorkerId(1);

/// From the UE's `port` to one of ours.
fn udp(port: u16, ours: u16) -> Path {
    let addr = |ip: [u8; 4], port: u16| (ip, port).into();
    Path {
        transport: Transport::Udp,
        local: addr([198, 51, 100, 1], ours),
        remote: addr([192, 0, 2, 7], port),
    }
}

fn any_transport() -> ResponderConfig {
    let mut profile = profile("lab", psk());
    profile.transports = vec![Transport::Tcp, Transport::Udp];
    ResponderConfig { profiles: vec![Arc::new(profile)], ..config() }
}

fn with_limits(limits: Limits) -> ResponderConfig {
    ResponderConfig { limits, ..any_transport() }
}

/// What was sent, whatever it was sent on.
fn sent(world: &mut World) -> Vec<Transmit> {
    std::mem::take(&mut world.sent)
}

fn deliver(world: &mut World, path: &Path, message: &[u8]) -> Vec<Transmit> {
    let mut copy = message.to_vec();
    world.verdict = world.responder.handle_message(world.now, ConnId::datagrams(WORKER), path, &mut copy);
    world.collect();
    sent(world)
}

/// [`deliver`] for a message with one answer, which goes back the way it came (RFC 7296 §2.11).
fn exchange(world: &mut World, path: &Path, message: &[u8]) -> Vec<u8> {
    let mut answers = deliver(world, path, message);
    assert_eq!(answers.len(), 1, "one answer");
    let answer = answers.remove(0);
    assert_eq!((answer.conn, answer.path), (ConnId::datagrams(WORKER), *path));
    answer.message.to_vec()
}

fn detection(
    kind: NotifyType,
    spi_i: IkeSpi,
    spi_r: IkeSpi,
    addr: std::net::SocketAddr,
) -> (NotifyType, Vec<u8>) {
    let ip = match addr.ip() {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let mut hash = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    for part in [&spi_i.0[..], &spi_r.0, &ip, &addr.port().to_be_bytes()] {
        hash.update(part);
    }
    (kind, hash.finish().as_ref().to_vec())
}

/// IKE_SA_INIT on port 500, the rest on 4500; the UE says its address is `own`.
fn attach(world: &mut World, ue: &mut Ue, path: &Path, own: Option<std::net::SocketAddr>) -> Decoded {
    let init = Path { local: (path.local.ip(), 500).into(), ..*path };
    let request = ue.init_with(|_| {});
    let spi_i = IkeHeader::decode(&request).expect("ours").spi_i;
    let request = match own {
        None => request,
        Some(own) => {
            let (kind, data) = detection(NotifyType::NAT_DETECTION_SOURCE_IP, spi_i, IkeSpi::ZERO, own);
            ue.init_with(|builder| {
                builder.notify(kind, &data);
            })
        }
    };
    let response = exchange(world, &init, &request);
    ue.on_init(&response).expect("accepted");
    let request = ue.auth();
    let response = exchange(world, path, &request);
    let decoded = ue.on_auth(&response);
    assert_eq!(decoded.error(), None);
    decoded
}

/// UDP paths that sessions were bound to since the last call.
fn bound(world: &mut World) -> Vec<(Path, Follow)> {
    let bound = |event: &Event| match event {
        Event::Bind { path, follow, .. } => Some((*path, *follow)),
        _ => None,
    };
    let mut found: Vec<_> = world.events.iter().filter_map(bound).collect();
    found.dedup();
    world.events.retain(|event| bound(event).is_none());
    found
}

#[test]
fn r7296_2_23_the_exchange_moves_from_port_500_to_4500() {
    let mut world = World::new(any_transport());
    let path = udp(4500, 4500);
    let own = path.remote;
    attach(&mut world, &mut Ue::new(UeConfig::new(1)), &path, Some(own));
    assert_eq!(bound(&mut world), [(path, Follow::Tcp)], "no NAT in front of the UE");
    let view = world.responder.sessions(world.now).next().expect("it");
    assert_eq!((view.state, view.path), ("established", &path));
}

#[test]
fn r7296_2_23_our_source_never_fits_so_that_esp_comes_in_udp() {
    let mut world = World::new(any_transport());
    let path = udp(500, 500);
    let request = Ue::new(UeConfig::new(1)).init();
    let answer = Decoded::clear(&exchange(&mut world, &path, &request));
    let header = IkeHeader::decode(&request).expect("ours");
    let spi_r = answer.header.spi_r;
    let data = |kind| answer.notify(kind).expect("announced").data.to_vec();
    let of = |kind, addr| detection(kind, header.spi_i, spi_r, addr).1;
    let (source, destination) =
        (NotifyType::NAT_DETECTION_SOURCE_IP, NotifyType::NAT_DETECTION_DESTINATION_IP);
    assert_ne!(data(source), of(source, path.local));
    assert_eq!(data(destination), of(destination, path.remote), "the UE sees whether it is behind a NAT");
}

#[test]
fn r7296_2_23_behind_a_nat_the_session_follows_an_authentic_message() {
    let mut world = World::new(any_transport());
    let (first, second) = (udp(40_000, 4500), udp(50_000, 4500));
    let mut ue = Ue::new(UeConfig::new(1));
    attach(&mut world, &mut ue, &first, Some(([10, 0, 0, 7], 4500).into()));
    assert_eq!(bound(&mut world), [(first, Follow::Any)]);
    let request = ue.informational(|_| {});
    let mut forged = request.clone();
    *forged.last_mut().expect("not empty") ^= 1;
    assert!(deliver(&mut world, &second, &forged).is_empty());
    assert!(bound(&mut world).is_empty() && world.closed().is_empty());
    exchange(&mut world, &second, &request);
    assert_eq!(bound(&mut world), [(second, Follow::Any)]);
    // The same again from the old address is a retransmission: answered there, and nothing moves.
    exchange(&mut world, &first, &request);
    assert!(bound(&mut world).is_empty());
}

#[test]
fn r7296_2_23_without_a_nat_the_session_stays_where_it_is() {
    let mut world = World::new(any_transport());
    let (first, second) = (udp(4500, 4500), udp(50_000, 4500));
    let mut ue = Ue::new(UeConfig::new(1));
    attach(&mut world, &mut ue, &first, Some(first.remote));
    bound(&mut world);
    let request = ue.informational(|_| {});
    exchange(&mut world, &second, &request);
    assert!(bound(&mut world).is_empty());
}

#[test]
fn r7296_2_23_two_ike_sas_share_one_pair_of_addresses() {
    let mut world = World::new(any_transport());
    let path = udp(4500, 4500);
    let (mut one, mut two) = (Ue::new(UeConfig::new(1)), Ue::new(UeConfig::new(2)));
    attach(&mut world, &mut one, &path, None);
    attach(&mut world, &mut two, &path, None);
    assert_eq!(world.session_count(), 2);
    for ue in [&mut one, &mut two] {
        let request = ue.informational(|_| {});
        exchange(&mut world, &path, &request);
    }
}

#[test]
fn r7296_2_1_a_request_of_ours_is_repeated_over_udp_until_it_is_answered() {
    let mut world = World::new(any_transport());
    let path = udp(4500, 4500);
    let mut ue = Ue::new(UeConfig::new(1));
    attach(&mut world, &mut ue, &path, None);
    world.advance(Duration::from_secs(60));
    let first = sent(&mut world);
    assert_eq!(first.len(), 1, "a liveness check");
    let times: Vec<u64> = (1..=10)
        .filter(|_| {
            world.advance(Duration::from_secs(1));
            let again = sent(&mut world);
            assert!(again.iter().all(|again| again.message == first[0].message && again.path == path));
            !again.is_empty()
        })
        .collect();
    assert_eq!(times, [1, 3, 7]);
    let request = ue.open(&first[0].message).expect("ours");
    let answer = ue.respond(&request, |_| {});
    assert!(deliver(&mut world, &path, &answer).is_empty());
    world.advance(Duration::from_secs(40));
    assert!(sent(&mut world).is_empty(), "answered");
    assert_eq!(world.counters().exchanges.requests_retransmitted, 3);
    assert_eq!(world.session_count(), 1);
}

#[test]
fn r7296_2_4_a_peer_that_never_answers_over_udp_is_dead() {
    let mut world = World::new(any_transport());
    attach(&mut world, &mut Ue::new(UeConfig::new(1)), &udp(4500, 4500), None);
    world.advance(Duration::from_secs(60 + 31));
    assert_eq!(world.session_count(), 0);
    assert_eq!(world.counters().exchanges.peer_dead, 1);
    assert_eq!(sent(&mut world).len(), 5, "one request, four repetitions");
}

#[test]
fn r9329_6_2_1_nothing_is_repeated_on_a_tcp_connection() {
    let mut world = World::new(any_transport());
    world.attach(1, UeConfig::new(1));
    world.advance(Duration::from_secs(60 + 29));
    assert_eq!(world.take_sent(1).len(), 1);
    assert_eq!(world.counters().exchanges.requests_retransmitted, 0);
}

#[test]
fn r9329_6_2_2_a_request_asked_over_udp_goes_on_over_tcp_once() {
    let mut world = World::new(any_transport());
    let mut ue = Ue::new(UeConfig::new(1));
    attach(&mut world, &mut ue, &udp(4500, 4500), None);
    world.advance(Duration::from_secs(60));
    let asked = sent(&mut world).remove(0);
    // The UE turns up on TCP with a fresh message: the same request follows it there, and is not repeated.
    let request = ue.informational(|_| {});
    let on_tcp = world.deliver(3, &request);
    assert!(on_tcp.contains(&asked.message.to_vec()));
    world.advance(Duration::from_secs(25));
    assert!(sent(&mut world).is_empty());
}

#[test]
fn r9329_5_3_d11_a_session_on_tcp_is_not_reached_over_udp() {
    let mut world = World::new(any_transport());
    let mut ue = world.attach(1, UeConfig::new(1));
    bound(&mut world);
    let request = ue.informational(|_| {});
    assert!(deliver(&mut world, &udp(4500, 4500), &request).is_empty());
    assert_eq!(world.verdict, Verdict::Bad);
    assert_eq!(world.counters().drops.tcp_bound, 1);
    assert!(bound(&mut world).is_empty());
    assert_eq!(world.deliver(1, &request).len(), 1, "nothing of it was used up");
}

#[test]
fn r9329_6_1_5_a_session_on_udp_follows_to_tcp() {
    let mut world = World::new(any_transport());
    let mut ue = Ue::new(UeConfig::new(1));
    attach(&mut world, &mut ue, &udp(4500, 4500), None);
    world.bound();
    let request = ue.informational(|_| {});
    assert_eq!(world.deliver(3, &request).len(), 1);
    assert_eq!(world.bound(), [conn(3)]);
    let view = world.responder.sessions(world.now).next().expect("it");
    assert_eq!((view.conn, view.path.transport), (Some(conn(3)), Transport::Tcp));
}

#[test]
fn r7296_2_6_under_load_an_init_over_udp_needs_its_cookie() {
    let mut world = World::new(with_limits(Limits { cookies_from: 0, ..Limits::default() }));
    let path = udp(500, 500);
    let mut ue = Ue::new(UeConfig::new(1));
    let request = ue.init();
    let challenge = Decoded::clear(&exchange(&mut world, &path, &request));
    assert!(challenge.header.spi_r.is_zero());
    let cookie = challenge.notify(NotifyType::COOKIE).expect("a cookie").data.to_vec();
    assert!((1..=64).contains(&cookie.len()));
    assert_eq!(world.counters().gauges.half_open, 0, "nothing is kept");
    // Another cookie is none.
    let mut wrong = cookie.clone();
    *wrong.last_mut().expect("not empty") ^= 1;
    let request = ue.repeat_init(|builder| {
        builder.notify(NotifyType::COOKIE, &wrong);
    });
    let again = Decoded::clear(&exchange(&mut world, &path, &request));
    assert_eq!(again.notify(NotifyType::COOKIE).expect("a cookie").data, cookie);
    assert_eq!(world.counters().drops.bad_cookie, 1);
    // It comes back from another port (9329-6.3-3), and the handshake goes on: AUTH covers what was sent last.
    let moved = udp(61_000, 500);
    let request = ue.repeat_init(|builder| {
        builder.notify(NotifyType::COOKIE, &cookie);
    });
    let response = exchange(&mut world, &moved, &request);
    ue.on_init(&response).expect("accepted");
    let request = ue.auth();
    let response = exchange(&mut world, &udp(61_000, 4500), &request);
    assert_eq!(ue.on_auth(&response).error(), None);
    assert_eq!(world.counters().exchanges.cookies_returned, 1);
}

#[test]
fn r7296_2_6_cookies_are_asked_for_from_the_configured_load_on() {
    let mut world = World::new(with_limits(Limits { cookies_from: 2, ..Limits::default() }));
    for seed in 1..=3 {
        let request = Ue::new(UeConfig::new(seed)).init();
        exchange(&mut world, &udp(500, 500), &request);
    }
    assert_eq!(world.counters().gauges.half_open, 2);
    assert_eq!(world.counters().exchanges.cookies_sent, 1);
}

#[test]
fn r9329_6_3_1_no_plain_cookie_over_tcp() {
    let mut world = World::new(with_limits(Limits { cookies_from: 0, ..Limits::default() }));
    world.attach(1, UeConfig::new(1));
    assert_eq!(world.counters().exchanges.cookies_sent, 0);
}

#[test]
fn r7296_1_5_unknown_spis_over_udp_are_answered_at_a_limited_rate() {
    let limits = Limits { unprotected_replies_per_s: 5, ..Limits::default() };
    let mut world = World::new(with_limits(limits));
    let path = udp(4500, 4500);
    let mut ue = Ue::new(UeConfig::new(1));
    attach(&mut world, &mut ue, &path, None);
    let mut request = ue.informational(|_| {});
    request[8..16].copy_from_slice(&[0xee; 8]);
    let answers: usize = (0..50).map(|_| deliver(&mut world, &path, &request).len()).sum();
    assert_eq!(answers, 5);
    assert_eq!(world.counters().drops.reply_rate_limited, 45);
}
