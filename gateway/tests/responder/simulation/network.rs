//! What lies between UEs and gateway: TCP connections that break, and UDP, which loses, repeats and reorders.

use std::collections::BTreeSet;
use std::time::Duration;

use codec::{Random, SeededRandom};
use gateway::control::responder::{ResponderConfig, Verdict};

use crate::ue::split;
use crate::world::{Place, World, conn};

/// What happens to a datagram, in percent of all.
const LOST: u32 = 10;
const LATE: u32 = 8;
const TWICE: u32 = 8;

/// Ports of UEs over UDP begin here.
const FIRST_PORT: u16 = 1_024;

pub struct Dice(SeededRandom);

impl Dice {
    pub fn below(&mut self, end: u32) -> u32 {
        let mut octets = [0; 4];
        self.0.fill(&mut octets);
        u32::from_be_bytes(octets) % end
    }

    pub fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }
}

pub struct Network {
    pub world: World,
    pub dice: Dice,
    /// Nothing goes wrong any more.
    pub calm: bool,
    next_conn: u32,
    next_port: u16,
    /// Connections that the gateway holds to be open.
    pub open: BTreeSet<u32>,
    /// UDP ports at which a UE listens.
    ports: BTreeSet<u16>,
    /// Messages to the gateway that are still on their way, with where they were sent.
    late: Vec<(Place, Vec<u8>)>,
}

impl Network {
    pub fn new(config: ResponderConfig, seed: u64) -> Self {
        Self {
            world: World::seeded(config, seed),
            dice: Dice(SeededRandom::new(seed)),
            calm: false,
            next_conn: 1,
            next_port: FIRST_PORT,
            open: BTreeSet::new(),
            ports: BTreeSet::new(),
            late: Vec::new(),
        }
    }

    /// Whether something goes wrong that does so with this probability.
    pub fn mishap(&mut self, percent: u32) -> bool {
        !self.calm && self.dice.chance(percent)
    }

    /// A new connection.
    pub fn connect(&mut self) -> Place {
        let number = self.next_conn;
        self.next_conn += 1;
        self.open.insert(number);
        Place::Tcp(number)
    }

    /// A new UDP port of a UE, or of the NAT in front of it.
    pub fn bind(&mut self) -> Place {
        let port = self.next_port;
        self.next_port += 1;
        self.ports.insert(port);
        Place::Udp(port)
    }

    /// A UE is not at `place` any more. The gateway learns of a broken connection now, or never.
    pub fn leave(&mut self, place: Place) {
        match place {
            Place::Udp(port) => {
                self.ports.remove(&port);
                self.sweep();
            }
            Place::Tcp(number) | Place::IkeTcp(number) => {
                if self.dice.chance(70) {
                    self.close(number);
                }
            }
        }
    }

    pub fn close(&mut self, number: u32) {
        self.open.remove(&number);
        self.sweep();
        self.world.responder.handle_conn_closed(conn(number));
    }

    /// Sends a message, or its fragments in a row. What the gateway makes of the last part, if that gets there now.
    pub fn send(&mut self, from: Place, message: &[u8]) -> Option<Verdict> {
        let mut parts = split(message);
        let mut verdict = None;
        if matches!(from, Place::Udp(_)) && self.mishap(TWICE) {
            parts.reverse();
        }
        for part in parts {
            verdict = match from {
                Place::Tcp(_) | Place::IkeTcp(_) => Some(self.world.arrive(from, part)),
                Place::Udp(_) => self.send_datagram(from, part),
            };
        }
        if !self.late.is_empty() && self.dice.chance(30) {
            let at = self.dice.below(self.late.len() as u32) as usize;
            let (place, message) = self.late.swap_remove(at);
            self.arrive_late(place, message);
        }
        verdict
    }

    fn send_datagram(&mut self, from: Place, datagram: Vec<u8>) -> Option<Verdict> {
        if self.mishap(LOST) {
            return None;
        }
        if self.mishap(LATE) {
            self.delay(from, &datagram);
            return None;
        }
        if self.mishap(TWICE) {
            let _ = self.world.arrive(from, datagram.clone());
        }
        Some(self.world.arrive(from, datagram))
    }

    /// A message, or its fragments, is overtaken by others.
    pub fn delay(&mut self, from: Place, message: &[u8]) {
        self.late.extend(split(message).into_iter().map(|part| (from, part)));
    }

    fn arrive_late(&mut self, from: Place, message: Vec<u8>) {
        let gone = matches!(from, Place::Tcp(number) if !self.open.contains(&number));
        if !gone {
            let _ = self.world.arrive(from, message);
        }
    }

    /// Everything that is still on its way arrives.
    pub fn flush(&mut self) {
        for (from, message) in std::mem::take(&mut self.late) {
            self.arrive_late(from, message);
        }
    }

    /// What has come to `place`.
    pub fn receive(&mut self, place: Place) -> Vec<Vec<u8>> {
        let mut here = Vec::new();
        for transmit in std::mem::take(&mut self.world.sent) {
            let (conn, path) = (place.conn(), place.path());
            let udp = transmit.conn.is_datagrams();
            let meant = if udp { transmit.path == path } else { transmit.conn == conn };
            if !meant || (udp && self.mishap(LATE)) {
                self.world.sent.push(transmit);
                continue;
            }
            if udp && self.mishap(LOST) {
                continue;
            }
            if udp && self.mishap(TWICE) {
                here.push(transmit.message.to_vec());
            }
            here.push(transmit.message.to_vec());
        }
        if matches!(place, Place::Udp(_)) && self.mishap(TWICE) {
            here.reverse();
        }
        here
    }

    /// Lets time pass.
    pub fn pass(&mut self, by: Duration) {
        self.world.advance(by);
    }

    /// Forgets what was sent to places where nobody is.
    pub fn sweep(&mut self) {
        let (open, ports) = (&self.open, &self.ports);
        self.world.sent.retain(|transmit| match transmit.conn.is_datagrams() {
            true => ports.contains(&transmit.path.remote.port()),
            false => open.contains(&transmit.conn.slot),
        });
    }
}
