//! What phones are told beside RFC 7296 (3GPP TS 24.302): errors, device identity, P-CSCFs, slices, one session per APN.

use std::sync::Arc;
use std::time::Duration;

use codec::ike::payload::ConfigView;
use codec::ike::{CfgAttrType, CfgType, ExchangeType, IdType, NotifyType, PayloadType};
use gateway::control::responder::{
    AaaOrder, Accepted, AuthKind, DeviceIdentity, EapMethod, EapPolicy, Handset, Profile, RejectCause,
    Reselection,
};
use gateway::types::SessionId;

use crate::eap::{FAILURE, RESPONSE, accepted, config_with, go_on, phone, policy, world};
use crate::ue::{Ue, UeConfig};
use crate::world::World;

#[test]
fn ts24302_8_1_2_2_causes_are_told_to_phones_in_their_terms() {
    for (cause, kind) in [
        (RejectCause::AuthenticationFailed, NotifyType::AUTHENTICATION_FAILED),
        (RejectCause::UserUnknown, NotifyType::USER_UNKNOWN),
        (RejectCause::NoNon3gppSubscription, NotifyType::NON_3GPP_ACCESS_TO_EPC_NOT_ALLOWED),
        (RejectCause::NoApnSubscription, NotifyType::NO_APN_SUBSCRIPTION),
        (RejectCause::AuthorizationRejected, NotifyType::AUTHORIZATION_REJECTED),
        (RejectCause::RatNotAllowed, NotifyType::RAT_TYPE_NOT_ALLOWED),
        (RejectCause::RoamingNotAllowed, NotifyType::PLMN_NOT_ALLOWED),
        (RejectCause::IllegalEquipment, NotifyType::ILLEGAL_ME),
        (RejectCause::MaxConnections, NotifyType::MAX_CONNECTION_REACHED),
        (RejectCause::EmergencyNotSupported, NotifyType::UNAUTHENTICATED_EMERGENCY_NOT_SUPPORTED),
        (RejectCause::Unreachable, NotifyType::NETWORK_FAILURE),
    ] {
        for rounds in [0, 2] {
            let mut world = world();
            let decoded = world.refusal(phone(1), rounds, cause);
            assert_eq!(decoded.error(), Some(kind), "{cause:?}");
            assert_eq!(decoded.body(PayloadType::EAP), Some(&FAILURE[..]));
            assert_eq!(decoded.notify(NotifyType::BACKOFF_TIMER).map(|view| view.data.to_vec()), None);
            assert_eq!(world.counters().rejects.iter().find(|(of, _)| *of == cause).map(|(_, n)| n), Some(1));
            let failed: Vec<_> = world.responder.failed_attempts().cloned().collect();
            assert_eq!((failed.len(), failed[0].cause), (1, cause.in_words()));
            assert_eq!(failed[0].apn.as_deref(), Some("ims"));
        }
    }
    // A laptop knows none of these.
    let change = |profile: &mut Profile| {
        profile.auth = AuthKind::Eap(EapPolicy { method: EapMethod::MsChapV2, ..policy() });
    };
    let mut world = World::new(config_with(change));
    let laptop = UeConfig { id: (IdType::RFC822_ADDR, b"alice@corp.test".to_vec()), ..phone(1) };
    let decoded = world.refusal(laptop, 1, RejectCause::UserUnknown);
    assert_eq!(decoded.error(), Some(NotifyType::AUTHENTICATION_FAILED));
}

const WITHOUT_SIM: &str = "imei490154203237518@sos.nai.epc.mnc001.mcc001.3gppnetwork.org";

fn without_sim(seed: u64) -> UeConfig {
    UeConfig { id: (IdType::RFC822_ADDR, WITHOUT_SIM.into()), ..phone(seed) }
}

