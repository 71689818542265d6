//! iproute2, the tool every Linux host has for links, addresses, routes and namespaces.

use crate::error::Failure;
use std::process::Command;

/// Runs `ip ARGS` and returns its output.
///
/// # Errors
/// [`Failure::Environment`] with what it said.
pub fn ip(args: &[&str]) -> Result<String, Failure> {
    let output = Command::new("ip")
        .args(args)
        .output()
        .map_err(|error| Failure::Environment(format!("cannot run ip: {error}; install iproute2")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::Environment(format!("ip {}: {}", args.join(" "), said.trim())))
}
