//! IKE_AUTH: identities, proofs, profiles, configuration payload, the first Child SA.

use std::sync::Arc;

use codec::ike::payload::TrafficSelector;
use codec::ike::{CfgAttrType, IdType, KeGroup, NotifyType, PayloadType};
use gateway::control::responder::{
    AuthKind, Event, Glob, KeyLog, Limits, Psk, PskStore, ResponderConfig, Verdict,
};
use gateway::types::Transport;

use crate::ue::{Ue, UeAuth, UeConfig};
use crate::world::{World, certificate_config, certificate_ue, config, der, fixture, prefix, profile, psk};

const FAILED: Option<NotifyType> = Some(NotifyType::AUTHENTICATION_FAILED);

#[test]
fn r7296_2_15_psk_per_identity_wins_and_wrong_ones_fail() {
    let mut config = config();
    let mut secrets = PskStore::new(Psk::from_text("test-secret"));
    secrets.insert("ue2.test", Psk::from_text("0x6f776e").expect("a key"));
    config.profiles = vec![Arc::new(profile("lab", AuthKind::Psk(secrets)))];
    let mut world = World::new(config);
    world.attach(1, UeConfig::new(1));
    assert_eq!(world.attach_error(2, UeConfig::new(2)), FAILED);
    world.attach(3, UeConfig { auth: UeAuth::Psk(b"own".to_vec()), ..UeConfig::new(2) });
    assert_eq!(world.counters().drops.auth_psk_mismatch, 1);
    // 9329-6.4: the connection is there for another try after a failure.
    world.attach(2, UeConfig::new(4));
}

#[test]
fn r7296_2_21_2_failure_is_protected_and_leaves_nothing() {
    let mut world = World::new(config());
    let mut ue = Ue::new(UeConfig { auth: UeAuth::Psk(b"wrong".to_vec()), ..UeConfig::new(1) });
    world.init(1, &mut ue);
    let request = ue.auth();
    let response = world.exchange(1, &request);
    assert_eq!(ue.on_auth(&response).error(), FAILED);
    assert_eq!(world.session_count(), 0);
    assert_eq!(world.counters().gauges.half_open, 0);
    assert!(world.closed().is_empty());
    assert_eq!(world.verdict, Verdict::Good);
    // r7296_2_1: its repetition is answered with the same octets for a while.
    assert_eq!(world.exchange(1, &request), response);
    world.advance(Limits::default().lingering_timeout);
    let error = crate::world::clear_error(&world.exchange(1, &request));
    assert_eq!(error, Some(NotifyType::INVALID_IKE_SPI));
}

#[test]
fn no_secret_for_the_identity() {
    let mut config = config();
    config.profiles = vec![Arc::new(profile("lab", AuthKind::Psk(PskStore::new(None))))];
    let mut world = World::new(config);
    assert_eq!(world.attach_error(1, UeConfig::new(1)), FAILED);
    assert_eq!(world.counters().drops.auth_no_secret, 1);
}