#[test]
fn ts33402_13_a_phone_without_a_sim_is_told_that_it_is_not_served() {
    let mut world = World::new(config_with(|profile| profile.handset.emergency = true));
    let mut ue = Ue::new(without_sim(1));
    world.init(1, &mut ue);
    let request = ue.auth();
    let response = world.deliver(1, &request).pop().expect("an answer at once");
    let decoded = ue.open(&response).expect("authentic");
    assert_eq!(decoded.error(), Some(NotifyType::UNAUTHENTICATED_EMERGENCY_NOT_SUPPORTED));
    let asked = world.orders().into_iter().any(|order| matches!(order, AaaOrder::Step(_)));
    assert!(!asked, "no back end is bothered");
    let failed: Vec<_> = world.responder.failed_attempts().cloned().collect();
    assert_eq!((failed.len(), failed[0].imei.as_deref()), (1, Some("490154203237518")));
    assert_eq!(failed[0].cause, RejectCause::EmergencyNotSupported.in_words());
    assert_eq!(world.counters().exchanges.emergency_imei, 0);
}

#[test]
fn ts33402_13_a_server_may_let_a_phone_without_a_sim_in_where_the_profile_says_so() {
    let mut world = World::new(config_with(|profile| {
        profile.handset.emergency = true;
        profile.auth = AuthKind::Eap(EapPolicy { method: EapMethod::Any, imei: true, ..policy() });
    }));
    let (mut ue, step) = world.begin(1, without_sim(1));
    assert_eq!((&*step.subject.idi, step.subject.imei.as_deref()), (WITHOUT_SIM, Some("490154203237518")));
    assert!(step.subject.emergency);
    // A server that begins by asking for the name hears it again, which makes no second attach.
    let again = [&[2, 1, 0, 5 + WITHOUT_SIM.len() as u8, 1], WITHOUT_SIM.as_bytes()].concat();
    let asked = world.round_with(1, &mut ue, step.attempt, true, &again);
    assert_eq!(&*asked.subject.idi, WITHOUT_SIM);
    world.round(1, &mut ue, step.attempt, false);
    world.let_in(1, &mut ue, step.attempt, accepted());
    assert_eq!(world.prove(1, &mut ue).error(), None);
    assert_eq!((world.session_count(), world.counters().exchanges.emergency_imei), (1, 1));
}

#[test]
fn ts24302_8_2_9_1_a_phone_is_told_how_long_to_stay_away() {
    let change = |profile: &mut Profile| profile.handset.backoff = Some(Duration::from_secs(600));
    let mut world = World::new(config_with(change));
    let decoded = world.refusal(phone(1), 1, RejectCause::NoApnSubscription);
    assert_eq!(
        decoded.notify(NotifyType::BACKOFF_TIMER).map(|view| view.data.to_vec()),
        Some(vec![1, 0b100_10100])
    );
    let mut world = World::new(config_with(change));
    let decoded = world.refusal(phone(1), 1, RejectCause::AuthenticationFailed);
    assert!(decoded.notify(NotifyType::BACKOFF_TIMER).is_none());
}

#[test]
fn ts24302_7_4_1_the_device_is_asked_for_with_our_proof_and_told_to_the_back_end() {
    const IMEI: [u8; 11] = [0x00, 0x09, 0x01, 0x21, 0x43, 0x65, 0x87, 0x19, 0x32, 0x54, 0xf6];
    let change = |profile: &mut Profile| profile.handset.device_identity = DeviceIdentity::Imei;
    let mut world = World::new(config_with(change));
    let (mut ue, step) = world.begin(1, phone(1));
    assert_eq!(step.subject.imei, None);
    world.answer(step.attempt, go_on());
    let response = world.take_sent(1).pop().expect("an answer");
    let asked = ue.open(&response).expect("authentic");
    assert_eq!(asked.notify(NotifyType::DEVICE_IDENTITY).map(|view| view.data.to_vec()), Some(vec![0, 1, 1]));
    ue.on_eap_begun(&response);
    let request = ue.eap_with(&RESPONSE, |builder| {
        builder.notify(NotifyType::DEVICE_IDENTITY, &IMEI);
    });
    world.deliver(1, &request);
    assert_eq!(world.step().subject.imei.as_deref(), Some("123456789123456"));
    // It is asked for once, and of nobody whose profile does not want it.
    world.answer(step.attempt, go_on());
    let response = world.take_sent(1).pop().expect("an answer");
    assert!(ue.open(&response).expect("authentic").notify(NotifyType::DEVICE_IDENTITY).is_none());
}

