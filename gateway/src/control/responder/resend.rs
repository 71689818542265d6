//! Retransmission of our own requests over UDP, with exponential backoff (RFC 7296 §2.1, §2.4). Over TCP nothing is
//! sent twice on one connection (RFC 9329 §6.2).

use std::time::Instant;

use super::Core;
use super::own_request::Destination;
use super::sa::Session;
use super::window::Window;
use crate::types::Transport;

impl Session {
    /// The IKE SAs that may have a request outstanding.
    fn windows(&mut self) -> impl Iterator<Item = &mut Window> {
        let others = self.others.iter_mut().map(|other| &mut other.sa.window);
        std::iter::once(&mut self.ike.window).chain(others)
    }

    /// When a request of ours is to be sent again.
    pub(super) fn resend_due(&self) -> Option<Instant> {
        let others = self.others.iter().map(|other| &other.sa.window);
        others.chain([&self.ike.window]).filter_map(Window::resend_at).min()
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
                let to = window.outstanding().and_then(|request| request.to);
                let Destination { conn, path } = to.unwrap_or(Destination { conn, path });
                self.counters.exchanges.requests_retransmitted += 1;
                self.transmit(conn, &path, message);
            }
        }
    }
}
