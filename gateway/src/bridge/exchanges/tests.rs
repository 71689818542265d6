use codec::ike::ExchangeType;

use super::*;
use crate::bridge::message::tests::{message, skf};

const INIT: ExchangeType = ExchangeType::IKE_SA_INIT;
const INFO: ExchangeType = ExchangeType::INFORMATIONAL;

fn forwards(verdict: Verdict<'_>) -> bool {
    matches!(verdict, Verdict::Forward)
}

fn is_duplicate(verdict: Verdict<'_>) -> bool {
    matches!(verdict, Verdict::Drop(Dropped::Duplicate))
}

fn repeats(verdict: Verdict<'_>, octets: &[u8]) -> bool {
    matches!(verdict, Verdict::Repeat([one]) if **one == *octets)
}

#[test]
fn r9329_6_2_o1_a_clients_retransmission_stays_off_the_stream_until_there_is_a_new_one() {
    let (mut exchanges, start) = (Exchanges::default(), Instant::now());
    let request = message(1, 0, INIT, false, b"SAi1 KEi Ni");
    assert!(forwards(exchanges.handle(start, Leg::Datagram, &request)));
    for s in 1..100 {
        let now = start + Duration::from_secs(s);
        assert!(is_duplicate(exchanges.handle(now, Leg::Datagram, &request)));
        assert_eq!(exchanges.handle_timeout(now, |_| panic!("nothing goes to the datagram leg")), 0);
    }
    assert_eq!(exchanges.replay().collect::<Vec<_>>(), [&*request], "octet for octet");
    let response = message(1, 0, INIT, true, b"SAr1 KEr Nr");
    assert!(forwards(exchanges.handle(start, Leg::Stream, &response)));
    assert_eq!(exchanges.replay().count(), 0);
    assert!(repeats(exchanges.handle(start, Leg::Datagram, &request), &response), "its answer was lost");
}

#[test]
fn r7296_2_1_a_request_from_the_stream_is_sent_again_with_backoff_until_it_is_answered() {
    let (mut exchanges, start) = (Exchanges::default(), Instant::now());
    let request = message(1, 4, INFO, false, b"D");
    assert!(forwards(exchanges.handle(start, Leg::Stream, &request)));
    let mut at = Vec::new();
    for _ in 0..6 {
        let due = exchanges.poll_timeout().expect("a retransmission");
        exchanges.handle_timeout(due, |octets| {
            assert_eq!(octets, request);
            at.push((due - start).as_millis());
        });
    }
    assert_eq!(at, [500, 1500, 3500, 7500, 15500, 23500]);
    let response = message(1, 4, INFO, true, b"D");
    let answered = start + Duration::from_secs(24);
    assert!(forwards(exchanges.handle(answered, Leg::Datagram, &response)));
    assert!(is_duplicate(exchanges.handle(answered, Leg::Datagram, &response)), "the second answer");
    assert!(repeats(exchanges.handle(answered, Leg::Stream, &request), &response));
    exchanges.handle_timeout(answered + Duration::from_secs(20), |_| panic!("it is answered"));
}

#[test]
fn a_request_nobody_answers_is_given_up_and_nothing_stays_behind() {
    let (mut exchanges, start) = (Exchanges::default(), Instant::now());
    assert!(forwards(exchanges.handle(start, Leg::Stream, &message(1, 4, INFO, false, b"D"))));
    assert!(forwards(exchanges.handle(start, Leg::Datagram, &message(1, 9, INFO, false, b"D"))));
    let mut given_up = 0;
    while let Some(due) = exchanges.poll_timeout() {
        assert!(due <= start + KEEP_REQUEST);
        given_up += exchanges.handle_timeout(due, |_| {});
    }
    assert_eq!((given_up, exchanges.octets()), (2, 0));
}

#[test]
fn r7296_2_6_a_late_cookie_challenge_does_not_answer_the_request_with_the_cookie() {
    let (mut exchanges, start) = (Exchanges::default(), Instant::now());
    let plain = message(1, 0, INIT, false, b"SAi1 KEi Ni");
    let challenge = message(1, 0, INIT, true, b"N(COOKIE)");
    let with_cookie = message(1, 0, INIT, false, b"N(COOKIE) SAi1 KEi Ni");
    assert!(forwards(exchanges.handle(start, Leg::Stream, &plain)));
    assert!(forwards(exchanges.handle(start, Leg::Datagram, &challenge)));
    assert!(forwards(exchanges.handle(start, Leg::Stream, &with_cookie)), "same number, other octets");
    assert!(is_duplicate(exchanges.handle(start, Leg::Datagram, &challenge)));
    let mut again = Vec::new();
    exchanges.handle_timeout(start + RESEND_FIRST, |octets| again.push(octets.to_vec()));
    assert_eq!(again, [with_cookie]);
}

