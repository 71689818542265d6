//! Redirection to other gateways (RFC 5685).

use std::sync::Arc;
use std::time::Duration;

use codec::ike::payload::{GatewayId, RedirectView};
use codec::ike::{ExchangeType, NotifyType, PayloadType};
use gateway::control::responder::{Gateway, Redirect, ResponderConfig};
use gateway::types::Transport;

use crate::ue::{Decoded, Ue, UeConfig};
use crate::world::{World, config, profile, psk};

const WAIT: Duration = Duration::from_secs(8);

/// Where the gateway of the tests sends its UEs.
fn others(names: &[&str]) -> Option<Redirect> {
    let to = names.iter().map(|name| name.parse().expect("a gateway")).collect();
    Some(Redirect { to, from_sessions: 2, wait: WAIT })
}

fn redirecting(names: &[&str]) -> ResponderConfig {
    ResponderConfig { redirect: others(names), ..config() }
}

/// What the answer to an IKE_SA_INIT names as the gateway to go to, and the nonce beside it.
fn redirected(message: &[u8]) -> Option<(String, Vec<u8>)> {
    let decoded = Decoded::clear(message);
    let notify = decoded.notify(NotifyType::REDIRECT)?;
    assert!(decoded.header.spi_r.is_zero(), "no state here");
    let view = RedirectView::decode(notify.data).expect("well formed");
    Some((view.gateway.to_string(), view.nonce.to_vec()))
}

fn from(origin: &str) -> Vec<u8> {
    let origin: Gateway = origin.parse().expect("a gateway");
    RedirectView { gateway: origin.id(), nonce: &[] }.to_data()
}

/// A UE that announced REDIRECT_SUPPORTED, with its first Child SA.
fn attach(world: &mut World, number: u32) -> Ue {
    let mut ue = Ue::new(UeConfig::new(number.into()));
    let request = ue.init_with(|builder| {
        builder.notify(NotifyType::REDIRECT_SUPPORTED, &[]);
    });
    let response = world.exchange(number, &request);
    ue.on_init(&response).expect("accepted");
    let request = ue.auth();
    let response = world.exchange(number, &request);
    assert_eq!(ue.on_auth(&response).error(), None);
    ue
}

#[test]
fn r5685_3_under_load_a_new_ue_is_sent_elsewhere_with_its_nonce() {
    let mut world = World::new(redirecting(&["192.0.2.7", "2001:db8::7", "gw2.example"]));
    attach(&mut world, 1);
    attach(&mut world, 2);
    for (number, expected) in [(3, "192.0.2.7"), (4, "2001:db8::7"), (5, "gw2.example"), (6, "192.0.2.7")] {
        let mut ue = Ue::new(UeConfig::new(number.into()));
        let request = ue.init_with(|builder| {
            builder.notify(NotifyType::REDIRECT_SUPPORTED, &[]);
        });
        let nonce = Decoded::clear(&request).body(PayloadType::NONCE).expect("Ni").to_vec();
        let answer = world.exchange(number, &request);
        assert_eq!(redirected(&answer), Some((expected.into(), nonce)));
    }
    assert_eq!(world.counters().exchanges.redirected_inits, 4);
    assert_eq!(world.counters().gauges.half_open, 0, "nothing is kept");
}

#[test]
fn r5685_3_a_ue_that_does_not_announce_it_is_served_here() {
    let mut world = World::new(redirecting(&["gw2.example"]));
    for number in 1..=4 {
        world.attach(number, UeConfig::new(number.into()));
    }
    assert_eq!(world.session_count(), 4);
}

