//! Many UEs on one thread and one core: on one tokio-uring, or, beyond what the process may have open files, on several
//! rings with direct descriptors ([`raw`]).
//!
//! On tokio-uring each UE has a connection with a reader task and a writer task; both are idle most of the time, and
//! neither exists per packet. The writer *pulls*: whenever the connection can take more it asks the UE for IKE messages,
//! control packets, acknowledgements and data, in this order, sealed straight into the buffer it then writes. So nothing
//! queues behind a slow connection, and a write carries as many frames as there are.

mod congestion;
mod connect;
mod connection;
mod corruption;
mod datagram;
mod fleet;
mod inner;
mod link;
pub mod raw;
mod source;
mod tls;
pub mod traffic;
mod tunnel;

pub use congestion::Congestion;
pub use fleet::{AttachOutcome, DetachOutcome, Fleet, FleetPlan, HoldOutcome};
pub use inner::{Cut, Inner, Sealer};
pub use link::{Ue, UeState};
pub use source::SourceSpread;
pub use tls::TlsSettings;

use crate::error::Failure;
use std::future::Future;

/// Submission queue entries of the ring: more than a turn of the runtime queues.
const RING_ENTRIES: u32 = 4096;
/// Completion queue entries: a read and a write of every UE may complete at once.
const COMPLETION_ENTRIES: u32 = 32_768;

/// Runs `future` on a new io_uring runtime in this thread.
///
/// # Errors
/// [`Failure::Environment`] when the kernel gives no ring.
pub fn run<F: Future>(future: F) -> Result<F::Output, Failure> {
    let mut ring = tokio_uring::uring_builder();
    ring.setup_cqsize(COMPLETION_ENTRIES);
    let mut builder = tokio_uring::builder();
    builder.entries(RING_ENTRIES).uring_builder(&ring);
    let runtime = tokio_uring::Runtime::new(&builder).map_err(|error| {
        Failure::Environment(format!(
            "cannot set up io_uring: {error}; it needs Linux 5.11 or later, kernel.io_uring_disabled = 0 and no seccomp filter against it"
        ))
    })?;
    Ok(runtime.block_on(future))
}
