//! What phones expect of an ePDG beyond IKEv2 (3GPP TS 24.302 §7, §8): error types, device identity, back-off timer,
//! P-CSCF addresses, 5G slices.

use std::net::IpAddr;
use std::time::Duration;

use codec::eap::identity::{Nai, UserName};
use codec::ike::{CfgAttrType, MessageBuilder, NotifyType};

use super::aaa::{EapMethod, RejectCause, Subject};
use super::config::{DeviceIdentity, Profile};
use super::inner::Payloads;

/// The realm of subscribers of mobile networks (TS 23.003 §19).
const REALM_3GPP: &str = ".3gppnetwork.org";

/// Identity types of DEVICE_IDENTITY (TS 24.302 §8.2.9.2).
const TYPE_IMEI: u8 = 1;
const TYPE_IMEISV: u8 = 2;

/// Octets of an IMEI or IMEISV in swapped digits.
const IMEI_OCTETS: usize = 8;

/// What a profile tells phones.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Handset {
    /// Addresses of P-CSCFs, IPv4 and IPv6.
    pub p_cscf: Vec<IpAddr>,
    /// Whether the UE is asked for its IMEI.
    pub device_identity: DeviceIdentity,
    /// How long a UE that was turned away for want of capacity or subscription is to stay away.
    pub backoff: Option<Duration>,
    /// How long a UE is to wait without traffic before it checks that we are alive, when it asks
    /// (TIMEOUT_PERIOD_FOR_LIVENESS_CHECK).
    pub liveness: Option<Duration>,
    /// The slice told to a UE that says it can use 5G (S-NSSAI, 1, 4, 5 or 8 octets); empty tells none.
    pub s_nssai: Box<[u8]>,
    /// Whether these are emergency attaches.
    pub emergency: bool,
    /// Whether an empty response answers a Delete of Child SAs even where RFC 7296 §1.4.1 has the paired SPIs in it.
    pub empty_delete_response: bool,
}

/// The IMEI or IMEISV in a message, as digits; `None` when there is none or it is none.
pub(super) fn imei(payloads: &Payloads<'_>) -> Option<String> {
    let data = payloads.notify(NotifyType::DEVICE_IDENTITY)?.data;
    let (digits, swapped) = match data {
        [0, 9, TYPE_IMEI, swapped @ ..] => (15, swapped),
        [0, 9, TYPE_IMEISV, swapped @ ..] => (16, swapped),
        _ => return None,
    };
    if swapped.len() != IMEI_OCTETS {
        return None;
    }
    let nibbles = swapped.iter().flat_map(|octet| [octet & 0xf, octet >> 4]);
    let text: Option<String> = nibbles.take(digits).map(|digit| char::from_digit(digit.into(), 10)).collect();
    // Fifteen digits leave half an octet, which is filled.
    text.filter(|_| digits == 16 || swapped[IMEI_OCTETS - 1] >> 4 == 0xf)
}

/// The IMEI that a UE names itself by; `None` when it has another name.
pub(super) fn named_by_device(name: &str) -> Option<String> {
    match Nai::parse(name.as_bytes())?.user {
        UserName::Imei(imei) => Some(imei),
        _ => None,
    }
}

/// Asks the UE for its device identity, where the profile wants it.
pub(super) fn ask_device(builder: &mut MessageBuilder, profile: &Profile) {
    let kind = match profile.handset.device_identity {
        DeviceIdentity::Never => return,
        DeviceIdentity::Imei => TYPE_IMEI,
        DeviceIdentity::Imeisv => TYPE_IMEISV,
    };
    // A length of one: the type without a value is the question.
    builder.notify(NotifyType::DEVICE_IDENTITY, &[0, 1, kind]);
}

