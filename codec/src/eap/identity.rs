//! The names of subscribers: NAIs of TS 23.003 §19.

use std::fmt;

use super::aka::Variant;

/// What ends every realm of a mobile network.
const NETWORK: &str = "3gppnetwork.org";

/// What the realm of an ePDG's subscriber begins with, without and with an emergency (TS 23.003 §19.2, §19.3.9).
const ROOT: &str = "nai.epc.";
const EMERGENCY: &str = "sos.nai.epc.";

/// Longest NAI that is read (RFC 7542 §2.3 asks for 253 octets at least of support).
const NAI_LEN_MAX: usize = 253;

/// Digits of an IMSI (TS 23.003 §2.2) and of an IMEI or IMEISV (§6.2).
const IMSI_LEN: std::ops::RangeInclusive<usize> = 6..=15;
const IMEI_LEN: std::ops::RangeInclusive<usize> = 14..=16;

/// A mobile network: country code and network code, three digits each.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Plmn {
    mcc: [u8; 3],
    mnc: [u8; 3],
}

impl Plmn {
    /// From the digits of the codes; a network code of two digits gets a zero in front (TS 23.003 §19.2).
    pub fn new(mcc: &str, mnc: &str) -> Option<Self> {
        let mcc: [u8; 3] = mcc.as_bytes().try_into().ok()?;
        let mnc = match *mnc.as_bytes() {
            [a, b] => [b'0', a, b],
            [a, b, c] => [a, b, c],
            _ => return None,
        };
        let digits = mcc.iter().chain(&mnc).all(u8::is_ascii_digit);
        digits.then_some(Self { mcc, mnc })
    }

    /// The network of an IMSI, whose network code has `mnc_len` digits (2 or 3): the IMSI does not tell.
    pub fn of_imsi(imsi: &str, mnc_len: usize) -> Option<Self> {
        Self::new(imsi.get(..3)?, imsi.get(3..3 + mnc_len)?)
    }

    /// Country code.
    pub fn mcc(&self) -> &str {
        std::str::from_utf8(&self.mcc).expect("digits")
    }

    /// Network code, three digits.
    pub fn mnc(&self) -> &str {
        std::str::from_utf8(&self.mnc).expect("digits")
    }

    /// The realm of its subscribers: `nai.epc.mncNNN.mccNNN.3gppnetwork.org`.
    pub fn realm(&self) -> String {
        format!("{ROOT}{self}")
    }
}

impl fmt::Display for Plmn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mnc{}.mcc{}.{NETWORK}", self.mnc(), self.mcc())
    }
}

/// What the part before the `@` is. Its `Debug` shows the kind alone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum UserName {
    /// `0` or `6` and the IMSI (TS 23.003 §19.3.2).
    Permanent(Variant, String),
    /// `2` or `7` and what the server made up (§19.3.5). Whole, with the digit.
    Pseudonym(Variant, String),
    /// `4` or `8` and what the server made up (§19.3.4). Whole, with the digit.
    Reauth(Variant, String),
    /// `imei` and the IMEI: an emergency without a SIM (§19.3.6).
    Imei(String),
    /// Anything else; laptops have names.
    Other(String),
}

/// A Network Access Identifier. Its `Debug` does not show whose.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Nai {
    /// Who.
    pub user: UserName,
    /// Where, in lower case, without the `@`; empty when there was none.
    pub realm: String,
}

impl Nai {
    /// The name that a SIM gives: `0IMSI@realm`, `6IMSI@realm` for EAP-AKA'.
    pub fn permanent(variant: Variant, imsi: &str, plmn: Plmn) -> Self {
        Self { user: UserName::Permanent(variant, imsi.to_owned()), realm: plmn.realm() }
    }

    /// The name that a SIM gives for an emergency call (TS 23.003 §19.3.9).
    pub fn emergency(variant: Variant, imsi: &str, plmn: Plmn) -> Self {
        let realm = format!("{EMERGENCY}{plmn}");
        Self { user: UserName::Permanent(variant, imsi.to_owned()), realm }
    }

    /// The name that a phone without a SIM gives for an emergency call (TS 23.003 §19.3.6).
    pub fn emergency_imei(imei: &str, plmn: Plmn) -> Self {
        Self { user: UserName::Imei(imei.to_owned()), realm: format!("{EMERGENCY}{plmn}") }
    }

