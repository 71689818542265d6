//! IKE_AUTH (RFC 7296 §1.2, §2.15, §2.16) by peers that have keys and no credentials.
//!
//! What is to change nothing is followed by a wrong proof: its refusal shows that the IKE SA was still there.

use super::{AUTH_FAILED, CLOSED, CRITICAL, Case, INVALID_SPI, SYNTAX, UNKNOWN_PAYLOAD};
use crate::abuse::Kind;
use crate::abuse::Run::Keys;
use crate::abuse::handshake::{Handshake, WRONG_PROOF, fill_auth};
use crate::abuse::seen::Seen;
use crate::abuse::stage::QUIET;
use crate::abuse::wire::Wire;
use crate::ue::{Forgery, Identity};
use codec::OsRandom;
use codec::ike::{ExchangeType, MessageBuilder, PayloadType};

pub const CASES: &[Case] = &[
    Case {
        name: "auth-wrong",
        source: "RFC 7296 §2.21.2",
        sent: "IKE_AUTH with a wrong AUTH",
        expected: &[AUTH_FAILED],
        run: Keys(Handshake::refused),
    },
    Case {
        name: "auth-unknown-identity",
        source: "RFC 7296 §2.21.2",
        sent: "IKE_AUTH of somebody nobody knows",
        expected: &[AUTH_FAILED],
        run: Keys(|handshake| {
            handshake.who = Identity::parse("nobody@abuse.invalid").into();
            handshake.refused()
        }),
    },
    Case {
        name: "auth-empty-proof",
        source: "RFC 7296 §3.8",
        sent: "IKE_AUTH with an AUTH of no octets",
        expected: &[AUTH_FAILED, SYNTAX],
        run: Keys(|handshake| forged(handshake, Some(&[]))),
    },
    Case {
        name: "auth-long-proof",
        source: "RFC 7296 §3.8",
        sent: "IKE_AUTH with an AUTH of 60,000 octets",
        expected: &[AUTH_FAILED, SYNTAX],
        run: Keys(|handshake| forged(handshake, Some(&[0x5a; 60_000]))),
    },
    Case {
        name: "auth-no-proof",
        source: "RFC 7296 §2.16",
        sent: "IKE_AUTH without AUTH: EAP is asked for",
        expected: &[AUTH_FAILED, Kind::EapAsked],
        run: Keys(|handshake| forged(handshake, None)),
    },
    Case {
        name: "auth-no-identity",
        source: "RFC 7296 §1.2",
        sent: "IKE_AUTH without IDi",
        expected: &[AUTH_FAILED, SYNTAX],
        run: Keys(|handshake| {
            let config = handshake.config.clone();
            let message = handshake.forge_auth(1, |builder| fill_auth(builder, &config, Some(&WRONG_PROOF)));
            handshake.asks(&message)
        }),
    },
    Case {
        name: "auth-nothing",
        source: "RFC 7296 §1.2",
        sent: "IKE_AUTH whose Encrypted payload is empty",
        expected: &[AUTH_FAILED, SYNTAX],
        run: Keys(|handshake| {
            let message = handshake.forge_auth(1, |_| {});
            handshake.asks(&message)
        }),
    },
    Case {
        name: "auth-unknown-critical",
        source: "RFC 7296 §2.5 MUST reject",
        sent: "IKE_AUTH with an unknown payload marked critical",
        expected: &[CRITICAL, AUTH_FAILED],
        run: Keys(|handshake| {
            let (config, idi) = (handshake.config.clone(), handshake.who.idi.clone());
            let message = handshake.forge_auth(1, |builder| {
                builder.id_i(&idi.view());
                fill_auth(builder, &config, Some(&WRONG_PROOF));
                unknown_critical(builder);
            });
            handshake.asks(&message)
        }),
    },
    Case {
        name: "auth-broken-payload",
        source: "RFC 9329 §6.1 MUST; RFC 7296 §2.21.2",
        sent: "IKE_AUTH with a Notify whose SPI is longer than itself",
        expected: &[SYNTAX, AUTH_FAILED],
        run: Keys(|handshake| {
            let message = handshake.forge_auth(1, broken_notify);
            handshake.asks(&message)
        }),
    },
    Case {
        name: "auth-bad-icv",
        source: "RFC 7296 §2.21; RFC 8019 §4.6 (keys are kept); RFC 9329 §6.1 SHOULD close",
        sent: "an honest IKE_AUTH with a flipped ICV, then a wrong proof",
        expected: &[AUTH_FAILED, CLOSED],
        run: Keys(|handshake| {
            let mut message = handshake.auth.clone();
            flip_last(&mut message);
            then_refused(handshake, &message)
        }),
    },
    Case {
        name: "auth-bad-icv-elsewhere",
        source: "RFC 9329 §6.1 (that connection only); D6",
        sent: "the same on another connection, then a wrong proof on the first",
        expected: &[AUTH_FAILED],
        run: Keys(|handshake| {
            let mut message = handshake.auth.clone();
            flip_last(&mut message);
            let peer = handshake.wire.addresses().map(|(_, gateway)| Wire::prefixed(gateway));
            let Ok(Ok(mut other)) = peer else { return Seen::one(Kind::Refused) };
            other.send_ike(&message);
            other.send_ike(&message);
            std::thread::sleep(QUIET);
            handshake.refused()
        }),
    },
    Case {
        name: "auth-in-clear",
        source: "RFC 7296 §1.2 (protected), §2.4",
        sent: "IKE_AUTH without encryption, then a wrong proof",
        expected: &[SYNTAX, INVALID_SPI, AUTH_FAILED],
        run: Keys(|handshake| {
            let idi = handshake.who.idi.clone();
            let forgery = Forgery::request(ExchangeType::IKE_AUTH).with_id(1);
            let message = handshake.initiator.forge_clear(forgery, |builder| {
                builder.id_i(&idi.view());
            });
            then_refused(handshake, &message.unwrap_or_default())
        }),
    },
    Case {
        name: "auth-message-id",
        source: "RFC 7296 §2.3 (outside the window)",
        sent: "IKE_AUTH with Message IDs 0, 7 and 4294967295, then a wrong proof",
        expected: &[SYNTAX, AUTH_FAILED],
        run: Keys(|handshake| {
            for id in [0, 7, u32::MAX] {
                let message = handshake.forge_auth(id, |_| {});
                handshake.wire.send_ike(&message);
            }
            handshake.refused()
        }),
    },
    Case {
        name: "auth-skipped",
        source: "RFC 7296 §1.2 (IKE_AUTH comes first)",
        sent: "CREATE_CHILD_SA in the place of IKE_AUTH, then a wrong proof",
        expected: &[SYNTAX, AUTH_FAILED, INVALID_SPI, CLOSED],
        run: Keys(|handshake| in_its_place(handshake, ExchangeType::CREATE_CHILD_SA, |_| {})),
    },
    Case {
        name: "auth-delete-first",
        source: "RFC 7296 §1.2, §1.4",
        sent: "INFORMATIONAL with a Delete in the place of IKE_AUTH, then a wrong proof",
        expected: &[SYNTAX, AUTH_FAILED, INVALID_SPI, CLOSED],
        run: Keys(|handshake| {
            in_its_place(handshake, ExchangeType::INFORMATIONAL, |builder| {
                builder.delete_ike();
            })
        }),
    },
    Case {
        name: "auth-repeated",
        source: "RFC 7296 §2.1",
        sent: "a wrong proof ten times",
        expected: &[AUTH_FAILED, INVALID_SPI, Kind::Silent, CLOSED],
        run: Keys(repeated),
    },
    Case {
        name: "auth-eap-garbage",
        source: "RFC 7296 §2.16, §2.21.2; RFC 3748 §4",
        sent: "a broken EAP packet in answer to the first EAP request",
        expected: &[AUTH_FAILED, SYNTAX, Kind::EapFailure, Kind::EapAsked, Kind::Silent, CLOSED],
        run: Keys(|handshake| after_eap_request(handshake, |_| vec![2, 9, 0, 200, 23])),
    },
    Case {
        name: "auth-eap-success-by-peer",
        source: "RFC 3748 §4.2 (of the server alone)",
        sent: "EAP Success of the peer in answer to the first EAP request",
        expected: &[AUTH_FAILED, SYNTAX, Kind::EapFailure, Kind::EapAsked, Kind::Silent, CLOSED],
        run: Keys(|handshake| after_eap_request(handshake, |_| vec![3, 1, 0, 4])),
    },
    Case {
        name: "auth-eap-nak",
        source: "RFC 3748 §5.3.1",
        sent: "a Nak that wants no other method",
        expected: &[AUTH_FAILED, Kind::EapFailure],
        run: Keys(|handshake| after_eap_request(handshake, |request| vec![2, request[1], 0, 6, 3, 0])),
    },
    Case {
        name: "auth-eap-wrong-identifier",
        source: "RFC 3748 §4.1 MUST match",
        sent: "a Nak with the Identifier of another request",
        expected: &[AUTH_FAILED, SYNTAX, Kind::EapFailure, Kind::EapAsked, Kind::Silent, CLOSED],
        run: Keys(|handshake| {
            after_eap_request(handshake, |request| vec![2, request[1].wrapping_add(1), 0, 6, 3, 0])
        }),
    },
    Case {
        name: "auth-eap-wrong-answer",
        source: "RFC 7296 §2.16, §2.21.2; RFC 4187 §6.3",
        sent: "an answer of the method asked for, full of nonsense instead of a proof",
        expected: &[AUTH_FAILED, SYNTAX, Kind::EapFailure, Kind::EapAsked],
        run: Keys(|handshake| {
            after_eap_request(handshake, |request| {
                [&[2, request[1], 0, 45, request[4]][..], &[0x5a; 40]].concat()
            })
        }),
    },
];

