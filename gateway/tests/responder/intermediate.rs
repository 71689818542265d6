//! IKE_INTERMEDIATE (RFC 9242) and multiple key exchanges (RFC 9370) with ML-KEM.

use std::sync::Arc;
use std::time::Duration;

use codec::ike::payload::KeView;
use codec::ike::{ExchangeType, KeGroup, NotifyType};
use gateway::control::responder::{ResponderConfig, Verdict};

use crate::ue::{Decoded, Ue, UeConfig};
use crate::world::{World, config, profile, psk};

const HYBRID: &str = "aes256gcm16-prfsha384-x25519-ke1_mlkem768";
const TWO: &str = "aes256gcm16-prfsha384-x25519-ke1_mlkem768-ke3_ecp384";
const PLAIN: &str = "aes128gcm16-prfsha256-x25519";

fn configured(ike: &[&str]) -> ResponderConfig {
    let mut lab = profile("lab", psk());
    lab.ike = ike.iter().map(|text| text.parse().expect("a proposal")).collect();
    ResponderConfig { profiles: vec![Arc::new(lab)], ..config() }
}

fn hybrid_ue(ike: &'static str) -> UeConfig {
    UeConfig { ike: vec![ike], intermediate: true, ..UeConfig::new(1) }
}

fn attach(world: &mut World, config: UeConfig) -> Ue {
    let mut ue = Ue::new(config);
    world.init(1, &mut ue);
    while !ue.additional.is_empty() {
        let request = ue.intermediate();
        let response = world.deliver(1, &request).concat();
        assert_eq!(ue.on_intermediate(&response).error(), None);
    }
    let request = ue.auth();
    let response = world.deliver(1, &request).concat();
    assert_eq!(ue.on_auth(&response).error(), None);
    assert_eq!(ue.children.len(), 1);
    ue
}

#[test]
fn r9370_2_2_2_x25519_and_ml_kem_make_the_keys_together() {
    for (ike, exchanges) in [(HYBRID, 1), (TWO, 2), ("aes256-sha384-ecp384-ke7_mlkem1024", 1)] {
        let mut world = World::new(configured(&[ike]));
        let group = if exchanges == 1 && ike != HYBRID { KeGroup::ECP_384 } else { KeGroup::CURVE25519 };
        let mut ue = attach(&mut world, UeConfig { group, ..hybrid_ue(ike) });
        assert_eq!(world.counters().exchanges.intermediates, exchanges);
        let view = world.responder.session(world.now, world.session()).expect("it");
        assert!(ike.ends_with(&view.ike.additional.to_string()));
        let install = world.installs().remove(0);
        assert_eq!(install.keys_in.encr(), ue.children[0].keys.initiator.encr());
        let request = ue.create_child(None, true);
        let response = world.exchange(1, &request);
        assert_eq!(ue.on_create_child(&response).error(), None, "on the keys that came last");
    }
}

#[test]
fn r9242_3_1_ike_intermediate_is_there_when_both_announce_it() {
    for announced in [true, false] {
        let mut world = World::new(configured(&[HYBRID, PLAIN]));
        let ike = vec![HYBRID, PLAIN];
        let mut ue = Ue::new(UeConfig { ike, intermediate: announced, ..UeConfig::new(1) });
        let request = ue.init();
        let response = world.exchange(1, &request);
        let notify = Decoded::clear(&response).notify(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED).is_some();
        assert_eq!(notify, announced);
        ue.on_init(&response).expect("accepted");
        // RFC 9370 2.2.1: without it proposals with additional key exchanges are passed over.
        assert_eq!(ue.additional.len(), usize::from(announced));
    }
}

#[test]
fn r9370_2_2_2_ike_auth_before_all_key_exchanges_is_rejected() {
    let mut world = World::new(configured(&[TWO]));
    for done in 0..2 {
        let mut ue = Ue::new(hybrid_ue(TWO));
        world.init(done + 1, &mut ue);
        for _ in 0..done {
            let request = ue.intermediate();
            let response = world.exchange(done + 1, &request);
            ue.on_intermediate(&response);
        }
        let request = ue.auth();
        let response = world.exchange(done + 1, &request);
        assert_eq!(ue.open(&response).expect("authentic").error(), Some(NotifyType::INVALID_SYNTAX));
        assert_eq!(world.session_count(), 0);
    }
}

