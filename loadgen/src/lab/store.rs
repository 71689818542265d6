//! What a study keeps on disk, so that it goes on where it was interrupted.
//!
//! `OUT/runs/POINT.REPETITION.json` is one measurement with the job it answers; a file that answers another job, such
//! as one of other seconds or another seed, counts as absent.

use super::cell::Job;
use super::point;
use super::results::Run;
use crate::error::Failure;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The directory of a study.
pub(super) struct Store {
    directory: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    job: Job,
    run: Run,
}

impl Store {
    /// Opens or makes the directory; `fresh` forgets what is there.
    pub(super) fn open(directory: &Path, fresh: bool) -> Result<Self, Failure> {
        let runs = directory.join("runs");
        fs::create_dir_all(&runs).map_err(|error| unwritten(&runs, &error))?;
        let store = Self { directory: directory.to_owned() };
        if fresh {
            store.forget().map_err(|error| unwritten(directory, &error))?;
        }
        Ok(store)
    }

    /// Removes every measurement: those of points, of the emulator, and of what paths do to each other.
    fn forget(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            // The directory may hold other things of its owner.
            if name == "calibration.json" || name.starts_with("interference") && name.ends_with(".json") {
                fs::remove_file(path)?;
            }
        }
        let runs = self.directory.join("runs");
        fs::remove_dir_all(&runs)?;
        fs::create_dir(&runs)
    }

    /// Returns the directory.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns what is kept of a job, failures included.
    pub(super) fn found(&self, job: &Job) -> Option<Run> {
        let kept: Kept = read(&self.path(job))?;
        kept.job.asks_the_same(job).then_some(kept.run)
    }

    /// Returns what was measured of a job; failures are measured again.
    pub(super) fn find(&self, job: &Job) -> Option<Run> {
        self.found(job).filter(|run| run.failed.is_none())
    }

    /// Keeps what a job found.
    pub(super) fn keep(&self, job: &Job, run: &Run) -> Result<(), Failure> {
        write(&self.path(job), &Kept { job: job.clone(), run: run.clone() })
    }

    /// Returns the part `name` kept before.
    pub(super) fn part<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        read(&self.directory.join(name))
    }

    /// Keeps a part.
    pub(super) fn keep_part(&self, name: &str, part: &impl Serialize) -> Result<(), Failure> {
        write(&self.directory.join(name), part)
    }

    fn path(&self, job: &Job) -> PathBuf {
        self.directory.join("runs").join(format!("{}.{}.json", point::id(&job.point), job.repetition))
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Writes whole or not at all: an interruption leaves no half file under the name.
fn write(path: &Path, part: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_vec_pretty(part).map_err(|error| Failure::Environment(error.to_string()))?;
    let beside = path.with_extension("json.new");
    fs::write(&beside, text).map_err(|error| unwritten(&beside, &error))?;
    fs::rename(&beside, path).map_err(|error| unwritten(path, &error))
}

fn unwritten(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Environment(format!("cannot write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_is_found_again_only_by_the_same_job() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), false).unwrap();
        let (_, point) = crate::lab::matrix::Matrix::read(None).unwrap().points().unwrap()[0].clone();
        let job = Job { point, repetition: 0, seed: 7, seconds: 5.0, warm_up: 1.0, swugate: None, slot: 0 };
        store.keep(&job, &Run { seconds: 5.0, ..Run::default() }).unwrap();
        assert!(store.find(&Job { slot: 1, ..job.clone() }).is_some());
        assert!(store.find(&Job { seconds: 6.0, ..job.clone() }).is_none());
        assert!(store.find(&Job { repetition: 1, ..job.clone() }).is_none());
        store.keep(&job, &Run { failed: Some("no".into()), ..Run::default() }).unwrap();
        assert!(store.find(&job).is_none());
        store.keep(&job, &Run::default()).unwrap();
        store.keep_part("interference-4.json", &4).unwrap();
        assert_eq!(Store::open(directory.path(), false).unwrap().part("interference-4.json"), Some(4));
        fs::write(directory.path().join("mine.json"), "1").unwrap();
        let fresh = Store::open(directory.path(), true).unwrap();
        assert_eq!(fresh.part("mine.json"), Some(1));
        assert!(fresh.find(&job).is_none() && fresh.part::<u32>("interference-4.json").is_none());
    }
}
