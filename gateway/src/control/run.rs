//! The loop of the control thread, on tokio-uring.
//!
//! It waits for whatever comes first: a wake from a worker, a deadline, an administrator, a signal, a
//! change of the host's addresses. Then it takes a bounded batch from every worker's queue, lets the
//! engine work, and hands the results over. It never waits for a worker.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use codec::esp::{KEPT_CONTEXTS_DEFAULT, backend, keep_contexts};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::aaa::FromAaa;
use super::administration::Administration;
use super::engine::Engine;
use super::inner::LocalAddrs;
use crate::admin::api::Call;
use crate::error::Failure;
use crate::io::wake::{AsyncWake, Wake};
use crate::process::notify_supervisor;
use crate::types::NetworkId;
use crate::worker::control_queue::ControlReceiver;
use crate::worker::counters::WorkerCounters;
use crate::worker::inbox::ToWorker;

/// Messages taken from one worker's queue before the others, and everybody else, get their turn.
const MESSAGES_PER_TURN: usize = 64;

/// The loop wakes this often at least: it looks after the workers and the wall clock.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// How soon a full inbox is tried again.
const BACKLOG_RETRY: Duration = Duration::from_millis(1);

/// Time AAA servers have to hear that all sessions have ended, at shutdown.
const AAA_LEAVE_MAX: Duration = Duration::from_secs(1);

/// Time the workers have to flush and end, at shutdown.
const WORKER_STOP_MAX: Duration = Duration::from_millis(500);

/// The control thread's ends of the workers, in the order of their ids.
pub struct Workers {
    /// Messages from each worker.
    pub queues: Vec<ControlReceiver>,
    /// Woken by all workers.
    pub wake: Wake,
    /// Their counters.
    pub counters: Vec<Arc<WorkerCounters>>,
    /// Their threads.
    pub threads: Vec<JoinHandle<()>>,
}

/// What comes in beside the workers' messages.
pub struct Inputs {
    /// From administrators.
    pub calls: mpsc::Receiver<Call>,
    /// The host's own addresses, when they change.
    pub local_addrs: mpsc::Receiver<LocalAddrs>,
    /// From AAA back ends.
    pub aaa: mpsc::UnboundedReceiver<FromAaa>,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

/// What woke the loop, as far as it matters.
enum Woken {
    Work,
    Call(Call),
    LocalAddrs(LocalAddrs),
    Aaa(FromAaa),
    Terminate,
    Reload,
}

/// The control loop's own state, beside the engine.
pub struct ControlLoop {
    engine: Engine,
    workers: Workers,
    admin: Administration,
    /// A batch limit was reached: look again at once.
    again: bool,
    /// Why the loop is to end other than by an administrator's wish.
    failure: Option<Failure>,
}

impl ControlLoop {
    /// A loop over `workers`, which must be running.
    pub fn new(engine: Engine, workers: Workers, admin: Administration) -> Self {
        Self { engine, workers, admin, again: false, failure: None }
    }

    /// Runs until drained, after SIGTERM, SIGINT or the `drain` command.
    ///
    /// # Errors
    /// [`Failure::Environment`] when signals or the wake cannot be watched; [`Failure::Failed`] when a
    /// worker died.
    pub async fn run(mut self, mut inputs: Inputs) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::system("control loop", &error);
        let wake = AsyncWake::new(self.workers.wake.try_clone().map_err(failed)?).map_err(failed)?;
        let mut signals = Signals {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            hang_up: signal(SignalKind::hangup()).map_err(failed)?,
        };
        keep_contexts(KEPT_CONTEXTS_DEFAULT * self.workers.threads.len().max(1));
        // Measures the cipher libraries now rather than under the first packet.
        let ciphers = backend::choose();
        notify_supervisor("READY=1");
        tracing::info!(workers = self.workers.threads.len(), %ciphers, "ready");
        loop {
            let woken = self.wait(&wake, &mut inputs, &mut signals).await;
            let now = Instant::now();
            self.on_woken(now, woken);
            // What else the back ends have said meanwhile, as much as a turn takes of a worker.
            for _ in 0..MESSAGES_PER_TURN {
                let Ok(message) = inputs.aaa.try_recv() else { break };
                self.engine.handle_aaa(now, message);
            }
            self.turn(now);
            if self.admin.is_drained(&self.engine, now) {
                return self.stop().await;
            }
            self.check_workers()?;
        }
    }

