//! ESP that arrives before its SA: the UE may use a Child SA that the gateway offered as soon as it has answered,
//! and its first packets can be here before the control thread has read that answer.

use ahash::AHashMap;
use codec::esp::EspSpi;

use super::Worker;
use super::counters::DropReason;
use crate::types::{ConnId, SessionId};

/// Packets kept for one announced SPI: what fits into the time the control thread takes for a message.
const FRAMES_MAX: usize = 4096;

/// Connections that the control thread is told of for one announced SPI: each is answered with the offer.
const REPORTS_MAX: u8 = 16;

/// SPIs on offer and the packets that wait for them, in the order they came.
pub(super) struct Early {
    announced: AHashMap<EspSpi, Announced>,
    /// Octets of all frames.
    octets: usize,
    octets_max: usize,
}

struct Announced {
    session: SessionId,
    frames: Vec<(ConnId, Box<[u8]>)>,
    /// The connection that the control thread was last told of, and how often it was told of one.
    reported: (Option<ConnId>, u8),
}

impl Early {
    /// Keeps at most `octets_max` octets of frames.
    pub(super) fn new(octets_max: usize) -> Self {
        Self { announced: AHashMap::new(), octets: 0, octets_max }
    }

    pub(super) fn announce(&mut self, session: SessionId, spi: EspSpi) {
        self.announced.insert(spi, Announced { session, frames: Vec::new(), reported: (None, 0) });
    }

    /// The session that an announced SPI will belong to.
    pub(super) fn session_of(&self, spi: EspSpi) -> Option<SessionId> {
        self.announced.get(&spi).map(|announced| announced.session)
    }

    /// Whether packets for the SPI on `conn` are news to the control thread.
    pub(super) fn is_news(&mut self, conn: ConnId, spi: EspSpi) -> bool {
        let Some(Announced { reported: (last, times), .. }) = self.announced.get_mut(&spi) else {
            return false;
        };
        let news = last.replace(conn) != Some(conn) && *times < REPORTS_MAX;
        *times += u8::from(news);
        news
    }

    /// Keeps a frame, if there is room.
    pub(super) fn keep(&mut self, conn: ConnId, spi: EspSpi, frame: &[u8]) -> bool {
        let Some(announced) = self.announced.get_mut(&spi) else { return false };
        let fits = announced.frames.len() < FRAMES_MAX && self.octets + frame.len() <= self.octets_max;
        if fits {
            self.octets += frame.len();
            announced.frames.push((conn, frame.into()));
        }
        fits
    }

    /// Ends the wait for an SPI; yields what waited.
    fn take(&mut self, spi: EspSpi) -> Vec<(ConnId, Box<[u8]>)> {
        let frames = self.announced.remove(&spi).map(|announced| announced.frames).unwrap_or_default();
        self.octets -= frames.iter().map(|(_, frame)| frame.len()).sum::<usize>();
        frames
    }

    /// Forgets what is announced for a session; the number of frames that waited.
    fn forget_session(&mut self, session: SessionId) -> usize {
        let spis = self.announced.iter().filter(|(_, announced)| announced.session == session);
        let spis: Vec<EspSpi> = spis.map(|(spi, _)| *spi).collect();
        spis.into_iter().map(|spi| self.take(spi).len()).sum()
    }
}

impl Worker {
    /// The SA is in force: what waited for it is handled as if it came now.
    pub(super) fn open_early(&mut self, spi: EspSpi) {
        for (id, frame) in self.early.take(spi) {
            if self.conns.find(id).is_some_and(|conn| conn.is_open()) {
                let body = self.outlet.hold_owned(frame.into_vec());
                self.on_esp(id.slot, spi, body);
            } else {
                self.counters.dropped(DropReason::NoConnection);
            }
        }
    }

    /// The UE did not agree: what it sent all the same is dropped.
    pub(super) fn on_withdrawn(&mut self, spi: EspSpi) {
        let frames = self.early.take(spi).len();
        self.counters.dropped_many(DropReason::EarlyEsp, frames as u64);
    }

    /// A session ends, and with it what it was waiting for.
    pub(super) fn forget_early(&mut self, session: SessionId) {
        let frames = self.early.forget_session(session);
        self.counters.dropped_many(DropReason::EarlyEsp, frames as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::WorkerId;

    #[test]
    fn frames_wait_in_order_and_within_bounds() {
        let conn = ConnId { worker: WorkerId(0), slot: 1, generation: 1 };
        let (spi, session) = (EspSpi(0x1000), SessionId(7));
        let mut early = Early::new(100);
        assert!(!early.keep(conn, spi, &[0; 10]), "not announced");
        early.announce(session, spi);
        assert_eq!(early.session_of(spi), Some(session));
        assert!(early.keep(conn, spi, &[1; 60]) && early.keep(conn, spi, &[2; 40]));
        assert!(!early.keep(conn, spi, &[3; 1]), "full");
        let frames: Vec<u8> = early.take(spi).iter().map(|(_, frame)| frame[0]).collect();
        assert_eq!((frames, early.octets), (vec![1, 2], 0));
        assert_eq!(early.session_of(spi), None);
        early.announce(session, spi);
        assert!(early.keep(conn, spi, &[4; 60]));
        assert_eq!((early.forget_session(session), early.octets), (1, 0));
    }
}
