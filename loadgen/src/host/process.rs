//! CPU time and memory of the gateway process, read from /proc when it runs on this host.

use nix::time::{ClockId, clock_gettime};
use std::fs;
use std::str::FromStr;

/// Name of the gateway's process.
const GATEWAY_COMM: &str = "swugate";
/// Nanoseconds of one USER_HZ tick, which is 100 per second on every Linux ABI.
const TICK_S: f64 = 0.01;

/// One process under observation.
#[derive(Clone, Copy, Debug)]
pub struct GatewayProcess {
    pid: u32,
}

/// CPU seconds since the process or machine started.
///
/// A kernel without CONFIG_IRQ_TIME_ACCOUNTING charges softirq work to the thread it interrupts as well: then the two overlap,
/// and their sum is an upper bound of what the process costs, as `process_s` alone is a lower one.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuReading {
    /// utime + stime of the process.
    pub process_s: f64,
    /// Softirq time of the cores that the process may use.
    pub softirq_s: f64,
}

/// Memory that sessions cost, by who pays; `None` where unreadable.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryReading {
    /// Resident octets of the process.
    pub rss_bytes: Option<u64>,
    /// Resident octets that the process shares with nobody; needs the right to trace it.
    pub private_bytes: Option<u64>,
    /// Octets in kernel TCP buffers, whole host.
    pub tcp_bytes: Option<u64>,
    /// Kernel slab octets, whole host.
    pub slab_bytes: Option<u64>,
}

impl GatewayProcess {
    /// Observes process `pid`, or `None` when there is none.
    pub fn by_pid(pid: u32) -> Option<Self> {
        fs::metadata(format!("/proc/{pid}/stat")).ok().map(|_| Self { pid })
    }

    /// Finds the only gateway process of this host; `None` when there is none or more than one.
    pub fn find() -> Option<Self> {
        let mut pids = fs::read_dir("/proc").ok()?.filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let comm = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            // A process that has ended stays listed until its parent takes note, without memory.
            let alive = fs::read_to_string(format!("/proc/{pid}/status")).ok()?.contains("VmRSS:");
            (comm.trim_end() == GATEWAY_COMM && alive).then_some(pid)
        });
        let pid = pids.next()?;
        pids.next().is_none().then_some(Self { pid })
    }

    /// Reads the CPU time so far; `None` once the process is gone.
    pub fn cpu(&self) -> Option<CpuReading> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        let process_s = process_cpu_s(&stat)?;
        let softirq_s = softirq_s(&fs::read_to_string("/proc/stat").ok()?, &self.cores());
        Some(CpuReading { process_s, softirq_s })
    }

    /// Reads the memory figures.
    pub fn memory(&self) -> MemoryReading {
        let rss_bytes = fs::read_to_string(format!("/proc/{}/status", self.pid))
            .ok()
            .and_then(|status| kib_field(&status, "VmRSS:"))
            .map(|kib| kib * 1024);
        let private_bytes = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid))
            .ok()
            .and_then(|rollup| {
                Some(kib_field(&rollup, "Private_Clean:")? + kib_field(&rollup, "Private_Dirty:")?)
            })
            .map(|kib| kib * 1024);
        // TCP buffer pages are accounted for the whole host, whichever namespace is asked.
        let tcp_bytes = fs::read_to_string(format!("/proc/{}/net/sockstat", self.pid))
            .ok()
            .and_then(|sockstat| tcp_mem_pages(&sockstat))
            .map(|pages| pages * 4096);
        let slab_bytes = fs::read_to_string("/proc/meminfo")
            .ok()
            .and_then(|meminfo| kib_field(&meminfo, "Slab:"))
            .map(|kib| kib * 1024);
        MemoryReading { rss_bytes, private_bytes, tcp_bytes, slab_bytes }
    }

    /// Returns the cores that any worker of the process is confined to; all cores when none is pinned.
    ///
    /// A worker is a thread that may run on exactly one core.
    fn cores(&self) -> Vec<usize> {
        let Ok(tasks) = fs::read_dir(format!("/proc/{}/task", self.pid)) else { return Vec::new() };
        let mut pinned: Vec<usize> = tasks
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok())
            .filter_map(|status| {
                let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
                list.trim().parse().ok()
            })
            .collect();
        pinned.sort_unstable();
        pinned.dedup();
        pinned
    }
}

/// Returns the CPU seconds of this process so far.
pub fn own_cpu_s() -> f64 {
    let time =
        clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).expect("Linux always has the process's clock");
    time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9
}

/// Reads utime + stime (fields 14 and 15) of `/proc/PID/stat`; the name in field 2 may hold blanks.
fn process_cpu_s(stat: &str) -> Option<f64> {
    let after_comm = &stat[stat.rfind(')')? + 1..];
    let mut fields = after_comm.split_ascii_whitespace().skip(11).map(u64::from_str);
    let utime = fields.next()?.ok()?;
    let stime = fields.next()?.ok()?;
    Some((utime + stime) as f64 * TICK_S)
}

/// Adds up the softirq column of the `cpuN` lines of `/proc/stat`; all of them when `cores` is empty.
fn softirq_s(stat: &str, cores: &[usize]) -> f64 {
    let ticks: u64 = stat
        .lines()
        .filter_map(|line| {
            // The line of all cores together has a blank behind "cpu".
            let rest =
                line.strip_prefix("cpu").filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))?;
            let mut fields = rest.split_ascii_whitespace();
            let core: usize = fields.next()?.parse().ok()?;
            let wanted = cores.is_empty() || cores.contains(&core);
            let softirq: u64 = fields.nth(6)?.parse().ok()?;
            wanted.then_some(softirq)
        })
        .sum();
    ticks as f64 * TICK_S
}

fn kib_field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_ascii_whitespace().next()?.parse().ok()
}

fn tcp_mem_pages(sockstat: &str) -> Option<u64> {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    let mut words = line.split_ascii_whitespace();
    words.find(|word| *word == "mem")?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_behind_a_name_with_blanks_and_brackets() {
        let stat = "42 (a ) (b) S 1 42 42 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 7 0 0";
        assert_eq!(process_cpu_s(stat), Some(2.0));
        assert_eq!(process_cpu_s("garbage"), None);
    }

    #[test]
    fn softirq_counts_only_the_wanted_cores() {
        let stat =
            "cpu  9 9 9 9 9 9 900 9 9 9\ncpu0 1 0 1 0 0 0 300 0 0 0\ncpu1 1 0 1 0 0 0 600 0 0 0\nintr 5\n";
        assert_eq!(softirq_s(stat, &[0]), 3.0);
        assert_eq!(softirq_s(stat, &[]), 9.0);
    }

    #[test]
    fn sockstat_and_status_fields() {
        assert_eq!(
            tcp_mem_pages("sockets: used 9\nTCP: inuse 4 orphan 0 tw 0 alloc 6 mem 17\nUDP: mem 3\n"),
            Some(17)
        );
        assert_eq!(kib_field("Name:\tx\nVmRSS:\t  1234 kB\n", "VmRSS:"), Some(1234));
        assert_eq!(kib_field("Name:\tx\n", "VmRSS:"), None);
    }

    #[test]
    fn this_process_can_be_observed() {
        let own = GatewayProcess::by_pid(std::process::id()).unwrap();
        assert!(own.cpu().is_some());
        assert!(own.memory().rss_bytes.unwrap() > 0);
        assert!(own.memory().private_bytes.unwrap() > 0);
        assert!(GatewayProcess::by_pid(u32::MAX).is_none());
    }
}
