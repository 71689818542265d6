//! The initiator against a scripted gateway, in virtual time.

#[allow(dead_code, reason = "each test program uses its part")]
mod script;

use aws_lc_rs::digest;
use codec::SeededRandom;
use codec::esp::{EspSpi, InboundSa, OutboundSa};
use codec::ike::payload::Payload;
use codec::ike::{ExchangeType, IkeHeader, KeGroup, Message, NotifyType, PayloadType};
use loadgen::ue::{ChildSa, Credentials, EndCause, Event, Handset, Identity, Initiator, UeConfig};
use script::{Faults, INNER, Script};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

const IKE: &str = "aes128gcm16-prfsha256-x25519-ecp256";
const ESP: &str = "aes128gcm16";

struct Bench {
    ue: Initiator,
    script: Script,
    random: SeededRandom,
    now: Instant,
    children: Vec<ChildSa>,
    retired: Vec<EspSpi>,
    inner: Vec<std::net::IpAddr>,
    end: Option<EndCause>,
}

impl Bench {
    fn new(ike: &str, esp: &str, faults: Faults) -> Self {
        let config = UeConfig {
            ike: vec![ike.parse().unwrap()],
            esp: vec![esp.parse().unwrap()],
            credentials: Credentials::Psk(b"secret".to_vec().into()),
            idr: None,
            gateway_id: None,
            response_timeout: Duration::from_secs(10),
            dpd: Some(Duration::from_secs(60)),
            replay_window: 64,
            handset: Handset::default(),
        };
        let mut script = Script::new(ike, esp, b"secret");
        script.faults = faults;
        Self::with_config(config, script)
    }

    fn with_config(config: UeConfig, script: Script) -> Self {
        Self {
            ue: Initiator::new(Arc::new(config), Identity::parse("ue-1@test")),
            script,
            random: SeededRandom::new(1),
            now: Instant::now(),
            children: Vec::new(),
            retired: Vec::new(),
            inner: Vec::new(),
            end: None,
        }
    }

    fn connect(&mut self) {
        self.connect_from(40_000);
    }

    fn connect_from(&mut self, port: u16) {
        let (local, remote) =
            (SocketAddr::from(([10, 0, 0, 1], port)), SocketAddr::from(([10, 0, 0, 2], 4500)));
        self.ue.handle_connected(self.now, local, remote, &mut self.random);
    }

    /// Takes what the UE wants to send, events first.
    fn output(&mut self) -> Vec<Vec<u8>> {
        while let Some(event) = self.ue.poll_event() {
            match event {
                Event::Established(attached) => self.inner = attached.inner,
                Event::Install(child) => self.children.push(*child),
                Event::Retire(spi) => self.retired.push(spi),
                Event::Ended(cause) => self.end = Some(cause),
            }
        }
        std::iter::from_fn(|| self.ue.poll_transmit()).map(|message| message.to_vec()).collect()
    }

    fn deliver(&mut self, message: &[u8]) {
        self.ue.handle_message(self.now, &mut message.to_vec(), &mut self.random);
    }

    /// Exchanges messages until nobody has more to say.
    fn run(&mut self) {
        for _ in 0..20 {
            let requests = self.output();
            if requests.is_empty() {
                return;
            }
            for request in requests {
                if let Some(answer) = self.script.answer(&request) {
                    self.deliver(&answer);
                }
            }
        }
        panic!("the exchange does not end");
    }

    fn attached(ike: &str, esp: &str) -> Self {
        let mut bench = Self::new(ike, esp, Faults::default());
        bench.connect();
        bench.run();
        assert!(bench.ue.is_established());
        bench
    }

