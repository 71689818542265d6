//! Certificates, keys and what of TLS is offered.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::crypto::aws_lc_rs::{self, Ticketer};
use rustls::server::{NoServerSessionStorage, UnbufferedServerConnection};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::Session;

/// Tickets for one client connection (RFC 8446 §4.6.1): each reconnect uses one up and gets another.
const TICKETS: usize = 1;

/// Tickets a client remembers.
const RESUMABLE: usize = 32;

/// Why there is nothing to offer TLS with.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The certificate chain cannot be used.
    #[error("{0}")]
    Chain(String),
    /// The private key cannot be used, or is of another certificate.
    #[error("{0}")]
    Key(String),
    /// No certificate of an authority.
    #[error("{0}")]
    Authorities(String),
    /// The name is no host's.
    #[error("{0}")]
    Name(String),
}

/// What a listener offers. Cheap to clone; a connection keeps the one it began with.
#[derive(Clone, Debug)]
pub struct TlsServer(Arc<ServerConfig>);

/// What a client asks for.
#[derive(Clone, Debug)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl TlsServer {
    /// Offers the certificate `chain`, leaf first, and its `key`, both PEM.
    ///
    /// # Errors
    /// When either is not that, or they do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, SettingsError> {
        let chain = certificates(chain).map_err(SettingsError::Chain)?;
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|error| SettingsError::Key(error.to_string()))?;
        let failed = |error: rustls::Error| SettingsError::Key(error.to_string());
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            // RFC 9325 §3.1: 1.3 and 1.2, nothing older. The provider's suites of 1.2 are those of its §4.2.
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(failed)?
            // RFC 9329 Appendix B.1: IKE authenticates the client.
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(failed)?;
        // Tickets carry the state, and any worker can open them: nothing is kept per client.
        config.ticketer = Ticketer::new().map_err(failed)?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = TICKETS;
        // RFC 9325 §3.3: early data could be replayed, and would spare no round trip of IKE's.
        config.max_early_data_size = 0;
        Ok(Self(Arc::new(config)))
    }

    /// This certificate, with the ticket keys of `running`: clients of before resume.
    pub fn with_tickets_of(&self, running: &Self) -> Self {
        let mut config = ServerConfig::clone(&self.0);
        config.ticketer = running.0.ticketer.clone();
        Self(Arc::new(config))
    }

    /// The server's end of a new connection.
    ///
    /// # Errors
    /// None but those of an impossible configuration.
    pub fn session(&self) -> Result<Session, rustls::Error> {
        UnbufferedServerConnection::new(self.0.clone()).map(Session::server)
    }
}

impl TlsClient {
    /// Believes servers that a certificate in `authorities` (PEM) vouches for and that are called `name`, a host
    /// name or an IP address.
    ///
    /// # Errors
    /// When there is no such certificate, or `name` is neither.
    pub fn new(authorities: &[u8], name: &str) -> Result<Self, SettingsError> {
        let mut roots = RootCertStore::empty();
        let (_, refused) =
            roots.add_parsable_certificates(certificates(authorities).map_err(SettingsError::Authorities)?);
        if roots.is_empty() {
            let what = format!("{refused} certificates, none of which can be an authority's");
            return Err(SettingsError::Authorities(what));
        }
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| SettingsError::Name(format!("{name:?} is neither a host name nor an IP address")))?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| SettingsError::Authorities(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // RFC 9329 Appendix B.3: the connection that replaces a broken one resumes its session.
        config.resumption = Resumption::in_memory_sessions(RESUMABLE);
        Ok(Self { config: Arc::new(config), name })
    }

    /// As [`TlsClient::new`], with the authorities in a file.
    ///
    /// # Errors
    /// As there, and when the file cannot be read.
    pub fn load(authorities: &Path, name: &str) -> Result<Self, SettingsError> {
        let pem = fs::read(authorities).map_err(|error| SettingsError::Authorities(error.to_string()))?;
        Self::new(&pem, name)
    }