/// Sends an IKE_AUTH with identity and the proof given.
fn forged(handshake: &mut Handshake, proof: Option<&[u8]>) -> Seen {
    let message = handshake.proof(proof);
    handshake.asks(&message)
}

/// Sends what must change nothing, then a wrong proof.
fn then_refused(handshake: &mut Handshake, message: &[u8]) -> Seen {
    handshake.wire.send_ike(message);
    handshake.refused()
}

fn in_its_place(
    handshake: &mut Handshake,
    exchange: ExchangeType,
    fill: impl FnOnce(&mut MessageBuilder),
) -> Seen {
    let forgery = Forgery::request(exchange).with_id(1);
    let message = handshake.initiator.forge(forgery, &mut OsRandom, fill);
    then_refused(handshake, &message.unwrap_or_default())
}

/// The first must be refused; the others are all sent, whatever comes: an IKE SA that is gone stays so.
fn repeated(handshake: &mut Handshake) -> Seen {
    let message = handshake.proof(Some(&WRONG_PROOF));
    let mut seen = handshake.asks(&message);
    if seen.last() != Some(AUTH_FAILED) {
        return seen.then_odd("no refusal to repeat");
    }
    for _ in 1..10 {
        handshake.wire.send_ike(&message);
        seen = seen.then_all(handshake.hears(QUIET));
    }
    seen
}

