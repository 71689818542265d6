//! From options to settings; whatever is wrong is said before anything starts.

use super::sim;
use crate::cli::{Auth, MeasureOptions, Transport, UeOptions};
use crate::engine::{Congestion, FleetPlan, SourceSpread, TlsSettings};
use crate::error::Failure;
use crate::host::process::GatewayProcess;
use crate::host::{affinity, privilege};
use crate::profile::Profile;
use crate::ue::{CertificateCredentials, Credentials, GatewayTrust, Handset, Identity, Subscriber, UeConfig};
use codec::crypto::PrivateKey;
use codec::{OsRandom, Random, SeededRandom};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Once};
use std::time::Duration;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

/// Anti-replay window of the UEs in packets: one connection keeps order, so a small one does.
const REPLAY_WINDOW: u32 = 128;

/// How long UEs wait for an answer unless they are told otherwise.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// What UEs offer unless they are told otherwise.
const IKE_DEFAULT: &str = "aes128gcm16-prfsha256-x25519";
const ESP_DEFAULT: &str = "aes128gcm16";

/// The APN of phones that are to make calls.
const APN_DEFAULT: &str = "ims";

/// The APN of emergency calls.
const APN_EMERGENCY: &str = "sos";

/// Everything a command needs before it attaches.
pub struct Prepared {
    /// The gateway's address.
    pub gateway: SocketAddr,
    /// Whether it is reached over UDP.
    pub udp: bool,
    /// TLS around the stream, if any.
    pub tls: Option<TlsSettings>,
    /// Settings of every UE.
    pub config: Arc<UeConfig>,
    /// Who each UE is.
    pub who: Rc<dyn Fn(u32) -> Subscriber>,
    /// Randomness of all UEs.
    pub random: Box<dyn Random>,
    /// Source addresses.
    pub source: SourceSpread,
    /// Congestion control of the connections.
    pub congestion: Option<Congestion>,
    /// Core of the engine.
    pub core: usize,
}

impl Prepared {
    /// Checks the options and loads the files they name.
    ///
    /// # Errors
    /// [`Failure::Usage`] for what is wrong, missing or not in this version.
    pub fn new(options: &UeOptions) -> Result<Self, Failure> {
        let tls = (options.transport == Transport::Tls).then(|| tls_settings(options)).transpose()?;
        let gateway = resolve(&options.gateway)?;
        if options.source.is_some_and(|source| source.addr().is_ipv4() != gateway.is_ipv4()) {
            return Err(Failure::Usage("--source and --gateway must be of the same address family".into()));
        }
        let core = options.core.unwrap_or_else(|| affinity::allowed_cores().last().copied().unwrap_or(0));
        let (config, who) = read_config(options)?;
        let random: Box<dyn Random> = match options.seed {
            Some(seed) => Box::new(SeededRandom::new(seed)),
            None => Box::new(OsRandom),
        };
        Ok(Self {
            gateway,
            udp: options.transport == Transport::Udp,
            tls,
            config: Arc::new(config),
            who,
            random,
            source: SourceSpread::new(options.source),
            congestion: congestion(options)?,
            core,
        })
    }

    /// Makes the plan of a fleet; checks that the process may open so many connections.
    ///
    /// # Errors
    /// [`Failure::Environment`] when it may not.
    pub fn fleet(self, measure: &MeasureOptions, rate: Option<f64>) -> Result<FleetPlan, Failure> {
        privilege::require_files(u64::from(measure.ues))?;
        self.fleet_without_files(measure, rate)
    }

    /// Makes the plan of a fleet whose connections are no open files.
    ///
    /// # Errors
    /// [`Failure::Usage`] when the source addresses have too few ports.
    pub fn fleet_without_files(
        self,
        measure: &MeasureOptions,
        rate: Option<f64>,
    ) -> Result<FleetPlan, Failure> {
        self.source.require_ports(self.gateway, measure.ues)?;
        Ok(FleetPlan {
            gateway: self.gateway,
            udp: self.udp,
            tls: self.tls,
            ues: measure.ues,
            rate,
            in_flight: measure.in_flight,
            source: self.source,
            congestion: self.congestion,
            config: self.config,
            who: self.who,
            random: self.random,
        })
    }
}

/// The congestion control asked for.
fn congestion(options: &UeOptions) -> Result<Option<Congestion>, Failure> {
    let name = options.congestion.as_deref();
    if name.is_some() && options.transport == Transport::Udp {
        return Err(Failure::Usage("--congestion is of TCP: not with --transport udp".into()));
    }
    name.map(Congestion::find).transpose()
}

