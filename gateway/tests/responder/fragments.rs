//! IKE fragmentation (RFC 7383, RFC 9329 §7.5).

use std::sync::Arc;
use std::time::Duration;

use codec::ike::{IkeHeader, NotifyType, PayloadType};
use gateway::control::responder::{Limits, ResponderConfig, Transmit, Verdict};
use gateway::types::{ConnId, Path, Transport, WorkerId};

use crate::ue::{Decoded, Ue, UeAuth, UeConfig, split};
use crate::world::{World, certificate_config, certificate_ue, config, conn, path};

/// A UE that divides everything.
fn dividing(config: UeConfig) -> UeConfig {
    UeConfig { fragmentation: true, room: Some(110), ..config }
}

/// A session over TCP whose UE divides everything, and a request of it in fragments.
fn attached() -> (World, Ue) {
    let mut world = World::new(config());
    let ue = world.attach(1, dividing(UeConfig::new(1)));
    (world, ue)
}

fn create(ue: &mut Ue) -> (Vec<u8>, Vec<Vec<u8>>) {
    let request = ue.create_child(None, false);
    let fragments = split(&request);
    assert!(fragments.len() > 2, "{} fragments", fragments.len());
    (request, fragments)
}

fn is_divided(message: &[u8]) -> bool {
    IkeHeader::decode(message).expect("a header").next_payload == PayloadType::ENCRYPTED_FRAGMENT
}

/// The UE's UDP path on port 4500.
fn udp() -> Path {
    Path { transport: Transport::Udp, ..path(1) }
}

/// Delivers messages over UDP and returns what is sent, fragments in a row.
fn deliver_udp(world: &mut World, octets: &[u8]) -> Vec<u8> {
    for mut message in split(octets) {
        world.verdict =
            world.responder.handle_message(world.now, ConnId::datagrams(WorkerId(0)), &udp(), &mut message);
    }
    world.collect();
    std::mem::take(&mut world.sent).into_iter().flat_map(|sent: Transmit| sent.message.to_vec()).collect()
}

fn over_udp(mut config: ResponderConfig) -> ResponderConfig {
    for profile in &mut config.profiles {
        let profile = Arc::get_mut(profile).expect("ours alone");
        profile.transports = vec![Transport::Tcp, Transport::Udp];
    }
    config
}

#[test]
fn r7383_2_3_r9329_7_5_3_fragmentation_is_there_when_both_announce_it() {
    for announced in [false, true] {
        let mut world = World::new(config());
        let mut ue = Ue::new(UeConfig { fragmentation: announced, ..UeConfig::new(1) });
        let request = ue.init();
        let response = world.exchange(1, &request);
        let notify = NotifyType::IKEV2_FRAGMENTATION_SUPPORTED;
        assert_eq!(Decoded::clear(&response).notify(notify).is_some(), announced, "9329-7.5-3: over TCP too");
        ue.on_init(&response).expect("accepted");
        let request = ue.auth();
        let response = world.exchange(1, &request);
        ue.on_auth(&response);
        let view = world.responder.session(world.now, world.session()).expect("it");
        assert_eq!(view.ike.fragmentation, announced);
        // 2.5: without it a fragment is no protected message.
        ue.sa.as_mut().expect("it").set_room(Some(110));
        let (request, fragments) = create(&mut ue);
        let sent = world.deliver(1, &request);
        assert_eq!(sent.len(), usize::from(announced));
        let dropped = if announced { 0 } else { fragments.len() as u64 };
        assert_eq!(world.counters().drops.unprotected, dropped);
    }
}

#[test]
fn r9329_7_5_1_and_7_5_2_fragments_are_taken_over_tcp_and_never_sent() {
    let (mut world, mut ue) = attached();
    assert!(world.counters().exchanges.messages_joined == 1, "IKE_AUTH came in fragments");
    let (request, _) = create(&mut ue);
    let response = world.exchange(1, &request);
    assert!(!is_divided(&response));
    assert_eq!(ue.on_create_child(&response).error(), None);
    assert_eq!(world.counters().exchanges.messages_divided, 0);
    assert_eq!(world.verdict, Verdict::Good);
}

#[test]
fn r7383_2_6_fragments_come_in_any_order_and_more_than_once() {
    let (mut world, mut ue) = attached();
    for rotation in 0..3 {
        let (_, mut fragments) = create(&mut ue);
        fragments.rotate_left(rotation);
        fragments.insert(1, fragments[0].clone());
        let (last, others) = fragments.split_last().expect("several");
        for fragment in others {
            assert!(world.deliver(1, fragment).is_empty());
        }
        let response = world.exchange(1, last);
        assert_eq!(ue.on_create_child(&response).error(), None);
    }
}

#[test]
fn r7383_2_6_a_fragment_that_does_not_verify_changes_nothing() {
    let (mut world, mut ue) = attached();
    let (_, fragments) = create(&mut ue);
    world.deliver(1, &fragments[0]);
    let mut forged = fragments[1].clone();
    *forged.last_mut().expect("octets") ^= 1;
    assert!(world.deliver(2, &forged).is_empty());
    assert_eq!(world.verdict, Verdict::Bad);
    assert_eq!(world.closed().len(), 1, "the connection it came on, and only that");
    for fragment in &fragments[1..fragments.len() - 1] {
        assert!(world.deliver(1, fragment).is_empty());
    }
    let response = world.exchange(1, fragments.last().expect("several"));
    assert_eq!(ue.on_create_child(&response).error(), None);
}

