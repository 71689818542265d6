//! What a call suffers, alone and beside bulk.

use super::super::coordinate::{Coordinate, alike, common, name, varying};
use super::super::place::{Place, delay_p50, delay_p99};
use super::super::stat::{Spread, counted, number, show};
use super::super::table::Table;
use super::{Conclusion, label, several_ccs};
use crate::lab::results::Point;

/// How much delay may be added to a call beside bulk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// What the path loses, in per cent.
    pub loss_pct: f64,
    /// The added delay is below this, in milliseconds.
    pub below_ms: f64,
}

/// Returns the target of a path; none where none is set.
pub fn target(point: &Point) -> Option<Target> {
    let below_ms = match (point.loss_pct, point.rtt_ms) {
        (0.0, _) => 20.0,
        (1.0, rtt) if rtt >= 60.0 => 2.0 * rtt,
        (1.0, 20.0) => 250.0,
        _ => return None,
    };
    Some(Target { loss_pct: point.loss_pct, below_ms })
}

const RULE: &str = "Added delay is the one-way delay that 99 of 100 frames are below, less half the RTT of the empty \
    path. Target beside bulk: below 20 ms without loss; at 1 % loss below two RTTs from an RTT of 60 ms on and below \
    250 ms at 20 ms. It is met when every repetition meets it. Elsewhere no target is set.";

