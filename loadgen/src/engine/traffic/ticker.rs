//! Ticks finer than the runtime's millisecond.

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_uring::fs::File;

/// Octets of a timer descriptor's count of expirations.
const COUNT_LEN: usize = 8;

/// A periodic timer; ticks that were missed are not made up for.
pub(super) enum Ticker {
    /// A timer descriptor, read through the ring.
    Fine(File, Vec<u8>),
    /// Where the kernel gives none.
    Coarse(Interval),
}

impl Ticker {
    /// Starts a timer; must run inside [`crate::engine::run`].
    pub(super) fn new(period: Duration) -> Self {
        match timer(period) {
            Ok(file) => Self::Fine(file, Vec::with_capacity(COUNT_LEN)),
            Err(_) => {
                let mut interval = tokio::time::interval(period.max(Duration::from_millis(1)));
                interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
                Self::Coarse(interval)
            }
        }
    }

    /// Waits for the next tick.
    pub(super) async fn tick(&mut self) {
        match self {
            Self::Coarse(interval) => {
                interval.tick().await;
            }
            Self::Fine(file, count) => {
                let mut buffer = std::mem::take(count);
                buffer.clear();
                (_, *count) = file.read_at(buffer, 0).await;
            }
        }
    }
}

/// Makes a timer descriptor that blocks: the ring waits for it.
fn timer(period: Duration) -> io::Result<File> {
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?;
    timer.set(Expiration::Interval(TimeSpec::from_duration(period)), TimerSetTimeFlags::empty())?;
    Ok(File::from_std(fs::File::from(timer.as_fd().try_clone_to_owned()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn ticks_come_in_fractions_of_a_millisecond() {
        crate::engine::run(async {
            let mut ticker = Ticker::new(Duration::from_micros(250));
            assert!(matches!(ticker, Ticker::Fine(..)));
            let begun_at = Instant::now();
            for _ in 0..40 {
                ticker.tick().await;
            }
            assert!(begun_at.elapsed() >= Duration::from_micros(9_700), "{:?}", begun_at.elapsed());
        })
        .unwrap();
    }
}
