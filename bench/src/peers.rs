//! `bench peers`: swugate beside other tunnel gateways on the same path.
//!
//! The peers' scripts and the harness that runs them are in `bench/peers`; this asks them for swugate and the peers in one
//! run and says how many times less swugate costs.

use crate::cli::PeersArgs;
use crate::report::{environment, figure, print_table, write_json};
use loadgen::demo::gateway::find_binary;
use loadgen::error::Failure;
use loadgen::host::privilege;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Whose own rate is the load that all are offered while round trips are measured.
const REFERENCE: &str = "openvpn-tcp";
/// Who is measured beside swugate when nobody is named.
const PEERS: [&str; 4] = [REFERENCE, "ocserv", "softether", "strongswan"];
const SWUGATE: &str = "swugate";

/// Runs the command; returns whether every peer could be measured.
///
/// # Errors
/// [`Failure::Environment`] without root, the scripts or the binaries; [`Failure::Check`] when the harness fails.
pub fn run(args: &PeersArgs) -> Result<bool, Failure> {
    privilege::require_root("peers makes network namespaces and")?;
    let swugate = find_binary(args.common.swugate.as_deref())?;
    let loadgen = swugate.with_file_name("loadgen");
    let harness = args.kit.join("run");
    if !harness.is_file() {
        return Err(Failure::Environment(format!(
            "there is no {}; name the directory bench/peers of the sources with --kit",
            harness.display()
        )));
    }
    let figures = std::env::temp_dir().join(format!("peers-{}.json", std::process::id()));
    let ran = command(args, &harness, &swugate, &loadgen, &figures).status();
    let text = std::fs::read_to_string(&figures);
    let _ = std::fs::remove_file(&figures);
    ran.map_err(|error| Failure::Environment(format!("cannot run {}: {error}", harness.display())))?;
    let text = text.map_err(|_| Failure::Check("the harness ended without figures".into()))?;
    let mut report: Value = serde_json::from_str(&text)
        .map_err(|error| Failure::Check(format!("the harness's figures: {error}")))?;
    report["command"] = "peers".into();
    report["config"] = serde_json::json!({"seconds": args.seconds, "repeat": args.repeat});
    report["environment"] = environment();
    let results = report["peers"].as_array().cloned().unwrap_or_default();
    report["ratios"] = ratios(&results);
    print(&results);
    write_json(args.common.json.as_deref(), &report)?;
    Ok(!results.is_empty() && results.iter().all(|result| result["error"].is_null()))
}

/// The reference comes first, since its rate is everybody's offered load; then swugate.
fn order(named: &[String]) -> Vec<String> {
    let asked: Vec<&str> =
        if named.is_empty() { PEERS.to_vec() } else { named.iter().map(String::as_str).collect() };
    let first = [REFERENCE, SWUGATE].into_iter().filter(|name| *name == SWUGATE || asked.contains(name));
    let others = asked.iter().copied().filter(|name| ![REFERENCE, SWUGATE].contains(name));
    first.chain(others).map(str::to_owned).collect()
}

fn command(args: &PeersArgs, harness: &PathBuf, swugate: &Path, loadgen: &Path, figures: &Path) -> Command {
    let mut command = Command::new(harness);
    command.arg("--swugate").arg(swugate).arg("--loadgen").arg(loadgen).arg("--json").arg(figures);
    command.args(["--seconds", &args.seconds.to_string(), "--repeat", &args.repeat.to_string()]);
    let flags = [(args.no_wait, "--no-wait"), (args.no_round_trips, "--no-round-trips")];
    command.args(flags.iter().filter(|(set, _)| *set).map(|(_, flag)| flag));
    command.args(order(&args.peers));
    command
}

