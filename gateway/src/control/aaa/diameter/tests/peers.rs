//! Connections: capabilities, watchdog, disconnection.

use super::*;

#[test]
fn r6733_5_3_the_cer_says_who_we_are_and_what_we_speak() {
    let mut rig = Rig::new(1);
    let cer = rig.connected(0);
    let message = cer.message();
    assert!(cer.is(command::CAPABILITIES_EXCHANGE, true));
    assert_eq!(message.header.application, application::COMMON);
    assert_eq!(message.text(names::ORIGIN_HOST), Some("epdg.visited.example"));
    assert_eq!(message.text(names::ORIGIN_REALM), Some("visited.example"));
    assert_eq!(message.find(names::HOST_IP_ADDRESS).and_then(|avp| avp.address()), Some(LOCAL));
    assert_eq!(message.number(names::ORIGIN_STATE_ID), Some(0x6543_2100));
    assert_eq!(message.number(names::INBAND_SECURITY_ID), Some(0));
    assert_eq!(message.number(names::SUPPORTED_VENDOR_ID), Some(TGPP));
    let group = message.find(names::VENDOR_SPECIFIC_APPLICATION_ID).expect("the application");
    assert_eq!(group.inner(names::VENDOR_ID).and_then(|avp| avp.number()), Some(TGPP));
    assert_eq!(group.inner(names::AUTH_APPLICATION_ID).and_then(|avp| avp.number()), Some(16_777_264));
}

#[test]
fn r4072_eap_alone_is_a_plain_application() {
    let mut rig = Rig::with(1, |settings| settings.application = super::super::Application::Eap);
    let cer = rig.connected(0);
    assert_eq!(cer.message().number(names::AUTH_APPLICATION_ID), Some(5));
    assert!(cer.message().find(names::VENDOR_SPECIFIC_APPLICATION_ID).is_none());
    rig.reply(0, &cer, |avps| {
        with_result(avps, result::SUCCESS).number(names::AUTH_APPLICATION_ID, 5);
    });
    rig.step(1, &[2, 1, 0, 5, 1]);
    let der = rig.take(0);
    assert_eq!(der.header().application, 5);
    for name in [names::RAT_TYPE, names::SERVICE_SELECTION, names::UE_LOCAL_IP_ADDRESS] {
        assert!(der.message().find(name).is_none(), "3GPP's {} is unknown to such a server", name.code);
    }
}

