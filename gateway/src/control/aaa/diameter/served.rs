//! What peers ask: watchdogs and goodbyes, ASR, RAR; and how the rest is refused (RFC 6733 §6.2, §7.2).

use std::time::Instant;

use super::avp::Avp;
use super::dialog::{DialogId, Stage, parse_session_id};
use super::message::{Header, Malformed, Message, MessageWriter};
use super::names::{self, Name, application, command, result, value};
use super::node::{Node, Output};
use super::peer::origin;
use super::requests::Purpose;
use super::swm;
use crate::limits::DIAMETER_OUTSTANDING_MAX;
use crate::types::SessionId;

/// An ASR that waits for the end of its session.
pub(super) struct Ask {
    connection: u64,
    header: Header,
    /// What its answer repeats: Session-Id, User-Name, Proxy-Info.
    repeated: Vec<u8>,
}

/// Why a request is refused.
struct Refusal {
    code: u32,
    /// The AVP to blame, as it was received.
    failed: Option<Vec<u8>>,
}

impl Refusal {
    fn plain(code: u32) -> Self {
        Self { code, failed: None }
    }

    fn missing(name: Name) -> Self {
        let mut writer = super::avp::AvpWriter::default();
        // RFC 6733 §7.5: the missing AVP with a value of zeros.
        writer.octets(name, &[]);
        Self { code: result::MISSING_AVP, failed: Some(writer.into_octets()) }
    }

    fn avp(code: u32, avp: &Avp<'_>) -> Self {
        Self { code, failed: Some(avp.octets.to_vec()) }
    }
}

impl Node {
    /// A request of `peer`.
    pub(super) fn on_request(&mut self, now: Instant, peer: usize, message: &Message<'_>) {
        let header = message.header;
        if header.application == application::COMMON
            && self.with_peer(now, peer, |peer, env| peer.on_base_request(env, message))
        {
            return;
        }
        let served = self.check(message).and_then(|()| match header.command {
            command::ABORT_SESSION => self.on_abort(peer, message),
            command::RE_AUTH => self.on_re_auth(now, peer, message),
            _ => Err(Refusal::plain(result::COMMAND_UNSUPPORTED)),
        });
        if let Err(refusal) = served {
            self.answer(peer, &header, refusal.code, repeated(message), refusal.failed);
        }
    }

    /// A request whose AVPs do not fit.
    pub(super) fn on_malformed_request(&mut self, peer: usize, malformed: &Malformed<'_>) {
        // RFC 6733 §7.5: the AVP's header, with a length that fits and no data.
        let failed = malformed.avp.0.first_chunk::<4>().map(|code| {
            let mut writer = super::avp::AvpWriter::default();
            writer.octets(Name { code: u32::from_be_bytes(*code), vendor: 0, must: true }, &[]);
            writer.into_octets()
        });
        self.answer(peer, &malformed.header, result::INVALID_AVP_LENGTH, Vec::new(), failed);
    }

    /// What every request of an application must be.
    fn check(&self, message: &Message<'_>) -> Result<(), Refusal> {
        let header = message.header;
        if header.is_error() {
            return Err(Refusal::plain(result::INVALID_HDR_BITS));
        }
        if ![self.settings.application.id(), application::COMMON].contains(&header.application) {
            return Err(Refusal::plain(result::APPLICATION_UNSUPPORTED));
        }
        if ![command::ABORT_SESSION, command::RE_AUTH].contains(&header.command) {
            return Err(Refusal::plain(result::COMMAND_UNSUPPORTED));
        }
        // We are no agent: what is not for us goes nowhere.
        let is_other = |name, own: &str| {
            message
                .find(name)
                .is_some_and(|avp| avp.text().is_none_or(|text| !text.eq_ignore_ascii_case(own)))
        };
        if is_other(names::DESTINATION_HOST, &self.settings.origin_host) {
            return Err(Refusal::plain(result::UNABLE_TO_DELIVER));
        }
        if is_other(names::DESTINATION_REALM, &self.settings.origin_realm) {
            return Err(Refusal::plain(result::REALM_NOT_SERVED));
        }
        match message.unacceptable() {
            Some(avp) => Err(Refusal::avp(result::AVP_UNSUPPORTED, &avp)),
            None => Ok(()),
        }
    }

