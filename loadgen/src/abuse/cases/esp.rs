//! ESP of an attached UE (RFC 4303, RFC 9329 §3.2, §6.1). With `--far` a reply through the tunnel, or none, is seen too.

use super::auth::flip_last;
use super::{CLOSED, Case, SERVED};
use crate::abuse::Kind;
use crate::abuse::Run::{Session, Stream};
use crate::abuse::packet::{echo_request, is_reply};
use crate::abuse::run::Lab;
use crate::abuse::seen::Seen;
use crate::abuse::session::Ue;
use crate::abuse::stage::QUIET;
use crate::abuse::wire::{Arrival, Wire, frame};
use std::net::Ipv4Addr;

pub const KEPT: Kind = Kind::Kept;
/// Numbers of echo requests that are to be answered, and of those that are not.
const GOOD: u32 = 1;
pub const BAD: u32 = 2;
/// Somebody in the far network, when no host there is known: nothing comes back anyway.
pub const ANYBODY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

pub const CASES: &[Case] = &[
    Case {
        name: "esp-before-ike",
        source: "RFC 9329 §6.1 SHOULD NOT close for a few",
        sent: "three ESP packets of unknown SAs, then IKE_SA_INIT",
        expected: &[SERVED],
        run: Stream(|stage| stage.then_served(&frame(&[0x5a; 60]).repeat(3))),
    },
    Case {
        name: "esp-unknown-spi",
        source: "RFC 9329 §6.1 SHOULD NOT close for a few; RFC 4303 §3.4.2",
        sent: "three packets of unknown SPIs on a session's connection",
        expected: &[KEPT],
        run: Session(|ue, lab| {
            ue.wire.send(&frame(&[0x5a; 60]).repeat(3));
            goes_on(ue, lab)
        }),
    },
    Case {
        name: "esp-reserved-spi",
        source: "RFC 4303 §2.1 (1 to 255 are reserved)",
        sent: "packets with SPI 1, 100 and 255",
        expected: &[KEPT],
        run: Session(|ue, lab| {
            for spi in [1, 100, 255] {
                ue.wire.send(&frame(&[&[0, 0, 0, spi][..], &[0x5a; 60]].concat()));
            }
            goes_on(ue, lab)
        }),
    },
    Case {
        name: "esp-replayed",
        source: "RFC 4303 §3.4.3 MUST drop",
        sent: "one packet three times",
        expected: &[KEPT],
        run: Session(|ue, lab| {
            let frame = ue.seal(&echo(ue, lab, GOOD));
            ue.wire.send(&frame.repeat(3));
            looked_at(lab, only_once(ue, lab))
        }),
    },
    Case {
        name: "esp-replayed-beside",
        source: "RFC 9329 §6.1 SHOULD, §10 (validation comes first)",
        sent: "a packet again, on a second connection; then one on the first",
        expected: &[KEPT],
        run: Session(replayed_beside),
    },
    Case {
        name: "esp-far-ahead",
        source: "RFC 4303 §3.4.3 (the window moves on authentic packets only)",
        sent: "a packet whose sequence number was raised by 1,024; then the session on another connection",
        expected: &[CLOSED, KEPT],
        run: Session(|ue, lab| {
            let mut frame = ue.seal(&echo(ue, lab, BAD));
            frame[8] = frame[8].wrapping_add(4);
            ue.wire.send(&frame);
            looked_at(lab, closed_then_goes_on(ue, lab))
        }),
    },
    Case {
        name: "esp-bad-icv",
        source: "RFC 9329 §6.1 SHOULD close; RFC 4303 §3.4.4; D6",
        sent: "a packet with a flipped ICV; then the session on another connection",
        expected: &[CLOSED, KEPT],
        run: Session(|ue, lab| {
            let mut frame = ue.seal(&echo(ue, lab, BAD));
            flip_last(&mut frame);
            ue.wire.send(&frame);
            closed_then_goes_on(ue, lab)
        }),
    },
    Case {
        name: "esp-lengths",
        source: "RFC 4303 §2; RFC 9329 §3.2",
        sent: "the SPI of a session and 0 to 40 octets behind it, a connection each",
        expected: &[KEPT],
        run: Session(lengths),
    },
    Case {
        name: "esp-octet-by-octet",
        source: "RFC 9329 §3 (a stream)",
        sent: "a packet in segments of one octet",
        expected: &[KEPT],
        run: Session(|ue, lab| {
            let frame = ue.seal(&echo(ue, lab, GOOD));
            ue.wire.send_octets(&frame, std::time::Duration::from_millis(1));
            only_once(ue, lab)
        }),
    },
    Case {
        name: "esp-foreign",
        source: "RFC 9329 §6.1 MUST NOT share; D4",
        sent: "another session's packet on a session's connection",
        expected: &[KEPT],
        run: Session(|ue, lab| {
            let Ok(mut other) = lab.attach() else { return Seen::odd("no second session") };
            let packet = echo(&other, lab, BAD);
            let frame = other.seal(&packet);
            ue.wire.send(&frame);
            let bad = |packet: &[u8]| is_reply(packet, BAD);
            if ue.count(bad) + other.count(bad) > 0 {
                return Seen::odd("answered, though it came on the wrong connection");
            }
            let seen = goes_on(ue, lab).then_all(goes_on(&mut other, lab));
            other.detach();
            looked_at(lab, seen)
        }),
    },
    Case {
        name: "esp-slow-reader",
        source: "D10",
        sent: "3,000 echo requests of 1,200 octets by a UE that does not read, a newcomer beside it",
        expected: &[KEPT],
        run: Session(slow_reader),
    },
];

