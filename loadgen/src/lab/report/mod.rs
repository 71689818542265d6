//! The report of a study: a page, its plots, and the same answers for a terminal.
//!
//! Cells are grouped by the coordinates of their points, never by the names of their groups. Whatever a study does not
//! have is said to be not measured.

mod conclusion;
mod coordinate;
#[cfg(test)]
mod fixture;
mod html;
mod page;
mod place;
mod plot;
mod stat;
mod table;

pub use conclusion::{Conclusion, conclusions};
pub use table::Table;

use super::results::Results;
use crate::error::Failure;
use std::path::{Path, PathBuf};

/// Writes `report.html`, `plots/*.svg` and `plots/*.png` into a directory and returns what it wrote.
pub fn write(results: &Results, dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let figures = plot::figures(results)?;
    let mut written = vec![dir.join("report.html")];
    let plots = dir.join("plots");
    std::fs::create_dir_all(&plots).map_err(|cause| unwritable(&plots, &cause))?;
    for figure in &figures {
        let (svg, png) =
            (plots.join(format!("{}.svg", figure.name)), plots.join(format!("{}.png", figure.name)));
        put(&svg, figure.wide.as_bytes())?;
        put(&png, &plot::png(&figure.wide)?)?;
        written.extend([svg, png]);
    }
    put(&written[0], page::page(results, &conclusions(results), &figures).as_bytes())?;
    Ok(written)
}

/// Returns the answers of a study as text for a terminal.
pub fn terminal(results: &Results) -> String {
    let texts: Vec<String> = conclusions(results).iter().map(Conclusion::terminal).collect();
    texts.join("\n")
}

fn put(path: &Path, octets: &[u8]) -> Result<(), Failure> {
    std::fs::write(path, octets).map_err(|cause| unwritable(path, &cause))
}

fn unwritable(path: &Path, cause: &std::io::Error) -> Failure {
    Failure::Environment(format!("cannot write {}: {cause}", path.display()))
}
