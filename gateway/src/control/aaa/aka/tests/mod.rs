mod home;

use codec::eap::aka::{
    AkaBuilder, Checkcode, Encrypted, IdentityRequest, Notification, Subtype, UNABLE_TO_PROCESS, Variant,
};
use codec::eap::usim::Sqn;
use codec::eap::{Code, EapPacket, Method};
use proptest::prelude::*;

use super::*;
use crate::limits::AKA_REQUESTS_MAX;
use home::{Home, IMSI, REALM, Talk, failure, permanent, success, usim};

fn policy() -> AkaPolicy {
    AkaPolicy::default()
}

/// Expects a notification, acknowledges it without or under `keys`, and returns its code with what follows.
fn notified(talk: &mut Talk, keys: Option<&codec::eap::aka::ReauthKeys>) -> (Notification, Verdict) {
    let message = talk.message();
    assert_eq!(message.subtype, Subtype::Notification);
    let code = message.attributes.notification.expect("AT_NOTIFICATION");
    assert_eq!(message.has_mac(), !code.before_authentication(), "RFC 4187 §10.19");
    if let Some(keys) = keys {
        assert_eq!(message.verify_mac(keys.k_aut.as_bytes(), b""), Ok(()));
    }
    let builder = talk.response(Subtype::Notification);
    let packet = match keys {
        Some(keys) => builder.finish_with_mac(keys.k_aut.as_bytes(), b""),
        None => builder.finish(),
    };
    (code, talk.send(packet))
}

#[test]
fn r4187_4_a_permanent_identity_is_challenged_at_once() {
    for (digit, variant) in [('0', Variant::Aka), ('6', Variant::AkaPrime)] {
        let mut talk = Talk::new(policy());
        talk.begin(&permanent(digit));
        let (made, verdict) = talk.accept();
        let done = success(verdict);
        assert_eq!((done.variant, &*done.imsi, done.fast), (variant, IMSI, false));
        assert!(done.msk[..] == *made.msk.as_bytes(), "both ends have the same MSK");
        assert_eq!(done.packet, EapPacket::success(talk.message().packet.identifier));
        let refused = failure(talk.send(talk.request.clone()));
        assert_eq!(refused.cause, RejectCause::PeerProtocol, "it is over");
    }
}

#[test]
fn r4187_4_1_unknown_names_are_asked_for_more_each_time_and_then_refused() {
    let mut talk = Talk::new(policy());
    talk.begin("alice@corp.test");
    for asked in [IdentityRequest::Any, IdentityRequest::FullAuth, IdentityRequest::Permanent] {
        assert_eq!(talk.message().attributes.identity_request, Some(asked));
        talk.identify("alice@corp.test");
    }
    let (code, verdict) = notified(&mut talk, None);
    assert_eq!(code, Notification::GENERAL_FAILURE);
    assert_eq!(failure(verdict).cause, RejectCause::UserUnknown);
}

#[test]
fn r4187_10_13_the_identity_round_is_part_of_what_is_proved() {
    let mut talk = Talk::new(policy());
    talk.begin(&format!("2unknown@{REALM}"));
    assert_eq!(talk.message().attributes.identity_request, Some(IdentityRequest::Permanent));
    talk.identify(&permanent('0'));
    let (_, verdict) = talk.accept();
    success(verdict);

    let mut talk = Talk::new(policy());
    talk.begin(&format!("2unknown@{REALM}"));
    talk.identify(&permanent('0'));
    let made = talk.made();
    let builder =
        talk.response(Subtype::Challenge).res(made.res.as_bytes()).checkcode(Checkcode::Hash(&[0; 20]));
    talk.send(builder.finish_with_mac(made.keys.k_aut.as_bytes(), b""));
    let (code, verdict) = notified(&mut talk, None);
    assert_eq!(
        (code, failure(verdict).cause),
        (Notification::GENERAL_FAILURE, RejectCause::AuthenticationFailed)
    );
}

