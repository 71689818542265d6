//! The flows of a worker: a pair of UDP addresses that sessions send to, in the place of a connection.
//!
//! A flow exists while a session is bound to it, so their number is bounded by that of the sessions. Several
//! sessions may share one: a UE that attaches anew, or two IKE SAs between one pair of hosts.

use std::net::SocketAddr;
use std::time::Instant;

use ahash::AHashMap;

use crate::types::Path;
use crate::worker::conn::Conn;

/// Set in the slot of a flow, so that it is never taken for a connection's.
const FLOW: u32 = 1 << 31;

/// Whether a slot is a flow's.
pub fn is_flow(slot: u32) -> bool {
    slot & FLOW != 0
}

/// One flow.
pub struct Flow {
    /// What waits to be sent, as on a connection.
    pub conn: Conn,
    /// The socket it is sent through.
    pub socket: u16,
    /// Sessions bound to it.
    users: u32,
    /// Whether the kernel may segment: it cannot where the route's MTU is too small.
    pub segmented: bool,
}

/// The flows by slot and by their addresses.
#[derive(Default)]
pub struct Flows {
    slots: Vec<Option<Box<Flow>>>,
    free: Vec<u32>,
    by_path: AHashMap<(SocketAddr, SocketAddr), u32>,
}

impl Flows {
    /// Binds a session to the flow of these addresses, which is made if there is none; its slot.
    pub fn enter(&mut self, path: &Path, socket: u16, now: Instant) -> u32 {
        let key = (path.local, path.remote);
        if let Some(&slot) = self.by_path.get(&key) {
            if let Some(flow) = self.get_mut(slot) {
                flow.users += 1;
            }
            return slot;
        }
        let flow = Flow { conn: Conn::flow(*path, now), socket, users: 1, segmented: true };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            FLOW | (self.slots.len() - 1) as u32
        });
        if let Some(entry) = self.slots.get_mut((slot & !FLOW) as usize) {
            *entry = Some(Box::new(flow));
        }
        self.by_path.insert(key, slot);
        slot
    }

    /// Unbinds a session. The flow, when that was the last one.
    pub fn leave(&mut self, slot: u32) -> Option<Flow> {
        let flow = self.get_mut(slot)?;
        flow.users -= 1;
        if flow.users > 0 {
            return None;
        }
        let path = flow.conn.path;
        self.by_path.remove(&(path.local, path.remote));
        self.free.push(slot);
        self.slots.get_mut((slot & !FLOW) as usize)?.take().map(|flow| *flow)
    }

    /// A flow; `None` also for the slot of a connection.
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Flow> {
        let index = is_flow(slot).then_some((slot & !FLOW) as usize)?;
        self.slots.get_mut(index)?.as_deref_mut()
    }

    /// Whether the flow's addresses are these.
    pub fn is_at(&mut self, slot: u32, path: &Path) -> bool {
        self.get_mut(slot).is_some_and(|flow| flow.conn.path == *path)
    }

    /// Whether more than one session is bound to it.
    pub fn is_shared(&mut self, slot: u32) -> bool {
        self.get_mut(slot).is_some_and(|flow| flow.users > 1)
    }

    /// Flows there are.
    pub fn len(&self) -> usize {
        self.by_path.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Transport;

    fn path(port: u16) -> Path {
        let local = ([192, 0, 2, 1], 4500).into();
        Path { transport: Transport::Udp, local, remote: ([198, 51, 100, 7], port).into() }
    }

    #[test]
    fn a_flow_lives_as_long_as_a_session_is_bound_to_it() {
        let (mut flows, now) = (Flows::default(), Instant::now());
        let first = flows.enter(&path(1), 0, now);
        let other = flows.enter(&path(2), 0, now);
        assert!(is_flow(first) && first != other);
        assert_eq!(flows.enter(&path(1), 0, now), first);
        assert!(flows.is_shared(first) && flows.is_at(first, &path(1)));
        assert!(flows.leave(first).is_none());
        assert_eq!(flows.leave(first).expect("the last").conn.path, path(1));
        assert!(flows.leave(first).is_none() && !flows.is_at(first, &path(1)));
        assert_eq!(flows.enter(&path(3), 0, now), first, "used again");
        assert_eq!(flows.len(), 2);
    }

    #[test]
    fn the_slot_of_a_connection_is_no_flow() {
        let mut flows = Flows::default();
        flows.enter(&path(1), 0, Instant::now());
        assert!(flows.get_mut(0).is_none() && flows.leave(0).is_none());
    }
}
