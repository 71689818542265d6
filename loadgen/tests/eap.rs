//! UEs with SIMs against a scripted gateway: EAP-AKA and EAP-AKA' inside IKE_AUTH, in virtual time.

#[allow(dead_code, reason = "each test program uses its part")]
mod script;

use codec::eap::aka::{IdentityRequest, Notification, Variant};
use codec::eap::usim::Sqn;
use codec::ike::{CfgAttrType, ExchangeType, IdType, NotifyType};
use loadgen::ue::{GatewayTrust, Handset};
use rustls_pki_types::UnixTime;
use script::eap::{EapFaults, Move};
use script::phone::{Phone, certificate};

const NAI: &str = "001010000000001@nai.epc.mnc001.mcc001.3gppnetwork.org";

const FULL: [Move; 2] = [Move::Challenge, Move::Success];

#[test]
fn r7296_2_16_a_phone_attaches_by_its_sim() {
    for (variant, digit) in [(Variant::Aka, '0'), (Variant::AkaPrime, '6')] {
        let outcome = Phone::new(variant, &FULL).attach().up();
        assert_eq!(outcome.server().identities, [format!("{digit}{NAI}")]);
        let auths = outcome.script.seen.iter().filter(|kind| **kind == ExchangeType::IKE_AUTH).count();
        assert_eq!(auths, 3, "who, EAP, AUTH");
        let first = outcome.script.first.as_ref().unwrap();
        assert_eq!(first.idr, Some((IdType::FQDN, b"ims".to_vec())));
        assert_eq!(first.notifies, []);
    }
}

#[test]
fn r4187_4_1_6_identities_are_given_as_asked_and_checked_by_their_code() {
    let moves = [
        Move::Who,
        Move::Identity(IdentityRequest::Any),
        Move::Identity(IdentityRequest::FullAuth),
        Move::Identity(IdentityRequest::Permanent),
        Move::Challenge,
        Move::Success,
    ];
    let outcome = Phone::new(Variant::Aka, &moves).attach().up();
    assert_eq!(outcome.server().identities, vec![format!("0{NAI}"); 5]);

    let again = [Move::Identity(IdentityRequest::Permanent), Move::Identity(IdentityRequest::Any)];
    let outcome = Phone::new(Variant::Aka, &again).attach();
    assert_eq!(outcome.seen(), ["Identity", "ClientError"]);
    assert_eq!(outcome.cause(), "EAP: identity request out of order");

    let moves = [Move::Identity(IdentityRequest::Any), Move::Challenge];
    let wrong = EapFaults { wrong_checkcode: true, ..EapFaults::default() };
    let outcome = Phone::new(Variant::AkaPrime, &moves).eap(|eap| eap.faults = wrong).attach();
    assert_eq!(outcome.cause(), "EAP: AT_CHECKCODE is wrong");
}

#[test]
fn r3748_5_3_1_another_method_is_answered_by_the_one_wanted() {
    let outcome = Phone::new(Variant::AkaPrime, &[Move::Tls, Move::Challenge, Move::Success]).attach().up();
    assert_eq!(outcome.seen(), ["Nak [50]", "Challenge"]);
}

