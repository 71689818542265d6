//! `[certificate]` and `[[profile]]`: how UEs authenticate and what they get.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use codec::crypto::{EspProposal, IkeProposal, ProposalError};

use super::InnerSection;
use super::aaa::{AaaKind, AaaSection};
use super::reader::{Field, Section};
use super::secrets;
use super::sections::{network_of, unique_name};
use super::tls::Certificate;
use crate::control::aaa::embedded::EmbeddedConfig;
use crate::control::pki::{CertificateFiles, CertificateStore, PkiError};
use crate::control::pool::{PoolConfig, Prefix};
use crate::control::responder::{
    AuthKind, DeviceIdentity, EapIdentity, EapMethod, EapPolicy, Glob, Handset, PpkPolicy, Profile,
};
use crate::types::{NetworkId, Transport, TsRange};

const AUTHS: &str = "\"psk\", \"certificate\", \"eap-aka\", \"eap-aka-prime\", \"eap-mschapv2\", \"eap-tls\", \"eap-radius\" or \
    \"eap-diameter\"";

/// Proposals of a profile without `ike`.
const IKE_DEFAULT: [&str; 4] = [
    "aes128gcm16-aes256gcm16-prfsha256-prfsha384-x25519-ecp256-ecp384-modp2048",
    "chacha20poly1305-prfsha256-x25519-ecp256",
    "aes256-aes128-sha256-sha512-x25519-ecp256-ecp384-modp2048-modp3072-modp4096",
    "aes128-sha256-modp2048",
];

/// Proposals of a profile without `esp`.
const ESP_DEFAULT: [&str; 3] = ["aes128gcm16-aes256gcm16", "chacha20poly1305", "aes256-aes128-sha256-sha512"];

pub(super) const PEM: &str = "the path of a PEM file";

/// What a profile may name, as read before the profiles.
pub(super) struct Named<'a> {
    /// `[[inner]]`.
    pub(super) networks: &'a [InnerSection],
    /// `[[pool]]`.
    pub(super) pools: &'a [PoolConfig],
    /// `[[aaa]]`.
    pub(super) aaa: &'a [AaaSection],
}

/// Reads all profiles, and the back ends that they bring along.
pub(super) fn profiles(root: &mut Section<'_>, named: &Named<'_>) -> (Vec<Arc<Profile>>, Vec<AaaSection>) {
    let mut profiles: Vec<Arc<Profile>> = Vec::new();
    let mut own = Vec::new();
    let sections = root.sections("profile");
    if sections.is_empty() {
        root.missing("profile", "at least one table [[profile]] with name and auth");
    }
    for section in sections {
        let names: Vec<&str> = profiles.iter().map(|profile| profile.name.as_str()).collect();
        if let Some((profile, backend)) = profile(section, &names, named) {
            profiles.push(Arc::new(profile));
            own.extend(backend);
        }
    }
    (profiles, own)
}

