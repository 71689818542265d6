//! What the responder asks of its surroundings.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use codec::esp::EspSpi;
use codec::esp::EspSuite;
use codec::ike::IkeSpi;
use zeroize::Zeroizing;

use super::aaa::AaaOrder;
use super::aaa::EndCause;
use super::record::FailedAttempt;
use crate::types::{ChildInstall, CloseReason, ConnId, Follow, NetworkId, Path, SessionId, WorkerId};

/// An IKE message to send, without marker and Length.
#[derive(Clone)]
pub struct Transmit {
    /// The connection it leaves on.
    pub conn: ConnId,
    /// Its addresses: over UDP they alone say where it goes.
    pub path: Path,
    /// The whole message from the IKE header on.
    pub message: Bytes,
    /// The peer may use a Child SA of a preceding [`Event::Install`] as soon as it has this message, so
    /// the owner must have it in force first.
    pub after_install: bool,
    /// The session's owner; the connection's worker when there is no session yet.
    pub owner: WorkerId,
}

/// What one received message was worth to the connection it came in on (RFC 9329 §6.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Verdict {
    /// It was used, or was a harmless repetition.
    Good,
    /// It could not be used; too many in a row close the connection.
    Bad,
}

/// A change to the packet path or to a connection, in the order it must take effect.
pub enum Event {
    /// Add a Child SA pair to the session's worker.
    Install(Box<ChildInstall>),
    /// The peer may use this inbound SPI as soon as it has the request that follows: its packets wait for the
    /// Install, or for the Withdraw.
    Announce {
        /// The session that the Child SA will belong to.
        session: SessionId,
        /// The session's worker.
        worker: WorkerId,
        /// Our SPI of the pair.
        spi_in: EspSpi,
    },
    /// Nothing comes of an announced SPI.
    Withdraw {
        /// The session's worker.
        worker: WorkerId,
        /// Our SPI.
        spi_in: EspSpi,
    },
    /// Remove a Child SA pair.
    RemoveChild {
        /// Its session.
        session: SessionId,
        /// The session's worker.
        worker: WorkerId,
        /// Our SPI of the pair.
        spi_in: EspSpi,
    },
    /// The session's current connection or UDP path, after a fresh authentic IKE message on it (RFC 9329 §6.1)
    /// or because MOBIKE moved it there.
    Bind {
        /// The session.
        session: SessionId,
        /// The session's worker; it may differ from `conn.worker`.
        worker: WorkerId,
        /// Where to send from now on.
        conn: ConnId,
        /// Its addresses.
        path: Path,
        /// Whether authentic packets from elsewhere move the session on.
        follow: Follow,
    },
    /// The session is gone with all its Child SAs; its connections may linger for reuse.
    CloseSession {
        /// The session.
        session: SessionId,
        /// Its worker.
        worker: WorkerId,
        /// The network of its inner addresses.
        network: NetworkId,
        /// Inner addresses that the packet path knows.
        inner: Box<[IpAddr]>,
        /// Why, as far as the responder knows.
        cause: EndCause,
    },
    /// Close this connection only; SAs stay.
    CloseConn {
        /// The connection.
        conn: ConnId,
        /// Why.
        reason: CloseReason,
    },
    /// A half-open IKE SA lives on the connection: it gets the half-open time.
    HalfOpen {
        /// The connection.
        conn: ConnId,
    },
    /// The connection was given a puzzle: it has this long to come back with a solution (RFC 9329 §6.3).
    Challenged {
        /// The connection.
        conn: ConnId,
        /// How long.
        within: Duration,
    },
    /// A message of the UE that is followed, payload by payload; no keys.
    Traced(Box<str>),
    /// Something for an AAA back end to do.
    Aaa(Box<AaaOrder>),
    /// An attempt to attach failed; it is among [`super::Responder::failed_attempts`] as well.
    AttemptFailed(Box<FailedAttempt>),
    /// Keys of an SA, only when [`super::ResponderConfig::keylog`] is set.
    KeyLog(KeyLog),
    /// A session was established.
    Attached {
        /// The session.
        session: SessionId,
        /// From the IKE_SA_INIT request to here.
        latency: Duration,
    },
}

/// Keys of one SA for a protocol analyser.
pub enum KeyLog {
    /// An IKE SA.
    Ike(Box<IkeKeyLog>),
    /// One direction of a Child SA.
    Esp(Box<EspKeyLog>),
}

/// Keys of an IKE SA. Holds secrets: no `Debug`.
pub struct IkeKeyLog {
    /// SPI of the IKE SA's initiator.
    pub spi_i: IkeSpi,
    /// SPI of the IKE SA's responder.
    pub spi_r: IkeSpi,
    /// Algorithms.
    pub suite: codec::crypto::IkeSuite,
    /// Encryption key of the initiator, with the salt of an AEAD.
    pub sk_ei: Zeroizing<Vec<u8>>,
    /// Encryption key of the responder, with the salt of an AEAD.
    pub sk_er: Zeroizing<Vec<u8>>,
    /// Integrity key of the initiator; empty for an AEAD.
    pub sk_ai: Zeroizing<Vec<u8>>,
    /// Integrity key of the responder; empty for an AEAD.
    pub sk_ar: Zeroizing<Vec<u8>>,
}

/// Keys of one direction of a Child SA. Holds secrets: no `Debug`.
pub struct EspKeyLog {
    /// SPI in the packets.
    pub spi: EspSpi,
    /// Uplink (from the UE) or downlink.
    pub uplink: bool,
    /// Outside addresses of the connection that made it.
    pub path: Path,
    /// Algorithms.
    pub suite: EspSuite,
    /// Encryption key, with the salt of an AEAD.
    pub encr: Zeroizing<Vec<u8>>,
    /// Integrity key; empty for an AEAD.
    pub integ: Zeroizing<Vec<u8>>,
}
