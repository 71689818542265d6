//! The contents of EAP rounds: what the back end is told of a UE, what its answer means for the UE, and the proofs of both
//! ends (RFC 7296 §2.16).

use codec::crypto::{AuthSignature, IkeKeys, psk_auth, signed_octets, verify_psk_auth};
use codec::ike::payload::{AuthView, CertView, EapView, IdView};
use codec::ike::{AuthMethod, CertEncoding, MessageBuilder, MessageId, NotifyType};

use super::aaa::{AaaAnswer, AttemptId, RejectCause, Subject};
use super::authenticate::{Cause, Proof, Way, identity, prove};
use super::config::AuthKind;
use super::eap::{Begun, Over, Step};
use super::handset;
use super::inner::Payloads;
use super::sa::{HalfOpen, Secrets};
use super::{Arrived, Core};

/// EAP rounds of one attempt: EAP-TLS with a long chain takes about thirty.
const ROUNDS_MAX: u8 = 48;

/// Codes of EAP packets (RFC 3748 §4).
const EAP_REQUEST: u8 = 1;
const EAP_SUCCESS: u8 = 3;

impl Core {
    /// Finds the profile, and what the back end is told.
    pub(super) fn choose_eap(
        &self,
        at: &Arrived,
        half: &HalfOpen,
        payloads: &Payloads<'_>,
        attempt: u64,
    ) -> Result<Begun, Cause> {
        let read = |body: &[u8]| identity(body);
        let no_profile: Cause = |drops| &mut drops.auth_no_profile;
        let idi = payloads.id_i.and_then(read).ok_or(no_profile)?;
        let asked = payloads.id_r.map(|body| read(body).ok_or(no_profile)).transpose()?;
        let profile = self.find_profile(at, half, &idi, asked.as_ref(), Way::Eap)?.clone();
        let AuthKind::Eap(policy) = &profile.auth else { return Err(no_profile) };
        let alone = policy.alone && payloads.notify(NotifyType::EAP_ONLY_AUTHENTICATION).is_some();
        let home = at.path.of_session();
        let subject = Subject {
            idi: idi.to_string().into(),
            apn: asked.as_ref().map(|apn| apn.to_string().to_lowercase().into()),
            profile: profile.name.as_str().into(),
            method: policy.method,
            local: home.local,
            remote: home.remote,
            transport: home.transport,
            emergency: profile.handset.emergency,
            imei: handset::imei(payloads).map(Into::into),
        };
        Ok(Begun { attempt: AttemptId(attempt), profile, subject, idi, asked, alone })
    }

    /// Writes what the back end's answer means for the UE.
    pub(super) fn answer_eap(
        &mut self,
        at: &Arrived,
        half: &mut HalfOpen,
        answer: AaaAnswer,
        builder: &mut MessageBuilder,
    ) -> Result<(), Over> {
        let unusable = AaaAnswer::Reject { packet: None, cause: RejectCause::NetworkFailure, why: None };
        let rounds = half.eap.as_ref().map_or(0, |eap| eap.rounds);
        let answer = match answer {
            AaaAnswer::Continue { ref packet }
                if rounds == ROUNDS_MAX || code(packet) != Some(EAP_REQUEST) =>
            {
                unusable
            }
            // A key, and something before it that the UE could have authenticated us by.
            AaaAnswer::Accept(ref accepted)
                if accepted.msk.is_empty() || rounds == 0 || code(&accepted.packet) != Some(EAP_SUCCESS) =>
            {
                unusable
            }
            answer => answer,
        };
        match answer {
            AaaAnswer::Continue { packet } => {
                self.introduce(half, builder).map_err(|cause| {
                    self.fail_auth(at.now, half, cause);
                    builder.notify(NotifyType::AUTHENTICATION_FAILED, &[]);
                    Over
                })?;
                builder.eap(&EapView { packet: &packet });
                let Some(eap) = &mut half.eap else { return Err(Over) };
                eap.rounds += 1;
                eap.step = Step::Told;
                half.record.step(at.now, "round");
                Ok(())
            }
            AaaAnswer::Accept(mut accepted) => {
                builder.eap(&EapView { packet: &accepted.packet });
                accepted.packet.clear();
                let Some(eap) = &mut half.eap else { return Err(Over) };
                eap.step = Step::Accepted(accepted);
                half.record.step(at.now, "accepted");
                Ok(())
            }
            AaaAnswer::Reject { packet, cause, why } => {
                self.counters.rejects.add(cause);
                half.record.fail(at.now, why.unwrap_or(cause.in_words()));
                if let Some(packet) = packet.filter(|packet| EapView::decode(packet).is_ok()) {
                    builder.eap(&EapView { packet: &packet });
                }
                if let Some(eap) = &half.eap {
                    handset::refuse(builder, &eap.profile, &eap.subject, cause);
                }
                Err(Over)
            }
        }
    }

