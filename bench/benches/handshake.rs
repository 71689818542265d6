//! Cost of attaching a UE on the control thread: the responder's time for IKE_SA_INIT and for IKE_AUTH,
//! per suite and kind of authentication. The UE's own time is left out.

#[path = "../../gateway/tests/support/ue.rs"]
#[allow(dead_code, reason = "the tests of the responder use the rest")]
mod ue;
#[path = "../../gateway/tests/responder/world.rs"]
#[allow(dead_code, unused_imports, unused_macros, reason = "the tests of the responder use the rest")]
mod world;

use std::time::{Duration, Instant};

use codec::ike::KeGroup;
use criterion::Criterion;
use gateway::control::responder::ResponderConfig;
use ue::{Ue, UeConfig};
use world::World;

/// Suites: name, the responder's configuration, the UE's.
type Case = (&'static str, fn() -> ResponderConfig, fn(u64) -> UeConfig);

const CASES: [Case; 4] = [
    ("x25519-psk", world::config, UeConfig::new),
    ("modp2048-psk", world::config, modp2048),
    ("x25519-ecdsa", || world::certificate_config(false, true), |seed| world::certificate_ue(seed, false)),
    ("x25519-rsa2048", || world::certificate_config(true, true), |seed| world::certificate_ue(seed, true)),
];

fn modp2048(seed: u64) -> UeConfig {
    UeConfig {
        ike: vec!["aes256-sha256-modp2048"],
        group: KeGroup::MODP_2048,
        esp: vec!["aes256-sha256"],
        ..UeConfig::new(seed)
    }
}

/// The responder's time for both requests of one UE, which then leaves again.
fn attach(world: &mut World, config: UeConfig) -> [Duration; 2] {
    let mut ue = Ue::new(config);
    let request = ue.init();
    let start = Instant::now();
    let response = world.exchange(1, &request);
    let init = start.elapsed();
    ue.on_init(&response).expect("accepted");
    let request = ue.auth();
    let start = Instant::now();
    let response = world.exchange(1, &request);
    let auth = start.elapsed();
    assert_eq!(ue.on_auth(&response).error(), None);
    let request = ue.informational(|builder| {
        builder.delete_ike();
    });
    world.exchange(1, &request);
    world.events.clear();
    [init, auth]
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let mut group = criterion.benchmark_group("handshake");
    for (name, gateway, ue) in CASES {
        for (which, message) in ["init", "auth"].into_iter().enumerate() {
            group.bench_function(format!("{name}/{message}"), |bencher| {
                let mut world = World::new(gateway());
                let mut seed = 0;
                bencher.iter_custom(|rounds| {
                    let one = |_| {
                        seed += 1;
                        attach(&mut world, ue(seed))[which]
                    };
                    (0..rounds).map(one).sum()
                });
            });
        }
    }
    group.finish();
    criterion.final_summary();
}
