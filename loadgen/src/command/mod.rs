//! The commands: options in, report and exit code out.

pub mod abuse;
pub mod attach;
pub mod lab;
pub mod load;
mod options;
pub mod path;
pub mod profiles;
mod sim;
pub mod sink;
pub mod traffic;
pub mod ue;

pub use options::{Prepared, environment, read_psk_config};
