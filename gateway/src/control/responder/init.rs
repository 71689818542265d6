//! IKE_SA_INIT (RFC 7296 §1.2, §2.6, §2.7; RFC 9329 §6.1 to §6.5).

use codec::crypto::{Additional, ChosenIke, HashSet, IkeSuite, KeyExchange, select_ike, select_ike_plain};
use codec::ike::payload::{CertReqView, KeView};
use codec::ike::{
    CertEncoding, ExchangeType, Flags, IkeHeader, IkeSpi, MessageBuilder, MessageId, NotifyType, PayloadType,
};

use super::aaa::AaaOrder;
use super::cookie::Challenge;
use super::inner::Payloads;
use super::record::Record;
use super::redirect::Follows;
use super::sa::{HalfOpen, Secrets, SpiOwner};
use super::ticket::Ticket;
use super::window::Window;
use super::{Arrived, AuthKind, ConnUse, Core, Event, Owner, Responder, Verdict, nat, ppk};
use crate::types::Transport;

/// Message ID of the first request after IKE_SA_INIT.
const FIRST_PROTECTED: MessageId = MessageId(1);

pub(super) fn announces_intermediate(payloads: &Payloads<'_>) -> bool {
    payloads.notify(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED).is_some()
}

/// What an acceptable request offered.
struct Offer<'a> {
    chosen: ChosenIke,
    ke: KeView<'a>,
    nonce: &'a [u8],
}

/// What the first exchange of an IKE SA has settled.
pub(super) struct Begun {
    pub(super) suite: IkeSuite,
    pub(super) additional: Additional,
    pub(super) secrets: Secrets,
    pub(super) spi_r: IkeSpi,
    pub(super) nonce_r: Vec<u8>,
    pub(super) nonce_i: Vec<u8>,
    pub(super) response: bytes::Bytes,
    pub(super) resumed: Option<Box<Ticket>>,
}

impl Responder {
    pub(super) fn on_sa_init(&mut self, at: &Arrived, header: &IkeHeader, message: &[u8]) -> Verdict {
        // RFC 7296 §3.1: only the first request has no SPI of the responder.
        let opens = matches!(header.exchange, ExchangeType::IKE_SA_INIT | ExchangeType::IKE_SESSION_RESUME);
        let first = opens
            && header.message_id == MessageId(0)
            && header.flags.is_initiator()
            && !header.flags.is_response();
        if !first {
            self.core.counters.drops.bad_header += 1;
            self.core.reply_unprotected(at, header, NotifyType::INVALID_SYNTAX);
            return Verdict::Bad;
        }
        if self.session_on(at.conn).is_some() {
            self.core.counters.drops.init_on_active_connection += 1;
            return Verdict::Bad;
        }
        if let Some(verdict) = self.repeated_init(at, header, message) {
            return verdict;
        }
        let chain = message.get(codec::ike::HEADER_LEN..).unwrap_or_default();
        let max = self.core.config.limits.payloads_max;
        let Ok(payloads) = Payloads::decode(header.next_payload, chain, max) else {
            self.core.counters.drops.bad_syntax_unprotected += 1;
            self.core.reply_unprotected(at, header, NotifyType::INVALID_SYNTAX);
            return Verdict::Bad;
        };
        match self.core.challenge(at, header, &payloads, self.half_open.len()) {
            Challenge::Passed => self.pace_init(at, header, message, &payloads),
            // Over TCP it counts as unusable, so that a connection lives by challenges alone for a while only (D5).
            Challenge::Sent if at.conn.is_datagrams() => Verdict::Good,
            Challenge::Sent => Verdict::Bad,
            Challenge::Wait => self.serve_unsolved(at, header, message, &payloads),
        }
    }

    /// Serves a request that has shown what load demands.
    pub(super) fn serve_init(
        &mut self,
        at: &Arrived,
        header: &IkeHeader,
        message: &[u8],
        payloads: &Payloads<'_>,
    ) -> Verdict {
        if self.redirect_init(at, header, payloads) {
            return Verdict::Good;
        }
        if !self.admit_init(at) {
            return Verdict::Bad;
        }
        if header.exchange == ExchangeType::IKE_SESSION_RESUME {
            return self.serve_resume(at, header, message, payloads);
        }
        match self.core.read_offer(at, header, payloads) {
            Ok(offer) => self.start_half_open(at, header, message, payloads, &offer),
            Err(verdict) => verdict,
        }
    }

