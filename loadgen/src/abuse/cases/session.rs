//! IKE of an attached UE: what is outside of its exchanges, inside of them and wrong, or on the wrong connection.

use super::auth::{broken_notify, flip_last};
use super::{CLOSED, CRITICAL, Case, NO_PROPOSAL, SERVED, SYNTAX, UNKNOWN_EXCHANGE, UNKNOWN_PAYLOAD};
use crate::abuse::Kind;
use crate::abuse::Run::Session;
use crate::abuse::run::Lab;
use crate::abuse::seen::Seen;
use crate::abuse::session::Ue;
use crate::abuse::stage::QUIET;
use crate::abuse::wire::{Arrival, Wire, ike_frame};
use crate::ue::Forgery;
use codec::esp::EspSpi;
use codec::ike::payload::{NotifyView, Proposal, TrafficSelector};
use codec::ike::{ExchangeType, NotifyType, PayloadType, ProtocolId};

const KEPT: Kind = Kind::Kept;
const ANSWERED: Kind = Kind::Answered;
const TS_UNACCEPTABLE: Kind = Kind::Notify(NotifyType::TS_UNACCEPTABLE);
const NOT_FOUND: Kind = Kind::Notify(NotifyType::CHILD_SA_NOT_FOUND);
const TEMPORARY: Kind = Kind::Notify(NotifyType::TEMPORARY_FAILURE);

