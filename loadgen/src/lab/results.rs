//! What the laboratory found: `results.json`.
//!
//! A [`Cell`] is one [`Point`] of the matrix with its repetitions. A missing measurement is null, never 0.

use crate::path::{Counters, calibrate};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of this form.
pub const VERSION: u32 = 1;

/// Everything a study found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// `lab`.
    pub command: String,
    /// [`VERSION`].
    pub version: u32,
    /// Machine and programs.
    pub environment: serde_json::Value,
    /// The matrix as it was read.
    pub matrix: serde_json::Value,
    /// Configured against measured, by plain kernel sockets on links of their own.
    pub calibration: Vec<CalibrationRow>,
    /// A link measured alone and beside others, to show whether paths disturb each other.
    pub interference: Vec<InterferenceRow>,
    /// In the order of the matrix.
    pub cells: Vec<Cell>,
}

/// One measurement of the calibration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CalibrationRow {
    /// Which link.
    pub link: String,
    /// Such as `one-way delay, ms`.
    pub quantity: String,
    /// What the link was told.
    pub configured: f64,
    /// What came.
    pub measured: f64,
    /// Difference in per cent of the configured value.
    pub deviation_pct: f64,
    /// The most that counts as right.
    pub allowed_pct: f64,
    /// Whether it is.
    pub ok: bool,
}

impl From<&calibrate::Row> for CalibrationRow {
    fn from(row: &calibrate::Row) -> Self {
        Self {
            link: row.link.to_owned(),
            quantity: row.quantity.name().to_owned(),
            configured: row.configured,
            measured: row.measured,
            deviation_pct: row.deviation_pct,
            allowed_pct: row.allowed_pct,
            ok: row.ok,
        }
    }
}

/// One link beside others.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InterferenceRow {
    /// Links that carried traffic at the same time, this one included.
    pub paths: usize,
    /// What was measured, such as `one-way delay p99, ms`.
    pub quantity: String,
    /// Alone.
    pub alone: f64,
    /// Beside the others.
    pub beside: f64,
    /// Whether the difference is small enough to run so many at once.
    pub ok: bool,
}

/// Coordinates of a cell. All of them are always there, so that cells can be grouped by any.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// `plain` (no tunnel), `udp`, `tcp`, `tls`, `openvpn-tcp`, `libreswan`, …
    pub transport: String,
    /// Congestion control of the outer TCP at both ends: `cubic`, `bbr`.
    pub outer_cc: String,
    /// Congestion control of the inner TCP.
    pub inner_cc: String,
    /// What runs inside, joined by `+`: `bulk`, `bulk-8` (flows), `voice`, `evs`, `web`, `sip`, `imix`.
    pub workload: String,
    /// `down` or `up`: which way bulk and mixed traffic go. Voice goes both ways and is reported for this way.
    pub direction: String,
    /// Round trip of the empty path.
    pub rtt_ms: f64,
    /// Mean loss of each direction.
    pub loss_pct: f64,
    /// Mean length of a burst of losses, in packets; null when losses are independent.
    pub loss_burst: Option<f64>,
    /// Half of what the delay of each direction varies by, evenly; 0: it does not. This and the next four are not in
    /// results of before they were dimensions, whose paths had nothing of them.
    #[serde(default)]
    pub jitter_ms: f64,
    /// Standard deviation of the delay of each direction, which then varies normally instead.
    #[serde(default)]
    pub normal_jitter_ms: f64,
    /// Packets of each direction that skip the delay and overtake others, in per cent.
    #[serde(default)]
    pub reorder_pct: f64,
    /// Packets of each direction that come twice.
    #[serde(default)]
    pub duplicate_pct: f64,
    /// Packets of each direction with one bit flipped.
    #[serde(default)]
    pub corrupt_pct: f64,
    /// Rate of each direction.
    pub rate_mbit: f64,
    /// Length of the bottleneck's queue, in milliseconds of its rate.
    pub queue_ms: f64,
    /// `droptail` or `codel`.
    pub discipline: String,
    /// Whether the gateway keeps packets in flow queues before encryption.
    pub flow_queue: bool,
    /// TCP_NODELAY at the gateway.
    pub nodelay: bool,
    /// TCP_NOTSENT_LOWAT at the gateway, in octets; null: chosen by the gateway.
    pub unsent_octets: Option<u32>,
    /// Whether the inner devices take and give super-packets.
    pub offload: bool,
}

