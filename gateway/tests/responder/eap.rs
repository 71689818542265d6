//! EAP inside IKE_AUTH: RFC 7296 §2.16, RFC 5998, and what 3GPP TS 24.302 puts beside it. The back end is played by the
//! tests; the real ones have tests of their own.

use std::sync::Arc;
use std::time::Duration;

use codec::ike::{ExchangeType, IdType, NotifyType, PayloadType};
use gateway::control::responder::{
    AaaAnswer, AaaOrder, Accepted, Attached, AttemptId, AuthKind, EapIdentity, EapMethod, EapPolicy, EapStep,
    Event, Profile, RejectCause, ResponderConfig, Resumption,
};
use zeroize::Zeroizing;

use crate::ue::{Decoded, Ue, UeAuth, UeConfig};
use crate::world::{Place, World, certificate_config, profile};

/// EAP packets that the tests pass around; what is in them is no business of the responder.
pub const REQUEST: [u8; 6] = [1, 7, 0, 6, 23, 1];
pub const RESPONSE: [u8; 6] = [2, 7, 0, 6, 23, 1];
pub const SUCCESS: [u8; 4] = [3, 7, 0, 4];
pub const FAILURE: [u8; 4] = [4, 7, 0, 4];
pub const MSK: [u8; 64] = [0x5a; 64];

pub fn policy() -> EapPolicy {
    EapPolicy {
        method: EapMethod::Aka,
        backend: "main".into(),
        alone: true,
        identity: EapIdentity::Auto,
        tracked: false,
        imei: false,
    }
}

pub fn config_with(change: impl FnOnce(&mut Profile)) -> ResponderConfig {
    let mut eap = profile("phones", AuthKind::Eap(policy()));
    change(&mut eap);
    ResponderConfig { profiles: vec![Arc::new(eap)], ..certificate_config(false, false) }
}

pub fn world() -> World {
    World::new(config_with(|_| {}))
}

pub fn phone(seed: u64) -> UeConfig {
    UeConfig {
        id: (IdType::RFC822_ADDR, b"0001010000000001@nai.epc.mnc001.mcc001.3gppnetwork.org".to_vec()),
        asked: Some((IdType::FQDN, b"ims".to_vec())),
        auth: UeAuth::Eap { alone: false },
        ..UeConfig::new(seed)
    }
}

pub fn accepted() -> Accepted {
    Accepted {
        packet: SUCCESS.to_vec(),
        msk: Zeroizing::new(MSK.to_vec()),
        identity: None,
        inner: Vec::new(),
        pool: None,
        p_cscf: Vec::new(),
        session_timeout: None,
    }
}

pub fn go_on() -> AaaAnswer {
    AaaAnswer::Continue { packet: REQUEST.to_vec() }
}

impl World {
    /// What the back ends were asked since the last call.
    pub fn orders(&mut self) -> Vec<AaaOrder> {
        let (orders, rest): (Vec<Event>, Vec<Event>) =
            std::mem::take(&mut self.events).into_iter().partition(|event| matches!(event, Event::Aaa(_)));
        self.events = rest;
        let order = |event| match event {
            Event::Aaa(order) => Some(*order),
            _ => None,
        };
        orders.into_iter().filter_map(order).collect()
    }

    /// The only step that a back end was asked for since the last call.
    pub fn step(&mut self) -> EapStep {
        let mut orders = self.orders();
        assert_eq!(orders.len(), 1, "{orders:?}");
        match orders.remove(0) {
            AaaOrder::Step(step) => step,
            other => panic!("{other:?}"),
        }
    }

    /// The session that a back end was told of.
    pub fn told(&mut self) -> Attached {
        let mut orders = self.orders();
        match orders.pop() {
            Some(AaaOrder::Attached(attached)) if orders.is_empty() => *attached,
            other => panic!("{other:?}"),
        }
    }

    pub fn answer(&mut self, attempt: AttemptId, answer: AaaAnswer) {
        self.responder.handle_aaa(self.now, attempt, answer);
        self.collect();
    }

