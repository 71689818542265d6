//! Up to which loss a tunnel is good enough for a call.

use super::super::coordinate::{Coordinate, bracketed, name, varying};
use super::super::place::{Place, mos, series};
use super::super::stat::{NOTHING, counted, number};
use super::super::table::Table;
use super::{Conclusion, caption, label, several_ccs};
use crate::lab::results::Point;
use std::fmt::Write;

const SHOWN: &str = "The edge of what a call can use, by measured points alone; nothing is interpolated.";

/// A call of a lower score is unusable.
pub const MOS_LIMIT: f64 = 3.1;

/// A call that misses more is unusable, in per cent.
pub const MISSED_LIMIT_PCT: f64 = 5.0;

/// Tells whether a call can be used; none where there was none.
pub fn usable(place: &Place<'_>) -> Option<bool> {
    let missed = place.missed()?;
    Some(place.spread(mos)?.median >= MOS_LIMIT && missed.median <= MISSED_LIMIT_PCT)
}

/// One series by rising loss: the last point before it turns unusable, and the first that is.
struct Edge<'a> {
    place: Place<'a>,
    last: Option<Place<'a>>,
    first: Option<Place<'a>>,
    again: Option<f64>,
    steps: usize,
}

/// Answers at which loss each tunnel becomes unusable for a call.
pub fn conclude(places: &[Place<'_>]) -> Conclusion {
    let calls: Vec<Place<'_>> = places.iter().filter(|place| usable(place).is_some()).cloned().collect();
    let edges: Vec<Edge<'_>> = series(&calls, &[Coordinate::Loss]).into_iter().filter_map(edge).collect();
    let points: Vec<&Point> = calls.iter().map(|place| place.point).collect();
    let by: Vec<Coordinate> =
        varying(&points).into_iter().filter(|coordinate| *coordinate != Coordinate::Loss).collect();
    let titles: Vec<&str> = by
        .iter()
        .map(|coordinate| coordinate.title())
        .chain(["Last usable", "First unusable", "Losses measured"])
        .collect();
    let mut table = Table::new(caption(SHOWN, &points, &[Coordinate::Loss]), &titles);
    for edge in &edges {
        let last = edge.last.as_ref().map_or_else(|| "none".to_owned(), at);
        let first = edge.first.as_ref().map_or_else(|| "none measured".to_owned(), at);
        table.row_of(edge.place.point, &by, vec![last, first, edge.steps.to_string()]);
    }
    Conclusion {
        id: "limit",
        heading: "At which loss a call becomes unusable".to_owned(),
        sentences: sentences(&edges, &by),
        notes: notes(&edges, &by),
        table,
    }
}

fn edge(mut places: Vec<Place<'_>>) -> Option<Edge<'_>> {
    places.sort_by(|one, two| one.point.loss_pct.total_cmp(&two.point.loss_pct));
    let turn = places.iter().position(|place| usable(place) == Some(false));
    let (before, after) = places.split_at(turn.unwrap_or(places.len()));
    Some(Edge {
        // The one of most loss: to a point without loss the length of bursts makes no difference.
        place: places.last()?.clone(),
        last: before.last().cloned(),
        first: after.first().cloned(),
        again: after.iter().find(|place| usable(place) == Some(true)).map(|place| place.point.loss_pct),
        steps: places.len(),
    })
}

fn at(place: &Place<'_>) -> String {
    let median = |spread: Option<super::super::stat::Spread>| {
        spread.map_or_else(|| NOTHING.to_owned(), |spread| number(spread.median))
    };
    if place.is_silent() {
        return format!("{} % (no frame came)", place.point.loss_pct);
    }
    format!("{} % (MOS {}, missed {} %)", place.point.loss_pct, median(place.mos()), median(place.missed()))
}

fn sentences(edges: &[Edge<'_>], by: &[Coordinate]) -> Vec<String> {
    if edges.is_empty() {
        return vec![
            "Calls were not measured, so it is not known at which loss they become unusable.".to_owned(),
        ];
    }
    let places: Vec<Place<'_>> = edges.iter().map(|edge| edge.place.clone()).collect();
    let several = several_ccs(&places);
    let mut labels: Vec<String> = Vec::new();
    for place in &places {
        if !labels.contains(&label(place, several)) {
            labels.push(label(place, several));
        }
    }
    let by: Vec<Coordinate> = by
        .iter()
        .copied()
        .filter(|coordinate| !matches!(coordinate, Coordinate::Transport | Coordinate::OuterCc))
        .collect();
    labels
        .iter()
        .map(|wanted| {
            let of: Vec<&Edge<'_>> =
                edges.iter().filter(|edge| label(&edge.place, several) == *wanted).collect();
            of_transport(wanted, &of, &by)
        })
        .collect()
}

fn of_transport(label: &str, edges: &[&Edge<'_>], by: &[Coordinate]) -> String {
    let loss = |edge: &Edge<'_>| edge.first.as_ref().map_or(f64::INFINITY, |place| place.point.loss_pct);
    let never = edges.iter().filter(|edge| edge.first.is_none()).count();
    let mut text = format!(
        "Over {label}: usable at every loss measured in {never} of {}",
        counted(edges.len(), "series")
    );
    let worst = edges.iter().min_by(|one, two| loss(one).total_cmp(&loss(two)));
    if let Some((edge, first)) = worst.and_then(|edge| Some((edge, edge.first.as_ref()?))) {
        let place = bracketed(&name(edge.place.point, by));
        let last = edge.last.as_ref().map_or_else(
            || "at no lower loss usable".to_owned(),
            |last| format!("last usable at {} %", last.point.loss_pct),
        );
        let _ = write!(text, "; first unusable at {} % loss{place}, {last}", first.point.loss_pct);
    }
    text.push('.');
    text
}

fn notes(edges: &[Edge<'_>], by: &[Coordinate]) -> Vec<String> {
    let mut notes = vec![format!(
        "Rule: a call is usable when the median over the repetitions has a MOS of at least {MOS_LIMIT} and the \
         listener misses at most {MISSED_LIMIT_PCT} % of the frames. The last usable point is the one of the \
         highest loss below which no measured point is unusable."
    )];
    for edge in edges {
        if let Some(again) = edge.again {
            let place = bracketed(&name(edge.place.point, by));
            notes.push(format!("Not monotonic: a call{place} is usable again at {again} % loss."));
        }
    }
    let short = edges.iter().filter(|edge| edge.steps == 1).count();
    if short > 0 {
        notes.push(format!(
            "{} measured at a single loss only, which shows no edge.",
            counted(short, "series")
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture::{call, point, study};
    use super::super::super::place::places;
    use super::*;
    use crate::lab::results::Cell;

    fn cells(scores: &[(f64, f64, f64)]) -> Vec<Cell> {
        let cell = |(loss, missed, mos): &(f64, f64, f64)| {
            call(point("tcp", "voice", 60.0, *loss), &[(50.0, *missed, *mos)])
        };
        scores.iter().map(cell).collect()
    }

    fn conclude_on(scores: &[(f64, f64, f64)]) -> Conclusion {
        conclude(&places(&study(cells(scores))))
    }

    #[test]
    fn names_the_last_usable_and_the_first_unusable_point() {
        let by_score = conclude_on(&[(5.0, 1.0, 2.0), (0.0, 0.0, 4.0), (1.0, 0.5, 3.1), (2.0, 1.0, 3.09)]);
        assert_eq!(
            by_score.table.rows[0],
            ["1 % (MOS 3.10, missed 0.50 %)", "2 % (MOS 3.09, missed 1.00 %)", "4"]
        );
        let by_frames = conclude_on(&[(0.0, 5.0, 4.0), (1.0, 5.1, 4.0)]);
        assert!(by_frames.table.rows[0][1].starts_with("1 %"));
    }

    #[test]
    fn says_when_all_or_none_is_usable_or_it_is_not_monotonic() {
        assert_eq!(conclude_on(&[(0.0, 0.0, 4.0), (5.0, 0.0, 4.0)]).table.rows[0][1], "none measured");
        assert_eq!(conclude_on(&[(0.0, 0.0, 2.0), (1.0, 0.0, 2.0)]).table.rows[0][0], "none");
        let again = conclude_on(&[(0.0, 0.0, 4.0), (1.0, 0.0, 3.0), (2.0, 0.0, 4.0)]);
        assert!(again.notes.iter().any(|note| note.contains("a call is usable again at 2 % loss")));
        assert!(conclude(&[]).sentences[0].contains("not measured"));
    }

    #[test]
    fn a_call_of_which_no_frame_came_is_unusable_and_has_no_score() {
        let mut calls = cells(&[(0.0, 0.0, 4.0), (5.0, 100.0, 1.0)]);
        for voice in calls[1].runs.iter_mut().filter_map(|run| run.voice.as_mut()) {
            voice.delay_ms.count = 0;
        }
        let table = conclude(&places(&study(calls))).table;
        assert_eq!(table.rows, [["0 % (MOS 4.00, missed 0 %)", "5 % (no frame came)", "2"]]);
    }

    #[test]
    fn a_path_without_loss_begins_every_series_of_bursts() {
        let mut bursts = cells(&[(0.0, 0.0, 4.0), (1.0, 0.0, 4.0)]);
        let mut burst = cells(&[(1.0, 9.0, 2.0)]).remove(0);
        burst.point.loss_burst = Some(4.0);
        bursts.push(burst);
        let table = conclude(&places(&study(bursts))).table;
        assert_eq!(table.columns[0], "Loss burst, packets");
        assert_eq!(table.rows[0], ["4", "0 % (MOS 4.00, missed 0 %)", "1 % (MOS 2.00, missed 9.00 %)", "2"]);
        assert_eq!(table.rows[1], ["independent", "1 % (MOS 4.00, missed 0 %)", "none measured", "2"]);
    }
}