impl Default for Point {
    fn default() -> Self {
        Self {
            transport: "tcp".to_owned(),
            outer_cc: "cubic".to_owned(),
            inner_cc: "cubic".to_owned(),
            workload: "bulk".to_owned(),
            direction: "down".to_owned(),
            rtt_ms: 60.0,
            loss_pct: 0.0,
            loss_burst: None,
            jitter_ms: 0.0,
            normal_jitter_ms: 0.0,
            reorder_pct: 0.0,
            duplicate_pct: 0.0,
            corrupt_pct: 0.0,
            rate_mbit: 20.0,
            queue_ms: 100.0,
            discipline: "droptail".to_owned(),
            flow_queue: true,
            nodelay: true,
            unsent_octets: None,
            offload: true,
        }
    }
}

/// One point with its repetitions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell {
    /// Unique and stable: the same point of the same group has the same id in every run.
    pub id: String,
    /// Name of the group of the matrix.
    pub group: String,
    /// Where it is.
    pub point: Point,
    /// One for each repetition that was made.
    pub runs: Vec<Run>,
}

/// One repetition.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Run {
    /// From 0.
    pub repetition: u32,
    /// Seed of the path's decisions.
    pub seed: u64,
    /// Seconds that were measured, without warm-up.
    pub seconds: f64,
    /// Why there is nothing; null when it went well.
    pub failed: Option<String>,
    /// Bulk TCP.
    pub bulk: Option<Bulk>,
    /// Voice in the cell's direction.
    pub voice: Option<Voice>,
    /// Short flows.
    pub web: Option<Exchanges>,
    /// SIP registrations.
    pub sip: Option<Exchanges>,
    /// UDP of mixed sizes.
    pub imix: Option<Imix>,
    /// The outer connection; null where there is none.
    pub outer: Option<Outer>,
    /// Packets of the path, in the direction of the cell.
    pub forward: Counters,
    /// Packets of the path, the other way.
    pub back: Counters,
    /// Every [`STEP_S`] seconds of the measurement.
    pub timeline: Vec<Tick>,
    /// Drops of the gateway by reason.
    pub drops: BTreeMap<String, u64>,
    /// CPU seconds of the gateway.
    pub gateway_cpu_s: Option<f64>,
}

/// Seconds between two entries of a timeline.
pub const STEP_S: f64 = 0.1;

/// Bulk TCP inside the tunnel, measured at its receiver.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Bulk {
    /// Payload octets of all flows, as Mbit/s.
    pub goodput_mbit: f64,
    /// Payload of each flow, as Mbit/s.
    pub flows_mbit: Vec<f64>,
    /// Segments that the inner senders sent again.
    pub retransmits: u64,
    /// Times without a single octet of 200 ms or more.
    pub stalls: u64,
    /// The longest of them, in milliseconds; 0 when there is none.
    pub longest_stall_ms: f64,
}

/// A call. Delay is from the sender's system call to the receiver's kernel.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Voice {
    /// `amr-wb-12.65`, `evs-13.2`.
    pub codec: String,
    /// Frames sent.
    pub sent: u64,
    /// Frames that came, early or late.
    pub received: u64,
    /// Frames that came too late to be played.
    pub late: u64,
    /// What the listener missed, in per cent of the frames: lost and late.
    pub missed_pct: f64,
    /// Longest run of frames missed.
    pub longest_gap: u64,
    /// One-way delay of the frames that came.
    pub delay_ms: Summary,
    /// Mean deviation of the delay between frames (RFC 3550 §6.4.1).
    pub jitter_ms: f64,
    /// Delay of the receiver's jitter buffer, which decides what is late.
    pub playout_ms: f64,
    /// Transmission rating R of the wideband E-model (ITU-T G.107.1), for both codecs; 0 when no frame was heard.
    pub r: f64,
    /// Mean opinion score by R / 1.29 on the curve of ITU-T G.107, 1 to 4.5.
    pub mos: f64,
    /// One-way delay, cumulative: milliseconds and share of the frames sent that came within them; at most 200 points.
    pub cdf: Vec<(f64, f64)>,
}

