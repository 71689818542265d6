//! What administrators ask of the control loop: reports, ends of sessions, drain, reload, key log.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use super::aaa::EndCause;
use super::engine::Engine;
use super::responder::Reselection;
use super::run::Workers;
use super::stats::{self, Around};
use crate::admin::api::{Answer, Call, Request};
use crate::admin::keylog::KeyFiles;
use crate::config::{self, Config, ConfigError};
use crate::log::LogLevel;
use crate::process::notify_supervisor;
use crate::types::{NetworkId, SessionId};
use crate::worker::inbox::ToWorker;

/// How long `sessions` waits for the workers' counters; what is missing then is shown as null.
const REPORT_MAX: Duration = Duration::from_millis(500);

/// Callers of `sessions` served by one report of the workers.
const REPORT_CALLERS_MAX: usize = 64;

/// The outcome of reading the configuration again.
type Reloaded = Result<Config, Vec<ConfigError>>;

/// The administrative state of the control loop.
pub struct Administration {
    config: Arc<Config>,
    log: LogLevel,
    started: Instant,
    queue_depth_max: u64,
    report: Option<Report>,
    drain: Option<Drain>,
    reload: Option<Reload>,
    reload_done: Arc<Notify>,
    keylog: Option<KeyFiles>,
}

/// A `sessions` command that waits for the workers.
struct Report {
    deadline: Instant,
    callers: Vec<oneshot::Sender<Answer>>,
}

struct Drain {
    deadline: Instant,
    caller: Option<oneshot::Sender<Answer>>,
}

struct Reload {
    outcome: oneshot::Receiver<Reloaded>,
    caller: Option<oneshot::Sender<Answer>>,
}

impl Administration {
    /// Administration of a gateway that runs with `config`.
    pub fn new(config: Arc<Config>, log: LogLevel, started: Instant) -> Self {
        Self {
            config,
            log,
            started,
            queue_depth_max: 0,
            report: None,
            drain: None,
            reload: None,
            reload_done: Arc::default(),
            keylog: None,
        }
    }

    /// The name of a network's device.
    pub fn inner_device(&self, network: NetworkId) -> &str {
        self.config.inner.get(network.index()).map_or("", |inner| &inner.device)
    }

    /// Takes note of how much waits in one worker's queue.
    pub fn note_queue_depth(&mut self, depth: usize) {
        self.queue_depth_max = self.queue_depth_max.max(depth as u64);
    }