    /// Reads an identity as EAP or IDi carry it. `None` when it is empty, too long, no text, or has two `@`.
    ///
    /// A terminating zero, which some phones send, and a decoration (`realm!user@realm`, TS 23.003 §19.3.3) are taken off.
    pub fn parse(octets: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(octets).ok()?.trim_end_matches('\0');
        let ambiguous = text.matches('@').count() > 1;
        if text.len() > NAI_LEN_MAX || ambiguous || text.contains(|c: char| c.is_control()) {
            return None;
        }
        let (user, realm) = text.rsplit_once('@').unwrap_or((text, ""));
        let (user, realm) = match user.rsplit_once('!') {
            // The home realm stands in front of the user, the visited one behind the `@`.
            Some((home, user)) => (user, home.rsplit('!').next().unwrap_or(home)),
            None => (user, realm),
        };
        if user.is_empty() && realm.is_empty() {
            return None;
        }
        Some(Self { user: UserName::parse(user), realm: realm.to_ascii_lowercase() })
    }

    /// The IMSI, when the name tells it.
    pub fn imsi(&self) -> Option<&str> {
        match &self.user {
            UserName::Permanent(_, imsi) => Some(imsi),
            _ => None,
        }
    }

    /// The method that the name asks for by its first digit.
    pub fn variant(&self) -> Option<Variant> {
        match self.user {
            UserName::Permanent(variant, _)
            | UserName::Pseudonym(variant, _)
            | UserName::Reauth(variant, _) => Some(variant),
            UserName::Imei(_) | UserName::Other(_) => None,
        }
    }

    /// Whether it is the name of an emergency (TS 23.003 §19.3.6, §19.3.9).
    pub fn is_emergency(&self) -> bool {
        self.realm.starts_with("sos.") || matches!(self.user, UserName::Imei(_))
    }

    /// The network of the realm, when it is one of the form of TS 23.003 §19.2.
    pub fn plmn(&self) -> Option<Plmn> {
        let (rest, mcc) = self.realm.strip_suffix(NETWORK)?.strip_suffix('.')?.rsplit_once(".mcc")?;
        let mnc = rest.rsplit('.').next()?.strip_prefix("mnc")?;
        Plmn::new(mcc, mnc)
    }
}

impl UserName {
    fn parse(user: &str) -> Self {
        let digits = |text: &str| text.bytes().all(|octet| octet.is_ascii_digit());
        if let Some(imei) = user.strip_prefix("imei")
            && IMEI_LEN.contains(&imei.len())
            && digits(imei)
        {
            return Self::Imei(imei.to_owned());
        }
        let permanent = |variant| {
            let imsi = &user[1..];
            let possible = IMSI_LEN.contains(&imsi.len()) && digits(imsi);
            if possible { Self::Permanent(variant, imsi.to_owned()) } else { Self::Other(user.to_owned()) }
        };
        match user.as_bytes().first() {
            Some(b'0') => permanent(Variant::Aka),
            Some(b'6') => permanent(Variant::AkaPrime),
            Some(b'2') => Self::Pseudonym(Variant::Aka, user.to_owned()),
            Some(b'7') => Self::Pseudonym(Variant::AkaPrime, user.to_owned()),
            Some(b'4') => Self::Reauth(Variant::Aka, user.to_owned()),
            Some(b'8') => Self::Reauth(Variant::AkaPrime, user.to_owned()),
            _ => Self::Other(user.to_owned()),
        }
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Permanent(Variant::Aka, imsi) => write!(f, "0{imsi}"),
            Self::Permanent(Variant::AkaPrime, imsi) => write!(f, "6{imsi}"),
            Self::Imei(imei) => write!(f, "imei{imei}"),
            Self::Pseudonym(_, name) | Self::Reauth(_, name) | Self::Other(name) => f.write_str(name),
        }
    }
}

/// As it goes over the wire. For logs at `debug` only: it says who.
impl fmt::Display for Nai {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.user.fmt(f)?;
        if self.realm.is_empty() { Ok(()) } else { write!(f, "@{}", self.realm) }
    }
}

impl fmt::Debug for Nai {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{}", self.user, self.realm)
    }
}

