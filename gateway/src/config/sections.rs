//! The tables of the configuration other than profiles, in the order of the sample file.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use codec::ike::NotifyType;
use codec::ip::LONG_OCTETS_MAX;
use toml::Spanned;
use toml::de::DeTable;
use tracing_subscriber::filter::{LevelFilter, Targets};

use super::reader::{Field, Reader, Section};
use super::{
    Config, DEFAULT_RUN_DIR, DEFAULT_STATE_DIR, DebugSection, GatewaySection, InnerSection, ListenSection,
    OFFLOAD_OCTETS_MIN, Queueing, aaa, profile, secrets, tls,
};
use crate::control::pool::{PoolConfig, Prefix};
use crate::control::responder::{
    Gateway, Identity, IkeTcpOffer, Limits as ResponderLimits, Redirect, ResponderConfig, Resumption,
    WAIT_DEFAULT,
};
use crate::io::sockets::{self as outside, StreamOptions};
use crate::limits::{Limits, NETWORKS_MAX};
use crate::relay::Backend;
use crate::types::{IKE_PORT, NetworkId, WORKERS_MAX};

/// Said of everything the format knows and this version does not serve.
pub(super) const NOT_YET: &str = "not in this version";

/// Shortest prefix a pool may have, IPv4 and IPv6.
const POOL_LEN_MIN: (u8, u8) = (8, 64);

/// Longest prefix a pool may have: two addresses for UEs beside the network's and the gateway's own.
const POOL_LEN_MAX: (u8, u8) = (30, 126);

const IDENTITY: &str = "an FQDN, an IP address, user@fqdn or \"dn:O=…,CN=…\"";

/// What a relay without an identity calls itself; no peer ever sees it (RFC 6761 §6.4).
const NO_IDENTITY: &str = "relay.invalid";

const SOCKET: &str = "address:port, such as \"0.0.0.0:4500\" or \"[::]:4500\"";

/// Reads the whole document; mistakes go to `reader`, and any of them makes the result worthless.
pub(super) fn read(reader: &Reader, document: &Spanned<DeTable<'_>>) -> Option<Config> {
    let mut root = reader.root(document);
    if let Some(field) = root.value("relay") {
        return relay(reader, root, &field);
    }
    let gateway = gateway(&mut root, true);
    let listen = listen(&mut root, true);
    let metrics = metrics(&mut root);
    let inner = inner(&mut root);
    let pools = pools(&mut root, &inner);
    let used = aaa_used(document);
    let mut aaa =
        aaa::read(&mut root, |name| used.contains(&name), gateway.as_ref().map(|(identity, _)| identity));
    let (profiles, own) =
        profile::profiles(&mut root, &profile::Named { networks: &inner, pools: &pools, aaa: &aaa });
    aaa.extend(own);
    let certificate = tls::Certificate::read(&mut root, true);
    let certificates = profile::certificate(&mut root, certificate.as_ref(), &profiles);
    let tls = tls::server(&mut root, certificate.as_ref(), &listen);
    let redirect = redirect(&mut root, gateway.as_ref().map(|(identity, _)| identity));
    let resumption = resumption(&mut root);
    store(&mut root);
    let limits = limits(&mut root);
    let debug = debug(&mut root);
    root.finish();
    let (identity, gateway) = gateway?;
    let responder = ResponderConfig {
        identity,
        certificates,
        profiles,
        pools,
        dns: inner.iter().map(|inner| inner.dns.clone()).collect(),
        redirect,
        resumption,
        emergency_listen: listen.emergency.clone(),
        ike_tcp: listen.ike_tcp_offer,
        keylog: debug.keylog,
        limits: responder_limits(&limits),
    };
    let file = reader.file().to_owned();
    let responder = Arc::new(responder);
    let warnings = Vec::new();
    Some(Config {
        file,
        gateway,
        listen,
        metrics,
        inner,
        relay: None,
        tls,
        aaa,
        responder,
        limits,
        debug,
        warnings,
    })
}

