//! What is turned down, passed over or left as it is, and how (RFC 7296, RFC 5998, RFC 9329).

use std::time::Duration;

use codec::ike::payload::{CertView, NonceView};
use codec::ike::{CertEncoding, ExchangeType, IkeHeader, MessageBuilder, NotifyType, PayloadType};
use gateway::control::responder::{ResponderConfig, Verdict};
use gateway::types::{ConnId, Path, Transport, WorkerId};

use crate::ue::{Decoded, Ue, UeAuth, UeConfig, inner_payloads};
use crate::world::{
    SUITES, World, certificate_config, certificate_ue, clear_error, config, path, profile, psk,
};

/// An IKE_SA_INIT with other payloads in the place of some.
fn altered(request: &[u8], alter: impl Fn(PayloadType, &[u8]) -> Vec<u8>) -> Vec<u8> {
    let decoded = Decoded::clear(request);
    let IkeHeader { spi_i, spi_r, exchange, flags, message_id, .. } = decoded.header;
    let mut builder = MessageBuilder::new(spi_i, spi_r, exchange, flags, message_id);
    for (kind, body) in &decoded.payloads {
        builder.payload(*kind, |out| out.extend_from_slice(&alter(*kind, body)));
    }
    builder.finish().expect("short")
}

fn with_nonce(request: &[u8], len: usize) -> Vec<u8> {
    altered(request, |kind, body| match kind {
        PayloadType::NONCE => vec![7; len],
        _ => body.to_vec(),
    })
}

#[test]
fn r7296_2_10_nonces_have_16_to_256_octets_and_half_the_key_of_the_prf() {
    let answer = |config: UeConfig, len: usize| {
        let mut world =
            World::new(ResponderConfig { profiles: vec![every_suite()], ..crate::world::config() });
        let request = with_nonce(&Ue::new(config).init(), len);
        let answer = world.exchange(1, &request);
        (clear_error(&answer), world.counters().gauges.half_open)
    };
    for len in [16, 17, 255, 256] {
        assert_eq!(answer(UeConfig::new(1), len), (None, 1), "{len} octets");
    }
    for len in [0, 1, 15, 257, 1_000] {
        assert_eq!(answer(UeConfig::new(1), len), (Some(NotifyType::INVALID_SYNTAX), 0), "{len} octets");
    }
    // PRF_HMAC_SHA2_512 prefers keys of 64 octets.
    let strong = || UeConfig {
        ike: vec!["chacha20poly1305-prfsha512-ecp256"],
        group: codec::ike::KeGroup::ECP_256,
        ..UeConfig::new(1)
    };
    assert_eq!(answer(strong(), 31), (Some(NotifyType::INVALID_SYNTAX), 0));
    assert_eq!(answer(strong(), 32), (None, 1));
}

fn every_suite() -> std::sync::Arc<gateway::control::responder::Profile> {
    let mut lab = profile("every", psk());
    lab.ike = SUITES.iter().map(|(ike, _, _)| ike.parse().expect("a proposal")).collect();
    std::sync::Arc::new(lab)
}

#[test]
fn r7296_2_10_our_nonces_are_long_enough_and_never_the_same() {
    let mut world = World::new(config());
    let mut seen = std::collections::HashSet::new();
    for number in 1..=50 {
        let answer = world.exchange(number, &Ue::new(UeConfig::new(number.into())).init());
        let decoded = Decoded::clear(&answer);
        let nonce =
            NonceView::decode(decoded.body(PayloadType::NONCE).expect("Nr")).expect("16 to 256 octets");
        assert!(nonce.data.len() >= 32, "half the key of the largest PRF");
        assert!(seen.insert(nonce.data.to_vec()));
    }
}

#[test]
fn r7296_2_11_an_answer_leaves_where_its_request_came_in() {
    let mut lab = profile("lab", psk());
    lab.transports = vec![Transport::Tcp, Transport::Udp];
    let mut world = World::new(ResponderConfig { profiles: vec![std::sync::Arc::new(lab)], ..config() });
    // Over UDP that is the very pair of addresses, whatever others the gateway and the peer have.
    let udp = ConnId::datagrams(WorkerId(1));
    for (local, remote) in [
        ("198.51.100.1:500", "192.0.2.9:500"),
        ("198.51.100.2:4500", "192.0.2.9:31000"),
        ("[2001:db8::1]:4500", "[2001:db8::9]:4500"),
    ] {
        let parse = |text: &str| text.parse().expect("an address");
        let here = Path { transport: Transport::Udp, local: parse(local), remote: parse(remote) };
        let mut request = Ue::new(UeConfig::new(local.len() as u64)).init();
        let verdict = world.responder.handle_message(world.now, udp, &here, &mut request);
        assert_eq!(verdict, Verdict::Good);
        world.collect();
        let sent = world.sent.pop().expect("an answer");
        assert_eq!((sent.conn, sent.path), (udp, here));
    }
    // Over TCP it is the connection; a repetition is answered where it comes in.
    let mut ue = world.attach(1, UeConfig::new(1));
    let request = ue.informational(|_| {});
    let answer = world.exchange(2, &request);
    assert_eq!(world.exchange(3, &request), answer);
    assert!(world.take_sent(1).is_empty() && world.take_sent(2).is_empty());
}

