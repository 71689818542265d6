//! The page: one file that needs nothing else.

use super::conclusion::Conclusion;
use super::html::{Html, json};
use super::place::{Place, delay_p50, delay_p99, places};
use super::plot::Figure;
use super::stat::{counted, setting, show};
use super::table::Table;
use crate::lab::results::{Point, Results};
use serde_json::Value;

const TITLE: &str = "TCP-in-TCP laboratory: what a tunnel over TCP costs";

/// How figures come about and what they do not say.
const METHOD: [&str; 7] = [
    "Every path is emulated: delay, loss, rate and queue are those of the table's coordinates in both directions. RTT \
     is that of the empty path; loss is the mean of each direction. Jitter, reordering, duplication and corruption are \
     those of each direction too, and nothing where they are not named; jitter does not change the order of packets. \
     The calibration tells how well the emulator does what it is told.",
    "Goodput counts the payload octets that the inner receivers were given, without warm-up.",
    "The delay of a voice frame is from the sender's system call to the receiver's kernel. Frames are missed when they \
     are lost or come too late for the jitter buffer. R comes from the wideband E-model (ITU-T G.107.1), \
     MOS from R / 1.29 by the curve of ITU-T G.107, none from listeners. For EVS the values of AMR-WB at 23.85 kbit/s stand \
     in.",
    "All figures are medians over the repetitions, with the least and the greatest in brackets. So few repetitions give \
     no confidence interval; the ends show the spread and nothing more.",
    "Points are compared only when all coordinates are equal that make a difference to both: a tunnel over UDP has no \
     outer congestion control, a path without loss has no bursts, and no tunnel has no gateway.",
    "The emulated losses are random and do not follow a real radio. One machine plays all parts, so the load of one \
     can disturb another; the interference table shows how much.",
    "Nothing is interpolated. A dash stands for what was not measured or has no meaning there.",
];

/// Writes the page.
pub fn page(results: &Results, conclusions: &[Conclusion], figures: &[Figure]) -> String {
    let places = places(results);
    let mut html = Html::default();
    html.raw("<!DOCTYPE html>").open("html", &[("lang", "en")]).open("head", &[]);
    html.raw(
        "<meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">",
    );
    html.raw("<link rel=\"icon\" href=\"data:,\">").element("title", TITLE);
    html.raw("<style>").raw(include_str!("page.css")).raw("</style>").close("head").open("body", &[]);
    head(&mut html, results, &places, conclusions);
    html.open("main", &[]);
    summary(&mut html, conclusions);
    for conclusion in conclusions {
        section(&mut html, conclusion, figures);
    }
    html.open("section", &[("id", "method")]).element("h2", "Method and limits");
    html.list(&METHOD.map(str::to_owned)).close("section");
    study(&mut html, results, &places);
    html.close("main");
    data(&mut html, results, conclusions);
    html.close("body").close("html");
    html.into_text()
}

