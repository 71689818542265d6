//! What administrators want of a worker.

use std::net::UdpSocket;

use super::Order;
use super::counters::RelayClose;
use super::link::{Link, Stage};
use super::worker::Worker;
use crate::admin::api::{RelayIke, RelayRow};

impl Worker {
    pub(super) fn on_order(&mut self, order: Order) {
        match order {
            Order::List(reply) => {
                let rows = self.links.iter().filter_map(|(slot, link)| self.row(slot, link));
                let _ = reply.send(rows.collect());
            }
            Order::Close(id, reply) => {
                let found = self.links.iter().find(|(slot, link)| self.link_id(*slot, link) == id);
                let slot = found.map(|(slot, _)| slot);
                if let Some(slot) = slot {
                    self.close(slot, RelayClose::Control);
                }
                let _ = reply.send(slot.is_some());
            }
            Order::Tls(server) => self.tls = Some(server),
            Order::StopAccepting => self.listeners.clear(),
            Order::Stop => self.stopping = true,
        }
    }

    /// A number no other connection of the process has: worker, use of the slot, slot.
    fn link_id(&self, slot: u32, link: &Link) -> u64 {
        (u64::from(link.generation) << 32 | u64::from(slot)) << 6 | u64::from(self.id.0)
    }

    fn row(&self, slot: u32, link: &Link) -> Option<RelayRow> {
        let ports = link.ports.as_ref()?;
        let addr = |socket: &UdpSocket| socket.local_addr().ok().map(|addr| addr.to_string());
        Some(RelayRow {
            id: self.link_id(slot, link),
            state: match link.stage {
                Stage::Opening => "opening",
                Stage::HalfOpen => "half-open",
                Stage::Established => "established",
            }
            .to_owned(),
            transport: if link.stream.is_tls() { "tls" } else { "tcp" }.to_owned(),
            remote: link.remote.to_string(),
            backend: self.backend.addr.to_string(),
            backend_source: addr(&ports.main)?,
            backend_source_ike: ports.initial.as_ref().and_then(addr),
            worker: self.id.0,
            established_s: self.now.saturating_duration_since(link.accepted).as_secs(),
            idle_s: self.now.saturating_duration_since(link.active).as_secs(),
            ike: RelayIke { spi_i: link.spis.0.to_string(), spi_r: link.spis.1.to_string() },
            uplink: link.uplink,
            downlink: link.downlink,
        })
    }
}
