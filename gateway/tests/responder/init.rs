//! IKE_SA_INIT.

use std::sync::Arc;
use std::time::Duration;

use codec::ike::{
    ExchangeType, Flags, IkeHeader, IkeSpi, KeGroup, MessageBuilder, MessageId, NotifyType, PayloadType,
};
use gateway::control::responder::{Event, Limits, Verdict};
use gateway::types::SessionId;

use crate::ue::{Decoded, Ue, UeConfig};
use crate::world::{SUITES, World, certificate_config, clear_error, config, conn, path, profile, psk};

#[test]
fn r7296_1_2_every_suite_attaches() {
    let mut config = config();
    let mut wide = profile("wide", psk());
    wide.ike = SUITES.iter().map(|(ike, _, _)| ike.parse().expect("a proposal")).collect();
    wide.esp = SUITES.iter().map(|(_, _, esp)| esp.parse().expect("a proposal")).collect();
    config.profiles = vec![Arc::new(wide)];
    let mut world = World::new(config);
    for ((ike, group, esp), number) in SUITES.into_iter().zip(1..) {
        let ue = UeConfig { ike: vec![ike], group, esp: vec![esp], ..UeConfig::new(number.into()) };
        let ue = world.attach(number, ue);
        assert_eq!(ue.sa.as_ref().expect("attached").suite.to_string(), ike);
        let install = world.installs().remove(0);
        // Both ends hold the same keys, crosswise.
        let child = &ue.children[0];
        assert_eq!((install.spi_in, install.spi_out), (child.spi_out, child.spi_in));
        assert_eq!(install.keys_in.encr(), child.keys.initiator.encr());
        assert_eq!(install.keys_out.encr(), child.keys.responder.encr());
        assert_eq!(install.keys_in.integ(), child.keys.initiator.integ());
        assert_eq!(install.suite, child.suite);
    }
    assert_eq!(world.session_count(), 4);
}

#[test]
fn r7296_1_3_invalid_ke_payload_names_the_group_and_the_retry_works() {
    let mut world = World::new(config());
    // Offers both groups, guesses the one the gateway does not take.
    let config = UeConfig {
        ike: vec!["aes128gcm16-prfsha256-x25519-ecp384"],
        group: KeGroup::ECP_384,
        ..UeConfig::new(1)
    };
    let mut ue = Ue::new(config);
    let request = ue.init();
    let response = world.exchange(1, &request);
    assert_eq!(ue.on_init(&response), Err(NotifyType::INVALID_KE_PAYLOAD));
    assert_eq!(ue.config.group, KeGroup::CURVE25519);
    assert_eq!(Decoded::clear(&response).header.spi_r, IkeSpi::ZERO);
    assert_eq!(world.verdict, Verdict::Good, "9329-6.4-1: an answer that expects a retry closes nothing");
    assert_eq!(world.counters().gauges.half_open, 0);
    // 9329-6.4-1: the retry comes on the same connection, with the same SPI.
    world.init(1, &mut ue);
    let request = ue.auth();
    let response = world.exchange(1, &request);
    assert_eq!(ue.on_auth(&response).error(), None);
    assert_eq!(world.counters().drops.ike_invalid_ke, 1);
}

#[test]
fn r7296_2_7_no_proposal_chosen() {
    let mut world = World::new(config());
    for (ike, group) in [
        ("aes256gcm16-prfsha256-x25519", KeGroup::CURVE25519),
        ("aes128gcm16-prfsha512-x25519", KeGroup::CURVE25519),
        ("aes128gcm16-prfsha256-ecp256", KeGroup::ECP_256),
    ] {
        let mut ue = Ue::new(UeConfig { ike: vec![ike], group, ..UeConfig::new(1) });
        let response = {
            let request = ue.init();
            world.exchange(1, &request)
        };
        assert_eq!(ue.on_init(&response), Err(NotifyType::NO_PROPOSAL_CHOSEN), "{ike}");
    }
    assert_eq!(world.counters().drops.ike_no_proposal, 3);
    assert_eq!(world.counters().gauges.half_open, 0);
}

#[test]
fn r7296_2_7_second_proposal_of_the_offer_is_taken() {
    let mut world = World::new(config());
    let config = UeConfig {
        ike: vec!["chacha20poly1305-prfsha256-modp2048", "aes256-sha256-modp2048"],
        group: KeGroup::MODP_2048,
        ..UeConfig::new(1)
    };
    let ue = world.attach(1, config);
    assert_eq!(ue.sa.expect("attached").suite.to_string(), "aes256-sha256-modp2048");
}

