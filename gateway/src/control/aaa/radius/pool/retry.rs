//! When to ask again (RFC 5080 §2.2.1), and how long to leave a silent server alone.

use std::time::Duration;

use codec::Random;

/// Longest time between two sendings of a request (RFC 5080 §2.2.1, MRT): less than the 16 s proposed there, since
/// UEs wait. What was sent to a server while it was away is mostly lost, so the last sending must not be long before the
/// end of our patience.
const RETRY_MAX: Duration = Duration::from_secs(4);

/// Longest time between two probes of a server that does not answer.
const PROBE_MAX: Duration = Duration::from_secs(60);

/// Longest time between two attempts at a connection.
const RECONNECT_MAX: Duration = Duration::from_secs(60);

/// First time until a connection is tried again.
pub const RECONNECT_FIRST: Duration = Duration::from_secs(1);

/// The time until the first repetition: `first`, a tenth more or less.
pub fn first(random: &mut dyn Random, first: Duration) -> Duration {
    scaled(first, 1.0 + tenth(random))
}

/// The time until the next repetition after `last`, where the first was after `first`.
pub fn next(random: &mut dyn Random, first: Duration, last: Duration) -> Duration {
    let (next, max) = (scaled(last, 2.0 + tenth(random)), RETRY_MAX.max(first));
    if next > max { scaled(max, 1.0 + tenth(random)) } else { next }
}

/// The time from the first sending until nobody waits any more, after so many repetitions; without jitter.
pub fn patience(first: Duration, repetitions: u32) -> Duration {
    let waits = (0..=repetitions.min(16)).map(|n| (first * (1 << n)).min(RETRY_MAX.max(first)));
    waits.sum()
}

/// The time until a silent server is probed again after `last`.
pub fn next_probe(random: &mut dyn Random, last: Duration) -> Duration {
    scaled((last * 2).min(PROBE_MAX.max(last)), 1.0 + tenth(random))
}

/// The time until a connection is tried again after `last`.
pub fn next_connect(random: &mut dyn Random, last: Duration) -> Duration {
    scaled((last * 2).min(RECONNECT_MAX), 1.0 + tenth(random))
}

/// RAND of RFC 5080: from -0.1 to 0.1.
fn tenth(random: &mut dyn Random) -> f64 {
    let mut octets = [0; 4];
    random.fill(&mut octets);
    f64::from(u32::from_be_bytes(octets)) / f64::from(u32::MAX) * 0.2 - 0.1
}

fn scaled(time: Duration, by: f64) -> Duration {
    time.mul_f64(by)
}

#[cfg(test)]
mod tests {
    use codec::OsRandom;

    use super::*;

    #[test]
    fn r5080_2_2_1_times_double_up_to_a_bound_with_a_tenth_of_jitter() {
        for _ in 0..100 {
            let mut at = first(&mut OsRandom, Duration::from_secs(2));
            assert!((1.8..=2.2).contains(&at.as_secs_f64()), "{at:?}");
            for _ in 0..8 {
                let next = next(&mut OsRandom, Duration::from_secs(2), at);
                let factor = next.as_secs_f64() / at.as_secs_f64();
                assert!((1.9..=2.1).contains(&factor) || (3.6..=4.4).contains(&next.as_secs_f64()));
                at = next;
            }
            assert!((3.6..=4.4).contains(&at.as_secs_f64()));
        }
        assert_eq!(patience(Duration::from_secs(1), 4), Duration::from_secs(15));
        assert_eq!(patience(Duration::from_secs(30), 1), Duration::from_secs(60));
    }
}
