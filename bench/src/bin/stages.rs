//! Runs one stage a fixed number of times, for valgrind to count its instructions: `deploy/perf/instructions`.
//!
//! Without an argument it names the stages; with one it prints the packets handled.
#![forbid(unsafe_code)]

use bench::stage::{STAGES, Stage, find};
use codec::esp::backend::{self, Backend};
use std::process::ExitCode;

/// Runs that are counted, behind one that is not: the first one allocates and fills caches of keys.
const RUNS: usize = 4;

/// The only function whose instructions are counted.
#[inline(never)]
fn measured(stage: &mut dyn Stage) {
    stage.run();
}

fn main() -> ExitCode {
    let Some(name) = std::env::args().nth(1) else {
        STAGES.iter().for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    };
    let Some(mut stage) = find(&name) else {
        eprintln!("stages: there is no {name}");
        return ExitCode::from(2);
    };
    // The library that every machine has: what is counted must not depend on the processor.
    if let Err(unavailable) = backend::force(Some(Backend::AwsLc)) {
        eprintln!("stages: {unavailable}");
        return ExitCode::from(3);
    }
    stage.prepare();
    stage.run();
    for _ in 0..RUNS {
        stage.prepare();
        measured(stage.as_mut());
    }
    println!("{}", RUNS * stage.packets());
    ExitCode::SUCCESS
}
