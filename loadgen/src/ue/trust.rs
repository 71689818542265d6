//! Whether to believe a gateway's certificate.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use codec::ike::IdType;
use codec::ike::payload::IdView;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Trust anchors, and the moment for which certificates must be valid.
pub struct GatewayTrust {
    anchors: Vec<TrustAnchor<'static>>,
    /// SHA-1 of each anchor's public key info, one after the other, as CERTREQ carries them (RFC 7296 §3.7).
    authorities: Vec<u8>,
    now: UnixTime,
}

/// Why a certificate is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// A certificate authority does not parse.
    #[error("not a certificate authority")]
    BadAnchor,
    /// The certificate does not parse.
    #[error("certificate does not parse")]
    Malformed,
    /// No valid chain leads to a trust anchor.
    #[error("certificate is not issued by --ca, or is not valid now")]
    Untrusted,
    /// The certificate is of somebody else.
    #[error("certificate does not cover the identity")]
    WrongName,
}

impl TrustError {
    /// Returns the reason as a failure cause.
    pub fn reason(self) -> &'static str {
        match self {
            Self::BadAnchor => "not a certificate authority",
            Self::Malformed => "certificate does not parse",
            Self::Untrusted => "certificate is not issued by --ca, or is not valid now",
            Self::WrongName => "certificate does not cover the identity",
        }
    }
}

impl GatewayTrust {
    /// Trusts what the given DER certificates have issued, as of `now`.
    ///
    /// # Errors
    /// [`TrustError::BadAnchor`].
    pub fn new(authorities: &[Vec<u8>], now: UnixTime) -> Result<Self, TrustError> {
        let mut trust = Self { anchors: Vec::new(), authorities: Vec::new(), now };
        for der in authorities {
            let certificate = CertificateDer::from(der.as_slice());
            let anchor = anchor_from_trusted_cert(&certificate).map_err(|_| TrustError::BadAnchor)?;
            trust.anchors.push(anchor.to_owned());
            let (_, parsed) = X509Certificate::from_der(der).map_err(|_| TrustError::BadAnchor)?;
            let spki = parsed.tbs_certificate.subject_pki.raw;
            trust.authorities.extend_from_slice(digest(&SHA1_FOR_LEGACY_USE_ONLY, spki).as_ref());
        }
        Ok(trust)
    }

    /// Returns the key hashes of the anchors for a CERTREQ payload.
    pub fn authorities(&self) -> &[u8] {
        &self.authorities
    }

    /// Checks that `leaf` chains to an anchor and belongs to `id`.
    ///
    /// # Errors
    /// See [`TrustError`].
    pub fn verify(&self, leaf: &[u8], intermediates: &[&[u8]], id: &IdView<'_>) -> Result<(), TrustError> {
        let leaf_der = CertificateDer::from(leaf);
        let intermediates: Vec<CertificateDer<'_>> =
            intermediates.iter().map(|der| CertificateDer::from(*der)).collect();
        EndEntityCert::try_from(&leaf_der)
            .map_err(|_| TrustError::Malformed)?
            .verify_for_usage(
                ALL_VERIFICATION_ALGS,
                &self.anchors,
                &intermediates,
                self.now,
                KeyUsage::server_auth(),
                None,
                None,
            )
            .map_err(|_| TrustError::Untrusted)?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| TrustError::Malformed)?;
        if covers(&parsed, id) { Ok(()) } else { Err(TrustError::WrongName) }
    }
}

/// Returns whether the certificate names `id`: its subject for a distinguished name, else an alternative name of the kind.
fn covers(certificate: &X509Certificate<'_>, id: &IdView<'_>) -> bool {
    if id.kind == IdType::DER_ASN1_DN {
        return certificate.subject().as_raw() == id.data;
    }
    let same = |name: &str| id.data.eq_ignore_ascii_case(name.as_bytes());
    let names = certificate.extensions().iter().filter_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(san) => Some(&san.general_names),
        _ => None,
    });
    names.flatten().any(|name| match (name, id.kind) {
        (GeneralName::DNSName(name), IdType::FQDN) => same(name),
        (GeneralName::RFC822Name(name), IdType::RFC822_ADDR) => same(name),
        (GeneralName::IPAddress(octets), IdType::IPV4_ADDR | IdType::IPV6_ADDR) => *octets == id.data,
        _ => false,
    })
}
