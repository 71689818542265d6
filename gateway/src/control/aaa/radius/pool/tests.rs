//! A pool against scripted servers, in virtual time.

use std::collections::BTreeMap;

use codec::OsRandom;

use super::super::packet::kind;
use super::*;

/// What a server does with a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Answers,
    Silent,
    /// Answers with the wrong secret.
    Forges,
    /// Answers without Message-Authenticator.
    Unsigned,
    /// Answers everything twice.
    Twice,
}

struct World {
    pool: Pool<u32>,
    now: Instant,
    start: Instant,
    manners: Vec<Manner>,
    counters: Vec<Arc<ServerCounters>>,
    /// Time, server and octets of what was sent.
    sent: Vec<(Duration, usize, Arc<[u8]>)>,
    outcomes: BTreeMap<u32, Option<usize>>,
}

const SECRET: &[u8] = b"radsecret";

fn settings() -> Settings {
    Settings {
        code: code::ACCESS_REQUEST,
        stream: false,
        secret: Secret::new(SECRET),
        timeout: Duration::from_secs(1),
        retries: 2,
        dead_after: Duration::from_secs(4),
        revive_after: Duration::from_secs(10),
        status_server: true,
        links_max: 4,
        probe: Attributes::new(),
    }
}

impl World {
    fn new(settings: Settings, manners: &[Manner]) -> Self {
        let counters: Vec<Arc<ServerCounters>> = manners.iter().map(|_| Arc::default()).collect();
        let now = Instant::now();
        let pool = Pool::new(now, settings, counters.clone(), Box::new(OsRandom));
        let (manners, sent, outcomes) = (manners.to_vec(), Vec::new(), BTreeMap::new());
        Self { pool, now, start: now, manners, counters, sent, outcomes }
    }

    fn ask(&mut self, token: u32, bound: Option<usize>) -> u64 {
        let mut attributes = Attributes::new();
        attributes.push_number(kind::STATE, token).expect("room");
        let key = self.pool.ask(self.now, attributes, bound, token);
        self.settle();
        key
    }

    /// Lets servers answer until nobody has anything to say.
    fn settle(&mut self) {
        while let Some(action) = self.pool.poll_action() {
            let Action::Send { server, link, octets } = action else { continue };
            self.sent.push((self.now - self.start, server, octets.clone()));
            let packet = Packet::parse(&octets).expect("a packet");
            let secret = Secret::new(if self.manners[server] == Manner::Forges { b"other" } else { SECRET });
            let accounting = self.pool.settings.code == code::ACCOUNTING_REQUEST;
            let code = if accounting { code::ACCOUNTING_RESPONSE } else { code::ACCESS_ACCEPT };
            let answer =
                sign::answer(code, packet.id(), &packet.authenticator(), &Attributes::new(), &secret);
            let times = match self.manners[server] {
                Manner::Silent => 0,
                Manner::Twice => 2,
                _ => 1,
            };
            for _ in 0..times {
                match self.manners[server] {
                    Manner::Unsigned => {
                        let plain = unsigned(&octets, code);
                        self.pool.handle_packet(self.now, server, link, &plain);
                    }
                    _ => self.pool.handle_packet(self.now, server, link, &answer),
                }
            }
        }
        while let Some((token, answer)) = self.pool.poll_outcome() {
            let before = self.outcomes.insert(token, answer.map(|answer| answer.server));
            assert_eq!(before, None, "{token} ended twice");
        }
    }

    /// Lets time pass, event by event.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.pool.deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.pool.handle_timeout(self.now);
            self.settle();
        }
        self.now = end;
    }

    fn view(&self, server: usize) -> crate::control::aaa::ServerView {
        self.counters[server].view(&"aaa".into(), "server")
    }
}

/// An answer with a right authenticator and no Message-Authenticator, as a server of long ago sends.
fn unsigned(request: &[u8], code: u8) -> Vec<u8> {
    use md5::{Digest, Md5};
    let mut octets = vec![code, request[1], 0, 20];
    octets.extend(&request[4..20]);
    let digest = Md5::new().chain_update(&octets).chain_update(SECRET).finalize();
    octets.truncate(4);
    octets.extend(digest);
    octets
}

const S: Duration = Duration::from_secs(1);

