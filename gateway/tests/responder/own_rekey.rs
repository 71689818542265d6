//! Rekeys that the gateway starts, and what may cross them (RFC 7296 §2.8, §2.25).

use std::sync::Arc;
use std::time::Duration;

use codec::esp::EspSpi;
use codec::ike::{ExchangeType, IkeHeader, MessageBuilder, NotifyType, PayloadType};
use gateway::control::responder::{Event, ResponderConfig, Verdict};
use gateway::types::Transport;

use crate::ue::{Decoded, Ue, UeConfig};
use crate::world::{Place, World, config, profile, psk};

const REKEY_CHILD: Duration = Duration::from_secs(100);
const REKEY_IKE: Duration = Duration::from_secs(1_000);

/// A gateway that rekeys soon and never checks liveness.
fn hasty() -> ResponderConfig {
    let mut lab = profile("lab", psk());
    lab.dpd = Duration::ZERO;
    lab.rekey_child = REKEY_CHILD;
    lab.rekey_ike = REKEY_IKE;
    ResponderConfig { profiles: vec![Arc::new(lab)], ..config() }
}

/// A gateway that rekeys its IKE SAs before their children.
fn hasty_ike() -> ResponderConfig {
    let mut lab = profile("lab", psk());
    lab.dpd = Duration::ZERO;
    lab.rekey_ike = REKEY_CHILD;
    ResponderConfig { profiles: vec![Arc::new(lab)], ..config() }
}

/// The one request that the gateway has sent on connection 1.
fn asked(world: &mut World, ue: &Ue) -> Decoded {
    let sent = world.take_sent(1);
    assert_eq!(sent.len(), 1, "one request");
    let decoded = ue.open(&sent[0]).expect("authentic");
    assert!(!decoded.header.flags.is_response());
    decoded
}

/// Lets the time of a rekey come.
fn rekey_due(world: &mut World, ue: &Ue) -> Decoded {
    world.advance(REKEY_CHILD);
    let request = asked(world, ue);
    assert_eq!(request.header.exchange, ExchangeType::CREATE_CHILD_SA);
    request
}

/// The answer to the gateway's request, as the UE of a test wants it.
fn answer(world: &mut World, ue: &mut Ue, request: &Decoded, fill: impl FnOnce(&mut MessageBuilder)) {
    let response = ue.respond(request, fill);
    world.tell(1, &response);
}

/// Answers the gateway's Delete of a child.
fn confirm_delete(world: &mut World, ue: &mut Ue) -> EspSpi {
    let request = asked(world, ue);
    let deleted = request.deleted();
    assert_eq!(deleted.len(), 1);
    let at = ue.children.iter().position(|child| child.spi_out == deleted[0]).expect("one of ours");
    let child = ue.children.remove(at);
    answer(world, ue, &request, |builder| {
        builder.delete_esp(&[child.spi_in]);
    });
    deleted[0]
}

fn children(world: &World) -> Vec<(EspSpi, EspSpi)> {
    let view = world.responder.session(world.now, world.session()).expect("it");
    view.children.iter().map(|child| (child.spi_in, child.spi_out)).collect()
}

fn assert_agreed(world: &World, ue: &Ue) {
    let ours: Vec<_> = ue.children.iter().map(|child| (child.spi_out, child.spi_in)).collect();
    assert_eq!(children(world), ours);
}

