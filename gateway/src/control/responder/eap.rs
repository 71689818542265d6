//! EAP inside IKE_AUTH (RFC 7296 §2.16, RFC 5998): several rounds, in which the AAA back end speaks with the UE.
//!
//! The half-open IKE SA stays until the UE has shown AUTH made with the Master Session Key. Its first IKE_AUTH request is
//! kept: what it asks for is given in the last response. While the back end is asked, nothing but the same request again
//! is taken.

use std::sync::Arc;
use std::time::Instant;

use codec::ike::payload::EapView;
use codec::ike::{ExchangeType, Flags, IdType, IkeHeader, IkeSpi, MessageBuilder, MessageId, NotifyType};

use super::aaa::{AaaAnswer, AaaOrder, Accepted, AttemptId, EapStep, RejectCause, Subject};
use super::authenticate::{Authenticated, Granted};
use super::config::{AuthKind, EapIdentity, EapPolicy, Profile};
use super::fragment::Whole;
use super::handset;
use super::identity::Identity;
use super::inner::Payloads;
use super::sa::{HalfOpen, Secrets};
use super::{Arrived, Event, Owner, Responder, Verdict};

/// Octets of the first request that are kept.
const REQUEST_LEN_MAX: usize = 8192;

/// Codes of EAP packets (RFC 3748 §4).
const EAP_REQUEST: u8 = 1;
const EAP_RESPONSE: u8 = 2;

/// The type of EAP packets about the identity (RFC 3748 §5.1).
const EAP_IDENTITY: u8 = 1;

/// The identifier of our own EAP-Request/Identity, and of the response that stands for IDi.
const IDENTITY_ROUND: u8 = 0;

/// An authentication by EAP that is under way.
pub(super) struct EapState {
    pub(super) attempt: AttemptId,
    pub(super) profile: Arc<Profile>,
    pub(super) subject: Subject,
    /// The first IKE_AUTH request; the last response answers it.
    pub(super) request: Whole,
    pub(super) idi: Identity,
    pub(super) asked: Option<Identity>,
    /// Its Message ID, which IntAuth covers (RFC 9242 §3.3.2).
    pub(super) auth_id: MessageId,
    /// Whether the UE does without our certificate (RFC 5998).
    pub(super) alone: bool,
    /// Whether the UE has our identity and proof.
    pub(super) introduced: bool,
    /// Whether it is noted that the UE has no SIM: it may tell its name several times.
    pub(super) without_sim: bool,
    pub(super) rounds: u8,
    pub(super) step: Step,
}

/// Whose turn it is.
pub(super) enum Step {
    /// The back end's; the request with this number and digest is answered when it has spoken.
    Asked { message_id: MessageId, digest: u64 },
    /// The UE's.
    Told,
    /// The UE's, with AUTH: the back end lets it in.
    Accepted(Box<Accepted>),
}

impl EapState {
    /// The request that waits for the back end's answer, by its digest.
    pub(super) fn waits_with(&self) -> Option<u64> {
        match self.step {
            Step::Asked { digest, .. } => Some(digest),
            Step::Told | Step::Accepted(_) => None,
        }
    }

    fn policy(&self) -> Option<&EapPolicy> {
        match &self.profile.auth {
            AuthKind::Eap(policy) => Some(policy),
            AuthKind::Psk(_) | AuthKind::Certificate => None,
        }
    }
}

/// Why an exchange is the last one; the response says so already.
pub(super) struct Over;

impl Responder {
    /// Takes the first IKE_AUTH request without AUTH: the UE wants EAP.
    pub(super) fn begin_eap(
        &mut self,
        at: &Arrived,
        spi: IkeSpi,
        header: &IkeHeader,
        whole: Whole,
        digest: u64,
    ) -> Verdict {
        let Ok(payloads) = self.core.read(&whole) else { return Verdict::Bad };
        let Some(mut half) = self.half_open.remove(&spi) else { return Verdict::Bad };
        let mut builder = response_to(&half, header.message_id);
        let begun = self.may_attach(at.now, &mut half, &payloads, &mut builder).then(|| {
            self.core.trace_in(header, &payloads);
            self.core.choose_eap(at, &half, &payloads, self.next_attempt)
        });
        let begun = match begun {
            Some(Ok(begun)) if whole.chain.len() <= REQUEST_LEN_MAX => Some(begun),
            Some(Ok(_)) => {
                self.core.refuse_syntax(&mut builder);
                None
            }
            Some(Err(cause)) => {
                self.core.fail_auth(at.now, &mut half, cause);
                builder.notify(NotifyType::AUTHENTICATION_FAILED, &[]);
                None
            }
            None => None,
        };
        let Some(begun) = begun else {
            self.half_open.insert(spi, half);
            self.end_half_open(at, spi, digest, builder);
            return Verdict::Good;
        };
        self.next_attempt += 1;
        self.attempts.insert(begun.attempt, spi);
        self.core.counters.exchanges.eap_started += 1;
        half.record.step(at.now, "eap");
        half.record.about(&begun.subject);
        let own_request = begun.asks_identity();
        half.eap = Some(Box::new(begun.state(whole, header.message_id, digest)));
        half.conn = at.conn;
        half.path = at.path;
        self.core.timers.cancel(Owner::HalfOpen(spi));
        self.core.timers.schedule(Owner::HalfOpen(spi), half.created + self.core.config.limits.eap_timeout);
        self.half_open.insert(spi, half);
        if own_request {
            let packet = vec![EAP_REQUEST, IDENTITY_ROUND, 0, 5, EAP_IDENTITY];
            let attempt = self.half_open.get(&spi).and_then(|half| half.eap.as_ref()).map(|eap| eap.attempt);
            if let Some(attempt) = attempt {
                self.handle_aaa(at.now, attempt, AaaAnswer::Continue { packet });
            }
        } else {
            self.ask(at.now, spi, None);
        }
        Verdict::Good
    }

