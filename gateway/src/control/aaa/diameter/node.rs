//! A Diameter node: peers, requests under way, and the dialogs they belong to. Sans-IO.
//!
//! Time and randomness are arguments. After every call [`Node::poll_output`] is to be emptied, then
//! [`Node::poll_timeout`] read. `answers` takes what peers answer, `served` what they ask.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ahash::AHashMap;

use super::causes;
use super::dialog::{Dialog, DialogId, Stage};
use super::ids::Ids;
use super::message::{Message, address_request};
use super::names::value;
use super::peer::{Action, Env, Peer, Usable};
use super::requests::{Purpose, Request, Requests};
use super::served::Ask;
use super::settings::Settings;
use super::swm;
use crate::control::aaa::ServerView;
use crate::control::responder::{AaaAnswer, Attached, AttemptId, EapStep, EndCause, RejectCause};
use crate::limits::DIAMETER_OUTSTANDING_MAX;
use crate::types::SessionId;

/// How long the answers to the last requests are waited for when the gateway ends.
const LEAVE_MAX: Duration = Duration::from_millis(500);

/// What is to be done outside.
pub enum Output {
    /// Connect to a peer; the connection is known by this number from now on.
    Connect {
        /// Index of the peer.
        peer: usize,
        /// Number of the connection.
        connection: u64,
    },
    /// Send a message.
    Send {
        /// On this connection.
        connection: u64,
        /// The message.
        octets: Vec<u8>,
    },
    /// Close a connection, once what was to be sent has been.
    Close {
        /// The connection.
        connection: u64,
    },
    /// The answer to a step.
    Answer {
        /// The attempt.
        attempt: AttemptId,
        /// The answer.
        answer: AaaAnswer,
    },
    /// A session may last this much longer.
    Lifetime {
        /// The session.
        session: SessionId,
        /// From now on.
        left: Duration,
    },
    /// A session is to end.
    Disconnect {
        /// The session.
        session: SessionId,
        /// Who waits to hear of it ([`Node::disconnected`]).
        ask: Option<u64>,
    },
}

/// A peer, its connection and what is counted of it.
pub(super) struct Slot {
    pub(super) peer: Peer,
    pub(super) connection: u64,
    pub(super) view: ServerView,
}

/// A Diameter node.
pub struct Node {
    pub(super) settings: Settings,
    pub(super) ids: Ids,
    pub(super) slots: Vec<Slot>,
    pub(super) requests: Requests,
    pub(super) dialogs: AHashMap<DialogId, Dialog>,
    pub(super) attempts: AHashMap<AttemptId, DialogId>,
    pub(super) sessions: AHashMap<SessionId, DialogId>,
    pub(super) asks: AHashMap<u64, Ask>,
    pub(super) outputs: VecDeque<Output>,
    /// Numbers of connections and asks.
    pub(super) next: u64,
    actions: Vec<Action>,
    /// The gateway ends: goodbye is said then, or when nothing is under way any more.
    leave: Option<Instant>,
    /// It has been said.
    has_said_goodbye: bool,
}

impl Node {
    /// A node that connects to its peers at once.
    pub fn new(settings: Settings, ids: Ids, now: Instant) -> Self {
        let view =
            |name| ServerView { backend: settings.name.clone(), server: name, ..ServerView::default() };
        let slot = |server: &super::settings::Server| Slot {
            view: view(server.name.clone()),
            peer: Peer::new(server.clone(), now),
            connection: 0,
        };
        let slots = settings.servers.iter().map(slot).collect();
        Self {
            settings,
            ids,
            slots,
            requests: Requests::default(),
            dialogs: AHashMap::new(),
            attempts: AHashMap::new(),
            sessions: AHashMap::new(),
            asks: AHashMap::new(),
            outputs: VecDeque::new(),
            next: 0,
            actions: Vec::new(),
            leave: None,
            has_said_goodbye: false,
        }
    }

    /// A node with one peer whose connection, number 1, has just been opened: what the fuzzer talks to.
    pub(super) fn fuzzed(now: Instant) -> Self {
        let mut node = Self::new(Settings::fuzzed(), Ids::new(1, 1), now);
        node.handle_timeout(now);
        node.slots[0].peer.open_for_fuzzing(now);
        node.outputs.clear();
        node
    }

