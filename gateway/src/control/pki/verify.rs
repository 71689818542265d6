//! Verification of a client's certificate and of the identity it stands for.

use std::time::Duration;

use codec::ike::IdType;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{
    ALL_VERIFICATION_ALGS, CertRevocationList, EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter,
    KeyUsage, RequiredEkuNotFoundContext, RevocationCheckDepth, RevocationOptionsBuilder,
    UnknownStatusPolicy,
};
use x509_parser::asn1_rs::FromDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use super::{CertificateStore, name};
/// Key purposes that fit an IKE client (RFC 4945 §5.1.3.12), and clientAuth, which most have: clientAuth,
/// ipsecEndSystem, ipsecUser, ipsecIKE, anyExtendedKeyUsage.
const PURPOSES: [&[usize]; 5] = [
    &[1, 3, 6, 1, 5, 5, 7, 3, 2],
    &[1, 3, 6, 1, 5, 5, 7, 3, 5],
    &[1, 3, 6, 1, 5, 5, 7, 3, 7],
    &[1, 3, 6, 1, 5, 5, 7, 3, 17],
    &[2, 5, 29, 37, 0],
];

/// Why a certificate is not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum VerifyError {
    /// Malformed, for another purpose, out of its validity, or without a path to a configured CA.
    #[error("certificate does not lead to a configured authority")]
    Untrusted,
    /// On a revocation list.
    #[error("certificate is revoked")]
    Revoked,
}

/// A client's certificate that was verified.
pub struct PeerCertificate<'a> {
    certificate: X509Certificate<'a>,
}

impl CertificateStore {
    /// Verifies `leaf` at `unix_time` (seconds since 1970), with the intermediates the client sent. A
    /// certificate whose issuer has no revocation list configured counts as not revoked; a list past its next
    /// update still counts, so that a late list does not lock everybody out.
    ///
    /// # Errors
    /// See [`VerifyError`].
    pub fn verify<'a>(
        &self,
        leaf: &'a [u8],
        intermediates: &[&[u8]],
        unix_time: u64,
    ) -> Result<PeerCertificate<'a>, VerifyError> {
        let der = CertificateDer::from(leaf);
        let end_entity = EndEntityCert::try_from(&der).map_err(|_| VerifyError::Untrusted)?;
        let intermediates: Vec<CertificateDer<'_>> =
            intermediates.iter().map(|der| CertificateDer::from(*der)).collect();
        let lists: Vec<&CertRevocationList<'_>> = self.revoked.iter().collect();
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Allow)
                .build()
        });
        let verified = end_entity.verify_for_usage(
            ALL_VERIFICATION_ALGS,
            &self.anchors,
            &intermediates,
            UnixTime::since_unix_epoch(Duration::from_secs(unix_time)),
            ClientPurpose,
            revocation,
            None,
        );
        match verified {
            Ok(_) => PeerCertificate::parse(leaf),
            Err(webpki::Error::CertRevoked) => Err(VerifyError::Revoked),
            Err(_) => Err(VerifyError::Untrusted),
        }
    }
}

impl<'a> PeerCertificate<'a> {
    fn parse(der: &'a [u8]) -> Result<Self, VerifyError> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| VerifyError::Untrusted)?;
        // RFC 4945 §5.1.3.2: a key usage, when there is one, must allow signatures.
        let signs = match certificate.key_usage() {
            Ok(None) => true,
            Ok(Some(usage)) => usage.value.digital_signature() || usage.value.non_repudiation(),
            Err(_) => false,
        };
        if signs { Ok(Self { certificate }) } else { Err(VerifyError::Untrusted) }
    }

    /// The Subject Public Key Info in DER.
    pub fn public_key(&self) -> &[u8] {
        self.certificate.public_key().raw
    }

    /// Whether the certificate carries an identity: as its subject, or as a subjectAltName of the same kind
    /// (RFC 4945 §3.1). The common name never stands for an FQDN.
    pub fn carries(&self, kind: IdType, data: &[u8]) -> bool {
        if kind == IdType::DER_ASN1_DN {
            return self.has_subject(data);
        }
        let Ok(Some(names)) = self.certificate.subject_alternative_name() else { return false };
        names.value.general_names.iter().any(|name| match (kind, name) {
            (IdType::FQDN, GeneralName::DNSName(name)) => name.as_bytes().eq_ignore_ascii_case(data),
            (IdType::RFC822_ADDR, GeneralName::RFC822Name(name)) => {
                name.as_bytes().eq_ignore_ascii_case(data)
            }
            (IdType::IPV4_ADDR | IdType::IPV6_ADDR, GeneralName::IPAddress(addr)) => *addr == data,
            _ => false,
        })
    }

    /// Compares octets first, then text, since string types of equal names may differ (RFC 5280 §7.1).
    fn has_subject(&self, data: &[u8]) -> bool {
        let subject = self.certificate.subject().as_raw();
        subject == data
            || matches!((name::to_text(subject), name::to_text(data)),
                (Some(own), Some(asked)) if own.eq_ignore_ascii_case(&asked))
    }
}

/// Accepts certificates without an extended key usage, or with one of [`PURPOSES`].
struct ClientPurpose;

impl ExtendedKeyUsageValidator for ClientPurpose {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let mut present = Vec::new();
        for purpose in purposes {
            let purpose = purpose?.to_decoded_oid();
            if PURPOSES.iter().any(|known| **known == purpose) {
                return Ok(());
            }
            present.push(purpose);
        }
        if present.is_empty() {
            return Ok(());
        }
        let required = KeyUsage::client_auth();
        Err(webpki::Error::RequiredEkuNotFoundContext(RequiredEkuNotFoundContext { required, present }))
    }
}
