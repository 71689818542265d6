//! What a request says: the EAP packet, who asks, and where we are.

use std::net::IpAddr;
use std::sync::Arc;

use super::packet::{Attributes, PacketError, VALUE_LEN_MAX, VENDOR_3GPP, kind};
use crate::control::responder::{EapStep, Subject};

/// Service-Type Framed (RFC 2865 §5.6).
const SERVICE_FRAMED: u32 = 2;

/// NAS-Port-Type Virtual (RFC 2865 §5.41): there is no port, but a tunnel.
const PORT_VIRTUAL: u32 = 5;

/// 3GPP-IMSI (TS 29.061 §16.4.7.2).
const IMSI: u8 = 1;

/// 3GPP-IMEISV.
const IMEISV: u8 = 20;

/// 3GPP-RAT-Type.
const RAT_TYPE: u8 = 21;

/// 3GPP-RAT-Type of untrusted access by Wi-Fi.
const RAT_WLAN: u8 = 3;

/// EAP packets for the UE should fit an IKE message that needs no fragments (RFC 3579 §2.4).
const FRAMED_MTU: u32 = 1100;

/// The identity in an EAP-Response/Identity (RFC 3748 §5.1); `None` when the packet is not that.
pub fn eap_identity(packet: &[u8]) -> Option<&[u8]> {
    let [2, _, high, low, 1, identity @ ..] = packet else { return None };
    let announced = usize::from(u16::from_be_bytes([*high, *low]));
    // RFC 3748 §4.1: octets beyond the length are padding.
    identity.get(..announced.checked_sub(5)?)
}

/// The name of whoever asks, for every request about it: its EAP identity (RFC 3579 §2.1), and who it says it is in
/// IKE when that is empty. `None` when there is no such name, or none that fits.
pub fn user_name(step: &EapStep) -> Option<Arc<[u8]>> {
    let identity = eap_identity(&step.packet)?;
    let name = if identity.is_empty() { step.subject.idi.as_bytes() } else { identity };
    (1..=VALUE_LEN_MAX).contains(&name.len()).then(|| name.into())
}

/// Attributes of an Access-Request.
///
/// # Errors
/// When the EAP packet has no room.
pub fn access(
    user_name: &[u8],
    state: Option<&[u8]>,
    step: &EapStep,
    nas_identifier: &str,
) -> Result<Attributes, PacketError> {
    let mut attributes = Attributes::new();
    who(&mut attributes, user_name, &step.subject, nas_identifier)?;
    attributes.push_number(kind::SERVICE_TYPE, SERVICE_FRAMED)?;
    attributes.push_number(kind::FRAMED_MTU, FRAMED_MTU)?;
    if let Some(state) = state {
        attributes.push(kind::STATE, state)?;
    }
    attributes.push_eap(&step.packet)?;
    Ok(attributes)
}

/// Who is spoken of, and by whom.
///
/// # Errors
/// When a name is too long.
pub fn who(
    attributes: &mut Attributes,
    user_name: &[u8],
    subject: &Subject,
    nas_identifier: &str,
) -> Result<(), PacketError> {
    attributes.push(kind::USER_NAME, user_name)?;
    attributes.push(kind::NAS_IDENTIFIER, nas_identifier.as_bytes())?;
    match subject.local.ip() {
        addr if addr.is_unspecified() => {}
        IpAddr::V4(addr) => attributes.push(kind::NAS_IP_ADDRESS, &addr.octets())?,
        IpAddr::V6(addr) => attributes.push(kind::NAS_IPV6_ADDRESS, &addr.octets())?,
    }
    attributes.push_number(kind::NAS_PORT_TYPE, PORT_VIRTUAL)?;
    attributes.push(kind::CALLING_STATION_ID, subject.remote.ip().to_string().as_bytes())?;
    if let Some(apn) = &subject.apn {
        attributes.push(kind::CALLED_STATION_ID, apn.as_bytes())?;
    }
    if let Some(imsi) = imsi(user_name) {
        attributes.push_vendor(VENDOR_3GPP, IMSI, imsi)?;
        attributes.push_vendor(VENDOR_3GPP, RAT_TYPE, &[RAT_WLAN])?;
    }
    if let Some(imei) = &subject.imei {
        attributes.push_vendor(VENDOR_3GPP, IMEISV, imei.as_bytes())?;
    }
    Ok(())
}

