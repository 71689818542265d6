//! Requests of ours that have no answer yet.

use std::collections::BTreeSet;
use std::time::Instant;

use ahash::AHashMap;

use super::dialog::DialogId;
use crate::control::responder::RejectCause;

/// What a request is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// DER.
    Eap(DialogId),
    /// AAR.
    Authorize(DialogId),
    /// STR; nothing depends on its answer.
    Terminate,
}

/// One request.
#[derive(Debug)]
pub struct Request {
    /// The message.
    pub octets: Vec<u8>,
    /// Its End-to-End Identifier.
    pub end_to_end: u32,
    /// What it is for.
    pub purpose: Purpose,
    /// The peer it was sent to; none while it waits for one.
    pub peer: Option<usize>,
    /// The peer that has the dialog, which is asked first.
    pub preferred: Option<usize>,
    /// Peers that were asked, one bit each.
    pub tried: u32,
    /// A peer may have passed it on without our having an answer: the next one is told (RFC 6733 §3, T).
    pub is_repeated: bool,
    /// What a peer answered that could not serve it.
    pub refused: Option<RejectCause>,
    /// When it was sent last.
    pub sent: Instant,
    /// When it is given up whatever happens.
    pub give_up: Instant,
}

/// All of them, by their Hop-by-Hop Identifiers.
#[derive(Default)]
pub struct Requests {
    by_hop: AHashMap<u32, (Instant, Request)>,
    deadlines: BTreeSet<(Instant, u32)>,
}

impl Requests {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_hop.len()
    }

    /// Keeps `request` until `deadline`.
    pub fn insert(&mut self, hop_by_hop: u32, deadline: Instant, request: Request) {
        self.deadlines.insert((deadline, hop_by_hop));
        self.by_hop.insert(hop_by_hop, (deadline, request));
    }

    /// The request, when `peer` was asked it.
    pub fn answered(&mut self, hop_by_hop: u32, end_to_end: u32, peer: usize) -> Option<Request> {
        let (_, request) = self.by_hop.get(&hop_by_hop)?;
        let is_it = request.end_to_end == end_to_end && request.peer == Some(peer);
        is_it.then(|| self.take(hop_by_hop)).flatten()
    }

    /// Takes a request out.
    pub fn take(&mut self, hop_by_hop: u32) -> Option<Request> {
        let (deadline, request) = self.by_hop.remove(&hop_by_hop)?;
        self.deadlines.remove(&(deadline, hop_by_hop));
        Some(request)
    }

    /// When the next is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Takes out one that is due.
    pub fn pop_due(&mut self, now: Instant) -> Option<Request> {
        let (_, hop_by_hop) = *self.deadlines.first().filter(|(at, _)| *at <= now)?;
        self.take(hop_by_hop)
    }

    /// Those that `peer` was asked, in the order of their deadlines; with `None`, those that wait for a peer.
    pub fn of(&self, peer: Option<usize>) -> Vec<u32> {
        let of_peer = |hop: &u32| self.by_hop.get(hop).is_some_and(|(_, request)| request.peer == peer);
        self.deadlines.iter().map(|(_, hop)| *hop).filter(of_peer).collect()
    }
}
