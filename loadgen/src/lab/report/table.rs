//! A table of strings, shown on the page and in the terminal.

use super::coordinate::{Coordinate, varying};
use super::stat::NOTHING;
use crate::lab::results::Point;
use comfy_table::{CellAlignment, presets};
use serde::Serialize;

/// Rows that the terminal shows; the page has all.
const TERMINAL_ROWS: usize = 60;

/// A table.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Table {
    /// What it shows, and what all of its rows have in common.
    pub caption: String,
    /// Titles.
    pub columns: Vec<String>,
    /// As many cells each as there are columns.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// Creates a table without rows.
    pub fn new(caption: impl Into<String>, columns: &[&str]) -> Self {
        Self {
            caption: caption.into(),
            columns: columns.iter().map(|&column| column.to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// Creates a table whose first columns are the coordinates that differ among the points.
    pub fn of_points(
        caption: impl Into<String>,
        points: &[&Point],
        columns: &[&str],
    ) -> (Self, Vec<Coordinate>) {
        let varying = varying(points);
        let titles: Vec<&str> =
            varying.iter().map(|coordinate| coordinate.title()).chain(columns.iter().copied()).collect();
        (Self::new(caption, &titles), varying)
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// Adds a row that begins with the coordinates of a point.
    pub fn row_of(&mut self, point: &Point, coordinates: &[Coordinate], figures: Vec<String>) {
        let place = coordinates.iter().map(|coordinate| match coordinate.matters(point) {
            true => coordinate.value(point).show(),
            false => NOTHING.to_owned(),
        });
        self.row(place.chain(figures).collect());
    }

    /// Tells whether a column holds numbers, which stand at the right.
    pub fn numeric(&self, column: usize) -> bool {
        let mut cells = self.rows.iter().filter_map(|row| row.get(column)).filter(|cell| *cell != NOTHING);
        let number = |cell: &String| {
            !cell.contains(char::is_alphabetic) && cell.contains(|letter: char| letter.is_ascii_digit())
        };
        cells.clone().next().is_some() && cells.all(number)
    }

    /// Writes the table for a terminal.
    pub fn terminal(&self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_preset(presets::UTF8_BORDERS_ONLY).set_header(&self.columns);
        table.add_rows(self.rows.iter().take(TERMINAL_ROWS));
        for column in 0..self.columns.len() {
            if let Some(shown) = table.column_mut(column).filter(|_| self.numeric(column)) {
                shown.set_cell_alignment(CellAlignment::Right);
            }
        }
        let more = self.rows.len().saturating_sub(TERMINAL_ROWS);
        let rest = if more > 0 { format!("\n… {more} more rows in report.html") } else { String::new() };
        format!("{table}{rest}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_numbers_stand_right_and_long_tables_are_cut() {
        let mut table = Table::new("t", &["name", "figure", "nothing"]);
        for row in 0..TERMINAL_ROWS + 2 {
            let figure = if row == 0 { NOTHING.into() } else { row.to_string() };
            table.row(vec!["x".into(), figure, NOTHING.into()]);
        }
        assert_eq!([0, 1, 2].map(|column| table.numeric(column)), [false, true, false]);
        assert!(table.terminal().ends_with("… 2 more rows in report.html"));
    }
}
