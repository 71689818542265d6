//! The plots of a study.
//!
//! Each is drawn twice: side by side for a screen or a file, and one below the other for a telephone.

mod axis;
mod canvas;
mod curves;
mod delay;
mod grid;
mod heat;
mod png;
mod stall;
mod style;

use super::place::{Place, places};
use crate::error::Failure;
use crate::lab::results::Results;

pub use png::png;

/// One plot.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Name of its files.
    pub name: String,
    /// Conclusion that it belongs to.
    pub section: &'static str,
    /// What it shows and where.
    pub title: Title,
    /// What the reader sees, in words and numbers.
    pub explanation: Vec<String>,
    /// SVG for a wide page.
    pub wide: String,
    /// SVG for a narrow page.
    pub narrow: String,
}

/// A title in two weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Title {
    /// What is shown.
    pub what: String,
    /// What all of it has in common.
    pub common: String,
}

impl Title {
    /// Returns the title as one text.
    pub fn text(&self) -> String {
        if self.common.is_empty() { self.what.clone() } else { format!("{}: {}", self.what, self.common) }
    }
}

/// How a plot is laid out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layout {
    /// Width, in units of the drawing.
    pub width: i32,
    /// Most panels side by side.
    pub columns: usize,
    /// Height of a panel.
    pub panel: i32,
}

impl Layout {
    /// For a screen.
    pub const WIDE: Self = Self { width: 1_180, columns: 3, panel: 300 };
    /// For a telephone.
    pub const NARROW: Self = Self { width: 390, columns: 1, panel: 250 };
}

/// Draws the plots that the study has figures for.
pub fn figures(results: &Results) -> Result<Vec<Figure>, Failure> {
    let places = places(results);
    let mut figures = Vec::new();
    figures.extend(curves::goodput_by_loss(&places)?);
    figures.extend(curves::goodput_by_rtt(&places)?);
    figures.extend(heat::meltdown(&places)?);
    figures.extend(delay::distributions(&places)?);
    figures.extend(stall::timeline(&places)?);
    figures.extend(curves::score_by_loss(&places)?);
    Ok(figures)
}

/// Makes a figure of what draws it in both layouts.
fn figure(
    (name, section, title): (String, &'static str, Title),
    explanation: Vec<String>,
    draw: impl Fn(Layout) -> Result<String, Failure>,
) -> Result<Figure, Failure> {
    let (wide, narrow) = (draw(Layout::WIDE)?, draw(Layout::NARROW)?);
    Ok(Figure { name, section, title, explanation, wide, narrow })
}

/// Takes the largest series, and says how many more there are.
fn largest<'a>(mut series: Vec<Vec<Place<'a>>>, most: usize) -> (Vec<Vec<Place<'a>>>, usize) {
    series.sort_by_key(|places| std::cmp::Reverse(places.len()));
    let more = series.len().saturating_sub(most);
    series.truncate(most);
    (series, more)
}
