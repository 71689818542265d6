//! `bench`: see `bench --help`.
#![forbid(unsafe_code)]

use bench::cli::{Cli, Command};
use bench::{path, peers, relay, roofline};
use clap::Parser;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Usage errors leave here with exit code 2.
    let cli = Cli::parse();
    loadgen::program::run("bench", || match &cli.command {
        Command::Path(args) => path::run(args),
        Command::Peers(args) => peers::run(args),
        Command::Relay(args) => relay::run(args),
        Command::Roofline(args) => roofline::run(args),
    })
}
