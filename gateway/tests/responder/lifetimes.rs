//! Liveness, lifetimes, administration.

use std::sync::Arc;
use std::time::Duration;

use codec::ike::{ExchangeType, NotifyType, PayloadType};
use gateway::control::responder::{Event, ResponderConfig};
use gateway::types::ConnId;

use crate::ue::{Ue, UeConfig};
use crate::world::{World, config, conn, prefix, profile, psk};

/// Refuses the rekey that the gateway has asked for on connection `number`.
fn refuse_rekey(world: &mut World, number: u32, ue: &mut Ue) {
    let request = world.take_sent(number).pop().expect("a rekey");
    let decoded = ue.open(&request).expect("authentic");
    assert_eq!(decoded.header.exchange, ExchangeType::CREATE_CHILD_SA);
    let response = ue.respond(&decoded, |builder| {
        builder.notify(NotifyType::NO_ADDITIONAL_SAS, &[]);
    });
    world.deliver(number, &response);
}

/// Answers every request of the gateway on connection `number`.
fn answer_all(world: &mut World, number: u32, ue: &mut Ue) -> usize {
    let requests = world.take_sent(number);
    for request in &requests {
        let decoded = ue.open(request).expect("authentic");
        let deleted = decoded.deleted();
        let ours: Vec<_> = ue
            .children
            .iter()
            .filter(|child| deleted.contains(&child.spi_out))
            .map(|child| child.spi_in)
            .collect();
        ue.children.retain(|child| !deleted.contains(&child.spi_out));
        let response = ue.respond(&decoded, |builder| {
            if !ours.is_empty() {
                builder.delete_esp(&ours);
            }
        });
        world.deliver(number, &response);
    }
    requests.len()
}

#[test]
fn r7296_2_4_liveness_is_checked_after_silence_only() {
    let mut world = World::new(config());
    let mut ue = world.attach(1, UeConfig::new(1));
    let id = world.session();
    for _ in 0..10 {
        world.advance(Duration::from_secs(50));
        world.responder.handle_esp_activity(world.now, id);
    }
    assert!(world.sent.is_empty(), "ESP is a sign of life");
    world.advance(Duration::from_secs(60));
    assert_eq!(answer_all(&mut world, 1, &mut ue), 1);
    world.advance(Duration::from_secs(59));
    assert!(world.sent.is_empty());
    // 9329-6.7-2: a connection that stays open is no sign of life.
    world.advance(Duration::from_secs(1 + 30));
    assert_eq!(world.take_sent(1).len(), 1, "9329-6.2-1: sent once");
    assert_eq!(world.session_count(), 0);
    assert_eq!(world.counters().exchanges.peer_dead, 1);
    assert!(matches!(world.events.last(), Some(Event::CloseSession { .. })));
}

#[test]
fn no_liveness_checks_when_they_are_off() {
    let mut lab = profile("lab", psk());
    lab.dpd = Duration::ZERO;
    let mut world = World::new(ResponderConfig { profiles: vec![Arc::new(lab)], ..config() });
    world.attach(1, UeConfig::new(1));
    world.advance(Duration::from_secs(7200));
    assert!(world.sent.is_empty());
    assert_eq!(world.session_count(), 1);
}

#[test]
fn r7296_2_8_hard_lifetimes_end_what_the_peer_does_not_rekey() {
    let mut lab = profile("lab", psk());
    lab.dpd = Duration::ZERO;
    lab.rekey_child = Duration::from_secs(100);
    lab.rekey_ike = Duration::from_secs(1000);
    let mut world = World::new(ResponderConfig { profiles: vec![Arc::new(lab)], ..config() });
    let mut ue = world.attach(1, UeConfig::new(1));
    world.advance(Duration::from_secs(100));
    refuse_rekey(&mut world, 1, &mut ue);
    world.advance(Duration::from_secs(19));
    assert!(world.sent.is_empty());
    world.advance(Duration::from_secs(1));
    assert_eq!(answer_all(&mut world, 1, &mut ue), 1);
    assert!(ue.children.is_empty());
    assert!(world.events.iter().any(|event| matches!(event, Event::RemoveChild { .. })));
    world.advance(Duration::from_secs(880));
    refuse_rekey(&mut world, 1, &mut ue);
    world.advance(Duration::from_secs(199));
    assert_eq!((world.session_count(), world.sent.len()), (1, 0));
    world.advance(Duration::from_secs(1));
    let request = world.take_sent(1).remove(0);
    let decoded = ue.open(&request).expect("authentic");
    assert_eq!(decoded.body(PayloadType::DELETE), Some(&[1, 0, 0, 0][..]));
    let response = ue.respond(&decoded, |_| {});
    world.deliver(1, &response);
    assert_eq!(world.session_count(), 0);
    assert_eq!(world.counters().exchanges.expired, 1);
}

#[test]
fn a_replaced_child_is_deleted_when_the_peer_does_not() {
    let mut world = World::new(config());
    let mut ue = world.attach(1, UeConfig::new(1));
    let request = ue.create_child(Some(ue.children[0].spi_in), false);
    let response = world.exchange(1, &request);
    ue.on_create_child(&response);
    let old = ue.children[0].spi_out;
    world.advance(Duration::from_secs(60));
    let sent = world.take_sent(1);
    assert_eq!(ue.open(&sent[0]).expect("authentic").deleted(), [old]);
}

