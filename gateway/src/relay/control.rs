//! The main thread of a relay: administrators, signals, and what the workers report.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::{Order, RelayCounters};
use crate::admin::api::{Answer, Call, ControlStats, MemoryStats, Request, Stats, Traffic, WorkerStats};
use crate::admin::{http, socket};
use crate::config::{self, Config};
use crate::control::attach::AttachHistogram;
use crate::error::Failure;
use crate::io::thread::cpu_time;
use crate::io::wake::Wake;
use crate::log::LogLevel;
use crate::process::{notify_supervisor, resident_octets};
use crate::tls::TlsServer;

/// Requests of administrators waiting for the loop.
const CALLS_MAX: usize = 64;

/// How often the loop looks after the workers, and whether a drain is over.
const HOUSEKEEPING: Duration = Duration::from_millis(200);

/// How long a worker has to answer an administrator.
const ANSWER_MAX: Duration = Duration::from_millis(500);

/// The main thread's end of one worker.
pub struct RelayWorker {
    /// Its orders.
    pub orders: Sender<Order>,
    /// Wakes it for them.
    pub wake: Wake,
    /// Its counters.
    pub counters: Arc<RelayCounters>,
    /// Its thread.
    pub thread: JoinHandle<()>,
}

impl RelayWorker {
    fn order(&self, order: Order) {
        // A worker that has ended is noticed by the loop.
        let _ = self.orders.send(order);
        self.wake.wake();
    }
}

/// The loop of the main thread.
pub struct Control {
    config: Arc<Config>,
    workers: Vec<RelayWorker>,
    /// What the workers offer where TLS is spoken.
    tls: Option<TlsServer>,
    log: LogLevel,
    started: Instant,
    drain: Option<Drain>,
}

struct Drain {
    deadline: Instant,
    caller: Option<oneshot::Sender<Answer>>,
}

impl Control {
    /// The loop of a relay that runs with `config`.
    pub fn new(config: Arc<Config>, workers: Vec<RelayWorker>, log: LogLevel, started: Instant) -> Self {
        let tls = config.tls.clone();
        Self { config, workers, tls, log, started, drain: None }
    }

