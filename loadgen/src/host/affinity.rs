//! Pinning the calling thread to a core.

use crate::error::Failure;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Returns the cores that the calling thread may run on, in ascending order.
pub fn allowed_cores() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else { return vec![0] };
    (0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).collect()
}

/// Pins the calling thread, and all that it starts from now on, to one core.
///
/// # Errors
/// See [`pin_to`].
pub fn pin(core: usize) -> Result<(), Failure> {
    pin_to(&[core])
}

/// Confines the calling thread, and all that it starts from now on, to `cores`.
///
/// # Errors
/// [`Failure::Usage`] when one does not exist or none is allowed.
pub fn pin_to(cores: &[usize]) -> Result<(), Failure> {
    let explain = |error| {
        Failure::Usage(format!(
            "cannot run on core {cores:?}: {error}; allowed here are {:?}",
            allowed_cores()
        ))
    };
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core).map_err(explain)?;
    }
    sched_setaffinity(Pid::from_raw(0), &set).map_err(explain)
}
