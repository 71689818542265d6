//! Length and what it frames (RFC 9329 §3).

use super::{CLOSED, Case, INVALID_SPI, SERVED, SYNTAX};
use crate::abuse::Run::{Stream, Wait};
use crate::abuse::draft::resized;
use crate::abuse::seen::{Kind, Seen};
use crate::abuse::stage::Stage;
use crate::abuse::wire::{Arrival, Wire, frame, ike_frame};
use codec::ike::ExchangeType;
use std::time::{Duration, Instant};

/// An ESP packet of an SA that nobody has.
const STRANGE_ESP: [u8; 40] = [0x5a; 40];
/// A keepalive, and a frame without body.
const KEEPALIVE: [u8; 3] = [0, 3, 0xff];
const EMPTY: [u8; 2] = [0, 2];

pub const CASES: &[Case] = &[
    Case {
        name: "framing-length-0",
        source: "RFC 9329 §3.1 MUST",
        sent: "a Length of 0, IKE_SA_INIT behind it",
        expected: &[CLOSED],
        run: Stream(|stage| stage.closes(&[&[0, 0], stage.init_frame().as_slice()].concat())),
    },
    Case {
        name: "framing-length-1",
        source: "RFC 9329 §3.1 MUST",
        sent: "a Length of 1, IKE_SA_INIT behind it",
        expected: &[CLOSED],
        run: Stream(|stage| stage.closes(&[&[0, 1], stage.init_frame().as_slice()].concat())),
    },
    Case {
        name: "framing-length-2",
        source: "RFC 9329 §3 MUST",
        sent: "1,000 frames without a body, then IKE_SA_INIT",
        expected: &[SERVED],
        run: Stream(|stage| stage.then_served(&EMPTY.repeat(1_000))),
    },
    Case {
        name: "framing-keepalive",
        source: "RFC 9329 §6.6 MUST",
        sent: "1,000 NAT-keepalives, then IKE_SA_INIT",
        expected: &[SERVED],
        run: Stream(|stage| stage.then_served(&KEEPALIVE.repeat(1_000))),
    },
    Case {
        name: "framing-one-octet",
        source: "D5",
        sent: "a frame of one octet that is no keepalive, then IKE_SA_INIT",
        expected: &[SERVED, CLOSED],
        run: Stream(|stage| stage.then_served(&[0, 3, 0x5a])),
    },
    Case {
        name: "framing-no-marker",
        source: "RFC 9329 §6.1; D5",
        sent: "frames of two and three octets, then IKE_SA_INIT",
        expected: &[SERVED, CLOSED],
        run: Stream(|stage| stage.then_served(&[frame(&[0; 2]), frame(&[0; 3])].concat())),
    },
    Case {
        name: "framing-bare-marker",
        source: "RFC 9329 §6.1; D5",
        sent: "a frame of nothing but the Non-ESP Marker, then IKE_SA_INIT",
        expected: &[SERVED, CLOSED],
        run: Stream(|stage| stage.then_served(&frame(&[0; 4]))),
    },
    Case {
        name: "framing-short-ike",
        source: "RFC 9329 §6.1; D5",
        sent: "the marker and 1, 14 and 27 octets of an IKE header, then IKE_SA_INIT",
        expected: &[SERVED, CLOSED],
        run: Stream(|stage| {
            let init = stage.init().octets();
            stage.then_served(&[1, 14, 27].map(|len| ike_frame(&init[..len])).concat())
        }),
    },
    Case {
        name: "framing-longest-ike",
        source: "RFC 9329 §3; RFC 7296 §2",
        sent: "an IKE message of an unknown SA in the longest frame there is, then IKE_SA_INIT",
        expected: &[INVALID_SPI, SYNTAX, SERVED],
        run: Stream(longest_ike),
    },
    Case {
        name: "framing-longest-esp",
        source: "RFC 9329 §3, §6.1 SHOULD NOT close",
        sent: "ESP of an unknown SA in the longest frame there is, then IKE_SA_INIT",
        expected: &[SERVED],
        run: Stream(|stage| stage.then_served(&frame(&[0x5a; 65_533]))),
    },
    Case {
        name: "framing-octet-by-octet",
        source: "RFC 9329 §3 (a stream)",
        sent: "prefix and IKE_SA_INIT in segments of one octet",
        expected: &[SERVED],
        run: Stream(octet_by_octet),
    },
    Case {
        name: "framing-cut-everywhere",
        source: "RFC 9329 §3 (a stream)",
        sent: "IKE_SA_INIT in two segments, cut at every 7th octet and around its Length",
        expected: &[SERVED],
        run: Stream(cut_everywhere),
    },
    Case {
        name: "framing-coalesced",
        source: "RFC 9329 §3, §6.1",
        sent: "keepalives, empty frames, two unknown ESP packets and IKE_SA_INIT in one segment",
        expected: &[SERVED],
        run: Stream(|stage| {
            let esp = frame(&STRANGE_ESP);
            stage.then_served(&[&KEEPALIVE[..], &EMPTY, &esp, &KEEPALIVE, &EMPTY, &esp].concat())
        }),
    },
    Case {
        name: "framing-garbage",
        source: "RFC 9329 §6.1 SHOULD; D5",
        sent: "200 frames that are neither IKE nor ESP, IKE_SA_INIT behind them",
        expected: &[CLOSED],
        run: Stream(|stage| stage.closes(&[[0, 3, 0x5a].repeat(200), stage.init_frame()].concat())),
    },
    Case {
        name: "framing-cut-fin",
        source: "RFC 9329 §6.1 MUST discard",
        sent: "60 octets of IKE_SA_INIT, then FIN",
        expected: &[CLOSED],
        run: Stream(cut_fin),
    },
    Case {
        name: "framing-cut-rst",
        source: "RFC 9329 §6.1 MUST discard",
        sent: "10 octets of IKE_SA_INIT, then RST; the rest on the next connection, then IKE_SA_INIT",
        expected: &[SERVED, CLOSED],
        run: Stream(cut_rst),
    },
    Case {
        name: "framing-cut-silence",
        source: "RFC 9329 §10; D2",
        sent: "60 octets of IKE_SA_INIT, then nothing",
        expected: &[CLOSED],
        run: Wait(|stage| stage.closes(&stage.init_frame()[..60])),
    },
    Case {
        name: "framing-idle",
        source: "RFC 9329 §10; D2",
        sent: "the prefix, then nothing",
        expected: &[CLOSED],
        run: Wait(|stage| stage.closes(b"")),
    },
    Case {
        name: "framing-keepalives-only",
        source: "RFC 9329 §6.6; D2",
        sent: "the prefix, then a keepalive each second",
        expected: &[CLOSED],
        run: Wait(|stage| drip(stage, &KEEPALIVE.repeat(100), KEEPALIVE.len())),
    },
    Case {
        name: "framing-drip",
        source: "RFC 9329 §10; D2",
        sent: "the prefix, then an octet of IKE_SA_INIT each second",
        expected: &[CLOSED],
        run: Wait(|stage| drip(stage, &stage.init_frame(), 1)),
    },
];

