//! How a command ends: the exit codes of the contract.

use std::fmt;
use std::io;
use std::process::ExitCode;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub enum Failure {
    /// A check or a peer failed: exit code 1.
    Failed(String),
    /// Wrong usage or configuration: exit code 2. One message per mistake.
    Config(Vec<String>),
    /// The environment lacks something, which the message names: exit code 3.
    Environment(String),
}

impl Failure {
    /// An operation of the system that failed, with what it was for. A missing privilege is named.
    pub fn system(what: impl fmt::Display, error: &io::Error) -> Self {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => " (missing privilege: run as root, or with CAP_NET_ADMIN)",
            io::ErrorKind::ResourceBusy | io::ErrorKind::AddrInUse => " (in use by another process)",
            io::ErrorKind::OutOfMemory => " (rings need more locked memory: raise RLIMIT_MEMLOCK, ulimit -l)",
            io::ErrorKind::Unsupported => " (missing kernel feature)",
            _ => "",
        };
        Self::Environment(format!("{what}: {error}{hint}"))
    }

    /// The exit code.
    pub fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failed(_) => 1,
            Self::Config(_) => 2,
            Self::Environment(_) => 3,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(message) | Self::Environment(message) => f.write_str(message),
            Self::Config(messages) => f.write_str(&messages.join("\n")),
        }
    }
}

impl std::error::Error for Failure {}
