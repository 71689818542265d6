//! State of IKE SAs, Child SAs and sessions.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use codec::crypto::{Additional, HashSet, IkeKeys, IkeSuite, KeyExchange, Secret, SharedSecret, SkKey};
use codec::esp::{EspSpi, EspSuite};
use codec::ike::{Flags, IkeSpi, KeGroup};

use super::config::{Gateway, Profile};
use super::eap::EapState;
use super::followup::FollowUp;
use super::fragment::Reassembly;
use super::identity::Identity;
use super::mobike::Candidate;
use super::own_followup::OwnFollowUp;
use super::record::Record;
use super::redirect::Follows;
use super::ticket::Ticket;
use super::window::{OwnRequest, Window};
use super::{Core, ts};
use crate::types::{ConnId, Path, SessionId, TsRange, WorkerId};

/// Hard lifetimes are this many times the configured rekey times, in percent.
const HARD_LIFETIME_PERCENT: u32 = 120;

/// How long the answer to the peer's last request is kept: "several minutes" (RFC 7296 §2.1).
pub(super) const ANSWER_KEPT: Duration = Duration::from_secs(180);

/// IKE SAs of a session beside the one in use: the one replaced, and one too many after a simultaneous rekey.
pub(super) const RETIRING_MAX: usize = 3;

/// Rekeys start up to this part of the configured time before its end, in percent: sessions that attached
/// together do not rekey together.
const JITTER_PERCENT: u32 = 10;

/// First pause after a peer put a rekey off; each further one is twice as long.
const RETRY_FIRST: Duration = Duration::from_secs(5);

/// Doublings of that pause.
const RETRY_DOUBLINGS_MAX: u8 = 4;

/// Which SA a local IKE SPI names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SpiOwner {
    /// A half-open IKE SA.
    HalfOpen,
    /// The IKE SA in use of a session.
    Current(SessionId),
    /// An IKE SA that the session has on offer to the peer.
    Offered(SessionId),
    /// Another IKE SA of the session: one that was replaced, or lost a simultaneous rekey.
    Other(SessionId),
}

/// Which IKE SA of a session a message belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Which {
    /// The one in use.
    Current,
    /// Another one, by our SPI.
    Other(IkeSpi),
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
    /// Whether both ends announced IKE fragmentation (RFC 7383 §2.3).
    pub(super) fragmentation: bool,
    /// A message of the peer that is not complete.
    pub(super) fragments: Vec<Reassembly>,
    /// Whether both ends announced IKE_INTERMEDIATE (RFC 9242 §3.1).
    pub(super) intermediate: bool,
    /// Additional key exchanges that were agreed on.
    pub(super) additional: Additional,
    /// Those of them that are still to come, in order.
    pub(super) pending: Vec<KeGroup>,
    /// IKE_INTERMEDIATE exchanges so far.
    pub(super) steps: u8,
    /// What AUTH covers of them: the initiator's share and ours.
    pub(super) int_auth: Option<Box<(Secret, Secret)>>,
    /// Whether the peer can be sent to another gateway.
    pub(super) follows: Follows,
    /// Whether both ends announced post-quantum pre-shared keys (RFC 8784 §3).
    pub(super) ppk: bool,
    /// What the ticket says, when a session is resumed (RFC 5723).
    pub(super) resumed: Option<Box<Ticket>>,
    /// The authentication by EAP that is under way.
    pub(super) eap: Option<Box<EapState>>,
    /// What happened so far.
    pub(super) record: Record,
    /// Whether the UE, which has a name by now, is followed.
    pub(super) traced: bool,
    pub(super) window: Window,
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
    /// The result of a key encapsulation, which came about with our answer.
    Shared(SharedSecret),
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
    /// When we replace it, if the peer has not.
    pub(super) rekey_at: Instant,
    /// Attempts at that which the peer put off.
    pub(super) retries: u8,
}

/// An IKE SA that is no longer in use, until the end that has to delete it does.
pub(super) struct Retiring {
    pub(super) sa: IkeSa,
    /// When it is forgotten without a Delete.
    pub(super) expires: Instant,
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
    /// Its selectors where they are not all that policy allows the session.
    pub(super) selectors: Option<Box<Selectors>>,
    /// When we replace it, if the peer has not.
    pub(super) rekey_at: Instant,
    /// Attempts at that which the peer put off.
    pub(super) retries: u8,
    /// When it is deleted from here.
    pub(super) expires: Instant,
    /// Whether a rekey made its successor.
    pub(super) replaced: bool,
    /// Whether its Delete waits or is under way.
    pub(super) deleting: bool,
}

