//! The inner devices as the system sees them, and the addresses that are the host's own.
//!
//! Speaks rtnetlink. The queues of a device belong to the workers; this only gives it an MTU, its VRF,
//! addresses and thereby routes for the pools.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use futures_util::stream::StreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::{Handle, LinkUnspec, MulticastGroup, new_connection, new_multicast_connection};
use tokio::sync::mpsc;

use super::pool::PoolConfig;
use crate::config::InnerSection;
use crate::error::Failure;
use crate::types::NetworkId;

/// Packets one queue of the device holds while its worker is busy with other things; the kernel's default
/// of 500 is one burst at 10 Gbit/s. Worst case 12 MiB per queue, outside our own memory.
const QUEUE_PACKETS: u32 = 8192;

/// Changes of addresses come in bursts; one listing serves all that fall into this time.
const SETTLE: Duration = Duration::from_millis(100);

/// Gives the device its MTU, the first host address of every pool prefix (and with it the route for the
/// prefix), and brings it up.
///
/// # Errors
/// [`Failure::Environment`] naming the step. IPv6 that the host has switched off is only a warning.
pub async fn set_up_device(inner: &InnerSection, pools: &[PoolConfig]) -> Result<(), Failure> {
    let device = &inner.device;
    let failed = |step: String, error: &dyn std::fmt::Display| {
        Failure::Environment(format!("device {device}: {step}: {error} (missing privilege CAP_NET_ADMIN?)"))
    };
    let (connection, handle, _) = new_connection().map_err(|error| failed("netlink".into(), &error))?;
    let netlink = tokio::spawn(connection);
    let mut links = handle.link().get().match_name(device.clone()).execute();
    let link = links.try_next().await.map_err(|error| failed("find".into(), &error))?;
    let index = link.map(|link| link.header.index).ok_or_else(|| failed("find".into(), &"no such device"))?;
    if let Some(vrf) = &inner.vrf {
        let what = |error: &dyn std::fmt::Display| failed(format!("join VRF {vrf}"), error);
        let mut links = handle.link().get().match_name(vrf.clone()).execute();
        let master = links.try_next().await.map_err(|error| what(&error))?;
        let master = master.ok_or_else(|| what(&"no such device"))?.header.index;
        // Before the addresses: their routes go into the table of the VRF.
        let join = LinkUnspec::new_with_index(index).controller(master).build();
        handle.link().set(join).execute().await.map_err(|error| what(&error))?;
    }
    let queue = LinkAttribute::TxQueueLen(QUEUE_PACKETS);
    let up =
        LinkUnspec::new_with_index(index).mtu(inner.mtu.into()).append_extra_attribute(queue).up().build();
    let set = handle.link().set(up).execute().await;
    set.map_err(|error| failed(format!("set MTU {} and bring up", inner.mtu), &error))?;
    for prefix in pools.iter().flat_map(|pool| &pool.prefixes) {
        let addr = prefix.first_host();
        let added = handle.address().add(index, addr, prefix.prefix_len()).replace().execute().await;
        match added {
            Ok(()) => {}
            Err(error) if addr.is_ipv6() => {
                tracing::warn!(
                    "device {device}: address {addr}/{}: {error}; IPv6 switched off?",
                    prefix.prefix_len()
                );
            }
            Err(error) => return Err(failed(format!("address {addr}/{}", prefix.prefix_len()), &error)),
        }
    }
    netlink.abort();
    warn_without_forwarding(pools);
    Ok(())
}

/// Forwarding is the host's own decision; without it the gateway looks broken, so it is said.
fn warn_without_forwarding(pools: &[PoolConfig]) {
    let prefixes = || pools.iter().flat_map(|pool| &pool.prefixes);
    let checks = [
        (
            prefixes().any(|prefix| prefix.addr().is_ipv4()),
            "/proc/sys/net/ipv4/ip_forward",
            "net.ipv4.ip_forward",
        ),
        (
            prefixes().any(|prefix| prefix.addr().is_ipv6()),
            "/proc/sys/net/ipv6/conf/all/forwarding",
            "net.ipv6.conf.all.forwarding",
        ),
    ];
    for (used, path, name) in checks {
        if used && std::fs::read_to_string(path).is_ok_and(|value| value.trim() == "0") {
            tracing::warn!(
                "sysctl {name} = 0: the kernel forwards no packets between UEs and the core network"
            );
        }
    }
}

/// The addresses whose packets the host keeps for itself, where these networks are.
#[derive(Clone, Debug)]
pub struct LocalAddrs {
    /// Networks whose devices are in one network namespace.
    pub networks: Vec<NetworkId>,
    /// Those of that namespace.
    pub addrs: Arc<[IpAddr]>,
}

/// The addresses whose packets the host keeps for itself: its own on every interface, and what follows from them.
///
/// # Errors
/// [`Failure::Environment`] when netlink does not tell.
pub async fn local_addrs() -> Result<Arc<[IpAddr]>, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::Environment(format!("listing addresses: {error}"));
    let (connection, handle, _) = new_connection().map_err(|error| failed(&error))?;
    let netlink = tokio::spawn(connection);
    let addrs = list(&handle).await.map_err(|error| failed(&error));
    netlink.abort();
    addrs
}