#[test]
fn profiles_match_in_order_and_the_search_goes_on() {
    let mut config = config();
    let mut ims = profile("ims", psk());
    ims.idr = Glob::new("IMS");
    let mut ec_only = profile("ec", psk());
    ec_only.ike = vec!["aes128gcm16-prfsha256-ecp256".parse().expect("a proposal")];
    let mut udp_only = profile("udp", psk());
    udp_only.transports = vec![Transport::Udp];
    let certificates = profile("certificates", AuthKind::Certificate);
    let mut rest = profile("rest", psk());
    rest.idi = Glob::new("UE*.test");
    config.profiles = [ims, ec_only, udp_only, certificates, rest].map(Arc::new).into();
    let mut world = World::new(config);
    let name = |world: &World, seed: u64| {
        let wanted = format!("ue{seed}.test");
        let views: Vec<_> = world.responder.sessions(world.now).collect();
        views.iter().find(|view| view.idi.to_string() == wanted).map(|view| view.profile.to_string())
    };
    world.attach(1, UeConfig { asked: Some((IdType::FQDN, b"ims".to_vec())), ..UeConfig::new(1) });
    assert_eq!(name(&world, 1).as_deref(), Some("ims"));
    world.attach(2, UeConfig::new(2));
    assert_eq!(name(&world, 2).as_deref(), Some("rest"));
    let group = KeGroup::ECP_256;
    world.attach(3, UeConfig { ike: vec!["aes128gcm16-prfsha256-ecp256"], group, ..UeConfig::new(3) });
    assert_eq!(name(&world, 3).as_deref(), Some("ec"));
    // The first profile whose identities fit says why there is none.
    let stranger = UeConfig { id: (IdType::RFC822_ADDR, b"x@y".to_vec()), ..UeConfig::new(5) };
    assert_eq!(world.attach_error(5, stranger), FAILED);
    assert_eq!(world.counters().drops.auth_profile_suite, 1);
}

#[test]
fn an_absent_idr_matches_only_the_star() {
    let absent = || UeConfig { asked: None, ..UeConfig::new(1) };
    let mut ims = profile("ims", psk());
    ims.idr = Glob::new("**");
    let mut world = World::new(ResponderConfig { profiles: vec![Arc::new(ims)], ..config() });
    assert_eq!(world.attach_error(1, absent()), FAILED);
    assert_eq!(world.counters().drops.auth_no_profile, 1);
    let mut world = World::new(config());
    world.attach(1, absent());
    let views: Vec<_> = world.responder.sessions(world.now).collect();
    assert_eq!(views[0].idr.to_string(), "gw.test");
}

#[test]
fn transports_and_kinds_that_are_not_configured_are_counted() {
    let mut udp_only = profile("udp", psk());
    udp_only.transports = vec![Transport::Udp];
    let mut world = World::new(ResponderConfig { profiles: vec![Arc::new(udp_only)], ..config() });
    assert_eq!(world.attach_error(1, UeConfig::new(1)), FAILED);
    assert_eq!(world.counters().drops.auth_profile_transport, 1);
    let mut world = World::new(certificate_config(true, false));
    assert_eq!(world.attach_error(1, UeConfig::new(1)), FAILED);
    assert_eq!(world.counters().drops.auth_profile_kind, 1);
}

#[test]
fn r7427_certificates_authenticate_both_ways() {
    for (gateway_rsa, client_rsa) in [(true, true), (false, false), (true, false), (false, true)] {
        let mut world = World::new(certificate_config(gateway_rsa, true));
        let mut ue = Ue::new(certificate_ue(1, client_rsa));
        world.init(1, &mut ue);
        let request = ue.auth();
        let response = world.exchange(1, &request);
        let decoded = ue.on_auth(&response);
        assert_eq!(decoded.error(), None);
        // r7296_3_6: the leaf, then the intermediate; 14 because hashes were announced.
        let certs = decoded.payloads.iter().filter(|(kind, _)| *kind == PayloadType::CERT).count();
        assert_eq!(certs, 2);
        assert_eq!(decoded.body(PayloadType::AUTH).expect("AUTH")[0], 14);
    }
}

#[test]
fn r7296_3_8_peers_without_rfc_7427_use_the_older_methods() {
    for (rsa, method) in [(true, 1), (false, 9)] {
        let mut world = World::new(certificate_config(rsa, false));
        let mut ue = Ue::new(UeConfig { hashes: false, ..certificate_ue(1, rsa) });
        world.init(1, &mut ue);
        let request = ue.auth();
        let response = world.exchange(1, &request);
        let decoded = ue.on_auth(&response);
        assert_eq!(decoded.error(), None);
        assert_eq!(decoded.body(PayloadType::AUTH).expect("AUTH")[0], method);
    }
}

