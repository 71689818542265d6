//! Post-quantum pre-shared keys (RFC 8784).

use std::sync::Arc;

use codec::ike::NotifyType;
use gateway::control::responder::{PpkPolicy, Psk, ResponderConfig};

use crate::ue::{Decoded, Ue, UeConfig, UePpk};
use crate::world::{World, certificate_config, certificate_ue, config, profile, psk};

const KEY: &[u8] = b"a post-quantum pre-shared key, 256 bits";

fn policy(required: bool) -> Option<PpkPolicy> {
    let key = Psk::from_text(std::str::from_utf8(KEY).expect("text")).expect("a key");
    Some(PpkPolicy { required, keys: [(b"ppk-1".as_slice().into(), key)].into_iter().collect() })
}

fn lab(required: bool) -> ResponderConfig {
    let mut lab = profile("lab", psk());
    lab.ppk = policy(required);
    ResponderConfig { profiles: vec![Arc::new(lab)], ..config() }
}

/// A UE with a key named `id`, type included.
fn ue(seed: u64, id: &[u8], optional: bool) -> UeConfig {
    let ppk = Some(UePpk { id: id.to_vec(), key: KEY.to_vec(), optional });
    UeConfig { ppk, ..UeConfig::new(seed) }
}

const KNOWN: &[u8] = b"\x02ppk-1";
const UNKNOWN: &[u8] = b"\x02ppk-2";

#[test]
fn r8784_3_a_known_key_goes_into_the_ike_sa_and_its_children() {
    for required in [false, true] {
        let mut world = World::new(lab(required));
        // `on_auth` verifies the gateway's AUTH with the mixed keys.
        let mut ue = world.attach(1, ue(1, KNOWN, true));
        assert_eq!(world.counters().exchanges.ppk_used, 1);
        let install = world.installs().remove(0);
        assert_eq!(
            install.keys_in.encr(),
            ue.children[0].keys.initiator.encr(),
            "KEYMAT comes from the new SK_d"
        );
        // And so do those of a rekey.
        let request = ue.create_child(Some(ue.children[0].spi_in), false);
        let response = world.exchange(1, &request);
        assert_eq!(ue.on_create_child(&response).error(), None);
        let install = world.installs().remove(0);
        assert_eq!(install.keys_in.encr(), ue.children[1].keys.initiator.encr());
    }
}

#[test]
fn r8784_3_use_ppk_is_answered_where_a_profile_has_keys_only() {
    let answers = |config: ResponderConfig, ue_config: UeConfig| {
        let mut world = World::new(config);
        let answer = world.exchange(1, &Ue::new(ue_config).init());
        Decoded::clear(&answer).notify(NotifyType::USE_PPK).is_some()
    };
    assert!(answers(lab(false), ue(1, KNOWN, true)));
    assert!(!answers(lab(false), UeConfig::new(1)), "never unasked");
    assert!(!answers(config(), ue(1, KNOWN, true)));
}

#[test]
fn r8784_3_an_unknown_key_is_done_without_where_both_ends_allow_it() {
    let mut world = World::new(lab(false));
    let mut other = Ue::new(ue(1, UNKNOWN, true));
    world.init(1, &mut other);
    let request = other.auth();
    let response = world.exchange(1, &request);
    let decoded = other.on_auth(&response);
    assert_eq!((decoded.error(), other.children.len()), (None, 1));
    assert!(decoded.notify(NotifyType::PPK_IDENTITY).is_none());
    assert_eq!(world.counters().exchanges.ppk_used, 0);

    // The UE insists, or the profile does.
    assert_eq!(world.attach_error(2, ue(2, UNKNOWN, false)), Some(NotifyType::AUTHENTICATION_FAILED));
    let mut strict = World::new(lab(true));
    assert_eq!(strict.attach_error(1, ue(3, UNKNOWN, true)), Some(NotifyType::AUTHENTICATION_FAILED));
    assert_eq!((world.counters().drops.auth_ppk, strict.counters().drops.auth_ppk), (1, 1));
}

#[test]
fn r8784_4_a_ue_without_keys_is_served_where_they_are_optional() {
    let mut world = World::new(lab(false));
    world.attach(1, UeConfig::new(1));
    let mut strict = World::new(lab(true));
    assert_eq!(strict.attach_error(1, UeConfig::new(1)), Some(NotifyType::AUTHENTICATION_FAILED));
    assert_eq!(strict.counters().drops.auth_ppk, 1);
}

#[test]
fn r8784_3_a_wrong_key_or_type_fails() {
    let mut world = World::new(lab(true));
    let mut wrong = ue(1, KNOWN, false);
    wrong.ppk.as_mut().expect("there").key[0] ^= 1;
    assert_eq!(world.attach_error(1, wrong), Some(NotifyType::AUTHENTICATION_FAILED));
    assert_eq!(world.counters().drops.auth_psk_mismatch, 1);
    for (number, id) in [(2, &b"\x01ppk-1"[..]), (3, b"ppk-1"), (4, b"\x02"), (5, b"")] {
        let error = world.attach_error(number, ue(number.into(), id, true));
        assert_eq!(error, Some(NotifyType::AUTHENTICATION_FAILED), "{id:?}");
    }
}

#[test]
fn r8784_3_keys_go_with_certificates_too() {
    let mut config = certificate_config(false, false);
    let mut certificates = profile("certificates", gateway::control::responder::AuthKind::Certificate);
    certificates.ppk = policy(true);
    config.profiles = vec![Arc::new(certificates)];
    let mut world = World::new(config);
    let ppk = Some(UePpk { id: KNOWN.to_vec(), key: KEY.to_vec(), optional: false });
    world.attach(1, UeConfig { ppk, ..certificate_ue(1, false) });
    assert_eq!(world.counters().exchanges.ppk_used, 1);
}
