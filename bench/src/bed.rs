//! The bed every measurement lies in: three namespaces, a running swugate, a far end, and threads in place.
//!
//! The gateway has its cores to itself as far as there are enough; UEs and far end share the last one, and each side's
//! receive work runs on its own cores, so the two sides are like two hosts.

use crate::path::child;
use codec::ip::LONG_OCTETS_MAX;
use loadgen::command::read_psk_config;
use loadgen::demo::gateway::{Gateway, Setup, find_binary};
use loadgen::demo::topology::{self, Cleanup, Namespace, Topology};
use loadgen::engine::{self, AttachOutcome, Congestion, Fleet, FleetPlan, SourceSpread};
use loadgen::error::Failure;
use loadgen::host::process::GatewayProcess;
use loadgen::host::{affinity, privilege, signal};
use loadgen::report::Progress;
use loadgen::sink::{Served, Sink};
use loadgen::ue::Identity;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Suites of IKE and ESP; UEs choose among the latter.
const IKE: &str = "aes128gcm16-prfsha256-x25519";
/// ESP with AES-128-GCM.
pub const GCM: &str = "aes128gcm16";
/// ESP with AES-CBC-256 and HMAC-SHA2-256.
pub const CBC: &str = "aes256-sha256";
/// Part of the inner device's queue that stays free: one in so many packets.
const QUEUE_SPARE: u32 = 8;
/// Congestion control of all TCP in the bed, where the kernel has it: the default of most hosts. BBR, which is that of some,
/// sends by timers.
const CONGESTION: &str = "cubic";
/// Most connections of one scenario.
const UES_MAX: u64 = 4096;

/// What a command needs before its first bed: privilege, programs, and the promise to clean up.
pub struct Ground {
    swugate: PathBuf,
    cleanup: Arc<Cleanup>,
    /// What the user sees meanwhile.
    pub progress: Progress,
}

impl Ground {
    /// Checks privilege and programs; from now on a signal removes what was made.
    ///
    /// # Errors
    /// [`Failure::Environment`] without root or the gateway binary.
    pub fn prepare(swugate: Option<&Path>) -> Result<Self, Failure> {
        privilege::require_root("bench makes network namespaces and")?;
        privilege::require_files(UES_MAX)?;
        let swugate = find_binary(swugate)?;
        let cleanup = Arc::new(Cleanup::default());
        let on_signal = cleanup.clone();
        signal::on_termination(move || {
            child::kill_all();
            on_signal.run();
            eprintln!("stopped; everything is removed");
            std::process::exit(1);
        })?;
        Ok(Self { swugate, cleanup, progress: Progress::new() })
    }

    /// Builds the network alone.
    ///
    /// # Errors
    /// [`Failure::Environment`] with what iproute2 said.
    pub fn network(&self, cores: &Cores) -> Result<Topology, Failure> {
        Topology::create(self.cleanup.clone(), &cores.gateway, cores.load)
    }
}

/// Which cores each side has.
#[derive(Clone, Debug)]
pub struct Cores {
    /// One worker on each.
    pub gateway: Vec<usize>,
    /// UEs and far end.
    pub load: usize,
}

impl Cores {
    /// Gives `workers` the first cores and the load the last one, which they share when there are too few.
    ///
    /// # Errors
    /// [`Failure::Usage`] when there are fewer cores than workers.
    pub fn choose(workers: usize) -> Result<Self, Failure> {
        let allowed = affinity::allowed_cores();
        let load = allowed.last().copied().unwrap_or(0);
        let gateway: Vec<usize> = allowed.iter().copied().take(workers).collect();
        if gateway.len() < workers {
            return Err(Failure::Usage(format!("{workers} workers on {} cores", gateway.len())));
        }
        Ok(Self { gateway, load })
    }
}

/// The far end's thread.
struct FarEnd {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Served, Failure>>,
}

/// Namespaces, a gateway and a far end; everything goes when it is dropped.
pub struct Bed {
    far_end: Option<FarEnd>,
    gateway: Option<Gateway>,
    process: GatewayProcess,
    psk: String,
    /// The network.
    pub topology: Topology,
    /// Who runs where.
    pub cores: Cores,
}

impl Bed {
    /// Builds the network and starts gateway and far end; `flow_queue` says whether downlink packets wait in flow queues.
    ///
    /// # Errors
    /// What failed: the network, the gateway, or the far end's socket.
    pub fn start(ground: &Ground, cores: Cores, flow_queue: bool) -> Result<Self, Failure> {
        let topology = ground.network(&cores)?;
        let listen = congestion().map(|name| format!("congestion = \"{name}\"")).unwrap_or_default();
        let setup = Setup {
            cores: cores.gateway.clone(),
            ike: IKE,
            esp: &[GCM, CBC],
            flow_queue,
            udp: false,
            certificate: None,
            tls: false,
            listen: &listen,
            inner: &format!("offload_octets = {LONG_OCTETS_MAX}"),
            sims: None,
        };
        let gateway = Gateway::start(&ground.swugate, &topology.gateway, &setup, &ground.cleanup)?;
        let process = GatewayProcess::by_pid(gateway.pid())
            .ok_or_else(|| Failure::Check("the gateway ended at once".into()))?;
        let psk = gateway.psk().to_owned();
        let mut bed = Self { far_end: None, gateway: Some(gateway), process, psk, topology, cores };
        bed.far_end = Some(bed.start_far_end()?);
        Ok(bed)
    }