#[test]
fn r7296_2_8_the_gateway_rekeys_a_child_before_its_lifetime_ends() {
    let mut world = World::new(hasty());
    let mut ue = world.attach(1, UeConfig::new(1));
    world.installs();
    world.advance(REKEY_CHILD * 9 / 10 - Duration::from_secs(1));
    assert!(world.sent.is_empty(), "not before a tenth of the time is left");
    world.advance(Duration::from_secs(11));
    let request = asked(&mut world, &ue);
    let old = (ue.children[0].spi_out, ue.children[0].spi_in);
    assert_eq!(request.notify(NotifyType::REKEY_SA).and_then(|notify| notify.esp_spi()), Some(old.0));
    // The owner hears of the new SPI before the peer can use it.
    let announced = world.events.iter().find_map(|event| match event {
        Event::Announce { spi_in, .. } => Some(*spi_in),
        _ => None,
    });
    let (response, _) = ue.accept_child(&request);
    world.tell(1, &response);
    let install = world.installs().remove(0);
    assert_eq!(announced, Some(install.spi_in));
    assert_eq!((install.spi_in, install.spi_out), (ue.children[1].spi_out, ue.children[1].spi_in));
    assert_eq!(install.replaces, None, "the downlink moves at once");
    let keys = &ue.children[1].keys;
    assert_eq!(install.keys_in.encr(), keys.initiator.encr());
    assert_eq!(install.keys_out.encr(), keys.responder.encr());
    assert_eq!(install.remote_ts.len(), 1, "as narrow as the old one");
    assert_eq!(confirm_delete(&mut world, &mut ue), old.0);
    assert_agreed(&world, &ue);
    assert_eq!(world.counters().exchanges.children_rekeyed_here, 1);
    let view = world.responder.session(world.now, world.session()).expect("it");
    assert_eq!(view.children[0].rekeys, 1);
}

#[test]
fn r7296_2_8_sessions_that_attached_together_do_not_rekey_together() {
    let mut world = World::new(hasty());
    for number in 1..=20 {
        world.attach(number, UeConfig::new(number.into()));
    }
    let mut per_second = Vec::new();
    for _ in 0..12 {
        world.advance(Duration::from_secs(if per_second.is_empty() { 90 } else { 1 }));
        per_second.push(std::mem::take(&mut world.sent).len());
    }
    assert_eq!(per_second.iter().sum::<usize>(), 20);
    assert!(per_second.iter().all(|count| *count < 10), "{per_second:?}");
}

#[test]
fn r7296_2_8_pfs_as_the_profile_wants_it_and_another_group_when_asked() {
    let mut config = hasty();
    let mut lab = profile("lab", psk());
    lab.rekey_child = REKEY_CHILD;
    lab.dpd = Duration::ZERO;
    lab.esp = vec!["aes128gcm16-x25519-ecp256".parse().expect("a proposal")];
    config.profiles = vec![Arc::new(lab)];
    let mut world = World::new(config);
    let mut ue = world.attach(1, UeConfig { esp: vec!["aes128gcm16-ecp256"], ..UeConfig::new(1) });
    world.installs();
    let request = rekey_due(&mut world, &ue);
    assert!(request.body(PayloadType::KE).is_some());
    answer(&mut world, &mut ue, &request, |builder| {
        builder.notify(NotifyType::INVALID_KE_PAYLOAD, &[0, 19]);
    });
    assert!(world.events.iter().any(|event| matches!(event, Event::Withdraw { .. })));
    let request = asked(&mut world, &ue);
    assert_eq!(request.body(PayloadType::KE).map(|ke| ke[1]), Some(19));
    let (response, _) = ue.accept_child(&request);
    world.tell(1, &response);
    let install = world.installs().remove(0);
    assert_eq!(install.keys_in.encr(), ue.children[1].keys.initiator.encr());
    confirm_delete(&mut world, &mut ue);
    assert_agreed(&world, &ue);
}

#[test]
fn r4303_2_2_a_child_is_rekeyed_before_its_sequence_numbers_end() {
    let mut world = World::new(config());
    let mut ue = world.attach(1, UeConfig::new(1));
    let id = world.session();
    world.responder.handle_sequence_high(world.now, id, ue.children[0].spi_out);
    world.collect();
    let request = asked(&mut world, &ue);
    let (response, _) = ue.accept_child(&request);
    world.tell(1, &response);
    confirm_delete(&mut world, &mut ue);
    assert_agreed(&world, &ue);
}

