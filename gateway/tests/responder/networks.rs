//! Profiles of several inner networks, whose pools overlap.

use std::net::IpAddr;
use std::sync::Arc;

use codec::ike::{CfgAttrType, IdType};
use gateway::control::pool::PoolConfig;
use gateway::control::responder::{Event, Glob, Profile, ResponderConfig};
use gateway::types::NetworkId;

use crate::ue::{Ue, UeConfig};
use crate::world::{World, config, prefix, profile, psk};

/// UEs called ue1… are of the first network, all others of the second.
fn two_networks() -> ResponderConfig {
    let of = |name: &str, network, idi| Profile {
        idi: Glob::new(idi),
        pool: name.into(),
        network: NetworkId(network),
        ..profile(name, psk())
    };
    let pool = |name: &str, network| PoolConfig {
        name: name.into(),
        network: NetworkId(network),
        prefixes: vec![prefix("10.64.0.0/29")],
        reserved: Vec::new(),
    };
    ResponderConfig {
        profiles: vec![Arc::new(of("one", 0, "ue1*")), Arc::new(of("two", 1, "*"))],
        pools: vec![pool("one", 0), pool("two", 1)],
        dns: vec![vec![IpAddr::from([10, 1, 1, 1])], vec![IpAddr::from([10, 2, 2, 2])]],
        ..config()
    }
}

#[test]
fn pools_of_two_networks_give_the_same_addresses_and_their_own_dns() {
    let mut world = World::new(two_networks());
    let mut addresses = Vec::new();
    for (number, dns) in [(1, [10, 1, 1, 1]), (2, [10, 2, 2, 2])] {
        let mut ue = Ue::new(UeConfig::new(number.into()));
        world.init(number, &mut ue);
        let request = ue.auth();
        let answer = ue.on_auth(&world.exchange(number, &request));
        let told = answer.config().into_iter().find(|(kind, _)| *kind == CfgAttrType::INTERNAL_IP4_DNS);
        assert_eq!(told.map(|(_, value)| value), Some(dns.to_vec()));
        addresses.push(ue.addresses);
    }
    assert_eq!(addresses[0], addresses[1]);
    let networks: Vec<NetworkId> = world.installs().iter().map(|install| install.network).collect();
    assert_eq!(networks, [NetworkId(0), NetworkId(1)]);
}

/// An address goes back to the pool it came from, though the other network has one of the same.
#[test]
fn addresses_go_back_to_their_own_network() {
    let mut world = World::new(two_networks());
    // Five addresses each.
    for number in [1, 10, 11, 12, 13, 2, 20, 21, 22] {
        world.attach(number, UeConfig::new(number.into()));
    }
    let mut last = world.attach(23, UeConfig::new(23));
    assert!(world.attach_error(24, UeConfig::new(24)).is_some(), "the second pool is empty");
    let delete = last.informational(|builder| _ = builder.delete_ike());
    world.exchange(23, &delete);
    let closed = world.events.iter().rev().find_map(|event| match event {
        Event::CloseSession { network, .. } => Some(*network),
        _ => None,
    });
    assert_eq!(closed, Some(NetworkId(1)));
    let other = UeConfig { id: (IdType::FQDN, b"ue19.test".to_vec()), ..UeConfig::new(19) };
    assert!(world.attach_error(19, other).is_some(), "that of the first still is");
    assert_eq!(world.attach(25, UeConfig::new(25)).addresses, last.addresses);
}
