//! Identities of IKE peers (RFC 7296 §3.5) and the patterns that select a profile by them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use codec::ike::IdType;

use crate::control::pki::name;

/// Longest identification data accepted, in octets; a distinguished name with many parts fits.
pub const IDENTITY_LEN_MAX: usize = 1024;

/// Identification data with its type. Subscribers' identities appear in logs at `debug` only.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Identity {
    kind: IdType,
    data: Box<[u8]>,
}

impl Identity {
    /// Takes an ID payload's contents; `None` when longer than [`IDENTITY_LEN_MAX`], empty, or an address
    /// of the wrong length.
    pub fn new(kind: IdType, data: &[u8]) -> Option<Self> {
        let fits = match kind {
            IdType::IPV4_ADDR => data.len() == 4,
            IdType::IPV6_ADDR => data.len() == 16,
            _ => (1..=IDENTITY_LEN_MAX).contains(&data.len()),
        };
        fits.then(|| Self { kind, data: data.into() })
    }

    /// The ID Type.
    pub fn kind(&self) -> IdType {
        self.kind
    }

    /// The Identification Data.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The body of an ID payload: type, three reserved octets, data; the part that AUTH covers
    /// (RFC 7296 §2.15).
    pub fn payload_body(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(4 + self.data.len());
        body.extend_from_slice(&[self.kind.0, 0, 0, 0]);
        body.extend_from_slice(&self.data);
        body
    }

    /// Whether both name the same, whatever the type and the case: phones send an APN as FQDN or KEY_ID.
    pub fn names_same(&self, other: &Self) -> bool {
        self.data.eq_ignore_ascii_case(&other.data)
    }

    /// Octets that name this identity in tables: type, then data.
    pub fn key(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(1 + self.data.len());
        key.push(self.kind.0);
        key.extend_from_slice(&self.data);
        key
    }
}

/// The text that profiles and secrets are matched with: an FQDN or user@fqdn as it is, an address in its
/// usual form, a distinguished name as `O=…, CN=…`, anything else in hexadecimal.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            IdType::IPV4_ADDR => match <[u8; 4]>::try_from(&*self.data) {
                Ok(octets) => return write!(f, "{}", IpAddr::from(octets)),
                Err(_) => return write_hex(f, &self.data),
            },
            IdType::IPV6_ADDR => match <[u8; 16]>::try_from(&*self.data) {
                Ok(octets) => return write!(f, "{}", IpAddr::from(octets)),
                Err(_) => return write_hex(f, &self.data),
            },
            IdType::DER_ASN1_DN => match name::to_text(&self.data) {
                Some(text) => return f.write_str(&text),
                None => return write_hex(f, &self.data),
            },
            _ => {}
        }
        match std::str::from_utf8(&self.data) {
            Ok(text) if !text.chars().any(char::is_control) => f.write_str(text),
            _ => write_hex(f, &self.data),
        }
    }
}

fn write_hex(f: &mut fmt::Formatter<'_>, data: &[u8]) -> fmt::Result {
    f.write_str("0x")?;
    data.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
}

/// Reads the configuration's form: an IP address, `user@fqdn`, `dn:O=…,CN=…` or else an FQDN.
impl FromStr for Identity {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "an FQDN, an IP address, user@fqdn or dn:O=…,CN=…";
        if let Some(dn) = text.strip_prefix("dn:") {
            let der = name::from_text(dn).ok_or(EXPECTED)?;
            return Self::new(IdType::DER_ASN1_DN, &der).ok_or(EXPECTED);
        }
        if let Ok(addr) = text.parse() {
            return Ok(match addr {
                IpAddr::V4(addr) => Self { kind: IdType::IPV4_ADDR, data: addr.octets().into() },
                IpAddr::V6(addr) => Self { kind: IdType::IPV6_ADDR, data: addr.octets().into() },
            });
        }
        if text.is_empty() || text.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return Err(EXPECTED);
        }
        let kind = if text.contains('@') { IdType::RFC822_ADDR } else { IdType::FQDN };
        Self::new(kind, text.as_bytes()).ok_or(EXPECTED)
    }
}

