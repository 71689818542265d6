//! The report of studies that are complete, partial or odd. Nothing here is measured.

#[path = "../examples/lab_report/sample.rs"]
mod sample;

use loadgen::lab::report;
use loadgen::lab::results::{Cell, Results, Run};
use std::path::Path;

fn write(results: &Results) -> (String, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let written = report::write(results, dir.path()).unwrap();
    assert!(written.iter().all(|path| path.metadata().unwrap().len() > 0));
    let name = |path: &Path| path.strip_prefix(dir.path()).unwrap().display().to_string();
    let page = std::fs::read_to_string(dir.path().join("report.html")).unwrap();
    check(&page, &report::terminal(results));
    (page, written.iter().map(|path| name(path)).collect())
}

/// Checks what holds for every report.
fn check(page: &str, terminal: &str) {
    let words = |text: &str| {
        let letters = |letter: char| !letter.is_alphanumeric() && letter != '.';
        text.split(letters).any(|word| matches!(word, "NaN" | "inf" | "Infinity"))
    };
    let (shown, data) = page.split_once("<script type=\"application/json\"").unwrap();
    assert!(!words(shown) && !words(terminal));
    assert!(!shown.contains("<script") && !shown.contains(" src="));
    // No address but the name of the form of drawings.
    assert!(
        shown.match_indices("http").all(|(at, _)| shown[at..].starts_with("http://www.w3.org/2000/svg\""))
    );
    assert_eq!(data.matches("</script>").count(), 2);
    for svg in shown.split("<svg ").skip(1) {
        let head = svg.split('>').next().unwrap();
        assert!(
            head.contains("viewBox=") && !head.contains("width=") && head.contains("aria-label="),
            "{head}"
        );
    }
}

fn some(keep: impl Fn(&Cell) -> bool) -> Results {
    let mut results = sample::results();
    results.cells.retain(keep);
    results
}

#[test]
fn a_whole_study_has_every_plot_as_drawing_and_picture() {
    let (page, written) = write(&sample::results());
    for name in ["goodput-loss", "goodput-rtt", "meltdown", "voice-delay", "stall-timeline", "mos-loss"] {
        for kind in ["svg", "png"] {
            assert!(written.contains(&format!("plots/{name}.{kind}")), "{name}.{kind}");
        }
        assert!(page.contains(&format!("<figure id=\"{name}\">")), "{name}");
    }
    assert!(page.contains("Linux &lt;sample&gt; &amp; &quot;more&quot;"));
    assert!(!page.contains("<b>bold</b>") && page.contains("the gateway &lt;ended&gt; early"));
    let headings: Vec<String> =
        report::conclusions(&sample::results()).into_iter().map(|conclusion| conclusion.heading).collect();
    assert!(headings.iter().all(|heading| page.contains(heading)));
}

#[test]
fn what_paths_do_besides_is_shown_where_they_do_it() {
    let uneven = ["Jitter,\u{a0}ms", "Reordered,\u{a0}%", "Duplicated,\u{a0}%", "Corrupted,\u{a0}%"];
    let columns = |page: &str| {
        let has = |title: &&&str| page.contains(&format!("<th scope=\"col\" class=\"number\">{title}</th>"));
        uneven.iter().filter(has).count()
    };
    assert_eq!(columns(&write(&sample::results()).0), 4);
    assert_eq!(columns(&write(&some(|cell| cell.group != "uneven")).0), 0);
    // What all points have in common is said once.
    let (page, _) = write(&some(|cell| cell.point.jitter_ms > 0.0));
    assert!(page.contains("loss 1\u{a0}%, independent losses, jitter 5\u{a0}ms, rate 20\u{a0}Mbit/s"));
}

#[test]
fn a_study_of_nothing_says_so() {
    let (page, written) = write(&some(|_| false));
    assert_eq!(written, ["report.html"]);
    for said in
        ["Goodput inside a tunnel was not measured", "Calls were not measured", "The study has no cell"]
    {
        assert!(page.contains(said), "{said}");
    }
    let mut bare = some(|_| false);
    bare.calibration.clear();
    bare.interference.clear();
    let (page, _) = write(&bare);
    assert!(page.contains("were not calibrated") && page.contains("disturb each other was not measured"));
}

#[test]
fn parts_of_a_study_are_reports_too() {
    for transport in ["plain", "udp", "tcp"] {
        write(&some(|cell| cell.point.transport == transport));
    }
    for workload in ["bulk", "voice", "bulk+voice", "web"] {
        write(&some(|cell| cell.point.workload == workload));
    }
    write(&some(|cell| cell.point.loss_pct == 1.0));
    let (page, _) = write(&some(|cell| cell.point.rtt_ms == 60.0 && cell.point.loss_pct == 1.0));
    assert!(page.contains("no two points with a call differ in loss alone"));
    let one = some(|cell| cell.id == "bulk-002");
    assert_eq!(one.cells.len(), 1);
    let (page, _) = write(&one);
    assert!(page.contains("was not measured beside one over UDP"));
}

#[test]
fn runs_that_failed_or_hold_nothing_give_no_figures() {
    let mut failed = sample::results();
    for run in failed.cells.iter_mut().flat_map(|cell| &mut cell.runs) {
        *run = Run { failed: Some("no <network>".to_owned()), ..Run::default() };
    }
    let (page, written) = write(&failed);
    assert_eq!(written, ["report.html"]);
    assert!(page.contains("no &lt;network&gt;") && page.contains("Calls were not measured"));

    let mut empty = sample::results();
    empty.cells.iter_mut().flat_map(|cell| &mut cell.runs).for_each(|run| *run = Run::default());
    write(&empty);
}

#[test]
fn one_repetition_and_odd_numbers_are_drawn() {
    let mut once = sample::results();
    once.cells.iter_mut().for_each(|cell| cell.runs.truncate(1));
    let (page, _) = write(&once);
    assert!(page.contains("nothing is known of the spread"));

    let mut odd = sample::results();
    for (order, run) in odd.cells.iter_mut().flat_map(|cell| &mut cell.runs).enumerate() {
        let value = [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300, 1e-300][order % 6];
        if let Some(bulk) = &mut run.bulk {
            (bulk.goodput_mbit, bulk.longest_stall_ms) = (value, value);
        }
        if let Some(voice) = &mut run.voice {
            (voice.mos, voice.missed_pct, voice.delay_ms.p99) = (value, value, value);
            voice.cdf = vec![(value, value), (1.0, 0.5), (value, 1.0)];
        }
        run.timeline.iter_mut().for_each(|tick| tick.voice_delay_ms = Some(value));
    }
    odd.calibration.iter_mut().for_each(|row| row.deviation_pct = f64::NAN);
    write(&odd);
}

#[test]
fn a_written_study_reads_back_to_the_same_answers() {
    let text = serde_json::to_string(&sample::results()).unwrap();
    let read: Results = serde_json::from_str(&text).unwrap();
    assert_eq!(report::conclusions(&read), report::conclusions(&sample::results()));
}