    /// Says who we are and proves it, once (RFC 7296 §2.16); with RFC 5998 the proof comes of EAP.
    fn introduce(&self, half: &mut HalfOpen, builder: &mut MessageBuilder) -> Result<(), Cause> {
        let Some(eap) = &half.eap else { return Ok(()) };
        if eap.introduced {
            return Ok(());
        }
        let own = &self.config.identity;
        builder.id_r(&IdView { kind: own.kind(), data: own.data() });
        if !eap.alone {
            let store = self.config.certificates.as_deref();
            let store = store.ok_or((|drops| &mut drops.auth_own_failed) as Cause)?;
            let Some(Secrets::Keys(keys)) = &half.secrets else { return Ok(()) };
            let proof = prove(store, half, &self.own_octets(half, &keys.ike, eap.auth_id))?;
            for certificate in &proof.certificates {
                builder.cert(&CertView { encoding: CertEncoding::X509_SIGNATURE, data: certificate });
            }
            builder.auth(&proof.auth());
        }
        handset::ask_device(builder, &eap.profile);
        if let Some(eap) = &mut half.eap {
            eap.introduced = true;
        }
        Ok(())
    }

    /// Checks the UE's AUTH, made with the Master Session Key, and makes ours.
    pub(super) fn verify_msk(&self, half: &HalfOpen, payloads: &Payloads<'_>) -> Result<Proof, Cause> {
        let mismatch: Cause = |drops| &mut drops.auth_msk_mismatch;
        let eap = half.eap.as_ref().ok_or(mismatch)?;
        let (Step::Accepted(accepted), Some(Secrets::Keys(keys))) = (&eap.step, &half.secrets) else {
            return Err(mismatch);
        };
        let auth: &AuthView<'_> = payloads.auth.as_ref().ok_or(mismatch)?;
        let prf = half.suite.prf;
        let first = self.read(&eap.request).map_err(|_| mismatch)?;
        let id_i = first.id_i.ok_or(mismatch)?;
        let mut octets = signed_octets(prf, &half.request, &half.nonce_r, &keys.ike.sk_pi, id_i);
        octets.extend_from_slice(&half.int_auth(eap.auth_id));
        let proven =
            auth.method == AuthMethod::SHARED_KEY && verify_psk_auth(prf, &accepted.msk, &octets, auth.data);
        if !proven {
            return Err(mismatch);
        }
        let data = psk_auth(prf, &accepted.msk, &self.own_octets(half, &keys.ike, eap.auth_id));
        Ok(Proof::of(AuthSignature { method: AuthMethod::SHARED_KEY, data: data.as_bytes().to_vec() }))
    }

    /// What our AUTH covers.
    fn own_octets(&self, half: &HalfOpen, keys: &IkeKeys, auth_id: MessageId) -> Vec<u8> {
        let body = self.config.identity.payload_body();
        let mut octets = signed_octets(half.suite.prf, &half.response, &half.nonce_i, &keys.sk_pr, &body);
        octets.extend_from_slice(&half.int_auth(auth_id));
        octets
    }
}

/// The code of a well-formed EAP packet.
fn code(packet: &[u8]) -> Option<u8> {
    EapView::decode(packet).ok()?;
    packet.first().copied()
}
