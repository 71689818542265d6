//! Several rings behind one thread: RLIMIT_NOFILE bounds the table of each.

use super::ring::{Completion, Ring};
use crate::error::Failure;
use crate::host::privilege;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

/// Most connections of a ring, where the limit allows more.
const SLOTS_MAX: u32 = 16_384;

/// Rings with a slot for every UE: UE `u` has slot `u % slots` of ring `u / slots`.
pub(super) struct Rings {
    rings: Vec<Ring>,
    slots: u32,
}

impl Rings {
    /// Makes as many rings as `ues` connections take.
    ///
    /// # Errors
    /// [`Failure::Environment`] when the kernel gives none.
    pub(super) fn new(ues: u32) -> Result<Self, Failure> {
        let slots = SLOTS_MAX.min(privilege::raise_files()).min(ues).max(1);
        let rings: io::Result<Vec<Ring>> = (0..ues.div_ceil(slots)).map(|_| Ring::new(slots)).collect();
        let rings = rings.map_err(|error| {
            Failure::Environment(format!(
                "cannot set up io_uring with direct descriptors: {error}; it needs Linux 6.1 or later, \
                 kernel.io_uring_disabled = 0 and no seccomp filter against it; or use --engine tokio"
            ))
        })?;
        Ok(Self { rings, slots })
    }

    /// Returns the ring and the slot of a UE.
    pub(super) fn place(&mut self, ue: u32) -> (&mut Ring, u32) {
        (&mut self.rings[(ue / self.slots) as usize], ue % self.slots)
    }

    /// Submits what is queued everywhere; when nothing has completed, waits for something, at most `timeout`.
    pub(super) fn turn(&mut self, timeout: Duration) -> Result<(), Failure> {
        let mut busy = false;
        for ring in &mut self.rings {
            ring.submit().map_err(|error| Failure::Environment(format!("io_uring: {error}")))?;
            busy |= ring.is_busy();
        }
        if !busy && !timeout.is_zero() {
            let mut watched: Vec<PollFd<'_>> =
                self.rings.iter().map(|ring| PollFd::new(ring.as_fd(), PollFlags::POLLIN)).collect();
            let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
            match poll(&mut watched, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(Failure::Environment(format!("poll: {error}"))),
            }
        }
        Ok(())
    }

    /// Returns the next completion and the first UE of its ring.
    pub(super) fn complete(&mut self) -> Option<(u32, Completion)> {
        let slots = self.slots;
        (0..).zip(&mut self.rings).find_map(|(at, ring)| Some((at * slots, ring.complete()?)))
    }
}
