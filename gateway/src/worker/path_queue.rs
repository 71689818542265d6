//! How fast a busy connection may send while a call shares it.
//!
//! TCP that has enough to send fills the queue of its path, and a call of the same UE waits there, where no flow queue
//! of ours reaches. So while there is a call, the kernel is asked now and then how long the round trip is and how fast
//! the path delivers (`TCP_INFO`), and paces the connection (`SO_MAX_PACING_RATE`) so that a queue of a few
//! milliseconds is left. It only ever takes away from what congestion control allows.
//!
//! ```text
//! queue = round trip - round trip of the empty path
//! pace  = what the path delivers x (1 + (queue allowed - queue) / time to get there)
//! ```

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::flow_queue::Delay;
use crate::io::sockets::{self, PathInfo};
use crate::limits::WATCHED_MAX;

/// The least time between two looks at a connection; a round trip when that is longer.
const LOOK: Duration = Duration::from_millis(50);

/// The least time in which a queue is to become what is allowed; four round trips when that is longer: what is done
/// about a queue shows after one.
const SETTLE: Duration = Duration::from_millis(160);

/// Bounds of the pace, as parts of what the path delivers.
const SLOWEST: f64 = 0.75;
const FASTEST: f64 = 1.05;

/// The least of them without a queue: on a long path the time to settle would make the way up a long one.
const FASTER: f64 = 1.015;

/// What is left per look of a rate that was seen once and is not any more.
const KEPT: f64 = 0.93;

/// More than so many times what is allowed is too long a queue.
const TOO_LONG: f64 = 1.2;

/// Looks in a row at a queue that does not get shorter though no more is sent than arrives. Then it is not ours: the
/// path has become longer, or others keep it full and would take what we leave them.
const NOT_OURS: u8 = 16;

/// What is sent counts as arriving up to so many times what arrives, as far as the kernel measures it.
const ARRIVES: f64 = 1.02;

/// Least pace, octets per second: two calls and their headers.
const PACE_MIN: f64 = 32e3;

/// What has to be known of all connections of a worker: how many are watched. Each costs a descriptor.
#[derive(Clone, Debug, Default)]
pub(super) struct Watched(Arc<()>);

impl Watched {
    /// Room for one more.
    pub fn one_more(&self) -> Option<Self> {
        (Arc::strong_count(&self.0) <= WATCHED_MAX).then(|| self.clone())
    }
}

/// A connection that is watched.
#[derive(Debug)]
pub(super) struct PathQueue {
    /// The second descriptor of its socket, once it is there.
    socket: Option<OwnedFd>,
    control: Control,
    next: Instant,
    /// What the last look saw, and when.
    before: Option<(PathInfo, Instant)>,
    /// What is a standing queue above the connection.
    delay: Delay,
    /// Whether the connection has had something to send since the last look.
    busy: bool,
    _watched: Watched,
}

impl PathQueue {
    /// The watch begins; its socket has been asked for.
    pub fn new(allowed: Duration, watched: Watched, now: Instant) -> Self {
        Self {
            socket: None,
            control: Control::new(allowed),
            next: now,
            before: None,
            delay: Delay::default(),
            busy: true,
            _watched: watched,
        }
    }

    /// The socket is there.
    pub fn opened(&mut self, socket: OwnedFd) {
        self.socket = Some(socket);
    }

    /// What is a standing queue above the connection.
    pub fn delay(&self) -> Delay {
        self.delay
    }

    /// The socket took a block; `more` says that others wait.
    pub fn sent(&mut self, more: bool, now: Instant) {
        self.busy &= more;
        let Some(socket) = self.socket.as_ref().filter(|_| now >= self.next) else { return };
        let busy = std::mem::replace(&mut self.busy, true);
        // Fails only for a connection that is gone.
        let Ok(info) = sockets::path_info(socket.as_fd()) else { return };
        self.next = now + info.round_trip.max(LOOK);
        self.delay = Delay::above(info.least);
        let before = self.before.replace((info, now));
        let Some(delivered) = before.and_then(|(before, then)| delivered(&before, &info, now - then)) else {
            return;
        };
        let (round_trip, least) = (info.round_trip.as_secs_f64(), info.least.as_secs_f64());
        if let Some(pace) = self.control.look(Look { round_trip, least, delivered, busy }) {
            let _ = sockets::limit_pace(socket.as_fd(), Some(pace));
        }
    }
}

