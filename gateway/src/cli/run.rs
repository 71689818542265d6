//! `swugate run`: from a configuration file to a running gateway.
//!
//! The order matters. What needs root comes first (device, ports, steering program, run directory), then
//! privileges go, and only then threads start, because capabilities belong to threads.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use crossbeam::channel::bounded;
use tokio::sync::mpsc;

use super::{config_failure, relay};
use crate::admin::{http, socket};
use crate::config::{self, Config, InnerSection, Queueing};
use crate::control::aaa::{Aaa, Outbox};
use crate::control::administration::Administration;
use crate::control::dispatch::Dispatcher;
use crate::control::engine::Engine;
use crate::control::inner::{self, LocalAddrs};
use crate::control::namespace;
use crate::control::pool::PoolConfig;
use crate::control::run::{ControlLoop, Inputs, Workers};
use crate::error::Failure;
use crate::io::steering::SteeringMap;
use crate::io::tun::{self, InnerDevice, TunQueue};
use crate::io::udp::{UdpSocket, listen_udp};
use crate::io::wake::Wake;
use crate::io::{sockets, thread};
use crate::log::LogLevel;
use crate::process;
use crate::tls::StreamListener;
use crate::types::{NetworkId, WORKERS_MAX, WorkerId};
use crate::worker::control_queue::control_queue;
use crate::worker::counters::WorkerCounters;
use crate::worker::{self, InboxHandle, InnerConfig, NetworkConfig, WorkerLimits, WorkerParams};

/// Requests of administrators waiting for the control loop.
pub(super) const CALLS_MAX: usize = 64;

/// How long a UDP address may still be held by a gateway that has ended, and how often that is looked at.
const PREDECESSOR_GONE: Duration = Duration::from_secs(3);
const PREDECESSOR_PAUSE: Duration = Duration::from_millis(50);

/// What was opened while the process still had its privileges.
struct Opened {
    /// By worker, then by listening address.
    listeners: Vec<Vec<StreamListener>>,
    /// By worker, then by listening address.
    datagrams: Vec<Vec<UdpSocket>>,
    metrics: Option<TcpListener>,
    inner: OpenedInner,
}

/// The inner devices.
struct OpenedInner {
    /// Their queues: by worker, then by network.
    queues: Vec<Vec<TunQueue>>,
    /// By network.
    steering: Vec<Option<SteeringMap>>,
    /// The host's own addresses of networks in namespaces of their own.
    elsewhere: AHashMap<NetworkId, Arc<[IpAddr]>>,
    /// Their threads hold privileges as long as these exist.
    privileged: Vec<Sender<()>>,
    /// Where changes of addresses are told, and where they are read.
    changes: (mpsc::Sender<LocalAddrs>, mpsc::Receiver<LocalAddrs>),
}

/// Runs until drained.
pub(super) fn run(file: &Path) -> Result<(), Failure> {
    let started = Instant::now();
    let config = Arc::new(config::load(file).map_err(config_failure)?);
    let log = LogLevel::start(&config.debug.log);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    process::check_io_uring()?;
    if let Some(backend) = config.relay.clone() {
        return relay::run(config, backend, log, started);
    }
    process::check_net_admin()?;
    process::raise_resource_limits();
    let user = config.gateway.user.as_deref().map(process::find_user).transpose()?;
    socket::prepare(&config.gateway.run_dir, user.as_ref())?;
    if config.aaa.iter().any(|section| section.kind.keeps_state()) {
        process::make_directory(&config.gateway.state_dir, user.as_ref())?;
    }
    let mut opened = open(&config)?;
    process::drop_privileges(user.as_ref(), process::GATEWAY_KEEPS)?;
    opened.inner.privileged.clear();
    let admin = Administration::new(config.clone(), log, started);
    let run_dir = config.gateway.run_dir.clone();
    let result = tokio_uring::start(serve(config, opened, admin));
    socket::clean_up(&run_dir);
    result
}

