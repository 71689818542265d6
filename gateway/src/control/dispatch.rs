//! Carries the responder's wishes to the workers, in the order in which they must take effect.
//!
//! Three rules live here. A worker's inbox is FIFO, so what must be in force first is pushed first. A
//! response that lets the UE use an SA of *another* worker waits until that worker has passed a fence.
//! And a connection on its way from one worker to another has no address: what is for it waits, bounded,
//! and follows it.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use ahash::AHashMap;
use crossbeam::channel::TrySendError;

use super::responder::Transmit;
use crate::io::steering::SteeringMap;
use crate::types::{ChildInstall, CloseReason, ConnId, Follow, NetworkId, Path, SessionId, WorkerId};
use crate::worker::InboxHandle;
use crate::worker::inbox::ToWorker;

/// Messages kept for one connection on the move: a response, a gateway request, and their trimmings.
const MOVING_MESSAGES_MAX: usize = 64;

/// What a worker's inbox did not take yet.
struct Outbox {
    inbox: Arc<InboxHandle>,
    backlog: VecDeque<ToWorker>,
    pushed: bool,
}

/// Messages that may leave once a worker has passed a fence.
struct Held {
    fence: u64,
    messages: Vec<ToWorker>,
}

/// The way from the control thread to the workers.
pub struct Dispatcher {
    outboxes: Vec<Outbox>,
    backlog_max: usize,
    held: VecDeque<Held>,
    fences: u64,
    moving: AHashMap<ConnId, Vec<ToWorker>>,
    moved: AHashMap<ConnId, ConnId>,
    former: AHashMap<ConnId, Vec<ConnId>>,
    /// Former ids of closed connections, until their worker has passed the fence that was sent at the close.
    gone: VecDeque<(u64, ConnId)>,
    /// By network.
    steering: Vec<Option<SteeringMap>>,
    after: Vec<ToWorker>,
    /// Messages that found an inbox full.
    pub inbox_overflows: u64,
    /// Messages lost because a connection took too long to move.
    pub moving_overflows: u64,
}

impl Dispatcher {
    /// A dispatcher to the workers behind `inboxes`, in the order of their ids. It holds at most
    /// `backlog_max` messages for a worker that does not keep up before [`Dispatcher::is_congested`].
    pub fn new(inboxes: &[Arc<InboxHandle>], backlog_max: usize, steering: Vec<Option<SteeringMap>>) -> Self {
        let outbox = |inbox: &Arc<InboxHandle>| Outbox {
            inbox: inbox.clone(),
            backlog: VecDeque::new(),
            pushed: false,
        };
        Self {
            outboxes: inboxes.iter().map(outbox).collect(),
            backlog_max,
            held: VecDeque::new(),
            fences: 0,
            moving: AHashMap::new(),
            moved: AHashMap::new(),
            former: AHashMap::new(),
            gone: VecDeque::new(),
            steering,
            after: Vec::new(),
            inbox_overflows: 0,
            moving_overflows: 0,
        }
    }

    /// Where `conn` is now, or was last: its own id, or the one it got by moving.
    pub fn current(&self, conn: ConnId) -> ConnId {
        self.moved.get(&conn).copied().unwrap_or(conn)
    }

    /// Whether `conn` moved and closed. Workers' queues are read one after the other: what a connection said
    /// on its first worker may be read after the news of its end from the next one.
    pub fn is_gone(&self, conn: ConnId) -> bool {
        self.moved.contains_key(&conn) && self.gone.iter().any(|(_, former)| *former == conn)
    }

    /// Puts a Child SA in force, and routes the inner addresses that come with it to its worker.
    pub fn install(&mut self, install: Box<ChildInstall>) {
        let (worker, network, inner) = (install.worker, install.network, install.inner.clone());
        self.push(worker, ToWorker::Install(install));
        inner.into_iter().for_each(|addr| self.route(network, addr, Some(worker)));
    }

    /// Makes `conn` the session's current connection; one on another worker moves to the session's own,
    /// after what this turn sends on it.
    pub fn bind(&mut self, session: SessionId, worker: WorkerId, conn: ConnId) {
        if conn.worker == worker {
            self.push_to_conn(ToWorker::Bind { session, conn });
        } else if !self.moving.contains_key(&conn) {
            self.after.push(ToWorker::Move { conn, to: worker, session });
        }
    }