fn longest_ike(stage: &Stage) -> Seen {
    let message = stage.init().stray(ExchangeType::INFORMATIONAL).octets();
    stage.then_served(&ike_frame(&resized(&message, 65_529)))
}

fn octet_by_octet(stage: &Stage) -> Seen {
    let Ok(mut wire) = Wire::connect(stage.gateway) else { return Seen::one(Kind::Refused) };
    let init = stage.init();
    let stream = [b"IKETCP", ike_frame(&init.octets()).as_slice()].concat();
    wire.send_octets(&stream, Duration::from_millis(1));
    Seen::of(stage.answer_to(&mut wire, &init, stage.answer_max()).1, Some(init.header.spi_i))
}

fn cut_everywhere(stage: &Stage) -> Seen {
    let len = stage.init_frame().len();
    for at in [1, 2, 3].into_iter().chain((6..len).step_by(7)) {
        let Ok(mut wire) = Wire::prefixed(stage.gateway) else { return Seen::one(Kind::Refused) };
        let init = stage.init();
        let octets = ike_frame(&init.octets());
        wire.send(&octets[..at]);
        std::thread::sleep(Duration::from_millis(5));
        wire.send(&octets[at..]);
        let (_, arrival) = stage.answer_to(&mut wire, &init, stage.answer_max());
        let seen = Seen::of(arrival, Some(init.header.spi_i));
        if seen.last() != Some(Kind::Served) {
            return seen;
        }
    }
    Seen::one(Kind::Served)
}

fn cut_fin(stage: &Stage) -> Seen {
    let Ok(mut wire) = Wire::prefixed(stage.gateway) else { return Seen::one(Kind::Refused) };
    wire.send(&stage.init_frame()[..60]);
    wire.finish();
    stage.until_closed(&mut wire)
}

/// The rest, taken as a frame of its own, has a Length of 0 or one that swallows what follows.
fn cut_rst(stage: &Stage) -> Seen {
    let init = stage.init();
    let octets = ike_frame(&init.octets());
    let (Ok(mut first), Ok(mut second)) = (Wire::prefixed(stage.gateway), Wire::prefixed(stage.gateway))
    else {
        return Seen::one(Kind::Refused);
    };
    first.send(&octets[..10]);
    std::thread::sleep(Duration::from_millis(20));
    first.reset();
    // In front of the rest stands a Length that makes it a frame.
    second.send(&frame(&octets[10..]));
    match second.next(Duration::from_millis(300)) {
        Arrival::Ike(_) => Seen::odd("pieces of two connections were joined"),
        closed @ Arrival::Closed(_) => Seen::of(closed, None),
        _ => stage.served_on(&mut second),
    }
}

/// Sends a piece each second until the responder closes or patience ends.
fn drip(stage: &Stage, octets: &[u8], piece: usize) -> Seen {
    let Ok(mut wire) = Wire::prefixed(stage.gateway) else { return Seen::one(Kind::Refused) };
    let begun = Instant::now();
    for part in octets.chunks(piece) {
        if begun.elapsed() > stage.bounds.patience {
            break;
        }
        wire.send(part);
        match wire.next(Duration::from_secs(1)) {
            Arrival::Silence => {}
            other => return Seen::of(other, None),
        }
    }
    Seen::one(Kind::Silent)
}
