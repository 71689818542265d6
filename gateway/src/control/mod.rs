//! The control thread: every IKE SA, the address pools, timers and administration.

pub mod aaa;
pub mod administration;
pub mod attach;
pub mod attempts;
pub mod dispatch;
pub mod engine;
pub mod inner;
pub mod namespace;
pub mod pki;
pub mod pool;
pub mod responder;
pub mod run;
pub mod stats;
