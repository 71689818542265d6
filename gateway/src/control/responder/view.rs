//! Read-only views for `sessions --json` and the status page.

use std::net::IpAddr;
use std::time::Duration;

use codec::crypto::{Additional, IkeSuite};
use codec::esp::{EspSpi, EspSuite};
use codec::ike::IkeSpi;

use super::identity::Identity;
use crate::types::{ConnId, Path, SessionId, WorkerId};

/// One session as an administrator sees it.
pub struct SessionView<'a> {
    /// Its number.
    pub id: SessionId,
    /// The UE's identity.
    pub idi: &'a Identity,
    /// The identity the UE asked for; ours when it asked for none.
    pub idr: &'a Identity,
    /// Name of its profile.
    pub profile: &'a str,
    /// `established`, `detached` (no connection now) or `closing`.
    pub state: &'static str,
    /// Its current connection.
    pub conn: Option<ConnId>,
    /// Outside addresses, of the last connection when there is none now.
    pub path: &'a Path,
    /// The worker that owns it.
    pub worker: WorkerId,
    /// Inner addresses.
    pub inner: &'a [IpAddr],
    /// Time since it attached.
    pub established: Duration,
    /// The IKE SA in use.
    pub ike: IkeView,
    /// Its Child SAs.
    pub children: Vec<ChildView>,
}

/// An IKE SA.
pub struct IkeView {
    /// SPI of its initiator.
    pub spi_i: IkeSpi,
    /// SPI of its responder.
    pub spi_r: IkeSpi,
    /// Algorithms.
    pub suite: IkeSuite,
    /// Additional key exchanges that the session began with (RFC 9370).
    pub additional: Additional,
    /// Rekeys of the session so far.
    pub rekeys: u32,
    /// Whether IKE fragmentation was negotiated (RFC 7383).
    pub fragmentation: bool,
    /// Whether MOBIKE was negotiated (RFC 4555).
    pub mobike: bool,
}

/// A Child SA pair; its traffic counters live on the worker under `spi_in`.
pub struct ChildView {
    /// Our SPI.
    pub spi_in: EspSpi,
    /// The UE's SPI.
    pub spi_out: EspSpi,
    /// Algorithms, extended sequence numbers included.
    pub suite: EspSuite,
    /// Rekeys that led to it.
    pub rekeys: u32,
}
