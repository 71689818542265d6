//! Proposals as an operator writes them, in strongSwan's keywords, and the suites they become.

use std::fmt;
use std::str::FromStr;

use super::algorithm::{Negotiable, Prf};
use super::dh::LEGACY_GROUPS;
use crate::esp::{EspCipher, EspInteg, EspSuite};
use crate::ike::payload::Transform;
use crate::ike::{EsnId, KeGroup, TransformType};

/// The algorithms of one IKE SA. Its `Display` is the proposal in strongSwan's keywords.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct IkeSuite {
    /// Encryption of the SK payload.
    pub cipher: EspCipher,
    /// Integrity of the SK payload: present exactly when the cipher is CBC.
    pub integ: Option<EspInteg>,
    /// Pseudorandom function.
    pub prf: Prf,
    /// Key exchange group.
    pub group: KeGroup,
}

/// Additional key exchanges of one IKE SA (RFC 9370 §2.2.1).
pub const ADDITIONAL_MAX: usize = 7;

/// The methods of the additional key exchanges of one IKE SA by transform type, ADDKE1 first; NONE where there is
/// none. Its `Display` follows a suite's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Additional(pub [KeGroup; ADDITIONAL_MAX]);

impl Additional {
    /// No additional key exchange.
    pub const NONE: Self = Self([KeGroup::NONE; ADDITIONAL_MAX]);

    /// The methods that are to be run, in their order.
    pub fn methods(&self) -> impl Iterator<Item = KeGroup> + use<> {
        self.0.into_iter().filter(|method| *method != KeGroup::NONE)
    }
}

impl fmt::Display for Additional {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, method) in (1..).zip(self.0).filter(|(_, method)| *method != KeGroup::NONE) {
            write!(f, "-ke{number}_{}", group_keyword(method))?;
        }
        Ok(())
    }
}

/// The transform of additional key exchange `slot`, 0 to 6.
pub(crate) fn additional_transform(slot: usize, method: KeGroup) -> Transform {
    Transform::new(TransformType(TransformType::ADDKE1.0 + slot as u8), method.0)
}

/// Octets of the keys of one direction.
pub(crate) struct KeyLens {
    pub(crate) encr: usize,
    pub(crate) integ: usize,
}

impl IkeSuite {
    /// Octets of SK_e (with an AEAD's salt) and SK_a. An AEAD takes no SK_a (RFC 5282 §7.1).
    pub(crate) fn key_lens(&self) -> KeyLens {
        let suite = EspSuite { cipher: self.cipher, integ: self.integ, esn: false };
        KeyLens { encr: suite.encr_key_len(), integ: suite.integ_key_len() }
    }

    /// The transforms of the suite, as the answer to an offer lists them.
    pub fn transforms(&self) -> Vec<Transform> {
        let mut transforms = vec![self.cipher.transform()];
        transforms.extend(self.integ.map(Negotiable::transform));
        transforms.extend([self.prf.transform(), self.group.transform()]);
        transforms
    }
}

impl IkeSuite {
    /// Whether its group is one of [`LEGACY_GROUPS`].
    pub fn has_legacy_group(&self) -> bool {
        LEGACY_GROUPS.contains(&self.group)
    }

    /// Whether 3DES protects its messages (RFC 8247 §2.1).
    pub fn has_triple_des(&self) -> bool {
        self.cipher == EspCipher::TripleDesCbc
    }

    /// Whether SHA-1 is its PRF or protects its messages (RFC 8247 §2.2, §2.3).
    pub fn has_sha1(&self) -> bool {
        self.prf == Prf::HmacSha1 || self.integ == Some(EspInteg::HmacSha1_96)
    }
}

impl fmt::Display for IkeSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.cipher.keyword())?;
        if let Some(integ) = self.integ {
            write!(f, "-{}", integ.keyword())?;
        }
        let implied = self.integ.map(Prf::of_integ) == Some(self.prf);
        if !implied {
            write!(f, "-{}", self.prf.keyword())?;
        }
        write!(f, "-{}", group_keyword(self.group))
    }
}

/// One entry of a profile's `ike` list: alternatives of each kind in order of preference.
///
/// Text form: keywords joined by `-`, such as `aes256-sha256-modp2048` or
/// `aes128gcm16-prfsha256-x25519-ecp256`. Ciphers are either all AEADs or all not. Without a PRF keyword the
/// PRFs are those of the integrity keywords.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IkeProposal {
    ciphers: Vec<EspCipher>,
    integs: Vec<EspInteg>,
    prfs: Vec<Prf>,
    groups: Vec<KeGroup>,
    additional: [Vec<KeGroup>; ADDITIONAL_MAX],
}

