//! Diameter SWm towards a 3GPP AAA server (3GPP TS 29.273 §7 on RFC 6733 and RFC 4072).
//!
//! [`Node`] is the protocol, sans-IO: peers with their watchdogs and failover, requests under way, dialogs.
//! `driver` gives it sockets and a clock; [`Diameter`] is the back end. Connections are TCP or TLS. SCTP is not served:
//! its kernel module is absent from many hosts, and RFC 6733 §2.1 lets a client do with one of the transports.

mod answers;
mod avp;
mod capabilities;
mod causes;
mod dialog;
mod driver;
mod ids;
mod message;
mod names;
mod node;
mod peer;
mod requests;
mod served;
mod settings;
mod swm;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Instant, SystemTime};

use aws_lc_rs::rand;
use tokio::sync::Notify;

use driver::{Driver, Shared};
use ids::Ids;

pub use node::Node;
pub use settings::{Application, Server, Settings};

use super::{Backend, Outbox, ServerView, SessionEnd};
use crate::config::AaaKind;
use crate::control::responder::{Attached, AttemptId, EapStep};
use crate::types::SessionId;

/// The back end. Says goodbye to its servers when it is dropped.
pub struct Diameter {
    shared: Rc<Shared>,
}

impl Diameter {
    /// Connects to the servers of `settings`; answers go to `outbox`. Within a `LocalSet`, which the control
    /// thread's runtime is.
    pub fn start(settings: Settings, outbox: Outbox) -> Self {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut seed = [0; 8];
        // Identifiers and jitter need to differ, not to be secret.
        if rand::fill(&mut seed).is_err() {
            seed = unix.subsec_nanos().to_be_bytes().repeat(2).try_into().unwrap_or_default();
        }
        let ids = Ids::new(unix.as_secs(), u64::from_be_bytes(seed));
        let shared = Rc::new(Shared {
            node: RefCell::new(Node::new(settings, ids, Instant::now())),
            wake: Notify::new(),
        });
        tokio::task::spawn_local(Driver::run(shared.clone(), outbox));
        Self { shared }
    }

    fn with<R>(&self, call: impl FnOnce(&mut Node) -> R) -> R {
        let result = call(&mut self.shared.node.borrow_mut());
        self.shared.wake.notify_one();
        result
    }
}

impl Backend for Diameter {
    fn step(&mut self, now: Instant, step: EapStep) {
        self.with(|node| node.step(now, &step));
    }

    fn abandon(&mut self, attempt: AttemptId) {
        self.with(|node| node.abandon(Instant::now(), attempt));
    }

    fn attached(&mut self, _now: Instant, attached: &Attached) {
        self.with(|node| node.attached(attached));
    }

    fn ended(&mut self, now: Instant, session: SessionId, end: &SessionEnd) {
        self.with(|node| node.ended(now, session, end.cause));
    }

    fn adopt(&mut self, kind: &AaaKind) -> bool {
        match kind {
            AaaKind::Diameter(settings) => self.with(|node| node.adopt(settings)),
            _ => false,
        }
    }

    fn leave(&mut self, now: Instant) {
        self.with(|node| node.leave(now));
    }

    fn has_left(&self) -> bool {
        self.shared.node.borrow().has_left()
    }

    fn servers(&self) -> Vec<ServerView> {
        self.shared.node.borrow().servers()
    }
}

impl Drop for Diameter {
    fn drop(&mut self) {
        self.leave(Instant::now());
    }
}

/// Takes arbitrary octets apart as the stream of a peer, and each message as any answer or request: the entry of the
/// fuzz target and of the replay of its corpus.
///
/// # Panics
/// When a message that parses does not hold what it was made of.
pub fn fuzz(octets: &[u8]) {
    let mut rest = octets;
    while let Ok(Some(len)) = message::frame_len(rest) {
        let Some((frame, after)) = rest.split_at_checked(len) else { break };
        fuzz_message(frame);
        rest = after;
    }
    fuzz_message(octets);
}

fn fuzz_message(octets: &[u8]) {
    let Ok(message) = message::Message::parse(octets) else { return };
    let inside: usize = message.avps().map(|avp| avp.octets.len().next_multiple_of(4)).sum();
    assert!(inside <= octets.len().next_multiple_of(4), "AVPs of {inside} in {} octets", octets.len());
    let answer = swm::answer(&message, Some("ims"));
    assert!(answer.inner.len() <= 2, "at most one address per family");
    for avp in message.avps() {
        let _ = (avp.number(), avp.text(), avp.address(), avp.is_acceptable(), avp.group().count());
    }
    fuzz_node(octets);
}

/// The message at an open connection of a node, which must survive it and answer each request once at most.
fn fuzz_node(octets: &[u8]) {
    let now = Instant::now();
    let mut node = Node::fuzzed(now);
    node.handle_message(now, 0, 1, octets);
    assert!(
        std::iter::from_fn(|| node.poll_output()).count() <= 2,
        "more than an answer and what follows from it"
    );
}
