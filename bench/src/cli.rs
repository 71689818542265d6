//! Command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Measures swugate on this machine: stages, the whole path, and other gateways on the same path (needs root).
#[derive(Debug, Parser)]
#[command(name = "bench", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Measures the stages alone and the whole path, and prints the path's share of the stages' limit
    Roofline(RooflineArgs),
    /// Measures the whole path: swugate on its cores, UEs and far end on another
    Path(PathArgs),
    /// Measures swugate beside other tunnel gateways with iperf3 and ping
    Peers(PeersArgs),
    /// Measures a relay worker: ESP from TCP to UDP and back, without keys
    Relay(RelayArgs),
}

/// Where the programs are and where the report goes.
#[derive(Args, Clone, Debug)]
pub struct CommonOptions {
    /// The gateway binary [default: swugate beside this program]
    #[arg(long, value_name = "FILE")]
    pub swugate: Option<PathBuf>,
    /// Writes the report as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// `roofline`
#[derive(Args, Clone, Debug)]
pub struct RooflineArgs {
    /// Programs and report.
    #[command(flatten)]
    pub common: CommonOptions,
    /// Seconds of each stage and of each run of the path
    #[arg(long, value_name = "S", default_value_t = 1.5, value_parser = positive)]
    pub seconds: f64,
    /// How often everything is measured; of each figure the median is taken
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=99))]
    pub rounds: u16,
}

/// `path`
#[derive(Args, Clone, Debug)]
pub struct PathArgs {
    /// Programs and report.
    #[command(flatten)]
    pub common: CommonOptions,
    /// Runs only the scenarios whose name contains this; may be repeated
    #[arg(long, value_name = "TEXT")]
    pub scenario: Vec<String>,
    /// Names the scenarios and ends
    #[arg(long)]
    pub list: bool,
    /// Seconds of each scenario or probe [default: 3, with --latency 6]
    #[arg(long, value_name = "S", value_parser = positive)]
    pub seconds: Option<f64>,
    /// Numbers of workers, one after the other
    #[arg(long, value_name = "N,N", default_value = "1", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=64))]
    pub workers: Vec<u16>,
    /// Whether the inner devices carry super-packets (TSO, USO)
    #[arg(long, value_enum, default_value_t = Choice::Both)]
    pub offloads: Choice,
    /// Whether downlink packets wait in flow queues
    #[arg(long, value_enum, default_value_t = Choice::On)]
    pub flow_queue: Choice,
    /// Measures latency at parts of the full rate and beside bulk instead of rates
    #[arg(long)]
    pub latency: bool,
}

/// `peers`
#[derive(Args, Clone, Debug)]
pub struct PeersArgs {
    /// Programs and report.
    #[command(flatten)]
    pub common: CommonOptions,
    /// The peers beside swugate [default: openvpn-tcp ocserv softether strongswan]
    pub peers: Vec<String>,
    /// Seconds of each run of iperf3
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub seconds: u32,
    /// Runs of which the median counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub repeat: u32,
    /// Leaves the round trips out
    #[arg(long)]
    pub no_round_trips: bool,
    /// Directory of the peers' scripts
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/peers"))]
    pub kit: PathBuf,
    /// Measures although other processes use the machine
    #[arg(long)]
    pub no_wait: bool,
}

/// `relay`
#[derive(Args, Clone, Debug)]
pub struct RelayArgs {
    /// Programs and report.
    #[command(flatten)]
    pub common: CommonOptions,
    /// Seconds of each run
    #[arg(long, value_name = "S", default_value_t = 3.0, value_parser = positive)]
    pub seconds: f64,
}

/// Which settings of a switch to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Choice {
    /// On.
    On,
    /// Off.
    Off,
    /// One after the other.
    Both,
}

impl Choice {
    /// Returns the settings to go through.
    pub fn settings(self) -> &'static [bool] {
        match self {
            Self::On => &[true],
            Self::Off => &[false],
            Self::Both => &[true, false],
        }
    }
}

fn positive(text: &str) -> Result<f64, String> {
    text.parse::<f64>()
        .ok()
        .filter(|number| number.is_finite() && *number > 0.0)
        .ok_or_else(|| "a number above 0".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
