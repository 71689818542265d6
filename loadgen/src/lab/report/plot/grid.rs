//! Panels of curves under one title and one legend.

use super::axis::Axis;
use super::canvas::{Area, INK, MESH, PALE_INK, above, bold, px, sheet, text, width, wrap, wrong};
use super::style::Style;
use super::{super::stat::Spread, Layout, Title};
use crate::error::Failure;
use plotters::element::DashedPathElement;
use plotters::prelude::*;

/// Curves in one system of axes.
#[derive(Clone, Debug)]
pub struct Panel {
    /// What is the same in all of it, such as the RTT.
    pub title: String,
    /// From left to right.
    pub x: Axis,
    /// From below to above.
    pub y: Axis,
    /// Data.
    pub curves: Vec<Curve>,
    /// Limits at a value of x.
    pub upright: Vec<f64>,
    /// Limits at a value of y.
    pub level: Vec<f64>,
    /// Ranges of x with a grey ground.
    pub bands: Vec<(f64, f64)>,
    /// Whether half the height is enough.
    pub flat: bool,
}

/// One curve.
#[derive(Clone, Debug)]
pub struct Curve {
    /// Look.
    pub style: Style,
    /// Whether there is a line from point to point.
    pub line: bool,
    /// Whether points have marks and whiskers.
    pub marks: bool,
    /// Values by x.
    pub points: Vec<(f64, Spread)>,
}

/// An entry of the legend.
#[derive(Clone, Debug, PartialEq)]
pub enum Key {
    /// A curve with its line and its marks.
    Curve(Style, bool, bool),
    /// A limit.
    Limit,
    /// A grey ground.
    Band,
}

/// Panels with what they share.
#[derive(Clone, Debug)]
pub struct Grid {
    /// Title.
    pub title: Title,
    /// What the entries of the legend mean.
    pub legend: Vec<(Key, String)>,
    /// In reading order.
    pub panels: Vec<Panel>,
    /// Most panels side by side.
    pub columns: usize,
}

const TITLE: f64 = 16.0;
const LABEL: f64 = 12.0;
const PANEL_TITLE: f64 = 13.0;
const MARGIN: i32 = 10;
/// Room of an entry's sample.
const SAMPLE: i32 = 34;
const LINE: i32 = 22;
const SMALL_LINE: i32 = 17;

/// Draws the panels.
pub fn draw(grid: &Grid, layout: Layout) -> Result<String, Failure> {
    let columns = grid.columns.min(layout.columns).clamp(1, grid.panels.len().max(1));
    let rows: Vec<&[Panel]> = grid.panels.chunks(columns).collect();
    let flat = |row: &&[Panel]| row.iter().all(|panel| panel.flat);
    let tall = |row: &&[Panel]| if flat(row) { layout.panel * 3 / 5 } else { layout.panel };
    let head = Head::new(&grid.title, &grid.legend, layout);
    let height = head.height() + rows.iter().map(tall).sum::<i32>() + MARGIN;
    sheet((layout.width, height), &grid.title.text(), |area| {
        head.draw(area)?;
        let (_, mut rest) = area.split_vertically(px(head.height()));
        for row in &rows {
            let (places, below) = rest.split_vertically(px(tall(row)));
            for (place, panel) in places.split_evenly((1, columns)).iter().zip(*row) {
                draw_panel(area, place, panel)?;
            }
            rest = below;
        }
        Ok(())
    })
}

/// Title and legend above the data, where they cover nothing.
pub struct Head<'a> {
    title: Vec<String>,
    common: Vec<String>,
    /// Left end of each entry and its line.
    entries: Vec<(i32, i32, &'a Key, &'a str)>,
    lines: i32,
}

impl<'a> Head<'a> {
    /// Lays out a title and a legend.
    pub fn new(title: &Title, legend: &'a [(Key, String)], layout: Layout) -> Self {
        let room = px(layout.width - 2 * MARGIN);
        let common = wrap(&title.common, &text(LABEL, PALE_INK), room);
        let title = wrap(&title.what, &bold(TITLE, INK), room);
        let (mut x, mut line, mut entries) = (0, 0, Vec::new());
        for (key, said) in legend {
            let wide = px(SAMPLE) + width(said, &text(LABEL, INK));
            if x > 0 && x + wide > room {
                (x, line) = (0, line + 1);
            }
            entries.push((px(MARGIN) + x, line, key, said.as_str()));
            x += wide + px(16);
        }
        let lines = if entries.is_empty() { 0 } else { line + 1 };
        Self { title, common, entries, lines }
    }

    /// Returns its height, in units.
    pub fn height(&self) -> i32 {
        self.top() + self.lines * LINE + 4
    }

    /// Returns where the legend begins.
    fn top(&self) -> i32 {
        let common = self.common.len() as i32 * SMALL_LINE;
        MARGIN + self.title.len() as i32 * LINE + common + if common > 0 { 4 } else { 0 }
    }

    /// Draws it at the top.
    pub fn draw(&self, area: &Area<'_>) -> Result<(), Failure> {
        let style = bold(TITLE, INK);
        for (line, said) in self.title.iter().enumerate() {
            area.draw_text(said, &style, (px(MARGIN), px(MARGIN + line as i32 * LINE))).map_err(wrong)?;
        }
        let below = MARGIN + self.title.len() as i32 * LINE;
        for (line, said) in self.common.iter().enumerate() {
            let place = (px(MARGIN), px(below + line as i32 * SMALL_LINE));
            area.draw_text(said, &text(LABEL, PALE_INK), place).map_err(wrong)?;
        }
        let top = self.top() + LINE / 2;
        for (x, line, key, said) in &self.entries {
            let y = px(top + line * LINE);
            sample(area, key, (*x, y))?;
            area.draw_text(said, &text(LABEL, INK), (x + px(SAMPLE - 6), y - px(5))).map_err(wrong)?;
        }
        Ok(())
    }
}

