//! Whether the loop turns so often that work should gather between turns.

use std::time::{Duration, Instant};

/// Turns are counted over this time.
const WINDOW: Duration = Duration::from_millis(1);

/// Turns in a window from which on work gathers: one turn per 100 us or more often.
const BUSY_TURNS: u32 = 10;

/// The turns of a worker's loop.
///
/// A turn costs a wait, a wake-up and, per connection, an acknowledgement and a write to the inner device,
/// however little there was to do. Under load, larger turns cost less for each packet; a worker with little to
/// do answers at once.
pub(super) struct Gather {
    window_began: Instant,
    turns: u32,
    busy: bool,
}

impl Gather {
    pub fn new(now: Instant) -> Self {
        Self { window_began: now, turns: 0, busy: false }
    }

    /// A turn begins.
    pub fn turn(&mut self, now: Instant) {
        self.turns += 1;
        let passed = now.saturating_duration_since(self.window_began);
        if passed >= WINDOW {
            // A long sleep inside the window makes it a quiet one, whatever came before.
            self.busy = passed < 2 * WINDOW && self.turns >= BUSY_TURNS;
            self.window_began = now;
            self.turns = 0;
        }
    }

    /// Whether the next turn should wait for more work than the first piece.
    pub fn is_busy(&self) -> bool {
        self.busy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(gather: &mut Gather, from: Instant, every_us: u64, turns: u64) -> Instant {
        (1..=turns).for_each(|turn| gather.turn(from + Duration::from_micros(every_us * turn)));
        from + Duration::from_micros(every_us * turns)
    }

    #[test]
    fn many_turns_are_load_and_few_are_not() {
        let start = Instant::now();
        let mut gather = Gather::new(start);
        let now = run(&mut gather, start, 20, 200);
        assert!(gather.is_busy());
        // Gathering alone, 50 us a turn, does not look like the end of the load.
        let now = run(&mut gather, now, 60, 200);
        assert!(gather.is_busy());
        let now = run(&mut gather, now, 200, 50);
        assert!(!gather.is_busy());
        let now = run(&mut gather, now, 20, 200);
        gather.turn(now + Duration::from_secs(1));
        assert!(!gather.is_busy(), "it has slept");
    }
}
