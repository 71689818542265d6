//! Reading a certificate store from PEM.

use std::fs;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use codec::crypto::PrivateKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use webpki::{
    BorrowedCertRevocationList, CertRevocationList, OwnedCertRevocationList, anchor_from_trusted_cert,
};
use x509_parser::asn1_rs::FromDer;
use x509_parser::certificate::X509Certificate;

use super::CertificateStore;

/// Octets of our whole chain: with the rest of IKE_AUTH it must fit one frame (RFC 9329 §3).
const CHAIN_LEN_MAX: usize = 48 * 1024;

/// Where a store is read from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateFiles {
    /// Our certificate, then its intermediates.
    pub chain: PathBuf,
    /// Its private key: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
    /// CAs of clients.
    pub ca: PathBuf,
    /// Revocation lists of those CAs and their intermediates, if any.
    pub crl: Option<PathBuf>,
}

/// Why a store cannot be made. Names the file or, from PEM text, its role.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The file cannot be read.
    #[error("{file}: {source}")]
    Read {
        /// The file.
        file: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The contents are not what the file is for.
    #[error("{file}: {what}")]
    Contents {
        /// The file, or its role.
        file: String,
        /// What is wrong with it.
        what: String,
    },
}

impl CertificateStore {
    /// Reads and checks all files.
    ///
    /// # Errors
    /// A file that cannot be read or does not hold what it is for, a key that is not the certificate's, or
    /// a chain too long for one message.
    pub fn load(files: &CertificateFiles) -> Result<Self, PkiError> {
        let chain = read(&files.chain)?;
        let key = read(&files.key)?;
        let ca = read(&files.ca)?;
        let crl = files.crl.as_deref().map(read).transpose()?;
        let names = [Some(&files.chain), Some(&files.key), Some(&files.ca), files.crl.as_ref()];
        let names = names.map(|path| path.map(|path| path.display().to_string()).unwrap_or_default());
        Self::build(&names, &chain, &key, &ca, crl.as_deref())
    }

    /// Makes a store from PEM text.
    ///
    /// # Errors
    /// As [`Self::load`], without the reading.
    pub fn from_pem(chain: &[u8], key: &[u8], ca: &[u8], crl: Option<&[u8]>) -> Result<Self, PkiError> {
        let names = ["chain", "key", "ca", "crl"].map(str::to_string);
        Self::build(&names, chain, key, ca, crl)
    }

    fn build(
        [chain_name, key_name, ca_name, crl_name]: &[String; 4],
        chain: &[u8],
        key: &[u8],
        ca: &[u8],
        crl: Option<&[u8]>,
    ) -> Result<Self, PkiError> {
        let chain = certificates(chain, chain_name)?;
        if chain.iter().map(|der| der.len()).sum::<usize>() > CHAIN_LEN_MAX {
            return Err(wrong(chain_name, format!("longer than {CHAIN_LEN_MAX} octets")));
        }
        let (subject, not_after) = describe(&chain, chain_name)?;
        let key = private_key(key, key_name, &chain[0])?;
        let mut anchors = Vec::new();
        let mut authorities = Vec::new();
        for der in certificates(ca, ca_name)? {
            let anchor = anchor_from_trusted_cert(&der).map_err(|error| wrong(ca_name, error))?.to_owned();
            authorities.extend_from_slice(key_hash(&der, ca_name)?.as_ref());
            anchors.push(anchor);
        }
        let revoked = crl.map(|pem| revocation_lists(pem, crl_name)).transpose()?.unwrap_or_default();
        Ok(Self { chain, key, subject, not_after, anchors, revoked, authorities })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, PkiError> {
    fs::read(path).map_err(|source| PkiError::Read { file: path.display().to_string(), source })
}

fn wrong(file: &str, what: impl ToString) -> PkiError {
    PkiError::Contents { file: file.to_string(), what: what.to_string() }
}

fn certificates(pem: &[u8], file: &str) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(wrong(file, "no certificate in PEM form")),
        Err(error) => Err(wrong(file, error)),
    }
}

/// Subject of the leaf and the earliest end of validity in the chain.
fn describe(chain: &[CertificateDer<'static>], file: &str) -> Result<(Vec<u8>, u64), PkiError> {
    let mut subject = Vec::new();
    let mut not_after = u64::MAX;
    for (index, der) in chain.iter().enumerate() {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|error| wrong(file, error))?;
        if index == 0 {
            subject = parsed.subject().as_raw().to_vec();
        }
        let end = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        not_after = not_after.min(end);
    }
    Ok((subject, not_after))
}

fn private_key(pem: &[u8], file: &str, leaf: &CertificateDer<'_>) -> Result<PrivateKey, PkiError> {
    let key = PrivateKey::from_pem(pem).map_err(|error| wrong(file, error))?;
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|error| wrong(file, error))?;
    if key.spki() != parsed.public_key().raw {
        return Err(wrong(file, "not the key of the first certificate of the chain"));
    }
    Ok(key)
}

fn key_hash(der: &CertificateDer<'_>, file: &str) -> Result<digest::Digest, PkiError> {
    let (_, parsed) = X509Certificate::from_der(der).map_err(|error| wrong(file, error))?;
    Ok(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, parsed.public_key().raw))
}

fn revocation_lists(pem: &[u8], file: &str) -> Result<Vec<CertRevocationList<'static>>, PkiError> {
    let mut lists = Vec::new();
    for der in CertificateRevocationListDer::pem_slice_iter(pem) {
        let der = der.map_err(|error| wrong(file, error))?;
        let list: OwnedCertRevocationList = BorrowedCertRevocationList::from_der(&der)
            .and_then(|list| list.to_owned())
            .map_err(|error| wrong(file, error))?;
        lists.push(list.into());
    }
    if lists.is_empty() { Err(wrong(file, "no revocation list in PEM form")) } else { Ok(lists) }
}
