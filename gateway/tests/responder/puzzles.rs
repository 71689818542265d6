//! Puzzles over TCP and the share of those who cannot solve them (RFC 8019, RFC 9329 §6.3).

use std::sync::Arc;
use std::time::Duration;

use codec::crypto::Puzzle;
use codec::ike::{NotifyType, PayloadType};
use gateway::control::responder::{Event, Limits, ResponderConfig, Verdict};
use gateway::types::Transport;

use crate::ue::{Decoded, Ue, UeConfig};
use crate::world::{World, config, conn, profile, psk};

const BITS: u8 = 6;

/// Every IKE_SA_INIT over TCP needs a solution; one a second is served without.
fn limits() -> Limits {
    Limits {
        cookies_from: 0,
        puzzles_from: 0,
        puzzle_bits: BITS,
        unsolved_per_s: 1,
        unsolved_max: 3,
        ..Limits::default()
    }
}

fn puzzling() -> ResponderConfig {
    ResponderConfig { limits: limits(), ..config() }
}

/// A challenge: its cookie and puzzle.
fn challenge(message: &[u8]) -> (Vec<u8>, Puzzle) {
    let decoded = Decoded::clear(message);
    assert!(decoded.header.spi_r.is_zero(), "no state");
    let cookie = decoded.notify(NotifyType::COOKIE).expect("a cookie").data.to_vec();
    assert!((1..=64).contains(&cookie.len()));
    let puzzle = decoded.notify(NotifyType::PUZZLE).expect("a puzzle beside it");
    (cookie, Puzzle::from_data(puzzle.data).expect("well formed"))
}

fn with_solution(ue: &mut Ue, cookie: &[u8], solution: &[u8]) -> Vec<u8> {
    ue.repeat_init(|builder| {
        builder.notify(NotifyType::COOKIE, cookie);
        builder.payload(PayloadType::PUZZLE_SOLUTION, |out| out.extend_from_slice(solution));
    })
}

fn with_cookie(ue: &mut Ue, cookie: &[u8]) -> Vec<u8> {
    ue.repeat_init(|builder| {
        builder.notify(NotifyType::COOKIE, cookie);
    })
}

/// A UE that has been challenged on connection `number`, and its cookie.
fn challenged(world: &mut World, number: u32) -> (Ue, Vec<u8>, Puzzle) {
    let mut ue = Ue::new(UeConfig::new(number.into()));
    let (cookie, puzzle) = challenge(&world.exchange(number, &ue.init()));
    (ue, cookie, puzzle)
}

#[test]
fn r9329_6_3_1_and_r8019_7_1_over_tcp_a_cookie_comes_with_a_puzzle_whose_solution_attaches() {
    let mut world = World::new(puzzling());
    let (mut ue, cookie, puzzle) = challenged(&mut world, 1);
    assert_eq!((puzzle.prf, puzzle.bits), (codec::crypto::Prf::HmacSha2_256, BITS));
    assert_eq!(world.counters().gauges.half_open, 0, "nothing is kept meanwhile");
    let solution = puzzle.solve(&cookie).expect("easy");
    let request = with_solution(&mut ue, &cookie, &solution);
    let response = world.exchange(1, &request);
    ue.on_init(&response).expect("accepted");
    let request = ue.auth();
    let response = world.exchange(1, &request);
    ue.on_auth(&response);
    assert_eq!(ue.children.len(), 1);
    let exchanges = world.counters().exchanges;
    assert_eq!((exchanges.puzzles_sent, exchanges.puzzles_solved, exchanges.cookies_sent), (1, 1, 0));
}

#[test]
fn r9329_6_3_2_a_challenged_connection_has_a_short_time_to_come_back() {
    let mut world = World::new(puzzling());
    let (mut ue, cookie, puzzle) = challenged(&mut world, 1);
    let within = world.events.iter().find_map(|event| match event {
        Event::Challenged { conn: at, within } if *at == conn(1) => Some(*within),
        _ => None,
    });
    let within = within.expect("the connection's deadline");
    assert!((Duration::from_secs(5)..=Duration::from_secs(10)).contains(&within));
    // Who answers keeps its connection: it has the time of a half-open IKE SA now.
    world.events.clear();
    let solution = puzzle.solve(&cookie).expect("easy");
    let request = with_solution(&mut ue, &cookie, &solution);
    world.exchange(1, &request);
    assert!(matches!(world.events[..], [Event::HalfOpen { conn: at }] if at == conn(1)));
}

#[test]
fn r9329_6_3_3_the_port_is_not_in_the_cookie() {
    let mut world = World::new(puzzling());
    let (mut ue, cookie, puzzle) = challenged(&mut world, 1);
    let solution = puzzle.solve(&cookie).expect("easy");
    let request = with_solution(&mut ue, &cookie, &solution);
    // Connection 251 comes from the same address and another port.
    assert_eq!(crate::world::path(1).remote.ip(), crate::world::path(251).remote.ip());
    assert_ne!(crate::world::path(1).remote.port(), crate::world::path(251).remote.port());
    let response = world.exchange(251, &request);
    ue.on_init(&response).expect("accepted");
    // From another address it is worth nothing.
    let (mut ue, cookie, puzzle) = challenged(&mut world, 2);
    let solution = puzzle.solve(&cookie).expect("easy");
    let request = with_solution(&mut ue, &cookie, &solution);
    let (again, _) = challenge(&world.exchange(3, &request));
    assert_ne!(again, cookie);
    assert_eq!(world.counters().drops.bad_cookie, 1);
}