impl fmt::Debug for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Permanent(..) => "permanent",
            Self::Pseudonym(..) => "pseudonym",
            Self::Reauth(..) => "re-authentication",
            Self::Imei(_) => "imei",
            Self::Other(_) => "other",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const IMSI: &str = "234150999999999";

    fn parsed(text: &str) -> Nai {
        Nai::parse(text.as_bytes()).expect("a name")
    }

    /// The examples of TS 23.003: MCC 234, MNC 15.
    #[test]
    fn ts23003_19_3_2_the_root_nai_of_a_sim() {
        let plmn = Plmn::of_imsi(IMSI, 2).expect("digits");
        let nai = Nai::permanent(Variant::Aka, IMSI, plmn);
        assert_eq!(nai.to_string(), "0234150999999999@nai.epc.mnc015.mcc234.3gppnetwork.org");
        assert_eq!(parsed(&nai.to_string()), nai);
        let prime = Nai::permanent(Variant::AkaPrime, IMSI, plmn);
        assert_eq!(prime.to_string(), "6234150999999999@nai.epc.mnc015.mcc234.3gppnetwork.org");
        assert_eq!((prime.imsi(), prime.variant()), (Some(IMSI), Some(Variant::AkaPrime)));
        assert_eq!(prime.plmn(), Some(plmn));
    }

    #[test]
    fn ts23003_19_3_the_first_digit_tells_what_it_is() {
        for (digit, variant) in [("2", Variant::Aka), ("7", Variant::AkaPrime)] {
            let nai = parsed(&format!("{digit}qwertz@nai.epc.mnc001.mcc001.3gppnetwork.org"));
            assert_eq!(nai.user, UserName::Pseudonym(variant, format!("{digit}qwertz")));
        }
        for (digit, variant) in [("4", Variant::Aka), ("8", Variant::AkaPrime)] {
            let nai = parsed(&format!("{digit}qwertz"));
            assert_eq!(nai.user, UserName::Reauth(variant, format!("{digit}qwertz")));
            assert_eq!((nai.realm.as_str(), nai.imsi()), ("", None));
        }
        assert_eq!(parsed("alice@corp.test").user, UserName::Other("alice".into()));
        assert_eq!(parsed("0123x@corp.test").user, UserName::Other("0123x".into()), "no IMSI");
    }

    #[test]
    fn ts23003_19_3_6_and_9_emergency_names() {
        let plmn = Plmn::new("234", "015").expect("digits");
        let nai = Nai::emergency_imei("219551288888888", plmn);
        assert_eq!(nai.to_string(), "imei219551288888888@sos.nai.epc.mnc015.mcc234.3gppnetwork.org");
        assert!(parsed(&nai.to_string()).is_emergency());
        let nai = Nai::emergency(Variant::Aka, IMSI, plmn);
        assert_eq!(nai.to_string(), "0234150999999999@sos.nai.epc.mnc015.mcc234.3gppnetwork.org");
        let nai = parsed(&nai.to_string());
        assert!(nai.is_emergency() && nai.imsi() == Some(IMSI) && nai.plmn() == Some(plmn));
        assert!(!parsed("0234150999999999@nai.epc.mnc015.mcc234.3gppnetwork.org").is_emergency());
    }

    #[test]
    fn ts23003_19_3_3_a_decorated_name_is_of_its_home() {
        let nai = parsed(
            "nai.epc.mnc015.mcc234.3gppnetwork.org!0234150999999999@nai.epc.mnc071.mcc610.3gppnetwork.org",
        );
        assert_eq!(nai.imsi(), Some(IMSI));
        assert_eq!(nai.plmn(), Plmn::new("234", "15"));
    }

    #[test]
    fn what_is_no_name() {
        for wrong in [&b""[..], b"\0", b"!@", b"a@b@c", b"a\nb", b"\xff\xfe", &[b'0'; NAI_LEN_MAX + 1]] {
            assert_eq!(Nai::parse(wrong), None);
        }
        assert_eq!(Nai::parse(b"0234150999999999@x\0"), Nai::parse(b"0234150999999999@X"));
        for realm in [
            "3gppnetwork.org",
            "mnc1.mcc234.3gppnetwork.org",
            "mnc015.mcc23.3gppnetwork.org",
            "mncxyz.mcc234.3gppnetwork.org",
        ] {
            assert_eq!(parsed(&format!("0234150999999999@nai.epc.{realm}")).plmn(), None, "{realm}");
        }
    }

    #[test]
    fn debug_does_not_tell_who() {
        assert!(!format!("{:?}", parsed("0234150999999999@x")).contains("234"));
    }

    proptest! {
        #[test]
        fn any_octets_are_a_name_or_none(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Some(nai) = Nai::parse(&octets) {
                prop_assert_eq!(Nai::parse(nai.to_string().as_bytes()), Some(nai));
            }
        }

        #[test]
        fn text_is_a_name_that_can_be_said_again(text in "[0-9a-z!@.\\x00]{1,40}") {
            if let Some(nai) = Nai::parse(text.as_bytes()) {
                prop_assert_eq!(Nai::parse(nai.to_string().as_bytes()), Some(nai));
            }
        }
    }
}
