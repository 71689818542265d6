//! What administrators see of attempts that failed. Who it was is told by a hash unless the configuration allows names.

use std::time::UNIX_EPOCH;

use aws_lc_rs::hmac;
use codec::{OsRandom, Random};

use super::responder::{FailedAttempt, Responder, is_meant};
use crate::admin::api::{FailedRow, StepRow};

/// Digits of a hash: enough to tell subscribers apart in one log.
const HASH_DIGITS: usize = 12;

/// Shows attempts.
pub struct AttemptLog {
    key: hmac::Key,
    /// Whether identities are shown as they are.
    named: bool,
}

impl AttemptLog {
    /// With a key that lasts as long as the process: a hash means nothing elsewhere.
    pub fn new(named: bool) -> Self {
        let mut key = [0; 32];
        OsRandom.fill(&mut key);
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &key), named }
    }

    /// Whether identities are shown from now on.
    pub fn set_named(&mut self, named: bool) {
        self.named = named;
    }

    /// The failed attempts, oldest first; only those of `idi` if it is given, which is an IMSI or what the UE called itself.
    pub fn failed(&self, responder: &Responder, idi: Option<&str>) -> Vec<FailedRow> {
        let of = |failed: &&FailedAttempt| idi.is_none_or(|wanted| is_meant(&failed.idi, wanted));
        responder.failed_attempts().filter(of).map(|failed| self.row(failed)).collect()
    }

    /// A subscriber's identity as it may be shown.
    pub fn shown(&self, identity: &str) -> String {
        if self.named {
            return identity.to_owned();
        }
        let tag = hmac::sign(&self.key, identity.to_lowercase().as_bytes());
        let hash: String = tag.as_ref().iter().map(|octet| format!("{octet:02x}")).collect();
        format!("#{}", &hash[..HASH_DIGITS])
    }

    /// The steps of an attempt in one line, such as `ike_auth+0 eap+0 round+12 failed+40` (milliseconds).
    pub fn steps(failed: &FailedAttempt) -> String {
        let steps: Vec<String> =
            failed.steps.iter().map(|(name, since)| format!("{name}+{}", since.as_millis())).collect();
        steps.join(" ")
    }

    fn row(&self, failed: &FailedAttempt) -> FailedRow {
        let began = failed.began.duration_since(UNIX_EPOCH).unwrap_or_default();
        FailedRow {
            began_s: began.as_millis() as f64 / 1e3,
            idi: self.shown(&failed.idi),
            apn: failed.apn.as_deref().map(str::to_owned),
            imei: failed.imei.as_deref().map(|imei| self.shown(imei)),
            profile: failed.profile.as_deref().map(str::to_owned),
            transport: failed.transport.as_str().to_owned(),
            remote: failed.remote.to_string(),
            cause: failed.cause.to_owned(),
            steps: failed
                .steps
                .iter()
                .map(|(name, since)| StepRow { step: (*name).to_owned(), ms: since.as_secs_f64() * 1e3 })
                .collect(),
        }
    }
}

impl Default for AttemptLog {
    fn default() -> Self {
        Self::new(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_hashed_alike_in_any_case_and_never_shown() {
        let log = AttemptLog::new(false);
        let shown = log.shown("Alice@test");
        assert_eq!(shown, log.shown("alice@TEST"));
        assert!(shown.starts_with('#') && shown.len() == HASH_DIGITS + 1 && !shown.contains("alice"));
        assert_ne!(shown, log.shown("bob@test"));
        assert_ne!(shown, AttemptLog::new(false).shown("alice@test"), "another process, another hash");
        assert_eq!(AttemptLog::new(true).shown("alice@test"), "alice@test");
    }
}
