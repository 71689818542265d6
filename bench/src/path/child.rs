//! Programs that run beside a measurement; none outlives it.

use crate::bed::Bed;
use loadgen::demo::topology::Namespace;
use loadgen::error::Failure;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest wait for the end of a program that was asked to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Process ids of all running programs, for the thread that ends everything after a signal.
static RUNNING: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// A running program; killed when dropped.
pub struct Program {
    child: Option<Child>,
    id: u32,
    name: &'static str,
}

impl Program {
    /// Starts `name ARGS` inside `namespace` on the load's core; its output is kept.
    ///
    /// # Errors
    /// [`Failure::Environment`] when it cannot be started.
    pub fn start(
        bed: &Bed,
        namespace: &Namespace,
        name: &'static str,
        program: impl AsRef<OsStr>,
        args: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self, Failure> {
        let mut command = Command::new(program);
        command.args(args).envs(environment.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = bed.on_load(namespace, || {
            command.spawn().map_err(|error| Failure::Environment(format!("cannot run {name}: {error}")))
        })?;
        let id = child.id();
        lock().push(id);
        Ok(Self { child: Some(child), id, name })
    }

    /// Returns its process id.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Returns whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// [`Failure::Check`] with what it said when it failed or took longer than `limit`.
    pub fn finish(mut self, limit: Duration) -> Result<Output, Failure> {
        let deadline = Instant::now() + limit;
        // What these programs print fits into the pipes, so nobody has to read them meanwhile.
        while !self.has_ended() {
            if Instant::now() >= deadline {
                return Err(Failure::Check(format!("{} took longer than {} s", self.name, limit.as_secs())));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let output = self.collect()?;
        if output.status.success() {
            return Ok(output);
        }
        let said = [output.stderr, output.stdout].map(|octets| String::from_utf8_lossy(&octets).into_owned());
        Err(Failure::Check(format!("{}: {}", self.name, said.concat().trim())))
    }

    /// Asks it to end and waits.
    pub fn stop(mut self) {
        signal(self.id, Signal::SIGTERM);
        let deadline = Instant::now() + STOP_TIMEOUT;
        while !self.has_ended() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn collect(&mut self) -> Result<Output, Failure> {
        lock().retain(|id| *id != self.id);
        let output = self.child.take().map(Child::wait_with_output);
        match output {
            Some(Ok(output)) => Ok(output),
            _ => Err(Failure::Environment(format!("{}: its output is lost", self.name))),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        lock().retain(|id| *id != self.id);
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Kills every program that still runs.
pub fn kill_all() {
    for id in lock().drain(..) {
        signal(id, Signal::SIGKILL);
    }
}

fn signal(id: u32, signal: Signal) {
    if let Ok(id) = i32::try_from(id) {
        let _ = kill(Pid::from_raw(id), signal);
    }
}

fn lock() -> std::sync::MutexGuard<'static, Vec<u32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}
