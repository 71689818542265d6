//! What the coordinates of a point mean: what is allowed, its name, and its path.

use super::results::Point;
use super::work::Workload;
use crate::path::{Discipline, Jitter, Limit, Loss, Spec};
use std::time::Duration;

/// Transports of a point.
const TRANSPORTS: [&str; 6] = ["plain", "udp", "tcp", "tls", "openvpn-tcp", "libreswan"];

/// Settles dimensions that say nothing about a point, so that it is not measured twice.
pub(super) fn simplify(point: &mut Point) {
    // libreswan's guest has one congestion control.
    if !matches!(point.transport.as_str(), "tcp" | "tls" | "openvpn-tcp") {
        point.outer_cc = "cubic".into();
        point.nodelay = true;
        point.unsent_octets = None;
    }
    if !matches!(point.transport.as_str(), "tcp" | "tls" | "udp") {
        point.flow_queue = true;
        point.offload = true;
        point.nodelay = true;
        point.unsent_octets = None;
    }
    if point.loss_pct == 0.0 {
        point.loss_burst = None;
    }
    // Without delay there is nothing to skip.
    if point.rtt_ms == 0.0 && point.jitter_ms == 0.0 && point.normal_jitter_ms == 0.0 {
        point.reorder_pct = 0.0;
    }
}

/// Says what is wrong with a point and what is allowed.
pub(super) fn check(point: &Point) -> Result<(), String> {
    one_of("transport", &point.transport, &TRANSPORTS)?;
    one_of("direction", &point.direction, &["down", "up"])?;
    one_of("discipline", &point.discipline, &["droptail", "codel"])?;
    within("rtt_ms", point.rtt_ms, 0.0, 10_000.0)?;
    within("loss_pct", point.loss_pct, 0.0, 50.0)?;
    within("jitter_ms", point.jitter_ms, 0.0, 10_000.0)?;
    within("normal_jitter_ms", point.normal_jitter_ms, 0.0, 10_000.0)?;
    if point.jitter_ms > 0.0 && point.normal_jitter_ms > 0.0 {
        return Err(format!(
            "normal_jitter_ms = {}: 0 alone is allowed with jitter_ms = {}, since a delay varies in one way",
            point.normal_jitter_ms, point.jitter_ms
        ));
    }
    within("reorder_pct", point.reorder_pct, 0.0, 100.0)?;
    within("duplicate_pct", point.duplicate_pct, 0.0, 100.0)?;
    // A packet with a flipped bit is lost to its receiver: as much as may be lost on the wire.
    within("corrupt_pct", point.corrupt_pct, 0.0, 50.0)?;
    within("rate_mbit", point.rate_mbit, 0.1, 1_000.0)?;
    within("queue_ms", point.queue_ms, 1.0, 10_000.0)?;
    within("loss_burst", point.loss_burst.unwrap_or(1.0), 1.0, 1_000.0)?;
    within("unsent_octets", f64::from(point.unsent_octets.unwrap_or(4_096)), 4_096.0, 16_777_216.0)?;
    for (key, name) in [("outer_cc", &point.outer_cc), ("inner_cc", &point.inner_cc)] {
        if name.is_empty() || !name.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'_') {
            return Err(format!("{key} = {name:?}: the name of a congestion control, such as cubic or bbr"));
        }
    }
    point.workload.parse::<Workload>().map(|_| ()).map_err(|error| format!("workload: {error}"))
}

fn one_of(key: &str, value: &str, allowed: &[&str]) -> Result<(), String> {
    let known = allowed.contains(&value);
    if known { Ok(()) } else { Err(format!("{key} = {value:?}: {} are allowed", allowed.join(", "))) }
}

/// Says what is allowed where a value is outside.
pub(super) fn within(key: &str, value: f64, least: f64, most: f64) -> Result<(), String> {
    let inside = (least..=most).contains(&value);
    if inside { Ok(()) } else { Err(format!("{key} = {value}: {least} to {most} are allowed")) }
}

/// Returns the name of a point: all that it is, so that the same point has the same name in every study.
pub fn id(point: &Point) -> String {
    let mut parts = vec![point.transport.clone()];
    let mut add = |is_usual: bool, text: String| {
        if !is_usual {
            parts.push(text);
        }
    };
    add(point.outer_cc == "cubic", format!("outer-{}", point.outer_cc));
    add(point.inner_cc == "cubic", format!("inner-{}", point.inner_cc));
    add(false, point.workload.clone());
    add(false, point.direction.clone());
    add(false, format!("rtt{}", point.rtt_ms));
    add(false, format!("loss{}", point.loss_pct));
    if let Some(burst) = point.loss_burst {
        add(false, format!("burst{burst}"));
    }
    for (kind, amount) in uneven(point) {
        add(amount == 0.0, format!("{kind}{amount}"));
    }
    add(false, format!("{}mbit", point.rate_mbit));
    add(false, format!("queue{}", point.queue_ms));
    add(point.discipline == "droptail", point.discipline.clone());
    add(point.flow_queue, "no-flow-queue".into());
    add(point.nodelay, "nagle".into());
    if let Some(octets) = point.unsent_octets {
        add(false, format!("unsent{octets}"));
    }
    add(point.offload, "no-offload".into());
    parts.join("_")
}

