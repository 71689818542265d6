//! A study made up from formulas, with every kind of cell, failed runs and gaps.

use loadgen::lab::results::{
    Bulk, CalibrationRow, Cell, Exchanges, Imix, InterferenceRow, Outer, Point, Results, Run, Summary, Tick,
    VERSION, Voice,
};
use serde_json::json;

const LOSSES: [f64; 6] = [0.0, 0.1, 0.5, 1.0, 2.0, 5.0];
const RTTS: [f64; 3] = [20.0, 60.0, 200.0];
const REPETITIONS: u32 = 3;

/// Returns the study.
pub fn results() -> Results {
    Results {
        command: "lab".to_owned(),
        version: VERSION,
        environment: json!({
            "note": "SYNTHETIC SAMPLE: made up from formulas, nothing was measured",
            "kernel": "Linux <sample> & \"more\"",
            "cpus": 2,
            "programs": {"loadgen": "0.1.0", "gateway": "0.1.0"},
        }),
        matrix: json!({"seconds": 20, "repetitions": REPETITIONS, "group": [{"name": "</script><b>bold</b>"}]}),
        calibration: calibration(),
        interference: interference(),
        cells: cells(),
    }
}

/// Returns a point from which others differ.
pub fn point(transport: &str, workload: &str, rtt_ms: f64, loss_pct: f64) -> Point {
    Point {
        transport: transport.to_owned(),
        workload: workload.to_owned(),
        rtt_ms,
        loss_pct,
        ..Point::default()
    }
}

fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    let mut add = |group: &str, point: Point| cells.push(cell(group, point, cells.len()));
    for rtt in RTTS {
        for loss in LOSSES {
            for transport in ["plain", "udp", "tcp", "tls"] {
                add("bulk", point(transport, "bulk", rtt, loss));
            }
            add("bbr", Point { outer_cc: "bbr".to_owned(), ..point("tcp", "bulk", rtt, loss) });
            for transport in ["udp", "tcp", "tls"] {
                add("voice", point(transport, "voice", rtt, loss));
            }
            for flow_queue in [false, true] {
                add("queue", Point { flow_queue, ..point("tcp", "bulk+voice", rtt, loss) });
            }
        }
    }
    for loss in [0.5, 1.0, 2.0, 5.0] {
        for transport in ["udp", "tcp"] {
            add("bursts", Point { loss_burst: Some(4.0), ..point(transport, "bulk", 60.0, loss) });
        }
    }
    for workload in ["web", "sip", "imix"] {
        for transport in ["udp", "tcp"] {
            add("short", point(transport, workload, 60.0, 1.0));
        }
    }
    for transport in ["udp", "tcp"] {
        for workload in ["bulk", "bulk+voice"] {
            let even = point(transport, workload, 60.0, 1.0);
            add("uneven", Point { jitter_ms: 5.0, ..even.clone() });
            add("uneven", Point { reorder_pct: 1.0, duplicate_pct: 0.5, corrupt_pct: 0.1, ..even });
        }
    }
    cells[7].runs[1] =
        Run { repetition: 1, failed: Some("the gateway <ended> early".to_owned()), ..Run::default() };
    cells[12].runs.clear();
    cells[30].runs[0].bulk = None;
    cells
}

fn cell(group: &str, point: Point, order: usize) -> Cell {
    let runs =
        (0..REPETITIONS).map(|repetition| run(&point, repetition, (order * 7 + repetition as usize) as u64));
    Cell { id: format!("{group}-{order:03}"), group: group.to_owned(), runs: runs.collect(), point }
}

/// Returns a number from 0 to 1 that depends on the seed alone.
fn chance(seed: u64) -> f64 {
    let mixed = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed >> 40) as f64 / (1_u64 << 24) as f64
}

fn run(point: &Point, repetition: u32, seed: u64) -> Run {
    let inside = |part: &str| point.workload.split('+').any(|other| other == part);
    let tunnel = matches!(point.transport.as_str(), "tcp" | "tls");
    let noise = 0.85 + 0.3 * chance(seed);
    let stall_ms = if tunnel { (200.0 + point.rtt_ms * 6.0) * point.loss_pct.sqrt() * noise } else { 0.0 };
    Run {
        repetition,
        seed,
        seconds: 20.0,
        bulk: inside("bulk").then(|| bulk(point, noise, stall_ms)),
        voice: inside("voice").then(|| voice(point, noise)),
        web: inside("web").then(|| exchanges(180.0 * noise)),
        sip: inside("sip").then(|| exchanges(130.0 * noise)),
        imix: inside("imix").then(|| Imix {
            sent_mbit: 10.0,
            received_mbit: 9.9,
            lost_pct: noise,
            delay_ms: summary(31.0, 90.0 * noise),
        }),
        outer: tunnel.then_some(Outer {
            retransmits: (point.loss_pct * 90.0 * noise) as u64,
            srtt_ms: point.rtt_ms + 40.0,
            reconnects: 0,
        }),
        timeline: if inside("bulk") && tunnel {
            timeline(point, seed, stall_ms, inside("voice"))
        } else {
            Vec::new()
        },
        gateway_cpu_s: Some(0.8 * noise),
        ..Run::default()
    }
}

