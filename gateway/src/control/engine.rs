//! The responder and the way to the workers, put together: what one turn of the control loop does.
//!
//! No sockets, no clock and no runtime here. The loop in [`super::run`] feeds messages and time in and
//! calls [`Engine::flush`] when it is done with a batch.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use ahash::AHashMap;
use codec::esp::EspSpi;

use super::aaa::{Aaa, EndCause, FromAaa};
use super::attach::{AttachHistogram, AttachMeter};
use super::attempts::AttemptLog;
use super::dispatch::Dispatcher;
use super::responder::{Event, Responder, ResponderConfig, Verdict};
use crate::admin::keylog::KeyRing;
use crate::log::LogLimit;
use crate::types::{ConnId, NetworkId, WorkerId};
use crate::worker::inbox::{ChildCounters, ToControl, ToWorker};

/// The state of the control thread.
pub struct Engine {
    /// The IKE state machine.
    pub responder: Responder,
    /// The way to the workers.
    pub dispatcher: Dispatcher,
    /// Attach latencies.
    pub attach: AttachHistogram,
    /// Attach rate.
    pub attach_meter: AttachMeter,
    /// Keys of the latest SAs; stays empty unless `debug.keylog` is set.
    pub keys: KeyRing,
    /// Reports of Child SA counters that have come in.
    pub reports: Reports,
    /// The AAA back ends.
    pub aaa: Aaa,
    /// How failed attempts are shown.
    pub attempts: AttemptLog,
    /// A worker has found the inner device deleted.
    pub device_gone: Option<NetworkId>,
    attached_log: LogLimit,
    ended_log: LogLimit,
    failed_log: LogLimit,
}

/// Answers to one [`ToWorker::ReportChildren`].
#[derive(Default)]
pub struct Reports {
    /// Workers that have not answered.
    pub missing: Vec<WorkerId>,
    /// Counters by inbound SPI.
    pub children: AHashMap<EspSpi, ChildCounters>,
}

impl Engine {
    /// An engine without sessions. It logs at most `log_lines_per_s` beginnings and as many ends of
    /// sessions per second.
    pub fn new(
        config: Arc<ResponderConfig>,
        dispatcher: Dispatcher,
        aaa: Aaa,
        log_lines_per_s: u32,
        now: Instant,
    ) -> Self {
        let random = Box::new(codec::OsRandom);
        Self {
            responder: Responder::new(config, random, now, SystemTime::now()),
            dispatcher,
            attach: AttachHistogram::default(),
            attach_meter: AttachMeter::new(now),
            keys: KeyRing::default(),
            reports: Reports::default(),
            aaa,
            attempts: AttemptLog::default(),
            device_gone: None,
            attached_log: LogLimit::new(log_lines_per_s, now),
            ended_log: LogLimit::new(log_lines_per_s, now),
            failed_log: LogLimit::new(log_lines_per_s, now),
        }
    }

    /// Takes one message of a worker and does everything that follows from it.
    pub fn handle(&mut self, now: Instant, message: ToControl) {
        match message {
            ToControl::Ike { conn: came_in, path, mut message } => {
                let conn = self.dispatcher.current(came_in);
                let verdict = self.responder.handle_message(now, conn, &path, &mut message);
                self.settle(now);
                self.dispatcher.push_to_conn(ToWorker::Handled { conn, good: verdict == Verdict::Good });
                self.forget_if_gone(now, came_in);
            }
            ToControl::Bound { session, conn: came_in, path } => {
                let conn = self.dispatcher.current(came_in);
                self.responder.handle_conn_bound(now, session, conn, &path);
                self.settle(now);
                self.forget_if_gone(now, came_in);
            }
            ToControl::Closed { conn } => self.on_closed(now, conn),
            ToControl::Moved { old, new } => {
                self.responder.handle_conn_moved(old, new);
                self.dispatcher.conn_moved(old, new);
                self.settle(now);
            }
            ToControl::EarlyEsp { session, conn, path } => {
                let conn = self.dispatcher.current(conn);
                self.responder.handle_early_esp(now, session, conn, &path);
                self.settle(now);
            }
            ToControl::EspActivity { session } => self.responder.handle_esp_activity(now, session),
            ToControl::SequenceHigh { session, spi_in } => {
                self.responder.handle_sequence_high(now, session, spi_in);
                self.settle(now);
            }
            ToControl::FenceReached { worker: _, fence } => self.dispatcher.fence_reached(fence),
            ToControl::DeviceGone { network } => self.device_gone = Some(network),
            ToControl::Traffic { session, traffic, over } => self.aaa.traffic(now, session, &traffic, over),
            ToControl::ChildCounters { worker, children } => {
                self.reports.missing.retain(|&missing| missing != worker);
                self.reports.children.extend(children);
            }
        }
    }

