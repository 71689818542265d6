//! IKE of an attached UE outside of its exchanges, and on the wrong connection (RFC 9329 §6.1).

use super::auth::flip_last;
use super::{CLOSED, Case};
use crate::abuse::Kind;
use crate::abuse::Run::Session;
use crate::abuse::handshake::next_answer;
use crate::abuse::run::Lab;
use crate::abuse::seen::Seen;
use crate::abuse::session::Ue;
use crate::abuse::stage::{ANSWER_MAX, QUIET};
use crate::abuse::wire::{Arrival, Wire, ike_frame};
use crate::ue::Forgery;
use codec::ike::ExchangeType;

const KEPT: Kind = Kind::Kept;
const ANSWERED: Kind = Kind::Answered;

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
            match next_answer(&mut ue.wire, QUIET) {
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
        sent: "authentic Deletes of the IKE SA with Message IDs 0, five ahead and 4294967295",
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
            let seen = ue.answer();
            if seen.last() == Some(ANSWERED) { seen.then_all(ue.lives()) } else { seen }
        }),
    },
    Case {
        name: "session-slow-reader",
        source: "D10",
        sent: "20,000 repetitions of a request by a UE that reads nothing, a newcomer beside it",
        expected: &[KEPT],
        run: Session(slow_reader),
    },
];

fn foreign_request(ue: &mut Ue, lab: &Lab) -> Seen {
    let Ok(mut other) = lab.attach() else { return Seen::odd("no second session") };
    let id = other.initiator.next_message_id().unwrap_or_default();
    let message = other.forge(Forgery::request(ExchangeType::INFORMATIONAL).with_id(id), |_| {});
    ue.wire.send_ike(&message);
    if !matches!(next_answer(&mut ue.wire, QUIET), Arrival::Silence) {
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
        match next_answer(wire, ANSWER_MAX) {
            Arrival::Ike(answer) if first.as_ref().is_none_or(|first| *first == answer) => {
                first = Some(answer);
            }
            Arrival::Ike(_) => return Seen::odd("another response to the same request"),
            _ => return Seen::one(Kind::Silent),
        }
    }
    Seen::one(ANSWERED).then_all(ue.lives())
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