    /// Makes a UDP path the session's place. Every worker has a socket of every address, so nothing moves.
    pub fn bind_path(&mut self, session: SessionId, worker: WorkerId, path: Path, follow: Follow) {
        self.push(worker, ToWorker::BindPath { session, path: Box::new(path), follow });
    }

    /// Removes a session from its worker and its inner addresses, as far as they are routed, from all. With `report`,
    /// the worker says what it has done.
    pub fn close_session(
        &mut self,
        session: SessionId,
        worker: WorkerId,
        network: NetworkId,
        inner: &[IpAddr],
        report: bool,
    ) {
        self.push(worker, ToWorker::CloseSession { session, report });
        inner.iter().for_each(|&addr| self.route(network, addr, None));
    }

    /// Closes a connection after what this turn sends on it.
    pub fn close_conn(&mut self, conn: ConnId, reason: CloseReason) {
        self.after.push(ToWorker::Close { conn, reason });
    }

    /// Sends an IKE message; when it lets the UE use an SA of a worker other than the sending one, only
    /// once that worker has it in force.
    pub fn transmit(&mut self, transmit: Transmit) {
        let Transmit { conn, path, message, after_install, owner } = transmit;
        let send = match conn.is_datagrams() {
            true => ToWorker::SendTo { from: conn.worker, path: Box::new(path), message },
            false => ToWorker::Send { conn, message },
        };
        if after_install && owner != conn.worker {
            self.fences += 1;
            self.push(owner, ToWorker::Fence(self.fences));
            self.held.push_back(Held { fence: self.fences, messages: vec![send] });
        } else {
            self.push_to_conn(send);
        }
    }

    /// Ends a turn: what must come after its transmits, behind the same fence if they wait for one.
    pub fn end_turn(&mut self) {
        for message in std::mem::take(&mut self.after) {
            let conn = conn_of(&message);
            let fenced = self
                .held
                .iter_mut()
                .rev()
                .find(|held| held.messages.iter().any(|held| conn_of(held) == conn));
            match fenced {
                Some(held) => held.messages.push(message),
                None => self.push_to_conn(message),
            }
        }
    }

    /// Sends a message about a connection to wherever the connection is.
    pub fn push_to_conn(&mut self, mut message: ToWorker) {
        if let ToWorker::SendTo { from, .. } = message {
            return self.push(from, message);
        }
        let Some(conn) = conn_of(&message).map(|conn| self.current(conn)) else { return };
        readdress(&mut message, conn);
        if let ToWorker::Move { to, session, .. } = message
            && to == conn.worker
        {
            // Asked for twice, and it is there by now.
            message = ToWorker::Bind { session, conn };
        }
        if let Some(waiting) = self.moving.get_mut(&conn) {
            if waiting.len() < MOVING_MESSAGES_MAX {
                waiting.push(message);
            } else {
                self.moving_overflows += 1;
            }
            return;
        }
        if matches!(message, ToWorker::Move { .. }) {
            self.moving.insert(conn, Vec::new());
        }
        self.push(conn.worker, message);
    }

    /// A worker has passed fence `fence`: what waited for it leaves.
    pub fn fence_reached(&mut self, fence: u64) {
        if let Some(at) = self.held.iter().position(|held| held.fence == fence)
            && let Some(held) = self.held.remove(at)
        {
            held.messages.into_iter().for_each(|message| self.push_to_conn(message));
        }
        if let Some(at) = self.gone.iter().position(|(number, _)| *number == fence)
            && let Some((_, former)) = self.gone.remove(at)
        {
            self.moved.remove(&former);
        }
    }

    /// A connection arrived on another worker: what waited for it follows.
    pub fn conn_moved(&mut self, old: ConnId, new: ConnId) {
        let waiting = self.moving.remove(&old).unwrap_or_default();
        let mut former = self.former.remove(&old).unwrap_or_default();
        former.push(old);
        for &id in &former {
            self.moved.insert(id, new);
        }
        self.former.insert(new, former);
        for mut message in waiting {
            readdress(&mut message, new);
            self.push_to_conn(message);
        }
    }