/// Answers what delay, frames and score a call has.
pub fn conclude(places: &[Place<'_>]) -> Conclusion {
    let calls: Vec<Place<'_>> =
        places.iter().filter(|place| place.spread(delay_p99).is_some()).cloned().collect();
    let points: Vec<&Point> = calls.iter().map(|place| place.point).collect();
    let columns = ["p50, ms", "p99, ms", "Added p99, ms", "Missed, %", "MOS", "Target, ms", "Verdict"];
    let (mut table, coordinates) = Table::of_points(caption(&points), &points, &columns);
    for call in &calls {
        let mut figures: Vec<String> =
            [call.spread(delay_p50), call.spread(delay_p99), call.added(), call.missed(), call.mos()]
                .map(show)
                .to_vec();
        let limit = beside_bulk(call).then(|| target(call.point)).flatten();
        figures
            .push(limit.map_or_else(|| "none".to_owned(), |limit| format!("< {}", number(limit.below_ms))));
        figures.push(verdict(call).map_or_else(String::new, |(met, of)| said(met, of)));
        table.row_of(call.point, &coordinates, figures);
    }
    let mut notes = vec![RULE.to_owned()];
    notes.extend(comparison(&calls));
    Conclusion {
        id: "voice",
        heading: "What a call suffers beside bulk traffic".to_owned(),
        sentences: sentences(&calls),
        notes,
        table,
    }
}

fn caption(points: &[&Point]) -> String {
    let common = common(points, &[]);
    let common = if common.is_empty() { common } else { format!(" In all rows: {common}.") };
    format!("One-way delay and quality of calls: median over the repetitions (least–greatest).{common}")
}

/// Tells whether the call has bulk beside it.
pub fn beside_bulk(place: &Place<'_>) -> bool {
    place.has_call() && place.runs_inside("bulk")
}

/// Returns how many repetitions meet the target, of how many; none where no target is set.
fn verdict(place: &Place<'_>) -> Option<(usize, usize)> {
    let target = target(place.point).filter(|_| beside_bulk(place))?;
    let added: Vec<f64> =
        place.good().filter_map(delay_p99).map(|delay| delay - place.point.rtt_ms / 2.0).collect();
    Some((added.iter().filter(|added| **added < target.below_ms).count(), added.len()))
}

fn said(met: usize, of: usize) -> String {
    match met {
        _ if met == of => "met".to_owned(),
        0 => "not met".to_owned(),
        _ => format!("not met: {met} of {of} repetitions"),
    }
}

fn sentences(calls: &[Place<'_>]) -> Vec<String> {
    if calls.is_empty() {
        return vec!["Calls were not measured.".to_owned()];
    }
    let several = several_ccs(calls);
    let mut kinds: Vec<(String, bool)> = Vec::new();
    let kind = |call: &Place<'_>| (label(call, several), call.point.flow_queue);
    for call in calls.iter().filter(|call| beside_bulk(call) && Coordinate::FlowQueue.matters(call.point)) {
        if !kinds.contains(&kind(call)) {
            kinds.push(kind(call));
        }
    }
    if kinds.is_empty() {
        return vec![
            "Calls were measured, but not beside bulk traffic in a tunnel of the gateway.".to_owned(),
        ];
    }
    kinds
        .iter()
        .map(|wanted| {
            let of: Vec<&Place<'_>> =
                calls.iter().filter(|call| beside_bulk(call) && kind(call) == *wanted).collect();
            format!(
                "Over {}, flow queue {}: {}.",
                wanted.0,
                if wanted.1 { "on" } else { "off" },
                of_kind(&of)
            )
        })
        .collect()
}

/// Says how often the targets are met and where the call is worst.
fn of_kind(calls: &[&Place<'_>]) -> String {
    let at_loss = |loss: f64| {
        let verdicts: Vec<(usize, usize)> = calls
            .iter()
            .filter(|call| call.point.loss_pct == loss)
            .filter_map(|call| verdict(call))
            .collect();
        let met = verdicts.iter().filter(|(met, of)| met == of).count();
        match verdicts.is_empty() {
            true => format!("not measured at {loss} % loss"),
            false => format!("met on {met} of {} at {loss} % loss", counted(verdicts.len(), "point")),
        }
    };
    let added = |call: &Place<'_>| call.added().map_or(f64::NEG_INFINITY, |added| added.median);
    let worst = calls.iter().max_by(|one, two| added(one).total_cmp(&added(two)));
    let worst = worst.and_then(|call| Some((call, call.added()?))).map(|(call, added)| {
        format!(
            ", added p99 at most {} ms ({})",
            number(added.median),
            name(call.point, &[Coordinate::Rtt, Coordinate::Loss])
        )
    });
    format!("target {} and {}{}", at_loss(0.0), at_loss(1.0), worst.unwrap_or_default())
}

/// Says what the flow queue changes where all else is equal.
fn comparison(calls: &[Place<'_>]) -> Vec<String> {
    let points: Vec<&Point> = calls.iter().map(|call| call.point).collect();
    let by: Vec<Coordinate> =
        varying(&points).into_iter().filter(|coordinate| *coordinate != Coordinate::FlowQueue).collect();
    let pairs: Vec<(&Place<'_>, Spread, Spread)> = calls
        .iter()
        .filter(|call| {
            beside_bulk(call) && call.point.flow_queue && Coordinate::FlowQueue.matters(call.point)
        })
        .filter_map(|on| {
            let off = calls.iter().find(|off| {
                !off.point.flow_queue
                    && off.point.transport == on.point.transport
                    && alike(off.point, on.point, &[Coordinate::FlowQueue])
            })?;
            Some((on, on.added()?, off.added()?))
        })
        .collect();
    let Some((place, on, off)) = pairs.iter().max_by(|one, two| gain(one).total_cmp(&gain(two))) else {
        return vec!["The same call with the flow queue off and on was not measured.".to_owned()];
    };
    let lower = pairs.iter().filter(|(_, on, off)| on.median < off.median).count();
    vec![format!(
        "With all else equal, the flow queue lowers the added p99 in {lower} of {}; most at {}: from {} to {} ms.",
        counted(pairs.len(), "pair"),
        name(place.point, &by),
        number(off.median),
        number(on.median)
    )]
}

fn gain(pair: &(&Place<'_>, Spread, Spread)) -> f64 {
    pair.2.median - pair.1.median
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture::{call, point, study};
    use super::super::super::place::places;
    use super::*;

    fn verdict_at(rtt: f64, loss: f64, p99s: &[f64]) -> String {
        let calls: Vec<(f64, f64, f64)> = p99s.iter().map(|p99| (*p99, 0.0, 4.0)).collect();
        let results = study(vec![call(point("tcp", "bulk+voice", rtt, loss), &calls)]);
        conclude(&places(&results)).table.rows[0].last().unwrap().clone()
    }

    #[test]
    fn targets_are_those_of_the_path() {
        let below = |rtt, loss| target(&point("tcp", "bulk+voice", rtt, loss)).map(|target| target.below_ms);
        assert_eq!([below(20.0, 0.0), below(200.0, 0.0)], [Some(20.0), Some(20.0)]);
        assert_eq!(
            [below(60.0, 1.0), below(200.0, 1.0), below(20.0, 1.0)],
            [Some(120.0), Some(400.0), Some(250.0)]
        );
        assert_eq!([below(40.0, 1.0), below(60.0, 2.0)], [None, None]);
    }

    #[test]
    fn added_delay_is_without_that_of_the_empty_path_and_every_repetition_counts() {
        assert_eq!(verdict_at(60.0, 0.0, &[49.9]), "met");
        assert_eq!(verdict_at(60.0, 0.0, &[50.0]), "not met");
        assert_eq!(verdict_at(60.0, 1.0, &[100.0, 149.0, 151.0]), "not met: 2 of 3 repetitions");
        assert_eq!(verdict_at(60.0, 2.0, &[40.0]), "");
    }

    #[test]
    fn the_flow_queue_is_compared_where_all_else_is_equal() {
        let off = Point { flow_queue: false, ..point("tcp", "bulk+voice", 60.0, 0.0) };
        let results = study(vec![
            call(off, &[(130.0, 0.0, 4.0)]),
            call(point("tcp", "bulk+voice", 60.0, 0.0), &[(40.0, 0.0, 4.0)]),
        ]);
        let conclusion = conclude(&places(&results));
        assert!(
            conclusion.notes[1].contains("in 1 of 1 pair")
                && conclusion.notes[1].contains("from 100 to 10.0 ms")
        );
        assert!(
            conclusion.sentences[0]
                .starts_with("Over tcp, flow queue off: target met on 0 of 1 point at 0 % loss")
        );
        assert!(conclude(&[]).sentences[0].contains("not measured"));
    }
}
