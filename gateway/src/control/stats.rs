//! Gathers what `stats` and `sessions` show, without stopping anybody.

use std::collections::BTreeMap;
use std::time::Instant;

use super::aaa::ServerView;
use super::engine::Engine;
use super::responder::{ChildView, SessionView};
use crate::admin::api::{
    AaaRow, ChildRow, ControlStats, IkeRow, MemoryStats, SessionRow, Stats, Traffic, WorkerStats,
};
use crate::io::thread::cpu_time;
use crate::process::resident_octets;
use crate::worker::counters::WorkerCounters;

/// What the control loop adds to the counters of responder and workers.
pub struct Around {
    /// When the process started.
    pub started: Instant,
    /// Most messages found waiting in one worker's queue.
    pub queue_depth_max: u64,
    /// End of validity of the gateway's certificate, seconds since 1970.
    pub certificate_not_after_s: Option<i64>,
    /// Whether new sessions are taken.
    pub ready: bool,
}

/// The statistics at `now`. Reads the workers' counters as they are; they may be a moment apart.
pub fn collect<'a>(
    engine: &mut Engine,
    workers: impl Iterator<Item = &'a WorkerCounters>,
    around: &Around,
    now: Instant,
) -> Stats {
    let counters = engine.responder.counters();
    let mut stats = Stats {
        uptime_s: now.saturating_duration_since(around.started).as_secs(),
        sessions: counters.gauges.sessions,
        half_open: counters.gauges.half_open,
        connections: 0,
        attach_per_s: engine.attach_meter.per_s(now),
        uplink: Traffic::default(),
        downlink: Traffic::default(),
        drops: BTreeMap::new(),
        workers: Vec::new(),
        control: ControlStats {
            queue_depth_max: around.queue_depth_max,
            ike_messages: counters.exchanges.messages,
            cpu_s: cpu_time().as_secs_f64(),
            inbox_overflows: engine.dispatcher.inbox_overflows,
            moving_overflows: engine.dispatcher.moving_overflows,
        },
        memory: MemoryStats { rss_bytes: resident_octets() },
        exchanges: counters.exchanges.iter().map(|(name, n)| (name.to_owned(), n)).collect(),
        closes: BTreeMap::new(),
        rejects: counters.rejects.iter().map(|(cause, n)| (cause.name().to_owned(), n)).collect(),
        aaa: engine.aaa.servers().iter().map(server).collect(),
        certificate_not_after_s: around.certificate_not_after_s,
        ready: around.ready,
        attach: engine.attach,
    };
    for (id, worker) in workers.enumerate() {
        add_worker(&mut stats, id as u8, worker);
    }
    for (name, n) in counters.drops.iter() {
        // The workers have reasons of the same names for ESP.
        let name = format!("ike_{}", name.trim_start_matches("ike_"));
        *stats.drops.entry(name).or_default() += n;
    }
    stats
}

fn server(view: &ServerView) -> AaaRow {
    AaaRow {
        backend: view.backend.to_string(),
        server: view.server.to_string(),
        up: view.up,
        requests: view.requests,
        retransmissions: view.retransmissions,
        timeouts: view.timeouts,
        bad_answers: view.bad_answers,
        accepts: view.accepts,
        rejects: view.rejects.iter().map(|(cause, n)| (cause.name().to_owned(), *n)).collect(),
        answer_ms: (view.answers > 0).then(|| view.waited.as_secs_f64() * 1e3 / view.answers as f64),
        answers: view.answers,
        lost: view.lost,
    }
}

fn add_worker(stats: &mut Stats, id: u8, worker: &WorkerCounters) {
    let uplink = Traffic { packets: worker.uplink_packets.get(), bytes: worker.uplink_bytes.get() };
    let downlink = Traffic { packets: worker.downlink_packets.get(), bytes: worker.downlink_bytes.get() };
    let row = WorkerStats {
        id,
        connections: worker.connections.get(),
        sas: worker.sas.get(),
        uplink,
        downlink,
        receive_starved: worker.receive_starved.get(),
        ring_overflows: worker.ring_overflows.get(),
        device_writes: worker.device_writes.get(),
        ecn_marked: worker.ecn_marked.get(),
        udp_paths: worker.udp_paths.get(),
        udp_received: worker.udp_received.get(),
        udp_sent: worker.udp_sent.get(),
        udp_strays: worker.udp_strays.get(),
        zero_copy_sends: worker.zero_copy_sends.get(),
        zero_copy_copied: worker.zero_copy_copied.get(),
        cpu_s: worker.cpu_ns.get() as f64 / 1e9,
    };
    stats.connections += row.connections;
    stats.uplink.packets += uplink.packets;
    stats.uplink.bytes += uplink.bytes;
    stats.downlink.packets += downlink.packets;
    stats.downlink.bytes += downlink.bytes;
    stats.workers.push(row);
    for (reason, n) in worker.drops() {
        *stats.drops.entry(reason.to_owned()).or_default() += n;
    }
    for (cause, n) in worker.closes() {
        *stats.closes.entry(cause.to_owned()).or_default() += n;
    }
}

/// All sessions by id, with the child counters that the workers have reported.
pub fn sessions(engine: &Engine, now: Instant) -> Vec<SessionRow> {
    let mut rows: Vec<SessionRow> =
        engine.responder.sessions(now).map(|view| session(engine, &view)).collect();
    rows.sort_unstable_by_key(|row| row.id);
    rows
}

fn session(engine: &Engine, view: &SessionView<'_>) -> SessionRow {
    SessionRow {
        id: view.id.0,
        idi: view.idi.to_string(),
        idr: view.idr.to_string(),
        profile: view.profile.to_owned(),
        state: view.state.to_owned(),
        transport: view.path.transport.as_str().to_owned(),
        remote: view.path.remote.to_string(),
        worker: view.worker.0,
        inner: view.inner.iter().map(ToString::to_string).collect(),
        established_s: view.established.as_secs(),
        ike: IkeRow {
            spi_i: hex(&view.ike.spi_i.0),
            spi_r: hex(&view.ike.spi_r.0),
            suite: format!("{}{}", view.ike.suite, view.ike.additional),
            rekeys: view.ike.rekeys,
            fragmentation: view.ike.fragmentation,
            mobike: view.ike.mobike,
        },
        children: view.children.iter().map(|child| child_row(engine, child)).collect(),
    }
}

fn child_row(engine: &Engine, child: &ChildView) -> ChildRow {
    let counters = engine.reports.children.get(&child.spi_in);
    ChildRow {
        spi_in: hex(&child.spi_in.0.to_be_bytes()),
        spi_out: hex(&child.spi_out.0.to_be_bytes()),
        suite: child.suite.to_string(),
        esn: child.suite.esn,
        packets_in: counters.map(|counters| counters.packets_in),
        bytes_in: counters.map(|counters| counters.bytes_in),
        packets_out: counters.map(|counters| counters.packets_out),
        bytes_out: counters.map(|counters| counters.bytes_out),
        replay_drops: counters.map(|counters| counters.replay_drops),
        rekeys: child.rekeys,
    }
}

/// Octets in hexadecimal.
pub fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}
