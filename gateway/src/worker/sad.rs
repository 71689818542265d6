//! Sessions and Child SAs of one worker: its part of the SAD, and who sends where.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use codec::Random;
use codec::esp::{EspSpi, InboundSa, OutboundSa};
use codec::ip::InnerHeader;

use super::inbox::{ChildCounters, Traffic};
use super::udp::flows::is_flow;
use crate::types::{ChildInstall, Follow, NetworkId, SessionId, TsRange};

/// How long packets of a removed SA are told from corruption (D5).
const RETIRED_FOR: Duration = Duration::from_secs(30);

/// Removed SPIs remembered at once; beyond it the oldest are forgotten early.
const RETIRED_MAX: usize = 65_536;

/// Seconds between two activity reports of one session.
const ACTIVITY_REPORT_S: u64 = 5;

/// Different selectors remembered for sharing.
const SHARED_TS_MAX: usize = 16;

/// One Child SA pair.
pub struct Child {
    /// Whose it is.
    pub session: SessionId,
    /// The uplink's SA.
    pub inbound: InboundSa,
    /// The downlink's SA.
    pub outbound: OutboundSa,
    /// Where its uplink goes.
    pub network: NetworkId,
    local_ts: Arc<[TsRange]>,
    remote_ts: Box<[TsRange]>,
    /// Set while the downlink still uses the SA this one replaces.
    standby_for: Option<EspSpi>,
    /// The control thread knows that its sequence numbers run out.
    pub sequence_reported: bool,
}

impl Child {
    /// Whether the downlink waits for the UE's first packet on this SA.
    pub fn is_standby(&self) -> bool {
        self.standby_for.is_some()
    }

    /// Whether an uplink packet lies inside the selectors (RFC 4301 §5.2).
    pub fn admits_uplink(&self, inner: &InnerHeader) -> bool {
        any(&self.remote_ts, inner.src, inner.proto, inner.src_port)
            && any(&self.local_ts, inner.dst, inner.proto, inner.dst_port)
    }

    fn traffic(&self) -> Traffic {
        Traffic {
            packets_in: self.inbound.packets(),
            bytes_in: self.inbound.bytes(),
            packets_out: self.outbound.packets(),
            bytes_out: self.outbound.bytes(),
        }
    }

    fn admits_downlink(&self, inner: &InnerHeader) -> bool {
        any(&self.local_ts, inner.src, inner.proto, inner.src_port)
            && any(&self.remote_ts, inner.dst, inner.proto, inner.dst_port)
    }
}

/// Whether one of the selectors holds the address, protocol and port. A packet without a port (a later
/// fragment, ICMP) matches only selectors of all ports.
fn any(selectors: &[TsRange], addr: IpAddr, protocol: u8, port: Option<u16>) -> bool {
    selectors.iter().any(|ts| {
        ts.first <= addr
            && addr <= ts.last
            && ts.first.is_ipv4() == addr.is_ipv4()
            && (ts.protocol == 0 || ts.protocol == protocol)
            && (ts.ports == (0, u16::MAX)
                || port.is_some_and(|port| ts.ports.0 <= port && port <= ts.ports.1))
    })
}

/// One UE.
#[derive(Default)]
pub struct Session {
    /// Slot of the connection that last delivered a fresh authentic message (RFC 9329 §6.1).
    pub conn: Option<u32>,
    /// Slots of all connections that may carry it: the current one and those it replaced.
    pub bound: Vec<u32>,
    /// Its Child SAs in the order they came.
    pub children: Vec<EspSpi>,
    inner: Box<[IpAddr]>,
    /// The network of these addresses.
    network: NetworkId,
    /// What authentic packets from elsewhere do to it while it lives on a UDP path; `None` while it does not.
    pub follow: Option<Follow>,
    /// Until which second of the worker's clock it is heard over UDP although it lives on TCP.
    pub heard_over_udp_until_s: u64,
    /// It waits to be told to the control thread where it is.
    pub move_untold: bool,
    /// How often it moved in second `moves_s` of the worker's clock.
    pub moves: u8,
    /// See `moves`.
    pub moves_s: u32,
    /// Second of the worker's clock in which uplink activity was last reported.
    pub reported_s: u64,
    /// Second of the worker's clock in which it last moved a packet.
    pub active_s: u64,
    cold: bool,
    /// What its removed Child SAs have carried; a session that never rekeyed has none.
    past: Option<Box<Traffic>>,
}