#[test]
fn r4187_5_the_next_attach_is_a_fast_reauthentication() {
    for variant in [Variant::Aka, Variant::AkaPrime] {
        let first = Phone::new(variant, &FULL).attach().up();
        assert!(first.sim.borrow().is_known());
        let keys = first.server().keys.clone();
        let next = Phone::new(variant, &[Move::Reauth, Move::Success]).with_sim(first.sim);
        let second = next.eap(|eap| eap.keys = keys.clone()).attach().up();
        assert_eq!(second.server().identities, ["4given@realm.test"]);
        assert_eq!(second.sim.borrow().identity(variant), "4next@realm.test");

        // The counter has been seen: the USIM is asked.
        let replayed =
            Phone::new(variant, &[Move::Reauth, Move::Challenge, Move::Success]).with_sim(second.sim);
        let third = replayed.eap(|eap| (eap.keys, eap.sqn) = (keys.clone(), 128)).attach().up();
        assert_eq!(third.seen(), ["Reauthentication", "too small", "Challenge"]);

        // The network has forgotten: the pseudonym, and then the IMSI.
        let moves = [Move::Identity(IdentityRequest::FullAuth), Move::Identity(IdentityRequest::Permanent)];
        let moves = [&moves[..], &FULL].concat();
        let forgotten =
            Phone::new(variant, &moves).with_sim(third.sim).eap(|eap| eap.sqn = 160).attach().up();
        let names = &forgotten.server().identities;
        assert_eq!(names[1], "2given@nai.epc.mnc001.mcc001.3gppnetwork.org");
        assert!(names[2].ends_with(NAI));
    }
}

#[test]
fn r4187_9_6_a_sim_that_is_ahead_resynchronises() {
    let phone = Phone::new(Variant::AkaPrime, &FULL);
    phone.sim.borrow_mut().advance(Sqn::new(0x4000));
    let outcome = phone.attach().up();
    assert_eq!(outcome.seen(), ["SynchronizationFailure", "Challenge"]);
    assert!(outcome.server().sqn > 0x4000);
}

#[test]
fn r9048_3_2_the_kdf_is_negotiated_and_the_list_must_stay() {
    let outcome = Phone::new(Variant::AkaPrime, &FULL).eap(|eap| eap.kdfs = vec![7, 1]).attach().up();
    assert_eq!(outcome.seen(), ["Challenge", "Challenge"]);
    for kdfs in [vec![7], vec![], vec![1, 7, 1]] {
        let outcome = Phone::new(Variant::AkaPrime, &FULL).eap(|eap| eap.kdfs = kdfs).attach();
        assert_eq!(outcome.cause(), "EAP: no KDF in common");
    }
}

#[test]
fn networks_that_are_not_ours_are_told_and_left() {
    let wrong = EapFaults::default();
    for (variant, faults, answer, cause) in [
        (
            Variant::Aka,
            EapFaults { other_k: true, ..wrong },
            "AuthenticationReject",
            "network does not know K or OPc",
        ),
        (Variant::Aka, EapFaults { wrong_mac: true, ..wrong }, "ClientError", "AT_MAC is wrong"),
        (
            Variant::AkaPrime,
            EapFaults { no_separation: true, ..wrong },
            "AuthenticationReject",
            "AMF without separation bit",
        ),
        (
            Variant::AkaPrime,
            EapFaults { other_network: true, ..wrong },
            "AuthenticationReject",
            "another network name",
        ),
    ] {
        let outcome = Phone::new(variant, &FULL).eap(|eap| eap.faults = faults).attach();
        assert_eq!(outcome.seen(), [answer]);
        assert_eq!(outcome.cause(), format!("EAP: {cause}"));
    }
}

#[test]
fn failures_have_the_cause_that_the_network_told() {
    let moves = [Move::Challenge, Move::Notify(Notification::NOT_SUBSCRIBED), Move::Failure];
    let outcome = Phone::new(Variant::Aka, &moves).attach();
    assert_eq!(outcome.seen(), ["Challenge", "Notification"]);
    assert_eq!(outcome.cause(), "EAP: not subscribed to the service");
    let outcome =
        Phone::new(Variant::Aka, &[Move::Notify(Notification::GENERAL_FAILURE), Move::Failure]).attach();
    assert_eq!(outcome.cause(), "EAP: general failure");
    let outcome = Phone::new(Variant::Aka, &[Move::Who, Move::Failure]).attach();
    assert_eq!(outcome.cause(), "EAP: EAP-Failure");
    // TS 24.302 §8.1.2.2: the error type says more.
    let mut phone = Phone::new(Variant::Aka, &[Move::Challenge, Move::Failure]);
    phone.script.faults.refuse_auth = Some(NotifyType::NO_APN_SUBSCRIPTION);
    assert_eq!(phone.attach().cause(), "NO_APN_SUBSCRIPTION");
}

