//! Authentications and the sessions that come of them (TS 29.273 §7.1.2, §7.2.2).

use super::*;

#[test]
fn ts29273_7_2_2_1_1_what_a_der_says() {
    let mut rig =
        Rig::with(1, |settings| settings.visited_network = Some("epc.mnc002.mcc262.3gppnetwork.org".into()));
    rig.connect(0);
    let subject = Subject { imei: Some("3534900698733190".into()), emergency: true, ..subject() };
    rig.step_of(1, &[2, 1, 0, 5, 1], subject);
    let der = rig.take(0);
    let message = der.message();
    assert!(der.is(command::DIAMETER_EAP, true));
    // R and P.
    assert_eq!(der.0[4], 0xc0);
    let first = message.avps().next().expect("an AVP");
    assert!(first.is(names::SESSION_ID), "RFC 6733 §8.8: Session-Id is first");
    assert_eq!(first.text(), Some("epdg.visited.example;1698898176;1"));
    assert_eq!(message.number(names::AUTH_APPLICATION_ID), Some(16_777_264));
    assert_eq!(message.number(names::AUTH_REQUEST_TYPE), Some(3));
    assert_eq!(message.text(names::DESTINATION_REALM), Some("nai.epc.mnc001.mcc001.3gppnetwork.org"));
    assert_eq!(message.find(names::DESTINATION_HOST), None);
    assert_eq!(
        message.text(names::USER_NAME),
        Some("0001010000000001@nai.epc.mnc001.mcc001.3gppnetwork.org")
    );
    assert_eq!(message.find(names::EAP_PAYLOAD).map(|avp| avp.data), Some(&[2, 1, 0, 5, 1][..]));
    assert_eq!(message.number(names::RAT_TYPE), Some(0));
    assert_eq!(message.text(names::SERVICE_SELECTION), Some("ims"));
    assert_eq!(message.text(names::VISITED_NETWORK_IDENTIFIER), Some("epc.mnc002.mcc262.3gppnetwork.org"));
    let outside = message.find(names::UE_LOCAL_IP_ADDRESS).and_then(|avp| avp.address());
    assert_eq!(outside, Some([198, 51, 100, 7].into()));
    let device = message.find(names::TERMINAL_INFORMATION).expect("the device");
    assert_eq!(device.inner(names::IMEI).and_then(|avp| avp.text()), Some("35349006987331"));
    assert_eq!(device.inner(names::SOFTWARE_VERSION).and_then(|avp| avp.text()), Some("90"));
    assert_eq!(message.number(names::EMERGENCY_SERVICES), Some(1));
}

/// Identity, challenge, success; State is handed back, the server is named, the keys and addresses arrive.
#[test]
fn ts29273_7_1_2_1_rounds_end_with_a_key() {
    let mut rig = Rig::up(1);
    rig.step(1, &[2, 1, 0, 5, 1]);
    let der = rig.take(0);
    rig.reply(0, &der, |avps| _ = more(avps, &[1, 2, 0, 5, 23]).octets(names::STATE, b"round-1"));
    match rig.answers.pop_front() {
        Some((AttemptId(1), AaaAnswer::Continue { packet })) => assert_eq!(packet, [1, 2, 0, 5, 23]),
        _ => panic!("no challenge"),
    }
    rig.step(1, &[2, 2, 0, 5, 23]);
    let der = rig.take(0);
    let message = der.message();
    assert_eq!(message.find(names::STATE).map(|avp| avp.data), Some(&b"round-1"[..]));
    assert_eq!(message.text(names::DESTINATION_HOST), Some("aaa.home.example"));
    rig.reply(0, &der, |avps| {
        granted(avps)
            .text(names::MOBILE_NODE_IDENTIFIER, "001010000000001")
            .number(names::SESSION_TIMEOUT, 7_200)
            .number(names::AUTHORIZATION_LIFETIME, 3_600)
            .number(names::AUTH_GRACE_PERIOD, 60);
        let configuration = |apn: &'static str, address: &'static str| {
            move |group: &mut AvpWriter| {
                group
                    .text(names::SERVICE_SELECTION, apn)
                    .address(names::SERVED_PARTY_IP_ADDRESS, address.parse().expect("an address"));
            }
        };
        avps.group(names::APN_CONFIGURATION, configuration("internet", "10.9.0.1"))
            .group(names::APN_CONFIGURATION, configuration("IMS", "10.9.0.2"))
            .group(names::APN_CONFIGURATION, configuration("*", "10.9.0.3"));
    });
    let Some((AttemptId(1), AaaAnswer::Accept(accepted))) = rig.answers.pop_front() else {
        panic!("not accepted")
    };
    assert_eq!(accepted.packet, [3, 1, 0, 4]);
    assert_eq!(*accepted.msk, [7; 64]);
    assert_eq!(accepted.identity.as_deref(), Some("001010000000001"));
    assert_eq!(accepted.inner, [IpAddr::from([10, 9, 0, 2])]);
    assert_eq!(accepted.session_timeout, Some(Duration::from_secs(3_660)));
}

