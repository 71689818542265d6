//! The JSON report; key names are fixed by the contract, a figure that was not measured is null.

use super::{Account, LatencySummary, NetworkSection};
use crate::error::Failure;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// One command's report.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The command: `attach`, `traffic`, `demo`, `sink`.
    pub command: &'static str,
    /// What it was asked to do.
    pub config: serde_json::Value,
    /// Where it ran.
    pub environment: serde_json::Value,
    /// The attach phase.
    pub attach: Option<AttachSection>,
    /// Uplink, null when not run.
    pub uplink: Option<DirectionSection>,
    /// Downlink, null when not run.
    pub downlink: Option<DirectionSection>,
    /// One-way latency: the uplink's when it ran, else the downlink's; null when the ends have different clocks.
    pub latency_us: Option<LatencySection>,
    /// Calls beside the rest (`--voice`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub voice: Option<VoiceSection>,
    /// Connections cut on purpose (`--churn`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub churn: Option<ChurnSection>,
    /// What this process used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loadgen: Option<LoadgenSection>,
    /// What the gateway process used, nulls when it is not on this host.
    pub gateway: GatewaySection,
    /// What the kernel dropped (`demo`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkSection>,
    /// Plain TCP on the same path in the same run (`demo`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plain_tcp: Option<SinkSection>,
}

/// How the UEs got on.
#[derive(Clone, Debug, Serialize)]
pub struct AttachSection {
    /// UEs with an IKE SA and a Child SA.
    pub ok: u64,
    /// The others by cause.
    pub failed: BTreeMap<String, u64>,
    /// Attaches per second over the attach phase.
    pub per_s: f64,
    /// From the first octet of the TCP connection to the Child SA.
    pub latency_us: Option<LatencySection>,
    /// The time between attach and detach (`attach`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldSection>,
    /// All connections cut at once (`attach --storm`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storm: Option<StormSection>,
    /// How the UEs left (`attach`), null when they left without DELETE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detach: Option<DetachSection>,
    /// UEs whose EAP was a fast re-authentication (`attach --attaches`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fast: Option<u64>,
    /// The attaches before this one (`attach --attaches`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<AttachSection>,
    /// Private memory of loadgen per attached UE (`attach`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loadgen_bytes_per_ue: Option<f64>,
}

/// UEs held attached.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct HoldSection {
    /// Seconds held.
    pub seconds: f64,
    /// UEs whose IKE SA ended meanwhile.
    pub lost: u64,
    /// Connections opened again.
    pub reconnects: u64,
    /// Voice packets sent by random UEs.
    pub trickle_sent: u64,
}

/// UEs that lost their connections in the same moment.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct StormSection {
    /// How many.
    pub ues: u64,
    /// Those that had an answer through their tunnel again.
    pub back: u64,
    /// Seconds until 99 % had; null when fewer did.
    pub back_99_s: Option<f64>,
    /// From the loss of the connection to that answer.
    pub latency_us: Option<LatencySection>,
}

/// UEs that left.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct DetachSection {
    /// UEs whose DELETE was answered.
    pub ok: u64,
    /// UEs whose DELETE was not.
    pub unanswered: u64,
    /// Answers per second.
    pub per_s: f64,
}

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LatencySection {
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
    /// Largest.
    pub max: f64,
}

/// One direction of traffic; octets and packets are inner IP.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct DirectionSection {
    /// Inner bits per second at the receiving end (at the sending end without a far end).
    pub bits_per_s: Option<f64>,
    /// Inner packets per second, counted likewise.
    pub packets_per_s: Option<f64>,
    /// Inner octets, counted likewise.
    pub bytes: Option<u64>,
    /// Packets sent.
    pub sent: Option<u64>,
    /// Distinct intact packets received.
    pub received: Option<u64>,
    /// Sent, not received one second after the end, and not explained by a cut.
    pub lost: Option<u64>,
    /// Not received because the UE cut the connection that they were in, or came to the gateway while it had none.
    pub lost_at_cut: Option<u64>,
    /// Flows of which the far end gave no report: uplink all their packets count as lost, downlink those behind the last one
    /// that arrived count nowhere, so the direction is not clean. 0 where all reported.
    pub unreported: Option<u64>,
    /// Received after a later one.
    pub reordered: Option<u64>,
    /// Received again.
    pub duplicated: Option<u64>,
    /// Received with other octets than were sent.
    pub corrupted: Option<u64>,
    /// CPU seconds of the gateway process per 10^9 inner octets of all that ran at the same time: this direction alone, or
    /// both with the same figure, calls included; the process's time cannot be told apart by direction.
    pub cpu_s_per_gb: Option<f64>,
    /// One-way latency of this direction.
    pub latency_us: Option<LatencySection>,
    /// Received more than 20 ms after they were sent.
    pub late: Option<u64>,
}