#[test]
fn an_operator_may_ask_everybody() {
    let mut talk = Talk::new(AkaPolicy { always_ask_identity: true, ..policy() });
    talk.begin(&permanent('6'));
    assert_eq!(talk.message().attributes.identity_request, Some(IdentityRequest::Any));
    talk.identify(&permanent('6'));
    success(talk.accept().1);
}

#[test]
fn r4187_4_1_1_6_a_pseudonym_stands_for_its_subscriber() {
    let mut talk = Talk::new(policy());
    talk.begin(&permanent('0'));
    let (made, verdict) = talk.accept();
    success(verdict);
    let pseudonym = made.pseudonym.expect("AT_NEXT_PSEUDONYM");
    assert!(pseudonym.starts_with('2') && !pseudonym.contains('@'), "{pseudonym}");
    let mut talk = Talk::with(policy(), talk.home);
    talk.begin(&format!("{pseudonym}@{REALM}"));
    assert_eq!(&*success(talk.accept().1).imsi, IMSI);
}

#[test]
fn r4187_5_fast_reauthentications_until_their_number_is_used_up() {
    for digit in ['0', '6'] {
        let mut talk = Talk::new(AkaPolicy { reauth_max: 2, ..policy() });
        talk.begin(&permanent(digit));
        let (made, verdict) = talk.accept();
        success(verdict);
        let mut name = made.reauth.expect("AT_NEXT_REAUTH_ID");
        assert!(name.ends_with(REALM), "{name}");
        let keys = made.keys;
        for counter in 1..=2 {
            talk = Talk::with(AkaPolicy { reauth_max: 2, ..policy() }, talk.home);
            talk.begin(&name);
            let (seen, nonce_s, next) = talk.reauth_request(&keys);
            assert_eq!(seen, counter);
            let verdict = talk.reauth_answer(&keys, Encrypted::default().counter(counter), &nonce_s);
            let done = success(verdict);
            assert!(
                done.fast && done.msk[..] == *keys.derive(name.as_bytes(), counter, &nonce_s).msk.as_bytes()
            );
            assert_eq!(next.is_some(), counter < 2, "the last gives no further name");
            name = next.unwrap_or(name);
        }
        assert_eq!(talk.home.vectors, 1, "no quintet but the first");
        // The name was used: it stands for nothing any more.
        let mut talk = Talk::with(policy(), talk.home);
        talk.begin(&name);
        assert_eq!(talk.message().attributes.identity_request, Some(IdentityRequest::FullAuth));
    }
}

#[test]
fn r4187_5_3_a_counter_that_is_too_small_asks_the_usim() {
    let mut talk = Talk::new(policy());
    talk.begin(&permanent('0'));
    let (made, verdict) = talk.accept();
    success(verdict);
    let name = made.reauth.expect("AT_NEXT_REAUTH_ID");
    let mut talk = Talk::with(policy(), talk.home);
    talk.begin(&name);
    let (counter, nonce_s, _) = talk.reauth_request(&made.keys);
    talk.reauth_answer(&made.keys, Encrypted::default().counter(counter).counter_too_small(), &nonce_s);
    let done = success(talk.accept().1);
    assert!(!done.fast);
}

#[test]
fn r4187_5_4_a_reauthentication_is_proved_over_our_nonce_and_counter() {
    let begun = || {
        let mut talk = Talk::new(policy());
        talk.begin(&permanent('0'));
        let (made, verdict) = talk.accept();
        success(verdict);
        let mut talk = Talk::with(policy(), talk.home);
        talk.begin(&made.reauth.expect("AT_NEXT_REAUTH_ID"));
        let (counter, nonce_s, _) = talk.reauth_request(&made.keys);
        (talk, made.keys, counter, nonce_s)
    };
    let (mut talk, keys, counter, _) = begun();
    talk.reauth_answer(&keys, Encrypted::default().counter(counter), &[0; 16]);
    assert_eq!(failure(notified(&mut talk, None).1).why, "AT_MAC is wrong");
    let (mut talk, keys, counter, nonce_s) = begun();
    talk.reauth_answer(&keys, Encrypted::default().counter(counter + 1), &nonce_s);
    assert_eq!(failure(notified(&mut talk, None).1).why, "AT_COUNTER is wrong");
    let (mut talk, keys, _, nonce_s) = begun();
    talk.reauth_answer(&keys, Encrypted::default(), &nonce_s);
    assert_eq!(failure(notified(&mut talk, None).1).cause, RejectCause::PeerProtocol);
}

