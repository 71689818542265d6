//! CREATE_CHILD_SA for Child SAs, and their deletion.

use std::sync::Arc;

use codec::esp::EspSpi;
use codec::ike::payload::{Proposal, TrafficSelector, Transform};
use codec::ike::{IntegId, NotifyType, PayloadType, ProtocolId, TransformType};
use gateway::control::responder::{Event, Limits, ResponderConfig};

use crate::ue::{Ue, UeConfig};
use crate::world::{World, config, profile, psk};

#[test]
fn r7296_1_3_1_additional_child_sas_with_and_without_pfs() {
    let mut world = World::new(config());
    let mut ue = world.attach(1, UeConfig::new(1));
    for pfs in [false, true] {
        let request = ue.create_child(None, pfs);
        let response = world.exchange(1, &request);
        let decoded = ue.on_create_child(&response);
        assert_eq!(decoded.error(), None);
        assert_eq!(decoded.body(PayloadType::KE).is_some(), pfs);
    }
    let installs = world.installs();
    assert_eq!(installs.len(), 3);
    for (install, child) in installs.iter().zip(&ue.children) {
        assert_eq!((install.spi_in, install.spi_out), (child.spi_out, child.spi_in));
        assert_eq!(install.keys_in.encr(), child.keys.initiator.encr());
        assert_eq!(install.replaces, None);
        assert_eq!(gateway::types::WorkerId::of_spi(install.spi_in), install.worker);
    }
}

#[test]
fn r7296_1_3_3_child_rekey_names_the_spi_its_sender_expects() {
    for pfs in [false, true] {
        let mut world = World::new(config());
        let mut ue = world.attach(1, UeConfig::new(1));
        let old = world.installs().remove(0);
        let request = ue.create_child(Some(ue.children[0].spi_in), pfs);
        let response = world.exchange(1, &request);
        assert_eq!(ue.on_create_child(&response).error(), None);
        let new = world.installs().remove(0);
        assert_eq!(new.replaces, Some(old.spi_in));
        assert_eq!(new.keys_out.encr(), ue.children[1].keys.responder.encr());
        assert_eq!((&new.local_ts, &new.remote_ts), (&old.local_ts, &old.remote_ts), "2.9: not narrower");
        // The peer deletes the old pair; the answer names our SPI of it.
        let deleted = ue.children[0].spi_in;
        let request = ue.informational(|builder| {
            builder.delete_esp(&[deleted]);
        });
        let response = world.exchange(1, &request);
        assert_eq!(ue.open(&response).expect("authentic").deleted(), [old.spi_in]);
        assert!(
            world
                .events
                .iter()
                .any(|event| matches!(event, Event::RemoveChild { spi_in, .. } if *spi_in == old.spi_in))
        );
        let view = world.responder.sessions(world.now).next().expect("a session");
        assert_eq!((view.children.len(), view.children[0].rekeys), (1, 1));
    }
}

#[test]
fn r7296_2_25_unknown_and_replaced_children() {
    let mut world = World::new(config());
    let mut ue = world.attach(1, UeConfig::new(1));
    let request = ue.create_child(Some(EspSpi(0x7777_7777)), false);
    let response = world.exchange(1, &request);
    let decoded = ue.on_create_child(&response);
    let notify = decoded.notify(NotifyType::CHILD_SA_NOT_FOUND).expect("refused");
    assert_eq!(notify.esp_spi(), Some(EspSpi(0x7777_7777)));
    // Our own SPI of the pair is not the one to name.
    let request = ue.create_child(Some(ue.children[0].spi_out), false);
    let response = world.exchange(1, &request);
    assert_eq!(ue.on_create_child(&response).error(), Some(NotifyType::CHILD_SA_NOT_FOUND));
    let first = ue.children[0].spi_in;
    let request = ue.create_child(Some(first), false);
    let response = world.exchange(1, &request);
    assert_eq!(ue.on_create_child(&response).error(), None);
    let request = ue.create_child(Some(first), false);
    let response = world.exchange(1, &request);
    assert_eq!(ue.on_create_child(&response).error(), Some(NotifyType::TEMPORARY_FAILURE));
}

#[test]
fn r7296_1_3_1_pfs_is_required_where_the_proposal_names_a_group() {
    let mut strict = profile("strict", psk());
    strict.esp = vec!["aes128gcm16-x25519".parse().expect("a proposal")];
    let mut world = World::new(ResponderConfig { profiles: vec![Arc::new(strict)], ..config() });
    let mut ue = world.attach(1, UeConfig::new(1));
    let request = ue.create_child(None, false);
    let response = world.exchange(1, &request);
    assert_eq!(ue.on_create_child(&response).error(), Some(NotifyType::NO_PROPOSAL_CHOSEN));
    let request = ue.create_child(None, true);
    let response = world.exchange(1, &request);
    assert_eq!(ue.on_create_child(&response).error(), None);
}