    /// As [`TlsClient::new`], and presents the certificate `chain`, leaf first, with its `key` (all PEM) to servers
    /// that ask for one.
    ///
    /// # Errors
    /// As there, and when chain and key are not that or do not belong together.
    pub fn with_certificate(
        authorities: &[u8],
        name: &str,
        chain: &[u8],
        key: &[u8],
    ) -> Result<Self, SettingsError> {
        let client = Self::new(authorities, name)?;
        let chain = certificates(chain).map_err(SettingsError::Chain)?;
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|error| SettingsError::Key(error.to_string()))?;
        let mut config = ClientConfig::clone(&client.config);
        let key = aws_lc_rs::default_provider()
            .key_provider
            .load_private_key(key)
            .map_err(|error| SettingsError::Key(error.to_string()))?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|error| SettingsError::Key(error.to_string()))?;
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
        Ok(Self { config: Arc::new(config), name: client.name })
    }

    /// For streams that carry TLS themselves.
    pub fn config(&self) -> Arc<ClientConfig> {
        self.config.clone()
    }

    /// Whom it believes to speak to.
    pub fn name(&self) -> ServerName<'static> {
        self.name.clone()
    }

    /// The client's end of a new connection.
    ///
    /// # Errors
    /// None but those of an impossible configuration.
    pub fn session(&self) -> Result<Session, rustls::Error> {
        UnbufferedClientConnection::new(self.config.clone(), self.name.clone()).map(Session::client)
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    match CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>() {
        Ok(found) if found.is_empty() => Err("no certificate in PEM form".into()),
        Ok(found) => Ok(found),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const CHAIN: &[u8] = include_bytes!("../../tests/fixtures/pki/gw-ec.pem");
    const KEY: &[u8] = include_bytes!("../../tests/fixtures/pki/gw-ec.key");
    const OTHER_KEY: &[u8] = include_bytes!("../../tests/fixtures/pki/gw-rsa.key");
    const ROOT: &[u8] = include_bytes!("../../tests/fixtures/pki/root.pem");

    pub(in crate::tls) fn server() -> TlsServer {
        TlsServer::from_pem(CHAIN, KEY).expect("the fixture")
    }

    pub(in crate::tls) fn client() -> TlsClient {
        TlsClient::new(ROOT, "gw.test").expect("the fixture")
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let refused = |chain, key| TlsServer::from_pem(chain, key).expect_err("not usable");
        assert!(matches!(refused(b"", KEY), SettingsError::Chain(_)));
        assert!(matches!(refused(CHAIN, b""), SettingsError::Key(_)));
        assert!(matches!(refused(CHAIN, OTHER_KEY), SettingsError::Key(_)));
        assert!(matches!(TlsClient::new(b"", "gw.test"), Err(SettingsError::Authorities(_))));
        assert!(matches!(TlsClient::new(ROOT, "no name"), Err(SettingsError::Name(_))));
    }

    #[test]
    fn r9329_a_2_suites_and_versions_are_those_of_rfc_9325() {
        let TlsServer(config) = server();
        let provider = config.crypto_provider();
        for suite in &provider.cipher_suites {
            let name = format!("{:?}", suite.suite());
            let ephemeral = name.starts_with("TLS13_") || name.starts_with("TLS_ECDHE_");
            assert!(ephemeral && (name.contains("GCM") || name.contains("POLY1305")), "{name}");
        }
        assert_eq!(config.max_early_data_size, 0);
    }

    /// The row would allow them; the module's documentation says why there are none.
    #[test]
    fn r9329_a_1_there_is_no_null_cipher_to_allow() {
        let TlsServer(config) = server();
        let suites = &config.crypto_provider().cipher_suites;
        assert!(suites.iter().all(|suite| !format!("{:?}", suite.suite()).contains("NULL")));
    }
}
