//! What peers answer.

use std::time::Instant;

use super::causes::Outcome;
use super::dialog::{DialogId, Stage};
use super::message::{Header, Message};
use super::names::{self, command, value};
use super::node::{Node, Output};
use super::requests::{Purpose, Request};
use super::swm::{self, Answer};
use crate::control::responder::{AaaAnswer, Accepted, AttemptId, RejectCause};

/// EAP codes (RFC 3748 §4).
const EAP_REQUEST: u8 = 1;
const EAP_SUCCESS: u8 = 3;
const EAP_FAILURE: u8 = 4;

impl Node {
    /// An answer of `peer`, well-formed.
    pub(super) fn on_answer(&mut self, now: Instant, peer: usize, message: &Message<'_>) {
        match message.header.command {
            // on_received has seen it.
            command::DEVICE_WATCHDOG => return,
            command::DISCONNECT_PEER => {
                return self.with_peer(now, peer, |peer, env| peer.on_disconnected(env));
            }
            _ => {}
        }
        let header = message.header;
        // Somebody else has answered before, or nobody was asked.
        let Some(request) = self.requests.answered(header.hop_by_hop, header.end_to_end, peer) else {
            self.slots[peer].view.bad_answers += 1;
            return;
        };
        let view = &mut self.slots[peer].view;
        view.answers += 1;
        view.waited += now.saturating_duration_since(request.sent);
        let apn = match request.purpose {
            Purpose::Eap(id) | Purpose::Authorize(id) => {
                self.dialogs.get(&id).and_then(|dialog| dialog.apn.clone())
            }
            Purpose::Terminate => None,
        };
        let answer = swm::answer(message, apn.as_deref());
        if let Outcome::Elsewhere(cause) = answer.outcome {
            return self.try_elsewhere(now, request, cause);
        }
        match request.purpose {
            Purpose::Eap(id) => self.on_eap_answer(now, id, peer, message, answer),
            Purpose::Authorize(id) => self.on_authorization(id, &answer),
            Purpose::Terminate => {}
        }
    }

    /// An answer whose AVPs do not fit: as good as none, and no other peer is asked for another one.
    pub(super) fn on_malformed_answer(&mut self, now: Instant, peer: usize, header: &Header) {
        self.slots[peer].view.bad_answers += 1;
        let request = self.requests.answered(header.hop_by_hop, header.end_to_end, peer);
        if let Some(Purpose::Eap(id)) = request.map(|request| request.purpose) {
            self.reject(now, id, Some(peer), None, RejectCause::NetworkFailure);
        }
    }

    fn try_elsewhere(&mut self, now: Instant, mut request: Request, cause: RejectCause) {
        // RFC 6733 §3: T is not for requests that were answered.
        request.is_repeated = false;
        request.refused = Some(cause);
        self.dispatch(now, request);
    }

    fn on_eap_answer(
        &mut self,
        now: Instant,
        id: DialogId,
        peer: usize,
        message: &Message<'_>,
        answer: Answer<'_>,
    ) {
        let Some(dialog) = self.dialogs.get_mut(&id) else { return };
        dialog.is_waiting = false;
        dialog.peer = Some(peer);
        if let Some(host) = answer.origin_host.filter(|host| dialog.host.as_deref() != Some(*host)) {
            dialog.host = Some(host.into());
        }
        dialog.keep_state(message.find(names::STATE).map(|avp| avp.data));
        message.avps().filter(|avp| avp.is(names::CLASS)).for_each(|avp| dialog.keep_class(avp.data));
        dialog.stateful = answer.outcome == Outcome::Granted && answer.stateful;
        let attempt = match dialog.stage {
            Stage::Authenticating(attempt) => attempt,
            // Nobody waits for it any more.
            _ => return self.terminate(now, id, value::SERVICE_NOT_PROVIDED),
        };
        if message.unacceptable().is_some() {
            self.slots[peer].view.bad_answers += 1;
            return self.reject(now, id, Some(peer), None, RejectCause::NetworkFailure);
        }
        let code = answer.eap.and_then(|packet| packet.first()).copied();
        match (answer.outcome, answer.eap) {
            (Outcome::Continue, Some(packet)) if code == Some(EAP_REQUEST) => {
                let answer = AaaAnswer::Continue { packet: packet.to_vec() };
                self.outputs.push_back(Output::Answer { attempt, answer });
            }
            (Outcome::Granted, _)
                if !answer.msk.is_empty() && code.is_none_or(|code| code == EAP_SUCCESS) =>
            {
                self.accept(id, attempt, peer, answer);
            }
            (Outcome::Refused(cause), packet) => {
                let packet = packet.filter(|_| code == Some(EAP_FAILURE)).map(<[u8]>::to_vec);
                self.reject(now, id, Some(peer), packet, cause);
            }
            _ => {
                self.slots[peer].view.bad_answers += 1;
                self.reject(now, id, Some(peer), None, RejectCause::NetworkFailure);
            }
        }
    }

    fn accept(&mut self, id: DialogId, attempt: AttemptId, peer: usize, answer: Answer<'_>) {
        let Some(dialog) = self.dialogs.get_mut(&id) else { return };
        dialog.stage = Stage::Accepted(attempt);
        // RFC 4072 §2.2 lets a server leave EAP-Success out; the UE waits for one.
        let success = || vec![EAP_SUCCESS, dialog.eap_identifier, 0, 4];
        let accepted = Accepted {
            packet: answer.eap.map_or_else(success, <[u8]>::to_vec),
            msk: answer.msk,
            identity: answer.identity.map(Into::into),
            inner: answer.inner,
            pool: None,
            p_cscf: Vec::new(),
            session_timeout: answer.lifetime,
        };
        self.slots[peer].view.accepts += 1;
        self.outputs.push_back(Output::Answer { attempt, answer: AaaAnswer::Accept(Box::new(accepted)) });
    }

    /// Ends an authentication. A server that has let the user in is told that it does not get in.
    pub(super) fn reject(
        &mut self,
        now: Instant,
        id: DialogId,
        peer: Option<usize>,
        packet: Option<Vec<u8>>,
        cause: RejectCause,
    ) {
        let stage = self.dialogs.get(&id).map(|dialog| dialog.stage);
        let Some(Stage::Authenticating(attempt)) = stage else {
            self.dialogs.remove(&id);
            return;
        };
        self.attempts.remove(&attempt);
        self.terminate(now, id, value::BAD_ANSWER);
        if let Some(peer) = peer {
            let rejects = &mut self.slots[peer].view.rejects;
            match rejects.iter_mut().find(|(known, _)| *known == cause) {
                Some((_, count)) => *count += 1,
                None => rejects.push((cause, 1)),
            }
        }
        let answer = AaaAnswer::Reject { packet, cause, why: None };
        self.outputs.push_back(Output::Answer { attempt, answer });
    }

    /// The answer to an AAR.
    fn on_authorization(&mut self, id: DialogId, answer: &Answer<'_>) {
        let Some(dialog) = self.dialogs.get_mut(&id) else { return };
        dialog.is_waiting = false;
        let Stage::Attached(session) = dialog.stage else { return };
        match answer.outcome {
            Outcome::Granted => {
                let lifetime = answer.lifetime.map(|left| Output::Lifetime { session, left });
                self.outputs.extend(lifetime);
            }
            Outcome::Refused(RejectCause::NetworkFailure) | Outcome::Continue | Outcome::Elsewhere(_) => {}
            Outcome::Refused(_) => {
                dialog.ending = Some(value::AUTH_EXPIRED);
                self.outputs.push_back(Output::Disconnect { session, ask: None });
            }
        }
    }
}
