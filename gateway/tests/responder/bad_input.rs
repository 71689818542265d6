//! Garbage, cuts, flips and replays. Nothing of it may panic, change a session or reach another UE.

use std::time::Duration;

use codec::ike::{ExchangeType, NotifyType, PayloadType};
use codec::{Random, SeededRandom};
use gateway::control::responder::{Event, Verdict};

use crate::ue::{Ue, UeConfig, critical, inner_payloads};
use crate::world::{World, certificate_config, certificate_ue, config};

/// The message cut to `len` octets, with the header's Length made to fit if there is one.
fn cut(message: &[u8], len: usize) -> Vec<u8> {
    let mut cut = message[..len].to_vec();
    if len >= 28 {
        cut[24..28].copy_from_slice(&u32::try_from(len).expect("short").to_be_bytes());
    }
    cut
}

#[test]
fn r9329_6_1_11_garbage_is_counted_and_changes_nothing() {
    let mut world = World::new(config());
    world.attach(1, UeConfig::new(1));
    let events = world.events.len();
    let mut random = SeededRandom::new(5);
    for round in 0..3000usize {
        let mut message = vec![0; round % 300];
        random.fill(&mut message);
        // Some of it with a plausible header.
        if message.len() >= 28 && round % 3 == 0 {
            let len = u32::try_from(message.len()).expect("short");
            message[17] = 0x20;
            message[18] = 34 + (round % 4) as u8;
            message[19] = 0x08;
            message[24..28].copy_from_slice(&len.to_be_bytes());
            if round % 2 == 0 {
                message[8..16].fill(0);
                message[20..24].fill(0);
            }
        }
        world.deliver(2, &message);
        assert_eq!(world.verdict, Verdict::Bad);
    }
    let total: u64 = world.counters().drops.iter().map(|(_, count)| count).sum();
    assert!(total >= 3000, "every one has its reason");
    assert_eq!((world.session_count(), world.events.len()), (1, events));
    assert_eq!(world.counters().gauges.half_open, 0);
}

#[test]
fn every_cut_of_every_message_is_harmless() {
    let mut world = World::new(config());
    let mut ue = Ue::new(UeConfig::new(1));
    let init = ue.init();
    for len in 0..init.len() {
        let sent = world.deliver(1, &cut(&init, len));
        let accepted = sent.iter().any(|message| crate::world::clear_error(message).is_none());
        assert!(!accepted, "IKE_SA_INIT cut at {len}");
        world.deliver(1, &init[..len]);
    }
    assert_eq!(world.counters().gauges.half_open, 0);
    world.advance(Duration::from_secs(1));
    let response = world.exchange(1, &init);
    ue.on_init(&response).expect("accepted");
    let auth = ue.auth();
    for len in 0..auth.len() {
        assert!(world.deliver(1, &cut(&auth, len)).iter().all(|m| crate::world::clear_error(m).is_some()));
        assert_eq!(world.session_count(), 0, "IKE_AUTH cut at {len}");
    }
    let response = world.exchange(1, &auth);
    assert_eq!(ue.on_auth(&response).error(), None);
    world.closed();
    world.bound();
    for kind in 0..3 {
        let message = match kind {
            0 => ue.create_child(None, true),
            1 => ue.rekey_ike(),
            _ => ue.informational(|_| {}),
        };
        for len in 0..message.len() {
            world.deliver(1, &cut(&message, len));
            assert_eq!(world.verdict, Verdict::Bad, "message {kind} cut at {len}");
        }
        assert_eq!((world.session_count(), world.counters().gauges.children), (1, 1 + u64::from(kind > 0)));
        let response = world.exchange(1, &message);
        match kind {
            0 => assert_eq!(ue.on_create_child(&response).error(), None),
            1 => assert_eq!(ue.on_rekey_ike(&response).error(), None),
            _ => assert!(ue.open(&response).is_some()),
        }
    }
}

#[test]
fn every_flipped_bit_is_harmless() {
    let mut world = World::new(config());
    let mut ue = Ue::new(UeConfig::new(1));
    world.init(1, &mut ue);
    let auth = ue.auth();
    let flip = |message: &[u8], at: usize| {
        let mut flipped = message.to_vec();
        flipped[at] ^= 1 << (at % 8);
        flipped
    };
    for at in 0..auth.len() {
        world.deliver(1, &flip(&auth, at));
        assert_eq!((world.session_count(), world.counters().gauges.half_open), (0, 1), "flip at {at}");
    }
    let response = world.exchange(1, &auth);
    assert_eq!(ue.on_auth(&response).error(), None);
    world.bound();
    let message = ue.create_child(None, false);
    for at in 0..message.len() {
        world.deliver(9, &flip(&message, at));
        assert_eq!(world.verdict, Verdict::Bad, "flip at {at}");
    }
    assert!(world.bound().is_empty(), "9329-6.1-15");
    assert_eq!((world.session_count(), world.counters().gauges.children), (1, 1));
    let response = world.exchange(1, &message);
    assert_eq!(ue.on_create_child(&response).error(), None);
}

