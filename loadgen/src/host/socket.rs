//! Sockets of the kernel that give up after a while.

use std::io::{self, ErrorKind};

/// Whether a call only ran out of its time limit.
pub fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
