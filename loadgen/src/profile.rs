//! Handsets as data: the files of `deploy/handsets`, which are built in.

use crate::cli::Auth;
use crate::error::Failure;
use crate::ue::{Handset, Identity};
use codec::ike::{CfgAttrType, IdType};
use serde::Deserialize;
use std::time::Duration;

macro_rules! files {
    ($($name:literal),+ $(,)?) => {
        [$(($name, include_str!(concat!("../../deploy/handsets/", $name, ".toml")))),+]
    };
}

/// Name and text of each.
const FILES: [(&str, &str); 8] = files![
    "apple-2023",
    "apple-2023-legacy",
    "oppo-2023",
    "pixel-2023",
    "qualcomm-2023",
    "samsung-2023",
    "touchy",
    "xiaomi-2023",
];

/// A handset as its file describes it; `deploy/handsets/README.md` explains the keys.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Name of the file.
    #[serde(skip)]
    pub name: &'static str,
    /// One line about it.
    pub about: String,
    auth: Method,
    /// IKE proposals.
    pub ike: Vec<String>,
    /// ESP proposals.
    pub esp: Vec<String>,
    idr: ApnForm,
    ask: Vec<u16>,
    #[serde(default)]
    need: Vec<u16>,
    pdu_session: Option<u8>,
    #[serde(default)]
    p_cscf_reselection: bool,
    /// Whether it offers to do without the gateway's certificate.
    #[serde(default)]
    pub eap_only: bool,
    #[serde(default)]
    fakes_nat: bool,
    #[serde(default)]
    fragmentation: bool,
    #[serde(default)]
    fears_cookies: bool,
    #[serde(default)]
    fears_single_fragment: bool,
    #[serde(default)]
    empty_delete_response: bool,
    dpd_s: Option<u64>,
    rekey_ike_s: Option<u64>,
    rekey_child_s: Option<u64>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Method {
    EapAka,
    EapAkaPrime,
}

/// How IDr carries the APN.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ApnForm {
    Fqdn,
    KeyId,
}

impl Profile {
    /// Every profile, by name.
    pub fn all() -> impl Iterator<Item = Self> {
        FILES.iter().map(|(name, text)| {
            let profile: Self = toml::from_str(text).expect("the tests read every file that is built in");
            Self { name, ..profile }
        })
    }

    /// The profile of that name.
    ///
    /// # Errors
    /// [`Failure::Usage`] with all names.
    pub fn find(name: &str) -> Result<Self, Failure> {
        Self::all().find(|profile| profile.name == name).ok_or_else(|| {
            let names: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
            Failure::Usage(format!("--profile {name}: one of {}", names.join(", ")))
        })
    }

    /// Its kind of authentication.
    pub fn auth(&self) -> Auth {
        match self.auth {
            Method::EapAka => Auth::EapAka,
            Method::EapAkaPrime => Auth::EapAkaPrime,
        }
    }

    /// An APN as it sends it in IDr.
    pub fn idr(&self, apn: &str) -> Identity {
        let kind = match self.idr {
            ApnForm::Fqdn => IdType::FQDN,
            ApnForm::KeyId => IdType::KEY_ID,
        };
        Identity { kind, data: apn.as_bytes().to_vec() }
    }

    /// After how long without traffic it asks whether the gateway lives.
    pub fn dpd(&self) -> Option<Duration> {
        self.dpd_s.map(Duration::from_secs)
    }

    /// What it does on the wire.
    pub fn handset(&self) -> Handset {
        let kinds = |numbers: &[u16]| numbers.iter().map(|number| CfgAttrType(*number)).collect();
        Handset {
            asks: kinds(&self.ask),
            needs: kinds(&self.need),
            pdu_session: self.pdu_session,
            p_cscf_reselection: self.p_cscf_reselection,
            fakes_nat: self.fakes_nat,
            fragmentation: self.fragmentation,
            fears_single_fragment: self.fears_single_fragment,
            fears_cookies: self.fears_cookies,
            empty_delete_response: self.empty_delete_response,
            rekey_child: self.rekey_child_s.map(Duration::from_secs),
            rekey_ike: self.rekey_ike_s.map(Duration::from_secs),
        }
    }

    /// What it has of quirks and figures, in words for the list.
    pub fn summary(&self) -> String {
        let time = |seconds: Option<u64>| seconds.map_or("-".into(), |seconds| format!("{seconds} s"));
        let mut words = vec![
            match self.auth {
                Method::EapAka => "EAP-AKA".to_owned(),
                Method::EapAkaPrime => "EAP-AKA'".to_owned(),
            },
            format!("rekeys IKE after {}, ESP after {}", time(self.rekey_ike_s), time(self.rekey_child_s)),
            format!("DPD {}", time(self.dpd_s)),
        ];
        words.extend((!self.need.is_empty()).then(|| format!("needs {:?}", self.need)));
        words.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use codec::crypto::{EspProposal, IkeProposal};

    #[test]
    fn every_file_is_built_in_and_makes_sense() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/handsets");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let files = files.filter(|name| name.to_string_lossy().ends_with(".toml")).count();
        assert_eq!(files, FILES.len());
        for profile in Profile::all() {
            let name = profile.name;
            assert!(profile.ike.iter().all(|text| text.parse::<IkeProposal>().is_ok()), "{name}");
            assert!(profile.esp.iter().all(|text| text.parse::<EspProposal>().is_ok()), "{name}");
            assert!(
                profile.need.iter().all(|kind| profile.ask.contains(kind)),
                "{name} needs what it asks for"
            );
        }
    }

    #[test]
    fn an_unknown_name_lists_the_known() {
        let error = Profile::find("nokia-3310").unwrap_err().to_string();
        assert!(error.contains("samsung-2023") && error.contains("apple-2023"), "{error}");
        assert_eq!(Profile::find("samsung-2023").unwrap().idr("ims").kind, IdType::KEY_ID);
    }
}