    /// Takes a further IKE_AUTH request of an attempt: an EAP response, or AUTH at its end.
    pub(super) fn continue_eap(
        &mut self,
        at: &Arrived,
        spi: IkeSpi,
        header: &IkeHeader,
        whole: Option<Whole>,
        digest: u64,
    ) -> Verdict {
        let Some(half) = self.half_open.get_mut(&spi) else { return Verdict::Bad };
        half.conn = at.conn;
        half.path = at.path;
        self.core.carry_half_open(at, spi);
        let Some(half) = self.half_open.get_mut(&spi) else { return Verdict::Bad };
        let Some(eap) = &mut half.eap else { return Verdict::Bad };
        let payloads = whole.as_ref().and_then(|whole| self.core.read(whole).ok());
        if let Some(payloads) = &payloads {
            self.core.trace_in(header, payloads);
        }
        match (&eap.step, payloads) {
            (Step::Told, Some(payloads)) if is_response(payloads.eap.as_ref()) => {
                if let Some(imei) = handset::imei(&payloads) {
                    eap.subject.imei = Some(imei.into());
                    half.record.about(&eap.subject);
                }
                eap.step = Step::Asked { message_id: header.message_id, digest };
                let packet = payloads.eap.map(|eap| eap.packet.to_vec());
                self.ask(at.now, spi, packet);
            }
            (Step::Accepted(_), Some(payloads)) if payloads.auth.is_some() => {
                self.finish_eap(at, spi, header, digest, &payloads);
            }
            _ => {
                let mut builder = response_to(half, header.message_id);
                half.record.fail(at.now, "the UE broke off EAP");
                self.core.refuse_syntax(&mut builder);
                self.end_half_open(at, spi, digest, builder);
            }
        }
        Verdict::Good
    }

    /// Sends the peer's packet, or its identity in place of one, to the back end.
    fn ask(&mut self, now: Instant, spi: IkeSpi, packet: Option<Vec<u8>>) {
        let Some(half) = self.half_open.get_mut(&spi) else { return };
        let Some(eap) = half.eap.as_mut() else { return };
        let Some(policy) = eap.policy() else { return };
        let (backend, takes_imei) = (policy.backend.clone(), policy.imei);
        let packet = packet.unwrap_or_else(|| identity_response(eap.idi.data()));
        if let Some(named) = identity_in(&packet) {
            eap.subject.idi = named.into();
            if let Some(imei) = handset::named_by_device(named) {
                eap.subject.imei.get_or_insert_with(|| imei.into());
                let noted = std::mem::replace(&mut eap.without_sim, true);
                if !noted {
                    half.record.about(&eap.subject);
                    half.record.step(now, "no sim");
                }
                if !takes_imei {
                    let (cause, attempt) = (RejectCause::EmergencyNotSupported, eap.attempt);
                    return self.handle_aaa(
                        now,
                        attempt,
                        AaaAnswer::Reject { packet: None, cause, why: None },
                    );
                }
                self.core.counters.exchanges.emergency_imei += u64::from(!noted);
            }
        }
        let step = EapStep { attempt: eap.attempt, backend, packet, subject: eap.subject.clone() };
        self.core.events.push_back(Event::Aaa(Box::new(AaaOrder::Step(step))));
    }

    /// Takes the back end's answer. One to an attempt that is over is ignored.
    pub fn handle_aaa(&mut self, now: Instant, attempt: AttemptId, answer: AaaAnswer) {
        let Some(&spi) = self.attempts.get(&attempt) else { return };
        let Some(half) = self.half_open.get_mut(&spi) else { return };
        let Some(eap) = &half.eap else { return };
        let Step::Asked { message_id, digest } = eap.step else { return };
        self.core.traced = half.traced;
        let at = Arrived { now, conn: half.conn, path: half.path };
        let mut builder = response_to(half, message_id);
        match self.core.answer_eap(&at, half, answer, &mut builder) {
            Ok(()) => {
                let Some(Secrets::Keys(keys)) = &mut half.secrets else { return };
                let room = self.core.message_room(half.fragmentation, &at.path);
                let response = self.core.seal(builder, &mut keys.key_out, room);
                half.window.answered(now, digest, &response);
                self.core.transmit(at.conn, &at.path, response);
            }
            Err(Over) => self.end_half_open(&at, spi, digest, builder),
        }
    }