#[test]
fn r7296_2_1_retransmitted_init_gets_the_identical_response() {
    let mut world = World::new(config());
    let mut ue = Ue::new(UeConfig::new(1));
    let request = ue.init();
    let first = world.exchange(1, &request);
    assert_eq!(world.exchange(1, &request), first);
    // 9329-6.2-3: and on a new connection, when the old one broke.
    world.responder.handle_conn_closed(conn(1));
    let mut copy = request.clone();
    let verdict = world.responder.handle_message(world.now, conn(9), &path(1), &mut copy);
    world.collect();
    assert_eq!((verdict, world.take_sent(9)), (Verdict::Good, vec![first.clone()]));
    assert_eq!(world.counters().gauges.half_open, 1);
    assert_eq!(world.counters().exchanges.retransmissions_answered, 2);
    ue.on_init(&first).expect("accepted");
    let request = ue.auth();
    let mut copy = request.clone();
    let _ = world.responder.handle_message(world.now, conn(9), &path(1), &mut copy);
    world.collect();
    let answer = world.take_sent(9).remove(0);
    assert_eq!(ue.on_auth(&answer).error(), None);
}

#[test]
fn d3_one_half_open_ike_sa_per_connection() {
    let mut world = World::new(config());
    let (mut one, mut two) = (Ue::new(UeConfig::new(1)), Ue::new(UeConfig::new(2)));
    world.init(1, &mut one);
    let request = two.init();
    assert!(world.deliver(1, &request).is_empty());
    assert_eq!(world.verdict, Verdict::Bad);
    // The same SPI with other content is no retransmission either.
    let other = one.init();
    assert!(world.deliver(1, &other).is_empty());
    assert_eq!(world.counters().drops.half_open_busy, 2);
    assert_eq!(world.counters().gauges.half_open, 1);
}

#[test]
fn d4_r9329_6_1_9_init_on_a_connection_with_a_session_is_dropped() {
    let mut world = World::new(config());
    let mut ue = world.attach(1, UeConfig::new(1));
    let mut other = Ue::new(UeConfig::new(2));
    let request = other.init();
    assert!(world.deliver(1, &request).is_empty());
    assert_eq!(world.verdict, Verdict::Bad);
    assert_eq!(world.counters().drops.init_on_active_connection, 1);
    // The session is as it was; once it is deleted the connection serves another.
    let request = ue.informational(|builder| {
        builder.delete_ike();
    });
    world.exchange(1, &request);
    world.init(1, &mut other);
}

#[test]
fn r7296_2_5_unknown_critical_payload_is_refused_by_its_type() {
    let mut world = World::new(config());
    let mut ue = Ue::new(UeConfig::new(1));
    let mut request = ue.init_with(|builder| {
        builder.payload(PayloadType(200), |out| out.extend_from_slice(&[1, 2, 3]));
    });
    // Not critical: skipped.
    world.exchange(1, &request);
    assert_eq!(world.counters().gauges.half_open, 1);
    // The last payload is 7 octets long; set its critical bit.
    let flags_at = request.len() - 6;
    request[flags_at] = 0x80;
    let response = world.exchange(2, &request);
    let decoded = Decoded::clear(&response);
    let notify = decoded.notify(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD).expect("refused");
    assert_eq!(notify.data, [200]);
    assert_eq!(world.counters().gauges.half_open, 1);
}

#[test]
fn r7296_2_5_versions() {
    let mut world = World::new(config());
    let mut ue = Ue::new(UeConfig::new(1));
    let mut request = ue.init();
    request[17] = 0x30;
    let response = world.exchange(1, &request);
    assert_eq!(clear_error(&response), Some(NotifyType::INVALID_MAJOR_VERSION));
    assert_eq!(response[17], 0x20);
    assert_eq!(world.verdict, Verdict::Bad);
    request[17] = 0x10;
    assert!(world.deliver(1, &request).is_empty());
    assert_eq!(world.counters().drops.bad_version, 2);
    // 9329-6.4-1: nothing was closed; a higher minor version is ignored.
    assert!(world.closed().is_empty());
    request[17] = 0x2f;
    let response = world.exchange(1, &request);
    assert_eq!(clear_error(&response), None);
    // A response is never answered.
    request[17] = 0x30;
    request[19] = 0x28;
    assert!(world.deliver(2, &request).is_empty());
}