    /// Answers a retransmitted request from the half-open IKE SA it made, on any connection, and keeps a
    /// connection to one half-open IKE SA.
    fn repeated_init(&mut self, at: &Arrived, header: &IkeHeader, message: &[u8]) -> Option<Verdict> {
        let here = self.half_open_on(at.conn);
        let key = (header.spi_i, at.path.remote.ip());
        let known = self.initiators.get(&key).and_then(|spi| self.half_open.get_mut(spi));
        let same = known.filter(|half| half.request == message && here.is_none_or(|spi| spi == half.spi_r));
        if let Some(half) = same {
            self.core.counters.exchanges.retransmissions_answered += 1;
            half.conn = at.conn;
            half.path = at.path;
            let (spi, response) = (half.spi_r, half.response.clone());
            if here.is_none() {
                self.core.carry_half_open(at, spi);
            }
            self.core.transmit(at.conn, &at.path, response);
            return Some(Verdict::Good);
        }
        here.is_some().then(|| {
            self.core.counters.drops.half_open_busy += 1;
            Verdict::Bad
        })
    }

    fn admit_init(&mut self, at: &Arrived) -> bool {
        let limits = &self.core.config.limits;
        let emergency = self.core.is_emergency(&at.path);
        let kept = if emergency { 0 } else { self.core.reserved(limits.half_open_max) };
        let drops = &mut self.core.counters.drops;
        if self.draining {
            drops.draining += 1;
        } else if self.half_open.len() >= limits.half_open_max - kept {
            drops.half_open_limit += 1;
        } else if self.sources.count(at.path.remote.ip()) >= limits.half_open_per_source_max {
            drops.half_open_source_limit += 1;
        } else {
            return true;
        }
        false
    }

    fn start_half_open(
        &mut self,
        at: &Arrived,
        header: &IkeHeader,
        message: &[u8],
        payloads: &Payloads<'_>,
        offer: &Offer<'_>,
    ) -> Verdict {
        let core = &mut self.core;
        let group = offer.chosen.suite.group;
        let (public, secrets) = if KeyExchange::is_encapsulation(group) {
            // The ciphertext goes with our answer, so there is nothing to put off.
            let Ok((public, shared)) = KeyExchange::answer(group, offer.ke.data, &mut *core.random) else {
                core.counters.drops.bad_ke_value += 1;
                return Verdict::Bad;
            };
            (public, Secrets::Shared(shared))
        } else {
            let Ok(own) = KeyExchange::generate(group, &mut *core.random) else {
                core.counters.drops.ike_no_proposal += 1;
                return Verdict::Bad;
            };
            (own.public().to_vec(), Secrets::Exchange { own, peer: offer.ke.data.to_vec() })
        };
        let (spi_r, nonce_r) = (core.new_ike_spi(), core.new_nonce());
        let response = core.init_response(at, header, spi_r, offer, &public, &nonce_r, payloads);
        let begun = Begun {
            suite: offer.chosen.suite,
            additional: offer.chosen.additional,
            secrets,
            spi_r,
            nonce_r: nonce_r.to_vec(),
            nonce_i: offer.nonce.to_vec(),
            response,
            resumed: None,
        };
        self.keep_half_open(at, header, message, payloads, begun);
        Verdict::Good
    }