async fn list(handle: &Handle) -> Result<Arc<[IpAddr]>, rtnetlink::Error> {
    let mut addrs = Vec::new();
    let mut messages = handle.address().get().execute();
    while let Some(message) = messages.try_next().await? {
        addrs.extend(kept_for(&message));
    }
    addrs.sort_unstable();
    addrs.dedup();
    Ok(addrs.into())
}

/// What the host takes as its own because of one address: itself, the broadcast addresses of its subnet (RFC 919 §7, and any
/// other it was given) and the anycast address of the subnet's routers, of which a host that forwards is one (RFC 4291
/// §2.6.1; Linux knows none for prefixes of 127 and 128 bits, RFC 6164 §5).
fn kept_for(message: &AddressMessage) -> impl Iterator<Item = IpAddr> {
    let (mut local, mut subnet, mut broadcast) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(addr) => local = Some(*addr),
            AddressAttribute::Address(addr) => subnet = Some(*addr),
            AddressAttribute::Broadcast(addr) => broadcast = Some(IpAddr::V4(*addr)),
            _ => {}
        }
    }
    // On a point-to-point interface `Address` is the other end; `Local` wins.
    let own = local.or(subnet);
    let len = u32::from(message.header.prefix_len);
    let derived = match (own, subnet) {
        (Some(IpAddr::V6(own)), _) if len < 127 => {
            let host = u128::MAX.checked_shr(len).unwrap_or(0);
            Some(IpAddr::V6(Ipv6Addr::from_bits(own.to_bits() & !host)))
        }
        (_, Some(IpAddr::V4(subnet))) if len < 31 => {
            let host = u32::MAX.checked_shr(len).unwrap_or(0);
            Some(IpAddr::V4(Ipv4Addr::from_bits(subnet.to_bits() | host)))
        }
        _ => None,
    };
    [own, broadcast, derived].into_iter().flatten()
}

/// Reports the host's addresses whenever they change, for as long as `changes` is open. `networks` are those whose
/// devices are in the namespace of the calling thread.
///
/// # Errors
/// [`Failure::Environment`] when the system does not let us listen.
pub fn watch_local_addrs(networks: Vec<NetworkId>, changes: mpsc::Sender<LocalAddrs>) -> Result<(), Failure> {
    let groups = [MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
    let (connection, handle, mut messages) = new_multicast_connection(&groups)
        .map_err(|error| Failure::Environment(format!("watching addresses: {error}")))?;
    tokio::spawn(connection);
    tokio::spawn(async move {
        while messages.next().await.is_some() {
            tokio::time::sleep(SETTLE).await;
            while let Ok(Some(_)) = tokio::time::timeout(Duration::ZERO, messages.next()).await {}
            match list(&handle).await {
                Ok(addrs) => {
                    if changes.send(LocalAddrs { networks: networks.clone(), addrs }).await.is_err() {
                        return;
                    }
                }
                Err(error) => tracing::warn!("listing addresses: {error}"),
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// What is kept for an address with its prefix length, as the kernel tells of it.
    fn kept(prefix_len: u8, attributes: Vec<AddressAttribute>) -> Vec<IpAddr> {
        let mut message = AddressMessage::default();
        message.header.prefix_len = prefix_len;
        message.attributes = attributes;
        let mut kept: Vec<IpAddr> = kept_for(&message).collect();
        kept.sort_unstable();
        kept.dedup();
        kept
    }

    #[test]
    fn r919_7_broadcasts_of_a_subnet_are_the_hosts_own() {
        use AddressAttribute::{Address, Broadcast, Local};
        let own = || [Address(addr("10.77.0.5")), Local(addr("10.77.0.5"))];
        let both = [addr("10.77.0.5"), addr("10.77.0.255")];
        assert_eq!(kept(24, own().into()), both, "also where it is not told");
        assert_eq!(kept(24, [&own()[..], &[Broadcast([10, 77, 0, 255].into())]].concat()), both);
        let other = kept(24, [&own()[..], &[Broadcast([10, 77, 0, 0].into())]].concat());
        assert_eq!(other, [addr("10.77.0.0"), addr("10.77.0.5"), addr("10.77.0.255")]);
        assert_eq!(kept(31, own().into()), [addr("10.77.0.5")], "RFC 3021: no broadcasts");
        assert_eq!(kept(32, own().into()), [addr("10.77.0.5")]);
        // The other end of a point-to-point interface is not ours; its subnet is.
        let peer = vec![Address(addr("10.78.0.9")), Local(addr("10.77.0.5"))];
        assert_eq!(kept(30, peer), [addr("10.77.0.5"), addr("10.78.0.11")]);
        assert_eq!(kept(0, own().into()), [addr("10.77.0.5"), addr("255.255.255.255")]);
    }

    #[test]
    fn r4291_2_6_1_the_anycast_address_of_a_subnets_routers_is_the_hosts_own() {
        let own = || vec![AddressAttribute::Address(addr("fd77::ab:5"))];
        assert_eq!(kept(64, own()), [addr("fd77::"), addr("fd77::ab:5")]);
        assert_eq!(kept(112, own()), [addr("fd77::ab:0"), addr("fd77::ab:5")]);
        assert_eq!(kept(126, own()), [addr("fd77::ab:4"), addr("fd77::ab:5")]);
        assert_eq!(kept(127, own()), [addr("fd77::ab:5")]);
        assert_eq!(kept(128, own()), [addr("fd77::ab:5")]);
    }
}