#[test]
fn certificates_that_do_not_hold_are_counted_by_cause() {
    let with = |leaf: &[u8], id: &str| {
        let mut ue = certificate_ue(1, false);
        ue.id = (IdType::FQDN, id.as_bytes().to_vec());
        if let UeAuth::Certificate { chain, .. } = &mut ue.auth {
            chain[0] = der(leaf);
        }
        ue
    };
    let mut world = World::new(certificate_config(true, true));
    assert_eq!(world.attach_error(1, with(fixture!("expired.pem"), "client.test")), FAILED);
    assert_eq!(world.attach_error(1, with(fixture!("revoked.pem"), "client.test")), FAILED);
    assert_eq!(world.attach_error(1, with(fixture!("client-ec.pem"), "other.test")), FAILED);
    assert_eq!(world.attach_error(1, with(fixture!("client-rsa.pem"), "client.test")), FAILED);
    let mut bare = certificate_ue(1, false);
    if let UeAuth::Certificate { chain, .. } = &mut bare.auth {
        chain.clear();
    }
    assert_eq!(world.attach_error(1, bare), FAILED);
    let mut leaf_only = certificate_ue(1, false);
    if let UeAuth::Certificate { chain, .. } = &mut leaf_only.auth {
        chain.truncate(1);
    }
    assert_eq!(world.attach_error(1, leaf_only), FAILED);
    let drops = world.counters().drops;
    assert_eq!(drops.auth_certificate_untrusted, 2, "expired; no intermediate");
    assert_eq!(drops.auth_certificate_revoked, 1);
    assert_eq!(drops.auth_identity_mismatch, 1);
    assert_eq!(drops.auth_bad_signature, 1);
    assert_eq!(drops.auth_no_certificate, 1);
    world.attach(1, certificate_ue(1, false));
}

#[test]
fn r7296_2_19_addresses_dns_and_subnets() {
    let mut config = config();
    let mut lab = profile("lab", psk());
    lab.local_ts = vec![prefix("10.77.0.0/24").selector(), prefix("2001:db8:77::/64").selector()];
    config.profiles = vec![Arc::new(lab)];
    let mut world = World::new(config);
    let asked = [
        CfgAttrType::INTERNAL_IP4_ADDRESS,
        CfgAttrType::INTERNAL_IP6_ADDRESS,
        CfgAttrType::INTERNAL_IP4_NETMASK,
        CfgAttrType::INTERNAL_IP4_DNS,
        CfgAttrType::INTERNAL_IP6_DNS,
        CfgAttrType::INTERNAL_IP4_SUBNET,
        CfgAttrType::INTERNAL_IP6_SUBNET,
        CfgAttrType::APPLICATION_VERSION,
        CfgAttrType(16_384),
        CfgAttrType::INTERNAL_IP4_DNS,
    ];
    let mut ue = UeConfig::new(1);
    ue.config = asked.iter().map(|kind| (*kind, vec![])).collect();
    ue.ts_i = vec![TrafficSelector::ANY_IPV4, TrafficSelector::ANY_IPV6];
    ue.ts_r = ue.ts_i.clone();
    let mut ue = Ue::new(ue);
    world.init(1, &mut ue);
    let request = ue.auth();
    let response = world.exchange(1, &request);
    let decoded = ue.on_auth(&response);
    let v6 = |text: &str| text.parse::<std::net::Ipv6Addr>().expect("an address").octets().to_vec();
    let expected = vec![
        (CfgAttrType::INTERNAL_IP4_ADDRESS, vec![10, 64, 0, 2]),
        (CfgAttrType::INTERNAL_IP6_ADDRESS, [v6("fd64::2"), vec![128]].concat()),
        (CfgAttrType::INTERNAL_IP4_NETMASK, vec![255; 4]),
        (CfgAttrType::INTERNAL_IP4_DNS, vec![10, 64, 0, 1]),
        (CfgAttrType::INTERNAL_IP6_DNS, v6("fd64::1")),
        (CfgAttrType::INTERNAL_IP4_SUBNET, vec![10, 77, 0, 0, 255, 255, 255, 0]),
        (CfgAttrType::INTERNAL_IP6_SUBNET, [v6("2001:db8:77::"), vec![64]].concat()),
    ];
    assert_eq!(decoded.config(), expected);
    let child = &ue.children[0];
    assert_eq!(child.ts_i.len(), 2);
    assert_eq!(child.ts_i[0].first.to_string(), "10.64.0.2");
    assert_eq!(child.ts_i[1].last.to_string(), "fd64::2");
    assert_eq!(child.ts_r[0].last.to_string(), "10.77.0.255");
    let install = world.installs().remove(0);
    assert_eq!(install.inner.len(), 2);
    assert_eq!(install.remote_ts.len(), 2);
}

