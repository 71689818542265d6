//! State of IKE SAs, Child SAs and sessions.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use codec::crypto::{HashSet, IkeKeys, IkeSuite, KeyExchange, Secret, SkKey};
use codec::esp::{EspSpi, EspSuite};
use codec::ike::{Flags, IkeSpi};

use super::config::Profile;
use super::identity::Identity;
use super::window::{OwnRequest, Window};
use crate::types::{ConnId, Path, SessionId, WorkerId};

/// Hard lifetimes are this many times the configured rekey times, in percent.
const HARD_LIFETIME_PERCENT: u32 = 120;

/// How long the answer to the peer's last request is kept: "several minutes" (RFC 7296 §2.1).
pub(super) const ANSWER_KEPT: Duration = Duration::from_secs(180);

/// Which SA a local IKE SPI names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SpiOwner {
    /// A half-open IKE SA.
    HalfOpen,
    /// The IKE SA in use of a session.
    Current(SessionId),
    /// The IKE SA that the session's current one replaced.
    Old(SessionId),
}

/// An IKE SA between IKE_SA_INIT and IKE_AUTH.
pub(super) struct HalfOpen {
    /// Where the last message came from.
    pub(super) conn: ConnId,
    pub(super) path: Path,
    /// The source it counts for.
    pub(super) source: IpAddr,
    /// Whether NAT detection found a NAT in front of the peer.
    pub(super) behind_nat: bool,
    pub(super) spi_i: IkeSpi,
    pub(super) spi_r: IkeSpi,
    pub(super) suite: IkeSuite,
    /// The IKE_SA_INIT request as received; AUTH covers it.
    pub(super) request: Bytes,
    /// Our response as sent; AUTH covers it.
    pub(super) response: Bytes,
    pub(super) nonce_i: Vec<u8>,
    pub(super) nonce_r: Vec<u8>,
    /// Key exchange until the first IKE_AUTH, keys from then on. Empty only while the step is made.
    pub(super) secrets: Option<Secrets>,
    /// Hashes the peer accepts in signatures, when it announced any (RFC 7427 §4).
    pub(super) peer_hashes: Option<HashSet>,
    pub(super) created: Instant,
}

/// What a half-open IKE SA knows of its keys.
pub(super) enum Secrets {
    /// Not computed yet: a flood of IKE_SA_INIT costs no shared secrets.
    Exchange {
        /// Our private value.
        own: KeyExchange,
        /// The peer's public value.
        peer: Vec<u8>,
    },
    /// Computed, and kept when an IKE_AUTH fails its integrity check (RFC 8019 §4.4).
    Keys(Box<DerivedKeys>),
}

/// The keys of an IKE SA of which we are the original responder.
pub(super) struct DerivedKeys {
    pub(super) ike: IkeKeys,
    /// For messages of the peer.
    pub(super) key_in: SkKey,
    /// For ours; there is never a second one, as it counts AEAD nonces.
    pub(super) key_out: SkKey,
}

impl DerivedKeys {
    pub(super) fn new(ike: IkeKeys, suite: &IkeSuite) -> Self {
        let (key_in, key_out) = (ike.initiator_key(suite), ike.responder_key(suite));
        Self { ike, key_in, key_out }
    }
}

/// One IKE SA.
pub(super) struct IkeSa {
    pub(super) spi_i: IkeSpi,
    pub(super) spi_r: IkeSpi,
    /// Whether we are its original initiator, as after a rekey that we started.
    pub(super) initiator: bool,
    pub(super) suite: IkeSuite,
    pub(super) sk_d: Secret,
    pub(super) key_in: SkKey,
    pub(super) key_out: SkKey,
    pub(super) window: Window,
    pub(super) established: Instant,
}

impl IkeSa {
    /// Our own SPI.
    pub(super) fn local_spi(&self) -> IkeSpi {
        if self.initiator { self.spi_i } else { self.spi_r }
    }

