//! The responder behind the queues of two workers: what is read late.

use std::sync::Arc;
use std::time::Instant;

use crossbeam::channel::{Receiver, bounded};
use gateway::control::aaa::{Aaa, Outbox};
use gateway::control::dispatch::Dispatcher;
use gateway::control::engine::Engine;
use gateway::io::wake::Wake;
use gateway::types::{ConnId, WorkerId};
use gateway::worker::InboxHandle;
use gateway::worker::inbox::{ToControl, ToWorker};

use crate::ue::{Ue, UeConfig};
use crate::world::{config, path};

/// An engine and the inboxes of its two workers.
struct Rig {
    engine: Engine,
    inboxes: Vec<Receiver<ToWorker>>,
    now: Instant,
}

fn id(worker: u8, slot: u32) -> ConnId {
    ConnId { worker: WorkerId(worker), slot, generation: 1 }
}

impl Rig {
    fn new() -> Self {
        let inbox = |_| {
            let (queue, receiver) = bounded(64);
            (Arc::new(InboxHandle { queue, wake: Wake::new().expect("an eventfd") }), receiver)
        };
        let (handles, inboxes): (Vec<_>, Vec<_>) = (0..2).map(inbox).unzip();
        let now = Instant::now();
        let aaa = Aaa::new([], Outbox::new().0);
        let engine = Engine::new(Arc::new(config()), Dispatcher::new(&handles, 64, Vec::new()), aaa, 5, now);
        Self { engine, inboxes, now }
    }

    fn report(&mut self, message: ToControl) {
        self.engine.handle(self.now, message);
    }

    /// Delivers an IKE message and passes every fence; returns the messages to send, and where.
    fn ike(&mut self, conn: ConnId, message: &[u8]) -> Vec<(ConnId, Vec<u8>)> {
        self.report(ToControl::Ike { conn, path: path(1), message: message.to_vec() });
        self.workers()
    }

    /// What the workers do with their orders.
    fn workers(&mut self) -> Vec<(ConnId, Vec<u8>)> {
        let mut sent = Vec::new();
        loop {
            let orders: Vec<(usize, ToWorker)> = (0..2)
                .flat_map(|worker| self.inboxes[worker].try_iter().map(move |order| (worker, order)))
                .collect();
            if orders.is_empty() {
                return sent;
            }
            for (worker, order) in orders {
                match order {
                    ToWorker::Send { conn, message } => sent.push((conn, message.to_vec())),
                    ToWorker::Fence(fence) => {
                        self.report(ToControl::FenceReached { worker: WorkerId(worker as u8), fence });
                    }
                    _ => {}
                }
            }
        }
    }

    /// The connection of the only session.
    fn conn(&self) -> Option<ConnId> {
        self.engine.responder.sessions(self.now).next().expect("a session").conn
    }

    fn attach(&mut self, conn: ConnId) -> Ue {
        let mut ue = Ue::new(UeConfig::new(1));
        let answers = self.ike(conn, &ue.init());
        ue.on_init(&answers[0].1).expect("no error");
        let answers = self.ike(conn, &ue.auth());
        assert_eq!(ue.on_auth(&answers[0].1).error(), None);
        ue
    }
}

#[test]
fn r9329_6_1_5_a_message_read_after_the_end_of_its_connection_binds_nothing() {
    let mut rig = Rig::new();
    let mut ue = rig.attach(id(0, 1));
    // The UE comes back on worker 1, says something and moves; its next worker reports the end first.
    let (before, after) = (id(1, 7), id(0, 9));
    let request = ue.informational(|_| {});
    rig.report(ToControl::Moved { old: before, new: after });
    rig.report(ToControl::Closed { conn: after });
    rig.report(ToControl::Ike { conn: before, path: path(1), message: request.clone() });
    assert_eq!(rig.conn(), None, "nobody would ever say that this connection is gone");
    // The UE repeats itself on the next connection and is answered there (RFC 9329 §6.2).
    rig.workers();
    let answers = rig.ike(id(0, 10), &request);
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].0, id(0, 10));
    // A later connection of the same number is another one, once all that is older has been read.
    let request = ue.informational(|_| {});
    let answers = rig.ike(before, &request);
    assert_eq!(answers[0].0, before);
}
