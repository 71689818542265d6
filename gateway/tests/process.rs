//! The process from start to end, in a network namespace of its own: needs root, and says so without.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::User;

#[path = "support/process.rs"]
#[allow(dead_code, reason = "other test programs use the rest")]
mod support;

use support::{Gateway, Namespace, SWUGATE, eventually, is_root, text};

const CONFIG: &str = r#"[gateway]
identity = "gw.test"
workers = 2
run_dir = "run"
[listen]
tcp = ["127.0.0.1:4500", "[::1]:4500"]
[inner]
device = "swutest0"
[[pool]]
name = "default"
prefixes = ["10.64.0.0/16", "fd64::/112"]
[[profile]]
name = "lab"
auth = "psk"
secrets_file = "secrets.toml"
[debug]
keylog = true
"#;

#[test]
fn starts_answers_reloads_and_drains() {
    if !is_root() {
        return;
    }
    let namespace = Namespace::new("ctla");
    let mut gateway = Gateway::start(&namespace, CONFIG, None);
    assert_eq!(gateway.notified(), "READY=1");

    assert!(namespace.get("/healthz").starts_with("HTTP/1.1 200"));
    assert!(namespace.get("/readyz").starts_with("HTTP/1.1 200"));
    assert!(namespace.get("/").contains("<h1>swugate</h1>"));
    assert!(namespace.get("/nowhere").starts_with("HTTP/1.1 404"));
    check_metrics(&namespace.get("/metrics"));
    check_commands(&gateway);
    check_device(&namespace);
    check_bad_prefix(&namespace, &gateway);

    // A second instance sees the first and touches nothing.
    let second =
        Command::new(SWUGATE).args(["run", "-c", "swugate.toml"]).current_dir(gateway.dir.path()).output();
    let second = second.expect("runs");
    assert_eq!(second.status.code(), Some(3), "{}", text(&second));
    assert!(text(&second).contains("another swugate answers there"), "{}", text(&second));

    gateway.signal(Signal::SIGHUP);
    eventually("reloaded by SIGHUP", || gateway.log().contains("configuration reloaded"));
    check_reload_of_a_mistake(&gateway);

    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait(), Some(0), "{}", gateway.log());
    assert_eq!(gateway.notified(), "STOPPING=1");
    assert!(!gateway.path("run/control.sock").exists());
    let gone = gateway.command(&["sessions"]);
    assert_eq!(gone.status.code(), Some(1), "{}", text(&gone));
}

fn check_metrics(answer: &str) {
    assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0"), "{answer}");
    for metric in [
        "swugate_sessions 0",
        "swugate_half_open 0",
        "swugate_connections 0",
        "swugate_uplink_packets_total 0",
        "swugate_downlink_bytes_total 0",
        "swugate_drops_total{reason=\"replayed\"} 0",
        "swugate_drops_total{reason=\"ike_auth_psk_mismatch\"} 0",
        "swugate_attach_duration_seconds_count 0",
        "swugate_attach_duration_seconds_bucket{le=\"+Inf\"} 0",
        "swugate_control_queue_depth_max ",
        "swugate_thread_cpu_seconds_total{thread=\"worker-1\"} ",
        "swugate_memory_resident_bytes ",
    ] {
        assert!(answer.lines().any(|line| line.starts_with(metric)), "{metric}\n{answer}");
    }
    assert!(answer.trim_end().ends_with("# EOF"), "{answer}");
}