#[test]
fn r7296_3_1_header_rules_of_the_first_request() {
    let mut world = World::new(config());
    let mut ue = Ue::new(UeConfig::new(1));
    let good = ue.init();
    let cases: [(&str, usize, u8); 5] = [
        ("message id not zero", 23, 1),
        ("response flag", 19, 0x28),
        ("initiator flag missing", 19, 0),
        ("exchange type", 18, 37),
        ("unknown exchange type", 18, 99),
    ];
    for (case, at, value) in cases {
        let mut request = good.clone();
        request[at] = value;
        world.deliver(1, &request);
        assert_eq!(world.verdict, Verdict::Bad, "{case}");
        assert_eq!(world.counters().gauges.half_open, 0, "{case}");
    }
    assert_eq!(world.counters().drops.bad_header, 5);
    let mut request = good.clone();
    request[..8].fill(0);
    world.deliver(1, &request);
    assert_eq!(world.counters().drops.bad_header, 6);
    let mut request = good.clone();
    request[8..16].fill(7);
    let response = world.exchange(1, &request);
    assert_eq!(clear_error(&response), Some(NotifyType::INVALID_IKE_SPI));
    let mut request = good.clone();
    request.push(0);
    let response = world.exchange(1, &request);
    assert_eq!(clear_error(&response), Some(NotifyType::INVALID_SYNTAX));
    assert_eq!(world.counters().drops.length_mismatch, 1);
    assert_eq!(clear_error(&world.exchange(1, &good)), None);
}

#[test]
fn r7296_2_21_4_unknown_spi_is_answered_in_kind_and_rarely() {
    let limits = Limits { unprotected_replies_per_s: 5, ..Limits::default() };
    let mut world = World::new(gateway::control::responder::ResponderConfig { limits, ..config() });
    let (spi_i, spi_r) = (IkeSpi([1; 8]), IkeSpi([2; 8]));
    let message = |response| {
        let flags = Flags::new(true, response);
        let builder = MessageBuilder::new(spi_i, spi_r, ExchangeType::INFORMATIONAL, flags, MessageId(77));
        builder.finish().expect("short")
    };
    let answer = world.exchange(1, &message(false));
    let header = IkeHeader::decode(&answer).expect("a header");
    assert_eq!((header.spi_i, header.spi_r, header.message_id), (spi_i, spi_r, MessageId(77)));
    assert_eq!(header.exchange, ExchangeType::INFORMATIONAL);
    assert_eq!(header.flags, Flags::new(false, true));
    assert_eq!(clear_error(&answer), Some(NotifyType::INVALID_IKE_SPI));
    assert!(world.deliver(1, &message(true)).is_empty(), "a response is never answered");
    let answered: usize = (0..50).map(|_| world.deliver(1, &message(false)).len()).sum();
    assert_eq!(answered, 4);
    assert_eq!(world.counters().drops.reply_rate_limited, 46);
    world.advance(Duration::from_secs(1));
    assert_eq!(world.deliver(1, &message(false)).len(), 1);
}

#[test]
fn r9329_6_5_1_nat_detection_uses_the_tcp_ports() {
    use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
    let mut world = World::new(config());
    let mut ue = Ue::new(UeConfig::new(1));
    let spi_i = ue.spi_i;
    let hash = |spi_r: IkeSpi, address: std::net::SocketAddr| {
        let std::net::IpAddr::V4(ip) = address.ip() else { panic!("an IPv4 path") };
        let text = [&spi_i.0[..], &spi_r.0, &ip.octets(), &address.port().to_be_bytes()].concat();
        digest(&SHA1_FOR_LEGACY_USE_ONLY, &text).as_ref().to_vec()
    };
    let here = path(1);
    let request = ue.init_with(|builder| {
        builder.notify(NotifyType::NAT_DETECTION_SOURCE_IP, &hash(IkeSpi::ZERO, here.remote));
        builder.notify(NotifyType::NAT_DETECTION_DESTINATION_IP, &hash(IkeSpi::ZERO, here.local));
    });
    let response = Decoded::clear(&world.exchange(1, &request));
    let spi_r = response.header.spi_r;
    let source = response.notify(NotifyType::NAT_DETECTION_SOURCE_IP).expect("sent");
    assert_eq!(source.data, hash(spi_r, here.local));
    let destination = response.notify(NotifyType::NAT_DETECTION_DESTINATION_IP).expect("sent");
    assert_eq!(destination.data, hash(spi_r, here.remote));
    assert_eq!(world.counters().exchanges.behind_nat, 0);
    // 9329-6.5-2: a translated address is noticed and changes nothing.
    let mut ue = Ue::new(UeConfig::new(2));
    let request = ue.init_with(|builder| {
        builder.notify(NotifyType::NAT_DETECTION_SOURCE_IP, &[9; 20]);
    });
    assert_eq!(clear_error(&world.exchange(2, &request)), None);
    assert_eq!(world.counters().exchanges.behind_nat, 1);
}