    /// IKE_SA_INIT and the first IKE_AUTH, up to the question to the back end.
    pub fn begin(&mut self, number: u32, config: UeConfig) -> (Ue, EapStep) {
        self.orders();
        let mut ue = Ue::new(config);
        self.init(number, &mut ue);
        let request = ue.auth();
        assert_eq!(self.deliver(number, &request), [[0u8; 0]; 0], "nothing before the back end has spoken");
        let step = self.step();
        (ue, step)
    }

    /// One round, up to the question to the back end.
    pub fn round(&mut self, number: u32, ue: &mut Ue, attempt: AttemptId, first: bool) -> EapStep {
        self.round_with(number, ue, attempt, first, &RESPONSE)
    }

    /// The same with another response of the UE.
    pub fn round_with(
        &mut self,
        number: u32,
        ue: &mut Ue,
        attempt: AttemptId,
        first: bool,
        own: &[u8],
    ) -> EapStep {
        self.answer(attempt, go_on());
        let response = self.take_sent(number).pop().expect("an answer");
        let packet = if first { ue.on_eap_begun(&response) } else { ue.on_eap(&response) };
        assert_eq!(packet.as_deref(), Some(&REQUEST[..]));
        let request = ue.eap(own);
        assert_eq!(self.deliver(number, &request), [[0u8; 0]; 0]);
        self.step()
    }

    /// The back end lets the UE in, which gets EAP-Success.
    pub fn let_in(&mut self, number: u32, ue: &mut Ue, attempt: AttemptId, accepted: Accepted) {
        self.answer(attempt, AaaAnswer::Accept(Box::new(accepted)));
        let response = self.take_sent(number).pop().expect("an answer");
        assert_eq!(ue.on_eap(&response).as_deref(), Some(&SUCCESS[..]));
    }

    /// AUTH with the key, and what comes of it.
    pub fn prove(&mut self, number: u32, ue: &mut Ue) -> Decoded {
        let request = ue.eap_auth(&MSK);
        let response = self.exchange(number, &request);
        ue.on_eap_auth(&MSK, &response)
    }

    /// Everything, with one round.
    pub fn attach_eap(&mut self, number: u32, config: UeConfig, accepted: Accepted) -> (Ue, Decoded) {
        let (mut ue, step) = self.begin(number, config);
        self.round(number, &mut ue, step.attempt, true);
        self.let_in(number, &mut ue, step.attempt, accepted);
        let decoded = self.prove(number, &mut ue);
        (ue, decoded)
    }

    /// The error that answers a UE whose back end says `cause` after `rounds` rounds.
    pub fn refusal(&mut self, config: UeConfig, rounds: usize, cause: RejectCause) -> Decoded {
        let (mut ue, mut step) = self.begin(1, config);
        for round in 0..rounds {
            step = self.round(1, &mut ue, step.attempt, round == 0);
        }
        self.answer(step.attempt, AaaAnswer::Reject { packet: Some(FAILURE.to_vec()), cause, why: None });
        let response = self.take_sent(1).pop().expect("an answer");
        ue.open(&response).expect("authentic")
    }
}

#[test]
fn r7296_2_16_several_rounds_end_in_a_session_with_keys_of_eap() {
    let mut world = world();
    let (mut ue, step) = world.begin(1, phone(1));
    assert_eq!(&step.packet[..5], [2, 0, 0, 59, 1]);
    assert_eq!(&step.packet[5..], phone(1).id.1);
    assert_eq!((&*step.backend, step.subject.apn.as_deref()), ("main", Some("ims")));
    for round in 0..3 {
        let next = world.round(1, &mut ue, step.attempt, round == 0);
        assert_eq!((next.attempt, &*next.packet), (step.attempt, &RESPONSE[..]));
    }
    world.let_in(1, &mut ue, step.attempt, accepted());
    assert_eq!(world.session_count(), 0, "not before AUTH");
    let decoded = world.prove(1, &mut ue);
    assert_eq!(decoded.error(), None);
    assert_eq!((ue.children.len(), ue.addresses.len()), (1, 1));
    let told = world.told();
    assert_eq!((told.attempt, told.session, told.inner.len()), (step.attempt, world.session(), 1));
    assert!(told.subject.remote.ip().is_ipv4());
}

