//! The certificate of a demo's gateway: made for it, believed by its UEs, gone with it.

use crate::engine::TlsSettings;
use crate::error::Failure;

/// Its name.
const NAME: &str = "gw.demo.test";

/// A certificate that vouches for itself.
pub(super) struct Certificate {
    /// PEM.
    pub(super) chain: String,
    /// Its private key, PEM.
    pub(super) key: String,
}

impl Certificate {
    /// A new one (ECDSA, P-256).
    pub(super) fn new() -> Result<Self, Failure> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()])
            .map_err(|error| Failure::Environment(format!("making a certificate: {error}")))?;
        Ok(Self { chain: made.cert.pem(), key: made.signing_key.serialize_pem() })
    }

    /// What UEs need to believe it.
    pub(super) fn settings(&self) -> Result<TlsSettings, Failure> {
        TlsSettings::new(self.chain.as_bytes(), NAME)
    }
}