#[test]
fn r5685_7_a_redirected_ue_is_not_sent_on_by_load_nor_ever_back() {
    let mut world = World::new(redirecting(&["gw2.example", "gw3.example"]));
    attach(&mut world, 1);
    attach(&mut world, 2);
    let asks = |number: u32, origin: &str, world: &mut World| {
        let mut ue = Ue::new(UeConfig::new(number.into()));
        let data = from(origin);
        let request = ue.init_with(|builder| {
            builder.notify(NotifyType::REDIRECTED_FROM, &data);
        });
        world.deliver(number, &request)
    };
    let answer = asks(3, "gw9.example", &mut world);
    assert_eq!(redirected(&answer[0]), None, "served: it has been sent here");
    world.responder.drain(world.now, world.now + WAIT);
    world.collect();
    world.sent.clear();
    for number in 4..8 {
        let answer = asks(number, "GW2.example", &mut world);
        assert_eq!(redirected(&answer[0]).map(|(name, _)| name).as_deref(), Some("gw3.example"));
    }
    let mut world = World::new(redirecting(&["gw2.example"]));
    world.responder.drain(world.now, world.now + WAIT);
    assert!(asks(8, "gw2.example", &mut world).is_empty(), "nowhere else to go");
}

#[test]
fn r5685_6_a_profile_sends_its_ues_elsewhere_once_both_ends_have_authenticated() {
    let mut lab = profile("lab", psk());
    lab.redirect = Some("gw2.example".parse().expect("a gateway"));
    let mut world =
        World::new(ResponderConfig { profiles: vec![Arc::new(lab)], ..redirecting(&["gw3.example"]) });
    let mut ue = Ue::new(UeConfig::new(1));
    let request = ue.init_with(|builder| {
        builder.notify(NotifyType::REDIRECT_SUPPORTED, &[]);
    });
    let response = world.exchange(1, &request);
    ue.on_init(&response).expect("accepted");
    let request = ue.auth();
    let response = world.exchange(1, &request);
    // `on_auth` has verified the gateway's AUTH.
    let decoded = ue.on_auth(&response);
    assert_eq!(decoded.error(), None);
    let notify = decoded.notify(NotifyType::REDIRECT).expect("sent elsewhere");
    let view = RedirectView::decode(notify.data).expect("well formed");
    assert_eq!((view.gateway, view.nonce), (GatewayId::Fqdn("gw2.example"), &[][..]));
    for kind in [PayloadType::SA, PayloadType::TS_I, PayloadType::TS_R, PayloadType::CONFIG] {
        assert!(decoded.body(kind).is_none(), "no Child SA, no address");
    }
    assert!(world.installs().is_empty());
    // The UE deletes the IKE SA.
    let delete = ue.informational(|builder| {
        builder.delete_ike();
    });
    world.exchange(1, &delete);
    assert_eq!(world.session_count(), 0);

    // One that does not is deleted from here; one that comes from there is served.
    let mut lazy = Ue::new(UeConfig::new(2));
    let request = lazy.init_with(|builder| {
        builder.notify(NotifyType::REDIRECT_SUPPORTED, &[]);
    });
    let response = world.exchange(2, &request);
    lazy.on_init(&response).expect("accepted");
    let request = lazy.auth();
    world.exchange(2, &request);
    world.advance(WAIT);
    let sent = world.take_sent(2);
    let delete = lazy.open(sent.last().expect("a Delete")).expect("authentic");
    assert!(delete.body(PayloadType::DELETE).is_some());
    let mut back = Ue::new(UeConfig::new(3));
    let data = from("gw2.example");
    let request = back.init_with(|builder| {
        builder.notify(NotifyType::REDIRECTED_FROM, &data);
    });
    let response = world.exchange(3, &request);
    back.on_init(&response).expect("accepted");
    let request = back.auth();
    let response = world.exchange(3, &request);
    back.on_auth(&response);
    assert_eq!(back.children.len(), 1);
}

