//! Dynamic authorization (RFC 5176): servers end sessions (Disconnect-Request) or change how long they last
//! (CoA-Request).
//!
//! A request is taken from a configured server that knows the secret, if its Event-Timestamp is of now (§3.3), and
//! carried out once: its repetition gets the same answer.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::packet::{Attributes, Packet, code, kind};
use super::sessions::Sessions;
use super::sign::{self, AUTHENTICATOR_LEN, Secret};
use crate::limits::RADIUS_ANSWERED_MAX;
use crate::types::SessionId;

/// Seconds that a request's Event-Timestamp may differ from our clock (§3.3).
const CLOCK_SKEW_S: u64 = 300;

/// Error-Cause values (§3.6).
mod error {
    pub const UNSUPPORTED_ATTRIBUTE: u32 = 401;
    pub const MISSING_ATTRIBUTE: u32 = 402;
    pub const NAS_IDENTIFICATION_MISMATCH: u32 = 403;
    pub const INVALID_REQUEST: u32 = 404;
    pub const UNSUPPORTED_SERVICE: u32 = 405;
    pub const INVALID_ATTRIBUTE_VALUE: u32 = 407;
    pub const SESSION_CONTEXT_NOT_FOUND: u32 = 503;
}

/// What a request is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// End these sessions.
    Disconnect(Vec<SessionId>),
    /// These sessions end after this time from now on, and report their traffic this often; `None` leaves it.
    Limit {
        /// The sessions.
        sessions: Vec<SessionId>,
        /// Session-Timeout.
        timeout: Option<Duration>,
        /// Acct-Interim-Interval.
        interim: Option<Duration>,
    },
}

/// Whom requests are taken from, and which were.
pub struct Dynamic {
    secret: Secret,
    clients: Vec<IpAddr>,
    needs_timestamp: bool,
    nas_identifier: Box<str>,
    answered: VecDeque<Answered>,
    /// Requests that were not authentic, or not from a server.
    pub refused: u64,
}

/// A request that was answered.
struct Answered {
    from: SocketAddr,
    id: u8,
    authenticator: [u8; AUTHENTICATOR_LEN],
    answer: Box<[u8]>,
}

impl Dynamic {
    /// Takes requests from `clients` that know `secret`.
    pub fn new(secret: Secret, clients: Vec<IpAddr>, needs_timestamp: bool, nas_identifier: &str) -> Self {
        let nas_identifier = nas_identifier.into();
        Self { secret, clients, needs_timestamp, nas_identifier, answered: VecDeque::new(), refused: 0 }
    }

    /// Takes a datagram; returns the answer, none for what is not authentic, and what to do, once.
    pub fn handle(
        &mut self,
        from: SocketAddr,
        octets: &[u8],
        sessions: &Sessions,
        wall_s: u64,
    ) -> (Option<Box<[u8]>>, Option<Change>) {
        let packet = Packet::parse(octets).ok().filter(|packet| {
            self.clients.contains(&from.ip().to_canonical())
                && matches!(packet.code(), code::DISCONNECT_REQUEST | code::COA_REQUEST)
                && sign::verify_signed_request(*packet, &self.secret).is_ok()
        });
        let Some(packet) = packet else {
            self.refused += 1;
            return (None, None);
        };
        let (id, authenticator) = (packet.id(), packet.authenticator());
        let same = |of: &&Answered| (of.from, of.id, of.authenticator) == (from, id, authenticator);
        if let Some(before) = self.answered.iter().find(same) {
            return (Some(before.answer.clone()), None);
        }
        let decided = match self.check_time(packet, wall_s) {
            // §3.3: a stale request is dropped silently, as one that is not authentic.
            Err(None) => {
                self.refused += 1;
                return (None, None);
            }
            Err(Some(cause)) => Err(cause),
            Ok(()) => decide(packet, sessions, &self.nas_identifier),
        };
        let answer = self.answer(packet, decided.as_ref().err().copied());
        if self.answered.len() == RADIUS_ANSWERED_MAX {
            self.answered.pop_front();
        }
        self.answered.push_back(Answered { from, id, authenticator, answer: answer.clone() });
        (Some(answer), decided.ok())
    }