/// An echo request of the UE's own.
pub fn echo(ue: &Ue, lab: &Lab, number: u32) -> Vec<u8> {
    let inner = ue.inner.unwrap_or(Ipv4Addr::UNSPECIFIED);
    echo_request(inner, lab.far().unwrap_or(ANYBODY), number, 0)
}

pub fn send(ue: &mut Ue, packet: &[u8]) {
    let frame = ue.seal(packet);
    ue.wire.send(&frame);
}

/// IKE and traffic of the session work, where it is.
pub fn goes_on(ue: &mut Ue, lab: &Lab) -> Seen {
    let seen = ue.lives();
    lab.with_traffic(ue, seen)
}

fn closed_then_goes_on(ue: &mut Ue, lab: &Lab) -> Seen {
    let seen = ue.closes_and_lives(lab.stage().bounds.patience);
    lab.with_traffic(ue, seen)
}

/// What was sent several times was answered once, as far as that can be seen.
fn only_once(ue: &mut Ue, lab: &Lab) -> Seen {
    let count = ue.count(|packet| is_reply(packet, GOOD));
    if lab.far().is_some() && count != 1 {
        return Seen::odd(format!("answered {count} times"));
    }
    goes_on(ue, lab)
}

/// What must not get through has no answer.
pub fn unanswered(ue: &mut Ue, lab: &Lab) -> Seen {
    if ue.count(|packet| is_reply(packet, BAD)) > 0 {
        return Seen::odd("answered through the tunnel");
    }
    goes_on(ue, lab)
}

/// Without a host that would answer, nobody sees whether what must not get through did, or what must did not.
pub fn looked_at(lab: &Lab, seen: Seen) -> Seen {
    let blind = lab.far().is_none() && seen.last() == Some(KEPT);
    if blind { seen.then_inapplicable("without --far") } else { seen }
}

fn replayed_beside(ue: &mut Ue, lab: &Lab) -> Seen {
    let frame = ue.seal(&echo(ue, lab, GOOD));
    ue.wire.send(&frame);
    ue.count(|_| false);
    let Ok(mut second) = Wire::prefixed(lab.stage().gateway) else {
        return Seen::one(Kind::Refused);
    };
    second.send(&frame);
    let beside = matches!(second.next(QUIET), Arrival::Silence | Arrival::Closed(_));
    if !beside || ue.count(|packet| is_reply(packet, GOOD)) > 0 {
        return Seen::odd("a replayed packet was answered");
    }
    // The second connection stays open: a session that went there would not come back by itself.
    let seen = goes_on(ue, lab);
    looked_at(lab, seen)
}

fn lengths(ue: &mut Ue, lab: &Lab) -> Seen {
    let spi = ue.outbound.spi().0.to_be_bytes();
    for len in 0..=40 {
        let Ok(mut wire) = Wire::prefixed(lab.stage().gateway) else {
            return Seen::one(Kind::Refused);
        };
        wire.send(&frame(&[&spi[..], &vec![0x5a; len]].concat()));
        // Whether it is closed is the responder's to decide: the session is what matters.
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    goes_on(ue, lab)
}

fn slow_reader(ue: &mut Ue, lab: &Lab) -> Seen {
    let (Some(far), Some(inner)) = (lab.far(), ue.inner) else {
        return Seen::default().then_inapplicable("without --far");
    };
    let packet = echo_request(inner, far, BAD, 1_172);
    for _ in 0..3_000 {
        let frame = ue.seal(&packet);
        if !ue.wire.send(&frame) {
            break;
        }
    }
    let newcomer = lab.attach().map(|mut newcomer| {
        let echoes = lab.echoes(&mut newcomer);
        newcomer.detach();
        echoes
    });
    match newcomer {
        Ok(true) => {}
        Ok(false) => return Seen::odd("a newcomer beside it has no traffic"),
        Err(cause) => return Seen::odd(format!("a newcomer beside it: {cause}")),
    }
    // It reads again, and its session is whole.
    ue.count(|_| false);
    goes_on(ue, lab)
}