    /// Its settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Goes on under other settings, if they are of the same node.
    pub fn adopt(&mut self, settings: &Settings) -> bool {
        let is_same = self.settings.is_same_node(settings);
        if is_same {
            self.settings = settings.clone();
        }
        is_same
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let peers = self.slots.iter().map(|slot| slot.peer.timer());
        peers.chain(self.requests.deadline()).chain(self.leave).min()
    }

    /// Its servers.
    pub fn servers(&self) -> Vec<ServerView> {
        let view =
            |slot: &Slot| ServerView { up: slot.peer.usable() >= Usable::Reopened, ..slot.view.clone() };
        self.slots.iter().map(view).collect()
    }

    /// Whether nothing is left to do after [`Self::leave`].
    pub fn has_left(&self) -> bool {
        self.has_said_goodbye && self.slots.iter().all(|slot| slot.peer.has_left())
    }

    /// Dialogs held, for tests of leaks.
    pub fn dialogs(&self) -> usize {
        self.dialogs.len()
    }

    /// An EAP packet of a peer.
    pub fn step(&mut self, now: Instant, step: &EapStep) {
        if self.requests.len() >= DIAMETER_OUTSTANDING_MAX {
            return self.refuse(step.attempt, RejectCause::Congestion);
        }
        let id = match self.attempts.get(&step.attempt) {
            Some(&id) => id,
            None => self.begin(step),
        };
        let end_to_end = self.ids.end_to_end();
        let Some(dialog) = self.dialogs.get_mut(&id) else { return };
        dialog.is_waiting = true;
        dialog.eap_identifier = step.packet.get(1).copied().unwrap_or(0);
        let octets = swm::eap_request(&self.settings, dialog, step, end_to_end);
        let preferred = dialog.peer;
        self.request(now, Purpose::Eap(id), preferred, end_to_end, octets);
    }

    fn begin(&mut self, step: &EapStep) -> DialogId {
        let id = DialogId(self.ids.session());
        let epoch = self.ids.origin_state();
        let dialog = Dialog::new(&self.settings, id, epoch, step.attempt, &step.subject);
        self.dialogs.insert(id, dialog);
        self.attempts.insert(step.attempt, id);
        id
    }

    /// Forgets an attempt.
    pub fn abandon(&mut self, now: Instant, attempt: AttemptId) {
        let Some(id) = self.attempts.remove(&attempt) else { return };
        let Some(dialog) = self.dialogs.get_mut(&id) else { return };
        match dialog.stage {
            Stage::Authenticating(_) if dialog.is_waiting => dialog.stage = Stage::Abandoned,
            Stage::Accepted(_) => self.terminate(now, id, value::SERVICE_NOT_PROVIDED),
            _ => _ = self.dialogs.remove(&id),
        }
    }

    /// An attempt has become a session.
    pub fn attached(&mut self, attached: &Attached) {
        let Some(id) = self.attempts.remove(&attached.attempt) else { return };
        let Some(dialog) = self.dialogs.get_mut(&id) else { return };
        dialog.stage = Stage::Attached(attached.session);
        dialog.state = None;
        self.sessions.insert(attached.session, id);
    }

    /// A session has ended.
    pub fn ended(&mut self, now: Instant, session: SessionId, cause: EndCause) {
        let Some(id) = self.sessions.remove(&session) else { return };
        let asked_for = self.dialogs.get(&id).and_then(|dialog| dialog.ending);
        let cause = asked_for.unwrap_or_else(|| causes::termination(cause));
        self.terminate(now, id, cause);
    }

    /// The gateway ends: says goodbye when the last answers are there, or soon.
    pub fn leave(&mut self, now: Instant) {
        if self.has_said_goodbye || self.leave.is_some() {
            return;
        }
        self.leave = Some(now + LEAVE_MAX);
        self.leave_when_done(now);
    }

    /// Tells the server of the end of a dialog, if it wants to know, and forgets it.
    pub(super) fn terminate(&mut self, now: Instant, id: DialogId, cause: u32) {
        let Some(dialog) = self.dialogs.remove(&id) else { return };
        if !dialog.stateful || self.requests.len() >= DIAMETER_OUTSTANDING_MAX {
            return;
        }
        let end_to_end = self.ids.end_to_end();
        let octets = swm::termination(&self.settings, &dialog, cause, end_to_end);
        self.request(now, Purpose::Terminate, dialog.peer, end_to_end, octets);
    }

