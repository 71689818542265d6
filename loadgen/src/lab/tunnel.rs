//! The way through the path: a tunnel of ours, another's, or none.

use super::libreswan;
use super::network::{self, Network};
use super::program::Program;
use super::results::Point;
use crate::demo::certificate::Certificate;
use crate::demo::gateway::{Gateway, Setup};
use crate::demo::topology::{Cleanup, Namespace};
use crate::error::Failure;
use crate::host::process::GatewayProcess;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The UE's device inside.
const DEVICE: &str = "lab0";
/// OpenVPN's port.
const OPENVPN_PORT: u16 = 1194;
/// Ends of OpenVPN's tunnel.
const OPENVPN: [&str; 2] = ["10.64.0.1", "10.64.0.2"];
const NO_OPENVPN: &str = "openvpn is not installed (apt-get install openvpn)";
/// Octets of an inner packet, for all tunnels.
const MTU: &str = "1400";

/// A way that stands.
pub struct Tunnel {
    /// The UE's address inside.
    pub inner: Ipv4Addr,
    /// Port of the outer connection at the gateway; `None` without one.
    pub outer_port: Option<u16>,
    gateway: Option<Gateway>,
    /// Process that does the work of a gateway of others.
    server: Option<u32>,
    programs: Vec<Program>,
}

impl Tunnel {
    /// Builds the way of `point`.
    ///
    /// # Errors
    /// [`Failure::Environment`] when a program is missing, [`Failure::Check`] when the tunnel does not come up.
    pub fn start(
        network: &Network,
        point: &Point,
        core: usize,
        swugate: Option<&Path>,
        cleanup: &Arc<Cleanup>,
    ) -> Result<Self, Failure> {
        match point.transport.as_str() {
            "plain" => Ok(Self::of_others(network::UE, None, None, Vec::new())),
            "openvpn-tcp" => Self::openvpn(network, cleanup),
            "libreswan" => {
                let (inner, programs) = libreswan::start(network, DEVICE, MTU, &make_directory(cleanup)?)?;
                // Most of a guest's CPU time is that of User-Mode Linux, which says nothing about ESP in TCP.
                Ok(Self::of_others(inner, Some(libreswan::PORT), None, programs))
            }
            _ => Self::swugate(network, point, core, swugate, cleanup),
        }
    }

    fn of_others(
        inner: Ipv4Addr,
        outer_port: Option<u16>,
        server: Option<u32>,
        programs: Vec<Program>,
    ) -> Self {
        Self { inner, outer_port, gateway: None, server, programs }
    }

    fn swugate(
        network: &Network,
        point: &Point,
        core: usize,
        swugate: Option<&Path>,
        cleanup: &Arc<Cleanup>,
    ) -> Result<Self, Failure> {
        let binary = crate::demo::gateway::find_binary(swugate)?;
        let (udp, tls) = (point.transport == "udp", point.transport == "tls");
        let certificate = tls.then(Certificate::new).transpose()?;
        let (listen, inner) = gateway_keys(point);
        let setup = Setup {
            cores: vec![core],
            ike: "aes128gcm16-prfsha256-x25519",
            esp: &["aes128gcm16"],
            flow_queue: point.flow_queue,
            udp,
            certificate: certificate.as_ref().map(|certificate| (&*certificate.chain, &*certificate.key)),
            tls,
            listen: &listen,
            inner: &inner,
            sims: None,
        };
        let gateway = Gateway::start(&binary, &network.gateway, &setup, cleanup)?;
        let to = format!("{}:4500", network::GATEWAY);
        let far = format!("{}/32", network::FAR);
        let mut args = vec!["ue", "--gateway", &to, "--transport", &point.transport];
        args.extend(["--tun", DEVICE, "--route", &far, "--timeout", "60"]);
        if !point.offload {
            args.push("--no-offload");
        }
        let chain = gateway.directory().join("gw.pem");
        let chain = chain.to_string_lossy();
        if tls {
            args.extend(["--tls-ca", &chain, "--tls-name", "gw.demo.test"]);
        }
        let own = own_binary()?;
        let mut ue = Program::start(
            &network.ue,
            &own,
            &args,
            gateway.directory(),
            "ue",
            &[("LOADGEN_PSK", gateway.psk())],
        )?;
        let inner = ue.wait_address(&network.ue, DEVICE).map_err(|failure| gateway.explain(failure))?;
        let outer_port = (!udp).then_some(4500);
        Ok(Self { inner, outer_port, gateway: Some(gateway), server: None, programs: vec![ue] })
    }

