//! `swugate originate`: its options, and what they mean.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::error::Failure;
use crate::log::LogLevel;
use crate::originate::{self, Options};
use crate::process;
use crate::tls::{SettingsError, TlsClient};

/// Where distributions keep the authorities they believe.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Takes UDP 500 and 4500 of IKE clients to a gateway over TCP (RFC 9329).
#[derive(Args)]
pub(super) struct Originate {
    /// Address the clients know as their gateway's.
    #[arg(long, value_name = "A")]
    listen: IpAddr,
    /// The gateway: host or address, and its TCP port.
    #[arg(long, value_name = "H:P")]
    gateway: String,
    /// TLS around the stream (RFC 9329 Appendix A).
    #[arg(long)]
    tls: bool,
    /// Certificates of the authorities to believe, PEM.
    #[arg(long, value_name = "FILE", requires = "tls", default_value = SYSTEM_AUTHORITIES)]
    tls_ca: PathBuf,
    /// Name in the gateway's certificate, and in the ClientHello; default: the host of --gateway.
    #[arg(long, value_name = "NAME", requires = "tls")]
    tls_name: Option<String>,
    /// Try UDP first, for so many seconds, before a new IKE SA goes over TCP (RFC 9329 §5.1).
    #[arg(long, value_name = "S", num_args = 0..=1, default_missing_value = "3", value_parser = clap::value_parser!(u32).range(1..=60))]
    udp_first: Option<u32>,
    /// Ports to listen on: IKE without a marker; IKE behind a marker, and ESP.
    #[arg(long, value_name = "IKE,NAT", value_delimiter = ',', num_args = 1, default_value = "500,4500")]
    ports: Vec<u16>,
    /// Log filter: a level, or directives such as "info,gateway::originate=debug".
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
}

/// Runs until SIGTERM.
pub(super) fn run(asked: &Originate) -> Result<(), Failure> {
    let usage = |message: String| Failure::Config(vec![message]);
    let [ike, nat] = asked.ports[..] else {
        return Err(usage("--ports: two ports, such as 500,4500".into()));
    };
    if ike == 0 || nat == 0 || ike == nat {
        return Err(usage("--ports: two different ports from 1 to 65535".into()));
    }
    let gateways = resolve(&asked.gateway).map_err(usage)?;
    let tls = asked.tls.then(|| tls(asked)).transpose().map_err(usage)?;
    LogLevel::start(&asked.log);
    process::raise_resource_limits();
    tracing::info!(listen = %asked.listen, gateways = ?gateways, "originating RFC 9329");
    originate::run(Options {
        listen: asked.listen,
        ports: (ike, nat),
        gateways,
        tls,
        udp_first: asked.udp_first.map(|s| Duration::from_secs(s.into())),
    })
}

/// What `--tls` and its options mean.
fn tls(asked: &Originate) -> Result<TlsClient, String> {
    let host = asked.gateway.rsplit_once(':').map_or("", |(host, _)| host);
    let name = asked.tls_name.as_deref().unwrap_or(host.trim_start_matches('[').trim_end_matches(']'));
    TlsClient::load(&asked.tls_ca, name).map_err(|error| match error {
        SettingsError::Name(what) => format!("--tls-name: {what}"),
        other => {
            let file = asked.tls_ca.display();
            format!("--tls-ca {file}: a readable PEM file with certificates of authorities ({other})")
        }
    })
}

fn resolve(gateway: &str) -> Result<Vec<SocketAddr>, String> {
    let found = gateway.to_socket_addrs().map_err(|error| {
        format!("--gateway {gateway}: host:port or address:port, such as gw.example:4500 or [2001:db8::1]:4500 ({error})")
    })?;
    let found: Vec<SocketAddr> = found.filter(|addr| addr.port() != 0).collect();
    if found.is_empty() { Err(format!("--gateway {gateway}: no address")) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_has_an_address_and_a_port() {
        assert_eq!(resolve("192.0.2.1:4500"), Ok(vec!["192.0.2.1:4500".parse().expect("address")]));
        assert_eq!(resolve("[2001:db8::1]:443").map(|found| found.len()), Ok(1));
        for wrong in ["192.0.2.1", "192.0.2.1:0", "", ":", "192.0.2.1:70000"] {
            assert!(resolve(wrong).is_err(), "{wrong}");
        }
    }
}