    fn check_time(&self, packet: Packet<'_>, wall_s: u64) -> Result<(), Option<u32>> {
        match packet.number(kind::EVENT_TIMESTAMP) {
            Some(at) if u64::from(at).abs_diff(wall_s) <= CLOCK_SKEW_S => Ok(()),
            Some(_) => Err(None),
            None if self.needs_timestamp => Err(Some(error::MISSING_ATTRIBUTE)),
            None => Ok(()),
        }
    }

    fn answer(&self, packet: Packet<'_>, cause: Option<u32>) -> Box<[u8]> {
        let code = match (packet.code(), cause) {
            (code::DISCONNECT_REQUEST, None) => code::DISCONNECT_ACK,
            (code::DISCONNECT_REQUEST, Some(_)) => code::DISCONNECT_NAK,
            (_, None) => code::COA_ACK,
            (_, Some(_)) => code::COA_NAK,
        };
        let mut attributes = Attributes::new();
        if let Some(cause) = cause {
            let _ = attributes.push_number(kind::ERROR_CAUSE, cause);
        }
        // Echoed for the proxies on the way (RFC 2865 §5.33); what came in a packet has room in one.
        for state in packet.values(kind::PROXY_STATE) {
            let _ = attributes.push(kind::PROXY_STATE, state);
        }
        sign::answer(code, packet.id(), &packet.authenticator(), &attributes, &self.secret).into()
    }
}

/// What an authentic request asks for, or the Error-Cause why not.
fn decide(packet: Packet<'_>, sessions: &Sessions, nas_identifier: &str) -> Result<Change, u32> {
    let disconnect = packet.code() == code::DISCONNECT_REQUEST;
    for attribute in packet.attributes() {
        match attribute.kind {
            kind::NAS_IDENTIFIER if attribute.value != nas_identifier.as_bytes() => {
                return Err(error::NAS_IDENTIFICATION_MISMATCH);
            }
            // §3.2: Authorize Only, which would take us back to the server.
            kind::SERVICE_TYPE => return Err(error::UNSUPPORTED_SERVICE),
            kind::SESSION_TIMEOUT | kind::ACCT_INTERIM_INTERVAL if disconnect => {
                return Err(error::INVALID_REQUEST);
            }
            kind::SESSION_TIMEOUT | kind::ACCT_INTERIM_INTERVAL if attribute.value.len() != 4 => {
                return Err(error::INVALID_ATTRIBUTE_VALUE);
            }
            known if is_known(known) => {}
            // §3: what cannot be carried out is refused as a whole.
            _ => return Err(error::UNSUPPORTED_ATTRIBUTE),
        }
    }
    let found = find(packet, sessions)?;
    if disconnect {
        return Ok(Change::Disconnect(found));
    }
    let seconds = |kind| packet.number(kind).map(|seconds| Duration::from_secs(seconds.into()));
    let (timeout, interim) = (seconds(kind::SESSION_TIMEOUT), seconds(kind::ACCT_INTERIM_INTERVAL));
    if timeout.is_none() && interim.is_none() {
        return Err(error::MISSING_ATTRIBUTE);
    }
    Ok(Change::Limit { sessions: found, timeout, interim })
}

/// Attributes that name the gateway or a session, or say nothing that must be carried out.
fn is_known(kind: u8) -> bool {
    matches!(
        kind,
        kind::USER_NAME
            | kind::NAS_IDENTIFIER
            | kind::NAS_IP_ADDRESS
            | kind::NAS_IPV6_ADDRESS
            | kind::FRAMED_IP_ADDRESS
            | kind::FRAMED_IPV6_ADDRESS
            | kind::ACCT_SESSION_ID
            | kind::SESSION_TIMEOUT
            | kind::ACCT_INTERIM_INTERVAL
            | kind::EVENT_TIMESTAMP
            | kind::MESSAGE_AUTHENTICATOR
            | kind::PROXY_STATE
            | kind::REPLY_MESSAGE
            | kind::ACCT_TERMINATE_CAUSE
    )
}

/// The sessions that all names in a request fit (§3).
fn find(packet: Packet<'_>, sessions: &Sessions) -> Result<Vec<SessionId>, u32> {
    let mut found: Option<Vec<SessionId>> = None;
    for attribute in packet.attributes() {
        let named: Vec<SessionId> = match attribute.kind {
            kind::ACCT_SESSION_ID => sessions.by_accounting_id(attribute.value).into_iter().collect(),
            kind::USER_NAME => sessions.by_name(attribute.value).to_vec(),
            kind::FRAMED_IP_ADDRESS | kind::FRAMED_IPV6_ADDRESS => {
                addr(attribute.value).and_then(|addr| sessions.by_addr(addr)).into_iter().collect()
            }
            _ => continue,
        };
        found = Some(match found {
            None => named,
            Some(found) => found.into_iter().filter(|session| named.contains(session)).collect(),
        });
    }
    let found = found.ok_or(error::MISSING_ATTRIBUTE)?;
    if found.is_empty() { Err(error::SESSION_CONTEXT_NOT_FOUND) } else { Ok(found) }
}

