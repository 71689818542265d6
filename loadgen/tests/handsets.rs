//! The handsets of `deploy/handsets` against a scripted gateway: each attaches where it is served, and gives up where a
//! real one does.

#[allow(dead_code, reason = "each test program uses its part")]
mod script;

use codec::eap::aka::Variant;
use codec::ike::payload::Payload;
use codec::ike::{CfgAttrType, ExchangeType, IdType, KeGroup, Message, NotifyType};
use loadgen::cli::Auth;
use loadgen::profile::Profile;
use script::Faults;
use script::eap::Move;
use script::phone::{Outcome, Phone};
use std::time::Duration;

/// A phone of this profile, and a gateway that answers everything it asks for.
fn phone(name: &str) -> Phone {
    let profile = Profile::find(name).unwrap();
    let variant = if profile.auth() == Auth::EapAkaPrime { Variant::AkaPrime } else { Variant::Aka };
    let mut phone = Phone::new(variant, &[Move::Challenge, Move::Success]);
    phone.config.ike = profile.ike.iter().map(|text| text.parse().unwrap()).collect();
    phone.config.esp = profile.esp.iter().map(|text| text.parse().unwrap()).collect();
    phone.config.idr = Some(profile.idr("ims"));
    phone.config.dpd = profile.dpd();
    phone.config.handset = profile.handset();
    phone.script.ike.clone_from(&phone.config.ike);
    phone.script.esp.clone_from(&phone.config.esp);
    phone.script.empty_deletes = true;
    let answer = |kind: CfgAttrType| match kind.0 {
        1 | 3 | 20 | 16389 => vec![10, 64, 0, 10],
        24 => vec![0, 0, 1, 44],
        _ => vec![0xfd; 16],
    };
    phone.script.config = phone.config.handset.asks.iter().map(|kind| (*kind, answer(*kind))).collect();
    phone.credentials(|eap| eap.alone = profile.eap_only)
}

/// Types of the notifications in the first IKE_AUTH request.
fn told(outcome: &Outcome) -> Vec<NotifyType> {
    outcome.script.first.as_ref().unwrap().notifies.iter().map(|(kind, _)| *kind).collect()
}

#[test]
fn every_handset_attaches_where_it_is_served() {
    for profile in Profile::all() {
        let name = profile.name;
        let outcome = phone(name).attach();
        assert_eq!(outcome.end, None, "{name}");
        let attached = outcome.attached.as_ref().expect(name);
        assert!(!attached.inner.is_empty() && !attached.p_cscf.is_empty(), "{name}");
        assert_eq!(outcome.script.first.as_ref().unwrap().asked, profile.handset().asks, "{name}");
    }
}

#[test]
fn the_apn_stands_in_idr_as_each_handset_writes_it() {
    for (name, kind) in
        [("samsung-2023", IdType::KEY_ID), ("apple-2023", IdType::FQDN), ("pixel-2023", IdType::FQDN)]
    {
        let outcome = phone(name).attach().up();
        assert_eq!(outcome.script.first.unwrap().idr, Some((kind, b"ims".to_vec())), "{name}");
    }
}

#[test]
fn a_samsung_gives_the_tunnel_up_without_the_older_p_cscf_attributes() {
    for missing in [16389, 16390] {
        let mut phone = phone("samsung-2023");
        phone.script.config.retain(|(kind, _)| kind.0 != missing);
        let cause = phone.attach().cause();
        assert!(
            cause.starts_with("handset: no answer to P_CSCF") && cause.contains(&missing.to_string()),
            "{cause}"
        );
    }
    let mut phone = phone("apple-2023");
    phone.script.config.retain(|(kind, _)| kind.0 < 20);
    phone.attach().up();
}

#[test]
fn an_oppo_begins_with_group_2_and_takes_14_when_told() {
    let other_group = Some(KeGroup::MODP_2048);
    let outcome = phone("oppo-2023").faults(Faults { other_group, ..Faults::default() }).attach().up();
    let inits = outcome.script.seen.iter().filter(|kind| **kind == ExchangeType::IKE_SA_INIT).count();
    assert_eq!(inits, 2);
    let ke = Message::decode(&outcome.init).unwrap().payloads().find_map(|raw| match raw.unwrap().decode() {
        Ok(Payload::Ke(ke)) => Some(ke.group),
        _ => None,
    });
    assert_eq!(ke, Some(KeGroup::MODP_1024));
}

