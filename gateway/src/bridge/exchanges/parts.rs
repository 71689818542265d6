//! A message as it came: whole, or in fragments.

use crate::bridge::message::Fragment;

/// The datagrams of one message, in the order of their arrival.
#[derive(Default)]
pub(super) struct Parts {
    octets: Vec<Box<[u8]>>,
    numbers: Vec<u16>,
    total: u16,
    /// Octets of all of them, counted as they come.
    len: usize,
}

/// What [`Parts::file`] made of a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Filed {
    /// It is there already, octet for octet.
    Known,
    /// It was missing.
    Added,
    /// Something else stood in its place: everything earlier is gone.
    Replaced,
    /// It was missing and is not kept.
    NoRoom,
}

impl Parts {
    /// Files a datagram of which `room` octets at most may be kept beyond what is.
    pub fn file(&mut self, fragment: Fragment, message: &[u8], room: usize) -> Filed {
        let known = self.numbers.iter().position(|number| *number == fragment.number);
        let same = known.and_then(|at| self.octets.get(at)).map(|octets| **octets == *message);
        if same == Some(true) && self.total == fragment.total {
            return Filed::Known;
        }
        // RFC 7383 §2.6.1: a message fragmented anew, into smaller fragments, starts over.
        let replaces = !self.octets.is_empty() && (same.is_some() || self.total != fragment.total);
        if message.len() > room + if replaces { self.len } else { 0 } {
            return Filed::NoRoom;
        }
        if replaces {
            *self = Self::default();
        }
        self.total = fragment.total;
        self.len += message.len();
        self.octets.push(message.into());
        self.numbers.push(fragment.number);
        if replaces { Filed::Replaced } else { Filed::Added }
    }

    /// Whether all of the message is there.
    pub fn is_complete(&self) -> bool {
        !self.octets.is_empty() && self.octets.len() >= usize::from(self.total.max(1))
    }

    /// Whether one of the datagrams is `message`.
    pub fn contains(&self, message: &[u8]) -> bool {
        self.octets.iter().any(|octets| **octets == *message)
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.octets.iter().map(|octets| &**octets)
    }

    pub fn all(&self) -> &[Box<[u8]>] {
        &self.octets
    }

    /// Octets kept.
    pub fn octets(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(number: u16, total: u16) -> Fragment {
        Fragment { number, total }
    }

    #[test]
    fn fragments_gather_in_any_order_and_each_is_kept_once() {
        let mut parts = Parts::default();
        assert!(!parts.is_complete());
        assert_eq!(parts.file(part(2, 2), b"two", 100), Filed::Added);
        assert_eq!(parts.file(part(2, 2), b"two", 100), Filed::Known);
        assert!(!parts.is_complete());
        assert_eq!(parts.file(part(1, 2), b"one", 100), Filed::Added);
        assert!(parts.is_complete());
        assert_eq!(parts.octets(), 6);
    }

    #[test]
    fn other_octets_or_another_total_start_over() {
        let mut parts = Parts::default();
        parts.file(Fragment::WHOLE, b"first", 100);
        assert_eq!(parts.file(Fragment::WHOLE, b"second", 100), Filed::Replaced);
        assert!(parts.contains(b"second") && !parts.contains(b"first"));
        assert_eq!(parts.file(part(1, 3), b"a", 100), Filed::Replaced);
        assert!(!parts.is_complete());
    }

    #[test]
    fn nothing_is_kept_beyond_the_room() {
        let mut parts = Parts::default();
        assert_eq!(parts.file(Fragment::WHOLE, b"12345", 4), Filed::NoRoom);
        assert_eq!(parts.octets(), 0);
        assert_eq!(parts.file(Fragment::WHOLE, b"1234", 4), Filed::Added);
        assert_eq!(parts.file(Fragment::WHOLE, b"abcd", 0), Filed::Replaced, "in place of the other");
        assert_eq!(parts.octets(), 4);
        assert_eq!(parts.file(part(1, 2), b"ab", 0), Filed::Replaced);
        assert_eq!(parts.octets(), 2, "of what was replaced nothing counts");
    }
}