fn bulk(point: &Point, noise: f64, stall_ms: f64) -> Bulk {
    let mut mathis =
        1.22 * 1_380.0 * 8.0 / (point.rtt_ms * 1_000.0 * (point.loss_pct / 100.0).max(1e-5).sqrt());
    mathis *= if point.loss_burst.is_some() { 1.3 } else { 2.0 };
    let share = match point.transport.as_str() {
        "plain" => 1.0,
        "udp" => 0.95,
        _ if point.outer_cc == "bbr" => 0.93 / (1.0 + point.loss_pct * point.rtt_ms / 400.0),
        _ => 0.92 / (1.0 + point.loss_pct * point.rtt_ms / 90.0),
    };
    let goodput_mbit = mathis.min(19.0) * share * noise.min(1.0);
    Bulk {
        goodput_mbit,
        flows_mbit: vec![goodput_mbit],
        retransmits: (point.loss_pct * 60.0) as u64,
        stalls: (stall_ms / 200.0) as u64,
        longest_stall_ms: if stall_ms >= 200.0 { stall_ms } else { 0.0 },
    }
}

fn voice(point: &Point, noise: f64) -> Voice {
    let tunnel = point.transport != "udp";
    let beside = point.workload.contains("bulk");
    let queue = if beside && !point.flow_queue { 180.0 } else { 4.0 };
    let wait = if tunnel { point.loss_pct * (0.45 * point.rtt_ms + 30.0) } else { 0.0 };
    let (p50, p99) = (point.rtt_ms / 2.0 + queue * 0.7 * noise, point.rtt_ms / 2.0 + queue + wait * noise);
    let missed_pct =
        if tunnel { (p99 - point.rtt_ms / 2.0 - 60.0).max(0.0) / 45.0 } else { point.loss_pct * noise };
    let mos = (4.2 - p99 / 700.0 - missed_pct * 0.16).clamp(1.0, 4.5);
    let came = if tunnel { 1.0 } else { 1.0 - point.loss_pct / 100.0 };
    let cdf = (0..=100).map(|step| {
        let share = f64::from(step) / 100.0;
        (
            point.rtt_ms / 2.0 + (p50 - point.rtt_ms / 2.0) * share * 1.4 + (p99 - p50) * share.powi(12),
            share * came,
        )
    });
    Voice {
        codec: "amr-wb-12.65".to_owned(),
        sent: 1_000,
        received: (1_000.0 * came) as u64,
        late: 0,
        missed_pct,
        longest_gap: 3,
        delay_ms: summary(p50, p99),
        jitter_ms: 2.0 * noise,
        playout_ms: 60.0,
        r: mos * 20.0,
        mos,
        cdf: cdf.collect(),
    }
}

fn exchanges(time_ms: f64) -> Exchanges {
    Exchanges { done: 100, failed: 1, time_ms: summary(time_ms, time_ms * 6.0) }
}

fn summary(p50: f64, p99: f64) -> Summary {
    Summary { count: 1_000, mean: p50, p50, p90: p50.midpoint(p99), p99, p999: p99 * 1.1, max: p99 * 1.3 }
}

fn timeline(point: &Point, seed: u64, stall_ms: f64, call: bool) -> Vec<Tick> {
    let (mut outer, mut inner, mut again, mut inside) = (0, 0, 0, 0);
    (1..=200)
        .map(|step: u64| {
            let at_s = step as f64 / 10.0;
            let still = at_s % 5.0 < stall_ms / 1_000.0 && step > 30;
            if still {
                again += u64::from(step.is_multiple_of(4));
                inside += u64::from(step.is_multiple_of(7));
            } else {
                outer += 60_000 + (20_000.0 * chance(seed + step)) as u64;
                inner = outer * 9 / 10;
            }
            let delay =
                point.rtt_ms / 2.0 + 8.0 * chance(step) + if still { at_s % 5.0 * 900.0 } else { 0.0 };
            Tick {
                at_s,
                outer_acked: Some(outer),
                outer_retransmits: Some(again),
                inner_received: Some(inner),
                inner_retransmits: Some(inside),
                voice_delay_ms: call.then_some(delay),
            }
        })
        .collect()
}

fn calibration() -> Vec<CalibrationRow> {
    let row = |link: &str, quantity: &str, configured: f64, measured: f64, allowed_pct: f64| {
        let deviation_pct = 100.0 * (measured - configured) / configured;
        CalibrationRow {
            link: link.to_owned(),
            quantity: quantity.to_owned(),
            configured,
            measured,
            deviation_pct,
            allowed_pct,
            ok: deviation_pct.abs() <= allowed_pct,
        }
    };
    vec![
        row("60 ms, 20 Mbit/s", "one-way delay, ms", 30.0, 30.06, 2.0),
        row("60 ms, 20 Mbit/s", "rate, Mbit/s", 20.0, 19.93, 2.0),
        row("60 ms, 1 % loss", "loss, %", 1.0, 1.02, 10.0),
        row("60 ms, 2 % loss in bursts", "mean burst, packets", 4.0, 4.7, 10.0),
    ]
}

fn interference() -> Vec<InterferenceRow> {
    let row = |paths: usize, beside: f64| InterferenceRow {
        paths,
        quantity: "one-way delay p99, ms".to_owned(),
        alone: 30.2,
        beside,
        ok: beside < 31.0,
    };
    vec![row(2, 30.3), row(4, 30.5), row(8, 33.4)]
}
