//! What a UE does, and what happens to it.

use std::time::Duration;

use codec::esp::EspSpi;
use codec::ike::{NotifyType, PayloadType};
use gateway::control::responder::Verdict;

use super::Simulation;
use super::home::MSK;
use super::subscriber::Asking;
use crate::ue::{Decoded, UeAuth};
use crate::world::{Place, World};

impl Simulation {
    pub fn act(&mut self, who: usize) {
        match self.network.dice.below(16) {
            0 | 1 => self.create(who, false),
            2 | 3 => self.create(who, true),
            4 => self.rekey_ike(who),
            5 => self.delete_child(who),
            6 => self.delete_session(who),
            7 => self.reconnect(who),
            8 => {
                let by = self.network.dice.below(70);
                self.pass(Duration::from_secs(by.into()));
            }
            9 => self.esp_elsewhere(who),
            10 => self.stray(who),
            11 => self.exhaust(who),
            12 if self.network.dice.chance(30) => self.dismiss(who),
            13 | 14 => self.wander(who),
            _ => {
                let request = self.subscribers[who].ue.informational(|_| {});
                self.insist(who, &request);
            }
        }
    }

    pub fn attach(&mut self, who: usize) {
        self.settle_down(who);
        let nat = self.subscribers[who].nat;
        // A digest that fits no address: whoever sends this is behind a NAT.
        let request = self.subscribers[who].ue.init_with(|builder| {
            if nat {
                builder.notify(NotifyType::NAT_DETECTION_SOURCE_IP, &[0; 20]);
            }
        });
        let Some(response) = self.insist(who, &request) else { return };
        let subscriber = &mut self.subscribers[who];
        subscriber.ue.on_init(&response).expect("accepted");
        let mobike = subscriber.mobike;
        let request = subscriber.ue.auth_with(|builder| {
            if mobike {
                builder.notify(NotifyType::MOBIKE_SUPPORTED, &[]);
            }
        });
        let Some(response) = self.insist(who, &request) else { return };
        let subscriber = &mut self.subscribers[who];
        if matches!(subscriber.ue.config.auth, UeAuth::Eap { .. }) {
            return self.authenticate(who, &response);
        }
        assert_eq!(subscriber.ue.on_auth(&response).error(), None);
        subscriber.attached = true;
    }

    /// EAP, from the first response on. Who is turned away gives up, and another one comes.
    fn authenticate(&mut self, who: usize, first: &[u8]) {
        let mut packet = self.subscribers[who].ue.on_eap_begun(first);
        while let Some([1, id, ..]) = packet.as_deref() {
            let request = self.subscribers[who].ue.eap(&[2, *id, 0, 6, 23, 1]);
            let Some(response) = self.insist(who, &request) else { return };
            packet = self.subscribers[who].ue.on_eap(&response);
        }
        if packet.as_deref().and_then(|packet| packet.first()) != Some(&3) {
            return self.replace(who);
        }
        let request = self.subscribers[who].ue.eap_auth(&MSK);
        let Some(response) = self.insist(who, &request) else { return };
        let subscriber = &mut self.subscribers[who];
        assert_eq!(subscriber.ue.on_eap_auth(&MSK, &response).error(), None);
        subscriber.attached = true;
    }

    fn create(&mut self, who: usize, rekey: bool) {
        let pfs = self.network.dice.chance(15);
        let ue = &mut self.subscribers[who].ue;
        let rekeyed = if rekey { ue.children.last().map(|child| child.spi_in) } else { None };
        let request = ue.create_child(rekeyed, pfs);
        let nonce = ue.pending_nonce().expect("just asked").to_vec();
        let asking = rekeyed.map_or(Asking::Child, Asking::RekeyChild);
        let Some(response) = self.ask(who, asking, &request) else { return };
        let subscriber = &mut self.subscribers[who];
        let rival = subscriber.rival.take();
        let answer = subscriber.ue.on_create_child(&response);
        if answer.error().is_some() {
            return;
        }
        let Some(old) = rekeyed else { return };
        let own = subscriber.ue.children.last().expect("just made").spi_in;
        let lower = nonce.min(answer.body(PayloadType::NONCE).expect("Nr").to_vec());
        let there = |spi: EspSpi| subscriber.ue.children.iter().any(|child| child.spi_in == spi);
        // RFC 7296 2.8.1: the successor with the lowest nonce goes by the hand of its maker.
        let lost = rival.is_some_and(|(theirs, spi)| lower < theirs && there(spi));
        let goes = if lost { own } else { old };
        if there(goes) {
            self.delete(who, goes);
        }
    }

    fn delete_child(&mut self, who: usize) {
        if let Some(spi) = self.subscribers[who].ue.children.first().map(|child| child.spi_in) {
            self.delete(who, spi);
        }
    }