#[test]
fn both_ends_may_use_the_same_message_id_at_once() {
    let (mut exchanges, start) = (Exchanges::default(), Instant::now());
    let up = message(1, 2, INFO, false, b"from the client");
    let down = message(1, 2, INFO, false, b"from the gateway");
    assert!(forwards(exchanges.handle(start, Leg::Datagram, &up)));
    assert!(forwards(exchanges.handle(start, Leg::Stream, &down)));
    assert!(forwards(exchanges.handle(start, Leg::Stream, &message(1, 2, INFO, true, b"to the client"))));
    assert_eq!(exchanges.replay().count(), 0);
    let mut again = 0;
    exchanges.handle_timeout(start + RESEND_FIRST, |octets| again += usize::from(octets == down));
    assert_eq!(again, 1, "the other direction still waits");
}

#[test]
fn r7383_2_6_1_a_fragmented_answer_counts_when_all_of_it_has_passed() {
    let (mut exchanges, start) = (Exchanges::default(), Instant::now());
    let requests = [skf(1, 1, false, 1, 2, b"a"), skf(1, 1, false, 2, 2, b"b")];
    for request in &requests {
        assert!(forwards(exchanges.handle(start, Leg::Stream, request)));
    }
    assert!(forwards(exchanges.handle(start, Leg::Datagram, &skf(1, 1, true, 2, 2, b"d"))));
    let mut again = Vec::new();
    exchanges.handle_timeout(start + RESEND_FIRST, |octets| again.push(octets.to_vec()));
    assert_eq!(again, requests, "half an answer is none");
    assert!(forwards(exchanges.handle(start, Leg::Datagram, &skf(1, 1, true, 1, 2, b"c"))));
    assert!(exchanges.poll_timeout().is_some_and(|due| due >= start + KEEP_ANSWER));
    let verdict = exchanges.handle(start, Leg::Stream, &requests[0]);
    assert!(matches!(verdict, Verdict::Repeat(parts) if parts.len() == 2));
    assert!(is_duplicate(exchanges.handle(start, Leg::Stream, &requests[1])), "only the first one asks");
}

#[test]
fn what_is_kept_is_bounded_in_number_and_octets() {
    let (mut exchanges, start) = (Exchanges::default(), Instant::now());
    let long = vec![7; 60_000];
    let mut taken = 0;
    for id in 0..100 {
        let request = message(1, id, INFO, false, &long);
        taken += usize::from(forwards(exchanges.handle(start, Leg::Stream, &request)));
        assert!(exchanges.octets() <= BRIDGE_OCTETS_MAX);
    }
    assert_eq!(taken, 4);
    for id in 0..4 {
        let response = message(1, id, INFO, true, &long);
        assert!(forwards(exchanges.handle(start, Leg::Datagram, &response)), "an answer always passes");
        assert!(exchanges.octets() <= BRIDGE_OCTETS_MAX);
    }
    let mut small = Exchanges::default();
    let taken = (0..100)
        .filter(|&id| forwards(small.handle(start, Leg::Datagram, &message(1, id, INFO, false, b""))));
    assert_eq!(taken.count(), BRIDGE_EXCHANGES_MAX);
    let refused = small.handle(start, Leg::Datagram, &message(1, 200, INFO, false, b""));
    assert!(matches!(refused, Verdict::Drop(Dropped::WindowFull)));
}

#[test]
fn octets_that_are_no_message_go_nowhere() {
    let (mut exchanges, start) = (Exchanges::default(), Instant::now());
    for octets in [&[][..], &[0; 27], &[0xff; 28], &[0xff; 400]] {
        for leg in [Leg::Datagram, Leg::Stream] {
            assert!(matches!(exchanges.handle(start, leg, octets), Verdict::Drop(Dropped::Malformed)));
        }
    }
    assert_eq!(exchanges.octets(), 0);
}
