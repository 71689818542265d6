//! CER and CEA (RFC 6733 §5.3): who we are, and whether the peer is who and what we need.

use std::net::IpAddr;
use std::sync::Arc;

use super::ids::Ids;
use super::message::{Header, Message, MessageWriter};
use super::names::{self, TGPP, application, command, result, value};
use super::peer::origin;
use super::settings::{Application, Server, Settings};

/// Why a peer is of no use.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// It sent something else than a CEA.
    #[error("it did not answer our CER")]
    NoCea,
    /// It refused us.
    #[error("it refused us with Result-Code {0}")]
    Result(u32),
    /// It says it is another than the one configured.
    #[error("it calls itself {found:?}, not {wanted:?}")]
    Host {
        /// As configured.
        wanted: Arc<str>,
        /// As it says.
        found: String,
    },
    /// It does not serve our application.
    #[error("it does not serve application {0}")]
    Application(u32),
}

/// Our CER, on a connection from `local`.
pub fn request(settings: &Settings, ids: &mut Ids, hop_by_hop: u32, local: IpAddr) -> Vec<u8> {
    let mut header = Header::request(command::CAPABILITIES_EXCHANGE, application::COMMON, ids.end_to_end());
    header.hop_by_hop = hop_by_hop;
    let mut writer = MessageWriter::new(header);
    origin(settings, &mut writer);
    let avps = writer.avps();
    avps.address(names::HOST_IP_ADDRESS, local)
        // RFC 6733 §5.3.3: nobody has given us an enterprise number.
        .number(names::VENDOR_ID, 0)
        .text(names::PRODUCT_NAME, "swugate")
        .number(names::ORIGIN_STATE_ID, ids.origin_state())
        .number(names::INBAND_SECURITY_ID, value::NO_INBAND_SECURITY);
    match settings.application {
        Application::Swm => avps.number(names::SUPPORTED_VENDOR_ID, TGPP).group(
            names::VENDOR_SPECIFIC_APPLICATION_ID,
            |group| {
                group.number(names::VENDOR_ID, TGPP).number(names::AUTH_APPLICATION_ID, application::SWM);
            },
        ),
        Application::Eap => avps.number(names::AUTH_APPLICATION_ID, application::EAP),
    };
    writer.finish()
}

/// What the peer calls itself, when it is of use.
///
/// # Errors
/// Why it is not.
pub fn check(
    settings: &Settings,
    server: &Server,
    hop_by_hop: u32,
    message: &Message<'_>,
) -> Result<Arc<str>, Refused> {
    let header = message.header;
    let is_cea = header.command == command::CAPABILITIES_EXCHANGE && !header.is_request();
    if !is_cea || header.hop_by_hop != hop_by_hop {
        return Err(Refused::NoCea);
    }
    match message.number(names::RESULT_CODE) {
        Some(result::SUCCESS) => {}
        Some(code) => return Err(Refused::Result(code)),
        None => return Err(Refused::NoCea),
    }
    let host = message.text(names::ORIGIN_HOST).ok_or(Refused::NoCea)?;
    if let Some(wanted) = server.host.as_ref().filter(|wanted| !wanted.eq_ignore_ascii_case(host)) {
        return Err(Refused::Host { wanted: wanted.clone(), found: host.escape_default().to_string() });
    }
    let id = settings.application.id();
    if !message.avps().any(|avp| serves(&avp, id)) {
        return Err(Refused::Application(id));
    }
    Ok(host.into())
}

/// Whether an AVP of a CEA says that `id` is served, by itself or by a relay for anything.
fn serves(avp: &super::avp::Avp<'_>, id: u32) -> bool {
    let matches = |number: Option<u32>| number == Some(id) || number == Some(application::RELAY);
    if avp.is(names::VENDOR_SPECIFIC_APPLICATION_ID) {
        return matches(avp.inner(names::AUTH_APPLICATION_ID).and_then(|inner| inner.number()));
    }
    (avp.is(names::AUTH_APPLICATION_ID) || avp.is(names::ACCT_APPLICATION_ID)) && matches(avp.number())
}