#[test]
fn r7296_2_16_the_last_request_repeated_is_answered_with_the_same_octets() {
    let mut world = world();
    let (mut ue, step) = world.begin(1, phone(1));
    world.round(1, &mut ue, step.attempt, true);
    world.let_in(1, &mut ue, step.attempt, accepted());
    let request = ue.eap_auth(&MSK);
    let first = world.exchange(1, &request);
    assert_eq!(world.exchange(2, &request), first);
    assert_eq!(world.session_count(), 1);
}

#[test]
fn r7296_2_1_while_the_back_end_is_asked_a_repeated_request_asks_it_no_second_time() {
    let mut world = world();
    let mut ue = Ue::new(phone(1));
    world.init(1, &mut ue);
    let request = ue.auth();
    world.deliver(1, &request);
    let step = world.step();
    // The same on another connection: that is where the answer goes (RFC 9329 §6.2).
    for number in [1, 1, 2] {
        assert_eq!(world.deliver(number, &request), [[0u8; 0]; 0]);
    }
    assert!(world.orders().is_empty());
    world.answer(step.attempt, go_on());
    assert_eq!(world.take_sent(1).len(), 0);
    let response = world.take_sent(2).pop().expect("an answer");
    assert!(ue.on_eap_begun(&response).is_some());
    assert_eq!(world.exchange(3, &request), response, "and once more from memory");
}

#[test]
fn r7296_2_16_auth_not_made_with_the_key_is_refused() {
    let mut world = world();
    let (mut ue, step) = world.begin(1, phone(1));
    world.round(1, &mut ue, step.attempt, true);
    world.let_in(1, &mut ue, step.attempt, accepted());
    let request = ue.eap_auth(&[0; 64]);
    let response = world.exchange(1, &request);
    assert_eq!(ue.open(&response).expect("authentic").error(), Some(NotifyType::AUTHENTICATION_FAILED));
    assert_eq!(world.counters().drops.auth_msk_mismatch, 1);
    assert_eq!((world.session_count(), world.counters().gauges.half_open), (0, 0));
    assert!(matches!(world.orders()[..], [AaaOrder::Abandon(attempt)] if attempt == step.attempt));
}

#[test]
fn r7296_2_16_auth_before_success_and_eap_after_it_end_the_attempt() {
    for early in [true, false] {
        let mut world = world();
        let (mut ue, step) = world.begin(1, phone(1));
        let request = if early {
            world.answer(step.attempt, go_on());
            let response = world.take_sent(1).pop().expect("an answer");
            ue.on_eap_begun(&response);
            ue.eap_auth(&MSK)
        } else {
            world.round(1, &mut ue, step.attempt, true);
            world.answer(step.attempt, AaaAnswer::Accept(Box::new(accepted())));
            world.take_sent(1);
            ue.eap(&RESPONSE)
        };
        let response = world.exchange(1, &request);
        assert_eq!(ue.open(&response).expect("authentic").error(), Some(NotifyType::INVALID_SYNTAX));
        assert_eq!((world.session_count(), world.counters().gauges.half_open), (0, 0));
        assert!(matches!(world.orders()[..], [AaaOrder::Abandon(_)]));
    }
}

