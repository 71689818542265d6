//! What an authentic answer to an Access-Request means.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use super::packet::{Packet, code, kind};
use super::sign::{self, AUTHENTICATOR_LEN, Secret};
use crate::control::responder::{Accepted, RejectCause};

/// Class attributes remembered of one session; the others are not echoed.
const CLASSES_MAX: usize = 8;

/// EAP codes (RFC 3748 §4).
const EAP_REQUEST: u8 = 1;
const EAP_SUCCESS: u8 = 3;
const EAP_FAILURE: u8 = 4;

/// An answer, understood.
pub enum Meaning {
    /// Access-Challenge.
    Challenge {
        /// The EAP request.
        eap: Vec<u8>,
        /// To be sent with the next request (RFC 2865 §5.24).
        state: Option<Box<[u8]>>,
    },
    /// Access-Accept.
    Accept {
        /// For the responder.
        accepted: Box<Accepted>,
        /// For accounting.
        granted: Granted,
    },
    /// Access-Reject, or an answer that cannot be used.
    Reject {
        /// The EAP-Failure.
        eap: Option<Vec<u8>>,
        /// Why.
        cause: RejectCause,
    },
}

/// What an Access-Accept says about the session to come.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Granted {
    /// To be sent with all accounting (RFC 2865 §5.25).
    pub classes: Vec<Box<[u8]>>,
    /// The name to use in accounting instead (RFC 2865 §5.1).
    pub user_name: Option<Arc<[u8]>>,
    /// How often accounting is to say how much (RFC 2869 §5.16).
    pub interim: Option<Duration>,
}

/// Reads an answer that [`sign::verify_answer`] found authentic.
pub fn read(packet: Packet<'_>, authenticator: &[u8; AUTHENTICATOR_LEN], secret: &Secret) -> Meaning {
    let eap = packet.eap();
    match (packet.code(), eap_code(eap.as_deref())) {
        (code::ACCESS_CHALLENGE, Some(EAP_REQUEST)) => {
            let state = packet.value(kind::STATE).map(Into::into);
            Meaning::Challenge { eap: eap.unwrap_or_default(), state }
        }
        (code::ACCESS_ACCEPT, Some(EAP_SUCCESS)) => accept(packet, eap, authenticator, secret),
        (code::ACCESS_REJECT, failure) => {
            let eap = eap.filter(|_| failure == Some(EAP_FAILURE));
            Meaning::Reject { eap, cause: cause(packet) }
        }
        // RFC 3579 §2.6.3: RADIUS and EAP contradict each other, or there is no EAP at all.
        _ => Meaning::Reject { eap: None, cause: RejectCause::NetworkFailure },
    }
}

/// The code of a whole EAP packet.
fn eap_code(eap: Option<&[u8]>) -> Option<u8> {
    let &[code, _, high, low, ..] = eap? else { return None };
    (usize::from(u16::from_be_bytes([high, low])) == eap?.len()).then_some(code)
}

fn accept(
    packet: Packet<'_>,
    eap: Option<Vec<u8>>,
    authenticator: &[u8; AUTHENTICATOR_LEN],
    secret: &Secret,
) -> Meaning {
    // Without a key there is nothing to make AUTH from.
    let Some(msk) = sign::msk(packet, authenticator, secret) else {
        return Meaning::Reject { eap: None, cause: RejectCause::NetworkFailure };
    };
    let user_name = packet.value(kind::USER_NAME).filter(|name| !name.is_empty());
    let text = |value: &[u8]| std::str::from_utf8(value).ok().map(Arc::from);
    let accepted = Accepted {
        packet: eap.unwrap_or_default(),
        msk,
        identity: user_name.and_then(text),
        inner: ipv4(packet).into_iter().chain(ipv6(packet)).collect(),
        pool: packet.value(kind::FRAMED_POOL).and_then(text),
        p_cscf: Vec::new(),
        session_timeout: seconds(packet, kind::SESSION_TIMEOUT),
    };
    let classes = packet.values(kind::CLASS).take(CLASSES_MAX).map(Into::into).collect();
    let interim = seconds(packet, kind::ACCT_INTERIM_INTERVAL);
    let granted = Granted { classes, user_name: user_name.map(Into::into), interim };
    Meaning::Accept { accepted: Box::new(accepted), granted }
}