#[test]
fn r7296_3_6_a_certificate_by_url_is_not_fetched_and_never_asked_for() {
    for encoding in [CertEncoding::HASH_AND_URL_X509, CertEncoding::HASH_AND_URL_BUNDLE] {
        let mut world = World::new(certificate_config(false, false));
        let mut ue = Ue::new(certificate_ue(1, false));
        let request = ue.init();
        let response = world.exchange(1, &request);
        let decoded = Decoded::clear(&response);
        assert!(decoded.body(PayloadType::CERTREQ).is_some());
        assert!(decoded.notify(NotifyType::HTTP_CERT_LOOKUP_SUPPORTED).is_none(), "no lookups here");
        ue.on_init(&response).expect("accepted");
        let UeAuth::Certificate { chain, .. } = &mut ue.config.auth else { unreachable!("it has one") };
        chain.clear();
        let request = ue.auth_with(|builder| {
            let data = [&[0xab; 20][..], b"http://certs.example/leaf.der"].concat();
            builder.cert(&CertView { encoding, data: &data });
        });
        let response = world.exchange(1, &request);
        let decoded = ue.on_auth(&response);
        assert_eq!(decoded.error(), Some(NotifyType::AUTHENTICATION_FAILED));
        assert!(decoded.notify(NotifyType::HTTP_CERT_LOOKUP_SUPPORTED).is_none());
        assert_eq!(world.counters().drops.auth_no_certificate, 1);
    }
}

#[test]
fn r7296_3_6_further_certificates_help_to_build_the_path() {
    let mut world = World::new(certificate_config(false, false));
    let mut config = certificate_ue(1, false);
    let UeAuth::Certificate { chain, .. } = &mut config.auth else { unreachable!("it has one") };
    assert_eq!(chain.len(), 2);
    chain.truncate(1);
    assert_eq!(world.attach_error(1, config), Some(NotifyType::AUTHENTICATION_FAILED));
    assert_eq!(world.counters().drops.auth_certificate_untrusted, 1);
    world.attach(2, certificate_ue(2, false));
}

#[test]
fn r7296_2_22_compression_is_neither_agreed_to_nor_in_the_way() {
    let mut world = World::new(config());
    let mut ue = world.attach(1, UeConfig::new(1));
    let esp = ue.children[0].spi_in;
    let mut request = ue.create_child(Some(esp), false);
    // The same in a rekey, sealed anew with the notification in front.
    let opened = inner_of(&mut ue, &mut request);
    let request = ue.request(ExchangeType::CREATE_CHILD_SA, |builder| {
        builder.notify(NotifyType::IPCOMP_SUPPORTED, &[0x12, 0x34, 2]);
        builder.notify(NotifyType::USE_TRANSPORT_MODE, &[]);
        builder.notify(NotifyType::ESP_TFC_PADDING_NOT_SUPPORTED, &[]);
        for (kind, body) in &opened {
            builder.payload(*kind, |out| out.extend_from_slice(body));
        }
    });
    let response = world.exchange(1, &request);
    let decoded = ue.on_create_child(&response);
    assert_eq!((decoded.notifies().count(), ue.children.len()), (0, 2), "tunnel mode, no compression");
}

/// Payloads of a request that `ue` has sealed and not sent: it is as if it had never been made.
fn inner_of(ue: &mut Ue, request: &mut [u8]) -> Vec<(PayloadType, Vec<u8>)> {
    let opened = ue.open_own(request);
    ue.sa.as_mut().expect("established").next_out -= 1;
    opened
}

