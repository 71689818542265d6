//! Administration: the control socket, the HTTP listener, and the key log.
//!
//! All of them run beside the control loop on the same thread and talk to it by messages; the loop alone
//! reads the responder. Nothing here ever waits for a worker.

pub mod api;
pub mod http;
pub mod keylog;
pub mod metrics;
pub mod socket;
