//! `loadgen abuse` against the real gateway, and against servers that do nothing right. Needs root; says so and passes
//! without.

#[allow(dead_code, reason = "each test program uses its part")]
mod script;
#[allow(dead_code, reason = "each test program uses its part")]
mod support;

#[path = "abuse/lab.rs"]
mod lab;
#[path = "abuse/scripted.rs"]
mod scripted;
#[path = "abuse/servers.rs"]
mod servers;

use lab::{CORE, Lab};
use scripted::{Fault, scripted};
use serde_json::Value;
use servers::{Serve, server};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

fn cases(path: &Path) -> Vec<Value> {
    let report: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(report["command"], "abuse");
    report["cases"].as_array().unwrap().clone()
}

/// The outcome of each case, none of which differs.
fn good(lab: &mut Lab, args: &[&str]) -> Vec<Value> {
    let json = lab.file("abuse.json");
    let far = CORE.to_string();
    let output = lab.abuse(&[&["--far", &far, "--json", json.to_str().unwrap()][..], args].concat());
    let cases = cases(&json);
    let bad: Vec<_> = cases
        .iter()
        .filter(|case| !["as expected", "not run"].contains(&case["verdict"].as_str().unwrap()))
        .collect();
    assert!(bad.is_empty(), "{bad:#?}\n{}", lab.log());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(lab.runs(), "{}", lab.log());
    cases
}

fn not_run(cases: &[Value]) -> Vec<&str> {
    let left_out = cases.iter().filter(|case| case["verdict"] == "not run");
    left_out.map(|case| case["name"].as_str().unwrap()).collect()
}

#[test]
fn the_gateway_does_what_every_case_expects() {
    let Some(mut lab) = Lab::start("all") else { return };
    let begun = Instant::now();
    let cases = good(&mut lab, &["--psk", "test-secret", "--flood", "300"]);
    assert!(cases.len() >= 100, "{}", cases.len());
    // Only those about EAP do not apply to a UE with a key.
    let left_out = not_run(&cases);
    assert!(left_out.iter().all(|name| name.starts_with("auth-eap-")), "{left_out:?}");
    assert!(begun.elapsed() < Duration::from_secs(180));
}

#[test]
fn the_gateway_does_what_cases_about_eap_expect() {
    let Some(mut lab) = Lab::start("eap") else { return };
    let sims = lab::SIMS.map(|(flag, value)| [flag, value]).concat();
    let some = ["--auth", "eap-aka", "--case", "auth", "--case", "fragment-single", "--case", "esp-replayed"];
    let cases = good(&mut lab, &[&some[..], &sims].concat());
    assert!(cases.iter().filter(|case| case["name"].as_str().unwrap().starts_with("auth-eap-")).count() >= 5);
    assert_eq!(not_run(&cases), [""; 0]);
}

#[test]
fn cases_that_need_a_far_host_are_not_run_without_one() {
    let Some(lab) = Lab::start("far") else { return };
    let json = lab.file("abuse.json");
    let names = ["esp-replayed", "esp-wrong-source", "esp-foreign", "esp-far-ahead", "esp-slow-reader"];
    let names = names.map(|name| ["--case", name]).concat();
    let some = ["--psk", "test-secret", "--json", json.to_str().unwrap()];
    assert!(lab.abuse(&[&some[..], &names].concat()).status.success(), "{}", lab.log());
    for case in cases(&json) {
        assert_eq!(case["verdict"], "not run", "{case}");
        assert!(case["seen"].as_str().unwrap().contains("--far"), "{case}");
    }
}

/// Verdicts by case of a server that is none, and the exit code.
fn verdicts(serve: Serve, names: &[&str]) -> (BTreeMap<String, String>, Option<i32>) {
    verdicts_of(&server(serve), &["--patience", "0.5", "--flood", "20"], names)
}

fn verdicts_of(gateway: &str, options: &[&str], names: &[&str]) -> (BTreeMap<String, String>, Option<i32>) {
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("abuse.json");
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["abuse", "--gateway", gateway])
        .args(options)
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
    let streams = [
        "prefix",
        "framing",
        "header",
        "init",
        "payload",
        "fragment-of-init",
        "esp-before-ike",
        "flood-keepalives",
        "flood-unknown-ike",
    ];
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
    assert_eq!(passed, Some(BTreeSet::new()));
    let (verdicts, _) = verdicts(Serve::OneByOne, &floods);
    assert!(verdicts.values().all(|verdict| verdict == "differs"), "{verdicts:?}");
}

/// The keys that a shared secret of zeros leads to are the right ones, or this server would not open what they seal.
#[test]
fn a_server_that_takes_a_shared_secret_of_zeros_differs() {
    let (verdicts, code) = verdicts(Serve::Zeros, &["init-ke-zeros", "init-ke-ones"]);
    let expected = [("init-ke-ones", "as expected"), ("init-ke-zeros", "differs")];
    assert_eq!(verdicts, expected.map(|(name, verdict)| (name.to_owned(), verdict.to_owned())).into());
    assert_eq!(code, Some(1));
}

#[test]
fn a_responder_that_asks_for_cookies_gets_them_and_passes() {
    let names =
        ["header-minor-version-15", "init-nonce-longest", "init-repeated", "prefix-slow", "payload-unknown"];
    let (verdicts, code) = verdicts(Serve::Cookies, &names);
    assert!(
        verdicts.len() == names.len() && verdicts.values().all(|verdict| verdict == "as expected"),
        "{verdicts:?}"
    );
    assert_eq!(code, Some(0));
}

#[test]
fn sessions_that_end_and_answers_that_are_none_differ() {
    let run = |fault, names: &[&str]| {
        let (verdicts, _) = verdicts_of(&scripted(fault), &["--psk", "secret", "--patience", "2"], names);
        names.iter().map(|name| verdicts[*name].clone()).collect::<Vec<_>>()
    };
    // The other case shows that sessions attach and live, so the control hides nothing.
    let witness = "session-response";
    // The session's connection is closed, as a case lets the one before be.
    assert_eq!(run(Fault::NoWayBack, &["session-length-1", witness]), ["differs", "as expected"]);
    // Without EAP the case would not apply, but this gateway does not say so.
    assert_eq!(run(Fault::NoEap, &["auth-eap-nak", witness]), ["differs", "as expected"]);
    assert_eq!(run(Fault::AsksInstead, &["session-octet-by-octet"]), ["no answer"]);
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
        (&["--gateway", "127.0.0.1:1", "--source", "127.1.0.0/24"], 2, "--source"),
        (&["--gateway", "127.0.0.1:1", "--congestion", "cubic"], 2, "--congestion"),
        (&["--gateway", "127.0.0.1:1", "--seed", "1"], 2, "--seed"),
        (&["--gateway", "127.0.0.1:1", "--dpd", "1"], 2, "--dpd"),
        (&["--gateway", "127.0.0.1:1", "--timeout", "1"], 2, "--timeout"),
        (&["--gateway", "127.0.0.1:1", "--core", "9999"], 2, "core"),
        (&[], 2, "--gateway"),
        (&["--list"], 0, "framing-length-0"),
        (&["--list", "--case", "prefix"], 0, "prefix-none"),
    ] {
        let (seen, text) = run(args);
        assert_eq!(seen, Some(code), "{args:?}: {text}");
        assert!(text.contains(said), "{args:?}: {text}");
    }
}
