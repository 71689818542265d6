//! The far end on the core side: receives what UEs send through the gateway, judges it, and sends for the downlink.
//!
//! One thread, one UDP socket. Flows open with [`ProbeKind::Start`], which comes through the tunnel like all else, so the
//! sink learns each UE's inner address from the packet and needs no other channel. Control messages are answered every
//! time they arrive; the asking side repeats them until answered.
//!
//! [`ProbeKind::Start`]: crate::probe::ProbeKind::Start

mod downlink;
mod flows;
mod pacing;
pub mod protocol;
mod socket;

use crate::error::Failure;
use crate::host::clock;
use flows::Flows;
use socket::SinkSocket;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Receive batches handled before the downlink gets its turn.
const BATCHES_PER_TURN: usize = 4;
/// Longest sleep: bounds how late a stop request, a pacing tick or a stall is noticed.
const TICK: Duration = Duration::from_millis(2);
/// The same while there are paced flows: the more there are, the less often.
const TICK_PACED_MIN: Duration = Duration::from_micros(250);
const TICK_PER_FLOW: Duration = Duration::from_micros(1);
/// Data packets in one turn from which on the next turn lets as much gather, and for how long.
const GATHER_FROM: u64 = 32;
const GATHER: Duration = Duration::from_micros(100);

/// What a sink did until it was stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Data packets received.
    pub packets: u64,
    /// Datagrams that the kernel refused to send (EPERM, EHOSTUNREACH, ENETUNREACH, ECONNREFUSED, EINTR, or a full buffer in
    /// the middle of a burst). Those with data are among the packets sent.
    pub refused: u64,
}

/// A bound sink, not yet running.
pub struct Sink {
    socket: SinkSocket,
    flows: Flows,
}

impl Sink {
    /// Binds the UDP socket; `offload` lets the kernel cut bursts and join trains.
    ///
    /// # Errors
    /// [`Failure::Environment`] when the address cannot be bound.
    pub fn bind(listen: SocketAddr, offload: bool) -> Result<Self, Failure> {
        Ok(Self { socket: SinkSocket::bind(listen, offload)?, flows: Flows::new() })
    }

    /// Returns the bound address.
    pub fn local_addr(&self) -> SocketAddr {
        self.socket.local_addr()
    }

    /// Serves until `stop` is set; returns what came and what could not go.
    ///
    /// # Errors
    /// [`Failure::Environment`] when the socket breaks.
    pub fn run(mut self, stop: &AtomicBool) -> Result<Served, Failure> {
        let (mut next_tick_ns, mut tick) = (0, TICK);
        while !stop.load(Ordering::Relaxed) {
            let packets_before = self.flows.packets();
            let more_waits = self.receive()?;
            let now_ns = clock::monotonic_ns();
            if now_ns >= next_tick_ns {
                let paced = self.flows.tick(now_ns);
                tick = if paced > 0 { (TICK_PER_FLOW * paced).clamp(TICK_PACED_MIN, TICK) } else { TICK };
                next_tick_ns = now_ns + tick.as_nanos() as u64;
            }
            let acks_due = self.flows.acknowledge(now_ns).map(Duration::from_nanos);
            let blocked = self.flows.send_replies(&self.socket)? | self.flows.pump(now_ns, &self.socket)?;
            if more_waits || (!blocked && self.flows.has_work()) {
                continue;
            }
            if self.flows.packets() - packets_before >= GATHER_FROM {
                // Whoever waits at the socket has the sender's core wake this one for every packet, at the sender's expense.
                std::thread::sleep(GATHER);
            } else {
                self.socket.wait(acks_due.map_or(tick, |due| due.min(tick)))?;
            }
        }
        Ok(Served { packets: self.flows.packets(), refused: self.socket.refused() })
    }

    /// Takes a few batches; returns whether more may wait.
    fn receive(&mut self) -> Result<bool, Failure> {
        for _ in 0..BATCHES_PER_TURN {
            let now_ns = clock::monotonic_ns();
            let flows = &mut self.flows;
            let full =
                self.socket.receive(|peer, payload, train| flows.on_payload(now_ns, peer, payload, train))?;
            if !full {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
