//! Rekeying of the IKE SA by the peer (RFC 7296 §1.3.2, §2.8, §2.18).

use std::time::Instant;

use codec::crypto::{Additional, IkeKeys, IkeSuite, KeyExchange, SaNonces, select_ike, select_ike_plain};
use codec::ike::payload::{KeView, SaView};
use codec::ike::{IkeSpi, KeGroup, MessageBuilder, MessageId, NotifyType, PayloadType};

use super::exchange::After;
use super::followup::{Begun, Successor};
use super::inner::Payloads;
use super::sa::{DerivedKeys, IkeSa, Session};
use super::window::{OwnRequest, Window};
use super::{Arrived, Core};

impl Core {
    pub(super) fn on_ike_rekey(
        &mut self,
        at: &Arrived,
        session: &mut Session,
        sa: &SaView<'_>,
        payloads: &Payloads<'_>,
        builder: &mut MessageBuilder,
    ) -> After {
        let Some(nonce) = payloads.nonce else { return self.refuse_syntax(builder) };
        // RFC 7296 §1.3.2: the key exchange is not optional here, but asked for rather than punished.
        let sent = payloads.ke.map_or(KeGroup::NONE, |ke| ke.group);
        let select = if session.intermediate { select_ike } else { select_ike_plain };
        let Some(chosen) = select(&session.profile.ike, sa, sent) else {
            self.counters.drops.ike_no_proposal += 1;
            builder.notify(NotifyType::NO_PROPOSAL_CHOSEN, &[]);
            return After::Stay;
        };
        let Some(spi_i) = chosen.peer_spi.filter(|spi| !spi.is_zero()) else {
            return self.refuse_syntax(builder);
        };
        let suite = chosen.suite;
        let Some(peer) = payloads.ke.filter(|ke| ke.group == suite.group) else {
            self.counters.drops.ike_invalid_ke += 1;
            builder.notify(NotifyType::INVALID_KE_PAYLOAD, &suite.group.0.to_be_bytes());
            return After::Stay;
        };
        // A rekey in several exchanges cannot cross one of ours: which one stays would be known too late.
        let ours = session.ike.window.outstanding().map(|request| request.kind);
        let several = chosen.additional != Additional::NONE;
        if several && ours == Some(OwnRequest::RekeyIke) {
            return self.refuse_for_now(builder);
        }
        let Ok((public, shared)) = KeyExchange::answer(suite.group, peer.data, &mut *self.random) else {
            self.counters.drops.bad_ke_value += 1;
            return self.refuse_syntax(builder);
        };
        let nonce_r = self.new_nonce();
        let spi_r = self.new_ike_spi();
        builder.payload(PayloadType::SA, |out| chosen.encode(&spi_r.0, out));
        builder.nonce(&nonce_r).ke(&KeView { group: suite.group, data: &public });
        if several {
            let successor = Successor::Ike { suite, spi_i, spi_r };
            let begun = Begun { successor, nonce_i: nonce.data.to_vec(), nonce_r, shared };
            self.begin_followup(at, session, begun, chosen.additional.methods().collect(), builder);
            return After::Stay;
        }
        let nonces = SaNonces { initiator: nonce.data, responder: &nonce_r };
        let old = &session.ike;
        let keys = IkeKeys::rekey(&suite, old.suite.prf, &old.sk_d, nonces, &shared, spi_i, spi_r);
        self.log_ike_keys(spi_i, spi_r, &suite, &keys);
        self.note_ike_rival(session, spi_r, nonce.data.min(&nonce_r[..]));
        After::Rekeyed(Box::new(self.responder_sa(at.now, session, suite, keys, spi_i, spi_r)))
    }

    /// An IKE SA that the peer asked for by a rekey.
    pub(super) fn responder_sa(
        &mut self,
        now: Instant,
        session: &Session,
        suite: IkeSuite,
        keys: IkeKeys,
        spi_i: IkeSpi,
        spi_r: IkeSpi,
    ) -> IkeSa {
        self.note_legacy(&suite);
        let rekey_at = self.rekey_time(now, session.profile.rekey_ike);
        let DerivedKeys { ike, key_in, key_out } = DerivedKeys::new(keys, &suite);
        IkeSa {
            spi_i,
            spi_r,
            initiator: false,
            suite,
            sk_d: ike.sk_d,
            key_in,
            key_out,
            // RFC 7296 §2.8: Message IDs of the new IKE SA start from 0.
            window: Window::new(MessageId(0)),
            established: now,
            rekey_at,
            retries: 0,
        }
    }
}
