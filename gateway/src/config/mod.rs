//! The configuration: one TOML file and the files it names, read and checked as a whole.
//!
//! [`load`] either yields a [`Config`] that can be put to work without further questions, or every
//! mistake it found, each with file, line, key, value and what is allowed. Nothing here binds a socket.

mod aaa;
mod diameter;
mod profile;
mod queueing;
mod radius;
mod reader;
mod secrets;
mod sections;
mod tls;

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use aaa::{AaaKind, AaaSection};
pub use queueing::Queueing;
pub use reader::ConfigError;

use crate::control::responder::{IkeTcpOffer, ResponderConfig};
use crate::io::sockets::StreamOptions;
use crate::limits::Limits;
use crate::relay::Backend;
use crate::tls::{StreamKind, TlsServer};
use reader::Reader;

/// Where the configuration is without `-c`.
pub const DEFAULT_FILE: &str = "/etc/swugate/swugate.toml";

/// Where the control socket is unless the configuration says otherwise.
pub const DEFAULT_RUN_DIR: &str = "/run/swugate";

/// Where state is kept while the control socket is at its default place; else it is kept beside that.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/swugate";

/// Most octets of a configuration file, and of each file it names.
const FILE_OCTETS_MAX: u64 = 16 << 20;

/// A complete, checked configuration.
pub struct Config {
    /// The file it came from.
    pub file: PathBuf,
    /// `[gateway]`.
    pub gateway: GatewaySection,
    /// `[listen]`.
    pub listen: ListenSection,
    /// `[metrics] listen`; `None` switches the HTTP listener off.
    pub metrics: Option<SocketAddr>,
    /// `[inner]` or `[[inner]]`, by [`crate::types::NetworkId`]; at least one.
    pub inner: Vec<InnerSection>,
    /// `[relay]`: present, the process relays to this backend and is no responder itself.
    pub relay: Option<Backend>,
    /// What is offered where TLS is spoken; present when it is.
    pub tls: Option<TlsServer>,
    /// `[[aaa]]`, and the back ends of profiles that bring their own subscribers.
    pub aaa: Vec<AaaSection>,
    /// Identity, certificates, pools and profiles, as the responder takes them.
    pub responder: Arc<ResponderConfig>,
    /// `[limits]`.
    pub limits: Limits,
    /// `[debug]`.
    pub debug: DebugSection,
    /// What an operator should know although it is no mistake.
    pub warnings: Vec<String>,
}

/// `[gateway]` without the identity: where we run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GatewaySection {
    /// The user to become after start.
    pub user: Option<String>,
    /// Number of workers; `None` is one per allowed core (or per entry of `cores`).
    pub workers: Option<usize>,
    /// Cores to pin the workers to, in worker order and round again; empty pins nothing.
    pub cores: Vec<usize>,
    /// Directory of the control socket.
    pub run_dir: PathBuf,
    /// Directory of what must outlast a restart.
    pub state_dir: PathBuf,
}

/// `[listen]`: outside addresses by transport.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenSection {
    /// RFC 9329 over TCP.
    pub tcp: Vec<SocketAddr>,
    /// IKE alone over TCP (draft-ietf-ipsecme-ike-tcp).
    pub ike_tcp: Vec<SocketAddr>,
    /// What IKE_SA_INIT over other transports says about it.
    pub ike_tcp_offer: Option<IkeTcpOffer>,
    /// RFC 9329 inside TLS (its Appendix A).
    pub tls: Vec<SocketAddr>,
    /// Either, told apart by the first octet.
    pub shared: Vec<SocketAddr>,
    /// 3GPP TS 24.302 Annex F.
    pub ftt: Vec<SocketAddr>,
    /// RFC 7296 and 3948 over UDP: IKE alone on port 500, IKE and ESP on all others.
    pub udp: Vec<SocketAddr>,
    /// Addresses of ours at which emergency calls arrive.
    pub emergency: Vec<SocketAddr>,
    /// What TCP connections have from the sockets that listen.
    pub options: StreamOptions,
}

