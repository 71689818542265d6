//! MOBIKE (RFC 4555), over UDP and TCP (RFC 9329 §7.1).

use std::net::SocketAddr;
use std::sync::Arc;

use codec::ike::{MessageBuilder, NotifyType};
use gateway::control::responder::{Event, Profile, ResponderConfig, Transmit};
use gateway::types::{ConnId, Follow, Path, Transport};

use crate::ue::{Decoded, Ue, UeConfig};
use crate::world::{Place, World, config, profile, psk};

fn configured(change: impl FnOnce(&mut Profile)) -> ResponderConfig {
    let mut lab = profile("lab", psk());
    lab.transports = vec![Transport::Tcp, Transport::Udp];
    lab.dpd = std::time::Duration::ZERO;
    change(&mut lab);
    ResponderConfig { profiles: vec![Arc::new(lab)], ..config() }
}

/// Delivers a message and returns what is sent, with where it goes.
fn deliver(world: &mut World, from: Place, message: &[u8]) -> Vec<(Path, Vec<u8>)> {
    let _ = world.arrive(from, message.to_vec());
    sent(world)
}

fn sent(world: &mut World) -> Vec<(Path, Vec<u8>)> {
    let sent = std::mem::take(&mut world.sent).into_iter();
    sent.map(|Transmit { path, message, .. }| (path, message.to_vec())).collect()
}

/// [`deliver`] for a request with one answer, which goes back where it came from.
fn exchange(world: &mut World, from: Place, message: &[u8]) -> Vec<u8> {
    let mut answers = deliver(world, from, message);
    assert_eq!(answers.len(), 1, "one answer");
    let (to, answer) = answers.remove(0);
    assert_eq!(to, from.path());
    answer
}

fn attach(world: &mut World, from: Place, mobike: bool) -> Ue {
    let mut ue = Ue::new(UeConfig::new(1));
    let request = ue.init();
    let response = exchange(world, from, &request);
    ue.on_init(&response).expect("accepted");
    let request = ue.auth_with(|builder| {
        if mobike {
            builder.notify(NotifyType::MOBIKE_SUPPORTED, b"ignored");
        }
    });
    let response = exchange(world, from, &request);
    let answer = ue.on_auth(&response);
    let data = answer.notify(NotifyType::MOBIKE_SUPPORTED).map(|notify| notify.data.len());
    assert_eq!(data, mobike.then_some(0));
    world.events.clear();
    ue
}

fn update(ue: &mut Ue, more: impl FnOnce(&mut MessageBuilder)) -> Vec<u8> {
    ue.informational(|builder| {
        builder.notify(NotifyType::UPDATE_SA_ADDRESSES, &[]);
        more(builder);
    })
}

/// Where the packet path was last told that the session is.
fn bound(world: &mut World) -> Option<(ConnId, Path, Follow)> {
    std::mem::take(&mut world.events).into_iter().rev().find_map(|event| match event {
        Event::Bind { conn, path, follow, .. } => Some((conn, path, follow)),
        _ => None,
    })
}

fn here(world: &World) -> Path {
    *world.responder.session(world.now, world.session()).expect("it").path
}

fn answer(world: &mut World, ue: &mut Ue, from: Place, request: &[u8]) {
    let request = ue.open(request).expect("authentic");
    let response = ue.respond(&request, |_| {});
    deliver(world, from, &response);
}

#[test]
fn r4555_3_1_mobike_is_there_when_both_announce_it() {
    for (wanted, offered) in [(true, true), (true, false), (false, false)] {
        let mut world = World::new(configured(|lab| lab.mobike = wanted));
        attach(&mut world, Place::Tcp(1), offered);
        let view = world.responder.session(world.now, world.session()).expect("it");
        assert_eq!(view.ike.mobike, wanted && offered);
    }
}

