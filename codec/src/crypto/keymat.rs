//! Key derivation: SKEYSEED and SK_* (RFC 7296 §2.14, §2.18), KEYMAT (§2.17).

use super::algorithm::Prf;
use super::dh::SharedSecret;
use super::proposal::IkeSuite;
use super::secret::Secret;
use super::sk::SkKey;
use crate::esp::{EspKeys, EspSuite};
use crate::ike::IkeSpi;

/// The nonces of an exchange.
#[derive(Clone, Copy)]
pub struct SaNonces<'a> {
    /// Ni: from the initiator of the exchange.
    pub initiator: &'a [u8],
    /// Nr: from its responder.
    pub responder: &'a [u8],
}

impl SaNonces<'_> {
    fn concat(&self) -> Vec<u8> {
        [self.initiator, self.responder].concat()
    }
}

/// The seven secrets of an IKE SA.
pub struct IkeKeys {
    /// Source of child keys and of the next IKE SA's.
    pub sk_d: Secret,
    /// Integrity key of messages from the initiator; empty under an AEAD.
    pub sk_ai: Secret,
    /// Integrity key of messages from the responder; empty under an AEAD.
    pub sk_ar: Secret,
    /// Encryption key, with an AEAD's salt, of messages from the initiator.
    pub sk_ei: Secret,
    /// Encryption key, with an AEAD's salt, of messages from the responder.
    pub sk_er: Secret,
    /// Key that binds the initiator's identity into AUTH.
    pub sk_pi: Secret,
    /// Key that binds the responder's identity into AUTH.
    pub sk_pr: Secret,
}

impl IkeKeys {
    /// Keys of a first IKE SA: SKEYSEED = prf(Ni | Nr, g^ir).
    pub fn derive(
        suite: &IkeSuite,
        nonces: SaNonces<'_>,
        shared: &SharedSecret,
        spi_i: IkeSpi,
        spi_r: IkeSpi,
    ) -> Self {
        let skeyseed = suite.prf.compute(&nonces.concat(), &[shared.as_bytes()]);
        Self::expand(suite, &skeyseed, nonces, spi_i, spi_r)
    }

    /// Keys of an IKE SA that replaces one: SKEYSEED = prf(SK_d of the old, g^ir | Ni | Nr), with the prf of
    /// the old SA; the rest with that of the new one (RFC 7296 §2.18).
    pub fn rekey(
        suite: &IkeSuite,
        old_prf: Prf,
        old_sk_d: &Secret,
        nonces: SaNonces<'_>,
        shared: &SharedSecret,
        spi_i: IkeSpi,
        spi_r: IkeSpi,
    ) -> Self {
        Self::rekey_with(suite, old_prf, old_sk_d, nonces, (shared, &[]), spi_i, spi_r)
    }

    /// [`Self::rekey`] with the secrets of additional key exchanges behind that of the first:
    /// SKEYSEED = prf(SK_d of the old, SK(0) | Ni | Nr | SK(1) | … | SK(n)).
    ///
    /// Source: RFC 9370 §2.2.4.
    pub fn rekey_with(
        suite: &IkeSuite,
        old_prf: Prf,
        old_sk_d: &Secret,
        nonces: SaNonces<'_>,
        (shared, additional): (&SharedSecret, &[SharedSecret]),
        spi_i: IkeSpi,
        spi_r: IkeSpi,
    ) -> Self {
        let mut seed = vec![shared.as_bytes(), nonces.initiator, nonces.responder];
        seed.extend(additional.iter().map(Secret::as_bytes));
        let skeyseed = old_prf.compute(old_sk_d.as_bytes(), &seed);
        Self::expand(suite, &skeyseed, nonces, spi_i, spi_r)
    }

    /// Keys after an additional key exchange in IKE_INTERMEDIATE: SKEYSEED(n) = prf(SK_d(n-1), SK(n) | Ni | Nr).
    ///
    /// Source: RFC 9370 §2.2.2.
    pub fn update(
        &self,
        suite: &IkeSuite,
        nonces: SaNonces<'_>,
        shared: &SharedSecret,
        spi_i: IkeSpi,
        spi_r: IkeSpi,
    ) -> Self {
        Self::rekey(suite, suite.prf, &self.sk_d, nonces, shared, spi_i, spi_r)
    }

    /// Keys of an IKE SA that resumes an earlier one: SKEYSEED = prf(SK_d of that, "Resumption" | Ni | Nr).
    ///
    /// Source: RFC 5723 §5.1.
    pub fn resume(
        suite: &IkeSuite,
        old_sk_d: &Secret,
        nonces: SaNonces<'_>,
        spi_i: IkeSpi,
        spi_r: IkeSpi,
    ) -> Self {
        let seed: [&[u8]; 3] = [b"Resumption", nonces.initiator, nonces.responder];
        let skeyseed = suite.prf.compute(old_sk_d.as_bytes(), &seed);
        Self::expand(suite, &skeyseed, nonces, spi_i, spi_r)
    }

