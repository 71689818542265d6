//! `sessions` and `stats`: what the running gateway answers, as a table or as JSON.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use serde::de::DeserializeOwned;

use super::ANSWER_TIMEOUT;
use crate::admin::api::{FailedRow, RelayRow, Request, SessionRow, Stats};
use crate::admin::socket;
use crate::error::Failure;

/// Time between two looks of `stats --watch`.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Prints the sessions.
pub(super) fn sessions(run_dir: &Path, json: bool) -> Result<(), Failure> {
    let answer = socket::ask(run_dir, &Request::Sessions, ANSWER_TIMEOUT)?;
    if json {
        return print(&answer);
    }
    if answer.get(0).is_some_and(|row| row.get("backend_source").is_some()) {
        return print(&relayed(&decode::<Vec<RelayRow>>(answer)?));
    }
    let rows: Vec<SessionRow> = decode(answer)?;
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_header([
        "ID", "IDI", "IDR", "PROFILE", "STATE", "VIA", "REMOTE", "INNER", "AGE S", "CHILDREN", "UP", "DOWN",
    ]);
    for row in &rows {
        let sum = |octets: fn(&crate::admin::api::ChildRow) -> Option<u64>| -> String {
            let known: Option<Vec<u64>> = row.children.iter().map(octets).collect();
            known.map_or_else(|| "-".into(), |octets| octets.iter().sum::<u64>().to_string())
        };
        table.add_row([
            row.id.to_string(),
            printable(&row.idi),
            printable(&row.idr),
            row.profile.clone(),
            row.state.clone(),
            row.transport.clone(),
            row.remote.clone(),
            row.inner.join(" "),
            row.established_s.to_string(),
            row.children.len().to_string(),
            sum(|child| child.bytes_in),
            sum(|child| child.bytes_out),
        ]);
    }
    print(&table)
}

/// Prints attempts that failed.
pub(super) fn failed(run_dir: &Path, json: bool, idi: Option<String>) -> Result<(), Failure> {
    let answer = socket::ask(run_dir, &Request::Failed { idi }, ANSWER_TIMEOUT)?;
    if json {
        return print(&answer);
    }
    let rows: Vec<FailedRow> = decode(answer)?;
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_header(["AGO S", "IDI", "APN", "IMEI", "PROFILE", "VIA", "REMOTE", "STEPS MS", "CAUSE"]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let or_none = |text: &Option<String>| text.as_deref().map_or_else(|| "-".into(), printable);
    for row in &rows {
        let steps: Vec<String> =
            row.steps.iter().map(|step| format!("{} {:.0}", step.step, step.ms)).collect();
        table.add_row([
            format!("{:.0}", (now - row.began_s).max(0.0)),
            printable(&row.idi),
            or_none(&row.apn),
            or_none(&row.imei),
            or_none(&row.profile),
            row.transport.clone(),
            row.remote.clone(),
            steps.join(", "),
            row.cause.clone(),
        ]);
    }
    print(&table)
}

/// The connections of a relay.
fn relayed(rows: &[RelayRow]) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_header([
        "ID",
        "STATE",
        "VIA",
        "REMOTE",
        "BACKEND SEES",
        "AGE S",
        "IDLE S",
        "SPI I",
        "UP",
        "DOWN",
    ]);
    for row in rows {
        table.add_row([
            row.id.to_string(),
            row.state.clone(),
            row.transport.clone(),
            row.remote.clone(),
            row.backend_source.clone(),
            row.established_s.to_string(),
            row.idle_s.to_string(),
            row.ike.spi_i.clone(),
            row.uplink.bytes.to_string(),
            row.downlink.bytes.to_string(),
        ]);
    }
    table
}

/// Prints one answer. A reader that has seen enough (`| head`) ends the command like any other success.
pub(super) fn print(text: &dyn fmt::Display) -> Result<(), Failure> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        written => written.map_err(|error| Failure::system("standard output", &error)),
    }
}

/// A name chosen by a UE, safe for a terminal.
fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Prints the statistics, once or every second.
pub(super) fn stats(run_dir: &Path, json: bool, watch: bool) -> Result<(), Failure> {
    let mut before: Option<(Instant, Stats)> = None;
    loop {
        let answer = socket::ask(run_dir, &Request::Stats, ANSWER_TIMEOUT)?;
        let now = Instant::now();
        if json {
            print(&answer)?;
        }
        let stats: Stats = decode(answer)?;
        if !json {
            let since = before.as_ref().map(|(then, stats)| (now.duration_since(*then).as_secs_f64(), stats));
            print(&table(&stats, since))?;
        }
        if !watch {
            return Ok(());
        }
        before = Some((now, stats));
        thread::sleep(WATCH_EVERY);
    }
}

fn table(stats: &Stats, before: Option<(f64, &Stats)>) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    let rate = |value: fn(&Stats) -> u64| match before {
        Some((seconds, before)) if seconds > 0.0 => {
            format!("{:.0}/s", value(stats).saturating_sub(value(before)) as f64 / seconds)
        }
        _ => String::new(),
    };
    let plain = |name: &str, value: String| [name.to_owned(), value, String::new()];
    table.add_row(plain("uptime s", stats.uptime_s.to_string()));
    table.add_row(plain("sessions", stats.sessions.to_string()));
    table.add_row(plain("half-open", stats.half_open.to_string()));
    table.add_row(plain("connections", stats.connections.to_string()));
    table.add_row(plain("attaches/s", format!("{:.1}", stats.attach_per_s)));
    type Value = fn(&Stats) -> u64;
    let traffic: [(&str, Value); 4] = [
        ("uplink packets", |stats| stats.uplink.packets),
        ("uplink octets", |stats| stats.uplink.bytes),
        ("downlink packets", |stats| stats.downlink.packets),
        ("downlink octets", |stats| stats.downlink.bytes),
    ];
    for (name, value) in traffic {
        table.add_row([name.to_owned(), value(stats).to_string(), rate(value)]);
    }
    for (reason, n) in stats.drops.iter().filter(|(_, n)| **n > 0) {
        table.add_row(plain(&format!("dropped: {reason}"), n.to_string()));
    }
    for worker in &stats.workers {
        let text =
            format!("{} connections, {} SAs, {:.2} s CPU", worker.connections, worker.sas, worker.cpu_s);
        table.add_row(plain(&format!("worker {}", worker.id), text));
    }
    let control = &stats.control;
    let text = format!(
        "{} IKE messages, queue at most {}, {:.2} s CPU",
        control.ike_messages, control.queue_depth_max, control.cpu_s
    );
    table.add_row(plain("control", text));
    if let Some(rss) = stats.memory.rss_bytes {
        table.add_row(plain("memory MiB", format!("{:.1}", rss as f64 / f64::from(1 << 20))));
    }
    for column in 1..=2 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn decode<T: DeserializeOwned>(answer: serde_json::Value) -> Result<T, Failure> {
    serde_json::from_value(answer).map_err(|error| Failure::Failed(format!("answer not understood: {error}")))
}
