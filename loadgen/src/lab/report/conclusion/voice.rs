//! What a call suffers, alone and beside bulk.

use super::super::coordinate::{Coordinate, alike, bracketed, is_even, name, path, varying};
use super::super::place::{Place, delay_p50, delay_p99};
use super::super::stat::{Spread, counted, number, show};
use super::super::table::Table;
use super::{Conclusion, caption, label, several_ccs};
use crate::lab::results::{Point, Run};

const SHOWN: &str = "One-way delay and quality of calls: median over the repetitions (least–greatest).";

const RULE: &str = "Added delay is the one-way delay that 99 of 100 of the frames that came are below, less half the RTT \
    of the empty path. Target beside bulk: below 20 ms without loss; at 1 % loss below two RTTs from an RTT of 60 ms on \
    and below 250 ms at 20 ms. It is met when every repetition meets it; one in which no frame came does not. \
    Elsewhere no target is set, nor with jitter, reordering, duplication or corruption.";

/// Returns what the delay added to a call beside bulk should be below, in milliseconds; none where no target is set.
pub fn target(point: &Point) -> Option<f64> {
    match (point.loss_pct, point.rtt_ms) {
        _ if !is_even(point) => None,
        (0.0, _) => Some(20.0),
        (1.0, rtt) if rtt >= 60.0 => Some(2.0 * rtt),
        (1.0, 20.0) => Some(250.0),
        _ => None,
    }
}

