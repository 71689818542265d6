//! Traffic selectors: what the peer asks for, cut down to the policy (RFC 7296 §2.9).

use std::net::IpAddr;

use codec::ike::payload::{TrafficSelector, TsView};

use crate::types::TsRange;

/// The part of `offered` that `allowed` permits, in the order offered, so that a permitted first selector
/// stays first; each result once, at most `max`. Empty means TS_UNACCEPTABLE.
///
/// Any number of selectors is acceptable here, so SINGLE_PAIR_REQUIRED is never the answer.
pub(super) fn narrow(offered: &[TsRange], allowed: &[TsRange], max: usize) -> Vec<TsRange> {
    let mut narrowed: Vec<TsRange> = Vec::new();
    for offer in offered {
        for allow in allowed {
            if narrowed.len() == max {
                return narrowed;
            }
            if let Some(common) = intersect(offer, allow)
                && !narrowed.contains(&common)
            {
                narrowed.push(common);
            }
        }
    }
    narrowed
}

/// What two selectors have in common. Protocol 0 stands for all; ICMP types and codes take the place of
/// ports (RFC 7296 §3.13.1).
fn intersect(a: &TsRange, b: &TsRange) -> Option<TsRange> {
    if a.first.is_ipv4() != b.first.is_ipv4() {
        return None;
    }
    let protocol = match (a.protocol, b.protocol) {
        (0, other) | (other, 0) => other,
        (one, other) if one == other => one,
        _ => return None,
    };
    let (first, last) = (a.first.max(b.first), a.last.min(b.last));
    let ports = (a.ports.0.max(b.ports.0), a.ports.1.min(b.ports.1));
    let opaque = |ports: (u16, u16)| ports == (u16::MAX, 0);
    let ports = match (opaque(a.ports), opaque(b.ports)) {
        (false, false) if ports.0 <= ports.1 => ports,
        (true, true) => a.ports,
        // OPAQUE packets carry no port to compare; only a selector for any port covers them.
        (true, false) if b.ports == (0, u16::MAX) => a.ports,
        (false, true) if a.ports == (0, u16::MAX) => b.ports,
        _ => return None,
    };
    (first <= last).then_some(TsRange { first, last, protocol, ports })
}

/// The selector of one host.
pub(super) fn host(addr: IpAddr) -> TsRange {
    TsRange { first: addr, last: addr, protocol: 0, ports: (0, u16::MAX) }
}

/// The selectors of a payload as the packet path knows them; one whose range is upside down matches
/// nothing and is left out.
pub(super) fn ranges(view: &TsView<'_>) -> Vec<TsRange> {
    let ranges = view.selectors().map(|TrafficSelector { protocol, ports, first, last }| TsRange {
        first,
        last,
        protocol,
        ports,
    });
    ranges.filter(|range| range.first <= range.last).collect()
}

/// A selector as a payload carries it.
pub(super) fn selector(range: &TsRange) -> TrafficSelector {
    TrafficSelector { protocol: range.protocol, ports: range.ports, first: range.first, last: range.last }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: &str, last: &str, protocol: u8, ports: (u16, u16)) -> TsRange {
        let addr = |text: &str| text.parse().expect("an address");
        TsRange { first: addr(first), last: addr(last), protocol, ports }
    }

    const ANY: (u16, u16) = (0, u16::MAX);

    #[test]
    fn r7296_2_9_everything_narrows_to_the_policy() {
        let any4 = range("0.0.0.0", "255.255.255.255", 0, ANY);
        let any6 = range("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 0, ANY);
        let own4 = host("10.64.0.2".parse().expect("an address"));
        let own6 = host("fd64::2".parse().expect("an address"));
        let own = [own4.clone(), own6.clone()];
        assert_eq!(narrow(&[any4.clone(), any6.clone()], &own, 8), own);
        assert_eq!(narrow(&[any6.clone(), any4.clone()], &own, 8), [own6, own4.clone()]);
        assert_eq!(narrow(&[any4.clone(), any4.clone()], &own, 8), [own4]);
        assert_eq!(narrow(&[any4], &[any6], 8), []);
    }

    #[test]
    fn r7296_2_9_the_first_selector_stays_first() {
        let packet = range("10.1.2.3", "10.1.2.3", 6, (443, 443));
        let net = range("10.0.0.0", "10.255.255.255", 0, ANY);
        let allowed = [range("10.1.0.0", "10.1.255.255", 0, ANY)];
        assert_eq!(narrow(&[packet.clone(), net], &allowed, 8), [packet, allowed[0].clone()]);
    }

    #[test]
    fn r7296_2_9_protocols_and_ports_intersect() {
        let tcp = range("10.0.0.0", "10.0.0.255", 6, (1000, 2000));
        let udp = range("10.0.0.0", "10.0.0.255", 17, ANY);
        assert_eq!(narrow(std::slice::from_ref(&tcp), &[udp], 8), []);
        let web = range("10.0.0.0", "10.0.0.255", 6, (0, 1499));
        assert_eq!(narrow(std::slice::from_ref(&tcp), &[web], 8)[0].ports, (1000, 1499));
        let low = range("10.0.0.0", "10.0.0.255", 6, (0, 999));
        assert_eq!(narrow(std::slice::from_ref(&tcp), &[low], 8), []);
        let opaque = range("10.0.0.0", "10.0.0.255", 6, (u16::MAX, 0));
        let all = range("10.0.0.0", "10.0.0.255", 0, ANY);
        assert_eq!(narrow(std::slice::from_ref(&opaque), &[all], 8)[0].ports, (u16::MAX, 0));
        assert_eq!(narrow(&[opaque], &[tcp], 8), []);
    }

    #[test]
    fn the_result_is_bounded() {
        let many: Vec<_> = (0..200u8).map(|i| host(IpAddr::from([10, 0, 0, i]))).collect();
        let net = [range("10.0.0.0", "10.0.0.255", 0, ANY)];
        assert_eq!(narrow(&many, &net, 32).len(), 32);
    }
}