#[test]
fn a_first_failed_check_of_a_half_open_ike_sa_closes_nothing() {
    let mut world = World::new(config());
    let mut ue = Ue::new(UeConfig::new(1));
    world.init(1, &mut ue);
    let auth = ue.auth();
    let mut forged = auth.clone();
    *forged.last_mut().expect("not empty") ^= 1;
    world.deliver(2, &forged);
    assert!(world.closed().is_empty(), "keys were not even known");
    world.deliver(2, &forged);
    assert_eq!(world.closed().len(), 1, "the keys are kept, and a second failure tells");
    let response = world.exchange(1, &auth);
    assert_eq!(ue.on_auth(&response).error(), None);
}

#[test]
fn authentic_messages_with_every_payload_cut_short_never_panic() {
    let mut ue = Ue::new(certificate_ue(1, false));
    World::new(certificate_config(false, false)).init(1, &mut ue);
    let payloads = inner_payloads(&mut ue);
    assert!(payloads.len() >= 8);
    for (index, (kind, body)) in payloads.iter().enumerate() {
        // Certificates are long and opaque to IKE; every 40th octet of them is enough here.
        let step = if *kind == PayloadType::CERT { 40 } else { 1 };
        for len in (0..body.len()).step_by(step) {
            let mut world = World::new(certificate_config(false, false));
            let mut ue = Ue::new(certificate_ue(1, false));
            world.init(1, &mut ue);
            let request = ue.request(ExchangeType::IKE_AUTH, |builder| {
                for (at, (kind, body)) in payloads.iter().enumerate() {
                    let body = if at == index { &body[..len] } else { &body[..] };
                    builder.payload(*kind, |out| out.extend_from_slice(body));
                }
            });
            let response = world.exchange(1, &request);
            let decoded = ue.open(&response).expect("protected");
            // What is left of an IDr, a Notify or a configuration may be another valid one.
            let optional = [PayloadType::ID_R, PayloadType::NOTIFY, PayloadType::CONFIG];
            if !optional.contains(kind) {
                assert!(decoded.error().is_some(), "{kind} cut at {len}");
                assert_eq!(world.session_count(), 0, "{kind} cut at {len}");
            }
            assert_eq!(world.counters().gauges.half_open, 0);
        }
    }
}

#[test]
fn r7296_2_21_3_too_many_or_doubled_payloads_are_a_syntax_error() {
    let mut world = World::new(config());
    let mut ue = world.attach(1, UeConfig::new(1));
    let request = ue.informational(|builder| {
        for _ in 0..65 {
            builder.notify(NotifyType(40_000), &[]);
        }
    });
    let response = world.exchange(1, &request);
    assert_eq!(ue.open(&response).expect("protected").error(), Some(NotifyType::INVALID_SYNTAX));
    let mut ue = world.attach(2, UeConfig::new(2));
    let nonce = ue.nonce();
    let request = ue.request(ExchangeType::CREATE_CHILD_SA, |builder| {
        builder.nonce(&nonce).nonce(&nonce);
    });
    let response = world.exchange(2, &request);
    assert_eq!(ue.open(&response).expect("protected").error(), Some(NotifyType::INVALID_SYNTAX));
    let mut ue = world.attach(3, UeConfig::new(3));
    let request = ue.request(ExchangeType(250), |_| {});
    let response = world.exchange(3, &request);
    assert_eq!(ue.open(&response).expect("protected").error(), Some(NotifyType::INVALID_SYNTAX));
    assert_eq!(world.session_count(), 0);
}

#[test]
fn r7296_2_5_unknown_critical_payload_in_an_authentic_request() {
    let mut world = World::new(config());
    let mut ue = world.attach(1, UeConfig::new(1));
    let child = ue.children[0].spi_in;
    let request = ue.informational(|builder| {
        builder.delete_esp(&[child]);
        critical(builder, PayloadType(201));
    });
    let response = world.exchange(1, &request);
    let decoded = ue.open(&response).expect("protected");
    let notify = decoded.notify(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD).expect("refused");
    assert_eq!(notify.data, [201]);
    assert_eq!((world.session_count(), world.counters().gauges.children), (1, 1), "nothing was done");
}

#[test]
fn r9329_6_1_15_replays_change_nothing() {
    let mut world = World::new(config());
    let mut ue = Ue::new(UeConfig::new(1));
    let mut recorded = vec![ue.init()];
    let response = world.exchange(1, &recorded[0]);
    ue.on_init(&response).expect("accepted");
    recorded.push(ue.auth());
    let response = world.exchange(1, &recorded[1]);
    ue.on_auth(&response);
    for round in 0..6 {
        let message = if round % 2 == 0 { ue.create_child(None, false) } else { ue.informational(|_| {}) };
        let response = world.exchange(1, &message);
        if round % 2 == 0 {
            ue.on_create_child(&response);
        }
        recorded.push(message);
    }
    let (before, events) = (world.counters().gauges, world.events.len());
    for round in 0..200 {
        let message = recorded[(round * 7) % recorded.len()].clone();
        if message != recorded[0] {
            world.deliver(2 + (round % 3) as u32, &message);
        }
    }
    assert_eq!(world.counters().gauges, before);
    assert_eq!(world.events.len(), events);
    assert!(!world.events.iter().any(|event| matches!(event, Event::CloseConn { .. })));
}