/// What the options say of TLS.
fn tls_settings(options: &UeOptions) -> Result<TlsSettings, Failure> {
    let missing = || Failure::Usage("--transport tls needs --tls-ca, the authorities to believe".into());
    let path = options.tls_ca.as_deref().ok_or_else(missing)?;
    let pem = std::fs::read(path)
        .map_err(|error| Failure::Usage(format!("--tls-ca {}: {error}", path.display())))?;
    let host = options.gateway.rsplit_once(':').map_or("", |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    TlsSettings::new(&pem, options.tls_name.as_deref().unwrap_or(host))
}

/// Finds the gateway process to observe.
///
/// # Errors
/// [`Failure::Usage`] when --gateway-pid names no process.
pub fn gateway_process(pid: Option<u32>) -> Result<Option<GatewayProcess>, Failure> {
    match pid {
        None => Ok(GatewayProcess::find()),
        Some(pid) => match GatewayProcess::by_pid(pid) {
            Some(process) => Ok(Some(process)),
            None => Err(Failure::Usage(format!("--gateway-pid {pid}: no such process on this host"))),
        },
    }
}

/// Resolves HOST:PORT.
///
/// # Errors
/// [`Failure::Usage`] when it is no address.
fn resolve(text: &str) -> Result<SocketAddr, Failure> {
    let found = text.to_socket_addrs().map_err(|error| {
        Failure::Usage(format!(
            "--gateway {text}: {error}; give an address and a port, such as 10.0.0.1:4500"
        ))
    })?;
    found
        .into_iter()
        .next()
        .ok_or_else(|| Failure::Usage(format!("--gateway {text}: the name has no address")))
}

/// Describes the machine for the report; `core` is the one this process was pinned to, if any.
pub fn environment(core: impl Into<Option<usize>>) -> serde_json::Value {
    let read = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).ok();
    serde_json::json!({
        "kernel": read("/proc/sys/kernel/osrelease"),
        "cores": std::thread::available_parallelism().map(usize::from).ok(),
        "loadgen_core": core.into(),
        "version": env!("CARGO_PKG_VERSION"),
    })
}

type SubscriberOf = Rc<dyn Fn(u32) -> Subscriber>;

/// Builds the settings of the UEs, and who each is.
///
/// # Errors
/// See [`Prepared::new`].
fn read_config(options: &UeOptions) -> Result<(UeConfig, SubscriberOf), Failure> {
    let profile = options.profile.as_deref().map(Profile::find).transpose()?;
    let (ike, esp) = offered(options, profile.as_ref());
    let (ike, esp) = (proposals("--ike", &ike)?, proposals("--esp", &esp)?);
    let auth = options.auth.or(profile.as_ref().map(Profile::auth)).unwrap_or(Auth::Psk);
    let (credentials, subject) = match auth {
        Auth::Psk => {
            let text = options.psk.as_deref().ok_or_else(|| {
                Failure::Usage(
                    "--auth psk needs --psk SECRET (or the environment variable LOADGEN_PSK)".into(),
                )
            })?;
            (Credentials::Psk(read_psk(text)?), None)
        }
        Auth::Cert => {
            let certificate = read_certificate(options)?;
            let subject = subject(&certificate.chain[0]);
            (Credentials::Certificate(Box::new(certificate)), subject)
        }
        Auth::EapAka | Auth::EapAkaPrime => {
            let alone = options.sim.eap_only || profile.as_ref().is_some_and(|profile| profile.eap_only);
            let eap = sim::read_eap(options, auth, alone, trust(options)?);
            (Credentials::Eap(Box::new(eap)), None)
        }
    };
    let seconds = |value: f64, name: &str| {
        Duration::try_from_secs_f64(value)
            .map_err(|_| Failure::Usage(format!("{name} {value}: a number of seconds")))
    };
    let config = UeConfig {
        ike,
        esp,
        credentials,
        idr: {
            let apn = if options.sim.emergency { APN_EMERGENCY } else { APN_DEFAULT };
            let asked = options.idr.as_deref();
            match &profile {
                Some(profile) => Some(profile.idr(asked.unwrap_or(apn))),
                None => asked.or(options.sim.emergency.then_some(apn)).map(Identity::parse),
            }
        },
        gateway_id: options.gateway_id.as_deref().map(Identity::parse),
        response_timeout: match options.timeout {
            Some(timeout) => seconds(timeout, "--timeout")?,
            None => RESPONSE_TIMEOUT,
        },
        dpd: match options.dpd {
            Some(dpd) => Some(seconds(dpd, "--dpd")?),
            None => profile.as_ref().and_then(Profile::dpd),
        },
        replay_window: REPLAY_WINDOW,
        handset: profile.as_ref().map(Profile::handset).unwrap_or_default(),
    };
    let who: SubscriberOf = match (&options.idi, subject) {
        (idi, _) if matches!(config.credentials, Credentials::Eap(_)) => {
            sim::read_sims(options, auth, idi.clone())?
        }
        (Some(pattern), _) => {
            let pattern = pattern.clone();
            Rc::new(move |index| Identity::parse(&pattern.replace("{}", &index.to_string())).into())
        }
        (None, Some(subject)) => Rc::new(move |_| subject.clone().into()),
        (None, None) => Rc::new(|index| Identity::parse(&format!("ue-{index}@loadgen.test")).into()),
    };
    Ok((config, who))
}

