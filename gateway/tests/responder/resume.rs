//! Session resumption (RFC 5723).

use std::sync::Arc;
use std::time::Duration;

use codec::crypto::Secret;
use codec::ike::{NotifyType, PayloadType};
use gateway::control::responder::{Limits, Psk, ResponderConfig, Resumption, Verdict};
use gateway::types::{ConnId, Path, Transport, WorkerId};

use crate::ue::{Decoded, Resumable, Ue, UeConfig};
use crate::world::{World, certificate_config, certificate_ue, config, conn, path, profile, psk};

const LIFETIME: Duration = Duration::from_secs(3_600);

fn resumption() -> Option<Resumption> {
    Some(Resumption { lifetime: LIFETIME, reauth: Duration::from_secs(86_400), key: None })
}

fn resuming() -> ResponderConfig {
    let mut lab = profile("lab", psk());
    lab.transports = vec![Transport::Tcp, Transport::Udp];
    ResponderConfig { resumption: resumption(), profiles: vec![Arc::new(lab)], ..config() }
}

/// The lifetime and the ticket in a message.
fn ticket(decoded: &Decoded) -> Option<(u32, Vec<u8>)> {
    let data = decoded.notify(NotifyType::TICKET_LT_OPAQUE)?.data;
    let (lifetime, ticket) = data.split_first_chunk().expect("a lifetime");
    Some((u32::from_be_bytes(*lifetime), ticket.to_vec()))
}

/// A session on connection `number`, and what its UE keeps to resume it.
fn attach(world: &mut World, number: u32, config: UeConfig) -> (Ue, Resumable) {
    let mut ue = Ue::new(config);
    world.init(number, &mut ue);
    let request = ue.auth_with(|builder| {
        builder.notify(NotifyType::TICKET_REQUEST, &[]);
    });
    let response = world.exchange(number, &request);
    let decoded = ue.on_auth(&response);
    assert_eq!((decoded.error(), ue.children.len()), (None, 1));
    let (lifetime, ticket) = ticket(&decoded).expect("a ticket");
    assert_eq!(u64::from(lifetime), LIFETIME.as_secs());
    let kept = ue.resumable(&ticket);
    (ue, kept)
}

/// A new UE of the same identity, after IKE_SESSION_RESUME on connection `number`.
fn resumed(world: &mut World, number: u32, seed: u64, config: UeConfig, from: &Resumable) -> Ue {
    let mut ue = Ue::new(UeConfig { seed, ..config });
    let response = world.exchange(number, &ue.resume(from));
    ue.on_resume(from, &response).expect("taken");
    ue
}

#[test]
fn r5723_4_3_a_ticket_brings_the_session_back_and_ends_the_old_one() {
    let mut world = World::new(resuming());
    let (old, kept) = attach(&mut world, 1, UeConfig::new(1));
    let before = world.session();
    world.responder.handle_conn_closed(conn(1));
    let mut ue = resumed(&mut world, 2, 100, UeConfig::new(1), &kept);
    let request = ue.auth();
    let response = world.exchange(2, &request);
    let decoded = ue.on_auth(&response);
    assert_eq!((decoded.error(), ue.children.len()), (None, 1));
    assert_ne!(world.session(), before, "one session, a new one");
    assert_eq!(ue.addresses, old.addresses, "the same identity gets the address that has become free");
    assert_ne!(ue.children[0].spi_out, old.children[0].spi_out, "Child SAs are new");
    let sa = ue.sa.as_ref().expect("established");
    assert_eq!(sa.suite, old.sa.as_ref().expect("established").suite);
    assert_eq!(world.counters().exchanges.resumed, 1);
    // It is a session like any other.
    let request = ue.rekey_ike();
    let response = world.exchange(2, &request);
    assert_eq!(ue.on_rekey_ike(&response).error(), None);
}

#[test]
fn r9329_7_3_1_a_ticket_of_tcp_is_good_over_udp_and_the_reverse() {
    let mut world = World::new(resuming());
    let (_, kept) = attach(&mut world, 1, UeConfig::new(1));
    let udp = ConnId::datagrams(WorkerId(0));
    let udp_path = Path { transport: Transport::Udp, ..path(1) };
    let exchange = |world: &mut World, message: &[u8]| {
        let mut message = message.to_vec();
        let verdict = world.responder.handle_message(world.now, udp, &udp_path, &mut message);
        assert_eq!(verdict, Verdict::Good);
        world.collect();
        let at = world.sent.iter().position(|sent| sent.conn == udp).expect("an answer");
        world.sent.remove(at).message.to_vec()
    };
    let mut ue = Ue::new(UeConfig { seed: 100, ..UeConfig::new(1) });
    let response = exchange(&mut world, &ue.resume(&kept));
    ue.on_resume(&kept, &response).expect("taken");
    let request = ue.auth_with(|builder| {
        builder.notify(NotifyType::TICKET_REQUEST, &[]);
    });
    let response = exchange(&mut world, &request);
    let decoded = ue.on_auth(&response);
    assert_eq!((decoded.error(), ue.children.len()), (None, 1));
    let kept = ue.resumable(&ticket(&decoded).expect("another ticket").1);
    let mut back = resumed(&mut world, 3, 101, UeConfig::new(1), &kept);
    let request = back.auth();
    let response = world.exchange(3, &request);
    back.on_auth(&response);
    assert_eq!((back.children.len(), world.session_count()), (1, 1));
}