/// Each way in which a CEA is no use ends the connection.
#[test]
fn r6733_5_3_1_peers_of_no_use_are_left() {
    let cases: [(&str, Write<'_>); 5] = [
        ("refused", &|avps| {
            with_result(avps, 5010);
            swm_capability(avps);
        }),
        ("another application", &|avps| {
            with_result(avps, result::SUCCESS).number(names::AUTH_APPLICATION_ID, 4);
        }),
        ("another vendor's application", &|avps| {
            with_result(avps, result::SUCCESS).group(names::VENDOR_SPECIFIC_APPLICATION_ID, |group| {
                group.number(names::VENDOR_ID, TGPP).number(names::AUTH_APPLICATION_ID, 16_777_265);
            });
        }),
        ("another host", &|avps| {
            avps.number(names::RESULT_CODE, result::SUCCESS).text(names::ORIGIN_HOST, "evil.example");
            swm_capability(avps);
        }),
        ("no result", &|avps| swm_capability(origin(avps))),
    ];
    for (what, write) in cases {
        let mut rig = Rig::with(1, |settings| settings.servers[0].host = Some("AAA.home.example".into()));
        let cer = rig.connected(0);
        rig.reply(0, &cer, write);
        assert_eq!(rig.connections[0], None, "{what}");
        assert!(!rig.node.servers()[0].up, "{what}");
    }
}

#[test]
fn r6733_2_4_a_relay_serves_every_application() {
    let mut rig = Rig::with(1, |settings| settings.servers[0].host = Some("AAA.home.example".into()));
    let cer = rig.connected(0);
    rig.reply(0, &cer, |avps| {
        with_result(avps, result::SUCCESS).number(names::AUTH_APPLICATION_ID, application::RELAY);
    });
    assert!(rig.node.servers()[0].up);
}

#[test]
fn r6733_5_3_what_is_no_cea_ends_the_connection() {
    let mut rig = Rig::new(1);
    rig.connected(0);
    rig.receive(0, &request(command::DEVICE_WATCHDOG, application::COMMON, |avps| _ = origin(avps)));
    assert_eq!(rig.connections[0], None);
    // An answer to another request than ours is none either.
    let mut rig = Rig::new(1);
    let mut cer = rig.connected(0);
    cer.0[15] ^= 1;
    rig.reply(0, &cer, |avps| swm_capability(with_result(avps, result::SUCCESS)));
    assert_eq!(rig.connections[0], None);
}

#[test]
fn a_silent_server_is_tried_again_ever_more_slowly() {
    let mut rig = Rig::new(1);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        rig.broken(0);
        let from = rig.now;
        while rig.connections[0].is_none() {
            rig.pass(Duration::from_millis(100));
        }
        pauses.push((rig.now - from).as_millis());
    }
    assert_eq!(pauses, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
    // A CEA that never comes is as good as no connection.
    rig.connected(0);
    rig.pass(Duration::from_secs(10));
    assert_eq!(rig.connections[0], None);
}

#[test]
fn r6733_5_5_watchdogs_are_sent_in_silence_and_answered() {
    let mut rig = Rig::up(1);
    rig.pass(TW + Duration::from_secs(2));
    let dwr = rig.take(0);
    assert!(dwr.is(command::DEVICE_WATCHDOG, true));
    assert_eq!(dwr.message().number(names::ORIGIN_STATE_ID), Some(0x6543_2100));
    rig.reply(0, &dwr, success);
    rig.pass_alive(0, 10 * TW);
    assert!(rig.node.servers()[0].up);
    let dwr = request(command::DEVICE_WATCHDOG, application::COMMON, |avps| _ = origin(avps));
    rig.receive(0, &dwr);
    let dwa = rig.take(0);
    assert!(dwa.is(command::DEVICE_WATCHDOG, false));
    assert_eq!(dwa.message().number(names::RESULT_CODE), Some(result::SUCCESS));
    assert_eq!((dwa.header().hop_by_hop, dwa.header().end_to_end), (0x2121_0001, 0x4242_0001));
}

/// RFC 3539 §3.4.1: OKAY, SUSPECT, DOWN; then REOPEN until three watchdogs were answered.
#[test]
fn r3539_3_4_1_a_dead_peer_is_suspect_then_down_then_has_to_prove_itself() {
    let mut rig = Rig::up(1);
    rig.pass(TW + Duration::from_secs(2));
    assert!(rig.take(0).is(command::DEVICE_WATCHDOG, true));
    rig.pass(TW + Duration::from_secs(2));
    assert!(!rig.node.servers()[0].up && rig.connections[0].is_some(), "suspect");
    rig.pass(TW + Duration::from_secs(2));
    while rig.connections[0].is_none() {
        rig.pass(Duration::from_millis(100));
    }
    rig.connect(0);
    // Its watchdog is due at once; until three are answered another peer would be preferred.
    rig.pass(Duration::ZERO);
    for _ in 0..3 {
        assert_eq!(rig.node.slots[0].peer.usable(), super::super::peer::Usable::Reopened);
        let dwr = rig.take(0);
        rig.reply(0, &dwr, success);
        rig.pass(TW + Duration::from_secs(2));
    }
    assert_eq!(rig.node.slots[0].peer.usable(), super::super::peer::Usable::Yes);
}

#[test]
fn r3539_3_4_1_a_suspect_that_speaks_is_well() {
    let mut rig = Rig::up(1);
    rig.pass(2 * TW + Duration::from_secs(4));
    assert!(!rig.node.servers()[0].up);
    let dwr = rig.take(0);
    rig.reply(0, &dwr, success);
    assert!(rig.node.servers()[0].up);
}

#[test]
fn r6733_5_4_a_peer_that_goes_is_answered_and_left_alone_as_it_asks() {
    for (cause, pause) in [(value::REBOOTING, 1), (1, 300), (2, 300)] {
        let mut rig = Rig::up(1);
        let dpr = request(command::DISCONNECT_PEER, application::COMMON, |avps| {
            origin(avps).number(names::DISCONNECT_CAUSE, cause);
        });
        rig.receive(0, &dpr);
        let dpa = rig.take(0);
        assert!(dpa.is(command::DISCONNECT_PEER, false));
        assert_eq!(dpa.message().number(names::RESULT_CODE), Some(result::SUCCESS));
        assert!(!rig.node.servers()[0].up);
        rig.broken(0);
        rig.pass(Duration::from_secs(pause - 1));
        assert_eq!(rig.connections[0].is_some(), pause == 1 && rig.connections[0].is_some());
        rig.pass(Duration::from_secs(1));
        assert!(rig.connections[0].is_some(), "cause {cause}");
    }
}

#[test]
fn r6733_5_4_the_gateway_says_goodbye_after_its_last_answers() {
    let mut rig = Rig::up(1);
    rig.attach(1, 10);
    rig.ended(10);
    rig.node.leave(rig.now);
    rig.drain();
    let str_ = rig.take(0);
    assert!(str_.is(command::SESSION_TERMINATION, true) && rig.is_silent());
    rig.reply(0, &str_, success);
    let dpr = rig.take(0);
    assert!(dpr.is(command::DISCONNECT_PEER, true));
    assert_eq!(dpr.message().number(names::DISCONNECT_CAUSE), Some(value::REBOOTING));
    assert!(!rig.node.has_left());
    rig.reply(0, &dpr, success);
    assert!(rig.node.has_left() && rig.connections[0].is_none());
}

#[test]
fn a_goodbye_that_nobody_answers_ends_all_the_same() {
    let mut rig = Rig::up(2);
    rig.step(1, &[2, 1, 0, 5, 1]);
    rig.node.leave(rig.now);
    rig.drain();
    rig.pass(Duration::from_millis(1_600));
    assert!(rig.node.has_left());
}