#[test]
fn r7296_2_19_the_peer_does_not_choose_its_address() {
    let mut world = World::new(config());
    let mut ue = UeConfig::new(1);
    ue.config = vec![(CfgAttrType::INTERNAL_IP4_ADDRESS, vec![10, 64, 9, 9])];
    let ue = world.attach(1, ue);
    assert_eq!(ue.addresses[0].to_string(), "10.64.0.2");
}

#[test]
fn r7296_4_no_address_leaves_the_ike_sa_up() {
    let mut config = config();
    config.pools[0].prefixes = vec![prefix("10.64.0.0/30")];
    let mut world = World::new(config);
    let without = UeConfig { config: vec![], ..UeConfig::new(1) };
    assert_eq!(world.attach_error(1, without), Some(NotifyType::FAILED_CP_REQUIRED));
    let dns_only = UeConfig { config: vec![(CfgAttrType::INTERNAL_IP4_DNS, vec![])], ..UeConfig::new(2) };
    assert_eq!(world.attach_error(2, dns_only), Some(NotifyType::FAILED_CP_REQUIRED));
    world.attach(3, UeConfig::new(3));
    assert_eq!(world.attach_error(4, UeConfig::new(4)), Some(NotifyType::INTERNAL_ADDRESS_FAILURE));
    let v6 = UeConfig { config: vec![(CfgAttrType::INTERNAL_IP6_ADDRESS, vec![])], ..UeConfig::new(5) };
    assert_eq!(world.attach_error(5, v6), Some(NotifyType::INTERNAL_ADDRESS_FAILURE));
    assert_eq!(world.session_count(), 5);
    assert_eq!(world.counters().drops.child_no_address, 2);
    assert_eq!(world.counters().drops.child_no_cp, 2);
    assert_eq!(world.counters().gauges.addresses, 1);
}

#[test]
fn r7296_2_9_child_failures_leave_the_ike_sa_up() {
    let mut lab = profile("lab", psk());
    lab.local_ts = vec![prefix("10.77.0.0/24").selector()];
    let mut world = World::new(ResponderConfig { profiles: vec![Arc::new(lab)], ..config() });
    let mut elsewhere = TrafficSelector::ANY_IPV4;
    elsewhere.first = "10.78.0.0".parse().expect("an address");
    let ue = UeConfig { ts_r: vec![elsewhere], ..UeConfig::new(1) };
    assert_eq!(world.attach_error(1, ue), Some(NotifyType::TS_UNACCEPTABLE));
    let ue = UeConfig { ts_i: vec![TrafficSelector::ANY_IPV6], ..UeConfig::new(2) };
    assert_eq!(world.attach_error(2, ue), Some(NotifyType::TS_UNACCEPTABLE));
    let ue = UeConfig { esp: vec!["chacha20poly1305"], ..UeConfig::new(3) };
    assert_eq!(world.attach_error(3, ue), Some(NotifyType::NO_PROPOSAL_CHOSEN));
    assert_eq!(world.session_count(), 3);
    assert_eq!(world.counters().gauges.children, 0);
    assert_eq!(world.installs().len(), 0);
}

