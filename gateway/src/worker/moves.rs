//! What the control thread hears of where sessions are.
//!
//! A session may go to and fro between connections with every packet, faster than the control thread could follow. It needs
//! to know where the session is, not where it has been: a session waits here once, however often it moves, and what is told
//! is where it is by then. So what waits is bounded by the number of sessions, and what one of them can make of work by
//! [`MOVES_PER_S`].

use super::Worker;
use super::inbox::ToControl;
use super::udp::flows::is_flow;
use crate::types::{ConnId, SessionId};

/// How often in a second a session's moves are told at once; what comes then waits for the next second.
const MOVES_PER_S: u8 = 16;

impl Worker {
    /// The session is elsewhere than the control thread knows.
    pub(super) fn note_moved(&mut self, id: SessionId) {
        let now_s = self.now_s as u32;
        let Some(session) = self.sad.session_mut(id).filter(|session| !session.move_untold) else { return };
        session.move_untold = true;
        if session.moves_s != now_s {
            (session.moves_s, session.moves) = (now_s, 0);
        }
        session.moves = session.moves.saturating_add(1);
        match session.moves <= MOVES_PER_S {
            true => self.moved.push_back(id),
            false => self.moved_often.push(id),
        }
    }

    /// A second has begun: what moved too often in the last one is told.
    pub(super) fn recall_moves(&mut self) {
        self.moved.extend(self.moved_often.drain(..));
    }

    /// Tells the control thread where sessions are that have moved, as far as its queue has room.
    pub(super) fn tell_moves(&mut self) {
        while self.late.is_empty()
            && let Some(id) = self.moved.pop_front()
        {
            let Some(session) = self.sad.session_mut(id) else { continue };
            // Without a connection there is nothing to tell: the control thread has heard of its end.
            let report = session.conn.and_then(|slot| self.bound(id, slot));
            if report.is_some_and(|report| self.control.try_send(report).is_err()) {
                return self.moved.push_front(id);
            }
            self.control_dirty = true;
            if let Some(session) = self.sad.session_mut(id) {
                session.move_untold = false;
            }
        }
    }

    fn bound(&mut self, session: SessionId, slot: u32) -> Option<ToControl> {
        let conn = if is_flow(slot) { ConnId::datagrams(self.id) } else { self.conns.id(slot)? };
        let path = self.conns.get_mut(slot)?.path;
        Some(ToControl::Bound { session, conn, path })
    }
}
