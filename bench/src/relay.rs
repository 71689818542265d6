//! `bench relay`: what a relay worker carries, and what a gigabyte of ESP costs it.
//!
//! The worker runs on the gateway's core between connections that write, or read, as fast as they can and a backend
//! that counts, or sends; both of those share the load's core. The packets are ESP in form only: a relay opens none.

use crate::bed::{Cores, Ground};
use crate::cli::RelayArgs;
use crate::machine::Watch;
use crate::report::{environment, figure, print_table, write_json};
use codec::stream::{LENGTH_LEN, STREAM_PREFIX};
use gateway::io::datagram::{self, RUN_LEN_MAX};
use gateway::io::sockets::{StreamOptions, listen_tcp};
use gateway::io::wake::Wake;
use gateway::relay::{self, Backend, Order, RelayCounters, RelayLimits, RelayParams};
use gateway::tls::{StreamKind, StreamListener};
use gateway::types::WorkerId;
use loadgen::demo::topology::{self, Namespace, Topology};
use loadgen::error::Failure;
use serde::Serialize;
use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

/// Octets of an ESP packet around an inner one of 1400 octets with AES-GCM.
const PACKET_LEN: usize = 1432;
/// Frames of one write of a UE.
const FRAMES: usize = 128;
/// The worker says once a second what it used.
const SETTLE: Duration = Duration::from_millis(1300);
/// Connections side by side.
const CONNECTIONS: [usize; 2] = [1, 16];

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    direction: &'static str,
    connections: usize,
    /// ESP octets that the worker passed on while they were sent, in bits per second.
    bits_per_s: f64,
    packets_per_s: f64,
    /// Thread CPU seconds of the worker per 10^9 octets of ESP that it passed on.
    cpu_s_per_gb: f64,
    /// Part of them that arrived: the far end of UDP shares its core with the connections that write.
    arrived: f64,
    /// Packets dropped by the worker.
    dropped: u64,
    /// Cores the hypervisor kept while they were sent.
    stolen: Option<f64>,
}

#[derive(Serialize)]
struct Report {
    command: &'static str,
    config: serde_json::Value,
    environment: serde_json::Value,
    rows: Vec<Row>,
    /// Mean of the rows.
    stolen: f64,
}

/// Runs the command.
///
/// # Errors
/// See [`Ground::prepare`]; a relay that cannot be started, or whose connections break.
pub fn run(args: &RelayArgs) -> Result<bool, Failure> {
    let ground = Ground::prepare(args.common.swugate.as_deref())?;
    let cores = Cores::choose(1)?;
    let span = Duration::from_secs_f64(args.seconds);
    let mut rows = Vec::new();
    for connections in CONNECTIONS {
        for up in [true, false] {
            let direction = if up { "up" } else { "down" };
            ground.progress.step(&format!("relay, {direction}, {connections} connections"));
            let topology = ground.network(&cores)?;
            rows.push(measure(&topology, &cores, connections, up, span).map_err(explain)?);
        }
    }
    let stolen = rows.iter().filter_map(|row| row.stolen).sum::<f64>() / rows.len() as f64;
    let report = Report {
        command: "relay",
        config: serde_json::json!({"seconds": args.seconds, "packet_len": PACKET_LEN}),
        environment: environment(),
        rows,
        stolen,
    };
    let cells = report.rows.iter().map(|row| {
        vec![
            format!("{}, {} connections", row.direction, row.connections),
            figure(Some(row.bits_per_s / 1e9), 2),
            figure(Some(row.packets_per_s / 1e3), 0),
            figure(Some(row.cpu_s_per_gb), 3),
            figure(Some(row.arrived), 2),
            row.dropped.to_string(),
        ]
    });
    print_table("relay, one worker", &["Gbit/s", "1000 packets/s", "CPU s/GB", "arrived", "dropped"], cells);
    println!("the hypervisor kept {:.2} cores meanwhile", report.stolen);
    write_json(args.common.json.as_deref(), &report)?;
    Ok(report.rows.iter().all(|row| row.arrived > 0.0))
}

fn explain(error: io::Error) -> Failure {
    Failure::Environment(format!("relay: {error}"))
}

/// Runs `work` in a namespace, on a core.
fn inside<R: Send>(
    namespace: &Namespace,
    core: usize,
    work: impl FnOnce() -> io::Result<R> + Send,
) -> io::Result<R> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            namespace.enter(core).map_err(|failure| io::Error::other(failure.to_string()))?;
            work()
        });
        thread.join().unwrap_or_else(|_| Err(io::Error::other("it panicked")))
    })
}

/// A running worker.
struct Relay {
    orders: Sender<Order>,
    wake: Wake,
    counters: Arc<RelayCounters>,
    thread: JoinHandle<()>,
}

impl Relay {
    fn start(backend: SocketAddr, core: usize) -> io::Result<Self> {
        let (orders, taken) = channel();
        let (wake, counters) = (Wake::new()?, Arc::new(RelayCounters::default()));
        let minute = Duration::from_secs(60);
        let thread = relay::start(RelayParams {
            id: WorkerId(0),
            core: Some(core),
            listeners: vec![StreamListener {
                socket: listen_tcp(topology::GATEWAY.into(), &StreamOptions::default())?,
                kind: StreamKind::Tcp,
            }],
            tls: None,
            backend: Backend { addr: backend, ike: None, sources: Vec::new() },
            limits: RelayLimits {
                connections: 1000,
                connections_per_source: 1000,
                prefix_timeout: minute,
                first_message_timeout: minute * 10,
                half_open_timeout: minute * 10,
                idle: minute * 10,
                bad_messages_in_a_row: 16,
                send_queue_octets: 256 << 10,
                unfinished: 64 << 20,
                ike_octets: 64 << 20,
            },
            counters: counters.clone(),
            orders: taken,
            wake: wake.try_clone()?,
        })?;
        Ok(Self { orders, wake, counters, thread })
    }