    pub(super) fn refuse(&mut self, attempt: AttemptId, cause: RejectCause) {
        let answer = AaaAnswer::Reject { packet: None, cause, why: None };
        self.outputs.push_back(Output::Answer { attempt, answer });
    }

    /// Sends a new request.
    pub(super) fn request(
        &mut self,
        now: Instant,
        purpose: Purpose,
        preferred: Option<usize>,
        end_to_end: u32,
        octets: Vec<u8>,
    ) {
        let give_up = now + self.settings.timeout * self.slots.len().max(1) as u32;
        let request = Request {
            octets,
            end_to_end,
            purpose,
            peer: None,
            preferred,
            tried: 0,
            is_repeated: false,
            refused: None,
            sent: now,
            give_up,
        };
        self.dispatch(now, request);
    }

    /// Gives a request to the best peer that has not had it, or lets it wait for one.
    pub(super) fn dispatch(&mut self, now: Instant, mut request: Request) {
        if now >= request.give_up {
            return self.give_up(now, request);
        }
        let Some(peer) = self.choose(&request) else {
            let all = (1u32 << self.slots.len()) - 1;
            if request.tried == all || request.refused.is_some() {
                return self.give_up(now, request);
            }
            // Somebody may come back in time.
            request.peer = None;
            let give_up = request.give_up;
            return self.requests.insert(self.ids.hop_by_hop(), give_up, request);
        };
        let hop_by_hop = self.ids.hop_by_hop();
        address_request(&mut request.octets, hop_by_hop, request.is_repeated);
        let slot = &mut self.slots[peer];
        let counter =
            if request.is_repeated { &mut slot.view.retransmissions } else { &mut slot.view.requests };
        *counter += 1;
        self.outputs.push_back(Output::Send { connection: slot.connection, octets: request.octets.clone() });
        request.peer = Some(peer);
        request.tried |= 1 << peer;
        request.is_repeated = true;
        request.sent = now;
        let deadline = (now + self.settings.timeout).min(request.give_up);
        self.requests.insert(hop_by_hop, deadline, request);
    }

    /// The peer that has the dialog, else the first that is well, else the first that may be.
    fn choose(&self, request: &Request) -> Option<usize> {
        let untried = |&index: &usize| request.tried & (1 << index) == 0;
        let is = |usable: Usable| move |index: &usize| self.slots[*index].peer.usable() == usable;
        let well = request.preferred.filter(untried).filter(is(Usable::Yes));
        let all = || (0..self.slots.len()).filter(untried);
        well.or_else(|| all().find(is(Usable::Yes))).or_else(|| all().find(is(Usable::Reopened)))
    }

    fn give_up(&mut self, now: Instant, request: Request) {
        let cause = request.refused.unwrap_or(RejectCause::Unreachable);
        match request.purpose {
            Purpose::Eap(id) => self.reject(now, id, request.peer, None, cause),
            // The session goes on as it was authorized.
            Purpose::Authorize(id) => {
                self.dialogs.get_mut(&id).into_iter().for_each(|dialog| dialog.is_waiting = false);
            }
            Purpose::Terminate => {}
        }
    }

    /// A connection is there.
    pub fn handle_connected(&mut self, now: Instant, peer: usize, connection: u64, local: IpAddr) {
        if self.is_current(peer, connection) {
            self.with_peer(now, peer, |peer, env| peer.on_connected(env, local));
        }
    }

    /// A connection is gone, or did not come.
    pub fn handle_closed(&mut self, now: Instant, peer: usize, connection: u64) {
        if self.is_current(peer, connection) {
            self.with_peer(now, peer, |peer, env| peer.on_closed(env.now));
        }
    }

    /// A message, whole by `message::frame_len`.
    pub fn handle_message(&mut self, now: Instant, peer: usize, connection: u64, octets: &[u8]) {
        if !self.is_current(peer, connection) {
            return;
        }
        let parsed = Message::parse(octets);
        let header = parsed.map_or_else(|malformed| malformed.header, |message| message.header);
        if !self.slots[peer].peer.is_open() {
            self.on_capabilities(now, peer, parsed.ok());
            return;
        }
        self.with_peer(now, peer, |peer, env| peer.on_received(env, &header));
        match (parsed, header.is_request()) {
            (Ok(message), true) => self.on_request(now, peer, &message),
            (Err(malformed), true) => self.on_malformed_request(peer, &malformed),
            (Ok(message), false) => self.on_answer(now, peer, &message),
            (Err(malformed), false) => self.on_malformed_answer(now, peer, &malformed.header),
        }
        self.leave_when_done(now);
    }

