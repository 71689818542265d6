//! New IKE SAs at a pace: after a power cut or the end of an outage every phone of a city comes at once. Those beyond the
//! pace wait in a queue for a bounded time, those of one network have a pace of their own, and what arrives where
//! emergency calls do waits for nobody.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ahash::{AHashMap, AHashSet};
use codec::ike::{IkeHeader, IkeSpi};

use super::authenticate::identity;
use super::config::Profile;
use super::half_open::RateLimit;
use super::inner::Payloads;
use super::unsolved::header_of;
use super::{Arrived, Core, Event, Owner, Responder, Verdict};
use crate::types::{ConnId, Path};

/// Octets of a request that waits.
const REQUEST_LEN_MAX: usize = 4096;

/// Networks with a pace of their own that are remembered; with more, those at rest are forgotten first. 64 octets each.
const PREFIXES_MAX: usize = 65_536;

/// Requests served in one turn, so that a deep queue does not hold up everybody else.
const PER_TURN_MAX: usize = 64;

/// One request that waits.
struct Waiting {
    conn: ConnId,
    path: Path,
    spi_i: IkeSpi,
    until: Instant,
    message: Box<[u8]>,
}

/// The pace, those that wait, and the paces of networks.
pub(super) struct Pacing {
    pace: RateLimit,
    per_prefix: u32,
    waiting: VecDeque<Waiting>,
    /// Who waits, so that a request sent again waits once.
    known: AHashSet<(IkeSpi, IpAddr)>,
    prefixes: AHashMap<IpAddr, RateLimit>,
}

impl Pacing {
    pub(super) fn new(per_second: u32, per_prefix: u32, now: Instant) -> Self {
        Self {
            pace: RateLimit::new(per_second, now),
            per_prefix,
            waiting: VecDeque::new(),
            known: AHashSet::new(),
            prefixes: AHashMap::new(),
        }
    }

    /// Follows a changed configuration.
    pub(super) fn set_pace(&mut self, per_second: u32, per_prefix: u32, now: Instant) {
        self.pace = RateLimit::new(per_second, now);
        self.per_prefix = per_prefix;
        self.prefixes.clear();
    }

    /// Takes note of a connection's new id.
    pub(super) fn conn_moved(&mut self, old: ConnId, new: ConnId) {
        for waiting in self.waiting.iter_mut().filter(|waiting| waiting.conn == old) {
            waiting.conn = new;
        }
    }

    /// Forgets what came on a connection that is gone. Only while somebody waits does this cost anything.
    pub(super) fn conn_closed(&mut self, conn: ConnId) {
        if self.waiting.is_empty() || conn.is_datagrams() {
            return;
        }
        let known = &mut self.known;
        self.waiting.retain(|waiting| {
            let stays = waiting.conn != conn;
            if !stays {
                known.remove(&(waiting.spi_i, waiting.path.remote.ip()));
            }
            stays
        });
    }

    /// Whether the network of a source has not used up its pace.
    fn allows(&mut self, now: Instant, source: IpAddr) -> bool {
        if self.prefixes.len() >= PREFIXES_MAX {
            self.prefixes.retain(|_, pace| !pace.is_full(now));
        }
        if self.prefixes.len() >= PREFIXES_MAX && !self.prefixes.contains_key(&prefix(source)) {
            // That many networks at once: the common pace has to do.
            return true;
        }
        let per_prefix = self.per_prefix;
        self.prefixes.entry(prefix(source)).or_insert_with(|| RateLimit::new(per_prefix, now)).allow(now)
    }
}

/// The network that shares a pace: a /24, which a carrier-grade NAT has in whole, or a /48.
fn prefix(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(addr) => IpAddr::V4((addr.to_bits() >> 8 << 8).into()),
        IpAddr::V6(addr) => IpAddr::V6((addr.to_bits() >> 80 << 80).into()),
    }
}

