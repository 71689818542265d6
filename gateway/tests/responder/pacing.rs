//! New IKE SAs at a pace, and emergencies that wait for nobody.

use std::sync::Arc;
use std::time::Duration;

use codec::ike::NotifyType;
use gateway::control::responder::{Glob, Handset, Limits, Profile, ResponderConfig};

use crate::ue::{Ue, UeConfig};
use crate::world::{Place, World, config, path, profile, psk};

fn paced(change: impl FnOnce(&mut Limits)) -> ResponderConfig {
    let mut limits = Limits {
        paced_per_s: 10,
        paced_per_prefix_per_s: 1_000,
        paced_max: 20,
        paced_wait: Duration::from_secs(1),
        ..Limits::default()
    };
    change(&mut limits);
    ResponderConfig { limits, ..config() }
}

fn emergency(name: &str) -> Profile {
    let handset = Handset { emergency: true, ..Handset::default() };
    Profile { idr: Glob::new("sos"), handset, ..profile(name, psk()) }
}

impl World {
    /// So many UEs come at once, each on a connection of its own; returns those and how many were answered at once.
    fn crowd(&mut self, from: u32, count: u32) -> (Vec<Ue>, usize) {
        let mut answered = 0;
        let ues = (from..from + count).map(|number| {
            let mut ue = Ue::new(UeConfig::new(number.into()));
            let request = ue.init();
            let sent = self.deliver(number, &request);
            answered += sent.len();
            ue
        });
        (ues.collect(), answered)
    }
}

#[test]
fn requests_beyond_the_pace_wait_and_are_served_in_their_order() {
    let mut world = World::new(paced(|_| {}));
    let (_, answered) = world.crowd(1, 25);
    assert_eq!(answered, 10, "a second's worth at once");
    assert_eq!(world.counters().exchanges.paced, 15);
    let mut served = Vec::new();
    for _ in 0..10 {
        world.advance(Duration::from_millis(100));
        served.extend(std::mem::take(&mut world.sent).iter().map(|sent| sent.conn.slot));
    }
    assert!(served.len() >= 9 && served.is_sorted(), "{served:?}");
    assert_eq!(served[0], 11);
}

#[test]
fn the_queue_is_bounded_and_so_is_the_wait() {
    let mut world = World::new(paced(|_| {}));
    let (_, answered) = world.crowd(1, 50);
    assert_eq!(answered, 10);
    assert_eq!((world.counters().exchanges.paced, world.counters().drops.pacing_full), (20, 20));
    world.advance(Duration::from_secs(4));
    let drops = world.counters().drops;
    assert!((8..=11).contains(&drops.pacing_late), "{} of 20 waited more than a second", drops.pacing_late);
    assert_eq!(world.sent.len() as u64 + drops.pacing_late, 20);
}

#[test]
fn a_request_sent_again_waits_once() {
    let mut world = World::new(paced(|limits| {
        limits.paced_per_s = 1;
        limits.paced_wait = Duration::from_secs(2);
    }));
    let _ = world.crowd(1, 1);
    let mut ue = Ue::new(UeConfig::new(2));
    let request = ue.init();
    for _ in 0..5 {
        let _ = world.arrive(Place::Udp(7_000), request.clone());
    }
    assert_eq!(world.counters().exchanges.paced, 1);
    world.advance(Duration::from_millis(1_500));
    assert_eq!(world.sent.len(), 1);
    ue.on_init(&world.sent[0].message).expect("accepted");
}

#[test]
fn who_has_gone_waits_no_more() {
    let mut world = World::new(paced(|_| {}));
    let (_, answered) = world.crowd(1, 12);
    assert_eq!(answered, 10);
    world.responder.handle_conn_closed(crate::world::conn(11));
    world.advance(Duration::from_secs(1));
    let served: Vec<u32> = world.sent.iter().map(|sent| sent.conn.slot).collect();
    assert_eq!(served, [12]);
}

#[test]
fn a_network_has_a_pace_of_its_own() {
    let mut world = World::new(paced(|limits| {
        limits.paced_per_s = 1_000;
        limits.paced_per_prefix_per_s = 5;
    }));
    // All of these come from one /24.
    let (_, answered) = world.crowd(1, 9);
    assert_eq!((answered, world.counters().drops.prefix_pace), (5, 4));
    world.advance(Duration::from_secs(1));
    let (_, answered) = world.crowd(20, 9);
    assert_eq!(answered, 5);
}

#[test]
fn emergencies_wait_for_nobody() {
    let at = path(1).local;
    let mut world =
        World::new(ResponderConfig { emergency_listen: vec![at], ..paced(|limits| limits.paced_per_s = 1) });
    let (_, answered) = world.crowd(1, 30);
    assert_eq!((answered, world.counters().exchanges.emergency_inits), (30, 30));
    // Those who come in elsewhere keep the pace.
    for port in 7_000..7_005 {
        let request = Ue::new(UeConfig::new(port.into())).init();
        let mut place = Place::Udp(port).path();
        place.local.set_port(500);
        let conn = Place::Udp(port).conn();
        let _ = world.responder.handle_message(world.now, conn, &place, &mut request.clone());
        world.collect();
    }
    assert_eq!((world.counters().exchanges.paced, world.sent.len()), (4, 1));
}

#[test]
fn capacity_is_kept_free_for_emergencies() {
    let everybody = profile("everybody", psk());
    let mut world = World::new(ResponderConfig {
        profiles: vec![Arc::new(emergency("sos")), Arc::new(everybody)],
        limits: Limits { sessions_max: 16, emergency_reserved: 256, ..Limits::default() },
        ..config()
    });
    let sos =
        |seed| UeConfig { asked: Some((codec::ike::IdType::KEY_ID, b"SOS".to_vec())), ..UeConfig::new(seed) };
    for number in 1..=14 {
        world.attach(number, UeConfig::new(number.into()));
    }
    assert_eq!(world.attach_error(15, UeConfig::new(15)), Some(NotifyType::TEMPORARY_FAILURE));
    world.attach(16, sos(16));
    world.attach(17, sos(17));
    assert_eq!(world.attach_error(18, sos(18)), Some(NotifyType::TEMPORARY_FAILURE), "an end there is");
}

#[test]
fn without_a_profile_for_emergencies_nothing_is_kept_free() {
    let mut world =
        World::new(ResponderConfig { limits: Limits { sessions_max: 16, ..Limits::default() }, ..config() });
    for number in 1..=16 {
        world.attach(number, UeConfig::new(number.into()));
    }
    assert_eq!(world.session_count(), 16);
}
