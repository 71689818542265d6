//! What a Diameter back end is configured with.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use super::names::application;

/// One `[[aaa]]` of kind `diameter`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the back end.
    pub name: Arc<str>,
    /// The servers, the one to be preferred first. At most [`crate::limits::DIAMETER_SERVERS_MAX`].
    pub servers: Vec<Server>,
    /// Our DiameterIdentity.
    pub origin_host: Arc<str>,
    /// Our realm.
    pub origin_realm: Arc<str>,
    /// The realm of requests; none takes it from each user's NAI.
    pub destination_realm: Option<Arc<str>>,
    /// The host of a session's first request; none leaves the choice to the realm.
    pub destination_host: Option<Arc<str>>,
    /// What is spoken.
    pub application: Application,
    /// The network that UEs are in, for roaming (TS 29.273 §7.2.3.1).
    pub visited_network: Option<Arc<str>>,
    /// TLS from the first octet (RFC 6733 §13.1); none is plain TCP.
    pub tls: Option<Arc<ClientConfig>>,
    /// How long a server has to answer.
    pub timeout: Duration,
    /// Tw of RFC 3539 §3.4.1: how long a connection may be silent.
    pub watchdog: Duration,
}

/// One server or agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Server {
    /// As configured.
    pub name: Arc<str>,
    /// Where it is.
    pub addr: SocketAddr,
    /// Its DiameterIdentity, when it must have a certain one.
    pub host: Option<Arc<str>>,
}

impl Settings {
    /// Whether connections and sessions of one can go on under the other: everything but times and the files of TLS,
    /// which the next connection takes.
    pub(super) fn is_same_node(&self, other: &Self) -> bool {
        let node = |settings: &Self| {
            let Self { name, servers, origin_host, origin_realm, destination_realm, .. } = settings.clone();
            let rest =
                (settings.destination_host.clone(), settings.application, settings.visited_network.clone());
            (name, servers, origin_host, origin_realm, destination_realm, rest, settings.tls.is_some())
        };
        node(self) == node(other)
    }

    /// Those of the fuzzer: one server that is never reached.
    pub(super) fn fuzzed() -> Self {
        let server = Server { name: "a".into(), addr: SocketAddr::from(([192, 0, 2, 1], 3868)), host: None };
        Self {
            name: "a".into(),
            servers: vec![server],
            origin_host: "epdg.example".into(),
            origin_realm: "example".into(),
            destination_realm: None,
            destination_host: None,
            application: Application::Swm,
            visited_network: None,
            tls: None,
            timeout: Duration::from_secs(5),
            watchdog: Duration::from_secs(30),
        }
    }
}

impl Server {
    /// The name its certificate must be for.
    pub fn certificate_name(&self) -> ServerName<'static> {
        let name = self.host.as_deref().and_then(|host| ServerName::try_from(host.to_owned()).ok());
        name.unwrap_or_else(|| ServerName::from(self.addr.ip()))
    }
}

/// The application spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Application {
    /// SWm (TS 29.273 §7).
    Swm,
    /// EAP alone (RFC 4072), for servers that know nothing of 3GPP.
    Eap,
}

impl Application {
    /// Its Application-Id.
    pub fn id(self) -> u32 {
        match self {
            Self::Swm => application::SWM,
            Self::Eap => application::EAP,
        }
    }
}
