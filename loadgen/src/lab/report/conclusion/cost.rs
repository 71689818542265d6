//! How much goodput a tunnel costs.

use super::super::coordinate::{Coordinate, name, over_tcp, varying};
use super::super::place::{Place, factor, goodput_of};
use super::super::stat::{Spread, counted, listed, number, show};
use super::super::table::Table;
use super::{Conclusion, caption, label, several_ccs};
use crate::lab::results::Point;

const SHOWN: &str = "Goodput of bulk TCP inside the tunnel: median over the repetitions (least–greatest).";

/// One place with what it is compared with.
struct Row<'a> {
    place: Place<'a>,
    label: String,
    goodput: Spread,
    udp: Option<Spread>,
    against_udp: Option<Spread>,
    plain: Option<Spread>,
    against_plain: Option<Spread>,
}

/// Answers how much goodput each transport costs on each path.
pub fn conclude(places: &[Place<'_>]) -> Conclusion {
    let rows = rows(places);
    let points: Vec<&Point> = rows.iter().map(|row| row.place.point).collect();
    let columns =
        ["Goodput, Mbit/s", "UDP, Mbit/s", "Meltdown factor", "No tunnel, Mbit/s", "Factor to no tunnel"];
    let (mut table, coordinates) = Table::of_points(caption(SHOWN, &points, &[]), &points, &columns);
    for row in &rows {
        let figures = [Some(row.goodput), row.udp, row.against_udp, row.plain, row.against_plain];
        table.row_of(row.place.point, &coordinates, figures.map(show).to_vec());
    }
    Conclusion {
        id: "cost",
        heading: "What the tunnel costs in goodput".to_owned(),
        sentences: sentences(&rows),
        notes: notes(&rows),
        table,
    }
}

fn rows<'a>(places: &[Place<'a>]) -> Vec<Row<'a>> {
    let several = several_ccs(places);
    places
        .iter()
        .filter(|place| place.point.transport != "plain")
        .filter_map(|place| {
            Some(Row {
                goodput: place.goodput()?,
                label: label(place, several),
                udp: goodput_of(places, place, "udp"),
                against_udp: factor(places, place, "udp"),
                plain: goodput_of(places, place, "plain"),
                against_plain: factor(places, place, "plain"),
                place: place.clone(),
            })
        })
        .collect()
}