#[test]
fn a_pixel_speaks_of_5g_and_of_its_p_cscfs_and_claims_a_nat() {
    let pixel = phone("pixel-2023").attach().up();
    assert_eq!(
        told(&pixel),
        [
            NotifyType::EAP_ONLY_AUTHENTICATION,
            NotifyType::N1_MODE_CAPABILITY,
            NotifyType::P_CSCF_RESELECTION_SUPPORT
        ]
    );
    let apple = phone("apple-2023").attach().up();
    assert_eq!(told(&apple), []);
    // Both speak from the same address and port with the same SPI: only one says so.
    let source = |outcome: &Outcome| {
        let message = Message::decode(&outcome.init).unwrap();
        let digest = message.payloads().find_map(|raw| match raw.unwrap().decode() {
            Ok(Payload::Notify(view)) if view.kind == NotifyType::NAT_DETECTION_SOURCE_IP => {
                Some(view.data.to_vec())
            }
            _ => None,
        });
        digest.unwrap()
    };
    let mut honest = phone("pixel-2023");
    honest.config.handset.fakes_nat = false;
    assert_ne!(source(&pixel), source(&honest.attach().up()));
}

#[test]
fn a_touchy_phone_gives_up_at_a_cookie() {
    let cookie = Faults { cookie: true, ..Faults::default() };
    assert_eq!(phone("touchy").faults(cookie).attach().cause(), "handset: cookie");
    phone("samsung-2023").faults(cookie).attach().up();
}

#[test]
fn a_touchy_phone_gives_up_at_anything_in_the_response_to_a_delete() {
    let rekeyed = |name: &str, empty: bool| {
        let mut phone = phone(name);
        phone.script.empty_deletes = empty;
        let mut outcome = phone.attach().up();
        let after = Profile::find(name).unwrap().handset().rekey_child.unwrap();
        outcome.pass(after);
        outcome
    };
    assert_eq!(rekeyed("touchy", false).cause(), "handset: something in the response to a Delete");
    assert_eq!(rekeyed("touchy", true).end, None);
    assert_eq!(rekeyed("apple-2023", false).end, None);
}

#[test]
fn a_phone_that_announces_fragments_takes_them() {
    let mut phone = phone("touchy");
    phone.script.fragment_len = Some(300);
    phone.attach().up();
    let announced = |name: &str| {
        let outcome = self::phone(name).attach().up();
        let message = Message::decode(&outcome.init).unwrap();
        message.payloads().any(|raw| {
            matches!(raw.unwrap().decode(),
                Ok(Payload::Notify(view)) if view.kind == NotifyType::IKEV2_FRAGMENTATION_SUPPORTED)
        })
    };
    assert!(announced("touchy") && !announced("apple-2023"));
}

#[test]
fn sas_are_replaced_after_the_handsets_own_times() {
    for name in ["apple-2023", "qualcomm-2023"] {
        let handset = Profile::find(name).unwrap().handset();
        let (ike, child) = (handset.rekey_ike.unwrap(), handset.rekey_child.unwrap());
        let mut phone = phone(name);
        // Silence is not what this is about.
        phone.config.dpd = None;
        let mut outcome = phone.attach().up();
        let rekeys = |outcome: &Outcome| {
            outcome.script.seen.iter().filter(|kind| **kind == ExchangeType::CREATE_CHILD_SA).count()
        };
        outcome.pass(child - Duration::from_secs(1));
        assert_eq!(rekeys(&outcome), 0, "{name}");
        outcome.pass(Duration::from_secs(1));
        assert_eq!(rekeys(&outcome), 1, "{name}: the child");
        outcome.pass(ike.saturating_sub(child));
        assert_eq!(rekeys(&outcome), 2, "{name}: the IKE SA");
        assert_eq!(outcome.end, None);
    }
}
