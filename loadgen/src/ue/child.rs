//! Child SAs: the one that IKE_AUTH brings, and its replacement (RFC 7296 §1.2, §1.3.1, §1.3.3).

use super::sa::IkeSa;
use super::{
    ChildKey, ChildSa, ChildSpis, EndCause, Established, Event, Exchange, Initiator, NONCE_LEN, State,
    UeConfig, Wish, draw_esp_spi, draw_nonce,
};
use bytes::Bytes;
use codec::Random;
use codec::crypto::{
    EspProposal, GroupPolicy, KeyExchange, SaNonces, SharedSecret, child_keymat, select_esp,
};
use codec::esp::EspSpi;
use codec::ike::payload::{
    KeView, NotifyView, Payload, PayloadIter, Proposal, SaView, TrafficSelector, Transform, TsView,
};
use codec::ike::{ExchangeType, KeGroup, MessageBuilder, NotifyType, ProtocolId};
use std::time::Instant;

/// What the UE wants to reach: everything, the gateway narrows.
const WANTED_TS: [TrafficSelector; 2] = [TrafficSelector::ANY_IPV4, TrafficSelector::ANY_IPV6];

/// An offered Child SA.
pub(super) struct ChildOffer {
    spi_in: EspSpi,
    nonce_i: [u8; NONCE_LEN],
    /// Our half of the exchange that gives PFS.
    exchange: Option<KeyExchange>,
    /// The child that this one replaces.
    replaces: Option<ChildKey>,
}

/// Payloads of an answer that concern the child.
#[derive(Default)]
pub(super) struct ChildAnswer<'a> {
    sa: Option<SaView<'a>>,
    ke: Option<KeView<'a>>,
    nonce: Option<&'a [u8]>,
    ts_i: Option<TsView<'a>>,
    ts_r: Option<TsView<'a>>,
    error: Option<NotifyView<'a>>,
}

impl<'a> ChildAnswer<'a> {
    /// Keeps a payload if it concerns the child.
    pub(super) fn take(&mut self, payload: &Payload<'a>) {
        match payload {
            Payload::Sa(view) => self.sa = Some(*view),
            Payload::Ke(view) => self.ke = Some(*view),
            Payload::Nonce(view) => self.nonce = Some(view.data),
            Payload::TsI(view) => self.ts_i = Some(*view),
            Payload::TsR(view) => self.ts_r = Some(*view),
            Payload::Notify(view) if view.kind.is_error() => self.error = Some(*view),
            _ => {}
        }
    }

    /// Reads a whole answer.
    fn read(payloads: PayloadIter<'a>) -> Result<Self, EndCause> {
        let mut answer = Self::default();
        for raw in payloads {
            let payload = raw.and_then(|raw| raw.decode());
            answer.take(&payload.map_err(|_| EndCause::BadAnswer("malformed CREATE_CHILD_SA"))?);
        }
        Ok(answer)
    }
}

impl ChildOffer {
    /// The child of IKE_AUTH: the nonces are those of IKE_SA_INIT.
    pub(super) fn first(nonce_i: &[u8; NONCE_LEN], random: &mut dyn Random) -> Self {
        Self { spi_in: draw_esp_spi(random), nonce_i: *nonce_i, exchange: None, replaces: None }
    }

    /// Adds SA, TSi and TSr of IKE_AUTH.
    pub(super) fn encode_first(&self, config: &UeConfig, builder: &mut MessageBuilder) {
        // RFC 7296 §1.2: no key exchange in IKE_AUTH, so no groups.
        self.encode_sa(config, builder, |_| &[]);
        builder.ts_i(&WANTED_TS).ts_r(&WANTED_TS);
    }

    /// Completes the child of IKE_AUTH.
    pub(super) fn finish_first(
        &self,
        config: &UeConfig,
        answer: &ChildAnswer<'_>,
        sa: &IkeSa,
        nonces: SaNonces<'_>,
    ) -> Result<ChildSa, EndCause> {
        self.finish(config, answer, GroupPolicy::Ignore, sa, nonces, None)
    }

    fn encode_rekey(&self, config: &UeConfig, old: ChildSpis, builder: &mut MessageBuilder) {
        // RFC 7296 §1.3.3: REKEY_SA carries the SPI that we receive under.
        builder.notify_view(&NotifyView {
            protocol: ProtocolId::ESP,
            spi: &old.spi_in.0.to_be_bytes(),
            kind: NotifyType::REKEY_SA,
            data: &[],
        });
        self.encode_sa(config, builder, EspProposal::groups);
        builder.nonce(&self.nonce_i);
        if let Some(exchange) = &self.exchange {
            builder.ke(&KeView { group: exchange.group(), data: exchange.public() });
        }
        builder.ts_i(&WANTED_TS).ts_r(&WANTED_TS);
    }