    /// The dialog and session that a request is about.
    fn find(&self, message: &Message<'_>) -> Result<(DialogId, SessionId), Refusal> {
        let id = message.find(names::SESSION_ID).ok_or_else(|| Refusal::missing(names::SESSION_ID))?;
        let unknown = || Refusal::plain(result::UNKNOWN_SESSION_ID);
        let epoch = self.ids.origin_state();
        let id =
            id.text().and_then(|text| parse_session_id(&self.settings, epoch, text)).ok_or_else(unknown)?;
        match self.dialogs.get(&id).map(|dialog| dialog.stage) {
            Some(Stage::Attached(session)) => Ok((id, session)),
            _ => Err(unknown()),
        }
    }

    /// ASR (TS 29.273 §7.1.2.4): the session ends, then the answer says so; an STR follows.
    fn on_abort(&mut self, peer: usize, message: &Message<'_>) -> Result<(), Refusal> {
        let (id, session) = self.find(message)?;
        if self.asks.len() >= DIAMETER_OUTSTANDING_MAX {
            return Err(Refusal::plain(result::TOO_BUSY));
        }
        if let Some(dialog) = self.dialogs.get_mut(&id) {
            dialog.ending = Some(value::ADMINISTRATIVE);
        }
        self.next += 1;
        let connection = self.slots[peer].connection;
        let ask = Ask { connection, header: message.header, repeated: repeated(message) };
        self.asks.insert(self.next, ask);
        self.outputs.push_back(Output::Disconnect { session, ask: Some(self.next) });
        Ok(())
    }

    /// Whether there was the session that an ASR wanted ended.
    pub fn disconnected(&mut self, ask: u64, found: bool) {
        let Some(ask) = self.asks.remove(&ask) else { return };
        let code = if found { result::SUCCESS } else { result::UNKNOWN_SESSION_ID };
        self.answer_on(ask.connection, &ask.header, code, ask.repeated, None);
    }

    /// RAR (TS 29.273 §7.1.2.5): the server has news about the user, which an AAR fetches.
    fn on_re_auth(&mut self, now: Instant, peer: usize, message: &Message<'_>) -> Result<(), Refusal> {
        let (id, _) = self.find(message)?;
        let kind = message.find(names::RE_AUTH_REQUEST_TYPE);
        let kind = kind.ok_or_else(|| Refusal::missing(names::RE_AUTH_REQUEST_TYPE))?;
        // IKEv2 has no authentication that a gateway could start within a session.
        if kind.number() != Some(value::RE_AUTHORIZE_ONLY) || self.requests.len() >= DIAMETER_OUTSTANDING_MAX
        {
            return Err(Refusal::plain(result::UNABLE_TO_COMPLY));
        }
        self.answer(peer, &message.header, result::SUCCESS, repeated(message), None);
        let end_to_end = self.ids.end_to_end();
        let Some(dialog) = self.dialogs.get_mut(&id) else { return Ok(()) };
        // One that is under way fetches the news as well.
        if !std::mem::replace(&mut dialog.is_waiting, true) {
            let octets = swm::authorization(&self.settings, dialog, end_to_end);
            self.request(now, Purpose::Authorize(id), Some(peer), end_to_end, octets);
        }
        Ok(())
    }

    fn answer(
        &mut self,
        peer: usize,
        header: &Header,
        code: u32,
        repeated: Vec<u8>,
        failed: Option<Vec<u8>>,
    ) {
        self.answer_on(self.slots[peer].connection, header, code, repeated, failed);
    }

    fn answer_on(
        &mut self,
        connection: u64,
        header: &Header,
        code: u32,
        repeated: Vec<u8>,
        failed: Option<Vec<u8>>,
    ) {
        // RFC 6733 §7.1.3: protocol errors, and only they, have the E bit.
        let mut writer = MessageWriter::new(header.answer((3000..4000).contains(&code)));
        writer.avps().copy(&repeated).number(names::RESULT_CODE, code);
        origin(&self.settings, &mut writer);
        if let Some(failed) = failed {
            writer.avps().group(names::FAILED_AVP, |group| _ = group.copy(&failed));
        }
        self.outputs.push_back(Output::Send { connection, octets: writer.finish() });
    }
}

/// The AVPs that every answer repeats (RFC 6733 §6.2): Session-Id first, then the user and what agents want back.
fn repeated(message: &Message<'_>) -> Vec<u8> {
    let mut writer = super::avp::AvpWriter::default();
    for name in [names::SESSION_ID, names::USER_NAME] {
        message.find(name).into_iter().for_each(|avp| _ = writer.copy(avp.octets));
    }
    message.avps().filter(|avp| avp.is(names::PROXY_INFO)).for_each(|avp| _ = writer.copy(avp.octets));
    writer.into_octets()
}