/// Framed-IP-Address; two values leave the choice to the UE and to us (RFC 2865 §5.8).
fn ipv4(packet: Packet<'_>) -> Option<IpAddr> {
    let addr = Ipv4Addr::from(packet.number(kind::FRAMED_IP_ADDRESS)?);
    let ours = addr.is_broadcast() || addr == Ipv4Addr::new(255, 255, 255, 254) || addr.is_unspecified();
    (!ours).then_some(IpAddr::V4(addr))
}

/// Framed-IPv6-Address (RFC 6911 §3.1), else Framed-IPv6-Prefix (RFC 3162 §2.3) with Framed-Interface-Id, or with
/// the interface identifier 1.
fn ipv6(packet: Packet<'_>) -> Option<IpAddr> {
    let given = packet.value(kind::FRAMED_IPV6_ADDRESS).and_then(|value| <[u8; 16]>::try_from(value).ok());
    let addr = match given {
        Some(octets) => Ipv6Addr::from(octets),
        None => {
            let [0, len, prefix @ ..] = packet.value(kind::FRAMED_IPV6_PREFIX)? else { return None };
            let mut octets = [0; 16];
            octets.get_mut(..prefix.len())?.copy_from_slice(prefix);
            let host = match packet.value(kind::FRAMED_INTERFACE_ID).map(<[u8; 8]>::try_from) {
                Some(Ok(id)) => u64::from_be_bytes(id),
                _ => 1,
            };
            match len {
                128 => Ipv6Addr::from(octets),
                64 => Ipv6Addr::from(u128::from_be_bytes(octets) | u128::from(host)),
                _ => return None,
            }
        }
    };
    (!addr.is_unspecified() && !addr.is_multicast()).then_some(IpAddr::V6(addr))
}

/// A time in seconds; 0 means nothing.
fn seconds(packet: Packet<'_>, kind: u8) -> Option<Duration> {
    packet.number(kind).filter(|seconds| *seconds > 0).map(|seconds| Duration::from_secs(seconds.into()))
}

/// Why a server says no. RADIUS knows little of that: Error-Cause (RFC 5176 §3.6), where a server sends it.
fn cause(packet: Packet<'_>) -> RejectCause {
    match packet.number(kind::ERROR_CAUSE) {
        Some(501) => RejectCause::AuthorizationRejected,
        // Request Not Routable, Other Proxy Processing Error.
        Some(502 | 505) => RejectCause::NetworkFailure,
        Some(506) => RejectCause::Congestion,
        _ => RejectCause::AuthenticationFailed,
    }
}

