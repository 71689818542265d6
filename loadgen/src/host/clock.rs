//! The clock that stamps probes.

use nix::time::{ClockId, clock_gettime};
use std::hash::{BuildHasher, Hasher};

/// Returns CLOCK_MONOTONIC in nanoseconds: the same clock for all processes of a host.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux always has CLOCK_MONOTONIC");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// Returns CLOCK_REALTIME in nanoseconds: the clock of the kernel's receive stamps. It may jump.
pub fn realtime_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).expect("Linux always has CLOCK_REALTIME");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// Sleeps until [`monotonic_ns`] is `at_ns`; returns at once when that has been.
pub fn sleep_until(at_ns: u64) {
    let left_ns = at_ns.saturating_sub(monotonic_ns());
    if left_ns > 0 {
        std::thread::sleep(std::time::Duration::from_nanos(left_ns));
    }
}

/// Returns a number that two processes share exactly when they read the same clock: one boot of one host.
///
/// 0 means unknown and equals nothing.
pub fn clock_id() -> u64 {
    let Ok(boot) = std::fs::read("/proc/sys/kernel/random/boot_id") else { return 0 };
    let mut hasher = ahash::RandomState::with_seeds(1, 2, 3, 4).build_hasher();
    hasher.write(&boot);
    hasher.finish().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_go_back_and_the_clock_has_a_stable_name() {
        let before = monotonic_ns();
        assert!(monotonic_ns() >= before);
        assert_eq!(clock_id(), clock_id());
    }
}