/// Proposals of IKE and ESP as texts: those asked for, else the profile's, else one each.
fn offered(options: &UeOptions, profile: Option<&Profile>) -> (Vec<String>, Vec<String>) {
    let choose = |asked: &[String], of_profile: Option<&Vec<String>>, default: &str| match (asked, of_profile)
    {
        ([], Some(texts)) => texts.clone(),
        ([], None) => vec![default.to_owned()],
        (asked, _) => asked.to_vec(),
    };
    let ike = choose(&options.ike, profile.map(|profile| &profile.ike), IKE_DEFAULT);
    let esp = choose(&options.esp, profile.map(|profile| &profile.esp), ESP_DEFAULT);
    (ike, esp)
}

/// The proposals in use, for reports.
pub fn chosen_proposals(options: &UeOptions) -> (Vec<String>, Vec<String>) {
    let profile = options.profile.as_deref().and_then(|name| Profile::find(name).ok());
    offered(options, profile.as_ref())
}

/// Builds settings for pre-shared keys with one proposal each and the usual timeouts.
///
/// # Errors
/// [`Failure::Usage`] for a proposal that does not parse.
pub fn read_psk_config(psk: &str, ike: &str, esp: &str) -> Result<UeConfig, Failure> {
    Ok(UeConfig {
        ike: proposals("--ike", &[ike.to_owned()])?,
        esp: proposals("--esp", &[esp.to_owned()])?,
        credentials: Credentials::Psk(Zeroizing::new(psk.as_bytes().to_vec())),
        idr: None,
        gateway_id: None,
        response_timeout: RESPONSE_TIMEOUT,
        dpd: None,
        replay_window: REPLAY_WINDOW,
        handset: Handset::default(),
    })
}

fn proposals<T>(flag: &str, texts: &[String]) -> Result<Vec<T>, Failure>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    let parse =
        |text: &String| text.parse().map_err(|error| Failure::Usage(format!("{flag} {text}: {error}")));
    texts.iter().map(parse).collect()
}

fn read_psk(text: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let Some(hex) = text.strip_prefix("0x") else { return Ok(Zeroizing::new(text.as_bytes().to_vec())) };
    read_hex(hex).ok_or_else(|| Failure::Usage("--psk 0x…: an even number of hexadecimal digits".into()))
}

/// Octets from hexadecimal digits, at least one; `None` when they are none.
pub(super) fn read_hex(digits: &str) -> Option<Zeroizing<Vec<u8>>> {
    if digits.is_empty() || !digits.len().is_multiple_of(2) || !digits.is_ascii() {
        return None;
    }
    let octets = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok());
    octets.collect::<Option<Vec<u8>>>().map(Zeroizing::new)
}

fn read_certificate(options: &UeOptions) -> Result<CertificateCredentials, Failure> {
    let wanted = |file: &Option<std::path::PathBuf>, flag: &str| {
        file.clone().ok_or_else(|| Failure::Usage(format!("--auth cert needs {flag} FILE")))
    };
    let (cert, key, ca) =
        (wanted(&options.cert, "--cert")?, wanted(&options.key, "--key")?, wanted(&options.ca, "--ca")?);
    let chain = read_certificates(&cert)?;
    let pem = Zeroizing::new(read(&key)?);
    let private =
        PrivateKey::from_pem(&pem).map_err(|error| Failure::Usage(format!("{}: {error}", key.display())))?;
    let trust = read_trust(&ca)?;
    Ok(CertificateCredentials { chain, key: private, trust })
}

/// Whom UEs by EAP believe; without --ca anybody, which is said once.
fn trust(options: &UeOptions) -> Result<Option<GatewayTrust>, Failure> {
    static SAID: Once = Once::new();
    if options.ca.is_none() {
        SAID.call_once(|| eprintln!("no --ca: the gateway's certificate is not checked"));
    }
    options.ca.as_deref().map(read_trust).transpose()
}

fn read_trust(path: &Path) -> Result<GatewayTrust, Failure> {
    let anchors = read_certificates(path)?;
    GatewayTrust::new(&anchors, UnixTime::now())
        .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
}

fn read_certificates(path: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    let pem = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => {
            Ok(certificates.into_iter().map(|certificate| certificate.to_vec()).collect())
        }
        _ => Err(Failure::Usage(format!("{}: no PEM certificate", path.display()))),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
}

fn subject(der: &[u8]) -> Option<Identity> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(Identity::distinguished_name(certificate.subject().as_raw()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_hexadecimal_and_text() {
        assert_eq!(*read_psk("secret").unwrap(), b"secret");
        assert_eq!(*read_psk("0x00fF").unwrap(), [0, 255]);
        for wrong in ["0x", "0x1", "0xzz", "0x0ä"] {
            assert!(read_psk(wrong).is_err(), "{wrong}");
        }
    }
}