#[test]
fn r8019_7_1_4_a_ue_that_returns_the_cookie_alone_is_served_in_its_turn() {
    let mut world = World::new(puzzling());
    let mut ues: Vec<_> = (1..=3).map(|number| challenged(&mut world, number)).collect();
    let mut ask = |world: &mut World, number: usize| {
        let (ue, cookie, _) = &mut ues[number - 1];
        let request = with_cookie(ue, cookie);
        world.deliver(number as u32, &request)
    };
    assert_eq!(ask(&mut world, 1).len(), 1, "the share of this second");
    assert!(ask(&mut world, 2).is_empty() && ask(&mut world, 3).is_empty(), "they wait");
    assert_eq!(world.verdict, Verdict::Good);
    world.advance(Duration::from_millis(1_050));
    assert_eq!(world.take_sent(2).len(), 1);
    assert!(world.take_sent(3).is_empty());
    world.advance(Duration::from_millis(1_050));
    let response = world.take_sent(3).remove(0);
    let (ue, _, _) = &mut ues[2];
    ue.on_init(&response).expect("accepted");
    let request = ue.auth();
    let response = world.exchange(3, &request);
    ue.on_auth(&response);
    assert_eq!(ue.children.len(), 1);
    assert_eq!(world.counters().exchanges.unsolved_served, 3);
}

#[test]
fn r8019_7_1_4_a_solution_jumps_the_queue_and_the_queue_is_bounded() {
    let mut world = World::new(puzzling());
    let mut waiting: Vec<_> = (1..=6).map(|number| challenged(&mut world, number)).collect();
    for (number, (ue, cookie, _)) in (1..).zip(&mut waiting) {
        let request = with_cookie(ue, cookie);
        world.tell(number, &request);
    }
    assert_eq!(world.take_sent(1).len(), 1);
    let (mut quick, cookie, puzzle) = challenged(&mut world, 7);
    let solution = puzzle.solve(&cookie).expect("easy");
    let request = with_solution(&mut quick, &cookie, &solution);
    assert_eq!(world.deliver(7, &request).len(), 1, "a solution does not wait");
    // Five came to a place for three: the two that waited longest have lost theirs. One has gone, one has moved.
    assert_eq!(world.counters().drops.unsolved_lost, 2);
    world.responder.handle_conn_closed(conn(5));
    world.responder.handle_conn_moved(conn(6), conn(16));
    world.advance(Duration::from_secs(10));
    let served: Vec<u32> = (1..=20).filter(|number| !world.take_sent(*number).is_empty()).collect();
    assert_eq!(served, [4, 16]);
}

#[test]
fn r8019_7_1_2_a_wrong_solution_is_as_good_as_none() {
    let mut world = World::new(puzzling());
    let (mut ue, cookie, puzzle) = challenged(&mut world, 1);
    let mut solution = puzzle.solve(&cookie).expect("easy");
    let same: Vec<u8> = solution[..4].repeat(4);
    solution.truncate(12);
    let request = with_solution(&mut ue, &cookie, &same);
    assert_eq!(world.deliver(1, &request).len(), 1, "from the share without a solution");
    assert_eq!((world.counters().drops.bad_puzzle, world.counters().exchanges.puzzles_solved), (1, 0));
    let (mut ue, cookie, _) = challenged(&mut world, 2);
    let request = with_solution(&mut ue, &cookie, &solution);
    assert!(world.deliver(2, &request).is_empty(), "it waits");
    assert_eq!(world.counters().drops.bad_puzzle, 2);
}

#[test]
fn r8019_7_1_1_1_who_offers_nothing_we_have_is_told_that_and_no_puzzle() {
    let mut world = World::new(puzzling());
    let ike = vec!["aes256gcm16-prfsha512-ecp521"];
    let config = UeConfig { ike, group: codec::ike::KeGroup::ECP_521, ..UeConfig::new(1) };
    let answer = world.exchange(1, &Ue::new(config).init());
    assert_eq!(crate::world::clear_error(&answer), Some(NotifyType::NO_PROPOSAL_CHOSEN));
}

#[test]
fn r8019_7_puzzles_begin_with_the_configured_load() {
    let mut lab = profile("lab", psk());
    lab.transports = vec![Transport::Tcp, Transport::Udp];
    let limits = Limits { puzzles_from: 2, ..limits() };
    let mut world = World::new(ResponderConfig { limits, profiles: vec![Arc::new(lab)], ..config() });
    for number in 1..=2 {
        world.init(number, &mut Ue::new(UeConfig::new(number.into())));
    }
    let (_, _, puzzle) = challenged(&mut world, 3);
    assert_eq!(puzzle.bits, BITS);
    assert_eq!(world.counters().gauges.half_open, 2);
}
