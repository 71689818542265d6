//! IKE alone over TCP 500 (draft-ietf-ipsecme-ike-tcp): the responder's part.

use std::sync::Arc;
use std::time::Duration;

use codec::ike::{NotifyType, ProtocolId};
use gateway::control::responder::{Event, IkeTcpOffer, Limits, ResponderConfig, Verdict};
use gateway::types::{ConnId, Follow, Path, Transport};

use crate::ue::{Decoded, Ue, UeConfig};
use crate::world::{Place, World, config, profile, psk};

const NOTIFY: NotifyType = NotifyType(50_000);

/// A gateway that serves UDP, and over TCP 500 IKE for it.
fn served() -> ResponderConfig {
    let mut lab = profile("lab", psk());
    lab.transports = vec![Transport::Udp];
    let offer = IkeTcpOffer { notify: NOTIFY, port: 500 };
    ResponderConfig { profiles: vec![Arc::new(lab)], ike_tcp: Some(offer), ..config() }
}

/// What is sent, with where it goes.
fn sent(world: &mut World) -> Vec<(ConnId, Path, Vec<u8>)> {
    let sent = std::mem::take(&mut world.sent).into_iter();
    sent.map(|transmit| (transmit.conn, transmit.path, transmit.message.to_vec())).collect()
}

/// A request with one answer, which goes back over the connection or the path it came on.
fn exchange(world: &mut World, from: Place, request: &[u8]) -> Vec<u8> {
    assert_eq!(world.arrive(from, request.to_vec()), Verdict::Good);
    let mut answers = sent(world);
    assert_eq!(answers.len(), 1, "one answer");
    let (conn, path, answer) = answers.remove(0);
    assert_eq!((conn, path), (from.conn(), from.path()));
    answer
}

/// IKE_SA_INIT at one place, IKE_AUTH at another.
fn attach(world: &mut World, init: Place, auth: Place) -> Ue {
    let mut ue = Ue::new(UeConfig::new(1));
    let request = ue.init();
    ue.on_init(&exchange(world, init, &request)).expect("accepted");
    let request = ue.auth();
    assert_eq!(ue.on_auth(&exchange(world, auth, &request)).error(), None);
    ue
}

fn here(world: &World) -> Path {
    *world.responder.session(world.now, world.session()).expect("it").path
}

/// Where the packet path was last told that the session is.
fn bound(world: &mut World) -> Option<(Path, Follow)> {
    std::mem::take(&mut world.events).into_iter().rev().find_map(|event| match event {
        Event::Bind { path, follow, .. } => Some((path, follow)),
        _ => None,
    })
}

fn alive(world: &mut World, ue: &mut Ue, from: Place) {
    let request = ue.informational(|_| {});
    let response = exchange(world, from, &request);
    assert!(ue.open(&response).is_some());
}

#[test]
fn nir_2_2_1_and_2_2_2_requests_are_taken_there_and_answered_on_the_connection_they_came_on() {
    let mut world = World::new(served());
    let mut ue = attach(&mut world, Place::IkeTcp(1), Place::IkeTcp(1));
    for number in [1, 2, 3] {
        alive(&mut world, &mut ue, Place::IkeTcp(number));
    }
    assert_eq!(world.counters().exchanges.connection_switches, 0, "none of them is the session's");
}

#[test]
fn nir_2_2_3_an_answer_whose_connection_is_gone_waits_for_the_request_to_come_again() {
    let mut world = World::new(served());
    let mut ue = attach(&mut world, Place::IkeTcp(1), Place::IkeTcp(1));
    alive(&mut world, &mut ue, Place::Udp(40_000));
    let request = ue.informational(|_| {});
    let answer = exchange(&mut world, Place::IkeTcp(1), &request);
    world.responder.handle_conn_closed(Place::IkeTcp(1).conn());
    world.advance(Duration::from_secs(10));
    assert!(sent(&mut world).is_empty(), "nothing over UDP");
    assert_eq!(exchange(&mut world, Place::Udp(40_000), &request), answer);
    assert_eq!(exchange(&mut world, Place::IkeTcp(2), &request), answer);
    assert_eq!(world.counters().exchanges.retransmissions_answered, 2);
}

#[test]
fn nir_2_2_4_successive_requests_come_over_different_transports() {
    let (tcp, udp) = (Place::IkeTcp(1), Place::Udp(40_000));
    for (init, auth, next) in
        [(udp, tcp, udp), (tcp, udp, tcp), (tcp, Place::IkeTcp(2), udp), (udp, udp, tcp)]
    {
        let mut world = World::new(served());
        let mut ue = attach(&mut world, init, auth);
        alive(&mut world, &mut ue, next);
        alive(&mut world, &mut ue, init);
        let known = [udp].into_iter().any(|place| [init, auth, next].contains(&place));
        assert_eq!(here(&world) == udp.path(), known, "{init:?}, {auth:?}, {next:?}");
    }
}