#[test]
fn r5998_3_eap_only_is_noted_and_the_other_methods_go_on() {
    let mut world = World::new(config());
    let mut ue = Ue::new(UeConfig::new(1));
    world.init(1, &mut ue);
    let request = ue.auth_with(|builder| {
        builder.notify(NotifyType::EAP_ONLY_AUTHENTICATION, &[]);
    });
    let response = world.exchange(1, &request);
    let decoded = ue.on_auth(&response);
    assert_eq!((decoded.notifies().count(), ue.children.len()), (0, 1));
    // Without AUTH it asks for EAP, which no profile offers.
    let mut ue = Ue::new(UeConfig::new(2));
    world.init(2, &mut ue);
    let payloads = inner_payloads(&mut ue);
    let request = ue.request(ExchangeType::IKE_AUTH, |builder| {
        builder.notify(NotifyType::EAP_ONLY_AUTHENTICATION, &[]);
        for (kind, body) in payloads.iter().filter(|(kind, _)| *kind != PayloadType::AUTH) {
            builder.payload(*kind, |out| out.extend_from_slice(body));
        }
    });
    let response = world.exchange(2, &request);
    assert_eq!(ue.on_auth(&response).error(), Some(NotifyType::AUTHENTICATION_FAILED));
    assert_eq!(world.counters().drops.auth_profile_kind, 1);
}

#[test]
fn d13_an_init_over_tcp_that_repeats_the_one_over_udp_is_served() {
    let mut lab = profile("lab", psk());
    lab.transports = vec![Transport::Tcp, Transport::Udp];
    let lab = std::sync::Arc::new(lab);
    for recomputed in [false, true] {
        let mut world = World::new(ResponderConfig { profiles: vec![lab.clone()], ..config() });
        let mut ue = Ue::new(UeConfig::new(1));
        let digest = [0x11; 20];
        let request = ue.init_with(|builder| {
            builder.notify(NotifyType::NAT_DETECTION_SOURCE_IP, &digest);
        });
        let over_udp = Path { transport: Transport::Udp, ..path(1) };
        let udp = ConnId::datagrams(WorkerId(0));
        let mut message = request.clone();
        let _ = world.responder.handle_message(world.now, udp, &over_udp, &mut message);
        world.collect();
        let first = world.sent.pop().expect("an answer").message;
        // The answer is lost. A UE of RFC 8229 repeats SPIi and Ni over TCP, perhaps with other NAT digests.
        let again = match recomputed {
            false => request.clone(),
            true => altered(&request, |kind, body| match kind {
                PayloadType::NOTIFY if body.ends_with(&digest) => {
                    [&body[..body.len() - 20], &[0x22; 20]].concat()
                }
                _ => body.to_vec(),
            }),
        };
        let response = world.exchange(1, &again);
        let same = response[..] == first[..];
        assert_eq!(same, !recomputed, "the stored answer, or a half-open IKE SA of its own");
        ue.set_init_request(again);
        ue.on_init(&response).expect("accepted");
        let request = ue.auth();
        let response = world.exchange(1, &request);
        ue.on_auth(&response);
        assert_eq!(ue.children.len(), 1);
        world.advance(Duration::from_secs(40));
        assert_eq!((world.session_count(), world.counters().gauges.half_open), (1, 0));
    }
}

#[test]
fn r9329_6_5_3_a_nat_changes_nothing_over_tcp() {
    let sent_after = |source: [u8; 20]| {
        let mut world = World::new(config());
        let mut ue = Ue::new(UeConfig::new(1));
        let request = ue.init_with(|builder| {
            builder.notify(NotifyType::NAT_DETECTION_SOURCE_IP, &source);
        });
        let response = world.exchange(1, &request);
        ue.on_init(&response).expect("accepted");
        let request = ue.auth();
        let response = world.exchange(1, &request);
        ue.on_auth(&response);
        assert_eq!(ue.children.len(), 1);
        let behind_nat = world.counters().exchanges.behind_nat;
        // No keepalives of ours, and liveness checks when they are due.
        world.advance(Duration::from_secs(59));
        assert!(world.take_sent(1).is_empty());
        world.advance(Duration::from_secs(2));
        let sent = world.take_sent(1);
        assert!(sent.len() == 1 && ue.open(&sent[0]).expect("authentic").payloads.is_empty());
        behind_nat
    };
    let mut hashed = Vec::new();
    let spi = Ue::new(UeConfig::new(1)).spi_i;
    hashed.extend_from_slice(&spi.0);
    hashed.extend_from_slice(&[0; 8]);
    let remote = path(1).remote;
    let std::net::IpAddr::V4(ip) = remote.ip() else { unreachable!("the tests' paths are IPv4") };
    hashed.extend_from_slice(&ip.octets());
    hashed.extend_from_slice(&remote.port().to_be_bytes());
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, &hashed);
    let truth = digest.as_ref().try_into().expect("20 octets");
    assert_eq!((sent_after(truth), sent_after([9; 20])), (0, 1));
}
