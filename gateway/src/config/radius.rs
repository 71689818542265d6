//! `[[aaa]] kind = "radius"`.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use zeroize::Zeroizing;

use super::profile::PEM;
use super::reader::{Field, Section};
use super::secrets;
use crate::control::aaa::radius::{DynamicConfig, RadiusConfig, Secret, VALUE_LEN_MAX};
use crate::limits::RADIUS_SERVERS_MAX;
use crate::tls::{SettingsError, TlsClient};

const SERVERS: &str = "1 to 16 of address:port, such as [\"10.77.0.1:1812\"]";

const ACCOUNTING: &str =
    "true (the servers' addresses with port 1813, or their own over TLS), false, or 1 to 16 of address:port";

const SECRET: &str = "the path of a file with one line, the shared secret of 1 to 253 octets";

const SECRET_LEN_MAX: usize = 253;

/// Octets below which a secret can be guessed from what it signs (RFC 2865 §3).
const SECRET_LEN_GOOD: usize = 16;

const TRANSPORT: &str = "\"udp\" or \"tls\"";

const TLS_NAME: &str = "the servers' name in their certificates, a host name or an IP address";

/// Reads the section but for name and kind. Unless it is `used`, no file that it names is opened, and nothing comes of it.
pub(super) fn read(section: &mut Section<'_>, used: bool) -> Option<RadiusConfig> {
    let servers =
        section.required("servers", SERVERS).map(|field| servers(&field, SERVERS)).unwrap_or_default();
    let tls = transport(section);
    let accounting = accounting(section, &servers, tls.is_some());
    let secret = match &tls {
        // RFC 6614 §2.3: TLS protects, and the secret is the same for all.
        Some(_) => {
            if section.value("secret_file").is_some() {
                section.reader().warn("secret_file: not used with transport = \"tls\"".into());
            }
            Some(Secret::radsec())
        }
        None => section.required("secret_file", SECRET).filter(|_| used).and_then(|field| secret(&field)),
    };
    let nas_identifier = nas_identifier(section);
    let ms = |ms| Duration::from_millis(ms);
    let timeout = ms(section.number("timeout_ms", 1_000, 50..=30_000, "milliseconds"));
    let retries = section.number("retries", 4, 0..=10, "repetitions") as u32;
    let dead_after = ms(section.number("dead_after_ms", 4_000, 100..=300_000, "milliseconds"));
    let revive_after = Duration::from_secs(section.number("revive_s", 10, 1..=3_600, "seconds"));
    let status_server = section.flag("status_server", true);
    let outstanding = section.number("outstanding", 8_192, 1..=65_536, "requests") as usize;
    let interim = section.value("interim_s").and_then(|field| field.number(60..=86_400, "seconds"));
    let accounting_queue = section.number("accounting_queue", 16_384, 64..=1_048_576, "records") as usize;
    let dynamic = dynamic(section);
    let tls = match tls {
        Some(tls) if used => Some(tls.open(servers.iter().chain(&accounting))?),
        _ => None,
    };
    (used && !servers.is_empty()).then_some(())?;
    let pem = tls.as_ref().map(|(_, digest)| *digest);
    let rest = (&servers, &accounting, &nas_identifier, timeout, retries, dead_after, revive_after);
    let more = (status_server, outstanding, interim, accounting_queue, &dynamic, pem);
    let secret = secret?;
    let digest = secret.digest(format!("{rest:?}{more:?}").as_bytes());
    Some(RadiusConfig {
        digest,
        servers,
        accounting,
        secret,
        tls: tls.map(|(tls, _)| tls),
        nas_identifier,
        timeout,
        retries,
        dead_after,
        revive_after,
        status_server,
        outstanding,
        interim: interim.map(Duration::from_secs),
        accounting_queue,
        dynamic,
    })
}

fn servers(field: &Field<'_>, allowed: &str) -> Vec<SocketAddr> {
    let fields = field.some_list(allowed);
    if fields.len() > RADIUS_SERVERS_MAX {
        field.reject(allowed);
    }
    let mut servers: Vec<SocketAddr> = Vec::new();
    for field in fields {
        let Some(server) = field.parse::<SocketAddr>(allowed) else { continue };
        if server.port() == 0 || servers.contains(&server) {
            field.reject(format!("a port from 1 to 65535, and no server twice, in {allowed}"));
        }
        servers.push(server);
    }
    servers
}

fn accounting(section: &mut Section<'_>, servers: &[SocketAddr], tls: bool) -> Vec<SocketAddr> {
    let Some(field) = section.value("accounting") else { return Vec::new() };
    if !field.is_flag() {
        return self::servers(&field, ACCOUNTING);
    }
    // RFC 6614 §2.1: one port for all over TLS.
    let port = |server: &SocketAddr| if tls { server.port() } else { 1813 };
    match field.flag() {
        Some(true) => servers.iter().map(|server| SocketAddr::new(server.ip(), port(server))).collect(),
        _ => Vec::new(),
    }
}

