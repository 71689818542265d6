//! The engine over real TCP on loopback, against the scripted gateway.

#[allow(dead_code, reason = "each test program uses its part")]
mod script;

use codec::OsRandom;
use codec::ike::ExchangeType;
use codec::stream::{Deframer, FrameKind, NON_ESP_MARKER, Next, classify, frame_ike};
use loadgen::engine::{self, Fleet, FleetPlan, SourceSpread};
use loadgen::report::Progress;
use loadgen::ue::{Credentials, Identity, UeConfig};
use script::Script;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

const IKE: &str = "aes128gcm16-prfsha256-x25519";
const ESP: &str = "aes128gcm16";

/// How the scripted gateway ends a connection once it has answered so many requests.
#[derive(Clone, Copy)]
enum Ending {
    /// FIN.
    Close,
    /// A frame Length of 0, which is fatal.
    BadLength,
}

/// Serves connections one after the other: the first until it has answered `requests`, the last until its end.
fn serve(listener: TcpListener, endings: Vec<(usize, Ending)>) -> Script {
    let mut script = Script::new(IKE, ESP, b"secret");
    for (requests, ending) in endings {
        let (mut stream, _) = listener.accept().unwrap();
        answer(&mut stream, &mut script, requests);
        match ending {
            Ending::Close => {}
            Ending::BadLength => {
                stream.write_all(&[0, 0]).unwrap();
                // The UE closes; nothing else comes before.
                assert_eq!(stream.read(&mut [0; 64]).unwrap_or(0), 0);
            }
        }
    }
    let (mut stream, _) = listener.accept().unwrap();
    answer(&mut stream, &mut script, usize::MAX);
    script
}

fn answer(stream: &mut TcpStream, script: &mut Script, requests: usize) {
    // Asserts r9329_4_o1 and r9329_6_1_o1: `responder` fails unless the stream starts with the prefix.
    let mut deframer = Deframer::responder();
    let (mut carry, mut buffer, mut answered) = (Vec::new(), [0; 4096], 0);
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    while answered < requests {
        let len = stream.read(&mut buffer).unwrap();
        if len == 0 {
            return;
        }
        let mut at = 0;
        loop {
            let body = match deframer
                .next(&buffer[..len], &mut at, &mut carry)
                .expect("prefix and lengths are right")
            {
                Next::Pending => break,
                Next::InPlace(range) => buffer[range].to_vec(),
                Next::Carried => carry.clone(),
            };
            assert!(matches!(classify(&body), FrameKind::Ike), "r9329_6_6_o1: no keepalives");
            let Some(message) = script.answer(&body[NON_ESP_MARKER.len()..]) else { continue };
            // RFC 9329 §3, §6.6: an empty frame and a keepalive in front must not matter.
            let mut out = vec![0, 2, 0, 3, 0xff];
            frame_ike(&message, &mut out).unwrap();
            for octet in out {
                stream.write_all(&[octet]).unwrap();
            }
            answered += 1;
        }
    }
}

fn run_ue(gateway: SocketAddr, until: impl Fn(&Fleet) -> bool) {
    let plan = FleetPlan {
        gateway,
        ues: 1,
        rate: None,
        in_flight: 1,
        source: SourceSpread::new(Some("127.0.0.9/32".parse().unwrap())),
        config: Arc::new(UeConfig {
            ike: vec![IKE.parse().unwrap()],
            esp: vec![ESP.parse().unwrap()],
            credentials: Credentials::Psk(b"secret".to_vec().into()),
            idr: None,
            gateway_id: None,
            response_timeout: Duration::from_secs(10),
            dpd: None,
            replay_window: 64,
        }),
        idi: Box::new(|_| Identity::parse("ue@test")),
        random: Box::new(OsRandom),
    };
    engine::run(async {
        let (fleet, outcome) = Fleet::attach(plan, &Progress::new()).await;
        assert_eq!((outcome.ok, outcome.failed), (1, Default::default()));
        let deadline = Instant::now() + Duration::from_secs(10);
        while !until(&fleet) {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(fleet.detach().await, 0);
    })
    .unwrap();
}

fn reconnects_after(ending: Ending) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || serve(listener, vec![(2, ending)]));
    run_ue(gateway, |fleet| fleet.reconnects() == 1);
    let script = server.join().unwrap();
    assert!(script.deleted, "r9329_6_1_o2: DELETE before closing");
    assert!(script.seen.len() >= 3 && script.seen[2] == ExchangeType::INFORMATIONAL, "{:?}", script.seen);
}

#[test]
fn r9329_6_1_o3_session_goes_on_over_a_new_connection_after_fin() {
    reconnects_after(Ending::Close);
}

#[test]
fn r9329_3_o1_length_zero_closes_the_connection_and_keeps_the_session() {
    reconnects_after(Ending::BadLength);
}

#[test]
fn attach_fails_by_cause_when_nobody_listens_or_the_gateway_hangs_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || drop(listener.accept().unwrap()));
    for expected in ["connection: closed by gateway", "connection: refused"] {
        let config = Arc::new(UeConfig {
            ike: vec![IKE.parse().unwrap()],
            esp: vec![ESP.parse().unwrap()],
            credentials: Credentials::Psk(b"secret".to_vec().into()),
            idr: None,
            gateway_id: None,
            response_timeout: Duration::from_secs(10),
            dpd: None,
            replay_window: 64,
        });
        let plan = FleetPlan {
            gateway,
            ues: 1,
            rate: Some(100.0),
            in_flight: 1,
            source: SourceSpread::new(None),
            config,
            idi: Box::new(|_| Identity::parse("ue@test")),
            random: Box::new(OsRandom),
        };
        let outcome = engine::run(async { Fleet::attach(plan, &Progress::new()).await.1 }).unwrap();
        let causes: Vec<&String> = outcome.failed.keys().collect();
        // The close of unread data is a reset.
        assert!(causes == [expected] || causes == ["connection: reset"], "{causes:?}");
    }
    server.join().unwrap();
}
