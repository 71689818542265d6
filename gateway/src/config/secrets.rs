//! The file of secrets that a profile names.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use zeroize::Zeroizing;

use super::read_text;
use super::reader::{Field, Reader, Section};
use crate::control::responder::{Psk, PskStore};

const KEY: &str = "a text, or octets in hexadecimal behind 0x";

/// Reads the file that `field` names. Its mistakes are reported under its own name, without its contents.
///
/// Entries for other kinds of authentication (`imsi`, `user`) are checked for their shape and passed over.
pub(super) fn read(field: &Field<'_>, allowed: &str) -> Option<PskStore> {
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
    let store = reader.parse().and_then(|document| store(reader.root(&document)));
    field.reader().absorb(reader);
    store
}

/// Warns when others than the owner may read a file of secrets.
pub(super) fn warn_if_open(reader: &Reader, path: &Path) {
    let Ok(meta) = std::fs::metadata(path) else { return };
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        reader.warn(format!("{}: mode {mode:04o} lets others read it; 0600 is enough", path.display()));
    }
}

fn store(mut root: Section<'_>) -> Option<PskStore> {
    let default = root.value("psk");
    let mut usable = default.is_some();
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
            [None, Some(_), None] => {
                for key in ["k", "opc", "amf", "sqn"] {
                    let _ = section.text(key, "", "octets in hexadecimal");
                }
            }
            [None, None, Some(_)] => {
                let _ = section.required("password", "a text").map(|field| field.text("a text").is_some());
            }
            _ => section
                .missing("id", "exactly one of id (with psk), imsi (with k and opc), user (with password)"),
        }
        section.finish();
    }
    if !usable {
        root.missing("psk", "a default psk = \"…\" or a [[secret]] with id and psk");
    }
    root.finish();
    usable.then_some(store)
}

fn psk(field: &Field<'_>) -> Option<Psk> {
    let text = Zeroizing::new(field.text(KEY)?.to_owned());
    let psk = Psk::from_text(&text);
    if psk.is_none() {
        field.reject(KEY);
    }
    psk
}
