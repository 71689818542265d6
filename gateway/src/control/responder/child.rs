//! Making a Child SA: the part that IKE_AUTH and CREATE_CHILD_SA have in common.

use std::time::Instant;

use codec::crypto::{
    Additional, ChosenEsp, GroupPolicy, KeError, KeyExchange, SaNonces, SharedSecret, child_keymat_with,
    select_esp, select_esp_several,
};
use codec::esp::{EspCipher, EspInteg, EspKeys, EspSpi, EspSuite};
use codec::ike::payload::{KeView, SaView, TrafficSelector, TsView};
use codec::ike::{KeGroup, MessageBuilder, NotifyType, PayloadType};

use super::sa::{ChildSa, Selectors, Session, hard};
use super::{Arrived, Core, EspKeyLog, Event, KeyLog, ts};
use crate::types::{ChildInstall, Transport, TsRange};

/// What the peer asks for.
pub(super) struct ChildRequest<'a> {
    pub(super) sa: SaView<'a>,
    pub(super) ts_i: TsView<'a>,
    pub(super) ts_r: TsView<'a>,
    pub(super) nonce_i: &'a [u8],
    pub(super) nonce_r: &'a [u8],
    /// The peer's KE payload, if any; `None` in IKE_AUTH, where groups are ignored (RFC 7296 §1.2).
    pub(super) ke: Option<Option<KeView<'a>>>,
    /// Index of the child it replaces.
    pub(super) replaces: Option<usize>,
}

/// Why there is no Child SA. The IKE SA stays, except after [`ChildError::BadKeValue`].
pub(super) enum ChildError {
    /// NO_PROPOSAL_CHOSEN.
    NoProposal,
    /// INVALID_KE_PAYLOAD with the group that is wanted.
    InvalidKe(KeGroup),
    /// TS_UNACCEPTABLE.
    TsUnacceptable,
    /// A public value that its group forbids.
    BadKeValue,
}

/// What the response says of a Child SA that was made.
pub(super) struct MadeChild {
    chosen: ChosenEsp,
    spi_in: EspSpi,
    /// What waits for additional key exchanges, and the secret of the first; nothing is installed then.
    pub(super) begun: Option<(Box<BegunChild>, SharedSecret)>,
    ke: Option<(KeGroup, Vec<u8>)>,
    ts_i: Vec<TrafficSelector>,
    ts_r: Vec<TrafficSelector>,
}

/// A Child SA that the peer asked for, without its keys.
pub(super) struct BegunChild {
    pub(super) spi_in: EspSpi,
    spi_out: EspSpi,
    suite: EspSuite,
    pub(super) additional: Additional,
    selectors: Selectors,
    /// Our inbound SPI of the child it replaces.
    pub(super) replaces: Option<EspSpi>,
}

/// A Child SA ready to be installed.
pub(super) struct NewChild {
    pub(super) spi_in: EspSpi,
    pub(super) spi_out: EspSpi,
    pub(super) suite: EspSuite,
    /// Rekeys that led to it.
    pub(super) rekeys: u32,
    pub(super) keys_in: EspKeys,
    pub(super) keys_out: EspKeys,
    pub(super) selectors: Selectors,
    /// The downlink stays with this one until the peer uses the new one, or it is deleted.
    pub(super) standby_for: Option<EspSpi>,
}

