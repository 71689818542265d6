//! Distribution of the delay of calls, alone and beside bulk.

use super::super::conclusion::target;
use super::super::coordinate::{Coordinate, common, name, over_tcp, varying};
use super::super::place::{Place, series};
use super::super::stat::{Spread, counted, number};
use super::axis::Axis;
use super::grid::{Curve, Grid, Key, Panel, draw};
use super::style::{Style, by_order, of_call};
use super::{Figure, Title, figure, largest};
use crate::error::Failure;
use crate::lab::results::{Point, Run};

/// Paths that are shown.
const MOST: usize = 6;

/// Kinds of calls that are told apart on one path.
const KIND: [Coordinate; 2] = [Coordinate::Workload, Coordinate::FlowQueue];

/// What tells the paths of a figure apart.
const PATH: [Coordinate; 2] = [Coordinate::Rtt, Coordinate::Loss];

/// Draws the distributions of the transports over TCP that have calls beside bulk, those with most of them first.
pub fn distributions(places: &[Place<'_>]) -> Result<Vec<Figure>, Failure> {
    let calls: Vec<Place<'_>> = places
        .iter()
        .filter(|place| over_tcp(&place.point.transport) && place.good().any(|run| run.voice.is_some()))
        .cloned()
        .collect();
    let except = [KIND, PATH].concat();
    let several = |places: &Vec<Place<'_>>| kinds(places).len() > 1;
    let heard = |place: &Place<'_>| place.good().any(|run| cdf(run).is_some());
    let slices: Vec<Vec<Place<'_>>> =
        series(&calls, &except).into_iter().filter(|slice| slice.iter().any(heard)).collect();
    let told_apart: Vec<Vec<Place<'_>>> = slices.iter().filter(|slice| several(slice)).cloned().collect();
    let (slices, more) = largest(if told_apart.is_empty() { slices } else { told_apart }, 2);
    let mut figures = Vec::new();
    for (order, slice) in slices.iter().enumerate() {
        let mut made = one(slice, order, &except)?;
        if more > 0 && order + 1 == slices.len() {
            made.explanation.push(format!("{} more: see the table.", counted(more, "slice")));
        }
        figures.push(made);
    }
    Ok(figures)
}

fn cdf(run: &Run) -> Option<&[(f64, f64)]> {
    run.voice.as_ref().map(|voice| voice.cdf.as_slice()).filter(|cdf| !cdf.is_empty())
}

/// Returns the kinds of calls of some places, each with one of its points.
fn kinds<'a>(places: &[Place<'a>]) -> Vec<&'a Point> {
    let mut kinds: Vec<&Point> = Vec::new();
    for place in places {
        if !kinds.iter().any(|kind| same_kind(kind, place.point)) {
            kinds.push(place.point);
        }
    }
    kinds
}

fn same_kind(one: &Point, two: &Point) -> bool {
    KIND.iter().all(|coordinate| coordinate.value(one) == coordinate.value(two))
}

/// Returns the paths of a slice with the places on each, those with most kinds of calls first.
fn paths<'a>(slice: &[Place<'a>]) -> Vec<Vec<Place<'a>>> {
    let pair = |place: &Place<'_>| (place.point.rtt_ms, place.point.loss_pct);
    let mut paths: Vec<Vec<Place<'_>>> = Vec::new();
    for place in slice {
        match paths.iter_mut().find(|path| pair(&path[0]) == pair(place)) {
            Some(path) => path.push(place.clone()),
            None => paths.push(vec![place.clone()]),
        }
    }
    // A path with a target says more than one without.
    paths.sort_by_key(|path| (std::cmp::Reverse(kinds(path).len()), target(path[0].point).is_none()));
    paths.truncate(MOST);
    paths.sort_by(|one, two| {
        let (one, two) = (pair(&one[0]), pair(&two[0]));
        one.1.total_cmp(&two.1).then(one.0.total_cmp(&two.0))
    });
    paths
}