    fn on_capabilities(&mut self, now: Instant, peer: usize, message: Option<Message<'_>>) {
        let server = self.slots[peer].view.server.clone();
        let Some(message) = message else {
            self.slots[peer].view.bad_answers += 1;
            return self.with_peer(now, peer, |peer, env| peer.fail(env));
        };
        let checked = self.with_peer(now, peer, |peer, env| peer.on_capabilities(env, &message));
        let backend = &self.settings.name;
        match checked {
            Ok(host) => tracing::info!(%backend, %server, %host, "diameter peer is up"),
            Err(why) => tracing::warn!(%backend, %server, %why, "diameter peer refused"),
        }
    }

    /// What is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        for peer in 0..self.slots.len() {
            self.with_peer(now, peer, |peer, env| peer.on_timeout(env));
        }
        while let Some(request) = self.requests.pop_due(now) {
            if let Some(peer) = request.peer {
                self.slots[peer].view.timeouts += 1;
            }
            self.dispatch(now, request);
        }
        self.leave_when_done(now);
    }

    fn leave_when_done(&mut self, now: Instant) {
        let Some(at) = self.leave else { return };
        if at > now && self.requests.len() > 0 {
            return;
        }
        self.leave = None;
        self.has_said_goodbye = true;
        for peer in 0..self.slots.len() {
            self.with_peer(now, peer, |peer, env| peer.leave(env));
        }
    }

    fn is_current(&self, peer: usize, connection: u64) -> bool {
        self.slots.get(peer).is_some_and(|slot| slot.connection == connection)
    }

    /// Lets a peer do something, carries its actions out, and moves requests when it came or went.
    pub(super) fn with_peer<R>(
        &mut self,
        now: Instant,
        index: usize,
        act: impl FnOnce(&mut Peer, &mut Env<'_>) -> R,
    ) -> R {
        let slot = &mut self.slots[index];
        let before = slot.peer.usable();
        let mut env = Env { now, settings: &self.settings, ids: &mut self.ids, actions: &mut self.actions };
        let result = act(&mut slot.peer, &mut env);
        for action in self.actions.drain(..) {
            self.outputs.push_back(match action {
                Action::Connect => {
                    self.next += 1;
                    slot.connection = self.next;
                    Output::Connect { peer: index, connection: slot.connection }
                }
                Action::Send(octets) => Output::Send { connection: slot.connection, octets },
                Action::Close => Output::Close { connection: slot.connection },
            });
        }
        let after = slot.peer.usable();
        if before != after {
            self.on_usable(now, index, before, after);
        }
        result
    }

    /// Failover and failback (RFC 6733 §5.5.4).
    fn on_usable(&mut self, now: Instant, index: usize, before: Usable, after: Usable) {
        let (backend, server) = (&self.settings.name, &self.slots[index].view.server);
        if before >= Usable::Reopened && after < Usable::Reopened && !self.has_said_goodbye {
            tracing::warn!(%backend, %server, "diameter peer is down");
        }
        if after >= Usable::Reopened {
            for hop_by_hop in self.requests.of(None) {
                let request = self.requests.take(hop_by_hop);
                request.into_iter().for_each(|request| self.dispatch(now, request));
            }
            return;
        }
        for hop_by_hop in self.requests.of(Some(index)) {
            let Some(mut request) = self.requests.take(hop_by_hop) else { continue };
            let is_lost = after == Usable::No;
            if is_lost {
                // Once it is back, it may be asked again.
                request.tried &= !(1 << index);
            }
            if is_lost || self.choose(&request).is_some() {
                self.dispatch(now, request);
            } else {
                // A suspect is better than nobody: it may still answer.
                let deadline = (request.sent + self.settings.timeout).min(request.give_up);
                self.requests.insert(hop_by_hop, deadline, request);
            }
        }
    }
}