fn profile(
    mut section: Section<'_>,
    names: &[&str],
    named: &Named<'_>,
) -> Option<(Profile, Option<AaaSection>)> {
    let name = unique_name(&mut section, names.iter().copied());
    let (idi, idr) = patterns(&mut section);
    let secrets_file = section.value("secrets_file");
    let mut auth = auth(&mut section, &name, secrets_file.as_ref(), named);
    let by_eap = matches!(auth, Some((AuthKind::Eap(_), _)));
    let ppk = ppk(&mut section, secrets_file.as_ref(), by_eap);
    let inner = section.value("inner");
    let wanted = inner.as_ref().and_then(|field| network_of(field, named.networks));
    let pool = pool(&mut section, named.pools, wanted);
    if !by_eap && let Some(field) = section.value("aaa") {
        let names: Vec<String> = named.aaa.iter().map(|section| section.name.to_string()).collect();
        one_of(&field, &names, "[[aaa]]");
    }
    let local_ts = local_ts(&mut section);
    let ike: Vec<IkeProposal> = proposals(&mut section, "ike", &IKE_DEFAULT);
    let esp: Vec<EspProposal> = proposals(&mut section, "esp", &ESP_DEFAULT);
    let transports = transports(&mut section);
    let rekey_ike = section.number("rekey_ike_s", 86_400, 60..=31_536_000, "seconds");
    let rekey_child = section.number("rekey_child_s", 14_400, 60..=31_536_000, "seconds");
    let dpd = section.number("dpd_s", 60, 0..=86_400, "seconds; 0 never asks");
    let replay_window = section.number("replay_window", 128, 32..=4096, "packets") as u32;
    let mobike = section.flag("mobike", true);
    let return_routability = section.flag("return_routability", false);
    let redirect = section.value("redirect").and_then(|field| field.parse("an FQDN or an IP address"));
    let handset = handset(&mut section);
    emergency_imei(&mut section, auth.as_mut().map(|(auth, _)| auth), handset.emergency);
    section.finish();
    let (auth, backend) = auth?;
    let profile = Profile {
        name,
        idi,
        idr,
        auth,
        network: pool?.network,
        pool: pool?.name.clone(),
        local_ts,
        ike,
        esp,
        transports,
        rekey_ike: Duration::from_secs(rekey_ike),
        rekey_child: Duration::from_secs(rekey_child),
        dpd: Duration::from_secs(dpd),
        mobike,
        return_routability,
        replay_window,
        ppk,
        redirect,
        handset,
    };
    Some((profile, backend))
}

fn patterns(section: &mut Section<'_>) -> (Glob, Glob) {
    let Some(mut patterns) = section.section("match") else { return (Glob::new("*"), Glob::new("*")) };
    let allowed = "a pattern in which * and ? stand for other characters";
    let idi = patterns.text("idi", "*", allowed);
    let idr = patterns.text("idr", "*", allowed);
    patterns.finish();
    (Glob::new(&idi), Glob::new(&idr))
}

/// Reads `ppk`. Its keys stand in the file of secrets.
fn ppk(section: &mut Section<'_>, secrets_file: Option<&Field<'_>>, by_eap: bool) -> Option<PpkPolicy> {
    const ALLOWED: &str = "\"off\", \"optional\" or \"required\"";
    let field = section.value("ppk")?;
    if by_eap && field.text(ALLOWED)? != "off" {
        field.reject("\"off\" where UEs authenticate by EAP");
        return None;
    }
    let required = match field.text(ALLOWED)? {
        "off" => return None,
        "optional" => false,
        "required" => true,
        _ => {
            field.reject(ALLOWED);
            return None;
        }
    };
    let allowed = "the path of a file with [[ppk]] entries";
    let Some(file) = secrets_file else {
        section.missing("secrets_file", allowed);
        return None;
    };
    let keys = secrets::read(file, allowed, false)?.ppks;
    if keys.is_empty() {
        file.reject(allowed);
    }
    Some(PpkPolicy { required, keys })
}