#[test]
fn r9329_7_1_1_udp_to_tcp_to_udp_each_by_one_update() {
    let mut world = World::new(configured(|_| {}));
    let mut ue = attach(&mut world, Place::Udp(40_000), true);
    for place in [Place::Udp(40_001), Place::Tcp(2), Place::Tcp(3), Place::Udp(40_002), Place::Tcp(4)] {
        let request = update(&mut ue, |builder| {
            builder.notify(NotifyType::NAT_DETECTION_SOURCE_IP, &[0; 20]);
            builder.notify(NotifyType::NAT_DETECTION_DESTINATION_IP, &[0; 20]);
        });
        let response = exchange(&mut world, place, &request);
        let decoded = ue.open(&response).expect("authentic");
        assert_eq!(decoded.error(), None);
        let kinds: Vec<_> = decoded.notifies().map(|notify| notify.kind).collect();
        let nat = [NotifyType::NAT_DETECTION_SOURCE_IP, NotifyType::NAT_DETECTION_DESTINATION_IP];
        assert_eq!(kinds, nat, "NAT detection is answered by NAT detection");
        let (conn, path, _) = bound(&mut world).expect("moved");
        assert_eq!((conn, path), (place.conn(), place.path()));
        assert_eq!(here(&world), place.path());
    }
    assert_eq!(world.counters().exchanges.addresses_updated, 5);
}

#[test]
fn r4555_3_5_only_an_update_moves_a_session_on_udp() {
    let mut world = World::new(configured(|_| {}));
    let mut ue = attach(&mut world, Place::Udp(40_000), true);
    let request = ue.informational(|_| {});
    exchange(&mut world, Place::Udp(40_001), &request);
    assert_eq!((bound(&mut world), here(&world)), (None, Place::Udp(40_000).path()));
    // d11: nor does a fresh message over UDP move one on TCP.
    let request = update(&mut ue, |_| {});
    exchange(&mut world, Place::Tcp(2), &request);
    bound(&mut world);
    let request = ue.informational(|_| {});
    exchange(&mut world, Place::Udp(40_000), &request);
    assert_eq!((bound(&mut world), here(&world)), (None, Place::Tcp(2).path()));
}

#[test]
fn r4555_3_5_without_mobike_the_update_is_not_understood() {
    let mut world = World::new(configured(|_| {}));
    let mut ue = attach(&mut world, Place::Udp(40_000), false);
    let request = update(&mut ue, |_| {});
    let response = exchange(&mut world, Place::Udp(40_001), &request);
    assert!(ue.open(&response).expect("authentic").payloads.is_empty());
    assert_eq!(world.counters().exchanges.addresses_updated, 0);
}

#[test]
fn r9329_7_1_2_an_update_repeated_over_tcp_is_answered_there_and_the_next_message_moves_the_session() {
    let mut world = World::new(configured(|_| {}));
    let mut ue = attach(&mut world, Place::Udp(40_000), true);
    let request = update(&mut ue, |_| {});
    let over_udp = exchange(&mut world, Place::Udp(40_001), &request);
    bound(&mut world);
    // The response was lost; the UE goes over to TCP with the same request.
    let over_tcp = exchange(&mut world, Place::Tcp(2), &request);
    assert_eq!(over_tcp, over_udp, "the same octets");
    assert_eq!(here(&world), Place::Udp(40_001).path(), "a repetition proves nothing");
    let (_, _, follow) = bound(&mut world).expect("the packet path is told");
    assert_eq!(follow, Follow::Tcp, "fresh ESP on TCP moves it");
    let request = ue.informational(|_| {});
    exchange(&mut world, Place::Tcp(2), &request);
    assert_eq!(here(&world), Place::Tcp(2).path());
}

#[test]
fn r9329_7_1_3_the_second_exchange_with_the_right_digests_is_taken_too() {
    let mut world = World::new(configured(|_| {}));
    let mut ue = attach(&mut world, Place::Udp(40_000), true);
    for _ in 0..2 {
        let request = update(&mut ue, |builder| {
            builder.notify(NotifyType::NAT_DETECTION_SOURCE_IP, &[7; 20]);
        });
        let response = exchange(&mut world, Place::Tcp(2), &request);
        assert_eq!(ue.open(&response).expect("authentic").error(), None);
    }
    assert_eq!(here(&world), Place::Tcp(2).path());
}

