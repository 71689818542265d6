//! From the options of test traffic to its plan, and from its outcome to the report.

use crate::cli::{LoadOptions, Rate};
use crate::engine::traffic::{Direction, Pace, TrafficOutcome, TrafficPlan, VOICE_PACKETS_PER_S, VoicePlan};
use crate::error::Failure;
use crate::report::{ChurnSection, LatencySection, LoadgenSection, Report, Table, VoiceSection};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;

/// Uplink packets in flight of all UEs together to which single windows are fitted, and the bounds of a window.
const WINDOW_TOTAL: u32 = 16_384;
const WINDOW_MIN: u32 = 32;
const WINDOW_MAX: u32 = 1_024;
/// The same downlink: three bursts of the longest packets for each of 64 UEs, and twice that for one.
const DOWN_WINDOW_TOTAL: u32 = 8_832;
const DOWN_WINDOW_MAX: u32 = 276;
/// Downlink packets in flight when nothing is known of the gateway: a TUN device of default length holds 500.
const QUEUE_DEFAULT: u32 = 440;

/// Returns what `options` ask for.
pub fn plan(
    options: &LoadOptions,
    ues: u32,
    direction: Direction,
    seconds: f64,
    far: Option<SocketAddr>,
    run: u32,
) -> TrafficPlan {
    TrafficPlan {
        direction,
        size: options.size,
        duration: Duration::from_secs_f64(seconds),
        far,
        pace: pace(options, ues),
        run,
        run_len: options.interleave.then_some(1),
        burst: if options.interleave || options.rate == Some(Rate::Voice) { 1 } else { options.burst },
        queue: options.queue.unwrap_or(QUEUE_DEFAULT),
        voice: options.voice.map(|ues| VoicePlan { ues, beside: options.voice_beside }),
        churn: options.churn.map(|percent| percent / 100.0),
    }
}

/// Refuses what there is over TCP only.
///
/// # Errors
/// [`Failure::Usage`] for connections to cut where there are none.
pub fn check_transport(options: &LoadOptions, udp: bool) -> Result<(), Failure> {
    match options.churn {
        Some(_) if udp => {
            Err(Failure::Usage("--churn cuts TCP connections; it needs --transport tcp".into()))
        }
        _ => Ok(()),
    }
}

fn pace(options: &LoadOptions, ues: u32) -> Pace {
    match options.rate {
        None => {
            let (up, down) = default_windows(ues);
            Pace::Window { up: options.window.unwrap_or(up), down: options.window.unwrap_or(down) }
        }
        Some(Rate::Voice) => Pace::PacketsPerSecond(VOICE_PACKETS_PER_S),
        Some(Rate::BitsPerSecond(bits)) => {
            let calls = options.voice.filter(|_| !options.voice_beside).unwrap_or(0);
            let bulk_ues = f64::from(ues.saturating_sub(calls).max(1));
            Pace::PacketsPerSecond(bits / 8.0 / options.size.mean_len() / bulk_ues)
        }
    }
}

/// Returns the closed-loop windows for so many UEs, up and down.
fn default_windows(ues: u32) -> (u32, u32) {
    let each = |total: u32, most: u32| (total / ues.max(1)).clamp(WINDOW_MIN, most);
    (each(WINDOW_TOTAL, WINDOW_MAX), each(DOWN_WINDOW_TOTAL, DOWN_WINDOW_MAX))
}

/// Returns the traffic's part of the report's `config`.
pub fn config(options: &LoadOptions, plan: &TrafficPlan) -> Value {
    let (window, packets_per_s) = match plan.pace {
        Pace::Window { up, down } => (Some(json!({"up": up, "down": down})), None),
        Pace::PacketsPerSecond(rate) => (None, Some(rate)),
    };
    json!({
        "size": format!("{:?}", options.size).to_lowercase(), "window": window, "packets_per_s_per_ue": packets_per_s,
        "queue": plan.queue, "burst": plan.burst, "pattern": if options.interleave { "interleave" } else { "runs" },
        "voice_ues": options.voice, "voice_beside": options.voice_beside, "churn_pct": options.churn,
        "checked": "header, sequence number and every octet of every packet",
    })
}

/// Adds the members of `more` to the object `config`.
pub fn with_config(mut config: Value, more: Value) -> Value {
    if let (Some(object), Value::Object(more)) = (config.as_object_mut(), more) {
        object.extend(more);
    }
    config
}

