//! Certificates: ours with its chain and key, and the authorities that vouch for clients.
//!
//! Loading reads files; verification is a pure function of octets and a time. Path building and signature
//! checks of certificates are rustls-webpki's.

mod load;
pub mod name;
mod verify;

pub use load::{CertificateFiles, PkiError};
pub use verify::{PeerCertificate, VerifyError};

use codec::crypto::PrivateKey;
use rustls_pki_types::{CertificateDer, TrustAnchor};
use webpki::CertRevocationList;

/// Our certificate chain and key, the CAs of clients and their revocation lists. Immutable: a reload makes
/// a new one.
pub struct CertificateStore {
    /// Leaf first, then intermediates.
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKey,
    subject: Vec<u8>,
    not_after: u64,
    anchors: Vec<TrustAnchor<'static>>,
    revoked: Vec<CertRevocationList<'static>>,
    authorities: Vec<u8>,
}

impl CertificateStore {
    /// Our chain in DER, leaf first: one CERT payload each.
    pub fn chain(&self) -> impl Iterator<Item = &[u8]> {
        self.chain.iter().map(AsRef::as_ref)
    }

    /// The private key of the leaf.
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// The leaf's subject, a DER name.
    pub fn subject(&self) -> &[u8] {
        &self.subject
    }

    /// When the first certificate of our chain expires, in seconds since 1970; for a metric.
    pub fn not_after(&self) -> u64 {
        self.not_after
    }

    /// SHA-1 hashes of the public keys of the clients' CAs, 20 octets each, as CERTREQ carries them
    /// (RFC 7296 §3.7). SHA-1 only names a key here.
    pub fn authorities(&self) -> &[u8] {
        &self.authorities
    }
}