    /// Runs until drained.
    ///
    /// # Errors
    /// When the control socket cannot be made, or a worker ends by itself.
    pub async fn run(mut self, metrics: Option<TcpListener>) -> Result<(), Failure> {
        let failed = |what: &str, error: std::io::Error| Failure::system(what, &error);
        let (calls, mut incoming) = mpsc::channel(CALLS_MAX);
        let connections = self.config.limits.admin_connections;
        if let Some(listener) = metrics {
            http::serve(listener, calls.clone(), connections).map_err(|error| failed("metrics", error))?;
        }
        let control = socket::ControlSocket::open(&self.config.gateway.run_dir)?;
        tokio_uring::spawn(control.serve(calls, connections));
        let mut terminate = signal(SignalKind::terminate()).map_err(|error| failed("signals", error))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| failed("signals", error))?;
        let mut hangup = signal(SignalKind::hangup()).map_err(|error| failed("signals", error))?;
        notify_supervisor("READY=1");
        while !self.is_drained() {
            tokio::select! {
                Some(call) = incoming.recv() => self.on_call(call),
                _ = terminate.recv() => self.start_drain(Duration::ZERO, None),
                _ = interrupt.recv() => self.start_drain(Duration::ZERO, None),
                _ = hangup.recv() => drop(self.reload()),
                () = tokio::time::sleep(HOUSEKEEPING) => self.check_workers()?,
            }
        }
        self.stop().await;
        Ok(())
    }

    fn on_call(&mut self, call: Call) {
        let Call { request, reply } = call;
        let answer = match request {
            Request::Sessions => return self.list(reply),
            Request::Failed { .. } => {
                Answer::Refused("a relay does not authenticate; ask its backend".into())
            }
            Request::Stats => Answer::Stats(Box::new(self.stats())),
            Request::Terminate { id: Some(id), .. } => return self.terminate(id, reply),
            Request::Terminate { .. } => Answer::Refused("a relay knows no identities: give an id".into()),
            Request::Reselect { .. } => Answer::Refused("a relay knows no phones; ask its backend".into()),
            Request::Drain { timeout_s } => {
                return self.start_drain(Duration::from_secs(timeout_s.into()), Some(reply));
            }
            Request::Reload => self.reload(),
            Request::Trace { .. } | Request::KeylogStart { .. } | Request::KeylogStop => {
                Answer::Refused("a relay has no keys".into())
            }
        };
        // A caller that went away does not need its answer.
        let _ = reply.send(answer);
    }

    /// Gathers the connections of all workers, beside the loop.
    fn list(&self, reply: oneshot::Sender<Answer>) {
        let (rows, gathered) = channel();
        self.workers.iter().for_each(|worker| worker.order(Order::List(rows.clone())));
        drop(rows);
        tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            // Ends when every worker has answered, or one takes too long.
            while let Ok(rows) = gathered.recv_timeout(ANSWER_MAX) {
                all.extend(rows);
            }
            all.sort_unstable_by_key(|row| row.id);
            let _ = reply.send(Answer::Relayed(all));
        });
    }

    fn terminate(&self, id: u64, reply: oneshot::Sender<Answer>) {
        let (found, gathered) = channel();
        self.workers.iter().for_each(|worker| worker.order(Order::Close(id, found.clone())));
        drop(found);
        tokio::task::spawn_blocking(move || {
            let mut closed = false;
            while let Ok(found) = gathered.recv_timeout(ANSWER_MAX) {
                closed |= found;
            }
            let _ = reply.send(if closed {
                Answer::Done("the connection is closed; its IKE SA is the backend's to delete".into())
            } else {
                Answer::Refused("no such connection".into())
            });
        });
    }

    /// Takes no new connections; the loop ends when the others are gone or time is up. UEs find another way
    /// with their IKE SAs as they are.
    fn start_drain(&mut self, timeout: Duration, caller: Option<oneshot::Sender<Answer>>) {
        let deadline = Instant::now() + timeout;
        let before = self.drain.take();
        if before.is_none() {
            tracing::info!("draining: no new connections");
            notify_supervisor("STOPPING=1");
            self.workers.iter().for_each(|worker| worker.order(Order::StopAccepting));
        }
        let (deadline, caller) = match before {
            Some(before) => (deadline.min(before.deadline), caller.or(before.caller)),
            None => (deadline, caller),
        };
        self.drain = Some(Drain { deadline, caller });
    }

    fn is_drained(&self) -> bool {
        let left = || self.workers.iter().map(|worker| worker.counters.connections.get()).sum::<u64>();
        self.drain.as_ref().is_some_and(|drain| Instant::now() >= drain.deadline || left() == 0)
    }

    /// Reads the configuration again; of a relay's only the log level takes effect at once.
    fn reload(&mut self) -> Answer {
        let config = match config::load(&self.config.file) {
            Ok(config) => config,
            Err(errors) => {
                let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
                lines.iter().for_each(|line| tracing::error!("reload: {line}"));
                return Answer::Refused(format!("the running configuration stays:\n{}", lines.join("\n")));
            }
        };
        config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let fixed = config.needs_restart(&self.config);
        self.log.set(&config.debug.log);
        if let (Some(new), Some(running)) = (&config.tls, &self.tls) {
            let server = new.with_tickets_of(running);
            self.workers.iter().for_each(|worker| worker.order(Order::Tls(server.clone())));
            self.tls = Some(server);
        }
        tracing::info!("configuration reloaded");
        if fixed.is_empty() {
            return Answer::Done("reloaded".into());
        }
        tracing::warn!("reload: at the next start only: {}", fixed.join(", "));
        Answer::Done(format!("reloaded; at the next start only: {}", fixed.join(", ")))
    }

    fn check_workers(&self) -> Result<(), Failure> {
        match self.workers.iter().position(|worker| worker.thread.is_finished()) {
            Some(id) => Err(Failure::Failed(format!("worker {id} ended unexpectedly; see the log above"))),
            None => Ok(()),
        }
    }

    async fn stop(mut self) {
        self.workers.iter().for_each(|worker| worker.order(Order::Stop));
        let deadline = Instant::now() + ANSWER_MAX;
        while Instant::now() < deadline && !self.workers.iter().all(|worker| worker.thread.is_finished()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tracing::info!("stopped");
        if let Some(caller) = self.drain.take().and_then(|drain| drain.caller) {
            let _ = caller.send(Answer::Done("drained".into()));
            // The answer leaves through a task of this runtime.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn stats(&self) -> Stats {
        let mut stats = Stats {
            uptime_s: self.started.elapsed().as_secs(),
            sessions: 0,
            half_open: 0,
            connections: 0,
            attach_per_s: 0.0,
            uplink: Traffic::default(),
            downlink: Traffic::default(),
            drops: BTreeMap::new(),
            workers: Vec::new(),
            control: ControlStats {
                queue_depth_max: 0,
                ike_messages: 0,
                cpu_s: cpu_time().as_secs_f64(),
                inbox_overflows: 0,
                moving_overflows: 0,
            },
            memory: MemoryStats { rss_bytes: resident_octets() },
            exchanges: BTreeMap::new(),
            closes: BTreeMap::new(),
            rejects: BTreeMap::new(),
            aaa: Vec::new(),
            certificate_not_after_s: None,
            ready: self.drain.is_none(),
            attach: AttachHistogram::default(),
        };
        for (id, worker) in self.workers.iter().enumerate() {
            add_worker(&mut stats, id as u8, &worker.counters);
        }
        stats
    }
}

fn add_worker(stats: &mut Stats, id: u8, counters: &RelayCounters) {
    let uplink = Traffic { packets: counters.uplink_packets.get(), bytes: counters.uplink_bytes.get() };
    let downlink = Traffic { packets: counters.downlink_packets.get(), bytes: counters.downlink_bytes.get() };
    let connections = counters.connections.get();
    stats.sessions += counters.established.get();
    stats.half_open += counters.half_open.get();
    stats.connections += connections;
    stats.uplink.packets += uplink.packets;
    stats.uplink.bytes += uplink.bytes;
    stats.downlink.packets += downlink.packets;
    stats.downlink.bytes += downlink.bytes;
    stats.control.ike_messages += counters.ike_messages.get();
    *stats.exchanges.entry("resent".into()).or_default() += counters.ike_resent.get();
    let cpu_s = counters.cpu_ns.get() as f64 / 1e9;
    stats.workers.push(WorkerStats { id, connections, uplink, downlink, cpu_s, ..WorkerStats::default() });
    for (reason, n) in counters.drops() {
        *stats.drops.entry(reason.to_owned()).or_default() += n;
    }
    for (cause, n) in counters.closes() {
        *stats.closes.entry(cause.to_owned()).or_default() += n;
    }
}