/// Requests and answers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Exchanges {
    /// Those that ended well.
    pub done: u64,
    /// Those that did not, for whatever reason.
    pub failed: u64,
    /// Time of one.
    pub time_ms: Summary,
}

/// UDP of mixed sizes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Imix {
    /// IP octets sent, as Mbit/s.
    pub sent_mbit: f64,
    /// IP octets that came, as Mbit/s.
    pub received_mbit: f64,
    /// Packets lost, in per cent.
    pub lost_pct: f64,
    /// One-way delay.
    pub delay_ms: Summary,
}

/// The outer TCP connection by its sender of the cell's direction.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outer {
    /// Segments sent again.
    pub retransmits: u64,
    /// Smoothed round trip at the end.
    pub srtt_ms: f64,
    /// Connections that the UE had to open again.
    pub reconnects: u64,
}

/// A distribution; all 0 while `count` is 0.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Values.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90 of 100 are below.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1,000.
    pub p999: f64,
    /// The greatest.
    pub max: f64,
}

impl Summary {
    /// Summarises values; those that are no numbers count as the greatest. A percentile is the smallest value that
    /// at least so many of them do not exceed.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let Some(max) = sorted.last().copied() else { return Self::default() };
        let mean = sorted.iter().sum::<f64>() / sorted.len() as f64;
        let at = |share: f64| quantile(&sorted, share);
        let count = sorted.len() as u64;
        Self { count, mean, p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max }
    }

    /// Summarises a histogram whose values count `unit` of what is reported.
    pub fn of_histogram(histogram: &hdrhistogram::Histogram<u64>, unit: f64) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let at = |share: f64| histogram.value_at_quantile(share) as f64 * unit;
        Self {
            count: histogram.len(),
            mean: histogram.mean() * unit,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64 * unit,
        }
    }
}

/// Returns the smallest of `sorted` that at least `share` of them do not exceed; 0 when there is none.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(0.0)
}

/// What happened until a moment, since the measurement began.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Tick {
    /// Seconds since the measurement began.
    pub at_s: f64,
    /// Octets of the outer connection that the receiver acknowledged.
    pub outer_acked: Option<u64>,
    /// Segments that the outer sender has sent again.
    pub outer_retransmits: Option<u64>,
    /// Payload octets that the inner receivers of bulk were given.
    pub inner_received: Option<u64>,
    /// Segments that the inner senders have sent again.
    pub inner_retransmits: Option<u64>,
    /// Worst one-way delay of the voice frames that came since the tick before.
    pub voice_delay_ms: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_of_before_the_path_had_jitter_is_one_without() {
        let mut old = serde_json::to_value(Point::default()).unwrap();
        for key in ["jitter_ms", "normal_jitter_ms", "reorder_pct", "duplicate_pct", "corrupt_pct"] {
            assert_eq!(old.as_object_mut().unwrap().remove(key), Some(0.0.into()), "{key}");
        }
        assert_eq!(serde_json::from_value::<Point>(old).unwrap(), Point::default());
    }

    #[test]
    fn a_summary_is_exact_and_of_nothing_is_zero() {
        let summary = Summary::of((1..=1000).rev().map(f64::from));
        assert_eq!((summary.count, summary.mean), (1000, 500.5));
        assert_eq!((summary.p50, summary.p90, summary.p99), (500.0, 900.0, 990.0));
        assert_eq!((summary.p999, summary.max), (999.0, 1000.0));
        assert_eq!(Summary::of([7.0]).p50, 7.0);
        assert_eq!(Summary::of([]).count, 0);
    }

    #[test]
    fn a_histogram_is_summarised_in_its_unit() {
        let mut histogram = hdrhistogram::Histogram::<u64>::new(3).unwrap();
        (1..=1000_u64).for_each(|us| histogram.record(us).unwrap());
        let summary = Summary::of_histogram(&histogram, 1e-3);
        assert_eq!(summary.count, 1000);
        assert!((summary.p50 - 0.5).abs() < 0.001 && (summary.max - 1.0).abs() < 0.001);
    }
}