    /// Sends a packet each way through the newest child.
    fn pass_traffic(&mut self) {
        let child = self.children.pop().unwrap();
        let (spi_to_gateway, spi_to_ue, keymat) = self.script.children.pop().unwrap();
        assert_eq!((child.spi_out, child.spi_in), (spi_to_gateway, spi_to_ue));
        let mut packet = vec![0x45, 0, 0, 60];
        packet.resize(60, 7);
        let mut pairs = [
            (
                OutboundSa::new(child.spi_out, child.suite, child.keys_out, &mut self.random),
                InboundSa::new(child.spi_out, child.suite, keymat.initiator, 64),
            ),
            (
                OutboundSa::new(child.spi_in, child.suite, keymat.responder, &mut self.random),
                InboundSa::new(child.spi_in, child.suite, child.keys_in, 64),
            ),
        ];
        for (outbound, inbound) in &mut pairs {
            let mut frame = vec![0; outbound.frame_len(packet.len())];
            outbound.seal_frame(&packet, &mut frame).unwrap();
            let opened = inbound.open(&mut frame[2..]).unwrap();
            assert_eq!(frame[2..][opened.payload], packet);
        }
    }
}

#[test]
fn attach_with_every_kind_of_suite_and_pass_a_packet_each_way() {
    for (ike, esp) in [
        (IKE, ESP),
        ("aes256-sha256-modp2048", "aes256-sha256-noesn"),
        ("chacha20poly1305-prfsha512-ecp384", "chacha20poly1305-esn"),
    ] {
        let mut bench = Bench::attached(ike, esp);
        assert_eq!(bench.inner, [std::net::IpAddr::from(INNER)]);
        bench.pass_traffic();
    }
}

#[test]
fn r9329_6_3_o1_cookie_is_returned_first_and_nothing_else_changes() {
    let mut bench = Bench::new(IKE, ESP, Faults { cookie: true, ..Faults::default() });
    bench.connect();
    bench.run();
    assert!(bench.ue.is_established());
    assert_eq!(bench.script.seen.iter().filter(|kind| **kind == ExchangeType::IKE_SA_INIT).count(), 2);
}

#[test]
fn r7296_1_3_other_group_is_taken_when_it_was_offered() {
    let faults = Faults { cookie: true, other_group: Some(KeGroup::ECP_256), ..Faults::default() };
    let mut bench = Bench::new(IKE, ESP, faults);
    bench.connect();
    bench.run();
    assert!(bench.ue.is_established());
}

#[test]
fn r9329_6_3_o1_and_6_5_o1_corrected_request_goes_out_on_another_connection_when_the_gateway_closes() {
    let other_group = Faults { other_group: Some(KeGroup::ECP_256), ..Faults::default() };
    let cookie = Faults { cookie: true, ..Faults::default() };
    // Another group: of the new connection; a cookie: nothing else changes.
    for (faults, told) in [(other_group, 40_001), (cookie, 40_000)] {
        let mut bench = Bench::new(IKE, ESP, faults);
        bench.connect();
        let refused = bench.output().remove(0);
        let answer = bench.script.answer(&refused).unwrap();
        bench.deliver(&answer);
        bench.ue.handle_disconnected("closed by gateway");
        assert!(bench.output().is_empty() && bench.end.is_none());
        bench.connect_from(40_001);
        let requests = bench.output();
        assert_eq!(requests.len(), 1);
        assert!(tells(&requests[0], NotifyType::NAT_DETECTION_SOURCE_IP, [10, 0, 0, 1], told));
        let answer = bench.script.answer(&requests[0]).unwrap();
        bench.deliver(&answer);
        bench.run();
        assert!(bench.ue.is_established());
    }
}

#[test]
fn corrected_request_has_one_more_connection_and_none_without_connections() {
    let faults = || Faults { other_group: Some(KeGroup::ECP_256), ..Faults::default() };
    for unreachable in [false, true] {
        let mut bench = Bench::new(IKE, ESP, faults());
        bench.connect();
        let refused = bench.output().remove(0);
        let answer = bench.script.answer(&refused).unwrap();
        bench.deliver(&answer);
        if unreachable {
            bench.ue.handle_unreachable("refused");
        } else {
            bench.ue.handle_disconnected("closed");
            bench.connect_from(40_001);
            bench.ue.handle_disconnected("refused");
        }
        bench.output();
        assert_eq!(bench.end.unwrap().to_string(), "connection: refused");
    }
}

#[test]
fn r7296_1_3_group_that_was_not_offered_ends_the_attach() {
    let mut bench =
        Bench::new(IKE, ESP, Faults { other_group: Some(KeGroup::MODP_2048), ..Faults::default() });
    bench.connect();
    bench.run();
    assert_eq!(bench.end, Some(EndCause::BadAnswer("asks for a group that was not offered")));
}

