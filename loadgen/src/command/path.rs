//! `loadgen path`

use crate::cli::PathArgs;
use crate::error::Failure;
use crate::host::{affinity, privilege, signal};
use crate::path::{Counters, Jitter, Limit, Link, Loss, Port, Spec, calibrate};
use crate::report::{Table, write_json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Carries packets between two interfaces until the time is over or a signal comes; or calibrates.
///
/// # Errors
/// See [`Port::open`], [`Link::run`] and [`calibrate::run`].
pub fn run(args: &PathArgs) -> Result<bool, Failure> {
    let specs = specs(args)?;
    if args.calibrate {
        privilege::require_root("loadgen path --calibrate")?;
        let stop = stop_at_signal()?;
        let rows = calibrate::run(args.seconds.unwrap_or(3.0), args.seed, &stop)?;
        println!("{}", calibrate::table(&rows));
        let ok = rows.iter().all(|row| row.ok);
        write(args.json.as_deref(), &serde_json::json!({"command": "path", "calibration": rows, "ok": ok}))?;
        return Ok(ok);
    }
    let names = interfaces(args)?;
    privilege::require_root("loadgen path")?;
    let stop = stop_at_signal()?;
    if let Some(core) = args.core {
        affinity::pin(core)?;
    }
    let mtu = specs[0].mtu.max(specs[1].mtu);
    let ports = [Port::open(names[0], mtu)?, Port::open(names[1], mtu)?];
    let mut link = Link::new(ports, specs.clone())?;
    eprintln!("path between {} and {}", names[0], names[1]);
    if let Some(seconds) = args.seconds {
        let set = stop.clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs_f64(seconds));
            set.store(true, Ordering::Relaxed);
        });
    }
    let ended = link.run(&stop);
    let (counters, refused, held) = (link.counters(), link.refused(), link.held());
    let ways = [format!("{} to {}", names[0], names[1]), format!("{} to {}", names[1], names[0])];
    for side in 0..2 {
        direction_table(&ways[side], &counters[side], refused[side], held[side]).print();
    }
    let direction = |side: usize| {
        serde_json::json!({
            "spec": format!("{:?}", specs[side]), "counters": counters[side],
            "refused": refused[side], "held": held[side],
        })
    };
    let report = serde_json::json!({
        "command": "path", "config": {"a": names[0], "b": names[1], "seed": args.seed},
        "a_to_b": direction(0), "b_to_a": direction(1),
    });
    write(args.json.as_deref(), &report)?;
    ended.map_err(|error| Failure::Environment(format!("an interface is gone: {error}")))?;
    Ok(true)
}

fn stop_at_signal() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let set = stop.clone();
    signal::on_termination(move || set.store(true, Ordering::Relaxed))?;
    Ok(stop)
}

fn interfaces(args: &PathArgs) -> Result<[&str; 2], Failure> {
    let mut named = args.a.iter().chain(&args.interfaces).chain(&args.b).map(String::as_str);
    match (named.next(), named.next(), named.next()) {
        (Some(a), Some(b), None) if a != b => Ok([a, b]),
        _ => Err(Failure::Usage("two interfaces are wanted: `loadgen path A B`, or --a A --b B".into())),
    }
}

/// Returns the two directions: what both have in common, then what each has for itself.
fn specs(args: &PathArgs) -> Result<[Spec; 2], Failure> {
    let mut both = Spec {
        delay: args.delay_ms,
        jitter: args.normal_jitter_ms.map_or(Jitter::Uniform(args.jitter_ms), Jitter::Normal),
        loss: args.burst_loss.unwrap_or(Loss::Random(args.loss_pct)),
        reorder: args.reorder_pct,
        duplicate: args.duplicate_pct,
        corrupt: args.corrupt_pct,
        rate_bps: args.rate_mbit,
        limit: args.queue_octets.map_or(Limit::Packets(args.queue_pkts), Limit::Octets),
        discipline: args.queue_discipline,
        mtu: usize::from(args.mtu),
        seed: args.seed,
    };
    let mut there = both.clone();
    // Other fates on the way back.
    both.seed = args.seed.wrapping_add(1);
    for (flag, spec, text) in [("--a-to-b", &mut there, &args.a_to_b), ("--b-to-a", &mut both, &args.b_to_a)]
    {
        if let Some(text) = text {
            spec.apply(text).map_err(|error| Failure::Usage(format!("{flag} {error}")))?;
        }
    }
    Ok([there, both])
}

fn direction_table(title: &str, counters: &Counters, refused: u64, held: usize) -> Table {
    let mut table = Table::new(title);
    table
        .row("packets in / out", format!("{} / {}", counters.packets_in, counters.packets_out))
        .row("octets in / out", format!("{} / {}", counters.octets_in, counters.octets_out))
        .row("lost on the wire", counters.lost.to_string())
        .row("dropped by the queue", counters.queue_drops.to_string())
        .row("longer than the MTU", counters.too_long.to_string())
        .row(
            "reordered / duplicated / corrupted",
            format!("{} / {} / {}", counters.reordered, counters.duplicated, counters.corrupted),
        )
        .row(
            "longest queue",
            format!("{} packets, {} octets", counters.queue_max_packets, counters.queue_max_octets),
        )
        .row("refused by the kernel / still inside", format!("{refused} / {held}"));
    table
}

fn write(path: Option<&Path>, report: &serde_json::Value) -> Result<(), Failure> {
    let Some(path) = path else { return Ok(()) };
    write_json(path, report)
}
