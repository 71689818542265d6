//! Tables and JSON.

use comfy_table::{CellAlignment, presets};
use loadgen::error::Failure;
use serde::Serialize;
use std::path::Path;

/// Prints a table whose first column names the rows.
pub fn print_table(title: &str, columns: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let mut table = comfy_table::Table::new();
    let header = std::iter::once(title).chain(columns.iter().copied());
    table.load_preset(presets::UTF8_BORDERS_ONLY).set_header(header).add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
}

/// Shows a figure, or a dash when it was not measured.
pub fn figure(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

/// Writes `report` to `path` when one is given.
///
/// # Errors
/// [`Failure::Environment`] when the file cannot be written.
pub fn write_json<R: Serialize>(path: Option<&Path>, report: &R) -> Result<(), Failure> {
    let Some(path) = path else { return Ok(()) };
    let text =
        serde_json::to_string_pretty(report).expect("the report holds only numbers, strings and nulls");
    std::fs::write(path, text + "\n").map_err(|error| {
        Failure::Environment(format!(
            "cannot write {}: {error}; give another place with --json",
            path.display()
        ))
    })
}

/// Describes the machine for a report.
pub fn environment() -> serde_json::Value {
    let read = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).ok();
    let model = read("/proc/cpuinfo").and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        line.split_once(':').map(|(_, model)| model.trim().to_owned())
    });
    serde_json::json!({
        "kernel": read("/proc/sys/kernel/osrelease"),
        "cpu": model,
        "cores": std::thread::available_parallelism().map(usize::from).ok(),
        "ciphers": codec::esp::backend::choose().to_string(),
        "version": env!("CARGO_PKG_VERSION"),
    })
}
