//! Whether the gateway is who it should be (RFC 7296 §2.15): AUTH by a certificate, a PSK or the MSK of EAP.

use super::auth::{Authenticating, Received};
use super::config::Credentials;
use super::trust::GatewayTrust;
use super::{EndCause, UeConfig};
use codec::crypto::{PublicKey, SignaturePolicy, signed_octets, verify_psk_auth};
use codec::ike::AuthMethod;
use codec::ike::payload::{AuthView, IdView};

impl Authenticating {
    /// RFC 7296 §2.15: the gateway's AUTH over its first message, our nonce and its identity.
    pub(super) fn verify(&self, config: &UeConfig, received: &Received<'_>) -> Result<(), EndCause> {
        let (Some((id_body, idr)), Some(auth)) = (received.idr, received.auth) else {
            return Err(EndCause::Unauthenticated("no IDr or no AUTH"));
        };
        self.check_identity(config, &idr)?;
        let octets = self.gateway_octets(id_body);
        match &config.credentials {
            Credentials::Psk(psk) => self.verify_key(psk, &auth, &octets),
            Credentials::Certificate(certificate) => {
                self.verify_signature(Some(&certificate.trust), &received.certs, &idr, &auth, &octets)
            }
            Credentials::Eap(eap) => {
                self.verify_signature(eap.trust.as_ref(), &received.certs, &idr, &auth, &octets)
            }
        }
    }

    pub(super) fn check_identity(&self, config: &UeConfig, idr: &IdView<'_>) -> Result<(), EndCause> {
        match &config.gateway_id {
            Some(wanted) if !wanted.is(idr) => {
                Err(EndCause::Unauthenticated("another identity than expected"))
            }
            _ => Ok(()),
        }
    }

    /// What the gateway's AUTH covers.
    pub(super) fn gateway_octets(&self, id_body: &[u8]) -> Vec<u8> {
        let proof = &self.proof;
        signed_octets(self.sa.suite.prf, &proof.response, &proof.nonce_i, &proof.sk_pr, id_body)
    }

    /// AUTH by a key that both ends have: a PSK, or the MSK of EAP.
    pub(super) fn verify_key(&self, key: &[u8], auth: &AuthView<'_>, octets: &[u8]) -> Result<(), EndCause> {
        let proven = auth.method == AuthMethod::SHARED_KEY
            && verify_psk_auth(self.sa.suite.prf, key, octets, auth.data);
        if proven { Ok(()) } else { Err(EndCause::Unauthenticated("wrong AUTH")) }
    }

    /// AUTH by a certificate that `trust` believes; any, without it.
    pub(super) fn verify_signature(
        &self,
        trust: Option<&GatewayTrust>,
        certs: &[&[u8]],
        idr: &IdView<'_>,
        auth: &AuthView<'_>,
        octets: &[u8],
    ) -> Result<(), EndCause> {
        let (leaf, intermediates) = certs.split_first().ok_or(EndCause::Unauthenticated("no certificate"))?;
        if let Some(trust) = trust {
            trust
                .verify(leaf, intermediates, idr)
                .map_err(|error| EndCause::Unauthenticated(error.reason()))?;
        }
        PublicKey::from_certificate(leaf)
            .and_then(|key| key.verify(auth.method, auth.data, octets, SignaturePolicy::default()))
            .map_err(|_| EndCause::Unauthenticated("wrong signature"))
    }
}
