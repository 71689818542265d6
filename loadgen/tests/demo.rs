//! `loadgen demo` with the real gateway, as a user runs it. Needs root; says so and passes without.

#[allow(dead_code, reason = "each test program uses its part")]
mod support;

use std::process::{Command, Stdio};
use support::{gateway, is_root};

/// Runs `loadgen demo` and returns its report; `None` without root.
fn demo(args: &[&str]) -> Option<serde_json::Value> {
    if !is_root() {
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("demo.json");
    let demo = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .arg("demo")
        .args(args)
        .arg("--json")
        .arg(&json)
        .arg("--swugate")
        .arg(gateway())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let own = format!("-{}", demo.id());
    let output = demo.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let left = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    assert!(!left.map(|entry| entry.file_name().into_string().unwrap()).any(|name| name.ends_with(&own)));
    Some(serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap())
}

#[test]
fn demo_attaches_everyone_and_loses_nothing() {
    let Some(report) = demo(&["--ues", "20", "--seconds", "1"]) else { return };
    assert_eq!(report["attach"]["ok"], 20);
    for way in ["uplink", "downlink"] {
        for fault in ["lost", "duplicated", "corrupted"] {
            assert_eq!(report[way][fault], 0, "{way} {fault}");
        }
        assert!(report[way]["bits_per_s"].as_f64().unwrap() > 1e6);
        assert!(report[way]["cpu_s_per_gb"].as_f64().unwrap() > 0.0);
        assert!(report[way]["latency_us"]["p50"].as_f64().unwrap() > 0.0);
    }
    assert!(report["gateway"]["rss_bytes"].as_u64().unwrap() > 0);
    // What would explain a loss, had there been one.
    assert!(report["gateway"]["drops"].is_object());
    let devices = report["network"]["devices"].as_object().unwrap();
    assert_eq!(devices.keys().collect::<Vec<_>>(), ["core0", "gw0", "gw1", "swu0", "ue0"]);
    assert!(devices.values().all(|drops| drops["rx_dropped"].is_u64() && drops["tx_dropped"].is_u64()));
    for namespace in ["ue", "gateway", "core"] {
        assert!(report["network"]["udp"][namespace]["rcvbuf_errors"].is_u64(), "{namespace}");
    }
    assert_eq!(report["network"]["far_end_refused"], 0);
    assert!(report["loadgen"]["cpu_s_per_gb"].as_f64().unwrap() > 0.0);
}

#[test]
fn r9329_6_1_sessions_survive_cut_connections_and_every_packet_is_accounted_for() {
    let args = ["--ues", "10", "--seconds", "5", "--direction", "both", "--rate", "20M"];
    let more = ["--churn", "30", "--voice", "3", "--voice-beside", "--no-offload", "--size", "160"];
    let Some(report) = demo(&[&args[..], &more].concat()) else { return };
    // The last two seconds are quiet.
    assert!(report["churn"]["cuts"].as_u64().unwrap() >= 8, "{}", report["churn"]);
    assert_eq!(report["churn"]["other_reconnects"], 0);
    let voice = &report["voice"];
    for way in [&report["uplink"], &report["downlink"], &voice["uplink"], &voice["downlink"]] {
        for fault in ["lost", "reordered", "duplicated", "corrupted"] {
            assert_eq!(way[fault], 0, "{fault}: {way}");
        }
        let count = |key: &str| way[key].as_u64().unwrap();
        assert_eq!(count("sent"), count("received") + count("lost_at_cut"), "{way}");
        assert!(way["latency_us"]["p999"].as_f64().unwrap() > 0.0 && way["late"].is_u64());
    }
    let cost = &report["gateway"]["cpu_s_per_gb"];
    assert!(cost.as_f64().unwrap() > 0.0);
    assert_eq!((&report["uplink"]["cpu_s_per_gb"], &report["downlink"]["cpu_s_per_gb"]), (cost, cost));
    assert_eq!((&voice["ues"], &voice["beside"], &voice["lost"]), (&3.into(), &true.into(), &0.into()));
    // 3 calls of 50 packets per second.
    let calls = voice["uplink"]["sent"].as_u64().unwrap();
    assert!((600..=760).contains(&calls), "{calls}");
}

#[test]
fn what_is_missing_or_wrong_is_said_with_the_exit_code_of_the_contract() {
    let run = |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_loadgen")).args(args).output().unwrap();
    for (args, code, said) in [
        (&["attach", "--gateway", "127.0.0.1:1"][..], 2, "--psk"),
        (&["attach", "--gateway", "nowhere", "--psk", "x"], 2, "--gateway"),
        (&["attach", "--gateway", "127.0.0.1:1", "--psk", "x", "--transport", "tls"], 2, "--tls-ca"),
        (&["attach", "--gateway", "127.0.0.1:1", "--psk", "x", "--ike", "rot13"], 2, "rot13"),
        (&["traffic", "--gateway", "127.0.0.1:1", "--psk", "x", "--direction", "down"], 2, "--far"),
        (&["sink", "--listen", "192.0.2.1:9"], 3, "192.0.2.1"),
        (&["attach", "--gateway", "127.0.0.1:1", "--psk", "x"], 1, ""),
    ] {
        let output = run(args);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
        assert!(text.contains(said), "{args:?}: {text}");
    }
}