#[test]
fn r9242_3_3_2_auth_covers_what_was_said_in_between() {
    let mut world = World::new(configured(&[PLAIN]));
    // An exchange without a key exchange is covered too.
    let mut ue = Ue::new(hybrid_ue(PLAIN));
    world.init(1, &mut ue);
    let request = ue.intermediate();
    let response = world.exchange(1, &request);
    ue.on_intermediate(&response);
    let request = ue.auth();
    let response = world.exchange(1, &request);
    assert_eq!(ue.on_auth(&response).error(), None);
    // One that the UE does not know of breaks AUTH.
    let mut ue = Ue::new(UeConfig { seed: 9, ..hybrid_ue(PLAIN) });
    world.init(2, &mut ue);
    let request = ue.request(ExchangeType::IKE_INTERMEDIATE, |_| {});
    world.exchange(2, &request);
    let request = ue.auth();
    let response = world.exchange(2, &request);
    assert_eq!(ue.on_auth(&response).error(), Some(NotifyType::AUTHENTICATION_FAILED));
}

#[test]
fn r9242_3_3_1_a_repeated_exchange_is_answered_from_the_cache_after_the_keys_changed() {
    let mut world = World::new(configured(&[HYBRID]));
    let mut ue = Ue::new(hybrid_ue(HYBRID));
    world.init(1, &mut ue);
    let request = ue.intermediate();
    let response = world.exchange(1, &request);
    assert_eq!(world.exchange(1, &request), response);
    assert_eq!(world.exchange(2, &request), response, "9329-6.2-3: where it came in");
    ue.on_intermediate(&response);
    let request = ue.auth();
    let response = world.exchange(1, &request);
    assert_eq!(ue.on_auth(&response).error(), None);
}

#[test]
fn r9370_2_2_2_wrong_method_missing_value_and_bad_value_end_the_ike_sa() {
    let mut world = World::new(configured(&[HYBRID]));
    let cases: [(Option<KeGroup>, usize); 4] = [
        (None, 0),
        (Some(KeGroup::ML_KEM_1024), 1568),
        (Some(KeGroup::ML_KEM_768), 1183),
        // FIPS 203 7.2: coefficients beyond q.
        (Some(KeGroup::ML_KEM_768), 1184),
    ];
    for (number, (group, len)) in (1..).zip(cases) {
        let mut ue = Ue::new(hybrid_ue(HYBRID));
        world.init(number, &mut ue);
        let data = vec![0xff; len];
        let request = ue.request(ExchangeType::IKE_INTERMEDIATE, |builder| {
            if let Some(group) = group {
                builder.ke(&KeView { group, data: &data });
            }
        });
        let response = world.exchange(number, &request);
        assert_eq!(ue.open(&response).expect("authentic").error(), Some(NotifyType::INVALID_SYNTAX));
        assert_eq!(world.counters().gauges.half_open, 0);
    }
}

#[test]
fn r9242_5_their_number_is_bounded() {
    let mut world = World::new(configured(&[PLAIN]));
    let mut ue = Ue::new(hybrid_ue(PLAIN));
    world.init(1, &mut ue);
    for _ in 0..10 {
        let request = ue.intermediate();
        let response = world.exchange(1, &request);
        assert_eq!(ue.on_intermediate(&response).error(), None);
    }
    let request = ue.intermediate();
    let response = world.exchange(1, &request);
    assert_eq!(ue.on_intermediate(&response).error(), Some(NotifyType::INVALID_SYNTAX));
    assert_eq!(world.counters().gauges.half_open, 0);
}

#[test]
fn r9242_3_3_2_fragments_count_as_the_message_they_are_of() {
    let mut world = World::new(configured(&[HYBRID]));
    attach(&mut world, UeConfig { fragmentation: true, room: Some(500), ..hybrid_ue(HYBRID) });
    assert_eq!(world.counters().exchanges.messages_joined, 1, "the encapsulation key");
}

