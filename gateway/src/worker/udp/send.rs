//! Core to UE: sealed frames leave as datagrams, IKE messages at once.

use std::io::IoSlice;
use std::{io, mem};

use bytes::Bytes;
use codec::stream::NON_ESP_MARKER;

use super::flows::Flows;
use crate::io::udp::{Batch, Lost, Route, Sent};
use crate::types::Path;
use crate::worker::Worker;
use crate::worker::counters::DropReason;

impl Worker {
    /// Sends an IKE message. Over UDP it may get lost, and is repeated by whoever misses the answer.
    pub(in crate::worker) fn send_ike_to(&mut self, path: &Path, message: &Bytes) {
        let socket = self.ring.udp_sockets().iter().find(|socket| socket.serves(path.local));
        let Some(socket) = socket else {
            return self.counters.dropped(DropReason::IkeNoConnection);
        };
        // RFC 3948 §2.2: the marker tells IKE from ESP where both may come.
        let marker: &[u8] = if socket.carries_esp() { &NON_ESP_MARKER } else { &[] };
        let parts = [IoSlice::new(marker), IoSlice::new(message)];
        match socket.send(path.local, path.remote, &parts) {
            Ok(()) => {
                self.counters.ike_sent.add(1);
                self.counters.udp_sent.add(1);
            }
            Err(error) => self.counters.dropped(reason(&error)),
        }
    }

    /// Puts a flow behind those that something is to be sent from at the end of the turn.
    pub(in crate::worker) fn mark_flow(&mut self, slot: u32) {
        let Some(flow) = self.conns.flows.get_mut(slot) else { return };
        if let Some(outgoing) = self.udp.outgoing.get_mut(usize::from(flow.socket)) {
            outgoing.push(slot);
        }
    }

    /// Sends what the flows have sealed, as far as the sockets take it. What they do not take stays sealed; what
    /// comes behind waits unsealed in the flow queues.
    pub(in crate::worker) fn flush_udp(&mut self) {
        for socket in 0..self.udp.outgoing.len() {
            if !self.udp.outgoing[socket].blocked {
                self.flush_socket(socket);
            }
        }
    }

    /// A full socket has room again.
    pub(in crate::worker) fn on_writable(&mut self, socket: usize) {
        if let Some(outgoing) = self.udp.outgoing.get_mut(socket) {
            outgoing.blocked = false;
        }
    }

    fn flush_socket(&mut self, socket: usize) {
        let Some(outgoing) = self.udp.outgoing.get_mut(socket) else { return };
        let mut outgoing = mem::take(outgoing);
        loop {
            while !outgoing.batch.is_full()
                && let Some(slot) = outgoing.next(&mut self.conns.flows, socket)
            {
                self.collect(slot, &mut outgoing.batch);
            }
            if outgoing.batch.is_empty() {
                break;
            }
            if self.send_batch(socket, &mut outgoing.batch) == Sent::Blocked {
                outgoing.blocked = true;
                self.ring.await_writable(socket);
                break;
            }
            for block in outgoing.batch.finish() {
                self.blocks.give_back(block);
            }
        }
        self.udp.outgoing[socket] = outgoing;
    }

    /// Moves what a flow has sealed into a batch; what waits behind it gets its turn.
    fn collect(&mut self, slot: u32, batch: &mut Batch) {
        let Some(flow) = self.conns.flows.get_mut(slot) else { return };
        let path = flow.conn.path;
        let socket = self.ring.udp_sockets().get(usize::from(flow.socket));
        let source = socket.and_then(|socket| socket.source(path.local));
        let route = Route { remote: path.remote, source, segmented: flow.segmented };
        flow.conn.dirty = false;
        let queue = &mut flow.conn.queue;
        queue.octets = 0;
        for block in queue.blocks.drain(..) {
            self.counters.udp_sent.add(u64::from(block.frames()));
            batch.add(slot, block, &route);
        }
        if let Some(ue) = queue.waiting {
            self.flow_queues.activate(ue);
        }
    }

    fn send_batch(&mut self, socket: usize, batch: &mut Batch) -> Sent {
        let (counters, flows): (_, &mut Flows) = (&self.counters, &mut self.conns.flows);
        let Some(socket) = self.ring.udp_sockets().get(socket) else { return Sent::All };
        batch.send(socket, |lost| match lost {
            Lost::Datagrams(count) => counters.dropped_many(DropReason::UdpSend, count),
            Lost::Segmentation(slot) => {
                if let Some(flow) = flows.get_mut(slot) {
                    flow.segmented = false;
                }
            }
        })
    }
}

fn reason(error: &io::Error) -> DropReason {
    match error.kind() {
        io::ErrorKind::WouldBlock => DropReason::SendMemory,
        _ => DropReason::UdpSend,
    }
}
