//! The process of one measurement, seen from outside.

use super::cell::Job;
use super::results::Run;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What a measurement may take beyond its seconds: to make the network, to attach over a path that loses, to end.
const SLACK: Duration = Duration::from_secs(120);
/// How often the end is looked for.
const TICK: Duration = Duration::from_millis(50);
/// Octets kept of what it says.
const SAID_MAX: u64 = 64 << 20;

/// Makes one measurement; `None` when it was stopped. What fails is in the result.
pub(super) fn run(job: &Job, stop: &AtomicBool) -> Option<Run> {
    let outcome = measure(job, stop);
    if stop.load(Ordering::Relaxed) {
        return None;
    }
    Some(outcome.unwrap_or_else(|why| Run {
        repetition: job.repetition,
        seed: job.seed,
        failed: Some(why),
        ..Run::default()
    }))
}

fn measure(job: &Job, stop: &AtomicBool) -> Result<Run, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let job_text = serde_json::to_string(job).map_err(|error| error.to_string())?;
    let mut child = Command::new(own)
        .args(["lab-cell", &job_text])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let limit = Duration::from_secs_f64(job.seconds + job.warm_up) + SLACK;
    let (ok, answer, said) = std::thread::scope(|scope| {
        let answer = scope.spawn(move || read(stdout));
        let said = scope.spawn(move || read(stderr));
        let ok = wait(&mut child, limit, stop);
        (ok, answer.join().unwrap_or_default(), said.join().unwrap_or_default())
    });
    if ok {
        return serde_json::from_str(&answer).map_err(|error| format!("its answer cannot be read: {error}"));
    }
    let said: Vec<&str> = said.lines().collect();
    let tail = said[said.len().saturating_sub(6)..].join(" | ");
    Err(if tail.is_empty() { format!("took longer than {} s", limit.as_secs()) } else { tail })
}

fn read(pipe: Option<impl Read>) -> String {
    let mut octets = Vec::new();
    if let Some(pipe) = pipe {
        let _ = pipe.take(SAID_MAX).read_to_end(&mut octets);
    }
    String::from_utf8_lossy(&octets).into_owned()
}

/// Waits for the end; asks for it when it is time, and insists when nothing happens.
fn wait(child: &mut Child, limit: Duration, stop: &AtomicBool) -> bool {
    let begun_at = Instant::now();
    let mut asked_at: Option<Instant> = None;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) => {}
            Err(_) => return false,
        }
        let over = begun_at.elapsed() > limit || stop.load(Ordering::Relaxed);
        match asked_at {
            None if over => {
                if let Ok(pid) = i32::try_from(child.id()) {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
                }
                asked_at = Some(Instant::now());
            }
            Some(at) if at.elapsed() > Duration::from_secs(10) => {
                let _ = child.kill();
            }
            _ => {}
        }
        std::thread::sleep(TICK);
    }
}
