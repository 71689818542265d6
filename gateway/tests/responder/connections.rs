//! Sessions and the connections they appear on (RFC 9329 §6.1, §6.2).

use std::time::Duration;

use codec::ike::{IkeHeader, NotifyType};
use gateway::control::responder::Verdict;
use gateway::types::{CloseReason, ConnId, WorkerId};

use crate::ue::{Ue, UeConfig};
use crate::world::{World, config, conn, path};

#[test]
fn r9329_6_1_15_only_a_fresh_authentic_message_moves_a_session() {
    let mut world = World::new(config());
    let mut ue = world.attach(1, UeConfig::new(1));
    world.bound();
    let request = ue.informational(|_| {});
    let answer = world.exchange(1, &request);
    // A retransmission is answered where it came in and moves nothing (D8, 6.2-3).
    assert_eq!(world.exchange(2, &request), answer);
    // Neither does a message that fails its check, nor one outside the window.
    let fresh = ue.informational(|_| {});
    let mut altered = fresh.clone();
    *altered.last_mut().expect("not empty") ^= 1;
    assert!(world.deliver(3, &altered).is_empty());
    let early = ue.informational(|_| {});
    assert!(world.deliver(4, &early).is_empty());
    assert_eq!(world.counters().drops.out_of_window, 1);
    assert!(world.bound().is_empty());
    assert_eq!(world.deliver(5, &fresh).len(), 1);
    assert_eq!(world.bound(), [conn(5)]);
    // 6.1-16: the old connection still works, and moves it back.
    assert_eq!(world.deliver(1, &early).len(), 1);
    assert_eq!(world.bound(), [conn(1)]);
    assert_eq!(world.counters().exchanges.connection_switches, 2);
}

#[test]
fn r9329_6_1_4_r9329_10_5_a_session_outlives_its_connection() {
    let mut world = World::new(config());
    let mut ue = world.attach(1, UeConfig::new(1));
    world.responder.handle_conn_closed(conn(1));
    let view = world.responder.sessions(world.now).next().expect("it");
    assert_eq!((view.state, view.conn), ("detached", None));
    drop(view);
    let request = ue.informational(|_| {});
    assert_eq!(world.deliver(2, &request).len(), 1);
    assert_eq!(world.bound(), [conn(1), conn(2)]);
    let view = world.responder.sessions(world.now).next().expect("it");
    assert_eq!((view.state, view.path.remote), ("established", path(2).remote));
}

#[test]
fn r9329_6_1_11_d6_a_failed_check_closes_that_connection_only() {
    let mut world = World::new(config());
    let mut ue = world.attach(1, UeConfig::new(1));
    let good = ue.informational(|_| {});
    let mut damaged = good.clone();
    *damaged.last_mut().expect("not empty") ^= 0x40;
    assert!(world.deliver(7, &damaged).is_empty());
    assert_eq!(world.closed(), [(conn(7), CloseReason::IkeAuthFailed)]);
    assert_eq!(world.verdict, Verdict::Bad);
    assert_eq!(world.session_count(), 1);
    assert_eq!(world.deliver(1, &good).len(), 1, "the session is untouched");
    assert!(world.closed().is_empty());
}

#[test]
fn r9329_6_1_9_d4_a_message_of_another_session_is_dropped() {
    let mut world = World::new(config());
    let mut one = world.attach(1, UeConfig::new(1));
    let mut two = world.attach(2, UeConfig::new(2));
    world.bound();
    let request = two.informational(|_| {});
    assert!(world.deliver(1, &request).is_empty());
    assert_eq!(world.verdict, Verdict::Bad);
    assert_eq!(world.counters().drops.foreign_session, 1);
    assert!(world.bound().is_empty() && world.closed().is_empty());
    assert_eq!(world.deliver(2, &request).len(), 1, "nothing of it was used up");
    let request = one.informational(|_| {});
    assert_eq!(world.deliver(1, &request).len(), 1);
    // Nor may a session appear where another handshake is under way.
    let mut three = Ue::new(UeConfig::new(3));
    world.init(3, &mut three);
    let request = one.informational(|_| {});
    assert!(world.deliver(3, &request).is_empty());
    let other = three.auth();
    assert!(world.deliver(2, &other).is_empty());
    assert_eq!(world.counters().drops.foreign_session, 3);
    assert_eq!(world.deliver(3, &other).len(), 1);
}