#[test]
fn r9370_ml_kem_alone_in_ike_sa_init() {
    const ALONE: &str = "aes256gcm16-prfsha384-mlkem768";
    let mut world = World::new(configured(&[ALONE]));
    let group = KeGroup::ML_KEM_768;
    attach(&mut world, UeConfig { group, ..hybrid_ue(ALONE) });
    // RFC 6989 2.5: a key that fails its checks is not answered.
    let mut ue = Ue::new(UeConfig { group, seed: 3, ..hybrid_ue(ALONE) });
    let mut request = ue.init();
    let at = request.len() - 1184;
    let key = request.windows(8).position(|octets| octets[4..8] == [0, 36, 0, 0]).expect("KE") + 8;
    assert!(key < at + 1184);
    request[key..key + 3].fill(0xff);
    assert!(world.deliver(2, &request).is_empty());
    assert_eq!(world.verdict, Verdict::Bad);
    assert_eq!(world.counters().drops.bad_ke_value, 1);
}

#[test]
fn r9370_2_2_4_rekey_with_ike_followup_ke() {
    for ike in [HYBRID, TWO] {
        let mut world = World::new(configured(&[ike]));
        let mut ue = attach(&mut world, hybrid_ue(ike));
        let request = ue.rekey_ike();
        let response = world.exchange(1, &request);
        let mut rekey = ue.on_rekey_begun(&response);
        // Nothing else is made of the IKE SA meanwhile.
        let other = ue.create_child(None, false);
        let response = world.exchange(1, &other);
        assert_eq!(ue.on_create_child(&response).error(), Some(NotifyType::TEMPORARY_FAILURE));
        while !rekey.methods.is_empty() {
            let request = ue.follow_up(&mut rekey);
            let response = world.exchange(1, &request);
            assert_eq!(ue.on_follow_up(&mut rekey, &response).error(), None);
        }
        let request = ue.create_child(None, false);
        let response = world.exchange(1, &request);
        assert_eq!(ue.on_create_child(&response).error(), None, "on the new IKE SA");
        let request = ue.informational_on_old(|builder| {
            builder.delete_ike();
        });
        world.exchange(1, &request);
        assert_eq!(world.session_count(), 1);
        assert_eq!(world.counters().exchanges.ike_rekeyed, 1);
    }
}

#[test]
fn r9370_2_2_4_an_unknown_or_old_link_is_not_fatal() {
    let mut world = World::new(configured(&[HYBRID]));
    let mut ue = attach(&mut world, hybrid_ue(HYBRID));
    let request = ue.rekey_ike();
    let response = world.exchange(1, &request);
    let mut rekey = ue.on_rekey_begun(&response);
    let link = std::mem::replace(&mut rekey.link, vec![1, 2, 3]);
    let request = ue.follow_up(&mut rekey);
    let response = world.exchange(1, &request);
    assert_eq!(ue.on_follow_up(&mut rekey, &response).error(), Some(NotifyType::STATE_NOT_FOUND));
    world.advance(Duration::from_secs(21));
    rekey.link = link;
    rekey.methods.push(KeGroup::ML_KEM_768);
    let request = ue.follow_up(&mut rekey);
    let response = world.exchange(1, &request);
    assert_eq!(ue.on_follow_up(&mut rekey, &response).error(), Some(NotifyType::STATE_NOT_FOUND));
    assert_eq!(world.session_count(), 1);
    // Another rekey begins anew.
    let request = ue.rekey_ike();
    let response = world.exchange(1, &request);
    ue.on_rekey_begun(&response);
}

/// A gateway that rekeys its IKE SAs soon and never checks liveness.
fn hasty(ike: &[&str]) -> ResponderConfig {
    let mut lab = profile("lab", psk());
    lab.ike = ike.iter().map(|text| text.parse().expect("a proposal")).collect();
    lab.dpd = Duration::ZERO;
    lab.rekey_ike = Duration::from_secs(100);
    ResponderConfig { profiles: vec![Arc::new(lab)], ..config() }
}

/// The one request that the gateway has sent on connection 1.
fn asked(world: &mut World, ue: &Ue) -> Decoded {
    let sent = world.take_sent(1).concat();
    let decoded = ue.open(&sent).expect("authentic");
    assert!(!decoded.header.flags.is_response());
    decoded
}

fn tell(world: &mut World, response: &[u8]) {
    world.tell(1, response);
}