#[test]
fn r9329_7_2_1_a_drained_session_on_tcp_is_asked_to_go_and_then_deleted() {
    let mut world = World::new(redirecting(&["gw2.example"]));
    let mut ue = attach(&mut world, 1);
    let mut deaf = attach(&mut world, 2);
    let plain = world.attach(3, UeConfig::new(3));
    world.sent.clear();
    world.responder.drain(world.now, world.now + 4 * WAIT);
    world.collect();

    // The ordinary form: an INFORMATIONAL request with REDIRECT, without a nonce.
    let mut asked = |number: u32, ue: &Ue| {
        let sent = world.take_sent(number);
        assert_eq!(sent.len(), 1);
        ue.open(&sent[0]).expect("authentic")
    };
    let request = asked(1, &ue);
    assert_eq!(request.header.exchange, ExchangeType::INFORMATIONAL);
    let notify = request.notify(NotifyType::REDIRECT).expect("told where to go");
    let view = RedirectView::decode(notify.data).expect("well formed");
    assert_eq!((view.gateway, view.nonce), (GatewayId::Fqdn("gw2.example"), &[][..]));
    assert!(asked(2, &deaf).notify(NotifyType::REDIRECT).is_some());
    let deleted = asked(3, &plain);
    assert!(deleted.notify(NotifyType::REDIRECT).is_none(), "it did not announce it");
    assert!(deleted.body(PayloadType::DELETE).is_some());

    // The UE acknowledges, and deletes the session when it is there.
    let response = ue.respond(&request, |_| {});
    world.tell(1, &response);
    let delete = ue.informational(|builder| {
        builder.delete_ike();
    });
    world.exchange(1, &delete);
    assert_eq!(world.counters().exchanges.redirected_sessions, 2);

    // The other one acknowledges and stays: it is deleted after the configured time.
    let request = request_of(&mut world, &mut deaf);
    assert!(request.is_none(), "one request, and no repetition over TCP");
    world.advance(WAIT + Duration::from_secs(6));
    assert_eq!(world.session_count(), 0);
}

fn request_of(world: &mut World, ue: &mut Ue) -> Option<Decoded> {
    world.take_sent(2).first().and_then(|message| ue.open(message))
}

#[test]
fn r5685_5_a_short_drain_leaves_a_redirected_ue_half_of_its_time() {
    let mut world = World::new(redirecting(&["gw2.example"]));
    let mut ue = attach(&mut world, 1);
    world.sent.clear();
    world.responder.drain(world.now, world.now + Duration::from_secs(4));
    world.collect();
    let sent = world.take_sent(1);
    let request = ue.open(&sent[0]).expect("authentic");
    let response = ue.respond(&request, |_| {});
    world.tell(1, &response);
    world.advance(Duration::from_millis(1_900));
    assert!(world.take_sent(1).is_empty());
    world.advance(Duration::from_millis(200));
    let sent = world.take_sent(1);
    assert!(ue.open(&sent[0]).expect("authentic").body(PayloadType::DELETE).is_some());
}

#[test]
fn r5685_6_a_ue_amid_its_attach_is_sent_elsewhere_by_a_drain() {
    let mut world = World::new(redirecting(&["gw2.example"]));
    let mut ue = Ue::new(UeConfig::new(1));
    let request = ue.init_with(|builder| {
        builder.notify(NotifyType::REDIRECT_SUPPORTED, &[]);
    });
    let response = world.exchange(1, &request);
    ue.on_init(&response).expect("accepted");
    world.responder.drain(world.now, world.now + WAIT);
    let request = ue.auth();
    let response = world.exchange(1, &request);
    let decoded = ue.on_auth(&response);
    assert!(decoded.notify(NotifyType::REDIRECT).is_some());
    assert!(ue.children.is_empty());
    let late = world.exchange(
        2,
        &Ue::new(UeConfig::new(2)).init_with(|builder| {
            builder.notify(NotifyType::REDIRECT_SUPPORTED, &[]);
        }),
    );
    assert_eq!(redirected(&late).map(|(name, _)| name).as_deref(), Some("gw2.example"));
}

#[test]
fn r9329_5_2_a_peer_without_tcp_in_its_profile_gets_no_service_on_tcp() {
    let mut lab = profile("lab", psk());
    lab.transports = vec![Transport::Udp];
    let mut world = World::new(ResponderConfig { profiles: vec![Arc::new(lab)], ..config() });
    assert_eq!(world.attach_error(1, UeConfig::new(1)), Some(NotifyType::AUTHENTICATION_FAILED));
    assert_eq!(world.counters().drops.auth_profile_transport, 1);
}
