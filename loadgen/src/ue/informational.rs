//! What happens on an established IKE SA: answers to our requests, and the gateway's requests (RFC 7296 §1.4).

use super::sa::PeerRequest;
use super::{ChildKey, ChildSpis, EndCause, Established, Event, Exchange, Initiator, State};
use bytes::Bytes;
use codec::Random;
use codec::esp::EspSpi;
use codec::ike::payload::{Payload, PayloadIter};
use codec::ike::{ExchangeType, IkeHeader, NotifyType, ProtocolId};
use std::time::Instant;

/// What a request of the gateway asks for.
#[derive(Default)]
struct PeerDemand {
    delete_ike: bool,
    /// Outbound SPIs that the gateway no longer receives under.
    delete_children: Vec<EspSpi>,
}

impl Established {
    pub(super) fn request_probe(
        &mut self,
        now: Instant,
        random: &mut dyn Random,
    ) -> Result<(Exchange, Bytes), EndCause> {
        let message = self.sa.request(now, ExchangeType::INFORMATIONAL, random, |_| {});
        Ok((Exchange::Probe, message.ok_or(TOO_LONG)?))
    }

    pub(super) fn request_child_delete(
        &mut self,
        now: Instant,
        child: ChildKey,
        random: &mut dyn Random,
    ) -> Result<(Exchange, Bytes), EndCause> {
        let message = self.sa.request(now, ExchangeType::INFORMATIONAL, random, |builder| {
            builder.delete_esp(&[child]);
        });
        Ok((Exchange::DeleteChild(child), message.ok_or(TOO_LONG)?))
    }

    pub(super) fn request_detach(
        &mut self,
        now: Instant,
        random: &mut dyn Random,
    ) -> Result<(Exchange, Bytes), EndCause> {
        let message = self.sa.request(now, ExchangeType::INFORMATIONAL, random, |builder| {
            builder.delete_ike();
        });
        Ok((Exchange::Detach, message.ok_or(TOO_LONG)?))
    }
}

pub(super) const TOO_LONG: EndCause = EndCause::Local("INFORMATIONAL too long");

impl Initiator {
    /// Takes a message of an established SA, or of the one it has replaced.
    pub(super) fn handle_established(
        &mut self,
        now: Instant,
        header: &IkeHeader,
        message: &mut [u8],
        random: &mut dyn Random,
    ) {
        let State::Up(up) = &mut self.state else { return };
        let is_old = up.old.as_ref().is_some_and(|old| old.owns(header));
        let sa = match &up.old {
            Some(old) if is_old => &**old,
            _ if up.sa.owns(header) => &up.sa,
            _ => return,
        };
        // RFC 7296 §2.21: what does not verify has no effect.
        let Ok(opened) = sa.open(message) else {
            self.forged = true;
            return;
        };
        let payloads = opened.payloads(message);
        if is_old {
            up.heard_at = now;
            return self.handle_on_old(header, random);
        }
        self.take_established(now, header, payloads, random);
    }

    /// Takes the payloads of an authentic message of the current SA.
    pub(super) fn take_established(
        &mut self,
        now: Instant,
        header: &IkeHeader,
        payloads: PayloadIter<'_>,
        random: &mut dyn Random,
    ) {
        let State::Up(up) = &mut self.state else { return };
        up.heard_at = now;
        if header.flags.is_response() {
            self.handle_answer(now, header, payloads, random);
        } else {
            self.handle_request(now, header, payloads, random);
        }
    }

    /// The replaced SA lives until its DELETE is answered, or the gateway deletes it.
    fn handle_on_old(&mut self, header: &IkeHeader, random: &mut dyn Random) {
        let State::Up(up) = &mut self.state else { return };
        let Some(old) = &mut up.old else { return };
        if old.is_answer(header) {
            up.old = None;
        } else if !header.flags.is_response() {
            self.transmits.extend(old.respond(header, random, |_| {}));
        }
    }