#[test]
fn r9370_2_2_4_the_gateway_rekeys_with_every_key_exchange_that_made_the_ike_sa() {
    for (ike, exchanges) in [(HYBRID, 1), (TWO, 2)] {
        let mut world = World::new(hasty(&[ike]));
        let mut ue = attach(&mut world, hybrid_ue(ike));
        world.advance(Duration::from_secs(100));
        let request = asked(&mut world, &ue);
        assert_eq!(request.header.exchange, ExchangeType::CREATE_CHILD_SA);
        let (response, mut rekey) = ue.accept_ike_begun(&request, b"link 0");
        assert_eq!(rekey.methods.len(), exchanges);
        tell(&mut world, &response);
        let mut made = None;
        for step in 1..=exchanges {
            let request = asked(&mut world, &ue);
            let link = format!("link {step}");
            let (response, sa) = ue.accept_follow_up(&mut rekey, &request, link.as_bytes());
            tell(&mut world, &response);
            made = sa;
        }
        ue.adopt(made.expect("complete"));
        // The old IKE SA is deleted by the hand that began the rekey.
        let request = asked(&mut world, &ue);
        let response = ue.respond(&request, |_| {});
        tell(&mut world, &response);
        assert_eq!(world.counters().exchanges.ike_rekeyed_here, 1);
        let request = ue.create_child(Some(ue.children[0].spi_in), false);
        let response = world.exchange(1, &request);
        assert_eq!(ue.on_create_child(&response).error(), None, "on the new keys");
        let install = world.installs().pop().expect("a rekeyed child");
        assert_eq!(install.keys_in.encr(), ue.children[1].keys.initiator.encr());
        let replaced = ue.children.remove(0).spi_in;
        let request = ue.informational(|builder| {
            builder.delete_esp(&[replaced]);
        });
        world.exchange(1, &request);
        // And again, from the new IKE SA.
        world.advance(Duration::from_secs(100));
        let request = asked(&mut world, &ue);
        assert_eq!(request.header.exchange, ExchangeType::CREATE_CHILD_SA);
    }
}

#[test]
fn r9370_2_2_4_a_ue_without_ike_intermediate_is_offered_single_key_exchanges_only() {
    let mut world = World::new(hasty(&[HYBRID, PLAIN]));
    let mut ue = attach(&mut world, UeConfig { ike: vec![PLAIN], ..UeConfig::new(1) });
    world.advance(Duration::from_secs(100));
    let request = asked(&mut world, &ue);
    let (response, sa, _) = ue.accept_ike(&request);
    tell(&mut world, &response);
    ue.adopt(sa);
    assert_eq!(world.counters().exchanges.ike_rekeyed_here, 1);
}

#[test]
fn r9370_2_2_4_while_its_key_exchanges_run_nothing_else_is_rekeyed() {
    let mut world = World::new(hasty(&[TWO]));
    let mut ue = attach(&mut world, hybrid_ue(TWO));
    world.advance(Duration::from_secs(100));
    let request = asked(&mut world, &ue);
    let (response, mut rekey) = ue.accept_ike_begun(&request, b"one");
    tell(&mut world, &response);
    let pending = asked(&mut world, &ue);
    let request = ue.rekey_ike();
    let response = world.deliver(1, &request).concat();
    assert_eq!(ue.on_rekey_ike(&response).error(), Some(NotifyType::TEMPORARY_FAILURE));
    let request = ue.create_child(None, false);
    let response = world.exchange(1, &request);
    assert_eq!(ue.on_create_child(&response).error(), Some(NotifyType::TEMPORARY_FAILURE));
    let (response, _) = ue.accept_follow_up(&mut rekey, &pending, b"two");
    tell(&mut world, &response);
    let pending = asked(&mut world, &ue);
    let (response, sa) = ue.accept_follow_up(&mut rekey, &pending, b"");
    tell(&mut world, &response);
    ue.adopt(sa.expect("complete"));
    assert_eq!(world.counters().exchanges.ike_rekeyed_here, 1);
}

#[test]
fn r9370_2_2_4_a_peer_that_has_forgotten_is_asked_from_the_start_later() {
    let mut world = World::new(hasty(&[HYBRID]));
    let mut ue = attach(&mut world, hybrid_ue(HYBRID));
    world.advance(Duration::from_secs(100));
    let request = asked(&mut world, &ue);
    let (response, _) = ue.accept_ike_begun(&request, b"one");
    tell(&mut world, &response);
    let request = asked(&mut world, &ue);
    let response = ue.respond(&request, |builder| {
        builder.notify(NotifyType::STATE_NOT_FOUND, &[]);
    });
    tell(&mut world, &response);
    assert_eq!(world.counters().exchanges.rekeys_put_off, 1);
    world.advance(Duration::from_secs(10));
    let request = asked(&mut world, &ue);
    assert_eq!(request.header.exchange, ExchangeType::CREATE_CHILD_SA);
    assert_eq!(world.session_count(), 1);
}