#[test]
fn r7296_2_16_a_back_end_that_gives_no_key_or_nonsense_lets_nobody_in() {
    let no_key = Accepted { msk: Zeroizing::new(Vec::new()), ..accepted() };
    let no_success = Accepted { packet: REQUEST.to_vec(), ..accepted() };
    let answers = [
        AaaAnswer::Accept(Box::new(no_key)),
        AaaAnswer::Accept(Box::new(no_success)),
        AaaAnswer::Continue { packet: RESPONSE.to_vec() },
        AaaAnswer::Continue { packet: vec![1, 2, 0, 200, 1] },
        AaaAnswer::Continue { packet: Vec::new() },
    ];
    for answer in answers {
        let mut world = world();
        let (mut ue, step) = world.begin(1, phone(1));
        world.round(1, &mut ue, step.attempt, true);
        world.answer(step.attempt, answer);
        let response = world.take_sent(1).pop().expect("an answer");
        assert_eq!(ue.open(&response).expect("authentic").error(), Some(NotifyType::NETWORK_FAILURE));
        assert_eq!(world.counters().gauges.half_open, 0);
    }
    // Accepted at once: the UE has not seen who we are.
    let mut world = world();
    let (ue, step) = world.begin(1, phone(1));
    world.answer(step.attempt, AaaAnswer::Accept(Box::new(accepted())));
    let response = world.take_sent(1).pop().expect("an answer");
    assert_eq!(ue.open(&response).expect("authentic").error(), Some(NotifyType::NETWORK_FAILURE));
}

#[test]
fn r7296_2_16_rounds_are_bounded() {
    let mut world = world();
    let (mut ue, step) = world.begin(1, phone(1));
    let mut rounds = 0;
    loop {
        world.answer(step.attempt, go_on());
        let response = world.take_sent(1).pop().expect("an answer");
        let packet = if rounds == 0 { ue.on_eap_begun(&response) } else { ue.on_eap(&response) };
        if packet.is_none() {
            break;
        }
        rounds += 1;
        let request = ue.eap(&RESPONSE);
        world.deliver(1, &request);
        world.step();
    }
    assert_eq!(rounds, 48);
    assert_eq!(world.counters().gauges.half_open, 0);
}

#[test]
fn r7296_2_16_the_kind_of_authentication_selects_the_profile() {
    // A pre-shared key where only EAP is offered, and EAP where only a key is.
    let mut world = world();
    let error = world.attach_error(1, UeConfig::new(1));
    assert_eq!(error, Some(NotifyType::AUTHENTICATION_FAILED));
    assert_eq!(world.counters().drops.auth_profile_kind, 1);
    let mut world = World::new(crate::world::config());
    let mut ue = Ue::new(phone(1));
    world.init(1, &mut ue);
    let request = ue.auth();
    let response = world.exchange(1, &request);
    assert_eq!(ue.open(&response).expect("authentic").error(), Some(NotifyType::AUTHENTICATION_FAILED));
    assert_eq!(world.counters().drops.auth_profile_kind, 1);
}

#[test]
fn r7296_2_16_a_ue_whose_idi_is_no_name_is_asked_for_one() {
    for (identity, id, asked) in [
        (EapIdentity::Auto, (IdType::IPV4_ADDR, vec![192, 0, 2, 7]), true),
        (EapIdentity::Auto, (IdType::FQDN, b"phone".to_vec()), false),
        (EapIdentity::Ask, (IdType::FQDN, b"phone".to_vec()), true),
        (EapIdentity::Idi, (IdType::IPV4_ADDR, vec![192, 0, 2, 7]), false),
    ] {
        let change = |profile: &mut Profile| profile.auth = AuthKind::Eap(EapPolicy { identity, ..policy() });
        let mut world = World::new(config_with(change));
        let mut ue = Ue::new(UeConfig { id, ..phone(1) });
        world.init(1, &mut ue);
        let request = ue.auth();
        let sent = world.deliver(1, &request);
        assert_eq!(sent.len(), usize::from(asked), "{identity:?}");
        if asked {
            assert!(world.orders().is_empty());
            assert_eq!(ue.on_eap_begun(&sent[0]).as_deref(), Some(&[1, 0, 0, 5, 1][..]));
            let request = ue.eap(&[2, 0, 0, 10, 1, b'a', b'l', b'i', b'c', b'e']);
            world.deliver(1, &request);
            let step = world.step();
            assert_eq!((&*step.subject.idi, &step.packet[5..]), ("alice", &b"alice"[..]));
        } else {
            assert_eq!(world.step().packet[4], 1);
        }
    }
}

