//! How much of a connection's octets may be sealed, or in the socket, and not yet sent.
//!
//! What is encrypted cannot be overtaken. So a connection holds about what it sends in ten milliseconds:
//! half of it in blocks, half in the socket (`TCP_NOTSENT_LOWAT`). The rest waits in the flow queue. The operator
//! may fix both halves instead.
//!
//! Large blocks are cheaper. While the socket takes each of them at once nothing waits in it, however slow the
//! connection is on the whole because many share the core; then it holds more than its rate says.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// The time whose octets may be ahead.
const AHEAD: Duration = Duration::from_millis(10);

/// The least time over which the rate is measured. On a path that loses, acknowledgements come in bursts: after a gap
/// is filled the socket takes 200 KB at once, and sends 20 KB per round trip from then on.
const WINDOW: Duration = Duration::from_millis(50);

/// After so long without a send nothing is known about the path any more; TCP starts anew as well.
const FORGOTTEN: Duration = Duration::from_secs(1);

/// How long a connection that made a block wait counts as one that holds up its packets. A path that loses does so
/// between bursts.
const HELD_UP: Duration = Duration::from_secs(1);

/// Steps above that of its rate for a connection that does not.
const UNHINDERED: u8 = 2;

/// Octets that may be ahead. Steps, so that the socket is told rarely. The first is for calls: it stands for a frame
/// in the socket and one behind it.
const CLASSES: [usize; 8] = [0, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10];

/// The half of each that may be in the socket. With one octet it takes something only when all else is sent; the next
/// is two frames and a half.
static IN_SOCKET: [i32; CLASSES.len()] =
    [1, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10];

/// The least step for a connection without a call: smaller blocks make many small segments.
const LEAST: u8 = 1;

const LAST: u8 = (CLASSES.len() - 1) as u8;

/// Where a connection starts, before its rate is known.
const FIRST: u8 = 4;

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
    /// When the send in flight began.
    begun: Option<Instant>,
    /// When the socket last made a block wait longer than what is ahead may take.
    held_up: Option<Instant>,
    octets: usize,
    /// Whether the connection has had nothing to send meanwhile.
    idle: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self { class: FIRST, fixed: None, since: None, begun: None, held_up: None, octets: 0, idle: false }
    }
}

impl Pace {
    /// The pace of what takes all it is given at once: a UDP socket, which tells when it is full.
    pub fn unmeasured() -> Self {
        Self { class: LAST, ..Self::default() }
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

    /// Frames that may always be sealed beyond those the socket has taken, however slow the connection is.
    pub fn sealed_frames(&self) -> usize {
        if self.class == 0 && !self.is_fixed() { 1 } else { 2 }
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
        self.begun = Some(now);
        if self.since.is_none() {
            self.measure_from(now);
        }
    }

    /// When the send in flight, or the last one, began.
    pub fn begun(&self) -> Option<Instant> {
        self.begun
    }

    /// The socket took `octets`; `more` says that others wait already, so that the connection set the pace
    /// and not the core, `call` that no packet of a call is to wait for the sake of large blocks. Returns whether
    /// [`Self::in_socket`] has changed.
    pub fn sent(&mut self, octets: usize, more: bool, call: bool, now: Instant) -> bool {
        let Some(since) = self.since.filter(|_| !self.is_fixed()) else { return false };
        self.octets = self.octets.saturating_add(octets);
        let elapsed = now.saturating_duration_since(since);
        let before = self.class;
        self.idle |= !more;
        if self.begun.is_some_and(|begun| now.saturating_duration_since(begun) > AHEAD) {
            self.held_up = Some(now);
        }
        if elapsed >= WINDOW {
            let held_up = self.held_up.is_some_and(|at| now.saturating_duration_since(at) < HELD_UP);
            let above = if held_up || call { 0 } else { UNHINDERED };
            self.choose(elapsed, above, if call { 0 } else { LEAST });
            self.measure_from(now);
            // With nothing to send from here on, the next window begins idle.
            self.idle = !more;
        }
        self.class != before
    }

    fn measure_from(&mut self, now: Instant) {
        (self.since, self.octets, self.idle) = (Some(now), 0, false);
    }

    /// Chooses the step `above` that of what was sent in `elapsed`, or the least.
    fn choose(&mut self, elapsed: Duration, above: u8, least: u8) {
        let class_within = |octets| (class_within(octets).max(least) + above).min(LAST);
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
            told += usize::from(pace.sent(octets, true, false, *now));
        }
        told
    }