/// How a profile authenticates, and the back end that it brings along.
fn auth(
    section: &mut Section<'_>,
    name: &str,
    secrets_file: Option<&Field<'_>>,
    named: &Named<'_>,
) -> Option<(AuthKind, Option<AaaSection>)> {
    let field = section.required("auth", AUTHS)?;
    let kind = field.text(AUTHS)?;
    let method = match kind {
        "psk" => {
            let allowed = "the path of a file with psk = \"…\" or [[secret]] entries";
            let Some(file) = secrets_file else {
                section.missing("secrets_file", allowed);
                return None;
            };
            let secrets = secrets::read(file, allowed, true)?;
            return Some((AuthKind::Psk(secrets.psks), None));
        }
        "certificate" => return Some((AuthKind::Certificate, None)),
        "eap-aka" => EapMethod::Aka,
        "eap-aka-prime" => EapMethod::AkaPrime,
        "eap-mschapv2" => EapMethod::MsChapV2,
        "eap-tls" => EapMethod::Tls,
        "eap-radius" | "eap-diameter" => EapMethod::Any,
        _ => {
            field.reject(AUTHS);
            return None;
        }
    };
    let wanted = match kind {
        "eap-radius" => Some("radius"),
        "eap-diameter" => Some("diameter"),
        _ => None,
    };
    let fits = |aaa: &&AaaSection| match wanted {
        Some(wanted) => aaa.kind.name() == wanted,
        None => method != EapMethod::Tls || aaa.kind.name() != "embedded",
    };
    let fitting: Vec<&AaaSection> = named.aaa.iter().filter(fits).collect();
    let (backend, own) = match section.value("aaa") {
        Some(field) => {
            let names: Vec<String> = fitting.iter().map(|aaa| aaa.name.to_string()).collect();
            let tables = wanted.map_or("[[aaa]]".into(), |kind| format!("[[aaa]] of kind {kind}"));
            (one_of(&field, &names, &tables)?.into(), None)
        }
        None if matches!(method, EapMethod::Aka | EapMethod::AkaPrime | EapMethod::MsChapV2) => {
            let own = own_backend(section, name, method, secrets_file)?;
            (own.name.clone(), Some(own))
        }
        None => {
            section.missing("aaa", "the name of an [[aaa]] that authenticates these UEs");
            return None;
        }
    };
    let alone = eap_only(section, method);
    let identity = eap_identity(section);
    let tracked =
        own.is_none() && named.aaa.iter().any(|aaa| aaa.name == backend && aaa.kind.name() != "embedded");
    Some((AuthKind::Eap(EapPolicy { method, backend, alone, identity, tracked, imei: false }), own))
}

/// The embedded back end of a profile that names none: its subscribers are in the profile's file of secrets.
fn own_backend(
    section: &mut Section<'_>,
    name: &str,
    method: EapMethod,
    secrets_file: Option<&Field<'_>>,
) -> Option<AaaSection> {
    let allowed = match method {
        EapMethod::MsChapV2 => {
            "the path of a file with [[secret]] entries of user and password, or aaa = \"…\""
        }
        _ => "the path of a file with [[secret]] entries of imsi, k and opc, or aaa = \"…\"",
    };
    let Some(file) = secrets_file else {
        section.missing("secrets_file", allowed);
        return None;
    };
    let subscribers = secrets::read(file, allowed, false)?.subscribers;
    let usable = if method == EapMethod::MsChapV2 { subscribers.users() } else { subscribers.sims() };
    if usable == 0 {
        file.reject(allowed);
        return None;
    }
    let config = EmbeddedConfig { subscribers: Arc::new(subscribers), ..EmbeddedConfig::default() };
    Some(AaaSection {
        name: format!("profile {name}").into(),
        used: true,
        kind: AaaKind::Embedded(Arc::new(config)),
    })
}

/// Whether UEs may do without our certificate. Not unless told so: some that offer it do not mean it, strongSwan for one
/// whatever it is configured to demand.
fn eap_only(section: &mut Section<'_>, method: EapMethod) -> bool {
    let Some(field) = section.value("eap_only") else { return false };
    let wanted = field.flag().unwrap_or(false);
    if wanted && method == EapMethod::MsChapV2 {
        field.reject("false: this method is not safe without a certificate (RFC 5998 §4)");
    }
    wanted
}

fn eap_identity(section: &mut Section<'_>) -> EapIdentity {
    const ALLOWED: &str = "\"auto\", \"idi\" or \"ask\"";
    let Some(field) = section.value("eap_identity") else { return EapIdentity::Auto };
    match field.text(ALLOWED) {
        Some("idi") => EapIdentity::Idi,
        Some("ask") => EapIdentity::Ask,
        Some("auto") | None => EapIdentity::Auto,
        Some(_) => {
            field.reject(ALLOWED);
            EapIdentity::Auto
        }
    }
}