/// A case-insensitive pattern: `*` stands for any run of characters, `?` for one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Glob(Vec<char>);

impl Glob {
    /// Makes a pattern.
    pub fn new(pattern: &str) -> Self {
        Self(pattern.chars().flat_map(char::to_lowercase).collect())
    }

    /// Whether it stands for everything, a missing identity included.
    pub fn matches_absent(&self) -> bool {
        self.0 == ['*']
    }

    /// Whether `text` fits. Takes at most pattern length times text length steps: only the last `*` is
    /// ever revisited.
    pub fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().flat_map(char::to_lowercase).collect();
        let (mut at, mut pat) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        while at < text.len() {
            match self.0.get(pat) {
                Some('*') => {
                    star = Some((pat, at));
                    pat += 1;
                }
                Some(c) if *c == '?' || *c == text[at] => {
                    pat += 1;
                    at += 1;
                }
                _ => {
                    let Some((star_pat, star_at)) = star else { return false };
                    star = Some((star_pat, star_at + 1));
                    pat = star_pat + 1;
                    at = star_at + 1;
                }
            }
        }
        self.0.iter().skip(pat).all(|c| *c == '*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r7296_3_5_identities_parse_and_print() {
        for (text, kind) in [
            ("gw.test", IdType::FQDN),
            ("user@gw.test", IdType::RFC822_ADDR),
            ("192.0.2.1", IdType::IPV4_ADDR),
            ("2001:db8::1", IdType::IPV6_ADDR),
        ] {
            let id: Identity = text.parse().expect("an identity");
            assert_eq!((id.kind(), id.to_string()), (kind, text.to_string()));
            assert_eq!(id.payload_body()[..4], [kind.0, 0, 0, 0]);
        }
        let id: Identity = "dn:O=interop,CN=gw.test".parse().expect("a name");
        assert_eq!((id.kind(), id.to_string()), (IdType::DER_ASN1_DN, "O=interop, CN=gw.test".into()));
        for bad in ["", "a b", "dn:", "dn:XX=1", "dn:CN"] {
            assert!(bad.parse::<Identity>().is_err(), "{bad}");
        }
    }

    #[test]
    fn r7296_3_5_odd_identities_are_bounded_and_printable() {
        assert_eq!(Identity::new(IdType::FQDN, &[]), None);
        assert_eq!(Identity::new(IdType::FQDN, &[b'a'; IDENTITY_LEN_MAX + 1]), None);
        assert_eq!(Identity::new(IdType::IPV4_ADDR, &[1, 2, 3]), None);
        let odd = Identity::new(IdType::KEY_ID, &[0, 0xff]).expect("short");
        assert_eq!(odd.to_string(), "0x00ff");
        let not_der = Identity::new(IdType::DER_ASN1_DN, &[1, 2, 3]).expect("short");
        assert_eq!(not_der.to_string(), "0x010203");
    }

    #[test]
    fn globs_match_case_insensitively() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("*", "anything", true),
            ("IMS*", "ims.mnc001", true),
            ("*@nai.*.org", "0001@NAI.epc.org", true),
            ("*@nai.*.org", "0001@nai.epc.com", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a*b*c", "aXbYbZc", true),
            ("", "x", false),
            ("", "", true),
            ("*?", "", false),
        ] {
            assert_eq!(Glob::new(pattern).matches(text), fits, "{pattern} {text}");
        }
        assert!(Glob::new("*").matches_absent());
        assert!(!Glob::new("**").matches_absent());
    }

    #[test]
    fn a_hostile_text_does_not_explode_a_glob() {
        let glob = Glob::new(&"*a".repeat(30));
        assert!(!glob.matches(&"a".repeat(IDENTITY_LEN_MAX - 1).replace("a", "ab")));
    }
}
