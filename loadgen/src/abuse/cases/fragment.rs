//! Fragments of IKE messages (RFC 7383), which are taken over TCP too (RFC 9329 §7.5).
//!
//! Fragments that must change nothing are followed by a wrong proof: its refusal shows that the IKE SA was still there.

use super::{AUTH_FAILED, CLOSED, Case, SERVED, SYNTAX};
use crate::abuse::Kind;
use crate::abuse::Run::{Keys, Stream};
use crate::abuse::draft::{Draft, Part};
use crate::abuse::handshake::Handshake;
use crate::abuse::seen::Seen;
use crate::ue::Forgery;
use codec::OsRandom;
use codec::ike::{ExchangeType, PayloadType};

pub const CASES: &[Case] = &[
    Case {
        name: "fragment-of-init",
        source: "RFC 7383 §2.2 (protected messages only)",
        sent: "IKE_SA_INIT with an Encrypted Fragment, then an innocent one",
        expected: &[SYNTAX, SERVED],
        run: Stream(|stage| {
            let part = Part::new(PayloadType::ENCRYPTED_FRAGMENT, [0, 1, 0, 2, 0x5a, 0x5a, 0x5a, 0x5a]);
            stage.draft_then_served(Draft { parts: vec![part], ..stage.init() })
        }),
    },
    Case {
        name: "fragment-single",
        source: "RFC 7383 §2.5; RFC 9329 §7.5 MUST take",
        sent: "an IKE_AUTH that proves nothing as fragment 1 of 1",
        expected: &[AUTH_FAILED, SYNTAX, Kind::EapAsked],
        run: Keys(|handshake| {
            let message = fragment(handshake, (1, 1));
            if handshake.fragments {
                handshake.asks(&message)
            } else {
                Seen::default().then_inapplicable("fragments are not announced")
            }
        }),
    },
    Case {
        name: "fragment-number-0",
        source: "RFC 7383 §2.6 MUST discard",
        sent: "fragment 0 of 3 of IKE_AUTH, then a wrong proof",
        expected: &[SYNTAX, AUTH_FAILED],
        run: Keys(|handshake| after(handshake, &[(0, 3)])),
    },
    Case {
        name: "fragment-above-total",
        source: "RFC 7383 §2.6 MUST discard",
        sent: "fragments 4 of 3 and 65535 of 1, then a wrong proof",
        expected: &[SYNTAX, AUTH_FAILED],
        run: Keys(|handshake| after(handshake, &[(4, 3), (u16::MAX, 1)])),
    },
    Case {
        name: "fragment-total-0",
        source: "RFC 7383 §2.5 (Total is not 0)",
        sent: "fragments 0 and 1 of 0, then a wrong proof",
        expected: &[SYNTAX, AUTH_FAILED],
        run: Keys(|handshake| after(handshake, &[(0, 0), (1, 0)])),
    },
    Case {
        name: "fragment-total-changes",
        source: "RFC 7383 §2.6 (a larger one starts anew)",
        sent: "fragments of 3, 5, 2 and 65535 in turn, then a wrong proof",
        expected: &[AUTH_FAILED],
        run: Keys(|handshake| after(handshake, &[(1, 3), (1, 5), (2, 2), (3, u16::MAX), (2, 3)])),
    },
    Case {
        name: "fragment-missing",
        source: "RFC 7383 §2.6",
        sent: "fragments 1 and 3 of 3, then a wrong proof",
        expected: &[AUTH_FAILED],
        run: Keys(|handshake| after(handshake, &[(1, 3), (3, 3)])),
    },
    Case {
        name: "fragment-doubled",
        source: "RFC 7383 §2.6",
        sent: "fragment 1 of 3 fifty times, then a wrong proof",
        expected: &[AUTH_FAILED],
        run: Keys(|handshake| after(handshake, &[(1, 3); 50])),
    },
    Case {
        name: "fragment-forged",
        source: "RFC 7383 §2.6 MUST check each; RFC 9329 §6.1 SHOULD close",
        sent: "fragment 1 of 3 with a flipped ICV, then a wrong proof",
        expected: &[AUTH_FAILED, CLOSED],
        run: Keys(|handshake| {
            let mut message = fragment(handshake, (1, 3));
            super::auth::flip_last(&mut message);
            handshake.wire.send_ike(&message);
            handshake.refused()
        }),
    },
    Case {
        name: "fragment-thousands",
        source: "RFC 7383 §5 (bounded); RFC 8019 §4.8",
        sent: "500 fragments of 65535 with 1,000 octets each, then a wrong proof",
        expected: &[AUTH_FAILED, CLOSED],
        run: Keys(|handshake| {
            let forgery = Forgery::request(ExchangeType::IKE_AUTH).with_id(1);
            for number in 1..=500 {
                let place = (number, u16::MAX);
                let message = handshake.initiator.forge_fragment(forgery, &mut OsRandom, place, |builder| {
                    builder.payload(PayloadType::VENDOR_ID, |out| out.resize(out.len() + 1_000, 0x5a));
                });
                // Enough to keep the responder's queue of one connection from filling up.
                std::thread::sleep(std::time::Duration::from_millis(2));
                if !handshake.wire.send_ike(&message.unwrap_or_default()) {
                    break;
                }
            }
            handshake.refused()
        }),
    },
];

/// A fragment of an IKE_AUTH that proves nothing.
fn fragment(handshake: &mut Handshake, place: (u16, u16)) -> Vec<u8> {
    let forgery = Forgery::request(ExchangeType::IKE_AUTH).with_id(1);
    let idi = handshake.who.idi.clone();
    let message = handshake.initiator.forge_fragment(forgery, &mut OsRandom, place, |builder| {
        builder.id_i(&idi.view());
    });
    message.unwrap_or_default()
}

/// Sends fragments, then a wrong proof in one piece.
fn after(handshake: &mut Handshake, places: &[(u16, u16)]) -> Seen {
    for place in places {
        let message = fragment(handshake, *place);
        handshake.wire.send_ike(&message);
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    handshake.refused()
}
