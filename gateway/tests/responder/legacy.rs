//! Algorithms that only a profile's own words bring into use (RFC 8247).

use std::sync::Arc;

use codec::ike::{KeGroup, NotifyType};
use gateway::control::responder::{Profile, ResponderConfig};

use crate::ue::{Ue, UeConfig};
use crate::world::{World, clear_error, config, profile, psk};

const GROUPS: [(&str, &str, KeGroup); 3] = [
    ("aes128-sha1-modp768", "aes128-sha256-modp768", KeGroup::MODP_768),
    ("aes128-sha1-modp1024", "aes128-sha256-modp1024", KeGroup::MODP_1024),
    ("aes128-sha1-modp1536", "aes128-sha256-modp1536", KeGroup::MODP_1536),
];

#[test]
fn r8247_2_4_groups_1_2_and_5_are_refused_unless_a_profile_names_them() {
    for (ike, _, group) in GROUPS {
        let mut world = World::new(config());
        let mut ue = Ue::new(UeConfig { ike: vec![ike], group, ..UeConfig::new(1) });
        let answer = world.exchange(1, &ue.init());
        assert_eq!(clear_error(&answer), Some(NotifyType::NO_PROPOSAL_CHOSEN), "{ike}");
    }
}

#[test]
fn r8247_2_4_what_a_profile_names_is_used_and_counted() {
    for (sha1, sha256, group) in GROUPS {
        for (ike, esp, counted) in [(sha1, "aes128-sha1", 1), (sha256, "aes128-sha256", 0)] {
            let mut lab = profile("legacy", psk());
            lab.ike = vec![ike.parse().expect("a proposal")];
            lab.esp = vec![esp.parse().expect("a proposal")];
            let mut world = World::new(ResponderConfig { profiles: vec![Arc::new(lab)], ..config() });
            let ue_config = UeConfig { ike: vec![ike], esp: vec![esp], group, ..UeConfig::new(1) };
            let mut ue = world.attach(1, ue_config);
            let exchanges = world.counters().exchanges;
            assert_eq!(
                (exchanges.legacy_groups, exchanges.legacy_sha1_ike, exchanges.legacy_sha1_esp),
                (1, counted, counted),
                "{ike}"
            );
            // PFS and rekeys go on with it.
            let request = ue.create_child(Some(ue.children[0].spi_in), true);
            let response = world.exchange(1, &request);
            assert_eq!(ue.on_create_child(&response).error(), None);
            let request = ue.rekey_ike();
            let response = world.exchange(1, &request);
            assert_eq!(ue.on_rekey_ike(&response).error(), None);
            assert_eq!(world.counters().exchanges.legacy_groups, 2);
        }
    }
}

#[test]
fn r8247_2_1_and_r8221_5_3des_is_refused_unless_a_profile_names_it() {
    let (ike, esp) = ("3des-sha1-modp1024", "3des-sha1");
    let ue_config =
        || UeConfig { ike: vec![ike], esp: vec![esp], group: KeGroup::MODP_1024, ..UeConfig::new(1) };
    let mut world = World::new(config());
    let answer = world.exchange(1, &Ue::new(ue_config()).init());
    assert_eq!(clear_error(&answer), Some(NotifyType::NO_PROPOSAL_CHOSEN));

    let mut lab = profile("legacy", psk());
    lab.ike = vec![ike.parse().expect("a proposal")];
    lab.esp = vec![esp.parse().expect("a proposal")];
    let mut world = World::new(ResponderConfig { profiles: vec![Arc::new(lab)], ..config() });
    let mut ue = world.attach(1, ue_config());
    let install = world.installs().remove(0);
    assert_eq!(install.keys_in.encr(), ue.children[0].keys.initiator.encr());
    assert_eq!(install.keys_in.encr().len(), 24);
    let request = ue.rekey_ike();
    let response = world.exchange(1, &request);
    assert_eq!(ue.on_rekey_ike(&response).error(), None);
    let exchanges = world.counters().exchanges;
    assert_eq!((exchanges.legacy_3des_ike, exchanges.legacy_3des_esp), (2, 1));
}

#[test]
fn r8247_2_4_no_default_proposal_has_any_of_them() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("secrets.toml"), "psk = \"test\"").expect("written");
    let text = "[gateway]\nidentity = \"gw.test\"\n[[pool]]\nname = \"default\"\n\
        prefixes = [\"10.64.0.0/16\"]\n[[profile]]\nname = \"lab\"\nauth = \"psk\"\nsecrets_file = \"secrets.toml\"\n";
    let Ok(config) = gateway::config::parse(&dir.path().join("swugate.toml"), text.into()) else {
        panic!("the configuration is good")
    };
    let lab: &Profile = &config.responder.profiles[0];
    for proposal in &lab.ike {
        assert!(!proposal.groups().iter().any(|group| codec::crypto::LEGACY_GROUPS.contains(group)));
        assert!(!proposal.prfs().contains(&codec::crypto::Prf::HmacSha1));
        assert!(!proposal.integs().contains(&codec::esp::EspInteg::HmacSha1_96));
        assert!(!proposal.ciphers().contains(&codec::esp::EspCipher::TripleDesCbc));
    }
    for proposal in &lab.esp {
        assert!(!proposal.ciphers().contains(&codec::esp::EspCipher::TripleDesCbc));
        assert!(!proposal.integs().contains(&codec::esp::EspInteg::HmacSha1_96));
    }
}
