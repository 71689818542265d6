//! `[certificate]`, and `[tls]` where TLS has a certificate of its own.

use super::ListenSection;
use super::profile::PEM;
use super::reader::{Field, Section};
use super::secrets;
use crate::tls::{SettingsError, TlsServer};

/// The keys of `[certificate]`, not yet opened.
pub(super) struct Certificate<'a> {
    pub(super) chain: Option<Field<'a>>,
    pub(super) key: Option<Field<'a>>,
    pub(super) ca: Option<Field<'a>>,
    pub(super) crl: Option<Field<'a>>,
}

impl<'a> Certificate<'a> {
    /// Reads the table; `responds` says that UEs are authenticated here, which takes `ca`.
    pub(super) fn read(root: &mut Section<'a>, responds: bool) -> Option<Self> {
        let mut section = root.section("certificate")?;
        let chain = section.required("chain", PEM);
        let key = section.required("key", PEM);
        let ca = if responds { section.required("ca", PEM) } else { section.value("ca") };
        let crl = section.value("crl");
        section.finish();
        Some(Self { chain, key, ca, crl })
    }
}

/// What TLS offers: the certificate of `[tls]`, else that of `[certificate]`. Nothing is opened unless `listen` has an
/// address for it.
pub(super) fn server(
    root: &mut Section<'_>,
    certificate: Option<&Certificate<'_>>,
    listen: &ListenSection,
) -> Option<TlsServer> {
    let used = listen.uses_tls();
    if let Some(mut section) = root.section("tls") {
        let fields = ["chain", "key"].map(|key| section.required(key, PEM));
        section.finish();
        return used.then(|| offer(fields[0].as_ref()?, fields[1].as_ref()?)).flatten();
    }
    if !used {
        return None;
    }
    match certificate {
        Some(Certificate { chain, key, .. }) => offer(chain.as_ref()?, key.as_ref()?),
        None => {
            let allowed = "a table [certificate] or [tls] with chain and key, for listen.tls, shared and ftt";
            root.missing("certificate", allowed);
            None
        }
    }
}

fn offer(chain: &Field<'_>, key: &Field<'_>) -> Option<TlsServer> {
    let (chain_pem, key_pem) = (pem(chain), pem(key));
    let key_path = key.text(PEM).map(|text| key.reader().resolve(text));
    if let Some(path) = key_path {
        secrets::warn_if_open(key.reader(), &path);
    }
    let wrong = |field: &Field<'_>, what: &str| field.reject(format!("{PEM} ({what})"));
    match TlsServer::from_pem(&chain_pem?, &key_pem?) {
        Ok(server) => Some(server),
        Err(SettingsError::Chain(what)) => {
            wrong(chain, &what);
            None
        }
        Err(error) => {
            wrong(key, &error.to_string());
            None
        }
    }
}

/// The contents of the file that `field` names.
pub(super) fn pem(field: &Field<'_>) -> Option<Vec<u8>> {
    let path = field.reader().resolve(field.text(PEM)?);
    super::read_octets(&path).map_err(|error| field.reject(format!("{PEM} ({error})"))).ok()
}
