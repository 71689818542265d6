//! Whether the emulated paths are what they claim to be, alone and beside each other.

use super::super::stat::{counted, number, setting};
use super::super::table::Table;
use super::Conclusion;
use crate::lab::results::{CalibrationRow, InterferenceRow};

/// Answers whether a link does what it was told.
pub fn calibration(rows: &[CalibrationRow]) -> Conclusion {
    let columns = ["Link", "Quantity", "Configured", "Measured", "Deviation, %", "Allowed, %", "Verdict"];
    let mut table = Table::new("Emulated links, measured with plain kernel sockets.", &columns);
    for row in rows {
        table.row(vec![
            row.link.clone(),
            row.quantity.clone(),
            setting(row.configured),
            number(row.measured),
            number(row.deviation_pct),
            setting(row.allowed_pct),
            verdict(row.ok),
        ]);
    }
    let good = rows.iter().filter(|row| row.ok).count();
    let most = rows
        .iter()
        .filter(|row| row.deviation_pct.is_finite())
        .max_by(|one, two| one.deviation_pct.abs().total_cmp(&two.deviation_pct.abs()));
    let most = most.map_or_else(String::new, |row| {
        format!("; the largest deviation is {} % ({}, {})", number(row.deviation_pct), row.link, row.quantity)
    });
    let sentence = match rows.len() {
        0 => "The emulated paths were not calibrated in this study.".to_owned(),
        all => format!("{good} of {} are within what is allowed{most}.", counted(all, "measurement")),
    };
    conclusion("calibration", "Whether the emulated paths are what they were told to be", sentence, table)
}

/// Answers whether links disturb each other.
pub fn interference(rows: &[InterferenceRow]) -> Conclusion {
    let columns = ["Paths at once", "Quantity", "Alone", "Beside the others", "Verdict"];
    let mut table = Table::new("One link alone, and the same while others carry traffic.", &columns);
    for row in rows {
        table.row(vec![
            row.paths.to_string(),
            row.quantity.clone(),
            number(row.alone),
            number(row.beside),
            verdict(row.ok),
        ]);
    }
    let bad = |paths: usize| rows.iter().any(|row| row.paths == paths && !row.ok);
    let good = rows.iter().map(|row| row.paths).filter(|paths| !bad(*paths)).max();
    let wrong = rows.iter().filter(|row| !row.ok).count();
    let sentence = match (rows.len(), good) {
        (0, _) => "Whether paths disturb each other was not measured.".to_owned(),
        (all, Some(paths)) if wrong == 0 => {
            format!(
                "None of {} shows a disturbance, with up to {}.",
                counted(all, "measurement"),
                at_once(paths)
            )
        }
        (all, good) => format!(
            "{wrong} of {} differ too much; the most paths at once without a disturbance are {}.",
            counted(all, "measurement"),
            good.map_or_else(|| "not known".to_owned(), |paths| paths.to_string())
        ),
    };
    conclusion("interference", "Whether paths that run at once disturb each other", sentence, table)
}

fn at_once(paths: usize) -> String {
    format!("{} at once", counted(paths, "path"))
}

fn verdict(ok: bool) -> String {
    if ok { "within" } else { "outside" }.to_owned()
}

fn conclusion(id: &'static str, heading: &str, sentence: String, table: Table) -> Conclusion {
    Conclusion { id, heading: heading.to_owned(), sentences: vec![sentence], notes: Vec::new(), table }
}
