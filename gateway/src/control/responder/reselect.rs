//! Other P-CSCFs for phones that have a session (TS 23.380 §5.6): phones that said they can be told within the session
//! are, all others are asked to attach again.
//!
//! The request is an INFORMATIONAL with a CFG_REQUEST that carries the new addresses, in the form of RFC 7651. Whatever
//! an authentic response has in it, the phone has been told, and is counted.

use std::net::IpAddr;
use std::time::Instant;

use bytes::Bytes;
use codec::ike::{CfgAttrType, CfgType, ExchangeType, MessageBuilder, MessageId};

use super::sa::Session;
use super::{Core, Responder, config_payload};
use crate::types::SessionId;

/// What becomes of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reselection {
    /// Its phone is told.
    Told,
    /// Its phone is asked to attach again, and the session deleted.
    Reactivated,
}

impl Responder {
    /// Has a phone go to the P-CSCFs of its profile as they are now. `None` when there is no such session.
    pub fn reselect(&mut self, now: Instant, session: SessionId) -> Option<Reselection> {
        let found = self.sessions.get_mut(&session)?;
        if !found.reselects || found.closing() || self.core.p_cscf_of(found).is_empty() {
            return self.reactivate(now, session).then_some(Reselection::Reactivated);
        }
        found.wanted.p_cscf = true;
        self.core.settle(now, found);
        Some(Reselection::Told)
    }
}

impl Core {
    /// The P-CSCFs of a session's profile that it can reach from its inner addresses.
    fn p_cscf_of(&self, session: &Session) -> Box<[IpAddr]> {
        let profiles = &self.config.profiles;
        let now = profiles.iter().find(|profile| profile.name == session.profile.name);
        let told = &now.unwrap_or(&session.profile).handset.p_cscf;
        let reaches = |to: &&IpAddr| session.inner.iter().any(|from| from.is_ipv4() == to.is_ipv4());
        told.iter().filter(reaches).copied().collect()
    }

    /// The request that tells them.
    pub(super) fn tell_p_cscf(&mut self, session: &mut Session, message_id: MessageId) -> Bytes {
        session.wanted.p_cscf = false;
        let addrs = self.p_cscf_of(session);
        let exchange = ExchangeType::INFORMATIONAL;
        self.seal_request(&mut session.ike, exchange, message_id, None, |builder| tell(builder, &addrs))
    }
}

/// Writes the addresses into a request.
fn tell(builder: &mut MessageBuilder, addrs: &[IpAddr]) {
    let kind = |addr: &IpAddr| match addr {
        IpAddr::V4(_) => CfgAttrType::P_CSCF_IP4_ADDRESS,
        IpAddr::V6(_) => CfgAttrType::P_CSCF_IP6_ADDRESS,
    };
    let values: Vec<_> = addrs.iter().map(|addr| (kind(addr), config_payload::octets(*addr))).collect();
    config_payload::write(builder, CfgType::REQUEST, &values);
}
