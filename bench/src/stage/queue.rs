//! Queueing before encryption.

use super::{PACKET_LEN, Stage, super_packet};
use codec::esp::EspSpi;
use codec::ip::{InnerHeader, Segmenter};
use gateway::worker::counters::WorkerCounters;
use gateway::worker::flow_queue::{Arrival, Delay, FlowQueues, UeId};
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Instant;

/// UEs for which packets wait, and packets of each.
const UES: usize = 16;
const PACKETS: usize = 4;
/// Bounds of the queues: more than is queued here.
const UE_MAX: usize = 1 << 20;
const WORKER_MAX: usize = 16 << 20;

/// Single packets of many UEs queued and taken out again in turn.
pub struct PushPop {
    queues: FlowQueues,
    ues: [Option<UeId>; UES],
    packet: Box<[u8]>,
    segmenter: Segmenter,
    counters: WorkerCounters,
    now: Instant,
}

impl PushPop {
    /// Packets of `len` octets.
    pub fn new(len: usize) -> Self {
        let (header, packet) =
            super_packet(Ipv4Addr::new(203, 0, 113, 9), Ipv4Addr::new(10, 64, 0, 2), 1, len);
        let inner = InnerHeader::parse(&packet).expect("a sound packet");
        let segmenter =
            Segmenter::new(&packet, &inner, &header, PACKET_LEN as u16).expect("a packet that fits");
        Self {
            queues: FlowQueues::new(UE_MAX, WORKER_MAX, PACKET_LEN as u16, None),
            ues: [None; UES],
            packet: packet.into(),
            segmenter,
            counters: WorkerCounters::default(),
            now: Instant::now(),
        }
    }

    fn push(&mut self, at: usize) {
        let arrival = Arrival {
            range: 0..self.packet.len(),
            buffer: &mut self.packet,
            segmenter: self.segmenter.clone(),
            mtu: PACKET_LEN as u16,
            spi_in: EspSpi(0x1000),
            flow: at as u64,
            voice: false,
        };
        self.queues.push(&mut self.ues[at], at as u32, arrival, self.now, &self.counters);
    }

    fn pop(&mut self, at: usize) {
        while let Some(segment) =
            self.queues.pop(&mut self.ues[at], Delay::default(), self.now, &self.counters)
        {
            black_box(self.queues.bytes(&segment));
            self.queues.release(segment);
        }
    }
}

impl Stage for PushPop {
    fn prepare(&mut self) {}

    fn run(&mut self) {
        for _ in 0..PACKETS {
            (0..UES).for_each(|at| self.push(at));
        }
        for at in 0..UES {
            if let Some(ue) = self.ues[at] {
                self.queues.activate(ue);
            }
        }
        while let Some(slot) = self.queues.next_turn() {
            self.pop(slot as usize);
        }
    }

    fn packets(&self) -> usize {
        UES * PACKETS
    }
}
