//! Logs: to standard error, at the level of `debug.log`, bounded where a UE can cause them.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

/// The log level of the running process, which a reload may change.
pub struct LogLevel(reload::Handle<Targets, Registry>);

impl LogLevel {
    /// Starts logging with the filter `directives`, which the configuration has checked.
    pub fn start(directives: &str) -> Self {
        let (filter, handle) = reload::Layer::new(parse(directives));
        let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
        // A second start in one process keeps the first logger; only tests do that.
        let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
        Self(handle)
    }

    /// Replaces the filter.
    pub fn set(&self, directives: &str) {
        if let Err(error) = self.0.reload(parse(directives)) {
            tracing::warn!("log level stays: {error}");
        }
    }
}

fn parse(directives: &str) -> Targets {
    directives.parse().unwrap_or_else(|_| Targets::new().with_default(tracing::Level::INFO))
}

/// Bounds the lines of one call site: so many per second, then silence until the next second begins.
pub struct LogLimit {
    per_s: u32,
    second: Instant,
    lines: u32,
    skipped: u64,
}

impl LogLimit {
    /// A limit of `per_s` lines per second.
    pub fn new(per_s: u32, now: Instant) -> Self {
        Self { per_s, second: now, lines: 0, skipped: 0 }
    }

    /// Whether a line may be logged at `now`, and if so how many were left out since the last one.
    pub fn allow(&mut self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.second) >= Duration::from_secs(1) {
            self.second = now;
            self.lines = 0;
        }
        if self.lines >= self.per_s {
            self.skipped += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.skipped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_limit_are_counted_and_reported_with_the_next() {
        let start = Instant::now();
        let mut limit = LogLimit::new(2, start);
        let answers: Vec<_> = (0..5).map(|_| limit.allow(start)).collect();
        assert_eq!(answers, [Some(0), Some(0), None, None, None]);
        assert_eq!(limit.allow(start + Duration::from_millis(999)), None);
        assert_eq!(limit.allow(start + Duration::from_millis(1000)), Some(4));
        assert_eq!(limit.allow(start + Duration::from_millis(1001)), Some(0));
    }
}