fn sample(area: &Area<'_>, key: &Key, (x, y): (i32, i32)) -> Result<(), Failure> {
    let ends = [(x, y), (x + px(24), y)];
    match key {
        Key::Curve(style, line, marks) => {
            if *line {
                style.draw_line(area, &ends, 2.0)?;
            }
            if *marks { style.draw_mark(area, (x + px(12), y)) } else { Ok(()) }
        }
        Key::Limit => limit(area, ends),
        Key::Band => {
            let corners = [(x, y - px(6)), (x + px(24), y + px(6))];
            area.draw(&Rectangle::new(corners, band())).map_err(wrong)
        }
    }
}

fn limit(area: &Area<'_>, ends: [(i32, i32); 2]) -> Result<(), Failure> {
    area.draw(&DashedPathElement::new(ends, px(4), px(3), INK.stroke_width(px(1) as u32 * 3 / 2)))
        .map_err(wrong)
}

fn band() -> ShapeStyle {
    RGBColor(0xd3, 0xd9, 0xe0).filled()
}

/// Returns a bold style in which a text is no wider than `room`.
pub fn fitting(title: &str, room: i32) -> TextStyle<'static> {
    let wide = width(title, &bold(PANEL_TITLE, INK));
    let shrink = (f64::from(room) / f64::from(wide.max(1))).clamp(0.7, 1.0);
    bold(PANEL_TITLE * shrink, INK)
}

/// Draws one panel at its place; `whole` is the sheet, on which curves are drawn by pixel.
fn draw_panel(whole: &Area<'_>, place: &Area<'_>, panel: &Panel) -> Result<(), Failure> {
    let mut builder = ChartBuilder::on(place);
    builder.margin(px(6)).margin_right(px(14)).x_label_area_size(px(42)).y_label_area_size(px(58));
    builder.margin_top(px(if panel.title.is_empty() { 8 } else { 30 }));
    let mut chart = builder.build_cartesian_2d(panel.x.clone(), panel.y.clone()).map_err(wrong)?;
    let corner = chart.backend_coord(&(panel.x.range.0, panel.y.range.1));
    let room = place.dim_in_pixel().0 as i32 - px(80);
    let style = above(fitting(&panel.title, room));
    whole.draw_text(&panel.title, &style, (corner.0, corner.1 - px(6))).map_err(wrong)?;
    let at = |x: f64, y: f64| chart.backend_coord(&(x, y));
    for (from, to) in &panel.bands {
        if let (Some(from), Some(to)) = (panel.x.at(*from), panel.x.at(*to)) {
            let corners = [at(from, panel.y.range.1), at(to, panel.y.range.0)];
            whole.draw(&Rectangle::new(corners, band())).map_err(wrong)?;
        }
    }
    chart
        .configure_mesh()
        .bold_line_style(MESH.stroke_width(px(1) as u32))
        .light_line_style(TRANSPARENT)
        .axis_style(PALE_INK.stroke_width(px(1) as u32))
        .label_style(text(11.0, INK))
        .axis_desc_style(text(LABEL, INK))
        .x_desc(&panel.x.title)
        .y_desc(&panel.y.title)
        .set_all_tick_mark_size(px(4))
        .draw()
        .map_err(wrong)?;
    let at = |x: f64, y: f64| chart.backend_coord(&(x, y));
    for x in panel.upright.iter().filter_map(|x| panel.x.at(*x)) {
        limit(whole, [at(x, panel.y.range.0), at(x, panel.y.range.1)])?;
    }
    for y in panel.level.iter().filter_map(|y| panel.y.at(*y)) {
        limit(whole, [at(panel.x.range.0, y), at(panel.x.range.1, y)])?;
    }
    for (order, curve) in panel.curves.iter().enumerate() {
        draw_curve(whole, panel, (order, curve), &at)?;
    }
    Ok(())
}

fn draw_curve(
    area: &Area<'_>,
    panel: &Panel,
    (order, curve): (usize, &Curve),
    at: &impl Fn(f64, f64) -> (i32, i32),
) -> Result<(), Failure> {
    let place = |x: f64, y: f64| {
        let x = panel.x.beside(panel.x.at(x)?, order, panel.curves.len());
        Some(at(x, panel.y.at(y)?))
    };
    let points: Vec<(i32, i32)> =
        curve.points.iter().filter_map(|(x, value)| place(*x, value.median)).collect();
    if curve.line && points.len() > 1 {
        curve.style.draw_line(area, &points, if curve.marks { 2.0 } else { 1.6 })?;
    }
    if !curve.marks {
        return Ok(());
    }
    for (x, value) in curve.points.iter().filter(|(_, value)| value.count > 1) {
        if let (Some(low), Some(high)) = (place(*x, value.min), place(*x, value.max)) {
            whisker(area, curve.style, low, high)?;
        }
    }
    points.iter().try_for_each(|point| curve.style.draw_mark(area, *point))
}

fn whisker(area: &Area<'_>, style: Style, low: (i32, i32), high: (i32, i32)) -> Result<(), Failure> {
    let stroke = style.stroke(1.25);
    let cap = |(x, y): (i32, i32)| [(x - px(3), y), (x + px(3), y)];
    for line in [[low, high], cap(low), cap(high)] {
        area.draw(&PathElement::new(line, stroke)).map_err(wrong)?;
    }
    Ok(())
}
