//! What must hold at every moment, and when nothing is under way.

use std::collections::BTreeSet;

use codec::esp::EspSpi;
use gateway::control::responder::{Event, SessionView};
use gateway::types::{Path, SessionId, WorkerId};

use super::network::Network;
use super::{HALF_OPEN_MAX, Simulation};

/// Child SAs by our SPI and that of the UE.
type Pairs = BTreeSet<(u32, u32)>;

impl Simulation {
    /// Carries out what the responder wants and checks what must always hold.
    pub fn after(&mut self) {
        self.network.world.collect();
        let Network { world, dice, calm, .. } = &mut self.network;
        while self.home.serve(world, dice, *calm) {}
        for event in std::mem::take(&mut self.network.world.events) {
            match event {
                Event::Install(install) => {
                    assert!(install.spi_in.0 >= 256);
                    assert_eq!(WorkerId::of_spi(install.spi_in), install.worker);
                    if let Some(replaced) = install.replaces {
                        assert!(self.installed.contains_key(&replaced), "replaces what is there");
                    }
                    let known = self.installed.insert(install.spi_in, (install.spi_out, install.session));
                    assert!(known.is_none(), "an SPI is used once at a time");
                    self.announced.remove(&install.spi_in);
                }
                Event::Announce { spi_in, .. } => {
                    assert!(self.announced.insert(spi_in) && !self.installed.contains_key(&spi_in));
                }
                Event::Withdraw { spi_in, .. } => {
                    assert!(self.announced.remove(&spi_in), "withdraws what was announced");
                }
                Event::RemoveChild { spi_in, .. } => {
                    assert!(self.installed.remove(&spi_in).is_some(), "removes what is there");
                }
                Event::CloseSession { session, .. } => {
                    self.installed.retain(|_, (_, owner)| *owner != session);
                    self.bound.remove(&session);
                }
                Event::Bind { session, conn, path, follow, .. } => {
                    self.bound.insert(session, (conn, path, follow));
                }
                _ => {}
            }
        }
        let gauges = self.network.world.counters().gauges;
        assert_eq!(gauges.children, (self.installed.len() + self.announced.len()) as u64);
        assert!(gauges.half_open <= HALF_OPEN_MAX as u64);
        for transmit in self.network.world.sent.iter().filter(|transmit| !transmit.conn.is_datagrams()) {
            assert!(self.network.open.contains(&transmit.conn.slot), "sent where nobody listens");
        }
        self.network.sweep();
        for view in self.network.world.responder.sessions(self.network.world.now) {
            let Some(conn) = view.conn else { continue };
            let (bound, path, _) = self.bound[&view.id];
            assert_eq!(
                (conn, *view.path),
                (bound, path),
                "the packet path knows where session {} is",
                view.id
            );
        }
    }

    /// The gateway's session of a subscriber.
    fn view_of(&self, who: usize) -> Option<SessionView<'_>> {
        let world = &self.network.world;
        let name = &self.subscribers[who].ue.config.id.1;
        world.responder.sessions(world.now).find(|view| view.idi.data() == &name[..])
    }

    pub fn session_of(&self, who: usize) -> Option<SessionId> {
        self.view_of(who).map(|view| view.id)
    }

    /// Where the gateway has it.
    pub fn session_path(&self, who: usize) -> Option<Path> {
        self.view_of(who).map(|view| *view.path)
    }

    /// Subscribers whose session the gateway gave up start over.
    pub fn reap(&mut self) {
        for who in 0..self.subscribers.len() {
            let lost = self.subscribers[who].attached && self.session_of(who).is_none();
            if lost || self.subscribers[who].dismissed {
                self.replace(who);
            }
        }
    }

    /// When nothing is under way, both ends hold the same Child SAs.
    pub fn compare(&self) {
        for who in 0..self.subscribers.len() {
            let Some((gateway, ue)) = self.children_of(who) else { continue };
            // A Delete of ours that the UE carried out may still wait for its answer here, and the UE's answer to
            // an offer of ours may still be on its way.
            let mut known = ue.iter().filter(|(spi, _)| !self.announced.contains(&EspSpi(*spi)));
            assert!(known.all(|pair| gateway.contains(pair)), "the UE holds {ue:?}, the gateway {gateway:?}");
        }
    }

    /// The Child SAs of a subscriber by our SPIs and its own, as the gateway and as it sees them.
    fn children_of(&self, who: usize) -> Option<(Pairs, Pairs)> {
        let subscriber = &self.subscribers[who];
        let view = self.view_of(who).filter(|_| subscriber.attached)?;
        let gateway = view.children.iter().map(|child| (child.spi_in.0, child.spi_out.0)).collect();
        let ue = subscriber.ue.children.iter().map(|child| (child.spi_out.0, child.spi_in.0)).collect();
        Some((gateway, ue))
    }

    /// Both ends agree about everything, or what they do not agree about.
    pub fn agreement(&self) -> Result<(), String> {
        for who in 0..self.subscribers.len() {
            let (Some(view), Some((gateway, ue))) = (self.view_of(who), self.children_of(who)) else {
                continue;
            };
            if gateway != ue {
                return Err(format!("UE {who} holds {ue:?}, the gateway {gateway:?}"));
            }
            let subscriber = &self.subscribers[who];
            let current = subscriber.ue.sa.as_ref().map(|sa| (sa.spi_i, sa.spi_r));
            if current != Some((view.ike.spi_i, view.ike.spi_r)) {
                return Err(format!("UE {who} and the gateway use different IKE SAs"));
            }
            let place = subscriber.place;
            if *view.path != place.path() {
                return Err(format!("UE {who} is at {place:?}, the gateway has it at {:?}", view.path));
            }
        }
        Ok(())
    }
}
