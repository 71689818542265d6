//! swugate: an RFC 9329 TCP Responder and IKEv2/IPsec gateway.

pub mod admin;
pub mod bridge;
pub mod cli;
pub mod config;
pub mod control;
pub mod error;
#[allow(unsafe_code)]
pub mod io;
pub mod limits;
pub mod log;
pub mod originate;
pub mod process;
pub mod relay;
pub mod tls;
pub mod types;
pub mod worker;