    fn delete(&mut self, who: usize, spi: EspSpi) {
        let request = self.subscribers[who].ue.informational(|builder| {
            builder.delete_esp(&[spi]);
        });
        self.ask(who, Asking::DeleteChild(spi), &request);
        self.subscribers[who].ue.children.retain(|child| child.spi_in != spi);
    }

    fn rekey_ike(&mut self, who: usize) {
        if self.subscribers[who].ue.old.is_some() {
            // The gateway has yet to delete the one that it replaced.
            return;
        }
        let request = self.subscribers[who].ue.rekey_ike();
        let nonce = self.subscribers[who].ue.pending_nonce().expect("just asked").to_vec();
        let Some(response) = self.ask(who, Asking::RekeyIke, &request) else { return };
        let rival = self.subscribers[who].rival.take();
        let ue = &mut self.subscribers[who].ue;
        let answer = ue.on_rekey_ike(&response);
        if answer.error().is_some() {
            // What the gateway made stays, if it made one.
            if let Some(spare) = ue.spare.take() {
                ue.adopt(spare);
            } else if rival.is_some() {
                // The gateway has deleted that one too: it ends the session.
                self.replace(who);
            }
            return;
        }
        let lower = nonce.min(answer.body(PayloadType::NONCE).expect("Nr").to_vec());
        let lost = rival.is_some_and(|(theirs, _)| lower < theirs);
        if lost {
            // RFC 7296 2.8.2: the one with the lowest nonce goes by the hand of its maker.
            std::mem::swap(&mut ue.sa, &mut ue.spare);
            let request = ue.informational_on_spare(|builder| {
                builder.delete_ike();
            });
            self.insist(who, &request);
            self.subscribers[who].ue.spare = None;
        } else {
            let request = ue.informational_on_old(|builder| {
                builder.delete_ike();
            });
            self.insist(who, &request);
            self.subscribers[who].ue.old = None;
        }
    }

    /// [`Self::insist`] on something that requests of the gateway may cross.
    fn ask(&mut self, who: usize, asking: Asking, request: &[u8]) -> Option<Vec<u8>> {
        self.subscribers[who].asking = asking;
        self.subscribers[who].rival = None;
        let response = self.insist(who, request);
        self.subscribers[who].asking = Asking::Nothing;
        response
    }

    fn delete_session(&mut self, who: usize) {
        if self.network.dice.chance(50) {
            return;
        }
        let request = self.subscribers[who].ue.informational(|builder| {
            builder.delete_ike();
        });
        self.ask(who, Asking::DeleteIke, &request);
        self.replace(who);
    }

    /// The UE shows up with ESP elsewhere, and the worker tells if the session goes there.
    fn esp_elsewhere(&mut self, who: usize) {
        let Some(id) = self.session_of(who) else { return };
        if !self.follows(id, self.subscribers[who].place) {
            return;
        }
        self.reconnect(who);
        let place = self.subscribers[who].place;
        self.note_esp(id, place);
        self.after();
        let sent = self.network.receive(place);
        self.sort(who, sent, None);
    }

    /// The sequence numbers of a Child SA run out, and the gateway deletes it.
    fn exhaust(&mut self, who: usize) {
        let Some(spi) = self.subscribers[who].ue.children.first().map(|child| child.spi_out) else { return };
        let Some(id) = self.installed.get(&spi).map(|(_, session)| *session) else { return };
        let world = &mut self.network.world;
        world.responder.handle_sequence_high(world.now, id, spi);
        self.after();
        self.pass(Duration::from_millis(10));
    }

    /// An administrator ends the session.
    fn dismiss(&mut self, who: usize) {
        let Some(id) = self.session_of(who) else { return };
        let world = &mut self.network.world;
        assert!(world.responder.terminate(world.now, id));
        self.after();
    }

    /// Somebody else's octets on a connection of their own.
    fn stray(&mut self, who: usize) {
        let Place::Tcp(number) = self.network.connect() else { return };
        let ue = &mut self.subscribers[who].ue;
        let room = ue.config.room;
        let sa = ue.sa.as_mut().expect("attached");
        sa.set_room(None);
        let mut message = ue.informational(|_| {});
        let sa = ue.sa.as_mut().expect("attached");
        sa.set_room(room);
        sa.next_out -= 1;
        let dice = &mut self.network.dice;
        let at = dice.below(message.len() as u32) as usize;
        message[at] ^= 1 << dice.below(8);
        let resent = |world: &World| world.counters().exchanges.requests_resent;
        let world = &mut self.network.world;
        let before = resent(world);
        let sent = world.deliver(number, &message);
        // An SA on offer is known by its SPI alone, and what is said on it only has the offer repeated.
        let ahead = resent(world) > before;
        assert!(ahead || world.verdict == Verdict::Bad);
        assert!(ahead || sent.iter().all(|message| !Decoded::clear(message).payloads.is_empty()));
        self.network.close(number);
        self.after();
    }
}
