//! What the requests of an attached UE contain (RFC 7296 §1.3, §1.4, §2.21.3).

use super::auth::{broken_notify, unknown_critical};
use super::{CRITICAL, Case, NO_PROPOSAL, SERVED, SYNTAX, UNKNOWN_EXCHANGE, UNKNOWN_PAYLOAD};
use crate::abuse::Kind;
use crate::abuse::Run::Session;
use crate::abuse::run::Lab;
use crate::abuse::seen::Seen;
use crate::abuse::session::Ue;
use codec::esp::EspSpi;
use codec::ike::payload::{NotifyView, Proposal, TrafficSelector};
use codec::ike::{ExchangeType, NotifyType, PayloadType, ProtocolId};

const KEPT: Kind = Kind::Kept;
const ANSWERED: Kind = Kind::Answered;
const TS_UNACCEPTABLE: Kind = Kind::Notify(NotifyType::TS_UNACCEPTABLE);
const NOT_FOUND: Kind = Kind::Notify(NotifyType::CHILD_SA_NOT_FOUND);
const TEMPORARY: Kind = Kind::Notify(NotifyType::TEMPORARY_FAILURE);

pub const CASES: &[Case] = &[
    Case {
        name: "exchange-broken-payload",
        source: "RFC 9329 §6.1 MUST; RFC 7296 §2.21.3",
        sent: "a Notify whose SPI is longer than itself; then IKE_SA_INIT on the same connection",
        expected: &[SYNTAX, SERVED],
        run: Session(|ue, lab| {
            let seen = ue.asks(ExchangeType::INFORMATIONAL, broken_notify);
            seen.then_all(lab.stage().served_on(&mut ue.wire))
        }),
    },
    Case {
        name: "exchange-unknown",
        source: "RFC 7296 §2.21.3",
        sent: "an authentic request of exchange type 250",
        expected: &[SYNTAX],
        run: Session(|ue, _| ue.asks(UNKNOWN_EXCHANGE, |_| {})),
    },
    Case {
        name: "exchange-unknown-critical",
        source: "RFC 7296 §2.5 MUST reject",
        sent: "INFORMATIONAL with an unknown payload marked critical",
        expected: &[CRITICAL, KEPT],
        run: Session(|ue, _| {
            let seen = ue.asks(ExchangeType::INFORMATIONAL, unknown_critical);
            seen.then_all(ue.lives())
        }),
    },
    Case {
        name: "exchange-unknown-payload",
        source: "RFC 7296 §2.5, §3.10.1 MUST ignore",
        sent: "INFORMATIONAL with an unknown payload and unknown notifications, error and status",
        expected: &[ANSWERED, KEPT],
        run: Session(|ue, _| {
            let seen = ue.asks(ExchangeType::INFORMATIONAL, |builder| {
                builder.payload(UNKNOWN_PAYLOAD, |out| out.push(0));
                builder.notify(NotifyType(9_999), &[1]).notify(super::UNKNOWN_STATUS, &[]);
            });
            seen.then_all(ue.lives())
        }),
    },
    Case {
        name: "exchange-delete-unknown",
        source: "RFC 7296 §1.4.1",
        sent: "a Delete of Child SAs that are not there",
        expected: &[ANSWERED, KEPT],
        run: Session(|ue, _| {
            let seen = ue.asks(ExchangeType::INFORMATIONAL, |builder| {
                builder.delete_esp(&[EspSpi(0x7fff_0001), EspSpi(1), EspSpi(0)]);
            });
            seen.then_all(ue.lives())
        }),
    },
    Case {
        name: "exchange-delete-lies",
        source: "RFC 7296 §3.11, §2.21.3",
        sent: "a Delete that claims 65,535 SPIs and has none",
        expected: &[SYNTAX],
        run: Session(|ue, _| {
            ue.asks(ExchangeType::INFORMATIONAL, |builder| {
                builder.payload(PayloadType::DELETE, |out| out.extend_from_slice(&[3, 4, 0xff, 0xff]));
            })
        }),
    },
    Case {
        name: "exchange-rekey-unknown",
        source: "RFC 7296 §2.25",
        sent: "a rekey of a Child SA that is not there",
        expected: &[NOT_FOUND, KEPT],
        run: Session(|ue, lab| {
            let rekey = NotifyView {
                protocol: ProtocolId::ESP,
                spi: &[0x7f, 0xff, 0, 1],
                ..NotifyView::new(NotifyType::REKEY_SA, &[])
            };
            let transforms = lab.config().esp[0].transforms(&[]);
            let seen = ue.asks(ExchangeType::CREATE_CHILD_SA, |builder| {
                builder.notify_view(&rekey);
                offer(builder, ProtocolId::ESP, &transforms);
            });
            seen.then_all(ue.lives())
        }),
    },
    Case {
        name: "exchange-child-no-proposal",
        source: "RFC 9329 §3.2 (no AH); RFC 7296 §2.7",
        sent: "CREATE_CHILD_SA for AH",
        expected: &[NO_PROPOSAL, KEPT],
        run: Session(|ue, lab| {
            let transforms = lab.config().esp[0].transforms(&[]);
            let seen = ue.asks(ExchangeType::CREATE_CHILD_SA, |builder| {
                offer(builder, ProtocolId::AH, &transforms);
            });
            seen.then_all(ue.lives())
        }),
    },
    Case {
        name: "exchange-child-empty-selectors",
        source: "RFC 7296 §3.13, §2.21.3",
        sent: "CREATE_CHILD_SA whose TSi names no selector",
        expected: &[SYNTAX, TS_UNACCEPTABLE, KEPT],
        run: Session(|ue, lab| {
            let transforms = lab.config().esp[0].transforms(&[]);
            let seen = ue.asks(ExchangeType::CREATE_CHILD_SA, |builder| {
                let spi = [0x7a, 1, 2, 4];
                let proposal =
                    [Proposal { number: 1, protocol: ProtocolId::ESP, spi: &spi, transforms: &transforms }];
                builder.sa(&proposal).nonce(&[7; 32]).ts_i(&[]).ts_r(&[TrafficSelector::ANY_IPV4]);
            });
            match seen.last() {
                Some(SYNTAX) => seen,
                _ => seen.then_all(ue.lives()),
            }
        }),
    },
    Case {
        name: "exchange-child-flood",
        source: "RFC 8019 §5; RFC 7296 §1.3 (NO_ADDITIONAL_SAS)",
        sent: "40 CREATE_CHILD_SA in a row",
        expected: &[
            ANSWERED,
            TEMPORARY,
            Kind::Notify(NotifyType::NO_ADDITIONAL_SAS),
            TS_UNACCEPTABLE,
            NO_PROPOSAL,
            KEPT,
        ],
        run: Session(child_flood),
    },
    Case {
        name: "exchange-auth-again",
        source: "RFC 7296 §1.2 (once)",
        sent: "IKE_AUTH on a session that is up",
        expected: &[SYNTAX, KEPT],
        run: Session(|ue, _| {
            let seen = ue.asks(ExchangeType::IKE_AUTH, |_| {});
            match seen.last() {
                Some(SYNTAX) => seen,
                _ => seen.then_all(ue.lives()),
            }
        }),
    },
];

/// A Child SA's offer with nonce and selectors.
fn offer(
    builder: &mut codec::ike::MessageBuilder,
    protocol: ProtocolId,
    transforms: &[codec::ike::payload::Transform],
) {
    let spi = [0x7a, 1, 2, 5];
    let any = [TrafficSelector::ANY_IPV4];
    builder.sa(&[Proposal { number: 1, protocol, spi: &spi, transforms }]).nonce(&[7; 32]);
    builder.ts_i(&any).ts_r(&any);
}

fn child_flood(ue: &mut Ue, lab: &Lab) -> Seen {
    let transforms = lab.config().esp[0].transforms(&[]);
    let mut seen = Seen::default();
    for _ in 0..40 {
        let one =
            ue.asks(ExchangeType::CREATE_CHILD_SA, |builder| offer(builder, ProtocolId::ESP, &transforms));
        let last = one.last();
        if seen.last() != last {
            seen = seen.then_all(one);
        }
        if matches!(last, Some(Kind::Silent | Kind::Closed | Kind::Odd)) {
            return seen;
        }
    }
    seen.then_all(ue.lives())
}
