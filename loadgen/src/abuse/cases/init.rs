//! IKE_SA_INIT (RFC 7296 §1.2): offers, key exchange, nonce, cookie, repetition.

use super::{CLOSED, Case, INVALID_KE, INVALID_SPI, NO_PROPOSAL, SERVED, SYNTAX};
use crate::abuse::Kind;
use crate::abuse::Run::Stream;
use crate::abuse::draft::{Draft, Part};
use crate::abuse::seen::Seen;
use crate::abuse::stage::{QUIET, Stage};
use crate::abuse::wire::{Arrival, Wire};
use codec::ike::{ExchangeType, IkeHeader, IkeSpi, MessageId, PayloadType};
use std::time::Duration;

pub const CASES: &[Case] = &[
    Case {
        name: "init-no-proposal",
        source: "RFC 7296 §2.7, §1.2",
        sent: "IKE_SA_INIT that offers DES with MD5 only, then an innocent one",
        expected: &[NO_PROPOSAL, SERVED],
        run: Stream(|stage| refused_then_served(stage, &des_only(stage))),
    },
    Case {
        name: "init-esp-proposal",
        source: "RFC 7296 §3.3.1",
        sent: "IKE_SA_INIT whose proposals are for ESP, then an innocent one",
        expected: &[NO_PROPOSAL, SYNTAX, SERVED],
        run: Stream(|stage| {
            let bad = stage.init().alter(PayloadType::SA, |part| part.body[5] = 3);
            stage.message_then_served(&bad.octets())
        }),
    },
    Case {
        name: "init-ke-group",
        source: "RFC 7296 §1.2; RFC 9329 §6.4 SHOULD NOT close",
        sent: "IKE_SA_INIT with KE of a group nobody has; after 1 s an innocent one on the same connection",
        expected: &[INVALID_KE, SERVED],
        run: Stream(ke_group),
    },
    Case {
        name: "init-ke-zeros",
        source: "RFC 6989 §2.1, RFC 8031; RFC 7748 §6.1",
        sent: "IKE_SA_INIT with a public value of zeros; if it is answered, an IKE_AUTH that needs the shared secret",
        expected: &[Kind::Taken, SYNTAX, INVALID_SPI, CLOSED, Kind::Silent],
        run: Stream(|stage| bad_ke(stage, |part| part.body[4..].fill(0))),
    },
    Case {
        name: "init-ke-ones",
        source: "RFC 6989 §2.1 to §2.3",
        sent: "IKE_SA_INIT with a public value of ones (no point of a curve, above p - 1); if it is answered, an IKE_AUTH that needs the shared secret",
        expected: &[Kind::Taken, SYNTAX, INVALID_SPI, CLOSED, Kind::Silent],
        run: Stream(|stage| bad_ke(stage, |part| part.body[4..].fill(0xff))),
    },
    Case {
        name: "init-ke-short",
        source: "RFC 7296 §3.4",
        sent: "IKE_SA_INIT with a public value of one octet; if it is answered, an IKE_AUTH that needs the shared secret",
        expected: &[Kind::Taken, SYNTAX, INVALID_SPI, CLOSED, Kind::Silent],
        run: Stream(|stage| bad_ke(stage, |part| part.body.truncate(5))),
    },
    Case {
        name: "init-ke-empty",
        source: "RFC 7296 §3.4",
        sent: "IKE_SA_INIT with an empty KE, then an innocent one",
        expected: &[SYNTAX, INVALID_KE, SERVED],
        run: Stream(|stage| {
            let bad = stage.init().alter(PayloadType::KE, |part| part.body.clear());
            stage.message_then_served(&bad.octets())
        }),
    },
    Case {
        name: "init-nonce-short",
        source: "RFC 7296 §2.10, §3.9 MUST be 16 to 256",
        sent: "IKE_SA_INIT with a nonce of 15 octets, then an innocent one",
        expected: &[SYNTAX, SERVED],
        run: Stream(|stage| nonce(stage, 15)),
    },
    Case {
        name: "init-nonce-empty",
        source: "RFC 7296 §3.9",
        sent: "IKE_SA_INIT with an empty nonce, then an innocent one",
        expected: &[SYNTAX, SERVED],
        run: Stream(|stage| nonce(stage, 0)),
    },
    Case {
        name: "init-nonce-long",
        source: "RFC 7296 §3.9",
        sent: "IKE_SA_INIT with a nonce of 257 octets, then an innocent one",
        expected: &[SYNTAX, SERVED],
        run: Stream(|stage| nonce(stage, 257)),
    },
    Case {
        name: "init-nonce-huge",
        source: "RFC 7296 §3.9",
        sent: "IKE_SA_INIT with a nonce of 60,000 octets, then an innocent one",
        expected: &[SYNTAX, SERVED],
        run: Stream(|stage| nonce(stage, 60_000)),
    },
    Case {
        name: "init-nonce-longest",
        source: "RFC 7296 §3.9 MUST accept",
        sent: "IKE_SA_INIT with a nonce of 256 octets",
        expected: &[Kind::Taken],
        run: Stream(|stage| {
            stage.asks(&stage.init().alter(PayloadType::NONCE, |part| part.body.resize(256, 7)).octets())
        }),
    },
    Case {
        name: "init-cookie-unasked",
        source: "RFC 7296 §2.6 (as if there were none)",
        sent: "IKE_SA_INIT with a cookie that nobody gave",
        expected: &[Kind::Taken, Kind::Challenge],
        run: Stream(|stage| {
            let cookie = [&[0, 0, 0x40, 0x06][..], &[0x5a; 32]].concat();
            stage.asks(&stage.init().with_first(Part::new(PayloadType::NOTIFY, cookie)).octets())
        }),
    },
    Case {
        name: "init-puzzle-unasked",
        source: "RFC 8019 §7.1.4",
        sent: "IKE_SA_INIT with a puzzle solution that nobody asked for",
        expected: &[Kind::Taken, Kind::Challenge],
        run: Stream(|stage| {
            let solution = Part::new(PayloadType::PUZZLE_SOLUTION, [0x5a; 64]);
            stage.asks(&stage.init().with(solution).octets())
        }),
    },
    Case {
        name: "init-repeated",
        source: "RFC 7296 §2.1 MUST be the same response; RFC 9329 §6.2",
        sent: "the same IKE_SA_INIT three times on one connection",
        expected: &[SERVED],
        run: Stream(repeated),
    },
    Case {
        name: "init-second-sa",
        source: "RFC 9329 §6.1 MUST NOT share; D3",
        sent: "two IKE_SA_INIT of different SAs on one connection",
        expected: &[SERVED, Kind::Silent, Kind::Closed, SYNTAX],
        run: Stream(second_sa),
    },
];

