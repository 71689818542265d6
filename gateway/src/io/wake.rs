//! Waking another thread: an eventfd.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::check;

/// Wakes the thread that waits on the descriptor; wakes between two waits merge into one.
///
/// The waker pushes its message into a queue first and calls [`Wake::wake`] second; the woken thread
/// calls [`Wake::clear`] first and empties the queue second, so no message is left unseen.
#[derive(Debug)]
pub struct Wake {
    file: File,
}

impl Wake {
    /// Makes an eventfd, non-blocking and closed on exec.
    ///
    /// # Errors
    /// When the process or the system is out of descriptors.
    pub fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers; the descriptor it returns belongs to nobody else yet.
        let file = unsafe {
            let fd = check(libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC))?;
            File::from_raw_fd(fd)
        };
        Ok(Self { file })
    }

    /// Makes the descriptor readable.
    pub fn wake(&self) {
        // The write fails only when the counter is full, and then the descriptor is readable already.
        let _ = (&self.file).write(&1u64.to_ne_bytes());
    }

    /// Makes the descriptor unreadable until the next [`Wake::wake`].
    pub fn clear(&self) {
        let mut counter = [0; 8];
        // Nothing to read means nobody woke us: also cleared.
        let _ = (&self.file).read(&mut counter);
    }

    /// A second handle to the same eventfd.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { file: self.file.try_clone()? })
    }
}

/// The waiting end of a [`Wake`] on a tokio runtime.
pub struct AsyncWake(AsyncFd<Wake>);

impl AsyncWake {
    /// Watches `wake` from the current runtime.
    ///
    /// # Errors
    /// When the runtime cannot watch it.
    pub fn new(wake: Wake) -> io::Result<Self> {
        // SAFETY: a `Wake` owns its descriptor from first to last and never replaces it, and `AsyncFd` owns
        // the `Wake`, so the descriptor registered stays open and the same while it is registered.
        let fd = unsafe { AsyncFd::register_with_interest(wake, Interest::READABLE) }?;
        Ok(Self(fd))
    }

    /// Waits until woken and clears the wake; the caller then empties its queue. Cancelling it loses no
    /// wake.
    pub async fn woken(&self) {
        if let Ok(mut ready) = self.0.readable().await {
            self.0.get_ref().clear();
            ready.clear_ready();
        }
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for Wake {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl From<Wake> for OwnedFd {
    fn from(wake: Wake) -> Self {
        wake.file.into()
    }
}
