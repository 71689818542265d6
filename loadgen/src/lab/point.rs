//! What the coordinates of a point mean: what is allowed, its name, and its path.

use super::results::Point;
use super::work::Workload;
use crate::path::{Discipline, Limit, Loss, Spec};
use std::time::Duration;

/// Transports of a point.
const TRANSPORTS: [&str; 5] = ["plain", "udp", "tcp", "tls", "openvpn-tcp"];

/// Settles dimensions that say nothing about a point, so that it is not measured twice.
pub(super) fn simplify(point: &mut Point) {
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
}

/// Says what is wrong with a point and what is allowed.
pub(super) fn check(point: &Point) -> Result<(), String> {
    one_of("transport", &point.transport, &TRANSPORTS)?;
    one_of("direction", &point.direction, &["down", "up"])?;
    one_of("discipline", &point.discipline, &["droptail", "codel"])?;
    within("rtt_ms", point.rtt_ms, 0.0, 10_000.0)?;
    within("loss_pct", point.loss_pct, 0.0, 50.0)?;
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

/// Returns the seed of a repetition: that of the path, whatever runs over it, so that all transports meet the same fates.
pub fn seed(matrix_seed: u64, point: &Point, repetition: u32) -> u64 {
    let path = format!(
        "{} {} {:?} {} {} {}",
        point.rtt_ms, point.loss_pct, point.loss_burst, point.rate_mbit, point.queue_ms, point.discipline
    );
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
    Spec {
        delay: Duration::from_secs_f64(point.rtt_ms / 2e3),
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
    fn bursts_have_the_mean_loss() {
        let (_, mut point) = Matrix::read(None).unwrap().points().unwrap()[0].clone();
        (point.loss_pct, point.loss_burst) = (2.0, Some(4.0));
        assert!((spec(&point, 1).loss.mean() - 0.02).abs() < 1e-9);
    }
}
