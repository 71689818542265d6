//! One run second by second: the one in which TCP inside TCP stood still the longest.

use super::super::coordinate::{Coordinate, name, over_tcp, varying};
use super::super::place::Place;
use super::super::stat::{Spread, counted, number};
use super::axis::Axis;
use super::grid::{Curve, Grid, Key, Panel, draw};
use super::style::{Style, by_order};
use super::{Figure, Title, figure};
use crate::error::Failure;
use crate::lab::results::{Point, Run, Tick};

/// Times without an octet that count as a stall.
const STALL_S: f64 = 0.2;

/// Draws the run with the longest stall; one with a call before one without.
pub fn timeline(places: &[Place<'_>]) -> Result<Vec<Figure>, Failure> {
    let Some((place, run)) = longest(places) else { return Ok(Vec::new()) };
    let points: Vec<&Point> = places.iter().map(|place| place.point).collect();
    let what = "The run with the longest stall".to_owned();
    let title = Title { what, common: name(place.point, &varying(&points)) };
    let stalls = stalls(&run.timeline);
    let [outer, inner, call] = [0, 1, 2].map(by_order);
    let again = Panel { flat: true, ..again(run, &stalls, outer, inner) };
    let mut panels = vec![octets(run, &stalls, outer, inner), again];
    let mut legend = vec![
        (Key::Curve(outer, true, true), "outer connection".to_owned()),
        (Key::Curve(inner, true, true), "inner connections".to_owned()),
    ];
    if let Some(panel) = delay(run, &stalls, call) {
        panels.push(panel);
        legend.push((Key::Curve(call, true, false), "call".to_owned()));
    }
    if !stalls.is_empty() {
        legend.push((Key::Band, "nothing reached the inner receivers for 200 ms or more".to_owned()));
    }
    let explanation = in_words(place, run, &stalls);
    let grid = Grid { title: title.clone(), legend, panels, columns: 1 };
    let made =
        figure(("stall-timeline".to_owned(), "voice", title), explanation, |layout| draw(&grid, layout))?;
    Ok(vec![made])
}

fn longest<'a, 'b>(places: &'b [Place<'a>]) -> Option<(&'b Place<'a>, &'a Run)> {
    let stall = |run: &Run| run.bulk.as_ref().map_or(0.0, |bulk| bulk.longest_stall_ms);
    let count = |run: &Run| run.bulk.as_ref().map_or(0, |bulk| bulk.stalls);
    let call = |run: &Run| stall(run) > 0.0 && run.timeline.iter().any(|tick| tick.voice_delay_ms.is_some());
    places
        .iter()
        .filter(|place| over_tcp(&place.point.transport))
        .flat_map(|place| place.good().map(move |run| (place, run)))
        .filter(|(_, run)| run.timeline.iter().filter(|tick| tick.inner_received.is_some()).count() > 1)
        .max_by(|(_, one), (_, two)| {
            call(one)
                .cmp(&call(two))
                .then(stall(one).total_cmp(&stall(two)))
                .then(count(one).cmp(&count(two)))
        })
}

/// Returns the times in which the inner receivers got nothing.
fn stalls(timeline: &[Tick]) -> Vec<(f64, f64)> {
    let mut stalls: Vec<(f64, f64)> = Vec::new();
    let mut still: Option<(f64, f64)> = None;
    let known = timeline.iter().filter_map(|tick| Some((tick.at_s, tick.inner_received?)));
    let pairs = known.clone().zip(known.skip(1));
    for ((from, before), (to, after)) in pairs {
        if after > before {
            stalls.extend(still.take());
            continue;
        }
        still = Some((still.map_or(from, |(start, _)| start), to));
    }
    stalls.extend(still);
    stalls.retain(|(from, to)| to - from > STALL_S - 1e-6);
    stalls
}

fn seconds(run: &Run) -> Axis {
    let last = run.timeline.iter().map(|tick| tick.at_s).fold(0.0, f64::max);
    Axis::linear("Time since the measurement began, s", last)
}

fn curve(style: Style, marks: bool, points: impl Iterator<Item = (f64, f64)>) -> Curve {
    let points = points.filter_map(|(at, value)| Some((at, Spread::of([value])?))).collect();
    Curve { style, line: !marks, marks, points }
}

fn panel(title: &str, run: &Run, stalls: &[(f64, f64)], y: Axis, curves: Vec<Curve>) -> Panel {
    Panel {
        title: title.to_owned(),
        x: seconds(run),
        y,
        curves,
        upright: Vec::new(),
        level: Vec::new(),
        bands: stalls.to_vec(),
        flat: false,
    }
}