/// NO_NATS_ALLOWED for a message that came from `place`.
fn no_nats(place: Place) -> Vec<u8> {
    let Path { local, remote, .. } = place.path();
    let ip = |addr: SocketAddr| match addr.ip() {
        std::net::IpAddr::V4(ip) => ip.octets(),
        std::net::IpAddr::V6(_) => panic!("IPv4 here"),
    };
    [&ip(remote)[..], &ip(local), &remote.port().to_be_bytes(), &local.port().to_be_bytes()].concat()
}

#[test]
fn r4555_3_9_no_nats_allowed_means_what_it_says_over_udp() {
    let mut world = World::new(configured(|_| {}));
    let mut ue = attach(&mut world, Place::Udp(40_000), true);
    let place = Place::Udp(40_001);
    for (data, refused) in [(no_nats(Place::Udp(1)), true), (vec![1, 2, 3], true), (no_nats(place), false)] {
        let request = update(&mut ue, |builder| {
            builder.notify(NotifyType::NO_NATS_ALLOWED, &data);
        });
        let response = exchange(&mut world, place, &request);
        let error = ue.open(&response).expect("authentic").error();
        assert_eq!(error, refused.then_some(NotifyType::UNEXPECTED_NAT_DETECTED));
        let expected = if refused { Place::Udp(40_000) } else { place };
        assert_eq!(here(&world), expected.path());
    }
}

#[test]
fn r9329_7_1_4_no_nats_allowed_is_ignored_over_tcp() {
    let mut world = World::new(configured(|_| {}));
    let mut ue = attach(&mut world, Place::Udp(40_000), true);
    let request = update(&mut ue, |builder| {
        builder.notify(NotifyType::NO_NATS_ALLOWED, &no_nats(Place::Udp(1)));
    });
    let response = exchange(&mut world, Place::Tcp(2), &request);
    assert_eq!(ue.open(&response).expect("authentic").error(), None);
    assert_eq!(here(&world), Place::Tcp(2).path());
}

#[test]
fn r4555_3_5_a_transport_that_the_profile_does_not_serve_is_unacceptable() {
    let mut world = World::new(configured(|lab| lab.transports = vec![Transport::Tcp]));
    let mut ue = attach(&mut world, Place::Tcp(1), true);
    let request = update(&mut ue, |_| {});
    let response = exchange(&mut world, Place::Udp(40_000), &request);
    let error = ue.open(&response).expect("authentic").error();
    assert_eq!(error, Some(NotifyType::UNACCEPTABLE_ADDRESSES));
    assert_eq!(here(&world), Place::Tcp(1).path());
}

#[test]
fn r4555_3_8_cookie2_comes_back_as_it_was() {
    let mut world = World::new(configured(|_| {}));
    let mut ue = attach(&mut world, Place::Tcp(1), true);
    for (cookie, echoed) in
        [(vec![7; 8], true), (vec![9; 64], true), (vec![1; 7], false), (vec![1; 65], false)]
    {
        let request = ue.informational(|builder| {
            builder.notify(NotifyType::COOKIE2, &cookie);
        });
        let response = exchange(&mut world, Place::Tcp(1), &request);
        let decoded: Decoded = ue.open(&response).expect("authentic");
        let back = decoded.notify(NotifyType::COOKIE2).map(|notify| notify.data.to_vec());
        assert_eq!(back, echoed.then_some(cookie), "9329-7.1-5: echoed over TCP too");
    }
}