impl IkeProposal {
    /// Ciphers in order of preference; never empty.
    pub fn ciphers(&self) -> &[EspCipher] {
        &self.ciphers
    }

    /// Integrity algorithms in order of preference; empty exactly when the ciphers are AEADs.
    pub fn integs(&self) -> &[EspInteg] {
        &self.integs
    }

    /// Pseudorandom functions in order of preference; never empty.
    pub fn prfs(&self) -> &[Prf] {
        &self.prfs
    }

    /// Groups in order of preference; never empty.
    pub fn groups(&self) -> &[KeGroup] {
        &self.groups
    }

    /// The suite of the first algorithm of each kind, and the first additional key exchanges: what a proposal with one
    /// of each stands for, such as a suite's own text.
    pub fn first_suite(&self) -> Option<(IkeSuite, Additional)> {
        let suite = IkeSuite {
            cipher: *self.ciphers.first()?,
            integ: self.integs.first().copied(),
            prf: *self.prfs.first()?,
            group: *self.groups.first()?,
        };
        let additional =
            self.additional.each_ref().map(|list| list.first().copied().unwrap_or(KeGroup::NONE));
        Some((suite, Additional(additional)))
    }

    /// Methods of the additional key exchange `slot`, 0 to 6, in order of preference; NONE makes it optional, and
    /// an empty list means that there is none.
    pub fn additional(&self, slot: usize) -> &[KeGroup] {
        self.additional.get(slot).map(Vec::as_slice).unwrap_or_default()
    }

    /// All lists of [`Self::additional`].
    pub(crate) fn additional_lists(&self) -> &[Vec<KeGroup>; ADDITIONAL_MAX] {
        &self.additional
    }

    /// Whether the proposal allows these additional key exchanges.
    pub fn allows_additional(&self, chosen: &Additional) -> bool {
        self.additional
            .iter()
            .zip(chosen.0)
            .all(|(list, method)| list.contains(&method) || (list.is_empty() && method == KeGroup::NONE))
    }

    /// Whether the proposal allows `suite`.
    pub fn allows(&self, suite: &IkeSuite) -> bool {
        self.ciphers.contains(&suite.cipher)
            && suite.integ.map_or(self.integs.is_empty(), |integ| self.integs.contains(&integ))
            && self.prfs.contains(&suite.prf)
            && self.groups.contains(&suite.group)
    }

    /// All transforms but those of additional key exchanges, for an offer.
    pub fn plain_transforms(&self) -> Vec<Transform> {
        let mut transforms = transforms(&self.ciphers);
        transforms.extend(self::transforms(&self.integs));
        transforms.extend(self::transforms(&self.prfs));
        transforms.extend(self::transforms(&self.groups));
        transforms
    }

    /// All transforms, for an offer.
    pub fn transforms(&self) -> Vec<Transform> {
        let mut transforms = self.plain_transforms();
        for (slot, list) in self.additional.iter().enumerate() {
            transforms.extend(list.iter().map(|method| additional_transform(slot, *method)));
        }
        transforms
    }
}

/// One entry of a profile's `esp` list: alternatives of each kind in order of preference.
///
/// Text form: as [`IkeProposal`], without PRF, with `esn` or `noesn` or both; without either both are
/// accepted and ESN is preferred. Groups make PFS a must in CREATE_CHILD_SA, and additional key exchanges go with them
/// (RFC 9370 §2.2.4); IKE_AUTH has neither.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EspProposal {
    ciphers: Vec<EspCipher>,
    integs: Vec<EspInteg>,
    groups: Vec<KeGroup>,
    additional: [Vec<KeGroup>; ADDITIONAL_MAX],
    esn: Vec<EsnId>,
}

impl EspProposal {
    /// Methods of additional key exchanges, as [`IkeProposal::additional`] has them.
    pub(crate) fn additional(&self) -> &[Vec<KeGroup>; ADDITIONAL_MAX] {
        &self.additional
    }

    /// Whether a Child SA of CREATE_CHILD_SA may do without additional key exchanges.
    pub fn allows_plain(&self) -> bool {
        self.additional.iter().all(|list| list.is_empty() || list.contains(&KeGroup::NONE))
    }

