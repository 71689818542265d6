//! Requests that the gateway starts: liveness checks and Deletes (RFC 7296 §1.4).

use std::time::Instant;

use codec::ike::ExchangeType;

use super::exchange::Outcome;
use super::inner::Payloads;
use super::sa::Session;
use super::window::{Outstanding, OwnRequest};
use super::{Core, Event};

impl Core {
    /// Starts the most urgent waiting request, if none is open. Without a connection it is held until one
    /// is bound, while its deadline runs.
    pub(super) fn start_own_request(&mut self, now: Instant, session: &mut Session) {
        let Some(message_id) = session.ike.window.next_request() else { return };
        let Some(kind) = next_kind(session) else { return };
        let built =
            self.seal_request(
                &mut session.ike,
                ExchangeType::INFORMATIONAL,
                message_id,
                |builder| match kind {
                    OwnRequest::Liveness => {}
                    OwnRequest::DeleteIke => {
                        builder.delete_ike();
                    }
                    OwnRequest::DeleteChild(spi) => {
                        builder.delete_esp(&[spi]);
                    }
                },
            );
        let limits = &self.config.limits;
        let patience = match kind {
            OwnRequest::DeleteIke => limits.delete_timeout,
            OwnRequest::Liveness | OwnRequest::DeleteChild(_) => limits.request_timeout,
        };
        session.ike.window.asked(Outstanding {
            message_id,
            message: built.clone(),
            kind,
            deadline: now + patience,
        });
        self.counters.exchanges.requests_sent += 1;
        if let Some(conn) = session.conn {
            self.transmit(conn, &session.path, built);
        }
    }

    /// Draws the consequences of an authentic response to `request`.
    pub(super) fn on_own_response(
        &mut self,
        session: &mut Session,
        request: &Outstanding,
        payloads: &Payloads<'_>,
    ) -> Outcome {
        // RFC 7296 §2.21.3: a peer that answers INVALID_SYNTAX has dropped the IKE SA.
        if payloads.notify(codec::ike::NotifyType::INVALID_SYNTAX).is_some() {
            return Outcome::End;
        }
        match request.kind {
            OwnRequest::Liveness => Outcome::Good,
            OwnRequest::DeleteIke => Outcome::End,
            OwnRequest::DeleteChild(spi) => {
                if let Some(index) = session.children.iter().position(|child| child.spi_in == spi) {
                    self.remove_child(session, index);
                }
                Outcome::Good
            }
        }
    }

    /// Removes a Child SA from the session and from the packet path.
    pub(super) fn remove_child(&mut self, session: &mut Session, index: usize) {
        let child = session.children.swap_remove(index);
        self.esp_spis.remove(&child.spi_in);
        let (session, worker) = (session.id, session.worker);
        self.events.push_back(Event::RemoveChild { session, worker, spi_in: child.spi_in });
    }
}

/// The most urgent waiting request; takes it off the list.
fn next_kind(session: &mut Session) -> Option<OwnRequest> {
    if std::mem::take(&mut session.wanted.delete_ike) {
        return Some(OwnRequest::DeleteIke);
    }
    if let Some(child) = session.children.iter().find(|child| child.deleting) {
        return Some(OwnRequest::DeleteChild(child.spi_in));
    }
    std::mem::take(&mut session.wanted.liveness).then_some(OwnRequest::Liveness)
}