    /// The UE shows that it has the Master Session Key, and so do we: the session stands.
    fn finish_eap(
        &mut self,
        at: &Arrived,
        spi: IkeSpi,
        header: &IkeHeader,
        digest: u64,
        payloads: &Payloads<'_>,
    ) {
        let Some(half) = self.half_open.get_mut(&spi) else { return };
        let mut builder = response_to(half, header.message_id);
        // It began before the gateway was told to leave.
        if self.draining && !self.core.can_redirect(half) {
            self.core.counters.drops.draining += 1;
            half.record.fail(at.now, "the gateway is draining");
            builder.notify(NotifyType::TEMPORARY_FAILURE, &[]);
            self.end_half_open(at, spi, digest, builder);
            return;
        }
        let proof = match self.core.verify_msk(half, payloads) {
            Ok(proof) => proof,
            Err(cause) => {
                self.core.fail_auth(at.now, half, cause);
                builder.notify(NotifyType::AUTHENTICATION_FAILED, &[]);
                self.end_half_open(at, spi, digest, builder);
                return;
            }
        };
        let Some(eap) = half.eap.take() else { return };
        self.attempts.remove(&eap.attempt);
        let Some(mut half) = self.remove_half_open(spi) else { return };
        let Some(Secrets::Keys(keys)) = half.secrets.take() else { return };
        let EapState {
            attempt, profile, subject, request, idi, asked, step: Step::Accepted(accepted), ..
        } = *eap
        else {
            return;
        };
        builder.auth(&proof.auth());
        let idi = accepted.identity.as_deref().and_then(permanent).unwrap_or(idi);
        let peer = Authenticated {
            profile,
            idi,
            idr: asked.unwrap_or_else(|| self.core.config.identity.clone()),
            proof,
            mixed: None,
            since: self.core.unix_time(at.now),
            granted: Some(Box::new(Granted { attempt, accepted, subject })),
        };
        // It was read when it came.
        let Ok(first) = self.core.read(&request) else { return };
        self.establish(at, half, header, digest, *keys, peer, &first, builder);
    }
}

/// What was found out about an attempt before it has a number and a place.
pub(super) struct Begun {
    pub(super) attempt: AttemptId,
    pub(super) profile: Arc<Profile>,
    pub(super) subject: Subject,
    pub(super) idi: Identity,
    pub(super) asked: Option<Identity>,
    pub(super) alone: bool,
}

impl Begun {
    /// Whether IDi is no name that a back end knows: the UE is asked for one (RFC 7296 §2.16).
    fn asks_identity(&self) -> bool {
        let AuthKind::Eap(policy) = &self.profile.auth else { return false };
        match policy.identity {
            EapIdentity::Ask => true,
            EapIdentity::Idi => false,
            EapIdentity::Auto => {
                !matches!(self.idi.kind(), IdType::FQDN | IdType::RFC822_ADDR | IdType::KEY_ID)
            }
        }
    }

    fn state(self, request: Whole, message_id: MessageId, digest: u64) -> EapState {
        EapState {
            attempt: self.attempt,
            profile: self.profile,
            subject: self.subject,
            request,
            idi: self.idi,
            asked: self.asked,
            auth_id: message_id,
            alone: self.alone,
            introduced: false,
            without_sim: false,
            rounds: 0,
            step: Step::Asked { message_id, digest },
        }
    }
}

/// An empty response to an IKE_AUTH request of a half-open IKE SA.
fn response_to(half: &HalfOpen, message_id: MessageId) -> MessageBuilder {
    let flags = Flags::new(false, true);
    MessageBuilder::new(half.spi_i, half.spi_r, ExchangeType::IKE_AUTH, flags, message_id)
}

fn is_response(eap: Option<&EapView<'_>>) -> bool {
    eap.is_some_and(|eap| eap.packet.first() == Some(&EAP_RESPONSE))
}

/// The EAP-Response/Identity that a peer would have sent with this name.
fn identity_response(name: &[u8]) -> Vec<u8> {
    // Identities are far shorter than a packet can be.
    let len = (5 + name.len()) as u16;
    let mut packet = vec![EAP_RESPONSE, IDENTITY_ROUND];
    packet.extend_from_slice(&len.to_be_bytes());
    packet.push(EAP_IDENTITY);
    packet.extend_from_slice(name);
    packet
}

/// The name in an EAP-Response/Identity.
fn identity_in(packet: &[u8]) -> Option<&str> {
    match packet {
        [EAP_RESPONSE, _, _, _, EAP_IDENTITY, name @ ..] if !name.is_empty() => {
            std::str::from_utf8(name).ok()
        }
        _ => None,
    }
}

/// The identity a session goes by when the back end knows the UE by another than it used.
fn permanent(name: &str) -> Option<Identity> {
    let kind = if name.contains('@') { IdType::RFC822_ADDR } else { IdType::FQDN };
    Identity::new(kind, name.as_bytes())
}
