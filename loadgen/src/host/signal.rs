//! SIGINT and SIGTERM.

use crate::error::Failure;
use nix::sys::signal::{SigSet, Signal};

/// Calls `handler` in a thread of its own at the first SIGINT, SIGTERM or SIGHUP, and ends the process at the second.
///
/// Must be called before other threads start, because it blocks the signals in the calling thread and thereby in all
/// threads that come from it.
///
/// # Errors
/// [`Failure::Environment`] when the signals cannot be blocked.
pub fn on_termination(handler: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block().map_err(|error| Failure::Environment(format!("blocking signals: {error}")))?;
    std::thread::spawn(move || {
        if signals.wait().is_ok() {
            handler();
        }
        if signals.wait().is_ok() {
            std::process::exit(1);
        }
    });
    Ok(())
}
