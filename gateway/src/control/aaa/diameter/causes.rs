//! What a result means for the peer: Result-Code (RFC 6733 §7.1) and Experimental-Result (TS 29.273 §10).

use super::message::Message;
use super::names::{self, TGPP, result, value};
use crate::control::responder::{EndCause, RejectCause};

/// How a request went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The server has more to ask.
    Continue,
    /// Granted.
    Granted,
    /// Another peer may serve it; none left, the cause is this.
    Elsewhere(RejectCause),
    /// Refused.
    Refused(RejectCause),
}

/// What an answer says.
pub fn outcome(message: &Message<'_>) -> Outcome {
    if let Some(code) = message.number(names::RESULT_CODE) {
        return of_result(code);
    }
    let experimental = message.find(names::EXPERIMENTAL_RESULT);
    let inner = |name| experimental.and_then(|avp| avp.inner(name)).and_then(|avp| avp.number());
    match (inner(names::VENDOR_ID), inner(names::EXPERIMENTAL_RESULT_CODE)) {
        (Some(TGPP), Some(code)) => Outcome::Refused(of_tgpp(code)),
        _ => Outcome::Refused(RejectCause::NetworkFailure),
    }
}

fn of_result(code: u32) -> Outcome {
    match code {
        result::MULTI_ROUND_AUTH => Outcome::Continue,
        result::SUCCESS | result::LIMITED_SUCCESS => Outcome::Granted,
        result::UNABLE_TO_DELIVER => Outcome::Elsewhere(RejectCause::Unreachable),
        result::TOO_BUSY => Outcome::Elsewhere(RejectCause::Congestion),
        // RFC 6733 §6.1.8 lets a client follow; ours go to the servers an operator named and to nobody else.
        result::REDIRECT_INDICATION => Outcome::Elsewhere(RejectCause::NetworkFailure),
        result::AUTHENTICATION_REJECTED => Outcome::Refused(RejectCause::AuthenticationFailed),
        result::AUTHORIZATION_REJECTED => Outcome::Refused(RejectCause::AuthorizationRejected),
        result::RESOURCES_EXCEEDED => Outcome::Refused(RejectCause::MaxConnections),
        // DIAMETER_END_USER_SERVICE_DENIED and DIAMETER_USER_UNKNOWN (RFC 8506 §9), DIAMETER_EAP_CODE_UNKNOWN
        // (RFC 4072 §5).
        4010 => Outcome::Refused(RejectCause::AuthorizationRejected),
        5030 => Outcome::Refused(RejectCause::UserUnknown),
        5048 => Outcome::Refused(RejectCause::PeerProtocol),
        _ => Outcome::Refused(RejectCause::NetworkFailure),
    }
}

/// TS 29.273 §10, TS 29.272 §7.4, TS 29.229 §6.2.
fn of_tgpp(code: u32) -> RejectCause {
    match code {
        // USER_UNKNOWN.
        5001 => RejectCause::UserUnknown,
        // IDENTITY_NOT_REGISTERED: the server has no such user of its own.
        5003 => RejectCause::AuthorizationRejected,
        // ROAMING_NOT_ALLOWED.
        5004 => RejectCause::RoamingNotAllowed,
        // UNKNOWN_EPS_SUBSCRIPTION, USER_NO_NON_3GPP_SUBSCRIPTION.
        5420 | 5450 => RejectCause::NoNon3gppSubscription,
        // RAT_NOT_ALLOWED, RAT_TYPE_NOT_ALLOWED.
        5421 | 5452 => RejectCause::RatNotAllowed,
        // EQUIPMENT_UNKNOWN, ILLEGAL_EQUIPMENT.
        5422 | 5554 => RejectCause::IllegalEquipment,
        // USER_NO_APN_SUBSCRIPTION.
        5451 => RejectCause::NoApnSubscription,
        // AUTHENTICATION_DATA_UNAVAILABLE, LATE_OVERLAPPING_REQUEST, TIMED_OUT_REQUEST and whatever else.
        _ => RejectCause::NetworkFailure,
    }
}

/// Termination-Cause (RFC 6733 §8.15) of a session that ended this way.
pub fn termination(cause: EndCause) -> u32 {
    match cause {
        EndCause::Peer => value::LOGOUT,
        EndCause::Lost | EndCause::Error => value::LINK_BROKEN,
        EndCause::Timeout => value::SESSION_TIMEOUT,
        EndCause::Administrator | EndCause::Server | EndCause::Shutdown => value::ADMINISTRATIVE,
        EndCause::Replaced => value::USER_MOVED,
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::{Header, MessageWriter};
    use super::super::names::{application, command};
    use super::*;

    fn with(write: impl FnOnce(&mut MessageWriter)) -> Outcome {
        let header = Header::request(command::DIAMETER_EAP, application::SWM, 1).answer(false);
        let mut writer = MessageWriter::new(header);
        write(&mut writer);
        outcome(&Message::parse(&writer.finish()).expect("well formed"))
    }

    fn experimental(vendor: u32, code: u32) -> Outcome {
        with(|writer| {
            writer.avps().group(names::EXPERIMENTAL_RESULT, |group| {
                group.number(names::VENDOR_ID, vendor).number(names::EXPERIMENTAL_RESULT_CODE, code);
            });
        })
    }

    /// The same number means one thing in Result-Code and another in 3GPP's Experimental-Result.
    #[test]
    fn ts29273_10_results_have_a_vendor() {
        let plain = |code| with(|writer| _ = writer.avps().number(names::RESULT_CODE, code));
        assert_eq!(plain(5001), Outcome::Refused(RejectCause::NetworkFailure));
        assert_eq!(experimental(TGPP, 5001), Outcome::Refused(RejectCause::UserUnknown));
        assert_eq!(experimental(9, 5001), Outcome::Refused(RejectCause::NetworkFailure));
        assert_eq!(plain(5003), Outcome::Refused(RejectCause::AuthorizationRejected));
        assert_eq!(with(|_| ()), Outcome::Refused(RejectCause::NetworkFailure));
    }

    #[test]
    fn ts29273_10_each_result_has_its_cause() {
        for (code, cause) in [
            (5004, RejectCause::RoamingNotAllowed),
            (5450, RejectCause::NoNon3gppSubscription),
            (5451, RejectCause::NoApnSubscription),
            (5452, RejectCause::RatNotAllowed),
            (5554, RejectCause::IllegalEquipment),
            (4181, RejectCause::NetworkFailure),
        ] {
            assert_eq!(experimental(TGPP, code), Outcome::Refused(cause), "{code}");
        }
    }
}
