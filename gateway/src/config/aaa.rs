//! `[[aaa]]`: back ends that decide who is let in.

use std::net::SocketAddr;
use std::sync::Arc;

use super::reader::Section;
use super::sections::unique_name;

const KINDS: &str = "radius, diameter or embedded";

/// One `[[aaa]]`, or the back end of a profile that brings its own subscribers.
#[derive(Clone)]
pub struct AaaSection {
    /// Its name.
    pub name: Arc<str>,
    /// What it is.
    pub kind: AaaKind,
}

/// What kind of back end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AaaKind {
    /// Subscribers in a file.
    Embedded,
    /// RADIUS (RFC 2865, 3579).
    Radius,
    /// Diameter SWm (3GPP TS 29.273).
    Diameter,
}

/// Reads all back ends. `used` tells which of them a profile names: the files of others are not opened.
pub(super) fn read(root: &mut Section<'_>, _used: impl Fn(&str) -> bool) -> Vec<AaaSection> {
    let mut sections: Vec<AaaSection> = Vec::new();
    for mut section in root.sections("aaa") {
        let name = unique_name(&mut section, sections.iter().map(|section| &*section.name));
        let kind = section.required("kind", KINDS);
        let kind = match kind.as_ref().and_then(|kind| kind.text(KINDS)) {
            Some("radius") => AaaKind::Radius,
            Some("diameter") => AaaKind::Diameter,
            Some("embedded") => AaaKind::Embedded,
            Some(_) => {
                kind.inspect(|kind| kind.reject(KINDS));
                continue;
            }
            None => continue,
        };
        let allowed = "address:port, such as [\"10.77.0.1:1812\"]";
        for server in section.list("servers", allowed) {
            let _ = server.parse::<SocketAddr>(allowed);
        }
        let _ = section.text("secret_file", "", "the path of a file");
        section.finish();
        sections.push(AaaSection { name: name.into(), kind });
    }
    sections
}
