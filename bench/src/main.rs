//! `bench`: see `bench --help`.
#![forbid(unsafe_code)]

use bench::cli::{Cli, Command};
use bench::{path, peers, roofline};
use clap::Parser;
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
        Command::Path(args) => path::run(args),
        Command::Peers(args) => peers::run(args),
        Command::Roofline(args) => roofline::run(args),
    };
    match clean {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => {
            eprintln!("bench: {failure}");
            failure.exit_code()
        }
    }
}
