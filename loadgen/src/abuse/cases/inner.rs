//! Inner packets of an attached UE (RFC 4301 §5.2). With `--far` a reply through the tunnel, or none, is seen too.

use super::Case;
use super::esp::{ANYBODY, BAD, KEPT, echo, goes_on, looked_at, send, unanswered};
use crate::abuse::Run::Session;
use crate::abuse::packet::{IP_LEN, echo_request, is_reply, seal_header};
use crate::abuse::run::Lab;
use crate::abuse::seen::Seen;
use crate::abuse::session::Ue;
use std::net::Ipv4Addr;

pub const CASES: &[Case] = &[
    Case {
        name: "esp-wrong-source",
        source: "RFC 4301 §5.2 MUST match the selectors",
        sent: "inner packets from another UE's address, which would get the answers, and from nobody's",
        expected: &[KEPT],
        run: Session(wrong_source),
    },
    Case {
        name: "esp-inner-lengths",
        source: "RFC 791 §3.1; RFC 4303 §2.7",
        sent: "inner packets with lying header and total lengths, and one cut inside its header",
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
        source: "RFC 791 §3.2; RFC 1858",
        sent: "inner IPv4 fragments that overlap, that end behind 65,535 and that never end",
        expected: &[KEPT],
        run: Session(inner_fragments),
    },
    Case {
        name: "esp-nested",
        source: "RFC 4301 §5.2",
        sent: "IP in IP in ESP, and packets for the gateway's loopback and for multicast",
        expected: &[KEPT],
        run: Session(nested),
    },
];

/// Only packets that claim an address with a host behind it have answers that somebody sees.
fn wrong_source(ue: &mut Ue, lab: &Lab) -> Seen {
    let Ok(mut other) = lab.attach() else { return Seen::odd("no second session") };
    let nobodys = [[203, 0, 113, 7], [127, 0, 0, 1], [255, 255, 255, 255], [0; 4]].map(Ipv4Addr::from);
    for source in nobodys.into_iter().chain(other.inner) {
        send(ue, &echo_request(source, lab.far().unwrap_or(ANYBODY), BAD, 0));
    }
    let forwarded = other.count(|packet| is_reply(packet, BAD)) > 0;
    other.detach();
    if forwarded {
        return Seen::odd("a packet from another UE's address got through");
    }
    looked_at(lab, unanswered(ue, lab))
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