#[test]
fn r5080_2_2_1_a_silent_server_is_asked_again_with_the_same_octets_and_given_up() {
    let mut world = World::new(settings(), &[Manner::Silent]);
    world.ask(1, None);
    world.run(30 * S);
    let asked: Vec<_> =
        world.sent.iter().filter(|(_, _, octets)| octets[0] == code::ACCESS_REQUEST).collect();
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().all(|(_, _, octets)| *octets == asked[0].2), "RFC 5080 §2.2.2");
    let at: Vec<f64> = asked.iter().map(|(at, _, _)| at.as_secs_f64()).collect();
    assert!(at[0] == 0.0 && (0.9..=1.1).contains(&at[1]) && (2.5..=3.5).contains(&at[2]), "{at:?}");
    assert_eq!(world.outcomes[&1], None);
    let view = world.view(0);
    assert_eq!((view.retransmissions, view.timeouts, view.up), (2, 1, false));
}

#[test]
fn a_silent_server_is_left_for_the_next_and_comes_back_by_a_probe() {
    let mut world = World::new(settings(), &[Manner::Silent, Manner::Answers]);
    world.ask(1, None);
    world.run(8 * S);
    assert_eq!(world.outcomes[&1], Some(1));
    assert!(!world.view(0).up && world.view(1).up);
    world.ask(2, None);
    assert_eq!(world.outcomes[&2], Some(1), "at once");
    world.run(60 * S);
    let probes = world.sent.iter().filter(|(_, to, octets)| *to == 0 && octets[0] == code::STATUS_SERVER);
    assert!((2..=4).contains(&probes.count()), "with growing patience");
    world.manners[0] = Manner::Answers;
    world.run(61 * S);
    assert!(world.view(0).up);
    world.ask(3, None);
    assert_eq!(world.outcomes[&3], Some(0));
}

#[test]
fn what_waits_for_a_server_that_falls_silent_moves_on_at_once() {
    let mut world = World::new(settings(), &[Manner::Silent, Manner::Answers]);
    for token in 0..500 {
        world.ask(token, None);
        world.now += Duration::from_millis(10);
        world.run(Duration::ZERO);
    }
    world.run(Duration::from_millis(500));
    assert_eq!(world.outcomes.len(), 500);
    assert!(world.outcomes.values().all(|server| *server == Some(1)));
}

#[test]
fn r2865_5_24_who_has_a_state_waits_for_the_server_that_gave_it() {
    let mut world = World::new(settings(), &[Manner::Silent, Manner::Answers]);
    world.ask(1, Some(0));
    world.run(10 * S);
    assert_eq!(world.outcomes[&1], None);
    assert!(world.sent.iter().all(|(_, server, _)| *server == 0));
}

#[test]
fn with_all_servers_down_requests_are_the_probes() {
    let mut world = World::new(Settings { status_server: false, ..settings() }, &[Manner::Silent; 2]);
    world.ask(1, None);
    world.run(20 * S);
    assert_eq!(world.outcomes[&1], None);
    assert!(world.sent.iter().any(|(_, server, _)| *server == 1));
    world.manners = vec![Manner::Answers; 2];
    world.ask(2, None);
    assert_eq!(world.outcomes[&2], Some(0));
    assert!(world.view(0).up);
}

#[test]
fn without_probes_a_silent_server_gets_another_chance() {
    let mut world =
        World::new(Settings { status_server: false, ..settings() }, &[Manner::Silent, Manner::Answers]);
    world.ask(1, None);
    world.run(8 * S);
    assert!(!world.view(0).up);
    world.run(11 * S);
    assert!(world.view(0).up);
}

#[test]
fn r3579_3_2_forged_and_unsigned_answers_are_dropped_and_counted() {
    for manner in [Manner::Forges, Manner::Unsigned] {
        let mut world = World::new(settings(), &[manner, Manner::Answers]);
        world.ask(1, None);
        assert!(world.outcomes.is_empty());
        assert_eq!(world.view(0).bad_answers, 1);
        world.run(8 * S);
        assert_eq!(world.outcomes[&1], Some(1));
        assert!(world.view(0).bad_answers >= 3);
    }
}

