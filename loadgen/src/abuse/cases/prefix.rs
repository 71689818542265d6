//! How a stream begins (RFC 9329 §4).

use super::{CLOSED, Case, SERVED};
use crate::abuse::Run::{Stream, Wait};
use crate::abuse::seen::{Kind, Seen};
use crate::abuse::stage::Stage;
use crate::abuse::wire::{Arrival, Wire, frame, ike_frame};
use codec::ike::{IkeHeader, IkeSpi};
use codec::stream::STREAM_PREFIX;
use std::time::Duration;

pub const CASES: &[Case] = &[
    Case {
        name: "prefix-wrong",
        source: "RFC 9329 §4 MUST; D1",
        sent: "the prefix with one octet changed, each of the six in turn, then IKE_SA_INIT",
        expected: &[CLOSED],
        run: Stream(wrong),
    },
    Case {
        name: "prefix-missing",
        source: "RFC 9329 §4 MUST; D1",
        sent: "IKE_SA_INIT in a frame at once",
        expected: &[CLOSED],
        run: Stream(|stage| stage.bare(&stage.init_frame())),
    },
    Case {
        name: "prefix-slow",
        source: "RFC 9329 §6.1 MUST",
        sent: "the prefix octet by octet, 50 ms apart, the last with IKE_SA_INIT",
        expected: &[SERVED],
        run: Stream(slow),
    },
    Case {
        name: "prefix-twice",
        source: "RFC 9329 §4",
        sent: "the prefix again: a Length of 18,763 and an ESP packet, with IKE_SA_INIT inside and behind",
        expected: &[SERVED, CLOSED],
        run: Stream(twice),
    },
    Case {
        name: "prefix-http",
        source: "RFC 9329 §10 (unique prefix)",
        sent: "an HTTP request",
        expected: &[CLOSED],
        run: Stream(|stage| stage.bare(b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n")),
    },
    Case {
        name: "prefix-tls",
        source: "RFC 9329 §10, Appendix A",
        sent: "a TLS ClientHello on the plain port",
        expected: &[CLOSED],
        run: Stream(|stage| stage.bare(&client_hello())),
    },
    Case {
        name: "prefix-ssh",
        source: "RFC 9329 §10 (unique prefix)",
        sent: "an SSH banner",
        expected: &[CLOSED],
        run: Stream(|stage| stage.bare(b"SSH-2.0-OpenSSH_9.6\r\n")),
    },
    Case {
        name: "prefix-ike-alone",
        source: "RFC 9329 §4; draft-ietf-ipsecme-ike-tcp is another port",
        sent: "IKE_SA_INIT without prefix, Length and marker",
        expected: &[CLOSED],
        run: Stream(|stage| stage.bare(&stage.init().octets())),
    },
    Case {
        name: "prefix-none",
        source: "RFC 9329 §10; D1",
        sent: "nothing at all",
        expected: &[CLOSED],
        run: Wait(|stage| stage.bare(b"")),
    },
    Case {
        name: "prefix-half",
        source: "RFC 9329 §10; D1",
        sent: "half the prefix, then nothing",
        expected: &[CLOSED],
        run: Wait(|stage| stage.bare(b"IKE")),
    },
    Case {
        name: "prefix-half-fin",
        source: "RFC 9329 §6.1",
        sent: "half the prefix, then FIN",
        expected: &[CLOSED],
        run: Stream(half_fin),
    },
];

fn wrong(stage: &Stage) -> Seen {
    let mut seen = Seen::default();
    for at in 0..STREAM_PREFIX.len() {
        let mut octets = STREAM_PREFIX.to_vec();
        octets[at] ^= 0x20;
        octets.extend(stage.init_frame());
        seen = stage.bare(&octets);
        if seen.last() != Some(Kind::Closed) {
            return seen;
        }
    }
    seen
}

fn slow(stage: &Stage) -> Seen {
    let Ok(mut wire) = Wire::connect(stage.gateway) else { return Seen::one(Kind::Refused) };
    wire.send_octets(&STREAM_PREFIX[..5], Duration::from_millis(50));
    let init = stage.init();
    wire.send(&[&STREAM_PREFIX[5..], &ike_frame(&init.octets())].concat());
    Seen::of(stage.answer_to(&mut wire, &init, stage.answer_max()).1, Some(init.header.spi_i))
}

/// Whoever skips the second prefix serves the request inside of what is a frame.
fn twice(stage: &Stage) -> Seen {
    let Ok(mut wire) = Wire::prefixed(stage.gateway) else { return Seen::one(Kind::Refused) };
    let inside = stage.init();
    let mut body = [&STREAM_PREFIX[2..], &ike_frame(&inside.octets())].concat();
    body.resize(usize::from(u16::from_be_bytes([STREAM_PREFIX[0], STREAM_PREFIX[1]])) - 2, 0x5a);
    let behind = stage.init();
    wire.send(&[frame(&body), ike_frame(&behind.octets())].concat());
    match stage.answer_to(&mut wire, &behind, stage.answer_max()).1 {
        Arrival::Ike(message) if spi_of(&message) == Some(inside.header.spi_i) => {
            Seen::odd("the second prefix was skipped")
        }
        arrival => Seen::of(arrival, Some(behind.header.spi_i)),
    }
}

fn spi_of(message: &[u8]) -> Option<IkeSpi> {
    IkeHeader::decode(message).ok().map(|header| header.spi_i)
}

fn half_fin(stage: &Stage) -> Seen {
    let Ok(mut wire) = Wire::connect(stage.gateway) else { return Seen::one(Kind::Refused) };
    wire.send(b"IKE");
    wire.finish();
    stage.until_closed(&mut wire)
}

/// A TLS 1.2 ClientHello: record header, handshake header, version, random, one cipher suite.
fn client_hello() -> Vec<u8> {
    let mut hello = vec![3, 3];
    hello.extend([0x42; 32]);
    hello.extend([0, 0, 2, 0x13, 1, 1, 0]);
    let handshake = [&[1, 0, 0, hello.len() as u8], hello.as_slice()].concat();
    [&[0x16, 3, 1, 0, handshake.len() as u8], handshake.as_slice()].concat()
}
