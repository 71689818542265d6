//! What a listener got of the frames of a call: the receiver's jitter buffer, and what it missed.
//!
//! The buffer plays a frame `MIN_MS` to `MAX_MS` after the fastest one could be played, and chooses that delay anew
//! every `FRAMES` frames, so that 99 of 100 of them come in time if that range allows it: a buffer that loses more
//! fails 3GPP TS 26.114, §8.2.3. It stands for an adaptive buffer that follows slow changes and cannot follow fast ones,
//! and for a favourable one: it knows the frames that it chooses for.

use super::emodel::{Codec, opinion, rating};
use crate::lab::results::{Summary, Voice, quantile};

/// Frames for which the delay of the buffer stays as it is: 2 s.
const FRAMES: usize = 100;
/// Least and most delay of the buffer.
const MIN_MS: f64 = 40.0;
const MAX_MS: f64 = 200.0;
/// Share of the frames for which the delay is chosen.
const IN_TIME: f64 = 0.99;
/// Most points of a distribution.
const POINTS: usize = 200;

/// Returns what a call was, from the delay of each frame sent in milliseconds; `None` is a frame that did not come.
pub fn assess(codec: Codec, frames: &[Option<f64>]) -> Voice {
    let delays: Vec<f64> = frames.iter().copied().flatten().collect();
    let mut played = Played::default();
    frames.chunks(FRAMES).for_each(|chunk| played.chunk(chunk));
    let (sent, received) = (frames.len() as u64, delays.len() as u64);
    let missed = sent - received + played.late;
    let missed_pct = if sent == 0 { 0.0 } else { missed as f64 * 100.0 / sent as f64 };
    let mean = |total: f64| if played.chunks == 0 { 0.0 } else { total / f64::from(played.chunks) };
    // Who hears nothing has no delay to be rated.
    let r = match missed < sent {
        true => rating(codec, codec.delay_ms() + mean(played.network_and_buffer_ms), missed_pct),
        false => 0.0,
    };
    Voice {
        codec: codec.name().to_owned(),
        sent,
        received,
        late: played.late,
        missed_pct,
        longest_gap: played.longest_gap,
        jitter_ms: jitter(&delays),
        playout_ms: mean(played.buffer_ms),
        r,
        mos: opinion(r),
        cdf: distribution(&delays, frames.len()),
        delay_ms: Summary::of(delays),
    }
}

/// What the buffer played.
#[derive(Default)]
struct Played {
    late: u64,
    gap: u64,
    longest_gap: u64,
    /// Chunks of which at least one frame came, and the sums of their delays.
    chunks: u32,
    buffer_ms: f64,
    network_and_buffer_ms: f64,
}

impl Played {
    fn chunk(&mut self, frames: &[Option<f64>]) {
        let mut sorted: Vec<f64> = frames.iter().copied().flatten().collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let mut until_ms = 0.0;
        if let Some(fastest_ms) = sorted.first() {
            let buffer_ms = (quantile(&sorted, IN_TIME) - fastest_ms).clamp(MIN_MS, MAX_MS);
            until_ms = fastest_ms + buffer_ms;
            self.chunks += 1;
            self.buffer_ms += buffer_ms;
            self.network_and_buffer_ms += until_ms;
        }
        for frame in frames {
            let late = frame.is_some_and(|delay_ms| delay_ms > until_ms);
            self.late += u64::from(late);
            self.gap = if late || frame.is_none() { self.gap + 1 } else { 0 };
            self.longest_gap = self.longest_gap.max(self.gap);
        }
    }
}

/// Mean difference of the delays of a frame and the next that came: where the running estimate of RFC 3550, §6.4.1,
/// settles.
fn jitter(delays: &[f64]) -> f64 {
    let differences = delays.windows(2).map(|pair| (pair[1] - pair[0]).abs());
    differences.sum::<f64>() / delays.len().saturating_sub(1).max(1) as f64
}

