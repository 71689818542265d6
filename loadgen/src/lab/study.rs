//! A whole study: calibration, all measurements, results and report.

use super::cell::Job;
use super::matrix::Matrix;
use super::queue::Queue;
use super::results::{CalibrationRow, Cell, InterferenceRow, Point, Results, Run, VERSION};
use super::store::Store;
use super::{child, missing, point, report, tunnel};
use crate::cli::LabArgs;
use crate::command::environment;
use crate::error::Failure;
use crate::host::{affinity, privilege, signal};
use crate::path::calibrate;
use crate::report::Progress;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// Seconds of each measurement of the calibration.
const CALIBRATION_S: f64 = 2.0;
/// Seconds of each measurement that shows whether paths disturb each other.
const INTERFERENCE_S: f64 = 6.0;
/// How much worse a measurement may get beside others: goodput in per cent, voice in milliseconds.
const GOODPUT_PCT: f64 = 5.0;
const VOICE_MS: f64 = 3.0;

/// Runs a study; returns whether every measurement was made.
///
/// # Errors
/// [`Failure::Usage`] for a matrix that cannot be run; [`Failure::Environment`] without root, iproute2 or the gateway.
pub fn run(args: &LabArgs) -> Result<bool, Failure> {
    let mut matrix = Matrix::read(args.matrix.as_deref())?;
    args.change(&mut matrix);
    let points: Vec<(String, Point)> = matrix
        .points()
        .map_err(Failure::Usage)?
        .into_iter()
        .filter(|(_, point)| args.only.as_ref().is_none_or(|part| point::id(point).contains(part)))
        .collect();
    if points.is_empty() {
        return Err(Failure::Usage("--only: no point has this in its name; --list shows all".into()));
    }
    if args.list {
        points.iter().for_each(|(group, point)| println!("{group}: {}", point::id(point)));
        return Ok(true);
    }
    let (points, note) =
        if args.report_only { (points, None) } else { missing::without_missing(points, tunnel::lacks) };
    if points.is_empty() {
        return Err(Failure::Environment(note.unwrap_or_default()));
    }
    if let Some(note) = &note {
        eprintln!("{note}");
    }
    let store = Store::open(&args.out, args.fresh)?;
    let mut study = Study { matrix, points, note, store, args, stop: Arc::default() };
    if !args.report_only {
        privilege::require_root("lab makes network namespaces and")?;
        let stop = study.stop.clone();
        signal::on_termination(move || stop.store(true, Ordering::Relaxed))?;
        study.measure()?;
    }
    study.conclude()
}

struct Study<'a> {
    matrix: Matrix,
    points: Vec<(String, Point)>,
    /// What the reader must know of what is not in it.
    note: Option<String>,
    store: Store,
    args: &'a LabArgs,
    stop: Arc<AtomicBool>,
}