impl Responder {
    /// Serves a request at the pace of new IKE SAs, or lets it wait for its turn.
    pub(super) fn pace_init(
        &mut self,
        at: &Arrived,
        header: &IkeHeader,
        message: &[u8],
        payloads: &Payloads<'_>,
    ) -> Verdict {
        let core = &mut self.core;
        if core.is_emergency(&at.path) {
            core.counters.exchanges.emergency_inits += 1;
            return self.serve_init(at, header, message, payloads);
        }
        let source = at.path.remote.ip();
        let who = (header.spi_i, source);
        if core.pacing.known.contains(&who) {
            return Verdict::Good;
        }
        if !core.pacing.allows(at.now, source) {
            core.counters.drops.prefix_pace += 1;
            return Verdict::Bad;
        }
        if core.pacing.waiting.is_empty() && core.pacing.pace.allow(at.now) {
            return self.serve_init(at, header, message, payloads);
        }
        if core.pacing.waiting.len() >= core.config.limits.paced_max || message.len() > REQUEST_LEN_MAX {
            core.counters.drops.pacing_full += 1;
            return Verdict::Bad;
        }
        if at.is_home() {
            // How long it waits is up to us.
            core.events.push_back(Event::HalfOpen { conn: at.conn });
        }
        core.counters.exchanges.paced += 1;
        let until = at.now + core.config.limits.paced_wait;
        let (spi_i, message) = (header.spi_i, message.into());
        core.pacing.known.insert(who);
        core.pacing.waiting.push_back(Waiting { conn: at.conn, path: at.path, spi_i, until, message });
        let pause = core.pacing.pace.pause();
        core.timers.schedule(Owner::Paced, at.now + pause);
        Verdict::Good
    }

    /// Serves those whose turn has come; those that have waited too long have given up, or soon will.
    pub(super) fn on_paced_due(&mut self, now: Instant) {
        for _ in 0..PER_TURN_MAX {
            let pacing = &mut self.core.pacing;
            let Some(first) = pacing.waiting.front() else { return };
            let late = first.until <= now;
            if !late && !pacing.pace.allow(now) {
                break;
            }
            let Some(Waiting { conn, path, spi_i, message, .. }) = pacing.waiting.pop_front() else { return };
            pacing.known.remove(&(spi_i, path.remote.ip()));
            if late {
                self.core.counters.drops.pacing_late += 1;
                continue;
            }
            let at = Arrived { now, conn, path };
            let Some((header, chain)) = header_of(&message) else { continue };
            let max = self.core.config.limits.payloads_max;
            if let Ok(payloads) = Payloads::decode(header.next_payload, chain, max) {
                let _ = self.serve_init(&at, &header, &message, &payloads);
            }
        }
        if !self.core.pacing.waiting.is_empty() {
            let pause = self.core.pacing.pace.pause().max(Duration::from_millis(1));
            self.core.timers.schedule(Owner::Paced, now + pause);
        }
    }
}

impl Core {
    /// Whether a request came in where only emergency calls do.
    pub(super) fn is_emergency(&self, path: &Path) -> bool {
        self.config.emergency_listen.contains(&path.local)
    }

    /// Whether a UE asks for an APN of emergencies.
    pub(super) fn asks_emergency(&self, payloads: &Payloads<'_>) -> bool {
        let Some(asked) = payloads.id_r.and_then(identity) else { return false };
        let asked = asked.to_string();
        let of = |profile: &Profile| {
            profile.handset.emergency && !profile.idr.matches_absent() && profile.idr.matches(&asked)
        };
        self.config.profiles.iter().any(|profile| of(profile))
    }

    /// Half-open IKE SAs and sessions that are kept free of all but emergencies.
    pub(super) fn reserved(&self, of: usize) -> usize {
        let serves = self.config.profiles.iter().any(|profile| profile.handset.emergency);
        // Of few, a part.
        if serves { self.config.limits.emergency_reserved.min(of / 8) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_share_a_pace_by_24_and_48() {
        let now = Instant::now();
        let mut pacing = Pacing::new(100, 2, now);
        let addr = |text: &str| text.parse().expect("an address");
        assert!(pacing.allows(now, addr("192.0.2.1")) && pacing.allows(now, addr("192.0.2.200")));
        assert!(!pacing.allows(now, addr("192.0.2.77")));
        assert!(pacing.allows(now, addr("192.0.3.1")), "another network");
        assert!(pacing.allows(now, addr("2001:db8:1:2::1")) && pacing.allows(now, addr("2001:db8:1:ff::1")));
        assert!(!pacing.allows(now, addr("2001:db8:1::1")));
        assert!(pacing.allows(now, addr("2001:db8:2::1")));
        assert!(pacing.allows(now + Duration::from_secs(1), addr("192.0.2.77")));
    }

    #[test]
    fn networks_at_rest_are_forgotten_when_there_are_too_many() {
        let now = Instant::now();
        let mut pacing = Pacing::new(100, 2, now);
        for index in 0..PREFIXES_MAX as u32 {
            assert!(pacing.allows(now, IpAddr::V4((index << 8).into())));
        }
        assert!(
            pacing.allows(now, IpAddr::V4(0xffff_0000.into())),
            "all are busy: the common pace has to do"
        );
        assert_eq!(pacing.prefixes.len(), PREFIXES_MAX);
        let later = now + Duration::from_secs(2);
        assert!(pacing.allows(later, IpAddr::V4(0xffff_0000.into())));
        assert_eq!(pacing.prefixes.len(), 1);
    }
}