    fn start_far_end(&self) -> Result<FarEnd, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        let sink = self.on_load(&self.topology.core, || Sink::bind(topology::SINK.into(), true))?;
        let (until, core) = (stop.clone(), self.cores.load);
        let thread = std::thread::spawn(move || {
            affinity::pin(core)?;
            sink.run(&until)
        });
        Ok(FarEnd { stop, thread })
    }

    /// Runs `work` in a thread inside `namespace`, on the load's core.
    ///
    /// # Errors
    /// What `work` returns, or that the thread could not be placed.
    pub fn on_load<R: Send>(
        &self,
        namespace: &Namespace,
        work: impl FnOnce() -> Result<R, Failure> + Send,
    ) -> Result<R, Failure> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                namespace.enter(self.cores.load)?;
                work()
            });
            thread.join().unwrap_or_else(|_| Err(Failure::Check("a thread of the bench panicked".into())))
        })
    }

    /// Attaches `ues` UEs with ESP suite `esp`, runs `work` with them and detaches them.
    ///
    /// # Errors
    /// [`Failure::Check`] when a UE does not attach.
    pub fn with_fleet<R: Send>(
        &self,
        ues: u32,
        esp: &str,
        work: impl AsyncFnOnce(&Fleet) -> R + Send,
    ) -> Result<R, Failure> {
        let config = Arc::new(read_psk_config(&self.psk, IKE, esp)?);
        let congestion = congestion().and_then(|name| Congestion::find(name).ok());
        self.on_load(&self.topology.ue, || {
            engine::run(async {
                let plan = FleetPlan {
                    gateway: topology::GATEWAY.into(),
                    udp: false,
                    tls: None,
                    ues,
                    rate: None,
                    in_flight: 256,
                    source: SourceSpread::new(Some(topology::sources())),
                    congestion,
                    config,
                    who: Rc::new(|index| Identity::parse(&format!("ue-{index}@bench.test")).into()),
                    random: Box::new(codec::OsRandom),
                };
                let (fleet, attach) = Fleet::attach(plan, &Progress::new()).await;
                let result = match all_attached(&attach) {
                    Ok(()) => Ok(work(&fleet).await),
                    Err(failure) => Err(failure),
                };
                fleet.detach().await;
                result
            })?
        })
        .map_err(|failure| self.explain(failure))
    }

    /// Lets the inner devices carry super-packets, or single packets only.
    ///
    /// # Errors
    /// [`Failure::Environment`] with what iproute2 said.
    pub fn set_super_packets(&self, on: bool) -> Result<(), Failure> {
        // The kernel cuts a super-packet itself before a device that takes one segment at a time.
        let segments = if on { "65535" } else { "1" };
        let set = |namespace: &Namespace, device: &str| {
            namespace.ip(&["link", "set", "dev", device, "gso_max_segs", segments]).map(|_| ())
        };
        set(&self.topology.gateway, "swu0")?;
        set(&self.topology.gateway, "gw1")?;
        set(&self.topology.core, "core0")
    }

    /// Returns how many packets may stand in the queue of the inner device, a part of which stays free.
    pub fn inner_queue(&self) -> Option<u32> {
        self.topology.inner_queue().map(|packets| packets - packets / QUEUE_SPARE)
    }

    /// Returns the gateway's process.
    pub fn process(&self) -> GatewayProcess {
        self.process
    }

    /// Returns the key all UEs share.
    pub fn psk(&self) -> &str {
        &self.psk
    }

    /// Returns what the gateway has dropped so far, all reasons together; `None` when it does not say.
    pub fn drops(&self) -> Option<u64> {
        self.gateway.as_ref()?.drops().map(|drops| drops.values().sum())
    }

    /// Adds the end of the gateway's log to a failure.
    pub fn explain(&self, failure: Failure) -> Failure {
        match &self.gateway {
            Some(gateway) => gateway.explain(failure),
            None => failure,
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if let Some(far_end) = self.far_end.take() {
            far_end.stop.store(true, Ordering::Relaxed);
            let _ = far_end.thread.join();
        }
        if let Some(gateway) = self.gateway.take() {
            gateway.stop();
        }
    }
}

/// The congestion control that the ends are asked for; the kernel's default without.
pub fn congestion() -> Option<&'static str> {
    Congestion::find(CONGESTION).is_ok().then_some(CONGESTION)
}

fn all_attached(attach: &AttachOutcome) -> Result<(), Failure> {
    match attach.failed.iter().next() {
        None => Ok(()),
        Some((cause, count)) => Err(Failure::Check(format!("{count} UEs did not attach: {cause}"))),
    }
}
