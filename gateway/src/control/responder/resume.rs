//! IKE_SESSION_RESUME (RFC 5723): a UE comes back with a ticket, on any transport, without key exchange, certificates or
//! EAP. IKE_AUTH follows as ever, with an AUTH that shows the SK_d inside the ticket; addresses, Child SAs, MOBIKE and NAT
//! detection are new. The session that the ticket came from ends without a word when the new one stands.

use codec::crypto::{AuthSignature, IkeKeys, SaNonces, Secret, signed_octets};
use codec::ike::payload::AuthView;
use codec::ike::{AuthMethod, Flags, IkeHeader, IkeSpi, MessageBuilder, MessageId, NotifyType};

use super::aaa::EndCause;
use super::authenticate::{Authenticated, Cause, Proof, identity};
use super::config::{AuthKind, EapPolicy, Profile};
use super::counters::DropCounters;
use super::identity::Identity;
use super::init::{Begun, announces_intermediate};
use super::inner::Payloads;
use super::sa::{DerivedKeys, HalfOpen, Secrets, Session, hard};
use super::ticket::{Ticket, TicketError};
use super::{Arrived, Core, Responder, Verdict, nat};

/// Seconds that a ticket must be good for at least to be given.
const LIFETIME_MIN_S: u64 = 60;

impl TicketError {
    fn counter(self, drops: &mut DropCounters) -> &mut u64 {
        match self {
            Self::Invalid => &mut drops.ticket_invalid,
            Self::Expired => &mut drops.ticket_expired,
            Self::Reused => &mut drops.ticket_reused,
        }
    }
}

impl Responder {
    /// Serves an IKE_SESSION_RESUME that has shown what load demands.
    pub(super) fn serve_resume(
        &mut self,
        at: &Arrived,
        header: &IkeHeader,
        message: &[u8],
        payloads: &Payloads<'_>,
    ) -> Verdict {
        let core = &mut self.core;
        if let Some(kind) = payloads.unknown_critical {
            core.counters.drops.unknown_critical_payload += 1;
            core.answer_init(at, header, NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, &[kind.0]);
            return Verdict::Bad;
        }
        let (Some(nonce), Some(opaque)) = (payloads.nonce, payloads.notify(NotifyType::TICKET_OPAQUE)) else {
            core.counters.drops.bad_syntax_unprotected += 1;
            core.reply_unprotected(at, header, NotifyType::INVALID_SYNTAX);
            return Verdict::Bad;
        };
        let ticket = match core.take_ticket(at, opaque.data) {
            Ok(ticket) => ticket,
            // RFC 5723 §4.3.2: the UE goes on with an IKE_SA_INIT.
            Err(error) => {
                *error.counter(&mut core.counters.drops) += 1;
                core.answer_init(at, header, NotifyType::TICKET_NACK, &[]);
                return Verdict::Good;
            }
        };
        let (spi_r, nonce_r) = (core.new_ike_spi(), core.new_nonce());
        let response = core.resume_response(at, header, spi_r, &nonce_r, payloads);
        let nonces = SaNonces { initiator: nonce.data, responder: &nonce_r };
        let keys = IkeKeys::resume(&ticket.suite, &ticket.sk_d, nonces, header.spi_i, spi_r);
        let begun = Begun {
            suite: ticket.suite,
            additional: ticket.additional,
            secrets: Secrets::Keys(Box::new(DerivedKeys::new(keys, &ticket.suite))),
            spi_r,
            nonce_r: nonce_r.to_vec(),
            nonce_i: nonce.data.to_vec(),
            response,
            resumed: Some(Box::new(ticket)),
        };
        self.keep_half_open(at, header, message, payloads, begun);
        Verdict::Good
    }

    /// The session that a ticket stood for is there anew: the ticket is spent and the old session, of which no UE knows
    /// any more, ends (RFC 5723 §4.3.4).
    pub(super) fn finish_resumption(&mut self, at: &Arrived, ticket: &Ticket) {
        let now = self.core.unix_time(at.now);
        self.core.tickets.spend(ticket, now, self.core.config.limits.used_tickets_max);
        self.core.counters.exchanges.resumed += 1;
        let old = self.core.tickets.session_of(ticket);
        let same = |id| self.sessions.get(&id).is_some_and(|session| session.idi == ticket.idi);
        if let Some(id) = old.filter(|id| same(*id)) {
            self.end_session(at.now, id, EndCause::Replaced);
        }
    }
}

impl Core {
    fn take_ticket(&self, at: &Arrived, octets: &[u8]) -> Result<Ticket, TicketError> {
        let resumption = self.config.resumption.as_ref().ok_or(TicketError::Invalid)?;
        let now = self.unix_time(at.now);
        let ticket = self.tickets.open(octets, now)?;
        let reauth = ticket.authenticated.saturating_add(resumption.reauth.as_secs());
        if now >= reauth { Err(TicketError::Expired) } else { Ok(ticket) }
    }

