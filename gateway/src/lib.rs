//! swugate: an RFC 9329 TCP Responder and IKEv2/IPsec gateway.

pub mod control;
#[allow(unsafe_code)]
pub mod io;
pub mod types;
pub mod worker;