    fn on_closed(&mut self, now: Instant, conn: ConnId) {
        self.dispatcher.conn_closed(conn);
        if let Some((session, worker)) = self.responder.handle_conn_closed(conn) {
            // What was heard last, and where, its worker knows.
            self.dispatcher.push(worker, ToWorker::Locate { session });
        }
        self.settle(now);
    }

    /// Ends the connection once more when the message just handled is older than the news of its end.
    fn forget_if_gone(&mut self, now: Instant, came_in: ConnId) {
        if self.dispatcher.is_gone(came_in) {
            self.on_closed(now, self.dispatcher.current(came_in));
        }
    }

    /// Takes what a back end has to say.
    pub fn handle_aaa(&mut self, now: Instant, message: FromAaa) {
        match message {
            FromAaa::Answer { attempt, answer } => self.responder.handle_aaa(now, attempt, answer),
            FromAaa::Disconnect { session, done } => {
                self.aaa.note_cause(session, EndCause::Server);
                // A server that has gone away does not need its answer.
                let _ = done.send(self.responder.terminate(now, session));
            }
            FromAaa::ReportTraffic { session } => {
                if let Some(worker) = self.responder.worker_of(session) {
                    self.dispatcher.push(worker, ToWorker::ReportTraffic { session });
                }
            }
            FromAaa::Timeout { session, left } => self.aaa.set_timeout(now, session, left),
        }
        self.settle(now);
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(session) = self.aaa.pop_due(now) {
            self.aaa.note_cause(session, EndCause::Timeout);
            self.responder.terminate(now, session);
        }
        self.responder.handle_timeout(now);
        self.settle(now);
    }