#[test]
fn r7296_2_25_no_additional_sas_beyond_the_limit() {
    let limits = Limits { children_max: 2, ..Limits::default() };
    let mut world = World::new(ResponderConfig { limits, ..config() });
    let mut ue = world.attach(1, UeConfig::new(1));
    let request = ue.create_child(None, false);
    let response = world.exchange(1, &request);
    assert_eq!(ue.on_create_child(&response).error(), None);
    let request = ue.create_child(None, false);
    let response = world.exchange(1, &request);
    assert_eq!(ue.on_create_child(&response).error(), Some(NotifyType::NO_ADDITIONAL_SAS));
    // A peer that rekeys and never deletes runs into a bound as well.
    let mut refused = 0;
    for _ in 0..10 {
        let newest = ue.children.last().expect("some").spi_in;
        let request = ue.create_child(Some(newest), false);
        let response = world.exchange(1, &request);
        refused += usize::from(ue.on_create_child(&response).error().is_some());
    }
    assert!(refused >= 8);
    assert!(world.counters().gauges.children <= 4);
}

#[test]
fn r7296_1_4_1_unknown_spis_in_a_delete_are_ignored() {
    let mut world = World::new(config());
    let mut ue = world.attach(1, UeConfig::new(1));
    let own = ue.children[0].spi_in;
    let request = ue.informational(|builder| {
        builder.delete_esp(&[EspSpi(1), own, own, EspSpi(0xffff_ffff)]);
    });
    let response = world.exchange(1, &request);
    assert_eq!(ue.open(&response).expect("authentic").deleted(), [ue.children[0].spi_out]);
    assert_eq!((world.session_count(), world.counters().gauges.children), (1, 0));
    let request = ue.informational(|builder| {
        builder.delete_esp(&[own]);
    });
    let response = world.exchange(1, &request);
    assert!(ue.open(&response).expect("authentic").payloads.is_empty());
}

#[test]
fn r7296_1_4_1_deleting_the_ike_sa_deletes_everything() {
    let mut world = World::new(config());
    let mut ue = world.attach(1, UeConfig::new(1));
    let request = ue.informational(|builder| {
        builder.delete_ike();
    });
    let response = world.exchange(1, &request);
    assert!(ue.open(&response).expect("authentic").payloads.is_empty());
    assert!(matches!(world.events.last(), Some(Event::CloseSession { .. })));
    let gauges = world.counters().gauges;
    assert_eq!((gauges.sessions, gauges.children, gauges.addresses), (0, 0, 0));
    // r7296_2_1: the response is repeated on another connection, where the peer looks for it.
    assert_eq!(world.exchange(2, &request), response);
}

#[test]
fn r7296_3_10_1_unknown_notifications_are_ignored() {
    let mut world = World::new(config());
    let mut ue = world.attach(1, UeConfig::new(1));
    let request = ue.informational(|builder| {
        builder.notify(NotifyType(40_960), &[1]);
        builder.notify(NotifyType(8_191), &[2]);
        builder.payload(PayloadType(240), |out| out.push(0));
    });
    let response = world.exchange(1, &request);
    assert!(ue.open(&response).expect("authentic").payloads.is_empty());
    assert_eq!(world.session_count(), 1);
}

#[test]
fn r9329_3_2_2_ah_is_no_protocol_of_a_child_sa() {
    let mut world = World::new(config());
    let mut ue = Ue::new(UeConfig { esp: Vec::new(), ..UeConfig::new(1) });
    world.init(1, &mut ue);
    let transforms = [Transform::new(TransformType::INTEG, IntegId::HMAC_SHA2_256_128.0)];
    let offer = Proposal {
        number: 1,
        protocol: ProtocolId::AH,
        spi: &[0x11, 0x22, 0x33, 0x44],
        transforms: &transforms,
    };
    let request = ue.auth_with(|builder| {
        builder.sa(&[offer]).ts_i(&[TrafficSelector::ANY_IPV4]).ts_r(&[TrafficSelector::ANY_IPV4]);
    });
    let response = world.exchange(1, &request);
    let answer = ue.open(&response).expect("authentic");
    assert_eq!(answer.error(), Some(NotifyType::NO_PROPOSAL_CHOSEN));
    assert!(answer.body(PayloadType::AUTH).is_some(), "the IKE SA is up all the same");
    assert!(world.installs().is_empty());
    let view = world.responder.session(world.now, world.session()).expect("it");
    assert!(view.children.is_empty());
}