#[test]
fn r7296_2_25_a_rekey_that_is_put_off_is_tried_again_later_and_later() {
    let mut lab = profile("lab", psk());
    lab.dpd = Duration::ZERO;
    lab.rekey_child = REKEY_CHILD * 10;
    let mut world = World::new(ResponderConfig { profiles: vec![Arc::new(lab)], ..config() });
    let mut ue = world.attach(1, UeConfig::new(1));
    world.advance(REKEY_CHILD * 9);
    while world.sent.is_empty() {
        world.advance(Duration::from_secs(1));
    }
    let mut request = asked(&mut world, &ue);
    let mut pauses = Vec::new();
    for _ in 0..2 {
        answer(&mut world, &mut ue, &request, |builder| {
            builder.notify(NotifyType::TEMPORARY_FAILURE, &[]);
        });
        let start = world.now;
        while world.sent.is_empty() {
            world.advance(Duration::from_millis(500));
        }
        pauses.push((world.now - start).as_secs());
        request = asked(&mut world, &ue);
    }
    assert!((5..=10).contains(&pauses[0]) && (10..=20).contains(&pauses[1]), "{pauses:?}");
    let (response, _) = ue.accept_child(&request);
    world.tell(1, &response);
    confirm_delete(&mut world, &mut ue);
    assert_agreed(&world, &ue);
    assert_eq!(world.counters().exchanges.rekeys_put_off, 2);
}

#[test]
fn r7296_2_25_1_a_child_that_the_peer_has_lost_is_made_anew() {
    let mut world = World::new(hasty());
    let mut ue = world.attach(1, UeConfig::new(1));
    let request = rekey_due(&mut world, &ue);
    let lost = ue.children.remove(0);
    answer(&mut world, &mut ue, &request, |builder| {
        builder.notify(NotifyType::CHILD_SA_NOT_FOUND, &[]);
    });
    let removed = world
        .events
        .iter()
        .any(|event| matches!(event, Event::RemoveChild { spi_in, .. } if *spi_in == lost.spi_out));
    assert!(removed);
    let request = asked(&mut world, &ue);
    assert!(request.notify(NotifyType::REKEY_SA).is_none(), "from scratch");
    let (response, _) = ue.accept_child(&request);
    world.tell(1, &response);
    assert_agreed(&world, &ue);
    assert!(world.sent.is_empty());
}

#[test]
fn r7296_2_25_1_a_child_that_is_deleted_meanwhile_stays_deleted() {
    let mut world = World::new(hasty());
    let mut ue = world.attach(1, UeConfig::new(1));
    let request = rekey_due(&mut world, &ue);
    let (own, theirs) = (ue.children[0].spi_in, ue.children[0].spi_out);
    let delete = ue.informational(|builder| {
        builder.delete_esp(&[own]);
    });
    let response = world.exchange(1, &delete);
    assert_eq!(ue.open(&response).expect("authentic").deleted(), [theirs], "answered as usual");
    ue.children.clear();
    answer(&mut world, &mut ue, &request, |builder| {
        builder.notify(NotifyType::TEMPORARY_FAILURE, &[]);
    });
    world.advance(Duration::from_secs(60));
    assert_eq!((world.sent.len(), children(&world).len()), (0, 0));
    assert_eq!(world.session_count(), 1);
}

/// Both ends rekey the same child; `ours_first` says which new child the UE learns of last. Every seed gives other
/// nonces, so both outcomes come up.
fn children_collide(seed: u64, ours_first: bool) -> bool {
    let mut world = World::seeded(hasty(), seed);
    let mut ue = world.attach(1, UeConfig::new(seed));
    world.installs();
    let theirs = rekey_due(&mut world, &ue);
    let old = ue.children[0].spi_in;
    let ours = ue.create_child(Some(old), false);
    let own_nonce = ue.pending_nonce().expect("asked").to_vec();
    let response = world.exchange(1, &ours);
    let mut lower_theirs = Vec::new();
    if ours_first {
        let (accepted, lower) = ue.accept_child(&theirs);
        world.tell(1, &accepted);
        lower_theirs = lower;
    }
    let answered = ue.on_create_child(&response);
    assert_eq!(answered.error(), None);
    let lower_ours = own_nonce.min(answered.body(PayloadType::NONCE).expect("Nr").to_vec());
    if !ours_first {
        let (accepted, lower) = ue.accept_child(&theirs);
        world.tell(1, &accepted);
        lower_theirs = lower;
    }
    // Two new children, in the order in which the UE learned of them.
    let by_gateway = if ours_first { 1 } else { 2 };
    let gateway_wins = lower_ours < lower_theirs;
    let (own_new, their_new) = (ue.children[3 - by_gateway].spi_in, ue.children[by_gateway].spi_out);
    let old_out = ue.children[0].spi_out;
    // Who made the loser deletes it, the other one deletes the old child.
    let deleted = confirm_delete(&mut world, &mut ue);
    assert_eq!(deleted, if gateway_wins { old_out } else { their_new });
    let mine = if gateway_wins { own_new } else { old };
    let request = ue.informational(|builder| {
        builder.delete_esp(&[mine]);
    });
    world.exchange(1, &request);
    ue.children.retain(|child| child.spi_in != mine);
    assert_eq!(ue.children.len(), 1);
    assert_agreed(&world, &ue);
    world.advance(Duration::from_secs(70));
    assert!(world.sent.is_empty(), "nothing is left to be deleted");
    assert_eq!(world.counters().exchanges.rekey_collisions, 1);
    gateway_wins
}

