//! What the programs `loadgen` and `bench` do around a command.

use crate::error::Failure;
use std::process::ExitCode;

/// Runs a command of `program`, logging to standard error as `RUST_LOG` says. The exit code is 0 when all its checks
/// hold, 1 when one does not, and that of the [`Failure`], whose text is printed.
pub fn run(program: &str, command: impl FnOnce() -> Result<bool, Failure>) -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    match command() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => {
            eprintln!("{program}: {failure}");
            failure.exit_code()
        }
    }
}