fn labels(rows: &[Row<'_>]) -> Vec<String> {
    let mut labels: Vec<String> = Vec::new();
    for row in rows {
        if !labels.contains(&row.label) {
            labels.push(row.label.clone());
        }
    }
    labels
}

fn sentences(rows: &[Row<'_>]) -> Vec<String> {
    if rows.is_empty() {
        return vec!["Goodput inside a tunnel was not measured.".to_owned()];
    }
    let sentences: Vec<String> = labels(rows)
        .iter()
        .filter(|label| rows.iter().any(|row| row.label == **label && over_tcp(&row.place.point.transport)))
        .map(|label| {
            let of: Vec<&Row<'_>> = rows.iter().filter(|row| row.label == *label).collect();
            of_transport(label, &of)
        })
        .collect();
    match sentences.is_empty() {
        true => vec!["No tunnel over TCP was measured.".to_owned()],
        false => sentences,
    }
}

/// Says between which factors a transport is, and where it is worst.
fn of_transport(label: &str, rows: &[&Row<'_>]) -> String {
    let mut compared: Vec<(&Row<'_>, Spread)> =
        rows.iter().filter_map(|row| Some((*row, row.against_udp?))).collect();
    compared.sort_by(|one, two| one.1.median.total_cmp(&two.1.median));
    let (Some((worst, factor)), Some((_, best))) = (compared.first(), compared.last()) else {
        return format!("A tunnel over {label} was not measured beside one over UDP on the same path.");
    };
    let ends = match factor.count {
        1 => "from one repetition".to_owned(),
        count => format!("{} over {count} repetitions", factor.ends()),
    };
    let points: Vec<&Point> = compared.iter().map(|(row, _)| row.place.point).collect();
    let by: Vec<Coordinate> = varying(&points)
        .into_iter()
        .filter(|coordinate| !matches!(coordinate, Coordinate::Transport | Coordinate::OuterCc))
        .collect();
    let place = name(worst.place.point, &by);
    let place = if place.is_empty() { String::new() } else { format!(" at {place}") };
    format!(
        "Over {label} the tunnel carries {} to {} times what it carries over UDP ({}). It is worst{place}: {} \
         against {} Mbit/s, a meltdown factor of {} ({ends}).",
        number(factor.median),
        number(best.median),
        counted(compared.len(), "comparison"),
        number(worst.goodput.median),
        worst.udp.map_or_else(|| show(None), |udp| number(udp.median)),
        number(factor.median),
    )
}

fn notes(rows: &[Row<'_>]) -> Vec<String> {
    let mut notes = vec![
        "The meltdown factor is the goodput over this transport divided by that over UDP on the same path, all \
         other coordinates being equal that make a difference to both. 1 means that nothing is lost; its ends \
         are the furthest that any two repetitions are apart; there is only a least (≥) where UDP carried nothing \
         in a repetition."
            .to_owned(),
    ];
    for label in labels(rows) {
        let factors = |row: &Row<'_>| row.against_plain.map(|factor| factor.median);
        let of = rows.iter().filter(|row| row.label == label);
        match Spread::of(of.filter_map(factors)) {
            Some(all) => notes.push(format!(
                "Against no tunnel at all, {label} carries {} to {} times as much ({}).",
                number(all.min),
                number(all.max),
                counted(all.count, "comparison")
            )),
            None => notes.push(format!("{label} was not measured beside no tunnel on the same path.")),
        }
    }
    let tunnels = |row: &&Row<'_>| over_tcp(&row.place.point.transport) && row.against_udp.is_none();
    let alone: Vec<String> = labels(rows)
        .into_iter()
        .filter_map(|label| {
            let count = rows.iter().filter(|row| row.label == label).filter(tunnels).count();
            (count > 0).then(|| format!("{} of {label}", counted(count, "point")))
        })
        .collect();
    if !alone.is_empty() {
        notes.push(format!("Without a counterpart over UDP: {}.", listed(&alone)));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture::{bulk, point, study};
    use super::super::super::place::places;
    use super::*;

    #[test]
    fn compares_with_udp_and_with_no_tunnel_on_the_same_path() {
        let mut bbr_udp = point("udp", "bulk", 60.0, 1.0);
        // What a tunnel over UDP has not makes no difference to it.
        bbr_udp.outer_cc = "bbr".to_owned();
        bbr_udp.nodelay = false;
        let results = study(vec![
            bulk(point("tcp", "bulk", 60.0, 1.0), &[1.0, 2.0, 3.0]),
            bulk(bbr_udp, &[8.0, 10.0]),
            bulk(point("plain", "bulk", 60.0, 1.0), &[12.0]),
            bulk(point("udp", "bulk", 200.0, 1.0), &[100.0]),
        ]);
        let conclusion = conclude(&places(&results));
        assert_eq!(conclusion.table.columns[..2], ["RTT, ms", "Transport"]);
        assert_eq!(
            conclusion.table.rows[0],
            ["60", "tcp", "2.00 (1.00–3.00)", "9.00 (8.00–10.0)", "0.22 (0.10–0.38)", "12.0", "0.17"]
        );
        assert!(conclusion.sentences[0].contains("2.00 against 9.00 Mbit/s"), "{:?}", conclusion.sentences);
    }

    #[test]
    fn a_repetition_over_udp_that_carried_nothing_leaves_no_greatest_factor() {
        let results = study(vec![
            bulk(point("tcp", "bulk", 60.0, 1.0), &[1.0, 2.0, 3.0]),
            bulk(point("udp", "bulk", 60.0, 1.0), &[0.0, 4.0, 8.0]),
        ]);
        let conclusion = conclude(&places(&results));
        assert_eq!(conclusion.table.rows[0][3], "0.50 (≥ 0.12)");
        assert!(conclusion.sentences[0].ends_with("factor of 0.50 (≥ 0.12 over 3 repetitions)."));
        assert!(!format!("{conclusion:?}").contains("inf"), "{conclusion:?}");
    }

    #[test]
    fn says_what_there_is_nothing_to_compare_with() {
        let results = study(vec![bulk(point("tcp", "bulk", 60.0, 1.0), &[1.0])]);
        let conclusion = conclude(&places(&results));
        assert_eq!(conclusion.table.rows[0], ["1.00", "–", "–", "–", "–"]);
        assert!(conclusion.sentences[0].contains("was not measured beside one over UDP"));
        assert!(conclude(&[]).sentences[0].contains("not measured"));
    }

    #[test]
    fn another_inner_congestion_control_is_no_counterpart() {
        let mut udp = point("udp", "bulk", 60.0, 1.0);
        udp.inner_cc = "bbr".to_owned();
        let results = study(vec![bulk(point("tcp", "bulk", 60.0, 1.0), &[1.0]), bulk(udp, &[9.0])]);
        let conclusion = conclude(&places(&results));
        assert!(conclusion.sentences[0].contains("was not measured beside"), "{:?}", conclusion.sentences);
    }
}
