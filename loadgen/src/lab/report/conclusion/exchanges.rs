//! Web pages, SIP registrations and mixed traffic.

use super::super::coordinate::{bracketed, name};
use super::super::place::Place;
use super::super::stat::{Spread, number, show};
use super::super::table::Table;
use super::{Conclusion, caption};
use crate::lab::results::{Exchanges, Point, Run, Summary};

const SHOWN: &str = "Other traffic inside the tunnel: median over the repetitions (least–greatest).";

/// What one kind of traffic had in a run: median and p99 of its time, and what was lost of it in per cent.
type Kind = fn(&Run) -> Option<(Summary, f64)>;

const KINDS: [(&str, Kind); 3] = [
    ("web: time of a request", |run| exchanges(run.web.as_ref()?)),
    ("SIP: time of a registration", |run| exchanges(run.sip.as_ref()?)),
    ("mixed sizes: one-way delay", |run| {
        let imix = run.imix.as_ref()?;
        Some((imix.delay_ms, imix.lost_pct))
    }),
];

fn exchanges(of: &Exchanges) -> Option<(Summary, f64)> {
    let all = of.done + of.failed;
    Some((of.time_ms, 100.0 * of.failed as f64 / all as f64))
}

/// Answers how long short exchanges take.
pub fn conclude(places: &[Place<'_>]) -> Conclusion {
    let rows: Vec<(&Place<'_>, &str, Kind)> = places
        .iter()
        .flat_map(|place| KINDS.iter().map(move |(name, kind)| (place, *name, *kind)))
        .filter(|(place, _, kind)| place.good().any(|run| kind(run).is_some()))
        .collect();
    let points: Vec<&Point> = rows.iter().map(|(place, ..)| place.point).collect();
    let columns = ["Figure", "p50, ms", "p99, ms", "Failed or lost, %"];
    let (mut table, coordinates) = Table::of_points(caption(SHOWN, &points, &[]), &points, &columns);
    let mut worst: Vec<(&str, Spread, String)> = Vec::new();
    for (place, figure, kind) in &rows {
        let time = |of: fn(&Summary) -> f64| {
            place.spread(|run| kind(run).filter(|(time, _)| time.count > 0).map(|(time, _)| of(&time)))
        };
        let p99 = time(|time| time.p99);
        let lost = place.spread(|run| kind(run).map(|(_, lost)| lost));
        let figures = [show(time(|time| time.p50)), show(p99), show(lost)];
        table.row_of(place.point, &coordinates, [vec![(*figure).to_owned()], figures.to_vec()].concat());
        if let Some(p99) = p99 {
            remember(&mut worst, figure, p99, || name(place.point, &coordinates));
        }
    }
    let sentences = match worst.is_empty() {
        true => vec!["Web, SIP and mixed traffic were not measured.".to_owned()],
        false => worst
            .iter()
            .map(|(figure, p99, place)| {
                format!("{figure}: greatest median of p99 {} ms{}.", number(p99.median), bracketed(place))
            })
            .collect(),
    };
    Conclusion {
        id: "exchanges",
        heading: "How long short exchanges take".to_owned(),
        sentences,
        notes: Vec::new(),
        table,
    }
}

fn remember<'a>(
    worst: &mut Vec<(&'a str, Spread, String)>,
    figure: &'a str,
    p99: Spread,
    place: impl Fn() -> String,
) {
    match worst.iter_mut().find(|(name, ..)| *name == figure) {
        Some(known) if known.1.median < p99.median => *known = (figure, p99, place()),
        Some(_) => (),
        None => worst.push((figure, p99, place())),
    }
}