#[test]
fn r9329_6_4_o1_refusals_end_the_attach_at_once_under_their_own_name() {
    let refuse_init = Faults { refuse_init: Some(NotifyType::NO_PROPOSAL_CHOSEN), ..Faults::default() };
    let refuse_auth = Faults { refuse_auth: Some(NotifyType::AUTHENTICATION_FAILED), ..Faults::default() };
    for (faults, name) in [(refuse_init, "NO_PROPOSAL_CHOSEN"), (refuse_auth, "AUTHENTICATION_FAILED")] {
        let mut bench = Bench::new(IKE, ESP, faults);
        bench.connect();
        bench.run();
        assert_eq!(bench.end.unwrap().to_string(), name);
    }
}

/// Whether a NAT_DETECTION notification is of this address and port.
fn tells(request: &[u8], kind: NotifyType, ip: [u8; 4], port: u16) -> bool {
    let header = IkeHeader::decode(request).unwrap();
    let octets = [&header.spi_i.0[..], &[0; 8], &ip, &port.to_be_bytes()].concat();
    let wanted = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &octets);
    let told: Vec<_> = Message::decode(request)
        .unwrap()
        .payloads()
        .filter_map(|raw| match raw.unwrap().decode().unwrap() {
            Payload::Notify(notify) if notify.kind == kind => Some(notify.data.to_vec()),
            _ => None,
        })
        .collect();
    told == [wanted.as_ref()]
}

#[test]
fn r9329_6_5_o1_nat_detection_is_computed_with_the_tcp_ports_and_changes_nothing() {
    let mut bench = Bench::new(IKE, ESP, Faults::default());
    bench.connect();
    let request = bench.output().remove(0);
    for (kind, ip, port) in [
        (NotifyType::NAT_DETECTION_SOURCE_IP, [10, 0, 0, 1], 40_000),
        (NotifyType::NAT_DETECTION_DESTINATION_IP, [10, 0, 0, 2], 4500),
    ] {
        assert!(tells(&request, kind, ip, port));
    }
    // The scripted gateway announces nothing, and a NAT between the two would not change the stream.
    let answer = bench.script.answer(&request).unwrap();
    bench.deliver(&answer);
    bench.run();
    assert!(bench.ue.is_established());
}

#[test]
fn r9329_7_5_o1_no_fragments_are_sent_and_none_are_announced_without_mobike() {
    let mut bench = Bench::new(IKE, ESP, Faults::default());
    bench.connect();
    let mut sent = Vec::new();
    for _ in 0..5 {
        for request in bench.output() {
            let answer = bench.script.answer(&request);
            sent.push(request);
            answer.into_iter().for_each(|answer| bench.deliver(&answer));
        }
    }
    bench.ue.rekey_ike(bench.now, &mut bench.random);
    sent.extend(bench.output());
    assert!(bench.ue.is_established() && sent.len() == 3);
    for message in &sent {
        assert_ne!(IkeHeader::decode(message).unwrap().next_payload, PayloadType::ENCRYPTED_FRAGMENT);
    }
    let first = Message::decode(&sent[0]).unwrap();
    let announced = first.payloads().any(|raw| match raw.unwrap().decode().unwrap() {
        Payload::Notify(notify) => notify.kind == NotifyType::IKEV2_FRAGMENTATION_SUPPORTED,
        _ => false,
    });
    assert!(!announced, "a UE that stays on TCP has no use for them");
}

#[test]
fn r9329_1_2_o1_after_a_rekey_of_the_ike_sa_it_is_still_the_ue_that_connects_again() {
    let mut bench = Bench::attached(IKE, ESP);
    bench.ue.rekey_ike(bench.now, &mut bench.random);
    bench.run();
    bench.ue.handle_disconnected("reset");
    assert!(bench.output().is_empty(), "it waits for its own connection");
    assert!(bench.ue.is_established());
    bench.connect();
    let asked = bench.output();
    assert_eq!(asked.len(), 1);
    assert_eq!(IkeHeader::decode(&asked[0]).unwrap().exchange, ExchangeType::INFORMATIONAL);
}

