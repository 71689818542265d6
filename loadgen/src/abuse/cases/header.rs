//! The IKE header (RFC 7296 §3.1). A bad message gets an unprotected answer at most; what follows it is served.

use super::{Case, INVALID_SPI, SERVED, SYNTAX, UNKNOWN_EXCHANGE};
use crate::abuse::Kind;
use crate::abuse::Run::Stream;
use crate::abuse::draft::{Draft, resized};
use crate::abuse::wire::ike_frame;
use codec::ike::{ExchangeType, Flags, HEADER_LEN, IkeSpi, MessageId, NotifyType, Version};

const VERSION: Kind = Kind::Notify(NotifyType::INVALID_MAJOR_VERSION);

pub const CASES: &[Case] = &[
    Case {
        name: "header-major-version-3",
        source: "RFC 7296 §2.5 MUST drop, SHOULD answer; RFC 9329 §6.4 SHOULD NOT close",
        sent: "IKE_SA_INIT of version 3.0, then an innocent one",
        expected: &[VERSION, SERVED],
        run: Stream(|stage| {
            let bad = stage.init().header(|header| header.version = Version(0x30));
            stage.draft_then_served(bad)
        }),
    },
    Case {
        name: "header-major-version-1",
        source: "RFC 7296 §2.5",
        sent: "IKE_SA_INIT of version 1.0, then an innocent one",
        expected: &[VERSION, SYNTAX, SERVED],
        run: Stream(|stage| {
            let bad = stage.init().header(|header| header.version = Version(0x10));
            stage.draft_then_served(bad)
        }),
    },
    Case {
        name: "header-minor-version-15",
        source: "RFC 7296 §3.1 MUST ignore",
        sent: "IKE_SA_INIT of version 2.15",
        expected: &[Kind::Taken],
        run: Stream(|stage| stage.asks(&stage.init().header(|header| header.version = Version(0x2f)))),
    },
    Case {
        name: "header-reserved-flags",
        source: "RFC 7296 §3.1 MUST ignore",
        sent: "IKE_SA_INIT with all reserved flags set",
        expected: &[Kind::Taken],
        run: Stream(|stage| stage.asks(&stage.init().header(|header| header.flags.0 |= 0xc7))),
    },
    Case {
        name: "header-unknown-exchange",
        source: "RFC 7296 §2.21.4, §3.1; D14",
        sent: "a request of exchange type 250 without SPIr, then IKE_SA_INIT",
        expected: &[SYNTAX, INVALID_SPI, SERVED],
        run: Stream(|stage| {
            let bad = stage.init().header(|header| header.exchange = UNKNOWN_EXCHANGE);
            stage.draft_then_served(bad)
        }),
    },
    Case {
        name: "header-unknown-spi",
        source: "RFC 7296 §1.5, §2.21.4 MAY answer",
        sent: "INFORMATIONAL, IKE_AUTH and CREATE_CHILD_SA of no SA, then IKE_SA_INIT",
        expected: &[INVALID_SPI, SYNTAX, SERVED],
        run: Stream(|stage| {
            let kinds = [ExchangeType::INFORMATIONAL, ExchangeType::IKE_AUTH, ExchangeType::CREATE_CHILD_SA];
            stage.drafts_then_served(&kinds.map(|kind| stage.init().stray(kind)))
        }),
    },
    Case {
        name: "header-response-to-nothing",
        source: "RFC 7296 §2.21.4 MUST NOT answer",
        sent: "responses of IKE_SA_INIT and INFORMATIONAL that nobody asked for, then IKE_SA_INIT",
        expected: &[SERVED],
        run: Stream(|stage| {
            let response = |draft: Draft| draft.header(|header| header.flags = Flags::new(true, true));
            let init = response(stage.init());
            let other = response(stage.init().stray(ExchangeType::INFORMATIONAL));
            stage.drafts_then_served(&[init, other])
        }),
    },
    Case {
        name: "header-message-id",
        source: "RFC 7296 §2.2 (0 in IKE_SA_INIT), §2.3 (no INVALID_MESSAGE_ID in a response)",
        sent: "IKE_SA_INIT with Message ID 4294967295, then an innocent one",
        expected: &[SYNTAX, SERVED],
        run: Stream(|stage| {
            let bad = stage.init().header(|header| header.message_id = MessageId(u32::MAX));
            stage.draft_then_served(bad)
        }),
    },
    Case {
        name: "header-spi-i-zero",
        source: "RFC 7296 §3.1 MUST NOT be 0",
        sent: "IKE_SA_INIT with SPIi 0, then an innocent one",
        expected: &[SYNTAX, INVALID_SPI, SERVED],
        run: Stream(|stage| {
            let bad = stage.init().header(|header| header.spi_i = IkeSpi::ZERO);
            stage.draft_then_served(bad)
        }),
    },
    Case {
        name: "header-spi-r-in-init",
        source: "RFC 7296 §3.1 MUST be 0",
        sent: "IKE_SA_INIT with an SPIr, then an innocent one",
        expected: &[SYNTAX, INVALID_SPI, SERVED],
        run: Stream(|stage| {
            let bad = stage.init().header(|header| header.spi_r.0 = [0x5a; 8]);
            stage.draft_then_served(bad)
        }),
    },
    Case {
        name: "header-not-initiator",
        source: "RFC 7296 §3.1 (flag I)",
        sent: "an IKE_SA_INIT request without the Initiator flag, then an innocent one",
        expected: &[SYNTAX, INVALID_SPI, SERVED],
        run: Stream(|stage| {
            let bad = stage.init().header(|header| header.flags = Flags::new(false, false));
            stage.draft_then_served(bad)
        }),
    },
    Case {
        name: "header-length-long",
        source: "RFC 7296 §3.1; RFC 9329 §3.1",
        sent: "IKE_SA_INIT whose Length is 100 more than it has, then an innocent one",
        expected: &[SYNTAX, SERVED],
        run: Stream(|stage| stage.draft_then_served(Draft { length_off: 100, ..stage.init() })),
    },
    Case {
        name: "header-length-short",
        source: "RFC 7296 §3.1; RFC 9329 §3.1",
        sent: "IKE_SA_INIT whose Length is 10 less than it has, then an innocent one",
        expected: &[SYNTAX, SERVED],
        run: Stream(|stage| stage.draft_then_served(Draft { length_off: -10, ..stage.init() })),
    },
    Case {
        name: "header-length-0",
        source: "RFC 7296 §3.1",
        sent: "IKE_SA_INIT whose Length is 0, then an innocent one",
        expected: &[SYNTAX, SERVED],
        run: Stream(|stage| stage.draft_then_served(Draft { length_off: -100_000, ..stage.init() })),
    },
    Case {
        name: "header-alone",
        source: "RFC 7296 §1.2, §2.21",
        sent: "IKE_SA_INIT that ends with its header, then an innocent one",
        expected: &[SYNTAX, SERVED],
        run: Stream(|stage| {
            let alone = resized(&stage.init().octets(), HEADER_LEN);
            stage.then_served(&ike_frame(&alone))
        }),
    },
];
