//! What one scenario gave.

use super::Scenario;
use crate::bed::Cores;
use crate::machine::Usage;
use crate::report::figure;
use loadgen::engine::traffic::{Direction, TrafficOutcome};
use serde::Serialize;

/// Figures of one scenario; octets and packets are inner IP.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    /// The scenario.
    pub scenario: String,
    /// Workers of the gateway.
    pub workers: usize,
    /// Whether the inner devices carried super-packets.
    pub super_packets: bool,
    /// Whether downlink packets waited in flow queues.
    pub flow_queue: bool,
    /// Bits per second by the clock on the wall.
    pub bits_per_s: Option<f64>,
    /// Bits per CPU second of the gateway (utime + stime): what one core carries at most. A kernel without
    /// CONFIG_IRQ_TIME_ACCOUNTING charges softirq work to whoever it interrupts, so what comes while the core is idle, or is
    /// done by ksoftirqd, is missing.
    pub bits_per_cpu_s: Option<f64>,
    /// The same with all softirq time of its cores added: what one core carries at least. On such a kernel what interrupts the
    /// gateway's threads is counted twice.
    pub bits_per_core_s: Option<f64>,
    /// Packets per second by the clock on the wall.
    pub packets_per_s: Option<f64>,
    /// Packets per CPU second of the gateway; see `bits_per_cpu_s`.
    pub packets_per_cpu_s: Option<f64>,
    /// CPU seconds (utime + stime) of the gateway per 10^9 octets, the lower bound of the cost.
    pub cpu_s_per_gb: Option<f64>,
    /// Packets sent and not received.
    pub lost: Option<u64>,
    /// UEs whose packets the far end did not account for.
    pub unreported: Option<u64>,
    /// Packets that arrived behind a later one of their flow.
    pub reordered: Option<u64>,
    /// Packets that arrived again.
    pub duplicated: Option<u64>,
    /// Packets whose octets were not those sent.
    pub corrupted: Option<u64>,
    /// Packets the gateway says it dropped.
    pub gateway_drops: Option<u64>,
    /// Busy share of the gateway's cores and of the load's core while the traffic went, softirq and everybody else included.
    pub gateway_busy: Option<f64>,
    /// See `gateway_busy`.
    pub load_busy: Option<f64>,
    /// Interrupts per second by which other cores called the gateway's, over the same time; `None` where the kernel does not
    /// count them.
    pub gateway_calls_per_s: Option<f64>,
    /// Cores the hypervisor kept, over the same time.
    pub stolen: Option<f64>,
}

impl Row {
    /// Heads of [`Row::cells`], without the first.
    pub const COLUMNS: [&'static str; 13] = [
        "workers",
        "offloads",
        "queues",
        "Gbit/s",
        "Gbit/s per core",
        "with softirq",
        "kpackets/s",
        "per core",
        "lost/reord./dup./corr.",
        "gw drops",
        "load busy",
        "calls/s",
        "stolen",
    ];

    /// Takes the figures of a run of loadgen's engine; `None` without any.
    pub fn from_outcome(scenario: &Scenario, outcome: &TrafficOutcome) -> Option<Self> {
        let way = match scenario.direction {
            Direction::Up => outcome.uplink?,
            _ => outcome.downlink?,
        };
        let mut row = Self {
            scenario: scenario.name(),
            bits_per_s: way.bits_per_s,
            packets_per_s: way.packets_per_s,
            lost: way.lost,
            unreported: way.unreported,
            reordered: way.reordered,
            duplicated: way.duplicated,
            corrupted: way.corrupted,
            ..Self::default()
        };
        row.set_cost(way.bytes? as f64, way.received? as f64, outcome.cpu_s, outcome.core_s);
        Some(row)
    }

    /// Derives what a core carries from what `cpu_s` seconds, the lower bound of the cost, and `core_s` seconds, the upper
    /// bound, have carried.
    pub fn set_cost(&mut self, bytes: f64, packets: f64, cpu_s: Option<f64>, core_s: Option<f64>) {
        let per = |amount: f64, seconds: Option<f64>| {
            seconds.filter(|seconds| *seconds > 0.0).map(|seconds| amount / seconds)
        };
        self.bits_per_cpu_s = per(bytes * 8.0, cpu_s);
        self.bits_per_core_s = per(bytes * 8.0, core_s);
        self.packets_per_cpu_s = per(packets, cpu_s);
        self.cpu_s_per_gb = cpu_s.filter(|_| bytes > 0.0).map(|seconds| seconds / (bytes / 1e9));
    }

    /// Notes what the machine did while the traffic went, if somebody looked.
    pub fn set_machine(&mut self, usage: Option<&Usage>, cores: &Cores) {
        let Some(usage) = usage else { return };
        let busy = |core: usize| usage.busy.get(core).copied();
        self.gateway_busy = cores.gateway.iter().map(|core| busy(*core)).sum();
        self.load_busy = busy(cores.load);
        let calls: Option<Vec<f64>> =
            cores.gateway.iter().map(|core| usage.calls.get(*core).copied()).collect();
        self.gateway_calls_per_s = calls.map(|calls| calls.iter().sum());
        self.stolen = Some(usage.stolen);
    }

    /// Returns whether everything sent arrived once, intact and in order, as far as somebody looked.
    pub fn is_clean(&self) -> bool {
        let counts = [self.lost, self.unreported, self.reordered, self.duplicated, self.corrupted];
        !counts.iter().any(|count| count.is_some_and(|count| count > 0))
    }

    /// Returns the cells of the table.
    pub fn cells(&self) -> Vec<String> {
        let count = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        let switch = |on: bool| if on { "on" } else { "off" }.to_owned();
        let giga = |value: Option<f64>| figure(value.map(|bits| bits / 1e9), 2);
        let kilo = |value: Option<f64>| figure(value.map(|packets| packets / 1e3), 0);
        vec![
            self.scenario.clone(),
            self.workers.to_string(),
            switch(self.super_packets),
            switch(self.flow_queue),
            giga(self.bits_per_s),
            giga(self.bits_per_cpu_s),
            giga(self.bits_per_core_s),
            kilo(self.packets_per_s),
            kilo(self.packets_per_cpu_s),
            [self.lost, self.reordered, self.duplicated, self.corrupted].map(count).join("/"),
            count(self.gateway_drops),
            figure(self.load_busy, 2),
            figure(self.gateway_calls_per_s, 0),
            figure(self.stolen, 2),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_becomes_capacity() {
        let mut row = Row::default();
        row.set_cost(1e9, 1e6, Some(2.0), Some(4.0));
        assert_eq!((row.bits_per_cpu_s, row.bits_per_core_s), (Some(4e9), Some(2e9)));
        assert_eq!((row.packets_per_cpu_s, row.cpu_s_per_gb), (Some(5e5), Some(2.0)));
        row.set_cost(1e9, 1e6, Some(0.0), None);
        assert_eq!((row.bits_per_cpu_s, row.bits_per_core_s), (None, None));
    }

    #[test]
    fn what_nobody_counted_is_not_dirty() {
        assert!(Row::default().is_clean());
        assert!(Row { lost: Some(0), ..Row::default() }.is_clean());
        assert!(!Row { reordered: Some(1), ..Row::default() }.is_clean());
        assert!(!Row { unreported: Some(1), ..Row::default() }.is_clean());
    }
}
