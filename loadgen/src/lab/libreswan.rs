//! libreswan with the kernel's ESP in TCP (RFC 8229) in the gateway's place.
//!
//! ```text
//!   swdemo-gw-PID                       guest
//!   path0 198.18.0.2 --+-- out0 .5 ---- .6 vec0    pluto, ESP in TCP
//!   gw1   198.19.0.1 --+-- in0  .5 ---- .6 vec1
//! ```
//!
//! Few kernels have ESP in TCP (INET_ESPINTCP), so a User-Mode Linux brings its own. The gateway's namespace only forwards
//! between its links and those of the guest. Kernel and root are those of the interop runs.

use super::network::{self, Network};
use super::program::Program;
use crate::demo::topology::POOL;
use crate::error::Failure;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// The guest's address on the path.
const ADDRESS: &str = "198.18.0.6";
/// Where pluto listens.
pub(super) const PORT: u16 = 4500;
/// The guest's end of its link to the far end.
const INNER: &str = "198.19.0.6";
/// Memory of a guest; half of it is in use.
const MEMORY: &str = "mem=128M";
/// Nobody but the UE reaches the guest.
const PSK: &str = "laboratory-psk-0123456789";
/// What the guest says when pluto listens.
const READY: &str = "libreswan is ready";

/// The suites that the gateway gets in the laboratory. What a UE needs of routes the guest has from the beginning, so
/// there is nothing left for the updown script.
const CONFIG: &str = r#"config setup
  logfile=/job/pluto.log
  listen-tcp=yes
  listen-udp=yes
  protostack=xfrm
conn ue
  ikev2=insist
  left=198.18.0.6
  leftid=@gw.lab.test
  leftsubnet=198.19.0.2/32
  leftmodecfgserver=yes
  leftupdown="%disabled"
  right=%any
  rightmodecfgclient=yes
  rightaddresspool=10.64.0.2-10.64.0.9
  narrowing=yes
  authby=secret
  ike=aes_gcm128-sha2_256;dh31
  esp=aes_gcm128
  esn=either
  enable-tcp=yes
  auto=ignore
"#;

/// What the guest does once it has booted. It never returns: its init would look for more to do 30 times a second.
///
/// The guest's driver sends what follows the first part in memory instead of the other parts of a packet that came in two
/// TCP segments, so it must not be given parts: ETHTOOL_SSG, without ethtool, which the guest does not have. The bounds of
/// sockets follow a machine's memory; these are those of one that has enough.
const SCRIPT: &str = r#"exec > /dev/console 2>&1
set -e
trap 'touch /job/halt' EXIT
ip addr add 198.18.0.6/30 dev vec0
ip addr add 198.19.0.6/30 dev vec1
ip link set vec0 up
perl -e '$off = pack("LL", 0x19, 0); socket(S, 2, 2, 0) && ioctl(S, 0x8946, pack("a16Px16", "vec1", $off)) or die "vec1: $!"'
ip link set vec1 up
ip route add default via 198.18.0.5
ip route add 198.19.0.0/30 via 198.19.0.5
sysctl -qw net.ipv4.ip_forward=1 net.ipv4.tcp_mem="8192 16384 24576"
sysctl -qw net.ipv4.tcp_wmem="4096 16384 4194304" net.ipv4.tcp_rmem="4096 131072 6291456"
cp /job/ipsec.conf /job/ipsec.secrets /etc/
chmod 600 /etc/ipsec.secrets
ipsec initnss --nssdir /run/nss
/usr/libexec/ipsec/pluto --config /etc/ipsec.conf --nssdir /run/nss
until ipsec whack --status > /dev/null 2>&1; do sleep 0.05; done
ipsec whack --listen
ipsec auto --add ue
"#;

/// Where `deploy/interop/setup` puts kernel and root of guests.
fn state() -> PathBuf {
    std::env::var_os("INTEROP_STATE").map_or_else(|| "/var/lib/interop".into(), PathBuf::from)
}

/// Returns what is missing on this machine and how to get it.
pub(super) fn lacks() -> Option<String> {
    lacks_in(&state())
}

fn lacks_in(state: &Path) -> Option<String> {
    let missing =
        ["linux", "root/swugate-init"].iter().map(|file| state.join(file)).find(|path| !path.is_file());
    missing
        .map(|path| format!("libreswan's guest has no {} (deploy/interop/setup libreswan)", path.display()))
}