    /// Ciphers in order of preference; never empty.
    pub fn ciphers(&self) -> &[EspCipher] {
        &self.ciphers
    }

    /// Integrity algorithms in order of preference; empty exactly when the ciphers are AEADs.
    pub fn integs(&self) -> &[EspInteg] {
        &self.integs
    }

    /// Groups in order of preference; empty when PFS is not required.
    pub fn groups(&self) -> &[KeGroup] {
        &self.groups
    }

    /// Sequence number sizes in order of preference; never empty.
    pub fn esn(&self) -> &[EsnId] {
        &self.esn
    }

    /// All transforms, those of additional key exchanges included, for an offer in CREATE_CHILD_SA.
    pub fn all_transforms(&self) -> Vec<Transform> {
        let mut transforms = self.transforms(&self.groups);
        for (slot, list) in self.additional.iter().enumerate() {
            transforms.extend(list.iter().map(|method| additional_transform(slot, *method)));
        }
        transforms
    }

    /// All transforms but those, for an offer; `groups` are left out of IKE_AUTH (RFC 7296 §1.2).
    pub fn transforms(&self, groups: &[KeGroup]) -> Vec<Transform> {
        let mut transforms = transforms(&self.ciphers);
        transforms.extend(self::transforms(&self.integs));
        transforms.extend(self::transforms(groups));
        transforms.extend(self::transforms(&self.esn));
        transforms
    }
}

fn transforms<T: Negotiable>(algorithms: &[T]) -> Vec<Transform> {
    algorithms.iter().map(|algorithm| algorithm.transform()).collect()
}

/// Why a proposal's text is not one. The message says what is allowed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProposalError {
    /// A keyword that is not known, or not where it stands.
    #[error("\"{keyword}\" is not allowed here; allowed: {allowed}")]
    UnknownKeyword {
        /// The keyword at fault.
        keyword: String,
        /// Keywords that may stand there.
        allowed: String,
    },
    /// The same keyword twice.
    #[error("\"{0}\" appears twice")]
    Repeated(String),
    /// No cipher.
    #[error("no encryption algorithm; add one of {CIPHER_KEYWORDS_TEXT}")]
    NoCipher,
    /// AEADs and other ciphers in one proposal.
    #[error("AES-GCM or ChaCha20 beside AES-CBC; write two proposals")]
    MixedCiphers,
    /// An integrity algorithm beside an AEAD.
    #[error("\"{0}\" beside an AEAD, which needs no integrity algorithm; write prf{0} if the PRF is meant")]
    NeedlessInteg(&'static str),
    /// A CBC cipher alone.
    #[error("AES-CBC needs an integrity algorithm; add one of sha1, sha256, sha384, sha512")]
    NoInteg,
    /// No PRF can be told.
    #[error("an AEAD needs a PRF; add one of prfsha1, prfsha256, prfsha384, prfsha512")]
    NoPrf,
    /// No group for an IKE SA.
    #[error("no key exchange group; add one of {GROUP_KEYWORDS_TEXT}")]
    NoGroup,
}

const CIPHER_KEYWORDS_TEXT: &str = "aes128, aes192, aes256, aes128gcm16, aes256gcm16, chacha20poly1305";
const GROUP_KEYWORDS_TEXT: &str = "modp2048, modp3072, modp4096, ecp256, ecp384, ecp521, curve25519, x25519, \
    mlkem512, mlkem768, mlkem1024";
const IKE_KEYWORDS_TEXT: &str = "aes128, aes192, aes256, aes128gcm16, aes256gcm16, chacha20poly1305, \
    sha1, sha256, sha384, sha512, prfsha1, prfsha256, prfsha384, prfsha512, \
    modp2048, modp3072, modp4096, ecp256, ecp384, ecp521, curve25519, x25519, mlkem512, mlkem768, mlkem1024, \
    ke1_… to ke7_… followed by one of these groups or none; \
    for peers that have nothing better 3des, modp768, modp1024, modp1536";
const ESP_KEYWORDS_TEXT: &str = "aes128, aes192, aes256, aes128gcm16, aes256gcm16, chacha20poly1305, \
    sha1, sha256, sha384, sha512, \
    modp2048, modp3072, modp4096, ecp256, ecp384, ecp521, curve25519, x25519, \
    ke1_… to ke7_… followed by one of these groups, an ML-KEM or none, esn, noesn; \
    for peers that have nothing better 3des, modp768, modp1024, modp1536";

