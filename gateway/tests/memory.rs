//! What an attached UE that says nothing costs the control thread.
//!
//! Heap octets as asked for; what the allocator adds is measured on whole processes (`docs/` has the figures).

#[path = "support/ue.rs"]
#[allow(dead_code, reason = "other test programs use the rest")]
mod ue;
#[path = "responder/world.rs"]
#[allow(dead_code, unused_macros, unused_imports, reason = "other test programs use the rest")]
mod world;

use std::time::Duration;

use allocation_counter::measure;
use ue::UeConfig;
use world::World;

/// Sessions of one measurement.
const SESSIONS: u32 = 2_000;

/// Heap octets of the responder per established session, tables included.
const OCTETS_PER_SESSION_MAX: i64 = 1_500;

/// The same once the last response need not be kept any more.
const OCTETS_PER_QUIET_SESSION_MAX: i64 = 1_200;

/// Heap octets per session that `world` holds after all UEs attached, and a while later.
fn footprint(world: &mut World) -> (i64, i64) {
    let attach = measure(|| {
        for number in 0..SESSIONS {
            drop(world.attach(number, UeConfig::new(number.into())));
            world.events = Vec::new();
            world.sent = Vec::new();
        }
    });
    let wait = measure(|| {
        world.advance(Duration::from_secs(200));
        world.events = Vec::new();
        world.sent = Vec::new();
    });
    let per_session = |octets: i64| octets / i64::from(SESSIONS);
    (per_session(attach.bytes_current), per_session(attach.bytes_current + wait.bytes_current))
}

#[test]
fn an_idle_session_costs_the_control_thread_little() {
    let mut config = world::config();
    let mut profile = world::profile("lab", world::psk());
    profile.dpd = Duration::ZERO;
    config.profiles = vec![std::sync::Arc::new(profile)];
    let mut world = World::new(config);
    let (attached, quiet) = footprint(&mut world);
    assert_eq!(world.session_count(), u64::from(SESSIONS));
    println!("{attached} octets per session, {quiet} when quiet");
    assert!(attached <= OCTETS_PER_SESSION_MAX, "{attached} octets");
    assert!(quiet <= OCTETS_PER_QUIET_SESSION_MAX, "{quiet} octets");
}
