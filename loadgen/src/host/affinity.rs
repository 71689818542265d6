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

/// Pins the kernel's threads whose name starts with `prefix` to a core; returns how many there are.
pub fn pin_kernel_threads(prefix: &str, core: usize) -> usize {
    let mut set = CpuSet::new();
    if set.set(core).is_err() {
        return 0;
    }
    let Ok(processes) = std::fs::read_dir("/proc") else { return 0 };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let named = pids.filter(|pid| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with(prefix))
    });
    named.filter(|pid| sched_setaffinity(Pid::from_raw(*pid), &set).is_ok()).count()
}