/// Reads the document of a relay, which has neither keys nor an inner network.
fn relay(reader: &Reader, mut root: Section<'_>, field: &Field<'_>) -> Option<Config> {
    let backend = field.section("[relay]".into()).and_then(backend);
    let gateway = gateway(&mut root, false);
    let mut listen = listen(&mut root, false);
    let metrics = metrics(&mut root);
    let limits = limits(&mut root);
    let debug = debug(&mut root);
    // Its UEs are authenticated by the backend; TLS needs a certificate here.
    let certificate = tls::Certificate::read(&mut root, false);
    let tls = tls::server(&mut root, certificate.as_ref(), &listen);
    for key in ["inner", "pool", "profile", "redirect", "resumption", "aaa", "store"] {
        if root.value(key).is_some() {
            reader.warn(format!("{key}: not used by a relay; its files are not opened"));
        }
    }
    root.finish();
    if !listen.udp.is_empty() {
        reader.warn("listen.udp: a relay takes TCP only; these addresses are ignored".into());
    }
    if !listen.ike_tcp.is_empty() {
        reader.warn("listen.ike_tcp: a relay takes RFC 9329 only; these addresses are ignored".into());
        listen.ike_tcp.clear();
    }
    let (identity, gateway) = gateway?;
    let responder = Arc::new(ResponderConfig {
        identity,
        certificates: None,
        profiles: Vec::new(),
        pools: Vec::new(),
        dns: Vec::new(),
        redirect: None,
        resumption: None,
        emergency_listen: Vec::new(),
        ike_tcp: None,
        keylog: false,
        limits: responder_limits(&limits),
    });
    Some(Config {
        file: reader.file().to_owned(),
        gateway,
        listen,
        metrics,
        inner: vec![InnerSection::default()],
        relay: Some(backend?),
        tls,
        aaa: Vec::new(),
        responder,
        limits,
        debug,
        warnings: Vec::new(),
    })
}

fn backend(mut section: Section<'_>) -> Option<Backend> {
    let addr = section.required("backend", SOCKET).and_then(|field| socket(&field));
    let ike = section.value("backend_ike").and_then(|field| socket(&field));
    let allowed = "IP addresses of this host, such as [\"192.0.2.7\"]";
    let sources = section.list("sources", allowed);
    let sources = sources.iter().filter_map(|field| field.parse::<IpAddr>(allowed)).collect();
    section.finish();
    Some(Backend { addr: addr?, ike, sources })
}

fn socket(field: &Field<'_>) -> Option<SocketAddr> {
    let addr = field.parse::<SocketAddr>(SOCKET)?;
    if addr.port() == 0 {
        field.reject(format!("a port from 1 to 65535 in {SOCKET}"));
        return None;
    }
    Some(addr)
}

/// Reads `[gateway]`; a relay needs neither it nor an identity.
fn gateway(root: &mut Section<'_>, responds: bool) -> Option<(Identity, GatewaySection)> {
    let nobody = || NO_IDENTITY.parse::<Identity>().ok().filter(|_| !responds);
    let Some(mut section) = root.section("gateway") else {
        if responds {
            root.missing("gateway", "a table [gateway] with identity = \"…\"");
        }
        let run_dir = root.reader().resolve(DEFAULT_RUN_DIR);
        let state_dir = DEFAULT_STATE_DIR.into();
        let section = GatewaySection { user: None, workers: None, cores: Vec::new(), run_dir, state_dir };
        return Some((nobody()?, section));
    };
    let identity = match section.value("identity") {
        Some(field) => field.parse::<Identity>(IDENTITY),
        None if responds => {
            section.missing("identity", IDENTITY);
            None
        }
        None => nobody(),
    };
    let user = section.value("user").and_then(|field| {
        let allowed = "the name of an existing user";
        let name = field.text(allowed)?;
        let known = nix::unistd::User::from_name(name).ok().flatten().is_some();
        if !known {
            field.reject(allowed);
        }
        known.then(|| name.to_owned())
    });
    let workers = section.value("workers").and_then(|field| workers(&field));
    let cores = section.list("cores", "core numbers, such as [0, 1]");
    let cores =
        cores.iter().filter_map(|field| field.number(0..=1023, "core number")).map(|core| core as usize);
    let cores: Vec<usize> = cores.collect();
    let allowed = "the path of a directory";
    let run_dir = section.text("run_dir", DEFAULT_RUN_DIR, allowed);
    let beside = if run_dir == DEFAULT_RUN_DIR { DEFAULT_STATE_DIR } else { &run_dir };
    let state_dir = section.text("state_dir", beside, allowed);
    let [run_dir, state_dir] = [run_dir, state_dir].map(|dir| root.reader().resolve(&dir));
    section.finish();
    Some((identity?, GatewaySection { user, workers, cores, run_dir, state_dir }))
}