#[test]
fn r6023_3_an_ike_auth_without_child_is_a_session_without_child() {
    let mut world = World::new(config());
    let mut ue = Ue::new(UeConfig { esp: vec![], config: vec![], ..UeConfig::new(1) });
    world.init(1, &mut ue);
    let request = ue.auth();
    let response = world.exchange(1, &request);
    assert_eq!(ue.on_auth(&response).error(), None);
    assert_eq!((world.session_count(), world.counters().gauges.children), (1, 0));
}

#[test]
fn r7296_1_3_1_what_is_not_done_is_not_echoed() {
    let mut world = World::new(config());
    let mut ue = Ue::new(UeConfig::new(1));
    world.init(1, &mut ue);
    let request = ue.auth_with(|builder| {
        builder.notify(NotifyType::USE_TRANSPORT_MODE, &[]);
        // 2.22: without IPCOMP_SUPPORTED in the answer there is no compression.
        builder.notify(NotifyType::IPCOMP_SUPPORTED, &[0x12, 0x34, 2]);
        builder.notify(NotifyType::HTTP_CERT_LOOKUP_SUPPORTED, &[]);
        builder.notify(NotifyType::ESP_TFC_PADDING_NOT_SUPPORTED, &[]);
        builder.notify(NotifyType(40_000), &[1, 2, 3]);
    });
    let response = world.exchange(1, &request);
    let decoded = ue.on_auth(&response);
    assert_eq!(decoded.notifies().count(), 0);
    assert_eq!(ue.children.len(), 1);
}

#[test]
fn r7296_2_4_initial_contact_ends_earlier_sessions_of_that_identity_only() {
    let mut world = World::new(config());
    let first = world.attach(1, UeConfig::new(1));
    world.attach(2, UeConfig::new(2));
    // Without it both stay.
    let same = || UeConfig { seed: 77, ..UeConfig::new(1) };
    let second = world.attach(3, same());
    assert_ne!(first.addresses, second.addresses);
    assert_eq!(world.session_count(), 3);
    let third = world.attach(4, UeConfig { seed: 78, initial_contact: true, ..UeConfig::new(1) });
    assert_eq!(world.session_count(), 2);
    assert_eq!(world.counters().exchanges.initial_contact_replaced, 2);
    assert!(third.addresses == first.addresses || third.addresses == second.addresses, "sticky");
    // An identity that was not proven ends nothing.
    let wrong = UeConfig {
        seed: 79,
        initial_contact: true,
        auth: UeAuth::Psk(b"wrong".to_vec()),
        ..UeConfig::new(2)
    };
    assert_eq!(world.attach_error(5, wrong), FAILED);
    assert_eq!(world.session_count(), 2);
}

#[test]
fn sessions_are_bounded() {
    let limits = Limits { sessions_max: 1, ..Limits::default() };
    let mut world = World::new(ResponderConfig { limits, ..config() });
    world.attach(1, UeConfig::new(1));
    assert_eq!(world.attach_error(2, UeConfig::new(2)), Some(NotifyType::TEMPORARY_FAILURE));
    assert_eq!(world.counters().drops.session_limit, 1);
}

#[test]
fn keys_are_logged_only_when_asked() {
    for keylog in [false, true] {
        let mut world = World::new(ResponderConfig { keylog, ..config() });
        let ue = world.attach(1, UeConfig::new(1));
        let logged: Vec<_> = world.events.iter().filter(|event| matches!(event, Event::KeyLog(_))).collect();
        assert_eq!(logged.len(), if keylog { 3 } else { 0 });
        for event in logged {
            if let Event::KeyLog(KeyLog::Esp(entry)) = event {
                let keys = &ue.children[0].keys;
                let expected = if entry.uplink { &keys.initiator } else { &keys.responder };
                assert_eq!(&entry.encr[..], expected.encr());
            }
        }
    }
}
