//! MOBIKE, the responder's part (RFC 4555), over UDP and over TCP (RFC 9329 §7.1).
//!
//! A session with MOBIKE stays where it is until the peer says otherwise by UPDATE_SA_ADDRESSES; over TCP it also
//! follows to the connection that last delivered something fresh, as every session does. We have one address for a
//! peer, the one it reached, so what it says of further addresses of its own is read and not used.

use std::net::IpAddr;

use codec::ike::{IkeSpi, MessageBuilder, NotifyType};

use super::inner::Payloads;
use super::own_request::Destination;
use super::sa::{Session, Which};
use super::{Arrived, Core, nat};
use crate::types::{Path, Transport};

/// Octets of our COOKIE2.
const COOKIE2_LEN: usize = 16;

/// Octets that a COOKIE2 of the peer may have (RFC 4555 §4.2.5).
const COOKIE2_LENS: std::ops::RangeInclusive<usize> = 8..=64;

/// A new address of the peer that has yet to prove that the peer receives there (RFC 4555 §3.7).
pub(super) struct Candidate {
    pub(super) to: Destination,
    pub(super) cookie: [u8; COOKIE2_LEN],
    /// Whether the peer has moved on since, or was sent the cookie elsewhere: it proves nothing then.
    pub(super) void: bool,
}

impl Core {
    /// What an INFORMATIONAL request says about addresses: answers it and moves the session.
    pub(super) fn on_addresses(
        &mut self,
        at: &Arrived,
        session: &mut Session,
        which: Which,
        payloads: &Payloads<'_>,
        builder: &mut MessageBuilder,
    ) {
        // RFC 4555 §3.8: a COOKIE2 comes back as it was.
        if let Some(cookie) = payloads.notify(NotifyType::COOKIE2)
            && COOKIE2_LENS.contains(&cookie.data.len())
        {
            builder.notify(NotifyType::COOKIE2, cookie.data);
        }
        let sa = session.sa(which);
        let spis = (sa.spi_i, sa.spi_r);
        let detects = payloads.notify(NotifyType::NAT_DETECTION_SOURCE_IP).is_some();
        if session.mobike
            && is_update(payloads)
            && let Err(refusal) = self.update_addresses(at, session, spis, payloads)
        {
            builder.notify(refusal, &[]);
        }
        // RFC 4555 §3.5: NAT detection in a request has NAT detection in the response.
        if detects {
            for (kind, address) in nat::announced(&at.path) {
                builder.notify(kind, &nat::hash(spis.0, spis.1, address));
            }
        }
    }

    /// Carries out UPDATE_SA_ADDRESSES. With a window of one there is no later request that could have overtaken
    /// this one (RFC 4555 §3.5).
    fn update_addresses(
        &mut self,
        at: &Arrived,
        session: &mut Session,
        (spi_i, spi_r): (IkeSpi, IkeSpi),
        payloads: &Payloads<'_>,
    ) -> Result<(), NotifyType> {
        let udp = at.path.transport == Transport::Udp;
        // RFC 9329 §7.1: ignored over TCP, where a NAT is no matter.
        let prohibited = payloads.notify(NotifyType::NO_NATS_ALLOWED).filter(|_| udp);
        if prohibited.is_some_and(|notify| notify.data != addresses(&at.path)) {
            self.counters.drops.unexpected_nat += 1;
            return Err(NotifyType::UNEXPECTED_NAT_DETECTED);
        }
        if !session.profile.transports.contains(&at.path.transport) || !at.path.carries_esp() {
            self.counters.drops.unacceptable_addresses += 1;
            return Err(NotifyType::UNACCEPTABLE_ADDRESSES);
        }
        let [source, _] = nat::translated(&at.path, spi_i, spi_r, &payloads.notifies);
        session.behind_nat = source;
        session.by_tcp = false;
        self.counters.exchanges.addresses_updated += 1;
        let moves = session.conn != Some(at.conn) || session.path != at.path;
        // RFC 9329 §7.1: over TCP the handshake has shown that the peer receives there.
        if udp && moves && session.profile.return_routability {
            let to = Destination { conn: at.conn, path: at.path };
            // The peer reads nothing at its old address, and nothing is asked before this is answered.
            self.repeat_requests(session, to, Some(to));
            session.wanted.candidate = match session.is_challenged() {
                true => None,
                false => Some(self.candidate(to)),
            };
        } else {
            session.wanted.candidate = None;
            session.void_challenge();
            self.move_to(session, at.conn, &at.path);
            self.announce(session);
        }
        Ok(())
    }

    fn candidate(&mut self, to: Destination) -> Box<Candidate> {
        let mut cookie = [0; COOKIE2_LEN];
        self.random.fill(&mut cookie);
        Box::new(Candidate { to, cookie, void: false })
    }

    /// The peer has answered a COOKIE2 that was sent to a new address of it.
    pub(super) fn on_routable(&mut self, session: &mut Session, proved: &Candidate, payloads: &Payloads<'_>) {
        if proved.void {
            return;
        }
        let echoed = payloads.notify(NotifyType::COOKIE2).is_some_and(|notify| notify.data == proved.cookie);
        if !echoed {
            self.counters.drops.bad_answer += 1;
            return;
        }
        self.move_to(session, proved.to.conn, &proved.to.path);
    }

    /// The peer repeats its last request over TCP, and that was an UPDATE_SA_ADDRESSES it had sent over UDP in vain
    /// (RFC 9329 §7.1). A repetition proves nothing, so it moves nothing; but the next fresh message there does.
    pub(super) fn on_repeated_update(&mut self, at: &Arrived, session: &mut Session) {
        let switches = session.mobike
            && session.path.transport == Transport::Udp
            && at.path.transport.encapsulates()
            && session.last_was_update
            && !session.by_tcp;
        if switches {
            session.by_tcp = true;
            self.announce(session);
        }
    }
}

/// What NO_NATS_ALLOWED says of a message that came on `path`: source and destination address, then their ports
/// (RFC 4555 §4.2.6).
fn addresses(path: &Path) -> Vec<u8> {
    let mut octets = Vec::with_capacity(36);
    for ip in [path.remote.ip(), path.local.ip()] {
        match ip.to_canonical() {
            IpAddr::V4(ip) => octets.extend(ip.octets()),
            IpAddr::V6(ip) => octets.extend(ip.octets()),
        }
    }
    octets.extend(path.remote.port().to_be_bytes());
    octets.extend(path.local.port().to_be_bytes());
    octets
}

/// Whether a request's answer depends on the addresses it came from.
pub(super) fn is_update(payloads: &Payloads<'_>) -> bool {
    payloads.notify(NotifyType::UPDATE_SA_ADDRESSES).is_some()
}