impl Session {
    /// Takes note of an authentic packet; whether the control thread is to hear of it.
    pub fn note_activity(&mut self, now_s: u64) -> bool {
        self.active_s = now_s;
        let report = now_s.saturating_sub(self.reported_s) >= ACTIVITY_REPORT_S;
        if report {
            self.reported_s = now_s;
        }
        report
    }
}

/// The worker's sessions and SAs.
#[derive(Default)]
pub struct Sad {
    children: AHashMap<EspSpi, Box<Child>>,
    sessions: AHashMap<SessionId, Session>,
    by_addr: AHashMap<(NetworkId, IpAddr), SessionId>,
    /// Child SAs removed lately, and whose they were.
    retired: AHashMap<EspSpi, SessionId>,
    retired_order: VecDeque<(Instant, EspSpi)>,
    /// Selectors of the core side in use lately: most UEs of a profile have the same ones.
    shared_ts: VecDeque<Arc<[TsRange]>>,
}

impl Sad {
    /// Adds a Child SA, and its session with the first.
    pub fn install(&mut self, install: ChildInstall, random: &mut dyn Random) {
        let local_ts = self.share(install.local_ts);
        let session = self.sessions.entry(install.session).or_default();
        // Nearly every session has one: no room for four.
        session.children.reserve_exact(1);
        session.children.push(install.spi_in);
        if !install.inner.is_empty() {
            let key = |addr: &IpAddr| ((install.network, *addr), install.session);
            self.by_addr.extend(install.inner.iter().map(key));
            (session.inner, session.network) = (install.inner.into(), install.network);
        }
        let standby_for = install.replaces.filter(|old| self.children.contains_key(old));
        let child = Child {
            session: install.session,
            inbound: InboundSa::new(install.spi_in, install.suite, install.keys_in, install.replay_window),
            outbound: OutboundSa::new(install.spi_out, install.suite, install.keys_out, random),
            network: install.network,
            local_ts,
            remote_ts: install.remote_ts.into(),
            standby_for,
            sequence_reported: false,
        };
        self.retired.remove(&install.spi_in);
        self.children.insert(install.spi_in, Box::new(child));
    }

    /// The selectors in one copy, if they were used lately.
    fn share(&mut self, selectors: Vec<TsRange>) -> Arc<[TsRange]> {
        if let Some(same) = self.shared_ts.iter().find(|shared| shared[..] == selectors[..]) {
            return same.clone();
        }
        if self.shared_ts.len() == SHARED_TS_MAX {
            self.shared_ts.pop_front();
        }
        let shared: Arc<[TsRange]> = selectors.into();
        self.shared_ts.push_back(shared.clone());
        shared
    }

    /// Removes a Child SA; late packets of it are recognised for a while.
    pub fn remove(&mut self, spi: EspSpi, now: Instant) {
        let Some(child) = self.children.remove(&spi) else { return };
        if let Some(session) = self.sessions.get_mut(&child.session) {
            session.children.retain(|&other| other != spi);
            **session.past.get_or_insert_default() += child.traffic();
            // The downlink of a replacement that waited for this one goes over now.
            for other in &session.children {
                if let Some(next) = self.children.get_mut(other) {
                    next.standby_for.take_if(|old| *old == spi);
                }
            }
        }
        self.retire(spi, child.session, now);
    }

    /// Removes a session with all its SAs; returns the slots of its connections and of its current flow.
    pub fn close_session(&mut self, id: SessionId, now: Instant) -> Vec<u32> {
        let Some(session) = self.sessions.remove(&id) else { return Vec::new() };
        for addr in &session.inner {
            let key = (session.network, *addr);
            if self.by_addr.get(&key) == Some(&id) {
                self.by_addr.remove(&key);
            }
        }
        for spi in session.children {
            self.children.remove(&spi);
            self.retire(spi, id, now);
        }
        let mut slots = session.bound;
        slots.extend(session.conn.filter(|slot| is_flow(*slot)));
        slots
    }

    fn retire(&mut self, spi: EspSpi, session: SessionId, now: Instant) {
        if self.retired_order.len() >= RETIRED_MAX
            && let Some((_, oldest)) = self.retired_order.pop_front()
        {
            self.retired.remove(&oldest);
        }
        self.retired.insert(spi, session);
        self.retired_order.push_back((now, spi));
    }