/// Reads the one line of the file that `field` names.
fn secret(field: &Field<'_>) -> Option<Secret> {
    let path = field.reader().resolve(field.text(SECRET)?);
    let text = match super::read_text(&path) {
        Ok(text) => Zeroizing::new(text),
        Err(error) => {
            field.reject(format!("{SECRET} ({error})"));
            return None;
        }
    };
    secrets::warn_if_open(field.reader(), &path);
    let line = text.strip_suffix('\n').unwrap_or(&text);
    if line.is_empty() || line.len() > SECRET_LEN_MAX || line.contains(['\n', '\r']) {
        field.reject(SECRET);
        return None;
    }
    warn_if_short(field, &path, line);
    Some(Secret::new(line.as_bytes()))
}

fn warn_if_short(field: &Field<'_>, path: &Path, line: &str) {
    if line.len() < SECRET_LEN_GOOD {
        let what = "a shared secret has less than 16 octets (RFC 2865 §3)";
        field.reader().warn(format!("{}: {what}", path.display()));
    }
}

fn nas_identifier(section: &mut Section<'_>) -> Option<std::sync::Arc<str>> {
    let allowed = "a text of 1 to 253 octets";
    let field = section.value("nas_identifier")?;
    let text = field.text(allowed)?;
    if text.is_empty() || text.len() > VALUE_LEN_MAX {
        field.reject(allowed);
    }
    Some(text.into())
}

fn dynamic(section: &mut Section<'_>) -> Option<DynamicConfig> {
    let (listen, client) = ("address:port, such as \"10.77.0.254:3799\"", "IP addresses of servers");
    let field = section.value("dynamic_authorization");
    let clients = section.list("dynamic_clients", client);
    let clients = clients.iter().filter_map(|field| field.parse::<IpAddr>(client)).collect();
    let needs_timestamp = section.flag("event_timestamp", true);
    let listen = field?.parse(listen)?;
    Some(DynamicConfig { listen, clients, needs_timestamp })
}

/// What TLS needs, not yet opened.
struct Tls<'a> {
    ca: Option<Field<'a>>,
    chain: Option<Field<'a>>,
    key: Option<Field<'a>>,
    name: Option<Field<'a>>,
}

/// Reads what carries the packets; `Some` is TLS.
fn transport<'a>(section: &mut Section<'a>) -> Option<Tls<'a>> {
    let tls = match section.value("transport") {
        None => false,
        Some(field) => match field.text(TRANSPORT) {
            Some("tls") => true,
            Some("udp") | None => false,
            Some(_) => {
                field.reject(TRANSPORT);
                false
            }
        },
    };
    if !tls {
        for key in ["ca", "chain", "key", "tls_name"] {
            if let Some(field) = section.value(key) {
                field.reject("nothing here without transport = \"tls\"");
            }
        }
        return None;
    }
    let [ca, chain, key] = ["ca", "chain", "key"].map(|key| section.required(key, PEM));
    Some(Tls { ca, chain, key, name: section.value("tls_name") })
}

impl Tls<'_> {
    /// What each of `servers` is spoken to with. Without a name, a server's certificate must have its address.
    /// Also returns a digest of it all.
    fn open<'s>(&self, servers: impl Iterator<Item = &'s SocketAddr>) -> Option<(Vec<TlsClient>, [u8; 32])> {
        let (ca, chain, key) = (self.ca.as_ref()?, self.chain.as_ref()?, self.key.as_ref()?);
        if let Some(path) = key.text(PEM) {
            secrets::warn_if_open(key.reader(), &key.reader().resolve(path));
        }
        let octets = [ca, chain, key].map(super::tls::pem);
        let [Some(ca_pem), Some(chain_pem), Some(key_pem)] = octets else { return None };
        let key_pem = Zeroizing::new(key_pem);
        let name = match &self.name {
            Some(field) => Some(field.text(TLS_NAME)?),
            None => None,
        };
        let client = |server: &SocketAddr| {
            let name = name.map_or_else(|| server.ip().to_string(), str::to_owned);
            TlsClient::with_certificate(&ca_pem, &name, &chain_pem, &key_pem)
        };
        let clients: Result<Vec<TlsClient>, SettingsError> = servers.map(client).collect();
        match clients {
            Ok(clients) => {
                let files = [&ca_pem[..], &chain_pem, &key_pem, name.unwrap_or_default().as_bytes()].concat();
                return Some((clients, Secret::new(&files).digest(b"tls")));
            }
            Err(SettingsError::Authorities(what)) => ca.reject(format!("{PEM} ({what})")),
            Err(SettingsError::Chain(what)) => chain.reject(format!("{PEM} ({what})")),
            Err(SettingsError::Key(what)) => key.reject(format!("{PEM} ({what})")),
            Err(SettingsError::Name(what)) => {
                self.name.as_ref().inspect(|name| name.reject(format!("{TLS_NAME} ({what})")));
            }
        }
        None
    }
}
