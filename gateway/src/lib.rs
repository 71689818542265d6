//! swugate: an RFC 9329 TCP Responder and IKEv2/IPsec gateway.

pub mod types;
pub mod worker {
    //! The packet path.
    pub mod inbox;
}
