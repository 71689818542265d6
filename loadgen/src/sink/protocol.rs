//! Bodies of the control messages between load generator and sink.
//!
//! Every body is a row of big-endian 64-bit words, so that both ends agree by the order of fields alone.

use crate::probe::{SizePlan, Tally};
use crate::report::LatencySummary;

/// Asks the sink to open a flow; the header's flags give the direction and the traffic class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Lengths of the inner packets.
    pub size: SizePlan,
    /// Packets in flight of a closed loop; 0 for a paced flow.
    pub window: u32,
    /// Nanoseconds between two packets of a paced flow.
    pub interval_ns: u64,
    /// Downlink packets in flight of all closed-loop flows of the run together; 0 for no such bound.
    pub window_total: u32,
    /// Most packets of the flow in a row before another flow has its turn; 0 for as many as the sink sees fit.
    pub run_len: u32,
    /// Packets that a paced flow sends at a time.
    pub burst: u32,
}

/// Says that the flow is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Started {
    /// Names the clock of the sink's host; see [`crate::host::clock::clock_id`].
    pub clock_id: u64,
}

/// What the sink saw of one flow, and of all flows of the run together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Packets the sink sent (downlink).
    pub sent: u64,
    /// What it received of this flow (uplink).
    pub tally: Tally,
    /// Probes of the run, whatever their flow, whose header was damaged.
    pub corrupt_headers: u64,
    /// Sink's clock at the first and the last data packet of the run, in nanoseconds; 0 before any.
    pub first_ns: u64,
    /// See `first_ns`.
    pub last_ns: u64,
    /// One-way latency over the run (uplink).
    pub latency: LatencySummary,
}

const START_WORDS: usize = 6;
const REPORT_WORDS: usize = 17;
/// Longest body, in octets.
pub const BODY_LEN_MAX: usize = REPORT_WORDS * 8;

impl Start {
    /// Writes the body.
    pub fn encode(&self) -> Vec<u8> {
        join(&[
            u64::from(self.size.code()),
            u64::from(self.window),
            self.interval_ns,
            u64::from(self.window_total),
            u64::from(self.run_len),
            u64::from(self.burst),
        ])
    }

    /// Reads the body; `None` for anything malformed.
    pub fn decode(body: &[u8]) -> Option<Self> {
        let [size, window, interval_ns, window_total, run_len, burst] = split::<START_WORDS>(body)?;
        let size = SizePlan::from_code(u16::try_from(size).ok()?)?;
        let window = u32::try_from(window).ok()?;
        let window_total = u32::try_from(window_total).ok()?;
        let run_len = u32::try_from(run_len).ok()?;
        let burst = u32::try_from(burst).ok()?;
        (window > 0 || interval_ns > 0).then_some(Self {
            size,
            window,
            interval_ns,
            window_total,
            run_len,
            burst,
        })
    }
}

impl Started {
    /// Writes the body.
    pub fn encode(&self) -> Vec<u8> {
        join(&[self.clock_id])
    }

    /// Reads the body; `None` for anything malformed.
    pub fn decode(body: &[u8]) -> Option<Self> {
        let [clock_id] = split::<1>(body)?;
        Some(Self { clock_id })
    }
}

impl Report {
    /// Writes the body.
    pub fn encode(&self) -> Vec<u8> {
        let (tally, latency) = (&self.tally, &self.latency);
        join(&[
            self.sent,
            tally.received,
            tally.bytes,
            tally.reordered,
            tally.duplicated,
            tally.corrupted,
            tally.lost_at_cut,
            self.corrupt_headers,
            self.first_ns,
            self.last_ns,
            latency.count,
            latency.p50,
            latency.p90,
            latency.p99,
            latency.p999,
            latency.max,
            latency.late,
        ])
    }

    /// Reads the body; `None` for anything malformed.
    pub fn decode(body: &[u8]) -> Option<Self> {
        let words = split::<REPORT_WORDS>(body)?;
        let [sent, received, bytes, reordered, duplicated, corrupted, lost_at_cut, ..] = words;
        let [.., corrupt_headers, first_ns, last_ns, count, p50, p90, p99, p999, max, late] = words;
        Some(Self {
            sent,
            tally: Tally { received, bytes, reordered, duplicated, corrupted, lost_at_cut },
            corrupt_headers,
            first_ns,
            last_ns,
            latency: LatencySummary { count, p50, p90, p99, p999, max, late },
        })
    }
}

fn join(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn split<const N: usize>(body: &[u8]) -> Option<[u64; N]> {
    let body = body.get(..N * 8)?;
    let mut words = [0; N];
    for (word, octets) in words.iter_mut().zip(body.chunks_exact(8)) {
        *word = u64::from_be_bytes(octets.try_into().ok()?);
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_round_trip_and_short_ones_are_refused() {
        let start = Start {
            size: SizePlan::Imix,
            window: 0,
            interval_ns: 20_000_000,
            window_total: 448,
            run_len: 1,
            burst: 2,
        };
        assert_eq!(Start::decode(&start.encode()), Some(start));
        let report = Report {
            sent: 1,
            tally: Tally {
                received: 2,
                bytes: 3,
                reordered: 4,
                duplicated: 5,
                corrupted: 6,
                lost_at_cut: 16,
            },
            corrupt_headers: 7,
            first_ns: 8,
            last_ns: 9,
            latency: LatencySummary { count: 10, p50: 11, p90: 12, p99: 13, p999: 14, max: 15, late: 17 },
        };
        let body = report.encode();
        assert_eq!(body.len(), BODY_LEN_MAX);
        assert_eq!(Report::decode(&body), Some(report));
        assert_eq!(Report::decode(&body[..body.len() - 1]), None);
        assert_eq!(Started::decode(&Started { clock_id: 9 }.encode()), Some(Started { clock_id: 9 }));
    }

    #[test]
    fn a_flow_without_window_and_pace_is_refused() {
        assert_eq!(
            Start::decode(
                &Start {
                    size: SizePlan::Voice,
                    window: 0,
                    interval_ns: 0,
                    window_total: 0,
                    run_len: 0,
                    burst: 0
                }
                .encode()
            ),
            None
        );
    }
}
