//! Source addresses of the UEs' connections.

use ipnet::IpNet;
use std::net::IpAddr;

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
        let prefix = self.prefix?;
        match prefix {
            IpNet::V4(v4) => {
                let total = 1_u64 << (32 - v4.prefix_len());
                let (first, count) = if total > 2 { (1, total - 2) } else { (0, total) };
                let offset = first + u64::from(index) % count;
                Some(IpAddr::V4((u32::from(v4.network()) + offset as u32).into()))
            }
            IpNet::V6(v6) => {
                let count = 1_u128.checked_shl(u32::from(128 - v6.prefix_len())).unwrap_or(u128::MAX);
                Some(IpAddr::V6((u128::from(v6.network()) + u128::from(index) % count).into()))
            }
        }
    }
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
    fn without_prefix_the_kernel_chooses() {
        assert_eq!(SourceSpread::new(None).address(5), None);
    }
}