/// Calls: 160-octet packets with DSCP EF every 20 ms per direction.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct VoiceSection {
    /// UEs with a call.
    pub ues: u64,
    /// They passed bulk traffic as well.
    pub beside: bool,
    /// One-way latency of the direction whose 99th percentile is higher.
    pub latency_us: Option<LatencySection>,
    /// Packets lost in all directions run.
    pub lost: Option<u64>,
    /// Packets later than 20 ms in all directions run.
    pub late: Option<u64>,
    /// Uplink, null when not run.
    pub uplink: Option<DirectionSection>,
    /// Downlink, null when not run.
    pub downlink: Option<DirectionSection>,
}

/// Connections that UEs cut on purpose, and came back on another with the same IKE SA.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ChurnSection {
    /// How many, by FIN and RST in turn.
    pub cuts: u64,
    /// Reconnects for any other reason.
    pub other_reconnects: u64,
    /// From the cut to the first octets on the new connection.
    pub recovery_us: Option<LatencySection>,
}

/// What the load generator itself used over the traffic phase, the sink included where it is the same process.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LoadgenSection {
    /// utime + stime.
    pub cpu_s: f64,
    /// Per 10^9 inner octets of all directions run, calls included.
    pub cpu_s_per_gb: Option<f64>,
}

impl VoiceSection {
    /// Puts the directions of all calls together.
    pub fn new(
        ues: u64,
        beside: bool,
        uplink: Option<DirectionSection>,
        downlink: Option<DirectionSection>,
    ) -> Self {
        let ways = || [uplink, downlink].into_iter().flatten();
        let sum = |count: fn(&DirectionSection) -> Option<u64>| ways().map(|way| count(&way)).sum();
        let slower =
            ways().filter_map(|way| way.latency_us).max_by(|one, other| one.p99.total_cmp(&other.p99));
        Self {
            ues,
            beside,
            latency_us: slower,
            lost: sum(|way| way.lost),
            late: sum(|way| way.late),
            uplink,
            downlink,
        }
    }
}

/// What the gateway process used.
#[derive(Clone, Debug, Default, Serialize)]
pub struct GatewaySection {
    /// utime + stime over the traffic phase: the lower bound of the cost. Softirq work that comes while its cores are idle, or
    /// is done by ksoftirqd, is not in it.
    pub cpu_s: Option<f64>,
    /// That plus all softirq of its cores: the upper bound. On kernels without CONFIG_IRQ_TIME_ACCOUNTING what interrupts the
    /// process is in both terms.
    pub core_s: Option<f64>,
    /// `cpu_s` per 10^9 inner octets of all directions run, calls included.
    pub cpu_s_per_gb: Option<f64>,
    /// Resident octets with all sessions up.
    pub rss_bytes: Option<u64>,
    /// Resident octets before the first attach.
    pub rss_before_bytes: Option<u64>,
    /// Growth of the resident octets per session.
    pub user_bytes_per_session: Option<f64>,
    /// Growth of the private ones.
    pub private_bytes_per_session: Option<f64>,
    /// Growth of kernel TCP buffer octets (both ends, when both are on this host) per connection.
    pub kernel_tcp_bytes_per_connection: Option<f64>,
    /// Growth of kernel slab octets (both ends, whole host) per connection.
    pub kernel_slab_bytes_per_connection: Option<f64>,
    /// CPU seconds per attach.
    pub attach_cpu_s: Option<f64>,
    /// Packets it says it has dropped since its start, by reason, those that are not 0 (`demo`); null when nobody asked or it
    /// did not answer.
    pub drops: Option<BTreeMap<String, u64>>,
}