    /// Keeps a half-open IKE SA and sends the response that began it.
    pub(super) fn keep_half_open(
        &mut self,
        at: &Arrived,
        header: &IkeHeader,
        message: &[u8],
        payloads: &Payloads<'_>,
        begun: Begun,
    ) {
        let core = &mut self.core;
        let Begun { suite, additional, secrets, spi_r, nonce_r, nonce_i, response, resumed } = begun;
        let signed = payloads.notify(NotifyType::SIGNATURE_HASH_ALGORITHMS);
        let behind_nat = core.note_nat(at, header, payloads);
        core.counters.exchanges.sa_init_accepted += 1;
        core.spis.insert(spi_r, SpiOwner::HalfOpen);
        core.carry_half_open(at, spi_r);
        core.timers.schedule(Owner::HalfOpen(spi_r), at.now + core.config.limits.half_open_timeout);
        core.transmit(at.conn, &at.path, response.clone());
        let source = at.path.remote.ip();
        self.sources.add(source);
        self.initiators.insert((header.spi_i, source), spi_r);
        self.half_open.insert(
            spi_r,
            Box::new(HalfOpen {
                conn: at.conn,
                path: at.path,
                source,
                behind_nat,
                spi_i: header.spi_i,
                spi_r,
                suite,
                request: message.to_vec().into(),
                response,
                nonce_i,
                nonce_r,
                secrets: Some(secrets),
                peer_hashes: signed.map(|notify| notify.hash_ids().collect()),
                fragmentation: payloads.notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED).is_some(),
                fragments: Vec::new(),
                intermediate: announces_intermediate(payloads),
                additional,
                // A session that is resumed has its key exchanges behind it.
                pending: additional.methods().filter(|_| resumed.is_none()).collect(),
                steps: 0,
                int_auth: None,
                follows: Follows::from(payloads),
                ppk: resumed.is_none() && self.core.uses_ppk(payloads),
                resumed,
                eap: None,
                record: Record::default(),
                traced: false,
                window: Window::new(FIRST_PROTECTED),
                created: at.now,
            }),
        );
    }

    /// Forgets a half-open IKE SA.
    pub(super) fn remove_half_open(&mut self, spi: IkeSpi) -> Option<Box<HalfOpen>> {
        let half = self.half_open.remove(&spi)?;
        self.core.spis.remove(&spi);
        self.core.timers.cancel(Owner::HalfOpen(spi));
        self.sources.remove(half.source);
        if self.initiators.get(&(half.spi_i, half.source)) == Some(&spi) {
            self.initiators.remove(&(half.spi_i, half.source));
        }
        if self.core.conns.get(&half.conn).is_some_and(|used| *used == ConnUse::HalfOpen(spi)) {
            self.core.conns.remove(&half.conn);
        }
        if let Some(eap) = &half.eap {
            self.attempts.remove(&eap.attempt);
            let order = AaaOrder::Abandon(eap.attempt);
            self.core.events.push_back(Event::Aaa(Box::new(order)));
        }
        Some(half)
    }

    pub(super) fn on_half_open_due(&mut self, spi: IkeSpi) {
        if let Some(half) = self.remove_half_open(spi) {
            self.core.counters.drops.half_open_expired += 1;
            self.core.record_failure(*half);
        }
    }
}

impl Core {
    /// Notes that a half-open IKE SA lives on a connection, which gets the time of one.
    pub(super) fn carry_half_open(&mut self, at: &Arrived, spi: IkeSpi) {
        if at.is_home() {
            self.occupy(at.conn, ConnUse::HalfOpen(spi));
            self.events.push_back(Event::HalfOpen { conn: at.conn });
        }
    }

