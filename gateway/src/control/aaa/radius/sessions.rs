//! Sessions that servers let in: what accounting says of each, and how requests of RFC 5176 find them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ahash::AHashMap;

use super::answer::Granted;
use super::packet::{Attributes, kind};
use super::request;
use crate::control::responder::Attached;
use crate::types::SessionId;

/// A session.
pub struct Session {
    /// What every accounting request of it says.
    pub attributes: Attributes,
    /// When it began.
    pub since: Instant,
    /// Time between two reports of its traffic.
    pub interim: Option<Duration>,
    /// When the next is due.
    pub report_due: Option<Instant>,
    user_name: Arc<[u8]>,
    inner: Box<[IpAddr]>,
}

/// All sessions of a back end.
pub struct Sessions {
    /// Tells this process's Acct-Session-Ids from those of others before it.
    epoch: u64,
    sessions: AHashMap<SessionId, Session>,
    by_name: AHashMap<Arc<[u8]>, Vec<SessionId>>,
    by_addr: AHashMap<IpAddr, SessionId>,
}

impl Sessions {
    /// None yet.
    pub fn new() -> Self {
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self { epoch, sessions: AHashMap::new(), by_name: AHashMap::new(), by_addr: AHashMap::new() }
    }

    /// Remembers a session. `user_name` is that of its requests.
    pub fn insert(
        &mut self,
        now: Instant,
        attached: &Attached,
        user_name: Arc<[u8]>,
        granted: &Granted,
        nas_identifier: &str,
    ) {
        let user_name = granted.user_name.clone().unwrap_or(user_name);
        let mut attributes = Attributes::new();
        let id = self.accounting_id(attached.session);
        // All of it fits: names have been in a request already, and Classes are few.
        let _ = request::who(&mut attributes, &user_name, &attached.subject, nas_identifier);
        let _ = attributes.push(kind::ACCT_SESSION_ID, id.as_bytes());
        for addr in &attached.inner {
            let _ = match addr {
                IpAddr::V4(addr) => attributes.push(kind::FRAMED_IP_ADDRESS, &addr.octets()),
                IpAddr::V6(addr) => attributes.push(kind::FRAMED_IPV6_ADDRESS, &addr.octets()),
            };
        }
        for class in &granted.classes {
            let _ = attributes.push(kind::CLASS, class);
        }
        let session = Session {
            attributes,
            since: now,
            interim: granted.interim,
            report_due: None,
            user_name: user_name.clone(),
            inner: attached.inner.clone(),
        };
        self.remove(attached.session);
        self.by_addr.extend(session.inner.iter().map(|addr| (*addr, attached.session)));
        self.by_name.entry(user_name).or_default().push(attached.session);
        self.sessions.insert(attached.session, session);
    }

    /// Forgets a session.
    pub fn remove(&mut self, id: SessionId) -> Option<Session> {
        let session = self.sessions.remove(&id)?;
        for addr in &session.inner {
            // The address may be another's by now.
            if self.by_addr.get(addr) == Some(&id) {
                self.by_addr.remove(addr);
            }
        }
        if let Some(ids) = self.by_name.get_mut(&session.user_name) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_name.remove(&session.user_name);
            }
        }
        Some(session)
    }

    /// A session.
    pub fn get(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(&id)
    }

    /// A session, to change it.
    pub fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(&id)
    }

    /// Its Acct-Session-Id (RFC 2866 §5.5).
    pub fn accounting_id(&self, id: SessionId) -> String {
        format!("{:x}-{:x}", self.epoch, id.0)
    }

    /// The session with this Acct-Session-Id.
    pub fn by_accounting_id(&self, text: &[u8]) -> Option<SessionId> {
        let (_, id) = std::str::from_utf8(text).ok()?.split_once('-')?;
        let id = SessionId(u64::from_str_radix(id, 16).ok()?);
        (self.sessions.contains_key(&id) && self.accounting_id(id).as_bytes() == text).then_some(id)
    }

    /// Sessions of this User-Name.
    pub fn by_name(&self, name: &[u8]) -> &[SessionId] {
        self.by_name.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// The session that has an inner address.
    pub fn by_addr(&self, addr: IpAddr) -> Option<SessionId> {
        self.by_addr.get(&addr).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::attached;
    use super::*;

    #[test]
    fn a_session_is_found_by_each_of_its_names_and_by_none_when_it_is_gone() {
        let mut sessions = Sessions::new();
        let granted = Granted { user_name: Some(b"alice"[..].into()), ..Granted::default() };
        for (attempt, session, addr) in [(1, 7, "10.70.0.1"), (2, 8, "10.70.0.2")] {
            let attached = attached(attempt, session, addr);
            sessions.insert(Instant::now(), &attached, b"temporary"[..].into(), &granted, "gw");
        }
        let addr = |text: &str| text.parse::<IpAddr>().expect("an address");
        let id = sessions.accounting_id(SessionId(7));
        assert_eq!(sessions.by_accounting_id(id.as_bytes()), Some(SessionId(7)));
        assert_eq!(sessions.by_name(b"alice"), [SessionId(7), SessionId(8)]);
        assert_eq!(sessions.by_name(b"temporary"), []);
        assert_eq!(sessions.by_addr(addr("10.70.0.2")), Some(SessionId(8)));
        for odd in [&b""[..], b"7", b"0-7", b"-7", b"\xff-7", format!("{id}0").as_bytes()] {
            assert_eq!(sessions.by_accounting_id(odd), None);
        }
        // The address went to another session before the news of the end of the first.
        let later = attached(3, 9, "10.70.0.1");
        sessions.insert(Instant::now(), &later, b"bob"[..].into(), &Granted::default(), "gw");
        assert!(sessions.remove(SessionId(7)).is_some() && sessions.remove(SessionId(7)).is_none());
        assert_eq!(sessions.by_addr(addr("10.70.0.1")), Some(SessionId(9)));
        assert_eq!(sessions.by_accounting_id(id.as_bytes()), None);
        sessions.remove(SessionId(8));
        sessions.remove(SessionId(9));
        assert!(sessions.by_name.is_empty() && sessions.by_addr.is_empty());
    }
}