fn distribution(delays: &[f64], sent: usize) -> Vec<(f64, f64)> {
    let mut sorted = delays.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let points = sorted.len().min(POINTS);
    let rank = |point: usize| sorted.len() * point / points;
    (1..=points).map(|point| (sorted[rank(point) - 1], rank(point) as f64 / sent as f64)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(value: f64, expected: f64) {
        assert!((value - expected).abs() < 1e-6, "{value} is not {expected}");
    }

    #[test]
    fn a_good_call() {
        let voice = assess(Codec::AmrWb12, &vec![Some(30.0); 500]);
        assert_eq!((voice.sent, voice.received, voice.late, voice.longest_gap), (500, 500, 0, 0));
        assert_eq!((voice.missed_pct, voice.jitter_ms, voice.playout_ms), (0.0, 0.0, 40.0));
        // 25 + 30 + 40 ms from mouth to ear are not noticed.
        close(voice.r, 109.0);
        assert_eq!(voice.codec, "amr-wb-12.65");
        assert_eq!(voice.cdf.len(), 200);
        assert_eq!(voice.cdf[199], (30.0, 1.0));
    }

    #[test]
    fn lost_and_late_frames_are_missed_and_gaps_run_over_chunks() {
        let mut frames = vec![Some(50.0); 300];
        frames[98] = None;
        frames[99] = Some(251.0);
        frames[100] = None;
        frames[200] = Some(90.0);
        let voice = assess(Codec::AmrWb12, &frames);
        assert_eq!((voice.sent, voice.received, voice.late, voice.longest_gap), (300, 298, 1, 3));
        close(voice.missed_pct, 1.0);
        close(voice.cdf[voice.cdf.len() - 1].1, 298.0 / 300.0);
        assert_eq!(voice.cdf[voice.cdf.len() - 1].0, 251.0);
    }

    #[test]
    fn the_buffer_grows_with_jitter_up_to_its_limit() {
        // One of ten frames takes 100 ms longer: the buffer waits for it.
        let some: Vec<_> = (0..200).map(|n| Some(if n % 10 == 0 { 120.0 } else { 20.0 })).collect();
        let voice = assess(Codec::AmrWb12, &some);
        assert_eq!((voice.late, voice.playout_ms), (0, 100.0));
        // A stall of 1 s: frames come at once when it ends. Those more than 200 ms late are not played.
        let mut stalled = vec![Some(20.0); 200];
        (0..50).for_each(|n| stalled[100 + n] = Some(20.0 + 20.0 * (50 - n) as f64));
        let voice = assess(Codec::AmrWb12, &stalled);
        assert_eq!((voice.late, voice.longest_gap), (40, 40));
        close(voice.playout_ms, 120.0);
        // Half of the frames alternate: the buffer cannot help beyond its limit.
        let wild: Vec<_> = (0..100).map(|n| Some(if n % 2 == 0 { 10.0 } else { 510.0 })).collect();
        let voice = assess(Codec::AmrWb12, &wild);
        assert_eq!((voice.late, voice.playout_ms, voice.jitter_ms), (50, 200.0, 500.0));
    }

    #[test]
    fn a_long_delay_that_stays_is_heard_as_delay_and_not_as_loss() {
        let mut frames = vec![Some(30.0); 500];
        frames.extend(vec![Some(500.0); 500]);
        let voice = assess(Codec::AmrWb12, &frames);
        assert_eq!((voice.late, voice.playout_ms), (0, 40.0));
        // 25 + 265 + 40 ms on average.
        close(voice.r, rating(Codec::AmrWb12, 330.0, 0.0));
    }

    #[test]
    fn a_dead_path_is_silence_and_not_a_number_is_nowhere() {
        for frames in [vec![], vec![None; 100]] {
            let voice = assess(Codec::Evs13, &frames);
            assert_eq!((voice.received, voice.longest_gap), (0, frames.len() as u64));
            assert_eq!((voice.r, voice.mos, voice.jitter_ms), (0.0, 1.0, 0.0));
            assert!(voice.cdf.is_empty() && voice.missed_pct.is_finite());
        }
    }
}