    /// A connection is gone, and with it what waited for it. Its former ids are known until the workers they
    /// name have passed a fence: nothing that names one comes after that.
    pub fn conn_closed(&mut self, conn: ConnId) {
        self.moving.remove(&conn);
        let moved = &self.moved;
        let moves_it = |message: &ToWorker| match message {
            ToWorker::Move { conn: of, .. } => moved.get(of).unwrap_or(of) == &conn,
            _ => false,
        };
        self.held.iter_mut().for_each(|held| held.messages.retain(|message| !moves_it(message)));
        for id in self.former.remove(&conn).unwrap_or_default() {
            self.fences += 1;
            self.gone.push_back((self.fences, id));
            self.push(id.worker, ToWorker::Fence(self.fences));
        }
    }

    /// Sends a message to one worker.
    pub fn push(&mut self, worker: WorkerId, message: ToWorker) {
        // An id that no worker has can only come from our own tables; there is nobody to tell.
        let Some(outbox) = self.outboxes.get_mut(worker.index()) else { return };
        if !outbox.backlog.is_empty() {
            outbox.backlog.push_back(message);
            return;
        }
        match outbox.inbox.queue.try_send(message) {
            Ok(()) => outbox.pushed = true,
            Err(TrySendError::Full(message)) => {
                self.inbox_overflows += 1;
                outbox.backlog.push_back(message);
            }
            Err(TrySendError::Disconnected(_)) => {}
        }
    }

    /// Sends a message to every worker.
    pub fn broadcast(&mut self, message: impl Fn() -> ToWorker) {
        (0..self.outboxes.len()).for_each(|worker| self.push(WorkerId(worker as u8), message()));
    }

    /// Hands over what inboxes did not take before, and wakes the workers that have something new.
    pub fn flush(&mut self) {
        for outbox in &mut self.outboxes {
            while let Some(message) = outbox.backlog.pop_front() {
                match outbox.inbox.queue.try_send(message) {
                    Ok(()) => outbox.pushed = true,
                    Err(TrySendError::Full(message)) => {
                        outbox.backlog.push_front(message);
                        break;
                    }
                    Err(TrySendError::Disconnected(_)) => {}
                }
            }
            if std::mem::take(&mut outbox.pushed) {
                outbox.inbox.wake.wake();
            }
        }
    }

    /// Whether something waits for room in an inbox.
    pub fn has_backlog(&self) -> bool {
        self.outboxes.iter().any(|outbox| !outbox.backlog.is_empty())
    }

    /// Whether a worker is so far behind that no further work must be taken on.
    pub fn is_congested(&self) -> bool {
        self.outboxes.iter().any(|outbox| outbox.backlog.len() >= self.backlog_max)
    }

    fn route(&mut self, network: NetworkId, addr: IpAddr, worker: Option<WorkerId>) {
        if let Some(Some(steering)) = self.steering.get(network.index()) {
            let result = match worker {
                Some(worker) => steering.set(addr, u32::from(worker.0)),
                None => steering.remove(addr),
            };
            if let Err(error) = result {
                // Packets then reach another worker first, which passes them on.
                tracing::debug!("steering {addr}: {error}");
            }
        }
        self.broadcast(|| ToWorker::Route { network, addr, worker });
    }
}

/// The connection a message is about.
fn conn_of(message: &ToWorker) -> Option<ConnId> {
    match message {
        ToWorker::Bind { conn, .. }
        | ToWorker::HalfOpen { conn }
        | ToWorker::Challenged { conn, .. }
        | ToWorker::Send { conn, .. }
        | ToWorker::Handled { conn, .. }
        | ToWorker::Close { conn, .. }
        | ToWorker::Move { conn, .. } => Some(*conn),
        _ => None,
    }
}

