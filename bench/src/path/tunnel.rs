//! One real UE: `loadgen ue` with a TUN device, for the kernel's traffic.

use super::child::Program;
use crate::bed::{Bed, GCM, congestion};
use loadgen::demo::topology;
use loadgen::error::Failure;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Name of its TUN device.
const DEVICE: &str = "swue0";
/// Longest wait until it is attached.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(10);

/// A running `loadgen ue`; detached when stopped.
pub struct Tunnel {
    program: Program,
    /// Its address inside the tunnel.
    pub address: Ipv4Addr,
}

impl Tunnel {
    /// Attaches it. `first` runs it ahead of everything else on its core (SCHED_FIFO), where that is allowed.
    ///
    /// # Errors
    /// [`Failure::Check`] when it does not attach.
    pub fn start(bed: &Bed, first: bool) -> Result<Self, Failure> {
        let loadgen = beside("loadgen")?;
        let gateway = topology::GATEWAY.to_string();
        let far = format!("{}/32", topology::SINK.ip());
        let core = bed.cores.load.to_string();
        let loadgen_path = loadgen.to_string_lossy();
        let mut args: Vec<&str> = if first { vec!["-f", "10", &loadgen_path] } else { Vec::new() };
        args.extend(["ue", "--gateway", &gateway, "--tun", DEVICE, "--route", &far]);
        args.extend(["--esp", GCM, "--core", &core]);
        args.extend(congestion().into_iter().flat_map(|name| ["--congestion", name]));
        let executable = if first { PathBuf::from("chrt") } else { loadgen.clone() };
        let environment = [("LOADGEN_PSK", bed.psk())];
        let mut program =
            Program::start(bed, &bed.topology.ue, "loadgen ue", executable, &args, &environment)?;
        let deadline = Instant::now() + ATTACH_TIMEOUT;
        while Instant::now() < deadline {
            if let Some(address) = address(bed) {
                choose_congestion_control(bed, &far)?;
                return Ok(Self { program, address });
            }
            if program.has_ended() {
                program.finish(Duration::ZERO)?;
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(bed.explain(Failure::Check("loadgen ue did not attach".into())))
    }

    /// Detaches it.
    pub fn stop(self) {
        self.program.stop();
    }
}

/// Has the kernel's TCP through the tunnel begin with the bed's congestion control. Its own default may send by timers,
/// as BBR does, and a connection that begins with that goes on so whatever it is given later, as by `iperf3 -C`.
fn choose_congestion_control(bed: &Bed, far: &str) -> Result<(), Failure> {
    let Some(name) = congestion() else { return Ok(()) };
    let via = topology::GATEWAY_CORE.to_string();
    bed.topology.ue.ip(&["route", "replace", far, "dev", DEVICE, "congctl", name])?;
    bed.topology.core.ip(&["route", "replace", topology::POOL, "via", &via, "congctl", name])?;
    Ok(())
}

/// The address of the TUN device once the route to the far end leads through it.
fn address(bed: &Bed) -> Option<Ipv4Addr> {
    let far = topology::SINK.ip().to_string();
    let said = bed.topology.ue.ip(&["-j", "route", "get", &far]).ok()?;
    let routes: serde_json::Value = serde_json::from_str(&said).ok()?;
    let route = routes.get(0)?;
    if route.get("dev")?.as_str()? != DEVICE {
        return None;
    }
    let said = bed.topology.ue.ip(&["-j", "-4", "address", "show", "dev", DEVICE]).ok()?;
    let devices: serde_json::Value = serde_json::from_str(&said).ok()?;
    devices.get(0)?.get("addr_info")?.get(0)?.get("local")?.as_str()?.parse().ok()
}

/// Finds the program `name` beside this one.
fn beside(name: &str) -> Result<PathBuf, Failure> {
    let path = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(name)));
    path.filter(|path| path.is_file()).ok_or_else(|| {
        Failure::Environment(format!(
            "there is no {name} beside this program; build it with `cargo build --release -p loadgen`"
        ))
    })
}