impl Drop for PathQueue {
    fn drop(&mut self) {
        if let Some(socket) = &self.socket {
            // The connection may live on, here or at another worker.
            let _ = sockets::limit_pace(socket.as_fd(), None);
        }
    }
}

/// Octets per second that arrived in `elapsed`. The kernel counts segments, also behind gaps; those with octets in them
/// were as long as those that were sent meanwhile.
fn delivered(before: &PathInfo, now: &PathInfo, elapsed: Duration) -> Option<f64> {
    let arrived = now.arrived.wrapping_sub(before.arrived);
    let segments = now.segments.wrapping_sub(before.segments);
    let octets = now.octets.saturating_sub(before.octets) as f64;
    (segments > 0 && !elapsed.is_zero())
        .then(|| f64::from(arrived) * octets / f64::from(segments) / elapsed.as_secs_f64())
}

/// What a look at a connection shows; seconds, and octets per second.
#[derive(Clone, Copy, Debug)]
struct Look {
    round_trip: f64,
    least: f64,
    delivered: f64,
    busy: bool,
}

/// What follows from it.
#[derive(Clone, Debug)]
struct Control {
    /// Queue that may be left, seconds.
    allowed: f64,
    /// Octets per second that the path delivers.
    delivers: f64,
    /// Octets per second that we send at most; none while the kernel chooses.
    pace: Option<f64>,
    /// Round trip that counts as that of the empty path, where the kernel's least one no longer is; seconds.
    empty: f64,
    /// Looks in a row at a queue that was too long.
    too_long: u8,
}

impl Control {
    fn new(allowed: Duration) -> Self {
        Self { allowed: allowed.as_secs_f64(), delivers: 0.0, pace: None, empty: 0.0, too_long: 0 }
    }