/// Says why a UE is not let in: to a phone in the terms of TS 24.302 §8.1.2.2, to others as RFC 7296 has it.
pub(super) fn refuse(builder: &mut MessageBuilder, profile: &Profile, subject: &Subject, cause: RejectCause) {
    let phone = matches!(subject.method, EapMethod::Aka | EapMethod::AkaPrime)
        || subject.idi.to_lowercase().ends_with(REALM_3GPP);
    let kind = match error_type(cause) {
        Some(kind) if phone => kind,
        _ => NotifyType::AUTHENTICATION_FAILED,
    };
    builder.notify(kind, &[]);
    let away = matches!(
        cause,
        RejectCause::NoApnSubscription
            | RejectCause::MaxConnections
            | RejectCause::Congestion
            | RejectCause::Unreachable
            | RejectCause::NetworkFailure
    );
    if let Some(backoff) = profile.handset.backoff.filter(|_| phone && away) {
        builder.notify(NotifyType::BACKOFF_TIMER, &[1, gprs_timer_3(backoff)]);
    }
}

/// The error type of a cause; none for those that are about authentication itself.
fn error_type(cause: RejectCause) -> Option<NotifyType> {
    Some(match cause {
        RejectCause::AuthenticationFailed | RejectCause::PeerProtocol => return None,
        RejectCause::UserUnknown => NotifyType::USER_UNKNOWN,
        RejectCause::NoNon3gppSubscription => NotifyType::NON_3GPP_ACCESS_TO_EPC_NOT_ALLOWED,
        RejectCause::NoApnSubscription => NotifyType::NO_APN_SUBSCRIPTION,
        RejectCause::AuthorizationRejected => NotifyType::AUTHORIZATION_REJECTED,
        RejectCause::RatNotAllowed => NotifyType::RAT_TYPE_NOT_ALLOWED,
        RejectCause::RoamingNotAllowed => NotifyType::PLMN_NOT_ALLOWED,
        RejectCause::IllegalEquipment => NotifyType::ILLEGAL_ME,
        RejectCause::MaxConnections => NotifyType::MAX_CONNECTION_REACHED,
        RejectCause::EmergencyNotSupported => NotifyType::UNAUTHENTICATED_EMERGENCY_NOT_SUPPORTED,
        RejectCause::Congestion | RejectCause::Unreachable | RejectCause::NetworkFailure => {
            NotifyType::NETWORK_FAILURE
        }
    })
}

/// A time as GPRS timer 3 (TS 24.008 §10.5.7.4a): three bits of unit, five of value; rounded up.
fn gprs_timer_3(time: Duration) -> u8 {
    const UNITS: [(u64, u8); 7] = [
        (2, 0b011),
        (30, 0b100),
        (60, 0b101),
        (600, 0b000),
        (3_600, 0b001),
        (36_000, 0b010),
        (1_152_000, 0b110),
    ];
    let seconds = time.as_secs();
    let fitting = UNITS.into_iter().find(|(unit, _)| seconds.div_ceil(*unit) <= 31);
    let (unit, code) = fitting.unwrap_or((1_152_000, 0b110));
    code << 5 | seconds.div_ceil(unit).min(31) as u8
}

/// Tells the slice to a UE that named its PDU session (TS 24.302 §8.2.9.15, §8.2.9.16).
pub(super) fn tell_slice(builder: &mut MessageBuilder, profile: &Profile, payloads: &Payloads<'_>) {
    let slice = &profile.handset.s_nssai;
    if let (Ok(len @ 1..), Some(_)) =
        (u8::try_from(slice.len()), payloads.notify(NotifyType::N1_MODE_CAPABILITY))
    {
        builder.notify(NotifyType::N1_MODE_INFORMATION, &[&[len], &**slice].concat());
    }
}