#[test]
fn r4072_2_8_4_a_reissued_packet_goes_to_the_peer_again() {
    let mut rig = Rig::up(1);
    rig.step(1, &[2, 1, 0, 5, 1]);
    let der = rig.take(0);
    rig.reply(0, &der, |avps| {
        with_result(avps, result::MULTI_ROUND_AUTH).octets(names::EAP_REISSUED_PAYLOAD, &[1, 1, 0, 5, 23]);
    });
    match rig.answers.pop_front() {
        Some((_, AaaAnswer::Continue { packet })) => assert_eq!(packet, [1, 1, 0, 5, 23]),
        _ => panic!("no packet"),
    }
}

#[test]
fn r4072_2_2_success_may_come_without_a_packet() {
    let mut rig = Rig::up(1);
    rig.step(1, &[2, 9, 0, 5, 1]);
    let der = rig.take(0);
    rig.reply(0, &der, |avps| {
        with_result(avps, result::SUCCESS).octets(names::EAP_MASTER_SESSION_KEY, &[7; 64]);
    });
    let Some((_, AaaAnswer::Accept(accepted))) = rig.answers.pop_front() else { panic!("not accepted") };
    assert_eq!(accepted.packet, [3, 9, 0, 4]);
}

#[test]
fn ts29273_10_refusals_have_their_cause_and_their_eap_failure() {
    let mut rig = Rig::up(1);
    rig.step(1, &[2, 1, 0, 5, 1]);
    let der = rig.take(0);
    rig.reply(0, &der, |avps| {
        origin(avps)
            .group(names::EXPERIMENTAL_RESULT, |group| {
                group.number(names::VENDOR_ID, TGPP).number(names::EXPERIMENTAL_RESULT_CODE, 5451);
            })
            .octets(names::EAP_PAYLOAD, &[4, 1, 0, 4]);
    });
    match rig.answers.pop_front() {
        Some((_, AaaAnswer::Reject { packet, cause, .. })) => {
            assert_eq!((packet.as_deref(), cause), (Some(&[4, 1, 0, 4][..]), RejectCause::NoApnSubscription));
        }
        _ => panic!("not refused"),
    }
    assert_eq!(rig.node.servers()[0].rejects, [(RejectCause::NoApnSubscription, 1)]);
    assert!(rig.is_silent() && rig.node.dialogs() == 0, "there is no session to end");
}

/// RFC 6733 §4.1: an AVP that must be understood and is not; the server is told that nothing came of it.
#[test]
fn r6733_4_1_an_answer_with_an_unknown_mandatory_avp_is_not_used() {
    let mut rig = Rig::up(1);
    rig.step(1, &[2, 1, 0, 5, 1]);
    let der = rig.take(0);
    rig.reply(0, &der, |avps| {
        granted(avps).number(names::Name { code: 4_000, vendor: 0, must: true }, 1);
    });
    assert_eq!(rig.rejected(), RejectCause::NetworkFailure);
    let str_ = rig.take(0);
    assert!(str_.is(command::SESSION_TERMINATION, true));
    assert_eq!(str_.message().number(names::TERMINATION_CAUSE), Some(value::BAD_ANSWER));
}

#[test]
fn answers_that_contradict_themselves_are_refused() {
    let cases: [fn(&mut AvpWriter); 4] = [
        // Granted without a key, granted with a request, more to ask and nothing asked, a success that is a failure.
        |avps| _ = with_result(avps, result::SUCCESS).octets(names::EAP_PAYLOAD, &[3, 1, 0, 4]),
        |avps| {
            with_result(avps, result::SUCCESS)
                .octets(names::EAP_PAYLOAD, &[1, 2, 0, 5, 23])
                .octets(names::EAP_MASTER_SESSION_KEY, &[7; 64]);
        },
        |avps| _ = with_result(avps, result::MULTI_ROUND_AUTH),
        |avps| _ = more(avps, &[3, 1, 0, 4]),
    ];
    for write in cases {
        let mut rig = Rig::up(1);
        rig.step(1, &[2, 1, 0, 5, 1]);
        let der = rig.take(0);
        rig.reply(0, &der, write);
        assert_eq!(rig.rejected(), RejectCause::NetworkFailure);
        assert_eq!((rig.node.servers()[0].bad_answers, rig.node.dialogs()), (1, 0));
    }
}

#[test]
fn malformed_answers_are_no_answers() {
    let mut rig = Rig::up(1);
    rig.step(1, &[2, 1, 0, 5, 1]);
    let der = rig.take(0);
    let mut octets = answer_to(&der, |avps| _ = granted(avps));
    let last = octets.len() - 72;
    octets[last + 7] = 255;
    rig.receive(0, &octets);
    assert_eq!(rig.rejected(), RejectCause::NetworkFailure);
    assert_eq!(rig.node.servers()[0].bad_answers, 1);
}

