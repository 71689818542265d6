//! UEs, gateway and core in a row, and the gateway running.

use crate::support::{Namespaces, gateway, ip, is_root};
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 1);
/// A host behind the gateway.
pub const CORE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

const IMSI: &str = "001010000000000";
const K: &str = "465b5ce8b199b49faa5f0a2ee238a6bc";
const OPC: &str = "cd63cb71954a9f4e48a5994e37a02baf";
/// The SIMs that the gateway knows, as options of `loadgen`.
pub const SIMS: [(&str, &str); 3] = [("--imsi", IMSI), ("--k", K), ("--opc", OPC)];
/// How many there are: each case and its control take a few.
const SIM_COUNT: u64 = 300;

pub struct Lab {
    gateway: Child,
    directory: tempfile::TempDir,
    namespaces: Namespaces,
}

impl Lab {
    /// `None` when this is not root.
    pub fn start(name: &str) -> Option<Self> {
        if !is_root() {
            return None;
        }
        let namespaces = Namespaces::create(&format!("swab-{name}"), &["u", "g", "c"]);
        let [ues, middle, core] = [0, 1, 2].map(|index| namespaces.0[index].as_str());
        for (outer, peer, own) in [
            (ues, "ue0", ["10.20.0.2/24", "10.20.0.1/24"]),
            (core, "core0", ["10.77.0.2/24", "10.77.0.1/24"]),
        ] {
            ip(&["-n", outer, "link", "add", "gw0", "type", "veth", "peer", "name", peer, "netns", middle]);
            for (namespace, device, address) in [(outer, "gw0", own[0]), (middle, peer, own[1])] {
                ip(&["-n", namespace, "addr", "add", address, "dev", device]);
                ip(&["-n", namespace, "link", "set", device, "up"]);
            }
        }
        ip(&["-n", core, "route", "add", "10.64.0.0/16", "via", "10.77.0.1"]);
        let forward = ["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"];
        assert!(namespaces.command(1, "sh").args(forward).status().unwrap().success());
        let directory = tempfile::tempdir().unwrap();
        write_config(directory.path());
        let gateway = namespaces
            .command(1, gateway())
            .args(["run", "-c", "swugate.toml"])
            .current_dir(directory.path())
            .stderr(Stdio::from(std::fs::File::create(directory.path().join("log")).unwrap()))
            .spawn()
            .unwrap();
        let lab = Self { gateway, directory, namespaces };
        let deadline = Instant::now() + Duration::from_secs(10);
        while !lab.abuse(&["--case", "header-alone"]).status.success() {
            assert!(Instant::now() < deadline, "{}", lab.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        Some(lab)
    }

    /// Runs `loadgen abuse` among the UEs.
    pub fn abuse(&self, args: &[&str]) -> Output {
        let mut loadgen = self.namespaces.command(0, env!("CARGO_BIN_EXE_loadgen"));
        loadgen.args(["abuse", "--gateway", &format!("{GATEWAY}:4500")]).args(args).output().unwrap()
    }

    /// A file of the test.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Whether the gateway is still there.
    pub fn runs(&mut self) -> bool {
        self.gateway.try_wait().unwrap().is_none()
    }

    /// What the gateway complained about.
    pub fn log(&self) -> String {
        let log = std::fs::read_to_string(self.file("log")).unwrap_or_default();
        log.lines().filter(|line| !line.contains(" INFO ")).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // `ip netns exec` has become the gateway.
        let _ = self.gateway.kill();
        let _ = self.gateway.wait();
    }
}

fn write_config(directory: &Path) {
    let config = r#"[gateway]
identity = "gw.test"
workers = 1
run_dir = "run"
[listen]
tcp = ["10.20.0.1:4500"]
udp = []
[inner]
device = "swu0"
[certificate]
chain = "gw.pem"
key = "gw.key"
ca = "gw.pem"
[[pool]]
name = "default"
prefixes = ["10.64.0.0/16"]
[[profile]]
name = "lab"
match = { idi = "*", idr = "*" }
auth = "psk"
secrets_file = "secrets.toml"
[[profile]]
name = "phones"
match = { idi = "0*", idr = "*" }
auth = "eap-aka"
secrets_file = "secrets.toml"
"#;
    let own = rcgen::generate_simple_self_signed(["gw.test".to_owned()]).unwrap();
    let mut secrets = "psk = \"test-secret\"\n".to_owned();
    for index in 0..SIM_COUNT {
        let imsi = IMSI.parse::<u64>().unwrap() + index;
        writeln!(secrets, "[[secret]]\nimsi = \"{imsi:015}\"\nk = \"{K}\"\nopc = \"{OPC}\"").unwrap();
    }
    for (name, text) in [
        ("swugate.toml", config),
        ("secrets.toml", &secrets),
        ("gw.pem", &own.cert.pem()),
        ("gw.key", &own.signing_key.serialize_pem()),
    ] {
        std::fs::write(directory.join(name), text).unwrap();
    }
}
