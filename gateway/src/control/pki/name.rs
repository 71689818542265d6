//! Distinguished names as text (`O=interop, CN=gw.test`) and as DER (X.501 Name).

use x509_parser::asn1_rs::{Any, FromDer, Tag};
use x509_parser::x509::X509Name;

/// Attribute types by keyword, with the contents of their DER object identifier.
const ATTRIBUTES: &[(&str, &[u8])] = &[
    ("CN", &[0x55, 4, 3]),
    ("SERIALNUMBER", &[0x55, 4, 5]),
    ("C", &[0x55, 4, 6]),
    ("L", &[0x55, 4, 7]),
    ("ST", &[0x55, 4, 8]),
    ("O", &[0x55, 4, 10]),
    ("OU", &[0x55, 4, 11]),
    ("UID", &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1]),
    ("DC", &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25]),
    ("E", &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1]),
];

/// Most attributes of a name that are read.
const ATTRIBUTES_MAX: usize = 32;

/// The text of a DER name: its attributes in encoded order, `KEYWORD=value`, joined by comma and space.
/// `None` when it is not a name, or has too many attributes or an empty list.
pub fn to_text(der: &[u8]) -> Option<String> {
    let (rest, name) = X509Name::from_der(der).ok()?;
    if !rest.is_empty() {
        return None;
    }
    let mut text = String::new();
    for (index, attribute) in name.iter_attributes().enumerate() {
        if index == ATTRIBUTES_MAX {
            return None;
        }
        if index > 0 {
            text.push_str(", ");
        }
        match ATTRIBUTES.iter().find(|(_, oid)| *oid == attribute.attr_type().as_bytes()) {
            Some((keyword, _)) => text.push_str(keyword),
            None => text.push_str(&attribute.attr_type().to_id_string()),
        }
        text.push('=');
        push_value(&mut text, attribute.attr_value());
    }
    (!text.is_empty()).then_some(text)
}

fn push_value(text: &mut String, value: &Any<'_>) {
    match std::str::from_utf8(value.data) {
        Ok(value) if !value.chars().any(char::is_control) => text.push_str(value),
        _ => value.data.iter().for_each(|octet| text.push_str(&format!("\\{octet:02x}"))),
    }
}

/// The DER of a name given as `O=interop,CN=gw.test`; a comma inside a value is written `\,`. `None` for
/// an unknown keyword or an empty part.
pub fn from_text(text: &str) -> Option<Vec<u8>> {
    let mut name = Vec::new();
    for part in split_unescaped(text) {
        let (keyword, value) = part.split_once('=')?;
        let (keyword, value) = (keyword.trim(), value.trim());
        let (known, oid) = ATTRIBUTES.iter().find(|(known, _)| known.eq_ignore_ascii_case(keyword))?;
        let tag = match *known {
            "C" | "SERIALNUMBER" => Tag::PrintableString,
            "DC" | "E" => Tag::Ia5String,
            _ => Tag::Utf8String,
        };
        if value.is_empty() {
            return None;
        }
        let mut pair = element(0x06, oid);
        pair.extend(element(u8::try_from(tag.0).ok()?, value.as_bytes()));
        name.extend(element(0x31, &element(0x30, &pair)));
    }
    Some(element(0x30, &name))
}

/// Splits at commas that no backslash precedes, and removes those backslashes.
fn split_unescaped(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        match c {
            '\\' if !escaped => {
                escaped = true;
                continue;
            }
            ',' if !escaped => parts.push(String::new()),
            _ => parts.last_mut().expect("never empty").push(c),
        }
        escaped = false;
    }
    parts
}

/// One DER element with a definite length.
fn element(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match contents.len() {
        len @ 0..=0x7f => out.push(len as u8),
        len => {
            let octets = len.to_be_bytes();
            let skip = octets.iter().take_while(|octet| **octet == 0).count();
            out.push(0x80 | (octets.len() - skip) as u8);
            out.extend_from_slice(&octets[skip..]);
        }
    }
    out.extend_from_slice(contents);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for text in ["CN=gw.test", "O=interop, CN=client.test", "C=DE, O=A\u{df}, OU=x, CN=y, E=a@b"] {
            assert_eq!(to_text(&from_text(text).expect("a name")).as_deref(), Some(text));
        }
        let long = format!("CN={}", "x".repeat(300));
        assert_eq!(to_text(&from_text(&long).expect("a name")), Some(long));
        let comma = from_text("O=Example\\, Inc.,CN=a").expect("a name");
        assert_eq!(to_text(&comma).as_deref(), Some("O=Example, Inc., CN=a"));
    }

    #[test]
    fn encoding_is_what_openssl_makes() {
        let expected = hex("30243110300e060355040a0c07696e7465726f703110300e06035504030c0767772e74657374");
        assert_eq!(from_text("O=interop,CN=gw.test"), Some(expected));
    }

    #[test]
    fn garbage_is_no_name() {
        for der in
            [&[][..], &[0x30], &[0x30, 0], &[0x30, 5, 1], &[0x04, 0], &[0x30, 0x84, 255, 255, 255, 255]]
        {
            assert_eq!(to_text(der), None, "{der:?}");
        }
        for text in ["", "CN", "CN=", "XX=1", "CN=a,,O=b"] {
            assert_eq!(from_text(text), None, "{text}");
        }
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
    }
}