fn one(slice: &[Place<'_>], order: usize, except: &[Coordinate]) -> Result<Figure, Failure> {
    let kinds = kinds(slice);
    let points: Vec<&Point> = slice.iter().map(|place| place.point).collect();
    let what = "One-way delay of calls, alone and beside bulk".to_owned();
    let title = Title { what, common: common(&points, except) };
    let paths = paths(slice);
    let delays =
        paths.iter().flatten().flat_map(|place| place.good().filter_map(cdf).flatten().map(|(ms, _)| *ms));
    let targets = paths.iter().filter_map(|path| beside(path[0].point));
    let x = Axis::log("One-way delay, ms (logarithmic)", delays.chain(targets));
    let mut explanation = vec![
        "Each line is one repetition: the share of all frames sent that came within the delay below. A line that \
         ends under 100 % lost the rest. The straight broken lines are the target beside bulk, on paths that have \
         one: a line of a call beside bulk should reach 99 % to the left of the upright one. The verdicts of the \
         table count the frames that came alone."
            .to_owned(),
    ];
    let panels: Vec<Panel> = paths
        .iter()
        .map(|path| {
            explanation.push(in_words(path, &kinds));
            panel(path, &kinds, &x)
        })
        .collect();
    let mut legend: Vec<(Key, String)> =
        kinds.iter().map(|kind| (Key::Curve(look(kind, &kinds), true, false), said(kind, &kinds))).collect();
    if panels.iter().any(|panel| !panel.upright.is_empty()) {
        legend.push((Key::Limit, "target of 99 % beside bulk".to_owned()));
    }
    let name = if order == 0 { "voice-delay".to_owned() } else { format!("voice-delay-{}", order + 1) };
    let columns = if panels.len() == 4 { 2 } else { 3 };
    let grid = Grid { title: title.clone(), legend, panels, columns };
    figure((name, "voice", title), explanation, |layout| draw(&grid, layout))
}

/// Returns the delay that 99 % of the frames of a call beside bulk should have at most.
fn beside(point: &Point) -> Option<f64> {
    target(point).map(|below_ms| point.rtt_ms / 2.0 + below_ms)
}

/// Returns the look of a kind of call: one that says what it is, unless several kinds would share it.
fn look(kind: &Point, kinds: &[&Point]) -> Style {
    let own = |point: &Point| of_call(point.workload.contains("bulk"), point.flow_queue);
    let shared = |point: &&Point| kinds.iter().filter(|other| own(other) == own(point)).count() > 1;
    match kinds.iter().any(shared) {
        true => by_order(kinds.iter().position(|other| same_kind(other, kind)).unwrap_or(0)),
        false => own(kind),
    }
}

/// Names a kind of call by what tells it from the others.
fn said(kind: &Point, kinds: &[&Point]) -> String {
    let by: Vec<Coordinate> =
        varying(kinds).into_iter().filter(|coordinate| KIND.contains(coordinate)).collect();
    // The queue makes no difference to a call that is alone, unless there are such calls with and without.
    let alike = kinds.iter().filter(|other| other.workload == kind.workload).count();
    let by: Vec<Coordinate> =
        by.into_iter().filter(|coordinate| *coordinate != Coordinate::FlowQueue || alike > 1).collect();
    let text = name(kind, &by);
    let text = if text.is_empty() { kind.workload.clone() } else { text };
    if kind.workload.contains('+') { text } else { format!("{text} alone") }
}

fn panel(path: &[Place<'_>], kinds: &[&Point], x: &Axis) -> Panel {
    let curves = path
        .iter()
        .flat_map(|place| {
            let style = look(place.point, kinds);
            place.good().filter_map(cdf).map(move |cdf| Curve {
                style,
                line: true,
                marks: false,
                points: steps(cdf),
            })
        })
        .collect();
    let point = path[0].point;
    Panel {
        title: name(point, &PATH),
        x: x.clone(),
        y: Axis::between("Frames that came, %", 0.0, 100.0),
        curves,
        upright: beside(point).into_iter().collect(),
        level: beside(point).map(|_| 99.0).into_iter().collect(),
        bands: Vec::new(),
        flat: false,
    }
}

fn steps(cdf: &[(f64, f64)]) -> Vec<(f64, Spread)> {
    let mut points: Vec<(f64, Spread)> =
        cdf.iter().filter_map(|(ms, share)| Some((*ms, Spread::of([share * 100.0])?))).collect();
    points.sort_by(|one, two| one.0.total_cmp(&two.0));
    points
}

/// Says for each kind of call within which time 99 of 100 frames came.
fn in_words(path: &[Place<'_>], kinds: &[&Point]) -> String {
    let said: Vec<String> = kinds
        .iter()
        .map(|kind| {
            let of: Vec<&Place<'_>> = path.iter().filter(|place| same_kind(kind, place.point)).collect();
            let runs = of.iter().flat_map(|place| place.good());
            // A repetition in which nothing came has no distribution, and counts all the same.
            let within: Vec<Option<f64>> = runs
                .filter_map(|run| run.voice.as_ref())
                .map(|voice| voice.cdf.iter().find(|(_, share)| *share >= 0.99).map(|(ms, _)| *ms))
                .collect();
            let kind = self::said(kind, kinds);
            match Spread::of(within.iter().copied().flatten()) {
                _ if within.is_empty() => format!("{kind}: not measured"),
                None if of.iter().all(|place| place.is_silent()) => format!("{kind}: no frame came"),
                None => format!("{kind}: less than 99 % of the frames came"),
                Some(ms) if ms.count < within.len() => {
                    format!("{kind}: {} ms, but less than 99 % in some repetitions", number(ms.median))
                }
                Some(ms) => format!("{kind}: {} ms", number(ms.median)),
            }
        })
        .collect();
    format!(
        "{}, time within which 99 % of the frames sent came: {}.",
        name(path[0].point, &PATH),
        said.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture::{call, point, study};
    use super::super::super::place::places;
    use super::*;
    use crate::lab::results::Cell;

    /// Returns calls with two frames each.
    fn heard(point: Point) -> Cell {
        let mut cell = call(point, &[(40.0, 0.0, 4.0); 2]);
        for voice in cell.runs.iter_mut().filter_map(|run| run.voice.as_mut()) {
            voice.cdf = vec![(30.0, 0.5), (40.0, 1.0)];
        }
        cell
    }

    #[test]
    fn what_a_figure_does_not_show_side_by_side_is_in_its_title() {
        let beside = point("tcp", "bulk+voice", 60.0, 1.0);
        let others = [
            Point { inner_cc: "bbr".to_owned(), ..beside.clone() },
            Point { loss_burst: Some(4.0), ..beside.clone() },
            Point { jitter_ms: 5.0, ..beside.clone() },
        ];
        let said = [["inner bbr", "inner cubic"], ["of 4", "independent"], ["jitter 5 ms", "losses, rate"]];
        for (other, said) in others.into_iter().zip(said) {
            let kinds = |point: Point| [point.clone(), Point { flow_queue: false, ..point }].map(heard);
            let results = study([kinds(beside.clone()), kinds(other)].concat());
            let mut titles: Vec<String> = distributions(&places(&results))
                .unwrap()
                .into_iter()
                .map(|figure| figure.title.common)
                .collect();
            titles.sort_by_key(|title| !title.contains(said[0]));
            assert_eq!(titles.len(), 2);
            assert!(titles.iter().zip(said).all(|(title, said)| title.contains(said)), "{titles:?}");
        }
    }

    #[test]
    fn a_call_of_which_no_frame_came_was_measured_all_the_same() {
        let mut silent = heard(point("tcp", "voice", 60.0, 1.0));
        for voice in silent.runs.iter_mut().filter_map(|run| run.voice.as_mut()) {
            (voice.cdf, voice.delay_ms.count) = (Vec::new(), 0);
        }
        assert!(distributions(&places(&study(vec![silent.clone()]))).unwrap().is_empty());
        let results = study(vec![silent, heard(point("tcp", "bulk+voice", 60.0, 1.0))]);
        let figures = distributions(&places(&results)).unwrap();
        assert!(
            figures[0].explanation[1].ends_with("voice alone: no frame came."),
            "{:?}",
            figures[0].explanation
        );
    }

    #[test]
    fn a_repetition_in_which_nothing_came_is_said() {
        let mut cell = heard(point("tcp", "voice", 60.0, 1.0));
        if let Some(voice) = &mut cell.runs[1].voice {
            voice.cdf.clear();
        }
        let results = study(vec![cell]);
        let places = places(&results);
        let words = in_words(&places, &kinds(&places));
        assert!(words.ends_with("voice alone: 40.0 ms, but less than 99 % in some repetitions."), "{words}");
    }
}
