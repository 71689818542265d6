//! UEs that return a cookie and no solution: they know nothing of puzzles, so a small share of the new IKE SAs is theirs,
//! first come, first served (RFC 8019 §7.1.4). None is refused: it waits, and only its own patience or the arrival of
//! too many others ends that.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use codec::ike::IkeHeader;

use super::half_open::RateLimit;
use super::inner::Payloads;
use super::{Arrived, Event, Owner, Responder, Verdict};
use crate::types::{ConnId, Path};

/// Octets of a request that waits. Offers of ML-KEM-1024 have half as many.
const REQUEST_LEN_MAX: usize = 4096;

/// One IKE_SA_INIT over TCP whose cookie is good.
struct Waiting {
    conn: ConnId,
    path: Path,
    message: Box<[u8]>,
}

/// Those that wait, oldest first.
pub(super) struct Unsolved {
    waiting: VecDeque<Waiting>,
    share: RateLimit,
}

impl Unsolved {
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        Self { waiting: VecDeque::new(), share: RateLimit::new(per_second, now) }
    }

    /// Follows a changed configuration.
    pub(super) fn set_share(&mut self, per_second: u32, now: Instant) {
        self.share = RateLimit::new(per_second, now);
    }

    /// Takes note of a connection's new id.
    pub(super) fn conn_moved(&mut self, old: ConnId, new: ConnId) {
        for waiting in self.waiting.iter_mut().filter(|waiting| waiting.conn == old) {
            waiting.conn = new;
        }
    }

    /// Forgets what came on a connection that is gone.
    pub(super) fn conn_closed(&mut self, conn: ConnId) {
        self.waiting.retain(|waiting| waiting.conn != conn);
    }
}

impl Responder {
    /// Serves a request without a solution if its turn has come, or lets it wait.
    pub(super) fn serve_unsolved(
        &mut self,
        at: &Arrived,
        header: &IkeHeader,
        message: &[u8],
        payloads: &Payloads<'_>,
    ) -> Verdict {
        let core = &mut self.core;
        if core.unsolved.waiting.is_empty() && core.unsolved.share.allow(at.now) {
            core.counters.exchanges.unsolved_served += 1;
            return self.serve_init(at, header, message, payloads);
        }
        let here = core.unsolved.waiting.iter().any(|waiting| waiting.conn == at.conn);
        if here || message.len() > REQUEST_LEN_MAX {
            core.counters.drops.unsolved_lost += 1;
            return Verdict::Bad;
        }
        if core.unsolved.waiting.len() >= core.config.limits.unsolved_max {
            core.unsolved.waiting.pop_front();
            core.counters.drops.unsolved_lost += 1;
        }
        // It has come back in time; how long it waits now is up to us.
        core.events.push_back(Event::HalfOpen { conn: at.conn });
        let message = message.into();
        core.unsolved.waiting.push_back(Waiting { conn: at.conn, path: at.path, message });
        let pause = core.unsolved.share.pause();
        core.timers.schedule(Owner::Unsolved, at.now + pause);
        Verdict::Good
    }

    /// Serves those whose turn has come.
    pub(super) fn on_unsolved_due(&mut self, now: Instant) {
        while !self.core.unsolved.waiting.is_empty() && self.core.unsolved.share.allow(now) {
            let Some(Waiting { conn, path, message }) = self.core.unsolved.waiting.pop_front() else { break };
            self.core.counters.exchanges.unsolved_served += 1;
            let at = Arrived { now, conn, path };
            // Its verdict has been given; it was well formed when it came.
            let Some((header, chain)) = header_of(&message) else { continue };
            if let Ok(payloads) =
                Payloads::decode(header.next_payload, chain, self.core.config.limits.payloads_max)
            {
                let _ = self.serve_init(&at, &header, &message, &payloads);
            }
        }
        if !self.core.unsolved.waiting.is_empty() {
            let pause = self.core.unsolved.share.pause().max(Duration::from_millis(1));
            self.core.timers.schedule(Owner::Unsolved, now + pause);
        }
    }
}

pub(super) fn header_of(message: &[u8]) -> Option<(IkeHeader, &[u8])> {
    let header = IkeHeader::decode(message).ok()?;
    Some((header, message.get(codec::ike::HEADER_LEN..)?))
}