/// Returns what a path does to packets besides delay, loss and queueing, each with its name in that of a point.
fn uneven(point: &Point) -> [(&'static str, f64); 5] {
    [
        ("jitter", point.jitter_ms),
        ("normal-jitter", point.normal_jitter_ms),
        ("reorder", point.reorder_pct),
        ("duplicate", point.duplicate_pct),
        ("corrupt", point.corrupt_pct),
    ]
}

/// Returns the seed of a repetition: that of the path, whatever runs over it, so that all transports meet the same fates.
pub fn seed(matrix_seed: u64, point: &Point, repetition: u32) -> u64 {
    let mut path = format!(
        "{} {} {:?} {} {} {}",
        point.rtt_ms, point.loss_pct, point.loss_burst, point.rate_mbit, point.queue_ms, point.discipline
    );
    // What is not there adds nothing, so that measurements of before it was a dimension are found again.
    for (kind, amount) in uneven(point).into_iter().filter(|(_, amount)| *amount > 0.0) {
        path.push_str(&format!(" {kind} {amount}"));
    }
    let mut hash = crc32fast::Hasher::new();
    hash.update(path.as_bytes());
    hash.update(&matrix_seed.to_be_bytes());
    hash.update(&repetition.to_be_bytes());
    u64::from(hash.finalize())
}

/// Returns one direction of a point's path.
pub fn spec(point: &Point, seed: u64) -> Spec {
    let loss = point.loss_pct / 100.0;
    let rate_bps = point.rate_mbit * 1e6;
    let milliseconds = |ms: f64| Duration::from_secs_f64(ms / 1e3);
    Spec {
        delay: milliseconds(point.rtt_ms / 2.0),
        jitter: match point.normal_jitter_ms {
            0.0 => Jitter::Uniform(milliseconds(point.jitter_ms)),
            deviation => Jitter::Normal(milliseconds(deviation)),
        },
        reorder: point.reorder_pct / 100.0,
        duplicate: point.duplicate_pct / 100.0,
        corrupt: point.corrupt_pct / 100.0,
        loss: match point.loss_burst {
            None => Loss::Random(loss),
            // All is lost inside of a burst: its mean length is 1/r, and p/(p+r) of the packets are inside.
            Some(burst) => {
                let r = 1.0 / burst;
                Loss::Bursts { p: (r * loss / (1.0 - loss)).min(1.0), r, good: 0.0, bad: 1.0 }
            }
        },
        rate_bps: Some(rate_bps),
        limit: Limit::Octets(((rate_bps / 8e3 * point.queue_ms) as usize).max(3_000)),
        discipline: if point.discipline == "codel" { Discipline::Codel } else { Discipline::Droptail },
        seed,
        ..Spec::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::matrix::Matrix;
    use super::*;

    #[test]
    fn a_path_has_one_seed_for_all_that_runs_over_it() {
        let points = Matrix::read(None).unwrap().points().unwrap();
        let (_, mut point) = points[0].clone();
        let before = seed(1, &point, 0);
        point.transport = "tls".into();
        assert_eq!(seed(1, &point, 0), before);
        assert_ne!(seed(1, &point, 1), before);
        point.loss_pct += 0.5;
        assert_ne!(seed(1, &point, 0), before);
    }

    #[test]
    fn what_a_path_has_besides_is_in_its_name_its_seed_and_the_emulator() {
        let even = Point::default();
        assert_eq!(id(&even), "tcp_bulk_down_rtt60_loss0_20mbit_queue100");
        // As it was before there was more than loss.
        assert_eq!(seed(1, &even, 0), 1_233_444_689);
        let nothing = Spec::default();
        assert_eq!(
            spec(&even, 1),
            Spec {
                jitter: nothing.jitter,
                reorder: nothing.reorder,
                duplicate: nothing.duplicate,
                corrupt: nothing.corrupt,
                ..spec(&even, 1)
            }
        );
        let ms = Duration::from_millis;
        type Change = fn(&mut Point);
        let cases: [(Change, &str, Spec); 5] = [
            (
                |point| point.jitter_ms = 5.0,
                "jitter5",
                Spec { jitter: Jitter::Uniform(ms(5)), ..spec(&even, 1) },
            ),
            (
                |point| point.normal_jitter_ms = 3.0,
                "normal-jitter3",
                Spec { jitter: Jitter::Normal(ms(3)), ..spec(&even, 1) },
            ),
            (|point| point.reorder_pct = 2.0, "reorder2", Spec { reorder: 0.02, ..spec(&even, 1) }),
            (|point| point.duplicate_pct = 1.0, "duplicate1", Spec { duplicate: 0.01, ..spec(&even, 1) }),
            (|point| point.corrupt_pct = 0.5, "corrupt0.5", Spec { corrupt: 0.005, ..spec(&even, 1) }),
        ];
        for (change, name, wanted) in cases {
            let mut uneven = even.clone();
            change(&mut uneven);
            assert_eq!(id(&uneven), format!("tcp_bulk_down_rtt60_loss0_{name}_20mbit_queue100"));
            assert_ne!(seed(1, &uneven, 0), seed(1, &even, 0), "{name}");
            assert_eq!(spec(&uneven, 1), wanted, "{name}");
        }
    }

    #[test]
    fn bursts_have_the_mean_loss() {
        let (_, mut point) = Matrix::read(None).unwrap().points().unwrap()[0].clone();
        (point.loss_pct, point.loss_burst) = (2.0, Some(4.0));
        assert!((spec(&point, 1).loss.mean() - 0.02).abs() < 1e-9);
    }
}