#[test]
fn r7296_2_8_1_of_two_child_rekeys_the_one_with_the_lowest_nonce_goes() {
    for ours_first in [true, false] {
        let won = (1..=16).filter(|seed| children_collide(*seed, ours_first)).count();
        assert!((1..16).contains(&won), "both outcomes were tried: {won}");
    }
}

#[test]
fn r9329_1_2_1_the_gateway_rekeys_the_ike_sa_and_stays_the_tcp_responder() {
    let mut world = World::new(hasty_ike());
    let mut ue = world.attach(1, UeConfig::new(1));
    let id = world.session();
    for round in 1..=3 {
        let request = rekey_due(&mut world, &ue);
        let (response, sa, _) = ue.accept_ike(&request);
        world.tell(1, &response);
        ue.adopt(sa);
        let delete = asked(&mut world, &ue);
        assert_eq!(delete.body(PayloadType::DELETE), Some(&[1, 0, 0, 0][..]));
        assert_eq!(delete.header.spi_i, ue.old.as_ref().expect("replaced").spi_i, "of the old one");
        answer(&mut world, &mut ue, &delete, |_| {});
        ue.old = None;
        let view = world.responder.session(world.now, id).expect("the session stays");
        assert_eq!((view.ike.rekeys, view.children.len()), (round, 1));
        assert_eq!(view.ike.spi_i, ue.sa.as_ref().expect("it").spi_i, "the gateway is the initiator now");
        // The UE asks on the new SA, with Message IDs from 0 and without the initiator's flag.
        let request = ue.informational(|_| {});
        let header = IkeHeader::decode(&request).expect("ours");
        assert!(!header.flags.is_initiator() && header.message_id.0 == 0);
        let response = world.exchange(1, &request);
        assert!(ue.open(&response).expect("authentic").header.flags.is_initiator());
    }
    // The UE comes back over another connection and goes on.
    let request = ue.create_child(Some(ue.children[0].spi_in), true);
    let response = world.exchange(2, &request);
    assert_eq!(ue.on_create_child(&response).error(), None);
    assert_eq!(world.counters().exchanges.ike_rekeyed_here, 3);
}

#[test]
fn r9329_6_2_1_a_rekey_request_is_sent_once_on_a_connection_and_again_on_the_next() {
    let mut world = World::new(hasty());
    let mut ue = world.attach(1, UeConfig::new(1));
    world.advance(REKEY_CHILD);
    let first = world.take_sent(1);
    assert_eq!(first.len(), 1);
    world.advance(Duration::from_secs(20));
    assert!(world.take_sent(1).is_empty(), "not again on the same connection");
    world.responder.handle_conn_closed(crate::world::conn(1));
    let probe = ue.informational(|_| {});
    let sent = world.deliver(2, &probe);
    assert!(sent.contains(&first[0]), "9329-6.2-2: the identical request");
    let request = ue.open(&first[0]).expect("authentic");
    let (response, _) = ue.accept_child(&request);
    world.tell(2, &response);
    assert_eq!(children(&world).len(), 2);
}