    /// Forgets SPIs removed long ago.
    pub fn forget_retired(&mut self, now: Instant) {
        while let Some(&(since, spi)) = self.retired_order.front() {
            if now.duration_since(since) < RETIRED_FOR {
                break;
            }
            self.retired_order.pop_front();
            self.retired.remove(&spi);
        }
    }

    /// Whether the SA was removed lately.
    pub fn is_retired(&self, spi: EspSpi) -> bool {
        self.retired.contains_key(&spi)
    }

    /// The Child SA by its inbound SPI.
    pub fn child_mut(&mut self, spi: EspSpi) -> Option<&mut Child> {
        self.children.get_mut(&spi).map(Box::as_mut)
    }

    /// The Child SA of a session, if another packet of it on that connection would change nothing: the session lives there,
    /// and the SA's downlink does not wait for it.
    pub fn child_settled_on(&mut self, spi: EspSpi, session: SessionId, slot: u32) -> Option<&mut Child> {
        let lives_there = self.sessions.get(&session)?.conn == Some(slot);
        let child = self.children.get_mut(&spi).filter(|_| lives_there)?;
        (child.session == session && child.standby_for.is_none()).then_some(child)
    }

    /// A session.
    pub fn session_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(&id)
    }

    /// The UE used the SA: the downlink leaves the one it replaces (RFC 7296 §2.8).
    pub fn promote(&mut self, spi: EspSpi) {
        if let Some(child) = self.children.get_mut(&spi) {
            child.standby_for = None;
        }
    }

    /// The session that has an inner address of a network.
    pub fn session_of(&self, network: NetworkId, addr: IpAddr) -> Option<SessionId> {
        self.by_addr.get(&(network, addr)).copied()
    }

    /// The session's Child SA for a downlink packet: the newest in use whose selectors hold it.
    pub fn downlink(&mut self, id: SessionId, inner: &InnerHeader) -> Option<(EspSpi, &mut Session)> {
        let session = self.sessions.get_mut(&id)?;
        let spi = session.children.iter().rev().copied().find(|spi| {
            let child = self.children.get(spi);
            child.is_some_and(|child| child.standby_for.is_none() && child.admits_downlink(inner))
        })?;
        Some((spi, session))
    }

    /// The Child SA for a packet that waited for one that was removed lately: what its session has by now. It has no sequence
    /// number yet, so that a rekey loses nothing.
    pub fn successor(&mut self, removed: EspSpi, packet: &[u8]) -> Option<EspSpi> {
        let session = *self.retired.get(&removed)?;
        let inner = InnerHeader::parse(packet).ok()?;
        self.downlink(session, &inner).map(|(spi, _)| spi)
    }

    /// Whether there is no Child SA.
    pub fn is_empty(&self) -> bool {
        self.children.is_empty()
    }

    /// Child SAs.
    pub fn len(&self) -> usize {
        self.children.len()
    }

    /// What a session has carried over all its Child SAs; nothing when there is none.
    pub fn traffic(&self, id: SessionId) -> Traffic {
        let Some(session) = self.sessions.get(&id) else { return Traffic::default() };
        let mut traffic = session.past.as_deref().copied().unwrap_or_default();
        for spi in &session.children {
            if let Some(child) = self.children.get(spi) {
                traffic += child.traffic();
            }
        }
        traffic
    }

    /// Traffic counters of every Child SA.
    pub fn counters(&self) -> Vec<(EspSpi, ChildCounters)> {
        let counters = |child: &Child| ChildCounters {
            packets_in: child.inbound.packets(),
            bytes_in: child.inbound.bytes(),
            packets_out: child.outbound.packets(),
            bytes_out: child.outbound.bytes(),
            replay_drops: child.inbound.replay_drops(),
        };
        self.children.iter().map(|(&spi, child)| (spi, counters(child))).collect()
    }

    /// Drops the cipher contexts of sessions idle since before `since_s`; the next packet builds them anew.
    pub fn cool_idle(&mut self, since_s: u64) {
        for session in self.sessions.values_mut() {
            if session.active_s >= since_s {
                session.cold = false;
            } else if !session.cold {
                session.cold = true;
                for spi in &session.children {
                    if let Some(child) = self.children.get_mut(spi) {
                        child.inbound.cool();
                        child.outbound.cool();
                    }
                }
            }
        }
    }
}
