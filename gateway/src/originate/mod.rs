//! `swugate originate`: RFC 9329 for an IKE client that speaks UDP only.
//!
//! ```text
//!   client ---- UDP 500, 4500 ----> originate ==== TCP, one connection per IKE SA ====> gateway
//! ```
//!
//! To its clients the adapter is the gateway; to the gateway it is the TCP Originator. It holds no keys. It
//! tells IKE SAs apart by their SPIs and packets by their source (`book`), connects and reconnects
//! (`connect`, `link`), and, if asked to, finds out first whether UDP would do (`probe`).

mod adapter;
mod book;
mod connect;
mod downlink;
mod link;
mod probe;
#[cfg(test)]
mod tests;
mod uplink;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub use adapter::run;

use crate::tls::TlsClient;

/// What it is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The address clients know as their gateway's.
    pub listen: IpAddr,
    /// Its ports: IKE without a marker; IKE behind a marker, and ESP.
    pub ports: (u16, u16),
    /// Addresses of the gateway, tried in turn.
    pub gateways: Vec<SocketAddr>,
    /// TLS around the stream (RFC 9329 Appendix A).
    pub tls: Option<TlsClient>,
    /// Try UDP first, and for how long, before a new IKE SA goes over TCP (RFC 9329 §5.1).
    pub udp_first: Option<Duration>,
}

/// The port of a client's datagram, and so how IKE is told from ESP in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Port {
    /// 500: IKE only, without a marker.
    Ike,
    /// 4500: IKE behind a Non-ESP Marker, ESP, keepalives (RFC 3948).
    Nat,
}