#[test]
fn r5723_4_3_2_a_ticket_that_is_not_taken_is_answered_with_a_nack() {
    let mut world = World::new(resuming());
    let (_, kept) = attach(&mut world, 1, UeConfig::new(1));
    let nacked = |world: &mut World, number: u32, from: &Resumable| {
        let mut ue = Ue::new(UeConfig::new(number.into()));
        let response = world.exchange(number, &ue.resume(from));
        assert_eq!(world.verdict, Verdict::Good, "the UE goes on with IKE_SA_INIT here");
        ue.on_resume(from, &response) == Err(NotifyType::TICKET_NACK)
    };
    let mut changed = kept.ticket.clone();
    changed[20] ^= 1;
    let tampered = Resumable { ticket: changed, ..kept.clone() };
    assert!(nacked(&mut world, 2, &tampered));
    assert!(nacked(&mut world, 3, &Resumable { ticket: Vec::new(), ..kept.clone() }));
    world.advance(LIFETIME);
    assert!(nacked(&mut world, 4, &kept), "too old");
    let drops = world.counters().drops;
    assert_eq!((drops.ticket_invalid, drops.ticket_expired), (2, 1));
    assert_eq!(world.counters().gauges.half_open, 0);
    // Without the table none is taken.
    let mut off = World::new(config());
    assert!(nacked(&mut off, 1, &kept));
}

#[test]
fn r5723_6_2_a_ticket_is_good_once() {
    let mut world = World::new(resuming());
    let (_, kept) = attach(&mut world, 1, UeConfig::new(1));
    // Two half-open IKE SAs of one ticket: an eavesdropper may begin one, and cannot finish it.
    let mut first = resumed(&mut world, 2, 100, UeConfig::new(1), &kept);
    let mut second = resumed(&mut world, 3, 101, UeConfig::new(1), &kept);
    let request = first.auth();
    let response = world.exchange(2, &request);
    assert_eq!(first.on_auth(&response).error(), None);
    let request = second.auth();
    let response = world.exchange(3, &request);
    assert_eq!(second.on_auth(&response).error(), Some(NotifyType::AUTHENTICATION_FAILED));
    let mut third = Ue::new(UeConfig { seed: 102, ..UeConfig::new(1) });
    let response = world.exchange(4, &third.resume(&kept));
    assert_eq!(third.on_resume(&kept, &response), Err(NotifyType::TICKET_NACK));
    assert_eq!((world.counters().drops.ticket_reused, world.session_count()), (2, 1));
}

#[test]
fn r5723_5_2_another_identity_or_another_secret_is_refused() {
    let mut world = World::new(resuming());
    let (_, kept) = attach(&mut world, 1, UeConfig::new(1));
    let mut other = resumed(&mut world, 2, 100, UeConfig::new(2), &kept);
    let request = other.auth();
    let response = world.exchange(2, &request);
    assert_eq!(other.on_auth(&response).error(), Some(NotifyType::AUTHENTICATION_FAILED));
    assert_eq!(world.counters().drops.auth_identity_mismatch, 1);
    // Who has the ticket but not its SK_d gets keys that open nothing.
    let mut thief = Ue::new(UeConfig { seed: 101, ..UeConfig::new(1) });
    let stolen = Resumable { sk_d: Secret::new(vec![0; 32]), ..kept.clone() };
    let response = world.exchange(3, &thief.resume(&stolen));
    thief.on_resume(&stolen, &response).expect("so far it looks good");
    let request = thief.auth();
    assert!(world.deliver(3, &request).is_empty());
    assert_eq!(world.counters().drops.bad_icv_half_open, 1);
    assert_eq!(world.session_count(), 1, "the old session has not noticed");
}