#[test]
fn r4187_9_6_a_usim_out_of_step_is_followed_once() {
    let mut talk = Talk::new(policy());
    talk.begin(&permanent('0'));
    let rand = *talk.message().attributes.rand.expect("AT_RAND");
    let auts = usim().auts(&rand, Sqn::new(0x0100_0000));
    talk.send(talk.response(Subtype::SynchronizationFailure).auts(&auts).finish());
    assert_eq!(talk.home.sqn, 0x0100_0000 + 32);
    success(talk.accept().1);

    let mut talk = Talk::new(policy());
    talk.begin(&permanent('0'));
    for _ in 0..2 {
        let rand = *talk.message().attributes.rand.expect("AT_RAND");
        let auts = usim().auts(&rand, Sqn::new(0x0100_0000));
        talk.send(talk.response(Subtype::SynchronizationFailure).auts(&auts).finish());
    }
    let (_, verdict) = notified(&mut talk, None);
    assert_eq!(failure(verdict).cause, RejectCause::AuthenticationFailed);

    let mut talk = Talk::new(policy());
    talk.begin(&permanent('0'));
    talk.send(talk.response(Subtype::SynchronizationFailure).auts(&[7; 14]).finish());
    assert_eq!(failure(notified(&mut talk, None).1).why, "AT_AUTS is wrong");
}

#[test]
fn r4187_6_3_3_wrong_answers_are_told_and_end() {
    type Answer = fn(&Talk) -> Vec<u8>;
    let wrong: [(&str, Answer); 4] = [
        ("AT_RES is wrong", |talk| {
            let keys = talk.made().keys;
            talk.response(Subtype::Challenge).res(&[0; 8]).finish_with_mac(keys.k_aut.as_bytes(), b"")
        }),
        ("AT_MAC is wrong", |talk| {
            talk.response(Subtype::Challenge).res(talk.made().res.as_bytes()).finish_with_mac(&[0; 16], b"")
        }),
        ("AT_MAC is wrong", |talk| {
            talk.response(Subtype::Challenge).res(talk.made().res.as_bytes()).finish()
        }),
        ("AT_RES is missing", |talk| {
            let keys = talk.made().keys;
            talk.response(Subtype::Challenge).finish_with_mac(keys.k_aut.as_bytes(), b"")
        }),
    ];
    for (why, answer) in wrong {
        let mut talk = Talk::new(policy());
        talk.begin(&permanent('0'));
        talk.send(answer(&talk));
        let (code, verdict) = notified(&mut talk, None);
        assert_eq!((code, failure(verdict).why), (Notification::GENERAL_FAILURE, why));
        assert!(talk.home.reauths.is_empty() && talk.home.pseudonyms.is_empty(), "nothing was given");
    }
}

#[test]
fn r4187_6_3_3_a_peer_that_gives_up_gets_failure_at_once() {
    for (subtype, cause) in [
        (Subtype::AuthenticationReject, RejectCause::AuthenticationFailed),
        (Subtype::ClientError, RejectCause::PeerProtocol),
    ] {
        let mut talk = Talk::new(policy());
        talk.begin(&permanent('0'));
        let builder = talk.response(subtype);
        let builder =
            if subtype == Subtype::ClientError { builder.client_error(UNABLE_TO_PROCESS) } else { builder };
        let refused = failure(talk.send(builder.finish()));
        assert_eq!((refused.cause, refused.packet[0]), (cause, 4));
    }
}

