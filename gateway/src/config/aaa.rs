//! `[[aaa]]`: back ends that decide who is let in.

use std::sync::Arc;

use super::reader::Section;
use super::sections::unique_name;
use super::{diameter, radius, secrets};
use crate::control::aaa::aka::AkaPolicy;
use crate::control::aaa::diameter::Settings as DiameterSettings;
use crate::control::aaa::embedded::EmbeddedConfig;
use crate::control::aaa::radius::RadiusConfig;
use crate::control::responder::Identity;

const KINDS: &str = "radius, diameter or embedded";

/// One `[[aaa]]`, or the back end of a profile that brings its own subscribers.
#[derive(Clone)]
pub struct AaaSection {
    /// Its name.
    pub name: Arc<str>,
    /// What it is.
    pub kind: AaaKind,
    /// Whether a profile names it: others are not opened.
    pub used: bool,
}

/// What kind of back end.
#[derive(Clone, Debug)]
pub enum AaaKind {
    /// Subscribers in a file.
    Embedded(Arc<EmbeddedConfig>),
    /// RADIUS (RFC 2865, 3579); `None` when no profile uses it.
    Radius(Option<Arc<RadiusConfig>>),
    /// Diameter SWm (3GPP TS 29.273).
    Diameter(Arc<DiameterSettings>),
}

impl AaaKind {
    /// Whether it keeps state on disk.
    pub fn keeps_state(&self) -> bool {
        matches!(self, Self::Embedded(config) if !config.subscribers.is_empty())
    }

    /// Its keyword.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Embedded(_) => "embedded",
            Self::Radius(_) => "radius",
            Self::Diameter(_) => "diameter",
        }
    }
}

/// Reads all back ends. `used` tells which of them a profile names: the files of others are not opened. `own` is the
/// identity of this gateway.
pub(super) fn read(
    root: &mut Section<'_>,
    used: impl Fn(&str) -> bool,
    own: Option<&Identity>,
) -> Vec<AaaSection> {
    let mut sections: Vec<AaaSection> = Vec::new();
    for mut section in root.sections("aaa") {
        let name = unique_name(&mut section, sections.iter().map(|section| &*section.name));
        let used = used(&name);
        let kind = section.required("kind", KINDS);
        let kind = match kind.as_ref().and_then(|kind| kind.text(KINDS)) {
            Some("radius") => Some(AaaKind::Radius(radius::read(&mut section, used).map(Arc::new))),
            Some("diameter") => diameter::read(&mut section, &name, used, own)
                .map(|settings| AaaKind::Diameter(settings.into())),
            Some("embedded") => embedded(&mut section, used),
            Some(_) => {
                kind.inspect(|kind| kind.reject(KINDS));
                None
            }
            None => None,
        };
        section.finish();
        sections.extend(kind.map(|kind| AaaSection { name: name.into(), kind, used }));
    }
    sections
}

/// Reads the subscribers of `kind = "embedded"`, and how they are authenticated.
fn embedded(section: &mut Section<'_>, used: bool) -> Option<AaaKind> {
    let allowed = "the path of a file with [[secret]] entries of imsi, k and opc, or of user and password";
    let defaults = AkaPolicy::default();
    let name = "a name of 1 to 255 octets, such as \"WLAN\"";
    let network_name = section.text("network_name", &defaults.network_name, name);
    if !(1..=255).contains(&network_name.len()) {
        section.missing("network_name", name);
    }
    let aka = AkaPolicy {
        network_name: network_name.into(),
        pseudonyms: section.flag("pseudonyms", defaults.pseudonyms),
        reauth_max: section.number(
            "reauth_max",
            defaults.reauth_max.into(),
            0..=1_000,
            "fast re-authentications",
        ) as u16,
        protected_success: section.flag("protected_success", defaults.protected_success),
        ..defaults
    };
    let file = section.required("secrets_file", allowed)?;
    if !used {
        return Some(AaaKind::Embedded(Arc::new(EmbeddedConfig { aka, ..EmbeddedConfig::default() })));
    }
    let subscribers = secrets::read(&file, allowed, false)?.subscribers;
    if subscribers.is_empty() {
        file.reject(allowed);
    }
    Some(AaaKind::Embedded(Arc::new(EmbeddedConfig { subscribers: Arc::new(subscribers), aka })))
}
