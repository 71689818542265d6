//! The file of secrets that a profile names.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ahash::AHashMap;
use zeroize::Zeroizing;

use super::read_text;
use super::reader::{Field, Reader, Section};
use crate::control::aaa::embedded::{Algorithm, IMSI_DIGITS, Subscriber, Subscribers};
use crate::control::responder::{Psk, PskStore};

const KEY: &str = "a text, or octets in hexadecimal behind 0x";

/// Octets that a post-quantum pre-shared key should have at least: 256 bits (RFC 8784 §6).
const PPK_LEN_MIN: usize = 32;

/// Octets that the key of tickets must have at least.
const TICKET_KEY_LEN_MIN: usize = 32;

/// AMF of a SIM that says none: the separation bit is set (TS 33.402 §6.1).
const AMF_DEFAULT: [u8; 2] = [0x80, 0];

/// Octets of the longest PPK_ID.
const PPK_ID_LEN_MAX: usize = 255;

/// What a file of secrets holds.
pub(super) struct Secrets {
    /// Pre-shared keys.
    pub(super) psks: PskStore,
    /// Post-quantum pre-shared keys by their PPK_ID.
    pub(super) ppks: AHashMap<Box<[u8]>, Psk>,
    /// SIMs and users with passwords.
    pub(super) subscribers: Subscribers,
}

/// Reads the file that `field` names. Its mistakes are reported under its own name, without its contents. `wants_psk`:
/// a file without pre-shared keys is a mistake.
///
pub(super) fn read(field: &Field<'_>, allowed: &str, wants_psk: bool) -> Option<Secrets> {
    let path = field.reader().resolve(field.text(allowed)?);
    let text = match read_text(&path) {
        Ok(text) => text,
        Err(error) => {
            field.reject(format!("{allowed} ({error})"));
            return None;
        }
    };
    warn_if_open(field.reader(), &path);
    let reader = Reader::new_secret(&path, text);
    let secrets = reader.parse().and_then(|document| secrets(&reader, reader.root(&document), wants_psk));
    field.reader().absorb(reader);
    secrets
}

/// Reads the key of tickets: one line of text, or hexadecimal digits behind 0x.
pub(super) fn ticket_key(field: &Field<'_>) -> Option<Psk> {
    let allowed = "the path of a file with at least 32 octets of text, or of hexadecimal digits behind 0x";
    let path = field.reader().resolve(field.text(allowed)?);
    let text = match read_text(&path) {
        Ok(text) => Zeroizing::new(text),
        Err(error) => {
            field.reject(format!("{allowed} ({error})"));
            return None;
        }
    };
    warn_if_open(field.reader(), &path);
    let key = Psk::from_text(text.trim()).filter(|key| key.octets().len() >= TICKET_KEY_LEN_MIN);
    if key.is_none() {
        field.reject(allowed);
    }
    key
}

/// Warns when others than the owner may read a file of secrets.
pub(super) fn warn_if_open(reader: &Reader, path: &Path) {
    let Ok(meta) = std::fs::metadata(path) else { return };
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        reader.warn(format!("{}: mode {mode:04o} lets others read it; 0600 is enough", path.display()));
    }
}

fn secrets(reader: &Reader, mut root: Section<'_>, wants_psk: bool) -> Option<Secrets> {
    let default = root.value("psk");
    let mut usable = default.is_some();
    let mut subscribers = Subscribers::default();
    let mut store = PskStore::new(default.and_then(|field| psk(&field)));
    for mut section in root.sections("secret") {
        let names = ["id", "imsi", "user"].map(|key| section.value(key));
        match names {
            [Some(id), None, None] => {
                usable = true;
                let key = section.required("psk", KEY).and_then(|field| psk(&field));
                if let (Some(id), Some(key)) = (id.text("an identity"), key) {
                    store.insert(id, key);
                }
            }
            [None, Some(imsi), None] => sim(&mut section, &imsi, &mut subscribers),
            [None, None, Some(user)] => {
                let allowed = "a name of its own";
                let password = section.required("password", "a text");
                let password = password.and_then(|field| field.text("a text").map(|text| text.to_owned()));
                if let (Some(name), Some(password)) = (user.text(allowed), password)
                    && !subscribers.add_user(name, Zeroizing::new(password))
                {
                    user.reject(allowed);
                }
            }
            _ => section
                .missing("id", "exactly one of id (with psk), imsi (with k and opc), user (with password)"),
        }
        section.finish();
    }
    if wants_psk && !usable {
        root.missing("psk", "a default psk = \"…\" or a [[secret]] with id and psk");
    }
    let ppks = ppks(reader, &mut root);
    root.finish();
    (usable || !wants_psk).then_some(Secrets { psks: store, ppks, subscribers })
}