impl Core {
    /// Negotiates a Child SA, derives its keys and queues its installation.
    pub(super) fn make_child(
        &mut self,
        at: &Arrived,
        session: &mut Session,
        request: &ChildRequest<'_>,
    ) -> Result<MadeChild, ChildError> {
        let profile = session.profile.clone();
        let any: Vec<KeGroup> = profile.ike.iter().flat_map(|ike| ike.groups()).copied().collect();
        let policy = match &request.ke {
            None => GroupPolicy::Ignore,
            Some(ke) => GroupPolicy::Negotiate { any: &any, ke: ke.map(|ke| ke.group) },
        };
        // RFC 9370 §2.2.4: with a peer that can run further key exchanges, and not in IKE_AUTH.
        let several = request.ke.is_some() && session.intermediate;
        let select = if several { select_esp_several } else { select_esp };
        let chosen = select(&profile.esp, &request.sa, policy).ok_or(ChildError::NoProposal)?;
        let peer_ke = request.ke.flatten();
        if let Some(group) = chosen.group
            && peer_ke.map(|ke| ke.group) != Some(group)
        {
            return Err(ChildError::InvalidKe(group));
        }
        let max = self.config.limits.selectors_max;
        let own: Vec<TsRange> = session.inner.iter().map(|addr| ts::host(*addr)).collect();
        let remote_ts = ts::narrow(&ts::ranges(&request.ts_i), &own, max);
        let local_ts = ts::narrow(&ts::ranges(&request.ts_r), &profile.local_ts, max);
        if remote_ts.is_empty() || local_ts.is_empty() {
            return Err(ChildError::TsUnacceptable);
        }
        let (ke, shared) = match (chosen.group, peer_ke) {
            (Some(group), Some(peer)) => {
                let (public, shared) =
                    KeyExchange::answer(group, peer.data, &mut *self.random).map_err(ke_error)?;
                (Some((group, public)), Some(shared))
            }
            _ => (None, None),
        };
        let spi_in = self.new_esp_spi(session.worker);
        let ts_i = remote_ts.iter().map(ts::selector).collect();
        let ts_r = local_ts.iter().map(ts::selector).collect();
        let old = request.replaces.and_then(|index| session.children.get(index));
        let child = BegunChild {
            spi_in,
            spi_out: chosen.peer_spi,
            suite: chosen.suite,
            additional: chosen.additional,
            selectors: Selectors { local: local_ts, remote: remote_ts },
            replaces: old.map(|old| old.spi_in),
        };
        let begun = match shared {
            Some(shared) if chosen.additional != Additional::NONE => Some((Box::new(child), shared)),
            shared => {
                let nonces = SaNonces { initiator: request.nonce_i, responder: request.nonce_r };
                self.complete_child(at, session, &child, nonces, (shared.as_ref(), &[]));
                None
            }
        };
        Ok(MadeChild { chosen, spi_in, begun, ke, ts_i, ts_r })
    }

    /// Derives the keys of a Child SA and queues its installation.
    pub(super) fn complete_child(
        &mut self,
        at: &Arrived,
        session: &mut Session,
        child: &BegunChild,
        nonces: SaNonces<'_>,
        secrets: (Option<&SharedSecret>, &[SharedSecret]),
    ) {
        let ike = &session.ike;
        let keymat = child_keymat_with(ike.suite.prf, &ike.sk_d, secrets, nonces, &child.suite);
        self.log_child_keys(at, (child.spi_in, &keymat.initiator), (child.spi_out, &keymat.responder));
        let replaced = child.replaces.and_then(|spi| session.child_mut(spi)).map(|old| {
            // The peer deletes what it replaced (RFC 7296 §2.8); if it does not, we do.
            old.replace(at.now + self.config.limits.replaced_timeout);
            (old.spi_in, old.rekeys + 1)
        });
        let new = NewChild {
            spi_in: child.spi_in,
            spi_out: child.spi_out,
            suite: child.suite,
            rekeys: replaced.map_or(0, |(_, rekeys)| rekeys),
            keys_in: keymat.initiator,
            keys_out: keymat.responder,
            selectors: child.selectors.clone(),
            standby_for: replaced.map(|(spi, _)| spi),
        };
        self.install(at.now, session, new);
    }