    fn handle_answer(
        &mut self,
        now: Instant,
        header: &IkeHeader,
        payloads: PayloadIter<'_>,
        random: &mut dyn Random,
    ) {
        let State::Up(up) = &mut self.state else { return };
        if !up.sa.is_answer(header) {
            return;
        }
        up.sa.pending = None;
        let exchange = up.exchange.take();
        let deleted = matches!(exchange, Some(Exchange::DeleteChild(_) | Exchange::Detach));
        if deleted && self.config.handset.empty_delete_response && payloads.clone().next().is_some() {
            // RFC 7296 §1.4.1 has the paired SPI there; this phone answers with INVALID_SYNTAX and is gone.
            return self.end(EndCause::Handset("something in the response to a Delete".into()));
        }
        let done = match exchange {
            Some(Exchange::RekeyChild(offer)) => self.finish_child_rekey(*offer, payloads),
            Some(Exchange::RekeyIke(offer)) => self.finish_ike_rekey(now, *offer, payloads, random),
            Some(Exchange::DeleteChild(child)) => {
                up.children.retain(|known| known.spi_in != child);
                self.events.push_back(Event::Retire(child));
                Ok(())
            }
            Some(Exchange::Detach) => Err(EndCause::Detached),
            Some(Exchange::Probe) | None => Ok(()),
        };
        match done {
            Ok(()) => self.next_wish(now, random),
            Err(cause) => self.end(cause),
        }
    }

    fn handle_request(
        &mut self,
        now: Instant,
        header: &IkeHeader,
        payloads: PayloadIter<'_>,
        random: &mut dyn Random,
    ) {
        let State::Up(up) = &mut self.state else { return };
        match up.sa.sort_request(header) {
            PeerRequest::New => {}
            PeerRequest::Repeated(response) => return self.transmits.push_back(response),
            PeerRequest::Stray => return,
        }
        if header.exchange == ExchangeType::INFORMATIONAL {
            return self.answer_informational(header, payloads, random);
        }
        if header.exchange == ExchangeType::CREATE_CHILD_SA {
            return self.answer_create_child(now, header, payloads, random);
        }
        let refusal = up.sa.respond(header, random, |builder| {
            builder.notify(NotifyType::INVALID_SYNTAX, &[]);
        });
        self.transmits.extend(refusal);
    }

    fn answer_informational(
        &mut self,
        header: &IkeHeader,
        payloads: PayloadIter<'_>,
        random: &mut dyn Random,
    ) {
        let State::Up(up) = &mut self.state else { return };
        let Some(demand) = read_demand(payloads) else {
            let refusal = up.sa.respond(header, random, |builder| {
                builder.notify(NotifyType::INVALID_SYNTAX, &[]);
            });
            return self.transmits.extend(refusal);
        };
        // RFC 7296 §1.4.1: the answer names the other half of each pair.
        let (gone, left): (Vec<ChildSpis>, Vec<ChildSpis>) =
            up.children.iter().partition(|child| demand.delete_children.contains(&child.spi_out));
        up.children = left;
        let spis: Vec<EspSpi> = gone.iter().map(|child| child.spi_in).collect();
        let answer = up.sa.respond(header, random, |builder| {
            if !spis.is_empty() {
                builder.delete_esp(&spis);
            }
        });
        self.transmits.extend(answer);
        self.events.extend(spis.into_iter().map(Event::Retire));
        if demand.delete_ike {
            self.end(EndCause::DeletedByGateway);
        }
    }
}

/// Reads the Deletes of a request; `None` when it is malformed.
fn read_demand(payloads: PayloadIter<'_>) -> Option<PeerDemand> {
    let mut demand = PeerDemand::default();
    for raw in payloads {
        if let Payload::Delete(view) = raw.ok()?.decode().ok()? {
            demand.delete_ike |= view.protocol == ProtocolId::IKE;
            demand.delete_children.extend(view.esp_spis());
        }
    }
    Some(demand)
}