#[test]
fn r4187_6_2_success_that_was_to_be_protected_is_not_taken_bare() {
    let moves = [Move::Challenge, Move::Notify(Notification::SUCCESS), Move::Success];
    Phone::new(Variant::AkaPrime, &moves).eap(|eap| eap.result_ind = true).attach().up();
    let outcome = Phone::new(Variant::AkaPrime, &FULL).eap(|eap| eap.result_ind = true).attach();
    assert_eq!(outcome.cause(), "bad answer: EAP-Success without its protected notification");
    let outcome = Phone::new(Variant::AkaPrime, &[Move::Success]).attach();
    assert!(!outcome.cause().is_empty());
}

#[test]
fn the_gateway_proves_itself_before_eap_unless_that_may_stand_alone() {
    let wrong = EapFaults::default();
    let without = EapFaults { no_auth: true, ..wrong };
    let outcome = Phone::new(Variant::Aka, &FULL).eap(|eap| eap.faults = without).attach();
    assert_eq!(outcome.cause(), "gateway not authenticated: no AUTH before EAP");
    let alone = Phone::new(Variant::Aka, &FULL).eap(|eap| eap.faults = without);
    let outcome = alone.credentials(|eap| eap.alone = true).attach().up();
    assert_eq!(outcome.script.first.unwrap().notifies, [(NotifyType::EAP_ONLY_AUTHENTICATION, vec![])]);

    let signed = EapFaults { wrong_signature: true, ..wrong };
    let outcome = Phone::new(Variant::Aka, &FULL).eap(|eap| eap.faults = signed).attach();
    assert_eq!(outcome.cause(), "gateway not authenticated: wrong signature");
    let last = EapFaults { wrong_msk: true, ..wrong };
    let outcome = Phone::new(Variant::Aka, &FULL).eap(|eap| eap.faults = last).attach();
    assert_eq!(outcome.cause(), "gateway not authenticated: wrong AUTH");

    let (other, _) = certificate();
    let trust = GatewayTrust::new(&[other], UnixTime::now()).unwrap();
    let outcome = Phone::new(Variant::Aka, &FULL).credentials(|eap| eap.trust = Some(trust)).attach();
    assert_eq!(
        outcome.cause(),
        "gateway not authenticated: certificate is not issued by --ca, or is not valid now"
    );
}

#[test]
fn ts24302_8_2_9_2_the_imei_is_told_when_asked_for() {
    let outcome = Phone::new(Variant::Aka, &FULL).eap(|eap| eap.ask_device = Some(1)).attach().up();
    let expected = [0x00, 0x09, 0x01, 0x21, 0x43, 0x65, 0x87, 0x19, 0x32, 0x54, 0xf6];
    assert_eq!(outcome.server().device.as_deref(), Some(&expected[..]));
    assert_eq!(Phone::new(Variant::Aka, &FULL).attach().up().server().device, None);
}

#[test]
fn a_handset_gives_up_a_tunnel_without_what_it_needs() {
    let kind = CfgAttrType::P_CSCF_IP4_ADDRESS_LEGACY;
    let asking = || {
        let mut phone = Phone::new(Variant::Aka, &FULL);
        phone.config.handset = Handset {
            asks: vec![CfgAttrType::INTERNAL_IP4_ADDRESS, kind],
            needs: vec![kind],
            ..Handset::default()
        };
        phone
    };
    assert_eq!(asking().attach().cause(), "handset: no answer to P_CSCF_IP4_ADDRESS (16389)");
    let mut phone = asking();
    phone.script.config.push((kind, vec![10, 64, 0, 10]));
    let outcome = phone.attach().up();
    assert_eq!(outcome.attached.unwrap().p_cscf, ["10.64.0.10".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(outcome.script.first.unwrap().asked, [CfgAttrType::INTERNAL_IP4_ADDRESS, kind]);
}
