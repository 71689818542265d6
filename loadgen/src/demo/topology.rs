//! The network of a test: three namespaces and two links.

use crate::error::Failure;
use crate::host::iproute::ip;
use crate::host::{affinity, big_tcp, netns};
use ipnet::{IpNet, Ipv4Net};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Prefix of all namespaces of the demo; the process id follows.
const PREFIX: &str = "swdemo-";
/// The gateway as UEs see it. 198.18.0.0/15 is for benchmarks (RFC 2544).
pub const GATEWAY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 2), 4500);
/// The UEs' end of the link to the gateway.
pub const UE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// The gateway's end of the link to the core network.
pub const GATEWAY_CORE: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
/// The sink on the core side.
pub const SINK: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 19, 0, 2), 9000);
/// Where the plain TCP receiver listens.
pub const PLAIN: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 2), 5201);
/// The gateway's inner device.
pub(crate) const INNER_DEVICE: &str = "swu0";
/// Longest TCP segment on the link between UEs and gateway, in octets: what a UE of loadgen writes at once.
const SEGMENT_MAX: u32 = 270_000;
/// Packets from other cores that a core keeps until it comes to them, and where the host says how many. Its default of
/// 1,000 is for network cards, which wait instead of dropping; a thousand UEs that speak at once are beyond it.
const BACKLOG: u32 = 16_384;
const BACKLOG_PATH: &str = "/proc/sys/net/core/netdev_max_backlog";
/// Inner addresses.
pub const POOL: &str = "10.64.0.0/16";

/// Source addresses of the UEs.
pub fn sources() -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 1, 0), 24))
}

/// What has to go at the end, known to the signal thread as well.
#[derive(Default)]
pub struct Cleanup {
    state: Mutex<CleanupState>,
}

#[derive(Default)]
struct CleanupState {
    gateway: Option<i32>,
    namespaces: Vec<String>,
    directory: Option<std::path::PathBuf>,
    /// What the host's backlog was.
    backlog: Option<String>,
}

impl Cleanup {
    /// Ends the gateway and removes namespaces and files; harmless when repeated.
    pub fn run(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pid) = state.gateway.take() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        for name in state.namespaces.drain(..) {
            let _ = ip(&["netns", "del", &name]);
        }
        if let Some(directory) = state.directory.take() {
            let _ = std::fs::remove_dir_all(directory);
        }
        if let Some(backlog) = state.backlog.take() {
            let _ = std::fs::write(BACKLOG_PATH, backlog);
        }
    }

    pub(super) fn set_gateway(&self, pid: Option<i32>) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).gateway = pid;
    }

    pub(crate) fn set_directory(&self, directory: &Path) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).directory = Some(directory.to_owned());
    }

    /// Lengthens the backlog of the host's cores until [`Cleanup::run`].
    fn lengthen_backlog(&self) {
        let Ok(backlog) = std::fs::read_to_string(BACKLOG_PATH) else { return };
        let shorter = backlog.trim().parse::<u32>().is_ok_and(|packets| packets < BACKLOG);
        if shorter && std::fs::write(BACKLOG_PATH, BACKLOG.to_string()).is_ok() {
            self.state.lock().unwrap_or_else(PoisonError::into_inner).backlog.get_or_insert(backlog);
        }
    }

    fn add_namespace(&self, name: &str) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).namespaces.push(name.to_owned());
    }
}