#[test]
fn r7296_1_4_1_crossing_deletes_of_a_child() {
    let mut world = World::new(config());
    let mut ue = world.attach(1, UeConfig::new(1));
    let id = world.session();
    let (own, theirs) = (ue.children[0].spi_in, ue.children[0].spi_out);
    world.responder.handle_sequence_high(world.now, id, theirs);
    world.advance(Duration::from_millis(5));
    refuse_rekey(&mut world, 1, &mut ue);
    world.advance(Duration::from_secs(60));
    let ours = world.take_sent(1).remove(0);
    let asked = ue.open(&ours).expect("authentic");
    assert_eq!(asked.deleted(), [theirs]);
    // 2.25.1: and it cannot be rekeyed meanwhile.
    let request = ue.create_child(Some(own), false);
    let response = world.exchange(1, &request);
    assert_eq!(ue.on_create_child(&response).error(), Some(NotifyType::TEMPORARY_FAILURE));
    let request = ue.informational(|builder| {
        builder.delete_esp(&[own]);
    });
    let response = world.exchange(1, &request);
    assert!(ue.open(&response).expect("authentic").payloads.is_empty(), "no Delete in the answer");
    let response = ue.respond(&asked, |_| {});
    world.deliver(1, &response);
    let removed = world.events.iter().filter(|event| matches!(event, Event::RemoveChild { .. })).count();
    assert_eq!((removed, world.session_count()), (1, 1));
}

#[test]
fn r9329_6_1_2_terminate_sends_a_delete_and_waits_for_the_answer() {
    let mut world = World::new(config());
    let mut ue = world.attach(1, UeConfig::new(1));
    let id = world.session();
    assert!(world.responder.terminate(world.now, id));
    world.collect();
    let request = world.take_sent(1).remove(0);
    // 2.25.2: no new SAs on an IKE SA that is being closed.
    let create = ue.create_child(None, false);
    let response = world.exchange(1, &create);
    assert_eq!(ue.on_create_child(&response).error(), Some(NotifyType::TEMPORARY_FAILURE));
    let rekey = ue.rekey_ike();
    let response = world.exchange(1, &rekey);
    assert_eq!(ue.on_rekey_ike(&response).error(), Some(NotifyType::TEMPORARY_FAILURE));
    assert_eq!(world.responder.session(world.now, id).expect("it").state, "closing");
    let decoded = ue.open(&request).expect("authentic");
    assert_eq!(decoded.body(PayloadType::DELETE), Some(&[1, 0, 0, 0][..]));
    let response = ue.respond(&decoded, |_| {});
    world.deliver(1, &response);
    assert_eq!(world.session_count(), 0);
    assert!(!world.responder.terminate(world.now, id));
    assert_eq!(world.counters().exchanges.peer_dead, 0);
}

#[test]
fn terminate_does_not_wait_for_a_mute_peer() {
    let mut world = World::new(config());
    world.attach(1, UeConfig::new(1));
    world.advance(Duration::from_secs(60));
    let id = world.session();
    assert!(world.responder.terminate(world.now, id));
    world.collect();
    assert_eq!(world.take_sent(1).len(), 1, "the window is taken by the liveness check");
    world.advance(Duration::from_secs(5));
    assert_eq!(world.session_count(), 0);
}

#[test]
fn drain_deletes_everything_and_takes_nothing_new() {
    let mut world = World::new(config());
    for number in 1..=3 {
        world.attach(number, UeConfig::new(number.into()));
    }
    let mut late = Ue::new(UeConfig::new(8));
    world.init(8, &mut late);
    world.responder.drain(world.now, world.now + Duration::from_secs(4));
    world.collect();
    assert_eq!(world.sent.len(), 3);
    let request = Ue::new(UeConfig::new(9)).init();
    assert!(world.deliver(9, &request).is_empty());
    assert_eq!(world.counters().drops.draining, 1);
    let request = late.auth();
    let response = world.exchange(8, &request);
    assert_eq!(late.on_auth(&response).error(), Some(NotifyType::TEMPORARY_FAILURE));
    world.advance(Duration::from_secs(5));
    assert_eq!(world.session_count(), 0);
}

#[test]
fn reload_keeps_sessions_and_their_addresses() {
    let mut world = World::new(config());
    let mut ue = world.attach(1, UeConfig::new(1));
    let mut config = config();
    config.profiles = vec![Arc::new(profile("other", psk()))];
    config.pools[0].prefixes = vec![prefix("10.64.0.0/29")];
    world.responder.set_config(world.now, Arc::new(config));
    let other = world.attach(2, UeConfig::new(2));
    assert_ne!(other.addresses, ue.addresses);
    let profiles: Vec<_> = world.responder.sessions(world.now).map(|view| view.profile.to_string()).collect();
    assert!(profiles.contains(&"lab".to_string()) && profiles.contains(&"other".to_string()));
    let request = ue.informational(|builder| {
        builder.delete_ike();
    });
    world.exchange(1, &request);
    assert_eq!(world.counters().gauges.addresses, 1);
}

#[test]
fn the_owner_is_the_worker_of_the_first_connection_and_names_the_spis() {
    let mut world = World::new(config());
    let mut ue = world.attach(3, UeConfig::new(1));
    let id = world.session();
    assert_eq!(world.responder.owner(id), Some(conn(3).worker));
    // A child made over a connection of another worker belongs to the owner all the same.
    let request = ue.create_child(None, false);
    let mut copy = request.clone();
    let elsewhere = ConnId { worker: gateway::types::WorkerId(5), slot: 9, generation: 9 };
    let _ = world.responder.handle_message(world.now, elsewhere, &crate::world::path(3), &mut copy);
    world.collect();
    let transmit = world.sent.pop().expect("a response");
    assert!(transmit.after_install);
    assert_eq!((transmit.conn, transmit.owner), (elsewhere, conn(3).worker));
    let install = world.installs().pop().expect("a child");
    assert_eq!(install.worker, conn(3).worker);
    assert_eq!(gateway::types::WorkerId::of_spi(install.spi_in), conn(3).worker);
}
