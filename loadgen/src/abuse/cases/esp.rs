//! ESP of an attached UE (RFC 4303, RFC 9329 §3.2, §6.1). With `--far` a reply through the tunnel, or none, is seen too.

use super::auth::flip_last;
use super::{CLOSED, Case, SERVED};
use crate::abuse::Kind;
use crate::abuse::Run::{Session, Stream};
use crate::abuse::packet::{IP_LEN, echo_request, is_reply, seal_header};
use crate::abuse::run::Lab;
use crate::abuse::seen::Seen;
use crate::abuse::session::Ue;
use crate::abuse::wire::frame;
use std::net::Ipv4Addr;

const KEPT: Kind = Kind::Kept;
/// Numbers of echo requests that are to be answered, and of those that are not.
const GOOD: u32 = 1;
const BAD: u32 = 2;
/// Somebody in the far network, when no host there is known: nothing comes back anyway.
const ANYBODY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

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
            only_once(ue, lab)
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
        sent: "a packet whose sequence number was raised by 1,000; then the session on another connection",
        expected: &[CLOSED, KEPT],
        run: Session(|ue, lab| {
            let mut frame = ue.seal(&echo(ue, lab, BAD));
            frame[8] = frame[8].wrapping_add(4);
            ue.wire.send(&frame);
            closed_then_goes_on(ue, lab)
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
        name: "esp-wrong-source",
        source: "RFC 4301 §5.2 MUST match the selectors",
        sent: "inner packets from addresses that are not the UE's",
        expected: &[KEPT],
        run: Session(|ue, lab| {
            for source in [[203, 0, 113, 7], [127, 0, 0, 1], [255, 255, 255, 255], [0; 4]] {
                let packet = echo_request(source.into(), lab.far().unwrap_or(ANYBODY), BAD, 0);
                send(ue, &packet);
            }
            unanswered(ue, lab)
        }),
    },
    Case {
        name: "esp-inner-lengths",
        source: "RFC 791 §3.1; RFC 4303 §2.7",
        sent: "inner packets with lying header and total lengths, and none at all",
        expected: &[KEPT],
        run: Session(inner_lengths),
    },
    Case {
        name: "esp-inner-versions",
        source: "RFC 4303 §2.6",
        sent: "IPv6 headers of one octet, cut headers, and an IPv6 packet without an address for it",
        expected: &[KEPT],
        run: Session(|ue, lab| {
            let mut v6 = vec![0; 48];
            v6[0] = 0x60;
            v6[5] = 8;
            for packet in [&[0x60][..], &[0x45], &[0x45; 19], &[0x60; 39], &v6] {
                send(ue, packet);
            }
            unanswered(ue, lab)
        }),
    },
    Case {
        name: "esp-inner-fragments",
        source: "RFC 791 §3.2; RFC 5722",
        sent: "inner IPv4 fragments that overlap, that end behind 65,535 and that never end",
        expected: &[KEPT],
        run: Session(inner_fragments),
    },
    Case {
        name: "esp-nested",
        source: "RFC 4303 §3.1 (isolation)",
        sent: "IP in IP in ESP, and packets for the gateway's loopback and for multicast",
        expected: &[KEPT],
        run: Session(nested),
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
            if ue.count(|packet| is_reply(packet, BAD)) > 0 {
                return Seen::odd("answered on the wrong connection");
            }
            let seen = goes_on(ue, lab).then_all(goes_on(&mut other, lab));
            other.detach();
            seen
        }),
    },
    Case {
        name: "esp-slow-reader",
        source: "RFC 9329 §9.1 (bounded queues); D10",
        sent: "3,000 echo requests of 1,200 octets by a UE that does not read, a newcomer beside it",
        expected: &[KEPT],
        run: Session(slow_reader),
    },
];

/// An echo request of the UE's own.
fn echo(ue: &Ue, lab: &Lab, number: u32) -> Vec<u8> {
    let inner = ue.inner.unwrap_or(Ipv4Addr::UNSPECIFIED);
    echo_request(inner, lab.far().unwrap_or(ANYBODY), number, 0)
}

fn send(ue: &mut Ue, packet: &[u8]) {
    let frame = ue.seal(packet);
    ue.wire.send(&frame);
}

/// IKE and traffic of the session work, where it is.
fn goes_on(ue: &mut Ue, lab: &Lab) -> Seen {
    let seen = ue.lives();
    if seen.last() == Some(KEPT) && !lab.echoes(ue) {
        return seen.then_odd("no traffic through the tunnel");
    }
    seen
}

