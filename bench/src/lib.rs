//! Measures the gateway.
//!
//! `path` drives a real swugate with loadgen's UEs in namespaces of their own and says what a core of it carries;
//! `roofline` measures the stages of that path alone in the same run and says how much of their limit the path
//! reaches; `peers` puts other tunnel gateways on the same path. `stage` holds fixed pieces of work that are timed and
//! counted in instructions; `benches/` has the criterion benches, one per stage.
#![forbid(unsafe_code)]

pub mod bed;
pub mod cli;
pub mod machine;
pub mod path;
pub mod peers;
pub mod relay;
pub mod report;
pub mod roofline;
pub mod stage;
