//! How much of a connection's octets may be sealed, or in the socket, and not yet sent.
//!
//! What is encrypted cannot be overtaken. So a connection holds about what it sends in ten milliseconds:
//! half of it in blocks, half in the socket (`TCP_NOTSENT_LOWAT`). The rest waits in the flow queue. The operator
//! may fix both halves instead.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// The time whose octets may be ahead.
const AHEAD: Duration = Duration::from_millis(10);

/// The least time over which the rate is measured. On a path that loses, acknowledgements come in bursts: after a gap
/// is filled the socket takes 200 KB at once, and sends 20 KB per round trip from then on.
const WINDOW: Duration = Duration::from_millis(50);

/// After so long without a send nothing is known about the path any more; TCP starts anew as well.
const FORGOTTEN: Duration = Duration::from_secs(1);

/// Octets that may be ahead. Steps, so that the socket is told rarely.
const CLASSES: [usize; 7] = [8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10];

/// The half of each that may be in the socket; the least is two frames and a half.
static IN_SOCKET: [i32; CLASSES.len()] =
    [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10];

/// Where a connection starts, before its rate is known.
const FIRST: u8 = 3;

/// Octets in the socket of a connection whose rate is not known yet.
pub(super) const IN_SOCKET_FIRST: i32 = 32 << 10;

/// The rate of one connection and what follows from it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    class: u8,
    /// Octets of either half that the rate does not change.
    fixed: Option<NonZeroU32>,
    /// When the measurement began.
    since: Option<Instant>,
    octets: usize,
    /// Whether the connection has had nothing to send meanwhile.
    idle: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self { class: FIRST, fixed: None, since: None, octets: 0, idle: false }
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

    /// Whether either half is below that of a connection whose rate is not known yet.
    pub fn is_slow(&self) -> bool {
        self.sealed_max() < IN_SOCKET_FIRST as usize
    }

    /// A send begins.
    pub fn begin(&mut self, now: Instant) {
        if self.since.is_none() {
            self.measure_from(now);
        }
    }

    /// The socket took `octets`; `more` says that others wait already, so that the connection set the pace
    /// and not the core. Returns whether [`Self::in_socket`] has changed.
    pub fn sent(&mut self, octets: usize, more: bool, now: Instant) -> bool {
        let Some(since) = self.since.filter(|_| !self.is_fixed()) else { return false };
        self.octets = self.octets.saturating_add(octets);
        let elapsed = now.saturating_duration_since(since);
        let before = self.class;
        self.idle |= !more;
        if elapsed >= WINDOW {
            self.choose(elapsed);
            self.measure_from(now);
            // With nothing to send from here on, the next window begins idle.
            self.idle = !more;
        }
        self.class != before
    }

    fn measure_from(&mut self, now: Instant) {
        (self.since, self.octets, self.idle) = (Some(now), 0, false);
    }

    /// Chooses the step by what was sent in `elapsed`.
    fn choose(&mut self, elapsed: Duration) {
        // What the socket may have taken in without sending it shows nothing.
        let faster = class_within(ahead_at(self.octets.saturating_sub(*self.in_socket() as usize), elapsed));
        // A quarter below the present step counts as the same.
        let ahead = ahead_at(self.octets, elapsed);
        let slower = class_within(ahead + ahead / 3);
        if faster > self.class {
            self.class = faster;
        } else if slower < self.class && !self.idle {
            self.class = class_within(ahead);
        } else if elapsed >= FORGOTTEN {
            self.class = self.class.min(FIRST);
        }
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
        assert_eq!((pace.sealed_max(), *pace.in_socket()), (4096, 4096));
        // 100 Mbit/s: 125,000 octets.
        run(&mut pace, &mut now, 12_500, MS, 110);
        assert_eq!(pace.sealed_max(), 32 << 10);
        // 10 Gbit/s.
        run(&mut pace, &mut now, 128 << 10, Duration::from_micros(105), 1_000);
        assert_eq!(pace.sealed_max(), 256 << 10);
        // And back to 50 Mbit/s.
        run(&mut pace, &mut now, 12_500, 2 * MS, 100);
        assert_eq!(pace.sealed_max(), 16 << 10);
    }

    #[test]
    fn a_rate_at_the_edge_of_a_step_does_not_swing() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        run(&mut pace, &mut now, 15_000, MS, 300);
        assert_eq!(pace.sealed_max(), 64 << 10);
        let mut told = 0;
        for octets in [13_000, 13_200].into_iter().cycle().take(20) {
            told += run(&mut pace, &mut now, octets, MS, 100);
        }
        assert_eq!(told, 0);
    }

    #[test]
    fn a_burst_after_a_gap_is_no_rate() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        // 2 Mbit/s on the whole: now and then the socket takes 100 KB at once.
        for _ in 0..50 {
            run(&mut pace, &mut now, 4_096, Duration::from_micros(20), 25);
            assert!(*pace.in_socket() <= 32 << 10);
            run(&mut pace, &mut now, 4_096, 400 * MS, 1);
        }
        assert_eq!(*pace.in_socket(), 4 << 10);
    }

    #[test]
    fn bursts_that_leave_at_once_count_by_their_mean() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        // 800 Mbit/s in bursts of 100 KB, nothing in between.
        for _ in 0..200 {
            run(&mut pace, &mut now, 50_000, Duration::from_micros(50), 1);
            pace.begin(now);
            pace.sent(50_000, false, now);
            now += MS - Duration::from_micros(50);
        }
        assert_eq!(pace.sealed_max(), 256 << 10);
    }

    #[test]
    fn what_the_socket_takes_in_is_no_rate() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        pace.begin(now);
        now += WINDOW;
        // By the octets alone this would be the next step.
        assert!(!pace.sent(640 << 10, false, now));
    }

    #[test]
    fn a_pause_behind_a_lone_packet_does_not_make_the_connection_slow() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        pace.begin(now);
        now += WINDOW;
        assert!(!pace.sent(200, false, now));
        now += 10 * WINDOW;
        pace.begin(now);
        now += MS;
        assert!(!pace.sent(32 << 10, true, now));
        assert_eq!(*pace.in_socket(), IN_SOCKET_FIRST);
    }

    #[test]
    fn what_is_fixed_does_not_follow_the_rate() {
        let (mut pace, mut now) = (Pace::fixed(NonZeroU32::new(100_000)), Instant::now());
        assert_eq!(run(&mut pace, &mut now, 128 << 10, Duration::from_micros(105), 1_000), 0);
        assert_eq!(run(&mut pace, &mut now, 8192, 65 * MS, 10), 0);
        assert_eq!((pace.sealed_max(), pace.is_slow()), (100_000, false));
        assert!(Pace::fixed(NonZeroU32::new(4096)).is_slow() && !Pace::default().is_slow());
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

    #[test]
    fn what_was_known_is_forgotten_while_nothing_is_sent() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        run(&mut pace, &mut now, 128 << 10, Duration::from_micros(105), 1_000);
        pace.begin(now);
        pace.sent(200, false, now);
        now += 2 * FORGOTTEN;
        pace.begin(now);
        assert!(pace.sent(200, false, now));
        assert_eq!(*pace.in_socket(), IN_SOCKET_FIRST);
    }
}
