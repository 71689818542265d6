//! Cells for the tests of this module.

use crate::lab::results::{Bulk, Cell, Point, Results, Run, Summary, VERSION, Voice};

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

/// Returns a cell with these runs.
pub fn cell(point: Point, runs: Vec<Run>) -> Cell {
    Cell { id: format!("{} {}", point.transport, point.loss_pct), group: "group".to_owned(), point, runs }
}

/// Returns a cell of bulk, a run for each goodput.
pub fn bulk(point: Point, goodputs: &[f64]) -> Cell {
    let run = |goodput_mbit: &f64| Run {
        bulk: Some(Bulk { goodput_mbit: *goodput_mbit, ..Bulk::default() }),
        ..Run::default()
    };
    cell(point, goodputs.iter().map(run).collect())
}

/// Returns a cell of calls, a run for each p99, share of frames missed and score.
pub fn call(point: Point, calls: &[(f64, f64, f64)]) -> Cell {
    let run = |(p99, missed_pct, mos): &(f64, f64, f64)| Run {
        voice: Some(Voice {
            delay_ms: Summary { count: 100, p50: *p99, p99: *p99, ..Summary::default() },
            missed_pct: *missed_pct,
            mos: *mos,
            ..Voice::default()
        }),
        ..Run::default()
    };
    cell(point, calls.iter().map(run).collect())
}

/// Returns a study of cells.
pub fn study(cells: Vec<Cell>) -> Results {
    Results {
        command: "lab".to_owned(),
        version: VERSION,
        environment: serde_json::Value::Null,
        matrix: serde_json::Value::Null,
        calibration: Vec::new(),
        interference: Vec::new(),
        cells,
    }
}