/// One namespace.
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes the namespace of a role; `cleanup` removes it.
    ///
    /// # Errors
    /// [`Failure::Environment`] with what iproute2 said.
    pub(crate) fn create(role: &str, cleanup: &Cleanup) -> Result<Self, Failure> {
        let name = format!("{PREFIX}{role}-{}", std::process::id());
        ip(&["netns", "add", &name])?;
        cleanup.add_namespace(&name);
        let namespace = Self { name };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Returns its name, as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Does `work` inside, in a thread of its own: a namespace is entered for good.
    ///
    /// # Errors
    /// Those of `work`, and of [`netns::enter`].
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T, Failure> + Send) -> Result<T, Failure> {
        netns::inside(&self.name, work)
    }

    /// Moves the calling thread into the namespace and onto `core`.
    ///
    /// # Errors
    /// See [`netns::enter`] and [`affinity::pin`].
    pub fn enter(&self, core: usize) -> Result<(), Failure> {
        netns::enter(&self.name)?;
        affinity::pin(core)
    }

    /// Does what [`Namespace::enter`] does, onto any of `cores`, for a thread that outlives this borrow.
    pub(super) fn thread_entry(
        &self,
        cores: &[usize],
    ) -> impl FnOnce() -> Result<(), Failure> + Send + 'static {
        let (name, cores) = (self.name.clone(), cores.to_vec());
        move || netns::enter(&name).and_then(|()| affinity::pin_to(&cores))
    }

    /// Runs `ip ARGS` inside.
    ///
    /// # Errors
    /// [`Failure::Environment`] with what it said.
    pub fn ip(&self, args: &[&str]) -> Result<String, Failure> {
        ip(&[&["-n", &self.name], args].concat())
    }

    /// Gives `device` an address and takes it up.
    pub(crate) fn address(&self, device: &str, address: &str) -> Result<(), Failure> {
        self.ip(&["address", "add", address, "dev", device])?;
        self.ip(&["link", "set", device, "up"]).map(|_| ())
    }

    /// Lets `cores` do the receiving work of `device`. The namespace's own /sys is only visible inside.
    fn steer(&self, device: &str, cores: &[usize]) -> Result<(), Failure> {
        let path = format!("/sys/class/net/{device}/queues/rx-0/rps_cpus");
        let script = format!("echo {} > {path}", cpu_mask(cores));
        ip(&["netns", "exec", &self.name, "sh", "-c", &script]).map(|_| ())
    }

    /// Sets `key` of /proc/sys/net inside.
    pub(crate) fn sysctl(&self, key: &str, value: &str) -> Result<(), Failure> {
        let script = format!("echo {value} > /proc/sys/net/{key}");
        ip(&["netns", "exec", &self.name, "sh", "-c", &script]).map(|_| ())
    }
}

/// Mask of cores in the kernel's form: groups of 32 bits, the highest first.
fn cpu_mask(cores: &[usize]) -> String {
    let mut groups = vec![0_u32; cores.iter().max().map_or(1, |highest| highest / 32 + 1)];
    for core in cores {
        groups[core / 32] |= 1 << (core % 32);
    }
    let mut groups = groups.iter().rev();
    let first = groups.next().map(|group| format!("{group:x}"));
    first.into_iter().chain(groups.map(|group| format!("{group:08x}"))).collect::<Vec<_>>().join(",")
}

/// The whole network; removed on drop.
pub struct Topology {
    /// Where the UEs are.
    pub ue: Namespace,
    /// Where the gateway is.
    pub gateway: Namespace,
    /// Where the far end is.
    pub core: Namespace,
    cleanup: Arc<Cleanup>,
}

