//! What became of attempts to attach, step by step: what an operator asks when a phone does not get in.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::aaa::Subject;
use super::identity::Identity;
use crate::types::{Path, Transport};

/// Steps kept of one attempt; of a long one the first and the last.
const STEPS_MAX: usize = 16;

/// One attempt that is under way.
#[derive(Default)]
pub(super) struct Record {
    /// What happened when.
    steps: Vec<(&'static str, Instant)>,
    who: Option<Box<Who>>,
    failure: Option<&'static str>,
}

/// Who tried, as far as it is known.
struct Who {
    idi: Arc<str>,
    apn: Option<Arc<str>>,
    imei: Option<Arc<str>>,
    profile: Option<Arc<str>>,
}

/// An attempt that failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FailedAttempt {
    /// When it began.
    pub began: SystemTime,
    /// What the UE called itself; a subscriber's identity.
    pub idi: Arc<str>,
    /// The APN that it asked for.
    pub apn: Option<Arc<str>>,
    /// Its IMEI or IMEISV, if it was asked and told.
    pub imei: Option<Arc<str>>,
    /// The profile that fitted.
    pub profile: Option<Arc<str>>,
    /// What carried its IKE.
    pub transport: Transport,
    /// Where it came from.
    pub remote: SocketAddr,
    /// What happened, each with the time since the attempt began.
    pub steps: Box<[(&'static str, Duration)]>,
    /// Why it failed, in words.
    pub cause: &'static str,
}

impl Record {
    /// Notes a step.
    pub(super) fn step(&mut self, now: Instant, name: &'static str) {
        if self.steps.len() == STEPS_MAX {
            self.steps.pop();
        }
        self.steps.push((name, now));
    }

    /// Notes who it is, as told to a back end.
    pub(super) fn about(&mut self, subject: &Subject) {
        let (idi, apn) = (subject.idi.clone(), subject.apn.clone());
        let (imei, profile) = (subject.imei.clone(), Some(subject.profile.clone()));
        self.who = Some(Box::new(Who { idi, apn, imei, profile }));
    }

    /// Notes who says it is, unless more is known.
    pub(super) fn says(&mut self, idi: &Identity, apn: Option<&Identity>) {
        let apn = apn.map(|apn| apn.to_string().to_lowercase().into());
        self.who.get_or_insert_with(|| {
            Box::new(Who { idi: idi.to_string().into(), apn, imei: None, profile: None })
        });
    }

    /// Notes why it fails; the first cause stays.
    pub(super) fn fail(&mut self, now: Instant, cause: &'static str) {
        if self.failure.is_none() {
            self.failure = Some(cause);
            self.step(now, "failed");
        }
    }

    /// The record of an attempt that has failed, when it is worth one: nobody has said who he is in a flood of
    /// IKE_SA_INIT.
    pub(super) fn into_failed(
        self,
        created: Instant,
        began: SystemTime,
        path: &Path,
    ) -> Option<FailedAttempt> {
        let who = *self.who?;
        let since = |(name, at): (&'static str, Instant)| (name, at.saturating_duration_since(created));
        Some(FailedAttempt {
            began,
            idi: who.idi,
            apn: who.apn,
            imei: who.imei,
            profile: who.profile,
            transport: path.transport,
            remote: path.remote,
            steps: self.steps.into_iter().map(since).collect(),
            cause: self.failure.unwrap_or("the UE went silent"),
        })
    }
}

/// The latest failed attempts, bounded; the oldest makes room.
pub(super) struct FailedAttempts {
    kept: VecDeque<FailedAttempt>,
    max: usize,
}

impl FailedAttempts {
    pub(super) fn new(max: usize) -> Self {
        Self { kept: VecDeque::new(), max }
    }

    pub(super) fn keep(&mut self, attempt: FailedAttempt) {
        if self.kept.len() >= self.max {
            self.kept.pop_front();
        }
        if self.max > 0 {
            self.kept.push_back(attempt);
        }
    }

    /// Oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &FailedAttempt> {
        self.kept.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> Path {
        let addr = |text: &str| text.parse().expect("an address");
        Path { transport: Transport::Tcp, local: addr("192.0.2.1:4500"), remote: addr("198.51.100.7:4000") }
    }

    #[test]
    fn a_record_tells_steps_times_and_the_first_cause() {
        let start = Instant::now();
        let mut record = Record::default();
        record.says(&"alice@test".parse().expect("an identity"), None);
        for round in 0..40 {
            record.step(start + Duration::from_millis(round), "round");
        }
        record.fail(start + Duration::from_millis(50), "first");
        record.fail(start + Duration::from_millis(60), "second");
        let failed = record.into_failed(start, SystemTime::UNIX_EPOCH, &path()).expect("somebody");
        assert_eq!((&*failed.idi, failed.cause, failed.steps.len()), ("alice@test", "first", STEPS_MAX));
        assert_eq!(failed.steps.last(), Some(&("failed", Duration::from_millis(50))));
    }

    #[test]
    fn nobody_leaves_no_record_and_records_are_bounded() {
        let start = Instant::now();
        assert!(Record::default().into_failed(start, SystemTime::UNIX_EPOCH, &path()).is_none());
        let mut failed = FailedAttempts::new(2);
        for name in ["a", "b", "c"] {
            let mut record = Record::default();
            record.says(&name.parse().expect("an identity"), None);
            failed.keep(record.into_failed(start, SystemTime::UNIX_EPOCH, &path()).expect("somebody"));
        }
        assert_eq!(failed.iter().map(|failed| &*failed.idi).collect::<Vec<_>>(), ["b", "c"]);
    }
}