#[test]
fn r6733_8_4_the_end_of_a_session_is_told_with_its_class() {
    let mut rig = Rig::up(1);
    rig.step(1, &[2, 1, 0, 5, 1]);
    let der = rig.take(0);
    rig.reply(0, &der, |avps| _ = granted(avps).octets(names::CLASS, b"gold"));
    rig.attached(1, 10);
    rig.ended(10);
    let str_ = rig.take(0);
    let message = str_.message();
    assert!(str_.is(command::SESSION_TERMINATION, true));
    assert_eq!(message.text(names::SESSION_ID), der.message().text(names::SESSION_ID));
    assert_eq!(message.number(names::TERMINATION_CAUSE), Some(value::LOGOUT));
    assert_eq!(message.text(names::DESTINATION_HOST), Some("aaa.home.example"));
    assert_eq!(message.find(names::CLASS).map(|avp| avp.data), Some(&b"gold"[..]));
    rig.reply(0, &str_, success);
    assert_eq!((rig.node.dialogs(), rig.node.requests.len()), (0, 0));
}

#[test]
fn r6733_8_15_each_end_has_its_cause() {
    for (cause, code) in [
        (EndCause::Lost, value::LINK_BROKEN),
        (EndCause::Timeout, value::SESSION_TIMEOUT),
        (EndCause::Shutdown, value::ADMINISTRATIVE),
        (EndCause::Replaced, value::USER_MOVED),
    ] {
        let mut rig = Rig::up(1);
        rig.attach(1, 10);
        rig.node.ended(rig.now, SessionId(10), cause);
        rig.drain();
        assert_eq!(rig.take(0).message().number(names::TERMINATION_CAUSE), Some(code), "{cause:?}");
    }
}

#[test]
fn r6733_8_11_a_server_that_keeps_no_state_hears_nothing() {
    let mut rig = Rig::up(1);
    rig.step(1, &[2, 1, 0, 5, 1]);
    let der = rig.take(0);
    rig.reply(0, &der, |avps| {
        granted(avps).number(names::AUTH_SESSION_STATE, value::NO_STATE_MAINTAINED);
    });
    rig.attached(1, 10);
    rig.ended(10);
    assert!(rig.is_silent() && rig.node.dialogs() == 0);
}

/// Whenever the UE goes away, the server ends up without a session and the node without a dialog.
#[test]
fn attempts_that_are_abandoned_leave_nothing() {
    // While a DER is under way.
    let mut rig = Rig::up(1);
    rig.step(1, &[2, 1, 0, 5, 1]);
    let der = rig.take(0);
    rig.node.abandon(rig.now, AttemptId(1));
    rig.reply(0, &der, |avps| _ = granted(avps));
    let str_ = rig.take(0);
    assert!(str_.is(command::SESSION_TERMINATION, true));
    assert_eq!(str_.message().number(names::TERMINATION_CAUSE), Some(value::SERVICE_NOT_PROVIDED));
    assert!(rig.answers.is_empty() && rig.node.dialogs() == 0);
    // The same, and the server never answers.
    rig.step(2, &[2, 1, 0, 5, 1]);
    rig.node.abandon(rig.now, AttemptId(2));
    rig.pass(TIMEOUT);
    assert!(rig.answers.is_empty() && rig.node.dialogs() == 0);
    // Between two rounds.
    let mut rig = Rig::up(1);
    rig.step(3, &[2, 1, 0, 5, 1]);
    let der = rig.take(0);
    rig.reply(0, &der, |avps| _ = more(avps, &[1, 2, 0, 5, 23]));
    rig.node.abandon(rig.now, AttemptId(3));
    rig.drain();
    assert!(rig.is_silent() && rig.node.dialogs() == 0);
    // After it was let in.
    rig.step(4, &[2, 1, 0, 5, 1]);
    let der = rig.take(0);
    rig.reply(0, &der, |avps| _ = granted(avps));
    rig.node.abandon(rig.now, AttemptId(4));
    rig.drain();
    assert!(rig.take(0).is(command::SESSION_TERMINATION, true) && rig.node.dialogs() == 0);
}

#[test]
fn what_a_server_wants_kept_is_bounded() {
    let mut rig = Rig::up(1);
    rig.step(1, &[2, 1, 0, 5, 1]);
    let der = rig.take(0);
    rig.reply(0, &der, |avps| {
        (0..200u8).for_each(|number| _ = avps.octets(names::CLASS, &[number; 100]));
        granted(avps).octets(names::STATE, &[0; 2_000]);
    });
    let dialog = rig.node.dialogs.values().next().expect("the dialog");
    assert!(dialog.class.len() < 10 && dialog.state.is_none());
}

#[test]
fn a_reload_keeps_sessions_unless_the_node_is_another() {
    let mut rig = Rig::up(1);
    rig.attach(1, 10);
    let same = Settings { timeout: 2 * TIMEOUT, ..rig.node.settings().clone() };
    assert!(rig.node.adopt(&same) && rig.node.settings().timeout == 2 * TIMEOUT);
    let other = Settings { origin_host: "epdg2.visited.example".into(), ..same };
    assert!(!rig.node.adopt(&other));
    rig.ended(10);
    assert!(rig.take(0).is(command::SESSION_TERMINATION, true));
}