#[test]
fn r4555_3_7_return_routability_is_shown_before_the_downlink_moves() {
    let mut world = World::new(configured(|lab| lab.return_routability = true));
    let mut ue = attach(&mut world, Place::Udp(40_000), true);
    let place = Place::Udp(40_001);
    for honest in [false, true] {
        let request = update(&mut ue, |_| {});
        let mut answers = deliver(&mut world, place, &request);
        let (to, challenge) = answers.pop().expect("a request of the gateway");
        assert_eq!((answers.len(), to), (1, place.path()), "after the response, to the new address");
        assert_eq!(here(&world), Place::Udp(40_000).path());
        let challenge = ue.open(&challenge).expect("authentic");
        let cookie = challenge.notify(NotifyType::COOKIE2).expect("COOKIE2").data.to_vec();
        let response = ue.respond(&challenge, |builder| {
            builder.notify(NotifyType::COOKIE2, if honest { &cookie } else { &[0; 16] });
        });
        deliver(&mut world, place, &response);
        let expected = if honest { place } else { Place::Udp(40_000) };
        assert_eq!(here(&world), expected.path());
    }
    assert_eq!(bound(&mut world).map(|(_, path, _)| path), Some(place.path()));
}

#[test]
fn r4555_3_7_the_challenge_is_retransmitted_to_the_new_address() {
    let mut world = World::new(configured(|lab| lab.return_routability = true));
    let mut ue = attach(&mut world, Place::Udp(40_000), true);
    let place = Place::Udp(40_001);
    let request = update(&mut ue, |_| {});
    let challenge = deliver(&mut world, place, &request).pop().expect("a request");
    world.advance(std::time::Duration::from_secs(2));
    assert_eq!(sent(&mut world), [challenge]);
}

#[test]
fn r9329_7_1_5_no_return_routability_over_tcp() {
    let mut world = World::new(configured(|lab| lab.return_routability = true));
    let mut ue = attach(&mut world, Place::Udp(40_000), true);
    let request = update(&mut ue, |_| {});
    exchange(&mut world, Place::Tcp(2), &request);
    assert_eq!(here(&world), Place::Tcp(2).path());
}

#[test]
fn r4555_3_6_further_addresses_of_the_peer_are_read_and_not_used() {
    let mut world = World::new(configured(|_| {}));
    let mut ue = attach(&mut world, Place::Tcp(1), true);
    for kind in [
        NotifyType::ADDITIONAL_IP4_ADDRESS,
        NotifyType::ADDITIONAL_IP6_ADDRESS,
        NotifyType::NO_ADDITIONAL_ADDRESSES,
    ] {
        let request = ue.informational(|builder| {
            builder.notify(kind, &[192, 0, 2, 9]);
        });
        let response = exchange(&mut world, Place::Tcp(1), &request);
        assert!(ue.open(&response).expect("authentic").payloads.is_empty());
    }
    // The gateway's own requests stay where the peer is.
    let id = world.session();
    world.responder.terminate(world.now, id);
    world.collect();
    let request = sent(&mut world).pop().expect("a Delete");
    assert_eq!(request.0, Place::Tcp(1).path());
    answer(&mut world, &mut ue, Place::Tcp(1), &request.1);
    assert_eq!(world.session_count(), 0);
}

/// The messages of the gateway among `sent` that are requests, with where they go.
fn requests(ue: &Ue, sent: Vec<(Path, Vec<u8>)>) -> Vec<(Path, Vec<u8>)> {
    let is_request = |message: &[u8]| !ue.open(message).expect("authentic").header.flags.is_response();
    sent.into_iter().filter(|(_, message)| is_request(message)).collect()
}

fn echo(world: &mut World, ue: &mut Ue, from: Place, request: &[u8]) -> Vec<(Path, Vec<u8>)> {
    let challenge = ue.open(request).expect("authentic");
    let cookie = challenge.notify(NotifyType::COOKIE2).expect("COOKIE2").data.to_vec();
    let response = ue.respond(&challenge, |builder| {
        builder.notify(NotifyType::COOKIE2, &cookie);
    });
    deliver(world, from, &response)
}