/// Sends what must be refused, then an innocent request on the same connection.
pub fn refused_then_served(stage: &Stage, message: &[u8]) -> Seen {
    let Ok(mut wire) = Wire::prefixed(stage.gateway) else { return Seen::one(Kind::Refused) };
    wire.send_ike(message);
    let mut seen = Seen::default();
    stage.take(&mut seen, wire.next(stage.answer_max()), IkeSpi::ZERO);
    match seen.last() {
        Some(Kind::Notify(_)) => seen.then_all(stage.served_on(&mut wire)),
        _ => seen,
    }
}

/// One proposal: ENCR_DES (2), PRF_HMAC_MD5 (1), AUTH_HMAC_MD5_96 (1), group 1, which RFC 8247 forbids.
fn des_only(stage: &Stage) -> Vec<u8> {
    let mut body = vec![0, 0, 0, 40, 1, 1, 0, 4];
    for (at, (kind, id)) in [(1, 2), (2, 1), (3, 1), (4, 1)].into_iter().enumerate() {
        body.extend([if at == 3 { 0 } else { 3 }, 0, 0, 8, kind, 0, 0, id]);
    }
    stage.init().alter(PayloadType::SA, |part| part.body = body).octets()
}

fn ke_group(stage: &Stage) -> Seen {
    let Ok(mut wire) = Wire::prefixed(stage.gateway) else { return Seen::one(Kind::Refused) };
    let bad = stage.init().alter(PayloadType::KE, |part| part.body[..2].copy_from_slice(&[0x27, 0x0f]));
    wire.send_ike(&bad.octets());
    let mut seen = Seen::default();
    stage.take(&mut seen, wire.next(stage.answer_max()), IkeSpi::ZERO);
    if !matches!(seen.last(), Some(Kind::Notify(_))) {
        return seen;
    }
    std::thread::sleep(Duration::from_secs(1));
    seen.then_all(stage.served_on(&mut wire))
}

