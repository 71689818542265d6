//! IKE_AUTH with EAP inside (RFC 7296 §2.16): the gateway proves itself by a certificate, or not at all before the end
//! (RFC 5998), then EAP packets go to and fro, then both ends show that they have the Master Session Key.

use super::auth::{AuthStep, Authenticating, Received};
use super::config::{Credentials, EapCredentials};
use super::eap::{EapPeer, PeerStep};
use super::handset::device_identity;
use super::{EndCause, Subscriber, UeConfig};
use bytes::Bytes;
use codec::Random;
use codec::crypto::{Secret, psk_auth, signed_octets};
use codec::ike::payload::{AuthView, EapView};
use codec::ike::{AuthMethod, ExchangeType, NotifyType};
use std::time::Instant;

/// Most rounds of one attach.
const ROUNDS_MAX: u32 = 50;

/// Where the rounds stand.
pub(super) struct EapRun {
    peer: EapPeer,
    /// IDr of the first response, which AUTH of the last one covers too.
    gateway: Option<Vec<u8>>,
    /// The key, once EAP has succeeded.
    msk: Option<Secret>,
    fast: bool,
    /// What DEVICE_IDENTITY asks for: answered in the next request.
    device_wanted: Option<u8>,
    rounds: u32,
}

impl EapRun {
    /// Prepares the rounds, if EAP is how the UE authenticates.
    pub(super) fn begin(config: &UeConfig, who: &Subscriber) -> Result<Option<Box<Self>>, EndCause> {
        let Credentials::Eap(eap) = &config.credentials else { return Ok(None) };
        let sim = who.sim.clone().ok_or(EndCause::Local("EAP without a SIM"))?;
        let peer = EapPeer::new(eap.variant, eap.network_name.clone(), sim, who.idi.data.clone());
        Ok(Some(Box::new(Self {
            peer,
            gateway: None,
            msk: None,
            fast: false,
            device_wanted: None,
            rounds: 0,
        })))
    }
}

impl Authenticating {
    /// Takes a response, and makes the next request or ends.
    pub(super) fn go_on(
        &mut self,
        now: Instant,
        config: &UeConfig,
        who: &Subscriber,
        mut run: Box<EapRun>,
        received: &Received<'_>,
        random: &mut dyn Random,
    ) -> Result<AuthStep, EndCause> {
        if let Some(msk) = &run.msk {
            self.check(received)?;
            let auth = received.auth.as_ref().ok_or(EndCause::Unauthenticated("no AUTH"))?;
            let id_body = run.gateway.as_deref().ok_or(EndCause::Unauthenticated("no IDr"))?;
            self.verify_key(msk.as_bytes(), auth, &self.gateway_octets(id_body))?;
            return self.finish(config, received, run.fast);
        }
        let Credentials::Eap(eap) = &config.credentials else {
            return Err(EndCause::Local("EAP without credentials"));
        };
        if run.gateway.is_none() {
            self.meet(config, eap, &mut run, received)?;
        }
        if let Some([_, _, wanted, ..]) = received.device_identity {
            run.device_wanted = Some(*wanted);
        }
        run.rounds += 1;
        if run.rounds > ROUNDS_MAX {
            return Err(EndCause::BadAnswer("endless EAP"));
        }
        let packet = match (received.eap, received.error) {
            (Some(eap), _) => eap.packet,
            (None, Some(error)) => return Err(EndCause::Refused(error)),
            (None, None) => return Err(EndCause::BadAnswer("IKE_AUTH without EAP")),
        };
        let message = match run.peer.handle(packet, random)? {
            PeerStep::Respond(packet) => self.send_eap(now, who, &mut run, &packet, random),
            PeerStep::Success(msk, fast) => {
                run.fast = fast;
                self.send_proof(now, who, run.msk.insert(msk), random)
            }
            // The error type says more than EAP-Failure, unless it says the same (TS 24.302 §8.1.2.2).
            PeerStep::Failure(cause) => match received.error {
                Some(error) if error != NotifyType::AUTHENTICATION_FAILED => {
                    return Err(EndCause::Refused(error));
                }
                _ => return Err(cause),
            },
        };
        self.eap = Some(run);
        message.map(AuthStep::Again).ok_or(EndCause::Local("IKE_AUTH too long"))
    }

    /// The first response: who the gateway is. Only a UE that offered EAP alone goes on without proof.
    fn meet(
        &self,
        config: &UeConfig,
        eap: &EapCredentials,
        run: &mut EapRun,
        received: &Received<'_>,
    ) -> Result<(), EndCause> {
        self.check(received)?;
        let (id_body, idr) = received.idr.ok_or(EndCause::Unauthenticated("no IDr"))?;
        self.check_identity(config, &idr)?;
        match &received.auth {
            Some(auth) => {
                let octets = self.gateway_octets(id_body);
                self.verify_signature(eap.trust.as_ref(), &received.certs, &idr, auth, &octets)?;
            }
            None if eap.alone => {}
            None => return Err(EndCause::Unauthenticated("no AUTH before EAP")),
        }
        run.gateway = Some(id_body.to_vec());
        Ok(())
    }

    fn send_eap(
        &mut self,
        now: Instant,
        who: &Subscriber,
        run: &mut EapRun,
        packet: &[u8],
        random: &mut dyn Random,
    ) -> Option<Bytes> {
        let wanted = run.device_wanted.take();
        let device = wanted
            .zip(who.sim.as_ref())
            .and_then(|(wanted, sim)| device_identity(sim.borrow().imei(), wanted));
        self.sent_at = now;
        self.sa.request(now, ExchangeType::IKE_AUTH, random, |builder| {
            builder.eap(&EapView { packet });
            if let Some(device) = &device {
                builder.notify(NotifyType::DEVICE_IDENTITY, device);
            }
        })
    }

    /// AUTH made with the Master Session Key over our first message (RFC 7296 §2.15).
    fn send_proof(
        &mut self,
        now: Instant,
        who: &Subscriber,
        msk: &Secret,
        random: &mut dyn Random,
    ) -> Option<Bytes> {
        let prf = self.sa.suite.prf;
        let mut id_body = Vec::new();
        who.idi.view().encode(&mut id_body);
        let proof = &self.proof;
        let octets = signed_octets(prf, &proof.request, &proof.nonce_r, &proof.sk_pi, &id_body);
        let data = psk_auth(prf, msk.as_bytes(), &octets);
        self.sent_at = now;
        self.sa.request(now, ExchangeType::IKE_AUTH, random, |builder| {
            builder.auth(&AuthView { method: AuthMethod::SHARED_KEY, data: data.as_bytes() });
        })
    }
}
