//! Rekeying of the IKE SA.

use codec::crypto::{IkeProposal, KeyExchange};
use codec::ike::payload::KeView;
use codec::ike::{ExchangeType, KeGroup, NotifyType};

use crate::ue::{UeConfig, offer};
use crate::world::{World, config};

#[test]
fn r7296_2_8_ike_rekey_inherits_children_and_starts_message_ids_at_0() {
    let mut world = World::new(config());
    let mut ue = world.attach(1, UeConfig::new(1));
    let id = world.session();
    for round in 1..=3 {
        let request = ue.rekey_ike();
        let response = world.exchange(1, &request);
        assert_eq!(ue.on_rekey_ike(&response).error(), None);
        // New SA first, as libreswan does, then the Delete on the old SPIs.
        let request = ue.informational(|_| {});
        let response = world.exchange(1, &request);
        assert_eq!(ue.open(&response).expect("authentic").header.message_id.0, 0);
        let request = ue.informational_on_old(|builder| {
            builder.delete_ike();
        });
        let response = world.exchange(1, &request);
        assert!(ue.open(&response).expect("authentic").payloads.is_empty());
        assert_eq!(world.session(), id, "the session stays");
        let view = world.responder.session(world.now, id).expect("it");
        assert_eq!((view.ike.rekeys, view.children.len()), (round, 1));
        assert_eq!(view.ike.spi_r, ue.sa.as_ref().expect("it").spi_r);
    }
    // The children of the first IKE SA are rekeyed and deleted on the last.
    let request = ue.create_child(Some(ue.children[0].spi_in), true);
    let response = world.exchange(1, &request);
    assert_eq!(ue.on_create_child(&response).error(), None);
    let installs = world.installs();
    assert_eq!(installs[1].keys_in.encr(), ue.children[1].keys.initiator.encr());
    let request = ue.informational(|builder| {
        builder.delete_ike();
    });
    world.exchange(1, &request);
    assert_eq!(world.session_count(), 0);
}

#[test]
fn r7296_2_25_2_the_replaced_ike_sa_makes_no_more_sas() {
    let mut world = World::new(config());
    let mut ue = world.attach(1, UeConfig::new(1));
    let request = ue.rekey_ike();
    let response = world.exchange(1, &request);
    ue.on_rekey_ike(&response);
    std::mem::swap(&mut ue.sa, &mut ue.old);
    let request = ue.create_child(None, false);
    let response = world.exchange(1, &request);
    assert_eq!(ue.on_create_child(&response).error(), Some(NotifyType::TEMPORARY_FAILURE));
    // If the peer never deletes it, it goes by itself and the session stays.
    world.advance(std::time::Duration::from_secs(59));
    let request = ue.informational(|_| {});
    assert_eq!(world.deliver(1, &request).len(), 1);
    world.advance(std::time::Duration::from_secs(2));
    let request = ue.informational(|_| {});
    assert_eq!(crate::world::clear_error(&world.exchange(1, &request)), Some(NotifyType::INVALID_IKE_SPI));
    assert_eq!(world.session_count(), 1);
}

#[test]
fn r7296_1_3_2_ike_rekey_needs_a_key_exchange_in_the_right_group() {
    let mut world = World::new(config());
    let mut ue = world.attach(1, UeConfig::new(1));
    let proposal: IkeProposal = "aes128gcm16-prfsha256-x25519".parse().expect("a proposal");
    let transforms = proposal.transforms();
    let nonce = ue.nonce();
    let wrong = KeyExchange::generate(KeGroup::ECP_256, &mut ue.random).expect("a key");
    for ke in [None, Some(&wrong)] {
        let request = ue.request(ExchangeType::CREATE_CHILD_SA, |builder| {
            builder.sa(&[offer(1, &[7; 8], &transforms)]).nonce(&nonce);
            if let Some(ke) = ke {
                builder.ke(&KeView { group: ke.group(), data: ke.public() });
            }
        });
        let response = world.exchange(1, &request);
        let decoded = ue.open(&response).expect("authentic");
        let notify = decoded.notify(NotifyType::INVALID_KE_PAYLOAD).expect("refused");
        assert_eq!(notify.ke_group(), Some(KeGroup::CURVE25519));
    }
    let weak: IkeProposal = "aes256-sha1-modp2048".parse().expect("a proposal");
    let transforms = weak.transforms();
    let request = ue.request(ExchangeType::CREATE_CHILD_SA, |builder| {
        builder.sa(&[offer(1, &[7; 8], &transforms)]).nonce(&nonce);
    });
    let response = world.exchange(1, &request);
    assert_eq!(ue.open(&response).expect("authentic").error(), Some(NotifyType::NO_PROPOSAL_CHOSEN));
    assert_eq!(world.session_count(), 1);
}

#[test]
fn r6989_2_5_a_forbidden_public_value_ends_the_ike_sa() {
    let mut world = World::new(config());
    let mut ue = world.attach(1, UeConfig::new(1));
    let proposal: IkeProposal = "aes128gcm16-prfsha256-x25519".parse().expect("a proposal");
    let transforms = proposal.transforms();
    let nonce = ue.nonce();
    let request = ue.request(ExchangeType::CREATE_CHILD_SA, |builder| {
        builder.sa(&[offer(1, &[7; 8], &transforms)]).nonce(&nonce);
        builder.ke(&KeView { group: KeGroup::CURVE25519, data: &[0; 32] });
    });
    let response = world.exchange(1, &request);
    assert_eq!(ue.open(&response).expect("authentic").error(), Some(NotifyType::INVALID_SYNTAX));
    assert_eq!(world.session_count(), 0);
}
