//! Retransmission of our own requests over UDP, with exponential backoff (RFC 7296 §2.1, §2.4). Over TCP nothing is
//! sent twice on one connection (RFC 9329 §6.2).

use std::time::Instant;

use super::Core;
use super::sa::Session;
use super::window::Window;
use crate::types::Transport;

impl Session {
    /// The IKE SAs that may have a request outstanding.
    fn windows(&mut self) -> impl Iterator<Item = &mut Window> {
        let old = self.old.as_deref_mut().map(|old| &mut old.0.window);
        std::iter::once(&mut self.ike.window).chain(old)
    }

    /// When a request of ours is to be sent again.
    pub(super) fn resend_due(&self) -> Option<Instant> {
        let old = self.old.as_ref().and_then(|old| old.0.window.resend_at());
        self.ike.window.resend_at().into_iter().chain(old).min()
    }
}

impl Core {
    /// Starts the clock of outstanding requests that leave over UDP, and stops it for all others.
    pub(super) fn arm_resends(&self, now: Instant, session: &mut Session) {
        let first = self.config.limits.retransmit_first;
        let over_udp = session.conn.is_some() && session.path.transport == Transport::Udp;
        for window in session.windows() {
            match over_udp {
                true => window.resend_after(now, first),
                false => window.stop_resending(),
            }
        }
    }

    /// Sends again what is due, unchanged.
    pub(super) fn resend_due(&mut self, now: Instant, session: &mut Session) {
        let (Some(conn), path) = (session.conn, session.path) else { return };
        for window in session.windows() {
            if let Some(message) = window.resend(now) {
                self.counters.exchanges.requests_retransmitted += 1;
                self.transmit(conn, &path, message);
            }
        }
    }
}