#[test]
fn r4555_3_5_what_awaits_its_answer_goes_on_at_the_new_address_before_that_is_proved() {
    let mut world = World::new(configured(|lab| {
        lab.return_routability = true;
        lab.dpd = std::time::Duration::from_secs(60);
    }));
    let mut ue = attach(&mut world, Place::Tcp(1), true);
    world.advance(std::time::Duration::from_secs(60));
    let asked = sent(&mut world).pop().expect("a liveness check, which the UE does not read any more");
    let place = Place::Udp(40_001);
    let request = update(&mut ue, |_| {});
    let answers = deliver(&mut world, place, &request);
    assert_eq!(requests(&ue, answers), [(place.path(), asked.1.clone())], "it blocks the challenge");
    world.advance(std::time::Duration::from_secs(1));
    assert_eq!(sent(&mut world), [(place.path(), asked.1.clone())], "and is repeated as over UDP");
    let question = ue.open(&asked.1).expect("authentic");
    let response = ue.respond(&question, |_| {});
    let challenge = deliver(&mut world, place, &response).pop().expect("a challenge");
    assert_eq!(challenge.0, place.path());
    assert_eq!(here(&world), Place::Tcp(1).path());
    echo(&mut world, &mut ue, place, &challenge.1);
    assert_eq!(here(&world), place.path());
}

#[test]
fn r4555_3_7_an_update_from_the_address_under_test_leaves_the_test_as_it_is() {
    let mut world = World::new(configured(|lab| lab.return_routability = true));
    let mut ue = attach(&mut world, Place::Udp(40_000), true);
    let place = Place::Udp(40_001);
    let request = update(&mut ue, |_| {});
    let challenge = deliver(&mut world, place, &request).pop().expect("a challenge");
    let request = update(&mut ue, |_| {});
    deliver(&mut world, place, &request);
    echo(&mut world, &mut ue, place, &challenge.1);
    assert_eq!(here(&world), place.path());
}

#[test]
fn r4555_3_7_a_cookie_that_was_read_elsewhere_proves_nothing() {
    let mut world = World::new(configured(|lab| lab.return_routability = true));
    let mut ue = attach(&mut world, Place::Tcp(1), true);
    // The address may be a victim's; what goes there is repeated where the UE does read.
    let victim = Place::Udp(53);
    let request = update(&mut ue, |_| {});
    let answers = deliver(&mut world, victim, &request);
    let [(to, _)] = &requests(&ue, answers)[..] else { panic!("one challenge") };
    assert_eq!(*to, victim.path());
    let request = ue.informational(|_| {});
    let answers = deliver(&mut world, Place::Tcp(2), &request);
    let [(to, challenge)] = &requests(&ue, answers)[..] else { panic!("the challenge again") };
    assert_eq!(*to, Place::Tcp(2).path());
    echo(&mut world, &mut ue, Place::Tcp(2), challenge);
    assert_eq!(here(&world), Place::Tcp(2).path());
    // And when the UE has gone on by an update of its own, it is not brought back.
    let place = Place::Udp(40_002);
    let request = update(&mut ue, |_| {});
    let challenge = deliver(&mut world, place, &request).pop().expect("a challenge");
    let request = update(&mut ue, |_| {});
    deliver(&mut world, Place::Tcp(3), &request);
    echo(&mut world, &mut ue, Place::Tcp(3), &challenge.1);
    assert_eq!(here(&world), Place::Tcp(3).path());
}

#[test]
fn r9329_9_1_a_session_on_udp_is_never_pushed_to_tcp() {
    let mut world = World::new(configured(|lab| lab.dpd = std::time::Duration::from_secs(60)));
    let mut ue = attach(&mut world, Place::Tcp(1), true);
    let request = update(&mut ue, |_| {});
    let place = Place::Udp(40_000);
    exchange(&mut world, place, &request);
    // The old connection is open, and another one too; fresh messages come on both.
    for number in [1, 2] {
        let request = ue.informational(|_| {});
        exchange(&mut world, Place::Tcp(number), &request);
    }
    world.advance(std::time::Duration::from_secs(60));
    let asked = sent(&mut world);
    assert_eq!(asked.len(), 1, "a liveness check");
    assert_eq!(asked[0].0, place.path());
    answer(&mut world, &mut ue, place, &asked[0].1);
    let id = world.session();
    world.responder.terminate(world.now, id);
    world.collect();
    let asked = sent(&mut world);
    assert_eq!(asked[0].0, place.path(), "and so does the Delete");
}
