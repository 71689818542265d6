//! Why a command ends early, and the exit code that says so.

use std::process::ExitCode;

/// A failure that ends the command; the text says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A check or the peer failed: exit code 1.
    #[error("{0}")]
    Check(String),
    /// Wrong usage or configuration: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// A missing privilege, program or kernel feature: exit code 3.
    #[error("{0}")]
    Environment(String),
}

impl Failure {
    /// Returns the process exit code of the contract: 1 check, 2 usage, 3 environment.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Check(_) => 1,
            Self::Usage(_) => 2,
            Self::Environment(_) => 3,
        })
    }
}
