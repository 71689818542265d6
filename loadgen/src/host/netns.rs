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

/// Does `work` in a thread of its own inside `namespace`: a namespace is entered for good.
///
/// # Errors
/// Those of `work`, and of [`enter`].
pub fn inside<T: Send>(
    namespace: &str,
    work: impl FnOnce() -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    std::thread::scope(|scope| {
        let task = scope.spawn(|| enter(namespace).and_then(|()| work()));
        task.join().unwrap_or_else(|_| Err(Failure::Environment("the thread panicked".into())))
    })
}
