//! Configuration payload: inner addresses, DNS servers and reachable networks (RFC 7296 §2.19, §3.15).

use std::net::IpAddr;
use std::time::Duration;

use ahash::AHashSet;
use codec::ike::payload::{ConfigAttr, ConfigView};
use codec::ike::{CfgAttrType, CfgType, MessageBuilder};

use super::handset;
use crate::control::pool::{Family, Pool};
use crate::types::{NetworkId, TsRange};

/// Why no address was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AddressError {
    /// No request for an inner address: FAILED_CP_REQUIRED.
    NotAsked,
    /// The pool has none left of any family asked for: INTERNAL_ADDRESS_FAILURE.
    Exhausted,
}

/// What UEs are told beside their addresses.
pub(super) struct Told<'a> {
    pub(super) dns: &'a [IpAddr],
    pub(super) local_ts: &'a [TsRange],
    pub(super) p_cscf: &'a [IpAddr],
    pub(super) liveness: Option<Duration>,
}

/// Takes at most one address per family that the request asks for: of `fixed`, which a back end assigns, or else of the
/// pool. Those outside the pool are noted in `assigned`. What the peer would like to have is
/// not looked at; a UE that asks for both families takes what there is.
pub(super) fn assign(
    request: Option<&ConfigView<'_>>,
    pool: Option<&mut Pool>,
    identity: &[u8],
    fixed: &[IpAddr],
    assigned: &mut AHashSet<(NetworkId, IpAddr)>,
) -> Result<Vec<IpAddr>, AddressError> {
    // RFC 7296 §2.19: only a CFG_REQUEST is answered.
    let Some(request) = request.filter(|config| config.kind == CfgType::REQUEST) else {
        return Err(AddressError::NotAsked);
    };
    let asks = |kind| request.attributes().any(|attribute| attribute.kind == kind);
    let families = [
        asks(CfgAttrType::INTERNAL_IP4_ADDRESS).then_some(Family::V4),
        asks(CfgAttrType::INTERNAL_IP6_ADDRESS).then_some(Family::V6),
    ];
    if families.iter().all(Option::is_none) {
        return Err(AddressError::NotAsked);
    }
    let Some(pool) = pool else { return Err(AddressError::Exhausted) };
    let network = pool.network();
    if !fixed.is_empty() {
        let wanted = |addr: &&IpAddr| families.contains(&Some(Family::of(**addr)));
        // One in use elsewhere is nobody's to give: the other session would lose its downlink.
        let free = |addr: &&IpAddr| match pool.contains(**addr) {
            true => pool.reclaim(**addr),
            false => assigned.insert((network, **addr)),
        };
        let given: Vec<IpAddr> = fixed.iter().filter(wanted).filter(free).copied().collect();
        return if given.is_empty() { Err(AddressError::Exhausted) } else { Ok(given) };
    }
    let given = families.into_iter().flatten().filter_map(|family| pool.allocate(identity, family));
    let given: Vec<IpAddr> = given.collect();
    if given.is_empty() { Err(AddressError::Exhausted) } else { Ok(given) }
}