/// For the fuzz target: reads any packet.
pub fn fuzz(packet: Packet<'_>) {
    let secret = Secret::new(b"secret");
    let _ = sign::verify_answer(packet, &[0; AUTHENTICATOR_LEN], true, &secret);
    if let Meaning::Accept { accepted, granted } = read(packet, &[0; AUTHENTICATOR_LEN], &secret) {
        assert!(accepted.inner.len() <= 2 && granted.classes.len() <= CLASSES_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::{Attributes, VENDOR_MICROSOFT};
    use super::*;

    const ASKED: [u8; 16] = [9; 16];

    fn answer(code: u8, with: impl FnOnce(&mut Attributes)) -> Meaning {
        let secret = Secret::new(b"radsecret");
        let mut attributes = Attributes::new();
        for (kind, half) in [(16, [2; 32]), (17, [1; 32])] {
            let hidden = sign::hide(&half, [0x80, kind], &ASKED, &secret);
            attributes.push_vendor(VENDOR_MICROSOFT, kind, &hidden).expect("room");
        }
        with(&mut attributes);
        let octets = sign::answer(code, 1, &ASKED, &attributes, &secret);
        read(Packet::parse(&octets).expect("a packet"), &ASKED, &secret)
    }

    fn accepted(with: impl FnOnce(&mut Attributes)) -> (Accepted, Granted) {
        let meaning = answer(code::ACCESS_ACCEPT, |attributes| {
            attributes.push_eap(&[3, 1, 0, 4]).expect("room");
            with(attributes);
        });
        match meaning {
            Meaning::Accept { accepted, granted } => (*accepted, granted),
            _ => panic!("not accepted"),
        }
    }

    #[test]
    fn an_accept_brings_key_addresses_and_times() {
        let (accepted, granted) = accepted(|attributes| {
            let mut push = |kind, value: &[u8]| attributes.push(kind, value).expect("room");
            push(kind::FRAMED_IP_ADDRESS, &[10, 70, 0, 9]);
            push(kind::FRAMED_IPV6_PREFIX, &[0, 64, 0x20, 1, 0xd, 0xb8, 0, 7, 0, 0]);
            push(kind::SESSION_TIMEOUT, &[0, 0, 14, 16]);
            push(kind::ACCT_INTERIM_INTERVAL, &[0, 0, 0, 60]);
            push(kind::FRAMED_POOL, b"gold");
            push(kind::USER_NAME, b"alice");
            push(kind::CLASS, b"one");
            push(kind::CLASS, b"two");
        });
        assert_eq!(accepted.msk[..], [[1; 32], [2; 32]].concat());
        let addrs = ["10.70.0.9", "2001:db8:7::1"].map(|text| text.parse::<IpAddr>().expect("an address"));
        assert_eq!(accepted.inner, addrs);
        assert_eq!(accepted.session_timeout, Some(Duration::from_secs(3600)));
        assert_eq!((accepted.pool.as_deref(), accepted.identity.as_deref()), (Some("gold"), Some("alice")));
        assert_eq!(granted.interim, Some(Duration::from_secs(60)));
        assert_eq!(granted.classes, [b"one"[..].into(), b"two"[..].into()]);
    }

    #[test]
    fn r2865_5_8_an_address_of_our_choice_is_none_and_odd_ones_are_passed_over() {
        for addr in [[255, 255, 255, 255], [255, 255, 255, 254], [0, 0, 0, 0]] {
            let (accepted, _) = accepted(|attributes| {
                attributes.push(kind::FRAMED_IP_ADDRESS, &addr).expect("room");
                attributes.push(kind::FRAMED_IPV6_PREFIX, &[0, 56, 0x20, 1]).expect("room");
                attributes.push(kind::SESSION_TIMEOUT, &[0, 0, 0, 0]).expect("room");
            });
            assert!(accepted.inner.is_empty() && accepted.session_timeout.is_none());
        }
        let exact = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x99];
        let (accepted, _) = accepted(|attributes| {
            attributes.push(kind::FRAMED_IPV6_ADDRESS, &exact).expect("room");
        });
        assert_eq!(accepted.inner, ["2001:db8::99".parse::<IpAddr>().expect("an address")]);
    }

    #[test]
    fn r3579_2_6_3_what_contradicts_itself_is_refused() {
        let eap = |octets: &'static [u8]| {
            move |attributes: &mut Attributes| attributes.push_eap(octets).expect("room")
        };
        for (code, octets) in [
            (code::ACCESS_ACCEPT, &[4, 1, 0, 4][..]),
            (code::ACCESS_ACCEPT, &[1, 1, 0, 5, 1]),
            (code::ACCESS_ACCEPT, &[]),
            (code::ACCESS_ACCEPT, &[3, 1, 0, 5]),
            (code::ACCESS_CHALLENGE, &[3, 1, 0, 4]),
            (code::ACCESS_CHALLENGE, &[]),
        ] {
            let meaning = answer(code, eap(octets));
            let refused = Meaning::Reject { eap: None, cause: RejectCause::NetworkFailure };
            assert!(
                matches!((&meaning, refused), (Meaning::Reject { eap: None, cause: a }, Meaning::Reject { cause: b, .. }) if *a == b),
                "{code} {octets:?}"
            );
        }
        let Meaning::Reject { eap: Some(failure), cause } = answer(code::ACCESS_REJECT, eap(&[4, 1, 0, 4]))
        else {
            panic!("not refused")
        };
        assert_eq!((&failure[..], cause), (&[4, 1, 0, 4][..], RejectCause::AuthenticationFailed));
        // The UE is not told of a success that is none.
        assert!(matches!(answer(code::ACCESS_REJECT, eap(&[3, 1, 0, 4])), Meaning::Reject { eap: None, .. }));
    }

    #[test]
    fn r5176_3_6_an_error_cause_says_why() {
        for (value, expected) in [
            (501, RejectCause::AuthorizationRejected),
            (502, RejectCause::NetworkFailure),
            (506, RejectCause::Congestion),
            (503, RejectCause::AuthenticationFailed),
        ] {
            let meaning = answer(code::ACCESS_REJECT, |attributes| {
                attributes.push_number(kind::ERROR_CAUSE, value).expect("room");
            });
            assert!(matches!(meaning, Meaning::Reject { cause, .. } if cause == expected), "{value}");
        }
    }
}