#[test]
fn a_repeated_answer_and_noise_are_dropped_and_counted() {
    let mut world = World::new(settings(), &[Manner::Twice]);
    world.ask(1, None);
    assert_eq!((world.outcomes[&1], world.view(0).bad_answers), (Some(0), 1));
    for (link, octets) in [(0, &[2, 0, 0, 20][..]), (7, &[0; 20]), (0, &[])] {
        world.pool.handle_packet(world.now, 0, link, octets);
    }
    world.pool.handle_packet(world.now, 9, 0, &[0; 20]);
    assert_eq!((world.view(0).bad_answers, world.view(0).answers), (4, 1));
}

#[test]
fn thousands_wait_at_once_and_what_finds_no_identifier_waits_for_one() {
    let mut world = World::new(settings(), &[Manner::Silent]);
    for token in 0..1100 {
        world.ask(token, None);
    }
    assert_eq!(world.sent.len(), 4 * 256);
    let ids: std::collections::BTreeSet<_> =
        world.sent.iter().map(|(_, _, octets)| octets[4..20].to_vec()).collect();
    assert_eq!(ids.len(), 4 * 256, "each its own authenticator");
    world.manners[0] = Manner::Answers;
    world.run(2 * S);
    assert_eq!(world.outcomes.len(), 1100);
    assert!(world.outcomes.values().all(|server| *server == Some(0)));
    assert_eq!(world.pool.len(), 0);
}

#[test]
fn an_abandoned_request_is_not_repeated_and_leaves_nothing() {
    let mut world = World::new(settings(), &[Manner::Silent]);
    let key = world.ask(1, None);
    world.pool.cancel(key);
    world.run(9 * S);
    assert_eq!((world.sent.len(), world.pool.len(), world.outcomes.len()), (1, 0, 0));
    assert!(world.pool.deadline().is_none());
}

#[test]
fn r2866_3_accounting_is_signed_as_a_whole() {
    let mut world = World::new(Settings { code: code::ACCOUNTING_REQUEST, ..settings() }, &[Manner::Answers]);
    world.ask(1, None);
    assert_eq!(world.outcomes[&1], Some(0));
    let packet = Packet::parse(&world.sent[0].2).expect("a packet");
    assert_eq!(sign::verify_signed_request(packet, &Secret::new(SECRET)), Ok(()));
}

mod streams {
    use super::*;

    fn world(manners: &[Manner]) -> World {
        World::new(Settings { stream: true, secret: Secret::new(SECRET), ..settings() }, manners)
    }

    #[test]
    fn requests_wait_for_the_connection_and_are_sent_once() {
        let mut world = world(&[Manner::Silent]);
        world.ask(1, None);
        assert!(world.sent.is_empty());
        world.pool.handle_link(world.now, 0, 0, true);
        world.settle();
        assert_eq!(world.sent.len(), 1);
        world.run(Duration::from_millis(6900));
        assert_eq!(world.sent.len(), 1, "RFC 6613 §2.6.1");
        world.run(S);
        assert_eq!(world.outcomes[&1], None);
    }

    #[test]
    fn a_broken_connection_is_made_anew_and_its_requests_asked_again() {
        let mut world = world(&[Manner::Silent]);
        world.pool.handle_link(world.now, 0, 0, true);
        world.ask(1, Some(0));
        world.pool.handle_link(world.now, 0, 0, false);
        world.settle();
        assert!(!world.view(0).up);
        world.run(Duration::from_millis(1500));
        world.manners[0] = Manner::Answers;
        world.pool.handle_link(world.now, 0, 0, true);
        world.settle();
        assert_eq!(world.outcomes[&1], Some(0));
        assert!(world.view(0).up);
    }

    #[test]
    fn without_a_connection_the_next_server_is_asked() {
        let mut world = world(&[Manner::Answers; 2]);
        world.pool.handle_link(world.now, 1, 0, true);
        world.ask(1, None);
        assert!(world.outcomes.is_empty());
        world.pool.handle_link(world.now, 0, 0, false);
        world.settle();
        assert_eq!(world.outcomes[&1], Some(1));
    }

    #[test]
    fn a_quiet_connection_is_asked_for_a_sign_of_life_and_closed_without() {
        let mut world = world(&[Manner::Answers]);
        world.pool.handle_link(world.now, 0, 0, true);
        world.run(130 * S);
        assert_eq!(world.sent.len(), 2);
        assert!(world.sent.iter().all(|(_, _, octets)| octets[0] == code::STATUS_SERVER));
        assert!(world.view(0).up);
        world.manners[0] = Manner::Silent;
        world.run(62 * S);
        assert!(!world.view(0).up);
    }
}