/// One keyword's meaning.
enum Keyword {
    Cipher(EspCipher),
    Integ(EspInteg),
    Prf(Prf),
    Group(KeGroup),
    Additional(usize, KeGroup),
    Esn(EsnId),
}

fn keyword(word: &str) -> Option<Keyword> {
    if let Some((number, method)) = word.strip_prefix("ke").and_then(|rest| rest.split_once('_')) {
        let slot = number.parse::<usize>().ok()?.checked_sub(1).filter(|slot| *slot < ADDITIONAL_MAX)?;
        let method = match method {
            "none" => KeGroup::NONE,
            _ => group(method)?,
        };
        return Some(Keyword::Additional(slot, method));
    }
    if let Some(group) = group(word) {
        return Some(Keyword::Group(group));
    }
    Some(match word {
        "aes128" => Keyword::Cipher(EspCipher::Aes128Cbc),
        "3des" => Keyword::Cipher(EspCipher::TripleDesCbc),
        "aes192" => Keyword::Cipher(EspCipher::Aes192Cbc),
        "aes256" => Keyword::Cipher(EspCipher::Aes256Cbc),
        "aes128gcm16" | "aes128gcm128" | "aes128gcm" => Keyword::Cipher(EspCipher::Aes128Gcm16),
        "aes256gcm16" | "aes256gcm128" | "aes256gcm" => Keyword::Cipher(EspCipher::Aes256Gcm16),
        "chacha20poly1305" => Keyword::Cipher(EspCipher::ChaCha20Poly1305),
        "sha1" => Keyword::Integ(EspInteg::HmacSha1_96),
        "sha256" | "sha2_256" => Keyword::Integ(EspInteg::HmacSha2_256_128),
        "sha384" | "sha2_384" => Keyword::Integ(EspInteg::HmacSha2_384_192),
        "sha512" | "sha2_512" => Keyword::Integ(EspInteg::HmacSha2_512_256),
        "prfsha1" => Keyword::Prf(Prf::HmacSha1),
        "prfsha256" => Keyword::Prf(Prf::HmacSha2_256),
        "prfsha384" => Keyword::Prf(Prf::HmacSha2_384),
        "prfsha512" => Keyword::Prf(Prf::HmacSha2_512),
        "esn" => Keyword::Esn(EsnId::ESN),
        "noesn" => Keyword::Esn(EsnId::NO_ESN),
        _ => return None,
    })
}

/// A key exchange method by its keyword.
fn group(word: &str) -> Option<KeGroup> {
    Some(match word {
        "modp768" => KeGroup::MODP_768,
        "modp1024" => KeGroup::MODP_1024,
        "modp1536" => KeGroup::MODP_1536,
        "modp2048" => KeGroup::MODP_2048,
        "modp3072" => KeGroup::MODP_3072,
        "modp4096" => KeGroup::MODP_4096,
        "ecp256" => KeGroup::ECP_256,
        "ecp384" => KeGroup::ECP_384,
        "ecp521" => KeGroup::ECP_521,
        "curve25519" | "x25519" => KeGroup::CURVE25519,
        "mlkem512" => KeGroup::ML_KEM_512,
        "mlkem768" => KeGroup::ML_KEM_768,
        "mlkem1024" => KeGroup::ML_KEM_1024,
        _ => return None,
    })
}

fn group_keyword(group: KeGroup) -> &'static str {
    match group {
        KeGroup::MODP_768 => "modp768",
        KeGroup::MODP_1024 => "modp1024",
        KeGroup::MODP_1536 => "modp1536",
        KeGroup::MODP_2048 => "modp2048",
        KeGroup::MODP_3072 => "modp3072",
        KeGroup::MODP_4096 => "modp4096",
        KeGroup::ECP_256 => "ecp256",
        KeGroup::ECP_384 => "ecp384",
        KeGroup::ECP_521 => "ecp521",
        KeGroup::CURVE25519 => "x25519",
        KeGroup::ML_KEM_512 => "mlkem512",
        KeGroup::ML_KEM_768 => "mlkem768",
        KeGroup::ML_KEM_1024 => "mlkem1024",
        _ => "none",
    }
}

