//! `loadgen`: see `loadgen --help`.
#![forbid(unsafe_code)]

use clap::Parser;
use loadgen::cli::{Cli, Command};
use loadgen::{command, demo};
use mimalloc::MiMalloc;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    // Usage errors leave here with exit code 2.
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let clean = match &cli.command {
        Command::Demo(args) => demo::run(args),
        Command::Attach(args) => command::attach::run(args),
        Command::Traffic(args) => command::traffic::run(args),
        Command::Sink(args) => command::sink::run(args),
        Command::Ue(args) => command::ue::run(args),
    };
    match clean {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => {
            eprintln!("loadgen: {failure}");
            failure.exit_code()
        }
    }
}