impl ListenSection {
    /// Every address that takes TCP connections, and what is spoken there.
    pub fn streams(&self) -> impl Iterator<Item = (StreamKind, SocketAddr)> {
        let kinds = [
            (StreamKind::Tcp, &self.tcp),
            (StreamKind::Tls, &self.tls),
            (StreamKind::Shared, &self.shared),
            (StreamKind::Ftt, &self.ftt),
            (StreamKind::IkeTcp, &self.ike_tcp),
        ];
        kinds.into_iter().flat_map(|(kind, addrs)| addrs.iter().map(move |&addr| (kind, addr)))
    }

    /// Whether TLS is spoken anywhere.
    pub fn uses_tls(&self) -> bool {
        self.streams().any(|(kind, _)| kind.may_be_tls())
    }
}

/// `[inner]`, or one `[[inner]]`: a device towards a core network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InnerSection {
    /// What pools and profiles call it: the name of its device unless it has one of its own.
    pub name: String,
    /// Name of the device, 1 to 15 octets.
    pub device: String,
    /// The network namespace the device is made in; `None` is the process's own.
    pub netns: Option<String>,
    /// The VRF it belongs to.
    pub vrf: Option<String>,
    /// Largest inner packet, octets.
    pub mtu: u16,
    /// DNS servers for the UEs.
    pub dns: Vec<IpAddr>,
    /// Whether UEs may reach each other through the gateway.
    pub hairpin: bool,
    /// Whether the device carries super-packets (TSO, USO).
    pub offload: bool,
    /// Longest super-packet of TCP over IPv4 that the device is given, octets.
    pub offload_octets: usize,
    /// How downlink packets wait; the same in all networks.
    pub queueing: Queueing,
}

impl InnerSection {
    /// What the device carries: super-packets of TCP over IPv4 of up to so many octets, or `None`.
    pub fn super_packets(&self) -> Option<usize> {
        self.offload.then_some(self.offload_octets)
    }
}

/// Longest packet whose length an IPv4 header can say.
pub(super) const OFFLOAD_OCTETS_MIN: usize = u16::MAX as usize;

impl Default for InnerSection {
    fn default() -> Self {
        Self {
            name: "swu0".into(),
            device: "swu0".into(),
            netns: None,
            vrf: None,
            mtu: 1400,
            dns: Vec::new(),
            hairpin: false,
            offload: true,
            offload_octets: OFFLOAD_OCTETS_MIN,
            queueing: Queueing::default(),
        }
    }
}

/// `[debug]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DebugSection {
    /// Log filter: a level, or directives of tracing-subscriber.
    pub log: String,
    /// Whether `swugate keylog` may write keys.
    pub keylog: bool,
    /// Whether records of failed attempts name subscribers; else a hash stands for each.
    pub identities: bool,
}

impl Config {
    /// Keys that differ from `running` and take effect at the next start only.
    pub fn needs_restart(&self, running: &Self) -> Vec<&'static str> {
        let pools = |config: &Self| {
            config.responder.pools.iter().flat_map(|pool| pool.prefixes.clone()).collect::<Vec<_>>()
        };
        let limits = |config: &Self| {
            // These are followed at once.
            let followed = [
                "sessions",
                "children_per_session",
                "half_open",
                "half_open_per_source",
                "cookies_from",
                "puzzles_from",
                "puzzle_bits",
                "challenge_s",
                "unsolved_per_s",
                "unsolved",
                "sa_init_per_s",
                "sa_init_per_prefix_per_s",
                "sa_init_queue",
                "sa_init_wait_ms",
                "emergency_reserved",
                "eap_s",
                "failed_attempts",
                "used_tickets",
                "retransmit_first_ms",
                "drain_s",
            ];
            let fixed = Limits::TABLE.iter().filter(|bounds| !followed.contains(&bounds.name));
            fixed.map(|bounds| config.limits.get(bounds.name)).collect::<Vec<_>>()
        };
        let checks = [
            ("gateway", self.gateway != running.gateway),
            ("listen", self.listen != running.listen),
            ("metrics", self.metrics != running.metrics),
            ("relay", self.relay != running.relay),
            ("inner", without_dns(&self.inner) != without_dns(&running.inner)),
            ("pool prefixes", pools(self) != pools(running)),
            ("limits of workers", limits(self) != limits(running)),
        ];
        checks.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }

    /// Whether its networks are those of `running`: sessions know theirs by its place among them.
    pub fn has_networks_of(&self, running: &Self) -> bool {
        let names = |config: &Self| config.inner.iter().map(|inner| inner.name.clone()).collect::<Vec<_>>();
        names(self) == names(running)
    }

    /// End of validity of the gateway's certificate, seconds since 1970.
    pub fn certificate_not_after_s(&self) -> Option<i64> {
        let store = self.responder.certificates.as_ref()?;
        i64::try_from(store.not_after()).ok()
    }
}

