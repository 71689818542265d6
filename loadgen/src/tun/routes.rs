//! Routes into the tunnel, set with iproute2 and removed again.

use crate::error::Failure;
use crate::host::iproute::ip;
use codec::ike::payload::TrafficSelector;
use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use std::net::IpAddr;

/// Routes that exist as long as this value.
///
/// Routes of the device vanish with it; the one that keeps the gateway reachable outside the tunnel is removed on drop.
pub struct Routes {
    gateway: Option<Vec<String>>,
}

impl Routes {
    /// Sends `prefixes` into the device `name`, but not the way to `gateway`.
    ///
    /// # Errors
    /// [`Failure::Environment`] with what `ip` said.
    pub fn add(name: &str, prefixes: &[IpNet], gateway: IpAddr) -> Result<Self, Failure> {
        let captures_gateway = prefixes.iter().any(|prefix| prefix.contains(&gateway));
        let mut routes = Self { gateway: None };
        if captures_gateway && !gateway.is_loopback() {
            let kept = outside_route(gateway)?;
            ip(&[&["route", "replace"], words(&kept).as_slice()].concat())?;
            routes.gateway = Some(kept);
        }
        for prefix in prefixes.iter().flat_map(|prefix| halves(*prefix)) {
            ip(&["route", "replace", &prefix.to_string(), "dev", name])?;
        }
        Ok(routes)
    }
}

impl Drop for Routes {
    fn drop(&mut self) {
        if let Some(route) = &self.gateway {
            let _ = ip(&[&["route", "del"], words(route).as_slice()].concat());
        }
    }
}

/// Turns traffic selectors into prefixes.
pub fn prefixes(selectors: &[TrafficSelector]) -> Vec<IpNet> {
    let subnets = selectors.iter().flat_map(|selector| -> Vec<IpNet> {
        match (selector.first, selector.last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                Ipv4Subnets::new(first, last, 0).map(IpNet::V4).collect()
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                Ipv6Subnets::new(first, last, 0).map(IpNet::V6).collect()
            }
            _ => Vec::new(),
        }
    });
    let mut prefixes: Vec<IpNet> = subnets.collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    prefixes
}

/// A default route in two halves, so that it wins over an existing one without replacing it.
fn halves(prefix: IpNet) -> Vec<IpNet> {
    if prefix.prefix_len() > 0 {
        return vec![prefix];
    }
    prefix.subnets(1).map(Iterator::collect).unwrap_or_default()
}

/// Returns how `gateway` is reached now, as words of an `ip route` command.
fn outside_route(gateway: IpAddr) -> Result<Vec<String>, Failure> {
    let text = ip(&["-o", "route", "get", &gateway.to_string()])?;
    let all: Vec<&str> = text.split_ascii_whitespace().collect();
    let mut route = vec![gateway.to_string()];
    for key in ["via", "dev"] {
        if let Some(at) = all.iter().position(|word| *word == key) {
            route.extend(all[at..].iter().take(2).map(|word| (*word).to_owned()));
        }
    }
    Ok(route)
}

fn words(route: &[String]) -> Vec<&str> {
    route.iter().map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_become_prefixes() {
        let both = [TrafficSelector::ANY_IPV4, TrafficSelector::ANY_IPV6, TrafficSelector::ANY_IPV4];
        let texts: Vec<String> = prefixes(&both).iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["0.0.0.0/0", "::/0"]);
        let range = TrafficSelector {
            first: "10.0.0.0".parse().unwrap(),
            last: "10.0.2.255".parse().unwrap(),
            ..TrafficSelector::ANY_IPV4
        };
        let texts: Vec<String> = prefixes(&[range]).iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["10.0.0.0/23", "10.0.2.0/24"]);
    }

    #[test]
    fn a_default_route_goes_in_halves() {
        let texts: Vec<String> =
            halves("0.0.0.0/0".parse().unwrap()).iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["0.0.0.0/1", "128.0.0.0/1"]);
        assert_eq!(halves("10.0.0.0/8".parse().unwrap()).len(), 1);
    }
}
