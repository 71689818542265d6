//! Placing and measuring threads.

use std::io;
use std::mem;
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::check;

/// Starts a thread that makes what it works with itself, since nobody else may use it, and then runs it; returns when it is
/// made.
///
/// # Errors
/// When the thread cannot be started, or what `make` says.
pub fn start<T>(
    name: String,
    make: impl FnOnce() -> io::Result<T> + Send + 'static,
    run: impl FnOnce(T) + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let (ready, started) = mpsc::sync_channel(1);
    let thread = Builder::new().name(name).spawn(move || match make() {
        Ok(made) => {
            let _ = ready.send(Ok(()));
            run(made);
        }
        Err(error) => {
            let _ = ready.send(Err(error));
        }
    })?;
    started.recv().map_err(|_| io::Error::other("the worker ended before it was ready"))??;
    Ok(thread)
}

/// Pins the calling thread to `core`.
///
/// # Errors
/// When the core does not exist or the process may not run on it.
pub fn pin_to_core(core: usize) -> io::Result<()> {
    if core >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: an all-zero cpu_set_t is the empty set; CPU_SET stays inside it because `core` is below
    // CPU_SETSIZE; the set outlives the call.
    unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        libc::CPU_SET(core, &mut set);
        check(libc::sched_setaffinity(0, mem::size_of_val(&set), &set))?;
    }
    Ok(())
}

/// CPU time the calling thread has used.
pub fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writing and outlives the call, which cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Cores the process may run on, in rising order.
pub fn allowed_cores() -> Vec<usize> {
    // SAFETY: an all-zero cpu_set_t is a valid value to be overwritten; it outlives the call; CPU_ISSET is
    // asked only for bits below CPU_SETSIZE.
    unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        if libc::sched_getaffinity(0, mem::size_of_val(&set), &mut set) != 0 {
            return vec![0];
        }
        (0..libc::CPU_SETSIZE as usize).filter(|&core| libc::CPU_ISSET(core, &set)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_to_an_allowed_core_and_refuses_a_missing_one() {
        std::thread::spawn(|| {
            let core = *allowed_cores().last().expect("at least one core");
            pin_to_core(core).expect("allowed");
            assert_eq!(allowed_cores(), [core]);
            assert!(pin_to_core(usize::MAX).is_err());
        })
        .join()
        .expect("no panic");
    }
}