/// Reads the entry of a SIM.
fn sim(section: &mut Section<'_>, imsi: &Field<'_>, subscribers: &mut Subscribers) {
    let allowed = "6 to 15 digits, of its own";
    let algorithms = "\"milenage\" or \"tuak\"";
    let algorithm = match section.value("algorithm") {
        None => Algorithm::Milenage,
        Some(field) => match field.text(algorithms) {
            Some("tuak") => Algorithm::Tuak,
            Some("milenage") | None => Algorithm::Milenage,
            Some(_) => {
                field.reject(algorithms);
                Algorithm::Milenage
            }
        },
    };
    let (k_lens, opc_len, k_allowed, opc_allowed): (&[usize], usize, _, _) = match algorithm {
        Algorithm::Milenage => (&[16], 16, "32 hexadecimal digits", "32 hexadecimal digits"),
        Algorithm::Tuak => (&[16, 32], 32, "32 or 64 hexadecimal digits", "64 hexadecimal digits"),
    };
    let k = section.required("k", k_allowed).and_then(|field| hex(&field, k_lens, k_allowed));
    let opc = section.required("opc", opc_allowed).and_then(|field| hex(&field, &[opc_len], opc_allowed));
    let amf = section.value("amf").map(|field| hex(&field, &[2], "4 hexadecimal digits"));
    let sqn = section.value("sqn").and_then(|field| hex(&field, &[6], "12 hexadecimal digits"));
    let apns = section.value("apns").map(|field| {
        let names = field.list("a list of APNs, such as [\"ims\"]");
        names.iter().filter_map(|name| Some(name.text("an APN")?.to_lowercase().into())).collect()
    });
    let (Some(k), Some(opc), Some(text)) = (k, opc, imsi.text(allowed)) else { return };
    let amf = match amf {
        None => AMF_DEFAULT,
        Some(octets) => octets.and_then(|octets| octets.as_slice().try_into().ok()).unwrap_or(AMF_DEFAULT),
    };
    let sqn = sqn.map(|octets| octets.iter().fold(0, |sqn, octet| sqn << 8 | u64::from(*octet)));
    let digits = IMSI_DIGITS.contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_digit());
    if !digits || !subscribers.add(text, Subscriber { k, opc, algorithm, amf, sqn, apns }) {
        imsi.reject(allowed);
    }
}

/// Octets in hexadecimal, as many as one of `lens`.
pub(super) fn hex(field: &Field<'_>, lens: &[usize], allowed: &str) -> Option<Zeroizing<Vec<u8>>> {
    let text = field.text(allowed)?;
    let text = text.strip_prefix("0x").unwrap_or(text);
    let octets = text.is_ascii().then(|| {
        let pairs = text.as_bytes().chunks(2).filter_map(|pair| std::str::from_utf8(pair).ok());
        pairs.map(|pair| u8::from_str_radix(pair, 16).ok().filter(|_| !pair.contains('+'))).collect()
    });
    let octets: Option<Vec<u8>> = octets.flatten();
    let octets = octets.filter(|octets| lens.contains(&octets.len()) && octets.len() * 2 == text.len());
    if octets.is_none() {
        field.reject(allowed);
    }
    octets.map(Zeroizing::new)
}

/// Reads the tables `[[ppk]]`.
fn ppks(reader: &Reader, root: &mut Section<'_>) -> AHashMap<Box<[u8]>, Psk> {
    let mut ppks = AHashMap::new();
    for mut section in root.sections("ppk") {
        let allowed = "a PPK_ID of 1 to 255 octets, of its own";
        let id = section.required("id", allowed);
        let key = section.required("key", KEY).and_then(|field| psk(&field));
        section.finish();
        let (Some(id), Some(key)) = (id, key) else { continue };
        let Some(text) = id.text(allowed) else { continue };
        if key.octets().len() < PPK_LEN_MIN {
            reader.warn(format!("{}: a ppk has less than 32 octets (RFC 8784 §6)", reader.file().display()));
        }
        let fits = (1..=PPK_ID_LEN_MAX).contains(&text.len());
        if !fits || ppks.insert(text.as_bytes().into(), key).is_some() {
            id.reject(allowed);
        }
    }
    ppks
}

fn psk(field: &Field<'_>) -> Option<Psk> {
    let text = Zeroizing::new(field.text(KEY)?.to_owned());
    let psk = Psk::from_text(&text);
    if psk.is_none() {
        field.reject(KEY);
    }
    psk
}