fn head(html: &mut Html, results: &Results, places: &[Place<'_>], conclusions: &[Conclusion]) {
    let good: usize = places.iter().map(|place| place.good().count()).sum();
    let seconds: f64 =
        places.iter().flat_map(Place::good).map(|run| run.seconds).filter(|time| time.is_finite()).sum();
    html.open("header", &[]).element("h1", TITLE);
    html.element(
        "p",
        &format!(
            "{} measured, {} that went well, {:.0} minutes of measurement.",
            counted(places.len(), "point"),
            counted(good, "repetition"),
            seconds / 60.0
        ),
    );
    if let Some(note) = results.environment.get("note").and_then(Value::as_str) {
        html.attributed("p", &[("class", "note")], note);
    }
    html.open("nav", &[("aria-label", "Contents")]).open("ul", &[]);
    let own = [("method", "Method and limits"), ("study", "The study and its cells")];
    let links = conclusions.iter().map(|conclusion| (conclusion.id, conclusion.heading.as_str())).chain(own);
    for (id, heading) in links {
        html.open("li", &[]).attributed("a", &[("href", &format!("#{id}"))], heading).close("li");
    }
    html.close("ul").close("nav").close("header");
}

fn summary(html: &mut Html, conclusions: &[Conclusion]) {
    html.open("section", &[("id", "summary")]).element("h2", "In short").open("dl", &[]);
    for conclusion in conclusions {
        html.open("div", &[]).open("dt", &[]).attributed(
            "a",
            &[("href", &format!("#{}", conclusion.id))],
            &conclusion.heading,
        );
        html.close("dt");
        conclusion.sentences.iter().for_each(|sentence| {
            html.element("dd", sentence);
        });
        html.close("div");
    }
    html.close("dl").close("section");
}

fn section(html: &mut Html, conclusion: &Conclusion, figures: &[Figure]) {
    let of = |figure: &&Figure| figure.section == conclusion.id;
    html.open("section", &[("id", conclusion.id)]).element("h2", &conclusion.heading);
    for sentence in &conclusion.sentences {
        html.attributed("p", &[("class", "answer")], sentence);
    }
    let bare = !conclusion.table.rows.is_empty() && !figures.iter().any(|figure| of(&figure));
    match conclusion.id {
        "cost" if bare => {
            html.element("p", "There is no plot: no two points with a goodput differ in loss or RTT alone.");
        }
        "limit" if bare => {
            html.element("p", "There is no plot: no two points with a call differ in loss alone.");
        }
        _ => (),
    }
    for figure in figures.iter().filter(of) {
        html.open("figure", &[("id", &figure.name)]);
        html.open(
            "div",
            &[("class", "wide"), ("tabindex", "0"), ("role", "region"), ("aria-label", &figure.title.text())],
        );
        html.raw(&figure.wide).close("div");
        html.raw("<div class=\"narrow\">").raw(&figure.narrow).close("div");
        html.open("figcaption", &[]);
        if let Some((first, rest)) = figure.explanation.split_first() {
            html.element("p", first).list(rest);
        }
        html.close("figcaption").close("figure");
    }
    html.list(&conclusion.notes);
    match conclusion.table.rows.len() {
        0 => (),
        1..=24 => {
            html.table(&conclusion.table);
        }
        rows => {
            html.open("details", &[("open", "")]).element("summary", &format!("Table of {rows} rows"));
            html.table(&conclusion.table).close("details");
        }
    }
    html.close("section");
}

/// Adds where it was measured, what was asked for, and every point with its figures.
fn study(html: &mut Html, results: &Results, places: &[Place<'_>]) {
    html.open("section", &[("id", "study")]).element("h2", "The study and its cells");
    let mut environment = Table::new("Machine and programs.", &["What", "Value"]);
    flatten("", &results.environment, &mut environment);
    if environment.rows.is_empty() {
        html.element("p", "The machine and the programs are not recorded.");
    } else {
        html.table(&environment);
    }
    html.open("details", &[])
        .element("summary", "Every point and its figures")
        .table(&every(places))
        .close("details");
    if !results.matrix.is_null() {
        let matrix = serde_json::to_string_pretty(&results.matrix).unwrap_or_default();
        html.open("details", &[]).element("summary", "The matrix as it was read");
        html.attributed("pre", &[("class", "scroll"), ("tabindex", "0")], &matrix).close("details");
    }
    html.close("section");
}

/// Adds the rows of a JSON value, with the names of its fields joined by dots.
fn flatten(name: &str, value: &Value, table: &mut Table) {
    let inner = |field: &str| if name.is_empty() { field.to_owned() } else { format!("{name}.{field}") };
    match value {
        Value::Null => (),
        Value::Object(fields) => {
            fields.iter().for_each(|(field, value)| flatten(&inner(field), value, table))
        }
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            items.iter().enumerate().for_each(|(at, item)| flatten(&inner(&at.to_string()), item, table));
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(plain).collect();
            table.row(vec![name.to_owned(), items.join(", ")]);
        }
        value => table.row(vec![name.to_owned(), plain(value)]),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn every(places: &[Place<'_>]) -> Table {
    let points: Vec<&Point> = places.iter().map(|place| place.point).collect();
    let columns = [
        "Cell",
        "Good repetitions",
        "Goodput, Mbit/s",
        "Longest stall, ms",
        "Voice p50, ms",
        "Voice p99, ms",
        "Missed, %",
        "MOS",
        "Outer segments again",
        "Gateway CPU, s",
    ];
    let caption = "Every point: median over the repetitions (least–greatest).";
    let (mut table, coordinates) = Table::of_points(caption, &points, &columns);
    for place in places {
        let figures = [
            place.goodput(),
            place.spread(|run| Some(run.bulk.as_ref()?.longest_stall_ms)),
            place.spread(delay_p50),
            place.spread(delay_p99),
            place.missed(),
            place.mos(),
            place.spread(|run| Some(run.outer.as_ref()?.retransmits as f64)),
            place.spread(|run| run.gateway_cpu_s),
        ];
        let repetitions = format!("{} of {}", place.good().count(), place.runs.len());
        let row = [vec![place.id.to_owned(), repetitions], figures.map(show).to_vec()].concat();
        table.row_of(place.point, &coordinates, row);
    }
    table
}

/// Embeds the results without what is long and drawn, and the conclusions.
fn data(html: &mut Html, results: &Results, conclusions: &[Conclusion]) {
    let mut short = results.clone();
    for run in short.cells.iter_mut().flat_map(|cell| &mut cell.runs) {
        run.timeline.clear();
        if let Some(voice) = &mut run.voice {
            voice.cdf.clear();
        }
    }
    html.open("footer", &[]);
    html.element(
        "p",
        &format!(
            "This file holds the figures as JSON, but for timelines and distributions, in the elements \
             results-data and conclusions-data (form {}); results.json has all. The plots are in plots/ as SVG and PNG.",
            setting(f64::from(results.version))
        ),
    );
    html.close("footer");
    html.raw("<script type=\"application/json\" id=\"results-data\">").raw(&json(&short)).raw("</script>");
    html.raw("<script type=\"application/json\" id=\"conclusions-data\">")
        .raw(&json(&conclusions))
        .raw("</script>");
}