/// What a Child SA carries.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Selectors {
    /// On the core side.
    pub(super) local: Vec<TsRange>,
    /// On the UE's side.
    pub(super) remote: Vec<TsRange>,
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
    /// Whether the peer's last request was an UPDATE_SA_ADDRESSES.
    pub(super) last_was_update: bool,
    /// Whether that request was repeated over TCP: what is fresh there moves the session (RFC 9329 §7.1).
    pub(super) by_tcp: bool,
    pub(super) idi: Identity,
    /// What the peer asked for, or our own.
    pub(super) idr: Identity,
    pub(super) profile: Arc<Profile>,
    pub(super) inner: Box<[IpAddr]>,
    /// Whether the packet path knows the inner addresses: they go with the first Child SA.
    pub(super) routed: bool,
    pub(super) ike: IkeSa,
    /// IKE SAs that rekeys left behind, at most [`RETIRING_MAX`].
    pub(super) others: Vec<Retiring>,
    pub(super) children: Vec<ChildSa>,
    pub(super) established: Instant,
    pub(super) last_inbound: Instant,
    pub(super) rekeys: u32,
    /// Whether IKE_INTERMEDIATE was negotiated, and with it more than one key exchange.
    pub(super) intermediate: bool,
    /// An SA that the peer makes in several exchanges.
    pub(super) followup: Option<Box<FollowUp>>,
    /// Additional key exchanges that its first IKE SA was made with (RFC 9370).
    pub(super) additional: Additional,
    /// Whether IKE fragmentation was negotiated (RFC 7383 §2.3).
    pub(super) fragmentation: bool,
    /// Messages of the peer that are not complete.
    pub(super) fragments: Vec<Reassembly>,
    /// When the peer authenticated in full, in seconds since 1970.
    pub(super) authenticated: u64,
    /// Whether the peer can be sent to another gateway (RFC 5685 §3).
    pub(super) redirectable: bool,
    /// Whether the peer can be told other P-CSCFs (P_CSCF_RESELECTION_SUPPORT, TS 24.302 §8.2.9.4).
    pub(super) reselects: bool,
    /// When it is deleted because the peer, sent to another gateway, has not done so. Boxed: hardly a session has one.
    pub(super) leave_by: Option<Box<Instant>>,
    /// Requests of ours that wait for the window.
    pub(super) wanted: Wanted,
}