#[test]
fn r9329_6_2_2_an_unanswered_request_is_repeated_on_the_new_connection() {
    let mut world = World::new(config());
    let mut ue = world.attach(1, UeConfig::new(1));
    world.advance(Duration::from_secs(60));
    let liveness = world.take_sent(1).remove(0);
    // 9329-6.2-1: never again on the same connection.
    world.advance(Duration::from_secs(20));
    assert!(world.take_sent(1).is_empty());
    world.responder.handle_conn_closed(conn(1));
    // The UE comes back with fresh ESP on connection 2.
    let id = world.session();
    world.responder.handle_conn_bound(world.now, id, conn(2), &path(2));
    world.collect();
    assert_eq!(world.take_sent(2), std::slice::from_ref(&liveness), "the identical octets");
    // And with a fresh IKE message on connection 3.
    let request = ue.informational(|_| {});
    let sent = world.deliver(3, &request);
    assert!(sent.contains(&liveness) && sent.len() == 2);
    let request = ue.open(&liveness).expect("authentic");
    let response = ue.respond(&request, |_| {});
    assert!(world.deliver(3, &response).is_empty());
    assert_eq!(world.verdict, Verdict::Good);
    assert!(world.deliver(3, &response).is_empty());
    assert_eq!(world.verdict, Verdict::Bad, "a second response answers nothing");
    world.advance(Duration::from_secs(30));
    assert_eq!(world.session_count(), 1);
    // A response that comes on a new connection binds it without repeating what it answers.
    world.advance(Duration::from_secs(30));
    let liveness = world.take_sent(3).remove(0);
    let request = ue.open(&liveness).expect("authentic");
    let response = ue.respond(&request, |_| {});
    world.bound();
    assert!(world.deliver(4, &response).is_empty());
    assert_eq!(world.bound(), [conn(4)]);
}

#[test]
fn d7_a_request_without_a_connection_waits_for_one() {
    let mut world = World::new(config());
    let mut ue = world.attach(1, UeConfig::new(1));
    world.responder.handle_conn_closed(conn(1));
    world.advance(Duration::from_secs(70));
    assert!(world.sent.is_empty());
    let request = ue.informational(|_| {});
    let sent = world.deliver(2, &request);
    assert_eq!(sent.len(), 2, "the answer, and the liveness check that waited");
    // The clock of a request runs without a connection, too.
    world.responder.handle_conn_closed(conn(2));
    world.advance(Duration::from_secs(30));
    assert_eq!(world.session_count(), 0);
    assert_eq!(world.counters().exchanges.peer_dead, 1);
}

#[test]
fn r9329_6_1_13_a_syntax_error_drops_the_ike_sa_and_keeps_the_connection() {
    let mut world = World::new(config());
    let mut ue = world.attach(1, UeConfig::new(1));
    let mut sa = ue.sa.take().expect("it");
    // A Notify that claims an SPI longer than itself.
    let message = sa.seal_raw(codec::ike::ExchangeType::INFORMATIONAL, &[3, 200, 0, 1], &mut ue.random);
    ue.sa = Some(sa);
    let response = world.exchange(1, &message);
    assert_eq!(ue.open(&response).expect("protected").error(), Some(NotifyType::INVALID_SYNTAX));
    assert_eq!(world.session_count(), 0);
    assert!(world.closed().is_empty());
    world.attach(1, UeConfig::new(2));
}

#[test]
fn a_connection_that_changes_worker_keeps_what_it_carries() {
    let mut world = World::new(config());
    let mut ue = Ue::new(UeConfig::new(1));
    world.init(1, &mut ue);
    world.responder.handle_conn_moved(conn(1), conn(2));
    let mut stranger = Ue::new(UeConfig::new(2));
    let request = stranger.init();
    assert!(world.deliver(2, &request).is_empty(), "half-open moved along");
    let request = ue.auth();
    let response = world.exchange(2, &request);
    ue.on_auth(&response);
    let id = world.session();
    let owner = world.responder.owner(id).expect("it");
    assert_eq!(owner, conn(2).worker);
    let elsewhere = ConnId { worker: WorkerId(7), slot: 3, generation: 3 };
    world.responder.handle_conn_moved(conn(2), elsewhere);
    assert_eq!(world.responder.session(world.now, id).expect("it").conn, Some(elsewhere));
    assert_eq!(world.responder.owner(id), Some(owner), "the owner is for life");
    world.responder.handle_conn_closed(elsewhere);
    assert_eq!(world.responder.session(world.now, id).expect("it").conn, None);
}

#[test]
fn r7296_2_3_a_request_is_handled_while_ours_is_outstanding() {
    let mut world = World::new(config());
    let mut ue = world.attach(1, UeConfig::new(1));
    world.advance(Duration::from_secs(60));
    let liveness = world.take_sent(1).remove(0);
    let request = ue.create_child(None, false);
    let response = world.exchange(1, &request);
    assert_eq!(ue.on_create_child(&response).error(), None);
    let asked = ue.open(&liveness).expect("authentic");
    assert_eq!(IkeHeader::decode(&liveness).expect("a header").message_id.0, 0);
    let response = ue.respond(&asked, |_| {});
    assert!(world.deliver(1, &response).is_empty());
    assert_eq!(world.verdict, Verdict::Good);
}