impl Topology {
    /// Makes the network; `gateway_cores` do the receiving work of the gateway's links, `load_core` that of the UEs'.
    ///
    /// # Errors
    /// [`Failure::Environment`] with what iproute2 said.
    pub fn create(cleanup: Arc<Cleanup>, gateway_cores: &[usize], load_core: usize) -> Result<Self, Failure> {
        remove_leftovers();
        let guard = CleanupOnError(&cleanup);
        cleanup.lengthen_backlog();
        let ue = Namespace::create("ue", &cleanup)?;
        let gateway = Namespace::create("gw", &cleanup)?;
        let core = Namespace::create("core", &cleanup)?;
        for (left, left_device, right, right_device) in
            [(&ue, "ue0", &gateway, "gw0"), (&gateway, "gw1", &core, "core0")]
        {
            ip(&[
                "link",
                "add",
                left_device,
                "netns",
                &left.name,
                "type",
                "veth",
                "peer",
                "name",
                right_device,
                "netns",
                &right.name,
            ])?;
        }
        // Of the inner link only the way out: what comes in passes the inner device, which takes 64 KB.
        for (namespace, device) in [(&ue, "ue0"), (&gateway, "gw0"), (&gateway, "gw1")] {
            // Without it the link is slower, not wrong.
            let _ = big_tcp::allow(&namespace.name, device, SEGMENT_MAX);
        }
        ue.address("ue0", "198.18.0.1/30")?;
        gateway.address("gw0", "198.18.0.2/30")?;
        gateway.address("gw1", "198.19.0.1/30")?;
        core.address("core0", "198.19.0.2/30")?;
        let sources = sources().to_string();
        ue.ip(&["route", "add", "local", &sources, "dev", "lo"])?;
        gateway.ip(&["route", "add", &sources, "via", "198.18.0.1"])?;
        core.ip(&["route", "add", POOL, "via", "198.19.0.1"])?;
        gateway.sysctl("ipv4/ip_forward", "1")?;
        for device in ["gw0", "gw1"] {
            gateway.sysctl(&format!("ipv4/conf/{device}/rp_filter"), "0")?;
            gateway.steer(device, gateway_cores)?;
        }
        gateway.sysctl("ipv4/conf/all/rp_filter", "0")?;
        ue.steer("ue0", &[load_core])?;
        // What arrives at core0 is received where it was sent, on the gateway's cores: the interrupt that would hand a packet
        // over costs them several times as much in a virtual machine.
        std::mem::forget(guard);
        Ok(Self { ue, gateway, core, cleanup })
    }
}

impl Topology {
    /// Makes the link to the core network carry single packets: what is longer is cut before it enters.
    ///
    /// # Errors
    /// [`Failure::Environment`] with what iproute2 said.
    pub fn take_offloads_off(&self) -> Result<(), Failure> {
        self.gateway.ip(&["link", "set", "gw1", "gso_max_segs", "1"])?;
        self.core.ip(&["link", "set", "core0", "gso_max_segs", "1"]).map(|_| ())
    }

    /// Returns the entries that the queue of the gateway's inner device has; `None` when it does not say.
    pub fn inner_queue(&self) -> Option<u32> {
        let text = self.gateway.ip(&["-o", "link", "show", INNER_DEVICE]).ok()?;
        queue_len(&text)
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        self.cleanup.run();
    }
}

/// Reads the queue's length in what `ip -o link show` says, where a backslash stands for the end of a line.
fn queue_len(link: &str) -> Option<u32> {
    let mut words = link.split(['\\', ' ', '\n']).skip_while(|word| *word != "qlen");
    words.nth(1)?.parse().ok()
}

/// Removes a half-built network.
struct CleanupOnError<'a>(&'a Cleanup);

impl Drop for CleanupOnError<'_> {
    fn drop(&mut self) {
        self.0.run();
    }
}

/// Removes namespaces of demos whose process is gone.
pub(crate) fn remove_leftovers() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.rsplit('-').next())
            .and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = ip(&["netns", "del", &name]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_length_is_found_in_what_ip_says() {
        let joined = "4: swu0: <POINTOPOINT,UP> mtu 1400 qdisc mq state UNKNOWN group default qlen 8192\\    link/none ";
        assert_eq!(queue_len(joined), Some(8192));
        assert_eq!(queue_len("4: swu0: mtu 1400 qlen 500 \\    link/none"), Some(500));
        assert_eq!(queue_len("4: swu0: mtu 1400"), None);
    }

    #[test]
    fn masks_of_high_cores_have_groups() {
        assert_eq!(cpu_mask(&[0]), "1");
        assert_eq!(cpu_mask(&[5]), "20");
        assert_eq!(cpu_mask(&[0, 1]), "3");
        assert_eq!(cpu_mask(&[32]), "1,00000000");
        assert_eq!(cpu_mask(&[2, 65]), "2,00000000,00000004");
    }
}
