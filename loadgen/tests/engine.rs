//! The engine over real TCP on loopback, against the scripted gateway.

#[allow(dead_code, reason = "each test program uses its part")]
mod script;

use codec::ike::ExchangeType;
use loadgen::engine::{self, Fleet, FleetPlan, SourceSpread};
use loadgen::report::Progress;
use script::Script;
use script::tcp::{answer, plan, script};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

/// How long the UE waits for an answer.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

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
    let mut script = script();
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

fn run_ue(gateway: SocketAddr, until: impl Fn(&Fleet) -> bool) {
    engine::run(async {
        let (fleet, outcome) = Fleet::attach(plan(gateway, RESPONSE_TIMEOUT), &Progress::new()).await;
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
        let plan = FleetPlan {
            rate: Some(100.0),
            source: SourceSpread::new(None),
            ..plan(gateway, RESPONSE_TIMEOUT)
        };
        let outcome = engine::run(async { Fleet::attach(plan, &Progress::new()).await.1 }).unwrap();
        let causes: Vec<&String> = outcome.failed.keys().collect();
        // The close of unread data is a reset.
        assert!(causes == [expected] || causes == ["connection: reset"], "{causes:?}");
    }
    server.join().unwrap();
}
