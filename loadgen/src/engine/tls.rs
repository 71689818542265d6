//! TLS around a UE's stream (RFC 9329 Appendix A).

use crate::error::Failure;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use std::cell::RefCell;
use std::io::{Read, Write};
use std::sync::Arc;
use tokio_uring::net::TcpStream;

/// Sessions that a fleet remembers, one ticket each: a UE that comes back resumes one of them.
const RESUMABLE: usize = 4096;

/// Read buffer of a handshake.
const HANDSHAKE_LEN: usize = 16 << 10;

/// What the UEs of a fleet ask of the gateway's TLS.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl TlsSettings {
    /// Believes gateways called `name` for which a certificate in `authorities` (PEM) vouches.
    ///
    /// # Errors
    /// [`Failure::Usage`] when there is no such certificate, or the name is no host's.
    pub fn new(authorities: &[u8], name: &str) -> Result<Self, Failure> {
        let usage = |what: String| Failure::Usage(format!("TLS: {what}"));
        let mut roots = RootCertStore::empty();
        for der in CertificateDer::pem_slice_iter(authorities) {
            let der = der.map_err(|error| usage(error.to_string()))?;
            roots.add(der).map_err(|error| usage(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(usage("no certificate of an authority in PEM form".into()));
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| usage(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::in_memory_sessions(RESUMABLE);
        let name =
            ServerName::try_from(name.to_owned()).map_err(|error| usage(format!("{name}: {error}")))?;
        Ok(Self { config: Arc::new(config), name })
    }
}

/// The TLS of one connection.
pub(super) struct Tls(RefCell<ClientConnection>);

impl Tls {
    /// Shakes hands on a new connection.
    ///
    /// # Errors
    /// In few words, equal for equal causes.
    pub(super) async fn shake_hands(settings: &TlsSettings, stream: &TcpStream) -> Result<Self, String> {
        let mut connection = ClientConnection::new(settings.config.clone(), settings.name.clone())
            .map_err(|error| cause(&error))?;
        connection.set_buffer_limit(None);
        let tls = Self(RefCell::new(connection));
        let mut buffer = Vec::with_capacity(HANDSHAKE_LEN);
        loop {
            let records = tls.unsent();
            if !records.is_empty() {
                let (sent, _) = stream.write_all(records).await;
                sent.map_err(|error| super::connect::cause(&error))?;
            }
            if !tls.0.borrow().is_handshaking() {
                return Ok(tls);
            }
            buffer.clear();
            let (read, returned) = stream.read(buffer).await;
            buffer = returned;
            match read.map_err(|error| super::connect::cause(&error))? {
                0 => return Err("closed by gateway in the TLS handshake".into()),
                len => tls.open(&buffer[..len], &mut Vec::new())?,
            }
        }
    }

    /// Takes what the socket received; what the gateway says is appended to `plain`.
    ///
    /// # Errors
    /// When the connection is over.
    pub(super) fn open(&self, mut octets: &[u8], plain: &mut Vec<u8>) -> Result<(), String> {
        let connection = &mut *self.0.borrow_mut();
        while !octets.is_empty() {
            connection.read_tls(&mut octets).map_err(|error| error.to_string())?;
            let state = connection.process_new_packets().map_err(|error| cause(&error))?;
            // What there is, and then that there is no more for now.
            let _ = connection.reader().read_to_end(plain);
            if state.peer_has_closed() && plain.is_empty() {
                return Err("closed by gateway".into());
            }
        }
        Ok(())
    }

    /// Makes records of `plain`.
    pub(super) fn seal(&self, plain: &[u8]) -> Vec<u8> {
        self.0.borrow_mut().writer().write_all(plain).expect("without a limit, memory takes it");
        self.unsent()
    }

    fn unsent(&self) -> Vec<u8> {
        let (connection, mut records) = (&mut *self.0.borrow_mut(), Vec::new());
        while connection.wants_write() {
            connection.write_tls(&mut records).expect("memory takes it");
        }
        records
    }
}

fn cause(error: &rustls::Error) -> String {
    format!("TLS: {error}")
}
