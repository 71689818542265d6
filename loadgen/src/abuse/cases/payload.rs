//! Payloads of IKE_SA_INIT and their structure (RFC 7296 §2.5, §3.2, §3.3).

use super::init::refused_then_served;
use super::{CRITICAL, Case, NO_PROPOSAL, SERVED, SYNTAX, UNKNOWN_PAYLOAD, UNKNOWN_STATUS};
use crate::abuse::Kind;
use crate::abuse::Run::Stream;
use crate::abuse::draft::{Draft, Part, resized};
use crate::abuse::stage::Stage;
use crate::abuse::wire::ike_frame;
use codec::ike::PayloadType;
use std::time::Duration;

pub const CASES: &[Case] = &[
    Case {
        name: "payload-unknown-critical",
        source: "RFC 7296 §2.5 MUST reject",
        sent: "IKE_SA_INIT with an unknown payload marked critical, then an innocent one",
        expected: &[CRITICAL, SERVED],
        run: Stream(|stage| {
            let part = Part { critical: true, ..Part::new(UNKNOWN_PAYLOAD, [1, 2, 3]) };
            refused_then_served(stage, &stage.init().with(part), Duration::ZERO)
        }),
    },
    Case {
        name: "payload-unknown-first-critical",
        source: "RFC 7296 §2.5 MUST reject",
        sent: "the same as the first payload",
        expected: &[CRITICAL, SERVED],
        run: Stream(|stage| {
            let part = Part { critical: true, ..Part::new(UNKNOWN_PAYLOAD, [1, 2, 3]) };
            refused_then_served(stage, &stage.init().with_first(part), Duration::ZERO)
        }),
    },
    Case {
        name: "payload-unknown",
        source: "RFC 7296 §2.5 MUST ignore",
        sent: "IKE_SA_INIT with unknown payloads first and last, not critical",
        expected: &[Kind::Taken],
        run: Stream(|stage| {
            let part = || Part::new(UNKNOWN_PAYLOAD, [1, 2, 3]);
            stage.asks(&stage.init().with_first(part()).with(part()))
        }),
    },
    Case {
        name: "payload-missing",
        source: "RFC 7296 §1.2",
        sent: "IKE_SA_INIT without SA, without KE and without nonce, then an innocent one",
        expected: &[SYNTAX, SERVED],
        run: Stream(|stage| {
            let kinds = [PayloadType::SA, PayloadType::KE, PayloadType::NONCE];
            stage.drafts_then_served(&kinds.map(|kind| stage.init().without(kind)))
        }),
    },
    Case {
        name: "payload-doubled",
        source: "RFC 7296 §1.2",
        sent: "IKE_SA_INIT with SA, KE or nonce twice, then an innocent one",
        expected: &[SYNTAX, SERVED],
        run: Stream(|stage| stage.drafts_then_served(&doubled(stage))),
    },
    Case {
        name: "payload-truncated",
        source: "RFC 7296 §2.21",
        sent: "IKE_SA_INIT cut at six places, its Length made to fit, then an innocent one",
        expected: &[SYNTAX, SERVED],
        run: Stream(|stage| {
            let octets = stage.init().octets();
            // Inside the first payloads: what is cut further behind may be whole.
            let places = (0..6).map(|at| 29 + at * 7);
            stage.then_served(&places.flat_map(|at| ike_frame(&resized(&octets, at))).collect::<Vec<_>>())
        }),
    },
    Case {
        name: "payload-length-lies",
        source: "RFC 7296 §3.2",
        sent: "IKE_SA_INIT with payload lengths 0, 3 and 65535, then an innocent one",
        expected: &[SYNTAX, SERVED],
        run: Stream(|stage| {
            let lie = |length| stage.init().alter(PayloadType::SA, |part| part.length = Some(length));
            stage.drafts_then_served(&[0, 3, u16::MAX].map(lie))
        }),
    },
    Case {
        name: "payload-nested-lengths",
        source: "RFC 7296 §3.3",
        sent: "IKE_SA_INIT with lying proposal length, SPI size, transform count and length, then an innocent one",
        expected: &[SYNTAX, NO_PROPOSAL, SERVED],
        run: Stream(|stage| stage.drafts_then_served(&nested(stage))),
    },
    Case {
        name: "payload-notify-spi-size",
        source: "RFC 7296 §3.10",
        sent: "IKE_SA_INIT with a Notify whose SPI is longer than itself, then an innocent one",
        expected: &[SYNTAX, SERVED],
        run: Stream(|stage| {
            let part = Part::new(PayloadType::NOTIFY, [3, 200, 0x40, 4, 1, 2]);
            stage.draft_then_served(stage.init().with(part))
        }),
    },
    Case {
        name: "payload-thousand",
        source: "RFC 7296 §2.21 (a bound of one's own)",
        sent: "IKE_SA_INIT with a thousand unknown status notifications",
        expected: &[Kind::Taken, SYNTAX, Kind::Silent],
        run: Stream(|stage| stage.asks(&notified(stage, 1_000, 0))),
    },
    Case {
        name: "payload-repeated-notify",
        source: "RFC 7296 §2.23 (several are allowed), §3.10.1",
        sent: "IKE_SA_INIT with forty unknown status notifications",
        expected: &[Kind::Taken],
        run: Stream(|stage| stage.asks(&notified(stage, 40, 8))),
    },
    Case {
        name: "payload-vendor-ids",
        source: "RFC 7296 §3.12; §2 (3,000 octets SHOULD)",
        sent: "IKE_SA_INIT of 60,000 octets, mostly one Vendor ID",
        expected: &[Kind::Taken, SYNTAX, Kind::Silent],
        run: Stream(|stage| {
            let vendor = Part::new(PayloadType::VENDOR_ID, vec![0x5a; 60_000]);
            stage.asks(&stage.init().with(vendor))
        }),
    },
    Case {
        name: "payload-encrypted-init",
        source: "RFC 7296 §1.2, §3.14",
        sent: "IKE_SA_INIT with everything inside of an Encrypted payload, then an innocent one",
        expected: &[SYNTAX, SERVED],
        run: Stream(|stage| {
            let bad = Draft { parts: vec![Part::new(PayloadType::ENCRYPTED, [0x5a; 80])], ..stage.init() };
            stage.draft_then_served(bad)
        }),
    },
];

fn doubled(stage: &Stage) -> [Draft; 3] {
    [PayloadType::SA, PayloadType::KE, PayloadType::NONCE].map(|kind| {
        let init = stage.init();
        let part = init.parts.iter().find(|part| part.kind == kind).cloned();
        part.into_iter().fold(init, Draft::with)
    })
}

/// Proposal Length (2..4), SPI Size (6), transform count (7) and the first transform's Length (10..12).
fn nested(stage: &Stage) -> [Draft; 6] {
    let lies: [(usize, &[u8]); 6] =
        [(2, &[0, 0]), (2, &[0xff, 0xff]), (6, &[255]), (7, &[255]), (10, &[0, 0]), (10, &[0xff, 0xff])];
    lies.map(|(at, lie)| {
        stage.init().alter(PayloadType::SA, |part| {
            part.body[at..at + lie.len()].copy_from_slice(lie);
        })
    })
}

fn notified(stage: &Stage, count: usize, len: usize) -> Draft {
    let part = Part::notify(UNKNOWN_STATUS, &vec![0x5a; len]);
    (0..count).fold(stage.init(), |draft, _| draft.with(part.clone()))
}
