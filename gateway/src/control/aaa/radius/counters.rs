//! What is counted of one server. Written by the task of its back end alone, read by whoever asks for metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::control::aaa::ServerView;
use crate::control::responder::RejectCause;

/// Counters of a server.
#[derive(Default, Debug)]
pub struct ServerCounters {
    up: AtomicBool,
    requests: AtomicU64,
    retransmissions: AtomicU64,
    timeouts: AtomicU64,
    bad_answers: AtomicU64,
    accepts: AtomicU64,
    rejects: [AtomicU64; RejectCause::ALL.len()],
    answers: AtomicU64,
    waited_us: AtomicU64,
    lost: AtomicU64,
}

impl ServerCounters {
    pub fn set_up(&self, up: bool) {
        self.up.store(up, Ordering::Relaxed);
    }

    pub fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub fn retransmission(&self) {
        self.retransmissions.fetch_add(1, Ordering::Relaxed);
    }

    pub fn timeout(&self) {
        self.timeouts.fetch_add(1, Ordering::Relaxed);
    }

    pub fn bad_answer(&self) {
        self.bad_answers.fetch_add(1, Ordering::Relaxed);
    }

    pub fn answer(&self, waited: Duration) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        self.waited_us.fetch_add(waited.as_micros() as u64, Ordering::Relaxed);
    }

    pub fn lost(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    pub fn accept(&self) {
        self.accepts.fetch_add(1, Ordering::Relaxed);
    }

    pub fn reject(&self, cause: RejectCause) {
        if let Some(at) = RejectCause::ALL.iter().position(|of| *of == cause) {
            self.rejects[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What they say now.
    pub fn view(&self, backend: &Arc<str>, server: &str) -> ServerView {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let rejects = RejectCause::ALL.iter().zip(&self.rejects).map(|(cause, n)| (*cause, read(n)));
        ServerView {
            backend: backend.clone(),
            server: server.into(),
            up: self.up.load(Ordering::Relaxed),
            requests: read(&self.requests),
            retransmissions: read(&self.retransmissions),
            timeouts: read(&self.timeouts),
            bad_answers: read(&self.bad_answers),
            accepts: read(&self.accepts),
            rejects: rejects.filter(|(_, n)| *n > 0).collect(),
            answers: read(&self.answers),
            waited: Duration::from_micros(read(&self.waited_us)),
            lost: read(&self.lost),
        }
    }
}