/// The values of an attribute that phones ask for; `None` for one that is not theirs. P-CSCF addresses are told in the
/// form that was asked for, of which there are four (RFC 7651, and two that were used before it).
pub(super) fn config_values(
    kind: CfgAttrType,
    p_cscf: &[IpAddr],
    liveness: Option<Duration>,
) -> Option<Vec<Vec<u8>>> {
    let v4 = p_cscf.iter().filter_map(|addr| match addr {
        IpAddr::V4(addr) => Some(addr.octets().to_vec()),
        IpAddr::V6(_) => None,
    });
    let v6 = p_cscf.iter().filter_map(|addr| match addr {
        IpAddr::V6(addr) => Some(addr.octets().to_vec()),
        IpAddr::V4(_) => None,
    });
    Some(match kind {
        CfgAttrType::P_CSCF_IP4_ADDRESS | CfgAttrType::P_CSCF_IP4_ADDRESS_LEGACY => v4.collect(),
        CfgAttrType::P_CSCF_IP6_ADDRESS
        | CfgAttrType::P_CSCF_IP6_ADDRESS_LEGACY
        | CfgAttrType::P_CSCF_IP6_ADDRESS_LEGACY_2 => v6.collect(),
        CfgAttrType::TIMEOUT_PERIOD_FOR_LIVENESS_CHECK => {
            let seconds = liveness.map(|time| u32::try_from(time.as_secs()).unwrap_or(u32::MAX));
            seconds.map(|seconds| seconds.to_be_bytes().to_vec()).into_iter().collect()
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use codec::ike::payload::NotifyView;
    use codec::ike::{NotifyType, ProtocolId};

    use super::*;

    fn told(data: &[u8]) -> Option<String> {
        let view =
            NotifyView { protocol: ProtocolId::NONE, spi: &[], kind: NotifyType::DEVICE_IDENTITY, data };
        imei(&Payloads { notifies: vec![view], ..Payloads::default() })
    }

    #[test]
    fn ts24302_8_2_9_2_device_identities_are_read_strictly() {
        let imei = [0x00, 0x09, 0x01, 0x21, 0x43, 0x65, 0x87, 0x19, 0x32, 0x54, 0xf6];
        assert_eq!(told(&imei).as_deref(), Some("123456789123456"));
        let mut imeisv = imei;
        (imeisv[2], imeisv[10]) = (2, 0x76);
        assert_eq!(told(&imeisv).as_deref(), Some("1234567891234567"));
        for cut in 0..imei.len() {
            assert_eq!(told(&imei[..cut]), None, "{cut} octets");
        }
        let mut odd = imei;
        odd[3] = 0xa1;
        assert_eq!(told(&odd), None, "not a digit");
        let mut unfilled = imei;
        unfilled[10] = 0x76;
        assert_eq!(told(&unfilled), None, "sixteen digits of an IMEI");
    }

    #[test]
    fn ts24008_10_5_7_4a_timers_round_up_to_a_unit() {
        for (seconds, value) in [
            (0, 0b011_00000),
            (1, 0b011_00001),
            (62, 0b011_11111),
            (63, 0b100_00011),
            (930, 0b100_11111),
            (931, 0b101_10000),
            (3_600, 0b000_00110),
            (86_400, 0b001_11000),
            (u64::MAX, 0b110_11111),
        ] {
            assert_eq!(gprs_timer_3(Duration::from_secs(seconds)), value, "{seconds} s");
        }
    }

    #[test]
    fn r7651_p_cscf_addresses_come_in_the_form_asked_for() {
        let servers: Vec<IpAddr> = ["10.0.0.1", "fd00::1", "10.0.0.2"]
            .iter()
            .map(|text| text.parse().expect("an address"))
            .collect();
        let asked = |kind| config_values(kind, &servers, None).expect("a phone's attribute");
        for kind in [20, 16389] {
            assert_eq!(asked(CfgAttrType(kind)), [vec![10, 0, 0, 1], vec![10, 0, 0, 2]], "{kind}");
        }
        for kind in [21, 16390, 16391] {
            assert_eq!(asked(CfgAttrType(kind)).len(), 1, "{kind}");
            assert_eq!(asked(CfgAttrType(kind))[0].len(), 16, "{kind}");
        }
        assert_eq!(
            config_values(CfgAttrType(24), &[], Some(Duration::from_secs(300))),
            Some(vec![vec![0, 0, 1, 44]])
        );
        assert_eq!(config_values(CfgAttrType(24), &[], None), Some(vec![]));
        assert_eq!(config_values(CfgAttrType(1), &servers, None), None);
    }
}