#[test]
fn r9329_6_1_o6_a_forged_message_of_the_ike_sa_is_told_apart_from_others() {
    let mut bench = Bench::attached(IKE, ESP);
    let request = bench.script.request(ExchangeType::INFORMATIONAL, |_| {});
    let mut forged = request.clone();
    *forged.last_mut().unwrap() ^= 1;
    bench.deliver(&forged);
    assert!(bench.ue.take_forged() && !bench.ue.take_forged());
    let mut foreign = request.clone();
    foreign[0] ^= 1;
    bench.deliver(&foreign);
    bench.deliver(&request);
    assert!(!bench.ue.take_forged());
}

#[test]
fn r7296_2_15_gateway_with_another_key_is_not_believed() {
    let mut bench = Bench::new(IKE, ESP, Faults { wrong_auth: true, ..Faults::default() });
    bench.connect();
    bench.run();
    assert_eq!(bench.end, Some(EndCause::Unauthenticated("wrong AUTH")));
}

#[test]
fn r7296_2_7_suite_that_was_not_offered_is_not_taken() {
    let mut bench = Bench::new(IKE, ESP, Faults { wrong_suite: true, ..Faults::default() });
    bench.connect();
    bench.run();
    assert_eq!(bench.end, Some(EndCause::BadAnswer("suite was not offered")));
}

#[test]
fn gateway_identity_is_checked_when_one_is_expected() {
    for (wanted, established) in [("gw.test", true), ("GW.TEST", true), ("other.test", false)] {
        let config = UeConfig {
            ike: vec![IKE.parse().unwrap()],
            esp: vec![ESP.parse().unwrap()],
            credentials: Credentials::Psk(b"secret".to_vec().into()),
            idr: None,
            gateway_id: Some(Identity::parse(wanted)),
            response_timeout: Duration::from_secs(10),
            dpd: None,
            replay_window: 64,
            handset: Handset::default(),
        };
        let mut bench = Bench::with_config(config, Script::new(IKE, ESP, b"secret"));
        bench.connect();
        bench.run();
        assert_eq!(bench.ue.is_established(), established, "{wanted}");
    }
}

#[test]
fn r9329_6_2_o1_pending_request_is_sent_again_octet_for_octet_on_a_new_connection() {
    let mut bench = Bench::attached(IKE, ESP);
    bench.ue.rekey_child(bench.now, &mut bench.random);
    let first = bench.output();
    assert_eq!(first.len(), 1);
    bench.ue.handle_disconnected("reset");
    assert!(bench.ue.is_established(), "r9329_6_1_o3: the SA survives its connection");
    bench.connect();
    assert_eq!(bench.output(), first);
    let answer = bench.script.answer(&first[0]).unwrap();
    bench.deliver(&answer);
    bench.run();
    assert_eq!(bench.children.len(), 2);
}

#[test]
fn r9329_6_1_o3_idle_ue_sends_an_empty_informational_on_a_new_connection() {
    let mut bench = Bench::attached(IKE, ESP);
    bench.ue.handle_disconnected("closed");
    bench.connect();
    bench.run();
    assert_eq!(bench.script.seen.last(), Some(&ExchangeType::INFORMATIONAL));
    assert!(!bench.ue.is_waiting());
}

#[test]
fn r9329_6_2_o1_nothing_is_sent_again_on_a_live_connection() {
    let mut bench = Bench::new(IKE, ESP, Faults::default());
    bench.connect();
    assert_eq!(bench.output().len(), 1);
    for _ in 0..9 {
        bench.now += Duration::from_secs(1);
        bench.ue.handle_timeout(bench.now, &mut bench.random);
        assert!(bench.output().is_empty());
    }
    bench.now += Duration::from_secs(2);
    bench.ue.handle_timeout(bench.now, &mut bench.random);
    bench.output();
    assert_eq!(bench.end, Some(EndCause::Timeout("IKE_SA_INIT")));
}

#[test]
fn child_rekey_installs_the_new_child_before_it_deletes_the_old() {
    for esp in [ESP, "aes128gcm16-ecp256"] {
        let mut bench = Bench::attached(IKE, esp);
        let old = bench.children[0].spi_in;
        bench.ue.rekey_child(bench.now, &mut bench.random);
        bench.run();
        assert_eq!(bench.children.len(), 2);
        assert_eq!(bench.retired, [old]);
        bench.pass_traffic();
    }
}

