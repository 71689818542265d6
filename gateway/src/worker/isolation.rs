//! What UEs do not reach while `hairpin` is off.

use std::net::{IpAddr, Ipv6Addr};

use super::Network;

/// Greatest scope of IPv6 multicast that no router forwards: link-local (RFC 4291 §2.7).
const SCOPE_LINK: u8 = 2;

/// All routers of the site, of which a host that forwards is one (RFC 4291 §2.7.1).
const SITE_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 2);

impl Network {
    /// Whether the host takes packets to this address for itself, or would if they came to it.
    pub(super) fn keeps(&self, addr: IpAddr) -> bool {
        is_never_forwarded(addr) || self.local_addrs.contains(&addr)
    }
}

/// Whether packets to this address end at the first host, whatever its own addresses are. Multicast beyond the link and
/// IPv4 link-local addresses are not among them: Linux forwards both where it is told to.
fn is_never_forwarded(addr: IpAddr) -> bool {
    match addr {
        // RFC 1122 §3.2.1.3, RFC 919 §7, RFC 5771 §4.
        IpAddr::V4(addr) => {
            addr.is_loopback() || addr.is_broadcast() || addr.octets().starts_with(&[224, 0, 0])
        }
        // RFC 4291 §2.5.3, §2.5.6, §2.7.
        IpAddr::V6(addr) if addr.is_multicast() => {
            addr.octets()[1] & 0x0f <= SCOPE_LINK || addr == SITE_ROUTERS
        }
        IpAddr::V6(addr) => addr.is_loopback() || addr.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_at_the_first_host_is_told_from_what_goes_on() {
        for (addr, ends) in [
            ("255.255.255.255", true),
            ("224.0.0.1", true),
            ("224.0.0.251", true),
            ("127.0.0.53", true),
            ("::1", true),
            ("fe80::1", true),
            ("febf::1", true),
            ("ff01::1", true),
            ("ff02::1", true),
            ("ff12::1234", true),
            ("ff02::1:ff00:1", true),
            ("ff05::2", true),
            ("224.0.1.1", false),
            ("239.1.2.3", false),
            ("240.0.0.1", false),
            ("169.254.1.1", false),
            ("10.255.255.255", false),
            ("ff05::1:3", false),
            ("ff0e::1", false),
            ("fec0::1", false),
            ("2001:db8::", false),
        ] {
            assert_eq!(is_never_forwarded(addr.parse().expect("an address")), ends, "{addr}");
        }
    }
}