    #[test]
    fn the_halves_add_up() {
        for (class, in_socket) in CLASSES.iter().zip(IN_SOCKET).skip(LEAST.into()) {
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
        run(&mut pace, &mut now, 4_100, MS, 300);
        assert_eq!(pace.sealed_max(), 64 << 10);
        let mut told = 0;
        for octets in [3_250, 3_300].into_iter().cycle().take(20) {
            told += run(&mut pace, &mut now, octets, MS, 100);
        }
        assert_eq!(told, 0);
    }

    #[test]
    fn a_call_has_no_more_than_a_frame_ahead_on_a_slow_connection() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        let slow = |pace: &mut Pace, now: &mut Instant, call| {
            for _ in 0..20 {
                pace.begin(*now);
                *now += 20 * MS;
                pace.sent(4_096, true, call, *now);
            }
            (pace.sealed_max(), pace.sealed_frames(), *pace.in_socket())
        };
        assert_eq!(slow(&mut pace, &mut now, false), (4_096, 2, 4_096));
        assert_eq!(slow(&mut pace, &mut now, true), (0, 1, 1));
        assert_eq!(slow(&mut pace, &mut now, false), (4_096, 2, 4_096));
        // A fast one has the ten milliseconds of its rate, and no larger blocks.
        let mut pace = Pace::default();
        for _ in 0..200 {
            pace.begin(now);
            now += 2 * MS;
            pace.sent(16_000, true, true, now);
        }
        assert_eq!(pace.sealed_max(), 32 << 10);
    }

    #[test]
    fn more_is_ahead_while_the_socket_takes_each_block_at_once() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        // 64 Mbit/s, ten milliseconds of which are 80,000 octets.
        run(&mut pace, &mut now, 16_000, 2 * MS, 100);
        assert_eq!(pace.sealed_max(), 128 << 10);
        run(&mut pace, &mut now, 88_000, 11 * MS, 10);
        assert_eq!(pace.sealed_max(), 32 << 10);
        // For as long as it may be chance that none had to wait.
        run(&mut pace, &mut now, 16_000, 2 * MS, 400);
        assert_eq!(pace.sealed_max(), 32 << 10);
        run(&mut pace, &mut now, 16_000, 2 * MS, 150);
        assert_eq!(pace.sealed_max(), 128 << 10);
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
            pace.sent(50_000, false, false, now);
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
        assert!(!pace.sent(640 << 10, false, false, now));
    }

    #[test]
    fn a_pause_behind_a_lone_packet_does_not_make_the_connection_slow() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        pace.begin(now);
        now += WINDOW;
        assert!(!pace.sent(200, false, false, now));
        now += 10 * WINDOW;
        pace.begin(now);
        now += MS;
        assert!(!pace.sent(32 << 10, true, false, now));
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
            assert!(!pace.sent(200, false, false, now));
        }
        assert_eq!(pace.sealed_max(), 32 << 10);
    }

    #[test]
    fn what_was_known_is_forgotten_while_nothing_is_sent() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        run(&mut pace, &mut now, 128 << 10, Duration::from_micros(105), 1_000);
        pace.begin(now);
        pace.sent(200, false, false, now);
        now += 2 * FORGOTTEN;
        pace.begin(now);
        assert!(pace.sent(200, false, false, now));
        assert_eq!(*pace.in_socket(), IN_SOCKET_FIRST);
    }
}
