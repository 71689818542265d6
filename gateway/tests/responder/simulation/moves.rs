//! UEs that change address and transport (RFC 9329 §6.1 and §7.1, RFC 4555 §3.5, RFC 7296 §2.23).

use std::time::Duration;

use codec::ike::NotifyType;
use gateway::control::responder::Verdict;
use gateway::types::{Follow, SessionId, Transport};

use super::Simulation;
use crate::ue::split;
use crate::world::Place;

/// Fresh messages after which a session is where its UE is.
const MOVES_WITHIN: usize = 30;

impl Simulation {
    /// A place to start from.
    pub fn settle_down(&mut self, who: usize) {
        let place = match self.network.dice.chance(30) {
            true => self.network.bind(),
            false => self.network.connect(),
        };
        self.go(who, place);
    }

    /// The UE is elsewhere from now on.
    fn go(&mut self, who: usize, to: Place) {
        let from = std::mem::replace(&mut self.subscribers[who].place, to);
        self.network.leave(from);
        self.after();
    }

    /// The connection of a UE breaks and it makes another; or its NAT gives it another port, where that is no loss.
    pub fn reconnect(&mut self, who: usize) {
        let subscriber = &self.subscribers[who];
        let to = match subscriber.place {
            Place::Tcp(_) => self.network.connect(),
            Place::Udp(_) if subscriber.nat && !subscriber.mobike => self.network.bind(),
            Place::Udp(_) | Place::IkeTcp(_) => return,
        };
        self.go(who, to);
    }

    /// The UE changes network.
    pub fn wander(&mut self, who: usize) {
        let subscriber = &self.subscribers[who];
        let (mobike, from) = (subscriber.mobike, subscriber.place);
        match (from, self.network.dice.chance(50)) {
            (Place::Tcp(_), true) => self.reconnect(who),
            (Place::Udp(_), true) => self.leave_udp(who),
            (Place::Tcp(_), false) if !mobike => return self.stay_on_tcp(who),
            (_, false) if mobike => {
                let to = self.network.bind();
                self.go(who, to);
            }
            _ => self.reconnect(who),
        }
        self.arrive(who);
    }

    /// Goes from UDP to TCP, with the same request if it had none answered over UDP (RFC 9329 §7.1).
    fn leave_udp(&mut self, who: usize) {
        let to = self.network.connect();
        if !self.subscribers[who].mobike || self.network.dice.chance(60) {
            return self.go(who, to);
        }
        let request = self.sign_of_life(who);
        let from = self.network.bind();
        self.go(who, from);
        self.network.send(from, &request);
        self.after();
        // What is said there does not arrive any more.
        self.go(who, to);
        self.insist(who, &request);
    }

    /// Without MOBIKE a session on TCP is not reached over UDP, and nothing of what was tried is used up.
    fn stay_on_tcp(&mut self, who: usize) {
        let here = self.session_path(who);
        let request = self.subscribers[who].ue.informational(|_| {});
        let elsewhere = self.network.bind();
        for part in split(&request) {
            assert_eq!(self.network.world.arrive(elsewhere, part), Verdict::Bad);
        }
        assert!(self.network.world.sent.iter().all(|transmit| transmit.path != elsewhere.path()));
        assert_eq!(self.session_path(who), here);
        self.network.leave(elsewhere);
        self.after();
        self.insist(who, &request);
    }

    /// Lets fresh messages bring the session to where its UE is.
    fn arrive(&mut self, who: usize) {
        for _ in 0..MOVES_WITHIN {
            let here = self.subscribers[who].place.path();
            match self.session_path(who) {
                None => return,
                Some(path) if path == here => return,
                // Without NAT and MOBIKE the address of a UE on UDP is what it was (RFC 7296 §2.23).
                Some(_) => {}
            }
            let request = self.sign_of_life(who);
            self.insist(who, &request);
            self.listen(who);
            if self.subscribers[who].dismissed {
                return;
            }
            self.pass(Duration::from_millis(300));
        }
        panic!("the session does not follow its UE");
    }

    /// A fresh message that brings the session here.
    pub fn sign_of_life(&mut self, who: usize) -> Vec<u8> {
        let subscriber = &mut self.subscribers[who];
        let mobike = subscriber.mobike;
        subscriber.ue.informational(|builder| {
            if mobike {
                builder.notify(NotifyType::UPDATE_SA_ADDRESSES, &[]);
                builder.notify(NotifyType::NAT_DETECTION_SOURCE_IP, &[0; 20]);
            }
        })
    }

    /// Whether ESP from elsewhere moves a session, as its worker sees it.
    pub fn follows(&self, id: SessionId, place: Place) -> bool {
        let Some((_, path, follow)) = self.bound.get(&id) else { return false };
        match (path.transport, place) {
            (_, Place::IkeTcp(_)) => false,
            (Transport::Udp, Place::Udp(_)) => *follow == Follow::Any,
            (Transport::Udp, Place::Tcp(_)) => *follow != Follow::Never,
            (_, Place::Udp(_)) => false,
            (_, Place::Tcp(_)) => true,
        }
    }

    /// The worker tells that ESP moved a session.
    pub fn note_esp(&mut self, id: SessionId, place: Place) {
        let (conn, path) = (place.conn(), place.path());
        if let Some(bound) = self.bound.get_mut(&id) {
            (bound.0, bound.1) = (conn, path);
        }
        let world = &mut self.network.world;
        world.responder.handle_conn_bound(world.now, id, conn, &path);
        world.collect();
    }
}
