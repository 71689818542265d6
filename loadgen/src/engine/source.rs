//! Source addresses of the UEs' connections.

use crate::error::Failure;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

/// Ephemeral ports of a source address, per destination.
const PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Gives connections source addresses out of a prefix, in turn.
#[derive(Clone, Copy, Debug)]
pub struct SourceSpread {
    prefix: Option<IpNet>,
}

impl SourceSpread {
    /// Spreads over the host addresses of `prefix`; without one the kernel chooses.
    pub fn new(prefix: Option<IpNet>) -> Self {
        Self { prefix }
    }

    /// Returns the address for the connection of UE `index`.
    ///
    /// Network and broadcast address of an IPv4 prefix shorter than /31 are left out.
    pub fn address(&self, index: u32) -> Option<IpAddr> {
        match self.prefix? {
            IpNet::V4(v4) => {
                let (first, count) = hosts(v4.prefix_len());
                let offset = first + u64::from(index) % count;
                Some(IpAddr::V4((u32::from(v4.network()) + offset as u32).into()))
            }
            IpNet::V6(v6) => {
                let count = 1_u128.checked_shl(u32::from(128 - v6.prefix_len())).unwrap_or(u128::MAX);
                Some(IpAddr::V6((u128::from(v6.network()) + u128::from(index) % count).into()))
            }
        }
    }

    /// Checks that `ues` connections to `gateway` find a port each.
    ///
    /// # Errors
    /// [`Failure::Usage`] with the prefix that would do.
    pub fn require_ports(&self, gateway: SocketAddr, ues: u32) -> Result<(), Failure> {
        let range = std::fs::read_to_string(PORT_RANGE).ok();
        match range.as_deref().and_then(port_count) {
            Some(ports) => self.check_ports(gateway, ues, ports),
            None => Ok(()),
        }
    }

    fn check_ports(&self, gateway: SocketAddr, ues: u32, ports: u64) -> Result<(), Failure> {
        let addresses = match self.prefix {
            None => 1,
            Some(IpNet::V4(v4)) => hosts(v4.prefix_len()).1,
            Some(IpNet::V6(v6)) => 1 << (128 - v6.prefix_len()).min(32),
        };
        if u64::from(ues) <= addresses * ports {
            return Ok(());
        }
        let host_bits = (u64::from(ues).div_ceil(ports) + 2).next_power_of_two().ilog2();
        let prefix_len = if gateway.is_ipv4() { 32 } else { 128 } - host_bits;
        Err(Failure::Usage(format!(
            "{ues} connections to {gateway} need more ports than {addresses} source addresses have ({ports} each, \
             {PORT_RANGE}); give --source a /{prefix_len} or larger"
        )))
    }
}

/// First host address of an IPv4 prefix as an offset, and how many there are.
fn hosts(prefix_len: u8) -> (u64, u64) {
    let total = 1_u64 << (32 - prefix_len);
    if total > 2 { (1, total - 2) } else { (0, total) }
}

/// Reads `first last`.
fn port_count(range: &str) -> Option<u64> {
    let mut ports = range.split_ascii_whitespace().map(str::parse::<u64>);
    let (first, last) = (ports.next()?.ok()?, ports.next()?.ok()?);
    (last + 1).checked_sub(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(prefix: &str, count: u32) -> Vec<String> {
        let spread = SourceSpread::new(Some(prefix.parse().unwrap()));
        (0..count).map(|index| spread.address(index).unwrap().to_string()).collect()
    }

    #[test]
    fn addresses_go_round_without_network_and_broadcast() {
        assert_eq!(addresses("10.0.0.0/30", 3), ["10.0.0.1", "10.0.0.2", "10.0.0.1"]);
        assert_eq!(addresses("10.0.0.7/32", 2), ["10.0.0.7", "10.0.0.7"]);
        assert_eq!(addresses("fd00::/127", 3), ["fd00::", "fd00::1", "fd00::"]);
        assert_eq!(addresses("::/0", 2), ["::", "::1"]);
    }

    #[test]
    fn too_few_ports_are_noticed_before_the_first_connection() {
        assert_eq!(port_count("32768\t60999\n"), Some(28_232));
        let gateway = "127.0.0.1:4500".parse().unwrap();
        let check = |prefix: Option<&str>, ues| {
            let spread = SourceSpread::new(prefix.map(|prefix| prefix.parse().unwrap()));
            spread.check_ports(gateway, ues, 28_232)
        };
        assert!(check(None, 28_232).is_ok() && check(None, 28_233).is_err());
        assert!(check(Some("127.1.0.0/30"), 56_464).is_ok());
        let refusal = check(Some("127.1.0.0/30"), 56_465).unwrap_err().to_string();
        assert!(refusal.ends_with("a /29 or larger"), "{refusal}");
        assert!(check(Some("127.1.0.0/29"), 56_465).is_ok());
    }

    #[test]
    fn without_prefix_the_kernel_chooses() {
        assert_eq!(SourceSpread::new(None).address(5), None);
    }
}