#[test]
fn r7651_4_p_cscf_addresses_are_answered_in_the_form_asked_for() {
    let addrs = ["10.64.0.10", "fd64::10"];
    let change = |profile: &mut Profile| {
        profile.handset.p_cscf = addrs.iter().map(|text| text.parse().expect("an address")).collect();
        profile.handset.liveness = Some(Duration::from_secs(1_800));
    };
    for asked in [vec![20], vec![21], vec![16389, 16390], vec![16391], vec![20, 21, 16389, 24], vec![24]] {
        let mut world = World::new(config_with(change));
        let mut wanted = vec![(CfgAttrType::INTERNAL_IP4_ADDRESS, vec![])];
        wanted.extend(asked.iter().map(|kind| (CfgAttrType(*kind), vec![])));
        let (_, decoded) = world.attach_eap(1, UeConfig { config: wanted, ..phone(1) }, accepted());
        let told: Vec<u16> =
            decoded.config().iter().map(|(kind, _)| kind.0).filter(|kind| *kind != 1).collect();
        assert_eq!(told, asked);
    }
    // Addresses that the back end names win.
    let mut world = World::new(config_with(change));
    let other = Accepted { p_cscf: vec!["10.9.9.9".parse().expect("an address")], ..accepted() };
    let wanted = vec![(CfgAttrType::INTERNAL_IP4_ADDRESS, vec![]), (CfgAttrType(20), vec![])];
    let (_, decoded) = world.attach_eap(1, UeConfig { config: wanted, ..phone(1) }, other);
    assert!(decoded.config().contains(&(CfgAttrType(20), vec![10, 9, 9, 9])));
}

#[test]
fn ts24302_8_2_9_16_the_slice_is_told_to_a_ue_that_names_its_pdu_session() {
    let change = |profile: &mut Profile| profile.handset.s_nssai = [1, 0, 0, 7].into();
    for names in [true, false] {
        let mut world = World::new(config_with(change));
        let mut ue = Ue::new(phone(1));
        world.init(1, &mut ue);
        let request = ue.auth_with(|builder| {
            if names {
                builder.notify(NotifyType::N1_MODE_CAPABILITY, &[1, 5]);
            }
        });
        world.deliver(1, &request);
        let step = world.step();
        world.round(1, &mut ue, step.attempt, true);
        world.let_in(1, &mut ue, step.attempt, accepted());
        let decoded = world.prove(1, &mut ue);
        let told = decoded.notify(NotifyType::N1_MODE_INFORMATION).map(|view| view.data.to_vec());
        assert_eq!(told, names.then(|| vec![4, 1, 0, 0, 7]));
    }
}

#[test]
fn ts24302_a_second_attach_to_the_same_apn_replaces_the_first_whatever_its_case_and_type() {
    let mut world = world();
    let apn = |kind, name: &str| UeConfig { asked: Some((kind, name.as_bytes().to_vec())), ..phone(1) };
    world.attach_eap(1, apn(IdType::FQDN, "ims"), accepted());
    let first = world.told().session;
    world.attach_eap(2, UeConfig { seed: 2, initial_contact: true, ..apn(IdType::FQDN, "xcap") }, accepted());
    assert_eq!(world.session_count(), 2, "another PDN connection, whatever INITIAL_CONTACT says");
    world.orders();
    world.attach_eap(3, UeConfig { seed: 3, ..apn(IdType::KEY_ID, "IMS") }, accepted());
    assert_eq!(world.session_count(), 2);
    assert!(world.responder.session(world.now, first).is_none());
    assert_eq!(world.take_sent(1).len(), 1, "its UE is told");
    assert_eq!(world.counters().exchanges.same_apn_replaced, 1);
    // Another subscriber has its own.
    let other = UeConfig { id: (IdType::RFC822_ADDR, b"other@test".to_vec()), ..apn(IdType::FQDN, "ims") };
    world.attach_eap(4, UeConfig { seed: 4, ..other }, accepted());
    assert_eq!(world.session_count(), 3);
}