    /// Flags of our requests or responses.
    pub(super) fn flags(&self, response: bool) -> Flags {
        Flags::new(self.initiator, response)
    }
}

/// A pair of Child SAs.
pub(super) struct ChildSa {
    pub(super) spi_in: EspSpi,
    pub(super) spi_out: EspSpi,
    pub(super) suite: EspSuite,
    pub(super) rekeys: u32,
    /// When it is deleted from here.
    pub(super) expires: Instant,
    /// Whether a rekey made its successor.
    pub(super) replaced: bool,
    /// Whether its Delete waits or is under way.
    pub(super) deleting: bool,
}

/// One UE's session.
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) worker: WorkerId,
    /// Where it last proved to be (RFC 9329 §6.1); `None` while that connection is gone. Over UDP it stands for
    /// the worker's sockets, and `path` is the place.
    pub(super) conn: Option<ConnId>,
    pub(super) path: Path,
    /// Whether NAT detection found a NAT in front of the peer.
    pub(super) behind_nat: bool,
    /// Whether MOBIKE was negotiated (RFC 4555 §3.1).
    pub(super) mobike: bool,
    pub(super) idi: Identity,
    /// What the peer asked for, or our own.
    pub(super) idr: Identity,
    pub(super) profile: Arc<Profile>,
    pub(super) inner: Box<[IpAddr]>,
    /// Whether the packet path knows the inner addresses: they go with the first Child SA.
    pub(super) routed: bool,
    pub(super) ike: IkeSa,
    /// The IKE SA that a rekey replaced, until the peer deletes it.
    pub(super) old: Option<Box<(IkeSa, Instant)>>,
    pub(super) children: Vec<ChildSa>,
    pub(super) established: Instant,
    pub(super) last_inbound: Instant,
    pub(super) rekeys: u32,
    /// Requests of ours that wait for the window.
    pub(super) wanted: Wanted,
}

/// Requests of ours that wait. Deletes of Child SAs are marked on the children.
#[derive(Default)]
pub(super) struct Wanted {
    pub(super) liveness: bool,
    pub(super) delete_ike: bool,
}

impl Session {
    /// Whether the session is being deleted by us.
    pub(super) fn closing(&self) -> bool {
        let asked = self.ike.window.outstanding().map(|request| request.kind);
        self.wanted.delete_ike || asked == Some(OwnRequest::DeleteIke)
    }

    /// The hard lifetime's end of the IKE SA in use.
    pub(super) fn ike_expires(&self) -> Instant {
        self.ike.established + hard(self.profile.rekey_ike)
    }

    /// When the next liveness check is due, if the profile wants any.
    pub(super) fn liveness_due(&self) -> Option<Instant> {
        let idle =
            !self.profile.dpd.is_zero() && !self.wanted.liveness && self.ike.window.outstanding().is_none();
        idle.then(|| self.last_inbound + self.profile.dpd)
    }

    /// The earliest moment at which something is due. While the session is being closed only the deadline of
    /// its Delete counts.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let request = self.ike.window.outstanding().map(|request| request.deadline);
        let request = [request, self.resend_due()].into_iter().flatten().min();
        if self.closing() {
            return request;
        }
        let old = self.old.as_ref().map(|old| old.1);
        let children = self.children.iter().filter(|child| !child.deleting).map(|child| child.expires);
        let answer = self.ike.window.answered_at().map(|at| at + ANSWER_KEPT);
        let others = [request, old, answer, self.liveness_due(), Some(self.ike_expires())];
        children.chain(others.into_iter().flatten()).min()
    }

    /// The child whose outbound SPI the peer named.
    pub(super) fn child_by_peer_spi(&self, spi: EspSpi) -> Option<usize> {
        self.children.iter().position(|child| child.spi_out == spi)
    }
}

/// The hard lifetime for a configured rekey time.
pub(super) fn hard(rekey: Duration) -> Duration {
    rekey * HARD_LIFETIME_PERCENT / 100
}
