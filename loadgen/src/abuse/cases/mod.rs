//! The cases, by family.

mod auth;
mod esp;
mod exchange;
mod flood;
mod fragment;
mod framing;
mod header;
mod init;
mod inner;
mod payload;
mod prefix;
mod session;

use super::{Case, Kind};
use codec::ike::NotifyType;

/// All families, in the order they are played: what weighs most on the responder comes last.
pub const FAMILIES: &[&[Case]] = &[
    prefix::CASES,
    framing::CASES,
    header::CASES,
    init::CASES,
    payload::CASES,
    auth::CASES,
    fragment::CASES,
    session::CASES,
    exchange::CASES,
    esp::CASES,
    inner::CASES,
    flood::CASES,
];

const SERVED: Kind = Kind::Served;
const CLOSED: Kind = Kind::Closed;
const SYNTAX: Kind = Kind::Notify(NotifyType::INVALID_SYNTAX);
const INVALID_SPI: Kind = Kind::Notify(NotifyType::INVALID_IKE_SPI);
const NO_PROPOSAL: Kind = Kind::Notify(NotifyType::NO_PROPOSAL_CHOSEN);
const INVALID_KE: Kind = Kind::Notify(NotifyType::INVALID_KE_PAYLOAD);
const AUTH_FAILED: Kind = Kind::Notify(NotifyType::AUTHENTICATION_FAILED);
const CRITICAL: Kind = Kind::Notify(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD);

/// A payload type, exchange type and status notification that nobody has defined.
const UNKNOWN_PAYLOAD: codec::ike::PayloadType = codec::ike::PayloadType(200);
const UNKNOWN_EXCHANGE: codec::ike::ExchangeType = codec::ike::ExchangeType(250);
const UNKNOWN_STATUS: NotifyType = NotifyType(40_000);