impl Study<'_> {
    fn measure(&mut self) -> Result<(), Failure> {
        let progress = Progress::new();
        if self.store.part::<Vec<CalibrationRow>>("calibration.json").is_none() {
            progress.step("calibrating the path emulator");
            let rows: Vec<CalibrationRow> =
                calibrate::run(CALIBRATION_S, self.matrix.seed, &self.stop)?.iter().map(Into::into).collect();
            self.store.keep_part("calibration.json", &rows)?;
        }
        let jobs: VecDeque<Job> = (0..self.matrix.repetitions)
            .flat_map(|repetition| self.points.iter().map(move |(_, point)| (repetition, point)))
            .map(|(repetition, point)| self.job(point, repetition))
            .filter(|job| self.store.find(job).is_none())
            .collect();
        let parallel = self.choose_parallel(jobs.len(), &progress)?;
        let all = self.points.len() * self.matrix.repetitions as usize;
        progress.step(&format!(
            "{} of {all} measurements to make, {parallel} at a time, {} s each",
            jobs.len(),
            self.matrix.warm_up + self.matrix.seconds
        ));
        self.work_off(jobs, parallel, &progress)
    }

    fn job(&self, point: &Point, repetition: u32) -> Job {
        Job {
            point: point.clone(),
            repetition,
            seed: point::seed(self.matrix.seed, point, repetition),
            seconds: self.matrix.seconds,
            warm_up: self.matrix.warm_up,
            swugate: self.args.swugate.clone(),
            slot: 0,
        }
    }

    /// Makes all measurements, `parallel` at a time.
    fn work_off(&self, jobs: VecDeque<Job>, parallel: u32, progress: &Progress) -> Result<(), Failure> {
        let (total, begun_at, done) = (jobs.len() as u64, Instant::now(), AtomicU64::new(0));
        let bar = progress.bar("lab", total);
        let queue = Queue::new(jobs);
        let work = |slot: usize| {
            while !self.stop.load(Ordering::Relaxed) {
                let Some(job) = queue.take() else { break };
                let job = Job { slot, ..job };
                let run = child::run(&job, &self.stop);
                queue.done(&job);
                let Some(run) = run else { break };
                self.store.keep(&job, &run)?;
                let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                let left_s = begun_at.elapsed().as_secs_f64() / done as f64 * (total - done) as f64;
                let line = format!(
                    "[{done}/{total}, {:.0} min left] {}: {}",
                    (left_s / 60.0).ceil(),
                    point::id(&job.point),
                    in_short(&run)
                );
                bar.suspend(|| progress.step(&line));
                bar.inc(1);
            }
            Ok(())
        };
        let ended: Result<Vec<()>, Failure> = std::thread::scope(|scope| {
            let work = &work;
            let tasks: Vec<_> = (0..parallel as usize).map(|slot| scope.spawn(move || work(slot))).collect();
            let panicked = |_| Err(Failure::Environment("a thread panicked".into()));
            tasks.into_iter().map(|task| task.join().unwrap_or_else(panicked)).collect()
        });
        bar.finish_and_clear();
        ended.map(|_| ())
    }

    /// Measures a call and a download, each alone and then both beside further downloads, on paths of their own, and halves
    /// their number until they leave each other alone.
    fn choose_parallel(&self, jobs: usize, progress: &Progress) -> Result<u32, Failure> {
        let mut parallel = self.matrix.parallel.min(u32::try_from(jobs).unwrap_or(u32::MAX)).max(1);
        if parallel == 1 {
            return Ok(1);
        }
        let name = format!("interference-{parallel}.json");
        if let Some((rows, chosen)) = self.store.part::<(Vec<InterferenceRow>, u32)>(&name) {
            return self.store.keep_part("interference.json", &rows).map(|()| chosen);
        }
        progress.step("measuring a call and a download, each alone and beside others");
        let [call, download] = [self.reference("voice"), self.reference("bulk")];
        let (call_alone, download_alone) =
            (self.together(vec![call.clone()])?, self.together(vec![download.clone()])?);
        let mut all = Vec::new();
        while parallel > 1 {
            let mut jobs = vec![download.clone(); parallel as usize - 1];
            jobs.push(call.clone());
            let beside = self.together(jobs)?;
            let rows = compare(&call_alone[0], &download_alone[0], &beside);
            let fine = rows.iter().all(|row| row.ok);
            all.extend(rows);
            if fine {
                break;
            }
            parallel /= 2;
            progress.step(&format!("they disturb each other; trying {parallel} at a time"));
        }
        self.store.keep_part(&name, &(&all, parallel))?;
        self.store.keep_part("interference.json", &all)?;
        Ok(parallel)
    }

    /// A clean path, on which only the machine makes a difference.
    fn reference(&self, workload: &str) -> Job {
        let first = self.points[0].1.clone();
        let point = Point {
            workload: workload.into(),
            loss_pct: 0.0,
            rtt_ms: 60.0,
            direction: "down".into(),
            jitter_ms: 0.0,
            normal_jitter_ms: 0.0,
            reorder_pct: 0.0,
            duplicate_pct: 0.0,
            corrupt_pct: 0.0,
            ..first
        };
        let point = Point { transport: "tcp".into(), outer_cc: "cubic".into(), flow_queue: true, ..point };
        Job { seconds: INTERFERENCE_S, ..self.job(&point, 0) }
    }

    /// Measures all at the same time.
    fn together(&self, jobs: Vec<Job>) -> Result<Vec<Run>, Failure> {
        let runs: Option<Vec<Run>> = std::thread::scope(|scope| {
            let start = |(slot, job)| scope.spawn(move || child::run(&Job { slot, ..job }, &self.stop));
            let tasks: Vec<_> = jobs.into_iter().enumerate().map(start).collect();
            tasks.into_iter().map(|task| task.join().unwrap_or_default()).collect()
        });
        let runs = runs.ok_or_else(|| Failure::Check("stopped; the same command goes on".into()))?;
        let silence = |run: &Run| is_silent(run).then(|| "no frame of the call came".to_owned());
        match runs.iter().find_map(|run| run.failed.clone().or_else(|| silence(run))) {
            Some(why) => Err(Failure::Check(format!("the first measurement failed: {why}"))),
            None => Ok(runs),
        }
    }

    fn environment(&self, core: usize) -> serde_json::Value {
        let mut environment = environment(core);
        if let (Some(note), Some(fields)) = (&self.note, environment.as_object_mut()) {
            fields.insert("note".into(), note.as_str().into());
        }
        environment
    }

    /// Writes results and report of what is there.
    fn conclude(&self) -> Result<bool, Failure> {
        let cells: Vec<Cell> = self
            .points
            .iter()
            .map(|(group, point)| Cell {
                id: point::id(point),
                group: group.clone(),
                point: point.clone(),
                runs: (0..self.matrix.repetitions)
                    .filter_map(|repetition| self.store.found(&self.job(point, repetition)))
                    .collect(),
            })
            .collect();
        let core = affinity::allowed_cores().last().copied().unwrap_or(0);
        let results = Results {
            command: "lab".into(),
            version: VERSION,
            environment: self.environment(core),
            matrix: serde_json::to_value(&self.matrix).unwrap_or_default(),
            calibration: self.store.part("calibration.json").unwrap_or_default(),
            interference: self.store.part("interference.json").unwrap_or_default(),
            cells,
        };
        self.store.keep_part("results.json", &results)?;
        let written = report::write(&results, self.store.directory())?;
        println!("{}", report::terminal(&results));
        let path = written.first().map(|path| path.display().to_string()).unwrap_or_default();
        println!("{path} has the plots, {} the data", self.store.directory().join("results.json").display());
        let wanted = results.cells.len() * self.matrix.repetitions as usize;
        let made =
            results.cells.iter().flat_map(|cell| &cell.runs).filter(|run| run.failed.is_none()).count();
        let wrong = results.calibration.iter().filter(|row| !row.ok).count();
        if made < wanted {
            eprintln!(
                "{} of {wanted} measurements are missing; the same command goes on with them",
                wanted - made
            );
        }
        if wrong > 0 {
            eprintln!(
                "{wrong} points of the calibration are off: the machine is too busy to trust the figures"
            );
        }
        Ok(made == wanted && wrong == 0)
    }
}

