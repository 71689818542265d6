//! What a study answers, in numbers: the page and the terminal show the same.

mod checks;
mod cost;
mod exchanges;
mod gaps;
mod limit;
mod voice;

use super::coordinate::{Coordinate, common, values};
use super::place::{Place, places};
use super::table::Table;
use crate::lab::results::{Point, Results};
use serde::Serialize;

pub use limit::MOS_LIMIT;
pub use voice::target;

/// One answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Conclusion {
    /// Name of its place on the page.
    pub id: &'static str,
    /// What it is about.
    pub heading: String,
    /// The answer with its numbers, or that it was not measured; a sentence for each transport.
    pub sentences: Vec<String>,
    /// What else there is to say, and by which rule.
    pub notes: Vec<String>,
    /// The numbers.
    pub table: Table,
}

impl Conclusion {
    /// Writes the answer for a terminal.
    pub fn terminal(&self) -> String {
        let mut text = format!("{}\n", self.heading);
        for sentence in &self.sentences {
            text.push_str(&format!("{sentence}\n"));
        }
        for note in &self.notes {
            text.push_str(&format!("  {note}\n"));
        }
        if !self.table.rows.is_empty() {
            text.push_str(&format!("{}\n{}\n", self.table.caption, self.table.terminal()));
        }
        text
    }
}

/// Returns the answers of a study.
pub fn conclusions(results: &Results) -> Vec<Conclusion> {
    let places = places(results);
    vec![
        cost::conclude(&places),
        voice::conclude(&places),
        limit::conclude(&places),
        exchanges::conclude(&places),
        checks::calibration(&results.calibration),
        checks::interference(&results.interference),
        gaps::conclude(results, &places),
    ]
}

/// Names the transport of a place, with its congestion control when there are several.
pub fn label(place: &Place<'_>, several: bool) -> String {
    let point = place.point;
    match several && Coordinate::OuterCc.matters(point) {
        true => format!("{} {}", point.transport, point.outer_cc),
        false => point.transport.clone(),
    }
}

/// Tells whether there are several congestion controls of the outer TCP.
pub fn several_ccs(places: &[Place<'_>]) -> bool {
    values(places.iter().map(|place| place.point), Coordinate::OuterCc).len() > 1
}

/// Adds to a caption what all the points have in common, but for some coordinates.
fn caption(shown: &str, points: &[&Point], except: &[Coordinate]) -> String {
    let common = common(points, except);
    if common.is_empty() { shown.to_owned() } else { format!("{shown} In all rows: {common}.") }
}
