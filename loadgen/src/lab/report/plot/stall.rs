//! One run second by second: the one in which bulk inside TCP stood still the longest.

use super::super::coordinate::{Coordinate, name, over_tcp, varying};
use super::super::place::Place;
use super::super::stat::{Spread, counted, listed, number};
use super::axis::Axis;
use super::grid::{Curve, Grid, Key, Panel, draw};
use super::style::{Style, by_order};
use super::{Figure, Title, figure};
use crate::error::Failure;
use crate::lab::results::{Point, Run, Tick};

/// Times without an octet that count as a stall.
const STALL_S: f64 = 0.2;

/// Draws the run over TCP with the longest stall.
pub fn timeline(places: &[Place<'_>]) -> Result<Vec<Figure>, Failure> {
    let Some((place, run)) = longest(places) else { return Ok(Vec::new()) };
    let points: Vec<&Point> = places.iter().map(|place| place.point).collect();
    let what = "The run over TCP with the longest stall".to_owned();
    let title = Title { what, common: name(place.point, &varying(&points)) };
    let stalls = stalls(run);
    let [outer, inner, call] = [0, 1, 2].map(by_order);
    let again = Panel { flat: true, ..again(run, &stalls, outer, inner) };
    let mut panels = vec![octets(run, &stalls, outer, inner), again];
    let mut section = "cost";
    let mut legend = vec![
        (Key::Curve(outer, true, true), "outer connection".to_owned()),
        (Key::Curve(inner, true, true), "inner connections".to_owned()),
    ];
    if let Some(panel) = delay(run, &stalls, call) {
        panels.push(panel);
        section = "voice";
        legend.push((Key::Curve(call, true, false), "call".to_owned()));
    }
    if !stalls.is_empty() {
        legend.push((Key::Band, "nothing reached the inner receivers for 200 ms or more".to_owned()));
    }
    let explanation = in_words(place, run, &stalls);
    let grid = Grid { title: title.clone(), legend, panels, columns: 1 };
    let made =
        figure(("stall-timeline".to_owned(), section, title), explanation, |layout| draw(&grid, layout))?;
    Ok(vec![made])
}

fn longest<'a, 'b>(places: &'b [Place<'a>]) -> Option<(&'b Place<'a>, &'a Run)> {
    let stall = |run: &Run| run.bulk.as_ref().map_or(0.0, |bulk| bulk.longest_stall_ms);
    let count = |run: &Run| run.bulk.as_ref().map_or(0, |bulk| bulk.stalls);
    places
        .iter()
        .filter(|place| over_tcp(&place.point.transport))
        .flat_map(|place| place.good().map(move |run| (place, run)))
        .filter(|(_, run)| run.timeline.iter().filter(|tick| tick.inner_received.is_some()).count() > 1)
        .max_by(|(_, one), (_, two)| stall(one).total_cmp(&stall(two)).then(count(one).cmp(&count(two))))
}

/// Returns a total at each tick that has it, from the beginning of the measurement on.
fn totals(run: &Run, of: fn(&Tick) -> Option<u64>) -> Vec<(f64, u64)> {
    let known = run.timeline.iter().filter_map(|tick| Some((tick.at_s, of(tick)?)));
    let mut totals = vec![(0.0, 0)];
    totals.extend(known);
    if totals.len() > 1 { totals } else { Vec::new() }
}

/// Returns the times in which a total did not grow.
fn still(totals: &[(f64, u64)]) -> Vec<(f64, f64)> {
    let mut all: Vec<(f64, f64)> = Vec::new();
    let mut still: Option<(f64, f64)> = None;
    for pair in totals.windows(2) {
        let ((from, before), (to, after)) = (pair[0], pair[1]);
        if after > before {
            all.extend(still.take());
            continue;
        }
        still = Some((still.map_or(from, |(start, _)| start), to));
    }
    all.extend(still);
    all
}

/// Returns the longest of some times; 0 when there is none.
fn longest_of(times: &[(f64, f64)]) -> f64 {
    times.iter().map(|(from, to)| to - from).fold(0.0, f64::max)
}

/// Returns the times in which the inner receivers got nothing.
fn stalls(run: &Run) -> Vec<(f64, f64)> {
    let mut stalls = still(&totals(run, |tick| tick.inner_received));
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
    let millions = |of: fn(&Tick) -> Option<u64>| {
        totals(run, of).into_iter().map(|(at, octets)| (at, octets as f64 / 1e6))
    };
    let (acked, received) = (millions(|tick| tick.outer_acked), millions(|tick| tick.inner_received));
    let most = acked.clone().chain(received.clone()).map(|(_, value)| value).fold(0.0, f64::max);
    let curves = vec![curve(outer, false, acked), curve(inner, false, received)];
    let y = Axis::linear("Octets so far, millions", most);
    panel("Octets outside and inside", run, stalls, y, curves)
}