    /// When [`Administration::on_turn`] has something to do at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        let report = self.report.as_ref().map(|report| report.deadline);
        let drain = self.drain.as_ref().map(|drain| drain.deadline);
        [report, drain].into_iter().flatten().min()
    }

    /// Completes when a reload has read its files.
    pub async fn reload_ready(&self) {
        self.reload_done.notified().await;
    }

    /// Does, or starts, what an administrator asks.
    pub fn on_call(&mut self, engine: &mut Engine, workers: &Workers, now: Instant, call: Call) {
        let Call { request, reply } = call;
        let answer = match request {
            Request::Sessions => return self.start_report(engine, workers, now, reply),
            Request::Failed { idi } => {
                Answer::Failed(engine.attempts.failed(&engine.responder, idi.as_deref()))
            }
            Request::Stats => Answer::Stats(Box::new(self.stats(engine, workers, now))),
            Request::Terminate { id, idi, profile, reactivate } => {
                which(engine, now, id, idi.as_deref(), profile.as_deref())
                    .map_or_else(|refused| refused, |ids| terminate(engine, now, &ids, reactivate))
            }
            Request::Reselect { id, idi, profile } => {
                which(engine, now, id, idi.as_deref(), profile.as_deref())
                    .map_or_else(|refused| refused, |ids| reselect(engine, now, &ids))
            }
            Request::Drain { timeout_s } => {
                let timeout = Duration::from_secs(timeout_s.into());
                return self.start_drain(engine, now, Some(timeout), Some(reply));
            }
            Request::Reload => return self.start_reload(Some(reply)),
            Request::Trace { idi } => {
                engine.responder.set_trace(idi.as_deref());
                Answer::Done(match idi {
                    Some(_) => "IKE messages of this UE go to the log; stop with `swugate trace off`".into(),
                    None => "no UE is followed".into(),
                })
            }
            Request::KeylogStart { dir } => self.start_keylog(engine, dir),
            Request::KeylogStop => match self.keylog.take() {
                Some(_) => Answer::Done("key log stopped".into()),
                None => Answer::Refused("no key log is running".into()),
            },
        };
        // A caller that went away does not need its answer.
        let _ = reply.send(answer);
    }

    /// Deletes all sessions and takes no new ones; the loop ends when they are gone or time is up.
    pub fn start_drain(
        &mut self,
        engine: &mut Engine,
        now: Instant,
        timeout: Option<Duration>,
        caller: Option<oneshot::Sender<Answer>>,
    ) {
        let timeout = timeout.unwrap_or(Duration::from_secs(self.config.limits.drain_s.into()));
        let mut deadline = now + timeout;
        let mut caller = caller;
        if let Some(before) = self.drain.take() {
            deadline = deadline.min(before.deadline);
            caller = caller.or(before.caller);
        } else {
            notify_supervisor("STOPPING=1");
            engine.aaa.note_cause_of_all(EndCause::Shutdown);
            engine.dispatcher.broadcast(|| ToWorker::StopAccepting);
            engine.responder.drain(now, deadline);
            engine.settle(now);
        }
        self.drain = Some(Drain { deadline, caller });
    }

    /// Whether a drain is over.
    pub fn is_drained(&self, engine: &Engine, now: Instant) -> bool {
        let sessions = || engine.responder.counters().gauges.sessions;
        self.drain.as_ref().is_some_and(|drain| now >= drain.deadline || sessions() == 0)
    }

    /// Answers the caller of `drain`.
    pub fn finish_drain(&mut self, sessions_left: u64) {
        if let Some(caller) = self.drain.take().and_then(|drain| drain.caller) {
            let _ = caller
                .send(Answer::Done(format!("drained; {sessions_left} sessions did not answer in time")));
        }
    }

    /// Reads the configuration and its files again, beside the loop.
    pub fn start_reload(&mut self, caller: Option<oneshot::Sender<Answer>>) {
        if self.reload.is_some() {
            if let Some(caller) = caller {
                let _ = caller.send(Answer::Refused("a reload is under way".into()));
            }
            return;
        }
        let (done, outcome) = oneshot::channel();
        let (file, notify) = (self.config.file.clone(), self.reload_done.clone());
        tokio::task::spawn_blocking(move || {
            let _ = done.send(config::load(&file));
            notify.notify_one();
        });
        self.reload = Some(Reload { outcome, caller });
    }

    /// What is to be done once per turn of the loop.
    pub fn on_turn(&mut self, engine: &mut Engine, now: Instant) {
        self.finish_report(engine, now);
        self.finish_reload(engine, now);
        if let Some(files) = &self.keylog
            && engine.keys.has_unseen()
            && !files.append(engine.keys.unseen_lines())
        {
            tracing::error!("key log: writing failed or fell behind; stopped");
            self.keylog = None;
        }
    }

    fn stats(&self, engine: &mut Engine, workers: &Workers, now: Instant) -> crate::admin::api::Stats {
        let around = Around {
            started: self.started,
            queue_depth_max: self.queue_depth_max,
            certificate_not_after_s: self.config.certificate_not_after_s(),
            ready: self.drain.is_none(),
        };
        stats::collect(engine, workers.counters.iter().map(|counters| &**counters), &around, now)
    }

    fn start_report(
        &mut self,
        engine: &mut Engine,
        workers: &Workers,
        now: Instant,
        caller: oneshot::Sender<Answer>,
    ) {
        match &mut self.report {
            Some(report) if report.callers.len() < REPORT_CALLERS_MAX => report.callers.push(caller),
            Some(_) => {
                let _ = caller.send(Answer::Refused("too many callers".into()));
            }
            None => {
                engine.ask_for_reports(workers.threads.len());
                self.report = Some(Report { deadline: now + REPORT_MAX, callers: vec![caller] });
            }
        }
    }

    fn finish_report(&mut self, engine: &mut Engine, now: Instant) {
        let done = |report: &mut Report| engine.reports.missing.is_empty() || now >= report.deadline;
        let Some(report) = self.report.take_if(done) else { return };
        let rows = stats::sessions(engine, now);
        engine.reports = Default::default();
        let mut callers = report.callers;
        let last = callers.pop();
        for caller in callers {
            let _ = caller.send(Answer::Sessions(rows.clone()));
        }
        if let Some(caller) = last {
            let _ = caller.send(Answer::Sessions(rows));
        }
    }

    fn finish_reload(&mut self, engine: &mut Engine, now: Instant) {
        let Some(reload) = &mut self.reload else { return };
        let outcome = match reload.outcome.try_recv() {
            Ok(outcome) => outcome,
            Err(oneshot::error::TryRecvError::Empty) => return,
            Err(oneshot::error::TryRecvError::Closed) => Err(Vec::new()),
        };
        let caller = self.reload.take().and_then(|reload| reload.caller);
        let answer = match outcome {
            Ok(config) => self.adopt(engine, now, config),
            Err(errors) => {
                let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
                lines.iter().for_each(|line| tracing::error!("reload: {line}"));
                tracing::error!("reload: the running configuration stays");
                Answer::Refused(format!("the running configuration stays:\n{}", lines.join("\n")))
            }
        };
        if let Some(caller) = caller {
            let _ = caller.send(answer);
        }
    }

    fn adopt(&mut self, engine: &mut Engine, now: Instant, mut config: Config) -> Answer {
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        if !config.has_networks_of(&self.config) {
            let what = "the tables [[inner]] are others, or in another order; that takes a new start";
            tracing::error!("reload: {what}; the running configuration stays");
            return Answer::Refused(format!("the running configuration stays: {what}"));
        }
        let fixed = config.needs_restart(&self.config);
        for key in &fixed {
            tracing::warn!("reload: {key} takes effect at the next start only");
        }
        if let Err(failure) = engine.aaa.reload(&config) {
            let what = "the running configuration stays, but for the tables [[aaa]] before this one";
            tracing::error!("reload: {failure}; {what}");
            return Answer::Refused(format!("{what}: {failure}"));
        }
        self.log.set(&config.debug.log);
        engine.attempts.set_named(config.debug.identities);
        engine.responder.set_config(now, config.responder.clone());
        engine.settle(now);
        if let (Some(new), Some(running)) = (&config.tls, &self.config.tls) {
            let server = new.with_tickets_of(running);
            engine.dispatcher.broadcast(|| ToWorker::Tls(server.clone()));
            config.tls = Some(server);
        }
        self.config = Arc::new(config);
        tracing::info!("configuration reloaded");
        let mut message = String::from("reloaded");
        if !fixed.is_empty() {
            message += &format!("; at the next start only: {}", fixed.join(", "));
        }
        Answer::Done(message)
    }

    fn start_keylog(&mut self, engine: &mut Engine, dir: PathBuf) -> Answer {
        if !self.config.debug.keylog {
            return Answer::Refused(
                "the configuration does not allow it; it takes debug.keylog = true".into(),
            );
        }
        if self.keylog.is_some() {
            return Answer::Refused("a key log is running".into());
        }
        match KeyFiles::create(&dir) {
            Ok(files) => {
                tracing::warn!("key log started in {}", dir.display());
                files.append(engine.keys.all_lines());
                self.keylog = Some(files);
                Answer::Done(format!("writing ikev2_decryption_table and esp_sa into {}", dir.display()))
            }
            Err(error) => Answer::Refused(format!("{}: {error}", dir.display())),
        }
    }
}

