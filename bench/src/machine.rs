//! What the machine did meanwhile: CPU time of a thread, of each core, and what the hypervisor kept.

use nix::time::{ClockId, clock_gettime};
use serde::Serialize;
use std::fs;
use std::time::Instant;

/// Seconds of one USER_HZ tick, which is 100 per second on every Linux ABI.
const TICK_S: f64 = 0.01;

/// Returns the CPU seconds of the calling thread.
pub fn thread_cpu_s() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux always has the thread's clock");
    time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9
}

/// Busy and stolen seconds of each core so far.
#[derive(Clone, Debug)]
pub struct Snapshot {
    at: Instant,
    cores: Vec<(f64, f64)>,
    calls: Vec<u64>,
}

/// Shares of a stretch of time, in cores.
#[derive(Clone, Debug, Serialize)]
pub struct Usage {
    /// Busy share of each core, 0 to 1.
    pub busy: Vec<f64>,
    /// Interrupts per second of each core by which another one called it; empty where the kernel does not count them.
    pub calls: Vec<f64>,
    /// What the hypervisor kept of all cores together.
    pub stolen: f64,
}

impl Snapshot {
    /// Reads /proc/stat and /proc/interrupts.
    pub fn take() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self {
            at: Instant::now(),
            cores: parse(&read("/proc/stat")),
            calls: calls(&read("/proc/interrupts")),
        }
    }

    /// Returns the shares since the snapshot was taken.
    pub fn usage(&self) -> Usage {
        let (now, span_s) = (Self::take(), self.at.elapsed().as_secs_f64().max(TICK_S));
        let pairs = || self.cores.iter().zip(&now.cores);
        Usage {
            busy: pairs().map(|(before, after)| (after.0 - before.0) / span_s).collect(),
            calls: self
                .calls
                .iter()
                .zip(&now.calls)
                .map(|(before, after)| (after - before) as f64 / span_s)
                .collect(),
            stolen: pairs().map(|(before, after)| after.1 - before.1).sum::<f64>() / span_s,
        }
    }
}

/// The machine over the part of a measurement between [`Watch::begin`] and [`Watch::end`].
#[derive(Debug, Default)]
pub struct Watch {
    begun: Option<Snapshot>,
    usage: Option<Usage>,
}

impl Watch {
    /// The part begins.
    pub fn begin(&mut self) {
        self.begun = Some(Snapshot::take());
    }

    /// It ends; harmless when it never began.
    pub fn end(&mut self) {
        self.usage = self.begun.take().map(|begun| begun.usage());
    }

    /// Returns the shares of that part; `None` when it did not begin or end.
    pub fn usage(self) -> Option<Usage> {
        self.usage
    }
}

/// Busy (all but idle, iowait and steal) and steal of each `cpuN` line.
fn parse(stat: &str) -> Vec<(f64, f64)> {
    let cores = stat.lines().filter(|line| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    });
    cores
        .map(|line| {
            let mut ticks = [0_u64; 8];
            for (to, field) in ticks.iter_mut().zip(line.split_ascii_whitespace().skip(1)) {
                *to = field.parse().unwrap_or(0);
            }
            let [user, nice, system, _idle, _iowait, irq, softirq, steal] = ticks;
            ((user + nice + system + irq + softirq) as f64 * TICK_S, steal as f64 * TICK_S)
        })
        .collect()
}

/// Function call interrupts of each core, as x86 names them.
fn calls(interrupts: &str) -> Vec<u64> {
    let line = interrupts.lines().find_map(|line| line.trim_start().strip_prefix("CAL:"));
    let counts = line.unwrap_or_default().split_ascii_whitespace();
    counts.map_while(|count| count.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_those_of_the_cores() {
        let interrupts = "      CPU0   CPU1\n LOC:   1  2  Local timer interrupts\n CAL:  30   4  Function call interrupts\n";
        assert_eq!(calls(interrupts), [30, 4]);
        assert_eq!(calls("IPI0: 1 2 Rescheduling interrupts\n"), [0_u64; 0]);
    }

    #[test]
    fn idle_and_stolen_time_is_not_busy() {
        let stat =
            "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 100 0 50 700 7 1 9 40 0 0\ncpu1 0 0 0 5 0 0 0 0 0 0\nintr 5\n";
        assert_eq!(parse(stat), [(1.6, 0.4), (0.0, 0.0)]);
    }

    #[test]
    fn only_what_lies_between_begin_and_end_is_seen() {
        let mut watch = Watch::default();
        watch.end();
        assert!(watch.usage().is_none());
        let mut watch = Watch::default();
        watch.begin();
        watch.end();
        watch.end();
        assert!(watch.usage().is_none(), "the second end had no beginning");
        let mut watch = Watch::default();
        watch.begin();
        assert!(watch.begun.is_some());
        watch.end();
        assert!(watch.usage().is_some());
    }

    #[test]
    fn a_spinning_thread_uses_its_clock() {
        let (begun_at, before) = (Instant::now(), thread_cpu_s());
        while thread_cpu_s() - before < 0.01 {
            assert!(begun_at.elapsed().as_secs() < 60);
        }
        assert!(begun_at.elapsed().as_secs_f64() >= 0.0099);
    }
}
