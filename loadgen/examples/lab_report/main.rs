//! Writes the report of a synthetic study: `lab_report DIR`. Nothing in it was measured.

mod sample;

use loadgen::lab::report;
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(dir) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: lab_report DIR");
        return ExitCode::from(2);
    };
    match report::write(&sample::results(), &dir) {
        Ok(written) => {
            print!("{}", report::terminal(&sample::results()));
            println!("wrote {} files to {}", written.len(), dir.display());
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit_code()
        }
    }
}