/// Starts the guest and a UE with the device `device`; returns the UE's address inside, and both.
///
/// # Errors
/// [`Failure::Environment`] when the guest's files are missing or the kernel refuses a device, [`Failure::Check`] when
/// the tunnel does not come up.
pub(super) fn start(
    network: &Network,
    device: &str,
    mtu: &str,
    directory: &Path,
) -> Result<(Ipv4Addr, Vec<Program>), Failure> {
    if let Some(why) = lacks() {
        return Err(Failure::Environment(why));
    }
    link(network)?;
    let mut guest = boot(network, &state(), directory)?;
    guest.wait_for(READY)?;
    let to = format!("{ADDRESS}:{PORT}");
    let far = format!("{}/32", network::FAR);
    let args = [
        "ue",
        "--gateway",
        &to,
        "--transport",
        "tcp",
        "--tun",
        device,
        "--mtu",
        mtu,
        "--route",
        &far,
        "--timeout",
        "60",
    ];
    let own = super::tunnel::own_binary()?;
    let mut ue = Program::start(&network.ue, &own, &args, directory, "ue", &[("LOADGEN_PSK", PSK)])?;
    let inner = ue.wait_address(&network.ue, device).map_err(|failure| explain(failure, directory))?;
    Ok((inner, vec![guest, ue]))
}

/// Makes the host's ends of the guest's links, and the UE's way to it: with the guest's congestion control, whatever the
/// host's is. The guest's driver loses what is longer than its MTU, so nothing may leave to it unsegmented.
fn link(network: &Network) -> Result<(), Failure> {
    let gateway = &network.gateway;
    for (device, address) in [("out0", "198.18.0.5/30"), ("in0", "198.19.0.5/30")] {
        gateway.ip(&["tuntap", "add", device, "mode", "tap"])?;
        gateway.ip(&["link", "set", device, "gso_max_segs", "1"])?;
        gateway.address(device, address)?;
    }
    gateway.ip(&["route", "add", POOL, "via", INNER])?;
    let way = ["route", "add", ADDRESS, "via", &network::GATEWAY.to_string(), "congctl", "cubic"];
    network.ue.ip(&way).map(|_| ())
}

/// Boots the guest. It is several processes, some of which would outlive the first one if that was killed; in a namespace
/// of their own they end together.
fn boot(network: &Network, state: &Path, directory: &Path) -> Result<Program, Failure> {
    let secrets = format!(": PSK \"{PSK}\"\n");
    let script = format!("{SCRIPT}echo {READY}\nexec sleep infinity\n");
    for (name, text) in [("ipsec.conf", CONFIG), ("ipsec.secrets", &secrets), ("1.sh", &script)] {
        let path = directory.join(name);
        fs::write(&path, text).map_err(|error| super::tunnel::unwritten(&path, &error))?;
    }
    let kernel = state.join("linux");
    let (kernel, here) = (kernel.to_string_lossy(), directory.display());
    let (root, job) = (format!("rootflags={}", state.join("root").display()), format!("job={here}"));
    let own = format!("uml_dir={here}");
    let args = [
        "--pid",
        "--fork",
        "--kill-child",
        &kernel,
        MEMORY,
        "root=/dev/root",
        "rootfstype=hostfs",
        &root,
        "ro",
        "init=/swugate-init",
        &job,
        "con=null",
        "con0=null,fd:1",
        "quiet",
        "umid=guest",
        &own,
        "vec0:transport=tap,ifname=out0,depth=128",
        "vec1:transport=tap,ifname=in0,depth=128",
    ];
    Program::start(&network.gateway, Path::new("unshare"), &args, directory, "libreswan", &[])
}

/// Adds what pluto last said.
fn explain(failure: Failure, directory: &Path) -> Failure {
    let log = fs::read_to_string(directory.join("pluto.log")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let tail = lines[lines.len().saturating_sub(3)..].join(" | ");
    Failure::Check(format!("{failure}; pluto says: {tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_what_gets_it() {
        let state = tempfile::tempdir().unwrap();
        let lacks = || lacks_in(state.path());
        let why = lacks().unwrap();
        assert!(why.contains("/linux (deploy/interop/setup libreswan)"), "{why}");
        fs::write(state.path().join("linux"), "").unwrap();
        fs::create_dir(state.path().join("root")).unwrap();
        assert!(lacks().unwrap().contains("root/swugate-init"));
        fs::write(state.path().join("root/swugate-init"), "").unwrap();
        assert_eq!(lacks(), None);
    }

    #[test]
    fn the_guest_has_the_addresses_that_others_know_it_by() {
        assert!(CONFIG.contains(&format!("left={ADDRESS}\n")));
        assert!(CONFIG.contains(&format!("leftsubnet={}/32\n", network::FAR)));
        assert!(
            SCRIPT.contains(&format!("{ADDRESS}/30 dev vec0"))
                && SCRIPT.contains(&format!("{INNER}/30 dev vec1"))
        );
    }
}
