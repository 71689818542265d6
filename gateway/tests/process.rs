//! The process from start to end, in a network namespace of its own: needs root, and says so without.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User};

const SWUGATE: &str = env!("CARGO_BIN_EXE_swugate");

/// Time the contract gives a start.
const READY_MAX: Duration = Duration::from_secs(10);

/// Time the contract gives SIGTERM.
const END_MAX: Duration = Duration::from_secs(5);

/// A network namespace that goes away with the test.
struct Namespace(String);

impl Namespace {
    fn new(name: &str) -> Self {
        let name = format!("ctl{name}{}", std::process::id());
        ip(&["netns", "add", &name]);
        ip(&["-n", &name, "link", "set", "lo", "up"]);
        Self(name)
    }

    /// Connects to a port of the namespace's loopback.
    fn connect(&self, port: u16) -> std::io::Result<TcpStream> {
        let path = format!("/run/netns/{}", self.0);
        // Namespaces belong to threads.
        thread::spawn(move || {
            setns(File::open(path)?, CloneFlags::CLONE_NEWNET)?;
            TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port)))
        })
        .join()
        .expect("no panic")
    }

    fn get(&self, path: &str) -> String {
        let mut stream = self.connect(9329).expect("metrics listen");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn ip(args: &[&str]) {
    assert!(Command::new("ip").args(args).status().expect("ip runs").success(), "ip {args:?}");
}

/// A running gateway, ended with the test whatever happens.
struct Gateway {
    child: Child,
    dir: tempfile::TempDir,
    notify: UnixDatagram,
}

impl Gateway {
    fn start(namespace: &Namespace, user: Option<&User>) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("mode set");
        let secrets = dir.path().join("secrets.toml");
        fs::write(&secrets, "psk = \"test\"\n").expect("written");
        fs::set_permissions(&secrets, fs::Permissions::from_mode(0o600)).expect("mode set");
        let mut line = String::new();
        if let Some(user) = user {
            chown(&secrets, Some(user.uid.as_raw()), None).expect("given away");
            line = format!("user = \"{}\"\n", user.name);
        }
        fs::write(dir.path().join("swugate.toml"), CONFIG.replace("USER\n", &line)).expect("written");
        let notify = UnixDatagram::bind(dir.path().join("notify")).expect("a socket");
        fs::set_permissions(dir.path().join("notify"), fs::Permissions::from_mode(0o777)).expect("mode set");
        notify.set_read_timeout(Some(READY_MAX)).expect("a timeout");
        let child = Command::new("ip")
            .args(["netns", "exec", &namespace.0, SWUGATE, "run", "-c", "swugate.toml"])
            .current_dir(dir.path())
            .env("NOTIFY_SOCKET", dir.path().join("notify"))
            .stderr(Stdio::from(File::create(dir.path().join("log")).expect("a log")))
            .spawn()
            .expect("started");
        Self { child, dir, notify }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn notified(&self) -> String {
        let mut buffer = [0; 64];
        let len = self.notify.recv(&mut buffer).unwrap_or_else(|error| panic!("{error}\n{}", self.log()));
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn command(&self, args: &[&str]) -> Output {
        Command::new(SWUGATE).args(args).arg("-c").arg(self.path("swugate.toml")).output().expect("runs")
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("the process is ours");
    }

    fn wait(&mut self) -> Option<i32> {
        let deadline = Instant::now() + END_MAX;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return status.code();
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("still running\n{}", self.log());
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const CONFIG: &str = r#"[gateway]
identity = "gw.test"
workers = 2
run_dir = "run"
USER
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

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn is_root() -> bool {
    let root = Uid::effective().is_root();
    if !root {
        eprintln!("skipped: needs root for a namespace and a device");
    }
    root
}

/// Waits for `condition` to hold.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn starts_answers_reloads_and_drains() {
    if !is_root() {
        return;
    }
    let namespace = Namespace::new("a");
    let mut gateway = Gateway::start(&namespace, None);
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
    assert!(text(&output).contains("auth = \"pks\": \"psk\" or \"certificate\""), "{}", text(&output));
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
    let namespace = Namespace::new("b");
    let mut gateway = Gateway::start(&namespace, Some(&nobody));
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
