//! The way out of one UDP socket: which flows have something to send, and what is on its way.

use std::collections::VecDeque;

use super::flows::Flows;
use crate::io::udp::Batch;

/// What a worker knows of what leaves through one of its UDP sockets.
#[derive(Default)]
pub(super) struct Outgoing {
    /// Flows with something to send, longest waiting first: a full socket leaves some of them here, and those that
    /// were served before and have more come behind them.
    dirty: VecDeque<u32>,
    /// What is on its way.
    pub batch: Batch,
    /// The socket is full: it reports itself when it is not.
    pub blocked: bool,
}

impl Outgoing {
    /// Puts a flow at the end.
    pub fn push(&mut self, slot: u32) {
        self.dirty.push_back(slot);
    }

    /// The flow whose turn it is to leave through `socket`, which is this one; `None` when none has something to send.
    ///
    /// A flow may end while it waits here, and another one have its slot since, perhaps of another socket: that one
    /// is passed over, and leaves when it is marked itself.
    pub fn next(&mut self, flows: &mut Flows, socket: usize) -> Option<u32> {
        while let Some(slot) = self.dirty.pop_front() {
            let flow = flows.get_mut(slot);
            if flow.is_some_and(|flow| flow.conn.dirty && usize::from(flow.socket) == socket) {
                return Some(slot);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::types::{Path, Transport};

    /// A flow through `socket` that has something to send.
    fn enter(flows: &mut Flows, port: u16, socket: u16) -> u32 {
        let local = ([192, 0, 2, 1 + socket as u8], 4500).into();
        let path = Path { transport: Transport::Udp, local, remote: ([198, 51, 100, 7], port).into() };
        let slot = flows.enter(&path, socket, Instant::now());
        flows.get_mut(slot).expect("just made").conn.dirty = true;
        slot
    }

    #[test]
    fn flows_that_a_full_socket_left_go_before_those_that_were_served() {
        let (mut outgoing, mut flows) = (Outgoing::default(), Flows::default());
        let all: Vec<u32> = (0..8).map(|port| enter(&mut flows, port, 0)).collect();
        all.iter().for_each(|slot| outgoing.push(*slot));
        let mut served = Vec::new();
        // The socket takes what three flows have; each has more at once.
        for _ in 0..8 {
            for _ in 0..3 {
                let slot = outgoing.next(&mut flows, 0).expect("all have something to send");
                served.push(slot);
                outgoing.push(slot);
            }
        }
        assert_eq!(served, all.repeat(3));
    }

    #[test]
    fn a_flow_of_another_socket_that_has_a_slot_since_is_left_to_that_socket() {
        let (mut outgoing, mut flows) = ([Outgoing::default(), Outgoing::default()], Flows::default());
        let gone = enter(&mut flows, 1, 0);
        outgoing[0].push(gone);
        let behind = enter(&mut flows, 2, 0);
        outgoing[0].push(behind);
        flows.leave(gone).expect("the last session");
        assert_eq!(enter(&mut flows, 3, 1), gone, "the slot is used again");
        outgoing[1].push(gone);
        assert_eq!(outgoing[0].next(&mut flows, 0), Some(behind));
        assert_eq!(outgoing[1].next(&mut flows, 1), Some(gone));
        assert_eq!((outgoing[0].next(&mut flows, 0), outgoing[1].next(&mut flows, 1)), (None, None));
    }

    #[test]
    fn a_flow_that_ended_or_has_left_already_is_passed_over() {
        let (mut outgoing, mut flows) = (Outgoing::default(), Flows::default());
        let (gone, sent) = (enter(&mut flows, 1, 0), enter(&mut flows, 2, 0));
        outgoing.push(gone);
        outgoing.push(sent);
        flows.leave(gone).expect("the last session");
        flows.get_mut(sent).expect("bound").conn.dirty = false;
        assert_eq!(outgoing.next(&mut flows, 0), None);
    }
}