/// Requests of ours that wait. Deletes of Child SAs are marked on the children.
#[derive(Default)]
pub(super) struct Wanted {
    pub(super) liveness: bool,
    pub(super) delete_ike: bool,
    /// Whether the peer is to come back at once, for other P-CSCFs than it has (TS 24.302 §8.1.2.3).
    pub(super) reactivate: bool,
    /// Whether the peer is to be told the P-CSCFs of its profile.
    pub(super) p_cscf: bool,
    /// A Child SA to be made anew, in place of one that the peer does not know.
    pub(super) child: Option<Box<Selectors>>,
    /// A rekey whose next key exchange is due.
    pub(super) followup: Option<Box<OwnFollowUp>>,
    /// Where the peer is to go.
    pub(super) redirect: Option<Box<Gateway>>,
    /// A new address of the peer to be tried.
    pub(super) candidate: Option<Box<Candidate>>,
    /// The group that the peer wants in the next rekey.
    pub(super) group: Option<KeGroup>,
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
        let others = self.others.iter().map(|other| other.expires);
        let others = others.chain(self.fragments.iter().map(Reassembly::expires));
        let children = self.children.iter().filter(|child| !child.deleting).map(|child| child.expires);
        let answer = self.ike.window.answered_at().map(|at| at + ANSWER_KEPT);
        let rekey = request.is_none().then(|| self.rekey_due()).flatten();
        let followup = self.followup.as_ref().map(|followup| followup.expires);
        let leave_by = self.leave_by.as_deref().copied();
        let rest =
            [request, answer, self.liveness_due(), rekey, leave_by, followup, Some(self.ike_expires())];
        children.chain(others).chain(rest.into_iter().flatten()).min()
    }

    /// When the next rekey from our side is due. A peer without a connection is left alone until it is back.
    fn rekey_due(&self) -> Option<Instant> {
        if self.conn.is_none() || self.rekey_is_open() || self.followup.is_some() {
            return None;
        }
        let children = self.children.iter().filter(|child| child.is_in_use()).map(|child| child.rekey_at);
        children.chain(self.ike_rekey_due()).min()
    }

    /// When we replace the IKE SA, unless the peer is at it.
    pub(super) fn ike_rekey_due(&self) -> Option<Instant> {
        self.followup.is_none().then_some(self.ike.rekey_at)
    }

    /// Whether a rekey of the IKE SA that crossed the peer's still waits for its response: which of the two
    /// new SAs stays is not known yet.
    pub(super) fn rekey_is_open(&self) -> bool {
        self.others.iter().any(|other| {
            other.sa.window.outstanding().is_some_and(|request| request.kind == OwnRequest::RekeyIke)
        })
    }

    /// One of the session's IKE SAs.
    pub(super) fn sa(&self, which: Which) -> &IkeSa {
        match which {
            Which::Current => &self.ike,
            Which::Other(spi) => {
                let other = self.others.iter().find(|other| other.sa.local_spi() == spi);
                other.map_or(&self.ike, |other| &other.sa)
            }
        }
    }

    /// One of the session's IKE SAs, to change it.
    pub(super) fn sa_mut(&mut self, which: Which) -> &mut IkeSa {
        match which {
            Which::Current => &mut self.ike,
            Which::Other(spi) => {
                let other = self.others.iter_mut().find(|other| other.sa.local_spi() == spi);
                other.map_or(&mut self.ike, |other| &mut other.sa)
            }
        }
    }

    /// What a Child SA carries, for the offer of its successor: never narrower than in use
    /// (RFC 7296 §2.9.2).
    pub(super) fn selectors_of(&self, child: &ChildSa) -> Selectors {
        child.selectors.as_deref().cloned().unwrap_or_else(|| self.full_selectors())
    }

    /// All that policy allows the session.
    pub(super) fn full_selectors(&self) -> Selectors {
        Selectors {
            local: self.profile.local_ts.clone(),
            remote: self.inner.iter().map(|addr| ts::host(*addr)).collect(),
        }
    }

    /// The child with an inbound SPI of ours.
    pub(super) fn child_mut(&mut self, spi_in: EspSpi) -> Option<&mut ChildSa> {
        self.children.iter_mut().find(|child| child.spi_in == spi_in)
    }

    /// The child whose outbound SPI the peer named.
    pub(super) fn child_by_peer_spi(&self, spi: EspSpi) -> Option<usize> {
        self.children.iter().position(|child| child.spi_out == spi)
    }
}

impl ChildSa {
    /// Whether it is neither replaced nor being deleted.
    pub(super) fn is_in_use(&self) -> bool {
        !self.replaced && !self.deleting
    }
}

impl Core {
    /// When a rekey configured for `rekey` after `now` starts: up to a tenth earlier, by chance.
    pub(super) fn rekey_time(&mut self, now: Instant, rekey: Duration) -> Instant {
        let early = rekey * JITTER_PERCENT / 100;
        now + rekey - early.mul_f64(self.chance())
    }

    /// When a rekey that the peer put off is tried again: later each time (RFC 7296 §2.25).
    pub(super) fn retry_time(&mut self, now: Instant, retries: &mut u8) -> Instant {
        let pause = RETRY_FIRST * (1 << *retries);
        *retries = (*retries + 1).min(RETRY_DOUBLINGS_MAX);
        now + pause + pause.mul_f64(self.chance())
    }

    /// Counts what an IKE SA has that an operator should know is still in use.
    pub(super) fn note_legacy(&mut self, suite: &IkeSuite) {
        let exchanges = &mut self.counters.exchanges;
        exchanges.legacy_groups += u64::from(suite.has_legacy_group());
        exchanges.legacy_sha1_ike += u64::from(suite.has_sha1());
        exchanges.legacy_3des_ike += u64::from(suite.has_triple_des());
    }

    /// A number from 0 to 1.
    fn chance(&mut self) -> f64 {
        let mut octets = [0; 4];
        self.random.fill(&mut octets);
        f64::from(u32::from_be_bytes(octets)) / f64::from(u32::MAX)
    }
}

/// The hard lifetime for a configured rekey time.
pub(super) fn hard(rekey: Duration) -> Duration {
    rekey * HARD_LIFETIME_PERCENT / 100
}