#[test]
fn r7427_4_r7296_3_7_certificate_profiles_announce_hashes_and_authorities() {
    let mut world = World::new(certificate_config(true, false));
    let mut ue = Ue::new(UeConfig::new(1));
    let request = ue.init();
    let response = Decoded::clear(&world.exchange(1, &request));
    let request = response.body(PayloadType::CERTREQ).expect("CERTREQ");
    assert_eq!((request[0], request.len()), (4, 21));
    assert!(response.notify(NotifyType::SIGNATURE_HASH_ALGORITHMS).is_some());
    let mut world = World::new(config());
    let mut ue = Ue::new(UeConfig { hashes: false, ..UeConfig::new(1) });
    let request = ue.init();
    let response = Decoded::clear(&world.exchange(1, &request));
    assert!(response.body(PayloadType::CERTREQ).is_none());
    assert!(response.notify(NotifyType::SIGNATURE_HASH_ALGORITHMS).is_none());
    assert!(response.notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED).is_none());
    assert!(response.notify(NotifyType::COOKIE).is_none(), "9329-6.3-1");
}

#[test]
fn r8019_half_open_ike_sas_are_bounded_and_expire() {
    let limits = Limits { half_open_max: 3, half_open_per_source_max: 2, ..Limits::default() };
    let mut world = World::new(gateway::control::responder::ResponderConfig { limits, ..config() });
    let try_init = |world: &mut World, number: u32, seed: u64| {
        let request = Ue::new(UeConfig::new(seed)).init();
        world.deliver(number, &request).len()
    };
    // Connections 1, 251 and 501 share a source address.
    assert_eq!(try_init(&mut world, 1, 1), 1);
    assert_eq!(try_init(&mut world, 251, 2), 1);
    assert_eq!(try_init(&mut world, 501, 3), 0);
    assert_eq!(world.counters().drops.half_open_source_limit, 1);
    assert_eq!(try_init(&mut world, 2, 4), 1);
    assert_eq!(try_init(&mut world, 3, 5), 0);
    assert_eq!(world.counters().drops.half_open_limit, 1);
    world.advance(Duration::from_secs(29));
    assert_eq!(world.counters().gauges.half_open, 3);
    world.advance(Duration::from_secs(1));
    assert_eq!(world.counters().gauges.half_open, 0);
    assert_eq!(world.counters().drops.half_open_expired, 3);
    assert_eq!(try_init(&mut world, 501, 6), 1);
}

#[test]
fn r8019_the_defaults_let_a_hotspot_through() {
    let limits = Limits::default();
    assert!(limits.half_open_per_source_max >= 1_000);
    assert!(limits.half_open_max >= limits.half_open_per_source_max);
}

#[test]
fn half_open_is_announced_before_the_response() {
    let mut world = World::new(config());
    let mut ue = Ue::new(UeConfig::new(1));
    world.init(1, &mut ue);
    assert!(matches!(world.events[..], [Event::HalfOpen { conn: at }] if at == conn(1)));
    let request = ue.auth();
    let response = world.exchange(1, &request);
    ue.on_auth(&response);
    let kinds: Vec<_> = world.events.iter().map(std::mem::discriminant).collect();
    assert_eq!(kinds.len(), 4, "HalfOpen, Install, Bind, Attached");
    assert!(matches!(world.events[1], Event::Install(_)));
    assert!(matches!(world.events[2], Event::Bind { session: SessionId(1), .. }));
    assert!(matches!(world.events[3], Event::Attached { .. }));
}
