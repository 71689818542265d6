//! The meltdown factor as a map of RTT and loss.

use super::super::conclusion::{label, several_ccs};
use super::super::coordinate::{Coordinate, Value, common, values};
use super::super::place::{Place, factor, series};
use super::super::stat::{Spread, counted, number};
use super::canvas::{Area, INK, PALE_INK, above, centred, px, sheet, text, wrong};
use super::grid::{Head, fitting};
use super::{Figure, Layout, Title, figure, largest};
use crate::error::Failure;
use crate::lab::results::Point;
use plotters::prelude::*;

/// One transport: its factors by loss and RTT.
struct Map {
    title: String,
    losses: Vec<f64>,
    rtts: Vec<f64>,
    factors: Vec<(f64, f64, Spread)>,
}

/// Draws the meltdown factors of the largest slice.
pub fn meltdown(places: &[Place<'_>]) -> Result<Vec<Figure>, Failure> {
    let compared: Vec<Place<'_>> = places
        .iter()
        .filter(|place| place.point.transport != "plain" && factor(places, place, "udp").is_some())
        .cloned()
        .collect();
    let except = [Coordinate::Loss, Coordinate::Rtt, Coordinate::Transport, Coordinate::OuterCc];
    let (slices, more) = largest(series(&compared, &except), 1);
    let Some(slice) = slices.into_iter().next() else { return Ok(Vec::new()) };
    let several = several_ccs(&slice);
    let mut labels: Vec<String> = slice.iter().map(|place| label(place, several)).collect();
    labels.sort();
    labels.dedup();
    let maps: Vec<Map> = labels
        .iter()
        .map(|wanted| {
            let of: Vec<&Place<'_>> = slice.iter().filter(|place| label(place, several) == *wanted).collect();
            map(places, wanted, &of)
        })
        .collect();
    let points: Vec<&Point> = slice.iter().map(|place| place.point).collect();
    let title =
        Title { what: "Meltdown factor by loss and RTT".to_owned(), common: common(&points, &except) };
    let mut explanation = vec![
        "Each field is the goodput over the transport divided by that over UDP on the same path, by the medians \
         of the repetitions: 1 is as good as UDP, 0.1 is a tenth of it. Dark fields are bad; one with a \
         dash has no factor."
            .to_owned(),
    ];
    explanation.extend(maps.iter().map(in_words));
    if more > 0 {
        explanation.push(format!("{} more: see the table.", counted(more, "slice")));
    }
    let made = figure(("meltdown".to_owned(), "cost", title.clone()), explanation, |layout| {
        draw(&title, &maps, layout)
    })?;
    Ok(vec![made])
}

fn map(all: &[Place<'_>], title: &str, places: &[&Place<'_>]) -> Map {
    let axis = |coordinate: Coordinate| {
        let values = values(places.iter().map(|place| place.point), coordinate);
        values
            .into_iter()
            .filter_map(|value| if let Value::Number(number) = value { Some(number) } else { None })
            .collect()
    };
    let factors = places
        .iter()
        .filter_map(|place| Some((place.point.loss_pct, place.point.rtt_ms, factor(all, place, "udp")?)))
        .collect();
    Map { title: title.to_owned(), losses: axis(Coordinate::Loss), rtts: axis(Coordinate::Rtt), factors }
}

fn in_words(map: &Map) -> String {
    let by = |one: &&(f64, f64, Spread), two: &&(f64, f64, Spread)| one.2.median.total_cmp(&two.2.median);
    let (Some(least), Some(most)) = (map.factors.iter().min_by(by), map.factors.iter().max_by(by)) else {
        return format!("{}: not measured.", map.title);
    };
    let place = |(loss, rtt, factor): &(f64, f64, Spread)| {
        format!("{} (RTT {rtt} ms, loss {loss} %)", number(factor.median))
    };
    format!("{}: from {} to {}.", map.title, place(least), place(most))
}

const FIELD: i32 = 38;
const LEFT: i32 = 62;
const BELOW: i32 = 48;
const ABOVE: i32 = 30;
const SCALE: i32 = 46;

fn draw(title: &Title, maps: &[Map], layout: Layout) -> Result<String, Failure> {
    let columns = layout.columns.min(maps.len()).max(1);
    let rows = maps.len().div_ceil(columns);
    let most = maps.iter().map(|map| map.rtts.len()).max().unwrap_or(1).max(1) as i32;
    let panel = ABOVE + most * FIELD + BELOW;
    let head = Head::new(title, &[], layout);
    let height = head.height() + SCALE + rows as i32 * panel;
    sheet((layout.width, height), &title.text(), |area| {
        head.draw(area)?;
        scale(area, head.height())?;
        let wide = layout.width / columns as i32;
        for (order, map) in maps.iter().enumerate() {
            let (row, column) = ((order / columns) as i32, (order % columns) as i32);
            draw_map(area, map, (column * wide, head.height() + SCALE + row * panel), wide)?;
        }
        Ok(())
    })
}

/// Returns the colour of a factor: from dark, which is bad, to bright; one above 1 is as bright as 1.
fn colour(factor: f64) -> RGBColor {
    ViridisRGB.get_color(factor.clamp(0.0, 1.0) as f32)
}

fn scale(area: &Area<'_>, top: i32) -> Result<(), Failure> {
    const PARTS: i32 = 50;
    let (left, wide) = (LEFT, 4);
    // Each part reaches to the end, so that no ground shows between two.
    for part in 0..PARTS {
        let corners = [(px(left + part * wide), px(top + 4)), (px(left + PARTS * wide), px(top + 18))];
        let shade = colour((f64::from(part) + 0.5) / f64::from(PARTS)).filled();
        area.draw(&Rectangle::new(corners, shade)).map_err(wrong)?;
    }
    for (at, said) in [(0, "0"), (25, "0.5"), (50, "1 or more")] {
        let place = (px(left + at * wide), px(top + 28));
        area.draw_text(said, &centred(text(11.0, INK)), place).map_err(wrong)?;
    }
    Ok(())
}

fn draw_map(area: &Area<'_>, map: &Map, (left, top): (i32, i32), wide: i32) -> Result<(), Failure> {
    let room = wide - LEFT - 14;
    let field = (room / map.losses.len().max(1) as i32).min(76);
    let top = top + ABOVE;
    let left = left + LEFT;
    area.draw_text(&map.title, &above(fitting(&map.title, px(room))), (px(left), px(top - 6)))
        .map_err(wrong)?;
    for (row, rtt) in map.rtts.iter().rev().enumerate() {
        let y = top + row as i32 * FIELD;
        for (column, loss) in map.losses.iter().enumerate() {
            let factor = map.factors.iter().find(|factor| (factor.0, factor.1) == (*loss, *rtt));
            draw_field(area, factor.map(|factor| factor.2.median), (left + column as i32 * field, y), field)?;
        }
        let place = (px(left - 18), px(y + FIELD / 2));
        area.draw_text(&rtt.to_string(), &centred(text(11.0, INK)), place).map_err(wrong)?;
    }
    let below = top + map.rtts.len() as i32 * FIELD;
    for (column, loss) in map.losses.iter().enumerate() {
        let place = (px(left + column as i32 * field + field / 2), px(below + 10));
        area.draw_text(&loss.to_string(), &centred(text(11.0, INK)), place).map_err(wrong)?;
    }
    let middle = left + map.losses.len() as i32 * field / 2;
    area.draw_text("Loss, %", &centred(text(12.0, INK)), (px(middle), px(below + 28))).map_err(wrong)?;
    let upright = centred(text(12.0, INK)).transform(FontTransform::Rotate270);
    area.draw_text("RTT, ms", &upright, (px(left - 46), px(top + (below - top) / 2))).map_err(wrong)
}

fn draw_field(area: &Area<'_>, factor: Option<f64>, (x, y): (i32, i32), field: i32) -> Result<(), Failure> {
    let corners = [(px(x) + 4, px(y) + 4), (px(x + field) - 4, px(y + FIELD) - 4)];
    let (shade, ink, said) = match factor {
        Some(factor) => {
            let ink = if factor < 0.55 { WHITE } else { INK };
            (colour(factor), ink, number(factor))
        }
        None => (RGBColor(0xf0, 0xf2, 0xf4), PALE_INK, "–".to_owned()),
    };
    area.draw(&Rectangle::new(corners, shade.filled())).map_err(wrong)?;
    let place = (px(x + field / 2), px(y + FIELD / 2));
    area.draw_text(&said, &centred(text(11.5, ink)), place).map_err(wrong)
}