#[test]
fn r5723_4_1_a_ticket_may_be_asked_for_later_and_is_refused_where_none_are_given() {
    let mut world = World::new(resuming());
    let mut ue = world.attach(1, UeConfig::new(1));
    let request = ue.informational(|builder| {
        builder.notify(NotifyType::TICKET_REQUEST, &[]);
    });
    let response = world.exchange(1, &request);
    let (_, octets) = ticket(&ue.open(&response).expect("authentic")).expect("a ticket");
    let kept = ue.resumable(&octets);
    let mut again = resumed(&mut world, 2, 100, UeConfig::new(1), &kept);
    let request = again.auth();
    let response = world.exchange(2, &request);
    assert_eq!(again.on_auth(&response).error(), None);

    let mut off = World::new(config());
    let mut ue = off.attach(1, UeConfig::new(1));
    let request = ue.informational(|builder| {
        builder.notify(NotifyType::TICKET_REQUEST, &[]);
    });
    let response = off.exchange(1, &request);
    assert!(ue.open(&response).expect("authentic").notify(NotifyType::TICKET_NACK).is_some());
}

#[test]
fn r5723_6_2_resumption_does_not_put_off_authentication_for_ever() {
    let mut config = resuming();
    config.resumption = resumption().map(|r| Resumption { reauth: Duration::from_secs(3_000), ..r });
    let mut world = World::new(config);
    let mut ue = Ue::new(UeConfig::new(1));
    world.init(1, &mut ue);
    let request = ue.auth_with(|builder| {
        builder.notify(NotifyType::TICKET_REQUEST, &[]);
    });
    let response = world.exchange(1, &request);
    let (lifetime, octets) = ticket(&ue.on_auth(&response)).expect("a ticket");
    assert_eq!(lifetime, 3_000);
    let kept = ue.resumable(&octets);
    world.advance(Duration::from_secs(2_000));
    let mut again = resumed(&mut world, 2, 100, UeConfig::new(1), &kept);
    let request = again.auth_with(|builder| {
        builder.notify(NotifyType::TICKET_REQUEST, &[]);
    });
    let response = world.exchange(2, &request);
    let (lifetime, _) = ticket(&again.on_auth(&response)).expect("a ticket");
    assert!(lifetime <= 1_000, "counted from full authentication: {lifetime}");
}

#[test]
fn r5723_4_3_3_under_load_a_cookie_over_udp_comes_first_and_no_puzzle_over_tcp() {
    let mut world = World::new(resuming());
    let (_, kept) = attach(&mut world, 1, UeConfig::new(1));
    let mut loaded = resuming();
    loaded.limits = Limits { puzzles_from: 0, cookies_from: 0, ..Limits::default() };
    world.responder.set_config(world.now, Arc::new(loaded));
    let mut again = Ue::new(UeConfig { seed: 100, ..UeConfig::new(1) });
    let request = again.resume(&kept);
    let mut message = request.clone();
    let udp = ConnId::datagrams(WorkerId(0));
    let udp_path = Path { transport: Transport::Udp, ..path(1) };
    let _ = world.responder.handle_message(world.now, udp, &udp_path, &mut message);
    world.collect();
    let answer = world.sent.pop().expect("an answer").message;
    assert!(Decoded::clear(&answer).notify(NotifyType::COOKIE).is_some());
    let response = world.exchange(3, &request);
    again.on_resume(&kept, &response).expect("over TCP the ticket is enough");
}

#[test]
fn r5723_a_session_with_certificates_comes_back_without_them() {
    let mut config = certificate_config(false, false);
    config.resumption = resumption();
    let mut world = World::new(config);
    let (_, kept) = attach(&mut world, 1, certificate_ue(1, false));
    let mut ue = resumed(&mut world, 2, 100, certificate_ue(1, false), &kept);
    let request = ue.auth();
    let response = world.exchange(2, &request);
    let decoded = ue.on_auth(&response);
    assert_eq!((decoded.error(), ue.children.len()), (None, 1));
    assert!(decoded.body(PayloadType::CERT).is_none());
}

#[test]
fn r5723_6_2_gateways_with_the_same_key_take_each_others_tickets() {
    let shared = || {
        let mut config = resuming();
        config.resumption =
            resumption().map(|r| Resumption { key: Psk::from_text("0123456789abcdef0123456789abcdef"), ..r });
        config
    };
    let (mut one, mut other) = (World::seeded(shared(), 1), World::seeded(shared(), 2));
    let (_, kept) = attach(&mut one, 1, UeConfig::new(1));
    let mut ue = resumed(&mut other, 1, 100, UeConfig::new(1), &kept);
    let request = ue.auth();
    let response = other.exchange(1, &request);
    assert_eq!((ue.on_auth(&response).error(), other.session_count()), (None, 1));
    assert_eq!(one.session_count(), 1, "its session ends by liveness checks");
}
