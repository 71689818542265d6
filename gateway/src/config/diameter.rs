//! `[[aaa]]` of kind `diameter`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use codec::ike::IdType;
use rustls::ClientConfig;

use super::profile::PEM;
use super::reader::{Field, Section};
use super::{secrets, tls};
use crate::control::aaa::diameter::{Application, Server, Settings};
use crate::control::responder::Identity;
use crate::limits::DIAMETER_SERVERS_MAX;
use crate::tls::{SettingsError, TlsClient};

const SERVERS: &str = "1 to 8 of address:port, such as [\"10.77.0.1:3868\"]";
const HOST: &str =
    "a DiameterIdentity: a fully qualified domain name, such as \"aaa.epc.mnc001.mcc001.3gppnetwork.org\"";
const HOSTS: &str = "as many DiameterIdentities as there are servers, in their order";
const APPLICATION: &str = "swm or eap";
const TRANSPORT: &str = "tcp or tls";

/// Each server has a name of its own, which the connection to it brings along.
const ANY_NAME: &str = "localhost";

/// Longest domain name (RFC 1035 §2.3.4).
const NAME_OCTETS_MAX: usize = 253;

/// Reads the keys of a Diameter back end called `name`. `own` is the identity of this gateway; files are opened when
/// the back end is `used`.
pub(super) fn read(
    section: &mut Section<'_>,
    name: &str,
    used: bool,
    own: Option<&Identity>,
) -> Option<Settings> {
    let servers = servers(section);
    let own = own.filter(|own| own.kind() == IdType::FQDN).map(ToString::to_string);
    let own = own.filter(|own| is_host(own));
    let origin_host = match (section.value("origin_host"), own) {
        (Some(field), _) => host(&field),
        (None, Some(own)) => Some(own.into()),
        (None, None) => {
            section.missing("origin_host", HOST);
            None
        }
    };
    // RFC 6733 §4.3.1: a host's name lies in its realm as a rule.
    let realm = |host: &str| host.split_once('.').map(|(_, realm)| Arc::from(realm));
    let origin_realm = match section.value("origin_realm") {
        Some(field) => host(&field),
        None => origin_host.as_deref().and_then(realm),
    };
    let destination_realm = section.value("destination_realm").and_then(|field| host(&field));
    let destination_host = section.value("destination_host").and_then(|field| host(&field));
    let visited_network = section.value("visited_network").and_then(|field| host(&field));
    let application = keyword(section, "application", APPLICATION, |text| match text {
        "swm" => Some(Application::Swm),
        "eap" => Some(Application::Eap),
        _ => None,
    });
    let tls = transport(section, used);
    let timeout = Duration::from_millis(section.number("timeout_ms", 5_000, 200..=60_000, "milliseconds"));
    // RFC 3539 §3.4.1: never below 6 s.
    let watchdog = Duration::from_secs(section.number("watchdog_s", 30, 6..=300, "seconds"));
    Some(Settings {
        name: name.into(),
        servers: servers?,
        origin_host: origin_host?,
        origin_realm: origin_realm?,
        destination_realm,
        destination_host,
        application: application.unwrap_or(Application::Swm),
        visited_network,
        tls,
        timeout,
        watchdog,
    })
}

fn servers(section: &mut Section<'_>) -> Option<Vec<Server>> {
    let field = section.required("servers", SERVERS);
    let hosts = section.value("server_hosts");
    let field = field?;
    let addrs = field.some_list(SERVERS);
    if addrs.len() > DIAMETER_SERVERS_MAX {
        field.reject(SERVERS);
        return None;
    }
    let names = hosts.as_ref().map(|hosts| hosts.list(HOSTS));
    if let (Some(hosts), Some(names)) = (&hosts, &names)
        && names.len() != addrs.len()
    {
        hosts.reject(HOSTS);
    }
    let mut names = names.into_iter().flatten();
    let servers: Vec<Option<Server>> = addrs
        .iter()
        .map(|field| {
            let host = names.next().and_then(|field| host(&field));
            let addr: SocketAddr = field.parse(SERVERS)?;
            Some(Server { name: addr.to_string().into(), addr, host })
        })
        .collect();
    servers.into_iter().collect::<Option<Vec<_>>>().filter(|servers| !servers.is_empty())
}

/// Reads `transport` and the files of TLS.
fn transport(section: &mut Section<'_>, used: bool) -> Option<Arc<ClientConfig>> {
    let is_tls = keyword(section, "transport", TRANSPORT, |text| match text {
        "tcp" => Some(false),
        "tls" => Some(true),
        _ => None,
    });
    let [ca, chain, key] = ["ca", "chain", "key"].map(|key| section.value(key));
    if is_tls != Some(true) {
        for field in [ca, chain, key].into_iter().flatten() {
            field.reject("nothing without transport = \"tls\"");
        }
        return None;
    }
    if ca.is_none() {
        section.missing("ca", &format!("{PEM} with the authorities of the servers' certificates"));
    }
    match (&chain, &key) {
        (Some(_), None) => section.missing("key", &format!("{PEM}, with chain")),
        (None, Some(_)) => section.missing("chain", &format!("{PEM}, with key")),
        _ => {}
    }
    if !used {
        return None;
    }
    open(&ca?, chain.as_ref().zip(key.as_ref()))
}

fn open(ca: &Field<'_>, own: Option<(&Field<'_>, &Field<'_>)>) -> Option<Arc<ClientConfig>> {
    let authorities = tls::pem(ca);
    let pems = match own {
        Some((chain, key)) => {
            let path = key.text(PEM).map(|text| key.reader().resolve(text));
            path.iter().for_each(|path| secrets::warn_if_open(key.reader(), path));
            let (chain, key) = (tls::pem(chain), tls::pem(key));
            Some((chain?, key?))
        }
        None => None,
    };
    let authorities = authorities?;
    let client = match &pems {
        Some((chain, key)) => TlsClient::with_certificate(&authorities, ANY_NAME, chain, key),
        None => TlsClient::new(&authorities, ANY_NAME),
    };
    client
        .map(|client| client.config())
        .inspect_err(|error| {
            let blamed = match (error, own) {
                (SettingsError::Chain(_), Some((chain, _))) => chain,
                (SettingsError::Key(_), Some((_, key))) => key,
                _ => ca,
            };
            blamed.reject(format!("{PEM} ({error})"));
        })
        .ok()
}

/// One of a few words.
fn keyword<T>(
    section: &mut Section<'_>,
    key: &'static str,
    allowed: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    let field = section.value(key)?;
    let parsed = parse(field.text(allowed)?);
    if parsed.is_none() {
        field.reject(allowed);
    }
    parsed
}

fn host(field: &Field<'_>) -> Option<Arc<str>> {
    let text = field.text(HOST)?;
    if !is_host(text) {
        field.reject(HOST);
        return None;
    }
    Some(text.into())
}

fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
    };
    text.len() <= NAME_OCTETS_MAX && text.contains('.') && text.split('.').all(is_label)
}