fn workers(field: &Field<'_>) -> Option<usize> {
    let allowed = format!("\"auto\" or a number from 1 to {WORKERS_MAX}");
    if field.is_text() {
        if field.text(&allowed) != Some("auto") {
            field.reject(allowed);
        }
        return None;
    }
    field.number_or(1..=WORKERS_MAX as u64, &allowed).map(|workers| workers as usize)
}

/// `udp_unasked`: whether UDP is served where the key is absent.
/// One of our own addresses, given in full: where emergency calls arrive.
fn emergency_at(field: &Field<'_>, streams: &[SocketAddr], udp: &[SocketAddr]) -> Option<SocketAddr> {
    let allowed = "address:port with the address that UEs use, which a listener serves";
    let addr: SocketAddr = field.parse(allowed)?;
    let serves = |listener: &SocketAddr| {
        listener.port() == addr.port()
            && listener.is_ipv4() == addr.is_ipv4()
            && (listener.ip() == addr.ip() || listener.ip().is_unspecified())
    };
    let served = !addr.ip().is_unspecified() && streams.iter().chain(udp).any(serves);
    if !served {
        field.reject(allowed);
    }
    served.then_some(addr)
}

fn listen(root: &mut Section<'_>, udp_unasked: bool) -> ListenSection {
    let any = |port| vec![SocketAddr::from(([0, 0, 0, 0], port)), SocketAddr::from(([0_u16; 8], port))];
    let default_udp = || if udp_unasked { [any(IKE_PORT), any(4500)].concat() } else { Vec::new() };
    let Some(mut section) = root.section("listen") else {
        return ListenSection {
            tcp: any(4500),
            tls: Vec::new(),
            shared: Vec::new(),
            ftt: Vec::new(),
            ike_tcp: Vec::new(),
            ike_tcp_offer: None,
            udp: default_udp(),
            emergency: Vec::new(),
            options: StreamOptions::default(),
        };
    };
    // One list for all: an address takes one kind of stream.
    let mut seen = Vec::new();
    let [tls, shared, ftt] = ["tls", "shared", "ftt"].map(|key| match section.value(key) {
        Some(field) => sockets(field.list(SOCKET), &mut seen),
        None => Vec::new(),
    });
    let tcp = match section.value("tcp") {
        Some(field) if seen.is_empty() => sockets(field.some_list(SOCKET), &mut seen),
        Some(field) => sockets(field.list(SOCKET), &mut seen),
        None => any(4500).into_iter().filter(|addr| !seen.contains(addr)).collect(),
    };
    let udp = match section.value("udp") {
        Some(field) => sockets(field.list(SOCKET), &mut Vec::new()),
        None => default_udp(),
    };
    let emergency = section.list("emergency", SOCKET);
    let streams = [&*tcp, &tls, &shared, &ftt].concat();
    let emergency: Vec<SocketAddr> =
        emergency.iter().filter_map(|field| emergency_at(field, &streams, &udp)).collect();
    let (ike_tcp, ike_tcp_offer) = ike_tcp(&mut section, [&tcp, &tls, &shared, &ftt], &udp);
    let options = StreamOptions {
        nodelay: section.flag("nodelay", true),
        congestion: section.value("congestion").and_then(|field| congestion(&field)),
    };
    section.finish();
    ListenSection { tcp, tls, shared, ftt, ike_tcp, ike_tcp_offer, udp, emergency, options }
}