/// A UE at `place` has agreed to a new IKE SA, its answer is lost, and it asks something there from `elsewhere`.
fn asks_on_what_is_offered(place: Place, elsewhere: Place) -> (World, usize) {
    let mut config = hasty_ike();
    let lab = Arc::get_mut(&mut config.profiles[0]).expect("ours alone");
    lab.transports = vec![Transport::Tcp, Transport::Udp];
    let mut world = World::new(config);
    let mut ue = Ue::new(UeConfig::new(1));
    let exchange = |world: &mut World, request: Vec<u8>| {
        let _ = world.arrive(place, request);
        world.sent.pop().expect("an answer").message.to_vec()
    };
    let request = ue.init();
    ue.on_init(&exchange(&mut world, request)).expect("accepted");
    let request = ue.auth();
    assert_eq!(ue.on_auth(&exchange(&mut world, request)).error(), None);
    world.advance(REKEY_CHILD);
    let asked = ue.open(&world.sent[0].message).expect("authentic");
    let (_, sa, _) = ue.accept_ike(&asked);
    ue.adopt(sa);
    world.sent.clear();
    let request = ue.informational(|_| {});
    let _ = world.arrive(elsewhere, request);
    assert!(world.sent.iter().all(|sent| sent.path == elsewhere.path()));
    let sent = world.sent.len();
    (world, sent)
}

#[test]
fn r7296_2_1_an_offer_whose_answer_was_lost_is_repeated_over_udp_when_the_peer_uses_it() {
    let (world, sent) = asks_on_what_is_offered(Place::Udp(40_000), Place::Udp(40_000));
    assert_eq!(sent, 1, "at once, and not when its time comes");
    assert_eq!((world.verdict, world.counters().exchanges.requests_resent), (Verdict::Good, 1));
}

#[test]
fn r9329_5_3_an_offer_made_over_tcp_is_not_repeated_over_udp() {
    let (world, sent) = asks_on_what_is_offered(Place::Tcp(1), Place::Udp(40_000));
    assert_eq!((sent, world.verdict), (0, Verdict::Bad));
    assert_eq!(world.counters().drops.tcp_bound, 1);
    let (world, sent) = asks_on_what_is_offered(Place::Tcp(1), Place::Tcp(2));
    assert_eq!((sent, world.verdict), (1, Verdict::Good));
}

#[test]
fn d7_a_peer_without_a_connection_is_not_asked_until_it_is_back() {
    let mut world = World::new(hasty());
    let mut ue = world.attach(1, UeConfig::new(1));
    world.responder.handle_conn_closed(crate::world::conn(1));
    world.advance(REKEY_CHILD + Duration::from_secs(10));
    assert!(world.sent.is_empty());
    assert_eq!(world.session_count(), 1);
    let probe = ue.informational(|_| {});
    let sent = world.deliver(2, &probe);
    let rekey = sent.iter().filter_map(|message| ue.open(message));
    assert!(rekey.map(|it| it.header.exchange).any(|exchange| exchange == ExchangeType::CREATE_CHILD_SA));
}

#[test]
fn r7296_2_25_2_what_may_not_cross_an_ike_rekey_of_the_gateway() {
    let mut world = World::new(hasty_ike());
    let mut ue = world.attach(1, UeConfig::new(1));
    let rekey = rekey_due(&mut world, &ue);
    for rekeyed in [None, Some(ue.children[0].spi_in)] {
        let request = ue.create_child(rekeyed, false);
        let response = world.exchange(1, &request);
        assert_eq!(ue.on_create_child(&response).error(), Some(NotifyType::TEMPORARY_FAILURE));
    }
    // A Delete is answered as usual.
    let own = ue.children[0].spi_in;
    let request = ue.informational(|builder| {
        builder.delete_esp(&[own]);
    });
    let response = world.exchange(1, &request);
    assert_eq!(ue.open(&response).expect("authentic").deleted(), [ue.children[0].spi_out]);
    let (response, sa, _) = ue.accept_ike(&rekey);
    world.tell(1, &response);
    ue.adopt(sa);
    assert_eq!(world.counters().exchanges.ike_rekeyed_here, 1);
}

#[test]
fn r7296_2_25_2_no_ike_rekey_while_the_gateway_changes_a_child() {
    let mut world = World::new(hasty());
    let mut ue = world.attach(1, UeConfig::new(1));
    rekey_due(&mut world, &ue);
    let request = ue.rekey_ike();
    let response = world.exchange(1, &request);
    assert_eq!(ue.on_rekey_ike(&response).error(), Some(NotifyType::TEMPORARY_FAILURE));
}

