//! INFORMATIONAL exchanges of the peer: liveness, Deletes, notifications (RFC 7296 §1.4).

use codec::esp::EspSpi;
use codec::ike::ProtocolId;

use super::Core;
use super::inner::Payloads;
use super::sa::Session;
use super::window::OwnRequest;

/// What an INFORMATIONAL request asked for.
pub(super) struct Informed {
    /// Our SPIs of the pairs deleted, for the Delete in the response.
    pub(super) deleted: Vec<EspSpi>,
    /// Whether the IKE SA of the message was deleted.
    pub(super) ike_deleted: bool,
}

impl Core {
    /// Carries out the Deletes of a request. Anything else in it needs no action: unknown notifications
    /// and unknown errors are ignored (RFC 7296 §3.10.1).
    pub(super) fn on_informational(&mut self, session: &mut Session, payloads: &Payloads<'_>) -> Informed {
        let mut informed = Informed { deleted: Vec::new(), ike_deleted: false };
        if payloads.deletes.is_empty() && payloads.notifies.is_empty() {
            self.counters.exchanges.liveness_answered += 1;
        }
        for delete in &payloads.deletes {
            informed.ike_deleted |= delete.protocol == ProtocolId::IKE;
            for spi in delete.esp_spis() {
                match session.child_by_peer_spi(spi) {
                    Some(index) => self.delete_for_peer(session, index, &mut informed.deleted),
                    None => session.note_early_delete(spi),
                }
            }
        }
        informed
    }

    fn delete_for_peer(&mut self, session: &mut Session, index: usize, deleted: &mut Vec<EspSpi>) {
        let spi_in = session.children[index].spi_in;
        let asked = session.ike.window.outstanding().map(|request| request.kind);
        // RFC 7296 §1.4.1: when Deletes for the same pair cross, the response names none.
        if asked != Some(OwnRequest::DeleteChild(spi_in)) {
            deleted.push(spi_in);
        }
        self.counters.exchanges.children_deleted += 1;
        self.remove_child(session, index);
    }
}
