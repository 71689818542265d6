//! The connections of one worker, and how many each source has.

use std::net::IpAddr;

use ahash::AHashMap;

use super::link::Link;

/// Bits of a generation that fit an epoll token.
const GENERATION_MASK: u32 = 0xff_ffff;

#[derive(Default)]
struct Slot {
    link: Option<Box<Link>>,
    generation: u32,
}

/// The connections by slot. Grows to the most that were open at once.
pub(super) struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    open: usize,
    per_source: AHashMap<IpAddr, u32>,
    connections_max: u32,
    per_source_max: u32,
}

impl Table {
    pub fn new(connections_max: u32, per_source_max: u32) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            open: 0,
            per_source: AHashMap::new(),
            connections_max,
            per_source_max,
        }
    }

    /// Adds the connection that `make` builds for a generation; `None` at a limit.
    pub fn add(&mut self, source: IpAddr, make: impl FnOnce(u32) -> Link) -> Option<u32> {
        let from_source = self.per_source.get(&source).copied().unwrap_or(0);
        if self.open >= self.connections_max as usize || from_source >= self.per_source_max {
            return None;
        }
        let slot = self.free.pop().unwrap_or(self.slots.len() as u32);
        if slot as usize == self.slots.len() {
            self.slots.push(Slot::default());
        }
        let entry = self.slots.get_mut(slot as usize)?;
        entry.generation = entry.generation.wrapping_add(1) & GENERATION_MASK;
        entry.link = Some(Box::new(make(entry.generation)));
        *self.per_source.entry(source).or_insert(0) += 1;
        self.open += 1;
        Some(slot)
    }

    pub fn remove(&mut self, slot: u32) -> Option<Box<Link>> {
        let link = self.slots.get_mut(slot as usize)?.link.take()?;
        let source = link.remote.ip();
        if let Some(from_source) = self.per_source.get_mut(&source) {
            *from_source -= 1;
            if *from_source == 0 {
                self.per_source.remove(&source);
            }
        }
        self.free.push(slot);
        self.open -= 1;
        Some(link)
    }

    /// The connection, unless its slot has a new user.
    pub fn find(&mut self, slot: u32, generation: u32) -> Option<&mut Link> {
        self.get_mut(slot).filter(|link| link.generation == generation)
    }

    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Link> {
        self.slots.get_mut(slot as usize)?.link.as_deref_mut()
    }

    /// Every connection with its slot.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Link)> {
        let links = self.slots.iter().enumerate();
        links.filter_map(|(slot, entry)| Some((slot as u32, entry.link.as_deref()?)))
    }

    pub fn len(&self) -> usize {
        self.open
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::time::Instant;

    use codec::stream::Deframer;

    use super::*;
    use crate::bridge::FrameStream;

    #[test]
    fn slots_and_sources_are_bounded_and_come_back() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let to = listener.local_addr().expect("bound");
        let mut table = Table::new(3, 2);
        let add = |table: &mut Table, source: [u8; 4]| {
            let remote = SocketAddr::from((source, 4000));
            let tcp = TcpStream::connect(to).expect("connected");
            let stream = FrameStream::new(tcp, Deframer::responder());
            table.add(remote.ip(), |generation| Link::new(generation, stream, remote, Instant::now()))
        };
        let first = add(&mut table, [192, 0, 2, 1]).expect("free");
        let generation = table.get_mut(first).expect("there").generation;
        add(&mut table, [192, 0, 2, 1]).expect("second of two");
        assert_eq!(add(&mut table, [192, 0, 2, 1]), None, "per source");
        add(&mut table, [192, 0, 2, 2]).expect("another source");
        assert_eq!(add(&mut table, [192, 0, 2, 3]), None, "table full");
        assert!(table.remove(first).is_some() && table.remove(first).is_none());
        assert_eq!(add(&mut table, [192, 0, 2, 1]), Some(first));
        assert!(table.find(first, generation).is_none(), "an old token must not find the new connection");
        assert_eq!((table.len(), table.iter().count()), (3, 3));
    }
}
