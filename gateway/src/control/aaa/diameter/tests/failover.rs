//! Requests and the peers they go to (RFC 6733 §5.5.4, §7.1.3).

use super::*;

const IDENTITY: [u8; 5] = [2, 1, 0, 5, 1];

fn is_der(sent: &Sent) -> bool {
    sent.is(command::DIAMETER_EAP, true)
}

#[test]
fn r6733_5_5_4_a_broken_connection_moves_its_requests_with_the_t_flag() {
    let mut rig = Rig::up(2);
    rig.step(1, &IDENTITY);
    let first = rig.take(0);
    assert!(is_der(&first) && !first.header().is_retransmitted() && rig.is_silent());
    rig.broken(0);
    let second = rig.take(1);
    assert!(is_der(&second) && second.header().is_retransmitted());
    assert_eq!(second.header().end_to_end, first.header().end_to_end);
    assert_ne!(second.header().hop_by_hop, first.header().hop_by_hop);
    assert_eq!(second.message().text(names::SESSION_ID), first.message().text(names::SESSION_ID));
    rig.reply(1, &second, |avps| _ = granted(avps));
    assert!(matches!(rig.answers.pop_front(), Some((AttemptId(1), AaaAnswer::Accept(_)))));
    let servers = rig.node.servers();
    assert_eq!((servers[0].requests, servers[1].retransmissions, servers[1].accepts), (1, 1, 1));
}

#[test]
fn r3539_3_4_1_a_suspect_peer_gives_its_requests_to_another_and_its_late_answer_is_dropped() {
    let mut rig = Rig::with(2, |settings| settings.timeout = Duration::from_secs(60));
    rig.connect(0);
    rig.connect(1);
    rig.pass(TW + Duration::from_secs(2));
    assert!(rig.take(0).is(command::DEVICE_WATCHDOG, true));
    let dwr = rig.take(1);
    rig.reply(1, &dwr, success);
    rig.step(1, &IDENTITY);
    let first = rig.take(0);
    rig.pass_alive(1, Duration::from_secs(27));
    assert!(rig.sent[1].is_empty());
    // The watchdog stays without an answer: suspect.
    while rig.sent[1].is_empty() {
        rig.pass(Duration::from_millis(100));
    }
    let moved = rig.take(1);
    assert!(is_der(&moved) && moved.header().is_retransmitted());
    rig.reply(0, &first, |avps| _ = granted(avps));
    assert!(rig.answers.is_empty(), "the first peer was asked no more");
    rig.reply(1, &moved, |avps| _ = more(avps, &[1, 2, 0, 5, 23]));
    assert!(matches!(rig.answers.pop_front(), Some((_, AaaAnswer::Continue { .. }))));
    rig.reply(1, &moved, |avps| _ = more(avps, &[1, 2, 0, 5, 23]));
    assert!(rig.answers.is_empty(), "an answer counts once");
    let bad: Vec<u64> = rig.node.servers().iter().map(|server| server.bad_answers).collect();
    assert_eq!(bad, [1, 1]);
}

#[test]
fn a_server_that_does_not_answer_in_time_is_followed_by_the_next() {
    let mut rig = Rig::up(2);
    rig.step(1, &IDENTITY);
    rig.take(0);
    rig.pass(TIMEOUT);
    assert!(rig.take(1).header().is_retransmitted());
    rig.pass(TIMEOUT);
    assert_eq!(rig.rejected(), RejectCause::Unreachable);
    let servers = rig.node.servers();
    assert_eq!((servers[0].timeouts, servers[1].timeouts), (1, 1));
    assert_eq!(rig.node.dialogs(), 0);
}

#[test]
fn r6733_7_1_3_errors_of_an_agent_lead_to_the_next_peer_without_the_t_flag() {
    let causes = [
        (result::UNABLE_TO_DELIVER, RejectCause::Unreachable),
        (result::TOO_BUSY, RejectCause::Congestion),
        (result::REDIRECT_INDICATION, RejectCause::NetworkFailure),
    ];
    for (code, cause) in causes {
        let mut rig = Rig::up(2);
        rig.step(1, &IDENTITY);
        let first = rig.take(0);
        rig.reply(0, &first, |avps| _ = with_result(avps, code));
        let second = rig.take(1);
        assert!(is_der(&second) && !second.header().is_retransmitted(), "{code}");
        rig.reply(1, &second, |avps| _ = with_result(avps, code));
        assert_eq!(rig.rejected(), cause, "{code}");
        assert_eq!(rig.node.dialogs(), 0);
    }
}

