//! The TCP-in-TCP laboratory: `loadgen lab`.

pub mod results;
pub mod work;