/// Workers to run: as configured, else one per core they may use.
pub(super) fn worker_count(config: &Config) -> usize {
    let cores = match config.gateway.cores.len() {
        0 => thread::allowed_cores().len(),
        cores => cores,
    };
    config.gateway.workers.unwrap_or(cores).clamp(1, WORKERS_MAX)
}

fn open(config: &Config) -> Result<Opened, Failure> {
    let workers = worker_count(config);
    let listeners = listen(config, workers)?;
    let datagrams = open_udp(config, workers)?;
    let metrics = config.metrics.map(bind_metrics).transpose()?;
    let inner = open_inner(config, workers)?;
    Ok(Opened { listeners, datagrams, metrics, inner })
}

fn open_inner(config: &Config, workers: usize) -> Result<OpenedInner, Failure> {
    let mut opened = OpenedInner {
        queues: (0..workers).map(|_| Vec::new()).collect(),
        steering: Vec::new(),
        elsewhere: AHashMap::new(),
        privileged: Vec::new(),
        changes: mpsc::channel(config.inner.len()),
    };
    for (network, section) in networks(config) {
        let device = &section.device;
        let queues = match &section.netns {
            None => tun::open(device, workers, section.super_packets())
                .map_err(|error| Failure::system(format!("device {device}: /dev/net/tun"), &error))?,
            Some(netns) => {
                let changes = opened.changes.0.clone();
                let made =
                    namespace::open(network, section, netns, pools(config, network), workers, changes)?;
                opened.elsewhere.insert(network, made.local_addrs);
                opened.privileged.push(made.privileged);
                made.queues
            }
        };
        opened.steering.push(steering(&queues, config));
        opened.queues.iter_mut().zip(queues).for_each(|(of, queue)| of.push(queue));
    }
    Ok(opened)
}

fn networks(config: &Config) -> impl Iterator<Item = (NetworkId, &InnerSection)> {
    (0..).map(NetworkId).zip(&config.inner)
}

/// The pools of a network.
fn pools(config: &Config, network: NetworkId) -> Vec<PoolConfig> {
    config.responder.pools.iter().filter(|pool| pool.network == network).cloned().collect()
}

/// Opens the accept queues of `[listen]`: by worker, then by address.
pub(super) fn listen(config: &Config, workers: usize) -> Result<Vec<Vec<StreamListener>>, Failure> {
    let mut listeners: Vec<Vec<StreamListener>> = (0..workers).map(|_| Vec::new()).collect();
    for (kind, addr) in config.listen.streams() {
        let key = kind.key();
        for queues in &mut listeners {
            match sockets::listen_tcp(addr, &config.listen.options) {
                Ok(socket) => queues.push(StreamListener { socket, kind }),
                Err(error) if addr.is_ipv6() && is_no_ipv6(&error) => {
                    tracing::warn!("listen.{key} {addr}: {error}; this host has no IPv6");
                    break;
                }
                Err(error) => return Err(Failure::system(format!("listen.{key} {addr}"), &error)),
            }
        }
    }
    if listeners.iter().any(Vec::is_empty) {
        return Err(Failure::Environment("listen: none of the addresses for TCP can be used".into()));
    }
    Ok(listeners)
}

fn open_udp(config: &Config, workers: usize) -> Result<Vec<Vec<UdpSocket>>, Failure> {
    let mut datagrams: Vec<Vec<UdpSocket>> = (0..workers).map(|_| Vec::new()).collect();
    for &addr in &config.listen.udp {
        match listen_when_free(addr, workers, config.limits.udp_socket_octets) {
            Ok(sockets) => datagrams.iter_mut().zip(sockets).for_each(|(of, socket)| of.push(socket)),
            Err(error) if addr.is_ipv6() && is_no_ipv6(&error) => {
                tracing::warn!("listen.udp {addr}: {error}; this host has no IPv6");
            }
            Err(error) => return Err(Failure::system(format!("listen.udp {addr}"), &error)),
        }
    }
    Ok(datagrams)
}