fn check_commands(gateway: &Gateway) {
    assert_eq!(text(&gateway.command(&["sessions", "--json"])), "[]\n");
    let stats = gateway.command(&["stats", "--json"]);
    let stats: serde_json::Value = serde_json::from_slice(&stats.stdout).expect("JSON");
    for key in [
        "uptime_s",
        "sessions",
        "half_open",
        "connections",
        "attach_per_s",
        "uplink",
        "downlink",
        "drops",
        "control",
    ] {
        assert!(!stats[key].is_null(), "{key} of {stats}");
    }
    assert_eq!(stats["workers"][1]["id"], 1);
    for key in ["connections", "sas", "uplink", "downlink", "cpu_s"] {
        assert!(!stats["workers"][0][key].is_null(), "{key} of {stats}");
    }
    for key in ["queue_depth_max", "ike_messages", "cpu_s"] {
        assert!(!stats["control"][key].is_null(), "{key} of {stats}");
    }
    assert!(stats["memory"]["rss_bytes"].as_u64().expect("a number") > 1 << 20);
    assert!(text(&gateway.command(&["stats"])).contains("attaches/s"));
    for args in [&["terminate", "7"][..], &["terminate", "--idi", "nobody@test"]] {
        let output = gateway.command(args);
        assert_eq!((output.status.code(), text(&output).trim()), (Some(1), "no such session"));
    }
    let keys = gateway.path("keys");
    let started = gateway.command(&["keylog", "start", keys.to_str().expect("UTF-8")]);
    assert_eq!(started.status.code(), Some(0), "{}", text(&started));
    for name in ["ikev2_decryption_table", "esp_sa"] {
        let mode = fs::metadata(keys.join(name)).expect("made").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(fs::metadata(&keys).expect("made").permissions().mode() & 0o777, 0o700);
    assert_eq!(gateway.command(&["keylog", "stop"]).status.code(), Some(0));
    assert_eq!(gateway.command(&["keylog", "stop"]).status.code(), Some(1));
}

fn check_device(namespace: &Namespace) {
    let shown =
        Command::new("ip").args(["-n", &namespace.0, "addr", "show", "swutest0"]).output().expect("ip runs");
    let shown = text(&shown);
    assert!(shown.contains("mtu 1400") && shown.contains("10.64.0.1/16"), "{shown}");
    if Path::new("/proc/net/if_inet6").exists() {
        assert!(shown.contains("fd64::1/112"), "{shown}");
    }
}

/// D1: a wrong prefix closes the connection without an answer, and is counted.
fn check_bad_prefix(namespace: &Namespace, gateway: &Gateway) {
    let mut stream = namespace.connect(4500).expect("listening");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
    let mut answer = Vec::new();
    // A reset is as good as an end: octets beyond the prefix were never read.
    let _ = stream.read_to_end(&mut answer);
    assert_eq!(answer, b"");
    eventually("the wrong prefix is counted", || {
        let stats = gateway.command(&["stats", "--json"]);
        let stats: serde_json::Value = serde_json::from_slice(&stats.stdout).expect("JSON");
        stats["drops"]["prefix_mismatch"] == 1 && stats["connections"] == 0
    });
}

fn check_reload_of_a_mistake(gateway: &Gateway) {
    let path = gateway.path("swugate.toml");
    let good = fs::read_to_string(&path).expect("ours");
    fs::write(&path, good.replace("psk\"", "pks\"")).expect("written");
    let output = gateway.command(&["reload"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains("auth = \"pks\": \"psk\", \"certificate\", \"eap-aka\""),
        "{}",
        text(&output)
    );
    assert_eq!(gateway.command(&["check"]).status.code(), Some(2));
    fs::write(&path, good.replace("\"info\"", "\"debug\"")).expect("written");
    assert_eq!(text(&gateway.command(&["reload"])), "reloaded\n");
}

#[test]
fn keeps_two_capabilities_and_becomes_its_user() {
    if !is_root() {
        return;
    }
    let Ok(Some(nobody)) = User::from_name("nobody") else { return };
    let namespace = Namespace::new("ctlb");
    let mut gateway = Gateway::start(&namespace, CONFIG, Some(&nobody));
    assert_eq!(gateway.notified(), "READY=1");

    let tasks = fs::read_dir(format!("/proc/{}/task", gateway.child.id())).expect("it runs");
    for task in tasks {
        let status = fs::read_to_string(task.expect("a thread").path().join("status")).expect("it runs");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        // CAP_NET_ADMIN is 12, CAP_NET_BIND_SERVICE 10.
        for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
            assert_eq!(field(set), ["0000000000001400"], "{set} of {status}");
        }
        assert_eq!(field("NoNewPrivs:"), ["1"]);
        assert_eq!(field("Uid:"), vec![nobody.uid.to_string(); 4]);
        assert_eq!(field("Groups:"), [nobody.gid.to_string()]);
    }
    assert_eq!(text(&gateway.command(&["reload"])), "reloaded\n");

    let drained = gateway.command(&["drain", "--timeout", "3"]);
    assert_eq!(drained.status.code(), Some(0), "{}", text(&drained));
    assert!(text(&drained).starts_with("drained; 0 sessions"), "{}", text(&drained));
    assert_eq!(gateway.wait(), Some(0), "{}", gateway.log());
    assert!(!gateway.path("run/control.sock").exists());
}

#[test]
fn usage_and_environment_have_their_exit_codes() {
    let run = |args: &[&str]| Command::new(SWUGATE).args(args).output().expect("runs");
    assert_eq!(run(&["launch"]).status.code(), Some(2));
    assert_eq!(run(&["check", "-c", "/nonexistent.toml"]).status.code(), Some(2));
    assert_eq!(run(&["sessions", "-c", "/nonexistent.toml"]).status.code(), Some(1));
    assert_eq!(run(&["--version"]).status.code(), Some(0));
}