    /// These keys with a post-quantum pre-shared key in those that later ones come from: SK_d, SK_pi and SK_pr become
    /// prf+(PPK, what they were).
    ///
    /// Source: RFC 8784 §3.
    pub fn with_ppk(&self, prf: Prf, ppk: &[u8]) -> Self {
        let mixed = |secret: &Secret| prf.plus(ppk, secret.as_bytes(), prf.output_len());
        Self {
            sk_d: mixed(&self.sk_d),
            sk_ai: self.sk_ai.clone(),
            sk_ar: self.sk_ar.clone(),
            sk_ei: self.sk_ei.clone(),
            sk_er: self.sk_er.clone(),
            sk_pi: mixed(&self.sk_pi),
            sk_pr: mixed(&self.sk_pr),
        }
    }

    /// Key of messages that the original initiator sends.
    pub fn initiator_key(&self, suite: &IkeSuite) -> SkKey {
        SkKey::new(suite, &self.sk_ei, &self.sk_ai)
    }

    /// Key of messages that the original responder sends.
    pub fn responder_key(&self, suite: &IkeSuite) -> SkKey {
        SkKey::new(suite, &self.sk_er, &self.sk_ar)
    }

    fn expand(
        suite: &IkeSuite,
        skeyseed: &Secret,
        nonces: SaNonces<'_>,
        spi_i: IkeSpi,
        spi_r: IkeSpi,
    ) -> Self {
        let seed = [nonces.initiator, nonces.responder, &spi_i.0, &spi_r.0].concat();
        let lens = suite.key_lens();
        let total = 3 * suite.prf.output_len() + 2 * (lens.encr + lens.integ);
        let keymat = suite.prf.plus(skeyseed.as_bytes(), &seed, total);
        let mut rest = keymat.as_bytes();
        let mut take = |len: usize| {
            let (taken, left) = rest.split_at(len);
            rest = left;
            Secret::from(taken)
        };
        // RFC 7296 §2.14: {SK_d | SK_ai | SK_ar | SK_ei | SK_er | SK_pi | SK_pr}.
        Self {
            sk_d: take(suite.prf.output_len()),
            sk_ai: take(lens.integ),
            sk_ar: take(lens.integ),
            sk_ei: take(lens.encr),
            sk_er: take(lens.encr),
            sk_pi: take(suite.prf.output_len()),
            sk_pr: take(suite.prf.output_len()),
        }
    }
}

/// Keys of a Child SA pair by who sends under them.
pub struct ChildKeymat {
    /// For packets from the initiator of the exchange to its responder.
    pub initiator: EspKeys,
    /// For packets from the responder of the exchange to its initiator.
    pub responder: EspKeys,
}

/// KEYMAT = prf+(SK_d, g^ir (new) | Ni | Nr), where `shared` is there with PFS only. Keys of the direction
/// from the initiator come first, and encryption before integrity.
///
/// Source: RFC 7296 §2.17.
///
/// # Panics
/// If `suite` pairs its algorithms wrongly; one that was negotiated never does.
pub fn child_keymat(
    prf: Prf,
    sk_d: &Secret,
    shared: Option<&SharedSecret>,
    nonces: SaNonces<'_>,
    suite: &EspSuite,
) -> ChildKeymat {
    child_keymat_with(prf, sk_d, (shared, &[]), nonces, suite)
}

/// [`child_keymat`] with the secrets of additional key exchanges:
/// KEYMAT = prf+(SK_d, SK(0) | Ni | Nr | SK(1) | … | SK(n)).
///
/// Source: RFC 9370 §2.2.4.
///
/// # Panics
/// As [`child_keymat`].
pub fn child_keymat_with(
    prf: Prf,
    sk_d: &Secret,
    (shared, additional): (Option<&SharedSecret>, &[SharedSecret]),
    nonces: SaNonces<'_>,
    suite: &EspSuite,
) -> ChildKeymat {
    let shared = shared.map_or(&[][..], Secret::as_bytes);
    let mut parts = vec![shared, nonces.initiator, nonces.responder];
    parts.extend(additional.iter().map(Secret::as_bytes));
    let seed = Secret::new(parts.concat());
    let keymat = prf.plus(sk_d.as_bytes(), seed.as_bytes(), 2 * suite.keymat_len());
    let (initiator, responder) = keymat.as_bytes().split_at(suite.keymat_len());
    let keys = |keymat| EspKeys::new(suite, keymat).expect("a negotiated suite, and its keymat_len octets");
    ChildKeymat { initiator: keys(initiator), responder: keys(responder) }
}