/// A gateway that has just ended may hold the address a moment longer: the kernel takes its rings, and the receives in
/// them, apart after the process is gone.
fn listen_when_free(addr: SocketAddr, workers: usize, octets: u32) -> std::io::Result<Vec<UdpSocket>> {
    let deadline = Instant::now() + PREDECESSOR_GONE;
    loop {
        match listen_udp(addr, workers, octets) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(PREDECESSOR_PAUSE);
            }
            other => return other,
        }
    }
}

fn is_no_ipv6(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

pub(super) fn bind_metrics(addr: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(addr).map_err(|error| Failure::system(format!("metrics.listen {addr}"), &error))
}

/// Steering is an optimisation: without it workers pass packets on to each other.
fn steering(queues: &[TunQueue], config: &Config) -> Option<SteeringMap> {
    if queues.len() < 2 {
        return None;
    }
    let capacity = config.limits.sessions.saturating_mul(2);
    match SteeringMap::attach(queues.first()?.as_fd(), capacity) {
        Ok(map) => Some(map),
        Err(error) => {
            tracing::warn!("no steering program on the inner device: {error}; workers pass packets on");
            None
        }
    }
}

async fn serve(config: Arc<Config>, opened: Opened, admin: Administration) -> Result<(), Failure> {
    let Opened { listeners, datagrams, metrics, inner } = opened;
    let OpenedInner { queues, steering, elsewhere, privileged: _, changes: (changes, local_addrs) } = inner;
    let here: Vec<NetworkId> = networks(&config)
        .filter(|(_, section)| section.netns.is_none())
        .map(|(network, _)| network)
        .collect();
    for (network, section) in networks(&config).filter(|(network, _)| here.contains(network)) {
        inner::set_up_device(section, &pools(&config, network)).await?;
    }
    inner::watch_local_addrs(here, changes)?;
    let inner = inner_config(&config, &inner::local_addrs().await?, &elsewhere);
    let (workers, inboxes) = start_workers(&config, listeners, datagrams, queues, &inner)?;
    let now = Instant::now();
    let dispatcher = Dispatcher::new(&inboxes, config.limits.inbox_backlog as usize, steering);
    let (outbox, aaa_answers) = Outbox::new();
    let aaa = Aaa::open(&config, outbox)?;
    let mut engine =
        Engine::new(config.responder.clone(), dispatcher, aaa, config.limits.log_lines_per_s, now);
    engine.attempts.set_named(config.debug.identities);
    let (calls, incoming) = mpsc::channel(CALLS_MAX);
    let connections = config.limits.admin_connections;
    if let Some(listener) = metrics {
        http::serve(listener, calls.clone(), connections)
            .map_err(|error| Failure::system("metrics", &error))?;
    }
    let socket = socket::ControlSocket::open(&config.gateway.run_dir)?;
    tokio_uring::spawn(socket.serve(calls, connections));
    ControlLoop::new(engine, workers, admin)
        .run(Inputs { calls: incoming, local_addrs, aaa: aaa_answers })
        .await
}

fn inner_config(
    config: &Config,
    here: &Arc<[IpAddr]>,
    elsewhere: &AHashMap<NetworkId, Arc<[IpAddr]>>,
) -> InnerConfig {
    let network = |(network, section): (NetworkId, &InnerSection)| NetworkConfig {
        pools: pools(config, network)
            .iter()
            .flat_map(|pool| &pool.prefixes)
            .map(|prefix| (prefix.addr(), prefix.prefix_len()))
            .collect(),
        mtu: section.mtu,
        hairpin: section.hairpin,
        local_addrs: elsewhere.get(&network).unwrap_or(here).clone(),
    };
    InnerConfig {
        networks: networks(config).map(network).collect(),
        queueing: config.inner.first().map_or_else(Queueing::default, |section| section.queueing),
    }
}

fn start_workers(
    config: &Config,
    listeners: Vec<Vec<StreamListener>>,
    datagrams: Vec<Vec<UdpSocket>>,
    queues: Vec<Vec<TunQueue>>,
    inner: &InnerConfig,
) -> Result<(Workers, Vec<Arc<InboxHandle>>), Failure> {
    let failed = |error: std::io::Error| Failure::system("starting workers", &error);
    let count = queues.len();
    let wake = Wake::new().map_err(failed)?;
    let mut inboxes = Vec::with_capacity(count);
    let mut receivers = Vec::with_capacity(count);
    for _ in 0..count {
        let (queue, receiver) = bounded(config.limits.inbox as usize);
        let inbox_wake = Wake::new().map_err(failed)?;
        receivers.push((receiver, inbox_wake.try_clone().map_err(failed)?));
        inboxes.push(Arc::new(InboxHandle { queue, wake: inbox_wake }));
    }
    let mut workers = Workers { queues: Vec::new(), wake, counters: Vec::new(), threads: Vec::new() };
    let parts = listeners.into_iter().zip(datagrams).zip(queues).zip(receivers);
    for (id, (((listeners, datagrams), devices), (inbox, inbox_wake))) in parts.enumerate() {
        let (control, queue) = control_queue(
            config.limits.control_queue as usize,
            usize::try_from(config.limits.control_queue_octets).unwrap_or(usize::MAX),
        );
        let counters = Arc::new(WorkerCounters::default());
        let cores = &config.gateway.cores;
        let params = WorkerParams {
            id: WorkerId(id as u8),
            core: (!cores.is_empty()).then(|| cores[id % cores.len()]),
            listeners,
            tls: config.tls.clone(),
            datagrams,
            devices: devices.into_iter().map(|device| Box::new(device) as Box<dyn InnerDevice>).collect(),
            inbox,
            inbox_wake,
            control,
            control_wake: workers.wake.try_clone().map_err(failed)?,
            peers: inboxes.clone(),
            limits: worker_limits(config, count),
            counters: counters.clone(),
            inner: inner.clone(),
        };
        let thread =
            worker::start(params).map_err(|error| Failure::system(format!("worker {id}"), &error))?;
        workers.queues.push(queue);
        workers.counters.push(counters);
        workers.threads.push(thread);
    }
    Ok((workers, inboxes))
}

fn worker_limits(config: &Config, workers: usize) -> WorkerLimits {
    let limits = &config.limits;
    let seconds = |s: u32| Duration::from_secs(s.into());
    let octets = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    WorkerLimits {
        connections: limits.connections.div_ceil(workers as u32),
        connections_per_source: limits.connections_per_source,
        prefix_timeout: seconds(limits.prefix_s),
        first_message_timeout: seconds(limits.first_message_s),
        half_open_timeout: seconds(limits.half_open_s),
        linger: seconds(limits.linger_s),
        replaced_idle: seconds(limits.replaced_idle_s),
        bad_messages_in_a_row: limits.bad_messages,
        ike_unanswered: limits.ike_unanswered,
        udp_ike_unanswered: limits.udp_ike_unanswered,
        send_queue_octets: limits.send_queue_octets as usize,
        send_memory: octets(limits.send_memory_octets),
        flow_queue_octets: limits.flow_queue_octets as usize,
        flow_memory: octets(limits.flow_memory_octets),
        receive_memory: octets(limits.receive_memory_octets),
        udp_receive_memory: octets(limits.udp_receive_memory_octets),
        zero_copy: usize::try_from(limits.zero_copy_send_octets).ok().filter(|&octets| octets > 0),
        unfinished: octets(limits.unfinished_octets),
        early: octets(limits.early_octets),
        tls_handshakes: limits.tls_handshakes,
    }
}