    fn stop(self) {
        let _ = self.orders.send(Order::Stop);
        self.wake.wake();
        let _ = self.thread.join();
    }
}

fn measure(
    topology: &Topology,
    cores: &Cores,
    connections: usize,
    up: bool,
    span: Duration,
) -> io::Result<Row> {
    let address = SocketAddr::from((*topology::SINK.ip(), 4500));
    let backend = inside(&topology.core, cores.load, || datagram::open(address))?;
    let core = cores.gateway[0];
    let relay = inside(&topology.gateway, core, || Relay::start(address, core))?;
    let ues: Vec<TcpStream> = inside(&topology.ue, cores.load, || {
        (0..connections).map(|_| TcpStream::connect(topology::GATEWAY)).collect()
    })?;
    // The first packet of each tells the backend its port.
    let mut ports = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    for mut ue in &ues {
        ue.write_all(&STREAM_PREFIX)?;
        ue.write_all(&frames(1))?;
        let run = loop {
            match datagram::receive_run(&backend, &mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(Duration::from_millis(1)),
                run => break run?,
            }
        };
        ports.extend(run.from);
    }
    sleep(SETTLE);
    let relayed = if up { &relay.counters.uplink_bytes } else { &relay.counters.downlink_bytes };
    let (cpu_before, relayed_before) = (relay.counters.cpu_ns.get(), relayed.get());
    let (begun_at, mut watch) = (Instant::now(), Watch::default());
    watch.begin();
    let done = AtomicBool::new(false);
    let (arrived, rate) = std::thread::scope(|scope| {
        let (done, backend, ports) = (&done, &backend, &ports);
        let threads: Vec<_> = ues
            .iter()
            .map(|ue| {
                scope.spawn(move || on_load(cores, || if up { write(ue, span) } else { read(ue, span) }))
            })
            .collect();
        let far = scope.spawn(move || {
            on_load(cores, || if up { count(backend, done) } else { send(backend, ports, span) })
        });
        // The rate is that of the time in which they send: what is on the way then, and the ends of the threads, come after it.
        sleep(span);
        let rate = (relayed.get() - relayed_before) as f64 / begun_at.elapsed().as_secs_f64();
        watch.end();
        let mut octets = 0;
        for thread in threads {
            octets += thread.join().unwrap_or_else(|_| Err(io::Error::other("a UE panicked")))?;
        }
        sleep(Duration::from_millis(100));
        done.store(true, Ordering::Relaxed);
        let counted = far.join().unwrap_or_else(|_| Err(io::Error::other("the backend panicked")))?;
        Ok::<_, io::Error>((if up { counted } else { octets }, rate))
    })?;
    sleep(SETTLE);
    let cpu_s = (relay.counters.cpu_ns.get() - cpu_before) as f64 / 1e9;
    let dropped = relay.counters.drops().map(|(_, n)| n).sum();
    let octets = (relayed.get() - relayed_before) as f64;
    relay.stop();
    Ok(Row {
        direction: if up { "up" } else { "down" },
        connections,
        bits_per_s: rate * 8.0,
        packets_per_s: rate / PACKET_LEN as f64,
        cpu_s_per_gb: cpu_s / octets.max(1.0) * 1e9,
        arrived: arrived as f64 / octets.max(1.0),
        dropped,
        stolen: watch.usage().map(|usage| usage.stolen),
    })
}

fn on_load<R>(cores: &Cores, work: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
    gateway::io::thread::pin_to_core(cores.load)?;
    work()
}

/// So many frames of ESP.
fn frames(count: usize) -> Vec<u8> {
    let mut frame = ((PACKET_LEN + LENGTH_LEN) as u16).to_be_bytes().to_vec();
    frame.resize(LENGTH_LEN + PACKET_LEN, 0x5a);
    frame.repeat(count)
}

fn write(mut ue: &TcpStream, span: Duration) -> io::Result<u64> {
    let (chunk, begun_at) = (frames(FRAMES), Instant::now());
    while begun_at.elapsed() < span {
        ue.write_all(&chunk)?;
    }
    Ok(0)
}

fn read(mut ue: &TcpStream, span: Duration) -> io::Result<u64> {
    ue.set_read_timeout(Some(Duration::from_millis(100)))?;
    let (mut chunk, begun_at, mut octets) = (vec![0; 256 << 10], Instant::now(), 0);
    while begun_at.elapsed() < span {
        match ue.read(&mut chunk) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => octets += len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok((octets as f64 * PACKET_LEN as f64 / (PACKET_LEN + LENGTH_LEN) as f64) as u64)
}

fn count(backend: &UdpSocket, done: &AtomicBool) -> io::Result<u64> {
    let (mut buffer, mut octets) = (vec![0; 1 << 16], 0);
    while !done.load(Ordering::Relaxed) {
        match datagram::receive_run(backend, &mut buffer) {
            Ok(run) => octets += run.len as u64,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(Duration::from_micros(50)),
            Err(error) => return Err(error),
        }
    }
    Ok(octets)
}

fn send(backend: &UdpSocket, ports: &[SocketAddr], span: Duration) -> io::Result<u64> {
    let packet = [0x5a; PACKET_LEN];
    let parts = vec![IoSlice::new(&packet); RUN_LEN_MAX / PACKET_LEN];
    let begun_at = Instant::now();
    while begun_at.elapsed() < span {
        for port in ports {
            match datagram::send(backend, &parts, Some(PACKET_LEN as u16), Some(*port)) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
    }
    Ok(0)
}