#[test]
fn ike_rekey_keeps_the_child_and_deletes_the_old_sa() {
    let mut bench = Bench::attached(IKE, ESP);
    bench.ue.rekey_ike(bench.now, &mut bench.random);
    bench.run();
    bench.ue.rekey_child(bench.now, &mut bench.random);
    bench.run();
    assert!(bench.ue.is_established() && bench.end.is_none());
    bench.pass_traffic();
    bench.ue.detach(bench.now, &mut bench.random);
    bench.run();
    assert!(bench.script.deleted);
    assert_eq!(bench.end, Some(EndCause::Detached));
}

#[test]
fn dead_peer_detection_is_answered_and_a_repeated_request_gets_the_same_octets() {
    let mut bench = Bench::attached(IKE, ESP);
    let request = bench.script.request(ExchangeType::INFORMATIONAL, |_| {});
    bench.deliver(&request);
    let answers = bench.output();
    assert_eq!(bench.script.open_response(&answers[0]), []);
    bench.deliver(&request);
    assert_eq!(bench.output(), answers);
}

#[test]
fn silence_makes_the_ue_ask_once_and_then_give_up() {
    let mut bench = Bench::attached(IKE, ESP);
    bench.now += Duration::from_secs(61);
    bench.ue.handle_timeout(bench.now, &mut bench.random);
    assert_eq!(bench.output().len(), 1);
    bench.now += Duration::from_secs(11);
    bench.ue.handle_timeout(bench.now, &mut bench.random);
    assert!(bench.output().is_empty());
    assert_eq!(bench.end, Some(EndCause::Timeout("INFORMATIONAL")));
}

#[test]
fn gateway_deletes_the_child_and_then_the_sa() {
    let mut bench = Bench::attached(IKE, ESP);
    let (outbound, inbound, _) = bench.script.children.pop().unwrap();
    let request = bench.script.request(ExchangeType::INFORMATIONAL, |builder| {
        builder.delete_esp(&[outbound]);
    });
    bench.deliver(&request);
    let answers = bench.output();
    assert_eq!(bench.script.open_response(&answers[0]), [PayloadType::DELETE]);
    assert_eq!(bench.retired, [inbound]);
    let request = bench.script.request(ExchangeType::INFORMATIONAL, |builder| {
        builder.delete_ike();
    });
    bench.deliver(&request);
    assert_eq!(bench.output().len(), 1, "the answer leaves although the SA is over");
    assert_eq!(bench.end, Some(EndCause::DeletedByGateway));
}

#[test]
fn rekey_by_the_gateway_is_refused_and_changes_nothing() {
    let mut bench = Bench::attached(IKE, ESP);
    let request = bench.script.request(ExchangeType::CREATE_CHILD_SA, |builder| {
        builder.nonce(&[1; 32]);
    });
    bench.deliver(&request);
    let answers = bench.output();
    assert_eq!(bench.script.open_response(&answers[0]), [PayloadType::NOTIFY]);
    assert!(bench.ue.is_established());
}

#[test]
fn r7296_2_21_damaged_messages_have_no_effect() {
    let mut bench = Bench::attached(IKE, ESP);
    let request = bench.script.request(ExchangeType::INFORMATIONAL, |builder| {
        builder.delete_ike();
    });
    for at in 0..request.len() {
        let mut damaged = request.clone();
        damaged[at] ^= 0x40;
        bench.deliver(&damaged);
        bench.deliver(&request[..at]);
        assert!(bench.output().is_empty(), "octet {at}");
    }
    assert!(bench.ue.is_established());
    bench.deliver(&request);
    bench.output();
    assert_eq!(bench.end, Some(EndCause::DeletedByGateway));
}

#[test]
fn connection_that_fails_during_the_attach_is_its_cause() {
    let mut bench = Bench::new(IKE, ESP, Faults::default());
    bench.connect();
    bench.ue.handle_disconnected("refused");
    bench.output();
    assert_eq!(bench.end.unwrap().to_string(), "connection: refused");
}
