//! IKE_SA_INIT (RFC 7296 §1.2): offers, key exchange, nonce, cookie, repetition.

use super::{CLOSED, Case, INVALID_KE, INVALID_SPI, NO_PROPOSAL, SERVED, SYNTAX};
use crate::abuse::Kind;
use crate::abuse::Run::Stream;
use crate::abuse::draft::{Draft, Part};
use crate::abuse::seen::Seen;
use crate::abuse::stage::{QUIET, Stage};
use crate::abuse::wire::{Arrival, Wire};
use codec::OsRandom;
use codec::crypto::{IkeKeys, SaNonces, Secret, select_ike};
use codec::ike::payload::{KeView, Payload};
use codec::ike::{ExchangeType, Flags, IkeHeader, IkeSpi, Message, MessageBuilder, MessageId, PayloadType};
use std::time::Duration;

pub const CASES: &[Case] = &[
    Case {
        name: "init-no-proposal",
        source: "RFC 7296 §2.7, §1.2",
        sent: "IKE_SA_INIT that offers DES with MD5 only, then an innocent one",
        expected: &[NO_PROPOSAL, SERVED],
        run: Stream(|stage| refused_then_served(stage, &des_only(stage), Duration::ZERO)),
    },
    Case {
        name: "init-esp-proposal",
        source: "RFC 7296 §3.3.1",
        sent: "IKE_SA_INIT whose proposals are for ESP, then an innocent one",
        expected: &[NO_PROPOSAL, SYNTAX, SERVED],
        run: Stream(|stage| stage.draft_then_served(stage.init().alter(PayloadType::SA, for_esp))),
    },
    Case {
        name: "init-ke-group",
        source: "RFC 7296 §1.2; RFC 9329 §6.4 SHOULD NOT close",
        sent: "IKE_SA_INIT with KE of a group nobody has; after 1 s an innocent one on the same connection",
        expected: &[INVALID_KE, SERVED],
        run: Stream(|stage| {
            let bad =
                stage.init().alter(PayloadType::KE, |part| part.body[..2].copy_from_slice(&[0x27, 0x0f]));
            refused_then_served(stage, &bad, Duration::from_secs(1))
        }),
    },
    Case {
        name: "init-ke-zeros",
        source: "RFC 6989 §2.1, RFC 8031; RFC 7748 §6.1",
        sent: "IKE_SA_INIT with a public value of zeros; if it is answered, an IKE_AUTH under keys of a shared secret of zeros",
        expected: &[Kind::Taken, SYNTAX, INVALID_SPI, CLOSED, Kind::Silent],
        run: Stream(|stage| bad_ke(stage, |part| part.body[4..].fill(0))),
    },
    Case {
        name: "init-ke-ones",
        source: "RFC 6989 §2.1 to §2.3; RFC 7748 §5 (X25519 takes any)",
        sent: "IKE_SA_INIT with a public value of ones (above p, no point of a NIST curve); if it is answered, garbage as its IKE_AUTH",
        expected: &[Kind::Taken, SYNTAX, INVALID_SPI, CLOSED, Kind::Silent],
        run: Stream(|stage| bad_ke(stage, |part| part.body[4..].fill(0xff))),
    },
    Case {
        name: "init-ke-short",
        source: "RFC 7296 §3.4",
        sent: "IKE_SA_INIT with a public value of one octet; if it is answered, garbage as its IKE_AUTH",
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
            stage.draft_then_served(bad)
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
        source: "RFC 7296 §3.9 (256 are allowed)",
        sent: "IKE_SA_INIT with a nonce of 256 octets",
        expected: &[Kind::Taken],
        run: Stream(|stage| {
            stage.asks(&stage.init().alter(PayloadType::NONCE, |part| part.body.resize(256, 7)))
        }),
    },
    Case {
        name: "init-cookie-unasked",
        source: "RFC 7296 §2.6 (as if there were none)",
        sent: "IKE_SA_INIT with a cookie that nobody gave",
        expected: &[Kind::Taken, Kind::Challenge],
        run: Stream(|stage| stage.asks(&stage.init().with_cookie(&[0x5a; 32]))),
    },
    Case {
        name: "init-puzzle-unasked",
        source: "RFC 8019 §7.1.4",
        sent: "IKE_SA_INIT with a puzzle solution that nobody asked for",
        expected: &[Kind::Taken, Kind::Challenge],
        run: Stream(|stage| {
            let solution = Part::new(PayloadType::PUZZLE_SOLUTION, [0x5a; 64]);
            stage.asks(&stage.init().with(solution))
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

/// Sends what must be refused, then, `pause` after the refusal, an innocent request on the same connection.
pub fn refused_then_served(stage: &Stage, draft: &Draft, pause: Duration) -> Seen {
    let Ok(mut wire) = Wire::prefixed(stage.gateway) else { return Seen::one(Kind::Refused) };
    let seen = Seen::of(stage.ask_on(&mut wire, draft, stage.answer_max()).1, None);
    if !matches!(seen.last(), Some(Kind::Notify(_))) {
        return seen;
    }
    std::thread::sleep(pause);
    seen.then_all(stage.served_on(&mut wire))
}

/// One proposal: ENCR_DES (2), PRF_HMAC_MD5 (1), AUTH_HMAC_MD5_96 (1), group 1, which RFC 8247 forbids.
fn des_only(stage: &Stage) -> Draft {
    let mut body = vec![0, 0, 0, 40, 1, 1, 0, 4];
    for (at, (kind, id)) in [(1, 2), (2, 1), (3, 1), (4, 1)].into_iter().enumerate() {
        body.extend([if at == 3 { 0 } else { 3 }, 0, 0, 8, kind, 0, 0, id]);
    }
    stage.init().alter(PayloadType::SA, |part| part.body = body)
}

/// A responder may put the key exchange off until IKE_AUTH. What is then sent must not turn out to be authentic: where
/// the shared secret would be zeros it is what a responder that accepts them takes, and answers.
fn bad_ke(stage: &Stage, change: fn(&mut Part)) -> Seen {
    let Ok(mut wire) = Wire::prefixed(stage.gateway) else { return Seen::one(Kind::Refused) };
    let bad = stage.init().alter(PayloadType::KE, change);
    let (bad, arrival) = stage.ask_on(&mut wire, &bad, stage.answer_max());
    let answer = if let Arrival::Ike(answer) = &arrival { answer.clone() } else { Vec::new() };
    let seen = Seen::of(arrival, None);
    if seen.last() != Some(Kind::Taken) {
        return seen;
    }
    let auth = auth_of_zeros(stage, &bad, &answer).unwrap_or_else(|| garbage_auth(&bad, &answer));
    wire.send_ike(&auth);
    let after = Seen::of(wire.next(QUIET), None);
    match after.last() {
        Some(Kind::Taken) => seen.then_odd("an IKE_AUTH answered as if it were IKE_SA_INIT"),
        _ => seen.then_all(after),
    }
}

/// An empty IKE_AUTH under the keys of a shared secret of zeros, if the public value is of zeros and the answer leads
/// to keys.
fn auth_of_zeros(stage: &Stage, init: &Draft, answer: &[u8]) -> Option<Vec<u8>> {
    let body = |kind| init.parts.iter().find(|part| part.kind == kind).map(|part| part.body.as_slice());
    let (ke, nonce_i) = (KeView::decode(body(PayloadType::KE)?).ok()?, body(PayloadType::NONCE)?);
    if ke.data.is_empty() || ke.data.iter().any(|octet| *octet != 0) {
        return None;
    }
    let header = IkeHeader::decode(answer).ok()?;
    let (mut chosen, mut nonce_r) = (None, None);
    for raw in Message::decode(answer).ok()?.payloads() {
        match raw.ok()?.decode().ok()? {
            Payload::Sa(view) => chosen = Some(view),
            Payload::Nonce(view) => nonce_r = Some(view.data),
            _ => {}
        }
    }
    let suite = select_ike(&stage.ike, &chosen?, ke.group)?.suite;
    let nonces = SaNonces { initiator: nonce_i, responder: nonce_r? };
    // Of curves and of the groups of RFC 3526, the secret is as long as the public value.
    let shared = Secret::new(vec![0; ke.data.len()]);
    let keys = IkeKeys::derive(&suite, nonces, &shared, header.spi_i, header.spi_r);
    let flags = Flags::new(true, false);
    let (exchange, id) = (ExchangeType::IKE_AUTH, MessageId(1));
    let builder = MessageBuilder::new(header.spi_i, header.spi_r, exchange, flags, id);
    builder.seal(&mut keys.initiator_key(&suite), &mut OsRandom).ok()
}

/// What claims to be the IKE_AUTH that follows.
fn garbage_auth(init: &Draft, answer: &[u8]) -> Vec<u8> {
    let spi_r = IkeHeader::decode(answer).map_or(IkeSpi::ZERO, |header| header.spi_r);
    let parts = vec![Part::new(PayloadType::ENCRYPTED, [0x5a; 120])];
    let auth = Draft { parts, ..init.clone() }.stray(ExchangeType::IKE_AUTH);
    auth.header(|header| header.spi_r = spi_r).octets()
}

/// Makes every proposal one for ESP (Protocol ID 3); behind each lies the next at its Proposal Length.
fn for_esp(part: &mut Part) {
    let mut at = 0;
    while at + 8 <= part.body.len() {
        part.body[at + 5] = 3;
        at += usize::from(u16::from_be_bytes([part.body[at + 2], part.body[at + 3]])).max(8);
    }
}

fn nonce(stage: &Stage, len: usize) -> Seen {
    let bad = stage.init().alter(PayloadType::NONCE, |part| part.body.resize(len, 7));
    stage.draft_then_served(bad)
}

fn repeated(stage: &Stage) -> Seen {
    let Ok(mut wire) = Wire::prefixed(stage.gateway) else { return Seen::one(Kind::Refused) };
    let init = stage.init();
    // Where a cookie is asked for, the request is the one that has it.
    let (init, answer) = stage.ask_on(&mut wire, &init, stage.answer_max());
    let Arrival::Ike(first) = answer else { return Seen::of(answer, Some(init.header.spi_i)) };
    for _ in 0..2 {
        wire.send_ike(&init.octets());
        match wire.next(stage.answer_max()) {
            Arrival::Ike(answer) if answer == first => {}
            Arrival::Ike(_) => return Seen::odd("another response to the same request"),
            other => return Seen::of(other, Some(init.header.spi_i)),
        }
    }
    Seen::of(Arrival::Ike(first), Some(init.header.spi_i))
}

fn second_sa(stage: &Stage) -> Seen {
    let Ok(mut wire) = Wire::prefixed(stage.gateway) else { return Seen::one(Kind::Refused) };
    let seen = stage.served_on(&mut wire);
    if seen.last() != Some(Kind::Served) {
        return seen;
    }
    let second = Seen::of(stage.ask_on(&mut wire, &stage.init(), QUIET).1, None);
    match second.last() {
        Some(Kind::Taken) => seen.then_odd("a second IKE SA on the connection"),
        _ => seen.then_all(second),
    }
}