/// Connections and the header.
pub const CASES: &[Case] = &[
    Case {
        name: "session-length-1",
        source: "RFC 9329 §3.1 MUST close, §6.1 SHOULD keep SAs",
        sent: "a Length of 1 on a session's connection; then the session on another",
        expected: &[CLOSED, KEPT],
        run: Session(|ue, lab| {
            ue.wire.send(&[0, 1]);
            ue.closes_and_lives(lab.stage().bounds.patience)
        }),
    },
    Case {
        name: "session-cut-frame",
        source: "RFC 9329 §6.1 MUST discard",
        sent: "half a message, RST; the session on another connection",
        expected: &[KEPT],
        run: Session(|ue, _| {
            let message = ue.forge(Forgery::request(ExchangeType::INFORMATIONAL).with_id(900), |_| {});
            ue.wire.send(&ike_frame(&message)[..20]);
            if ue.reconnect() { ue.lives() } else { Seen::one(Kind::Refused) }
        }),
    },
    Case {
        name: "session-rst-storm",
        source: "RFC 9329 §6.1, §10 SHOULD keep SAs",
        sent: "a session that loses its connection by RST fifty times",
        expected: &[KEPT],
        run: Session(|ue, _| {
            for _ in 0..50 {
                if !ue.reconnect() {
                    return Seen::one(Kind::Refused);
                }
                let seen = ue.lives();
                if seen.last() != Some(KEPT) {
                    return seen;
                }
            }
            Seen::one(KEPT)
        }),
    },
    Case {
        name: "session-no-prefix",
        source: "RFC 9329 §6.1 MUST NOT accept",
        sent: "a session's request on a new connection without the prefix",
        expected: &[CLOSED, KEPT],
        run: Session(|ue, lab| {
            let message = ue.forge(Forgery::request(ExchangeType::INFORMATIONAL).with_id(901), |_| {});
            let seen = lab.stage().bare(&ike_frame(&message));
            seen.then_all(ue.lives())
        }),
    },
    Case {
        name: "session-second-init",
        source: "RFC 9329 §6.1 MUST NOT share; D4",
        sent: "IKE_SA_INIT of another SA on a session's connection",
        expected: &[KEPT],
        run: Session(|ue, lab| {
            let init = lab.stage().init();
            ue.wire.send_ike(&init.octets());
            match ue.wire.next(QUIET) {
                Arrival::Ike(message) if message.starts_with(&init.header.spi_i.0) => {
                    Seen::odd("served on a session's connection")
                }
                _ => ue.lives(),
            }
        }),
    },
    Case {
        name: "session-foreign-request",
        source: "RFC 9329 §6.1 MUST NOT share; D4",
        sent: "another session's request on a session's connection; then both on their own",
        expected: &[KEPT],
        run: Session(foreign_request),
    },
    Case {
        name: "session-beside",
        source: "RFC 9329 §6.1 SHOULD stay where the last valid message came",
        sent: "prefix, garbage and a bad ICV for the session on a second connection; then its own",
        expected: &[KEPT],
        run: Session(beside),
    },
    Case {
        name: "session-bad-icv",
        source: "RFC 9329 §6.1 SHOULD close; D6",
        sent: "a request with a flipped ICV; then the session on another connection",
        expected: &[CLOSED, KEPT],
        run: Session(|ue, lab| {
            let id = ue.initiator.next_message_id().unwrap_or_default();
            let mut message = ue.forge(Forgery::request(ExchangeType::INFORMATIONAL).with_id(id), |_| {});
            flip_last(&mut message);
            ue.wire.send_ike(&message);
            ue.closes_and_lives(lab.stage().bounds.patience)
        }),
    },
    Case {
        name: "session-in-clear",
        source: "RFC 7296 §2.4, §1.4 MUST be protected",
        sent: "a Delete of the IKE SA in clear",
        expected: &[KEPT],
        run: Session(|ue, _| {
            let id = ue.initiator.next_message_id().unwrap_or_default();
            let forgery = Forgery::request(ExchangeType::INFORMATIONAL).with_id(id);
            let message = ue.initiator.forge_clear(forgery, |builder| {
                builder.delete_ike();
            });
            ue.wire.send_ike(&message.unwrap_or_default());
            ue.lives()
        }),
    },
    Case {
        name: "session-message-id",
        source: "RFC 7296 §2.3 (outside the window)",
        sent: "authentic requests with Message IDs 0, +5 and 4294967295",
        expected: &[KEPT],
        run: Session(|ue, _| {
            let next = ue.initiator.next_message_id().unwrap_or_default();
            for id in [0, next + 5, u32::MAX] {
                let forgery = Forgery::request(ExchangeType::INFORMATIONAL).with_id(id);
                let message = ue.forge(forgery, |builder| {
                    builder.delete_ike();
                });
                ue.wire.send_ike(&message);
            }
            ue.lives()
        }),
    },
    Case {
        name: "session-response",
        source: "RFC 7296 §2.1 (nobody asked)",
        sent: "authentic responses to requests that were never made",
        expected: &[KEPT],
        run: Session(|ue, _| {
            for id in [0, 1, 77] {
                let forgery = Forgery::request(ExchangeType::INFORMATIONAL).with_id(id);
                let message = ue.forge(Forgery { response: true, ..forgery }, |_| {});
                ue.wire.send_ike(&message);
            }
            ue.lives()
        }),
    },
    Case {
        name: "session-repeated",
        source: "RFC 7296 §2.1 MUST be the same response; RFC 9329 §6.2",
        sent: "one request three times, and once on another connection",
        expected: &[ANSWERED, KEPT],
        run: Session(repeated),
    },
    Case {
        name: "session-octet-by-octet",
        source: "RFC 9329 §3 (a stream)",
        sent: "a request in segments of one octet",
        expected: &[ANSWERED, KEPT],
        run: Session(|ue, _| {
            let message = ue.forge(Forgery::request(ExchangeType::INFORMATIONAL), |_| {});
            ue.wire.send_octets(&ike_frame(&message), std::time::Duration::from_millis(1));
            match ue.wire.next(crate::abuse::stage::ANSWER_MAX) {
                Arrival::Ike(answer) if ue.initiator.read(&answer).is_some() => {
                    Seen::one(ANSWERED).then_all(ue.lives())
                }
                _ => Seen::one(Kind::Silent),
            }
        }),
    },
    Case {
        name: "session-slow-reader",
        source: "RFC 9329 §9.1 (bounded queues); D10",
        sent: "20,000 repetitions of a request by a UE that reads nothing, a newcomer beside it",
        expected: &[KEPT, CLOSED],
        run: Session(slow_reader),
    },
];