/// Both ends rekey the IKE SA at once.
fn ike_sas_collide(seed: u64, theirs_first: bool) -> bool {
    let mut world = World::seeded(hasty_ike(), seed);
    let mut ue = world.attach(1, UeConfig::new(seed));
    let theirs = rekey_due(&mut world, &ue);
    let ours = ue.rekey_ike();
    let own_nonce = ue.pending_nonce().expect("asked").to_vec();
    let response = world.exchange(1, &ours);
    let (accepted, sa, lower_theirs) = ue.accept_ike(&theirs);
    if theirs_first {
        world.tell(1, &accepted);
    }
    let answered = ue.on_rekey_ike(&response);
    assert_eq!(answered.error(), None);
    ue.spare = Some(sa);
    if !theirs_first {
        // The UE uses its own new SA meanwhile; that decides nothing.
        let request = ue.informational(|_| {});
        world.exchange(1, &request);
        world.tell(1, &accepted);
    }
    let lower_ours = own_nonce.min(answered.body(PayloadType::NONCE).expect("Nr").to_vec());
    let gateway_wins = lower_ours < lower_theirs;
    let delete = asked(&mut world, &ue);
    assert_eq!(delete.body(PayloadType::DELETE), Some(&[1, 0, 0, 0][..]));
    answer(&mut world, &mut ue, &delete, |_| {});
    let spare = ue.spare.as_ref().expect("made").spi_i;
    let old = ue.old.as_ref().expect("replaced").spi_i;
    assert_eq!(delete.header.spi_i, if gateway_wins { old } else { spare });
    if gateway_wins {
        // The UE deletes what it made and goes over.
        let request = ue.informational(|builder| {
            builder.delete_ike();
        });
        world.exchange(1, &request);
        ue.sa = ue.spare.take();
    } else {
        let request = ue.informational_on_old(|builder| {
            builder.delete_ike();
        });
        world.exchange(1, &request);
        ue.spare = None;
    }
    ue.old = None;
    let request = ue.create_child(Some(ue.children[0].spi_in), false);
    let response = world.exchange(1, &request);
    assert_eq!(ue.on_create_child(&response).error(), None, "the survivor has the children");
    let view = world.responder.session(world.now, world.session()).expect("it");
    assert_eq!(view.ike.spi_r, ue.sa.as_ref().expect("it").spi_r);
    assert_eq!(world.counters().exchanges.rekey_collisions, 1);
    gateway_wins
}

#[test]
fn r7296_2_8_2_of_two_ike_rekeys_the_one_with_the_lowest_nonce_goes() {
    for theirs_first in [true, false] {
        let won = (1..=16).filter(|seed| ike_sas_collide(*seed, theirs_first)).count();
        assert!((1..16).contains(&won), "both outcomes were tried: {won}");
    }
}

#[test]
fn r7296_2_25_2_a_peer_that_never_saw_our_rekey_keeps_its_own() {
    let mut world = World::new(hasty_ike());
    let mut ue = world.attach(1, UeConfig::new(1));
    rekey_due(&mut world, &ue);
    let request = ue.rekey_ike();
    let response = world.exchange(1, &request);
    assert_eq!(ue.on_rekey_ike(&response).error(), None);
    let delete = ue.informational_on_old(|builder| {
        builder.delete_ike();
    });
    world.exchange(1, &delete);
    world.advance(Duration::from_secs(61));
    assert_eq!(world.session_count(), 1, "our request is forgotten with the old IKE SA");
    let request = ue.informational(|_| {});
    world.exchange(1, &request);
}

#[test]
fn an_answer_that_was_not_offered_ends_the_session() {
    let mut world = World::new(hasty());
    let mut ue = world.attach(1, UeConfig::new(1));
    let request = rekey_due(&mut world, &ue);
    answer(&mut world, &mut ue, &request, |builder| {
        builder.nonce(&[7; 32]);
    });
    assert_eq!(world.counters().drops.bad_answer, 1);
    let delete = asked(&mut world, &ue);
    assert_eq!(delete.body(PayloadType::DELETE), Some(&[1, 0, 0, 0][..]));
}
