//! The network of one measurement.
//!
//! ```text
//!   swdemo-ue-PID              swdemo-gw-PID               swdemo-core-PID
//!   UE, workload  --- path ---  gateway  ----- veth -----  workload
//!   198.18.0.1                  .0.2   198.19.0.1          198.19.0.2
//! ```
//!
//! The path is a pair of TUN devices with a [`Link`] between them, which runs in a thread of its own.

use super::point;
use super::results::Point;
use crate::demo::topology::{Cleanup, Namespace, POOL, remove_leftovers};
use crate::error::Failure;
use crate::host::iproute::ip;
use crate::host::tcp_info::congestion_controls;
use crate::path::{Counters, Link, Port};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// The UE's address on the path.
pub const UE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// The gateway's.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
/// The far end.
pub const FAR: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 2);
/// Octets of an IP packet on the path.
const MTU: usize = 1_500;

/// Three namespaces, and the path between two of them; all removed on drop.
pub struct Network {
    /// Where the UE is.
    pub ue: Namespace,
    /// Where the gateway is.
    pub gateway: Namespace,
    /// Where the far end is.
    pub core: Namespace,
    path: Option<Running>,
    cleanup: Arc<Cleanup>,
}

struct Running {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<[Counters; 2], Failure>>,
}

impl Network {
    /// Makes it, with the path of `point`.
    ///
    /// # Errors
    /// [`Failure::Environment`] with what the kernel refused.
    pub fn create(cleanup: Arc<Cleanup>, point: &Point, seed: u64) -> Result<Self, Failure> {
        remove_leftovers();
        let [ue, gateway, core] = ["ue", "gw", "core"].map(|role| Namespace::create(role, &cleanup));
        let mut network = Self { ue: ue?, gateway: gateway?, core: core?, path: None, cleanup };
        network.join_core()?;
        let near = port(&network.ue, UE)?;
        let far = port(&network.gateway, GATEWAY)?;
        network.choose_congestion_control(&point.outer_cc)?;
        network.ue.ip(&["route", "add", "default", "via", &GATEWAY.to_string()])?;
        // Other fates on the way up.
        let specs = [point::spec(point, seed ^ 1 << 32), point::spec(point, seed)];
        network.path = Some(Running::start(Link::new([near, far], specs)?));
        Ok(network)
    }

    fn join_core(&self) -> Result<(), Failure> {
        let (gateway, core) = (self.gateway.name(), self.core.name());
        ip(&[
            "link", "add", "gw1", "netns", gateway, "type", "veth", "peer", "name", "core0", "netns", core,
        ])?;
        self.gateway.address("gw1", "198.19.0.1/30")?;
        self.core.address("core0", "198.19.0.2/30")?;
        self.core.ip(&["route", "add", "default", "via", "198.19.0.1"])?;
        self.core.ip(&["route", "add", POOL, "via", "198.19.0.1"])?;
        self.gateway.sysctl("ipv4/ip_forward", "1")?;
        self.gateway.sysctl("ipv4/conf/all/rp_filter", "0")?;
        self.gateway.sysctl("ipv4/conf/default/rp_filter", "0")
    }

    /// Has every connection over the path begin with a congestion control, at both ends. By the route, since a
    /// namespace's default may only be one of those that the host allows to everybody.
    fn choose_congestion_control(&self, name: &str) -> Result<(), Failure> {
        for (namespace, own) in [(&self.ue, UE), (&self.gateway, GATEWAY)] {
            let own = own.to_string();
            let route = ["route", "replace", "198.18.0.0/30", "dev", "path0", "src", &own, "congctl", name];
            namespace.ip(&route).map_err(|failure| {
                Failure::Environment(format!(
                    "congestion control {name}: {failure}; this kernel has {}, others may need modprobe tcp_{name}",
                    congestion_controls()
                ))
            })?;
        }
        Ok(())
    }

    /// Ends the path and returns what it did to packets: up, then down.
    ///
    /// # Errors
    /// What ended it before.
    pub fn end_path(&mut self) -> Result<[Counters; 2], Failure> {
        match self.path.take() {
            Some(running) => running.end(),
            None => Ok(Default::default()),
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.end_path();
        self.cleanup.run();
    }
}

impl Running {
    fn start(mut link: Link) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            link.run(&told).map_err(|error| Failure::Environment(format!("the path broke: {error}")))?;
            Ok(link.counters())
        });
        Self { stop, thread }
    }

    fn end(self) -> Result<[Counters; 2], Failure> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|_| Err(Failure::Environment("the path's thread panicked".into())))
    }
}

fn port(namespace: &Namespace, address: Ipv4Addr) -> Result<Port, Failure> {
    namespace.inside(|| Port::tun("path0", MTU, Some(address)))
}