/// Adds the CFG_REPLY: the addresses given, and of the rest what was asked for and is known. Unknown
/// attributes are ignored (RFC 7296 §3.15).
pub(super) fn reply(
    builder: &mut MessageBuilder,
    request: &ConfigView<'_>,
    inner: &[IpAddr],
    told: &Told<'_>,
) {
    let mut values: Vec<(CfgAttrType, Vec<u8>)> = Vec::new();
    for addr in inner {
        values.push(match addr {
            IpAddr::V4(addr) => (CfgAttrType::INTERNAL_IP4_ADDRESS, addr.octets().to_vec()),
            IpAddr::V6(addr) => (CfgAttrType::INTERNAL_IP6_ADDRESS, [&addr.octets()[..], &[128]].concat()),
        });
    }
    let mut seen: Vec<CfgAttrType> = Vec::new();
    for kind in request.attributes().map(|attribute| attribute.kind) {
        if seen.contains(&kind) {
            continue;
        }
        seen.push(kind);
        if let Some(own) = handset::config_values(kind, told.p_cscf, told.liveness) {
            values.extend(own.into_iter().map(|value| (kind, value)));
            continue;
        }
        match kind {
            CfgAttrType::INTERNAL_IP4_NETMASK if inner.iter().any(IpAddr::is_ipv4) => {
                values.push((kind, vec![255; 4]));
            }
            CfgAttrType::INTERNAL_IP4_DNS => push_dns(&mut values, kind, told.dns, true),
            CfgAttrType::INTERNAL_IP6_DNS => push_dns(&mut values, kind, told.dns, false),
            CfgAttrType::INTERNAL_IP4_SUBNET | CfgAttrType::INTERNAL_IP6_SUBNET => {
                let subnets = told.local_ts.iter().filter_map(subnet);
                values.extend(subnets.filter(|(family, _)| *family == kind));
            }
            _ => {}
        }
    }
    write(builder, CfgType::REPLY, &values);
}

/// Writes a payload of `values`.
pub(super) fn write(builder: &mut MessageBuilder, kind: CfgType, values: &[(CfgAttrType, Vec<u8>)]) {
    let attributes: Vec<ConfigAttr<'_>> =
        values.iter().map(|(kind, value)| ConfigAttr { kind: *kind, value }).collect();
    builder.config(kind, &attributes);
}

fn push_dns(values: &mut Vec<(CfgAttrType, Vec<u8>)>, kind: CfgAttrType, dns: &[IpAddr], v4: bool) {
    for server in dns.iter().filter(|server| server.is_ipv4() == v4) {
        values.push((kind, octets(*server)));
    }
}

/// A range of addresses as a subnet attribute, when it is exactly one prefix.
fn subnet(range: &TsRange) -> Option<(CfgAttrType, Vec<u8>)> {
    match (range.first, range.last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            let host = first.to_bits() ^ last.to_bits();
            is_prefix(host.into(), first.to_bits().into()).then(|| {
                let mask = (!host).to_be_bytes();
                (CfgAttrType::INTERNAL_IP4_SUBNET, [first.octets(), mask].concat())
            })
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            let host = first.to_bits() ^ last.to_bits();
            is_prefix(host, first.to_bits()).then(|| {
                let len = host.leading_zeros() as u8;
                (CfgAttrType::INTERNAL_IP6_SUBNET, [&first.octets()[..], &[len]].concat())
            })
        }
        _ => None,
    }
}

/// Whether the bits that differ are a run at the end, and clear in the first address.
fn is_prefix(host: u128, first: u128) -> bool {
    host & host.wrapping_add(1) == 0 && first & host == 0
}

/// Returns the octets of an address.
pub(super) fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: &str, last: &str) -> TsRange {
        let addr = |text: &str| text.parse().expect("an address");
        TsRange { first: addr(first), last: addr(last), protocol: 0, ports: (0, u16::MAX) }
    }

    #[test]
    fn r7296_3_15_only_whole_prefixes_become_subnets() {
        let net = subnet(&range("10.64.0.0", "10.64.255.255"));
        assert_eq!(net, Some((CfgAttrType::INTERNAL_IP4_SUBNET, vec![10, 64, 0, 0, 255, 255, 0, 0])));
        let all = subnet(&range("0.0.0.0", "255.255.255.255"));
        assert_eq!(all, Some((CfgAttrType::INTERNAL_IP4_SUBNET, vec![0; 8])));
        let (kind, value) = subnet(&range("fd00::", "fd00::ffff")).expect("a prefix");
        assert_eq!((kind, value[16]), (CfgAttrType::INTERNAL_IP6_SUBNET, 112));
        let (_, value) = subnet(&range("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")).expect("a prefix");
        assert_eq!(value[16], 0);
        assert_eq!(subnet(&range("10.0.0.1", "10.0.0.2")), None);
        assert_eq!(subnet(&range("10.0.0.0", "10.0.0.2")), None);
    }
}