/// Answers what delay, frames and score a call has.
pub fn conclude(places: &[Place<'_>]) -> Conclusion {
    let calls: Vec<Place<'_>> =
        places.iter().filter(|place| place.good().any(|run| run.voice.is_some())).cloned().collect();
    let points: Vec<&Point> = calls.iter().map(|place| place.point).collect();
    let columns = ["p50, ms", "p99, ms", "Added p99, ms", "Missed, %", "MOS", "Target, ms", "Verdict"];
    let (mut table, coordinates) = Table::of_points(caption(SHOWN, &points, &[]), &points, &columns);
    for call in &calls {
        let mut figures: Vec<String> =
            [call.spread(delay_p50), call.spread(delay_p99), call.added(), call.missed(), call.mos()]
                .map(show)
                .to_vec();
        let limit = beside_bulk(call).then(|| target(call.point)).flatten();
        figures.push(limit.map_or_else(|| "none".to_owned(), |below_ms| format!("< {}", number(below_ms))));
        figures.push(said(verdict(call), call.silences()));
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

/// Tells whether the call has bulk beside it.
pub fn beside_bulk(place: &Place<'_>) -> bool {
    place.has_call() && place.runs_inside("bulk")
}

/// Returns how many repetitions meet the target, of how many; none where no target is set.
fn verdict(place: &Place<'_>) -> Option<(usize, usize)> {
    let below_ms = target(place.point).filter(|_| beside_bulk(place))?;
    let calls: Vec<&Run> = place.good().filter(|run| run.voice.is_some()).collect();
    let met = |run: &&&Run| delay_p99(run).is_some_and(|ms| ms - place.point.rtt_ms / 2.0 < below_ms);
    Some((calls.iter().filter(met).count(), calls.len()))
}

/// Says whether the target is met and in how many repetitions no frame came.
fn said(verdict: Option<(usize, usize)>, silences: (usize, usize)) -> String {
    let verdict = verdict.map(|(met, of)| match met {
        _ if met == of => "met".to_owned(),
        0 => "not met".to_owned(),
        _ => format!("not met: {met} of {of} repetitions"),
    });
    let silence = match silences {
        (0, _) => None,
        (silent, all) if silent == all => Some("no frame came".to_owned()),
        (silent, all) => Some(format!("no frame came in {silent} of {all}")),
    };
    verdict.into_iter().chain(silence).collect::<Vec<_>>().join("; ")
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
        let of: Vec<_> = calls.iter().filter(|call| call.point.loss_pct == loss).collect();
        let verdicts: Vec<(usize, usize)> = of.iter().filter_map(|call| verdict(call)).collect();
        let met = verdicts.iter().filter(|(met, of)| met == of).count();
        match verdicts.is_empty() {
            _ if of.is_empty() => format!("not measured at {loss} % loss"),
            true => format!("not set for any path measured at {loss} % loss"),
            false => format!("met on {met} of {} at {loss} % loss", counted(verdicts.len(), "point")),
        }
    };
    let added = |call: &Place<'_>| call.added().map_or(f64::NEG_INFINITY, |added| added.median);
    let worst = calls.iter().max_by(|one, two| added(one).total_cmp(&added(two)));
    let worst = worst.and_then(|call| Some((call, call.added()?))).map(|(call, added)| {
        format!(", greatest median of added p99 {} ms ({})", number(added.median), path(call.point))
    });
    let silent = match calls.iter().filter(|call| call.is_silent()).count() {
        0 => String::new(),
        silent => format!(", no frame came on {}", counted(silent, "point")),
    };
    format!("target {} and {}{}{silent}", at_loss(0.0), at_loss(1.0), worst.unwrap_or_default())
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
            let off = calls
                .iter()
                .find(|off| !off.point.flow_queue && alike(off.point, on.point, &[Coordinate::FlowQueue]))?;
            Some((on, on.added()?, off.added()?))
        })
        .collect();
    let Some((place, on, off)) = pairs.iter().max_by(|one, two| gain(one).total_cmp(&gain(two))) else {
        return vec!["The same call with the flow queue off and on was not measured.".to_owned()];
    };
    let lower = pairs.iter().filter(|(_, on, off)| on.median < off.median).count();
    vec![format!(
        "With all else equal, the flow queue lowers the added p99 in {lower} of {}; most{} from {} to {} ms.",
        counted(pairs.len(), "pair"),
        bracketed(&name(place.point, &by)),
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
    use crate::lab::results::Voice;

    fn verdict_at(rtt: f64, loss: f64, p99s: &[f64]) -> String {
        let calls: Vec<(f64, f64, f64)> = p99s.iter().map(|p99| (*p99, 0.0, 4.0)).collect();
        let results = study(vec![call(point("tcp", "bulk+voice", rtt, loss), &calls)]);
        conclude(&places(&results)).table.rows[0].last().unwrap().clone()
    }

    #[test]
    fn targets_are_those_of_the_path() {
        let below = |rtt, loss| target(&point("tcp", "bulk+voice", rtt, loss));
        assert_eq!([below(20.0, 0.0), below(200.0, 0.0)], [Some(20.0), Some(20.0)]);
        assert_eq!(
            [below(60.0, 1.0), below(200.0, 1.0), below(20.0, 1.0)],
            [Some(120.0), Some(400.0), Some(250.0)]
        );
        assert_eq!([below(40.0, 1.0), below(60.0, 2.0)], [None, None]);
        let uneven = Point { duplicate_pct: 1.0, ..point("tcp", "bulk+voice", 60.0, 0.0) };
        assert_eq!(target(&uneven), None);
        let conclusion = conclude(&places(&study(vec![call(uneven, &[(40.0, 0.0, 4.0)])])));
        let said = "target not set for any path measured at 0 % loss and not measured at 1 % loss, greatest";
        assert!(conclusion.sentences[0].contains(said), "{:?}", conclusion.sentences);
    }

    #[test]
    fn added_delay_is_without_that_of_the_empty_path_and_every_repetition_counts() {
        assert_eq!(verdict_at(60.0, 0.0, &[49.9]), "met");
        assert_eq!(verdict_at(60.0, 0.0, &[50.0]), "not met");
        assert_eq!(verdict_at(60.0, 1.0, &[100.0, 149.0, 151.0]), "not met: 2 of 3 repetitions");
        assert_eq!(verdict_at(60.0, 2.0, &[40.0]), "");
    }

    #[test]
    fn a_repetition_in_which_no_frame_came_does_not_meet_the_target() {
        let silent = |repetitions: usize| {
            let mut silent = call(point("tcp", "bulk+voice", 60.0, 0.0), &[(40.0, 0.0, 4.0); 2]);
            for run in &mut silent.runs[..repetitions] {
                let sent = Voice { sent: 1_000, missed_pct: 100.0, mos: 1.0, ..Voice::default() };
                run.voice = Some(sent);
            }
            conclude(&places(&study(vec![silent])))
        };
        let last = |conclusion: &Conclusion| conclusion.table.rows[0].last().unwrap().clone();
        assert_eq!(last(&silent(1)), "not met: 1 of 2 repetitions; no frame came in 1 of 2");
        let conclusion = silent(2);
        let row = ["–", "–", "–", "100 (100–100)", "–", "< 20.0", "not met; no frame came"];
        assert_eq!(conclusion.table.rows, [row]);
        let said = "Over tcp, flow queue on: target met on 0 of 1 point at 0 % loss and not measured at 1 % loss, \
                    no frame came on 1 point.";
        assert_eq!(conclusion.sentences, [said]);
        // Where there is no target it is said all the same.
        let alone = call(point("tcp", "voice", 60.0, 5.0), &[(40.0, 0.0, 4.0)]);
        assert_eq!(last(&conclude(&places(&study(vec![alone.clone()])))), "");
        let mut alone = alone;
        alone.runs[0].voice = Some(Voice { sent: 1_000, missed_pct: 100.0, mos: 1.0, ..Voice::default() });
        assert_eq!(last(&conclude(&places(&study(vec![alone])))), "no frame came");
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
                && conclusion.notes[1].ends_with("; most from 100 to 10.0 ms.")
        );
        assert!(
            conclusion.sentences[0]
                .starts_with("Over tcp, flow queue off: target met on 0 of 1 point at 0 % loss")
        );
        assert!(conclude(&[]).sentences[0].contains("not measured"));
    }
}
