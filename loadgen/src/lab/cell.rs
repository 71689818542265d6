//! One measurement, in a process of its own: what goes wrong there touches no other.

use super::network::{self, Network};
use super::results::{Outer, Point, Run, STEP_S, Tick};
use super::tunnel::Tunnel;
use super::work::{self, End, Ends, Options, Window, Workload};
use crate::demo::topology::{Cleanup, Namespace};
use crate::error::Failure;
use crate::host::clock::monotonic_ns;
use crate::host::tcp_info::{Connection, TcpInfos};
use crate::host::{affinity, privilege, signal};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What to measure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Where.
    pub point: Point,
    /// Which time.
    pub repetition: u32,
    /// Of the path.
    pub seed: u64,
    /// Seconds measured.
    pub seconds: f64,
    /// Seconds before.
    pub warm_up: f64,
    /// The gateway's binary; `None`: beside this one.
    pub swugate: Option<PathBuf>,
    /// Which of the allowed cores the gateway has, counted round and round.
    pub slot: usize,
}

impl Job {
    /// Whether an answer to this is one to `other`.
    pub(super) fn asks_the_same(&self, other: &Self) -> bool {
        let own = (&self.point, self.repetition, self.seed, self.seconds, self.warm_up);
        own == (&other.point, other.repetition, other.seed, other.seconds, other.warm_up)
    }
}

/// Measures in this process; it must not do anything else.
///
/// # Errors
/// What kept it from measuring.
pub fn run(job: &Job) -> Result<Run, Failure> {
    privilege::require_root("lab makes network namespaces and")?;
    let cleanup = Arc::new(Cleanup::default());
    let on_signal = cleanup.clone();
    signal::on_termination(move || {
        on_signal.run();
        std::process::exit(1);
    })?;
    let mut network = Network::create(cleanup.clone(), &job.point, job.seed)?;
    let cores = affinity::allowed_cores();
    let core = cores.get(job.slot % cores.len().max(1)).copied().unwrap_or(0);
    let mut tunnel = Tunnel::start(&network, &job.point, core, job.swugate.as_deref(), &cleanup)?;
    let run = measure(job, &network, &mut tunnel);
    let drops = tunnel.drops();
    tunnel.stop();
    let [up, down] = network.end_path()?;
    let (forward, back) = if job.point.direction == "up" { (up, down) } else { (down, up) };
    Ok(Run { drops, forward, back, ..run? })
}

fn measure(job: &Job, network: &Network, tunnel: &mut Tunnel) -> Result<Run, Failure> {
    let point = &job.point;
    let workload: Workload = point.workload.parse().map_err(Failure::Usage)?;
    let end = |namespace: &Namespace, address| End { namespace: Some(namespace.name().to_owned()), address };
    let (ue, far) = (end(&network.ue, tunnel.inner), end(&network.core, network::FAR));
    let up = point.direction == "up";
    let (ends, sender) = match up {
        true => (Ends { from: ue, to: far }, &network.ue),
        false => (Ends { from: far, to: ue }, &network.gateway),
    };
    let infos = tunnel.outer_port.map(|port| Ok((port, sender.inside(TcpInfos::open)?))).transpose()?;
    let window = Window {
        begin_ns: monotonic_ns() + (job.warm_up * 1e9) as u64,
        length: Duration::from_secs_f64(job.seconds),
    };
    let options = Options { inner_cc: point.inner_cc.clone(), rate_mbit: point.rate_mbit, seed: job.seed };
    let (outcome, outer, cpu_s) = std::thread::scope(|scope| {
        let outer = infos.map(|(port, infos)| scope.spawn(move || watch(&infos, port, window)));
        let cpu = scope.spawn(|| {
            sleep_until(window.begin_ns);
            let before = tunnel.gateway_cpu_s()?;
            sleep_until(window.end_ns());
            Some(tunnel.gateway_cpu_s()? - before)
        });
        let outcome = work::run(&workload, &ends, window, &options);
        let outer = outer.map(|outer| outer.join().unwrap_or_default());
        (outcome, outer, cpu.join().unwrap_or_default())
    });
    if tunnel.is_broken() {
        return Err(Failure::Check("the tunnel ended during the measurement".into()));
    }
    let outcome =
        outcome.map_err(|error| Failure::Environment(format!("workload {}: {error}", point.workload)))?;
    let mut run = Run {
        repetition: job.repetition,
        seed: job.seed,
        seconds: job.seconds,
        bulk: outcome.bulk,
        voice: outcome.voice,
        web: outcome.web,
        sip: outcome.sip,
        imix: outcome.imix,
        timeline: outcome.timeline,
        gateway_cpu_s: cpu_s,
        ..Run::default()
    };
    if let Some(samples) = outer {
        run.outer = add_outer(&samples, &mut run.timeline);
    }
    Ok(run)
}

/// The outer connection every [`STEP_S`]; `None` where the kernel said nothing.
fn watch(infos: &TcpInfos, port: u16, window: Window) -> Vec<Option<Connection>> {
    let steps = (window.length.as_secs_f64() / STEP_S).round() as u64;
    (0..=steps)
        .map(|step| {
            sleep_until(window.begin_ns + (step as f64 * STEP_S * 1e9) as u64);
            let connections = infos.established().ok()?;
            // Of several the newest is in use; one that is being closed has carried more.
            connections
                .into_iter()
                .filter(|connection| connection.local_port == port || connection.remote_port == port)
                .min_by_key(|connection| connection.acked)
        })
        .collect()
}

/// Fills in the timeline what the outer connection did since the measurement began.
fn add_outer(samples: &[Option<Connection>], timeline: &mut [Tick]) -> Option<Outer> {
    let seen: Vec<&Connection> = samples.iter().flatten().collect();
    let (first, last) = (seen.first()?, seen.last()?);
    let names: HashSet<_> = seen.iter().map(|seen| (seen.local_port, seen.remote_port)).collect();
    if names.len() == 1 {
        for (tick, sample) in timeline.iter_mut().zip(samples.iter().skip(1)) {
            let Some(sample) = sample else { continue };
            tick.outer_acked = Some(sample.acked.saturating_sub(first.acked));
            tick.outer_retransmits = Some(sample.retransmits.saturating_sub(first.retransmits));
        }
    }
    Some(Outer {
        retransmits: last.retransmits.saturating_sub(if names.len() == 1 { first.retransmits } else { 0 }),
        srtt_ms: f64::from(last.srtt_us) / 1e3,
        reconnects: names.len() as u64 - 1,
    })
}

fn sleep_until(at_ns: u64) {
    std::thread::sleep(Duration::from_nanos(at_ns.saturating_sub(monotonic_ns())));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outer_connection_is_told_since_the_measurement_began() {
        let sample = |acked, retransmits| {
            Some(Connection { local_port: 4500, remote_port: 40_000, acked, retransmits, srtt_us: 61_500 })
        };
        let samples = [sample(1_000, 3), sample(5_000, 3), None, sample(9_000, 7)];
        let mut timeline = vec![Tick::default(); 3];
        let outer = add_outer(&samples, &mut timeline).unwrap();
        assert_eq!((outer.retransmits, outer.srtt_ms, outer.reconnects), (4, 61.5, 0));
        let acked: Vec<_> = timeline.iter().map(|tick| tick.outer_acked).collect();
        assert_eq!(acked, [Some(4_000), None, Some(8_000)]);
    }
}