fn compare(call: &Run, download: &Run, beside: &[Run]) -> Vec<InterferenceRow> {
    let goodput = |run: &Run| run.bulk.as_ref().map(|bulk| bulk.goodput_mbit);
    let delay = |run: &Run| run.voice.as_ref().map(|voice| voice.delay_ms.p99);
    let alone = (goodput(download).unwrap_or(0.0), delay(call).unwrap_or(0.0));
    let worst_goodput = beside.iter().filter_map(goodput).fold(f64::MAX, f64::min);
    let worst_delay = beside.iter().filter_map(delay).fold(0.0, f64::max);
    vec![
        InterferenceRow {
            paths: beside.len(),
            quantity: "goodput, Mbit/s, the least".into(),
            alone: alone.0,
            beside: worst_goodput,
            ok: worst_goodput >= alone.0 * (1.0 - GOODPUT_PCT / 100.0),
        },
        InterferenceRow {
            paths: beside.len(),
            quantity: "one-way delay of a call p99, ms".into(),
            alone: alone.1,
            beside: worst_delay,
            ok: worst_delay <= alone.1 + VOICE_MS,
        },
    ]
}

/// Whether there was a call and no frame of it came: it has neither delay nor score.
fn is_silent(run: &Run) -> bool {
    run.voice.as_ref().is_some_and(|voice| voice.received == 0)
}

fn in_short(run: &Run) -> String {
    if let Some(why) = &run.failed {
        return format!("failed: {why}");
    }
    let mut parts = Vec::new();
    if let Some(bulk) = &run.bulk {
        parts.push(format!("{:.2} Mbit/s", bulk.goodput_mbit));
    }
    if is_silent(run) {
        parts.push("voice: no frame came".into());
    } else if let Some(voice) = &run.voice {
        parts.push(format!("voice p99 {:.0} ms, MOS {:.1}", voice.delay_ms.p99, voice.mos));
    }
    if let Some(web) = &run.web {
        parts.push(format!("web p50 {:.0} ms", web.time_ms.p50));
    }
    if let Some(sip) = &run.sip {
        parts.push(format!("SIP p50 {:.0} ms", sip.time_ms.p50));
    }
    if let Some(imix) = &run.imix {
        parts.push(format!("IMIX lost {:.1} %", imix.lost_pct));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::results::Voice;

    #[test]
    fn a_call_of_which_no_frame_came_has_no_delay_and_no_score() {
        let call = |received| Run {
            voice: Some(Voice { sent: 100, received, mos: 1.0, ..Voice::default() }),
            ..Run::default()
        };
        assert_eq!(in_short(&call(0)), "voice: no frame came");
        assert_eq!(in_short(&call(1)), "voice p99 0 ms, MOS 1.0");
    }
}
