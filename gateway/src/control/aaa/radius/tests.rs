//! What the tests of this module share.

use crate::control::responder::{Attached, AttemptId, EapMethod, EapStep, Subject};
use crate::types::{SessionId, Transport};

fn subject() -> Subject {
    Subject {
        idi: "idi@example".into(),
        apn: Some("ims".into()),
        profile: "phones".into(),
        method: EapMethod::Any,
        local: "192.0.2.1:4500".parse().expect("an address"),
        remote: "198.51.100.7:40000".parse().expect("an address"),
        transport: Transport::Tcp,
        emergency: false,
        imei: None,
    }
}

/// A step of an attempt.
pub fn step(attempt: u64, packet: &[u8]) -> EapStep {
    let backend = "aaa".into();
    EapStep { attempt: AttemptId(attempt), backend, packet: packet.to_vec(), subject: subject() }
}

/// The session that came of an attempt.
pub fn attached(attempt: u64, session: u64, addr: &str) -> Attached {
    let inner = [addr.parse().expect("an address")].into();
    let timeout = None;
    Attached { attempt: AttemptId(attempt), session: SessionId(session), inner, timeout, subject: subject() }
}

/// The whole back end against scripted servers on loopback, over UDP and TLS.
mod whole {
    use std::collections::VecDeque;
    use std::net::SocketAddr;
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, UdpSocket};
    use tokio::sync::mpsc::UnboundedReceiver;

    use super::super::packet::{Attributes, HEADER_LEN, Packet, VENDOR_MICROSOFT, code, kind};
    use super::super::sign::{self, Secret};
    use super::super::{DynamicConfig, Radius, RadiusConfig};
    use super::{attached, step};
    use crate::control::aaa::{Backend, EndCause, FromAaa, Outbox, SessionEnd};
    use crate::control::responder::{AaaAnswer, AttemptId, RejectCause};
    use crate::tls::TlsClient;
    use crate::types::SessionId;
    use crate::worker::inbox::Traffic;

    const SECRET: &[u8] = b"radsecret";

    const IDENTITY: &[u8] = b"\x02\x01\x00\x0a\x01alice";

    /// What a server has seen.
    type Seen = Arc<Mutex<VecDeque<Vec<u8>>>>;

    /// EAP in two rounds: a challenge with a State, which the second request must bring back, then success. `bob` is
    /// refused.
    fn reply(octets: &[u8], secret: &Secret) -> Vec<u8> {
        let packet = Packet::parse(octets).expect("a packet");
        let asked = packet.authenticator();
        let mut attributes = Attributes::new();
        let code = match (packet.code(), packet.value(kind::STATE)) {
            (code::ACCOUNTING_REQUEST, _) => {
                sign::verify_signed_request(packet, secret).expect("signed");
                code::ACCOUNTING_RESPONSE
            }
            (code::STATUS_SERVER, _) => code::ACCESS_ACCEPT,
            _ if packet.value(kind::USER_NAME) == Some(b"bob") => {
                attributes.push_eap(&[4, 1, 0, 4]).expect("room");
                code::ACCESS_REJECT
            }
            (_, None) => {
                attributes.push(kind::STATE, b"round one").expect("room");
                attributes.push_eap(&[1, 2, 0, 5, 23]).expect("room");
                code::ACCESS_CHALLENGE
            }
            (_, Some(state)) => {
                assert_eq!((state, packet.value(kind::USER_NAME)), (&b"round one"[..], Some(&b"alice"[..])));
                attributes.push_eap(&[3, 2, 0, 4]).expect("room");
                attributes.push(kind::CLASS, b"gold").expect("room");
                attributes.push_number(kind::SESSION_TIMEOUT, 600).expect("room");
                for (kind, half) in [(17, [1; 32]), (16, [2; 32])] {
                    let hidden = sign::hide(&half, [0x80, kind], &asked, secret);
                    attributes.push_vendor(VENDOR_MICROSOFT, kind, &hidden).expect("room");
                }
                code::ACCESS_ACCEPT
            }
        };
        sign::answer(code, packet.id(), &asked, &attributes, secret)
    }

    async fn udp_server(seen: Seen) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let addr = socket.local_addr().expect("an address");
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
                seen.lock().expect("unpoisoned").push_back(buffer[..len].to_vec());
                let answer = reply(&buffer[..len], &Secret::new(SECRET));
                let _ = socket.send_to(&answer, from).await;
            }
        });
        addr
    }

    fn config(servers: Vec<SocketAddr>, accounting: Vec<SocketAddr>) -> RadiusConfig {
        RadiusConfig {
            digest: [0; 32],
            servers,
            accounting,
            secret: Secret::new(SECRET),
            tls: None,
            nas_identifier: None,
            timeout: Duration::from_millis(200),
            retries: 1,
            dead_after: Duration::from_millis(100),
            revive_after: Duration::from_secs(1),
            status_server: true,
            outstanding: 16,
            interim: None,
            accounting_queue: 64,
            dynamic: None,
        }
    }

    struct Rig {
        radius: Radius,
        outbox: UnboundedReceiver<FromAaa>,
    }

    impl Rig {
        fn new(config: &RadiusConfig) -> Self {
            let (sender, outbox) = Outbox::new();
            let radius = Radius::start("aaa".into(), config, "gw.test", sender).expect("started");
            Self { radius, outbox }
        }

        async fn next(&mut self) -> FromAaa {
            let next = tokio::time::timeout(Duration::from_secs(20), self.outbox.recv()).await;
            next.expect("in time").expect("an answer")
        }

        async fn ask(&mut self, attempt: u64, packet: &[u8]) -> AaaAnswer {
            self.radius.step(Instant::now(), step(attempt, packet));
            match self.next().await {
                FromAaa::Answer { attempt: of, answer } if of == AttemptId(attempt) => answer,
                _ => panic!("another answer"),
            }
        }

        /// Attempt 1, let in and attached as session 7.
        async fn attach(&mut self) {
            let AaaAnswer::Continue { packet } = self.ask(1, IDENTITY).await else {
                panic!("not challenged")
            };
            assert_eq!(packet, [1, 2, 0, 5, 23]);
            let AaaAnswer::Accept(accepted) = self.ask(1, &[2, 2, 0, 5, 23]).await else {
                panic!("not accepted")
            };
            assert_eq!(accepted.msk[..], [[1; 32], [2; 32]].concat());
            assert_eq!(accepted.session_timeout, Some(Duration::from_secs(600)));
            self.radius.attached(Instant::now(), &attached(1, 7, "10.70.0.1"));
        }
    }

    fn rejected(answer: &AaaAnswer) -> Option<RejectCause> {
        match answer {
            AaaAnswer::Reject { cause, .. } => Some(*cause),
            _ => None,
        }
    }

    async fn until(mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !done() {
            assert!(Instant::now() < deadline, "in time");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn r3579_2_2_two_rounds_let_in_and_one_refuses() {
        let seen = Seen::default();
        let mut rig = Rig::new(&config(vec![udp_server(seen.clone()).await], Vec::new()));
        rig.attach().await;
        let bob = rig.ask(2, b"\x02\x01\x00\x08\x01bob").await;
        assert_eq!(rejected(&bob), Some(RejectCause::AuthenticationFailed));
        let nobody = rig.ask(3, b"\x02\x01\x00\x08\x04bob").await;
        assert_eq!(rejected(&nobody), Some(RejectCause::PeerProtocol));
        let view = rig.radius.servers().remove(0);
        assert_eq!((view.requests, view.answers, view.accepts), (3, 3, 1));
        assert_eq!(view.rejects, [(RejectCause::AuthenticationFailed, 1)]);
        assert_eq!(seen.lock().expect("unpoisoned").len(), 3);
    }

    #[tokio::test]
    async fn a_silent_server_is_left_for_the_next_and_with_none_left_the_answer_is_unreachable() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let silent_addr = silent.local_addr().expect("an address");
        let good = udp_server(Seen::default()).await;
        let mut rig = Rig::new(&config(vec![silent_addr, good], Vec::new()));
        rig.attach().await;
        let views = rig.radius.servers();
        assert!(!views[0].up && views[0].retransmissions >= 1 && views[1].accepts == 1);
        let mut rig = Rig::new(&config(vec![silent_addr], Vec::new()));
        assert_eq!(rejected(&rig.ask(1, IDENTITY).await), Some(RejectCause::Unreachable));
    }

    #[tokio::test]
    async fn beyond_the_bound_attempts_are_refused_and_abandoned_ones_make_room() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let mut rig = Rig::new(&config(vec![silent.local_addr().expect("an address")], Vec::new()));
        for attempt in 0..16 {
            rig.radius.step(Instant::now(), step(attempt, IDENTITY));
        }
        assert_eq!(rejected(&rig.ask(16, IDENTITY).await), Some(RejectCause::Congestion));
        for attempt in 0..16 {
            rig.radius.abandon(AttemptId(attempt));
        }
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!(rejected(&rig.ask(17, IDENTITY).await), Some(RejectCause::Unreachable));
        assert!(rig.outbox.try_recv().is_err(), "nobody else is answered");
    }

    #[tokio::test]
    async fn r2866_a_session_is_accounted_for_from_start_to_stop() {
        let records = Seen::default();
        let servers = (udp_server(Seen::default()).await, udp_server(records.clone()).await);
        let mut rig = Rig::new(&config(vec![servers.0], vec![servers.1]));
        rig.attach().await;
        let traffic = Traffic { packets_in: 3, bytes_in: 5 << 32 | 17, packets_out: 4, bytes_out: 400 };
        rig.radius.traffic(Instant::now(), SessionId(7), &traffic);
        let end = SessionEnd { traffic, cause: EndCause::Timeout };
        rig.radius.ended(Instant::now(), SessionId(7), &end);
        rig.radius.ended(Instant::now(), SessionId(7), &end);
        until(|| records.lock().expect("unpoisoned").len() == 4).await;
        let records = records.lock().expect("unpoisoned");
        let packets: Vec<_> = records.iter().map(|octets| Packet::parse(octets).expect("a packet")).collect();
        let mut kinds: Vec<_> = packets.iter().map(|packet| packet.number(kind::ACCT_STATUS_TYPE)).collect();
        kinds.sort();
        assert_eq!(kinds, [Some(1), Some(2), Some(3), Some(7)]);
        let stop =
            packets.iter().find(|packet| packet.number(kind::ACCT_STATUS_TYPE) == Some(2)).expect("a Stop");
        for (kind, value) in [
            (kind::ACCT_INPUT_OCTETS, 17),
            (kind::ACCT_INPUT_GIGAWORDS, 5),
            (kind::ACCT_OUTPUT_OCTETS, 400),
            (kind::ACCT_INPUT_PACKETS, 3),
            (kind::ACCT_OUTPUT_PACKETS, 4),
            (kind::ACCT_TERMINATE_CAUSE, 5),
            (kind::FRAMED_IP_ADDRESS, 0x0a46_0001),
        ] {
            assert_eq!(stop.number(kind), Some(value), "{kind}");
        }
        assert_eq!(stop.value(kind::CLASS), Some(&b"gold"[..]));
        let start =
            packets.iter().find(|packet| packet.number(kind::ACCT_STATUS_TYPE) == Some(1)).expect("a Start");
        assert_eq!(start.value(kind::ACCT_SESSION_ID), stop.value(kind::ACCT_SESSION_ID));
    }

    #[tokio::test]
    async fn accounting_waits_for_its_server_and_then_says_everything() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let accounting = socket.local_addr().expect("an address");
        let mut config = config(vec![udp_server(Seen::default()).await], vec![accounting]);
        (config.timeout, config.accounting_queue) = (Duration::from_millis(50), 2);
        let mut rig = Rig::new(&config);
        rig.attach().await;
        rig.radius.ended(Instant::now(), SessionId(7), &SessionEnd::default());
        tokio::time::sleep(Duration::from_millis(600)).await;
        let mut kinds = std::collections::BTreeSet::new();
        let mut buffer = [0; 4096];
        let deadline = Instant::now() + Duration::from_secs(20);
        while kinds.len() < 3 || rig.radius.servers()[1].answers < 3 {
            assert!(Instant::now() < deadline, "{kinds:?}");
            let got = tokio::time::timeout(Duration::from_millis(50), socket.recv_from(&mut buffer)).await;
            let Ok(Ok((len, from))) = got else { continue };
            let packet = Packet::parse(&buffer[..len]).expect("a packet");
            kinds.extend(packet.number(kind::ACCT_STATUS_TYPE));
            let answer = reply(&buffer[..len], &Secret::new(SECRET));
            socket.send_to(&answer, from).await.expect("sent");
        }
        assert_eq!(kinds.into_iter().collect::<Vec<_>>(), [1, 2, 7]);
        assert_eq!(rig.radius.servers()[1].lost, 0);
        // The end of the gateway waits for its last record.
        rig.radius.leave(Instant::now());
        tokio::time::sleep(Duration::from_millis(40)).await;
        assert!(!rig.radius.has_left());
        while !rig.radius.has_left() {
            let (len, from) = socket.recv_from(&mut buffer).await.expect("a record");
            socket.send_to(&reply(&buffer[..len], &Secret::new(SECRET)), from).await.expect("sent");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let last = Packet::parse(&buffer).expect("a packet");
        assert_eq!(last.number(kind::ACCT_STATUS_TYPE), Some(8));
    }

    #[tokio::test]
    async fn another_configuration_keeps_sessions_and_records() {
        use crate::config::AaaKind;
        let silent = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let silent = silent.local_addr().expect("an address");
        let free = UdpSocket::bind("127.0.0.1:0").await.expect("a socket").local_addr().expect("an address");
        let mut first = config(vec![udp_server(Seen::default()).await], vec![silent]);
        first.dynamic = Some(DynamicConfig { listen: free, clients: Vec::new(), needs_timestamp: false });
        let mut rig = Rig::new(&first);
        rig.attach().await;
        rig.radius.step(Instant::now(), step(2, IDENTITY));
        let records = Seen::default();
        let mut second =
            config(vec![udp_server(Seen::default()).await], vec![udp_server(records.clone()).await]);
        (second.digest, second.dynamic) = ([1; 32], first.dynamic.clone());
        let kind = AaaKind::Radius(Some(Arc::new(second)));
        assert!(rig.radius.adopt(&kind) && rig.radius.adopt(&kind), "once changed, once the same");
        assert!(!rig.radius.adopt(&AaaKind::Radius(None)));
        let answer = rig.next().await;
        assert!(
            matches!(&answer, FromAaa::Answer { answer, .. } if rejected(answer) == Some(RejectCause::NetworkFailure))
        );
        until(|| records.lock().expect("unpoisoned").len() == 2).await;
        rig.radius.ended(Instant::now(), SessionId(7), &SessionEnd::default());
        until(|| records.lock().expect("unpoisoned").len() == 3).await;
        let AaaAnswer::Continue { .. } = rig.ask(3, IDENTITY).await else { panic!("not challenged") };
    }

    #[tokio::test]
    async fn r5176_2_1_a_server_ends_a_session_and_changes_how_long_it_lasts() {
        let free = UdpSocket::bind("127.0.0.1:0").await.expect("a socket").local_addr().expect("an address");
        let mut config = config(vec![udp_server(Seen::default()).await], Vec::new());
        config.dynamic = Some(DynamicConfig { listen: free, clients: Vec::new(), needs_timestamp: false });
        let mut rig = Rig::new(&config);
        rig.attach().await;
        let server = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let requests = [(code::COA_REQUEST, code::COA_ACK), (code::DISCONNECT_REQUEST, code::DISCONNECT_ACK)];
        for (request, expected) in requests {
            let mut attributes = Attributes::new();
            attributes.push(kind::USER_NAME, b"alice").expect("room");
            if request == code::COA_REQUEST {
                attributes.push_number(kind::SESSION_TIMEOUT, 30).expect("room");
            }
            let (octets, authenticator) = sign::signed_request(request, 1, &attributes, &Secret::new(SECRET));
            server.send_to(&octets, free).await.expect("sent");
            let mut buffer = [0; 4096];
            let len = server.recv(&mut buffer).await.expect("an answer");
            let packet = Packet::parse(&buffer[..len]).expect("a packet");
            assert_eq!(packet.code(), expected);
            sign::verify_answer(packet, &authenticator, true, &Secret::new(SECRET)).expect("authentic");
        }
        let left = Some(Duration::from_secs(30));
        assert!(
            matches!(rig.next().await, FromAaa::Timeout { session: SessionId(7), left: of } if of == left)
        );
        assert!(matches!(rig.next().await, FromAaa::Disconnect { session: SessionId(7), .. }));
    }

    const CHAIN: &[u8] = include_bytes!("../../../../tests/fixtures/pki/gw-ec.pem");
    const KEY: &[u8] = include_bytes!("../../../../tests/fixtures/pki/gw-ec.key");
    const CLIENT: &str = concat!(
        include_str!("../../../../tests/fixtures/pki/client-ec.pem"),
        include_str!("../../../../tests/fixtures/pki/int.pem")
    );
    const CLIENT_KEY: &[u8] = include_bytes!("../../../../tests/fixtures/pki/client-ec.key");
    const ROOT: &[u8] = include_bytes!("../../../../tests/fixtures/pki/root.pem");

    /// A RadSec server that wants a certificate of its clients. It ends each connection after `answers` answers.
    async fn tls_server(answers: usize) -> SocketAddr {
        use rustls_pki_types::pem::PemObject;
        use rustls_pki_types::{CertificateDer, PrivateKeyDer};
        let certificates = |pem| CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(certificates(ROOT).expect("the fixture"));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .expect("a verifier");
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                certificates(CHAIN).expect("the fixture"),
                PrivateKeyDer::from_pem_slice(KEY).expect("the fixture"),
            )
            .expect("a configuration");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let addr = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(tcp).await else { continue };
                for _ in 0..answers {
                    let mut packet = vec![0; HEADER_LEN];
                    if stream.read_exact(&mut packet).await.is_err() {
                        break;
                    }
                    packet.resize(Packet::announced_len(&packet).expect("a length"), 0);
                    stream.read_exact(&mut packet[HEADER_LEN..]).await.expect("the rest");
                    let answer = reply(&packet, &Secret::radsec());
                    // In pieces: TCP has no packets.
                    for piece in answer.chunks(7) {
                        stream.write_all(piece).await.expect("written");
                        stream.flush().await.expect("written");
                    }
                }
            }
        });
        addr
    }

    #[tokio::test]
    async fn r6614_2_over_tls_a_peer_is_let_in_and_a_new_connection_follows_a_broken_one() {
        let addr = tls_server(1).await;
        let tls =
            TlsClient::with_certificate(ROOT, "gw.test", CLIENT.as_bytes(), CLIENT_KEY).expect("the fixture");
        let mut config = config(vec![addr], Vec::new());
        (config.tls, config.secret) = (Some(vec![tls]), Secret::radsec());
        config.timeout = Duration::from_secs(3);
        let mut rig = Rig::new(&config);
        rig.attach().await;
        let view = rig.radius.servers().remove(0);
        assert_eq!((view.accepts, view.bad_answers), (1, 0));
    }

    #[tokio::test]
    async fn r6614_2_3_a_server_of_another_name_is_not_spoken_to() {
        let addr = tls_server(1).await;
        let tls = TlsClient::with_certificate(ROOT, "other.test", CLIENT.as_bytes(), CLIENT_KEY)
            .expect("the fixture");
        let mut config = config(vec![addr], Vec::new());
        (config.tls, config.secret) = (Some(vec![tls]), Secret::radsec());
        let mut rig = Rig::new(&config);
        assert_eq!(rejected(&rig.ask(1, IDENTITY).await), Some(RejectCause::Unreachable));
        assert_eq!(rig.radius.servers()[0].requests, 0);
    }
}