/// What phones are told.
fn handset(section: &mut Section<'_>) -> Handset {
    const DEVICE: &str = "\"never\", \"imei\" or \"imeisv\"";
    const SLICE: &str = "an S-NSSAI of 1, 4, 5 or 8 octets in hexadecimal";
    let addr = "IP addresses, such as [\"10.64.0.10\"]";
    let p_cscf = section.list("p_cscf", addr).iter().filter_map(|element| element.parse(addr)).collect();
    let device_identity = match section.value("device_identity") {
        None => DeviceIdentity::Never,
        Some(field) => match field.text(DEVICE) {
            Some("imei") => DeviceIdentity::Imei,
            Some("imeisv") => DeviceIdentity::Imeisv,
            Some("never") | None => DeviceIdentity::Never,
            Some(_) => {
                field.reject(DEVICE);
                DeviceIdentity::Never
            }
        },
    };
    let seconds = |seconds: u64| (seconds > 0).then(|| Duration::from_secs(seconds));
    let backoff = section.number("backoff_s", 0, 0..=35_712_000, "seconds; 0 tells none");
    let liveness = section.number("liveness_s", 0, 0..=86_400, "seconds; 0 tells none");
    let s_nssai = section.value("s_nssai").and_then(|field| secrets::hex(&field, &[1, 4, 5, 8], SLICE));
    Handset {
        p_cscf,
        device_identity,
        backoff: seconds(backoff),
        liveness: seconds(liveness),
        s_nssai: s_nssai.map(|octets| octets.as_slice().into()).unwrap_or_default(),
        emergency: section.flag("emergency", false),
        empty_delete_response: section.flag("empty_delete_response", false),
    }
}

/// Whether the back end is asked about phones without a SIM.
fn emergency_imei(section: &mut Section<'_>, auth: Option<&mut AuthKind>, emergency: bool) {
    const ALLOWED: &str = "false, or true with emergency = true and auth = \"eap-radius\" or \"eap-diameter\": \
                           a UE without a SIM proves nothing, so that only an AAA server can let it in";
    let Some(field) = section.value("emergency_imei") else { return };
    if field.flag() != Some(true) {
        return;
    }
    match auth {
        Some(AuthKind::Eap(policy)) if emergency && policy.method == EapMethod::Any => policy.imei = true,
        // What is wrong with it has been said.
        None => {}
        Some(_) => field.reject(ALLOWED),
    }
}

/// The pool of a profile, of the network that it wants, if it says so.
fn pool<'p>(
    section: &mut Section<'_>,
    pools: &'p [PoolConfig],
    network: Option<NetworkId>,
) -> Option<&'p PoolConfig> {
    let fits = |pool: &&PoolConfig| network.is_none_or(|network| pool.network == network);
    let fitting: Vec<&PoolConfig> = pools.iter().filter(fits).collect();
    let names: Vec<String> = fitting.iter().map(|pool| pool.name.clone()).collect();
    let tables = if network.is_some() { "[[pool]] of this [[inner]]" } else { "[[pool]]" };
    match section.value("pool") {
        Some(field) => {
            let name = one_of(&field, &names, tables)?;
            fitting.into_iter().find(|pool| pool.name == name)
        }
        None if fitting.len() == 1 => fitting.into_iter().next(),
        None => {
            section.missing("pool", "the name of a [[pool]]");
            None
        }
    }
}

/// The value when it is one of `names`, which `tables` define.
fn one_of(field: &Field<'_>, names: &[String], tables: &str) -> Option<String> {
    let allowed = match names {
        [] => format!("the name of a table {tables}, and there is none"),
        names => format!("the name of a table {tables}: {}", names.join(", ")),
    };
    let name = field.text(&allowed)?;
    if !names.iter().any(|known| known == name) {
        field.reject(allowed);
        return None;
    }
    Some(name.to_owned())
}

fn local_ts(section: &mut Section<'_>) -> Vec<TsRange> {
    let allowed = "address ranges, such as [\"0.0.0.0/0\", \"::/0\"]";
    let Some(field) = section.value("local_ts") else {
        let any = ["0.0.0.0/0", "::/0"];
        return any
            .iter()
            .filter_map(|text| text.parse::<Prefix>().ok())
            .map(|prefix| prefix.selector())
            .collect();
    };
    let elements = field.some_list(allowed);
    elements
        .iter()
        .filter_map(|element| element.parse::<Prefix>(allowed))
        .map(|prefix| prefix.selector())
        .collect()
}