    /// OpenVPN 2.6, TCP, AES-128-GCM, one client.
    fn openvpn(network: &Network, cleanup: &Arc<Cleanup>) -> Result<Self, Failure> {
        let binary = openvpn().ok_or_else(|| Failure::Environment(NO_OPENVPN.into()))?;
        let directory = make_directory(cleanup)?;
        write_credentials(&directory)?;
        let port = OPENVPN_PORT.to_string();
        let gateway = network::GATEWAY.to_string();
        let common = [
            "--cd",
            &directory.to_string_lossy(),
            "--dev",
            DEVICE,
            "--dev-type",
            "tun",
            "--port",
            &port,
            "--ca",
            "ca.pem",
            "--data-ciphers",
            "AES-128-GCM",
            "--tun-mtu",
            MTU,
            "--mssfix",
            "0",
        ]
        .map(str::to_owned);
        let start = |namespace: &Namespace, role: &str, own: &[&str]| {
            let args: Vec<&str> = common.iter().map(String::as_str).chain(own.iter().copied()).collect();
            Program::start(namespace, &binary, &args, &directory, role, &[])
        };
        let server = start(
            &network.gateway,
            "server",
            &[
                "--proto",
                "tcp-server",
                "--tls-server",
                "--dh",
                "none",
                "--cert",
                "server.pem",
                "--key",
                "server.key",
                "--ifconfig",
                OPENVPN[0],
                OPENVPN[1],
            ],
        )?;
        let mut client = start(
            &network.ue,
            "client",
            &[
                "--proto",
                "tcp-client",
                "--remote",
                &gateway,
                "--tls-client",
                "--cert",
                "client.pem",
                "--key",
                "client.key",
                "--ifconfig",
                OPENVPN[1],
                OPENVPN[0],
            ],
        )?;
        let inner = client.wait_address(&network.ue, DEVICE)?;
        network.ue.ip(&["route", "add", &network::FAR.to_string(), "dev", DEVICE])?;
        client.wait_for("Initialization Sequence Completed")?;
        Ok(Self::of_others(inner, Some(OPENVPN_PORT), Some(server.id()), vec![client, server]))
    }

    /// Returns the CPU seconds of the gateway so far.
    pub fn gateway_cpu_s(&self) -> Option<f64> {
        let pid = self.gateway.as_ref().map(Gateway::pid).or(self.server)?;
        Some(GatewayProcess::by_pid(pid)?.cpu()?.process_s)
    }

    /// Returns what the gateway has dropped, by reason.
    pub fn drops(&self) -> std::collections::BTreeMap<String, u64> {
        self.gateway.as_ref().and_then(Gateway::drops).unwrap_or_default()
    }

    /// Says whether a program has ended that should not have.
    pub fn is_broken(&mut self) -> bool {
        self.programs.iter_mut().any(Program::has_ended)
    }

    /// Ends all programs.
    pub fn stop(self) {
        drop(self.programs);
        if let Some(gateway) = self.gateway {
            gateway.stop();
        }
    }
}

/// Returns what a transport needs and this machine lacks, and how to get it.
pub fn lacks(transport: &str) -> Option<String> {
    match transport {
        "openvpn-tcp" if openvpn().is_none() => Some(NO_OPENVPN.into()),
        "libreswan" => libreswan::lacks(),
        _ => None,
    }
}

fn openvpn() -> Option<PathBuf> {
    ["/usr/sbin/openvpn", "/usr/bin/openvpn"].map(PathBuf::from).into_iter().find(|path| path.is_file())
}

/// Lines of `[listen]` and `[inner]` for what a point wants otherwise than the gateway.
fn gateway_keys(point: &Point) -> (String, String) {
    let (mut listen, mut inner) = (String::new(), String::new());
    if !point.nodelay {
        listen.push_str("nodelay = false\n");
    }
    if let Some(octets) = point.unsent_octets {
        let _ = writeln!(inner, "unsent_octets = {octets}");
    }
    if !point.offload {
        inner.push_str("offload = false\n");
    }
    (listen, inner)
}

pub(super) fn own_binary() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|error| Failure::Environment(format!("our own binary: {error}")))
}

pub(super) fn unwritten(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Environment(format!("{}: {error}", path.display()))
}

/// Makes a directory for a tunnel's files, which `cleanup` removes.
fn make_directory(cleanup: &Cleanup) -> Result<PathBuf, Failure> {
    let directory = std::env::temp_dir().join(format!("swdemo-{}", std::process::id()));
    fs::create_dir_all(&directory).map_err(|error| unwritten(&directory, &error))?;
    cleanup.set_directory(&directory);
    Ok(directory)
}

/// A certificate authority and one certificate for each end.
fn write_credentials(directory: &Path) -> Result<(), Failure> {
    let make = || -> Result<Vec<(&str, String)>, rcgen::Error> {
        // Each its own name: by default all have the same, and would look self-signed.
        let named = |name: &str| -> Result<CertificateParams, rcgen::Error> {
            let mut params = CertificateParams::new(vec![name.to_owned()])?;
            params.distinguished_name.push(DnType::CommonName, name);
            Ok(params)
        };
        let mut params = named("lab")?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let ca = params.self_signed(&key)?;
        let issuer = rcgen::Issuer::new(params, key);
        let mut files = vec![("ca.pem", ca.pem())];
        for (name, chain, secret) in
            [("server", "server.pem", "server.key"), ("client", "client.pem", "client.key")]
        {
            let key = KeyPair::generate()?;
            let certificate = named(name)?.signed_by(&key, &issuer)?;
            files.extend([(chain, certificate.pem()), (secret, key.serialize_pem())]);
        }
        Ok(files)
    };
    let files = make().map_err(|error| Failure::Environment(format!("making certificates: {error}")))?;
    for (name, text) in files {
        let path = directory.join(name);
        fs::write(&path, text).map_err(|error| unwritten(&path, &error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_from_the_gateway_is_written() {
        let (_, mut point) = super::super::matrix::Matrix::read(None).unwrap().points().unwrap()[0].clone();
        assert_eq!(gateway_keys(&point), (String::new(), String::new()));
        (point.nodelay, point.unsent_octets, point.offload) = (false, Some(65_536), false);
        let (listen, inner) = gateway_keys(&point);
        assert_eq!(listen, "nodelay = false\n");
        assert_eq!(inner, "unsent_octets = 65536\noffload = false\n");
    }
}