#[test]
fn r5998_4_a_ue_may_do_without_our_certificate_where_the_method_is_safe() {
    for (offered, allowed) in [(true, true), (true, false), (false, true)] {
        let change =
            |profile: &mut Profile| profile.auth = AuthKind::Eap(EapPolicy { alone: allowed, ..policy() });
        let mut world = World::new(config_with(change));
        let (ue, step) = world.begin(1, UeConfig { auth: UeAuth::Eap { alone: offered }, ..phone(1) });
        world.answer(step.attempt, go_on());
        let response = world.take_sent(1).pop().expect("an answer");
        let decoded = ue.open(&response).expect("authentic");
        let alone = offered && allowed;
        assert_eq!(decoded.body(PayloadType::AUTH).is_none(), alone);
        assert_eq!(decoded.body(PayloadType::CERT).is_none(), alone);
        assert!(decoded.body(PayloadType::ID_R).is_some());
    }
    let mut world = world();
    let (ue, decoded) =
        world.attach_eap(1, UeConfig { auth: UeAuth::Eap { alone: true }, ..phone(1) }, accepted());
    assert_eq!((decoded.error(), ue.children.len()), (None, 1));
    assert!(!EapMethod::MsChapV2.is_safe_alone() && !EapMethod::Any.is_safe_alone());
}

#[test]
fn r7296_2_16_attempts_end_with_time_and_the_back_end_hears_of_it() {
    let mut world = world();
    let (_, step) = world.begin(1, phone(1));
    world.advance(Duration::from_secs(59));
    assert!(world.orders().is_empty() && world.counters().gauges.half_open == 1);
    world.advance(Duration::from_secs(2));
    assert!(matches!(world.orders()[..], [AaaOrder::Abandon(attempt)] if attempt == step.attempt));
    assert_eq!(world.counters().gauges.half_open, 0);
    world.answer(step.attempt, go_on());
    assert!(world.take_sent(1).is_empty(), "too late");
    let failed: Vec<_> = world.responder.failed_attempts().map(|failed| failed.cause).collect();
    assert_eq!(failed, ["the UE went silent"]);
}

#[test]
fn r4187_4_1_a_session_goes_by_the_name_that_the_back_end_knows() {
    let permanent = "0001010000000009@nai.epc.mnc001.mcc001.3gppnetwork.org";
    let mut world = world();
    for (number, pseudonym) in [(1, "2aaaa@realm.test"), (2, "2bbbb@realm.test")] {
        let hidden = UeConfig {
            seed: number.into(),
            id: (IdType::RFC822_ADDR, pseudonym.as_bytes().to_vec()),
            ..phone(1)
        };
        let known = Accepted { identity: Some(permanent.into()), ..accepted() };
        world.attach_eap(number, hidden, known);
    }
    let names: Vec<String> =
        world.responder.sessions(world.now).map(|session| session.idi.to_string()).collect();
    assert_eq!(names, [permanent], "the second replaced the first");
}

#[test]
fn r2865_5_8_addresses_of_the_back_end_are_given_once() {
    let mut world = world();
    let fixed = |text: &str| Accepted { inner: vec![text.parse().expect("an address")], ..accepted() };
    let ue = |number: u64| UeConfig {
        seed: number,
        id: (IdType::RFC822_ADDR, format!("ue{number}@test").into_bytes()),
        ..phone(1)
    };
    // Inside the pool, and outside of it.
    for (number, text) in [(1, "10.64.3.3"), (2, "192.0.2.77")] {
        let (attached, _) = world.attach_eap(number, ue(number.into()), fixed(text));
        assert_eq!(attached.addresses[0].to_string(), text);
        let (_, decoded) = world.attach_eap(number + 10, ue(u64::from(number) + 10), fixed(text));
        assert_eq!(decoded.error(), Some(NotifyType::INTERNAL_ADDRESS_FAILURE), "{text} twice");
    }
    // It is free again when the session is gone.
    for id in world.responder.sessions(world.now).map(|session| session.id).collect::<Vec<_>>() {
        world.responder.terminate(world.now, id);
    }
    world.advance(Duration::from_secs(60));
    assert_eq!(world.session_count(), 0);
    for (number, text) in [(21, "10.64.3.3"), (22, "192.0.2.77")] {
        let (attached, _) = world.attach_eap(number, ue(number.into()), fixed(text));
        assert_eq!(attached.addresses[0].to_string(), text);
    }
}

