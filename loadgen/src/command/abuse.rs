//! `loadgen abuse`

use super::options::{Prepared, chosen_proposals, environment};
use crate::abuse::{self, Bounds, Case, Outcome, Plan, Stage, Verdict, describe};
use crate::cli::{AbuseArgs, Auth, Transport, UeOptions};
use crate::error::Failure;
use crate::host::{affinity, privilege};
use crate::report::{Progress, write_json};
use comfy_table::{ContentArrangement, presets};
use serde_json::{Value, json};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

/// Open files beside those of a flood.
const FILES: u64 = 64;

/// Plays the cases; returns whether the responder did what it may in all of them, and answered where an answer is due.
///
/// # Errors
/// [`Failure::Usage`] for unknown cases and for addresses that are not one's own, [`Failure::Check`] when the responder
/// does not serve an innocent peer to begin with.
pub fn run(args: &AbuseArgs) -> Result<bool, Failure> {
    let cases = chosen(&args.case)?;
    if args.list {
        print(&listing(&cases));
        return Ok(true);
    }
    let plan = plan(args)?;
    let progress = Progress::new();
    if !plan.credentials {
        progress.step("no --psk: cases that need an attached UE are not run");
    }
    let outcomes = abuse::play(plan, &cases, |outcome| progress.step(&line(outcome)))
        .map_err(|cause| Failure::Check(format!("{}: an innocent UE: {cause}", args.ue.gateway)))?;
    print(&table(&outcomes));
    print(&summary(&outcomes));
    if let Some(path) = &args.json {
        write_json(path, &report(args, &outcomes))?;
    }
    Ok(outcomes.iter().all(|outcome| outcome.verdict.is_good()))
}

/// Prints to standard output, whether or not anybody reads on.
fn print(text: &dyn std::fmt::Display) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// The cases asked for, by name or by family.
fn chosen(names: &[String]) -> Result<Vec<&'static Case>, Failure> {
    let is = |case: &Case, name: &String| case.name == name || case.family() == name;
    if let Some(unknown) = names.iter().find(|name| !abuse::all().any(|case| is(case, name))) {
        let text = format!("--case {unknown}: no such case; `loadgen abuse --list` names them");
        return Err(Failure::Usage(text));
    }
    Ok(abuse::all().filter(|case| names.is_empty() || names.iter().any(|name| is(case, name))).collect())
}

fn plan(args: &AbuseArgs) -> Result<Plan, Failure> {
    refuse_unused(&args.ue)?;
    let mut options = args.ue.clone();
    let by_psk = matches!(options.auth, None | Some(Auth::Psk)) && options.profile.is_none();
    let credentials = !by_psk || options.psk.is_some();
    if !credentials {
        // Never sent: without credentials nobody gets as far as a proof.
        options.psk = Some("none".into());
    }
    let mut prepared = Prepared::new(&options)?;
    if !args.allow_public && !abuse::is_private(prepared.gateway.ip()) {
        return Err(Failure::Usage(format!(
            "{} is neither private nor loopback, and this traffic is hostile; --allow-public if it is yours",
            prepared.gateway.ip()
        )));
    }
    privilege::require_files(u64::from(args.flood) + FILES)?;
    if let Some(core) = options.core {
        affinity::pin(core)?;
    }
    // Fragments are part of the cases, and have to be announced.
    if let Some(config) = Arc::get_mut(&mut prepared.config) {
        config.handset.fragmentation = true;
    }
    let patience = Duration::try_from_secs_f64(args.patience)
        .map_err(|_| Failure::Usage(format!("--patience {}: a number of seconds", args.patience)))?;
    let bounds = Bounds { patience, flood: args.flood };
    let stage = Stage::new(prepared.gateway, &prepared.config, (prepared.who)(0), bounds)
        .ok_or_else(|| Failure::Usage("--ike: no proposal that can begin".into()))?;
    let (config, who) = (prepared.config, prepared.who);
    Ok(Plan { stage, config, who, credentials, far: args.far })
}

/// Refuses what no case heeds: to take it without a word would let a run mean something else than it did.
fn refuse_unused(options: &UeOptions) -> Result<(), Failure> {
    if options.transport != Transport::Tcp {
        return Err(Failure::Usage("abuse is of RFC 9329 streams: --transport tcp only".into()));
    }
    let given = [
        ("--source", options.source.is_some(), "connections are the kernel's, from one address"),
        (
            "--congestion",
            options.congestion.is_some(),
            "connections are the kernel's, as the system has them",
        ),
        ("--seed", options.seed.is_some(), "keys and SPIs are drawn anew in each run"),
        ("--dpd", options.dpd.is_some(), "cases ask by themselves whether a session lives"),
        ("--timeout", options.timeout.is_some(), "answers are waited for 5 s; --patience bounds the rest"),
    ];
    match given.iter().find(|(_, given, _)| *given) {
        Some((flag, _, why)) => Err(Failure::Usage(format!("{flag} is of no use to abuse: {why}"))),
        None => Ok(()),
    }
}

/// One line for each case as it ends.
fn line(outcome: &Outcome) -> String {
    let Outcome { case, seen, verdict, took } = outcome;
    format!("{:32} {:12} {:5.1} s  {seen}", case.name, verdict.to_string(), took.as_secs_f64())
}

fn listing(cases: &[&'static Case]) -> comfy_table::Table {
    let mut table = begin(&["case", "source", "sent", "expected"]);
    for case in cases {
        table.add_row([case.name, case.source, case.sent, &describe(case.expected)]);
    }
    table
}

fn table(outcomes: &[Outcome]) -> comfy_table::Table {
    let mut table = begin(&["case", "source", "sent", "expected", "seen", "verdict"]);
    for Outcome { case, seen, verdict, .. } in outcomes {
        let expected = describe(case.expected);
        table.add_row([case.name, case.source, case.sent, &expected, seen, &verdict.to_string()]);
    }
    table
}

fn begin(header: &[&str]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    // Wide enough to be read where the output is no terminal.
    if table.width().is_none() {
        table.set_width(160);
    }
    table.set_header(header.iter().copied());
    table
}

fn summary(outcomes: &[Outcome]) -> String {
    let verdicts = [Verdict::AsExpected, Verdict::Differs, Verdict::NoAnswer, Verdict::NotRun];
    let count = |verdict| outcomes.iter().filter(|outcome| outcome.verdict == verdict).count();
    let counts: Vec<String> =
        verdicts.iter().map(|verdict| format!("{} {verdict}", count(*verdict))).collect();
    format!("{} cases: {}", outcomes.len(), counts.join(", "))
}

fn report(args: &AbuseArgs, outcomes: &[Outcome]) -> Value {
    let (ike, esp) = chosen_proposals(&args.ue);
    let cases: Vec<Value> = outcomes
        .iter()
        .map(|Outcome { case, seen, verdict, took }| {
            json!({
                "name": case.name, "source": case.source, "sent": case.sent, "expected": describe(case.expected),
                "seen": seen, "verdict": verdict.to_string(), "seconds": took.as_secs_f64(),
            })
        })
        .collect();
    json!({
        "command": "abuse",
        "config": {
            "gateway": args.ue.gateway, "case": args.case, "patience_s": args.patience, "flood": args.flood,
            "far": args.far.map(|far| far.to_string()), "ike": ike, "esp": esp,
        },
        "environment": environment(args.ue.core),
        "cases": cases,
    })
}