/// A congestion control of this kernel.
fn congestion(field: &Field<'_>) -> Option<String> {
    let listed = outside::congestion_controls();
    let allowed =
        format!("a congestion control that the kernel offers: {listed}; others need their module loaded");
    let name = field.text(&allowed)?;
    // Only names are asked for: the kernel looks for a module that is called so.
    let is_name =
        !name.is_empty() && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"_-".contains(&octet));
    let offered =
        is_name && (listed.split(' ').any(|known| known == name) || outside::offers_congestion(name));
    if !offered {
        field.reject(allowed);
    }
    offered.then(|| name.to_owned())
}

/// IKE alone over TCP: where, and how IKE_SA_INIT over other transports tells of it.
fn ike_tcp(
    section: &mut Section<'_>,
    others: [&[SocketAddr]; 4],
    udp: &[SocketAddr],
) -> (Vec<SocketAddr>, Option<IkeTcpOffer>) {
    let field = section.value("ike_tcp").filter(|field| !field.is_empty_list());
    let addrs = field.as_ref().map(|field| sockets(field.list(SOCKET), &mut Vec::new())).unwrap_or_default();
    if let Some(field) = &field {
        if addrs.iter().any(|addr| others.iter().any(|list| list.contains(addr))) {
            field.reject("addresses other than those of tcp, whose stream has another form");
        }
        if udp.is_empty() {
            field.reject("an empty list while udp is empty: such peers have their ESP on UDP");
        }
    }
    // The private range of status types: the draft has expired without a number.
    let notify =
        section.value("ike_tcp_notify").and_then(|field| field.number(40_960..=65_535, "notify type"));
    let port = section.number("ike_tcp_port", IKE_PORT.into(), 1..=65_535, "port") as u16;
    let offer = notify.map(|notify| IkeTcpOffer { notify: NotifyType(notify as u16), port });
    (addrs, offer.filter(|_| field.is_some()))
}

/// The addresses of one list, none of which may be among those `seen` before.
fn sockets(elements: Vec<Field<'_>>, seen: &mut Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut addrs = Vec::new();
    for element in elements {
        let Some(addr) = element.parse::<SocketAddr>(SOCKET) else { continue };
        if addr.port() == 0 {
            element.reject(format!("a port from 1 to 65535 in {SOCKET}"));
        } else if seen.contains(&addr) {
            element.reject("each address once");
        } else {
            seen.push(addr);
            addrs.push(addr);
        }
    }
    addrs
}

fn metrics(root: &mut Section<'_>) -> Option<SocketAddr> {
    let default = SocketAddr::from(([127, 0, 0, 1], 9329));
    let Some(mut section) = root.section("metrics") else { return Some(default) };
    let allowed = "address:port, such as \"127.0.0.1:9329\", or \"\" for none";
    let listen = match section.value("listen") {
        None => Some(default),
        Some(field) if field.text(allowed) == Some("") => None,
        Some(field) if field.is_text() => field.parse(allowed),
        Some(_) => None,
    };
    section.finish();
    listen
}

/// Reads `[inner]`, or each `[[inner]]`.
fn inner(root: &mut Section<'_>) -> Vec<InnerSection> {
    let (sections, several) = root.one_or_more("inner");
    let mut networks: Vec<InnerSection> = Vec::new();
    for section in sections {
        let network = network(section, several, &networks);
        networks.push(network);
    }
    if networks.is_empty() {
        networks.push(InnerSection::default());
    }
    if networks.len() > NETWORKS_MAX {
        root.missing("inner", &format!("at most {NETWORKS_MAX} tables"));
    }
    networks
}