fn addr(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => <[u8; 4]>::try_from(value).ok().map(|octets| Ipv4Addr::from(octets).into()),
        16 => <[u8; 16]>::try_from(value).ok().map(|octets| Ipv6Addr::from(octets).into()),
        _ => None,
    }
}

/// For the fuzz target: reads any packet.
pub fn fuzz(packet: Packet<'_>) {
    let _ = sign::verify_signed_request(packet, &Secret::new(b"secret"));
    assert!(decide(packet, &Sessions::new(), "gw").is_err(), "there is no session");
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::answer::Granted;
    use super::super::tests::attached;
    use super::*;

    const NOW_S: u64 = 1_800_000_000;

    struct Rig {
        dynamic: Dynamic,
        sessions: Sessions,
    }

    fn rig(needs_timestamp: bool) -> Rig {
        let mut sessions = Sessions::new();
        for (attempt, session, addr) in [(1, 7, "10.70.0.1"), (2, 8, "10.70.0.2")] {
            let attached = attached(attempt, session, addr);
            let name = b"alice"[..].into();
            sessions.insert(Instant::now(), &attached, name, &Granted::default(), "gw.test");
        }
        let clients = vec!["192.0.2.9".parse().expect("an address")];
        Rig { dynamic: Dynamic::new(Secret::new(b"s3cret"), clients, needs_timestamp, "gw.test"), sessions }
    }

    fn request(code: u8, id: u8, with: &[(u8, &[u8])]) -> Vec<u8> {
        let mut attributes = Attributes::new();
        for (kind, value) in with {
            attributes.push(*kind, value).expect("room");
        }
        sign::signed_request(code, id, &attributes, &Secret::new(b"s3cret")).0
    }

    impl Rig {
        /// Code and Error-Cause of the answer, and what is to be done.
        fn ask(&mut self, octets: &[u8]) -> (Option<(u8, Option<u32>)>, Option<Change>) {
            let from = "192.0.2.9:40000".parse().expect("an address");
            let (answer, change) = self.dynamic.handle(from, octets, &self.sessions, NOW_S);
            let answer = answer.map(|answer| {
                let asked = Packet::parse(octets).expect("a packet").authenticator();
                let packet = Packet::parse(&answer).expect("a packet");
                sign::verify_answer(packet, &asked, true, &Secret::new(b"s3cret")).expect("authentic");
                (packet.code(), packet.number(kind::ERROR_CAUSE))
            });
            (answer, change)
        }
    }

    fn stamp() -> [u8; 4] {
        (NOW_S as u32).to_be_bytes()
    }

    #[test]
    fn r5176_2_1_a_disconnect_ends_the_sessions_that_all_names_fit() {
        let mut rig = rig(true);
        let id = rig.sessions.accounting_id(SessionId(8));
        let stamp = stamp();
        let time = (kind::EVENT_TIMESTAMP, &stamp[..]);
        let ends = |sessions: &[u64]| {
            let sessions = sessions.iter().map(|id| SessionId(*id)).collect();
            (Some((code::DISCONNECT_ACK, None)), Some(Change::Disconnect(sessions)))
        };
        let none = (Some((code::DISCONNECT_NAK, Some(503))), None);
        let cases = [
            (vec![(kind::ACCT_SESSION_ID, id.as_bytes())], ends(&[8])),
            (vec![(kind::USER_NAME, b"alice")], ends(&[7, 8])),
            (vec![(kind::USER_NAME, b"alice"), (kind::FRAMED_IP_ADDRESS, &[10, 70, 0, 1])], ends(&[7])),
            (
                vec![(kind::ACCT_SESSION_ID, id.as_bytes()), (kind::FRAMED_IP_ADDRESS, &[10, 70, 0, 1])],
                none.clone(),
            ),
            (vec![(kind::USER_NAME, b"bob")], none.clone()),
            (vec![(kind::FRAMED_IP_ADDRESS, &[10, 70, 0])], none),
            (vec![], (Some((code::DISCONNECT_NAK, Some(402))), None)),
            (
                vec![(kind::USER_NAME, b"alice"), (kind::NAS_IDENTIFIER, b"other")],
                (Some((code::DISCONNECT_NAK, Some(403))), None),
            ),
            (
                vec![(kind::USER_NAME, b"alice"), (kind::SERVICE_TYPE, &[0, 0, 0, 17])],
                (Some((code::DISCONNECT_NAK, Some(405))), None),
            ),
        ];
        for (n, (mut attributes, expected)) in cases.into_iter().enumerate() {
            attributes.push(time);
            let octets = request(code::DISCONNECT_REQUEST, n as u8, &attributes);
            assert_eq!(rig.ask(&octets), expected, "case {n}");
        }
    }

    #[test]
    fn r5176_2_2_a_change_sets_times_and_refuses_what_it_cannot_do() {
        let mut rig = rig(true);
        let stamp = stamp();
        let base = [(kind::EVENT_TIMESTAMP, &stamp[..]), (kind::FRAMED_IP_ADDRESS, &[10, 70, 0, 1])];
        let mut ask =
            |id, more: &[(u8, &[u8])]| rig.ask(&request(code::COA_REQUEST, id, &[&base[..], more].concat()));
        let (answer, change) = ask(1, &[(kind::SESSION_TIMEOUT, &[0, 0, 0, 60])]);
        assert_eq!(answer, Some((code::COA_ACK, None)));
        let sessions = vec![SessionId(7)];
        assert_eq!(
            change,
            Some(Change::Limit { sessions, timeout: Some(Duration::from_secs(60)), interim: None })
        );
        assert_eq!(ask(2, &[]).0, Some((code::COA_NAK, Some(402))));
        assert_eq!(ask(3, &[(kind::SESSION_TIMEOUT, &[60])]).0, Some((code::COA_NAK, Some(407))));
        // Filter-Id.
        assert_eq!(ask(4, &[(11, b"gold")]).0, Some((code::COA_NAK, Some(401))));
    }

    #[test]
    fn r5176_3_3_a_request_is_carried_out_once_and_an_old_one_never() {
        let mut rig = rig(true);
        let (stamp, stale) = (stamp(), (NOW_S as u32 - 301).to_be_bytes());
        let name = (kind::USER_NAME, &b"alice"[..]);
        let fresh = request(code::DISCONNECT_REQUEST, 1, &[name, (kind::EVENT_TIMESTAMP, &stamp)]);
        let (first, done) = rig.ask(&fresh);
        assert!(done.is_some());
        assert_eq!(rig.ask(&fresh), (first, None));
        let old = request(code::DISCONNECT_REQUEST, 1, &[name, (kind::EVENT_TIMESTAMP, &stale)]);
        assert_eq!(rig.ask(&old), (None, None));
        let timeless = request(code::DISCONNECT_REQUEST, 1, &[name]);
        assert_eq!(rig.ask(&timeless), (Some((code::DISCONNECT_NAK, Some(402))), None));
        assert!(super::tests::rig(false).ask(&timeless).1.is_some());
        for id in 0..=255 {
            rig.ask(&request(code::DISCONNECT_REQUEST, id, &[(kind::EVENT_TIMESTAMP, &stamp)]));
        }
        assert_eq!(rig.dynamic.answered.len(), RADIUS_ANSWERED_MAX);
    }

    #[test]
    fn r5176_2_3_what_is_not_authentic_is_not_answered() {
        let mut rig = rig(false);
        let name = (kind::USER_NAME, &b"alice"[..]);
        let good = request(code::DISCONNECT_REQUEST, 1, &[name]);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(rig.ask(&bad), (None, None), "octet {at}");
        }
        let wrong_mac =
            request(code::DISCONNECT_REQUEST, 1, &[name, (kind::MESSAGE_AUTHENTICATOR, &[0; 16])]);
        assert_eq!(rig.ask(&wrong_mac), (None, None));
        let stranger = "192.0.2.8:40000".parse().expect("an address");
        assert_eq!(rig.dynamic.handle(stranger, &good, &rig.sessions, NOW_S), (None, None));
        assert_eq!(rig.dynamic.refused, good.len() as u64 + 2);
        assert!(rig.ask(&good).1.is_some());
    }
}
