//! `[certificate]` and `[[profile]]`: how UEs authenticate and what they get.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use codec::crypto::{EspProposal, IkeProposal, ProposalError};

use super::aaa::AaaSection;
use super::reader::{Field, Section};
use super::secrets;
use super::sections::{NOT_YET, unique_name};
use super::tls::Certificate;
use crate::control::pki::{CertificateFiles, CertificateStore, PkiError};
use crate::control::pool::{PoolConfig, Prefix};
use crate::control::responder::{AuthKind, Glob, PpkPolicy, Profile};
use crate::types::{Transport, TsRange};

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
    /// `[[pool]]`.
    pub(super) pools: &'a [PoolConfig],
    /// `[[aaa]]`.
    pub(super) aaa: &'a [AaaSection],
}

/// Reads all profiles.
pub(super) fn profiles(root: &mut Section<'_>, named: &Named<'_>) -> Vec<Arc<Profile>> {
    let mut profiles: Vec<Arc<Profile>> = Vec::new();
    let sections = root.sections("profile");
    if sections.is_empty() {
        root.missing("profile", "at least one table [[profile]] with name and auth");
    }
    for section in sections {
        let names: Vec<&str> = profiles.iter().map(|profile| profile.name.as_str()).collect();
        if let Some(profile) = profile(section, &names, named) {
            profiles.push(Arc::new(profile));
        }
    }
    profiles
}

fn profile(mut section: Section<'_>, names: &[&str], named: &Named<'_>) -> Option<Profile> {
    let name = unique_name(&mut section, names.iter().copied());
    let (idi, idr) = patterns(&mut section);
    let secrets_file = section.value("secrets_file");
    let auth = auth(&mut section, secrets_file.as_ref());
    let ppk = ppk(&mut section, secrets_file.as_ref());
    let pool = pool(&mut section, named.pools);
    if let Some(field) = section.value("aaa") {
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
    section.finish();
    Some(Profile {
        name,
        idi,
        idr,
        auth: auth?,
        pool: pool?,
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
    })
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
fn ppk(section: &mut Section<'_>, secrets_file: Option<&Field<'_>>) -> Option<PpkPolicy> {
    const ALLOWED: &str = "\"off\", \"optional\" or \"required\"";
    let field = section.value("ppk")?;
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

fn auth(section: &mut Section<'_>, secrets_file: Option<&Field<'_>>) -> Option<AuthKind> {
    const ALLOWED: &str = "\"psk\" or \"certificate\"";
    let field = section.required("auth", ALLOWED);
    let kind = field.as_ref().and_then(|field| field.text(ALLOWED)).unwrap_or("");
    match kind {
        "psk" => {
            let allowed = "the path of a file with psk = \"…\" or [[secret]] entries";
            let Some(file) = secrets_file else {
                section.missing("secrets_file", allowed);
                return None;
            };
            secrets::read(file, allowed, true).map(|secrets| AuthKind::Psk(secrets.psks))
        }
        "certificate" => Some(AuthKind::Certificate),
        "eap-aka" | "eap-aka-prime" | "eap-mschapv2" | "eap-tls" | "eap-radius" | "eap-diameter" => {
            field?.reject(format!("{ALLOWED}; {kind} is {NOT_YET}"));
            None
        }
        _ => {
            if let Some(field) = field.filter(Field::is_text) {
                field.reject(ALLOWED);
            }
            None
        }
    }
}

fn pool(section: &mut Section<'_>, pools: &[PoolConfig]) -> Option<String> {
    let names: Vec<String> = pools.iter().map(|pool| pool.name.clone()).collect();
    match section.value("pool") {
        Some(field) => one_of(&field, &names, "[[pool]]"),
        None if names.len() == 1 => names.into_iter().next(),
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
    let used = profiles.iter().any(|profile| matches!(profile.auth, AuthKind::Certificate));
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
