//! What was not measured.

use super::super::place::Place;
use super::super::stat::counted;
use super::super::table::Table;
use super::Conclusion;
use crate::lab::results::{Results, Run};

/// Says what is missing: cells, repetitions and figures.
pub fn conclude(results: &Results, places: &[Place<'_>]) -> Conclusion {
    let mut table =
        Table::new("What a cell should have and has not.", &["Cell", "Repetition", "What happened"]);
    let mut failed = 0;
    for cell in &results.cells {
        if cell.runs.is_empty() {
            table.row(vec![cell.id.clone(), "none".to_owned(), "no repetition was made".to_owned()]);
        }
        for run in &cell.runs {
            if let Some(cause) = &run.failed {
                failed += 1;
                table.row(vec![cell.id.clone(), run.repetition.to_string(), cause.clone()]);
            }
        }
    }
    for place in places {
        for run in place.good() {
            for part in missing(place, run) {
                let what = format!("no figures of {part}");
                table.row(vec![place.id.to_owned(), run.repetition.to_string(), what]);
            }
        }
    }
    let runs: usize = results.cells.iter().map(|cell| cell.runs.len()).sum();
    let empty = results.cells.iter().filter(|cell| cell.runs.is_empty()).count();
    let sentence = match (results.cells.len(), table.rows.len()) {
        (0, _) => "The study has no cell.".to_owned(),
        (cells, 0) => format!(
            "Nothing is missing: {} of {} went well.",
            counted(runs, "repetition"),
            counted(cells, "cell")
        ),
        (cells, missing) => format!(
            "Repetitions that failed: {failed} of {runs}. Cells without a repetition: {empty} of {cells}. Figures \
             missing from repetitions that went well: {}.",
            missing - failed - empty
        ),
    };
    Conclusion {
        id: "gaps",
        heading: "What was not measured".to_owned(),
        sentences: vec![sentence],
        notes: absent(places),
        table,
    }
}

/// Returns the parts of the workload that a run has no figures of.
fn missing(place: &Place<'_>, run: &Run) -> Vec<&'static str> {
    let parts = [
        ("bulk", place.runs_inside("bulk") && run.bulk.is_none()),
        ("the call", place.has_call() && run.voice.is_none()),
        ("web", place.runs_inside("web") && run.web.is_none()),
        ("SIP", place.runs_inside("sip") && run.sip.is_none()),
        ("mixed traffic", place.runs_inside("imix") && run.imix.is_none()),
    ];
    parts.into_iter().filter(|(_, missing)| *missing).map(|(part, _)| part).collect()
}

/// Names what the study does not have at all and a reader may look for.
fn absent(places: &[Place<'_>]) -> Vec<String> {
    let has = |transport: &str| places.iter().any(|place| place.point.transport == transport);
    let mut notes: Vec<String> =
        [("plain", "no tunnel"), ("udp", "a tunnel over UDP"), ("tcp", "a tunnel over TCP")]
            .into_iter()
            .filter(|(transport, _)| !has(transport))
            .map(|(_, said)| format!("The study has no cell with {said}."))
            .collect();
    let most = places.iter().map(|place| place.good().count()).max().unwrap_or(0);
    if most == 1 {
        notes.push("Each point was measured once at most, so nothing is known of the spread.".to_owned());
    }
    notes
}
