//! One Session-Id: an authentication, and the session that may come of it.

use std::sync::Arc;

use super::settings::Settings;
use crate::control::responder::{AttemptId, Subject};
use crate::limits::DIAMETER_KEPT_OCTETS_MAX;
use crate::types::SessionId;

/// Number of a dialog: the low part of its Session-Id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DialogId(pub u32);

/// How far a dialog has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// EAP is under way.
    Authenticating(AttemptId),
    /// The attempt is over; a DER of it is unanswered.
    Abandoned,
    /// The server has let the user in; the session is being set up.
    Accepted(AttemptId),
    /// There is a session.
    Attached(SessionId),
}

/// One Session-Id.
#[derive(Debug)]
pub struct Dialog {
    /// Its number.
    pub id: DialogId,
    /// Start of the process: the high part of its Session-Id.
    pub epoch: u32,
    /// User-Name: what the user calls itself.
    pub user: Arc<str>,
    /// The APN it asks for.
    pub apn: Option<Arc<str>>,
    /// Destination-Realm.
    pub realm: Arc<str>,
    /// Destination-Host: the server that has the dialog, once one has.
    pub host: Option<Arc<str>>,
    /// The peer that led there.
    pub peer: Option<usize>,
    /// State of the last answer (RFC 6733 §8, RFC 7155 §4.4).
    pub state: Option<Box<[u8]>>,
    /// Class of the answers (RFC 6733 §8.20).
    pub class: Vec<Box<[u8]>>,
    /// How far it has come.
    pub stage: Stage,
    /// Identifier of the last EAP packet of the user.
    pub eap_identifier: u8,
    /// A request of it is unanswered.
    pub is_waiting: bool,
    /// Whether the server wants to hear of the end.
    pub stateful: bool,
    /// Termination-Cause, where the server has asked for the end.
    pub ending: Option<u32>,
}

impl Dialog {
    /// The dialog of a new attempt.
    pub fn new(settings: &Settings, id: DialogId, epoch: u32, attempt: AttemptId, subject: &Subject) -> Self {
        let realm = settings.destination_realm.clone().unwrap_or_else(|| realm_of(settings, &subject.idi));
        Self {
            id,
            epoch,
            user: subject.idi.clone(),
            apn: subject.apn.clone(),
            realm,
            host: settings.destination_host.clone(),
            peer: None,
            state: None,
            class: Vec::new(),
            stage: Stage::Authenticating(attempt),
            eap_identifier: 0,
            is_waiting: false,
            stateful: false,
            ending: None,
        }
    }

    /// Session-Id (RFC 6733 §8.8).
    pub fn session_id(&self, settings: &Settings) -> String {
        format!("{};{};{}", settings.origin_host, self.epoch, self.id.0)
    }

    /// Keeps a Class AVP, as far as there is room.
    pub fn keep_class(&mut self, data: &[u8]) {
        let kept: usize = self.class.iter().map(|class| class.len() + size_of::<Box<[u8]>>()).sum();
        let is_new = self.class.iter().all(|class| **class != *data);
        if is_new && kept + data.len() + size_of::<Box<[u8]>>() <= DIAMETER_KEPT_OCTETS_MAX {
            self.class.push(data.into());
        }
    }

    /// Keeps the State AVP, unless it is larger than there is room for.
    pub fn keep_state(&mut self, data: Option<&[u8]>) {
        self.state = data.filter(|data| data.len() <= DIAMETER_KEPT_OCTETS_MAX).map(Into::into);
    }
}

/// The number in a Session-Id of ours.
pub fn parse_session_id(settings: &Settings, epoch: u32, text: &str) -> Option<DialogId> {
    let rest = text.strip_prefix(&*settings.origin_host)?.strip_prefix(';')?;
    let (high, low) = rest.split_once(';')?;
    (high.parse() == Ok(epoch)).then_some(())?;
    low.parse().ok().map(DialogId)
}

/// The realm of a NAI (RFC 7542 §3), or ours where it has none.
fn realm_of(settings: &Settings, nai: &str) -> Arc<str> {
    match nai.rsplit_once('@') {
        Some((_, realm)) if is_realm(realm) => realm.into(),
        _ => settings.origin_realm.clone(),
    }
}

/// Whether a text can stand as a realm: what a peer calls itself decides where its request is routed.
fn is_realm(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 255
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"-._".contains(&c))
}