/// What requests contain.
pub const EXCHANGES: &[Case] = &[
    Case {
        name: "exchange-broken-payload",
        source: "RFC 9329 §6.1 MUST; RFC 7296 §2.21.3",
        sent: "a Notify whose SPI is longer than itself; then IKE_SA_INIT on the same connection",
        expected: &[SYNTAX, SERVED],
        run: Session(|ue, lab| {
            let seen = ue.asks(ExchangeType::INFORMATIONAL, broken_notify);
            seen.then_all(lab.stage().served_on(&mut ue.wire))
        }),
    },
    Case {
        name: "exchange-unknown",
        source: "RFC 7296 §2.21.3",
        sent: "an authentic request of exchange type 250",
        expected: &[SYNTAX],
        run: Session(|ue, _| ue.asks(UNKNOWN_EXCHANGE, |_| {})),
    },
    Case {
        name: "exchange-unknown-critical",
        source: "RFC 7296 §2.5 MUST reject",
        sent: "INFORMATIONAL with an unknown payload marked critical",
        expected: &[CRITICAL, KEPT],
        run: Session(|ue, _| {
            let seen = ue.asks(ExchangeType::INFORMATIONAL, |builder| {
                builder.payload(UNKNOWN_PAYLOAD, |out| {
                    let flags = out.len() - 3;
                    out[flags] |= 0x80;
                    out.push(0);
                });
            });
            seen.then_all(ue.lives())
        }),
    },
    Case {
        name: "exchange-unknown-payload",
        source: "RFC 7296 §2.5, §3.10.1 MUST ignore",
        sent: "INFORMATIONAL with an unknown payload and unknown notifications, error and status",
        expected: &[ANSWERED, KEPT],
        run: Session(|ue, _| {
            let seen = ue.asks(ExchangeType::INFORMATIONAL, |builder| {
                builder.payload(UNKNOWN_PAYLOAD, |out| out.push(0));
                builder.notify(NotifyType(9_999), &[1]).notify(super::UNKNOWN_STATUS, &[]);
            });
            seen.then_all(ue.lives())
        }),
    },
    Case {
        name: "exchange-delete-unknown",
        source: "RFC 7296 §1.4.1",
        sent: "a Delete of Child SAs that are not there",
        expected: &[ANSWERED, KEPT],
        run: Session(|ue, _| {
            let seen = ue.asks(ExchangeType::INFORMATIONAL, |builder| {
                builder.delete_esp(&[EspSpi(0x7fff_0001), EspSpi(1), EspSpi(0)]);
            });
            seen.then_all(ue.lives())
        }),
    },
    Case {
        name: "exchange-delete-lies",
        source: "RFC 7296 §3.11, §2.21.3",
        sent: "a Delete that claims 65,535 SPIs and has none",
        expected: &[SYNTAX],
        run: Session(|ue, _| {
            ue.asks(ExchangeType::INFORMATIONAL, |builder| {
                builder.payload(PayloadType::DELETE, |out| out.extend_from_slice(&[3, 4, 0xff, 0xff]));
            })
        }),
    },
    Case {
        name: "exchange-rekey-unknown",
        source: "RFC 7296 §2.25",
        sent: "a rekey of a Child SA that is not there",
        expected: &[NOT_FOUND, KEPT],
        run: Session(|ue, lab| {
            let rekey = NotifyView {
                protocol: ProtocolId::ESP,
                spi: &[0x7f, 0xff, 0, 1],
                ..NotifyView::new(NotifyType::REKEY_SA, &[])
            };
            let transforms = lab.config().esp[0].transforms(&[]);
            let seen = ue.asks(ExchangeType::CREATE_CHILD_SA, |builder| {
                builder.notify_view(&rekey);
                offer(builder, ProtocolId::ESP, &transforms);
            });
            seen.then_all(ue.lives())
        }),
    },
    Case {
        name: "exchange-child-no-proposal",
        source: "RFC 9329 §3.2 (no AH); RFC 7296 §2.7",
        sent: "CREATE_CHILD_SA for AH",
        expected: &[NO_PROPOSAL, KEPT],
        run: Session(|ue, lab| {
            let transforms = lab.config().esp[0].transforms(&[]);
            let seen = ue.asks(ExchangeType::CREATE_CHILD_SA, |builder| {
                offer(builder, ProtocolId::AH, &transforms);
            });
            seen.then_all(ue.lives())
        }),
    },
    Case {
        name: "exchange-child-empty-selectors",
        source: "RFC 7296 §3.13, §2.21.3",
        sent: "CREATE_CHILD_SA whose TSi names no selector",
        expected: &[SYNTAX, TS_UNACCEPTABLE, KEPT],
        run: Session(|ue, lab| {
            let transforms = lab.config().esp[0].transforms(&[]);
            let seen = ue.asks(ExchangeType::CREATE_CHILD_SA, |builder| {
                let spi = [0x7a, 1, 2, 4];
                let proposal =
                    [Proposal { number: 1, protocol: ProtocolId::ESP, spi: &spi, transforms: &transforms }];
                builder.sa(&proposal).nonce(&[7; 32]).ts_i(&[]).ts_r(&[TrafficSelector::ANY_IPV4]);
            });
            match seen.last() {
                Some(SYNTAX) => seen,
                _ => seen.then_all(ue.lives()),
            }
        }),
    },
    Case {
        name: "exchange-child-flood",
        source: "RFC 8019 §5; RFC 7296 §1.3 (NO_ADDITIONAL_SAS)",
        sent: "40 CREATE_CHILD_SA in a row",
        expected: &[
            ANSWERED,
            TEMPORARY,
            Kind::Notify(NotifyType::NO_ADDITIONAL_SAS),
            TS_UNACCEPTABLE,
            NO_PROPOSAL,
            KEPT,
        ],
        run: Session(child_flood),
    },
    Case {
        name: "exchange-auth-again",
        source: "RFC 7296 §1.2 (once)",
        sent: "IKE_AUTH on a session that is up",
        expected: &[SYNTAX, KEPT],
        run: Session(|ue, _| {
            let seen = ue.asks(ExchangeType::IKE_AUTH, |_| {});
            match seen.last() {
                Some(SYNTAX) => seen,
                _ => seen.then_all(ue.lives()),
            }
        }),
    },
];