fn proposals<T>(section: &mut Section<'_>, key: &'static str, default: &[&str]) -> Vec<T>
where
    T: FromStr<Err = ProposalError>,
{
    const ALLOWED: &str = "proposals in strongSwan's keywords, such as [\"aes256-sha256-modp2048\"]";
    let Some(field) = section.value(key) else {
        return default.iter().filter_map(|text| text.parse().ok()).collect();
    };
    let mut proposals = Vec::new();
    for element in field.some_list(ALLOWED) {
        let Some(text) = element.text(ALLOWED) else { continue };
        match text.parse::<T>() {
            Ok(proposal) => proposals.push(proposal),
            Err(error) => element.reject(error.to_string()),
        }
    }
    proposals
}

fn transports(section: &mut Section<'_>) -> Vec<Transport> {
    const ALLOWED: &str = "a list of \"tcp\", \"udp\", \"tls\"";
    let Some(field) = section.value("transports") else {
        return vec![Transport::Tcp, Transport::Udp, Transport::Tls];
    };
    let elements = field.some_list(ALLOWED);
    let mut transports = Vec::new();
    for element in elements {
        match element.text(ALLOWED) {
            Some("tcp") => transports.push(Transport::Tcp),
            Some("udp") => transports.push(Transport::Udp),
            Some("tls") => transports.push(Transport::Tls),
            Some(_) => element.reject(ALLOWED),
            None => {}
        }
    }
    transports
}

/// Reads the files of `[certificate]`, if a profile uses them.
pub(super) fn certificate(
    root: &mut Section<'_>,
    certificate: Option<&Certificate<'_>>,
    profiles: &[Arc<Profile>],
) -> Option<Arc<CertificateStore>> {
    let used =
        profiles.iter().any(|profile| matches!(profile.auth, AuthKind::Certificate | AuthKind::Eap(_)));
    let Some(certificate) = certificate else {
        if used {
            root.missing("certificate", "a table [certificate] with chain, key and ca");
        }
        return None;
    };
    let fields = [&certificate.chain, &certificate.key, &certificate.ca];
    let [chain, key, ca] = fields.map(|field| field.as_ref().and_then(|field| pem_path(field, used)));
    let crl_path = certificate.crl.as_ref().map(|field| pem_path(field, used));
    if !used {
        return None;
    }
    let crl_path = match crl_path {
        Some(path) => Some(path?),
        None => None,
    };
    let files = CertificateFiles { chain: chain?, key: key?, ca: ca?, crl: crl_path };
    secrets::warn_if_open(root.reader(), &files.key);
    match CertificateStore::load(&files) {
        Ok(store) => Some(Arc::new(store)),
        Err(error) => {
            reject_file(fields.into_iter().flatten().chain(&certificate.crl), &error);
            None
        }
    }
}

/// The path in `field`; when it is to be opened, one that can be read.
fn pem_path(field: &Field<'_>, used: bool) -> Option<PathBuf> {
    let path = field.reader().resolve(field.text(PEM)?);
    match used.then(|| super::read_octets(&path)) {
        Some(Err(error)) => {
            field.reject(format!("{PEM} ({error})"));
            None
        }
        _ => Some(path),
    }
}

/// Reports a file under the key that names it.
fn reject_file<'f, 'd: 'f>(mut fields: impl Iterator<Item = &'f Field<'d>>, error: &PkiError) {
    let (file, what) = match error {
        PkiError::Read { file, source } => (file, source.to_string()),
        PkiError::Contents { file, what } => (file, what.clone()),
    };
    let names = |field: &&Field<'_>| {
        field.text(PEM).is_some_and(|text| field.reader().resolve(text).display().to_string() == *file)
    };
    if let Some(field) = fields.find(names) {
        field.reject(format!("{PEM} ({what})"));
    }
}