    /// When [`Self::handle_timeout`] should be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.responder.poll_timeout(), self.aaa.deadline()].into_iter().flatten().min()
    }

    /// Carries out what the responder wants: changes first, then messages, then what must follow those.
    pub fn settle(&mut self, now: Instant) {
        while let Some(event) = self.responder.poll_event() {
            self.on_event(now, event);
        }
        while let Some(transmit) = self.responder.poll_transmit() {
            self.dispatcher.transmit(transmit);
        }
        self.dispatcher.end_turn();
    }

    /// Asks every worker for the counters of its Child SAs.
    pub fn ask_for_reports(&mut self, workers: usize) {
        self.reports =
            Reports { missing: (0..workers).map(|id| WorkerId(id as u8)).collect(), ..Reports::default() };
        self.dispatcher.broadcast(|| ToWorker::ReportChildren);
    }

    /// Hands messages over to the workers and wakes them.
    pub fn flush(&mut self) {
        self.dispatcher.flush();
    }

    fn on_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Install(install) => self.dispatcher.install(install),
            Event::Announce { session, worker, spi_in } => {
                self.dispatcher.push(worker, ToWorker::Announce { session, spi_in });
            }
            Event::Withdraw { worker, spi_in } => {
                self.dispatcher.push(worker, ToWorker::Withdraw { spi_in });
            }
            Event::RemoveChild { session, worker, spi_in } => {
                self.dispatcher.push(worker, ToWorker::RemoveChild { session, spi_in });
            }
            Event::Bind { session, worker, conn, path, follow } => match conn.is_datagrams() {
                true => self.dispatcher.bind_path(session, worker, path, follow),
                false => self.dispatcher.bind(session, worker, conn),
            },
            Event::CloseSession { session, worker, network, inner, cause } => {
                // Its back end hears of the end with what its worker knows of it.
                self.aaa.note_cause(session, cause);
                let report = self.aaa.holds(session);
                self.dispatcher.close_session(session, worker, network, &inner, report);
                if let Some(skipped) = self.ended_log.allow(now) {
                    tracing::info!(session = session.0, skipped, "session ended");
                }
            }
            Event::CloseConn { conn, reason } => self.dispatcher.close_conn(conn, reason),
            Event::HalfOpen { conn } => self.dispatcher.push_to_conn(ToWorker::HalfOpen { conn }),
            Event::Challenged { conn, within } => {
                self.dispatcher.push_to_conn(ToWorker::Challenged { conn, within });
            }
            // An operator asked for all of it: no limit of lines.
            Event::Traced(line) => tracing::info!(target: "swugate::trace", "{line}"),
            Event::Aaa(order) => self.aaa.order(now, *order),
            Event::AttemptFailed(failed) => {
                if let Some(skipped) = self.failed_log.allow(now) {
                    let (apn, transport) = (failed.apn.as_deref(), failed.transport.as_str());
                    let (idi, steps) = (self.attempts.shown(&failed.idi), AttemptLog::steps(&failed));
                    let cause = failed.cause;
                    tracing::info!(idi, apn, transport, steps, cause, skipped, "attempt to attach failed");
                }
            }
            Event::KeyLog(key) => self.keys.push(key),
            Event::Attached { session, latency } => {
                self.attach.record(latency);
                self.attach_meter.record(now);
                if let Some(skipped) = self.attached_log.allow(now) {
                    let latency_ms = latency.as_millis() as u64;
                    tracing::info!(session = session.0, latency_ms, skipped, "session attached");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crossbeam::channel::{Receiver, bounded};

    use super::*;
    use crate::control::aaa::Outbox;
    use crate::io::wake::Wake;
    use crate::types::{Path, Transport};
    use crate::worker::InboxHandle;

    const CONFIG: &str = "[gateway]\nidentity = \"gw.test\"\n[[pool]]\nname = \"default\"\n\
        prefixes = [\"10.64.0.0/16\"]\n[[profile]]\nname = \"lab\"\nauth = \"psk\"\nsecrets_file = \"secrets.toml\"\n";

    fn engine(workers: usize) -> (Engine, Vec<Receiver<ToWorker>>) {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("secrets.toml"), "psk = \"test\"").expect("written");
        let config = crate::config::parse(&dir.path().join("swugate.toml"), CONFIG.into())
            .unwrap_or_else(|_| panic!("the configuration is good"));
        let inbox = |_| {
            let (queue, receiver) = bounded(64);
            (Arc::new(InboxHandle { queue, wake: Wake::new().expect("an eventfd") }), receiver)
        };
        let (inboxes, receivers): (Vec<_>, Vec<_>) = (0..workers).map(inbox).unzip();
        let dispatcher = Dispatcher::new(&inboxes, 64, Vec::new());
        let aaa = Aaa::new([], Outbox::new().0);
        (Engine::new(config.responder, dispatcher, aaa, 5, Instant::now()), receivers)
    }

    fn message(conn: ConnId, message: Vec<u8>) -> ToControl {
        let addr = |text: &str| text.parse().expect("an address");
        let (local, remote) = (addr("192.0.2.1:4500"), addr("198.51.100.7:40000"));
        ToControl::Ike { conn, path: Path { transport: Transport::Tcp, local, remote }, message }
    }

    #[test]
    fn d5_each_ike_message_is_answered_for_once_and_garbage_as_bad() {
        let (mut engine, workers) = engine(1);
        let conn = ConnId { worker: WorkerId(0), slot: 7, generation: 1 };
        for len in [0, 1, 27, 28, 200] {
            engine.handle(Instant::now(), message(conn, vec![0xa5; len]));
            let handled: Vec<bool> = workers[0]
                .try_iter()
                .filter_map(|message| match message {
                    ToWorker::Handled { conn: of, good } if of == conn => Some(good),
                    _ => None,
                })
                .collect();
            assert_eq!(handled, [false], "{len} octets");
        }
    }

    #[test]
    fn d5_the_verdict_follows_a_connection_that_moved_meanwhile() {
        let (mut engine, workers) = engine(2);
        let id = |worker, slot| ConnId { worker: WorkerId(worker), slot, generation: 1 };
        engine.handle(Instant::now(), ToControl::Moved { old: id(0, 7), new: id(1, 9) });
        engine.handle(Instant::now(), message(id(0, 7), vec![0xa5; 30]));
        let to = |worker: usize| {
            workers[worker]
                .try_iter()
                .any(|message| matches!(message, ToWorker::Handled { conn, good: false } if conn == id(1, 9)))
        };
        assert!(to(1) && !to(0));
    }

    #[test]
    fn reports_are_complete_when_every_worker_has_answered() {
        let (mut engine, workers) = engine(2);
        engine.ask_for_reports(2);
        for (id, worker) in workers.iter().enumerate() {
            assert!(worker.try_iter().any(|message| matches!(message, ToWorker::ReportChildren)));
            assert!(!engine.reports.missing.is_empty());
            let counters = ChildCounters { packets_in: id as u64, ..ChildCounters::default() };
            let children = vec![(EspSpi(0x100 + id as u32), counters)];
            engine.handle(Instant::now(), ToControl::ChildCounters { worker: WorkerId(id as u8), children });
        }
        assert!(engine.reports.missing.is_empty());
        assert_eq!(engine.reports.children[&EspSpi(0x101)].packets_in, 1);
    }
}
