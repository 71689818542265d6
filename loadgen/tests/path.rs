//! `loadgen path` as a user runs it. What needs namespaces needs root; it says so and passes without.

#[allow(dead_code, reason = "each test program uses its part")]
mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::{Namespaces, ip, is_root};

fn loadgen(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.arg("path").args(args).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn report(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The emulator, ended on drop.
struct Emulator(Child);

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_short_calibration_holds() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("path.json");
    let arguments = ["--calibrate", "--seconds", "1", "--json", json.to_str().unwrap()];
    let child = loadgen(&arguments).spawn().unwrap();
    let own = format!("-{}", child.id());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let report = report(&json);
    let rows = report["calibration"].as_array().unwrap_or_else(|| panic!("{said}"));
    assert_eq!(rows.len(), 15);
    for row in rows {
        // A second on a busy host: the command itself allows 5 %.
        let (deviation, allowed) =
            (row["deviation_pct"].as_f64().unwrap(), row["allowed_pct"].as_f64().unwrap());
        assert!(deviation.abs() <= allowed + 10.0, "{row}");
        assert!(row["unexplained"].is_null() || row["unexplained"] == 0, "{row}");
    }
    let left = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    assert!(!left.map(|entry| entry.file_name().into_string().unwrap()).any(|name| name.ends_with(&own)));
}

#[test]
fn a_veth_path_delays_pings_and_counts_them() {
    if !is_root() {
        return;
    }
    let namespaces = Namespaces::create("swpatht", &["a", "mid", "b"]);
    let [a, mid, b] = [0, 1, 2].map(|index| namespaces.0[index].as_str());
    for (end, inner, address) in [(a, "ma", "198.18.7.1/24"), (b, "mb", "198.18.7.2/24")] {
        ip(&["link", "add", "eth0", "netns", end, "type", "veth", "peer", "name", inner, "netns", mid]);
        ip(&["-n", end, "address", "add", address, "dev", "eth0"]);
        ip(&["-n", end, "link", "set", "eth0", "up"]);
    }
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("path.json");
    let (one, other) = (format!("{mid}/ma"), format!("{mid}/mb"));
    let arguments = [&one, &other, "--delay-ms", "15", "--mtu", "1500", "--json", json.to_str().unwrap()];
    let mut emulator = Emulator(loadgen(&arguments).spawn().unwrap());
    let ping = |more: &[&str]| {
        let output = Command::new("ip")
            .args(["netns", "exec", a, "ping", "-n", "-q", "-W", "1"])
            .args(more)
            .arg("198.18.7.2")
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let begin = Instant::now();
    while !ping(&["-c", "1"]).0 {
        assert!(begin.elapsed() < Duration::from_secs(20), "the path does not come up");
    }
    let (ok, said) = ping(&["-c", "20", "-i", "0.05"]);
    assert!(ok && said.contains(" 0% packet loss"), "{said}");
    // rtt min/avg/max/mdev = 30.1/30.4/…
    let least: f64 = said.split(" = ").nth(1).unwrap().split('/').next().unwrap().parse().unwrap();
    assert!((30.0..40.0).contains(&least), "{said}");
    let pid = nix::unistd::Pid::from_raw(emulator.0.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(emulator.0.wait().unwrap().success());
    let report = report(&json);
    for way in ["a_to_b", "b_to_a"] {
        let counters = &report[way]["counters"];
        assert!(counters["packets_in"].as_u64().unwrap() >= 21, "{report}");
        assert_eq!((&counters["lost"], &counters["too_long"]), (&0.into(), &0.into()), "{report}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    for (args, said) in [
        (&["a"][..], "two interfaces"),
        (&["a", "a"], "two interfaces"),
        (&["a", "b", "--a-to-b", "loss=200"], "--a-to-b loss=200"),
        (&["a", "b", "--loss-pct", "200"], "per cent"),
        (&["a", "b", "--burst-loss", "1"], "P and R"),
    ] {
        let output = loadgen(args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
        assert!(text.contains(said), "{args:?}: {text}");
    }
}
