//! Packets that the kernel drops in a network namespace, and says so nowhere but in counters.

use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;

/// Packets that a device has dropped since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DeviceDrops {
    /// Received and dropped: by the device, or because a core's backlog was full.
    pub rx_dropped: u64,
    /// Not sent: a queue was full, of a TUN device that of packets its program has not read.
    pub tx_dropped: u64,
}

/// UDP datagrams for which a socket buffer had no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UdpDrops {
    /// Received and dropped.
    pub rcvbuf_errors: u64,
    /// Not sent.
    pub sndbuf_errors: u64,
}

/// All of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceDrops {
    /// By name of the device.
    pub devices: BTreeMap<String, DeviceDrops>,
    /// All sockets together, IPv4.
    pub udp: UdpDrops,
}

impl NamespaceDrops {
    /// Reads the namespace of the calling thread; `None` where the kernel does not say.
    pub fn read() -> Option<Self> {
        // The thread's own: /proc/net is that of the process, which may be in another namespace, and so is /sys.
        let devices = fs::read_to_string("/proc/thread-self/net/dev").ok()?;
        let snmp = fs::read_to_string("/proc/thread-self/net/snmp").ok()?;
        Some(Self { devices: parse_devices(&devices), udp: parse_udp(&snmp)? })
    }

    /// Returns what was added since `before`; a device that was not there then counts from nothing.
    #[must_use]
    pub fn since(mut self, before: &Self) -> Self {
        for (name, drops) in &mut self.devices {
            let was = before.devices.get(name).copied().unwrap_or_default();
            drops.rx_dropped = drops.rx_dropped.saturating_sub(was.rx_dropped);
            drops.tx_dropped = drops.tx_dropped.saturating_sub(was.tx_dropped);
        }
        self.udp.rcvbuf_errors = self.udp.rcvbuf_errors.saturating_sub(before.udp.rcvbuf_errors);
        self.udp.sndbuf_errors = self.udp.sndbuf_errors.saturating_sub(before.udp.sndbuf_errors);
        self
    }
}

/// The columns "drop" of `/proc/net/dev`: the fourth of eight received, the fourth sent.
fn parse_devices(dev: &str) -> BTreeMap<String, DeviceDrops> {
    let lines = dev.lines().filter_map(|line| line.split_once(':'));
    let devices = lines.filter_map(|(name, counts)| {
        let counts: Vec<u64> =
            counts.split_ascii_whitespace().map_while(|count| count.parse().ok()).collect();
        let drops = DeviceDrops { rx_dropped: *counts.get(3)?, tx_dropped: *counts.get(11)? };
        Some((name.trim().to_owned(), drops))
    });
    devices.collect()
}

/// The `Udp:` lines of `/proc/net/snmp`: names, then counts in the same order.
fn parse_udp(snmp: &str) -> Option<UdpDrops> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Udp:"));
    let (names, counts) = (lines.next()?, lines.next()?);
    let count = |wanted: &str| {
        let at = names.split_ascii_whitespace().position(|name| name == wanted)?;
        counts.split_ascii_whitespace().nth(at)?.parse().ok()
    };
    Some(UdpDrops { rcvbuf_errors: count("RcvbufErrors")?, sndbuf_errors: count("SndbufErrors")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEV: &str = "Inter-|   Receive                    |  Transmit\n face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed\n    lo: 9 8 0 0 0 0 0 0 9 8 0 0 0 0 0 0\n  swu0: 1 2 3 40 5 6 7 8 11 12 13 140 15 16 17 18\n";

    #[test]
    fn the_drops_of_each_device_are_found() {
        let devices = parse_devices(DEV);
        assert_eq!(devices.keys().collect::<Vec<_>>(), ["lo", "swu0"]);
        assert_eq!(devices["swu0"], DeviceDrops { rx_dropped: 40, tx_dropped: 140 });
    }

    #[test]
    fn udp_counts_are_found_by_name() {
        let snmp = "Tcp: A B\nTcp: 1 2\nUdp: InDatagrams RcvbufErrors SndbufErrors\nUdp: 7 8 9\nUdpLite: X\nUdpLite: 1\n";
        assert_eq!(parse_udp(snmp), Some(UdpDrops { rcvbuf_errors: 8, sndbuf_errors: 9 }));
        assert_eq!(parse_udp("Udp: InDatagrams\nUdp: 7\n"), None);
    }

    #[test]
    fn what_was_there_before_does_not_count() {
        let drops = |rx_dropped, rcvbuf_errors| NamespaceDrops {
            devices: BTreeMap::from([("gw0".to_owned(), DeviceDrops { rx_dropped, tx_dropped: 1 })]),
            udp: UdpDrops { rcvbuf_errors, sndbuf_errors: 0 },
        };
        let since = drops(5, 9).since(&drops(2, 4));
        assert_eq!(since.devices["gw0"], DeviceDrops { rx_dropped: 3, tx_dropped: 0 });
        assert_eq!(since.udp.rcvbuf_errors, 5);
        assert_eq!(drops(5, 9).since(&NamespaceDrops::default()), drops(5, 9));
    }

    #[test]
    fn this_threads_namespace_can_be_read() {
        assert!(NamespaceDrops::read().is_some_and(|drops| drops.devices.contains_key("lo")));
    }
}