#[test]
fn handset_defaults_tell_nothing() {
    assert_eq!(Handset::default().device_identity, DeviceIdentity::Never);
    let mut world = world();
    let wanted = vec![(CfgAttrType::INTERNAL_IP4_ADDRESS, vec![]), (CfgAttrType(20), vec![])];
    let (_, decoded) = world.attach_eap(1, UeConfig { config: wanted, ..phone(1) }, accepted());
    assert_eq!(decoded.config().iter().map(|(kind, _)| kind.0).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_phone_that_wants_it_gets_an_empty_response_to_a_delete() {
    for empty in [true, false] {
        let mut world = World::new(config_with(|profile| profile.handset.empty_delete_response = empty));
        let (mut ue, _) = world.attach_eap(1, phone(1), accepted());
        let spi = ue.children[0].spi_in;
        let request = ue.informational(|builder| {
            builder.delete_esp(&[spi]);
        });
        let response = world.exchange(1, &request);
        let deleted = ue.open(&response).expect("authentic").deleted();
        assert_eq!(
            deleted.len(),
            usize::from(!empty),
            "the SPI of the pair, unless it would be misunderstood"
        );
    }
}

#[test]
fn ts24302_8_1_2_3_a_phone_is_asked_to_come_back_for_other_p_cscfs() {
    for wish in [true, false] {
        let mut world = world();
        let (ue, _) = world.attach_eap(1, phone(1), accepted());
        let session = world.session();
        let found = match wish {
            true => world.responder.reactivate(world.now, session),
            false => world.responder.terminate(world.now, session),
        };
        assert!(found);
        world.collect();
        let request = world.take_sent(1).pop().expect("a Delete");
        let request = ue.open(&request).expect("authentic");
        assert_eq!(request.body(PayloadType::DELETE), Some(&[1, 0, 0, 0][..]));
        assert_eq!(request.notify(NotifyType::REACTIVATION_REQUESTED_CAUSE).is_some(), wish);
    }
}

#[test]
fn ts23380_5_6_a_phone_that_can_be_is_told_other_p_cscfs_and_the_others_attach_again() {
    let config = |addrs: &[&str]| {
        let addrs = addrs.iter().map(|addr| addr.parse().expect("an address")).collect();
        config_with(|profile| profile.handset.p_cscf = addrs)
    };
    let mut world = World::new(config(&["10.1.1.1"]));
    let (mut able, _) = world.attach_eap(1, UeConfig { reselects: true, ..phone(1) }, accepted());
    let first = world.session();
    let other = (IdType::RFC822_ADDR, b"0001010000000002@nai.epc.mnc001.mcc001.3gppnetwork.org".to_vec());
    let (unable, _) = world.attach_eap(2, UeConfig { id: other, ..phone(2) }, accepted());
    let second =
        world.responder.sessions(world.now).map(|view| view.id).find(|id| *id != first).expect("another");
    // The addresses of now, of the family that the phones have.
    world.responder.set_config(world.now, Arc::new(config(&["10.2.2.2", "fd00::2", "10.2.2.3"])));
    assert_eq!(world.responder.reselect(world.now, first), Some(Reselection::Told));
    assert_eq!(world.responder.reselect(world.now, second), Some(Reselection::Reactivated));
    world.collect();

    let request = world.take_sent(1).pop().expect("a request");
    let request = able.open(&request).expect("authentic");
    assert_eq!(request.header.exchange, ExchangeType::INFORMATIONAL);
    let config =
        ConfigView::decode(request.body(PayloadType::CONFIG).expect("a configuration")).expect("sound");
    assert_eq!(config.kind, CfgType::REQUEST);
    let told: Vec<_> = config.attributes().map(|told| (told.kind.0, told.value.to_vec())).collect();
    assert_eq!(told, [(20, vec![10, 2, 2, 2]), (20, vec![10, 2, 2, 3])]);
    assert_eq!(world.counters().exchanges.p_cscf_told, 0);
    let response = able.respond(&request, |_| {});
    assert_eq!(world.deliver(1, &response), [[0u8; 0]; 0]);
    assert!(world.responder.session(world.now, first).is_some());
    assert_eq!(world.counters().exchanges.p_cscf_told, 1);

    let request = world.take_sent(2).pop().expect("a Delete");
    let request = unable.open(&request).expect("authentic");
    assert!(request.notify(NotifyType::REACTIVATION_REQUESTED_CAUSE).is_some());
    assert_eq!(world.responder.reselect(world.now, SessionId(u64::MAX)), None);
}