/// Begins EAP with the identity there is, and answers the first request; where EAP is refused the case does not apply.
fn after_eap_request(handshake: &mut Handshake, answer: impl FnOnce(&[u8]) -> Vec<u8>) -> Seen {
    let seen = forged(handshake, None);
    match seen.last() {
        // Code, Identifier, Length and Type.
        Some(Kind::EapAsked) if handshake.eap.len() >= 5 => {}
        _ if seen == Seen::one(AUTH_FAILED) => {
            return Seen::default().then_inapplicable("without EAP for this identity");
        }
        _ => return seen.then_odd("neither a request of EAP nor a refusal"),
    }
    let packet = answer(&handshake.eap);
    let message = handshake.forge_auth(2, |builder| {
        // Its Length may lie, which a view would not let it do.
        builder.payload(PayloadType::EAP, |out| out.extend_from_slice(&packet));
    });
    handshake.asks(&message)
}

/// A Notify that claims an SPI longer than itself.
pub fn broken_notify(builder: &mut MessageBuilder) {
    builder.payload(PayloadType::NOTIFY, |out| out.extend_from_slice(&[3, 200, 0x40, 4]));
}

/// An unknown payload marked critical.
pub fn unknown_critical(builder: &mut MessageBuilder) {
    builder.payload(UNKNOWN_PAYLOAD, |out| {
        // The flags are the second octet of the header that was just written.
        let flags = out.len() - 3;
        out[flags] |= 0x80;
        out.extend_from_slice(&[1, 2, 3, 4]);
    });
}

pub fn flip_last(octets: &mut [u8]) {
    if let Some(last) = octets.last_mut() {
        *last ^= 1;
    }
}
