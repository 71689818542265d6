//! A drawing with text, kept by plotters.

use crate::error::Failure;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::register_font;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::sync::OnceLock;

/// Plotters knows whole pixels only: a drawing has this many in each direction of a unit, so that curves are smooth.
pub const FINE: i32 = 4;

/// Where to draw.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Text and lines of axes.
pub const INK: RGBColor = RGBColor(0x22, 0x2b, 0x35);

/// Text of less weight.
pub const PALE_INK: RGBColor = RGBColor(0x4d, 0x58, 0x64);

/// Lines behind the data.
pub const MESH: RGBColor = RGBColor(0xdf, 0xe3, 0xe8);

/// Family of all text. Any will do on a page; pictures take [`font`].
pub const FAMILY: &str = "sans-serif";

/// Returns the font that text is measured with and pictures are drawn with: DejaVu Sans, which is wider than most.
///
/// It is under the Bitstream Vera licence, which lets anyone use, embed and pass it on.
pub fn font(bold: bool) -> &'static [u8] {
    if bold { dejavu::sans::bold() } else { dejavu::sans::regular() }
}

/// Turns units into pixels of the drawing.
pub fn px(units: i32) -> i32 {
    units * FINE
}

/// Returns a style of text of this size.
pub fn text(size: f64, colour: RGBColor) -> TextStyle<'static> {
    // Plotters writes sizes divided by 1.24.
    (FAMILY, size * 1.24 * f64::from(FINE)).into_font().color(&colour)
}

/// Returns a style of bold text of this size.
pub fn bold(size: f64, colour: RGBColor) -> TextStyle<'static> {
    // Not by `FontDesc::style`, which measures with the upright font.
    FontDesc::new(FontFamily::SansSerif, size * 1.24 * f64::from(FINE), FontStyle::Bold).color(&colour)
}

/// Centres text on its point.
pub fn centred(style: TextStyle<'static>) -> TextStyle<'static> {
    style.pos(Pos::new(HPos::Center, VPos::Center))
}

/// Puts text above its point, from there to the right.
pub fn above(style: TextStyle<'static>) -> TextStyle<'static> {
    style.pos(Pos::new(HPos::Left, VPos::Bottom))
}

/// Returns the width of a text, in pixels of the drawing.
pub fn width(of: &str, style: &TextStyle<'_>) -> i32 {
    let measured = style.font.layout_box(of).map(|((left, _), (right, _))| right - left);
    // Without a font there is a guess.
    measured.unwrap_or_else(|_| (style.font.get_size() * 0.55) as i32 * of.chars().count() as i32)
}

/// Breaks a text into lines no wider than `room`.
pub fn wrap(of: &str, style: &TextStyle<'_>, room: i32) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in of.split_whitespace() {
        match lines.last_mut() {
            Some(line) if width(&format!("{line} {word}"), style) <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Draws on a white sheet of this size, in units, and returns the SVG.
pub fn sheet(
    (width, height): (i32, i32),
    label: &str,
    draw: impl FnOnce(&Area<'_>) -> Result<(), Failure>,
) -> Result<String, Failure> {
    fonts()?;
    let mut svg = String::new();
    {
        let size = (px(width).unsigned_abs(), px(height).unsigned_abs());
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        area.fill(&WHITE).map_err(wrong)?;
        draw(&area)?;
        area.present().map_err(wrong)?;
    }
    Ok(scalable(&svg, label))
}

fn fonts() -> Result<(), Failure> {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    let registered = *REGISTERED.get_or_init(|| {
        register_font(FAMILY, FontStyle::Normal, font(false)).is_ok()
            && register_font(FAMILY, FontStyle::Bold, font(true)).is_ok()
    });
    if registered { Ok(()) } else { Err(Failure::Check("the font of the plots cannot be read".to_owned())) }
}

/// Takes the fixed size from an SVG, so that it is as wide as its place, and says what it is.
fn scalable(svg: &str, label: &str) -> String {
    let label = super::super::html::escape(label);
    let Some((view, rest)) = svg
        .split_once("viewBox=\"")
        .and_then(|(_, rest)| rest.split_once('"'))
        .and_then(|(view, rest)| Some((view, rest.split_once('>')?.1)))
    else {
        return svg.to_owned();
    };
    format!(
        "<svg viewBox=\"{view}\" xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" aria-label=\"{label}\">{rest}"
    )
}

/// Says that plotters failed, which it does only on sizes of nothing.
pub fn wrong(cause: impl std::fmt::Display) -> Failure {
    Failure::Check(format!("a plot of the report cannot be drawn: {cause}"))
}
