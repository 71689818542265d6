//! What servers ask (TS 29.273 §7.1.2.4, §7.1.2.5), and how wrong requests are refused.

use super::*;

fn session_id(der: &Sent) -> String {
    der.message().text(names::SESSION_ID).expect("a Session-Id").to_owned()
}

fn code(answer: &Sent) -> Option<u32> {
    answer.message().number(names::RESULT_CODE)
}

#[test]
fn ts29273_7_1_2_4_asr_ends_a_session_and_an_str_follows() {
    let mut rig = Rig::up(1);
    let id = session_id(&rig.attach(1, 10));
    let octets = request(command::ABORT_SESSION, application::SWM, |avps| {
        origin(avps.text(names::SESSION_ID, &id))
            .text(names::DESTINATION_HOST, "EPDG.visited.example")
            .text(names::USER_NAME, "001010000000001")
            .group(names::PROXY_INFO, |group| _ = group.text(names::ORIGIN_HOST, "dra.example"));
    });
    rig.receive(0, &octets);
    let (session, ask) = rig.disconnects.pop_front().expect("the session is to end");
    assert!(rig.is_silent() && session == SessionId(10), "the answer waits for the end");
    rig.node.disconnected(ask.expect("somebody waits"), true);
    rig.ended(10);
    let asa = rig.take(0);
    assert!(asa.is(command::ABORT_SESSION, false) && !asa.header().is_error());
    assert_eq!(code(&asa), Some(result::SUCCESS));
    assert_eq!(asa.message().text(names::SESSION_ID), Some(&*id));
    assert_eq!(asa.message().text(names::USER_NAME), Some("001010000000001"));
    assert!(asa.message().find(names::PROXY_INFO).is_some(), "RFC 6733 §6.2");
    let str_ = rig.take(0);
    assert_eq!(str_.message().number(names::TERMINATION_CAUSE), Some(value::ADMINISTRATIVE));
    // Asked again, it is gone.
    let again = rig.ask(0, command::ABORT_SESSION, |avps| _ = avps.text(names::SESSION_ID, &id));
    assert_eq!(code(&again), Some(result::UNKNOWN_SESSION_ID));
}

#[test]
fn ts29273_7_1_2_5_rar_is_answered_and_an_aar_fetches_the_news() {
    let mut rig = Rig::up(1);
    let id = session_id(&rig.attach(1, 10));
    let raa = rig.ask(0, command::RE_AUTH, |avps| {
        avps.text(names::SESSION_ID, &id).number(names::RE_AUTH_REQUEST_TYPE, value::RE_AUTHORIZE_ONLY);
    });
    assert!(raa.is(command::RE_AUTH, false));
    assert_eq!(code(&raa), Some(result::SUCCESS));
    let aar = rig.take(0);
    assert!(aar.is(command::AA, true));
    assert_eq!(aar.message().number(names::AUTH_REQUEST_TYPE), Some(value::AUTHORIZE_ONLY));
    assert_eq!(aar.message().text(names::SESSION_ID), Some(&*id));
    rig.reply(0, &aar, |avps| _ = with_result(avps, result::SUCCESS).number(names::SESSION_TIMEOUT, 60));
    assert_eq!(rig.lifetimes, [(SessionId(10), Duration::from_secs(60))]);
}

#[test]
fn ts29273_7_1_2_5_an_authorization_that_is_withdrawn_ends_the_session() {
    let mut rig = Rig::up(1);
    let id = session_id(&rig.attach(1, 10));
    rig.ask(0, command::RE_AUTH, |avps| {
        avps.text(names::SESSION_ID, &id).number(names::RE_AUTH_REQUEST_TYPE, value::RE_AUTHORIZE_ONLY);
    });
    let aar = rig.take(0);
    rig.reply(0, &aar, |avps| _ = with_result(avps, result::AUTHORIZATION_REJECTED));
    assert_eq!(rig.disconnects.pop_front(), Some((SessionId(10), None)));
    rig.ended(10);
    assert_eq!(rig.take(0).message().number(names::TERMINATION_CAUSE), Some(value::AUTH_EXPIRED));
}