/// What the keywords of one text said, by kind.
#[derive(Default)]
struct Parsed {
    ciphers: Vec<EspCipher>,
    integs: Vec<EspInteg>,
    prfs: Vec<Prf>,
    groups: Vec<KeGroup>,
    additional: [Vec<KeGroup>; ADDITIONAL_MAX],
    esn: Vec<EsnId>,
}

impl Parsed {
    /// Sorts the keywords of `text`; `serves` says which kinds may stand there.
    fn parse(text: &str, serves: fn(&Keyword) -> bool, allowed: &str) -> Result<Self, ProposalError> {
        let mut parsed = Self::default();
        for word in text.split('-').map(str::trim) {
            let keyword = keyword(&word.to_ascii_lowercase()).filter(serves).ok_or_else(|| {
                ProposalError::UnknownKeyword { keyword: word.into(), allowed: allowed.into() }
            })?;
            let added = match keyword {
                Keyword::Cipher(cipher) => add(&mut parsed.ciphers, cipher),
                Keyword::Integ(integ) => add(&mut parsed.integs, integ),
                Keyword::Prf(prf) => add(&mut parsed.prfs, prf),
                Keyword::Group(group) => add(&mut parsed.groups, group),
                Keyword::Additional(slot, method) => add(&mut parsed.additional[slot], method),
                Keyword::Esn(esn) => add(&mut parsed.esn, esn),
            };
            if !added {
                return Err(ProposalError::Repeated(word.into()));
            }
        }
        parsed.check_ciphers()?;
        Ok(parsed)
    }

    /// RFC 7296 §3.3: an AEAD stands without integrity, anything else with; never mixed (RFC 5282 §8).
    fn check_ciphers(&self) -> Result<(), ProposalError> {
        let aead_count = self.ciphers.iter().filter(|cipher| cipher.is_aead()).count();
        match (aead_count, self.ciphers.len(), self.integs.first()) {
            (_, 0, _) => Err(ProposalError::NoCipher),
            (0, _, None) => Err(ProposalError::NoInteg),
            (0, _, Some(_)) => Ok(()),
            (aeads, all, _) if aeads != all => Err(ProposalError::MixedCiphers),
            (_, _, Some(integ)) => Err(ProposalError::NeedlessInteg(integ.keyword())),
            (_, _, None) => Ok(()),
        }
    }
}

/// Appends unless already there.
fn add<T: PartialEq>(list: &mut Vec<T>, item: T) -> bool {
    let new = !list.contains(&item);
    if new {
        list.push(item);
    }
    new
}

impl FromStr for IkeProposal {
    type Err = ProposalError;

    fn from_str(text: &str) -> Result<Self, ProposalError> {
        let parsed = Parsed::parse(text, |keyword| !matches!(keyword, Keyword::Esn(_)), IKE_KEYWORDS_TEXT)?;
        let Parsed { ciphers, integs, mut prfs, groups, additional, .. } = parsed;
        if prfs.is_empty() {
            prfs = integs.iter().map(|integ| Prf::of_integ(*integ)).collect();
        }
        if prfs.is_empty() {
            return Err(ProposalError::NoPrf);
        }
        if groups.is_empty() {
            return Err(ProposalError::NoGroup);
        }
        Ok(Self { ciphers, integs, prfs, groups, additional })
    }
}

impl FromStr for EspProposal {
    type Err = ProposalError;

