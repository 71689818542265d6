//! Checks made before the first thing fails half-way.

use crate::error::Failure;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Refuses to go on without root.
///
/// # Errors
/// [`Failure::Environment`] naming what the privilege is needed for.
pub fn require_root(purpose: &str) -> Result<(), Failure> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::Environment(format!(
        "{purpose} needs root (CAP_NET_ADMIN, CAP_SYS_ADMIN); run it with sudo"
    )))
}

/// Raises the soft limit on open files to the hard one and returns it.
pub fn raise_files() -> u32 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 1024 };
    let raised = soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    u32::try_from(if raised { hard } else { soft }).unwrap_or(u32::MAX)
}

/// Raises the soft limit on open files to the hard one and checks that `wanted` more fit.
///
/// # Errors
/// [`Failure::Environment`] naming the limit.
pub fn require_files(wanted: u64) -> Result<(), Failure> {
    let hard = u64::from(raise_files());
    if wanted + 64 > hard {
        return Err(Failure::Environment(format!(
            "{wanted} connections need more open files than RLIMIT_NOFILE allows ({hard}); raise it (ulimit -Hn) or use fewer --ues"
        )));
    }
    Ok(())
}
