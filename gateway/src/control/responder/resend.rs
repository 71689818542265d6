//! Sending our own requests again: where the peer has gone, and over UDP by the clock, with exponential backoff (RFC 7296 §2.1, §2.4). Over TCP nothing is
//! sent twice on one connection (RFC 9329 §6.2).

use std::time::Instant;

use super::Core;
use super::own_request::Destination;
use super::sa::Session;
use super::window::{Offer, Window};
use crate::types::Transport;

impl Session {
    /// The IKE SAs that may have a request outstanding.
    fn windows(&mut self) -> impl Iterator<Item = &mut Window> {
        let others = self.others.iter_mut().map(|other| &mut other.sa.window);
        others.chain([&mut self.ike.window])
    }

    /// What the peer answers to a COOKIE2 on its way says nothing any more.
    pub(super) fn void_challenge(&mut self) {
        for window in self.windows() {
            if let Some(request) = window.outstanding_mut() {
                request.void_challenge(None);
            }
        }
    }

    /// Whether the peer has yet to answer a COOKIE2 at the address it says it is at.
    pub(super) fn is_challenged(&mut self) -> bool {
        let mut requests = self.windows().filter_map(|window| window.outstanding());
        requests.any(|request| matches!(&request.offer, Some(Offer::Address(candidate)) if !candidate.void))
    }

    /// When a request of ours is to be sent again.
    pub(super) fn resend_due(&self) -> Option<Instant> {
        let others = self.others.iter().map(|other| &other.sa.window);
        others.chain([&self.ike.window]).filter_map(Window::resend_at).min()
    }
}

impl Core {
    /// Sends what awaits its answer where the peer is now, unchanged; the wait goes on (RFC 9329 §6.2, RFC 4555
    /// §3.5). `to` is that place while the session itself has not moved there.
    pub(super) fn repeat_requests(
        &mut self,
        session: &mut Session,
        at: Destination,
        to: Option<Destination>,
    ) {
        for window in session.windows() {
            window.stop_resending();
            if let Some(request) = window.outstanding_mut() {
                request.void_challenge(Some(&at.path));
                request.to = to;
                self.counters.exchanges.requests_resent += 1;
                self.transmit(at.conn, &at.path, request.message.clone());
            }
        }
    }

    /// Starts the clock of outstanding requests that leave over UDP, and stops it for all others.
    pub(super) fn arm_resends(&self, now: Instant, session: &mut Session) {
        let first = self.config.limits.retransmit_first;
        let here = session.conn.map(|conn| Destination { conn, path: session.path });
        for window in session.windows() {
            let to = window.outstanding().and_then(|request| request.to).or(here);
            match to.is_some_and(|to| to.path.transport == Transport::Udp) {
                true => window.resend_after(now, first),
                false => window.stop_resending(),
            }
        }
    }

    /// Sends again what is due, unchanged.
    pub(super) fn resend_due(&mut self, now: Instant, session: &mut Session) {
        let here = session.conn.map(|conn| Destination { conn, path: session.path });
        for window in session.windows() {
            let to = window.outstanding().and_then(|request| request.to).or(here);
            if let (Some(message), Some(Destination { conn, path })) = (window.resend(now), to) {
                self.counters.exchanges.requests_retransmitted += 1;
                self.transmit(conn, &path, message);
            }
        }
    }
}
