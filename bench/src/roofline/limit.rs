//! What the stages allow, and how much of it a path reaches.

use crate::path::Row;
use crate::stage::PACKET_LEN;
use serde::Serialize;
use std::borrow::Cow;

/// What one stage costs.
#[derive(Clone, Debug, Serialize)]
pub struct Stage {
    /// What it does.
    pub name: Cow<'static, str>,
    /// Thread CPU nanoseconds per packet of 1400 octets.
    pub ns_per_packet: f64,
}

/// A direction's limit and the paths measured against it.
#[derive(Clone, Debug, Serialize)]
pub struct Limit {
    /// `up` or `down`.
    pub direction: &'static str,
    /// Connections that the TCP stage and the paths have.
    pub connections: usize,
    /// The stages that every packet passes.
    pub stages: Vec<Stage>,
    /// Their sum.
    pub ns_per_packet: f64,
    /// Bits per second that one core carries when nothing else costs anything.
    pub bits_per_s: f64,
    /// What the same stages cost in one loop.
    pub loop_ns_per_packet: f64,
    /// The same run's paths.
    pub paths: Vec<PathShare>,
}

/// A path and its share of the limit.
#[derive(Clone, Debug, Serialize)]
pub struct PathShare {
    /// What was measured.
    pub row: Row,
    /// Part of the limit, 0 to 1.
    pub share: Option<f64>,
    /// Part of what the stages reach in one loop.
    pub share_of_loop: Option<f64>,
}

/// Calls: the loop's cost per packet where each comes by itself on another connection, and the path's.
#[derive(Clone, Debug, Serialize)]
pub struct Calls {
    /// `up` or `down`.
    pub direction: &'static str,
    /// Connections, each with a packet at a time.
    pub connections: usize,
    /// Thread CPU nanoseconds per packet of 160 octets of the stages in one loop.
    pub loop_ns_per_packet: f64,
    /// The same run's path.
    pub path: Row,
    /// Part of what the stages reach in one loop.
    pub share_of_loop: Option<f64>,
}

impl Calls {
    pub(super) fn new(
        direction: &'static str,
        connections: usize,
        loop_ns_per_packet: f64,
        path: Row,
    ) -> Self {
        let share = |packets: f64| packets * loop_ns_per_packet / 1e9;
        let share_of_loop = path.packets_per_cpu_s.map(share);
        Self { direction, connections, loop_ns_per_packet, path, share_of_loop }
    }

    /// The medians; all of `calls` are of the same direction.
    pub(super) fn median(calls: &[&Self]) -> Self {
        let together = middle(calls.to_vec(), |calls| calls.loop_ns_per_packet).loop_ns_per_packet;
        let rows = calls.iter().map(|calls| &calls.path).collect();
        let row = middle(rows, |row| row.packets_per_cpu_s.unwrap_or(0.0)).clone();
        Self::new(calls[0].direction, calls[0].connections, together, row)
    }
}

impl Limit {
    pub(super) fn new(
        direction: &'static str,
        connections: usize,
        stages: Vec<Stage>,
        loop_ns_per_packet: f64,
    ) -> Self {
        let ns_per_packet: f64 = stages.iter().map(|stage| stage.ns_per_packet).sum();
        let bits_per_s = rate(ns_per_packet);
        Self {
            direction,
            connections,
            stages,
            ns_per_packet,
            bits_per_s,
            loop_ns_per_packet,
            paths: Vec::new(),
        }
    }

    /// The median of every stage, and of every path the row with the median rate; all of `limits` have the same ones.
    pub(super) fn median(limits: &[&Self]) -> Self {
        let first = limits[0];
        let stages = median_stages(limits.iter().map(|limit| &*limit.stages));
        let together = middle(limits.to_vec(), |limit| limit.loop_ns_per_packet).loop_ns_per_packet;
        let mut whole = Self::new(first.direction, first.connections, stages, together);
        for path in 0..first.paths.len() {
            let rows = limits.iter().map(|limit| &limit.paths[path].row);
            let row = middle(rows.collect(), |row| row.bits_per_cpu_s.unwrap_or(0.0)).clone();
            whole.paths.push(whole.share(row));
        }
        whole
    }

    pub(super) fn share(&self, row: Row) -> PathShare {
        let share = row.bits_per_cpu_s.map(|bits| bits / self.bits_per_s);
        let share_of_loop = row.bits_per_cpu_s.map(|bits| bits / rate(self.loop_ns_per_packet));
        PathShare { row, share, share_of_loop }
    }
}

/// Bits per second of packets that take so long each.
pub(super) fn rate(ns_per_packet: f64) -> f64 {
    PACKET_LEN as f64 * 8.0 / ns_per_packet * 1e9
}

pub(super) fn median_stages<'a>(rounds: impl Iterator<Item = &'a [Stage]>) -> Vec<Stage> {
    let rounds: Vec<&[Stage]> = rounds.collect();
    let of = |at: usize| rounds.iter().map(|stages| &stages[at]).collect();
    (0..rounds[0].len()).map(|at| middle(of(at), |stage| stage.ns_per_packet).clone()).collect()
}

/// The one in the middle; of an even number the lower.
fn middle<T>(mut values: Vec<&T>, key: impl Fn(&T) -> f64) -> &T {
    values.sort_by(|one, other| key(one).total_cmp(&key(other)));
    values[(values.len() - 1) / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_the_inverse_of_the_sum() {
        let limit = Limit::new(
            "up",
            1,
            vec![
                Stage { name: "a".into(), ns_per_packet: 300.0 },
                Stage { name: "b".into(), ns_per_packet: 400.0 },
            ],
            800.0,
        );
        assert_eq!((limit.ns_per_packet, limit.bits_per_s), (700.0, 16e9));
    }

    #[test]
    fn medians_are_taken_of_stages_and_paths_apart() {
        let round = |ns: f64, bits: f64| {
            let stage = || Stage { name: "a".into(), ns_per_packet: ns };
            let mut limit = Limit::new(
                "up",
                1,
                vec![stage(), Stage { name: "b".into(), ns_per_packet: 100.0 }],
                ns + 300.0,
            );
            let row = Row { bits_per_cpu_s: Some(bits), ..Row::default() };
            limit.paths.push(limit.share(row));
            limit
        };
        let rounds = [round(600.0, 9e9), round(900.0, 8e9), round(300.0, 12e9)];
        let limit = Limit::median(&rounds.each_ref());
        assert_eq!((limit.ns_per_packet, limit.bits_per_s), (700.0, 16e9));
        let path = &limit.paths[0];
        assert_eq!((path.row.bits_per_cpu_s, path.share), (Some(9e9), Some(9.0 / 16.0)));
        // 900 ns for 11,200 bits are 12.44 Gbit/s.
        let of_loop = path.share_of_loop.unwrap();
        assert!(limit.loop_ns_per_packet == 900.0 && (of_loop - 0.723_214).abs() < 1e-6, "{of_loop}");
        // Of an even number the lower.
        assert_eq!(Limit::median(&[&rounds[0], &rounds[1]]).stages[0].ns_per_packet, 600.0);
    }

    #[test]
    fn calls_are_held_against_the_loop_by_packets() {
        let round = |ns: f64, packets: f64| {
            Calls::new("up", 2, ns, Row { packets_per_cpu_s: Some(packets), ..Row::default() })
        };
        let rounds = [round(9_000.0, 100_000.0), round(12_000.0, 50_000.0), round(10_000.0, 80_000.0)];
        let whole = Calls::median(&rounds.each_ref());
        assert_eq!((whole.loop_ns_per_packet, whole.share_of_loop), (10_000.0, Some(0.8)));
    }
}