#[test]
fn an_aar_that_nobody_answers_changes_nothing() {
    let mut rig = Rig::up(1);
    let id = session_id(&rig.attach(1, 10));
    for _ in 0..2 {
        rig.ask(0, command::RE_AUTH, |avps| {
            avps.text(names::SESSION_ID, &id).number(names::RE_AUTH_REQUEST_TYPE, value::RE_AUTHORIZE_ONLY);
        });
        assert!(rig.take(0).is(command::AA, true));
        rig.pass(TIMEOUT);
    }
    assert!(rig.disconnects.is_empty() && rig.node.dialogs() == 1);
}

/// Each wrong request has its result, E where it is a protocol error, and the AVP to blame.
#[test]
fn r6733_7_1_wrong_requests_are_refused_by_name() {
    let mut rig = Rig::up(1);
    let id = session_id(&rig.attach(1, 10));
    let unknown = names::Name { code: 4_000, vendor: 0, must: true };
    let cases: [(u32, u32, Write<'_>, u32, Option<u32>); 9] = [
        (303, application::SWM, &|_| {}, 3001, None),
        (command::DIAMETER_EAP, application::SWM, &|_| {}, 3001, None),
        (command::ABORT_SESSION, application::EAP, &|_| {}, 3007, None),
        (
            command::ABORT_SESSION,
            application::SWM,
            &|avps| _ = avps.text(names::DESTINATION_HOST, "other"),
            3002,
            None,
        ),
        (
            command::ABORT_SESSION,
            application::SWM,
            &|avps| _ = avps.text(names::DESTINATION_REALM, "other"),
            3003,
            None,
        ),
        (command::ABORT_SESSION, application::SWM, &|avps| _ = avps.number(unknown, 1), 5001, Some(4_000)),
        (command::ABORT_SESSION, application::SWM, &|_| {}, 5005, Some(263)),
        (command::RE_AUTH, application::SWM, &|avps| _ = avps.text(names::SESSION_ID, &id), 5005, Some(285)),
        (
            command::RE_AUTH,
            application::SWM,
            &|avps| _ = avps.text(names::SESSION_ID, &id).number(names::RE_AUTH_REQUEST_TYPE, 1),
            5012,
            None,
        ),
    ];
    for (command, application, write, expected, blamed) in cases {
        rig.receive(0, &request(command, application, write));
        let answer = rig.take(0);
        assert_eq!(code(&answer), Some(expected));
        assert_eq!(answer.header().is_error(), (3000..4000).contains(&expected), "{expected}");
        let failed = answer.message().find(names::FAILED_AVP).and_then(|avp| avp.group().next());
        assert_eq!(failed.map(|avp| avp.code), blamed, "{expected}");
        assert_eq!(answer.message().text(names::ORIGIN_HOST), Some("epdg.visited.example"));
    }
    for foreign in
        ["epdg.visited.example;1;1", "other;1698898176;1", "epdg.visited.example;1698898176;9", "x"]
    {
        let answer = rig.ask(0, command::ABORT_SESSION, |avps| _ = avps.text(names::SESSION_ID, foreign));
        assert_eq!(code(&answer), Some(result::UNKNOWN_SESSION_ID), "{foreign}");
    }
    assert!(rig.disconnects.is_empty());
}

#[test]
fn r6733_7_1_5_a_request_whose_avps_do_not_fit_is_told_which() {
    let mut rig = Rig::up(1);
    let mut octets = request(command::ABORT_SESSION, application::SWM, |avps| {
        avps.text(names::SESSION_ID, "a;1;1").text(names::USER_NAME, "0001");
    });
    let at = octets.len() - 12;
    octets[at + 7] = 200;
    rig.receive(0, &octets);
    let answer = rig.take(0);
    assert_eq!(code(&answer), Some(result::INVALID_AVP_LENGTH));
    let failed = answer.message().find(names::FAILED_AVP).expect("the AVP to blame");
    assert_eq!(failed.group().next().map(|avp| (avp.code, avp.data.len())), Some((1, 0)));
}
