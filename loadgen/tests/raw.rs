//! The raw engine: over loopback against the scripted gateway, and in a namespace against the real one (needs root; says
//! so and passes without).

#[allow(dead_code, reason = "each test program uses its part")]
mod script;
#[allow(dead_code, reason = "each test program uses its part")]
mod support;

use codec::ike::{ExchangeType, KeGroup};
use loadgen::engine::raw::RawFleet;
use loadgen::report::Progress;
use script::Script;
use script::tcp::{ESP, IKE, answer, plan, script};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::{Namespaces, is_root};

/// How long the UE waits for an answer.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

#[test]
fn r9329_6_1_o3_session_goes_on_over_a_new_connection_after_fin_and_after_length_zero() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let mut script = script();
        answer(&mut listener.accept().unwrap().0, &mut script, 2);
        let (mut stream, _) = listener.accept().unwrap();
        answer(&mut stream, &mut script, 1);
        // RFC 9329 §3: a Length of 0 is fatal to the connection, not to the SA.
        stream.write_all(&[0, 0]).unwrap();
        assert_eq!(stream.read(&mut [0; 64]).unwrap_or(0), 0);
        answer(&mut listener.accept().unwrap().0, &mut script, usize::MAX);
        script
    });
    let (mut fleet, outcome) = RawFleet::attach(plan(gateway, RESPONSE_TIMEOUT), &Progress::new()).unwrap();
    assert_eq!((outcome.ok, outcome.failed), (1, Default::default()));
    let held = fleet.hold(Duration::from_millis(3500), 0.0).unwrap();
    assert_eq!((held.lost, held.reconnects), (0, 2));
    let left = fleet.detach().unwrap();
    assert_eq!((left.ok, left.unanswered), (1, 0));
    let script = server.join().unwrap();
    assert!(script.deleted, "r9329_6_1_o2: DELETE before closing");
    assert!(script.seen[2..4].iter().all(|kind| *kind == ExchangeType::INFORMATIONAL), "{:?}", script.seen);
}

#[test]
fn attach_fails_by_cause_when_nobody_listens_answers_or_the_gateway_hangs_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = listener.local_addr().unwrap();
    let attach = || {
        let (_, outcome) = RawFleet::attach(plan(gateway, RESPONSE_TIMEOUT), &Progress::new()).unwrap();
        outcome.failed.into_keys().next().unwrap()
    };
    let server = std::thread::spawn(move || {
        let silent = listener.accept().unwrap();
        drop(listener.accept().unwrap());
        drop((silent, listener));
    });
    assert_eq!(attach(), "timeout in IKE_SA_INIT");
    // The close of unread data is a reset.
    assert!(["connection: closed by gateway", "connection: reset"].contains(&attach().as_str()));
    server.join().unwrap();
    assert_eq!(attach(), "connection: refused");
}

const TWO_GROUPS: &str = "aes128gcm16-prfsha256-x25519-ecp256";

#[test]
fn attach_goes_on_when_the_gateway_closes_behind_the_request_for_another_group() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let mut script = Script::new(TWO_GROUPS, ESP, b"secret");
        script.faults.other_group = Some(KeGroup::ECP_256);
        answer(&mut listener.accept().unwrap().0, &mut script, 1);
        answer(&mut listener.accept().unwrap().0, &mut script, usize::MAX);
    });
    let mut plan = plan(gateway, RESPONSE_TIMEOUT);
    Arc::get_mut(&mut plan.config).unwrap().ike = vec![TWO_GROUPS.parse().unwrap()];
    let (fleet, outcome) = RawFleet::attach(plan, &Progress::new()).unwrap();
    assert_eq!((outcome.ok, outcome.failed), (1, Default::default()));
    assert_eq!(fleet.detach().unwrap().unanswered, 0);
    server.join().unwrap();
}

/// A namespace with a gateway in it; both go with the value.
struct Gateway {
    namespaces: Namespaces,
    process: Child,
}

impl Gateway {
    fn start(directory: &Path) -> Self {
        let namespaces = Namespaces::create("swraw", &["gw"]);
        std::fs::write(directory.join("secrets.toml"), "psk = \"secret\"\n").unwrap();
        let config = format!(
            "[gateway]\nidentity = \"gw.test\"\nworkers = 2\nrun_dir = \"{}\"\n\
             [listen]\ntcp = [\"127.0.0.1:4500\"]\nudp = []\n[metrics]\nlisten = \"\"\n[inner]\ndevice = \"swu0\"\n\
             [[pool]]\nname = \"default\"\nprefixes = [\"10.64.0.0/16\"]\n\
             [[profile]]\nname = \"lab\"\nmatch = {{ idi = \"*\", idr = \"*\" }}\nauth = \"psk\"\nsecrets_file = \"secrets.toml\"\n\
             pool = \"default\"\nlocal_ts = [\"0.0.0.0/0\"]\nike = [\"{IKE}\"]\nesp = [\"{ESP}\"]\ntransports = [\"tcp\"]\n",
            directory.display()
        );
        std::fs::write(directory.join("swugate.toml"), config).unwrap();
        let process = namespaces
            .command(0, support::gateway())
            .args(["run", "-c"])
            .arg(directory.join("swugate.toml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let gateway = Self { namespaces, process };
        let deadline = Instant::now() + Duration::from_secs(15);
        while !directory.join("control.sock").exists() {
            assert!(Instant::now() < deadline, "the gateway does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        gateway
    }

    /// Runs `loadgen attach` beside it.
    fn attach(&self, args: &[&str]) -> Output {
        self.namespaces
            .command(0, env!("CARGO_BIN_EXE_loadgen"))
            .args(["attach", "--engine", "raw", "--source", "127.1.0.0/24"])
            .args(["--gateway-pid", &self.process.id().to_string()])
            .args(args)
            .output()
            .unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // `ip netns exec` has become the gateway.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn hundreds_attach_hold_and_detach_at_the_real_gateway() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(directory.path());
    let json = directory.path().join("attach.json");
    let report = |output: &Output| -> serde_json::Value {
        let text =
            std::fs::read(&json).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        serde_json::from_slice(&text).unwrap()
    };
    let common = ["--gateway", "127.0.0.1:4500", "--json", json.to_str().unwrap()];

    let rest = ["--psk", "secret", "--ues", "400", "--hold", "2", "--trickle", "300"];
    let output = gateway.attach(&[&common[..], &rest[..]].concat());
    let seen = report(&output);
    assert!(output.status.success(), "{seen:#}");
    let attach = &seen["attach"];
    assert_eq!((&attach["ok"], &attach["detach"]["ok"]), (&400.into(), &400.into()), "{seen:#}");
    assert_eq!((&attach["hold"]["lost"], &attach["detach"]["unanswered"]), (&0.into(), &0.into()));
    assert!(attach["hold"]["trickle_sent"].as_u64().unwrap() >= 300, "{seen:#}");
    assert!(attach["latency_us"]["p50"].as_f64().unwrap() > 0.0);
    assert!(attach["loadgen_bytes_per_ue"].is_f64());
    for key in ["user_bytes_per_session", "private_bytes_per_session", "kernel_slab_bytes_per_connection"] {
        assert!(seen["gateway"][key].is_f64(), "{key}");
    }

    let output = gateway.attach(&[&common[..], &["--psk", "wrong", "--ues", "20"]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(report(&output)["attach"]["failed"], serde_json::json!({ "AUTHENTICATION_FAILED": 20 }));
}