fn octets(run: &Run, stalls: &[(f64, f64)], outer: Style, inner: Style) -> Panel {
    let million = |octets: u64| octets as f64 / 1e6;
    let acked = run.timeline.iter().filter_map(|tick| Some((tick.at_s, million(tick.outer_acked?))));
    let received = run.timeline.iter().filter_map(|tick| Some((tick.at_s, million(tick.inner_received?))));
    let most = acked.clone().chain(received.clone()).map(|(_, value)| value).fold(0.0, f64::max);
    let curves = vec![curve(outer, false, acked), curve(inner, false, received)];
    let y = Axis::linear("Octets so far, millions", most);
    panel("Octets outside and inside", run, stalls, y, curves)
}

/// Returns a row of marks for each layer, one wherever segments were sent again.
fn again(run: &Run, stalls: &[(f64, f64)], outer: Style, inner: Style) -> Panel {
    let marks = |of: fn(&Tick) -> Option<u64>, row: f64| {
        let known: Vec<(f64, u64)> =
            run.timeline.iter().filter_map(|tick| Some((tick.at_s, of(tick)?))).collect();
        let grown: Vec<(f64, f64)> =
            known.windows(2).filter(|pair| pair[1].1 > pair[0].1).map(|pair| (pair[1].0, row)).collect();
        grown.into_iter()
    };
    let rows = [(0.0, "inner".to_owned()), (1.0, "outer".to_owned())];
    let curves = vec![
        curve(outer, true, marks(|tick| tick.outer_retransmits, 1.0)),
        curve(inner, true, marks(|tick| tick.inner_retransmits, 0.0)),
    ];
    panel("Segments sent again", run, stalls, Axis::steps("Layer", &rows), curves)
}

fn delay(run: &Run, stalls: &[(f64, f64)], style: Style) -> Option<Panel> {
    let delays: Vec<(f64, f64)> =
        run.timeline.iter().filter_map(|tick| Some((tick.at_s, tick.voice_delay_ms?))).collect();
    let y = Axis::log("One-way delay, ms (log.)", delays.iter().map(|(_, ms)| *ms));
    let curves = vec![curve(style, false, delays.iter().copied())];
    (!delays.is_empty()).then(|| panel("Worst delay of the call", run, stalls, y, curves))
}

fn in_words(place: &Place<'_>, run: &Run, stalls: &[(f64, f64)]) -> Vec<String> {
    let grown = |of: fn(&Tick) -> Option<u64>| {
        let known: Vec<u64> = run.timeline.iter().filter_map(of).collect();
        Some(known.last()?.saturating_sub(*known.first()?) as usize)
    };
    let said = |count: Option<usize>| {
        count.map_or_else(|| "an unknown number of times".to_owned(), |count| counted(count, "time"))
    };
    let still: f64 = stalls.iter().map(|(from, to)| to - from).sum();
    let bulk = run.bulk.as_ref();
    let mut words = vec![
        format!(
            "Repetition {} of {} over {}. The receiver of bulk counted {} of 200 ms or more without an octet, \
             the longest of {} ms.",
            run.repetition,
            name(place.point, &[Coordinate::Workload]),
            place.point.transport,
            bulk.map_or_else(|| "no times".to_owned(), |bulk| counted(bulk.stalls as usize, "time")),
            bulk.map_or_else(|| "0".to_owned(), |bulk| number(bulk.longest_stall_ms)),
        ),
        format!(
            "The grey ground marks {} by the timeline, {} s of {} s together. A timeline has a tick each 100 ms \
             and shows only stalls that hold whole ticks.",
            counted(stalls.len(), "stall"),
            number(still),
            number(run.seconds)
        ),
        format!(
            "The outer sender sent segments again {}, the inner ones {}; a mark stands at each tick with such a \
             segment.",
            said(grown(|tick| tick.outer_retransmits)),
            said(grown(|tick| tick.inner_retransmits))
        ),
    ];
    match Spread::of(run.timeline.iter().filter_map(|tick| tick.voice_delay_ms)) {
        Some(delay) => words.push(format!(
            "The worst delay of a frame in each tick has a median of {} ms and reaches {} ms.",
            number(delay.median),
            number(delay.max)
        )),
        None => words.push("There was no call in this run.".to_owned()),
    }
    words
}