fn network(mut section: Section<'_>, several: bool, before: &[InnerSection]) -> InnerSection {
    let default = InnerSection::default();
    let name = several.then(|| unique_name(&mut section, before.iter().map(|inner| inner.name.as_str())));
    let netns = section.value("netns").and_then(|field| {
        let allowed = "the name of a network namespace, as `ip netns` has it";
        let name = field.text(allowed)?;
        let is_name = !name.is_empty() && name.len() <= 255 && !name.contains('/') && !name.starts_with('.');
        if !is_name {
            field.reject(allowed);
        }
        is_name.then(|| name.to_owned())
    });
    let vrf = section.value("vrf").and_then(|field| interface(&field));
    // The same name may be taken once in each namespace.
    let taken = |device: &str| before.iter().any(|other| other.device == device && other.netns == netns);
    let device = match section.value("device") {
        Some(field) => interface(&field).inspect(|device| {
            if taken(device) {
                field.reject("a device of its own");
            }
        }),
        None => {
            if taken(&default.device) {
                section.missing("device", "a device of its own");
            }
            None
        }
    };
    let device = device.unwrap_or(default.device);
    // RFC 8200 §5: no link with IPv6 has an MTU below 1280.
    let mtu = section.number("mtu", default.mtu.into(), 1280..=9000, "octets") as u16;
    let allowed = "IP addresses, such as [\"10.64.0.1\"]";
    let dns =
        section.list("dns", allowed).iter().filter_map(|field| field.parse::<IpAddr>(allowed)).collect();
    let hairpin = section.flag("hairpin", default.hairpin);
    let offload = section.flag("offload", default.offload);
    let octets = OFFLOAD_OCTETS_MIN as u64..=LONG_OCTETS_MAX as u64;
    let offload_octets =
        section.number("offload_octets", default.offload_octets as u64, octets, "octets") as usize;
    // How packets wait is one for all.
    let queueing = before.first().map_or_else(|| Queueing::read(&mut section), |first| first.queueing);
    section.finish();
    let name = name.unwrap_or_else(|| device.clone());
    InnerSection { name, device, netns, vrf, mtu, dns, hairpin, offload, offload_octets, queueing }
}

/// The name of an interface.
fn interface(field: &Field<'_>) -> Option<String> {
    let allowed = "an interface name of 1 to 15 letters, digits, '-', '_' or '.'";
    let name = field.text(allowed)?;
    let letters = name.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet));
    if name.is_empty() || name.len() > 15 || !letters || name == "." || name == ".." {
        field.reject(allowed);
        return None;
    }
    Some(name.to_owned())
}

fn pools(root: &mut Section<'_>, networks: &[InnerSection]) -> Vec<PoolConfig> {
    let allowed = "address ranges, such as [\"10.64.0.0/16\", \"fd64::/112\"]";
    let mut pools: Vec<PoolConfig> = Vec::new();
    for mut section in root.sections("pool") {
        let name = unique_name(&mut section, pools.iter().map(|pool| pool.name.as_str()));
        let network =
            section.value("inner").and_then(|field| network_of(&field, networks)).unwrap_or_default();
        let mut prefixes: Vec<Prefix> = Vec::new();
        let field = section.required("prefixes", allowed);
        for element in field.iter().flat_map(|field| field.some_list(allowed)) {
            let Some(prefix) = element.parse::<Prefix>(allowed) else { continue };
            let beside = pools.iter().filter(|pool| pool.network == network);
            let taken = beside.flat_map(|pool| &pool.prefixes).chain(&prefixes);
            match pool_prefix_mistake(&prefix, taken) {
                Some(mistake) => element.reject(mistake),
                None => prefixes.push(prefix),
            }
        }
        section.finish();
        pools.push(PoolConfig { name, network, prefixes, reserved: Vec::new() });
    }
    if pools.is_empty() {
        root.missing("pool", "at least one table [[pool]] with name and prefixes");
    }
    pools
}