/// Plain TCP on the same path.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SinkSection {
    /// Bits per second received.
    pub bits_per_s: f64,
    /// CPU seconds of the receiving thread per 10^9 octets.
    pub cpu_s_per_gb: f64,
}

impl LatencySection {
    /// Converts percentiles; `None` when nothing was recorded.
    pub fn from_summary(summary: &LatencySummary) -> Option<Self> {
        let us = |ns: u64| ns as f64 / 1_000.0;
        (summary.count > 0).then(|| Self {
            p50: us(summary.p50),
            p90: us(summary.p90),
            p99: us(summary.p99),
            p999: us(summary.p999),
            max: us(summary.max),
        })
    }
}

impl DirectionSection {
    /// A direction whose receiving end counts: the flows of `account` within `span_s` seconds.
    pub fn checked(account: &Account, span_s: f64) -> Self {
        let per_s = |amount: u64| (span_s > 0.0).then(|| amount as f64 / span_s);
        let tally = &account.tally;
        Self {
            bits_per_s: per_s(tally.bytes * 8),
            packets_per_s: per_s(tally.received),
            bytes: Some(tally.bytes),
            sent: Some(account.sent),
            received: Some(tally.received),
            lost: Some(account.lost),
            lost_at_cut: Some(tally.lost_at_cut),
            unreported: Some(account.unreported),
            reordered: Some(tally.reordered),
            duplicated: Some(tally.duplicated),
            corrupted: Some(tally.corrupted),
            ..Self::default()
        }
    }

    /// Adds the latencies, where both ends read the same clock.
    #[must_use]
    pub fn with_latency(mut self, latency: Option<&LatencySummary>) -> Self {
        self.latency_us = latency.and_then(LatencySection::from_summary);
        self.late = latency.map(|latency| latency.late);
        self
    }

    /// An uplink without far end: only what left is known.
    pub fn unchecked(sent: u64, bytes: u64, span_s: f64) -> Self {
        let per_s = |amount: u64| (span_s > 0.0).then(|| amount as f64 / span_s);
        Self {
            bits_per_s: per_s(bytes * 8),
            packets_per_s: per_s(sent),
            bytes: Some(bytes),
            sent: Some(sent),
            ..Self::default()
        }
    }

    /// Returns whether packets were lost, repeated or damaged, or may have been: not every flow was reported.
    pub fn is_damaged(&self) -> bool {
        let counts = [self.lost, self.unreported, self.duplicated, self.corrupted];
        counts.iter().any(|count| count.is_some_and(|count| count > 0))
    }
}

/// Adds up equal causes.
pub fn failure_counts<'a>(causes: impl Iterator<Item = &'a str>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for cause in causes {
        *counts.entry(cause.to_owned()).or_insert(0) += 1;
    }
    counts
}

/// Builds the attach section.
pub fn attach_section(
    ok: u64,
    failed: BTreeMap<String, u64>,
    span_s: f64,
    latency: &LatencySummary,
) -> AttachSection {
    let per_s = if span_s > 0.0 { ok as f64 / span_s } else { 0.0 };
    AttachSection {
        ok,
        failed,
        per_s,
        latency_us: LatencySection::from_summary(latency),
        hold: None,
        storm: None,
        detach: None,
        fast: None,
        earlier: Vec::new(),
        loadgen_bytes_per_ue: None,
    }
}