    /// Takes from a request what the exchange needs, or answers why it cannot go on. These answers keep no
    /// state and are part of an ordinary negotiation, so no rate limit holds them back.
    fn read_offer<'a>(
        &mut self,
        at: &Arrived,
        header: &IkeHeader,
        payloads: &Payloads<'a>,
    ) -> Result<Offer<'a>, Verdict> {
        if let Some(kind) = payloads.unknown_critical {
            self.counters.drops.unknown_critical_payload += 1;
            self.answer_init(at, header, NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, &[kind.0]);
            return Err(Verdict::Bad);
        }
        let (Some(sa), Some(ke), Some(nonce)) = (payloads.sa, payloads.ke, payloads.nonce) else {
            self.counters.drops.bad_syntax_unprotected += 1;
            self.reply_unprotected(at, header, NotifyType::INVALID_SYNTAX);
            return Err(Verdict::Bad);
        };
        // RFC 9370 §2.2.1: additional key exchanges need IKE_INTERMEDIATE.
        let select = if announces_intermediate(payloads) { select_ike } else { select_ike_plain };
        let Some(chosen) = select(&self.offers, &sa, ke.group) else {
            self.counters.drops.ike_no_proposal += 1;
            self.answer_init(at, header, NotifyType::NO_PROPOSAL_CHOSEN, &[]);
            return Err(Verdict::Good);
        };
        let suite = chosen.suite;
        // RFC 7296 §1.2: the peer guessed another group; it comes back with ours.
        if ke.group != suite.group {
            self.counters.drops.ike_invalid_ke += 1;
            self.answer_init(at, header, NotifyType::INVALID_KE_PAYLOAD, &suite.group.0.to_be_bytes());
            return Err(Verdict::Good);
        }
        // RFC 7296 §2.10: at least half the key size of the PRF.
        if nonce.data.len() < suite.prf.output_len() / 2 {
            self.counters.drops.bad_syntax_unprotected += 1;
            self.reply_unprotected(at, header, NotifyType::INVALID_SYNTAX);
            return Err(Verdict::Bad);
        }
        Ok(Offer { chosen, ke, nonce: nonce.data })
    }

    pub(super) fn answer_init(&mut self, at: &Arrived, header: &IkeHeader, kind: NotifyType, data: &[u8]) {
        let flags = Flags::new(false, true);
        let mut builder =
            MessageBuilder::new(header.spi_i, IkeSpi::ZERO, header.exchange, flags, header.message_id);
        builder.notify(kind, data);
        if let Ok(message) = builder.finish() {
            self.transmit(at.conn, &at.path, message.into());
        }
    }

    #[expect(clippy::too_many_arguments, reason = "each is one field of the message")]
    fn init_response(
        &mut self,
        at: &Arrived,
        header: &IkeHeader,
        spi_r: IkeSpi,
        offer: &Offer<'_>,
        public: &[u8],
        nonce: &[u8],
        payloads: &Payloads<'_>,
    ) -> bytes::Bytes {
        let flags = Flags::new(false, true);
        let mut builder = MessageBuilder::new(header.spi_i, spi_r, header.exchange, flags, header.message_id);
        builder.payload(PayloadType::SA, |out| offer.chosen.encode(&[], out));
        builder.ke(&KeView { group: offer.chosen.suite.group, data: public }).nonce(nonce);
        for (kind, address) in nat::announced(&at.path) {
            builder.notify(kind, &nat::hash(header.spi_i, spi_r, address));
        }
        let certificates = self.config.certificates.as_ref();
        if let Some(store) = certificates.filter(|_| self.wants_certificates()) {
            let authorities = store.authorities();
            builder.cert_req(&CertReqView { encoding: CertEncoding::X509_SIGNATURE, authorities });
        }
        // RFC 6023 §3: an IKE_AUTH without a Child SA is welcome.
        builder.notify(NotifyType::CHILDLESS_IKEV2_SUPPORTED, &[]);
        // RFC 7383 §2.3: over TCP too, for the case that MOBIKE moves the peer to UDP (RFC 9329 §7.5).
        if payloads.notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED).is_some() {
            builder.notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED, &[]);
        }
        if announces_intermediate(payloads) {
            builder.notify(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED, &[]);
        }
        if self.uses_ppk(payloads) {
            builder.notify(NotifyType::USE_PPK, &[]);
        }
        if let Some(offer) = self.config.ike_tcp.filter(|_| at.path.transport != Transport::IkeTcp) {
            builder.notify(offer.notify, &offer.port.to_be_bytes());
        }
        // RFC 7427 §4: the hashes we accept, to a peer that knows what to do with them.
        if payloads.notify(NotifyType::SIGNATURE_HASH_ALGORITHMS).is_some() {
            builder.notify(NotifyType::SIGNATURE_HASH_ALGORITHMS, &HashSet::notify_data());
        }
        builder.finish().expect("a response of bounded parts").into()
    }

    /// Whether both ends announce post-quantum pre-shared keys (RFC 8784 §3).
    fn uses_ppk(&self, payloads: &Payloads<'_>) -> bool {
        ppk::is_configured(&self.config) && payloads.notify(NotifyType::USE_PPK).is_some()
    }

    fn wants_certificates(&self) -> bool {
        self.config.profiles.iter().any(|profile| matches!(profile.auth, AuthKind::Certificate))
    }

    /// Compares the peer's idea of the addresses with ours (RFC 7296 §2.23, RFC 9329 §6.5). Returns whether the
    /// peer is behind a NAT, which changes nothing over TCP.
    fn note_nat(&mut self, at: &Arrived, header: &IkeHeader, payloads: &Payloads<'_>) -> bool {
        let [source, destination] = nat::translated(&at.path, header.spi_i, IkeSpi::ZERO, &payloads.notifies);
        self.counters.exchanges.behind_nat += u64::from(source || destination);
        source
    }
}