    async fn wait(&self, wake: &AsyncWake, inputs: &mut Inputs, signals: &mut Signals) -> Woken {
        if self.again {
            // Others get their turn between two batches; their events are found by the polls below.
            tokio::task::yield_now().await;
        }
        let deadline = if self.again { Instant::now() } else { self.next_deadline() };
        tokio::select! {
            () = wake.woken() => Woken::Work,
            Some(call) = inputs.calls.recv() => Woken::Call(call),
            Some(addrs) = inputs.local_addrs.recv() => Woken::LocalAddrs(addrs),
            Some(message) = inputs.aaa.recv() => Woken::Aaa(message),
            _ = signals.terminate.recv() => Woken::Terminate,
            _ = signals.interrupt.recv() => Woken::Terminate,
            _ = signals.hang_up.recv() => Woken::Reload,
            () = self.admin.reload_ready() => Woken::Work,
            () = tokio::time::sleep_until(deadline.into()) => Woken::Work,
        }
    }

    fn next_deadline(&self) -> Instant {
        let now = Instant::now();
        let retry = self.engine.dispatcher.has_backlog().then_some(now + BACKLOG_RETRY);
        let due = [self.engine.poll_timeout(), self.admin.deadline(), retry];
        due.into_iter().flatten().fold(now + HOUSEKEEPING, Instant::min)
    }

    fn on_woken(&mut self, now: Instant, woken: Woken) {
        match woken {
            Woken::Work => {}
            Woken::Call(call) => self.admin.on_call(&mut self.engine, &self.workers, now, call),
            Woken::LocalAddrs(LocalAddrs { networks, addrs }) => {
                for network in networks {
                    let addrs = || addrs.clone();
                    self.engine.dispatcher.broadcast(|| ToWorker::LocalAddrs { network, addrs: addrs() });
                }
            }
            Woken::Aaa(message) => self.engine.handle_aaa(now, message),
            Woken::Terminate => {
                tracing::info!("draining: deleting all sessions");
                self.admin.start_drain(&mut self.engine, now, None, None);
            }
            Woken::Reload => self.admin.start_reload(None),
        }
    }

    /// One batch: what the workers sent, what is due, and what follows from both.
    fn turn(&mut self, now: Instant) {
        self.again = false;
        for queue in &self.workers.queues {
            self.admin.note_queue_depth(queue.len());
            if self.engine.dispatcher.is_congested() {
                continue;
            }
            for message in queue.try_iter().take(MESSAGES_PER_TURN) {
                self.engine.handle(now, message);
            }
            self.again |= !queue.is_empty();
        }
        self.engine.responder.set_wall_clock(now, SystemTime::now());
        if self.engine.poll_timeout().is_some_and(|due| due <= now) {
            self.engine.handle_timeout(now);
        }
        if let Some(network) = self.engine.device_gone.take() {
            self.on_device_gone(now, network);
        }
        self.admin.on_turn(&mut self.engine, now);
        self.engine.flush();
    }

    /// Without its device the gateway would hold UEs that it cannot serve: they are told, and the process ends
    /// for its supervisor to start it anew, with a new device.
    fn on_device_gone(&mut self, now: Instant, network: NetworkId) {
        if self.failure.is_some() {
            return;
        }
        let failure = Failure::Environment(format!(
            "device {}: deleted while in use; start swugate again, which makes it anew",
            self.admin.inner_device(network)
        ));
        tracing::error!("{failure}; deleting all sessions");
        self.failure = Some(failure);
        self.admin.start_drain(&mut self.engine, now, None, None);
    }

    fn check_workers(&self) -> Result<(), Failure> {
        match self.workers.threads.iter().position(JoinHandle::is_finished) {
            Some(id) => Err(Failure::Failed(format!("worker {id} ended unexpectedly; see the log above"))),
            None => Ok(()),
        }
    }

    /// Ends the workers and answers who asked for it.
    async fn stop(mut self) -> Result<(), Failure> {
        self.engine.dispatcher.broadcast(|| ToWorker::Stop);
        let deadline = Instant::now() + WORKER_STOP_MAX;
        while Instant::now() < deadline && !self.workers.threads.iter().all(JoinHandle::is_finished) {
            self.engine.flush();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // What sessions have done, said while workers ended.
        for queue in &self.workers.queues {
            queue.try_iter().for_each(|message| self.engine.handle(Instant::now(), message));
        }
        self.engine.aaa.leave(Instant::now());
        let deadline = Instant::now() + AAA_LEAVE_MAX;
        while Instant::now() < deadline && !self.engine.aaa.has_left() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let left = self.engine.responder.counters().gauges.sessions;
        tracing::info!(sessions_left = left, "stopped");
        self.admin.finish_drain(left);
        // The answer to `drain` leaves through tasks of this runtime.
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.failure.map_or(Ok(()), Err)
    }
}