/// The network that a value names.
pub(super) fn network_of(field: &Field<'_>, networks: &[InnerSection]) -> Option<NetworkId> {
    let names: Vec<&str> = networks.iter().map(|inner| inner.name.as_str()).collect();
    let allowed = format!("the name of a table [[inner]]: {}", names.join(", "));
    let name = field.text(&allowed)?;
    let found = names.iter().position(|known| *known == name);
    if found.is_none() {
        field.reject(allowed);
    }
    found.and_then(|index| u8::try_from(index).ok()).map(NetworkId)
}

fn pool_prefix_mistake<'p>(prefix: &Prefix, mut taken: impl Iterator<Item = &'p Prefix>) -> Option<String> {
    let pick = |(v4, v6): (u8, u8)| if prefix.addr().is_ipv4() { v4 } else { v6 };
    let (min, max) = (pick(POOL_LEN_MIN), pick(POOL_LEN_MAX));
    if !(min..=max).contains(&prefix.prefix_len()) {
        return Some(format!("a prefix length from {min} to {max}"));
    }
    let overlap = taken.find(|other| other.contains(prefix.addr()) || prefix.contains(other.addr()));
    overlap.map(|other| format!("a range apart from {other}"))
}

/// Reads `name`, which must differ from the names before it.
pub(super) fn unique_name<'n>(
    section: &mut Section<'_>,
    mut before: impl Iterator<Item = &'n str>,
) -> String {
    let allowed = "a name of its own";
    let Some(field) = section.required("name", allowed) else { return String::new() };
    let Some(name) = field.text(allowed) else { return String::new() };
    if name.is_empty() || before.any(|other| other == name) {
        field.reject(allowed);
    }
    name.to_owned()
}

/// Names of back ends that a profile with EAP uses.
fn aaa_used<'d>(document: &'d Spanned<DeTable<'_>>) -> Vec<&'d str> {
    let profiles = document.get_ref().get("profile").and_then(|profiles| profiles.get_ref().as_array());
    let tables = profiles.into_iter().flat_map(|profiles| profiles.iter());
    let tables = tables.filter_map(|profile| profile.get_ref().as_table());
    let text = |profile: &'d DeTable<'_>, key| profile.get(key)?.get_ref().as_str();
    let with_eap = tables.filter(|profile| text(profile, "auth").is_none_or(|auth| auth.starts_with("eap-")));
    with_eap.filter_map(|profile| text(profile, "aaa")).collect()
}

/// Reads `[resumption]`.
fn resumption(root: &mut Section<'_>) -> Option<Resumption> {
    let mut section = root.section("resumption")?;
    let lifetime = section.number("lifetime_s", 3_600, 60..=604_800, "seconds");
    let reauth = section.number("reauth_s", 86_400, 60..=31_536_000, "seconds");
    let key_file = section.value("key_file");
    section.finish();
    let key = match key_file {
        Some(field) => Some(secrets::ticket_key(&field)?),
        None => None,
    };
    Some(Resumption { lifetime: Duration::from_secs(lifetime), reauth: Duration::from_secs(reauth), key })
}

/// Reads `[redirect]`; `own` is the identity of this gateway.
fn redirect(root: &mut Section<'_>, own: Option<&Identity>) -> Option<Redirect> {
    let allowed = "other gateways by FQDN or IP address, such as [\"gw2.example\"]";
    let mut section = root.section("redirect")?;
    let to = section.required("to", allowed);
    let to = to.iter().flat_map(|field| field.some_list(allowed));
    let other = |element: Field<'_>| {
        let gateway = element.parse::<Gateway>(allowed)?;
        let here = own.is_some_and(|own| own.to_string().eq_ignore_ascii_case(&gateway.id().to_string()));
        if here {
            element.reject("another gateway than this one");
        }
        (!here).then_some(gateway)
    };
    let to = to.filter_map(other).collect();
    let from_sessions = section.number("from_sessions", 0, 0..=8_000_000, "sessions; 0: only while draining");
    let wait = section.number("wait_s", WAIT_DEFAULT.as_secs(), 1..=3_600, "seconds");
    section.finish();
    Some(Redirect { to, from_sessions: from_sessions as usize, wait: Duration::from_secs(wait) })
}

