//! Network namespaces by name, as `ip netns` makes them.

use crate::error::Failure;
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::path::PathBuf;

/// Moves the calling thread, and all that it starts from now on, into the namespace `name`.
///
/// # Errors
/// [`Failure::Environment`] when it does not exist or the privilege is missing.
pub fn enter(name: &str) -> Result<(), Failure> {
    let path = PathBuf::from("/run/netns").join(name);
    let explain = |error: &dyn std::fmt::Display| {
        Failure::Environment(format!("cannot enter network namespace {name}: {error}; this needs root"))
    };
    let file = File::open(&path).map_err(|error| explain(&error))?;
    setns(file, CloneFlags::CLONE_NEWNET).map_err(|error| explain(&error))
}