/// How many times as much each peer costs and waits, by peer: CPU of the server per gigabyte, round trip under bulk.
fn ratios(results: &[Value]) -> Value {
    let Some(ours) = results.iter().find(|result| result["peer"] == SWUGATE) else { return Value::Null };
    let others = results.iter().filter(|result| result["peer"] != SWUGATE);
    let entries = others.map(|peer| {
        let times = |path: &str| {
            let (theirs, ours) = (peer.pointer(path)?.as_f64()?, ours.pointer(path)?.as_f64()?);
            (ours > 0.0).then(|| theirs / ours)
        };
        let ways = ["up", "down"].map(|way| {
            let ratios = serde_json::json!({
                "server_cpu_s_per_gb": times(&format!("/rates/{way}/server_cpu_s_per_gb")),
                "rtt_p99_under_bulk": times(&format!("/round_trips/{way}/p99_ms")),
            });
            (way.to_owned(), ratios)
        });
        (peer["peer"].as_str().unwrap_or_default().to_owned(), Value::Object(ways.into_iter().collect()))
    });
    Value::Object(entries.collect())
}

fn print(results: &[Value]) {
    let columns = [
        "Gbit/s up / down",
        "server CPU s/GB",
        "client CPU s/GB",
        "times swugate",
        "RTT idle p50 / p99 ms",
        "beside bulk up",
        "beside bulk down",
    ];
    let ratios = ratios(results);
    print_table("peer", &columns, results.iter().map(|result| cells(result, &ratios)));
    println!(
        "~ others used the machine meanwhile; round trips at equal offered load, {REFERENCE}'s own rate"
    );
}

fn cells(result: &Value, ratios: &Value) -> Vec<String> {
    let name = result["peer"].as_str().unwrap_or_default();
    if let Some(error) = result["error"].as_str() {
        return vec![name.to_owned(), format!("failed: {}", error.lines().next().unwrap_or_default())];
    }
    let mark = |at: &str| match result.pointer(at).and_then(Value::as_bool) {
        Some(true) => "~",
        _ => "",
    };
    let number = |path: String, digits| figure(result.pointer(&path).and_then(Value::as_f64), digits);
    let rates = |key: &str| {
        let [up, down] = ["up", "down"]
            .map(|way| number(format!("/rates/{way}/{key}"), 2) + mark(&format!("/rates/{way}/disturbed")));
        format!("{up} / {down}")
    };
    let trip = |beside: &str| {
        let [p50, p99] = ["p50_ms", "p99_ms"].map(|key| number(format!("/round_trips/{beside}/{key}"), 2));
        format!("{p50} / {p99}{}", mark(&format!("/round_trips/{beside}/disturbed")))
    };
    let times = ["up", "down"].map(|way| {
        figure(ratios.pointer(&format!("/{name}/{way}/server_cpu_s_per_gb")).and_then(Value::as_f64), 1)
    });
    vec![
        name.to_owned(),
        rates("gbit_per_s"),
        rates("server_cpu_s_per_gb"),
        rates("client_cpu_s_per_gb"),
        times.join(" / "),
        trip("idle"),
        trip("up"),
        trip("down"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_comes_first_and_swugate_always_runs() {
        assert_eq!(order(&[]), ["openvpn-tcp", "swugate", "ocserv", "softether", "strongswan"]);
        assert_eq!(order(&["ocserv".into()]), ["swugate", "ocserv"]);
        assert_eq!(order(&["ocserv".into(), "openvpn-tcp".into()]), ["openvpn-tcp", "swugate", "ocserv"]);
    }

    #[test]
    fn ratios_say_how_many_times_as_much_a_peer_costs() {
        let rate = |cost: f64| serde_json::json!({"up": {"server_cpu_s_per_gb": cost}});
        let results = [
            serde_json::json!({"peer": "openvpn-tcp", "rates": rate(9.0)}),
            serde_json::json!({"peer": "swugate", "rates": rate(0.6)}),
        ];
        let found = ratios(&results);
        assert_eq!(found["openvpn-tcp"]["up"]["server_cpu_s_per_gb"], 15.0);
        assert!(found["openvpn-tcp"]["down"]["server_cpu_s_per_gb"].is_null());
    }
}
