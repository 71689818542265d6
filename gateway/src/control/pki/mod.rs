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

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! fixture {
        ($name:literal) => {
            include_bytes!(concat!("../../../tests/fixtures/pki/", $name))
        };
    }

    /// Middle of 2026, inside the validity of all but `expired.pem`.
    const NOW: u64 = 1_782_000_000;

    fn store(crl: Option<&[u8]>) -> CertificateStore {
        CertificateStore::from_pem(fixture!("gw-rsa.pem"), fixture!("gw-rsa.key"), fixture!("root.pem"), crl)
            .expect("the fixtures belong together")
    }

    fn der(pem: &[u8]) -> Vec<u8> {
        use rustls_pki_types::pem::PemObject;
        CertificateDer::from_pem_slice(pem).expect("a certificate").to_vec()
    }

    fn verify(store: &CertificateStore, leaf: &[u8], now: u64) -> Result<(), VerifyError> {
        store.verify(&der(leaf), &[&der(fixture!("int.pem"))], now).map(|_| ())
    }

    #[test]
    fn chains_with_intermediates_verify() {
        let store = store(None);
        assert_eq!(verify(&store, fixture!("client-rsa.pem"), NOW), Ok(()));
        assert_eq!(verify(&store, fixture!("client-ec.pem"), NOW), Ok(()));
        let leaf = der(fixture!("client-ec.pem"));
        assert_eq!(store.verify(&leaf, &[], NOW).err(), Some(VerifyError::Untrusted), "no intermediate");
    }

    #[test]
    fn what_is_expired_revoked_or_for_another_purpose_does_not_verify() {
        let plain = store(None);
        let listed = store(Some(fixture!("crl.pem")));
        assert_eq!(verify(&plain, fixture!("revoked.pem"), NOW), Ok(()));
        assert_eq!(verify(&listed, fixture!("revoked.pem"), NOW), Err(VerifyError::Revoked));
        assert_eq!(verify(&listed, fixture!("client-ec.pem"), NOW), Ok(()));
        assert_eq!(verify(&plain, fixture!("expired.pem"), NOW), Err(VerifyError::Untrusted));
        assert_eq!(verify(&plain, fixture!("client-ec.pem"), 1_000_000_000), Err(VerifyError::Untrusted));
        assert_eq!(verify(&plain, fixture!("tls-server.pem"), NOW), Err(VerifyError::Untrusted));
        assert_eq!(verify(&plain, fixture!("other-root.pem"), NOW), Err(VerifyError::Untrusted));
        assert_eq!(plain.verify(b"garbage", &[], NOW).err(), Some(VerifyError::Untrusted));
    }

    #[test]
    fn a_truncated_or_altered_certificate_never_verifies() {
        let store = store(None);
        let (whole, int) = (der(fixture!("client-ec.pem")), der(fixture!("int.pem")));
        for at in 0..whole.len() {
            assert!(store.verify(&whole[..at], &[&int], NOW).is_err(), "cut at {at}");
            let mut altered = whole.clone();
            altered[at] ^= 0x10;
            assert!(store.verify(&altered, &[&int], NOW).is_err(), "altered at {at}");
        }
    }

    #[test]
    fn identities_are_those_of_the_certificate() {
        use codec::ike::IdType;
        let store = store(None);
        let (leaf, int) = (der(fixture!("client-rsa.pem")), der(fixture!("int.pem")));
        let certificate = store.verify(&leaf, &[&int], NOW).expect("a good chain");
        let dn = name::from_text("O=swugate test,CN=client.test").expect("a name");
        for (kind, data, carried) in [
            (IdType::FQDN, &b"client.test"[..], true),
            (IdType::FQDN, b"CLIENT.test", true),
            (IdType::FQDN, b"client.test.", false),
            (IdType::FQDN, b"client@test", false),
            (IdType::RFC822_ADDR, b"client@test", true),
            (IdType::IPV4_ADDR, &[192, 0, 2, 7], true),
            (IdType::IPV4_ADDR, &[192, 0, 2, 8], false),
            (IdType::DER_ASN1_DN, &dn, true),
            (IdType::DER_ASN1_DN, &dn[1..], false),
            (IdType::KEY_ID, b"client.test", false),
        ] {
            assert_eq!(certificate.carries(kind, data), carried, "{kind} {data:?}");
        }
    }

    #[test]
    fn a_store_names_what_is_wrong_with_its_files() {
        let chain = fixture!("gw-rsa.pem");
        let (key, ca) = (fixture!("gw-rsa.key"), fixture!("root.pem"));
        let error = |chain: &[u8], key: &[u8], ca: &[u8], crl: Option<&[u8]>| {
            CertificateStore::from_pem(chain, key, ca, crl)
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default()
        };
        assert_eq!(error(chain, key, ca, None), "");
        assert!(error(chain, fixture!("gw-ec.key"), ca, None).starts_with("key: not the key"));
        assert!(error(b"", key, ca, None).starts_with("chain: no certificate"));
        assert!(error(chain, key, b"x", None).starts_with("ca: "));
        assert!(error(chain, key, ca, Some(chain)).starts_with("crl: no revocation list"));
        let missing = CertificateFiles {
            chain: "/nonexistent/chain.pem".into(),
            key: "key".into(),
            ca: "ca".into(),
            crl: None,
        };
        let error = CertificateStore::load(&missing).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.starts_with("/nonexistent/chain.pem: "), "{error}");
    }

    #[test]
    fn r7296_3_7_the_store_describes_itself() {
        let store = store(None);
        assert_eq!(store.chain().count(), 2);
        assert_eq!(store.authorities().len(), 20);
        assert_eq!(store.not_after(), 4_102_444_799);
        assert_eq!(name::to_text(store.subject()).as_deref(), Some("O=swugate test, CN=gw.test"));
    }
}