/// The sessions that an administrator means, or why none is.
fn which(
    engine: &Engine,
    now: Instant,
    id: Option<u64>,
    idi: Option<&str>,
    profile: Option<&str>,
) -> Result<Vec<SessionId>, Answer> {
    let all = || engine.responder.sessions(now);
    match (id, idi.map(str::to_lowercase), profile) {
        (Some(id), None, None) => Ok(vec![SessionId(id)]),
        (None, Some(idi), None) => {
            let named = all().filter(|view| view.idi.to_string().to_lowercase() == idi);
            Ok(named.map(|view| view.id).collect())
        }
        (None, None, Some(profile)) => {
            Ok(all().filter(|view| view.profile == profile).map(|view| view.id).collect())
        }
        _ => Err(Answer::Refused("one of id, idi and profile".into())),
    }
}

fn reselect(engine: &mut Engine, now: Instant, ids: &[SessionId]) -> Answer {
    let outcomes: Vec<_> =
        ids.iter().filter_map(|&id| Some((id, engine.responder.reselect(now, id)?))).collect();
    let again = outcomes.iter().filter(|(_, outcome)| *outcome == Reselection::Reactivated);
    let again = again.inspect(|(id, _)| engine.aaa.note_cause(*id, EndCause::Administrator)).count();
    engine.settle(now);
    match outcomes.len() {
        0 => Answer::Refused("no such session".into()),
        all => Answer::Done(format!("{} told, {again} asked to attach again", all - again)),
    }
}

fn terminate(engine: &mut Engine, now: Instant, ids: &[SessionId], reactivate: bool) -> Answer {
    ids.iter().for_each(|&id| engine.aaa.note_cause(id, EndCause::Administrator));
    let responder = &mut engine.responder;
    let ended = ids.iter().filter(|&&id| match reactivate {
        true => responder.reactivate(now, id),
        false => responder.terminate(now, id),
    });
    let ended = ended.count();
    engine.settle(now);
    match ended {
        0 => Answer::Refused("no such session".into()),
        1 => Answer::Done("1 session is being deleted".into()),
        n => Answer::Done(format!("{n} sessions are being deleted")),
    }
}
