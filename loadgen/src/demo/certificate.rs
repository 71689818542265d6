//! The certificate of a demo's gateway: made for it, believed by its UEs, gone with it.

use crate::engine::TlsSettings;
use crate::error::Failure;
use crate::ue::GatewayTrust;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};

/// Its name.
const NAME: &str = "gw.demo.test";

/// A certificate that vouches for itself.
pub(crate) struct Certificate {
    /// PEM.
    pub(crate) chain: String,
    /// Its private key, PEM.
    pub(crate) key: String,
}

impl Certificate {
    /// A new one (ECDSA, P-256).
    pub(crate) fn new() -> Result<Self, Failure> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()])
            .map_err(|error| Failure::Environment(format!("making a certificate: {error}")))?;
        Ok(Self { chain: made.cert.pem(), key: made.signing_key.serialize_pem() })
    }

    /// What UEs need to believe it inside IKE.
    pub(super) fn trust(&self) -> Result<GatewayTrust, Failure> {
        let der = CertificateDer::from_pem_slice(self.chain.as_bytes())
            .map_err(|error| Failure::Environment(format!("reading our own certificate: {error}")))?;
        GatewayTrust::new(&[der.to_vec()], UnixTime::now())
            .map_err(|error| Failure::Environment(format!("our own certificate: {error}")))
    }

    /// What UEs need to believe it in TLS.
    pub(super) fn settings(&self) -> Result<TlsSettings, Failure> {
        TlsSettings::new(self.chain.as_bytes(), NAME)
    }
}
