//! The statistics as OpenMetrics text. Every metric is named here, once, with its unit and help.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::api::{AaaRow, Stats};
use crate::control::attach::BUCKETS_S;

/// What the HTTP answer says it is.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The text that `/metrics` returns.
///
/// # Errors
/// Never in practice: only when formatting into memory fails.
pub fn render(stats: Stats) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix("swugate");
    registry.register_collector(Box::new(Snapshot(stats)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Snapshot(Stats);

/// Writes families into the encoder.
struct Families<'a>(DescriptorEncoder<'a>);

impl Families<'_> {
    fn count(&mut self, name: &str, help: &str, value: u64) -> std::fmt::Result {
        let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        gauge.encode(self.0.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }

    fn gauge(&mut self, name: &str, help: &str, unit: &Unit, value: f64) -> std::fmt::Result {
        let gauge = ConstGauge::new(value);
        gauge.encode(self.0.encode_descriptor(name, help, Some(unit), MetricType::Gauge)?)
    }

    fn counter(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: u64) -> std::fmt::Result {
        ConstCounter::new(value).encode(self.0.encode_descriptor(name, help, unit, MetricType::Counter)?)
    }

    fn counters<'n>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl Iterator<Item = (&'n String, &'n u64)>,
    ) -> std::fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (value, n) in values {
            ConstCounter::new(*n).encode(family.encode_family(&[(label, value.as_str())])?)?;
        }
        Ok(())
    }
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let stats = &self.0;
        let mut out = Families(encoder);
        let bytes = Unit::Bytes;
        let seconds = Unit::Seconds;
        out.count("sessions", "Established sessions", stats.sessions)?;
        out.count("half_open", "Half-open IKE SAs", stats.half_open)?;
        out.count("connections", "Peer connections", stats.connections)?;
        out.count("ready", "Whether new sessions are taken", stats.ready.into())?;
        out.gauge("uptime", "Time since start", &seconds, stats.uptime_s as f64)?;
        out.counter("uplink_packets", "Inner packets from UEs to the core", None, stats.uplink.packets)?;
        out.counter(
            "uplink",
            "Octets of inner packets from UEs to the core",
            Some(&bytes),
            stats.uplink.bytes,
        )?;
        out.counter("downlink_packets", "Inner packets from the core to UEs", None, stats.downlink.packets)?;
        out.counter(
            "downlink",
            "Octets of inner packets from the core to UEs",
            Some(&bytes),
            stats.downlink.bytes,
        )?;
        out.counters("drops", "Packets and messages dropped or refused", "reason", stats.drops.iter())?;
        out.counters("exchanges", "IKE exchanges by what they did", "kind", stats.exchanges.iter())?;
        out.counters("connections_closed", "Connections closed or refused", "cause", stats.closes.iter())?;
        let help = "Peers that AAA back ends turned away";
        out.counters("aaa_rejected", help, "cause", stats.rejects.iter())?;
        aaa(&mut out, &stats.aaa)?;
        attach_histogram(&mut out, stats)?;
        let starved = stats.workers.iter().map(|worker| worker.receive_starved).sum();
        let help = "Times a connection found no receive buffer and waited for one";
        out.counter("receive_starved", help, None, starved)?;
        let overflows = stats.workers.iter().map(|worker| worker.ring_overflows).sum();
        let help = "Turns of a worker that found its completion queue overflown";
        out.counter("ring_overflows", help, None, overflows)?;
        let writes = stats.workers.iter().map(|worker| worker.device_writes).sum();
        out.counter("device_writes", "Writes to the inner device that carried the uplink", None, writes)?;
        let marked = stats.workers.iter().map(|worker| worker.ecn_marked).sum();
        out.counter("ecn_marked", "Downlink packets marked with congestion, not dropped", None, marked)?;
        udp(&mut out, &stats.workers)?;
        let sends = stats.workers.iter().map(|worker| worker.zero_copy_sends).sum();
        out.counter("zero_copy_sends", "Sends without a copy", None, sends)?;
        let copied = stats.workers.iter().map(|worker| worker.zero_copy_copied).sum();
        out.counter(
            "zero_copy_copied",
            "Sends without a copy that the kernel copied after all",
            None,
            copied,
        )?;
        out.counter("control_ike_messages", "IKE messages handled", None, stats.control.ike_messages)?;
        let help = "Most messages found waiting in one worker's queue to the control thread";
        out.count("control_queue_depth_max", help, stats.control.queue_depth_max)?;
        let help = "Messages held back because a worker's inbox was full";
        out.counter("control_inbox_overflows", help, None, stats.control.inbox_overflows)?;
        if let Some(rss) = stats.memory.rss_bytes {
            out.gauge("memory_resident", "Resident memory", &bytes, rss as f64)?;
        }
        if let Some(not_after) = stats.certificate_not_after_s {
            let help = "End of validity of the gateway's certificate, since 1970";
            out.gauge("certificate_not_after_timestamp", help, &seconds, not_after as f64)?;
        }
        workers(&mut out, stats)
    }
}