/// Makes a message about a connection one about `now`, which the connection became by moving.
fn readdress(message: &mut ToWorker, now: ConnId) {
    match message {
        ToWorker::Bind { conn, .. }
        | ToWorker::HalfOpen { conn }
        | ToWorker::Challenged { conn, .. }
        | ToWorker::Send { conn, .. }
        | ToWorker::Handled { conn, .. }
        | ToWorker::Close { conn, .. }
        | ToWorker::Move { conn, .. } => *conn = now,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use crossbeam::channel::{Receiver, bounded};

    use super::*;
    use crate::io::wake::Wake;
    use crate::types::Transport;

    fn workers(count: usize, room: usize) -> (Dispatcher, Vec<Receiver<ToWorker>>) {
        let (inboxes, receivers): (Vec<_>, Vec<_>) = (0..count)
            .map(|_| {
                let (queue, receiver) = bounded(room);
                (Arc::new(InboxHandle { queue, wake: Wake::new().expect("an eventfd") }), receiver)
            })
            .unzip();
        (Dispatcher::new(&inboxes, 4, Vec::new()), receivers)
    }

    fn conn(worker: u8, slot: u32) -> ConnId {
        ConnId { worker: WorkerId(worker), slot, generation: 1 }
    }

    fn path() -> Path {
        let addr = |text: &str| text.parse().expect("an address");
        Path { transport: Transport::Udp, local: addr("192.0.2.1:4500"), remote: addr("198.51.100.7:40000") }
    }

    fn response(conn: ConnId, owner: u8) -> Transmit {
        let (path, message) = (path(), Bytes::from_static(b"ike"));
        Transmit { conn, path, message, after_install: true, owner: WorkerId(owner) }
    }

    fn names(receiver: &Receiver<ToWorker>) -> Vec<String> {
        receiver
            .try_iter()
            .map(|message| match message {
                ToWorker::Bind { conn, .. } => format!("bind {}", conn.slot),
                ToWorker::Send { conn, .. } => format!("send {}", conn.slot),
                ToWorker::Move { conn, to, .. } => format!("move {} to {}", conn.slot, to.0),
                ToWorker::Handled { conn, .. } => format!("handled {}", conn.slot),
                ToWorker::Close { conn, .. } => format!("close {}", conn.slot),
                ToWorker::SendTo { from, .. } => format!("send from {}", from.0),
                ToWorker::BindPath { .. } => "bind path".into(),
                ToWorker::Fence(fence) => format!("fence {fence}"),
                ToWorker::StopAccepting => "stop accepting".into(),
                _ => "other".into(),
            })
            .collect()
    }

    #[test]
    fn a_response_waits_for_the_owner_of_the_new_sa_and_the_move_follows_it() {
        let (mut dispatcher, workers) = workers(2, 16);
        dispatcher.bind(SessionId(1), WorkerId(1), conn(0, 7));
        dispatcher.transmit(response(conn(0, 7), 1));
        dispatcher.end_turn();
        assert_eq!(names(&workers[1]), ["fence 1"]);
        assert_eq!(names(&workers[0]), [""; 0]);
        dispatcher.fence_reached(1);
        assert_eq!(names(&workers[0]), ["send 7", "move 7 to 1"]);
    }

    #[test]
    fn r7296_2_8_over_udp_too_a_response_waits_for_the_owner_of_the_new_sa() {
        let (mut dispatcher, workers) = workers(2, 16);
        dispatcher.bind_path(SessionId(1), WorkerId(1), path(), Follow::Tcp);
        dispatcher.transmit(response(ConnId::datagrams(WorkerId(0)), 1));
        dispatcher.transmit(response(ConnId::datagrams(WorkerId(1)), 1));
        dispatcher.end_turn();
        assert_eq!(names(&workers[1]), ["bind path", "fence 1", "send from 1"]);
        assert_eq!(names(&workers[0]), [""; 0]);
        dispatcher.fence_reached(1);
        assert_eq!(names(&workers[0]), ["send from 0"]);
    }

    #[test]
    fn a_response_of_the_owning_worker_needs_no_fence() {
        let (mut dispatcher, workers) = workers(2, 16);
        dispatcher.bind(SessionId(1), WorkerId(0), conn(0, 7));
        dispatcher.transmit(response(conn(0, 7), 0));
        dispatcher.end_turn();
        assert_eq!(names(&workers[0]), ["bind 7", "send 7"]);
    }

    #[test]
    fn r9329_6_1_15_messages_follow_a_connection_on_the_move() {
        let (mut dispatcher, workers) = workers(2, 16);
        dispatcher.bind(SessionId(1), WorkerId(1), conn(0, 7));
        dispatcher.end_turn();
        assert_eq!(names(&workers[0]), ["move 7 to 1"]);
        dispatcher.transmit(response(conn(0, 7), 1));
        dispatcher.fence_reached(1);
        dispatcher.push_to_conn(ToWorker::Handled { conn: conn(0, 7), good: true });
        assert_eq!(names(&workers[0]), [""; 0]);
        dispatcher.conn_moved(conn(0, 7), conn(1, 9));
        assert_eq!(names(&workers[1]), ["fence 1", "send 9", "handled 9"]);
        // Messages read before the move name the old id.
        assert_eq!(dispatcher.current(conn(0, 7)), conn(1, 9));
        dispatcher.conn_closed(conn(1, 9));
        // They may still be in the queue of the worker it left.
        assert!(dispatcher.is_gone(conn(0, 7)) && dispatcher.current(conn(0, 7)) == conn(1, 9));
        assert_eq!(names(&workers[0]), ["fence 2"]);
        dispatcher.fence_reached(2);
        assert!(!dispatcher.is_gone(conn(0, 7)) && dispatcher.current(conn(0, 7)) == conn(0, 7));
        assert!(dispatcher.moved.is_empty() && dispatcher.former.is_empty() && dispatcher.moving.is_empty());
    }

    #[test]
    fn a_connection_that_closes_before_its_move_leaves_nothing() {
        let (mut dispatcher, workers) = workers(2, 16);
        dispatcher.bind(SessionId(1), WorkerId(1), conn(0, 7));
        dispatcher.transmit(response(conn(0, 7), 1));
        dispatcher.end_turn();
        dispatcher.conn_closed(conn(0, 7));
        dispatcher.fence_reached(1);
        // The response finds no connection, which its worker counts.
        assert_eq!(names(&workers[0]), ["send 7"]);
        assert!(dispatcher.moving.is_empty() && dispatcher.held.is_empty());
    }

    #[test]
    fn a_connection_that_moves_twice_is_found_by_both_former_ids() {
        let (mut dispatcher, _workers) = workers(3, 16);
        dispatcher.conn_moved(conn(0, 7), conn(1, 9));
        dispatcher.conn_moved(conn(1, 9), conn(2, 3));
        assert_eq!(dispatcher.current(conn(0, 7)), conn(2, 3));
        assert_eq!(dispatcher.current(conn(1, 9)), conn(2, 3));
        dispatcher.conn_closed(conn(2, 3));
        dispatcher.fence_reached(1);
        dispatcher.fence_reached(2);
        assert!(dispatcher.moved.is_empty() && dispatcher.former.is_empty() && dispatcher.gone.is_empty());
    }

    #[test]
    fn a_second_move_to_where_the_connection_is_only_binds_it() {
        let (mut dispatcher, workers) = workers(2, 16);
        dispatcher.bind(SessionId(1), WorkerId(1), conn(0, 7));
        dispatcher.bind(SessionId(1), WorkerId(1), conn(0, 7));
        dispatcher.end_turn();
        assert_eq!(names(&workers[0]), ["move 7 to 1"]);
        dispatcher.conn_moved(conn(0, 7), conn(1, 9));
        assert_eq!(names(&workers[1]), ["bind 9"]);
    }

    #[test]
    fn what_waits_for_a_moving_connection_is_bounded() {
        let (mut dispatcher, workers) = workers(2, 128);
        dispatcher.bind(SessionId(1), WorkerId(1), conn(0, 7));
        dispatcher.end_turn();
        for _ in 0..MOVING_MESSAGES_MAX + 3 {
            dispatcher.push_to_conn(ToWorker::Handled { conn: conn(0, 7), good: true });
        }
        assert_eq!(dispatcher.moving_overflows, 3);
        dispatcher.conn_closed(conn(0, 7));
        dispatcher.conn_moved(conn(0, 7), conn(1, 9));
        assert_eq!(names(&workers[1]).len(), 0);
    }

    #[test]
    fn a_full_inbox_keeps_the_order_and_tells_when_it_is_too_far_behind() {
        let (mut dispatcher, workers) = workers(1, 2);
        for slot in 0..6 {
            dispatcher.push_to_conn(ToWorker::HalfOpen { conn: conn(0, slot) });
        }
        assert_eq!(dispatcher.inbox_overflows, 1);
        assert!(dispatcher.has_backlog() && dispatcher.is_congested());
        let mut slots = Vec::new();
        for _ in 0..3 {
            slots.extend(
                workers[0].try_iter().map(|message| conn_of(&message).expect("of a connection").slot),
            );
            dispatcher.flush();
        }
        assert_eq!(slots, [0, 1, 2, 3, 4, 5]);
        assert!(!dispatcher.has_backlog() && !dispatcher.is_congested());
    }

    #[test]
    fn a_close_comes_after_the_last_response() {
        let (mut dispatcher, workers) = workers(1, 16);
        dispatcher.close_conn(conn(0, 7), CloseReason::Administrative);
        dispatcher.transmit(response(conn(0, 7), 0));
        dispatcher.end_turn();
        assert_eq!(names(&workers[0]), ["send 7", "close 7"]);
    }
}
