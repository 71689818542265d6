//! TLS as the whole process serves it (RFC 9329 Appendices A and B).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustls::{ClientConnection, HandshakeKind, StreamOwned};

use crate::client::{Client, ike_frame};
use crate::lab::{AWAY, GATEWAY, HOME, Lab, Setup, dial};
use crate::tls_ends::{client, connect, fixture};
use crate::ue::{Ue, UeConfig};

/// Handshakes begun at once. Each costs the worker a signature; a packet of a session may wait for some of them,
/// not for a share of this.
const FLOOD: usize = 2_000;
const SHARE_MAX: u32 = 8;

/// Octets of the process for one of them, as `limits.tls_handshakes` says.
const HANDSHAKE_OCTETS_MAX: u64 = 8 * 1024;

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A gateway with TLS on port 443, whose certificate and key are in `dir`.
fn lab(dir: &Path) -> Option<Lab> {
    let path = |name: &str| dir.join(name).display().to_string();
    // Tests have a few of these, once each.
    let limits = format!(
        "tls_handshakes = 4096\n[tls]\nchain = \"{}\"\nkey = \"{}\"\n",
        path("gw.pem"),
        path("gw.key")
    );
    Lab::start(Setup {
        listen: Some("[\"10.20.0.1:4500\"]\ntls = [\"10.20.0.1:443\"]"),
        limits: limits.leak(),
        ..Setup::default()
    })
}

fn show(dir: &Path, name: &str) {
    for end in ["pem", "key"] {
        std::fs::copy(fixture(&format!("{name}.{end}")), dir.join(format!("gw.{end}"))).expect("copied");
    }
}

fn dial_tls(config: &std::sync::Arc<rustls::ClientConfig>) -> Tls {
    connect(dial((HOME, 0).into(), (GATEWAY, 443).into()).expect("it listens"), config)
}

fn frame(stream: &mut Tls) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("a frame");
    let mut body = vec![0; usize::from(u16::from_be_bytes(length)) - 2];
    stream.read_exact(&mut body).expect("its body");
    // Behind the Non-ESP Marker.
    body.split_off(4)
}

#[test]
fn r9329_a_3_a_reload_changes_the_certificate_and_leaves_connections_and_tickets_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    show(dir.path(), "gw-ec");
    let Some(lab) = lab(dir.path()) else { return };
    let config = client();
    let mut ue = Ue::new(UeConfig::new(1));
    let mut live = dial_tls(&config);
    live.write_all(&[b"IKETCP", ike_frame(&ue.init()).as_slice()].concat()).expect("sent");
    ue.on_init(&frame(&mut live)).expect("no error");
    let shown = |tls: &Tls| tls.conn.peer_certificates().expect("shown")[0].to_vec();
    let before = shown(&live);

    show(dir.path(), "gw-rsa");
    lab.ask(r#"{"command":"reload"}"#);
    live.write_all(&ike_frame(&ue.auth())).expect("the connection goes on");
    assert_eq!(ue.on_auth(&frame(&mut live)).error(), None);
    let session = &lab.sessions()[0];
    assert_eq!((&session["transport"], &session["state"]), (&"tls".into(), &"established".into()));
    let mut resumed = dial_tls(&config);
    resumed.write_all(b"IKETCP").expect("sent");
    assert_eq!(resumed.conn.handshake_kind(), Some(HandshakeKind::Resumed), "with a ticket of before");
    let mut fresh = dial_tls(&client());
    fresh.write_all(b"IKETCP").expect("sent");
    assert_ne!(shown(&fresh), before);
}

#[test]
fn r9329_10_1_a_flood_of_handshakes_does_not_keep_a_session_waiting() {
    let dir = tempfile::tempdir().expect("a directory");
    show(dir.path(), "gw-rsa");
    let Some(lab) = lab(dir.path()) else { return };
    let mut session = Client::attach(1);
    let mut hello = Vec::new();
    let mut first = ClientConnection::new(client(), "gw.test".try_into().expect("a name")).expect("a client");
    first.write_tls(&mut hello).expect("memory");
    let flood: Vec<TcpStream> =
        (0..FLOOD).map(|_| dial((AWAY, 0).into(), (GATEWAY, 443).into()).expect("it listens")).collect();
    lab.until("they are accepted", FLOOD as u64 + 1, |lab| lab.stats()["connections"].as_u64().unwrap_or(0));
    let (before, began) = (lab.resident(), Instant::now());
    for mut stream in &flood {
        stream.write_all(&hello).expect("sent");
    }
    let mut slowest = Duration::ZERO;
    let total = std::thread::scope(|scope| {
        let answered = scope.spawn(|| {
            flood.iter().for_each(|mut stream| stream.read_exact(&mut [0; 1]).expect("each is answered"));
            began.elapsed()
        });
        while !answered.is_finished() {
            let sent = Instant::now();
            session.send(b"beside them");
            assert_eq!(lab.at_core().1, b"beside them");
            slowest = slowest.max(sent.elapsed());
        }
        answered.join().expect("all are answered")
    });
    let each = lab.resident().saturating_sub(before) / FLOOD as u64;
    println!("{FLOOD} handshakes in {total:?}, {each} octets each; slowest packet beside them: {slowest:?}");
    assert!(slowest < total / SHARE_MAX, "{slowest:?} of {total:?}");
    assert!(each < HANDSHAKE_OCTETS_MAX, "{each} octets");
    // They go no further, and end in time.
    lab.until("they are over", FLOOD as u64, |lab| lab.closes("prefix_timeout"));
}