    fn encode_sa(
        &self,
        config: &UeConfig,
        builder: &mut MessageBuilder,
        groups: fn(&EspProposal) -> &[KeGroup],
    ) {
        let spi = self.spi_in.0.to_be_bytes();
        let transforms: Vec<Vec<Transform>> =
            config.esp.iter().map(|proposal| proposal.transforms(groups(proposal))).collect();
        let offers: Vec<Proposal<'_>> = (1..)
            .zip(&transforms)
            .map(|(number, transforms)| Proposal { number, protocol: ProtocolId::ESP, spi: &spi, transforms })
            .collect();
        builder.sa(&offers);
    }

    /// Checks the answer against the offer and derives the keys.
    fn finish(
        &self,
        config: &UeConfig,
        answer: &ChildAnswer<'_>,
        groups: GroupPolicy<'_>,
        sa: &IkeSa,
        nonces: SaNonces<'_>,
        shared: Option<&SharedSecret>,
    ) -> Result<ChildSa, EndCause> {
        let (Some(sa_view), Some(ts_i), Some(ts_r)) = (answer.sa, answer.ts_i, answer.ts_r) else {
            return Err(EndCause::BadAnswer("no Child SA"));
        };
        let chosen = select_esp(&config.esp, &sa_view, groups)
            .filter(|chosen| sa_view.is_answer() && chosen.peer_spi.0 > 255)
            .ok_or(EndCause::BadAnswer("ESP suite was not offered"))?;
        if chosen.group.is_some() != shared.is_some() {
            return Err(EndCause::BadAnswer("key exchange was not offered"));
        }
        let keymat = child_keymat(sa.suite.prf, &sa.sk_d, shared, nonces, &chosen.suite);
        Ok(ChildSa {
            spi_in: self.spi_in,
            spi_out: chosen.peer_spi,
            suite: chosen.suite,
            keys_in: keymat.responder,
            keys_out: keymat.initiator,
            local_ts: ts_i.selectors().collect(),
            remote_ts: ts_r.selectors().collect(),
        })
    }
}

impl Established {
    /// Asks for a child that replaces the first one.
    pub(super) fn request_child_rekey(
        &mut self,
        now: Instant,
        config: &UeConfig,
        random: &mut dyn Random,
    ) -> Result<(Exchange, Bytes), EndCause> {
        let old = *self.children.first().ok_or(EndCause::Local("no child to rekey"))?;
        let group = config.esp.iter().find_map(|proposal| proposal.groups().first());
        let exchange = group
            .map(|group| KeyExchange::generate(*group, random))
            .transpose()
            .map_err(|_| EndCause::Local("key exchange"))?;
        let offer = ChildOffer {
            spi_in: draw_esp_spi(random),
            nonce_i: draw_nonce(random),
            exchange,
            replaces: Some(old.spi_in),
        };
        let message = self
            .sa
            .request(now, ExchangeType::CREATE_CHILD_SA, random, |builder| {
                offer.encode_rekey(config, old, builder)
            })
            .ok_or(EndCause::Local("CREATE_CHILD_SA too long"))?;
        Ok((Exchange::RekeyChild(Box::new(offer)), message))
    }
}

impl Initiator {
    /// Installs the new child, then deletes the old one.
    pub(super) fn finish_child_rekey(
        &mut self,
        mut offer: ChildOffer,
        payloads: PayloadIter<'_>,
    ) -> Result<(), EndCause> {
        let State::Up(up) = &mut self.state else { return Ok(()) };
        let answer = ChildAnswer::read(payloads)?;
        if let Some(error) = answer.error {
            return Err(EndCause::Refused(error.kind));
        }
        let group = offer.exchange.as_ref().map(KeyExchange::group);
        let shared = match (offer.exchange.take(), answer.ke) {
            (Some(exchange), Some(ke)) if ke.group == exchange.group() => {
                Some(exchange.agree(ke.data).map_err(|_| EndCause::BadAnswer("public value"))?)
            }
            (None, None) => None,
            _ => return Err(EndCause::BadAnswer("key exchange was not offered")),
        };
        let nonce_r = answer.nonce.ok_or(EndCause::BadAnswer("no nonce"))?;
        let nonces = SaNonces { initiator: &offer.nonce_i, responder: nonce_r };
        let groups = GroupPolicy::Negotiate { any: group.as_slice(), ke: group };
        let child = offer.finish(&self.config, &answer, groups, &up.sa, nonces, shared.as_ref())?;
        up.children.insert(0, ChildSpis { spi_in: child.spi_in, spi_out: child.spi_out });
        self.events.push_back(Event::Install(Box::new(child)));
        if let Some(old) = offer.replaces {
            up.wishes.push_front(Wish::DeleteChild(old));
        }
        Ok(())
    }
}
