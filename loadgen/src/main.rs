//! `loadgen`: see `loadgen --help`.
#![forbid(unsafe_code)]

use clap::Parser;
use loadgen::cli::{Cli, Command};
use loadgen::{command, demo, program};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Usage errors leave here with exit code 2.
    let cli = Cli::parse();
    program::run("loadgen", || match &cli.command {
        Command::Demo(args) => demo::run(args),
        Command::Attach(args) => command::attach::run(args),
        Command::Traffic(args) => command::traffic::run(args),
        Command::Sink(args) => command::sink::run(args),
        Command::Ue(args) => command::ue::run(args),
        Command::Profiles => command::profiles::run(),
        Command::Lab(args) => command::lab::run(args),
        Command::LabCell { job } => command::lab::cell(job),
        Command::Path(args) => command::path::run(args),
        Command::Abuse(args) => command::abuse::run(args),
    })
}
