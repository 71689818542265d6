//! `loadgen lab`

use crate::cli::LabArgs;
use crate::error::Failure;
use crate::lab::cell::{self, Job};
use crate::lab::study;

/// Runs a study; returns whether every measurement was made.
///
/// # Errors
/// See [`study::run`].
pub fn run(args: &LabArgs) -> Result<bool, Failure> {
    study::run(args)
}

/// Makes the one measurement that `job` describes and prints what came of it.
///
/// # Errors
/// See [`cell::run`].
pub fn cell(job: &str) -> Result<bool, Failure> {
    let job: Job = serde_json::from_str(job).map_err(|error| Failure::Usage(format!("the job: {error}")))?;
    let run = cell::run(&job)?;
    println!("{}", serde_json::to_string(&run).map_err(|error| Failure::Check(error.to_string()))?);
    Ok(true)
}