    /// Returns the pace when it should be another.
    fn look(&mut self, Look { round_trip, least, delivered, busy }: Look) -> Option<u64> {
        if round_trip <= 0.0 || least <= 0.0 || delivered <= 0.0 {
            return None;
        }
        self.empty = self.empty.min(round_trip).max(least);
        let queue = round_trip - self.empty;
        self.delivers = delivered.max(self.delivers * if queue > self.allowed { KEPT } else { 1.0 });
        if self.pace.is_none() && queue <= self.allowed * 2.0 {
            return None;
        }
        let all_arrives = self.pace.is_some_and(|pace| pace <= delivered * ARRIVES);
        self.too_long = match queue > self.allowed * TOO_LONG {
            true => self.too_long + u8::from(all_arrives),
            false => 0,
        };
        if self.too_long >= NOT_OURS {
            (self.too_long, self.empty) = (0, round_trip);
        }
        if !busy && queue <= self.allowed {
            // What it had to send says less about the path than what it may send.
            return None;
        }
        let settle = SETTLE.as_secs_f64().max(4.0 * self.empty);
        let queue = round_trip - self.empty;
        let slowest = if queue < self.allowed / 4.0 { FASTER } else { SLOWEST };
        let part = (1.0 + (self.allowed - queue) / settle).clamp(slowest, FASTEST);
        let pace = (self.delivers * part).max(PACE_MIN);
        self.pace = Some(pace);
        Some(pace as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: Duration = Duration::from_millis(3);
    const STEP: f64 = 0.005;

    /// A path with a queue, and a connection that always has more to send.
    struct Path {
        control: Control,
        /// Octets per second.
        rate: f64,
        /// Seconds of the empty path, and least ever.
        empty: f64,
        least: f64,
        /// Seconds that the queue takes at most.
        queue_max: f64,
        /// Octets in the queue.
        queue: f64,
        /// Smoothed, as the kernel does it.
        round_trip: f64,
        next: f64,
        now: f64,
        delivered: f64,
    }

    impl Path {
        fn new(mbit: f64, ms: f64) -> Self {
            let (rate, empty) = (mbit * 1e6 / 8.0, ms / 1e3);
            Self {
                control: Control::new(ALLOWED),
                rate,
                empty,
                least: empty,
                queue_max: 0.1,
                queue: 0.1 * rate,
                round_trip: empty + 0.1,
                next: 0.0,
                now: 0.0,
                delivered: 0.0,
            }
        }

        /// Lets `seconds` pass. Returns the part of the path's rate that was used, and the longest queue in milliseconds
        /// in their second half.
        fn run(&mut self, seconds: f64) -> (f64, f64) {
            let (begun, end) = (self.now, self.now + seconds);
            let (mut sent, mut longest) = (0.0, 0.0_f64);
            while self.now < end {
                self.now += STEP;
                let ours = self.rate;
                let pace = self.control.pace.unwrap_or(f64::MAX).min(ours * 2.0);
                let before = self.queue;
                self.queue = (before + (pace - ours) * STEP).clamp(0.0, self.queue_max * self.rate);
                let left = if self.queue > 0.0 { ours } else { before / STEP + pace };
                self.delivered = left.min(ours);
                let sample = self.empty + self.queue / self.rate;
                self.round_trip += (sample - self.round_trip) / 2.0;
                if self.now > begun + seconds / 2.0 {
                    sent += self.delivered * STEP;
                    longest = longest.max(self.queue / self.rate * 1e3);
                }
                if self.now >= self.next {
                    self.next = self.now + self.round_trip.max(LOOK.as_secs_f64());
                    self.look(true);
                }
            }
            (sent / (seconds / 2.0) / self.rate, longest)
        }

        fn look(&mut self, busy: bool) -> Option<u64> {
            self.control.look(Look {
                round_trip: self.round_trip,
                least: self.least,
                delivered: self.delivered,
                busy,
            })
        }
    }

    #[test]
    fn a_queue_gets_as_short_as_allowed_and_the_path_stays_busy() {
        for (mbit, ms) in [(2.0, 20.0), (20.0, 20.0), (20.0, 60.0), (20.0, 150.0), (100.0, 300.0)] {
            let (used, longest) = Path::new(mbit, ms).run(10.0);
            assert!(used > 0.97, "{mbit} Mbit/s, {ms} ms: {used}");
            assert!(longest < 10.0, "{mbit} Mbit/s, {ms} ms: {longest} ms");
        }
    }

    #[test]
    fn a_path_that_gets_slower_or_faster_is_followed() {
        let mut path = Path::new(20.0, 60.0);
        path.run(5.0);
        path.rate /= 4.0;
        let (used, longest) = path.run(12.0);
        assert!(used > 0.95 && longest < 15.0, "{used}, {longest} ms");
        path.rate *= 4.0;
        let (used, longest) = path.run(12.0);
        assert!(used > 0.95 && longest < 15.0, "{used}, {longest} ms");
    }

    #[test]
    fn a_path_that_gets_longer_is_no_queue() {
        let mut path = Path::new(20.0, 20.0);
        path.run(5.0);
        path.empty = 0.1;
        // Once it is understood, nothing is taken away for it.
        path.run(10.0);
        let (used, longest) = path.run(5.0);
        assert!(used > 0.97 && longest < 10.0, "{used}, {longest} ms");
    }

    #[test]
    fn a_queue_that_others_keep_takes_most_of_the_rate_at_worst_and_not_for_good() {
        let mut path = Path::new(20.0, 60.0);
        // However little we send, they fill the queue, and what we send arrives.
        path.delivered = path.rate;
        let mut paces = Vec::new();
        for _ in 0..80 {
            path.look(true);
            path.delivered = path.control.pace.expect("there is a queue");
            paces.push(path.delivered / path.rate);
        }
        let (at, least) = paces.iter().enumerate().min_by(|one, two| one.1.total_cmp(two.1)).expect("some");
        assert!(*least > 0.2 && at <= usize::from(NOT_OURS) + 1, "{least} at {at}");
        assert!(paces[79] > least * 2.0, "{} after {least}", paces[79]);
    }

    #[test]
    fn an_empty_path_is_left_alone() {
        let mut path = Path::new(20.0, 60.0);
        (path.queue, path.round_trip, path.delivered) = (0.0, 0.061, 1e6);
        assert_eq!((path.look(true), path.look(false)), (None, None));
        // What the kernel does not know yet is no measurement.
        path.delivered = 0.0;
        path.round_trip = 0.2;
        assert_eq!(path.look(true), None);
    }

    #[test]
    fn what_it_had_to_send_does_not_bound_what_it_may() {
        let mut path = Path::new(20.0, 60.0);
        path.run(5.0);
        let pace = path.control.pace;
        (path.queue, path.round_trip, path.delivered) = (0.0, 0.06, 10e3);
        assert_eq!(path.look(false), None);
        assert_eq!(path.control.pace, pace);
    }

    #[test]
    fn no_more_are_watched_than_there_is_room_for() {
        let all = Watched::default();
        let mut watched: Vec<_> = (0..WATCHED_MAX).map(|_| all.one_more().expect("room")).collect();
        assert!(all.one_more().is_none());
        watched.pop();
        assert!(all.one_more().is_some());
    }
}
