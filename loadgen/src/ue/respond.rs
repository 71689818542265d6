//! Rekeys that the gateway starts (RFC 7296 §1.3.2, §1.3.3, §2.8). While a request of its own is open that could
//! collide with one, the UE puts the gateway off (§2.25).

use super::sa::IkeSa;
use super::{ChildSa, ChildSpis, Event, Initiator, State, draw_esp_spi, draw_ike_spi, draw_nonce};
use codec::Random;
use codec::crypto::{
    ChosenEsp, ChosenIke, GroupPolicy, IkeKeys, KeyExchange, SaNonces, SharedSecret, child_keymat,
    select_esp, select_ike,
};
use codec::esp::EspSpi;
use codec::ike::payload::{KeView, Payload, PayloadIter, SaView, TsView};
use codec::ike::{IkeHeader, KeGroup, MessageBuilder, NotifyType, PayloadType, ProtocolId};
use std::time::Instant;

/// Payloads of a CREATE_CHILD_SA request.
#[derive(Default)]
struct Wanted<'a> {
    sa: Option<SaView<'a>>,
    ke: Option<KeView<'a>>,
    nonce: Option<&'a [u8]>,
    ts_i: Option<TsView<'a>>,
    ts_r: Option<TsView<'a>>,
    /// The gateway's inbound SPI of the child to be replaced.
    rekeyed: Option<EspSpi>,
}

/// An error notification with its data.
type Refusal = (NotifyType, Vec<u8>);

/// A child that the gateway asked for.
struct MadeChild {
    child: ChildSa,
    chosen: ChosenEsp,
    nonce_r: [u8; super::NONCE_LEN],
    public: Option<(KeGroup, Vec<u8>)>,
}

/// An IKE SA that the gateway asked for.
struct MadeIke {
    sa: IkeSa,
    chosen: ChosenIke,
    nonce_r: [u8; super::NONCE_LEN],
    public: Vec<u8>,
}

impl<'a> Wanted<'a> {
    fn read(payloads: PayloadIter<'a>) -> Option<Self> {
        let mut wanted = Self::default();
        for raw in payloads {
            match raw.ok()?.decode().ok()? {
                Payload::Sa(view) => wanted.sa = Some(view),
                Payload::Ke(view) => wanted.ke = Some(view),
                Payload::Nonce(view) => wanted.nonce = Some(view.data),
                Payload::TsI(view) => wanted.ts_i = Some(view),
                Payload::TsR(view) => wanted.ts_r = Some(view),
                Payload::Notify(view) if view.kind == NotifyType::REKEY_SA => wanted.rekeyed = view.esp_spi(),
                _ => {}
            }
        }
        Some(wanted)
    }

    fn is_for_ike(&self) -> bool {
        self.sa.and_then(|sa| sa.proposals().next()).is_some_and(|first| first.protocol == ProtocolId::IKE)
    }
}

impl Initiator {
    pub(super) fn answer_create_child(
        &mut self,
        now: Instant,
        header: &IkeHeader,
        payloads: PayloadIter<'_>,
        random: &mut dyn Random,
    ) {
        let answered = match Wanted::read(payloads) {
            None => Err((NotifyType::INVALID_SYNTAX, Vec::new())),
            Some(wanted) if wanted.is_for_ike() => self.accept_ike(now, &wanted, header, random),
            Some(wanted) => self.accept_child(now, &wanted, header, random),
        };
        let Err((kind, data)) = answered else { return };
        let State::Up(up) = &mut self.state else { return };
        up.heard_at = now;
        let refusal = up.sa.respond(header, random, |builder| {
            builder.notify(kind, &data);
        });
        self.transmits.extend(refusal);
    }

    fn accept_child(
        &mut self,
        now: Instant,
        wanted: &Wanted<'_>,
        header: &IkeHeader,
        random: &mut dyn Random,
    ) -> Result<(), Refusal> {
        let State::Up(up) = &mut self.state else { return Ok(()) };
        // A UE has one child: only its successor is welcome.
        let replaced = wanted.rekeyed.ok_or((NotifyType::NO_ADDITIONAL_SAS, Vec::new()))?;
        if !up.children.iter().any(|child| child.spi_out == replaced) {
            return Err((NotifyType::CHILD_SA_NOT_FOUND, Vec::new()));
        }
        if up.exchange.is_some() {
            return Err((NotifyType::TEMPORARY_FAILURE, Vec::new()));
        }
        let made = MadeChild::new(wanted, &self.config, &up.sa, random)?;
        let response = up.sa.respond(header, random, |builder| made.encode(wanted, builder));
        let child = made.child;
        up.children.insert(0, ChildSpis { spi_in: child.spi_in, spi_out: child.spi_out });
        up.child_since = now;
        self.events.push_back(Event::Install(Box::new(child)));
        self.transmits.extend(response);
        Ok(())
    }

    fn accept_ike(
        &mut self,
        now: Instant,
        wanted: &Wanted<'_>,
        header: &IkeHeader,
        random: &mut dyn Random,
    ) -> Result<(), Refusal> {
        let State::Up(up) = &mut self.state else { return Ok(()) };
        if up.exchange.is_some() {
            return Err((NotifyType::TEMPORARY_FAILURE, Vec::new()));
        }
        let made = MadeIke::new(wanted, &self.config, &up.sa, random)?;
        let response = up.sa.respond(header, random, |builder| made.encode(builder));
        // The gateway deletes the old one (RFC 7296 §2.8).
        up.old = Some(Box::new(std::mem::replace(&mut up.sa, made.sa)));
        up.ike_since = now;
        self.transmits.extend(response);
        Ok(())
    }
}

