//! `[inner]` again: how downlink packets wait for a busy connection. One for all networks.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::reader::{Field, Section};

/// A call has no use for a packet older than 400 ms from mouth to ear (ITU-T G.114); half of that is left to
/// the way before and behind us.
const VOICE_LATE: Duration = Duration::from_millis(200);

/// Milliseconds that voice may wait; below the first, which is the time between two packets of a call, a queue
/// of two would lose one.
const VOICE_LATE_MS: [u64; 2] = [20, 10_000];

/// Below the 5 ms that CoDel in the path drops for: what it drops stops the call for a round trip.
const PATH_QUEUE: Duration = Duration::from_millis(3);

/// Milliseconds of queue that a call may meet in its path.
const PATH_QUEUE_MS: RangeInclusive<u64> = 0..=1_000;

/// Octets that may be unsent: from about three packets up to what a fast path of a long round trip holds.
const UNSENT_OCTETS: RangeInclusive<u64> = 4096..=16 << 20;

/// How downlink packets wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Queueing {
    /// Whether they wait in a queue per UE before they are encrypted.
    pub flow_queue: bool,
    /// How long voice may wait there before it is dropped; `None`: for ever.
    pub voice_late: Option<Duration>,
    /// Queue that a connection with a call may keep in its path; `None`: what congestion control makes of it.
    pub path_queue: Option<Duration>,
    /// Octets that may be encrypted, and as many again unsent in the socket; `None`: together what the connection sends
    /// in 10 ms. Without flow queues only those in the socket, 256 KiB for `None`.
    pub unsent: Option<NonZeroU32>,
}

impl Default for Queueing {
    fn default() -> Self {
        Self { flow_queue: true, voice_late: Some(VOICE_LATE), path_queue: Some(PATH_QUEUE), unsent: None }
    }
}

impl Queueing {
    /// Reads its keys of the first network.
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let default = Self::default();
        Self {
            flow_queue: section.flag("flow_queue", default.flow_queue),
            voice_late: section.value("voice_late_ms").map_or(default.voice_late, |field| voice_late(&field)),
            path_queue: section.value("path_queue_ms").map_or(default.path_queue, |field| {
                let ms = field.number(PATH_QUEUE_MS, "milliseconds; 0 for no bound")?;
                (ms > 0).then(|| Duration::from_millis(ms))
            }),
            unsent: section
                .value("unsent_octets")
                .and_then(|field| field.number(UNSENT_OCTETS, "octets"))
                .and_then(|octets| NonZeroU32::new(octets as u32)),
        }
    }
}

fn voice_late(field: &Field<'_>) -> Option<Duration> {
    let [min, max] = VOICE_LATE_MS;
    let allowed = format!("0 for never, or a number from {min} to {max} (milliseconds)");
    let ms = field.number_or(0..=max, &allowed)?;
    if (1..min).contains(&ms) {
        field.reject(allowed);
    }
    (ms > 0).then(|| Duration::from_millis(ms))
}