#[test]
fn r7383_2_6_a_larger_total_starts_anew_and_a_smaller_one_is_old() {
    let (mut world, mut ue) = attached();
    let (_, coarse) = create(&mut ue);
    // The same request in smaller pieces, as after a path that takes less (RFC 7383 2.5.2).
    let sa = ue.sa.as_mut().expect("it");
    sa.next_out -= 1;
    sa.set_room(Some(95));
    let (_, fine) = create(&mut ue);
    assert!(fine.len() > coarse.len());
    world.deliver(1, &coarse[0]);
    for fragment in &fine[..fine.len() - 1] {
        assert!(world.deliver(1, fragment).is_empty());
    }
    for fragment in &coarse {
        assert!(world.deliver(1, fragment).is_empty(), "an old division");
    }
    let response = world.exchange(1, fine.last().expect("several"));
    assert_eq!(ue.on_create_child(&response).error(), None);
}

#[test]
fn r7383_2_6_1_only_the_first_fragment_of_an_answered_request_is_answered_again() {
    let (mut world, mut ue) = attached();
    let (request, fragments) = create(&mut ue);
    let response = world.exchange(1, &request);
    for fragment in &fragments[1..] {
        assert!(world.deliver(1, fragment).is_empty());
        assert_eq!(world.verdict, Verdict::Good);
    }
    assert_eq!(world.exchange(1, &fragments[0]), response);
    // Divided anew, the first fragment has other octets; it is authentic all the same.
    let sa = ue.sa.as_mut().expect("it");
    sa.next_out -= 1;
    sa.set_room(Some(95));
    let (_, fine) = create(&mut ue);
    assert_eq!(world.exchange(1, &fine[0]), response);
    assert!(world.deliver(1, &fine[1]).is_empty());
    assert_eq!(world.counters().exchanges.children_created, 1);
}

#[test]
fn r7383_2_5_long_responses_over_udp_leave_in_packets_of_1280_octets_and_short_ones_whole() {
    let mut world = World::new(over_udp(certificate_config(true, false)));
    let mut ue = Ue::new(UeConfig { fragmentation: true, room: Some(1228), ..certificate_ue(1, true) });
    let request = ue.init();
    let response = deliver_udp(&mut world, &request);
    ue.on_init(&response).expect("accepted");
    let request = ue.auth();
    assert!(is_divided(&request));
    let response = deliver_udp(&mut world, &request);
    let fragments = split(&response);
    assert!(fragments.len() > 1);
    assert!(fragments.iter().all(|fragment| fragment.len() + 8 + 4 + 20 <= 1280));
    assert_eq!(ue.on_auth(&response).error(), None);
    assert_eq!(ue.children.len(), 1);
    // A repetition of fragment 1 has all of them sent again.
    assert_eq!(deliver_udp(&mut world, &split(&request)[0]), response);
    let request = ue.informational(|_| {});
    assert!(!is_divided(&deliver_udp(&mut world, &request)));
}

#[test]
fn r7383_2_6_fragments_do_not_wait_for_ever() {
    let (mut world, mut ue) = attached();
    let (_, fragments) = create(&mut ue);
    world.deliver(1, &fragments[0]);
    world.advance(Duration::from_secs(16));
    assert_eq!(world.counters().drops.fragment_timeout, 1);
    for fragment in &fragments[1..] {
        assert!(world.deliver(1, fragment).is_empty());
    }
    let response = world.exchange(1, &fragments[0]);
    assert_eq!(ue.on_create_child(&response).error(), None);
}

#[test]
fn r7383_2_6_what_waits_is_bounded() {
    let limits = Limits { fragment_memory: 80, ..Limits::default() };
    let mut world = World::new(ResponderConfig { limits, ..config() });
    let mut ue = world.attach(1, UeConfig { fragmentation: true, ..UeConfig::new(1) });
    ue.sa.as_mut().expect("it").set_room(Some(110));
    let (request, _) = create(&mut ue);
    assert!(world.deliver(1, &request).is_empty());
    assert!(world.counters().drops.fragment_limit > 0);
    // What was held is free again.
    ue.sa.as_mut().expect("it").next_out -= 1;
    ue.sa.as_mut().expect("it").set_room(None);
    let request = ue.informational(|_| {});
    world.exchange(1, &request);
    world.responder.handle_conn_closed(conn(1));
    world.advance(Duration::from_secs(200));
    assert_eq!(world.session_count(), 0);
}

#[test]
fn r7383_2_6_1_a_refused_request_in_fragments_is_answered_again_and_its_other_fragments_are_not_strange() {
    let mut world = World::new(config());
    let mut ue = Ue::new(UeConfig {
        fragmentation: true,
        room: Some(200),
        auth: UeAuth::Psk(b"wrong".to_vec()),
        ..UeConfig::new(1)
    });
    world.init(1, &mut ue);
    let request = ue.auth();
    let first = world.deliver(1, &request);
    let again = world.deliver(2, &request);
    assert_eq!(again, first);
    assert_eq!(world.counters().drops.unknown_ike_spi, 0);
}