/// A responder may put the key exchange off until IKE_AUTH; whatever that says, it is not authentic.
fn bad_ke(stage: &Stage, change: fn(&mut Part)) -> Seen {
    let Ok(mut wire) = Wire::prefixed(stage.gateway) else { return Seen::one(Kind::Refused) };
    let bad = stage.init().alter(PayloadType::KE, change);
    wire.send_ike(&bad.octets());
    let arrival = wire.next(stage.answer_max());
    let spi_r = match &arrival {
        Arrival::Ike(answer) => IkeHeader::decode(answer).map(|header| header.spi_r).unwrap_or(IkeSpi::ZERO),
        _ => IkeSpi::ZERO,
    };
    let mut seen = Seen::default();
    stage.take(&mut seen, arrival, IkeSpi::ZERO);
    if seen.last() == Some(Kind::Taken) {
        let auth = Draft { parts: vec![Part::new(PayloadType::ENCRYPTED, [0x5a; 120])], ..bad };
        let auth = auth.header(|header| {
            header.spi_r = spi_r;
            header.exchange = ExchangeType::IKE_AUTH;
            header.message_id = MessageId(1);
        });
        wire.send_ike(&auth.octets());
        stage.take(&mut seen, wire.next(QUIET), IkeSpi::ZERO);
    }
    seen
}

fn nonce(stage: &Stage, len: usize) -> Seen {
    let bad = stage.init().alter(PayloadType::NONCE, |part| part.body.resize(len, 7));
    stage.message_then_served(&bad.octets())
}

fn repeated(stage: &Stage) -> Seen {
    let Ok(mut wire) = Wire::prefixed(stage.gateway) else { return Seen::one(Kind::Refused) };
    let init = stage.init();
    let mut first = None;
    for _ in 0..3 {
        wire.send_ike(&init.octets());
        match (wire.next(stage.answer_max()), &first) {
            (Arrival::Ike(answer), None) => first = Some(answer),
            (Arrival::Ike(answer), Some(first)) if answer != *first => {
                return Seen::odd("another response to the same request");
            }
            (Arrival::Ike(_), Some(_)) => {}
            (other, _) => {
                let mut seen = Seen::default();
                stage.take(&mut seen, other, init.header.spi_i);
                return seen;
            }
        }
    }
    let mut seen = Seen::default();
    stage.take(&mut seen, Arrival::Ike(first.unwrap_or_default()), init.header.spi_i);
    seen
}

fn second_sa(stage: &Stage) -> Seen {
    let Ok(mut wire) = Wire::prefixed(stage.gateway) else { return Seen::one(Kind::Refused) };
    let seen = stage.served_on(&mut wire);
    if seen.last() != Some(Kind::Served) {
        return seen;
    }
    let mut second = Seen::default();
    wire.send_ike(&stage.init().octets());
    stage.take(&mut second, wire.next(QUIET), IkeSpi::ZERO);
    match second.last() {
        Some(Kind::Taken) => seen.then_odd("a second IKE SA on the connection"),
        _ => seen.then_all(second),
    }
}
