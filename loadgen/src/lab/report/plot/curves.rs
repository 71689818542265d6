//! Goodput and score by loss and by RTT, a curve for each transport.

use super::super::conclusion::{MOS_LIMIT, label, several_ccs};
use super::super::coordinate::{Coordinate, Value, common, values, varying};
use super::super::place::{Place, mos, series};
use super::super::stat::{Spread, counted, number};
use super::axis::Axis;
use super::grid::{Curve, Grid, Key, Panel, draw};
use super::style::{Style, of_transport};
use super::{Figure, Title, figure, largest};
use crate::error::Failure;
use crate::lab::results::Point;

/// Figures of the same kind in a report; the tables have all.
const MOST: usize = 3;

/// What a family of figures shows.
struct Family {
    name: &'static str,
    section: &'static str,
    what: &'static str,
    unit: &'static str,
    x: Coordinate,
    panels: Coordinate,
    figure: fn(&Place<'_>) -> Option<Spread>,
    axis: fn(&[Spread]) -> Axis,
    limit: Option<(f64, &'static str)>,
}

/// Draws goodput by loss, a panel for each RTT.
pub fn goodput_by_loss(places: &[Place<'_>]) -> Result<Vec<Figure>, Failure> {
    family(places, &goodput("goodput-loss", Coordinate::Loss, Coordinate::Rtt))
}

/// Draws goodput by RTT, a panel for each loss.
pub fn goodput_by_rtt(places: &[Place<'_>]) -> Result<Vec<Figure>, Failure> {
    family(places, &goodput("goodput-rtt", Coordinate::Rtt, Coordinate::Loss))
}

/// Draws the score of calls by loss, a panel for each RTT.
pub fn score_by_loss(places: &[Place<'_>]) -> Result<Vec<Figure>, Failure> {
    family(
        places,
        &Family {
            name: "mos-loss",
            section: "limit",
            what: "Quality of a call",
            unit: "MOS",
            x: Coordinate::Loss,
            panels: Coordinate::Rtt,
            // A call of which no frame came as well: what is left out would look as if it were not measured.
            figure: |place| place.spread(mos),
            axis: |_| Axis::between("Mean opinion score (1–5)", 1.0, 5.0),
            limit: Some((MOS_LIMIT, "usable from a MOS of 3.1 on")),
        },
    )
}

fn goodput(name: &'static str, x: Coordinate, panels: Coordinate) -> Family {
    Family {
        name,
        section: "cost",
        what: "Goodput",
        unit: "Mbit/s",
        x,
        panels,
        figure: |place| place.goodput(),
        axis: goodput_axis,
        limit: None,
    }
}

/// Returns a logarithmic axis where goodput differs much, so that small ones can be told apart.
fn goodput_axis(spreads: &[Spread]) -> Axis {
    let most = spreads.iter().map(|spread| spread.max).fold(0.0, f64::max);
    let least = spreads.iter().map(|spread| spread.min).fold(f64::INFINITY, f64::min);
    match least < most / 12.0 {
        true => Axis::log("Goodput, Mbit/s (logarithmic)", [least.max(most / 3_000.0), most]),
        false => Axis::linear("Goodput, Mbit/s", most),
    }
}

fn family(places: &[Place<'_>], family: &Family) -> Result<Vec<Figure>, Failure> {
    let has: Vec<Place<'_>> =
        places.iter().filter(|place| (family.figure)(place).is_some()).cloned().collect();
    let except = [family.x, family.panels, Coordinate::Transport, Coordinate::OuterCc];
    let wide = |places: &Vec<Place<'_>>| values(points(places), family.x).len() > 1;
    let (slices, _) = largest(series(&has, &except).into_iter().filter(wide).collect(), usize::MAX);
    let thinned = (0..slices.len()).map(|order| thin(order, &slices, family));
    let (slices, more) = largest(thinned.filter(|slice| !slice.is_empty()).collect(), MOST);
    let told_apart: Vec<Coordinate> =
        varying(&slices.iter().flat_map(|slice| points(slice)).collect::<Vec<_>>())
            .into_iter()
            .filter(|coordinate| !except.contains(coordinate))
            .collect();
    let mut figures = Vec::new();
    for (order, slice) in slices.iter().enumerate() {
        let mut made = one(slice, family, (order, &told_apart))?;
        if more > 0 && order + 1 == slices.len() {
            made.explanation.push(format!("{} more of this kind: see the table.", counted(more, "slice")));
        }
        figures.push(made);
    }
    Ok(figures)
}

/// Takes from a slice the curves that a larger slice has as well; empty when none is left with a course to show.
fn thin<'a>(order: usize, slices: &[Vec<Place<'a>>], family: &Family) -> Vec<Place<'a>> {
    let same = |one: &Place<'_>, two: &Place<'_>| {
        let by = [family.panels, Coordinate::Transport, Coordinate::OuterCc];
        by.iter().all(|coordinate| coordinate.value(one.point) == coordinate.value(two.point))
    };
    let own = |place: &Place<'_>| !slices[..order].iter().flatten().any(|other| other.point == place.point);
    let slice = &slices[order];
    let curve = |place: &Place<'a>| slice.iter().filter(|other| same(place, other)).collect::<Vec<_>>();
    let kept: Vec<Place<'a>> =
        slice.iter().filter(|place| curve(place).into_iter().any(own)).cloned().collect();
    if kept.iter().any(|place| curve(place).len() > 1) { kept } else { Vec::new() }
}

fn points<'a>(places: &'a [Place<'_>]) -> impl Iterator<Item = &'a Point> {
    places.iter().map(|place| place.point)
}

/// A curve with its name: the places of one transport.
struct Named<'a> {
    label: String,
    style: Style,
    places: Vec<&'a Place<'a>>,
}

fn named<'a>(slice: &'a [Place<'a>]) -> Vec<Named<'a>> {
    let several = several_ccs(slice);
    // The usual one has unbroken lines.
    let mut ccs = values(points(slice), Coordinate::OuterCc);
    let places =
        |cc: &Value<'_>| points(slice).filter(|point| Coordinate::OuterCc.value(point) == *cc).count();
    ccs.sort_by_key(|cc| std::cmp::Reverse(places(cc)));
    let transports = values(points(slice), Coordinate::Transport);
    let mut named: Vec<Named<'a>> = Vec::new();
    for place in slice {
        let label = label(place, several);
        match named.iter_mut().find(|curve| curve.label == label) {
            Some(curve) => curve.places.push(place),
            None => {
                let index = |of: &[Value<'_>], value: Value<'_>| of.iter().position(|other| *other == value);
                let order = index(&transports, Coordinate::Transport.value(place.point));
                let variant = index(&ccs, Coordinate::OuterCc.value(place.point))
                    .filter(|_| Coordinate::OuterCc.matters(place.point));
                let style = of_transport(&place.point.transport, order.unwrap_or(0), variant.unwrap_or(0));
                named.push(Named { label, style, places: vec![place] });
            }
        }
    }
    named.sort_by_key(|curve| match curve.places[0].point.transport.as_str() {
        "plain" => (0, curve.label.clone()),
        "udp" => (1, curve.label.clone()),
        _ => (2, curve.label.clone()),
    });
    named
}

/// Returns the title of a slice: what tells it from others first, then what else all of it has in common.
fn title(slice: &[Place<'_>], family: &Family, told_apart: &[Coordinate]) -> Title {
    let except =
        [&[family.x, family.panels, Coordinate::Transport, Coordinate::OuterCc], told_apart].concat();
    let all: Vec<&Point> = points(slice).collect();
    let others: Vec<Coordinate> =
        Coordinate::ALL.into_iter().filter(|coordinate| !told_apart.contains(coordinate)).collect();
    let own = common(&all, &others);
    let unit = family.x.title().split(',').next().unwrap_or_default();
    let by = if unit == "RTT" { unit.to_owned() } else { unit.to_lowercase() };
    let own = if own.is_empty() { own } else { format!(": {own}") };
    Title { what: format!("{} by {by}{own}", family.what), common: common(&all, &except) }
}

fn one(
    slice: &[Place<'_>],
    family: &Family,
    (order, told_apart): (usize, &[Coordinate]),
) -> Result<Figure, Failure> {
    let curves = named(slice);
    let title = title(slice, family, told_apart);
    let spreads: Vec<Spread> = slice.iter().filter_map(family.figure).collect();
    let x = steps(slice, family.x);
    let y = (family.axis)(&spreads);
    let mut panels = Vec::new();
    let mut explanation = vec![how_to_read(family)];
    for value in values(points(slice), family.panels) {
        let place = slice.iter().find(|place| family.panels.value(place.point) == value);
        let title = place.map(|place| family.panels.phrase(place.point)).unwrap_or_default();
        let (drawn, said) = panel(&curves, family, &value);
        explanation.push(format!("{}: {}.", capital(&title), said.join("; ")));
        panels.push(Panel {
            title: capital(&title),
            x: x.clone(),
            y: y.clone(),
            curves: drawn,
            upright: Vec::new(),
            level: family.limit.iter().map(|(limit, _)| *limit).collect(),
            bands: Vec::new(),
            flat: false,
        });
    }
    let mut legend: Vec<(Key, String)> =
        curves.iter().map(|curve| (Key::Curve(curve.style, true, true), said(&curve.label))).collect();
    legend.extend(family.limit.map(|(_, said)| (Key::Limit, said.to_owned())));
    let name = if order == 0 { family.name.to_owned() } else { format!("{}-{}", family.name, order + 1) };
    let columns = if panels.len() == 4 { 2 } else { 3 };
    let grid = Grid { title: title.clone(), legend, panels, columns };
    figure((name, family.section, title), explanation, |layout| draw(&grid, layout))
}

/// Returns what the legend calls a transport.
fn said(label: &str) -> String {
    if label == "plain" { "no tunnel".to_owned() } else { label.to_owned() }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn how_to_read(family: &Family) -> String {
    let (unit, silence) = match family.unit {
        "MOS" => ("quality", " A call of which no frame came stands at 1."),
        _ => ("goodput", ""),
    };
    format!(
        "Each mark is the median {unit} of the repetitions at one measured point, each whisker goes from the \
         least to the greatest. The steps of the axis below are those measured, all as far apart; lines between \
         marks guide the eye and are no measurements.{silence}"
    )
}

fn steps(slice: &[Place<'_>], coordinate: Coordinate) -> Axis {
    let title = match coordinate {
        Coordinate::Loss => "Loss in each direction, %",
        _ => "Round-trip time of the empty path, ms",
    };
    let values: Vec<(f64, String)> = values(points(slice), coordinate)
        .into_iter()
        .filter_map(|value| match value {
            Value::Number(number) => Some((number, value.show())),
            Value::Word(_) => None,
        })
        .collect();
    Axis::steps(title, &values)
}

/// Returns the curves of a panel, and what they do in words.
fn panel(curves: &[Named<'_>], family: &Family, value: &Value<'_>) -> (Vec<Curve>, Vec<String>) {
    let mut words = Vec::new();
    let drawn = curves
        .iter()
        .map(|curve| {
            let mut points: Vec<(f64, Spread)> = curve
                .places
                .iter()
                .filter(|place| family.panels.value(place.point) == *value)
                .filter_map(|place| match family.x.value(place.point) {
                    Value::Number(x) => Some((x, (family.figure)(place)?)),
                    Value::Word(_) => None,
                })
                .collect();
            points.sort_by(|one, two| one.0.total_cmp(&two.0));
            words.push(in_words(&said(&curve.label), &points, family));
            Curve { style: curve.style, line: true, marks: true, points }
        })
        .collect();
    (drawn, words)
}

fn in_words(label: &str, points: &[(f64, Spread)], family: &Family) -> String {
    let unit = if family.x == Coordinate::Loss { "% loss" } else { "ms" };
    match points {
        [] => format!("{label} not measured"),
        [(x, value)] => format!("{label} {} {} at {x} {unit}", number(value.median), family.unit),
        [(from, first), .., (to, last)] => format!(
            "{label} from {} {} at {from} {unit} to {} at {to} {unit}",
            number(first.median),
            family.unit,
            number(last.median)
        ),
    }
}