/// A phone on connection 1 that asks for a ticket while it attaches, and what it is told.
fn attach_for_ticket(change: impl FnOnce(&mut Profile), accepted: Accepted) -> (World, Ue, Decoded) {
    let resumption =
        Resumption { lifetime: Duration::from_secs(3600), reauth: Duration::from_secs(86_400), key: None };
    let mut world = World::new(ResponderConfig { resumption: Some(resumption), ..config_with(change) });
    let mut ue = Ue::new(phone(1));
    world.init(1, &mut ue);
    let request = ue.auth_with(|builder| {
        builder.notify(NotifyType::TICKET_REQUEST, &[]);
    });
    world.deliver(1, &request);
    let step = world.step();
    world.round(1, &mut ue, step.attempt, true);
    world.let_in(1, &mut ue, step.attempt, accepted);
    let decoded = world.prove(1, &mut ue);
    (world, ue, decoded)
}

#[test]
fn r5723_a_ue_that_attached_by_eap_comes_back_with_a_ticket_and_no_eap() {
    let known = Accepted { identity: Some("permanent@test".into()), ..accepted() };
    let (mut world, ue, decoded) = attach_for_ticket(|_| {}, known);
    let ticket = decoded.notify(NotifyType::TICKET_LT_OPAQUE).expect("a ticket").data[4..].to_vec();
    let kept = ue.resumable(&ticket);
    let mut back = Ue::new(UeConfig { auth: UeAuth::Ticket, seed: 2, ..phone(1) });
    let request = back.resume(&kept);
    let response = world.exchange(2, &request);
    back.on_resume(&kept, &response).expect("taken");
    world.orders();
    let request = back.auth();
    let response = world.exchange(2, &request);
    assert_eq!(back.on_auth(&response).error(), None);
    assert!(!world.orders().iter().any(|order| matches!(order, AaaOrder::Step(_))));
    let names: Vec<String> =
        world.responder.sessions(world.now).map(|session| session.idi.to_string()).collect();
    assert_eq!(names, ["permanent@test"]);
}

#[test]
fn r5723_4_1_a_session_that_a_server_keeps_track_of_gets_no_ticket() {
    let tracked = |profile: &mut Profile| {
        profile.auth = AuthKind::Eap(EapPolicy { tracked: true, ..policy() });
    };
    let (_, _, decoded) = attach_for_ticket(tracked, accepted());
    assert!(decoded.notify(NotifyType::TICKET_NACK).is_some());
    assert!(decoded.notify(NotifyType::TICKET_LT_OPAQUE).is_none());
}

#[test]
fn r9242_3_3_2_intauth_is_that_of_the_first_ike_auth() {
    let mut world = world();
    let mut ue = Ue::new(UeConfig { intermediate: true, ..phone(1) });
    world.init(1, &mut ue);
    let request = ue.intermediate();
    let response = world.exchange(1, &request);
    ue.on_intermediate(&response);
    let request = ue.auth();
    world.deliver(1, &request);
    let step = world.step();
    for round in 0..2 {
        world.round(1, &mut ue, step.attempt, round == 0);
    }
    world.let_in(1, &mut ue, step.attempt, accepted());
    assert_eq!(world.prove(1, &mut ue).error(), None);
    assert_eq!(world.session_count(), 1);
}

