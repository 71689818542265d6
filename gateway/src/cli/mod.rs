//! The commands of `swugate`.

mod originate;
mod relay;
mod run;
mod show;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::admin::api::Request;
use crate::admin::socket;
use crate::config;
use crate::error::Failure;

/// Time a running gateway has to answer a command.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// RFC 9329 (IKEv2 and ESP in TCP) gateway for carrier load.
#[derive(Parser)]
#[command(name = "swugate", version, about)]
struct Cli {
    /// Configuration file.
    #[arg(short, long, global = true, value_name = "FILE", default_value = config::DEFAULT_FILE)]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway in the foreground; SIGTERM drains, SIGHUP reloads.
    Run,
    /// Check the configuration and the files it names.
    Check,
    /// Show the sessions of the running gateway.
    Sessions {
        /// As a JSON array.
        #[arg(long)]
        json: bool,
        /// The latest attempts to attach that failed, and why.
        #[arg(long)]
        failed: bool,
        /// With --failed: only those of this IMSI or identity.
        #[arg(long, requires = "failed")]
        idi: Option<String>,
    },
    /// Show counters, rates and drops of the running gateway.
    Stats {
        /// As a JSON object.
        #[arg(long)]
        json: bool,
        /// Again every second, with rates over that second.
        #[arg(long)]
        watch: bool,
    },
    /// Delete sessions: DELETE to the UE, then close.
    Terminate {
        /// Which.
        #[command(flatten)]
        target: Target,
        /// Ask phones to attach again at once, as when their P-CSCFs have failed.
        #[arg(long)]
        reactivate: bool,
    },
    /// Have phones go to the P-CSCFs of their profile as they are now: told so if they can be, else asked to attach again.
    Reselect {
        /// Which.
        #[command(flatten)]
        target: Target,
    },
    /// Take no new sessions, delete all, then end the gateway.
    Drain {
        /// Seconds until it ends whether or not all UEs have answered.
        #[arg(long, value_name = "S", default_value_t = 30)]
        timeout: u32,
    },
    /// Read the configuration, certificates and CRLs again; sessions stay.
    Reload,
    /// Take UDP 500 and 4500 of IKE clients to a gateway over TCP (RFC 9329); needs no configuration.
    Originate(originate::Originate),
    /// Log every IKE message of one UE, payload by payload and without keys; `off` ends it.
    Trace {
        /// Its identity or IMSI, or `off`.
        idi: String,
    },
    /// Write keys for Wireshark; needs `debug.keylog = true`.
    Keylog {
        #[command(subcommand)]
        action: Keylog,
    },
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Target {
    /// The session's id, as `sessions` shows it.
    id: Option<u64>,
    /// All sessions of this UE identity.
    #[arg(long)]
    idi: Option<String>,
    /// All sessions of this profile.
    #[arg(long)]
    profile: Option<String>,
}

#[derive(Subcommand)]
enum Keylog {
    /// Write `ikev2_decryption_table` and `esp_sa` into a directory.
    Start {
        /// The directory; made if missing, readable by its owner only.
        file: PathBuf,
    },
    /// Stop writing.
    Stop {
        /// Accepted for symmetry; there is one key log at a time.
        file: Option<PathBuf>,
    },
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            failure.code()
        }
    }
}

fn execute(cli: Cli) -> Result<(), Failure> {
    let file = cli.config.as_path();
    let request = match cli.command {
        Command::Run => return run::run(file),
        Command::Check => return check(file),
        Command::Originate(options) => return originate::run(&options),
        Command::Sessions { json, failed: true, idi } => {
            return show::failed(&config::run_dir(file), json, idi);
        }
        Command::Sessions { json, failed: false, idi: _ } => {
            return show::sessions(&config::run_dir(file), json);
        }
        Command::Stats { json, watch } => return show::stats(&config::run_dir(file), json, watch),
        Command::Terminate { target: Target { id, idi, profile }, reactivate } => {
            Request::Terminate { id, idi, profile, reactivate }
        }
        Command::Reselect { target: Target { id, idi, profile } } => Request::Reselect { id, idi, profile },
        Command::Drain { timeout } => Request::Drain { timeout_s: timeout },
        Command::Reload => Request::Reload,
        Command::Trace { idi } => Request::Trace { idi: (idi != "off").then_some(idi) },
        Command::Keylog { action: Keylog::Start { file } } => Request::KeylogStart { dir: absolute(&file)? },
        Command::Keylog { action: Keylog::Stop { file: _ } } => Request::KeylogStop,
    };
    let timeout = match request {
        Request::Drain { timeout_s } => ANSWER_TIMEOUT + Duration::from_secs(timeout_s.into()),
        _ => ANSWER_TIMEOUT,
    };
    let answer = socket::ask(&config::run_dir(file), &request, timeout)?;
    println!("{}", answer.as_str().unwrap_or_default());
    Ok(())
}

/// The gateway resolves paths against its own directory, not the caller's.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))
}

fn check(file: &Path) -> Result<(), Failure> {
    let config = config::load(file).map_err(config_failure)?;
    for warning in &config.warnings {
        eprintln!("warning: {warning}");
    }
    println!("{}: ok", file.display());
    Ok(())
}

fn config_failure(errors: Vec<config::ConfigError>) -> Failure {
    Failure::Config(errors.iter().map(ToString::to_string).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn terminate_takes_an_id_or_an_identity_but_not_both() {
        for (args, fits) in [
            (&["terminate", "7"][..], true),
            (&["terminate", "--idi", "alice@test"], true),
            (&["terminate", "7", "--idi", "alice@test"], false),
            (&["terminate"], false),
            (&["terminate", "seven"], false),
            (&["sessions", "--json", "-c", "x.toml"], true),
            (&["keylog", "start", "dir"], true),
            (&["keylog", "start"], false),
            (&["originate", "--listen", "127.0.0.1", "--gateway", "gw.test:4500"], true),
            (&["originate", "--listen", "::1", "--gateway", "gw.test:4500", "--udp-first", "--tls"], true),
            (&["originate", "--listen", "::1", "--gateway", "g:1", "--udp-first", "0"], false),
            (&["originate", "--gateway", "gw.test:4500"], false),
            (&["launch"], false),
        ] {
            let parsed = Cli::try_parse_from(["swugate"].iter().chain(args));
            assert_eq!(parsed.is_ok(), fits, "{args:?}");
        }
    }
}