/// A Child SA's offer with nonce and selectors.
fn offer(
    builder: &mut codec::ike::MessageBuilder,
    protocol: ProtocolId,
    transforms: &[codec::ike::payload::Transform],
) {
    let spi = [0x7a, 1, 2, 5];
    let any = [TrafficSelector::ANY_IPV4];
    builder.sa(&[Proposal { number: 1, protocol, spi: &spi, transforms }]).nonce(&[7; 32]);
    builder.ts_i(&any).ts_r(&any);
}

fn foreign_request(ue: &mut Ue, lab: &Lab) -> Seen {
    let Ok(mut other) = lab.attach() else { return Seen::odd("no second session") };
    let id = other.initiator.next_message_id().unwrap_or_default();
    let message = other.forge(Forgery::request(ExchangeType::INFORMATIONAL).with_id(id), |_| {});
    ue.wire.send_ike(&message);
    if !matches!(ue.wire.next(QUIET), Arrival::Silence) {
        return Seen::odd("answered, or closed, on the other session's connection");
    }
    let seen = ue.lives().then_all(other.lives());
    other.detach();
    seen
}

fn beside(ue: &mut Ue, lab: &Lab) -> Seen {
    let Ok(mut second) = Wire::prefixed(lab.stage().gateway) else { return Seen::one(Kind::Refused) };
    second.send(&[0, 3, 0x5a]);
    let id = ue.initiator.next_message_id().unwrap_or_default();
    let mut message = ue.forge(Forgery::request(ExchangeType::INFORMATIONAL).with_id(id), |_| {});
    flip_last(&mut message);
    second.send_ike(&message);
    std::thread::sleep(QUIET);
    ue.lives()
}

fn repeated(ue: &mut Ue, lab: &Lab) -> Seen {
    let message = ue.forge(Forgery::request(ExchangeType::INFORMATIONAL), |_| {});
    let Ok(mut second) = Wire::prefixed(lab.stage().gateway) else { return Seen::one(Kind::Refused) };
    let mut first: Option<Vec<u8>> = None;
    for round in 0..4 {
        let wire = if round == 3 { &mut second } else { &mut ue.wire };
        wire.send_ike(&message);
        match wire.next(crate::abuse::stage::ANSWER_MAX) {
            Arrival::Ike(answer) if first.as_ref().is_none_or(|first| *first == answer) => {
                first = Some(answer);
            }
            Arrival::Ike(_) => return Seen::odd("another response to the same request"),
            _ => return Seen::one(Kind::Silent),
        }
    }
    Seen::one(ANSWERED).then_all(ue.lives())
}

fn child_flood(ue: &mut Ue, lab: &Lab) -> Seen {
    let transforms = lab.config().esp[0].transforms(&[]);
    let mut seen = Seen::default();
    for _ in 0..40 {
        let one =
            ue.asks(ExchangeType::CREATE_CHILD_SA, |builder| offer(builder, ProtocolId::ESP, &transforms));
        let last = one.last();
        if seen.last() != last {
            seen = seen.then_all(one);
        }
        if matches!(last, Some(Kind::Silent | Kind::Closed | Kind::Odd)) {
            return seen;
        }
    }
    seen.then_all(ue.lives())
}

/// A session of its own on a connection that takes little; the one given serves as the newcomer's witness.
fn slow_reader(ue: &mut Ue, lab: &Lab) -> Seen {
    let Ok(mut wire) = Wire::connect_narrow(lab.stage().gateway) else { return Seen::one(Kind::Refused) };
    wire.send(b"IKETCP");
    let mut deaf = match lab.attach_on(wire) {
        Ok(deaf) => deaf,
        Err(cause) => return Seen::odd(cause),
    };
    let message = ike_frame(&deaf.forge(Forgery::request(ExchangeType::INFORMATIONAL), |_| {}));
    let burst = message.repeat(100);
    for _ in 0..200 {
        // A responder that stops reading, or closes, has had enough: either is fine.
        if !deaf.wire.send(&burst) {
            break;
        }
    }
    let newcomer = lab.attach().map(|mut newcomer| newcomer.detach());
    if let Err(cause) = newcomer {
        return Seen::odd(format!("a newcomer beside it: {cause}"));
    }
    let seen = ue.lives();
    deaf.reconnect();
    let back = deaf.lives();
    deaf.detach();
    seen.then_all(back)
}