#[test]
fn who_is_no_subscriber_is_told_before_failure() {
    let mut talk = Talk::new(policy());
    talk.begin(&format!("0999990000000009@{REALM}"));
    let (code, verdict) = notified(&mut talk, None);
    assert_eq!((code, failure(verdict).cause), (Notification::GENERAL_FAILURE, RejectCause::UserUnknown));
}

#[test]
fn r3748_5_3_1_a_nak_gets_the_other_method_where_it_may() {
    let nak = |talk: &Talk, method: Method| {
        EapPacket::build(Code::Response, talk.message().packet.identifier, Method::NAK, &[method.0])
    };
    let prefer = AkaPolicy { method: MethodChoice::Prefer(Variant::AkaPrime), ..policy() };
    let mut talk = Talk::new(prefer.clone());
    talk.begin(&permanent('0'));
    assert_eq!(talk.message().variant, Variant::AkaPrime);
    talk.send(nak(&talk, Method::AKA));
    assert_eq!(talk.message().variant, Variant::Aka);
    assert_eq!(success(talk.accept().1).variant, Variant::Aka);

    let mut talk = Talk::new(prefer.clone());
    talk.begin(&permanent('0'));
    talk.send(nak(&talk, Method::AKA));
    assert_eq!(failure(talk.send(nak(&talk, Method::AKA_PRIME))).cause, RejectCause::AuthenticationFailed);

    for (method, wanted) in [
        (MethodChoice::Only(Variant::AkaPrime), Method::AKA),
        (MethodChoice::Prefer(Variant::AkaPrime), Method::TLS),
        (MethodChoice::Prefer(Variant::AkaPrime), Method(0)),
    ] {
        let mut talk = Talk::new(AkaPolicy { method, ..policy() });
        talk.begin(&permanent('6'));
        assert_eq!(failure(talk.send(nak(&talk, wanted))).why, "peer refuses the EAP method");
    }
}

#[test]
fn r9048_4_a_peer_that_got_the_lesser_method_is_told_which_was_preferred() {
    let bidding = |method, digit| {
        let mut talk = Talk::new(AkaPolicy { method, ..policy() });
        talk.begin(&permanent(digit));
        if talk.message().variant == Variant::AkaPrime {
            let identifier = talk.message().packet.identifier;
            talk.send(EapPacket::build(Code::Response, identifier, Method::NAK, &[Method::AKA.0]));
        }
        assert_eq!(talk.message().variant, Variant::Aka);
        talk.message().attributes.bidding
    };
    assert_eq!(bidding(MethodChoice::Prefer(Variant::AkaPrime), '0'), Some(true));
    // Where the UE chose, or nothing else is served, there is nothing to notice.
    assert_eq!(bidding(MethodChoice::ByIdentity, '0'), None);
    assert_eq!(bidding(MethodChoice::Only(Variant::Aka), '0'), None);
}

#[test]
fn r9048_3_2_another_kdf_than_the_one_there_is_is_refused() {
    let mut talk = Talk::new(policy());
    talk.begin(&permanent('6'));
    assert_eq!(talk.message().attributes.kdfs, [1]);
    talk.send(talk.response(Subtype::Challenge).kdf(2).finish());
    assert_eq!(failure(notified(&mut talk, None).1).why, "peer wants another AT_KDF");
}

#[test]
fn r4187_6_2_success_is_told_under_keys_where_both_want_it() {
    let protected = AkaPolicy { protected_success: true, ..policy() };
    let mut talk = Talk::new(protected.clone());
    talk.begin(&permanent('6'));
    let (made, _) = talk.accept();
    let (code, verdict) = notified(&mut talk, Some(&made.keys));
    assert_eq!(code, Notification::SUCCESS);
    success(verdict);

    let mut talk = Talk::new(protected);
    talk.begin(&permanent('6'));
    talk.accept();
    let refused = failure(talk.send(talk.response(Subtype::Notification).finish_with_mac(&[0; 32], b"")));
    assert_eq!(refused.cause, RejectCause::AuthenticationFailed);
}