    fn from_str(text: &str) -> Result<Self, ProposalError> {
        let parsed = Parsed::parse(text, |keyword| !matches!(keyword, Keyword::Prf(_)), ESP_KEYWORDS_TEXT)?;
        let Parsed { ciphers, integs, groups, additional, mut esn, .. } = parsed;
        if groups.is_empty() && additional.iter().any(|list| !list.is_empty()) {
            return Err(ProposalError::NoGroup);
        }
        if esn.is_empty() {
            esn = vec![EsnId::ESN, EsnId::NO_ESN];
        }
        Ok(Self { ciphers, integs, groups, additional, esn })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_become_alternatives_in_order() {
        let proposal: IkeProposal =
            "aes256-aes128-sha256-sha1-x25519-modp2048".parse().expect("valid keywords");
        assert_eq!(proposal.ciphers(), [EspCipher::Aes256Cbc, EspCipher::Aes128Cbc]);
        assert_eq!(proposal.prfs(), [Prf::HmacSha2_256, Prf::HmacSha1], "the PRF follows the integrity");
        assert_eq!(proposal.groups(), [KeGroup::CURVE25519, KeGroup::MODP_2048]);
        let proposal: IkeProposal = "aes128-sha1-prfsha512-ecp256".parse().expect("valid keywords");
        assert_eq!(proposal.prfs(), [Prf::HmacSha2_512]);
    }

    #[test]
    fn esn_defaults_to_both_with_esn_preferred() {
        let esn = |text: &str| text.parse::<EspProposal>().expect("valid keywords").esn;
        assert_eq!(esn("aes128gcm16"), [EsnId::ESN, EsnId::NO_ESN]);
        assert_eq!(esn("aes128gcm16-noesn"), [EsnId::NO_ESN]);
        assert_eq!(esn("aes128gcm16-noesn-esn"), [EsnId::NO_ESN, EsnId::ESN]);
    }

    #[test]
    fn errors_name_the_keyword_and_what_is_allowed() {
        let ike = |text: &str| text.parse::<IkeProposal>().expect_err("invalid").to_string();
        assert!(
            ike("aes128-sha256-modp1025").starts_with("\"modp1025\" is not allowed here; allowed: aes128,")
        );
        assert!(ike("aes128-sha256-modp2048-esn").starts_with("\"esn\" is not allowed"));
        assert!(ike("aes128gcm16-x25519").contains("prfsha256"));
        assert!(ike("aes128gcm16-sha256-x25519").contains("prfsha256"));
        assert!(ike("aes128-modp2048").contains("sha256"));
        assert!(ike("aes128-sha256").contains("x25519"));
        assert!(ike("aes128-aes128gcm16-sha256-prfsha1-x25519").contains("two proposals"));
        assert!(ike("aes128-sha256-sha256-x25519").contains("twice"));
        assert!(ike("sha256-modp2048").contains("aes128gcm16"));
        assert!(ike("").starts_with("\"\""));
        let esp = |text: &str| text.parse::<EspProposal>().expect_err("invalid").to_string();
        assert!(esp("aes128gcm16-prfsha256").starts_with("\"prfsha256\" is not allowed"));
    }

    #[test]
    fn r9370_2_2_1_additional_key_exchanges_have_their_places() {
        let text = "aes256gcm16-prfsha384-x25519-ke1_mlkem768-ke1_mlkem1024-ke3_none-ke3_ecp384";
        let proposal: IkeProposal = text.parse().expect("valid keywords");
        assert_eq!(proposal.additional(0), [KeGroup::ML_KEM_768, KeGroup::ML_KEM_1024]);
        assert_eq!(proposal.additional(1), []);
        assert_eq!(proposal.additional(2), [KeGroup::NONE, KeGroup::ECP_384]);
        let mut chosen = Additional::NONE;
        assert!(!proposal.allows_additional(&chosen));
        chosen.0[0] = KeGroup::ML_KEM_768;
        assert!(proposal.allows_additional(&chosen));
        assert_eq!(chosen.to_string(), "-ke1_mlkem768");
        for bad in ["ke0_mlkem768", "ke8_mlkem768", "ke1_", "ke_mlkem768", "ke1_modp1025"] {
            let text = format!("aes256gcm16-prfsha384-x25519-{bad}");
            assert!(text.parse::<IkeProposal>().is_err(), "{bad}");
        }
        assert!("aes256gcm16-ke1_mlkem768".parse::<EspProposal>().is_err(), "without a first key exchange");
        let esp: EspProposal = "aes256gcm16-x25519-ke1_mlkem768".parse().expect("valid keywords");
        assert!(!esp.allows_plain() && esp.additional()[0] == [KeGroup::ML_KEM_768]);
    }

    #[test]
    fn suites_read_as_proposals() {
        for text in ["aes128gcm16-prfsha256-x25519", "aes256-sha256-modp2048", "aes192-sha1-prfsha512-ecp521"]
        {
            let proposal: IkeProposal = text.parse().expect("valid keywords");
            let suite = IkeSuite {
                cipher: proposal.ciphers[0],
                integ: proposal.integs.first().copied(),
                prf: proposal.prfs[0],
                group: proposal.groups[0],
            };
            assert_eq!(suite.to_string(), text);
            assert!(proposal.allows(&suite));
            assert!(!proposal.allows(&IkeSuite { group: KeGroup::MODP_4096, ..suite }));
        }
    }
}