#[test]
fn r9370_2_2_4_an_answer_that_lacks_what_was_agreed_ends_the_ike_sa() {
    // No link, no KE, a KE of another method, a value that is none.
    for case in 0..4 {
        let mut world = World::new(hasty(&[HYBRID]));
        let mut ue = attach(&mut world, hybrid_ue(HYBRID));
        world.advance(Duration::from_secs(100));
        let request = asked(&mut world, &ue);
        let link: &[u8] = if case == 0 { b"" } else { b"one" };
        let (response, _) = ue.accept_ike_begun(&request, link);
        tell(&mut world, &response);
        if case > 0 {
            let request = asked(&mut world, &ue);
            let response = ue.respond(&request, |builder| match case {
                1 => {}
                2 => write_ke(builder, KeGroup::CURVE25519, 32),
                _ => write_ke(builder, KeGroup::ML_KEM_768, 31),
            });
            tell(&mut world, &response);
        }
        let request = asked(&mut world, &ue);
        assert!(request.body(codec::ike::PayloadType::DELETE).is_some(), "case {case}");
        assert_eq!(world.counters().drops.bad_answer, 1, "case {case}");
        let response = ue.respond(&request, |_| {});
        tell(&mut world, &response);
        assert_eq!(world.session_count(), 0);
    }
}

fn write_ke(builder: &mut codec::ike::MessageBuilder, group: KeGroup, len: usize) {
    builder.ke(&KeView { group, data: &vec![9; len] });
}

const HYBRID_ESP: &str = "aes256gcm16-x25519-ke1_mlkem768";
const TWO_ESP: &str = "aes256gcm16-x25519-ke1_mlkem768-ke2_ecp384";

/// A gateway whose Child SAs take several key exchanges, and which rekeys them soon.
fn hybrid_children(esp: &str) -> ResponderConfig {
    let mut lab = profile("lab", psk());
    lab.ike = vec![HYBRID.parse().expect("a proposal")];
    lab.esp = vec![esp.parse().expect("a proposal")];
    lab.dpd = Duration::ZERO;
    lab.rekey_child = Duration::from_secs(100);
    ResponderConfig { profiles: vec![Arc::new(lab)], ..config() }
}

fn children_of(world: &World) -> usize {
    world.responder.session(world.now, world.session()).expect("it").children.len()
}

#[test]
fn r9370_2_2_4_a_ue_rekeys_and_adds_children_with_additional_key_exchanges() {
    for (esp, exchanges) in [(HYBRID_ESP, 1), (TWO_ESP, 2)] {
        let mut world = World::new(hybrid_children(esp));
        // In IKE_AUTH there is none of it.
        let mut ue = attach(&mut world, UeConfig { esp: vec![esp], ..hybrid_ue(HYBRID) });
        world.installs();
        for rekeyed in [Some(ue.children[0].spi_in), None] {
            let request = ue.create_child(rekeyed, true);
            let response = world.deliver(1, &request).concat();
            let mut child = ue.on_child_begun(&response);
            assert_eq!(child.methods.len(), exchanges);
            while !child.methods.is_empty() {
                assert!(world.installs().is_empty(), "not before the last exchange");
                let request = ue.follow_up_child(&mut child);
                let response = world.deliver(1, &request).concat();
                assert_eq!(ue.on_follow_up_child(&mut child, &response).error(), None);
            }
            let install = world.installs().remove(0);
            let made = ue.children.last().expect("made");
            assert_eq!((install.spi_in, install.spi_out), (made.spi_out, made.spi_in));
            assert_eq!(install.keys_in.encr(), made.keys.initiator.encr());
            assert_eq!(install.keys_out.encr(), made.keys.responder.encr());
            assert_eq!(install.replaces.is_some(), rekeyed.is_some());
        }
        let counted = world.counters().exchanges;
        assert_eq!((counted.children_rekeyed, counted.children_created), (1, 1));
        assert_eq!(children_of(&world), 3);
    }
}