#[test]
fn r6733_7_1_3_a_realm_that_nobody_serves_is_refused_at_once() {
    let mut rig = Rig::up(2);
    rig.step(1, &IDENTITY);
    let der = rig.take(0);
    rig.reply(0, &der, |avps| _ = with_result(avps, result::REALM_NOT_SERVED));
    assert_eq!(rig.rejected(), RejectCause::NetworkFailure);
    assert!(rig.is_silent());
}

#[test]
fn the_first_server_is_preferred_again_once_it_is_back() {
    let mut rig = Rig::up(2);
    let refuse = |rig: &mut Rig, peer: usize| {
        let der = rig.take(peer);
        assert!(is_der(&der));
        rig.reply(peer, &der, |avps| _ = with_result(avps, result::AUTHENTICATION_REJECTED));
        assert_eq!(rig.rejected(), RejectCause::AuthenticationFailed);
    };
    rig.broken(0);
    rig.step(1, &IDENTITY);
    refuse(&mut rig, 1);
    rig.pass(Duration::from_millis(500));
    rig.connect(0);
    // RFC 3539 §3.4.1, REOPEN: it has yet to prove itself.
    rig.step(2, &IDENTITY);
    refuse(&mut rig, 1);
    for _ in 0..3 {
        while rig.sent[0].is_empty() {
            rig.pass_alive(1, Duration::from_secs(1));
        }
        let dwr = rig.take(0);
        rig.reply(0, &dwr, success);
    }
    rig.step(3, &IDENTITY);
    refuse(&mut rig, 0);
}

#[test]
fn rounds_of_one_authentication_stay_with_the_server_that_began_it() {
    let mut rig = Rig::up(2);
    rig.broken(0);
    rig.step(1, &IDENTITY);
    let der = rig.take(1);
    rig.reply(1, &der, |avps| _ = more(avps, &[1, 2, 0, 5, 23]));
    rig.pass(Duration::from_millis(500));
    rig.connect(0);
    rig.step(1, &[2, 2, 0, 5, 23]);
    let next = rig.take(1);
    assert_eq!(next.message().text(names::DESTINATION_HOST), Some("aaa.home.example"));
}

#[test]
fn requests_wait_for_the_first_connection() {
    let mut rig = Rig::new(1);
    rig.step(1, &IDENTITY);
    assert!(rig.is_silent());
    rig.connect(0);
    let der = rig.take(0);
    assert!(is_der(&der) && !der.header().is_retransmitted());
    // A broken connection, and the request goes out again on the next: maybe seen before.
    rig.broken(0);
    rig.pass(Duration::from_millis(500));
    rig.connect(0);
    assert!(rig.take(0).header().is_retransmitted());
}

#[test]
fn nobody_waits_longer_than_all_servers_may_take() {
    let mut rig = Rig::new(2);
    rig.step(1, &IDENTITY);
    rig.pass(2 * TIMEOUT - Duration::from_millis(1));
    assert!(rig.answers.is_empty());
    rig.pass(Duration::from_millis(1));
    assert_eq!(rig.rejected(), RejectCause::Unreachable);
}

#[test]
fn answers_of_other_peers_and_other_requests_are_nobodys() {
    let mut rig = Rig::up(2);
    rig.step(1, &IDENTITY);
    let mut der = rig.take(0);
    rig.reply(1, &der, |avps| _ = granted(avps));
    der.0[19] ^= 1;
    rig.reply(0, &der, |avps| _ = granted(avps));
    assert!(rig.answers.is_empty());
    der.0[19] ^= 1;
    rig.reply(0, &der, |avps| _ = granted(avps));
    assert!(matches!(rig.answers.pop_front(), Some((_, AaaAnswer::Accept(_)))));
}