/// Puts what the traffic measured into the report.
pub fn fill_report(report: &mut Report, outcome: &TrafficOutcome, options: &LoadOptions) {
    (report.uplink, report.downlink) = (outcome.uplink, outcome.downlink);
    report.latency_us = outcome.uplink.or(outcome.downlink).and_then(|way| way.latency_us);
    report.voice = outcome
        .voice
        .map(|voice| VoiceSection::new(voice.ues, options.voice_beside, voice.uplink, voice.downlink));
    report.churn = outcome.churn.map(|churn| ChurnSection {
        cuts: churn.cuts,
        other_reconnects: churn.uncalled,
        recovery_us: LatencySection::from_summary(&churn.recoveries),
    });
    report.loadgen =
        Some(LoadgenSection { cpu_s: outcome.own_cpu_s, cpu_s_per_gb: outcome.own_cpu_s_per_gb() });
    (report.gateway.cpu_s, report.gateway.core_s) = (outcome.cpu_s, outcome.core_s);
    report.gateway.cpu_s_per_gb = outcome.cpu_s_per_gb();
}

/// Adds the traffic to a table; `at_once` says that both directions ran at the same time and so have one cost.
pub fn table(table: &mut Table, report: &Report, at_once: bool) {
    let ways = [("uplink", report.uplink), ("downlink", report.downlink)];
    for (name, section) in ways.iter().filter_map(|(name, section)| section.as_ref().map(|some| (name, some)))
    {
        table.direction(name, section);
        table.cost(name, section.cpu_s_per_gb.filter(|_| !at_once));
    }
    table.cost("both directions'", report.gateway.cpu_s_per_gb.filter(|_| at_once));
    if let Some(section) = &report.voice {
        table.voice(section);
    }
    if let Some(section) = &report.churn {
        table.churn(section);
    }
    if let Some(section) = &report.loadgen {
        table.loadgen(section);
    }
}

/// Returns whether everything sent arrived once and intact, as far as somebody looked; with cuts in order, too.
pub fn is_clean(outcome: &TrafficOutcome) -> bool {
    if outcome.unopened > 0 {
        eprintln!(
            "{} UEs got no answer from the far end through the tunnel; check --far, its route back to the UEs' pool, and the gateway's forwarding",
            outcome.unopened
        );
    }
    let voice = outcome.voice.unwrap_or_default();
    let mut ways = [outcome.uplink, outcome.downlink, voice.uplink, voice.downlink].into_iter().flatten();
    let in_order = outcome.churn.is_some();
    outcome.unopened == 0 && !ways.any(|way| way.is_damaged() || (in_order && way.reordered > Some(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

    fn options(text: &str) -> LoadOptions {
        let words =
            "loadgen traffic --gateway g:1".split(' ').chain(text.split(' ').filter(|word| !word.is_empty()));
        match Cli::parse_from(words).command {
            crate::cli::Command::Traffic(args) => args.load,
            _ => unreachable!("the text says traffic"),
        }
    }

    #[test]
    fn windows_stay_within_bounds() {
        assert_eq!(default_windows(1), (1024, 276));
        assert_eq!(default_windows(100), (163, 88));
        assert_eq!(default_windows(10_000), (32, 32));
    }

    #[test]
    fn a_rate_is_shared_by_the_ues_that_pass_bulk() {
        let rate = |text: &str| match pace(&options(text), 10) {
            Pace::PacketsPerSecond(rate) => rate,
            Pace::Window { .. } => unreachable!("a rate was given"),
        };
        assert_eq!(rate("--rate 112M"), 1_000.0);
        assert_eq!(rate("--rate 112M --voice 2"), 1_250.0);
        assert_eq!(rate("--rate 112M --voice 2 --voice-beside"), 1_000.0);
    }

    #[test]
    fn options_reach_the_plan() {
        let options = options("--interleave --churn 1 --voice 3 --queue 9 --window 7 --size 160");
        let plan = plan(&options, 4, Direction::Both, 2.0, None, 5);
        assert_eq!((plan.run_len, plan.churn, plan.queue, plan.run), (Some(1), Some(0.01), 9, 5));
        assert_eq!(plan.voice, Some(VoicePlan { ues: 3, beside: false }));
        assert_eq!(plan.pace, Pace::Window { up: 7, down: 7 });
    }

    #[test]
    fn cuts_excuse_nothing_but_what_was_in_flight() {
        use crate::engine::traffic::ChurnOutcome;
        use crate::probe::Tally;
        use crate::report::{Account, DirectionSection};
        let outcome = |tally: &Tally| {
            let mut account = Account::default();
            account.add(10, tally);
            TrafficOutcome {
                uplink: Some(DirectionSection::checked(&account, 1.0)),
                churn: Some(ChurnOutcome::default()),
                ..TrafficOutcome::default()
            }
        };
        let explained = Tally { received: 8, lost_at_cut: 2, ..Tally::default() };
        assert!(is_clean(&outcome(&explained)));
        assert!(!is_clean(&outcome(&Tally { received: 7, ..explained })), "one is missing without reason");
        assert!(!is_clean(&outcome(&Tally { reordered: 1, ..explained })));
    }
}
