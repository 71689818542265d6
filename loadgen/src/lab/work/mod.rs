//! What runs inside the tunnel, on sockets of the kernel: at the UE's end, and at the far end.

pub mod bulk;
mod datagram;
pub mod emodel;
mod exchange;
pub mod imix;
pub mod playout;
mod run;
pub mod sip;
mod tcp;
pub mod voice;
pub mod web;
mod workload;

pub use run::{Options, Outcome, run};
pub use workload::{Transport, Workload};

use crate::host::netns;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

/// How long packets and answers may come after the end of a window.
const DRAIN: Duration = Duration::from_millis(1500);

/// One end of what is measured.
#[derive(Clone, Debug)]
pub struct End {
    /// Namespace where sockets are opened; `None` is the thread's own.
    pub namespace: Option<String>,
    /// Address to bind to, inside the tunnel.
    pub address: Ipv4Addr,
}

impl End {
    /// Opens a socket at this end; it stays there wherever it is used.
    ///
    /// # Errors
    /// Those of `open`, and of entering the namespace.
    pub fn open<T: Send>(&self, open: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        match &self.namespace {
            // What refuses is told as it is, so that callers can tell errors apart.
            Some(namespace) => {
                let inside = netns::inside(namespace, || Ok(open()));
                inside.unwrap_or_else(|failure| Err(io::Error::other(failure.to_string())))
            }
            None => open(),
        }
    }
}

/// Both ends, in the direction of the cell: `from` sends what is measured.
#[derive(Clone, Debug)]
pub struct Ends {
    /// The sender of bulk and mixed traffic; the server of requests.
    pub from: End,
    /// Its receiver; the client of requests.
    pub to: End,
}

/// When to measure, on [`crate::host::clock::monotonic_ns`].
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Begin of the measurement; what happens before is warm-up.
    pub begin_ns: u64,
    /// How long.
    pub length: Duration,
}

impl Window {
    /// Returns the end of the measurement.
    pub fn end_ns(&self) -> u64 {
        self.begin_ns + self.length.as_nanos() as u64
    }

    /// Returns when the last packet or answer may come; later ones are lost.
    fn drained_ns(&self) -> u64 {
        self.end_ns() + DRAIN.as_nanos() as u64
    }

    /// Whether `at_ns` is inside.
    pub fn contains(&self, at_ns: u64) -> bool {
        (self.begin_ns..self.end_ns()).contains(&at_ns)
    }
}