#[test]
fn r4187_10_19_a_subscriber_without_the_service_learns_it_under_its_keys() {
    for (cause, expected) in [
        (RejectCause::NoNon3gppSubscription, Notification::NOT_SUBSCRIBED),
        (RejectCause::MaxConnections, Notification::TEMPORARILY_DENIED),
        (RejectCause::NetworkFailure, Notification::GENERAL_FAILURE_AFTER),
    ] {
        let mut talk = Talk::new(policy());
        talk.begin(&permanent('0'));
        talk.home.barred = Some(cause);
        let (made, _) = talk.accept();
        let (code, verdict) = notified(&mut talk, Some(&made.keys));
        assert_eq!((code, failure(verdict).cause), (expected, cause));

        // The same after a fast re-authentication, with its counter (RFC 4187 §9.10).
        let mut talk = Talk::with(policy(), talk.home);
        talk.begin(&made.reauth.expect("AT_NEXT_REAUTH_ID"));
        let (counter, nonce_s, _) = talk.reauth_request(&made.keys);
        talk.reauth_answer(&made.keys, Encrypted::default().counter(counter), &nonce_s);
        let text = talk.message().decrypt(made.keys.k_encr.as_bytes()).expect("sound").expect("AT_ENCR_DATA");
        let inner = codec::eap::aka::Attributes::decode(&text).expect("sound");
        assert_eq!(inner.counter, Some(counter));
        let (code, verdict) = notified(&mut talk, Some(&made.keys));
        assert_eq!((code, failure(verdict).cause), (expected, cause));
    }
}

#[test]
fn a_response_to_another_request_ends() {
    let mut talk = Talk::new(policy());
    talk.begin(&permanent('0'));
    let message = talk.message();
    let stray = message.packet.identifier.wrapping_add(1);
    let packet = AkaBuilder::new(message.variant, Code::Response, stray, Subtype::ClientError).finish();
    assert_eq!(failure(talk.send(packet)).cause, RejectCause::PeerProtocol);
    let mut talk = Talk::new(policy());
    assert_eq!(failure(talk.send(EapPacket::success(1))).cause, RejectCause::PeerProtocol);
    let mut talk = Talk::new(policy());
    assert_eq!(failure(talk.send(vec![])).cause, RejectCause::PeerProtocol);
}

/// A response of a hostile peer: sound on the outside, anything within.
fn hostile() -> impl Strategy<Value = (u8, u8, Vec<u8>)> {
    let subtype =
        prop_oneof![Just(1u8), Just(2), Just(4), Just(5), Just(12), Just(13), Just(14), any::<u8>()];
    (prop_oneof![Just(23u8), Just(50), Just(3), Just(1), any::<u8>()], subtype, attributes())
}

fn attributes() -> impl Strategy<Value = Vec<u8>> {
    let attribute =
        (any::<u8>(), 1u8..6, proptest::collection::vec(any::<u8>(), 18)).prop_map(|(kind, words, fill)| {
            let mut octets = vec![kind % 30, words];
            octets.extend(fill.iter().cycle().take(usize::from(words) * 4 - 2));
            octets
        });
    proptest::collection::vec(attribute, 0..4).prop_map(|list| list.concat())
}

proptest! {
    #[test]
    fn hostile_peers_get_bounded_rounds_and_no_success(
        first in "[0-9a-z@.]{0,30}",
        packets in proptest::collection::vec(hostile(), 1..40),
    ) {
        let mut talk = Talk::with(policy(), Home::new());
        let mut rounds = 0;
        let mut verdict = talk.begin(&first);
        for (method, subtype, attributes) in packets {
            match verdict {
                Verdict::Continue(request) => {
                    rounds += 1;
                    prop_assert!(rounds <= AKA_REQUESTS_MAX);
                    let data = [&[subtype, 0, 0][..], &attributes].concat();
                    verdict = talk.send(EapPacket::build(Code::Response, request[1], Method(method), &data));
                }
                Verdict::Failure(_) => break,
                Verdict::Success(_) => prop_assert!(false, "a peer without a USIM was let in"),
            }
        }
    }
}