/// The IMSI in a permanent identity of EAP-AKA or EAP-AKA' (TS 23.003 §19.3.2): a digit for the method, then up to 15
/// of the IMSI, then the realm.
fn imsi(user_name: &[u8]) -> Option<&[u8]> {
    let (method, rest) = user_name.split_first()?;
    let digits = rest.iter().take_while(|octet| octet.is_ascii_digit()).count();
    let ends = matches!(rest.get(digits), None | Some(b'@'));
    (matches!(method, b'0' | b'6') && (6..=15).contains(&digits) && ends).then(|| &rest[..digits])
}

#[cfg(test)]
mod tests {
    use super::super::packet::Packet;
    use super::super::sign::{self, Secret};
    use super::super::tests::step;
    use super::*;

    #[test]
    fn r3579_2_1_the_user_name_is_the_eap_identity() {
        let named = |packet: &[u8]| user_name(&step(1, packet)).map(|name| name.to_vec());
        assert_eq!(named(b"\x02\x01\x00\x0a\x01alice"), Some(b"alice".to_vec()));
        assert_eq!(named(b"\x02\x01\x00\x0a\x01alicepadding"), Some(b"alice".to_vec()));
        assert_eq!(named(b"\x02\x01\x00\x05\x01"), Some(b"idi@example".to_vec()));
        for bad in [
            &b""[..],
            b"\x02\x01\x00\x0a\x01",
            b"\x02\x01\x00\x04",
            b"\x01\x01\x00\x0a\x01alice",
            b"\x02\x01\x00\x04\x01a",
        ] {
            assert_eq!(named(bad), None, "{bad:?}");
        }
        let long = [&[2, 1, 1, 3, 1][..], &[b'a'; 254]].concat();
        assert_eq!(named(&long), None);
    }

    #[test]
    fn ts29061_16_4_7_an_access_request_says_who_and_where() {
        let name = b"0001010000000001@nai.epc.mnc001.mcc001.3gppnetwork.org";
        let mut asked = step(1, &[0x5a; 600]);
        asked.subject.imei = Some("3534900698733153".into());
        let attributes = access(name, Some(b"state"), &asked, "epdg.example").expect("room");
        let octets = sign::request(1, 2, &[3; 16], &attributes, &Secret::new(b"s"));
        let packet = Packet::parse(&octets).expect("a packet");
        assert_eq!(packet.attributes().next().map(|first| first.kind), Some(kind::MESSAGE_AUTHENTICATOR));
        assert_eq!(packet.value(kind::USER_NAME), Some(&name[..]));
        assert_eq!(packet.value(kind::STATE), Some(&b"state"[..]));
        assert_eq!(packet.eap(), Some(vec![0x5a; 600]));
        assert_eq!(packet.value(kind::CALLED_STATION_ID), Some(&b"ims"[..]));
        assert_eq!(packet.value(kind::CALLING_STATION_ID), Some(&b"198.51.100.7"[..]));
        assert_eq!(packet.value(kind::NAS_IP_ADDRESS), Some(&[192, 0, 2, 1][..]));
        assert_eq!(packet.number(kind::NAS_PORT_TYPE), Some(5));
        assert_eq!(packet.vendor_values(VENDOR_3GPP, IMSI).next(), Some(&b"001010000000001"[..]));
        assert_eq!(packet.vendor_values(VENDOR_3GPP, IMEISV).next(), Some(&b"3534900698733153"[..]));
        assert_eq!(packet.vendor_values(VENDOR_3GPP, RAT_TYPE).next(), Some(&[RAT_WLAN][..]));
    }

    #[test]
    fn ts23003_19_3_2_only_permanent_identities_have_an_imsi() {
        assert_eq!(imsi(b"6001010000000001@x"), Some(&b"001010000000001"[..]));
        for other in [
            &b""[..],
            b"alice",
            b"0",
            b"0alice@x",
            b"2001010000000001@x",
            b"00010100000000012@x",
            b"0001010x@x",
        ] {
            assert_eq!(imsi(other), None, "{other:?}");
        }
    }
}
