//! The control thread: every IKE SA, the address pools, timers and administration.

pub mod pki;
pub mod pool;
pub mod responder;