#[test]
fn nir_2_2_5_and_2_5_1_other_transports_are_told_when_a_type_is_configured() {
    for (offer, places) in [(served().ike_tcp, 1), (None, 0)] {
        let mut world = World::new(ResponderConfig { ike_tcp: offer, ..served() });
        let mut told = 0;
        for (seed, place) in (1..).zip([Place::Udp(40_000), Place::IkeTcp(1)]) {
            let request = Ue::new(UeConfig::new(seed)).init();
            let answer = Decoded::clear(&exchange(&mut world, place, &request));
            if let Some(notify) = answer.notify(NOTIFY) {
                assert_ne!(place, Place::IkeTcp(1), "it may be there, and says nothing new");
                assert_eq!(
                    (notify.protocol, notify.spi, notify.data),
                    (ProtocolId(0), &[][..], &[1, 244][..])
                );
                told += 1;
            }
        }
        assert_eq!(told, places);
    }
}

#[test]
fn nir_3_2_1_the_port_is_that_of_the_nat_in_front_of_us() {
    let offer = IkeTcpOffer { notify: NOTIFY, port: 5_500 };
    let mut world = World::new(ResponderConfig { ike_tcp: Some(offer), ..served() });
    let request = Ue::new(UeConfig::new(1)).init();
    let answer = Decoded::clear(&exchange(&mut world, Place::Udp(40_000), &request));
    assert_eq!(answer.notify(NOTIFY).expect("told").data, 5_500u16.to_be_bytes());
}

#[test]
fn nir_2_2_6_and_2_3_1_our_own_requests_leave_over_udp_and_nothing_is_repeated_on_the_connection() {
    let mut world = World::new(served());
    let mut ue = attach(&mut world, Place::IkeTcp(1), Place::IkeTcp(1));
    world.advance(Duration::from_secs(60));
    let asked = sent(&mut world);
    assert_eq!(asked.len(), 1, "a liveness check");
    let (conn, path, request) = &asked[0];
    assert!(conn.is_datagrams());
    let peer = Place::IkeTcp(1).path().remote.ip();
    assert_eq!((path.transport, path.local.port(), path.remote), (Transport::Udp, 500, (peer, 500).into()));
    world.advance(Duration::from_secs(4));
    let again = sent(&mut world);
    assert!(
        !again.is_empty() && again.iter().all(|(conn, _, again)| conn.is_datagrams() && again == request)
    );
    // Its answer may come over TCP.
    let question = ue.open(request).expect("ours");
    let answer = ue.respond(&question, |_| {});
    assert_eq!(world.arrive(Place::IkeTcp(2), answer), Verdict::Good);
    world.advance(Duration::from_secs(40));
    assert!(sent(&mut world).is_empty());
    assert_eq!(world.session_count(), 1);
}

#[test]
fn nir_2_2_8_no_cookie_is_asked_for() {
    let limits = Limits { cookies_from: 0, puzzles_from: 0, ..Limits::default() };
    let mut world = World::new(ResponderConfig { limits, ..served() });
    attach(&mut world, Place::IkeTcp(1), Place::IkeTcp(1));
    assert_eq!(world.counters().exchanges.cookies_sent, 0);
}

#[test]
fn nir_3_1_1_and_3_2_2_the_session_outlives_the_connection_and_its_esp_goes_where_it_is_heard_over_udp() {
    let mut world = World::new(served());
    let mut ue = attach(&mut world, Place::IkeTcp(1), Place::IkeTcp(1));
    let (path, follow) = bound(&mut world).expect("told");
    assert!(!path.carries_esp() && follow == Follow::Any, "no ESP before an address for it is known");
    world.responder.handle_conn_closed(Place::IkeTcp(1).conn());
    assert_eq!(world.session_count(), 1);
    alive(&mut world, &mut ue, Place::Udp(40_000));
    assert_eq!(bound(&mut world).map(|(path, _)| path), Some(Place::Udp(40_000).path()));
    // A request over TCP afterwards leaves it there.
    alive(&mut world, &mut ue, Place::IkeTcp(2));
    assert_eq!((bound(&mut world), here(&world)), (None, Place::Udp(40_000).path()));
}

#[test]
fn r9329_5_3_a_session_of_rfc_9329_is_not_reached_there() {
    let mut lab = profile("lab", psk());
    lab.transports = vec![Transport::Tcp, Transport::Udp];
    let mut world = World::new(ResponderConfig { profiles: vec![Arc::new(lab)], ..served() });
    let mut ue = attach(&mut world, Place::Tcp(1), Place::Tcp(1));
    let request = ue.informational(|_| {});
    assert_eq!(world.arrive(Place::IkeTcp(2), request), Verdict::Bad);
    assert!(sent(&mut world).is_empty());
    assert_eq!(world.counters().drops.tcp_bound, 1);
}

#[test]
fn nir_2_2_1_a_profile_without_udp_is_none_for_such_peers() {
    let mut lab = profile("lab", psk());
    lab.transports = vec![Transport::Tcp];
    let mut world = World::new(ResponderConfig { profiles: vec![Arc::new(lab)], ..served() });
    let mut ue = Ue::new(UeConfig::new(1));
    let request = ue.init();
    ue.on_init(&exchange(&mut world, Place::IkeTcp(1), &request)).expect("accepted");
    let request = ue.auth();
    let answer = ue.on_auth(&exchange(&mut world, Place::IkeTcp(1), &request));
    assert_eq!(answer.error(), Some(NotifyType::AUTHENTICATION_FAILED));
}
