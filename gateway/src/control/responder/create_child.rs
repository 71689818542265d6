//! CREATE_CHILD_SA exchanges of the peer: additional Child SAs and rekeys (RFC 7296 §1.3, §2.8, §2.25).

use codec::ike::payload::NotifyView;
use codec::ike::{MessageBuilder, NotifyType, ProtocolId};

use super::child::{ChildError, ChildRequest};
use super::exchange::After;
use super::followup::{Begun, Successor};
use super::inner::Payloads;
use super::sa::{Session, Which};
use super::window::OwnRequest;
use super::{Arrived, Core};

impl Core {
    pub(super) fn on_create_child(
        &mut self,
        at: &Arrived,
        session: &mut Session,
        which: Which,
        payloads: &Payloads<'_>,
        builder: &mut MessageBuilder,
    ) -> After {
        // RFC 7296 §2.25.2: an IKE SA being closed, or one already replaced, makes no further SAs.
        if which != Which::Current || session.closing() {
            return self.refuse_for_now(builder);
        }
        let Some(sa) = payloads.sa else { return self.refuse_syntax(builder) };
        // RFC 9370 §2.2.4: nor is it replaced twice at once.
        if self.is_following_up(at.now, session) {
            return self.refuse_for_now(builder);
        }
        let ours = session.ike.window.outstanding().map(|request| request.kind);
        if sa.proposals().next().is_some_and(|proposal| proposal.protocol == ProtocolId::IKE) {
            // RFC 7296 §2.25.2: nor is one replaced whose Child SAs we are about to change.
            let busy = ours.is_some_and(OwnRequest::is_about_a_child)
                || session.rekey_is_open()
                || session.is_following_up();
            return match busy {
                true => self.refuse_for_now(builder),
                false => self.on_ike_rekey(at, session, &sa, payloads, builder),
            };
        }
        if ours == Some(OwnRequest::RekeyIke) || session.is_following_up() {
            return self.refuse_for_now(builder);
        }
        let rekeyed = match payloads.notify(NotifyType::REKEY_SA) {
            None => None,
            Some(notify) => match self.find_rekeyed(session, notify, builder) {
                Ok(index) => Some(index),
                Err(after) => return after,
            },
        };
        let limits = &self.config.limits;
        let room = match rekeyed {
            None => session.children.iter().filter(|child| !child.replaced).count() < limits.children_max,
            Some(_) => session.children.len() < 2 * limits.children_max,
        };
        if !room {
            self.counters.drops.child_limit += 1;
            builder.notify(NotifyType::NO_ADDITIONAL_SAS, &[]);
            return After::Stay;
        }
        self.create_child(at, session, rekeyed, payloads, builder)
    }

    /// The child that REKEY_SA names by the SPI its sender expects in inbound packets (RFC 7296 §1.3.3).
    fn find_rekeyed(
        &mut self,
        session: &Session,
        notify: &NotifyView<'_>,
        builder: &mut MessageBuilder,
    ) -> Result<usize, After> {
        let Some(spi) = notify.esp_spi() else { return Err(self.refuse_syntax(builder)) };
        let Some(index) = session.child_by_peer_spi(spi) else {
            self.counters.drops.child_not_found += 1;
            builder.notify_view(&NotifyView {
                protocol: ProtocolId::ESP,
                spi: &spi.0.to_be_bytes(),
                kind: NotifyType::CHILD_SA_NOT_FOUND,
                data: &[],
            });
            return Err(After::Stay);
        };
        // RFC 7296 §2.25.1: a Child SA being closed, or one that has its successor, is not rekeyed.
        let child = &session.children[index];
        if child.deleting || child.replaced {
            return Err(self.refuse_for_now(builder));
        }
        Ok(index)
    }

    fn create_child(
        &mut self,
        at: &Arrived,
        session: &mut Session,
        rekeyed: Option<usize>,
        payloads: &Payloads<'_>,
        builder: &mut MessageBuilder,
    ) -> After {
        let (Some(sa), Some(nonce), Some(ts_i), Some(ts_r)) =
            (payloads.sa, payloads.nonce, payloads.ts_i, payloads.ts_r)
        else {
            return self.refuse_syntax(builder);
        };
        let nonce_r = self.new_nonce();
        let request = ChildRequest {
            sa,
            ts_i,
            ts_r,
            nonce_i: nonce.data,
            nonce_r: &nonce_r,
            ke: Some(payloads.ke),
            replaces: rekeyed,
        };
        match self.make_child(at, session, &request) {
            Ok(mut child) if child.begun.is_some() => {
                let Some((begun, shared)) = child.begun.take() else { return After::Stay };
                // A rekey in several exchanges cannot cross one of ours: which one stays would be known too late.
                let ours = session.ike.window.outstanding().map(|request| request.kind);
                if begun.replaces.is_some_and(|spi| ours == Some(OwnRequest::RekeyChild(spi))) {
                    self.esp_spis.remove(&begun.spi_in);
                    return self.refuse_for_now(builder);
                }
                child.write(builder, Some(&nonce_r));
                let pending = begun.additional.methods().collect();
                let successor = Successor::Child(begun);
                let begun = Begun { successor, nonce_i: nonce.data.to_vec(), nonce_r, shared };
                self.begin_followup(at, session, begun, pending, builder);
                After::Stay
            }
            Ok(child) => {
                if let Some(index) = rekeyed {
                    let spi_in = session.children[index].spi_in;
                    self.note_child_rival(session, spi_in, &child, nonce.data.min(&nonce_r[..]));
                }
                self.count_child(rekeyed.is_some());
                child.write(builder, Some(&nonce_r));
                After::Installed
            }
            // RFC 6989 §2.5: a forbidden value inside an authentic message ends the IKE SA.
            Err(ChildError::BadKeValue) => {
                self.counters.drops.bad_ke_value += 1;
                self.refuse_syntax(builder)
            }
            Err(error) => {
                self.refuse_child(&error, builder);
                After::Stay
            }
        }
    }

    /// Counts a Child SA that the peer made with CREATE_CHILD_SA.
    pub(super) fn count_child(&mut self, rekeyed: bool) {
        let exchanges = &mut self.counters.exchanges;
        *(if rekeyed { &mut exchanges.children_rekeyed } else { &mut exchanges.children_created }) += 1;
    }

    /// Answers TEMPORARY_FAILURE.
    pub(super) fn refuse_for_now(&mut self, builder: &mut MessageBuilder) -> After {
        self.counters.drops.temporary_failure += 1;
        builder.notify(NotifyType::TEMPORARY_FAILURE, &[]);
        After::Stay
    }
}
