//! One socket or connection to a server: 256 identifiers, each for one outstanding request (RFC 2865 §3).

use std::time::{Duration, Instant};

use super::retry::RECONNECT_FIRST;

/// Identifiers of a link.
const IDS: usize = 256;

/// Whether a link can carry requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkState {
    /// Not before then.
    Closed(Instant),
    /// Its connection is under way.
    Opening,
    /// It can.
    Open,
}

/// A link, and which request uses which identifier.
pub struct Link {
    /// Whether it can carry requests.
    pub state: LinkState,
    /// How long it stays closed when its connection fails.
    pub patience: Duration,
    /// Key of the exchange by identifier; 0 is nobody.
    ids: Box<[u64; IDS]>,
    used: usize,
    next: u8,
}

impl Link {
    /// A link in `state`.
    pub fn new(state: LinkState) -> Self {
        Self { state, patience: RECONNECT_FIRST, ids: Box::new([0; IDS]), used: 0, next: 0 }
    }

    /// Gives `key` an identifier, the one that was not used for longest, unless all are taken.
    pub fn take(&mut self, key: u64) -> Option<u8> {
        if self.state != LinkState::Open || self.used == IDS {
            return None;
        }
        while self.ids[usize::from(self.next)] != 0 {
            self.next = self.next.wrapping_add(1);
        }
        let id = self.next;
        self.ids[usize::from(id)] = key;
        self.used += 1;
        self.next = id.wrapping_add(1);
        Some(id)
    }

    /// Frees an identifier.
    pub fn free(&mut self, id: u8) {
        if std::mem::take(&mut self.ids[usize::from(id)]) != 0 {
            self.used -= 1;
        }
    }

    /// Who uses an identifier.
    pub fn holder(&self, id: u8) -> Option<u64> {
        Some(self.ids[usize::from(id)]).filter(|key| *key != 0)
    }

    /// Frees all identifiers; returns who used them.
    pub fn free_all(&mut self) -> Vec<u64> {
        self.used = 0;
        self.ids.iter_mut().map(std::mem::take).filter(|key| *key != 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_used_once_and_again_as_late_as_can_be() {
        let mut link = Link::new(LinkState::Open);
        let ids: Vec<u8> = (1..=256).filter_map(|key| link.take(key)).collect();
        assert_eq!(ids, (0..=255).collect::<Vec<u8>>());
        assert_eq!(link.take(257), None);
        link.free(9);
        link.free(9);
        link.free(200);
        assert_eq!((link.take(300), link.take(301), link.take(302)), (Some(9), Some(200), None));
        assert_eq!((link.holder(9), link.holder(10)), (Some(300), Some(11)));
        assert_eq!(link.free_all().len(), 256);
        assert_eq!(link.holder(9), None);
        link.state = LinkState::Opening;
        assert_eq!(link.take(1), None);
    }
}