/// Writes a command's report to `path`.
///
/// # Errors
/// [`Failure::Environment`] when the file cannot be written.
pub fn write_json(path: &Path, report: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(report).expect("reports hold numbers, strings and nulls only");
    std::fs::write(path, text + "\n").map_err(|error| {
        Failure::Environment(format!(
            "cannot write {}: {error}; give another place with --json",
            path.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Tally;

    fn checked(sent: u64, tally: &Tally, span_s: f64) -> DirectionSection {
        let mut account = Account::default();
        account.add(sent, tally);
        DirectionSection::checked(&account, span_s)
    }

    fn report() -> Report {
        Report {
            command: "traffic",
            config: serde_json::json!({"ues": 3}),
            environment: serde_json::json!({"cores": 2}),
            attach: Some(attach_section(
                2,
                failure_counts(["connect-refused"].into_iter()),
                0.5,
                &LatencySummary {
                    count: 2,
                    p50: 1_500,
                    p90: 2_000,
                    p99: 2_000,
                    p999: 2_000,
                    max: 2_000,
                    late: 0,
                },
            )),
            uplink: Some(checked(10, &Tally { received: 9, bytes: 12_600, ..Tally::default() }, 2.0)),
            downlink: None,
            latency_us: None,
            voice: None,
            churn: None,
            loadgen: None,
            gateway: GatewaySection::default(),
            network: None,
            plain_tcp: None,
        }
    }

    #[test]
    fn keys_of_the_contract_are_there_and_unmeasured_ones_are_null() {
        let json = serde_json::to_value(report()).unwrap();
        for key in
            ["command", "config", "environment", "attach", "uplink", "downlink", "latency_us", "gateway"]
        {
            assert!(json.get(key).is_some(), "{key}");
        }
        assert!(json["downlink"].is_null() && json["latency_us"].is_null());
        for key in ["cpu_s", "core_s", "cpu_s_per_gb", "rss_bytes"] {
            assert!(json["gateway"].get(key).unwrap().is_null(), "{key}");
        }
        let uplink = &json["uplink"];
        for key in ["bits_per_s", "packets_per_s", "bytes", "lost", "reordered", "duplicated", "cpu_s_per_gb"]
        {
            assert!(uplink.get(key).is_some(), "{key}");
        }
        assert_eq!((uplink["lost"].as_u64(), uplink["bits_per_s"].as_f64()), (Some(1), Some(50_400.0)));
        assert_eq!(json["attach"]["ok"], 2);
        assert_eq!(json["attach"]["per_s"], 4.0);
        assert_eq!(json["attach"]["failed"]["connect-refused"], 1);
        assert_eq!(json["attach"]["latency_us"]["p50"], 1.5);
    }

    #[test]
    fn a_call_is_as_good_as_its_worse_direction() {
        let way = |p99: u64, late: u64, received: u64| {
            let tally = Tally { received, lost_at_cut: 1, ..Tally::default() };
            let latency = LatencySummary { count: 10, p99: p99 * 1000, late, ..LatencySummary::default() };
            Some(checked(10, &tally, 1.0).with_latency(Some(&latency)))
        };
        let voice = VoiceSection::new(1, true, way(7, 2, 9), way(5, 1, 7));
        assert_eq!((voice.lost, voice.late), (Some(2), Some(3)));
        assert_eq!(voice.latency_us.unwrap().p99, 7.0);
        assert_eq!(VoiceSection::new(1, false, None, None).latency_us.map(|latency| latency.p50), None);
    }

    #[test]
    fn a_flow_without_report_is_not_clean() {
        let mut account = Account::default();
        account.add(5, &Tally { received: 5, ..Tally::default() });
        assert!(!DirectionSection::checked(&account, 1.0).is_damaged());
        account.add_unreported(5, &Tally { received: 5, ..Tally::default() });
        let way = DirectionSection::checked(&account, 1.0);
        assert_eq!((way.lost, way.unreported), (Some(0), Some(1)));
        assert!(way.is_damaged(), "nobody knows what else was sent");
    }

    #[test]
    fn without_far_end_loss_is_unknown_not_zero() {
        let json = serde_json::to_value(DirectionSection::unchecked(5, 7_000, 1.0)).unwrap();
        assert!(json["lost"].is_null() && json["reordered"].is_null() && json["duplicated"].is_null());
        assert_eq!(json["bytes"], 7_000);
        assert!(!DirectionSection::unchecked(5, 7_000, 1.0).is_damaged());
    }
}
