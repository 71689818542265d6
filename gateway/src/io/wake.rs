//! Waking another thread: an eventfd.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

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