#[test]
fn r7296_2_16_messages_of_other_kinds_on_the_way_change_nothing() {
    let mut world = world();
    let (mut ue, step) = world.begin(1, phone(1));
    // A forged message, and one of another exchange.
    let mut forged = ue.eap(&RESPONSE);
    let last = forged.len() - 1;
    forged[last] ^= 1;
    world.deliver(1, &forged);
    assert!(world.orders().is_empty());
    ue.sa.as_mut().expect("an IKE SA").next_out -= 1;
    let stray = ue.request(ExchangeType::INFORMATIONAL, |_| {});
    world.deliver(1, &stray);
    ue.sa.as_mut().expect("an IKE SA").next_out -= 1;
    assert!(world.orders().is_empty());
    let next = world.round(1, &mut ue, step.attempt, true);
    assert_eq!(next.attempt, step.attempt);
}

#[test]
fn r7383_eap_works_in_fragments() {
    let mut world = world();
    let config = UeConfig { fragmentation: true, room: Some(300), ..phone(1) };
    let mut ue = Ue::new(config);
    world.init(1, &mut ue);
    let request = ue.auth();
    world.tell(1, &request);
    let step = world.step();
    // All of its fragments again, while the back end thinks.
    world.tell(1, &request);
    assert!(world.orders().is_empty());
    world.round(1, &mut ue, step.attempt, true);
    world.let_in(1, &mut ue, step.attempt, accepted());
    assert_eq!(world.prove(1, &mut ue).error(), None);
}

#[test]
fn r7296_2_16_over_udp_the_answer_goes_to_where_the_ue_asked() {
    let change = |profile: &mut Profile| profile.transports = vec![gateway::types::Transport::Udp];
    let mut world = World::new(config_with(change));
    let place = Place::Udp(5_000);
    let mut ue = Ue::new(phone(1));
    let request = ue.init();
    let _ = world.arrive(place, request);
    let response = world.sent.pop().expect("an answer");
    ue.on_init(&response.message).expect("accepted");
    let request = ue.auth();
    let _ = world.arrive(place, request);
    let step = world.step();
    world.answer(step.attempt, go_on());
    let sent = world.sent.pop().expect("an answer");
    assert_eq!(sent.path, place.path());
    assert!(ue.on_eap_begun(&sent.message).is_some());
}

#[test]
fn one_ue_is_followed_message_by_message_and_no_other() {
    let mut world = world();
    world.responder.set_trace(Some("001010000000001"));
    let other = UeConfig { id: (IdType::RFC822_ADDR, b"other@test".to_vec()), ..phone(2) };
    world.attach_eap(2, other, accepted());
    let lines = |world: &mut World| -> Vec<String> {
        let (traced, rest): (Vec<Event>, Vec<Event>) = std::mem::take(&mut world.events)
            .into_iter()
            .partition(|event| matches!(event, Event::Traced(_)));
        world.events = rest;
        let line = |event| match event {
            Event::Traced(line) => Some(line.into()),
            _ => None,
        };
        traced.into_iter().filter_map(line).collect()
    };
    assert!(lines(&mut world).is_empty());
    let (mut ue, _) = world.attach_eap(1, phone(1), accepted());
    let told = lines(&mut world);
    // IKE_SA_INIT, and IKE_AUTH three times, each with its response.
    assert_eq!(told.len(), 8, "{told:#?}");
    let begins = ["from the UE: IKE_SA_INIT request 0", "to the UE: IKE_SA_INIT response 0"];
    assert!(begins.iter().zip(&told).all(|(begin, line)| line.starts_with(begin)), "{told:#?}");
    assert!(told[2].contains("IDi(ID_RFC822_ADDR 0001010000000001@nai"), "{}", told[2]);
    assert!(told[2].contains("CP(") && told[2].contains("SA(1:ESP"), "{}", told[2]);
    assert!(told[3].contains("EAP(code 1 id 7 type 23 subtype 1 6 octets)"), "{}", told[3]);
    let msk: String = MSK.iter().take(8).map(|octet| format!("{octet:02x}")).collect();
    assert!(told.iter().all(|line| !line.contains(&msk)));
    let request = ue.informational(|_| {});
    world.exchange(1, &request);
    assert_eq!(lines(&mut world).len(), 2);
    world.responder.set_trace(None);
    let request = ue.informational(|_| {});
    world.exchange(1, &request);
    assert!(lines(&mut world).is_empty());
}
