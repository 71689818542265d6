//! The TCP-in-TCP laboratory: `loadgen lab`.

pub mod report;
pub mod results;
pub mod work;
