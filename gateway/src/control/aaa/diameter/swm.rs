//! The messages of SWm (3GPP TS 29.273 §7.2.2): DER and DEA, STR, AAR and AAA.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use zeroize::Zeroizing;

use super::avp::AvpWriter;
use super::causes::{self, Outcome};
use super::dialog::Dialog;
use super::message::{Header, Message, MessageWriter};
use super::names::{self, command, value};
use super::peer::origin;
use super::settings::{Application, Settings};
use crate::control::responder::{EapStep, Subject};

/// What an answer to a DER or an AAR says.
pub struct Answer<'a> {
    /// How it went.
    pub outcome: Outcome,
    /// EAP-Payload, or EAP-Reissued-Payload where there is none.
    pub eap: Option<&'a [u8]>,
    /// EAP-Master-Session-Key.
    pub msk: Zeroizing<Vec<u8>>,
    /// The server that answered.
    pub origin_host: Option<&'a str>,
    /// The permanent identity of the user.
    pub identity: Option<&'a str>,
    /// How long the session may last.
    pub lifetime: Option<Duration>,
    /// Addresses of the user.
    pub inner: Vec<IpAddr>,
    /// Whether the server wants to hear of the session's end.
    pub stateful: bool,
}

/// A DER with an EAP packet of the peer.
pub fn eap_request(settings: &Settings, dialog: &Dialog, step: &EapStep, end_to_end: u32) -> Vec<u8> {
    let mut writer = begin(settings, dialog, command::DIAMETER_EAP, end_to_end);
    let avps = writer.avps();
    avps.number(names::AUTH_REQUEST_TYPE, value::AUTHORIZE_AUTHENTICATE)
        .text(names::USER_NAME, &dialog.user)
        .octets(names::EAP_PAYLOAD, &step.packet);
    if let Some(state) = &dialog.state {
        avps.octets(names::STATE, state);
    }
    if settings.application == Application::Swm {
        access(settings, &step.subject, avps);
    }
    writer.finish()
}

/// What SWm says beside EAP: where and by what the user is attached (TS 29.273 table 7.2.2.1.1/1).
fn access(settings: &Settings, subject: &Subject, avps: &mut AvpWriter) {
    avps.number(names::RAT_TYPE, value::RAT_WLAN);
    if let Some(apn) = &subject.apn {
        avps.text(names::SERVICE_SELECTION, apn);
    }
    if let Some(network) = &settings.visited_network {
        avps.text(names::VISITED_NETWORK_IDENTIFIER, network);
    }
    avps.address(names::UE_LOCAL_IP_ADDRESS, subject.remote.ip());
    if let Some(imei) = &subject.imei {
        avps.group(names::TERMINAL_INFORMATION, |group| device(group, imei));
    }
    if subject.emergency {
        avps.number(names::EMERGENCY_SERVICES, value::EMERGENCY_INDICATION);
    }
}

/// An IMEI of 15 digits, or an IMEISV of 16 (TS 23.003 §6.2): its last two are the software's.
fn device(group: &mut AvpWriter, imei: &str) {
    match imei.split_at_checked(14) {
        Some((body, version)) if version.len() == 2 => {
            group.text(names::IMEI, body).text(names::SOFTWARE_VERSION, version);
        }
        _ => {
            group.text(names::IMEI, imei);
        }
    }
}

/// An STR: the session has ended for `cause`.
pub fn termination(settings: &Settings, dialog: &Dialog, cause: u32, end_to_end: u32) -> Vec<u8> {
    let mut writer = begin(settings, dialog, command::SESSION_TERMINATION, end_to_end);
    let avps = writer.avps();
    avps.number(names::TERMINATION_CAUSE, cause).text(names::USER_NAME, &dialog.user);
    for class in &dialog.class {
        avps.octets(names::CLASS, class);
    }
    writer.finish()
}

/// An AAR: may the session go on (TS 29.273 §7.1.2.5)?
pub fn authorization(settings: &Settings, dialog: &Dialog, end_to_end: u32) -> Vec<u8> {
    let mut writer = begin(settings, dialog, command::AA, end_to_end);
    writer
        .avps()
        .number(names::AUTH_REQUEST_TYPE, value::AUTHORIZE_ONLY)
        .text(names::USER_NAME, &dialog.user);
    writer.finish()
}