fn store(root: &mut Section<'_>) {
    let Some(mut section) = root.section("store") else { return };
    let allowed = "\"none\"";
    if let Some(kind) = section.value("kind") {
        match kind.text(allowed) {
            Some("none") | None => {}
            Some("file" | "redis") => kind.reject(format!("{allowed}; file and redis are {NOT_YET}")),
            Some(_) => kind.reject(allowed),
        }
    }
    let _ = section.text("url", "", "the address of the store");
    section.finish();
}

fn limits(root: &mut Section<'_>) -> Limits {
    let mut limits = Limits::default();
    let Some(mut section) = root.section("limits") else { return limits };
    for bounds in Limits::TABLE {
        limits.set(
            bounds.name,
            section.number(bounds.name, bounds.default, bounds.min..=bounds.max, bounds.unit),
        );
    }
    section.finish();
    limits
}

fn responder_limits(limits: &Limits) -> ResponderLimits {
    ResponderLimits {
        sessions_max: limits.sessions as usize,
        half_open_max: limits.half_open as usize,
        half_open_per_source_max: limits.half_open_per_source as usize,
        half_open_timeout: Duration::from_secs(limits.half_open_s.into()),
        fragment_packet_len: limits.ike_packet_octets as usize,
        fragment_memory: usize::try_from(limits.fragment_octets).unwrap_or(usize::MAX),
        fragment_timeout: Duration::from_secs(limits.fragment_s.into()),
        cookies_from: limits.cookies_from as usize,
        puzzles_from: limits.puzzles_from as usize,
        puzzle_bits: limits.puzzle_bits,
        challenge_timeout: Duration::from_secs(limits.challenge_s.into()),
        unsolved_per_s: limits.unsolved_per_s,
        unsolved_max: limits.unsolved as usize,
        paced_per_s: limits.sa_init_per_s,
        paced_per_prefix_per_s: limits.sa_init_per_prefix_per_s,
        paced_max: limits.sa_init_queue as usize,
        paced_wait: Duration::from_millis(limits.sa_init_wait_ms.into()),
        emergency_reserved: limits.emergency_reserved as usize,
        eap_timeout: Duration::from_secs(limits.eap_s.into()),
        failed_attempts_max: limits.failed_attempts as usize,
        used_tickets_max: limits.used_tickets as usize,
        retransmit_first: Duration::from_millis(limits.retransmit_first_ms.into()),
        children_max: limits.children_per_session as usize,
        message_len_max: limits.ike_message_octets as usize,
        ..ResponderLimits::default()
    }
}

fn debug(root: &mut Section<'_>) -> DebugSection {
    let default = DebugSection { log: "info".into(), keylog: false, identities: false };
    let Some(mut section) = root.section("debug") else { return default };
    let allowed =
        "off, error, warn, info, debug, trace, or directives such as \"info,gateway::control=debug\"";
    let log = section.value("log").and_then(|field| {
        let text = field.text(allowed)?;
        // A bare word that is no level would be taken for the name of a module.
        let level = |word: &str| word.trim().parse::<LevelFilter>().is_ok();
        let directive = |part: &str| part.split_once('=').map_or(part, |(_, word)| word).trim().to_owned();
        if text.parse::<Targets>().is_err() || !text.split(',').all(|part| level(&directive(part))) {
            field.reject(allowed);
        }
        Some(text.to_owned())
    });
    let keylog = section.flag("keylog", default.keylog);
    let identities = section.flag("identities", default.identities);
    section.finish();
    DebugSection { log: log.unwrap_or(default.log), keylog, identities }
}