/// Sections without what a reload changes.
fn without_dns(sections: &[InnerSection]) -> Vec<InnerSection> {
    let without = |section: &InnerSection| InnerSection { dns: Vec::new(), ..section.clone() };
    sections.iter().map(without).collect()
}

/// Reads and checks `file` and every file it names.
///
/// # Errors
/// All mistakes, in the order of the lines.
pub fn load(file: &Path) -> Result<Config, Vec<ConfigError>> {
    let text = read_text(file).map_err(|error| {
        let allowed = format!("a readable file of UTF-8 text ({error})");
        vec![ConfigError {
            file: file.to_owned(),
            line: 1,
            key: "file".into(),
            value: "(missing)".into(),
            allowed,
        }]
    })?;
    parse(file, text)
}

/// Checks `text` as the contents of `file`; the files it names are looked up beside `file`.
///
/// # Errors
/// All mistakes, in the order of the lines.
pub fn parse(file: &Path, text: String) -> Result<Config, Vec<ConfigError>> {
    let reader = Reader::new(file, text);
    let config = match reader.parse() {
        Some(document) => sections::read(&reader, &document),
        None => None,
    };
    let (errors, warnings) = reader.into_report();
    match config {
        Some(config) if errors.is_empty() => Ok(Config { warnings, ..config }),
        _ => Err(errors),
    }
}

/// The run directory that `file` names, or the default when the file cannot be read: all that the
/// commands which talk to a running gateway need, whatever else is wrong with the file.
pub fn run_dir(file: &Path) -> PathBuf {
    let text = read_text(file).unwrap_or_default();
    let (document, _) = toml::de::DeTable::parse_recoverable(&text);
    let gateway = document.get_ref().get("gateway").and_then(|value| value.get_ref().as_table());
    let run_dir = gateway.and_then(|table| table.get("run_dir")).and_then(|value| value.get_ref().as_str());
    let base = file.parent().unwrap_or(Path::new(""));
    run_dir.map_or_else(|| PathBuf::from(DEFAULT_RUN_DIR), |dir| base.join(dir))
}

fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read_octets(path)?).map_err(|_| io::Error::other("not UTF-8"))
}

fn read_octets(path: &Path) -> io::Result<Vec<u8>> {
    let meta = fs::metadata(path)?;
    if !meta.is_file() {
        return Err(io::Error::other("not a file"));
    }
    if meta.len() > FILE_OCTETS_MAX {
        return Err(io::Error::other("larger than 16 MiB"));
    }
    fs::read(path)
}

/// Runs the reader over arbitrary octets: the entry of the fuzz target and of the replay of its corpus.
///
/// # Panics
/// When a mistake has no line or would break the one-line form of a report.
pub fn fuzz(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else { return };
    let lines = text.lines().count().max(1);
    // A directory that does not exist: no file that the input names is opened.
    let result = parse(Path::new("/nonexistent/swugate.toml"), text.to_owned());
    for error in result.err().iter().flatten() {
        assert!((1..=lines + 1).contains(&error.line), "{error}");
        assert!(!error.to_string().contains('\n'), "{error:?}");
    }
}
