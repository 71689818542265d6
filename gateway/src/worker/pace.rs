//! How much of a connection's octets may be sealed, or in the socket, and not yet sent.
//!
//! What is encrypted cannot be overtaken. So a connection holds about what it sends in ten milliseconds:
//! half of it in blocks, half in the socket (`TCP_NOTSENT_LOWAT`). The rest waits in the flow queue. The operator
//! may fix both halves instead.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// The time whose octets may be ahead, and over which the rate is measured.
const AHEAD: Duration = Duration::from_millis(10);

/// Octets that may be ahead. Steps, so that the socket is told rarely.
const CLASSES: [usize; 6] = [16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10];

/// The half of each that may be in the socket.
static IN_SOCKET: [i32; CLASSES.len()] = [8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10];

/// Where a connection starts, before its rate is known.
const FIRST: u8 = 2;

/// Octets in the socket of a connection whose rate is not known yet.
pub(super) const IN_SOCKET_FIRST: i32 = 32 << 10;

/// The rate of one connection and what follows from it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    class: u8,
    /// Octets of either half that the rate does not change.
    fixed: Option<NonZeroU32>,
    /// When the measurement began; `None` while the connection has nothing to send.
    since: Option<Instant>,
    octets: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { class: FIRST, fixed: None, since: None, octets: 0 }
    }
}

impl Pace {
    /// The pace of what takes all it is given at once: a UDP socket, which tells when it is full.
    pub fn unmeasured() -> Self {
        Self { class: (CLASSES.len() - 1) as u8, ..Self::default() }
    }

    /// The pace of a connection whose halves are `fixed` octets each, or follow its rate.
    pub fn fixed(fixed: Option<NonZeroU32>) -> Self {
        Self { fixed, ..Self::default() }
    }

    /// Whether the rate has no say.
    pub fn is_fixed(&self) -> bool {
        self.fixed.is_some()
    }

    /// Octets that may be sealed beyond those the socket has taken.
    pub fn sealed_max(&self) -> usize {
        match self.fixed {
            Some(octets) => octets.get() as usize,
            None => CLASSES[usize::from(self.class)] / 2,
        }
    }

    /// Octets that may be in the socket unsent, unless they are fixed.
    pub fn in_socket(&self) -> &'static i32 {
        &IN_SOCKET[usize::from(self.class)]
    }

    /// A send begins.
    pub fn begin(&mut self, now: Instant) {
        if self.since.is_none() {
            (self.since, self.octets) = (Some(now), 0);
        }
    }

    /// The socket took `octets`; `more` says that others wait already, so that the connection set the pace
    /// and not the core. Returns whether [`Self::in_socket`] has changed.
    pub fn sent(&mut self, octets: usize, more: bool, now: Instant) -> bool {
        let Some(since) = self.since.filter(|_| !self.is_fixed()) else { return false };
        self.octets = self.octets.saturating_add(octets);
        let elapsed = now.saturating_duration_since(since);
        let before = self.class;
        if elapsed < AHEAD {
            // A short burst shows a rate as well, but for what the socket took in and has not sent.
            let sent = self.octets.saturating_sub(*self.in_socket() as usize);
            self.class = self.class.max(class_within(ahead_at(sent, elapsed)));
        } else {
            let ahead = ahead_at(self.octets, elapsed);
            let class = class_within(ahead);
            // A quarter below the present step counts as the same.
            let slower = more && class_within(ahead + ahead / 3) < self.class;
            if class > self.class || slower {
                self.class = class;
            }
            (self.since, self.octets) = (Some(now), 0);
        }
        if !more {
            self.since = None;
        }
        self.class != before
    }
}

/// What the rate of `octets` in `elapsed` makes in the time ahead.
fn ahead_at(octets: usize, elapsed: Duration) -> usize {
    (octets as u128 * AHEAD.as_nanos() / elapsed.as_nanos().max(1)) as usize
}

/// The largest step within `octets`, or the least.
fn class_within(octets: usize) -> u8 {
    CLASSES.iter().rposition(|&class| class <= octets).unwrap_or(0) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Sends blocks of `octets` that take `each` to leave; returns how often the socket was told.
    fn run(pace: &mut Pace, now: &mut Instant, octets: usize, each: Duration, count: usize) -> usize {
        let mut told = 0;
        for _ in 0..count {
            pace.begin(*now);
            *now += each;
            told += usize::from(pace.sent(octets, true, *now));
        }
        told
    }

    #[test]
    fn the_halves_add_up() {
        for (class, in_socket) in CLASSES.iter().zip(IN_SOCKET) {
            assert_eq!(in_socket as usize * 2, *class);
        }
        assert_eq!(*Pace::default().in_socket(), IN_SOCKET_FIRST);
    }

    #[test]
    fn what_is_ahead_follows_the_rate_within_its_bounds() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        // 1 Mbit/s: ten milliseconds are 1,250 octets, the least step is more.
        run(&mut pace, &mut now, 8192, 65 * MS, 10);
        assert_eq!((pace.sealed_max(), *pace.in_socket()), (8192, 8192));
        // 100 Mbit/s: 125,000 octets.
        run(&mut pace, &mut now, 12_500, MS, 100);
        assert_eq!(pace.sealed_max(), 32 << 10);
        // 10 Gbit/s.
        run(&mut pace, &mut now, 128 << 10, Duration::from_micros(105), 10);
        assert_eq!(pace.sealed_max(), 256 << 10);
        // And back to 50 Mbit/s.
        run(&mut pace, &mut now, 12_500, 2 * MS, 100);
        assert_eq!(pace.sealed_max(), 16 << 10);
    }

    #[test]
    fn a_rate_at_the_edge_of_a_step_does_not_swing() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        run(&mut pace, &mut now, 13_200, MS, 100);
        let mut told = 0;
        for octets in [13_000, 13_200].into_iter().cycle().take(100) {
            told += run(&mut pace, &mut now, octets, MS, 10);
        }
        assert_eq!(told, 0);
    }

    #[test]
    fn short_bursts_that_leave_at_once_show_a_fast_connection() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        for _ in 0..3 {
            pace.begin(now);
            now += Duration::from_micros(100);
            pace.sent(32 << 10, true, now);
            now += Duration::from_micros(100);
            pace.sent(32 << 10, false, now);
            now += MS;
        }
        assert_eq!(pace.sealed_max(), 256 << 10);
    }

    #[test]
    fn what_the_socket_takes_in_is_no_rate() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        pace.begin(now);
        now += Duration::from_micros(50);
        assert!(!pace.sent(32 << 10, false, now));
    }

    #[test]
    fn what_the_operator_fixes_follows_no_rate() {
        let (mut pace, mut now) = (Pace::fixed(NonZeroU32::new(100_000)), Instant::now());
        let told = run(&mut pace, &mut now, 128 << 10, Duration::from_micros(105), 100);
        assert_eq!((told, pace.sealed_max()), (0, 100_000));
        assert_eq!(run(&mut pace, &mut now, 8192, 65 * MS, 10), 0);
        assert_eq!(pace.sealed_max(), 100_000);
    }

    #[test]
    fn a_core_that_sends_little_does_not_make_the_connection_slow() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        for _ in 0..100 {
            pace.begin(now);
            now += 20 * MS;
            assert!(!pace.sent(200, false, now));
        }
        assert_eq!(pace.sealed_max(), 32 << 10);
    }
}
