//! The engine over real TCP on loopback, against the scripted gateway.

#[allow(dead_code, reason = "each test program uses its part")]
mod script;

use codec::ike::ExchangeType;
use codec::stream::{Deframer, FrameKind, NON_ESP_MARKER, Next, classify, frame_ike};
use loadgen::engine::traffic::{self, Direction, Pace, Phase, TrafficPlan};
use loadgen::engine::{self, Fleet, FleetPlan, SourceSpread};
use loadgen::probe::SizePlan;
use loadgen::report::Progress;
use script::Script;
use script::tcp::{answer, plan, script};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
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

/// A second of one packet every 10 ms uplink, towards nobody.
fn traffic_plan() -> TrafficPlan {
    TrafficPlan {
        direction: Direction::Up,
        size: SizePlan::Fixed(200),
        duration: Duration::from_secs(1),
        far: None,
        pace: Pace::PacketsPerSecond(100.0),
        run: 1,
        run_len: None,
        burst: 1,
        queue: 1,
        voice: None,
        churn: None,
    }
}

#[test]
fn whoever_watches_the_traffic_is_told_of_its_time_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || serve(listener, Vec::new()));
    engine::run(async {
        let (fleet, attach) = Fleet::attach(plan(gateway, RESPONSE_TIMEOUT), &Progress::new()).await;
        assert_eq!(attach.ok, 1);
        let mut seen = Vec::new();
        let mut watch = |phase| seen.push((phase, Instant::now()));
        let outcome = traffic::run_watched(&fleet, &traffic_plan(), None, &Progress::new(), &mut watch).await;
        assert!(outcome.uplink.unwrap().sent.unwrap() > 50);
        let [(Phase::Begun, begun_at), (Phase::Ended, ended_at)] = seen[..] else { panic!("{seen:?}") };
        let span = ended_at - begun_at;
        assert!(span >= Duration::from_secs(1) && span < Duration::from_millis(1500), "{span:?}");
        assert_eq!(fleet.detach().await, 0);
    })
    .unwrap();
    server.join().unwrap();
}

/// Serves one UE on one connection and returns the script, what came behind its last message, and how it ended.
fn serve_idle(listener: TcpListener, between: impl FnOnce(&mut TcpStream)) -> (Script, usize) {
    let mut script = script();
    let (mut stream, _) = listener.accept().unwrap();
    answer(&mut stream, &mut script, 2);
    between(&mut stream);
    let mut deframed = after_prefix(&mut stream, &mut script);
    while !script.deleted {
        deframed += after_prefix(&mut stream, &mut script);
    }
    let behind = stream.read(&mut [0; 64]).unwrap();
    assert_eq!(behind, 0, "r9329_6_1_o2: DELETE, then the end of the connection");
    (script, deframed)
}

/// Answers the messages of one read of a stream whose prefix has come; how many there were.
fn after_prefix(stream: &mut TcpStream, script: &mut Script) -> usize {
    let (mut deframer, mut carry, mut buffer, mut at, mut found) =
        (Deframer::originator(), Vec::new(), [0; 4096], 0, 0);
    let len = stream.read(&mut buffer).unwrap();
    assert_ne!(len, 0, "closed before its time");
    while let Next::InPlace(range) = deframer.next(&buffer[..len], &mut at, &mut carry).unwrap() {
        let body = &buffer[range];
        assert!(matches!(classify(body), FrameKind::Ike), "r9329_6_6_o1: no keepalives");
        found += 1;
        if let Some(message) = script.answer(&body[NON_ESP_MARKER.len()..]) {
            let mut out = Vec::new();
            frame_ike(&message, &mut out).unwrap();
            stream.write_all(&out).unwrap();
        }
    }
    found
}

#[test]
fn r9329_6_6_o1_and_6_1_o2_an_idle_ue_says_nothing_ignores_keepalives_and_leaves_with_a_delete() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = listener.local_addr().unwrap();
    let (done, waiting) = std::sync::mpsc::channel();
    let server = std::thread::spawn(move || {
        serve_idle(listener, |stream| {
            stream.write_all(&[0, 3, 0xff].repeat(10_000)).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            let heard = stream.read(&mut [0; 64]).map_err(|error| error.kind());
            assert!(matches!(heard, Err(ErrorKind::WouldBlock | ErrorKind::TimedOut)), "{heard:?}");
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            done.send(()).unwrap();
        })
    });
    run_ue(gateway, |fleet| fleet.reconnects() == 0 && waiting.try_recv().is_ok());
    assert_eq!(server.join().unwrap().1, 1, "the Delete and nothing else");
}

#[test]
fn r9329_6_1_o6_a_corrupted_connection_is_closed_and_the_session_goes_on_over_another() {
    let garbage = [0, 3, 0];
    let stray = [&[0, 30][..], &[0x5a; 28]].concat();
    for (few, many) in [(garbage.repeat(3), garbage.repeat(17)), (stray.repeat(3), stray.repeat(17))] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let gateway = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let mut script = script();
            let (mut stream, _) = listener.accept().unwrap();
            answer(&mut stream, &mut script, 2);
            // A few are survived.
            stream.write_all(&few).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            assert!(stream.read(&mut [0; 64]).is_err(), "neither an answer nor the end");
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            stream.write_all(&many).unwrap();
            assert_eq!(stream.read(&mut [0; 64]).unwrap_or(0), 0);
            let (mut stream, _) = listener.accept().unwrap();
            answer(&mut stream, &mut script, usize::MAX);
            script
        });
        run_ue(gateway, |fleet| fleet.reconnects() == 1);
        assert!(server.join().unwrap().deleted, "the IKE SA outlived the connection");
    }
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
            congestion: None,
            ..plan(gateway, RESPONSE_TIMEOUT)
        };
        let outcome = engine::run(async { Fleet::attach(plan, &Progress::new()).await.1 }).unwrap();
        let causes: Vec<&String> = outcome.failed.keys().collect();
        // The close of unread data is a reset.
        assert!(causes == [expected] || causes == ["connection: reset"], "{causes:?}");
    }
    server.join().unwrap();
}