/// What every request of a session begins with; Session-Id comes first (RFC 6733 §8.8).
fn begin(settings: &Settings, dialog: &Dialog, command: u32, end_to_end: u32) -> MessageWriter {
    let application = settings.application.id();
    let mut writer = MessageWriter::new(Header::request(command, application, end_to_end));
    writer
        .avps()
        .text(names::SESSION_ID, &dialog.session_id(settings))
        .number(names::AUTH_APPLICATION_ID, application);
    origin(settings, &mut writer);
    writer.avps().text(names::DESTINATION_REALM, &dialog.realm);
    if let Some(host) = &dialog.host {
        writer.avps().text(names::DESTINATION_HOST, host);
    }
    writer
}

/// Reads a DEA or AAA for a user who asked for `apn`.
pub fn answer<'a>(message: &Message<'a>, apn: Option<&str>) -> Answer<'a> {
    let packet = |name| message.find(name).map(|avp| avp.data).filter(|data| !data.is_empty());
    let msk = message.find(names::EAP_MASTER_SESSION_KEY).map(|avp| avp.data.to_vec());
    Answer {
        outcome: causes::outcome(message),
        eap: packet(names::EAP_PAYLOAD).or_else(|| packet(names::EAP_REISSUED_PAYLOAD)),
        msk: Zeroizing::new(msk.unwrap_or_default()),
        origin_host: message.text(names::ORIGIN_HOST),
        identity: message.text(names::MOBILE_NODE_IDENTIFIER),
        lifetime: lifetime(message),
        inner: addresses(message, apn),
        stateful: message.number(names::AUTH_SESSION_STATE) != Some(value::NO_STATE_MAINTAINED),
    }
}

/// The shorter of Session-Timeout and Authorization-Lifetime with its grace (RFC 6733 §8.9, §8.13). A new
/// authorization is what the UE's next attach brings, so its lifetime ends the session. 0 is no bound.
fn lifetime(message: &Message<'_>) -> Option<Duration> {
    let session = message.number(names::SESSION_TIMEOUT).filter(|&s| s != 0);
    let authorization = message.number(names::AUTHORIZATION_LIFETIME).filter(|&s| s != u32::MAX && s != 0);
    let grace = message.number(names::AUTH_GRACE_PERIOD).unwrap_or(0);
    let authorization = authorization.map(|lifetime| lifetime.saturating_add(grace));
    let shortest = session.into_iter().chain(authorization).min()?;
    Some(Duration::from_secs(shortest.into()))
}

/// The static addresses of the user at its APN, at most one per family: those of the APN-Configuration for it
/// (TS 29.273 §7.2.2.1.2), else Framed-IP-Address.
fn addresses(message: &Message<'_>, apn: Option<&str>) -> Vec<IpAddr> {
    let configurations = || message.avps().filter(|avp| avp.is(names::APN_CONFIGURATION));
    let named = |name: &str| {
        configurations().find(|configuration| {
            let selection = configuration.inner(names::SERVICE_SELECTION);
            selection.and_then(|avp| avp.text()).is_some_and(|text| text.eq_ignore_ascii_case(name))
        })
    };
    // "*" is the configuration for APNs that have none of their own (TS 29.272 §7.3.36).
    let configuration = apn.and_then(named).or_else(|| named("*"));
    let served: Vec<IpAddr> = configuration
        .into_iter()
        .flat_map(|configuration| configuration.group())
        .filter(|avp| avp.is(names::SERVED_PARTY_IP_ADDRESS))
        .filter_map(|avp| avp.address())
        .collect();
    let framed = message.find(names::FRAMED_IP_ADDRESS).and_then(|avp| framed_v4(avp.data));
    let all = served.into_iter().chain(framed);
    let mut chosen: Vec<IpAddr> = Vec::new();
    for address in all.filter(is_assignable) {
        if chosen.iter().all(|other| other.is_ipv4() != address.is_ipv4()) {
            chosen.push(address);
        }
    }
    chosen
}

/// Framed-IP-Address; its two highest values leave the choice to us or to the user (RFC 7155 §4.4.10.5.1).
fn framed_v4(data: &[u8]) -> Option<IpAddr> {
    let number = u32::from_be_bytes(data.try_into().ok()?);
    (number < 0xffff_fffe).then(|| Ipv4Addr::from(number).into())
}

fn is_assignable(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_unspecified() && !v4.is_multicast() && !v4.is_loopback(),
        IpAddr::V6(v6) => *v6 != Ipv6Addr::UNSPECIFIED && !v6.is_multicast() && !v6.is_loopback(),
    }
}
