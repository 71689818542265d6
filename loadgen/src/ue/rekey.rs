//! Replacing the IKE SA (RFC 7296 §1.3.2, §2.18).

use super::sa::IkeSa;
use super::{
    EndCause, Established, Exchange, Initiator, NONCE_LEN, State, UeConfig, draw_ike_spi, draw_nonce,
};
use bytes::Bytes;
use codec::Random;
use codec::crypto::{IkeKeys, IkeProposal, KeyExchange, SaNonces, select_ike};
use codec::ike::payload::{KeView, Payload, PayloadIter, Proposal, Transform};
use codec::ike::{ExchangeType, IkeSpi, ProtocolId};
use std::time::Instant;

/// An offered IKE SA.
pub(super) struct IkeOffer {
    spi_i: IkeSpi,
    nonce_i: [u8; NONCE_LEN],
    exchange: KeyExchange,
}

impl Established {
    /// Asks for an IKE SA that replaces this one.
    pub(super) fn request_ike_rekey(
        &mut self,
        now: Instant,
        config: &UeConfig,
        random: &mut dyn Random,
    ) -> Result<(Exchange, Bytes), EndCause> {
        let group = self.sa.suite.group;
        let exchange = KeyExchange::generate(group, random).map_err(|_| EndCause::Local("key exchange"))?;
        let offer = IkeOffer { spi_i: draw_ike_spi(random), nonce_i: draw_nonce(random), exchange };
        let transforms: Vec<Vec<Transform>> = config.ike.iter().map(IkeProposal::transforms).collect();
        let message = self
            .sa
            .request(now, ExchangeType::CREATE_CHILD_SA, random, |builder| {
                let spi = &offer.spi_i.0;
                let offers: Vec<Proposal<'_>> = (1..)
                    .zip(&transforms)
                    .map(|(number, transforms)| Proposal {
                        number,
                        protocol: ProtocolId::IKE,
                        spi,
                        transforms,
                    })
                    .collect();
                builder.sa(&offers);
                builder.nonce(&offer.nonce_i);
                builder.ke(&KeView { group, data: offer.exchange.public() });
            })
            .ok_or(EndCause::Local("CREATE_CHILD_SA too long"))?;
        Ok((Exchange::RekeyIke(Box::new(offer)), message))
    }
}

impl Initiator {
    /// Moves to the new IKE SA and deletes the old one over itself.
    pub(super) fn finish_ike_rekey(
        &mut self,
        now: Instant,
        offer: IkeOffer,
        payloads: PayloadIter<'_>,
        random: &mut dyn Random,
    ) -> Result<(), EndCause> {
        const MALFORMED: EndCause = EndCause::BadAnswer("malformed CREATE_CHILD_SA");
        let State::Up(up) = &mut self.state else { return Ok(()) };
        let (mut sa, mut ke, mut nonce) = (None, None, None);
        for raw in payloads {
            match raw.and_then(|raw| raw.decode()).map_err(|_| MALFORMED)? {
                Payload::Sa(view) => sa = Some(view),
                Payload::Ke(view) => ke = Some(view),
                Payload::Nonce(view) => nonce = Some(view.data),
                Payload::Notify(view) if view.kind.is_error() => return Err(EndCause::Refused(view.kind)),
                _ => {}
            }
        }
        let (Some(sa), Some(ke), Some(nonce_r)) = (sa, ke, nonce) else { return Err(MALFORMED) };
        let group = offer.exchange.group();
        let chosen = select_ike(&self.config.ike, &sa, group)
            .filter(|chosen| chosen.suite.group == group && ke.group == group && sa.is_answer())
            .ok_or(EndCause::BadAnswer("suite was not offered"))?;
        let spi_r = chosen.peer_spi.filter(|spi| !spi.is_zero()).ok_or(EndCause::BadAnswer("no SPI"))?;
        let shared = offer.exchange.agree(ke.data).map_err(|_| EndCause::BadAnswer("public value"))?;
        let nonces = SaNonces { initiator: &offer.nonce_i, responder: nonce_r };
        let keys =
            IkeKeys::rekey(&chosen.suite, up.sa.suite.prf, &up.sa.sk_d, nonces, &shared, offer.spi_i, spi_r);
        let new = IkeSa::new(chosen.suite, keys, offer.spi_i, spi_r, 0);
        let mut old = std::mem::replace(&mut up.sa, new);
        old.pending = None;
        // RFC 7296 §2.8: the end that asked for the rekey deletes the old SA.
        let delete = old.request(now, ExchangeType::INFORMATIONAL, random, |builder| {
            builder.delete_ike();
        });
        self.transmits.extend(delete);
        up.old = Some(Box::new(old));
        Ok(())
    }
}
