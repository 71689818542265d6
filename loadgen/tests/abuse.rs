//! `loadgen abuse` against the real gateway, and against servers that do nothing right. Needs root; says so and passes
//! without.

use serde_json::Value;
use servers::{Serve, server};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Finds the gateway beside this test's programs; builds it when it is not there.
fn gateway() -> PathBuf {
    let beside = PathBuf::from(env!("CARGO_BIN_EXE_loadgen")).with_file_name("swugate");
    if !beside.exists() {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "-p", "gateway"]);
        if beside.parent().is_some_and(|directory| directory.ends_with("release")) {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success());
    }
    beside
}

fn ip(args: &str) {
    assert!(Command::new("ip").args(args.split(' ')).status().unwrap().success(), "ip {args}");
}

/// UEs, gateway and core in a row, and the gateway running.
struct Lab {
    names: [String; 3],
    directory: tempfile::TempDir,
    gateway: Child,
}

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 1);
const CORE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

impl Lab {
    fn start() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: namespaces need root");
            return None;
        }
        let names = ["u", "g", "c"].map(|part| format!("swab{part}{}", std::process::id()));
        for name in &names {
            ip(&format!("netns add {name}"));
            ip(&format!("-n {name} link set lo up"));
        }
        let [ues, middle, core] = &names;
        for (outer, device, peer, own) in [
            (ues, "gw0", "ue0", ["10.20.0.2/24", "10.20.0.1/24"]),
            (core, "gw0", "core0", ["10.77.0.2/24", "10.77.0.1/24"]),
        ] {
            ip(&format!("-n {outer} link add {device} type veth peer name {peer} netns {middle}"));
            ip(&format!("-n {outer} addr add {} dev {device}", own[0]));
            ip(&format!("-n {middle} addr add {} dev {peer}", own[1]));
            ip(&format!("-n {outer} link set {device} up"));
            ip(&format!("-n {middle} link set {peer} up"));
        }
        ip(&format!("-n {core} route add 10.64.0.0/16 via 10.77.0.1"));
        let forward = ["netns", "exec", middle, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"];
        assert!(Command::new("ip").args(forward).status().unwrap().success());
        let directory = tempfile::tempdir().unwrap();
        write_config(directory.path());
        let gateway = Command::new("ip")
            .args(["netns", "exec", middle])
            .arg(gateway())
            .args(["run", "-c", "swugate.toml"])
            .current_dir(directory.path())
            .stderr(Stdio::from(std::fs::File::create(directory.path().join("log")).unwrap()))
            .spawn()
            .unwrap();
        let lab = Self { names, directory, gateway };
        let deadline = Instant::now() + Duration::from_secs(10);
        while !lab.abuse(&["--case", "header-alone"]).status.success() {
            assert!(Instant::now() < deadline, "{}", lab.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        Some(lab)
    }

    /// Runs `loadgen abuse` among the UEs.
    fn abuse(&self, args: &[&str]) -> Output {
        Command::new("ip")
            .args(["netns", "exec", &self.names[0], env!("CARGO_BIN_EXE_loadgen"), "abuse"])
            .args(["--gateway", &format!("{GATEWAY}:4500")])
            .args(args)
            .output()
            .unwrap()
    }

    /// What the gateway complained about.
    fn log(&self) -> String {
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        log.lines().filter(|line| !line.contains(" INFO ")).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.gateway.kill();
        let _ = self.gateway.wait();
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

fn write_config(directory: &Path) {
    let config = r#"[gateway]
identity = "gw.test"
workers = 1
run_dir = "run"
[listen]
tcp = ["10.20.0.1:4500"]
udp = []
[inner]
device = "swu0"
[[pool]]
name = "default"
prefixes = ["10.64.0.0/16"]
[[profile]]
name = "lab"
auth = "psk"
secrets_file = "secrets.toml"
"#;
    std::fs::write(directory.join("swugate.toml"), config).unwrap();
    std::fs::write(directory.join("secrets.toml"), "psk = \"test-secret\"\n").unwrap();
}

fn cases(path: &Path) -> Vec<Value> {
    let report: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(report["command"], "abuse");
    report["cases"].as_array().unwrap().clone()
}

#[test]
fn the_gateway_does_what_every_case_expects() {
    let Some(mut lab) = Lab::start() else { return };
    let json = lab.directory.path().join("abuse.json");
    let far = CORE.to_string();
    let begun = Instant::now();
    let output = lab.abuse(&[
        "--psk",
        "test-secret",
        "--far",
        &far,
        "--flood",
        "300",
        "--json",
        json.to_str().unwrap(),
    ]);
    let cases = cases(&json);
    assert!(cases.len() >= 100, "{}", cases.len());
    let bad: Vec<_> = cases
        .iter()
        .filter(|case| !["as expected", "not run"].contains(&case["verdict"].as_str().unwrap()))
        .collect();
    assert!(bad.is_empty(), "{bad:#?}\n{}", lab.log());
    // Only those about EAP do not apply.
    let left_out: Vec<_> = cases.iter().filter(|case| case["verdict"] == "not run").collect();
    assert!(left_out.iter().all(|case| case["name"].as_str().unwrap().contains("eap")), "{left_out:#?}");
    assert!(output.status.success());
    assert!(begun.elapsed() < Duration::from_secs(180));
    assert!(lab.gateway.try_wait().unwrap().is_none(), "{}", lab.log());
}

#[path = "abuse/servers.rs"]
mod servers;

/// Verdicts by case of a server that is none, and the exit code.
fn verdicts(serve: Serve, names: &[&str]) -> (BTreeMap<String, String>, Option<i32>) {
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("abuse.json");
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["abuse", "--gateway", &server(serve), "--patience", "0.5", "--flood", "20"])
        .args(names.iter().flat_map(|name| ["--case", name]))
        .arg("--json")
        .arg(&json)
        .output()
        .unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let verdicts = cases(&json).iter().map(|case| (text(&case["name"]), text(&case["verdict"]))).collect();
    (verdicts, output.status.code())
}

#[test]
fn servers_that_do_nothing_right_differ() {
    let names =
        ["prefix-wrong", "framing-length-1", "header-response-to-nothing", "auth-wrong", "flood-idle"];
    for serve in [Serve::Nobody, Serve::Echo, Serve::Leave] {
        let (verdicts, code) = verdicts(serve, &names);
        assert_eq!(verdicts.len(), names.len());
        assert!(verdicts.values().all(|verdict| verdict == "differs"), "{serve:?}: {verdicts:?}");
        assert_eq!(code, Some(1));
    }
}

/// Innocent peers are content with these servers, so the control hides nothing.
#[test]
fn every_case_without_keys_can_fail_by_itself() {
    let streams = ["prefix", "framing", "header", "init", "payload", "fragment-of-init", "esp-before-ike"];
    let floods =
        ["flood-idle", "flood-unfinished", "flood-half-open", "flood-one-connection", "flood-unknown-esp"];
    let wrong = [Serve::Anything, Serve::Perfection, Serve::Mute];
    let runs = wrong.map(|serve| std::thread::spawn(move || verdicts(serve, &streams)));
    let passed = runs.into_iter().map(|run| {
        let (verdicts, code) = run.join().unwrap();
        assert!(verdicts.len() > 70, "{}", verdicts.len());
        assert_eq!(code, Some(1));
        let good = verdicts.into_iter().filter(|(_, verdict)| verdict == "as expected");
        good.map(|(name, _)| name).collect::<BTreeSet<String>>()
    });
    let passed = passed.reduce(|some, others| &some & &others);
    // Any answer will do to a bad public value, as long as the responder survives it.
    let survived = ["init-ke-ones", "init-ke-short", "init-ke-zeros"].map(str::to_owned);
    assert_eq!(passed, Some(BTreeSet::from(survived)));
    let (verdicts, _) = verdicts(Serve::OneByOne, &floods);
    assert!(verdicts.values().all(|verdict| verdict == "differs"), "{verdicts:?}");
}

#[test]
fn usage_is_checked_before_anything_is_sent() {
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_loadgen")).arg("abuse").args(args).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    for (args, code, said) in [
        (&["--gateway", "192.0.2.1:4500"][..], 2, "--allow-public"),
        (&["--gateway", "127.0.0.1:1", "--case", "nothing"], 2, "nothing"),
        (&["--gateway", "127.0.0.1:1", "--transport", "udp"], 2, "tcp"),
        (&["--gateway", "127.0.0.1:1", "--flood", "9999"], 2, "--flood"),
        (&[], 2, "--gateway"),
        (&["--list"], 0, "framing-length-0"),
        (&["--list", "--case", "prefix"], 0, "prefix-none"),
    ] {
        let (seen, text) = run(args);
        assert_eq!(seen, Some(code), "{args:?}: {text}");
        assert!(text.contains(said), "{args:?}: {text}");
    }
}