    /// Adds a child to the session and queues its installation.
    pub(super) fn install(&mut self, now: Instant, session: &mut Session, new: NewChild) {
        let sha1 = new.suite.integ == Some(EspInteg::HmacSha1_96);
        self.counters.exchanges.legacy_sha1_esp += u64::from(sha1);
        let triple_des = new.suite.cipher == EspCipher::TripleDesCbc;
        self.counters.exchanges.legacy_3des_esp += u64::from(triple_des);
        let full = session.full_selectors();
        let child = ChildSa {
            spi_in: new.spi_in,
            spi_out: new.spi_out,
            suite: new.suite,
            rekeys: new.rekeys,
            selectors: (new.selectors != full).then(|| Box::new(new.selectors.clone())),
            rekey_at: self.rekey_time(now, session.profile.rekey_child),
            retries: 0,
            expires: now + hard(session.profile.rekey_child),
            replaced: false,
            deleting: false,
        };
        let routed_now = !std::mem::replace(&mut session.routed, true);
        let inner = if routed_now { session.inner.to_vec() } else { Vec::new() };
        self.events.push_back(Event::Install(Box::new(ChildInstall {
            session: session.id,
            worker: session.worker,
            network: session.profile.network,
            spi_in: new.spi_in,
            spi_out: new.spi_out,
            suite: new.suite,
            keys_in: new.keys_in,
            keys_out: new.keys_out,
            local_ts: new.selectors.local,
            remote_ts: new.selectors.remote,
            inner,
            replaces: new.standby_for,
            replay_window: session.profile.replay_window,
        })));
        if routed_now && session.path.transport == Transport::Udp {
            // The packet path knows the session from here on; without this it would not know where it is.
            self.announce(session);
        }
        // Nearly every session has one: no room for four.
        session.children.reserve_exact(1);
        session.children.push(child);
    }
}

impl Core {
    /// Writes why there is no Child SA, and counts it.
    pub(super) fn refuse_child(&mut self, error: &ChildError, builder: &mut MessageBuilder) {
        let drops = &mut self.counters.drops;
        match error {
            ChildError::NoProposal => {
                drops.child_no_proposal += 1;
                builder.notify(NotifyType::NO_PROPOSAL_CHOSEN, &[]);
            }
            ChildError::InvalidKe(group) => {
                drops.child_invalid_ke += 1;
                builder.notify(NotifyType::INVALID_KE_PAYLOAD, &group.0.to_be_bytes());
            }
            ChildError::TsUnacceptable => {
                drops.child_ts_unacceptable += 1;
                builder.notify(NotifyType::TS_UNACCEPTABLE, &[]);
            }
            ChildError::BadKeValue => {
                drops.bad_ke_value += 1;
                builder.notify(NotifyType::INVALID_SYNTAX, &[]);
            }
        }
    }

    pub(super) fn log_child_keys(
        &mut self,
        at: &Arrived,
        uplink: (EspSpi, &EspKeys),
        downlink: (EspSpi, &EspKeys),
    ) {
        if !self.config.keylog {
            return;
        }
        for ((spi, keys), uplink) in [(uplink, true), (downlink, false)] {
            self.events.push_back(Event::KeyLog(KeyLog::Esp(Box::new(EspKeyLog {
                spi,
                uplink,
                path: at.path,
                suite: keys.suite(),
                encr: keys.encr().to_vec().into(),
                integ: keys.integ().to_vec().into(),
            }))));
        }
    }
}

impl ChildSa {
    /// Notes that a successor was made: it goes by `at` at the latest.
    pub(super) fn replace(&mut self, at: Instant) {
        self.replaced = true;
        self.expires = self.expires.min(at);
    }
}

impl MadeChild {
    /// Our SPI of the pair.
    pub(super) fn spi_in(&self) -> EspSpi {
        self.spi_in
    }

    /// Writes the payloads of the answer: SAr, then the nonce and KE of CREATE_CHILD_SA, then selectors.
    pub(super) fn write(&self, builder: &mut MessageBuilder, nonce: Option<&[u8]>) {
        builder.payload(PayloadType::SA, |out| self.chosen.encode(self.spi_in, out));
        if let Some(nonce) = nonce {
            builder.nonce(nonce);
        }
        if let Some((group, data)) = &self.ke {
            builder.ke(&KeView { group: *group, data });
        }
        builder.ts_i(&self.ts_i).ts_r(&self.ts_r);
    }
}

fn ke_error(_: KeError) -> ChildError {
    ChildError::BadKeValue
}
