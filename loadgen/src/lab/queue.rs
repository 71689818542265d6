//! Measurements to be made: in order, but for those of which only a few may be made at once.

use super::cell::Job;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most guests at once: to boot takes one a second of a core, and the paths beside it need theirs in time.
const GUESTS_MAX: usize = 2;

/// What is left to measure.
pub(super) struct Queue {
    state: Mutex<State>,
}

struct State {
    jobs: VecDeque<Job>,
    guests: usize,
}

impl Queue {
    pub(super) fn new(jobs: VecDeque<Job>) -> Self {
        Self { state: Mutex::new(State { jobs, guests: 0 }) }
    }

    /// Takes the next one that may be made now; [`Queue::done`] has to follow. When there is none, the slots that have
    /// what holds the others up come for them.
    pub(super) fn take(&self) -> Option<Job> {
        let mut state = self.lock();
        let full = state.guests >= GUESTS_MAX;
        let next = state.jobs.iter().position(|job| !(full && has_guest(job)))?;
        let job = state.jobs.remove(next)?;
        state.guests += usize::from(has_guest(&job));
        Some(job)
    }

    /// Tells that one of them is over.
    pub(super) fn done(&self, job: &Job) {
        self.lock().guests -= usize::from(has_guest(job));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn has_guest(job: &Job) -> bool {
    job.point.transport == "libreswan"
}

#[cfg(test)]
mod tests {
    use super::super::matrix::Matrix;
    use super::super::results::Point;
    use super::*;

    #[test]
    fn guests_wait_for_each_other_and_nobody_for_them() {
        let (_, point) = Matrix::read(None).unwrap().points().unwrap()[0].clone();
        let job = |(repetition, transport): (u32, &str)| Job {
            point: Point { transport: transport.into(), ..point.clone() },
            repetition,
            seed: 1,
            seconds: 1.0,
            warm_up: 1.0,
            swugate: None,
            slot: 0,
        };
        let transports = ["libreswan", "libreswan", "libreswan", "tcp", "libreswan"];
        let queue = Queue::new((0..).zip(transports).map(job).collect());
        let taken: Vec<Job> = std::iter::from_fn(|| queue.take()).collect();
        let order: Vec<u32> = taken.iter().map(|job| job.repetition).collect();
        assert_eq!(order, [0, 1, 3]);
        queue.done(&taken[2]);
        assert!(queue.take().is_none());
        queue.done(&taken[0]);
        assert_eq!(queue.take().map(|job| job.repetition), Some(2));
        assert!(queue.take().is_none());
    }
}