/// Returns a row of marks for each layer, one wherever segments were sent again.
fn again(run: &Run, stalls: &[(f64, f64)], outer: Style, inner: Style) -> Panel {
    let marks = |of: fn(&Tick) -> Option<u64>, row: f64| {
        let totals = totals(run, of);
        let grown: Vec<(f64, f64)> =
            totals.windows(2).filter(|pair| pair[1].1 > pair[0].1).map(|pair| (pair[1].0, row)).collect();
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
    let times = |of: fn(&Tick) -> Option<u64>| {
        let last = totals(run, of).last().map(|(_, total)| *total as usize);
        last.map_or_else(|| "an unknown number of times".to_owned(), |count| counted(count, "time"))
    };
    let together: f64 = stalls.iter().map(|(from, to)| to - from).sum();
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
            number(together),
            number(run.seconds)
        ),
        outside(run),
        format!(
            "The outer sender sent segments again {}, the inner ones {}; a mark stands at each tick with such a \
             segment.",
            times(|tick| tick.outer_retransmits),
            times(|tick| tick.inner_retransmits)
        ),
    ];
    words.extend(drops(run));
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

/// Says how long the outer connection stood still, beside the inner ones: a stall inside is not one outside.
fn outside(run: &Run) -> String {
    let inner = longest_of(&still(&totals(run, |tick| tick.inner_received)));
    let outer = totals(run, |tick| tick.outer_acked);
    let outside = match longest_of(&still(&outer)) {
        _ if outer.is_empty() => "what the outer connection acknowledged is not known".to_owned(),
        0.0 => "the outer connection acknowledged something in every tick".to_owned(),
        longest => format!("the outer connection acknowledged nothing for at most {} s", number(longest)),
    };
    format!("By the timeline nothing reached the inner receivers for at most {} s; {outside}.", number(inner))
}

/// Says what the gateway dropped, most first; none when it dropped nothing or did not say.
fn drops(run: &Run) -> Option<String> {
    let mut drops: Vec<(&String, &u64)> = run.drops.iter().collect();
    drops.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let reasons: Vec<String> = drops.iter().map(|(reason, count)| format!("{count} by {reason}")).collect();
    (!reasons.is_empty())
        .then(|| format!("Packets that the gateway itself dropped, warm-up included: {}.", listed(&reasons)))
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture::{cell, point, study};
    use super::super::super::place::places;
    use super::*;
    use crate::lab::results::Bulk;

    /// Returns a run by its totals at each tick: acknowledged outside, received inside, sent again inside.
    fn run(totals: &[(u64, u64, u64)]) -> Run {
        let tick = |(step, (acked, received, again)): (usize, &(u64, u64, u64))| Tick {
            at_s: (step + 1) as f64 / 10.0,
            outer_acked: Some(*acked),
            inner_received: Some(*received),
            inner_retransmits: Some(*again),
            ..Tick::default()
        };
        Run { timeline: totals.iter().enumerate().map(tick).collect(), ..Run::default() }
    }

    #[test]
    fn the_first_tick_counts() {
        let run = run(&[(0, 0, 2), (10, 0, 2), (20, 5, 3)]);
        assert_eq!(stalls(&run), [(0.0, 0.2)]);
        let marks = again(&run, &[], by_order(0), by_order(1)).curves[1].points.clone();
        assert_eq!(marks.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0.1, 0.3]);
        let results = study(vec![cell(point("tcp", "bulk", 60.0, 1.0), vec![run.clone()])]);
        let words = in_words(&places(&results)[0], &run, &stalls(&run));
        assert!(words[3].contains("the inner ones 3 times"), "{words:?}");
        assert!(words[3].contains("sent segments again an unknown number of times"), "{words:?}");
    }

    #[test]
    fn a_stall_inside_is_told_from_one_outside() {
        let mut run = run(&[(10, 5, 0), (20, 5, 0), (20, 5, 0), (30, 5, 0), (40, 9, 0)]);
        assert_eq!(
            outside(&run),
            "By the timeline nothing reached the inner receivers for at most 0.30 s; the outer connection \
             acknowledged nothing for at most 0.10 s."
        );
        run.timeline[2].outer_acked = Some(25);
        assert!(outside(&run).ends_with("the outer connection acknowledged something in every tick."));
        run.timeline.iter_mut().for_each(|tick| tick.outer_acked = None);
        assert!(outside(&run).ends_with("what the outer connection acknowledged is not known."));
        assert_eq!(drops(&run), None);
        run.drops = [("codel".to_owned(), 2), ("send_queue_full".to_owned(), 348)].into();
        assert!(drops(&run).unwrap().ends_with(": 348 by send_queue_full and 2 by codel."));
    }

    #[test]
    fn the_longest_stall_is_drawn_with_or_without_a_call() {
        let stalled = |ms: f64, delay: Option<f64>| {
            let mut run = run(&[(1, 1, 0), (2, 2, 0)]);
            run.bulk = Some(Bulk { longest_stall_ms: ms, ..Bulk::default() });
            run.timeline.iter_mut().for_each(|tick| tick.voice_delay_ms = delay);
            run
        };
        let results = study(vec![
            cell(point("tcp", "bulk", 60.0, 1.0), vec![stalled(900.0, None)]),
            cell(point("tcp", "bulk+voice", 60.0, 1.0), vec![stalled(800.0, Some(40.0))]),
        ]);
        assert_eq!(longest(&places(&results)).unwrap().0.point.workload, "bulk");
    }
}
