//! Many connections and messages at once. What counts is that innocent peers are served all the while.

use super::{CLOSED, Case, INVALID_SPI, SERVED, SYNTAX};
use crate::abuse::FLOOD_RATE_MAX;
use crate::abuse::Kind;
use crate::abuse::Run::Stream;
use crate::abuse::seen::Seen;
use crate::abuse::stage::{QUIET, Stage};
use crate::abuse::wire::{Arrival, Wire, frame, ike_frame};
use codec::ike::ExchangeType;
use std::time::{Duration, Instant};

pub const CASES: &[Case] = &[
    Case {
        name: "flood-idle",
        source: "RFC 9329 §10",
        sent: "--flood connections that say nothing but the prefix; then an innocent peer",
        expected: &[SERVED],
        run: Stream(|stage| {
            let held = connections(stage, |wire, _| {
                wire.send(b"IKETCP");
            });
            innocent(stage, &held)
        }),
    },
    Case {
        name: "flood-unfinished",
        source: "RFC 9329 §10",
        sent: "--flood connections inside of a frame of 60,000 octets; then an innocent peer",
        expected: &[SERVED],
        run: Stream(|stage| {
            let part = [&b"IKETCP\xff\xff"[..], &[0x5a; 4_000]].concat();
            let held = connections(stage, |wire, _| {
                wire.send(&part);
            });
            innocent(stage, &held)
        }),
    },
    Case {
        name: "flood-half-open",
        source: "RFC 8019 §4; RFC 7296 §2.6; RFC 9329 §6.3",
        sent: "--flood half-open IKE SAs, a connection each; then an innocent peer",
        expected: &[SERVED],
        run: Stream(|stage| {
            let held = connections(stage, |wire, stage| {
                wire.send(&[b"IKETCP", stage.init_frame().as_slice()].concat());
            });
            innocent(stage, &held)
        }),
    },
    Case {
        name: "flood-rst",
        source: "RFC 9329 §6.1, §10",
        sent: "--flood connections cut by RST in the middle of IKE_SA_INIT; then an innocent peer",
        expected: &[SERVED],
        run: Stream(|stage| {
            let held = connections(stage, |wire, stage| {
                wire.send(&[b"IKETCP", &stage.init_frame()[..60]].concat());
            });
            held.into_iter().for_each(Wire::reset);
            innocent(stage, &[])
        }),
    },
    Case {
        name: "flood-leave",
        source: "RFC 9329 §6.1",
        sent: "--flood connections that ask and leave by RST before the answer; then an innocent peer",
        expected: &[SERVED],
        run: Stream(|stage| {
            for _ in 0..stage.bounds.flood {
                let Ok(mut wire) = Wire::prefixed(stage.gateway) else { break };
                wire.send(&stage.init_frame());
                wire.reset();
                std::thread::sleep(PAUSE);
            }
            innocent(stage, &[])
        }),
    },
    Case {
        name: "flood-connect",
        source: "RFC 9329 §10",
        sent: "--flood connections that are closed at once; then an innocent peer",
        expected: &[SERVED],
        run: Stream(|stage| {
            for _ in 0..stage.bounds.flood {
                let Ok(wire) = Wire::connect(stage.gateway) else { break };
                drop(wire);
                std::thread::sleep(PAUSE);
            }
            innocent(stage, &[])
        }),
    },
    Case {
        name: "flood-one-connection",
        source: "RFC 9329 §6.1 MUST NOT share; D3, D5",
        sent: "--flood IKE_SA_INIT of different SAs on one connection",
        expected: &[Kind::Taken, Kind::Challenge, SYNTAX, CLOSED, Kind::Silent],
        run: Stream(one_connection),
    },
    Case {
        name: "flood-keepalives",
        source: "RFC 9329 §6.6 MUST ignore",
        sent: "100,000 keepalives and as many empty frames, then IKE_SA_INIT on the same connection",
        expected: &[SERVED],
        run: Stream(|stage| stage.then_served(&[0, 3, 0xff, 0, 2].repeat(100_000))),
    },
    Case {
        name: "flood-unknown-esp",
        source: "RFC 9329 §6.1 SHOULD close, §10",
        sent: "200 ESP packets of unknown SAs",
        expected: &[CLOSED],
        run: Stream(|stage| {
            let frames: Vec<u8> = (0..200u32)
                .flat_map(|number| {
                    let mut packet = [0x5a; 60];
                    packet[..4].copy_from_slice(&(0x7000_0000 + number).to_be_bytes());
                    frame(&packet)
                })
                .collect();
            stage.closes(&frames)
        }),
    },
    Case {
        name: "flood-unknown-ike",
        source: "RFC 7296 §2.21.4 (rate limited); RFC 9329 §6.1 SHOULD close",
        sent: "200 INFORMATIONAL requests of unknown SAs",
        expected: &[INVALID_SPI, CLOSED],
        run: Stream(|stage| {
            let frames: Vec<u8> = (0..200)
                .flat_map(|_| ike_frame(&stage.init().stray(ExchangeType::INFORMATIONAL).octets()))
                .collect();
            stage.closes(&frames)
        }),
    },
];

/// Between two connections of a flood.
const PAUSE: Duration = Duration::from_micros(1_000_000 / FLOOD_RATE_MAX as u64);

/// Opens the connections of a flood, until the responder takes no more.
fn connections(stage: &Stage, begin: impl Fn(&mut Wire, &Stage)) -> Vec<Wire> {
    let open = |_| {
        std::thread::sleep(PAUSE);
        let mut wire = Wire::connect(stage.gateway).ok()?;
        begin(&mut wire, stage);
        Some(wire)
    };
    (0..stage.bounds.flood).map_while(open).collect()
}

/// Serves innocent peers while the flood is held.
fn innocent(stage: &Stage, _held: &[Wire]) -> Seen {
    for _ in 0..5 {
        if let Err(missed) = stage.innocent() {
            return Seen::odd(format!("an innocent peer beside it: {missed}"));
        }
    }
    Seen::one(Kind::Served)
}

/// At most one of them may become an IKE SA.
fn one_connection(stage: &Stage) -> Seen {
    let Ok(mut wire) = Wire::prefixed(stage.gateway) else { return Seen::one(Kind::Refused) };
    let frames: Vec<u8> = (0..stage.bounds.flood).flat_map(|_| stage.init_frame()).collect();
    wire.send(&frames);
    let (mut seen, mut taken) = (Seen::default(), 0);
    let begun = Instant::now();
    loop {
        let arrival = wire.next(QUIET);
        let over = !matches!(arrival, Arrival::Ike(_)) || begun.elapsed() > stage.bounds.patience;
        let one = Seen::of(arrival, None);
        taken += u32::from(one.last() == Some(Kind::Taken));
        if let Some(kind) = one.last()
            && seen.last() != Some(kind)
        {
            seen = seen.then_all(one);
        }
        if taken > 1 {
            return Seen::odd("several IKE SAs on one connection");
        }
        if over {
            return seen;
        }
    }
}