#[test]
fn r9370_2_2_4_the_gateway_rekeys_children_with_additional_key_exchanges() {
    for (esp, exchanges) in [(HYBRID_ESP, 1), (TWO_ESP, 2)] {
        let mut world = World::new(hybrid_children(esp));
        let mut ue = attach(&mut world, UeConfig { esp: vec![esp], ..hybrid_ue(HYBRID) });
        world.installs();
        world.advance(Duration::from_secs(100));
        let request = asked(&mut world, &ue);
        let (response, mut child) = ue.accept_child_begun(&request, b"link 0");
        tell(&mut world, &response);
        for step in 1..=exchanges {
            assert!(world.installs().is_empty(), "not before the last exchange");
            let request = asked(&mut world, &ue);
            let response = ue.accept_child_follow_up(&mut child, &request, format!("link {step}").as_bytes());
            tell(&mut world, &response);
        }
        let install = world.installs().remove(0);
        let made = ue.children.last().expect("made");
        assert_eq!((install.spi_in, install.spi_out), (made.spi_out, made.spi_in));
        assert_eq!(install.keys_in.encr(), made.keys.initiator.encr());
        assert_eq!(install.keys_out.encr(), made.keys.responder.encr());
        // The hand that began it deletes what was replaced.
        let request = asked(&mut world, &ue);
        assert_eq!(request.deleted(), [ue.children[0].spi_out]);
        assert_eq!(world.counters().exchanges.children_rekeyed_here, 1);
    }
}

#[test]
fn r9370_2_2_4_a_child_that_stays_incomplete_is_forgotten() {
    let mut world = World::new(hybrid_children(HYBRID_ESP));
    let mut ue = attach(&mut world, UeConfig { esp: vec![HYBRID_ESP], ..hybrid_ue(HYBRID) });
    let request = ue.create_child(Some(ue.children[0].spi_in), true);
    let response = world.deliver(1, &request).concat();
    let mut child = ue.on_child_begun(&response);
    assert_eq!(world.counters().gauges.children, 2, "its SPI is taken");
    world.advance(Duration::from_secs(21));
    assert_eq!(world.counters().gauges.children, 1, "and free again");
    let request = ue.follow_up_child(&mut child);
    let response = world.deliver(1, &request).concat();
    assert_eq!(ue.on_follow_up_child(&mut child, &response).error(), Some(NotifyType::STATE_NOT_FOUND));
    // What waited for it goes on: the gateway's own rekey.
    world.advance(Duration::from_secs(100));
    assert_eq!(asked(&mut world, &ue).header.exchange, ExchangeType::CREATE_CHILD_SA);
}

#[test]
fn r9370_2_2_4_a_refused_key_exchange_of_a_child_leaves_the_old_one_in_use() {
    for (error, again) in [(NotifyType::STATE_NOT_FOUND, true), (NotifyType::NO_ADDITIONAL_SAS, false)] {
        let mut world = World::new(hybrid_children(HYBRID_ESP));
        let mut ue = attach(&mut world, UeConfig { esp: vec![HYBRID_ESP], ..hybrid_ue(HYBRID) });
        world.advance(Duration::from_secs(100));
        let request = asked(&mut world, &ue);
        let (response, _) = ue.accept_child_begun(&request, b"link");
        tell(&mut world, &response);
        let request = asked(&mut world, &ue);
        let response = ue.respond(&request, |builder| {
            builder.notify(error, &[]);
        });
        tell(&mut world, &response);
        assert_eq!((children_of(&world), world.counters().gauges.children), (1, 1));
        world.advance(Duration::from_secs(10));
        assert_eq!(!world.take_sent(1).is_empty(), again, "{error}");
    }
}

#[test]
fn r9370_2_2_4_children_without_what_the_profile_demands_are_refused() {
    let mut world = World::new(hybrid_children(HYBRID_ESP));
    let mut ue = attach(&mut world, UeConfig { esp: vec!["aes256gcm16-x25519"], ..hybrid_ue(HYBRID) });
    let request = ue.create_child(Some(ue.children[0].spi_in), true);
    let response = world.deliver(1, &request).concat();
    assert_eq!(ue.on_create_child(&response).error(), Some(NotifyType::NO_PROPOSAL_CHOSEN));
}