fn closed_then_goes_on(ue: &mut Ue, lab: &Lab) -> Seen {
    let seen = ue.closes_and_lives(lab.stage().bounds.patience);
    if seen.last() == Some(KEPT) && !lab.echoes(ue) {
        return seen.then_odd("no traffic through the tunnel");
    }
    seen
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
fn unanswered(ue: &mut Ue, lab: &Lab) -> Seen {
    if ue.count(|packet| is_reply(packet, BAD)) > 0 {
        return Seen::odd("answered through the tunnel");
    }
    goes_on(ue, lab)
}

fn replayed_beside(ue: &mut Ue, lab: &Lab) -> Seen {
    let frame = ue.seal(&echo(ue, lab, GOOD));
    ue.wire.send(&frame);
    ue.count(|_| false);
    let Ok(mut second) = crate::abuse::wire::Wire::prefixed(lab.stage().gateway) else {
        return Seen::one(Kind::Refused);
    };
    second.send(&frame);
    std::thread::sleep(crate::abuse::stage::QUIET);
    // An answer on the second connection would be missed here.
    goes_on(ue, lab)
}

fn lengths(ue: &mut Ue, lab: &Lab) -> Seen {
    let spi = ue.outbound.spi().0.to_be_bytes();
    for len in 0..=40 {
        let Ok(mut wire) = crate::abuse::wire::Wire::prefixed(lab.stage().gateway) else {
            return Seen::one(Kind::Refused);
        };
        wire.send(&frame(&[&spi[..], &vec![0x5a; len]].concat()));
        // Whether it is closed is the responder's to decide: the session is what matters.
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    goes_on(ue, lab)
}

fn inner_lengths(ue: &mut Ue, lab: &Lab) -> Seen {
    let changes: [fn(&mut Vec<u8>); 6] = [
        |packet| packet[2..4].copy_from_slice(&u16::MAX.to_be_bytes()),
        |packet| packet[2..4].copy_from_slice(&[0, 0]),
        |packet| packet[2..4].copy_from_slice(&19u16.to_be_bytes()),
        |packet| packet[0] = 0x40,
        |packet| packet[0] = 0x4f,
        |packet| packet.truncate(10),
    ];
    for change in changes {
        let mut packet = echo(ue, lab, BAD);
        change(&mut packet);
        if packet.len() >= IP_LEN {
            seal_header(&mut packet);
        }
        send(ue, &packet);
    }
    unanswered(ue, lab)
}

fn inner_fragments(ue: &mut Ue, lab: &Lab) -> Seen {
    // More fragments flag and offset in units of 8 octets.
    for flags_and_offset in [0x2000u16, 0x2000, 0x0001, 0x2001, 0x1fff, 0x3fff, 0x2002, 0x0003] {
        let mut packet =
            echo_request(ue.inner.unwrap_or(Ipv4Addr::UNSPECIFIED), lab.far().unwrap_or(ANYBODY), BAD, 32);
        packet[4..6].copy_from_slice(&[0x12, 0x34]);
        packet[6..8].copy_from_slice(&flags_and_offset.to_be_bytes());
        seal_header(&mut packet);
        send(ue, &packet);
    }
    goes_on(ue, lab)
}

fn nested(ue: &mut Ue, lab: &Lab) -> Seen {
    let inner = ue.inner.unwrap_or(Ipv4Addr::UNSPECIFIED);
    for to in [[127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255], inner.octets()] {
        send(ue, &echo_request(inner, to.into(), BAD, 0));
    }
    // Protocol 4: the inner packet has a source that is not the UE's.
    let within = echo_request(Ipv4Addr::new(203, 0, 113, 7), lab.far().unwrap_or(ANYBODY), BAD, 0);
    let mut packet = echo_request(inner, lab.far().unwrap_or(ANYBODY), BAD, within.len() - 8);
    packet[9] = 4;
    packet[IP_LEN..].copy_from_slice(&within);
    seal_header(&mut packet);
    send(ue, &packet);
    unanswered(ue, lab)
}

fn slow_reader(ue: &mut Ue, lab: &Lab) -> Seen {
    let (Some(far), Some(inner)) = (lab.far(), ue.inner) else { return Seen::one(Kind::Inapplicable) };
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