const SYNTAX: Refusal = (NotifyType::INVALID_SYNTAX, Vec::new());
const NO_PROPOSAL: Refusal = (NotifyType::NO_PROPOSAL_CHOSEN, Vec::new());

fn other_group(group: KeGroup) -> Refusal {
    (NotifyType::INVALID_KE_PAYLOAD, group.0.to_be_bytes().to_vec())
}

/// Our half of an exchange, and the secret.
fn agree(group: KeGroup, peer: &[u8], random: &mut dyn Random) -> Result<(Vec<u8>, SharedSecret), Refusal> {
    let own = KeyExchange::generate(group, random).map_err(|_| NO_PROPOSAL)?;
    let public = own.public().to_vec();
    own.agree(peer).map(|shared| (public, shared)).map_err(|_| SYNTAX)
}

impl MadeChild {
    fn new(
        wanted: &Wanted<'_>,
        config: &super::UeConfig,
        sa: &IkeSa,
        random: &mut dyn Random,
    ) -> Result<Self, Refusal> {
        let (Some(offer), Some(nonce_i), Some(ts_i), Some(ts_r)) =
            (wanted.sa, wanted.nonce, wanted.ts_i, wanted.ts_r)
        else {
            return Err(SYNTAX);
        };
        let any: Vec<KeGroup> = config.ike.iter().flat_map(|ike| ike.groups()).copied().collect();
        let policy = GroupPolicy::Negotiate { any: &any, ke: wanted.ke.map(|ke| ke.group) };
        let chosen = select_esp(&config.esp, &offer, policy).ok_or(NO_PROPOSAL)?;
        let agreed = match (chosen.group, wanted.ke) {
            (None, _) => None,
            (Some(group), Some(ke)) if ke.group == group => Some(agree(group, ke.data, random)?),
            (Some(group), _) => return Err(other_group(group)),
        };
        let nonce_r = draw_nonce(random);
        let nonces = SaNonces { initiator: nonce_i, responder: &nonce_r };
        let shared = agreed.as_ref().map(|(_, shared)| shared);
        let keymat = child_keymat(sa.suite.prf, &sa.sk_d, shared, nonces, &chosen.suite);
        let child = ChildSa {
            spi_in: draw_esp_spi(random),
            spi_out: chosen.peer_spi,
            suite: chosen.suite,
            keys_in: keymat.initiator,
            keys_out: keymat.responder,
            // The gateway asks here, so TSi is its side.
            local_ts: ts_r.selectors().collect(),
            remote_ts: ts_i.selectors().collect(),
        };
        let public = chosen.group.zip(agreed.map(|(public, _)| public));
        Ok(Self { child, chosen, nonce_r, public })
    }

    fn encode(&self, wanted: &Wanted<'_>, builder: &mut MessageBuilder) {
        builder.payload(PayloadType::SA, |out| self.chosen.encode(self.child.spi_in, out));
        builder.nonce(&self.nonce_r);
        if let Some((group, data)) = &self.public {
            builder.ke(&KeView { group: *group, data });
        }
        let list = |view: Option<TsView<'_>>| view.map(|view| view.selectors().collect::<Vec<_>>());
        builder.ts_i(&list(wanted.ts_i).unwrap_or_default());
        builder.ts_r(&list(wanted.ts_r).unwrap_or_default());
    }
}

impl MadeIke {
    fn new(
        wanted: &Wanted<'_>,
        config: &super::UeConfig,
        old: &IkeSa,
        random: &mut dyn Random,
    ) -> Result<Self, Refusal> {
        let (Some(offer), Some(nonce_i), Some(ke)) = (wanted.sa, wanted.nonce, wanted.ke) else {
            return Err(SYNTAX);
        };
        let chosen = select_ike(&config.ike, &offer, ke.group).ok_or(NO_PROPOSAL)?;
        let spi_i = chosen.peer_spi.filter(|spi| !spi.is_zero()).ok_or(SYNTAX)?;
        let suite = chosen.suite;
        if suite.group != ke.group {
            return Err(other_group(suite.group));
        }
        let (public, shared) = agree(suite.group, ke.data, random)?;
        let (nonce_r, spi_r) = (draw_nonce(random), draw_ike_spi(random));
        let nonces = SaNonces { initiator: nonce_i, responder: &nonce_r };
        let keys = IkeKeys::rekey(&suite, old.suite.prf, &old.sk_d, nonces, &shared, spi_i, spi_r);
        Ok(Self { sa: IkeSa::of_gateway(suite, keys, spi_i, spi_r), chosen, nonce_r, public })
    }

    fn encode(&self, builder: &mut MessageBuilder) {
        builder.payload(PayloadType::SA, |out| self.chosen.encode(&self.sa.spi_r.0, out));
        builder.nonce(&self.nonce_r).ke(&KeView { group: self.chosen.suite.group, data: &self.public });
    }
}