    fn resume_response(
        &mut self,
        at: &Arrived,
        header: &IkeHeader,
        spi_r: IkeSpi,
        nonce: &[u8],
        payloads: &Payloads<'_>,
    ) -> bytes::Bytes {
        let flags = Flags::new(false, true);
        let mut builder = MessageBuilder::new(header.spi_i, spi_r, header.exchange, flags, header.message_id);
        builder.nonce(nonce);
        for (kind, address) in nat::announced(&at.path) {
            builder.notify(kind, &nat::hash(header.spi_i, spi_r, address));
        }
        builder.notify(NotifyType::CHILDLESS_IKEV2_SUPPORTED, &[]);
        if payloads.notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED).is_some() {
            builder.notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED, &[]);
        }
        if announces_intermediate(payloads) {
            builder.notify(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED, &[]);
        }
        builder.finish().expect("a response of bounded parts").into()
    }

    /// Checks the IKE_AUTH of a resumed IKE SA: same identities, a profile that still takes them, and an AUTH made with
    /// the new SK_pi alone (RFC 5723 §5.2).
    pub(super) fn authenticate_resumed(
        &self,
        at: &Arrived,
        half: &HalfOpen,
        ticket: &Ticket,
        auth_id: MessageId,
        keys: &IkeKeys,
        payloads: &Payloads<'_>,
    ) -> Result<Authenticated, Cause> {
        let mismatch: Cause = |drops| &mut drops.auth_identity_mismatch;
        let id_i_body = payloads.id_i.ok_or(mismatch)?;
        let asked = payloads.id_r.map(identity);
        if asked.is_some_and(|idr| idr.as_ref() != Some(&ticket.idr)) {
            return Err(mismatch);
        }
        // Two half-open IKE SAs may have come of one ticket.
        if self.tickets.is_used(ticket) {
            return Err(|drops| &mut drops.ticket_reused);
        }
        let profile = self.config.profiles.iter().find(|profile| profile.name == ticket.profile);
        let profile = profile.filter(|profile| still_takes(profile, ticket));
        let profile = profile.ok_or((|drops| &mut drops.auth_no_profile) as Cause)?;
        // After EAP the ticket has the name that the back end knows, which a pseudonym in IDi hides.
        let by_eap = matches!(profile.auth, AuthKind::Eap(_));
        if !by_eap && identity(id_i_body).as_ref() != Some(&ticket.idi) {
            return Err(mismatch);
        }
        if !profile.transports.contains(&at.path.of_session().transport) {
            return Err(|drops| &mut drops.auth_profile_transport);
        }
        let prf = half.suite.prf;
        let sign = |first: &[u8], nonce: &[u8], sk_p: &Secret, id: &[u8]| {
            let mut octets = signed_octets(prf, first, nonce, sk_p, id);
            octets.extend_from_slice(&half.int_auth(auth_id));
            prf.compute(sk_p.as_bytes(), &[&octets])
        };
        let expected = sign(&half.request, &half.nonce_r, &keys.sk_pi, id_i_body);
        let good = |auth: &AuthView<'_>| {
            auth.method == AuthMethod::SHARED_KEY && expected == Secret::from(auth.data)
        };
        payloads.auth.filter(good).ok_or((|drops| &mut drops.auth_psk_mismatch) as Cause)?;
        let own = sign(&half.response, &half.nonce_i, &keys.sk_pr, &self.config.identity.payload_body());
        let signature = AuthSignature { method: AuthMethod::SHARED_KEY, data: own.as_bytes().to_vec() };
        Ok(Authenticated {
            profile: profile.clone(),
            idi: ticket.idi.clone(),
            idr: ticket.idr.clone(),
            proof: Proof::of(signature),
            mixed: None,
            since: ticket.authenticated,
            granted: None,
        })
    }

    /// Answers TICKET_REQUEST: a ticket by value with its lifetime, or TICKET_NACK (RFC 5723 §4.1, §4.2).
    pub(super) fn give_ticket(&mut self, at: &Arrived, session: &Session, builder: &mut MessageBuilder) {
        match self.make_ticket(at, session) {
            Some((lifetime_s, ticket)) => {
                self.counters.exchanges.tickets_given += 1;
                let data = [&lifetime_s.to_be_bytes()[..], &ticket].concat();
                builder.notify(NotifyType::TICKET_LT_OPAQUE, &data);
            }
            None => {
                builder.notify(NotifyType::TICKET_NACK, &[]);
            }
        }
    }

    fn make_ticket(&mut self, at: &Arrived, session: &Session) -> Option<(u32, Vec<u8>)> {
        let resumption = self.config.resumption.as_ref()?;
        if EapPolicy::tracks(&session.profile.auth) {
            return None;
        }
        let now = self.unix_time(at.now);
        let reauth = session.authenticated.saturating_add(resumption.reauth.as_secs()).saturating_sub(now);
        // RFC 5723 §6.2: no longer than the IKE SA, nor than the authentication behind it.
        let sa = hard(session.profile.rekey_ike).as_secs();
        let lifetime = resumption.lifetime.as_secs().min(sa).min(reauth);
        if lifetime < LIFETIME_MIN_S {
            return None;
        }
        let ticket = Ticket {
            id: Default::default(),
            issued: now,
            expires: now + lifetime,
            authenticated: session.authenticated,
            origin: self.tickets.origin(session.id),
            sk_d: session.ike.sk_d.clone(),
            suite: session.ike.suite,
            additional: session.additional,
            profile: session.profile.name.clone(),
            idi: session.idi.clone(),
            idr: session.idr.clone(),
        };
        let sealed = self.tickets.seal(&ticket, &mut *self.random)?;
        Some((u32::try_from(lifetime).unwrap_or(u32::MAX), sealed))
    }
}

/// Whether a profile, which may have changed meanwhile, would still have the UE of a ticket.
fn still_takes(profile: &Profile, ticket: &Ticket) -> bool {
    let text = |id: &Identity| id.to_string();
    !EapPolicy::tracks(&profile.auth)
        && profile.idi.matches(&text(&ticket.idi))
        && (profile.idr.matches_absent() || profile.idr.matches(&text(&ticket.idr)))
        && profile
            .ike
            .iter()
            .any(|ike| ike.allows(&ticket.suite) && ike.allows_additional(&ticket.additional))
}