fn aaa(out: &mut Families<'_>, servers: &[AaaRow]) -> std::fmt::Result {
    type Value = fn(&AaaRow) -> u64;
    let counters: [(&str, &str, Value); 7] = [
        ("aaa_requests", "Requests to AAA servers, without retransmissions", |row| row.requests),
        ("aaa_retransmissions", "Requests to AAA servers sent once more", |row| row.retransmissions),
        ("aaa_timeouts", "Requests that AAA servers did not answer", |row| row.timeouts),
        ("aaa_bad_answers", "Answers of AAA servers not authentic or not understood", |row| row.bad_answers),
        ("aaa_accepts", "Peers that AAA servers let in", |row| row.accepts),
        ("aaa_answers", "Answers of AAA servers", |row| row.answers),
        ("aaa_records_lost", "Accounting records lost because too many waited", |row| row.lost),
    ];
    let mut family =
        out.0.encode_descriptor("aaa_server_up", "Whether an AAA server answers", None, MetricType::Gauge)?;
    for row in servers {
        let labels = [("backend", row.backend.as_str()), ("server", row.server.as_str())];
        ConstGauge::new(i64::from(row.up)).encode(family.encode_family(&labels)?)?;
    }
    for (name, help, value) in counters {
        let mut family = out.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for row in servers {
            let labels = [("backend", row.backend.as_str()), ("server", row.server.as_str())];
            ConstCounter::new(value(row)).encode(family.encode_family(&labels)?)?;
        }
    }
    let help = "Time that AAA servers took for all their answers together";
    let unit = Unit::Seconds;
    let mut family = out.0.encode_descriptor("aaa_answer_time", help, Some(&unit), MetricType::Counter)?;
    for row in servers {
        let labels = [("backend", row.backend.as_str()), ("server", row.server.as_str())];
        let waited_s = row.answer_ms.unwrap_or_default() * row.answers as f64 / 1e3;
        ConstCounter::new(waited_s).encode(family.encode_family(&labels)?)?;
    }
    let help = "Peers that an AAA server turned away";
    let mut family = out.0.encode_descriptor("aaa_server_rejects", help, None, MetricType::Counter)?;
    for row in servers {
        for (cause, n) in &row.rejects {
            let labels = [
                ("backend", row.backend.as_str()),
                ("server", row.server.as_str()),
                ("cause", cause.as_str()),
            ];
            ConstCounter::new(*n).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn udp(out: &mut Families<'_>, workers: &[super::api::WorkerStats]) -> std::fmt::Result {
    let paths = workers.iter().map(|worker| worker.udp_paths).sum();
    out.count("udp_paths", "UDP paths that sessions live on", paths)?;
    let received = workers.iter().map(|worker| worker.udp_received).sum();
    out.counter("udp_received_datagrams", "Datagrams received", None, received)?;
    let sent = workers.iter().map(|worker| worker.udp_sent).sum();
    out.counter("udp_sent_datagrams", "Datagrams given to the kernel", None, sent)?;
    let strays = workers.iter().map(|worker| worker.udp_strays).sum();
    out.counter("udp_strays", "ESP datagrams passed to the worker their SPI names", None, strays)
}

fn attach_histogram(out: &mut Families<'_>, stats: &Stats) -> std::fmt::Result {
    let help = "Time from IKE_SA_INIT to the established session";
    let unit = Unit::Seconds;
    let mut family = out.0.encode_descriptor("attach_duration", help, Some(&unit), MetricType::Histogram)?;
    let bounds = BUCKETS_S.into_iter().chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(stats.attach.buckets).collect();
    family.encode_histogram::<[(&str, &str); 0]>(stats.attach.sum_s, stats.attach.count(), &buckets, None)
}

fn workers(out: &mut Families<'_>, stats: &Stats) -> std::fmt::Result {
    type Value = fn(&super::api::WorkerStats) -> u64;
    let gauges: [(&str, &str, Value); 2] = [
        ("worker_connections", "Peer connections by worker", |worker| worker.connections),
        ("worker_child_sas", "Child SAs by worker", |worker| worker.sas),
    ];
    for (name, help, value) in gauges {
        let mut family = out.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for worker in &stats.workers {
            let id = worker.id.to_string();
            ConstGauge::new(i64::try_from(value(worker)).unwrap_or(i64::MAX))
                .encode(family.encode_family(&[("worker", id.as_str())])?)?;
        }
    }
    let unit = Unit::Seconds;
    let mut family =
        out.0.encode_descriptor("thread_cpu", "CPU time by thread", Some(&unit), MetricType::Counter)?;
    let control = ("control".to_owned(), stats.control.cpu_s);
    let named = stats.workers.iter().map(|worker| (format!("worker-{}", worker.id), worker.cpu_s));
    for (thread, cpu_s) in named.chain([control]) {
        ConstCounter::new(cpu_s).encode(family.encode_family(&[("thread", thread.as_str())])?)?;
    }
    Ok(())
}
